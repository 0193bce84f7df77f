"""Seeing what happens: the event records, and how they reach `on_event` and the loggers.

Loggers: `redlock` (this library's own troubles), `redlock.node` (admission and connections),
`redlock.lease` (grants, renewals, losses), `redlock.term` (leadership). An exception of an observer
is logged and harms nobody.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable

from redlock.core import events
from redlock.core.events import (
    Event,
    LeaseGranted,
    LeaseInJeopardy,
    LeaseLapsed,
    LeaseReleasing,
    LeaseRenewed,
    NodeAdmitted,
    NodeDisconnected,
    NodeGivesNoWakeUps,
    NodeMemoryChanged,
    NodeQuarantined,
    NodeRejected,
    TermEnded,
    TermInJeopardy,
    TermRecord,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
    TryFailed,
    TryStarted,
)

__all__ = [
    "Event",
    "LeaseGranted",
    "LeaseInJeopardy",
    "LeaseLapsed",
    "LeaseReleasing",
    "LeaseRenewed",
    "NodeAdmitted",
    "NodeDisconnected",
    "NodeGivesNoWakeUps",
    "NodeMemoryChanged",
    "NodeQuarantined",
    "NodeRejected",
    "Observer",
    "TermEnded",
    "TermInJeopardy",
    "TermRecord",
    "TermSafe",
    "TermStarted",
    "TermStopped",
    "TermStopping",
    "TryFailed",
    "TryStarted",
]

_log = logging.getLogger("redlock")
_log.addHandler(logging.NullHandler())
_nodes = logging.getLogger("redlock.node")
_leases = logging.getLogger("redlock.lease")
_terms = logging.getLogger("redlock.term")


class Observer:
    """Takes every event of one coordinator: to the loggers, and to the caller's `on_event`."""

    def __init__(self, on_event: Callable[[Event], object] | None) -> None:
        self._on_event = on_event

    @property
    def wants_all(self) -> bool:
        """Whether anybody listens to the events of every single try."""
        return self._on_event is not None or _leases.isEnabledFor(logging.DEBUG)

    def __call__(self, event: Event) -> None:
        _write_log(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except (Exception, CancelledError):
                # The latter comes of asking for the result of a cancelled task.
                _log.exception("on_event failed for %s", type(event).__name__)


def _write_log(event: Event) -> None:
    match event:
        case events.NodeAdmitted(node=node):
            _nodes.debug("%s was admitted", node)
        case (
            events.NodeQuarantined(node=node, reason=reason)
            | events.NodeRejected(node=node, reason=reason)
        ):
            _nodes.warning("%s does not vote: it %s", node, reason)
        case events.NodeMemoryChanged(node=node, before=before, now=now):
            _nodes.warning(
                "%s has another memory: %s answers, and not %s any more", node, now, before
            )
        case events.NodeGivesNoWakeUps(node=node, reason=reason):
            _nodes.warning(
                "%s cannot queue and tell those who wait, so they look: %s", node, reason
            )
        case events.NodeDisconnected(node=node, reason=reason):
            _nodes.warning("%s %s", node, reason)
        case events.LeaseLapsed(resource=resource, fencing_token=token, reason=reason):
            _leases.warning(
                "the lease on %r with fencing token %d is lost: %s", resource, token, reason
            )
        case events.LeaseInJeopardy(resource=resource, fencing_token=token, votes=votes):
            _leases.warning(
                "renewal of %r with fencing token %d failed, and is tried again: %s",
                resource,
                token,
                votes,
            )
        case events.TermRecord():
            _write_term(event)
        case _:
            _leases.debug("%r", event)


def _write_term(event: TermRecord) -> None:
    name, who, token = event.election, event.candidate, event.fencing_token
    match event:
        case TermStarted():
            _terms.info("%r leads %r with fencing token %d", who, name, token)
        case TermInJeopardy(stop_at=stop_at):
            left = stop_at - event.at
            _terms.warning("%r leads %r for %.3g s more unless it can renew", who, name, left)
        case TermSafe():
            _terms.info("%r leads %r, and is renewed again", who, name)
        case TermStopping(reason=reason, lag=lag):
            _terms.log(
                logging.INFO if reason in ("resigned", "work_ended", "closed") else logging.WARNING,
                "%r does not lead %r any more: %s, told %.3g s after it was due",
                who,
                name,
                reason,
                lag,
            )
        case TermStopped(margin=margin) if margin < 0:
            _terms.error(
                "the work of %r in %r ran on for %.3g s after somebody else might lead",
                who,
                name,
                -margin,
            )
        case _:
            _terms.debug("%r", event)
