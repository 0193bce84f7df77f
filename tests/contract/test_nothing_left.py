"""Nothing is left behind: no timeout, cancel, Ctrl-C or exception, wherever it strikes, leaves a
lock that nobody knows of.

What is looked for on the nodes is every key but their marker and the fences. The ttl is so long
that nothing vanishes by expiring.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from redlock.errors import LeaseReleased, LockContended, QuorumUnavailable
from redlock.observe import LeaseGranted, LeaseReleasing, TryFailed, TryStarted
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, Api, Servers, paused, until

TTL = 30.0
INTERRUPTS = 90
AGAIN = 5.0
"""Seconds after which whoever pressed Ctrl-C in vain presses it again."""


class Torn(BaseException):
    """What nobody catches by accident."""


async def test_a_timeout_while_contended_leaves_nothing(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Neither beside the holder, on nodes that it does not hold, nor after it."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        holder = await locks.lock("orders").acquire()
        for client in servers.clients[3:]:
            # So that a try is granted on these two and must give them back.
            client.delete("redlock:orders")
        for timeout in (0, 0.05, 0.2):
            assert await locks.lock("orders").acquire(timeout=timeout) is None
            mine = f"{holder.owner}:{holder.fencing_token}"
            assert await until(
                api, lambda mine=mine: servers.holders("orders") == [mine] * 3 + [None] * 2
            )
        await holder.release()
        assert await until(api, lambda: not servers.lock_keys())


@pytest.mark.parametrize(
    "kind", [TryStarted, LeaseGranted, TryFailed, LeaseReleasing], ids=lambda kind: kind.__name__
)
async def test_an_exception_in_the_middle_leaves_nothing(
    api: Api, nodes: Nodes, servers: Servers, kind: type
) -> None:
    """Thrown by `on_event` out of the very middle of an acquire or a release, and nothing that
    `Exception` covers."""

    def tear(record: Any) -> None:
        if isinstance(record, kind):
            raise Torn

    async with api.redlock(nodes.urls, ttl=TTL) as others:
        locks = api.redlock(nodes.urls, ttl=TTL, on_event=tear)
        holder = await others.lock("orders").acquire() if kind is TryFailed else None
        with pytest.raises(Torn):
            async with locks.lock("orders", timeout=0):
                assert kind is LeaseReleasing
        if holder is not None:
            await holder.release()
        assert await until(api, lambda: not servers.lock_keys())
        await locks.close()


async def test_a_generator_that_is_closed_leaves_nothing(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """GeneratorExit inside the block is an exception like any other."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:

        async def stream() -> AsyncGenerator[int, None]:
            async with locks.lock("orders") as lease:
                while True:
                    yield lease.fencing_token

        tokens = stream()
        assert await anext(tokens) > 0
        assert servers.lock_keys()
        await tokens.aclose()
        assert await until(api, lambda: not servers.lock_keys())


# A cancel at every step of the event loop


class Strike:
    """Cancels a task before the *step*-th callback of the loop since it was made; `struck` tells
    whether it got so far."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.struck = False
        self.task: asyncio.Task[Any] | None = None

    @contextlib.contextmanager
    def at(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strike]:
        seen = 0
        run = asyncio.Handle._run

        def counted(handle: asyncio.Handle) -> None:
            nonlocal seen
            seen += 1
            if seen == self.step and self.task is not None and not self.task.done():
                self.struck = self.task.cancel()
            run(handle)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", counted)
            yield self


Operation = Callable[[redlock.asyncio.Redlock, redlock.asyncio.Lock], Awaitable[object]]


async def entered(locks: redlock.asyncio.Redlock, lock: redlock.asyncio.Lock) -> None:
    """A whole block."""
    async with lock:
        await asyncio.sleep(0)


async def renewed(locks: redlock.asyncio.Redlock, lock: redlock.asyncio.Lock) -> None:
    """A block whose lease is extended, verified and watched."""
    async with locks.lock("orders", auto_extend=True, timeout=10.0) as lease:
        await lease.extend()
        await lease.verify()


OPERATIONS: dict[str, Operation] = {
    "acquire": lambda locks, lock: lock.acquire(timeout=10.0),
    "one try": lambda locks, lock: lock.acquire(blocking=False),
    "release": lambda locks, lock: lock.release(),
    "with": entered,
    "renewed": renewed,
    "close": lambda locks, lock: locks.close(),
}


async def cancelled_at(
    step: int, locks: redlock.asyncio.Redlock, operation: str, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Cancel *operation* at *step*, and give back what it gave its caller; False: it had ended
    by then."""
    lock = locks.lock("orders")
    began = False

    async def operate() -> None:
        nonlocal began
        began = True
        await OPERATIONS[operation](locks, lock)

    if operation in ("release", "close"):
        assert await lock.acquire(timeout=10.0) is not None
    with Strike(step).at(monkeypatch) as strike:
        strike.task = asyncio.create_task(operate())
        with contextlib.suppress(asyncio.CancelledError):
            await strike.task
    if operation == "close":
        await locks.close()
    elif not began or not strike.task.cancelled():
        # It did not even begin, or had ended: then its caller has the lease.
        with contextlib.suppress(LeaseReleased):
            await lock.release()
    return strike.struck


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancel_at_every_step_leaves_nothing(
    nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Each callback of the loop during the operation is preceded by a cancel once, and the lock
    is free at once after each."""
    locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL)
    async with locks.lock("orders"):
        pass
    step = 0
    struck = True
    while struck:
        step += 1
        struck = await cancelled_at(step, locks, operation, monkeypatch)
        assert await until(ASYNCIO, lambda: not servers.lock_keys()), (
            f"after a cancel at step {step}"
        )
        if operation == "close":
            locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL)
        async with locks.lock("orders", timeout=0):
            pass
    assert step > 3
    await locks.close()


@pytest.mark.parametrize("operation", ["acquire", "with"])
async def test_a_cancel_at_every_step_of_the_first_use_leaves_nothing(
    nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """While the nodes are dialled, admitted and asked for the first time."""
    step = 0
    struck = True
    while struck:
        step += 1
        async with redlock.asyncio.Redlock(nodes.urls, ttl=TTL) as locks:
            struck = await cancelled_at(step, locks, operation, monkeypatch)
            assert await until(ASYNCIO, lambda: not servers.lock_keys()), (
                f"after a cancel at step {step}"
            )
    assert step > 20


async def test_a_cancel_at_every_step_of_a_wait_leaves_nothing(
    nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one who waits for a holder: what the holder has stays, and nothing joins it."""
    async with (
        redlock.asyncio.Redlock(nodes.urls, ttl=TTL) as locks,
        redlock.asyncio.Redlock(nodes.urls, ttl=TTL, holder="") as others,
    ):
        lease = await others.lock("orders").acquire()
        assert lease is not None
        mine = f"{lease.owner}:{lease.fencing_token}"
        for client in servers.clients[3:]:
            client.delete("redlock:orders")
        async with locks.lock("warm"):
            pass
        for step in range(1, 60):
            lock = locks.lock("orders")
            with Strike(step).at(monkeypatch) as strike:
                strike.task = asyncio.ensure_future(lock.acquire(timeout=0.05))
                # On a busy machine no node may have answered in that time.
                with contextlib.suppress(asyncio.CancelledError, QuorumUnavailable):
                    assert await strike.task is None
            assert await until(
                ASYNCIO, lambda: servers.holders("orders") == [mine] * 3 + [None] * 2
            ), f"at step {step}"
            if not strike.struck:
                break
        await lease.release()


@pytest.mark.parametrize("operation", ["acquire", "release", "with"])
async def test_a_cancel_beside_a_stopped_node_leaves_nothing(
    nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """It swallowed the requests and executes them on waking: the release behind its acquire."""
    async with redlock.asyncio.Redlock(nodes.urls, ttl=TTL) as locks:
        async with locks.lock("orders"):
            pass
        step = 0
        struck = True
        while struck:
            step += 1
            with paused([nodes[step % 5]]):
                struck = await cancelled_at(step, locks, operation, monkeypatch)
            assert await until(ASYNCIO, lambda: not servers.lock_keys()), (
                f"after a cancel at step {step}"
            )
        assert step > 3


async def test_a_coroutine_that_is_closed_leaves_nothing(nodes: Nodes, servers: Servers) -> None:
    """GeneratorExit at the await of an acquire, before and after its grant."""
    async with redlock.asyncio.Redlock(nodes.urls, ttl=TTL) as locks:
        async with locks.lock("orders"):
            pass
        for turns in range(12):
            waiting = locks.lock("orders").acquire(timeout=10.0)
            waiting.send(None)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.close()
            assert await until(ASYNCIO, lambda: not servers.lock_keys())
        async with locks.lock("orders", timeout=0):
            pass


# Ctrl-C at every point where the interpreter looks for one


class CtrlC:
    """Raises KeyboardInterrupt at the *point*-th place where CPython looks for signals: entering a
    function, after a C call.

    Not on resuming a generator: CPython does not look there while the generator delegates, and a
    profiler cannot tell. Not within `threading`: its conditions lose their locks by it, and a new
    thread is waited for with one.
    """

    def __init__(self, point: int) -> None:
        self.point = point
        self.seen = 0
        self.struck = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            if frame.f_code.co_flags & inspect.CO_GENERATOR:
                return
        elif event != "c_return":
            return
        caller: FrameType | None = frame
        while caller is not None:
            # In __del__, and in the callback of a weak set (`_remove`), it would only be printed.
            if (
                caller.f_code.co_name in ("__del__", "_remove")
                or caller.f_code.co_filename == threading.__file__
            ):
                return
            caller = caller.f_back
        self.seen += 1
        if self.seen == self.point:
            sys.setprofile(None)
            self.struck = (
                f"{event} in {frame.f_code.co_qualname} at"
                f" {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            )
            raise KeyboardInterrupt

    def during(self, operation: Callable[..., None], *arguments: Any) -> None:
        """Run *operation*, and catch what struck it."""
        gc.disable()
        try:
            sys.setprofile(self)
            operation(*arguments)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
            gc.enable()


def with_block(locks: redlock.Redlock, lock: redlock.Lock) -> None:
    with lock:
        pass


def by_hand(locks: redlock.Redlock, lock: redlock.Lock) -> None:
    lock.acquire()
    lock.release()


def contended(locks: redlock.Redlock, lock: redlock.Lock) -> None:
    # On a busy machine ten milliseconds may be too short to hear a majority.
    with (
        lock,
        contextlib.suppress(LockContended, QuorumUnavailable),
        locks.lock("orders", timeout=0.01),
    ):
        pytest.fail("two holders")


def renewing(locks: redlock.Redlock, lock: redlock.Lock) -> None:
    with lock as lease:
        lease.extend()
        lease.verify()


# An interrupt may strike where a socket is made or closed; the collector ends that, and says so.
finished_by_the_collector = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@finished_by_the_collector
@pytest.mark.parametrize(
    ("operation", "stride"),
    [(with_block, 1), (by_hand, 1), (contended, 5), (renewing, 3)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ctrl_c_at_every_point_leaves_nothing(
    nodes: Nodes,
    servers: Servers,
    operation: Callable[[redlock.Redlock, redlock.Lock], None],
    stride: int,
) -> None:
    """The lock is given back, or, where the release had not begun, the `Lock` still has it; and
    the coordinator works on."""
    with redlock.Redlock(nodes.urls, ttl=TTL, retry_delay=0.01) as locks:
        with locks.lock("orders"):
            pass
        point = 1 - stride
        while True:
            point += stride
            lock = locks.lock("orders", timeout=10.0, auto_extend=operation is renewing)
            ctrl_c = CtrlC(point)
            ctrl_c.during(operation, locks, lock)
            with contextlib.suppress(LeaseReleased):
                lock.release()
            give_up_at = now() + 5.0
            while servers.lock_keys():
                assert now() < give_up_at, (
                    f"{servers.lock_keys()} left by Ctrl-C at {ctrl_c.struck}"
                )
            with locks.lock("orders", timeout=10.0):
                pass
            if not ctrl_c.struck:
                break
        assert point > 200
    gc.collect()


@finished_by_the_collector
def test_ctrl_c_while_closing_leaves_the_rest_to_the_next_close(
    nodes: Nodes, servers: Servers
) -> None:
    """`close` that was interrupted can be called again, and gives back what the first one did
    not."""
    point = 1
    while True:
        locks = redlock.Redlock(nodes.urls, ttl=TTL)
        leases = [locks.lock(f"orders:{number}").acquire() for number in range(2)]
        ctrl_c = CtrlC(point)
        ctrl_c.during(locks.close)
        locks.close()
        give_up_at = now() + 5.0
        while servers.lock_keys():
            assert now() < give_up_at, f"{servers.lock_keys()} left by Ctrl-C at {ctrl_c.struck}"
        assert not any(lease.is_held() for lease in leases if lease is not None)
        if not ctrl_c.struck:
            break
        point += 7
    assert point > 100
    gc.collect()


def test_ctrl_c_at_random_moments_leaves_nothing(nodes: Nodes, servers: Servers) -> None:
    """A process that takes and gives back for ever is interrupted again and again, sometimes
    beside a stopped node."""
    chance = random.Random(1)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            Path(__file__).with_name("worker.py"),
            "interrupted",
            *nodes.urls,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None

    def hear() -> dict[str, Any]:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert line, f"the worker died: {worker.stderr.read() if worker.stderr else ''}"
        heard: dict[str, Any] = json.loads(line)
        return heard

    try:
        for number in range(1, INTERRUPTS + 1):
            with paused([nodes[number % 5]] if number % 6 == 0 else []):
                assert hear() == {"ready": number}
                time.sleep(chance.random() * 0.02)
                worker.send_signal(signal.SIGINT)
                while not select.select([worker.stdout], [], [], AGAIN)[0]:
                    # It struck in a `__del__` of redis-py, when a connection was closed: CPython
                    # prints and forgets that.
                    worker.send_signal(signal.SIGINT)
                assert hear() == {"interrupted": number}
            give_up_at = now() + 5.0
            while servers.lock_keys():
                assert now() < give_up_at, f"{servers.lock_keys()} left by interrupt {number}"
            worker.stdin.write(
                "end\n" if number == INTERRUPTS else "anew\n" if number % 4 == 0 else "on\n"
            )
            worker.stdin.flush()
        assert hear() == {"threads": []}
        errors = worker.stderr.read()
        assert worker.wait(20) == 0
        assert "dropped without being released" not in errors, "a lease that nobody knew of"
        assert "Exception in thread" not in errors
    finally:
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout, worker.stderr):
            pipe.close()
