"""From whatever names a node to a connection: every form, both APIs, TLS, wrong credentials; and no
credential ever told.

The commands that a connection costs are counted at the server, and the private names of redis-py
that dialling touches are held by a test of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from urllib.parse import quote

import pytest
import redis
import redis.asyncio
from redis.asyncio import connection as async_connections
from redis.asyncio.sentinel import Sentinel
from redis.credentials import CredentialProvider

import redlock
import redlock.asyncio
from redlock import ConfigurationError, NodeRefused, QuorumUnavailable
from redlock.embedded import Nodes
from redlock.initialise import initialise
from redlock.transport.dial import endpoints, hang_up

PATIENCE = 20.0
REFUSED = 1.0
"""Node timeout where a majority refuses: the first use and a look wait for all of it."""
RESOURCE = "rechnung:42"
USER = "app"
PASSWORD = "pä:ss/w@rd %20#?"
RIGHTS = [
    "+eval",
    "+evalsha",
    "+script|load",
    "+info",
    "+time",
    "+get",
    "+set",
    "+del",
    "+pttl",
    "+pexpire",
]
"""What ARCHITECTURE.md says an ACL user needs."""


class Desk:
    """A `Redlock` of either API, for a test that waits for each call."""

    def __init__(self, module: ModuleType, nodes: Any, **options: Any) -> None:
        self._runner = asyncio.Runner() if module is redlock.asyncio else None
        # Long, because the machine may be busy, and dialling is what these tests are about.
        self.locks = module.Redlock(nodes, **{"node_timeout": 2.0, **options})

    def wait(self, result: Any) -> Any:
        """What a call gives, once it is there."""
        if self._runner is None or not inspect.iscoroutine(result):
            return result
        return self._runner.run(result)

    def acquire(self, resource: str = RESOURCE) -> Any:
        return self.wait(self.locks.lock(resource).acquire(blocking=False))

    def release(self, lease: Any) -> bool:
        return bool(self.wait(lease.release()))

    def use(self) -> None:
        """Everything a lease is for, once."""
        lease = self.acquire()
        assert lease is not None
        self.wait(lease.extend())
        self.wait(lease.verify())
        assert self.wait(self.locks.status(RESOURCE)).fencing_token == lease.fencing_token
        assert self.release(lease)

    def close(self) -> None:
        self.wait(self.locks.close())
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=[redlock, redlock.asyncio], ids=["blocking", "asyncio"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return cast("ModuleType", request.param)


@pytest.fixture
def desk(module: ModuleType) -> Iterator[Callable[..., Desk]]:
    """Makes desks of one API, and closes them."""
    with ExitStack() as stack:
        yield lambda nodes, **options: stack.enter_context(closing(Desk(module, nodes, **options)))


@pytest.fixture(scope="module")
def trio() -> Iterator[Nodes]:
    """Three servers with a unix socket each, an ACL user with just the rights it needs, and
    database 3 set up as well."""
    with Nodes(3, options={"unixsocket": "server.sock"}) as nodes:
        for node in nodes:
            with node.client() as admin:
                admin.execute_command(
                    "ACL",
                    "SETUSER",
                    USER,
                    "on",
                    f">{PASSWORD}",
                    "resetkeys",
                    "~redlock:*",
                    "-@all",
                    *RIGHTS,
                )
                admin.execute_command(
                    "ACL",
                    "SETUSER",
                    "selecting",
                    "on",
                    ">pw",
                    "~redlock:*",
                    "-@all",
                    "+select",
                    *RIGHTS,
                )
        initialise([f"{url}/3" for url in nodes.urls])
        yield nodes


def socket_of(node: Any) -> str:
    return str(node.folder / "server.sock")


# Every form of a node, in both APIs


class Provider(CredentialProvider):
    """Gives credentials that appear nowhere else."""

    def __init__(self, user: str, password: str) -> None:
        self.credentials = (user, password)

    def get_credentials(self) -> tuple[str, str]:
        return self.credentials


def with_everything_on(node: Any) -> redis.Redis:
    """A client whose own settings would spoil our connections, were they taken over."""
    return redis.Redis(
        port=node.port,
        host="127.0.0.1",
        decode_responses=True,
        protocol=3,
        client_name="application",
        health_check_interval=1,
        socket_timeout=5.0,
        max_connections=1,
        single_connection_client=False,
    )


def in_a_query(text: str) -> str:
    """*text* quoted; for redis-py before 8, which takes the quotes off twice, twice."""
    quoted = quote(text, safe="")
    return quoted if int(redis.__version__.split(".")[0]) >= 8 else quote(quoted)


FORMS: dict[str, Callable[[Any], Any]] = {
    "URL": lambda node: node.url,
    "URL with user and password": lambda node: (
        f"redis://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{node.port}"
    ),
    "URL with database": lambda node: f"{node.url}/3",
    "URL with user and database": lambda node: f"redis://selecting:pw@127.0.0.1:{node.port}/3",
    "URL with everything in the query": lambda node: (
        f"{node.url}?username={USER}&password={in_a_query(PASSWORD)}&db=0"
    ),
    "unix URL": lambda node: f"unix://{socket_of(node)}",
    "unix URL with user, password and database": lambda node: (
        f"unix://selecting:pw@{socket_of(node)}?db=3"
    ),
    "dict": lambda node: {"host": "127.0.0.1", "port": node.port},
    "dict with user and password": lambda node: {
        "host": "127.0.0.1",
        "port": node.port,
        "username": USER,
        "password": PASSWORD,
    },
    "dict with a unix socket": lambda node: {"unix_socket_path": socket_of(node)},
    "dict with a credential provider": lambda node: {
        "port": node.port,
        "credential_provider": Provider(USER, PASSWORD),
    },
    "client": lambda node: redis.Redis(host="127.0.0.1", port=node.port),
    "client with user and password": lambda node: redis.Redis(
        port=node.port, username=USER, password=PASSWORD
    ),
    "client from a URL with database": lambda node: redis.Redis.from_url(f"{node.url}/3"),
    "client with a unix socket": lambda node: redis.Redis(unix_socket_path=socket_of(node)),
    "client with everything on": with_everything_on,
    "client with a blocking pool": lambda node: redis.Redis(
        connection_pool=redis.BlockingConnectionPool(port=node.port)
    ),
    "asyncio client": lambda node: redis.asyncio.Redis(host="127.0.0.1", port=node.port),
    "asyncio client with user": lambda node: redis.asyncio.Redis(
        port=node.port, username=USER, password=PASSWORD, db=0
    ),
    "asyncio client from a unix URL with database": lambda node: redis.asyncio.Redis.from_url(
        f"unix://{socket_of(node)}?db=3"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_node_works_in_both_apis(
    desk: Callable[..., Desk], trio: Nodes, form: str
) -> None:
    """Taken, extended, verified, looked at and released; on the right database, and named
    without a credential."""
    specs = [FORMS[form](node) for node in trio]
    locks = desk(specs)
    locks.use()
    lease = locks.acquire()
    for node in trio:
        with node.client(db=3 if "database" in form else 0) as admin:
            assert admin.exists(f"redlock:{RESOURCE}")
    assert locks.release(lease)
    assert PASSWORD not in repr(locks.locks) and "pw@" not in repr(locks.locks)
    for spec in specs:
        if isinstance(spec, redis.Redis):
            assert spec.get("redlock:node"), "the application's client is its own"
            spec.close()


def test_forms_may_be_mixed(desk: Callable[..., Desk], trio: Nodes) -> None:
    """A URL, a client and a dict in one list."""
    client = redis.Redis(port=trio[1].port)
    locks = desk([trio.urls[0], client, {"unix_socket_path": socket_of(trio[2])}])
    locks.use()
    names = [report.node for report in locks.wait(locks.locks.nodes())]
    assert names == [
        trio.urls[0],
        f"redis://localhost:{trio[1].port}",
        f"unix://{socket_of(trio[2])}",
    ]
    client.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_dialled_and_named_in_brackets(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """`redis://[::1]:port`, in the name as in the URL."""
    for node in own_nodes:
        with node.client() as admin:
            try:
                admin.config_set("bind", "127.0.0.1 ::1")
            except redis.ResponseError:
                pytest.skip("::1 is not available")
    urls = [f"redis://[::1]:{node.port}" for node in own_nodes]
    locks = desk(urls)
    locks.use()
    assert all(url in repr(locks.locks) for url in urls)
    assert [endpoint.name for endpoint in endpoints([{"host": "::1", "port": 7}])] == [
        "redis://[::1]:7"
    ]


# Wrong credentials, and where they must not be seen


class Fake:
    """A server that answers every command with *answer*; "{}" stands for the command's words."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._served: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="fake")
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Also the connection that it has: a client whose loop does not run just now has not
        closed its end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        served = self._served
        if served is not None:
            with suppress(OSError):  # It is closed already.
                served.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._served = connection
                with connection, suppress(OSError):
                    connection.settimeout(PATIENCE)
                    while heard := connection.recv(65536).decode():
                        words = " ".join(
                            f"'{word}'" for word in re.findall(r"\r\n([^$*\r\n]+)", heard)
                        )
                        connection.sendall(f"-{self._answer.format(words)}\r\n".encode())


SECRET = "hunter2-correct-horse"


class Ear:
    """Everything that is said where somebody might read it: log lines, events, errors with their
    causes, reprs."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self._heard: list[str] = []

    def event(self, event: Any) -> None:
        self._heard += [str(event), repr(event)]

    def error(self, error: BaseException | None) -> None:
        while error is not None:
            self._heard += [
                str(error),
                repr(error),
                repr(error.args),
                *traceback.format_exception(error),
            ]
            for vote in getattr(error, "votes", ()):
                self._heard += [str(vote), repr(vote), str(vote.error)]
            error = error.__cause__ or error.__context__

    def thing(self, *things: object) -> None:
        for thing in things:
            self._heard += [str(thing), repr(thing), f"{thing}"]

    def text(self) -> str:
        records = [
            f"{record.getMessage()} {record.exc_text} {record.__dict__}"
            for record in self._caplog.records
        ]
        return "\n".join(
            [*self._heard, *records, *(thread.name for thread in threading.enumerate())]
        )


WRONG: dict[str, Callable[[int], Any]] = {
    "URL": lambda port: f"redis://{USER}:{SECRET}@127.0.0.1:{port}",
    "URL without user": lambda port: f"redis://:{SECRET}@127.0.0.1:{port}",
    "dict": lambda port: {"port": port, "username": USER, "password": SECRET},
    "client": lambda port: redis.Redis(port=port, username=USER, password=SECRET),
    "asyncio client": lambda port: redis.asyncio.Redis(port=port, username=USER, password=SECRET),
    "provider": lambda port: {"port": port, "credential_provider": Provider(USER, SECRET)},
}


def try_and_listen(locks: Desk, ear: Ear) -> BaseException | None:
    """Acquire, look, and hear all that is said of it; the error, if there was one."""
    problem: BaseException | None = None
    try:
        lease = locks.acquire()
        ear.thing(lease)
        locks.release(lease)
    except redlock.RedlockError as error:
        problem = error
    ear.error(problem)
    ear.thing(locks.locks, *locks.locks._endpoints, locks.locks._cluster, locks.locks.lock("x"))
    with suppress(redlock.RedlockError):
        ear.thing(*locks.wait(locks.locks.nodes()), locks.wait(locks.locks.status(RESOURCE)))
    return problem


PAIRS = list(itertools.pairwise(WRONG))[::2]
"""Each form once: where a majority is refused, all of the node timeout is waited for, twice."""


@pytest.mark.parametrize("forms", PAIRS, ids=" and ".join)
def test_a_wrong_password_costs_a_vote_and_on_a_majority_is_a_configuration_error(
    desk: Callable[..., Desk], trio: Nodes, forms: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """One of three: the lock is granted. Two: named, with the server's reason. The password is
    told nowhere."""
    ear = Ear(caplog)
    for form in forms:
        nodes = [WRONG[form](trio[0].port), *trio.urls[1:]]
        assert try_and_listen(desk(nodes, on_event=ear.event), ear) is None
    nodes = [WRONG[form](node.port) for form, node in zip(forms, trio, strict=False)]
    error = try_and_listen(
        desk([*nodes, trio.urls[2]], on_event=ear.event, node_timeout=REFUSED), ear
    )
    assert isinstance(error, ConfigurationError)
    reasons = re.findall(r"refused our credentials \(([^)]*)", str(error))
    assert len(set(reasons)) == len(reasons)  # The same reason is said once, for all its nodes.
    assert ("AuthenticationError" in str(error)) == ("provider" in forms)
    said = "AuthenticationError|invalid username-password|called without any"
    assert reasons
    assert all(re.search(said, reason) for reason in reasons), str(error)
    assert SECRET not in ear.text()


ECHOES = [
    "ERR unknown command 'AUTH', with args beginning with: {}",
    "WRONGPASS no such user with this password: {}",
    "ERR {}",
    "NOAUTH {}",
]


@pytest.mark.parametrize("answer", ECHOES)
def test_a_server_that_repeats_the_password_is_not_quoted(
    desk: Callable[..., Desk], answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers repeat what they did not understand; the reason is told, for every form of a
    password, and the password is not."""
    ear = Ear(caplog)
    forms = [*WRONG.values(), WRONG["URL"]]  # Of an even number of nodes there is a warning.
    with ExitStack() as stack:
        ports = [stack.enter_context(closing(Fake(answer))).port for _ in forms]
        nodes = [form(port) for form, port in zip(forms, ports, strict=True)]
        error = try_and_listen(desk(nodes, on_event=ear.event, node_timeout=REFUSED), ear)
    assert isinstance(error, ConfigurationError | QuorumUnavailable)
    assert re.search("said |refused our credentials", str(error))
    heard = ear.text()
    for port in ports:
        assert re.search(rf":{port} (said|does not vote: it refused our credentials) ", heard)
    assert SECRET not in heard


def test_a_long_password_that_is_repeated_in_part_is_not_quoted(
    desk: Callable[..., Desk], trio: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """A server cuts what it quotes, so the password would not be found in it whole."""
    ear, password = Ear(caplog), "x" * 20 + SECRET * 20
    with closing(
        Fake(f"ERR unknown command 'AUTH', with args beginning with: '{password[:128]}'")
    ) as fake:
        locks = desk(
            [f"redis://:{password}@127.0.0.1:{fake.port}", *trio.urls[:2]], on_event=ear.event
        )
        assert try_and_listen(locks, ear) is None
    assert SECRET not in ear.text()


def test_what_a_credential_provider_raises_is_not_quoted(
    desk: Callable[..., Desk], trio: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its message is not ours, and may hold the very credential that was refused."""

    class Failing(CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            raise RuntimeError(f"the token {SECRET} has expired")

    ear = Ear(caplog)
    specs = [{"port": node.port, "credential_provider": Failing()} for node in trio]
    error = try_and_listen(desk(specs, on_event=ear.event), ear)
    assert isinstance(error, QuorumUnavailable) and "RuntimeError" in str(error)
    assert SECRET not in ear.text()


def test_missing_rights_are_refused_with_the_server_s_words(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """An ACL without EVALSHA, or for other keys: NOPERM, and a configuration error when a
    majority says so."""
    for node in own_nodes:
        with node.client() as admin:
            admin.execute_command(
                "ACL", "SETUSER", "mute", "on", ">pw", "~redlock:*", "+@all", "-evalsha", "-eval"
            )
            admin.execute_command("ACL", "SETUSER", "stray", "on", ">pw", "~other:*", "+@all")
    for user in ("mute", "stray"):
        bad = [f"redis://{user}:pw@127.0.0.1:{node.port}" for node in own_nodes]
        locks = desk([*bad[:2], *own_nodes.urls[2:]])
        lease = locks.acquire()
        assert lease is not None and locks.release(lease)
        with pytest.raises(ConfigurationError, match="NOPERM"):
            desk([*bad[:3], *own_nodes.urls[3:]], node_timeout=REFUSED).acquire()


def test_a_password_that_is_changed_later_costs_nothing_until_the_connection_breaks(
    desk: Callable[..., Desk], own_nodes: Nodes
) -> None:
    """A server keeps who is authenticated; the next connection is refused, and said to be."""
    locks = desk(own_nodes.urls)
    locks.use()
    for node in own_nodes[:3]:
        with node.client() as admin:
            admin.config_set("requirepass", SECRET)
    locks.use()
    for node in own_nodes[:3]:
        with node.client(password=SECRET) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises((ConfigurationError, QuorumUnavailable), match="NOAUTH"):
        locks.acquire()
    with pytest.raises(ConfigurationError, match="NOAUTH") as raised:
        desk(own_nodes.urls, node_timeout=REFUSED).acquire()
    assert SECRET not in str(raised.value)


# Arguments that cannot work

BAD: list[tuple[Any, str]] = [
    ([], "nodes is empty"),
    ("redis://127.0.0.1", "must be a list"),
    (b"redis://127.0.0.1", "must be a list"),
    ({"host": "a"}, "must be a list"),
    (None, "must be a list"),
    (iter(["redis://a"]), "must be a list"),
    ([None], r"nodes\[0\].*NoneType"),
    (["redis://a", 5], r"nodes\[1\].*int"),
    ([b"redis://a"], r"nodes\[0\].*bytes"),
    ([""], "begins with redis://"),
    ([f"http://u:{SECRET}@h"], "begins with redis://"),
    ([f"{SECRET}@h:1"], "begins with redis://"),
    ([f"redis://:{SECRET}"], "port"),
    ([f"redis://default:{SECRET}"], "port"),
    ([f"redis://u:{SECRET}@h:port"], "port"),
    ([f"redis://u:{SECRET}@h:99999"], "port"),
    ([f"redis://u:/{SECRET}@h:1"], "database number"),
    ([f"redis://h/{SECRET}"], "database number"),
    ([f"redis://u:{SECRET}@[::1"], "IPv6"),
    ([f"redis://u:{SECRET}@h/0?colour=blue"], "'colour'"),
    ([f"redis://h?password={SECRET}&colour=blue"], "'colour'"),
    ([f"redis://u:{SECRET}@h?db=x"], "'db'"),
    ([f"unix://u:{SECRET}@"], "path"),
    ([{"hostt": "a", "password": SECRET}], "'hostt'"),
    ([{"host": "a", "port": "x", "password": SECRET}], "'x'"),
    ([{"host": "a", "port": 99999, "password": SECRET}], "99999"),
    ([{"host": "", "password": SECRET}], "host is empty"),
    ([{"connection_pool": 5}], "connection_kwargs"),
    ([object()], r"nodes\[0\].*object"),
]


@pytest.mark.parametrize(
    ("nodes", "reason"), BAD, ids=lambda value: str(value)[:30] if isinstance(value, str) else None
)
def test_a_node_list_that_cannot_work_is_refused_at_once(
    module: ModuleType, nodes: Any, reason: str
) -> None:
    """By the constructor, naming the entry and what is wrong with it; never a password, not even
    in what caused it."""
    with pytest.raises(ConfigurationError, match=reason) as raised:
        module.Redlock(nodes)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


def test_a_client_of_a_sentinel_is_no_node(module: ModuleType) -> None:
    """It leads to whatever is the master now, and a failover forgets locks."""
    with pytest.raises(ConfigurationError, match="SentinelManagedConnection"):
        module.Redlock([Sentinel([("127.0.0.1", 1)]).master_for("mymaster")])


@pytest.mark.parametrize(
    "pair",
    [
        ("redis://a:7000", "redis://a:7000"),
        ("redis://a:7000", {"host": "a", "port": 7000}),
        ("redis://a", redis.Redis(host="a")),
        ("redis://a:7000/1", "redis://u:pw@a:7000/2"),
        ("unix:///run/a.sock", {"unix_socket_path": "/run/a.sock"}),
    ],
    ids=["twice", "as a dict", "as a client", "with another database", "as a unix socket"],
)
def test_the_same_address_twice_is_refused_by_the_constructor(
    module: ModuleType, pair: tuple[Any, Any]
) -> None:
    """Two databases of one server are one server, too."""
    with pytest.raises(ConfigurationError, match=r"nodes has (redis|unix)://\S+ twice"):
        module.Redlock([*pair, "redis://b"])


def test_the_same_server_under_two_names_is_refused_by_the_first_acquire(
    desk: Callable[..., Desk], trio: Nodes
) -> None:
    """By run id: an address and a name, a port and a socket."""
    port = trio[0].port
    for other in (
        f"redis://localhost:{port}",
        f"unix://{socket_of(trio[0])}",
        f"redis://127.1:{port}/3",
    ):
        for nodes in (
            [trio.urls[0], other, trio.urls[1]],
            [trio.urls[1], trio.urls[2], trio.urls[0], other, "redis://127.0.0.1:1"],
        ):
            with pytest.raises(ConfigurationError, match="is the same server as"):
                desk(nodes).acquire()


# What a connection costs


def commandstats(admin: redis.Redis) -> Mapping[str, int]:
    found: Any = admin.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in found.items()}


@pytest.mark.parametrize(
    ("form", "extra"),
    [
        ("URL", {}),
        ("URL with user and password", {"auth": 1}),
        ("URL with database", {"select": 1}),
        ("unix URL with user, password and database", {"auth": 1, "select": 1}),
        ("client with everything on", {}),
        ("asyncio client with user", {"auth": 1}),
    ],
)
def test_a_connection_costs_authentication_selection_and_our_questions(
    module: ModuleType, desk: Callable[..., Desk], trio: Nodes, form: str, extra: Mapping[str, int]
) -> None:
    """Counted at the server: no HELLO, no CLIENT SETINFO, no PING; and one connection serves all
    that follows."""
    specs = [FORMS[form](node) for node in trio]
    locks = desk(specs)
    with trio[0].client() as admin:
        admin.config_resetstat()
        for _ in range(2):
            assert locks.release(locks.acquire())
        found = dict(commandstats(admin))
        assert cast("int", admin.info("stats")["total_connections_received"]) == 1
    inside_scripts = {"info", "time", "get", "set", "del", "pttl", "pexpire", "exists", "publish"}
    inside_scripts |= {"pubsub|numsub", "zadd", "zcard", "zrangebyscore", "zrem", "zscore"}
    asked = {name: calls for name, calls in found.items() if name not in inside_scripts}
    asked.pop("config|resetstat", None)
    # Two votes, two releases and the look: the first of them too was asked by digest, as the
    # greeting had loaded the scripts.
    assert 3 <= asked.pop("evalsha") <= 5
    # redis-py's asyncio connection to a unix socket greets twice.
    times = 2 if module is redlock.asyncio and form.startswith("unix") else 1
    assert asked == {"script|load": 5, **{name: calls * times for name, calls in extra.items()}}
    for spec in specs:
        if isinstance(spec, redis.Redis):
            spec.close()


# The private names of redis-py


def test_redis_py_has_the_private_names_that_dialling_touches(trio: Nodes) -> None:
    """If this fails, a new redis-py wants `dial.py` looked at: `_taken_over`,
    `_taken_over_async` and `_send_to`."""
    connection = redis.Connection(port=trio[0].port)
    connection.connect()
    sock: object = connection._sock
    assert isinstance(sock, socket.socket)
    connection.disconnect()
    assert sock.fileno() == -1, "disconnect closes the socket that was taken over"

    async def talk() -> None:
        connection = async_connections.Connection(port=trio[0].port)
        await connection.connect()
        reader, writer = connection._reader, connection._writer
        assert isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)
        buffer: object = getattr(reader, "_buffer", None)  # Its types know no private names.
        assert isinstance(buffer, bytearray) and not buffer
        assert hasattr(writer.transport, "set_protocol") and hasattr(writer.transport, "abort")
        await connection.disconnect()
        assert connection._connection_arguments() == {
            "host": connection.host,
            "port": connection.port,
        }
        assert async_connections.SSLConnection(host="h")._connection_arguments().keys() == {
            "host",
            "port",
            "ssl",
        }

    asyncio.run(talk())


@pytest.mark.skipif(
    not hasattr(CredentialProvider, "get_credentials_async"),
    reason="redis-py before 5.3 asks for credentials in the loop",
)
def test_a_dial_that_is_cancelled_hangs_up_at_once() -> None:
    """asyncio: also while it waits for somebody's credentials, and though the cancel's traceback
    is kept."""

    async def run() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        class Slow(CredentialProvider):
            def get_credentials(self) -> tuple[str]:
                raise AssertionError("the loop would wait")

            async def get_credentials_async(self) -> tuple[str]:
                asked.set()
                await asyncio.get_running_loop().create_future()
                raise AssertionError

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await reader.read()
            ended.set()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        (endpoint,) = endpoints(
            [{"host": "127.0.0.1", "port": port, "credential_provider": Slow()}]
        )
        dial = asyncio.create_task(endpoint.open(PATIENCE, asyncio.BufferedProtocol()))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError) as cancel:
            await dial
        await asyncio.wait_for(ended.wait(), PATIENCE)
        del cancel
        server.close()
        await server.wait_closed()

    asyncio.run(run())
    for name in ("Connection", "SSLConnection", "UnixDomainSocketConnection"):
        assert inspect.isclass(getattr(redis, name)) and inspect.isclass(
            getattr(async_connections, name)
        )


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///x"])
def test_redis_py_takes_the_arguments_that_we_set(url: str) -> None:
    """Retries, timeouts, protocol and client info can all be set on every class of connection,
    without a warning."""
    (endpoint,) = endpoints([url])
    from redlock.transport.dial import _ours

    for classes in (redis, async_connections):
        made = getattr(classes, endpoint._class.__name__)(**endpoint._arguments, **_ours(0.5, None))
        assert made.socket_timeout == 0.5 and made.health_check_interval == 0 and made.protocol == 2


def test_a_connection_that_was_taken_over_is_ours_alone(trio: Nodes) -> None:
    """Blocking: the socket speaks, and hanging up closes it."""
    (endpoint,) = endpoints(trio.urls[:1])
    connection, sock = endpoint.connect(1.0)
    sock.setblocking(True)
    sock.sendall(b"*1\r\n$4\r\nPING\r\n")
    assert sock.recv(100) == b"+PONG\r\n"
    hang_up(connection)
    assert sock.fileno() == -1


def test_a_transport_that_was_taken_over_speaks_to_our_protocol_alone(trio: Nodes) -> None:
    """asyncio: what arrives comes to us, and so does the end."""

    class Ours(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(100)
            self.heard = asyncio.get_running_loop().create_future()
            self.lost = asyncio.Event()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.heard.set_result(bytes(self.buffer[:nbytes]))

        def connection_lost(self, error: Exception | None) -> None:
            self.lost.set()

    async def talk() -> None:
        (endpoint,) = endpoints(trio.urls[:1])
        ours = Ours()
        keep, transport = await endpoint.open(1.0, ours)
        transport.write(b"*1\r\n$4\r\nPING\r\n")
        assert await asyncio.wait_for(ours.heard, PATIENCE) == b"+PONG\r\n"
        transport.abort()
        await asyncio.wait_for(ours.lost.wait(), PATIENCE)
        del keep

    asyncio.run(talk())


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")], ids=["first", "second"]
)
def test_every_address_of_a_name_is_tried(
    trio: Nodes, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    """asyncio, where we look names up ourselves: the node listens on one of two addresses,
    whichever comes first."""
    port = int(trio.urls[0].rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
    monkeypatch.setattr(
        "redlock.transport.lookup.socket.getaddrinfo", lambda *args, **options: found
    )

    async def dial() -> None:
        (endpoint,) = endpoints([f"redis://many.test:{port}"])
        keep, transport = await endpoint.open(
            PATIENCE, asyncio.BufferedProtocol(), endpoint.lookup()
        )
        assert transport.get_extra_info("peername") == ("127.0.0.1", port)
        transport.abort()
        await asyncio.sleep(0)
        del keep

    asyncio.run(dial())


# TLS


class TlsNode:
    """A redis-server that speaks TLS alone and asks for a client certificate."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self._log = folder / "log"
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        options = {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(certificates / "server.crt"),
            "tls-key-file": str(certificates / "server.key"),
            "tls-ca-cert-file": str(certificates / "ca.crt"),
            "tls-auth-clients": "yes",
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["redis-server", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def started(self, client: redis.Redis) -> bool:
        """Whether our own process answers; False: it ended, which it does at once if it knows no
        TLS."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(redis.RedisError, OSError):
                return bool(client.info("server")["process_id"] == self._process.pid)
            time.sleep(0.01)
        return False

    @property
    def last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").split("\n")
        return " ".join(line.strip() for line in lines[-6:] if line.strip())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def make_certificates(folder: Path) -> None:
    """An authority, a server's and a client's certificate, and another authority that signed
    nothing."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other"):
        request = [*new_key, "-x509", "-days", "2", "-subj", f"/CN=redlock test {name}"]
        openssl(*request, "-keyout", f"{name}.key", "-out", f"{name}.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl(*new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = [
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
        ]
        openssl(*signing, "-extfile", "names", "-out", f"{name}.crt")


class Tls:
    """Three TLS nodes, marked, and how to name them."""

    def __init__(self, nodes: list[TlsNode], folder: Path) -> None:
        self.nodes = nodes
        self.folder = folder

    def arguments(self, *, ca: str = "ca", client: str | None = "client") -> dict[str, str]:
        found = {"ssl_ca_certs": str(self.folder / f"{ca}.crt")}
        if client is not None:
            found |= {
                "ssl_certfile": str(self.folder / f"{client}.crt"),
                "ssl_keyfile": str(self.folder / f"{client}.key"),
            }
        return found

    def url(self, node: TlsNode, host: str = "127.0.0.1", **options: Any) -> str:
        query = "&".join(
            f"{name}={quote(value)}" for name, value in self.arguments(**options).items()
        )
        return f"rediss://{host}:{node.port}?{query}"

    def client(self, node: TlsNode) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=node.port, ssl=True, **self.arguments())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"TLS needs {program} on the PATH (Debian: apt-get install {program})")
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(closing(TlsNode(folder / str(number), folder)))
            for number in range(3)
        ]
        found = Tls(nodes, folder)
        for node in nodes:
            with found.client(node) as client:
                if not node.started(client):
                    pytest.skip(
                        f"redis-server on the PATH does not speak TLS: {node.last_words[:200]}"
                    )
        initialise([found.url(node) for node in nodes])
        yield found


TLS_FORMS: dict[str, Callable[[Tls, TlsNode], Any]] = {
    "URL": lambda tls, node: tls.url(node),
    "URL with a name": lambda tls, node: tls.url(node, host="localhost"),
    "dict": lambda tls, node: {
        "host": "127.0.0.1",
        "port": node.port,
        "ssl": True,
        **tls.arguments(),
    },
    "client": lambda tls, node: tls.client(node),
    "asyncio client": lambda tls, node: redis.asyncio.Redis.from_url(tls.url(node)),
}


@pytest.mark.parametrize("form", TLS_FORMS)
def test_tls_with_client_certificates_works_in_both_apis(
    desk: Callable[..., Desk], tls: Tls, form: str
) -> None:
    """A whole lease, and again after every connection was killed; the name says rediss://."""
    specs = [TLS_FORMS[form](tls, node) for node in tls.nodes]
    locks = desk(specs)
    locks.use()
    for node in tls.nodes:
        with tls.client(node) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
    locks.use()
    assert repr(locks.locks).count("rediss://") == 3 and str(tls.folder) not in repr(locks.locks)
    for spec in specs:
        if isinstance(spec, redis.Redis):
            spec.close()


def test_many_locks_at_once_over_tls(module: ModuleType, tls: Tls) -> None:
    """Decrypted bytes that no poller reports are read all the same: no reply of a crowd is left
    behind."""
    urls = [tls.url(node) for node in tls.nodes]
    count = 20
    if module is redlock.asyncio:

        async def crowd() -> list[bool]:
            async with redlock.asyncio.Redlock(urls) as locks:

                async def once(number: int) -> bool:
                    lease = await locks.lock(f"crowd:{number}").acquire(timeout=PATIENCE)
                    assert lease is not None
                    return await lease.release()

                return await asyncio.gather(*(once(number) for number in range(count)))

        released = asyncio.run(crowd())
    else:
        released = []
        with redlock.Redlock(urls) as locks:

            def once(number: int) -> None:
                lease = locks.lock(f"crowd:{number}").acquire(timeout=PATIENCE)
                assert lease is not None
                released.append(lease.release())

            threads = [threading.Thread(target=once, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert released == [True] * count


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ca": "other"}, "certificate verify failed"),
        ({"client": None}, "be reached|connection|answer our dial"),
    ],
    ids=["unknown authority", "no client certificate"],
)
def test_a_tls_handshake_that_fails_is_the_node_s_fault(
    desk: Callable[..., Desk], tls: Tls, options: dict[str, Any], reason: str
) -> None:
    """One of three: granted. All: unavailable, with the reason, and no exception of the ssl
    module."""
    bad = [tls.url(node, **options) for node in tls.nodes]
    good = [tls.url(node) for node in tls.nodes]
    desk([bad[0], *good[1:]]).use()
    with pytest.raises(QuorumUnavailable) as raised:
        desk(bad, node_timeout=2.0).acquire()
    assert sum(bool(re.search(reason, vote.reason)) for vote in raised.value.votes) >= 2, (
        raised.value
    )
    assert not isinstance(raised.value, ssl.SSLError)


def test_plain_to_tls_and_tls_to_plain_are_faults(
    desk: Callable[..., Desk], tls: Tls, trio: Nodes
) -> None:
    """Each speaks what the other does not: no vote, a reason, and nothing else."""
    plain = [f"redis://127.0.0.1:{node.port}" for node in tls.nodes]
    secure = [f"rediss://127.0.0.1:{node.port}" for node in trio]
    for nodes in (plain, secure):
        with pytest.raises(QuorumUnavailable) as raised:
            desk(nodes, node_timeout=0.5).acquire()
        faults = [vote.error for vote in raised.value.votes if vote.error is not None]
        assert len(faults) >= 2 and not any(isinstance(fault, NodeRefused) for fault in faults)


def test_the_password_of_a_key_file_is_told_nowhere(
    desk: Callable[..., Desk], tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """`ssl_password` is a credential like any other."""
    ear = Ear(caplog)
    specs = [
        {"port": node.port, "ssl": True, **tls.arguments(ca="other"), "ssl_password": SECRET}
        for node in tls.nodes
    ]
    assert isinstance(try_and_listen(desk(specs, on_event=ear.event), ear), QuorumUnavailable)
    assert SECRET not in ear.text()


def test_an_endpoint_shows_its_address_alone() -> None:
    """In `repr` and in `str`, for every kind of connection."""
    specs = [
        f"redis://u:{SECRET}@h:1/2",
        f"rediss://u:{SECRET}@h:2",
        f"unix://u:{SECRET}@/run/x.sock",
        f"redis://h:3?password={SECRET}",
    ]
    shown = [(str(endpoint), repr(endpoint), endpoint.name) for endpoint in endpoints(specs)]
    assert shown == [
        (f"Endpoint({name})", f"Endpoint({name})", name)
        for name in ("redis://h:1", "rediss://h:2", "unix:///run/x.sock", "redis://h:3")
    ]
