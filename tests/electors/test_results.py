"""Results as data: the worst of each, and back from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.electors.conductor import Trial
from chaos.electors.results import Results, summary


def trial(**what: object) -> Trial:
    plain: dict[str, object] = {
        "elector": "flag",
        "fault": "cut",
        "number": 1,
        "lease": 1.0,
        "overlap": 0.0,
        "stop_lag": 0.0,
        "endless": False,
        "gap": 0.0,
        "taken_over": True,
        "ended": False,
        "watched": 4.0,
    }
    return Trial(**{**plain, **what})  # type: ignore[arg-type]


def test_a_summary_shows_the_worst_of_each() -> None:
    """And results come back from a file as they went."""
    trials = [
        trial(overlap=0.5, gap=1.0),
        trial(number=2, stop_lag=2.0, endless=True, gap=3.0, ended=True),
        trial(fault="mute", taken_over=False),
    ]
    cut, mute = summary(trials)
    assert (cut.overlap, cut.stop_lag, cut.endless, cut.gap) == (0.5, 2.0, True, 2.0)
    assert (cut.trials, cut.taken_over, cut.ended) == (2, 2, 1)
    assert (mute.fault, mute.taken_over) == ("mute", 0)
    results = Results(trials, ["no environment"], {"cut": "a black hole"})
    assert Results.from_json(results.to_json()) == results


def test_results_are_kept_in_a_file(tmp_path: Path) -> None:
    """What is saved is what is loaded."""
    results = Results([trial()], [], {})
    results.save(tmp_path / "electors.json")
    assert Results.load(tmp_path / "electors.json") == results
    with pytest.raises(FileNotFoundError):
        Results.load(tmp_path / "nothing.json")
