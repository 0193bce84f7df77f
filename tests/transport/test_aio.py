"""The asyncio driver from the inside: what waits unread is no silence, and a connection that was
given up has no say.

Real servers. A test stops its loop from reading by not letting it run: what the driver sees is what
the kernel has.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import redlock.asyncio
from redlock.core.commands import Peek
from redlock.core.effects import Request
from redlock.core.quorum import Fault, FaultKind
from redlock.core.release import abandon
from redlock.embedded import Nodes
from redlock.transport.aio import AsyncDriver
from redlock.transport.clock import now
from redlock.transport.dial import Endpoint
from redlock.transport.link import Link
from redlock.transport.linkset import LinkSet

PATIENCE = 20.0


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait until *holds*; for what the loop and servers do by themselves."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def warm(nodes: Nodes) -> AsyncIterator[redlock.asyncio.Redlock]:
    """A coordinator that knows its nodes, when none owes it an answer."""
    async with redlock.asyncio.Redlock(nodes.urls, ttl=60.0, node_timeout=5.0) as locks:
        async with locks.lock("warm"):
            pass
        await met(locks)
        await until(
            lambda: not any(link.in_flight for link in locks._driver.linkset.links), "all answers"
        )
        yield locks


async def met(locks: redlock.asyncio.Redlock) -> None:
    """Wait until all nodes vote."""
    while not all(report.votes for report in await locks.nodes()):
        pass


async def asked(locks: redlock.asyncio.Redlock) -> asyncio.Task[Any]:
    """Somebody who asked all nodes for a lock, when all have answered and nobody has read it."""
    driver = locks._driver
    task = asyncio.create_task(locks.lock("orders").acquire(blocking=False))
    await asyncio.sleep(0)  # Until it has written; the loop has not looked at a socket since.
    for link, transport in zip(driver.linkset.links, driver.streams._transports, strict=True):
        assert len(link.in_flight) == 1 and transport is not None
        assert select.select([transport.get_extra_info("socket")], [], [], PATIENCE)[0]
    return task


async def released(task: asyncio.Task[Any]) -> None:
    lease = await task
    assert lease is not None and await lease.release()


def test_answers_that_wait_unread_come_before_the_end_of_their_time(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop was blocked for longer than the node timeout, and its timer is the first to run:
    everybody had answered."""
    ahead = 0.0

    async def run() -> None:
        nonlocal ahead
        async with warm(nodes) as locks:
            task = await asked(locks)
            ahead = 6.0
            locks._driver.streams._tick()
            await released(task)

    for name in ("aio", "streams"):
        monkeypatch.setattr(f"redlock.transport.{name}.clock", lambda: now() + ahead)
    asyncio.run(run())


def peek(driver: AsyncDriver) -> None:
    """Ask the first node something, when it has owed an answer for too long."""
    driver.linkset.links[0]._silence = 0.0
    driver.linkset.send(
        [Request(0, Peek("redlock:orders", "redlock:orders:fence"), math.inf)], None
    )
    driver.linkset.links[0]._silence = driver.linkset.silence


def test_an_answer_that_waits_unread_is_no_silence(nodes: Nodes) -> None:
    """The node answered while the loop did not run: its connection is kept."""

    async def run() -> None:
        async with warm(nodes) as locks:
            task = await asked(locks)
            before = locks._driver.streams._transports[0]
            peek(locks._driver)
            assert (
                locks._driver.streams._transports[0] is before and locks._driver.linkset.links[0].up
            )
            await released(task)

    asyncio.run(run())


def test_a_node_that_said_nothing_is_given_up(own_nodes: Nodes) -> None:
    """Where nothing waits unread, what it owes fails; somebody who wants to know is not kept
    waiting."""

    async def run() -> None:
        async with warm(own_nodes) as locks:
            driver = locks._driver
            own_nodes[0].pause()
            try:
                lease = await locks.lock("orders").acquire()
                peek(driver)
                assert driver.streams._transports[0] is None and not driver.linkset.links[0].up
            finally:
                own_nodes[0].resume()
            assert lease is not None and await lease.release()

    asyncio.run(run())


def test_what_is_heard_late_of_an_old_connection_does_not_touch_the_new_one(nodes: Nodes) -> None:
    """Neither its end nor its bytes: a transport tells both a turn or more after it was given
    up."""

    async def run() -> None:
        async with warm(nodes) as locks:
            driver = locks._driver
            old = driver.streams._protocols[0]
            assert old is not None
            driver.linkset._lose(0, Fault(FaultKind.LOST, "was given up"))
            await met(locks)
            new = driver.streams._protocols[0]
            assert new is not None and new is not old
            driver.streams.received(0, old, b"+OK\r\n")
            old.connection_lost(None)
            assert driver.streams._protocols[0] is new and driver.linkset.links[0].up
            await released(asyncio.create_task(locks.lock("orders").acquire()))
            assert driver.streams._protocols[0] is new

    asyncio.run(run())


def test_a_node_that_falls_silent_at_what_it_owes_is_dialled_anew(own_nodes: Nodes) -> None:
    """It had refused a release, and says nothing when that is brought again: nobody has to call
    for that connection to end."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(own_nodes.urls, ttl=60.0, node_timeout=0.1) as locks:
            driver = locks._driver
            await met(locks)
            lease = await locks.lock("orders").acquire()
            assert lease is not None
            before = driver.streams._transports[0]
            own_nodes[0].pause()
            try:
                driver.linkset.links[0].node.refused(
                    abandon(locks._cluster, lease._holding, now())[0].command, now()
                )
                await until(
                    lambda: driver.streams._transports[0] is not before,
                    "the end of the silent connection",
                )
            finally:
                own_nodes[0].resume()
            await until(lambda: not driver.linkset.links[0].node.owed, "the end of the debt")

    asyncio.run(run())


def test_a_release_is_not_brought_for_ever(own_nodes: Nodes) -> None:
    """The lock has expired by then: nothing is owed any more, and no timer is left that would
    dial a dead node for it."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(own_nodes.urls, ttl=0.5, node_timeout=0.1) as locks:
            driver = locks._driver
            await met(locks)
            lease = await locks.lock("orders").acquire()
            own_nodes[0].kill()
            await until(lambda: not driver.linkset.links[0].up, "the end of the connection")
            assert lease is not None and await lease.release()
            assert driver.linkset.links[0].node.owed and driver.linkset._bring_at < math.inf
            await until(lambda: not driver.linkset.links[0].node.owed, "the end of the debt")
            await until(lambda: driver.linkset._bring_at == math.inf, "the end of the timer")

    asyncio.run(run())


class Ended:
    """A connection that has ended, before its driver was told: under TLS it has no socket, and
    uvloop's refuses to be used."""

    def __init__(self, *, closing: bool) -> None:
        self.closing = closing

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> None:
        assert not self.closing, "unable to perform operation: the handler is closed"

    def write(self, data: bytes) -> None:
        assert not self.closing, "unable to perform operation: the handler is closed"

    def abort(self) -> None:
        """It has ended."""

    close = abort


@pytest.mark.parametrize("closing", [False, True])
def test_a_connection_whose_end_was_not_told_yet_breaks_nothing(
    nodes: Nodes, closing: bool
) -> None:
    """Who waits beside it is not kept waiting for ever, and its silence is no silence."""

    async def body() -> None:
        async with warm(nodes) as locks:
            driver, ended = locks._driver, Ended(closing=closing)
            kept = driver.streams._transports[0]
            driver.streams._transports[0] = ended  # type: ignore[call-overload]
            lease = await locks.lock("orders").acquire()
            assert lease is not None
            assert driver.linkset.links[0].in_flight
            driver.linkset._unread()  # Others may have answered meanwhile.
            driver.linkset._make_sure(0, now())
            assert driver.linkset.links[0].up
            await lease.release()
            driver.streams._transports[0] = kept

    asyncio.run(body())


def test_a_timer_that_fails_is_set_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for their time."""

    async def body() -> None:
        async with warm(nodes) as locks, locks.lock("orders"):
            driver = locks._driver
            waiter = asyncio.create_task(locks.lock("orders").acquire(timeout=1.0))
            await until(
                lambda: any(run.wait.pause for run in driver._runs),
                "somebody whom nothing but the time can wake",
            )
            assert driver.streams._timer is not None
            driver.streams._timer.cancel()  # It is the timer that fails: no other one is set.
            with monkeypatch.context() as patch:
                patch.setattr(LinkSet, "_end_waits", lambda links, now: 1 // 0)
                with pytest.raises(ZeroDivisionError):
                    driver.streams._tick()
            assert await asyncio.wait_for(waiter, PATIENCE) is None

    asyncio.run(body())


def test_rounds_that_ended_before_their_time_leave_no_timers(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all of them do: with an entry for each until its node timeout, a busy program would
    keep thousands."""
    monkeypatch.setattr("redlock.transport.linkset.TIMERS_MIN", 8)

    async def run() -> None:
        async with warm(nodes) as locks, locks.lock("kept"):
            waiting = asyncio.create_task(locks.lock("kept", timeout=0.5).acquire())
            for _ in range(50):
                async with locks.lock("orders"):
                    pass
            assert len(locks._driver.linkset._timers) <= 24
            assert await waiting is None, "whose time is not over keeps its timer"

    asyncio.run(run())


def test_a_close_ends_the_dials_that_are_under_way(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs would be waited for, and its task would outlive the coordinator."""
    connect = Endpoint.open

    async def run() -> None:
        async def hanging(endpoint: Endpoint, *args: Any) -> Any:
            if endpoint.name == nodes[0].url:
                await asyncio.Event().wait()
            return await connect(endpoint, *args)

        monkeypatch.setattr(Endpoint, "open", hanging)
        locks = redlock.asyncio.Redlock(nodes.urls)
        async with locks.lock("warm", timeout=PATIENCE):
            pass
        await until(lambda: len(locks._driver.streams._dials) == 1, "the end of all dials but one")
        (dial,) = locks._driver.streams._dials
        await asyncio.wait_for(locks.close(), PATIENCE)
        assert dial.cancelled()

    asyncio.run(run())


class Torn(BaseException):
    """As Ctrl-C, which would end the loop."""


@pytest.mark.parametrize("where", ["as it writes", "as it reads"])
def test_an_exception_that_tears_through_costs_one_connection_and_no_node(
    nodes: Nodes, where: str
) -> None:
    """Between a link's note and its write the answers would drift, or the node would be asked no
    more for ever."""

    async def run() -> None:
        async with warm(nodes) as locks:
            driver = locks._driver
            linkset, before = driver.linkset, driver.streams._transports[2]
            write = linkset._write

            def torn(node: int, data: bytes) -> None:
                if node != 2:
                    write(node, data)
                    return
                linkset._write = write
                raise Torn

            class Tearing(Link):
                """A link that takes what came, and is struck before it hands it on."""

                __slots__ = ()

                def received(self, data: bytes, now: float) -> bytes:
                    self.__class__ = Link  # type: ignore[assignment]
                    self.received(data, now)
                    raise Torn

            if where == "as it writes":
                linkset._write = torn
                with pytest.raises(Torn):
                    await locks.lock("orders").acquire()
            else:
                linkset.links[2].__class__ = Tearing
                errors: list[object] = []
                asyncio.get_running_loop().set_exception_handler(
                    lambda _, found: errors.append(found)
                )
                await released(asyncio.create_task(locks.lock("orders").acquire()))
                await until(lambda: linkset.links[2].__class__ is Link, "bytes of the node")
            assert driver.streams._transports[2] is not before
            await met(locks)
            await released(asyncio.create_task(locks.lock("orders").acquire()))

    asyncio.run(run())


def test_a_timer_that_ctrl_c_strikes_is_set_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first line of the tick: whoever waits for the time, now or later, would do so for
    ever."""
    struck: list[AsyncDriver] = []
    tick = LinkSet.tick

    def strikes(linkset: LinkSet) -> None:
        if struck and linkset is struck[0].linkset:
            struck.clear()
            raise KeyboardInterrupt
        tick(linkset)

    async def waits(locks: redlock.asyncio.Redlock) -> None:
        assert await locks.lock("held", timeout=0.5).acquire() is None

    monkeypatch.setattr(LinkSet, "tick", strikes)
    with asyncio.Runner() as runner:
        holder = redlock.asyncio.Redlock(nodes.urls, ttl=60.0)
        locks = redlock.asyncio.Redlock(nodes.urls, ttl=60.0)
        lease = runner.run(holder.lock("held").acquire())
        assert lease is not None
        runner.run(waits(locks))
        waiting = runner.get_loop().create_task(waits(locks))
        struck.append(locks._driver)
        with pytest.raises(KeyboardInterrupt):
            runner.get_loop().run_until_complete(waiting)
        runner.run(asyncio.wait_for(waiting, PATIENCE))
        runner.run(asyncio.wait_for(waits(locks), PATIENCE))
        assert runner.run(lease.release())
        runner.run(locks.close())
        runner.run(holder.close())
