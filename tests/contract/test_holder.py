"""What a holder says of itself, and a lock that is kept from others for a while after its
release."""

from __future__ import annotations

import os

import pytest

from redlock import ConfigurationError, LockContended
from redlock.embedded import Nodes
from tests.contract.api import Api, Servers

pytestmark = pytest.mark.uvloop


async def test_status_and_errors_name_who_holds_it(api: Api, nodes: Nodes) -> None:
    """Host and process, or what the coordinator was told to say; a candidate, its name. Never
    enough to release the lock."""
    async with (
        api.redlock(nodes.urls, holder=None) as locks,
        api.redlock(nodes.urls, holder="nightly job: 7") as named,
    ):
        for holding, said in ((locks, f":{os.getpid()}"), (named, "nightly job: 7")):
            async with holding.lock("orders") as lease:
                status = await locks.status("orders")
                assert status.held_by is not None
                assert status.held_by.endswith(said)
                with pytest.raises(LockContended) as refused:
                    async with locks.lock("orders", timeout=0):
                        pass
                assert said in str(refused.value)
                assert lease.owner not in repr(status) + str(refused.value)
                await lease.extend()
        async with locks.election("orders", candidate='the "first"').campaign():
            assert (await locks.status("orders")).held_by == 'the "first"'


async def test_who_says_nothing_is_shown_by_its_owner(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """An empty text leaves the lock as a classic client writes it: owner and token."""
    async with api.redlock(nodes.urls, holder="") as locks, locks.lock("orders") as lease:
        assert set(servers.holders("orders")) <= {f"{lease.owner}:{lease.fencing_token}", None}
        assert (await locks.status("orders")).held_by is None


@pytest.mark.parametrize("holder", ["a\nb", "x" * 97, 7, "\udc80"])
def test_what_cannot_stand_in_a_message_is_refused(api: Api, nodes: Nodes, holder: object) -> None:
    """At once, by the constructor."""
    with pytest.raises(ConfigurationError, match="holder"):
        api.module.Redlock(nodes.urls, holder=holder)


async def test_a_lock_is_kept_for_min_hold(api: Api, nodes: Nodes, servers: Servers) -> None:
    """A release in time gives it back at that instant, by the nodes' own clocks, and no release
    that comes again lengthens that; one that comes later gives it back at once."""
    async with api.redlock(nodes.urls, ttl=20.0) as locks:
        lease = await locks.lock("orders", min_hold=10.0).acquire()
        assert await lease.release() is True
        left = [client.pttl("redlock:orders") for client in servers.clients]
        assert sorted(left)[2] > 5000
        assert max(left) <= 10_000
        assert await locks.lock("orders").acquire(blocking=False) is None
        assert not lease.is_held()
        kept = await locks.lock("reports", min_hold=0.05).acquire()
        for client in servers.clients:  # Whoever did that; its release would end it all the same.
            client.persist("redlock:reports")
        assert await kept.release() is True
        async with locks.lock("reports", timeout=5.0):
            pass
        soon = await locks.lock("invoices", min_hold=0.001).acquire()
        await api.sleep(0.01)
        assert await soon.release() is True
        async with locks.lock("invoices", timeout=0):
            pass


@pytest.mark.parametrize(
    "asked", [{"min_hold": 0}, {"min_hold": 10.0}, {"min_hold": 2.0, "max_hold": 1.0}]
)
async def test_a_min_hold_that_no_lock_can_keep_is_refused(
    api: Api, nodes: Nodes, asked: dict[str, float]
) -> None:
    """It is below the ttl, and below max_hold: what expires is anybody's."""
    async with api.redlock(nodes.urls) as locks:
        with pytest.raises(ConfigurationError, match="min_hold"):
            locks.lock("orders", ttl=10.0, **asked)
