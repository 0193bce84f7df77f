"""Shortages that a process brings upon itself, by limits that the kernel enforces, until it ends
them.

Threads: RLIMIT_AS leaves no room for the stack of another one. Descriptors: RLIMIT_NOFILE, and
every number below it taken.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Shortage", "descriptors", "short_of"]

STACK = 96 << 20
"""Larger than what libc keeps of the stacks of threads that ended, so that each thread needs
room of its own."""
HEADROOM = 64 << 20
"""For everything that is no stack."""


class Shortage:
    """What this process is short of; nothing at first."""

    def __init__(self) -> None:
        self._limits: dict[int, tuple[int, int]] = {}
        self._taken: list[int] = []
        self._stack: int | None = None

    def of_threads(self) -> None:
        """No thread can be had from now on."""
        if self._stack is None:
            self._stack = threading.stack_size(STACK)
        size = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        self._limit(resource.RLIMIT_AS, size + HEADROOM)

    def of_descriptors(self) -> None:
        """No descriptor can be had; again: nor one of those that became free meanwhile."""
        if resource.RLIMIT_NOFILE not in self._limits:
            self._limit(resource.RLIMIT_NOFILE, descriptors() + 8)
        with contextlib.suppress(OSError):
            while True:
                self._taken.append(os.dup(2))

    def end(self) -> None:
        """There is enough of everything."""
        for kind, limits in self._limits.items():
            resource.setrlimit(kind, limits)
        self._limits.clear()
        for fd in self._taken:
            os.close(fd)
        self._taken.clear()
        if self._stack is not None:
            threading.stack_size(self._stack)
            self._stack = None

    def _limit(self, kind: int, soft: int) -> None:
        self._limits[kind] = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, self._limits[kind][1]))


@contextlib.contextmanager
def short_of(*what: str) -> Iterator[Shortage]:
    """Short of "threads", "descriptors" or both inside the block."""
    shortage = Shortage()
    try:
        for each in what:
            getattr(shortage, f"of_{each}")()
        yield shortage
    finally:
        shortage.end()


def descriptors() -> int:
    """How many are open."""
    return len(list(Path("/proc/self/fd").iterdir()))
