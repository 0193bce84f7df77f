"""What a campaign needs of the servers it breaks: one interface, whoever runs them.

A `Backend` owns numbered nodes, started empty and on stable addresses by `fresh`. What it cannot do
it does not list among its abilities, and scenarios that need it are named as not run. Nothing here
knows proxies or clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = [
    "Ability",
    "Backend",
    "Data",
    "Node",
    "Persistence",
    "Setup",
    "Unsupported",
    "side_client",
]


class Data(Enum):
    """What a server finds when it is started again."""

    DURABLE = "durable"
    """All it had acknowledged; needs `Persistence.ALWAYS`."""
    LOST = "lost"
    """Nothing."""
    ON_DISK = "as on disk"
    """Whatever it had written when it was killed."""
    ROLLED_BACK = "rolled back"
    """What `Node.snapshot` kept."""


class Persistence(Enum):
    """What a server writes to its disk, and when."""

    NONE = "none"
    ALWAYS = "always"
    EVERYSEC = "everysec"


class Ability(Enum):
    """What a backend can do to its nodes."""

    KILL = "kill and restart servers"
    PAUSE = "stop and continue servers"
    DATA = "lose or roll back a server's data"
    CONFIG = "change a server's settings and role"
    WIPE = "flush a server"
    SPARE = "start more servers"
    FRESH = "start every scenario with empty servers"


class Unsupported(Exception):
    """The backend cannot do this to its nodes."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How the servers of one scenario are started. *options*: server settings by name.

    *clock*: their wall clock can be moved by `Node.shift_clock`, where the backend knows how.
    """

    count: int = 5
    persistence: Persistence = Persistence.NONE
    clock: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


class Node(Protocol):
    """One server, numbered from 1. The address stays the same over every restart."""

    number: int

    @property
    def url(self) -> str:
        """Where to reach it without a proxy, credentials included."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the same, for a proxy to forward to."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs, if it has one on this host."""

    def start(self) -> None:
        """Start it, and return when it answers; with what it finds in its data folder."""

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Idempotent."""

    def restart(self, data: Data) -> None:
        """Kill it if it runs, do *data* to what it wrote, and start it."""

    def snapshot(self) -> None:
        """Keep a copy of its data for a later `Data.ROLLED_BACK`."""

    def pause(self) -> None:
        """Freeze it: its port still accepts, and nothing answers."""

    def unpause(self) -> None:
        """Let it go on; it executes what came meanwhile."""

    def wipe(self) -> None:
        """FLUSHALL."""

    def shift_clock(self, offset: float) -> bool:
        """Set its wall clock *offset* seconds off the host's. False: this backend cannot, and
        nothing happened."""


class Backend(Protocol):
    """The servers of a run."""

    name: str
    can: frozenset[Ability]

    @property
    def nodes(self) -> Sequence[Node]:
        """Those of the scenario that runs, in order."""

    def fresh(self, setup: Setup) -> None:
        """Empty, running, unmarked servers as *setup* says, whatever state the last scenario
        left."""

    def version(self) -> str:
        """The server program and its version."""

    def close(self) -> None:
        """End every server and remove what it left. Idempotent."""


def side_client(node: Node, timeout: float = 2.0) -> redis.Redis:
    """An ordinary client to *node* past every proxy; to be closed by the caller. Gives up after
    one try."""
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    return redis.Redis.from_url(node.url, protocol=2, driver_info=None, **options)
