"""Who may vote: the one place that decides whether a node remembers what it granted.

A lock is only as good as its nodes' memory. On every new connection a node tells its run id, role, eviction policy and
its *marker*, a key that says for which run of the server, for which cluster and with which promises it was set up. From
these `Admission` derives a `Standing`. A node that forgot (restarted, flushed, replaced, restored) does not vote until
every lock it may have forgotten has expired; a node that must not vote at all says why. Pure: time is passed in.

The eight points of the protocol, and where they are:

1. fit to vote: role, cluster mode, loading, eviction policy, the same server twice   `Identity.unfit`, `_twin`
2. the marker is the cluster's: number of nodes, id, max_ttl, durable                `_foreign`
3. admitted at once: the marker names this run, or the cluster is durable            `standing`
4. quarantine, on the client's clock, then a marker with a floor                     `_quarantine`
5. bootstrap of a new cluster                                                        `_bootstrap`
6. every write of a marker is a compare-and-set, and never from nothing              `commands.Mark`, `lua/mark.lua`, `_blank`
7. names                                                                             `names.py`
8. after a reconnect the same questions are asked again                              `transport/link.py`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache

from redlock.core.commands import Mark, to_ms
from redlock.core.quorum import Fault, FaultKind, majority

__all__ = [
    "FLOOR_AHEAD",
    "MAX_TTL_DEFAULT",
    "Admission",
    "Identity",
    "Marker",
    "Standing",
    "State",
    "blank",
    "is_blank",
    "quarantine_span",
]

MAX_TTL_DEFAULT = 60.0
FLOOR_AHEAD = 60.0
"""Seconds past a node's clock for the floor written after a quarantine: the clamp of `take.lua`, so that no token granted
before the node forgot can be beyond it."""
_FORMAT = "redlock1"
_BLANK = f"{_FORMAT} blank "


@dataclass(frozen=True, slots=True)
class Marker:
    """What the key `redlock:node` says: the cluster's promises, and the run of the server it was written for."""

    run_id: str
    nodes: int
    max_ttl: float
    durable: bool
    floor: int = 0
    cluster: str = "-"

    @classmethod
    def parse(cls, text: str) -> Marker | None:
        """Read a marker; None if *text* is not one of ours."""
        return _read(text)

    def text(self) -> str:
        """The marker as it stands on the node."""
        return f"{self.head()} {self.floor} {self.cluster}"

    def head(self) -> str:
        """All before the floor, which the node itself may have to compute."""
        return f"{_FORMAT} {self.run_id} {self.nodes} {to_ms(self.max_ttl)} {int(self.durable)}"

    def write(self, *, expected: str, floor: str | None = None) -> Mark:
        """The command that puts this marker where *expected* stands ('' for none)."""
        return Mark(expected=expected, head=self.head(), floor=floor or str(self.floor), tail=self.cluster)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node told about itself on a new connection.

    *run_id*: of its memory: with every promotion of a replica it is another one, though the process is the same. *uptime*:
    seconds of its wall clock, and so perhaps negative. *promoted*: it was a replica once in this run, so what it remembers
    came by asynchronous replication, and its uptime says nothing about when it last forgot (F28).
    """

    run_id: str
    role: str
    cluster_mode: bool
    loading: bool
    policy: str
    uptime: float
    version: str
    marker: str
    clock: float = 0.0
    promoted: bool = False

    @classmethod
    def parse(cls, info: Mapping[str, str], marker: str, clock: float = 0.0) -> Identity:
        """Read the fields of INFO; a missing one reads as unfit. *clock*: the node's TIME, seconds since the epoch."""
        try:
            uptime = float(info.get("uptime_in_seconds", "0"))
        except ValueError:
            uptime = 0.0
        run_id, promoted_at = info.get("run_id", ""), info.get("second_repl_offset", "-1")
        return cls(
            run_id=run_id if promoted_at == "-1" else f"{run_id}:{promoted_at}",
            role=info.get("role", "unknown"),
            cluster_mode=info.get("cluster_enabled", "0") != "0",
            loading=info.get("loading", "0") != "0",
            policy=info.get("maxmemory_policy", "unknown"),
            uptime=uptime,
            version=info.get("valkey_version") or info.get("redis_version", "?"),
            marker=marker,
            clock=clock,
            promoted=promoted_at != "-1",
        )

    @property
    def unfit(self) -> str | None:
        """Why this node must not vote, whatever it remembers; None if nothing is wrong with it."""
        if self.role != "master":
            return f"is a {self.role}, not a master"
        if self.cluster_mode:
            return "runs in cluster mode"
        if self.policy != "noeviction":
            return f"may evict locks (maxmemory-policy {self.policy}, must be noeviction)"
        return "gave no run id" if not self.run_id else None

    @property
    def blank(self) -> bool:
        """Whether the node has no marker."""
        return is_blank(self.marker)


class State(Enum):
    """How a node stands."""

    UNKNOWN = auto()
    """Not asked yet, or too few others have answered to tell."""
    ADMITTED = auto()
    MARK = auto()
    """A marker must be written first, or a blank."""
    QUARANTINED = auto()
    REFUSED = auto()

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a node may vote, and why not. *until*: when its quarantine ends, on the lease clock, if that is known.
    *marker*, *run_id*: of a node that is admitted, what stands on it, and the run that it is admitted as.
    """

    state: State
    fault: Fault | None = None
    until: float | None = None
    mark: Mark | None = None
    marker: str = ""
    run_id: str = ""


_UNKNOWN = Standing(State.UNKNOWN)


@lru_cache(maxsize=32)
def _read(text: str) -> Marker | None:
    # Every standing compares the markers of all nodes, and every look of a waiter asks for one while a node may not vote.
    match text.split(" "):
        case [form, run_id, nodes, max_ttl, ("0" | "1") as durable, floor, cluster] if form == _FORMAT:
            if nodes.isdecimal() and max_ttl.isdecimal() and floor.isdecimal():
                return Marker(run_id, int(nodes), int(max_ttl) / 1000.0, durable == "1", int(floor), cluster)
    return None


def is_blank(marker: str) -> bool:
    """Whether *marker*, as it stands on a node, is none: nothing at all, or the one that says so (`Admission._blank`)."""
    return not marker or marker.startswith(_BLANK)


def blank(nonce: str, *, expected: str = "", as_of: int = -1) -> Mark:
    """The command that gives a node without a marker a blank one, or asks whether that one still stands (*expected*)."""
    return Mark(expected=expected, head=_FORMAT, floor="blank", tail=nonce, as_of=as_of)


def quarantine_span(max_ttl: float) -> float:
    """Seconds until no lock of up to *max_ttl* can be valid, whoever's clock is asked: the ttl, drift, and a second."""
    return max_ttl * 1.02 + 1.0


@dataclass(slots=True)
class _Loss:
    """A node was found to have forgotten at *since* (lease clock); *key* tells one loss from the next."""

    key: tuple[str, str]
    since: float


class Admission:
    """The standing of every node of one client's list. Fed with identities and failures, asked for standings.

    *max_ttl*, *durable*: what the caller insists on; None adopts the cluster's. *ttl*: the caller's ttl, which a new
    cluster must allow. *patience*: seconds after which a node that was asked counts as absent. *nonce*: gives fresh random
    text.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        ttl: float,
        max_ttl: float | None,
        durable: bool | None,
        patience: float,
        nonce: Callable[[], str],
    ) -> None:
        self.names = names
        self.needed = majority(len(names))
        self.changes = 0
        """Grows with everything that is told: who waits for another node's answer compares it, and who founds a cluster."""
        self._ttl = ttl
        self._max_ttl = max_ttl
        self._durable = durable
        self._patience = patience
        self._nonce = nonce
        self._seen: dict[int, Identity] = {}
        self._seen_at: dict[int, float] = {}
        self._news: dict[int, int] = {}
        self._as_of: dict[int, int] = {}
        self._faults: dict[int, Fault] = {}
        self._trusted: set[int] = set()
        self._losses: dict[int, _Loss] = {}
        self._founding: dict[int, tuple[str, str]] = {}
        self._strangers: dict[int, str] = {}
        self._asked_at = float("inf")
        self._longest = max_ttl or 0.0
        self._model: Marker | None = None

    # What is told

    def asked(self, at: float) -> None:
        """The first question goes out: from now on silence counts."""
        self._asked_at = min(self._asked_at, at)

    def seen(self, node: int, identity: Identity, at: float) -> None:
        """A node told who it is."""
        self.changes += 1
        self._faults.pop(node, None)
        known = self._seen.get(node)
        if known is None or (known.run_id, known.marker) != (identity.run_id, identity.marker):
            self._news[node] = self.changes
            self._as_of[node] = -1
        self._seen[node] = identity
        self._seen_at[node] = at
        marker = Marker.parse(identity.marker)
        if marker is not None and marker.nodes == len(self.names):
            self._longest = max(self._longest, marker.max_ttl)

    def marked(self, node: int, mark: Mark, stands: str, at: float) -> None:
        """A node answered *mark*: *stands* is its marker now, whether that was written by us or, first, by somebody else."""
        known = self._seen.get(node)
        if known is not None:
            uptime = known.uptime + at - self._seen_at[node]
            self.seen(node, replace(known, marker=stands, uptime=uptime), at)
            self._as_of[node] = max(self._as_of[node], mark.as_of)

    def failed(self, node: int, fault: Fault) -> None:
        """A node could not be asked."""
        self.changes += 1
        self._faults[node] = fault
        self._founding.pop(node, None)  # Somebody else may found, use and flush it while we do not see it.

    # What follows

    def standing(self, node: int, at: float) -> Standing:
        """Whether *node* may vote at *at*, and what must be written first."""
        self.asked(at)
        fault = self._faults.get(node)
        if fault is not None:
            return Standing(State.REFUSED, fault)
        identity = self._seen.get(node)
        # Which cluster id is the common one, and whether the cluster is new, only all nodes together can tell.
        if identity is None or not self.met(at):
            return _UNKNOWN
        unfit = identity.unfit or self._twin(node, identity)
        if unfit is not None:
            return Standing(State.REFUSED, Fault(FaultKind.REFUSED, unfit))
        if identity.loading:
            return Standing(State.REFUSED, Fault(FaultKind.ERROR, "is LOADING its data"))
        if identity.blank:
            return self._unmarked(node, identity, at)
        marker = Marker.parse(identity.marker)
        foreign = self._foreign(node, marker)
        if marker is None or foreign is not None:
            self._strangers[node] = reason = foreign or "has an unreadable marker"
            return Standing(State.REFUSED, Fault(FaultKind.REFUSED, reason))
        if marker.run_id == identity.run_id:
            self._trusted.add(node)
            self._strangers.pop(node, None)
            self._founding.pop(node, None)  # A marker that stood and is gone is a loss, also for who founded the cluster.
            self._model = marker
            self._losses.pop(node, None)
            return Standing(State.ADMITTED, marker=identity.marker, run_id=identity.run_id)
        renewed = replace(marker, run_id=identity.run_id)
        if marker.durable and not identity.promoted:  # It declares that a marked node has its data.
            return Standing(State.MARK, mark=renewed.write(expected=identity.marker))
        return self._quarantine(node, identity, renewed, at)

    def problem(self, since: float = float("-inf")) -> str | None:
        """What makes the whole list unusable: the same server twice, as a node told after *since*. None if nothing does."""
        for node, identity in self._seen.items():
            twin = self._twin(node, identity) if self._seen_at[node] >= since else None
            if twin is not None:
                return f"{self.names[node]} {twin}"
        return None

    def out_of_reach(self, at: float, since: float = float("-inf")) -> str | None:
        """Why no majority can ever vote as things are configured, naming each node; None if one could.

        Of what nodes told of themselves only what came after *since* counts: somebody may have mended it meanwhile. One
        without a marker is refused for what the others told, so that must be as new.
        """
        new = {node for node, seen_at in self._seen_at.items() if seen_at >= since}
        told = self._faults.keys() | {node for node in new if not self._seen[node].blank or new == self._seen.keys()}
        faults = [(node, self.standing(node, at).fault) for node in sorted(told)]
        reasons = [
            f"{self.names[node]} {fault.detail}"
            for node, fault in faults
            if fault is not None and fault.kind is FaultKind.REFUSED
        ]
        return "; ".join(reasons) if len(self.names) - len(reasons) < self.needed else None

    def max_ttl(self) -> float | None:
        """Longest ttl that a majority of the nodes accepts, as far as their markers are known."""
        stated = sorted((marker.max_ttl for marker in self._markers().values()), reverse=True)
        if len(stated) >= self.needed:
            return stated[self.needed - 1]
        return self._max_ttl

    @property
    def acquainted(self) -> bool:
        """Whether it has met a node of a cluster, its own or another: who has, takes none for a new one again."""
        return bool(self._trusted or self._strangers)

    def outdated(self, node: int) -> bool:
        """Whether *node* is to be asked again: what it told is older than the loss of another one."""
        if not self._losses or node in self._faults or node not in self._seen_at:
            return False
        return any(self._seen_at[node] < loss.since for other, loss in self._losses.items() if other != node)

    def identity(self, node: int) -> Identity | None:
        """What *node* told last."""
        return self._seen.get(node)

    def marker(self, node: int) -> Marker | None:
        """The marker of *node*, if it told one."""
        identity = self._seen.get(node)
        return Marker.parse(identity.marker) if identity is not None else None

    def met(self, at: float) -> bool:
        """Whether every node has answered or failed, or had the time to."""
        return len(self._seen.keys() | self._faults.keys()) == len(self.names) or at >= self._asked_at + self._patience

    # How

    def _twin(self, node: int, identity: Identity) -> str | None:
        for other, known in self._seen.items():
            if other != node and known.run_id == identity.run_id and identity.run_id:
                return f"is the same server as {self.names[other]} (run id {identity.run_id})"
        return None

    def _foreign(self, node: int, marker: Marker | None) -> str | None:
        if marker is None:
            return "has a marker of another format"
        if marker.nodes != len(self.names):
            return f"belongs to a cluster of {marker.nodes} nodes, and this list has {len(self.names)}"
        ids = [known.cluster for known in self._markers().values()]
        common = max(sorted(set(ids)), key=ids.count, default="-")
        if marker.cluster != common and ids.count(marker.cluster) < self.needed:
            return f"belongs to cluster {marker.cluster!r}, and the others to {common!r}"
        if self._max_ttl is not None and to_ms(self._max_ttl) != to_ms(marker.max_ttl):
            return f"belongs to a cluster with max_ttl={marker.max_ttl:g}, and max_ttl={self._max_ttl:g} was asked for"
        if self._durable is not None and self._durable != marker.durable:
            return f"belongs to a cluster with durable={marker.durable}, and durable={self._durable} was asked for"
        return None

    def _markers(self, but: int = -1) -> dict[int, Marker]:
        parsed = {node: Marker.parse(identity.marker) for node, identity in self._seen.items() if node != but}
        return {node: marker for node, marker in parsed.items() if marker is not None}

    def _unmarked(self, node: int, identity: Identity, at: float) -> Standing:
        if self._founding.get(node) == (identity.run_id, identity.marker):
            return Standing(State.MARK, mark=self._new_marker(identity).write(expected=identity.marker))
        others = self._markers(but=node)
        if not others and not self._trusted:
            return self._bootstrap(node, at)
        kin = [others[other] for other in sorted(others) if self._foreign(other, others[other]) is None]
        if others and not kin:  # To mark it like them, or like our wrong list, would draw it out of its own cluster.
            return Standing(State.REFUSED, Fault(FaultKind.REFUSED, "has no marker, and no other node is of this cluster"))
        if not identity.marker:
            return self._blank(identity)
        model = kin[0] if kin else self._model or self._new_marker(identity)
        longest = max([self._longest, *(marker.max_ttl for marker in kin)])
        return self._quarantine(node, identity, replace(model, run_id=identity.run_id, max_ttl=longest), at)

    def _quarantine(self, node: int, identity: Identity, marker: Marker, at: float) -> Standing:
        """The node forgot: it votes again once every lock it may have forgotten has expired on our clock."""
        key = (identity.run_id, identity.marker)
        loss = self._losses.get(node)
        if loss is None or loss.key != key:
            since = at
            never_seen = loss is None and node not in self._trusted
            if not identity.blank and never_seen and not identity.promoted and identity.uptime > 0:
                # Only the first time we see it, and only for a restart: a flush leaves no trace in the uptime.
                since = at - identity.uptime
            loss = self._losses[node] = _Loss(key, since)
            self.changes += 1  # The others are asked again: `outdated`.
        others = self._markers(but=node)
        span = quarantine_span(max(marker.max_ttl, self._longest))
        until = loss.since + span
        how = "its marker is gone" if identity.blank else "it was a replica" if identity.promoted else "it restarted"
        told = f"forgot its locks ({how}) and is in quarantine"
        if len(others) < min(self.needed, len(self.names) - 1) and len(self._seen) < len(self.names):
            # A node that has not told yet may know of a longer max_ttl. When all have, and a majority forgot, the promise
            # of those that are left must do, or nobody would ever vote again.
            return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, f"{told} until the other nodes have answered"))
        if at < until:
            detail = f"{told}: it votes again in {until - at:.1f} s"
            return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail), until)
        # The largest max_ttl may have been raised while we saw nobody but this node.
        asked = sum(
            other not in self._faults and told_at >= loss.since for other, told_at in self._seen_at.items() if other != node
        )
        if asked < self.needed - 1:
            detail = f"{told} until a majority has told that max_ttl was not raised meanwhile"
            return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail))
        floor = f"+{round(FLOOR_AHEAD * 1e6)}"
        return Standing(State.MARK, mark=marker.write(expected=identity.marker, floor=floor))

    def _bootstrap(self, node: int, at: float) -> Standing:
        """No node has a marker: a new cluster, unless all of them forgot just now."""
        for stranger, was in self._strangers.items():  # Flushed since then: our list is wrong, or the cluster is not new.
            # No advice to run `redlock init`: for a wrong list that would found the second cluster all the same.
            detail = f"has no marker, and {self.names[stranger]} had another cluster's: it {was}"
            return Standing(State.REFUSED, Fault(FaultKind.REFUSED, detail))
        if not self._seen[node].marker:
            return self._blank(self._seen[node])
        unmarked = {
            other: identity
            for other, identity in self._seen.items()
            if identity.blank and not (identity.unfit or identity.loading or other in self._faults or self._twin(other, identity))
        }
        if len(unmarked) < self.needed:
            answered = f"{len(unmarked)} of {len(self.names)} nodes answered"
            detail = f"has no marker, and only {answered}: too few to tell a new cluster from one that forgot"
            return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail))
        span = quarantine_span(self._new_marker(self._seen[node]).max_ttl)
        until = max(self._seen_at[other] + span - max(0.0, identity.uptime) for other, identity in unmarked.items())
        if at < until and not self._durable:
            # No advice to run `redlock init` here: a cluster that restarted as a whole and forgot looks the same.
            detail = f"has no marker yet, as in a new cluster: it grants locks in {until - at:.1f} s"
            return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail), until)
        # That none has a marker must have been so at one instant: each is asked once more after the last blank was met.
        # Else one that somebody else founded, used and lost meanwhile would meet what the others told before that.
        last = max(self._news[other] for other in unmarked)
        if self._as_of[node] < last:
            return self._blank(self._seen[node])
        if any(self._as_of[other] < last for other in unmarked):
            return _UNKNOWN
        # All of them now: once the first is marked, the others would look as if they had forgotten.
        self._founding = {other: (identity.run_id, identity.marker) for other, identity in unmarked.items()}
        return Standing(State.MARK, mark=self._new_marker(self._seen[node]).write(expected=self._seen[node].marker))

    def _blank(self, identity: Identity) -> Standing:
        """Give a node without a marker one that says so and is like no other, or ask whether that one still stands.

        A marker is then written where this very blank stands, and so only where nothing was lost since we met it: nothing
        is equal to nothing, also when somebody else marked, used and lost the node meanwhile.
        """
        nonce = identity.marker[len(_BLANK) :] or self._nonce()
        return Standing(State.MARK, mark=blank(nonce, expected=identity.marker, as_of=self.changes))

    def _new_marker(self, identity: Identity) -> Marker:
        longest = self._max_ttl or max(MAX_TTL_DEFAULT, self._ttl, self._longest)
        return Marker(identity.run_id, len(self.names), longest, bool(self._durable))
