"""`python -m benchmarks`: measure, print, and write down."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar, judge
from benchmarks.bench import Bench, Result
from benchmarks.build import HERE
from benchmarks.machine import interpreter, machine, snapshot
from benchmarks.report import write
from benchmarks.situations import SITUATIONS
from benchmarks.tables import table
from redlock.embedded import Nodes

_OUT = HERE / "out"


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(SITUATIONS)),
    help="Only this situation; may be given again.",
)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: a few minutes.")
@click.option(
    "--seed", default=1, show_default=True, help="Of the order of turns and of late packets."
)
@click.option(
    "--out",
    default=_OUT,
    type=click.Path(path_type=Path),
    help="Folder for JSON and charts [benchmarks/out].",
)
def main(only: tuple[str, ...], quick: bool, seed: int, out: Path) -> None:
    """Measure this library beside the others, on five servers of this machine.

    A full run of all situations writes benchmarks/RESULTS.md; any other writes RESULTS.md beside
    its JSON.
    """
    # Into a file or a pipe with room for every column, instead of the 80 characters that rich takes
    # for such.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"{interpreter()}; {machine()}", highlight=False)
    started = datetime.now(UTC)
    results: dict[str, Result] = {}
    with Nodes(5) as nodes, Nodes(1) as single:
        bench = Bench(nodes, single, quick=quick, seed=seed, console=console)
        for name in SITUATIONS:
            if not only or name in only:
                results[name] = _measure(bench, name)
        bars = judge(results)
        console.print(_bars(bars))
        whole = not only and not quick
        results_md = HERE / "RESULTS.md" if whole else out / "RESULTS.md"
        write(bench, results, bars, started, folder=out, results_md=results_md)
    console.print(
        f"written: {out}/results.json, charts beside it, and {results_md}",
        highlight=False,
        soft_wrap=True,
    )


def _measure(bench: Bench, name: str) -> Result:
    before = snapshot()
    result = SITUATIONS[name](bench)
    after = snapshot()
    result.seconds = after.uptime - before.uptime
    result.foreign, result.stolen = after.foreign_since(before), after.stolen_since(before)
    bench.console.print(table(result))
    took = f"{result.seconds:.0f} s; others kept {result.foreign:.2f} cores busy"
    bench.console.print(f"{result.note} {took}.\n", style="dim", highlight=False)
    return result


def _bars(bars: list[Bar]) -> Table:
    drawn = Table(title="Bars", title_justify="left")
    for heading in ("what", "bar", "measured", "met"):
        drawn.add_column(heading)
    for bar in bars:
        if bar.met is not None:
            drawn.add_row(
                bar.what,
                bar.bar,
                bar.measured,
                "yes" if bar.met else "no",
                style="green" if bar.met else "red",
            )
    return drawn


if __name__ == "__main__":
    main()
