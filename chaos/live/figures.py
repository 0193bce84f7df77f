"""Figures against bars: a line each, how it went, and whether that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from chaos.standstill import at_share

__all__ = ["Figure", "bounded", "shown", "spread", "told"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, how it went, and whether it keeps to its bar."""

    what: str
    value: str
    bar: str
    holds: bool


def bounded(what: str, values: Iterable[float], bar: float, words: str) -> Figure:
    """Seconds of which 99 in 100 are to be no more than *bar*."""
    ordered = sorted(values)
    over = sum(value > bar for value in ordered)
    more = f", {over} above the bar" if over else ""
    holds = bool(ordered) and at_share(ordered, 0.99) <= bar
    return Figure(
        f"{what}, p99 of {len(ordered)}",
        spread(ordered) + more,
        f"{1000 * bar:.1f} ms: {words}",
        holds,
    )


def told(what: str, values: Iterable[float]) -> Figure:
    """Seconds that are told, and have no bar."""
    return Figure(what, spread(values), "", holds=True)


def spread(values: Iterable[float]) -> str:
    """Seconds as people read them."""
    ordered = sorted(values)
    if not ordered:
        return "nothing measured"
    p50, p99, most = (1000 * at_share(ordered, share) for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms"


def shown(figures: Sequence[Figure]) -> Table:
    """For the terminal."""
    table = Table(box=None, pad_edge=False)
    for header in ("", "measured", "", "bar"):
        table.add_column(header, overflow="fold")
    for figure in figures:
        mark = ("[green]ok[/]" if figure.holds else "[bold red]NOT OK[/]") if figure.bar else ""
        table.add_row(mark, figure.what, figure.value, figure.bar)
    return table
