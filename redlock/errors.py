"""The errors of redlock: one tree, and the votes that its messages tell of.

RedlockError
    AcquireError            carries the votes, node by node
        LockContended       a majority answered, and somebody else holds the lock: normal
        QuorumUnavailable   no majority answered in time: page somebody
        QueueFull           as many wait for the lock as may: nothing was asked for
    LeaseError
        LeaseLost           the lease ended while its holder still wanted it
        LeaseReleased       the holder gave it back itself
    LeadershipLost          the same for a term of leadership
    CandidateUnfit          no campaign was begun in time, as the candidate is not eligible
    NodeError               why one node's vote is missing; found in the votes
        NodeUnreachable     no usable answer came; `redlock init` raises it, too
        NodeRefused         the node answered, and may not vote
    LockInUse               also a RuntimeError
    ConfigurationError      also a ValueError

The lowest module of all: everything may raise these, so they import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "AcquireError",
    "CandidateUnfit",
    "CastVote",
    "ConfigurationError",
    "LeadershipLost",
    "LeaseError",
    "LeaseLost",
    "LeaseReleased",
    "LockContended",
    "LockInUse",
    "MESSAGE_MAX",
    "NodeError",
    "NodeRefused",
    "NodeUnreachable",
    "QueueFull",
    "QuorumUnavailable",
    "RedlockError",
    "Votes",
]


MESSAGE_MAX = 280
"""Characters of a message, without what a log puts before it: it is read on a pager."""
_SHOWN_MAX = 60


def shown(value: object) -> str:
    """What a message repeats of *value*: enough to find it by, and never all of a long one."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


def fitted(text: str) -> str:
    """*text* within MESSAGE_MAX: what is left out is in the middle, as what is wrong comes first
    and what to do comes last."""
    if len(text) <= MESSAGE_MAX:
        return text
    end = MESSAGE_MAX // 3
    return f"{text[: MESSAGE_MAX - end - 5]} ... {text[-end:]}"


class RedlockError(Exception):
    """Base of every error this library raises on purpose. The message tells what is wrong with
    which lock or node, and what to do, in MESSAGE_MAX characters."""

    def __str__(self) -> str:
        return fitted(super().__str__())


class AcquireError(RedlockError):
    """No majority granted what was asked for; *resource* says of which lock, *votes* which node
    said what.

    The message is written for the person on call: which lock, how many nodes granted, how many were
    needed, each reason why others did not, with the nodes that gave it, and what to do about the
    first. A node that was not waited for, as the vote was decided, gave none. *resource* is None
    where no single lock was asked for.
    """

    def __init__(self, tally: Votes, resource: str | None = None) -> None:
        super().__init__(tally, resource)
        self.tally = tally
        self.resource = resource

    def about(self, resource: str) -> None:
        """Name the lock, if nobody has: who ran out of connections does not know what they were
        wanted for."""
        self.resource = self.resource if self.resource is not None else resource

    @property
    def votes(self) -> tuple[CastVote, ...]:
        """One entry per node, in the order of the node list; the node's fault, if any, in
        `.error`."""
        return self.tally.cast_votes()

    def __str__(self) -> str:
        return self.tally.told("" if self.resource is None else f"lock {shown(self.resource)}: ")


class LockContended(AcquireError):
    """A majority answered, and the lock is somebody else's."""


class QuorumUnavailable(AcquireError):
    """No majority of the nodes answered in time; whether somebody holds the lock is unknown."""


class QueueFull(AcquireError):
    """As many wait for this lock as may: 4096 in one coordinator, or 1024 coordinators."""


class LeaseError(RedlockError):
    """A lease cannot do what it was asked for."""


class LeaseLost(LeaseError):
    """The lease is over and its holder did not end it: stop what it guarded."""


class LeaseReleased(LeaseError):
    """The lease was given back by its holder and cannot be used any more."""


class LeadershipLost(RedlockError):
    """A term of leadership is over: stop what it allowed. *reason*: why, one of `Reason`."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class CandidateUnfit(RedlockError):
    """The time for a campaign was over, and `eligible` had not said yes."""


class NodeError(RedlockError):
    """Why the vote of one node is missing."""


class NodeUnreachable(NodeError):
    """The node gave no usable answer: refused, lost, silent, loading, out of memory, talking
    nonsense."""


class NodeRefused(NodeError):
    """The node answers and may not vote: a replica, evicting, of another cluster, wrong
    credentials, in quarantine."""


class LockInUse(RedlockError, RuntimeError):
    """A `Lock` serves one holder at a time and is not re-entrant; make another one for the same
    resource."""


class ConfigurationError(RedlockError, ValueError):
    """A setting cannot work; the message names the value, and what would do."""

    def about(self, resource: str) -> ConfigurationError:
        """The same, with the lock named if it was not."""
        if shown(resource) not in str(self):
            self.args = (f"lock {shown(resource)}: {self}",)
        return self


@dataclass(frozen=True, slots=True)
class CastVote:
    """One line of an `AcquireError`: what one node said, for people and for code."""

    node: str
    granted: bool
    reason: str
    ttl_left: float | None = None
    fencing_token: int | None = None
    error: NodeError | None = None


class Votes(Protocol):
    """The votes of one round, as `core/quorum.py: Tally` counts them: all that an error has to
    know of it."""

    def cast_votes(self) -> tuple[CastVote, ...]:
        """One entry per node, in the order of the node list."""

    def told(self, head: str) -> str:
        """One sentence for the person on call, which begins with *head* and ends with what to
        do."""
