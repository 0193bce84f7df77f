"""Faults of client processes: stopped, killed, their clocks stepped, or something they do to
themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.history import Note, Stopped
from chaos.live.nemesis.base import Nemesis, World, named, slug
from redlock.transport.clock import now

__all__ = ["Asked", "KilledClient", "Ordered", "StoppedClient", "WallClockStepped"]


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
        return f"the wall clock of {named((), self.clients)} is stepped by {self.seconds:+g} s"

    def start(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].step_wall_clock(self.seconds)

    def stop(self, world: World, fault: str) -> None:
        for client in self.clients:
            world.members[client].step_wall_clock(-self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Nemesis):
    """Something a puppet does to itself: blocks, leaps, steps its clock. Momentary: it is over
    when the puppet says so."""

    kind: ClassVar[str] = "client fault"
    momentary: ClassVar[bool] = True
    label: str
    order: Mapping[str, Any]

    @property
    def name(self) -> str:
        return slug(self.label)

    @property
    def what(self) -> str:
        return f"{self.label}: {named((), self.clients)}"

    @property
    def size(self) -> str:
        return "background"

    def start(self, world: World, fault: str) -> None:
        waits = [world.members[client].order(**self.order) for client in self.clients]
        for wait in waits:
            wait(30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered(Nemesis):
    """Something that clients are ordered to do to themselves, and by *back* to end it when it
    heals. One that has died meanwhile is not asked. *says*: the note with which it begins; empty:
    it has begun when it answers."""

    kind: ClassVar[str] = "client fault"
    label: str
    order: Mapping[str, Any]
    back: Mapping[str, Any]
    says: str = ""

    @property
    def name(self) -> str:
        return slug(self.label)

    @property
    def what(self) -> str:
        return f"{self.label}: {named((), self.clients)}"

    def start(self, world: World, fault: str) -> None:
        places = [
            (world.members[client], len(world.members[client].journal)) for client in self.clients
        ]
        self._tell(world, self.order)
        for member, since in places if self.says else ():
            member.journal.wait(
                lambda record, name=member.name: (  # type: ignore[misc]
                    isinstance(record, Note) and record.client == name and record.kind == self.says
                ),
                since=since,
                what=f"{self.label} of {member.name}",
            )

    def stop(self, world: World, fault: str) -> None:
        self._tell(world, self.back)

    def _tell(self, world: World, order: Mapping[str, Any]) -> None:
        alive = [world.members[client] for client in self.clients if world.members[client].alive]
        for wait in [member.order(**order) for member in alive]:
            wait(30.0)
