"""Giving a lease back: final on every node that executes it, and owed to every node that does
not answer."""

from __future__ import annotations

from redlock.core.effects import Flow, Request
from redlock.core.events import LeaseReleasing
from redlock.core.lease import Holding
from redlock.core.quorum import Kind, Tally, Vote
from redlock.core.rounds import Cluster, Round, collect

__all__ = ["abandon", "release"]


def release(cluster: Cluster, holding: Holding, now: float) -> Flow[bool]:
    """Give the lease back on every node that may hold it. True: it was valid, and a majority holds
    nothing of it now.

    From the first moment on the lease is over for its holder; a node that does not answer stays
    owed its release.
    """
    was_held = holding.held(now)
    holding.end()
    if holding.freed:
        return False
    grant = holding.grant
    if cluster.emit:
        cluster.emit(LeaseReleasing(now, grant.resource, grant.owner, grant.token))
    cluster.fences.saw(grant.resource, grant.token + 1)
    everywhere = len(holding.touched) == len(cluster.names)
    round = Round(
        cluster,
        grant.free(keep=holding.kept_for(now)),
        now,
        now + cluster.policy.node_timeout_for(holding.ttl),
        nodes=None if everywhere else sorted(holding.touched),
        verb="confirmed",
    )
    if not everywhere:
        for node in range(len(cluster.names)):
            if node not in holding.touched:
                round.tally.cast(node, Vote(Kind.GRANTED))  # It never had anything of ours.
    holding.freed = True  # Not before: whoever is interrupted until here still has to release it.
    yield from collect(round, _decided, round.requests, majority=True)
    return was_held and round.tally.won


def _decided(tally: Tally) -> bool:
    return tally.won or tally.lost


def abandon(cluster: Cluster, holding: Holding, now: float) -> tuple[Request, ...]:
    """The releases of a lease whose caller went away before it had it; to be written and not
    waited for."""
    # Or whoever listens would take it for held until its validity ends.
    if holding.end() and cluster.emit:
        cluster.emit(LeaseReleasing(now, holding.resource, holding.owner, holding.token))
    holding.freed = True
    return holding.grant.releases(holding.touched, unattended=True, keep=holding.kept_for(now))
