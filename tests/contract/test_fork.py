"""After `fork`: the child's leases are dead, its coordinator works with connections of its own,
the parent is unharmed."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import redlock
from redlock.embedded import Nodes
from redlock.errors import LeaseLost, LockInUse, RedlockError
from tests.contract.api import BLOCKING, PATIENCE, Api, Asyncio, Servers, until

# Newer Pythons warn of any fork beside a thread; web servers do it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

Body = Callable[[], Coroutine[Any, Any, Any]]


async def in_child(api: Api, body: Body) -> Any:
    """What *body* returns in a forked child, on a loop of its own; its exception is raised here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(PATIENCE) + 10)
            try:
                answer = (True, api.run(body()))
            except BaseException:  # It is the parent's to raise.
                answer = (False, traceback.format_exc())
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)  # noqa: ASYNC222
    assert data, "the child died"
    well, answer = pickle.loads(data)
    assert well, answer
    return answer


def sockets(pid: int | str = "self") -> set[str]:
    """The sockets a process has open, by the kernel's number for each."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}


async def test_the_childs_leases_are_dead(api: Api, nodes: Nodes, servers: Servers) -> None:
    """LeaseLost that names the fork, from everything; `lost` is set there; the parent's lease is
    held, renewed and released."""
    async with api.redlock(nodes.urls, ttl=1.5) as locks:
        told: list[str] = []
        kept = await locks.lock(
            "kept", auto_extend=True, on_lost=lambda lease: told.append("kept")
        ).acquire()
        lease = await locks.lock("orders", ttl=30.0).acquire()
        lost = lease.lost

        async def child() -> None:
            for dead in (kept, lease):
                assert not dead.is_held()
                assert dead.remaining() == 0.0
                with pytest.raises(LeaseLost, match="fork"):
                    dead.ensure_held()
                for method in (dead.extend, dead.verify):
                    with pytest.raises(LeaseLost, match="fork"):
                        await method()
                assert dead.lost.is_set()
                assert await dead.release() is False
            assert lost.is_set(), "also for one who asked for it before the fork"
            await locks.close()

        await in_child(api, child)
        assert lease.is_held()
        assert not lost.is_set()
        await lease.verify()
        first = kept.valid_until
        assert await until(api, lambda: kept.valid_until > first)
        await kept.verify()
        assert await lease.release() is True
        assert await kept.release() is True
        assert told == []
        assert await until(api, lambda: not servers.lock_keys())


async def test_the_childs_coordinator_works_with_fresh_connections(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Locks, renewal, status and close in the child; not one of the parent's sockets is used or
    kept open there."""
    patient = {"ttl": 1.5, "node_timeout": 0.4}
    async with (
        api.redlock(nodes.urls, **patient) as locks,
        locks.lock("parents", auto_extend=True, ttl=20.0) as lease,
    ):
        before = sockets()

        async def child() -> tuple[set[str], int]:
            held = await locks.status("parents")
            assert held.fencing_token == lease.fencing_token, (
                "the parent holds it, and the child sees that"
            )
            assert await locks.lock("parents").acquire(blocking=False) is None
            async with locks.lock("childs", auto_extend=True, timeout=10.0) as own:
                first = own.valid_until
                assert await until(api, lambda: own.valid_until > first)
                await own.verify()
            opened = sockets()
            await locks.close()
            return opened, own.fencing_token

        opened, token = await in_child(api, child)
        ours = {name for name in before if name not in opened}
        assert len(ours) >= 5, "the parent's connections to the nodes are closed in the child"
        await lease.verify()
        await lease.extend()
        async with locks.lock("childs", timeout=10.0) as next_one:
            assert next_one.fencing_token > token
    assert await until(api, lambda: not servers.lock_keys())


async def test_parent_and_child_draw_different_owners(api: Api, nodes: Nodes) -> None:
    """Owners are drawn from pages of randomness; a page is never used on both sides of a fork. And
    each says of itself what process it is."""
    async with api.redlock(nodes.urls, holder=None) as locks:

        async def owners() -> list[str]:
            drawn = []
            for _ in range(5):
                async with locks.lock("orders", timeout=10.0) as lease:
                    drawn.append(lease.owner)
            async with locks.lock("orders", timeout=10.0):
                said = (await locks.status("orders")).held_by
            assert said is not None
            assert said.endswith(f":{os.getpid()}")
            return drawn

        drawn = await owners()
        for _ in range(2):
            drawn += await in_child(api, owners)
        drawn += await owners()
        assert len(set(drawn)) == len(drawn)


async def test_a_lock_that_was_held_can_be_used_in_the_child(api: Api, nodes: Nodes) -> None:
    """The child's copy of a Lock is free: it waits for the parent like anybody else."""
    async with api.redlock(nodes.urls) as locks:
        lock = locks.lock("orders", timeout=0)
        lease = await lock.acquire()

        async def child() -> None:
            assert await lock.acquire() is None
            await locks.close()

        await in_child(api, child)

        async def grandchild() -> bool:
            with contextlib.suppress(LeaseLost):
                return bool(await lock.release())
            return False

        assert await in_child(api, grandchild) is False
        await lease.verify()
        assert await lock.release() is True


async def test_a_block_that_was_entered_before_the_fork_ends_with_lease_lost(
    api: Api, nodes: Nodes
) -> None:
    """The child leaves the block with LeaseLost and gives back nothing of its parent's."""
    async with api.redlock(nodes.urls) as locks:
        lease = await locks.lock("orders").acquire()

        async def child() -> None:
            with pytest.raises(LeaseLost, match="fork"):
                async with lease:
                    raise AssertionError("the body ran without the lock")

        await in_child(api, child)
        await lease.verify()
        assert await lease.release() is True


@pytest.mark.loops
async def test_the_numbers_of_a_parents_connections_mean_nothing_else_in_the_child(
    api: Asyncio, nodes: Nodes
) -> None:
    """The parent's loop is there in the child and knows them by number: it would close a file of
    the child's own for them."""
    async with api.redlock(nodes.urls, ttl=30.0) as locks, locks.lock("orders"):
        sockets = [
            each.get_extra_info("socket")
            for each in locks._driver.streams._transports
            if each is not None
        ]
        numbers = [sock.fileno() for sock in sockets]

        def meant() -> set[str]:
            return {str(Path(f"/proc/self/fd/{number}").readlink()) for number in numbers}

        async def child() -> set[str]:
            return meant()

        assert numbers and await in_child(api, child) == {os.devnull}


@pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="the thread that hears of hang-ups needs epoll"
)
async def test_the_child_keeps_nothing_of_what_wakes_its_parents_threads(nodes: Nodes) -> None:
    """A server that forks a worker for each request would come to its limit of descriptors,
    grandchild by grandchild."""

    def wakers() -> set[tuple[str, str]]:
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add((entry.name, str(entry.readlink())))
        return {(name, what) for name, what in found if what.startswith("anon_inode:")}

    before = wakers()
    with redlock.Redlock(nodes.urls, ttl=30.0) as locks, locks.lock("orders"):
        assert wakers() > before

        async def child() -> set[tuple[str, str]]:
            return wakers()

        assert await in_child(BLOCKING, child) == before


async def test_a_lock_under_whose_body_a_thread_forked_is_in_use_in_the_child(nodes: Nodes) -> None:
    """That thread goes on in the child, within the body: the end of its block would give back
    what it took there anew."""
    with redlock.Redlock(nodes.urls, ttl=30.0) as locks:
        lock = locks.lock("orders")

        async def child() -> None:
            with pytest.raises(LockInUse):
                lock.acquire(blocking=False)

        with lock as lease:
            await in_child(BLOCKING, child)
            lease.verify()


async def test_a_closed_coordinator_stays_closed_in_the_child(api: Api, nodes: Nodes) -> None:
    """Fork opens nothing again."""
    locks = api.redlock(nodes.urls)
    await locks.close()

    async def child() -> None:
        with pytest.raises(RedlockError, match="closed"):
            await locks.lock("orders").acquire()

    await in_child(api, child)


async def test_a_child_is_told_though_a_thread_of_the_parent_held_the_lock_of_lost(
    nodes: Nodes,
) -> None:
    """That thread does not exist in the child, and would never let go."""
    with redlock.Redlock(nodes.urls, ttl=30.0) as locks:
        lease = locks.lock("orders").acquire()
        assert lease is not None
        lost = lease.lost

        async def child() -> bool:
            assert lease.lost is lost
            return lost.wait(0) and lost.is_set()

        with lost._cond:  # type: ignore[attr-defined]
            reader, writer = os.pipe()
            holding = threading.Thread(target=os.read, args=(reader, 1))
            holding.start()
            assert await in_child(BLOCKING, child)
            os.close(writer)
            holding.join()
            os.close(reader)
        assert not lost.is_set() and lease.release()


async def test_a_lock_that_others_used_at_the_fork_can_be_used_in_the_child(
    api: Api, nodes: Nodes
) -> None:
    """One was waiting for it, another one ran under it: neither is there in the child, and
    neither ever ends there."""
    async with (
        api.redlock(nodes.urls, ttl=2.0) as locks,
        api.redlock(nodes.urls, ttl=2.0) as others,
    ):
        waited_for, entered, done = locks.lock("awaited"), locks.lock("entered"), api.event()

        async def use(lock: Any) -> None:
            with contextlib.suppress(LeaseLost):
                async with lock:
                    await api.wait(done)

        holder = await others.lock("awaited").acquire()
        users = [api.spawn(use(waited_for)), api.spawn(use(entered))]
        assert await until(api, lambda: entered._entered and waited_for._acquiring)

        async def child() -> list[bool]:
            found = []
            for lock in (waited_for, entered):
                # Everything of the parent's ends by itself.
                lease = await lock.acquire(timeout=PATIENCE)
                found.append(lease.is_held())
                await lease.release()
            return found

        assert await in_child(api, child) == [True, True]
        done.set()
        for user in users:
            await api.join(user)
        assert not holder.is_held() or await holder.release()


@pytest.mark.parametrize("driver", ["redlock.client.Driver", "redlock.asyncio.AsyncDriver"])
async def test_a_coordinator_that_was_being_made_at_the_fork_keeps_no_lease_alive(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """By another thread, which the child does not have: it cannot be reset, and all others are."""
    module, _, name = driver.rpartition(".")
    make, inside, go_on = getattr(sys.modules[module], name), threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        if threading.current_thread() is other:
            inside.set()
            assert go_on.wait(PATIENCE)
        return make(*arguments)

    async with BLOCKING.redlock(nodes.urls, ttl=5.0) as locks:
        leases = [await locks.lock(f"orders:{number}").acquire() for number in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(driver, slow)
            other = threading.Thread(target=sys.modules[module].Redlock, args=(nodes.urls,))
            other.start()
            assert inside.wait(PATIENCE)

            async def child() -> list[bool]:
                return [lease.is_held() for lease in leases]

            assert await in_child(BLOCKING, child) == [False] * 3
            go_on.set()
            other.join(PATIENCE)
        assert [await lease.release() for lease in leases] == [True] * 3


async def test_a_coordinator_that_cannot_be_reset_leaves_the_others_reset(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in one of them, the leases of all others are the parent's."""
    with (
        redlock.Redlock(nodes.urls) as bad,
        redlock.Redlock(nodes.urls, ttl=5.0) as good,
        redlock.Redlock(nodes.urls) as worse,
    ):
        lease = good.lock("orders").acquire()
        assert lease is not None
        for each in (bad, worse):
            monkeypatch.setattr(each, "_after_fork", lambda: 1 // 0)

        async def child() -> bool:
            return lease.is_held()

        assert not await in_child(BLOCKING, child)
        assert lease.release()
