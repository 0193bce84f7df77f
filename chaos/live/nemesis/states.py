"""States of a running server: its settings, role, scripts and limits, all set by commands and
put back as they were."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import redis

from chaos.live.backend import Ability, Node, Unsupported, side_client
from chaos.live.nemesis.base import Nemesis, World, named, slug
from redlock.core.commands import MARKER_KEY
from redlock.transport.clock import now

__all__ = [
    "Busy",
    "ClientPaused",
    "ClientsLimited",
    "Configured",
    "Demoted",
    "Evicting",
    "OutOfMemory",
    "Password",
    "ScriptsFlushed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured(Nemesis):
    """Settings of the server, changed while it runs; when it heals they are what they were."""

    kind: ClassVar[str] = "settings"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})
    label: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return slug(self.label or self.kind)

    @property
    def what(self) -> str:
        return f"{self.label or self.kind} on {named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(
            self.nodes, lambda node: _configure(world, fault, node, self.settings)
        )

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _restore(world, fault, node))


def OutOfMemory(nodes: tuple[int, ...]) -> Configured:  # Reads as the others do.
    """The servers are at `maxmemory`: writes that need memory are refused."""
    return Configured(nodes=nodes, label="out of memory", settings={"maxmemory": "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Password(Nemesis):
    """The servers want a password that clients do not have: connections end, and new ones are
    refused."""

    kind: ClassVar[str] = "wrong password"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})
    password: str = "not-theirs"

    @property
    def name(self) -> str:
        return "wrong-password"

    def start(self, world: World, fault: str) -> None:
        def lock_out(node: Node) -> None:
            with side_client(node) as client:
                client.config_set("requirepass", self.password)
                client.execute_command("AUTH", self.password)
                client.client_kill_filter(_type="normal", skipme=True)

        world.cluster.on_nodes(self.nodes, lock_out)

    def stop(self, world: World, fault: str) -> None:
        def let_in(node: Node) -> None:
            with (
                side_client(node) as client,
                contextlib.suppress(redis.AuthenticationError, redis.ResponseError),
            ):
                connection = client.connection_pool.get_connection()
                connection.send_command("AUTH", self.password, check_health=False)
                connection.read_response()
                connection.send_command("CONFIG", "SET", "requirepass", "", check_health=False)
                connection.read_response()
                client.connection_pool.release(connection)

        world.cluster.on_nodes(self.nodes, let_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demoted(Nemesis):
    """The servers became replicas of a master that is not there: READONLY, and role:slave."""

    kind: ClassVar[str] = "demotion"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})

    def start(self, world: World, fault: str) -> None:
        def demote(node: Node) -> None:
            with side_client(node) as client:
                client.execute_command("REPLICAOF", "127.0.0.1", "1")

        world.cluster.on_nodes(self.nodes, demote)

    def stop(self, world: World, fault: str) -> None:
        def promote(node: Node) -> None:
            with side_client(node) as client:
                client.execute_command("REPLICAOF", "NO", "ONE")

        world.cluster.on_nodes(self.nodes, promote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy(Nemesis):
    """A script that does not end keeps the servers busy: BUSY to everybody, until it is killed."""

    kind: ClassVar[str] = "busy script"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})

    @property
    def name(self) -> str:
        return "busy-script"

    def start(self, world: World, fault: str) -> None:
        def loop(node: Node) -> None:
            _configure(world, fault, node, {"lua-time-limit": "20"})
            runner = side_client(node, timeout=120.0)

            def run() -> None:
                with runner, contextlib.suppress(redis.RedisError, OSError):
                    runner.eval("while true do end", 0)

            threading.Thread(target=run, name=f"busy-{node.number}", daemon=True).start()
            _until(node, busy=True)

        world.cluster.on_nodes(self.nodes, loop)

    def stop(self, world: World, fault: str) -> None:
        def end(node: Node) -> None:
            with side_client(node) as client, contextlib.suppress(redis.ResponseError):
                client.script_kill()
            _until(node, busy=False)
            _restore(world, fault, node)

        world.cluster.on_nodes(self.nodes, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPaused(Nemesis):
    """CLIENT PAUSE ALL for *seconds*: connected, and nothing is executed, not even its end;
    healing it is waiting for it."""

    kind: ClassVar[str] = "client pause"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})
    seconds: float = 2.0

    @property
    def name(self) -> str:
        return "client-pause"

    @property
    def size(self) -> str:
        return "background"

    def start(self, world: World, fault: str) -> None:
        def pause(node: Node) -> None:
            with side_client(node) as client:
                client.client_pause(round(self.seconds * 1000), all=True)

        world.cluster.on_nodes(self.nodes, pause)

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _until(node, busy=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsLimited(Nemesis):
    """`maxclients` is reached: connections end, and new ones are refused."""

    kind: ClassVar[str] = "client limit"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})

    @property
    def name(self) -> str:
        return "client-limit"

    def start(self, world: World, fault: str) -> None:
        def fill(node: Node) -> None:
            keeper = side_client(node)
            before = keeper.config_get("maxclients")
            # Connected, so that it can raise the limit again.
            world.kept[fault, node.number] = (keeper, before)
            keeper.config_set("maxclients", 1)
            keeper.client_kill_filter(_type="normal", skipme=True)

        world.cluster.on_nodes(self.nodes, fill)

    def stop(self, world: World, fault: str) -> None:
        def empty(node: Node) -> None:
            keeper, before = world.kept.pop((fault, node.number))
            with keeper:
                keeper.config_set("maxclients", before["maxclients"])

        world.cluster.on_nodes(self.nodes, empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptsFlushed(Nemesis):
    """SCRIPT FLUSH: the servers know none of our scripts any more."""

    kind: ClassVar[str] = "script flush"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})
    momentary: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "script-flush"

    def start(self, world: World, fault: str) -> None:
        def flush(node: Node) -> None:
            with side_client(node) as client:
                client.script_flush()

        world.cluster.on_nodes(self.nodes, flush)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicting(Nemesis):
    """Memory pressure under `volatile-ttl`: the server evicts every key that has an expiry,
    locks first."""

    kind: ClassVar[str] = "eviction"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG, Ability.FRESH})

    def start(self, world: World, fault: str) -> None:
        def evict(node: Node) -> None:
            _configure(world, fault, node, {"maxmemory-policy": "volatile-ttl", "maxmemory": "1"})
            with side_client(node) as client:
                # A write that finds nothing left to evict is refused, and that is enough.
                for _ in range(200):
                    with contextlib.suppress(redis.ResponseError):
                        client.set("chaos:filler", "x")
                    if all(client.ttl(key) == -1 for key in client.scan_iter(count=1000)):
                        break
                client.config_set("maxmemory", 0)

        world.cluster.on_nodes(self.nodes, evict)

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _restore(world, fault, node))


def _configure(world: World, fault: str, node: Node, settings: Mapping[str, str]) -> None:
    with side_client(node) as client:
        before: dict[str, str] = {}
        for name in settings:
            before |= client.config_get(name)
        world.kept[fault, node.number] = before
        for name, value in settings.items():
            client.config_set(name, value)


def _restore(world: World, fault: str, node: Node) -> None:
    with side_client(node) as client:
        for name, value in world.kept.pop((fault, node.number), {}).items():
            client.config_set(name, value)


def _until(node: Node, *, busy: bool) -> None:
    """Wait until the server says BUSY to us, or no longer does."""
    give_up_at = now() + 20.0
    while now() < give_up_at:
        try:
            with side_client(node, timeout=1.0) as client:
                client.get(MARKER_KEY)
            is_busy = False
        except redis.ResponseError as error:
            is_busy = str(error).startswith("BUSY") or "busy" in str(error).lower()
        except redis.RedisError:
            is_busy = True
        if is_busy is busy:
            return
    raise Unsupported(f"node {node.number} did not {'become busy' if busy else 'answer again'}")
