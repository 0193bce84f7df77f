"""What the observer says of a node is what admission would."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import redis

from chaos.history import NodeSeen, Record
from chaos.live.backend import Setup, side_client
from chaos.live.observer import Observer
from chaos.live.processes import Processes
from redlock.core.commands import MARKER_KEY, Look
from redlock.core.identity import Identity, Marker

PATIENCE = 20.0


def wait_for(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def mark(client: redis.Redis, marker: str) -> None:
    client.set(MARKER_KEY, marker)


def marker_for(client: redis.Redis) -> str:
    look = Look()
    identity = Identity.parse(*look.read(client.execute_command(*look.words(whole=True))))
    return Marker(identity.memory, 2, 60.0, since_us=1).text()


def test_a_promoted_node_votes_with_a_marker_of_its_own_memory() -> None:
    """That its process is the one which the marker names is not enough: it was a replica since."""
    seen: list[Record] = []

    def state() -> str:
        last = [record.state for record in seen if isinstance(record, NodeSeen)]
        return last[-1] if last else ""

    with closing(Processes()) as backend:
        backend.fresh(Setup(count=2))
        master, node = backend.nodes
        with side_client(node) as client, closing(Observer([node], "redlock:r", seen.append)):
            before = marker_for(client)
            wait_for(lambda: state() == "quarantined")
            mark(client, before)
            wait_for(lambda: state() == "up")
            client.replicaof(*master.address)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
            wait_for(lambda: state() == "quarantined")
            client.replicaof("NO", "ONE")
            mark(client, before)
            time.sleep(0.2)
            assert state() == "quarantined"
            mark(client, marker_for(client))
            wait_for(lambda: state() == "up")
