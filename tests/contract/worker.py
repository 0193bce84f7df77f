"""A process of its own for the tests beside it: one that contends for a lock, and one that is
interrupted.

It speaks in lines of JSON on its standard output; what it is told comes as its arguments and on its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import redlock
import redlock.asyncio
from redlock.errors import LeaseLost, LeaseReleased, LockContended, QuorumUnavailable
from redlock.observe import LeaseGranted, LeaseLapsed, LeaseReleasing, LeaseRenewed
from redlock.transport.clock import now

TTL = 1.0
USERS = 2
"""Threads or tasks of one contending process."""
PAUSE = 0.05
"""Seconds between two uses, at most: whoever asks again at once is always faster than those who
wait."""


PATIENCE = 10.0


def say(**what: Any) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Grants:
    """An `on_event` that notes when each grant began and when it could not be relied on any
    more."""

    def __init__(self) -> None:
        self.by_owner: dict[str, dict[str, Any]] = {}
        self.unavailable = self.contended = self.lost = 0

    def __call__(self, record: Any) -> None:
        match record:
            case LeaseGranted():
                self.by_owner[record.owner] = {
                    "token": record.fencing_token,
                    "from": record.at,
                    "until": record.valid_until,
                }
            case LeaseRenewed():
                self.by_owner[record.owner]["until"] = record.valid_until
            case LeaseReleasing() | LeaseLapsed():
                grant = self.by_owner[record.owner]
                grant["until"] = min(grant["until"], record.at)

    def tell(self) -> None:
        """All of it, at the end."""
        say(
            grants=list(self.by_owner.values()),
            unavailable=self.unavailable,
            contended=self.contended,
            lost=self.lost,
        )


def told_end() -> float:
    """The instant on the lease clock at which to end, once this process has begun."""
    say(ready=True)
    return float(sys.stdin.readline())


def contend(resource: str, urls: Sequence[str]) -> None:
    """Threads that take *resource*, hold it for a moment, and give it back, until the end that
    they are told."""
    grants, end_at = Grants(), told_end()

    def use(locks: redlock.Redlock, chance: random.Random) -> None:
        while now() < end_at:
            try:
                with locks.lock(resource, timeout=1.0, auto_extend=chance.random() < 0.3) as lease:
                    time.sleep(0.5 if chance.random() < 0.03 else chance.random() * 0.01)
                    if chance.random() < 0.3:
                        lease.extend()
            except LockContended:
                grants.contended += 1
            except QuorumUnavailable:
                grants.unavailable += 1
            except LeaseLost:
                grants.lost += 1
            time.sleep(chance.random() * PAUSE)

    with redlock.Redlock(urls, ttl=TTL, on_event=grants) as locks:
        threads = [
            threading.Thread(target=use, args=(locks, random.Random(seed))) for seed in range(USERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    grants.tell()


async def contend_async(resource: str, urls: Sequence[str]) -> None:
    """The same with tasks."""
    grants, end_at = Grants(), told_end()  # Nothing else runs on the loop yet.

    async def use(locks: redlock.asyncio.Redlock, chance: random.Random) -> None:
        while now() < end_at:
            try:
                async with locks.lock(
                    resource, timeout=1.0, auto_extend=chance.random() < 0.3
                ) as lease:
                    await asyncio.sleep(0.5 if chance.random() < 0.03 else chance.random() * 0.01)
                    if chance.random() < 0.3:
                        await lease.extend()
            except LockContended:
                grants.contended += 1
            except QuorumUnavailable:
                grants.unavailable += 1
            except LeaseLost:
                grants.lost += 1
            await asyncio.sleep(chance.random() * PAUSE)

    async with redlock.asyncio.Redlock(urls, ttl=TTL, on_event=grants) as locks:
        await asyncio.gather(*[use(locks, random.Random(seed)) for seed in range(USERS)])
    grants.tell()


def interrupted(urls: Sequence[str]) -> None:
    """Take and give back for ever; after every Ctrl-C say so, and go on when told to.

    What the caller has in hand is his `Lock`: if the interrupt came before the release could begin,
    the lock still has its lease, and gives it back when asked.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have had it ignored.
    rounds = 0
    locks = redlock.Redlock(urls, ttl=30.0)
    while True:
        rounds += 1
        entered, by_hand = locks.lock("entered", timeout=10.0), locks.lock("by hand", timeout=10.0)
        renewed = locks.lock("renewed", timeout=10.0, auto_extend=True)
        try:
            say(ready=rounds)
            while True:
                with entered:
                    pass
                by_hand.acquire()
                by_hand.release()
                with renewed, contextlib.suppress(LockContended), locks.lock("renewed", timeout=0):
                    raise AssertionError("two holders")
        except KeyboardInterrupt:
            pass
        for lock in (entered, by_hand, renewed):
            with contextlib.suppress(LeaseReleased):
                lock.release()
        del entered, by_hand, renewed, lock
        gc.collect()  # A lease that nobody knows of would warn now.
        say(interrupted=rounds)
        match sys.stdin.readline().strip():
            case "end":
                break
            case "anew":
                locks.close()
                locks = redlock.Redlock(urls, ttl=30.0)
    locks.close()
    give_up_at = now() + PATIENCE
    while (
        left := [thread.name for thread in threading.enumerate() if at_work(thread)]
    ) and now() < give_up_at:
        # A thread that was interrupted while it was begun ends by itself, with nobody waiting for
        # it.
        time.sleep(0.01)
    say(threads=left)


def at_work(thread: threading.Thread) -> bool:
    """Whether *thread* is one that runs code of ours.

    A Ctrl-C within `Thread.start` may lose the lock of the event by which a new thread tells that
    it runs: such a thread stands in `threading` for ever, and never gets to us.
    """
    if thread is threading.main_thread():
        return False
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    return frame is not None


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["blocking", resource, *urls]:
            contend(resource, urls)
        case ["asyncio", resource, *urls]:
            asyncio.run(contend_async(resource, urls))
        case ["interrupted", *urls]:
            interrupted(urls)
