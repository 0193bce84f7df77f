"""The queues of a simulated node: `queue.lua` function by function, and who subscribes there.

What Lua asks by `pcall` raises `Refused` here, and whoever asked goes on without a queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from chaos.sim.node import SimNode

__all__ = ["LEASE_MS", "NO_RIGHTS", "PLACES_MAX", "Listener", "Queues", "read_place"]

LEASE_MS, PLACES_MAX, DROPS_MAX = 1000, 1024, 128
NO_RIGHTS = "NOPERM this user has no permissions to access one of the {} used as arguments"

Places = dict[str, float]
"""A sorted set: members and scores."""


class Refused(Exception):
    """An error that a script asked for by `pcall`."""


class Listener(Protocol):
    """As much of a connection as a channel needs."""

    @property
    def listens(self) -> bool:
        """Whether the server believes that somebody is there."""

    def push(self, payload: bytes) -> None:
        """Send what nobody asked for."""


class Queues:
    """All queues of *node*, by key."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._sets: dict[str, tuple[Places, float | None]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self.without = ""
        """The "keys" or "channels" to which clients have no rights."""
        self.entered_us: dict[str, int] = {}
        """When, by the node's clock, somebody entered each queue last."""
        self.planted: set[str] = set()
        """Queues that somebody else wrote to, and that nobody of ours has entered since."""

    # Keys

    def clear(self) -> None:
        """They are gone, with all else or with the memory of the server."""
        self._sets = {}

    def copy(self, other: Queues) -> None:
        """As on another node, by replication."""
        self._sets = {key: (dict(places), over) for key, (places, over) in other._sets.items()}
        self.entered_us = dict(other.entered_us)
        self.planted = set(other.planted)

    def put(self, key: str, places: Places, expires_at_ms: float | None) -> None:
        """Somebody else writes it."""
        self._sets[key] = (dict(places), expires_at_ms)
        self.planted.add(key)

    def places(self, key: str, now: int) -> Places:
        """What is there at *now*, which is microseconds of the node's clock."""
        places, over = self._sets.get(key, ({}, None))
        if over is not None and now // 1000 > over:
            del self._sets[key]
            self.planted.discard(key)
            return {}
        return places

    def left_ms(self, key: str, now: int) -> int:
        """PTTL."""
        if not self.places(key, now):
            return -2
        over = self._sets[key][1]
        return -1 if over is None else int(max(0, over - now // 1000))

    def names(self, key: str, now: int) -> dict[str, float]:
        """Who stands in it, with their tickets."""
        return {name: score for name, score in self.places(key, now).items() if score > 0}

    def _read(self, key: str, now: int) -> Places:
        if self.without == "keys":
            raise Refused(NO_RIGHTS.format("keys"))
        if self._node._get(key, now // 1000) is not None:
            raise Refused("WRONGTYPE Operation against a key holding the wrong kind of value")
        return self.places(key, now)

    def _remove(self, key: str, members: Sequence[str], now: int) -> None:
        """ZREM."""
        if self._node.role != "master":
            raise Refused("READONLY You can't write against a read only replica.")
        places = self._read(key, now)
        for member in members:
            places.pop(member, None)
        if not places and self._sets.pop(key, None) is not None:
            self.planted.discard(key)

    def waits(self, key: str, now: int) -> bool:
        """What TAKE and FREE ask first: whether there may be a queue at all."""
        if self.without == "keys" or self._node._get(key, now // 1000) is not None:
            return True
        return bool(self.places(key, now))

    def shown(self, key: str, now: int) -> list[bytes]:
        """The first sixteen with their tickets, as PEEK lists them."""
        try:
            self._read(key, now)
        except Refused:
            return []
        found = sorted((score, name) for name, score in self.names(key, now).items())[:16]
        return [word for score, name in found for word in (name.encode(), b"%.17g" % score)]

    # queue.lua

    def leave(self, key: str, name: str, now: int) -> bool:
        try:
            self._remove(key, (name, f"!{name}", f"~{name}"), now)
        except Refused:
            return False
        return True

    def first(self, key: str, now: int) -> tuple[str, float, bool] | None:
        """Name, ticket, and whether it is deaf."""
        for _ in range(PLACES_MAX):
            try:
                places = self._read(key, now)
            except Refused:
                return None
            if not (waiting := self.names(key, now)):
                return None
            score, name = min((score, name) for name, score in waiting.items())
            lease, deaf = places.get(f"!{name}"), False
            if lease is None:
                lease, deaf = places.get(f"~{name}"), True
            left = -lease - now / 1000 if lease is not None else 0.0
            if 0 < left <= LEASE_MS:
                return name, score, deaf
            if not self.leave(key, name, now):
                return None
        return None

    def enter(self, key: str, place: str, now: int) -> int:
        name, ticket, deaf = read_place(place)
        if not name:
            return 2
        try:
            places = self._read(key, now)
            known = name in places
            if not known and len(places) >= 2 * PLACES_MAX:
                return 1
            if self._node.role != "master" or self._node.out_of_memory:
                return 2
        except Refused:
            return 2
        lease, other = (f"~{name}", f"!{name}") if deaf else (f"!{name}", f"~{name}")
        places |= {name: float(ticket), lease: -float(now // 1000 + LEASE_MS)}
        if known:
            places.pop(other, None)
            _drop_dead(places, now // 1000)
        self._keep(key, places, now)
        return 0

    def _keep(self, key: str, places: Places, now: int) -> None:
        """PEXPIRE, after a ZADD."""
        self._sets[key] = (places, now // 1000 + LEASE_MS)
        self.entered_us[key] = now
        self.planted.discard(key)

    def others(self, key: str, place: str, now: int) -> bool:
        """Whether it is somebody else's turn."""
        name, ticket, _ = read_place(place)
        for _ in range(PLACES_MAX):
            head = self.first(key, now)
            if head is None:
                return False
            if head[0] == name or (name and (ticket, name) < (head[1], head[0])):
                return False
            if head[2]:
                return True
            if self.count(_channel(head[0])) or not self.leave(key, head[0], now):
                return True
        return True

    def tell(self, key: str, mark: str, now: int) -> None:
        for _ in range(PLACES_MAX):
            head = self.first(key, now)
            if head is None:
                return
            heard = self.publish(_channel(head[0]), mark + head[0])
            if head[2] or heard or not self.leave(key, head[0], now):
                return

    # Channels

    def subscribe(self, channel: str, listener: Listener | None) -> bytes:
        """One more hears what is published there."""
        if self.without == "channels":
            return f"-{NO_RIGHTS.format('channels')}\r\n".encode()
        if listener is not None:
            self._listeners.setdefault(channel, []).append(listener)
        return _array(b"subscribe", channel.encode()) + b":1\r\n"

    def subscribed(self, listener: Listener | None) -> bool:
        """Whether that connection hears anything."""
        return any(listener in listeners for listeners in self._listeners.values())

    def unsubscribe_all(self) -> None:
        """The server is another process now, whatever became of its connections."""
        self._listeners = {}

    def count(self, channel: str) -> int:
        """PUBSUB NUMSUB."""
        found = [each for each in self._listeners.get(channel, ()) if each.listens]
        self._listeners[channel] = found
        return len(found)

    def publish(self, channel: str, text: str) -> int | None:
        """How many hear it; None, which a script takes for somebody: there are no rights."""
        if self.without == "channels":
            return 1
        count = self.count(channel)
        for listener in self._listeners[channel]:
            payload = text.encode()
            listener.push(
                _array(b"message", channel.encode()) + b"$%d\r\n%b\r\n" % (len(payload), payload)
            )
        return count


def read_place(place: str) -> tuple[str, int, bool]:
    """Name, ticket, and whether it is deaf; no name: it is no place."""
    digits = len(place) - len(place.lstrip("0123456789"))
    if not digits or place[digits : digits + 1] not in (" ", "~") or not place[digits + 1 :]:
        return "", 0, False
    return place[digits + 1 :], int(place[:digits]), place[digits] == "~"


def _channel(name: str) -> str:
    return "redlock:wake:" + name.partition(".")[0]


def _array(kind: bytes, channel: bytes) -> bytes:
    """The first two of three words that a subscriber is told."""
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(kind), kind, len(channel), channel)


def _drop_dead(places: Places, now_ms: int) -> None:
    """Those whose lease is over, the last one to end first."""
    over = sorted((score, entry) for entry, score in places.items() if -now_ms <= score < 0)
    for _, entry in over[:DROPS_MAX]:
        for each in (entry[1:], f"!{entry[1:]}", f"~{entry[1:]}"):
            places.pop(each, None)
