"""Many users in one process, a lock for each: eight tasks, eight threads, a thousand tasks."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.live import Live

from benchmarks.bench import Bench, Result, proxies
from benchmarks.catalogue import Contender
from benchmarks.figures import percentile, ratio_over_rounds
from benchmarks.tables import table
from benchmarks.worker import Worker

__all__ = ["eight_tasks", "eight_threads", "thousand_tasks"]

COLUMNS = {
    "rate": "pairs per second",
    "cpu": "CPU per pair, us",
    "acquire": "acquire p50, ms",
    "acquire_p99": "acquire p99, ms",
    "times": "rate x yardstick",
    "failed": "failed",
}
AWAY = 0.002


def eight_tasks(bench: Bench) -> Result:
    """Eight tasks of one event loop, on loopback; the yardstick is redis.asyncio with gather."""
    result = Result(
        "eight-tasks",
        "Eight asyncio tasks, a lock for each",
        "One process, loopback. The yardstick gathers one redis.asyncio command per node.",
        COLUMNS,
        chart=("rate", "acquire + release per second", False),
    )
    keys = ("ours-asyncio", "ours-uvloop", "gather", "redlock-ng-asyncio", "aioredlock")
    return _rates(bench, result, keys, yardstick="gather")


def eight_threads(bench: Bench) -> Result:
    """Eight threads, every node 2 ms away; the yardstick shares one set of connections under a
    mutex."""
    result = Result(
        "eight-threads",
        "Eight threads, a lock for each, round trip 2 ms",
        "One process. The yardstick has one set of connections, with a mutex around every round.",
        COLUMNS,
        chart=("rate", "acquire + release per second", False),
    )
    keys = ("ours", "minimal-mutex", "redlock-ng", "redlock-py", "pottery")
    return _rates(bench, result, keys, yardstick="minimal-mutex", round_trip=AWAY)


def _rates(
    bench: Bench,
    result: Result,
    keys: Sequence[str],
    *,
    yardstick: str,
    round_trip: float | None = None,
) -> Result:
    rounds, seconds = bench.pick(8, 3), bench.pick(1.0, 0.7)
    result.note += f" {rounds} rounds of {seconds:g} s."
    rates: dict[str, list[float]] = defaultdict(list)
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def turn(worker: Worker, contender: Contender, number: int) -> None:
        answer = worker.ask(
            "users", users=8, resource=f"users-{contender.key}-{number}", seconds=seconds
        )
        said[contender.key].append(answer)
        rates[contender.key].append(sum(answer["users"]) / (answer["took"] / 1e9))

    contenders = bench.contenders(*keys)
    with contextlib.ExitStack() as stack:
        urls = None
        if round_trip is not None:
            urls = stack.enter_context(proxies(bench.nodes, [round_trip] * len(bench.nodes))).urls
        workers = stack.enter_context(bench.all_open(contenders, urls))
        for worker in workers.values():  # Connections are made on first use, eight times over.
            worker.ask("users", users=8, resource="users-warm", seconds=0.2)
        live = stack.enter_context(
            Live(console=bench.console, refresh_per_second=4, transient=True)
        )
        for _ in bench.interleaved(workers, rounds, turn):
            result.rows = []
            for contender in contenders:
                if rates[contender.key]:
                    ratio = ratio_over_rounds(rates[contender.key], rates[yardstick])
                    result.add(
                        contender,
                        **_figures(said[contender.key], rates[contender.key]),
                        **_times(ratio),
                    )
            live.update(table(result))
    return result


def _figures(answers: Sequence[dict[str, Any]], rates: Sequence[float]) -> dict[str, Any]:
    waits = [wait / 1e6 for answer in answers for wait in answer["acquire"]]
    pairs = sum(sum(answer["users"]) for answer in answers)
    return {
        "rate": percentile(rates, 50),
        "cpu": sum(answer["cpu"] for answer in answers) / 1000 / pairs if pairs else None,
        "acquire": percentile(waits, 50),
        "acquire_p99": percentile(waits, 99),
        "failed": sum(answer["failed"] for answer in answers),
    }


def _times(ratio: Any) -> dict[str, Any]:
    return {
        "times": str(ratio) if ratio is not None else None,
        "times_value": ratio.value if ratio is not None else None,
    }


def thousand_tasks(bench: Bench) -> Result:
    """A thousand tasks at once, a few pairs each."""
    rounds, pairs = bench.pick(5, 2), bench.pick(10, 5)
    result = Result(
        "thousand-tasks",
        "A thousand asyncio tasks, a lock for each",
        f"One process, loopback, {rounds} rounds of {pairs} pairs for each task.",
        {
            "rate": "pairs per second",
            "cpu_rate": "pairs per second of client CPU",
            "wait": "wait p50, ms",
            "longest": "longest wait, ms",
            "longest_ratio": "longest x p50",
            "failed": "failed",
        },
        chart=("cpu_rate", "acquire + release per second of client CPU", False),
    )
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def turn(worker: Worker, contender: Contender, number: int) -> None:
        resource = f"thousand-{contender.key}-{number}"
        said[contender.key].append(
            worker.ask(
                "users", users=1000, resource=resource, seconds=120.0, pairs=pairs, timeout=150.0
            )
        )

    contenders = bench.contenders("ours-asyncio", "ours-uvloop", "redlock-ng-asyncio")
    with (
        bench.all_open(contenders) as workers,
        Live(console=bench.console, refresh_per_second=4, transient=True) as live,
    ):
        for worker in workers.values():
            worker.ask("pairs", resource="thousand-warm", count=20)
        for _ in bench.interleaved(workers, rounds, turn):
            result.rows = []
            for contender in contenders:
                if said[contender.key]:
                    result.add(contender, **_crowded(said[contender.key]))
            live.update(table(result))
    return result


def _crowded(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rates = [sum(answer["users"]) / (answer["took"] / 1e9) for answer in answers]
    cpu_rates = [sum(answer["users"]) / (answer["cpu"] / 1e9) for answer in answers]
    halves = [percentile(answer["acquire"], 50) / 1e6 for answer in answers]
    longest = [max(answer["acquire"], default=0) / 1e6 for answer in answers]
    return {
        "rate": percentile(rates, 50),
        "cpu_rate": percentile(cpu_rates, 50),
        "wait": percentile(halves, 50),
        "longest": max(longest, default=None),
        "longest_ratio": percentile(
            [most / half for most, half in zip(longest, halves, strict=True) if half], 50
        ),
        "failed": sum(answer["failed"] for answer in answers),
    }
