"""Faults of the queue of those who wait: ears that are cut, an order that is not the others', users
without a right to any channel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import redis

from chaos.live.backend import Ability, side_client
from chaos.live.nemesis.base import Nemesis, World, named
from redlock.core.commands import QUEUE_SUFFIX

__all__ = ["VOICELESS", "Disordered", "EarsCut", "Queued", "Voiceless", "queue_key", "queued"]

VOICELESS = ("voiceless", "secret")
"""User and password of clients without a channel."""


def queue_key(resource: str) -> str:
    """Where a node keeps those who wait for *resource*."""
    return f"redlock:{resource}{QUEUE_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Queued:
    """One who waits on a node. *hears*: the node takes it for gone once nobody listens for it."""

    name: str
    ticket: int
    hears: bool


def queued(client: Any, resource: str) -> list[Queued]:
    """Those who wait on one node and whose leases are not over, the first one first."""
    seconds, micros = client.time()
    now = seconds * 1000 + micros / 1000
    entries = {
        name.decode(): score
        for name, score in client.zrange(queue_key(resource), 0, -1, False, True)
    }
    found = []
    for name, score in entries.items():
        hears = f"!{name}" in entries
        lease = entries.get(f"!{name}", entries.get(f"~{name}", 0.0))
        if score > 0 and -lease > now:
            found.append(Queued(name, int(score), hears))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EarsCut(Nemesis):
    """The server ends every connection that subscribes, as it does where one takes too little of
    what it is sent."""

    kind: ClassVar[str] = "ears cut"
    momentary: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "ears-cut"

    @property
    def what(self) -> str:
        return f"connections that listen to {named(self.nodes, ())} are cut"

    def start(self, world: World, fault: str) -> None:
        for number in self.nodes:
            with (
                contextlib.suppress(redis.RedisError),
                side_client(world.cluster.node(number)) as client,
            ):
                client.client_kill_filter(_type="pubsub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disordered(Nemesis):
    """The queue of *resource* gets another order on each of its nodes: *order* is given the names
    there in order, and gives them as they are to stand. *nodes* by number."""

    kind: ClassVar[str] = "disorder"
    momentary: ClassVar[bool] = True
    resource: str
    order: Callable[[int, Sequence[str]], Sequence[str]] = field(repr=False)

    @property
    def what(self) -> str:
        return f"those who wait stand in another order on {named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        key = queue_key(self.resource)
        for number in self.nodes:
            with side_client(world.cluster.node(number)) as client:
                there = queued(client, self.resource)
                tickets = sorted(one.ticket for one in there)
                names = self.order(number, [one.name for one in there])
                client.zadd(key, dict(zip(names, tickets, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiceless(Nemesis):
    """There is a user with every right but those to channels, and clients come as that one: what
    a password alone gives since Redis 7, unless channels are named."""

    kind: ClassVar[str] = "no channels"
    requires: ClassVar[frozenset[Ability]] = frozenset({Ability.CONFIG})

    @property
    def what(self) -> str:
        return f"clients have no right to channels of {named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        user, password = VOICELESS
        for number in self.nodes:
            with side_client(world.cluster.node(number)) as client:
                client.execute_command(
                    "ACL", "SETUSER", user, "on", f">{password}", "~*", "+@all", "resetchannels"
                )

    def stop(self, world: World, fault: str) -> None:
        for number in self.nodes:
            with side_client(world.cluster.node(number)) as client:
                client.execute_command("ACL", "DELUSER", VOICELESS[0])
