"""The part of the table that is about elections, as data: S38, S39, S80 to S90, and controls.

What befalls a leader, what its ledger must say of that, and whether it may give the lock back.
"""

from __future__ import annotations

from dataclasses import replace

from chaos.live import directed
from chaos.live.scenario import Expected, Role, Scenario, Script

__all__ = ["ELECTIONS", "ELECTION_CONTROLS"]

SAFE, UNSAFE, MUST_FAIL = Expected.SAFE, Expected.UNSAFE, Expected.MUST_FAIL
STANDING = {"stands": False}
ELECTORATE = tuple(Role("elect", api, STANDING) for api in ("blocking", "asyncio", "blocking"))
SUPERVISED = (Role("supervise", "blocking", {"way": "ignores"}), Role("elect", "asyncio", STANDING))


def electorate(id: str, title: str, expected: Expected, script: Script, **how: object) -> Scenario:
    """Three candidates of one election, blocking, asyncio and blocking; the first two are made to
    lead in turn."""
    return Scenario(
        id=id,
        title=title,
        expected=expected,
        script=script,
        **{"roles": ELECTORATE, "ttl": 1.5, **how},  # type: ignore[arg-type]
    )


IGNORING = directed.misbehaves("ignore", "work that ignores the stop")

ELECTIONS = (
    electorate(
        "S38",
        "kill -9 of the supervisor, whose command ignores SIGTERM",
        SAFE,
        directed.killed_supervisor,
        ttl=2.0,
        roles=SUPERVISED,
    ),
    electorate(
        "S39",
        "a supervisor is cut off, and its command ignores SIGTERM",
        SAFE,
        directed.deaf_command,
        ttl=2.0,
        roles=SUPERVISED,
    ),
    electorate(
        "S80",
        "the leader of an election is cut off",
        SAFE,
        directed.loses(directed.cut_off, reason="renewal_failed", releases=False),
    ),
    electorate(
        "S80b",
        "the same, and its work ignores the stop",
        UNSAFE,
        directed.loses(
            IGNORING, directed.cut_off, reason="renewal_failed", releases=False, zombie=True
        ),
    ),
    electorate(
        "S81",
        "requests of the leader arrive, answers do not",
        SAFE,
        directed.loses(directed.hanging_replies, reason="renewal_failed", releases=False),
    ),
    electorate(
        "S82",
        "SIGSTOP of the leader, and its work writes after SIGCONT",
        UNSAFE,
        directed.loses(
            directed.blocked,
            directed.stopped,
            reason="expired",
            releases=False,
            zombie=True,
            heals_first=True,
        ),
    ),
    electorate(
        "S83",
        "work blocks the event loop of the leader, and writes then",
        UNSAFE,
        directed.loses(
            directed.blocked,
            reason="expired",
            leaders=("c2",),
            releases=False,
            zombie=True,
            heals_first=True,
        ),
    ),
    electorate(
        "S84",
        "what renews in the leader lives no more",
        SAFE,
        directed.loses(directed.broken_renewal, reason="expired", releases=True),
    ),
    electorate("S85", "kill -9 of the leader of an election", SAFE, directed.killed_leader),
    electorate(
        "S86",
        "the leader resigns",
        SAFE,
        directed.loses(directed.resigns, reason="resigned", releases=True),
    ),
    electorate(
        "S87",
        "the leader's work raises",
        SAFE,
        directed.loses(
            directed.misbehaves("raise", "work that raises"),
            reason="resigned",
            error="WorkFailed",
            releases=True,
        ),
    ),
    electorate(
        "S88",
        "the leader's work stalls",
        SAFE,
        directed.loses(
            directed.misbehaves("hang", "stalled work"), reason="stalled", releases=True
        ),
        roles=tuple(
            replace(role, settings={**STANDING, "election": {"stall_timeout": 0.4}})
            for role in ELECTORATE
        ),
    ),
    electorate(
        "S89",
        "the leader is not fit any more",
        SAFE,
        directed.loses(directed.unfit_candidate, reason="unfit", releases=True),
    ),
    electorate(
        "S90",
        "the leader's coordinator is closed under its work",
        SAFE,
        directed.loses(directed.closed, reason="closed", releases=True),
    ),
    *(
        electorate(
            id,
            f"{what} work ignores the stop: a hard stop of its process",
            SAFE,
            directed.hard_stop(leader),
            ttl=2.0,
            roles=tuple(
                replace(role, settings={**STANDING, "election": {"hard_stop": "exit"}})
                for role in ELECTORATE
            ),
        )
        for id, what, leader in (("S39b", "blocking", "c1"), ("S39c", "asyncio", "c2"))
    ),
)

ELECTION_CONTROLS = (
    electorate(
        "C6",
        "control: a leader releases before its work has ended",
        MUST_FAIL,
        directed.released_early,
        roles=tuple(replace(role, plants=("released early",)) for role in ELECTORATE),
    ),
    electorate(
        "C7",
        "control: a leader asks a flag, and not the clock",
        MUST_FAIL,
        directed.believed_flag,
        roles=tuple(replace(role, plants=("believed flag",)) for role in ELECTORATE),
    ),
)
