"""`python -m chaos sim`: run seeds, or show one. Exit status 0 only without a violation."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, fields

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chaos.checker import beliefs
from chaos.history import Accepted, Believed, Broken, Called, Healed, NodeSeen, Note, Record, Refused, Seen, Stopped
from chaos.sim.run import Outcome, simulate
from chaos.sim.workloads import WORKLOADS
from redlock.core import events

__all__ = ["coverage", "sim"]

CHUNK = 50
SHOWN_MAX = 10


@dataclass(slots=True)
class _Part:
    """What a chunk of seeds came to."""

    runs: int = 0
    grants: int = 0
    steps: int = 0
    covered: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str, str]] = field(default_factory=list)


@click.command()
@click.option("--seeds", default=1000, show_default=True, help="How many histories, for each workload.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--workload", "workloads", multiple=True, type=click.Choice(list(WORKLOADS)), help="Default: all.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--seed", type=int, help="Run one seed alone.")
@click.option("--trace", is_flag=True, help="With --seed: print the run as a timeline, and nothing else.")
def sim(seeds: int, start: int, workloads: tuple[str, ...], jobs: int, seed: int | None, trace: bool) -> None:
    """Simulate: the shipped flows and links in virtual time, from seeds that give the same history everywhere."""
    names = workloads or tuple(WORKLOADS)
    if seed is not None:
        sys.exit(_one(seed, names, trace=trace))
    sys.exit(_many(range(start, start + seeds), names, jobs))


def _one(seed: int, workloads: tuple[str, ...], *, trace: bool) -> int:
    found = 0
    for workload in workloads:
        outcome = simulate(seed, workload)
        if trace:
            for record in outcome.history:
                click.echo(_line(record))
        for violation in outcome.violations:
            found += 1
            click.echo(f"{violation.at:10.4f}  VIOLATION  {violation.property}: {violation.text}")
        if not trace:
            click.echo(
                f"seed {seed} {workload}: {outcome.grants} grants, {outcome.steps} steps, {len(outcome.violations)} violations"
            )
    return 1 if found else 0


def _many(seeds: range, workloads: tuple[str, ...], jobs: int) -> int:
    chunks = [
        (range(first, min(first + CHUNK, seeds.stop)), name)
        for first in range(seeds.start, seeds.stop, CHUNK)
        for name in workloads
    ]
    total = _Part()
    console = Console(stderr=True)
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with ProcessPoolExecutor(jobs) as pool, Progress(*columns, console=console) as progress:
        bar = progress.add_task("histories", total=len(seeds) * len(workloads), speed="")
        todo = iter(chunks)
        running: set[Future[_Part]] = set()
        while True:
            for chunk, name in todo:
                running.add(pool.submit(_chunk, chunk, name))
                if len(running) >= 2 * jobs:
                    break
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                _add(total, future.result())
            speed = total.runs / max(time.monotonic() - began, 1e-9)
            progress.update(bar, completed=total.runs, speed=f"{speed:.0f}/s")
    _report(total, time.monotonic() - began)
    return 1 if total.violations else 0


def _chunk(seeds: range, workload: str) -> _Part:
    part = _Part()
    for seed in seeds:
        outcome = simulate(seed, workload)
        part.runs += 1
        part.grants += outcome.grants
        part.steps += outcome.steps
        part.covered += coverage(outcome)
        part.violations += [(seed, workload, f"{violation.property}: {violation.text}") for violation in outcome.violations]
    return part


def coverage(outcome: Outcome) -> Counter[str]:
    """How often the interesting things happened."""
    covered: Counter[str] = Counter()
    for record in outcome.history:
        match record:
            case Seen(event=events.TryStarted(round=round)) if round > 1:
                covered["second rounds"] += 1
            case Seen(event=events.TryFailed(votes=votes)):
                covered["late grants" if "validity was over" in votes else "failed tries"] += 1
            case Seen(event=events.LeaseRenewed()):
                covered["renewals"] += 1
            case Seen(event=events.NodeQuarantined()):
                covered["quarantines"] += 1
            case Note(kind="Cancel"):
                covered["cancels"] += 1
            case Refused():
                covered["stale writes refused"] += 1
            case Broken():
                covered["faults"] += 1
    leases = [lease for held in beliefs(outcome.history, float("inf")).values() for lease in held]
    covered["expiries"] += sum(lease.how == "expired" for lease in leases)
    return covered


def _add(total: _Part, part: _Part) -> None:
    total.runs += part.runs
    total.grants += part.grants
    total.steps += part.steps
    total.covered += part.covered
    total.violations += part.violations


def _report(total: _Part, seconds: float) -> None:
    table = Table(title=f"{total.runs} histories in {seconds:.0f} s, {total.runs / max(seconds, 1e-9) * 60:.0f} a minute")
    table.add_column("what happened")
    table.add_column("times", justify="right")
    table.add_row("grants", str(total.grants))
    table.add_row("steps", str(total.steps))
    for name, times in total.covered.most_common():
        table.add_row(name, str(times))
    Console().print(table)
    for seed, workload, text in total.violations[:SHOWN_MAX]:
        click.echo(f"VIOLATION  {text}\n  python -m chaos sim --seed {seed} --workload {workload} --trace")
    click.echo(f"{len(total.violations)} violations")


def _line(record: Record) -> str:
    match record:
        case Seen(event=event):
            what = f"{type(event).__name__}: {_words(event)}"
        case Believed():
            what = f"believes in token {record.token}, {record.left:.4f} s left"
        case Called():
            what = f"{record.call} returned after {record.took:.4f} s: {record.outcome}"
        case Stopped():
            what = f"{record.why}: token {record.token}"
        case Accepted():
            what = f"wrote {record.before} -> {record.after} with token {record.token}"
        case Refused():
            what = f"was refused by the store: token {record.token} after {record.largest}"
        case Broken():
            what = f"*** {record.fault}: {record.what}"
        case Healed():
            what = f"*** {record.fault} is over"
        case NodeSeen():
            what = f"n{record.node} is {record.state}"
        case Note():
            what = record.text
        case _:
            what = repr(record)
    return f"{record.at:10.4f}  {record.client:4s}  {what}"


def _words(event: events.Event) -> str:
    return ", ".join(f"{field.name} {getattr(event, field.name)}" for field in fields(event) if field.name != "at")
