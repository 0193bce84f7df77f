"""Other libraries' locks as real clients of the same servers, for single calls.

Each lives in an environment of its own (`chaos.peers.environments`) and in a process of its own,
`peer_process.py`, which reads one JSON object per line and answers with one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.peers.environments import PeerMissing, environment
from tests.peer_process import ANSWER_TIMEOUT, be_present

__all__ = ["PEERS", "Peer", "PeerMissing", "be_present", "environment"]

PEERS = ("redlock-py", "pottery")
"""Those whose single calls the tests use."""
_KEY_PREFIXES = {"redlock-py": "", "pottery": "redlock:"}
_PROCESS = Path(__file__).with_name("peer_process.py")


class Peer:
    """A process with one lock of another library, on the servers of *urls*. A context manager."""

    def __init__(self, name: str, python: Path, urls: Sequence[str]) -> None:
        self.name = name
        # -I: neither this folder nor the repository, whose `redlock` would hide the peer's, is on its path.
        self._process = subprocess.Popen(
            [str(python), "-I", str(_PROCESS), name, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def key(self, resource: str) -> str:
        """The key under which this library locks *resource*."""
        return _KEY_PREFIXES[self.name] + resource

    def take(self, resource: str, ttl: float = 10.0) -> bool:
        """Try once to lock *resource*."""
        return bool(self._ask(do="take", resource=resource, ttl=ttl))

    def free(self) -> None:
        """Release the lock that was taken last, whether or not it still is ours."""
        self._ask(do="free")

    def value(self) -> str:
        """What the library wrote, or would write, as the lock's value."""
        return str(self._ask(do="value"))

    def start_contending(self, resource: str, rounds: int, witness: Path) -> None:
        """Take and release *resource* *rounds* times, showing presence at *witness*; `contended`
        waits for the end."""
        self._send(do="contend", resource=resource, rounds=rounds, witness=str(witness))

    def contended(self) -> dict[str, int]:
        """How many rounds were had, and in how many of them somebody else was there too."""
        return dict(self._answer())

    def _ask(self, **question: Any) -> Any:
        self._send(**question)
        return self._answer()

    def _send(self, **question: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        guard = threading.Timer(ANSWER_TIMEOUT, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended, or was silent for {ANSWER_TIMEOUT:g} s")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
