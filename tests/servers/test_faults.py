"""Nodes that fail, each in its own way: what that costs, what is said about it, and that nothing
else breaks.

Real servers, and fake ones on loopback that answer as a test wants. Every body runs for the
blocking API and for asyncio: a `Desk` gives both the blocking face. A node that fails is a fault
with a reason, never "held by somebody else".
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from types import ModuleType
from typing import Any, BinaryIO

import pytest
import redis

import redlock
import redlock.asyncio
from redlock import ConfigurationError, NodeError, NodeRefused, NodeUnreachable, QuorumUnavailable
from redlock.core.commands import scripts
from redlock.core.identity import Marker, Memory
from redlock.embedded import Node, Nodes

PATIENCE = 20.0
"""Seconds after which a test stops waiting for what must come: long, because the machine may be
busy."""
RESOURCE = "rechnung:42"


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until *holds*; for what a server does by itself and announces to nobody."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


class Desk:
    """A `Redlock` of either API, for a test that waits for each call. The loop of the asyncio
    one stands still in between."""

    def __init__(self, module: ModuleType, nodes: Any, **options: Any) -> None:
        self._runner = asyncio.Runner() if module is redlock.asyncio else None
        # Twice what it would be by itself, because the machine may be busy.
        self.locks = module.Redlock(nodes, **{"node_timeout": 0.5, **options})

    def wait(self, result: Any) -> Any:
        """What a call gives, once it is there."""
        if self._runner is None or not inspect.iscoroutine(result):
            return result
        return self._runner.run(result)

    def acquire(self, resource: str = RESOURCE, *, blocking: bool = False, **options: Any) -> Any:
        return self.wait(self.locks.lock(resource, **options).acquire(blocking=blocking))

    def extend(self, lease: Any) -> None:
        self.wait(lease.extend())

    def verify(self, lease: Any) -> None:
        self.wait(lease.verify())

    def release(self, lease: Any) -> bool:
        return bool(self.wait(lease.release()))

    def status(self, resource: str = RESOURCE) -> redlock.ResourceStatus:
        found: redlock.ResourceStatus = self.wait(self.locks.status(resource))
        return found

    def reports(self) -> list[redlock.NodeReport]:
        return list(self.wait(self.locks.nodes()))

    def idle_until(self, event: threading.Event) -> bool:
        """Do nothing until *event*, while whatever runs behind the API runs."""
        if self._runner is None:
            return event.wait(PATIENCE)
        return self._runner.run(asyncio.to_thread(event.wait, PATIENCE))

    def close(self) -> None:
        self.wait(self.locks.close())
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=[redlock, redlock.asyncio], ids=["blocking", "asyncio"])
def desk(request: pytest.FixtureRequest) -> Iterator[Callable[..., Desk]]:
    """Makes desks of one API, and closes them."""
    with ExitStack() as stack:
        yield lambda nodes, **options: stack.enter_context(
            closing(Desk(request.param, nodes, **options))
        )


# Servers that only pretend

Steps = list[bytes | float | None]
"""What to do about a command: bytes to send, seconds to wait, None to close the connection."""
Answer = Callable[[str, bytes], Steps]
"""From a command's name ("CONNECT" for a new connection) and the honest answer to what happens."""
NAMES = {script.sha.encode(): script.name.upper() for script in scripts()}
NAMES |= {script.source.encode(): script.name.upper() for script in scripts()}


def honest(command: str, answer: bytes) -> Steps:
    return [answer]


class Fake:
    """One server that says it is an admitted node of *nodes*, and then answers as *answer* has it.

    Honest, it grants whatever is asked. A thread accepts, and one serves each connection.
    """

    def __init__(self, answer: Answer, number: int, nodes: int) -> None:
        self.answer = answer
        self.heard: list[str] = []
        self.released = threading.Event()
        self._memory = Memory(f"{number:x}".rjust(40, "f"), f"{number:x}".rjust(40, "e"))
        self._nodes = nodes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="fake")]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._closing.set()
        with socket.create_connection(self._listener.getsockname()):  # Wakes the one who accepts.
            self._threads[0].join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(connection)
            self._threads.append(
                threading.Thread(target=self._serve, args=(connection,), name="fake")
            )
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        # Whoever looks for the reason of a fault asks in TLS as well, which is no command.
        with connection, suppress(OSError, ValueError), connection.makefile("rb") as stream:
            stays = self._act("CONNECT", b"", connection)
            while stays and (words := _command(stream)):
                name = NAMES.get(words[1] if len(words) > 1 else b"", words[0].decode())
                self.heard.append(name)
                stays = self._act(name, self._honest(name, words), connection)
            with self._lock:
                self._open.discard(connection)

    def _act(self, name: str, answer: bytes, connection: socket.socket) -> bool:
        """Whether the connection stays."""
        for step in self.answer(name, answer):
            if step is None or (isinstance(step, float) and self._closing.wait(step)):
                return False
            if isinstance(step, bytes):
                connection.sendall(step)
                if name == "FREE" and step == answer:
                    self.released.set()
        return True

    def _honest(self, name: str, words: list[bytes]) -> bytes:
        info = (
            f"run_id:{self._memory.run_id}\r\nrole:master\r\nmaster_replid:{self._memory.replication_id}\r\n"
            "second_repl_offset:-1\r\nevicted_keys:0\r\nmaxmemory_policy:noeviction\r\nuptime_in_seconds:100000\r\n"
        )
        match name:
            case "INFO":
                return _bulk(info.encode())
            case "LOOK":
                marker = Marker(self._memory, self._nodes, 60.0, since_us=1).text()
                return b"*5\r\n" + b"".join(
                    map(_bulk, [info.encode(), marker.encode(), b"1763927834", b"123456", b""])
                )
            case "TAKE":
                return b":%b\r\n" % words[4 + int(words[2])]  # Behind the keys and the owner.
            case "FREE":
                return b":1\r\n"
            case "PEEK":
                return b"*2\r\n:4\r\n:0\r\n"
        return _bulk(b"f" * 40)


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _command(stream: BinaryIO) -> list[bytes]:
    """One command's words; none when the client has closed."""
    count = stream.readline()
    return (
        [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(count[1:]))]
        if count
        else []
    )


class Fakes:
    """Fake servers, all closed together."""

    def __init__(self) -> None:
        self._fakes: list[Fake] = []

    def add(self, answer: Answer, nodes: int = 5) -> Fake:
        """One more fake, in a cluster of *nodes*."""
        self._fakes.append(Fake(answer, len(self._fakes) + 1, nodes))
        return self._fakes[-1]

    def close(self) -> None:
        for fake in self._fakes:
            fake.close()


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    with closing(Fakes()) as found:
        yield found


def to_take(*steps: bytes | float | None) -> Answer:
    """Honest but for TAKE."""
    return lambda command, answer: list(steps) if command == "TAKE" else [answer]


def always(*steps: bytes | float | None) -> Answer:
    """The same to everything."""
    return lambda command, answer: list(steps)


def at_connect(*steps: bytes | float | None) -> Answer:
    """Something first, then honest."""
    return lambda command, answer: list(steps) if command == "CONNECT" else [answer]


def dribble(pause: float) -> Answer:
    """The honest answer, byte by byte."""

    def answer(command: str, whole: bytes) -> Steps:
        return [step for place in range(len(whole)) for step in (whole[place : place + 1], pause)]

    return answer


STALL = 60.0
HALF = b":17639"
NONSENSE = "nonsense|not RESP|no command of ours|nobody asked|a line of more than"
GONE = "closed the connection|lost the connection"
SILENT = "did not answer|was not connected"

FAULTS: dict[str, tuple[Answer, str]] = {
    "speaks another protocol": (
        always(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        NONSENSE,
    ),
    "speaks first": (at_connect(b"+hello\r\n"), NONSENSE),
    "grants another token": (to_take(b":17\r\n"), NONSENSE),
    "grants in another type": (to_take(b"#t\r\n"), NONSENSE),
    "says OK": (to_take(b"+OK\r\n"), NONSENSE),
    "answers twice": (lambda command, answer: [answer, answer], NONSENSE),
    "announces a billion elements": (to_take(b"*1000000000\r\n"), NONSENSE),
    "sends a line without an end": (to_take(b"+" + b"x" * 100_000), NONSENSE),
    "sends zeros": (always(b"\0" * 1000), NONSENSE),
    "closes at once": (at_connect(None), GONE),
    "closes in the greeting": (
        lambda command, answer: [None] if command == "LOOK" else [answer],
        GONE,
    ),
    "closes in the middle of a grant": (to_take(HALF, None), GONE),
    "closes instead of an answer": (to_take(None), GONE),
    "accepts and says nothing": (always(), SILENT),
    "says nothing to a TAKE": (to_take(STALL), SILENT),
    "stops in the middle of a grant": (to_take(HALF, STALL), SILENT),
    "dribbles": (dribble(0.02), SILENT),
    "is loading": (to_take(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
    "was demoted": (
        to_take(b"-READONLY You can't write against a read only replica.\r\n"),
        "READONLY",
    ),
    "is out of memory": (
        to_take(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        "OOM",
    ),
    "runs a slow script": (to_take(b"-BUSY Redis is busy running a script.\r\n"), "BUSY"),
    "has a full disk": (to_take(b"-MISCONF Errors writing to the AOF file\r\n"), "MISCONF"),
    "is of a broken cluster": (to_take(b"-CLUSTERDOWN The cluster is down\r\n"), "CLUSTERDOWN"),
    "never knows the script": (to_take(b"-NOSCRIPT No matching script.\r\n"), "NOSCRIPT"),
    "wants a password": (to_take(b"-NOAUTH Authentication required.\r\n"), "NOAUTH"),
    "wants a password at once": (always(b"-NOAUTH Authentication required.\r\n"), "NOAUTH"),
    "forbids the script": (
        to_take(b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n"),
        "NOPERM",
    ),
}
REFUSALS = {"NOAUTH", "NOPERM"}


def check_votes(error: QuorumUnavailable, bad: list[str], reason: str) -> None:
    """The bad nodes are named with their reason, as faults; nobody is said to hold the lock."""
    for vote in error.votes:
        if vote.node in bad:
            assert not vote.granted and isinstance(vote.error, NodeError), vote
            assert re.search(reason, vote.reason), vote
            assert vote.node in str(error) and vote.reason in str(error)
        else:
            # With a majority silent from the start, the others do not know that the cluster is not
            # just being founded.
            assert (
                vote.error is None
                or "before a majority of the nodes has shown a marker" in vote.reason
            ), vote
    assert "held by" not in str(error)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_minority_that_fails_costs_nobody_the_lock(
    desk: Callable[..., Desk], nodes: Nodes, fakes: Fakes, fault: str, count: int
) -> None:
    """Taken, extended, verified and released, again and again; and for somebody else it is held,
    not unavailable."""
    bad = [fakes.add(FAULTS[fault][0]).url for _ in range(count)]
    urls = [*bad, *nodes.urls[count:]]
    owner, other = desk(urls), desk(urls)
    for _ in range(2):
        lease = owner.acquire()
        assert lease.is_held()
        owner.extend(lease)
        owner.verify(lease)
        assert other.acquire() is None
        assert owner.release(lease)
    # A node that pretends may confirm a release that a real one has not executed yet.
    taken = other.acquire(blocking=True, timeout=PATIENCE)
    assert taken.fencing_token > lease.fencing_token
    assert other.release(taken)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_majority_that_fails_is_unavailable_and_says_why(
    desk: Callable[..., Desk], nodes: Nodes, fakes: Fakes, fault: str
) -> None:
    """Each with its reason, also while the lock is held on the two that answer; refused rights
    are a configuration error."""
    answer, reason = FAULTS[fault]
    bad = [fakes.add(answer).url for _ in range(3)]
    locks = desk([*bad, *nodes.urls[3:]])
    if reason in REFUSALS:
        with pytest.raises(ConfigurationError, match=reason) as refused:
            locks.acquire()
        assert all(url in str(refused.value) for url in bad)
    else:
        for _ in range(2):
            with pytest.raises(QuorumUnavailable) as raised:
                locks.acquire()
            # Between two dials a node that broke in its greeting is not asked, and the reason of
            # the last dial holds.
            check_votes(raised.value, bad, reason)
            assert all(
                isinstance(vote.error, NodeUnreachable)
                for vote in raised.value.votes
                if vote.node in bad
            )
    for node in nodes[3:]:
        with node.client() as client:
            assert client.get(f"redlock:{RESOURCE}") is None, "a failed try leaves nothing behind"


def test_a_lock_that_a_minority_holds_is_not_held_when_the_others_fail(
    desk: Callable[..., Desk], nodes: Nodes, fakes: Fakes
) -> None:
    """Two nodes say "held by somebody else", three say nothing useful: that is an outage, not
    contention."""
    for node in nodes[3:]:
        with node.client() as client:
            client.set(f"redlock:{RESOURCE}", "somebody:1", px=60_000)
    bad = [fakes.add(to_take(b"-OOM no\r\n")).url for _ in range(3)]
    locks = desk([*bad, *nodes.urls[3:]])
    with pytest.raises(QuorumUnavailable) as raised:
        locks.acquire()
    reasons = {vote.node: vote.reason for vote in raised.value.votes}
    assert all("OOM" in reasons[url] for url in bad)
    assert all(
        re.match("is held by somebody|was not waited for", reasons[url]) for url in nodes.urls[3:]
    )


def test_a_node_that_dribbles_fast_enough_has_its_vote(
    desk: Callable[..., Desk], nodes: Nodes, fakes: Fakes
) -> None:
    """Bytes one at a time are slow, not wrong: with two nodes dead its grant is the third."""
    slow = fakes.add(dribble(0.0))
    dead = [fakes.add(at_connect(None)) for _ in range(2)]
    locks = desk([fake.url for fake in (slow, *dead)] + nodes.urls[3:], node_timeout=3.0)
    lease = locks.acquire()
    assert lease is not None and locks.release(lease)


def test_a_release_that_got_no_answer_is_sent_again_when_the_node_is_back(
    desk: Callable[..., Desk], nodes: Nodes, fakes: Fakes
) -> None:
    """The node breaks at the release, accepts and closes for a while, and then gets it, with
    nobody calling anything."""
    refusals = iter(range(4))

    def answer(command: str, whole: bytes) -> Steps:
        if command == "FREE" and next(refusals, None) is not None:
            return [None]
        if command == "CONNECT" and "FREE" in fake.heard and next(refusals, None) is not None:
            return [None]
        return [whole]

    fake = fakes.add(honest)
    fake.answer = answer
    locks = desk([fake.url, *nodes.urls[1:]])
    lease = locks.acquire()
    until(lambda: "TAKE" in fake.heard, "the fake node was asked")
    assert locks.release(lease)
    assert locks.idle_until(fake.released), fake.heard


# Real servers, hurt in the way operators and machines hurt them


def each(nodes: Any, *words: Any, password: str | None = None) -> None:
    """Run a command on each of *nodes*."""
    for node in nodes:
        with node.client(password=password) as client:
            client.execute_command(*words)


def held(node: Node) -> bytes | None:
    with node.client() as client:
        value: bytes | None = client.get(f"redlock:{RESOURCE}")
        return value


def test_a_minority_with_a_password_is_no_obstacle_and_a_majority_is_a_configuration_error(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """NOAUTH on two nodes: the lock is granted. On three: named with their reason, and not an
    outage."""
    each(own_nodes[:2], "CONFIG", "SET", "requirepass", "hunter2")
    locks = desk(own_nodes.urls)
    lease = locks.acquire()
    assert locks.release(lease)
    each(own_nodes[2:3], "CONFIG", "SET", "requirepass", "hunter2")
    with pytest.raises(ConfigurationError) as raised:
        desk(own_nodes.urls).acquire()
    assert f"{', '.join(own_nodes.urls[:3])}: said NOAUTH" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_out_of_memory_refuses_new_locks_and_lets_holders_extend_and_release(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """A good asymmetry: SET is refused at maxmemory, PEXPIRE and DEL are not."""
    locks = desk(own_nodes.urls)
    lease = locks.acquire()
    each(own_nodes, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(QuorumUnavailable, match="OOM"):
        locks.acquire("another")
    before = lease.valid_until
    locks.extend(lease)
    assert lease.valid_until > before
    locks.verify(lease)
    assert locks.release(lease)
    until(lambda: not any(map(held, own_nodes)), "the release on every node")
    each(own_nodes, "CONFIG", "SET", "maxmemory", "0")
    assert locks.release(locks.acquire("another"))


def test_a_node_that_became_a_replica_has_no_vote(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """A minority costs nothing; a majority is a configuration error; a return is noticed, and
    its memory not trusted."""
    locks = desk(own_nodes.urls)
    assert locks.release(locks.acquire())
    each(own_nodes[:2], "REPLICAOF", "127.0.0.1", "1")
    for _ in range(3):
        assert locks.release(locks.acquire())
    roles = [report.role for report in locks.reports()]
    assert roles == ["slave", "slave", "master", "master", "master"]
    assert [report.votes for report in locks.reports()] == [False, False, True, True, True]
    each(own_nodes[2:3], "REPLICAOF", "127.0.0.1", "1")
    with pytest.raises((QuorumUnavailable, ConfigurationError), match=r"READONLY|is a slave"):
        locks.acquire()
    with pytest.raises(ConfigurationError, match="is a slave, not a master"):
        desk(own_nodes.urls).acquire()
    each(own_nodes[:3], "REPLICAOF", "NO", "ONE")
    until(
        lambda: all(
            "(it was a replica, and was promoted) and is in quarantine" in report.reason
            for report in locks.reports()[:3]
        ),
        "masters again",
    )
    with pytest.raises(QuorumUnavailable, match="it was a replica"):
        locks.acquire()


def test_lost_scripts_cost_nothing(desk: Callable[..., Desk], nodes: Nodes) -> None:
    """SCRIPT FLUSH on every node between any two steps: each works at once."""
    locks = desk(nodes.urls)
    for _ in range(3):
        each(nodes, "SCRIPT", "FLUSH")
        lease = locks.acquire()
        each(nodes, "SCRIPT", "FLUSH")
        locks.extend(lease)
        each(nodes, "SCRIPT", "FLUSH")
        assert locks.status().held
        each(nodes, "SCRIPT", "FLUSH")
        assert locks.release(lease)


def test_a_flushed_node_votes_no_more_and_the_others_keep_the_lease(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """It forgot, on the same connection and without a restart: no vote for TAKE nor for an
    extension, and no lock comes back."""
    locks = desk(own_nodes.urls)
    lease = locks.acquire()
    each(own_nodes[:1], "FLUSHALL")
    locks.extend(lease)
    locks.verify(lease)
    assert locks.release(locks.acquire("another"))
    first, *others = locks.reports()
    assert not first.votes and "its marker is gone" in first.reason and first.quarantine_left
    assert all(report.votes for report in others)
    assert held(own_nodes[0]) is None
    assert locks.release(lease)


def test_a_majority_that_was_flushed_grants_nothing(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """The rest hold the lease that was granted before; nobody else gets the lock, from old
    connections or new ones."""
    owner, other = desk(own_nodes.urls), desk(own_nodes.urls)
    lease = owner.acquire()
    assert other.acquire() is None
    each(own_nodes[:3], "FLUSHALL")
    for locks in (other, owner, desk(own_nodes.urls)):
        with pytest.raises(QuorumUnavailable, match="forgot its locks") as raised:
            locks.acquire()
        for vote in raised.value.votes[:3]:
            # On a connection of before, the third may be heard only as not being the node it was.
            assert re.search("forgot its locks|is not the node that was admitted", vote.reason)
        assert any(isinstance(vote.error, NodeRefused) for vote in raised.value.votes)
    with pytest.raises(QuorumUnavailable):
        owner.extend(lease)
    assert lease.is_held()
    owner.release(lease)


def asleep(node: Node, seconds: float) -> threading.Thread:
    """The server sleeps; it does not even answer the one who asked for it."""

    def sleep() -> None:
        with node.client() as client:
            client.execute_command("DEBUG", "SLEEP", seconds)

    thread = threading.Thread(target=sleep)
    thread.start()
    return thread


def test_sleeping_nodes_cost_their_votes_and_keep_nothing_on_waking(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """Two asleep: granted. Three: unavailable, with the reason; what they swallowed is undone
    behind its acquire."""
    locks = desk(own_nodes.urls)
    assert locks.release(locks.acquire())
    sleepers = [asleep(node, 2.0) for node in own_nodes[:2]]
    try:
        until(lambda: all(map(is_silent, own_nodes[:2])), "two nodes sleep")
        lease = locks.acquire()
        assert lease is not None and locks.release(lease)
        sleepers.append(asleep(own_nodes[2], 2.0))
        until(lambda: is_silent(own_nodes[2]), "the third sleeps")
        with pytest.raises(QuorumUnavailable, match="did not answer"):
            locks.acquire()
    finally:
        for sleeper in sleepers:
            sleeper.join()
    until(lambda: not any(map(held, own_nodes)), "no node keeps a lock that was given up")
    until(lambda: released(locks), "all nodes vote again")


def is_silent(node: Node) -> bool:
    """Whether a node does not answer a PING at once."""
    with node.client(socket_timeout=0.05, retry=None) as client:
        try:
            return not client.ping()
        except (redis.RedisError, OSError):
            return True


def released(locks: Desk) -> bool:
    """Whether the lock can be taken and given back, confirmed by a majority."""
    lease = locks.acquire()
    return lease is not None and locks.release(lease)


def test_paused_clients_are_silence(desk: Callable[..., Desk], own_nodes: Nodes) -> None:
    """CLIENT PAUSE on a majority: unavailable; when the pause is over nothing is left, and the
    lock can be had."""
    locks = desk(own_nodes.urls)
    assert released(locks)
    each(own_nodes[:3], "CLIENT", "PAUSE", 2000, "ALL")
    with pytest.raises(QuorumUnavailable, match="did not answer"):
        locks.acquire()
    until(lambda: not any(map(is_silent, own_nodes)), "the pause is over")
    until(lambda: not any(map(held, own_nodes)), "no node keeps a lock that was given up")
    assert released(locks)


def test_killed_connections_do_not_cost_a_single_try_its_majority(
    desk: Callable[..., Desk], nodes: Nodes
) -> None:
    """CLIENT KILL between any two steps, on all nodes: a vote that was lost with its connection
    is asked for once more."""
    locks = desk(nodes.urls)
    for _ in range(5):
        lease = locks.acquire()
        assert lease is not None
        each(nodes, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        locks.extend(lease)
        each(nodes, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert locks.release(lease) in (True, False)
        until(
            lambda: not any(map(held, nodes)),
            "the release is delivered, whatever became of its answer",
        )
        each(nodes, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_servers_that_close_idle_connections_do_not_cost_a_single_try_its_majority(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """`timeout 1`: the first acquire after a pause finds every connection closed, and succeeds."""
    each(own_nodes, "CONFIG", "SET", "timeout", "1")
    locks = desk(own_nodes.urls)
    assert released(locks)
    with ExitStack() as stack:
        admins = [stack.enter_context(node.client()) for node in own_nodes]
        until(
            lambda: all(len(admin.client_list()) == 1 for admin in admins),
            "the servers closed what was idle",
        )
    lease = locks.acquire()
    assert lease is not None and locks.release(lease)


@pytest.mark.parametrize("used", [False, True], ids=["first use", "connected"])
@pytest.mark.parametrize(
    ("hurt", "reason"),
    [
        (Node.kill, "refused the connection|closed the connection|lost the connection"),
        (Node.stop, "refused the connection|closed the connection|lost the connection"),
        (Node.pause, "did not answer|was not connected"),
    ],
    ids=["killed", "stopped", "SIGSTOP"],
)
def test_a_dead_majority_is_unavailable_in_one_try_and_named(
    desk: Callable[..., Desk],
    own_nodes: Nodes,
    hurt: Callable[[Node], None],
    reason: str,
    used: bool,
) -> None:
    """Decided, with every dead node and its reason in the message; a lease of before is released
    as far as nodes answer."""
    locks = desk(own_nodes.urls)
    lease = locks.acquire("another") if used else None
    for node in own_nodes[1:4]:
        hurt(node)
    for _ in range(2):
        with pytest.raises(QuorumUnavailable) as raised:
            locks.acquire()
        check_votes(raised.value, own_nodes.urls[1:4], reason)
        assert re.search(": [012] of 5 nodes granted, 3 needed", str(raised.value))
    if lease is not None:
        assert lease.is_held()
        with pytest.raises(QuorumUnavailable):
            locks.extend(lease)
        assert not locks.release(lease)
        assert not lease.is_held()
    for node in own_nodes[1:4]:
        node.resume()


def test_a_minority_that_comes_back_empty_votes_for_nobody(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """Restarted without persistence: reachable, and in quarantine; the others carry on."""
    locks = desk(own_nodes.urls)
    assert released(locks)
    for node in own_nodes[:2]:
        node.restart()
    until(lambda: all(report.role for report in locks.reports()), "all nodes answer")
    assert released(locks)
    assert [report.votes for report in locks.reports()] == [False, False, True, True, True]
    assert all("forgot its locks" in report.reason for report in locks.reports()[:2])


def test_waiting_outlives_an_outage(desk: Callable[..., Desk], own_nodes: Nodes) -> None:
    """A blocking acquire goes on trying while a majority is stopped, and has the lock soon after
    it is back."""
    locks = desk(own_nodes.urls)
    assert released(locks)
    for node in own_nodes[:3]:
        node.pause()
    timer = threading.Timer(1.0, lambda: [node.resume() for node in own_nodes[:3]])
    timer.start()
    try:
        lease = locks.acquire(blocking=True, timeout=PATIENCE)
    finally:
        timer.join()
    assert lease is not None and locks.release(lease)
