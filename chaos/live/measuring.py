"""`python -m chaos elections`: how soon the next one leads, how late a leader is told, and whether
two ever believed to lead; measured on five real servers, against bars.

Exit status 0: every figure keeps to its bar. 1: one does not, or a run did not end as expected. 2:
it could not be run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Table

from chaos.checker import Assumptions, check
from chaos.live import elections as runs
from chaos.live.command import Stage, new_console, set_stage
from chaos.live.elections import RETRY_DELAY, Loss, Losses
from chaos.live.figures import Figure, bounded, shown, spread, told
from chaos.live.runner import Outcome
from chaos.live.scenario import Scenario
from chaos.reigns import Reign, reigns

__all__ = ["Figure", "Played", "elections", "figures_of", "from_ends"]

LAG_MAX = 0.01
"""Seconds from the stop deadline to the stop signal, 99 times in 100."""
SIGNALLED = ("cut off", "answers hang", "majority paused")
"""Kinds of which the leader learns at its stop deadline alone, and while its process runs."""


@dataclass(frozen=True, slots=True)
class Played:
    """A run, and what it was to measure."""

    outcome: Outcome
    losses: Sequence[Loss]
    round_trip: float
    reigns: dict[int, Reign]

    @classmethod
    def of(cls, outcome: Outcome, script: Losses) -> Played:
        """With the terms of its history, by their tokens."""
        found = {reign.token: reign for reign in reigns(outcome.history)}
        return cls(outcome, script.losses, script.round_trip, found)

    def following(self, loss: Loss) -> Reign | None:
        """The term after a lost one."""
        token = min((token for token in self.reigns if token > loss.token), default=None)
        return self.reigns[token] if token is not None else None


@click.command()
@click.option("--kills", default=60, show_default=True, help="Leaders killed with SIGKILL.")
@click.option("--resignations", default=100, show_default=True, help="Leaders that resign.")
@click.option("--losses", default=90, show_default=True, help="Terms ended by every kind in turn.")
@click.option("--deletions", default=10, show_default=True, help="Locks deleted under a leader.")
@click.option("--ttl", default=1.0, show_default=True, help="Seconds.")
@click.option("--seed", default=0, show_default=True, help="What clients and pauses draw from.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="As of `run`.")
def elections(
    kills: int,
    resignations: int,
    losses: int,
    deletions: int,
    ttl: float,
    seed: int,
    directory: Path | None,
) -> None:
    """Measure elections: about two seconds a kill, one a resignation, two and a half a loss."""
    wanted = {
        runs.kills: kills,
        runs.resignations: resignations,
        runs.every_fault: losses,
        runs.taken_away: deletions,
    }
    with set_stage(directory, "processes", (), owned=False, seed=seed) as theatre:
        played = {
            make.__name__: _play(theatre, make, count, ttl, seed)
            for make, count in wanted.items()
            if count
        }
        figures = list(figures_of(played, ttl))
        _show(figures, played)
        status = theatre.conclude()
    sys.exit(1 if status or not all(figure.holds for figure in figures) else 0)


Make = Callable[[int, float, Callable[[str], None]], tuple[Scenario, Losses]]


def _play(theatre: Stage, make: Make, count: int, ttl: float, seed: int) -> Played:
    began = time.monotonic()

    def tell(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {line}\n")

    scenario, script = make(count, ttl, tell)
    outcome = theatre.play(scenario, seed=seed)
    assert outcome is not None  # Server processes can do all it needs.
    return Played.of(outcome, script)


# Long: one figure after the other, in the order of the bars.
def figures_of(played: dict[str, Played], ttl: float) -> Iterator[Figure]:
    """What was measured, by the name of its run: "kills", "resignations", "every_fault",
    "taken_away"."""
    if killed := played.get("kills"):
        took = [loss.took for loss in killed.losses]
        yield bounded(
            "next leader after SIGKILL",
            took,
            ttl + 2 * RETRY_DELAY + killed.round_trip,
            "ttl + 2 retry delays + 1 round trip",
        )
        expired = [
            reign.started_at - loss.valid_until
            for loss in killed.losses
            if (reign := killed.following(loss)) is not None
        ]
        yield told("the same, from the end of validity as the dead leader knew it", expired)
    if resigned := played.get("resignations"):
        bar = RETRY_DELAY + 5 * resigned.round_trip
        took = [loss.took for loss in resigned.losses]
        yield bounded("next leader after a resignation", took, bar, "1 retry delay + 5 round trips")
        yield told("the same, from the end of the old term", from_ends(resigned))
    sound = [played[name] for name in ("kills", "resignations", "every_fault") if name in played]
    changes = sum(len(one.losses) for one in sound)
    beside = [
        found
        for one in sound
        for found in check(one.outcome.history, Assumptions(), float("inf"))
        if found.property[:2] in ("E1", "E2", "ME")
    ]
    yield Figure(
        f"two believed to lead at once, in {changes} changes", str(len(beside)), "0", not beside
    )
    faults = played.get("every_fault")
    if faults:
        yield from _losses(faults, sound, [*sound, *filter(None, [played.get("taken_away")])])
    for one in played.values():
        loss_trip = f"{1000 * one.round_trip:.2f} ms"
        yield Figure(f"round trip in {one.outcome.scenario.id}", loss_trip, "", holds=True)


def _losses(
    faults: Played, sound: Sequence[Played], everything: Sequence[Played]
) -> Iterator[Figure]:
    signalled = [
        reign
        for loss in faults.losses
        if loss.kind.name in SIGNALLED and (reign := faults.reigns[loss.token]).stopping
    ]
    lags = [reign.stopping.lag for reign in signalled if reign.stopping]
    yield bounded("stop deadline to stop signal, by the ledger", lags, LAG_MAX, "10 ms")
    heard = [reign.told_at - reign.stop_at for reign in signalled if reign.told_at is not None]
    yield told("the same, until a thread or task that waits for it runs", heard)
    margins = [
        reign.stopped.margin
        for one in sound
        for loss in one.losses
        if not (loss.kind.zombie or loss.kind.late)
        and (reign := one.reigns[loss.token]).stopped is not None
    ]
    least = min(margins, default=0.0)
    yield Figure(
        f"least validity left when the work had stopped, of {len(margins)} terms",
        f"{1000 * least:.1f} ms",
        "> 0",
        least > 0,
    )
    losses = [loss for one in everything for loss in one.losses if loss.kind.reasons]
    idle = [loss for loss in losses if not loss.stood_again]
    yield Figure(f"candidates idle after {len(losses)} losses", str(len(idle)), "0", not idle)
    wrong = [loss for loss in losses if loss.reason not in loss.kind.reasons]
    said = f"{len(losses) - len(wrong)} of {len(losses)}" + "".join(
        f"; {loss.kind.name}: {loss.reason or 'none'}" for loss in wrong[:5]
    )
    yield Figure("reasons that name the fault", said, "all", not wrong)


def from_ends(played: Played) -> list[float]:
    """Seconds from the end of each lost term to the next one."""
    return [
        reign.started_at - over_at
        for loss in played.losses
        if (over_at := played.reigns[loss.token].over_at) is not None
        and (reign := played.following(loss)) is not None
    ]


def _show(figures: Sequence[Figure], played: dict[str, Played]) -> None:
    out = new_console()
    out.print(shown(figures))
    faults = played.get("every_fault")
    if faults is None:
        return
    kinds = Table(box=None, pad_edge=False)
    for header in ("fault", "losses", "to the next leader", "validity left", "ledger"):
        kinds.add_column(header, overflow="fold")
    for kind in runs.KINDS:
        losses = [loss for loss in faults.losses if loss.kind is kind]
        margins = [
            reign.stopped.margin
            for loss in losses
            if (reign := faults.reigns[loss.token]).stopped is not None
        ]
        left = f"{1000 * min(margins):.0f} ms at least" if margins else ""
        reasons = ", ".join(sorted({loss.reason for loss in losses if loss.reason}))
        took = spread(loss.took for loss in losses)
        kinds.add_row(kind.name, str(len(losses)), took, left, reasons)
    out.print(kinds)
