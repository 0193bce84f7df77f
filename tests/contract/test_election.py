"""Leader election, for both APIs: who leads until when, how a term ends and why, and that nothing
is released before its work has ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from redlock import CandidateUnfit, ElectionTimings, LeadershipLost, LockInUse, Reason, RedlockError
from redlock.core.quorum import Tally
from redlock.embedded import Nodes
from redlock.errors import ConfigurationError, LockContended, QuorumUnavailable
from redlock.observe import (
    LeaseReleasing,
    TermEnded,
    TermInJeopardy,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, PATIENCE, Api, Journal, Servers, majority, paused, until

TTL = 2.0
"""Long enough for the sums of a term to have room on a busy machine."""


class Story:
    """What a candidate was told, in its order, and the names it goes by in an election."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def started(self, term: Any) -> None:
        self.told.append(("started", term.fencing_token))

    async def stopped(self, term: Any, reason: Reason) -> None:
        self.told.append(("stopped", term.fencing_token, reason))

    @property
    def callbacks(self) -> dict[str, Any]:
        return {"on_started": self.started, "on_stopped": self.stopped}


@contextlib.asynccontextmanager
async def running(api: Api, election: Any, work: Callable[[Any], Any]) -> AsyncIterator[Any]:
    """The election is run beside the body, and resigned behind it."""
    other = api.spawn(election.run(work))
    try:
        yield other
    finally:
        await election.resign()
        await api.join(other)


@pytest.mark.uvloop
async def test_who_is_elected_leads_and_others_learn_who_and_where(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """The grant carries name and information; a second candidate is contended; leaving the block
    gives everything back."""
    story, info = Story(), {"url": "http://10.0.0.7", "version": 3}
    async with api.redlock(nodes.urls, ttl=TTL) as locks, api.redlock(nodes.urls, ttl=TTL) as more:
        election = locks.election("scheduler", candidate="host-1", info=info, **story.callbacks)
        assert await election.leader() is None
        before = time.clock_gettime(time.CLOCK_REALTIME)
        async with election.campaign(timeout=10.0) as term:
            assert term.is_leader()
            assert 0 < term.remaining() < TTL
            assert term.stop_at < term.kill_at < term.valid_until
            term.ensure_leader()
            await term.verify()
            seen = await more.election("scheduler", candidate="host-2").leader()
            assert (seen.candidate, seen.info) == ("host-1", info)
            assert seen.fencing_token == term.fencing_token
            assert before - 1.0 <= seen.since <= time.clock_gettime(time.CLOCK_REALTIME) + 1.0
            with pytest.raises(LockContended):
                await more.election("scheduler", candidate="host-2").campaign(timeout=0)
            assert not term.stop.is_set()
            assert story.told == [("started", term.fencing_token)]
        assert term.reason is Reason.WORK_ENDED
        assert not term.is_leader()
        assert term.stop.is_set()
        assert not term.lost.is_set()
        assert story.told[1:] == [("stopped", term.fencing_token, Reason.WORK_ENDED)]
        assert await election.leader() is None
        assert await until(api, lambda: not servers.lock_keys())


async def test_what_others_are_shown_does_not_suffice_to_release(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Neither an error's votes nor a status nor a leader has the owner; the nodes do not tell
    it."""
    async with (
        api.redlock(nodes.urls, ttl=TTL) as locks,
        api.redlock(nodes.urls, ttl=TTL) as more,
        locks.election("scheduler", candidate="host-1").campaign(timeout=10.0),
    ):
        owner = next(filter(None, servers.holders("scheduler"))).split(":")[0]
        assert len(owner) == 32
        with pytest.raises(LockContended) as caught:
            await more.election("scheduler", candidate="host-2").campaign(timeout=0.3)
        tally = caught.value.tally
        assert isinstance(tally, Tally)
        shown = [vote.holder for vote in tally.votes if vote is not None]
        assert any(shown)
        leader = await more.election("scheduler").leader()
        text = repr((shown, caught.value.votes, await more.status("scheduler"), leader))
        assert owner[:8] in text
        assert owner[:9] not in text


@pytest.mark.uvloop
async def test_a_leader_is_renewed_past_its_ttl(api: Api, nodes: Nodes) -> None:
    """For as long as it works; nothing is said of it."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:
        async with locks.election("scheduler").campaign(timeout=10.0) as term:
            first = term.valid_until
            assert await until(api, lambda: term.valid_until > first + 1.5)
            assert term.is_leader()
        kinds = [type(record) for record in journal.records if hasattr(record, "election")]
        assert kinds == [TermStarted, TermStopping, TermStopped, TermEnded]


@pytest.mark.uvloop
async def test_a_leader_that_is_cut_off_stops_before_anybody_else_can_lead(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """In jeopardy first; told to stop at the stop deadline, with margin left; and what cannot be
    released in time is not."""
    journal, story, ended = Journal(api), Story(), []
    async with api.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:
        election = locks.election("scheduler", **story.callbacks)

        async def work(term: Any) -> None:
            try:
                await api.wait(term.stop)
            finally:
                ended.append((now(), term.valid_until, term.is_leader(), term.remaining()))

        async with running(api, election, work):
            assert await until(api, lambda: story.told)
            with paused(majority(nodes)):
                assert await until(api, lambda: journal.of(TermStopped))
            (jeopardy,) = journal.of(TermInJeopardy)
            (stopping,) = journal.of(TermStopping)
            assert jeopardy.at < stopping.at
            assert stopping.reason == Reason.RENEWAL_FAILED
            assert stopping.margin > 0
            at, valid_until, led, remaining = ended[0]
            assert at < valid_until
            assert (led, remaining) == (False, 0.0)
            assert await until(api, lambda: len(journal.of(TermStarted)) > 1)  # It came back.
        tokens = [record.fencing_token for record in journal.of(TermStarted)]
        assert tokens == sorted(set(tokens))
        for before, after in zip(story.told[::2], story.told[1::2], strict=True):
            assert (before[0], after[0], before[1]) == ("started", "stopped", after[1])
    assert await until(api, lambda: not servers.lock_keys())


async def test_a_jeopardy_that_passes_costs_no_term(api: Api, nodes: Nodes) -> None:
    """A majority sleeps past the jeopardy deadline and wakes before the stop: the same term goes
    on."""
    journal = Journal(api)
    timings = ElectionTimings(ttl=6.0, jeopardy=2.5, renewal=0.5)
    async with api.redlock(nodes.urls, ttl=6.0, on_event=journal) as locks:
        in_jeopardy, safe = journal.expect(TermInJeopardy), journal.expect(TermSafe)
        async with locks.election("scheduler", timings=timings).campaign(timeout=10.0) as term:
            with paused(majority(nodes)):
                assert await api.wait(in_jeopardy)
                assert term.is_leader()
            assert await api.wait(safe)
            assert term.is_leader()
        assert term.reason is Reason.WORK_ENDED


async def test_a_lock_that_is_somebody_elses_ends_the_term(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """The nodes lost it, and somebody newer has been: told by the next renewal, and not only at
    the deadline."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=6.0, on_event=journal) as locks:
        async with api.redlock(nodes.urls, ttl=6.0) as others:
            with pytest.raises(LeadershipLost) as caught:
                async with locks.election("scheduler").campaign(timeout=10.0) as term:
                    servers.forget("scheduler")
                    async with others.lock("scheduler", timeout=10.0):
                        await api.wait(term.stop)
                        assert not term.is_leader()
                        assert await until(api, term.lost.is_set)
        assert caught.value.reason == Reason.CONTENDED
        assert await until(api, lambda: journal.of(TermStopping))
        (stopping,) = journal.of(TermStopping)
        assert stopping.margin > 0.5


async def test_verify_finds_out_that_somebody_newer_was_elected(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Without a clock: for a read that must not be stale."""
    async with api.redlock(nodes.urls, ttl=20.0) as locks, api.redlock(nodes.urls) as others:
        term = await locks.election("scheduler", ttl=20.0).campaign(timeout=10.0)
        servers.forget("scheduler")
        async with others.lock("scheduler", timeout=10.0):
            with pytest.raises(LeadershipLost):
                await term.verify()
        assert not term.is_leader()
        await term.end()


@pytest.mark.uvloop
async def test_work_that_stalls_is_not_renewed(api: Api, nodes: Nodes) -> None:
    """With a stall timeout, work leads as long as it ticks, and then no longer."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:
        election = locks.election("scheduler", stall_timeout=0.4)
        with pytest.raises(LeadershipLost) as caught:
            async with election.campaign(timeout=10.0) as term:
                last = 0.0
                for _ in range(12):
                    term.tick()
                    last = now()
                    await api.sleep(0.1)
                assert term.is_leader()
                await api.wait(term.stop)
        assert caught.value.reason == Reason.STALLED
        assert await until(api, lambda: journal.of(TermStopping))  # Another thread told it.
        (stopping,) = journal.of(TermStopping)
        assert stopping.at >= last + 0.4
        assert stopping.margin > 0


async def test_an_unfit_candidate_does_not_campaign_and_does_not_go_on(
    api: Api, nodes: Nodes
) -> None:
    """Asked before campaigning and at every renewal; no, an exception and no answer are one."""
    answers: dict[str, Any] = {"fit": False}
    journal = Journal(api)

    async def eligible() -> bool:
        if answers["fit"] is None:
            raise ValueError("nobody knows")
        return bool(answers["fit"])

    async with api.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:
        election = locks.election("scheduler", candidate="a", eligible=eligible)
        with pytest.raises(CandidateUnfit):
            await election.campaign(timeout=0.3)
        assert journal.of(TermStarted) == []
        for no in (False, None):
            answers["fit"] = True
            with pytest.raises(LeadershipLost) as caught:
                async with election.campaign(timeout=10.0) as term:
                    await api.sleep(0.6)
                    assert term.is_leader()
                    answers["fit"] = no
                    await api.wait(term.stop)
            assert caught.value.reason == Reason.UNFIT


async def test_a_fitness_that_does_not_answer_ends_the_term(api: Api, nodes: Nodes) -> None:
    """At the next renewal: a candidate that cannot be asked must not lead for ever."""
    asked, go = [], api.event()

    async def eligible() -> bool:
        asked.append(True)
        if len(asked) > 1:
            await api.wait(go)
        return True

    async with api.redlock(nodes.urls, ttl=1.0) as locks:
        election = locks.election("scheduler", eligible=eligible)
        with pytest.raises(LeadershipLost) as caught:
            async with election.campaign(timeout=10.0) as term:
                await api.wait(term.stop)
        go.set()
        assert caught.value.reason == Reason.UNFIT


@pytest.mark.uvloop
async def test_run_campaigns_again_after_a_return_and_after_an_error(
    api: Api, nodes: Nodes, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """For ever, until it resigns; what raises counts as a resignation and is reported."""
    journal, story = Journal(api), Story()
    async with api.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:
        election = locks.election("scheduler", **story.callbacks)
        terms: list[Any] = []

        async def work(term: Any) -> None:
            terms.append(term)
            if len(terms) in (1, 2):
                raise ValueError("no such job")
            if len(terms) > 3:
                await api.wait(term.stop)

        other = api.spawn(election.run(work))
        assert await until(api, lambda: len(terms) == 4)
        assert await election.resign()
        await api.join(other)
        reasons = [record.reason for record in journal.of(TermEnded)]
        assert reasons == ["resigned", "resigned", "work_ended", "resigned"]
        assert "no such job" in journal.of(TermEnded)[0].error
        assert "no such job" in caplog.text
        assert all(record.released for record in journal.of(TermEnded))
        assert len(story.told) == 8
        assert str(election.state) == "follower"
        assert await until(api, lambda: not servers.lock_keys())
        pauses = [
            after.at - before.at
            for before, after in zip(
                journal.of(TermEnded), journal.of(TermStarted)[1:], strict=False
            )
        ]
        assert pauses[1] > pauses[0] > 0.1  # It backs off while its work fails.


async def test_a_resignation_does_not_wait_for_the_run_after_it(api: Api, nodes: Nodes) -> None:
    """Whoever runs an election again as soon as it came back keeps nobody from hearing that the
    term which was to end has ended."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler")
        led: list[int] = []
        over = False

        async def work(term: Any) -> None:
            led.append(term.fencing_token)
            await api.wait(term.stop)

        async def run_again_and_again() -> None:
            while not over:
                await election.run(work)

        other = api.spawn(run_again_and_again())
        assert await until(api, lambda: led)
        resigning = api.spawn(election.resign())
        assert await api.join(resigning)
        assert await until(api, lambda: len(led) == 2)
        over = True
        assert await election.resign()
        await api.join(other)


async def test_a_candidate_that_waits_can_resign(api: Api, nodes: Nodes) -> None:
    """It ends within a moment, though it would have waited for ever."""
    async with (
        api.redlock(nodes.urls, ttl=TTL) as locks,
        api.redlock(nodes.urls, ttl=TTL) as more,
        locks.election("scheduler").campaign(timeout=10.0),
    ):
        election = more.election("scheduler")

        async def work(term: Any) -> None:
            pytest.fail("two leaders")

        other = api.spawn(election.run(work))
        assert await until(api, lambda: str(election.state) == "candidate")
        await api.sleep(0.3)
        assert await election.resign()
        await api.join(other)


@pytest.mark.uvloop
async def test_work_that_does_not_stop_is_never_followed_by_a_release(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """The lease expires by itself; the next term begins when the work has ended, and not
    before."""
    journal = Journal(api)
    alive: list[bool] = []
    async with api.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:
        election = locks.election("scheduler", stall_timeout=0.2)

        async def work(term: Any) -> None:
            if alive:
                while not term.stop.is_set():
                    term.tick()
                    await api.sleep(0.02)
                return
            alive.append(True)
            until_at = term.valid_until + 0.5
            while now() < until_at:
                with contextlib.suppress(asyncio.CancelledError):
                    await api.sleep(0.02)
            alive.append(False)

        async with running(api, election, work):
            assert await until(api, lambda: len(journal.of(TermStarted)) > 1)
            (first, *_), (stopped, *_) = journal.of(TermEnded), journal.of(TermStopped)
            assert not first.released
            assert stopped.margin < 0
            assert first.fencing_token not in [
                record.fencing_token for record in journal.of(LeaseReleasing)
            ]
            assert journal.of(TermStarted)[1].at > stopped.at
    assert await until(api, lambda: not servers.lock_keys())


async def test_work_that_stops_in_time_is_released_behind_it(api: Api, nodes: Nodes) -> None:
    """Not one moment earlier, and before `on_stopped` has returned neither."""
    journal, ends = Journal(api), []
    async with api.redlock(nodes.urls, ttl=4.0, on_event=journal) as locks:

        async def stopped(term: Any, reason: Reason) -> None:
            await api.sleep(0.1)
            ends.append(now())

        election = locks.election("scheduler", on_stopped=stopped)

        async def work(term: Any) -> None:
            try:
                await api.wait(term.stop)
            finally:
                with contextlib.suppress(asyncio.CancelledError):
                    await api.sleep(0.2)

        async with running(api, election, work):
            assert await until(api, lambda: journal.of(TermStarted))
        (releasing,) = journal.of(LeaseReleasing)
        assert releasing.at >= ends[0]
        assert journal.of(TermEnded)[0].released


@pytest.mark.uvloop
async def test_a_close_waits_for_the_work_and_releases_behind_it(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Told at once, with the reason; nothing stays on the nodes."""
    journal, story = Journal(api), Story()
    locks = api.redlock(nodes.urls, ttl=4.0, on_event=journal)
    election = locks.election("scheduler", **story.callbacks)

    async def work(term: Any) -> None:
        try:
            await api.wait(term.stop)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await api.sleep(0.2)

    other = api.spawn(election.run(work))
    assert await until(api, lambda: journal.of(TermStarted))
    await locks.close()
    await api.join(other)
    (ended,) = journal.of(TermEnded)
    assert (ended.reason, ended.released) == (Reason.CLOSED, True)
    assert journal.of(LeaseReleasing)[0].at >= journal.of(TermStopped)[0].at
    assert story.told[-1][2] is Reason.CLOSED
    assert str(election.state) == "closed"
    assert not servers.lock_keys()
    with pytest.raises(RedlockError, match="closed"):
        await election.campaign(timeout=1.0)


async def test_a_close_under_work_that_does_not_stop_leaves_the_lock(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """It waits no longer than to the kill deadline, and the lock expires by itself."""
    journal, go = Journal(api), api.event()
    locks = api.redlock(nodes.urls, ttl=1.5, on_event=journal)
    election = locks.election("scheduler")

    async def work(term: Any) -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await api.sleep(0.02)

    other = api.spawn(election.run(work))
    assert await until(api, lambda: journal.of(TermStarted))
    began_at = now()
    await locks.close()
    assert now() - began_at < 4.0
    assert journal.of(LeaseReleasing) == []
    go.set()
    await api.join(other)
    assert journal.of(LeaseReleasing) == []
    assert await until(api, lambda: not servers.lock_keys())


async def test_lock_delay_waits_behind_who_expired_and_not_behind_who_released(
    api: Api, nodes: Nodes
) -> None:
    """Work of a predecessor that was not seen to release may be on its way still."""
    delay = 0.8
    async with api.redlock(nodes.urls, ttl=TTL) as locks, api.redlock(nodes.urls, ttl=1.0) as more:
        election = locks.election("scheduler", lock_delay=delay)
        first = await more.election("scheduler", ttl=1.0).campaign(timeout=10.0)
        granted: list[float] = []

        async def work(term: Any) -> None:
            granted.append(now())
            await api.wait(term.stop)

        async with running(api, election, work):
            await api.sleep(0.6)
            await first.end()
            at = now()
            assert await until(api, lambda: granted)
            assert granted[0] < at + delay
        lease = await more.lock("scheduler", ttl=1.0).acquire(timeout=10.0)
        async with running(api, election, work):
            assert await until(api, lambda: len(granted) == 2)
            assert granted[1] >= lease.valid_until + delay


async def test_priority_lets_others_go_first(api: Api, nodes: Nodes) -> None:
    """For that long after a vacancy, and no longer; who leads is not ousted."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks, api.redlock(nodes.urls, ttl=TTL) as more:
        began_at = now()
        async with more.election("scheduler", priority=0.5).campaign(timeout=10.0) as term:
            assert now() >= began_at + 0.5
            assert term.is_leader()
        last = more.election("scheduler", candidate="last", priority=1.5)
        lease = await locks.lock("scheduler").acquire(timeout=10.0)
        other = api.spawn(campaigned(last))
        await api.sleep(0.3)
        await lease.release()
        async with locks.election("scheduler", candidate="first").campaign(timeout=1.0) as term:
            assert term.is_leader()
        assert await api.join(other) == "last"


async def campaigned(election: Any) -> str:
    async with election.campaign(timeout=10.0) as term:
        return str(term.candidate)


async def test_observe_tells_every_change_and_nobody(api: Api, nodes: Nodes) -> None:
    """The first answer at once, whoever it is."""
    seen: list[str | None] = []
    async with api.redlock(nodes.urls, ttl=TTL) as locks, api.redlock(nodes.urls, ttl=TTL) as more:

        async def watch() -> None:
            async for leader in more.election("scheduler").observe():
                name = leader.candidate if leader is not None else None
                seen.append(name)

        other = api.spawn(watch())
        for name in ("a", "b"):
            assert await until(api, lambda: seen and seen[-1] is None)
            async with locks.election("scheduler", candidate=name).campaign(timeout=10.0) as term:
                assert await until(api, lambda name=name: seen[-1] == name)
                assert term.is_leader()
        assert await until(api, lambda: seen[-1] is None)
        await more.close()
        await api.join(other)
    assert seen == [None, "a", None, "b", None]


async def test_nobody_knows_who_leads_without_a_majority(api: Api, nodes: Nodes) -> None:
    """Unknown is not nobody."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler")
        assert await election.leader() is None
        with paused(majority(nodes)), pytest.raises(QuorumUnavailable):
            await election.leader()
        async with locks.lock("scheduler", timeout=10.0):
            assert await election.leader() is None  # A lock has no candidate.


async def test_one_candidate_campaigns_once_at_a_time(api: Api, nodes: Nodes) -> None:
    """A second run or campaign of the same object is refused, and the first goes on."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler")
        async with election.campaign(timeout=10.0) as term:
            with pytest.raises(LockInUse):
                await election.campaign(timeout=0)
            with pytest.raises(LockInUse):
                await election.run(campaigned)
            with pytest.raises(LockInUse):
                await term.__aenter__()
            assert term.is_leader()
        async with election.campaign(timeout=10.0) as again:
            assert again.fencing_token > term.fencing_token


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "non-empty"),
        ({"candidate": ""}, "candidate"),
        ({"candidate": "x" * 513}, "513 bytes"),
        ({"candidate": "\udcff"}, "UTF-8"),
        ({"info": {"x": "y" * 513}}, "bytes as JSON"),
        ({"info": {"x": object()}}, "JSON"),
        ({"info": {"x": float("nan")}}, "JSON"),
        ({"info": {1: "x"}}, "mapping"),
        ({"ttl": 0.0}, "ttl"),
        ({"ttl": 3.0, "timings": ElectionTimings(ttl=4.0)}, "ttl=4"),
        ({"timings": 15.0}, "ElectionTimings"),
        ({"priority": -1.0}, "priority"),
        ({"priority": 99.0}, "priority=99"),
        ({"lock_delay": float("inf")}, "lock_delay"),
        ({"stall_timeout": 0.0}, "stall_timeout"),
        ({"hard_stop": "kill"}, "hard_stop"),
        ({"eligible": 1}, "eligible"),
        ({"on_started": "x"}, "on_started"),
    ],
)
async def test_bad_input_is_refused(
    api: Api, nodes: Nodes, arguments: dict[str, Any], words: str
) -> None:
    """At once, by name, and nothing is sent."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        with pytest.raises(ConfigurationError, match=words):
            locks.election(**{"name": "scheduler", **arguments})


async def test_information_of_512_bytes_travels_whole(api: Api, nodes: Nodes) -> None:
    """Also with a name of 512 bytes, and with what JSON and Lua have words of their own for."""
    info = {"x": '\u00e9"\\\n:' + "y" * 493}
    name = "z" * 512
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler", candidate=name, info=info)
        async with election.campaign(timeout=10.0) as term:
            leader = await election.leader()
            assert (leader.candidate, leader.info) == (name, info)
            await term.verify()


async def test_a_term_that_was_dropped_ends(api: Api, nodes: Nodes) -> None:
    """Nobody would ever end it: it is not renewed, and the same object can campaign again."""
    async with api.redlock(nodes.urls, ttl=1.0) as locks:
        election = locks.election("scheduler")
        with pytest.warns(ResourceWarning, match="dropped"):
            await election.campaign(timeout=10.0)
        async with election.campaign(timeout=10.0) as term:
            assert term.is_leader()


async def test_the_timings_hold_the_coordinators_drift_and_node_timeout(
    api: Api, nodes: Nodes
) -> None:
    """They are checked with what this coordinator really waits for."""
    async with api.redlock(nodes.urls, ttl=TTL, drift_factor=0.05, node_timeout=0.2) as locks:
        timings = locks.election("scheduler").timings
        assert (timings.drift_factor, timings.node_timeout) == (0.05, 0.2)
        assert timings.validity == pytest.approx(TTL - TTL * 0.05 - 0.002)
        given = ElectionTimings(ttl=TTL, node_timeout=0.1, drift_factor=0.0)
        timings = locks.election("scheduler", timings=given).timings
        assert (timings.drift_factor, timings.node_timeout) == (0.05, 0.2)
        tight = ElectionTimings(ttl=TTL, node_timeout=0.05, renewal=0.9)
        with pytest.raises(ConfigurationError, match=r"node_timeout=0\.2"):
            locks.election("scheduler", timings=tight)


# What one API alone can do


async def test_a_blocked_loop_finds_its_term_ended_at_the_first_look(nodes: Nodes) -> None:
    """Nothing told it, for nothing could; and it names the cause."""
    async with ASYNCIO.redlock(nodes.urls, ttl=1.0) as locks:
        with pytest.raises(LeadershipLost) as caught:
            async with locks.election("scheduler").campaign(timeout=10.0) as term:
                time.sleep(1.2)  # noqa: ASYNC251
                assert not term.is_leader()
                assert term.reason is Reason.EXPIRED
                await asyncio.sleep(10.0)
        assert caught.value.reason == Reason.EXPIRED


async def test_a_cancel_of_run_resigns_in_order(nodes: Nodes, servers: Servers) -> None:
    """The work is cancelled and waited for, the lock released, and then the cancel goes on."""
    journal = Journal(ASYNCIO)
    async with ASYNCIO.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:
        ends = []

        async def work(term: Any) -> None:
            try:
                await asyncio.sleep(10.0)
            finally:
                await asyncio.sleep(0.1)
                ends.append(now())

        task = asyncio.ensure_future(locks.election("scheduler").run(work))
        assert await until(ASYNCIO, lambda: journal.of(TermStarted))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ends) == 1
        assert journal.of(TermEnded)[0].released
        assert await until(ASYNCIO, lambda: not servers.lock_keys())


async def test_a_look_from_another_thread_tells_the_loop(nodes: Nodes) -> None:
    """Work may run in a thread, and find out first."""
    async with ASYNCIO.redlock(nodes.urls, ttl=1.0) as locks:
        found: list[bool] = []

        def look(term: Any) -> None:
            while term.is_leader():
                time.sleep(0.01)
            found.append(True)

        with pytest.raises(LeadershipLost):
            async with locks.election("scheduler").campaign(timeout=10.0) as term:
                thread = threading.Thread(target=look, args=(term,))
                thread.start()
                time.sleep(1.2)  # noqa: ASYNC251
                thread.join()
                assert found
                await asyncio.sleep(10.0)


async def test_a_cancel_at_any_step_keeps_the_callbacks_paired(
    nodes: Nodes, servers: Servers
) -> None:
    """Between the election and the first step of its work too, and while the lock is given back:
    `on_stopped` comes if and only if `on_started` came, and nothing is left."""
    for steps in range(60):
        story = Story()
        async with ASYNCIO.redlock(nodes.urls, ttl=TTL) as locks:

            async def work(term: Any) -> None:
                await asyncio.sleep(0.004)

            task = asyncio.ensure_future(locks.election("scheduler", **story.callbacks).run(work))
            for _ in range(steps):
                await asyncio.sleep(0.0002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10.0)
            told = [each[0] for each in story.told]
            assert told == ["started", "stopped"] * (len(told) // 2)
    assert await until(ASYNCIO, lambda: not servers.lock_keys())


async def test_a_resignation_that_comes_early_is_heard(api: Api, nodes: Nodes) -> None:
    """Before the run had begun, as a signal at a service's start may: it ends at once, and the
    next one does not."""
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler")

        async def work(term: Any) -> None:
            pytest.fail("it led")

        assert await election.resign()
        await api.join(api.spawn(election.run(work)))
        assert not election.is_running
        async with election.campaign(timeout=10.0) as term:
            assert term.is_leader()
            assert election.is_running


async def test_work_that_leaves_by_ensure_leader_has_not_failed(
    api: Api, nodes: Nodes, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """It found out itself that its term had ended: nothing is reported, and nothing backs off."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:
        election = locks.election("scheduler", stall_timeout=0.2)

        async def work(term: Any) -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await api.sleep(0.02)
                term.ensure_leader()

        async with running(api, election, work):
            assert await until(api, lambda: len(journal.of(TermEnded)) > 1)
        assert all(not record.error for record in journal.of(TermEnded))
        assert {record.reason for record in journal.of(TermEnded)[:2]} == {"stalled"}
    assert "raised" not in caplog.text


async def test_a_dropped_term_is_nobodys_to_stop_by_force(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work has ended with it: the process goes on."""
    ends: list[int] = []
    monkeypatch.setattr("redlock.hardstop.os._exit", ends.append)
    async with api.redlock(nodes.urls, ttl=1.0) as locks:
        election = locks.election("scheduler", hard_stop="exit")
        with pytest.warns(ResourceWarning, match="dropped"):
            await election.campaign(timeout=10.0)
        assert await until(api, lambda: not election.is_running)
        await api.sleep(1.2)
    assert ends == []


async def test_on_stopped_may_resign_and_the_lock_is_given_back(api: Api, nodes: Nodes) -> None:
    """It does not wait for itself until the kill deadline."""
    journal, told = Journal(api), []
    async with api.redlock(nodes.urls, ttl=4.0, on_event=journal) as locks:

        async def stopped(term: Any, reason: Reason) -> None:
            told.append(await election.resign())

        election = locks.election("scheduler", on_stopped=stopped)
        async with election.campaign(timeout=10.0):
            pass
    assert told == [False]
    assert journal.of(TermEnded)[0].released


async def test_work_that_is_cancelled_by_others_does_not_end_the_run(nodes: Nodes) -> None:
    """Something that it awaited was cancelled: that is an error of the work, and reported."""
    journal, terms = Journal(ASYNCIO), []
    async with ASYNCIO.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:

        async def work(term: Any) -> None:
            terms.append(term)
            if len(terms) == 1:
                raise asyncio.CancelledError
            await asyncio.sleep(10.0)

        async with running(ASYNCIO, locks.election("scheduler"), work):
            assert await until(ASYNCIO, lambda: len(terms) == 2)
        assert "cancelled" in journal.of(TermEnded)[0].error


async def test_work_that_swallows_a_cancel_of_its_run_is_waited_for(
    nodes: Nodes, servers: Servers
) -> None:
    """However long: the ledger tells its end when it has ended, nothing is released under it, and
    then the cancel goes on."""
    journal, ends = Journal(ASYNCIO), []
    async with ASYNCIO.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:

        async def work(term: Any) -> None:
            until_at = term.valid_until + 0.5
            while now() < until_at:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.02)
            ends.append(now())

        election = locks.election("scheduler")
        task = asyncio.ensure_future(election.run(work))
        assert await until(ASYNCIO, lambda: journal.of(TermStarted))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends
        (stopped,) = journal.of(TermStopped)
        assert stopped.at >= ends[0]
        assert journal.of(LeaseReleasing) == []
        assert not election.is_running
    assert await until(ASYNCIO, lambda: not servers.lock_keys())


async def test_nothing_is_released_under_work_whatever_strikes_who_waits_for_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the waiting itself leaves the work running: its lock expires."""
    journal, go = Journal(ASYNCIO), asyncio.Event()
    seen: list[str] = []

    async def struck(run: Any, task: Any, term: Any) -> None:
        if term is not None and seen:
            raise MemoryError
        await asyncio.wait({task})

    monkeypatch.setattr("redlock.asyncio_election._Run._until_done", struck)
    async with ASYNCIO.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:

        async def stopped(term: Any, reason: Reason) -> None:
            return

        async def work(term: Any) -> None:
            seen.append("begun")
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
            seen.append("told")
            await go.wait()

        election = locks.election("scheduler", on_stopped=stopped)
        other = asyncio.ensure_future(election.run(work))
        assert await until(ASYNCIO, lambda: journal.of(TermEnded))
        assert seen == ["begun", "told"]
        assert not journal.of(TermEnded)[0].released
        assert journal.of(LeaseReleasing) == []
        await election.resign()
        go.set()
        await ASYNCIO.join(other)


async def test_a_second_run_does_not_end_a_term_that_is_only_just_granted(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the grant and the handle of its term nobody can have dropped it: who comes just then
    is refused, and the first goes on."""
    place = "redlock.election" if api.name == "blocking" else "redlock.asyncio_election"
    refused: list[BaseException] = []
    async with api.redlock(nodes.urls, ttl=TTL) as locks:
        election = locks.election("scheduler")
        real = getattr(election, "real", election)

        class Late(api.module.Term):  # type: ignore[misc, name-defined]
            __slots__ = ()

            def __init__(self, *arguments: Any) -> None:
                real._begin(None, again=None).close()
                try:
                    real._claim(object())
                except LockInUse as error:
                    refused.append(error)
                super().__init__(*arguments)

        monkeypatch.setattr(f"{place}.Term", Late)
        async with election.campaign(timeout=10.0) as term:
            assert term.is_leader()
            assert election.is_running
        assert len(refused) == 1
        assert term.reason is Reason.WORK_ENDED


async def test_a_close_by_the_work_itself_is_no_reason_for_a_hard_stop(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can lead before the lease ends, so it has until its kill deadline, as ever."""
    ends: list[int] = []
    monkeypatch.setattr("redlock.hardstop.os._exit", ends.append)
    locks = api.redlock(nodes.urls, ttl=4.0)

    async def work(term: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await locks.close()
        until_at = now() + 0.6
        while now() < until_at:
            with contextlib.suppress(asyncio.CancelledError):
                await api.sleep(0.02)

    await locks.election("scheduler", hard_stop="exit").run(work)
    assert ends == []


async def test_a_resignation_waits_at_most_a_ttl_for_a_fitness_that_hangs(
    api: Api, nodes: Nodes
) -> None:
    """Nothing is led, so nothing has to be waited for; the candidate stands no more once it is
    answered."""
    asked, go = api.event(), api.event()

    async def eligible() -> bool:
        asked.set()
        await api.wait(go)
        return True

    async def work(term: Any) -> None:
        pytest.fail("it led")

    async with api.redlock(nodes.urls, ttl=1.0) as locks:
        election = locks.election("scheduler", eligible=eligible)
        other = api.spawn(election.run(work))
        assert await api.wait(asked)
        began_at = now()
        assert not await election.resign()
        assert now() - began_at < PATIENCE
        go.set()
        await api.join(other)
