"""How long who waits pauses, by how long it has waited and what became of its tries."""

from __future__ import annotations

from redlock.core.line import LOOK_MAX, LOOK_MIN, look_after, try_after


def test_a_try_in_vain_is_repeated_soon_and_then_no_more_often_than_looks() -> None:
    """However many there were: a node may refuse for days."""
    assert [try_after(failed, 0.0) for failed in (1, 2, 3)] == [0.002, 0.004, 0.008]
    for waited in (0.0, 0.5, 1e6):
        assert try_after(100, waited) == try_after(10**6, waited) == look_after(waited)
    assert (look_after(0.0), look_after(1e6)) == (LOOK_MIN, LOOK_MAX)
