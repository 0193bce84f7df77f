"""What a scenario is: who takes part, on which servers, what is done to them, and what must come
of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from chaos.checker import Assumptions
from chaos.live.backend import Ability, Setup
from chaos.live.nemesis import Nemesis
from chaos.live.play import Play
from redlock.core.events import LeaseGranted

__all__ = ["Expected", "Role", "Scenario", "Script", "Steady"]

Script = Callable[[Play], None]


class Expected(StrEnum):
    """What is to come of a scenario."""

    SAFE = "safe"
    """It works as if nothing were broken."""
    DEGRADED = "degraded"
    """It works, slower or less often."""
    UNAVAILABLE = "unavailable"
    """No grant while it lasts, nothing wrong, and it recovers."""
    UNSAFE = "unsafe by assumption"
    """Two may believe in a lock at once, because what mutual exclusion rests on is broken;
    tokens and store stay clean."""
    MUST_FAIL = "must fail"
    """A control: a rule is broken in the clients, and the checker must find it."""


@dataclass(frozen=True, slots=True)
class Role:
    """One client. *settings*: of its workload; *options*: of its coordinator; *nodes*: its node
    list, None for all.

    *login*: credentials for some of its nodes, by number, instead of the right ones.
    """

    workload: str
    api: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    plants: Sequence[str] = ()
    nodes: Sequence[int] | None = None
    login: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the table. Times in seconds.

    *assumptions*: what the faults leave standing, and so what the checker judges by. *ttl*,
    *node_timeout*: of the clients; *max_ttl*: of the cluster, None for the ttl; *durable*,
    *cluster_id*: what its markers say; *listed*: the nodes in everybody's list; *marked*: those
    that are set up. *needs* beyond what the faults do. *not_run*: why this library's campaigns do
    not run it. *peers*: it makes sense for other libraries.
    """

    id: str
    title: str
    expected: Expected
    roles: Sequence[Role]
    script: Script
    setup: Setup = field(default_factory=Setup)
    listed: Sequence[int] = (1, 2, 3, 4, 5)
    marked: Sequence[int] = (1, 2, 3, 4, 5)
    assumptions: Assumptions = field(default_factory=Assumptions)
    ttl: float = 1.0
    node_timeout: float = 0.2
    max_ttl: float | None = None
    durable: bool = False
    cluster_id: str | None = None
    needs: frozenset[Ability] = frozenset()
    not_run: str = ""
    also: frozenset[Expected] = frozenset()
    peers: bool = False

    @property
    def abilities(self) -> frozenset[Ability]:
        """All it needs of the servers."""
        needs = self.needs | (self.script.needs if isinstance(self.script, Steady) else frozenset())
        # What broken clients leave behind is not for nodes that live on.
        if any(role.plants for role in self.roles):
            needs |= {Ability.FRESH}
        if (
            self.setup != Setup()
            or self.marked != self.listed
            or self.cluster_id is not None
            or self.durable
        ):
            needs |= {Ability.FRESH}
        return needs | ({Ability.SPARE} if self.setup.count > len(self.listed) else frozenset())

    @property
    def led(self) -> bool:
        """Whether all its clients are puppets of the script."""
        return all(role.workload == "puppet" for role in self.roles)

    @property
    def clients(self) -> tuple[str, ...]:
        """The names of its clients."""
        return tuple(f"c{number}" for number in range(1, len(self.roles) + 1))


@dataclass(frozen=True, slots=True)
class Steady:
    """A script for clients that work by themselves: all is well, then *faults*, then all is well
    again.

    Each phase lasts at least as said, and ends when something was granted in it; with *unavailable*
    the middle one ends by time alone, as nothing need be granted. *alone*: clients have locks of
    their own, and any grant counts.
    """

    faults: Sequence[Nemesis] = ()
    before: float = 1.2
    during: float = 2.5
    after: float = 1.0
    unavailable: bool = False
    alone: bool = False

    def __call__(self, play: Play) -> None:
        """Play it."""
        self._grants(play, 0)
        play.enter("before")
        play.last(self.before)
        self._grants(play, play.here())
        with play.broken(*self.faults):
            play.enter("during")
            since = play.here()
            play.last(self.during)
            if not self.unavailable:
                self._grants(play, since)
            play.leave()
        play.enter("after")
        since = play.here()
        play.last(self.after)
        self._grants(play, since)

    def _grants(self, play: Play, since: int) -> None:
        if self.alone:
            play.event(LeaseGranted, since=since)
        else:
            play.granted(since=since)

    @property
    def needs(self) -> frozenset[Ability]:
        """What its faults need."""
        return frozenset[Ability]().union(*(fault.needs for fault in self.faults))
