"""Keeping a lease: extend it, and verify it without a clock. Both ask a majority whether this
very grant still stands."""

from __future__ import annotations

from redlock.core.commands import Take
from redlock.core.effects import Flow
from redlock.core.events import LeaseRenewed
from redlock.core.lease import Holding, Status, longest_ttl, valid_until
from redlock.core.quorum import Kind, Tally
from redlock.core.rounds import Cluster, Round, collect
from redlock.errors import LeaseLost, QuorumUnavailable

__all__ = ["extend", "verify"]


def extend(cluster: Cluster, holding: Holding, ttl: float, now: float) -> Flow[None]:
    """Move the lease's deadline to a ttl from now, never back. Raises LeaseLost, LeaseReleased,
    QuorumUnavailable.

    Counts only nodes where this very owner and token hold the lock, or where it is missing and
    nobody newer has been. A majority must have confirmed before the old validity ended: a renewal
    that finishes later is a loss.
    """
    ttl = min(ttl, longest_ttl(now, holding.hold_until, cluster.policy.drift_factor))
    until = valid_until(now, ttl, cluster.policy.drift_factor)
    now = yield from _confirm(cluster, holding, holding.grant.extension(ttl), now)
    holding.renewed(until, ttl)
    if cluster.emit:
        cluster.emit(
            LeaseRenewed(now, holding.resource, holding.owner, holding.token, holding.valid_until)
        )


def verify(cluster: Cluster, holding: Holding, now: float) -> Flow[None]:
    """Return if no newer grant existed when this began; needs no clock. Raises as `extend`.

    Holds while nodes keep their data and every user of the resource takes our locks. Puts nothing
    back: a lock that is missing on a node is no evidence there (docs/protocol.md 9.2).
    """
    yield from _confirm(cluster, holding, holding.grant.verification(holding.ttl), now)


def _confirm(cluster: Cluster, holding: Holding, take: Take, now: float) -> Flow[float]:
    error = holding.error(now)
    if error is not None:
        raise error
    until = min(now + cluster.policy.node_timeout_for(holding.ttl), holding.valid_until)
    round = Round(cluster, take, now, until, verb="confirmed")
    if take.mode == "extend":
        # From here on any node may get the lock put back, also one that no TAKE of the acquire ever
        # reached.
        holding.touched = cluster.everyone
    # Nothing is asked anew for a lease that ended meanwhile: it would follow the release.
    holding.rounds += (round,)
    try:
        now = yield from collect(
            round,
            lambda tally: tally.won or tally.lost or holding.status is not Status.HELD,
            round.requests,
            majority=True,
        )
    finally:
        holding.rounds = tuple([other for other in holding.rounds if other is not round])
    # Released meanwhile, or the old validity ended before the q-th answer.
    error = holding.error(now)
    if error is not None:
        raise error
    if round.tally.won:
        return now
    if _denied(round.tally, holding.token) > len(cluster.names) - round.tally.needed:
        holding.lose(f"a majority of the nodes does not hold it any more: {round.tally.describe()}")
        raise holding.error(now) or LeaseLost(holding.resource)
    raise QuorumUnavailable(round.tally, holding.resource)


def _denied(tally: Tally, token: int) -> int:
    """Nodes that can never again confirm: the lock is somebody else's there, or somebody newer
    has been."""
    return sum(
        vote is not None
        and (vote.kind is Kind.BUSY or (vote.kind is Kind.BEHIND and vote.fence > token))
        for vote in tally.votes
    )
