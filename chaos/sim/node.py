"""A simulated server: the semantics of our Lua files in Python, a wall clock of its own, and ways
to forget.

`execute` takes RESP words and gives bytes, so that the shipped links talk to it as to a real
server; `perform` takes a command as it is, for runs of the flows alone. `tests/sim/test_node.py`
runs it side by side with a real server on random commands, so that the two cannot drift apart. From
outside the scripts it also notes what the audit asks a node about.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import hiredis

from chaos.sim.queue import NO_RIGHTS, Listener, Queues, read_place
from redlock.core.commands import (
    FREE,
    LEAVE,
    LOOK,
    MARK,
    MARKER_KEY,
    PEEK,
    QUEUE_SUFFIX,
    REPAIR,
    SHOWN_MAX,
    TAKE,
    TOKEN_MAX,
    Command,
    Script,
)
from redlock.core.identity import Blank, Identity, Memory, is_blank

__all__ = ["EPOCH_US", "ScriptError", "SimNode", "commands", "marked"]

Value = tuple[str, float | None]
"""A string and, in milliseconds of the node's clock, when it expires."""
Answer = int | list[Any]
"""As hiredis gives it."""

EPOCH_US = 1_800_000_000_000_000
"""Where simulated wall clocks start."""
AHEAD_US = 60_000_000
STEPS_AHEAD = 2048
"""How far a token may be past the node's clock, or past the fence: the clamp of `take.lua` and
`free.lua`."""


class Line(Listener, Protocol):
    """As much of a connection as the audit looks at."""

    freed: set[str]
    closed_by_client: bool
    closed_by_node: bool
    client: str
    way: int


class SimNode:
    """One server. *rate*: seconds of its clock per second of true time; *offset*: seconds it is
    ahead."""

    def __init__(self, index: int, draw: Callable[[], str]) -> None:
        self.index = index
        self.rate = 1.0
        self.offset = 0.0
        self.paused = False
        self.up = True
        self.role = "master"
        self.policy = "noeviction"
        self.cluster_enabled = 0
        self.loading = 0
        self.out_of_memory = False
        self.cut_short = False
        """The next TAKE that writes is aborted between its two writes."""
        self.babbles = False
        """Something between it and its clients answers scripts with what no script of ours
        gives."""
        self.mumbles = False
        """The same, and to the greeting."""
        self.uptime: str | None = None
        """What it says of its uptime, if not the truth."""
        self.flaps = False
        """Something between it and its clients breaks every connection on which a script comes."""
        self.refuses = ""
        """The error that it answers every script with."""
        self.repeats: list[tuple[Sequence[str], Sequence[Any]]] | None = None
        """Marks that it executed and will execute once more; None: it will not."""
        self._standby: tuple[Any, ...] | None = None
        self._other_data: dict[str, Value] = {}
        self._draw = draw
        self.run_id = draw()
        self.replication_id = draw()
        """What INFO calls `master_replid`; `replication_id_before`: `master_replid2`;
        `promoted_at`: `second_repl_offset`."""
        self.replication_id_before = "0" * 40
        self.promoted_at = "-1"
        self.evicted = 0
        self.started_at = 0.0
        self.data: dict[str, Value] = {}
        self.queues = Queues(self)
        self.scripts: set[str] = set()
        self.snapshot: dict[str, Value] = {}
        self.taken: dict[str, int] = {}
        """By owner, the last token it took the lock with here; and `freed`, by owner, the
        largest it gave back here."""
        self.freed: dict[str, int] = {}
        self.orphans: dict[str, Line] = {}
        """By owner, the connection by which a TAKE came after a release of the same owner that
        had changed nothing here."""
        self.places: dict[str, str] = {}
        """By owner, the place in the queue with which it took the lock here."""
        self.unpoisoned: set[str] = set()
        """Owners whose release found no memory left for the fence that keeps a late TAKE out."""
        self.line: Line | None = None
        """The connection by which the present command came."""
        self.top_ups = 0
        self.wrongs: list[tuple[float, str, str]] = []
        """When, which property, and what: what no node may ever see."""

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
        self.queues.unsubscribe_all()
        if kept != "durable":
            self.queues.clear()
            self._forgot()

    def start(self, at: float) -> None:
        """It comes up again, as another run."""
        self.up = True
        self.role = "master"
        self.run_id = self._draw()
        self._rename()
        self.evicted = 0
        self.started_at = at
        self.scripts = set()

    def _rename(self, before: str = "0" * 40, promoted_at: str = "-1") -> None:
        """It has another replication id from now on."""
        self.replication_id = self._draw()
        self.replication_id_before, self.promoted_at = before, promoted_at

    def back_up(self) -> None:
        """The first replica, or a backup, comes or leaves: nothing is lost, and the replication
        id is another one."""
        self._rename()

    def demote(self, master: SimNode) -> None:
        """REPLICAOF: its data are a copy of its master's from now on, and it shows that one's
        replication id as its own."""
        self.role = "slave"
        self.copy(master)

    def copy(self, master: SimNode) -> None:
        """What replication brings: all that its master has, the marker included."""
        self.data = dict(master.data)
        self.queues.copy(master.queues)
        self.replication_id = master.replication_id
        self._forgot()

    def promote(self) -> None:
        """REPLICAOF NO ONE: a master again, under a new replication id, beside which it still
        shows the one before."""
        self.role = "master"
        self._rename(self.replication_id, "4711")

    @property
    def marked(self) -> bool:
        """Whether it has a marker, and not only the blank one."""
        return marked(self.data)

    @property
    def was_marked(self) -> bool:
        """Whether it shows who never met its cluster that it is no new one: by its marker, or by
        what `init` left of that."""
        put = Blank.parse(self.data[MARKER_KEY][0]) if MARKER_KEY in self.data else None
        return self.marked or (put is not None and put.wait_ttl > 0)

    def save(self) -> None:
        """Remember what a later rollback brings back."""
        self.snapshot = dict(self.data)

    def flush(self) -> None:
        """FLUSHALL."""
        self.data = {}
        self.queues.clear()
        self._forgot()

    def evict(self, kind: str, *, counts: bool = False) -> None:
        """Drop the "lock"s, the "fence"s or "all", and keep the marker. *counts*: it says how
        many, or nobody can see it."""
        kept = {
            key: value
            for key, value in self.data.items()
            if key == MARKER_KEY or _is(kind, key) is False
        }
        if counts:
            self.evicted += len(self.data) - len(kept)
        self.data = kept
        if kind == "all":
            self.queues.clear()
        if kind != "lock":
            self._forgot()

    def _forgot(self) -> None:
        """With its fences it forgot which doors were shut."""
        self.freed = dict.fromkeys(self.freed, 0)

    def holders(self) -> list[str]:
        """The owners of the locks that it has now, whether they expired or not."""
        return [
            value[0].partition(":")[0]
            for key, value in self.data.items()
            if not key.endswith((":fence", MARKER_KEY, QUEUE_SUFFIX))
        ]

    # What stands in for it

    def stand_in(self, at: float) -> None:
        """Another server answers under this name: the one that stood by, or the one that did
        before."""
        ours = (
            self.run_id,
            self.replication_id,
            self.replication_id_before,
            self.promoted_at,
            self.evicted,
            self.data,
        )
        theirs = self._standby or (self._draw(), self._draw(), "0" * 40, "-1", 0, {})
        (
            self.run_id,
            self.replication_id,
            self.replication_id_before,
            self.promoted_at,
            self.evicted,
            self.data,
        ) = theirs
        self.role = "master"
        self.scripts = set()
        self.started_at = min(self.started_at, at)
        self._standby = ours
        self.queues.clear()
        self.queues.unsubscribe_all()
        self._forgot()

    def swap(self) -> None:
        """SWAPDB with a database that was empty at first: other data, the marker among them, in
        the same memory."""
        self.data, self._other_data = self._other_data, self.data
        self.queues.clear()
        self._forgot()

    @property
    def stood_by(self) -> bool:
        """Whether the server that would stand in has been behind this name before."""
        return self._standby is not None

    @property
    def swapped(self) -> bool:
        """Whether a swap would bring data back."""
        return bool(self._other_data)

    def repeat(self, at: float) -> None:
        """Marks that were executed since `repeats` was set are executed once more: something in
        between sent them twice."""
        marks, self.repeats = self.repeats or [], None
        for keys, arguments in marks:
            with contextlib.suppress(ScriptError):
                self._mark(keys, arguments, self.wall_us(at))

    # Its commands

    def identity(self, at: float) -> Identity:
        """What a greeting learns."""
        if self.refuses:
            raise ScriptError(self.refuses)
        now = self.wall_us(at)
        return Identity(  # As `Identity.parse` would read its INFO, which a test holds it to.
            Memory(self.run_id, self.replication_id),
            self.role,
            bool(self.cluster_enabled),
            bool(self.loading),
            self.policy,
            float(self._uptime(at)) if self.uptime is None else 0.0,
            "sim",
            self._get(MARKER_KEY, now // 1000) or "",
            now / 1e6,
            self.promoted_at,
            self.evicted,
            self._mute(),
        )

    def perform(self, command: Command, marker: str, at: float) -> Any:
        """One command, atomically; the answer as hiredis would give it. Raises ScriptError."""
        script = command.script
        assert script is not None
        arguments = (*command.args, marker) if command.marked else command.args
        if script is PEEK and not self.babbles and not self.refuses:
            return self._peek(command.keys, arguments, self.wall_us(at))
        return self._run(script, command.keys, arguments, at)

    def execute(self, words: list[bytes], at: float) -> bytes:
        """One command, atomically; the reply as bytes."""
        name = words[0]
        if name == b"EVALSHA" or name == b"EVAL":
            return self._evaluate(name, words, at)
        if name == b"GET":
            value = self._get(words[1].decode(), self.wall_us(at) / 1000)
            return b"$-1\r\n" if value is None else _bulk(value.encode())
        if name == b"TIME":
            now = self.wall_us(at)
            return _reply([str(now // 1_000_000).encode(), str(now % 1_000_000).encode()])
        if name == b"INFO":
            if self.mumbles:
                return b":7\r\n"
            return _bulk(
                "".join(
                    [f"{name}:{value}\r\n" for name, value in self._fields(at).items()]
                ).encode()
            )
        if name == b"SUBSCRIBE":
            return self.queues.subscribe(words[1].decode(), self.line)
        if name == b"PING":
            subscribed = self.queues.subscribed(self.line)
            return b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" if subscribed else b"+PONG\r\n"
        if name == b"SCRIPT":
            script = _by_source(words[2])
            assert script is not None
            self.scripts.add(script.sha)
            return _bulk(script.sha.encode())
        return b"-ERR unknown command\r\n"

    def _evaluate(self, name: bytes, words: list[bytes], at: float) -> bytes:
        script = _BY_SHA.get(words[1]) if name == b"EVALSHA" else _by_source(words[1])
        if script is None or (name == b"EVALSHA" and script.sha not in self.scripts):
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        self.scripts.add(script.sha)
        count = 3 + int(words[2])
        keys = [word.decode() for word in words[3:count]]
        try:
            answer = self._run(script, keys, [word.decode() for word in words[count:]], at)
        except ScriptError as error:
            return f"-{error}\r\n".encode()
        return _reply(answer)

    def _run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], at: float
    ) -> Answer:
        now = self.wall_us(at)
        if self.refuses:
            raise ScriptError(self.refuses)
        if self.repeats is not None and script is MARK:
            self.repeats.append((keys, arguments))
        if script is LOOK:
            return 7 if self.mumbles else self._look(keys, arguments, now, at)
        if self.babbles:  # A number, because a grant is one; and free, with nonsense who waits.
            return [4, 0, 7] if script is PEEK and not arguments else 7
        before = self.data.get(keys[0])
        answer: Answer = getattr(self, _SCRIPT_METHODS[script])(keys, arguments, now)
        if script is TAKE:
            self._took(keys, arguments, answer, before, now, at)
        elif script is FREE:
            self._freed(keys, arguments, answer, before, now, at)
        return answer

    def _uptime(self, at: float) -> int:
        return int((self.wall_us(at) - EPOCH_US) / 1e6 - self.offset - self.started_at * self.rate)

    def _fields(self, at: float) -> dict[str, str]:
        return {
            "run_id": self.run_id,
            "uptime_in_seconds": self.uptime or str(self._uptime(at)),
            "redis_version": "sim",
            "evicted_keys": str(self.evicted),
            "role": self.role,
            "master_replid": self.replication_id,
            "master_replid2": self.replication_id_before,
            "second_repl_offset": self.promoted_at,
            "loading": str(self.loading),
            "maxmemory_policy": self.policy,
            "cluster_enabled": str(self.cluster_enabled),
        }

    # What it saw, for the audit

    def _took(
        self,
        keys: Sequence[str],
        arguments: Sequence[Any],
        answer: Answer,
        before: Value | None,
        now: int,
        at: float,
    ) -> None:
        owner, number = arguments[0], int(arguments[1])
        if answer != number or arguments[5] == "verify":
            return
        self.taken[owner] = number
        self.places[owner] = arguments[2]
        if owner in self.freed:
            self._took_late(owner, at)
        if self.freed.get(owner, 0) >= number:
            self.wrongs.append(
                (
                    at,
                    "R7: a release is final",
                    f"n{self.index} was taken by {owner[:8]} after its release",
                )
            )
        after = self.data.get(keys[0])
        if after is None or after[1] is None:
            self.wrongs.append(
                (
                    at,
                    "I11: every lock expires",
                    f"n{self.index} has a lock of {owner[:8]} without an expiry",
                )
            )
            return
        if arguments[5] == "extend" and before is None:
            self.top_ups += 1
        longest = now // 1000 + int(arguments[3])
        if after[1] > longest and not (
            before is not None and before[1] is not None and after[1] <= before[1]
        ):
            text = f"n{self.index} keeps the lock of {owner[:8]} for longer than was asked"
            self.wrongs.append((at, "I11: every lock expires", text))

    def _took_late(self, owner: str, at: float) -> None:
        """A TAKE came after the release of its owner: by another connection, or it is a wrong."""
        if self.line is None:
            return
        if owner in self.line.freed:
            text = (
                f"n{self.index} was asked by {owner[:8]} behind its release, on the same connection"
            )
            self.wrongs.append((at, "R7: a release goes behind its acquire", text))
        if owner not in self.unpoisoned:
            self.orphans[owner] = self.line

    def _freed(
        self,
        keys: Sequence[str],
        arguments: Sequence[Any],
        answer: Answer,
        before: Value | None,
        now: int,
        at: float,
    ) -> None:
        owner, number = arguments[0], int(arguments[1])
        self.orphans.pop(owner, None)
        if self.line is not None:
            self.line.freed.add(owner)
        if (
            before is not None
            and not before[0].startswith(f"{owner}:")
            and (before[1] is None or now // 1000 <= before[1])
        ):
            if self.data.get(keys[0]) != before:
                text = f"n{self.index}: the release of {owner[:8]} hit the lock of {before[0][:8]}"
                self.wrongs.append((at, "I8: a release is the owner's alone", text))
            self.freed.setdefault(owner, 0)  # Somebody else holds it: no poison, by design.
        elif number <= now + AHEAD_US and not self.out_of_memory:
            self.freed[owner] = max(number, self.freed.get(owner, 0))
        else:
            self.freed.setdefault(owner, 0)
            if self.out_of_memory:
                self.unpoisoned.add(owner)

    # Keys

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
        self._writes()
        if self.out_of_memory:
            raise ScriptError("OOM command not allowed when used memory > 'maxmemory'.")
        self.data[key] = (value, None if ttl_ms is None else now_ms + ttl_ms)

    def _writes(self) -> None:
        if self.role != "master":
            raise ScriptError("READONLY You can't write against a read only replica.")

    def _fence(self, key: str, now_ms: float) -> int:
        text = self._get(key, now_ms)
        if text is None:
            return 0
        if not _DIGITS.fullmatch(text) or int(text) > TOKEN_MAX:
            raise ScriptError("REDLOCK the fence is not a number from 0 to 2^53 - 1")
        return int(text)

    def _raise_fence(self, key: str, token: str, fence_ttl: int, now_ms: float) -> None:
        left = self._pttl(key, now_ms)
        if left == -1 or (fence_ttl > 0 and left > fence_ttl * 0.999):
            expires_at = self.data[key][1]
            self._set(key, token, None, now_ms)
            self.data[key] = (token, expires_at)
        else:
            self._set(key, token, fence_ttl or None, now_ms)

    # take.lua and the others, line by line

    def _take(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        owner, token, place, ttl_text, fence_text, mode, *note, expected = arguments
        value = ":".join([owner, str(token), *note])
        number, ttl, fence_ttl, now_ms = int(token), int(ttl_text), int(fence_text), now // 1000
        lock_key, fence_key, marker_key, *queue = keys
        marker = self._get(marker_key, now_ms)
        if marker != expected:
            return [3, (marker or "").encode()]
        memory, max_ttl, floor = _limits(marker)
        if not self._remembers(memory):
            return [3, (marker or "").encode()]
        if ttl > max_ttl:
            raise ScriptError(
                f"REDLOCK a ttl of {ttl} ms is above this cluster's max_ttl of {max_ttl} ms"
            )
        fence = self._fence(fence_key, now_ms)
        held = self._get(lock_key, now_ms)
        if held is not None:
            if held == value:
                if mode == "extend":
                    if self._pttl(lock_key, now_ms) < ttl:
                        self.data[lock_key] = (held, now_ms + ttl)
                    left = self._pttl(fence_key, now_ms)
                    if fence_ttl > 0 and 0 <= left < fence_ttl:
                        self.data[fence_key] = (self.data[fence_key][0], now_ms + fence_ttl)
                return number
            if not held.startswith(f"{owner}:"):
                queued = self.queues.enter(queue[0], place, now) if place else 2
                return [0, fence, self._pttl(lock_key, now_ms), _shown(held), queued]
        waiting = bool(place) and self.queues.waits(queue[0], now)
        if waiting and held is None and self.queues.others(queue[0], place, now):
            return [5, fence, self.queues.enter(queue[0], place, now)]
        if mode == "verify":
            return [2, fence, 0, now]
        if mode == "extend":
            if fence > number:
                return [2, fence, 0, now]
        else:
            low = max(fence, floor)
            if low >= number or number > max(low + STEPS_AHEAD, now + AHEAD_US):
                return [2, low, 0, now]
        self._claim(
            partial(self._raise_fence, fence_key, str(token), fence_ttl, now_ms),
            partial(self._set, lock_key, value, ttl, now_ms),
        )
        if waiting:
            self.queues.leave(queue[0], read_place(place)[0], now)
        return number

    def _claim(self, raise_fence: Callable[[], None], take_lock: Callable[[], None]) -> None:
        """Fence first: an abort between the two leaves a raised fence, which is harmless, never
        a lock without one."""
        raise_fence()
        self._aborted()
        take_lock()

    def _aborted(self) -> None:
        if self.cut_short:
            self.cut_short = False
            raise ScriptError("ERR aborted between two writes")

    def _free(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        owner, number, place, fence_ttl, now_ms = (
            arguments[0],
            int(arguments[1]),
            arguments[2],
            int(arguments[3]),
            now // 1000,
        )
        lock_key, fence_key, *queue = keys
        held = self._get(lock_key, now_ms)
        waiting = bool(place) and self.queues.waits(queue[0], now)
        mine = held is not None and held.startswith(f"{owner}:")
        if held is not None and not mine:
            if waiting:
                self.queues.leave(queue[0], place, now)
            return 2
        if mine:
            self._writes()
            del self.data[lock_key]
        if waiting:
            self.queues.leave(queue[0], place, now)
            self.queues.tell(queue[0], "?" if place == "?" else "", now)
        text = self._get(fence_key, now_ms)
        fence = 0 if text is None else int(text) if _DIGITS.fullmatch(text) else math.inf
        if (
            fence <= number <= max(fence + STEPS_AHEAD, now + AHEAD_US)
            and not self.out_of_memory
            and self.role == "master"
        ):
            self._raise_fence(fence_key, str(number + 1), fence_ttl, now_ms)
        return int(mine)

    def _peek(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        now_ms = now // 1000
        lock_key, fence_key, marker_key, queue = keys
        if arguments:
            marker = self._get(marker_key, now_ms)
            if marker != arguments[-1]:
                return [3, (marker or "").encode()]
            if not self._remembers(_limits(marker)[0]):
                return [3, (marker or "").encode()]
        fence = self._fence(fence_key, now_ms)
        place = arguments[0] if len(arguments) > 1 else ""
        queued: list[Any] = [2] if arguments else self.queues.shown(queue, now)
        if place:
            queued = [self.queues.enter(queue, place, now)]
        held = self._get(lock_key, now_ms)
        if held is None:
            if place and self.queues.others(queue, place, now):
                return [5, fence, *queued]
            return [4, fence, *([] if arguments else queued)]
        return [0, fence, self._pttl(lock_key, now_ms), _shown(held, SHOWN_MAX), *queued]

    def _leave(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        self.queues.leave(keys[1], arguments[0], now)
        if self._get(keys[0], now // 1000) is None:
            self.queues.tell(keys[1], "?", now)
        return 1

    def _repair(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        now_ms = now // 1000
        if self._pttl(keys[0], now_ms) != -1:
            return 0
        self._writes()
        self.data[keys[0]] = (self.data[keys[0]][0], now_ms + int(arguments[0]))
        return 1

    def _mark(self, keys: Sequence[str], arguments: Sequence[Any], now: int) -> Answer:
        expected, memory, head, stamp, tail = arguments
        current = self._get(keys[0], now // 1000) or ""
        if not self._remembers(memory):
            return [3, current.encode()]
        if current != expected:
            return [0, current.encode()]
        if stamp == "now":
            stamp = str(now)
        elif stamp.startswith("+"):
            stamp = f"{max(now, int(stamp[1:]))} {now}"
        marker = f"{head} {stamp} {tail}"
        self._set(keys[0], marker, None, now // 1000)
        return [1, marker.encode()]

    def _look(self, keys: Sequence[str], arguments: Sequence[Any], now: int, at: float) -> Answer:
        info = "".join([f"{name}:{value}\r\n" for name, value in self._fields(at).items()])
        marker = self._get(keys[0], now // 1000) or ""
        return [
            info.encode(),
            marker.encode(),
            str(now // 1_000_000).encode(),
            str(now % 1_000_000).encode(),
            self._mute().encode(),
        ]

    def _mute(self) -> str:
        """Why it can queue or tell nobody; of several reasons the last one."""
        if self.queues.without:
            return NO_RIGHTS.format(self.queues.without)
        if self.role != "master":
            return "READONLY You can't write against a read only replica."
        return "OOM command not allowed" if self.out_of_memory else ""

    def _remembers(self, memory: str) -> bool:
        """Whether the memory that a marker names is the one that it has: what every script that
        votes or marks asks INFO."""
        return self.role == "master" and self.replication_id == memory


def marked(data: Mapping[str, Value]) -> bool:
    """Whether a node with this *data* has a marker, and not only the blank one."""
    return MARKER_KEY in data and not is_blank(data[MARKER_KEY][0])


class ScriptError(Exception):
    """An error reply."""


_OURS = re.compile(r"([0-9a-fA-F]{8})[0-9a-fA-F]+(:\d+.*)", re.DOTALL)
"""The first characters of an owner, and what stands behind it."""
_DIGITS = re.compile("[0-9]+")
_SCRIPTS = (TAKE, FREE, PEEK, LEAVE, LOOK, REPAIR, MARK)
_BY_SHA: dict[bytes, Script] = {script.sha.encode(): script for script in _SCRIPTS}
_SCRIPT_METHODS = {script: f"_{script.name}" for script in _SCRIPTS if script is not LOOK}


def commands(reader: hiredis.Reader) -> list[list[bytes]]:
    """The whole commands that *reader* has been fed."""
    found: list[list[bytes]] = []
    while True:
        words = reader.gets()
        if words is False:
            return found
        found.append(words)


def _by_source(text: bytes) -> Script | None:
    return next((script for script in _SCRIPTS if script.source.encode() == text), None)


def _is(kind: str, key: str) -> bool:
    return kind == "all" or (kind == "fence") == key.endswith(":fence")


@lru_cache(maxsize=1024)
def _limits(marker: str) -> tuple[str, int, int]:
    """Memory, max_ttl and floor, as `take.lua` reads them."""
    _, memory, max_ttl, floor, *_ = marker.split(" ")
    return memory, int(max_ttl), int(floor)


def _shown(value: str, of_ours: int = 128) -> bytes:
    ours = _OURS.match(value)
    text = (ours[1] + ours[2])[:of_ours] if ours else value[:128]
    if not text.isprintable():
        text = "".join(char if char >= " " and char != "\x7f" else "?" for char in text)
    return b"=" + text.encode()


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _reply(answer: Answer | bytes) -> bytes:
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    return (
        _bulk(answer)
        if isinstance(answer, bytes)
        else b"*%d\r\n" % len(answer) + b"".join(map(_reply, answer))
    )
