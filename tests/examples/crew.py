"""Several processes of an example, and what they say, line by line, in the order in which it was
heard."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 50.0
"""Seconds for a line on a busy machine, where ten interpreters may take half a minute to start."""


class Crew:
    """The processes; a context manager that leaves none behind."""

    def __init__(self, urls: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.said: list[tuple[int, str]] = []
        self._environment = {
            **os.environ,
            "REDLOCK_NODES": " ".join(urls),
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        self._threads: list[threading.Thread] = []
        self._heard = threading.Condition()

    def start(self, *words: str) -> int:
        """Start `python words`; its process id."""
        process = subprocess.Popen(
            [sys.executable, *words],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ends with all that it has forked.
        )
        self.processes[process.pid] = process
        assert process.stdout is not None
        thread = threading.Thread(target=self._hear, args=(process.pid, process.stdout))
        thread.start()
        self._threads.append(thread)
        return process.pid

    def hear(self, pattern: str, *, after: int = 0, but: int = 0) -> tuple[int, int]:
        """Wait for the first line that has *pattern*, of those behind the first *after* and not
        said by *but*: who said it, and how many lines there are up to it."""
        with self._heard:
            seen = after

            def found() -> bool:
                nonlocal seen
                while seen < len(self.said):
                    who, line = self.said[seen]
                    seen += 1
                    if who != but and re.search(pattern, line):
                        return True
                return False

            assert self._heard.wait_for(found, PATIENCE), f"nobody said {pattern}:\n{self.told()}"
            return self.said[seen - 1][0], seen

    def told(self) -> str:
        """All that was said."""
        return "\n".join(f"[{pid}] {line}" for pid, line in self.said)

    def tell(self, pid: int, signum: signal.Signals) -> None:
        """Send a signal."""
        self.processes[pid].send_signal(signum)

    def write(self, pid: int, line: str) -> None:
        """Say something to its standard input."""
        stdin = self.processes[pid].stdin
        assert stdin is not None
        stdin.write(line)
        stdin.flush()

    def end(self, pid: int) -> int:
        """Wait until it has ended; the status."""
        return self.processes[pid].wait(PATIENCE)

    def _hear(self, pid: int, stdout: IO[str]) -> None:
        for line in stdout:
            with self._heard:
                self.said.append((pid, line.rstrip("\n")))
                self._heard.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self.processes.values():
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
