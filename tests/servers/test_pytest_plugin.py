"""The fixtures of `redlock.pytest_plugin`, in a session as a user has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from redlock import pytest_plugin

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = """
import asyncio

import pytest

import redlock.asyncio
from redlock.client import Redlock

PIDS = []
HELD = []


def test_one(redlock_nodes, redlock_locks):
    assert len(redlock_nodes) == 2 and isinstance(redlock_locks, Redlock)
    PIDS.extend(node.pid for node in redlock_nodes)
    HELD.append(redlock_locks.lock("invoices:42", ttl=60).acquire(timeout=0))
    assert HELD[0].is_held()  # And never released.


def test_two(redlock_nodes, redlock_locks, redlock_prefix):
    assert PIDS == [node.pid for node in redlock_nodes], "the same servers"
    with redlock_nodes[0].client() as client:
        assert not list(client.scan_iter("*:invoices:42")), "what the first test held is given back"
    HELD.append(redlock_locks.lock("invoices:42").acquire(timeout=0))

    async def other():
        async with redlock.asyncio.Redlock(redlock_nodes.urls, key_prefix=redlock_prefix) as locks:
            assert await locks.lock("invoices:42").acquire(timeout=0) is None

    asyncio.run(other())


def test_three(redlock_locks, redlock_nodes):
    with redlock_locks.lock("invoices:42", timeout=0):
        with Redlock(redlock_nodes.urls, key_prefix="redlock:another:") as others:
            with others.lock("invoices:42", timeout=0):
                pass


def test_four(request):
    pytest.importorskip("lupa")
    nodes = request.getfixturevalue("redlock_memory")
    with Redlock(nodes.urls) as locks, locks.lock("invoices:42", timeout=0, ttl=30.0) as lease:
        assert lease.is_held()
"""


def test_the_fixtures_work_in_a_session_of_their_own(tmp_path: Path) -> None:
    """Servers once a session, a coordinator and a prefix for each test, nothing held behind it."""
    (tmp_path / "test_invoices.py").write_text(TESTS, "utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nredlock_nodes = 2\nfilterwarnings =\n  error\n  ignore:2 nodes:UserWarning\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "redlock.pytest_plugin"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"^(4 passed|3 passed, 1 skipped) in", done.stdout, re.M), done


def test_the_plugin_is_declared() -> None:
    """pytest finds it by its entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"redlock": "redlock.pytest_plugin"}


@pytest.mark.parametrize("count", ["0", "three"])
def test_a_count_of_nodes_that_is_none_is_refused_in_words(count: str) -> None:
    """Where it was set, and not as what a constructor made of it."""
    config = SimpleNamespace(getini=lambda name: count)
    with pytest.raises(pytest.UsageError, match="redlock_nodes"):
        pytest_plugin._count(config)  # type: ignore[arg-type]
