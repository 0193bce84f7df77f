"""Keeps watch over the queue while a run is under way: who waits is served soon, in turn, and
leaves nothing behind.

Looks at nodes and clients many times a second, from outside. A free lock is judged only where
nothing keeps clients from nodes; what costs messages, or the lease of a place, has its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chaos.sim.queue import read_place
from redlock.core.commands import QUEUE_SUFFIX
from redlock.core.line import Place
from redlock.core.standing import State

if TYPE_CHECKING:
    from chaos.sim.client import SimClient
    from chaos.sim.node import SimNode
    from chaos.sim.stage import Stage

__all__ = ["Vigil"]

EVERY = 0.01
SETTLED = 10.0
"""Seconds from the end of what kept clients from nodes until the latter all vote again."""
TOLD_WITHIN, LOOKS_WITHIN = 0.05, 0.3
"""Seconds that a lock may be free while somebody waits, where messages arrive, and where only
looks can tell: they are up to 0.2 s apart, and then there are the trips through the network."""
LEASE = 1.0
"""Seconds for which a dead place may stand in front."""
STANDS_AFTER = 0.3
"""Seconds after which whoever is first in its process stands in the queues: it looks more often."""
LEFT_MAX_US = 1_050_000


class Vigil:
    """Over the run of *stage*."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._world = stage.world
        self._free_since: dict[str, float] = {}
        self._first_since: dict[str, float] = {}
        """By place, since when it has been the first of its process."""
        self._stood_since: dict[str, float] = {}
        """By place, since when it has stood in a line."""
        self._granted: set[str] = set()
        self._disturbed_at = -math.inf
        self.longest = 0.0
        """Seconds that a lock was free while somebody waited, as far as that was judged."""

    def begin(self) -> None:
        """From now on."""
        self._world.vigil = self
        self._look()

    # What is judged

    @property
    def _promises(self) -> bool:
        """Of a cluster that is being founded nobody asks for a vote, nor enters a queue."""
        plan, world = self._stage.plan, self._world
        kept, founded = plan.assumptions, plan.marked or world.now > SETTLED
        return kept.timing and kept.memory and founded and not world.tail_share

    @property
    def _healthy(self) -> bool:
        """Whether nothing was done to anybody so far, and all wait in line."""
        return (
            self._promises
            and self._world.broken_at == self._disturbed_at == -math.inf
            and all(client.policy.fair for client in self._stage.clients.values())
        )

    @property
    def _in_order(self) -> bool:
        """Whether all wait in line, and nothing was done to their places."""
        world = self._world
        return (
            self._promises
            and world.hurt_at == self._disturbed_at == -math.inf
            and not world.shoved
            and world.now > world.eased_at + LEASE
            and all(client.policy.fair for client in self._stage.clients.values())
        )

    def _since(self) -> float:
        """From when on a free lock counts; infinity: not now."""
        world = self._world
        if not self._promises or world.hurting:
            return math.inf
        eased_at = max(world.eased_at, self._disturbed_at)
        founded = 0.0 if self._stage.plan.marked else SETTLED
        return max(founded, world.hurt_at + SETTLED, eased_at + LEASE)

    # Looking

    def _look(self) -> None:
        world, stage = self._world, self._stage
        heals = stage.plan.healed_at - EVERY <= world.now <= stage.plan.healed_at + EVERY
        if heals or any(client.paused_until > world.now for client in stage.clients.values()):
            self._disturbed_at = world.now  # A healing may cost connections.
        firsts = list(self._firsts())
        names = {place.name for _, place in firsts}
        self._first_since = {name: self._first_since.get(name, world.now) for name in sorted(names)}
        self._stood_since = {
            place.name: self._stood_since.get(place.name, world.now)
            for client in stage.clients.values()
            for line in client.cluster.lines._lines.values()
            for place in line.places
        }
        for key in ("redlock:r", "redlock:s"):
            self._judge_free(key, firsts)
        for node in world.nodes:
            self._judge_left(node)
        done = stage.plan.workload and not names and all(each.finished for each in stage.actors)
        if world.now < stage.plan.ends_at and not (done and self._idle_since_healing()):
            world.at(world.now + EVERY, self._look)

    def _idle_since_healing(self) -> bool:
        now = self._world.now
        return now > self._stage.plan.healed_at and not any(
            node.queues.places(key + QUEUE_SUFFIX, node.wall_us(now))
            for node in self._world.nodes
            for key in ("redlock:r", "redlock:s")
        )

    def _firsts(self) -> Iterator[tuple[SimClient, Place]]:
        """Of each process that is awake, who is first in line for each lock."""
        for client in self._stage.clients.values():
            if not client.gone and client.paused_until <= self._world.now:
                for line in client.cluster.lines._lines.values():
                    if line.places:  # Or all of them were taken for gone.
                        yield client, line.places[0]

    def _judge_free(self, key: str, firsts: list[tuple[SimClient, Place]]) -> None:
        world = self._world
        waits = any(place.line.key == key and _may_vote(client) for client, place in firsts)
        free = sum(self._is_free(node, key) for node in world.nodes)
        if not waits or 2 * free <= len(world.nodes):
            self._free_since.pop(key, None)
            return
        since = self._free_since.setdefault(key, world.now)
        free_for = world.now - max(since, self._since())
        self.longest = max(self.longest, free_for)
        if free_for > (TOLD_WITHIN if self._healthy else LOOKS_WITHIN):
            self._wrong("Q2: a free lock is taken", f"{key} was free for {free_for:.3f} s")
            self._free_since[key] = math.inf

    def _is_free(self, node: SimNode, key: str) -> bool:
        """Whether nobody has it there, or a try under way of somebody who is there."""
        world = self._world
        value = node._get(key, node.wall_us(world.now) // 1000)
        if value is None:
            return True
        owner = value.partition(":")[0]
        client = self._stage.clients.get(world.owners.get(owner, ""))
        return (
            client is not None
            and not client.gone
            and owner not in self._granted
            and client.paused_until <= world.now
        )

    def _judge_left(self, node: SimNode) -> None:
        now_us = node.wall_us(self._world.now)
        for key, entered_us in list(node.queues.entered_us.items()):
            if now_us - entered_us > LEFT_MAX_US and key not in node.queues.planted:
                if node.queues.places(key, now_us):
                    text = f"n{node.index} still has {key}, long after anybody entered it"
                    self._wrong("Q4: nothing of a queue is left", text)
                del node.queues.entered_us[key]

    # A grant

    def granted(self, client: str, resource: str, owner: str) -> None:
        """Whether it was its turn."""
        key = f"redlock:{resource}"
        self._granted.add(owner)
        self._free_since.pop(key, None)
        if not self._in_order:
            return
        texts = [node.places[owner] for node in self._world.nodes if owner in node.places]
        name, ticket, _ = read_place(texts[0] if texts else "")
        line = self._stage.clients[client].cluster.lines._lines.get(key)
        for place in line.places if line is not None and name else ():
            # Nobody is called back who was asking the nodes when it came.
            stood = self._stood_since.get(place.name, math.inf) <= self._world.now - STANDS_AFTER
            if stood and place.ticket < ticket:
                text = f"{name} went before {place.name}, whose ticket is older"
                self._wrong("Q3: everybody has their turn", text)
        for other, first in self._firsts():
            if first.line.key != key or first.name == name:
                continue
            # Who has come just now stands in no queue yet, or finds one before it who asks already.
            if self._first_since.get(first.name, math.inf) > self._world.now - STANDS_AFTER:
                continue
            if other.name == client and name:
                text = f"{name} went before {first.name}, who came first there"
            elif name and (ticket, name) < (first.ticket, first.name):
                continue
            else:
                text = f"{client} went before {first.name} of {other.name}"
            self._wrong("Q3: everybody has their turn", text)

    def _wrong(self, name: str, text: str) -> None:
        self._world.wrongs.append((self._world.now, name, text))


def _may_vote(client: SimClient) -> bool:
    """Whether a majority votes for *client*, by all it knows: not the nodes that forgot their
    locks, which it may have found out just now."""
    admission, now = client.cluster.admission, client.clock()
    nodes = range(len(client.cluster.names))
    voting = sum(admission.standing(node, now).state is State.ADMITTED for node in nodes)
    return client.cluster.met and 2 * voting > len(client.cluster.names)
