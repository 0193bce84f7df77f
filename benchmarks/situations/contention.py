"""Eight processes take turns on one lock, near and far: how fast does it go from hand to hand, and
how evenly?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from benchmarks.bench import Bench, Result, proxies
from benchmarks.catalogue import Contender
from benchmarks.figures import Turn, gaps, handoffs, jain, overlaps, percentile
from benchmarks.limit import Limit, limit_of
from benchmarks.situations.round_trips import ROUND_TRIPS
from benchmarks.worker import Failed, Silent, Worker

__all__ = ["far", "near"]

KEYS = (
    *(
        "ours",
        "ours-asyncio",
        "redlock-ng",
        "redlock-ng-tuned",
        "redlock-py",
        "redlock-py-tuned",
        "pottery",
        "aioredlock",
    ),
    *("redis-py-lock", "python-redis-lock", "rslock", "node-redlock", "redsync"),
)
FAR_KEYS = ("ours", "ours-asyncio", "redlock-ng", "redlock-ng-tuned", "redlock-py", "pottery")
PROCESSES = 8
SECTION = 0.001
COLUMNS = {
    "handoffs": "hand-offs per second",
    "ratio": "x limit",
    "limit": "limit",
    "gap": "gap p50, ms",
    "gap_p99": "gap p99, ms",
    "gap_least": "gap of the limit, ms",
    "acquired": "acquired per second",
    "jain": "Jain's index",
    "wait": "wait p50, ms",
    "wait_p99": "wait p99, ms",
    "longest": "longest, ms",
    "cpu": "CPU per turn, ms",
    "tries": "tries per turn",
    "split": "split votes per turn",
    "overlaps": "two inside at once",
}
NOTE = (
    "No pause between turns. Hand-off: the owner changed. Gap: from one who leaves to the next who"
    " enters. Split: tries that got some nodes, and no majority. Limit: 1 / (section as it really"
    " takes + release to the first wake-up + acquire of a free lock), the medians of this run"
    " without contention; for other libraries, this one's."
)


def near(bench: Bench) -> Result:
    """Closed loop: wait, stay inside for a millisecond, release, and ask again at once. Every
    library waits its own way."""
    seconds = bench.pick(4.0, 1.2)
    result = Result(
        "contention",
        "Eight processes, one lock, a section of 1 ms",
        f"{seconds:g} s, loopback. {NOTE}",
        COLUMNS,
        chart=("handoffs", "hand-offs per second", False),
    )
    _measure(bench, result, KEYS, seconds, None)
    return result


def far(bench: Bench) -> Result:
    """The same behind round trips of 1, 2, 5, 10 and 50 ms."""
    seconds = bench.pick(5.0, 2.0)
    result = Result(
        "far-contention",
        "Eight processes, one lock, round trips of 1 to 50 ms",
        f"{seconds:g} s, nodes behind round trips of 1, 2, 5, 10 and 50 ms. {NOTE}",
        COLUMNS,
        chart=("handoffs", "hand-offs per second", False),
    )
    with proxies(bench.nodes, ROUND_TRIPS) as between:
        _measure(bench, result, FAR_KEYS, seconds, between.urls)
    return result


def _measure(
    bench: Bench, result: Result, keys: Sequence[str], seconds: float, urls: Sequence[str] | None
) -> None:
    limit: Limit | None = None
    for contender in bench.contenders(*keys):
        with bench.console.status(f"{result.title}: {contender.title}"), bench.may_fail():
            found = _limit(bench, contender, urls) if contender.group == "ours" else None
            limit = found or limit
            result.add(contender, **_one(bench, contender, seconds, urls, limit))


def _limit(bench: Bench, contender: Contender, urls: Sequence[str] | None) -> Limit:
    ways = bench.urls(contender) if urls is None else list(urls)
    with bench.started(contender) as worker:
        bench.open(worker, contender, ways)
        return limit_of(worker, bench.nodes, ways, f"limit-{contender.key}", SECTION)


def _one(
    bench: Bench,
    contender: Contender,
    seconds: float,
    urls: Sequence[str] | None,
    limit: Limit | None,
) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(bench.started(contender)) for _ in range(PROCESSES)]
        for number, worker in enumerate(workers):
            bench.open(worker, contender, urls)
            worker.put(
                "contend", resource=f"alone-{contender.key}-{number}", seconds=0.1, section=SECTION
            )
        for worker in workers:
            worker.answer(timeout=20.0)
        for worker in workers:
            worker.put(
                "contend", resource=f"contended-{contender.key}", seconds=seconds, section=SECTION
            )
        found = _figures(list(_answers(bench, workers, seconds + 20.0)), seconds)
    if limit is not None:
        least = 1000 * (limit.wake + limit.acquire)
        ratio = found["handoffs"] / limit.rate
        found |= {"limit": limit.rate, "ratio": ratio, "gap_least": least}
    return found


def _answers(bench: Bench, workers: Sequence[Worker], timeout: float) -> Any:
    for worker in workers:
        try:
            yield worker.answer(timeout)
        except (Failed, Silent) as error:
            bench.console.print(f"{error}", style="yellow", highlight=False)
            yield {"turns": [], "cpu": 0}


def _figures(said: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    turns = [
        Turn(client, *stamps) for client, answer in enumerate(said) for stamps in answer["turns"]
    ]
    waits = [(turn.entered_at - turn.asked_at) / 1e6 for turn in turns]
    counted = all("tries" in answer for answer in said)
    between = [gap / 1e6 for gap in gaps(turns)]
    half, p99 = percentile(waits, 50), percentile(waits, 99)
    return {
        "handoffs": handoffs(turns) / seconds,
        "acquired": len(turns) / seconds,
        "gap": percentile(between, 50),
        "gap_p99": percentile(between, 99),
        "jain": jain([len(answer["turns"]) for answer in said]),
        "wait": half,
        "wait_p99": p99,
        "wait_ratio": p99 / half if half else None,
        "longest": max(waits, default=None),
        "cpu": sum(answer["cpu"] for answer in said) / 1e6 / len(turns) if turns else None,
        "tries": (
            sum(answer["tries"] for answer in said) / len(turns) if counted and turns else None
        ),
        "split": (
            sum(answer["split"] for answer in said) / len(turns) if counted and turns else None
        ),
        "overlaps": overlaps(turns),
    }
