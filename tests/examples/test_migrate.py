"""The migration of the examples: ten processes at once, and the one that migrates is killed."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from examples.migrate import STEPS, Database, StaleToken
from redlock.embedded import Nodes

from .crew import Crew


def test_ten_replicas_migrate_once_though_the_one_that_does_is_killed(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Each step is made once and in its order, by two of them with rising tokens; the other
    nine see it done and end well."""
    path = tmp_path / "app.db"
    with Crew(nodes.urls) as crew:
        pids = [crew.start("examples/migrate.py", str(path), "--ttl", "2") for _ in range(10)]
        killed, _ = crew.hear("made version 1")
        crew.tell(killed, signal.SIGKILL)
        assert [crew.end(pid) for pid in pids if pid != killed] == [0] * 9, crew.told()
        assert crew.end(killed) == -signal.SIGKILL
    told = crew.told()
    assert told.count(f"starts, on version {len(STEPS)}") == 9, told
    with closing(sqlite3.connect(path)) as db:
        steps = db.execute("SELECT version, token, pid FROM steps ORDER BY rowid").fetchall()
        users = db.execute("SELECT name, email FROM users").fetchall()
    assert [version for version, *_ in steps] == [1, 2, 3, 4, 5], told
    tokens = [token for _, token, _ in steps]
    assert tokens == sorted(tokens), told
    assert steps[0][2] == killed != steps[-1][2], told
    assert users[0] == ("Ada", "ada@example.org") and len(users) == 3


def test_the_database_takes_no_step_from_a_smaller_token(tmp_path: Path) -> None:
    """Nor does it count one that was refused."""
    database = Database(str(tmp_path / "app.db"))
    assert [database.step(1), database.step(2)] == [1, 2]
    with pytest.raises(StaleToken):
        database.step(1)
    assert database.version() == 2
    for _ in STEPS:
        database.step(2)
    assert database.version() == len(STEPS)
