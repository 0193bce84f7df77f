"""The migration of the examples: ten processes at once, and the one that migrates is killed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from examples.migrate import STEPS, Database, StaleToken
from redlock.embedded import Nodes

from .crew import Crew
from .replicas import COUNT


def test_ten_replicas_migrate_once_though_the_one_that_does_is_killed(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Each step is made once and in its order, by two of them with rising tokens; the other
    nine see it done and end well."""
    path = tmp_path / "app.db"
    with Crew(nodes.urls) as crew:
        starter = crew.start("tests/examples/replicas.py", str(path), "--ttl", "2")
        _, heard = crew.hear("made version 1")
        killed = int(crew.said[heard - 1][1].split()[0])
        os.kill(killed, signal.SIGKILL)
        assert crew.end(starter) == 0
    told = crew.told()
    ends = dict(re.findall(r"(\d+) ended with (\S+)", told))
    assert ends.pop(str(killed)) == str(-signal.SIGKILL), told
    assert list(ends.values()) == ["0"] * (COUNT - 1), told
    assert told.count(f"starts, on version {len(STEPS)}") == COUNT - 1, told
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
