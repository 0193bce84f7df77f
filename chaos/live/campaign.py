"""Random campaigns (S61): rounds of random faults under random clients, each drawn from one number.

A round first draws what its faults leave standing, and then faults that keep to that. In the end
everything is healed, and the clients must get on: a round is safe only if it also recovers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from chaos.checker import Assumptions
from chaos.live.backend import Ability, Data, Persistence, Setup
from chaos.live.nemesis import (
    Busy,
    ClientPaused,
    ClientsLimited,
    ClockMoved,
    Closed,
    Demoted,
    Flapping,
    Flushed,
    Killed,
    KilledClient,
    Nemesis,
    OutOfMemory,
    Password,
    Paused,
    Repeated,
    ScriptsFlushed,
    StoppedClient,
    Toxified,
    WallClockStepped,
    among,
    bandwidth,
    black_hole,
    cut_before_reply,
    held_back,
    latency,
    lost_replies,
    lost_requests,
    resets,
    slicing,
    slow_close,
)
from chaos.live.play import Play
from chaos.live.scenario import Expected, Role, Scenario
from redlock.core.events import LeaseGranted, LeaseRenewed
from redlock.core.quarantine import quarantine_span

__all__ = ["ROUND", "Planned", "plan", "rounds"]

ROUND = 25.0
"""Seconds of faults in a round."""
NODES = (1, 2, 3, 4, 5)
TOGETHER_MAX = 3
ROLES = (
    Role("contend", "blocking"),
    Role("contend", "asyncio"),
    Role("lead", "blocking", {"term": 1.5}),
    Role("lead", "asyncio", {"term": 0.6}),
    Role("extend", "asyncio"),
    Role("probe", "blocking"),
    Role("probe", "asyncio"),
)
_MOODS = {"moods": 0.75, "reopens": True}
ELECTORATE = (
    Role("elect", "blocking", _MOODS | {"election": {"stall_timeout": 1.0}}),
    Role("elect", "asyncio", _MOODS | {"election": {"stall_timeout": 1.0}}),
    Role("elect", "blocking", _MOODS | {"election": {"lock_delay": 0.3}}),
    Role("elect", "asyncio", _MOODS | {"election": {"priority": 0.1}}),
    Role("elect", "asyncio", _MOODS),
    Role("probe", "blocking"),
    Role("probe", "asyncio"),
)
"""Five candidates, whose work misbehaves in most of their terms, and as many clients in all as of
locks."""
ELECTIONS = 0.4
"""The share of rounds that are elections."""
CLIENTS = tuple(f"c{number}" for number in range(1, len(ROLES) + 1))


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault and when it is to be there, in seconds from the start of the round."""

    since: float
    until: float
    fault: Nemesis


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a round may break. *forgets*: nodes that may have forgotten within one quarantine."""

    name: str
    weight: int
    assumptions: Assumptions
    forgets: int
    clocks: bool = False


KINDS = (
    _Kind("sound", 7, Assumptions(order=False), forgets=2),
    _Kind(
        "clocks jump", 2, Assumptions(timing=False, order=False, kept=True), forgets=0, clocks=True
    ),
    _Kind("nodes forget at will", 1, Assumptions(memory=False, order=False), forgets=len(NODES)),
)


@dataclass(slots=True)
class _Draw:
    """One round being drawn."""

    random: random.Random
    kind: _Kind
    ttl: float
    durable: bool
    planned: list[Planned] = field(default_factory=list)
    _forgot: list[tuple[float, int]] = field(default_factory=list)

    def nodes(self) -> tuple[int, ...]:
        """One node, a minority, or a majority; the more, the rarer."""
        count = self.random.choice((1, 1, 1, 2, 2, 3))
        return tuple(sorted(self.random.sample(NODES, count)))

    def clients(self) -> tuple[str, ...]:
        """One, some, or all."""
        count = self.random.choice((1, 2, len(CLIENTS), len(CLIENTS)))
        return tuple(sorted(self.random.sample(CLIENTS, count)))

    def may_forget(self, nodes: Sequence[int], since: float, until: float) -> bool:
        """Whether no more nodes than allowed would be in quarantine at once."""
        span = quarantine_span(self.ttl) + 2.0
        recent = {node for at, node in self._forgot if at + span > since} | set(nodes)
        if len(recent) > self.kind.forgets:
            return False
        self._forgot += [(until, node) for node in nodes]
        return True

    def fault(self, since: float, until: float) -> Nemesis | None:
        """A random fault; None if what was drawn does not fit."""
        drawn = self.random.choice(self._choices())(since, until)
        return None if drawn is None or self._clashes(drawn, since, until) else drawn

    def _clashes(self, drawn: Nemesis, since: float, until: float) -> bool:
        """One fault of a server, of a process and of a link at a time: their ends would undo
        each other."""
        overlapping = [
            one for one in self.planned if one.since < until + 0.5 and since < one.until + 0.5
        ]
        if len(overlapping) >= TOGETHER_MAX:
            return True
        return any(_place(drawn) & _place(one.fault) for one in overlapping)

    def _choices(self) -> list[Callable[[float, float], Nemesis | None]]:
        choices: list[Callable[[float, float], Nemesis | None]] = [self._on_links] * 6
        choices += [
            self._flapping,
            *[self._on_server] * 3,
            *[self._on_client] * 2,
            *[self._forgetting] * 2,
        ]
        return choices + [self._clock] * (6 if self.kind.clocks else 0)

    def _on_links(self, since: float, until: float) -> Nemesis:
        draw = self.random
        links = among(self.clients(), self.nodes())
        makers: list[Callable[[], Nemesis]] = [
            lambda: black_hole(links),
            lambda: black_hole(links),
            lambda: lost_requests(links),
            lambda: lost_replies(links),
            lambda: held_back(links),
            lambda: cut_before_reply(links),
            lambda: resets(links),
            lambda: slow_close(links, 0.5),
            lambda: latency(links, draw.choice((0.02, 0.15, 0.3, 1.2))),
            lambda: latency(links, 0.1, jitter=0.08),
            lambda: bandwidth(links, draw.choice((1, 8))),
            lambda: slicing(links),
            lambda: Closed(links=links),
        ]
        return draw.choice(makers)()

    def _flapping(self, since: float, until: float) -> Nemesis:
        links = among(self.clients(), self.nodes())
        of = self.random.choice((black_hole(links), Closed(links=links), lost_replies(links)))
        pause = self.random.choice((0.1, 0.25, 0.5))
        return Flapping(of=of, on=pause, off=pause)

    def _on_server(self, since: float, until: float) -> Nemesis:
        nodes = self.nodes()
        makers: list[Callable[[], Nemesis]] = [
            lambda: Paused(nodes=nodes),
            lambda: Paused(nodes=nodes),
            lambda: Demoted(nodes=nodes),
            lambda: OutOfMemory(nodes),
            lambda: Busy(nodes=nodes),
            lambda: ClientPaused(nodes=nodes, seconds=until - since),
            lambda: ClientsLimited(nodes=nodes),
            lambda: Password(nodes=nodes),
            lambda: Repeated(of=ScriptsFlushed(nodes=nodes), pause=0.3),
        ]
        return self.random.choice(makers)()

    def _on_client(self, since: float, until: float) -> Nemesis:
        client = (self.random.choice(CLIENTS),)
        makers: list[Callable[[], Nemesis]] = [
            lambda: StoppedClient(clients=client),
            lambda: StoppedClient(clients=client),
            lambda: KilledClient(clients=client),
            lambda: WallClockStepped(
                clients=client, seconds=self.random.choice((-3600.0, -5.0, 5.0, 3600.0))
            ),
        ]
        return self.random.choice(makers)()

    def _forgetting(self, since: float, until: float) -> Nemesis | None:
        nodes = self.nodes()
        if self.durable:
            return Killed(nodes=nodes, data=Data.DURABLE)
        if not self.may_forget(nodes, since, until):
            return None
        return self.random.choice((Killed(nodes=nodes, data=Data.LOST), Flushed(nodes=nodes)))

    def _clock(self, since: float, until: float) -> Nemesis:
        seconds = self.random.choice((-5.0, -1.0, 1.0, 5.0, 60.0))
        return ClockMoved(nodes=self.nodes(), seconds=seconds)


def _place(fault: Nemesis) -> set[object]:
    """What a fault has for itself while it lasts."""
    if isinstance(fault, Flapping | Repeated):
        return _place(fault.of)
    if isinstance(fault, Toxified) and fault.delivers:
        return {*fault.links, *fault.nodes}
    if isinstance(fault, Toxified | Closed):
        return set(fault.links)
    return {*fault.clients, *fault.nodes}


def plan(draw: _Draw, seconds: float) -> list[Planned]:
    """The faults of a round, none of them later than its end."""
    at = 1.0
    while at < seconds - 1.0:
        lasts = min(draw.random.choice((0.3, 0.8, 1.5, 2.5, 4.0)), seconds - at)
        fault = draw.fault(at, at + lasts)
        if fault is not None:
            draw.planned.append(Planned(at, at + (0.0 if fault.momentary else lasts), fault))
        at += draw.random.uniform(0.2, 1.2)
    return draw.planned


@dataclass(frozen=True, slots=True)
class _Round:
    """The script of one round."""

    planned: tuple[Planned, ...]
    seconds: float
    elects: bool = False

    def __call__(self, play: Play) -> None:
        """Break and heal as planned, heal all, and wait until the clients get on."""
        play.granted()
        play.enter("before")
        play.last(1.0)
        play.enter("during")
        self._break(play)
        play.heal_all()
        play.enter("after")
        since = play.here()
        for name in play.members:
            play.respawn(name)
        play.last(1.0)
        if self.elects:
            # A leader that does well has no second grant.
            for _ in range(3):
                play.event((LeaseGranted, LeaseRenewed), since=since, where=self._of(play))
                since = play.here()
            play.claim("with everything healed, somebody leads again", True)
        else:
            play.granted(since=since, count=3)
            play.claim("with everything healed, locks are granted again", True)

    @staticmethod
    def _of(play: Play) -> Callable[[LeaseGranted | LeaseRenewed], bool]:
        return lambda event: event.resource == play.resource

    def _break(self, play: Play) -> None:
        began = play.phases[-1].since
        names: dict[int, str] = {}
        for at, place, starts in sorted(self._steps()):
            play.last(max(0.0, began + at - play.now()))
            planned = self.planned[place]
            if starts:
                names[place] = play.inflict(planned.fault)
                if isinstance(planned.fault, KilledClient):
                    for client in planned.fault.clients:
                        play.respawn(client)
            else:
                play.heal(names[place])

    def _steps(self) -> Iterable[tuple[float, int, bool]]:
        for place, planned in enumerate(self.planned):
            yield planned.since, place, True
            if not planned.fault.momentary:
                yield planned.until, place, False


def rounds(seed: int) -> Iterator[Scenario]:
    """The rounds of a campaign, without an end; the same for the same seed."""
    number = 0
    while True:
        number += 1
        yield one_round(seed * 100_000 + number, f"S61-{number:03d}")


def one_round(seed: int, name: str, seconds: float = ROUND) -> Scenario:
    """The round of this seed."""
    dice = random.Random(seed)
    kind = dice.choices(KINDS, [kind.weight for kind in KINDS])[0]
    ttl, durable = dice.choice((0.9, 1.2, 2.0)), dice.random() < 0.3
    draw = _Draw(dice, kind, ttl, durable and kind.name != "nodes forget at will")
    also = {Expected.DEGRADED, Expected.UNAVAILABLE, Expected.UNSAFE}
    # By dice of its own: the faults of a seed are the same for either.
    elects = random.Random(f"election {seed}").random() < ELECTIONS
    return Scenario(
        id=name,
        title=f"random faults{' in an election' if elects else ''}: {kind.name}",
        expected=Expected.SAFE,
        roles=ELECTORATE if elects else ROLES,
        script=_Round(tuple(plan(draw, seconds)), seconds, elects),
        setup=Setup(
            persistence=Persistence.ALWAYS if draw.durable else Persistence.NONE, clock=kind.clocks
        ),
        assumptions=kind.assumptions,
        ttl=ttl,
        node_timeout=0.2,
        durable=draw.durable,
        needs=frozenset(
            {Ability.KILL, Ability.PAUSE, Ability.DATA, Ability.CONFIG, Ability.WIPE, Ability.FRESH}
        ),
        # A stopped client acts as a zombie when it wakes: what an unguarded store would lose is no
        # violation.
        also=frozenset(also),
    )
