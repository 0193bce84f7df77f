"""Nobody else wants the lock: acquire and release, back to back, everybody in turn."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rich.live import Live

from benchmarks.bench import Bench, Result
from benchmarks.catalogue import Contender
from benchmarks.figures import percentile, ratio_over_rounds
from benchmarks.tables import table
from benchmarks.worker import Worker
from redlock.core.commands import scripts

__all__ = ["measure"]

KEYS = (
    *("floor", "floor-scripts", "minimal", "ours", "ours-asyncio", "ours-uvloop", "gather"),
    *(
        "redlock-ng",
        "redlock-ng-asyncio",
        "aioredlock",
        "redlock-py",
        "pottery",
        "rslock",
        "node-redlock",
        "redsync",
    ),
    *("ours-one", "redis-py-lock", "python-redis-lock"),
)
REFERENCES = {"floor": "x floor", "minimal": "x minimal"}


def measure(bench: Bench) -> Result:
    """Rounds of *count* pairs each; ratios are between two contenders' medians of the same
    round."""
    rounds, count = bench.pick(40, 15), bench.pick(100, 60)
    result = Result(
        "uncontended",
        "Nobody else wants the lock: acquire and release, back to back",
        f"{rounds} rounds of {count} pairs each, in shuffled order. Ratios are medians over rounds,"
        " with 95 % intervals.",
        {
            "acquire": "acquire p50, us",
            "pair": "pair p50, us",
            "pair_p99": "pair p99, us",
            "cpu": "CPU per pair, us",
            "to_floor": "pair p50 x floor",
            "to_minimal": "pair p50 x minimal loop",
            "cpu_to_floor": "CPU x floor",
            "failed": "failed",
        },
        chart=("to_floor_value", "acquire + release, median, as a multiple of the C floor", True),
    )
    samples = _Samples()

    def turn(worker: Worker, contender: Contender, number: int) -> None:
        said = worker.ask(
            "pairs", resource=f"bench-{contender.key}-{number}", count=count, warm=5, seconds=20.0
        )
        samples.add(contender.key, said)

    contenders = bench.contenders(*KEYS)
    _load_scripts(bench)
    with (
        bench.all_open(contenders) as workers,
        Live(console=bench.console, refresh_per_second=4, transient=True) as live,
    ):
        for _ in bench.interleaved(workers, rounds, turn):
            result.rows = [
                samples.row(contender) for contender in contenders if samples.has(contender.key)
            ]
            live.update(table(result))
    return result


def _load_scripts(bench: Bench) -> None:
    """The floor that uses our scripts asks for them by their digest alone."""
    for node in bench.nodes:
        with node.client() as client:
            for script in scripts():
                client.script_load(script.source)


class _Samples:
    """Every pair of every contender, and each round's medians."""

    def __init__(self) -> None:
        self._acquire: dict[str, list[float]] = defaultdict(list)
        self._pair: dict[str, list[float]] = defaultdict(list)
        self._medians: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[str, list[float]] = defaultdict(list)
        self._failed: dict[str, int] = defaultdict(int)

    def has(self, key: str) -> bool:
        return key in self._medians

    def add(self, key: str, said: dict[str, Any]) -> None:
        acquire = [nanos / 1000 for nanos in said["acquire"]]
        pair = [
            (one + other) / 1000
            for one, other in zip(said["acquire"], said["release"], strict=True)
        ]
        self._acquire[key] += acquire
        self._pair[key] += pair
        self._medians[key].append(percentile(pair, 50))
        self._cpu[key].append(said["cpu"] / 1000 / len(pair) if pair else float("nan"))
        self._failed[key] += said["failed"]

    def row(self, contender: Contender) -> dict[str, Any]:
        key = contender.key
        row: dict[str, Any] = {
            "key": key,
            "contender": contender.title,
            "group": contender.group,
            "acquire": percentile(self._acquire[key], 50),
            "pair": percentile(self._pair[key], 50),
            "pair_p99": percentile(self._pair[key], 99),
            "cpu": percentile([cpu for cpu in self._cpu[key] if cpu == cpu], 50),
            "failed": self._failed[key],
            "rounds": self._medians[key],
            "cpu_rounds": self._cpu[key],
        }
        for name, of, reference in (
            ("to_floor", self._medians, "floor"),
            ("to_minimal", self._medians, "minimal"),
            ("cpu_to_floor", self._cpu, "floor"),
        ):
            ratio = ratio_over_rounds(of[key], of.get(reference, []))
            row[name] = str(ratio) if ratio is not None else None
            row[f"{name}_value"] = ratio.value if ratio is not None else None
        return row
