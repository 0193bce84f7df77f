"""Dialling: from whatever names a node to an authenticated connection that is ours alone.

redis-py knows URLs, TLS, ACL users, unix sockets and credential providers; its retries and long
timeouts must not reach us. After the handshake the socket, or the transport, is taken over; that
touches private names of redis-py in the three functions `_taken_over`, `_taken_over_async` and
`_send_to`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio import connection as async_connections
from redis.backoff import NoBackoff
from redis.retry import Retry

from redlock.core.quorum import Fault, FaultKind
from redlock.errors import ConfigurationError
from redlock.transport.lasting import lasting, unaddressed
from redlock.transport.lookup import Lookup

__all__ = ["Endpoint", "NodeSpec", "cut", "endpoints", "hang_up"]

NodeSpec = str | redis.Redis | redis.asyncio.Redis | Mapping[str, Any]
"""What may name a node: a URL, an existing client, or the arguments of `redis.Redis`."""

_PASSED_ON = (
    "host",
    "port",
    "path",
    "db",
    "username",
    "password",
    "credential_provider",
    "socket_keepalive",
    "socket_type",
)
_ANONYMOUS = (
    ("driver_info",)
    if "driver_info" in inspect.signature(redis.connection.AbstractConnection).parameters
    else ("lib_name", "lib_version")  # Before redis-py 7.2.
)
"""What redis-py would tell a server about itself, in two CLIENT SETINFO, each waited for."""
_DETAIL_MAX = 200
_SCHEMES = ("redis://", "rediss://", "unix://")


class Endpoint:
    """One node's address and credentials. Its `name` and `repr` show the address alone."""

    __slots__ = ("_arguments", "_class", "_secrets", "name")

    def __init__(
        self, connection_class: type[redis.Connection], arguments: Mapping[str, Any]
    ) -> None:
        passed = {
            key: value
            for key, value in arguments.items()
            if (key in _PASSED_ON or key.startswith("ssl_"))
            and value is not None
            # redis-py's blocking clients always say so, and its asyncio connections do not know the
            # word.
            and not (key.startswith("ssl_validate_") and value is False)
        }
        self._class = connection_class
        self._arguments = passed
        self._secrets = [
            str(passed[key]) for key in ("password", "ssl_password") if passed.get(key)
        ]
        _check_address(connection_class, passed)
        self.name = _name(connection_class, passed)

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    @property
    def address(self) -> tuple[Any, ...]:
        """What two spellings of the same server have in common, as far as the spelling tells."""
        arguments = self._arguments
        return (
            (arguments.get("path"),)
            if "path" in arguments
            else (arguments.get("host", "localhost"), arguments.get("port", 6379))
        )

    def connect(
        self, timeout: float, begun: Callable[[redis.Connection], None] = lambda connection: None
    ) -> tuple[redis.Connection, socket.socket]:
        """Dial, authenticate, select; blocks for at most about *timeout* seconds per step. Raises
        redis or OS errors.

        *begun* hears of the connection first, so that another thread can `cut` it short.
        """
        connection = self._class(**self._arguments, **_ours(timeout, Retry(NoBackoff(), 0)))
        begun(connection)
        try:
            connection.connect()  # type: ignore[no-untyped-call]
            return connection, _taken_over(connection)
        except BaseException:
            hang_up(connection)
            raise

    def client(self, timeout: float) -> redis.Redis:
        """An ordinary client, for what is not part of any lock."""
        ours = _ours(timeout, Retry(NoBackoff(), 0))
        # Without a word in the handshake the session tickets of TLS 1.3 are still unread, and the
        # pool takes them for a reply that nobody asked for.
        for word in _ANONYMOUS:
            del ours[word]
        return redis.Redis.from_pool(
            redis.ConnectionPool(connection_class=self._class, **self._arguments, **ours)
        )

    def lasting(self, error: BaseException) -> str | None:
        """Why dialling failed, for a reason that does not pass by itself; None for others."""
        return lasting(error, self._arguments)

    def lookup(self) -> Lookup | None:
        """What looks up the node's name for `open`; None where there is none to look up."""
        host = self._arguments.get("host", "localhost")
        return (
            None
            if "path" in self._arguments or _is_address(host)
            else Lookup(host, self._arguments.get("port", 6379))
        )

    async def open(
        self, timeout: float, protocol: asyncio.BufferedProtocol, lookup: Lookup | None = None
    ) -> tuple[Any, asyncio.Transport]:
        """The same for asyncio: the transport speaks to *protocol* from now on.

        The first of the two must be kept until the transport is closed: a stream writer that is
        collected closes it.
        """
        addresses: list[str | None] = (
            [None] if lookup is None else [*await lookup.addresses(timeout)]
        )
        async with asyncio.timeout(timeout):
            for address in addresses[:-1]:
                try:
                    return await self._open(timeout, protocol, address)
                except redis.ConnectionError as error:
                    if not isinstance(error.__context__, OSError):  # It was reached, and said no.
                        raise
            return await self._open(timeout, protocol, addresses[-1])

    async def _open(
        self, timeout: float, protocol: asyncio.BufferedProtocol, address: str | None
    ) -> tuple[Any, asyncio.Transport]:
        async_class = getattr(async_connections, self._class.__name__)
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        connection = async_class(**self._arguments, **_ours(timeout, retry))
        if address is not None:
            _send_to(connection, address)
        try:
            await connection.connect()
            return _taken_over_async(connection, protocol)
        except BaseException:
            _drop(connection)
            raise

    def fault(self, error: BaseException) -> Fault:
        """Why dialling failed, for the votes; without a credential in it."""
        if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
            return Fault(FaultKind.REFUSED, f"refused our credentials ({self._said(error)})")
        if isinstance(error, redis.BusyLoadingError):
            return Fault(FaultKind.UNREACHABLE, "is LOADING its data")
        if isinstance(error, redis.ResponseError):
            kind = (
                FaultKind.REFUSED
                if str(error).startswith(("NOAUTH", "WRONGPASS", "NOPERM", "DENIED"))
                else FaultKind.ERROR
            )
            return Fault(kind, f"said {self._said(error)}")
        if isinstance(error, redis.TimeoutError | TimeoutError):
            return Fault(FaultKind.UNREACHABLE, "did not answer our dial in time")
        stays = lasting(error, self._arguments)
        if stays is not None:
            return Fault(FaultKind.UNREACHABLE, stays)
        text = self._said(error)
        if _refused(error) or "refused" in text.lower():
            return Fault(FaultKind.UNREACHABLE, "refused the connection")
        return Fault(FaultKind.UNREACHABLE, f"could not be reached ({unaddressed(text)})")

    def _said(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        # A server that does not know AUTH repeats its arguments, cut.
        text = text.partition(", with args beginning with")[0]
        if "credential_provider" in self._arguments and not _is_of_the_network(error):
            # The provider's credentials are not known here, so they cannot be blotted out.
            return type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(char if char.isprintable() else " " for char in text[:_DETAIL_MAX])


def _is_of_the_network(error: BaseException) -> bool:
    return isinstance(error, redis.ConnectionError | OSError) and not isinstance(
        error, redis.AuthenticationError
    )


def _refused(error: BaseException | None) -> bool:
    """Whether nobody listened; redis-py wraps that, and asyncio does not say it in words."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def endpoints(nodes: Sequence[NodeSpec]) -> list[Endpoint]:
    """Read a caller's node list. Raises ConfigurationError, naming the entry but never its
    credentials."""
    if isinstance(nodes, str | bytes | Mapping) or not isinstance(nodes, Sequence):
        raise ConfigurationError(
            "nodes must be a list: of URLs, clients, or dict(host=..., port=...)"
        )
    if not nodes:
        raise ConfigurationError("nodes is empty: name at least one server")
    found = [_endpoint(place, spec) for place, spec in enumerate(nodes)]
    for place, endpoint in enumerate(found):
        for other in found[:place]:
            if other.address == endpoint.address:
                raise ConfigurationError(f"nodes has {endpoint.name} twice: name it once")
    return found


def _endpoint(place: int, spec: NodeSpec) -> Endpoint:
    problem = ""
    try:
        pool = _pool(spec)
        if isinstance(spec, str | Mapping):
            pool.make_connection()  # Does no I/O; finds an argument that no connection knows.
        connection_class, arguments = pool.connection_class, pool.connection_kwargs
        endpoint = Endpoint(_blocking(connection_class), arguments)
    except (ValueError, TypeError, AttributeError, redis.RedisError) as error:
        problem = _without_url(spec, error)
    if problem:  # Raised out here, so that it carries no context: that one may repeat the URL.
        raise ConfigurationError(f"nodes[{place}] cannot be understood, so correct it: {problem}")
    return endpoint


def _blocking(connection_class: type) -> type[redis.Connection]:
    for known in (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection):
        if connection_class.__name__ == known.__name__:
            return cast("type[redis.Connection]", known)
    raise ValueError(
        f"connections of class {connection_class.__name__} are not supported; give a URL"
    )


def _pool(spec: NodeSpec) -> Any:
    if isinstance(spec, str):
        if not spec.startswith("unix:") and not re.fullmatch("/?[0-9]*", urlsplit(spec).path):
            # redis-py would take database 0, and the user's name for the host when a password has a
            # slash.
            raise ValueError(
                "the URL's path is no database number (in a password, / must be percent-encoded)"
            )
        parts = urlsplit(spec)
        if parts.fragment or (
            parts.query and not all("=" in option for option in parts.query.split("&"))
        ):
            # redis-py would ignore it, and take the user's name for the host when a password has
            # one of these.
            raise ValueError(
                "the URL's options are not name=value (in a password, ? and # must be"
                " percent-encoded)"
            )
        return redis.ConnectionPool.from_url(spec)
    if isinstance(spec, Mapping):
        return redis.Redis(**spec).connection_pool
    pool = getattr(spec, "connection_pool", None)
    if pool is None or not hasattr(pool, "connection_kwargs"):
        raise TypeError(f"a {type(spec).__name__} is neither a URL nor a client nor a dict")
    return pool


def _without_url(spec: NodeSpec, error: Exception) -> str:
    """The error's text; for a URL never with a part of it that may belong to a password."""
    text = str(error)
    if not isinstance(spec, str):
        return text
    if not spec.startswith(_SCHEMES):
        return f"a URL begins with {', '.join(_SCHEMES)}"
    if text.startswith("Port "):
        return (
            "the URL's port is no number up to 65535 (in a password, / : ? # and @ must be"
            " percent-encoded)"
        )
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown:
        return f"no connection knows the URL's argument {unknown[1]!r}"
    secrets = re.split("[:@]", spec.partition("://")[2].rpartition("@")[0])[1:]
    return "the URL is malformed" if any(secret in text for secret in secrets if secret) else text


def _check_address(connection_class: type[redis.Connection], arguments: Mapping[str, Any]) -> None:
    if issubclass(connection_class, redis.UnixDomainSocketConnection):
        if not arguments.get("path"):
            raise ValueError("a unix socket needs a path: unix:///path/to/socket")
    elif (
        isinstance(port := arguments.get("port", 6379), bool | float) or not 0 < int(port) <= 65535
    ):
        raise ValueError(f"port={arguments['port']!r} must be from 1 to 65535")
    elif not arguments.get("host", "localhost"):
        raise ValueError("host is empty")
    for key in ("host", "path", "username", "password"):
        try:
            str(arguments.get(key) or "").encode("idna" if key == "host" else "utf-8")
        except UnicodeError:
            # Not its own words, which may quote a part of a password. A thread that dials would die
            # of it.
            raise ValueError(
                f"the {key} cannot be encoded" + (" as a domain name" if key == "host" else "")
            ) from None


def _name(connection_class: type[redis.Connection], arguments: Mapping[str, Any]) -> str:
    if "path" in arguments:
        return f"unix://{arguments['path']}"
    scheme = "rediss" if issubclass(connection_class, redis.SSLConnection) else "redis"
    host = arguments.get("host", "localhost")
    return f"{scheme}://{f'[{host}]' if ':' in str(host) else host}:{arguments.get('port', 6379)}"


def _ours(timeout: float, retry: Any) -> dict[str, Any]:
    return {
        "retry": retry,  # redis-py 8.1 ships ten retries, and five seconds for each.
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "protocol": 2,  # RESP3 costs a HELLO.
        "health_check_interval": 0,
        **dict.fromkeys(_ANONYMOUS),
    }


def cut(connection: redis.Connection) -> None:
    """Make a thread that waits on *connection* look up, and find it closed."""
    with contextlib.suppress(redis.RedisError, OSError):
        _taken_over(connection).shutdown(socket.SHUT_RDWR)


def hang_up(connection: redis.Connection) -> None:
    """Close a connection that `Endpoint.connect` gave."""
    connection.disconnect()  # type: ignore[no-untyped-call]


def _taken_over(connection: redis.Connection) -> socket.socket:
    sock: socket.socket | None = connection._sock
    if sock is None:
        raise redis.ConnectionError("the connection was lost during the handshake")
    return sock


def _taken_over_async(
    connection: Any, protocol: asyncio.BufferedProtocol
) -> tuple[Any, asyncio.Transport]:
    reader, writer = connection._reader, connection._writer
    if reader is None or writer is None or reader._buffer:
        raise redis.ConnectionError("the connection was lost during the handshake")
    transport: asyncio.Transport = writer.transport
    transport.set_protocol(protocol)
    # redis-py must not think that it still owns either.
    connection._reader = connection._writer = None
    return (connection, writer), transport


def _send_to(connection: Any, address: str) -> None:
    """Connect to *address*, with the name for the certificate alone: redis-py would have the
    loop look it up."""
    arguments = dict(connection._connection_arguments())
    if "ssl" in arguments:
        arguments["server_hostname"] = arguments["host"]
    arguments["host"] = address
    connection._connection_arguments = lambda: arguments


def _is_address(host: str) -> bool:
    """Whether *host* can be connected to without being looked up."""
    try:
        return not getattr(ipaddress.ip_address(host), "scope_id", None)
    except ValueError:
        return False


def _drop(connection: Any) -> None:
    writer = connection._writer
    if writer is not None:
        connection._reader = connection._writer = None
        writer.transport.abort()
