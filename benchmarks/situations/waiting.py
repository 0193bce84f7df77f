"""Many who wait for one lock: four threads or tasks of one client, and crowds of tasks in four
processes."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.bench import Bench, Result
from benchmarks.catalogue import Contender
from benchmarks.figures import Turn, handoffs, jain, jumps, overlaps, percentile
from benchmarks.worker import Worker

__all__ = ["SIZES", "crowd", "four_users"]

USERS = 4
LONG_SECTION = 0.05
FOUR_KEYS = (
    *("ours", "ours-asyncio", "redlock-ng", "redlock-py", "pottery"),
    *("redis-py-lock", "python-redis-lock"),
)
PROCESSES = 4
SIZES = (8, 100, 1000)
SECTION = 0.001


def four_users(bench: Bench) -> Result:
    """Four threads, or tasks, of one client: each is to have as much as the others."""
    seconds = bench.pick(8.0, 3.0)
    result = Result(
        "four-users",
        "Four users of one client, one lock, a section of 50 ms",
        f"Four threads, or asyncio tasks, {seconds:g} s, no pause between turns. Three sections"
        " is what each waits where all take turns.",
        {
            "shares": "turns of each",
            "spread": "most - least",
            "wait": "wait p50, ms",
            "longest": "longest, ms",
            "sections": "longest x 3 sections",
            "tries": "tries per turn",
            "overlaps": "two inside at once",
        },
        chart=("longest", "longest wait, ms", True),
    )
    for contender in bench.contenders(*FOUR_KEYS):
        with (
            bench.console.status(f"{result.title}: {contender.title}"),
            bench.may_fail(),
            bench.started(contender) as worker,
        ):
            bench.open(worker, contender)
            worker.ask("contend", resource=f"four-{contender.key}-w", seconds=0.1, section=SECTION)
            said = worker.ask(
                "queue",
                users=USERS,
                resource=f"four-{contender.key}",
                seconds=seconds,
                section=LONG_SECTION,
                timeout=seconds + 30.0,
            )
            result.add(contender, **_four(said))
    return result


def _four(said: dict[str, Any]) -> dict[str, Any]:
    turns = [Turn(*stamps) for stamps in said["turns"]]
    counted = Counter(turn.client for turn in turns)
    shares = [counted[user] for user in range(USERS)]
    waits = [(turn.entered_at - turn.asked_at) / 1e6 for turn in turns]
    longest = max(waits, default=0.0)
    return {
        "shares": " ".join(map(str, shares)),
        "spread": max(shares) - min(shares),
        "wait": percentile(waits, 50),
        "longest": longest,
        "sections": longest / (3 * LONG_SECTION * 1000),
        "tries": said["tries"] / len(turns) if "tries" in said and turns else None,
        "overlaps": overlaps(turns),
    }


def crowd(bench: Bench) -> Result:
    """Eight, a hundred and a thousand tasks in four processes: order, and what a hand-off costs the
    servers."""
    seconds = bench.pick(5.0, 3.0)
    result = Result(
        "crowd",
        "8, 100 and 1,000 waiting asyncio tasks in four processes, one lock",
        f"{seconds:g} s, a section of 1 ms, no pause between turns. Jump: how much earlier somebody"
        " had asked who was served later. Server CPU: of all five, by INFO, while all wait.",
        {
            "handoffs": "turns per second",
            "jump_p99": "jump p99, ms",
            "jump": "longest jump, ms",
            "server": "server CPU per turn, us",
            "server_ratio": "x that of 8",
            "published": "messages per turn",
            "wait": "wait p50, ms",
            "longest": "longest, ms",
            "jain": "Jain's index of processes",
            "overlaps": "two inside at once",
        },
        chart=("server", "server CPU per turn, us", False),
    )
    for contender in bench.contenders("ours-asyncio"):
        for size in SIZES:
            with bench.console.status(f"{result.title}: {size}"), bench.may_fail():
                figures = _crowd(bench, contender, size, seconds)
                least = result.rows[0]["server"] if result.rows else figures["server"]
                row = {"key": f"{contender.key}-{size}", "contender": f"{size:,} tasks"}
                ratio = figures["server"] / least if least else None
                result.rows.append({**row, "group": "ours", **figures, "server_ratio": ratio})
    return result


def _crowd(bench: Bench, contender: Contender, size: int, seconds: float) -> dict[str, Any]:
    resource = f"crowd-{size}"
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(bench.started(contender)) for _ in range(PROCESSES)]
        for number, worker in enumerate(workers):
            bench.open(worker, contender)
            worker.ask("contend", resource=f"{resource}-{number}", seconds=0.1, section=SECTION)
        for worker in workers:
            worker.put(
                "queue",
                users=size // PROCESSES,
                resource=resource,
                seconds=seconds,
                section=SECTION,
            )
        time.sleep(seconds / 4)  # Until all wait.
        began, before = time.perf_counter_ns(), _spent(bench)
        time.sleep(seconds / 2)
        ended, after = time.perf_counter_ns(), _spent(bench)
        turns = list(_turns(workers, seconds))
    within = [turn for turn in turns if began <= turn.entered_at < ended]
    waits = [(turn.entered_at - turn.asked_at) / 1e6 for turn in within]
    steps = [jump / 1e6 for jump in jumps(turns)]
    served = Counter(turn.client // _OF_A_PROCESS for turn in within)
    cpu, published = (now - then for now, then in zip(after, before, strict=True))
    return {
        "handoffs": handoffs(within) / ((ended - began) / 1e9),
        "jump_p99": percentile(steps, 99),
        "jump": max(steps, default=0.0),
        "server": cpu * 1e6 / len(within) if within else None,
        "published": published / len(within) if within else None,
        "wait": percentile(waits, 50),
        "longest": max(waits, default=0.0),
        "jain": jain([served[number] for number in range(PROCESSES)]),
        "overlaps": overlaps(turns),
    }


def _turns(workers: Sequence[Worker], seconds: float) -> Any:
    """Each task of each process is a client of its own."""
    for number, worker in enumerate(workers):
        said = worker.answer(seconds + 60.0)
        for user, *stamps in said["turns"]:
            yield Turn(number * _OF_A_PROCESS + user, *stamps)


_OF_A_PROCESS = 10_000


def _spent(bench: Bench) -> tuple[float, int]:
    """CPU seconds and messages of all servers."""
    cpu, published = 0.0, 0
    for node in bench.nodes:
        with node.client() as client:
            spent: Any = client.info("cpu")
            stats: Any = client.info("commandstats")
        cpu += spent["used_cpu_user"] + spent["used_cpu_sys"]
        published += stats.get("cmdstat_publish", {}).get("calls", 0)
    return cpu, published
