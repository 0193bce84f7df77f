"""A worker process: it takes the lock, counts, and tells its parent on stdout what it hears from
the library.

    python -m redlock.demo.worker LEDGER blocking|asyncio URL...

Nothing of the package imports it, so that it can be run by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import redlock
import redlock.asyncio
from redlock.demo.ledger import Ledger, StaleToken
from redlock.demo.scene import RESOURCE, TTL
from redlock.errors import AcquireError, LeaseLost
from redlock.observe import (
    Event,
    LeaseGranted,
    LeaseLapsed,
    LeaseReleasing,
    NodeAdmitted,
    NodeDisconnected,
    NodeQuarantined,
)
from redlock.transport.clock import now

WORK = (0.02, 0.08)
"""Seconds a critical section takes."""
REST = (0.01, 0.06)
"""Seconds a worker does without the lock: few, so that it is wanted nearly always."""
TRY = 5.0
"""Seconds a worker waits for the lock before it says so and tries again."""


def main(path: str, kind: str, *urls: str) -> None:
    """What a worker process does: wait for the start, then work until stdin ends."""
    ends = threading.Event()
    ledger = Ledger(Path(path))
    _tell("ready")
    if not sys.stdin.readline():
        return
    threading.Thread(target=_await_end, args=(ends,), daemon=True).start()
    if kind == "asyncio":
        asyncio.run(_work_async(urls, ledger, ends))
    else:
        _work(urls, ledger, ends)


def _await_end(ends: threading.Event) -> None:
    sys.stdin.read()  # It ends when the parent says so, or is gone.
    ends.set()


def _work(urls: Sequence[str], ledger: Ledger, ends: threading.Event) -> None:
    with redlock.Redlock(urls, ttl=TTL, on_event=_tell_event) as locks:
        while not ends.wait(random.uniform(*REST)):
            with _section(), locks.lock(RESOURCE, timeout=TRY) as lease:
                counter = ledger.open(lease.fencing_token)
                ends.wait(random.uniform(*WORK))
                lease.ensure_held()
                ledger.write(counter + 1, lease.fencing_token)
                _tell("wrote", token=lease.fencing_token)


async def _work_async(urls: Sequence[str], ledger: Ledger, ends: threading.Event) -> None:
    async with redlock.asyncio.Redlock(urls, ttl=TTL, on_event=_tell_event) as locks:
        while not ends.is_set():
            with _section():
                async with locks.lock(RESOURCE, timeout=TRY) as lease:
                    counter = ledger.open(lease.fencing_token)
                    await asyncio.sleep(random.uniform(*WORK))
                    lease.ensure_held()
                    ledger.write(counter + 1, lease.fencing_token)
                    _tell("wrote", token=lease.fencing_token)
            await asyncio.sleep(random.uniform(*REST))


@contextlib.contextmanager
def _section() -> Iterator[None]:
    _tell("asked")
    try:
        yield
    except (AcquireError, LeaseLost, StaleToken) as error:
        _tell("failed", error=type(error).__name__, detail=str(error))


def _tell_event(event: Event) -> None:
    match event:
        case LeaseGranted(at, _, _, token, sent_at, valid_until):
            _tell("granted", at=at, token=token, sent_at=sent_at, valid_until=valid_until)
        case LeaseReleasing(at, _, _, token):
            _tell("released", at=at, token=token)
        case LeaseLapsed(at, _, _, token):
            _tell("lost", at=at, token=token)
        case NodeAdmitted(at, node):
            _tell("admitted", at=at, node=node)
        case NodeQuarantined(at, node, _, until):
            _tell("quarantined", at=at, node=node, until=until)
        case NodeDisconnected(at, node, reason):
            _tell("disconnected", at=at, node=node, reason=reason)


def _tell(kind: str, **fields: object) -> None:
    """A line for the parent, in one write: callbacks come from several threads."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"at": now(), **fields, "kind": kind}).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
