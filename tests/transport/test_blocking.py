"""The blocking driver from the inside: which set carries what, what is bounded, and what an
interrupt leaves behind.

Real servers; where a test has to see how something happens, and not only that, it looks into the
driver.
"""

from __future__ import annotations

import errno
import gc
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import redlock
from redlock import QuorumUnavailable
from redlock.base import _bring_owed
from redlock.core.commands import Free, Peek
from redlock.core.effects import Event, Failure, Flow, Reply, Request, Wait
from redlock.core.release import abandon
from redlock.embedded import Node, Nodes
from redlock.observe import NodeDisconnected, TryFailed
from redlock.transport import blocking, sockets
from redlock.transport.clock import now
from redlock.transport.dial import Endpoint
from redlock.transport.linkset import LinkSet
from redlock.transport.renewals import Renewals
from redlock.transport.run import Run
from redlock.transport.sockets import ConnectionSet
from tests.proxy import LateProxy

PATIENCE = 20.0


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until *holds*; for what other threads and servers do by themselves."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


def taken(locks: redlock.Redlock, name: str = "orders", **options: Any) -> redlock.Lease:
    lease = locks.lock(name, **options).acquire(blocking=False)
    assert lease is not None
    return lease


def pair(locks: redlock.Redlock, name: str = "orders") -> bool:
    return taken(locks, name).release()


def settled(locks: redlock.Redlock) -> ConnectionSet:
    """The only set, when no node owes an answer on it."""
    (connections,) = locks._driver._idle
    until(lambda: locks._driver.tend(connections) and not connections.linkset.late, "all answers")
    return connections


def held(node: Node, name: str = "orders") -> bool:
    with node.client() as client:
        return bool(client.exists(f"redlock:{name}"))


@contextmanager
def paused(*nodes: Node) -> Iterator[None]:
    for node in nodes:
        node.pause()
    try:
        yield
    finally:
        for node in nodes:
            node.resume()


@contextmanager
def in_hand(locks: redlock.Redlock, prefer: ConnectionSet | None = None) -> Iterator[ConnectionSet]:
    """A set of connections in the hands of somebody who does nothing with it."""
    connections = locks._driver._take(prefer, final=False) or locks._driver._check_out()
    try:
        yield connections
    finally:
        locks._driver._check_in(connections)


@pytest.fixture
def locks(nodes: Nodes) -> Iterator[redlock.Redlock]:
    """A coordinator that knows its nodes."""
    with redlock.Redlock(nodes.urls, ttl=60.0, node_timeout=0.5) as found:
        assert pair(found)
        yield found


class Sent:
    """What went out on which set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.finals: list[tuple[LinkSet, int]] = []
        send = LinkSet.send

        def sending(links: LinkSet, requests: Sequence[Request], run: Any) -> None:
            self.finals += [(links, request.node) for request in requests if request.command.final]
            send(links, requests, run)

        patch.setattr(LinkSet, "send", sending)


# Rule 7: a release travels behind its acquire


def test_a_release_goes_on_the_set_that_carried_its_acquire(
    locks: redlock.Redlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the one that was used last."""
    lease = taken(locks)
    first = lease._connections
    assert first is not None
    with in_hand(locks, first), in_hand(locks) as other:
        assert other is not first
    locks._driver._idle.remove(other)
    locks._driver._idle.append(other)  # It would be the next.
    sent = Sent(monkeypatch)
    assert lease.release()
    assert sent.finals == [(first.linkset, node) for node in range(5)]


@pytest.mark.parametrize("came_back", [False, True], ids=["in other hands", "came back meanwhile"])
def test_a_release_also_goes_behind_its_acquire_where_that_set_is_in_other_hands(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, came_back: bool
) -> None:
    """To the node that owes an answer there; before whoever has the set gives it to the next."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.5) as locks:
        assert pair(locks)
        settled(locks)
        with paused(own_nodes[0]):
            lease = taken(locks)
            connections = lease._connections
            assert connections is not None
            until(
                lambda: locks._driver.tend(connections) and connections.linkset.late == (0,),
                "all answers but one",
            )
            sent = Sent(monkeypatch)
            with in_hand(locks, connections):
                if came_back:
                    follow = locks._driver.follow

                    def late(connections: ConnectionSet, *behind: Any) -> None:
                        locks._driver._check_in(connections)
                        follow(connections, *behind)
                        locks._driver._idle.remove(connections)

                    monkeypatch.setattr(locks._driver, "follow", late)
                assert lease.release()
                assert [node for used, node in sent.finals if used is not connections.linkset] == [
                    0,
                    1,
                    2,
                    3,
                    4,
                ]
                assert (
                    [node for used, node in sent.finals if used is connections.linkset] == [0]
                ) is came_back
            assert [node for used, node in sent.finals if used is connections.linkset] == [0]
            assert [
                request.command.final for request in connections.linkset.links[0].in_flight
            ] == [False, True]
            assert not connections.following
        until(lambda: not held(own_nodes[0]), "the release")


def test_a_release_that_is_handed_over_as_its_set_comes_back_is_written(
    locks: redlock.Redlock, nodes: Nodes
) -> None:
    """Between the last look at what is to follow and the set's return nobody else would write it
    before the next use."""
    lease = taken(locks)
    connections = settled(locks)
    driver = locks._driver
    behind = abandon(locks._cluster, lease._holding, now())

    class Late(deque[ConnectionSet]):
        def append(self, connections: ConnectionSet) -> None:
            if behind not in handed:
                handed.append(behind)
                driver.follow(connections, range(5), behind)
            super().append(connections)

    handed: list[Sequence[Request]] = []
    with in_hand(locks, connections):
        driver._idle = Late()
    assert handed and not connections.following
    until(lambda: not any(map(held, nodes)), "the release")


def test_what_is_given_back_unasked_goes_behind_its_acquire_too(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `close` and an interrupt do it, without waiting: to the late node once more, on the set
    that is in other hands."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.5) as locks:
        assert pair(locks)
        settled(locks)
        with paused(own_nodes[0]):
            lease = taken(locks)
            connections = lease._connections
            assert connections is not None
            until(
                lambda: locks._driver.tend(connections) and connections.linkset.late == (0,),
                "all answers but one",
            )
            sent = Sent(monkeypatch)
            with in_hand(locks, connections):
                locks._driver.write(
                    abandon(locks._cluster, lease._holding, now()), prefer=connections
                )
                assert [node for used, node in sent.finals if used is not connections.linkset] == [
                    0,
                    1,
                    2,
                    3,
                    4,
                ]
            assert [node for used, node in sent.finals if used is connections.linkset] == [0]
            assert [
                request.command.final for request in connections.linkset.links[0].in_flight
            ] == [False, True]
        until(lambda: not any(map(held, own_nodes)), "the release")


def test_a_release_is_written_though_its_node_is_overdue(own_nodes: Nodes) -> None:
    """The acquire that it undoes waits unread in the stopped node's socket: a new connection
    might overtake it."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.5) as locks:
        assert pair(locks)
        settled(locks)
        with paused(own_nodes[0]):
            lease = taken(locks)
            connections = lease._connections
            assert connections is not None
            connections.linkset.links[0]._silence = 0.0
            descriptor = connections.descriptor(0)
            assert lease.release()
            assert connections.descriptor(0) == descriptor
            assert connections.linkset.links[0].releasing
        until(lambda: not held(own_nodes[0]), "the release")


def test_an_answer_that_waits_unread_is_no_silence(own_nodes: Nodes) -> None:
    """The node answered while nobody read: its connection is read before it is given up, and
    kept."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.5) as locks, ExitStack() as stack:
        assert pair(locks)
        settled(locks)
        with paused(own_nodes[0]):
            lease = taken(locks)
            connections = lease._connections
            assert connections is not None
            until(
                lambda: locks._driver.tend(connections) and connections.linkset.late == (0,),
                "all answers but one",
            )
            stack.enter_context(in_hand(locks, connections))
        descriptor, link = connections.descriptor(0), connections.linkset.links[0]
        until(lambda: select.select([descriptor], [], [], 0)[0], "an answer that nobody reads")
        link._silence = 0.0
        connections.linkset.send(
            [Request(0, Peek("redlock:orders", "redlock:orders:fence"), math.inf)], None
        )
        assert connections.descriptor(0) == descriptor and link.up
        stack.close()
        assert lease.release()


def test_a_release_that_no_node_can_take_is_not_brought_for_long(
    locks: redlock.Redlock, nodes: Nodes
) -> None:
    """A key of another type stands where the lock was: it cannot be ours, and the thread that
    brings releases ends."""
    owed = Free("redlock:odd", "redlock:odd:fence", "0" * 32, 7, fence_ttl=600.0)
    with nodes[0].client() as client:
        client.hset("redlock:odd", "of", "another type")
        node = locks._driver.nodes[0]
        node.owe(owed, now())
        until(lambda: not node.owed, "the end of the debt")
        client.delete("redlock:odd")


def test_the_first_acquire_lasts_no_longer_than_the_nodes_need(nodes: Nodes) -> None:
    """What is asked of each node waits for what the last of them tells of itself, and goes out
    then: not when a time is over."""
    with redlock.Redlock(nodes.urls, ttl=60.0, node_timeout=10.0) as locks:
        asked_at = now()
        assert pair(locks)
        assert now() - asked_at < 5.0


# Rule 10: what an exception leaves behind


@pytest.mark.parametrize("written", [False, True], ids=["before the write", "after the write"])
def test_a_torn_connection_is_closed_and_no_answer_drifts(
    locks: redlock.Redlock, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """A Ctrl-C between the note of a request and its write: the next answers would be taken for
    that of the one before."""
    (connections,) = locks._driver._idle
    linkset = connections.linkset
    write = linkset._write
    sock = connections.sockets.socks[2]
    assert sock is not None

    def torn(node: int, data: bytes) -> None:
        if node != 2:
            write(node, data)
            return
        linkset._write = write
        if written:
            write(node, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(linkset, "_write", torn)
    with pytest.raises(KeyboardInterrupt):
        locks.lock("orders").acquire()
    assert sock.fileno() == -1
    until(lambda: not any(map(held, nodes)), "nothing on the nodes")
    until(lambda: all(report.votes for report in locks.nodes()), "five nodes that vote")
    for _ in range(5):
        lease = taken(locks)
        until(lambda: all(map(held, nodes)), "five nodes that hold it")
        assert locks.status("orders").held
        assert lease.release()
        until(lambda: not any(map(held, nodes)), "five nodes that hold it no more")


def test_an_interrupt_while_a_connection_is_taken_over_does_not_lose_the_node(nodes: Nodes) -> None:
    """Its dial was answered, and the answer is gone: it is dialled anew."""
    with redlock.Redlock(nodes.urls) as locks:
        with in_hand(locks) as connections:
            register = connections.sockets.by_fd

            class Torn(dict[int, int]):
                def __setitem__(self, fd: int, index: int) -> None:
                    connections.sockets.by_fd = register
                    raise KeyboardInterrupt

            connections.sockets.by_fd = Torn()
        with pytest.raises(KeyboardInterrupt):
            locks.lock("orders").acquire()
        until(
            lambda: pair(locks) and all(report.votes for report in locks.nodes()),
            "five nodes that vote",
        )


def test_a_set_that_an_interrupt_tore_out_of_all_hands_is_gone_at_once(
    locks: redlock.Redlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the collector comes by: until then it would count as in use, and 32 of them are all.

    The flow that was on it failed, which is where a circle of error, frames and set would begin.
    """
    leave = LinkSet.leave

    def torn(links: LinkSet, run: Run[Any]) -> None:
        leave(links, run)
        raise KeyboardInterrupt

    def ends(at: float) -> Flow[None]:
        yield Wait(at + 0.001)
        raise redlock.RedlockError("an end of its own")

    gc.collect()
    gc.disable()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(LinkSet, "leave", torn)
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    locks._driver.run(ends)
        assert not locks._driver._shared
    finally:
        gc.enable()


# Rule 11: bounds


def test_sets_are_bounded_and_handed_from_one_thread_to_the_next(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sets for eight threads: all have their turn, and nobody makes a third."""
    monkeypatch.setattr(blocking, "SETS_MAX", 2)
    with redlock.Redlock(nodes.urls, ttl=60.0, node_timeout=0.5) as locks:
        seen: list[int] = []
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(20):
                    lease = locks.lock(f"orders:{number}").acquire(timeout=PATIENCE)
                    assert lease is not None
                    seen.append(len(locks._driver._shared))
                    lease.release()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed and len(seen) == 160
        assert max(seen) == 2
        with (
            in_hand(locks),
            in_hand(locks),
            pytest.raises(QuorumUnavailable, match="all 2 sets of connections are in use"),
        ):
            locks.lock("orders").acquire(timeout=0.05)


def test_a_waiter_whose_set_was_lent_out_meanwhile_waits_for_it_no_longer_than_its_timeout(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others use the only set while it pauses, and do not bring it back in time."""
    monkeypatch.setattr(blocking, "SETS_MAX", 1)
    failed = threading.Event()
    ended: list[BaseException | redlock.Lease | None] = []

    def hear(record: Any) -> None:
        if isinstance(record, TryFailed):
            failed.set()

    def work() -> None:
        try:
            ended.append(locks.lock("orders").acquire(timeout=1.0))
        except BaseException as error:
            ended.append(error)

    with (
        redlock.Redlock(nodes.urls, ttl=60.0) as others,
        others.lock("orders"),
        redlock.Redlock(
            nodes.urls, ttl=60.0, node_timeout=0.5, retry_delay=2.0, on_event=hear
        ) as locks,
    ):
        waiting = threading.Thread(target=work, daemon=True)
        waiting.start()
        assert failed.wait(PATIENCE)
        with in_hand(locks):
            waiting.join(PATIENCE)
            assert not waiting.is_alive()
        (error,) = ended
        assert isinstance(
            error, QuorumUnavailable
        ) and "all 1 sets of connections are in use" in str(error)


class Unhurried:
    """The gate of one who waits for a set, and who looks again by himself only after very long."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate
        self.release = gate.release

    def acquire(self, timeout: float) -> bool:
        return bool(self._gate.acquire(timeout=PATIENCE))


def test_a_set_that_comes_back_wakes_who_waits_for_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself: here nobody looks again after a while."""
    monkeypatch.setattr(blocking, "SETS_MAX", 1)
    make = blocking._Waiter.__init__

    def unhurried(waiter: Any) -> None:
        make(waiter)
        waiter.gate = Unhurried(waiter.gate)

    monkeypatch.setattr(blocking._Waiter, "__init__", unhurried)
    with redlock.Redlock(nodes.urls) as locks:
        assert pair(locks)
        got: list[bool] = []
        waiting = threading.Thread(target=lambda: got.append(pair(locks)), daemon=True)
        with in_hand(locks):
            began = now()
            waiting.start()
            until(lambda: locks._driver._waiters, "somebody who waits")
        waiting.join(PATIENCE)
        assert got == [True]
        assert now() < began + PATIENCE
        assert not locks._driver._waiters


def test_sets_are_had_in_turn_and_by_holders_first(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who comes just as a set comes back is faster than those who wait, and a holder
    waits for no newcomer."""
    monkeypatch.setattr(blocking, "SETS_MAX", 1)
    order: list[str] = []
    with redlock.Redlock(nodes.urls) as locks:
        driver = locks._driver

        def ask(name: str, **how: bool) -> threading.Thread:
            def have() -> None:
                connections = driver._check_out(**how)
                order.append(name)
                driver._check_in(connections)

            before = len(driver._waiters) + len(driver._urgent)
            thread = threading.Thread(target=have, daemon=True)
            thread.start()
            until(lambda: len(driver._waiters) + len(driver._urgent) > before, "one more who waits")
            return thread

        with in_hand(locks):
            threads = [
                ask("first"),
                ask("second"),
                ask("holder", urgent=True),
                ask("release", final=True),
                ask("third"),
            ]
        for thread in threads:
            thread.join(PATIENCE)
    assert order == ["holder", "release", "first", "second", "third"]


def test_who_comes_just_as_a_set_comes_back_is_not_faster_than_a_holder(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that is back and not handed over yet is the waiting holder's, also where nobody
    waits in the newcomer's own line."""
    monkeypatch.setattr(blocking, "SETS_MAX", 1)
    with redlock.Redlock(nodes.urls) as locks:
        assert pair(locks)
        driver = locks._driver
        holder = blocking._Waiter()
        driver._urgent.append(holder)
        (connections,) = driver._idle
        with pytest.raises(QuorumUnavailable, match="all 1 sets of connections are in use"):
            driver._check_out(now())
        driver._hand_over()
        assert holder.connections is connections
        driver._check_in(connections)
        assert pair(locks)


def test_who_gives_up_as_a_set_comes_gives_it_back(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be in use for ever."""
    monkeypatch.setattr(blocking, "SETS_MAX", 1)
    with redlock.Redlock(nodes.urls) as locks:
        assert pair(locks)
        driver = locks._driver
        connections = driver._idle.pop()
        step_out = driver._step_out

        def late(line: Any, waiter: Any) -> None:
            driver._check_in(connections)  # Handed to the one who has just had enough.
            assert waiter.connections is connections
            step_out(line, waiter)

        monkeypatch.setattr(driver, "_step_out", late)
        with pytest.raises(QuorumUnavailable, match="all 1 sets of connections are in use"):
            locks.lock("orders").acquire(timeout=0.01)
        assert list(driver._idle) == [connections]
        assert pair(locks)


def test_renewals_under_way_together_are_bounded(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten leases are due, the nodes do not answer, and two renewals are under way at any time."""
    monkeypatch.setattr("redlock.transport.renewals.TOGETHER_MAX", 2)
    under_way: list[int] = []
    begin = Renewals._begin

    def beginning(renewals: Renewals, *lease: Any) -> None:
        begin(renewals, *lease)
        under_way.append(renewals._under_way)

    monkeypatch.setattr(Renewals, "_begin", beginning)
    with redlock.Redlock(own_nodes.urls, ttl=3.0, node_timeout=0.1) as locks:
        leases = [taken(locks, f"orders:{number}", auto_extend=True) for number in range(10)]
        with paused(*own_nodes[:3]):
            until(lambda: len(under_way) >= 10, "ten renewals")
        assert max(under_way) == 2
        for lease in leases:
            lease.release()


def test_a_set_wakes_for_the_first_whose_time_is_over(locks: redlock.Redlock) -> None:
    """A renewal that nobody answers ends after its own node timeout, whatever the others beside
    it wait for."""

    def waiting(until: float) -> Flow[None]:
        yield Wait(until)

    connections, began_at = locks._driver.connect(), now()
    runs = [
        Run(waiting(began_at + seconds), connections.linkset, now)
        for seconds in (2 * PATIENCE, 0.05, 2 * PATIENCE)
    ]
    for run in runs:
        connections.linkset.begin(run)
    connections.pump(began_at + PATIENCE)
    assert [run.done for run in runs] == [False, True, False]
    assert now() < began_at + PATIENCE / 2
    connections.close()


def test_what_a_stopped_node_is_sent_and_owed_is_bounded(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests in flight, those that vote, and releases owed: each limit is reached, and not
    passed."""
    monkeypatch.setattr("redlock.transport.link.IN_FLIGHT_MAX", 12)
    monkeypatch.setattr("redlock.transport.link.TAKES_MAX", 6)
    monkeypatch.setattr("redlock.transport.node.OWED_MAX", 4)
    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.5) as locks:
        assert pair(locks)
        connections = settled(locks)
        link = connections.linkset.links[0]
        link._silence = 1000.0
        leases = [taken(locks, f"before:{number}") for number in range(20)]
        settled(locks)
        flying, owed = [], []
        with paused(own_nodes[0]):
            for number in range(10):
                assert pair(locks, f"orders:{number}")
                flying.append(len(link.in_flight))
            assert max(flying) == 6, "a vote is asked for only where its release would still fit"
            for lease in leases:
                assert lease.release()
                flying.append(len(link.in_flight))
                owed.append(len(link.node.owed))
            assert max(flying) == 12
            assert max(owed) == 4


def test_no_descriptors_are_kept_beside_a_stopped_node(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts, and says nothing; it is given up and dialled again, many times, and what was
    given up is closed."""
    lost: list[str] = []
    opened: list[socket.socket] = []
    connect = Endpoint.connect

    def connecting(endpoint: Endpoint, *args: Any) -> Any:
        connection, sock = connect(endpoint, *args)
        opened.append(sock)
        return connection, sock

    monkeypatch.setattr(Endpoint, "connect", connecting)

    def heard(event: object) -> None:
        if isinstance(event, NodeDisconnected):
            lost.append(event.reason)

    with redlock.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.1, on_event=heard) as locks:
        assert pair(locks)
        (connections,) = locks._driver._idle
        connections.linkset.silence = connections.linkset.links[0]._silence = 0.02
        with paused(own_nodes[0]):
            before = len(opened)
            deadline = time.monotonic() + PATIENCE
            while len(opened) < before + 6:
                assert time.monotonic() < deadline
                assert pair(locks)
                time.sleep(0.02)
                assert sum(sock.fileno() >= 0 for sock in opened) <= 5 + 1
        assert any("did not answer for 0.02 s" in reason for reason in lost)


# Sockets


class Dribbling:
    """A socket that takes a few bytes at a time, at every third attempt."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._turns = 0
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        self._turns += 1
        if self._turns % 3:
            self.refused += 1
            raise BlockingIOError
        return self._sock.send(data[:37])


def test_what_a_socket_does_not_take_at_once_is_written_in_order(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """37 bytes at a time, to all nodes, and every vote comes; afterwards nobody waits for room
    any more."""
    found: list[Dribbling] = []
    connect = Endpoint.connect

    def dribbling(endpoint: Endpoint, *args: Any) -> Any:
        connection, sock = connect(endpoint, *args)
        found.append(Dribbling(sock))
        return connection, found[-1]

    monkeypatch.setattr(Endpoint, "connect", dribbling)
    with redlock.Redlock(nodes.urls, node_timeout=3.0) as locks:
        for _ in range(10):
            lease = taken(locks)
            until(lambda: all(map(held, nodes)), "five nodes that hold it")
            lease.extend()
            assert lease.release()
            locks._driver.bring_owed()
            until(lambda: not any(map(held, nodes)), "five nodes that hold it no more")
        names = [f"behind:{number}" for number in range(6)]
        leases = [taken(locks, name) for name in names]
        locks._driver.write(
            [
                request
                for each in leases
                for request in abandon(locks._cluster, each._holding, now())
            ]
        )
        locks._driver.bring_owed()
        until(
            lambda: not any(held(node, name) for node in nodes for name in names),
            "releases behind each other",
        )
        assert not any(node.fault for node in locks._driver.nodes)
        assert all(report.votes for report in locks.nodes())
        assert len(found) == 5, "no connection was broken by it"
        assert all(sock.refused for sock in found)
        with in_hand(locks) as connections:
            assert not any(connections.sockets._unsent)
            assert connections.sockets.poller.poll(0) == [], (
                "a poller that waits for room where there is room never sleeps"
            )


def test_what_was_answered_before_a_connection_broke_is_heard(locks: redlock.Redlock) -> None:
    """A vote that lies unread as the next write finds the connection broken is a vote: the lock
    is on that node."""
    connections = settled(locks)
    sock = connections.sockets.socks[0]
    assert sock is not None

    class Breaking(Dribbling):
        def send(self, data: bytes) -> int:
            if self.refused:
                until(
                    lambda: select.select([self._sock], [], [], 0)[0],
                    "an answer that nobody has read",
                )
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            self.refused += 1
            return self._sock.send(data)

    heard: list[Event] = []

    def twice(at: float) -> Flow[None]:
        asked = tuple(
            Request(0, Peek("redlock:orders", "redlock:orders:fence"), math.inf) for _ in range(2)
        )
        heard.append((yield Wait(at + PATIENCE, asked)))
        heard.append((yield Wait(at + PATIENCE)))

    connections.sockets.socks[0] = Breaking(sock)  # type: ignore[call-overload]
    locks._driver.run(twice)
    assert [type(event) for event in heard] == [Reply, Failure]


def test_a_release_that_a_broken_connection_does_not_take_is_owed_at_once(
    locks: redlock.Redlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the answers, nobody uses the set again, and nobody watches for hang-ups:
    the node gets it all the same."""
    lease = taken(locks)
    connections = settled(locks)
    sock = connections.sockets.socks[0]
    assert sock is not None

    class Broken(Dribbling):
        def send(self, data: bytes) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    connections.sockets.socks[0] = Broken(sock)  # type: ignore[call-overload]
    monkeypatch.setattr(locks._driver, "tend", lambda connections: True)
    owed: list[object] = []
    monkeypatch.setattr(locks._driver.nodes[0], "on_owed", lambda: owed.append(1))
    locks._driver.write(abandon(locks._cluster, lease._holding, now()), prefer=connections)
    assert owed and locks._driver.nodes[0].owed
    assert connections.descriptor(0) == -1


def test_a_pause_between_an_answer_and_its_reading_counts_as_time_that_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The instant of a grant is read after its bytes: one from before would make the lease valid
    for as long as we slept."""
    with (
        Nodes(1) as nodes,
        pytest.warns(UserWarning, match="plain lock"),
        redlock.Redlock(nodes.urls, ttl=1.0, node_timeout=0.05) as locks,
    ):
        assert pair(locks)
        (connections,) = locks._driver._idle

        class Sleepy(Dribbling):
            def send(self, data: bytes) -> int:
                return self._sock.send(data)

            def recv(self, size: int) -> bytes:
                data = self._sock.recv(size)
                time.sleep(0.5)
                return data

        sock = connections.sockets.socks[0]
        assert sock is not None
        connections.sockets.socks[0] = Sleepy(sock)  # type: ignore[call-overload]
        with pytest.raises(QuorumUnavailable, match="validity was over"):
            locks.lock("orders", ttl=0.3).acquire(blocking=False)
        connections.sockets.socks[0] = sock


def test_the_end_of_a_wait_is_not_the_end_of_the_next_one(
    locks: redlock.Redlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a round was over as its last answer was read: the round that follows from it
    has all of its own."""
    ahead = 0.0
    heard: list[Event] = []

    def twice(at: float) -> Flow[None]:
        nonlocal ahead
        for _ in range(2):
            event = yield Wait(
                at + 30.0, (Request(0, Peek("redlock:orders", "redlock:orders:fence"), math.inf),)
            )
            heard.append(event)
            ahead = 60.0  # We slept, or were long about something else.
            at = event.at + ahead

    for module in (blocking, sockets):
        monkeypatch.setattr(module, "clock", lambda: now() + ahead)
    locks._driver.run(twice)
    assert [type(event) for event in heard] == [Reply, Reply]


# The end


class Closed:
    """Whether a release was unanswered on any set that was closed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.releasing: list[bool] = []
        close = ConnectionSet.close

        def closing(connections: ConnectionSet) -> None:
            if not connections.closed:
                self.releasing.append(connections.linkset.releasing)
            close(connections)

        patch.setattr(ConnectionSet, "close", closing)


@pytest.fixture
def slow(nodes: Nodes) -> Iterator[list[str]]:
    """The nodes, the last of them behind a round trip of 0.4 s."""
    with LateProxy(nodes[4].port, delay=0.2) as proxy:
        yield [*nodes.urls[:4], proxy.url]


def test_a_release_on_its_way_is_heard_of_before_the_close(
    slow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is closed with an answer unread may take with it what the node has not read."""
    closed = Closed(monkeypatch)
    with redlock.Redlock(slow, ttl=60.0, node_timeout=10.0) as locks:
        lease = taken(locks)
        assert lease.release()
        (connections,) = locks._driver._idle
        assert connections.linkset.links[4].releasing
    assert closed.releasing == [False]


def test_a_release_on_its_way_is_heard_of_when_the_set_comes_back_after_the_close(
    slow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in use when its coordinator was closed."""
    closed = Closed(monkeypatch)
    locks = redlock.Redlock(slow, ttl=60.0, node_timeout=10.0)
    lease = taken(locks)
    assert lease.release()
    with in_hand(locks) as connections:
        assert connections.linkset.links[4].releasing
        locks.close()
        assert not connections.closed
    assert connections.closed and closed.releasing == [False]


def test_a_release_on_its_way_is_heard_of_before_the_interpreter_ends(slow: list[str]) -> None:
    """Of a coordinator that nobody closed."""
    locks = redlock.Redlock(slow, ttl=60.0, node_timeout=10.0)
    assert taken(locks).release()
    (connections,) = locks._driver._idle
    assert connections.linkset.links[4].releasing
    _bring_owed()
    assert not connections.linkset.links[4].releasing
    locks.close()


def test_what_is_under_way_as_its_driver_refuses_ends_there_and_then(
    locks: redlock.Redlock,
) -> None:
    """Not at the end of its wait: whoever asks a silent majority once would keep its thread for
    the rest of a node timeout."""
    begun, ended = threading.Event(), []

    def asking(at: float) -> Flow[None]:
        begun.set()
        yield Wait(at + 3600.0)

    def ask() -> None:
        with pytest.raises(redlock.RedlockError, match="closed"):
            locks._driver.run(asking)
        ended.append(1)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE)
    locks._driver.refuse()
    thread.join(PATIENCE)
    assert ended


def test_a_connection_that_comes_after_the_close_is_closed(
    locks: redlock.Redlock, nodes: Nodes
) -> None:
    """The dial had begun before."""
    with in_hand(locks) as connections:
        pass
    locks.close()
    connection, sock = locks._endpoints[0].connect(1.0)
    connections.sockets.arrive(0, connection, sock, None)
    assert sock.fileno() == -1


def test_close_does_not_wait_for_a_callback_that_hangs(nodes: Nodes) -> None:
    """Its program wants to end."""
    end, began = threading.Event(), threading.Event()

    def hangs(lease: redlock.Lease) -> None:
        began.set()
        end.wait(PATIENCE)

    with redlock.Redlock(nodes.urls) as locks:
        lease = taken(locks, ttl=0.3, on_lost=hangs)
        assert began.wait(PATIENCE)
        assert not lease.is_held()
    thread = locks._callbacks._hands[0]._thread
    assert thread is not None and thread.is_alive()
    end.set()
    thread.join(PATIENCE)


# Which of a cycle's finalizers comes first is the collector's to choose. A socket's own may, and
# complain, before its set's.
@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_coordinator_that_is_dropped_leaves_no_thread(nodes: Nodes) -> None:
    """Nobody closed it; the thread that watches for hang-ups ends with it, and so do its
    connections."""
    locks = redlock.Redlock(nodes.urls)
    assert pair(locks)
    (connections,) = locks._driver._idle
    sock = connections.sockets.socks[0]
    assert sock is not None
    name = "redlock-hangups"
    assert any(thread.name == name for thread in threading.enumerate())
    del locks, connections

    def ended() -> bool:
        # Each time: a dial to the slowest node, or a look of the thread itself, may just have kept
        # it alive.
        gc.collect()
        return not any(thread.name.startswith("redlock") for thread in threading.enumerate())

    until(ended, "the end of our threads")
    assert sock.fileno() == -1


# How long a release is owed


def owed_for(locks: redlock.Redlock, node: Node, lease: redlock.Lease) -> float:
    """Seconds for which a dead node is to be brought the release of *lease*."""
    node.kill()
    deadline = time.monotonic() + PATIENCE
    while locks._driver.nodes[0].fault is None:
        assert time.monotonic() < deadline
        lease.verify()
    at = now()
    assert lease.release() and locks._driver.nodes[0].owed
    return max(locks._driver.nodes[0].owed.values()) - at


@pytest.mark.parametrize("extended", [False, True], ids=["acquired", "extended"])
def test_a_release_is_owed_for_as_long_as_its_lock_may_live(
    own_nodes: Nodes, extended: bool
) -> None:
    """The ttl of the lock, or of its extension, where that is longer than the coordinator's; and
    again, for a slow node."""
    with redlock.Redlock(own_nodes.urls, ttl=5.0) as locks:
        lease = taken(locks, ttl=5.0 if extended else 50.0)
        if extended:
            lease.extend(50.0)
        assert owed_for(locks, own_nodes[0], lease) >= 100.0


def test_a_release_is_not_brought_for_ever(own_nodes: Nodes) -> None:
    """The lock has expired by then: the thread that would dial a dead node for it ends."""
    with redlock.Redlock(own_nodes.urls, ttl=0.5, node_timeout=0.1) as locks:
        lease = taken(locks)
        assert owed_for(locks, own_nodes[0], lease) <= 1.0 + 0.5
        until(lambda: locks._driver.background._thread is None, "the end of the thread")
        assert not locks._driver.nodes[0].owed
