"""What a search of the simulator found in the core of an election, each as small as it is."""

from __future__ import annotations

from typing import Any

import pytest

from redlock.core.acquire import Acquisition
from redlock.core.election import Candidacy, Eligible, State, lead
from redlock.core.events import TermRecord
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.term import Mandate, Reason
from redlock.core.timings import ElectionTimings

TIMINGS = ElectionTimings(ttl=15.0)


class Voice:
    """Notes what a candidacy says."""

    def __init__(self) -> None:
        self.ledger: list[TermRecord] = []
        self.asked = 0

    def record(self, record: TermRecord) -> None:
        self.ledger.append(record)

    def stop(self, mandate: Mandate) -> None:
        """The work would hear of it here."""

    def ask_fitness(self, mandate: Mandate) -> None:
        self.asked += 1


def candidacy(**settings: Any) -> Candidacy:
    return Candidacy("r", "a", TIMINGS, Voice(), **settings)


def holding(until: float) -> Holding:
    grant = Grant("r", "redlock:r", "redlock:r:fence", "owner", 7, 60.0)
    return Holding(grant, TIMINGS.ttl, 0.0, until, frozenset({0}))


def ask() -> Acquisition:
    keys = "redlock:r", "redlock:r:fence"
    return Acquisition("r", *keys, TIMINGS.ttl, float("inf"), once=False)


def elected(stands: Candidacy, now: float = 0.0) -> Mandate:
    mandate = stands.granted(holding(now + TIMINGS.validity), now)
    stands.state = State.CANDIDATE
    assert stands.begin(mandate, now)
    return mandate


def test_a_term_that_has_not_begun_does_not_stall() -> None:
    """A lock_delay may be longer than the stall_timeout: there is no work yet."""
    stands = candidacy(stall_timeout=1.0, lock_delay=5.0)
    stands.state = State.CANDIDATE
    mandate = stands.granted(holding(TIMINGS.validity), 0.0)
    assert stands.look(mandate, 5.0)
    assert stands.begin(mandate, 5.0)
    assert stands.look(mandate, 5.9)
    assert not stands.look(mandate, 6.0)
    assert mandate.reason is Reason.STALLED


def test_a_renewal_that_is_tried_again_leaves_eligible_its_time() -> None:
    """No answer until the next renewal is a no; the next try of the same one is no other."""
    stands = candidacy(checks=True)
    mandate = elected(stands)
    asked_at = TIMINGS.renewal
    assert stands.renewing(mandate, asked_at)
    assert stands.renewing(mandate, asked_at + 0.6)
    assert stands.renewing(mandate, asked_at + 1.2)
    assert stands._voice.asked == 1  # type: ignore[attr-defined]
    assert not stands.renewing(mandate, asked_at + TIMINGS.renewal)
    assert mandate.reason is Reason.UNFIT


@pytest.mark.parametrize("fit", [True, False])
def test_a_candidate_that_resigns_while_it_is_asked_has_not_failed(fit: bool) -> None:
    """Whatever the answer: its campaign ends, and nothing is raised or asked for."""
    stands = candidacy(checks=True)
    script = lead(stands, ask, 0.0, again=1.0)
    assert isinstance(next(script), Eligible)
    stands.resign(0.5)
    with pytest.raises(StopIteration):
        script.send((0.6, fit))
    assert stands.state is State.FOLLOWER


def test_nobody_campaigns_on_a_coordinator_that_is_closed() -> None:
    """A campaign that is begun after the close ends before it asks for anything."""
    stands = candidacy()
    stands.close(0.0)
    with pytest.raises(StopIteration):
        next(lead(stands, ask, 0.0, again=1.0))
    assert stands.state is State.CLOSED
    assert isinstance(next(lead(candidacy(), ask, 0.0, again=1.0)), Eligible)
