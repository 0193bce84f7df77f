"""An operator at work on the simulated nodes: the shipped `redlock init`, with a client library
that talks to them.

Every command takes its time, in which the rest of the world goes on; after so many of them the
operator's connection may break.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, NoReturn
from unittest.mock import patch

import hiredis
import redis

from chaos.sim.world import World
from redlock.core.commands import Nonsense
from redlock.core.quorum import Fault, FaultKind
from redlock.errors import ConfigurationError, NodeUnreachable

__all__ = ["Operator"]

_INIT = import_module("redlock.initialise")  # The package has a function of that name.


class Operator:
    """Runs `initialise` on all nodes of *world*. *delay*: seconds a command takes; *breaks*:
    after so many, -1: never."""

    def __init__(self, world: World, *, delay: float, breaks: int = -1) -> None:
        self.world = world
        self.delay = delay
        self._left = breaks

    def init(self, **settings: Any) -> str:
        """As `redlock init` with *settings*; what came of it."""
        endpoints = [_Endpoint(self, index) for index in range(len(self.world.nodes))]
        with (
            patch.object(_INIT, "endpoints", lambda nodes: nodes),
            patch.object(_INIT, "secrets", self),
        ):
            try:
                _INIT.initialise(endpoints, **settings)
            except (ConfigurationError, NodeUnreachable) as error:
                return f"refused: {error}"
            except Nonsense as error:
                return f"broke off, answered with nonsense: {error}"
        return "done"

    def token_hex(self, count: int) -> str:
        """Stands in for the module `secrets`, so that the same seed gives the same run."""
        return f"{self.world.random.getrandbits(8 * count):0{2 * count}x}"

    def ask(self, index: int, *words: object) -> Any:
        """One command to a node, as a client library of Redis would carry it out."""
        if self.delay:
            self.world.run(self.world.now + self.delay)
        node = self.world.nodes[index]
        if self._left == 0 or not node.up or node.paused:
            raise redis.ConnectionError("lost the connection")
        self._left -= 1
        node.line = None
        reader = hiredis.Reader()
        reader.feed(node.execute([str(word).encode() for word in words], self.world.now))
        answer = reader.gets()
        if isinstance(answer, hiredis.ReplyError):
            raise redis.ResponseError(str(answer))
        return answer


class _Endpoint:
    """As much of an endpoint, and of its client, as `initialise` uses."""

    def __init__(self, operator: Operator, index: int) -> None:
        self.name = f"n{index}"
        self._operator = operator
        self._index = index

    def client(self, timeout: float) -> AbstractContextManager[_Endpoint]:
        return nullcontext(self)

    def fault(self, error: Exception) -> Fault:
        return Fault(FaultKind.UNREACHABLE, f"cannot be reached ({error})")

    def connect(self, timeout: float) -> NoReturn:
        """What is asked of a node that failed, for a reason that stays: there is none here."""
        raise redis.TimeoutError("does not answer")

    def lasting(self, error: Exception) -> None:
        return None

    def execute_command(self, *words: object) -> Any:
        return self._operator.ask(self._index, *words)

    def info(self) -> dict[str, str]:
        lines = self.execute_command("INFO").decode().splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def scan_iter(self, *, match: str, count: int) -> Iterator[bytes]:
        node = self._operator.world.nodes[self._index]
        return iter([key.encode() for key in sorted(node.data) if fnmatch.fnmatchcase(key, match)])

    def pipeline(self, *, transaction: bool) -> _Endpoint:
        self._asked: list[bytes] = []
        return self

    def exists(self, key: bytes) -> None:
        self._asked.append(key)

    def execute(self) -> list[bool]:
        world = self._operator.world
        node = world.nodes[self._index]
        return [
            node._get(key.decode(), node.wall_us(world.now) // 1000) is not None
            for key in self._asked
        ]
