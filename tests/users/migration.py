"""A migration that one of many starting programs does, while the others wait for it."""

from __future__ import annotations

import sqlite3

from redlock import LeadershipLost, Redlock, Term


def migrate(database: sqlite3.Connection, term: Term) -> bool:
    with database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version >= 2:
            return False
        term.ensure_leader()
        database.execute("CREATE TABLE invoices (id INTEGER PRIMARY KEY, fence INTEGER)")
        database.execute("PRAGMA user_version = 2")
    return True


def main(locks: Redlock, database: sqlite3.Connection) -> bool:
    election = locks.election("migration", candidate="host-1", info={"version": 2}, ttl=15.0)
    try:
        with election.campaign(timeout=60.0) as term:
            return migrate(database, term)
    except LeadershipLost as error:
        leader = election.leader()
        raise SystemExit(
            f"{error}: {leader.candidate if leader is not None else 'nobody'}"
        ) from None
