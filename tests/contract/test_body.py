"""What becomes of the body of an `async with` when its lease is lost: as `asyncio.timeout` does
it, and no cancel is mixed up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
import weakref

import pytest

from redlock.asyncio import Lease, Redlock
from redlock.core.lease import Holding
from redlock.embedded import Nodes
from redlock.errors import ConfigurationError, LeaseLost, LockContended
from redlock.transport.clock import now
from tests.contract.api import PATIENCE, Asyncio, Servers, descriptors, majority, paused, until

pytestmark = pytest.mark.loops


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("auto_extend", [False, True])
async def test_the_body_is_cancelled_when_its_lease_is_lost(
    api: Asyncio, nodes: Nodes, auto_extend: bool
) -> None:
    """It would wait for ever: it is cancelled at the deadline, LeaseLost comes out, and the task
    is not cancelled."""
    async with Redlock(nodes.urls, ttl=0.6) as locks:
        cancelled_at = 0.0
        with pytest.raises(LeaseLost, match="orders") as caught:
            async with locks.lock("orders", auto_extend=auto_extend) as lease:
                with paused(majority(nodes)):
                    try:
                        await forever()
                    except asyncio.CancelledError:
                        cancelled_at = now()
                        raise
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert lease.valid_until <= cancelled_at
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # Nothing is left that would strike here.


async def test_a_lease_entered_by_itself_cancels_its_body_too(api: Asyncio, nodes: Nodes) -> None:
    """`async with lease` after `acquire`, in another task than the one that acquired it."""
    async with Redlock(nodes.urls, ttl=0.4) as locks:
        lease = await locks.lock("orders").acquire()
        assert lease is not None

        async def work() -> None:
            async with lease:
                await forever()

        with pytest.raises(LeaseLost):
            await asyncio.wait_for(asyncio.create_task(work()), PATIENCE)


async def test_somebody_elses_cancel_stays_a_cancel(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """CancelledError goes through the block; the lock is given back all the same."""
    async with Redlock(nodes.urls) as locks:
        inside = asyncio.Event()

        async def work() -> None:
            async with locks.lock("orders"):
                inside.set()
                await forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel("somebody else")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert await until(api, lambda: not servers.lock_keys())


async def test_both_cancels_at_once_are_a_cancel(api: Asyncio, nodes: Nodes) -> None:
    """The lease is lost and the task is cancelled from outside before it could run: the outer
    cancel wins, and is not lost."""
    async with Redlock(nodes.urls, ttl=0.4) as locks:
        leases: list[Lease] = []

        async def work() -> None:
            # on_lost is called in the same turn of the loop as the body is cancelled, before the
            # task can run.
            async with locks.lock(
                "orders", on_lost=lambda lease: task.cancel("somebody else")
            ) as lease:
                leases.append(lease)
                await forever()

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), PATIENCE)
        assert task.cancelled()
        assert not leases[0].is_held()


async def test_the_bodys_own_exception_is_never_masked(api: Asyncio, nodes: Nodes) -> None:
    """What the body makes of its cancel comes out, also after the loss; the task is not
    cancelled."""
    async with Redlock(nodes.urls, ttl=0.4) as locks:
        with pytest.raises(ZeroDivisionError):
            async with locks.lock("orders"):
                try:
                    await forever()
                except asyncio.CancelledError:
                    raise ZeroDivisionError from None
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)


async def test_a_body_that_swallows_its_cancel_learns_of_the_loss_at_the_end(
    api: Asyncio, nodes: Nodes
) -> None:
    """It went on, against its lease: LeaseLost on leaving."""
    async with Redlock(nodes.urls, ttl=0.4) as locks:
        with pytest.raises(LeaseLost):
            async with locks.lock("orders"):
                with contextlib.suppress(asyncio.CancelledError):
                    await forever()
                await asyncio.sleep(0)


async def test_a_timeout_around_the_block_is_a_timeout(
    api: Asyncio, nodes: Nodes, servers: Servers
) -> None:
    """`asyncio.timeout` outside ends as TimeoutError, while the lock is held and while it is
    waited for."""
    async with Redlock(nodes.urls) as locks:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), locks.lock("orders"):
                await forever()
        async with locks.lock("orders"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), locks.lock("orders"):
                    pytest.fail("two holders")
        assert await until(api, lambda: not servers.lock_keys())


async def test_a_timeout_inside_the_body_is_the_bodys(api: Asyncio, nodes: Nodes) -> None:
    """A timeout that struck before the loss is not taken for it."""
    async with Redlock(nodes.urls, ttl=0.5) as locks:
        with pytest.raises(LeaseLost):
            async with locks.lock("orders") as lease:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await forever()
                assert lease.is_held()
                await forever()


async def test_tasks_of_a_group_lose_their_leases_one_by_one(api: Asyncio, nodes: Nodes) -> None:
    """LeaseLost of one member ends the group as any error does; the others give their locks
    back."""
    async with Redlock(nodes.urls) as locks:

        async def work(number: int, ttl: float) -> None:
            async with locks.lock(f"orders:{number}", ttl=ttl):
                await forever()

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(work(0, 0.4))
                for number in range(1, 5):
                    group.create_task(work(number, 30.0))
        (error,) = caught.value.exceptions
        assert isinstance(error, LeaseLost)
        for number in range(5):
            async with locks.lock(f"orders:{number}", timeout=PATIENCE):
                pass


async def test_a_cancelled_extension_leaves_the_lease_as_it_is(api: Asyncio, nodes: Nodes) -> None:
    """The lease is still held, and can be extended again."""
    async with Redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        for method in (lease.extend, lease.verify):
            with paused(majority(nodes)):
                task = asyncio.create_task(method())
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert lease.is_held()
            await method()


async def test_a_cancelled_wait_leaves_the_lock_usable(api: Asyncio, nodes: Nodes) -> None:
    """After a cancel while it waited, the same Lock can be acquired."""
    async with Redlock(nodes.urls) as locks:
        lock = locks.lock("orders")
        async with locks.lock("orders"):
            task = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(LockContended):
                async with locks.lock("orders", timeout=0):
                    pytest.fail("two holders")
        lease = await lock.acquire(timeout=PATIENCE)
        assert lease is not None
        assert await lock.release()


# What others do beside it


async def test_who_asks_for_lost_in_another_thread_is_refused_and_nothing_else_is_hurt(
    api: Asyncio, nodes: Nodes
) -> None:
    """An event of a loop is not for other threads; the renewals and losses of all leases go on."""
    async with Redlock(nodes.urls, ttl=1.0) as locks:
        lease = await locks.lock("orders", ttl=1.5).acquire()
        assert lease is not None
        async with locks.lock("kept", auto_extend=True) as kept:
            with pytest.raises(ConfigurationError, match="no event loop runs here"):
                await asyncio.to_thread(lambda: lease.lost)
            assert await until(api, lambda: not lease.is_held())
            assert lease.lost.is_set()
            assert kept.is_held()


def test_lost_may_be_asked_for_between_two_runs_of_the_loop(nodes: Nodes) -> None:
    """As a program does that calls `run_until_complete` several times."""
    with asyncio.Runner() as runner:
        locks = Redlock(nodes.urls, ttl=1.0)
        lease = runner.run(locks.lock("orders").acquire())
        assert lease is not None
        lost = lease.lost
        assert runner.run(asyncio.wait_for(lost.wait(), PATIENCE))
        assert not lease.is_held()
        runner.run(locks.close())


@pytest.mark.parametrize("auto_extend", [False, True])
async def test_an_on_lost_that_raises_cancelled_error_keeps_nobody_unheard(
    api: Asyncio, nodes: Nodes, auto_extend: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As `result()` of a cancelled task does. Others are lost, or due for renewal, at the same
    look."""

    def asks_a_cancelled_task(lease: Lease) -> None:
        raise asyncio.CancelledError

    async with Redlock(nodes.urls, ttl=4.0) as locks:
        lost = [
            await locks.lock(f"orders:{number}", ttl=1.0, on_lost=asks_a_cancelled_task).acquire()
            for number in range(3)
        ]
        kept = (
            await locks.lock("kept", auto_extend=True, ttl=3.0).acquire() if auto_extend else None
        )
        events = [lease.lost for lease in lost if lease is not None]
        assert all([await asyncio.wait_for(event.wait(), PATIENCE) for event in events])
        assert [
            record.message for record in caplog.records if "on_lost failed" in record.message
        ] != []
        if kept is not None:
            first = kept.valid_until
            assert await until(api, lambda: kept.valid_until > first)
            await kept.release()


async def test_what_was_due_beside_a_callback_that_ends_the_program_is_done_if_it_goes_on(
    api: Asyncio, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt goes through, and whoever catches it finds all leases under watch."""
    async with Redlock(nodes.urls, ttl=4.0) as locks:
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(3)]
        held = [lease for lease in leases if lease is not None]
        events = [lease.lost for lease in held]
        told = locks._tell_lapsed
        struck: list[object] = []

        def strike(holding: Holding) -> None:
            if not struck:
                struck.append(holding)
                raise KeyboardInterrupt
            told(holding)

        for lease in held:
            assert lease._watch is not None
            monkeypatch.setattr(lease._watch, "lapsed", strike)
            lease._holding.valid_until = now()
            lease._watch.due_at = 0.0
        schedule, streams = locks._driver.renewals._schedule, locks._driver.streams
        schedule._heap[:] = [
            (0.0, number, lease._watch) for number, lease in enumerate(held) if lease._watch
        ]
        assert streams._timer is not None
        streams._timer.cancel()  # It is the timer that strikes: no other one is set.
        with pytest.raises(KeyboardInterrupt):
            streams._tick()
        assert await until(api, lambda: sum(event.is_set() for event in events) == 2)


async def test_a_coordinator_that_is_dropped_gives_its_descriptors_back(
    api: Asyncio, nodes: Nodes
) -> None:
    """Nobody closed it; its loop goes on for as long as the program does."""
    # uvloop opens something of its own at the first connection.
    async with Redlock(nodes.urls) as locks:
        await locks.nodes()
    before = descriptors()
    for _ in range(3):
        locks = Redlock(nodes.urls, ttl=1.0)
        async with locks.lock("orders", timeout=PATIENCE):
            pass
        del locks
    gc.collect()
    assert await until(api, lambda: descriptors() <= before)


@pytest.mark.parametrize("held", [False, True], ids=["released", "held"])
def test_a_coordinator_whose_loop_ends_gives_its_descriptors_back_though_it_renewed(
    nodes: Nodes, held: bool
) -> None:
    """A watch stays in the schedule until its lease is due: it must not keep the coordinator, and
    that its connections.

    `asyncio.run` once more, and once more, with a coordinator that nobody closes: jobs and
    notebooks do that.
    """
    left: list[weakref.ref[Redlock]] = []

    async def job() -> None:
        locks = Redlock(nodes.urls, ttl=30.0)
        left.append(weakref.ref(locks))
        lease = await locks.lock("orders", timeout=PATIENCE, auto_extend=True).acquire()
        assert lease is not None
        if not held:
            await lease.release()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Nobody closed them.
        asyncio.run(job())
        gc.collect()
        before = descriptors()
        for _ in range(3):
            for node in nodes:
                with node.client() as client:
                    client.delete("redlock:orders")
            asyncio.run(job())
            gc.collect()
    assert not any(found() for found in left)
    assert descriptors() <= before
