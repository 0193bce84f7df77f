"""The table: scenarios S01 to S61 and the controls, as data."""

from __future__ import annotations

from chaos.checker import Assumptions
from chaos.live.backend import Ability, Data
from chaos.live.nemesis import Killed, Paused, StoppedClient, among, black_hole
from chaos.live.play import Play
from chaos.live.scenario import Expected, Role, Scenario, Steady

ALL = ("c1", "c2", "c3", "c4", "c5")
CROWD = (
    Role("contend", "blocking"),
    Role("contend", "asyncio"),
    Role("lead", "blocking", {"term": 0.4}),
    Role("extend", "asyncio"),
    Role("probe", "blocking"),
)


def _zombie(play: Play) -> None:
    holder, others = play.client("c1"), ("c2", "c3")
    play.enter("before")
    holder.do("acquire")
    holder.do("read")
    since = play.here()
    fault = play.inflict(StoppedClient(clients=("c1",)))
    play.enter("during")
    play.granted(*others, since=since, count=2)
    play.heal(fault)
    play.enter("after")
    looked = holder.do("look")
    wrote = holder.do("write")
    play.claim("the stopped holder does not believe in its lease when it wakes", looked == "not held", looked)
    play.claim("its late write is refused", wrote == "refused", wrote)


SCENARIOS = (
    Scenario(id="S01", title="no fault, 5 clients contend", expected=Expected.SAFE, roles=CROWD, script=Steady(before=1.5, during=1.5)),
    Scenario(
        id="S04",
        title="1 node is a black hole both ways",
        expected=Expected.DEGRADED,
        roles=CROWD,
        script=Steady([black_hole(among(ALL, (5,)))]),
    ),
    Scenario(
        id="S25",
        title="kill -9 and amnesia of a minority, quarantine on",
        expected=Expected.SAFE,
        roles=CROWD,
        script=Steady([Killed(nodes=(1, 2), data=Data.LOST)], after=3.5),
        needs=frozenset({Ability.KILL, Ability.DATA}),
    ),
    Scenario(
        id="S32", title="pause of 1 node, longer than the ttl", expected=Expected.SAFE, roles=CROWD, script=Steady([Paused(nodes=(3,))]), needs=frozenset({Ability.PAUSE})
    ),
    Scenario(
        id="S34",
        title="SIGSTOP of the holder for longer than the ttl, a write after SIGCONT",
        expected=Expected.UNSAFE,
        roles=(Role("puppet", "blocking"), Role("contend", "blocking"), Role("contend", "asyncio")),
        script=_zombie,
    ),
)
