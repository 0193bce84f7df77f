"""Other libraries as clients of a campaign: their processes speak the worker's language, and
their leases can be judged."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from chaos.checker import Assumptions, check
from chaos.history import Accepted, Called, Note, Record, Seen
from chaos.live.crew import Crew, Journal, Member, StoreProcess
from chaos.live.processes import Processes
from chaos.live.program import Task
from chaos.live.runner import Runner
from chaos.live.scenario import Steady
from chaos.live.scenarios import SCENARIOS
from chaos.live.store import Store
from chaos.live.toxiproxy import HOW_TO_GET_IT, find_server
from chaos.peers.environments import PEERS, PeerMissing
from chaos.peers.programs import program
from chaos.peers.scenarios import ADAPTED, adapted
from redlock.core.events import LeaseGranted, LeaseReleasing, LeaseRenewed
from redlock.embedded import Nodes

TTL = 1.5
BOTH = ("blocking", "asyncio")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with tempfile.TemporaryFile() as log, contextlib.closing(Crew(log)) as found:
        yield found


@pytest.fixture(scope="module")
def store() -> Iterator[StoreProcess]:
    with tempfile.TemporaryFile() as log, contextlib.closing(StoreProcess(log)) as found:
        yield found


class Stage:
    """Client processes of one peer on real servers, and what they say."""

    def __init__(
        self, name: str, crew: Crew, store: StoreProcess, nodes: Nodes, count: int
    ) -> None:
        try:
            self.program = program(name)
        except PeerMissing as missing:
            pytest.skip(str(missing))
        self.store, self.nodes = store, nodes
        self.resource = f"ledger-{next(NUMBERS)}"  # The store outlives the tests.
        self.journal = store.journal = Journal()
        self.members = crew.take(self.program, count)
        self._crew = crew

    def begin(self, member: Member, name: str, workload: str, api: str) -> None:
        options = {"ttl": TTL, "node_timeout": 0.2, "retry_delay": 0.05, "fence_ttl": 60.0}
        member.begin(
            Task(
                name,
                self.nodes.urls,
                api,
                workload,
                self.resource,
                options,
                self.store.address,
                seed=1,
            ),
            self.journal,
        )

    def end(self) -> list[Record]:
        since = len(self.journal)
        for member in self.members:
            member.tell_end()
        for member in self.members:
            member.await_end(since)
        self._crew.give_back(self.members)
        crashed = [
            record.text
            for record in self.journal.records()
            if isinstance(record, Note) and record.kind == "crashed"
        ]
        assert not crashed
        return self.journal.records()

    def holders(self) -> list[str | None]:
        """What the lock's key says on each node."""
        found = []
        for node in self.nodes:
            with node.client(decode_responses=True) as client:
                value = client.get(f"redlock:{self.resource}")
                assert value is None or isinstance(value, str)
                found.append(value)
        return found

    def events(self, kind: type) -> list[Seen]:
        return [
            record
            for record in self.journal.records()
            if isinstance(record, Seen) and isinstance(record.event, kind)
        ]


Setting = Callable[[str, int], Stage]


@pytest.fixture
def stage(crew: Crew, store: StoreProcess, nodes: Nodes) -> Setting:
    return lambda name, count: Stage(name, crew, store, nodes, count)


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_does_what_a_campaign_orders_and_says_what_came_of_it(
    stage: Setting, name: str, api: str
) -> None:
    """It takes, holds, extends if it can, and releases its lock under the key where ours would
    stand."""
    setting = stage(name, 1)
    puppet = setting.members[0]
    setting.begin(puppet, "c1", "puppet", api)
    assert puppet.do("acquire") == "ok"
    granted = setting.events(LeaseGranted)[0]
    assert isinstance(granted.event, LeaseGranted)
    assert granted.event.fencing_token < 0
    assert granted.event.sent_at <= granted.at < granted.event.valid_until <= granted.at + TTL
    assert setting.holders().count(granted.event.owner) >= 3
    assert puppet.do("look") == "held"
    assert puppet.do("read") == "ok"
    assert puppet.do("write") == "ok"
    extends = name == "pottery" or (name, api) == ("redlock-ng", "blocking")
    extended = puppet.do("extend")
    assert extended == "ok" if extends else extended.startswith("error: Missing")
    assert bool(setting.events(LeaseRenewed)) is extends
    assert puppet.do("release") == "ok"
    assert puppet.do("look") == "not held"
    assert setting.events(LeaseReleasing)
    assert not any(setting.holders())
    history = setting.end()
    assert check(history, Assumptions(), history[-1].at) == []


@pytest.mark.parametrize("name", PEERS)
def test_two_of_a_peer_contend_and_the_checker_can_judge_them(stage: Setting, name: str) -> None:
    """Two processes, blocking and asyncio, many leases, none with a token: nothing is found
    where nothing is broken."""
    setting = stage(name, 2)
    for number, (member, api) in enumerate(zip(setting.members, BOTH, strict=True), 1):
        setting.begin(member, f"c{number}", "contend", api)
    for client in ("c1", "c2"):
        setting.journal.wait(
            lambda record, client=client: (
                isinstance(record, Called)  # type: ignore[misc]
                and (record.client, record.call, record.outcome) == (client, "release", "ok")
            )
        )
    history = setting.end()
    assert check(history, Assumptions(), history[-1].at) == []
    tokens = [record.token for record in history if isinstance(record, Accepted)]
    assert tokens and set(tokens) == {0}


def test_what_a_peer_cannot_reach_is_called_unavailable_or_refused_in_time(stage: Setting) -> None:
    """Without a majority no lock, within about the deadline; pottery, which tells an outage from
    contention, says so."""
    setting = stage("pottery", 1)
    puppet = setting.members[0]
    setting.begin(puppet, "c1", "puppet", "blocking")
    for node in setting.nodes[:3]:
        node.stop()
    try:
        began = time.monotonic()
        assert puppet.do("acquire", timeout=1.0) == "unavailable"
        assert time.monotonic() - began < 20.0
    finally:
        for node in setting.nodes[:3]:
            node.start()
    setting.end()


# Scenarios


def test_every_adapted_scenario_is_one_of_the_table() -> None:
    """A scenario that is renamed takes its adaptation along; one that asks for what only we have
    is not played by others."""
    assert set(ADAPTED) <= set(SCENARIOS)
    played = {name for name, scenario in SCENARIOS.items() if adapted(scenario).peers}
    assert set(ADAPTED) <= played
    assert not {"S15", "S48", "S52", "S53", "S57", "C1", "C5"} & played
    assert not any(isinstance(adapted(SCENARIOS[name]).script, Steady) for name in played)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    toxiproxy = find_server(install=False)
    if toxiproxy is None:
        pytest.skip(HOW_TO_GET_IT)
    with Runner(Processes(), toxiproxy) as found:
        yield found


def test_the_same_script_finds_two_holders_with_a_peer_and_none_with_us(runner: Runner) -> None:
    """One node of the holder's majority forgets: pottery's second client is granted the lock
    too, ours waits."""
    scenario = adapted(SCENARIOS["S25b"])
    ours = runner.run(scenario, seed=1)
    assert (ours.ok, ours.observed, ours.violations) == (True, "safe", [])
    try:
        theirs = runner.run(scenario, seed=1, program=program("pottery"))
    except PeerMissing as missing:
        pytest.skip(str(missing))
    assert {found.property for found in theirs.violations} == {
        "ME: one holder at a time",
        "I3: no lost update",
    }
    assert theirs.metrics["overlap_ms"] > 0


# How leases without tokens are judged


def lease(client: str, token: int, since: float, until: float) -> Seen:
    return Seen(
        since, client, LeaseGranted(since, "ledger", f"{client}{token}", token, since, until)
    )


def test_leases_without_tokens_are_judged_by_exclusion_alone() -> None:
    """Numbers below zero are no tokens: neither equal nor falling ones are wrong, and an overlap
    is found as ever."""
    apart = [lease("c1", -1, 1.0, 2.0), lease("c2", -1, 3.0, 4.0), lease("c1", -2, 5.0, 6.0)]
    extended = [*apart, Called(5.9, "c1", "ledger", "extend", 0.1, "ok", -2)]
    assert check(extended, Assumptions(), 10.0) == []
    together = [*apart, lease("c2", -2, 5.5, 6.5)]
    assert [found.property for found in check(together, Assumptions(), 10.0)] == [
        "ME: one holder at a time"
    ]
    # The same with tokens: equal ones, and one that falls.
    with_tokens = [lease("c1", 2, 1.0, 2.0), lease("c2", 2, 3.0, 4.0), lease("c1", 1, 5.0, 6.0)]
    properties = {found.property[0] for found in check(with_tokens, Assumptions(), 10.0)}
    assert properties == {"U", "M", "D"}


def test_a_store_that_is_given_no_token_takes_everything_and_the_checker_sees_the_loss() -> None:
    """Two holders read the same value and both write: without tokens the second update
    overwrites the first."""
    guarded = Store()
    ask = {"client": "c1", "resource": "ledger", "token": 0}
    basis, _ = guarded.access(ask)
    write = {
        **ask,
        "before": basis["value"],
        "after": 1,
        "shadow_before": basis["shadow"],
        "shadow_after": 1,
    }
    records = [record for _ in range(2) for record in guarded.access(write)[1]]
    accepted = [record for record in records if isinstance(record, Accepted)]
    assert len(accepted) == 2
    assert [found.property for found in check(accepted, Assumptions(), 10.0)] == [
        "I3: no lost update"
    ]
    fenced = [replace(record, token=token) for record, token in zip(accepted, (2, 1), strict=True)]
    assert "I3: no stale write" in {found.property for found in check(fenced, Assumptions(), 10.0)}
    assert redis.__version__ > "8"  # Ours, not the peers': their environments are their own.
