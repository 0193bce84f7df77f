"""The records that `on_event` receives: small, frozen, and free of credentials.

`at` is the lease clock in seconds. The same records are the history that a checker of mutual
exclusion judges.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all records. *at*: lease clock, seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class TryStarted(Event):
    """A round of TAKE goes out. *round*: 1, or more when a token was too small."""

    resource: str
    owner: str
    fencing_token: int
    round: int


@dataclass(frozen=True, slots=True)
class TryFailed(Event):
    """A try got no majority in time and is being given back everywhere. *votes*: one sentence,
    node by node."""

    resource: str
    owner: str
    fencing_token: int
    votes: str


@dataclass(frozen=True, slots=True)
class LeaseGranted(Event):
    """A majority granted. *sent_at* was read before the first write of the deciding round."""

    resource: str
    owner: str
    fencing_token: int
    sent_at: float
    valid_until: float


@dataclass(frozen=True, slots=True)
class LeaseRenewed(Event):
    """A majority extended the lease."""

    resource: str
    owner: str
    fencing_token: int
    valid_until: float


@dataclass(frozen=True, slots=True)
class LeaseInJeopardy(Event):
    """A renewal failed; the lease is still valid, and renewal goes on until *valid_until*."""

    resource: str
    owner: str
    fencing_token: int
    valid_until: float
    votes: str


@dataclass(frozen=True, slots=True)
class LeaseLapsed(Event):
    """The lease was lost: it ended, and its holder had not released it."""

    resource: str
    owner: str
    fencing_token: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseReleasing(Event):
    """The holder gives the lease back; from here on it is not held, whatever the nodes answer."""

    resource: str
    owner: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class NodeAdmitted(Event):
    """The node may vote on this connection."""

    node: str
    run_id: str


@dataclass(frozen=True, slots=True)
class NodeQuarantined(Event):
    """The node forgot and does not vote. *until*: lease clock, None while it cannot be told."""

    node: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class NodeRejected(Event):
    """The node may not vote: role, policy, cluster, credentials."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeDisconnected(Event):
    """The connection to the node ended, or could not be made."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeGivesNoWakeUps(Event):
    """The node votes, and can neither queue nor tell those who wait, for want of rights: they look
    now and then, and their order is that of luck."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeMemoryChanged(Event):
    """Another memory answers under the node's name: it restarted, was promoted, was replaced, or
    the name leads to two.

    *before*, *now*: run id and replication id of the servers. A name must lead to one living memory
    at a time.
    """

    node: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class TermRecord(Event):
    """Base of the records of a term of leadership, which together are an election's ledger."""

    election: str
    candidate: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class TermStarted(TermRecord):
    """The candidate leads from here on; its work begins. *valid_until* and *stop_at*: as known
    now, renewals move both."""

    valid_until: float
    stop_at: float


@dataclass(frozen=True, slots=True)
class TermInJeopardy(TermRecord):
    """No renewal has succeeded for too long; the candidate leads until *stop_at* at most."""

    valid_until: float
    stop_at: float


@dataclass(frozen=True, slots=True)
class TermSafe(TermRecord):
    """A renewal succeeded, and the jeopardy is over."""

    valid_until: float
    stop_at: float


@dataclass(frozen=True, slots=True)
class TermStopping(TermRecord):
    """The candidate does not lead any more, and its work was asked to stop. *lag*: seconds since
    it had to be asked; *margin*: seconds of validity left."""

    reason: str
    lag: float
    margin: float


@dataclass(frozen=True, slots=True)
class TermStopped(TermRecord):
    """The work has ended. *margin*: seconds of validity left, negative if it worked on past the
    end."""

    reason: str
    margin: float


@dataclass(frozen=True, slots=True)
class TermEnded(TermRecord):
    """Everything of the term is over. *released*: a majority confirmed that the lock was given
    back; otherwise it expires by itself. *error*: what the work raised, or nothing."""

    reason: str
    released: bool
    margin: float
    error: str
