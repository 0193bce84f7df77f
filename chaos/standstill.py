"""How long a lock stood still: free, or its holder dead, while somebody waited for it. Read out of
a history.

It stands still from the release, or from the end of the holder's process, or from the moment at
which the first of those who wait asked for it, whichever is last; until the next grant. Somebody
who died waiting does not count: nothing could have been given to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chaos.history import Broken, Called, Record, Seen, Stopped
from redlock.core.events import LeaseGranted, LeaseLapsed, LeaseReleasing

__all__ = ["Standstill", "at_share", "standstills"]


@dataclass(frozen=True, slots=True)
class Standstill:
    """The lock stood still for *took* seconds before *client* was granted it, at *at*. *killed*:
    the process of its last holder was gone before it could release."""

    at: float
    took: float
    client: str
    killed: bool


def standstills(
    history: Iterable[Record], resource: str, *, since: float = 0.0, until: float = float("inf")
) -> list[Standstill]:
    """One for each grant of *resource* in the span, but for those before which nobody had held
    it."""
    records = [record for record in history if _of(record) in (resource, None)]
    asks = sorted(
        (record.at - record.took, record.at)
        for record in records
        if isinstance(record, Called) and record.call == "acquire"
    )
    found: list[Standstill] = []
    free_at: float | None = None
    killed = False
    struck: dict[str, float] = {}
    for record in sorted(records, key=lambda record: record.at):
        if isinstance(record, Broken):
            struck.update(dict.fromkeys(record.clients, record.at))
        elif isinstance(record, Stopped):
            # When it was killed, and not when it was seen to be gone.
            free_at, killed = struck.get(record.client, record.at), True
        elif isinstance(record, Seen) and isinstance(record.event, LeaseReleasing | LeaseLapsed):
            free_at, killed = record.at, False
        elif isinstance(record, Seen) and isinstance(record.event, LeaseGranted):
            if free_at is not None and since <= record.at < until:
                took = record.at - max(free_at, _wanted_at(asks, record.at))
                found.append(Standstill(record.at, max(0.0, took), record.client, killed))
            free_at = None
    return found


def at_share(values: Iterable[float], share: float) -> float:
    """The smallest of *values* that so large a share does not exceed; 0 for none."""
    ordered = sorted(values)
    place = -int(-share * len(ordered) // 1) - 1
    return ordered[max(0, place)] if ordered else 0.0


def _wanted_at(asks: list[tuple[float, float]], at: float) -> float:
    """When the first of those asked who waited at *at*."""
    return next((began for began, ended in asks if began <= at <= ended), at)


def _of(record: Record) -> str | None:
    """The lock that a record is about; None for a fault, "" for nothing of ours."""
    if isinstance(record, Broken):
        return None
    inner = record.event if isinstance(record, Seen) else record
    return str(getattr(inner, "resource", ""))
