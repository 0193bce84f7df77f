"""A supervisor by itself: it runs a command under a lease that ends when the test says, and that
nobody renews.

    python -m tests.servers.supervised TTL LEFT LOOK_AGAIN COMMAND...

The lease was asked for TTL seconds and is valid for LEFT more. Tells the deadline first.
LOOK_AGAIN: seconds between looks at the lease where nothing calls for an earlier one.
"""

from __future__ import annotations

import sys
from typing import Any

from redlock import supervise
from redlock.base import LeaseBase
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.tenure import Leased
from redlock.transport.clock import now


def main() -> int:
    """The supervisor's own status."""
    ttl, left = map(float, sys.argv[1:3])
    supervise._LOOK_AGAIN = float(sys.argv[3])
    signals = supervise.Signals()
    with (
        supervise.Guard() as guard,
        supervise.Child(sys.argv[4:], {}) as child,
        signals,
    ):
        at = now()
        sys.stdout.write(f"until {at + left}\n")
        sys.stdout.flush()
        nobody: Any = None
        grant = Grant("job", "job", "job:fence", "0" * 32, 7, 600.0)
        lease = LeaseBase(nobody, Holding(grant, ttl, at, at + left, frozenset()))
        signals.hold()
        return supervise.supervise(child, Leased(lease), signals, guard).status


if __name__ == "__main__":
    sys.exit(main())
