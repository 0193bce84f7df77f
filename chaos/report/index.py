"""What the index of a page says about a run as a whole: the matrix, the libraries side by side,
the tables of its charts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.report import words
from chaos.report.run import OURS, Result, Run
from chaos.report.sections import ROUNDING_MS, Section, number

__all__ = ["Peer", "beside", "matrix", "names", "peers", "tables", "total", "totals", "worst"]


def matrix(
    sections: Sequence[Section], kinds: Sequence[str]
) -> list[tuple[Section, list[Section | None]]]:
    """A row for each scenario, a cell for each kind of client; controls have their own table."""
    cells = {(section.result.scenario, section.result.client_kind): section for section in sections}
    scenarios = dict.fromkeys(
        section.result.scenario for section in sections if not section.result.control
    )
    rows = []
    for name in scenarios:
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


def peers(sections: Sequence[Section], kinds: Sequence[str]) -> list[Peer]:
    """A line for each kind of client; nothing where there is one kind, or no scenario that all
    were run in."""
    runs: dict[str, dict[str, Section]] = defaultdict(dict)
    for section in sections:
        if not section.result.control:
            runs[section.result.scenario][section.result.client_kind] = section
    common = [run for run in runs.values() if len(run) == len(kinds)]
    return (
        [_peer(kind, [run[kind] for run in common]) for kind in kinds]
        if len(kinds) > 1 and common
        else []
    )


def _peer(kind: str, sections: Sequence[Section]) -> Peer:
    shares = [number(section.result.metrics, "availability", "during") for section in sections]
    known = [share for share in shares if share is not None]
    return Peer(
        kind,
        len(sections),
        sum(section.result.ok for section in sections),
        sum(section.overlap_ms > ROUNDING_MS for section in sections),
        sum(section.overlap_ms for section in sections) / 1000,
        sum(
            int(number(section.result.metrics, name) or 0)
            for section in sections
            for name in ("lost_updates", "stale_accepted")
        ),
        sum(known) / len(known) if known else None,
    )


def beside(sections: Sequence[Section]) -> dict[str, list[Result]]:
    """By scenario, its results with every kind of client, where there is more than one."""
    found: dict[str, list[Result]] = defaultdict(list)
    for section in sections:
        found[section.result.scenario].append(section.result)
    return {scenario: results for scenario, results in found.items() if len(results) > 1}


def totals(run: Run, sections: Sequence[Section]) -> Iterator[str]:
    """What stands below the headline: where the run is from, and how much of everything our own
    clients went through. Controls are for the checker, and count in time alone."""
    yield f"commit {run.commit}" if run.commit else "commit not known"
    ours = [section for section in sections if section.result.client_kind == OURS] or sections
    played = [section for section in ours if not section.result.control]
    took = sum(section.result.seconds or 0.0 for section in sections)
    if took:
        yield f"{words.duration(took)} in all"
    faults = sum(len(section.story.faults) for section in played if section.story)
    yield _counted(faults, "fault")
    for name, noun in (("grants", "grant"), ("stale_refused", "stale access")):
        counts = [number(section.result.metrics, name) for section in played]
        if any(count is not None for count in counts):
            tail = " refused" if name == "stale_refused" else ""
            yield _counted(int(sum(count or 0 for count in counts)), noun) + tail
    yield _counted(sum(len(section.result.violations) for section in played), "violation")


def _counted(count: int, noun: str) -> str:
    many = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def total(results: Sequence[Result], kind: str) -> str:
    its = [result.ok for result in results if result.client_kind == kind and not result.control]
    return f"{sum(its)} of {len(its)}"


def tables(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """The tables of the index charts; what a run did not measure has no row."""
    found: dict[str, list[dict[str, Any]]] = {"availability": [], "latency": [], "next": []}
    for result in results:
        if result.control:
            continue
        row = {"name": result.scenario, "title": result.title, "kind": result.client_kind}
        for phase in words.PHASES:
            share = number(result.metrics, "availability", phase)
            if share is not None:
                text = words.percent(share)
                found["availability"].append(row | {"phase": phase, "share": share, "text": text})
            median, tail = (
                number(result.metrics, "acquire", phase, name) for name in ("p50", "p99")
            )
            if median and tail:
                found["latency"].append(row | {"phase": phase} | _placed(p50=median, p99=tail))
        gaps = {
            name: number(result.metrics, "time_to_next_holder", name)
            for name in ("p50", "p99", "max")
        }
        known = {name: gap for name, gap in gaps.items() if gap is not None}
        if len(known) == len(gaps):
            found["next"].append(row | _placed(**known))
    return found


def _placed(**seconds: float) -> dict[str, float | str]:
    """Durations by name: where each stands on an axis of milliseconds, and as it is written."""
    # A logarithm has no zero.
    placed = {name: max(value * 1e3, 0.01) for name, value in seconds.items()}
    return placed | {f"{name}_text": words.duration(value) for name, value in seconds.items()}


def names(rows: Iterable[dict[str, Any]]) -> set[str]:
    """The scenarios of a table."""
    return {row["name"] for row in rows}


def worst(table: str, rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The rows of the *most* worst scenarios of a table, in its order."""
    how_bad: dict[str, float] = defaultdict(lambda: float("-inf"))
    for row in rows:
        how_bad[row["name"]] = max(
            how_bad[row["name"]], -row["share"] if table == "availability" else row["p99"]
        )
    kept = set(sorted(how_bad, key=lambda name: -how_bad[name])[:most])
    return [row for row in rows if row["name"] in kept]
