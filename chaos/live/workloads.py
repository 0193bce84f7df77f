"""What client processes do: coroutines over `Locks`, the same for both APIs and for peers.

Each reports its public calls, what its lease answered whenever it asked, and touches the guarded
store with its token.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from chaos.history import Believed, Note
from chaos.live import worker
from chaos.live.candidates import elect
from chaos.live.program import Held, Locks, Refusal
from chaos.live.shortages import Shortage
from chaos.live.store import StoreClient
from chaos.live.supervised import supervise
from chaos.live.worker import Session, client, drive, emit, note, true_now

__all__ = ["WORKLOADS"]

Workload = Callable[[Session, Locks], Awaitable[None]]


def believes(lease: Held, resource: str) -> bool:
    """Ask the lease, and report a yes."""
    at = true_now()  # Before the question: what it answers was true at or after this.
    left = lease.remaining()
    if left > 0 or lease.is_held():
        emit(Believed(at, client(), resource, lease.token, left))
        return True
    return False


async def _acquire(session: Session, locks: Locks, resource: str, **how: Any) -> Held:
    return await session.timed(
        "acquire", resource, locks.acquire(resource, **how), lambda lease: lease.token
    )


async def _release(session: Session, lease: Held, resource: str) -> None:
    began = true_now()
    confirmed = await lease.release()
    session.report("release", resource, began, "ok" if confirmed else "unconfirmed", lease.token)


def _span(session: Session, name: str, default: tuple[float, float]) -> float:
    low, high = session.task.settings.get(name, default)
    return session.random.uniform(low, high)


async def _section(
    session: Session, locks: Locks, store: StoreClient, lease: Held, resource: str
) -> None:
    """A critical section: read, work, look at the lease, write."""
    basis = store.read(resource, lease.token)
    if "refused" in basis:
        return
    until = true_now() + _span(session, "work", (0.01, 0.05))
    while true_now() < until:
        await locks.sleep(min(0.01, max(0.0, until - true_now())))
        if not believes(lease, resource):
            return
    if believes(lease, resource):
        store.write(resource, lease.token, basis)


async def contend(session: Session, locks: Locks) -> None:
    """Take the lock, change the guarded value, give it back; over and over."""
    resource, deadline = session.task.resource, session.task.settings.get("deadline", 3.0)
    store = StoreClient(session.task.store, client())
    with contextlib.closing(store):
        while not session.ending.is_set():
            try:
                lease = await _acquire(session, locks, resource, timeout=deadline)
            except Refusal as refusal:
                if refusal.outcome.startswith("error"):
                    await locks.sleep(0.05)
                continue
            try:
                await _section(session, locks, store, lease, resource)
            finally:
                await _release(session, lease, resource)
            await locks.sleep(_span(session, "rest", (0.005, 0.03)))


async def probe(session: Session, locks: Locks) -> None:
    """Take a lock that nobody else wants: what an acquire costs, and whether it can be had."""
    resource, deadline = (
        f"{session.task.resource}:{client()}",
        session.task.settings.get("deadline", 3.0),
    )
    while not session.ending.is_set():
        with contextlib.suppress(Refusal):
            lease = await _acquire(session, locks, resource, timeout=deadline)
            believes(lease, resource)
            await _release(session, lease, resource)
        await locks.sleep(_span(session, "rest", (0.005, 0.015)))


async def lead(session: Session, locks: Locks) -> None:
    """Campaign, lead with automatic renewal, write under the token all the while; campaign again
    when it is over."""
    resource, settings = session.task.resource, session.task.settings
    store = StoreClient(session.task.store, client())
    with contextlib.closing(store):
        while not session.ending.is_set():
            try:
                lease = await _acquire(
                    session,
                    locks,
                    resource,
                    timeout=settings.get("deadline", 3.0),
                    auto_extend=True,
                    max_hold=settings.get("max_hold"),
                )
            except Refusal as refusal:
                if refusal.outcome.startswith("error"):
                    await locks.sleep(0.05)
                continue
            ends = true_now() + settings.get("term", float("inf"))
            try:
                while (
                    not session.ending.is_set() and true_now() < ends and believes(lease, resource)
                ):
                    basis = store.read(resource, lease.token)
                    if "refused" not in basis and believes(lease, resource):
                        store.write(resource, lease.token, basis)
                    await locks.sleep(0.02)
            finally:
                await _release(session, lease, resource)
            await locks.sleep(_span(session, "rest", (0.02, 0.06)))


async def extend(session: Session, locks: Locks) -> None:
    """Take the lock, extend and verify it by hand a few times, give it back."""
    resource = session.task.resource
    while not session.ending.is_set():
        try:
            lease = await _acquire(
                session, locks, resource, timeout=session.task.settings.get("deadline", 3.0)
            )
        except Refusal:
            continue
        for call in ("extend", "verify", "extend"):
            if session.ending.is_set() or not believes(lease, resource):
                break
            # Reported with its outcome; the lease itself says what is left of it.
            with contextlib.suppress(Exception):
                await session.timed(
                    call,
                    resource,
                    getattr(lease, call)(),
                    lambda _, token=lease.token: token,  # type: ignore[misc]
                )
            await locks.sleep(_span(session, "work", (0.02, 0.1)))
        await _release(session, lease, resource)
        await locks.sleep(_span(session, "rest", (0.01, 0.05)))


async def herd(session: Session, locks: Locks) -> None:
    """Many at once in this process want the same lock: tasks, or threads of a blocking API."""
    count = session.task.settings.get("count", 25)
    if locks.blocking:
        crowd = [
            threading.Thread(target=lambda: drive(_one_of_many(session, locks)), daemon=True)
            for _ in range(count)
        ]
        for member in crowd:
            member.start()
        for member in crowd:
            member.join()
    else:
        await asyncio.gather(*(_one_of_many(session, locks) for _ in range(count)))


async def _one_of_many(session: Session, locks: Locks) -> None:
    resource = session.task.resource
    while not session.ending.is_set():
        with contextlib.suppress(Refusal):
            lease = await _acquire(
                session, locks, resource, timeout=session.task.settings.get("deadline", 10.0)
            )
            believes(lease, resource)
            await locks.sleep(_span(session, "work", (0.001, 0.004)))
            believes(lease, resource)
            await _release(session, lease, resource)


async def cancel(session: Session, locks: Locks) -> None:
    """Cancel an acquire after every number of turns of the loop that it can take, over and over."""
    resource = f"{session.task.resource}:{client()}"
    turns = 0
    while not session.ending.is_set():
        turns = turns % session.task.settings.get("turns", 40) + 1
        task: asyncio.Task[Held] = asyncio.ensure_future(
            _acquire(session, locks, resource, timeout=3.0)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            lease = await task
        except (asyncio.CancelledError, Refusal):
            note("cancelled", str(turns))
        else:
            await _release(session, lease, resource)


# Puppets: one call at a time, as the campaign says


class _Puppet:
    """What a puppet has: its leases by resource, and what it read under each."""

    def __init__(self, session: Session, locks: Locks) -> None:
        self.session = session
        self.locks = locks
        self.leases: dict[str, Held] = {}
        self.bases: dict[str, dict[str, Any]] = {}
        self.store = StoreClient(session.task.store, client())
        self.shortage = Shortage()
        self.waiting: list[asyncio.Future[Held]] = []

    async def obey(self, order: dict[str, Any]) -> None:
        """Do one thing, and say when it is done."""
        resource = order.get("resource", self.session.task.resource)
        done = "ok"
        try:
            answer = await getattr(self, f"do_{order['what']}")(resource, order)
            done = "ok" if answer is None else str(answer)
        except Refusal as refusal:
            done = refusal.outcome
        except Exception as error:
            done = worker.outcome_of(error)
        note("done", f"{order['number']} {done}")

    async def do_acquire(self, resource: str, order: dict[str, Any]) -> None:
        how = {key: order[key] for key in ("auto_extend", "max_hold") if key in order}
        self.leases[resource] = await _acquire(
            self.session, self.locks, resource, timeout=order.get("timeout", 3.0), **how
        )

    async def do_queue(self, resource: str, order: dict[str, Any]) -> None:
        """Begin to wait, by so many more coordinators of an asyncio process; it is to be killed
        with them."""
        for _ in range(order["count"]):
            locks = self.session.coordinator()
            waiting = _acquire(self.session, locks, resource, timeout=60.0)
            self.waiting.append(asyncio.ensure_future(waiting))

    async def do_extend(self, resource: str, order: dict[str, Any]) -> None:
        await self._call("extend", resource)

    async def do_verify(self, resource: str, order: dict[str, Any]) -> None:
        await self._call("verify", resource)

    async def _call(self, call: str, resource: str) -> None:
        lease = self.leases[resource]
        await self.session.timed(call, resource, getattr(lease, call)(), lambda _: lease.token)

    async def do_release(self, resource: str, order: dict[str, Any]) -> None:
        await _release(self.session, self.leases[resource], resource)

    async def do_look(self, resource: str, order: dict[str, Any]) -> str:
        """Whether its lease says that it holds."""
        return "held" if believes(self.leases[resource], resource) else "not held"

    async def do_read(self, resource: str, order: dict[str, Any]) -> str:
        self.bases[resource] = self.store.read(resource, self.leases[resource].token)
        return "refused" if "refused" in self.bases[resource] else "ok"

    async def do_write(self, resource: str, order: dict[str, Any]) -> str:
        """Write what rests on the last read, without looking at the lease: what a zombie does."""
        basis = self.bases[resource]
        answer = self.store.write(resource, self.leases[resource].token, {"value": 0, **basis})
        return "refused" if "refused" in answer else "ok"

    async def do_check_and_write(self, resource: str, order: dict[str, Any]) -> str:
        """Look, lose `stall` seconds before the next statement, write: the gap no lock can
        close."""
        if not believes(self.leases[resource], resource):
            return "not held"
        note("stalling")
        time.sleep(order["stall"])  # noqa: ASYNC251  # The loop is to be blocked.
        return await self.do_write(resource, order)

    async def do_block(self, resource: str, order: dict[str, Any]) -> None:
        """Block the thread, and the event loop if there is one."""
        note("stalling")
        time.sleep(order["seconds"])  # noqa: ASYNC251  # As a careless coroutine does.

    async def do_wait_lost(self, resource: str, order: dict[str, Any]) -> str:
        """Wait until the lease says that it is over; poll, as the least an application would do."""
        until = true_now() + order.get("timeout", 20.0)
        while true_now() < until:
            if not believes(self.leases[resource], resource):
                return "not held"
            await self.locks.sleep(0.01)
        return "held"

    async def do_leap(self, resource: str, order: dict[str, Any]) -> None:
        worker.leap(order["seconds"])

    async def do_starve(self, resource: str, order: dict[str, Any]) -> None:
        """Run out of threads or descriptors until `feed`."""
        getattr(self.shortage, f"of_{order['of']}")()

    async def do_feed(self, resource: str, order: dict[str, Any]) -> None:
        self.shortage.end()

    async def do_fork(self, resource: str, order: dict[str, Any]) -> str:
        """Fork; the child tells what its copy of the lease says, takes a lock of its own, and
        ends."""
        lease = self.leases[resource]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = "held" if lease.is_held() else "not held"
                os.write(writer, said.encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)  # noqa: ASYNC222  # It has said its last word.
        emit(Note(true_now(), client(), "fork", f"the child's copy of the lease is {said}"))
        return f"child: {said}; parent: {'held' if believes(lease, resource) else 'not held'}"


async def puppet(session: Session, locks: Locks) -> None:
    """Do what the campaign says, call by call."""
    body = _Puppet(session, locks)
    with contextlib.closing(body.store):
        while (order := await session.next()) is not None:
            await body.obey(order)
        for resource, lease in body.leases.items():
            if lease.is_held():
                await _release(session, lease, resource)


WORKLOADS: dict[str, Workload] = {
    "contend": contend,
    "probe": probe,
    "lead": lead,
    "extend": extend,
    "herd": herd,
    "cancel": cancel,
    "puppet": puppet,
    "elect": elect,
    "supervise": supervise,
}
