"""Nodes that forget do not vote: every way in which a real server forgets, or must not vote, seen
through both APIs.

The eight points of node admission, in their order. The servers are real, and their clusters promise
a `max_ttl` of little over a second, so that a quarantine can be waited for.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

import redlock
from redlock import initialise as initialising
from redlock.core.commands import Look
from redlock.core.identity import Blank, Identity, Marker, Memory
from redlock.embedded import Node, Nodes
from redlock.errors import (
    CastVote,
    ConfigurationError,
    LockContended,
    NodeRefused,
    NodeUnreachable,
    QuorumUnavailable,
)
from redlock.initialise import initialise
from redlock.observe import NodeAdmitted, NodeDisconnected, NodeQuarantined, NodeRejected
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, BLOCKING, Api, Body, Journal, paused, until

MARKER = "redlock:node"
MAX_TTL = 1.0
SPAN = MAX_TTL * 1.02 + 1.0
"""How long a node is kept out: the longest lock it can have forgotten, a drift of two per cent,
and a second."""
FLOOR_AHEAD = 60.0
SHORT = {"ttl": MAX_TTL, "node_timeout": 0.3}
"""The longest ttl the test clusters allow, with a node timeout that a busy machine does not
need."""
LONG_TTL = 9.0
LONG = {"ttl": LONG_TTL, "node_timeout": 0.3}
LONG_SPAN = LONG_TTL * 1.02 + 1.0
"""For tests that hold a lease while servers restart, and wait for no quarantine."""
TINY = {"ttl": 0.5, "max_ttl": 0.5, "node_timeout": 0.15}
"""For clusters that nobody has marked yet: they promise what their first client asks for."""
TINY_SPAN = 0.5 * 1.02 + 1.0
PATIENCE = 20.0


def both(body: Callable[..., Body]) -> Callable[..., None]:
    """The test's body is run by each of our two APIs."""

    @pytest.mark.parametrize("api", [BLOCKING, ASYNCIO], ids=lambda api: api.name)
    @functools.wraps(body)
    def test(*, api: Api, **fixtures: Any) -> None:
        api.run(body(api=api, **fixtures))

    run: Callable[..., None] = test  # Not only what the mark makes of it.
    return run


class Cluster(list[Node]):
    """Some of the module's servers, for a test to stop, demote and flush."""

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self]


@pytest.fixture(scope="module")
def servers() -> Iterator[Nodes]:
    """Five servers, which every test gets as if they were new."""
    with Nodes(5, marked=False, options={"repl-diskless-sync-delay": "0"}) as nodes:
        yield nodes


@pytest.fixture
def three(servers: Nodes) -> Cluster:
    """Three servers, marked for short locks."""
    return marked(servers[:3], MAX_TTL)


@pytest.fixture
def five(servers: Nodes) -> Cluster:
    """Five servers, marked for short locks."""
    return marked(servers, MAX_TTL)


@pytest.fixture
def long_three(servers: Nodes) -> Cluster:
    """Three servers, marked for long locks."""
    return marked(servers[:3], LONG_TTL)


@pytest.fixture
def long_five(servers: Nodes) -> Cluster:
    """Five servers, marked for long locks."""
    return marked(servers, LONG_TTL)


def marked(nodes: Sequence[Node], max_ttl: float) -> Cluster:
    """The nodes without a trace of an earlier test, marked as a cluster."""
    for node in nodes:
        if info(node, "role") != "master" or info(node, "second_repl_offset") != -1:
            node.kill()
            node.wipe()  # A copy came with a file, which a restart would read.
            node.start()
        ask(node, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        ask(node, "FLUSHALL")
    mark(nodes, nodes=len(nodes), max_ttl=max_ttl)
    return Cluster(nodes)


@pytest.fixture(scope="module", autouse=True)
def old_servers() -> Iterator[Nodes]:
    """Three servers that are never restarted; started with the first test, so that they grow old
    while others run."""
    with Nodes(3, marked=False) as nodes:
        yield nodes


@pytest.fixture
def veterans(old_servers: Nodes) -> Cluster:
    """Three servers, empty and unmarked, that have run for longer than any quarantine here
    lasts."""
    for node in old_servers:
        while info(node, "uptime_in_seconds") <= SPAN:
            time.sleep(0.05)
        ask(node, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        ask(node, "FLUSHALL")
    return Cluster(old_servers)


@pytest.fixture
def stranger(veterans: Cluster) -> Node:
    """A server that belongs to no cluster."""
    return veterans[0]


def ask(node: Node, *words: str | int) -> Any:
    """One command, by a client of its own."""
    with node.client(decode_responses=True) as client:
        return client.execute_command(*words)


def info(node: Node, name: str) -> Any:
    """One field of INFO."""
    with node.client() as client:
        found: Any = client.info()
        return found[name]


def marker_of(node: Node) -> Marker:
    """The marker that stands on *node*."""
    marker = Marker.parse(ask(node, "GET", MARKER) or "")
    assert marker is not None
    return marker


def identity_of(node: Node) -> Identity:
    """What *node* tells of itself."""
    look = Look()
    with node.client() as client:
        return Identity.parse(*look.read(client.execute_command(*look.words(whole=True))))


def mark(these: Sequence[Node], /, **said: Any) -> None:
    """Write markers as `initialise` would; *said* replaces a part of them."""
    for node in these:
        found = identity_of(node)
        known = {
            "memory": found.memory,
            "nodes": 3,
            "max_ttl": MAX_TTL,
            "evicted": found.evicted,
            "since_us": 1,
        }
        ask(node, "SET", MARKER, Marker(**{**known, **said}).text())


def demote(node: Node, master: Node) -> None:
    """Make *node* a replica of *master*."""
    ask(node, "REPLICAOF", "127.0.0.1", master.port)


def wait_for_copy(node: Node) -> None:
    """Until a replica has its master's data."""
    give_up_at = time.monotonic() + PATIENCE
    while info(node, "master_link_status") != "up":
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


async def unavailable(lock: Any) -> tuple[CastVote, ...]:
    """The votes of one try that must find no majority."""
    with pytest.raises(QuorumUnavailable) as caught:
        await lock.acquire(blocking=False)
    return caught.value.votes


def told_within(reason: str, span: float) -> bool:
    """Whether *reason* ends with the seconds left, at most *span* and rounded to a tenth."""
    number, unit = reason.split(" ")[-2:]
    return unit == "s" and 0 < float(number) <= span + 0.05


class Forwarder:
    """A TCP forwarder on a port of its own: a virtual address, or a proxy, that can be pointed
    at another server."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._held = False
        self._ends: dict[socket.socket, socket.socket] = {}
        self._opened: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Keep the clients' connections when the server goes, until it is pointed at another
        one, or the same again."""
        with self._lock:
            self._held = True

    def point_at(self, port: int, *, keep: bool) -> None:
        """Forward to *port* from now on. *keep*: also what comes on the connections there are;
        otherwise these break."""
        with self._lock:
            self._target = port
            self._held = False
            for client, server in list(self._ends.items()):
                if keep:
                    self._ends[client] = self._connect()
                for end in [server] if keep else [server, client]:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            self._moved.notify_all()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.point_at(self._target, keep=False)
        for thread in self._threads:
            thread.join()
        for end in self._opened:
            end.close()

    def _connect(self) -> socket.socket:
        self._opened.append(socket.create_connection(("127.0.0.1", self._target)))
        return self._opened[-1]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._ends[client] = self._connect()
            for work in (self._upwards, self._downwards):
                thread = threading.Thread(target=work, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _upwards(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    server = self._ends[client]
                server.sendall(data)
        with self._lock:
            server = self._ends.pop(client)
        for end in (server, client):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _downwards(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while True:
                with self._lock:
                    server = self._ends.get(client)
                if server is None:
                    return
                while data := server.recv(65536):
                    client.sendall(data)
                with self._moved:
                    while self._held and self._ends.get(client) is server:
                        self._moved.wait()
                    over = self._ends.get(client) is server
                if over:
                    client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def forward() -> Iterator[Callable[[Node], Forwarder]]:
    """Puts a forwarder before a node."""
    with contextlib.ExitStack() as stack:

        def make(node: Node) -> Forwarder:
            forwarder = Forwarder(node.port)
            stack.callback(forwarder.close)
            return forwarder

        yield make


# 1. Fit to vote


@both
async def test_a_replica_does_not_vote(api: Api, three: Cluster) -> None:
    """Its copy comes by asynchronous replication. It costs its own vote, is named in the votes,
    and stops nobody."""
    demote(three[2], three[0])
    # From then on it shows its master's replication id, and so would be told of twice.
    wait_for_copy(three[2])
    journal = Journal(api)
    async with api.redlock(three.urls, **SHORT, on_event=journal) as locks:
        async with locks.lock("till") as lease:
            await lease.extend()
        with paused([three[1]]):
            votes = await unavailable(locks.lock("till"))
        assert votes[2].reason == "is a slave, not a master"
        assert isinstance(votes[2].error, NodeRefused)
        assert [record.node for record in journal.of(NodeRejected)] == [three[2].url]
        report = (await locks.nodes())[2]
        assert (report.votes, report.role, report.reason) == (
            False,
            "slave",
            "is a slave, not a master",
        )


@both
async def test_a_majority_of_replicas_is_a_configuration_error(api: Api, three: Cluster) -> None:
    """At once, with both of them named: no waiting would help."""
    demote(three[1], three[0])
    demote(three[2], three[0])
    async with api.redlock(three.urls, **SHORT) as locks:
        with pytest.raises(ConfigurationError) as caught:
            await locks.lock("till").acquire()
    assert f"{three[1].url}, {three[2].url}: is a slave, not a master" in str(caught.value)
    assert three[0].url not in str(caught.value)


@both
async def test_a_node_that_is_demoted_under_a_client_loses_its_vote(
    api: Api, three: Cluster
) -> None:
    """The first write it refuses tells; promoted again, with another node's data, it is one that
    forgot."""
    async with api.redlock(three.urls, **SHORT) as locks:
        async with locks.lock("till"):
            pass
        demote(three[2], three[0])
        async with locks.lock("till", timeout=0):
            pass
        with paused([three[1]]):
            # The first question to a node that was demoted meets READONLY; who it is now is known
            # from then on.
            await unavailable(locks.lock("till"))
            votes = await unavailable(locks.lock("till"))
        assert votes[2].reason == "is a slave, not a master"
        wait_for_copy(three[2])
        ask(three[2], "REPLICAOF", "NO", "ONE")
        assert await until_report(api, locks, 2, lambda report: "is in quarantine" in report.reason)
        assert marker_of(three[2]).memory.run_id == info(three[0], "run_id")


async def until_report(api: Api, locks: Any, place: int, condition: Callable[..., bool]) -> bool:
    """Whether the report on one node came to say what *condition* asks for."""
    give_up_at = now() + PATIENCE
    while now() < give_up_at:
        if condition((await locks.nodes())[place]):
            return True
        await api.sleep(0.05)
    return False


@both
@pytest.mark.parametrize("name", ["localhost", "forwarder"])
async def test_the_same_server_behind_two_names_is_a_configuration_error(
    api: Api, three: Cluster, forward: Callable[[Node], Forwarder], name: str
) -> None:
    """Two of three "nodes" would be one machine: refused by run id, whatever the names, and
    before anything is written."""
    twin = f"redis://localhost:{three[0].port}" if name == "localhost" else forward(three[0]).url
    async with api.redlock([three[0].url, twin, three[1].url], **SHORT) as locks:
        with pytest.raises(ConfigurationError, match="is the same server as") as caught:
            await locks.lock("till").acquire()
        assert three[0].url in str(caught.value)
        assert twin in str(caught.value)
    assert [ask(node, "EXISTS", "redlock:till") for node in three] == [0, 0, 0]


@both
async def test_an_evicting_node_does_not_vote_until_it_is_put_right(
    api: Api, three: Cluster
) -> None:
    """A server that may throw locks away keeps none. Once its policy is `noeviction`, the same
    client lets it vote."""
    ask(three[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with api.redlock(three.urls, **SHORT) as locks:
        async with locks.lock("till"):
            pass
        with paused([three[0]]):
            votes = await unavailable(locks.lock("till"))
        assert (
            votes[1].reason == "may evict locks (maxmemory-policy allkeys-lru, must be noeviction)"
        )
        assert isinstance(votes[1].error, NodeRefused)
        ask(three[1], "CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert await until_report(api, locks, 1, lambda report: report.votes)
        with paused([three[0]]):
            async with locks.lock("till", timeout=PATIENCE):
                pass


@both
async def test_a_majority_of_evicting_nodes_is_a_configuration_error(
    api: Api, three: Cluster
) -> None:
    """With the policy in the message."""
    for node in three[:2]:
        ask(node, "CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    async with api.redlock(three.urls, **SHORT) as locks:
        with pytest.raises(
            ConfigurationError, match="maxmemory-policy volatile-ttl, must be noeviction"
        ):
            await locks.lock("till").acquire()


@both
@pytest.mark.parametrize("slots", [False, True], ids=["without slots", "with all slots"])
async def test_a_cluster_mode_node_does_not_vote(api: Api, servers: Nodes, slots: bool) -> None:
    """A Redis Cluster is not N independent masters. Its nodes are refused as such, also where
    the marker cannot be read."""
    with clustered() as one, clustered() as other:
        nodes = Cluster([*servers[:2], one])
        marked(nodes[:2], MAX_TTL)
        mark(nodes[:2])
        if slots:
            for node in (one, other):
                ask(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with api.redlock(nodes.urls, **SHORT) as locks:
            async with locks.lock("till"):
                pass
            with paused([nodes[0]]):
                votes = await unavailable(locks.lock("till"))
            assert votes[2].reason == "runs in cluster mode"
            assert isinstance(votes[2].error, NodeRefused)
        async with api.redlock([nodes[0].url, one.url, other.url], **SHORT) as locks:
            with pytest.raises(ConfigurationError, match="runs in cluster mode"):
                await locks.lock("till").acquire()


@contextlib.contextmanager
def clustered() -> Iterator[Node]:
    """A server in cluster mode."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        bus = probe.getsockname()[1]
    # By default the bus has the server's port plus 10,000, which need not exist.
    with Nodes(
        1, marked=False, options={"cluster-enabled": "yes", "cluster-port": str(bus)}
    ) as nodes:
        yield nodes[0]


# 2. The marker is the cluster's


@both
async def test_a_list_of_another_length_is_refused_with_both_numbers(
    api: Api, five: Cluster, veterans: Cluster
) -> None:
    """Three of five and all five have majorities without a common node, and so has a longer
    list: neither may begin."""
    async with api.redlock(five.urls[:3], **SHORT) as locks:
        with pytest.raises(
            ConfigurationError, match="belongs to a cluster of 5 nodes, and this list has 3"
        ):
            await locks.lock("till").acquire()
    async with api.redlock([*five.urls, *veterans.urls[:2]], **SHORT) as locks:
        with pytest.raises(
            ConfigurationError, match="belongs to a cluster of 5 nodes, and this list has 7"
        ):
            await locks.lock("till").acquire()


@both
async def test_a_node_of_another_cluster_does_not_vote(
    api: Api, servers: Nodes, three: Cluster, veterans: Cluster
) -> None:
    """`init` gave both clusters an id: a stray node is named with both; lists without a common
    cluster cannot begin."""
    initialise(three.urls, max_ttl=MAX_TTL, cluster="billing", replace=True)
    initialise(veterans.urls, max_ttl=MAX_TTL, cluster="search")
    mark([servers[3]], cluster="mail")
    async with api.redlock([*three.urls[:2], veterans[2].url], **SHORT) as locks:
        async with locks.lock("till"):
            pass
        with paused([three[0]]):
            votes = await unavailable(locks.lock("till"))
        assert votes[2].reason == "belongs to cluster 'search', and the others to 'billing'"
        assert isinstance(votes[2].error, NodeRefused)
        assert [report.cluster for report in await locks.nodes()] == [
            "billing",
            "billing",
            "search",
        ]
    async with api.redlock([three[0].url, veterans[0].url, servers[3].url], **SHORT) as locks:
        with pytest.raises(ConfigurationError, match="belongs to cluster 'search'"):
            await locks.lock("till").acquire()


@both
async def test_what_is_the_clusters_is_no_clients_to_choose(api: Api, three: Cluster) -> None:
    """`max_ttl` and `durable`: None adopts the marker's, the same value is fine, another one is
    refused naming both."""
    for wrong, told in (
        ({"max_ttl": 60.0}, "belongs to a cluster with max_ttl=1, and max_ttl=60 was asked for"),
        (
            {"durable": True},
            "belongs to a cluster with durable=False, and durable=True was asked for",
        ),
    ):
        async with api.redlock(three.urls, **SHORT, **wrong) as locks:
            with pytest.raises((ConfigurationError, NodeUnreachable), match=told):
                await locks.lock("till").acquire()
    async with (
        api.redlock(three.urls, **SHORT, max_ttl=MAX_TTL, durable=False) as locks,
        locks.lock("till"),
    ):
        pass


@both
async def test_a_ttl_or_an_extension_above_the_clusters_is_refused(
    api: Api, long_three: Cluster
) -> None:
    """By the first acquire as soon as the nodes have told, and by every extension; the lease is
    none the worse for it."""
    async with api.redlock(long_three.urls, ttl=10.0) as locks:
        with pytest.raises(ConfigurationError, match="ttl=10 is above the cluster's max_ttl=9"):
            await locks.lock("till").acquire()
        async with locks.lock("till", ttl=LONG_TTL) as lease:
            with pytest.raises(ConfigurationError, match="ttl=10 is above the cluster's max_ttl=9"):
                await lease.extend(10.0)
            lease.ensure_held()


@both
async def test_a_node_itself_refuses_a_ttl_above_its_marker(api: Api, three: Cluster) -> None:
    """While `max_ttl` is being raised, the nodes that do not know yet say no to what they have
    not promised."""
    mark([three[2]], max_ttl=MAX_TTL - 0.1)
    async with api.redlock(three.urls, **SHORT) as locks:
        async with locks.lock("till"):
            assert ask(three[2], "EXISTS", "redlock:till") == 0
        with paused([three[0]]):
            votes = await unavailable(locks.lock("till"))
        assert "a ttl of 1000 ms is above this cluster's max_ttl of 900 ms" in votes[2].reason


@both
async def test_what_is_no_marker_of_ours_refuses_the_node(api: Api, three: Cluster) -> None:
    """Somebody else's value under the marker's name (pottery's lock on "node" has that key) is
    neither read nor replaced."""
    for value in (
        "e100d612-63db-4128-9c5d-eb8da63d2c29",
        "redlock2 x",
        "redlock1 x 3 -1 0 0 -",
        " ",
    ):
        ask(three[2], "SET", MARKER, value)
        async with api.redlock(three.urls, **SHORT) as locks:
            async with locks.lock("till"):
                pass
            assert (await locks.nodes())[2].reason == "has a marker of another format"
        assert ask(three[2], "GET", MARKER) == value


# 3. Admitted at once


@both
async def test_a_marked_node_votes_for_a_fresh_client_at_once(api: Api, three: Cluster) -> None:
    """The marker names this run of the server: no wait, and the marker stays as it is."""
    before = [ask(node, "GET", MARKER) for node in three]
    journal = Journal(api)
    async with api.redlock(three.urls, **SHORT, on_event=journal) as locks:
        async with locks.lock("till", timeout=0):
            pass
        assert {record.node for record in journal.of(NodeAdmitted)} == set(three.urls)
        assert [report.votes for report in await locks.nodes()] == [True] * 3
    assert [ask(node, "GET", MARKER) for node in three] == before


@both
async def test_durable_nodes_are_admitted_at_once_after_a_restart(api: Api) -> None:
    """They have their data: the lock stands, the holder goes on, and the markers name the new
    runs."""
    with Nodes(3, durable=True) as nodes:
        async with api.redlock(nodes.urls) as locks:
            async with locks.lock("till") as lease:
                for node in nodes:
                    node.restart()
                async with api.redlock(nodes.urls) as fresh:
                    assert await fresh.lock("till").acquire(blocking=False) is None
                    assert [report.durable for report in await fresh.nodes()] == [True] * 3
                await lease.extend()
                await lease.verify()
            async with locks.lock("till", timeout=PATIENCE) as later:
                assert later.fencing_token > lease.fencing_token
        for node in nodes:
            assert replace(marker_of(node), since_us=0) == Marker(
                identity_of(node).memory, 3, 60.0, durable=True
            )


@both
async def test_a_durable_node_that_comes_back_empty_is_one_that_forgot(api: Api) -> None:
    """The declaration covers a marked node: a lost disk is a quarantine, as for any other."""
    with Nodes(3, durable=True, max_ttl=MAX_TTL) as nodes:
        async with api.redlock(nodes.urls, **SHORT) as locks:
            async with locks.lock("till"):
                pass
            nodes[2].kill()
            nodes[2].wipe()
            nodes[2].start()
            assert await until_report(
                api,
                locks,
                2,
                lambda report: "(its marker is gone) and is in quarantine" in report.reason,
            )
            with paused([nodes[1]]):
                votes = await unavailable(locks.lock("till"))
            assert told_within(votes[2].reason, SPAN)


# 4. Quarantine


@both
async def test_a_minority_that_restarts_is_kept_out_and_the_rest_goes_on(
    api: Api, long_five: Cluster
) -> None:
    """Two of five forgot: locks go on with the other three, and it is told how long the two are
    kept out."""
    five, journal = long_five, Journal(api)
    async with api.redlock(five.urls, **LONG, on_event=journal) as locks:
        async with locks.lock("till") as lease:
            for node in five[:2]:
                node.restart()
            await lease.extend()
        async with locks.lock("till", timeout=PATIENCE) as lease:
            assert [ask(node, "EXISTS", "redlock:till") for node in five[:2]] == [0, 0]
            await lease.extend()
            await lease.verify()
        reports = await locks.nodes()
        assert [report.votes for report in reports] == [False, False, True, True, True]
        assert all(0 < (report.quarantine_left or 0) <= LONG_SPAN for report in reports[:2])
        assert {record.node for record in journal.of(NodeQuarantined)} == set(five.urls[:2])


@both
async def test_a_majority_that_restarts_is_waited_out_and_votes_again_above_its_floor(
    api: Api, five: Cluster
) -> None:
    """Three of five forgot: no lock until every lock they may have forgotten is over, with the
    seconds left in the votes; then their markers carry a floor a minute ahead, and no token at
    or below it is taken there.
    """
    async with api.redlock(five.urls, **SHORT) as locks, api.redlock(five.urls, **SHORT) as fresh:
        before = await locks.lock("till").acquire()
        restarted_at = now()
        for node in five[:3]:
            node.restart()
        votes = await unavailable(locks.lock("other"))
        for vote in votes[:3]:
            assert isinstance(vote.error, NodeRefused)
            assert (
                "forgot its locks (its marker is gone) and is in quarantine: it votes again in"
                in vote.reason
            )
            assert told_within(vote.reason, SPAN)
        await before.release()
        waiter = api.spawn(fresh.lock("till").acquire(timeout=PATIENCE))
        lease = await locks.lock("other").acquire(timeout=PATIENCE)
        assert now() >= restarted_at + SPAN
        held = [ask(node, "GET", "redlock:other") for node in five]
        other = await api.join(waiter)
        markers = [marker_of(node) for node in five]
        for node, marker in zip(five[:3], markers[:3], strict=True):
            assert (marker.memory, marker.nodes, marker.max_ttl, marker.durable) == (
                identity_of(node).memory,
                5,
                MAX_TTL,
                False,
            )
            assert abs(marker.floor / 1e6 - (time.time() + FLOOR_AHEAD)) < PATIENCE
        assert [marker.floor for marker in markers[3:]] == [0, 0]
        for value, marker in zip(held, markers, strict=True):
            assert value is None or int(value.split(":")[1]) > marker.floor
        # At least one of the three took part in each majority.
        floor = min(marker.floor for marker in markers[:3])
        assert lease.fencing_token > floor > before.fencing_token
        assert other.fencing_token > floor
        await lease.release()
        await other.release()


@both
async def test_a_release_reaches_a_node_in_quarantine(api: Api) -> None:
    """It has its keys back from its file and may not vote, not even for extensions; but what is
    given back is gone there."""
    with Nodes(3, max_ttl=LONG_TTL, options={"appendonly": "yes"}) as nodes:
        async with api.redlock(nodes.urls, **LONG) as locks:
            lease = await locks.lock("till").acquire()
            ours = f"{lease.owner}:{lease.fencing_token}"
            assert await until(
                api, lambda: [ask(node, "GET", "redlock:till") for node in nodes] == [ours] * 3
            )
            for node in nodes[:2]:
                node.restart()
            with pytest.raises(
                QuorumUnavailable, match=r"forgot its locks \(it restarted\) and is in quarantine"
            ):
                await lease.extend()
            await lease.release()
            assert await until(
                api, lambda: [ask(node, "GET", "redlock:till") for node in nodes] == [None] * 3
            )
            assert int(ask(nodes[0], "GET", "redlock:till:fence")) > lease.fencing_token
            votes = await unavailable(locks.lock("till"))
            assert all("it restarted" in vote.reason for vote in votes[:2])


@both
async def test_a_flush_under_a_connected_client_is_found_by_the_script(
    api: Api, long_five: Cluster
) -> None:
    """FLUSHALL changes neither the connection nor the run id: the marker that TAKE asks for is
    gone. Two of five flushed cost two votes, three cost the majority: for extending, for
    verifying and for taking.
    """
    async with api.redlock(long_five.urls, **LONG) as locks:
        async with locks.lock("till") as lease:
            for node in long_five[:2]:
                ask(node, "FLUSHALL")
            await lease.extend()
            await lease.verify()
            ask(long_five[2], "FLUSHALL")
            for question in (lease.extend, lease.verify):
                with pytest.raises(QuorumUnavailable, match="its marker is gone"):
                    await question()
        votes = await unavailable(locks.lock("till"))
        assert all("(its marker is gone) and is in quarantine" in vote.reason for vote in votes[:3])
        assert all(told_within(vote.reason, LONG_SPAN) for vote in votes[:3])


@both
async def test_flushed_nodes_vote_again_when_what_they_forgot_is_over(
    api: Api, three: Cluster
) -> None:
    """Not a moment earlier for having been up all the time; and with a larger token than any
    from before the flush."""
    async with api.redlock(three.urls, **SHORT) as locks:
        before = await locks.lock("till").acquire()
        flushed_at = now()
        for node in three[:2]:
            ask(node, "FLUSHALL")
        waiter = api.spawn(locks.lock("till").acquire(timeout=PATIENCE))
        lease = await api.join(waiter)
        assert now() >= flushed_at + SPAN
        assert lease.fencing_token > before.fencing_token
        await lease.release()
        await before.release()


@both
async def test_a_node_that_is_flushed_again_is_not_taken_for_one_flush(
    api: Api, three: Cluster
) -> None:
    """Two clients wait for a node to be over its flush. One lets it vote; it is flushed again
    before the other comes back, who has waited long enough for the first flush and not at all
    for the second.
    """
    async with api.redlock(three.urls, **SHORT) as early, api.redlock(three.urls, **SHORT) as late:
        for locks in (early, late):
            await (await locks.lock("till").acquire()).release()
        ask(three[1], "FLUSHALL")
        for locks in (early, late):
            with paused(three[2:]):  # So that the vote of the flushed node is asked for and counts.
                votes = await unavailable(locks.lock("till"))
            assert "its marker is gone" in votes[1].reason
        assert await until_report(api, early, 1, lambda report: report.votes)
        await api.sleep(0.5)  # The wait of the other one is over as well.
        ask(three[1], "FLUSHALL")
        with paused(three[2:]):
            votes = await unavailable(late.lock("till"))
        assert "its marker is gone" in votes[1].reason
        assert told_within(votes[1].reason, SPAN)


@both
async def test_a_cluster_that_forgot_as_a_whole_comes_back_by_itself(
    api: Api, three: Cluster
) -> None:
    """A power cut, and no file on disk. There is no marker left to ask, and nobody to run a
    command: a client that knew the cluster waits until every lock has expired, and writes its
    markers anew, id and promises included.
    """
    mark(three, cluster="billing")
    async with api.redlock(three.urls, **SHORT) as locks:
        lease = await locks.lock("till").acquire()
        await lease.release()
        restarted_at = now()
        for node in three:
            node.restart()
        later = await locks.lock("till").acquire(timeout=PATIENCE)
        assert now() >= restarted_at + SPAN
        assert later.fencing_token > lease.fencing_token
        await later.release()
        for place in range(3):
            assert await until_report(api, locks, place, lambda report: report.votes)
    for node in three:
        marker = marker_of(node)
        assert (marker.memory, marker.nodes, marker.max_ttl, marker.cluster) == (
            identity_of(node).memory,
            3,
            MAX_TTL,
            "billing",
        )
        assert marker.floor > lease.fencing_token


@both
async def test_a_silent_node_may_know_of_a_longer_promise(api: Api, three: Cluster) -> None:
    """Two of three forgot and the third does not answer a fresh client: how long to wait is
    unknown, however long it waits. Once the third tells its `max_ttl`, that is what counts.
    """
    mark(three[:1], max_ttl=30.0)
    mark(three[1:2], memory=Memory("0" * 40, "1" * 40))
    ask(three[2], "FLUSHALL")
    async with api.redlock(three.urls, **SHORT) as locks:
        with paused(three[:1]):
            asked_since = now()
            while now() < asked_since + SPAN + 1.0:
                votes = await unavailable(locks.lock("till"))
                await api.sleep(0.1)
        assert [vote.reason for vote in votes[1:]] == [
            f"forgot its locks ({how}) and is in quarantine until a majority has told that max_ttl"
            " was not raised meanwhile"
            for how in ("it restarted", "its marker is gone")
        ]
        assert await until_report(
            api, locks, 2, lambda report: (report.quarantine_left or 0.0) > 20.0
        )
        assert (await locks.nodes())[0].votes


# 4. A changed address


@both
@pytest.mark.parametrize("keep", [False, True], ids=["reconnect", "same connection"])
async def test_an_address_that_moves_to_another_server_is_noticed(
    api: Api, long_three: Cluster, stranger: Node, forward: Callable[[Node], Forwarder], keep: bool
) -> None:
    """A virtual address, a DNS name or a proxy leads elsewhere: to a server that knows nothing of
    what this one granted.

    On a new connection the node is asked who it is; on one that a proxy keeps, the script asks for
    its marker.
    """
    vip = forward(long_three[0])
    async with api.redlock([vip.url, *long_three.urls[1:]], **LONG) as locks:
        lease = await locks.lock("till").acquire()
        vip.point_at(stranger.port, keep=keep)
        await lease.extend()
        with paused([long_three[2]]):
            await until_unavailable(locks, "till")
            with pytest.raises(QuorumUnavailable):
                await lease.verify()
            votes = await unavailable(locks.lock("till"))
        assert "(its marker is gone) and is in quarantine" in votes[0].reason
        assert told_within(votes[0].reason, LONG_SPAN)
        assert ask(stranger, "EXISTS", "redlock:till") == 0
        assert await lease.release()


async def until_unavailable(locks: Any, resource: str) -> None:
    """The first question after a change finds out; what it says is not the point."""
    with contextlib.suppress(QuorumUnavailable):
        await locks.lock(resource).acquire(blocking=False)


@both
@pytest.mark.parametrize("keep", [False, True], ids=["reconnect", "same connection"])
async def test_an_address_that_moves_to_another_node_makes_no_majority(
    api: Api, three: Cluster, forward: Callable[[Node], Forwarder], keep: bool
) -> None:
    """Two addresses lead to one server now, while the third is down: its two votes must not
    count as a majority."""
    vip = forward(three[0])
    async with api.redlock([vip.url, three[1].url, three[2].url], **SHORT) as locks:
        async with locks.lock("till"):
            pass
        vip.point_at(three[1].port, keep=keep)
        with paused([three[2]]):
            for _ in range(3):
                with pytest.raises(QuorumUnavailable):
                    await locks.lock("till").acquire(blocking=False)
            with pytest.raises(QuorumUnavailable, match="is the same server as"):
                await locks.lock("till").acquire(timeout=1.0)
        vip.point_at(three[0].port, keep=keep)
        async with locks.lock("till", timeout=PATIENCE):
            pass


# 5. A new cluster


@both
async def test_a_new_cluster_says_when_it_grants_and_does_then(api: Api, three: Cluster) -> None:
    """Nobody marked it and its servers have just started: they might as well have forgotten. The
    votes tell the seconds left, no command is advised, and a waiting acquire gets its lock when
    they are over.
    """
    started_at = now()
    for node in three:
        node.restart()
    async with api.redlock(three.urls, **TINY) as locks:
        votes = await unavailable(locks.lock("till"))
        told = [vote for vote in votes if vote.reason != "was not waited for"]
        assert len(told) >= 2
        for vote in told:
            assert "has no marker yet, as in a new cluster: it grants locks in" in vote.reason
            assert told_within(vote.reason, TINY_SPAN)
            assert "init" not in vote.reason
        assert all(
            (ask(node, "GET", MARKER) or "redlock2 blank ").startswith("redlock2 blank ")
            for node in three
        )
        async with locks.lock("till", timeout=PATIENCE):
            # The servers count their uptime in whole seconds.
            assert now() - started_at >= TINY_SPAN - 1.0
        for place in range(3):
            assert await until_report(api, locks, place, lambda report: report.votes)
    for node in three:
        assert replace(marker_of(node), since_us=0) == Marker(identity_of(node).memory, 3, 0.5)


@both
async def test_a_new_cluster_that_has_run_for_long_grants_at_once(
    api: Api, veterans: Cluster
) -> None:
    """Whatever it may have forgotten has expired: no wait for a cluster that was set up before
    its first client."""
    async with api.redlock(veterans.urls, **TINY) as locks, locks.lock("till", timeout=0) as lease:
        lease.ensure_held()
    assert await until(api, lambda: sum(ask(node, "EXISTS", MARKER) for node in veterans) >= 2)


@both
async def test_a_new_durable_cluster_grants_at_once(api: Api) -> None:
    """Nodes that keep their data and have no marker never had one."""
    with Nodes(3, marked=False, durable=True) as nodes:
        async with (
            api.redlock(nodes.urls, durable=True) as locks,
            locks.lock("till", timeout=0) as lease,
        ):
            lease.ensure_held()
        assert await until(api, lambda: all(ask(node, "EXISTS", MARKER) for node in nodes))
        assert {marker_of(node).durable for node in nodes} == {True}
        assert {marker_of(node).max_ttl for node in nodes} == {60.0}


@both
async def test_a_flushed_node_among_marked_ones_is_not_a_new_cluster(
    api: Api, veterans: Cluster
) -> None:
    """A holds nodes 1 and 2; 2 is flushed and has been up for long. A fresh client must not win
    2 and 3 with that."""
    mark(veterans, max_ttl=LONG_TTL)
    async with api.redlock(veterans.urls, **LONG) as locks:
        with paused([veterans[2]]):
            lease = await locks.lock("till").acquire()
        ask(veterans[1], "FLUSHALL")
        # It may have been asked as well, before it was stopped.
        ask(veterans[2], "DEL", "redlock:till")
        async with api.redlock(veterans.urls, **LONG) as fresh:
            with pytest.raises(LockContended) as caught:
                async with fresh.lock("till", timeout=0):
                    pytest.fail("two holders")
        votes = caught.value.votes
        assert "is held by" in votes[0].reason
        assert "(its marker is gone) and is in quarantine: it votes again in" in votes[1].reason
        assert told_within(votes[1].reason, LONG_SPAN)
        assert votes[2].granted
        await lease.release()


@both
async def test_two_first_clients_at_once_end_with_the_same_markers(
    api: Api, veterans: Cluster
) -> None:
    """Each marker is a compare-and-set, and the loser adopts what stands: both clients go on,
    and exclude each other."""
    for _ in range(4):
        for node in veterans:
            ask(node, "FLUSHALL")
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(api.redlock(veterans.urls, **TINY))
                for _ in range(3)
            ]
            first = [
                api.spawn(client.lock(f"till {place}").acquire(timeout=PATIENCE))
                for place, client in enumerate(clients)
            ]
            leases = [await api.join(one) for one in first]
            for client in clients:
                for place in range(3):
                    assert await until_report(api, client, place, lambda report: report.votes)
            stand = [ask(node, "GET", MARKER) for node in veterans]
            assert [marker_of(node).memory for node in veterans] == [
                identity_of(node).memory for node in veterans
            ]
            for lease in leases:
                await lease.release()
            async with clients[0].lock("till", timeout=PATIENCE):
                assert await clients[1].lock("till").acquire(blocking=False) is None
            assert [ask(node, "GET", MARKER) for node in veterans] == stand


# 6. Setting a cluster up


def test_initialise_refuses_a_marked_cluster(veterans: Cluster) -> None:
    """Any marker on any node: a cluster in use must not look new. The message names what is
    marked."""
    markers = initialise(veterans.urls, max_ttl=5.0, cluster="billing")
    assert [marker.text() for marker in markers] == [ask(node, "GET", MARKER) for node in veterans]
    with pytest.raises(ConfigurationError, match="already marked") as caught:
        initialise(veterans.urls)
    assert all(url in str(caught.value) for url in veterans.urls)
    ask(veterans[0], "DEL", MARKER)
    with pytest.raises(ConfigurationError, match="already marked"):
        initialise(veterans.urls)
    with pytest.raises(ConfigurationError, match="not an admitted node of this cluster"):
        initialise(veterans.urls, max_ttl=10.0)
    assert ask(veterans[0], "EXISTS", MARKER) == 0


@pytest.mark.parametrize("came", ["", "redlock2 blank 2 2 0 other", "somebody else's"])
def test_initialise_marks_only_over_the_blank_that_it_looked_at(
    veterans: Cluster, monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    """A blank is no marker, whoever gave it. But a node that lost that since may have been
    marked, used and flushed."""
    ask(veterans[0], "SET", MARKER, "redlock1 blank 1")
    write = initialising._Server.write

    def meanwhile(*what: Any) -> Marker:
        ask(veterans[1], "SET", MARKER, came) if came else ask(veterans[1], "DEL", MARKER)
        return write(*what)

    with monkeypatch.context() as patch:
        patch.setattr(initialising._Server, "write", meanwhile)
        with pytest.raises(
            ConfigurationError,
            match="was marked, or lost its marker or its memory, while this was done",
        ):
            initialise(veterans.urls, max_ttl=5.0)
    for node in veterans:
        ask(node, "SET", MARKER, "redlock1 blank 1")
    assert [marker.max_ttl for marker in initialise(veterans.urls, max_ttl=5.0)] == [5.0] * 3
    assert marker_of(veterans[0]).max_ttl == 5.0


def test_initialise_does_not_take_a_marker_of_somebody_else_for_its_own(
    veterans: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client founds the cluster at the same moment, and is first on one node: its promises are
    not what was asked for."""
    write = initialising._Server.write

    def meanwhile(*what: Any) -> Marker:
        mark(veterans, max_ttl=9.0)
        return write(*what)

    monkeypatch.setattr(initialising._Server, "write", meanwhile)
    with pytest.raises(
        ConfigurationError,
        match="was marked, or lost its marker or its memory, while this was done",
    ):
        initialise(veterans.urls, max_ttl=5.0)
    assert [marker_of(node).max_ttl for node in veterans] == [9.0] * 3


def test_initialise_refuses_what_cannot_be_a_cluster(veterans: Cluster) -> None:
    """A node that does not answer, the same server twice, an evicting node, an id that is no
    word: nothing is written."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        dead = f"redis://127.0.0.1:{probe.getsockname()[1]}"
    for urls, told in (
        ([*veterans.urls, dead], "every node must answer to be marked"),
        ([*veterans.urls, f"redis://localhost:{veterans[0].port}"], "is the same server as"),
    ):
        with pytest.raises((ConfigurationError, NodeUnreachable), match=told):
            initialise(urls)
    for cluster in ("", " ", "-", "two words"):
        with pytest.raises(ConfigurationError, match="must be one word"):
            initialise(veterans.urls, cluster=cluster)
    with pytest.raises(ConfigurationError, match=r"cluster='\\udc80' cannot be encoded"):
        initialise(veterans.urls, cluster="\udc80")
    ask(veterans[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigurationError, match="must be noeviction"):
        initialise(veterans.urls)
    assert [ask(node, "EXISTS", MARKER) for node in veterans] == [0, 0, 0]


class Puts:
    """What `initialise` writes, in its order; *after* is called after each write."""

    def __init__(
        self, patch: pytest.MonkeyPatch, after: Callable[[int], None] = lambda count: None
    ) -> None:
        self.written: list[Marker] = []
        put = initialising._Server.put

        def putting(server: Any, mark: Any) -> str | None:
            stands = put(server, mark)
            written = Marker.parse(stands or "")
            if written is not None:
                self.written.append(written)
                after(len(self.written))
            return stands

        patch.setattr(initialising._Server, "put", putting)


def test_all_nodes_wait_for_longer_locks_before_any_takes_one(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarantine asks the others how long it has to wait: `wait_ttl` on all of them first,
    then `max_ttl` on each."""
    puts = Puts(monkeypatch)
    initialise(own_nodes.urls, max_ttl=90.0)
    assert [(marker.max_ttl, marker.wait_ttl) for marker in puts.written] == [(60.0, 90.0)] * 5 + [
        (90.0, 90.0)
    ] * 5


def test_a_raise_goes_no_further_when_a_node_forgot_it(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was marked as before, by somebody who did not know: it would not wait for the longer
    locks."""
    before = marker_of(own_nodes[0])

    def forget(count: int) -> None:
        if count == 5:
            with own_nodes[0].client() as client:
                client.set("redlock:node", before.text())

    Puts(monkeypatch, forget)
    with pytest.raises(ConfigurationError, match="forgot its marker while this was done"):
        initialise(own_nodes.urls, max_ttl=90.0)
    assert {marker_of(node).max_ttl for node in own_nodes} == {60.0}


def test_a_node_that_evicted_keys_stops_a_raise(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost what it had, and must not get a marker that says nothing of that."""
    look = initialising._Server.look

    def evicting(server: Any) -> None:
        look(server)
        server.identity = replace(server.identity, evicted=1)

    monkeypatch.setattr(initialising._Server, "look", evicting)
    with pytest.raises(ConfigurationError, match="is not an admitted node of this cluster"):
        initialise(own_nodes.urls, max_ttl=90.0)


def test_a_replaced_cluster_keeps_its_highest_floor(own_nodes: Nodes) -> None:
    """A clock may have gone back since that floor was written, and tokens up to it may have been
    granted."""
    high = 2 * 10**15
    with own_nodes[1].client() as client:
        client.set("redlock:node", replace(marker_of(own_nodes[1]), floor=high).text())
    assert [marker.floor for marker in initialise(own_nodes.urls, replace=True)] == [high] * 5


def test_a_lock_that_is_taken_while_a_cluster_is_replaced_is_seen(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would live for longer than a quarantine by the new `max_ttl` waits. Its nodes are
    admitted again at once, as before."""
    look = initialising._refuse_live_locks
    took: list[redlock.Lease] = []
    before = [marker_of(node) for node in own_nodes]
    with redlock.Redlock(own_nodes.urls, ttl=20.0) as locks:

        def looking(servers: Any) -> None:
            look(servers)
            if not took:
                lease = locks.lock("late").acquire(timeout=PATIENCE)
                assert lease is not None
                took.append(lease)

        monkeypatch.setattr(initialising, "_refuse_live_locks", looking)
        with pytest.raises(ConfigurationError, match=r"still holds a lock, 'redlock:late'"):
            initialise(own_nodes.urls, replace=True, max_ttl=1.0)
        after = [marker_of(node) for node in own_nodes]
        assert [replace(marker, since_us=0) for marker in after] == [
            replace(marker, since_us=0) for marker in before
        ]
        took[0].extend()
        with (
            redlock.Redlock(own_nodes.urls) as others,
            pytest.raises(LockContended),
            others.lock("late", timeout=0.2),
        ):
            pass
        took[0].release()
        with locks.lock("late", timeout=PATIENCE):
            pass
        initialise(own_nodes.urls, replace=True, max_ttl=1.0)
    assert [marker.max_ttl for marker in map(marker_of, own_nodes)] == [1.0] * 5


def test_two_raises_at_once_lower_nothing(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one finds what the other one has raised meanwhile, to more than it was going
    to."""
    admitted, asked = initialising._admitted, []

    def asking(servers: Any) -> list[Marker]:
        asked.append(servers)
        if len(asked) == 2:  # Between its two steps.
            with monkeypatch.context() as patch:
                patch.setattr(initialising, "_admitted", admitted)
                initialise(own_nodes.urls, max_ttl=90.0)
            for server in servers:
                server.look()
        return admitted(servers)

    monkeypatch.setattr(initialising, "_admitted", asking)
    assert {marker.max_ttl for marker in initialise(own_nodes.urls, max_ttl=70.0)} == {90.0}
    assert {marker_of(node).max_ttl for node in own_nodes} == {90.0}


def test_a_smaller_raise_behind_one_that_broke_off_shortens_no_wait(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the larger one at this moment has told all nodes to wait for longer locks,
    and is about to allow them."""

    def stop(count: int) -> None:
        if count == 5:
            raise SystemExit

    with monkeypatch.context() as patch:
        Puts(patch, stop)
        with pytest.raises(SystemExit):
            initialise(own_nodes.urls, max_ttl=90.0)
    initialise(own_nodes.urls, max_ttl=70.0)
    assert [(marker.max_ttl, marker.wait_ttl) for marker in map(marker_of, own_nodes)] == [
        (70.0, 90.0)
    ] * 5


def test_a_part_of_a_cluster_is_not_raised(own_nodes: Nodes) -> None:
    """The nodes that are not in the list would go on waiting for the shorter locks alone."""
    before = [marker_of(node) for node in own_nodes]
    with pytest.raises(ConfigurationError, match="is not an admitted node of this cluster"):
        initialise(own_nodes.urls[:3], max_ttl=90.0)
    assert [marker_of(node) for node in own_nodes] == before


@pytest.mark.parametrize("came", ["", "redlock2 blank 2 2 0 other"])
def test_a_refused_replacement_gives_no_marker_back_to_who_forgot_meanwhile(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    """Flushed behind our blank, and met by a client or by nobody: with its old marker it would
    vote at once."""
    look, looks = initialising._refuse_live_locks, []
    before = [marker_of(node) for node in own_nodes]

    def looking(servers: Any) -> None:
        looks.append(servers)
        if len(looks) == 2:
            ask(own_nodes[1], "FLUSHALL")
            if came:
                ask(own_nodes[1], "SET", MARKER, came)
            ask(own_nodes[0], "SET", "redlock:late", "somebody:1", "PX", 20000)
            ask(own_nodes[0], "SET", "redlock:late:fence", "1")
        look(servers)

    monkeypatch.setattr(initialising, "_refuse_live_locks", looking)
    with pytest.raises(ConfigurationError, match=r"still holds a lock, 'redlock:late'"):
        initialise(own_nodes.urls, replace=True)
    assert (ask(own_nodes[1], "GET", MARKER) or "") == came
    given_back = [marker_of(node) for node in own_nodes if node is not own_nodes[1]]
    assert [replace(marker, since_us=0) for marker in given_back] == [
        replace(marker, since_us=0) for number, marker in enumerate(before) if number != 1
    ]


def test_a_lock_is_found_behind_any_number_of_fences(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fences live for a week, and there may be more of them than are asked for together."""
    monkeypatch.setattr(initialising, "_ASKED_TOGETHER", 2)
    for number in range(9):
        ask(own_nodes[0], "SET", f"redlock:{number}:fence", "1")
    for number in range(9):
        ask(own_nodes[0], "SET", f"redlock:{number}", "somebody:1", "PX", 20000)
        with pytest.raises(ConfigurationError, match=rf"still holds a lock, 'redlock:{number}'"):
            initialise(own_nodes.urls, replace=True)
        ask(own_nodes[0], "DEL", f"redlock:{number}")


def test_a_replacement_s_blanks_name_the_latest_clock(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should it break off, the wait is counted from there: by an earlier clock a client would
    think that it had waited."""
    look = initialising._Server.look

    def ahead(server: Any) -> None:
        look(server)
        if server.name == own_nodes[1].url:
            server.identity = replace(server.identity, clock=server.identity.clock + 1000.0)

    at = time.time()
    monkeypatch.setattr(initialising, "_give_back", lambda *_: None)
    monkeypatch.setattr(initialising._Server, "look", ahead)
    monkeypatch.setattr(initialising, "_refuse_live_locks", Mock(side_effect=[None, SystemExit]))
    with pytest.raises(SystemExit):
        initialise(own_nodes.urls, replace=True)
    puts = [Blank.parse(ask(node, "GET", MARKER) or "") for node in own_nodes]
    assert all(put is not None and put.latest_us > (at + 900.0) * 1e6 for put in puts)


def test_nodes_with_blanks_alone_may_be_a_cluster_in_use(own_nodes: Nodes) -> None:
    """As a replacement leaves them that was killed: no marking while a lock lives, and a floor
    above the tokens of before."""
    for node in own_nodes:
        ask(
            node,
            "SET",
            MARKER,
            f"redlock2 blank 1 1 {identity_of(node).memory.replication_id} nonce",
        )
    ask(own_nodes[3], "SET", "redlock:job", "somebody:1", "PX", 20000)
    ask(own_nodes[3], "SET", "redlock:job:fence", "1")
    with pytest.raises(ConfigurationError, match=r"still holds a lock, 'redlock:job'"):
        initialise(own_nodes.urls)
    ask(own_nodes[3], "DEL", "redlock:job")
    assert all(marker.floor > time.time() * 1e6 for marker in initialise(own_nodes.urls))


@pytest.mark.parametrize("again", [True, False])
def test_a_replacement_that_broke_off_leaves_no_new_cluster(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Who never met the cluster waits for its locks, not for as long as new nodes have been up;
    a second run goes on at once."""
    with redlock.Redlock(own_nodes.urls) as locks, locks.lock("orders") as lease:
        token = lease.fencing_token
    with monkeypatch.context() as patch:
        patch.setattr(initialising, "_give_back", lambda *_: None)
        patch.setattr(initialising, "_refuse_live_locks", Mock(side_effect=[None, SystemExit]))
        with pytest.raises(SystemExit):
            initialise(own_nodes.urls, replace=True)
    with redlock.Redlock(own_nodes.urls, max_ttl=3.0, ttl=3.0, node_timeout=0.9) as fresh:
        with pytest.raises(
            QuorumUnavailable, match="`redlock init --replace` has not ended: run it again"
        ):
            fresh.lock("orders").acquire(timeout=0)
        for node in own_nodes:
            ask(node, "DEL", "redlock:orders:fence")
        assert {
            marker.max_ttl for marker in initialise(own_nodes.urls, max_ttl=3.0, replace=again)
        } == {3.0}
        with fresh.lock("orders", timeout=PATIENCE) as lease:
            assert lease.fencing_token > token


@pytest.mark.parametrize("forgot", [2, 3])
def test_a_cluster_is_not_replaced_while_a_majority_has_forgotten(
    own_nodes: Nodes, forgot: int
) -> None:
    """A lock may live that none of the nodes shows any more. Where fewer have, one of the others
    would show it."""
    for number, node in enumerate(own_nodes[:forgot]):
        if number % 2:
            ask(node, "FLUSHALL")
        else:
            node.restart()
    if forgot < 3:
        assert len(initialise(own_nodes.urls, replace=True)) == 5
        return
    before = [ask(node, "GET", MARKER) for node in own_nodes]
    with pytest.raises(
        ConfigurationError,
        match="forgot what they granted, so locks may be valid that no node shows",
    ) as caught:
        initialise(own_nodes.urls, replace=True)
    assert all(
        (node.url in str(caught.value)) == (node in own_nodes[:forgot]) for node in own_nodes
    )
    assert [ask(node, "GET", MARKER) for node in own_nodes] == before


@pytest.mark.filterwarnings("ignore:1 node is a plain lock", "ignore:.*an even number")
@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 5), (3, 5), (5, 3), (5, 1)])
def test_a_cluster_grows_and_shrinks_by_as_many_nodes_as_one_likes(before: int, after: int) -> None:
    """Nodes that are new have no marker, as those which forgot; they do not keep it from being
    replaced."""
    with Nodes(max(before, after), marked=False) as nodes:
        initialise(nodes.urls[:before])
        assert [marker.nodes for marker in initialise(nodes.urls[:after], replace=True)] == [
            after
        ] * after


def test_a_replacement_that_is_interrupted_gives_the_markers_back(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [replace(marker_of(node), since_us=0) for node in own_nodes]
    with monkeypatch.context() as patch:
        patch.setattr(
            initialising, "_refuse_live_locks", Mock(side_effect=[None, KeyboardInterrupt])
        )
        with pytest.raises(KeyboardInterrupt):
            initialise(own_nodes.urls, replace=True)
    assert [replace(marker_of(node), since_us=0) for node in own_nodes] == before


@pytest.mark.parametrize(
    "saved", [False, True], ids=["with nothing", "with the blank from its disk"]
)
def test_a_node_that_forgets_while_its_replacement_is_refused_does_not_get_its_marker_back(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """It restarted under the blank that it was given: what it held is gone, and it has to wait
    like any other that forgot."""
    looks = 0

    def looking(servers: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:  # All nodes have blanks by now.
            blank = ask(own_nodes[0], "GET", MARKER)
            own_nodes[0].restart()
            if saved:
                ask(own_nodes[0], "SET", MARKER, blank)
            raise ConfigurationError("still holds a lock")

    before = [replace(marker_of(node), since_us=0) for node in own_nodes]
    monkeypatch.setattr(initialising, "_refuse_live_locks", looking)
    with pytest.raises(ConfigurationError, match="still holds a lock"):
        initialise(own_nodes.urls, replace=True)
    assert Marker.parse(ask(own_nodes[0], "GET", MARKER) or "") is None
    assert [replace(marker_of(node), since_us=0) for node in own_nodes[1:]] == before[1:]


def test_a_node_that_evicts_keys_while_its_replacement_is_refused_does_not_get_its_marker_back(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It threw keys away under the blank that it was given, and was put right: its marker would
    say nothing of that."""
    look, looks = initialising._Server.look, 0

    def evicting(server: Any) -> None:
        look(server)
        if looks == 2 and server.client.get_connection_kwargs()["port"] == own_nodes[0].port:
            server.identity = replace(server.identity, evicted=1)

    def looking(servers: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:  # All nodes have blanks by now.
            raise ConfigurationError("still holds a lock")

    before = [replace(marker_of(node), since_us=0) for node in own_nodes]
    monkeypatch.setattr(initialising._Server, "look", evicting)
    monkeypatch.setattr(initialising, "_refuse_live_locks", looking)
    with pytest.raises(ConfigurationError, match="still holds a lock"):
        initialise(own_nodes.urls, replace=True)
    assert Marker.parse(ask(own_nodes[0], "GET", MARKER) or "") is None
    assert [replace(marker_of(node), since_us=0) for node in own_nodes[1:]] == before[1:]


def test_a_cluster_is_founded_from_its_smallest_memory_on(
    own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As clients do: two who found it at once meet at the first node, and not in the middle."""
    for node in own_nodes:
        with node.client() as client:
            client.delete("redlock:node")
    puts = Puts(monkeypatch)
    returned = initialise(own_nodes.urls)
    memories = [marker.memory for marker in puts.written]
    assert memories == sorted(memories)
    assert [marker.memory for marker in returned] == [marker_of(node).memory for node in own_nodes]


@both
async def test_initialise_raises_max_ttl_and_never_lowers_it(api: Api, long_three: Cluster) -> None:
    """A connected client learns it from the script and goes on; a longer lease is possible from
    then on. Nothing else of a cluster can be changed that way.
    """
    async with api.redlock(long_three.urls, **LONG) as locks:
        async with locks.lock("till") as lease:
            initialise(long_three.urls, max_ttl=30.0)
            await lease.extend()
            assert {marker_of(node).max_ttl for node in long_three} == {30.0}
            await lease.extend(20.0)
            assert lease.remaining() > 10.0
        async with locks.lock("till", ttl=30.0, timeout=PATIENCE):
            pass
    for lower in (29.9, LONG_TTL):
        with pytest.raises(
            ConfigurationError, match=r"is below the 30 of .*: it may only be raised"
        ):
            initialise(long_three.urls, max_ttl=lower)
    for other, told in (
        ({"cluster": "billing"}, "belongs to cluster '-', not 'billing'"),
        ({"durable": True}, "is not durable"),
    ):
        with pytest.raises((ConfigurationError, NodeUnreachable), match=told):
            initialise(long_three.urls, max_ttl=60.0, **other)
    assert {marker_of(node).max_ttl for node in long_three} == {30.0}
    assert [marker.max_ttl for marker in initialise(long_three.urls, max_ttl=30.0)] == [30.0] * 3


@both
@pytest.mark.parametrize("prefix", ["redlock:", "", "*shop[1]:"])
async def test_a_cluster_is_replaced_only_when_no_lock_lives(
    api: Api, long_five: Cluster, prefix: str
) -> None:
    """Another list of nodes, another promise: refused while one lock key lives on one node,
    whatever its prefix; done then."""
    five = long_five
    async with api.redlock(five.urls, **LONG, key_prefix=prefix) as locks:
        while not all(report.votes for report in await locks.nodes()):
            pass
        async with locks.lock("till"):
            assert await until(
                api, lambda: all(ask(node, "EXISTS", f"{prefix}till") for node in five)
            )
            with pytest.raises(ConfigurationError) as caught:
                initialise(five.urls[:3], replace=True)
            assert f"still holds a lock, {prefix + 'till'!r}" in str(caught.value)
            assert {marker_of(node).nodes for node in five} == {5}
        assert await until(
            api, lambda: not any(ask(node, "EXISTS", f"{prefix}till") for node in five)
        )
        initialise(five.urls[:3], replace=True, max_ttl=LONG_TTL, cluster="smaller")
        with pytest.raises(
            ConfigurationError, match="belongs to a cluster of 3 nodes, and this list has 5"
        ):
            await locks.lock("till").acquire(timeout=PATIENCE)
    async with api.redlock(five.urls[:3], **LONG) as locks, locks.lock("till", timeout=0):
        pass


# 7. Names


@both
async def test_names_that_are_ours_are_refused(api: Api, three: Cluster) -> None:
    """A lock on the marker or on a fence would let anybody's ttl decide who votes: refused
    before anything is sent."""
    for prefix, resource in (
        ("redlock:", "node"),
        ("", "redlock:node"),
        ("red", "lock:node"),
        ("redlock:", "till:fence"),
        ("", ":fence"),
        ("x:", "fence"),
    ):
        async with api.redlock(three.urls, **SHORT, key_prefix=prefix) as locks:
            with pytest.raises(ConfigurationError, match="is one that redlock keeps for itself"):
                locks.lock(resource)
            with pytest.raises(ConfigurationError, match="is one that redlock keeps for itself"):
                await locks.status(resource)
    async with api.redlock(three.urls, **SHORT) as locks:
        for name in ("nodes", "node:x", "fences", "fence:x"):
            async with locks.lock(name, timeout=0):
                pass


# 8. After a reconnect


@both
async def test_an_extension_counts_after_a_reconnect_to_the_same_server(
    api: Api, long_three: Cluster
) -> None:
    """Somebody closes every connection. Run id and marker are the same, so what the script
    answers counts, at once."""
    journal = Journal(api)
    async with api.redlock(long_three.urls, **LONG, on_event=journal) as locks:
        async with locks.lock("till") as lease:
            before = lease.valid_until
            for node in long_three:
                with node.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            await lease.extend()
            assert lease.valid_until > before
            for node in long_three:
                with node.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            await lease.verify()
        assert len(journal.of(NodeDisconnected)) >= 4
        async with locks.lock("till", timeout=0):
            pass


@both
async def test_contention_is_told_from_quarantine(api: Api, long_five: Cluster) -> None:
    """Two nodes in quarantine and three that are held: a majority answered, so it is contention,
    with the two named."""
    async with api.redlock(long_five.urls, **LONG) as locks:
        async with locks.lock("till"):
            for node in long_five[:2]:
                node.restart()
            async with api.redlock(long_five.urls, **LONG) as others:
                with pytest.raises(LockContended) as caught:
                    async with others.lock("till", timeout=0):
                        pytest.fail("the body ran without the lock")
        assert sum("is held by" in vote.reason for vote in caught.value.votes) == 3
