"""Faults of servers that a signal, a flush or a clock makes: killed, restarted, paused, emptied,
jumped."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

import redis

from chaos.live.backend import Ability, Data, Node, side_client
from chaos.live.nemesis.base import Nemesis, World, named

__all__ = ["ClockMoved", "Flushed", "Killed", "Paused", "Restarted", "WriteBurst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Nemesis):
    """SIGKILL; when it heals the servers start again with *data*."""

    kind: ClassVar[str] = "kill"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.KILL})
    data: Data = Data.LOST

    @property
    def what(self) -> str:
        return f"kill -9 of {named(self.nodes, ())}, data {self.data.value} when it is back"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.kill())

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.restart(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted(Nemesis):
    """SIGKILL and an instant restart, with *data*."""

    kind: ClassVar[str] = "restart"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.KILL, Ability.DATA})
    momentary: ClassVar[bool] = True
    data: Data = Data.LOST

    @property
    def what(self) -> str:
        return f"restart of {named(self.nodes, ())}, data {self.data.value}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.restart(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Nemesis):
    """SIGSTOP, or the freezer of a container: ports accept, nothing answers, and what came is
    executed late."""

    kind: ClassVar[str] = "pause"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.PAUSE})

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.pause())

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.unpause())


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed(Nemesis):
    """FLUSHALL: amnesia without a restart."""

    kind: ClassVar[str] = "wipe"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.WIPE})
    momentary: ClassVar[bool] = True

    @property
    def what(self) -> str:
        return f"FLUSHALL on {named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.wipe())


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBurst(Nemesis):
    """Somebody else writes a lot, so that the server's disk is busy; a server that is gone is
    written to in vain."""

    kind: ClassVar[str] = "write burst"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.WIPE, Ability.FRESH})
    momentary: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "write-burst"

    def start(self, world: World, fault: str) -> None:
        def write(node: Node) -> None:
            with contextlib.suppress(redis.RedisError, OSError), side_client(node) as client:
                pipeline = client.pipeline(transaction=False)
                for number in range(2000):
                    pipeline.set(f"chaos:burst:{number}", "x" * 200)
                pipeline.execute()

        world.cluster.on_nodes(self.nodes, write)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMoved(Nemesis):
    """The servers' wall clock jumps by *seconds*, and back when it heals.

    By libfaketime under the server where the backend can; otherwise by its effect: every key that
    expires lives as much shorter, or longer. *lasting*: it does not jump back.
    """

    kind: ClassVar[str] = "clock jump"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.WIPE})
    seconds: float
    lasting: bool = False

    @property
    def name(self) -> str:
        return "clock-jump"

    @property
    def what(self) -> str:
        return f"the clock of {named(self.nodes, ())} jumps by {self.seconds:+g} s"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(
            self.nodes, lambda node: _move_clock(node, self.seconds, self.seconds)
        )

    def stop(self, world: World, fault: str) -> None:
        if not self.lasting:
            world.cluster.on_nodes(self.nodes, lambda node: _move_clock(node, 0.0, -self.seconds))


def _move_clock(node: Node, offset: float, step: float) -> None:
    if node.shift_clock(offset):
        return
    with side_client(node) as client:
        for key in client.scan_iter(count=1000):
            left: Any = client.pttl(key)
            if left >= 0:
                moved = left - round(step * 1000)
                client.delete(key) if moved <= 0 else client.pexpire(key, moved)
