"""Nodes that somebody has already: broken only from outside, and by what loses no data unless they
say that it is theirs.

Clients reach them through our proxies, so the network can be broken at will and nobody else
notices. Servers are never stopped, restarted or emptied; settings are changed only with permission,
and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import redis

from chaos.live.backend import Ability, Data, Setup, Unsupported, side_client

__all__ = ["NODES", "Foreign", "ForeignNode"]

NODES = 5
"""What the scenarios are written for."""


class ForeignNode:
    """One of them. See `chaos.live.backend.Node`."""

    def __init__(self, number: int, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "redis" or not parts.hostname:
            raise ValueError(
                f"node {number} must be a redis:// URL: a proxy cannot stand in for the name in a"
                " certificate"
            )
        self.number = number
        self.url = url
        self.address = (parts.hostname, parts.port or 6379)
        self.pid: int | None = None

    def start(self) -> None:
        """Not ours to start."""
        raise Unsupported("these servers are not ours to start")

    def kill(self) -> None:
        """Not ours to kill."""
        raise Unsupported("these servers are not ours to kill")

    def restart(self, data: Data) -> None:
        """Not ours to restart."""
        raise Unsupported("these servers are not ours to restart")

    def snapshot(self) -> None:
        """Not ours to copy."""
        raise Unsupported("these servers are not ours to copy")

    def pause(self) -> None:
        """Not ours to stop."""
        raise Unsupported("these servers are not ours to stop")

    def unpause(self) -> None:
        """Not ours to stop."""
        raise Unsupported("these servers are not ours to stop")

    def wipe(self) -> None:
        """Not ours to empty."""
        raise Unsupported("these servers are not ours to empty")

    def shift_clock(self, offset: float) -> bool:
        """Its clock cannot be moved from here."""
        return False


class Foreign:
    """The back end of given nodes. *owned*: their owner lets us change their settings and role
    for a while."""

    name = "given nodes"

    def __init__(self, urls: Sequence[str], *, owned: bool) -> None:
        if len(urls) != NODES:
            raise ValueError(
                f"the scenarios are written for {NODES} nodes, and {len(urls)} were given"
            )
        self.can = frozenset({Ability.CONFIG} if owned else ())
        self.nodes = [ForeignNode(number, url) for number, url in enumerate(urls, 1)]

    def fresh(self, setup: Setup) -> None:
        """They stay as they are; that they answer is all that is asked for. Raises Unsupported."""
        for node in self.nodes:
            try:
                with side_client(node) as client:
                    client.ping()
            except (redis.RedisError, OSError) as error:
                raise Unsupported(
                    f"node {node.number} does not answer: {type(error).__name__}"
                ) from None

    def version(self) -> str:
        """Of the first that tells."""
        with side_client(self.nodes[0]) as client:
            info: Any = client.info("server")
        return (
            f"{'Valkey' if 'valkey_version' in info else 'Redis'}"
            f" {info.get('valkey_version') or info.get('redis_version')}"
        )

    def close(self) -> None:
        """Nothing was started."""
