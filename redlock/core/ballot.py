"""Fencing tokens: how one is proposed, and how a too small one is outbid.

A token is microseconds since the epoch with random low bits: unique by construction, ordered by the
nodes, which raise their fence strictly and in the same script that takes the lock. A wrong client
clock costs a second round, never safety.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from redlock.core.commands import TOKEN_MAX
from redlock.core.effects import Source
from redlock.core.quorum import Kind, Vote

__all__ = ["Fences", "outbid", "propose"]

# About a millisecond: attempts of one such block differ by chance, later ones by time.
_RANDOM_BITS = 10
# Small random steps past a known fence: a busy client must not run ahead of the clock
# (docs/protocol.md 4.2).
_STEP = 16
_FENCES_MAX = 4096
"""Resources whose last token is remembered: a forgotten one costs a round, and no safety."""


def propose(source: Source, last_fence: int) -> int:
    """A token of now with random low bits, or the next few past *last_fence* when that is ahead
    of our clock."""
    token = (source.wall_us() >> _RANDOM_BITS << _RANDOM_BITS) + source.below(1 << _RANDOM_BITS)
    return token if token > last_fence else _past(last_fence, source)


def outbid(source: Source, token: int, votes: Iterable[Vote | None]) -> int:
    """The token of a second round: past every fence seen; from the nodes' clocks if ours was too
    far ahead."""
    seen = [vote for vote in votes if vote is not None]
    fence = max((vote.fence for vote in seen), default=0)
    if fence >= token:
        return _past(fence, source)
    times = [vote.time_us for vote in seen if vote.kind is Kind.BEHIND and vote.time_us]
    return _past(max(min(times, default=0), fence), source)


def _past(fence: int, source: Source) -> int:
    """A little past *fence*; never beyond `TOKEN_MAX`, where no node could tell one token from
    the next."""
    return min(fence + 1 + source.below(_STEP), TOKEN_MAX)


class Fences:
    """The largest fence seen per resource, so that the next proposal is large enough at once.
    Bounded; forgetting is safe."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def last(self, resource: str) -> int:
        """The largest fence seen for *resource*, 0 if none is remembered."""
        return self._seen.get(resource, 0)

    def saw(self, resource: str, fence: int) -> None:
        """Remember *fence* if it is the largest; the oldest resource is forgotten when there are
        too many."""
        seen = self._seen
        if fence > seen.get(resource, 0):
            seen.pop(resource, None)
            if len(seen) >= _FENCES_MAX:
                with suppress(StopIteration, RuntimeError):  # Another thread may have changed it.
                    seen.pop(next(iter(seen)), None)
            seen[resource] = fence
