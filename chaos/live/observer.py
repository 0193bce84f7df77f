"""Looks at every server past the proxies and writes down when what it shows has changed: up or not,
and who holds a lock.

One thread for each node, so that one that does not answer hides no other. It only reads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import redis

from chaos.history import NodeSeen, Record
from chaos.live.backend import Node, side_client
from redlock.core.commands import Look, Nonsense
from redlock.core.identity import Identity, Marker
from redlock.transport.clock import now

__all__ = ["Observer"]

_PAUSE = 0.02
_PATIENCE = 0.25


class Observer:
    """Watches *lock_key* on *nodes* until it is closed."""

    def __init__(self, nodes: list[Node], lock_key: str, hear: Callable[[Record], None]) -> None:
        self._lock_key = lock_key
        self._hear = hear
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(node,), daemon=True) for node in nodes
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, node: Node) -> None:
        last: tuple[str, str, int] | None = None
        client: redis.Redis | None = None
        look = Look()
        while not self._ending.is_set():
            at = now()
            try:
                if client is None:
                    client = side_client(node, timeout=_PATIENCE)
                pipeline: Any = client.pipeline(transaction=False)
                pipeline.get(self._lock_key)
                # Every time: a memory can be lost, and another one made, with the very same marker.
                pipeline.execute_command(*look.words(whole=True))
                held, told = pipeline.execute()
                state = _state(Identity.parse(*look.read(told)))
                owner, token = _holder(held)
            except (redis.RedisError, OSError, Nonsense) as error:
                if client is not None:
                    with contextlib.suppress(redis.RedisError, OSError):
                        client.close()
                client, owner, token = None, "", 0
                state = _trouble(error)
            seen = (state, owner, token)
            if seen != last:
                last = seen
                self._hear(NodeSeen(at, "", node.number, state, owner, token))
            self._ending.wait(_PAUSE)
        if client is not None:
            client.close()


def _state(identity: Identity) -> str:
    """A server whose marker is gone, or was written for another memory, forgot: it does not vote
    yet."""
    marker = Marker.parse(identity.marker)
    remembers = marker is not None and marker.names(identity) and marker.evicted >= identity.evicted
    return "up" if remembers and identity.unfit is None else "quarantined"


def _holder(held: bytes | None) -> tuple[str, int]:
    value = (held or b"").decode("utf-8", "replace")
    owner, token = [*value.split(":"), ""][:2]  # Behind them, what a candidate told of itself.
    return (owner[:8], int(token)) if token.isdecimal() else (value[:8], 0)


def _trouble(error: BaseException) -> str:
    if isinstance(error, redis.TimeoutError):
        return "paused"
    if isinstance(error, redis.ConnectionError | OSError):
        return "down"
    return "refusing"
