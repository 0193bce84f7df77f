"""A ledger of terms: every record of an election as one line of JSON, for whoever must show later
who led when.

    locks = Redlock(nodes, on_event=Ledger("terms.jsonl"))

Lines of several processes may go to one file: each is written by one call, at its end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redlock.core.events import Event, TermRecord

__all__ = ["Entry", "Ledger", "read"]


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line: *record*, the wall clock when it was written (seconds since the epoch), and the
    host and the process that wrote it.

    The instants in *record* are those of its host's lease clock; hosts are compared by *wall*.
    """

    record: TermRecord
    wall: float
    host: str
    pid: int


class Ledger:
    """An `on_event` that appends the records of terms to the file *path*; other events are
    nothing to it.

    Raises OSError for a file that cannot be opened. A record that cannot be written is logged, as
    any error of an observer, and keeps nobody from leading or stopping.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._host = socket.gethostname()

    def __call__(self, event: Event) -> None:
        """Append *event*, if it is of a term."""
        if not isinstance(event, TermRecord) or self._fd < 0:
            return
        line: dict[str, Any] = {
            "kind": type(event).__name__,
            "wall": time.clock_gettime(time.CLOCK_REALTIME),
            "host": self._host,
            "pid": os.getpid(),
            **dataclasses.asdict(event),
        }
        text = json.dumps(line, ensure_ascii=False, default=str)
        os.write(self._fd, f"{text}\n".encode())

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The entries of a ledger, in the order in which they were written.

    A last line that was cut short, by a full disk or a kill, is left out. Raises ValueError for any
    other line that is none of a ledger's.
    """
    kinds = {kind.__name__: kind for kind in TermRecord.__subclasses__()}
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                fields = json.loads(line)
                kind = kinds[fields.pop("kind")]
                wall, host, pid = (fields.pop(name) for name in ("wall", "host", "pid"))
                yield Entry(kind(**fields), wall, host, pid)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"line {number} of {path} is none of a ledger: {error}") from None
