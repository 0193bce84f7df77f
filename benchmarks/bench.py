"""One run: its servers, its contenders' processes, its dice and its clock; what every situation
is given."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from benchmarks.build import Missing, c_program
from benchmarks.catalogue import CONTENDERS, Contender
from benchmarks.worker import Failed, Silent, Worker
from redlock.embedded import Nodes

__all__ = ["Bench", "Proxies", "Result", "proxies"]

TTL = 10.0


@dataclass(slots=True)
class Result:
    """What one situation gave. *columns*: heading by the field of a row, in order. *rows*: one
    per contender, with "key", "contender" and "group". *chart*: the field to draw, its axis
    title, and whether on a logarithmic axis."""

    name: str
    title: str
    note: str
    columns: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    chart: tuple[str, str, bool] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    foreign: float = 0.0
    stolen: float = 0.0
    seconds: float = 0.0

    def row(self, key: str) -> dict[str, Any]:
        """The row of one contender; empty if it has none."""
        return next((row for row in self.rows if row["key"] == key), {})

    def add(self, contender: Contender, **figures: Any) -> None:
        """Add the row of one contender."""
        self.rows.append(
            {
                "key": contender.key,
                "contender": contender.title,
                "group": contender.group,
                **figures,
            }
        )


class Bench:
    """The run. *nodes*: five marked servers; *single*: one more, for those that lock on one."""

    def __init__(
        self, nodes: Nodes, single: Nodes, *, quick: bool, seed: int, console: Console
    ) -> None:
        self.nodes = nodes
        self.single = single
        self.quick = quick
        self.dice = random.Random(seed)
        self.console = console
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._commands: dict[str, list[str]] = {}

    def pick(self, full: Any, quick: Any) -> Any:
        """A size of the full run or of the quick one."""
        return quick if self.quick else full

    def contenders(self, *keys: str) -> list[Contender]:
        """Those of *keys* that can be had here, in the catalogue's order; the others are noted
        once."""
        found = [contender for contender in CONTENDERS if contender.key in keys]
        return [contender for contender in found if self._command(contender) is not None]

    def _command(self, contender: Contender) -> list[str] | None:
        if contender.key not in self._commands and contender.key not in self.missing:
            try:
                with self.console.status(f"building {contender.title}"):
                    self._commands[contender.key] = contender.command()
            except Missing as error:
                self.missing[contender.key] = f"{contender.title}: {error}"
                self.console.print(
                    f"left out: {contender.title}: {error}", style="yellow", highlight=False
                )
        return self._commands.get(contender.key)

    def urls(self, contender: Contender) -> list[str]:
        """The servers it locks on when nothing stands in between."""
        return self.single.urls if contender.nodes == 1 else self.nodes.urls

    @contextlib.contextmanager
    def started(self, contender: Contender) -> Iterator[Worker]:
        """Its process, without a client yet."""
        with Worker(contender.title, self._commands[contender.key]) as worker:
            yield worker

    def open(
        self,
        worker: Worker,
        contender: Contender,
        urls: Sequence[str] | None = None,
        *,
        ttl: float = TTL,
    ) -> None:
        """Make its client. Raises Failed, Silent."""
        said = worker.ask(
            "open", urls=list(self.urls(contender) if urls is None else urls), ttl=ttl
        )
        self.versions[contender.key] = said.get("version", "")

    @contextlib.contextmanager
    def all_open(
        self,
        contenders: Sequence[Contender],
        urls: Sequence[str] | None = None,
        *,
        ttl: float = TTL,
        opened: Callable[[Contender], object] = lambda contender: None,
    ) -> Iterator[dict[str, Worker]]:
        """Every contender's process with an open client; who fails is left out with a line.
        *opened* hears of each."""
        with contextlib.ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for contender in contenders:
                worker = stack.enter_context(self.started(contender))
                with self.may_fail():
                    self.open(worker, contender, urls, ttl=ttl)
                    opened(contender)
                    workers[contender.key] = worker
            yield workers

    @contextlib.contextmanager
    def may_fail(self) -> Iterator[None]:
        """A contender that fails or falls silent costs its own row, not the run."""
        try:
            yield
        except (Failed, Silent) as error:
            self.console.print(f"{error}", style="yellow", highlight=False)

    def interleaved(
        self,
        workers: dict[str, Worker],
        rounds: int,
        measure: Callable[[Worker, Contender, int], None],
    ) -> Iterator[int]:
        """Measure every worker once per round, in shuffled order; gives each round's number when
        it is over."""
        by_key = {contender.key: contender for contender in CONTENDERS}
        for number in range(rounds):
            for key in self.dice.sample(sorted(workers), len(workers)):
                worker = workers[key]
                try:
                    measure(worker, by_key[key], number)
                except (Failed, Silent) as error:
                    self.console.print(f"{error}", style="yellow", highlight=False)
                    del workers[key]
            yield number


class Proxies:
    """A running delay proxy. *urls*: one per server, in order."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.urls = [f"redis://127.0.0.1:{port}" for port in self._line()["ports"]]

    def connections(self) -> list[int]:
        """How many connections each server got since this was last asked."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"?\n")
        found: list[int] = self._line()["connections"]
        return found

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def proxies(
    nodes: Nodes,
    round_trips: Sequence[float],
    *,
    late: tuple[float, float] | None = None,
    seed: int = 1,
) -> Iterator[Proxies]:
    """The nodes behind round trips of these seconds; *late*: the share of chunks that come later
    still, and by how much.

    Raises Missing when there is no C compiler.
    """
    words = [str(c_program("delay_proxy"))]
    if late is not None:
        words += ["--late", str(late[0]), str(round(late[1] * 1e6)), str(seed)]
    words += [
        f"{node.port}:{round(trip * 1e6)}" for node, trip in zip(nodes, round_trips, strict=True)
    ]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        yield Proxies(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()
