"""What a client makes of a look at a node, and what it may write there: rules 2 to 6 of admission,
on small numbers.

`tests/model/test_memory_admission.py` holds these decisions to the shipped `Admission`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chaos.model.memory.state import (
    AHEAD,
    HELD,
    NODES,
    OPEN,
    Blank,
    Client,
    Loss,
    Mark,
    Marker,
    Memories,
    Record,
    Rules,
    Seen,
    State,
    Text,
)
from redlock.core.quorum import majority

__all__ = [
    "FAULTY",
    "NEEDED",
    "highest",
    "judged",
    "look",
    "marks",
    "names",
    "running",
    "seen_of",
    "votes",
]

NEEDED = majority(NODES)
FAULTY = 0
"""The node that may lose its memory; which one it is makes no difference."""

UNSEEN = Seen(-1, -1, False, False, None)
"""Of a node that is not founded, or not any more."""


def running(state: State, ttl: int = 2) -> int:
    """The tries of up to this ttl that are under way, a bit each."""
    return sum(
        [
            1 << index
            for index, c in enumerate(state.clients)
            if c.phase in (OPEN, HELD) and c.ttl <= ttl
        ]
    )


def names(seen: Seen) -> bool:
    """Whether the marker names the memory that the node has now, and the node is a master."""
    text = seen.text
    return (
        isinstance(text, Marker)
        and seen.master
        and text.memory == seen.memory
        and text.run == seen.run
    )


def seen_of(state: State, node: int) -> Seen:
    """What a look would tell."""
    memory, _, run, master, promoted, text, *_ = state.nodes[node]
    return Seen(memory, run, master, promoted, text)


def look(bounds: Memories, state: State, index: int, node: int) -> Client:
    """The client after it has looked at a node, by one script."""
    client, seen = state.clients[index], seen_of(state, node)
    before, again = client.records[node], client.again
    if before.seen == seen and (again >> node & 1 or not bounds.blank):
        losses = [record.loss for other, record in enumerate(client.records) if other != node]
        if not any(loss is not None and not loss.asked >> node & 1 for loss in losses):
            return client
    records = list(client.records)
    # Nodes that remember have nothing to tell but their numbers, which matter to who waits; see
    # `world.py: _executes`.
    if before.seen != seen and (node == FAULTY or bounds.blank):
        records[node] = judged(bounds, state, before, seen)
        again = 0
    for other in range(NODES):
        loss = records[other].loss
        if other != node and loss is not None and (bounds.blank or bounds.raises) and names(seen):
            told = loss._replace(
                span=max(loss.span, _stated(bounds, seen.text)), asked=loss.asked | 1 << node
            )
            records[other] = records[other]._replace(loss=told)
    client = client._replace(records=tuple(records))
    if not bounds.blank:
        return client
    return _founding(bounds, client, node, again | 1 << node)


def _founding(bounds: Memories, client: Client, node: int, again: int) -> Client:
    """Keep in mind what all nodes had at an instant at which all were blank, as far as it still
    stands (rule 6)."""
    founding, rules = list(client.founding), bounds.rules
    if founding and not _founded_from(bounds, client, node):
        founding[node] = UNSEEN  # Also when it is marked: what stood and is gone then is a loss.
    known = [record.seen for record in client.records]
    if any(record.trusted is not None for record in client.records):
        return client._replace(again=0, founding=tuple(founding))
    ready = [
        seen is not None and _current(seen) and bool(again >> place & 1 or not rules.founds_at_once)
        for place, seen in enumerate(known)
    ]
    met = sum([seen is not None for seen in known])
    if sum(ready) == met >= (NODES if rules.founds_by_all else NEEDED):
        founding = [seen or UNSEEN for seen in known]
    return client._replace(again=again, founding=tuple(founding))


def _founded_from(bounds: Memories, client: Client, node: int) -> bool:
    """Whether the node still has what it had when all of them were blank."""
    then, now = client.founding[node], client.records[node].seen
    return now is not None and then == now


def _current(seen: Seen) -> bool:
    """Whether a blank was written for the memory that the node has now."""
    return isinstance(seen.text, Blank) and seen.text.memory in (seen.memory, -1)


def _stated(bounds: Memories, text: Text) -> int:
    if not isinstance(text, Marker):
        return 0
    return text.wait_ttl if bounds.rules.waits_by_wait_ttl else text.max_ttl


def judged(bounds: Memories, state: State, record: Record, seen: Seen) -> Record:
    """What a client knows of a node after it told something else than before (rules 2 to 4)."""
    rules, text, known = bounds.rules, seen.text, record.trusted
    past = record.past
    if known is not None and known.memory != seen.memory:
        past = past | {known.memory}
    older = seen.memory in past or (
        known is not None and isinstance(text, Marker) and not _follows(rules, known, text)
    )
    if names(seen) and isinstance(text, Marker):
        if record.loss is not None and rules.ended_by_later_marker:
            same = record.seen is not None and record.seen.memory == seen.memory
            accepted = (
                same
                and text.written_over == record.loss.later
                and (known is None or _follows(rules, known, text))
            )
        elif not rules.older_is_lost:
            accepted = True
        else:
            accepted = not older
        if accepted:
            return Record(seen, text, past - {seen.memory})
    elif bounds.promise and isinstance(text, Marker) and seen.master and record.loss is None:
        same_run = text.run == seen.run or not rules.promise_needs_run
        if same_run and not seen.promoted and not older:
            # The same memory under another id: brought up to date by `marks`.
            return Record(seen, known, past)
    return Record(seen, known, past - {seen.memory}, _lost(bounds, state, record, seen))


def _follows(rules: Rules, known: Marker, text: Marker) -> bool:
    """Whether a marker may come after the one that the client knows."""
    if text.memory == known.memory and not rules.older_marker_is_lost:
        return True
    # Written later, as floors grow: `init --replace` may lower what was promised.
    if text.floor > known.floor:
        return True
    return (
        text.floor == known.floor
        and text.max_ttl >= known.max_ttl
        and text.wait_ttl >= known.wait_ttl
    )


def _lost(bounds: Memories, state: State, record: Record, seen: Seen) -> Loss:
    """The wait that begins now; or when the blank was written, for a client that never trusted
    the node."""
    text, before = seen.text, running(state)
    if record.trusted is None:
        if isinstance(text, Blank) and _current(seen):
            before = state.blanks[text.stamp]  # By the clocks, of which the earliest counts.
        elif not bounds.rules.waits_from_look and isinstance(text, Marker) and text.run != seen.run:
            before = state.restarted  # By the uptime.
    return Loss(before, max(1, _stated(bounds, record.trusted)), 0)


# What it may write


def marks(bounds: Memories, state: State, index: int, node: int) -> Iterator[Mark]:
    """The MARKs that the client may send to a node as it knows it."""
    client = state.clients[index]
    record = client.records[node]
    seen, rules = record.seen, bounds.rules
    if seen is None or not seen.master or record.admitted is not None:
        return
    text = seen.text
    if record.loss is None:
        if isinstance(text, Marker):  # The promise of rule 2.
            yield Mark(
                index, node, text, seen.memory, text._replace(memory=seen.memory, run=seen.run)
            )
        return
    if client.founding and _founded_from(bounds, client, node):
        yield from _founds(bounds, client, index, node, seen)
    if bounds.blank and node != FAULTY:
        # Nothing was ever lost there, so that to wait would end in the marker that founding ends
        # in.
        return
    kin = [
        other.seen
        for place, other in enumerate(client.records)
        if place != node and other.seen and names(other.seen)
    ]
    blanked = isinstance(text, Blank) and _current(seen)
    if (text is not None or rules.marked_over_blank) and not blanked and (kin or bounds.blank):
        # Over a marker too, so that all learn of the loss with their next vote. Who waits alone
        # never sends it.
        yield Mark(index, node, text, seen.memory, None)
    if (blanked or isinstance(text, Marker) or not rules.marked_over_blank) and _waited(
        bounds, state, record.loss, kin
    ):
        told = [other.text for other in kin if isinstance(other.text, Marker)]
        if isinstance(text, Marker):
            told.append(text)
        if record.trusted is not None:
            told.append(record.trusted)
        floor = max([marker.floor for marker in told], default=0)
        if rules.floor and bounds.tokens:
            clock = state.now - (0 if rules.floor_by_others else state.nodes[node].lag)
            floor = max(floor, clock + AHEAD)
        elif rules.floor:
            # Without tokens any number will do, if it grows as clocks do.
            floor = max(floor, highest(state)) + 1
        largest = max([marker.max_ttl for marker in told], default=1)
        wait = max([record.loss.span, *[marker.wait_ttl for marker in told]])
        yield Mark(
            index,
            node,
            text,
            seen.memory,
            Marker(seen.memory, seen.run, largest, wait, floor, text),
        )


def _waited(bounds: Memories, state: State, loss: Loss, kin: Sequence[Seen]) -> bool:
    """Whether a quarantine is over, and enough of the others have told since it began what it
    must wait for."""
    rules = bounds.rules
    if not rules.quarantine:
        return True
    if not kin:
        return False
    if (bounds.raises or bounds.blank) and loss.asked.bit_count() < NEEDED - 1:
        return False  # Elsewhere they can tell nothing new.
    span = max([loss.span, *[_stated(bounds, seen.text) for seen in kin]])
    return not loss.before & running(state, span)


def _founds(bounds: Memories, client: Client, index: int, node: int, seen: Seen) -> Iterator[Mark]:
    """The marker of a new cluster: first where the smallest memory is, and elsewhere once that
    one stands."""
    decided = client.records[bounds.smallest].admitted is not None
    if decided or node == bounds.smallest or not bounds.rules.founds_by_all:
        yield Mark(
            index,
            node,
            seen.text,
            seen.memory,
            Marker(seen.memory, seen.run, written_over=seen.text),
        )


def highest(state: State) -> int:
    """The largest floor that was written, also on the server that the first name led to before."""
    servers = state.nodes if state.shelf is None else (*state.nodes, state.shelf)
    return max([node.text.floor for node in servers if isinstance(node.text, Marker)], default=0)


def votes(bounds: Memories, client: Client) -> bool:
    """Whether the client may ask for votes at all: it has seen a majority of the nodes marked."""
    if not bounds.rules.votes_by_majority or not bounds.blank:
        return True
    return (
        sum(
            [
                r.trusted is not None or isinstance(r.seen and r.seen.text, Marker)
                for r in client.records
            ]
        )
        >= NEEDED
    )
