"""The worker processes, seen from their parent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_END_TIMEOUT = 5.0


class Worker:
    """A worker process, seen from the parent."""

    def __init__(self, name: str, kind: str, path: Path, urls: Sequence[str]) -> None:
        self.name = name
        self.kind = kind
        self._partial = b""
        words = [sys.executable, "-P", "-m", "redlock.demo.worker", str(path), kind, *urls]
        # The parent's own search path, and no more: a file in the current folder must not shadow a
        # module.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        }
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
