"""One ordered link to one node: which requests are in flight, what waits, who answers, and what is owed.

Pure: bytes and time go in, bytes and events come out; the drivers own the sockets. A `Link` is one place in a set of
connections, and lives on when its connection breaks; a `Node` is what all links to the same node share.

What a link guarantees:

- Requests are written in the order they were submitted, and answers are matched first in, first out. So a release
  travels behind the acquire it undoes, also when that acquire was never answered.
- Nothing that votes is written before the node behind this connection was admitted, nor after its `not_after`.
- A release needs no admission, and one whose answer was lost, or was an error, stays owed and is sent again: on the next
  connection, or after a pause on this one, until it is answered or the lock has expired by itself.
- Everything is bounded: in flight, waiting, owed, and how long a connected node may be silent.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto

from redlock.core import events
from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import Command, Free, Greet, Look, Mark, Nonsense, Plain, fields, scripts
from redlock.core.effects import NEVER, Failure, Reply, Request
from redlock.core.identity import Identity, Memory
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind, Vote
from redlock.transport.wire import NOT_YET, ReplyReader, ServerError, WireError, bulk, encode, encode_whole

__all__ = ["Link", "Mailbox", "Node"]

IN_FLIGHT_MAX = 4096
TAKES_MAX = IN_FLIGHT_MAX // 2
"""A TAKE is written only where its FREE would still fit."""
OWED_MAX = 512
REDIAL_MIN, REDIAL_MAX = 0.02, 0.25
RECHECK_MIN, RECHECK_MAX = 0.05, 1.0
LOOK_EVERY = 1.0
"""A connection in use looks at its node at least so often: an eviction policy may be set at run time, and no script sees that."""
BRING_MIN, BRING_MAX = 0.05, 1.0
"""Seconds between two attempts to bring a node the releases that it refuses, because a script runs or a disk is full."""
OWED_FOR = 120.0
DETAIL_MAX = 160

Mailbox = deque[Reply | Failure]
"""Where links put what happened, for the driver to hand to whoever waits."""

_CLUSTERED = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED"})
"""What only a node in cluster mode says."""
_REFUSALS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
_RECONSIDER = frozenset({"READONLY", "LOADING", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN"})


class Node:
    """What every link to one node shares: its admission, what it is owed, and whether dialling it makes sense."""

    __slots__ = (
        "_backoff",
        "_bring",
        "_recheck",
        "_told",
        "admission",
        "bring_at",
        "emit",
        "fault",
        "index",
        "name",
        "on_owed",
        "owed",
        "owed_for",
        "recheck_at",
        "redial_at",
    )

    def __init__(self, index: int, name: str, admission: Admission, emit: Callable[[events.Event], None] | None = None) -> None:
        self.index = index
        self.name = name
        self.admission = admission
        self.emit = emit
        self.fault: Fault | None = None
        self.redial_at = NEVER
        self.recheck_at = NEVER
        self.owed: dict[Command, float] = {}
        """Releases without an answer, and until when each is worth bringing."""
        self.owed_for: Callable[[], float] = lambda: OWED_FOR
        """Seconds for which a release is owed, as the driver knows them."""
        self.bring_at = NEVER
        self.on_owed: Callable[[], None] | None = None
        """Called when something is owed: the driver sees to it that the node gets it, though nobody may call again."""
        self._backoff = REDIAL_MIN
        self._bring = BRING_MIN
        self._recheck = RECHECK_MIN
        self._told: tuple[Memory | None, str] | None = None

    def unreachable(self, fault: Fault, now: float) -> None:
        """The last dial failed: until the next one succeeds, requests fail at once."""
        if self.fault is None and self.emit:
            refused = fault.kind is FaultKind.REFUSED  # Our credentials: the node is there, and may not vote for us.
            self.emit((events.NodeRejected if refused else events.NodeDisconnected)(now, self.name, fault.detail))
        self.fault = fault
        self._told = None
        self.redial_at = now + self._backoff
        self._backoff = min(self._backoff * 2, REDIAL_MAX)
        self.admission.failed(self.index, fault)

    def reachable(self) -> None:
        """A new connection told who it is."""
        self.fault = None
        self.redial_at = NEVER
        self._backoff = REDIAL_MIN

    def recheck_due(self, now: float) -> bool:
        """Whether it is time to ask a node that may not vote once more; counts as asked."""
        if now < self.recheck_at:
            return False
        self.recheck_at = now + self._recheck
        self._recheck = min(self._recheck * 2, RECHECK_MAX)
        return True

    def admitted(self, now: float) -> None:
        """The node votes; an event for that, once for each run of the server and each return."""
        self._recheck = RECHECK_MIN
        self.recheck_at = NEVER
        identity = self.admission.identity(self.index)
        told = (identity.memory if identity else None, "admitted")
        if self.emit is not None and identity is not None and told != self._told:
            self.emit(events.NodeAdmitted(now, self.name, identity.memory.run_id))
        self._told = told

    def met(self, before: Identity | None, identity: Identity, now: float) -> None:
        """An event when another memory answers under this node's name than before."""
        if self.emit is not None and before is not None and before.memory != identity.memory:
            self.emit(events.NodeMemoryChanged(now, self.name, "/".join(before.memory), "/".join(identity.memory)))

    def tell(self, standing: Standing, now: float) -> None:
        """The node may not vote: an event for that, once for each reason, however often it is asked."""
        fault, identity = standing.fault, self.admission.identity(self.index)
        if self.emit is None or fault is None:
            return
        quarantined = standing.state is State.QUARANTINED
        told = (identity.memory if identity else None, "in quarantine" if quarantined else fault.detail)
        if told == self._told:
            return
        self._told = told
        if quarantined:
            self.emit(events.NodeQuarantined(now, self.name, fault.detail, standing.until))
        else:
            self.emit(events.NodeRejected(now, self.name, fault.detail))

    def owe(self, command: Command, now: float) -> None:
        """Remember a release whose answer is missing; the oldest is dropped when there are too many, and leaks a ttl."""
        if command not in self.owed:
            self.owed[command] = now + self.owed_for()
        if len(self.owed) > OWED_MAX:
            with contextlib.suppress(StopIteration, RuntimeError):  # Another thread may have changed it.
                self.owed.pop(next(iter(self.owed)), None)
        if self.on_owed is not None:
            self.on_owed()

    def answered(self, command: Command) -> None:
        """The node executed a release: nothing is owed for it any more."""
        if self.owed:
            self.owed.pop(command, None)
            self._bring = BRING_MIN

    def refused(self, command: Command, now: float) -> None:
        """The node answered a release with an error (BUSY, LOADING, MISCONF, NOPERM and the like), so the lock is still there.

        What it refuses now it may take later. It is not asked again before `bring_at`.
        """
        self.bring_at = now + self._bring
        self._bring = min(self._bring * 2, BRING_MAX)
        self.owe(command, now)

    def forgive(self, now: float) -> None:
        """Cross off what is owed no more: those locks have expired by themselves."""
        for command in list(self.owed):  # Another thread may change it.
            if self.owed.get(command, now + 1.0) <= now:
                self.owed.pop(command, None)

    @property
    def owed_soon(self) -> bool:
        """Whether releases are owed that the node would take, as far as is known."""
        return bool(self.owed) and self.fault is None


class _Phase(Enum):
    DOWN = auto()
    DIALLING = auto()
    UP = auto()

    __hash__ = object.__hash__


_UP = _Phase.UP  # Looked at for every release.


class Link:
    """One ordered connection's worth of requests to *node*.

    *dial* is called when a connection is wanted; the driver answers with `connected` or `dial_failed`. *silence*: seconds
    for which a connected node may owe an answer before the connection is given up. *broken* is set when the driver must
    close the connection and call `lost`.
    """

    __slots__ = (
        "_admission",
        "_as_of",
        "_barred",
        "_dial",
        "_greeted",
        "_greeting",
        "_info",
        "_life",
        "_look_at",
        "_looked",
        "_mailbox",
        "_marked_at",
        "_marking",
        "_memory",
        "_phase",
        "_quiet_since",
        "_reader",
        "_said",
        "_silence",
        "_tail",
        "_unproven",
        "_waiting",
        "broken",
        "node",
        "owing",
    )

    def __init__(self, node: Node, mailbox: Mailbox, dial: Callable[[], None], *, silence: float) -> None:
        self.node = node
        self.broken: Fault | None = None
        self._admission = node.admission
        self._mailbox = mailbox
        self._dial = dial
        self._silence = silence
        self._phase = _Phase.DOWN
        self.owing: deque[Request] = deque()
        """Requests written and not answered, in their order."""
        self._waiting: deque[Request] = deque()
        self._quiet_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._reader = ReplyReader()
        self._tail: bytes | None = None
        self._barred = False  # Whether votes that come all the same do not count.
        self._as_of = -1  # What `Admission.changes` was when it last admitted the node behind this connection,
        self._life = 0  # and what `Admission.life` was.
        self._greeting = 0
        self._greeted = False
        self._looked = (NEVER, -1)  # When the last look was sent, and what `Admission.changes` was.
        self._look_at = NEVER
        self._marking = False
        self._marked_at = NEVER
        self._memory: Memory | None = None
        self._info: dict[str, str] = {}
        self._said = ""  # The first error that the node answered to a question of ours.
        self._unproven = False  # Whether we wrote by ourselves what was owed, or a marker, and nothing of it was answered.

    # What the driver asks

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._phase is _Phase.UP

    @property
    def dialling(self) -> bool:
        """Whether a connection was asked for and has not come."""
        return self._phase is _Phase.DIALLING

    @property
    def in_flight(self) -> int:
        """Requests written and not answered."""
        return len(self.owing)

    @property
    def releasing(self) -> bool:
        """Whether a release was written and not answered: a socket that is closed with an answer unread may take with it
        what the node has not read yet."""
        return any(request.command.final for request in self.owing)

    @property
    def _learning(self) -> bool:
        """Whether the node's standing is still to be learned, or to be written down on it: no vote goes there before."""
        return bool(self._greeting) or self._marking or not self._greeted

    def overdue(self, now: float) -> bool:
        """Whether the node has owed an answer for too long. Read its socket before believing that."""
        return bool(self.owing) and now - self._quiet_since > self._silence

    def heard(self, now: float) -> None:
        """The driver was away and cannot know whether the node was silent: start counting anew."""
        self._quiet_since = now

    # What the driver tells; all give the bytes to write

    def submit(self, request: Request, now: float) -> bytes:
        """Take a request; what cannot be written now waits, or fails at once into the mailbox."""
        command, owing = request.command, self.owing
        if command.marked:
            tail = self._tail
            if (
                tail is None
                or self._as_of != self._admission.changes
                or now > self._look_at
                or now > request.not_after
                or len(owing) >= TAKES_MAX
            ):
                return self._submit_other(request, now)
            request.life = self._life
            data = (command.packed or encode(command)) + tail
        elif command.final and self._phase is _UP and len(owing) < IN_FLIGHT_MAX:
            data = command.packed or encode(command)
        else:
            return self._submit_other(request, now)
        if not owing:
            self._quiet_since = now
        owing.append(request)
        request.written = True
        return data

    def connected(self, now: float, owed: Iterable[Command] = ()) -> bytes:
        """A new connection: ask who it is, and send the releases that are still owed."""
        self._reset()
        self._phase = _Phase.UP
        self._quiet_since = now
        data = self._greet(now, load=True)
        for command in owed:
            self._unproven = True
            data += self._write(Request(self.node.index, command, float("inf")), encode_whole(command), now)
        return data + self._flush(now)

    def dial_failed(self, fault: Fault, now: float) -> None:
        """No connection: whatever waits for it fails."""
        self._phase = _Phase.DOWN
        self.node.unreachable(fault, now)
        self._fail_waiting(fault, now)

    def received(self, data: bytes, now: float) -> bytes:
        """Bytes arrived. Sets `broken` if they cannot be trusted."""
        reader, owing = self._reader, self.owing
        # Nearly all answers say yes; they are known by their bytes. No whole reply is the beginning of another one.
        as_of_now = self._as_of == self._admission.changes and not self._barred
        while owing and not reader.cut:
            request = owing[0]
            command = request.command
            if command.marked and not (as_of_now and request.life == self._life):
                break
            yes = command.plain_yes
            if data == yes:
                data = b""
            elif yes and data.startswith(yes):
                data = data[len(yes) :]
            else:
                break
            owing.popleft()
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
                if not self.owing:
                    raise WireError("sent a reply that nobody asked for")
                out += self._answer(self.owing.popleft(), answer, now)
                if self._phase is not _Phase.UP:
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
        if not node.owed or self._phase is not _UP or not self._greeted or self.releasing or now < node.bring_at:
            return b""
        self._unproven = True
        return b"".join(self._write(Request(node.index, each, float("inf")), encode_whole(each), now) for each in list(node.owed))

    def poke(self, now: float) -> bytes:
        """Something changed elsewhere, or time passed: write what may be written now."""
        if self._phase is not _Phase.UP or self._learning:
            return b""
        if self._admission.outdated(self.node.index):
            return self._greet(now, voting=True)
        return self._flush(now) if self._waiting else b""

    def lost(self, fault: Fault, now: float) -> None:
        """The connection ended. What was in flight fails; releases stay owed; what waits, waits for the next one."""
        was_greeting, unproven = not self._greeted, self._unproven
        if was_greeting and self._said:  # A server that is full says so, and hangs up.
            fault = Fault(fault.kind, f"said {self._said}, and {fault.detail}")
        fifo, self.owing = self.owing, deque()
        self._phase = _Phase.DOWN
        self._reset()
        self.broken = None
        for request in fifo:
            if request.command.final:
                self.node.owe(request.command, now)
            self._fail(request, fault, now)
        if was_greeting or unproven:
            # A port that accepts and says nothing is no better than one that refuses. Nor is one that greets, and then breaks
            # off or talks nonsense whenever it gets a release or a marker: it would be dialled as fast as it answers.
            self.node.unreachable(Fault(FaultKind.UNREACHABLE, fault.detail), now)
            self._fail_waiting(self.node.fault or fault, now)
        elif self.node.emit:
            self.node.emit(events.NodeDisconnected(now, self.node.name, fault.detail))
        self.retry(now)

    # Submitting

    def _write(self, request: Request, data: bytes, now: float) -> bytes:
        fifo = self.owing
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
        if self._phase is not _Phase.UP:
            self._submit_unconnected(request, now)
            return b""
        if isinstance(command, Greet):
            return self._submit_greet(request, command, now)
        if command.marked:
            return self._submit_vote(request, now)
        if len(self.owing) >= IN_FLIGHT_MAX:
            self.broken = Fault(FaultKind.SATURATED, f"has {IN_FLIGHT_MAX} requests in flight and answers none")
            if command.final:
                self.node.owe(command, now)
            self._fail(request, self.broken, now)
            return b""
        return self._write(request, encode(command), now)

    def _submit_vote(self, request: Request, now: float) -> bytes:
        """A vote that cannot just be written: the time for a look has come, or something has changed, or it must wait."""
        data = self._greet(now, voting=True) if now > self._look_at and not self._learning else b""
        if self._may_vote(now) and len(self.owing) < TAKES_MAX:
            return data + self._write_vote(request, encode(request.command), now)
        self._wait(request, now)
        # A node that stopped in the greeting may have hundreds of rounds waiting, all of them lost: do not look at each.
        return data if self._learning else data + self._flush(now)

    def _may_vote(self, now: float) -> bool:
        """Whether the node behind this connection is the one that is admitted: asked of what all connections know.

        Whoever found last that a node forgot, another connection or a report, has told it there; so no vote is written as of
        anything older.
        """
        if self._tail is None or self._as_of == self._admission.changes:
            return self._tail is not None
        as_of = self._admission.changes  # Read first: what another thread tells from here on counts as not known.
        standing = self._admission.standing(self.node.index, now)
        if standing.state is State.ADMITTED and standing.memory == self._memory:
            self._admit(standing, as_of)
            return True
        self._tail, self._barred = None, standing.barred
        return False

    def _admit(self, standing: Standing, as_of: int) -> None:
        self._tail, self._as_of, self._life = bulk(standing.marker), as_of, self._admission.life(self.node.index)

    def _write_vote(self, request: Request, data: bytes, now: float) -> bytes:
        request.life = self._life
        return self._write(request, data, now) + (self._tail or b"")

    def _counts(self, request: Request, now: float) -> bool:
        """Whether a vote that was just read is one: the node has lost nothing, as far as anybody knows, since it was written."""
        if self._as_of != self._admission.changes:
            self._barred = self._admission.standing(self.node.index, now).barred
        return not self._barred and request.life == self._admission.life(self.node.index)

    def _submit_unconnected(self, request: Request, now: float) -> None:
        fault = self.node.fault
        if request.command.final:  # Owed even while it waits here: perhaps nobody ever looks at this link again.
            self.node.owe(request.command, now)
        if fault is None:
            self._wait(request, now)
        else:
            self._fail(request, fault, now)
        if self._phase is _Phase.DOWN:
            self._ask_dial(now)

    def _submit_greet(self, request: Request, command: Greet, now: float) -> bytes:
        if self._may_vote(now) and not command.look:
            self._mailbox.append(Reply(request, self._admission.standing(self.node.index, now), now))
            return b""
        data = self._greet(now) if command.look and self._greeted and not self._greeting else b""
        self._wait(request, now)
        return data + self._flush(now)

    def _ask_dial(self, now: float) -> None:
        if self._phase is _Phase.DOWN and now >= self.node.redial_at:
            self.node.admission.asked(now)
            self._phase = _Phase.DIALLING
            try:
                self._dial()
            except Exception as error:  # A dial that did not begin ends never: nobody would ask for another one.
                self.dial_failed(Fault(FaultKind.UNREACHABLE, f"could not be dialled ({error or type(error).__name__})"), now)
            except BaseException:  # Ctrl-C: the next request asks again.
                self._phase = _Phase.DOWN
                raise

    def _wait(self, request: Request, now: float) -> None:
        waiting = self._waiting
        if len(waiting) >= TAKES_MAX:
            self._waiting = waiting = deque(other for other in waiting if other.not_after >= now)
        if len(waiting) >= TAKES_MAX:
            if request.command.final:
                self.node.owe(request.command, now)
            self._fail(request, Fault(FaultKind.SATURATED, f"has {TAKES_MAX} requests waiting for it"), now)
        else:
            waiting.append(request)

    def _flush(self, now: float) -> bytes:
        """Write, answer or fail what waits, as far as the node's standing tells."""
        out = b""
        if not self._waiting:
            return out
        if not self._may_vote(now):
            out += self._settle(now)
        standing = None
        for _ in range(len(self._waiting)):
            request = self._waiting.popleft()
            command, late = request.command, now > request.not_after
            if not command.marked and not isinstance(command, Greet):
                if late:
                    self._fail(request, _too_late(request), now)
                else:
                    out += self._write(request, encode(command), now)
            elif self._learning:
                self._waiting.append(request)
            else:
                standing = standing or self._admission.standing(self.node.index, now)
                undecided = standing.state in (State.UNKNOWN, State.MARK)
                if undecided and not late and not (isinstance(command, Greet) and command.look):
                    request.why = standing.fault.detail if standing.fault is not None else ""
                    self._waiting.append(request)
                elif isinstance(command, Greet):
                    self._mailbox.append(Reply(request, standing, now))
                elif late or self._tail is None:
                    # Also what nobody asks any more: a round that was lost may still wait to hear why.
                    self._fail(request, standing.fault or _too_late(request), now)
                elif len(self.owing) < TAKES_MAX:
                    out += self._write_vote(request, encode(command), now)
                else:
                    self._fail(request, Fault(FaultKind.SATURATED, f"has {TAKES_MAX} requests in flight"), now)
        return out

    # Admission

    def _greet(self, now: float, *, load: bool = False, voting: bool = False) -> bytes:
        """Ask who is there. One write, no waiting. *load*: also load the scripts, so that the first EVALSHA finds them. Its role
        by itself is asked for on a new connection and where the last look was refused: a node that refuses the script still
        answers it, and so tells why.
        *voting*: votes go on meanwhile; the script looks at the memory.
        """
        self._greeting += 1
        if not voting:
            self._tail = None
        self._info = {}
        self._looked = (now, self._admission.changes)
        self._look_at = now + LOOK_EVERY
        asked: list[Command] = [Look()]
        if load:
            asked = [*(Plain("load", "SCRIPT", "LOAD", script.source, shape=bytes) for script in scripts()), *asked]
        if load or self._memory is None:
            asked = [Plain("info", "INFO", "replication", shape=bytes), *asked]
        return b"".join([self._write(Request(self.node.index, command, float("inf")), encode(command), now) for command in asked])

    def _learn(self, told: tuple[dict[str, str], str, float] | Fault, now: float) -> bytes:
        """A look was answered, or refused."""
        self._greeting -= 1
        if self._greeting:
            return b""
        self._greeted = True
        self._tail = None
        self.node.reachable()
        if isinstance(told, Fault):
            # What a replica says to our script is less than what INFO tells of it.
            self._memory = None
            role = self._info.get("role", "master")
            fault = told if role == "master" else Fault(FaultKind.REFUSED, f"is a {_clean(role)}, not a master")
            self._admission.failed(self.node.index, fault)
            self._fail_waiting(fault, now)
            if fault.kind is FaultKind.REFUSED:
                self.node.tell(Standing(State.REFUSED, fault), now)
            return b""
        identity, before = Identity.parse(*told), self._admission.identity(self.node.index)
        self._memory = identity.memory
        self._admission.seen(self.node.index, identity, now, asked_at=self._looked[0], as_of=self._looked[1])
        self.node.met(before, identity, now)
        return self._settle(now, tell=True) + self._flush(now)

    def _settle(self, now: float, *, tell: bool = False) -> bytes:
        """Act on the node's standing: open the way for votes, write its marker, or look again later."""
        if self._learning:
            return b""
        node, as_of = self.node, self._admission.changes
        standing = self._admission.standing(node.index, now)
        self._barred = standing.barred
        if standing.state is State.ADMITTED:
            if standing.memory != self._memory:
                # Another connection was told of another memory than the one behind this one, perhaps by an answer that had
                # waited there unread. Asked of the standing itself: another thread may be told of it at any moment.
                return self._greet(now) if node.recheck_due(now) else b""
            self._admit(standing, as_of)
            node.admitted(now)
        elif standing.state is State.MARK and standing.mark is not None:
            self._marking = self._unproven = True
            self._marked_at = now
            return self._write(Request(node.index, standing.mark, float("inf")), encode_whole(standing.mark), now)
        elif standing.state is not State.UNKNOWN and standing.fault is not None:
            due = node.recheck_due(now)
            if tell:  # It was asked just now.
                node.tell(standing, now)
            elif due and standing.redial:
                self.broken = Fault(FaultKind.LOST, "was dialled again, as another node's name leads to its server")
            elif due:
                return self._greet(now)
        return b""

    def _marked(self, mark: Mark, stands: str | None, now: float) -> bytes:
        """The marker was written, by us or, first, by somebody else: adopt what stands. None: the memory is another one."""
        self._marking = self._unproven = False
        if stands is None:
            return self._greet(now)
        identity = self._admission.identity(self.node.index)
        if identity is not None and identity.memory == self._memory:
            self._admission.marked(self.node.index, mark, stands, now, asked_at=self._marked_at)
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
            self._fail(request, Fault(FaultKind.NONSENSE, f"answered nonsense: {_clean(str(error))}"), now)
            raise WireError(f"answered nonsense: {_clean(str(error))}") from error
        if command.marked and value is GRANTED and not self._counts(request, now):
            # The look that was written before this vote found what no script sees, evicted keys or a policy to evict some;
            # or the node forgot meanwhile, and an older memory of it came back and executed what was on its way.
            self._fail(request, Fault(FaultKind.QUARANTINED, "granted, and was found to have no vote"), now)
        elif request.run is not None:
            self._mailbox.append(Reply(request, value, now))
        if command.final:
            self._unproven = False
            self.node.answered(command)
        elif type(command) is Look:
            return self._learn(value, now)
        elif type(command) is Plain:
            self._info = fields(value) if command.name == "info" else self._info
        elif type(command) is Mark:
            return self._marked(command, value, now)
        elif type(value) is Vote and value.kind is Kind.STRANGER and self._tail is not None:
            return self._greet(now)
        return b""

    def _error(self, request: Request, text: str, now: float) -> bytes:
        command = request.command
        word = text.split(" ", 1)[0]
        # Once: a server that says it to the script's text as well would keep us for ever.
        again = word == "NOSCRIPT" and command.script is not None and not request.whole
        # A TAKE whose flow has ended is nobody's any more: its lease may have been given back, and it would follow the release.
        ended = request.run is not None and request.run.done
        if again and (command.final or (now <= request.not_after and not ended)):
            request.whole = True
            data = encode_whole(command)
            if not command.marked:
                return self._write(request, data, now)
            # A server that lost its scripts may have lost more: look at it as well. The vote itself asks for the memory.
            look = b"" if self._learning else self._greet(now, load=True, voting=True)
            if self._may_vote(now):
                return look + self._write_vote(request, data, now)
            self._fail(request, Fault(FaultKind.ERROR, f"said {_clean(text)}"), now)
            return look  # It stands among the questions by now: kept back, every later answer would be taken for another's.
        kind = FaultKind.REFUSED if word in _REFUSALS else FaultKind.ERROR
        fault = Fault(kind, f"said {_clean(text)}")
        if type(command) is Look:
            return self._learn(Fault(FaultKind.REFUSED, "runs in cluster mode") if word in _CLUSTERED else fault, now)
        if type(command) is Plain:
            self._said = self._said or _clean(text)
            return b""
        if type(command) is Mark:
            self._marking = self._unproven = False
            self._admission.failed(self.node.index, fault)
            self._fail_waiting(fault, now)
            return b""
        if command.final:
            self._unproven = False
            if word == "WRONGTYPE":  # What stands there cannot be ours.
                self.node.answered(command)
            else:
                self.node.refused(command, now)
        self._fail(request, fault, now)
        if command.marked and self._tail is not None:
            if kind is FaultKind.REFUSED:  # Our rights changed: no vote until a later look finds them restored.
                self._tail = None
                self._admission.failed(self.node.index, fault)
                self.node.recheck_due(now)
            elif word in _RECONSIDER:  # Its role changed: ask who it is now.
                return self._greet(now)
        return b""

    def _fail(self, request: Request, fault: Fault, now: float) -> None:
        if request.run is not None:
            self._mailbox.append(Failure(request, fault, now))

    def _fail_waiting(self, fault: Fault, now: float) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if isinstance(request.command, Free):
                self.node.owe(request.command, now)
            self._fail(request, fault, now)


def _too_late(request: Request) -> Fault:
    over = "the vote was decided" if request.not_after == NEVER else "the time for it was over"
    return Fault(FaultKind.EXPIRED, f"was not asked: {over}")


def _clean(text: str) -> str:
    """A server's words, fit for a log line."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:DETAIL_MAX])
    return shown if len(text) <= DETAIL_MAX else f"{shown}..."
