"""How a simulated client's requests reach a node: by the shipped `Link` on bytes, or as they are,
for the flows alone.

Both stand in the shipped `LinkSet`, keep the contract of a driver (`redlock.core.effects`) and
share the shipped `Node`. `PlainLink` is that contract once more, as simply as it can be written:
what the flows rely on is the contract, and not how one link keeps it. What it would write is a list
of payloads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import hiredis

from chaos.sim.node import ScriptError, SimNode, commands
from chaos.sim.world import CutOff, Serve
from redlock.core.admission import Standing, State
from redlock.core.commands import LOOK, Command, Greet, Mark, Nonsense
from redlock.core.effects import NEVER, Failure, Reply, Request
from redlock.core.identity import Identity, Memory
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind, Vote
from redlock.transport.greeting import LOOK_EVERY
from redlock.transport.link import Link, Mailbox
from redlock.transport.node import Node

__all__ = ["MODES", "PlainLink", "serve_bytes"]


def serve_bytes(reader: hiredis.Reader, node: SimNode, payload: bytes, at: float) -> bytes | None:
    reader.feed(payload)
    asked = commands(reader)
    if node.flaps:
        place = next(
            (
                place
                for place, words in enumerate(asked)
                if words[0].startswith(b"EVAL") and words[1] not in _LOOKS
            ),
            None,
        )
        if place is not None:
            raise CutOff(b"".join([node.execute(words, at) for words in asked[:place]]))
    return b"".join([node.execute(words, at) for words in asked]) or None


class PlainLink:
    """The contract of a driver, without bytes: a request travels as it is, and is answered by
    identity."""

    __slots__ = (
        "_admission",
        "_as_of",
        "_barred",
        "_dial",
        "_greeted",
        "_greeting",
        "_life",
        "_look_at",
        "_looked",
        "_looks",
        "_mailbox",
        "_marked_at",
        "_marker",
        "_marking",
        "_memory",
        "_out",
        "_quiet_since",
        "_silence",
        "_unproven",
        "_waiting",
        "broken",
        "dialling",
        "in_flight",
        "node",
        "up",
    )

    def __init__(
        self, node: Node, mailbox: Mailbox, dial: Callable[[], None], *, silence: float
    ) -> None:
        self.node = node
        self.broken: Fault | None = None
        self.up = self.dialling = False
        self.in_flight: dict[Any, None] = {}
        self._mailbox = mailbox
        self._dial = dial
        self._silence = silence
        self._admission = node.admission
        self._out: list[Any] = []
        self._waiting: deque[Request] = deque()
        self._quiet_since = 0.0
        self._looks = 0
        self._reset()

    def _reset(self) -> None:
        self._marker: str | None = None
        self._barred = False
        self._as_of = -1
        self._life = 0
        self._greeted = False
        self._greeting = 0
        self._looked = (NEVER, -1)
        self._look_at = NEVER
        self._marking = False
        self._marked_at = NEVER
        self._memory: Memory | None = None
        self._unproven = False

    @property
    def releasing(self) -> bool:
        return any(
            isinstance(request, Request) and request.command.final for request in self.in_flight
        )

    def overdue(self, now: float) -> bool:
        return bool(self.in_flight) and now - self._quiet_since > self._silence

    def heard(self, now: float) -> None:
        self._quiet_since = now

    # What the set tells

    def submit(self, request: Request, now: float) -> list[Any]:
        command = request.command
        if now > request.not_after:
            self._expire(request, now)
        elif not self.up:
            self._submit_unconnected(request, now)
        elif command.marked:
            if now > self._look_at and not self._learning:
                self._greet(now, voting=True)
            if self._may_vote(now):
                self._send_vote(request, now)
            else:
                self._waiting.append(request)
                self._settle_waiting(now)
        elif type(command) is Greet:
            if self._may_vote(now) and not command.look:
                self._mailbox.append(
                    Reply(request, self._admission.standing(self.node.index, now), now)
                )
                return []
            if command.look and self._greeted and not self._greeting:
                self._greet(now)
            self._waiting.append(request)
            self._settle_waiting(now)
        else:
            self._send(request, "", now)
        return self._written()

    def _written(self) -> list[Any]:
        """What is to be written."""
        out, self._out = self._out, []
        return out

    def poke(self, now: float) -> list[Any]:
        """Settle how the node stands, and write, answer or fail what waits for that."""
        if not self.up or self._learning:
            return []
        if self._admission.outdated(self.node.index):
            self._greet(now, voting=True)
        elif self._waiting:
            self._settle_waiting(now)
        return self._written()

    @property
    def _learning(self) -> bool:
        """Whether it is still asked who the node is, or writes a marker."""
        return self._greeting > 0 or self._marking or not self._greeted

    def _may_vote(self, now: float) -> bool:
        """Whether a vote may be written: as of the newest that any connection was told (rule 7)."""
        if self._marker is None or self._as_of == self._admission.changes:
            return self._marker is not None
        as_of = self._admission.changes
        standing = self._admission.standing(self.node.index, now)
        if standing.state is State.ADMITTED and standing.memory == self._memory:
            self._admit(standing, as_of)
            return True
        self._marker, self._barred = None, standing.barred
        return False

    def _admit(self, standing: Standing, as_of: int) -> None:
        self._marker, self._as_of, self._life = (
            standing.marker,
            as_of,
            self._admission.life(self.node.index),
        )

    def _send_vote(self, request: Request, now: float) -> None:
        request.life = self._life
        self._send(request, self._marker or "", now)

    def _counts(self, request: Request, now: float) -> bool:
        """Whether a vote that was just read is one: nobody has found since it was written that
        the node lost anything."""
        if self._as_of != self._admission.changes:
            self._barred = self._admission.standing(self.node.index, now).barred
        return not self._barred and request.life == self._admission.life(self.node.index)

    def _settle(self, now: float, *, tell: bool = False) -> None:
        """Act on how the node stands: open the way for votes, write its marker, or look again
        later."""
        if not self.up or self._learning:
            return
        node, as_of = self.node, self._admission.changes
        standing = self._admission.standing(node.index, now)
        self._barred = standing.barred
        if standing.state is State.ADMITTED:
            # Another connection was told of another memory than is behind this one.
            if standing.memory != self._memory:
                if node.recheck_due(now):
                    self._greet(now)
                return
            self._admit(standing, as_of)
            node.admitted(now)
        elif standing.state is State.MARK and standing.mark is not None:
            self._marking = self._unproven = True
            self._marked_at = now
            self._send(Request(node.index, standing.mark, float("inf")), "", now)
        elif standing.state is not State.UNKNOWN and standing.fault is not None:
            due = node.recheck_due(now)
            if tell:  # It was asked just now.
                node.tell(standing, now)
            elif due and standing.redial:
                self.broken = Fault(
                    FaultKind.LOST, "was dialled again, as another node's name leads to its server"
                )
            elif due:
                self._greet(now)

    def _settle_waiting(self, now: float) -> None:
        """Write, answer or fail what waits, as far as the node's standing tells."""
        if not self._waiting:
            return
        if not self._may_vote(now):
            self._settle(now)
        if not self.up or self._learning:
            return
        standing = self._admission.standing(self.node.index, now)
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            looks = isinstance(request.command, Greet) and request.command.look
            if (
                standing.state in (State.UNKNOWN, State.MARK)
                and now <= request.not_after
                and not looks
            ):
                request.why = standing.fault.detail if standing.fault is not None else ""
                self._waiting.append(request)
            elif type(request.command) is Greet:
                self._mailbox.append(Reply(request, standing, now))
            elif self._marker is None and standing.fault is not None:
                self._fail(request, standing.fault, now)
            elif now > request.not_after or self._marker is None:
                self._expire(request, now)
            else:
                self._send_vote(request, now)

    def retry(self, now: float) -> None:
        if self._waiting or self.node.owed:
            self._ask_dial(now)

    def bring(self, now: float) -> list[Any]:
        if self.up and self._greeted and not self.releasing and now >= self.node.bring_at:
            self._bring(now)
        return self._written()

    def _bring(self, now: float) -> None:
        for command in list(self.node.owed):
            self._unproven = True
            self._send(Request(self.node.index, command, float("inf")), "", now)

    def connected(self, now: float, owed: Iterable[Command] = ()) -> list[Any]:
        self._reset()
        self.up, self.dialling = True, False
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
        return self._written()

    def dial_failed(self, fault: Fault, now: float) -> None:
        self.dialling = False
        self._unreachable(fault, now)

    def received(self, payload: Any, now: float) -> list[Any]:
        self._quiet_since = now
        request, answer = payload
        del self.in_flight[request]
        if type(request) is tuple:
            self._met(answer, now)
        elif isinstance(answer, ScriptError):
            self._error(request, str(answer), now)
        else:
            self._answer(request, answer, now)
        return self._written()

    def lost(self, fault: Fault, now: float) -> None:
        was_greeting, unproven = not self._greeted, self._unproven
        fifo, self.in_flight = self.in_flight, {}
        self.up = False
        self.broken = None
        self._reset()
        for request in fifo:
            if isinstance(request, Request):
                if request.command.final:
                    self.node.owe(request.command, now)
                self._fail(request, fault, now)
        if was_greeting or unproven:
            self._unreachable(fault, now)
        self.retry(now)

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
        if not self.up and not self.dialling and now >= self.node.redial_at:
            self.node.admission.asked(now)
            self.dialling = True
            try:
                self._dial()
            except Exception as error:
                # A dial that did not begin ends never: nobody would ask for another one.
                self.dialling = False
                self._unreachable(
                    Fault(FaultKind.UNREACHABLE, f"could not be dialled ({error})"), now
                )

    def _send(self, request: Request, marker: str, now: float) -> None:
        if not self.in_flight:
            self._quiet_since = now
        self.in_flight[request] = None
        request.written = True
        self._out.append((request, marker))

    def _greet(self, now: float, *, voting: bool = False) -> None:
        self._greeting += 1
        if not voting:
            self._marker = None
        self._looked = (now, self._admission.changes)
        self._look_at = now + LOOK_EVERY
        if not self.in_flight:
            self._quiet_since = now
        self._looks += 1
        look = (_GREETING, self._looks)
        self.in_flight[look] = None
        self._out.append((look, ""))

    def _met(self, identity: Identity | ScriptError, now: float) -> None:
        node, before = self.node, self._admission.identity(self.node.index)
        self._greeting -= 1
        if self._greeting:
            return
        self._greeted = True
        self._marker = None
        node.reachable()
        if isinstance(identity, ScriptError):
            fault = Fault(FaultKind.ERROR, f"said {identity}")
            self._admission.failed(node.index, fault)
            self._fail_waiting(fault, now)
            return
        self._memory = identity.memory
        self._admission.seen(
            node.index, identity, now, asked_at=self._looked[0], as_of=self._looked[1]
        )
        node.met(before, identity, now)
        self._settle(now, tell=True)
        self._settle_waiting(now)

    def _wrote(self, mark: Mark, stands: str | None, now: float) -> None:
        """The marker was written, by us or, first, by somebody else; None: the memory is another
        one."""
        self._marking = self._unproven = False
        if stands is None:
            self._greet(now)
            return
        identity = self._admission.identity(self.node.index)
        if identity is not None and identity.memory == self._memory:
            self._admission.marked(self.node.index, mark, stands, now, asked_at=self._marked_at)
        self._settle(now)
        self._settle_waiting(now)

    def _answer(self, request: Request, answer: Any, now: float) -> None:
        command, node = request.command, self.node
        try:
            value = command.read(answer)
        except Nonsense as error:
            if command.final:
                node.owe(command, now)
            fault = Fault(FaultKind.NONSENSE, f"answered nonsense: {error}")
            self._fail(request, fault, now)
            self.broken = fault
            return
        if command.marked and value is GRANTED and not self._counts(request, now):
            self._fail(
                request, Fault(FaultKind.QUARANTINED, "granted, and was found to have no vote"), now
            )
        elif request.run is not None:
            self._mailbox.append(Reply(request, value, now))
        if command.final:
            self._unproven = False
            node.answered(command)
        elif type(command) is Mark:
            self._wrote(command, value, now)
        elif type(value) is Vote and value.kind is Kind.STRANGER and self._marker is not None:
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


MODES: dict[str, tuple[Callable[..., Any], Callable[[SimNode], Serve]]] = {
    "plain": (PlainLink, lambda node: partial(_serve_request, node)),
    "wire": (Link, lambda node: partial(serve_bytes, hiredis.Reader(), node)),
}
"""What makes a link, and what a node does with the payloads of one connection."""
_GREETING = "greeting"
_LOOKS = (LOOK.sha.encode(), LOOK.source.encode())


def _serve_request(node: SimNode, payload: tuple[Any, str], at: float) -> Any:
    request, marker = payload
    if type(request) is tuple:
        try:
            return request, node.identity(at)
        except ScriptError as error:
            return request, error
    if node.flaps:
        raise CutOff(None)
    try:
        return request, node.perform(request.command, marker, at)
    except ScriptError as error:
        return request, error
