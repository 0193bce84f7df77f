"""One test body for both APIs, and a few looks at the servers that neither API would give.

A test of the contract is an `async def` in the spelling of `redlock.asyncio`. For the blocking API
the same spelling is put around `redlock`: what waits becomes a coroutine that calls the blocking
method and never suspends, so that the body runs to its end in one step, without a loop; somebody
else at the same time is a thread there, and a task here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import redis
import uvloop

import redlock
import redlock.asyncio
from redlock.embedded import Node, Nodes
from redlock.transport.clock import now

PATIENCE = 20.0
"""Seconds after which a test stops waiting for what must come: long, because the machine may be
busy."""
_WAITING = frozenset(
    {
        *("acquire", "release", "extend", "verify", "status", "nodes", "close"),
        *("leader", "resign", "end"),
    }
)

Body = Coroutine[Any, Any, Any]


class Spelled:
    """A `Redlock`, `Lock` or `Lease` of the blocking API under the names of the asyncio one."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.real, name)
        if name in _WAITING:

            async def waiting(*args: Any, **kwargs: Any) -> Any:
                return _spelled(attribute(*args, **kwargs))

            return waiting
        if name == "lock":
            return lambda *args, **kwargs: Spelled(attribute(*args, **kwargs))
        if name == "election":
            return lambda *args, **kwargs: Spelled(
                attribute(*args, **{key: _plain(value) for key, value in kwargs.items()})
            )
        if name == "campaign":
            return lambda *args, **kwargs: _Campaign(lambda: attribute(*args, **kwargs))
        if name == "run":

            async def running(work: Any) -> None:
                attribute(_plain(work))

            return running
        if name == "observe":
            return functools.partial(_observed, attribute)
        return attribute

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            return drive(function(*args, **kwargs))

        decorated = self.real(plain)

        @functools.wraps(function)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            return decorated(*args, **kwargs)

        return waiting

    def __repr__(self) -> str:
        return repr(self.real)

    async def __aenter__(self) -> Any:
        return _spelled(self.real.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self.real.__exit__(*error)


_SPELLED = redlock.Redlock | redlock.Lock | redlock.Lease | redlock.Election | redlock.Term


def _spelled(value: Any) -> Any:
    return Spelled(value) if isinstance(value, _SPELLED) else value


class _Campaign:
    """A blocking campaign as asyncio has it: awaited, or entered."""

    def __init__(self, begin: Callable[[], redlock.Term]) -> None:
        self._begin = begin

    def __await__(self) -> Any:
        return self._term().__await__()

    async def _term(self) -> Spelled:
        return Spelled(self._begin())

    async def __aenter__(self) -> Any:
        self._entered = await self
        return await self._entered.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        return await self._entered.__aexit__(*error)


def _plain(function: Any) -> Any:
    """A coroutine function that never suspends, as a plain function of spelled arguments."""
    if not inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    def plain(*args: Any) -> Any:
        return drive(function(*map(_spelled, args)))

    return plain


async def _observed(observe: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    for seen in observe():
        yield seen


def drive(body: Body) -> Any:
    """Run a coroutine that never suspends."""
    try:
        body.send(None)
    except StopIteration as stop:
        return stop.value
    body.close()
    raise RuntimeError("a body for the blocking API awaited something that waits")


class Blocking:
    """The blocking API."""

    name = "blocking"
    module: Any = redlock
    event = staticmethod(threading.Event)

    def run(self, body: Body) -> Any:
        """Run a test body."""
        return drive(body)

    def redlock(self, *args: Any, **kwargs: Any) -> Any:
        """A coordinator, an async context manager."""
        return Spelled(redlock.Redlock(*args, **kwargs))

    def spawn(self, body: Body) -> Any:
        """Run *body* at the same time as the caller."""
        return _Thread(body)

    async def join(self, other: Any, timeout: float = PATIENCE) -> Any:
        """What a spawned body returned, or raise what it raised."""
        return other.outcome(timeout)

    async def wait(self, event: threading.Event | asyncio.Event, timeout: float = PATIENCE) -> bool:
        """Whether *event* was set in time."""
        assert isinstance(event, threading.Event)
        return event.wait(timeout)

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        time.sleep(seconds)  # noqa: ASYNC251


class _Thread:
    def __init__(self, body: Body) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(body,), daemon=True, name="contract-other"
        )
        self._thread.start()

    def _work(self, body: Body) -> None:
        try:
            self._value = drive(body)
        except BaseException as error:  # It is the joiner's to raise.
            self._error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def outcome(self, timeout: float) -> Any:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the other thread did not end within {timeout:g} s")
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value


class Asyncio:
    """The asyncio API, on the standard loop or on another."""

    module: Any = redlock.asyncio
    event = staticmethod(asyncio.Event)

    def __init__(
        self, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        self.name = name
        self._loop_factory = loop_factory

    def run(self, body: Body) -> Any:
        """Run a test body."""
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            return runner.run(body)

    def redlock(self, *args: Any, **kwargs: Any) -> Any:
        """A coordinator, an async context manager."""
        return redlock.asyncio.Redlock(*args, **kwargs)

    def spawn(self, body: Body) -> Any:
        """Run *body* at the same time as the caller."""
        return asyncio.ensure_future(body)

    async def join(self, other: Any, timeout: float = PATIENCE) -> Any:
        """What a spawned body returned, or raise what it raised."""
        done, _ = await asyncio.wait([other], timeout=timeout)
        if not done:
            other.cancel()
            raise TimeoutError(f"the other task did not end within {timeout:g} s")
        return other.result()

    async def wait(self, event: threading.Event | asyncio.Event, timeout: float = PATIENCE) -> bool:
        """Whether *event* was set in time."""
        assert isinstance(event, asyncio.Event)
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return event.is_set()
        return True

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        await asyncio.sleep(seconds)


Api = Blocking | Asyncio
BLOCKING = Blocking()
ASYNCIO = Asyncio("asyncio")
UVLOOP = Asyncio("uvloop", uvloop.new_event_loop)


class Journal:
    """An `on_event` that keeps what it received, and tells when a record of some kind came."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._expected: list[tuple[type, Any]] = []
        self.records: list[Any] = []

    def __call__(self, record: Any) -> None:
        self.records.append(record)
        for kind, event in self._expected:
            if isinstance(record, kind):
                event.set()

    def of(self, kind: type) -> list[Any]:
        """The records of one kind, in order."""
        return [record for record in self.records if isinstance(record, kind)]

    def expect(self, kind: type) -> Any:
        """An event that is set at the next record of *kind*."""
        event = self._api.event()
        self._expected.append((kind, event))
        return event


async def until(api: Api, condition: Callable[..., object], timeout: float = PATIENCE) -> bool:
    """Whether *condition* came true in time; for what only a look at the servers can tell."""
    give_up_at = now() + timeout
    while not condition():
        if now() >= give_up_at:
            return False
        await api.sleep(0.002)
    return True


class Servers:
    """A side client on every node: what is there, whatever the library says."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.clients = [
            redis.Redis(host="127.0.0.1", port=node.port, socket_timeout=PATIENCE) for node in nodes
        ]

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def lock_keys(self) -> dict[int, list[str]]:
        """Every lock key that some node holds, by the node's place; an empty dict: nothing was
        left behind, but for the queues of those who wait, which expire within a second."""
        found = {
            place: [
                key.decode()
                for key in client.scan_iter(count=1000)
                if key != b"redlock:node" and not key.endswith((b":fence", b":lock-queue"))
            ]
            for place, client in enumerate(self.clients)
        }
        return {place: keys for place, keys in found.items() if keys}

    def holders(self, resource: str, prefix: str = "redlock:") -> list[str | None]:
        """What the lock key of *resource* holds on each node."""
        values: list[Any] = [client.get(prefix + resource) for client in self.clients]
        return [None if value is None else value.decode() for value in values]

    def forget(self, resource: str) -> None:
        """Delete the lock of *resource* on every node, as no user of the library would."""
        for client in self.clients:
            client.delete(f"redlock:{resource}")


@contextlib.contextmanager
def paused(nodes: Iterable[Node]) -> Iterator[None]:
    """The nodes are stopped inside the block: their ports accept, and nothing answers."""
    stopped = []
    try:
        for node in nodes:
            assert node.pid is not None
            stopped.append(node)
            node.pause()
            os.waitpid(node.pid, os.WUNTRACED)  # Until it has really stopped.
        yield
    finally:
        for node in stopped:
            node.resume()


def majority(nodes: Nodes) -> list[Node]:
    """As many nodes as make a majority."""
    return list(nodes)[: len(nodes) // 2 + 1]


def is_body(function: object) -> bool:
    """Whether a test function is a body for an `Api` to run."""
    return inspect.iscoroutinefunction(function)


def descriptors() -> set[str]:
    """The sockets and pipes that this process has open; a loop may keep files of its own."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # The descriptor of this very look is gone again.
            found.add(f"{entry.name} {entry.readlink()}")
    return {name for name in found if "socket:" in name or "pipe:" in name}
