"""Connections on an event loop, one to each node: what a `LinkSet` needs of asyncio to be driven
by it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import select
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redlock.core.quorum import Fault, FaultKind
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint
from redlock.transport.link import Link
from redlock.transport.linkset import LinkSet
from redlock.transport.node import Node

__all__ = ["Streams"]

_BUFFER = 1 << 16
"""Bytes read at once, for all connections: they are handed over before the next are read."""
_LOOK_AGAIN = 1.0
"""At most this long between looks: the loop's timers stop while the machine sleeps, and the
lease clock does not."""
_CLOSES_WITHIN = 100
"""Turns of the loop: a transport tells its protocol a turn or two after its end; TLS needs a few
more."""

_log = logging.getLogger("redlock")


class _Protocol(asyncio.BufferedProtocol):
    """One connection's bytes. A `BufferedProtocol`, because the default transport allocates 256
    KiB for every reply."""

    def __init__(self, streams: Streams, index: int) -> None:
        self._streams = streams
        self._index = index
        self.keep: Any = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._streams.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._streams.received(self._index, self, bytes(self._streams.buffer[:nbytes]))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self.keep = None
        detail = f"lost the connection ({error})" if error else "closed the connection"
        self._streams.disconnected(self._index, self, Fault(FaultKind.LOST, detail))


class Streams:
    """The connections of one coordinator to *nodes*, at *found*, and the links over them.

    *silence*, *make_link*: see `LinkSet`; *timeout*: seconds for a dial; *on_received* is called
    after links were told what came. Belongs to `loop` once that is set.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        found: Sequence[Endpoint],
        *,
        silence: float,
        timeout: float,
        make_link: Callable[..., Any] = Link,
        on_received: Callable[[], None] | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.buffer = memoryview(bytearray(_BUFFER))
        self.closed = False
        self._names = [node.name for node in nodes]
        self._endpoints = found
        self._lookups = [endpoint.lookup() for endpoint in found]
        self._timeout = timeout
        self._on_received = on_received
        self._protocols: list[_Protocol | None] = [None] * len(nodes)
        self._transports: list[asyncio.Transport | None] = [None] * len(nodes)
        self._unsent: list[list[bytes]] = [[] for _ in nodes]
        self._flushing = False
        self._dials: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.linkset = LinkSet(nodes, self, clock, silence=silence, make_link=make_link)

    # What the links need

    def write(self, node: int, data: bytes) -> None:
        """With several flows under way, one write per node and turn of the loop."""
        transport = self._transports[node]
        if transport is None:
            return
        if len(self.linkset.runs) <= 1 and not self._unsent[node]:
            _put(transport, data)
            return
        self._unsent[node].append(data)
        if not self._flushing and self.loop is not None:
            self.loop.call_soon(self._flush)
            self._flushing = True  # Not before: an interrupt in between would stop all writing.

    def hang_up(self, node: int) -> None:
        """Let go of the connection to *node*."""
        transport = self._transports[node]
        self._forget(node)
        if transport is not None:
            transport.abort()

    def dial(self, node: int) -> None:
        """Connect to *node*, in a task of its own."""
        if self.closed or self.loop is None:
            return
        task = self.loop.create_task(self._dial_one(node), name=f"redlock-dial-{self._names[node]}")
        self._dials.add(task)
        task.add_done_callback(partial(self._dial_ended, node))

    def readable(self, node: int) -> bool:
        """Whether the loop has not brought everything from *node* yet: it was blocked, or is
        about to tell of the end."""
        transport = self._transports[node]
        fd = _descriptor(transport)
        if fd < 0:
            return transport is not None  # We are told of its end in a moment.
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def wake_at(self, instant: float) -> None:
        """Tick at *instant*, or a second from now: `_tick` looks again."""
        lost = clock() > self._timer_at + _LOOK_AGAIN  # By a Ctrl-C on the way to `_tick`.
        if (instant >= self._timer_at and not lost) or self.loop is None or self.closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = instant
        self._timer = self.loop.call_later(
            min(max(0.0, instant - clock()), _LOOK_AGAIN), self._tick
        )

    def _tick(self) -> None:
        try:
            self._timer, self._timer_at = None, math.inf
            self.linkset.tick()
        except BaseException:
            self.linkset.interrupted()
            if self._timer is None:  # It struck before anybody looked ahead.
                self.linkset.look_ahead()
            raise

    # From connections

    def received(self, node: int, protocol: _Protocol, data: bytes) -> None:
        """Bytes of one node."""
        if self._protocols[node] is not protocol:
            return
        linkset = self.linkset
        linkset.busy = node
        try:
            linkset.received(node, data)
        except BaseException:  # Ctrl-C: what was read and not handed over would be missing.
            linkset.interrupted()
            raise
        if self._on_received is not None:
            self._on_received()

    def disconnected(self, node: int, protocol: _Protocol, fault: Fault) -> None:
        """A connection ended."""
        if self._protocols[node] is protocol:
            self._forget(node)
            if not self.closed:  # Otherwise it was us, and nobody waits for anything.
                self.linkset.lost(node, fault)

    # Connections

    async def _dial_one(self, index: int) -> None:
        endpoint, protocol = self._endpoints[index], _Protocol(self, index)
        fault: Fault | None = None
        try:
            keep, transport = await endpoint.open(self._timeout, protocol, self._lookups[index])
        except Exception as error:
            # Whatever dialling raises is that node's fault, for the votes to tell.
            fault = endpoint.fault(error)
        # Not above: what flows raise now would carry that error, and with it perhaps a credential.
        if fault is not None:
            self.linkset.dial_failed(index, fault)
            return
        protocol.keep = keep
        self._protocols[index], self._transports[index] = protocol, transport
        self.linkset.connected(index)

    def _dial_ended(self, index: int, task: asyncio.Task[None]) -> None:
        """A dial that did not end by itself, as when somebody cancels every task of the loop,
        must end for its link too."""
        self._dials.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a dial failed", exc_info=error)
        if (
            (error is not None or task.cancelled())
            and self.linkset.links[index].dialling
            and not self.closed
        ):
            why = "the dial was cancelled" if error is None else type(error).__name__
            self.linkset.dial_failed(
                index, Fault(FaultKind.UNREACHABLE, f"could not be dialled ({why})")
            )

    def _flush(self) -> None:
        self._flushing = False
        for index, unsent in enumerate(self._unsent):
            if unsent:
                transport = self._transports[index]
                if transport is not None:
                    _put(transport, b"".join(unsent))
                unsent.clear()

    def _forget(self, index: int) -> None:
        self._protocols[index] = self._transports[index] = None
        self._unsent[index].clear()

    # The end

    def close(self) -> None:
        """Everything that needs no waiting, so that a cancel of `gone` leaves nothing open."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        for task in self._dials:
            task.cancel()
        for transport in self._transports:
            if transport is not None:
                transport.close()

    async def gone(self) -> None:
        """Wait until dials and connections have ended."""
        await asyncio.gather(*self._dials, return_exceptions=True)
        for _ in range(_CLOSES_WITHIN):
            if not any(self._transports):
                break
            await asyncio.sleep(0)
        for transport in self._transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them.

        Their loop knows them by number, so the numbers stay taken, by nothing.
        """
        for transport in self._transports:
            fd = _descriptor(transport)
            if fd >= 0:
                # First, as there may be no descriptor left: then its number is the one that `open`
                # gives.
                os.close(fd)
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                if nothing != fd:
                    os.dup2(nothing, fd, inheritable=False)
                    os.close(nothing)


def _descriptor(transport: asyncio.Transport | None) -> int:
    """The file descriptor of a connection; -1 if it has none, as one whose end we have not been
    told of yet."""
    if transport is None or transport.is_closing():
        return -1
    # Under TLS there is none at times though it is not closing.
    sock = transport.get_extra_info("socket")
    return sock.fileno() if sock is not None else -1


def _put(transport: asyncio.Transport, data: bytes) -> None:
    """Write, unless the connection has ended: uvloop raises then, before it tells us of the end.
    Its link hears of it soon."""
    if not transport.is_closing():
        transport.write(data)
