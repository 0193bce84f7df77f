"""The table: scenarios S01 to S61 and the controls, as data; those of elections stand in
`electorate`, those of waiting in `waiters`.

Who takes part, what is broken, and what must come of it. Most are clients at work while something
is broken (`Steady`); the others have a script in `directed`. Letters behind a number are variants:
"S10b" does to a majority what S10 does to a minority. A01 to A04 measure availability while one
node of five is gone, A05 how fast faults take hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chaos.checker import Assumptions
from chaos.live import directed
from chaos.live.backend import Ability, Data, Persistence, Setup
from chaos.live.campaign import one_round
from chaos.live.electorate import ELECTION_CONTROLS, ELECTIONS
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
    Nemesis,
    Paused,
    Repeated,
    ScriptsFlushed,
    WallClockStepped,
    WriteBurst,
    among,
    bandwidth,
    black_hole,
    latency,
    lost_replies,
    lost_requests,
    resets,
    slicing,
    slow_close,
)
from chaos.live.scenario import Expected, Role, Scenario, Script, Steady
from chaos.live.waiters import WAITING

__all__ = ["SCENARIOS", "controls", "named"]

NODES = (1, 2, 3, 4, 5)
MINORITY, MAJORITY = (4, 5), (3, 4, 5)

CROWD = (
    Role("contend", "blocking"),
    Role("contend", "asyncio"),
    Role("lead", "blocking", {"term": 0.4}),
    Role("extend", "asyncio"),
    Role("probe", "blocking"),
)
LEADERS = (Role("lead", "blocking"), Role("lead", "asyncio"), Role("lead", "blocking"))
PUPPETS = (Role("puppet", "blocking"), Role("puppet", "asyncio"), Role("puppet", "blocking"))
HOLDER = (Role("puppet", "blocking"), Role("contend", "blocking"), Role("contend", "asyncio"))
PROBES = (
    Role("probe", "blocking"),
    Role("probe", "asyncio"),
    Role("probe", "blocking"),
    Role("probe", "asyncio"),
)
HERD = (
    Role("herd", "blocking"),
    Role("herd", "asyncio"),
    Role("herd", "blocking"),
    Role("herd", "asyncio"),
)
ALL = tuple(f"c{number}" for number in range(1, len(CROWD) + 1))
CANDIDATES = tuple(f"c{number}" for number in range(1, len(LEADERS) + 1))

CLOCKS = Assumptions(timing=False, kept=True)
"""Server clocks jump: keys vanish early, nothing is forgotten."""
AMNESIA = Assumptions(memory=False)
CONTROL = Assumptions()

KILLS = frozenset({Ability.KILL, Ability.DATA})
CONFIGURES = frozenset({Ability.CONFIG})
JUMPS = frozenset({Ability.WIPE})
WIPES = frozenset({Ability.WIPE, Ability.FRESH})
"""Fresh nodes, because the quarantine of others may take a minute."""
CLOCKED = Setup(clock=True)


def crowd(
    id: str,
    title: str,
    expected: Expected,
    faults: Sequence[Nemesis] = (),
    *,
    script: Script | None = None,
    **how: object,
) -> Scenario:
    """Five clients that work by themselves: two contend, one leads for terms, one extends, one
    takes locks of its own."""
    return Scenario(
        id=id,
        title=title,
        expected=expected,
        roles=CROWD,
        script=script or Steady(faults),
        peers=True,
        **how,  # type: ignore[arg-type]
    )


def leaders(id: str, title: str, expected: Expected, script: Script, **how: object) -> Scenario:
    """Three candidates for one lock that is renewed automatically."""
    return Scenario(id=id, title=title, expected=expected, roles=LEADERS, script=script, **how)  # type: ignore[arg-type]


def puppets(id: str, title: str, expected: Expected, script: Script, **how: object) -> Scenario:
    """Three clients that a script leads step by step; long leases, so that no step is a matter
    of time."""
    return Scenario(
        id=id,
        title=title,
        expected=expected,
        script=script,
        **{"roles": PUPPETS, "ttl": 4.0, **how},  # type: ignore[arg-type]
    )


def broken(*plants: str) -> Sequence[Role]:
    """Puppets of which the first two have rules broken. None queues: a look would tell them of
    each other."""
    polls = {"fair": False}
    return (
        Role("puppet", "blocking", plants=plants, options=polls),
        Role("puppet", "asyncio", plants=plants, options=polls),
        Role("puppet", "blocking", options=polls),
    )


SAFE, DEGRADED, UNAVAILABLE = Expected.SAFE, Expected.DEGRADED, Expected.UNAVAILABLE
UNSAFE, MUST_FAIL = Expected.UNSAFE, Expected.MUST_FAIL

_NETWORK = (
    crowd(
        "S01", "nothing is broken, 5 clients contend", SAFE, script=Steady(before=1.5, during=2.0)
    ),
    crowd("S02", "2 of 5 ports closed", SAFE, [Closed(links=among(ALL, MINORITY))]),
    leaders(
        "S03",
        "a majority of ports closed while held",
        UNAVAILABLE,
        directed.holder_loses(Closed(links=among(CANDIDATES, MAJORITY))),
    ),
    crowd("S04", "1 node is a black hole both ways", DEGRADED, [black_hole(among(ALL, (5,)))]),
    leaders(
        "S05",
        "a majority is a black hole while held",
        UNAVAILABLE,
        directed.holder_loses(black_hole(among(CANDIDATES, MAJORITY))),
    ),
    crowd("S06", "a minority is slower than 2 ttl", SAFE, [latency(among(ALL, MINORITY), 2.0)]),
    crowd(
        "S07",
        "a majority is slower than the node timeout",
        UNAVAILABLE,
        script=Steady([latency(among(ALL, MAJORITY), 0.35)], unavailable=True),
        also=frozenset({DEGRADED}),
    ),
    crowd(
        "S08",
        "a majority is slower than the ttl: nothing is granted late",
        UNAVAILABLE,
        script=Steady([latency(among(ALL, MAJORITY), 1.3)], unavailable=True),
    ),
    puppets(
        "S08b",
        "grants wait at a stopped client until their validity is over",
        SAFE,
        directed.stale_replies,
        ttl=3.0,
        node_timeout=0.9,
    ),
    crowd(
        "S09",
        "a majority is just faster than the node timeout",
        SAFE,
        script=Steady([latency(among(ALL, MAJORITY), 0.19)], unavailable=True),
        also=frozenset({DEGRADED, UNAVAILABLE}),
    ),
    crowd(
        "S10", "requests to a minority are lost", DEGRADED, [lost_requests(among(ALL, MINORITY))]
    ),
    leaders(
        "S10b",
        "requests to a majority are lost while held",
        UNAVAILABLE,
        directed.holder_loses(lost_requests(among(CANDIDATES, MAJORITY))),
    ),
    crowd("S11", "replies of a minority are lost", SAFE, [lost_replies(among(ALL, MINORITY))]),
    leaders(
        "S12",
        "replies of a majority are lost: locks are set, and nobody knows",
        UNAVAILABLE,
        directed.holder_loses(lost_replies(among(CANDIDATES, MAJORITY))),
    ),
    puppets(
        "S13",
        "every connection is cut before its first reply",
        DEGRADED,
        directed.reply_cut,
        ttl=1.0,
    ),
    puppets(
        "S14",
        "requests arrive after their client gave up, or died",
        SAFE,
        directed.late_requests,
        ttl=1.0,
    ),
    puppets("S15", "a release of try 1 arrives during try 2", SAFE, directed.late_release, ttl=3.0),
    crowd(
        "S16",
        "resets and flapping proxies on all nodes",
        DEGRADED,
        [Flapping(of=resets(among(ALL, NODES)), on=0.15, off=0.5)],
    ),
    crowd(
        "S16b",
        "connections are closed late, and flap",
        DEGRADED,
        [
            slow_close(among(ALL, NODES), 0.3),
            Flapping(of=Closed(links=among(ALL, MINORITY)), on=0.2, off=0.3),
        ],
    ),
    crowd(
        "S17",
        "bytes come one by one, two nodes with 1 KB/s",
        DEGRADED,
        [slicing(among(ALL, (1, 2, 3))), bandwidth(among(ALL, MINORITY), 1)],
    ),
    leaders("S18", "the leader is isolated", SAFE, directed.isolated_leader(NODES)),
    leaders(
        "S19",
        "the leader sees a minority, the candidates a majority",
        SAFE,
        directed.isolated_leader((1, 2, 3), MINORITY),
    ),
    crowd(
        "S20",
        "bridge: two clients see each half, one sees both",
        SAFE,
        [black_hole((*among(ALL[:2], (4, 5)), *among(ALL[2:4], (1, 2))))],
    ),
    crowd(
        "S21",
        "majority ring: every client sees another majority",
        SAFE,
        [black_hole(tuple((f"c{i}", (i + k) % 5 + 1) for i in range(1, 6) for k in (2, 3)))],
    ),
    crowd(
        "S22",
        "two clients see no majority and get nothing, the others go on",
        SAFE,
        script=directed.seen_by_nobody(ALL[:2], (1, 2)),
    ),
    crowd(
        "S23",
        "a partition flaps every quarter of the ttl",
        SAFE,
        script=Steady(
            [Flapping(of=black_hole(among(("c1", "c3", "c4"), MAJORITY)), on=0.25, off=0.25)],
            during=6.0,
        ),
        also=frozenset({DEGRADED}),
    ),
    puppets(
        "S70",
        "no threads while a node dies that owes an answer",
        DEGRADED,
        directed.no_threads,
        ttl=2.0,
        roles=PUPPETS[:2],
        needs=KILLS | {Ability.PAUSE},
    ),
    puppets(
        "S70b",
        "control of S70: threads end with their first exception",
        DEGRADED,
        directed.dead_renewal,
        ttl=2.0,
        roles=(Role("puppet", "blocking", plants=("threads that die",)), PUPPETS[1]),
        needs=KILLS | {Ability.PAUSE},
    ),
    puppets(
        "S71",
        "no descriptors while all connections end",
        UNAVAILABLE,
        directed.no_descriptors,
        ttl=2.0,
        roles=PUPPETS[:2],
    ),
    puppets(
        "S71b",
        "control of S71: a dial that fails tells nobody",
        UNAVAILABLE,
        directed.dead_dials,
        ttl=2.0,
        roles=(Role("puppet", "blocking", plants=("dials that tell nobody",)), PUPPETS[1]),
    ),
)

_SERVERS = (
    crowd(
        "S24",
        "kill -9 of a minority that syncs every write",
        SAFE,
        [Killed(nodes=MINORITY, data=Data.DURABLE)],
        setup=Setup(persistence=Persistence.ALWAYS),
        durable=True,
    ),
    crowd(
        "S25",
        "kill -9 and amnesia of a minority, quarantine on",
        SAFE,
        script=directed.quarantined_crowd([Killed(nodes=MINORITY, data=Data.LOST)]),
        needs=KILLS,
    ),
    puppets(
        "S25b",
        "the holder's majority forgets one node, quarantine on",
        SAFE,
        directed.amnesia(Data.LOST, blocked=True),
        needs=KILLS,
    ),
    puppets(
        "S26",
        "the holder's majority forgets one node, quarantine off",
        UNSAFE,
        directed.amnesia(Data.LOST, blocked=False),
        roles=broken("no quarantine"),
        assumptions=AMNESIA,
        needs=KILLS,
    ),
    crowd(
        "S27",
        "rolling restart of all nodes, durable",
        SAFE,
        script=directed.rolling(Data.DURABLE, pause=0.3, quarantine=False),
        setup=Setup(persistence=Persistence.ALWAYS),
        durable=True,
        needs=KILLS,
        also=frozenset({DEGRADED}),
    ),
    crowd(
        "S28",
        "rolling restart of all nodes, amnesia and quarantine",
        DEGRADED,
        script=directed.rolling(Data.LOST, pause=0.5, quarantine=True),
        needs=KILLS,
        also=frozenset({UNAVAILABLE}),
    ),
    puppets(
        "S29",
        "all nodes are wiped while held, and a new client comes",
        UNSAFE,
        directed.wiped,
        roles=(
            Role("puppet", "blocking"),
            Role("puppet", "asyncio", options={"max_ttl": 3.0}),
            Role("puppet", "blocking"),
        ),
        ttl=3.0,
        assumptions=AMNESIA,
        needs=WIPES,
    ),
    puppets(
        "S30",
        "one node of the holder's majority comes back with an old data folder",
        SAFE,
        directed.amnesia(Data.ROLLED_BACK, blocked=True),
        setup=Setup(persistence=Persistence.EVERYSEC),
        needs=KILLS,
    ),
    crowd(
        "S31",
        "kill -9 with appendfsync everysec, in a burst of writes",
        SAFE,
        script=directed.quarantined_crowd(
            [Repeated(of=WriteBurst(nodes=(5,)), pause=0.02), Killed(nodes=(5,), data=Data.ON_DISK)]
        ),
        setup=Setup(persistence=Persistence.EVERYSEC),
        needs=KILLS,
    ),
    crowd(
        "S32",
        "one node pauses, for less and for more than the ttl",
        SAFE,
        script=directed.two_pauses(5),
        needs=frozenset({Ability.PAUSE}),
    ),
    leaders(
        "S33",
        "a majority pauses while held; late requests revive nothing",
        UNAVAILABLE,
        directed.holder_loses(Paused(nodes=MAJORITY)),
        needs=frozenset({Ability.PAUSE}),
    ),
)

_CLIENTS = (
    Scenario(
        id="S34",
        title="SIGSTOP of the holder past its ttl, a write after SIGCONT",
        expected=UNSAFE,
        roles=HOLDER,
        script=directed.stopped_holder,
        peers=True,
    ),
    Scenario(
        id="S35",
        title="SIGSTOP between check and write",
        expected=UNSAFE,
        roles=HOLDER,
        script=directed.check_and_stop,
        peers=True,
    ),
    Scenario(
        id="S36",
        title="a blocked event loop, for longer than the ttl",
        expected=UNSAFE,
        roles=(Role("puppet", "asyncio"), *HOLDER[1:]),
        script=directed.blocked_loop,
    ),
    leaders(
        "S37", "kill -9 of the holder", SAFE, directed.killed_holder, also=frozenset({UNAVAILABLE})
    ),
)

_CLOCKS = (
    puppets(
        "S40",
        "the clocks of a minority jump forward",
        SAFE,
        directed.clock_jump_on_a_minority,
        ttl=2.0,
        setup=CLOCKED,
        needs=JUMPS,
    ),
    puppets(
        "S41",
        "the clocks of a majority jump forward",
        UNSAFE,
        directed.clock_jump_on_a_majority,
        setup=CLOCKED,
        assumptions=CLOCKS,
        needs=JUMPS,
    ),
    puppets(
        "S41b",
        "all locks vanish, somebody newer comes and goes, the old holder extends",
        UNSAFE,
        directed.top_up_refused,
        setup=CLOCKED,
        assumptions=CLOCKS,
        needs=JUMPS,
    ),
    crowd(
        "S42",
        "the clock of one node jumps back by an hour",
        SAFE,
        [ClockMoved(nodes=(5,), seconds=-3600.0, lasting=True)],
        setup=CLOCKED,
    ),
    puppets(
        "S43",
        "the clock of one node jumps to and fro by a ttl",
        SAFE,
        directed.strobe,
        ttl=1.0,
        setup=CLOCKED,
        needs=JUMPS,
    ),
    crowd(
        "S44",
        "client wall clocks are an hour off, both ways",
        SAFE,
        [
            WallClockStepped(clients=("c1", "c3"), seconds=3600.0),
            WallClockStepped(clients=("c2",), seconds=-3600.0),
        ],
        assumptions=Assumptions(order=False),
    ),
    puppets("S45", "suspend: the lease clock leaps", SAFE, directed.suspend, ttl=1.0),
)

_STATES = (
    crowd(
        "S46",
        "SCRIPT FLUSH on all nodes, all the time",
        SAFE,
        [Repeated(of=ScriptsFlushed(nodes=NODES), pause=0.2)],
    ),
    crowd(
        "S47",
        "FLUSHALL on one node while held",
        SAFE,
        script=directed.quarantined_crowd([Flushed(nodes=(5,))]),
        needs=WIPES,
    ),
    leaders(
        "S47b",
        "FLUSHALL on a majority while held",
        UNAVAILABLE,
        directed.flushed_majority,
        needs=WIPES,
        also=frozenset({SAFE, DEGRADED}),
    ),
    puppets(
        "S48",
        "nodes that may evict are refused at admission",
        SAFE,
        directed.unfit,
        needs=CONFIGURES,
        roles=PUPPETS[:2],
        also=frozenset({DEGRADED}),
    ),
    puppets(
        "S48b",
        "eviction is forced on a majority while held",
        UNSAFE,
        directed.evicted,
        needs=CONFIGURES | {Ability.FRESH},
        assumptions=AMNESIA,
    ),
    puppets(
        "S49", "a majority is out of memory", UNAVAILABLE, directed.out_of_memory, needs=CONFIGURES
    ),
    crowd("S50", "one node was demoted to a replica", SAFE, [Demoted(nodes=(5,))]),
    crowd("S51", "a script keeps a minority busy for 2 ttl", SAFE, [Busy(nodes=MINORITY)]),
    crowd(
        "S51b",
        "CLIENT PAUSE on a minority for 2 ttl",
        SAFE,
        [ClientPaused(nodes=MINORITY, seconds=2.5)],
    ),
    Scenario(
        id="S52",
        title="a wrong password for one node, and for all",
        expected=SAFE,
        roles=(
            Role("contend", "blocking", login={5: ":wrong"}),
            Role("puppet", "asyncio", login=dict.fromkeys(NODES, ":wrong")),
            Role("contend", "asyncio"),
        ),
        script=directed.wrong_password,
        setup=Setup(options={"requirepass": "right"}),
        also=frozenset({DEGRADED}),
    ),
    puppets(
        "S53",
        "one server under two addresses",
        UNAVAILABLE,
        directed.duplicate_node,
        roles=PUPPETS[:2],
    ),
    crowd(
        "S54",
        "an address moves to another server",
        SAFE,
        script=directed.moved_address,
        setup=Setup(count=6),
    ),
    puppets(
        "S55",
        "two clients with different node lists",
        UNAVAILABLE,
        directed.other_list,
        roles=(Role("puppet", "blocking"), Role("puppet", "asyncio", nodes=(1, 2, 3))),
        cluster_id="blue",
    ),
    puppets(
        "S55c",
        "control: two clients with different node lists, and no check of the marker",
        MUST_FAIL,
        directed.unclaimed(directed.other_list),
        roles=(
            Role("puppet", "blocking"),
            Role("puppet", "asyncio", nodes=(1, 2, 3), plants=("any cluster",)),
        ),
        cluster_id="blue",
        assumptions=CONTROL,
    ),
    crowd("S56", "a minority has reached maxclients", SAFE, [ClientsLimited(nodes=MINORITY)]),
    Scenario(
        id="S57",
        title="acquires are cancelled at every point",
        expected=SAFE,
        roles=(Role("cancel", "asyncio"), Role("cancel", "asyncio"), Role("contend", "blocking")),
        script=directed.cancels,
    ),
    puppets("S58", "fork while held", SAFE, directed.fork, ttl=1.0, roles=PUPPETS[:2]),
    puppets(
        "S59",
        "renewal for ever, ended by max_hold",
        SAFE,
        directed.max_hold,
        ttl=1.0,
        roles=PUPPETS[:2],
    ),
    Scenario(
        id="S60",
        title="a herd of 100 wants one lock",
        expected=SAFE,
        roles=HERD,
        script=Steady(before=1.0, during=3.0),
        also=frozenset({DEGRADED}),
    ),
)

_RANDOM = (
    replace(one_round(7, "S61"), title="random faults, one round of a campaign"),
    replace(one_round(5, "S91"), title="random faults in an election, one round of a campaign"),
)

_AVAILABILITY = tuple(
    Scenario(
        id=id,
        title=f"availability with one node of five {what}",
        expected=SAFE,
        roles=PROBES,
        script=Steady([fault], before=8.0, during=8.0, after=2.0, alone=True),
        peers=True,
    )
    for id, what, fault in (
        ("A01", "black-holed", black_hole(among((*CANDIDATES, "c4"), (5,)))),
        ("A02", "stopped", Paused(nodes=(5,))),
        ("A03", "killed", Killed(nodes=(5,), data=Data.LOST)),
        (
            "A04",
            "flapping",
            Flapping(of=Closed(links=among((*CANDIDATES, "c4"), (5,))), on=0.25, off=0.25),
        ),
    )
)

_INJECTION = (
    Scenario(
        id="A05",
        title="how long it takes until a fault has taken hold, or is gone",
        expected=SAFE,
        roles=PROBES,
        script=directed.injections,
        needs=KILLS | {Ability.PAUSE},
        also=frozenset({DEGRADED}),
    ),
)

_CONTROLS = (
    puppets(
        "C1",
        "control: the token is a counter (INCR)",
        MUST_FAIL,
        directed.incr_token,
        roles=broken("incr token"),
    ),
    puppets(
        "C2",
        "control: nodes take an equal token",
        MUST_FAIL,
        directed.non_strict,
        roles=broken("non-strict"),
        ttl=1.0,
    ),
    puppets(
        "C3",
        "control: a lock is put back without looking at the fence",
        MUST_FAIL,
        directed.top_up,
        roles=broken("top-up without fence"),
        setup=CLOCKED,
        assumptions=CLOCKS,
        needs=JUMPS,
    ),
    puppets(
        "C4",
        "control: one owner for all tries, and a late release",
        MUST_FAIL,
        directed.unclaimed(directed.late_release),
        roles=broken("reused nonce"),
        ttl=3.0,
    ),
    puppets(
        "C5",
        "control: nobody looks at the clock after the vote",
        MUST_FAIL,
        directed.unclaimed(directed.stale_replies),
        roles=(Role("puppet", "blocking", plants=("no validity check",)), *PUPPETS[1:]),
        ttl=3.0,
        node_timeout=0.9,
    ),
)

_TABLE = (
    *_NETWORK,
    *_SERVERS,
    *_CLIENTS,
    *_CLOCKS,
    *_STATES,
    *ELECTIONS,
    *WAITING,
    *_RANDOM,
    *_AVAILABILITY,
    *_INJECTION,
    *_CONTROLS,
    *ELECTION_CONTROLS,
)

SCENARIOS = {scenario.id: scenario for scenario in _TABLE}
"""By name, in the order of the table."""


def controls() -> list[Scenario]:
    """Those that break one rule in the clients, and that the checker must convict."""
    return [one for one in SCENARIOS.values() if one.expected is Expected.MUST_FAIL]


def named(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names; "all" for all. Raises KeyError with what is not known."""
    if not names or "all" in names:
        return list(SCENARIOS.values())
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise KeyError(", ".join(unknown))
    return [SCENARIOS[name] for name in names]
