"""Results as data: what a table or a page shows of trials. Nothing here runs anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from chaos.electors.conductor import Trial

__all__ = ["Cell", "Results", "summary"]


@dataclass(frozen=True, slots=True)
class Cell:
    """An elector under a fault, over all its trials: the worst of each in seconds, the gap as the
    median. *endless*: in one trial at least the old leader still worked when it ended, so that
    *overlap* and *stop_lag* are lower bounds. *taken_over*: in how many trials another led
    afterwards; *ended*: in how many the old leader's process ended by itself."""

    elector: str
    fault: str
    trials: int
    lease: float
    overlap: float
    stop_lag: float
    endless: bool
    gap: float
    taken_over: int
    ended: int


def summary(trials: Sequence[Trial]) -> list[Cell]:
    """One cell for each elector and fault that was played, in the order of the trials."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.elector, trial.fault), []).append(trial)
    return [
        Cell(
            elector,
            fault,
            len(group),
            group[0].lease,
            max(one.overlap for one in group),
            max(one.stop_lag for one in group),
            any(one.endless for one in group),
            median(one.gap for one in group),
            sum(one.taken_over for one in group),
            sum(one.ended for one in group),
        )
        for (elector, fault), group in groups.items()
    ]


@dataclass(frozen=True, slots=True)
class Results:
    """All trials of a run. *missing*: of electors and trials that could not be played, why, a line
    each. *texts*: how each elector is configured, and what each fault is, by name."""

    trials: Sequence[Trial]
    missing: Sequence[str]
    texts: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the summary."""
        return {
            "texts": self.texts,
            "missing": list(self.missing),
            "summary": [asdict(cell) for cell in summary(self.trials)],
            "trials": [trial.to_json() for trial in self.trials],
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Results:
        """The inverse."""
        trials = [Trial(**one) for one in told["trials"]]
        return cls(trials, list(told["missing"]), dict(told["texts"]))

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        return cls.from_json(json.loads(path.read_text("utf-8")))
