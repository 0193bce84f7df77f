"""`python -m chaos list | run | campaign | replay`: the campaigns from the command line.

Exit status 0: everything ended as expected, a control that fails as it must included. 1: something
did not. 2: it could not be run. What is being broken right now is shown while it happens.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from chaos.checker import check
from chaos.figures import duration
from chaos.history import Broken, Healed, read_jsonl
from chaos.live.backend import Backend
from chaos.live.campaign import ROUND, one_round, rounds
from chaos.live.foreign import Foreign
from chaos.live.processes import Processes
from chaos.live.program import REDLOCK, Program
from chaos.live.rundir import RunDirectory, read_run
from chaos.live.runner import Outcome, Runner, obstacle
from chaos.live.scenario import Scenario
from chaos.live.scenarios import controls, named
from chaos.live.toxiproxy import HOW_TO_GET_IT, ToxiproxyError, find_server
from chaos.peers.programs import PEERS, PeerMissing
from chaos.peers.programs import program as peer
from chaos.peers.scenarios import adapted

__all__ = ["Stage", "campaign", "list_scenarios", "new_console", "replay", "run", "set_stage"]

_BACKENDS = {
    "processes": "chaos.live.processes:Processes",
    "containers": "chaos.live.containers:Containers",
}


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    """Options of everything that runs scenarios."""
    for option in reversed(
        (
            click.option(
                "--dir",
                "directory",
                type=click.Path(path_type=Path),
                help="Where to write; default: chaos-runs/<time>.",
            ),
            click.option(
                "--backend",
                type=click.Choice(list(_BACKENDS)),
                default="processes",
                show_default=True,
                help="Who runs the servers.",
            ),
            click.option(
                "--node",
                "nodes",
                multiple=True,
                metavar="URL",
                help="A node that you have already; five of them.",
            ),
            click.option(
                "--i-own-these-nodes",
                "owned",
                is_flag=True,
                help="Let scenarios change settings of those nodes for a while.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command("list")
@click.argument("names", nargs=-1)
def list_scenarios(names: tuple[str, ...]) -> None:
    """The scenarios: what is broken, and what is to come of it."""
    table = Table(box=None, pad_edge=False)
    for header in ("", "scenario", "expected", "clients", "needs"):
        table.add_column(header, overflow="fold")
    for scenario in _named(names):
        kinds = Counter(role.workload for role in scenario.roles)
        clients = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        needs = scenario.not_run or ", ".join(
            sorted(ability.name.lower() for ability in scenario.abilities)
        )
        table.add_row(scenario.id, scenario.title, str(scenario.expected), clients, needs)
    new_console().print(table)


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--seed", default=0, show_default=True, help="What clients draw from.")
@click.option("--repeat", default=1, show_default=True, help="How often.")
@click.option(
    "--client",
    "kinds",
    multiple=True,
    default=["redlock"],
    show_default=True,
    help="Client programs to run them with.",
)
@_shared
def run(
    names: tuple[str, ...],
    seed: int,
    repeat: int,
    kinds: tuple[str, ...],
    directory: Path | None,
    backend: str,
    nodes: tuple[str, ...],
    owned: bool,
) -> None:
    """Run scenarios, all of them if none is named."""
    chosen = [scenario for _ in range(repeat) for scenario in _named(names)]
    programs = [_program(kind) for kind in kinds]
    with set_stage(directory, backend, nodes, owned=owned, seed=seed) as stage:
        for scenario in chosen:
            for program in programs:
                stage.play(scenario, seed=_seed_of(seed, scenario), program=program)
    sys.exit(stage.conclude())


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long.")
@click.option(
    "--seed", default=None, type=int, help="What everything is drawn from; default: the time."
)
@click.option(
    "--controls/--no-controls",
    "controlled",
    default=True,
    show_default=True,
    help="Begin with the controls, which show that the checker can fail.",
)
@_shared
def campaign(
    minutes: float,
    seed: int | None,
    controlled: bool,
    directory: Path | None,
    backend: str,
    nodes: tuple[str, ...],
    owned: bool,
) -> None:
    """The controls, in about half a minute, and then random faults, round after round (S61)."""
    seed = int(time.time_ns() // 10**9) if seed is None else seed
    ends = time.monotonic() + minutes * 60
    with set_stage(directory, backend, nodes, owned=owned, seed=seed) as stage:
        for scenario in controls() if controlled else ():
            stage.play(scenario, seed=_seed_of(seed, scenario))
        for number, scenario in enumerate(rounds(seed), 1):
            if time.monotonic() + ROUND > ends and number > 1:
                break
            stage.play(scenario, seed=seed * 100_000 + number)
    sys.exit(stage.conclude())


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--judge",
    is_flag=True,
    help="Only judge the recorded history again, and print its faults and violations.",
)
@_shared
def replay(
    path: Path,
    judge: bool,
    directory: Path | None,
    backend: str,
    nodes: tuple[str, ...],
    owned: bool,
) -> None:
    """Run the scenario of a run directory again, with its seed: `replay DIR/S04`."""
    found = _recorded(path)
    if judge:
        sys.exit(_judge_again(path, found))
    scenario = _scenario(found["scenario"], found["seed"])
    with set_stage(directory, backend, nodes, owned=owned, seed=found["seed"]) as stage:
        stage.play(scenario, seed=found["seed"], program=_program(found["client_kind"]))
    sys.exit(stage.conclude())


# How


class Stage:
    """A runner, a run directory, and what is shown of both."""

    def __init__(
        self, console: Console, runner: Runner, directory: RunDirectory, options: str
    ) -> None:
        self._console = console
        self._runner = runner
        self._directory = directory
        self._options = options
        self._current = ""
        self._outcomes: list[Outcome] = []
        self._status = console.status("") if console.is_terminal else None
        runner.tell = self.tell

    def tell(self, line: str) -> None:
        """What is broken right now."""
        if self._status is not None:
            self._status.update(f"{self._current}  [yellow]{line}")

    def play(self, scenario: Scenario, *, seed: int, program: Program = REDLOCK) -> Outcome | None:
        """Run one, and show how it went; or say why it cannot be run: None."""
        if program.kind != REDLOCK.kind:
            scenario = adapted(scenario)
        why = obstacle(scenario, self._runner.backend, program)
        if why:
            self._directory.skip(scenario.id, scenario.title, why)
            self._console.print(
                f"[dim]-       {scenario.id:5} {scenario.title}: not run, {why}", soft_wrap=True
            )
            return None
        self._current = f"{scenario.id} {scenario.title}"
        with self._status or contextlib.nullcontext():
            self.tell("the stage is set")
            outcome = self._runner.run(scenario, seed=seed, program=program)
        self._directory.add(outcome, self._options)
        self._outcomes.append(outcome)
        self._show(outcome)
        return outcome

    def _show(self, outcome: Outcome) -> None:
        mark = "[green]ok    [/]" if outcome.ok else "[bold red]NOT OK[/]"
        kind = "" if outcome.program.kind == "redlock" else f" ({outcome.program.kind})"
        scenario = outcome.scenario
        self._console.print(
            f"{mark}  {scenario.id:5}{kind} {scenario.title}: [bold]{outcome.observed}[/],"
            f" {duration(outcome.seconds)}",
            soft_wrap=True,
        )
        if not outcome.ok or len(self._outcomes) == 1 or scenario.expected == "must fail":
            self._console.print(f"        [dim]{outcome.why}", markup=True, soft_wrap=True)
        for violation in outcome.violations[:5] if not outcome.ok else ():
            self._console.print(
                f"        [red]{violation.property}: {violation.text}", soft_wrap=True
            )

    def conclude(self) -> int:
        """The sum of it, and the exit status."""
        wrong = [outcome for outcome in self._outcomes if not outcome.ok]
        grants = sum(outcome.metrics.get("grants", 0) for outcome in self._outcomes)
        refused = sum(outcome.metrics.get("stale_refused", 0) for outcome in self._outcomes)
        console = self._console
        controls = sum(outcome.scenario.expected == "must fail" for outcome in self._outcomes)
        console.print(
            f"\n{len(self._outcomes) - controls} scenarios and {controls} controls,"
            f" {grants:,} grants, {refused} stale accesses refused, {len(wrong)} not as expected"
        )
        console.print(
            f"{self._directory.path}/run.json, junit.xml; python -m chaos report"
            f" {self._directory.path}",
            soft_wrap=True,
        )
        return 1 if wrong or not self._outcomes else 0


@contextlib.contextmanager
def set_stage(
    directory: Path | None, backend: str, nodes: Sequence[str], *, owned: bool, seed: int
) -> Iterator[Stage]:
    """Servers, proxies, clients and a run directory, until the block ends."""
    console = new_console()
    toxiproxy = find_server()
    if toxiproxy is None:
        _give_up(HOW_TO_GET_IT)
    path = directory or Path("chaos-runs") / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    options = "".join(
        [
            *(f" --node {node}" for node in nodes),
            *([f" --backend {backend}"] if backend != "processes" else []),
        ]
    )
    with _ending_in_order():
        try:
            with Runner(_backend(backend, nodes, owned=owned), toxiproxy) as runner:
                command = shlex.join(["python", "-m", "chaos", *sys.argv[1:]])
                kept = RunDirectory(path, seed=seed, command=command, versions=runner.versions())
                yield Stage(console, runner, kept, options)
        except KeyboardInterrupt:
            _give_up("interrupted: servers, proxies and clients are gone", 130)
        except (ToxiproxyError, RuntimeError, ValueError, ImportError) as error:
            _give_up(str(error))


def _backend(name: str, nodes: Sequence[str], *, owned: bool) -> Backend:
    if nodes:
        return Foreign(nodes, owned=owned)
    if name == "processes":
        return Processes()
    module, _, attribute = _BACKENDS[name].partition(":")
    made: Backend = getattr(import_module(module), attribute)()
    return made


def _program(kind: str) -> Program:
    """Our own client program, or a peer's."""
    if kind == REDLOCK.kind:
        return REDLOCK
    if kind not in PEERS:
        raise click.UsageError(
            f"no client program {kind!r}; there are {', '.join([REDLOCK.kind, *PEERS])}"
        )
    try:
        return peer(kind)
    except PeerMissing as error:
        raise click.UsageError(str(error)) from None


def _named(names: Sequence[str]) -> list[Scenario]:
    try:
        return named(names)
    except KeyError as error:
        raise click.UsageError(
            f"no scenario {error.args[0]}; `python -m chaos list` names them all"
        ) from None


def _scenario(name: str, seed: int) -> Scenario:
    return one_round(seed, name) if name.startswith("S61-") else _named([name])[0]


def _seed_of(seed: int, scenario: Scenario) -> int:
    """What a scenario's clients draw from: another number for each, the same in every run with
    this seed."""
    return zlib.crc32(f"{seed}:{scenario.id}".encode())


def _recorded(path: Path) -> dict[str, Any]:
    try:
        results = read_run(path.parent)["results"]
    except (OSError, ValueError, KeyError) as error:
        raise click.UsageError(f"{path.parent} is no run directory: {error}") from None
    for result in results:
        if result["history"] == f"{path.name}/history.jsonl":
            found: dict[str, Any] = result
            return found
    raise click.UsageError(f"{path.parent}/run.json knows no {path.name}")


def _judge_again(path: Path, found: dict[str, Any]) -> int:
    """Read the history, show what was broken when, and what the checker says of it now."""
    console = new_console()
    history = list(read_jsonl(path / "history.jsonl"))
    began = history[0].at if history else 0.0
    for record in history:
        if isinstance(record, Broken | Healed):
            what = record.what if isinstance(record, Broken) else f"healed: {record.fault}"
            console.print(f"{record.at - began:9.3f}  {what}", soft_wrap=True)
    scenario = _scenario(found["scenario"], found["seed"])
    violations = check(history, scenario.assumptions, history[-1].at if history else 0.0)
    for violation in violations:
        console.print(
            f"{violation.at - began:9.3f}  [red]{violation.property}: {violation.text}",
            soft_wrap=True,
        )
    console.print(
        f"{len(history)} records, {len(violations)} violations; expected {found['expected']}, was"
        f" {found['observed']}"
    )
    return 0 if bool(violations) == (found["expected"] == "must fail") else 1


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """A signal to end becomes an exception once; what it interrupts is then cleaned up
    undisturbed."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def take(signum: int, frame: FrameType | None) -> NoReturn:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, take) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _give_up(why: str, status: int = 2) -> NoReturn:
    sys.stderr.write(f"chaos: {why}\n")
    sys.exit(status)


def new_console() -> Console:
    """Where what is shown goes."""
    console = Console(emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 140
    return console
