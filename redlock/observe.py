"""Seeing what happens: the event records, and how they reach `on_event` and the loggers.

Loggers: `redlock` (this library's own troubles), `redlock.node` (admission and connections),
`redlock.lease` (grants, renewals, losses). An exception of an observer is logged and harms nobody.
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
    NodeMemoryChanged,
    NodeQuarantined,
    NodeRejected,
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
    "NodeMemoryChanged",
    "NodeQuarantined",
    "NodeRejected",
    "Observer",
    "TryFailed",
    "TryStarted",
]

_log = logging.getLogger("redlock")
_log.addHandler(logging.NullHandler())
_nodes = logging.getLogger("redlock.node")
_leases = logging.getLogger("redlock.lease")


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
        case _:
            _leases.debug("%r", event)
