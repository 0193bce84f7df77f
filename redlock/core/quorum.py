"""Votes and majorities: the one place that counts.

A majority is ``n // 2 + 1``; a node votes once in a round; the vote is decided at the q-th answer,
and lost as soon as q is out of reach. Pure data: who asked, and when, is the flows' business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from redlock.core.remedies import told
from redlock.errors import CastVote, NodeError, NodeRefused, NodeUnreachable

__all__ = [
    "GRANTED",
    "Fault",
    "FaultKind",
    "Kind",
    "Tally",
    "Vote",
    "begins",
    "majority",
    "said_by",
]


def majority(nodes: int) -> int:
    """Smallest number of nodes of which any two sets share a member."""
    return nodes // 2 + 1


class Kind(Enum):
    """What one node said to one question."""

    GRANTED = auto()
    FREE = auto()
    BUSY = auto()
    BEHIND = auto()
    STRANGER = auto()
    FAULT = auto()

    __hash__ = object.__hash__


class FaultKind(Enum):
    """Why an answer is missing."""

    LOST = auto()
    """The connection broke; a written request may have been executed."""
    UNREACHABLE = auto()
    """Dialling failed."""
    SILENT = auto()
    """Connected, and no answer in time."""
    ERROR = auto()
    """The server answered with an error: LOADING, READONLY, OOM, BUSY, MISCONF and the like."""
    NONSENSE = auto()
    """The answer was not one our script gives; the connection is given up."""
    SATURATED = auto()
    """One of our own bounds was reached; the request was not written."""
    REFUSED = auto()
    """The node may not vote: wrong role, policy, cluster or credentials."""
    QUARANTINED = auto()
    """The node forgot and waits until no lock it forgot can be valid."""
    EXPIRED = auto()
    """The request's time was over before it could be written."""

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a node gave no vote; *detail* completes the sentence "<node> ..."."""

    kind: FaultKind
    detail: str

    def error(self, node: str) -> NodeError:
        """The same as an exception of the public tree."""
        refused = self.kind in (FaultKind.REFUSED, FaultKind.QUARANTINED)
        return (NodeRefused if refused else NodeUnreachable)(f"{node} {self.detail}")


class Vote(NamedTuple):
    """One node's answer to TAKE or PEEK.

    *fence*: largest token the node knows for the resource. *ttl_left*: seconds the lock has still
    to live on that node; negative: it has no expiry; None: not held. *time_us*: the node's wall
    clock, only given with BEHIND. *ahead*: seconds by which our token was ahead of that clock, if
    it was refused for that and not for a larger fence. BUSY without a *ttl_left*: the lock is free,
    and it is somebody else's turn. *full*: the queue takes no more. *waiting*: names and tickets of
    those who wait, where that was asked for.
    """

    kind: Kind
    fence: int = 0
    ttl_left: float | None = None
    holder: str = ""
    time_us: int = 0
    fault: Fault | None = None
    ahead: float = 0.0
    full: bool = False
    waiting: tuple[tuple[str, int], ...] = ()


GRANTED = Vote(Kind.GRANTED)
SAID_MAX = 64
"""Characters of what a holder says of itself that a message for people shows."""
_CANDIDATE = re.compile(r'\d+:\["((?:[^"\\]|\\.)*)"')
"""How `redlock.core.candidate` begins a note."""


class Tally:
    """The votes of one round over *names*; cast one per node, ask what follows.

    `elapsed` (seconds since the round or the call began) is for the message alone. `late`: a
    majority granted, and by then the validity was over, so it was no grant.
    """

    __slots__ = (
        "answered",
        "behind",
        "busy",
        "elapsed",
        "faults",
        "free",
        "granted",
        "late",
        "names",
        "needed",
        "verb",
        "votes",
    )

    def __init__(self, names: Sequence[str], verb: str = "granted") -> None:
        self.names = names
        self.needed = majority(len(names))
        self.votes: list[Vote | None] = [None] * len(names)
        self.granted = self.free = self.busy = self.behind = self.faults = self.answered = 0
        self.elapsed = 0.0
        self.late = False
        self.verb = verb

    def cast(self, node: int, vote: Vote) -> None:
        """Count the vote of *node*; a second one in the same round changes nothing."""
        if self.votes[node] is not None:
            return
        self.votes[node] = vote
        kind = vote.kind
        if kind is Kind.GRANTED:
            self.granted += 1
        elif kind is Kind.BUSY:
            self.busy += 1
        elif kind is Kind.BEHIND:
            self.behind += 1
        elif kind is Kind.FREE:
            self.free += 1
        else:
            self.faults += 1
            return
        self.answered += 1

    def grant(self, nodes: Sequence[int]) -> None:
        """Count a grant of each of *nodes*, as `cast` does."""
        votes, fresh = self.votes, 0
        for node in nodes:
            if votes[node] is None:
                votes[node] = GRANTED
                fresh += 1
        self.granted += fresh
        self.answered += fresh

    @property
    def pending(self) -> int:
        """Nodes that have not voted yet."""
        return len(self.votes) - self.answered - self.faults

    @property
    def won(self) -> bool:
        """A majority granted."""
        return self.granted >= self.needed

    @property
    def lost(self) -> bool:
        """A majority of grants is out of reach, whatever the silent nodes would say."""
        return self.granted + self.pending < self.needed

    @property
    def raisable(self) -> bool:
        """No majority yet, and a larger token could still bring one: the pending nodes and those
        behind would do."""
        return self.granted + self.behind + self.pending >= self.needed

    @property
    def contended(self) -> bool:
        """A majority answered: if it did not grant, that is because of somebody else."""
        return self._answered >= self.needed and not self.late

    @property
    def unavailable(self) -> bool:
        """A majority of answers is out of reach."""
        answered = self.answered if self.pending else self._answered
        return self.late or answered + self.pending < self.needed

    @property
    def torn(self) -> bool:
        """Some nodes granted, and all that refused did so for a clock: no token will do for
        both."""
        return self.granted > 0 and not self.won and self._answered < self.answered

    @property
    def _answered(self) -> int:
        """Answers that tell of the lock: while nobody else is seen, a refusal for a clock is
        none."""
        if not self.behind or self.busy:
            return self.answered
        ahead = sum(vote is not None and vote.ahead > 0 for vote in self.votes)
        return self.answered - ahead if ahead == self.behind else self.answered

    @property
    def fences(self) -> list[int]:
        """Every fence the nodes told."""
        return [vote.fence for vote in self.votes if vote is not None and vote.fence]

    def cast_votes(self) -> tuple[CastVote, ...]:
        """The votes as public records, in the order of the node list."""
        return tuple(_public(name, vote) for name, vote in zip(self.names, self.votes, strict=True))

    def describe(self) -> str:
        """One sentence for the person on call: the count, then each reason for a missing grant,
        with its nodes."""
        by_reason: dict[str, list[str]] = {}
        for name, vote in zip(self.names, self.votes, strict=True):
            if vote is not None and vote.kind is not Kind.GRANTED:
                by_reason.setdefault(_REASONS[vote.kind](vote), []).append(name)
        clauses = [
            f"{', '.join(nodes)}{':' if len(nodes) > 1 else ''} {reason}"
            for reason, nodes in by_reason.items()
        ]
        return "; ".join([self.count(), *clauses])

    def told(self, head: str) -> str:
        """The same behind *head*, short enough for a pager, and what to do about it."""
        reasons = [
            (name, _REASONS[vote.kind](vote))
            for name, vote in zip(self.names, self.votes, strict=True)
            if vote is not None and vote.kind is not Kind.GRANTED
        ]
        do = "give a longer ttl, or mend what is slow" if self.late else None
        return told(f"{head}{self.count()}", reasons, do=do, otherwise="try again")

    def count(self) -> str:
        """How many nodes granted, how many were needed, and after how long."""
        count = f"{self.granted} of {len(self.names)} nodes {self.verb}, {self.needed} needed"
        if self.late:
            count += ", but only after the validity was over"
        return f"{count}, after {self.elapsed:.3g} s"

    def freed_in(self) -> float | None:
        """Seconds until enough locks have expired for a majority of nodes to be free; None: not
        by expiry alone."""
        busy = [vote.ttl_left for vote in self.votes if vote is not None and vote.kind is Kind.BUSY]
        left = sorted(ttl_left for ttl_left in busy if ttl_left is not None and ttl_left >= 0)
        missing = self.needed - self.granted - self.free - self.behind
        if missing <= 0:
            return 0.0
        return left[missing - 1] if missing <= len(left) else None


def said_by(value: str) -> str:
    """What the holder of a lock says of itself, in the lock's *value* as nodes show it; nothing
    where it says nothing.

    Of a candidate's note its name, also where the rest was cut.
    """
    _, _, note = value.split(":", 2) if value.count(":") > 1 else ("", "", "")
    name = _CANDIDATE.match(note)
    if name is not None:  # In JSON, where a name as people choose them needs no more than this.
        note = name[1].replace('\\"', '"').replace("\\\\", "\\")
    return note if note.isprintable() else ""


def begins(value: str) -> str:
    """What a lock's *value* begins with, for people: enough to tell holders apart, too little to
    release their lock. Nothing of it moves a terminal's cursor."""
    first = "".join(char if char.isprintable() else "?" for char in value[:8])
    return f"{first}..."


def _public(name: str, vote: Vote | None) -> CastVote:
    if vote is None:
        return CastVote(name, False, "was not waited for")
    reason = _REASONS[vote.kind](vote)
    error = vote.fault.error(name) if vote.fault else None
    return CastVote(
        name, vote.kind is Kind.GRANTED, reason, vote.ttl_left, vote.fence or None, error
    )


def _busy(vote: Vote) -> str:
    if vote.ttl_left is None:
        return "is free, and it is another's turn"
    said = said_by(vote.holder)
    shown = said if len(said) <= SAID_MAX else f"{said[:SAID_MAX]}..."
    holder = f"{shown} ({begins(vote.holder)})" if said else begins(vote.holder or "?")
    if vote.ttl_left is not None and vote.ttl_left < 0:
        return f"is held by {holder} without an expiry (repair_missing_ttl=True gives it one)"
    return f"is held by {holder} for {vote.ttl_left or 0.0:.3g} s more"


def _ahead(vote: Vote) -> str:
    return (
        f"refused the token, which is {vote.ahead:.0f} s ahead of this node's clock: one of the"
        " clocks is wrong"
    )


_REASONS: dict[Kind, Callable[[Vote], str]] = {
    Kind.GRANTED: lambda vote: "granted",
    Kind.FREE: lambda vote: "is free",
    Kind.BUSY: _busy,
    Kind.BEHIND: lambda vote: (
        _ahead(vote) if vote.ahead > 0 else f"refused the token: its fence is at {vote.fence}"
    ),
    Kind.STRANGER: lambda vote: "is not the node that was admitted",
    Kind.FAULT: lambda vote: vote.fault.detail if vote.fault else "failed",
}
