"""How a new cluster is founded: by all of its nodes together, once none can hold a forgotten lock.

Questions to the roster, at an instant; nothing is written here. Rule 6 of those at the top of
`admission.py`.
"""

from __future__ import annotations

from dataclasses import replace

from redlock.core import quarantine
from redlock.core.identity import Blank, Identity, Marker, Memory
from redlock.core.roster import Roster
from redlock.core.standing import UNKNOWN, Standing, State, quarantined, refused

__all__ = ["all_blank", "confirmed", "marked_like", "standing"]


# Long: one decision, each branch of which is a rule with its reason.
def standing(roster: Roster, node: int, at: float) -> Standing:
    """Of a node without a marker that is no loss: of a new cluster, or in the wrong list."""
    record = roster.records[node]
    identity = record.identity
    assert identity is not None
    for name, known in zip(roster.names, roster.records, strict=True):
        if known.stranger is not None:
            # Flushed since then: our list is wrong, or the cluster is not new. No advice to run
            # `redlock init`: for a wrong list that would found the second cluster all the same.
            told = f"{name} had another cluster's: it {known.stranger}"
            return refused(f"has no marker, and {told}")
    kin = roster.kin(node)
    if kin and record.founding == (identity.memory, identity.marker):
        mark = marked_like(next(iter(kin.values())), identity).write(identity)
        return Standing(State.MARK, mark=mark)
    told_by = [each.identity for each in roster.records if each.identity is not None]
    if any(each.marker and not each.blank for each in told_by):
        return refused("has no marker, and no other node is of this cluster")
    if not record.has_blank:
        return quarantine.put_blank(roster, node, at)
    absent = _absent(roster)
    if absent is not None:
        return quarantined(f"has no marker: {absent}")
    model = roster.new_marker(identity)
    replaced = roster.replaced()
    span = quarantine.quarantine_span(max(model.max_ttl, replaced))
    until = _until(roster, span, at, by_uptime=not replaced)
    if at < until and not (roster.durable and not replaced):
        if replaced:
            told = "has no marker, as `redlock init --replace` has not ended: run it again"
            return quarantined(f"{told}, or it grants locks in {until - at:.1f} s", until)
        # No advice to run `redlock init` here: a cluster that restarted as a whole and forgot looks
        # the same.
        told = "has no marker yet, as in a new cluster"
        return quarantined(f"{told}: it grants locks in {until - at:.1f} s", until)
    if not confirmed(roster) or _first(roster) != node:
        return UNKNOWN
    if replaced or len(roster.records) == 1:
        # Not new: or not, perhaps, but flushed, and no other node has a fence.
        model = replace(model, floor=quarantine.floor(roster, node, roster.others(node), at))
    return Standing(State.MARK, mark=marked_like(model, identity).write(identity))


def all_blank(roster: Roster) -> bool:
    """Whether every node answers, and has a blank of today's format."""
    return all(record.fault is None and record.has_blank for record in roster.records)


def confirmed(roster: Roster) -> bool:
    """Whether all nodes were without a marker at one instant.

    Each was asked once more after the last blank was met. Else a node that somebody else founded,
    used and lost meanwhile would meet what the others told before that.
    """
    last = max(record.news for record in roster.records)
    return all_blank(roster) and all(record.as_of >= last for record in roster.records)


def marked_like(model: Marker, identity: Identity) -> Marker:
    """The marker of a node of the cluster that *model* is of."""
    memory, evicted = identity.memory, identity.evicted
    return replace(model, memory=memory, evicted=evicted, since_us=0, before=False)


def _absent(roster: Roster) -> str | None:
    """Why not all nodes can found a cluster now, and what would help; None if they can."""
    for node, record in enumerate(roster.records):
        name, identity = roster.names[node], record.identity
        if record.fault is not None or identity is None:
            return f"the cluster is new and {name} cannot be asked: start it, or run `redlock init`"
        twin = roster.twin(node, identity)
        loading = "is LOADING its data" if identity.loading else None
        unfit = identity.unfit or (twin and twin.detail) or loading
        if unfit is not None:
            return f"the cluster is new and {name} {unfit}"
    return None


def _until(roster: Roster, span: float, at: float, *, by_uptime: bool) -> float:
    """When no lock can be left that the nodes forgot, should they all have forgotten.

    By their uptime, or their blanks. One node alone needs only be flushed to look new, without any
    restart, so its uptime says nothing. Nor does it where `redlock init` broke off: the nodes had
    markers, and granted locks, until it put its blanks there.
    """
    until = at + span
    told = [(record, record.identity) for record in roster.records if record.identity is not None]
    if by_uptime and len(roster.records) > 1:
        until = max(record.seen_at + span - max(0.0, identity.uptime) for record, identity in told)
    puts = [put for _, identity in told if (put := Blank.parse(identity.marker)) is not None]
    if len(puts) == len(roster.records):
        put_at = max(put.latest_us for put in puts) / 1e6
        waited = min(record.clock(at) for record in roster.records) - put_at
        until = min(until, at + span - waited)
    return until


def _first(roster: Roster) -> int:
    """The node of the smallest memory: its compare-and-set decides whose promises all get."""
    told = [each.identity.memory if each.identity else Memory("", "") for each in roster.records]
    return told.index(min(told))
