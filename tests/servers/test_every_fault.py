"""What people read when something is wrong, one row for each fault: which lock or node, why, and
what to do, on one screen of a pager and without a password.

The servers are shared: a row brings its fault and takes it away again.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis

from redlock import Redlock, RedlockError
from redlock.embedded import Node, Nodes
from redlock.initialise import initialise
from tests.contract.test_bad_values import LOCK, SECRET, check
from tests.servers.test_cli import run
from tests.servers.test_faults import Fake

LINE_MAX = 300
PREFIX = "redlock: "


def ask(node: Node, *words: Any) -> None:
    with node.client() as client:
        client.execute_command(*words)


@contextmanager
def setting(nodes: Sequence[Node], name: str, value: str, back: str) -> Iterator[list[str]]:
    for node in nodes:
        ask(node, "CONFIG", "SET", name, value)
    try:
        yield [node.url for node in nodes]
    finally:
        for node in nodes:
            ask(node, "CONFIG", "SET", name, back)


@contextmanager
def passwords(nodes: Sequence[Node], some: int) -> Iterator[list[str]]:
    """A password on *some* of the nodes, and a wrong one in the URLs."""
    for node in nodes[:some]:
        ask(node, "ACL", "SETUSER", "other", "on", ">right", "~*", "+@all")
    wrong = [node.url.replace("://", f"://other:{SECRET}@") for node in nodes[:some]]
    try:
        yield [*wrong, *(node.url for node in nodes[some:])]
    finally:
        for node in nodes[:some]:
            ask(node, "ACL", "DELUSER", "other")


@contextmanager
def rights(nodes: Sequence[Node]) -> Iterator[list[str]]:
    for node in nodes:
        ask(node, "ACL", "SETUSER", "poor", "on", f">{SECRET}", "~*", "+ping", "+info")
    try:
        yield [node.url.replace("://", f"://poor:{SECRET}@") for node in nodes]
    finally:
        for node in nodes:
            ask(node, "ACL", "DELUSER", "poor")


def begin_anew(nodes: Sequence[Node]) -> None:
    """A new cluster of the same servers, which has nothing to wait for."""
    for node in nodes:
        ask(node, "FLUSHALL")
    initialise([node.url for node in nodes])


@contextmanager
def replicas(nodes: Sequence[Node]) -> Iterator[list[str]]:
    """The first two follow a master that is not there."""
    for node in nodes[:2]:
        ask(node, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield [node.url for node in nodes]
    finally:
        for node in nodes[:2]:
            ask(node, "REPLICAOF", "NO", "ONE")
        begin_anew(nodes)


@contextmanager
def busy(nodes: Sequence[Node]) -> Iterator[list[str]]:
    """A script runs on two of them and does not end."""
    with ExitStack() as stack:
        for node in nodes[:2]:
            client = stack.enter_context(node.client())
            stack.callback(until_killed, client)
            other = stack.enter_context(node.client()).connection_pool.make_connection()
            stack.callback(other.disconnect)
            ask(node, "CONFIG", "SET", "busy-reply-threshold", "10")
            other.send_command("EVAL", "while true do end", 0)
            with pytest.raises(redis.ResponseError, match="BUSY"):
                while True:
                    client.ping()
        yield [node.url for node in nodes]


def until_killed(client: redis.Redis) -> None:
    while True:
        try:
            client.ping()
        except redis.ResponseError:
            with contextlib.suppress(redis.ResponseError):
                client.script_kill()
        else:
            return


def saying(answer: bytes) -> Callable[[Sequence[Node]], Any]:
    """Two that say *answer* to whatever they are asked."""

    @contextmanager
    def provoke(nodes: Sequence[Node]) -> Iterator[list[str]]:
        with ExitStack() as stack:
            fakes = [Fake(lambda name, honest: [answer], number, 3) for number in (1, 2)]
            for fake in fakes:
                stack.callback(fake.close)
            yield [*(fake.url for fake in fakes), nodes[2].url]

    return provoke


@contextmanager
def black_holes(nodes: Sequence[Node]) -> Iterator[list[str]]:
    """Two ports that accept and never answer."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        yield [*(f"redis://127.0.0.1:{each.getsockname()[1]}" for each in held), nodes[2].url]


def found(key: str, *values: str) -> Callable[[Sequence[Node]], Any]:
    """Each of the first nodes has one of *values* there, which somebody else wrote."""

    @contextmanager
    def provoke(nodes: Sequence[Node]) -> Iterator[list[str]]:
        for node, value in zip(nodes, values, strict=False):
            ask(node, "SET", key, value)
        try:
            yield [node.url for node in nodes]
        finally:
            for node in nodes:
                ask(node, "DEL", key)

    return provoke


split = found(f"redlock:{LOCK}", "one", "another")
"""Two holders with a node each, and one node without."""


@contextmanager
def held(nodes: Sequence[Node]) -> Iterator[list[str]]:
    urls = [node.url for node in nodes]
    with Redlock(urls) as locks, locks.lock(LOCK, timeout=10.0):
        yield urls


@contextmanager
def other_cluster(nodes: Sequence[Node]) -> Iterator[list[str]]:
    yield [node.url for node in nodes[:2]] + ["redis://127.0.0.1:1"] * 1 + ["redis://127.0.0.1:2"]


@contextmanager
def forgot(nodes: Sequence[Node]) -> Iterator[list[str]]:
    """Two that lost everything, their markers too."""
    for node in nodes[:2]:
        ask(node, "FLUSHALL")
    try:
        yield [node.url for node in nodes]
    finally:
        begin_anew(nodes)


@contextmanager
def new_cluster(nodes: Sequence[Node]) -> Iterator[list[str]]:
    for node in nodes:
        ask(node, "FLUSHALL")
    try:
        yield [node.url for node in nodes]
    finally:
        begin_anew(nodes)


def at(*urls: str) -> Callable[[Sequence[Node]], Any]:
    return lambda nodes: contextlib.nullcontext(list(urls))


def secure(query: str = "") -> Callable[[Sequence[Node]], Any]:
    return lambda nodes: contextlib.nullcontext(
        [node.url.replace("redis:", "rediss:") + query for node in nodes]
    )


FAULTS: dict[str, tuple[Callable[[Sequence[Node]], Any], str, str]] = {
    "refused": (
        at(*(f"redis://127.0.0.1:{port}" for port in (1, 2, 3))),
        "refused the connection",
        "start the server",
    ),
    "unknown host": (
        at(*(f"redis://no-such-{name}.invalid" for name in "abc")),
        "name that is not known",
        "correct it",
    ),
    "black hole": (black_holes, "not connected", "look at the server"),
    "TLS to a plain port": (secure(), "SSL|TLS|not connected", "redis://|look at the server"),
    "missing CA file": (secure("?ssl_ca_certs=/no/ca.pem"), "/no/ca.pem", "No such file"),
    "wrong password on all": (lambda nodes: passwords(nodes, 3), "refused our cred", "password"),
    "wrong password on two": (lambda nodes: passwords(nodes, 2), "refused our cred", "password"),
    "missing rights": (rights, "NOPERM", "ACL"),
    "replica": (replicas, "not a master", "name masters alone"),
    "evicting": (
        lambda nodes: setting(nodes, "maxmemory-policy", "allkeys-lru", "noeviction"),
        "may evict",
        "set maxmemory-policy",
    ),
    "out of memory": (
        lambda nodes: setting(nodes, "maxmemory", "1", "0"),
        "OOM",
        "free memory",
    ),
    "another cluster": (other_cluster, "belongs to a cluster of 3", "node list"),
    "new cluster": (new_cluster, "has no marker", "redlock init"),
    "superseded": (forgot, "marker|quarantine", "redlock init|wait|redlock nodes"),
    "loading": (saying(b"-LOADING Redis is loading the dataset\r\n"), "LOADING", "wait"),
    "busy": (busy, "BUSY", "SCRIPT KILL"),
    "no server of ours": (
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "reached|nonsense|said|lost|sent",
        "server",
    ),
    "fence of text": (
        found(f"redlock:{LOCK}:fence", *["abc"] * 3),
        "fence",
        "delete its fence key",
    ),
    "held": (held, "is held by", "wait longer"),
    "held without an end": (
        found(f"redlock:{LOCK}", *["somebody"] * 3),
        "without an expiry",
        "release --force",
    ),
}


@pytest.fixture(scope="module")
def three() -> Iterator[Nodes]:
    with Nodes(3) as nodes:
        yield nodes


@pytest.mark.filterwarnings("ignore:.*tolerate")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_to_the_program_and_to_the_operator(three: Nodes, fault: str) -> None:
    """By the error of an acquire, and by a command line: the lock, a node, the reason, the
    remedy."""
    provoke, reason, remedy = FAULTS[fault]
    with provoke(list(three)) as urls:
        node = r"redis\w*://[\w.-]+"
        with (
            Redlock(urls, node_timeout=0.3) as locks,
            pytest.raises(RedlockError) as raised,
            locks.lock(LOCK, timeout=0),
        ):
            pass
        check(str(raised.value), repr(LOCK), node, reason, remedy)
        said = run(urls, "lock", "--no-wait", LOCK, "true")
        assert said.returncode in (2, 4, 5), said
        line = said.stderr.strip()
        assert line.startswith(PREFIX)
        where = "" if said.returncode == 4 else node
        check(line, repr(LOCK), where, reason, remedy, most=LINE_MAX)
    for server in three:
        with server.client() as client:
            assert not client.exists(f"redlock:{LOCK}"), "nothing of a try stays behind"


REFUSED = [f"redis://127.0.0.1:{port}" for port in (1, 2, 3)]
COMMANDS: dict[str, tuple[str, str, int, str]] = {
    "status": ("down", f"status {LOCK}", 5, "refused the connection"),
    "status, split": ("split", f"status {LOCK}", 1, "no majority of the nodes agrees"),
    "leader": ("down", f"leader {LOCK}", 5, f"'{LOCK}'.*start the server"),
    "locks": ("down", "locks", 5, "start the server"),
    "release": ("down", f"release --force --yes {LOCK}", 5, "start the server"),
    "release, unforced": ("up", f"release {LOCK}", 2, "--force"),
    "release, unasked": ("held", f"release --force {LOCK}", 2, "give --yes"),
    "nodes": ("down", "nodes", 1, "refused the connection"),
    "init": ("down", "init", 5, r"redis://127\S+ refused.*start the server"),
    "init of a marked cluster": ("up", "init", 2, r"already marked: redis://.*--max-ttl"),
    "init with less": ("up", "init --max-ttl 5", 2, r"max_ttl=5.*redis://.*give more"),
    "init of two words": ("up", "init --cluster a:b\tc", 2, "one word"),
    "init while a lock lives": ("held", "init --replace", 2, f"redis://.*{LOCK}.*stop the clients"),
    "init as durable": ("up", "init --durable", 2, r"redis://.*--replace"),
    "init of another": ("up", "init --cluster b", 2, r"redis://.*--replace"),
    "elect --check": ("up", f"elect --check --ttl 99 {LOCK}", 2, f"'{LOCK}'.*--max-ttl 99"),
    "elect, no command": ("up", f"elect {LOCK}", 2, "CMD"),
    "elect, unfit": ("up", f"elect --no-wait --eligible false {LOCK} true", 7, f"{LOCK}.*check"),
    "elect, held": ("held", f"elect --no-wait {LOCK} true", 4, f"'{LOCK}'.*wait longer"),
    "elect, held, -E": ("held", f"elect --no-wait -E 9 {LOCK} true", 9, f"'{LOCK}'.*wait longer"),
    "elect, down": ("down", f"elect --no-wait {LOCK} true", 5, f"'{LOCK}'.*start the server"),
    "lock, ttl": ("up", f"lock --ttl 99 {LOCK} true", 2, f"'{LOCK}'.*--max-ttl 99"),
    "lock, not found": ("up", f"lock {LOCK} no-such-command", 127, "no-such-command.*correct"),
    "lock, not run": ("up", f"lock {LOCK} /etc/passwd", 126, "/etc/passwd.*correct"),
    "lock, both": ("up", f"lock --no-wait --timeout 1 {LOCK} true", 2, "exclude each other"),
    "lock, held, -E": ("held", f"lock --no-wait -E 0 {LOCK} true", 0, f"'{LOCK}'.*wait longer"),
    "no nodes": ("none", "nodes", 2, "--node|REDLOCK_NODES"),
}


@pytest.mark.parametrize("row", COMMANDS)
def test_a_command_ends_with_its_status_and_says_what_to_do(three: Nodes, row: str) -> None:
    """Every status of redlock's own, of every command."""
    where, words, status, told = COMMANDS[row]
    with ExitStack() as stack:
        urls = {"down": REFUSED, "none": []}.get(where, three.urls)
        if where == "held":
            stack.enter_context(held(list(three)))
        if where == "split":
            stack.enter_context(split(list(three)))
        said = run(urls, *words.split(" "))
    assert said.returncode == status, said
    lines = [line for line in said.stderr.splitlines() if not line.startswith(("Usage", "Try"))]
    if where == "down" and not lines:  # `status` and `nodes` show a table instead.
        lines = [said.stdout.replace("\n", " ")[-LINE_MAX:]]
    if where == "split":
        lines = said.stdout.splitlines()[:1]
    text = [line for line in lines if line.strip()][-1]
    check(text, told, most=LINE_MAX)
