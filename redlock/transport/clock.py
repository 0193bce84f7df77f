"""The lease clock, and the randomness the core may not make itself.

The lease clock runs through suspend: a laptop that slept past its lease must not believe in it on
waking (F10). On Linux that is CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC read through clock_gettime
(Python's own `time.monotonic` stops there).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

__all__ = ["Entropy", "now", "suspended_for"]

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_AWAKE = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
"""A clock that stands still while the machine is suspended."""
_POOL = 4096


def now() -> float:
    """Seconds on the lease clock."""
    return time.clock_gettime(_CLOCK)


def suspended_for() -> float:
    """Seconds for which this machine has been suspended since it started; it only ever grows."""
    return time.clock_gettime(_CLOCK) - time.clock_gettime(_AWAKE)


class Entropy:
    """The `Source` of the drivers: operating-system randomness, fetched in pages because a
    system call per owner costs as much as a tenth of an acquire. `reset` after a fork, or parent
    and child would draw the same owners."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the page."""
        self._chunks: Iterator[bytes] = iter(())

    def _take(self) -> bytes:
        # next() on an iterator is atomic, so no two threads ever get the same sixteen bytes.
        chunk = next(self._chunks, None)
        while chunk is None:
            page = os.urandom(_POOL)
            self._chunks = iter([page[start : start + 16] for start in range(0, _POOL, 16)])
            chunk = next(self._chunks, None)
        return chunk

    def owner(self) -> str:
        """128 random bits in hexadecimal."""
        return self._take().hex()

    def below(self, limit: int) -> int:
        """A random integer in [0, limit); the bias of at most limit / 2**128 does not matter to
        anybody here."""
        return int.from_bytes(self._take(), "little") % limit

    def wall_us(self) -> int:
        """Microseconds since the epoch, for proposing tokens alone."""
        return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
