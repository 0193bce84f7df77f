"""The nodes of `redlock.testing`: the shipped coordinators on them, and what they answer beside a
real server."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from redlock import LockContended, QuorumUnavailable, embedded, testing
from redlock.core.commands import scripts
from redlock.fakes import Database
from redlock.transport import clock
from tests.contract.api import Api

pytest.importorskip("lupa", reason="needs the extra testing")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[testing.Nodes]:
    """Three nodes; behind the test the clock of this process is set back, as no program does."""
    monkeypatch.setattr(clock, "time", time)
    monkeypatch.setattr(testing._time, "ahead", 0.0)
    with testing.Nodes() as nodes:
        yield nodes


async def test_time_passes_when_it_is_told(api: Api, memory: testing.Nodes) -> None:
    """The lease ends and says so, the lock is free on the nodes, and the next token is larger."""
    async with api.redlock(memory.urls, ttl=30.0) as locks, api.redlock(memory.urls) as others:
        lease = await locks.lock("orders").acquire()
        with pytest.raises(LockContended):
            async with others.lock("orders", timeout=0):
                pass
        memory.advance(29.0)
        assert lease.is_held()
        memory.advance(1.0)
        assert not lease.is_held()
        assert await api.wait(lease.lost)
        async with others.lock("orders", timeout=0) as other:
            assert other.fencing_token > lease.fencing_token


async def test_nodes_fail_and_forget(api: Api, memory: testing.Nodes) -> None:
    """A minority costs nothing; one that forgot waits out its quarantine, which the clock
    shortens."""
    async with api.redlock(memory.urls) as locks:
        memory[0].stop()
        async with locks.lock("orders", timeout=0):
            pass
        memory[1].forget()
        with pytest.raises(QuorumUnavailable, match="is in quarantine"):
            async with locks.lock("orders", timeout=0):
                pass
        memory.advance(120.0)
        async with locks.lock("orders", timeout=5.0):
            pass


def test_a_long_path_for_temporary_files_is_none_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which end after a hundred bytes; such a path is what tools give that have a folder for each
    test."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with testing.Nodes(1) as nodes, dialled(nodes[0]) as sock:
        sock.sendall(packed("PING"))
        assert sock.recv(99) == b"+PONG\r\n"


def dialled(node: testing.Node) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(node.path))
    sock.settimeout(5.0)
    return sock


def packed(*words: str) -> bytes:
    data: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return data


def test_one_that_went_away_or_talks_nonsense_costs_nobody_else(memory: testing.Nodes) -> None:
    """A subscriber that is gone as something is published, words that are no command, and a script
    that is no Lua: whoever is in order is answered."""
    with dialled(memory[0]) as publisher, dialled(memory[0]) as subscriber:
        subscriber.sendall(packed("SUBSCRIBE", "c"))
        assert subscriber.recv(99)
        with memory._server._guard:  # Nothing is read before both have happened.
            publisher.sendall(packed("PUBLISH", "c", "m") + packed("TIME"))
            subscriber.close()
            for nonsense in (b"*1\r\n:5\r\n", b"\0\r\n", b"*0\r\n", packed("EVAL", ")", "0")):
                with dialled(memory[0]) as other:
                    other.sendall(nonsense)
        publisher.sendall(packed("PING"))
        told = b""
        while not told.endswith(b"+PONG\r\n"):
            told += publisher.recv(99)
        assert told.startswith(b":1\r\n*2\r\n")


def test_a_forked_child_keeps_no_connection_and_serves_nobody(memory: testing.Nodes) -> None:
    """The nodes are its parent's: what is sent to them while time passes in the child is not
    executed there, and a stop hangs up though the child has the descriptors too."""
    ours, its = socket.socketpair()
    with dialled(memory[0]) as sock, ours, its:
        sock.sendall(packed("PING"))
        assert sock.recv(99)
        with memory._server._guard:
            sock.sendall(packed("SET", "a", "1") + packed("GET", "a"))
            child = os.fork()
            if not child:
                ours.close()  # Or it would not hear that a test which failed has ended.
                testing.advance(1.0)
                its.send(b"passed")
                its.recv(9)
                os._exit(0)
            ours.settimeout(5.0)
            assert ours.recv(9) == b"passed"
        told = sock.recv(99)
        assert memory[0].database.data[b"a"] == (b"1", None) and told.startswith(b"+OK")
        memory[0].stop()
        while told:
            told = sock.recv(99)
        ours.send(b"end")
        assert os.waitpid(child, 0)[1] == 0


COMMANDS = """
GET a|SET a 1|GET a|SET a 2 NX|SET b 3 XX|SET a 3 PX 60000 XX|EXISTS a b|PTTL b|DEL a b|PTTL a
SET a x|PTTL a|PEXPIRE a 5000000|PEXPIRE b 5|SET a y KEEPTTL|DEL a|ZADD z 5 a 3 b|ZADD z XX 0 x
ZADD z NX 9 a|ZSCORE z a|ZSCORE z c|ZCARD z|ZADD z -2.5 d|ZRANGEBYSCORE z -inf +inf|GET z
ZRANGEBYSCORE z (3 5 WITHSCORES|ZRANGEBYSCORE z -inf inf LIMIT 0 1|ZREM z a b c d|EXISTS z
SET q* 1|SET qa 1|ZADD qz 1 a|SCAN 0 MATCH q\\* COUNT 99|SCAN 0 MATCH q[!-)] COUNT 99|DEL q* qa
SCAN 0 MATCH q? TYPE string COUNT 99|SCAN 0 MATCH q? TYPE ZSET COUNT 99
SET s t|ZADD s 1 a|PUBLISH c m|PUBSUB NUMSUB c|SCAN 0 MATCH q*|EVALSHA abc 0|NONE|GET|FLUSHALL
""".replace("\n", "|").split("|")
LUA = [
    "return {1, 'a', {2.9, {}}, false, 4}",
    "return {1, nil, 3}",
    "return {ok='fine'}",
    "return redis.error_reply('MINE said so')",
    "return redis.call('SET', 'k', 12, 'PX', 60000)",
    "return {redis.call('GET', 'k'), redis.call('GET', 'none'), type(redis.call('GET', 'none'))}",
    "return redis.pcall('ZADD', 'k', 1, 'a').err",
    "return redis.call('ZADD', 'k', 1, 'a')",
    "redis.call('ZADD', KEYS[1], string.format('%.0f', 1795920832477183), 'm') return {KEYS, ARGV}",
    "return redis.call('ZSCORE', 'zz', 'm')",
    "return true",
    "return {string.find(redis.call('INFO', 'replication'), 'role:master\\r', 1, true)}",
]


def plain(data: bytes) -> Any:
    """An answer as Python has it; of an error the word that programs go by."""
    reader = hiredis.Reader()
    reader.feed(data)
    answer = reader.gets()
    assert answer is not False, data
    return str(answer).split()[0] if isinstance(answer, hiredis.ReplyError) else answer


def test_they_answer_as_a_real_server_does(own_nodes: embedded.Nodes) -> None:
    """Every command that our scripts may call, and what becomes of Lua's values."""
    ours = Database(clock.now, lambda: time.time_ns() // 1000)
    ours.data[b"redlock:node"] = (b"", None)
    asked: list[tuple[str, ...]] = [tuple(line.split()) for line in COMMANDS if line]
    asked += [("EVAL", source, "1", "zz", "v") for source in LUA]
    asked += [("SCRIPT", "LOAD", script.source) for script in scripts()]
    with socket.create_connection(("127.0.0.1", own_nodes[0].port)) as real:
        for words in asked:
            real.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
            expected = plain(real.recv(65536))
            packed = [word.encode() for word in words]
            assert plain(b"".join(data for _, data in ours.answer(packed, None))) == expected, words
