"""As much of a Redis server as redlock asks for, without a socket: words in, bytes out. The scripts
are executed by Lua itself (`lupa`), so that what they say is what happens.

`redlock.testing` serves it. Time comes from whoever makes it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Long: every command that redlock asks of a server, and Lua beside it.
__all__ = ["Database", "Error", "encoded"]

Value = bytes | dict[bytes, float]
"""A string, or a sorted set."""


class Error(Exception):
    """What the server says that is an error."""


class Status(str):
    """A simple string."""


def encoded(answer: Any) -> bytes:
    """*answer* as RESP2."""
    match answer:
        case None:
            return b"$-1\r\n"
        case Error():
            return f"-{answer}\r\n".encode()
        case Status():
            return f"+{answer}\r\n".encode()
        case int():
            return b":%d\r\n" % answer
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case _:
            return b"*%d\r\n%b" % (len(answer), b"".join(map(encoded, answer)))


def _number(score: float) -> bytes:
    return b"%d" % score if score == int(score) else repr(score).encode()


class Database:
    """What one server holds and says of itself. *now*: seconds that only rise; *wall_us*:
    microseconds since the epoch."""

    def __init__(self, now: Callable[[], float], wall_us: Callable[[], int]) -> None:
        self._now = now
        self._wall_us = wall_us
        self.subscribers: dict[bytes, list[Any]] = {}
        """Connections by channel."""
        self._published: list[tuple[Any, bytes]] = []
        self._lua = _Lua(self.execute)
        self.restart()

    def restart(self) -> None:
        """Be a new process with no data."""
        self.data: dict[bytes, tuple[Value, float | None]] = {}
        self.run_id = secrets.token_hex(20)
        self.replication_id = secrets.token_hex(20)
        self._started_at = self._now()
        self._scripts: dict[bytes, bytes] = {}

    def answer(self, words: Sequence[bytes], connection: Any) -> Iterator[tuple[Any, bytes]]:
        """Execute a command of *connection*; gives what is to be sent, and to whom."""
        verb = words[0].upper()
        if verb in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            for channel in words[1:]:
                members = self.subscribers.setdefault(channel, [])
                if connection in members:
                    members.remove(connection)
                if verb == b"SUBSCRIBE":
                    members.append(connection)
                count = sum(connection in each for each in self.subscribers.values())
                yield connection, encoded([verb.lower(), channel, count])
            return
        try:
            answer = encoded(self.execute(words))
        except Error as error:
            answer = encoded(error)
        except Exception as error:  # A script that is no Lua, say; others are served on.
            answer = encoded(Error("ERR " + " ".join(str(error).split())))
        yield connection, answer
        while self._published:
            yield self._published.pop(0)

    def left(self, connection: Any) -> None:
        """*connection* is gone."""
        for members in self.subscribers.values():
            if connection in members:
                members.remove(connection)

    def execute(self, words: Sequence[bytes]) -> Any:
        """One command's answer. Raises Error."""
        verb, *rest = words
        command = getattr(self, f"_{verb.decode(errors='replace').lower()}", None)
        if command is None or verb.startswith(b"_"):
            raise Error(f"ERR unknown command '{verb.decode(errors='replace')}'")
        try:
            return command(*rest)
        except (TypeError, ValueError):
            raise Error(f"ERR wrong arguments for '{verb.decode()}' command") from None

    def _find(self, key: bytes) -> Value | None:
        value, until = self.data.get(key, (None, None))
        if until is not None and until <= self._now():
            del self.data[key]
            return None
        return value

    # Connections

    def _auth(self, *words: bytes) -> Any:
        return Status("OK")

    _select = _client = _auth

    def _ping(self) -> Any:
        return Status("PONG")

    def _time(self) -> list[bytes]:
        seconds, micros = divmod(self._wall_us(), 1_000_000)
        return [b"%d" % seconds, b"%d" % micros]

    def _info(self, *sections: bytes) -> bytes:
        known: dict[str, dict[str, object]] = {
            "server": {
                "redis_version": "7.2.4",
                "run_id": self.run_id,
                "uptime_in_seconds": int(self._now() - self._started_at),
            },
            "memory": {"maxmemory": 0, "maxmemory_policy": "noeviction"},
            "persistence": {"loading": 0},
            "stats": {"evicted_keys": 0},
            "replication": {
                "role": "master",
                "master_replid": self.replication_id,
                "master_replid2": "0" * 40,
                "second_repl_offset": -1,
            },
            "cluster": {"cluster_enabled": 0},
        }
        asked = [section.decode().lower() for section in sections] or list(known)
        return "".join(
            f"# {name.title()}\r\n"
            + "".join(f"{key}:{value}\r\n" for key, value in known.get(name, {}).items())
            + "\r\n"
            for name in asked
        ).encode()

    # Keys

    def _get(self, key: bytes) -> bytes | None:
        value = self._find(key)
        if isinstance(value, dict):
            raise Error("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        words = [option.upper() for option in options]
        present = self._find(key) is not None
        if (b"NX" in words and present) or (b"XX" in words and not present):
            return None
        until = self.data[key][1] if present and b"KEEPTTL" in words else None
        for unit, length in ((b"PX", 0.001), (b"EX", 1.0)):
            if unit in words:
                until = self._now() + int(words[words.index(unit) + 1]) * length
        self.data[key] = (value, until)
        return Status("OK")

    def _del(self, *keys: bytes) -> int:
        found = [key for key in keys if self._find(key) is not None]
        for key in found:
            del self.data[key]
        return len(found)

    def _exists(self, *keys: bytes) -> int:
        return sum(self._find(key) is not None for key in keys)

    def _pttl(self, key: bytes) -> int:
        if self._find(key) is None:
            return -2
        until = self.data[key][1]
        return -1 if until is None else int((until - self._now()) * 1000)

    def _pexpire(self, key: bytes, length: bytes) -> int:
        value = self._find(key)
        if value is None:
            return 0
        self.data[key] = (value, self._now() + int(length) / 1000)
        return 1

    def _scan(self, cursor: bytes, *options: bytes) -> list[Any]:
        words = [option.upper() for option in options[::2]]
        named = dict(zip(words, options[1::2], strict=True))
        kind = named.get(b"TYPE", b"").lower()
        matches = _glob(named.get(b"MATCH", b"*")).fullmatch
        found = [(key, self._find(key)) for key in list(self.data) if matches(key)]
        kinds = {
            key: b"string" if isinstance(value, bytes) else b"zset"
            for key, value in found
            if value is not None
        }
        return [b"0", [key for key, its in kinds.items() if not kind or its == kind]]

    def _flushall(self, *options: bytes) -> Any:
        self.data.clear()
        return Status("OK")

    # Sorted sets

    def _set_of(self, key: bytes) -> dict[bytes, float]:
        value = self._find(key)
        if isinstance(value, bytes):
            raise Error("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value or {}

    def _store(self, key: bytes, members: dict[bytes, float]) -> None:
        if members:
            self.data[key] = (members, self.data[key][1] if key in self.data else None)
        else:
            self.data.pop(key, None)

    def _zadd(self, key: bytes, *words: bytes) -> int:
        flags = {word.upper() for word in words if word.upper() in (b"NX", b"XX", b"CH")}
        pairs = [word for word in words if word.upper() not in (b"NX", b"XX", b"CH")]
        members = dict(self._set_of(key))
        added = 0
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            known = member in members
            if not ((b"NX" in flags and known) or (b"XX" in flags and not known)):
                added += not known
                members[member] = float(score)
        self._store(key, members)
        return added

    def _zrem(self, key: bytes, *names: bytes) -> int:
        members = dict(self._set_of(key))
        gone = sum(members.pop(name, None) is not None for name in names)
        self._store(key, members)
        return gone

    def _zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = self._set_of(key).get(member)
        return None if score is None else _number(score)

    def _zcard(self, key: bytes) -> int:
        return len(self._set_of(key))

    def _zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[bytes]:
        ordered = sorted((score, name) for name, score in self._set_of(key).items())
        found = [each for each in ordered if _from(low, each[0]) and _from(high, each[0], up=True)]
        words = [option.upper() for option in options]
        if b"LIMIT" in words:
            start, count = map(int, words[words.index(b"LIMIT") + 1 :][:2])
            found = found[start:] if count < 0 else found[start : start + count]
        if b"WITHSCORES" in words:
            return [part for score, name in found for part in (name, _number(score))]
        return [name for _, name in found]

    # Channels

    def _publish(self, channel: bytes, message: bytes) -> int:
        members = self.subscribers.get(channel, [])
        told = encoded([b"message", channel, message])
        self._published += [(each, told) for each in members]
        return len(members)

    def _pubsub(self, word: bytes, *channels: bytes) -> list[Any]:
        if word.upper() != b"NUMSUB":
            raise Error("ERR only PUBSUB NUMSUB is known")
        return [part for each in channels for part in (each, len(self.subscribers.get(each, [])))]

    # Scripts

    def _script(self, word: bytes, source: bytes) -> bytes:
        if word.upper() != b"LOAD":
            raise Error("ERR only SCRIPT LOAD is known")
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._scripts[sha] = source
        return sha

    def _eval(self, source: bytes, count: bytes, *words: bytes) -> Any:
        self._script(b"LOAD", source)
        return self._lua.run(source, words[: int(count)], words[int(count) :])

    def _evalsha(self, sha: bytes, count: bytes, *words: bytes) -> Any:
        source = self._scripts.get(sha)
        if source is None:
            raise Error("NOSCRIPT No matching script. Please use EVAL.")
        return self._lua.run(source, words[: int(count)], words[int(count) :])


def _glob(pattern: bytes) -> re.Pattern[bytes]:
    """What MATCH means: *, ?, [...], and a backslash before what stands for itself."""
    parts = re.findall(rb"\\.|\[[^\]]*\]|.", pattern, re.DOTALL)
    known = {b"*": b".*", b"?": b"."}
    meant = [
        part if len(part) > 1 and part[:1] == b"[" else known.get(part, re.escape(part[-1:]))
        for part in parts
    ]
    return re.compile(b"".join(meant), re.DOTALL)


def _from(bound: bytes, score: float, *, up: bool = False) -> bool:
    """Whether *score* is on the right side of a bound, such as (1, -inf or 7."""
    limit = float(bound.lstrip(b"("))
    if bound.startswith(b"("):
        return score < limit if up else score > limit
    return score <= limit if up else score >= limit


class _Lua:
    """Runs scripts as a server does: `redis.call` and its kin, KEYS and ARGV, answers as RESP has
    them."""

    def __init__(self, execute: Callable[[Sequence[bytes]], Any]) -> None:
        try:
            from lupa import lua51
        except ImportError:
            raise RuntimeError(
                "redlock.testing needs Lua: pip install 'redlock-quorum[testing]'"
            ) from None
        self._execute = execute
        self._type = lua51.lua_type
        self._lua = lua51.LuaRuntime(encoding=None)
        self._known: dict[bytes, Any] = {}
        table, self._globals = self._lua.table_from, self._lua.globals()
        # `call` raises in Lua, with what the script would be aborted with.
        raising = self._lua.execute(
            b"local ask = ...; return function(...) local answer = ask(...)"
            b" if type(answer) == 'table' and answer.err then error(answer, 0) end"
            b" return answer end",
            self._ask,
        )
        self._globals[b"redis"] = table(
            {
                b"call": raising,
                b"pcall": self._ask,
                b"error_reply": lambda text: table({b"err": text}),
                b"status_reply": lambda text: table({b"ok": text}),
                b"sha1hex": lambda text: hashlib.sha1(text).hexdigest().encode(),
            }
        )
        self._run = self._lua.execute(
            b"return function(script)"
            b" local fine, answer = pcall(script)"
            b" if fine or type(answer) == 'table' then return answer end"
            b" return {err = 'ERR ' .. tostring(answer)} end"
        )

    def run(self, source: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """What *source* gives. Raises Error."""
        script = self._known.get(source)
        if script is None:
            script = self._known[source] = self._lua.compile(source)
        self._globals[b"KEYS"] = self._lua.table_from(list(keys))
        self._globals[b"ARGV"] = self._lua.table_from(list(arguments))
        answer = self._answer(self._run(script))
        if isinstance(answer, Error):
            raise answer
        return answer

    def _ask(self, *words: Any) -> Any:
        try:
            return self._value(self._execute([_word(word) for word in words]))
        except Error as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _value(self, answer: Any) -> Any:
        """An answer of ours, as a script sees it."""
        if answer is None:
            return False
        if isinstance(answer, Status):
            return self._lua.table_from({b"ok": answer.encode()})
        if isinstance(answer, list):
            return self._lua.table_from([self._value(each) for each in answer])
        return answer

    def _answer(self, value: Any) -> Any:
        """What a script gave, as an answer of ours."""
        if self._type(value) == "table":
            if value[b"err"] is not None:
                return Error(value[b"err"].decode())
            if value[b"ok"] is not None:
                return Status(value[b"ok"].decode())
            found = []
            for place in range(1, len(value) + 1):
                if value[place] is None:
                    break
                found.append(self._answer(value[place]))
            return found
        if isinstance(value, bool):
            return 1 if value else None
        return int(value) if isinstance(value, float) else value


def _word(word: Any) -> bytes:
    if isinstance(word, float):
        return b"%d" % word if word == int(word) else repr(word).encode()
    return word if isinstance(word, bytes) else str(word).encode()
