"""`python -m chaos waiting`: how long a lock stands still when those around it die, what the dead
leave behind, and whom a renewal wakes; measured on five real servers, against bars.

Exit status 0: every figure keeps to its bar. 1: one does not, or a run did not end as expected. 2:
it could not be run. Speed, order and CPU of crowds are measured in `benchmarks`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from chaos.live import elections as runs
from chaos.live.command import Stage, new_console, set_stage
from chaos.live.directed import waiting
from chaos.live.directed.waiting import DEAD, Rounds
from chaos.live.figures import Figure, bounded, shown, told
from chaos.live.measuring import Played, figures_of, from_ends
from chaos.live.scenario import Role
from chaos.live.waiters import LINE, MANY_DEAD, TOLD, line
from redlock import Redlock
from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY
from redlock.core.events import Event, LeaseRenewed
from redlock.embedded import Nodes

__all__ = ["keys_left", "waiting_figures", "woken_by_renewals"]

TTL = 1.0
BATCH = 50
"""Clients that wait in one process that is killed."""
LOCKS = 20
RESIGNING = 0.005
"""Seconds beyond five round trips in which the next one leads."""
_PLACE = 1.0
_PATIENCE = 60.0


@click.command()
@click.option("--kills", default=20, show_default=True, help="Of each kind.")
@click.option("--dead", default=10_000, show_default=True, help="Killed waiters.")
@click.option("--resignations", default=60, show_default=True, help="Leaders that resign.")
@click.option("--seed", default=0, show_default=True, help="What clients and pauses draw from.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="As of `run`.")
def measure(kills: int, dead: int, resignations: int, seed: int, directory: Path | None) -> None:
    """Measure waiting: about a second a kill, and one for a hundred killed waiters."""
    figures: list[Figure] = []
    with set_stage(directory, "processes", (), owned=False, seed=seed) as theatre:
        if kills:
            figures += waiting_figures(theatre, kills, seed)
        if resignations:
            figures += _resigned(theatre, resignations, seed)
        status = theatre.conclude() if kills or resignations else 0
    with Nodes(5) as nodes:
        if dead:
            figures.append(keys_left(nodes, dead))
        figures.append(woken_by_renewals(nodes))
    new_console().print(shown(figures))
    sys.exit(1 if status or not all(figure.holds for figure in figures) else 0)


def waiting_figures(theatre: Stage, kills: int, seed: int) -> Iterator[Figure]:
    """How long the lock stands still after a kill of each kind."""
    kinds: Sequence[tuple[str, str, Rounds, Sequence[Role], str]] = (
        ("WW", "kill -9 of a waiter", waiting.killed_waiter(kills), LINE, "50 ms"),
        ("WF", "kill -9 of the first in line", waiting.killed_head(kills), LINE, "50 ms"),
        (
            "WT",
            "death between message and TAKE",
            waiting.told_and_dead(kills),
            TOLD,
            "one look of the next, and 50 ms",
        ),
        (
            "WH",
            "kill -9 of the holder",
            waiting.killed_holder(TTL, kills),
            LINE,
            "ttl + 50 ms",
        ),
        (
            "WD",
            f"{DEAD} dead in a row at the head",
            waiting.many_dead(max(1, kills // 4)),
            MANY_DEAD,
            "50 ms + 200 ms",
        ),
    )
    for id, what, script, roles, words in kinds:
        script.tell = _tell
        theatre.play(line(id, what, script, roles, ttl=TTL), seed=seed)
        yield bounded(f"standstill: {what}", [one.took for one in script.took], script.bar, words)


def _resigned(theatre: Stage, count: int, seed: int) -> Iterator[Figure]:
    scenario, script = runs.resignations(count, TTL, _tell)
    outcome = theatre.play(scenario, seed=seed)
    assert outcome is not None  # Server processes can do all it needs.
    played = Played.of(outcome, script)
    bar = RESIGNING + 5 * script.round_trip
    yield bounded(
        "leader resigns: to the next one, from the end of its term",
        from_ends(played),
        bar,
        "5 round trips + 5 ms",
    )
    yield told("the same, from the call", [loss.took for loss in script.losses])
    yield from (
        figure
        for figure in figures_of({"resignations": played}, TTL)
        if figure.what.startswith("two believed")
    )


def keys_left(nodes: Nodes, dead: int) -> Figure:
    """Keys that stand on the nodes once *dead* clients were killed while they waited, and their
    places and the lock's ttl are over."""
    names = [f"dead-{number}" for number in range(LOCKS)]
    with Redlock(nodes.urls, ttl=TTL) as locks:
        held = [locks.lock(name, auto_extend=True).acquire() for name in names]
        for number in range(0, dead, BATCH):
            _kill(nodes.urls, names, min(BATCH, dead - number))
            if number % 1000 == 0:
                _tell(f"{number} of {dead} waiters are dead")
        most = max(_places(node.client(), names) for node in nodes)
        for lease in held:
            assert lease is not None
            lease.release()
    time.sleep(max(TTL, _PLACE))
    left = [key for node in nodes for key in _keys(node.client())]
    value = f"{len(left)} left; a node had {most} entries in its queues while the locks were held"
    return Figure(f"keys left of {dead} killed waiters", value, "0", not left)


def _kill(urls: Sequence[str], names: Sequence[str], count: int) -> None:
    told = {"urls": list(urls), "locks": list(names), "count": count, "ttl": TTL}
    with _doomed(told) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "waiting\n":
            raise RuntimeError("a process of waiters ended before it was killed")


@contextlib.contextmanager
def _doomed(told: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A process of those who wait, killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "chaos.live.doomed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _places(client: Any, names: Sequence[str]) -> int:
    with client:
        return sum(client.zcard(f"redlock:{name}:lock-queue") for name in names)


def _keys(client: Any) -> list[bytes]:
    with client:
        return [
            key
            for key in client.scan_iter(count=1000)
            if key != MARKER_KEY.encode() and not key.endswith(FENCE_SUFFIX.encode())
        ]


def woken_by_renewals(nodes: Nodes, renewals: int = 30) -> Figure:
    """Messages that coordinators got while the holder of a lock for which others wait renewed
    it, counted by one more subscriber."""
    renewed = 0

    def hear(event: Event) -> None:
        nonlocal renewed
        renewed += isinstance(event, LeaseRenewed)

    told = {"urls": nodes.urls, "locks": ["renewed"], "count": 4, "ttl": TTL}
    with contextlib.ExitStack() as stack:
        locks = stack.enter_context(Redlock(nodes.urls, ttl=TTL / 4, on_event=hear))
        stack.enter_context(locks.lock("renewed", auto_extend=True))
        process = stack.enter_context(_doomed(told))
        assert process.stdout is not None
        process.stdout.readline()
        # Only now: a look tries its right to publish on a channel without a name.
        wires = [stack.enter_context(node.client()).pubsub() for node in nodes]
        for wire in wires:
            wire.psubscribe("redlock:wake:?*")
        began, messages = renewed, 0
        give_up_at = time.monotonic() + _PATIENCE
        while renewed < began + renewals and time.monotonic() < give_up_at:
            for wire in wires:
                said = wire.get_message(timeout=0.01)
                messages += said is not None and said["type"] == "pmessage"
        counted = renewed - began
        for wire in wires:
            wire.close()
    value = f"{messages} in {counted} renewals"
    return Figure("wake-ups sent by renewals", value, "0", counted >= renewals and not messages)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
