"""The simulator reaches the whole core: every line, and nearly every branch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(400)
def test_the_simulator_reaches_every_line_of_the_core() -> None:
    """As `python -m chaos sim --cover` tells, in a process of its own: the core was imported
    here before."""
    ended = subprocess.run(
        [sys.executable, "-m", "chaos", "sim", "--cover"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "lines 100.00 %" in ended.stdout
