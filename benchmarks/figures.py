"""The arithmetic behind every figure: percentiles, ratios over interleaved rounds with their
uncertainty, fairness.

Pure functions on plain numbers, so that a test can check them against slower second versions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

__all__ = [
    "Ratio",
    "Turn",
    "gaps",
    "handoffs",
    "jain",
    "jumps",
    "overlaps",
    "percentile",
    "ratio_over_rounds",
]

_RESAMPLES = 400


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which *percent* per cent of *values* lie, linear between neighbours; NaN
    for no values."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    place = (len(ordered) - 1) * percent / 100.0
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio between two contenders of one run: the median over its rounds, and a 95 % interval
    of that median."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio_over_rounds(
    ours: Sequence[float], theirs: Sequence[float], seed: int = 0
) -> Ratio | None:
    """*ours* to *theirs*, round by round: what slowed down a whole round slowed down both.

    The interval is a bootstrap over rounds, drawn from *seed* so that the same figures give the
    same report. None if the two have no round in common; a round where one has no figure (NaN) does
    not count.
    """
    pairs = [
        (mine, other)
        for mine, other in zip(ours, theirs, strict=False)
        if mine == mine and other == other and other > 0
    ]
    quotients = [mine / other for mine, other in pairs]
    if not quotients:
        return None
    dice = random.Random(seed)
    medians = sorted(median(dice.choices(quotients, k=len(quotients))) for _ in range(_RESAMPLES))
    return Ratio(median(quotients), percentile(medians, 2.5), percentile(medians, 97.5))


def jain(counts: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when everybody had as much, 1 / n when one had everything; NaN
    for nothing at all."""
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else float("nan")


@dataclass(frozen=True, slots=True)
class Turn:
    """One stay in the critical section: asked for, entered and left at these instants of one
    clock, by *client*."""

    client: int
    asked_at: float
    entered_at: float
    left_at: float


def handoffs(turns: Sequence[Turn]) -> int:
    """How often the owner changed: one who takes the lock again at once has handed it to nobody."""
    ordered = sorted(turns, key=lambda turn: turn.entered_at)
    return sum(before.client != after.client for before, after in pairwise(ordered))


def overlaps(turns: Sequence[Turn]) -> int:
    """How often somebody entered while somebody else was still inside: 0, or it is no lock."""
    found, latest = 0, None
    for turn in sorted(turns, key=lambda turn: turn.entered_at):
        if latest is not None and turn.entered_at < latest.left_at and turn.client != latest.client:
            found += 1
        if latest is None or turn.left_at > latest.left_at:
            latest = turn
    return found


def jumps(turns: Sequence[Turn]) -> list[float]:
    """For each turn, how much earlier the first of those asked who were served after it: 0 where
    all are served in the order of asking."""
    found = []
    earliest = float("inf")
    for turn in sorted(turns, key=lambda turn: turn.entered_at, reverse=True):
        found.append(max(0.0, turn.asked_at - earliest))
        earliest = min(earliest, turn.asked_at)
    return found[::-1]


def gaps(turns: Sequence[Turn]) -> list[float]:
    """From each leaving to the next entering."""
    ordered = sorted(turns, key=lambda turn: turn.entered_at)
    return [after.entered_at - before.left_at for before, after in pairwise(ordered)]
