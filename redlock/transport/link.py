"""One ordered link to one node: which requests are in flight, what waits, and what the answers are.

Pure: bytes and time go in, bytes and events come out; the set of connections that it is in
(`linkset`) is told what to write. A `Link` lives on when its connection breaks; a `Node` is what
all links to the same node share, and a `Greeting` what was learned on the present connection.

What a link guarantees:

- Requests are written in the order they were submitted, and answers are matched first in, first
  out. So a release travels behind the acquire it undoes, also when that acquire was never answered.
- Nothing that votes is written before the node behind this connection was admitted, nor after its
  `not_after`.
- A release needs no admission, and one whose answer was lost, or was an error, stays owed and is
  sent again: on the next connection, or after a pause on this one, until it is answered or the lock
  has expired by itself.
- Everything is bounded: in flight, waiting, owed, and how long a connected node may be silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from redlock.core import events
from redlock.core.admission import State
from redlock.core.commands import Command, Free, Greet, Look, Mark, Nonsense, Plain, fields
from redlock.core.effects import NEVER, Failure, Reply, Request
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind, Vote
from redlock.transport.greeting import Gate, Greeting
from redlock.transport.node import Node
from redlock.transport.wire import (
    NOT_YET,
    ReplyReader,
    ServerError,
    WireError,
    clean,
    encode,
    encode_whole,
)

# Long: one first-in, first-out line: whatever adds to it or takes from it is here.
__all__ = ["Link", "Mailbox"]

IN_FLIGHT_MAX = 4096
"""Requests of one connection without an answer: some ten for each of the rounds that may be
under way."""
TAKES_MAX = IN_FLIGHT_MAX // 2
"""A TAKE is written only where its FREE would still fit."""

Mailbox = deque[Reply | Failure]
"""Where links put what happened, for the driver to hand to whoever waits."""

_CLUSTERED = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED"})
"""What only a node in cluster mode says."""
_REFUSALS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
"""Our rights do not suffice."""
_RECONSIDER = frozenset({"READONLY", "LOADING", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN"})
"""The node's role may have changed."""
_DOWN, _DIALLING = Gate.DOWN, Gate.DIALLING  # Looked at for every release.


class Link:
    """One ordered connection's worth of requests to *node*.

    *dial* is called when a connection is wanted; the driver answers with `connected` or
    `dial_failed`. *silence*: seconds for which a connected node may owe an answer before the
    connection is given up. *broken* is set when the driver must close the connection and call
    `lost`.
    """

    __slots__ = (
        "_admission",
        "_dial",
        "_greeting",
        "_mailbox",
        "_quiet_since",
        "_reader",
        "_silence",
        "_unproven",
        "_waiting",
        "broken",
        "in_flight",
        "node",
    )

    def __init__(
        self, node: Node, mailbox: Mailbox, dial: Callable[[], None], *, silence: float
    ) -> None:
        self.node = node
        self.broken: Fault | None = None
        self._admission = node.admission
        self._mailbox = mailbox
        self._dial = dial
        self._silence = silence
        self._greeting = Greeting(node)
        self.in_flight: deque[Request] = deque()
        """Requests written and not answered, in their order."""
        self._waiting: deque[Request] = deque()
        self._quiet_since = 0.0
        self._reader = ReplyReader()
        # Whether we wrote by ourselves what was owed, or a marker, and nothing of it was answered.
        self._unproven = False

    # What the driver asks

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        gate = self._greeting.gate
        return gate is not _DOWN and gate is not _DIALLING

    @property
    def dialling(self) -> bool:
        """Whether a connection was asked for and has not come."""
        return self._greeting.gate is _DIALLING

    @property
    def releasing(self) -> bool:
        """Whether a release was written and not answered: a socket that is closed with an answer
        unread may take with it what the node has not read yet."""
        return any(request.command.final for request in self.in_flight)

    def overdue(self, now: float) -> bool:
        """Whether the node has owed an answer for too long. Read its socket before believing
        that."""
        return bool(self.in_flight) and now - self._quiet_since > self._silence

    def heard(self, now: float) -> None:
        """The driver was away and cannot know whether the node was silent: start counting anew."""
        self._quiet_since = now

    # What the driver tells; all give the bytes to write

    def submit(self, request: Request, now: float) -> bytes:
        """Take a request; what cannot be written now waits, or fails at once into the mailbox."""
        command, in_flight, greeting = request.command, self.in_flight, self._greeting
        if command.marked:
            tail = greeting.tail
            if (
                tail is None
                or greeting.as_of != self._admission.changes
                or now > greeting.look_at
                or now > request.not_after
                or len(in_flight) >= TAKES_MAX
            ):
                return self._submit_other(request, now)
            request.life = greeting.life
            data = (command.packed or encode(command)) + tail
        elif (
            command.final
            and greeting.gate is not _DOWN
            and greeting.gate is not _DIALLING
            and len(in_flight) < IN_FLIGHT_MAX
        ):
            data = command.packed or encode(command)
        else:
            return self._submit_other(request, now)
        if not in_flight:
            self._quiet_since = now
        in_flight.append(request)
        request.written = True
        return data

    def connected(self, now: float, owed: Iterable[Command] = ()) -> bytes:
        """A new connection: ask who it is, and send the releases that are still owed."""
        self._reader = ReplyReader()
        self._unproven = False
        self._quiet_since = now
        data = self._ask(self._greeting.begin(now), now)
        return data + self._bring(owed, now) + self._flush(now)

    def dial_failed(self, fault: Fault, now: float) -> None:
        """No connection: whatever waits for it fails."""
        self._greeting.gate = _DOWN
        self.node.unreachable(fault, now)
        self._fail_waiting(fault, now)

    # Long: nearly every answer goes through here, and a call costs more than what it does.
    def received(self, data: bytes, now: float) -> bytes:
        """Bytes arrived. Sets `broken` if they cannot be trusted."""
        reader, in_flight, greeting = self._reader, self.in_flight, self._greeting
        # Nearly all answers say yes; they are known by their bytes. No whole reply is the beginning
        # of another one.
        as_of_now = greeting.as_of == self._admission.changes and not greeting.barred
        while in_flight and not reader.cut:
            request = in_flight[0]
            command = request.command
            if command.marked and not (as_of_now and request.life == greeting.life):
                break
            yes = command.plain_yes
            if data == yes:
                data = b""
            elif yes and data.startswith(yes):
                data = data[len(yes) :]
            else:
                break
            in_flight.popleft()
            self._quiet_since = now
            run = request.run
            if run is not None and not run.done:
                if run.wanted > 1 and run.mailbox is self._mailbox:
                    run.wanted -= 1
                    run.kept.append(request)
                else:
                    self._mailbox.append(Reply(request, GRANTED, now))
            if command.final:
                self._unproven = False
                if self.node.owed:
                    self.node.answered(command)
            if not data:
                return data
        out = b""
        try:
            reader.feed(data)
            while True:
                answer = reader.next()
                if answer is NOT_YET:
                    break
                self._quiet_since = now
                if not self.in_flight:
                    raise WireError("sent a reply that nobody asked for")
                out += self._answer(self.in_flight.popleft(), answer, now)
                if not self.up:
                    break
        except WireError as error:
            self.broken = Fault(FaultKind.NONSENSE, str(error))
        return out

    def retry(self, now: float) -> None:
        """Dial again if something is still owed or wanted and it is time."""
        if self._waiting or self.node.owed:
            self._ask_dial(now)

    def bring(self, now: float) -> bytes:
        """Write once more what the node refused, if it is time, and what is owed besides."""
        node = self.node
        if (
            not node.owed
            or not self.up
            or not self._greeting.met
            or self.releasing
            or now < node.bring_at
        ):
            return b""
        return self._bring(list(node.owed), now)

    def poke(self, now: float) -> bytes:
        """Something changed elsewhere, or time passed: write what may be written now."""
        if self._greeting.learning:
            return b""
        if self._admission.outdated(self.node.index):
            return self._ask(self._greeting.look(now, voting=True), now)
        return self._flush(now) if self._waiting else b""

    def lost(self, fault: Fault, now: float) -> None:
        """The connection ended. What was in flight fails; releases stay owed; what waits, waits
        for the next one."""
        greeting, unproven = self._greeting, self._unproven
        was_greeting = not greeting.met
        if was_greeting and greeting.said:  # A server that is full says so, and hangs up.
            fault = Fault(fault.kind, f"said {greeting.said}, and {fault.detail}")
        fifo, self.in_flight = self.in_flight, deque()
        greeting.reset()
        self._unproven = False
        self.broken = None
        for request in fifo:
            if request.command.final:
                self.node.owe(request.command, now)
            self._fail(request, fault, now)
        if was_greeting or unproven:
            # A port that accepts and says nothing is no better than one that refuses. Nor is one
            # that greets, and then breaks off or talks nonsense whenever it gets a release or a
            # marker: it would be dialled as fast as it answers.
            self.node.unreachable(Fault(FaultKind.UNREACHABLE, fault.detail), now)
            self._fail_waiting(self.node.fault or fault, now)
        elif self.node.emit:
            self.node.emit(events.NodeDisconnected(now, self.node.name, fault.detail))
        self.retry(now)

    # Submitting

    def _bring(self, owed: Iterable[Command], now: float) -> bytes:
        """Write what is owed, as far as there is room; the rest stays owed."""
        out = b""
        for command in islice(owed, max(0, IN_FLIGHT_MAX - len(self.in_flight))):
            self._unproven = True
            out += self._write(
                Request(self.node.index, command, float("inf")), encode_whole(command), now
            )
        return out

    def _write(self, request: Request, data: bytes, now: float) -> bytes:
        fifo = self.in_flight
        if not fifo:
            self._quiet_since = now
        fifo.append(request)
        request.written = True
        return data

    def _submit_other(self, request: Request, now: float) -> bytes:
        command = request.command
        if now > request.not_after:
            self._fail(request, _too_late(request), now)
            return b""
        if not self.up:
            self._submit_unconnected(request, now)
            return b""
        if isinstance(command, Greet):
            return self._submit_greet(request, command, now)
        if command.marked:
            return self._submit_vote(request, now)
        if len(self.in_flight) >= IN_FLIGHT_MAX:
            self.broken = Fault(
                FaultKind.SATURATED, f"has {IN_FLIGHT_MAX} requests in flight and answers none"
            )
            if command.final:
                self.node.owe(command, now)
            self._fail(request, self.broken, now)
            return b""
        return self._write(request, encode(command), now)

    def _submit_vote(self, request: Request, now: float) -> bytes:
        """A vote that cannot just be written: the time for a look has come, or something has
        changed, or it must wait."""
        greeting, room = self._greeting, len(self.in_flight) < TAKES_MAX
        data = (
            self._ask(greeting.look(now, voting=True), now)
            if now > greeting.look_at and not greeting.learning and room
            else b""
        )
        if room and greeting.may_vote(now):
            return data + self._write_vote(request, encode(request.command), now)
        self._wait(request, now)
        # A node that stopped in the greeting may have hundreds of rounds waiting, all of them lost:
        # do not look at each.
        return data if greeting.learning else data + self._flush(now)

    def _write_vote(self, request: Request, data: bytes, now: float) -> bytes:
        request.life = self._greeting.life
        return self._write(request, data, now) + (self._greeting.tail or b"")

    def _submit_unconnected(self, request: Request, now: float) -> None:
        fault = self.node.fault
        # Owed even while it waits here: perhaps nobody ever looks at this link again.
        if request.command.final:
            self.node.owe(request.command, now)
        if fault is None:
            self._wait(request, now)
        else:
            self._fail(request, fault, now)
        if self._greeting.gate is _DOWN:
            self._ask_dial(now)

    def _submit_greet(self, request: Request, command: Greet, now: float) -> bytes:
        greeting = self._greeting
        if greeting.may_vote(now) and not command.look:
            self._mailbox.append(
                Reply(request, self._admission.standing(self.node.index, now), now)
            )
            return b""
        data = (
            self._ask(greeting.look(now), now)
            if command.look and greeting.met and not greeting.looking
            else b""
        )
        self._wait(request, now)
        return data + self._flush(now)

    def _ask_dial(self, now: float) -> None:
        if self._greeting.gate is _DOWN and now >= self.node.redial_at:
            self._admission.asked(now)
            self._greeting.gate = _DIALLING
            try:
                self._dial()
            except Exception as error:
                # A dial that did not begin ends never: nobody would ask for another one.
                self.dial_failed(
                    Fault(
                        FaultKind.UNREACHABLE,
                        f"could not be dialled ({error or type(error).__name__})",
                    ),
                    now,
                )
            except BaseException:  # Ctrl-C: the next request asks again.
                self._greeting.gate = _DOWN
                raise

    def _wait(self, request: Request, now: float) -> None:
        waiting = self._waiting
        if len(waiting) >= TAKES_MAX:
            self._waiting = waiting = deque(other for other in waiting if other.not_after >= now)
        if len(waiting) >= TAKES_MAX:
            if request.command.final:
                self.node.owe(request.command, now)
            self._fail(
                request, Fault(FaultKind.SATURATED, f"has {TAKES_MAX} requests waiting for it"), now
            )
        else:
            waiting.append(request)

    def _flush(self, now: float) -> bytes:
        """Write, answer or fail what waits, as far as the node's standing tells."""
        out = b""
        if not self._waiting:
            return out
        greeting = self._greeting
        if not greeting.may_vote(now):
            out += self._settle(now)
        standing = None
        for _ in range(len(self._waiting)):
            request = self._waiting.popleft()
            command, late = request.command, now > request.not_after
            if not command.marked and not isinstance(command, Greet):
                if late:
                    self._fail(request, _too_late(request), now)
                elif len(self.in_flight) < IN_FLIGHT_MAX:
                    out += self._write(request, encode(command), now)
                else:  # A release among them is owed since it waits here.
                    self._fail(request, _full(IN_FLIGHT_MAX), now)
            elif greeting.learning:
                self._waiting.append(request)
            else:
                standing = standing or self._admission.standing(self.node.index, now)
                undecided = standing.state in (State.UNKNOWN, State.MARK)
                if undecided and not late and not (isinstance(command, Greet) and command.look):
                    request.why = standing.fault.detail if standing.fault is not None else ""
                    self._waiting.append(request)
                elif isinstance(command, Greet):
                    self._mailbox.append(Reply(request, standing, now))
                elif late or greeting.tail is None:
                    # Also what nobody asks any more: a round that was lost may still wait to hear
                    # why.
                    self._fail(request, standing.fault or _too_late(request), now)
                elif len(self.in_flight) < TAKES_MAX:
                    out += self._write_vote(request, encode(command), now)
                else:
                    self._fail(request, _full(TAKES_MAX), now)
        return out

    # Admission

    def _ask(self, commands: Iterable[Command], now: float) -> bytes:
        """Write what the greeting wants to know."""
        return b"".join(
            [
                self._write(Request(self.node.index, each, float("inf")), encode(each), now)
                for each in commands
            ]
        )

    def _learn(self, told: tuple[dict[str, str], str, float, str] | Fault, now: float) -> bytes:
        """A look was answered, or refused."""
        greeting = self._greeting
        if not greeting.was_last():
            return b""
        if isinstance(told, Fault):
            self._fail_waiting(greeting.refused(told, now), now)
            return b""
        greeting.identified(told, now)
        return self._settle(now, tell=True) + self._flush(now)

    def _settle(self, now: float, *, tell: bool = False) -> bytes:
        """Act on the node's standing, as the greeting says."""
        greeting = self._greeting
        asked = greeting.settle(now, tell=tell)
        self.broken = self.broken or greeting.broken
        if greeting.gate is not Gate.MARKING:
            return self._ask(asked, now)
        self._unproven = self._unproven or bool(asked)
        return b"".join(
            [
                self._write(Request(self.node.index, mark, float("inf")), encode_whole(mark), now)
                for mark in asked
            ]
        )

    def _marked(self, mark: Mark, stands: str | None, now: float) -> bytes:
        """The marker was written, by us or, first, by somebody else."""
        self._unproven = False
        if not self._greeting.marked(mark, stands, now):
            return self._ask(self._greeting.look(now), now)
        return self._settle(now) + self._flush(now)

    # Answers

    def _answer(self, request: Request, answer: object, now: float) -> bytes:
        command = request.command
        if type(answer) is ServerError:
            return self._error(request, str(answer), now)
        try:
            value = command.read(answer)
        except Nonsense as error:
            if command.final:
                self.node.owe(command, now)
            self._fail(
                request, Fault(FaultKind.NONSENSE, f"answered nonsense: {clean(str(error))}"), now
            )
            raise WireError(f"answered nonsense: {clean(str(error))}") from error
        if command.marked and value is GRANTED and not self._greeting.counts(request, now):
            # The look that was written before this vote found what no script sees, evicted keys or
            # a policy to evict some; or the node forgot meanwhile, and an older memory of it came
            # back and executed what was on its way.
            self._fail(
                request, Fault(FaultKind.QUARANTINED, "granted, and was found to have no vote"), now
            )
        elif request.run is not None:
            self._mailbox.append(Reply(request, value, now))
        if command.final:
            self._unproven = False
            self.node.answered(command)
        elif type(command) is Look:
            return self._learn(value, now)
        elif type(command) is Plain:
            if command.name == "info":
                self._greeting.told_role(fields(value))
        elif type(command) is Mark:
            return self._marked(command, value, now)
        elif (
            type(value) is Vote and value.kind is Kind.STRANGER and self._greeting.tail is not None
        ):
            return self._ask(self._greeting.look(now), now)
        return b""

    # Long: one decision on an error reply, by who asked what.
    def _error(self, request: Request, text: str, now: float) -> bytes:
        command, greeting = request.command, self._greeting
        word = text.split(" ", 1)[0]
        # Once: a server that says it to the script's text as well would keep us for ever.
        again = word == "NOSCRIPT" and command.script is not None and not request.whole
        # A TAKE whose flow has ended is nobody's any more: its lease may have been given back, and
        # it would follow the release.
        ended = request.run is not None and request.run.done
        if again and (command.final or (now <= request.not_after and not ended)):
            return self._write_whole(request, text, now)
        kind = FaultKind.REFUSED if word in _REFUSALS else FaultKind.ERROR
        fault = Fault(kind, f"said {clean(text)}")
        if type(command) is Look:
            return self._learn(
                Fault(FaultKind.REFUSED, "runs in cluster mode") if word in _CLUSTERED else fault,
                now,
            )
        if type(command) is Plain:
            greeting.said = greeting.said or clean(text)
            return b""
        if type(command) is Mark:
            self._unproven = False
            greeting.unmarked()
            self._admission.failed(self.node.index, fault)
            self._fail_waiting(fault, now)
            return b""
        if command.final:
            self._unproven = False
            if word == "WRONGTYPE":  # The key there is no lock of ours.
                self.node.answered(command)
            else:
                self.node.refused(command, now)
        self._fail(request, fault, now)
        if command.marked and greeting.tail is not None:
            # Our rights changed: no vote until a later look finds them restored.
            if kind is FaultKind.REFUSED:
                greeting.shut()
                self._admission.failed(self.node.index, fault)
                self.node.recheck_due(now)
            elif word in _RECONSIDER:  # Its role changed: ask who it is now.
                return self._ask(greeting.look(now), now)
        return b""

    def _write_whole(self, request: Request, text: str, now: float) -> bytes:
        """The node does not know the script: send it with its text."""
        greeting = self._greeting
        request.whole = True
        data = encode_whole(request.command)
        if not request.command.marked:
            return self._write(request, data, now)
        # A server that lost its scripts may have lost more: look at it as well. The vote itself
        # asks for the memory.
        look = (
            b"" if greeting.learning else self._ask(greeting.look(now, load=True, voting=True), now)
        )
        if greeting.may_vote(now):
            return look + self._write_vote(request, data, now)
        self._fail(request, Fault(FaultKind.ERROR, f"said {clean(text)}"), now)
        # It stands among the questions by now: kept back, every later answer would be taken for
        # another's.
        return look

    def _fail(self, request: Request, fault: Fault, now: float) -> None:
        if request.run is not None:
            self._mailbox.append(Failure(request, fault, now))

    def _fail_waiting(self, fault: Fault, now: float) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if isinstance(request.command, Free):
                self.node.owe(request.command, now)
            self._fail(request, fault, now)


def _full(most: int) -> Fault:
    return Fault(FaultKind.SATURATED, f"has {most} requests in flight")


def _too_late(request: Request) -> Fault:
    over = "the vote was decided" if request.not_after == NEVER else "the time for it was over"
    return Fault(FaultKind.EXPIRED, f"was not asked: {over}")
