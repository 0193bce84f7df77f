"""Elections to be measured on real servers: leaders are killed, resign, and meet every fault that
a leader can meet, over and over.

Scripts as those of scenarios, but with a loop; what they come to is read from the history.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

import redis

from chaos.checker import Assumptions
from chaos.history import Seen
from chaos.live.backend import side_client
from chaos.live.crew import Timeout
from chaos.live.directed import elections as directed
from chaos.live.directed.elections import Fault, valid_until
from chaos.live.nemesis import Asked, KilledClient, Nemesis, Paused
from chaos.live.play import Play
from chaos.live.scenario import Expected, Role, Scenario
from redlock.core.events import LeaseRenewed, TermStarted, TermStopping

__all__ = ["KINDS", "Kind", "Loss", "every_fault", "kills", "resignations", "taken_away"]

SETTINGS = {"election": {"stall_timeout": 0.4}, "reopens": True, "watches": True}
APIS = ("blocking", "asyncio", "blocking", "asyncio", "blocking")
RETRY_DELAY = 0.05
_PINGS = 20
RETURNS_WITHIN = 5.0
"""Seconds in which who lost a term must stand again: work that raises comes back after a pause."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault of leaders. *reasons*: what the ledger may say of it; empty: its process is gone and
    says nothing. *api*: of the leaders that it can befall. *zombie*: the work goes on past its end.
    *late*: the process learns of the end only when the fault is over."""

    name: str
    fault: Fault
    reasons: frozenset[str]
    api: str = ""
    zombie: bool = False
    late: bool = False


def _suspended(leader: str) -> Nemesis:
    return Asked(clients=(leader,), label="suspend", order={"what": "suspend", "seconds": 0.15})


def _paused_majority(leader: str) -> Nemesis:
    return Paused(nodes=(3, 4, 5))


def _killed(leader: str) -> Nemesis:
    return KilledClient(clients=(leader,))


KINDS = (
    Kind("cut off", directed.cut_off, frozenset({"renewal_failed"})),
    Kind("answers hang", directed.hanging_replies, frozenset({"renewal_failed"})),
    Kind("majority paused", _paused_majority, frozenset({"renewal_failed"})),
    Kind("SIGSTOP", directed.stopped, frozenset({"expired"}), late=True),
    Kind(
        "blocked loop",
        directed.blocked,
        frozenset({"expired"}),
        api="asyncio",
        zombie=True,
        late=True,
    ),
    Kind("dead renewal", directed.broken_renewal, frozenset({"expired"})),
    Kind("killed", _killed, frozenset()),
    Kind("resigns", directed.resigns, frozenset({"resigned"})),
    Kind("work raises", directed.misbehaves("raise", "work raises"), frozenset({"resigned"})),
    Kind("work returns", directed.misbehaves("return", "work returns"), frozenset({"work_ended"})),
    Kind("work stalls", directed.misbehaves("hang", "work stalls"), frozenset({"stalled"})),
    Kind(
        "work ignores the stop",
        directed.misbehaves("ignore", "work ignores the stop"),
        frozenset({"stalled"}),
        zombie=True,
    ),
    Kind("unfit", directed.unfit_candidate, frozenset({"unfit"})),
    Kind("closed", directed.closed, frozenset({"closed"})),
    Kind("suspended", _suspended, frozenset({"suspended"})),
)


@dataclass(slots=True)
class Loss:
    """One term that was ended. *took*: from the fault to the next leader; *stood_again*: whether
    its candidate stood within its bound."""

    kind: Kind
    leader: str
    token: int
    at: float
    valid_until: float
    took: float
    reason: str = ""
    stood_again: bool = True


@dataclass(slots=True)
class Losses:
    """A script: *count* leaders, each ended by a kind that *draw* gives for its name and api."""

    count: int
    draw: Callable[[int, str], Kind]
    tell: Callable[[str], None] = lambda line: None
    losses: list[Loss] = field(default_factory=list)
    round_trip: float = 0.0
    """Seconds from a client through its proxies to a node and back, the median."""
    after_renewal: bool = False
    """Whether every second fault comes just after a renewal, which is when a term that is not given
    back lasts longest."""

    def __call__(self, play: Play) -> None:
        """Play it."""
        dice = random.Random(play.seed)
        play.event(TermStarted)
        self.round_trip = _round_trip(play)
        play.enter("during")
        for number in range(self.count):
            term = _settled(play)
            if not (self.after_renewal and number % 2):
                play.last(dice.uniform(0.0, play.ttl / 4))
            term = _settled(play)
            api = APIS[int(term.candidate[1:]) - 1]
            self.losses.append(_lose(play, self.draw(number, api), term))
            if number % 10 == 9:
                self.tell(f"{number + 1} of {self.count} leaders have lost their terms")
        play.enter("after")
        play.renewed(_settled(play).candidate, since=play.here())


def _lose(play: Play, kind: Kind, term: TermStarted) -> Loss:
    leader, token, since = term.candidate, term.fencing_token, play.here()
    at = play.now()
    fault = play.inflict(kind.fault(leader))
    try:
        if kind.name == "majority paused":  # Nobody can lead before it is over.
            play.event(TermStopping, leader, since=since)
            play.heal(fault)
        following: TermStarted = play.event(
            TermStarted, since=since, where=lambda event: event.fencing_token > token
        )
    finally:
        play.heal(fault)
    loss = Loss(kind, leader, token, at, valid_until(play, token), following.at - at)
    if kind.reasons:
        stopping: TermStopping = play.event(
            TermStopping, leader, since=since, where=lambda event: event.fencing_token == token
        )
        loss.reason = stopping.reason
        loss.stood_again = _stands(play, leader)
        if kind.name == "suspended":
            play.client(leader).spoilt = True
    play.respawn(leader)
    return loss


def _round_trip(play: Play) -> float:
    took = []
    for number in play.cluster.numbers:
        with redis.Redis.from_url(play.cluster.url("c1", number)) as client:
            client.ping()
            for _ in range(_PINGS):
                began = play.now()
                client.ping()
                took.append(play.now() - began)
    return median(took)


def _settled(play: Play) -> TermStarted:
    """The term that is under way, once it has been renewed."""
    while True:
        current = _current(play)
        if current is not None and isinstance(_next_of(play, current), LeaseRenewed):
            return current
        play.last(0.005)


def _next_of(play: Play, term: TermStarted) -> LeaseRenewed | TermStopping:
    """What is heard of a term next: a renewal, or its end."""
    since, token = play.here(), term.fencing_token
    found: LeaseRenewed | TermStopping = play.event(
        (LeaseRenewed, TermStopping),
        term.candidate,
        since=since,
        where=lambda event: event.fencing_token == token,
    )
    return found


def _current(play: Play) -> TermStarted | None:
    """The latest term, unless it has ended."""
    ended = set()
    for record in play.journal.latest(lambda record: isinstance(record, Seen)):
        assert isinstance(record, Seen)
        if isinstance(record.event, TermStopping):
            ended.add(record.event.fencing_token)
        elif isinstance(record.event, TermStarted):
            return record.event if record.event.fencing_token not in ended else None
    return None


def _stands(play: Play, name: str) -> bool:
    """Whether a candidate stands again, or leads again, in time."""
    try:
        play.until(
            lambda: play.client(name).do("state") not in ("out", "follower", "stepping_down"),
            f"{name} to stand again",
            timeout=RETURNS_WITHIN,
        )
    except Timeout:
        return False
    return True


def _electors(script: Losses, id: str, title: str, ttl: float, expected: Expected) -> Scenario:
    return Scenario(
        id=id,
        title=title,
        expected=expected,
        roles=tuple(Role("elect", api, SETTINGS) for api in APIS),
        script=script,
        ttl=ttl,
        also=frozenset({Expected.SAFE, Expected.UNSAFE, Expected.UNAVAILABLE}),
    )


def kills(count: int, ttl: float, tell: Callable[[str], None]) -> tuple[Scenario, Losses]:
    """Five candidates, and whoever leads is killed."""
    kind = next(kind for kind in KINDS if kind.name == "killed")
    script = Losses(count, lambda number, api: kind, tell, after_renewal=True)
    return _electors(script, "EK", "leaders are killed", ttl, Expected.SAFE), script


def resignations(count: int, ttl: float, tell: Callable[[str], None]) -> tuple[Scenario, Losses]:
    """Five candidates, and whoever leads resigns."""
    kind = next(kind for kind in KINDS if kind.name == "resigns")
    script = Losses(count, lambda number, api: kind, tell)
    return _electors(script, "ER", "leaders resign", ttl, Expected.SAFE), script


def every_fault(count: int, ttl: float, tell: Callable[[str], None]) -> tuple[Scenario, Losses]:
    """Five candidates, and every kind of fault in turn befalls whoever leads."""
    due: list[Kind] = []

    def draw(number: int, api: str) -> Kind:
        fitting = [kind for kind in due if kind.api in ("", api)]
        if not fitting:
            due.extend(KINDS)
            fitting = [kind for kind in due if kind.api in ("", api)]
        due.remove(fitting[0])
        return fitting[0]

    script = Losses(count, draw, tell)
    return _electors(script, "EF", "every fault of a leader, in turn", ttl, Expected.SAFE), script


class _TakenAway(Nemesis):
    """The lock is deleted on all nodes, as by an operator: somebody newer leads at once."""

    def start(self, world: object, fault: str) -> None:
        assert isinstance(world, Play)
        for node in world.cluster.backend.nodes:
            with side_client(node) as client:
                client.delete(f"redlock:{world.resource}")


def taken_away(count: int, ttl: float, tell: Callable[[str], None]) -> tuple[Scenario, Losses]:
    """What mutual exclusion rests on is broken: here two may lead at once, and the leader must
    learn of it by its next renewal."""
    kind = Kind("lock deleted", lambda leader: _TakenAway(nodes=(1, 2, 3, 4, 5)), _CONTENDED)
    script = Losses(count, lambda number, api: kind, tell)
    scenario = _electors(script, "ED", "the lock is deleted under its leader", ttl, Expected.UNSAFE)
    return replace(scenario, assumptions=Assumptions(memory=False)), script


_CONTENDED = frozenset({"contended"})
