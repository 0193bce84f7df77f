"""`redlock demo`: five servers, three workers, two faults, one verdict.

Three processes share one lock, which guards a counter in a file. Meanwhile one server is killed and comes back without
its memory, and another one is stopped for a while. What the workers report is drawn as it happens and judged at the end:
the demonstration can fail, and then says so. It touches the loopback interface and temporary folders, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import redlock
import redlock.asyncio
from redlock.core.quarantine import quarantine_span
from redlock.core.quorum import majority
from redlock.embedded import Nodes
from redlock.errors import AcquireError, LeaseLost
from redlock.observe import Event, LeaseGranted, LeaseLapsed, LeaseReleasing, NodeAdmitted, NodeDisconnected, NodeQuarantined
from redlock.transport.clock import now

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["Finding", "Ledger", "Section", "StaleToken", "judge", "run"]

RESOURCE = "demo:counter"
NODES = 5
TTL = 2.0
MAX_TTL = 5.0
WORKERS = {"A": "blocking", "B": "blocking", "C": "asyncio"}
WORK = (0.02, 0.08)
"""Seconds a critical section takes."""
REST = (0.01, 0.06)
"""Seconds a worker does without the lock: few, so that it is wanted nearly always."""
TRY = 5.0
"""Seconds a worker waits for the lock before it says so and tries again."""
_START_TIMEOUT, _END_TIMEOUT = 15.0, 5.0


def run(seconds: float) -> int:
    """Show it for about *seconds* seconds; give the exit status: 0 clean, 1 not, 2 no server to run, 128+N for signal N."""
    console = _console()
    with _Interruptible() as signals:
        try:
            return _Show(console, seconds).run()
        except KeyboardInterrupt:
            console.print(f"\ninterrupted by {signals.name}: servers, workers and folders are gone")
            return 128 + signals.caught
        except RuntimeError as error:  # No server is installed, or something did not start.
            sys.stderr.write(f"redlock: {error}\n")
            return 2


class _Interruptible:
    """Signals that end the demonstration, once: what they interrupt is then cleaned up undisturbed."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.caught = signal.SIGINT

    @property
    def name(self) -> str:
        """The one that came."""
        return self.caught.name

    def __enter__(self) -> Self:
        self._before = {signum: signal.signal(signum, self._take) for signum in self._SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.caught = signal.Signals(signum)
        for each in self._SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt


# The workers: processes of their own


class StaleToken(Exception):
    """The resource has seen this fencing token or a larger one: whoever comes with it is late."""


class Ledger:
    """The guarded resource: a file with a counter, and the fencing token of whoever wrote last.

    It is read, and only later written, with nothing in between but the lock: two at once would lose an update.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[int, int]:
        """The counter and the token."""
        counter, token = self._path.read_text("ascii").split()
        return int(counter), int(token)

    def write(self, counter: int, token: int) -> None:
        """Replace both."""
        self._path.write_text(f"{counter} {token}\n", "ascii")

    def open(self, token: int) -> int:
        """The counter, for a holder with *token*. Raises StaleToken."""
        counter, highest = self.read()
        if token <= highest:
            raise StaleToken(f"fencing token {token} is not above {highest}")
        return counter


def _worker(path: str, kind: str, *urls: str) -> None:
    """What a worker process does: wait for the start, then work until stdin ends."""
    ends = threading.Event()
    ledger = Ledger(Path(path))
    _tell("ready")
    if not sys.stdin.readline():
        return
    threading.Thread(target=_await_end, args=(ends,), daemon=True).start()
    if kind == "asyncio":
        asyncio.run(_work_async(urls, ledger, ends))
    else:
        _work(urls, ledger, ends)


def _await_end(ends: threading.Event) -> None:
    sys.stdin.read()  # It ends when the parent says so, or is gone.
    ends.set()


def _work(urls: Sequence[str], ledger: Ledger, ends: threading.Event) -> None:
    with redlock.Redlock(urls, ttl=TTL, on_event=_tell_event) as locks:
        while not ends.wait(random.uniform(*REST)):
            with _section(), locks.lock(RESOURCE, timeout=TRY) as lease:
                counter = ledger.open(lease.fencing_token)
                ends.wait(random.uniform(*WORK))
                lease.ensure_held()
                ledger.write(counter + 1, lease.fencing_token)
                _tell("wrote", token=lease.fencing_token)


async def _work_async(urls: Sequence[str], ledger: Ledger, ends: threading.Event) -> None:
    async with redlock.asyncio.Redlock(urls, ttl=TTL, on_event=_tell_event) as locks:
        while not ends.is_set():
            with _section():
                async with locks.lock(RESOURCE, timeout=TRY) as lease:
                    counter = ledger.open(lease.fencing_token)
                    await asyncio.sleep(random.uniform(*WORK))
                    lease.ensure_held()
                    ledger.write(counter + 1, lease.fencing_token)
                    _tell("wrote", token=lease.fencing_token)
            await asyncio.sleep(random.uniform(*REST))


@contextlib.contextmanager
def _section() -> Iterator[None]:
    _tell("asked")
    try:
        yield
    except (AcquireError, LeaseLost, StaleToken) as error:
        _tell("failed", error=type(error).__name__, detail=str(error))


def _tell_event(event: Event) -> None:
    match event:
        case LeaseGranted(at, _, _, token, sent_at, valid_until):
            _tell("granted", at=at, token=token, sent_at=sent_at, valid_until=valid_until)
        case LeaseReleasing(at, _, _, token):
            _tell("released", at=at, token=token)
        case LeaseLapsed(at, _, _, token):
            _tell("lost", at=at, token=token)
        case NodeAdmitted(at, node):
            _tell("admitted", at=at, node=node)
        case NodeQuarantined(at, node, _, until):
            _tell("quarantined", at=at, node=node, until=until)
        case NodeDisconnected(at, node, reason):
            _tell("disconnected", at=at, node=node, reason=reason)


def _tell(kind: str, **fields: object) -> None:
    """A line for the parent, in one write: callbacks come from several threads."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"at": now(), **fields, "kind": kind}).encode() + b"\n")


# What happened, and the verdict on it


@dataclass(slots=True)
class Section:
    """One grant and the critical section under it. Instants on the lease clock, which all processes share.

    *asked_at*: when the worker began to want the lock; *sent_at*: before the first write of the round that won;
    *ended_at*: before the first release was written, or None; *wrote*: the counter was written.
    """

    worker: str
    token: int
    asked_at: float
    sent_at: float
    granted_at: float
    valid_until: float
    ended_at: float | None = None
    wrote: bool = False

    @property
    def until(self) -> float:
        """When nobody had to respect it any more: its release, or without one the end of its validity."""
        return self.valid_until if self.ended_at is None else self.ended_at


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    claim: str
    holds: bool
    evidence: str


def judge(sections: Sequence[Section], counter: int, token: int, faults: Sequence[str] = ()) -> list[Finding]:
    """Compare what happened with what a lock promises; *counter* and *token* are what the file says in the end.

    Computed from the intervals alone; *faults*: what went wrong otherwise, with a worker or with a write.
    """
    order = sorted(sections, key=lambda section: section.granted_at)
    overlaps = _overlaps(order)
    late = [section for section in order if section.ended_at is None or section.ended_at > section.valid_until]
    spare = min((section.valid_until - section.until for section in order), default=0.0)
    steps = [(one.token, other.token) for one, other in pairwise(order)]
    fallen = [(one, other) for one, other in steps if one >= other]
    wrote = sum(section.wrote for section in order)
    last = order[-1].token if order else 0
    return [
        Finding("one holder at a time", not overlaps and bool(order), f"{len(overlaps)} overlaps in {len(order)} grants"),
        Finding(
            "never past its validity",
            not late and bool(order),
            f"{len(late)} ended late; {spare:.2f} s were left at least" if order else "nothing was granted",
        ),
        Finding(
            "fencing tokens strictly increase",
            not fallen and token == last,
            f"{len(fallen)} of {len(steps)} steps do not" + ("" if token == last else f"; the file has seen {token}, not {last}"),
        ),
        Finding("no update is lost", counter == wrote, f"{wrote} critical sections, counter {counter}"),
        Finding("nobody fell over", not faults, "; ".join(faults[:3]) or f"{len(WORKERS)} workers ended in order"),
    ]


def _overlaps(order: Sequence[Section]) -> list[tuple[Section, Section]]:
    """Grants that came while an earlier one still stood; *order*: by `granted_at`."""
    found: list[tuple[Section, Section]] = []
    latest: Section | None = None
    for section in order:
        if latest is not None and section.granted_at < latest.until:
            found.append((latest, section))
        if latest is None or section.until > latest.until:
            latest = section
    return found


@dataclass(slots=True)
class History:
    """Everything the workers told."""

    sections: list[Section] = field(default_factory=list)
    open: dict[str, Section] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    gave_up: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    def hear(self, worker: str, told: Mapping[str, Any]) -> Section | None:
        """Take one message of a worker; give the section that it ended."""
        section = self.open.get(worker)
        match told["kind"]:
            case "asked":
                self.asked_at.setdefault(worker, told["at"])  # Of several tries in a row, the first began the wait.
            case "granted":
                asked_at = self.asked_at.pop(worker, told["sent_at"])
                self.open[worker] = section = Section(
                    worker, told["token"], asked_at, told["sent_at"], told["at"], told["valid_until"]
                )
                self.sections.append(section)
            case "wrote" if section is not None:
                section.wrote = True
            case "released" | "lost" if section is not None and section.token == told["token"]:
                if told["kind"] == "released":
                    section.ended_at = told["at"]
                return self.open.pop(worker)
            case "failed":
                self.gave_up[told["error"]] += 1
                if told["error"] == StaleToken.__name__:
                    self.refused.append(f"{worker}: {told['detail']}")
        return None


class _Worker:
    """A worker process, seen from the parent."""

    def __init__(self, name: str, kind: str, path: Path, urls: Sequence[str]) -> None:
        self.name = name
        self.kind = kind
        self._partial = b""
        words = [sys.executable, "-P", "-m", "redlock.demo", str(path), kind, *urls]
        # The parent's own search path, and no more: a file in the current folder must not shadow a module.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)}
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends us in order.
        )

    @property
    def stdout(self) -> int:
        """The descriptor to read."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that have come; None at the end."""
        data = os.read(self.stdout, 65536)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def begin(self) -> None:
        """Let it work."""
        self._say(b"go\n")

    def end(self) -> None:
        """Ask it to end after what it is doing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def finish(self) -> int:
        """Wait for its end, or bring it about; give its exit status."""
        self.end()
        try:
            return self.process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()

    def _say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)
            self.process.stdin.flush()


# The play

_VOTES, _DEAD, _QUARANTINED, _STOPPED = "votes", "killed", "in quarantine", "stopped"
_SIGNS = {_DEAD: "x", _QUARANTINED: "q", _STOPPED: "s"}
_NODE_STYLES = {_VOTES: "green", _DEAD: "bold red", _QUARANTINED: "bold yellow", _STOPPED: "bold magenta"}
_STYLES = {"A": "cyan", "B": "yellow", "C": "magenta"}
_CELLS = 40
_LAG = 0.15
"""Lines are printed this much later than what they tell, so that they come in order of time."""
_DETAILS_FIRST = 5
KILLED, STOPPED = 2, 4


class _Show:
    """Runs the play, and prints it."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        # The quarantine of the killed node should end within the play.
        self._max_ttl = min(MAX_TTL, max(TTL, (0.3 * seconds - 1.0) / 1.02))
        self._history = History()
        self._states = (_VOTES,) * NODES
        self._phases: list[tuple[float, tuple[str, ...]]] = []
        self._lines: list[tuple[float, int, RenderableType]] = []
        self._began_at = 0.0
        self._drawn = 0
        self._details = _DETAILS_FIRST
        self._details_from = 0.0
        self._said: set[tuple[int, str]] = set()
        self._names: dict[str, int] = {}
        self._quarantined_until: float | None = None

    def run(self) -> int:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-demo-"))
            self._nodes = stack.enter_context(Nodes(NODES, max_ttl=self._max_ttl))
            self._names = {url: number for number, url in enumerate(self._nodes.urls, 1)}
            ledger = Ledger(Path(folder, "counter"))
            ledger.write(0, 0)
            self._workers = [_Worker(name, kind, Path(folder, "counter"), self._nodes.urls) for name, kind in WORKERS.items()]
            stack.callback(self._dismiss)
            self._introduce()
            with selectors.DefaultSelector() as self._selector:
                for worker in self._workers:
                    self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
                self._gather()
                self._play()
                self._end()
            statuses = self._dismiss()
            counter, token = ledger.read()
        faults = [f"worker {name} ended with status {status}" for name, status in statuses.items() if status]
        return self._conclude(judge(self._history.sections, counter, token, [*faults, *self._history.refused]))

    # Acts

    def _gather(self) -> None:
        """Wait until all workers stand ready, and let them begin together."""
        ready: set[str] = set()
        until = now() + _START_TIMEOUT
        while len(ready) < len(self._workers):
            heard = self._hear(until)
            ready.update(worker.name for worker, told in heard if told["kind"] == "ready")
            if now() >= until or not self._selector.get_map():
                raise RuntimeError("the workers did not start")
        self._began_at = now()
        self._phases.append((self._began_at, self._states))
        for worker in self._workers:
            worker.begin()

    def _play(self) -> None:
        plan = self._plan()
        end_at = self._began_at + self._seconds
        while now() < end_at:
            next_at = min([end_at, self._began_at + self._drawn + 1 + _LAG, *(at for at, _ in plan[:1])])
            self._take_in(next_at)
            while plan and now() >= plan[0][0]:
                plan.pop(0)[1]()
            self._draw(now() - _LAG)

    def _end(self) -> None:
        """Let the workers finish, and hear the last they say."""
        for worker in self._workers:
            worker.end()
        until = now() + _END_TIMEOUT
        while self._selector.get_map() and now() < until:
            self._take_in(until)
        self._phases.append((now(), ()))
        self._draw(now())

    def _dismiss(self) -> dict[str, int]:
        """End the workers, all at once, or they would wait for each other's locks; give their exit statuses."""
        for worker in self._workers:
            worker.end()
        return {worker.name: worker.finish() for worker in self._workers}

    def _plan(self) -> list[tuple[float, Callable[[], None]]]:
        acts = [(0.2, self._kill), (0.3, self._restart), (0.4, self._stop), (0.55, self._resume)]
        return [(self._began_at + share * self._seconds, act) for share, act in acts]

    def _kill(self) -> None:
        at = now()
        self._nodes[KILLED - 1].kill()
        self._becomes(KILLED, _DEAD, at, f"node {KILLED} is killed (SIGKILL)")

    def _restart(self) -> None:
        self._line(now(), _NODE_STYLES[_QUARANTINED], f"node {KILLED} is started again, with an empty memory")
        self._nodes[KILLED - 1].start()

    def _stop(self) -> None:
        self._nodes[STOPPED - 1].pause()
        self._becomes(STOPPED, _STOPPED, now(), f"node {STOPPED} is stopped (SIGSTOP): it accepts, and never answers")

    def _resume(self) -> None:
        self._nodes[STOPPED - 1].resume()
        self._becomes(STOPPED, _VOTES, now(), f"node {STOPPED} goes on (SIGCONT); its late answers count for nothing")

    def _becomes(self, number: int, state: str, at: float, text: str) -> None:
        """A node changes: say so, and show the first grant after it in detail."""
        self._states = (*self._states[: number - 1], state, *self._states[number:])
        self._phases.append((at, self._states))
        self._line(at, _NODE_STYLES[state], text)
        self._details, self._details_from = 1, at

    # What the workers tell

    def _hear(self, until: float) -> list[tuple[_Worker, dict[str, Any]]]:
        heard: list[tuple[_Worker, dict[str, Any]]] = []
        for key, _ in self._selector.select(max(0.0, until - now())):
            messages = key.data.read()
            if messages is None:
                self._selector.unregister(key.fileobj)
            else:
                heard += [(key.data, told) for told in messages]
        return heard

    def _take_in(self, until: float) -> None:
        for worker, told in self._hear(until):
            if "node" in told:
                self._node_event(self._names[told["node"]], told)
            section = self._history.hear(worker.name, told)
            if section is not None and self._details and section.granted_at >= self._details_from:
                self._details -= 1
                self._detail(section)

    def _node_event(self, number: int, told: Mapping[str, Any]) -> None:
        """Print it once, though every worker tells it, and some for each of their connections."""
        kind, at, state = told["kind"], told["at"], self._states[number - 1]
        if kind == "quarantined" and state == _DEAD and told["until"] is not None:
            self._quarantined_until = until = told["until"]
            self._becomes(
                number, _QUARANTINED, at, f"node {number} forgot its locks: in quarantine, no vote for {until - at:.1f} s"
            )
        elif kind == "admitted" and state == _QUARANTINED and at > (self._quarantined_until or 0.0) - 0.5:
            text = f"node {number} votes again: no lock it forgot is valid; tokens leap past any it forgot"
            self._becomes(number, _VOTES, at, text)
        elif kind == "disconnected" and state in (_DEAD, _STOPPED) and (number, state) not in self._said:
            self._said.add((number, state))
            self._line(at, "red", f"the workers notice: node {number} {told['reason']}")

    # What is shown

    def _introduce(self) -> None:
        from rich.text import Text

        text = Text()
        text.append("redlock demo", "bold")
        text.append(f"   {NODES} servers, {len(self._workers)} worker processes, 1 lock, {self._seconds:g} seconds\n\n")
        for worker in self._workers:
            text.append(f"  {worker.name} ", f"bold {_STYLES[worker.name]}")
            text.append(f" {worker.kind:9} pid {worker.process.pid}\n")
        text.append(
            "\n  Each takes the lock, reads a counter from a file, waits 20-80 ms, and writes\n"
            f"  it back plus one. A majority is {majority(NODES)}; a crash blocks others for {TTL:g} s at most.\n"
            f"  Nodes: 1-{NODES} votes, x killed, q in quarantine, s stopped.\n"
        )
        self._console.print(text)

    def _detail(self, section: Section) -> None:
        from rich.text import Text

        text = Text()
        text.append(section.worker, f"bold {_STYLES[section.worker]}")
        text.append(f"  token {section.token}  waited {_ms(section.granted_at - section.asked_at)}")
        text.append(f"  vote {_ms(section.granted_at - section.sent_at)}  held {_ms(section.until - section.granted_at)}")
        self._line(section.granted_at, "", text)

    def _line(self, at: float, style: str, what: str | Any) -> None:
        from rich.text import Text

        text = Text(f"{at - self._began_at:5.2f} s  ")
        text.append(what, style) if isinstance(what, str) else text.append_text(what)
        self._lines.append((at, len(self._lines), text))

    def _draw(self, until: float) -> None:
        """Print what is complete by *until*: lines, and a strip for every second."""
        while self._began_at + self._drawn + 1 <= until and self._drawn < self._seconds:
            self._drawn += 1
            self._flush(self._began_at + self._drawn)
            if self._drawn == 1:
                self._console.print(_strip_head(), style="dim", soft_wrap=True)
            self._console.print(self._strip(self._drawn - 1), soft_wrap=True)
        if until >= self._began_at + self._seconds:
            self._flush(until)

    def _flush(self, until: float) -> None:
        self._lines.sort(key=lambda line: line[:2])
        while self._lines and self._lines[0][0] <= until:
            self._console.print(self._lines.pop(0)[2], soft_wrap=True)

    def _strip(self, second: int) -> RenderableType:
        """One second, a letter for each 25 ms: who held the lock."""
        from rich.text import Text

        start = self._began_at + second
        size = 1.0 / _CELLS
        near = [
            section for section in self._history.sections[-400:] if _until(section) > start and section.granted_at < start + 1
        ]
        text = Text(f"{second + 1:5d} s  ")
        for sign, cells in groupby(_sign(near, start + cell * size, size) for cell in range(_CELLS)):
            text.append("".join(cells), f"black on {_STYLES[sign]}" if sign in _STYLES else "bold red" if sign == "!" else "dim")
        granted = [section for section in near if section.granted_at >= start]
        text.append(f" {len(granted):6d} {max((section.token for section in near), default=''):>16}  ")
        states = [states for at, states in self._phases if at <= start + 1][-1]
        for number, state in enumerate(states, 1):
            text.append(_SIGNS.get(state, str(number)), _NODE_STYLES[state])
        return text

    def _conclude(self, findings: Sequence[Finding]) -> int:
        clean = all(finding.holds for finding in findings)
        console = self._console
        console.print()
        console.print(_findings_table(findings))
        console.print()
        console.print(_cost_table(self._history.sections, self._phases))
        console.print("vote: from the first write to the deciding answer; wait: from wanting the lock to having it", style="dim")
        console.print()
        console.print(self._summary())
        console.print("verdict: clean" if clean else "verdict: NOT CLEAN", style="bold green" if clean else "bold red")
        return 0 if clean else 1

    def _summary(self) -> str:
        sections = sorted(self._history.sections, key=lambda section: section.granted_at)
        count = Counter(section.worker for section in sections)
        each = ", ".join(f"{name} {count[name]}" for name in WORKERS)
        lines = [f"{len(sections)} grants ({each}), {sum(a.worker != b.worker for a, b in pairwise(sections))} hand-overs"]
        if sections:
            longest = max(sections, key=lambda section: section.granted_at - section.asked_at)
            lines.append(f"longest wait {longest.granted_at - longest.asked_at:.2f} s, by {longest.worker}")
        if self._history.gave_up:
            lines.append("tries that gave up: " + ", ".join(f"{n} {error}" for error, n in self._history.gave_up.items()))
        if self._quarantined_until is not None and self._states[KILLED - 1] == _QUARANTINED:
            left = self._quarantined_until - self._phases[-1][0]
            lines.append(
                f"node {KILLED} was still in quarantine ({quarantine_span(self._max_ttl):.1f} s in all), for {left:.1f} s more"
            )
        return "\n".join(lines)


def _until(section: Section) -> float:
    """The end of a section as far as it has one."""
    return float("inf") if section.ended_at is None else section.ended_at


def _sign(sections: Sequence[Section], start: float, size: float) -> str:
    """Whose the time from *start* on was, '.' if nobody's, '!' if two had it at once."""
    shares = {section.worker: 0.0 for section in sections}
    for section in sections:
        shares[section.worker] += max(0.0, min(_until(section), start + size) - max(section.granted_at, start))
    if sum(shares.values()) > size * 1.001:
        return "!"
    worker = max(shares, key=lambda name: shares[name], default="")
    return worker if worker and shares[worker] >= 0.4 * size else "."


def _strip_head() -> str:
    return f"   time  {'who holds the lock, a letter for 25 ms':{_CELLS}} grants {'last token':16}  nodes"


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = _table("verdict", "", "evidence")
    for finding in findings:
        mark = "holds" if finding.holds else "BROKEN"
        table.add_row(finding.claim, mark, finding.evidence, style="green" if finding.holds else "bold red")
    return table


def _cost_table(sections: Sequence[Section], phases: Sequence[tuple[float, tuple[str, ...]]]) -> Table:
    """What the faults cost: the same figures for every state of the nodes."""
    spans: dict[str, float] = {}
    groups: dict[str, list[Section]] = {}
    for (start, states), (end, _) in pairwise(phases):
        name = ", ".join(f"{number} {state}" for number, state in enumerate(states, 1) if state != _VOTES) or "all vote"
        spans[name] = spans.get(name, 0.0) + end - start
        groups.setdefault(name, []).extend(section for section in sections if start <= section.granted_at < end)
    table = _table("nodes", ">seconds", ">grants/s", ">vote, median", ">worst", ">wait, median", ">worst")
    for name, group in groups.items():
        votes = [section.granted_at - section.sent_at for section in group]
        waits = [section.granted_at - section.asked_at for section in group]
        figures = [statistics.median(votes), max(votes), statistics.median(waits), max(waits)] if group else []
        table.add_row(name, f"{spans[name]:.1f}", f"{len(group) / max(spans[name], 1e-3):.1f}", *map(_ms, figures))
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def _table(*headers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(header.lstrip(">"), justify="right" if header.startswith(">") else "left")
    return table


def _console() -> Console:
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console


if __name__ == "__main__":
    _worker(*sys.argv[1:])
