"""Which program a client process runs, and how a campaign talks to it.

Every client, ours or a peer's, is a process that reads one JSON object per line on its standard
input and writes one history record per line (`chaos.history.to_json`) on its standard output; the
end of its input ends it. The messages:

    {"op": "begin", "task": {...}}   a `Task` as JSON: make the coordinator, run the workload
    {"op": "do", "what": "acquire", ...}   one call, for a client whose workload is "puppet"
    {"op": "step", "seconds": 3600}   step the wall clock as this process reads it; then say Note(kind="stepped")
    {"op": "end"}   finish, release, close; then say Note(kind="ended")

It says Note(kind="ready") once, when it reads its input, and Note(kind="begun") when a workload
runs. A peer reuses all of that: it gives `chaos.live.worker.serve` a function that makes a `Locks`
from a `Task`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

__all__ = ["REDLOCK", "Held", "Locks", "Program", "Task"]


@dataclass(frozen=True, slots=True)
class Program:
    """A client program. *kind*: its name in results, such as "redlock" or "pottery"; *argv*: how to
    start it.

    *asyncio*, *tokens*, *extends*: whether it has an asyncio API, gives fencing tokens, and renews
    leases by itself; a scenario that needs what a program lacks is named as not run for it.
    """

    kind: str
    argv: tuple[str, ...]
    asyncio: bool = True
    tokens: bool = True
    extends: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


REDLOCK = Program("redlock", (sys.executable, "-P", "-m", "chaos.live.worker"))


@dataclass(frozen=True, slots=True)
class Task:
    """What one client does in one scenario. Times in seconds.

    *urls*: its own way to each node; *api*: "blocking" or "asyncio"; *workload*: a name of
    `chaos.live.workloads`, with its *settings*; *options*: arguments of the coordinator, `ttl`
    among them; *store*: host and port of the guarded store; *plants*: rules to break, for controls
    (`chaos.live.plants`).
    """

    client: str
    urls: Sequence[str]
    api: str
    workload: str
    resource: str
    options: Mapping[str, Any]
    store: tuple[str, int]
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    plants: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Task:
        """The inverse."""
        host, port = told["store"]
        return cls(**{**told, "store": (host, port)})


class Held(Protocol):
    """A granted lock, as a workload sees it. *token* 0: the program gives none."""

    token: int

    def remaining(self) -> float:
        """Seconds of validity left by the program's own account."""

    def is_held(self) -> bool:
        """Whether the program says that it still holds."""

    async def extend(self) -> None:
        """Extend by the ttl, or raise."""

    async def verify(self) -> None:
        """Ask the nodes, or raise."""

    async def release(self) -> bool:
        """Give it back."""


class Locks(Protocol):
    """A coordinator under one spelling, whatever its API: the methods of a blocking one never
    suspend.

    Whoever implements it also reports what happens to its leases as `Seen` records, by
    `chaos.live.worker.emit`.
    """

    blocking: bool

    async def acquire(
        self,
        resource: str,
        *,
        timeout: float | None,
        auto_extend: bool = False,
        max_hold: float | None = None,
    ) -> Held:
        """A lease, or raise `Refused` with the outcome word of `chaos.history.Called`."""

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""

    async def close(self) -> None:
        """Release everything and close the connections."""


class Refusal(Exception):
    """An acquire that did not succeed. *outcome*: "contended", "unavailable" or "error: ..."."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome
