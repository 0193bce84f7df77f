"""One run directory for all tests of the page: controls, scenarios that held, one that did not,
and peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.material import a_find, calm_runs, result_of, write_run

CONTROLS = {"C1": "release deletes anything", "C2": "majority is half", "C3": "token not compared"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory, without its report."""
    results = []
    for scenario, bug in CONTROLS.items():
        outcome = a_find(bug)
        results.append((result_of(outcome, scenario, bug, expected="must fail"), outcome.history))
    for number, outcome in enumerate(calm_runs(3), 1):
        results.append((result_of(outcome, f"S{number:02}", "clients contend"), outcome.history))
    peer = a_find("release deletes anything", "ME")
    results.append((result_of(peer, "S02", "clients contend", kind="redlock-py"), peer.history))
    return write_run(tmp_path_factory.mktemp("run"), results)
