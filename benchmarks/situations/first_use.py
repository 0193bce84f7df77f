"""A new client's first lock, every node 10 ms away: how many round trips until it is held?"""

from __future__ import annotations

from collections import defaultdict

from rich.live import Live

from benchmarks.bench import Bench, Result, proxies
from benchmarks.catalogue import Contender
from benchmarks.figures import percentile
from benchmarks.tables import table
from benchmarks.worker import Worker

__all__ = ["measure"]

KEYS = (
    *(
        "floor",
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
ROUND_TRIP = 0.010


def measure(bench: Bench) -> Result:
    """From nothing to a lock that is held, several times in each process; the first, which also
    imports, is not counted."""
    rounds = bench.pick(10, 3)
    result = Result(
        "first-use",
        "First use: connect and take the first lock, round trip 10 ms",
        f"{rounds} times each. TCP's own handshake is not delayed and not counted.",
        {"ready": "ready after, ms", "trips": "round trips"},
        chart=("trips", "round trips until the first lock is held", False),
    )
    times: dict[str, list[float]] = defaultdict(list)
    contenders = bench.contenders(*KEYS)
    with proxies(bench.nodes, [ROUND_TRIP] * len(bench.nodes)) as between:

        def turn(worker: Worker, contender: Contender, number: int) -> None:
            said = worker.ask(
                "first", urls=between.urls, resource=f"first-{contender.key}-{number}", timeout=15.0
            )
            if number and said["granted"]:
                times[contender.key].append(said["ready"] / 1e6)

        with (
            bench.all_open(contenders) as workers,
            Live(console=bench.console, refresh_per_second=4, transient=True) as live,
        ):
            for _ in bench.interleaved(workers, rounds + 1, turn):
                result.rows = []
                for contender in contenders:
                    if times[contender.key]:
                        half = percentile(times[contender.key], 50)
                        result.add(contender, ready=half, trips=half / (ROUND_TRIP * 1000))
                live.update(table(result))
    return result
