"""Waiting for a lock: in the order of coming, over threads, tasks, coordinators and processes;
nobody is delayed by who is gone, and nothing but the order depends on it.

Who waits is seen in the queues of the nodes, which every look renews; whoever has gone without a
word stays in them while the lock is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

import redlock
from redlock.embedded import Node, Nodes
from redlock.errors import QueueFull, RedlockError
from redlock.observe import LeaseRenewed, NodeGivesNoWakeUps, TryFailed
from tests.contract.api import BLOCKING, PATIENCE, Api, Journal, Servers, Spelled, majority, until
from tests.servers.test_one_node import overheard

NAME = "orders"
QUEUE = f"redlock:{NAME}:lock-queue"


def waiting(servers: Servers, queue: str = QUEUE) -> list[str]:
    """The names that stand in a majority's queues, in order. One that was granted by others may
    stand on in a node's that did not grant it, until it gives back."""
    told: Counter[tuple[float, str]] = Counter()
    for client in servers.clients:
        places: Any = client.zrangebyscore(queue, "(0", "+inf", withscores=True)
        told.update((ticket, name.decode()) for name, ticket in places)
    return [name for (_, name), count in sorted(told.items()) if 2 * count > len(servers.clients)]


@contextlib.contextmanager
def leaving(node: Node) -> Iterator[Callable[[str], bool]]:
    """Whether a name gave up its place by a word of its own on *node*, from here on: who dies in
    silence is dropped as well, but a second later."""
    with overheard(node) as heard:
        yield lambda name: any(
            each["client_type"] == "tcp"
            and each["command"].startswith("EVAL")
            and each["command"].endswith(f" {name}")
            for each in heard
        )


def is_nowhere(servers: Servers, name: str) -> bool:
    """Whether *name* stands in no node's queue."""
    return not any(client.zscore(QUEUE, name) for client in servers.clients)


def place_over(servers: Servers, name: str) -> float:
    """When the place *name* expires by itself on a majority, if nobody drops it before; by the
    clock of the nodes, which is the machine's."""
    kept: list[Any] = [client.zscore(QUEUE, f"!{name}") for client in servers.clients]
    over = sorted(-lease / 1000 if lease is not None else math.inf for lease in kept)
    return over[len(over) // 2]


async def queued(api: Api, servers: Servers, count: int, queue: str = QUEUE) -> list[str]:
    """The names of those who wait, once there are as many."""
    assert await until(api, lambda: len(waiting(servers, queue)) == count), waiting(servers)
    return waiting(servers, queue)


async def taken(lock: Any, log: list[str], name: str, seconds: float | None = 60.0) -> Any:
    """Wait for the lock and say so."""
    lease = await lock.acquire(timeout=seconds)
    log.append(name if lease is not None else f"not {name}")
    return lease


async def test_users_of_one_coordinator_are_served_in_turn(api: Api, nodes: Nodes) -> None:
    """Four threads or tasks that take it again and again get the same share, and between two grants
    of one of them nobody else comes twice, but for a late start."""
    users, grants = 4, 40
    order: list[int] = []

    async def use(number: int, locks: Any) -> None:
        while len(order) < grants:
            async with locks.lock(NAME, timeout=60.0):
                order.append(number)
                await api.sleep(0.01)

    async with api.redlock(nodes.urls) as locks:
        everybody = [api.spawn(use(number, locks)) for number in range(users)]
        for one in everybody:
            await api.join(one)
    shares = Counter(order)
    assert max(shares.values()) - min(shares.values()) <= 2, order
    for number in range(users):
        turns = [turn for turn, user in enumerate(order) if user == number]
        gaps = [later - sooner for sooner, later in itertools.pairwise(turns)]
        # One more than the others: who was late to ask again is behind one who was not.
        assert max(gaps) <= users + 1, order


@pytest.mark.parametrize("shared", [True, False], ids=["one coordinator", "two"])
async def test_a_holder_that_takes_it_again_goes_behind_those_who_wait(
    api: Api, nodes: Nodes, servers: Servers, shared: bool
) -> None:
    """However much faster it is than who must be told first."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as first, api.redlock(nodes.urls) as second:
        other = first if shared else second
        for _ in range(3):
            lease = await first.lock(NAME).acquire()
            waits = api.spawn(taken(other.lock(NAME), log, "other"))
            await queued(api, servers, 1)
            await lease.release()
            again = api.spawn(taken(first.lock(NAME), log, "again"))
            await (await api.join(waits)).release()
            await (await api.join(again)).release()
    assert log == ["other", "again"] * 3


@pytest.mark.parametrize("shared", [True, False], ids=["one coordinator", "two"])
async def test_who_has_no_more_time_leaves_the_queue(
    api: Api, nodes: Nodes, servers: Servers, shared: bool
) -> None:
    """On every node, and the next one is the first; nobody waits for a place to expire."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as first, api.redlock(nodes.urls) as second:
        lease = await second.lock(NAME).acquire()
        impatient = api.spawn(taken(first.lock(NAME), log, "impatient", 0.5))
        (gone,) = await queued(api, servers, 1)
        behind = api.spawn(taken((first if shared else second).lock(NAME), log, "behind"))
        with leaving(nodes[0]) as left:
            await api.join(impatient)
            assert await until(api, lambda: is_nowhere(servers, gone))
            await queued(api, servers, 1)
        assert left(gone)
        await lease.release()
        await (await api.join(behind)).release()
    assert log == ["not impatient", "behind"]


async def test_who_is_cancelled_leaves_the_queue(api: Api, nodes: Nodes, servers: Servers) -> None:
    """A task by a cancel, a thread by Ctrl-C: as if its time were over."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as first, api.redlock(nodes.urls) as second:
        lease = await second.lock(NAME).acquire()

        async def strike(end: Any) -> Any:
            (gone,) = await queued(api, servers, 1)
            behind = api.spawn(taken(second.lock(NAME), log, "behind"))
            await queued(api, servers, 2)
            with leaving(nodes[0]) as left:
                end()
                assert await until(api, lambda: is_nowhere(servers, gone))
            assert left(gone)
            return behind

        if api is BLOCKING:
            main = threading.get_ident()
            striking = api.spawn(strike(lambda: signal.pthread_kill(main, signal.SIGINT)))
            with pytest.raises(KeyboardInterrupt):
                await first.lock(NAME).acquire(timeout=60.0)
            behind = await api.join(striking)
        else:
            task = api.spawn(first.lock(NAME).acquire())
            behind = await strike(task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        await lease.release()
        await (await api.join(behind)).release()
        await (await first.lock(NAME).acquire()).release()  # It is as good as ever.
    assert log == ["behind"]


async def test_who_waits_while_it_is_closed_is_told_and_delays_nobody(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Whether or not there was time to give up the place: nobody hears for it any more."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as second:
        first = api.redlock(nodes.urls)
        lease = await second.lock(NAME).acquire()
        waits = api.spawn(first.lock(NAME).acquire())
        (gone,) = await queued(api, servers, 1)
        behind = api.spawn(taken(second.lock(NAME), log, "behind"))
        await queued(api, servers, 2)
        await first.close()
        with pytest.raises(RedlockError, match="closed"):
            await api.join(waits)
        kept_until = place_over(servers, gone)
        await lease.release()
        lease = await api.join(behind)
        assert time.time() < kept_until
        await lease.release()
    assert log == ["behind"]


WAITER = f"""
import sys, redlock
redlock.Redlock(sys.argv[1:]).lock({NAME!r}).acquire()
"""


async def test_a_waiter_that_is_killed_delays_nobody(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Its place would be kept for the rest of a second, and is dropped by whoever asks, as nobody
    hears for it: the next one holds the lock before that second is over."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as locks, api.redlock(nodes.urls) as holder:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", WAITER, *nodes.urls],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            lease = await holder.lock(NAME).acquire()
            (gone,) = await queued(api, servers, 1)
            behind = api.spawn(taken(locks.lock(NAME), log, "behind"))
            await queued(api, servers, 2)
        finally:
            process.kill()
            process.wait(PATIENCE)
        kept_until = place_over(servers, gone)
        await lease.release()
        lease = await api.join(behind)
        assert time.time() < kept_until
        await lease.release()
    assert log == ["behind"]


@pytest.fixture
def narrow(nodes: Nodes) -> Iterator[list[str]]:
    """URLs of a user who may do all but publish and listen."""
    rules = ["reset", "on", ">pw", "~redlock:*", "+@all"]  # Without channels, as is the default.
    with contextlib.ExitStack() as stack:
        for node in nodes:
            client: Any = stack.enter_context(node.client())
            client.execute_command("ACL", "SETUSER", "narrow", *rules, "resetchannels")
            stack.callback(client.execute_command, "ACL", "DELUSER", "narrow")
        yield [url.replace("redis://", "redis://narrow:pw@") for url in nodes.urls]


async def test_without_the_right_to_channels_who_waits_looks(
    api: Api, nodes: Nodes, servers: Servers, narrow: list[str]
) -> None:
    """In the same order; each node says so once, and `nodes` why."""
    log: list[str] = []
    journal = Journal(api)
    async with (
        api.redlock(narrow, on_event=journal) as locks,
        api.redlock(narrow) as more,
        api.redlock(nodes.urls) as others,
    ):
        lease = await others.lock(NAME).acquire()
        first = api.spawn(taken(locks.lock(NAME), log, "first"))
        (name,) = await queued(api, servers, 1)
        # Nobody hears for it, and nobody takes it for gone.
        deaf = [client.zscore(QUEUE, f"~{name}") is not None for client in servers.clients]
        assert sum(deaf) >= len(majority(nodes))
        second = api.spawn(taken(more.lock(NAME), log, "second"))
        await queued(api, servers, 2)
        await lease.release()
        await (await api.join(first)).release()
        await (await api.join(second)).release()
        assert log == ["first", "second"]
        for _ in range(2):
            reports = await locks.nodes()
        assert [report.wakes for report in reports] == [False] * 5
        assert all("permission" in report.why_no_wakes for report in reports)
        told = journal.of(NodeGivesNoWakeUps)
        assert sorted(record.node for record in told) == sorted(report.node for report in reports)
        assert all("pw" not in record.reason.split() for record in told)
        assert [report.wakes for report in await others.nodes()] == [True] * 5
        assert {report.why_no_wakes for report in await others.nodes()} == {None}


async def test_status_shows_who_waits_since_when(api: Api, nodes: Nodes, servers: Servers) -> None:
    """The first of each coordinator in the order of their turns; a candidate by its name."""
    log: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        holder, one, two = [
            await stack.enter_async_context(api.redlock(nodes.urls)) for _ in range(3)
        ]
        lease = await holder.lock(NAME).acquire()
        assert (await holder.status(NAME)).waiting == ()
        began_at = time.time()
        first = api.spawn(taken(one.lock(NAME), log, "first"))
        (name,) = await queued(api, servers, 1)
        second = api.spawn(campaigned(two.election(NAME, candidate="host-2")))
        names = await queued(api, servers, 2)
        servers.clients[0].zadd(QUEUE, {"granted by others": 1})  # It is no waiter of a majority.
        shown = (await holder.status(NAME)).waiting
        assert [waiter.name for waiter in shown] == names
        assert (shown[0].name, shown[1].name.endswith(" host-2")) == (name, True)
        assert began_at - 0.01 <= shown[0].since < shown[1].since <= time.time()
        await lease.release()
        await (await api.join(first)).release()
        await api.join(second)
        assert (await holder.status(NAME)).waiting == ()


async def campaigned(election: Any) -> None:
    async with election.campaign(timeout=60.0):
        pass


async def test_who_wants_no_fairness_stands_in_no_queue(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """And takes the lock whenever it is free, whoever's turn it is; a single try of one who is fair
    leaves it to them."""
    journal = Journal(api)
    log: list[str] = []
    async with (
        api.redlock(nodes.urls, fair=False, on_event=journal) as locks,
        api.redlock(nodes.urls) as others,
    ):
        lease = await others.lock(NAME).acquire()
        failed = journal.expect(TryFailed)
        waits = api.spawn(taken(locks.lock(NAME), log, "waits"))
        assert await api.wait(failed)
        assert [client.exists(QUEUE) for client in servers.clients] == [0] * 5
        await lease.release()
        await (await api.join(waits)).release()
        somebody_waits(servers, 1)
        assert await others.lock(NAME).acquire(blocking=False) is None
        lease = await locks.lock(NAME).acquire(blocking=False)
        assert lease is not None
        await lease.release()


def somebody_waits(servers: Servers, count: int, nodes: slice = slice(None)) -> None:
    """Enter *count* places of the distant past, for the next minute's worth of a second."""
    for client in servers.clients[nodes]:
        over = -(time.time() * 1000 + 990)
        places = {f"x.{number}": number + 1 for number in range(count)}
        client.zadd(QUEUE, places | {f"~{name}": over for name in places})


async def test_where_too_many_wait_that_is_said_at_once(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """1024 on a majority; a minority that is full is outvoted."""
    log: list[str] = []
    async with api.redlock(nodes.urls) as locks, api.redlock(nodes.urls) as others:
        await (await locks.lock("met").acquire()).release()
        lease = await others.lock(NAME).acquire()
        somebody_waits(servers, 1024)
        with pytest.raises(QueueFull, match=NAME) as refused:
            await locks.lock(NAME).acquire()
        assert len(refused.value.votes) == 5
        for client in servers.clients:
            client.delete(QUEUE)
        somebody_waits(servers, 1024, slice(len(majority(nodes)) - 1))
        waits = api.spawn(taken(locks.lock(NAME), log, "waits"))
        assert await until(api, lambda: len(places_of(servers.clients[-1])) == 1)
        await lease.release()
        await (await api.join(waits)).release()
    assert log == ["waits"]


def places_of(client: redis.Redis) -> list[Any]:
    found: Any = client.zrangebyscore(QUEUE, "(0", "+inf")
    return list(found)


KINDS: dict[str, dict[str, Any]] = {
    "fair": {},
    "unfair": {"fair": False},
    "bare": {"key_prefix": ""},
}


@pytest.mark.parametrize(
    ("holder", "waiter"), [("fair", "unfair"), ("unfair", "fair"), ("classic", "bare")]
)
async def test_clients_with_and_without_the_queue_exclude_each_other(
    api: Api, nodes: Nodes, servers: Servers, holder: str, waiter: str
) -> None:
    """In both directions; a classic one has never heard of us, and gives back in silence."""
    log: list[str] = []
    queue = f"{NAME}:lock-queue" if waiter == "bare" else QUEUE
    async with (
        api.redlock(nodes.urls, **KINDS[waiter]) as locks,
        api.redlock(nodes.urls, **KINDS.get(holder, {})) as others,
    ):
        lease = None
        if holder == "classic":
            for client in servers.clients:
                assert client.set(NAME, "value", nx=True, px=30_000)
        else:
            lease = await others.lock(NAME).acquire()
        assert await locks.lock(NAME).acquire(blocking=False) is None
        waits = api.spawn(taken(locks.lock(NAME), log, "waits"))
        if waiter != "unfair":
            await queued(api, servers, 1, queue)
        assert log == []
        if lease is None:
            for client in servers.clients:
                client.delete(NAME)
        else:
            await lease.release()
        lease = await api.join(waits)
        if holder == "classic":
            for client in servers.clients:
                client.set(NAME, "value", nx=True, px=30_000)
            assert (await locks.status(NAME)).held
        else:
            assert await others.lock(NAME).acquire(blocking=False) is None
        await lease.release()


async def test_a_renewal_wakes_nobody(api: Api, nodes: Nodes, servers: Servers) -> None:
    """All that is said on the nodes' channels, while a lease is renewed: nothing; and behind its
    release, the name of who is next."""
    log: list[str] = []
    journal = Journal(api)
    with contextlib.ExitStack() as stack:
        ears: list[Any] = [stack.enter_context(client.pubsub()) for client in servers.clients]
        for ear in ears:
            ear.psubscribe("redlock:wake:?*")

        def heard() -> list[list[str]]:
            """What each node said up to now: the answer to a PING comes behind it."""
            said: list[list[str]] = []
            for ear in ears:
                ear.ping()
                said.append([])
                while (message := ear.get_message(timeout=PATIENCE))["type"] != "pong":
                    if message["type"] == "pmessage":
                        said[-1].append(message["data"].decode())
            return said

        async with (
            api.redlock(nodes.urls, on_event=journal) as holder,
            api.redlock(nodes.urls) as locks,
        ):
            lease = await holder.lock(NAME, ttl=1.0, auto_extend=True).acquire()
            waits = api.spawn(taken(locks.lock(NAME), log, "waits"))
            (name,) = await queued(api, servers, 1)
            for _ in range(2):
                assert await api.wait(journal.expect(LeaseRenewed))
            assert heard() == [[]] * 5
            assert log == []
            await lease.release()
            await (await api.join(waits)).release()
            told = heard()
            assert [name] in told
            assert all(set(each) <= {name} for each in told)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_fork_while_somebody_waits(nodes: Nodes, servers: Servers) -> None:
    """The thread that waits stays in its place; the child has one of its own, behind it."""
    log: list[str] = []
    api = BLOCKING
    with redlock.Redlock(nodes.urls) as locks, redlock.Redlock(nodes.urls) as holder:
        lease = holder.lock(NAME).acquire()
        assert lease is not None
        waits = api.spawn(taken(Spelled(locks.lock(NAME)), log, "parent"))
        await queued(api, servers, 1)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                signal.alarm(60)
                with locks.lock(NAME, timeout=60.0) as ours:
                    os.write(writer, str(ours.fencing_token).encode())
            os._exit(0)
        os.close(writer)
        try:
            places = await queued(api, servers, 2)
            assert len({name.partition(".")[0] for name in places}) == 2
            lease.release()
            ours = (await api.join(waits)).real
            await queued(api, servers, 1)
            ours.release()
            with os.fdopen(reader, "rb") as pipe:
                assert int(pipe.read()) > ours.fencing_token
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # noqa: ASYNC222
    assert log == ["parent"]
