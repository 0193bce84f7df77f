"""Bounds and deadlines of the drivers that only show when many ask at once, or when timers and
clocks part."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import redlock.asyncio
from redlock.embedded import Nodes
from redlock.errors import LeaseLost, QuorumUnavailable
from redlock.observe import LeaseInJeopardy, LeaseReleasing, LeaseRenewed, TryFailed, TryStarted
from redlock.transport import clock
from redlock.transport.clock import now
from tests.contract.api import Api, Asyncio, Journal, Servers, majority, paused, until

CLOCKS = (
    "redlock.asyncio.now",
    "redlock.base.now",
    "redlock.client.now",
    "redlock.transport.aio.clock",
    "redlock.transport.blocking.clock",
    "redlock.transport.background.clock",
    "redlock.transport.sockets.clock",
    "redlock.transport.streams.clock",
)


@pytest.mark.loops
async def test_no_more_rounds_are_under_way_than_allowed(
    api: Asyncio, nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who want locks wait for their turn in order; one whose time ends in the queue is
    told why."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 3)
    journal = Journal(api)
    under_way: list[int] = []

    def count(record: Any) -> None:
        journal(record)
        under_way.append(locks._driver._rounds)

    async with redlock.asyncio.Redlock(
        nodes.urls, ttl=50.0, node_timeout=2.0, on_event=count
    ) as locks:
        async with locks.lock("warm"):
            pass
        journal.records.clear()
        with paused(majority(nodes)):
            crowd = [api.spawn(locks.lock(f"orders:{number}").acquire()) for number in range(8)]
            await asyncio.sleep(0)
            with pytest.raises(
                QuorumUnavailable, match=r"^lock 'others': .* 3 rounds are under way"
            ):
                await locks.lock("others").acquire(timeout=0.2)
            assert [record.resource for record in journal.of(TryStarted)] == [
                "orders:0",
                "orders:1",
                "orders:2",
            ]
        # Each turn that ends is given to one more, and not to all.
        leases = [await api.join(other) for other in crowd]
        assert max(under_way) == 3
        for lease in leases:
            assert await lease.release()


@pytest.mark.loops
async def test_a_close_gives_back_leases_that_ended_while_their_releases_wait_for_a_turn(
    api: Asyncio, nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to wait for, and no TimeoutError of ours: the releases are written
    without a turn."""
    async with redlock.asyncio.Redlock(nodes.urls, ttl=5.0) as locks:
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(4)]
        assert None not in leases
        monkeypatch.setattr("redlock.transport.aio.URGENT_MAX", 1)
        for lease in leases[1:]:
            assert lease is not None
            lease._holding.valid_until = now()
        with paused(majority(nodes)):
            await locks.close()
    assert await until(api, lambda: not servers.lock_keys())


@pytest.mark.loops
async def test_holders_queue_too_when_very_many_ask_at_once(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go before those who want locks, up to a bound of their own; and all are served."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 2)
    monkeypatch.setattr("redlock.transport.aio.URGENT_MAX", 4)
    async with redlock.asyncio.Redlock(nodes.urls, ttl=50.0, node_timeout=5.0) as locks:
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(7)]
        with paused(majority(nodes)):
            wanted = [api.spawn(locks.lock(f"others:{number}").acquire()) for number in range(3)]
            await asyncio.sleep(0)
            asked = [api.spawn(lease.verify()) for lease in leases if lease is not None]
            await asyncio.sleep(0.05)
            assert locks._driver._rounds == 4
            assert len(locks._driver._queue) == 1 + 5
        for other in asked:
            await api.join(other)
        for other in wanted:
            assert await (await api.join(other)).release()
        assert locks._driver._rounds == 0


@pytest.mark.loops
async def test_a_release_does_not_wait_behind_those_who_want_locks(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes room: it is written at once, though all rounds are under way and somebody queues
    for the next."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 1)
    journal = Journal(api)
    async with redlock.asyncio.Redlock(
        nodes.urls, ttl=50.0, node_timeout=5.0, on_event=journal
    ) as locks:
        lease = await locks.lock("orders").acquire()
        assert lease is not None
        with paused(majority(nodes)):
            wanted = [api.spawn(locks.lock(f"others:{number}").acquire()) for number in range(2)]
            await asyncio.sleep(0)
            assert len(locks._driver._queue) == 1
            releasing = api.spawn(lease.release())
            await asyncio.sleep(0)
            assert [record.resource for record in journal.of(LeaseReleasing)] == ["orders"]
        assert await api.join(releasing)
        for other in wanted:
            assert await (await api.join(other)).release()


@pytest.mark.loops
@pytest.mark.parametrize("when", ["before its turn", "as its turn comes"])
async def test_a_task_that_is_cancelled_in_the_queue_takes_no_turn_with_it(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its turn goes to the next, also if it had been given it in that very moment."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 1)
    loop = asyncio.get_running_loop()
    async with redlock.asyncio.Redlock(nodes.urls, ttl=50.0, node_timeout=5.0) as locks:
        async with locks.lock("warm"):
            pass
        with paused(majority(nodes)):
            first, second, third = [
                api.spawn(locks.lock(f"orders:{number}").acquire()) for number in range(3)
            ]
            await asyncio.sleep(0.05)
            assert len(locks._driver._queue) == 2
            if when == "before its turn":
                second.cancel()
                await asyncio.sleep(0)
            first.cancel()
            # After the first one's end gave the turn away, and before the second could run.
            loop.call_soon(second.cancel)
            await asyncio.wait([first, second])
            assert first.cancelled()
            assert second.cancelled()
        lease = await api.join(third)
        assert lease is not None
        assert await lease.release()
        assert locks._driver._rounds == 0


@pytest.mark.loops
async def test_a_waiter_that_is_cancelled_as_it_queues_for_its_next_look_takes_no_turn_with_it(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pause is over and all rounds are under way: the turn that then comes for it goes on to
    the next."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 1)
    # Its next look comes when the nodes have stopped, and not while they are being stopped.
    monkeypatch.setattr("redlock.core.line.LOOK_MIN", 0.6)
    monkeypatch.setattr("redlock.core.line.LOOK_MAX", 0.6)
    journal = Journal(api)
    async with (
        redlock.asyncio.Redlock(nodes.urls, ttl=50.0) as others,
        others.lock("orders"),
        redlock.asyncio.Redlock(
            nodes.urls, ttl=50.0, node_timeout=5.0, retry_delay=0.4, on_event=journal
        ) as locks,
    ):
        driver = locks._driver
        waiter = api.spawn(locks.lock("orders").acquire())
        assert await until(api, lambda: journal.of(TryFailed) and driver._rounds == 0)
        with paused(majority(nodes)):
            busy = api.spawn(locks.lock("others").acquire())
            assert await until(api, lambda: driver._queue)
            assert journal.of(TryStarted)[-1].resource == "others"
            waiter.cancel()
            await asyncio.wait([waiter])
            assert waiter.cancelled()
        lease = await api.join(busy)
        assert lease is not None
        assert await lease.release()
        assert driver._rounds == 0
        async with locks.lock("others", timeout=5.0):
            pass


@pytest.mark.loops
async def test_a_lease_is_lost_in_a_task_that_was_cancelled_before(
    api: Asyncio, nodes: Nodes
) -> None:
    """A cancel that it swallowed earlier is not ours: LeaseLost comes out, and its own count
    stays as it was."""

    async def work() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(LeaseLost):
            async with locks.lock("orders"):
                await asyncio.get_running_loop().create_future()
        return task.cancelling()

    async with redlock.asyncio.Redlock(nodes.urls, ttl=0.4) as locks:
        assert await api.join(api.spawn(work())) == 1


@pytest.mark.parametrize("auto_extend", [False, True])
async def test_a_short_lease_beside_a_long_one_is_told_in_time(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, auto_extend: bool
) -> None:
    """Watched after the long one and over before it; nobody looks by chance meanwhile."""
    monkeypatch.setattr("redlock.transport.streams._LOOK_AGAIN", 60.0)
    monkeypatch.setattr("redlock.transport.background._LOOK_AGAIN", 60.0)
    async with (
        api.redlock(nodes.urls, ttl=50.0) as locks,
        locks.lock("long", auto_extend=auto_extend) as long,
    ):
        assert not long.lost.is_set()
        await api.sleep(0.1)  # Until the loop sleeps, for the long one.
        short = await locks.lock("short", ttl=0.4).acquire()
        assert await api.wait(short.lost)
        assert long.is_held()


async def test_a_short_lease_beside_a_long_one_is_renewed_in_time(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first renewal is due before anything is to be done for the other one, and its own end
    is not."""
    monkeypatch.setattr("redlock.transport.streams._LOOK_AGAIN", 60.0)
    monkeypatch.setattr("redlock.transport.background._LOOK_AGAIN", 60.0)
    journal = Journal(api)
    renewed = journal.expect(LeaseRenewed)
    async with (
        api.redlock(nodes.urls, on_event=journal) as locks,
        locks.lock("watched", ttl=2.5) as watched,
    ):
        assert not watched.lost.is_set()
        await api.sleep(0.1)  # Until the loop sleeps, up to its deadline.
        async with locks.lock("renewed", ttl=3.0, auto_extend=True):
            assert await api.wait(renewed)
            assert watched.is_held()


@pytest.mark.loops
async def test_renewals_there_was_no_room_for_follow_at_once(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop was blocked until all of them were due, and one is begun at a time: none waits
    until the first is due again."""
    monkeypatch.setattr("redlock.transport.streams._LOOK_AGAIN", 60.0)
    monkeypatch.setattr("redlock.transport.renewals.TOGETHER_MAX", 1)
    journal = Journal(api)
    async with redlock.asyncio.Redlock(nodes.urls, ttl=6.0, on_event=journal) as locks:
        leases = [
            await locks.lock(f"orders:{number}", auto_extend=True).acquire() for number in range(4)
        ]
        time.sleep(2.5)  # noqa: ASYNC251
        assert await until(api, lambda: len(journal.of(LeaseRenewed)) >= len(leases))
        renewed = journal.of(LeaseRenewed)[: len(leases)]
        assert sorted(record.owner for record in renewed) == sorted(
            lease.owner for lease in leases if lease is not None
        )
        # The first is due again after two seconds, and would wake the others too.
        assert renewed[-1].at < renewed[0].at + 1.5


async def test_a_renewal_that_nobody_answers_is_over_after_the_node_timeout(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is tried again, as long as there is time, though nothing else wakes whoever keeps the
    leases."""
    monkeypatch.setattr("redlock.transport.streams._LOOK_AGAIN", 60.0)
    monkeypatch.setattr("redlock.transport.background._LOOK_AGAIN", 60.0)
    journal = Journal(api)
    failed = journal.expect(LeaseInJeopardy)
    async with (
        api.redlock(nodes.urls, ttl=4.0, node_timeout=0.1, on_event=journal) as locks,
        locks.lock("orders", auto_extend=True) as lease,
    ):
        with paused(majority(nodes)):
            assert await api.wait(failed)
        assert await until(api, lambda: journal.of(LeaseRenewed))
        assert lease.is_held()


async def test_a_clock_that_jumps_while_timers_sleep_is_noticed(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on waking from a suspend: the lease clock ran on, and the timers did not."""
    ahead = 0.0

    def jumping() -> float:
        return clock.now() + ahead

    for name in CLOCKS:
        monkeypatch.setattr(name, jumping)
    async with api.redlock(nodes.urls, ttl=50.0) as locks:
        told = api.event()
        lease = await locks.lock("orders", on_lost=lambda lost: told.set()).acquire()
        await api.sleep(0.1)
        assert not lease.lost.is_set()
        ahead = 100.0
        assert await api.wait(told)
        assert not lease.is_held()


async def test_a_waiter_hears_of_a_clock_that_jumps_while_it_pauses(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pause is long and its timeout longer, and both were over on waking: it does not wait
    for the rest of either."""
    ahead = 0.0

    def jumping() -> float:
        return clock.now() + ahead

    for name in CLOCKS:
        monkeypatch.setattr(name, jumping)
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls, ttl=50.0) as others,
        api.redlock(
            nodes.urls, ttl=50.0, node_timeout=0.1, retry_delay=400.0, on_event=journal
        ) as locks,
    ):
        held = await others.lock("orders").acquire()
        waiter = api.spawn(locks.lock("orders").acquire(timeout=90.0))
        assert await until(api, lambda: journal.of(TryFailed))
        await api.sleep(0.5)  # Until it sleeps, and no timer is left of its try.
        ahead = 100.0
        assert await api.join(waiter) is None
        assert not held.is_held()
