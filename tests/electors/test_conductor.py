"""The conductor, with electors of the tests' own: two leaders are found where there are two, and
none where there are none; and other libraries' electors, where they can be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.electors.catalogue import ELECTORS, Elector
from chaos.electors.conductor import Stage, TrialFailed
from chaos.electors.faults import FAULTS
from chaos.electors.stores import redis_servers
from chaos.peers.environments import PeerMissing

PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("flag.py")))
LEASE = 0.6


def elector(name: str, *, careful: bool) -> Elector:
    return Elector(name, "", lambda: PROGRAM, redis_servers, LEASE, b"EVAL", {"careful": careful})


@pytest.fixture(scope="module")
def careful() -> Iterator[Stage]:
    with Stage(elector("careful", careful=True), rest=0.3) as stage:
        yield stage


def test_two_leaders_are_found_where_a_flag_says_who_leads() -> None:
    """The old leader works on to the end beside the new one, and that it would have is told."""
    with Stage(elector("flag", careful=False), rest=0.3) as stage:
        trial = stage.play(FAULTS["stopped"])
    assert trial.taken_over and trial.endless and not trial.ended
    assert trial.overlap > LEASE / 4
    assert trial.stop_lag > LEASE / 2
    assert trial.stop_lag <= trial.watched


def test_no_two_leaders_where_each_looks_at_the_clock(careful: Stage) -> None:
    """Another leads after a pause, and the old leader has seen that its lease is over."""
    trial = careful.play(FAULTS["stopped"])
    # After a pause it may leave one more sign, of a piece of work that was begun before it.
    assert trial.overlap == 0.0 and not trial.endless
    assert trial.taken_over and trial.gap > 0.1 * LEASE


def test_a_leader_that_was_killed_is_followed(careful: Stage) -> None:
    """Its signs are there although it wrote them last; the others wait for its lease."""
    trial = careful.play(FAULTS["killed"])
    assert (trial.overlap, trial.stop_lag, trial.ended, trial.taken_over) == (0, 0, True, True)
    assert 0.5 * LEASE < trial.gap < 3 * LEASE


def test_work_that_is_deaf_is_seen_past_the_lease(careful: Stage) -> None:
    """The most careful elector cannot stop a work that does not look: that is what it shows."""
    trial = careful.play(FAULTS["stubborn"])
    assert trial.taken_over and trial.overlap > LEASE / 4 and trial.stop_lag > LEASE / 4
    assert not trial.endless


def test_a_candidate_that_does_not_start_is_told_with_its_last_words() -> None:
    """One line."""
    words = (sys.executable, "-c", "import sys; sys.exit('there is no such library')")
    broken = Elector("broken", "", lambda: words, redis_servers, LEASE, b"EVAL")
    with Stage(broken) as stage, pytest.raises(TrialFailed, match="there is no such library"):
        stage.play(FAULTS["cut"])


def test_another_library_is_played() -> None:
    """In an environment of its own, built if need be. This one looks at the clock."""
    try:
        with Stage(ELECTORS["multibeat"], rest=0.3) as stage:
            trial = stage.play(FAULTS["cut"])
    except PeerMissing as missing:
        pytest.skip(str(missing))
    assert trial.taken_over and not trial.endless
    assert trial.overlap == 0.0
