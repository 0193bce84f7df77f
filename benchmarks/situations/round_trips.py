"""Servers further away: round trips of 1, 2, 5, 10 and 50 ms. A majority of five is there after
the third fastest."""

from __future__ import annotations

from collections import defaultdict

from rich.live import Live

from benchmarks.bench import Bench, Result, proxies
from benchmarks.catalogue import Contender
from benchmarks.figures import percentile
from benchmarks.tables import table
from benchmarks.worker import Worker

__all__ = ["THIRD", "measure"]

ROUND_TRIPS = (0.001, 0.002, 0.005, 0.010, 0.050)
THIRD = 0.005
KEYS = (
    *(
        "floor",
        "minimal",
        "ours",
        "ours-asyncio",
        "ours-uvloop",
        "gather",
        "redlock-ng",
        "redlock-ng-asyncio",
        "aioredlock",
    ),
    *("redlock-py", "pottery", "rslock", "node-redlock", "redsync"),
)


def measure(bench: Bench) -> Result:
    """A few rounds of pairs behind a delay proxy; nobody can be faster than the third fastest
    node."""
    rounds, count = bench.pick(4, 2), bench.pick(20, 10)
    result = Result(
        "round-trips",
        "Round trips of 1, 2, 5, 10 and 50 ms",
        f"{rounds} rounds of {count} pairs. The third fastest node answers after 5 ms. Connections:"
        " to the slowest node.",
        {
            "acquire": "acquire p50, ms",
            "acquire_p99": "acquire p99, ms",
            "release": "release p50, ms",
            "to_third": "acquire p50 x 5 ms",
            "connections": "connections",
            "failed": "failed",
        },
        chart=("acquire", "acquire, median, ms", True),
    )
    acquire: dict[str, list[float]] = defaultdict(list)
    release: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    connections: dict[str, int] = defaultdict(int)
    contenders = bench.contenders(*KEYS)
    with proxies(bench.nodes, ROUND_TRIPS) as between:

        def count_connections(contender: Contender) -> None:
            connections[contender.key] += between.connections()[-1]

        def turn(worker: Worker, contender: Contender, number: int) -> None:
            said = worker.ask(
                "pairs", resource=f"far-{contender.key}-{number}", count=count, warm=2, seconds=4.0
            )
            acquire[contender.key] += [nanos / 1e6 for nanos in said["acquire"]]
            release[contender.key] += [nanos / 1e6 for nanos in said["release"]]
            failed[contender.key] += said["failed"]
            count_connections(contender)

        with (
            bench.all_open(contenders, between.urls, opened=count_connections) as workers,
            Live(console=bench.console, refresh_per_second=4, transient=True) as live,
        ):
            for _ in bench.interleaved(workers, rounds, turn):
                result.rows = []
                for contender in contenders:
                    key = contender.key
                    if key in acquire:
                        half = percentile(acquire[key], 50)
                        result.add(
                            contender,
                            acquire=half,
                            acquire_p99=percentile(acquire[key], 99),
                            release=percentile(release[key], 50),
                            to_third=half / (THIRD * 1000),
                            connections=connections[key],
                            failed=failed[key],
                        )
                live.update(table(result))
    return result
