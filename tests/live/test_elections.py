"""What is measured of elections: terms read out of a history, figures against bars that can be
missed, and a short measurement on real servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.history import Led, Note, Record, Seen, Stopped
from chaos.live.elections import KINDS, Kind, Loss, Losses, every_fault, resignations
from chaos.live.measuring import Figure, Played, figures_of
from chaos.live.observer import holder
from chaos.live.program import REDLOCK
from chaos.live.runner import Outcome, Runner
from chaos.live.scenario import Scenario
from chaos.reigns import figures, gaps, reigns
from redlock.core.events import (
    LeaseRenewed,
    TermEnded,
    TermInJeopardy,
    TermStarted,
    TermStopped,
    TermStopping,
)


def term(
    client: str, token: int, since: float, *, valid: float = 1.0, killed_at: float | None = None
) -> list[Record]:
    """A term that is renewed once, after a quarter of its validity, and told to stop 0.3 s before
    its end; its work ends 0.1 s later."""
    who, until = ("r", client, token), since + valid
    renewed = since + valid / 4
    records: list[Record] = [
        Seen(since, client, TermStarted(since, *who, until, until - 0.3)),
        Seen(renewed, client, LeaseRenewed(renewed, "r", "o", token, renewed + valid)),
        Led(renewed + 0.1, client, "r", token, 0.5),
    ]
    if killed_at is not None:
        return [*records, Stopped(killed_at, client, "r", token, "killed")]
    stop_at, left = renewed + valid - 0.3, 0.2
    return [
        *records,
        Seen(stop_at - 0.1, client, TermInJeopardy(stop_at - 0.1, *who, stop_at + 0.3, stop_at)),
        Seen(stop_at, client, TermStopping(stop_at, *who, "renewal_failed", 0.002, 0.3)),
        Note(stop_at + 0.004, client, "told to stop", str(token)),
        Seen(stop_at + 0.1, client, TermStopped(stop_at + 0.1, *who, "renewal_failed", left)),
        Seen(
            stop_at + 0.1,
            client,
            TermEnded(stop_at + 0.1, *who, "renewal_failed", False, left, ""),
        ),
    ]


def test_a_term_is_read_from_its_records() -> None:
    """Its deadlines as renewed, its states, what it said, and when the work heard of the stop."""
    (reign,) = reigns(term("c1", 7, 10.0))
    assert (reign.stop_at, reign.valid_until) == pytest.approx((10.95, 11.25))
    assert reign.told_at == pytest.approx(10.954)
    assert reign.led_at == pytest.approx(10.35) and reign.reason == "renewal_failed"
    assert [state for state, _, _ in reign.states(99.0)] == ["leader", "jeopardy", "stepping"]
    assert reign.over_at == reign.work_ended_at == pytest.approx(11.05)


def test_the_time_to_the_next_leader_counts_from_the_end_of_the_last() -> None:
    """From its stop, or its process's end; elections do not mix."""
    history = [*term("c1", 7, 10.0, killed_at=10.5), *term("c2", 8, 11.3)]
    assert [gap for _, _, gap in gaps(reigns(history))] == pytest.approx([0.8])
    found = figures(history)
    assert found["terms"] == 2 and found["term_reasons"] == {"renewal_failed": 1}
    assert found["least_margin"] == pytest.approx(0.2) and found["overrun_terms"] == 0
    assert found["next_leader_max"] == pytest.approx(0.8)
    assert figures([]) == {}


def test_a_lock_with_a_candidates_note_has_its_token() -> None:
    """The note has colons of its own; a value without a token is an owner."""
    note = b'0123456789abcdef:42:42:["c1",{"a":"b"}]'
    assert holder(note) == ("01234567", 42)
    assert holder(b"0123456789abcdef:42") == ("01234567", 42)
    assert holder(b"somebody else's") == ("somebody", 0)
    assert holder(None) == ("", 0)


def kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def played(script: Losses, *losses: Loss, history: list[Record]) -> Played:
    """A run that was not played: its losses, and the history behind them."""
    scenario, _ = every_fault(1, 1.0, lambda line: None)
    script.losses, script.round_trip = list(losses), 0.001
    return Played.of(Outcome(scenario, REDLOCK, 0, 1.0, "safe", True, "", history=history), script)


def measured(*losses: Loss, history: list[Record], run: str = "every_fault") -> dict[str, Figure]:
    """Figures by their first words."""
    script = Losses(len(losses), lambda number, api: KINDS[0])
    found = figures_of({run: played(script, *losses, history=history)}, 1.0)
    return {figure.what.partition(",")[0]: figure for figure in found}


CUT = Loss(kind("cut off"), "c1", 7, 10.3, 11.25, 0.98, "renewal_failed")
TWO = [*term("c1", 7, 10.0), *term("c2", 8, 11.3)]


def test_what_keeps_to_its_bar_holds() -> None:
    """One loss, in order."""
    found = measured(CUT, history=TWO)
    assert all(figure.holds for figure in found.values())
    assert found["stop deadline to stop signal"].value.startswith("p50 2.00 ms, p99 2.00 ms")
    assert found["reasons that name the fault"].value == "1 of 1"


@pytest.mark.parametrize(
    ("figure", "loss", "history"),
    [
        ("two believed to lead at once", CUT, [*term("c1", 7, 10.0), *term("c2", 8, 10.2)]),
        ("candidates idle after 1 losses", replace(CUT, stood_again=False), TWO),
        ("reasons that name the fault", replace(CUT, reason="expired"), TWO),
        (
            "stop deadline to stop signal",
            CUT,
            [
                replace(record, event=replace(record.event, lag=0.02))
                if isinstance(record, Seen) and isinstance(record.event, TermStopping)
                else record
                for record in TWO
            ],
        ),
        (
            "least validity left when the work had stopped",
            CUT,
            [
                replace(record, event=replace(record.event, margin=-0.01))
                if isinstance(record, Seen) and isinstance(record.event, TermStopped)
                else record
                for record in TWO
            ],
        ),
    ],
)
def test_what_misses_its_bar_is_found(figure: str, loss: Loss, history: list[Record]) -> None:
    """Each bar, by a history that is wrong in that alone."""
    found = measured(loss, history=history)
    assert not found[figure].holds, found[figure]


@pytest.mark.parametrize(
    ("run", "took", "figure"),
    [
        ("kills", 1.102, "next leader after SIGKILL"),
        ("resignations", 0.056, "next leader after a resignation"),
    ],
)
def test_a_next_leader_that_is_late_is_found(run: str, took: float, figure: str) -> None:
    """A millisecond above the bar is above it, and one below is not."""
    late = measured(replace(CUT, took=took), history=TWO, run=run)
    assert not late[figure].holds
    assert measured(replace(CUT, took=took - 0.002), history=TWO, run=run)[figure].holds


@pytest.mark.parametrize(
    ("make", "count"),
    [(resignations, 3), (every_fault, 4)],
    ids=["resignations", "every fault"],
)
def test_a_short_measurement_comes_to_its_end(
    runner: Runner,
    make: Callable[[int, float, Callable[[str], None]], tuple[Scenario, Losses]],
    count: int,
) -> None:
    """On real servers: every loss has its term, its successor, and a reason that fits; two never
    lead at once."""
    scenario, script = make(count, 1.0, lambda line: None)
    outcome = runner.run(scenario)
    assert outcome.ok, f"{outcome.why}\n{outcome.violations}\n{runner.errors()}"
    assert len(script.losses) == count
    done = {
        figure.what.partition(",")[0]: figure
        for figure in figures_of({make.__name__: Played.of(outcome, script)}, 1.0)
    }
    assert done["two believed to lead at once"].holds
    for loss in script.losses:
        assert loss.stood_again and (not loss.kind.reasons or loss.reason in loss.kind.reasons)
