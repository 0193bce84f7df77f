"""The threads and tasks behind a coordinator: none ends in silence, and what one of them was to do
is done all the same.

Shortages are made here by a `Thread.start` that raises what the real one raises;
`test_exhaustion.py` has the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock import ConfigurationError, LeaseLost, QuorumUnavailable, RedlockError
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.renewal import Watch
from redlock.embedded import Node, Nodes
from redlock.observe import NodeDisconnected
from redlock.transport.background import CALLBACKS_MAX, Background, Callbacks
from redlock.transport.clock import now
from redlock.transport.dialer import Dialer
from redlock.transport.lookup import Lookup
from redlock.transport.sockets import ConnectionSet
from redlock.transport.threads import Threads, Worker

PATIENCE = 20.0
TTL = 2.0


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until *holds*; for what other threads and servers do by themselves."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


def ours(name: str = "redlock") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No thread of ours outlives its test."""
    yield
    until(lambda: not ours(), "the end of our threads")


class Shortage:
    """No thread whose name begins with one of *names* can be had."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: tuple[str, ...] = ()
        self.refused: list[str] = []
        start = threading.Thread.start

        def refusing(thread: threading.Thread) -> None:
            if self.names and thread.name.startswith(self.names):
                self.refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            start(thread)

        patch.setattr(threading.Thread, "start", refusing)

    def of(self, *names: str) -> None:
        self.names = names

    def over(self) -> None:
        self.names = ()


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Shortage:
    return Shortage(monkeypatch)


def disconnect(node: Node) -> None:
    with node.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def held(node: Node, name: str) -> bool:
    with node.client() as client:
        return bool(client.exists(f"redlock:{name}"))


def stays_renewed(lease: redlock.Lease) -> None:
    """It is renewed twice more, so the renewal that was under way is not the last one."""
    for _ in range(2):
        before = lease.valid_until
        until(lambda before=before: lease.valid_until > before, "a renewal")


def is_told_of_its_loss(lease: redlock.Lease, nodes: Nodes, told: list[Any]) -> None:
    for node in list(nodes)[:3]:
        node.pause()
    try:
        assert lease.lost.wait(PATIENCE)
        until(lambda: told, "on_lost")
    finally:
        for node in list(nodes)[:3]:
            node.resume()


# The renewal thread


def test_a_node_that_dies_while_no_thread_can_be_had_does_not_end_renewal(
    own_nodes: Nodes, shortage: Shortage
) -> None:
    """Its link asks for a dial, in the renewal thread, and there is a release to be brought:
    neither raises into it."""
    told: list[Any] = []
    with redlock.Redlock(own_nodes.urls, ttl=TTL) as locks:
        lease = locks.lock("kept", auto_extend=True, on_lost=told.append).acquire()
        assert lease is not None
        stays_renewed(lease)
        own_nodes[4].pause()
        assert locks.lock("other").acquire().release()  # type: ignore[union-attr]
        shortage.of("redlock")
        own_nodes[4].kill()
        until(lambda: shortage.refused, "a dial that could not begin")
        stays_renewed(lease)
        shortage.over()
        stays_renewed(lease)
        is_told_of_its_loss(lease, own_nodes, told)


def test_an_observer_that_raises_anything_does_not_end_renewal(
    own_nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """A SystemExit out of the middle of the renewal thread's reading: logged, and the lease is
    renewed, and told of its loss."""
    told: list[Any] = []

    def exits(event: object) -> None:
        if threading.current_thread().name == "redlock-background":
            raise SystemExit(type(event).__name__)

    with redlock.Redlock(own_nodes.urls, ttl=TTL, on_event=exits) as locks:
        lease = locks.lock("kept", auto_extend=True, on_lost=told.append).acquire()
        assert lease is not None
        stays_renewed(lease)
        disconnect(own_nodes[0])
        until(lambda: NodeDisconnected.__name__ in caplog.text, "a word about it")
        assert "redlock-background failed, and goes on" in caplog.text
        stays_renewed(lease)
        is_told_of_its_loss(lease, own_nodes, told)


def test_a_connection_that_an_exception_tore_in_the_renewal_thread_is_closed(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the note of a request and its write: the next answers would be taken for that of
    the one before."""
    with redlock.Redlock(nodes.urls, ttl=TTL) as locks:
        lease = locks.lock("kept", auto_extend=True).acquire()
        assert lease is not None
        stays_renewed(lease)
        connections = locks._driver.background._set
        assert connections is not None
        linkset = connections.linkset
        sock, write = connections.sockets.socks[2], linkset._write
        assert sock is not None

        def torn(node: int, data: bytes) -> None:
            if node != 2:
                write(node, data)
                return
            linkset._write = write
            raise SystemExit

        linkset._write = torn
        until(lambda: "redlock-background failed, and goes on" in caplog.text, "a word about it")
        assert sock.fileno() == -1
        stays_renewed(lease)
        assert lease.release()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_renewal_thread_that_ends_is_begun_again(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever ended it, wherever: thrown into the thread itself, where no handler of ours is."""
    told: list[Any] = []
    with redlock.Redlock(nodes.urls, ttl=TTL) as locks:
        lease = locks.lock("kept", auto_extend=True, on_lost=told.append).acquire()
        assert lease is not None
        keeper = locks._driver.background
        thread = keeper._thread
        goes_on = keeper._goes_on

        def ends(me: threading.Thread) -> bool:
            keeper._goes_on = goes_on  # type: ignore[method-assign]
            raise MemoryError

        keeper._goes_on = ends  # type: ignore[method-assign]
        until(lambda: keeper._thread not in (thread, None), "another thread")
        assert "redlock-background ended before its time" in caplog.text
        stays_renewed(lease)
        is_told_of_its_loss(lease, nodes, told)


def test_a_lease_is_not_handed_out_unwatched(nodes: Nodes, shortage: Shortage) -> None:
    """No thread to renew it: an error of ours, and nothing stays on the nodes."""
    with redlock.Redlock(nodes.urls, ttl=60.0) as locks:
        lease = locks.lock("unwatched").acquire()
        assert lease is not None
        shortage.of("redlock-background")
        with pytest.raises(
            RedlockError, match="on 'kept' cannot be watched: can't start new thread"
        ):
            locks.lock("kept", auto_extend=True).acquire()
        with pytest.raises(RedlockError, match="on 'unwatched' cannot be watched"):
            _ = lease.lost
        assert lease.release()
        until(
            lambda: not any(held(node, name) for node in nodes for name in ("kept", "unwatched")),
            "nothing on the nodes",
        )
        shortage.over()
        again = locks.lock("kept", auto_extend=True).acquire(timeout=PATIENCE)
        assert again is not None and again.release()


def test_a_loss_is_told_when_there_is_a_thread_to_tell_it(nodes: Nodes, shortage: Shortage) -> None:
    """`on_lost` is not called without a thread of its own; it is later, and nobody has to call
    anything for that."""
    told: list[Any] = []
    with redlock.Redlock(nodes.urls) as locks:
        shortage.of("redlock-callbacks")
        lease = locks.lock("short", ttl=0.3, on_lost=told.append).acquire()
        assert lease is not None and lease.lost.wait(PATIENCE)
        until(lambda: shortage.refused, "a callback without a thread")
        assert not told
        shortage.over()
        until(lambda: told == [lease], "on_lost")


def test_a_callback_that_exits_does_not_end_the_others(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit ends a thread in silence, and the next one who lost a lease would never hear of
    it."""
    told: list[Any] = []

    def exits(lease: redlock.Lease) -> None:
        told.append(lease.resource)
        raise SystemExit

    with redlock.Redlock(nodes.urls) as locks:
        for name in ("one", "two"):
            lease = locks.lock(name, ttl=0.3, on_lost=exits).acquire()
            assert lease is not None and lease.lost.wait(PATIENCE)
            until(lambda name=name: told[-1:] == [name], f"on_lost of {name}")
    assert caplog.text.count("a callback failed") == 2


def test_an_idle_renewal_thread_ends_and_the_next_lease_begins_another(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a connection to every node, and a thread, for nothing."""
    monkeypatch.setattr("redlock.transport.background._IDLE", 0.1)
    with redlock.Redlock(nodes.urls, ttl=TTL) as locks:
        for _ in range(2):
            lease = locks.lock("kept", auto_extend=True).acquire()
            assert lease is not None
            stays_renewed(lease)
            assert ours("redlock-background") and lease.release()
            until(lambda: not ours("redlock-background"), "the end of the renewal thread")
            assert locks._driver.background._set is None


def test_a_short_lease_does_not_wait_for_the_look_at_a_long_one(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal thread sleeps until the long one is due, in twenty seconds; who takes a short
    one wakes it."""
    monkeypatch.setattr("redlock.transport.background._LOOK_AGAIN", 60.0)
    with redlock.Redlock(nodes.urls, ttl=60.0) as locks:
        kept = locks.lock("kept", auto_extend=True).acquire()
        assert kept is not None
        until(lambda: locks._driver.background._wakes_at > now() + 10.0, "a long sleep")
        short = locks.lock("short", ttl=0.5).acquire()
        assert short is not None
        assert short.lost.wait(8.0)
        assert kept.release()


@pytest.mark.parametrize(("earlier", "wakes"), [(0.1, True), (-0.1, False)])
def test_a_lease_wakes_the_renewal_thread_if_it_is_due_before_that_would_look(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, earlier: float, wakes: bool
) -> None:
    """A tenth of a second decides as well as twenty: a lease of half a second is over by the
    next look, a second later."""
    monkeypatch.setattr("redlock.transport.background._LOOK_AGAIN", 60.0)
    with redlock.Redlock(nodes.urls, ttl=60.0) as locks:
        kept = locks.lock("kept", auto_extend=True).acquire()
        keeper, woken = locks._driver.background, []
        until(lambda: keeper._wakes_at > now() + 10.0, "a long sleep")
        at = now()
        valid_until = at + 3 * (keeper._wakes_at - earlier - at)
        holding = Holding(
            Grant("short", "short", "short:fence", "0" * 32, 7, 600.0),
            60.0,
            at,
            valid_until,
            frozenset(),
        )
        with monkeypatch.context() as patch:
            assert keeper._set is not None
            patch.setattr(keeper._set.sockets, "ring", lambda: woken.append(1))
            keeper.watch(Watch(holding, lambda _: None, ttl=60.0, now=at))
        assert bool(woken) is wakes
        assert kept is not None and kept.release()


def test_an_observer_that_exits_costs_no_renewal(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its SystemExit goes no further than what is told: not through the connection that is read,
    and not into the pause that a thread makes which failed. Short leases would be lost by that."""
    told: list[str] = []

    def exits(event: object) -> None:
        if threading.current_thread().name == "redlock-background":
            told.append(type(event).__name__)
            raise SystemExit

    with redlock.Redlock(nodes.urls, ttl=TTL, on_event=exits) as locks:
        leases = [locks.lock(f"kept:{number}", auto_extend=True).acquire() for number in range(5)]
        until(lambda: told.count("LeaseInJeopardy") > 10, "renewals that are told of")
        assert "failed, and goes on" not in caplog.text
        for lease in leases:
            assert lease is not None and lease.is_held() and lease.release()


def test_an_interrupt_as_a_lease_is_handed_to_the_renewal_thread_comes_out_as_it_is(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread runs by then, and must not have taken what is taken back: no other error hides
    it."""
    with redlock.Redlock(nodes.urls, ttl=TTL) as locks:
        lease = locks.lock("kept").acquire()
        assert lease is not None
        background = locks._driver.background
        again = locks._driver.threads.try_again

        def waits() -> None:
            """The thread is on its way to what is handed in, as it is handed in."""
            if threading.current_thread() is background._thread:
                until(lambda: background._incoming, "a lease that is handed in")
            again()

        def struck() -> str | None:
            time.sleep(0.5)  # For the thread to take it, if it may.
            raise KeyboardInterrupt

        assert not lease.lost.is_set()  # Watched: the thread is there.
        with monkeypatch.context() as patch:
            patch.setattr(locks._driver.threads, "try_again", waits)
            background._wake()
            time.sleep(0.3)
            patch.setattr(background, "_begin", struck)
            with pytest.raises(KeyboardInterrupt):
                background.watch(Watch(lease._holding, lambda held: None, ttl=TTL, now=now()))
            assert not background._incoming
            patch.undo()
        assert lease.release()


# The thread that watches for hang-ups


def swallow(locks: redlock.Redlock, node: Node) -> None:
    """A release that *node* has not answered, nor will on this connection."""
    lease = locks.lock("swallowed", ttl=60.0).acquire()
    assert lease is not None
    node.pause()
    try:
        assert lease.release()
    except BaseException:
        node.resume()
        raise


def test_connections_that_came_in_a_shortage_are_watched_after_it(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor for the watching thread: the dials succeed, and it begins by itself when
    there is one."""
    short = True
    epoll = redlock.transport.hangups.select.epoll  # type: ignore[attr-defined]

    def refusing() -> Any:
        if short:
            raise OSError(errno.EMFILE, "Too many open files")
        return epoll()

    monkeypatch.setattr("redlock.transport.hangups.select.epoll", refusing)
    with redlock.Redlock(own_nodes.urls, ttl=60.0) as locks:
        swallow(locks, own_nodes[0])
        assert not ours("redlock-hangups") and locks._driver.threads.missing
        short = False
        _ = locks.status("any")  # A thread of ours, or a call: there is no other one here.
        assert ours("redlock-hangups")
        ended = own_nodes[0].pid
        assert ended is not None
        own_nodes[0].kill()
        until(lambda: locks._driver.nodes[0].owed, "a debt that nobody called for")


def test_an_exception_does_not_end_the_watch(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next connection that ends is heard of."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0) as locks:
        hangups = locks._driver.hangups
        tell = hangups._tell
        told: list[int] = []

        def exits(fd: int) -> bool:
            told.append(fd)
            if len(told) == 1:
                raise SystemExit
            return tell(fd)

        monkeypatch.setattr(hangups, "_tell", exits)
        swallow(locks, own_nodes[0])
        own_nodes[0].kill()
        until(lambda: locks._driver.nodes[0].owed, "a debt that nobody called for")
        assert "redlock-hangups failed, and goes on" in caplog.text and len(told) > 1


def test_a_hang_up_on_a_set_in_use_is_told_when_it_comes_back(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once, and whoever has the set may have looked at its sockets for the
    last time."""
    with redlock.Redlock(own_nodes.urls) as locks:
        until(lambda: all(report.votes for report in locks.nodes()), "five nodes that vote")
        driver, told = locks._driver, threading.Event()
        tend = driver.tend

        def tending(connections: Any) -> bool:
            knows = tend(connections)
            told.set()
            return knows

        # Which would hear of it too, where an answer is owed.
        monkeypatch.setattr(driver, "hear_releases", lambda: None)
        connections = driver._check_out()
        monkeypatch.setattr(driver, "tend", tending)
        try:
            own_nodes[0].kill()
            assert told.wait(PATIENCE) and connections.descriptor(0) >= 0
        finally:
            driver._check_in(connections)
        until(lambda: connections.descriptor(0) == -1, "the end of that connection")


# Dialling


def test_a_dial_without_a_thread_is_a_vote_with_a_reason(nodes: Nodes, shortage: Shortage) -> None:
    """From the first use on, and the same coordinator works as soon as there are threads."""
    with redlock.Redlock(nodes.urls) as locks:
        shortage.of("redlock")
        for _ in range(3):
            with pytest.raises(QuorumUnavailable) as raised:
                locks.lock("orders").acquire(blocking=False)
            reasons = [vote.reason for vote in raised.value.votes]
            assert reasons.count("could not be dialled (can't start new thread)") >= 3
            assert set(reasons) <= {
                "could not be dialled (can't start new thread)",
                "was not waited for",
            }
        assert not any(dialer._wanted for dialer in locks._driver.dialers), (
            "whoever was answered waits for nothing"
        )
        shortage.over()
        lease = locks.lock("orders").acquire(timeout=PATIENCE)
        assert lease is not None and lease.release()


def confirmed(lease: redlock.Lease) -> bool:
    """Use the connections. While another thread looks after them a call needs connections of its
    own, and may have none."""
    with contextlib.suppress(QuorumUnavailable):
        lease.verify()
        return True
    return False


def test_a_release_is_brought_when_there_is_a_thread_to_bring_it(
    own_nodes: Nodes, shortage: Shortage
) -> None:
    """Nobody calls: the thread that watches for hang-ups begins the dial."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0) as locks:
        lease = locks.lock("owed").acquire()
        assert lease is not None
        shortage.of("redlock-dial")
        disconnect(own_nodes[0])
        until(
            lambda: shortage.refused or not confirmed(lease),
            "a connection that is gone and cannot be dialled",
        )
        lease.release()
        until(
            lambda: locks._driver.nodes[0].owed or not held(own_nodes[0], "owed"),
            "the release, or a debt",
        )
        shortage.over()
        until(
            lambda: not held(own_nodes[0], "owed") and not locks._driver.nodes[0].owed,
            "the release",
        )


def test_a_dial_that_raises_what_nobody_expects_is_that_nodes_fault(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The set that waits is told, the thread goes on, and the node votes again when dialling
    works."""
    with redlock.Redlock(nodes.urls) as locks:
        broken = locks._driver.dialers[0]
        dial = broken._dial

        def exits() -> Any:
            raise SystemExit("nobody catches this")

        monkeypatch.setattr(broken, "_dial", exits)
        lease = locks.lock("orders").acquire()
        assert lease is not None and lease.release()
        report = locks.nodes()[0]
        assert not report.votes and report.reason == "could not be dialled"
        assert f"{broken._name} failed, and goes on" in caplog.text
        monkeypatch.setattr(broken, "_dial", dial)
        until(lambda: locks.nodes()[0].votes, "the node's vote")


def test_dial_threads_end(nodes: Nodes) -> None:
    """When everybody has a connection nobody dials."""
    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None and lease.release()
        until(lambda: not ours("redlock-dial"), "the end of the dial threads")


def test_the_thread_that_brings_what_is_owed_ends_when_nothing_is(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it goes on until then, though the node is away for long."""
    monkeypatch.setattr("redlock.transport.background._IDLE", 0.1)
    with redlock.Redlock(own_nodes.urls, ttl=60.0) as locks:
        lease = locks.lock("owed").acquire()
        assert lease is not None
        own_nodes[0].kill()
        lease.verify()
        until(
            lambda: not lease.verify() and locks._driver.nodes[0].fault,
            "the node is known to be down",
        )  # type: ignore[func-returns-value]
        assert lease.release() and locks._driver.nodes[0].owed
        assert ours("redlock-background")
        time.sleep(0.5)
        assert ours("redlock-background")
        own_nodes[0].start()
        until(lambda: not locks._driver.nodes[0].owed, "the release, crossed off")
        until(
            lambda: not ours("redlock-background") and not ours("redlock-dial"),
            "the end of the threads",
        )


def test_what_was_brought_is_looked_after_no_more_though_the_thread_goes_on(
    own_nodes: Nodes,
) -> None:
    """It has leases to renew, and is not woken four times a second for a debt of long ago."""
    with redlock.Redlock(own_nodes.urls, ttl=60.0) as locks:
        kept = locks.lock("kept", auto_extend=True).acquire()
        lease = locks.lock("owed").acquire()
        assert kept is not None and lease is not None
        own_nodes[0].kill()
        lease.verify()
        until(
            lambda: not lease.verify() and locks._driver.nodes[0].fault,
            "the node is known to be down",
        )  # type: ignore[func-returns-value]
        assert lease.release() and locks._driver.nodes[0].owed
        own_nodes[0].start()
        background = locks._driver.background
        until(lambda: not locks._driver.nodes[0].owed, "the release, crossed off")
        until(lambda: not background._owing and background._wakes_at > now() + 0.5, "a long sleep")
        assert ours("redlock-background") and kept.release()


def test_a_connection_that_nobody_dialled_for_is_hung_up(nodes: Nodes) -> None:
    """Otherwise the answers of the one that is there would be taken for those of the other."""
    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None
        (connections,) = locks._driver._idle
        before = connections.descriptor(0)
        connection, sock = locks._endpoints[0].connect(1.0)
        sock.setblocking(False)
        connections.sockets.arrive(0, connection, sock, None)
        lease.verify()
        assert connections.descriptor(0) == before
        assert sock.fileno() == -1
        assert lease.release()


# Sets of connections


class NoPairs:
    """No descriptors for another set of connections."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.short = False
        pair = socket.socketpair

        def refusing(*args: Any) -> Any:
            if self.short:
                raise OSError(errno.EMFILE, "Too many open files")
            return pair(*args)

        patch.setattr("redlock.transport.sockets.socket.socketpair", refusing)


@pytest.fixture
def no_pairs(monkeypatch: pytest.MonkeyPatch) -> NoPairs:
    return NoPairs(monkeypatch)


@pytest.mark.parametrize("extends", [True, False])
def test_a_lease_whose_set_was_lost_waits_for_another_no_longer_than_it_lasts(
    nodes: Nodes, no_pairs: NoPairs, extends: bool
) -> None:
    """A Ctrl-C may tear a set out of all hands while its lease keeps it alive: it counts as in
    use, and never comes back."""
    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders", ttl=1.0).acquire()
        assert lease is not None
        no_pairs.short = True
        locks._driver._idle.clear()
        if extends:
            with pytest.raises(LeaseLost):
                lease.extend()
        assert not lease.release()
        assert all(node.owed for node in locks._driver.nodes)
        no_pairs.short = False


def test_without_a_set_of_connections_there_is_no_quorum_and_a_reason(
    nodes: Nodes, no_pairs: NoPairs
) -> None:
    """For one who tries once; who has time waits for the end of the shortage."""
    with redlock.Redlock(nodes.urls) as locks:
        no_pairs.short = True
        for ask in (
            lambda: locks.lock("orders").acquire(blocking=False),
            locks.nodes,
            lambda: locks.status("orders"),
        ):
            with pytest.raises(QuorumUnavailable) as raised:
                ask()
            reasons = {vote.reason for vote in raised.value.votes}
            assert reasons == {
                "was not asked: no more connections can be made (Too many open files)"
            }
        with pytest.raises(QuorumUnavailable, match=r"^lock 'orders': 0 of"):
            locks.lock("orders").acquire(timeout=0.2)
        no_pairs.short = False
        with locks.lock("kept") as kept:
            no_pairs.short = True
            kept._connections = None
            locks._driver._idle.clear()
            with pytest.raises(QuorumUnavailable, match=r"^lock 'kept': 0 of"):
                kept.extend()
            no_pairs.short = False
        for timeout in (PATIENCE, None):
            no_pairs.short = True
            locks._driver._idle.clear()
            waits = threading.Timer(0.3, lambda: setattr(no_pairs, "short", False))
            waits.start()
            lease = locks.lock("orders").acquire(timeout=timeout)
            waits.join()
            assert lease is not None and lease.release()


def test_where_no_set_can_be_made_one_in_use_is_waited_for(nodes: Nodes, no_pairs: NoPairs) -> None:
    """It comes back; and it is handed over."""
    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None and lease.release()
        no_pairs.short = True
        connections = locks._driver._idle.pop()
        found: list[Any] = []
        other = threading.Thread(
            target=lambda: found.append(locks.lock("orders").acquire(blocking=False))
        )
        other.start()
        until(lambda: locks._driver._waiters, "somebody who waits")
        locks._driver._check_in(connections)
        other.join(PATIENCE)
        assert found[0] is not None and found[0].release()


def test_a_release_without_connections_stays_owed(nodes: Nodes, no_pairs: NoPairs) -> None:
    """It returns False, the lease is over, and the nodes get it nevertheless."""
    with redlock.Redlock(nodes.urls, ttl=60.0) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None
        lease._connections = None
        locks._driver._idle.clear()  # Its sets are gone with their connections.
        no_pairs.short = True
        assert not lease.release()
        assert not lease.is_held()
        no_pairs.short = False
        until(lambda: not any(held(node, "orders") for node in nodes), "the release")


# Names


class Hung:
    """Name look-ups of `hung.invalid` that end when they are told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.end = threading.Event()
        self.asked: list[str] = []
        look_up = socket.getaddrinfo

        def hanging(host: Any, *args: Any, **options: Any) -> Any:
            if host == "hung.invalid":
                self.asked.append(threading.current_thread().name)
                assert self.end.wait(PATIENCE)
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return look_up(host, *args, **options)

        patch.setattr(socket, "getaddrinfo", hanging)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hung]:
    found = Hung(monkeypatch)
    yield found
    found.end.set()


def test_a_hung_name_fills_no_executor_of_the_loop(
    nodes: Nodes, hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is dialled, one thread of ours waits for it; the others vote, and close
    is not held up."""

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def refused(*_: Any) -> Any:
            raise AssertionError("the loop's threads are not ours")

        monkeypatch.setattr(loop, "run_in_executor", refused)
        urls = [
            *nodes.urls[:3],
            nodes.urls[3].replace("127.0.0.1", "localhost"),
            "redis://hung.invalid:6379",
        ]
        locks = redlock.asyncio.Redlock(urls, ttl=TTL, node_timeout=0.1)
        dials = 0
        dial = locks._driver.streams.dial

        def counted(index: int) -> None:
            nonlocal dials
            dials += index == 4
            dial(index)

        locks._driver.linkset.links[4]._dial = lambda: counted(4)
        deadline = loop.time() + PATIENCE
        while dials < 4:
            assert loop.time() < deadline
            lease = await locks.lock("orders").acquire(timeout=PATIENCE)
            assert lease is not None and await lease.release()
            await asyncio.sleep(0.01)
        assert hung.asked == ["redlock-lookup-hung.invalid"]
        assert "was not looked up" in (await locks.nodes())[4].reason
        await locks.close()
        assert len(ours("redlock-lookup")) == 1, "close waited for the look-up"

    asyncio.run(run())


def test_a_name_that_is_not_known_is_that_nodes_fault(nodes: Nodes, hung: Hung) -> None:
    """In words that tell what to do; and looked up anew by the next dial."""
    hung.end.set()

    async def run() -> None:
        async with redlock.asyncio.Redlock([*nodes.urls[:4], "redis://hung.invalid:6379"]) as locks:
            for asked in (1, 2):
                while len(hung.asked) < asked:
                    lease = await locks.lock("orders").acquire(timeout=PATIENCE)
                    assert lease is not None and await lease.release()
                    await asyncio.sleep(0.01)
                deadline = time.monotonic() + PATIENCE
                while "has a name that is not known" not in (await locks.nodes())[4].reason:
                    assert time.monotonic() < deadline

    asyncio.run(run())


def test_a_hung_name_keeps_its_node_away_and_nobody_else_for_threads(
    nodes: Nodes, hung: Hung
) -> None:
    """One dial thread waits for it; the others vote, and close is not held up."""
    locks = redlock.Redlock([*nodes.urls[:4], "redis://hung.invalid:6379"], node_timeout=0.1)
    for _ in range(5):
        lease = locks.lock("orders").acquire(timeout=PATIENCE)
        assert lease is not None and lease.release()
    assert hung.asked == ["redlock-dial-redis://hung.invalid:6379"]
    locks.close()
    assert len(ours("redlock-dial")) == 1, "close waited for the look-up"


def test_a_dial_that_somebody_cancels_is_not_waited_for(nodes: Nodes) -> None:
    """Programs cancel every task of their loop; the coordinator dials again."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(nodes.urls) as locks:
            first = asyncio.create_task(locks.lock("orders").acquire(blocking=False))
            await asyncio.sleep(0)
            dials = [
                task for task in asyncio.all_tasks() if task.get_name().startswith("redlock-dial")
            ]
            assert len(dials) == 5
            for task in dials:
                task.cancel()
            with pytest.raises(QuorumUnavailable, match="the dial was cancelled"):
                await first
            lease = await locks.lock("orders").acquire(timeout=PATIENCE)
            assert lease is not None and await lease.release()

    asyncio.run(run())


def test_a_name_is_looked_up_anew_once_there_was_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is not kept, and an address may change."""
    answers: list[Any] = [
        OSError("no such name"),
        [(0, 0, 0, "", ("127.0.0.2", 1))],
        [(0, 0, 0, "", ("127.0.0.3", 1))],
    ]

    def answer(*_: Any, **__: Any) -> Any:
        first = answers.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    monkeypatch.setattr("redlock.transport.lookup.socket.getaddrinfo", answer)

    async def run() -> None:
        lookup = Lookup("node.invalid", 1)
        with pytest.raises(OSError, match="no such name"):
            await lookup.addresses(PATIENCE)
        for address in ("127.0.0.2", "127.0.0.3"):
            assert await lookup.addresses(PATIENCE) == [address]

    asyncio.run(run())


# Signals


@pytest.mark.parametrize(
    "where",
    [(Dialer, "_begin"), (Background, "_begin"), (ConnectionSet, "__init__")],
    ids=lambda where: where[0].__name__,
)
def test_the_handler_of_a_signal_may_close_while_its_thread_holds_a_lock_of_ours(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    """It runs in the midst of whatever the main thread does just then, and would wait for that
    for ever."""
    owner, name = where
    original = getattr(owner, name)
    struck: list[str] = []
    errors: list[str] = []
    locks = redlock.Redlock(nodes.urls, ttl=TTL)

    def strike(*arguments: Any, **options: Any) -> Any:
        if not struck and threading.current_thread() is user:
            struck.append(name)
            locks.close()
        return original(*arguments, **options)

    def use() -> None:
        try:
            locks.lock("orders", auto_extend=True).acquire()
            locks.close()
        except RedlockError as error:
            errors.append(str(error))

    user = threading.Thread(target=use, daemon=True)
    monkeypatch.setattr(owner, name, strike)
    user.start()
    user.join(PATIENCE)
    assert not user.is_alive()
    assert struck == [name]
    assert errors in ([], ["this Redlock is closed: make another"])
    assert locks._driver.closed


# A worker alone


class Counting(Worker):
    """Has *left* steps to do; *fails* holds what each of them raises."""

    def __init__(self) -> None:
        super().__init__(Threads())
        self.left = 0
        self.fails: list[BaseException] = []
        self.dies = False
        self.tidied = 0

    def ask(self) -> str | None:
        with self._lock:
            self.left += 1
            return self._begin()

    def _due(self) -> bool:
        if self.dies:
            self.dies = False
            raise MemoryError
        return self.left > 0

    def _step(self) -> None:
        if self.fails:
            raise self.fails.pop()
        self.left -= 1

    def _tidy(self) -> None:
        self.tidied += 1


def test_a_step_that_raises_is_done_again() -> None:
    """Whatever it raises, and the thread ends when nothing is left."""
    worker = Counting()
    worker.fails = [MemoryError(), SystemExit(), ValueError("no")]
    assert worker.ask() is None
    until(lambda: not worker.left and worker._thread is None, "the work")
    assert worker.tidied == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_before_its_time_is_begun_again() -> None:
    """Where no handler of ours is: who comes by begins another one, and who asks does."""
    for asks in (False, True):
        worker = Counting()
        worker.dies = True
        worker.ask()
        until(lambda worker=worker: worker._thread is None, "the end of the thread")
        assert worker.left and worker._threads.missing
        if asks:
            worker.ask()
        else:
            worker._threads.try_again()
        until(lambda worker=worker: not worker.left, "the work")


def test_a_shortage_is_remembered_once_and_ends(shortage: Shortage) -> None:
    """Asked for a hundred times, begun once."""
    worker = Counting()
    rung: list[int] = []
    worker._threads.on_missing = lambda: rung.append(1)
    shortage.of("redlock")
    for _ in range(100):
        assert worker.ask() == "can't start new thread"
    assert len(worker._threads.missing) == 1 and rung
    assert worker.tidied == 100, (
        "what a thread would have needed is given back each time: it may be descriptors"
    )
    worker._threads.try_again()
    assert len(worker._threads.missing) == 1, "it is still missing"
    shortage.over()
    worker._threads.try_again()
    until(lambda: not worker.left, "the work")
    assert not worker._threads.missing


# Events and callbacks of lost leases


def test_lost_that_could_not_be_watched_is_watched_when_it_is_asked_for_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that nobody sets would let its holder work on for ever."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders", ttl=1.0).acquire()
        assert lease is not None
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(RedlockError, match="cannot be watched: can't start new thread"):
                    _ = lease.lost
        assert lease.lost.wait(PATIENCE)


def test_all_threads_that_ask_for_lost_get_the_same_event(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However close they come: the second asks while the first has the event made."""
    with redlock.Redlock(nodes.urls) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None
        watch, inside, got = locks._watch, threading.Event(), []

        def slow(lease: redlock.Lease, *, auto_extend: bool) -> None:
            inside.set()
            second.join(0.2)
            watch(lease, auto_extend=auto_extend)

        def ask() -> None:
            assert inside.wait(PATIENCE)
            got.append(lease.lost)

        second = threading.Thread(target=ask)
        second.start()
        monkeypatch.setattr(locks, "_watch", slow)
        got.append(lease.lost)
        second.join(PATIENCE)
        assert len(got) == 2 and got[0] is got[1]
        lease.release()


def test_a_callback_that_blocks_keeps_no_other_waiting(nodes: Nodes) -> None:
    """Each waits for something of its own, and several leases are lost at one moment."""
    end, told = threading.Event(), threading.Semaphore(0)

    def waits(lease: redlock.Lease) -> None:
        told.release()
        assert end.wait(PATIENCE)

    with redlock.Redlock(nodes.urls) as locks:
        leases = [
            locks.lock(f"orders:{number}", ttl=0.5, on_lost=waits).acquire() for number in range(4)
        ]
        assert None not in leases
        assert all(told.acquire(timeout=PATIENCE) for _ in range(4))
        end.set()


def test_callbacks_beyond_the_bound_wait_for_those_before(nodes: Nodes) -> None:
    """However many are lost at one moment, there are only so many threads; none is forgotten."""
    end, told = threading.Event(), threading.Semaphore(0)
    errands = Callbacks(Threads())
    for _ in range(CALLBACKS_MAX + 3):
        errands.run(lambda: (told.release(), end.wait(PATIENCE)))
    assert all(told.acquire(timeout=PATIENCE) for _ in range(CALLBACKS_MAX))
    assert not told.acquire(timeout=0.05)
    end.set()
    assert all(told.acquire(timeout=PATIENCE) for _ in range(3))
    errands.close()


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
def test_a_decorated_function_that_gives_a_body_for_later_is_refused(
    nodes: Nodes, kind: str
) -> None:
    """It would run after the lock was released; a wrapper or a lambda does not show that before
    it is called."""

    async def later() -> None:
        raise AssertionError

    def steps() -> Iterator[None]:
        yield

    with redlock.Redlock(nodes.urls) as locks:
        with pytest.raises(
            TypeError, match=f"gave a {kind}: its body would run after the lock was released"
        ):
            locks.lock("orders")(lambda: later() if kind == "coroutine" else steps())()
        with locks.lock("orders", timeout=PATIENCE):
            pass


def test_an_extension_near_max_hold_is_no_wrong_setting(nodes: Nodes) -> None:
    """What is left of the lease is less than anybody may ask for by himself."""
    with redlock.Redlock(nodes.urls, ttl=3.0, node_timeout=0.9) as locks:
        lease = locks.lock("orders", max_hold=3.2).acquire()
        assert lease is not None
        lease._holding.hold_until = now() + 1.5
        for _ in range(3):
            lease.extend()
        assert lease.is_held()
        with pytest.raises(ConfigurationError):
            lease.extend(0.5)
        lease.release()
