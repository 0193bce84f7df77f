"""`python -m chaos sim`: search seeds for violations, or show one run.

Exit status 0 only without a violation; 1: there was one; 3: none, and something that must happen
never did, so that the search is worth nothing.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chaos.history import write_jsonl
from chaos.sim.client import MODES
from chaos.sim.plan import Plan, draw
from chaos.sim.regression import read
from chaos.sim.run import simulate
from chaos.sim.stage import COVERED, Outcome, play
from chaos.sim.trace import timeline
from chaos.sim.workloads import WORKLOADS

__all__ = ["sim"]

CHUNK = 25
SHOWN_MAX = 10
VIOLATED, NOT_COVERED = 1, 3


@dataclass(slots=True)
class _Part:
    """What a chunk of seeds came to. *cpu*: seconds of it that were spent."""

    runs: int = 0
    steps: int = 0
    cpu: float = 0.0
    covered: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str, str, str]] = field(default_factory=list)

    def add(self, other: _Part) -> None:
        self.runs += other.runs
        self.steps += other.steps
        self.cpu += other.cpu
        self.covered += other.covered
        self.violations += other.violations


@click.command()
@click.option(
    "--seeds",
    default=1000,
    show_default=True,
    help="How many histories, of each workload in each mode.",
)
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice(list(WORKLOADS)),
    help="Default: all.",
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(list(MODES)),
    help="Flows alone (plain, the default) or on bytes.",
)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--seed", type=int, help="Run one seed alone.")
@click.option(
    "--plan",
    help="Run one plan alone: a line of JSON, a file, or the name of one in chaos/regressions.",
)
@click.option(
    "--trace",
    is_flag=True,
    help="With --seed or --plan: print that run as a timeline, and nothing else.",
)
@click.option(
    "--history",
    type=click.Path(dir_okay=False),
    help="With --seed or --plan: write the history there, as JSON lines.",
)
@click.option(
    "--cover",
    is_flag=True,
    help="Run a search as large as the tests', and print what of redlock/core it reached.",
)
def sim(
    seeds: int,
    start: int,
    workloads: tuple[str, ...],
    modes: tuple[str, ...],
    jobs: int,
    seed: int | None,
    plan: str | None,
    trace: bool,
    history: str | None,
    cover: bool,
) -> None:
    """Simulate: the shipped flows in virtual time, from seeds that give the same history
    everywhere."""
    # In a process of its own: what is imported before the measuring counts as never reached.
    if cover:
        sys.exit(subprocess.run([sys.executable, "-m", "chaos.sim.cover"], check=False).returncode)
    names, ways = workloads or tuple(WORKLOADS), modes or ("plain",)
    if plan is not None:
        sys.exit(_show([replace(_plan(plan), mode=way) for way in ways], trace=trace, path=history))
    if seed is not None:
        if (trace or history) and len(workloads) > 1:
            raise click.UsageError("one timeline at a time: give one --workload")
        shown = names[:1] if trace or history else names
        sys.exit(
            _show(
                [draw(seed, name, way) for name in shown for way in ways], trace=trace, path=history
            )
        )
    if trace or history:
        raise click.UsageError("--trace and --history need a --seed or a --plan")
    sys.exit(_search(range(start, start + seeds), names, ways, jobs))


def _plan(text: str) -> Plan:
    """What `--plan` names."""
    try:
        return Plan.parse(text) if text.lstrip().startswith("{") else read(text).plan
    except (OSError, ValueError, TypeError) as error:
        raise click.BadParameter(str(error), param_hint="--plan") from error


def _show(plans: Sequence[Plan], *, trace: bool, path: str | None) -> int:
    """Run a few plans, and tell of each."""
    found = 0
    for plan in plans:
        outcome = play(plan)
        found += len(outcome.violations)
        if path is not None:
            write_jsonl(Path(path), outcome.history)
        if trace:
            for text in timeline(outcome.history, outcome.violations):
                click.echo(text)
        else:
            _tell(outcome)
    return VIOLATED if found else 0


def _tell(outcome: Outcome) -> None:
    plan, count = outcome.plan, len(outcome.violations)
    which = f"seed {plan.seed} {plan.workload}" if plan.workload else "plan"
    click.echo(
        f"{which} {plan.mode}: {outcome.grants} grants, {outcome.steps} steps, {count} violations"
    )
    for violation in outcome.violations:
        click.echo(f"{violation.at:10.4f}  {violation.property}: {violation.text}")


# Many seeds


def _search(seeds: range, workloads: Sequence[str], modes: Sequence[str], jobs: int) -> int:
    total, began = _Part(), time.monotonic()
    chunks = (
        (range(first, min(first + CHUNK, seeds.stop)), name, mode)
        for first in range(seeds.start, seeds.stop, CHUNK)
        for name in workloads
        for mode in modes
    )
    with (
        _progress(len(seeds) * len(workloads) * len(modes)) as advance,
        ProcessPoolExecutor(jobs) as pool,
    ):
        running: set[Future[_Part]] = set()
        for chunk in chunks:
            running.add(pool.submit(_chunk, *chunk))
            if len(running) >= 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    total.add(future.result())
                advance(total.runs)
        for future in running:
            total.add(future.result())
            advance(total.runs)
    return _report(total, time.monotonic() - began, complete=set(workloads) == set(WORKLOADS))


def _chunk(seeds: range, workload: str, mode: str) -> _Part:
    part, began = _Part(), time.process_time()
    gc.disable()  # Runs leave cycles behind, and none is worth looking for while one is under way.
    for seed in seeds:
        outcome = simulate(seed, workload, mode)
        part.runs += 1
        part.steps += outcome.steps
        part.covered += outcome.covered
        for violation in outcome.violations:
            part.violations.append(
                (seed, workload, mode, f"{violation.property}: {violation.text}")
            )
    gc.enable()
    gc.collect()
    part.cpu = time.process_time() - began
    return part


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, with what a second of it comes to."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("histories", total=total, speed="")

        def advance(runs: int) -> None:
            speed = runs / max(time.monotonic() - began, 1e-9)
            progress.update(task, completed=runs, speed=f"{speed:.0f} seeds/s")

        yield advance


def _report(total: _Part, seconds: float, *, complete: bool) -> int:
    table = Table(
        title=(
            f"{total.runs} histories in {seconds:.0f} s,"
            f" {total.runs / max(total.cpu, 1e-9) * 60:.0f} a CPU minute"
        )
    )
    table.add_column("what happened")
    table.add_column("times", justify="right")
    table.add_row("steps", str(total.steps))
    for name, times in sorted(total.covered.items(), key=lambda item: -item[1]):
        table.add_row(name, str(times))
    Console().print(table)
    for seed, workload, mode, text in total.violations[:SHOWN_MAX]:
        click.echo(
            f"VIOLATION  {text}\n  python -m chaos sim --seed {seed} --workload {workload} --mode"
            f" {mode} --trace"
        )
    click.echo(f"{len(total.violations)} violations")
    if total.violations:
        return VIOLATED
    never = [name for name in COVERED if not total.covered[name]] if complete else []
    if never:
        click.echo(
            f"never happened: {', '.join(never)}: a search like this proves nothing, give it more"
            " --seeds"
        )
    return NOT_COVERED if never else 0
