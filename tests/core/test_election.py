"""The candidacy and its script, without a driver: the table, what ends a term and why, and the
order of the steps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redlock.core.acquire import Acquisition
from redlock.core.candidate import Candidate, leader_of
from redlock.core.election import (
    TABLE,
    Begin,
    Campaign,
    Candidacy,
    Eligible,
    Finish,
    Move,
    Pause,
    Release,
    Say,
    State,
    Step,
    Work,
    lead,
)
from redlock.core.events import (
    TermEnded,
    TermInJeopardy,
    TermRecord,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.predecessor import Predecessor
from redlock.core.quorum import Kind, Tally, Vote
from redlock.core.term import Mandate, Reason
from redlock.core.timings import ElectionTimings
from redlock.errors import CandidateUnfit, ConfigurationError

TIMINGS = ElectionTimings(ttl=10.0, jeopardy=1.0, stop=2.0, kill=1.0, slack=0.5)
"""Jeopardy at 5.898, stop at 6.898, kill at 8.898, end at 9.898."""
EVERYONE = frozenset(range(5))


class Ear:
    """Keeps what a candidacy says."""

    def __init__(self) -> None:
        self.records: list[TermRecord] = []
        self.stopped: list[Mandate] = []
        self.asked: list[Mandate] = []
        self.reported: list[Exception] = []

    def record(self, record: TermRecord) -> None:
        self.records.append(record)

    def stop(self, mandate: Mandate) -> None:
        self.stopped.append(mandate)

    def ask_fitness(self, mandate: Mandate) -> None:
        self.asked.append(mandate)

    def report(self, error: Exception) -> None:
        self.reported.append(error)

    @property
    def kinds(self) -> list[type]:
        return [type(record) for record in self.records]


def holding(token: int = 7, at: float = 0.0) -> Holding:
    grant = Grant("r", "r", "r:fence", "o", token, 60.0)
    return Holding(grant, 10.0, at, at + TIMINGS.validity, EVERYONE)


def led(ear: Ear, **options: Any) -> tuple[Candidacy, Mandate]:
    """A candidacy that leads since 0."""
    candidacy = Candidacy("r", "c", TIMINGS, ear, **options)
    candidacy.move(Move.CAMPAIGN)
    mandate = candidacy.granted(holding(), 0.0)
    assert candidacy.begin(mandate, 0.0)
    return candidacy, mandate


def test_the_table_has_one_row_for_each_state_and_move() -> None:
    """Every state is reached, and only a closed candidate stays where it is."""
    assert len({(row.state, row.move) for row in TABLE}) == len(TABLE)
    assert {row.next for row in TABLE} == set(State)
    assert {row.state for row in TABLE} == set(State) - {State.CLOSED}
    assert {row.says for row in TABLE if row.says} == set(Say)


@given(st.lists(st.sampled_from(list(Move)), max_size=30))
def test_no_moves_lead_from_a_lost_term_back_to_it(moves: list[Move]) -> None:
    """Whatever comes in whatever order: between two times as a leader it has stepped down and was
    elected anew; nothing moves a closed candidate."""
    candidacy = Candidacy("r", "c", TIMINGS, Ear())
    seen = [candidacy.state]
    for move in moves:
        before = candidacy.state
        candidacy.move(move)
        assert before is not State.CLOSED or candidacy.state is State.CLOSED
        seen.append(candidacy.state)
    for before, after in itertools.pairwise(seen):
        if before is State.STEPPING_DOWN:
            assert after in (State.STEPPING_DOWN, State.FOLLOWER)
        if after is State.LEADER and before is not after:
            assert before in (State.CANDIDATE, State.JEOPARDY)


@pytest.mark.parametrize(
    ("at", "failing", "reason", "due_at"),
    [
        (6.898, False, Reason.EXPIRED, 6.898),
        (6.898, True, Reason.RENEWAL_FAILED, 6.898),
        (99.0, False, Reason.EXPIRED, 6.898),
    ],
)
def test_a_term_ends_at_its_stop_deadline(
    at: float, failing: bool, reason: Reason, due_at: float
) -> None:
    """Whoever looks; told once, with how late it was found and what is left."""
    ear = Ear()
    candidacy, mandate = led(ear)
    mandate.failing = failing
    assert mandate.leads(6.897)
    assert not mandate.leads(6.898)
    assert not candidacy.look(mandate, at)
    assert not candidacy.look(mandate, at + 1.0)
    candidacy.end(mandate, Reason.RESIGNED, at + 1.0)
    assert mandate.reason is reason
    assert ear.stopped == [mandate]
    (stopping,) = [record for record in ear.records if isinstance(record, TermStopping)]
    assert stopping.lag == pytest.approx(at - due_at)
    assert stopping.margin == pytest.approx(9.898 - at)


def test_the_deadlines_move_with_a_renewal_and_with_nothing_else() -> None:
    """In jeopardy, safe, and in jeopardy again."""
    ear = Ear()
    candidacy, mandate = led(ear)
    assert candidacy.look(mandate, 5.0)
    assert candidacy.look(mandate, 6.0)
    assert str(candidacy.state) == "jeopardy"
    assert candidacy.look(mandate, 6.1)
    mandate.holding.renewed(6.1 + TIMINGS.validity, 10.0)
    assert candidacy.look(mandate, 6.2)
    assert str(candidacy.state) == "leader"
    assert candidacy.look(mandate, 12.5)
    assert ear.kinds == [TermStarted, TermInJeopardy, TermSafe, TermInJeopardy]


def test_a_lost_lease_ends_the_term_at_the_next_look() -> None:
    """Before its deadline: a majority said that it is somebody else's."""
    ear = Ear()
    candidacy, mandate = led(ear)
    mandate.holding.lose("a majority of the nodes does not hold it any more")
    assert not mandate.leads(1.0)
    assert not candidacy.look(mandate, 1.0)
    assert mandate.reason is Reason.CONTENDED


def test_a_machine_that_slept_ends_the_term() -> None:
    """However short: timers and connections of the work slept as well."""
    slept = [100.0]
    ear = Ear()
    candidacy, mandate = led(ear, slept=lambda: slept[0])
    assert candidacy.look(mandate, 1.0)
    slept[0] += 0.2
    assert not mandate.leads(1.2)
    assert not candidacy.look(mandate, 1.2)
    assert mandate.reason is Reason.SUSPENDED


def test_work_that_does_not_tick_is_stalled() -> None:
    """And a process that stood still is not called that: its deadline comes first."""
    ear = Ear()
    candidacy, mandate = led(ear, stall_timeout=1.0)
    mandate.progress_at = 0.9
    assert candidacy.look(mandate, 1.89)
    assert mandate.remaining(1.5) == pytest.approx(0.4)
    assert not mandate.leads(1.9)
    assert not candidacy.renewing(mandate, 1.9)
    assert mandate.reason is Reason.STALLED
    ear = Ear()
    candidacy, mandate = led(ear, stall_timeout=1.0)
    assert not candidacy.look(mandate, 7.0)
    assert mandate.reason is Reason.EXPIRED


def test_fitness_is_asked_at_every_renewal() -> None:
    """No ends the term at once, and no answer at the next renewal."""
    ear = Ear()
    candidacy, mandate = led(ear, checks=True)
    assert candidacy.renewing(mandate, 2.5)
    candidacy.fitness(mandate, True, 2.6)
    assert candidacy.renewing(mandate, 3.0)
    assert candidacy.renewing(mandate, 3.5)  # A retry, which leaves nobody the time to answer.
    assert not candidacy.renewing(mandate, 5.5)
    assert mandate.reason is Reason.UNFIT
    candidacy, mandate = led(ear, checks=True)
    assert candidacy.renewing(mandate, 2.5)
    candidacy.fitness(mandate, False, 2.6)
    assert mandate.reason is Reason.UNFIT
    assert len(ear.asked) == 3


class Played:
    """A script, played by hand: each step and its answer."""

    def __init__(self, candidacy: Candidacy, *, again: float | None = None) -> None:
        ask = Acquisition("r", "r", "r:fence", 10.0, float("inf"), once=False)
        self.script = lead(candidacy, lambda: ask, 0.0, again=again)
        self.step: Step | None = next(self.script)

    def answer(self, at: float, value: Any = None) -> Step | None:
        try:
            self.step = self.script.send((at, value))
        except StopIteration:
            self.step = None
        return self.step


def elected(candidacy: Candidacy, played: Played, at: float = 0.0) -> Mandate:
    assert isinstance(played.step, Eligible)
    assert isinstance(played.answer(at, True), Campaign)
    mandate = candidacy.granted(holding(at=at), at)
    assert isinstance(played.answer(at, mandate.holding), Begin)
    return mandate


def test_the_order_of_a_term() -> None:
    """Begin, work, finish, release; and the ledger beside it."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy)
    mandate = elected(candidacy, played)
    assert isinstance(played.answer(0.1), Work)
    assert str(candidacy.state) == "leader"
    assert played.answer(3.0) == Finish(mandate, Reason.WORK_ENDED)
    assert str(candidacy.state) == "stepping_down"
    assert isinstance(played.answer(3.1), Release)
    assert played.answer(3.2, True) is None
    assert candidacy.state is State.FOLLOWER
    assert ear.kinds == [TermStarted, TermStopping, TermStopped, TermEnded]


@pytest.mark.parametrize(("work", "told"), [(8.897, 8.898), (9.0, 9.1), (20.0, 20.0)])
def test_what_overran_its_kill_deadline_is_not_released(work: float, told: float) -> None:
    """Whether the work was late, or what it was told."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy)
    elected(candidacy, played)
    played.answer(0.1)
    assert isinstance(played.answer(work), Finish)
    assert played.answer(told) is None
    ended = ear.records[-1]
    assert isinstance(ended, TermEnded)
    assert not ended.released


def test_a_term_that_is_over_before_its_work_begins_has_none() -> None:
    """`on_started` took too long: it is followed by `on_stopped`, and by nothing in between."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy)
    mandate = elected(candidacy, played)
    assert played.answer(7.0) == Finish(mandate, Reason.EXPIRED)


def test_an_error_of_the_work_counts_as_a_resignation_and_backs_off() -> None:
    """The pause doubles while it fails, is bounded, and is short again behind a term that went
    well."""
    candidacy = Candidacy("r", "c", TIMINGS, Ear())
    played = Played(candidacy, again=0.1)
    at, pauses = 0.0, []
    for number in range(10):
        mandate = elected(candidacy, played, at)
        assert isinstance(played.answer(at), Work)
        failed = number < 8
        assert isinstance(played.answer(at + 1.0, ValueError("x") if failed else None), Finish)
        assert mandate.reason is (Reason.RESIGNED if failed else Reason.WORK_ENDED)
        assert isinstance(played.answer(at + 1.0), Release)
        step = played.answer(at + 1.0, True)
        assert isinstance(step, Pause)
        pauses.append(round(step.until - at - 1.0, 6))
        at = step.until
        played.answer(at)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2, 3.2, 0.1, 0.1]


def test_what_is_no_error_of_the_work_comes_out_behind_the_release() -> None:
    """A Ctrl-C, a cancel."""
    candidacy = Candidacy("r", "c", TIMINGS, Ear())
    played = Played(candidacy, again=0.1)
    elected(candidacy, played)
    played.answer(0.1)
    assert isinstance(played.answer(1.0, KeyboardInterrupt()), Finish)
    assert isinstance(played.answer(1.0), Release)
    with pytest.raises(KeyboardInterrupt):
        played.answer(1.0, True)
    assert candidacy.state is State.FOLLOWER


def test_a_resignation_ends_a_campaign_and_a_pause() -> None:
    """And no campaign comes after it."""
    candidacy = Candidacy("r", "c", TIMINGS, Ear())
    played = Played(candidacy, again=0.1)
    assert isinstance(played.answer(0.0, True), Campaign)
    candidacy.resign(0.1)
    assert candidacy.ask is not None
    assert candidacy.ask.give_up_at == float("-inf")
    assert played.answer(0.2, None) is None
    assert candidacy.state is State.FOLLOWER


def test_nodes_that_refuse_who_they_let_in_before_are_asked_again() -> None:
    """For a moment no password of the fleet is right: whoever runs for ever goes on, after a
    pause. Who was never let in is told at once."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy, again=0.1)
    assert isinstance(played.answer(0.0, True), Campaign)
    with pytest.raises(ConfigurationError):
        played.script.throw(ConfigurationError("wrong password"))
    candidacy.predecessor.saw(look((FREE, 0), (FREE, 0), (FREE, 0)), 0.0)
    played = Played(candidacy, again=0.1)
    for number in range(3):
        assert isinstance(played.answer(float(number), True), Campaign)
        assert isinstance(played.script.throw(ConfigurationError("wrong password")), Pause)
        step = played.answer(float(number))
        assert step == Pause(number + 0.1 * 2 ** (number + 1))
        assert isinstance(played.answer(number + 1.0), Eligible)
    assert len(ear.reported) == 3
    assert candidacy.state is State.CANDIDATE


def test_an_unfit_candidate_gives_up_at_its_time() -> None:
    """And asks again until then."""
    candidacy = Candidacy("r", "c", TIMINGS, Ear())
    ask = Acquisition("r", "r", "r:fence", 10.0, 3.0, once=False)
    script = lead(candidacy, lambda: ask, 0.0, again=None)
    assert isinstance(next(script), Eligible)
    step = script.send((0.0, False))
    assert step == Pause(2.5)
    assert isinstance(script.send((2.5, None)), Eligible)
    assert script.send((2.5, False)) == Pause(3.0)
    script.send((3.0, None))
    with pytest.raises(CandidateUnfit):
        script.send((3.0, False))
    assert candidacy.state is State.FOLLOWER


def test_who_was_elected_after_a_long_wait_is_asked_anew() -> None:
    """And gives the lock back without a word if it is not fit any more."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy)
    played.answer(0.0, True)
    candidacy.granted(holding(at=100.0), 100.0)
    assert isinstance(played.answer(100.0, candidacy.mandate), Eligible)
    assert isinstance(played.answer(100.1, False), Release)
    assert ear.records == []
    assert isinstance(played.answer(100.2, True), Eligible)


def test_a_close_ends_the_term_and_then_the_candidate() -> None:
    """Nothing is campaigned for after it."""
    ear = Ear()
    candidacy = Candidacy("r", "c", TIMINGS, ear)
    played = Played(candidacy, again=0.1)
    mandate = elected(candidacy, played)
    played.answer(0.1)
    candidacy.close(1.0)
    assert str(candidacy.state) == "stepping_down"
    assert played.answer(1.1) == Finish(mandate, Reason.CLOSED)
    played.answer(1.1)
    assert played.answer(1.2, True) is None
    assert candidacy.state is State.CLOSED


# Who led before


def look(*votes: tuple[Kind, int]) -> Tally:
    """A look at nodes of which each holds a token, or is free behind a fence."""
    tally = Tally([f"n{number}" for number in range(len(votes))])
    for node, (kind, number) in enumerate(votes):
        holder = f"01234567:{number}:1:[]" if kind is Kind.BUSY else ""
        tally.cast(node, Vote(kind, number if kind is Kind.FREE else 0, holder=holder))
    return tally


BUSY, FREE = Kind.BUSY, Kind.FREE


def test_a_release_is_known_by_who_saw_the_term() -> None:
    """A majority held the token, and then a majority is free behind exactly one more."""
    before = Predecessor(5.0)
    before.saw(look((FREE, 0), (FREE, 0), (FREE, 0)), 0.0)
    assert before.delay(0.0) == 0.0  # Nobody ever led.
    before.saw(look((BUSY, 7), (BUSY, 7), (FREE, 0)), 1.0)
    before.saw(look((FREE, 8), (FREE, 8), (FREE, 3)), 2.0)
    assert before.delay(2.0) == 0.0


@pytest.mark.parametrize(
    "fences", [(7, 7, 7), (8, 7, 8 + 4), (9, 9, 9), (8, 12, 13)], ids=lambda fences: str(fences)
)
def test_who_expired_is_waited_for(fences: tuple[int, int, int]) -> None:
    """No majority of fences one past the token: it was not given back, or nobody can tell."""
    before = Predecessor(5.0)
    before.saw(look((FREE, 0), (FREE, 0), (FREE, 0)), 0.0)
    before.saw(look((BUSY, 7), (BUSY, 7), (BUSY, 7)), 1.0)
    before.saw(look(*((FREE, fence) for fence in fences)), 2.0)
    assert before.delay(3.0) == 5.0


def test_who_never_saw_a_term_waits() -> None:
    """A fence without a holder says that somebody led, and not how that ended."""
    before = Predecessor(5.0)
    before.saw(look((FREE, 8), (FREE, 8), (FREE, 8)), 0.0)
    assert before.delay(0.0) == 5.0


def test_a_short_term_after_one_that_expired_does_not_shorten_the_delay() -> None:
    """It released, and the one before it did not: the delay runs from when that was seen."""
    before = Predecessor(5.0)
    before.saw(look((FREE, 0), (FREE, 0), (FREE, 0)), 0.0)
    before.saw(look((BUSY, 7), (BUSY, 7), (BUSY, 7)), 1.0)
    before.saw(look((BUSY, 20), (BUSY, 20), (BUSY, 20)), 10.0)
    before.saw(look((FREE, 21), (FREE, 21), (FREE, 21)), 11.0)
    assert before.delay(11.0) == 4.0
    assert before.delay(15.0) == 0.0


# What nodes keep of a candidate


@given(
    st.text(min_size=1, max_size=100), st.dictionaries(st.text(max_size=20), st.text(max_size=9))
)
def test_a_note_is_read_as_it_was_written(name: str, info: dict[str, str]) -> None:
    """Whatever a name and its information are made of."""
    try:
        candidate = Candidate(name, info)
    except ValueError:
        return
    value = f"01234567:42:{candidate.note(1_700_000_000_123_456)}"
    tally = Tally(["a", "b", "c"])
    for node in range(2):
        tally.cast(node, Vote(BUSY, 41, 1.0, value))
    leader = leader_of(tally)
    assert leader is not None
    assert (leader.candidate, leader.info, leader.fencing_token) == (name, info, 42)
    assert leader.since == pytest.approx(1_700_000_000.123456)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "01234567:42",
        "01234567:42:7:",
        "01234567:42:7:[1,2]",
        "01234567:42:7:{}",
        "a:b:c:[]",
        '1:2:3:"xy"',
        "1:2:" + "9" * 24 + ':["a",{}]',
        "1:" + "9" * 24 + ':3:["a",{}]',
        '1:\u0661:3:["a",{}]',
        '1:2:\u00b2:["a",{}]',
        '1:2:3:["a",{"x":NaN}]',
        "1:2:3:" + "[" * 1200,
    ],
)
def test_who_is_no_candidate_does_not_lead(value: str) -> None:
    """A lock, a foreign one, nonsense."""
    tally = Tally(["a", "b", "c"])
    for node in range(3):
        tally.cast(node, Vote(BUSY, 41, 1.0, value))
    assert leader_of(tally) is None


def test_a_minority_does_not_say_who_leads() -> None:
    """Nor two that disagree."""
    tally = Tally(["a", "b", "c"])
    for node, token in enumerate((42, 43)):
        tally.cast(node, Vote(BUSY, 41, 1.0, f"01234567:{token}:{Candidate('x').note(1)}"))
    assert leader_of(tally) is None
