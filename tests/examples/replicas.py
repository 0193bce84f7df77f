"""Ten replicas of the migration of the examples, forked in one instant: a race for the database
that ten interpreters, each of which takes its time to start, would seldom run.

    python tests/examples/replicas.py ARGUMENTS OF examples/migrate.py
"""

from __future__ import annotations

import os
import sys

from examples.migrate import main

COUNT = 10


def replicate() -> None:
    """Start them, and tell how each of them ended."""
    for _ in range(COUNT):
        if os.fork() == 0:
            sys.exit(main())
    for _ in range(COUNT):
        pid, status = os.wait()
        sys.stdout.write(f"{pid} ended with {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    replicate()
