"""Taking a lock: who gets a lease, who gets None, and who gets an error that pages somebody."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from redlock.errors import (
    ConfigurationError,
    LeaseLost,
    LeaseReleased,
    LockContended,
    LockInUse,
    NodeUnreachable,
    QuorumUnavailable,
)
from redlock.observe import NodeDisconnected, TryFailed
from redlock.transport.clock import now
from tests.contract.api import BLOCKING, Api, Journal, Servers, majority, paused, until

pytestmark = pytest.mark.uvloop


def dead_urls(count: int) -> list[str]:
    """Addresses where nobody listens."""
    found = []
    for _ in range(count):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found.append(f"redis://127.0.0.1:{probe.getsockname()[1]}")
    return found


async def test_a_free_lock_is_granted_by_a_majority(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """A lease means that a majority holds `owner:token` under the documented key."""
    async with api.redlock(nodes.urls) as locks:
        lease = await locks.lock("orders").acquire()
        assert lease.is_held()
        assert servers.holders("orders").count(f"{lease.owner}:{lease.fencing_token}") >= 3
        assert await lease.release()


@pytest.mark.parametrize(
    ("of_lock", "of_acquire", "at_least"),
    [
        ({"timeout": 9.0}, {"blocking": False}, 0.0),
        ({"timeout": 9.0}, {"timeout": 0}, 0.0),
        ({"timeout": 0}, {}, 0.0),
        ({"timeout": 0.3}, {}, 0.3),
        ({}, {"timeout": 0.3}, 0.3),
        ({"timeout": 0}, {"timeout": 0.3}, 0.3),
        ({"timeout": 0}, {"blocking": True, "timeout": 0.3}, 0.3),
    ],
    ids=str,
)
async def test_a_contended_lock_gives_none_in_time(
    api: Api,
    nodes: Nodes,
    servers: Servers,
    of_lock: dict[str, Any],
    of_acquire: dict[str, Any],
    at_least: float,
) -> None:
    """None when somebody else holds it: after one try, or after exactly the timeout that
    applies; and nothing stays behind."""
    async with api.redlock(nodes.urls) as locks, locks.lock("orders") as lease:
        began_at = now()
        assert await locks.lock("orders", **of_lock).acquire(**of_acquire) is None
        took = now() - began_at
        assert at_least <= took < at_least + 5.0
        assert set(servers.holders("orders")) <= {f"{lease.owner}:{lease.fencing_token}", None}


@pytest.mark.parametrize(
    ("of_lock", "of_acquire"),
    [({}, {}), ({"timeout": None}, {}), ({"timeout": 0}, {"timeout": None})],
)
async def test_without_a_timeout_acquire_waits_for_the_holder(
    api: Api, nodes: Nodes, of_lock: dict[str, Any], of_acquire: dict[str, Any]
) -> None:
    """None as a timeout, the lock's default too, waits for ever: here until the holder releases."""
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls) as locks,
        api.redlock(nodes.urls, on_event=journal) as others,
    ):
        holder = await locks.lock("orders").acquire()
        failed = journal.expect(TryFailed)
        waiter = api.spawn(others.lock("orders", **of_lock).acquire(**of_acquire))
        assert await api.wait(failed)
        await api.sleep(0.3)
        assert not waiter.done()
        assert await holder.release()
        lease = await api.join(waiter)
        assert lease.is_held()
        assert lease.fencing_token > holder.fencing_token
        await lease.release()


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "1", True], ids=str)
async def test_a_timeout_that_is_no_duration_is_refused(
    api: Api, nodes: Nodes, timeout: Any
) -> None:
    """ValueError, naming the value, before anything is sent; from `lock` as from `acquire`."""
    async with api.redlock(nodes.urls) as locks:
        with pytest.raises(ConfigurationError, match="timeout"):
            locks.lock("orders", timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            await locks.lock("orders").acquire(timeout=timeout)


async def test_a_timeout_together_with_blocking_false_is_refused(api: Api, nodes: Nodes) -> None:
    """As `threading.Lock.acquire` refuses it."""
    async with api.redlock(nodes.urls) as locks:
        for timeout in (0, 1.0):
            with pytest.raises(ValueError, match="blocking=False"):
                await locks.lock("orders").acquire(blocking=False, timeout=timeout)


@pytest.mark.parametrize(
    "of_acquire", [{"blocking": False}, {"timeout": 0}, {"timeout": 0.4}], ids=str
)
async def test_without_a_majority_acquire_raises_and_names_the_nodes(
    api: Api, nodes: Nodes, servers: Servers, of_acquire: dict[str, Any]
) -> None:
    """Silence is an outage, not contention: QuorumUnavailable, with the votes and a message for
    the person on call."""
    async with api.redlock(nodes.urls, ttl=2.0) as locks:
        async with locks.lock("other"):
            pass
        with paused(majority(nodes)), pytest.raises(QuorumUnavailable) as caught:
            await locks.lock("orders").acquire(**of_acquire)
        error = caught.value
        message = str(error)
        assert re.match("lock 'orders': [012] of 5 nodes granted, 3 needed, after ", message)
        assert [vote.node for vote in error.votes] == nodes.urls
        for place, vote in enumerate(error.votes):
            if place < 3:
                assert not vote.granted
                assert isinstance(vote.error, NodeUnreachable)
                assert (
                    re.match("did not answer|was not connected", vote.reason)
                    and vote.node in message
                )
                assert vote.reason in message
            else:
                assert vote.error is None
        assert await until(api, lambda: not servers.lock_keys())


async def test_a_new_client_asks_no_node_for_a_vote_before_a_majority_has_shown_a_marker(
    api: Api, nodes: Nodes
) -> None:
    """And says so of those that it could ask: a cluster that is being founded must not look new
    again after a vote."""
    async with api.redlock(nodes.urls, ttl=2.0) as locks:
        with paused(majority(nodes)), pytest.raises(QuorumUnavailable) as caught:
            await locks.lock("orders").acquire(blocking=False)
        reasons = [vote.reason for vote in caught.value.votes]
        assert reasons[3:] == ["is not asked before a majority of the nodes has shown a marker"] * 2
        async with locks.lock("orders", timeout=5.0):
            pass


async def test_nodes_that_refuse_the_connection_are_named(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Three of five addresses where nobody listens: QuorumUnavailable at once says so of each;
    two are survived."""
    dead = dead_urls(3)
    async with api.redlock([*nodes.urls[:2], *dead]) as locks:
        with pytest.raises(QuorumUnavailable) as caught:
            await locks.lock("orders").acquire(blocking=False)
        assert f"; {', '.join(dead)}: refused the connection" in str(caught.value)
        assert not any(vote.granted for vote in caught.value.votes[2:])
    assert await until(api, lambda: not servers.lock_keys())
    async with (
        api.redlock([*nodes.urls[:3], *dead[:2]]) as locks,
        locks.lock("orders", timeout=5.0) as lease,
    ):
        assert lease.is_held()


async def test_a_minority_that_holds_somebody_elses_lock_is_no_contention(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """None only if a majority answered: two nodes that are held and three that are silent tell
    nothing."""
    async with api.redlock(nodes.urls, ttl=2.0) as locks:
        async with locks.lock("warm"):
            pass
        for client in servers.clients:
            client.set("redlock:orders", "somebody", px=60_000)
        assert await locks.lock("orders").acquire(blocking=False) is None
        with paused(majority(nodes)), pytest.raises(QuorumUnavailable, match="held by somebody"):
            await locks.lock("orders").acquire(blocking=False)
        with paused(majority(nodes)[:2]):
            assert await locks.lock("orders").acquire(blocking=False) is None


async def test_the_body_never_runs_without_the_lock(api: Api, nodes: Nodes) -> None:
    """`with` raises LockContended or QuorumUnavailable, each with its votes, and the body stays
    out."""
    async with api.redlock(nodes.urls, ttl=2.0) as locks:
        async with locks.lock("orders", ttl=30.0) as lease:
            for timeout in (0, 0.2):
                with pytest.raises(LockContended, match=f"held by {lease.owner[:8]}") as caught:
                    async with locks.lock("orders", timeout=timeout):
                        pytest.fail("the body ran while somebody else held the lock")
                assert len(caught.value.votes) == 5
                assert lease.owner not in str(caught.value), (
                    "the whole owner would let a reader of logs release the lock"
                )
        with paused(majority(nodes)):
            for timeout in (0, 0.2):
                with pytest.raises(QuorumUnavailable):
                    async with locks.lock("orders", timeout=timeout):
                        pytest.fail("the body ran without a majority")


async def test_with_releases_on_leaving_also_by_an_exception(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """The body's exception comes out as it is, and the lock is free; a return value of `with`
    hides nothing."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders")
        async with lock as lease:
            assert lease.is_held()
        assert not lease.is_held()
        with pytest.raises(ZeroDivisionError):
            async with lock:
                raise ZeroDivisionError
        assert await until(api, lambda: not servers.lock_keys())


async def test_a_lease_is_a_context_manager_of_its_own(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """`acquire` first and `with lease` later: released on leaving."""
    async with api.redlock(nodes.urls) as locks:
        lease = await locks.lock("orders").acquire(blocking=False)
        async with lease as inner:
            assert inner.fencing_token == lease.fencing_token
            assert inner.is_held()
        assert not lease.is_held()
        assert await until(api, lambda: not servers.lock_keys())


async def test_a_lock_in_use_is_refused(api: Api, nodes: Nodes) -> None:
    """Not re-entrant: a nested `with`, `acquire` while held, and another thread or task get
    LockInUse; the holder is unharmed."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders", timeout=0)

        async def enter() -> None:
            async with lock:
                pytest.fail("two bodies on one Lock")

        async with lock as lease:
            for other in (enter, lock.acquire):
                with pytest.raises(LockInUse, match="orders"):
                    await other()
                with pytest.raises(RuntimeError, match="orders"):
                    await api.join(api.spawn(other()))
            assert lease.is_held()
        lease = await lock.acquire()
        entered = await locks.lock("others").acquire()
        async with entered:
            with pytest.raises(LockInUse, match="a body runs under the lease on 'others' already"):
                async with entered:
                    raise AssertionError(
                        "the end of this would release the lease under the outer body"
                    )
            entered.ensure_held()
        async with locks.lock("others", timeout=20.0) as entered:
            with pytest.raises(LockInUse, match="a body runs under the lease"):
                async with entered:
                    raise AssertionError("as above")
            entered.ensure_held()
        with pytest.raises(LockInUse):
            await api.join(api.spawn(enter()))
        assert lease.is_held()
        assert await lock.release()


async def test_a_lock_stays_in_use_while_its_body_runs(api: Api, nodes: Nodes) -> None:
    """Also when the lease is over and the body has not learned of it: a second body would leave
    with its lease."""
    async with api.redlock(nodes.urls, ttl=0.4) as locks:
        lock = locks.lock("orders")
        refused = False
        with pytest.raises(LeaseLost):
            async with lock as lease:
                with contextlib.suppress(asyncio.CancelledError):
                    await api.sleep(0.6)
                assert not lease.is_held()
                with pytest.raises(LockInUse):
                    await lock.acquire()
                refused = True
        assert refused
        async with lock:
            pass


@pytest.mark.parametrize("module", [redlock, redlock.asyncio], ids=["blocking", "asyncio"])
def test_a_decorator_takes_locks_of_the_kind_it_was_given(module: Any) -> None:
    """Every argument of the lock holds for each call."""
    locks = module.Redlock([f"redis://127.0.0.1:{port}" for port in (1, 2, 3)])
    lock = locks.lock(
        "orders", ttl=7.0, timeout=3.0, auto_extend=True, max_hold=60.0, on_lost=print
    )
    assert lock._naming(test_a_decorator_takes_locks_of_the_kind_it_was_given).of((), {}) == (
        lock._options
    )
    assert lock._options == (
        "orders",
        ("redlock:orders", "redlock:orders:fence"),
        7.0,
        3.0,
        True,
        60.0,
        print,
        None,
    )


async def test_a_lock_that_is_being_acquired_is_in_use(api: Api, nodes: Nodes) -> None:
    """A second `acquire` while the first still waits is refused, and the first gets its lease."""
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls) as locks,
        api.redlock(nodes.urls, on_event=journal) as others,
    ):
        holder = await locks.lock("orders").acquire()
        lock = others.lock("orders")
        trying = journal.expect(TryFailed)
        waiter = api.spawn(lock.acquire())
        assert await api.wait(trying)
        with pytest.raises(LockInUse, match="being acquired"):
            await lock.acquire(blocking=False)
        with pytest.raises(LockInUse):
            async with lock:
                pytest.fail("two users of one Lock")
        assert await holder.release()
        lease = await api.join(waiter)
        assert lease.is_held()
        assert await lock.release()


async def test_a_lock_can_be_used_again(api: Api, nodes: Nodes) -> None:
    """After a release, after a body, after a failed acquire, and after its lease has expired."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders", ttl=0.3, timeout=0)
        tokens = []
        for _ in range(3):
            async with lock as lease:
                tokens.append(lease.fencing_token)
        lease = await lock.acquire()
        tokens.append(lease.fencing_token)
        other = locks.lock("orders", timeout=0)
        assert await other.acquire() is None
        assert await lock.release()
        assert await other.acquire() is not None
        assert await other.release()
        lease = await lock.acquire()
        tokens.append(lease.fencing_token)
        assert await until(api, lambda: not lease.is_held())
        lease = await lock.acquire(timeout=5.0)
        tokens.append(lease.fencing_token)
        assert await lock.release()
        assert tokens == sorted(set(tokens))


async def test_releasing_a_lock_that_is_not_acquired_says_so(api: Api, nodes: Nodes) -> None:
    """LeaseReleased, as there is no lease any more; before the first acquire as after the last
    release."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders")
        with pytest.raises(LeaseReleased, match="orders"):
            await lock.release()
        await lock.acquire()
        assert await lock.release()
        with pytest.raises(LeaseReleased, match="orders"):
            await lock.release()


async def test_a_decorated_function_takes_a_fresh_lock_for_every_call(
    api: Api, nodes: Nodes
) -> None:
    """Calls at the same time wait for each other and never get LockInUse; name, arguments and
    result pass through."""
    async with api.redlock(nodes.urls) as locks:
        inside: list[int] = []
        most = 0

        @locks.lock("orders", timeout=20.0)
        async def work(number: int, *, more: int) -> int:
            """What it does."""
            nonlocal most
            inside.append(number)
            most = max(most, len(inside))
            await api.sleep(0.01)
            inside.remove(number)
            return number + more

        assert (work.__name__, work.__doc__) == ("work", "What it does.")
        others = [api.spawn(work(number, more=10)) for number in range(4)]
        assert [await api.join(other) for other in others] == [10, 11, 12, 13]
        assert most == 1


async def test_a_decorated_function_s_lock_is_asked_for_like_its_model(
    api: Api, nodes: Nodes
) -> None:
    """Nothing that was said of the lock is lost on the way to the one of a call: not how long it
    may be held, nor who is told."""
    asked: dict[str, Any] = {
        "ttl": 5.0,
        "timeout": 3.0,
        "auto_extend": True,
        "max_hold": 0.5,
        "on_lost": print,
    }

    async def work(number: int) -> None: ...

    async with api.redlock(nodes.urls) as locks:
        for resource, named in (("orders", "orders"), ("orders:{number}", "orders:7")):
            options = locks.lock(resource, **asked)._naming(work).of((7,), {})
            assert (options.resource, options.keys[0]) == (named, f"redlock:{named}")
            assert {name: getattr(options, name) for name in asked} == asked


async def test_a_decorated_function_never_runs_unlocked(api: Api, nodes: Nodes) -> None:
    """Contended: LockContended for the caller; and its own exception is the caller's."""
    async with api.redlock(nodes.urls) as locks:
        calls = []

        @locks.lock("orders", timeout=0)
        async def work() -> None:
            calls.append(1)
            raise ZeroDivisionError

        async with locks.lock("orders"):
            with pytest.raises(LockContended):
                await work()
        assert calls == []
        with pytest.raises(ZeroDivisionError):
            await work()
        with pytest.raises(ZeroDivisionError):
            await work()


def test_the_blocking_decorator_refuses_what_would_run_after_the_release(nodes: Nodes) -> None:
    """An `async def` and a generator function return at once and run later: without the lock."""
    with redlock.Redlock(nodes.urls) as locks:

        async def coroutine() -> None: ...

        async def stream() -> Any:
            yield

        def generator() -> Any:
            yield

        for function in (coroutine, stream, generator):
            with pytest.raises(TypeError, match=function.__name__):
                locks.lock("orders")(function)


def test_the_asyncio_decorator_refuses_what_is_no_coroutine_function(nodes: Nodes) -> None:
    """A plain function cannot wait for its lock; a generator would run without it."""
    locks = redlock.asyncio.Redlock(nodes.urls)

    def plain() -> None: ...

    async def stream() -> Any:
        yield

    for function in (plain, stream):
        with pytest.raises(TypeError, match=function.__name__):
            locks.lock("orders")(function)  # type: ignore[arg-type]


def test_both_apis_export_the_same_names() -> None:
    """What `redlock` has beyond `redlock.asyncio` is its version."""
    assert set(redlock.__all__) - {"__version__"} == set(redlock.asyncio.__all__)
    assert BLOCKING.module.QuorumUnavailable is redlock.asyncio.QuorumUnavailable


@pytest.mark.parametrize("fence", ["inf", "nan", "0x10", "-1", " 7", str(2**53), "broken"])
async def test_a_fence_that_somebody_broke_is_named_and_costs_no_connection(
    api: Api, nodes: Nodes, servers: Servers, fence: str
) -> None:
    """No lease, an error that says why, the same from `status`; a lease of before ends in order,
    and other locks go on."""
    journal = Journal(api)
    async with api.redlock(nodes.urls, on_event=journal) as locks:
        lease = await locks.lock("orders").acquire()
        for client in servers.clients:
            client.set("redlock:orders:fence", fence)
        assert await lease.release()
        # A majority confirmed it; the others have it, and may be slower.
        assert await until(api, lambda: servers.holders("orders") == [None] * len(nodes))
        with pytest.raises(
            QuorumUnavailable, match="said REDLOCK the fence is not a number from 0 to 2"
        ):
            await locks.lock("orders").acquire(blocking=False)
        status = await locks.status("orders")
        assert status.held is None
        assert all("the fence is not a number" in vote.reason for vote in status.votes)
        async with locks.lock("other"):
            pass
    assert journal.of(NodeDisconnected) == []
    assert [client.get("redlock:orders:fence") for client in servers.clients] == [
        fence.encode()
    ] * len(nodes)


async def test_a_block_that_could_not_be_entered_leaves_the_lock_usable(
    api: Api, nodes: Nodes
) -> None:
    """Its lease had ended when it came: no body runs under it, and the lock is not in use for
    that."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders", max_hold=1e-6)
        for _ in range(2):
            with pytest.raises(LeaseLost):
                async with lock:
                    pytest.fail("a body without a lease")
        assert await lock.acquire() is not None
