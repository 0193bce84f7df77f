"""How a number is written, wherever it is: by the checker, on the terminal, in a report. One
rounding, so that a reader who meets a number twice knows it again."""

from __future__ import annotations

from math import isfinite

__all__ = ["UNKNOWN", "duration", "percent"]

UNKNOWN = "?"

_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits it; zero is exact."""
    if not isfinite(seconds):
        return UNKNOWN
    if seconds == 0:
        return "0"
    for size, unit in _UNITS:
        # By what will be written: 59.99 s are a minute, as 999.9 ms are a second.
        if float(f"{abs(seconds):.3g}") >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{seconds * 1e6:.1f} µs"


def _three(value: float) -> str:
    size = float(f"{abs(value):.3g}")
    return f"{value:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def percent(share: float) -> str:
    """A share; 100 % only if it is all, and 0 % only if it is nothing."""
    if not isfinite(share):
        return UNKNOWN
    text = f"{share * 100:.1f}"
    if text == "100.0" and share < 1:
        return "99.9 %"
    return "0.1 %" if text == "0.0" and share > 0 else f"{text.removesuffix('.0')} %"
