"""The scenarios as other libraries can play them: the same faults and assumptions, with nothing
demanded of a library.

Our own scripts wait for what our library tells (quarantine, a lease that is lost) and fail where a
grant does not come. Of another library an outage is a finding, and what it does not tell cannot be
waited for: its scripts go on by time, and the history alone is judged. They run with our own client
as well, which shows that a script is fair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from chaos.live.backend import Ability, Data
from chaos.live.nemesis import (
    Asked,
    ClockMoved,
    Closed,
    Flushed,
    Killed,
    KilledClient,
    Nemesis,
    OutOfMemory,
    Paused,
    Repointed,
    Restarted,
    StoppedClient,
    among,
    black_hole,
    lost_replies,
    lost_requests,
)
from chaos.live.play import Play
from chaos.live.scenario import Role, Scenario, Script, Steady

__all__ = ["ADAPTED", "Rolling", "SecondHolder", "Watched", "adapted"]

NODES, MINORITY, MAJORITY = (1, 2, 3, 4, 5), (4, 5), (3, 4, 5)
CROWD = ("c1", "c2", "c3", "c4", "c5")
LEADERS = ("c1", "c2", "c3")
HOLDER = (Role("puppet", "blocking"), Role("contend", "blocking"), Role("contend", "asyncio"))
TWO = (Role("puppet", "blocking"), Role("puppet", "asyncio"))


@dataclass(frozen=True, slots=True)
class Watched:
    """Clients that work by themselves, watched before, during and after *faults*."""

    faults: Sequence[Nemesis]
    before: float = 1.2
    during: float = 2.5
    after: float = 2.0

    def __call__(self, play: Play) -> None:
        """Play it."""
        play.enter("before")
        play.last(self.before)
        with play.broken(*self.faults):
            play.enter("during")
            play.last(self.during)
            play.leave()
        play.enter("after")
        play.last(self.after)

    @property
    def needs(self) -> frozenset[Ability]:
        """What its faults need."""
        return frozenset[Ability]().union(*(fault.needs for fault in self.faults))


@dataclass(frozen=True, slots=True)
class Rolling:
    """Every node in turn is killed and started again, as an upgrade does. *held*: while c1 holds
    the lock for its ttl."""

    data: Data
    pause: float
    held: bool = False

    def __call__(self, play: Play) -> None:
        """Play it."""
        play.enter("before")
        if self.held:
            _takes(play, "c1", timeout=10.0)
            play.client("c1").do("look")
        else:
            play.last(1.2)
        play.enter("during")
        for number in NODES:
            play.inflict(Restarted(nodes=(number,), data=self.data))
            play.last(self.pause)
        if self.held:
            play.client("c1").do("look")
        play.leave()
        play.enter("after")
        play.last(2.0)

    @property
    def needs(self) -> frozenset[Ability]:
        """To kill and to lose data."""
        return frozenset({Ability.KILL, Ability.DATA})


@dataclass(frozen=True, slots=True)
class SecondHolder:
    """c1 takes the lock and reads; then *faults*; c2 tries, and if it is granted the lock too, both
    write.

    *apart*: c1 reaches nodes 1 to 3 alone, and c2 nodes 3 to 5. *copied*: nodes whose data is kept
    from before, for a rollback. Whoever is not granted the lock does nothing; that the first one is
    not is told.
    """

    faults: Sequence[Nemesis]
    apart: bool = False
    copied: Sequence[int] = ()

    def __call__(self, play: Play) -> None:
        """Play it."""
        play.enter("before")
        for client in ("c1", "c2"):  # Connected, and their nodes known, before anything is broken.
            _takes(play, client, resource=f"{play.resource}:{client}")
        for number in self.copied:
            play.cluster.node(number).snapshot()
        if self.apart:
            play.inflict(Closed(links=among(["c1"], (4, 5))))
            play.inflict(Closed(links=among(["c2"], (1, 2))))
        first = _takes(play, "c1")
        play.claim("the first client is granted the lock", first == "ok", first)
        if first == "ok":
            play.client("c1").do("read")
        play.enter("during")
        for fault in self.faults:
            play.inflict(fault)
        if first == "ok" and _takes(play, "c2", timeout=1.5) == "ok":
            play.client("c2").do("read")
            play.client("c2").do("write")
            if play.client("c1").do("look") == "held":
                play.client("c1").do("write")
            play.last(0.5)  # Both hold on to what they were told.
        play.leave()
        play.heal_all()
        play.enter("after")

    @property
    def needs(self) -> frozenset[Ability]:
        """What its faults need."""
        copies = {Ability.DATA} if self.copied else set()
        return frozenset(copies).union(*(fault.needs for fault in self.faults))


def blocked_holder(play: Play) -> None:
    """S36: the holder's loop is blocked for longer than its ttl, and it writes without a look."""
    _zombie(
        play,
        lambda: play.inflict(
            Asked(clients=("c1",), label="blocked loop", order=_block(1.5 * play.ttl))
        ),
    )


def stopped_holder(play: Play) -> None:
    """S34: the holder's process is stopped for longer than its ttl, and it writes without a
    look."""

    def stop() -> None:
        with play.broken(StoppedClient(clients=("c1",))):
            play.last(1.5 * play.ttl)

    _zombie(play, stop)


def _zombie(play: Play, stall: Callable[[], object]) -> None:
    play.enter("before")
    if _takes(play, "c1", timeout=10.0) == "ok":
        play.client("c1").do("read")
        play.enter("during")
        stall()
        play.last(0.3)
        play.client("c1").do("write")
    play.enter("after")


def _block(seconds: float) -> Mapping[str, object]:
    return {"what": "block", "seconds": seconds}


def _takes(play: Play, client: str, **how: object) -> str:
    return play.client(client).do("acquire", **how)


@dataclass(frozen=True, slots=True)
class _As:
    """What an adapted scenario has in place of ours. None: as it is."""

    script: Script
    roles: Sequence[Role] | None = None
    ttl: float | None = None


ADAPTED: dict[str, _As] = {
    "S03": _As(Watched([Closed(links=among(LEADERS, MAJORITY))])),
    "S05": _As(Watched([black_hole(among(LEADERS, MAJORITY))])),
    "S10b": _As(Watched([lost_requests(among(LEADERS, MAJORITY))])),
    "S12": _As(Watched([lost_replies(among(LEADERS, MAJORITY))])),
    "S18": _As(Watched([black_hole(among(["c1"], NODES))])),
    "S19": _As(Watched([black_hole((*among(["c1"], (1, 2, 3)), *among(["c2", "c3"], MINORITY)))])),
    "S22": _As(Watched([black_hole(among(["c1", "c2"], MAJORITY))])),
    "S25": _As(Watched([Killed(nodes=MINORITY, data=Data.LOST)])),
    "S25b": _As(SecondHolder([Restarted(nodes=(3,), data=Data.LOST)], apart=True), TWO),
    "S27": _As(Rolling(Data.DURABLE, 0.3)),
    "S28": _As(Rolling(Data.LOST, 0.3, held=True), HOLDER, ttl=4.0),
    "S29": _As(SecondHolder([Flushed(nodes=NODES)]), TWO),
    "S30": _As(
        SecondHolder([Restarted(nodes=(3,), data=Data.ROLLED_BACK)], apart=True, copied=(3,)), TWO
    ),
    "S31": _As(Watched([Killed(nodes=(5,), data=Data.ON_DISK)])),
    "S32": _As(Watched([Paused(nodes=(5,))])),
    "S33": _As(Watched([Paused(nodes=MAJORITY)])),
    "S34": _As(stopped_holder),
    "S36": _As(blocked_holder),
    "S37": _As(Watched([KilledClient(clients=("c1",))])),
    "S40": _As(SecondHolder([ClockMoved(nodes=MINORITY, seconds=60.0)]), TWO),
    "S41": _As(SecondHolder([ClockMoved(nodes=MAJORITY, seconds=60.0)]), TWO),
    "S47": _As(Watched([Flushed(nodes=(5,))])),
    "S47b": _As(SecondHolder([Flushed(nodes=MAJORITY)]), TWO, ttl=4.0),
    "S49": _As(
        Watched([OutOfMemory(nodes=MAJORITY)]),
        (
            Role("contend", "blocking"),
            Role("contend", "asyncio"),
            Role("extend", "asyncio"),
            Role("probe", "blocking"),
        ),
        ttl=1.0,
    ),
    "S54": _As(Watched([Repointed(links=among(CROWD, (5,)), to=6)])),
    "S55": _As(
        SecondHolder([]),
        (Role("puppet", "blocking", nodes=(1, 2, 3)), Role("puppet", "asyncio", nodes=(3, 4, 5))),
        ttl=4.0,
    ),
}
"""By name, those that are not simply clients at work while something is broken. The others that
ask for what only our library has (tokens, events, admission, cancelling) are not run."""
_OURS = frozenset({"S42", "S60"})
"""Clients at work too, and not told to be for others."""


def adapted(scenario: Scenario) -> Scenario:
    """*scenario* for a client program that is not ours; one that makes no sense for it stays as
    it is, without `peers`."""
    other = ADAPTED.get(scenario.id)
    if other is not None:
        return replace(
            scenario,
            script=other.script,
            roles=other.roles or scenario.roles,
            ttl=other.ttl or scenario.ttl,
            peers=True,
        )
    steady = scenario.script
    if isinstance(steady, Steady) and (scenario.peers or scenario.id in _OURS):
        watched = Watched(steady.faults, steady.before, steady.during, max(steady.after, 2.0))
        return replace(scenario, script=watched, peers=True)
    return scenario
