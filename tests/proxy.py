"""A TCP proxy that is late on purpose: each chunk by half a round trip, some of them by much more,
never out of order.

It runs in a thread with an event loop of its own, on a port of loopback that the kernel chose. It
also counts *flights*: how often the client of a connection had to wait for the server before it
could go on.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from redlock.embedded import Nodes


class LateProxy:
    """Forwards to *port* of loopback. *delay*: seconds each way; a chunk is *late* by more with
    probability *share*."""

    def __init__(
        self, port: int, *, delay: float = 0.0, late: float = 0.0, share: float = 0.0, seed: int = 0
    ) -> None:
        self._upstream = port
        self._delay = delay
        self._late = late
        self._share = share
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="late-proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.flights: list[int] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        place = len(self.flights)
        self.flights.append(0)
        answered = [True]
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return

        def to_server() -> None:
            if answered[0]:
                self.flights[place] += 1
            answered[0] = False

        def to_client() -> None:
            answered[0] = True

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, up_writer, to_server))
                group.create_task(self._pump(up_reader, writer, to_client))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, up_writer):
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: object
    ) -> None:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(10_000)

        async def deliver() -> None:
            while True:
                due_at, data = await chunks.get()
                await asyncio.sleep(due_at - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)

        task = asyncio.ensure_future(deliver())
        due_at = 0.0
        try:
            while True:
                data = await reader.read(1 << 16)
                if data:
                    note()  # type: ignore[operator]
                extra = self._late if self._random.random() < self._share else 0.0
                # Order is kept, as in TCP: what comes behind a late chunk waits for it.
                due_at = max(due_at, loop.time() + self._delay + extra)
                await chunks.put((due_at, data))
                if not data:
                    break
            await task
        finally:
            task.cancel()


@contextmanager
def late_proxies(nodes: Nodes, **how: float) -> Iterator[list[LateProxy]]:
    """One proxy in front of every node, each with a seed of its own."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(LateProxy(node.port, seed=seed, **how))
            for seed, node in enumerate(nodes)
        ]
