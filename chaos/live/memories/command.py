"""`python -m chaos memories`: every way to forget, many times, with both APIs and with old and
fresh clients; then its controls.

Exit status 0: no violation, no node that did not come back, and every control broke its promise. 1:
otherwise.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from chaos.live.memories.claims import CLAIMS
from chaos.live.memories.ways import WAYS

__all__ = ["Pool", "memories"]

_TRIES_MAX = 4
"""Runs per run wanted: on a busy machine some come to the point too late, and say nothing."""
_SILENCE = 60.0
"""Seconds without news after which what is still under way is taken to be lost, with its
process."""
_CELLS = tuple(itertools.product(("blocking", "asyncio"), (False, True)))
Told = dict[str, Any]


class Pool:
    """Processes that play cases, all with the same rule broken, or none."""

    def __init__(self, jobs: int, journals: Path | None, rule: str | None = None) -> None:
        self._command = [
            sys.executable,
            "-m",
            "chaos.live.memories.worker",
            str(journals or ""),
            *([rule] if rule else []),
        ]
        self._jobs = jobs

    def play(self, cases: Iterator[Told]) -> Iterator[Told]:
        """What came of each, in any order; *cases* is asked for the next one when a process is
        free."""
        told: queue.Queue[Told | None] = queue.Queue(1000)
        lock = threading.Lock()
        workers = [
            threading.Thread(target=self._work, args=(cases, lock, told), daemon=True)
            for _ in range(self._jobs)
        ]
        for worker in workers:
            worker.start()
        left = len(workers)
        while left:
            one = told.get()
            if one is None:
                left -= 1
            else:
                yield one

    def _work(
        self, cases: Iterator[Told], lock: threading.Lock, told: queue.Queue[Told | None]
    ) -> None:
        process: subprocess.Popen[str] | None = None
        try:
            while True:
                with lock:
                    case = next(cases, None)
                if case is None:
                    return
                if process is None:  # One that died, killed by somebody, costs its case.
                    process = subprocess.Popen(
                        self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(json.dumps(case) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    _end(process)
                    process = None
                    continue
                told.put(json.loads(line))
        finally:
            if process is not None:
                _end(process)
            told.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """Close its input, at which it ends its servers and itself."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.stdout.read()
    process.stdout.close()
    process.wait()


@dataclass(slots=True)
class _Cell:
    """One line of the table."""

    played: int = 0
    told: list[Told] = field(default_factory=list)

    def add(self, one: Told) -> None:
        self.played += 1
        if one["counts"] or one["violations"] or one["stuck"]:
            self.told.append(one)

    @property
    def violations(self) -> int:
        return sum(bool(one["violations"]) for one in self.told)

    @property
    def stuck(self) -> int:
        return sum(one["stuck"] for one in self.told)

    def row(self) -> list[str]:
        lived = [one["lived"] for one in self.told if one["lived"] is not None]
        back = [one["back"] for one in self.told if one["back"] is not None]
        return [
            str(len(self.told)),
            str(self.played - len(self.told)),
            str(sum(one["grants"] for one in self.told)),
            f"{sum(lived)} of {len(lived)}" if lived else "",
            f"{median(back):.2f} s" if back else "",
            str(self.stuck),
            str(self.violations),
        ]


def _cases(
    ways: Sequence[str], runs: int, seed: int, cells: dict[Any, _Cell], news: threading.Condition
) -> Iterator[Told]:
    """Each way and cell in turn, until each has *runs* runs that count, or was tried often
    enough."""
    given: dict[Any, int] = defaultdict(int)
    wanted = [(way, api, old) for way in ways for api, old in _CELLS]
    while True:
        with news:
            lacking = {
                key: runs - len(cells[key].told) for key in wanted if given[key] < runs * _TRIES_MAX
            }
            under_way = {key: given[key] - cells[key].played for key in wanted}
            now_due = [key for key, count in lacking.items() if count > under_way[key]]
            if not now_due and (
                not any(count > 0 for count in lacking.values()) or not news.wait(_SILENCE)
            ):
                return
        for key in now_due:
            given[key] += 1
            way, api, old = key
            drawn = random.Random(f"{seed} {key} {given[key]}").getrandbits(32)
            yield {"way": way, "api": api, "old": old, "seed": drawn}


def _run(
    pool: Pool, ways: Sequence[str], runs: int, seed: int, console: Console, log: Path | None = None
) -> dict[Any, _Cell]:
    cells: dict[Any, _Cell] = defaultdict(_Cell)
    news = threading.Condition()
    for one in pool.play(_cases(ways, runs, seed, cells, news)):
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
        with news:
            cells[one["way"], one["api"], one["old"]].add(one)
            news.notify_all()
        if one["violations"] or one["stuck"]:
            kind = "old" if one["old"] else "fresh"
            what = "; ".join(one["violations"]) or one["problem"]
            console.print(
                f"{one['way']} {one['api']} {kind} {one['seed']}: {what[:300]} {one['journal']}",
                highlight=False,
            )
    return cells


@click.command()
@click.option(
    "--runs", default=200, show_default=True, help="For each way, API, and old or fresh clients."
)
@click.option(
    "--way", "ways", multiple=True, type=click.Choice([*WAYS, *CLAIMS]), help="Only these."
)
@click.option("--jobs", default=6, show_default=True, help="Processes, with four servers each.")
@click.option(
    "--controls",
    default=6,
    show_default=True,
    help="Runs of each cell with the guarding rule broken; 0: none.",
)
@click.option(
    "--seed", default=None, type=int, help="What everything is drawn from; default: the time."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=None,
    help="Where journals of what is found go.",
)
def memories(
    runs: int,
    ways: tuple[str, ...],
    jobs: int,
    controls: int,
    seed: int | None,
    directory: Path | None,
) -> None:
    """One node forgets, in every way: two holders, or a token that falls?"""
    console = Console(width=max(Console().width, 120))
    seed = time.time_ns() % 2**32 if seed is None else seed
    directory = directory or Path("chaos-runs") / time.strftime("memories-%Y%m%d-%H%M%S")
    directory.mkdir(parents=True, exist_ok=True)
    chosen = ways or tuple(name for name, way in WAYS.items() if not way.limit)
    failed = False
    if runs:
        cells = _run(Pool(jobs, directory), chosen, runs, seed, console, directory / "runs.jsonl")
        table = Table(box=None, pad_edge=False, title=f"seed {seed}", title_justify="left")
        for header in (
            "way",
            "api",
            "B",
            "runs",
            "too late",
            "grants",
            "lived",
            "back after",
            "stuck",
            "violations",
        ):
            table.add_column(header)
        for (way, api, old), cell in sorted(cells.items()):
            table.add_row(way, api, "old" if old else "fresh", *cell.row())
            failed |= bool(cell.violations or cell.stuck) or len(cell.told) < runs
        console.print(table)
    for rule in (
        dict.fromkeys(rule for way in chosen if way in WAYS for rule in WAYS[way].controls)
        if controls
        else ()
    ):
        guarded = [way for way in chosen if way in WAYS and rule in WAYS[way].controls]
        cells = _run(Pool(min(jobs, 4), None, rule), guarded, controls, seed, Console(quiet=True))
        for way in guarded:
            found = sum(cell.violations for (name, _, _), cell in cells.items() if name == way)
            played = sum(len(cell.told) for (name, _, _), cell in cells.items() if name == way)
            verdict = "broken, as it must be" if found else "NOT BROKEN: its runs prove nothing"
            console.print(
                f"control {way}, {rule}: {found} of {played} runs violated: {verdict}",
                highlight=False,
            )
            failed |= not found
    sys.exit(1 if failed else 0)
