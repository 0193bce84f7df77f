"""Keeping a lease, and losing one in time: renewal, the deadline, `lost`, `on_lost`, and what
becomes of the body."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from redlock.asyncio import Redlock
from redlock.embedded import Nodes
from redlock.errors import LeaseLost, LockContended
from redlock.observe import LeaseGranted, LeaseInJeopardy, LeaseLapsed, LeaseReleasing, LeaseRenewed
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, Api, Journal, Servers, majority, paused, until
from tests.proxy import LateProxy

LATE = 0.05
"""Seconds after its deadline by which a lease must be known to be lost."""
CHANCES = 5
"""A busy machine may delay any one timer; a library that is late is late every time."""


@pytest.mark.uvloop
async def test_auto_extend_keeps_a_lease_past_its_ttl(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Renewed in the background for as long as it is held, under the same token; nobody else
    gets in."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=1.0, on_event=journal) as locks:
        async with locks.lock("orders", auto_extend=True) as lease:
            first = lease.valid_until
            assert await until(api, lambda: lease.valid_until > first + 1.2)
            assert lease.is_held()
            assert not lease.lost.is_set()
            with pytest.raises(LockContended):
                async with locks.lock("orders", timeout=0):
                    pytest.fail("two holders")
            assert servers.holders("orders").count(f"{lease.owner}:{lease.fencing_token}") >= 3
        renewed = [record.valid_until for record in journal.of(LeaseRenewed)]
        assert renewed == sorted(renewed)
        assert journal.of(LeaseLapsed) == []
        assert await until(api, lambda: not servers.lock_keys())


async def test_many_leases_are_kept_by_one_loop(api: Api, nodes: Nodes) -> None:
    """More leases than renewals go out together: all are kept."""
    async with api.redlock(nodes.urls, ttl=2.0) as locks, contextlib.AsyncExitStack() as stack:
        leases = [
            await stack.enter_async_context(locks.lock(f"orders:{number}", auto_extend=True))
            for number in range(300)
        ]
        until_at = max(lease.valid_until for lease in leases) + 2.0
        assert await until(api, lambda: all(lease.valid_until > until_at for lease in leases))
        assert all(lease.is_held() for lease in leases)


@pytest.mark.uvloop
async def test_a_failed_renewal_is_retried_until_it_succeeds(api: Api, nodes: Nodes) -> None:
    """A majority that sleeps for less than the validity costs a record of jeopardy, and no
    lease."""
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls, ttl=4.0, on_event=journal) as locks,
        locks.lock("orders", auto_extend=True) as lease,
    ):
        lost = lease.lost
        in_jeopardy = journal.expect(LeaseInJeopardy)
        with paused(majority(nodes)):
            assert await api.wait(in_jeopardy)
            assert lease.is_held()
            before = lease.valid_until
        (first, *_) = journal.of(LeaseInJeopardy)
        assert first.resource == "orders"
        assert all(url in first.votes for url in nodes.urls[:3])
        assert await until(api, lambda: lease.valid_until > before)
        assert not lost.is_set()
    assert journal.of(LeaseLapsed) == []


@pytest.mark.uvloop
@pytest.mark.parametrize("auto_extend", [False, True])
async def test_lost_is_set_at_the_deadline(api: Api, nodes: Nodes, auto_extend: bool) -> None:
    """By a timer and not by I/O: a majority is silent, and `lost` is set no later than 50 ms
    after `valid_until`."""
    late = []
    for _ in range(CHANCES):
        journal = Journal(api)
        async with api.redlock(nodes.urls, ttl=0.6, on_event=journal) as locks:
            lease = await locks.lock("orders", auto_extend=auto_extend).acquire(timeout=10.0)
            lost = lease.lost
            with paused(majority(nodes)):
                assert await api.wait(lost)
                late.append(now() - lease.valid_until)
                assert not lease.is_held()
            with pytest.raises(LeaseLost):
                lease.ensure_held()
            (lapsed,) = journal.of(LeaseLapsed)
            assert (lapsed.resource, lapsed.fencing_token) == ("orders", lease.fencing_token)
            assert lapsed.reason
            await lease.release()
        assert min(late) >= 0.0, "lost before the deadline, and nobody said so"
        if late[-1] <= LATE:
            break
    assert min(late) <= LATE


async def test_no_deadline_waits_for_somebody_elses_renewal(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many renewals as may go out together are unanswered, and a lease beside them is lost in
    time all the same."""
    monkeypatch.setattr("redlock.transport.renewals.TOGETHER_MAX", 1)
    monkeypatch.setattr("redlock.transport.renewals.TOGETHER_MAX", 1)
    late = []
    for _ in range(CHANCES):
        async with api.redlock(nodes.urls, ttl=4.0, node_timeout=0.7) as locks:
            async with locks.lock("warm", timeout=10.0):
                pass
            renewed = [
                await locks.lock(f"orders:{number}", auto_extend=True).acquire(timeout=10.0)
                for number in range(3)
            ]
            lease = await locks.lock("invoices", ttl=2.4).acquire(timeout=10.0)
            lost = lease.lost
            with paused(majority(nodes)):
                assert await api.wait(lost)
                late.append(now() - lease.valid_until)
                assert all(other.is_held() for other in renewed)
        if late[-1] <= LATE:
            break
    assert min(late) <= LATE


async def test_a_renewal_does_not_wait_behind_those_who_want_locks(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tasks want locks than rounds are allowed under way, on a slow network: what is held
    is renewed before them."""
    monkeypatch.setattr("redlock.transport.aio.FLOWS_MAX", 2)
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(LateProxy(node.port, delay=0.02)) for node in nodes]
        async with Redlock([proxy.url for proxy in proxies], ttl=2.0) as locks:
            lease = await locks.lock("orders", auto_extend=True).acquire()
            assert lease is not None
            first = lease.valid_until
            crowd = [
                asyncio.create_task(locks.lock(f"others:{number}").acquire())
                for number in range(400)
            ]
            assert await until(
                ASYNCIO, lambda: lease.valid_until > first + 1.0 or not lease.is_held()
            )
            assert lease.is_held()
            assert sum(task.done() for task in crowd) < len(crowd)
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
            await lease.release()


async def test_lost_is_set_for_one_who_asks_late(api: Api, nodes: Nodes) -> None:
    """Made on first use: `lost` of a lease that is lost already is set."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        lease = await locks.lock("orders").acquire()
        await api.sleep(max(0.0, lease.valid_until - now()))
        assert lease.lost.is_set()
        await lease.release()


async def test_lost_waits_for_a_deadline_that_moves(api: Api, nodes: Nodes) -> None:
    """After an extension by hand `lost` is set at the new deadline and not at the old one."""
    async with api.redlock(nodes.urls, ttl=1.0) as locks:
        lease = await locks.lock("orders").acquire()
        lost, first = lease.lost, lease.valid_until
        await lease.extend(2.0)
        await api.sleep(max(0.0, first + 0.1 - now()))
        assert not lost.is_set()
        assert await api.wait(lost)
        assert now() >= lease.valid_until
        await lease.release()


@pytest.mark.parametrize("how", ["release", "close"])
@pytest.mark.parametrize("auto_extend", [False, True])
async def test_lost_is_never_set_by_a_release(
    api: Api, nodes: Nodes, how: str, auto_extend: bool
) -> None:
    """Neither by the holder's, nor by that of `close`; not even when the deadline has passed."""
    told: list[Any] = []
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=0.4, on_event=journal) as locks:
        lease = await locks.lock("orders", auto_extend=auto_extend, on_lost=told.append).acquire()
        lost = lease.lost
        if how == "release":
            assert await lease.release()
        else:
            await locks.close()
        await api.sleep(max(0.0, lease.valid_until + 0.2 - now()))
        assert not lost.is_set()
    assert told == []
    assert journal.of(LeaseLapsed) == []


async def test_on_lost_is_called_once_with_the_lease(api: Api, nodes: Nodes) -> None:
    """When the deadline passes; asking the lease again, releasing it and leaving its block call
    nobody a second time."""
    told: list[Any] = []
    called = api.event()

    def on_lost(lost: Any) -> None:
        told.append((lost.resource, lost.owner, lost.is_held()))
        called.set()

    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        lock = locks.lock("orders", on_lost=on_lost)
        lease = await lock.acquire()
        assert await api.wait(called)
        with pytest.raises(LeaseLost):
            await lease.verify()
        with pytest.raises(LeaseLost):
            await lease.extend()
        assert lease.lost.is_set()
        assert await lock.release() is False
        await api.sleep(0.05)
    assert told == [("orders", lease.owner, False)]


async def test_an_exception_of_on_lost_harms_nobody(
    api: Api, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, `lost` is set all the same, and other leases are renewed and lost as before."""
    called = api.event()

    def explode(lease: Any) -> None:
        called.set()
        raise ZeroDivisionError("on_lost")

    async with (
        api.redlock(nodes.urls, ttl=0.6) as locks,
        locks.lock("kept", auto_extend=True) as kept,
    ):
        first = kept.valid_until
        lease = await locks.lock("orders", on_lost=explode).acquire()
        lost = lease.lost
        assert await api.wait(called)
        assert await api.wait(lost)
        other = await locks.lock("others").acquire()
        assert await api.wait(other.lost)
        assert await until(api, lambda: kept.valid_until > first + 0.6)
        await lease.release()
        await other.release()
    assert any(
        "on_lost" in record.getMessage() or record.exc_info
        for record in caplog.records
        if record.levelname == "ERROR"
    )


async def test_on_lost_may_be_a_coroutine_function(nodes: Nodes) -> None:
    """Under asyncio it is awaited, once; its exception is logged."""
    told = []
    called = asyncio.Event()

    async def on_lost(lost: Any) -> None:
        await asyncio.sleep(0)
        told.append(lost.owner)
        called.set()
        raise ZeroDivisionError("logged")

    async with Redlock(nodes.urls, ttl=0.3) as locks:
        lease = await locks.lock("orders", on_lost=on_lost).acquire()
        assert lease is not None
        await asyncio.wait_for(called.wait(), 20)
        assert told == [lease.owner]
        await lease.release()


@pytest.mark.uvloop
async def test_max_hold_ends_what_renewal_would_keep(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """No deadline past the grant plus `max_hold`; then lost like any other lease, and never
    released under its body."""
    journal = Journal(api)
    ended = api.event()
    async with api.redlock(nodes.urls, ttl=0.6, on_event=journal) as locks:
        lock = locks.lock("orders", auto_extend=True, max_hold=1.0)
        lease = await lock.acquire()
        lost = lease.lost
        assert await api.wait(lost)
        (granted,) = journal.of(LeaseGranted)
        assert lease.valid_until == pytest.approx(granted.at + 1.0, abs=1e-6)
        assert all(
            record.valid_until <= granted.at + 1.0 + 1e-6 for record in journal.of(LeaseRenewed)
        )
        assert journal.of(LeaseReleasing) == []
        assert await lease.release() is False
        ended.set()


async def test_max_hold_below_the_ttl_shortens_the_lease(api: Api, nodes: Nodes) -> None:
    """Without renewal too; the grant's event says so, and an extension by hand does not pass it
    either."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, ttl=10.0, on_event=journal) as locks:
        before = now()
        lease = await locks.lock("orders", max_hold=0.5).acquire()
        assert before < lease.valid_until <= now() + 0.5
        deadline = lease.valid_until
        (granted,) = journal.of(LeaseGranted)
        assert granted.valid_until == deadline
        await lease.extend(20.0)
        assert lease.valid_until == pytest.approx(deadline, abs=1e-6)
        assert await api.wait(lease.lost)
        await lease.release()


async def test_a_lost_lease_makes_its_block_raise(api: Api, nodes: Nodes, servers: Servers) -> None:
    """The body returned in peace, and its lease was over by then: LeaseLost on leaving, and the
    keys are given back."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        with pytest.raises(LeaseLost, match="orders"):
            async with locks.lock("orders") as lease:
                give_up_at = lease.valid_until + 0.01
                # Busy: an asyncio body that never awaits cannot be cancelled.
                while now() < give_up_at:
                    pass
        assert await until(api, lambda: not servers.lock_keys())


async def test_a_bodys_exception_is_never_masked(api: Api, nodes: Nodes) -> None:
    """The lease is lost and the body raises: its exception comes out, not LeaseLost."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        with pytest.raises(ZeroDivisionError):
            async with locks.lock("orders") as lease:
                with contextlib.suppress(asyncio.CancelledError):
                    await api.sleep(max(0.0, lease.valid_until + 0.1 - now()))
                raise ZeroDivisionError


async def test_a_bodys_exception_survives_a_release_that_fails(api: Api, nodes: Nodes) -> None:
    """No majority confirms the release: the body's exception comes out as it is."""
    async with api.redlock(nodes.urls, ttl=20.0) as locks:
        with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
            async with locks.lock("orders"):
                stack.enter_context(paused(majority(nodes)))
                raise ZeroDivisionError
