"""A node that answers a release with an error keeps the lock: the release stays owed, and is
brought again until it is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from redlock.embedded import Node, Nodes
from redlock.transport.clock import now
from tests.contract.api import Api, Servers, paused, until

RELEASES = 20


@pytest.fixture
def three_nodes() -> Iterator[Nodes]:
    """Three servers of this test's own, to be changed at run time."""
    with Nodes(3, options={"busy-reply-threshold": "1"}) as nodes:
        yield nodes


@contextlib.contextmanager
def without_replicas(node: Node) -> Iterator[None]:
    """NOREPLICAS for every script that writes."""
    with node.client() as client:
        client.config_set("min-replicas-to-write", 1)
        yield
        client.config_set("min-replicas-to-write", 0)


@contextlib.contextmanager
def in_a_script(node: Node) -> Iterator[None]:
    """BUSY for everything: a script runs and does not end."""
    with (
        node.client() as client,
        node.client() as other,
        contextlib.ExitStack() as stack,
    ):
        endless = other.connection_pool.make_connection()
        stack.callback(endless.disconnect)
        endless.send_command("EVAL", "while true do end", 0)
        with pytest.raises(redis.ResponseError, match="BUSY"):
            while True:
                client.ping()
        yield
        client.script_kill()
        while True:
            with contextlib.suppress(redis.ResponseError):  # It ends a moment later.
                client.ping()
                break


@contextlib.contextmanager
def without_rights(node: Node) -> Iterator[None]:
    """NOPERM for scripts."""
    with node.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        yield
        client.execute_command("ACL", "SETUSER", "default", "+@all")


def refusals(client: redis.Redis) -> int:
    """How often scripts were answered with NOREPLICAS or NOPERM so far."""
    errors: Any = client.info("errorstats")
    return sum(
        int(errors.get(f"errorstat_{word}", {"count": 0})["count"])
        for word in ("NOREPLICAS", "NOPERM")
    )


@pytest.mark.parametrize("trouble", [without_replicas, in_a_script, without_rights])
@pytest.mark.uvloop
async def test_a_release_that_is_refused_is_brought_again(
    api: Api, three_nodes: Nodes, trouble: Callable[[Node], contextlib.AbstractContextManager[None]]
) -> None:
    """NOREPLICAS, BUSY, NOPERM: the majority has it, and the third node gets it as soon as it
    takes it; nobody calls again."""
    with Servers(three_nodes) as servers:
        async with api.redlock(three_nodes.urls, ttl=50.0) as locks:
            lease = await locks.lock("orders").acquire()
            assert await until(api, lambda: len(servers.lock_keys()) == 3)
            with trouble(three_nodes[0]):
                assert await lease.release()
                assert trouble is in_a_script or await until(
                    api, lambda: refusals(servers.clients[0]) > 3
                )
            assert await until(api, lambda: not servers.lock_keys())


@pytest.mark.uvloop
async def test_a_node_that_refuses_releases_is_not_kept_busy(api: Api, three_nodes: Nodes) -> None:
    """They are brought with growing pauses, on one connection that stays, and other locks go on."""
    with Servers(three_nodes) as servers:
        watched = servers.clients[0]
        async with api.redlock(three_nodes.urls, ttl=50.0) as locks:
            leases = [await locks.lock(f"orders:{number}").acquire() for number in range(RELEASES)]
            assert await until(api, lambda: len(servers.lock_keys().get(0, ())) == RELEASES)
            with without_replicas(three_nodes[0]):
                connections, began_at = watched.info("stats")["total_connections_received"], now()
                for lease in leases:
                    assert await lease.release()
                async with locks.lock("others", timeout=0):
                    pass
                assert await until(api, lambda: refusals(watched) > RELEASES * 6)
                # The pauses double to a second: six or seven until then, and from then on one each
                # second.
                assert refusals(watched) <= RELEASES * (12 + 2 * (now() - began_at))
                assert watched.info("stats")["total_connections_received"] <= connections + 2
            assert await until(api, lambda: not servers.lock_keys())


@pytest.mark.uvloop
async def test_a_take_is_not_sent_again_behind_its_release(api: Api, three_nodes: Nodes) -> None:
    """A server that stood still, and had lost the scripts: the text of the release is executed,
    and that of the TAKE is not."""
    node = three_nodes[0]
    with Servers(three_nodes) as servers:
        watched = servers.clients[0]
        async with api.redlock(three_nodes.urls, ttl=50.0, node_timeout=10.0) as locks:
            async with locks.lock("warm"):
                pass
            assert await until(api, lambda: not servers.lock_keys())
            watched.script_flush()
            watched.config_resetstat()
            with paused([node]):
                lease = await locks.lock("orders").acquire()
                assert await lease.release()
            assert await until(api, lambda: "cmdstat_eval" in watched.info("commandstats"))
        assert watched.info("commandstats")["cmdstat_eval"]["calls"] == 1
        assert not servers.lock_keys()
