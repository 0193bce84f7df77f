"""The life of a coordinator: it does nothing before its first use, and nothing of it is left
after `close`."""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import socket
import threading
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from redlock.errors import ConfigurationError, RedlockError
from redlock.observe import (
    LeaseGranted,
    LeaseLapsed,
    LeaseReleasing,
    NodeAdmitted,
    TryFailed,
    TryStarted,
)
from tests.contract.api import Api, Journal, Servers, descriptors, majority, paused, until


@pytest.fixture
def listener() -> Any:
    """A port that would notice a connection, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("module", [redlock, redlock.asyncio], ids=["blocking", "asyncio"])
def test_the_constructor_does_no_io(listener: socket.socket, module: Any) -> None:
    """No connection, no thread, no loop needed; neither for `lock`."""
    threads = threading.enumerate()
    before = descriptors()
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.warns(UserWarning, match="1 node"):
        locks = module.Redlock([url])
    locks.lock("orders", ttl=5.0, timeout=1.0, auto_extend=True, max_hold=60.0)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        assert not selector.select(0.05)
    assert threading.enumerate() == threads
    assert descriptors() == before


@pytest.mark.uvloop
async def test_close_releases_what_the_coordinator_holds(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Every lease still in hand, renewed or not; others can have the locks at once."""
    locks = api.redlock(nodes.urls)
    leases = [
        await locks.lock(f"orders:{number}", auto_extend=number % 2 == 0).acquire()
        for number in range(20)
    ]
    assert servers.lock_keys()
    await locks.close()
    assert not any(lease.is_held() for lease in leases)
    assert await until(api, lambda: not servers.lock_keys())
    assert [await lease.release() for lease in leases] == [False] * 20
    await locks.close()


@pytest.mark.uvloop
async def test_nothing_is_left_after_close(api: Api, nodes: Nodes) -> None:
    """No thread and no descriptor: after renewals, callbacks, a failed dial, a silent majority
    and a contended wait."""
    threads = set(threading.enumerate())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"redis://127.0.0.1:{probe.getsockname()[1]}"
    before = descriptors()
    told = api.event()
    async with (
        api.redlock([*nodes.urls[:4], dead], ttl=1.0) as locks,
        api.redlock(nodes.urls) as others,
    ):
        async with locks.lock("orders", auto_extend=True), others.lock("invoices"):
            assert await locks.lock("invoices", timeout=0.5).acquire() is None
            await locks.status("orders")
            await others.nodes()
        lease = await locks.lock("orders", ttl=0.3, on_lost=lambda lost: told.set()).acquire()
        assert await api.wait(told)
        await lease.release()
        with paused(majority(nodes)), pytest.raises(redlock.QuorumUnavailable):
            await others.lock("orders").acquire(blocking=False)
        assert descriptors() != before

        async def enter() -> None:
            async with others.lock("invoices"):
                pass

        for other in [api.spawn(enter()) for _ in range(3)]:
            await api.join(other)
    assert await until(api, lambda: set(threading.enumerate()) <= threads, timeout=2.0)
    assert descriptors() == before


async def test_nothing_is_left_after_closing_beside_a_silent_node(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """A node that accepts and says nothing keeps no thread and no descriptor alive; its release
    is delivered or expires."""
    threads = set(threading.enumerate())
    before = descriptors()
    with paused(majority(nodes)[:2]):
        async with (
            api.redlock(nodes.urls, ttl=2.0) as locks,
            locks.lock("orders", auto_extend=True, timeout=10.0),
        ):
            pass
        assert await until(api, lambda: set(threading.enumerate()) <= threads, timeout=5.0)
        assert descriptors() == before


async def test_use_after_close_is_an_error(api: Api, nodes: Nodes) -> None:
    """RedlockError that says so, from everything that would need the nodes; a lease only says
    what it is."""
    locks = api.redlock(nodes.urls)
    lock = locks.lock("orders")
    lease = await lock.acquire()
    await locks.close()
    for use in (
        locks.lock("others").acquire,
        lambda: locks.status("orders"),
        locks.nodes,
        locks.lock("others").__aenter__,
    ):
        with pytest.raises(RedlockError, match="closed"):
            await use()
    with pytest.raises(RedlockError):
        await lease.extend()
    with pytest.raises(RedlockError):
        lease.ensure_held()
    assert await lock.release() is False
    async with locks:
        pass


async def test_a_coordinator_that_was_never_used_can_be_closed(api: Api, nodes: Nodes) -> None:
    """Closing twice is as good as once."""
    locks = api.redlock(nodes.urls)
    await locks.close()
    await locks.close()
    with pytest.raises(RedlockError, match="closed"):
        await locks.lock("orders").acquire()


@pytest.mark.uvloop
async def test_close_ends_those_who_wait(api: Api, nodes: Nodes, servers: Servers) -> None:
    """An acquire that waits for a contended lock does not outlive its coordinator: RedlockError,
    and nothing stays behind."""
    journal = Journal(api)
    async with api.redlock(nodes.urls) as others:
        locks = api.redlock(nodes.urls, on_event=journal)
        holder = await others.lock("orders").acquire()
        failed = journal.expect(TryFailed)
        waiters = [api.spawn(locks.lock("orders").acquire()) for _ in range(3)]
        assert await api.wait(failed)
        await locks.close()
        for waiter in waiters:
            with pytest.raises(RedlockError, match="closed"):
                await api.join(waiter)
        await holder.verify()
        await holder.release()
        assert await until(api, lambda: not servers.lock_keys())


async def test_close_ends_those_who_ask_a_silent_majority(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """In the middle of a round as well; a late grant is given back when the nodes wake."""
    journal = Journal(api)
    locks = api.redlock(nodes.urls, node_timeout=1.0, ttl=20.0, on_event=journal)
    async with locks.lock("warm", timeout=10.0):
        pass
    with paused(majority(nodes)):
        started = journal.expect(TryStarted)
        waiter = api.spawn(locks.lock("orders").acquire(timeout=10.0))
        assert await api.wait(started)
        await locks.close()
        with pytest.raises(RedlockError):
            await api.join(waiter)
    assert await until(api, lambda: not servers.lock_keys())


def test_the_asyncio_coordinator_refuses_a_second_loop(nodes: Nodes) -> None:
    """It is made without a loop, binds itself to that of its first use, and says so on any
    other."""
    locks = redlock.asyncio.Redlock(nodes.urls)

    async def use() -> None:
        async with locks.lock("orders", timeout=5.0):
            pass

    with asyncio.Runner() as first:
        first.run(use())
        with asyncio.Runner() as second:
            with pytest.raises(ConfigurationError, match="another event loop"):
                second.run(use())
            with pytest.raises(ConfigurationError, match="another event loop"):
                second.run(locks.status("orders"))
            lease = first.run(locks.lock("orders").acquire())
            assert lease is not None
            for use_of_it in (lease.release, lease.extend, locks.close):
                with pytest.raises(ConfigurationError, match="another event loop"):
                    second.run(use_of_it())
            assert lease.is_held(), "and nothing was written from there"
            assert first.run(lease.release()) is True
        first.run(use())
        first.run(locks.close())


@pytest.mark.uvloop
async def test_records_come_in_order(api: Api, nodes: Nodes) -> None:
    """Of one lease: try, grant, release; of a contended try: try, failure. Their instants never
    fall."""
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls, on_event=journal) as locks,
        api.redlock(nodes.urls) as others,
    ):
        async with locks.lock("orders") as lease:
            pass
        async with others.lock("orders", timeout=5.0):
            assert await locks.lock("orders", timeout=0).acquire() is None
    about = [record for record in journal.records if getattr(record, "resource", "") == "orders"]
    assert [type(record) for record in about] == [
        TryStarted,
        LeaseGranted,
        LeaseReleasing,
        TryStarted,
        TryFailed,
    ]
    started, granted, releasing, again, failed = about
    assert started.owner == granted.owner == releasing.owner == lease.owner
    assert (
        started.fencing_token
        == granted.fencing_token
        == releasing.fencing_token
        == lease.fencing_token
    )
    assert again.owner == failed.owner != lease.owner
    assert [record.at for record in about] == sorted(record.at for record in about)
    assert {record.node for record in journal.of(NodeAdmitted)} == set(nodes.urls)
    with pytest.raises(AttributeError):
        started.at = 0.0


async def test_a_log_at_debug_shows_every_try(
    api: Api, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nobody listens by `on_event`: somebody has to find out what happened from the
    log alone."""
    caplog.set_level(logging.DEBUG, logger="redlock.lease")
    async with api.redlock(nodes.urls) as locks, locks.lock("orders"):
        pass
    said = [
        record.getMessage().partition("(")[0]
        for record in caplog.records
        if record.name == "redlock.lease"
    ]
    assert said == ["TryStarted", "LeaseGranted", "LeaseReleasing"]


async def test_an_exception_of_on_event_harms_nobody(
    api: Api, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; locks are granted, renewed and released as ever."""
    seen = []

    def explode(record: Any) -> None:
        seen.append(type(record))
        raise ZeroDivisionError("on_event")

    async with (
        api.redlock(nodes.urls, ttl=0.6, on_event=explode) as locks,
        locks.lock("orders", auto_extend=True) as lease,
    ):
        first = lease.valid_until
        assert await until(api, lambda: lease.valid_until > first)
        await lease.verify()
    assert {TryStarted, LeaseGranted, LeaseReleasing} <= set(seen)
    assert any("on_event" in record.getMessage() and record.exc_info for record in caplog.records)


async def test_closing_in_peace_warns_of_no_node(
    api: Api, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that pages somebody is not written for a connection that was closed on purpose."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders"):
        pass
    await api.sleep(0)
    assert [
        record.getMessage() for record in caplog.records if record.name.startswith("redlock")
    ] == []


def test_a_forgotten_coordinator_is_closed_at_the_end_of_its_process(nodes: Nodes) -> None:
    """Nothing hangs and nothing is printed when the interpreter ends with connections open."""
    import subprocess
    import sys

    program = (
        "import sys\nfrom redlock import Redlock\nlocks = Redlock(sys.argv[1:])\n"
        "with locks.lock('orders', auto_extend=True, timeout=5.0): pass\nprint('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *nodes.urls],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize("event", [LeaseReleasing, LeaseLapsed])
def test_an_observer_may_close_in_the_midst_of_a_close(nodes: Nodes, event: type) -> None:
    """Both return, and nothing is left."""

    def closes(record: object) -> None:
        if isinstance(record, event) and closing:
            locks.close()

    closing = False
    locks = redlock.Redlock(nodes.urls, ttl=30.0, on_event=closes)
    taken = threading.Thread(target=lambda: leases.append(locks.lock("there").acquire()))
    leases: list[redlock.Lease | None] = [locks.lock("here").acquire()]
    taken.start()
    taken.join()
    closing = True
    locks.close()
    for node in nodes:
        with node.client() as client:
            assert not client.exists("redlock:here", "redlock:there")
