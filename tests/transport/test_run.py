"""A flow on its way: which events wake it, and that keeping grants for it loses and invents
nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from redlock.core.commands import Take
from redlock.core.effects import (
    NEVER,
    Cancelled,
    Event,
    Failure,
    Flow,
    Grants,
    Reply,
    Request,
    Tick,
    Wait,
)
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind, Vote
from redlock.transport.link import Mailbox
from redlock.transport.run import Run

TAKE = Take("lock", "fence", "owner", 7, ttl=10.0, fence_ttl=100.0)
REQUESTS = tuple(Request(node, TAKE, 99.0) for node in range(5))
BUSY = Vote(Kind.BUSY, 9, 1.0, "somebody:9")
LOST = Fault(FaultKind.LOST, "lost the connection")


class Port:
    """Takes what a run writes."""

    def __init__(self) -> None:
        self.mailbox: Mailbox = deque()
        self.sent: list[Request] = []

    def send(self, requests: Sequence[Request], run: Run[list[str]]) -> None:
        self.sent += requests


def listener(grants: int, events: int) -> Flow[list[str]]:
    """Waits for *grants* grants at a time and notes what woke it, until *events* have."""
    heard: list[str] = []
    try:
        while len(heard) < events:
            heard.append(spelled((yield Wait(50.0, REQUESTS if not heard else (), grants=grants))))
    except Cancelled:
        yield Wait(NEVER, REQUESTS[:1])
        raise
    return heard


def spelled(event: Event) -> str:
    match event:
        case Grants(requests, at):
            return f"grants of {' '.join(str(request.node) for request in requests)} at {at:g}"
        case Reply(request, value, at):
            return f"{value.kind.name.lower()} of {request.node} at {at:g}"
        case Failure(request, _, at):
            return f"failure of {request.node} at {at:g}"
        case Tick(at):
            return f"tick at {at:g}"


def run_of(grants: int, events: int) -> Run[list[str]]:
    run = Run(listener(grants, events), Port(), lambda: 0.0)
    run.begin()
    return run


def test_grants_are_kept_until_there_are_enough() -> None:
    """Two of three do not wake the flow; the third brings all of them, at its own instant."""
    run = run_of(grants=3, events=1)
    for node in (4, 0):
        run.step(Reply(REQUESTS[node], GRANTED, 1.0 + node))
        assert not run.done
    run.step(Reply(REQUESTS[2], GRANTED, 9.0))
    assert run.done and run.result() == ["grants of 4 0 2 at 9"]


def test_anything_else_comes_behind_the_grants_that_were_kept() -> None:
    """A refusal, a failure and the end of the time wake it at once, and find the earlier grants
    already counted."""
    others: list[Event] = [
        Reply(REQUESTS[1], BUSY, 2.0),
        Failure(REQUESTS[1], LOST, 2.0),
        Tick(50.0),
    ]
    for other, last in zip(
        others, ["busy of 1 at 2", "failure of 1 at 2", "tick at 50"], strict=True
    ):
        run = run_of(grants=3, events=2)
        run.step(Reply(REQUESTS[0], GRANTED, 1.0))
        run.step(other)
        assert run.done and run.result() == [f"grants of 0 at {other.at:g}", last]


def test_a_grant_is_told_once() -> None:
    """What was kept for one wait is not told again with the next."""
    run = run_of(grants=2, events=4)
    for node, at in ((0, 1.0), (1, 2.0), (2, 3.0)):
        run.step(Reply(REQUESTS[node], GRANTED, at))
    run.step(Tick(54.0))
    run.step(Reply(REQUESTS[3], GRANTED, 55.0))
    run.step(Reply(REQUESTS[4], GRANTED, 56.0))
    assert run.result() == [
        "grants of 0 1 at 2",
        "grants of 2 at 54",
        "tick at 54",
        "grants of 3 4 at 56",
    ]


def stages(second: Wait) -> Flow[list[str]]:
    """Waits for three grants, at most until 50; whatever comes, goes on to *second*, and notes
    what ends that."""
    first = yield Wait(50.0, REQUESTS, grants=3)
    return [spelled(first), spelled((yield second))]


def test_a_tick_belongs_to_the_wait_it_was_made_for() -> None:
    """Kept grants that are told at the end of a wait may begin a second round: the end of the
    first is not the second's."""
    run = Run(stages(Wait(75.0)), Port(), lambda: 0.0)
    run.begin()
    run.step(Reply(REQUESTS[0], GRANTED, 1.0))
    run.step(Tick(50.0))
    assert not run.done
    run.step(Tick(75.0))
    assert run.result() == ["grants of 0 at 50", "tick at 75"]


@pytest.mark.parametrize("event", [Reply(REQUESTS[1], BUSY, 2.0), Failure(REQUESTS[1], LOST, 2.0)])
def test_no_answer_ends_a_pause(event: Event) -> None:
    """Nor does one that came behind the grants which led to the pause."""
    run = Run(stages(Wait(75.0, pause=True)), Port(), lambda: 0.0)
    run.begin()
    run.step(Reply(REQUESTS[0], GRANTED, 1.0))
    run.step(event)
    assert not run.done
    run.step(Tick(75.0))
    assert run.result() == ["grants of 0 at 2", "tick at 75"]


def test_a_run_hears_by_its_own_port_and_not_in_a_pause() -> None:
    """A late answer must not end the pause of one who waits: it would ask as often as nodes
    answer."""
    connections = Port()
    run = Run(stages(Wait(75.0, pause=True)), connections, lambda: 0.0)
    run.begin()
    assert run.hears(connections) and not run.hears(Port())
    run.step(Failure(REQUESTS[0], LOST, 1.0))
    assert not run.hears(connections)
    run.step(Tick(75.0))
    assert run.done and not run.hears(connections)


def test_a_flow_that_wants_each_grant_gets_each() -> None:
    """The default: every reply is an event of its own."""
    run = run_of(grants=1, events=2)
    run.step(Reply(REQUESTS[0], GRANTED, 1.0))
    run.step(Reply(REQUESTS[1], GRANTED, 2.0))
    assert run.result() == ["granted of 0 at 1", "granted of 1 at 2"]


def test_a_flow_that_ends_on_the_kept_grants_hears_nothing_more() -> None:
    """The event that brought them is dropped with it, instead of waking what has ended."""
    run = run_of(grants=3, events=1)
    run.step(Reply(REQUESTS[0], GRANTED, 1.0))
    run.step(Tick(2.0))
    assert run.done and run.result() == ["grants of 0 at 2"]


def test_a_cancel_writes_the_last_requests_whatever_was_kept() -> None:
    """Kept grants are the flow's business no more: it gives everything back."""
    connections = Port()
    run = Run(listener(3, 2), connections, lambda: 0.0)
    run.begin()
    run.step(Reply(REQUESTS[0], GRANTED, 1.0))
    run.cancel()
    assert run.done and connections.sent == [*REQUESTS, REQUESTS[0]]


class Torn(Port):
    """Writes what it is given, and fails the first time."""

    def send(self, requests: Sequence[Request], run: Run[list[str]]) -> None:
        first = not self.sent
        super().send(requests, run)
        if first:
            raise OSError("torn")


def test_a_flow_whose_port_fails_gives_back_what_was_written() -> None:
    """Whoever called hears of the failure, and the nodes get the last requests all the same."""
    connections = Torn()
    run = Run(listener(3, 2), connections, lambda: 0.0)
    run.begin()
    assert run.done and connections.sent == [*REQUESTS, REQUESTS[0]]
    with pytest.raises(OSError, match="torn"):
        run.result()
