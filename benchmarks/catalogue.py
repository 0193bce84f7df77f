"""Who takes part: this library, the yardsticks, and the other libraries, with how each one's
process is started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.build import CACHE, HERE, Missing, c_program, go_program, node_program, rust_program
from redlock.core.commands import FREE, TAKE
from tests.peers import PeerMissing, environment

__all__ = ["CONTENDERS", "Contender"]

PEERS: dict[str, tuple[str, ...]] = {
    "redlock-py": ("redlock-py==1.0.8", "redis[hiredis]==8.1.0"),
    "pottery": (
        "pottery==3.0.1",
        "redis[hiredis]==8.1.0",
        "mmh3==5.3.1",
        "typing_extensions==4.16.0",
    ),
    "redlock-ng": ("redlock-ng==2.0.4", "redis[hiredis]==5.3.1"),
    "aioredlock": ("aioredlock==0.7.3", "aioredis==1.3.1", "hiredis==3.5.0", "setuptools==80.9.0"),
    "python-redis-lock": ("python-redis-lock==4.0.1", "redis[hiredis]==8.1.0"),
}
"""Peers' newest releases, each with the newest redis-py that it takes, and with hiredis, which
makes all of them faster."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the tables. *group*: "ours", "yardstick" or "peer". *command* builds what is
    missing and gives the words that start its process, or raises Missing. *nodes*: how many it
    locks on."""

    key: str
    title: str
    group: str
    command: Callable[[], list[str]]
    nodes: int = 5


def _serve(
    adapter: str, python: Callable[[], Path] = lambda: Path(sys.executable)
) -> Callable[[], list[str]]:
    return lambda: [str(python()), "-I", str(HERE / "contenders" / "serve.py"), adapter]


def _environment(name: str) -> Path:
    home = CACHE / "peers"
    home.parent.mkdir(exist_ok=True)
    try:
        return environment(name, PEERS[name], home)
    except PeerMissing as error:
        raise Missing(str(error)) from None


def _peer(adapter: str, name: str | None = None) -> Callable[[], list[str]]:
    return _serve(adapter, partial(_environment, name or adapter))


def _floor(*words: str) -> Callable[[], list[str]]:
    return lambda: [str(c_program("floor")), *words]


CONTENDERS: Sequence[Contender] = (
    Contender("floor", "C, epoll: the floor", "yardstick", _floor("plain")),
    Contender(
        "floor-scripts",
        "C, epoll, this project's scripts",
        "yardstick",
        _floor("ballot", TAKE.sha, FREE.sha),
    ),
    Contender("minimal", "minimal Python loop", "yardstick", _serve("minimal")),
    Contender(
        "minimal-mutex", "minimal loop, one set under a mutex", "yardstick", _serve("minimal-mutex")
    ),
    Contender("gather", "redis.asyncio, gather", "yardstick", _serve("gather")),
    Contender("ours", "redlock, blocking", "ours", _serve("ours")),
    Contender("ours-asyncio", "redlock.asyncio", "ours", _serve("ours-asyncio")),
    Contender("ours-uvloop", "redlock.asyncio on uvloop", "ours", _serve("ours-uvloop")),
    Contender("ours-one", "redlock, one node", "ours", _serve("ours"), nodes=1),
    Contender("redis-py-lock", "redis-py Lock, one node", "peer", _serve("redis-py-lock"), nodes=1),
    Contender(
        "python-redis-lock",
        "python-redis-lock, one node",
        "peer",
        _peer("python-redis-lock"),
        nodes=1,
    ),
    Contender("redlock-py", "redlock-py", "peer", _peer("redlock-py")),
    Contender(
        "redlock-py-tuned",
        "redlock-py, retry after 5 ms",
        "peer",
        _peer("redlock-py-tuned", "redlock-py"),
    ),
    Contender("pottery", "pottery", "peer", _peer("pottery")),
    Contender("redlock-ng", "redlock-ng", "peer", _peer("redlock-ng")),
    Contender(
        "redlock-ng-tuned",
        "redlock-ng, retry after 1-5 ms",
        "peer",
        _peer("redlock-ng-tuned", "redlock-ng"),
    ),
    Contender(
        "redlock-ng-asyncio",
        "redlock-ng, asyncio",
        "peer",
        _peer("redlock-ng-asyncio", "redlock-ng"),
    ),
    Contender("aioredlock", "aioredlock", "peer", _peer("aioredlock")),
    Contender("rslock", "rslock (Rust)", "peer", lambda: [str(rust_program())]),
    Contender("node-redlock", "node-redlock 5 (Node)", "peer", node_program),
    Contender("redsync", "redsync (Go)", "peer", lambda: [str(go_program())]),
)
