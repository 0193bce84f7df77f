"""A set of links by itself: time and bytes go in, and what it wants of the world is written
down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from redlock.core.admission import Admission
from redlock.core.commands import Free, Peek
from redlock.core.effects import Event, Failure, Flow, Request, Tick, Wait
from redlock.core.events import LeaseInJeopardy
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.line import Lines
from redlock.core.policy import Policy
from redlock.core.quorum import Fault, FaultKind
from redlock.core.renewal import Watch
from redlock.core.rounds import Cluster
from redlock.transport.clock import Entropy
from redlock.transport.ear import PING_EVERY, REDIAL_AFTER, Ear, Hearing
from redlock.transport.link import Link
from redlock.transport.linkset import SUSPICIONS_MAX, LinkSet
from redlock.transport.node import REDIAL_MAX, Node
from redlock.transport.renewals import Renewals
from redlock.transport.run import Run

NAMES = ("one", "two", "three")
SILENCE = 1.0
FREE = Free("redlock:orders", "redlock:orders:fence", "0" * 32, 7, fence_ttl=600.0)


class World:
    """The shell of a set of links, and its clock. *unread*: nodes of which something waits to be
    read."""

    def __init__(self, make_link: Callable[..., Any] = Link) -> None:
        self.now = 100.0
        self.asked: list[tuple[str, int]] = []
        self.written: list[tuple[int, bytes]] = []
        self.wakes: list[float] = []
        self.unread: set[int] = set()
        admission = Admission(
            NAMES, ttl=10.0, max_ttl=None, durable=None, patience=0.5, nonce=lambda: "0" * 32
        )
        self.nodes = [Node(index, name, admission) for index, name in enumerate(NAMES)]
        self.links = LinkSet(self.nodes, self, self.clock, silence=SILENCE, make_link=make_link)

    def clock(self) -> float:
        return self.now

    def write(self, node: int, data: bytes) -> None:
        self.written.append((node, data))

    def hang_up(self, node: int) -> None:
        self.asked.append(("hang up", node))

    def dial(self, node: int) -> None:
        self.asked.append(("dial", node))

    def readable(self, node: int) -> bool:
        return node in self.unread

    def wake_at(self, instant: float) -> None:
        self.wakes.append(instant)

    def begin(self, flow: Flow[Any], **how: Any) -> Run[Any]:
        run = Run(flow, self.links, self.clock, **how)
        self.links.begin(run)
        return run

    def until(self, instant: float) -> None:
        """Time passes, and the set is looked at when it wants to be."""
        while self.links.next_at <= instant:
            self.now = max(self.now, self.links.next_at)
            self.links.tick()
        self.now = instant


@pytest.fixture
def world() -> Iterator[World]:
    yield World()


def hearing(heard: list[Event], *waits: Wait) -> Flow[None]:
    for wait in waits:
        event = yield wait
        heard.append(event)


def peek(node: int) -> Request:
    return Request(node, Peek("redlock:orders", "redlock:orders:fence"), math.inf)


# Time


def test_each_flow_is_woken_at_its_time(world: World) -> None:
    """The first to end is the first to be woken, whoever began first; and nobody before."""
    heard: dict[str, list[Event]] = {"late": [], "early": []}
    late = world.begin(hearing(heard["late"], Wait(110.0)))
    early = world.begin(hearing(heard["early"], Wait(103.0)))
    assert world.links.next_at == 103.0 and world.wakes[-1] == 103.0
    world.until(102.0)
    assert not early.done and not heard["early"]
    world.until(105.0)
    assert early.done and not late.done
    assert [type(event) for event in heard["early"]] == [Tick] and heard["early"][0].at == 103.0
    world.until(111.0)
    assert late.done and world.links.next_at == math.inf and not world.links.runs


def test_a_wait_that_became_longer_is_not_ended_by_the_time_of_the_one_before(world: World) -> None:
    """The time of the first wait comes, and the flow has gone on to one that ends later."""
    heard: list[Event] = []
    world.links.connected(0)
    run = world.begin(hearing(heard, Wait(101.0, (peek(0),)), Wait(105.0)))
    world.links.lost(0, Fault(FaultKind.LOST, "closed the connection"))
    assert [type(event) for event in heard] == [Failure]
    world.until(104.0)
    assert not run.done
    world.until(105.0)
    assert run.done and heard[-1].at == 105.0


def test_a_flow_whose_wait_became_shorter_is_woken_earlier(world: World) -> None:
    """And the entry of the longer wait wakes nobody."""
    heard: list[Event] = []
    world.links.connected(0)
    run = world.begin(hearing(heard, Wait(109.0, (peek(0),)), Wait(102.0), Wait(120.0)))
    world.links.lost(0, Fault(FaultKind.LOST, "closed the connection"))
    world.until(110.0)
    assert [event.at for event in heard] == [100.0, 102.0] and not run.done
    world.until(120.0)
    assert run.done


def test_the_end_of_a_wait_waits_for_what_is_unread_and_not_for_ever(world: World) -> None:
    """Silence is what remains when everything was read; a node that never stops talking ends no
    deadline."""
    heard: list[Event] = []
    world.links.connected(0)
    run = world.begin(hearing(heard, Wait(101.0, (peek(0),))))
    world.unread.add(0)
    world.now = 101.0
    for _ in range(SUSPICIONS_MAX):
        world.links.tick()
        assert not run.done and world.links.next_at <= world.now
    world.links.tick()
    assert run.done


def test_a_flow_that_left_for_its_pause_is_woken_by_no_timer_of_this_set(world: World) -> None:
    """It comes back to this one, or goes on with another: that is its driver's to say."""
    heard: list[Event] = []
    run = world.begin(hearing(heard, Wait(103.0, pause=True), Wait(108.0)))
    world.links.leave(run)
    world.until(105.0)
    assert not heard
    run.move(world.links)
    world.links.resume(run)
    assert [type(event) for event in heard] == [Tick] and not run.done
    world.until(108.0)
    assert run.done


class Turns(Run[Any]):
    """A run that goes on after its pause only when it has its turn."""

    __slots__ = ("asked",)
    asked: list[str]

    def paused(self) -> None:
        self.asked.append("paused")

    def may_go_on(self) -> bool:
        self.asked.append("may go on")
        return False


def test_a_pause_is_told_to_the_run_and_ends_when_its_driver_says_so(world: World) -> None:
    """Once each, and no tick comes before."""
    heard: list[Event] = []
    run = Turns(hearing(heard, Wait(103.0, pause=True)), world.links, world.clock)
    run.asked = []
    world.links.begin(run)
    world.until(104.0)
    assert run.asked == ["paused", "may go on"] and not heard
    world.links.resume(run)
    assert run.done and heard[0].at == 104.0


def test_what_a_tick_raises_leaves_the_others_their_time(world: World) -> None:
    """A flow's own error is its result; one out of the shell is not, and must not stop the
    clock."""
    second = world.begin(hearing([], Wait(103.0)))
    first = world.begin(hearing([], Wait(102.0)), on_done=lambda: 1 // 0)
    world.now = 102.0
    with pytest.raises(ZeroDivisionError):
        world.links.tick()
    assert first.done
    world.until(103.0)
    assert second.done


# Connections


def test_a_node_that_owes_an_answer_for_too_long_is_given_up_by_the_next_who_asks(
    world: World,
) -> None:
    """Not while something of it waits unread; then what it owes fails."""
    heard: list[Event] = []
    world.links.connected(0)
    run = world.begin(hearing(heard, Wait(200.0, (peek(0),))))
    world.now += SILENCE + 0.1
    world.unread.add(0)
    world.links.send([peek(0)], None)
    assert ("hang up", 0) not in world.asked and world.links.links[0].up
    world.unread.clear()
    world.now += SILENCE + 0.1
    world.links.send([Request(0, FREE, math.inf)], None)
    assert world.links.links[0].up, "a release still goes behind its acquire"
    world.links.send([peek(0)], None)
    world.links.settle()
    assert world.asked == [("hang up", 0)]
    assert run.done and isinstance(heard[0], Failure) and "did not answer" in heard[0].fault.detail


def test_an_ear_whose_answer_lies_unread_is_not_given_up() -> None:
    """Nobody reads it while nobody waits; and a node that says nothing is given up all the same."""
    world = World(partial(Ear, Hearing(Lines("us"), len(NAMES))))
    for node in range(len(NAMES)):
        world.links.connected(node)
        world.links.received(node, b"*3\r\n$9\r\nsubscribe\r\n$2\r\nus\r\n:1\r\n")
    world.now += PING_EVERY + 0.1
    world.links.tick()
    assert [data for _, data in world.written[-3:]] == [b"*1\r\n$4\r\nPING\r\n"] * 3
    world.unread = {0, 1}
    world.now += SILENCE + 5.0
    world.links.tick()
    assert [ear.up for ear in world.links.links] == [True, True, False]
    world.links.received(0, b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    world.unread = set()
    world.now += SILENCE + 0.1
    world.links.tick()
    assert [ear.up for ear in world.links.links] == [True, False, False]
    world.now += REDIAL_AFTER
    world.links.tick()
    world.links.connected(1)
    assert [ear.up for ear in world.links.links] == [True, True, False]
    assert [ear.dialling for ear in world.links.links] == [False, False, True]


def test_bytes_that_are_no_answer_end_the_connection(world: World) -> None:
    """And are told to whoever waited for one."""
    heard: list[Event] = []
    world.links.connected(0)
    world.begin(hearing(heard, Wait(200.0, (peek(0),))))
    world.links.received(0, b"HTTP/1.1 400 Bad Request\r\n")
    assert ("hang up", 0) in world.asked and isinstance(heard[0], Failure)


def test_an_interrupt_costs_the_connection_that_was_worked_on_and_no_other(world: World) -> None:
    """Between the note of a request and its write, the answers would drift from their questions."""
    for node in range(3):
        world.links.connected(node)

    def torn(node: int, data: bytes) -> None:
        if node == 1:
            raise KeyboardInterrupt

    world.links._write = torn
    with pytest.raises(KeyboardInterrupt):
        world.links.send([peek(node) for node in range(3)], None)
    world.links.interrupted()
    assert [link.up for link in world.links.links] == [True, False, True]
    world.links.interrupted()
    assert [link.up for link in world.links.links] == [True, False, True]


# What is owed


def test_what_is_owed_is_brought_though_nobody_calls(world: World) -> None:
    """It dials, again and again, until the node has answered or the lock has expired by itself."""
    node = world.nodes[0]
    node.on_owed, node.owed_for = world.links.owed, lambda: 5.0
    node.owe(FREE, world.now)
    assert world.links.next_at == world.now + REDIAL_MAX
    world.until(101.0)
    assert ("dial", 0) in world.asked
    world.links.dial_failed(0, Fault(FaultKind.UNREACHABLE, "could not be reached"))
    before = world.asked.count(("dial", 0))
    world.until(102.0)
    assert world.asked.count(("dial", 0)) > before
    world.links.connected(0)
    assert any(place == 0 and b"redlock:orders:fence" in data for place, data in world.written)
    world.until(110.0)
    assert not node.owed and world.links.next_at == math.inf


def test_a_black_hole_does_not_keep_what_is_owed(world: World) -> None:
    """The release was written, and nothing comes back: the connection is given up, and another
    one is dialled."""
    world.links.connected(0)
    node = world.nodes[0]
    node.on_owed = world.links.owed
    node.owe(FREE, world.now)
    world.until(100.0 + SILENCE + 2 * REDIAL_MAX)
    assert ("hang up", 0) in world.asked and ("dial", 0) in world.asked


# Renewals


def cluster(world: World, note: Any = lambda event: None) -> Cluster:
    return Cluster(
        NAMES, Policy(ttl=10.0), Entropy(), world.nodes[0].admission, note=note, emit=note
    )


def lease(world: World, left: float, name: str = "orders") -> Holding:
    grant = Grant(name, "orders", "orders:fence", "0" * 32, 7, 600.0)
    return Holding(grant, left, world.now, world.now + left, frozenset())


def test_a_lease_is_told_of_its_end_in_time_and_renewed_before(world: World) -> None:
    """No node answers: what is renewed is asked for, tried again, and lost at its deadline; no
    later for its renewal."""
    lapsed: list[Holding] = []
    renewals = Renewals(world.clock, cluster(world))
    renewals.move(world.links)
    renewals.add(Watch(lease(world, 6.0), lapsed.append, ttl=6.0, now=world.now))
    renewals.add(Watch(lease(world, 3.0), lapsed.append, ttl=None, now=world.now))
    assert not renewals.idle
    world.until(102.5)
    assert world.links.runs and ("dial", 0) in world.asked
    world.until(103.0)
    assert [held.valid_until for held in lapsed] == [103.0]
    world.until(106.0)
    assert [held.valid_until for held in lapsed] == [103.0, 106.0]
    world.until(120.0)
    assert len(lapsed) == 2 and not world.links.runs and renewals.idle


def test_a_lease_that_is_released_while_it_is_renewed_is_in_no_jeopardy(world: World) -> None:
    """Its renewal fails for that, and is not tried again: no observer is told that it would be."""
    told: list[object] = []
    renewals = Renewals(world.clock, cluster(world, told.append))
    renewals.move(world.links)
    kept, released = lease(world, 6.0, "kept"), lease(world, 6.0, "released")
    for holding in (kept, released):
        renewals.add(Watch(holding, lambda held: None, ttl=6.0, now=world.now))
    world.until(102.0)
    released.end()
    world.until(105.0)
    jeopardies = [event for event in told if isinstance(event, LeaseInJeopardy)]
    assert {event.resource for event in jeopardies} == {"kept"}
    before = len(jeopardies)
    kept.end()
    world.until(120.0)
    assert len([event for event in told if isinstance(event, LeaseInJeopardy)]) == before


def test_renewals_go_on_where_they_are_moved(world: World) -> None:
    """The thread that renewed has ended, and its set of links with it."""
    lapsed: list[Holding] = []
    renewals = Renewals(world.clock, cluster(world))
    renewals.add(Watch(lease(world, 3.0), lapsed.append, ttl=None, now=world.now))
    other = World()
    renewals.move(world.links)
    renewals.move(other.links)
    assert other.links.next_at == 103.0
    other.now = 103.0
    world.now = 103.0
    other.links.tick()
    assert lapsed


def test_no_more_renewals_are_under_way_than_allowed_and_the_others_follow(world: World) -> None:
    """The second is begun as soon as the first has ended, and not when something else wakes the
    set."""
    begun: list[str] = []
    renewals = Renewals(world.clock, cluster(world), together=1)
    renewals.move(world.links)
    for name in ("first", "second"):
        grant = Grant(name, name, f"{name}:fence", "0" * 32, 7, 600.0)
        holding = Holding(grant, 60.0, 100.0, 160.0, frozenset())
        renewals.add(Watch(holding, lambda held: None, ttl=60.0, now=world.now))
    begin = renewals._begin

    def noting(watch: Watch, links: LinkSet) -> None:
        begun.append(watch.holding.resource)
        begin(watch, links)

    renewals._begin = noting  # type: ignore[method-assign]
    world.until(125.0)
    assert begun[:2] == ["first", "second"] and len(world.links.runs) <= 1
    renewals.closed = True
    assert renewals.next_at == math.inf
