"""What is printed at the end: the verdict, what the faults cost, and a summary."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from redlock.demo.scene import VOTES, WORKERS
from redlock.demo.verdict import Finding, History, Section, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def conclude(
    console: Console,
    findings: Sequence[Finding],
    history: History,
    phases: Sequence[tuple[float, tuple[str, ...]]],
    last_line: str,
) -> int:
    """Print the end, with *last_line* below the summary; give the exit status."""
    broken = sum(not finding.holds for finding in findings)
    clean = not broken
    console.print()
    console.print(_findings_table(findings))
    console.print()
    console.print(_cost_table(history.sections, phases))
    console.print(
        "vote: from the first write to the deciding answer; wait: from wanting the lock to"
        " having it",
        style="dim",
    )
    console.print()
    console.print("\n".join(filter(None, [*_summary(history), last_line])))
    console.print(
        f"verdict: clean, all {len(findings)} promises held"
        if clean
        else f"verdict: NOT CLEAN, {broken} of {len(findings)} promises broken",
        style="bold green" if clean else "bold red",
    )
    return 0 if clean else 1


def _summary(history: History) -> list[str]:
    sections = sorted(history.sections, key=lambda section: section.granted_at)
    count = Counter(section.worker for section in sections)
    each = ", ".join(f"{name} {count[name]}" for name in WORKERS)
    lines = [
        f"{len(sections)} grants ({each}),"
        f" {sum(a.worker != b.worker for a, b in pairwise(sections))} hand-overs"
    ]
    if sections:
        longest = max(sections, key=lambda section: section.granted_at - section.asked_at)
        lines.append(
            f"longest wait {duration(longest.granted_at - longest.asked_at)}, by {longest.worker}"
        )
    if history.gave_up:
        lines.append(
            "tries that gave up: "
            + ", ".join(f"{n} {error}" for error, n in history.gave_up.items())
        )
    return lines


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = _table("promise", "", "evidence")
    for finding in findings:
        mark = "holds" if finding.holds else "BROKEN"
        table.add_row(
            finding.claim, mark, finding.evidence, style="green" if finding.holds else "bold red"
        )
    return table


def _cost_table(
    sections: Sequence[Section], phases: Sequence[tuple[float, tuple[str, ...]]]
) -> Table:
    """What the faults cost: the same figures for every state of the nodes."""
    spans: dict[str, float] = {}
    groups: dict[str, list[Section]] = {}
    for (start, states), (end, _) in pairwise(phases):
        name = (
            ", ".join(
                f"{number} {state}" for number, state in enumerate(states, 1) if state != VOTES
            )
            or "all vote"
        )
        spans[name] = spans.get(name, 0.0) + end - start
        groups.setdefault(name, []).extend(
            section for section in sections if start <= section.granted_at < end
        )
    table = _table(
        "nodes", ">seconds", ">grants/s", ">vote, median", ">longest", ">wait, median", ">longest"
    )
    for name, group in groups.items():
        votes = [section.granted_at - section.sent_at for section in group]
        waits = [section.granted_at - section.asked_at for section in group]
        figures = (
            [statistics.median(votes), max(votes), statistics.median(waits), max(waits)]
            if group
            else []
        )
        table.add_row(
            name,
            f"{spans[name]:.1f}",
            f"{len(group) / max(spans[name], 1e-3):.1f}",
            *map(duration, figures),
        )
    return table


def _table(*headers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(header.lstrip(">"), justify="right" if header.startswith(">") else "left")
    return table
