"""One node of five is stopped (SIGSTOP: its port accepts, and nothing answers), for a client
that knew it and for a new one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Result
from benchmarks.catalogue import Contender
from benchmarks.figures import percentile
from benchmarks.worker import Failed, Silent, Worker
from redlock.embedded import Nodes

__all__ = ["measure"]

KEYS = (
    *(
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
STOPPED = 1
REST = 1.0
"""Seconds for a client to meet the node again, before it counts as healthy."""


def measure(bench: Bench) -> Result:
    """One contender after the other: healthy and with the node stopped under it in turns, then
    anew with it still stopped."""
    patience = bench.pick(12.0, 4.0)
    result = Result(
        "stopped-node",
        "One node of five stopped",
        f"Warm: it stopped under an open client. Cold: the client is new. At most {patience:g} s"
        " per cell. Grown: threads and descriptors that the warm client has more than before.",
        {
            "healthy": "healthy acquire p50, ms",
            "warm": "warm, ms",
            "warm_p99": "warm p99, ms",
            "cold": "cold, ms",
            "ratio": "warm p50 x healthy",
            "ratio_p99": "warm p99 x healthy",
            "grown": "grown",
            "exit": "process exit, s",
        },
        chart=("warm_value", "acquire with one node stopped, median, ms", True),
    )
    with Nodes(5) as nodes:
        for contender in bench.contenders(*KEYS):
            with bench.console.status(f"{result.title}: {contender.title}"):
                result.add(contender, **_one(bench, contender, nodes, patience))
    return result


def _one(bench: Bench, contender: Contender, nodes: Nodes, patience: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    rounds, count = bench.pick(6, 2), 50
    healthy: list[float] = []
    warm: list[float] = []
    with bench.started(contender) as worker:
        try:
            bench.open(worker, contender, nodes.urls)
            for place in range(rounds):
                healthy += _times(worker, contender, count, 2 * patience)
                had = _grown(worker)
                nodes[STOPPED].pause()
                try:
                    warm += _times(worker, contender, count, patience)
                    now = _grown(worker)
                    if place == rounds - 1:
                        figures["exit"] = worker.end(timeout=patience) or f"> {patience:g}"
                finally:
                    nodes[STOPPED].resume()
                time.sleep(REST)
            figures |= _compared(healthy, warm)
            figures["grown"] = (
                ", ".join(
                    f"{what} +{now[what] - had[what]}" for what in had if now[what] > had[what] + 1
                )
                or "-"
            )
        except (Failed, Silent) as error:
            said = f"no answer in {patience:g} s" if isinstance(error, Silent) else str(error)
            if not healthy:
                return {"warm": said}
            figures |= {"healthy": percentile(healthy, 50), "warm": said}
    nodes[STOPPED].pause()
    try:
        figures["cold"] = _cold(bench, contender, nodes, patience)
    finally:
        nodes[STOPPED].resume()
    return figures


def _cold(bench: Bench, contender: Contender, nodes: Nodes, patience: float) -> Any:
    if contender.group == "yardstick":  # They connect one node after the other, and wait for each.
        return None
    with bench.started(contender) as worker:
        try:
            bench.open(worker, contender, nodes.urls)
            return percentile(_times(worker, contender, 50, patience), 50)
        except Silent:
            return f"no answer in {patience:g} s"
        except Failed as error:
            return str(error)


def _times(worker: Worker, contender: Contender, count: int, patience: float) -> list[float]:
    """Milliseconds of every acquire that succeeded; Failed if none did."""
    said = worker.ask(
        "pairs",
        resource=f"stopped-{contender.key}",
        count=count,
        warm=1,
        seconds=patience / 6,
        timeout=patience,
        fresh=True,
    )
    if not said["acquire"]:
        raise Failed(f"{said['failed']} of {said['failed']} failed")
    return [nanos / 1e6 for nanos in said["acquire"]]


def _compared(healthy: list[float], warm: list[float]) -> dict[str, Any]:
    before, now = percentile(healthy, 50), percentile(warm, 50)
    before_p99, now_p99 = percentile(healthy, 99), percentile(warm, 99)
    return {
        "healthy": before,
        "warm": now,
        "warm_value": now,
        "warm_p99": now_p99,
        "ratio": now / before,
        "ratio_p99": now_p99 / before_p99,
    }


def _grown(worker: Worker) -> dict[str, int]:
    process = Path("/proc") / str(worker.pid)
    return {
        "threads": len(list((process / "task").iterdir())),
        "descriptors": len(list((process / "fd").iterdir())),
    }
