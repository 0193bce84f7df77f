"""How a simulated client's requests reach a node: by the shipped `Link` on bytes, or as they are, for the flows alone.

Both keep the contract of a driver (`redlock.core.effects`) and share the shipped `Node`. `PlainLink` is that contract once
more, as simply as it can be written: what the flows rely on is the contract, and not how one link keeps it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import hiredis

from chaos.sim.node import ScriptError, SimNode, commands
from chaos.sim.world import Connection, CutOff
from redlock.core.admission import Identity, State
from redlock.core.commands import Greet, Mark, Nonsense
from redlock.core.effects import NEVER, Failure, Reply, Request
from redlock.core.quorum import Fault, FaultKind, Kind, Vote
from redlock.transport.link import Link, Mailbox, Node

__all__ = ["PlainLink", "SimLink", "WireLink"]


class SimLink(Protocol):
    """What a simulated client tells its links."""

    node: Node

    def serve(self, node: SimNode) -> Callable[[Any, float], Any]:
        """What the node does with the payloads of one connection."""

    def submit(self, request: Request, now: float) -> None:
        """Write a request, or let it wait, or let it fail."""

    def poke(self, now: float) -> None:
        """Something changed elsewhere: write what may be written now."""

    def retry(self, now: float) -> None:
        """Dial again if something is still owed or wanted and it is time."""

    def dialled(self, connection: Connection | None, now: float) -> None:
        """A dial ended."""

    def received(self, connection: Connection, payload: Any, now: float) -> None:
        """Something arrived."""

    def closed(self, connection: Connection, why: str, now: float) -> None:
        """The connection is gone."""

    def close(self) -> None:
        """The process ends."""


class WireLink:
    """The shipped link and parser, on bytes."""

    def __init__(self, node: Node, mailbox: Mailbox, dial: Callable[[], None], *, silence: float) -> None:
        self.node = node
        self._link = Link(node, mailbox, dial, silence=silence)
        self._connection: Connection | None = None

    def serve(self, node: SimNode) -> Callable[[bytes, float], bytes | None]:
        return partial(_serve_bytes, hiredis.Reader(), node)

    def submit(self, request: Request, now: float) -> None:
        link = self._link
        if not request.command.final and link.overdue(now):
            self._lose(Fault(FaultKind.SILENT, "did not answer"), now)
        self._write(link.submit(request, now))
        if link.broken is not None:
            self._lose(link.broken, now)

    def poke(self, now: float) -> None:
        self._write(self._link.poke(now))

    def retry(self, now: float) -> None:
        # As the drivers do: a release that a black hole swallowed would stay owed for as long as nobody calls.
        if self.node.owed and self._link.overdue(now):
            self._lose(Fault(FaultKind.SILENT, "did not answer"), now)
        self._write(self._link.bring(now))
        self._link.retry(now)

    def dialled(self, connection: Connection | None, now: float) -> None:
        if connection is None:
            self._link.dial_failed(Fault(FaultKind.UNREACHABLE, "refused the connection"), now)
        else:
            self._connection = connection
            self._write(self._link.connected(now, owed=list(self.node.owed)))

    def received(self, connection: Connection, payload: bytes, now: float) -> None:
        if connection is not self._connection:
            return
        self._write(self._link.received(payload, now))
        if self._link.broken is not None:
            self._lose(self._link.broken, now)

    def closed(self, connection: Connection, why: str, now: float) -> None:
        if connection is self._connection:
            self._connection = None
            self._link.lost(Fault(FaultKind.LOST, why), now)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lose(self, fault: Fault, now: float) -> None:
        self.close()
        self._link.lost(fault, now)

    def _write(self, data: bytes) -> None:
        if data and self._connection is not None:
            self._connection.send(data)


def _serve_bytes(reader: hiredis.Reader, node: SimNode, payload: bytes, at: float) -> bytes | None:
    reader.feed(payload)
    asked = commands(reader)
    if node.flaps:
        place = next((place for place, words in enumerate(asked) if words[0].startswith(b"EVAL")), None)
        if place is not None:
            raise CutOff(b"".join([node.execute(words, at) for words in asked[:place]]))
    return b"".join([node.execute(words, at) for words in asked]) or None


class PlainLink:
    """The contract of a driver, without bytes: a request travels as it is, and is answered by identity."""

    __slots__ = (
        "_connection",
        "_dial",
        "_dialling",
        "_flight",
        "_greeted",
        "_greeting",
        "_mailbox",
        "_marker",
        "_marking",
        "_quiet_since",
        "_silence",
        "_unproven",
        "_waiting",
        "node",
    )

    def __init__(self, node: Node, mailbox: Mailbox, dial: Callable[[], None], *, silence: float) -> None:
        self.node = node
        self._mailbox = mailbox
        self._dial = dial
        self._silence = silence
        self._connection: Connection | None = None
        self._dialling = False
        self._flight: dict[Request | str, None] = {}
        self._waiting: deque[Request] = deque()
        self._quiet_since = 0.0
        self._marker: str | None = None
        self._greeted = False
        self._greeting = False
        self._marking = False
        self._unproven = False

    def serve(self, node: SimNode) -> Callable[[Any, float], Any]:
        return partial(_serve_request, node)

    # What the client tells

    def submit(self, request: Request, now: float) -> None:
        command = request.command
        if not command.final and self._flight and now - self._quiet_since > self._silence:
            self._lose(Fault(FaultKind.SILENT, "did not answer"), now)
        if now > request.not_after:
            self._expire(request, now)
        elif self._connection is None:
            self._submit_unconnected(request, now)
        elif command.marked:
            if self._marker is not None:
                self._send(request, self._marker, now)
            else:
                self._waiting.append(request)
                self.poke(now)
        elif type(command) is Greet:
            if command.look and not self._greeting:
                self._greet(now)
            self._waiting.append(request)
            self.poke(now)
        else:
            self._send(request, "", now)

    def poke(self, now: float) -> None:
        """Settle how the node stands, and write, answer or fail what waits for that."""
        idle = self._connection is not None and not self._greeting and not self._marking
        if idle and self.node.admission.outdated(self.node.index):
            self._greet(now, voting=True)
        elif self._waiting:
            self._settle(now, tell=False)

    def _settle(self, now: float, *, tell: bool) -> None:
        if self._connection is None or self._greeting or self._marking:
            return
        node = self.node
        standing = node.admission.standing(node.index, now)
        if standing.state is State.ADMITTED:
            self._marker = standing.marker
            node.admitted(now)
        elif standing.state is State.MARK:
            self._marking = self._unproven = True
            self._send(Request(node.index, standing.mark, float("inf")), "", now)  # type: ignore[arg-type]
        elif standing.fault is not None and tell:  # It was asked just now.
            node.tell(standing, now)
        elif standing.fault is not None and node.recheck_due(now):
            self._greet(now)
            return
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            looks = isinstance(request.command, Greet) and request.command.look
            if standing.state in (State.UNKNOWN, State.MARK) and now <= request.not_after and not looks:
                self._waiting.append(request)
            elif type(request.command) is Greet:
                self._mailbox.append(Reply(request, standing, now))
            elif now > request.not_after:
                self._expire(request, now)
            elif self._marker is not None:
                self._send(request, self._marker, now)
            else:
                self._fail(request, standing.fault, now)

    def retry(self, now: float) -> None:
        if self.node.owed and self._flight and now - self._quiet_since > self._silence:
            self._lose(Fault(FaultKind.SILENT, "did not answer"), now)
        releasing = any(isinstance(request, Request) and request.command.final for request in self._flight)
        if self._connection is not None and self._greeted and not releasing and now >= self.node.bring_at:
            self._bring(now)
        if self._waiting or self.node.owed:
            self._ask_dial(now)

    def _bring(self, now: float) -> None:
        for command in list(self.node.owed):
            self._unproven = True
            self._send(Request(self.node.index, command, float("inf")), "", now)

    def dialled(self, connection: Connection | None, now: float) -> None:
        self._dialling = False
        if connection is None:
            self._unreachable(Fault(FaultKind.UNREACHABLE, "refused the connection"), now)
            return
        self._connection = connection
        self._greeted = self._unproven = False
        self._greet(now)
        self._bring(now)
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if request.command.marked or type(request.command) is Greet:
                self._waiting.append(request)
            elif now > request.not_after:
                self._expire(request, now)
            else:
                self._send(request, "", now)

    def received(self, connection: Connection, payload: Any, now: float) -> None:
        if connection is not self._connection:
            return
        self._quiet_since = now
        request, answer = payload
        del self._flight[request]
        if request == _GREETING:
            self._met(answer, now)
        elif isinstance(answer, ScriptError):
            self._error(request, str(answer), now)
        else:
            self._answer(request, answer, now)

    def closed(self, connection: Connection, why: str, now: float) -> None:
        if connection is self._connection:
            self._gone(Fault(FaultKind.LOST, why), now)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # How

    def _submit_unconnected(self, request: Request, now: float) -> None:
        if request.command.final:
            self.node.owe(request.command, now)
        if self.node.fault is None:
            self._waiting.append(request)
        else:
            self._fail(request, self.node.fault, now)
        self._ask_dial(now)

    def _ask_dial(self, now: float) -> None:
        if self._connection is None and not self._dialling and now >= self.node.redial_at:
            self.node.admission.asked(now)
            self._dialling = True
            self._dial()

    def _send(self, request: Request, marker: str, now: float) -> None:
        assert self._connection is not None
        if not self._flight:
            self._quiet_since = now
        self._flight[request] = None
        request.written = True
        self._connection.send((request, marker))

    def _greet(self, now: float, *, voting: bool = False) -> None:
        assert self._connection is not None
        self._greeting = True
        if not voting:
            self._marker = None
        if not self._flight:
            self._quiet_since = now
        self._flight[_GREETING] = None
        self._connection.send((_GREETING, ""))

    def _met(self, identity: Identity, now: float) -> None:
        node = self.node
        self._greeting = False
        self._greeted = True
        self._marker = None
        node.reachable()
        node.admission.seen(node.index, identity, now)
        self._settle(now, tell=True)

    def _answer(self, request: Request, answer: Any, now: float) -> None:
        command, node = request.command, self.node
        try:
            value = command.read(answer)
        except Nonsense as error:
            if command.final:
                node.owe(command, now)
            fault = Fault(FaultKind.NONSENSE, f"answered nonsense: {error}")
            self._fail(request, fault, now)
            self._lose(fault, now)
            return
        if request.run is not None:
            self._mailbox.append(Reply(request, value, now))
        if command.final:
            self._unproven = False
            node.answered(command)
        elif type(command) is Mark:
            self._marking = self._unproven = False
            node.admission.marked(node.index, command, value, now)
            self.poke(now)
        elif type(value) is Vote and value.kind is Kind.STRANGER and self._marker is not None:
            self._marker = None
            if not self._greeting:
                self._greet(now)

    def _error(self, request: Request, text: str, now: float) -> None:
        command = request.command
        fault = Fault(FaultKind.ERROR, f"said {text}")
        if type(command) is Mark:
            self._marking = self._unproven = False
            self.node.admission.failed(self.node.index, fault)
            self._fail_waiting(fault, now)
        elif command.final:
            self._unproven = False
            self.node.refused(command, now)
        self._fail(request, fault, now)

    def _lose(self, fault: Fault, now: float) -> None:
        self.close()
        self._gone(fault, now)

    def _gone(self, fault: Fault, now: float) -> None:
        was_greeting = not self._greeted
        flight, self._flight = self._flight, {}
        self._connection = None
        self._marker = None
        self._greeting = self._marking = False
        for request in flight:
            if isinstance(request, Request):
                if request.command.final:
                    self.node.owe(request.command, now)
                self._fail(request, fault, now)
        if was_greeting or self._unproven:
            self._unreachable(fault, now)
        self.retry(now)

    def _unreachable(self, fault: Fault, now: float) -> None:
        self.node.unreachable(fault, now)
        self._fail_waiting(fault, now)

    def _fail_waiting(self, fault: Fault, now: float) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            self._fail(request, fault, now)

    def _expire(self, request: Request, now: float) -> None:
        over = "the vote was decided" if request.not_after == NEVER else "the time for it was over"
        self._fail(request, Fault(FaultKind.EXPIRED, f"was not asked: {over}"), now)

    def _fail(self, request: Request, fault: Fault | None, now: float) -> None:
        if request.run is not None and fault is not None:
            self._mailbox.append(Failure(request, fault, now))


_GREETING = "greeting"


def _serve_request(node: SimNode, payload: tuple[Any, str], at: float) -> Any:
    request, marker = payload
    if request == _GREETING:
        return request, node.identity(at)
    if node.flaps:
        raise CutOff(None)
    try:
        return request, node.perform(request.command, marker, at)
    except ScriptError as error:
        return request, error
