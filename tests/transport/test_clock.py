"""The lease clock: which of the system's clocks it is."""

from __future__ import annotations

import os
import time

import pytest

from redlock.transport import clock


@pytest.mark.skipif(
    not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux alone has a clock of its own for this"
)
def test_the_lease_clock_runs_through_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME does; a laptop that slept past its lease would believe in it by
    CLOCK_MONOTONIC."""
    monkeypatch.setattr(
        time, "clock_gettime", {time.CLOCK_BOOTTIME: 7000.0, time.CLOCK_MONOTONIC: 7.0}.__getitem__
    )
    assert clock.now() == 7000.0


def test_every_random_bit_that_is_asked_for_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of the same millisecond differ by ten bits of their tokens: with fewer, more of
    them would propose the same."""
    monkeypatch.setattr(os, "urandom", lambda size: b"\xff" * size)
    assert clock.Entropy().below(1 << 10) == (1 << 10) - 1
    assert clock.Entropy().owner() == "f" * 32
