"""Ten replicas start at once; one of them migrates the database, and the others wait until it is
done.

    $ export REDLOCK_NODES="redis://10.0.0.1 redis://10.0.0.2 redis://10.0.0.3"
    $ for i in 1 2 3 4 5 6 7 8 9 10; do python examples/migrate.py app.db & done; wait

If the one that migrates is killed, another goes on after its last step. If it only stood still, and
wakes up when another one has gone on, the database refuses it: each step first shows the fencing
token, in the transaction of the step.

SQLite stands for your database here; PostgreSQL has transactions around CREATE TABLE as well. Where
yours has not (MySQL), make each step so that it does no harm the second time.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time

from redlock import LeadershipLost, LockContended, Redlock, Term

STEPS = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
    "INSERT INTO users (name) VALUES ('Ada'), ('Grace'), ('Barbara')",
    "ALTER TABLE users ADD COLUMN email TEXT",
    "UPDATE users SET email = lower(name) || '@example.org'",
    "CREATE UNIQUE INDEX users_email ON users (email)",
)
"""What makes version 1, version 2 and so on; none may run twice."""


class StaleToken(Exception):
    """The database has seen a larger fencing token: somebody else migrates by now."""


class Database:
    """A database that knows its version, and the largest fencing token it was ever shown."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS migration (id INTEGER PRIMARY KEY CHECK (id = 1),"
            " version INT, token INT)"
        )
        self._db.execute("INSERT OR IGNORE INTO migration VALUES (1, 0, 0)")
        self._db.execute("CREATE TABLE IF NOT EXISTS steps (version INT, token INT, pid INT)")

    def version(self) -> int:
        """The version, for whoever wants to know."""
        return int(self._db.execute("SELECT version FROM migration").fetchone()[0])

    def step(self, token: int) -> int:
        """Do the next step; the version after it. Raises StaleToken."""
        with self._db:  # Rolls back what raises.
            self._db.execute("BEGIN IMMEDIATE")
            # Who comes with a smaller token stops here. And version is read behind this line, in
            # the same transaction: nobody can do the step between our look and our write.
            mine = self._db.execute(
                "UPDATE migration SET token = :token WHERE token <= :token", {"token": token}
            )
            if not mine.rowcount:
                raise StaleToken(f"somebody has migrated with a larger token than {token}")
            version = self.version()
            if version < len(STEPS):
                self._db.execute(STEPS[version])
                version += 1
                self._db.execute("UPDATE migration SET version = ?", (version,))
                by = (version, token, os.getpid())
                self._db.execute("INSERT INTO steps VALUES (?, ?, ?)", by)
            return version


def migrate(database: Database, term: Term) -> None:
    """Do all steps that are missing."""
    version = database.version()
    while version < len(STEPS):
        term.ensure_leader()  # LeadershipLost: stop before the next step, not in it.
        version = database.step(term.fencing_token)
        print(f"{os.getpid()} made version {version}, token {term.fencing_token}", flush=True)
        time.sleep(0.3)  # Yours take longer.


def main() -> int:
    """Return when the database is as this release needs it: 0; or is not by the timeout: 1."""
    parser = argparse.ArgumentParser(description="Migrate once, however many start.")
    parser.add_argument("database", help="the SQLite file that all replicas share")
    parser.add_argument(
        "--ttl", type=float, default=15.0, help="seconds that a dead migrator blocks the others"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait for all")
    options = parser.parse_args()
    database = Database(options.database)
    nodes = os.environ["REDLOCK_NODES"].replace(",", " ").split()
    give_up_at = time.monotonic() + options.timeout
    with Redlock(nodes) as locks:
        election = locks.election("migrate", ttl=options.ttl)
        while database.version() < len(STEPS):
            if time.monotonic() > give_up_at:
                return 1
            try:
                # Not for ever: who waits wants to see the version, and not to lead.
                with election.campaign(timeout=1.0) as term:
                    migrate(database, term)
            except LockContended:
                pass  # Somebody else migrates. Look how far it is.
            except (LeadershipLost, StaleToken) as error:
                print(f"{os.getpid()} goes on waiting: {error}", flush=True)
    print(f"{os.getpid()} starts, on version {database.version()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
