"""A contender's process, seen from the driver: one JSON object per line to its stdin, one back from
its stdout.

Questions, whatever the language (times in seconds, measured ones in nanoseconds):

    open    urls, ttl                     make the client; {"version"}
    pairs   resource, count, warm, seconds, fresh
                                          acquire and release, back to back, one try each, after *warm* uncounted ones;
                                          fresh: a resource of its own for every pair.
                                          {"acquire": [...], "release": [...], "failed", "cpu"}
    first   urls, resource                a new client and its first acquire; {"ready", "granted"}
    users   users, resource, seconds, pairs
                                          that many threads or tasks, a lock each, back to back;
                                          {"acquire": [...], "failed", "cpu", "took", "users": [pairs of each]}
    contend resource, seconds, section    take turns on one lock with other processes;
                                          {"turns": [[asked, entered, left], ...], "tries", "split", "cpu"}
    queue   users, resource, seconds, section
                                          that many threads or tasks of one client take turns on one lock;
                                          {"turns": [[user, asked, entered, left], ...], "tries", "split"}
    leases  count, seconds                hold many leases that renew themselves (this library alone)

What a contender cannot do it answers with {"error": text}. The process ends with its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

__all__ = ["Failed", "Silent", "Worker"]


class Failed(Exception):
    """The contender said that it cannot do this, or ended; the message is one line."""


class Silent(Exception):
    """The contender did not answer in time; its process was ended."""


class Worker:
    """A running contender. A context manager."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._unread = b""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, do: str, *, timeout: float = 60.0, **details: Any) -> dict[str, Any]:
        """Put one question and wait for the answer. Raises Failed, Silent."""
        self.put(do, **details)
        return self.answer(timeout)

    def put(self, do: str, **details: Any) -> None:
        """Put a question; `answer` gives what it says."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why.
            self._process.stdin.write(json.dumps({"do": do, **details}).encode() + b"\n")

    def answer(self, timeout: float = 60.0) -> dict[str, Any]:
        """The answer to the oldest question that has none. Raises Failed, Silent."""
        line = self._line(time.monotonic() + timeout)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        chunks = [self._unread]
        while b"\n" not in chunks[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                self.kill()
                raise Silent(f"{self.name} did not answer in time")
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                raise Failed(f"{self.name} ended: {self._last_words()}")
            chunks.append(chunk)
        line, _, self._unread = b"".join(chunks).partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [
            line.strip()
            for line in self._errors.read().decode("utf-8", "replace").splitlines()
            if line.strip()
        ]
        errors = [line for line in lines if "error" in line.lower()]
        return (
            (errors or lines)[-1]
            if lines
            else f"exit status {self._process.returncode}, without a word"
        )

    def end(self, timeout: float = 5.0) -> float | None:
        """Close its stdin and wait until it is gone: seconds that took, None if it had to be
        killed."""
        assert self._process.stdin is not None
        began = time.monotonic()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
            return time.monotonic() - began
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
