"""What a lease says of itself, and how it is extended, verified and given back."""

from __future__ import annotations

import gc
import re
import sys
import warnings
from typing import Any

import pytest

from redlock.embedded import Nodes
from redlock.errors import (
    ConfigurationError,
    LeaseError,
    LeaseLost,
    LeaseReleased,
    QuorumUnavailable,
)
from redlock.observe import LeaseGranted, LeaseLapsed, LeaseReleasing, LeaseRenewed
from redlock.transport.clock import now
from tests.contract.api import Api, Journal, Servers, majority, paused, until


@pytest.mark.uvloop
async def test_a_lease_tells_its_grant(api: Api, nodes: Nodes, servers: Servers) -> None:
    """Resource, 128-bit owner, integer token below 2**53, ttl, and a deadline on the lease clock
    that counts drift."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, on_event=journal) as locks:
        before = now()
        lease = await locks.lock("orders", ttl=20.0).acquire()
        after = now()
        assert lease.resource == "orders"
        assert type(lease.fencing_token) is int
        assert 0 < lease.fencing_token < 2**53
        assert re.fullmatch("[0-9a-f]{32}", lease.owner)
        assert lease.ttl == 20.0
        (granted,) = journal.of(LeaseGranted)
        assert before <= granted.sent_at <= granted.at <= after
        assert (
            lease.valid_until
            == granted.valid_until
            == pytest.approx(granted.sent_at + 20.0 - (20.0 * 0.01 + 0.002))
        )
        assert "orders" in repr(lease)
        assert lease.owner not in repr(lease), "a log line must not let its reader release the lock"
        await lease.release()


async def test_tokens_increase_over_grants(api: Api, nodes: Nodes) -> None:
    """Every later grant of a resource has a larger token and an owner of its own, whoever gets
    it."""
    async with api.redlock(nodes.urls) as one, api.redlock(nodes.urls) as two:
        leases = []
        for _ in range(10):
            for locks in (one, two):
                async with locks.lock("orders", timeout=5.0) as lease:
                    leases.append((lease.fencing_token, lease.owner))
        tokens = [token for token, _ in leases]
        assert tokens == sorted(set(tokens))
        assert len({owner for _, owner in leases}) == len(leases)


async def test_remaining_falls_to_zero_and_never_below(api: Api, nodes: Nodes) -> None:
    """`is_held`, `remaining` and `ensure_held` read the clock every time, and agree."""
    async with api.redlock(nodes.urls, ttl=0.4) as locks:
        lease = await locks.lock("orders").acquire()
        first, second = lease.remaining(), lease.remaining()
        assert 0.4 > first > second > 0.0
        lease.ensure_held()
        lease.ensure_held(min_remaining=0.01)
        with pytest.raises(LeaseLost, match="orders"):
            lease.ensure_held(min_remaining=60.0)
        assert lease.is_held(), "asking for more than there is loses nothing"
        await api.sleep(max(0.0, lease.valid_until - now()))
        assert not lease.is_held()
        assert lease.remaining() == 0.0
        with pytest.raises(LeaseLost, match=str(lease.fencing_token)):
            lease.ensure_held()
        await lease.release()


async def test_a_lease_that_is_too_short_says_how_short(api: Api, nodes: Nodes) -> None:
    """`ensure_held(min_remaining)` of a lease that is held does not claim that it has ended."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        with pytest.raises(LeaseLost) as caught:
            lease.ensure_held(min_remaining=60.0)
        assert "60" in str(caught.value)
        assert "ended" not in str(caught.value)


@pytest.mark.uvloop
async def test_extend_moves_the_deadline(api: Api, nodes: Nodes, servers: Servers) -> None:
    """On the lease and on a majority of the nodes, with the same token; to another ttl if asked."""
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls, ttl=5.0, on_event=journal) as locks,
        locks.lock("orders") as lease,
    ):
        token, first = lease.fencing_token, lease.valid_until
        await lease.extend()
        second = lease.valid_until
        assert first < second <= now() + 5.0
        await lease.extend(20.0)
        assert second + 10.0 < lease.valid_until <= now() + 20.0
        assert lease.ttl == 20.0
        assert lease.fencing_token == token
        left = sorted(client.pttl("redlock:orders") for client in servers.clients)
        assert left[2] > 15_000, "a majority holds it for as long as the lease says"
        assert [record.valid_until for record in journal.of(LeaseRenewed)] == [
            second,
            lease.valid_until,
        ]


async def test_extend_never_shortens(api: Api, nodes: Nodes, servers: Servers) -> None:
    """A smaller ttl leaves the deadline, and the keys' expiry, where they are."""
    async with api.redlock(nodes.urls, ttl=20.0) as locks, locks.lock("orders") as lease:
        deadline = lease.valid_until
        await lease.extend(1.0)
        assert lease.valid_until == deadline
        assert sorted(client.pttl("redlock:orders") for client in servers.clients)[2] > 15_000
        assert lease.is_held()


async def test_extend_puts_back_what_a_node_forgot(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """A key that is missing where nobody newer has been counts again; so a lease outlives lost
    keys."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        servers.forget("orders")
        await lease.extend()
        assert servers.holders("orders").count(f"{lease.owner}:{lease.fencing_token}") >= 3


@pytest.mark.parametrize("ttl", [0, -1.0, float("nan"), float("inf"), "5", 60.5], ids=str)
async def test_an_impossible_extension_is_refused_and_harms_nothing(
    api: Api, nodes: Nodes, ttl: Any
) -> None:
    """ConfigurationError names the value, above the cluster's max_ttl of 60 s too; the lease
    stays as it was."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        deadline = lease.valid_until
        with pytest.raises(ConfigurationError, match=f"ttl={ttl!r}"):
            await lease.extend(ttl)
        assert lease.valid_until == deadline
        assert lease.is_held()


async def test_an_ended_lease_cannot_be_extended(api: Api, nodes: Nodes) -> None:
    """LeaseReleased after a release, LeaseLost after the deadline: an ended lease never comes
    back."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        lease = await locks.lock("orders").acquire()
        await lease.release()
        for operation in (lease.extend, lease.verify):
            with pytest.raises(LeaseReleased, match="orders"):
                await operation()
        with pytest.raises(LeaseReleased):
            lease.ensure_held()
        lease = await locks.lock("orders").acquire(timeout=5.0)
        await api.sleep(max(0.0, lease.valid_until - now()))
        for operation in (lease.extend, lease.verify):
            with pytest.raises(LeaseLost, match="orders"):
                await operation()
        assert not lease.is_held()
        await lease.release()


async def test_an_extension_without_a_majority_leaves_the_lease_valid(
    api: Api, nodes: Nodes
) -> None:
    """Unknown is not lost: QuorumUnavailable with the votes, and the lease is held until its
    deadline."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        deadline = lease.valid_until
        with paused(majority(nodes)):
            for operation in (lease.extend, lease.verify):
                with pytest.raises(QuorumUnavailable, match="confirmed") as caught:
                    await operation()
                assert len(caught.value.votes) == 5
        assert lease.is_held()
        assert lease.valid_until == deadline
        await lease.extend()
        await lease.verify()


@pytest.mark.uvloop
async def test_verify_confirms_the_holder(api: Api, nodes: Nodes) -> None:
    """No newer grant: it returns, and moves nothing."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        deadline = lease.valid_until
        await lease.verify()
        assert lease.valid_until == deadline


@pytest.mark.uvloop
@pytest.mark.parametrize("method", ["verify", "extend"])
async def test_a_superseded_holder_is_told(
    api: Api, nodes: Nodes, servers: Servers, method: str
) -> None:
    """The keys vanish and somebody else gets the lock: LeaseLost at once, and `lost` and
    `on_lost` follow, once."""
    journal = Journal(api)
    told = []
    async with (
        api.redlock(nodes.urls, on_event=journal) as locks,
        api.redlock(nodes.urls) as others,
    ):
        lease = await locks.lock(
            "orders", on_lost=lambda lost: told.append(lost.fencing_token)
        ).acquire()
        lost = lease.lost
        assert not lost.is_set()
        servers.forget("orders")
        newer = await others.lock("orders").acquire(blocking=False)
        assert newer.fencing_token > lease.fencing_token
        for _ in range(2):
            with pytest.raises(LeaseLost, match=f"{lease.fencing_token} is lost"):
                await getattr(lease, method)()
        assert await api.wait(lost)
        assert not lease.is_held()
        with pytest.raises(LeaseLost):
            lease.ensure_held()
        assert await until(api, lambda: told)
        await newer.verify()
        assert await lease.release() is False
        assert newer.is_held()
        await newer.verify()
        assert servers.holders("orders").count(f"{newer.owner}:{newer.fencing_token}") >= 3, (
            "a release is for its own lock"
        )
        assert told == [lease.fencing_token]
        assert len(journal.of(LeaseLapsed)) == 1
        await newer.release()


@pytest.mark.parametrize("method", ["verify", "extend"])
async def test_a_superseded_body_ends_with_lease_lost(
    api: Api, nodes: Nodes, servers: Servers, method: str
) -> None:
    """LeaseLost raised inside the block comes out of it as it is, and the caller is not
    cancelled by it."""
    async with api.redlock(nodes.urls) as locks, api.redlock(nodes.urls) as others:
        with pytest.raises(LeaseLost, match="lost"):
            async with locks.lock("orders") as lease:
                servers.forget("orders")
                newer = await others.lock("orders").acquire(blocking=False)
                await getattr(lease, method)()
        await api.sleep(0)  # A cancel that was left over would strike here.
        await newer.verify()
        await newer.release()


async def test_release_tells_whether_a_majority_confirmed(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """True once; False for a second time, after the deadline, and without a majority. It never
    raises for that."""
    async with api.redlock(nodes.urls, ttl=0.4) as locks:
        lease = await locks.lock("orders").acquire()
        assert await lease.release() is True
        assert await lease.release() is False
        lease = await locks.lock("orders").acquire(timeout=5.0)
        await api.sleep(max(0.0, lease.valid_until - now()))
        assert await lease.release() is False
        lease = await locks.lock("orders", ttl=30.0).acquire(timeout=5.0)
        with paused(majority(nodes)):
            assert await lease.release() is False
            assert not lease.is_held()
        assert await until(api, lambda: not servers.lock_keys()), (
            "a release stays owed to a node that slept"
        )


@pytest.mark.parametrize("ended", ["released", "lost"])
async def test_a_body_never_runs_under_a_lease_that_has_ended(
    api: Api, nodes: Nodes, ended: str
) -> None:
    """`with lease` of an ended lease raises at once what it is."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        lease = await locks.lock("orders").acquire()
        if ended == "released":
            await lease.release()
        else:
            await api.sleep(max(0.0, lease.valid_until - now()))
        with pytest.raises(LeaseError) as caught:
            async with lease:
                pytest.fail("the body ran without the lock")
        assert type(caught.value) is {"released": LeaseReleased, "lost": LeaseLost}[ended]


async def test_a_release_inside_the_body_is_no_loss(api: Api, nodes: Nodes) -> None:
    """Leaving the block after releasing by hand raises nothing."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        assert await lease.release()


@pytest.mark.parametrize("auto_extend", [False, True])
async def test_a_dropped_lease_warns_and_expires(
    api: Api, nodes: Nodes, servers: Servers, auto_extend: bool
) -> None:
    """Nobody holds the handle any more: a ResourceWarning, no renewal, and the keys expire by
    themselves."""
    async with api.redlock(nodes.urls, ttl=0.6) as locks:
        lease = await locks.lock("orders", auto_extend=auto_extend).acquire()
        with pytest.warns(ResourceWarning, match="orders"):
            del lease
            gc.collect()
        assert await until(api, lambda: not servers.lock_keys())
        async with locks.lock("orders", timeout=10.0) as lease:
            assert lease.is_held()


async def test_an_ended_lease_is_dropped_in_silence(api: Api, nodes: Nodes) -> None:
    """Released, or expired before it was dropped: nothing to warn of."""
    async with api.redlock(nodes.urls, ttl=0.3) as locks:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lease = await locks.lock("orders").acquire()
            await lease.release()
            lease = await locks.lock("orders").acquire(timeout=5.0)
            await api.sleep(max(0.0, lease.valid_until - now()))
            del lease
            gc.collect()


async def test_an_ended_lease_runs_no_code_when_it_goes_away(api: Api, nodes: Nodes) -> None:
    """A Ctrl-C that strikes in a `__del__` or a weak reference's callback is printed and
    forgotten: have none to strike."""
    async with api.redlock(nodes.urls) as locks:
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(3)]
        for lease in leases:
            await lease.release()
        del lease
        ran: list[str] = []
        gc.disable()
        try:
            sys.setprofile(
                lambda frame, event, argument: (
                    ran.append(frame.f_code.co_name) if event == "call" else None
                )
            )
            leases.clear()
            sys.setprofile(None)
        finally:
            sys.setprofile(None)
            gc.enable()
        assert ran == []


async def test_release_is_recorded_before_it_is_sent(api: Api, nodes: Nodes) -> None:
    """From the record on the lease is not held, whatever the nodes answer."""
    seen: list[bool] = []
    journal = Journal(api)

    def watch(record: Any) -> None:
        journal(record)
        if isinstance(record, LeaseReleasing):
            seen.append(lease.is_held())

    async with api.redlock(nodes.urls, on_event=watch) as locks:
        lease = await locks.lock("orders").acquire()
        await lease.release()
    assert seen == [False]
