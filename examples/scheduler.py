"""A scheduler that runs on several machines, works on one of them, and misses no run when that one
dies.

    $ export REDLOCK_NODES="redis://10.0.0.1 redis://10.0.0.2 redis://10.0.0.3"
    $ python examples/scheduler.py jobs.db     # in several terminals; then kill the one that leads

Two things make it right, and the election is only the first of them:

- The *election* lets one process work at a time.
- The *store* keeps, for each job, how far it has come, and the largest fencing token it was ever
  shown. Who leads next goes on from that mark, so nothing is missed. And a leader that stood still,
  was succeeded and goes on as if nothing had happened has a smaller token, and is refused.

SQLite stands for your database here: the statements are the same there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import time

from redlock import Reason, Redlock, Term
from redlock.ledger import Ledger

JOBS = {"report": 0.5, "clean": 1.0}
"""Seconds from one run of a job to the next. Runs are numbered since the epoch, so that all
processes mean the same one."""


class StaleToken(Exception):
    """The store has seen a larger fencing token: somebody else leads by now."""


class Store:
    """How far each job has come, guarded by the fencing token."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS marks (job TEXT PRIMARY KEY, number INT, token INT)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS runs (job TEXT, number INT, token INT, pid INT,"
            " began_at REAL, ended_at REAL)"
        )

    def last_run(self, job: str, latest: int, token: int) -> int:
        """The number of the last run; *latest* for a job that is new. Raises StaleToken.

        One statement reads the mark and puts our token on it. If it only read, a leader from before
        could still write behind our back what we are about to do again.
        """
        self._db.execute("INSERT OR IGNORE INTO marks VALUES (?, ?, 0)", (job, latest))
        rows = self._db.execute(
            "UPDATE marks SET token = :token WHERE job = :job AND token <= :token RETURNING number",
            {"job": job, "token": token},
        ).fetchall()
        if not rows:
            raise StaleToken(f"{job} has seen a larger token than {token}")
        return int(rows[0][0])

    def write(self, job: str, number: int, token: int, began_at: float) -> None:
        """What a run did, and the mark that says so: both or neither. Raises StaleToken."""
        with self._db:  # Rolls back what raises.
            self._db.execute("BEGIN IMMEDIATE")
            mine = self._db.execute(
                "UPDATE marks SET number = :number, token = :token"
                " WHERE job = :job AND token <= :token",
                {"number": number, "job": job, "token": token},
            )
            if not mine.rowcount:
                raise StaleToken(f"{job} has seen a larger token than {token}")
            self._db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)",
                (job, number, token, os.getpid(), began_at, time.time()),
            )


class Scheduler:
    """What a leader does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def lead(self, term: Term) -> None:
        """Run what is due, until the term ends."""
        while term.is_leader():  # Reads the clock every time: keep no copy of the answer.
            for job, period in JOBS.items():
                self._catch_up(job, period, term)
            term.stop.wait(0.05)  # A sleep that the end of the term cuts short.

    def _catch_up(self, job: str, period: float, term: Term) -> None:
        latest = int(time.time() / period)
        done = self._store.last_run(job, latest - 1, term.fencing_token)
        for number in range(done + 1, latest + 1):
            if not term.is_leader():
                return
            began_at = time.time()
            print(f"{job} {number} begins", flush=True)
            time.sleep(0.1)  # The work itself. It may be done twice, if we die in it.
            self._store.write(job, number, term.fencing_token, began_at)
            print(f"{job} {number} done", flush=True)
            term.tick()  # "I am not wedged": see stall_timeout.


def started(term: Term) -> None:
    """Called before the work."""
    print(f"{os.getpid()} leads with token {term.fencing_token}", flush=True)


def stopped(term: Term, reason: Reason) -> None:
    """Called after the work, once for each `started`."""
    print(f"{os.getpid()} led with token {term.fencing_token}: {reason}", flush=True)


def main() -> None:
    """Stand for election until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="A scheduler with one leader.")
    parser.add_argument("store", help="the SQLite file that all of them share")
    parser.add_argument(
        "--ttl", type=float, default=15.0, help="seconds that a dead leader blocks the others"
    )
    parser.add_argument("--ledger", help="a file for the record of who led when")
    options = parser.parse_args()
    scheduler = Scheduler(Store(options.store))
    nodes = os.environ["REDLOCK_NODES"].replace(",", " ").split()
    on_event = Ledger(options.ledger) if options.ledger else None
    with Redlock(nodes, on_event=on_event) as locks:
        election = locks.election(
            "scheduler",
            ttl=options.ttl,
            # A job that hangs ends the term, for somebody else may fare better; and as no thread
            # can be stopped, it ends this process, for whatever started it to start it anew.
            stall_timeout=60.0,
            hard_stop="exit",
            on_started=started,
            on_stopped=stopped,
        )
        # Tells the work to stop, and gives the lock back behind it: the next one need not wait.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: election.resign())
        election.run(scheduler.lead)


if __name__ == "__main__":
    main()
