"""A simulated server: the semantics of our Lua files in Python, a wall clock of its own, and ways to forget.

Speaks RESP on bytes, so that the shipped links talk to it as to a real one. `tests/sim/test_node.py` runs it side by side
with a real server on random commands, so that the two cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hiredis

from redlock.core.commands import FREE, MARK, PEEK, REPAIR, TAKE, Script

__all__ = ["SimNode"]

Value = tuple[str, float | None]
"""A string and, in milliseconds of the node's clock, when it expires."""

EPOCH_US = 1_800_000_000_000_000
"""Where simulated wall clocks start."""


class SimNode:
    """One server. *rate*: seconds of its clock per second of true time; *offset*: seconds it is ahead."""

    def __init__(self, index: int, draw: Callable[[], str]) -> None:
        self.index = index
        self.rate = 1.0
        self.offset = 0.0
        self.paused = False
        self.up = True
        self.role = "master"
        self.policy = "noeviction"
        self.out_of_memory = False
        self._draw = draw
        self.run_id = draw()
        self.started_at = 0.0
        self.data: dict[str, Value] = {}
        self.scripts: set[str] = set()
        self.snapshot: dict[str, Value] = {}
        self.taken: dict[str, str] = {}
        """By owner, the lock key it ever took here; and `freed`, by owner, the largest token it gave back here."""
        self.freed: dict[str, int] = {}
        self.revived: list[str] = []
        """Owners that took a lock here after they had given it back: a release is final on a node that executed it."""

    # Its clock

    def wall_us(self, at: float) -> int:
        """Its TIME at the true instant *at*."""
        return EPOCH_US + round((self.offset + at * self.rate) * 1e6)

    def jump(self, seconds: float) -> None:
        """Its clock is stepped."""
        self.offset += seconds

    def set_rate(self, rate: float, at: float) -> None:
        """From now on its clock runs at *rate*; what it shows now does not change."""
        self.offset += at * (self.rate - rate)
        self.rate = rate

    # Its life

    def crash(self, kept: str, at: float) -> None:
        """It ends and will start with another run id; *kept*: "durable", "lost" or "rollback"."""
        self.up = False
        self.paused = False
        if kept == "lost":
            self.data = {}
        elif kept == "rollback":
            self.data = dict(self.snapshot)
        if kept != "durable":  # With its fences it forgot which doors were shut.
            self.freed = dict.fromkeys(self.freed, 0)

    def start(self, at: float) -> None:
        """It comes up again."""
        self.up = True
        self.run_id = self._draw()
        self.started_at = at
        self.scripts = set()

    def save(self) -> None:
        """Remember what a later rollback brings back."""
        self.snapshot = dict(self.data)

    def flush(self) -> None:
        """FLUSHALL."""
        self.data = {}
        self.freed = dict.fromkeys(self.freed, 0)

    # Its commands

    def execute(self, words: list[bytes], at: float) -> bytes:
        """One command, atomically; the reply as bytes."""
        name = words[0]
        if name == b"EVALSHA" or name == b"EVAL":
            return self._evaluate(name, words, at)
        if name == b"GET":
            value = self._get(words[1].decode(), self.wall_us(at) / 1000)
            return _bulk(value)
        if name == b"TIME":
            now = self.wall_us(at)
            return _array([str(now // 1_000_000), str(now % 1_000_000)])
        if name == b"INFO":
            return _bulk(self._info(at))
        if name == b"SCRIPT":
            script = _BY_SOURCE[words[2].decode()]
            self.scripts.add(script.sha)
            return _bulk(script.sha)
        return b"-ERR unknown command\r\n"

    def _evaluate(self, name: bytes, words: list[bytes], at: float) -> bytes:
        text = words[1].decode()
        script = _BY_SHA.get(text) if name == b"EVALSHA" else _BY_SOURCE.get(text)
        if script is None or (name == b"EVALSHA" and text not in self.scripts):
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        self.scripts.add(script.sha)
        count = int(words[2])
        keys = [word.decode() for word in words[3 : 3 + count]]
        arguments = [word.decode() for word in words[3 + count :]]
        try:
            answer = _RUN[script.name](self, keys, arguments, self.wall_us(at))
        except ScriptError as error:
            return f"-{error}\r\n".encode()
        if script is TAKE or script is FREE:
            self._remember(script, keys, arguments, answer, self.wall_us(at))
        return _array(answer)

    def _remember(self, script: Script, keys: list[str], arguments: list[str], answer: list[Any], now: int) -> None:
        """Who took and who gave back, seen from outside the scripts: what the checker asks about this node."""
        owner, number = arguments[0], int(arguments[1])
        if script is TAKE and answer[0] == 1 and arguments[4] != "verify":
            self.taken[owner] = keys[0]
            if self.freed.get(owner, 0) >= number:
                self.revived.append(owner)
        elif script is FREE and answer[0] != 2 and number <= now + 60_000_000 and not self.out_of_memory:
            self.freed[owner] = max(number, self.freed.get(owner, 0))
        elif script is FREE:
            self.freed.setdefault(owner, 0)

    def _info(self, at: float) -> str:
        uptime = int((self.wall_us(at) - EPOCH_US) / 1e6 - self.offset - self.started_at * self.rate)
        return (
            f"run_id:{self.run_id}\r\nuptime_in_seconds:{uptime}\r\nredis_version:sim\r\nrole:{self.role}\r\n"
            f"second_repl_offset:-1\r\nloading:0\r\nmaxmemory_policy:{self.policy}\r\ncluster_enabled:0\r\n"
        )

    def _get(self, key: str, now_ms: float) -> str | None:
        found = self.data.get(key)
        if found is None:
            return None
        if found[1] is not None and now_ms > found[1]:
            del self.data[key]
            return None
        return found[0]

    def _pttl(self, key: str, now_ms: float) -> int:
        if self._get(key, now_ms) is None:
            return -2
        expires = self.data[key][1]
        return -1 if expires is None else max(0, math.floor(expires - now_ms))

    def _set(self, key: str, value: str, ttl_ms: float | None, now_ms: float) -> None:
        if self.out_of_memory:
            raise ScriptError("OOM command not allowed when used memory > 'maxmemory'.")
        self.data[key] = (value, None if ttl_ms is None else now_ms + ttl_ms)

    def _raise_fence(self, key: str, token: str, fence_ttl: int, now_ms: float) -> None:
        left = self._pttl(key, now_ms)
        self._set(key, token, None if fence_ttl == 0 or left == -1 else max(left, fence_ttl), now_ms)

    # take.lua and the others, line by line

    def _take(self, keys: list[str], arguments: list[str], now: int) -> list[Any]:
        owner, token, ttl_text, fence_text, mode, expected = arguments
        number, ttl, fence_ttl, now_ms = int(token), int(ttl_text), int(fence_text), now // 1000
        marker = self._get(keys[2], now_ms)
        if marker != expected:
            return [3, marker or ""]
        _, _, _, max_ttl, _, floor, _ = marker.split(" ")
        if ttl > int(max_ttl):
            raise ScriptError(f"REDLOCK a ttl of {ttl} ms is above this cluster's max_ttl of {max_ttl} ms")
        fence = int(self._get(keys[1], now_ms) or 0)
        held = self._get(keys[0], now_ms)
        if held == f"{owner}:{token}":
            if mode == "extend":
                if self._pttl(keys[0], now_ms) < ttl:
                    self.data[keys[0]] = (held, now_ms + ttl)
                left = self._pttl(keys[1], now_ms)
                if fence_ttl > 0 and 0 <= left < fence_ttl:
                    self.data[keys[1]] = (self.data[keys[1]][0], now_ms + fence_ttl)
            return [1, number, 0]
        if held is not None and not held.startswith(f"{owner}:"):
            return [0, fence, self._pttl(keys[0], now_ms), _shown(held)]
        if mode == "verify":
            return [2, fence, 0, now]
        if mode == "extend":
            if fence > number:
                return [2, fence, 0, now]
        else:
            low = max(fence, int(floor))
            if low >= number or number > max(low + 2048, now + 60_000_000):
                return [2, low, 0, now]
        self._raise_fence(keys[1], token, fence_ttl, now_ms)
        self._set(keys[0], f"{owner}:{token}", ttl, now_ms)
        return [1, number, 0]

    def _free(self, keys: list[str], arguments: list[str], now: int) -> list[Any]:
        owner, number, fence_ttl, now_ms = arguments[0], int(arguments[1]), int(arguments[2]), now // 1000
        held = self._get(keys[0], now_ms)
        mine = held is not None and held.startswith(f"{owner}:")
        if held is not None and not mine:
            return [2]
        if mine:
            del self.data[keys[0]]
        fence = int(self._get(keys[1], now_ms) or 0)
        if fence <= number <= max(fence + 2048, now + 60_000_000) and not self.out_of_memory:
            self._raise_fence(keys[1], str(number + 1), fence_ttl, now_ms)
        return [1 if mine else 0]

    def _peek(self, keys: list[str], arguments: list[str], now: int) -> list[Any]:
        now_ms = now // 1000
        if arguments:
            marker = self._get(keys[2], now_ms)
            if marker != arguments[0]:
                return [3, marker or ""]
        fence = int(self._get(keys[1], now_ms) or 0)
        held = self._get(keys[0], now_ms)
        if held is None:
            return [4, fence]
        return [0, fence, self._pttl(keys[0], now_ms), _shown(held)]

    def _repair(self, keys: list[str], arguments: list[str], now: int) -> list[Any]:
        now_ms = now // 1000
        if self._pttl(keys[0], now_ms) != -1:
            return [0]
        self.data[keys[0]] = (self.data[keys[0]][0], now_ms + int(arguments[0]))
        return [1]

    def _mark(self, keys: list[str], arguments: list[str], now: int) -> list[Any]:
        expected, head, floor, tail = arguments
        current = self._get(keys[0], now // 1000) or ""
        if current != expected:
            return [0, current]
        if floor.startswith("+"):
            floor = str(now + int(floor[1:]))
        marker = f"{head} {floor} {tail}"
        self._set(keys[0], marker, None, now // 1000)
        return [1, marker]


class ScriptError(Exception):
    """An error reply."""


_SCRIPTS = (TAKE, FREE, PEEK, REPAIR, MARK)
_BY_SHA: dict[str, Script] = {script.sha: script for script in _SCRIPTS}
_BY_SOURCE: dict[str, Script] = {script.source: script for script in _SCRIPTS}
_RUN: dict[str, Callable[[SimNode, list[str], list[str], int], list[Any]]] = {
    "take": SimNode._take,
    "free": SimNode._free,
    "peek": SimNode._peek,
    "repair": SimNode._repair,
    "mark": SimNode._mark,
}


def commands(reader: hiredis.Reader) -> list[list[bytes]]:
    """The whole commands that *reader* has been fed."""
    found: list[list[bytes]] = []
    while True:
        words = reader.gets()
        if words is False:
            return found
        found.append(words)


def _shown(value: str) -> str:
    return "=" + "".join(char if char >= " " and char != "\x7f" else "?" for char in value[:128])


def _bulk(value: str | None) -> bytes:
    if value is None:
        return b"$-1\r\n"
    data = value.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _array(items: list[Any]) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join([b":%d\r\n" % item if type(item) is int else _bulk(item) for item in items])
