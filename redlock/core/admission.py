"""Who may vote: the one place that decides whether a node remembers what it granted.

A lock is only as good as its nodes' memory. Every look at a node (`lua/look.lua`) tells in one
answer who it is and what its *marker* says; from all nodes' looks `Admission` derives each one's
`Standing`. A node that forgot does not vote until every lock it may have forgotten has expired; a
node that must not vote at all says why. Pure: time is passed in.

What it knows of a node is one `Record` of the `Roster`. Records change here alone, and only when
something is told (`seen`, `marked`, `failed`); `standing` is a question, and writes nothing. The
rules (docs/protocol.md 7), and where they are:

1. a memory votes, not a server and not a text        `Identity.memory`, `Marker.names`; compared
   again in every script that votes
2. anything else is a loss, but for what is promised  `_how_lost`, `_goes_on`
3. who forgot waits, and then gets a floor            `quarantine.py: standing`, `floor`
4. a client that met the newer does not go back       `_how_returned`, `_judge`, `quarantine.py:
   put_blank`
5. a quarantine waits by the others' `wait_ttl`       `quarantine.py: _until`; raised by
   `initialise.py` before `max_ttl` is
6. a cluster is founded by all its nodes together     `founding.py`; no vote before a majority is:
   `standing`
7. this is the only truth                             `changes`, `life`; `transport/greeting.py:
   may_vote`, `counts`

Besides: fit to vote (`Identity.unfit`, `Roster.twin`), of this cluster (`Roster.foreign`), names
(`names.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from redlock.core import founding, quarantine
from redlock.core.commands import Mark
from redlock.core.identity import Identity, Marker, Memory
from redlock.core.quorum import Fault, FaultKind
from redlock.core.remedies import clause
from redlock.core.roster import RESTARTED, Loss, Record, Roster
from redlock.core.standing import UNKNOWN, Standing, State, refused

# Long: the record of a node changes here alone, so all that changes it is here.
__all__ = ["Admission", "Standing", "State"]

PAST_MAX = 32
"""Memories for each name that are kept as met before the present ones. An older one comes back
with a lower floor anyway; the list is for those that no quarantine lay between."""
_TOLD_MAX = 190
"""Characters of reasons up to which every node is named; a message is one screen."""
_GREW, _GONE = "it evicted keys", "its marker is gone"
_PROMOTED = "it was a replica, and was promoted"
_RESTARTED_OR_PROMOTED = "it restarted, or was a replica and was promoted"
_RENAMED = "its replication id changed: it was promoted, or a replica or a backup came or left"
_ROLLED_BACK = "an older marker came back under its name"
_RETURNED = "an older memory came back under its name"
_UNPLACED = "its marker was written while we did not see it"


class Admission:
    """The standing of every node of one client's list. Fed with identities and failures, asked for
    standings.

    *max_ttl*, *durable*: what the caller insists on; None adopts the cluster's. *ttl*: the caller's
    ttl, which a new cluster must allow. *patience*: seconds after which a node that was asked
    counts as absent. *nonce*: gives fresh random text.
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
        self.changes = 0
        """Grows whenever something is told that may change a standing: a vote is written only as
        of the newest."""
        self._patience = patience
        self._roster = Roster(names, ttl=ttl, max_ttl=max_ttl, durable=durable, nonce=nonce)
        self._records = self._roster.records
        self._past: deque[Memory] = deque(maxlen=PAST_MAX * len(names))
        self._listed: dict[Memory, Marker | None] = {}
        self._asked_at = float("inf")

    # What is told

    def asked(self, at: float) -> None:
        """The first question goes out: from now on silence counts."""
        self._asked_at = min(self._asked_at, at)

    def seen(
        self,
        node: int,
        identity: Identity,
        at: float,
        *,
        asked_at: float | None = None,
        as_of: int | None = None,
    ) -> None:
        """A node told who it is, asked at *asked_at*, when `changes` was *as_of*."""
        record, before = self._records[node], self._records[node].identity
        asked_at = at if asked_at is None else asked_at
        if asked_at < record.asked_at:
            # An answer that waited unread on an idle connection while another one was told what
            # came after it.
            return
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
            moved = any(
                other.identity is not None and other.identity.memory == before.memory
                for other in self._records
            )
            if identity.memory not in self._listed and not moved:
                self._past.append(before.memory)
        for each in range(len(self.names)):
            self._judge(each, at)
        self._list()

    def marked(
        self, node: int, mark: Mark, stands: str, at: float, *, asked_at: float | None = None
    ) -> None:
        """A node answered *mark*, sent at *asked_at*: *stands* is its marker, written by us or,
        first, by somebody else."""
        record = self._records[node]
        known, loss = record.identity, record.loss
        asked_at = at if asked_at is None else asked_at
        # Nothing is written on a node that never said who it is.
        if known is None or asked_at < record.asked_at:
            return
        if loss is not None and known.marker == loss.text == mark.expected and mark.wrote(stands):
            # Ours, over the very text that we wait on. A marker: the wait is over. A blank: it
            # begins here, as the nothing that we met may have been another one, marked, used and
            # lost while the command was on its way.
            if mark.is_blank:
                loss.text, loss.since = stands, at
            else:
                self._end_loss(record, known.memory)
        identity = replace(
            known, marker=stands, uptime=known.uptime + at - record.seen_at, clock=record.clock(at)
        )
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
        # Which cluster id is the common one, and whether the cluster is new, only all nodes
        # together can tell.
        if identity is None or not self.met(at):
            return UNKNOWN
        twin = self._roster.twin(node, identity)
        if identity.unfit:
            return replace(refused(identity.unfit), redial=twin is not None)
        if twin is not None:
            return Standing(State.REFUSED, twin, redial=True)
        if identity.loading:
            return Standing(State.REFUSED, Fault(FaultKind.ERROR, "is LOADING its data"))
        marker = record.marker
        if not identity.blank:
            foreign = self._roster.foreign(marker)
            if marker is None or foreign is not None:
                return refused(foreign or "has an unreadable marker")
        if record.loss is not None:
            return quarantine.standing(self._roster, node, record.loss, at)
        if marker is None:
            return founding.standing(self._roster, node, at)
        # `_judge` found that it goes on, or there would be a loss.
        if not _is_up_to_date(marker, identity):
            return Standing(State.MARK, mark=marker.written_for(identity).write(identity))
        if sum(each.shown for each in self._records) < self._roster.needed:
            # While a cluster is founded, the first nodes have their markers and the others none.
            # Should the first one forget then, all nodes look new again, and are founded anew: that
            # must not happen after a vote was given.
            held = "is not asked before a majority of the nodes has shown a marker"
            return Standing(State.UNKNOWN, Fault(FaultKind.SILENT, held))
        return Standing(State.ADMITTED, marker=identity.marker, memory=identity.memory)

    def problem(self, since: float = float("-inf")) -> str | None:
        """What makes the whole list unusable: the same server twice, as both nodes told after
        *since*. None if nothing does.

        What one of them told before may be over: an address that led there for a while, and is
        back. And a list whose nodes were met apart is right, wherever one of its names leads for a
        while.
        """
        for node, record in enumerate(self._records):
            if record.identity is not None and record.fault is None and record.seen_at >= since:
                twin = self._roster.twin(node, record.identity, since)
                if twin is not None and twin.kind is FaultKind.REFUSED:
                    return f"{self.names[node]} {twin.detail}"
        return None

    def out_of_reach(self, at: float, since: float = float("-inf")) -> str | None:
        """Why no majority can ever vote as things are configured, naming nodes; None if one could.

        Of what nodes told of themselves only what came after *since* counts: somebody may have
        mended it meanwhile. One without a marker is refused for what the other nodes told, so then
        all of that must have come after *since*.
        """
        seen = {
            node: record for node, record in enumerate(self._records) if record.identity is not None
        }
        new = {node for node, record in seen.items() if record.seen_at >= since}
        told = {node for node, record in enumerate(self._records) if record.fault is not None}
        told |= {
            node
            for node in new
            if (known := seen[node].identity) is not None
            and (not known.blank or new == seen.keys())
        }
        faults = [(node, self.standing(node, at).fault) for node in sorted(told)]
        reasons: dict[str, list[str]] = {}
        for node, fault in faults:
            if fault is not None and fault.kind is FaultKind.REFUSED:
                reasons.setdefault(fault.detail, []).append(self.names[node])
        left = len(self.names) - sum(map(len, reasons.values()))
        if left >= self._roster.needed:
            return None
        for most in (len(self.names), 2):
            text = "; ".join([clause(nodes, reason, most) for reason, nodes in reasons.items()])
            if len(text) <= _TOLD_MAX:
                break
        return text

    def max_ttl(self) -> float | None:
        """Longest ttl that a majority of the nodes accepts, as far as their markers are known."""
        markers = (record.marker for record in self._records)
        stated = sorted((marker.max_ttl for marker in markers if marker is not None), reverse=True)
        if len(stated) >= self._roster.needed:
            return stated[self._roster.needed - 1]
        return self._roster.max_ttl

    def clock(self, at: float) -> float:
        """The middle of the nodes' clocks at *at*, seconds since the epoch; 0 while none is
        known."""
        # A node read its clock between question and answer, which a busy machine reads late.
        known = sorted(
            record.identity.clock + at - (record.asked_at + record.seen_at) / 2
            for record in self._records
            if record.identity is not None
        )
        return known[len(known) // 2] if known else 0.0

    @property
    def acquainted(self) -> bool:
        """Whether it has met a node of a cluster, its own or another: who has, takes none for a
        new one again."""
        return any(
            record.trusted is not None or record.stranger is not None for record in self._records
        )

    def outdated(self, node: int) -> bool:
        """Whether *node* is to be asked again: what it told is older than another one's loss, or
        than the last blank."""
        record = self._records[node]
        if record.fault is not None or record.identity is None:
            return False
        losses = (other.loss for other in self._records if other is not record)
        if any(loss is not None and record.asked_at < loss.since for loss in losses):
            return True
        return founding.all_blank(self._roster) and record.as_of < max(
            other.news for other in self._records
        )

    def life(self, node: int) -> int:
        """Grows with every loss of *node*, and every other server: a vote from before may be an
        older memory's that is back."""
        return self._records[node].life

    def identity(self, node: int) -> Identity | None:
        """What *node* told last."""
        return self._records[node].identity

    def marker(self, node: int) -> Marker | None:
        """The marker of *node*, if it told one."""
        return self._records[node].marker

    def met(self, at: float) -> bool:
        """Whether every node has answered or failed, or had the time to."""
        known = all(
            record.identity is not None or record.fault is not None for record in self._records
        )
        return known or at >= self._asked_at + self._patience

    # What a look says of a node's memory

    @property
    def _settled(self) -> bool:
        """Whether nobody waits for another look of a node: no loss, and no cluster to be
        founded."""
        return all(
            record.loss is None and record.trusted is not None
            for record in self._records
            if record.fault is None
        )

    def _judge(self, node: int, at: float) -> None:
        """Trust what *node* told last, or note its loss."""
        record = self._records[node]
        identity, marker = record.identity, record.marker
        if identity is None or record.fault is not None or identity.loading or identity.unfit:
            return
        if self._roster.twin(node, identity) is not None:
            return
        if identity.blank:
            of_founding = record.founding == (identity.memory, identity.marker)
            if record.trusted is not None or (self._roster.kin(node) and not of_founding):
                self._lose(record, _how_gone(record.trusted, identity), at, certain=False)
            return
        foreign = self._roster.foreign(marker)
        if marker is None or foreign is not None:
            record.stranger = foreign or "has an unreadable marker"
            return
        record.shown = True
        loss = record.loss
        if loss is not None:
            if (
                marker.names(identity)
                and loss.memory == identity.memory
                and marker.since_us > loss.clock * 1e6
            ):
                # Marked since we saw it, by one who waited, or by the founder: the node's own clock
                # says so.
                self._end_loss(record, identity.memory)
            else:
                self._lose(record, _UNPLACED, at, certain=False)
                return
        how = self._how_returned(record, identity, marker) or self._how_lost(node, identity, marker)
        if how is not None:
            # Another server may have answered for a moment, and to this client alone: then it waits
            # alone as well.
            self._lose(record, how, at, certain=how != _RETURNED)
        elif marker.names(identity):
            record.trusted, record.stranger, record.founding = marker, None, None

    def _lose(self, record: Record, how: str, since: float, *, certain: bool) -> None:
        identity, loss = record.identity, record.loss
        assert identity is not None
        told = (identity.memory, identity.marker, identity.evicted)
        if loss is None or (loss.memory, loss.text, loss.evicted) != told:
            record.loss = Loss(how, since, identity.clock, *told, certain)
            record.life += 1
            self.changes += 1

    def _end_loss(self, record: Record, memory: Memory) -> None:
        """The wait is over, and *memory* is the node's present one: an older one that came back
        is no older one any more."""
        record.loss = None
        while memory in self._past:
            self._past.remove(memory)

    def _hold_founding(self) -> None:
        """Before anything changes: once the first is marked, the others would look as if they
        had forgotten."""
        if founding.confirmed(self._roster) and not self.acquainted:
            for record in self._records:
                if record.identity is not None:
                    record.founding = (record.identity.memory, record.identity.marker)

    def _list(self) -> None:
        """Note which memories the names lead to; one that none of them leads to any more is past.

        Names that swap their servers, as addresses do, make none of them an older one: so nothing
        is noted while a memory has been met under its new name and not yet been missed under the
        old.
        """
        present = [(record.loss or record.trusted, record.trusted) for record in self._records]
        known = [(now.memory, trusted) for now, trusted in present if now is not None]
        listed = {
            memory: trusted if trusted is not None and trusted.memory == memory else None
            for memory, trusted in known
        }
        if len(listed) == len(known):
            self._past.extend(memory for memory in self._listed if memory not in listed)
            self._listed = listed

    def _how_returned(self, record: Record, identity: Identity, marker: Marker) -> str | None:
        """Why this cannot follow what was known under the name before; None if it can (rule 4)."""
        known = record.trusted
        if known is None or known.memory != identity.memory:
            known = self._listed.get(identity.memory) or known  # It moved here from another name.
        # Marked anew since then, by the nodes' clocks: `redlock init --replace` may lower what was
        # promised.
        if known is not None and not (
            marker.floor > known.floor and marker.since_us > known.since_us
        ):
            lower = (
                marker.floor < known.floor
                or marker.max_ttl < known.max_ttl
                or marker.wait_ttl < known.wait_ttl
            )
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
        # A server that was backed up and restarts from a snapshot shows the offset of a promotion
        # as well.
        return _RESTARTED_OR_PROMOTED if identity.promoted else RESTARTED

    def _goes_on(self, node: int, identity: Identity, marker: Marker) -> bool:
        """Whether it is promised that a memory with another name is the one that was marked
        (rule 2)."""
        if identity.promoted:
            return False
        if marker.memory.run_id == identity.memory.run_id and not marker.before:
            # A replica or a backup came or left. That it was no promotion only the operator can
            # know.
            return marker.never_replicas and identity.evicted <= marker.evicted
        # In a run that had a marker of its own already, older data came by something else than its
        # restart.
        known = self._records[node].trusted
        began = known is None or known.memory.run_id != identity.memory.run_id
        return marker.durable and began and not self._roster.is_copy(node, marker)


def _how_renamed(identity: Identity) -> str:
    return _PROMOTED if identity.promoted else _RENAMED


def _how_gone(known: Marker | None, identity: Identity) -> str:
    """Why a node has a blank, or nothing: another client may have been faster to see that it has
    another memory."""
    renamed = (
        known is not None and not known.before and known.memory.run_id == identity.memory.run_id
    )
    return (
        _how_renamed(identity)
        if renamed and known is not None and not known.names(identity)
        else _GONE
    )


def _is_up_to_date(marker: Marker, identity: Identity) -> bool:
    return marker.names(identity) and not marker.before and marker.evicted == identity.evicted
