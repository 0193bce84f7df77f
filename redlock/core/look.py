"""Looking without touching: what the nodes say of a lock, and of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from redlock.core.admission import Standing, State
from redlock.core.commands import Canvass, Greet, Peek
from redlock.core.effects import Failure, Flow, Reply, Request, Wait
from redlock.core.quorum import Kind, Tally
from redlock.core.rounds import Cluster, Round, collect, meet

__all__ = ["Inspection", "inspect_nodes", "peek", "who_leads"]


def peek(cluster: Cluster, lock_key: str, fence_key: str, now: float) -> Flow[Tally]:
    """What every node says of a lock, waiting at most the node timeout for the slowest."""
    round = Round(cluster, Peek(lock_key, fence_key), now, now + cluster.patience, verb="answered")
    yield from collect(round, lambda tally: tally.pending == 0, round.requests)
    return round.tally


def who_leads(cluster: Cluster, lock_key: str, fence_key: str, now: float) -> Flow[Tally]:
    """What the nodes that may vote say of a lock, until a majority says the same, or nobody else
    can; at most the node timeout."""
    if not cluster.met:
        now = yield from meet(cluster, now, float("inf"))
    round = Round(
        cluster, Canvass(lock_key, fence_key), now, now + cluster.patience, verb="answered"
    )
    yield from collect(round, _agreed, round.requests)
    return round.tally


def _agreed(tally: Tally) -> bool:
    holders = [vote.holder for vote in tally.votes if vote and vote.kind is Kind.BUSY]
    return (
        tally.pending == 0
        or tally.free >= tally.needed
        or any(holders.count(holder) >= tally.needed for holder in holders)
    )


@dataclass(frozen=True, slots=True)
class Inspection:
    """One node's standing as seen now. *round_trip*: seconds; *clock_offset*: its wall clock
    less ours, None if unknown."""

    standing: Standing | None
    reason: str
    round_trip: float | None
    clock_offset: float | None


def inspect_nodes(cluster: Cluster, now: float) -> Flow[list[Inspection]]:
    """Ask every node anew who it is. Writes nothing beyond what a first use would."""
    if not cluster.met:
        now = yield from meet(cluster, now, float("inf"))
    greet = Greet(look=True)
    asked_at, until = now, now + cluster.patience
    waiting = {Request(node, greet, until) for node in range(len(cluster.names))}
    looks = [Inspection(None, "did not answer", None, None) for _ in cluster.names]
    wait = Wait(until, tuple(sorted(waiting, key=lambda request: request.node)))
    while waiting:
        event = yield wait
        wait = Wait(until)
        if isinstance(event, Reply):
            node, standing = event.request.node, event.value
            identity = cluster.admission.identity(node)
            ours = cluster.source.wall_us() / 1e6
            offset = identity.clock - ours if identity is not None and identity.clock else None
            reason = (
                "admitted"
                if standing.state is State.ADMITTED
                else standing.fault.detail
                if standing.fault
                else standing.state.name.lower()
            )
            looks[node] = Inspection(standing, reason, event.at - asked_at, offset)
        elif isinstance(event, Failure):
            looks[event.request.node] = Inspection(None, event.fault.detail, None, None)
        else:
            break
        waiting.discard(event.request)
    for request in waiting:
        request.withdraw()
    return looks
