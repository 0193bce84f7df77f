"""The part of the table that is about those who wait, as data: S92 to S101.

Whoever waits may be killed, stopped, cut off, not told, or told in a wrong order: that costs time,
of which each scenario claims a bound, and never exclusion.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.live.backend import Ability
from chaos.live.directed import waiting
from chaos.live.directed.waiting import KILL, LOOK, PLACE, rounds
from chaos.live.nemesis import VOICELESS
from chaos.live.scenario import Expected, Role, Scenario, Script

__all__ = ["LINE", "MANY_DEAD", "TOLD", "WAITING"]

TTL = 1.0
APIS = ("blocking", "asyncio", "blocking", "asyncio")
LINE = tuple(Role("puppet", api) for api in APIS)
TOLD = (LINE[0], Role("puppet", "asyncio", plants=("dies when told",)), *LINE[2:])
"""The first in line dies in the instant in which it hears that the lock is free."""
MANY_DEAD = (*LINE, Role("puppet", "asyncio"))
"""The last one is many who wait."""
CONTEND = tuple(Role("contend", api) for api in APIS)
HEARS_NOTHING = tuple(Role("contend", api, plants=("hears nothing",)) for api in APIS)
BARGING = (Role("contend", "blocking", options={"fair": False}), *CONTEND[1:])
CONFIGURES = frozenset({Ability.CONFIG})


def line(
    id: str, title: str, script: Script, roles: Sequence[Role] = LINE, **how: object
) -> Scenario:
    """Puppets: c1 holds, and the others wait in the order of their names."""
    return Scenario(
        id=id,
        title=title,
        expected=Expected.SAFE,
        roles=roles,
        script=script,
        **{"ttl": TTL, **how},  # type: ignore[arg-type]
    )


def _voiceless(nodes: Sequence[int]) -> Sequence[Role]:
    login = {node: ":".join(VOICELESS) for node in nodes}
    return tuple(Role("puppet", api, login=login) for api in APIS)


def _one_wrong(node: int, names: Sequence[str]) -> Sequence[str]:
    """One node has the last one first."""
    return (names[-1], *names[:-1]) if node == 3 else names


def _three_ways(node: int, names: Sequence[str]) -> Sequence[str]:
    """Two nodes have one first, two another one, one a third: nobody is first at a majority."""
    turn = (0, 0, 1, 1, 2)[node - 1]
    return (*names[turn:], *names[:turn])


WAITING = (
    line("S92", "kill -9 of a waiter", rounds(waiting.killed_waiter)),
    line("S93", "kill -9 of the first in line", rounds(waiting.killed_head)),
    line(
        "S93b",
        "the first in line dies when it is told, before it takes the lock",
        rounds(waiting.told_and_dead),
        TOLD,
    ),
    line(
        "S94",
        "kill -9 of the holder while others wait",
        rounds(lambda: waiting.killed_holder(TTL)),
    ),
    line("S95", "fifty dead in a row at the head", rounds(waiting.many_dead), MANY_DEAD),
    line("S96", "every wake-up is lost", waiting.contended(), HEARS_NOTHING),
    line("S96b", "connections that listen are cut all the time", waiting.ears_cut(), CONTEND),
    line("S97", "a waiter is stopped for three seconds, and goes on", waiting.stopped_waiter),
    line(
        "S98",
        "clients have no right to the channels of one node",
        waiting.voiceless((5,), bar=KILL),
        _voiceless((5,)),
        needs=CONFIGURES,
    ),
    line(
        "S98b",
        "clients have no right to the channels of any node",
        waiting.voiceless((1, 2, 3, 4, 5), bar=LOOK),
        _voiceless((1, 2, 3, 4, 5)),
        needs=CONFIGURES,
    ),
    line(
        "S99",
        "a partition between the first in line and a minority",
        waiting.cut_off_waiter((4, 5), bar=KILL),
    ),
    line(
        "S99b",
        "a partition between the first in line and a majority",
        waiting.cut_off_waiter((3, 4, 5), bar=PLACE + LOOK + KILL),
    ),
    line("S100", "one node has another order", waiting.disagreement(_one_wrong)),
    line("S100b", "nobody is first at a majority", waiting.disagreement(_three_ways)),
    line("S101", "one client knows no queue", waiting.contended(), BARGING),
)
