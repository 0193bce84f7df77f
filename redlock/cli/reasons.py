"""What the command line says when it did not get a lock: who has it, or which nodes did not vote,
and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from redlock.core.quorum import majority
from redlock.core.remedies import advice, told
from redlock.diagnose import diagnose, is_hopeless
from redlock.errors import LockContended, QuorumUnavailable

__all__ = ["contended", "unavailable"]

_UNHEARD = "was not waited for"


def contended(error: LockContended, resource: str) -> str:
    """Who has it, for how long yet, and what to do."""
    busy = [vote for vote in error.votes if vote.ttl_left is not None]
    head = f"{resource!r} is somebody else's"
    if not busy:
        return told(f"{head}: others try for it at this moment", (), do="try again, or wait longer")
    longest = max(busy, key=lambda vote: _lasts(vote.ttl_left))
    count = f"on {len(busy)} of {len(error.votes)} nodes"
    reason = longest.reason.partition(" (repair")[0]
    do = advice(reason)
    return told(f"{head}: {count} it {reason}", (), do=do)


def unavailable(error: QuorumUnavailable, resource: str, nodes: Sequence[str]) -> tuple[str, bool]:
    """Which nodes did not vote and why; and whether none of that passes before somebody acts."""
    lasting = diagnose(
        nodes,
        [
            index
            for index, vote in enumerate(error.votes)
            if vote.error is not None or vote.reason == _UNHEARD
        ],
    )
    granted = sum(vote.granted for vote in error.votes)
    count = f"{granted} of {len(error.votes)} nodes granted, {majority(len(nodes))} needed"
    reasons = [
        (vote.node, lasting.get(index, vote.reason))
        for index, vote in enumerate(error.votes)
        if index in lasting or (vote.reason != _UNHEARD and not vote.granted)
    ]
    text = told(f"no quorum for {resource!r}: {count}", reasons)
    return text, is_hopeless(lasting, len(nodes))


def _lasts(ttl_left: float | None) -> float:
    return float("inf") if ttl_left is None or ttl_left < 0 else ttl_left
