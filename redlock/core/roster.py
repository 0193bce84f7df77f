"""What one client knows of each node of its list, and what only the list as a whole can tell.

`admission.py` alone writes here, when something is told. Whatever asks (`quarantine.py`,
`founding.py`, a standing) only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redlock.core.commands import to_ms
from redlock.core.identity import Blank, Identity, Marker, Memory
from redlock.core.quorum import Fault, FaultKind, majority

__all__ = ["MAX_TTL_DEFAULT", "RESTARTED", "Loss", "Record", "Roster"]

MAX_TTL_DEFAULT = 60.0
"""Seconds for which a node that forgot waits where nobody set `max_ttl`: a minute is bearable."""
RESTARTED = "it restarted"
"""How a node forgot where its uptime can tell since when."""


@dataclass(slots=True)
class Loss:
    """A node was found to have forgotten at *since* (lease clock).

    *clock*: the node's own then. *memory*, *text*, *evicted*: what it told; anything else is
    another loss, unless it was marked since. *certain*: whoever knows as much finds the same, so
    those who do not may be told, by a blank.
    """

    how: str
    since: float
    clock: float
    memory: Memory
    text: str
    evicted: int
    certain: bool


@dataclass(slots=True)
class Record:
    """What this client knows of one node.

    *seen_at*, *asked_at*: when what it told last was read, and asked for. *as_of*: what
    `Admission.changes` was then; *news*: what it was when the node last told something new.
    *trusted*: the last marker under which it was admitted. *shown*: whether it ever had a marker of
    this cluster. *life*: how many losses were found, and runs. *stranger*: how its marker was
    another cluster's. *founding*: its memory and blank at an instant at which all nodes were
    without a marker.
    """

    identity: Identity | None = None
    seen_at: float = float("-inf")
    asked_at: float = float("-inf")
    as_of: int = -1
    news: int = 0
    fault: Fault | None = None
    trusted: Marker | None = None
    shown: bool = False
    loss: Loss | None = None
    life: int = 0
    stranger: str | None = None
    founding: tuple[Memory, str] | None = None

    @property
    def marker(self) -> Marker | None:
        """The marker that it told last."""
        return Marker.parse(self.identity.marker) if self.identity is not None else None

    @property
    def has_blank(self) -> bool:
        """Whether the node has a blank that was put there in its present memory."""
        if self.identity is None:
            return False
        placed = Blank.parse(self.identity.marker)
        return placed is not None and placed.replication_id == self.identity.memory.replication_id

    def clock(self, at: float) -> float:
        """The node's wall clock at *at*, if it went on from its last look as ours did."""
        return self.identity.clock + at - self.seen_at if self.identity is not None else 0.0


class Roster:
    """The records of all nodes of one client's list, in its order.

    *ttl*, *max_ttl*, *durable*, *nonce*: as `Admission` was given them.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        ttl: float,
        max_ttl: float | None,
        durable: bool | None,
        nonce: Callable[[], str],
    ) -> None:
        self.names = names
        self.needed = majority(len(names))
        self.records = [Record() for _ in names]
        self.ttl = ttl
        self.max_ttl = max_ttl
        self.durable = durable
        self.nonce = nonce

    def others(self, node: int) -> dict[int, Record]:
        """The records of all nodes but *node*."""
        return {other: record for other, record in enumerate(self.records) if other != node}

    def twin(self, node: int, identity: Identity, since: float = float("-inf")) -> Fault | None:
        """How the server behind *node* is another node's, too.

        Two that were met apart are right in the list: what one of the names stands for cannot be
        reached just now.
        """
        trusted = self.records[node].trusted
        for other, record in enumerate(self.records):
            # An identity that was told by a node which cannot be asked now says nothing: that
            # node's server may be the one that answers here.
            if other == node or record.identity is None or record.fault is not None:
                continue
            if record.seen_at < since:
                continue
            if record.identity.memory.run_id == identity.memory.run_id != "":
                known = record.trusted
                apart = trusted and known and trusted.memory.run_id != known.memory.run_id
                kind = FaultKind.UNREACHABLE if apart else FaultKind.REFUSED
                same = f"is the same server as {self.names[other]}"
                return Fault(kind, f"{same} (run id {identity.memory.run_id})")
        return None

    def foreign(self, marker: Marker | None) -> str | None:
        """How *marker* is another cluster's; None if it is of this one."""
        if marker is None:
            return "has a marker of another format"
        if marker.nodes != len(self.names):
            theirs = f"belongs to a cluster of {marker.nodes} nodes"
            return f"{theirs}, and this list has {len(self.names)}"
        markers = (record.marker for record in self.records)
        ids = [known.cluster for known in markers if known is not None]
        common = max(sorted(set(ids)), key=ids.count, default="-")
        if marker.cluster != common and ids.count(marker.cluster) < self.needed:
            return f"belongs to cluster {marker.cluster!r}, and the others to {common!r}"
        if self.max_ttl is not None and to_ms(self.max_ttl) != to_ms(marker.max_ttl):
            theirs = f"belongs to a cluster with max_ttl={marker.max_ttl:g}"
            return f"{theirs}, and max_ttl={self.max_ttl:g} was asked for"
        if self.durable is not None and self.durable != marker.durable:
            theirs = f"belongs to a cluster with durable={marker.durable}"
            return f"{theirs}, and durable={self.durable} was asked for"
        return None

    def kin(self, node: int) -> dict[int, Marker]:
        """The markers of this cluster on the other nodes."""
        told = ((other, record.marker) for other, record in self.others(node).items())
        markers = {other: marker for other, marker in told if marker is not None}
        return {other: each for other, each in markers.items() if self.foreign(each) is None}

    def is_copy(self, node: int, marker: Marker) -> bool:
        """Whether *marker* is another node's, and so came with a copy of that one's data."""
        known = [record.identity for record in self.others(node).values()]
        run_id = marker.memory.run_id
        return any(each is not None and each.memory.run_id == run_id for each in known)

    def replaced(self) -> float:
        """The longest lock, in seconds, of a cluster that `redlock init` began to replace.

        It took the markers away and put none yet, and its blanks tell of that. 0: of none.
        """
        known = (record.identity for record in self.records)
        puts = (Blank.parse(identity.marker) for identity in known if identity is not None)
        return max((put.wait_ttl for put in puts if put is not None), default=0.0)

    def new_marker(self, identity: Identity) -> Marker:
        """That of a new cluster of these nodes, which nothing was promised for yet."""
        longest = self.max_ttl or max(MAX_TTL_DEFAULT, self.ttl)
        return Marker(identity.memory, len(self.names), longest, durable=bool(self.durable))
