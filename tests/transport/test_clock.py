"""The lease clock: which of the system's clocks it is."""

from __future__ import annotations

import time

import pytest

from redlock.transport import clock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux alone has a clock of its own for this")
def test_the_lease_clock_runs_through_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME does; a laptop that slept past its lease would believe in it by CLOCK_MONOTONIC."""
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 7000.0, time.CLOCK_MONOTONIC: 7.0}.__getitem__)
    assert clock.now() == 7000.0
