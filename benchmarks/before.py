"""`python -m benchmarks.before CHECKOUT`: what an acquire and a release cost here, to what they
cost in another checkout of this repository, such as `git worktree add ../before main` makes.

Both are measured in turns of one run, on the same servers, by processes of their own; what counts
is the ratio, round by round, with its uncertainty.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.build import HERE
from benchmarks.figures import percentile, ratio_over_rounds
from benchmarks.worker import Worker
from redlock.embedded import Nodes

__all__ = ["main"]

KEYS = ("ours", "ours-asyncio")


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=40, show_default=True, help="Turns of each.")
@click.option("--pairs", default=150, show_default=True, help="Acquires and releases in a turn.")
@click.option("--seed", default=1, show_default=True, help="Of the order of turns.")
def main(checkout: Path, rounds: int, pairs: int, seed: int) -> None:
    """Compare with CHECKOUT: p50 of a pair, and CPU of a pair."""
    homes = {"here": HERE.parent, "before": checkout.resolve()}
    dice = random.Random(seed)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        nodes = stack.enter_context(Nodes(5))
        workers = {
            (key, where): stack.enter_context(Worker(f"{key}, {where}", _command(home, key)))
            for key in KEYS
            for where, home in homes.items()
        }
        for worker in workers.values():
            worker.ask("open", urls=nodes.urls, ttl=10.0)
            worker.ask("pairs", resource="warm", count=pairs)
        for _ in range(rounds):
            for which in dice.sample(sorted(workers), len(workers)):
                said = workers[which].ask("pairs", resource="-".join(which), count=pairs, warm=5)
                both = zip(said["acquire"], said["release"], strict=True)
                times[which].append(percentile([a + b for a, b in both], 50) / 1000)
                cpu[which].append(said["cpu"] / 1000 / pairs)
    for key in KEYS:
        here, before = (key, "here"), (key, "before")
        click.echo(
            f"{key}: p50 {percentile(times[here], 50):.0f} us, before"
            f" {percentile(times[before], 50):.0f} us, ratio"
            f" {ratio_over_rounds(times[here], times[before])}; CPU ratio"
            f" {ratio_over_rounds(cpu[here], cpu[before])}"
        )


def _command(home: Path, key: str) -> list[str]:
    # First on the path: a checkout may also be what is installed here.
    words = f"import sys; sys.path.insert(0, {str(home)!r})"
    serve = f"from benchmarks.contenders.harness import serve; serve({key!r})"
    return [sys.executable, "-I", "-c", f"{words}; {serve}"]


if __name__ == "__main__":
    main()
