"""`python -m chaos model`: visit every state. Exit status 0 only if all that must hold does, and
every mutant is refuted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click
from rich.console import Console
from rich.table import Table

from chaos.model.catalogue import LONG, MUTANTS, SOUND, Mutant
from chaos.model.memory import world as memory
from chaos.model.memory.catalogue import LONG_MEMORIES, MEMORIES, MEMORY_MUTANTS, MemoryMutant
from chaos.model.memory.state import Blank, Marker, Memories
from chaos.model.memory.state import Node as MemoryNode
from chaos.model.search import Outcome, explore
from chaos.model.state import Configuration, Node, name_of
from chaos.model.world import Change

__all__ = ["model"]

WIDTH = 120  # Of a table in a file or a pipe.
_MUTANTS: dict[str, Mutant | MemoryMutant] = {
    mutant.name: mutant for mutant in (*MUTANTS, *MEMORY_MUTANTS)
}


@click.command()
@click.option("--long", is_flag=True, help="Larger bounds as well.")
@click.option(
    "--world",
    "worlds",
    multiple=True,
    type=click.Choice(["ballots", "memories"]),
    help="This one alone; both if none.",
)
@click.option(
    "--mutant",
    "mutants",
    multiple=True,
    type=click.Choice(list(_MUTANTS)),
    help="Refute this alone; show its trace.",
)
@click.option(
    "--list", "listed", is_flag=True, help="Name what there is to explore, and explore nothing."
)
@click.option(
    "--jobs",
    default=os.cpu_count() or 1,
    show_default=True,
    help="Processes; each explores one configuration.",
)
def model(
    long: bool, worlds: tuple[str, ...], mutants: tuple[str, ...], listed: bool, jobs: int
) -> None:
    """Explore: all states of the ballot lock and of memories within bounds, and of weakened
    protocols, which must fail."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if listed:
        _list(console)
    elif mutants:
        sys.exit(0 if _dissect(mutants) else 1)
    else:
        sound: list[Configuration | Memories] = []
        refuted: list[Mutant | MemoryMutant] = []
        if "memories" in worlds or not worlds:
            sound += (*MEMORIES, *LONG_MEMORIES) if long else MEMORIES
            refuted += MEMORY_MUTANTS
        if "ballots" in worlds or not worlds:
            sound += (*SOUND, *LONG) if long else SOUND
            refuted = [*MUTANTS, *refuted]
        sys.exit(0 if _run(sound, refuted, jobs, console) else 1)


def _run(
    sound: Sequence[Configuration | Memories],
    refuted: Sequence[Mutant | MemoryMutant],
    jobs: int,
    console: Console,
) -> bool:
    # The largest stand last; begun first, they leave no core idle at the end.
    todo = [*reversed(sound), *(mutant.configuration for mutant in refuted)]
    outcomes = {outcome.configuration: outcome for outcome in _explored(todo, jobs)}
    held = _hold([outcomes[configuration] for configuration in sound], console)
    return (
        _refute([(mutant, outcomes[mutant.configuration]) for mutant in refuted], console) and held
    )


def _explored(todo: Sequence[Configuration | Memories], jobs: int) -> Iterator[Outcome]:
    # Spawned, because a process that has threads, as the spinner is one, must not be forked.
    with (
        ProcessPoolExecutor(jobs, get_context("spawn")) as pool,
        Console(stderr=True).status("exploring") as status,
    ):
        for number, outcome in enumerate(pool.map(explore, todo), start=1):
            status.update(
                f"explored {number} of {len(todo)}: {outcome.configuration.name}, {outcome.states:,} states"
            )
            yield outcome


def _hold(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Show what must hold, and a trace of what does not."""
    table = _table("What ships: every state within the bounds", "configuration", "must hold")
    for outcome in outcomes:
        configuration = outcome.configuration
        verdict = "[green]holds" if outcome.complete else f"[red]{outcome.broken} BROKEN"
        table.add_row(
            configuration.name, " ".join(configuration.properties), *_numbers(outcome), verdict
        )
    console.print(table)
    console.print(_sum(outcomes))
    broken = [outcome for outcome in outcomes if not outcome.complete]
    for outcome in broken:
        _show(outcome)
    return not broken


def _refute(outcomes: Sequence[tuple[Mutant | MemoryMutant, Outcome]], console: Console) -> bool:
    table = _table("What was weakened: the shortest way to a violation", "mutant", "breaks")
    for mutant, outcome in outcomes:
        verdict = (
            f"[green]{outcome.broken} in {len(outcome.trace)} steps"
            if _refuted(mutant, outcome)
            else "[red]NOT REFUTED"
        )
        table.add_row(mutant.name, mutant.breaks, *_numbers(outcome), verdict)
    console.print(table)
    total = _sum([outcome for _, outcome in outcomes])
    console.print(f"{total} A trace: python -m chaos model --mutant {outcomes[0][0].name}")
    return all(_refuted(mutant, outcome) for mutant, outcome in outcomes)


def _refuted(mutant: Mutant | MemoryMutant, outcome: Outcome) -> bool:
    return outcome.broken == mutant.breaks


def _dissect(names: Sequence[str]) -> bool:
    """Refute these and show how; whether all of them were."""
    refuted = True
    for name in names:
        outcome = explore(_MUTANTS[name].configuration)
        refuted = refuted and _refuted(_MUTANTS[name], outcome)
        click.echo(f"{name}: {_MUTANTS[name].why}")
        _show(outcome)
    return refuted


def _list(console: Console) -> None:
    table = Table(
        "name",
        "timing",
        "tries",
        "rounds",
        "first tokens",
        "questions",
        "crashes",
        "holds or breaks",
        box=None,
    )
    rows = [(bounds, " ".join(bounds.properties)) for bounds in (*SOUND, *LONG)]
    for bounds, verdict in [
        *rows,
        *((mutant.configuration, f"breaks {mutant.breaks}") for mutant in MUTANTS),
    ]:
        asks = f"{bounds.questions}: {' '.join(bounds.modes)}" if bounds.questions else "0"
        tries = " ".join(str(tries) for tries in bounds.tries)
        bound = (tries, str(bounds.rounds), f"1-{bounds.proposals}", asks, str(bounds.crashes))
        table.add_row(bounds.name, "redlock" if bounds.timing else "none", *bound, verdict)
    console.print(table)
    memories = Table(
        "memories", "tries", "what happens to node 1", "times", "holds or breaks", box=None
    )
    known = [(bounds, " ".join(bounds.properties)) for bounds in (*MEMORIES, *LONG_MEMORIES)]
    for world, verdict in [
        *known,
        *((mutant.configuration, f"breaks {mutant.breaks}") for mutant in MEMORY_MUTANTS),
    ]:
        tries = " ".join(str(tries) for tries in world.tries)
        memories.add_row(world.name, tries, " ".join(world.kinds), str(world.losses), verdict)
    console.print(memories)


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for column in ("states", "steps", "depth", "CPU s"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    return table


def _numbers(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.states:,}",
        f"{outcome.transitions:,}",
        str(outcome.depth),
        f"{outcome.seconds:.1f}",
    )


def _sum(outcomes: Sequence[Outcome]) -> str:
    states, seconds = (
        sum(outcome.states for outcome in outcomes),
        sum(outcome.seconds for outcome in outcomes),
    )
    return f"{states:,} states in {seconds:.0f} s of CPU."


def _show(outcome: Outcome) -> None:
    """A trace, line by line: what happens, and what the node it happens at remembers then."""
    if not outcome.trace:
        click.echo(f"Nothing is broken in {outcome.states:,} states.")
        return
    for number, change in enumerate(outcome.trace, start=1):
        click.echo(
            f"{number:4}  {change.text:60} {_remembered(outcome.configuration, change)}".rstrip()
        )
    violation = outcome.trace[-1].violation
    if violation is not None:
        click.echo(
            f"{violation.property} is broken: {violation.text}. No shorter way; {outcome.states:,} states visited."
        )


def _remembered(bounds: Configuration | Memories, change: Change | memory.Change) -> str:
    if change.place is None:
        return ""
    if isinstance(change, memory.Change):
        return _marked(change.state.nodes[change.place])
    assert isinstance(bounds, Configuration)
    return _memory(bounds, change.nodes[change.place])


def _marked(node: MemoryNode) -> str:
    """The lock, the memory, and what the marker says."""
    lock = "free" if node.lock < 0 else "ABCDEFGH"[node.lock]
    text = "no marker"
    if isinstance(node.text, Blank):
        text = f"blank {node.text.stamp}"
    elif isinstance(node.text, Marker):
        floor = f", floor {node.text.floor}" if node.text.floor else ""
        text = f"marked for memory {node.text.memory}{floor}"
    return f"{lock}, memory {node.memory}{'' if node.master else ' of its master'}, {text}"


def _memory(bounds: Configuration, node: Node) -> str:
    lock = "free"
    if node.lock is not None:
        token = f":{node.lock.token}" if node.lock.token else ""
        lock = f"{name_of(bounds, node.lock.owner)}{token}{f' to t={node.lock.until}' if node.lock.until else ''}"
    floor = f", floor {node.floor}" if node.floor and node.waits is None else ""
    return f"{lock}, fence {node.fence}{floor}{', no vote' if node.waits is not None else ''}"
