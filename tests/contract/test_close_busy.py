"""`close()` while others use the coordinator: nothing stays on the nodes, nobody is given a lease,
and holders hear of it.

`REDLOCK_CLOSINGS` sets how often a crowd is closed upon: few times in the suite, fifty for the bar.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from redlock.errors import LeaseLost, QuorumUnavailable, RedlockError
from redlock.observe import LeaseGranted, LeaseLapsed, LeaseReleasing, TryStarted
from redlock.transport.clock import now
from tests.contract.api import (
    ASYNCIO,
    PATIENCE,
    Api,
    Asyncio,
    Journal,
    Servers,
    majority,
    paused,
    until,
)

CLOSINGS = int(os.environ.get("REDLOCK_CLOSINGS", "3"))
TASKS, THREADS = 300, 50
TTL = 50.0


def resource_of(chance: random.Random, number: int) -> str:
    """Its own, or one that it shares with many."""
    return f"own:{number}" if chance.random() < 0.5 else f"shared:{chance.randrange(10)}"


@pytest.mark.timeout(120 + 10 * CLOSINGS)
@pytest.mark.uvloop
@pytest.mark.loops
async def test_closing_on_a_crowd_of_tasks_leaves_nothing(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """Tasks that take, hold, extend and give back, in bodies and by hand: no key, no lease
    afterwards, no task."""
    for closing in range(CLOSINGS):
        await close_on_tasks(closing, nodes, servers)


async def close_on_tasks(closing: int, nodes: Nodes, servers: Servers) -> None:
    locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL, node_timeout=5.0)
    leases: list[Any] = []
    ends: list[type] = []
    closed = False

    async def use(number: int, chance: random.Random) -> None:
        while True:
            lock = locks.lock(resource_of(chance, number), auto_extend=chance.random() < 0.2)
            if chance.random() < 0.3:
                lease = await lock.acquire()
                assert lease is not None
                assert not closed
                leases.append(lease)
                await asyncio.sleep(chance.random() * 0.02)
                if chance.random() < 0.5:
                    await lease.release()
            else:
                async with lock as lease:
                    assert not closed
                    leases.append(lease)
                    await asyncio.sleep(chance.random() * 0.02)
                    if chance.random() < 0.2:
                        await lease.extend()

    async def go(number: int) -> None:
        chance = random.Random(1000 * closing + number)
        while True:
            try:
                await use(number, chance)
            except QuorumUnavailable:  # The machine is so busy that the nodes are late.
                assert not closed
            except RedlockError as error:
                return ends.append(type(error))

    crowd = [asyncio.create_task(go(number)) for number in range(TASKS)]
    assert await until(ASYNCIO, lambda: len(leases) > 100)
    await asyncio.sleep(random.Random(closing).random() * 0.4)
    closed = True
    await locks.close()
    assert servers.lock_keys() == {}
    await asyncio.wait_for(asyncio.gather(*crowd), PATIENCE)
    assert not any(lease.is_held() for lease in leases)
    assert len(ends) == TASKS
    assert set(ends) <= {RedlockError, LeaseLost}
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert servers.lock_keys() == {}


@pytest.mark.timeout(120 + 10 * CLOSINGS)
def test_closing_on_a_crowd_of_threads_leaves_nothing(nodes: Nodes, servers: Servers) -> None:
    """The same with threads: of what each was given, all is lost or given back."""
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # A race between two lines is found more often.
    try:
        for closing in range(CLOSINGS):
            close_on_threads(closing, nodes, servers)
    finally:
        sys.setswitchinterval(switching)


def close_on_threads(closing: int, nodes: Nodes, servers: Servers) -> None:
    before = set(threading.enumerate())
    locks = redlock.Redlock(nodes.urls, ttl=TTL, node_timeout=5.0)
    leases: list[redlock.Lease] = []
    ends: list[type] = []
    late: list[redlock.Lease] = []
    closed = threading.Event()
    stop = threading.Event()

    def use(number: int, chance: random.Random) -> None:
        while True:
            lock = locks.lock(resource_of(chance, number), auto_extend=chance.random() < 0.2)
            after = closed.is_set()
            if chance.random() < 0.3:
                lease = lock.acquire()
                assert lease is not None
                leases.append(lease)
                stop.wait(chance.random() * 0.02)
                if chance.random() < 0.5:
                    lease.release()
            else:
                with lock as lease:
                    leases.append(lease)
                    stop.wait(chance.random() * 0.02)
                    if chance.random() < 0.2:
                        lease.extend()
            if after:
                late.append(lease)

    def go(number: int) -> None:
        chance = random.Random(1000 * closing + number)
        while True:
            try:
                use(number, chance)
            except QuorumUnavailable:  # The machine is so busy that the nodes are late.
                assert not closed.is_set()
            except RedlockError as error:
                return ends.append(type(error))

    crowd = [threading.Thread(target=go, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in crowd:
        thread.start()
    while len(leases) < 100:
        stop.wait(0.002)
    stop.wait(random.Random(closing).random() * 0.4)
    # Two threads close, as a signal's handler might.
    closed_at_once = threading.Thread(target=locks.close, daemon=True)
    closed_at_once.start()
    locks.close()
    closed.set()
    assert servers.lock_keys() == {}
    for thread in [*crowd, closed_at_once]:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not any(lease.is_held() for lease in leases)
    assert late == []
    assert len(ends) == THREADS
    assert set(ends) <= {RedlockError, LeaseLost}
    assert servers.lock_keys() == {}
    assert set(threading.enumerate()) <= before


async def test_a_grant_that_is_decided_while_close_begins_is_given_back(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Closed by somebody else in the very instant of the grant: RedlockError instead of a lease,
    and no key stays."""
    closers: list[Any] = []

    def close_at_the_grant(record: Any) -> None:
        if isinstance(record, LeaseGranted) and not closers:
            closers.append(api.spawn(locks.close()))
            if api.name == "blocking":
                assert began.wait(PATIENCE)

    locks = api.redlock(nodes.urls, ttl=TTL, on_event=close_at_the_grant)
    began = threading.Event()
    if api.name == "blocking":
        refuse = locks.real._driver.refuse
        locks.real._driver.refuse = lambda: (refuse(), began.set())
    with pytest.raises(RedlockError, match="closed"):
        await locks.lock("orders").acquire()
    await api.join(closers[0])
    assert servers.lock_keys() == {}


def test_a_callback_may_close_its_coordinator_in_the_event_of_the_grant(
    nodes: Nodes, servers: Servers
) -> None:
    """RedlockError instead of a lease, and no key stays: nobody would release it before its ttl
    is over."""

    def close(record: Any) -> None:
        if isinstance(record, LeaseGranted):
            locks.close()

    locks = redlock.Redlock(nodes.urls, ttl=TTL, on_event=close)
    with pytest.raises(RedlockError, match="closed"):
        locks.lock("orders", auto_extend=True).acquire()
    assert servers.lock_keys() == {}


@pytest.mark.loops
async def test_a_body_that_runs_when_its_coordinator_is_closed_is_cancelled(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """With LeaseLost; its lease is given back only after it has ended, and `close` waits for
    that."""
    journal = Journal(api)
    locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL, on_event=journal)
    inside, told, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    stages: list[Any] = []

    async def work() -> None:
        async with locks.lock("orders", auto_extend=True, on_lost=lambda lost: told.set()) as lease:
            inside.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                stages.append((lease.is_held(), lease.lost.is_set(), told.is_set()))
                await may_end.wait()
                stages.append(len(servers.lock_keys()))

    worker = asyncio.create_task(work())
    await inside.wait()
    assert await until(api, lambda: len(servers.lock_keys()) == 5)
    closer = asyncio.create_task(locks.close())
    await asyncio.wait_for(told.wait(), PATIENCE)
    with pytest.raises(RedlockError, match="closed"):
        await locks.lock("others").acquire()
    await asyncio.sleep(0.6)  # Longer than the node timeout.
    assert not closer.done()
    may_end.set()
    with pytest.raises(LeaseLost, match="this Redlock was closed"):
        await worker
    await asyncio.wait_for(closer, PATIENCE)
    assert stages == [(False, True, True), 5]
    assert servers.lock_keys() == {}
    assert len(journal.of(LeaseLapsed)) == 1


@pytest.mark.loops
async def test_close_waits_for_a_body_no_longer_than_its_lease_was_valid(
    api: Asyncio, nodes: Nodes
) -> None:
    """One that ignores its cancel: `close` ends, and the lock expires by itself without having
    been given back under it."""
    locks = redlock.asyncio.Redlock(nodes.urls, ttl=1.0)
    inside, end = asyncio.Event(), asyncio.Event()

    async def work() -> float:
        with pytest.raises(LeaseLost):
            async with locks.lock("orders") as lease:
                inside.set()
                while not end.is_set():
                    try:
                        await end.wait()
                    except asyncio.CancelledError:
                        continue
        return lease.valid_until

    worker = asyncio.create_task(work())
    await inside.wait()
    await asyncio.wait_for(locks.close(), PATIENCE)
    closed_at = now()
    end.set()
    assert await worker <= closed_at


async def test_whoever_holds_a_lease_elsewhere_hears_that_it_is_lost_by_a_close(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Taken by hand or entered in another thread or task: `lost` is set, `on_lost` called, and
    then the lock is free."""
    told = [api.event(), api.event()]
    journal = Journal(api)
    locks = api.redlock(nodes.urls, ttl=TTL, on_event=journal)
    ready = [api.event(), api.event()]
    leases: list[Any] = []

    async def by_hand() -> bool:
        lease = await locks.lock("by hand", on_lost=lambda lost: told[0].set()).acquire()
        leases.append(lease)
        lost = lease.lost
        ready[0].set()
        return await api.wait(lost) and not lease.is_held()

    async def entered() -> None:
        async with locks.lock("entered", on_lost=lambda lost: told[1].set()) as lease:
            leases.append(lease)
            ready[1].set()
            assert await api.wait(lease.lost)

    others = [api.spawn(by_hand()), api.spawn(entered())]
    for event in ready:
        assert await api.wait(event)
    await locks.close()
    assert await api.join(others[0])
    with pytest.raises(LeaseLost, match="this Redlock was closed"):
        await api.join(others[1])
    for event in told:
        assert await api.wait(event)
    assert not any(lease.is_held() for lease in leases)
    assert sorted(record.resource for record in journal.of(LeaseLapsed)) == ["by hand", "entered"]
    assert servers.lock_keys() == {}


async def test_a_lease_that_was_entered_elsewhere_is_lost_when_its_taker_closes(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Taken here, and handed to another thread or task that works under it: that one is told,
    though the taker knows."""
    locks = api.redlock(nodes.urls, ttl=TTL)
    lease = await locks.lock("orders").acquire()
    inside = api.event()

    async def work() -> None:
        async with lease:
            lost = lease.lost
            inside.set()
            assert await api.wait(lost)

    other = api.spawn(work())
    assert await api.wait(inside)
    await locks.close()
    with pytest.raises(LeaseLost, match="this Redlock was closed"):
        await api.join(other)
    assert servers.lock_keys() == {}


async def test_a_body_may_close_its_own_coordinator(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """It knows what it does: the lease is given back at once, and nobody is told of a loss."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=TTL, on_event=journal) as locks:
        async with locks.lock("orders") as lease:
            await locks.close()
            assert servers.lock_keys() == {}
            assert not lease.is_held()
        assert journal.of(LeaseLapsed) == []


async def test_close_ends_whoever_waits_in_a_queue_or_a_pause(
    api: Api, nodes: Nodes, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose turn, or whose set of connections, has not come."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 2)
    monkeypatch.setattr("redlock.transport.blocking.SETS_MAX", 2)
    journal = Journal(api)
    locks = api.redlock(nodes.urls, ttl=TTL, node_timeout=2.0, retry_delay=20.0, on_event=journal)
    async with api.redlock(nodes.urls, ttl=TTL) as others, others.lock("orders"):
        pausing = api.spawn(locks.lock("orders").acquire())
        assert await until(api, lambda: journal.of(TryStarted))
        with paused(majority(nodes)):
            waiting = [api.spawn(locks.lock(f"others:{number}").acquire()) for number in range(8)]
            assert await until(api, lambda: len(journal.of(TryStarted)) >= 3)
            closer = api.spawn(locks.close())
            for waiter in [pausing, *waiting]:
                with pytest.raises(RedlockError, match="closed"):
                    await api.join(waiter)
            await api.join(closer)
    assert await until(api, lambda: not servers.lock_keys())


async def test_close_does_not_wait_for_a_callback_that_hangs(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """One that a loss began and that does not end: the locks are given back, and `close`
    returns."""
    release = threading.Event()
    began, done = api.event(), api.event()

    async def hang() -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            done.set()

    def hang_in_a_thread(lost: Any) -> None:
        began.set()
        assert release.wait(PATIENCE * 2)
        done.set()

    on_lost: Any = hang_in_a_thread if api.name == "blocking" else lambda lost: hang()
    try:
        locks = api.redlock(nodes.urls, ttl=TTL)
        lease = await locks.lock("short", ttl=0.3, on_lost=on_lost).acquire()
        held = await locks.lock("orders").acquire()
        assert await api.wait(began)
        assert not lease.is_held()
        await api.join(api.spawn(locks.close()))
        assert not held.is_held()
        assert "redlock:orders" not in {
            key for keys in servers.lock_keys().values() for key in keys
        }
        assert done.is_set() is (api.name != "blocking")
    finally:
        release.set()


@pytest.mark.loops
async def test_a_cancelled_close_goes_on_and_can_be_called_again(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """The cancel ends the waiting; the coordinator takes nothing any more; the second call waits
    for the rest."""
    for turns in range(12):
        locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL)
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(5)]
        closer = asyncio.create_task(locks.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closer.cancel()
        await asyncio.wait([closer])
        if turns:
            with pytest.raises(RedlockError, match="closed"):
                await locks.lock("others").acquire()
        # Until its last steps: the connections are about to end.
        for _ in range(100_000 if turns > 8 else 0):
            if not locks._driver.closed:
                await asyncio.sleep(0)
        await locks.close()
        assert servers.lock_keys() == {}
        assert not any(lease is None or lease.is_held() for lease in leases)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.loops
async def test_a_close_that_was_cancelled_before_it_began_is_begun_anew(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """Programs cancel every task of their loop, and close then: nothing is left, and no cancel
    of before comes out."""
    locks = redlock.asyncio.Redlock(nodes.urls, ttl=TTL)
    lease = await locks.lock("orders").acquire()
    closer = asyncio.create_task(locks.close())
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert closer in tasks and "redlock-close" in {task.get_name() for task in tasks}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await locks.close()
    assert servers.lock_keys() == {}
    assert lease is not None and not lease.is_held()


def test_a_close_that_is_interrupted_can_be_called_again(nodes: Nodes, servers: Servers) -> None:
    """Ctrl-C wherever `close` waits: nothing is granted any more, and the second call finishes."""
    for step in ("_await_acquires", "_release_all"):
        locks = redlock.Redlock(nodes.urls, ttl=TTL)
        lease = locks.lock("orders").acquire()
        assert lease is not None

        def interrupt() -> None:
            raise KeyboardInterrupt

        setattr(locks, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            locks.close()
        with pytest.raises(RedlockError, match="closed"):
            locks.lock("others").acquire()
        delattr(locks, step)
        locks.close()
        assert not lease.is_held()
        assert servers.lock_keys() == {}


async def test_releases_of_others_go_on_while_close_runs(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """A holder that gives back by itself in that moment is not refused, and its lock is not left
    behind."""
    locks = api.redlock(nodes.urls, ttl=TTL)
    leases = [await locks.lock(f"orders:{number}").acquire() for number in range(40)]

    async def give_back(share: list[Any]) -> None:
        for lease in share:
            await lease.release()

    others = [api.spawn(give_back(leases[number::4])) for number in range(4)]
    await locks.close()
    for other in others:
        await api.join(other)
    assert servers.lock_keys() == {}


async def test_a_release_that_waits_for_its_answers_is_confirmed_while_close_runs(
    api: Api, nodes: Nodes
) -> None:
    """It is no work that a close ends: the holder is told what a majority said of it."""
    journal = Journal(api)
    locks = api.redlock(nodes.urls, ttl=TTL, node_timeout=5.0, on_event=journal)
    lease = await locks.lock("orders").acquire()
    with paused(majority(nodes)):
        releasing = api.spawn(lease.release())
        assert await until(api, lambda: journal.of(LeaseReleasing))
        closer = api.spawn(locks.close())
        await api.sleep(0.1)  # Until it refuses, and waits.
    assert await api.join(releasing) is True
    await api.join(closer)
