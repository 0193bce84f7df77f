"""One run directory for all tests of the page: controls, scenarios that held, one that did not, and peers."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.material import observed, result_of, write_run

CONTROLS = {
    "C1": ("owner reused", 1, "verify"),
    "C2": ("release deletes anything", 3, "contend"),
    "C3": ("no fence", 3, "contend"),
}
SEEDS = {"S01": (3, "hold"), "S02": (7, "contend"), "S03": (14, "hold")}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory, without its report."""
    results = []
    for scenario, (bug, seed, workload) in CONTROLS.items():
        outcome = observed(seed, workload, bug)
        results.append((result_of(outcome, scenario, bug, expected="must fail"), outcome.history))
    for scenario, (seed, workload) in SEEDS.items():
        outcome = observed(seed, workload)
        results.append((result_of(outcome, scenario, f"{workload} with seed {seed}"), outcome.history))
    peer = observed(3, "contend", "release deletes anything")
    results.append((result_of(peer, "S02", "contend with seed 7", kind="redlock-py"), peer.history))
    return write_run(tmp_path_factory.mktemp("run"), results)
