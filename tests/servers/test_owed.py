"""A release that a node missed is brought to it when it is back, though nobody calls again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Node, Nodes


@pytest.fixture
def durable_nodes() -> Iterator[Nodes]:
    """Three nodes that keep their data over a kill."""
    with Nodes(3, durable=True) as nodes:
        yield nodes


def wait_until_free(node: Node) -> None:
    deadline = time.monotonic() + 10.0
    with node.client() as client:
        while client.exists("redlock:owed"):
            assert time.monotonic() < deadline, "the node still holds the lock"
            time.sleep(0.01)


def test_a_node_that_was_down_at_the_release_gets_it_when_it_is_back(durable_nodes: Nodes) -> None:
    """The dial had failed before the release, so the release only noted a debt: somebody must go
    and pay it."""
    with redlock.Redlock(durable_nodes.urls, ttl=30.0) as locks:
        lease = locks.lock("owed").acquire()
        assert lease is not None
        durable_nodes[0].kill()
        lease.verify()
        lease.verify()
        assert lease.release()
        durable_nodes[0].start()
        wait_until_free(durable_nodes[0])


def test_the_same_in_asyncio(durable_nodes: Nodes) -> None:
    """No task is left, and the loop's own timer brings it."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(durable_nodes.urls, ttl=30.0) as locks:
            lease = await locks.lock("owed").acquire()
            assert lease is not None
            durable_nodes[0].kill()
            await lease.verify()
            await lease.verify()
            assert await lease.release()
            durable_nodes[0].start()
            await asyncio.to_thread(wait_until_free, durable_nodes[0])

    asyncio.run(run())
