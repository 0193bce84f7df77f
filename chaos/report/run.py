"""Reads a run directory: `run.json`, and the history of each of its results. Judges nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chaos.history import Record, from_json

__all__ = [
    "CONTROL",
    "OURS",
    "Broke",
    "Phase",
    "ReportError",
    "Result",
    "Run",
    "Skipped",
    "read_history",
    "read_run",
]

OURS = "redlock"
"""The client kind that is this library; every other one is a peer."""

CONTROL = "must fail"
"""What is expected of a positive control."""


class ReportError(Exception):
    """The run directory cannot be reported on; the message is one line for who typed the
    command."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, allow_inf_nan=False)


class Phase(_Model):
    """A part of a scenario. *start*, *until*: seconds, on the clock of its history."""

    name: str
    start: float = Field(alias="from")
    until: float


class Broke(_Model):
    """A property that did not hold, as the checker told it."""

    property: str
    at: float
    text: str


class Result(_Model):
    """What one scenario came to with one kind of client. What is optional in a run directory has
    a default."""

    scenario: str
    title: str = ""
    client_kind: str = OURS
    expected: str
    observed: str
    ok: bool
    why: str = ""
    seed: int | None = None
    replay: str = ""
    seconds: float | None = None
    history: str | None = None
    phases: tuple[Phase, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    violations: tuple[Broke, ...] = ()
    overwritten: bool = False
    """A later repetition wrote its history over this one's."""

    @property
    def control(self) -> bool:
        """Whether it is there to fail."""
        return self.expected == CONTROL

    @property
    def name(self) -> str:
        """Unique in a run."""
        return self.scenario if self.client_kind == OURS else f"{self.scenario}-{self.client_kind}"


class Skipped(_Model):
    """A scenario that was not run, and why."""

    scenario: str
    title: str = ""
    why: str = ""


class Run(_Model):
    """A run directory without its histories."""

    started: str = ""
    seed: int | None = None
    command: str = ""
    commit: str = ""
    """Of the checkout it ran from, and whether that had changes; "" of none."""
    versions: dict[str, str | None] = Field(default_factory=dict)
    results: tuple[Result, ...]
    not_run: tuple[Skipped, ...] = ()


def read_run(folder: Path) -> Run:
    """What `run.json` says. Raises ReportError where it is missing, damaged, or without results."""
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such directory")
    path = folder / "run.json"
    try:
        run = Run.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReportError(
            f"{folder}: no run.json in it; either it is no run directory, or its run did not end"
        ) from None
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise ReportError(f"{path}: {_first(error)}") from None
    if not run.results:
        raise ReportError(f"{path}: has no results; the run ended before its first scenario did")
    return run.model_copy(update={"results": tuple(_told_apart(run.results))})


def _told_apart(results: Sequence[Result]) -> Iterator[Result]:
    """Repetitions of a scenario get a number, and only the last to use a history keeps it."""
    last = {result.history: place for place, result in enumerate(results) if result.history}
    times: Counter[str] = Counter()
    for place, result in enumerate(results):
        times[result.name] += 1
        changes: dict[str, Any] = {"overwritten": last.get(result.history or "", place) != place}
        if times[result.name] > 1:
            changes["scenario"] = f"{result.scenario}·{times[result.name]}"
        yield result.model_copy(update=changes)


def read_history(
    folder: Path, result: Result, *, partial: bool = False
) -> tuple[list[Record], str]:
    """The records of *result* in the order of time, and what is missing of them, "" if nothing is.

    Raises ReportError for a history that is missing or damaged; with *partial*, says so instead,
    and gives what there is.
    """
    if not result.history:
        return [], "the run kept no history of it"
    if result.overwritten:
        return [], "a later repetition wrote over it"
    path = folder / result.history
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ReportError(
            f"{folder / 'run.json'}: the history of {result.name} lies outside of the run directory"
        )
    records: list[Record] = []
    missing = ""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                missing = f"{path}: line {number} is damaged"
                records.append(from_json(json.loads(line)))
        missing = "" if records else f"{path}: is empty"
    except OSError as error:
        missing = f"{path}: cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # What `from_json` makes of a line that is no record.
        missing += f": {str(error).splitlines()[0]}"
    if missing and not partial:
        raise ReportError(f"{missing} (--partial reports on the rest)")
    return sorted(records, key=lambda record: record.at), missing


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]
