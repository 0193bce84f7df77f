"""How a node stands with one client: whether it may vote, why not, and what is to be written first.

Values alone; who draws which from what is the business of `admission.py` and what it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from redlock.core.commands import Mark
from redlock.core.identity import Memory
from redlock.core.quorum import Fault, FaultKind

__all__ = ["UNKNOWN", "Standing", "State", "quarantined", "refused"]


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
    """Whether a node may vote, and why not.

    *until*: when its quarantine ends, on the lease clock, if that is known. *marker*, *memory*: of
    a node that is admitted, what stands on it, and what it is admitted as. *redial*: another
    connection may lead to another server, as this one need not be where the node's name leads to by
    now.
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
        """Whether the node is known to have no vote, also if it gives one.

        No script sees that its server evicted keys.
        """
        if self.state is State.MARK:
            return self.mark is not None and self.mark.is_blank
        return self.state in (State.QUARANTINED, State.REFUSED)


UNKNOWN = Standing(State.UNKNOWN)


def refused(detail: str) -> Standing:
    """Of a node that must not vote; *detail* completes "<node> ..."."""
    return Standing(State.REFUSED, Fault(FaultKind.REFUSED, detail))


def quarantined(detail: str, until: float | None = None) -> Standing:
    """Of a node that forgot, or is new, and waits."""
    return Standing(State.QUARANTINED, Fault(FaultKind.QUARANTINED, detail), until)
