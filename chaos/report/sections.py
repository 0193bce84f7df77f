"""What a page shows of one result: its story, the drawing of it, and close-ups of what should
not be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.history import Record
from chaos.report import charts, words
from chaos.report.drawing import Drawing, draw
from chaos.report.run import Broke, Result, read_history
from chaos.report.story import Story, tell

__all__ = ["ROUNDING_MS", "CloseUp", "Section", "number", "section_of"]

DENSE_FROM = 16
"""Clients from which on lanes are low."""

CLOSE_UPS_MAX = 4
NEARLY_ALL = 0.7
"""Share of a run from which on a close-up would show what the timeline shows."""
LINES_MAX = 40
"""Records beside a close-up."""

ROUNDING_MS, ROUNDING_SHARE = 0.01, 0.001
"""What two figures of the same thing may differ by, and be the same."""


@dataclass(frozen=True, slots=True)
class CloseUp:
    """What happened around a violation, or an overlap that was expected: drawn, and record by
    record."""

    violation: Broke
    drawing: Drawing | None
    lines: tuple[tuple[str, str, str, bool], ...]

    @property
    def height(self) -> int:
        """Of its chart, about."""
        return _height(self.drawing)


@dataclass(slots=True)
class Section:
    """What the page shows of one result. *drawing* is None where there is no history."""

    result: Result
    missing: str = ""
    story: Story | None = None
    drawing: Drawing | None = None
    close_ups: list[CloseUp] = field(default_factory=list)
    dense: bool = False

    @property
    def height(self) -> int:
        """Of its chart, about."""
        return _height(self.drawing, dense=self.dense)

    @property
    def overlap_ms(self) -> float:
        """Of two holders at once: by the history, or what the run says where that is not complete.
        The page shows no other figure of it."""
        said = number(self.result.metrics, "overlap_ms")
        if self.story is None or (self.missing and said is not None):
            return said or 0.0
        return _together(self.story) * 1000

    @property
    def metrics(self) -> dict[str, Any]:
        """What the run measured, with that figure in the place of its own."""
        told = self.result.metrics
        known = self.story is not None or number(told, "overlap_ms") is not None
        return told | {"overlap_ms": self.overlap_ms} if known else told

    @property
    def disagreement(self) -> str:
        """A sentence where the run says another time of two holders at once than its history."""
        said = number(self.result.metrics, "overlap_ms")
        if self.story is None or said is None:
            return ""
        if abs(said - self.overlap_ms) <= max(ROUNDING_MS, ROUNDING_SHARE * self.overlap_ms):
            return ""
        told, found = words.duration(said / 1000), words.duration(self.overlap_ms / 1000)
        return (
            f"The run counted {told} of two holders at once, and its history has {found}: one of"
            " them is wrong."
        )


def section_of(folder: Path, result: Result, *, partial: bool) -> Section:
    history, missing = read_history(folder, result, partial=partial)
    section = Section(result, missing)
    if history:
        section.story = story = tell(history)
        section.drawing = draw(story, result)
        section.dense = len(story.clients) >= DENSE_FROM
        section.close_ups = list(_close_ups(story, history, result))
    return section


def _together(story: Story) -> float:
    """Seconds in which a resource had two holders or more; three at once count no more than two."""
    total = 0.0
    counted: dict[str, float] = {}
    for overlap in sorted(story.overlaps, key=lambda overlap: overlap.since):
        done = counted.get(overlap.resource, float("-inf"))
        total += max(0.0, overlap.until - max(overlap.since, done))
        counted[overlap.resource] = max(done, overlap.until)
    return total


def _height(drawing: Drawing | None, *, dense: bool = False) -> int:
    return (
        charts.height(drawing.lanes, dense=dense, store=bool(drawing.tables["accesses"].rows))
        if drawing
        else 0
    )


# Close-ups


def _close_ups(story: Story, history: Sequence[Record], result: Result) -> Iterator[CloseUp]:
    shown: list[tuple[float, float]] = []
    for violation in result.violations or _longest(story):
        since, until = _around(story, violation)
        if (
            any(first <= violation.at <= last for first, last in shown)
            or until < story.start
            or since > story.end
        ):
            continue
        shown.append((since, until))
        involved = _involved(story, since, until) if len(story.clients) >= DENSE_FROM else ()
        near = until - since < NEARLY_ALL * (story.end - story.start)
        drawing = draw(story, result, window=(since, until), only=involved) if near else None
        yield CloseUp(violation, drawing, tuple(_lines(history, violation.at, story.start)))
        if len(shown) == CLOSE_UPS_MAX:
            return


def _longest(story: Story) -> list[Broke]:
    """Where two holders at once are no violation, because the fault breaks what exclusion rests
    on: the longest time of it."""
    if not story.overlaps:
        return []
    overlap = max(story.overlaps, key=lambda overlap: overlap.until - overlap.since)
    who = " and ".join(
        f"{client} ({_token(token)})"
        for client, token in zip(overlap.clients, overlap.tokens, strict=True)
    )
    text = (
        f"{who} held {overlap.resource} together for"
        f" {words.duration(overlap.until - overlap.since)}."
    )
    return [Broke(property="Two holders at once, by assumption", at=overlap.since, text=text)]


def _token(token: int) -> str:
    return f"token {token}" if token > 0 else "no token"


def _around(story: Story, violation: Broke) -> tuple[float, float]:
    """The overlap that the violation is about with as much again on both sides; else a second
    before, and half a one after."""
    at = violation.at
    for overlap in story.overlaps:
        if abs(overlap.since - at) < 1e-6:
            margin = max(2 * (overlap.until - overlap.since), 0.1)
            return max(story.start, at - margin), min(story.end, overlap.until + margin)
    return max(story.start, min(at, story.end) - 1.0), min(story.end, at + 0.5)


def _involved(story: Story, since: float, until: float) -> tuple[str, ...]:
    names = [
        hold.client for hold in story.holds if hold.since <= until and hold.acted_until >= since
    ]
    return tuple(dict.fromkeys(names))[:DENSE_FROM]


def _lines(
    history: Sequence[Record], at: float, start: float
) -> Iterator[tuple[str, str, str, bool]]:
    """The records around *at*: their time, client, words, and whether it is the very instant."""
    place = next((index for index, record in enumerate(history) if record.at >= at), len(history))
    for record in history[max(0, place - LINES_MAX * 2 // 3) : place + LINES_MAX // 3]:
        yield (
            f"{record.at - start:.6f}",
            record.client,
            words.line(record),
            abs(record.at - at) < 1e-6,
        )


def number(metrics: Any, *path: str) -> float | None:
    for name in path:
        metrics = metrics.get(name) if isinstance(metrics, dict) else None
    return (
        float(metrics)
        if isinstance(metrics, int | float) and not isinstance(metrics, bool)
        else None
    )
