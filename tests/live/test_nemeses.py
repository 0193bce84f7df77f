"""Every fault can be inflicted and healed, shows in the history, and leaves servers and clients
as they were."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checker import Assumptions
from chaos.history import Broken, Healed
from chaos.live.backend import Data, Persistence, Setup, side_client
from chaos.live.nemesis import (
    Busy,
    ClientPaused,
    ClientsLimited,
    ClockMoved,
    Closed,
    Configured,
    Demoted,
    Evicting,
    Flapping,
    Flushed,
    Killed,
    KilledClient,
    Nemesis,
    OutOfMemory,
    Password,
    Paused,
    Repeated,
    Repointed,
    Restarted,
    ScriptsFlushed,
    StoppedClient,
    WallClockStepped,
    among,
    bandwidth,
    black_hole,
    cut_before_reply,
    held_back,
    isolation,
    late_replies,
    latency,
    lost_replies,
    lost_requests,
    resets,
    slicing,
    slow_close,
)
from chaos.live.play import Play
from chaos.live.runner import Runner
from chaos.live.scenario import Expected, Role, Scenario

LINKS = among(("c1", "c2"), (4, 5))
FAULTS: tuple[Nemesis, ...] = (
    black_hole(LINKS),
    lost_requests(LINKS),
    lost_replies(LINKS),
    latency(LINKS, 0.05, jitter=0.02),
    held_back(LINKS),
    late_replies(LINKS),
    cut_before_reply(LINKS),
    resets(LINKS),
    slow_close(LINKS, 0.1),
    bandwidth(LINKS, 8),
    slicing(LINKS),
    isolation("c2", (1, 2, 3, 4, 5)),
    Closed(links=LINKS),
    Repointed(links=among(("c1",), (5,)), to=4),
    Killed(nodes=(4, 5), data=Data.LOST),
    Killed(nodes=(5,), data=Data.DURABLE),
    Restarted(nodes=(5,), data=Data.ON_DISK),
    Paused(nodes=(4, 5)),
    Flushed(nodes=(5,)),
    OutOfMemory((4, 5)),
    Configured(nodes=(5,), label="eviction policy", settings={"maxmemory-policy": "volatile-ttl"}),
    Evicting(nodes=(5,)),
    Password(nodes=(4, 5)),
    Demoted(nodes=(5,)),
    Busy(nodes=(4, 5)),
    ClientPaused(nodes=(5,), seconds=0.3),
    ClientsLimited(nodes=(4, 5)),
    ScriptsFlushed(nodes=(1, 2, 3, 4, 5)),
    ClockMoved(nodes=(5,), seconds=20.0),
    ClockMoved(nodes=(5,), seconds=-20.0),
    StoppedClient(clients=("c1",)),
    WallClockStepped(clients=("c1",), seconds=3600.0),
    KilledClient(clients=("c1",)),
    Flapping(of=Closed(links=LINKS), on=0.05, off=0.05),
    Repeated(of=ScriptsFlushed(nodes=(1, 2)), pause=0.05),
)
SETTINGS = ("maxmemory", "maxmemory-policy", "maxclients", "requirepass", "lua-time-limit")


def settings_of(play: Play) -> list[dict[str, Any]]:
    """What every server is set to, and that it is a master again."""
    found = []
    for node in play.cluster.backend.nodes:
        with side_client(node) as client:
            found.append(
                {**client.config_get(*SETTINGS), "role": client.info("replication")["role"]}
            )
    return found


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: f"{fault.name}-{getattr(fault, 'data', fault.nodes)}"
)
def test_a_fault_is_inflicted_and_healed(runner: Runner, fault: Nemesis) -> None:
    """The clients that are left get on while a minority is broken and afterwards, nothing is
    violated, and all is as before."""
    seen: dict[str, Any] = {}

    def script(play: Play) -> None:
        play.granted()
        before = settings_of(play)
        name = play.inflict(fault)
        play.last(0.1)
        play.heal(name)
        seen["as before"] = settings_of(play) == before
        seen["fault"] = name
        play.granted(since=play.here())

    timing = not isinstance(fault, ClockMoved)
    outcome = runner.run(
        Scenario(
            id="T01",
            title="one fault",
            expected=Expected.SAFE,
            roles=(
                Role("contend", "blocking"),
                Role("contend", "asyncio"),
                Role("contend", "blocking"),
            ),
            script=script,
            setup=Setup(clock=isinstance(fault, ClockMoved), persistence=Persistence.ALWAYS),
            durable=True,
            assumptions=Assumptions(
                timing=timing, order=False, memory=not isinstance(fault, Evicting)
            ),
            also=frozenset(Expected),
        )
    )
    assert outcome.ok, f"{outcome.why}\n{runner.errors()}"
    assert seen["as before"]
    told = [
        record
        for record in outcome.history
        if isinstance(record, Broken | Healed) and record.fault == seen["fault"]
    ]
    assert [type(record) for record in told] == [Broken, Healed]
    assert told[0].at <= told[1].at


def test_a_clock_jump_without_libfaketime_has_the_same_effect(runner: Runner) -> None:
    """Keys that expire live as much shorter, or longer; those whose time is over are gone."""
    left: dict[str, Any] = {}

    def script(play: Play) -> None:
        node = play.cluster.node(1)
        assert not node.shift_clock(1.0)
        with side_client(node) as client:
            for key, ttl in (("short", 5_000), ("long", 60_000)):
                client.set(key, "x", px=ttl)
            client.set("for ever", "x")
            with play.broken(ClockMoved(nodes=(1,), seconds=10.0)):
                left["ahead"] = [client.pttl(key) for key in ("short", "long", "for ever")]
            left["back"] = client.pttl("long")

    roles = (Role("puppet", "blocking"),)
    outcome = runner.run(
        Scenario(id="T02", title="clock", expected=Expected.SAFE, roles=roles, script=script)
    )
    assert outcome.ok, outcome.why
    short, long, for_ever = left["ahead"]
    assert (short, for_ever) == (-2, -1) and 0 < long <= 50_000 < left["back"] <= 60_000
