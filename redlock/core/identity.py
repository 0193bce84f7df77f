"""Who a node is and what its marker says: the data of admission, as it stands on the nodes and
travels on the wire.

What votes is a *memory*: one server process between two moments at which it may have lost or
replaced its data. The server names it by its run id and its replication id, which is a new one with
every restart, promotion and demotion and never returns to an old value. A *marker*, the key
`redlock:node`, names the memory that it was written for; as a key it is data, though, and comes
back with a copy or a snapshot, so it counts only beside what the server says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

from redlock.core.commands import Mark, to_ms

__all__ = ["Blank", "Identity", "Marker", "Memory", "blank", "is_blank"]

_FORMAT, _FORMAT_BEFORE = "redlock2", "redlock1"
_BLANKS = (f"{_FORMAT} blank ", f"{_FORMAT_BEFORE} blank ")
_DURABLE, _NEVER_REPLICAS, _NONE = "d", "n", "-"


class Memory(NamedTuple):
    """What names a memory: the run id of the server's process, and its replication id
    (`master_replid`)."""

    run_id: str
    replication_id: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What the key `redlock:node` says: the memory it was written for, and the cluster's promises.

    *max_ttl*: seconds, the longest ttl that the node takes. *wait_ttl*: what a quarantine of
    another node waits for; never less, and raised on all nodes before `max_ttl` is on any.
    *durable*: a restarted node has its data. *never_replicas*: no node is ever made a replica, so a
    new replication id in the same run is no loss. *floor*: no token up to it is granted here.
    *evicted*: how many keys the server had evicted. *since_us*: the node's clock when this memory
    was marked, put there by the node itself; 0: not yet. *before*: it has the format of earlier
    versions, which knew no replication id.
    """

    memory: Memory
    nodes: int
    max_ttl: float
    wait_ttl: float = 0.0
    durable: bool = False
    never_replicas: bool = False
    floor: int = 0
    cluster: str = _NONE
    evicted: int = 0
    since_us: int = 0
    before: bool = False

    def __post_init__(self) -> None:
        if self.wait_ttl < self.max_ttl:
            object.__setattr__(self, "wait_ttl", self.max_ttl)

    @classmethod
    def parse(cls, text: str) -> Marker | None:
        """Read a marker; None if *text* is not one of ours."""
        return _read(text)

    def text(self) -> str:
        """The marker as it stands on the node; what `take.lua` reads comes first."""
        return f"{self.head()} {self.since_us} {self.tail()}"

    def head(self) -> str:
        """All before `since_us`, which the node may have to put there."""
        return f"{_FORMAT} {self.memory.replication_id} {to_ms(self.max_ttl)} {self.floor}"

    def tail(self) -> str:
        """All behind it."""
        promises = _DURABLE * self.durable + _NEVER_REPLICAS * self.never_replicas or _NONE
        return (
            f"{self.memory.run_id} {to_ms(self.wait_ttl)} {self.nodes} {self.evicted} {promises}"
            f" {self.cluster}"
        )

    def names(self, identity: Identity) -> bool:
        """Whether it was written for the memory that *identity* has now."""
        # An earlier version named a run together with the offset of its promotion, if it had one.
        if self.before:
            promoted_at = f":{identity.promoted_at}" if identity.promoted else ""
            return self.memory.run_id == identity.memory.run_id + promoted_at
        return self.memory == identity.memory

    def written_for(self, identity: Identity) -> Marker:
        """The same promises for the memory that *identity* has now."""
        return replace(self, memory=identity.memory, evicted=identity.evicted, before=False)

    def write(self, identity: Identity) -> Mark:
        """The command that puts this marker where *identity* has its own, if its memory is still
        the one of this marker."""
        return Mark(
            expected=identity.marker,
            memory=identity.memory.replication_id,
            head=self.head(),
            stamp=str(self.since_us) if self.since_us else "now",
            tail=self.tail(),
        )


# Long: a marker is read field by field, and each may be wrong in its own way.
@lru_cache(maxsize=64)
def _read(text: str) -> Marker | None:
    # Every standing compares the markers of all nodes, and every look of a waiter asks for one
    # while a node may not vote.
    words = text.split(" ")
    match words:
        case [
            form,
            replication_id,
            max_ttl,
            floor,
            since,
            run_id,
            wait_ttl,
            nodes,
            evicted,
            promises,
            cluster,
        ]:
            numbers = (max_ttl, floor, since, wait_ttl, nodes, evicted)
            if (
                form == _FORMAT
                and all(map(_is_number, numbers))
                and promises in ("-", "d", "n", "dn")
            ):
                return Marker(
                    Memory(run_id, replication_id),
                    int(nodes),
                    int(max_ttl) / 1000.0,
                    wait_ttl=int(wait_ttl) / 1000.0,
                    durable=_DURABLE in promises,
                    never_replicas=_NEVER_REPLICAS in promises,
                    floor=int(floor),
                    cluster=cluster,
                    evicted=int(evicted),
                    since_us=int(since),
                )
        case [form, run_id, nodes, max_ttl, ("0" | "1") as durable, floor, cluster] if (
            form == _FORMAT_BEFORE
        ):
            if all(map(_is_number, (nodes, max_ttl, floor))):
                return Marker(
                    Memory(run_id, ""),
                    int(nodes),
                    int(max_ttl) / 1000.0,
                    durable=durable == "1",
                    floor=int(floor),
                    cluster=cluster,
                    before=True,
                )
    return None


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 17


class Blank(NamedTuple):
    """A marker that says there is none.

    *latest_us*: the latest clock that was known when it was put there; *replication_id*: of the
    memory it was put into. *wait_ttl*: seconds, that of the cluster whose markers `redlock init`
    took away to mark all nodes anew; 0: of none.
    """

    latest_us: int
    replication_id: str
    wait_ttl: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a blank of today's format; None if *text* is none."""
        match text.split(" "):
            case [form, "blank", latest, own, replid, nonce] if (
                form == _FORMAT and _is_number(latest) and _is_number(own)
            ):
                before, colon, _ = nonce.partition(":")
                return cls(
                    int(latest),
                    replid,
                    int(before) / 1000.0 if colon and _is_number(before) else 0.0,
                )
        return None


def is_blank(marker: str) -> bool:
    """Whether *marker*, as it stands on a node, is none: nothing at all, or a text that says so.

    One that is not plain ASCII is none of ours, and could not be told from another by its text,
    which was decoded.
    """
    return not marker or (marker.isascii() and marker.startswith(_BLANKS))


def blank(nonce: str, identity: Identity, *, latest_us: int = 0, wait_ttl: float = 0.0) -> Mark:
    """The command that puts a blank where *identity* has its marker or none.

    Nothing is equal to nothing, also when somebody else marked, used and lost the node meanwhile.
    So a marker is never written over nothing, but over a blank that was met and waited on. The node
    finishes it with its own clock: a command that executes twice gives two texts. *latest_us*: the
    latest clock among the other nodes, as far as it is known. *wait_ttl*: of the cluster that is
    marked anew, in seconds, if one is.
    """
    replication_id = identity.memory.replication_id
    return Mark(
        expected=identity.marker,
        memory=replication_id,
        head=_BLANKS[0].rstrip(),
        stamp=f"+{latest_us}",
        tail=f"{replication_id} {f'{to_ms(wait_ttl)}:' if wait_ttl else ''}{nonce}",
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node told about itself, in one answer.

    *uptime*: seconds of its wall clock, and so perhaps negative. *promoted_at*: the offset at which
    it was promoted from a replica in this run, -1 if it never was, or if the server has forgotten
    that (an hour after its last replica left). *evicted*: keys that it evicted in this run.
    *clock*: its TIME, seconds since the epoch. *mute*: why it can queue and tell no waiter.
    """

    memory: Memory
    role: str
    cluster_mode: bool
    loading: bool
    policy: str
    uptime: float
    version: str
    marker: str
    clock: float = 0.0
    promoted_at: str = "-1"
    evicted: int = 0
    mute: str = ""

    @classmethod
    def parse(
        cls, info: Mapping[str, str], marker: str, clock: float = 0.0, mute: str = ""
    ) -> Identity:
        """Read the fields of INFO; a missing one reads as unfit."""
        try:
            uptime = float(info.get("uptime_in_seconds", "0"))
        except ValueError:
            uptime = 0.0
        evicted = info.get("evicted_keys", "0")
        return cls(
            memory=Memory(info.get("run_id", ""), info.get("master_replid", "")),
            role=info.get("role", "unknown"),
            cluster_mode=info.get("cluster_enabled", "0") != "0",
            loading=info.get("loading", "0") != "0",
            policy=info.get("maxmemory_policy", "unknown"),
            uptime=uptime,
            version=info.get("valkey_version") or info.get("redis_version", "?"),
            marker=marker,
            clock=clock,
            promoted_at=info.get("second_repl_offset", "-1"),
            evicted=int(evicted) if _is_number(evicted) else 0,
            mute=mute,
        )

    @property
    def promoted(self) -> bool:
        """Whether it was a replica in this run, as far as the server remembers: its data came by
        asynchronous replication."""
        return self.promoted_at != "-1"

    @property
    def unfit(self) -> str | None:
        """Why this node must not vote, whatever it remembers; None if nothing is wrong with it."""
        if self.role != "master":
            return f"is a {self.role}, not a master"
        if self.cluster_mode:
            return "runs in cluster mode"
        if self.policy != "noeviction":
            return f"may evict locks (maxmemory-policy {self.policy}, must be noeviction)"
        if not self.memory.run_id:
            return "gave no run id"
        return "gave no replication id" if not self.memory.replication_id else None

    @property
    def blank(self) -> bool:
        """Whether the node has no marker."""
        return is_blank(self.marker)

    def tells_the_same(self, other: Identity) -> bool:
        """Whether nothing but clocks has moved between the two."""
        return replace(self, uptime=other.uptime, clock=other.clock) == other
