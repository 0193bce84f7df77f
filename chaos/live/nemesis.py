"""What can go wrong: each fault a small value with a start, a stop, a name, and whom it hits.

A link fault sits on cells of the proxy matrix; a node fault needs an ability of the backend; a client fault hits a
process. `World` is what they act on. Those that are over at once have nothing to stop; `Flapping` and `Repeated` make a
lasting fault of a fault.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Protocol

import redis

from chaos.history import Stopped
from chaos.live.backend import Ability, Data, Node, Unsupported, side_client
from chaos.live.cluster import Cluster, Link
from chaos.live.crew import Member
from chaos.live.toxiproxy import Toxic
from redlock.core.commands import MARKER_KEY
from redlock.transport.clock import now

__all__ = [
    "Asked",
    "Busy",
    "ClientPaused",
    "ClientsLimited",
    "ClockMoved",
    "Closed",
    "Configured",
    "Demoted",
    "Evicting",
    "Flapping",
    "Flushed",
    "Killed",
    "KilledClient",
    "Nemesis",
    "OutOfMemory",
    "Password",
    "Paused",
    "Repeated",
    "Repointed",
    "Restarted",
    "ScriptsFlushed",
    "StoppedClient",
    "Toxified",
    "WallClockStepped",
    "World",
    "WriteBurst",
    "among",
    "bandwidth",
    "black_hole",
    "cut_before_reply",
    "held_back",
    "isolation",
    "late_replies",
    "latency",
    "lost_replies",
    "lost_requests",
    "resets",
    "slicing",
    "slow_close",
]

LONG_MS = 3_600_000
"""A latency that is as good as for ever, until it is taken away and what it held is delivered."""


_LONG = 0.1
"""Seconds of latency from which on a client may have given up on what is still held."""


class World(Protocol):
    """What faults act on."""

    cluster: Cluster
    members: Mapping[str, Member]
    kept: dict[tuple[str, int], Any]
    """What a fault needs for its end, by its name and a node: settings as they were, a connection, a thread."""

    def stopped(self, record: Stopped) -> None:
        """Note that a client's belief ended with it."""

    def beliefs_of(self, client: str) -> Iterable[tuple[str, int]]:
        """Resource and token of every lease that *client* may hold now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nemesis:
    """Base of all faults. *nodes*, *clients*: whom it hits."""

    kind: ClassVar[str] = "fault"
    requires: ClassVar[frozenset[Ability]] = frozenset()
    momentary: ClassVar[bool] = False
    nodes: tuple[int, ...] = ()
    clients: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A word for it; with a number behind, its name in the history."""
        return self.kind

    @property
    def needs(self) -> frozenset[Ability]:
        """What it needs of the servers."""
        return self.requires

    @property
    def what(self) -> str:
        """A line for people."""
        return f"{self.kind} of {_named(self.nodes, self.clients)}"

    @property
    def size(self) -> str:
        """What its injection is measured as: "link", "node", "client" or "many"."""
        return "node" if len(self.nodes) == 1 and not self.clients else "client" if len(self.clients) == 1 else "many"

    def start(self, world: World, fault: str) -> None:
        """Break it; *fault* is unique in the run."""
        raise NotImplementedError

    def stop(self, world: World, fault: str) -> None:
        """Heal it."""


# The network


def among(clients: Iterable[str], nodes: Iterable[int]) -> tuple[Link, ...]:
    """Every link between these."""
    return tuple(product(clients, nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnLinks(Nemesis):
    links: tuple[Link, ...]
    nodes: tuple[int, ...] = field(init=False, default=())
    clients: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(sorted({number for _, number in self.links})))
        object.__setattr__(self, "clients", tuple(sorted({client for client, _ in self.links})))

    @property
    def size(self) -> str:
        if len(self.links) == 1:
            return "link"
        return "node" if len(self.nodes) == 1 else "client" if len(self.clients) == 1 else "many"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxified(_OnLinks):
    """Toxics on links. *label* names what they play.

    *cuts*: connections end when it heals, and what was held is lost: what held replies for longer than clients wait.
    """

    label: str
    toxics: tuple[Toxic, ...]
    cuts: bool = False

    @property
    def name(self) -> str:
        return _slug(self.label)

    @property
    def what(self) -> str:
        return f"{self.label} between {_named((), self.clients)} and {_named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.add(self.links, fault, self.toxics)

    def stop(self, world: World, fault: str) -> None:
        if self.cuts:
            world.cluster.replace(self.links, fault)
        else:
            world.cluster.remove(self.links, fault, self.toxics)


def black_hole(links: tuple[Link, ...]) -> Toxified:
    """A partition: neither requests nor replies pass, connections hang; they end when it heals."""
    return Toxified(links=links, label="partition", toxics=(_drop("upstream"), _drop("downstream")))


def lost_requests(links: tuple[Link, ...]) -> Toxified:
    """A one-way partition: requests never arrive."""
    return Toxified(links=links, label="lost requests", toxics=(_drop("upstream"),))


def lost_replies(links: tuple[Link, ...]) -> Toxified:
    """A one-way partition: requests are executed, their replies never arrive."""
    return Toxified(links=links, label="lost replies", toxics=(_drop("downstream"),))


def latency(links: tuple[Link, ...], seconds: float, *, jitter: float = 0.0, stream: str = "downstream") -> Toxified:
    """Slow links; order is kept."""
    attributes = {"latency": round(seconds * 1000), "jitter": round(jitter * 1000)}
    label = f"{seconds * 1000:.0f} ms of latency"
    return Toxified(links=links, label=label, toxics=(Toxic("latency", stream, attributes),), cuts=seconds > _LONG)


def held_back(links: tuple[Link, ...]) -> Toxified:
    """Requests are held, and delivered when this heals, whether or not who sent them still waits."""
    return Toxified(links=links, label="late requests", toxics=(Toxic("latency", "upstream", {"latency": LONG_MS}),))


def late_replies(links: tuple[Link, ...]) -> Toxified:
    """Requests are executed, and their replies held until this heals."""
    return Toxified(links=links, label="late replies", toxics=(Toxic("latency", "downstream", {"latency": LONG_MS}),))


def cut_before_reply(links: tuple[Link, ...]) -> Toxified:
    """Every request is executed, and its connection ends at the first byte of the reply."""
    return Toxified(links=links, label="cut before reply", toxics=(Toxic("limit_data", "downstream", {"bytes": 0}),))


def resets(links: tuple[Link, ...]) -> Toxified:
    """Connections end, new ones with a reset."""
    return Toxified(links=links, label="resets", toxics=(Toxic("reset_peer", "downstream", {"timeout": 0}),))


def slow_close(links: tuple[Link, ...], seconds: float) -> Toxified:
    """The end of a connection is told late."""
    toxic = Toxic("slow_close", "downstream", {"delay": round(seconds * 1000)})
    return Toxified(links=links, label="slow close", toxics=(toxic,))


def bandwidth(links: tuple[Link, ...], kilobytes: int) -> Toxified:
    """A thin line, both ways, in kilobytes a second."""
    toxics = tuple(Toxic("bandwidth", stream, {"rate": kilobytes}) for stream in ("upstream", "downstream"))
    return Toxified(links=links, label=f"{kilobytes} KB/s", toxics=toxics, cuts=True)


def slicing(links: tuple[Link, ...], size: int = 1, delay_us: int = 20) -> Toxified:
    """Bytes come one by one, both ways."""
    attributes = {"average_size": size, "size_variation": 0, "delay": delay_us}
    toxics = tuple(Toxic("slicer", stream, attributes) for stream in ("upstream", "downstream"))
    return Toxified(links=links, label="slicing", toxics=toxics)


def isolation(client: str, nodes: Iterable[int]) -> Toxified:
    """One client sees no node any more."""
    return black_hole(among([client], nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(_OnLinks):
    """The port is closed: connections end, and new ones are refused."""

    kind: ClassVar[str] = "closed port"

    @property
    def name(self) -> str:
        return "closed-port"

    def start(self, world: World, fault: str) -> None:
        world.cluster.enable(self.links, enabled=False)

    def stop(self, world: World, fault: str) -> None:
        world.cluster.enable(self.links, enabled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repointed(_OnLinks):
    """The address leads to another server: a VIP that moved, a second name of a server that is listed already."""

    kind: ClassVar[str] = "moved address"
    to: int

    @property
    def name(self) -> str:
        return "moved-address"

    @property
    def what(self) -> str:
        return f"the address of {_named(self.nodes, ())} leads to node {self.to}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.point(self.links, self.to)

    def stop(self, world: World, fault: str) -> None:
        for number in self.nodes:
            world.cluster.point([link for link in self.links if link[1] == number], number)


# Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Nemesis):
    """SIGKILL; when it heals the servers start again with *data*."""

    kind: ClassVar[str] = "kill"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.KILL})
    data: Data = Data.LOST

    @property
    def what(self) -> str:
        return f"kill -9 of {_named(self.nodes, ())}, data {self.data.value} when it is back"

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
        return f"restart of {_named(self.nodes, ())}, data {self.data.value}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.restart(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Nemesis):
    """SIGSTOP, or the freezer of a container: ports accept, nothing answers, and what came is executed late."""

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
        return f"FLUSHALL on {_named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: node.wipe())


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured(Nemesis):
    """Settings of the server, changed while it runs; when it heals they are what they were."""

    kind: ClassVar[str] = "settings"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})
    label: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _slug(self.label or self.kind)

    @property
    def what(self) -> str:
        return f"{self.label or self.kind} on {_named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _configure(world, fault, node, self.settings))

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _restore(world, fault, node))


def OutOfMemory(nodes: tuple[int, ...]) -> Configured:  # Reads as the others do.
    """The servers are at `maxmemory`: writes that need memory are refused."""
    return Configured(nodes=nodes, label="out of memory", settings={"maxmemory": "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Password(Nemesis):
    """The servers want a password that clients do not have: connections end, and new ones are refused."""

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
            with side_client(node) as client, contextlib.suppress(redis.AuthenticationError, redis.ResponseError):
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
    """CLIENT PAUSE ALL for *seconds*: connected, and nothing is executed, not even its end; healing it is waiting for it."""

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
            world.kept[fault, node.number] = (keeper, before)  # Connected, so that it can raise the limit again.
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
class WriteBurst(Nemesis):
    """Somebody else writes a lot, so that the server's disk is busy; a server that is gone is written to in vain."""

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
class Evicting(Nemesis):
    """Memory pressure under `volatile-ttl`: the server evicts every key that has an expiry, locks first."""

    kind: ClassVar[str] = "eviction"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG, Ability.FRESH})

    def start(self, world: World, fault: str) -> None:
        def evict(node: Node) -> None:
            _configure(world, fault, node, {"maxmemory-policy": "volatile-ttl", "maxmemory": "1"})
            with side_client(node) as client:
                for _ in range(200):  # A write that finds nothing left to evict is refused, and that is enough.
                    with contextlib.suppress(redis.ResponseError):
                        client.set("chaos:filler", "x")
                    if all(client.ttl(key) == -1 for key in client.scan_iter(count=1000)):
                        break
                client.config_set("maxmemory", 0)

        world.cluster.on_nodes(self.nodes, evict)

    def stop(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _restore(world, fault, node))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMoved(Nemesis):
    """The servers' wall clock jumps by *seconds*, and back when it heals.

    By libfaketime under the server where the backend can; otherwise by its effect: every key that expires lives as much
    shorter, or longer. *lasting*: it does not jump back.
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
        return f"the clock of {_named(self.nodes, ())} jumps by {self.seconds:+g} s"

    def start(self, world: World, fault: str) -> None:
        world.cluster.on_nodes(self.nodes, lambda node: _move_clock(node, self.seconds, self.seconds))

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


# Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedClient(Nemesis):
    """SIGSTOP of client processes, SIGCONT when it heals."""

    kind: ClassVar[str] = "stopped client"

    @property
    def name(self) -> str:
        return "stopped-client"

    def start(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].stop()

    def stop(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].go_on()


@dataclass(frozen=True, slots=True, kw_only=True)
class KilledClient(Nemesis):
    """kill -9 of client processes; what they held ends with them."""

    kind: ClassVar[str] = "killed client"
    momentary: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "killed-client"

    def start(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].kill()
            at = now()
            for resource, token in world.beliefs_of(client):
                world.stopped(Stopped(at, client, resource, token, "killed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClockStepped(Nemesis):
    """The wall clock of client processes is stepped by *seconds*, and back when it heals."""

    kind: ClassVar[str] = "wall clock step"
    seconds: float

    @property
    def name(self) -> str:
        return "wall-clock-step"

    @property
    def what(self) -> str:
        return f"the wall clock of {_named((), self.clients)} is stepped by {self.seconds:+g} s"

    def start(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].step_wall_clock(self.seconds)

    def stop(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].step_wall_clock(-self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Nemesis):
    """Something a puppet does to itself: blocks, leaps, steps its clock. Momentary: it is over when the puppet says so."""

    kind: ClassVar[str] = "client fault"
    momentary: ClassVar[bool] = True
    label: str
    order: Mapping[str, Any]

    @property
    def name(self) -> str:
        return _slug(self.label)

    @property
    def what(self) -> str:
        return f"{self.label}: {_named((), self.clients)}"

    @property
    def size(self) -> str:
        return "background"

    def start(self, world: World, fault: str) -> None:
        waits = [world.members[client].order(**self.order) for client in self.clients]
        for wait in waits:
            wait(30.0)


# Faults made of faults


@dataclass(frozen=True, slots=True, kw_only=True)
class _Background(Nemesis):
    """A fault that a thread of its own keeps going until it is stopped."""

    of: Nemesis
    nodes: tuple[int, ...] = field(init=False, default=())
    clients: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", self.of.nodes)
        object.__setattr__(self, "clients", self.of.clients)

    @property
    def needs(self) -> frozenset[Ability]:
        return self.of.needs

    @property
    def size(self) -> str:
        return "background"

    def start(self, world: World, fault: str) -> None:
        loop = world.kept[fault, 0] = _Loop(self, world, fault)
        loop.begin()

    def stop(self, world: World, fault: str) -> None:
        world.kept.pop((fault, 0)).end()

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        """Once round; leaves nothing broken behind."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Flapping(_Background):
    """*of* for *on* seconds, healed for *off* seconds, over and over."""

    on: float
    off: float

    @property
    def name(self) -> str:
        return f"flapping-{self.of.name}"

    @property
    def what(self) -> str:
        return f"flapping every {self.on:g} s: {self.of.what}"

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        self.of.start(world, fault)
        ending.wait(self.on)
        self.of.stop(world, fault)
        ending.wait(self.off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated(_Background):
    """*of*, which is momentary, every *pause* seconds."""

    pause: float

    @property
    def name(self) -> str:
        return f"repeated-{self.of.name}"

    @property
    def what(self) -> str:
        return f"every {self.pause:g} s: {self.of.what}"

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        self.of.start(world, fault)
        ending.wait(self.pause)


class _Loop:
    def __init__(self, fault: _Background, world: World, name: str) -> None:
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(fault, world, name), name=name, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, fault: _Background, world: World, name: str) -> None:
        try:
            while not self._ending.is_set():
                fault.turn(world, name, self._ending)
        except BaseException as error:  # It is raised where the fault is healed.
            self._error = error


# How


def _slug(label: str) -> str:
    """A label as part of a toxic's name, which is part of a path."""
    return re.sub("[^a-z0-9]+", "-", label.lower())


def _drop(stream: str) -> Toxic:
    return Toxic("timeout", stream, {"timeout": 0})


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


def _named(nodes: Sequence[int], clients: Sequence[str]) -> str:
    told = []
    if clients:
        told.append(", ".join(clients))
    if nodes:
        told.append(f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}")
    return " and ".join(told) or "nobody"
