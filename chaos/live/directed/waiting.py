"""Those who wait: killed, stopped, cut off, not told, or told in the wrong order; how long a free
lock stands still then.

A round: c1 holds the lock, the others line up behind it in the order of their names, something
happens, and the lock goes from hand to hand until all who live have had it. What is claimed of the
time is read from the history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos.history import Called, Seen
from chaos.live.backend import side_client
from chaos.live.directed.common import NODES, takes
from chaos.live.nemesis import (
    Disordered,
    EarsCut,
    KilledClient,
    Nemesis,
    Queued,
    Repeated,
    StoppedClient,
    Voiceless,
    among,
    black_hole,
    queued,
)
from chaos.live.play import Play
from chaos.live.scenario import Steady
from chaos.standstill import Standstill, at_share, standstills
from redlock.core.events import LeaseGranted, NodeGivesNoWakeUps

__all__ = [
    "DEAD",
    "KILL",
    "LOOK",
    "PLACE",
    "Contended",
    "Rounds",
    "contended",
    "cut_off_waiter",
    "disagreement",
    "ears_cut",
    "killed_head",
    "killed_holder",
    "killed_waiter",
    "many_dead",
    "rounds",
    "stopped_waiter",
    "told_and_dead",
    "voiceless",
]

MACHINE = 0.25
"""Seconds that a busy machine may add once: without what is claimed here it would be the second
for which a place of somebody dead stands."""
PLACE = 1.0
"""Seconds for which a place stands that nobody renews."""
LOOK = 0.2
"""Seconds after which whoever is not told looks, at the latest."""
KILL = 0.05
"""Seconds of standstill after somebody was killed."""
DEAD = 50
"""Dead in a row at the head of a queue."""
_TIMEOUT = 30.0
HOLDER = "c1"


@dataclass(slots=True)
class Rounds:
    """A script: *count* rounds, in each of which *strike* does something while c1 holds and *line*
    waits; it gives the names of those who are not to be granted the lock. *bar*: seconds that the
    lock may stand still afterwards. *dead*: so many wait in one process between c1 and the line,
    and "c5" is that process. *faults* last from before the first round.
    """

    strike: Callable[[Play], Sequence[str]]
    bar: float
    count: int = 2
    line: Sequence[str] = ("c2", "c3", "c4")
    dead: int = 0
    faults: Sequence[Nemesis] = ()
    hear: bool = True
    tell: Callable[[str], None] = lambda line: None
    took: list[Standstill] = field(default_factory=list)

    def __call__(self, play: Play) -> None:
        """Play it."""
        play.enter("during")
        for fault in self.faults:
            play.inflict(fault)
        for number in range(self.count):
            self.took += self._round(play)
            if number % 10 == 9:
                self.tell(f"{number + 1} of {self.count} rounds")
        play.enter("after")
        claim_standstill(play, self.took, self.bar)

    def _round(self, play: Play) -> list[Standstill]:
        """The longest standstill of one round: there is but one that what was done could cost."""
        meet(play, HOLDER, *self.line)
        since, began = play.here(), play.now()
        takes(play, HOLDER, auto_extend=True)
        if self.dead:
            play.client("c5").do("queue", count=self.dead)
            stands(play, self.dead)
        answers = line_up(play, *self.line, behind=self.dead, hear=self.hear)
        gone = self.strike(play)
        hand_over(play, {name: done for name, done in answers.items() if name not in gone}, gone)
        served = clients_served(play, since)
        wanted = [name for name in (HOLDER, *self.line) if name == HOLDER or name not in gone]
        in_order = served == wanted
        if not in_order:
            play.claim("those who live are served in their order", False, " ".join(served))
        took = standstills(play.journal.records(), play.resource, since=began)
        for name in gone:
            play.respawn(name)
        return [max(took, key=lambda one: one.took)]


def meet(play: Play, *clients: str) -> None:
    """Let them use the nodes once: a process that is new meets them first."""
    for client in clients:
        resource = f"{play.resource}:{client}"
        takes(play, client, resource=resource)
        play.client(client).do("release", resource=resource)


def clients_served(play: Play, since: int) -> list[str]:
    """Who was granted the lock, in the order of the grants."""
    heard = [play.journal[place] for place in range(since, len(play.journal))]
    return [
        record.client
        for record in sorted(heard, key=lambda record: record.at)
        if isinstance(record, Seen)
        and isinstance(record.event, LeaseGranted)
        and record.event.resource == play.resource
    ]


def line_up(
    play: Play, *clients: str, behind: int = 0, hear: bool = True
) -> dict[str, Callable[[float], str]]:
    """Let *clients* wait, each once the one before it stands in the queues of all nodes."""
    answers = {}
    for number, client in enumerate(clients, behind + 1):
        answers[client] = play.client(client).order("acquire", timeout=_TIMEOUT)
        stands(play, number, hear=hear)
    return answers


def stands(play: Play, count: int, *, hear: bool = True) -> None:
    """Wait until so many stand in the queues of all nodes, and *hear* of a release if they can:
    before its coordinator listens, a node cannot tell that one is gone."""

    def standing(number: int) -> bool:
        there = places(play, number)
        return len(there) >= count and all(one.hears for one in there) >= hear

    play.until(lambda: all(standing(node) for node in NODES), f"{count} in line")


def places(play: Play, number: int) -> list[Queued]:
    """Those who wait on one node, the first one first."""
    with side_client(play.cluster.node(number)) as client:
        return queued(client, play.resource)


def hand_over(
    play: Play, answers: dict[str, Callable[[float], str]], gone: Sequence[str] = ()
) -> None:
    """c1 gives the lock back, unless it is among *gone*; each of the others has it and gives it
    back."""
    if HOLDER not in gone:
        play.client(HOLDER).do("release")
    for name, done in answers.items():
        took = done(_TIMEOUT)
        play.client(name).do("release")
        if took != "ok":
            play.claim(f"{name} gets the lock", False, took)


def claim_standstill(play: Play, took: Sequence[Standstill], bar: float) -> None:
    """At most *bar* more often than not, and never longer than a busy machine explains."""
    seconds = [one.took for one in took]
    middle, most = at_share(seconds, 0.5), max(seconds, default=0.0)
    play.claim(
        f"the lock stands still for {1000 * bar:.0f} ms at most",
        seconds and middle <= bar and most <= bar + MACHINE,
        f"{len(seconds)} times, p50 {1000 * middle:.1f} ms, max {1000 * most:.1f} ms",
    )


# Killed


def _kills(*clients: str) -> Callable[[Play], Sequence[str]]:
    def strike(play: Play) -> Sequence[str]:
        play.inflict(KilledClient(clients=clients))
        return clients

    return strike


def killed_waiter(count: int = 2) -> Rounds:
    """S92: kill -9 of one who waits, and is not the first."""
    return Rounds(_kills("c3"), KILL, count)


def killed_head(count: int = 2) -> Rounds:
    """S93: kill -9 of the first in line."""
    return Rounds(_kills("c2"), KILL, count)


def told_and_dead(count: int = 2) -> Rounds:
    """S93b: the first in line dies when it has been told, and has not taken the lock: the next one
    finds out by looking."""
    return Rounds(lambda play: ("c2",), LOOK + KILL, count)


def killed_holder(ttl: float, count: int = 2) -> Rounds:
    """S94: kill -9 of the holder, just after a renewal."""

    def strike(play: Play) -> Sequence[str]:
        play.renewed(HOLDER, since=play.here())
        return _kills(HOLDER)(play)

    return Rounds(strike, ttl + KILL, count)


def many_dead(count: int = 1) -> Rounds:
    """S95: the first fifty in line are dead."""
    return Rounds(_kills("c5"), KILL + LOOK, count, line=("c2",), dead=DEAD)


def rounds(make: Callable[[], Rounds]) -> Callable[[Play], None]:
    """A script of a table: what it measures belongs to the one time that it is played."""
    return lambda play: make()(play)


# Stopped, or cut off


def stopped_waiter(play: Play) -> None:
    """S97: the first in line is stopped, loses its place, and queues again when it goes on."""
    meet(play, HOLDER, "c2", "c3")
    takes(play, HOLDER, auto_extend=True)
    answers = line_up(play, "c2", "c3")
    first, second = [one.name for one in places(play, 1)]

    def stands_on(node: int) -> bool:
        return any(one.name == first for one in places(play, node))

    began = play.now()
    play.enter("during")
    with play.broken(StoppedClient(clients=("c2",))):
        play.until(lambda: not any(stands_on(node) for node in NODES), "its place to be over")
        play.last(max(0.0, began + 3.0 - play.now()))
        play.claim(
            "who goes on waiting keeps its place", [one.name for one in places(play, 1)] == [second]
        )
        hand_over(play, {"c3": answers["c3"]})
        took = standstills(play.journal.records(), play.resource, since=began)
        claim_standstill(play, took, KILL)
        takes(play, HOLDER, auto_extend=True)
    play.enter("after")
    play.until(lambda: all(stands_on(node) for node in NODES), "it to queue again")
    play.claim("it queues again", True)
    hand_over(play, {"c2": answers["c2"]})


def cut_off_waiter(nodes: Sequence[int], *, bar: float) -> Callable[[Play], None]:
    """S99: a partition between the first in line and some nodes, just before the release."""

    def script(play: Play) -> None:
        meet(play, HOLDER, "c2", "c3")
        takes(play, HOLDER, auto_extend=True)
        answers = line_up(play, "c2", "c3")
        began = play.now()
        majority = len(nodes) > len(NODES) // 2
        with play.broken(black_hole(among(("c2",), nodes))):
            play.enter("during")
            hand_over(play, {name: answers[name] for name in ("c3",) if majority} or answers)
            play.leave()
        play.enter("after")
        took = standstills(play.journal.records(), play.resource, since=began)
        if majority:
            hand_over(play, {"c2": answers["c2"]}, (HOLDER,))
        claim_standstill(play, took, bar)

    return script


# Not told, or in the wrong order


def disagreement(order: Callable[[int, Sequence[str]], Sequence[str]]) -> Callable[[Play], None]:
    """S100: the nodes do not agree on who is first, in the moment of the release."""

    def script(play: Play) -> None:
        line = ("c2", "c3", "c4")
        meet(play, HOLDER, *line)
        play.enter("during")
        began = play.now()
        for _ in range(4):
            takes(play, HOLDER, auto_extend=True)
            answers = line_up(play, *line)
            play.inflict(Disordered(nodes=NODES, resource=play.resource, order=order))
            since = play.here()
            play.client(HOLDER).do("release")
            _in_any_order(play, answers, since)
        play.leave()
        took = standstills(play.journal.records(), play.resource, since=began)
        claim_standstill(play, took, LOOK)

    return script


def _in_any_order(play: Play, answers: dict[str, Callable[[float], str]], since: int) -> None:
    """Each has the lock and gives it back, whoever comes first."""
    while answers:
        call = play.called("acquire", "", *answers, since=since)
        took = answers.pop(call.client)(_TIMEOUT)
        play.client(call.client).do("release")
        if took != "ok":
            play.claim(f"{call.client} gets the lock", False, took)


@dataclass(frozen=True, slots=True)
class Contended(Steady):
    """Clients that contend while something is broken, and how long the lock stands still then.

    *bar*: seconds.
    """

    bar: float = LOOK

    def __call__(self, play: Play) -> None:
        """Play it."""
        # Explicitly: a dataclass with slots is another class than the one that super() sees.
        Steady.__call__(self, play)
        during = next(phase for phase in play.phases if phase.name == "during")
        took = standstills(
            play.journal.records(), play.resource, since=during.since + LOOK, until=during.until
        )
        claim_standstill(play, took, self.bar)


def contended(*faults: Nemesis) -> Contended:
    """S96, S101: no wake-up reaches anybody, or one client knows no queue."""
    return Contended(faults, before=0.5, during=3.0, after=0.5)


def ears_cut() -> Contended:
    """S96b: the nodes cut all ears, over and over."""
    return contended(Repeated(of=EarsCut(nodes=NODES), pause=0.02))


def voiceless(nodes: Sequence[int], *, bar: float) -> Callable[[Play], None]:
    """S98: clients have no right to the channels of some nodes, and are told so."""

    def script(play: Play) -> None:
        # With the ears of a majority, nodes are told that one hears.
        hear = len(nodes) <= len(NODES) // 2
        Rounds(lambda play: (), bar, 3, faults=(Voiceless(nodes=tuple(nodes)),), hear=hear)(play)
        play.claim("clients are told of it", play.event(NodeGivesNoWakeUps))
        unconfirmed = [
            record.outcome
            for record in play.journal.records()
            if isinstance(record, Called) and record.call == "release" and record.outcome != "ok"
        ]
        play.claim("every release is confirmed", not unconfirmed, " ".join(unconfirmed[:1]))

    return script
