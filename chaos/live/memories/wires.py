"""The way from one client to one node: a proxy that reads along, and can hold a client's connection
while its server changes.

It understands commands and replies, so that it swaps the server behind a living connection only
between two of them: what a proxy, a virtual address or a service mesh does. It notes every vote and
every marker that passes. All wires of a process run in one event loop in a thread of its own; their
methods may be called from anywhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import hiredis

from redlock.core.commands import MARKER_KEY
from redlock.transport.clock import now

__all__ = ["Loop", "Marked", "Vote", "Wire", "packed"]

T = TypeVar("T")
_PATIENCE = 10.0
_COMMANDS_KEPT = 1000
"""Of the votes and markers of one run, far more than it has."""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = _PATIENCE) -> T:
        """What *work* gives, from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass(frozen=True, slots=True)
class Vote:
    """A node answered a TAKE at *at* that it was sent at *asked_at*."""

    asked_at: float
    at: float
    mode: str
    token: int
    marker: str
    granted: bool


@dataclass(frozen=True, slots=True)
class Marked:
    """A node wrote the marker, or the blank, *text*, as for votes; *command*: the bytes that
    asked for it."""

    asked_at: float
    at: float
    text: str
    command: bytes

    @property
    def is_blank(self) -> bool:
        """Whether it says that there is none."""
        return " blank " in self.text


def packed(words: Sequence[bytes]) -> bytes:
    """A command as it is sent."""
    return b"*%d\r\n" % len(words) + b"".join(
        b"$%d\r\n%b\r\n" % (len(word), word) for word in words
    )


class Wire:
    """A port that leads to *target*, for one client and one node."""

    def __init__(self, loop: Loop, target: int) -> None:
        self._loop = loop
        self.target = target
        self.closed = False
        self.held = False
        self.accepted = 0
        self.votes: deque[Vote] = deque(maxlen=_COMMANDS_KEPT)
        self.marks: deque[Marked] = deque(maxlen=_COMMANDS_KEPT)
        self.ends: set[_Downstream] = set()
        self._server = loop.run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where a client finds the node."""
        return f"redis://127.0.0.1:{self.port}"

    def fresh(self, target: int) -> None:
        """As new, for another run."""
        self.cut()
        self.target, self.closed, self.held, self.accepted = target, False, False, 0
        self.votes.clear()
        self.marks.clear()

    def cut(self) -> None:
        """End its connections, and take no others."""
        self.closed = True
        self._loop.run(self._abort())

    def heal(self) -> None:
        """Take connections again."""
        self.closed = False

    def hold(self) -> None:
        """Keep what the client says from here on, and wait until the node has answered what it
        was asked before."""
        self._loop.run(self._hold())

    def let_go(self, target: int | None = None) -> None:
        """Lead the connections that are there to *target*, or to where they led before, and
        bring what was kept."""
        self._loop.run(self._let_go(self.target if target is None else target))

    def move(self, target: int, *, keep: bool) -> None:
        """Lead to another server. *keep*: also the connections that are there; otherwise these
        end."""
        if keep:
            self.hold()
            self.let_go(target)
        else:
            self.target = target
            self._loop.run(self._abort())

    def close(self) -> None:
        """End it."""
        self.cut()
        self._loop.run(self._stop())

    async def _listen(self) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: _Downstream(self), "127.0.0.1", 0
        )

    async def _stop(self) -> None:
        self._server.close()

    async def _abort(self) -> None:
        for end in list(self.ends):
            end.abort()

    async def _hold(self) -> None:
        self.held = True
        give_up_at = now() + _PATIENCE / 2
        while any(end.asked or end.upstream is None for end in self.ends):
            if now() > give_up_at:
                raise RuntimeError(
                    "a node has not answered what it was asked before its wire was to be held"
                )
            await asyncio.sleep(0.001)
        for end in self.ends:
            end.part()

    async def _let_go(self, target: int) -> None:
        self.target, self.held = target, False
        for end in list(self.ends):
            await end.reach()


class _Downstream(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport: asyncio.Transport | None = None
        self._commands = hiredis.Reader()
        self._kept = bytearray()
        self.asked: deque[tuple[float, list[bytes]]] = deque()
        self.upstream: asyncio.Transport | None = None
        self.replies = hiredis.Reader()
        self._reaching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._wire.closed:
            transport.abort()
            return
        self._wire.accepted += 1
        self._wire.ends.add(self)
        self._transport = transport
        if not self._wire.held:
            self._reaching = asyncio.ensure_future(self.reach())

    def data_received(self, data: bytes) -> None:
        self._commands.feed(data)
        self._kept += data
        self._forward()

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort()

    def abort(self) -> None:
        """Both sides end, at once."""
        self._wire.ends.discard(self)
        if self._transport is not None:
            self._transport.abort()
        self.part()

    def part(self) -> None:
        """The server's side alone ends."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    async def reach(self) -> None:
        """Connect to the server, and bring it what was kept."""
        loop = asyncio.get_running_loop()
        self.replies = hiredis.Reader()
        try:
            self.upstream, _ = await loop.create_connection(
                lambda: _Upstream(self), "127.0.0.1", self._wire.target
            )
        except OSError:
            self.abort()
            return
        if self not in self._wire.ends:
            self.part()
        self._forward()

    def heard(self, source: asyncio.BaseTransport | None, data: bytes) -> None:
        """The server answered."""
        if source is not self.upstream or self._transport is None:
            return
        at = now()  # Before the client can have read it.
        self._transport.write(data)
        self.replies.feed(data)
        while (reply := self.replies.gets()) is not False:
            if self.asked:
                self._note(*self.asked.popleft(), reply, at)

    def lost(self, source: asyncio.BaseTransport | None) -> None:
        """The server's side ended: so does the client's, unless the wire is held."""
        if source is self.upstream:
            self.abort()

    def _forward(self) -> None:
        if self.upstream is None or self._wire.held or not self._kept:
            return
        while (words := self._commands.gets()) is not False:
            self.asked.append((now(), words))
        self.upstream.write(bytes(self._kept))
        self._kept.clear()

    def _note(self, asked_at: float, words: list[bytes], reply: Any, at: float) -> None:
        if words[0] not in (b"EVAL", b"EVALSHA"):
            return
        # Behind its keys, of which a TAKE has one more where there is a queue.
        said = words[3 + int(words[2]) :]
        if len(said) >= 7 and (mode := said[5]) in (b"acquire", b"extend"):
            granted = type(reply) is int
            self._wire.votes.append(
                Vote(asked_at, at, mode.decode(), int(said[1]), said[-1].decode(), granted)
            )
        elif (
            len(words) == 9
            and words[3] == MARKER_KEY.encode()
            and isinstance(reply, list)
            and reply[0] == 1
        ):
            self._wire.marks.append(Marked(asked_at, at, reply[1].decode(), packed(words)))


class _Upstream(asyncio.Protocol):
    """The server's side."""

    def __init__(self, owner: _Downstream) -> None:
        self._owner = owner
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._owner.heard(self._transport, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self._transport)
