"""Quorum locks on N independent Redis or Valkey masters, with fencing tokens that come from the
quorum itself.

    from redlock import Redlock

    locks = Redlock(["redis://10.0.0.1:6379", "redis://10.0.0.2:6379", "redis://10.0.0.3:6379"], ttl=10.0)
    with locks.lock("invoices:42", timeout=5.0) as lease:
        store.write(row, fencing_token=lease.fencing_token)

`redlock.asyncio` has the same names for asyncio.
"""

from redlock._here import PROJECT as PROJECT  # Before anything else, for it may refuse.
from redlock.base import NodeReport, ResourceStatus, Waiter
from redlock.client import Lease, Lock, Redlock
from redlock.core.candidate import Leader
from redlock.core.election import State
from redlock.core.term import Reason
from redlock.core.timings import ElectionTimings
from redlock.election import Election, Term
from redlock.errors import (
    AcquireError,
    CandidateUnfit,
    ConfigurationError,
    LeadershipLost,
    LeaseError,
    LeaseLost,
    LeaseReleased,
    LockContended,
    LockInUse,
    NodeError,
    NodeRefused,
    NodeUnreachable,
    QueueFull,
    QuorumUnavailable,
    RedlockError,
)

__version__ = "0.1.0"

__all__ = [
    "AcquireError",
    "CandidateUnfit",
    "ConfigurationError",
    "Election",
    "ElectionTimings",
    "Leader",
    "LeadershipLost",
    "Lease",
    "LeaseError",
    "LeaseLost",
    "LeaseReleased",
    "Lock",
    "LockContended",
    "LockInUse",
    "NodeError",
    "NodeRefused",
    "NodeReport",
    "NodeUnreachable",
    "QueueFull",
    "QuorumUnavailable",
    "Reason",
    "Redlock",
    "RedlockError",
    "ResourceStatus",
    "State",
    "Term",
    "Waiter",
    "__version__",
]
