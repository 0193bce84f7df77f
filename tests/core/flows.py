"""A scripted driver for the flows of `redlock.core`, and transcripts that are read like a
conversation.

A transcript is text. A line at the margin is input: an instant, and what happens then. An indented
line is what the flow did because of it. `check` plays the input and compares all of the text:

    3 nodes
    0.000 acquire
        TAKE A:1024000 place 1 -> 1 2 3
        wait until 0.25
    0.010 1 granted
    0.020 3 granted
        held A:1024000 until 9.898, touched 1 2 3

Nodes are numbered from 1, and so are the places in the queue, which are drawn in that order:
`place -` respects it and has none, `place ?` is given back without having been held, and a command
that says nothing knows no queue. The first owner of a play is A, the next B. The wall clock stands at
1024000 and every die shows 0, unless a line says otherwise. The driver keeps the contract of
`effects.py` to the letter: requests are written in order, each node answers in order, time never
falls, and a request whose time has passed is never written.

`check` plays every transcript twice: each grant is told at once, and as a driver may that keeps
grants which decide nothing. A flow has to do the same both times.

The first line says how many nodes there are, and settings of the `Policy`: `5 nodes ttl=10`. Words
of their own are `repair`, `barging` (without a queue), `deaf` (no wake-up is heard) and `unmet`.

Input, after the instant:

    acquire [once] [looking] [timeout=S] [ttl=S] [stand_back=S]
                                            start a flow; so do extend [ttl=S], verify, release, peek, meet, nodes
    1 2 granted                             nodes answer their oldest question (the words are in `ANSWERS`)
    1 2 lost                                the connection breaks: all their questions fail, in order
    1 2 error / refused / expired           the oldest question fails
    1 2 twice                               the last answer comes once more
    4 5 dialling | dead | connected         from now on nothing can be written | fails at once | parked requests are written
    told 2 | rung 2                         a node tells place 2 that the lock is free | its flow is to look up
    tick                                    the time of every wait that is over
    cancel                                  `Cancelled` is thrown into the newest flow
    status                                  say how the lease stands
    limit S | wall N | dice N N ...         max_hold of the lease; the wall clock; the next random numbers
"""

from __future__ import annotations

import difflib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from textwrap import dedent, wrap
from typing import Any

from redlock.core import commands
from redlock.core.acquire import Acquisition, acquire
from redlock.core.admission import Admission
from redlock.core.commands import Command, Free, Greet, Mark, Nonsense, Repair, Take
from redlock.core.effects import (
    NEVER,
    Cancelled,
    Event,
    Failure,
    Flow,
    Grants,
    Reply,
    Request,
    Tick,
    Wait,
)
from redlock.core.events import Event as Record
from redlock.core.extend import extend, verify
from redlock.core.identity import Identity, Marker, Memory
from redlock.core.lease import Holding, Status
from redlock.core.line import Lines
from redlock.core.look import inspect_nodes, peek
from redlock.core.policy import Policy
from redlock.core.quorum import GRANTED, Fault, FaultKind, Tally
from redlock.core.release import release
from redlock.core.rounds import Cluster, meet
from redlock.errors import AcquireError, RedlockError

__all__ = ["Course", "Play", "check", "identity_of", "replay"]

LOCK_KEY, FENCE_KEY = "redlock:r", "redlock:r:fence"
WALL = 1_024_000

FAULTS = {
    "lost": Fault(FaultKind.LOST, "lost the connection"),
    "error": Fault(FaultKind.ERROR, "said OOM"),
    "refused": Fault(FaultKind.REFUSED, "refused our credentials"),
    "quarantined": Fault(FaultKind.QUARANTINED, "is in quarantine"),
    "expired": Fault(FaultKind.EXPIRED, "was not asked: the time for it was over"),
    "unreachable": Fault(FaultKind.UNREACHABLE, "refused the connection"),
}


def _ttl_ms(options: dict[str, str]) -> int:
    return round(float(options.get("ttl", "5")) * 1000)


def _queued(command: Command) -> list[int]:
    """What a node says of the place that came with *command*: it stands, or there is none."""
    place = _place_in(command)
    return [] if place is None else [2 if place in ("", "-") else 0]


def _place_in(command: Command) -> str | None:
    """The place that goes with *command*, as it goes to the nodes; None: that asks for none."""
    match command:
        case Take(args=(_, _, place, *_)):
            return str(place)
        case commands.Canvass():
            return str(command.args[0]) if command.args else ""
        case Free(args=(_, _, place, _)) | commands.Leave(args=(place,)):
            return str(place)
    return None


ANSWERS: dict[str, Callable[[Any, dict[str, str]], Any]] = {
    # What TAKE says, as the bytes of `lua/take.lua` come out of the reader.
    "granted": lambda command, options: command.token,
    "busy": lambda command, options: [
        0,
        int(options.get("fence", "7")),
        _ttl_ms(options),
        f"={options.get('by', 'X:7')}".encode(),
        *_queued(command),
    ],
    "turn": lambda command, options: [5, int(options.get("fence", "7")), *_queued(command)],
    "full": lambda command, options: [0, 7, _ttl_ms(options), b"=X:7", 1],
    "behind": lambda command, options: [
        2,
        int(options["fence"]),
        0,
        int(options.get("time", str(WALL))),
    ],
    "stranger": lambda command, options: [3, b"redlock2 somebody else"],
    # What PEEK says besides.
    "free": lambda command, options: [4, int(options.get("fence", "0"))],
    # What FREE says.
    "freed": lambda command, options: 1,
    "nothing": lambda command, options: 0,
    "others": lambda command, options: 2,
    "repaired": lambda command, options: 1,
    "nonsense": lambda command, options: [9],
}


def identity_of(node: int, nodes: int, **changes: Any) -> Identity:
    """A node that may vote, as it introduces itself; *changes* are fields of `Identity`."""
    memory = Memory(f"run-{node + 1}", f"repl-{node + 1}")
    known: dict[str, Any] = {
        "memory": memory,
        "role": "master",
        "cluster_mode": False,
        "loading": False,
        "policy": "noeviction",
        "uptime": 1000.0,
        "version": "9.0.0",
        "marker": Marker(memory, nodes, 60.0, since_us=1).text(),
        "clock": 1_000_000.0,
    }
    return Identity(**{**known, **changes})


class _Source:
    """Owners A, B, C; a wall clock that stands; dice that show what the transcript says, and
    else 0."""

    def __init__(self) -> None:
        self.wall = WALL
        self.dice: deque[int] = deque()
        self.owners = 0

    def owner(self) -> str:
        self.owners += 1
        return chr(ord("A") + self.owners - 1) if self.owners <= 26 else f"owner{self.owners}"

    def below(self, limit: int) -> int:
        return self.dice.popleft() % limit if self.dice else 0

    def wall_us(self) -> int:
        return self.wall


@dataclass(eq=False)
class Course:
    """One flow on its way: all its waits, and how it ended."""

    name: str
    flow: Flow[Any]
    waits: list[Wait] = field(default_factory=list)
    done: bool = False
    value: Any = None
    error: BaseException | None = None
    shown: tuple[float, bool] = (NEVER, False)
    kept: list[Request] = field(default_factory=list)
    """Grants that the flow has not heard of, because they decide nothing."""

    @property
    def wait(self) -> Wait:
        """Where the flow is."""
        return self.waits[-1]


class Play:
    """Drives flows by hand and writes down what they do; *policy* as for `Policy`, *met*: the nodes
    are admitted.

    *keeps*: grants that decide nothing are kept until there are enough, or until something else
    happens. *hears*: its wake-ups are heard.
    """

    def __init__(
        self,
        nodes: int = 5,
        *,
        met: bool = True,
        keeps: bool = False,
        hears: bool = True,
        **policy: Any,
    ) -> None:
        self.keeps = keeps
        self.source = _Source()
        self.policy = Policy(**policy)
        names = tuple(f"n{node + 1}" for node in range(nodes))
        self.admission = Admission(
            names,
            ttl=self.policy.ttl,
            max_ttl=self.policy.max_ttl,
            durable=self.policy.durable,
            patience=self.policy.node_timeout_for(self.policy.ttl),
            nonce=self.source.owner,
        )
        self.records: list[Record] = []
        self.cluster = Cluster(
            names,
            self.policy,
            self.source,
            self.admission,
            self.records.append,
            self.records.append,
            Lines("P"),
        )
        self.cluster.lines.hears = hears
        self.now = 0.0
        self.out: list[str] = []
        self.courses: list[Course] = []
        self.sent: dict[Request, float] = {}
        """Every request that a flow gave us, in order, and when."""
        self.heard: dict[Request, Any] = {}
        """What was answered, also where nobody waited for it any more."""
        self.holding: Holding | None = None
        self._lines: list[deque[Request]] = [deque() for _ in names]
        self._parked: list[deque[Request]] = [deque() for _ in names]
        self._dialling: set[int] = set()
        self._dead: set[int] = set()
        self._mailbox: deque[Event] = deque()
        self._answers: dict[int, Reply] = {}
        if met:
            self.admission.asked(0.0)
            for node in range(nodes):
                self.admission.seen(node, identity_of(node, nodes), 0.0)
            self.cluster.met = True

    # Flows

    def acquire(
        self,
        *,
        once: bool = False,
        timeout: float = math.inf,
        ttl: float | None = None,
        stand_back: float = 0.0,
        looking: bool = False,
    ) -> Course:
        """Start an acquire now; *looking*: as a candidate does, who looks before the first try."""
        ttl = self.policy.ttl if ttl is None else ttl
        ask = Acquisition(
            "r", LOCK_KEY, FENCE_KEY, ttl, self.now + timeout, once, stand_back=stand_back
        )
        if looking:
            ask.looked = lambda tally, at: None
        return self._start("acquire", acquire(self.cluster, ask, self.now))

    def extend(self, ttl: float | None = None) -> Course:
        """Start an extension of the lease that was granted last."""
        assert self.holding is not None
        return self._start(
            "extend", extend(self.cluster, self.holding, ttl or self.holding.ttl, self.now)
        )

    def verify(self) -> Course:
        """Start a verification of that lease."""
        assert self.holding is not None
        return self._start("verify", verify(self.cluster, self.holding, self.now))

    def release(self) -> Course:
        """Start the release of that lease."""
        assert self.holding is not None
        return self._start("release", release(self.cluster, self.holding, self.now))

    def peek(self) -> Course:
        """Look at the lock."""
        return self._start("peek", peek(self.cluster, LOCK_KEY, FENCE_KEY, self.now))

    def meet(self, timeout: float = math.inf) -> Course:
        """Meet the nodes."""
        return self._start("meet", meet(self.cluster, self.now, self.now + timeout))

    def inspect(self) -> Course:
        """Ask every node anew who it is."""
        return self._start("nodes", inspect_nodes(self.cluster, self.now))

    # Events

    def answer(self, node: int, word: str, **options: str) -> None:
        """*node* answers its oldest question."""
        line = self._lines[node]
        assert line, f"node {node + 1} was asked nothing"
        request = line.popleft()
        if isinstance(request.command, Greet):
            self._introduce(node, word, options)
            value: Any = self.admission.standing(node, self.now)
        else:
            try:
                value = request.command.read(ANSWERS[word](request.command, options))
            except Nonsense as error:
                self._mailbox.append(
                    Failure(
                        request, Fault(FaultKind.NONSENSE, f"answered nonsense: {error}"), self.now
                    )
                )
                return self._settle()
        self.heard[request] = value
        self._answers[node] = Reply(request, value, self.now)
        self._mailbox.append(self._answers[node])
        return self._settle()

    def twice(self, node: int) -> None:
        """The last answer of *node* comes once more."""
        last = self._answers[node]
        self._mailbox.append(Reply(last.request, last.value, self.now))
        self._settle()

    def has_answered(self, node: int) -> bool:
        """Whether there is an answer that could come twice."""
        return node in self._answers

    def fail(self, node: int, word: str) -> None:
        """*node*'s oldest question fails; when its connection is lost, all of them do, in order."""
        line = self._lines[node]
        failed = (
            list(line)
            if word == "lost"
            else [line.popleft()]
            if line
            else [self._parked[node].popleft()]
        )
        if word == "lost":
            line.clear()
        for request in failed:
            if isinstance(request.command, Greet):
                self.admission.failed(node, FAULTS[word])
            self._mailbox.append(Failure(request, FAULTS[word], self.now))
        self._settle()

    def dialling(self, node: int) -> None:
        """From now on *node* has no connection, and requests to it wait."""
        self._dialling.add(node)

    def dead(self, node: int) -> None:
        """From now on requests to *node* fail at once, unwritten; so do those that wait."""
        self._dialling.discard(node)
        self._dead.add(node)
        parked, self._parked[node] = self._parked[node], deque()
        for request in parked:
            self._mailbox.append(Failure(request, FAULTS["unreachable"], self.now))
        self._settle()

    def connected(self, node: int) -> None:
        """*node* has a connection again: what waits for it is written, unless it was withdrawn
        or its time has passed."""
        self._dialling.discard(node)
        self._dead.discard(node)
        parked, self._parked[node] = self._parked[node], deque()
        for request in parked:
            if not self._write(request):
                self.out.append(f"{node + 1} is never sent {_shown(request.command)}")
        self._settle()

    def tick(self) -> None:
        """The time of every wait that is over."""
        ready = [
            course for course in self.courses if not course.done and course.wait.until <= self.now
        ]
        assert ready, f"no wait is over at {self.now:g}"
        for course in ready:
            self._tell_kept(course)
            # A tick belongs to the wait it was made for.
            if not course.done and course.wait.until <= self.now:
                self._go(course, course.flow.send, Tick(self.now))
        self._settle()

    def cancel(self) -> None:
        """The caller of the newest flow went away."""
        course = self.courses[-1]
        self._go(course, course.flow.throw, Cancelled())
        self._settle()

    def told(self, place: int) -> None:
        """A node tells *place* that the lock is free."""
        self.cluster.lines.told(f"{self.cluster.lines.name}.{place}")
        self._settle()

    def rung(self, place: int) -> None:
        """The flow of *place* is to look up."""
        self.cluster.lines._places[f"{self.cluster.lines.name}.{place}"].ring()
        self._settle()

    def status(self) -> None:
        """Say how the lease stands now."""
        lease = self.holding
        assert lease is not None
        stands = (
            "held"
            if lease.held(self.now)
            else lease.status.name
            if lease.status is not Status.HELD
            else "over"
        )
        self.out.append(f"{stands}, valid until {_time(lease.valid_until)}")

    def asked(self, node: int) -> Command | None:
        """The oldest question that *node* has not answered."""
        return self._lines[node][0].command if self._lines[node] else None

    # How

    def _start(self, name: str, flow: Flow[Any]) -> Course:
        course = Course(name, flow)
        self.courses.append(course)
        self._go(course, flow.send, None)
        self._settle()
        return course

    def _go(self, course: Course, resume: Callable[[Any], Wait], argument: Any) -> None:
        try:
            wait = resume(argument)
            while True:
                course.waits.append(wait)
                self._send(course, wait)
                if wait.until != NEVER:
                    break
                wait = course.flow.send(Tick(self.now))
        except StopIteration as stop:
            course.done, course.value = True, stop.value
        except (RedlockError, Cancelled) as error:
            course.done, course.error = True, error
        if isinstance(course.value, Holding):
            self.holding = course.value
        self._tell(course)

    def _send(self, course: Course, wait: Wait) -> None:
        groups: dict[Command, list[str]] = {}
        for request in wait.send:
            request.run = course
            self.sent[request] = self.now
            node = request.node
            if node in self._dead:
                self._mailbox.append(Failure(request, FAULTS["unreachable"], self.now))
            elif node in self._dialling:
                self._parked[node].append(request)
            else:
                self._write(request)
            groups.setdefault(request.command, []).append(
                f"{node + 1}" if request.written else f"({node + 1})"
            )
        for command, nodes in groups.items():
            self._say(course, f"{_shown(command)} -> {' '.join(nodes)}")

    def _write(self, request: Request) -> bool:
        """Hand it to the connection, if its time has not passed."""
        if self.now > request.not_after:
            self._mailbox.append(Failure(request, FAULTS["expired"], self.now))
            return False
        request.written = True
        self._lines[request.node].append(request)
        return True

    def _settle(self) -> None:
        while self._mailbox:
            event = self._mailbox.popleft()
            assert isinstance(event, Reply | Failure)
            course = event.request.run
            if course.done or course.wait.pause:
                continue
            if self.keeps and isinstance(event, Reply) and event.value is GRANTED:
                course.kept.append(event.request)
                if len(course.kept) >= course.wait.grants:
                    self._tell_kept(course)
                continue
            self._tell_kept(course)
            if not (course.done or course.wait.pause):
                self._go(course, course.flow.send, event)
        for course in self.courses:
            bell = None if course.done else course.wait.bell
            if bell is not None and bell.rung:
                self._go(course, course.flow.send, Tick(self.now))
                self._settle()

    def _tell_kept(self, course: Course) -> None:
        """Let the flow hear of the grants that were kept back."""
        if course.kept:
            kept, course.kept = course.kept, []
            self._go(course, course.flow.send, Grants(kept, self.now))

    def _introduce(self, node: int, word: str, options: dict[str, str]) -> None:
        size = len(self.cluster.names)
        known: dict[str, dict[str, Any]] = {
            "admitted": {},
            "replica": {"role": "slave"},
            "evicting": {"policy": "allkeys-lru"},
            "twin": {"memory": Memory(f"run-{options.get('of', '1')}", "repl")},
            "new": {"marker": "", "uptime": float(options.get("uptime", "1000"))},
        }
        changes = known[word]
        if "max_ttl" in options:
            memory = Memory(f"run-{node + 1}", f"repl-{node + 1}")
            changes["marker"] = Marker(memory, size, float(options["max_ttl"])).text()
        self.admission.seen(node, identity_of(node, size, **changes), self.now)

    # What is written down

    def _say(self, course: Course, text: str) -> None:
        others = any(other is not course and not other.done for other in self.courses)
        self.out.append(f"{course.name}: {text}" if others else text)

    def _tell(self, course: Course) -> None:
        if course.done:
            outcome, *clauses = _outcome(course).split("; ")
            first, *more = wrap(outcome, 90)
            self._say(course, first)
            self.out += [f"  {line}" for line in [*more, *clauses]]
            return
        now = (course.wait.until, course.wait.pause)
        if now != course.shown:
            course.shown = now
            self._say(course, f"{'pause' if now[1] else 'wait'} until {_time(now[0])}")


def _time(at: float) -> str:
    return f"{at:.6g}"


def _shown_place(text: str) -> str:
    """`place 2` of "<ticket> P.2"; `deaf place 2` of one who hears nothing."""
    if text in ("", "-", "?"):
        return text and f" place {text}"
    deaf = " deaf" if text.lstrip("0123456789").startswith("~") else ""
    return f"{deaf} place {text.partition('.')[2]}"


def _shown(command: Command) -> str:
    place = _shown_place(_place_in(command) or "")
    match command:
        case Take(mode=mode, owner=owner, token=token, ttl=ttl):
            word = {"acquire": "TAKE", "extend": f"EXTEND by {ttl:.6g}", "verify": "VERIFY"}[mode]
            return f"{word} {owner}:{token}{place}"
        case Free(args=(owner, token, *_), unattended=unattended):
            return f"FREE {owner}:{token}{place}{', unattended' if unattended else ''}"
        case Repair(args=(ttl_ms,)):
            return f"REPAIR {ttl_ms} ms"
        case Mark():
            return "MARK"
        case Greet(look=look):
            return "GREET anew" if look else "GREET"
        case commands.Canvass():
            return f"PEEK{place}"
        case commands.Leave():
            return f"LEAVE{place}"
        case commands.Peek():
            return "PEEK at any node"
    return type(command).__name__.upper()


def _outcome(course: Course) -> str:
    error, value = course.error, course.value
    if isinstance(error, Cancelled):
        return "Cancelled"
    if isinstance(error, AcquireError):
        assert isinstance(error.tally, Tally) and str(error) == error.tally.told("lock 'r': ")
        return f"{type(error).__name__}: {_votes(error.tally)}"
    if error is not None:
        return f"{type(error).__name__}: {error}"
    if isinstance(value, Holding):
        touched = " ".join(str(node + 1) for node in sorted(value.touched))
        return (
            f"held {value.owner}:{value.token} until {_time(value.valid_until)}, touched {touched}"
        )
    if isinstance(value, Tally):
        return _votes(value)
    if isinstance(value, list):
        return "; ".join(look.reason for look in value)
    return {None: "done"}.get(value, str(value))


def _votes(tally: Tally) -> str:
    """The count, and a line for each node that did not grant."""
    return "; ".join(
        [
            tally.count(),
            *(f"{vote.node} {vote.reason}" for vote in tally.cast_votes() if not vote.granted),
        ]
    )


def _perform(play: Play, words: list[str]) -> None:
    """One input line, without its instant."""
    nodes = [int(word) - 1 for word in words if word.isdecimal()]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    rest = [word for word in words if not word.isdecimal() and "=" not in word]
    seconds = {
        name: float(text)
        for name, text in options.items()
        if name in ("timeout", "ttl", "stand_back")
    }
    match words:
        case ["limit", max_hold] if play.holding is not None:
            return play.holding.limit(float(max_hold))
        case ["wall", number]:
            play.source.wall = int(number)
            return None
        case ["dice", *numbers]:
            return play.source.dice.extend(int(number) for number in numbers)
    match rest:
        case ["acquire", *flags]:
            play.acquire(once="once" in flags, looking="looking" in flags, **seconds)
        case ["extend"]:
            play.extend(**seconds)
        case ["verify"]:
            play.verify()
        case ["release"]:
            play.release()
        case ["peek"]:
            play.peek()
        case ["meet"]:
            play.meet(**seconds)
        case ["nodes"]:
            play.inspect()
        case ["tick"]:
            play.tick()
        case ["status"]:
            play.status()
        case ["cancel"]:
            play.cancel()
        case ["told" | "rung" as what]:
            for place in nodes:
                getattr(play, what)(place + 1)
        case ["dialling" | "dead" | "connected" | "twice" as state]:
            for node in nodes:
                getattr(play, state)(node)
        case [word] if word in FAULTS:
            for node in nodes:
                play.fail(node, word)
        case [word]:
            for node in nodes:
                play.answer(node, word, **options)
        case _:
            raise AssertionError(f"no such input: {' '.join(words)}")
    return None


def _begin(line: str, *, keeps: bool) -> Play:
    """The first line: the cluster, and settings of its `Policy`."""
    count, _, *words = line.split()
    settings: dict[str, Any] = {"keeps": keeps}
    for word in words:
        name, _, text = word.partition("=")
        if name == "unmet":
            settings["met"] = False
        elif name == "repair":
            settings["repair_missing_ttl"] = True
        elif name == "barging":
            settings["fair"] = False
        elif name == "deaf":
            settings["hears"] = False
        else:
            settings[name] = float(text)
    return Play(int(count), **settings)


def replay(transcript: str, *, until: int | None = None, keeps: bool = False) -> tuple[Play, str]:
    """Play the input lines of *transcript*, or the first *until* of them; give the play, and the
    whole text as it went."""
    lines = [line for line in dedent(transcript).strip("\n").splitlines() if line.strip()]
    inputs = [line for line in lines if not line.startswith((" ", "#"))]
    play = _begin(inputs[0], keeps=keeps)
    text: list[str] = []
    done = 0
    for line in lines:
        if line.startswith("#"):
            text.append(line)
        elif not line.startswith(" "):
            if until is not None and done == until:
                break
            text.append(line)
            if done:
                instant, *words = line.split()
                assert float(instant) >= play.now, f"time never falls: {line}"
                play.now = float(instant)
                _perform(play, words)
            text += [f"    {said}" for said in play.out]
            play.out.clear()
            done += 1
    return play, "\n".join(text)


def check(transcript: str) -> Play:
    """Play a transcript, told every grant and with grants kept back; fail, showing what went
    differently, unless everything went as it says both times. Give the play that was told every
    grant."""
    expected = "\n".join(
        line for line in dedent(transcript).strip("\n").splitlines() if line.strip()
    )
    for keeps in (True, False):
        play, actual = replay(transcript, keeps=keeps)
        if actual != expected:
            difference = difflib.unified_diff(
                expected.splitlines(), actual.splitlines(), "expected", "went", lineterm="", n=100
            )
            how = " where grants were kept back" if keeps else ""
            raise AssertionError(f"the transcript went otherwise{how}:\n" + "\n".join(difference))
    return play
