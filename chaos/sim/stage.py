"""Plays a plan: sets up its cluster and clients, does its steps at their time, and judges what
came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from chaos.checker import Violation, check
from chaos.history import Broken, Called, Record, Refused, Seen
from chaos.sim.client import SimClient
from chaos.sim.elect import SimCandidate, Turns
from chaos.sim.faults import FAULTS
from chaos.sim.plan import Plan, Player
from chaos.sim.vigil import Vigil
from chaos.sim.workloads import QUIET, WORKLOADS, Actor, Store, errand, last_word, orphan
from chaos.sim.world import World
from redlock.core import events
from redlock.core.commands import MARKER_KEY, to_ms
from redlock.core.identity import Marker, Memory
from redlock.core.policy import Policy

__all__ = ["COVERED", "Outcome", "Stage", "play"]

COVERED = ("second rounds", "split votes", "late grants", "top-ups", "quarantines", "jeopardies")
"""What must have happened somewhere, or a search was worth nothing."""

READ_AFTER = 5.0
"""Seconds from the healing until every set has been used once more: nobody reads one that is
idle."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    plan: Plan
    history: list[Record]
    violations: list[Violation]
    covered: Counter[str]
    steps: int
    ended_at: float

    @property
    def grants(self) -> int:
        return self.covered["grants"]


def play(plan: Plan) -> Outcome:
    """The run of *plan*: the same history every time, on any machine."""
    stage = Stage(plan)
    stage.begin()
    return stage.end()


class Stage:
    """A run under way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = world = World(plan.seed, plan.nodes, memory=plan.assumptions.memory)
        world.delay_mean, world.tail_share, world.tail, world.lossy = (
            plan.delay,
            plan.tail_share,
            plan.tail,
            plan.lossy,
        )
        for node, rate in zip(world.nodes, plan.rates, strict=False):
            node.set_rate(rate, 0.0)
        for node, offset in zip(world.nodes, plan.offsets, strict=False):
            node.jump(offset)
        for node in world.nodes:
            node.started_at = -plan.uptime
            if plan.marked:
                marker = Marker(
                    Memory(node.run_id, node.replication_id),
                    plan.nodes,
                    plan.max_ttl,
                    durable=plan.durable,
                    never_replicas=plan.never_replicas,
                    cluster=plan.cluster,
                    since_us=node.wall_us(0.0),
                )
                node.data[MARKER_KEY] = (_before(marker) if plan.before else marker.text(), None)
                node.save()
        self.store = Store(world)
        self.clients: dict[str, SimClient] = {}
        self.actors: list[Actor] = []
        self.returned = False
        """Whether an older memory came back in a run that promises memories."""
        self.vigil = Vigil(self)
        self._open: dict[str, Callable[[], None]] = {}
        for player in plan.players:
            self._enter(player)

    def _enter(self, player: Player) -> None:
        plan = self.plan
        policy = Policy(
            ttl=player.ttl or plan.ttl,
            max_ttl=player.max_ttl if plan.marked else plan.max_ttl,
            durable=player.durable,
            repair_missing_ttl=plan.repair,
            retry_delay=plan.retry_delay,
            fair=player.fair,
        )
        nodes = range(plan.nodes) if player.nodes is None else player.nodes
        client = SimClient(
            player.name,
            self.world,
            policy,
            nodes,
            mode=plan.mode,
            seed=plan.seed,
            skew=player.skew,
            sets=player.sets,
        )
        if player.quiet:
            client.cluster.emit = None
        client.rate = player.rate
        self.clients[player.name] = client
        self.actors += [
            Actor(client, self.store, f"{plan.seed}/{place}") for place in range(player.actors)
        ]

    def actors_of(self, client: str) -> list[Actor]:
        """The actors of one client."""
        return [actor for actor in self.actors if actor.client.name == client]

    # Playing

    def begin(self) -> None:
        """Put everything on the calendar."""
        world, plan = self.world, self.plan
        for at, word, *arguments in plan.steps:
            world.at(at, self.do, word, *arguments)
        world.at(plan.healed_at, self.heal)
        self.vigil.begin()
        if plan.workload:
            for actor in self.actors:
                actor.begin(WORKLOADS[plan.workload](actor, plan.rounds))

    def do(self, word: str, *arguments: Any) -> None:
        """Do one step now."""
        FAULTS[word](self, *arguments)

    def heal(self) -> None:
        """Everything works again; somebody must get the lock now."""
        for fault in list(self._open):
            self._heal(fault)
        self.world.heal_all()
        self.world.note("", "Healed", "all is healed")
        for actor in self.actors:
            actor.healed = True
        for client in self.clients.values():
            client.stay_awake()
            self.world.at(self.world.now + READ_AFTER, client.when_awake, client.use_all_sets)
        fit = [
            actor
            for actor in self.actors
            if not actor.client.gone and not actor.brief and actor.client.name != "x"
        ]
        # Clocks far apart may fit no token for a while.
        promised = self.plan.assumptions.timing and self.plan.assumptions.memory
        candidates = [each for client in self.clients.values() for each in client.candidates]
        if candidates:
            standing = [each for each in candidates if isinstance(each, SimCandidate)]
            Turns(self.world, standing, promised=promised)
        elif self.plan.workload and fit and promised:
            fit[self.plan.seed % len(fit)].last = last_word

    def end(self) -> Outcome:
        """Let the run come to its end, and judge it."""
        world, plan = self.world, self.plan
        world.run(plan.ends_at)
        violations = self.judge()
        return Outcome(plan, world.history, violations, self._covered(), world.steps, world.now)

    def judge(self) -> list[Violation]:
        """What is wrong so far, but for what must only have happened by the end."""
        world = self.world
        found = check(world.history, self.plan.assumptions, world.now)
        wrongs = [wrong for node in world.nodes for wrong in node.wrongs] + world.wrongs
        found += [Violation(name, at, text) for at, name, text in wrongs]
        found += [
            Violation(name, at, text) for actor in self.actors for at, name, text in actor.wrongs
        ]
        found += [
            Violation(name, at, text)
            for client in self.clients.values()
            for at, name, text in client.wrongs
        ]
        if world.now >= self.plan.ends_at:
            found += self._left_behind() + self._unfinished() + self._unreached()
        return sorted(found, key=lambda violation: violation.at)

    def may_forget(self, node: int) -> bool:
        """Whether *node* may lose its marker too, in a run that keeps to what was promised.

        A client that has met no node of a cluster takes it for new where no node ever had a marker.
        Another one never does.
        """
        if not self.plan.assumptions.memory:
            return True
        unmarked = {other.index for other in self.world.nodes if not other.was_marked} | {node}
        new = [
            client.nodes
            for client in self.clients.values()
            if not client.gone and not client.acquainted
        ]
        return len(unmarked) < self.plan.nodes and not any(
            unmarked.issuperset(nodes) for nodes in new
        )

    def may_copy(self, master: int, node: int) -> bool:
        """Whether *node* may get the data of *master*, and lose its own."""
        return self.world.nodes[master].up and (
            self.world.nodes[master].marked or self.may_forget(node)
        )

    def may_return(self, node: int) -> bool:
        """Whether an older server or older data may come back behind the name of *node*.

        Who never met the newer memory cannot know, so it is promised only where everybody did; and
        nobody new may come then, until those who know have seen to it.
        """
        if not self.plan.assumptions.memory:
            return True
        clients = [client for client in self.clients.values() if not client.gone]
        if not all(client.knows(node) for client in clients):
            return False
        self.returned = True
        return True

    def enter(self, name: str, timeout: float) -> None:
        """A client comes, tries to get the lock, and is closed."""
        known = sum(client.name.startswith(f"{name}-") for client in self.clients.values())
        unmarked = sum(not node.was_marked for node in self.world.nodes)
        if self.returned or (
            self.plan.assumptions.memory and self.plan.marked and unmarked == self.plan.nodes
        ):
            return
        player = Player(f"{name}-{known}")
        self._enter(player)
        actor = self.actors_of(player.name)[0]
        actor.brief = True
        actor.begin(errand(actor, timeout))

    def fork(self, name: str) -> None:
        """A client forks: the child has its own actor, who is handed the parent's leases."""
        parents = self.actors_of(name)
        unmarked = sum(not node.was_marked for node in self.world.nodes)
        if (
            parents[0].client.gone
            or self.returned
            or (self.plan.assumptions.memory and 2 * unmarked > self.plan.nodes)
        ):
            return
        client, holdings = parents[0].client.fork(
            f"{name}f", [holding for actor in parents for holding in actor.held]
        )
        if client.name in self.clients:
            return
        self.clients[client.name] = client
        actor = Actor(client, self.store, f"{self.plan.seed}/child")
        self.actors.append(actor)
        actor.begin(orphan(actor, holdings))

    # Faults

    def lasting(
        self,
        kind: str,
        what: str,
        lasts: float,
        heal: Callable[[], None],
        nodes: Iterable[int] = (),
        clients: Iterable[str] = (),
    ) -> None:
        """Note a fault that ends by itself after *lasts* seconds, by *heal*."""
        fault = self.world.broken(kind, what, nodes, clients)
        self._open[fault] = heal
        self.world.at(self.world.now + lasts, self._heal, fault)

    def blip(
        self, kind: str, what: str, nodes: Iterable[int] = (), clients: Iterable[str] = ()
    ) -> None:
        """Note a fault of a moment."""
        self.world.healed(self.world.broken(kind, what, nodes, clients))

    def _heal(self, fault: str) -> None:
        heal = self._open.pop(fault, None)
        if heal is not None:
            heal()
            self.world.healed(fault)

    # Judging

    def _left_behind(self) -> list[Violation]:
        """Asked of the nodes: every lock that was taken was given back, and none lives on."""
        world = self.world
        kept = {owner for actor in self.actors for owner in actor.kept}
        dead = {client.name for client in self.clients.values() if client.gone}
        misled = {(client.name, node) for client in self.clients.values() for node in client.misled}
        asked: dict[str, str] = {}
        for record in world.history:
            if isinstance(record, Seen) and isinstance(record.event, events.TryStarted):
                asked[record.event.owner] = record.client
        found = []
        for node in world.nodes:
            # What keeps a late TAKE out is the fence, which a node that forgets unseen has lost.
            for owner, line in node.orphans.items() if self.plan.assumptions.memory else ():
                # With threads a renewal goes by a set of its own, where no release follows it: one
                # that is late may find an older lock gone that the release had to leave alone.
                renewal = line.way == 0 and self.clients[line.client].sets.threads
                if (
                    owner not in kept
                    and not renewal
                    and not (line.closed_by_client or line.closed_by_node)
                    and asked.get(owner) not in dead
                ):
                    text = (
                        f"n{node.index} was taken by {owner[:8]} behind its release, by a"
                        " connection that was never lost"
                    )
                    found.append(Violation("R4: everything is given back", world.now, text))
            for owner in node.taken:
                who = asked.get(owner)
                if (
                    owner not in node.freed
                    and owner not in kept
                    and who not in dead
                    and (who, node.index) not in misled
                ):
                    text = f"n{node.index} was never freed by {owner[:8]}"
                    found.append(Violation("R4: everything is given back", world.now, text))
            now_ms = node.wall_us(world.now) // 1000
            for key in ("redlock:r", "redlock:s"):
                if node._get(key, now_ms) not in (None, "somebody else"):
                    text = (
                        f"n{node.index} still has {key}, {world.now - self.plan.healed_at:.0f} s"
                        " after all was healed"
                    )
                    found.append(Violation("I11: every lock expires", world.now, text))
        return found

    def _unreached(self) -> list[Violation]:
        """Who asked long after the healing, and got no majority of answers."""
        if not (self.plan.assumptions.timing and self.plan.assumptions.memory):
            return []
        since = self.plan.healed_at + QUIET
        return [
            Violation(
                "I15: the nodes answer after healing",
                record.at,
                f"{record.client} was told that no majority answered",
            )
            for record in self.world.history
            if type(record) is Called
            and record.call == "acquire"
            and record.outcome == "unavailable"
            if record.at - record.took >= since
            and record.client != "x"
            and not self.clients[record.client].dead
        ]

    def _unfinished(self) -> list[Violation]:
        untold = [
            (client.name, held)
            for client in self.clients.values()
            if not client.dead
            for held in client.untold()
        ]
        return [
            Violation(
                "R3: a holder knows in time",
                self.world.now,
                f"{name} was never told that token {held.token} is lost",
            )
            for name, held in untold
        ] + [
            Violation(
                "I15: everybody finishes after healing",
                self.world.now,
                f"{actor.client.name} did not finish",
            )
            for actor in self.actors
            if not actor.finished and not actor.client.dead
        ]

    def _covered(self) -> Counter[str]:
        """How often the interesting things happened."""
        world = self.world
        covered: Counter[str] = Counter()
        for record in world.history:
            if isinstance(record, Seen):
                event = record.event
                if isinstance(event, events.TryStarted):
                    covered["second rounds"] += event.round > 1
                elif isinstance(event, events.TermStopping):
                    covered[f"terms ended: {event.reason}"] += 1
                elif isinstance(event, events.TryFailed):
                    covered[
                        "late grants" if "validity was over" in event.votes else "failed tries"
                    ] += 1
                else:
                    name = _NAMES.get(type(event))
                    if name is not None:
                        covered[name] += 1
            elif isinstance(record, Called):
                covered["cancels"] += record.outcome == "cancelled"
                covered["closes"] += record.call == "close"
            elif isinstance(record, Refused):
                covered["stale writes refused"] += 1
            elif isinstance(record, Broken):
                covered["faults"] += 1
        covered["split votes"] = world.split_votes
        covered["top-ups"] = sum(node.top_ups for node in world.nodes)
        return covered


def _before(marker: Marker) -> str:
    """The marker as versions wrote it that knew no replication ids."""
    promises = f"{to_ms(marker.max_ttl)} {int(marker.durable)} {marker.floor} {marker.cluster}"
    return f"redlock1 {marker.memory.run_id} {marker.nodes} {promises}"


_NAMES: dict[type[events.Event], str] = {
    events.LeaseGranted: "grants",
    events.LeaseRenewed: "renewals",
    events.LeaseInJeopardy: "jeopardies",
    events.LeaseLapsed: "losses",
    events.NodeQuarantined: "quarantines",
    events.NodeRejected: "rejections",
    events.TermStarted: "terms",
    events.TermInJeopardy: "terms in jeopardy",
    events.TermSafe: "terms safe again",
}
