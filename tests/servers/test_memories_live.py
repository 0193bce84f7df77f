"""Memories, not servers and not texts, vote: every way in which a node's marker came back, or a
name led to two, on real servers.

Through both APIs, with the clients' connections living on wherever the way allows it.
`test_admission_live.py` has what a node that forgot openly has to do; here it looks as if it had
forgotten nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redlock import initialise as initialising
from redlock.core.identity import Marker
from redlock.embedded import Node, Nodes
from redlock.errors import ConfigurationError, QuorumUnavailable
from redlock.initialise import initialise
from redlock.observe import LeaseGranted, NodeDisconnected, NodeMemoryChanged, NodeQuarantined
from redlock.transport.clock import now
from tests.contract.api import Api, Journal, paused, until
from tests.servers.test_admission_live import (
    LONG,
    LONG_SPAN,
    LONG_TTL,
    MARKER,
    MAX_TTL,
    PATIENCE,
    SHORT,
    SPAN,
    TINY,
    Cluster,
    Forwarder,
    ask,
    both,
    demote,
    identity_of,
    info,
    mark,
    marked,
    marker_of,
    told_within,
    unavailable,
    until_report,
    wait_for_copy,
)

FOUNDED = re.compile(
    r"has no marker: the cluster is new and \S+ cannot be asked: start it, or run `redlock init`"
)
LOOKED_WITHIN = 1.0
"""Seconds of use after which a connection has looked at its node: what is promised, whatever the
code's own number."""
OLD_FORMAT = re.compile(r"redlock1 \S+ [0-9]+ [0-9]+ [01] [0-9]+ \S+")
"""What the versions before wrote and read: run id, nodes, max_ttl in milliseconds, durable,
floor, cluster."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Nodes]:
    """Six servers, which every test gets as if they were new; the last is a standby, or a
    stranger."""
    with Nodes(
        6, marked=False, options={"repl-diskless-sync-delay": "0", "repl-backlog-ttl": "1"}
    ) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def as_new(servers: Nodes) -> None:
    """No server is stopped, limited, a copy, or keeps a backlog for one: with a backlog, the
    next backup renames nothing."""
    for node in servers:
        if node.pid is None:
            node.start()
        if (
            info(node, "role") != "master"
            or info(node, "second_repl_offset") != -1
            or info(node, "repl_backlog_active")
        ):
            node.kill()
            node.wipe()
            node.start()
        ask(node, "CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")
        ask(node, "FLUSHALL")
        with contextlib.suppress(FileNotFoundError):
            (node.folder / "dump.rdb").unlink()


@pytest.fixture
def three(servers: Nodes) -> Cluster:
    return marked(servers[:3], MAX_TTL)


@pytest.fixture
def long_three(servers: Nodes) -> Cluster:
    return marked(servers[:3], LONG_TTL)


@pytest.fixture
def standby(servers: Nodes) -> Node:
    found: Node = servers[5]
    return found


@pytest.fixture
def forward() -> Iterator[Callable[[Node], Forwarder]]:
    with contextlib.ExitStack() as stack:

        def make(node: Node) -> Forwarder:
            forwarder = Forwarder(node.port)
            stack.callback(forwarder.close)
            return forwarder

        yield make


# A marker that comes back with the data


class Promoted:
    """The node is made a replica of a copy of itself, and a master again; its connections live
    on by themselves."""

    def __init__(self, node: Node, standby: Node, name: Forwarder) -> None:
        self.node, self.standby = node, standby

    def remember(self) -> None:
        """Keep what the node has now, to be what it has after the loss."""
        demote(self.standby, self.node)
        wait_for_copy(self.standby)
        ask(self.standby, "REPLICAOF", "NO", "ONE")

    def lose(self) -> None:
        """All since is gone, and the marker stands."""
        marker = ask(self.node, "GET", MARKER)
        # The first replica gave the node another id, and so another marker.
        ask(self.standby, "SET", MARKER, marker)
        demote(self.node, self.standby)
        wait_for_copy(self.node)
        ask(self.node, "REPLICAOF", "NO", "ONE")
        assert ask(self.node, "GET", MARKER) == marker


class Restored:
    """The node restarts from its own snapshot, and a proxy keeps its clients' connections."""

    def __init__(self, node: Node, standby: Node, name: Forwarder) -> None:
        self.node, self.name = node, name

    def remember(self) -> None:
        ask(self.node, "SAVE")

    def lose(self) -> None:
        marker = ask(self.node, "GET", MARKER)
        self.name.hold()
        self.node.restart()
        self.name.point_at(self.node.port, keep=True)
        assert ask(self.node, "GET", MARKER) == marker


WAYS = pytest.mark.parametrize("way", [Promoted, Restored], ids=["promoted", "restored"])


async def admitted(api: Api, *clients: Any) -> None:
    """Until all of them count every node's vote."""
    for locks in clients:
        for place in range(3):
            assert await until_report(api, locks, place, lambda report: report.votes)
        async with locks.lock("warm", timeout=PATIENCE):
            pass


async def tried(locks: Any, resource: str) -> Any:
    """A lease, or None for any reason."""
    try:
        return await locks.lock(resource).acquire(blocking=False)
    except QuorumUnavailable:
        return None


@both
@WAYS
@pytest.mark.parametrize("seen", ["by nobody", "by a report", "by many at once"])
async def test_a_node_whose_marker_came_back_has_no_vote_on_living_connections(
    api: Api,
    long_three: Cluster,
    standby: Node,
    forward: Callable[[Node], Forwarder],
    way: type[Promoted] | type[Restored],
    seen: str,
) -> None:
    """One holds two of three nodes, and one of these loses that. Nobody takes it together with
    the third, though the very marker stands there and no connection broke; nor does the holder
    count what it has not.
    """
    name = forward(long_three[2])
    urls, journal = [*long_three.urls[:2], name.url], Journal(api)
    async with (
        api.redlock(urls, **LONG) as holder,
        api.redlock(urls, **LONG, on_event=journal) as rival,
    ):
        loss = way(long_three[2], standby, name)
        loss.remember()
        if way is Promoted:
            mark(long_three[2:], max_ttl=LONG_TTL)
        await admitted(api, holder, rival)
        with paused(long_three[:1]):
            lease = await holder.lock("till").acquire(timeout=PATIENCE)
            assert ask(long_three[2], "EXISTS", "redlock:till") == 1
        loss.lose()
        # It may have been asked as well, before it was stopped.
        ask(long_three[0], "DEL", "redlock:till")
        if seen == "by a report":
            assert not (await rival.nodes())[2].votes
        count = 8 if seen == "by many at once" else 1
        for _ in range(3):
            tries = [api.spawn(tried(rival, "till")) for _ in range(count)]
            assert [await api.join(one) for one in tries] == [None] * count
        assert ask(long_three[2], "EXISTS", "redlock:till") == 0
        with paused(long_three[:1]):
            with pytest.raises(QuorumUnavailable):
                await lease.extend()
            votes = await unavailable(rival.lock("other"))
        assert "is in quarantine" in votes[2].reason and told_within(votes[2].reason, LONG_SPAN)
        assert journal.of(NodeMemoryChanged)
        assert name.url not in {record.node for record in journal.of(NodeDisconnected)}
        await lease.release()


@both
@WAYS
async def test_a_node_whose_marker_came_back_votes_again_after_its_wait(
    api: Api,
    three: Cluster,
    standby: Node,
    forward: Callable[[Node], Forwarder],
    way: type[Promoted] | type[Restored],
) -> None:
    """Its marker names the new memory and has a floor, and every token that it takes is beyond
    that."""
    name = forward(three[2])
    urls = [*three.urls[:2], name.url]
    async with api.redlock(urls, **SHORT) as locks:
        loss = way(three[2], standby, name)
        loss.remember()
        if way is Promoted:
            mark(three[2:])
        await admitted(api, locks)
        before = await locks.lock("till").acquire(timeout=PATIENCE)
        await before.release()
        stood, lost_at = marker_of(three[2]), now()
        loss.lose()
        with paused(three[:1]):
            lease = await locks.lock("till").acquire(timeout=PATIENCE)
            assert now() >= lost_at + SPAN
            marker = marker_of(three[2])
            assert (marker.memory, stood.memory == marker.memory) == (
                identity_of(three[2]).memory,
                False,
            )
            assert lease.fencing_token > marker.floor > before.fencing_token
            await lease.release()


# A backup


def backup(node: Node) -> None:
    """What `redis-cli --rdb` does: ask for a copy as a replica would, read all of it, and leave."""
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(b"SYNC\r\n")
        while not (header := stream.readline().strip()):
            pass
        if header.startswith(b"$EOF:"):
            end, data = header[5:], b""
            while not data.endswith(end):
                data += stream.read1()
        else:
            assert len(stream.read(int(header[1:]))) == int(header[1:])


def backed_up(nodes: Cluster) -> None:
    """Back all of *nodes* up, so that each has another replication id."""
    before = [identity_of(node).memory for node in nodes]
    for node in nodes:
        backup(node)
    after = [identity_of(node).memory for node in nodes]
    assert all(
        one.run_id == other.run_id and one != other
        for one, other in zip(before, after, strict=True)
    )


def backlogs_gone(nodes: Cluster) -> None:
    """Until the servers have forgotten their replicas, which gives each another id once more."""
    give_up_at = time.monotonic() + PATIENCE
    while any(info(node, "repl_backlog_active") for node in nodes):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


@both
async def test_a_backup_of_every_node_costs_nothing_where_no_node_is_ever_a_replica(
    api: Api, servers: Nodes
) -> None:
    """It gives each another replication id. As promised, that is no loss: leases are extended,
    locks are taken at once, and the markers follow; also when the backup's traces go, and for
    whoever comes later.
    """
    nodes = Cluster(servers[:3])
    initialise(nodes.urls, max_ttl=LONG_TTL, never_replicas=True)
    journal = Journal(api)
    async with api.redlock(nodes.urls, **LONG, on_event=journal) as locks:
        await admitted(api, locks)
        lease = await locks.lock("kept").acquire()
        for step in (backed_up, backlogs_gone, backed_up):
            step(nodes)
            await lease.extend()
            await lease.verify()
            step(nodes) if step is not backed_up else None
            async with locks.lock("till", timeout=0) as other:
                other.ensure_held()
            assert all(report.votes for report in await locks.nodes())
        assert [marker_of(node).memory for node in nodes] == [
            identity_of(node).memory for node in nodes
        ]
        assert await lease.release()
        assert not journal.of(NodeQuarantined)
    backlogs_gone(nodes)
    journal = Journal(api)
    async with (
        api.redlock(nodes.urls, **LONG, on_event=journal) as fresh,
        fresh.lock("till", timeout=0),
    ):
        assert not journal.of(NodeQuarantined)
    assert all(marker_of(node).floor == 0 for node in nodes)


@both
async def test_a_backup_without_that_promise_is_one_wait_that_says_why(
    api: Api, three: Cluster
) -> None:
    """A promotion could look the same. One node at a time, the others go on meanwhile."""
    journal = Journal(api)
    async with api.redlock(three.urls, **SHORT, on_event=journal) as locks:
        await admitted(api, locks)
        backed_up_at = now()
        backed_up(Cluster(three[:1]))
        async with locks.lock("till", timeout=PATIENCE):
            pass
        with paused(three[1:2]):
            votes = await unavailable(locks.lock("till"))
            assert re.search(
                "it was promoted, or a replica or a backup came or left.*in quarantine",
                votes[0].reason,
            )
            assert told_within(votes[0].reason, SPAN)
            async with locks.lock("till", timeout=PATIENCE) as lease:
                assert now() >= backed_up_at + SPAN
                assert lease.fencing_token > marker_of(three[0]).floor > 0
        assert {record.node for record in journal.of(NodeQuarantined)} == {three.urls[0]}


# One name, two servers


@both
@pytest.mark.parametrize("keep", [False, True], ids=["reconnect", "same connection"])
async def test_who_met_the_newer_server_does_not_believe_the_older_one_again(
    api: Api, three: Cluster, standby: Node, forward: Callable[[Node], Forwarder], keep: bool
) -> None:
    """An address moves to a standby and back while both live. Each has a marker of its own;
    whoever met the standby waits before the first server votes again, and no token is smaller
    than one before.
    """
    name = forward(three[2])
    urls, tokens = [*three.urls[:2], name.url], []
    async with api.redlock(urls, **SHORT) as locks:
        await admitted(api, locks)
        for server in (standby, three[2]):
            stood = ask(server, "GET", MARKER)
            name.point_at(server.port, keep=keep)
            moved_at = now()
            with paused(three[:1]):
                lease = await locks.lock("till").acquire(timeout=PATIENCE)
                assert now() >= moved_at + SPAN
                tokens.append(lease.fencing_token)
                assert ask(server, "GET", "redlock:till") == f"{lease.owner}:{lease.fencing_token}"
                assert ask(server, "GET", MARKER) != stood
                assert marker_of(server).memory == identity_of(server).memory
                await lease.release()
    assert tokens == sorted(tokens)
    assert marker_of(three[2]).floor > marker_of(standby).floor > 0


@both
async def test_the_return_of_an_older_server_is_told(
    api: Api, long_three: Cluster, standby: Node, forward: Callable[[Node], Forwarder]
) -> None:
    """Why it does not vote, and that another memory answers, with both names."""
    name = forward(long_three[2])
    mark([standby], max_ttl=LONG_TTL)
    journal = Journal(api)
    async with api.redlock([*long_three.urls[:2], name.url], **LONG, on_event=journal) as locks:
        await admitted(api, locks)
        for server in (standby, long_three[2]):
            name.point_at(server.port, keep=False)
            assert await until_report(
                api, locks, 2, lambda report, server=server: report.run_id == info(server, "run_id")
            )
        assert await until_report(
            api,
            locks,
            2,
            lambda report: "an older memory came back under its name" in report.reason,
        )
        names = [
            "/".join(identity_of(server).memory)
            for server in (long_three[2], standby, long_three[2])
        ]
        changed = [
            (record.before, record.now)
            for record in journal.of(NodeMemoryChanged)
            if record.node == name.url
        ]
        assert changed == [(names[0], names[1]), (names[1], names[2])]
        with paused(long_three[:1]):
            await unavailable(locks.lock("till"))


@both
async def test_databases_swapped_twice_bring_back_no_smaller_token(
    api: Api, three: Cluster
) -> None:
    """SWAPDB changes neither the run nor the replication id: what tells is that the marker is
    gone, and that the one which comes back is no successor of the one that stood there since.
    """
    async with api.redlock(three.urls, **SHORT) as locks:
        await admitted(api, locks)
        tokens = [(await _taken(locks)).fencing_token]
        for _ in range(2):
            swapped_at = now()
            ask(three[2], "SWAPDB", 0, 1)
            with paused(three[:1]):
                lease = await locks.lock("till").acquire(timeout=PATIENCE)
                assert now() >= swapped_at + SPAN
                tokens.append(lease.fencing_token)
                await lease.release()
        assert tokens == sorted(tokens)
        ask(three[2], "FLUSHALL")


async def _taken(locks: Any) -> Any:
    lease = await locks.lock("till").acquire(timeout=PATIENCE)
    await lease.release()
    return lease


# A raised max_ttl


class Interrupted(Exception):
    """The operator's machine went down."""


def raise_and_break_off(
    nodes: Cluster, max_ttl: float, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raise it, and break off after so many markers."""
    write, left = initialising._Server.write, iter(range(writes))

    def limited(self: Any, new: Marker) -> Marker:
        if next(left, None) is None:
            raise Interrupted
        return write(self, new)

    with monkeypatch.context() as patch:
        patch.setattr(initialising._Server, "write", limited)
        with pytest.raises(Interrupted):
            initialise(nodes.urls, max_ttl=max_ttl)


@both
@pytest.mark.parametrize("writes", range(6))
async def test_a_raise_that_broke_off_is_safe_and_goes_on_when_it_is_run_again(
    api: Api, three: Cluster, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Wherever it broke off: a node takes a longer lock only when all nodes wait for longer
    ones, one that forgets then waits for them, and the next run ends what this one began; floors
    are kept.
    """
    mark(three[:1], floor=7)
    raise_and_break_off(three, LONG_TTL, writes, monkeypatch)
    stand = [marker_of(node) for node in three]
    assert [marker.wait_ttl for marker in stand] == [LONG_TTL] * min(writes, 3) + [MAX_TTL] * (
        3 - min(writes, 3)
    )
    assert [marker.max_ttl for marker in stand] == [LONG_TTL] * max(writes - 3, 0) + [MAX_TTL] * (
        3 - max(writes - 3, 0)
    )
    async with api.redlock(three.urls, **SHORT) as locks:
        async with locks.lock("till", timeout=PATIENCE):
            pass
        if writes >= 3:
            ask(three[2], "FLUSHALL")
            assert await until_report(
                api, locks, 2, lambda report: (report.quarantine_left or 0.0) > SPAN
            )
            with pytest.raises(ConfigurationError, match="is not an admitted node of this cluster"):
                initialise(three.urls, max_ttl=LONG_TTL)
            mark(three[2:], max_ttl=MAX_TTL, wait_ttl=LONG_TTL)
        assert [marker.max_ttl for marker in initialise(three.urls, max_ttl=LONG_TTL)] == [
            LONG_TTL
        ] * 3
        assert [(marker_of(node).max_ttl, marker_of(node).wait_ttl) for node in three] == [
            (LONG_TTL, LONG_TTL)
        ] * 3
        assert [marker_of(node).floor for node in three] == [7, 0, 0]
        async with locks.lock("till", ttl=LONG_TTL, timeout=PATIENCE) as lease:
            assert lease.remaining() > MAX_TTL


@pytest.mark.parametrize("writes", range(1, 6))
def test_a_node_that_forgets_while_max_ttl_is_raised_is_not_marked_over(
    three: Cluster, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """It has to wait, by a client's clock; and what it would wait for must not be decided
    without it."""
    write = initialising._Server.write
    done: list[Marker] = []

    def meanwhile(self: Any, new: Marker) -> Marker:
        if len(done) == writes:
            ask(three[2], "FLUSHALL")
        done.append(new)
        return write(self, new)

    with monkeypatch.context() as patch:
        patch.setattr(initialising._Server, "write", meanwhile)
        with pytest.raises(
            ConfigurationError, match=r"is not an admitted node|was marked, or lost its marker"
        ):
            initialise(three.urls, max_ttl=LONG_TTL)
    assert ask(three[2], "EXISTS", MARKER) == 0


def test_a_node_that_was_marked_as_before_while_max_ttl_is_raised_stops_that(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It forgot behind the operator's back, and a client that had asked the others before marked
    it: it would not wait for longer locks. No node takes one until that is found.
    """
    write = initialising._Server.write
    done: list[Marker] = []

    def meanwhile(self: Any, new: Marker) -> Marker:
        written = write(self, new)
        done.append(new)
        if len(done) == len(three):
            mark(three[:1], max_ttl=MAX_TTL, floor=9)
        return written

    with monkeypatch.context() as patch:
        patch.setattr(initialising._Server, "write", meanwhile)
        with pytest.raises(ConfigurationError, match="forgot its marker while this was done"):
            initialise(three.urls, max_ttl=LONG_TTL)
    assert [marker_of(node).max_ttl for node in three] == [MAX_TTL] * 3


# init --replace


@both
async def test_a_replaced_cluster_grants_no_smaller_token(api: Api, three: Cluster) -> None:
    """A client whose clock was ahead took the last token, and then every node forgot it: the new
    markers have a floor beyond whatever can have been granted.
    """
    ahead = time.time_ns() // 1000 + 50_000_000
    for node in three:
        ask(node, "SET", "redlock:till:fence", ahead)
    async with api.redlock(three.urls, **SHORT) as locks:
        before = await _taken(locks)
        assert before.fencing_token > ahead
    for node in three:
        ask(node, "FLUSHALL")
    assert all(
        marker.floor > before.fencing_token
        for marker in initialise(three.urls, max_ttl=MAX_TTL, replace=True)
    )
    async with api.redlock(three.urls, **SHORT) as locks:
        later = await locks.lock("till").acquire(timeout=PATIENCE)
        assert later.fencing_token > before.fencing_token
        await later.release()


# Eviction


@both
async def test_an_eviction_policy_set_at_run_time_is_seen_on_living_connections(
    api: Api, three: Cluster
) -> None:
    """No script sees it, and nothing breaks: a look once a second does. A try that begins later
    than that counts no vote."""
    journal = Journal(api)
    async with api.redlock(three.urls, **SHORT, on_event=journal) as locks:
        await admitted(api, locks)
        ask(three[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        set_at = now()
        with paused(three[:1]):
            while (began_at := now()) < set_at + LOOKED_WITHIN + 1.5:
                lease = await tried(locks, "till")
                if lease is not None:
                    assert began_at < set_at + LOOKED_WITHIN
                    await lease.release()
                await api.sleep(0.05)
            votes = await unavailable(locks.lock("till"))
        assert (
            votes[1].reason == "may evict locks (maxmemory-policy allkeys-lru, must be noeviction)"
        )
        assert three.urls[1] not in {record.node for record in journal.of(NodeDisconnected)}


@both
async def test_a_node_that_evicted_keys_has_forgotten(api: Api, three: Cluster) -> None:
    """Whatever its policy says by now: what it threw away may have been a lock."""
    async with api.redlock(three.urls, **SHORT) as locks:
        await admitted(api, locks)
        evict(three[1])
        assert (info(three[1], "maxmemory_policy"), marker_of(three[1]).floor) == ("noeviction", 0)
        evicted_at = now()
        assert await until_report(api, locks, 1, lambda report: "it evicted keys" in report.reason)
        with paused(three[:1]):
            async with locks.lock("till", timeout=PATIENCE) as lease:
                assert now() >= evicted_at + SPAN
                assert lease.fencing_token > marker_of(three[1]).floor > 0


def evict(node: Node) -> None:
    """Make it throw keys away, of which none is ours, and put it right again."""
    limit = int(info(node, "used_memory")) + (1 << 20)
    ask(node, "CONFIG", "SET", "maxmemory", limit, "maxmemory-policy", "volatile-ttl")
    for number in range(40):
        ask(node, "SET", f"other:{number}", "x" * (1 << 16), "EX", 1000)
    assert int(info(node, "evicted_keys")) > 0
    ask(node, "CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")
    for number in range(40):
        ask(node, "DEL", f"other:{number}")


# Founding


@both
async def test_a_new_cluster_is_founded_by_all_of_its_nodes(api: Api, servers: Nodes) -> None:
    """A node that was never marked, one that is flushed and a partition would make two clusters
    of one. The votes say who is missing and what to do; when it answers, the cluster is founded.
    """
    nodes = Cluster(servers[:3])
    nodes[2].kill()
    try:
        async with api.redlock(nodes.urls, **TINY) as locks:
            asked_since = now()
            while now() < asked_since + SPAN:
                votes = await unavailable(locks.lock("till"))
                await api.sleep(0.1)
            told = [vote.reason for vote in votes[:2] if vote.reason != "was not waited for"]
            assert told and all(
                FOUNDED.fullmatch(reason) and nodes.urls[2] in reason for reason in told
            )
            assert all(
                (ask(node, "GET", MARKER) or "").startswith("redlock2 blank ") for node in nodes[:2]
            )
            nodes[2].start()
            async with locks.lock("till", timeout=PATIENCE):
                pass
            for place in range(3):
                assert await until_report(api, locks, place, lambda report: report.votes)
    finally:
        if nodes[2].pid is None:
            nodes[2].start()


# Clients that live for a second


@both
@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_clients_that_live_for_a_second_bring_a_node_back(
    api: Api, three: Cluster, how: str
) -> None:
    """None of them sees the whole wait. The blank on the node says since when it is waited on,
    by the clocks of the nodes."""
    lost_at = now()
    if how == "flushed":
        ask(three[2], "FLUSHALL")
    else:
        three[2].restart()
    while True:
        async with api.redlock(three.urls, **SHORT) as locks:
            began_at = now()
            while now() < began_at + 0.5:
                async with locks.lock("till", timeout=PATIENCE):
                    pass
                await api.sleep(0.1)
            if (await locks.nodes())[2].votes:
                break
        assert now() < lost_at + PATIENCE
    assert now() >= lost_at + SPAN - 1.0  # The servers count their uptime in whole seconds.
    marker = marker_of(three[2])
    assert marker.memory == identity_of(three[2]).memory and marker.floor > 0


# Markers of the versions before


@both
async def test_markers_of_the_format_before_are_brought_up_to_date_without_an_outage(
    api: Api, three: Cluster
) -> None:
    """They name this run: the first client goes on at once. Floors and promises are kept."""
    for node, floor in zip(three, (0, 7, 1700000000000000), strict=True):
        text = f"redlock1 {info(node, 'run_id')} 3 1000 0 {floor} billing"
        assert OLD_FORMAT.fullmatch(text)
        ask(node, "SET", MARKER, text)
    journal = Journal(api)
    async with api.redlock(three.urls, **SHORT, on_event=journal) as locks:
        async with locks.lock("till", timeout=0) as lease:
            await lease.extend()
        assert [report.votes for report in await locks.nodes()] == [True] * 3
        assert not journal.of(NodeQuarantined) and journal.of(LeaseGranted)
    for node, floor in zip(three, (0, 7, 1700000000000000), strict=True):
        marker = marker_of(node)
        assert (marker.memory, marker.max_ttl, marker.wait_ttl) == (
            identity_of(node).memory,
            MAX_TTL,
            MAX_TTL,
        )
        assert (marker.floor, marker.cluster, marker.nodes, marker.before) == (
            floor,
            "billing",
            3,
            False,
        )


@both
async def test_an_old_marker_of_another_run_is_a_loss_as_it_was(api: Api, three: Cluster) -> None:
    """The node gets a marker of today, and a floor, once what it forgot with its last restart is
    over."""
    ask(three[2], "SET", MARKER, f"redlock1 {'0' * 40} 3 1000 0 0 -")
    async with api.redlock(three.urls, **SHORT) as locks:
        assert await until_report(api, locks, 2, lambda report: report.votes)
    assert marker_of(three[2]).floor > 0


def test_the_version_before_refuses_what_this_one_writes(three: Cluster) -> None:
    """It says "has a marker of another format", and does not vote by it: a mixed fleet has no
    two opinions."""
    initialise(three.urls, max_ttl=MAX_TTL, replace=True, cluster="billing")
    for node in three:
        text = ask(node, "GET", MARKER)
        assert OLD_FORMAT.fullmatch(text) is None and not text.startswith(
            ("redlock1 ", "redlock1 blank ")
        )


# Availability


@both
@pytest.mark.parametrize("count", [5, 3])
async def test_a_node_comes_back_while_another_one_is_down(
    api: Api, servers: Nodes, count: int
) -> None:
    """Five nodes: one down, another restarts, and after its quarantine votes again; of three
    nodes as well, where the lock was out of reach meanwhile.
    """
    nodes = marked(servers[:count], MAX_TTL)
    mark(nodes, nodes=count)
    nodes[0].kill()
    try:
        async with api.redlock(nodes.urls, **SHORT) as locks:
            before = await _taken(locks)
            restarted_at = now()
            nodes[1].restart()
            assert await until_report(
                api, locks, 1, lambda report: "is in quarantine" in report.reason
            )
            if count == 5:
                async with locks.lock("till", timeout=0):
                    assert now() < restarted_at + PATIENCE
            assert await until_report(api, locks, 1, lambda report: report.votes)
            assert now() >= restarted_at + SPAN
            with paused(nodes[4:]):
                lease = await locks.lock("till").acquire(timeout=PATIENCE)
                assert await until(api, lambda: ask(nodes[1], "EXISTS", "redlock:till") == 1)
                assert lease.fencing_token > marker_of(nodes[1]).floor > before.fencing_token
                await lease.release()
    finally:
        nodes[0].start()
