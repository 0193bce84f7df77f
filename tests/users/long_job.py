"""A job of hours that must notice when it is not the only one any more."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from redlock import Lease, LeaseLost, Redlock


class Job:
    """Stops at the next batch after its lease was lost."""

    def __init__(self, locks: Redlock) -> None:
        self.locks = locks
        self.stopped = threading.Event()

    def lost(self, lease: Lease) -> None:
        self.stopped.set()

    def batches(self, lease: Lease, batches: Iterable[list[int]]) -> Iterator[int]:
        for batch in batches:
            lease.ensure_held()
            yield sum(batch) + lease.fencing_token

    def run(self, batches: Iterable[list[int]]) -> int | None:
        lock = self.locks.lock("reindex", auto_extend=True, max_hold=7200.0, on_lost=self.lost)
        lease = lock.acquire(timeout=60.0)
        if lease is None:
            return None
        try:
            return sum(self.batches(lease, batches))
        except LeaseLost:
            return None
        finally:
            lease.release()
