"""`status` and `nodes`: what a majority says of a lock, and what admission says of the nodes."""

from __future__ import annotations

import pytest

import redlock
from redlock.embedded import Nodes
from redlock.errors import NodeUnreachable
from tests.contract.api import Api, Servers, majority, paused, until

pytestmark = pytest.mark.uvloop

PATIENT: dict[str, float] = {"ttl": 20.0, "node_timeout": 5.0}
"""A report is one look, and a busy machine's nodes are to be in it."""


async def test_status_of_a_free_lock(api: Api, nodes: Nodes) -> None:
    """Not held, nobody's, and one answer for each node, in the order of the list."""
    async with api.redlock(nodes.urls, **PATIENT) as locks:
        status = await locks.status("orders")
        assert isinstance(status, redlock.ResourceStatus)
        assert (status.resource, status.held) == ("orders", False)
        assert (status.holder, status.fencing_token, status.ttl_left) == (None, None, None)
        assert [vote.node for vote in status.votes] == nodes.urls
        assert all(vote.error is None for vote in status.votes)


async def test_status_of_a_held_lock(api: Api, nodes: Nodes) -> None:
    """Held, with the holder's token, the beginning of its owner and the time left; the same from
    another coordinator."""
    both = api.redlock(nodes.urls, **PATIENT), api.redlock(nodes.urls, **PATIENT)
    async with both[0] as locks, both[1] as others, locks.lock("orders") as lease:
        for asked in (locks, others):
            status = await asked.status("orders")
            assert status.held is True
            assert status.fencing_token == lease.fencing_token
            assert lease.owner.startswith(status.holder.rstrip("."))
            assert lease.owner not in repr(status), (
                "the whole owner would let a reader release the lock"
            )
            assert 10.0 < status.ttl_left <= 20.0
            assert len(status.votes) == 5
        assert (await locks.status("others")).held is False
    async with api.redlock(nodes.urls, **PATIENT) as locks:
        assert (await locks.status("orders")).held is False


async def test_status_tells_when_the_majority_ends(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Two nodes keep the lock for longer, and one for less: three of five hold it until the
    third longest is over."""
    async with api.redlock(nodes.urls, **PATIENT) as locks, locks.lock("orders"):
        assert await until(api, lambda: len(servers.lock_keys()) == 5)
        for client, ttl in zip(servers.clients, (50_000, 50_000, 5_000), strict=False):
            client.pexpire("redlock:orders", ttl)
        assert 10.0 < (await locks.status("orders")).ttl_left <= 20.0


async def test_status_of_a_foreign_lock(api: Api, nodes: Nodes, servers: Servers) -> None:
    """A classic client's value on a majority: held, without a token; without an expiry: no time
    left is told."""
    for client in servers.clients[:3]:
        client.set("redlock:orders", "somebody else")
    async with api.redlock(nodes.urls, **PATIENT) as locks:
        status = await locks.status("orders")
        assert (status.held, status.fencing_token, status.ttl_left) == (True, None, None)
        assert status.holder.startswith("somebody")
        servers.clients[0].delete("redlock:orders")
        assert (await locks.status("orders")).held is False, "two of five hold it, three are free"


async def test_status_without_a_majority_is_unknown(api: Api, nodes: Nodes) -> None:
    """Neither held nor free: None, and the silent nodes' votes say why."""
    async with api.redlock(nodes.urls, ttl=4.0) as locks, locks.lock("orders"):
        with paused(majority(nodes)):
            status = await locks.status("orders")
        assert status.held is None
        assert (status.holder, status.fencing_token, status.ttl_left) == (None, None, None)
        assert all(isinstance(vote.error, NodeUnreachable) for vote in status.votes[:3])
        assert all(vote.error is None for vote in status.votes[3:])


async def test_nodes_tells_what_admission_knows(api: Api, nodes: Nodes, servers: Servers) -> None:
    """One report per node, in the order of the list: identity, promises, no quarantine, round
    trip and clock."""
    async with api.redlock(nodes.urls, **PATIENT) as locks:
        reports = await locks.nodes()
        assert [report.node for report in reports] == nodes.urls
        for report, client in zip(reports, servers.clients, strict=True):
            assert isinstance(report, redlock.NodeReport)
            assert (report.votes, report.reason) == (True, "admitted")
            assert (report.role, report.policy, report.max_ttl, report.durable) == (
                "master",
                "noeviction",
                60.0,
                False,
            )
            assert report.run_id == client.info("server")["run_id"]
            assert report.version
            assert report.uptime is not None and report.uptime >= 0.0
            assert report.cluster is None
            assert not report.quarantine_left
            assert report.round_trip is not None and 0.0 < report.round_trip < 5.0
            assert report.clock_offset is not None and abs(report.clock_offset) < 5.0


async def test_nodes_tells_of_a_silent_node(api: Api, nodes: Nodes) -> None:
    """It does not vote, and the reason says that it did not answer; before and after a first
    use."""
    async with api.redlock(nodes.urls, ttl=4.0) as locks:
        for _ in range(2):
            with paused([nodes[1]]):
                reports = await locks.nodes()
            assert [report.votes for report in reports] == [True, False, True, True, True]
            assert "answer" in reports[1].reason or "connect" in reports[1].reason
            assert reports[1].round_trip is None
            async with locks.lock("orders", timeout=10.0):
                pass


async def test_nodes_tells_of_a_quarantine(api: Api, own_nodes: Nodes) -> None:
    """A node that restarted and forgot does not vote, and says for how long."""
    async with api.redlock(own_nodes.urls, **PATIENT) as locks:
        async with locks.lock("orders"):
            pass
        own_nodes[2].restart()
        async with api.redlock(own_nodes.urls, **PATIENT) as others:
            report = (await others.nodes())[2]
            assert report.votes is False
            assert "quarantine" in report.reason
            assert 50.0 < report.quarantine_left < 70.0
            async with others.lock("orders", timeout=10.0) as lease:
                assert lease.is_held(), "four of five vote"
