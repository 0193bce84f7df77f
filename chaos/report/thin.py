"""Fewer marks than there are, where a screen has no room for more: what is drawn says how much
it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = [
    "BARS_MAX",
    "GREY",
    "POINTS",
    "Bar",
    "Row",
    "last_before",
    "last_in_each_cell",
    "sampled",
    "thinned",
]

Row = tuple[Any, ...]

GREY = -1
"""The hue of a stranger, or of several clients at once."""

BARS_MAX = 1500
"""Marks of one kind in one chart: a browser draws some thousands of shapes in a blink."""

POINTS = 1000
"""Points in the width of a chart: what is closer together than one of them cannot be told apart."""

MERGED_CELLS = 3
"""Points that several bars drawn as one cover at most, so that it is seen where they were."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Something from *since* to *until* in a lane; *rest* are further columns, of which the last
    says how many it is."""

    lane: int
    since: float
    until: float
    rest: tuple[Any, ...]
    count: int = 1


def thinned(bars: Sequence[Bar], span: float) -> list[Bar]:
    """At most about `BARS_MAX` bars in lanes of *span* seconds, in the order of lanes and time."""
    drawn, cell = sorted(bars, key=lambda bar: (bar.lane, bar.since)), span / POINTS
    while len(drawn) > BARS_MAX and cell < span:
        drawn = _merged(drawn, cell)
        cell *= 2
    return drawn


def sampled(rows: Sequence[Row], most: int) -> list[Row]:
    """At most *most*, evenly."""
    step = max(1.0, len(rows) / most)
    return [rows[int(place * step)] for place in range(min(len(rows), most))]


def last_before(rows: list[Row], since: float) -> list[Row]:
    """Of what was before the window, only how it stood when the window began."""
    before = {row[2]: row for row in rows if row[0] <= since}
    return [*before.values(), *(row for row in rows if row[0] > since)]


def last_in_each_cell(rows: list[Row], cell: float) -> list[Row]:
    if len(rows) <= BARS_MAX:
        return rows
    ends = [
        row
        for row, following in pairwise(rows)
        if int(row[0] / cell) != int(following[0] / cell) or row[2] != following[2]
    ]
    return [*ends, rows[-1]]


def _merged(bars: Sequence[Bar], cell: float) -> list[Bar]:
    """Neighbours that are short, and closer together than *cell*, as one bar, which is short as
    well."""
    found: list[Bar] = []
    for bar in bars:
        last = found[-1] if found else None
        if (
            last is not None
            and last.lane == bar.lane
            and bar.since - last.until < cell
            and bar.until - bar.since < cell
            and bar.until - last.since < MERGED_CELLS * cell
        ):
            rest = tuple(
                one if one == other else _mixed(one)
                for one, other in zip(last.rest, bar.rest, strict=True)
            )
            found[-1] = Bar(
                bar.lane, last.since, max(last.until, bar.until), rest, last.count + bar.count
            )
        else:
            found.append(bar)
    return found


def _mixed(value: Any) -> Any:
    """What stands in a bar for two that differ."""
    return GREY if isinstance(value, int) else "several" if isinstance(value, str) else value
