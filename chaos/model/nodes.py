"""What a node may do next: execute a request, lose a lock to time, forget everything, come back
from its quarantine.

A step of a node changes that node and no other, and depends on it and the control alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from chaos.model.protocol import (
    BEHIND,
    BUSY,
    GRANTED,
    Lock,
    Op,
    Reply,
    broken_off,
    counted,
    free,
    locked,
    raised,
    take,
    waited,
)
from chaos.model.state import (
    BALLOT,
    HELD,
    OPEN,
    Client,
    Configuration,
    Control,
    Node,
    Request,
    client_of,
    name_of,
    owner_of,
    passed,
)

__all__ = ["ABORT", "EXECUTE", "EXPIRE", "FORGET", "RETURN", "Happening", "node_steps", "settle"]

ABORT, EXECUTE, EXPIRE, FORGET, RETURN = "abort", "execute", "expire", "forget", "return"


class Happening(NamedTuple):
    """What a node did. *request*: the one it executed, and *reply* what it answered."""

    kind: str
    text: str
    request: Request | None = None
    reply: Reply | None = None


def node_steps(
    bounds: Configuration, control: Control, node: Node
) -> Iterator[tuple[Happening, Node, Control]]:
    """Everything this node may do: what happens, and the node and the control afterwards."""
    for request in node.pending:
        # A node in quarantine gets its releases, and nothing else.
        if node.waits is None or request.op is Op.FREE:
            for happening, changed in _executed(bounds, control, node, request):
                if changed != node:
                    yield happening, changed, control
            if bounds.aborts and request.op in (Op.TAKE, Op.EXTEND):
                yield from _aborted(bounds, control, node, request)
    if node.lock is not None and (not bounds.timing or node.lock.until == 0):
        text = f"{name_of(bounds, node.lock.owner)}'s lock expires"
        yield Happening(EXPIRE, text), settle(bounds, control, node._replace(lock=None)), control
    if control.crashes:
        after = control._replace(crashes=control.crashes - 1)
        forgot = settle(bounds, after, _forgot(bounds, control, node))
        yield Happening(FORGET, "crashes and forgets everything"), forgot, after
    if node.waits == ():
        yield from _returned(bounds, control, node)


def _executed(
    bounds: Configuration, control: Control, node: Node, request: Request
) -> Iterator[tuple[Happening, Node]]:
    yield from _answered(bounds, control, node, request, _run(bounds, node, request))
    if bounds.turns:
        refused = waited(node.lock, node.fence, request.op)
        if refused is not None:
            yield from _answered(bounds, control, node, request, refused)


def _answered(
    bounds: Configuration,
    control: Control,
    node: Node,
    request: Request,
    outcome: tuple[Lock | None, int, Reply | None],
) -> Iterator[tuple[Happening, Node]]:
    lock, fence, reply = outcome
    changed = _without(bounds, node, request)._replace(lock=lock, fence=fence)
    happening = Happening(EXECUTE, _told(bounds, request, reply), request, reply)
    index = client_of(request.owner)
    if request.current and reply is not None and _useful(bounds, control.clients[index], reply):
        replies = (*node.replies[:index], reply, *node.replies[index + 1 :])
        yield happening, settle(bounds, control, changed._replace(replies=replies))
        if node.replies[index] is None:
            return
    # Of two answers to one question either may be the one that is heard.
    yield happening, settle(bounds, control, changed)


def _aborted(
    bounds: Configuration, control: Control, node: Node, request: Request
) -> Iterator[tuple[Happening, Node, Control]]:
    lock, fence = broken_off(node.lock, node.fence, node.floor, *request[:-1], bounds.rules)
    if (lock, fence) != (node.lock, node.fence):
        half = settle(
            bounds, control, _without(bounds, node, request)._replace(lock=lock, fence=fence)
        )
        yield (
            Happening(ABORT, f"{_named(bounds, request)} breaks off after one write", request),
            half,
            control,
        )


def _without(bounds: Configuration, node: Node, request: Request) -> Node:
    """The node after it has got *request*, which may come again if there are duplicates."""
    if bounds.duplicates:
        return node
    return node._replace(pending=tuple([other for other in node.pending if other is not request]))


def _run(
    bounds: Configuration, node: Node, request: Request
) -> tuple[Lock | None, int, Reply | None]:
    op, owner, token, until, _ = request
    if op is Op.FREE:
        return *free(node.lock, node.fence, owner, token if bounds.protocol == BALLOT else -1), None
    if op is Op.COUNT:
        return counted(node.lock, node.fence, owner, until)
    if op is Op.LOCK:
        return locked(node.lock, node.fence, owner, until)
    if op is Op.RAISE:
        return raised(node.lock, node.fence, owner, token, bounds.rules)
    return take(node.lock, node.fence, node.floor, op, owner, token, until, bounds.rules)


def _useful(bounds: Configuration, client: Client, reply: Reply) -> bool:
    """Whether the client could do anything with this answer; one that leads to another round
    counts also if it refuses."""
    another = client.phase == OPEN and client.round < bounds.rounds and bounds.protocol == BALLOT
    return reply.kind == GRANTED or another


def _forgot(bounds: Configuration, control: Control, node: Node) -> Node:
    floor = max(node.floor, node.fence) if bounds.rules.floor else 0
    empty = node._replace(lock=None, fence=0, floor=floor)
    if not bounds.rules.quarantine:
        return empty
    begun = [
        (index, client)
        for index, client in enumerate(control.clients)
        if client.phase in (OPEN, HELD)
    ]
    # Without timing nothing tells when a validity ends but the end of the try itself.
    waits = [
        (owner_of(bounds, index, client), max(client.ends, default=client.limit) or 1)
        for index, client in begun
    ]
    # What was sent to the node that it was names the marker of before, and is refused; a release
    # names none.
    releases = tuple([request for request in node.pending if request.op is Op.FREE])
    return empty._replace(waits=tuple(waits), pending=releases)


def _returned(
    bounds: Configuration, control: Control, node: Node
) -> Iterator[tuple[Happening, Node, Control]]:
    """It votes again: under the lowest floor that its rule allows, and under one that is beyond
    everything so far."""
    floors = {node.floor}
    if bounds.rules.floor:
        floors.add(
            max([node.floor, *control.granted, *(client.token for client in control.clients)])
        )
    for floor in sorted(floors):
        back = settle(bounds, control, node._replace(waits=None, floor=floor))
        yield (
            Happening(RETURN, f"is back from its quarantine, empty, with floor {floor}"),
            back,
            control,
        )


def settle(bounds: Configuration, control: Control, node: Node) -> Node:
    """The same node in canonical form: instants that have passed read 0, and what can do nothing
    any more is dropped."""
    lock = node.lock
    if lock is not None and lock.until and passed(bounds, control, lock.owner, lock.until):
        lock = lock._replace(until=0)
    pending = set()
    for request in node.pending:
        if request.until and passed(bounds, control, request.owner, request.until):
            request = request._replace(until=0)
        if request.current or not (bounds.reduced and _idle(bounds, control, request, node)):
            pending.add(request)
    waits = node.waits
    if waits:
        waits = tuple([wait for wait in waits if not passed(bounds, control, *wait)])
    return Node(lock, node.fence, node.floor, waits, tuple(sorted(pending)), node.replies)


def _idle(bounds: Configuration, control: Control, request: Request, node: Node) -> bool:
    """Whether executing *request* here, its answer being too late, would do nothing, now and ever.

    Fences do not fall while a node remembers, and a crash takes the requests along, except
    releases.
    """
    op, owner, token, until, _ = request
    rules, lock, fence = bounds.rules, node.lock, node.fence
    if op is Op.VERIFY:
        return True
    if bounds.protocol != BALLOT or not (rules.strict and rules.quarantine and rules.owner_per_try):
        return False
    if op is Op.TAKE:
        return token <= fence
    mine = lock is not None and lock.owner == owner
    if op is Op.FREE:
        return fence > token and not mine and not control.crashes
    raises = lock is not None and mine and lock.token == token and lock.until < until
    return (
        fence > token
        and rules.top_up_checks_fence
        and rules.extension_never_shortens
        and not raises
    )


def _named(bounds: Configuration, request: Request) -> str:
    until = f" to t={request.until}" if request.op is Op.EXTEND and request.until else ""
    return (
        f"{name_of(bounds, request.owner)}'s"
        f" {request.op.name}{f' {request.token}' if request.token else ''}{until}"
    )


def _told(bounds: Configuration, request: Request, reply: Reply | None) -> str:
    what = f"{_named(bounds, request)} executes"
    if reply is None:
        return what
    answer = {BUSY: "busy", GRANTED: "granted", BEHIND: "token too small"}[reply.kind]
    return f"{what}: {answer}{'' if request.current else ', too late to count'}"
