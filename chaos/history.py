"""What a run leaves behind: frozen records on one true clock, the same for simulator, live
campaigns and `on_event` streams.

A record of the library (`redlock.core.events`) is wrapped in `Seen`; the others tell what was done
to the world, what a holder was told, what calls returned, and what the guarded store and the nodes
saw. All of it survives a trip through JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from redlock.core import events

__all__ = [
    "Accepted",
    "Answered",
    "Believed",
    "Broken",
    "Called",
    "Healed",
    "Hook",
    "Led",
    "NodeSeen",
    "Note",
    "Record",
    "Refused",
    "Seen",
    "Stood",
    "Stopped",
    "from_events",
    "from_json",
    "read_jsonl",
    "to_json",
    "write_jsonl",
]

_OWN_KIND = "note"
"""How JSON names the kind of a `Note`: "kind" says which record it is."""


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all. *at*: the one true clock, seconds. *client*: who it happened to, "" for the
    world.

    The true clock of a simulation is its own; that of a live campaign is CLOCK_BOOTTIME, which all
    processes of a host share.
    """

    at: float
    client: str


@dataclass(frozen=True, slots=True)
class Seen(Record):
    """What the library told `on_event`, with every instant in it on the true clock."""

    event: events.Event


@dataclass(frozen=True, slots=True)
class Believed(Record):
    """At *at* the holder asked its lease, and was told that it holds. *left*: seconds of
    validity by its own clock."""

    resource: str
    token: int
    left: float


@dataclass(frozen=True, slots=True)
class Stood(Record):
    """A candidate stands for election from now on. *lock_delay*: seconds that it waits after a
    leader which was not seen to release."""

    resource: str
    candidate: str
    lock_delay: float


@dataclass(frozen=True, slots=True)
class Led(Record):
    """At *at* a candidate asked its term, and was told that it leads. *left*: seconds until the
    next deadline at which that ends, by its own clock."""

    resource: str
    token: int
    left: float


@dataclass(frozen=True, slots=True)
class Hook(Record):
    """What a candidate does in its term began, or is *over*. *call*: "on_started", "work" or
    "on_stopped"."""

    resource: str
    token: int
    call: str
    over: bool


@dataclass(frozen=True, slots=True)
class Answered(Record):
    """A candidate was asked in its term whether it is fit for it, and the answer came."""

    resource: str
    token: int
    fit: bool


@dataclass(frozen=True, slots=True)
class Accepted(Record):
    """The guarded store took a write: the writer had read *before*, and *after* stands there
    now."""

    resource: str
    token: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Refused(Record):
    """The guarded store refused an access: it had seen *largest*, and *token* is smaller."""

    resource: str
    token: int
    largest: int


@dataclass(frozen=True, slots=True)
class Broken(Record):
    """A fault began. *fault*: unique in the run, such as "partition-3"; *nodes*, *clients*: whom it
    hits.

    A momentary fault is broken and healed at one instant.
    """

    fault: str
    what: str
    nodes: tuple[int, ...] = ()
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Healed(Record):
    """A fault ended."""

    fault: str


@dataclass(frozen=True, slots=True)
class Called(Record):
    """A public call returned, having *took* seconds. *token*: of the lease it was made on or gave,
    0 for none.

    *call*: "acquire", "extend", "verify", "release". *outcome*: "granted", "contended",
    "unavailable", "ok", "lost", "cancelled", "error: ..." and the like.
    """

    resource: str
    call: str
    took: float
    outcome: str
    token: int = 0


@dataclass(frozen=True, slots=True)
class NodeSeen(Record):
    """An observer saw a node change. *state*: "up", "down", "paused", "quarantined" and the
    like; *owner* "": nobody holds the lock there."""

    node: int
    state: str
    owner: str = ""
    token: int = 0


@dataclass(frozen=True, slots=True)
class Stopped(Record):
    """A belief ended in a way no event of the library tells. *why*: "killed" and the like."""

    resource: str
    token: int
    why: str


@dataclass(frozen=True, slots=True)
class Note(Record):
    """Anything else worth a line in a trace."""

    kind: str
    text: str


def from_events(client: str, stream: Iterable[events.Event]) -> list[Record]:
    """The history of one observer: what its `on_event` received, in the order it did.

    Histories of several observers on one host may be put together as they are: they share the
    clock.
    """
    return [Seen(event.at, client, event) for event in stream]


def to_json(record: Record) -> dict[str, Any]:
    """*record* as what JSON can hold; `from_json` gives back an equal one."""
    found: dict[str, Any] = {"kind": type(record).__name__}
    for field in fields(record):
        value = getattr(record, field.name)
        name = _OWN_KIND if field.name == "kind" else field.name
        found[name] = _event_to_json(value) if isinstance(value, events.Event) else value
    return found


def from_json(data: dict[str, Any]) -> Record:
    """The record that `to_json` made *data* of. Raises ValueError for a kind that is not known."""
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    kind = _kind(Record, values.pop("kind", None))
    if _OWN_KIND in values:
        values["kind"] = values.pop(_OWN_KIND)
    if "event" in values:
        inner = dict(values["event"])
        values["event"] = _kind(events.Event, inner.pop("kind", None))(**inner)
    record: Record = kind(**values)
    return record


def write_jsonl(path: Path | str, records: Iterable[Record]) -> None:
    """One record a line."""
    with Path(path).open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(to_json(record), separators=(",", ":")) + "\n")


def read_jsonl(path: Path | str) -> Iterator[Record]:
    """The records of a file, one after the other."""
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            yield from_json(json.loads(line))


def _event_to_json(event: events.Event) -> dict[str, Any]:
    return {
        "kind": type(event).__name__,
        **{field.name: getattr(event, field.name) for field in fields(event)},
    }


def _kind(base: type[Any], name: object) -> type[Any]:
    """The class of that name below *base*, also one that another module added."""
    todo = [base]
    while todo:
        kind = todo.pop()
        if kind.__name__ == name:
            return kind
        todo += kind.__subclasses__()
    raise ValueError(f"{name!r} is no kind of {base.__name__}")
