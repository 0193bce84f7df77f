"""A client process: reads what to do, does it through the public API, and writes what happened,
line by line.

Workloads are written once, as coroutines over `Locks`. The blocking API stands behind the same
spelling: its methods block their thread and never suspend, so that a coroutine over it runs to its
end in one step.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from chaos.history import Called, Note, Record, Seen, to_json
from chaos.live.program import Held, Locks, Refusal, Task
from redlock.core.events import Event
from redlock.errors import (
    ConfigurationError,
    LeaseLost,
    LeaseReleased,
    LockContended,
    QuorumUnavailable,
)
from redlock.transport import clock

__all__ = [
    "OurLocks",
    "Session",
    "client",
    "drive",
    "emit",
    "main",
    "note",
    "outcome_of",
    "serve",
    "true_now",
]

T = TypeVar("T")
MakeLocks = Callable[[Task], Locks]

_LEAP = [0.0]
"""Seconds the lease clock of this process was put ahead of the true one, to play a suspend."""
_NAME = [""]
_write = threading.Lock()


def emit(record: Record) -> None:
    """Write one record for the campaign."""
    line = json.dumps(to_json(record), separators=(",", ":")).encode() + b"\n"
    with _write:
        os.write(1, line)


def true_now() -> float:
    """The true clock, also after `leap`."""
    return clock.now() - _LEAP[0]


def client() -> str:
    """Who we are."""
    return _NAME[0]


def note(kind: str, text: str = "") -> None:
    """Emit a `Note`."""
    emit(Note(true_now(), client(), kind, text))


def seen(event: Event) -> None:
    """Emit what the library told, with its instants on the true clock."""
    if _LEAP[0]:
        from dataclasses import fields, replace

        moved = {
            field.name: getattr(event, field.name) - _LEAP[0]
            for field in fields(event)
            if field.name in ("at", "sent_at", "valid_until", "until", "stop_at")
            and getattr(event, field.name) is not None
        }
        event = replace(event, **moved)
    emit(Seen(event.at, client(), event))


BOTH = (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)


def leap(seconds: float, clocks: tuple[int, ...] = BOTH) -> None:
    """Put the lease clock forward. With CLOCK_BOOTTIME alone among *clocks* it looks as a suspend
    does; with both, as a process that stood still."""
    real = time.clock_gettime
    _LEAP[0] += seconds

    def shifted(which: int) -> float:
        return real(which) + (seconds if which in clocks else 0.0)

    time.clock_gettime = shifted


def step_wall_clock(seconds: float) -> None:
    """Step the wall clock as this process reads it."""
    real, real_ns = time.clock_gettime, time.clock_gettime_ns

    def shifted(which: int) -> float:
        return real(which) + (seconds if which == time.CLOCK_REALTIME else 0.0)

    def shifted_ns(which: int) -> int:
        return real_ns(which) + (round(seconds * 1e9) if which == time.CLOCK_REALTIME else 0)

    time.clock_gettime, time.clock_gettime_ns = shifted, shifted_ns


def outcome_of(error: BaseException) -> str:
    """The outcome word of `Called` for an error of a call."""
    if isinstance(error, LockContended):
        return "contended"
    if isinstance(error, QuorumUnavailable):
        return "unavailable"
    if isinstance(error, LeaseLost | LeaseReleased):
        return "lost"
    return f"error: {type(error).__name__}: {error}"[:300]


class _OurLease:
    """A lease of either API."""

    def __init__(self, lease: Any) -> None:
        self.lease = lease
        self.token: int = lease.fencing_token

    def remaining(self) -> float:
        return float(self.lease.remaining())

    def is_held(self) -> bool:
        return bool(self.lease.is_held())

    async def extend(self) -> None:
        await _awaited(self.lease.extend())

    async def verify(self) -> None:
        await _awaited(self.lease.verify())

    async def release(self) -> bool:
        return bool(await _awaited(self.lease.release()))


async def _awaited(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value


class OurLocks:
    """`redlock.Redlock` or `redlock.asyncio.Redlock`, by the task's api."""

    def __init__(self, task: Task) -> None:
        # Here: a peer's process has another package of that name, and imports this module too.
        import redlock.asyncio

        self.blocking = task.api == "blocking"
        module: Any = redlock if self.blocking else redlock.asyncio
        self.real = module.Redlock(list(task.urls), on_event=seen, **task.options)

    async def acquire(
        self,
        resource: str,
        *,
        timeout: float | None,
        auto_extend: bool = False,
        max_hold: float | None = None,
    ) -> Held:
        lock = self.real.lock(resource, auto_extend=auto_extend, max_hold=max_hold)
        try:
            lease = await _awaited(lock.acquire(timeout=timeout))
        except (QuorumUnavailable, ConfigurationError) as error:
            raise Refusal(outcome_of(error)) from error
        if lease is None:
            raise Refusal("contended")
        return _OurLease(lease)

    async def sleep(self, seconds: float) -> None:
        if self.blocking:
            time.sleep(seconds)  # noqa: ASYNC251  # The blocking API's thread.
        else:
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        await _awaited(self.real.close())


class Orders(Protocol):
    """Where a puppet's orders come from."""

    async def next(self) -> dict[str, Any] | None:
        """The next order; None at the end."""


class Session:
    """One task being done, in a thread of its own. `order` and `end` are for the thread that
    reads the input."""

    def __init__(self, task: Task, make: MakeLocks) -> None:
        self.task = task
        self.random = random.Random(task.seed)
        self.ending = threading.Event()
        self._make = make
        self._orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="session", daemon=True)
        self._thread.start()

    def order(self, order: dict[str, Any]) -> None:
        """Hand over one order."""
        self._orders.put(order)

    def end(self) -> None:
        """Finish what is being done, and wait for it."""
        self.ending.set()
        self._orders.put(None)
        self._thread.join()

    def hear(self) -> dict[str, Any] | None:
        """The next order, waited for in this thread; None at the end."""
        return self._orders.get()

    async def next(self) -> dict[str, Any] | None:
        """The next order for a puppet; None at the end."""
        if self.task.api == "blocking":
            return self.hear()
        return await asyncio.to_thread(self.hear)

    def coordinator(self) -> Locks:
        """One more coordinator, for who has closed the first."""
        return self._make(self.task)

    def _work(self) -> None:
        try:
            if self.task.api == "blocking":
                drive(self._play())
            else:
                asyncio.run(self._play())
        except BaseException as error:  # The campaign must hear of it, whatever it was.
            import traceback

            note(
                "crashed",
                f"{type(error).__name__}:"
                f" {error}\n{''.join(traceback.format_exception(error))[-2000:]}",
            )

    async def _play(self) -> None:
        from chaos.live.workloads import WORKLOADS

        locks = self._make(self.task)
        try:
            note("begun", self.task.workload)
            await WORKLOADS[self.task.workload](self, locks)
        finally:
            await locks.close()

    # For workloads

    async def timed(
        self, call: str, resource: str, body: Coroutine[Any, Any, T], token: Callable[[T], int]
    ) -> T:
        """Await *body*, and report how it went."""
        began = true_now()
        try:
            value = await body
        except Refusal as refusal:
            self.report(call, resource, began, refusal.outcome)
            raise
        except asyncio.CancelledError:
            self.report(call, resource, began, "cancelled")
            raise
        except Exception as error:
            self.report(call, resource, began, outcome_of(error))
            raise
        self.report(call, resource, began, "granted" if call == "acquire" else "ok", token(value))
        return value

    def report(self, call: str, resource: str, began: float, outcome: str, token: int = 0) -> None:
        """Emit a `Called` for a call that began at *began*."""
        at = true_now()
        emit(Called(at, client(), resource, call, at - began, outcome, token))


def drive(body: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        body.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    body.close()
    raise RuntimeError("a workload for a blocking API awaited something that waits")


def serve(make: MakeLocks) -> None:
    """Be a client process: do what the standard input says until it ends."""
    session: Session | None = None
    note("ready")
    for line in sys.stdin:
        told = json.loads(line)
        match told["op"]:
            case "begin":
                task = Task.from_json(told["task"])
                _NAME[0] = task.client
                if task.plants:
                    from chaos.live.plants import plant

                    plant(task.plants)
                session = Session(task, make)
            case "do" if session is not None:
                session.order(told)
            case "step":
                step_wall_clock(told["seconds"])
                note("stepped", f"{told['seconds']:+g} s")
            case "end" if session is not None:
                session.end()
                session = None
                note("ended")


def main() -> None:
    """The client process of this library."""
    serve(OurLocks)


if __name__ == "__main__":
    # The module under its own name, so that workloads and programs share its state.
    from chaos.live import worker

    worker.main()
