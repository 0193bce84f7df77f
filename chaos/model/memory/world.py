"""The start of the world of memories, and every step that leads on from a state of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chaos.model.memory.admission import (
    FAULTY,
    NEEDED,
    highest,
    look,
    marks,
    names,
    running,
    seen_of,
    votes,
)
from chaos.model.memory.scripts import MARKED, TAKEN, mark, take
from chaos.model.memory.state import (
    AHEAD,
    BACKUP,
    DONE,
    FLUSH,
    HELD,
    IDLE,
    MOVE,
    NODES,
    OPEN,
    PROMOTE,
    RESTART,
    STANDBY,
    SWAP,
    Blank,
    Client,
    Mark,
    Marker,
    Memories,
    Node,
    Record,
    State,
    Text,
    Violation,
)

__all__ = ["Change", "canonical", "images", "start", "steps"]

WAITS, VERIFIES, RAISES, RAISED = range(1, 5)
"""What an operator who raises max_ttl does: wait_ttl on all, a look at all, max_ttl on all; and
then nothing more."""

_RESTORING = (RESTART, PROMOTE, MOVE)


class Change(NamedTuple):
    """One step: what happens, at which node if at one, the state afterwards, and the property that
    it breaks.

    *kind*: `take`, `mark`, `look`, the name of a loss, or nothing; *request*: the MARK, or the
    marker that a TAKE names.
    """

    text: str
    state: State
    place: int | None = None
    kind: str = ""
    client: int | None = None
    request: Mark | Text = None
    violation: Violation | None = None


def start(bounds: Memories) -> State:
    """All nodes are marked and all clients know them; or all are blank, and nobody knows
    anything."""
    blank = Blank(0 if bounds.rules.blank_names_memory else -1, 0, 0)
    marker = Marker(0, 0, bounds.limit, 2 if bounds.verified else bounds.limit)
    text = blank if bounds.blank else marker
    blanks = (0,) if bounds.blank or bounds.scarred else ()
    node = Node(text=text, texts=_kept(bounds, bounds.losses, frozenset(), text))
    first = (
        node._replace(texts=_kept(bounds, bounds.losses, node.texts, blank))
        if bounds.scarred
        else node
    )
    known = (
        Record() if bounds.blank else Record(seen_of(State((node,), (), frozenset(), 0), 0), marker)
    )
    clients = []
    for index, tries in enumerate(bounds.tries):
        fresh = index in bounds.fresh
        records = (
            (Record(),) * NODES
            if fresh and bounds.raises
            else (Record() if fresh else known, known, known)
        )
        clients.append(
            Client(OPEN, tries - 1, records) if bounds.begun else Client(IDLE, tries, records)
        )
    state = State((first, node, node), tuple(clients), frozenset(), bounds.losses, blanks=blanks)
    if bounds.verified:
        state = state._replace(operator=(RAISES, 0))
    if bounds.founders:
        for index in range(len(clients)):
            # Where a majority may found, each of them is cut off from one of the others.
            for place in (
                (0, 1, 2) * 2 if bounds.rules.founds_by_all else (FAULTY, index % 2 + 1) * 2
            ):
                state = _put(state, index, look(bounds, state, index, place))
            state = _sending(bounds, state, index)
    return settled(bounds, state)


def steps(bounds: Memories, state: State) -> Iterator[Change]:
    """Every step from this state."""
    if bounds.reduced and not _matters(bounds, state):
        return
    for index, client in enumerate(state.clients):
        yield from _tries(bounds, state, index, client)
        yield from _admits(bounds, state, index)
    for request in state.marks:
        yield from _marked(bounds, state, request)
    yield from _losses(bounds, state)
    if bounds.raises:
        yield from _raises(bounds, state)
    if bounds.replaces and not state.losses and state.operator[0] == 0:
        yield from _replaces(bounds, state)
    if state.now < bounds.ticks:
        later = state._replace(now=state.now + 1)
        for index in range(len(state.clients)):
            later = _sending(bounds, later, index)
        yield _change(bounds, f"the clocks show {later.now}", later)


def _change(
    bounds: Memories,
    text: str,
    state: State,
    place: int | None = None,
    kind: str = "",
    client: int | None = None,
    request: Mark | Text = None,
    violation: Violation | None = None,
) -> Change:
    after = settled(bounds, state)
    for index, (then, now) in enumerate(zip(state.clients, after.clients, strict=True)):
        if then.votes != now.votes:
            text = f"{text}; {_name(index)} has the vote of node {index + 2}"
    return Change(text, after, place, kind, client, request, violation)


def _name(index: int) -> str:
    return "ABCDEFGH"[index]


def _matters(bounds: Memories, state: State) -> bool:
    """Whether a property can still break: each is judged when a try is granted, by what another
    try was granted."""
    to_come = sum([client.tries + (client.phase == OPEN) for client in state.clients])
    if bounds.tokens:
        return to_come > 0 and to_come + len(state.granted) > 1
    # One vote for each try is all that a node gives, so that two holders need a node that forgot
    # the vote of one of them.
    forgotten = state.losses or state.shelf is not None or state.victims
    return (
        bool(forgotten)
        and to_come > 0
        and to_come + sum([client.phase == HELD for client in state.clients]) > 1
    )


def settled(bounds: Memories, state: State) -> State:
    """The same state in canonical form: what can do nothing any more is dropped."""
    if not bounds.reduced:
        return state
    if _apart(bounds):
        state = _at_once(bounds, state)
    node = state.nodes[FAULTY]
    marks = frozenset([request for request in state.marks if _alive(bounds, state, request)])
    if marks != state.marks:
        state = state._replace(marks=marks)
    if node.texts and not state.losses:
        state = state._replace(nodes=(node._replace(texts=frozenset()), *state.nodes[1:]))
    return state


def _alive(bounds: Memories, state: State, request: Mark) -> bool:
    """Whether a request may still do something: in one memory no text returns, except nothing,
    and a blank that is alike."""
    node, rules = state.nodes[request.node], bounds.rules
    if not (rules.memory_in_script and rules.memory_by_name) or (
        isinstance(request.expected, Blank) and not rules.blank_by_node
    ):
        return True
    if request.memory != node.memory:
        return state.shelf is not None and request.memory == state.shelf.memory
    if request.expected is None and request.node == FAULTY:
        return node.text is None or state.losses > 0
    return node.text == request.expected


# A try


def _tries(bounds: Memories, state: State, index: int, client: Client) -> Iterator[Change]:
    name = _name(index)
    if client.phase == IDLE and client.tries:
        for ttl in (2 if bounds.raises and not index else 1,):
            for token in range(1, bounds.tokens + 1) if bounds.tokens else (0,):
                base = max(state.granted, default=0)
                begun = client._replace(
                    phase=OPEN, tries=client.tries - 1, ttl=ttl, token=token, base=base
                )
                what = f"{' for a ttl of 2' if ttl == 2 else ''}{f' and proposes token {token}' if token else ''}"
                yield _change(
                    bounds, f"{name} begins a try{what}", _put(state, index, _asking(bounds, begun))
                )
    if client.phase == OPEN:
        yield from _executes(bounds, state, index, client)
        if client.votes.bit_count() >= NEEDED:
            granted = tuple(sorted((*state.granted, client.token))) if bounds.tokens else ()
            held = client._replace(phase=HELD, votes=0, sent=frozenset())
            violation = _judge(bounds, state, index, client)
            what = f"token {client.token}" if client.token else "its lock"
            after = _put(state, index, held)._replace(granted=granted)
            yield _change(bounds, f"{name} is granted {what}", after, violation=violation)
    if client.phase in (OPEN, HELD):
        over = "gives up" if client.phase == OPEN else "lets go: it releases, or its validity ends"
        yield _change(bounds, f"{name} {over}", _over(bounds, state, index, client))


def _asking(bounds: Memories, client: Client) -> Client:
    """The client with its request to the first node on its way, where it may ask for its vote.

    What was written stays on its way, whatever is learned of the node meanwhile; that it is never
    executed covers a request that was never written. What goes to the other nodes is executed when
    it is written, as they remember.
    """
    if client.phase != OPEN or client.votes & 1 or not votes(bounds, client):
        return client
    record = client.records[FAULTY]
    marker = record.admitted if bounds.rules.admission_shared else record.trusted
    return (
        client
        if marker is None or marker in client.sent
        else client._replace(sent=client.sent | {marker})
    )


def _executes(bounds: Memories, state: State, index: int, client: Client) -> Iterator[Change]:
    """A TAKE is executed; where it is not executed at once."""
    for place in range(NODES):
        if place == FAULTY or not _apart(bounds):
            for named, after in _granted(bounds, state, index, client, place):
                what = f"node {place + 1}: {_name(index)}'s TAKE{f' {client.token}' if client.token else ''} executes: granted"
                yield _change(bounds, what, after, place, "take", index, named)


def _granted(
    bounds: Memories, state: State, index: int, client: Client, place: int
) -> Iterator[tuple[Text, State]]:
    """A node grants. To one that remembers a TAKE goes by the marker that stands there: who asks
    by an older one is told."""
    if client.votes >> place & 1:
        return
    node, rules, sent = state.nodes[place], bounds.rules, client.sent
    if place == FAULTY:
        asked: Iterable[Text] = sent
    elif votes(bounds, client):
        asked = (client.records[place].admitted if bounds.blank else node.text,)
    else:
        return
    for named in asked:
        after, answer = take(
            node, named, index, client.ttl, client.token, state.now - node.lag, rules
        )
        if answer == TAKEN:
            counts = (
                place != FAULTY
                or client.records[place].admitted == named
                or not rules.counts_while_admitted
            )
            bit = 1 << place if counts or not rules.admission_shared else 0
            voted = client._replace(
                votes=client.votes | bit, sent=frozenset() if place == FAULTY else sent
            )
            yield named, _set(_put(state, index, voted), place, after)


def _at_once(bounds: Memories, state: State) -> State:
    """The state with the votes of nodes that remember and that one client alone asks: nobody
    sees that they come later."""
    for index, client in enumerate(state.clients[:2]):
        if client.phase == OPEN and not client.votes & ~1:
            state = next(
                (voted for _, voted in _granted(bounds, state, index, client, index + 1)), state
            )
    return state


def _over(bounds: Memories, state: State, index: int, client: Client) -> State:
    """The try is over: its locks are given back, and every wait for it has waited for it."""
    fresh, bit = index in bounds.fresh, ~(1 << index)
    waiting = [
        any(r.loss is not None and r.loss.before & ~bit for r in other.records)
        for other in state.clients
    ]
    records = (
        tuple([_waited_for(record, bit) for record in client.records])
        if waiting[index]
        else client.records
    )
    if fresh:
        first = start(bounds).clients[index].records
        records = first if bounds.raises or bounds.blank else (first[0], *records[1:])
    over = Client(
        IDLE if client.tries else DONE,
        client.tries,
        records,
        again=client.again,
        founding=client.founding,
    )
    if fresh and bounds.blank:
        over = over._replace(again=0, founding=())
    nodes = tuple([node._replace(lock=-1) if node.lock == index else node for node in state.nodes])
    clients = [
        other._replace(records=tuple([_waited_for(record, bit) for record in other.records]))
        if waits
        else other
        for other, waits in zip(state.clients, waiting, strict=True)
    ]
    clients[index] = over
    shelf = state.shelf
    if shelf is not None and shelf.lock == index:
        shelf = shelf._replace(lock=-1)
    after = state._replace(
        nodes=nodes,
        clients=tuple(clients),
        blanks=tuple([mask & bit for mask in state.blanks]),
        restarted=state.restarted & bit,
        shelf=shelf,
        victims=state.victims & bit,
        met=state.met & bit if fresh else state.met,
    )
    for other, waits in enumerate(waiting):
        if waits:
            after = _sending(bounds, after, other)
    return after


def _waited_for(record: Record, bit: int) -> Record:
    loss = record.loss
    return (
        record
        if loss is None or not loss.before & ~bit
        else record._replace(loss=loss._replace(before=loss.before & bit))
    )


def _judge(bounds: Memories, state: State, index: int, client: Client) -> Violation | None:
    """The first of the configuration's properties that this grant breaks."""
    broken = {}
    holders = [
        _name(other) for other, c in enumerate(state.clients) if c.phase == HELD and other != index
    ]
    if client.token and client.token in state.granted:
        broken["U"] = f"token {client.token} had been granted before"
    if client.token and client.token <= client.base:
        broken["M"] = (
            f"token {client.token} was granted to a try that started after token {client.base} had been granted"
        )
    if holders:
        broken["ME"] = f"it was granted while the lease of {holders[0]} was valid"
    return next(
        (Violation(name, broken[name]) for name in bounds.properties if name in broken), None
    )


# Admission


def _admits(bounds: Memories, state: State, index: int) -> Iterator[Change]:
    client, name = state.clients[index], _name(index)
    for place in range(NODES):
        if place != FAULTY and (index in bounds.aloof or not (bounds.raises or bounds.blank)):
            continue  # It has nothing new to tell.
        seen = look(bounds, state, index, place)
        met = state.met | 1 << index if place == FAULTY and state.shelf is not None else state.met
        if seen != client or met != state.met:
            after = _put(state, index, _asking(bounds, seen))._replace(met=met)
            after = _sending(bounds, after, index)
            yield _change(bounds, f"{name} looks at node {place + 1}", after, place, "look", index)


def _sending(bounds: Memories, state: State, index: int) -> State:
    """The state with every MARK on its way that the client may send: one that is never executed
    covers one that is not sent."""
    found = {request for place in range(NODES) for request in marks(bounds, state, index, place)}
    return state._replace(marks=state.marks | found) if found - state.marks else state


def _marked(bounds: Memories, state: State, request: Mark) -> Iterator[Change]:
    place, node = request.node, state.nodes[request.node]
    text, answer = mark(node, request, len(state.blanks), bounds.rules)
    if answer != MARKED:
        return
    after = state
    if isinstance(text, Blank) and bounds.rules.blank_by_node:
        after = after._replace(blanks=(*state.blanks, running(state)))
    elif isinstance(text, Blank):
        after = after._replace(blanks=(running(state),))
    what = "a blank" if request.text is None else "a marker"
    written = node._replace(
        text=text, texts=_kept(bounds, state.losses if place == FAULTY else 0, node.texts, text)
    )
    after = _set(after, place, written)
    # Not one that was brought up to date.
    if isinstance(text, Marker) and text.written_over == request.expected:
        after = after._replace(
            clients=tuple([_told_later(client, place, text) for client in after.clients])
        )
    sender = request.client
    # It still waits for the answer, and hears it.
    if request in marks(bounds, state, sender, place):
        heard = look(bounds, after, sender, place)
        loss, record = state.clients[sender].records[place].loss, heard.records[place]
        if (
            isinstance(text, Blank)
            and loss is not None
            and record.loss is not None
            and not bounds.rules.waits_from_blank
        ):
            heard = heard._replace(
                records=(
                    *heard.records[:place],
                    record._replace(loss=loss),
                    *heard.records[place + 1 :],
                )
            )
        heard = _asking(bounds, heard)
        after = _sending(bounds, _put(after, sender, heard), sender)
    told = f"node {place + 1}: {_name(sender)}'s MARK of {what} executes"
    yield _change(bounds, told, after, place, "mark", sender, request)


def _told_later(client: Client, place: int, text: Marker) -> Client:
    """The client, whose loss of this node was met before this marker was written: their times
    tell when it sees the marker."""
    record = client.records[place]
    if record.loss is None:
        return client
    told = record._replace(loss=record.loss._replace(later=text.written_over))
    return client._replace(records=(*client.records[:place], told, *client.records[place + 1 :]))


def _kept(bounds: Memories, losses: int, texts: frozenset[Text], text: Text) -> frozenset[Text]:
    """What a snapshot or a copy may bring back, as long as one may."""
    return texts | {text} if losses and any(kind in bounds.kinds for kind in _RESTORING) else texts


# What happens to the first node


def _losses(bounds: Memories, state: State) -> Iterator[Change]:
    node = state.nodes[FAULTY]
    if state.shelf is not None and state.met == (1 << len(state.clients)) - 1:
        back = _set(_forgotten(state)._replace(shelf=None, met=0), FAULTY, state.shelf)
        if MOVE in bounds.kinds:
            back = _unanswered(back)
        yield _change(
            bounds, "node 1: its name leads to the server of before again", back, FAULTY, "back"
        )
    if not state.losses:
        return
    # What loses no lock at last, and no token, takes nothing from anybody; but for what comes back
    # after a move.
    idle = bounds.reduced and not bounds.tokens and state.losses == 1 and node.lock < 0
    after = _forgotten(state._replace(losses=state.losses - 1))
    new = after._replace(memories=state.memories + 1)
    memory, empty = state.memories, node._replace(lock=-1, fence=0)
    for kind in bounds.kinds:
        if idle and kind not in (MOVE, SWAP, BACKUP):
            continue
        if kind == FLUSH:
            flushed = empty._replace(text=None, texts=_kept(bounds, after.losses, node.texts, None))
            yield _change(
                bounds,
                "node 1: all its keys are flushed",
                _set(after, FAULTY, flushed),
                FAULTY,
                kind,
            )
        elif kind == BACKUP:
            other = node._replace(memory=memory, prior=-1)
            yield _change(
                bounds,
                "node 1: a backup is made, and it has another id",
                _set(new, FAULTY, other),
                FAULTY,
                kind,
            )
        elif kind == STANDBY and state.shelf is None:
            standby = empty._replace(run=memory, master=False)
            told = "node 1: it dies, and its name leads to a replica that lagged"
            yield _change(bounds, told, _set(new, FAULTY, standby), FAULTY, kind)
        elif kind == SWAP and state.shelf is None:
            swapped = empty._replace(text=None)
            told = "node 1: its keys are swapped for none"
            yield _change(
                bounds, told, _set(after._replace(shelf=node), FAULTY, swapped), FAULTY, kind
            )
        elif kind in _RESTORING and (kind != MOVE or state.shelf is None):
            for text in {*node.texts, None}:
                yield _restored(bounds, after, kind, text)


_RESTORED = {
    RESTART: "restarts",
    PROMOTE: "is promoted again",
    MOVE: "its name leads to another server",
}


def _restored(bounds: Memories, state: State, kind: str, text: Text) -> Change:
    """The first node has another memory, with nothing or with something of before."""
    node, memory = state.nodes[FAULTY], state.memories
    run, lag = (node.run, node.lag) if kind == PROMOTE else (memory, bounds.lag)
    texts = _kept(bounds, state.losses, node.texts, text)
    other = Node(
        memory, node.memory, run, promoted=kind == PROMOTE, text=text, lag=lag, texts=texts
    )
    after = _set(state._replace(memories=memory + 1), FAULTY, other)
    if kind == MOVE:
        after = _unanswered(after._replace(shelf=node))
    if not bounds.rules.waits_from_look:
        after = after._replace(restarted=running(state) if kind == RESTART else 0)
    came = (
        "nothing"
        if text is None
        else "a blank of before"
        if isinstance(text, Blank)
        else "a marker of before"
    )
    return _change(bounds, f"node 1: {_RESTORED[kind]}, with {came}", after, FAULTY, kind)


def _forgotten(state: State) -> State:
    """The state in which the lock that the first node has is lost."""
    lock = state.nodes[FAULTY].lock
    return state if lock < 0 else state._replace(victims=state.victims | 1 << lock)


def _unanswered(state: State) -> State:
    """What was on its way to the first name is lost with the server that it led to."""
    clients = tuple([client._replace(sent=frozenset()) for client in state.clients])
    return state._replace(
        clients=clients,
        marks=frozenset([request for request in state.marks if request.node != FAULTY]),
    )


# The operator


def _raises(bounds: Memories, state: State) -> Iterator[Change]:
    """`redlock init --max-ttl`: each look and its compare-and-set is one step, for a text that
    changed in between stops it."""
    phase, done = state.operator
    phase = phase or WAITS
    if phase == RAISED:
        return
    for place, node in enumerate(state.nodes):
        text = node.text
        if done >> place & 1 or not names(seen_of(state, place)) or not isinstance(text, Marker):
            continue
        after, what = state, "sees wait_ttl 2 on"
        if not bounds.rules.wait_first:
            changed, what = text._replace(max_ttl=2, wait_ttl=2), "raises max_ttl and wait_ttl on"
        elif phase == WAITS:
            changed, what = text._replace(wait_ttl=2), "raises wait_ttl on"
        elif text.wait_ttl < 2:
            continue
        else:
            changed = text if phase == VERIFIES else text._replace(max_ttl=2)
            what = what if phase == VERIFIES else "raises max_ttl on"
        if changed != text:
            written = node._replace(
                text=changed,
                texts=_kept(bounds, state.losses if not place else 0, node.texts, changed),
            )
            after = _set(state, place, written)
        nodes = done | 1 << place
        further = phase + 1 if bounds.rules.wait_first else RAISED
        reached = (further, 0) if nodes == (1 << NODES) - 1 else (phase, nodes)
        yield _change(
            bounds,
            f"node {place + 1}: the operator {what} it",
            after._replace(operator=reached),
            place,
            "raise",
        )
    behind = [
        node.text
        for node in state.nodes
        if isinstance(node.text, Marker) and node.text.wait_ttl < 2
    ]
    # Otherwise it would find all as it left it.
    if phase in (VERIFIES, RAISES) and bounds.rules.wait_first and behind:
        yield _change(bounds, "the operator begins anew", state._replace(operator=(WAITS, 0)))


def _replaces(bounds: Memories, state: State) -> Iterator[Change]:
    """`redlock init --replace`, when no try is under way: the promise of a drain."""
    if running(state) or not all(node.master for node in state.nodes):
        return
    ahead = max(highest(state), state.now + AHEAD) if bounds.tokens else highest(state) + 1
    floor = ahead if bounds.rules.replace_floor else 0
    texts = [
        Marker(node.memory, node.run, floor=floor, written_over="replaced") for node in state.nodes
    ]
    nodes = tuple([node._replace(text=text) for node, text in zip(state.nodes, texts, strict=True)])
    clients = state.clients
    for place, text in enumerate(texts):
        clients = tuple([_told_later(client, place, text) for client in clients])
    after = state._replace(nodes=nodes, clients=clients, operator=(RAISED, 0))
    yield _change(bounds, "the operator replaces all markers", after)


# Small ones


def _put(state: State, index: int, client: Client) -> State:
    # Often, so in haste.
    return State(
        state[0], (*state.clients[:index], client, *state.clients[index + 1 :]), *state[2:]
    )


def _set(state: State, place: int, node: Node) -> State:
    return State((*state.nodes[:place], node, *state.nodes[place + 1 :]), *state[1:])


def canonical(bounds: Memories, state: State) -> State:
    """The same with the clients that are alike, and their sides, in an order of their own:
    exchanging them makes no difference.

    The order looks at what usually differs; two that it cannot tell apart stay as they are, and are
    visited twice.
    """
    if _exchanged(bounds) and _rank(state.clients[0]) > _rank(state.clients[1]):
        return _other_client(_other_side(state))
    return state


def images(bounds: Memories, state: State) -> set[State]:
    """All states that differ from this one by such an exchange."""
    return {state, _other_client(_other_side(state))} if _exchanged(bounds) else {state}


def _apart(bounds: Memories) -> bool:
    """Whether the first client asks the first two nodes for their votes, and the second one the
    first and the third.

    Two majorities of three have one node in common, which must have forgotten: so of two holders
    one has the second node, and the other one the third. Which of the two it is makes no difference
    if either the nodes are alike or the clients.
    """
    return bounds.reduced and (_sides_alike(bounds) or _clients_alike(bounds))


def _exchanged(bounds: Memories) -> bool:
    return bounds.reduced and _sides_alike(bounds) and _clients_alike(bounds)


def _sides_alike(bounds: Memories) -> bool:
    return bounds.smallest == FAULTY


def _clients_alike(bounds: Memories) -> bool:
    special = {0, 1} & {*bounds.fresh, *bounds.aloof}
    return (
        bounds.tries[0] == bounds.tries[1]
        and bounds.rules.blank_by_node
        and not (special or bounds.raises)
    )


def _rank(client: Client) -> tuple[object, ...]:
    told = [
        (
            r.seen is None,
            r.trusted is None,
            r.loss is None,
            len(r.past),
            r.loss.before.bit_count() if r.loss else 0,
        )
        for r in client.records[:1]
    ]
    votes = (client.votes & 1, client.votes.bit_count(), client.again.bit_count())
    return (client.phase, client.tries, votes, client.token, client.ttl, len(client.sent), *told)


def _bits(mask: int) -> int:
    return mask & 1 | (mask >> 1 & 1) << 2 | (mask >> 2 & 1) << 1


def _other_side(state: State) -> State:
    a, b, c = state.nodes
    clients = []
    for client in state.clients:
        x, y, z = client.records
        records = tuple(
            [
                r if r.loss is None else r._replace(loss=r.loss._replace(asked=_bits(r.loss.asked)))
                for r in (x, z, y)
            ]
        )
        founding = client.founding and (client.founding[0], client.founding[2], client.founding[1])
        clients.append(
            client._replace(
                records=records,
                votes=_bits(client.votes),
                again=_bits(client.again),
                founding=founding,
            )
        )
    marks = frozenset([m._replace(node=3 - m.node) if m.node else m for m in state.marks])
    phase, done = state.operator
    return state._replace(
        nodes=(a, c, b), clients=tuple(clients), marks=marks, operator=(phase, _bits(done))
    )


def _two(mask: int) -> int:
    return mask & ~3 | (mask & 1) << 1 | (mask >> 1) & 1


def _other_client(state: State) -> State:
    first, second, *others = state.clients
    nodes = tuple(
        [node._replace(lock=1 - node.lock) if node.lock >= 0 else node for node in state.nodes]
    )
    clients = tuple(
        [
            client._replace(records=tuple(map(_by_other, client.records)))
            for client in (second, first, *others)
        ]
    )
    shelf = state.shelf
    if shelf is not None and shelf.lock >= 0:
        shelf = shelf._replace(lock=1 - shelf.lock)
    blanks = tuple([_two(mask) for mask in state.blanks])
    marks = frozenset([m._replace(client=1 - m.client) if m.client < 2 else m for m in state.marks])
    return state._replace(
        nodes=nodes,
        clients=clients,
        marks=marks,
        shelf=shelf,
        blanks=blanks,
        restarted=_two(state.restarted),
        met=_two(state.met),
        victims=_two(state.victims),
    )


def _by_other(record: Record) -> Record:
    return (
        record
        if record.loss is None
        else record._replace(loss=record.loss._replace(before=_two(record.loss.before)))
    )
