"""What a search of the simulator found in the core of an election, each as small as it is."""

from __future__ import annotations

from typing import Any

import pytest

from redlock.core.acquire import Acquisition
from redlock.core.election import Begin, Campaign, Candidacy, Eligible, Pause, State, lead
from redlock.core.events import TermRecord
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.policy import Policy
from redlock.core.quorum import Kind, Tally, Vote
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

    def report(self, error: Exception) -> None:
        """Nobody asks for it."""

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


def test_a_candidate_that_is_woken_too_early_waits_on() -> None:
    """What a driver waits for may come for another reason: a lock_delay is over when it is over."""
    stands = candidacy(lock_delay=3.0)
    stands.predecessor.led(3)
    script = lead(stands, ask, 0.0, again=1.0)
    next(script)
    campaign = script.send((0.0, True))
    assert isinstance(campaign, Campaign)
    stands.granted(holding(TIMINGS.validity), 0.0)
    assert script.send((0.0, stands.mandate)) == Pause(3.0)
    assert script.send((2.9, None)) == Pause(3.0)
    assert isinstance(script.send((3.0, None)), Begin)


def test_a_renewal_that_comes_after_the_end_gives_the_work_no_more_time() -> None:
    """It was told by when it must have ended, and what ended later has overrun: it may have been
    stopped by force."""
    stands = candidacy()
    mandate = elected(stands)
    stands.end(mandate, Reason.RESIGNED, 5.0)
    kill_at = mandate.kill_at
    mandate.holding.renewed(TIMINGS.validity + 5.0, TIMINGS.ttl)
    assert mandate.kill_at == kill_at
    mandate.drained(kill_at)
    assert not mandate.may_release


def looked(*votes: Vote) -> Tally:
    tally = Tally(("a", "b", "c"))
    for node, vote in enumerate(votes):
        tally.cast(node, vote)
    return tally


def test_nodes_that_forgot_a_leader_do_not_show_that_it_released() -> None:
    """No fence at all is what a resource shows that was never held; who saw it held knows better."""
    stands = candidacy(lock_delay=5.0)
    predecessor, free = stands.predecessor, Vote(Kind.FREE)
    predecessor.saw(looked(free, free), 1.0)
    assert predecessor.delay(1.0) == 0.0
    held = Vote(Kind.BUSY, 7, 1.0, "owner:7:x")
    predecessor.saw(looked(held, held), 2.0)
    predecessor.saw(looked(free, free), 3.0)
    assert predecessor.delay(3.0) == 5.0
    released = Vote(Kind.FREE, 8)
    predecessor.saw(looked(released, released), 4.0)
    assert predecessor.delay(4.0) == 0.0


def test_a_larger_drift_of_the_timings_makes_every_deadline_earlier() -> None:
    """A lease is judged by the coordinator's drift; the deadlines of a term by the larger one."""
    wide = ElectionTimings(ttl=15.0, drift_factor=0.05)
    under = wide.under(Policy(ttl=15.0, drift_factor=0.01))
    valid_until = 14.848
    assert under.validity == pytest.approx(valid_until)
    for name in ("kill_before", "stop_before", "jeopardy_before"):
        stops_after = wide.validity - getattr(wide, name)
        assert valid_until - getattr(under, name) == pytest.approx(stops_after)
    assert TIMINGS.under(Policy(ttl=15.0, drift_factor=0.02)).drift_factor == 0.02
