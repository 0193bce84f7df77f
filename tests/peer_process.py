"""What runs in a peer's own environment: one lock of another library, asked by lines of JSON.

Nothing but the standard library is imported at the top: `redlock` is somebody else's package there.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT = 30.0
"""Seconds after which a peer that is silent is given up."""


class _RedlockPy:
    def __init__(self, urls: Sequence[str]) -> None:
        self._factory = importlib.import_module("redlock").Redlock(
            list(urls), retry_count=1, retry_delay=0.001
        )
        self._lock: Any = None

    def take(self, resource: str, ttl: float) -> bool:
        lock = self._factory.lock(resource, round(ttl * 1000))
        self._lock = lock or self._lock
        return bool(lock)

    def free(self) -> None:
        self._factory.unlock(self._lock)

    def value(self) -> str:
        return str(self._lock.key.decode())


class _Pottery:
    def __init__(self, urls: Sequence[str]) -> None:
        self._masters = {importlib.import_module("redis").Redis.from_url(url) for url in urls}
        self._pottery = importlib.import_module("pottery")
        self._lock: Any = None

    def take(self, resource: str, ttl: float) -> bool:
        lock = self._pottery.Redlock(key=resource, masters=self._masters, auto_release_time=ttl)
        taken = bool(lock.acquire(blocking=False))
        self._lock = lock if taken else self._lock
        return taken

    def free(self) -> None:
        with contextlib.suppress(self._pottery.ReleaseUnlockedLock):
            self._lock.release()

    def value(self) -> str:
        return str(self._lock._uuid)


def be_present(witness: Path, seconds: float) -> bool:
    """Be at *witness* for a moment; False if somebody else is there. What a lock is to prevent."""
    try:
        witness.touch(exist_ok=False)
    except FileExistsError:
        return False
    time.sleep(seconds)
    witness.unlink()
    return True


def _contend(library: Any, resource: str, rounds: int, witness: str) -> dict[str, int]:
    had = clashes = 0
    give_up_at = time.monotonic() + ANSWER_TIMEOUT / 2
    while had < rounds and time.monotonic() < give_up_at:
        if library.take(resource, 10.0):
            had += 1
            clashes += not be_present(Path(witness), 0.002)
            library.free()
        time.sleep(random.uniform(0.001, 0.02))
    return {"rounds": had, "clashes": clashes}


def _serve(name: str, urls: Sequence[str]) -> None:
    library = {"redlock-py": _RedlockPy, "pottery": _Pottery}[name](urls)
    for line in sys.stdin:
        question = json.loads(line)
        do = question.pop("do")
        answer = (
            _contend(library, **question) if do == "contend" else getattr(library, do)(**question)
        )
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
