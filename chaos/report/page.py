"""Puts a run into one HTML file: the index, a section per result, the charts, and the library that draws them.

The file loads nothing: its content policy forbids every request, and lets only the page's own scripts run. What comes from
the run directory reaches the page as text, or as JSON in which no `<` is left.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from chaos.history import Record
from chaos.report import charts, words
from chaos.report.drawing import Drawing, draw, sort_of
from chaos.report.run import OURS, Broke, Result, Run, read_history, read_run
from chaos.report.story import Story, tell

__all__ = ["build"]

DENSE_FROM = 16
"""Clients from which on lanes are low."""

CLOSE_UPS_MAX = 4
NEARLY_ALL = 0.7
"""Share of a run from which on a close-up would show what the timeline shows."""
LINES_MAX = 40
"""Records beside a close-up."""

VIOLATIONS_MAX = 50

ROUNDING_MS = 0.01


@dataclass(frozen=True, slots=True)
class CloseUp:
    """What happened around a violation, or an overlap that was expected: drawn, and record by record."""

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
        """Of two holders at once, by the history."""
        overlaps = self.story.overlaps if self.story else []
        return sum(overlap.until - overlap.since for overlap in overlaps) * 1000

    @property
    def disagreement(self) -> str:
        """A sentence where the run found two holders at once and its history has none, or the reverse."""
        said = _number(self.result.metrics, "overlap_ms")
        if self.story is None or said is None or (said > ROUNDING_MS) == (self.overlap_ms > ROUNDING_MS):
            return ""
        told, found = words.duration(said / 1000), words.duration(self.overlap_ms / 1000)
        return f"The run counted {told} of two holders at once, and its history has {found}: one of them is wrong."


def build(folder: Path, *, partial: bool = False) -> str:
    """The report on the run directory *folder*, as HTML.

    Raises ReportError where there is nothing to report on, and, unless *partial*, where a history is missing or damaged.
    """
    run = read_run(folder)
    ordered = sorted(run.results, key=lambda result: not result.control)
    sections = [_section(folder, result, partial=partial) for result in ordered]
    return _render(run, sections)


def _section(folder: Path, result: Result, *, partial: bool) -> Section:
    history, missing = read_history(folder, result, partial=partial)
    section = Section(result, missing)
    if history:
        section.story = story = tell(history)
        section.drawing = draw(story, result)
        section.dense = len(story.clients) >= DENSE_FROM
        section.close_ups = list(_close_ups(story, history, result))
    return section


def _height(drawing: Drawing | None, *, dense: bool = False) -> int:
    return charts.height(drawing.lanes, dense=dense, store=bool(drawing.tables["accesses"].rows)) if drawing else 0


# Close-ups


def _close_ups(story: Story, history: Sequence[Record], result: Result) -> Iterator[CloseUp]:
    shown: list[tuple[float, float]] = []
    for violation in result.violations or _longest(story):
        since, until = _around(story, violation)
        if any(first <= violation.at <= last for first, last in shown) or until < story.start or since > story.end:
            continue
        shown.append((since, until))
        involved = _involved(story, since, until) if len(story.clients) >= DENSE_FROM else ()
        near = until - since < NEARLY_ALL * (story.end - story.start)
        drawing = draw(story, result, window=(since, until), only=involved) if near else None
        yield CloseUp(violation, drawing, tuple(_lines(history, violation.at, story.start)))
        if len(shown) == CLOSE_UPS_MAX:
            return


def _longest(story: Story) -> list[Broke]:
    """Where two holders at once are no violation, because the fault breaks what exclusion rests on: the longest time of it."""
    if not story.overlaps:
        return []
    overlap = max(story.overlaps, key=lambda overlap: overlap.until - overlap.since)
    who = " and ".join(f"{client} (token {token})" for client, token in zip(overlap.clients, overlap.tokens, strict=True))
    text = f"{who} held {overlap.resource} together for {words.duration(overlap.until - overlap.since)}."
    return [Broke(property="Two holders at once, by assumption", at=overlap.since, text=text)]


def _around(story: Story, violation: Broke) -> tuple[float, float]:
    """The overlap that the violation is about with as much again on both sides; else a second before, and half a one after."""
    at = violation.at
    for overlap in story.overlaps:
        if abs(overlap.since - at) < 1e-6:
            margin = max(2 * (overlap.until - overlap.since), 0.1)
            return max(story.start, at - margin), min(story.end, overlap.until + margin)
    return max(story.start, min(at, story.end) - 1.0), min(story.end, at + 0.5)


def _involved(story: Story, since: float, until: float) -> tuple[str, ...]:
    names = [hold.client for hold in story.holds if hold.since <= until and hold.acted_until >= since]
    return tuple(dict.fromkeys(names))[:DENSE_FROM]


def _lines(history: Sequence[Record], at: float, start: float) -> Iterator[tuple[str, str, str, bool]]:
    """The records around *at*: their time, client, words, and whether it is the very instant."""
    place = next((index for index, record in enumerate(history) if record.at >= at), len(history))
    for record in history[max(0, place - LINES_MAX * 2 // 3) : place + LINES_MAX // 3]:
        yield f"{record.at - start:.6f}", record.client, words.line(record), abs(record.at - at) < 1e-6


# The page


def _render(run: Run, sections: Sequence[Section]) -> str:
    kinds = sorted({result.client_kind for result in run.results}, key=lambda kind: (kind != OURS, kind))
    scripts = [_inline(text) for text in (_library(), _file("report.js"))]
    index = _index(run.results)
    page = _environment().get_template("report.html.j2")
    return page.render(
        run=run,
        verdict=words.verdict(run.results),
        all_ok=all(result.ok for result in run.results if result.client_kind == OURS),
        kinds=kinds,
        controls=[section for section in sections if section.result.control],
        sections=sections,
        rows=_matrix(sections, kinds),
        totals={kind: _total(run.results, kind) for kind in kinds},
        peers=_peers(sections, kinds),
        beside=_beside(sections),
        index=index,
        heights={name: charts.height_of_rows(len({row["name"] for row in rows}), kinds) for name, rows in index.items()},
        charts=_charts(kinds, index, any(section.dense for section in sections)),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        style=Markup(_file("report.css")),
        words=words,
        sort_of=sort_of,
        most=VIOLATIONS_MAX,
    )


def _matrix(sections: Sequence[Section], kinds: Sequence[str]) -> list[tuple[Section, list[Section | None]]]:
    """A row for each scenario, a cell for each kind of client; controls have their own table."""
    cells = {(section.result.scenario, section.result.client_kind): section for section in sections}
    names = dict.fromkeys(section.result.scenario for section in sections if not section.result.control)
    rows = []
    for name in names:
        row = [cells.get((name, kind)) for kind in kinds]
        first = next(section for section in row if section is not None)
        rows.append((first, row))
    return rows


@dataclass(frozen=True, slots=True)
class Peer:
    """What one kind of client came to in the *scenarios* that every kind was run in."""

    kind: str
    scenarios: int
    expected: int
    overlapping: int
    overlap: float
    lost: int
    share: float | None


def _peers(sections: Sequence[Section], kinds: Sequence[str]) -> list[Peer]:
    """A line for each kind of client; nothing where there is one kind, or no scenario that all were run in."""
    runs: dict[str, dict[str, Section]] = defaultdict(dict)
    for section in sections:
        if not section.result.control:
            runs[section.result.scenario][section.result.client_kind] = section
    common = [run for run in runs.values() if len(run) == len(kinds)]
    return [_peer(kind, [run[kind] for run in common]) for kind in kinds] if len(kinds) > 1 and common else []


def _peer(kind: str, sections: Sequence[Section]) -> Peer:
    shares = [_number(section.result.metrics, "availability", "during") for section in sections]
    known = [share for share in shares if share is not None]
    return Peer(
        kind,
        len(sections),
        sum(section.result.ok for section in sections),
        sum(section.overlap_ms > ROUNDING_MS for section in sections),
        sum(section.overlap_ms for section in sections) / 1000,
        sum(
            int(_number(section.result.metrics, name) or 0) for section in sections for name in ("lost_updates", "stale_accepted")
        ),
        sum(known) / len(known) if known else None,
    )


def _beside(sections: Sequence[Section]) -> dict[str, list[Result]]:
    """By scenario, its results with every kind of client, where there is more than one."""
    found: dict[str, list[Result]] = defaultdict(list)
    for section in sections:
        found[section.result.scenario].append(section.result)
    return {scenario: results for scenario, results in found.items() if len(results) > 1}


def _total(results: Sequence[Result], kind: str) -> str:
    its = [result.ok for result in results if result.client_kind == kind and not result.control]
    return f"{sum(its)} of {len(its)}"


def _index(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """The tables of the index charts; what a run did not measure has no row."""
    tables: dict[str, list[dict[str, Any]]] = {"availability": [], "latency": [], "next": []}
    for result in results:
        if result.control:
            continue
        row = {"name": result.scenario, "title": result.title, "kind": result.client_kind}
        for phase in words.PHASES:
            share = _number(result.metrics, "availability", phase)
            if share is not None:
                tables["availability"].append(row | {"phase": phase, "share": share})
            median, tail = (_number(result.metrics, "acquire", phase, name) for name in ("p50", "p99"))
            if median and tail:
                tables["latency"].append(row | {"phase": phase, "p50": median * 1e3, "p99": tail * 1e3})
        gaps = {name: _number(result.metrics, "time_to_next_holder", name) for name in ("p50", "p99", "max")}
        known = {name: max(gap * 1e3, 0.01) for name, gap in gaps.items() if gap is not None}  # A logarithm has no zero.
        if len(known) == len(gaps):
            tables["next"].append(row | known)
    return tables


def _number(metrics: Any, *path: str) -> float | None:
    for name in path:
        metrics = metrics.get(name) if isinstance(metrics, dict) else None
    return float(metrics) if isinstance(metrics, int | float) and not isinstance(metrics, bool) else None


def _charts(kinds: Sequence[str], index: dict[str, list[dict[str, Any]]], dense: bool) -> dict[str, Any]:
    made = {"timeline": _timeline(dense=False)}
    if dense:
        made["dense"] = _timeline(dense=True)
    for name, chart in (("availability", charts.availability), ("latency", charts.latency), ("next", charts.next_holder)):
        if index[name]:
            made[name] = chart(kinds)
    return made


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chaos.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False, "ensure_ascii": False}
    return environment


@cache
def _timeline(*, dense: bool) -> dict[str, Any]:
    return charts.timeline(dense=dense)


@cache
def _library() -> str:
    """Vega-Embed with all it needs, of the very Vega-Lite that the charts are written for."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=alt.SCHEMA_VERSION.rpartition(".")[0])


def _file(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")


def _inline(script: str) -> Markup:
    """As the text of a script element, which ends at the first `</script`, also in a string."""
    return Markup(script.replace("</script", "<\\/script"))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
