"""What signs of work come to: overlap, stop lag and gap. Arithmetic alone; times in seconds, all
instants on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chaos.electors.signs import Stretch

__all__ = ["gap", "overlap", "stop_lag"]


def overlap(stretches: Sequence[Stretch]) -> float:
    """Seconds during which at least two candidates worked at once.

    A candidate works from the first sign of a stretch to its last. A single sign lasts no time: a
    piece of work that was begun before a pause and signed after it, which no look at a clock can
    prevent, is no overlap.
    """
    return sum(until - since for since, until, workers in _levels(stretches) if workers >= 2)


def gap(stretches: Sequence[Stretch], since: float, until: float) -> float:
    """Seconds of the longest time between *since* and *until* in which nobody worked."""
    longest, idle_at = 0.0, since
    for stretch in sorted(stretches, key=lambda one: one.since):
        if stretch.until < since or stretch.since > until:
            continue
        longest = max(longest, stretch.since - idle_at)
        idle_at = max(idle_at, stretch.until)
    return max(longest, until - idle_at)


def stop_lag(stretches: Sequence[Stretch], who: str, term: int, free_at: float) -> float:
    """Seconds that *who* worked on in its *term* after *free_at*, or 0.

    *free_at*: the earliest instant at which another candidate may lead, which is when the last
    renewal that reached the server was sent, plus the lease. Signs of a later term, to which it
    was elected anew, do not count.
    """
    ends = [one.until for one in stretches if (one.who, one.term) == (who, term)]
    return max(0.0, max(ends, default=free_at) - free_at)


def _levels(stretches: Sequence[Stretch]) -> Iterator[tuple[float, float, int]]:
    """From and until when, how many candidates worked. Stretches of one candidate lie apart."""
    steps = sorted(
        step
        for one in stretches
        for step in ((one.since, 1), (one.until, -1))
        if one.since < one.until
    )
    workers, since = 0, 0.0
    for at, step in steps:
        if at > since:
            yield since, at, workers
        workers, since = workers + step, at
