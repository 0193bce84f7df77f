"""With `key_prefix=""` our lock and the classic one, `SET key value NX PX ttl`, exclude each other
on the same key.

Shown with redlock-py and pottery as real clients in processes of their own, both ways and for both
of our APIs. Nothing is promised about fencing tokens here: a classic client leaves no fence.
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

import redlock
from redlock.embedded import Node, Nodes
from redlock.errors import LockContended, QuorumUnavailable
from redlock.observe import TryFailed
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, BLOCKING, Api, Body, Journal, until
from tests.peers import PEERS, Peer, PeerMissing, be_present, environment

RESOURCE = "invoices:42"
MINORITY, MAJORITY = 2, 3
SLACK = 0.05
"""Seconds by which two clocks of one machine, and a millisecond's rounding, may differ."""

Connect = Callable[[Sequence[Node]], Peer]


def both(body: Callable[..., Body]) -> Callable[..., None]:
    """The test's body is run by each of our two APIs."""

    @pytest.mark.parametrize("api", [BLOCKING, ASYNCIO], ids=lambda api: api.name)
    @functools.wraps(body)
    def test(*, api: Api, **fixtures: Any) -> None:
        api.run(body(api=api, **fixtures))

    run: Callable[..., None] = test  # Not only what the mark makes of it.
    return run


@pytest.fixture(scope="session", params=PEERS)
def library(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A peer's name and its Python; the tests are skipped where pip cannot install it."""
    try:
        return request.param, environment(request.param)
    except PeerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def connect(library: tuple[str, Path]) -> Iterator[Connect]:
    """Starts the peer on some of the nodes."""
    with contextlib.ExitStack() as stack:
        yield lambda nodes: stack.enter_context(Peer(*library, [node.url for node in nodes]))


@pytest.fixture
def peer(connect: Connect, nodes: Nodes) -> Peer:
    """The peer, on all nodes."""
    return connect(nodes)


def values(nodes: Nodes, key: str) -> list[str | None]:
    """What *key* holds on each node."""
    found: list[str | None] = []
    for node in nodes:
        with node.client(decode_responses=True) as client:
            found.append(client.get(key))
    return found


# They hold


@both
async def test_while_a_peer_holds_it_one_try_gives_none(api: Api, nodes: Nodes, peer: Peer) -> None:
    """None, as for any other holder; and the try leaves the peer's lock as it was, on every
    node."""
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE)
    assert await until(api, lambda: values(nodes, key) == [peer.value()] * 5)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        assert await locks.lock(key).acquire(blocking=False) is None
        assert values(nodes, key) == [peer.value()] * 5
        peer.free()
        assert await until(api, lambda: values(nodes, key) == [None] * 5)
        async with locks.lock(key, timeout=5.0) as lease:
            assert set(values(nodes, key)) <= {f"{lease.owner}:{lease.fencing_token}", None}


@both
async def test_our_default_prefix_is_that_of_pottery(
    api: Api, nodes: Nodes, library: tuple[str, Path]
) -> None:
    """Pottery writes `redlock:` before its keys, as we do unless told otherwise: there the names
    are shared as they are."""
    with Peer(*library, nodes.urls) as peer:
        assert peer.take(RESOURCE)
        async with api.redlock(nodes.urls) as locks:
            lease = await locks.lock(RESOURCE).acquire(blocking=False)
            assert (lease is None) == (library[0] == "pottery")
            if lease is not None:
                await lease.release()


@both
async def test_a_waiting_acquire_gets_it_when_the_peer_releases(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """Long before the peer's ttl would have ended."""
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE, ttl=60.0)
    journal = Journal(api)
    async with api.redlock(nodes.urls, key_prefix="", on_event=journal) as locks:
        failed = journal.expect(TryFailed)
        waiter = api.spawn(locks.lock(key).acquire(timeout=30.0))
        assert await api.wait(failed)
        assert not waiter.done()
        peer.free()
        lease = await api.join(waiter)
        assert lease.is_held()
        assert await lease.release()


@both
async def test_a_waiting_acquire_gets_it_when_the_peers_ttl_ends(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """Not before: a peer that died holding the lock is waited out, to its last millisecond."""
    key, ttl = peer.key(RESOURCE), 0.7
    taken_at = now()
    assert peer.take(RESOURCE, ttl=ttl)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        async with locks.lock(key, timeout=20.0):
            assert now() >= taken_at + ttl - SLACK
        assert [record for record in values(nodes, key) if record is not None] == []


@both
async def test_the_votes_and_the_status_show_the_peer_shortened(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """Enough to tell who holds it; not the whole value, with which anybody could release the
    peer's lock."""
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE)
    assert await until(api, lambda: None not in values(nodes, key))
    value = peer.value()
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        with pytest.raises(LockContended) as caught:
            async with locks.lock(key, timeout=0.3):
                pytest.fail("the body ran without the lock")
        status = await locks.status(key)
    assert f"is held by {value[:8]}... for" in str(caught.value)
    assert all(
        0 < vote.ttl_left <= 10.0 for vote in caught.value.votes if vote.ttl_left is not None
    )
    assert (status.held, status.holder, status.fencing_token) == (True, f"{value[:8]}...", None)
    assert status.ttl_left is not None
    assert 0 < status.ttl_left <= 10.0
    for told in (str(caught.value), repr(caught.value.votes), repr(status)):
        assert value[:9] not in told


# We hold


@both
async def test_while_we_hold_it_a_peer_fails_and_leaves_ours_alone(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """A failed try of a classic client releases what it did not get; that must not touch our
    lock. After ours it works."""
    key = peer.key(RESOURCE)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        async with locks.lock(key) as lease:
            ours = f"{lease.owner}:{lease.fencing_token}"
            assert await until(api, lambda: values(nodes, key) == [ours] * 5)
            for _ in range(3):
                assert not peer.take(RESOURCE)
            assert values(nodes, key) == [ours] * 5
            await lease.verify()
        assert await until(api, lambda: values(nodes, key) == [None] * 5)
        assert peer.take(RESOURCE)


@both
async def test_a_late_release_of_a_peer_does_not_remove_our_lock(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """The peer's lock ended by its ttl, we took it, and then the peer releases what it believes
    to have."""
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE, ttl=0.4)
    async with (
        api.redlock(nodes.urls, key_prefix="") as locks,
        locks.lock(key, timeout=20.0) as lease,
    ):
        ours = f"{lease.owner}:{lease.fencing_token}"
        # A node where the peer's lock ended a moment later than elsewhere need not be ours.
        before = values(nodes, key)
        assert before.count(ours) >= MAJORITY
        peer.free()
        assert values(nodes, key).count(ours) >= before.count(ours)
        await lease.verify()


@both
async def test_a_late_release_of_ours_does_not_remove_a_peers_lock(
    api: Api, nodes: Nodes, peer: Peer
) -> None:
    """Our lease ended, the peer took the lock, and then we release, extend and close."""
    key = peer.key(RESOURCE)
    async with api.redlock(nodes.urls, key_prefix="", ttl=0.4, node_timeout=0.12) as locks:
        lease = await locks.lock(key).acquire()
        assert await until(api, lambda: values(nodes, key) == [None] * 5)
        assert not lease.is_held()
        assert peer.take(RESOURCE)
        assert await until(api, lambda: values(nodes, key) == [peer.value()] * 5)
        with pytest.raises(redlock.LeaseLost):
            await lease.extend()
        assert await lease.release() is False
    assert values(nodes, key) == [peer.value()] * 5


@both
async def test_a_lease_is_extended_while_a_peer_tries(api: Api, nodes: Nodes, peer: Peer) -> None:
    """Past the end of the first validity no try of the peer gets between; neither by hand nor with
    `auto_extend`.

    The peer tries in a thread of its own: how long a try takes it on a busy machine is no time in
    which ours is not extended.
    """
    by_hand, by_itself = "by hand", "by itself"
    tries: list[tuple[str, float, bool]] = []
    enough = threading.Event()

    def try_on() -> None:
        while not enough.is_set():
            for name in (by_hand, by_itself):
                began_at = now()
                tries.append((name, began_at, peer.take(name)))

    thread = threading.Thread(target=try_on)
    async with api.redlock(nodes.urls, key_prefix="", ttl=2.4, node_timeout=0.7) as locks:
        lease = await locks.lock(peer.key(by_hand)).acquire()
        async with locks.lock(peer.key(by_itself), auto_extend=True) as other:
            first_ends_at = other.valid_until
            thread.start()
            try:
                while thread.is_alive():
                    if {name for name, began_at, _ in tries if began_at > first_ends_at} == {
                        by_hand,
                        by_itself,
                    }:
                        enough.set()
                    await lease.extend()
                    other.ensure_held()
                    await api.sleep(0.02)
            finally:
                enough.set()
                thread.join()
        assert [name for name, _, taken in tries if taken] == []
        assert tries[-1][1] > first_ends_at
        assert await lease.release()
        assert await until(api, lambda: peer.take(by_hand))
        assert await until(api, lambda: peer.take(by_itself))


# Some nodes each


@both
async def test_a_peer_on_a_minority_of_the_nodes_does_not_stop_us(
    api: Api, nodes: Nodes, connect: Connect
) -> None:
    """It holds two of five: we get the other three, extend and verify there, and release without
    touching its two."""
    peer = connect(nodes[:MINORITY])
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE, ttl=60.0)
    theirs = [peer.value()] * MINORITY
    assert await until(api, lambda: values(nodes, key)[:MINORITY] == theirs)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        async with locks.lock(key, timeout=0) as lease:
            ours = [f"{lease.owner}:{lease.fencing_token}"] * MAJORITY
            assert values(nodes, key) == theirs + ours
            await lease.extend(20.0)
            await lease.verify()
            assert (await locks.status(key)).fencing_token == lease.fencing_token
            everywhere = connect(nodes)
            assert not everywhere.take(RESOURCE)
            assert values(nodes, key) == theirs + ours
        assert await until(api, lambda: values(nodes, key) == theirs + [None] * MAJORITY)


@both
async def test_a_peer_on_a_majority_of_the_nodes_stops_us(
    api: Api, nodes: Nodes, connect: Connect
) -> None:
    """It holds three of five: we get nothing, and what our try got of the other two is given
    back."""
    peer = connect(nodes[:MAJORITY])
    key = peer.key(RESOURCE)
    assert peer.take(RESOURCE)
    theirs = [peer.value()] * MAJORITY
    assert await until(api, lambda: values(nodes, key)[:MAJORITY] == theirs)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        assert await locks.lock(key).acquire(blocking=False) is None
        assert await locks.lock(key).acquire(timeout=0.4) is None
        assert await until(api, lambda: values(nodes, key) == theirs + [None] * MINORITY)


@both
async def test_a_split_vote_between_libraries_leaves_nothing_of_ours_behind(
    api: Api, nodes: Nodes, connect: Connect
) -> None:
    """Two peers hold two nodes each: nobody can win, ours gives back its one node, and wins once
    one peer lets go."""
    first, second = connect(nodes[:2]), connect(nodes[2:4])
    key = first.key(RESOURCE)
    assert first.take(RESOURCE)
    assert second.take(RESOURCE)
    theirs = [first.value()] * 2 + [second.value()] * 2
    assert await until(api, lambda: values(nodes, key)[:4] == theirs)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        assert await locks.lock(key).acquire(blocking=False) is None
        assert await until(api, lambda: values(nodes, key) == [*theirs, None])
        status = await locks.status(key)
        assert status.held is None
        assert status.holder is None
        second.free()
        async with locks.lock(key, timeout=10.0) as lease:
            lease.ensure_held()
            assert values(nodes, key)[:2] == theirs[:2]


# All at once


@both
async def test_no_two_libraries_are_ever_inside_at_once(
    api: Api, nodes: Nodes, connect: Connect, tmp_path: Path
) -> None:
    """Four processes of a peer and two users of ours, in turns on one key: whoever is inside is
    alone, and all get in."""
    peers = [connect(nodes) for _ in range(4)]
    key, witness, rounds = peers[0].key(RESOURCE), tmp_path / "inside", 8
    clashes = 0

    async def contend(locks: Any) -> None:
        nonlocal clashes
        for _ in range(rounds):
            async with locks.lock(key, timeout=60.0):
                clashes += not be_present(witness, 0.002)
            await api.sleep(random.uniform(0.001, 0.02))

    async with api.redlock(nodes.urls, key_prefix="", retry_delay=0.02) as locks:
        for peer in peers:
            peer.start_contending(RESOURCE, rounds, witness)
        ours = [api.spawn(contend(locks)) for _ in range(2)]
        for one in ours:
            await api.join(one, 60.0)
    told = [peer.contended() for peer in peers]
    assert [one["clashes"] for one in told] == [0] * len(peers)
    assert clashes == 0
    assert sum(one["rounds"] for one in told) > 0


# What else may stand under the key


@both
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"1",
        b":",
        b"owner:123",
        b"a" * 200_000,
        b"*3\r\n:1\r\n",
        b"\r\n$3\r\nabc\r\n",
        b"\xff\xfe\x00\x1b[2J",
        "\u2603".encode() * 50,
    ],
    ids=lambda value: repr(value[:12]),
)
async def test_any_foreign_value_is_somebody_elses_lock(
    api: Api, nodes: Nodes, value: bytes
) -> None:
    """Whatever another library writes: contended, shown short and printable, and left alone."""
    for node in nodes:
        with node.client() as client:
            client.set("theirs", value, nx=True, px=20_000)
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        with pytest.raises(LockContended) as caught:
            async with locks.lock("theirs", timeout=0):
                pytest.fail("the body ran without the lock")
        status = await locks.status("theirs")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert status.held
    assert status.holder is not None
    assert len(status.holder) <= 11
    for node in nodes:
        with node.client() as client:
            assert client.get("theirs") == value


@both
async def test_a_lock_of_another_type_is_an_outage_and_not_ours_to_touch(
    api: Api, nodes: Nodes
) -> None:
    """Redisson keeps its locks in hashes. No classic client could take that key either: the
    error says WRONGTYPE."""
    for node in nodes:
        with node.client() as client:
            client.hset("theirs", "d2a6:1", "1")
    async with api.redlock(nodes.urls, key_prefix="") as locks:
        with pytest.raises(QuorumUnavailable, match="WRONGTYPE"):
            await locks.lock("theirs").acquire(blocking=False)
        assert [
            str(vote.error)
            for vote in (await locks.status("theirs")).votes
            if "WRONGTYPE" not in vote.reason
        ] == []
    for node in nodes:
        with node.client() as client:
            assert client.hgetall("theirs") == {b"d2a6:1": b"1"}


@both
async def test_a_classic_client_by_hand_never_gets_between_our_grants(
    api: Api, nodes: Nodes
) -> None:
    """`SET NX PX` in a tight loop on every node, while we take and release: each lease is alone
    on its majority."""
    stop = threading.Event()
    took: list[str] = []

    def hammer() -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in nodes]
            while not stop.is_set():
                mine = f"hand-{random.getrandbits(64):x}"
                got = [client for client in clients if client.set("till", mine, nx=True, px=5000)]
                if len(got) >= MAJORITY:
                    took.append(mine)
                    time.sleep(0.002)
                for client in clients:
                    compare_and_delete(client, "till", mine)
                time.sleep(0.003)

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        async with api.redlock(nodes.urls, key_prefix="", retry_delay=0.01) as locks:
            for _ in range(15):
                async with locks.lock("till", timeout=30.0) as lease:
                    ours = f"{lease.owner}:{lease.fencing_token}"
                    assert values(nodes, "till").count(ours) >= MAJORITY
                    lease.ensure_held()
                await api.sleep(0.005)
    finally:
        stop.set()
        thread.join()
    assert took


def compare_and_delete(client: redis.Redis, key: str, value: str) -> None:
    """The classic release."""
    script = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"
    client.eval(script, 1, key, value)


# The peers' environments


def wheel(folder: Path) -> Path:
    """The smallest package that pip installs without an index."""
    path = folder / "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n"
        )
        archive.writestr(
            "mine-1.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("mine-1.dist-info/RECORD", "")
    return path


def test_a_build_that_fails_or_is_interrupted_is_begun_anew(tmp_path: Path) -> None:
    """Without a stamp a folder is thrown away; with one it is used as it is. Where pip cannot
    install, the reason is a line."""
    rest = tmp_path / "mine" / "half a package"
    with pytest.raises(PeerMissing) as caught:
        environment("mine", [str(tmp_path / "absent-1-py3-none-any.whl")], tmp_path)
    assert str(caught.value).startswith("no environment for mine: ERROR")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine" / "stamp").exists()
    rest.touch()
    requirements = [str(wheel(tmp_path))]
    python = environment("mine", requirements, tmp_path)
    assert not rest.exists()
    rest.touch()
    assert environment("mine", requirements, tmp_path) == python
    assert rest.exists()
