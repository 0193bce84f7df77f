"""The states of a candidate, and the one table of what moves it and what is said to whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

__all__ = ["ROWS", "TABLE", "Move", "Row", "Say", "State"]


class State(StrEnum):
    """Where a candidate stands."""

    FOLLOWER = "follower"
    """It does not campaign."""
    CANDIDATE = "candidate"
    """It campaigns, or has the lock and does not lead yet."""
    LEADER = "leader"
    JEOPARDY = "jeopardy"
    """It leads, and has not been able to renew for too long."""
    STEPPING_DOWN = "stepping_down"
    """It does not lead any more, and its work has not ended yet."""
    CLOSED = "closed"


class Move(Enum):
    """What happens to a candidate."""

    CAMPAIGN = "campaigns"
    GIVE_UP = "gives up, or was lost before it began"
    ELECTED = "is elected"
    OVERDUE = "no renewal until the jeopardy deadline"
    RENEWED = "is renewed"
    END = "the term ends, for a reason"
    DRAINED = "the work has ended and was told so"
    CLOSE = "the coordinator is closed"

    __hash__ = object.__hash__


class Say(Enum):
    """What is said, and to whom."""

    STARTED = "ledger: started; on_started(term), then the work"
    JEOPARDY = "ledger: in jeopardy"
    SAFE = "ledger: safe again"
    STOP = "the work: stop is set, a task is cancelled; ledger: stopping"
    ENDED = "the lock is released, or left to expire; ledger: ended"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Row:
    """In *state*, *move* leads to *next*, and *says* so."""

    state: State
    move: Move
    next: State
    says: Say | None = None


TABLE = (
    Row(State.FOLLOWER, Move.CAMPAIGN, State.CANDIDATE),
    Row(State.CANDIDATE, Move.GIVE_UP, State.FOLLOWER),
    Row(State.CANDIDATE, Move.ELECTED, State.LEADER, Say.STARTED),
    Row(State.LEADER, Move.OVERDUE, State.JEOPARDY, Say.JEOPARDY),
    Row(State.JEOPARDY, Move.RENEWED, State.LEADER, Say.SAFE),
    Row(State.LEADER, Move.END, State.STEPPING_DOWN, Say.STOP),
    Row(State.JEOPARDY, Move.END, State.STEPPING_DOWN, Say.STOP),
    Row(State.STEPPING_DOWN, Move.DRAINED, State.FOLLOWER, Say.ENDED),
    Row(State.FOLLOWER, Move.CLOSE, State.CLOSED),
    Row(State.CANDIDATE, Move.CLOSE, State.CLOSED),
)
"""All that can happen; what has no row here does not."""
ROWS = {(row.state, row.move): row for row in TABLE}
"""The same by state and move."""
