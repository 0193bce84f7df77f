"""Eight processes take turns on one lock: how fast does it go from hand to hand, and how evenly?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from benchmarks.bench import Bench, Result
from benchmarks.catalogue import Contender
from benchmarks.figures import Turn, handoffs, jain, overlaps, percentile
from benchmarks.worker import Failed, Silent, Worker

__all__ = ["measure"]

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
PROCESSES = 8
SECTION = 0.001


def measure(bench: Bench) -> Result:
    """Closed loop: wait, stay inside for a millisecond, release, and ask again at once. Every
    library waits its own way."""
    seconds = bench.pick(4.0, 1.2)
    result = Result(
        "contention",
        "Eight processes, one lock, a section of 1 ms",
        f"{seconds:g} s, no pause between turns. Hand-off: the owner changed. Split: tries that got"
        " some nodes, and no majority.",
        {
            "handoffs": "hand-offs per second",
            "acquired": "acquired per second",
            "jain": "Jain's index",
            "wait": "wait p50, ms",
            "wait_p99": "wait p99, ms",
            "longest": "longest, ms",
            "cpu": "CPU per turn, ms",
            "tries": "tries per turn",
            "split": "split votes per turn",
            "overlaps": "two inside at once",
        },
        chart=("handoffs", "hand-offs per second", False),
    )
    for contender in bench.contenders(*KEYS):
        with bench.console.status(f"{result.title}: {contender.title}"), bench.may_fail():
            result.add(contender, **_one(bench, contender, seconds))
    return result


def _one(bench: Bench, contender: Contender, seconds: float) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(bench.started(contender)) for _ in range(PROCESSES)]
        for number, worker in enumerate(workers):
            bench.open(worker, contender)
            worker.put(
                "contend", resource=f"alone-{contender.key}-{number}", seconds=0.05, section=SECTION
            )
        for worker in workers:
            worker.answer(timeout=20.0)
        for worker in workers:
            worker.put(
                "contend", resource=f"contended-{contender.key}", seconds=seconds, section=SECTION
            )
        return _figures(list(_answers(bench, workers, seconds + 20.0)), seconds)


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
    return {
        "handoffs": handoffs(turns) / seconds,
        "acquired": len(turns) / seconds,
        "jain": jain([len(answer["turns"]) for answer in said]),
        "wait": percentile(waits, 50),
        "wait_p99": percentile(waits, 99),
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
