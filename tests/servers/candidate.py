"""A candidate as a process of its own: says in lines what it does, and has one fault of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import redlock
import redlock.asyncio
from redlock.transport.clock import now


def say(*words: object) -> None:
    """One line, at once, and whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work_on(term: Any, seconds: float) -> None:
    """Look at nothing for so long."""
    until = now() + seconds
    while now() < until:
        time.sleep(0.01)


def thread(urls: list[str], way: str) -> None:
    """A candidate of the blocking API."""
    with redlock.Redlock(urls, ttl=1.0) as locks:
        hard_stop = "exit" if way.startswith("ignores") else None
        election = locks.election("scheduler", candidate=f"p{os.getpid()}", hard_stop=hard_stop)

        def work(term: redlock.Term) -> None:
            say("leads", term.fencing_token, term.valid_until)
            if way == "ignores-stall":
                term._mandate.progress_at = float("-inf")
            if way.startswith("ignores"):
                work_on(term, 60.0)
            while term.is_leader():
                time.sleep(0.005)
            say("ended", term.reason, now() < term.valid_until)

        def resign(signum: int, frame: object) -> None:
            say("asked", election.resign())

        signal.signal(signal.SIGTERM, resign)
        election.run(work)
        say("resigned", election.state)


async def task(urls: list[str], way: str) -> None:
    """A candidate of the asyncio API."""
    async with redlock.asyncio.Redlock(urls, ttl=1.0) as locks:
        hard_stop = "exit" if way.startswith("ignores") else None
        election = locks.election("scheduler", candidate=f"p{os.getpid()}", hard_stop=hard_stop)

        async def work(term: redlock.asyncio.Term) -> None:
            say("leads", term.fencing_token, term.valid_until)
            if way == "ignores-blocked":
                time.sleep(60.0)  # noqa: ASYNC251
            while way == "ignores-cancel":
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60.0)
            try:
                while term.is_leader():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            finally:
                say("ended", term.reason, now() < term.valid_until)

        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: asyncio.ensure_future(election.resign())
        )
        await election.run(work)
        say("resigned", election.state)


def main() -> None:
    """`candidate.py API WAY URL...`."""
    api, way, *urls = sys.argv[1:]
    threading.current_thread().name = way
    if api == "blocking":
        thread(urls, way)
    else:
        asyncio.run(task(urls, way))


if __name__ == "__main__":
    main()
