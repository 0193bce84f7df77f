"""A candidate's line to its servers: a TCP proxy that can fall silent, and that knows of renewals.

One event loop in a thread of its own carries all lines. A line that is cut takes connections and
bytes and passes nothing on, neither way, and not that a connection has ended either: there is no
reset, and whoever waits for a reply waits for ever. On a mute line only replies are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import Self

__all__ = ["Flow", "Line", "Network"]

_RENEWALS_MAX = 10_000
"""Of a trial of a minute or so, with a renewal a second or ten: more than all."""


class Flow(Enum):
    """What a line passes on."""

    OPEN = "everything"
    MUTE = "requests alone"
    CUT = "nothing"


class Network:
    """Carries lines. A context manager; closing it ends all connections."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._lines: list[Line] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for line in self._lines:
            self.drop(line)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def line(self, servers: Sequence[tuple[str, int]], renewal: bytes) -> Line:
        """A new line, with a port of its own for each of *servers*. *renewal*: bytes that are in
        a request which renews, and in no other."""
        line = Line(self._loop, renewal)
        asyncio.run_coroutine_threadsafe(line.open(servers), self._loop).result(10.0)
        self._lines.append(line)
        return line

    def drop(self, line: Line) -> None:
        """End a line's connections, and take no more."""
        asyncio.run_coroutine_threadsafe(line.close(), self._loop).result(10.0)


class Line:
    """One candidate's way to all servers; made by `Network.line`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, renewal: bytes) -> None:
        self.addresses: list[tuple[str, int]] = []
        self.flow = Flow.OPEN
        self.renewal = renewal
        self._loop = loop
        self._listeners: list[asyncio.Server] = []
        self._links: list[_Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: list[_Waiter] = []

    async def open(self, servers: Sequence[tuple[str, int]]) -> None:
        """Listen. On the loop."""
        for server in servers:
            link = _Link(self, server)
            listener = await asyncio.start_server(link.serve, "127.0.0.1", 0)
            self._links.append(link)
            self._listeners.append(listener)
            host, port = listener.sockets[0].getsockname()
            self.addresses.append((host, port))

    async def close(self) -> None:
        """End everything. On the loop; idempotent."""
        for listener in self._listeners:
            listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def after_renewal(self, flow: Flow, timeout: float) -> bool:
        """Wait until a renewal has been answered by a majority of the servers, and let pass only
        *flow* from just then on. False: none was within *timeout* seconds, and *flow* holds now."""
        waiter = _Waiter(flow)
        self._loop.call_soon_threadsafe(self._waiters.append, waiter)
        if waiter.done.wait(timeout):
            return True
        self.set_flow(flow)
        return False

    def set_flow(self, flow: Flow) -> None:
        """From now on."""
        self.flow = flow

    def renewed_at(self, before: float) -> float:
        """When the last renewal that counts was passed on to the servers, of those *before* that
        instant; minus infinity: none was.

        Of several servers a majority must be free before another candidate may lead, so it is the
        instant of the one that makes the majority, counted from the longest not renewed.
        """
        last = sorted(
            max((at for at in link.renewals if at < before), default=float("-inf"))
            for link in self._links
        )
        return last[len(last) // 2]

    def hold(self, task: asyncio.Task[None]) -> None:
        """Remember the task of a connection. On the loop."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, link: _Link) -> None:
        """A renewal has been answered on *link*. On the loop."""
        for waiter in list(self._waiters):
            waiter.links.add(link)
            if len(waiter.links) > len(self._links) // 2:
                self._waiters.remove(waiter)
                self.flow = waiter.flow
                waiter.done.set()


class _Waiter:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.links: set[_Link] = set()
        self.done = threading.Event()


class _Link:
    """One server of a line, over any number of connections. On the loop throughout."""

    def __init__(self, line: Line, server: tuple[str, int]) -> None:
        self.renewals: deque[float] = deque(maxlen=_RENEWALS_MAX)
        self._line = line
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._line.hold(task)
        writers = [writer]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                await self._pass_on(reader, writer, writers)
            finally:
                for end in writers:
                    end.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
    ) -> None:
        if self._line.flow is Flow.CUT:
            await _for_ever()
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        writers.append(server_writer)
        asked = asyncio.Event()  # Whether a renewal waits for its reply.
        ways = {
            asyncio.create_task(self._requests(reader, server_writer, asked)),
            asyncio.create_task(self._replies(server_reader, writer, asked)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        tail, renewal = b"", self._line.renewal
        while True:
            data = await reader.read(1 << 16)
            if self._line.flow is Flow.CUT:
                await _for_ever()
            if not data:
                return
            if renewal in tail + data:
                self.renewals.append(time.monotonic())
                asked.set()
            tail = (tail + data)[1 - len(renewal) :] if len(renewal) > 1 else b""
            writer.write(data)

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while True:
            data = await reader.read(1 << 16)
            if self._line.flow is not Flow.OPEN:
                await _for_ever()
            if not data:
                return
            writer.write(data)
            if asked.is_set():
                asked.clear()
                self._line.answered(self)


async def _for_ever() -> None:
    await asyncio.Event().wait()
