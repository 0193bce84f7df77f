"""What all links to one node share: whether dialling it makes sense, what it is owed, and what
observers were told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from redlock.core import events
from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import Command
from redlock.core.effects import NEVER
from redlock.core.identity import Identity, Memory
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.wire import clean

__all__ = ["BRING_MAX", "OWED_MAX", "REDIAL_MAX", "Node"]

OWED_MAX = 512
"""Releases: as many as a program can have lost within a node timeout. Beyond them the oldest is
dropped, and leaks one ttl."""
OWED_FOR = 120.0
"""Seconds for which a release is owed where nobody says for how long its lock may live: some
ttls."""
REDIAL_MIN, REDIAL_MAX = 0.02, 0.25
"""Seconds between two dials that failed: a node that is back votes again within a quarter of a
second."""
RECHECK_MIN, RECHECK_MAX = 0.05, 1.0
"""Seconds between two questions to a node that may not vote, whether it may by now."""
BRING_MIN, BRING_MAX = 0.05, 1.0
"""Seconds between two attempts to bring a node the releases that it refuses, because a script
runs or a disk is full."""


class Node:
    """What every link to one node shares: its admission, what it is owed, and whether dialling
    it makes sense."""

    __slots__ = (
        "_backoff",
        "_bring",
        "_recheck",
        "_told",
        "admission",
        "bring_at",
        "emit",
        "fault",
        "index",
        "name",
        "on_owed",
        "owed",
        "owed_for",
        "recheck_at",
        "redial_at",
    )

    def __init__(
        self,
        index: int,
        name: str,
        admission: Admission,
        emit: Callable[[events.Event], None] | None = None,
    ) -> None:
        self.index = index
        self.name = name
        self.admission = admission
        self.emit = emit
        self.fault: Fault | None = None
        self.redial_at = NEVER
        self.recheck_at = NEVER
        self.owed: dict[Command, float] = {}
        """Releases without an answer, and until when each is worth bringing."""
        self.owed_for: Callable[[], float] = lambda: OWED_FOR
        """Seconds for which a release is owed, as the driver knows them."""
        self.bring_at = NEVER
        self.on_owed: Callable[[], None] | None = None
        """Called when something is owed: the driver sees to it that the node gets it, though
        nobody may call again."""
        self._backoff = REDIAL_MIN
        self._bring = BRING_MIN
        self._recheck = RECHECK_MIN
        self._told: tuple[Memory | None, str] | None = None

    def unreachable(self, fault: Fault, now: float) -> None:
        """The last dial failed: until the next one succeeds, requests fail at once."""
        if self.fault is None and self.emit:
            # Our credentials: the node is there, and may not vote for us.
            refused = fault.kind is FaultKind.REFUSED
            self.emit(
                (events.NodeRejected if refused else events.NodeDisconnected)(
                    now, self.name, fault.detail
                )
            )
        self.fault = fault
        self._told = None
        self.redial_at = now + self._backoff
        self._backoff = min(self._backoff * 2, REDIAL_MAX)
        self.admission.failed(self.index, fault)

    def reachable(self) -> None:
        """A new connection told who it is."""
        self.fault = None
        self.redial_at = NEVER
        self._backoff = REDIAL_MIN

    def recheck_due(self, now: float) -> bool:
        """Whether it is time to ask a node that may not vote once more; counts as asked."""
        if now < self.recheck_at:
            return False
        self.recheck_at = now + self._recheck
        self._recheck = min(self._recheck * 2, RECHECK_MAX)
        return True

    def admitted(self, now: float) -> None:
        """The node votes; an event for that, once for each run of the server and each return."""
        self._recheck = RECHECK_MIN
        self.recheck_at = NEVER
        identity = self.admission.identity(self.index)
        told = (identity.memory if identity else None, "admitted")
        if self.emit is not None and identity is not None and told != self._told:
            self.emit(events.NodeAdmitted(now, self.name, identity.memory.run_id))
        self._told = told

    def met(self, before: Identity | None, identity: Identity, now: float) -> None:
        """An event when another memory answers under this node's name than before, and one when
        the node cannot tell waiters."""
        mute = clean(identity.mute)
        if self.emit is not None and mute and (before is None or before.mute != identity.mute):
            self.emit(events.NodeGivesNoWakeUps(now, self.name, mute))
        if self.emit is not None and before is not None and before.memory != identity.memory:
            self.emit(
                events.NodeMemoryChanged(
                    now, self.name, "/".join(before.memory), "/".join(identity.memory)
                )
            )

    def tell(self, standing: Standing, now: float) -> None:
        """The node may not vote: an event for that, once for each reason, however often it is
        asked."""
        fault, identity = standing.fault, self.admission.identity(self.index)
        if self.emit is None or fault is None:
            return
        quarantined = standing.state is State.QUARANTINED
        told = (
            identity.memory if identity else None,
            "in quarantine" if quarantined else fault.detail,
        )
        if told == self._told:
            return
        self._told = told
        if quarantined:
            self.emit(events.NodeQuarantined(now, self.name, fault.detail, standing.until))
        else:
            self.emit(events.NodeRejected(now, self.name, fault.detail))

    def owe(self, command: Command, now: float) -> None:
        """Remember a release whose answer is missing; the oldest is dropped when there are too
        many, and leaks a ttl."""
        if command not in self.owed:
            self.owed[command] = now + self.owed_for()
        if len(self.owed) > OWED_MAX:
            # Another thread may have changed it.
            with contextlib.suppress(StopIteration, RuntimeError):
                self.owed.pop(next(iter(self.owed)), None)
        if self.on_owed is not None:
            self.on_owed()

    def answered(self, command: Command) -> None:
        """The node executed a release: nothing is owed for it any more."""
        if self.owed:
            self.owed.pop(command, None)
            self._bring = BRING_MIN

    def refused(self, command: Command, now: float) -> None:
        """The node answered a release with an error (BUSY, LOADING, MISCONF, NOPERM and the like),
        so the lock is still there.

        What it refuses now it may take later. It is not asked again before `bring_at`.
        """
        self.bring_at = now + self._bring
        self._bring = min(self._bring * 2, BRING_MAX)
        self.owe(command, now)

    def forgive(self, now: float) -> None:
        """Cross off what is owed no more: those locks have expired by themselves."""
        for command in list(self.owed):  # Another thread may change it.
            if self.owed.get(command, now + 1.0) <= now:
                self.owed.pop(command, None)

    @property
    def owed_soon(self) -> bool:
        """Whether releases are owed that the node would take, as far as is known."""
        return bool(self.owed) and self.fault is None
