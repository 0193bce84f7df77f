"""Who may vote: the one place that decides whether a node remembers what it granted.

A lock is only as good as its nodes' memory. Every look at a node (`lua/look.lua`) tells in one answer who it is and what
its *marker* says; from all nodes' looks `Admission` derives each one's `Standing`. A node that forgot does not vote until
every lock it may have forgotten has expired; a node that must not vote at all says why. Pure: time is passed in.

What it knows of a node is one `_Record`. Records change only when something is told (`seen`, `marked`, `failed`);
`standing` is a question, and writes nothing. The rules (docs/protocol.md 7), and where they are:

1. a memory votes, not a server and not a text        `Identity.memory`, `Marker.names`; compared again in every script that votes
2. anything else is a loss, but for what is promised  `_how_lost`, `_goes_on`
3. who forgot waits, and then gets a floor            `_quarantine`, `_floor`
4. a client that met the newer does not go back       `_how_returned`, `_judge`, `_put_blank`
5. a quarantine waits by the others' `wait_ttl`       `_until`; raised by `initialise.py` before `max_ttl` is
6. a cluster is founded by all its nodes together     `_unmarked`, `_confirmed`; no vote before a majority is: `standing`
7. this is the only truth                             `changes`, `life`; `transport/link.py: Link._may_vote`, `_counts`

Besides: fit to vote (`Identity.unfit`, `_twin`), of this cluster (`_foreign`), names (`names.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from redlock.core.commands import Mark, to_ms
from redlock.core.identity import Blank, Identity, Marker, Memory, blank
from redlock.core.quorum import Fault, FaultKind, majority

__all__ = ["FLOOR_AHEAD", "MAX_TTL_DEFAULT", "Admission", "Standing", "State", "quarantine_span"]

MAX_TTL_DEFAULT = 60.0
FLOOR_AHEAD = 60.0
"""Seconds past the other nodes' clocks for the floor written after a quarantine: the clamp of `take.lua`, so that no token
granted before the node forgot can be beyond it."""
PAST_MAX = 32
"""Memories for each name that are kept as met before the present ones. An older one comes back with a lower floor anyway; the
list is for those that no quarantine lay between."""
_GREW, _RESTARTED, _GONE = "it evicted keys", "it restarted", "its marker is gone"
_PROMOTED = "it was a replica, and was promoted"
_RESTARTED_OR_PROMOTED = "it restarted, or was a replica and was promoted"
_RENAMED = "its replication id changed: it was promoted, or a replica or a backup came or left"
_ROLLED_BACK = "an older marker came back under its name"
_RETURNED = "an older memory came back under its name"
_UNPLACED = "its marker was written while we did not see it"


class State(Enum):
    """How a node stands."""

    UNKNOWN = auto()
    """Not asked yet, or too few others have answered to tell: a vote waits."""
    ADMITTED = auto()
    MARK = auto()
    """A marker must be written first, or a blank."""
    QUARANTINED = auto()
    REFUSED = auto()

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a node may vote, and why not. *until*: when its quarantine ends, on the lease clock, if that is known.
    *marker*, *memory*: of a node that is admitted, what stands on it, and what it is admitted as. *redial*: another connection
    may lead to another server, as this one need not be where the node's name leads to by now.
    """

    state: State
    fault: Fault | None = None
    until: float | None = None
    mark: Mark | None = None
    marker: str = ""
    memory: Memory | None = None
    redial: bool = False

    @property
    def barred(self) -> bool:
        """Whether the node is known to have no vote, also if it gives one: no script sees that it evicted keys."""
        if self.state is State.MARK:
            return self.mark is not None and self.mark.is_blank
        return self.state in (State.QUARANTINED, State.REFUSED)


_UNKNOWN = Standing(State.UNKNOWN)


def quarantine_span(max_ttl: float) -> float:
    """Seconds until no lock of up to *max_ttl* can be valid, whoever's clock is asked: the ttl, drift, and a second."""
    return max_ttl * 1.02 + 1.0


@dataclass(slots=True)
class _Loss:
    """A node was found to have forgotten at *since* (lease clock).

    *clock*: the node's own then. *memory*, *text*, *evicted*: what it told; anything else is another loss, unless it was
    marked since. *certain*: whoever knows as much finds the same, so those who do not may be told, by a blank.
    """

    how: str
    since: float
    clock: float
    memory: Memory
    text: str
    evicted: int
    certain: bool


@dataclass(slots=True)
class _Record:
    """What this client knows of one node.

    *seen_at*, *asked_at*: when what it told last was read, and asked for. *as_of*: what `Admission.changes` was then; *news*:
    what it was when the node last told something new. *trusted*: the last marker under which it was admitted. *shown*:
    whether it ever had a marker of this cluster. *life*: how many losses were found, and runs. *stranger*: how its marker was
    another cluster's. *founding*: its memory and blank at an instant at which all nodes were without a marker.
    """

    identity: Identity | None = None
    seen_at: float = float("-inf")
    asked_at: float = float("-inf")
    as_of: int = -1
    news: int = 0
    fault: Fault | None = None
    trusted: Marker | None = None
    shown: bool = False
    loss: _Loss | None = None
    life: int = 0
    stranger: str | None = None
    founding: tuple[Memory, str] | None = None

    @property
    def marker(self) -> Marker | None:
        return Marker.parse(self.identity.marker) if self.identity is not None else None

    def clock(self, at: float) -> float:
        """The node's wall clock at *at*, if it went on from its last look as ours did."""
        return self.identity.clock + at - self.seen_at if self.identity is not None else 0.0


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
        """Grows whenever something is told that may change a standing: a vote is written only as of the newest."""
        self._ttl = ttl
        self._max_ttl = max_ttl
        self._durable = durable
        self._patience = patience
        self._nonce = nonce
        self._records = [_Record() for _ in names]
        self._past: deque[Memory] = deque(maxlen=PAST_MAX * len(names))
        self._listed: dict[Memory, Marker | None] = {}
        self._asked_at = float("inf")

    # What is told

    def asked(self, at: float) -> None:
        """The first question goes out: from now on silence counts."""
        self._asked_at = min(self._asked_at, at)

    def seen(self, node: int, identity: Identity, at: float, *, asked_at: float | None = None, as_of: int | None = None) -> None:
        """A node told who it is, asked at *asked_at*, when `changes` was *as_of*."""
        record, before = self._records[node], self._records[node].identity
        asked_at = at if asked_at is None else asked_at
        if asked_at < record.asked_at:
            return  # An answer that waited unread on an idle connection while another one was told what came after it.
        self._hold_founding()
        same = before is not None and record.fault is None and before.tells_the_same(identity)
        record.identity, record.seen_at, record.fault = identity, at, None
        record.asked_at = asked_at
        record.as_of = self.changes if as_of is None else as_of
        if same and self._settled:
            return
        self.changes += 1
        if not same:
            record.news = self.changes
        if before is not None and before.memory != identity.memory:
            # In the same run it is a loss, which counts by itself, or promised to be none.
            record.life += before.memory.run_id != identity.memory.run_id
            moved = any(other.identity is not None and other.identity.memory == before.memory for other in self._records)
            if identity.memory not in self._listed and not moved:
                self._past.append(before.memory)
        for each in range(len(self.names)):
            self._judge(each, at)
        self._list()

    def marked(self, node: int, mark: Mark, stands: str, at: float, *, asked_at: float | None = None) -> None:
        """A node answered *mark*, sent at *asked_at*: *stands* is its marker, written by us or, first, by somebody else."""
        record = self._records[node]
        known, loss = record.identity, record.loss
        asked_at = at if asked_at is None else asked_at
        if known is None or asked_at < record.asked_at:  # Nothing is written on a node that never said who it is.
            return
        if loss is not None and known.marker == loss.text == mark.expected and mark.wrote(stands):
            # Ours, over the very text that we wait on. A marker: the wait is over. A blank: it begins here, as the nothing that
            # we met may have been another one, marked, used and lost while the command was on its way.
            if mark.is_blank:
                loss.text, loss.since = stands, at
            else:
                self._end_loss(record, known.memory)
        identity = replace(known, marker=stands, uptime=known.uptime + at - record.seen_at, clock=record.clock(at))
        self.seen(node, identity, at, asked_at=asked_at, as_of=record.as_of)

    def failed(self, node: int, fault: Fault) -> None:
        """A node could not be asked."""
        self._hold_founding()
        self.changes += 1
        self._records[node].fault = fault

    # What follows

    def standing(self, node: int, at: float) -> Standing:
        """Whether *node* may vote at *at*, and what must be written first. Writes nothing."""
        record = self._records[node]
        if record.fault is not None:
            return Standing(State.REFUSED, record.fault)
        identity = record.identity
        # Which cluster id is the common one, and whether the cluster is new, only all nodes together can tell.
        if identity is None or not self.met(at):
            return _UNKNOWN
        twin = self._twin(node, identity)
        if identity.unfit:
            return replace(_refused(identity.unfit), redial=twin is not None)
        if twin is not None:
            return Standing(State.REFUSED, twin, redial=True)
        if identity.loading:
            return Standing(State.REFUSED, Fault(FaultKind.ERROR, "is LOADING its data"))
        marker = record.marker
        if not identity.blank:
            foreign = self._foreign(marker)
            if marker is None or foreign is not None:
                return _refused(foreign or "has an unreadable marker")
        if record.loss is not None:
            return self._quarantine(node, record, identity, record.loss, at)
        if marker is None:
            return self._unmarked(node, record, identity, at)
        if not _is_up_to_date(marker, identity):  # `_judge` found that it goes on, or there would be a loss.
            return Standing(State.MARK, mark=marker.written_for(identity).write(identity))
        if sum(each.shown for each in self._records) < self.needed:
            # While a cluster is founded, the first nodes have their markers and the others none. Should the first one forget
            # then, all nodes look new again, and are founded anew: that must not happen after a vote was given.
            held = "is not asked before a majority of the nodes has shown a marker"
            return Standing(State.UNKNOWN, Fault(FaultKind.SILENT, held))
        return Standing(State.ADMITTED, marker=identity.marker, memory=identity.memory)

    def problem(self, since: float = float("-inf")) -> str | None:
        """What makes the whole list unusable: the same server twice, as both nodes told after *since*. None if nothing does.

        What one of them told before may be over: an address that led there for a while, and is back. And a list whose nodes
        were met apart is right, wherever one of its names leads for a while.
        """
        for node, record in enumerate(self._records):
            if record.identity is not None and record.fault is None and record.seen_at >= since:
                twin = self._twin(node, record.identity, since)
                if twin is not None and twin.kind is FaultKind.REFUSED:
                    return f"{self.names[node]} {twin.detail}"
        return None

    def out_of_reach(self, at: float, since: float = float("-inf")) -> str | None:
        """Why no majority can ever vote as things are configured, naming each node; None if one could.

        Of what nodes told of themselves only what came after *since* counts: somebody may have mended it meanwhile. One
        without a marker is refused for what the other nodes told, so then all of that must have come after *since*.
        """
        seen = {node: record for node, record in enumerate(self._records) if record.identity is not None}
        new = {node for node, record in seen.items() if record.seen_at >= since}
        told = {node for node, record in enumerate(self._records) if record.fault is not None}
        told |= {node for node in new if (known := seen[node].identity) is not None and (not known.blank or new == seen.keys())}
        faults = [(node, self.standing(node, at).fault) for node in sorted(told)]
        reasons = [
            f"{self.names[node]} {fault.detail}"
            for node, fault in faults
            if fault is not None and fault.kind is FaultKind.REFUSED
        ]
        return "; ".join(reasons) if len(self.names) - len(reasons) < self.needed else None

    def max_ttl(self) -> float | None:
        """Longest ttl that a majority of the nodes accepts, as far as their markers are known."""
        markers = (record.marker for record in self._records)
        stated = sorted((marker.max_ttl for marker in markers if marker is not None), reverse=True)
        if len(stated) >= self.needed:
            return stated[self.needed - 1]
        return self._max_ttl

    @property
    def acquainted(self) -> bool:
        """Whether it has met a node of a cluster, its own or another: who has, takes none for a new one again."""
        return any(record.trusted is not None or record.stranger is not None for record in self._records)

    def outdated(self, node: int) -> bool:
        """Whether *node* is to be asked again: what it told is older than another one's loss, or than the last blank."""
        record = self._records[node]
        if record.fault is not None or record.identity is None:
            return False
        losses = (other.loss for other in self._records if other is not record)
        if any(loss is not None and record.asked_at < loss.since for loss in losses):
            return True
        return self._all_blank() and record.as_of < max(other.news for other in self._records)

    def life(self, node: int) -> int:
        """Grows with every loss of *node*, and every other server: a vote from before may be an older memory's that is back."""
        return self._records[node].life

    def identity(self, node: int) -> Identity | None:
        """What *node* told last."""
        return self._records[node].identity

    def marker(self, node: int) -> Marker | None:
        """The marker of *node*, if it told one."""
        return self._records[node].marker

    def met(self, at: float) -> bool:
        """Whether every node has answered or failed, or had the time to."""
        known = all(record.identity is not None or record.fault is not None for record in self._records)
        return known or at >= self._asked_at + self._patience

    # What a look says of a node's memory

    @property
    def _settled(self) -> bool:
        """Whether nobody waits for another look of a node: no loss, and no cluster to be founded."""
        return all(record.loss is None and record.trusted is not None for record in self._records if record.fault is None)

    def _judge(self, node: int, at: float) -> None:
        """Trust what *node* told last, or note its loss."""
        record = self._records[node]
        identity, marker = record.identity, record.marker
        if identity is None or record.fault is not None or identity.loading or identity.unfit or self._twin(node, identity):
            return
        if identity.blank:
            founding = record.founding == (identity.memory, identity.marker)
            if record.trusted is not None or (self._kin(node) and not founding):
                self._lose(record, _how_gone(record.trusted, identity), at, certain=False)
            return
        foreign = self._foreign(marker)
        if marker is None or foreign is not None:
            record.stranger = foreign or "has an unreadable marker"
            return
        record.shown = True
        loss = record.loss
        if loss is not None:
            if marker.names(identity) and loss.memory == identity.memory and marker.since_us > loss.clock * 1e6:
                # Marked since we saw it, by one who waited, or by the founder: the node's own clock says so.
                self._end_loss(record, identity.memory)
            else:
                self._lose(record, _UNPLACED, at, certain=False)
                return
        how = self._how_returned(record, identity, marker) or self._how_lost(node, identity, marker)
        if how is not None:
            # Another server may have answered for a moment, and to this client alone: then it waits alone as well.
            self._lose(record, how, at, certain=how != _RETURNED)
        elif marker.names(identity):
            record.trusted, record.stranger, record.founding = marker, None, None

    def _lose(self, record: _Record, how: str, since: float, *, certain: bool) -> None:
        identity, loss = record.identity, record.loss
        assert identity is not None
        told = (identity.memory, identity.marker, identity.evicted)
        if loss is None or (loss.memory, loss.text, loss.evicted) != told:
            record.loss = _Loss(how, since, identity.clock, *told, certain)
            record.life += 1
            self.changes += 1

    def _end_loss(self, record: _Record, memory: Memory) -> None:
        """The wait is over, and *memory* is the node's present one: an older one that came back is no older one any more."""
        record.loss = None
        while memory in self._past:
            self._past.remove(memory)

    def _list(self) -> None:
        """Note which memories the names lead to; one that none of them leads to any more is past.

        Names that swap their servers, as addresses do, make none of them an older one: so nothing is noted while a memory has
        been met under its new name and not yet been missed under the old.
        """
        present = [(record.loss or record.trusted, record.trusted) for record in self._records]
        known = [(now.memory, trusted) for now, trusted in present if now is not None]
        listed = {memory: trusted if trusted is not None and trusted.memory == memory else None for memory, trusted in known}
        if len(listed) == len(known):
            self._past.extend(memory for memory in self._listed if memory not in listed)
            self._listed = listed

    def _how_returned(self, record: _Record, identity: Identity, marker: Marker) -> str | None:
        """Why this cannot follow what was known under the name before; None if it can (rule 4)."""
        known = record.trusted
        if known is None or known.memory != identity.memory:
            known = self._listed.get(identity.memory) or known  # It moved here from another name.
        # Marked anew since then, by the nodes' clocks: `redlock init --replace` may lower what was promised.
        if known is not None and not (marker.floor > known.floor and marker.since_us > known.since_us):
            lower = marker.floor < known.floor or marker.max_ttl < known.max_ttl or marker.wait_ttl < known.wait_ttl
            if lower or marker.cluster != known.cluster or marker.before > known.before:
                return _ROLLED_BACK
        return _RETURNED if identity.memory in self._past else None

    def _how_lost(self, node: int, identity: Identity, marker: Marker) -> str | None:
        """How the node forgot what it had under *marker*; None if it did not (rules 1 and 2)."""
        if marker.names(identity):
            return _GREW if not marker.before and identity.evicted > marker.evicted else None
        if self._goes_on(node, identity, marker):
            return None
        if marker.memory.run_id == identity.memory.run_id:
            return _how_renamed(identity)
        # A server that was backed up and restarts from a snapshot shows the offset of a promotion as well.
        return _RESTARTED_OR_PROMOTED if identity.promoted else _RESTARTED

    def _goes_on(self, node: int, identity: Identity, marker: Marker) -> bool:
        """Whether it is promised that a memory with another name is the one that was marked (rule 2)."""
        if identity.promoted:
            return False
        if marker.memory.run_id == identity.memory.run_id and not marker.before:
            # A replica or a backup came or left. That it was no promotion only the operator can know.
            return marker.never_replicas and identity.evicted <= marker.evicted
        # In a run that had a marker of its own already, older data came by something else than its restart.
        known = self._records[node].trusted
        began = known is None or known.memory.run_id != identity.memory.run_id
        return marker.durable and began and not self._is_copy(node, marker)

    def _is_copy(self, node: int, marker: Marker) -> bool:
        """Whether the marker is another node's, and so came with a copy of that one's data."""
        others = (record.identity for other, record in enumerate(self._records) if other != node)
        return any(identity is not None and identity.memory.run_id == marker.memory.run_id for identity in others)

    # Quarantine

    def _quarantine(self, node: int, record: _Record, identity: Identity, loss: _Loss, at: float) -> Standing:
        """The node forgot: it votes again once every lock it may have forgotten has expired on our clock (rule 3)."""
        told = f"forgot its locks ({loss.how}) and is in quarantine"
        others = {other: record for other, record in enumerate(self._records) if other != node}
        asked = {other for other, each in others.items() if each.fault is None and each.identity and each.asked_at >= loss.since}
        kin = self._kin(node)
        informed = [others[other] for other in asked if other in kin and others[other].loss is None]
        wanted = self.needed - 1
        if identity.blank and not kin and any(each.identity and not each.identity.blank for each in others.values()):
            # To mark it like them, or like our wrong list, would draw it out of its own cluster.
            return _refused("has no marker, and no other node is of this cluster")
        if identity.blank:
            if not _has_blank(record):
                return self._put_blank(node, identity, at)
        elif loss.certain and informed and len(informed) >= wanted:
            # Others may not know yet, and must not vote with what stands there. Its promises stand on the other nodes.
            return self._put_blank(node, identity, at)
        # When all nodes have told, and a majority forgot, the promise of those that are left must do, or nobody would vote again.
        all_told = len(asked) == len(others)
        until, promises = self._until(node, loss, informed, [*kin.values()], at, all_told=all_told)
        if at < until:
            return _quarantined(f"{told}: it votes again in {until - at:.1f} s", until)
        # What a quarantine has to wait for may have been raised while we saw nobody but this node (rule 5).
        if len(informed) < wanted and not all_told:
            return _quarantined(f"{told} until a majority has told that max_ttl was not raised meanwhile")
        new = replace(
            promises[0],
            memory=identity.memory,
            evicted=identity.evicted,
            max_ttl=max(each.max_ttl for each in promises),
            wait_ttl=max(each.wait_ttl for each in promises),
            floor=self._floor(node, {other: others[other] for other in asked}, at),
            since_us=0,
            before=False,
        )
        return Standing(State.MARK, mark=new.write(identity))

    def _until(
        self, node: int, loss: _Loss, informed: Sequence[_Record], kin: Sequence[Marker], at: float, *, all_told: bool
    ) -> tuple[float, list[Marker]]:
        """When the wait is over, and the markers whose promises the node gets."""
        record = self._records[node]
        identity, marker = record.identity, record.marker
        assert identity is not None
        known = [each for each in (record.trusted, marker) if each is not None]
        promises = [*kin, *known] or [self._new_marker(identity)]
        span = quarantine_span(max(each.wait_ttl for each in promises))
        until = loss.since + span
        if record.trusted is not None:
            return until, promises
        # A client that never knew the node may count from when the blank was put there: by the latest clock then, and by the
        # earliest now, so that no single clock which is wrong, or is put right, ends the wait too early.
        placed = Blank.parse(identity.marker)
        if placed is not None and len(informed) >= self.needed - 1:
            waited = min(each.clock(at) for each in (record, *informed)) - placed.latest_us / 1e6
            until = min(until, at + span - waited)
        # Where a majority forgot no blank is put, lest the last promise goes with it. Then it may count from the restart: that
        # the data are no copy which came later, while everything else that knew better was lost, is taken for granted.
        restarted = marker is not None and not identity.promoted and not self._is_copy(node, marker)
        blankless = all_told and len(informed) < max(self.needed - 1, 1)
        if blankless and restarted and loss.how == _RESTARTED and identity.uptime > 0:
            until = min(until, record.seen_at - identity.uptime + span)
        return until, promises

    def _floor(self, node: int, asked: Mapping[int, _Record], at: float) -> int:
        """What every token must be beyond that is granted after a loss: as far as a token can have been granted before.

        A majority that granted one had, besides this node, `needed - 1` others, each of which took no token that was far ahead
        of its clock. So the clock that many of the others are not behind will do: one that is wrong decides nothing. Of each
        that cannot be asked it is assumed that it was among them. If all of them can have been, the node's own clock counts
        as well, which went on since then unless the machine restarted: but no more than `FLOOR_AHEAD` past the latest other.
        """
        clocks = sorted((each.clock(at) for each in asked.values()), reverse=True)
        own = self._records[node].clock(at)
        known = self.needed - 1 - (len(self.names) - 1 - len(clocks))
        latest = own
        if clocks:
            latest = clocks[known - 1] if known > 0 else max(clocks[0], min(own, clocks[0] + FLOOR_AHEAD))
        record = self._records[node]
        floors = [each.floor for each in (record.trusted, record.marker) if each is not None]
        return max([round((latest + FLOOR_AHEAD) * 1e6), *floors])

    def _put_blank(self, node: int, identity: Identity, at: float) -> Standing:
        others = [record for other, record in enumerate(self._records) if other != node and record.fault is None]
        latest = max([record.clock(at) for record in others if record.identity is not None], default=0.0)
        put = blank(self._nonce(), identity, latest_us=round(latest * 1e6), wait_ttl=self._replaced())
        return Standing(State.MARK, mark=put)

    # A new cluster

    def _unmarked(self, node: int, record: _Record, identity: Identity, at: float) -> Standing:
        """A node without a marker that is no loss: of a new cluster, which all of its nodes found together (rule 6)."""
        for other, known in enumerate(self._records):
            if known.stranger is not None:  # Flushed since then: our list is wrong, or the cluster is not new.
                # No advice to run `redlock init`: for a wrong list that would found the second cluster all the same.
                return _refused(f"has no marker, and {self.names[other]} had another cluster's: it {known.stranger}")
        kin = self._kin(node)
        if kin and record.founding == (identity.memory, identity.marker):
            return Standing(State.MARK, mark=_founded(identity, next(iter(kin.values()))).write(identity))
        if any(other.identity is not None and other.identity.marker and not other.identity.blank for other in self._records):
            return _refused("has no marker, and no other node is of this cluster")
        if not _has_blank(record):
            return self._put_blank(node, identity, at)
        absent = self._absent(at)
        if absent is not None:
            return _quarantined(f"has no marker: {absent}")
        model = self._new_marker(identity)
        replaced = self._replaced()
        until = self._founded_at(quarantine_span(max(model.max_ttl, replaced)), at, by_uptime=not replaced)
        if at < until and not (self._durable and not replaced):
            if replaced:
                told = "has no marker, as `redlock init --replace` has not ended: run it again, or it grants locks"
                return _quarantined(f"{told} in {until - at:.1f} s", until)
            # No advice to run `redlock init` here: a cluster that restarted as a whole and forgot looks the same.
            return _quarantined(f"has no marker yet, as in a new cluster: it grants locks in {until - at:.1f} s", until)
        # The node of the smallest memory goes first. Its compare-and-set decides whose promises all of them get.
        first = min(self._records, key=lambda each: each.identity.memory if each.identity is not None else Memory("", ""))
        if not self._confirmed() or first is not record:
            return _UNKNOWN
        if replaced or len(self._records) == 1:  # Not new: or not, perhaps, but flushed, and no other node has a fence.
            others = {other: each for other, each in enumerate(self._records) if other != node}
            model = replace(model, floor=self._floor(node, others, at))
        return Standing(State.MARK, mark=_founded(identity, model).write(identity))

    def _absent(self, at: float) -> str | None:
        """Why not all nodes can found a cluster now, and what would help; None if they can."""
        for node, record in enumerate(self._records):
            name, identity = self.names[node], record.identity
            if record.fault is not None or identity is None:
                return f"the cluster is new and {name} cannot be asked: start it, or run `redlock init`"
            twin = self._twin(node, identity)
            unfit = identity.unfit or (twin and twin.detail) or ("is LOADING its data" if identity.loading else None)
            if unfit is not None:
                return f"the cluster is new and {name} {unfit}"
        return None

    def _replaced(self) -> float:
        """The longest lock, in seconds, of a cluster whose markers `redlock init` took away and has not replaced; 0: of none."""
        identities = (record.identity for record in self._records)
        puts = (Blank.parse(identity.marker) for identity in identities if identity is not None)
        return max((put.wait_ttl for put in puts if put is not None), default=0.0)

    def _founded_at(self, span: float, at: float, *, by_uptime: bool) -> float:
        """When no lock can be left that the nodes forgot, should they all have forgotten: by their uptime, or their blanks.

        One node alone needs only be flushed to look new, without any restart, so its uptime says nothing. Nor does it where
        `redlock init` broke off: the nodes had markers, and granted locks, until it put its blanks there.
        """
        until = at + span
        if by_uptime and len(self._records) > 1:
            until = max(record.seen_at + span - max(0.0, record.identity.uptime) for record in self._records if record.identity)
        puts = [put for record in self._records if record.identity and (put := Blank.parse(record.identity.marker))]
        if len(puts) == len(self._records):
            waited = min(record.clock(at) for record in self._records) - max(put.latest_us for put in puts) / 1e6
            until = min(until, at + span - waited)
        return until

    def _all_blank(self) -> bool:
        """Whether every node answers, and has a blank of today's format."""
        return all(record.fault is None and _has_blank(record) for record in self._records)

    def _confirmed(self) -> bool:
        """Whether all nodes were without a marker at one instant: each was asked once more after the last blank was met.

        Else a node that somebody else founded, used and lost meanwhile would meet what the others told before that.
        """
        last = max(record.news for record in self._records)
        return self._all_blank() and all(record.as_of >= last for record in self._records)

    def _hold_founding(self) -> None:
        """Before anything changes: once the first is marked, the others would look as if they had forgotten."""
        if self._confirmed() and not self.acquainted:
            for record in self._records:
                if record.identity is not None:
                    record.founding = (record.identity.memory, record.identity.marker)

    def _new_marker(self, identity: Identity) -> Marker:
        longest = self._max_ttl or max(MAX_TTL_DEFAULT, self._ttl)
        return Marker(identity.memory, len(self.names), longest, durable=bool(self._durable))

    # The list as a whole

    def _twin(self, node: int, identity: Identity, since: float = float("-inf")) -> Fault | None:
        """How the server behind *node* is another node's, too. Two that were met apart are right in the list: what one of the
        names stands for cannot be reached just now.
        """
        trusted = self._records[node].trusted
        for other, record in enumerate(self._records):
            # What a node told that cannot be asked now says nothing: its server may be the one that answers here.
            if other == node or record.identity is None or record.fault is not None or record.seen_at < since:
                continue
            if record.identity.memory.run_id == identity.memory.run_id != "":
                apart = trusted and record.trusted and trusted.memory.run_id != record.trusted.memory.run_id
                kind = FaultKind.UNREACHABLE if apart else FaultKind.REFUSED
                return Fault(kind, f"is the same server as {self.names[other]} (run id {identity.memory.run_id})")
        return None

    def _foreign(self, marker: Marker | None) -> str | None:
        """How *marker* is another cluster's; None if it is of this one."""
        if marker is None:
            return "has a marker of another format"
        if marker.nodes != len(self.names):
            return f"belongs to a cluster of {marker.nodes} nodes, and this list has {len(self.names)}"
        ids = [known.cluster for record in self._records if (known := record.marker) is not None]
        common = max(sorted(set(ids)), key=ids.count, default="-")
        if marker.cluster != common and ids.count(marker.cluster) < self.needed:
            return f"belongs to cluster {marker.cluster!r}, and the others to {common!r}"
        if self._max_ttl is not None and to_ms(self._max_ttl) != to_ms(marker.max_ttl):
            return f"belongs to a cluster with max_ttl={marker.max_ttl:g}, and max_ttl={self._max_ttl:g} was asked for"
        if self._durable is not None and self._durable != marker.durable:
            return f"belongs to a cluster with durable={marker.durable}, and durable={self._durable} was asked for"
        return None

    def _kin(self, node: int) -> dict[int, Marker]:
        """The markers of this cluster on the other nodes."""
        markers = {other: record.marker for other, record in enumerate(self._records) if other != node}
        return {other: marker for other, marker in markers.items() if marker is not None and self._foreign(marker) is None}


def _how_renamed(identity: Identity) -> str:
    return _PROMOTED if identity.promoted else _RENAMED


def _how_gone(known: Marker | None, identity: Identity) -> str:
    """Why a node has a blank, or nothing: another client may have been faster to see that it has another memory."""
    renamed = known is not None and not known.before and known.memory.run_id == identity.memory.run_id
    return _how_renamed(identity) if renamed and known is not None and not known.names(identity) else _GONE


def _is_up_to_date(marker: Marker, identity: Identity) -> bool:
    return marker.names(identity) and not marker.before and marker.evicted == identity.evicted


def _has_blank(record: _Record) -> bool:
    """Whether the node has a blank that was put there in its present memory."""
    identity = record.identity
    placed = Blank.parse(identity.marker) if identity is not None else None
    return identity is not None and placed is not None and placed.replication_id == identity.memory.replication_id


def _founded(identity: Identity, model: Marker) -> Marker:
    return replace(model, memory=identity.memory, evicted=identity.evicted, since_us=0, before=False)


def _refused(detail: str) -> Standing:
    return Standing(State.REFUSED, Fault(FaultKind.REFUSED, detail))


def _quarantined(detail: str, until: float | None = None) -> Standing:
    return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail), until)
