"""With one node ours is the plain lock that people write by hand, without the defects that such
locks are known for.

No race between check and delete, or between taking and expiring; no guess about the ttl; no busy
polling without a limit; and a lock key that a dead client left without an expiry has a name, and a
cure. A node that forgot is waited out here too.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from redlock.embedded import Node, Nodes
from redlock.errors import (
    CastVote,
    ConfigurationError,
    LeaseLost,
    LockContended,
    NodeRefused,
    QuorumUnavailable,
)
from redlock.initialise import initialise
from redlock.observe import TryFailed
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, BLOCKING, Api, Body, Journal, paused, until

MARKER = "redlock:node"
SHORT = {"ttl": 1.0, "node_timeout": 0.3}
"""The ttl of a cluster whose quarantine a test can wait for, with a node timeout that a busy
machine does not need."""
SPAN = 1.0 * 1.02 + 1.0
RETRY_DELAY = 0.1
PAUSE_MIN = RETRY_DELAY / 2
LOOK_MIN = 0.02
"""As often may one who stands in a queue look at first, and later less."""
RAMP = 8
"""The first pauses of a waiter are shorter: they double up to `retry_delay`."""
SLACK = 0.05


def both(body: Callable[..., Body]) -> Callable[..., None]:
    """The test's body is run by each of our two APIs."""

    @pytest.mark.parametrize("api", [BLOCKING, ASYNCIO], ids=lambda api: api.name)
    @functools.wraps(body)
    def test(*, api: Api, **fixtures: Any) -> None:
        api.run(body(api=api, **fixtures))

    run: Callable[..., None] = test  # Not only what the mark makes of it.
    return run


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    """One server whose locks may live for a minute."""
    with Nodes(1) as nodes:
        yield nodes[0]


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The same, without a key of an earlier test."""
    yield shared
    with shared.client() as client:
        client.config_set("maxmemory", "0")
        for key in client.scan_iter():
            if key != MARKER.encode():
                client.delete(key)


@pytest.fixture
def short() -> Iterator[Node]:
    """One server of this test's own, with a quarantine of a few seconds."""
    with Nodes(1, max_ttl=SHORT["ttl"]) as nodes:
        yield nodes[0]


@pytest.fixture
def server(node: Node) -> Iterator[redis.Redis]:
    """A side client on the shared server."""
    with node.client() as client:
        yield client


# A plain lock


@both
async def test_one_node_is_a_lock_and_says_what_it_costs(api: Api, node: Node) -> None:
    """It excludes, it hands over, tokens rise; and the constructor warns that it is gone while
    its node is down."""
    with pytest.warns(UserWarning, match="1 node is a plain lock"):
        coordinator = api.redlock([node.url])
    async with coordinator as locks, api.redlock([node.url]) as others:
        async with locks.lock("till") as lease:
            assert await others.lock("till").acquire(blocking=False) is None
            status = await others.status("till")
            assert (status.held, status.fencing_token) == (True, lease.fencing_token)
        async with others.lock("till", timeout=0) as later:
            assert later.fencing_token > lease.fencing_token
        assert (await locks.status("till")).held is False


@contextlib.contextmanager
def overheard(node: Node) -> Iterator[list[dict[str, Any]]]:
    """Every command the server executes inside the block, in order, with who sent it; complete
    when the block ends."""
    heard: list[dict[str, Any]] = []
    with node.client() as listener, node.client() as client, listener.monitor() as monitor:
        yield heard
        client.echo("that was all")
        while "that was all" not in (command := monitor.next_command())["command"]:
            heard.append(command)


@both
async def test_taking_extending_and_releasing_are_one_step_each(api: Api, node: Node) -> None:
    """No race between check and delete, or between taking and expiring: every command on the
    lock comes from a script, one script per step, and the lock is never written without its
    expiry.
    """
    async with api.redlock([node.url], key_prefix="") as locks:
        await locks.status("till")
        with overheard(node) as heard:
            lease = await locks.lock("till").acquire()
            await lease.extend()
            assert await lease.release()
    told = [(command["client_type"], command["command"].split(" ")) for command in heard]
    from_clients = [words for source, words in told if source == "tcp" and "till" in words]
    assert [words[0] for words in from_clients] == ["EVALSHA"] * 3
    inside = [words for source, words in told if source == "lua" and words[1:2] == ["till"]]
    writes = [words for words in inside if words[0] not in ("GET", "PTTL", "EXISTS")]
    assert [words[0] for words in writes if words[0] != "PEXPIRE"] == ["SET", "DEL"]
    assert all("PX" in words for words in writes if words[0] == "SET")


@both
async def test_a_release_never_deletes_a_lock_that_changes_hands_meanwhile(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """The classic race: the lock becomes somebody else's in the very moment of our release.
    Theirs stands, every time."""
    turn, done = threading.Event(), threading.Event()
    rounds = 150

    def intrude() -> None:
        with node.client() as client:
            for _ in range(rounds):
                turn.wait(20)
                turn.clear()
                client.set("till", "theirs", px=20_000)
                done.set()

    thread = threading.Thread(target=intrude)
    thread.start()
    async with api.redlock([node.url], key_prefix="") as locks:
        for _ in range(rounds):
            lease = await locks.lock("till").acquire()
            turn.set()
            await lease.release()
            assert done.wait(20)
            done.clear()
            assert server.get("till") == b"theirs"
            server.delete("till")
    thread.join()


_TAKES_UNTIL_KILLED = """
import sys
from redlock import Redlock
locks = Redlock(sys.argv[1:], key_prefix="dead:")
leases = []
for number in range(100_000):
    leases.append(locks.lock(str(number)).acquire())
    print(number, flush=True)
"""


def test_a_client_that_is_killed_leaves_no_lock_without_an_expiry(
    node: Node, server: redis.Redis
) -> None:
    """SIGKILL in the middle of taking hundreds of locks: each of them expires by itself."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _TAKES_UNTIL_KILLED, node.url],
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        for _ in range(200):
            assert victim.stdout.readline()
        victim.kill()
    locked = [
        key for key in server.scan_iter(match="dead:*", count=1000) if not key.endswith(b":fence")
    ]
    assert len(locked) >= 200
    assert [key for key in locked if not 0 < server.pttl(key) <= 10_000] == []


# No guess about the ttl


@both
async def test_auto_extend_keeps_a_short_lock_for_a_long_body(api: Api, node: Node) -> None:
    """Nobody has to guess how long the work takes: the lock outlives its ttl for as long as the
    body runs, and not longer."""
    ttl = 1.6
    async with (
        api.redlock([node.url], ttl=ttl, node_timeout=0.3) as locks,
        api.redlock([node.url]) as others,
    ):
        async with locks.lock("till", auto_extend=True) as lease:
            ends_at = now() + 1.3 * ttl
            while now() < ends_at:
                lease.ensure_held()
                assert await others.lock("till").acquire(blocking=False) is None
                await api.sleep(0.05)
        async with others.lock("till", timeout=0):
            pass


@both
async def test_the_body_hears_that_its_lock_was_taken_away(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """Somebody overwrites the lock by force: the next renewal finds out, long before the ttl
    ends, and the block raises."""
    async with api.redlock([node.url], ttl=4.5) as locks:
        began_at = now()
        with pytest.raises(LeaseLost, match="does not hold it any more"):
            async with locks.lock("till", auto_extend=True) as lease:
                server.set("redlock:till", "theirs", px=20_000)
                assert await api.wait(lease.lost)
                assert not lease.is_held()
        assert now() - began_at < 4.4
    assert server.get("redlock:till") == b"theirs"


@both
async def test_the_body_hears_when_its_node_does_not_answer(api: Api, node: Node) -> None:
    """A renewal that hangs delays nothing: the loss is told by the local deadline, by a timer
    and not by an answer."""
    async with api.redlock([node.url], **SHORT) as locks:
        with pytest.raises(LeaseLost):
            async with locks.lock("till", auto_extend=True) as lease:
                lost = lease.lost
                with paused([node]):
                    try:
                        assert await api.wait(lost)
                    finally:
                        told_at = now()
                        assert not lease.is_held()
        assert lease.valid_until - SLACK <= told_at < lease.valid_until + 1.0


@both
async def test_a_lock_that_was_only_deleted_is_put_back(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """An operator deletes the key and nobody newer took it: the next renewal restores it, and
    the lease goes on."""
    async with (
        api.redlock([node.url], **SHORT) as locks,
        locks.lock("till", auto_extend=True) as lease,
    ):
        server.delete("redlock:till")
        assert await until(api, lambda: server.get("redlock:till") is not None)
        assert server.get("redlock:till") == f"{lease.owner}:{lease.fencing_token}".encode()
        lease.ensure_held()


# No busy polling


def calls(server: redis.Redis) -> dict[str, int]:
    """How often the server executed each command, those inside scripts too, since `CONFIG
    RESETSTAT`."""
    stats: Any = server.info("commandstats")
    return {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}


def looks_max(seconds: float, waiters: int = 1) -> float:
    """As many questions as *waiters* may ask in that time."""
    return waiters * (seconds / PAUSE_MIN + RAMP)


@both
@pytest.mark.parametrize("waiters", [1, 4])
async def test_waiting_asks_a_bounded_number_of_times_and_writes_nothing_but_places(
    api: Api, node: Node, server: redis.Redis, waiters: int
) -> None:
    """Of the waiters of a coordinator one asks, rarer and rarer; the others try no more than to
    tell why they give up. The holder's keys are not touched."""
    async with api.redlock([node.url]) as locks, api.redlock([node.url]) as others:
        await others.status("till")
        async with locks.lock("till", ttl=30.0):
            before = server.dump("redlock:till"), server.dump("redlock:till:fence")
            server.config_resetstat()
            began_at = now()
            waiting = [api.spawn(others.lock("till").acquire(timeout=0.8)) for _ in range(waiters)]
            for one in waiting:
                assert await api.join(one) is None
            took = now() - began_at
            told = calls(server)
            assert (server.dump("redlock:till"), server.dump("redlock:till:fence")) == before
    asked = told.get("evalsha", 0) + told.get("eval", 0)
    # A try and its release at first; a look and a word that it leaves from each at last.
    assert 3 <= asked <= took / LOOK_MIN + RAMP + 2 * waiters
    assert not told.keys() & {"set", "del"}


@both
@pytest.mark.parametrize("waiters", [1, 4])
async def test_waiting_in_no_queue_asks_a_bounded_number_of_times_and_writes_nothing(
    api: Api, node: Node, server: redis.Redis, waiters: int
) -> None:
    """After the first try a waiter only looks, at most once per half a `retry_delay`; the
    holder's keys are not touched."""
    async with (
        api.redlock([node.url]) as locks,
        api.redlock([node.url], retry_delay=RETRY_DELAY, fair=False) as others,
    ):
        await others.status("till")
        async with locks.lock("till", ttl=30.0):
            server.config_resetstat()
            began_at = now()
            waiting = [api.spawn(others.lock("till").acquire(timeout=0.8)) for _ in range(waiters)]
            for one in waiting:
                assert await api.join(one) is None
            took = now() - began_at
            told = calls(server)
    asked = told.get("evalsha", 0) + told.get("eval", 0)
    assert waiters * 3 <= asked <= looks_max(took, waiters)
    assert {name: told[name] for name in ("set", "del", "pexpire") if name in told} == {}
    # Only TAKE asks the server for its time, and a new connection: one try each, and then looks.
    assert told.get("time", 0) <= waiters + told.get("info", 0)


@both
async def test_a_longer_retry_delay_asks_less(api: Api, node: Node, server: redis.Redis) -> None:
    """`retry_delay` is what it says to one who stands in no queue: with half a second, a wait of a
    second costs a handful of questions."""
    async with (
        api.redlock([node.url]) as locks,
        api.redlock([node.url], retry_delay=0.5, fair=False) as others,
    ):
        await others.status("till")
        async with locks.lock("till", ttl=30.0):
            server.config_resetstat()
            began_at = now()
            assert await others.lock("till").acquire(timeout=1.0) is None
            took = now() - began_at
            told = calls(server)
    assert told["evalsha"] <= took / 0.25 + RAMP


@both
async def test_waiting_for_a_node_that_refuses_to_write_is_bounded_too(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """Out of memory is not contention: every try fails at once, and tries come no faster than
    looks."""
    async with api.redlock([node.url], retry_delay=RETRY_DELAY) as locks:
        await locks.status("till")
        server.config_set("maxmemory", "1")
        server.config_resetstat()
        began_at = now()
        with pytest.raises(QuorumUnavailable, match="OOM"):
            await locks.lock("till").acquire(timeout=0.8)
        took = now() - began_at
        told = calls(server)
        # A look, a try, and the release of the try.
        assert told["evalsha"] <= 3 * looks_max(took)
        server.config_set("maxmemory", "0")
        async with locks.lock("till", timeout=5.0):
            pass


@both
async def test_a_stopped_node_wakes_up_to_few_requests(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """What a waiter sends to a node that does not answer is executed when it wakes: it must not
    be a flood."""
    async with api.redlock([node.url], ttl=2.0) as locks:
        await locks.status("till")
        server.config_resetstat()
        with (
            paused([node]),
            pytest.raises(QuorumUnavailable, match=r"did not answer|was not connected"),
        ):
            await locks.lock("till").acquire(timeout=1.2)
        async with locks.lock("till", timeout=10.0):
            told = calls(server)
        assert told.get("evalsha", 0) + told.get("eval", 0) <= 2 * looks_max(1.2)
    assert await until(api, lambda: server.get("redlock:till") is None)


# A lock key without an expiry


def without_expiry(votes: tuple[CastVote, ...]) -> bool:
    """Whether every vote says that the lock has no expiry."""
    return all(
        "without an expiry (repair_missing_ttl=True gives it one)" in vote.reason for vote in votes
    )


@both
async def test_a_lock_without_an_expiry_is_named_in_the_error_and_in_the_status(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """A client died between SETNX and EXPIRE. Nobody can wait that out, so whoever looks is
    told; nothing is changed."""
    server.setnx("till", "dead-client")
    async with api.redlock([node.url], key_prefix="") as locks:
        assert await locks.lock("till").acquire(blocking=False) is None
        with pytest.raises(LockContended) as caught:
            async with locks.lock("till", timeout=0.4):
                pytest.fail("the body ran without the lock")
        status = await locks.status("till")
    assert without_expiry(caught.value.votes)
    assert "is held by dead-cli... without an expiry (repair_missing_ttl=True gives it one)" in str(
        caught.value
    )
    assert (status.held, status.ttl_left, status.holder) == (True, None, "dead-cli...")
    assert without_expiry(status.votes)
    assert server.pttl("till") == -1


@both
async def test_repair_missing_ttl_gives_it_one_and_the_waiter_gets_the_lock(
    api: Api, short: Node
) -> None:
    """The expiry is `max_ttl`: as long as any lock may live, so a client that is alive after all
    loses nothing it had."""
    with short.client() as server:
        server.setnx("till", "dead-client")
        async with api.redlock(
            [short.url], key_prefix="", repair_missing_ttl=True, **SHORT
        ) as locks:
            began_at = now()
            waiter = api.spawn(locks.lock("till").acquire(timeout=20.0))
            assert await until(api, lambda: server.pttl("till") != -1)
            left = server.pttl("till")
            assert left <= SHORT["ttl"] * 1000
            lease = await api.join(waiter)
            assert now() - began_at >= SHORT["ttl"] - SLACK
            assert server.get("till") == f"{lease.owner}:{lease.fencing_token}".encode()
            assert await lease.release()


@both
async def test_repair_is_done_by_who_tries_only_once(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """Where everybody asks with `blocking=False` such a key would stay for ever; the status
    alone never changes anything."""
    server.setnx("till", "dead-client")
    async with api.redlock([node.url], key_prefix="", repair_missing_ttl=True) as locks:
        await locks.status("till")
        assert server.pttl("till") == -1
        assert await locks.lock("till").acquire(blocking=False) is None
        assert await until(api, lambda: 0 < server.pttl("till") <= 60_000)


@both
async def test_repair_leaves_alone_what_has_an_expiry(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """A classic lock that was taken properly keeps its own ttl, longer or shorter than ours."""
    server.set("long", "theirs", nx=True, px=3_600_000)
    server.set("brief", "theirs", nx=True, px=30_000)
    async with api.redlock([node.url], key_prefix="", repair_missing_ttl=True) as locks:
        assert await locks.lock("long").acquire(timeout=0.3) is None
        assert await locks.lock("brief").acquire(timeout=0.3) is None
    assert server.pttl("long") > 3_500_000
    assert server.pttl("brief") <= 30_000


@both
async def test_repair_never_touches_a_marker_or_a_fence(
    api: Api, node: Node, server: redis.Redis
) -> None:
    """They live without an expiry by design: the names are refused, and beside a repaired lock
    both stay as they were."""
    async with api.redlock(
        [node.url], key_prefix="", repair_missing_ttl=True, fence_ttl=0
    ) as locks:
        async with locks.lock("till"):
            pass
        server.setnx("till", "dead-client")
        fence, marker = server.get("till:fence"), server.get(MARKER)
        assert await locks.lock("till").acquire(timeout=0.3) is None
        assert server.pttl("till") > 0
        for name in (MARKER, "till:fence"):
            with pytest.raises(ConfigurationError, match="redlock keeps for itself"):
                locks.lock(name)
        assert (server.get("till:fence"), server.pttl("till:fence")) == (fence, -1)
        assert (server.get(MARKER), server.pttl(MARKER)) == (marker, -1)


# A node that forgot


@both
async def test_a_restarted_node_says_how_long_it_is_kept_out_and_works_again(
    api: Api, short: Node
) -> None:
    """Quarantine with the seconds left in the votes, and a waiter that simply goes on waiting
    gets the lock at its end. It asks the node whether that has changed at growing intervals, not
    with every look.
    """
    journal = Journal(api)
    async with api.redlock([short.url], **SHORT, on_event=journal) as locks:
        lease = await locks.lock("till").acquire()
        restarted_at = now()
        short.restart()
        with pytest.raises(QuorumUnavailable) as caught:
            await locks.lock("till").acquire(timeout=0.5)
        [vote] = caught.value.votes
        assert isinstance(vote.error, NodeRefused)
        assert (
            "forgot its locks (its marker is gone) and is in quarantine: it votes again in "
            in vote.reason
        )
        left = float(vote.reason.rsplit(" ", 2)[1])
        assert 0 < left <= SPAN
        [report] = await locks.nodes()
        assert not report.votes
        assert report.quarantine_left is not None
        assert 0 < report.quarantine_left <= SPAN
        await lease.release()
        async with locks.lock("till", timeout=20.0) as later:
            assert now() >= restarted_at + SPAN
            assert later.fencing_token > lease.fencing_token
        assert [
            record.votes for record in journal.of(TryFailed) if "votes again in" in record.votes
        ]
        with short.client() as server:
            assert calls(server)["info"] / 6 <= 16, "a look asks for six sections"


@both
async def test_a_flushed_node_looks_new_and_is_not(api: Api, short: Node) -> None:
    """It is up for long, so its uptime says nothing: somebody may have held the lock that it
    forgot, with a larger token."""
    with short.client() as server:
        async with api.redlock([short.url], **SHORT) as locks:
            await api.sleep(SPAN)  # A server that was up for less would wait in any case.
            before = await locks.lock("till").acquire(timeout=20.0)
            flushed_at = now()
            server.flushall()
            async with api.redlock([short.url], ttl=SHORT["ttl"], max_ttl=SHORT["ttl"]) as fresh:
                with pytest.raises(
                    QuorumUnavailable, match="as in a new cluster: it grants locks in"
                ):
                    await fresh.lock("till").acquire(timeout=0.3)
                later = await fresh.lock("till").acquire(timeout=20.0)
                assert now() >= flushed_at + SPAN
                assert later.fencing_token > before.fencing_token + 50 * 10**6, (
                    "a floor: a client's clock may be behind"
                )
                await later.release()
            assert not before.is_held()


@both
async def test_a_restarted_node_that_kept_its_lock_still_waits(api: Api) -> None:
    """With its append-only file the lock and the marker are there again, but only `durable=True`
    declares that all of it is: so the restart counts, also for a client that never saw the node
    before.
    """
    with Nodes(1, max_ttl=SHORT["ttl"], options={"appendonly": "yes"}) as nodes:
        async with api.redlock(nodes.urls, **SHORT) as locks:
            lease = await locks.lock("till").acquire()
            restarted_at = time.monotonic()
            nodes[0].restart()
            async with api.redlock(nodes.urls, **SHORT) as fresh:
                with pytest.raises(QuorumUnavailable, match="it restarted"):
                    await fresh.lock("other").acquire(blocking=False)
                async with fresh.lock("other", timeout=20.0):
                    # Its uptime tells a fresh client when it restarted; the server counts that in
                    # whole seconds.
                    assert time.monotonic() - restarted_at >= SPAN - 1.0
            assert await lease.release() is False


@both
async def test_a_durable_node_goes_on_where_it_was(api: Api) -> None:
    """`durable=True`: after SIGKILL the lock is still held, its holder extends it, and others
    are told who holds it."""
    with Nodes(1, durable=True) as nodes:
        async with api.redlock(nodes.urls) as locks, api.redlock(nodes.urls) as others:
            async with locks.lock("till") as lease:
                nodes[0].restart()
                assert await others.lock("till").acquire(blocking=False) is None
                await lease.extend()
                await lease.verify()
            async with others.lock("till", timeout=5.0) as later:
                assert later.fencing_token > lease.fencing_token


def test_a_max_ttl_that_is_no_whole_number_of_milliseconds_is_one_all_the_same() -> None:
    """A marker says milliseconds, rounded up: what was asked for and what stands there differ by
    less than one."""
    with Nodes(1, marked=False) as nodes:
        for asked in (2.0004, 4.00041):
            [marker] = initialise(nodes.urls, max_ttl=asked)
            assert asked <= marker.max_ttl < asked + 0.001


def test_one_node_is_initialised_like_any_cluster() -> None:
    """Its marker says so; a second time is refused."""
    with Nodes(1, marked=False) as nodes:
        [marker] = initialise(nodes.urls, max_ttl=5.0)
        assert (marker.nodes, marker.max_ttl, marker.durable) == (1, 5.0, False)
        with pytest.raises(ConfigurationError, match="already marked"):
            initialise(nodes.urls)
