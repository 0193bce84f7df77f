"""Admission, rule 7: what all connections know."""

from __future__ import annotations

import pytest

from redlock.core.admission import State
from tests.core.admission.clients import (
    SILENT,
    SPAN,
    WALL,
    client_of,
    fresh_client_sees,
    met,
    quarantined,
    refused,
    renamed,
    states,
)
from tests.core.flows import identity_of


def test_a_reconnect_to_the_same_memory_and_marker_is_admitted_at_once() -> None:
    """Whatever happened to the connection."""
    admission = met(3)
    states(admission, 1.0)
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3), 50.0)
    assert admission.standing(1, 50.0).state is State.ADMITTED


def test_changes_grows_with_everything_that_may_change_a_standing() -> None:
    """Every vote is written as of the newest; a look that finds all as it was makes no vote
    wait."""
    admission = client_of(3)
    told = [admission.changes]
    admission.seen(0, identity_of(0, 3), 0.0)
    told.append(admission.changes)
    admission.failed(1, SILENT)
    told.append(admission.changes)
    assert told == sorted(set(told))
    admission = met(3)
    before = admission.changes
    admission.seen(1, identity_of(1, 3, uptime=1001.0, clock=WALL + 1.0), 1.0)
    assert admission.changes == before
    for change in (
        {"policy": "allkeys-lru"},
        {"evicted": 1},
        {"role": "slave"},
        {"memory": renamed(1)},
        {"marker": ""},
    ):
        admission.seen(1, identity_of(1, 3, **change), 2.0)
        assert admission.changes > before
        before = admission.changes


def test_an_eviction_policy_that_is_set_at_run_time_costs_the_vote_and_what_was_evicted_the_wait() -> (
    None
):
    """Refused while the policy stands; a lock may be among the keys that went."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, policy="allkeys-lru", evicted=3), 5.0)
    assert "may evict locks" in refused(admission.standing(1, 5.0))
    admission.seen(1, identity_of(1, 3, evicted=3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    fresh = fresh_client_sees(identity_of(1, 3, evicted=3), at=10.0)
    assert quarantined(fresh) is not None, "its marker says that it had evicted none"
