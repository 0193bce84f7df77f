"""One run: A holds nodes 1 and 2, node 2 forgets in some way, and B, who cannot reach node 1, tries
to take the lock.

B must not be granted it while A's lease is valid. Once node 2 is back B gets it, and in the rounds
after that, with another client whose wall clock is ahead, every token must be larger than all
before. Instants are those of the lease clock, which all clients of this process share, and the
judge is the checker of every other history (`chaos/checker.py`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.checker import Assumptions, check
from chaos.history import Broken, Note, Record, Seen
from chaos.live.memories.clients import Client, Tries
from chaos.live.memories.stage import Stage
from redlock.core.events import LeaseGranted, TryStarted
from redlock.initialise import initialise
from redlock.transport.clock import now

__all__ = ["AHEAD_MAX", "TTL", "Case", "Result", "Run", "Stuck", "Way", "play"]

TTL = 0.8
"""Longest ttl of the clusters here, and that of A's lease: a quarantine is 1.8 s long."""
NODE_TIMEOUT = 0.1
AHEAD_MAX = 50.0
"""Seconds by which a client's wall clock may be ahead; a node takes no token that is 60 s ahead
of its own."""
_BACK_WITHIN = 20.0
_ROUNDS = 3
_PLACED = 2
"""The number of the node that forgets."""


class Stuck(RuntimeError):
    """A node that forgot did not come to vote again."""


@dataclass(frozen=True, slots=True)
class Case:
    """What one run is: its way, B's API, whether B is *old* (has used the lock before the loss),
    and what is drawn from."""

    way: str
    api: str
    old: bool
    seed: int


@dataclass(slots=True)
class Result:
    """What came of a run.

    *counts*: it came to the point, and so may say something: node 2 had forgotten while A's lease
    was valid, and B tried then. *lived*: whether B had one connection to node 2, from before the
    loss until the grant; None where it had none before. *back*: seconds from the loss until B was
    granted the lock by way of node 2.
    """

    case: Case
    counts: bool = False
    grants: int = 0
    violations: list[str] = field(default_factory=list)
    lived: bool | None = None
    back: float | None = None
    problem: str = ""
    stuck: bool = False
    said: str = ""
    history: list[Record] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to forget.

    *lose* makes node 2 forget. *found* sets the cluster up. *before* prepares that, and *early*
    what must have happened once the old clients have used the lock, and before anything is cut.
    *controls*: plants (`plants.py`) that must each lead to a violation. *lives*: an old client's
    connections live through it. *watched*: no vote of node 2 is seen on any wire between the loss
    and its new marker. *counts* decides whether a run came to the point.
    """

    name: str
    title: str
    lose: Callable[[Run], None]
    controls: tuple[str, ...]
    found: Callable[[Run], None] = lambda run: run.initialise()
    before: Callable[[Run], None] = lambda run: None
    early: Callable[[Run], None] = lambda run: None
    lives: bool = True
    watched: bool = True
    ttl: float = TTL
    """Of A's lease, and the longest of the cluster."""
    max_ttl: float | None = None
    """What clients insist on; None: they adopt the cluster's."""
    counts: Callable[[Run], bool] = lambda run: run.tried_in_time()
    certain: bool = True
    """Clients can use the lock before the loss, and A must have it then."""
    limit: bool = False
    """It shows a limit that is stated, and is played only when it is named."""


class Run:
    """A run on its way, for the functions of a `Way`."""

    def __init__(self, stage: Stage, way: Way, case: Case) -> None:
        self.stage = stage
        self.way = way
        self.case = case
        self.random = random.Random(case.seed)
        self.history: list[Record] = []
        self.ttl = way.ttl
        self.a: Client | None = None
        self.b: Client | None = None
        self.lease: Any = None
        self.tries: Tries | None = None
        self.lost_at = float("inf")
        self.extended = False
        self.clients: list[Client] = []
        self.connected = 0
        self.kept: dict[str, Any] = {}
        """What a way keeps from one of its functions to the next."""

    # For ways

    def initialise(self, **how: Any) -> None:
        """Mark the cluster."""
        initialise(self.stage.urls, **{"max_ttl": self.ttl, **how})

    def note(self, text: str) -> None:
        """A line in the journal."""
        self.history.append(Note(now(), "", "step", text))

    def lost(self) -> None:
        """Node 2 has forgotten from now on."""
        self.lost_at = now()
        self.history.append(Broken(self.lost_at, "", "loss", self.way.title, nodes=(_PLACED,)))

    def client(self, name: str, api: str, *, ahead: float = 0.0) -> Client:
        """A new client."""
        urls = self.stage.urls_of(name)
        options = {
            "ttl": TTL,
            "node_timeout": NODE_TIMEOUT,
            "retry_delay": 0.02,
            "max_ttl": self.way.max_ttl,
        }
        made = Client(name, api, urls, self.stage.client_loop, self.history, ahead=ahead, **options)
        self.clients.append(made)
        self.note(f"{name} is made: {api}, its wall clock {ahead:+.3f} s")
        return made

    def make_b(self) -> Client:
        """B, if it is not there yet."""
        if self.b is None:
            self.b = self.client("B", self.case.api, ahead=self.drawn_ahead())
        return self.b

    def drawn_ahead(self) -> float:
        """By how much a client's clock is ahead: every other one's is right."""
        return self.random.choice((0.0, self.random.uniform(0.0, AHEAD_MAX)))

    def use(self, client: Client, timeout: float = 5.0) -> bool:
        """Take the lock, and give it back."""
        lease = client.acquire(timeout=timeout)
        if lease is None:
            return False
        client.release(lease)
        return True

    def until_votes(self, *clients: Client, node: int = _PLACED) -> None:
        """Until all of *clients* let a node vote."""
        give_up_at = now() + _BACK_WITHIN
        for client in clients:
            while not (report := client.nodes()[node - 1]).votes:
                if now() > give_up_at:
                    raise Stuck(f"node {node} did not come to vote: {report.reason}")
                time.sleep(0.03)

    def wires_to(self, number: int) -> list[Any]:
        """Every client's wire to a node."""
        return [wires[number - 1] for wires in self.stage.wires.values()]

    # What became of it

    def tried_in_time(self) -> bool:
        """Whether B tried while A's lease was valid, and node 2 had forgotten."""
        until = self.valid_until()
        tries = (
            each for each in list(self.history) if isinstance(each, Seen) and each.client == "B"
        )
        return any(
            isinstance(each.event, TryStarted) and self.lost_at < each.at < until - 0.01
            for each in tries
        )

    def valid_until(self) -> float:
        """Until when A's lease is valid, as granted; the past if it has none."""
        granted = [each for each in self.grants() if each.client == "A"]
        event = granted[-1].event if granted else None
        return (
            event.valid_until
            if isinstance(event, LeaseGranted) and self.lease is not None
            else float("-inf")
        )

    def grants(self) -> list[Seen]:
        """Everything that was granted so far."""
        return [
            each
            for each in list(self.history)
            if isinstance(each, Seen) and isinstance(each.event, LeaseGranted)
        ]

    def early_votes(self) -> list[str]:
        """Votes of node 2 that came after the loss, and before a marker was written there since."""
        if not self.way.watched:
            return []
        wires = {name: wires[_PLACED - 1] for name, wires in self.stage.wires.items()}
        marks = [mark for wire in wires.values() for mark in list(wire.marks) if not mark.is_blank]
        new = [mark.asked_at for mark in marks if mark.at > self.lost_at]
        first = min(new, default=float("inf"))
        return [
            f"node 2 granted {name} a vote ({vote.mode}, token {vote.token})"
            f" {vote.at - self.lost_at:.3f} s after it forgot, under {vote.marker!r}, before any"
            " new marker was written"
            for name, wire in wires.items()
            for vote in list(wire.votes)
            if vote.granted and self.lost_at < vote.asked_at and vote.at < first
        ]


def play(stage: Stage, way: Way, case: Case) -> Result:
    """Play *case*, and judge it. What could not be done is a problem of the result, not an
    exception."""
    run = Run(stage, way, case)
    result = Result(case)
    try:
        _play(run, result)
    except Exception as error:  # Whatever it was, the journal is needed to understand it.
        result.problem, result.stuck = f"{type(error).__name__}: {error}", isinstance(error, Stuck)
    for client in run.clients:
        try:
            client.close()
        except Exception as error:  # As above.
            result.problem = result.problem or f"closing {client.name}: {error}"
    result.grants = len(run.grants())
    found = check(run.history, Assumptions(order=False), now())
    result.violations = [f"{each.property}: {each.text}" for each in found] + run.early_votes()
    result.history = sorted([*run.history, *_votes(run)], key=lambda record: record.at)
    return result


def _play(run: Run, result: Result) -> None:
    stage, way, case = run.stage, run.way, run.case
    stage.fresh()
    way.before(run)
    way.found(run)
    a = run.a = run.client("A", run.random.choice(("blocking", "asyncio")), ahead=run.drawn_ahead())
    old = [run.make_b()] if case.old else []
    for client in [a, *old] if run.random.random() < 0.5 else old:
        if not run.use(client) and way.certain:
            raise RuntimeError(
                f"{client.name} could not use the lock before anything was broken: {client.said}"
            )
    way.early(run)
    stage.wire("A", 3).cut()
    stage.wire("B", 1).cut()
    wire = stage.wire("B", _PLACED)
    run.connected = wire.accepted
    _take(run, a)
    if run.lease is not None:
        if run.b is not None:
            run.tries = Tries(run.b)
        way.lose(run)
        run.lost_at = run.lost_at if run.lost_at < float("inf") else now()
    run.tries = run.tries or Tries(run.make_b())
    if run.lease is not None and run.random.random() < 0.3:
        run.extended = a.extend(run.lease)
    _wait_for_b(run, result)
    if case.old and run.lease is not None:
        result.lived = wire.accepted == run.connected
    result.counts = way.counts(run)
    for name in ("A", "B"):
        for each in stage.wires[name]:
            each.heal()
    _rounds(run)


def _take(run: Run, a: Client) -> None:
    give_up_at = now() + 3.0
    while run.lease is None and now() < give_up_at:
        run.lease = a.acquire(ttl=run.ttl)
    if run.lease is None:
        run.note(f"A could not take the lock: {a.said}")
        if run.way.certain:
            raise RuntimeError(f"A could not take the lock: {a.said}")


def _wait_for_b(run: Run, result: Result) -> None:
    tries, b = run.tries, run.b
    assert tries is not None and b is not None
    if run.lease is None:  # Nobody has it: whatever was cut is mended.
        for name in ("A", "B"):
            for each in run.stage.wires[name]:
                each.heal()
    came = tries.got.wait(_BACK_WITHIN)
    result.said = b.said
    lease = tries.end()
    if not came:
        raise Stuck(f"node 2 did not come back within {_BACK_WITHIN:g} s: {b.said}")
    result.back = tries.got_at - run.lost_at if run.lost_at < float("inf") else None
    b.release(lease)


def _rounds(run: Run) -> None:
    """More grants, by everybody and by one whose clock is far ahead: tokens rise."""
    a, b = run.a, run.b
    assert a is not None and b is not None
    ahead = run.client(
        "C", run.random.choice(("blocking", "asyncio")), ahead=run.random.uniform(0.0, AHEAD_MAX)
    )
    users = [a, b, ahead]
    for _ in range(_ROUNDS):
        client = run.random.choice(users)
        if not run.use(client, timeout=_BACK_WITHIN):
            raise Stuck(
                f"{client.name} could not use the lock once everything was mended: {client.said}"
            )


def _votes(run: Run) -> list[Record]:
    """What the wires to all nodes saw, for the journal."""
    found: list[Record] = []
    for name, wires in run.stage.wires.items():
        for number, wire in enumerate(wires, 1):
            for vote in list(wire.votes):
                said = "yes" if vote.granted else "no"
                found.append(
                    Note(
                        vote.at,
                        name,
                        "vote",
                        f"node {number}: {vote.mode} {vote.token} {said} under {vote.marker}",
                    )
                )
            found += [
                Note(mark.at, name, "marker", f"node {number}: {mark.text}")
                for mark in list(wire.marks)
            ]
    return found
