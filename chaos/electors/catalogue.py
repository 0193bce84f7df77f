"""The electors that can be compared: how each is started, what it needs, how it is configured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chaos.electors.stores import Addresses, lease_server, redis_servers, zookeeper
from chaos.peers.environments import environment

__all__ = ["ELECTORS", "Elector"]

REQUIREMENTS: dict[str, Sequence[str]] = {
    "multibeat": ("celery-multibeat-scheduler==0.1.0", "celery==5.7.0", "redis==8.1.0"),
    "tooz": ("tooz==9.1.0", "redis==8.1.0"),
    "kubernetes": ("kubernetes==37.0.2",),
    "kubernetes_asyncio": ("kubernetes_asyncio==36.1.0",),
    "kazoo": ("kazoo==2.11.0",),
}
"""What each environment is installed from: with the client library that pip chooses today."""


@dataclass(frozen=True, slots=True)
class Elector:
    """An elector as it is configured here. Times in seconds.

    *start*: gives the words that start a candidate program, and builds what that needs; raises
    PeerMissing. *store*: its servers. *lease*: how long a leader leads without renewing.
    *renewal*: bytes that are in a request which renews and in no other. *settings*: for the
    program. *text*: how it is configured, for people.
    """

    name: str
    text: str
    start: Callable[[], Sequence[str]]
    store: Callable[[], AbstractContextManager[Addresses]]
    lease: float
    renewal: bytes
    settings: Mapping[str, Any] = field(default_factory=dict)


def _program(environment_name: str) -> Callable[[], Sequence[str]]:
    """Its program, by the Python of its environment."""

    def start() -> Sequence[str]:
        home = Path(sys.prefix) / "electors"
        python = environment(environment_name, REQUIREMENTS[environment_name], home)
        program = Path(__file__).with_name("programs") / f"{environment_name}.py"
        # -I: neither a folder nor the environment's variables may put a module before its own.
        return str(python), "-I", str(program)

    return start


def _ours() -> Sequence[str]:
    """Our own program, in the environment of this process."""
    return sys.executable, str(Path(__file__).with_name("programs") / "redlock.py")


def _redlock(name: str, text: str, *, in_loop: bool) -> Elector:
    five = partial(redis_servers, 5)
    # The mode of a TAKE that extends.
    return Elector(name, text, _ours, five, 2.0, b"$6\r\nextend\r\n", {"asyncio": in_loop})


def _kubernetes(name: str, text: str, lease: float, **settings: float | None) -> Elector:
    return Elector(name, text, _program("kubernetes"), lease_server, lease, b"PUT ", settings)


# The package takes no period below a second, and its lock object no lease but whole seconds.
_DEFAULTS = {"renew_deadline": 10 * 8 / 15, "retry_period": 2 * 8 / 15}
_EXAMPLE = {"renew_deadline": 15 * 4 / 17, "retry_period": 5 * 4 / 17}

ELECTORS = {
    one.name: one
    for one in (
        _redlock(
            "redlock",
            "this library on five servers, ttl 2 s, hard_stop='exit', threads",
            in_loop=False,
        ),
        _redlock(
            "redlock-asyncio",
            "the same for asyncio; elector and work in one event loop",
            in_loop=True,
        ),
        Elector(
            "multibeat",
            "celery-multibeat-scheduler 0.1.0, its defaults scaled to a lease of 2 s",
            _program("multibeat"),
            redis_servers,
            2.0,
            b"EVAL",
            {"timeout": 0.25},
        ),
        Elector(
            "tooz",
            "tooz 9.1.0 on Redis, lock timeout 2 s, its heart, the watchers run every 0.25 s",
            _program("tooz"),
            redis_servers,
            2.0,
            b"EVALSHA",
            {"timeout": 0.25, "poll": 0.25},
        ),
        _kubernetes(
            "kubernetes",
            "kubernetes 37.0.2, client-go's ratio of 15/10/2: lease 8 s, deadline 5.3 s, retry 1.1"
            " s; calls limited to 1 s",
            8.0,
            **_DEFAULTS,
            timeout=1.0,
        ),
        _kubernetes(
            "kubernetes-example",
            "the same with the ratio of its own example, 17/15/5: lease 4 s, deadline 3.5 s, retry"
            " 1.2 s",
            4.0,
            **_EXAMPLE,
            timeout=1.0,
        ),
        _kubernetes(
            "kubernetes-leaselock",
            "the same as its example has it: its own lock object, whose calls have no limit",
            4.0,
            **_EXAMPLE,
            timeout=None,
        ),
        Elector(
            "kubernetes-asyncio",
            "kubernetes_asyncio 36.1.0, as `kubernetes`; elector and work in one event loop",
            _program("kubernetes_asyncio"),
            lease_server,
            8.0,
            b"PUT ",
            {**_DEFAULTS, "timeout": 1.0},
        ),
        Elector(
            "kazoo",
            "kazoo 2.11.0, its election recipe, session timeout 2 s, work stops when suspended",
            _program("kazoo"),
            zookeeper,
            2.0,
            # A ping: its length, its number, its type.
            b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b",
        ),
    )
}
"""By name."""
