"""How fast a lock could go from hand to hand, if nobody ever waited for anything but the wire: the
section as long as it really takes, the way of a release to the first node that tells of it, and an
acquire of a lock that is free. Measured in the run that is compared with it, without contention.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import percentile
from benchmarks.worker import Worker
from redlock.embedded import Nodes

__all__ = ["Limit", "limit_of"]

STAND_IN = "limit"
"""Name of a coordinator that is none: it waits for wake-ups, and never asks for the lock."""
_TICKET = 1 << 52
_LEASE_MS = 900
_HOLD = 0.01
"""Seconds that are long enough to put somebody into the queue meanwhile."""
_BELONGS = 0.2
"""Seconds after a release in which a wake-up is of that one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """In seconds, each the median of what was measured without contention."""

    section: float
    wake: float
    acquire: float

    @property
    def rate(self) -> float:
        """Hand-offs per second."""
        return 1.0 / (self.section + self.wake + self.acquire)


def limit_of(
    worker: Worker,
    nodes: Nodes,
    urls: Sequence[str],
    resource: str,
    section: float,
    *,
    seconds: float = 1.0,
) -> Limit:
    """The limit for the contender of *worker*, which reaches *nodes* by *urls*; twice *seconds* are
    spent on it."""
    # Another lock: the last try of a measurement is cut off, and whoever finds a lock taken looks
    # at it before trying for a second.
    worker.ask("contend", resource=f"{resource}-warm", seconds=seconds / 5, section=section)
    said = worker.ask("contend", resource=resource, seconds=seconds, section=section)
    turns = said["turns"]
    heard: list[int] = []
    with _stand_in(nodes, urls, f"{resource}-wake", heard):
        woken = worker.ask("contend", resource=f"{resource}-wake", seconds=seconds, section=_HOLD)
    lefts = [left for _, _, left in woken["turns"]]
    wakes = []
    # One that was put into the queue too late hears of the next release, which is not meant.
    for left, following in zip(lefts, [*lefts[1:], float("inf")], strict=True):
        first = min((at for at in heard if left < at < following), default=None)
        if first is not None and first - left < _BELONGS * 1e9:
            wakes.append((first - left) / 1e9)
    return Limit(
        percentile([(left - entered) / 1e9 for _, entered, left in turns], 50),
        percentile(wakes, 50),
        percentile([(entered - asked) / 1e9 for asked, entered, _ in turns], 50),
    )


@contextlib.contextmanager
def _stand_in(nodes: Nodes, urls: Sequence[str], resource: str, heard: list[int]) -> Iterator[None]:
    """Somebody who waits for *resource* on all nodes whenever it is held, and hears when it is
    free: the instants go to *heard*."""
    ending = threading.Event()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in nodes]
        ears = [stack.enter_context(_subscribed(url)) for url in urls]
        threads = [
            threading.Thread(target=_queue, args=(clients, f"redlock:{resource}", ending)),
            threading.Thread(target=_listen, args=(ears, heard, ending)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()
            for client in clients:
                client.delete(f"redlock:{resource}:lock-queue")


def _queue(clients: Sequence[Any], lock_key: str, ending: threading.Event) -> None:
    held = None
    while not ending.wait(0.001):
        holder = clients[0].get(lock_key)
        if holder == held:
            continue
        held = holder
        if held is None:
            # Heard: who comes next is not to find anybody in front.
            for client in clients:
                client.delete(f"{lock_key}:lock-queue")
            continue
        for client in clients:
            seconds, micros = client.time()
            over = seconds * 1000 + micros // 1000 + _LEASE_MS
            places = {f"{STAND_IN}.1": _TICKET, f"!{STAND_IN}.1": -over}
            with client.pipeline(transaction=True) as pipe:
                pipe.zadd(f"{lock_key}:lock-queue", places)
                pipe.pexpire(f"{lock_key}:lock-queue", _LEASE_MS)
                pipe.execute()


def _listen(ears: Sequence[socket.socket], heard: list[int], ending: threading.Event) -> None:
    while not ending.is_set():
        ready, _, _ = select.select(ears, [], [], 0.01)
        at = time.perf_counter_ns()
        heard.extend(at for ear in ready if b"message" in ear.recv(1 << 16))


@contextlib.contextmanager
def _subscribed(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5.0) as ear:
        ear.sendall(f"SUBSCRIBE redlock:wake:{STAND_IN}\r\n".encode())
        ear.recv(1 << 16)
        yield ear
