"""A cron job that runs on one of several hosts."""

from __future__ import annotations

import logging
import os
import sys

from redlock import LockContended, QuorumUnavailable, Redlock


def back_up(fencing_token: int) -> None:
    print(f"backing up under {fencing_token}", file=sys.stderr)  # noqa: T201


def main() -> int:
    with Redlock(os.environ["REDLOCK_NODES"].split(), ttl=30.0) as locks:
        try:
            with locks.lock("nightly", timeout=0, auto_extend=True, max_hold=3600.0) as lease:
                back_up(lease.fencing_token)
        except LockContended:
            return 0
        except QuorumUnavailable as error:
            for vote in error.votes:
                logging.critical("%s: %s", vote.node, vote.reason)
            return 1
    return 0
