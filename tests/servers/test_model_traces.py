"""Counter-examples on real servers: a mutant of the clients succeeds there, a mutant of the
script meets the shipped one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chaos.model.catalogue import MUTANTS, Mutant
from chaos.model.memory import world as memory
from chaos.model.nodes import EXECUTE, EXPIRE, FORGET, RETURN
from chaos.model.protocol import Lock, Op
from chaos.model.state import BALLOT, NODES, Node, Request
from chaos.model.world import Change
from redlock.core.commands import MARKER_KEY, Command, Free, Take
from redlock.core.identity import Marker, Memory
from redlock.embedded import Nodes
from tests.model.explored import explored

LOCK, FENCE = "redlock:r", "redlock:r:fence"
UNIT = 1000.0
"""Seconds of one instant of the model's timelines."""

MODES = {Op.TAKE: "acquire", Op.EXTEND: "extend", Op.VERIFY: "verify"}
SCRIPT_RULES = ("strict", "top_up_checks_fence", "extension_never_shortens")


class Servers:
    """Three real nodes to which what a trace says is done."""

    def __init__(self, nodes: Nodes) -> None:
        self.clients: list[Any] = [nodes[place].client() for place in range(NODES)]
        self.markers = [""] * NODES
        for place in range(NODES):
            self.forget(place)
            self.admit(place, 0)

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            client.close()

    def forget(self, place: int) -> None:
        """The node loses everything."""
        self.clients[place].flushall()

    def admit(self, place: int, floor: int) -> None:
        """The node gets a marker, and votes."""
        info = self.clients[place].info()
        memory = Memory(info["run_id"], info["master_replid"])
        self.markers[place] = Marker(memory, NODES, 100 * UNIT, floor=floor).text()
        self.clients[place].set(MARKER_KEY, self.markers[place])

    def execute(self, place: int, request: Request) -> None:
        """The node runs the shipped script."""
        owner, token = str(request.owner), request.token
        command: Command = Free(LOCK, FENCE, owner, token, fence_ttl=0)
        if request.op is not Op.FREE:
            ttl = max(request.until, 1) * UNIT
            command = Take(LOCK, FENCE, owner, token, ttl=ttl, fence_ttl=0, mode=MODES[request.op])
        words = command.words(whole=True)
        self.clients[place].execute_command(
            *words, *([self.markers[place]] if command.marked else [])
        )

    def agrees(self, place: int, node: Node) -> bool:
        """Whether the real node remembers what the model's does; an instant that has passed
        tells nothing."""
        client = self.clients[place]
        value, left, fence = client.get(LOCK), client.pttl(LOCK), int(client.get(FENCE) or 0)
        lock = None
        if value is not None:
            owner, token = value.decode().split(":")
            known = node.lock is not None and node.lock.until
            lock = Lock(int(owner), int(token), round(left / UNIT / 1000) if known else 0)
        return (lock, fence) == (node.lock, node.fence)

    def follow(self, change: Change | memory.Change) -> bool:
        """Do what happens at a node; whether the node is then as the model says."""
        assert isinstance(change, Change)
        if change.place is None or change.happening is None:
            return True
        place, node, happening = change.place, change.nodes[change.place], change.happening
        if happening.kind == EXECUTE and happening.request is not None:
            self.execute(place, happening.request)
        elif happening.kind == EXPIRE:
            self.clients[place].delete(LOCK)
        elif happening.kind == FORGET:
            self.forget(place)
        if happening.kind == RETURN or (happening.kind == FORGET and node.waits is None):
            self.admit(place, node.floor)
        return self.agrees(place, node)


@pytest.fixture(scope="module")
def cluster_of_three() -> Iterator[Nodes]:
    """Three servers for this module."""
    with Nodes(NODES) as nodes:
        yield nodes


@pytest.fixture
def servers(cluster_of_three: Nodes) -> Iterator[Servers]:
    """The three servers, empty and marked."""
    servers = Servers(cluster_of_three)
    yield servers
    servers.close()


def weakens_the_script(mutant: Mutant) -> bool:
    return any(not getattr(mutant.configuration.rules, rule) for rule in SCRIPT_RULES)


OF_BALLOTS = [
    mutant
    for mutant in MUTANTS
    if mutant.configuration.protocol == BALLOT and not mutant.configuration.aborts
]


QUEUED = "turn-takes"
"""Its script grants where it says that it is another's turn, which no shipped queue does."""


@pytest.mark.parametrize(
    "mutant",
    [m for m in OF_BALLOTS if not weakens_the_script(m) and m.name != QUEUED],
    ids=lambda mutant: mutant.name,
)
def test_what_only_clients_can_prevent_happens_on_real_servers(
    mutant: Mutant, servers: Servers
) -> None:
    """The trace of a mutant whose script is the shipped one: after each step three real nodes
    remember what the model's do."""
    trace = explored(mutant.configuration).trace
    assert trace and all(servers.follow(change) for change in trace)


@pytest.mark.parametrize(
    "mutant", [m for m in OF_BALLOTS if weakens_the_script(m)], ids=lambda mutant: mutant.name
)
def test_what_the_script_prevents_does_not_happen_on_real_servers(
    mutant: Mutant, servers: Servers
) -> None:
    """The trace of a mutant with a weaker script: at some step the shipped script does something
    else."""
    trace = explored(mutant.configuration).trace
    assert trace and not all(servers.follow(change) for change in trace)
