"""One question to all nodes, and what came back: the part that every flow shares.

`Cluster` is what the flows of one coordinator know together. A `Round` puts one command to every
node and counts; a vote that was lost with its connection, or refused because the node must be
admitted anew, is asked for once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from redlock.core.admission import Admission
from redlock.core.ballot import Fences
from redlock.core.commands import Command, Greet
from redlock.core.effects import Event, Failure, Flow, Grants, Reply, Request, Source, Wait
from redlock.core.events import Event as Record
from redlock.core.line import Lines
from redlock.core.policy import Policy
from redlock.core.quorum import Fault, FaultKind, Kind, Tally, Vote
from redlock.core.remedies import remedied
from redlock.errors import ConfigurationError

__all__ = ["Cluster", "Round", "collect", "meet", "refuse_misfits"]

_FREED_PAUSES = (0.004, 0.002, 0.001)
"""Seconds, the last one first: a release reaches one node after the other, and whoever was told by
the first of them may be faster than the rest."""


@dataclass(slots=True)
class Cluster:
    """What all flows of one coordinator share.

    *note* takes the rare events (nodes, losses); *emit* those of every try, and is None when nobody
    listens.
    """

    names: tuple[str, ...]
    policy: Policy
    source: Source
    admission: Admission
    note: Callable[[Record], None]
    emit: Callable[[Record], None] | None = None
    lines: Lines = field(default_factory=lambda: Lines("nobody"))
    fences: Fences = field(default_factory=Fences)
    met: bool = False
    longest_ttl: float = 0.0
    """The longest ttl that a lock was asked for: a release that a node missed matters for as
    long as that."""
    everyone: frozenset[int] = field(init=False)
    """The numbers of all nodes; one set, because every lease refers to it, and one of its own
    would be half of its memory."""

    def __post_init__(self) -> None:
        self.everyone = frozenset(range(len(self.names)))

    def ticket(self, now: float) -> int:
        """A ticket for one who comes now: by the clocks of the nodes, as ours may be wrong."""
        clock = self.admission.clock(now)
        return int(clock * 1e6) if clock else self.source.wall_us()

    def owed_for(self) -> float:
        """Seconds for which a release is owed: a lock lives for its ttl, and a node may have
        been slow to take it."""
        return 2 * self.longest_ttl

    @property
    def patience(self) -> float:
        """Seconds a node is waited for when nothing else sets a limit."""
        return self.policy.node_timeout_for(self.policy.ttl)


class Round:
    """One command, put to *nodes* from *now* on and waited for at most until *until*.

    *sent* collects every request; *settled* those a node answered with "somebody else holds it",
    where nothing of ours is. *freed*: the lock was said to be free, so whoever holds it still on a
    node is just about to be gone there, and that node is asked again.
    """

    __slots__ = (
        "_again",
        "_busy",
        "_later",
        "_not_after",
        "_pauses",
        "_started_at",
        "command",
        "freed",
        "requests",
        "sent",
        "settled",
        "tally",
        "timed_out",
        "until",
    )

    def __init__(
        self,
        cluster: Cluster,
        command: Command,
        now: float,
        until: float,
        *,
        nodes: Iterable[int] | None = None,
        verb: str = "granted",
        freed: bool = False,
    ) -> None:
        self.command = command
        self.until = until
        self.tally = Tally(cluster.names, verb)
        # A release is owed until answered, however late.
        self._not_after = not_after = float("inf") if command.final else until
        asked = range(len(cluster.names)) if nodes is None else nodes
        self.sent = sent = [Request(node, command, not_after) for node in asked]
        self.requests = tuple(sent)
        self.settled: list[Request] = []
        self.timed_out = False
        self._again: set[int] = set()
        self.freed = freed
        if freed:  # Only then is anybody asked again, and most rounds are not.
            self._pauses = [list(_FREED_PAUSES) for _ in cluster.names]
            self._later: list[tuple[float, int]] = []
            self._busy: dict[int, Vote] = {}
        self._started_at = now

    @property
    def next_at(self) -> float:
        """When it is to hear the time, at the latest."""
        return min([self.until, *[at for at, _ in self._later]])

    def hear(self, event: Event) -> tuple[Request, ...]:
        """Count one event; give what must be sent because of it."""
        if type(event) is Grants:
            self.tally.grant(
                [request.node for request in event.requests if request.command is self.command]
            )
        elif type(event) is Reply:
            request, vote = event.request, event.value
            if request.command is not self.command:
                return ()
            kind = vote.kind
            if kind is Kind.STRANGER and request.node not in self._again:
                return self._ask_again(request.node)
            if kind is Kind.BUSY:
                self.settled.append(request)
                if self.freed and self._pauses[request.node]:
                    pause = self._pauses[request.node].pop()
                    self._later.append((event.at + pause, request.node))
                    self._busy[request.node] = vote
                    return ()
            self.tally.cast(request.node, vote)
        elif type(event) is Failure:
            request, fault = event.request, event.fault
            if request.command is not self.command:
                return ()
            if fault.kind is FaultKind.LOST and request.node not in self._again:
                return self._ask_again(request.node)
            self.tally.cast(request.node, Vote(Kind.FAULT, fault=fault))
        elif self.freed and event.at < self.until:
            due = [node for at, node in self._later if at <= event.at]
            self._later = [entry for entry in self._later if entry[0] > event.at]
            return tuple([self._put(node) for node in due])
        else:
            self.close(event.at)
        return ()

    def close(self, at: float) -> None:
        """The time is over: who has not answered by now was silent."""
        self.timed_out = True
        waited = f"{at - self._started_at:.3g} s"
        for node, vote in self._busy.items() if self.freed else ():
            self.tally.cast(node, vote)
        silent = {request.node: request for request in self.sent}
        for node, request in silent.items():
            unwritten = request.why or f"was not connected within {waited}"
            detail = f"did not answer within {waited}" if request.written else unwritten
            self.tally.cast(node, Vote(Kind.FAULT, fault=Fault(FaultKind.SILENT, detail)))

    def withdraw(self, at: float) -> None:
        """The round is decided: what was not written yet never will be, except a release, which
        stays owed.

        Nor is anything written again, for a node that has lost the script: a release may have been
        written behind it.
        """
        self.tally.elapsed = at - self._started_at
        if not self.command.final:
            for request in self.sent:
                request.withdraw()

    def revoke(self) -> None:
        """What it asked for is given back: nothing of it may be written any more, or again
        behind the release."""
        self.ask_no_more()
        for request in self.sent:
            request.withdraw()

    def ask_no_more(self) -> None:
        """What was asked was given back: hear the answers that still come, and put the question
        to nobody anew."""
        self._again.update(range(len(self.tally.names)))

    def _ask_again(self, node: int) -> tuple[Request, ...]:
        # A server that closes idle connections must not cost the first acquire of the day its
        # majority. The scripts are idempotent for their own owner, so asking twice is safe; once
        # more is enough, or a flapping node would keep us.
        self._again.add(node)
        return (self._put(node),)

    def _put(self, node: int) -> Request:
        request = Request(node, self.command, self._not_after)
        self.sent.append(request)
        return request


def collect(
    round: Round,
    enough: Callable[[Tally], bool],
    send: tuple[Request, ...],
    *,
    majority: bool = False,
) -> Flow[float]:
    """Send *send* and hear the round's events until *enough* or its time is over; give the instant
    of the last event.

    *majority*: short of one, grants alone are never enough, so they need not be told one by one;
    unless some node asked for a larger token, where one grant more may be all that a second round
    needs.
    """
    tally = round.tally
    while True:
        event = yield Wait(
            round.next_at if round.freed else round.until,
            send,
            grants=tally.needed - tally.granted if majority and not tally.behind else 1,
        )
        send = round.hear(event)
        if round.timed_out or enough(tally):
            round.withdraw(event.at)
            return event.at


def meet(cluster: Cluster, now: float, give_up_at: float) -> Flow[float]:
    """First use: wait until every node is admitted, refused or silent, at most the node timeout;
    give the time."""
    cluster.admission.asked(now)
    until = min(now + cluster.patience, give_up_at)
    greet = Greet()
    requests = tuple([Request(node, greet, until) for node in range(len(cluster.names))])
    waiting = set(requests)
    # In the order of the nodes: a simulator must be able to play it again.
    wait = Wait(until, requests)
    while waiting:
        event = yield wait
        wait = Wait(until)
        now = event.at
        if not isinstance(event, Reply | Failure):
            break
        waiting.discard(event.request)
    for request in waiting:
        request.withdraw()
    return now


def refuse_misfits(cluster: Cluster, now: float, *, since: float = float("-inf")) -> None:
    """Raise ConfigurationError if the nodes show that this list can never have a majority, or must
    not.

    *since*: what nodes told of themselves before then is no reason to give up; it may have been
    mended, and they are asked again while somebody waits.
    """
    problem = cluster.admission.problem(since)
    if problem is not None:
        raise ConfigurationError(f"the node list is wrong: {remedied(problem)}")
    reasons = cluster.admission.out_of_reach(now, since)
    if reasons is not None:
        raise ConfigurationError(f"no majority of these nodes may vote: {remedied(reasons)}")
