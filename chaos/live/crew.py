"""The processes of a campaign, seen from it: what they say goes to a journal, and they can be
told, stopped and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from chaos.history import Note, Record, from_json
from chaos.live.program import Program, Task
from redlock.transport.clock import now

__all__ = ["Crew", "Journal", "Member", "StoreProcess", "Timeout"]

PATIENCE = 30.0
"""Seconds after which something that must come is not waited for any more: long, because the
machine may be busy."""


class Timeout(Exception):
    """What a scenario waited for did not happen."""


class Journal:
    """The records of one scenario in the order they were heard; waits for what is to come."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._changed = threading.Condition()

    def add(self, record: Record) -> None:
        """Take one record."""
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> list[Record]:
        """All so far, in order of time."""
        with self._changed:
            return sorted(self._records, key=lambda record: record.at)

    def latest(self, wanted: Callable[[Record], object]) -> Iterator[Record]:
        """Wanted records among those so far, the one that was heard last first."""
        with self._changed:
            so_far = len(self._records)
        # What is there stays there.
        for place in range(so_far - 1, -1, -1):
            if wanted(self._records[place]):
                yield self._records[place]

    def __getitem__(self, place: int) -> Record:
        return self._records[place]

    def find(
        self,
        wanted: Callable[[Record], object],
        *,
        since: int = 0,
        timeout: float = PATIENCE,
        what: str = "",
    ) -> int:
        """The place of the first record from *since* on that is wanted, now or when it comes.
        Raises `Timeout`."""
        give_up_at = now() + timeout
        with self._changed:
            while True:
                while since < len(self._records):
                    if wanted(self._records[since]):
                        return since
                    since += 1
                left = give_up_at - now()
                if left <= 0:
                    raise Timeout(
                        f"{what or 'something awaited'} did not happen within {timeout:g} s"
                    )
                self._changed.wait(min(left, 1.0))

    def wait(
        self,
        wanted: Callable[[Record], object],
        *,
        since: int = 0,
        timeout: float = PATIENCE,
        what: str = "",
    ) -> Record:
        """The record itself."""
        return self._records[self.find(wanted, since=since, timeout=timeout, what=what)]


class _Process:
    """A child that says records on its standard output and ends with its standard input."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: dict[str, str],
        log: IO[bytes],
        hear: Callable[[Record], None],
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
                **environment,
            },
            start_new_session=True,  # Ctrl-C is for the campaign, which then ends them in order.
        )
        self._hear = hear
        self._telling = threading.Lock()
        self._reader = threading.Thread(
            target=self._read, name=f"hear-{self.process.pid}", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped."""
        return self.process.poll() is None

    def tell(self, message: dict[str, Any]) -> None:
        """Send one message; one who is dead hears nothing."""
        assert self.process.stdin is not None
        with self._telling, contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and hear the last it said."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5.0)

    def close(self, timeout: float = 5.0) -> None:
        """Ask it to end, or bring that about. Idempotent."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5.0)
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                record = from_json(json.loads(line))
            except (ValueError, TypeError):
                record = Note(now(), "", "said", line.decode("utf-8", "replace").strip()[:500])
            self._hear(record)


class Member(_Process):
    """One client process. Between scenarios it is idle; one that was hurt is replaced."""

    def __init__(self, program: Program, log: IO[bytes]) -> None:
        self.program = program
        self.name = ""
        self.spoilt = False
        self.journal = Journal()
        self._orders = 0
        self._stopped = False
        self._busy = False
        super().__init__(
            program.argv, dict(program.environment), log, lambda record: self.journal.add(record)
        )

    def begin(self, task: Task, journal: Journal) -> None:
        """Let it do *task*; what it says goes to *journal* from now on."""
        self._busy = True
        self.name = task.client
        self.journal = journal
        self.spoilt = self.spoilt or bool(task.plants)
        self.tell({"op": "begin", "task": task.to_json()})

    def order(self, what: str, **how: Any) -> Callable[[float], str]:
        """Order a puppet to do something; call what this gives to wait for what came of it."""
        self._orders += 1
        number, since = self._orders, len(self.journal)
        self.tell({"op": "do", "what": what, "number": number, **how})

        def done(timeout: float = PATIENCE) -> str:
            def is_answer(record: Record) -> bool:
                return (
                    isinstance(record, Note)
                    and record.client == self.name
                    and (
                        record.kind == "crashed"
                        or (record.kind == "done" and record.text.startswith(f"{number} "))
                    )
                )

            answer = self.journal.wait(
                is_answer, since=since, timeout=timeout, what=f"the end of {self.name}'s {what}"
            )
            assert isinstance(answer, Note)
            return (
                answer.text.partition(" ")[2]
                if answer.kind == "done"
                else f"crashed: {answer.text}"
            )

        return done

    def do(self, what: str, **how: Any) -> str:
        """Order, and wait."""
        return self.order(what, **how)(PATIENCE)

    def step_wall_clock(self, seconds: float) -> None:
        """Step the wall clock as the process reads it."""
        self.spoilt = True
        since = len(self.journal)
        self.tell({"op": "step", "seconds": seconds})
        self.journal.wait(
            lambda record: (
                isinstance(record, Note) and record.client == self.name and record.kind == "stepped"
            ),
            since=since,
            what=f"{self.name}'s clock to be stepped",
        )

    def stop(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self._stopped = True
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        """SIGCONT."""
        self._stopped = False
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self.spoilt = True
        super().kill()

    def tell_end(self) -> None:
        """Ask for the end of its task; nothing if it has none."""
        if not self._busy:
            return
        if self._stopped and self.alive:
            self.go_on()
        self.tell({"op": "end"})

    def await_end(self, since: int) -> None:
        """Wait for that. A member that does not end is killed, and the journal says so."""

        def ended(record: Record) -> bool:
            return (
                isinstance(record, Note) and record.client == self.name and record.kind == "ended"
            )

        if not self.alive or not self._busy:
            return
        self._busy = False
        try:
            self.journal.wait(ended, since=since, what=f"{self.name}'s end")
        except Timeout:
            self.journal.add(Note(now(), self.name, "crashed", "did not end when told to"))
            self.kill()


class Crew:
    """Client processes for scenario after scenario: started on demand, kept while they are
    sound."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log
        self._idle: dict[str, list[Member]] = {}
        self._all: list[Member] = []

    def take(self, program: Program, count: int) -> list[Member]:
        """*count* idle processes of a program, all ready."""
        idle = self._idle.setdefault(program.kind, [])
        taken = [idle.pop() for _ in range(min(count, len(idle)))]
        fresh = [Member(program, self._log) for _ in range(count - len(taken))]
        self._all += fresh
        for member in fresh:
            member.journal.wait(
                lambda record: isinstance(record, Note) and record.kind == "ready",
                timeout=60.0,
                what=f"a {program.kind} client",
            )
        return taken + fresh

    def give_back(self, members: Iterable[Member]) -> None:
        """Keep those that are sound; end the others."""
        for member in members:
            if member.spoilt or not member.alive:
                member.close()
                self._all.remove(member)
            else:
                self._idle[member.program.kind].append(member)

    def close(self) -> None:
        """End all. Idempotent."""
        for member in self._all:
            if member._stopped and member.alive:
                member.go_on()
        for member in self._all:
            member.close()
        self._all.clear()
        self._idle.clear()


class StoreProcess(_Process):
    """The guarded store, one for all scenarios of a run: each uses resources of its own."""

    def __init__(self, log: IO[bytes]) -> None:
        self.journal = Journal()
        super().__init__(
            [sys.executable, "-P", "-m", "chaos.live.store"],
            {},
            log,
            lambda record: self.journal.add(record),
        )
        said = self.journal.wait(
            lambda record: isinstance(record, Note) and record.kind == "store",
            what="the guarded store",
        )
        assert isinstance(said, Note)
        self.address = ("127.0.0.1", int(said.text))
