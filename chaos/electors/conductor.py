"""Plays trials: three candidates of an elector, one fault against the one that leads, and what
their signs of work come to."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chaos.electors.catalogue import Elector
from chaos.electors.faults import Fault
from chaos.electors.line import Flow, Line, Network
from chaos.electors.measure import gap, overlap, stop_lag
from chaos.electors.signs import Stretch, read
from chaos.electors.stores import Addresses

__all__ = ["Stage", "Trial", "TrialFailed", "play"]

CANDIDATES = ("c1", "c2", "c3")
WINDOW = 3.0
"""Leases for which a trial is watched from the fault on: 1.5 for a pause, or 2 of deaf work, and
what an elector needs to see that it is over."""
WINDOW_REST = 4.0
"""Seconds more, for a machine that is busy, and for a client library's own retries, which no lease
scales: redis-py's take up to six seconds."""
_READY_TIMEOUT = 60.0
_ELECTED_TIMEOUT = 20.0
"""Seconds beside six leases; imports and the first connection are behind it then."""
_FRESH = 0.2
"""Seconds: one who signed not longer ago than this works now, however busy the machine."""


class TrialFailed(Exception):
    """Nothing can be said of an elector: a candidate did not start, or nobody was elected. One
    line."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one fault. Times in seconds.

    *overlap*: how long two candidates worked at once, in the whole trial. *stop_lag*: how long the
    old leader worked on past the earliest instant at which another may lead. *endless*: it still
    did when the trial ended, after *watched* seconds, so that both are "at least". *gap*: the
    longest time after the fault in which nobody worked. *taken_over*: whether another worked after
    it. *ended*: the process of the old leader had ended by itself.
    """

    elector: str
    fault: str
    number: int
    lease: float
    overlap: float
    stop_lag: float
    endless: bool
    gap: float
    taken_over: bool
    ended: bool
    watched: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Candidate:
    """A candidate process, its line and its signs; what a fault does to it
    (`chaos.electors.faults.Leader`)."""

    def __init__(self, name: str, elector: Elector, line: Line, folder: Path) -> None:
        self.name = name
        self.lease = elector.lease
        self.line = line
        self.broken_at = float("inf")
        """When the fault began, which is just after a renewal."""
        self._signs = folder / f"{name}.signs"
        self._errors = folder / f"{name}.errors"
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def start(self, words: Sequence[str], task: Mapping[str, Any]) -> None:
        """Start the program and tell it its task."""
        with self._errors.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, daemon=True).start()
        self.order({**task, "name": self.name, "signs": str(self._signs)})

    def await_ready(self) -> None:
        """Wait until it campaigns. Raises TrialFailed."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while not self._ready.wait(0.05) and not self.has_ended and time.monotonic() < deadline:
            pass
        if not self._ready.is_set():
            raise TrialFailed(f"candidate {self.name} did not start: {self.last_words}")

    def after_renewal(self, flow: Flow = Flow.OPEN) -> None:
        """See `Leader`. Raises TrialFailed if it does not renew."""
        if not self.line.after_renewal(flow, 2 * self.lease):
            raise TrialFailed(f"candidate {self.name} led and did not renew: {self.last_words}")
        self.broken_at = time.monotonic()

    def signal(self, sign: signal.Signals) -> None:
        """See `Leader`."""
        assert self._process is not None
        self._process.send_signal(sign)

    def order(self, order: Mapping[str, Any]) -> None:
        """See `Leader`. One who has ended hears nothing."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def sleep(self, seconds: float) -> None:
        """See `Leader`."""
        time.sleep(seconds)

    @property
    def has_ended(self) -> bool:
        """Whether its process is no more."""
        return self._process is not None and self._process.poll() is not None

    @property
    def last_words(self) -> str:
        """The last line that it said on its standard error."""
        with contextlib.suppress(OSError):
            lines = self._errors.read_text("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else "it said nothing"
        return "it said nothing"

    def stretches(self) -> list[Stretch]:
        """What it has worked so far."""
        return read(self.name, self._signs)

    def end(self) -> None:
        """SIGKILL, stopped or not; idempotent."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _listen(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    if json.loads(line).get("says") == "ready":
                        self._ready.set()


class Stage:
    """The servers of one elector, for any number of trials. A context manager; raises PeerMissing
    on entry. *rest*: seconds for which a trial is watched beside `WINDOW` leases."""

    def __init__(self, elector: Elector, *, rest: float = WINDOW_REST) -> None:
        self.elector = elector
        self._watched = WINDOW * elector.lease + rest
        self._stack = ExitStack()
        self._words: Sequence[str] = ()
        self._servers: Addresses = []
        self._trials = 0

    def __enter__(self) -> Stage:
        self._words = self.elector.start()
        with ExitStack() as stack:
            self._servers = stack.enter_context(self.elector.store())
            self._network = stack.enter_context(Network())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, fault: Fault, number: int = 1) -> Trial:
        """One trial. Raises TrialFailed."""
        self._trials += 1
        with (
            tempfile.TemporaryDirectory(prefix="redlock-electors-") as folder,
            ExitStack() as stack,
        ):
            candidates = [self._candidate(name, Path(folder), stack) for name in CANDIDATES]
            for candidate in candidates:
                candidate.await_ready()
            leader, term = _await_leader(candidates)
            # Its first renewal may fail, for a script that the server does not know yet.
            leader.after_renewal()
            fault.inflict(leader)
            watched_until = leader.broken_at + self._watched
            time.sleep(max(0.0, watched_until - time.monotonic()))
            ended = leader.has_ended
            for candidate in candidates:
                candidate.end()
            stretches = [one for candidate in candidates for one in candidate.stretches()]
            return self._measure(fault, number, leader, term, stretches, ended)

    def _candidate(self, name: str, folder: Path, stack: ExitStack) -> Candidate:
        line = self._network.line(self._servers, self.elector.renewal)
        stack.callback(self._network.drop, line)
        candidate = Candidate(name, self.elector, line, folder)
        stack.callback(candidate.end)
        task = {
            "servers": line.addresses,
            "lease": self.elector.lease,
            "resource": f"electors-{self._trials}",
            "settings": dict(self.elector.settings),
        }
        candidate.start(self._words, task)
        return candidate

    def _measure(
        self,
        fault: Fault,
        number: int,
        leader: Candidate,
        term: int,
        stretches: Sequence[Stretch],
        ended: bool,
    ) -> Trial:
        broken_at = leader.broken_at
        until = max((one.until for one in stretches), default=broken_at)
        others = [
            one.since for one in stretches if one.who != leader.name and one.until > broken_at
        ]
        anew = [one.since for one in stretches if one.who == leader.name and one.term > term]
        # What it asks for after somebody else was elected, or it itself was, renews nothing.
        free_at = leader.line.renewed_at(min([*others, *anew, until])) + leader.lease
        lag = stop_lag(stretches, leader.name, term, free_at)
        last = max(one.until for one in stretches if (one.who, one.term) == (leader.name, term))
        watched_until = broken_at + self._watched
        return Trial(
            elector=self.elector.name,
            fault=fault.name,
            number=number,
            lease=leader.lease,
            overlap=overlap(stretches),
            stop_lag=lag,
            endless=lag > 0 and last > watched_until - _FRESH,
            gap=gap(stretches, broken_at, watched_until),
            taken_over=bool(others),
            ended=ended,
            watched=self._watched,
        )


def play(elector: Elector, faults: Sequence[Fault], repeat: int) -> Iterator[Trial | str]:
    """The trials of an elector, as they end; of one that failed, why. Raises PeerMissing."""
    with Stage(elector) as stage:
        for fault in faults:
            for number in range(1, repeat + 1):
                try:
                    yield stage.play(fault, number)
                except TrialFailed as failed:
                    yield f"{elector.name}, {fault.name}: {failed}"


def _await_leader(candidates: Sequence[Candidate]) -> tuple[Candidate, int]:
    """Who works now, and its term. Raises TrialFailed."""
    deadline = time.monotonic() + _ELECTED_TIMEOUT + 6 * candidates[0].lease
    while time.monotonic() < deadline:
        for candidate in candidates:
            stretches = candidate.stretches()
            if stretches and stretches[-1].until > time.monotonic() - _FRESH:
                return candidate, stretches[-1].term
        time.sleep(0.02)
    said = "; ".join(f"{one.name}: {one.last_words}" for one in candidates)
    raise TrialFailed(f"nobody was elected: {said}")
