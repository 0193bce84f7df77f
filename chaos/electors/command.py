"""`python -m chaos electors`: the electors side by side. Exit status 0, whatever is found: other
libraries' failures are findings; 1 if nothing could be played."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from chaos.electors.catalogue import ELECTORS, Elector
from chaos.electors.conductor import Trial, play
from chaos.electors.faults import FAULTS, Fault
from chaos.electors.results import Cell, Results, summary
from chaos.peers.environments import PeerMissing

__all__ = ["electors", "run"]


def run(
    names: Sequence[str],
    faults: Sequence[str],
    repeat: int,
    *,
    jobs: int = 1,
    told: Callable[[Trial | str], None] = lambda one: None,
) -> Results:
    """Play every fault *repeat* times against every elector, *jobs* electors at a time.

    *told* hears of every trial as it ends, and one line of what cannot be played.
    """
    heard: list[Trial | str] = []
    chosen = [FAULTS[name] for name in faults]
    stop = threading.Event()
    lock = threading.Lock()

    def one_elector(name: str) -> None:
        for one in _played(ELECTORS[name], chosen, repeat):
            with lock:
                heard.append(one)
                told(one)
            if stop.is_set():
                return

    if jobs == 1:  # In this thread: an interrupt ends a trial at once.
        for name in names:
            one_elector(name)
    else:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for done in [pool.submit(one_elector, name) for name in names]:
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    place = {name: number for number, name in enumerate(names)}
    trials = sorted(
        (one for one in heard if isinstance(one, Trial)), key=lambda one: place[one.elector]
    )
    missing = [one for one in heard if isinstance(one, str)]
    texts = {name: ELECTORS[name].text for name in names} | {one.name: one.text for one in chosen}
    return Results(trials, missing, texts)


def _played(elector: Elector, faults: Sequence[Fault], repeat: int) -> Iterator[Trial | str]:
    try:
        yield from play(elector, faults, repeat)
    except PeerMissing as lacks:
        yield str(lacks)


def table(results: Results) -> Table:
    """Faults down, electors across: the longest overlap, and the longest stop lag after it."""
    cells = {(cell.fault, cell.elector): cell for cell in summary(results.trials)}
    names = list(dict.fromkeys(elector for _, elector in cells))
    shown = Table(
        title="longest overlap of two leaders / longest stop lag past the lease, in seconds",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    shown.add_column("fault")
    for name in names:
        shown.add_column(name.replace("-", "\n", 1), justify="right")
    for fault in dict.fromkeys(fault for fault, _ in cells):
        shown.add_row(fault, *(_shown(cells.get((fault, name))) for name in names))
    return shown


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    least = ">" if cell.endless else ""
    text = f"{cell.overlap:.2f} / {least}{cell.stop_lag:.2f}"
    return f"[red]{text}[/red]" if cell.overlap > 0 else text


@click.command()
@click.option(
    "--elector", "names", multiple=True, type=click.Choice(list(ELECTORS)), help="Only these."
)
@click.option(
    "--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="Only these."
)
@click.option("--repeat", default=3, show_default=True, help="Trials of each fault.")
@click.option("--jobs", default=1, show_default=True, help="Electors at a time.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on the standard output.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="Keep the JSON in this file."
)
def electors(
    names: tuple[str, ...],
    faults: tuple[str, ...],
    repeat: int,
    jobs: int,
    as_json: bool,
    output: Path | None,
) -> None:
    """Other leader electors under faults: two leaders at once?"""
    news = Console(stderr=True)
    results = run(
        names or tuple(ELECTORS),
        faults or tuple(FAULTS),
        repeat,
        jobs=jobs,
        told=lambda one: news.print(_news(one), highlight=False, markup=False, soft_wrap=True),
    )
    if output is not None:
        results.save(output)
    if as_json:
        click.echo(json.dumps(results.to_json(), indent=1))
    else:
        console = Console(width=max(Console().width, 120))
        console.print(table(results))
        for line in results.missing:
            console.print(f"not played: {line}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(0 if results.trials else 1)


def _news(one: Trial | str) -> str:
    if isinstance(one, str):
        return one
    least = "at least " if one.endless else ""
    return (
        f"{one.elector}, {one.fault} {one.number}: overlap {one.overlap:.3f} s, stop lag {least}"
        f"{one.stop_lag:.3f} s, nobody for {one.gap:.2f} s"
    )
