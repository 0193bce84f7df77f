"""Why a node cannot be used, where that does not pass by itself: found out by dialling it once
more, aside from every lock.

A server that speaks TLS drops who speaks in clear, and one that does not waits in silence for more;
to whoever dials, both look like a server in trouble. So each is asked in the other's language.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import redis

from redlock.core.quorum import FaultKind, majority
from redlock.transport.dial import Endpoint, NodeSpec, endpoints, hang_up
from redlock.transport.lasting import UNKNOWN_NAME

__all__ = ["diagnose", "diagnose_one", "is_hopeless"]

_TIMEOUT = 0.5
"""Seconds for each step: somebody waits for the answer, and one that is late is told apart."""
_TOGETHER_MAX = 16
_SECURE = "speaks TLS on this port: use rediss://"
_PLAIN = "speaks no TLS on this port: use redis://, or its TLS port"


def diagnose(nodes: Sequence[NodeSpec], which: Iterable[int]) -> dict[int, str]:
    """Of those numbered *which* that will not work before somebody acts, why, and what to do."""
    named = endpoints(nodes)
    asked = sorted(which)
    if not asked:
        return {}
    with ThreadPoolExecutor(_TOGETHER_MAX) as pool:
        found = list(pool.map(diagnose_one, [named[node] for node in asked]))
    return {node: why for node, why in zip(asked, found, strict=True) if why is not None}


def is_hopeless(lasting: dict[int, str], nodes: int) -> bool:
    """Whether no majority is left beside those; names that are not known yet count when all are:
    where a cluster starts, they become known one by one."""
    unknown = sum(why == UNKNOWN_NAME for why in lasting.values())
    return unknown == nodes or nodes - len(lasting) + unknown < majority(nodes)


def diagnose_one(endpoint: Endpoint) -> str | None:
    """Why *endpoint* will not work before somebody acts; None if it works, or may by itself."""
    secure = endpoint.name.startswith("rediss:")
    try:
        _ask(endpoint)
    except (redis.RedisError, OSError) as error:
        fault, stays = endpoint.fault(error), endpoint.lasting(error)
        if fault.kind is FaultKind.REFUSED:
            return f"{fault.detail}: check the user and password in its URL"
        if stays is not None:
            return stays
        silent = isinstance(error, redis.TimeoutError | TimeoutError)
        with contextlib.suppress(OSError):
            # Who speaks TLS hangs up on a word in clear.
            if secure and _answers_plainly(endpoint):
                return _PLAIN
            if not (secure or silent) and _answers_in_tls(endpoint):
                return _SECURE
    return None


def _ask(endpoint: Endpoint) -> None:
    """Raises what the node has against a first command."""
    connection, _ = endpoint.connect(_TIMEOUT)
    try:
        connection.send_command("PING")  # type: ignore[no-untyped-call]
        connection.read_response()
    finally:
        hang_up(connection)


def _answers_plainly(endpoint: Endpoint) -> bool:
    with socket.create_connection(endpoint.address, _TIMEOUT) as sock:
        sock.sendall(b"PING\r\n")
        return sock.recv(1) in (b"+", b"-")


def _answers_in_tls(endpoint: Endpoint) -> bool:
    if len(endpoint.address) != 2:  # A unix socket.
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is told to it: what matters is only that it answers a handshake.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(endpoint.address, _TIMEOUT) as sock:
        try:
            with context.wrap_socket(sock):
                return True
        except ssl.SSLError as error:
            # It had something against us, in TLS: a protocol, or a certificate that is missing.
            return "ALERT" in (error.reason or "")
