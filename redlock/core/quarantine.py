"""How a node that forgot comes back: what it waits for, and the floor it then gets.

Questions to the roster, at an instant; nothing is written here. Rules 3 and 5 of those at the top
of `admission.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from redlock.core.identity import Blank, Identity, Marker, blank
from redlock.core.roster import RESTARTED, Loss, Record, Roster
from redlock.core.standing import Standing, State, quarantined, refused

__all__ = ["FLOOR_AHEAD", "floor", "put_blank", "quarantine_span", "standing"]

FLOOR_AHEAD = 60.0
"""Seconds past the other nodes' clocks for the floor written after a quarantine: the clamp of
`take.lua`, so that no token granted before the node forgot can be beyond it."""


def quarantine_span(max_ttl: float) -> float:
    """Seconds until no lock of up to *max_ttl* can be valid, whoever's clock is asked.

    The ttl, drift, and a second.
    """
    return max_ttl * 1.02 + 1.0


# Long: one decision, each branch of which is a rule with its reason.
def standing(roster: Roster, node: int, loss: Loss, at: float) -> Standing:
    """Of a node that forgot: it waits until every lock it may have forgotten has expired."""
    record, others = roster.records[node], roster.others(node)
    identity = record.identity
    assert identity is not None  # Or nobody would have found its loss.
    told = f"forgot its locks ({loss.how}) and is in quarantine"
    known = {other: each for other, each in others.items() if each.identity and not each.fault}
    asked = {other: each for other, each in known.items() if each.asked_at >= loss.since}
    kin = roster.kin(node)
    informed = [each for other, each in asked.items() if other in kin and each.loss is None]
    wanted = roster.needed - 1
    if identity.blank:
        marked = any(each.identity and not each.identity.blank for each in others.values())
        if not kin and marked:
            # To mark it like them, or like our wrong list, would draw it out of its own cluster.
            return refused("has no marker, and no other node is of this cluster")
        if not record.has_blank:
            return put_blank(roster, node, at)
    elif loss.certain and informed and len(informed) >= wanted:
        # Others may not know yet, and must not vote with what stands there. Its promises stand on
        # the other nodes.
        return put_blank(roster, node, at)
    # When all nodes have told, and a majority forgot, the promise of those that are left must do,
    # or nobody would vote again.
    all_told = len(asked) == len(others)
    until, promises = _until(roster, node, loss, informed, [*kin.values()], at, all_told=all_told)
    if at < until:
        return quarantined(f"{told}: it votes again in {until - at:.1f} s", until)
    # The longest lock that a quarantine has to outwait may have been raised while this client
    # reached no node but this one.
    if len(informed) < wanted and not all_told:
        until_told = "until a majority has told that max_ttl was not raised meanwhile"
        return quarantined(f"{told} {until_told}")
    new = replace(
        promises[0],
        memory=identity.memory,
        evicted=identity.evicted,
        max_ttl=max(each.max_ttl for each in promises),
        wait_ttl=max(each.wait_ttl for each in promises),
        floor=floor(roster, node, asked, at),
        since_us=0,
        before=False,
    )
    return Standing(State.MARK, mark=new.write(identity))


def put_blank(roster: Roster, node: int, at: float) -> Standing:
    """Of a node that nobody waits for yet: the wait begins with a blank, which tells all others."""
    identity = roster.records[node].identity
    assert identity is not None
    others = [each for each in roster.others(node).values() if each.fault is None]
    latest = max((each.clock(at) for each in others if each.identity is not None), default=0.0)
    latest_us = round(latest * 1e6)
    put = blank(roster.nonce(), identity, latest_us=latest_us, wait_ttl=roster.replaced())
    return Standing(State.MARK, mark=put)


def floor(roster: Roster, node: int, asked: Mapping[int, Record], at: float) -> int:
    """What every token must be beyond that *node* grants after a loss; *asked*: who told since.

    As far as a token can have been granted before. A majority that granted one had, besides this
    node, `needed - 1` others, each of which took no token that was far ahead of its clock. So the
    clock that many of the others are not behind will do: one that is wrong decides nothing. Of each
    that cannot be asked it is assumed that it was among them. If all of them can have been, the
    node's own clock counts as well, which went on since then unless the machine restarted: but no
    more than `FLOOR_AHEAD` past the latest other.
    """
    record = roster.records[node]
    clocks = sorted((each.clock(at) for each in asked.values()), reverse=True)
    known = roster.needed - 1 - (len(roster.names) - 1 - len(clocks))
    own = latest = record.clock(at)
    if clocks and known > 0:
        latest = clocks[known - 1]
    elif clocks:
        latest = max(clocks[0], min(own, clocks[0] + FLOOR_AHEAD))
    floors = [each.floor for each in (record.trusted, record.marker) if each is not None]
    return max([round((latest + FLOOR_AHEAD) * 1e6), *floors])


def _until(
    roster: Roster,
    node: int,
    loss: Loss,
    informed: Sequence[Record],
    kin: Sequence[Marker],
    at: float,
    *,
    all_told: bool,
) -> tuple[float, list[Marker]]:
    """When the wait is over, and the markers whose promises the node gets."""
    record = roster.records[node]
    identity, marker = record.identity, record.marker
    assert identity is not None
    known = [each for each in (record.trusted, marker) if each is not None]
    promises = [*kin, *known] or [roster.new_marker(identity)]
    span = quarantine_span(max(each.wait_ttl for each in promises))
    until = loss.since + span
    if record.trusted is not None:
        return until, promises
    # A client that never knew the node may count from when the blank was put there: by the latest
    # clock then, and by the earliest now, so that no single clock which is wrong, or is put right,
    # ends the wait too early.
    placed = Blank.parse(identity.marker)
    if placed is not None and len(informed) >= roster.needed - 1:
        waited = min(each.clock(at) for each in (record, *informed)) - placed.latest_us / 1e6
        until = min(until, at + span - waited)
    # Where a majority forgot no blank is put, lest the last promise goes with it. Then it may count
    # from the restart: that the data are no copy which came later, while everything else that knew
    # better was lost, is taken for granted.
    blankless = all_told and len(informed) < max(roster.needed - 1, 1)
    if blankless and _restarted(roster, node, identity, loss):
        until = min(until, record.seen_at - identity.uptime + span)
    return until, promises


def _restarted(roster: Roster, node: int, identity: Identity, loss: Loss) -> bool:
    """Whether *node* came back from a restart with what it had before, by its own word."""
    marker = roster.records[node].marker
    if marker is None or identity.promoted or roster.is_copy(node, marker):
        return False
    return loss.how == RESTARTED and identity.uptime > 0
