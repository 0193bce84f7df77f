"""Ten thousand leases that renew themselves, held for a while: what do they cost, and is one
lost?"""

from __future__ import annotations

from benchmarks.bench import Bench, Result

__all__ = ["measure"]

COUNT = 10_000


def measure(bench: Bench) -> Result:
    """Take them all, then let the renewal loop work; its CPU is the process's, which does
    nothing else."""
    seconds = bench.pick(30.0, 12.0)
    result = Result(
        "many-leases",
        f"{COUNT:,} leases with auto_extend, ttl 30 s, on five nodes",
        f"Watched for {seconds:g} s; each is renewed about every 10 s. Memory: what the process"
        " grew by while it took them.",
        {
            "core": "share of a core, %",
            "lost": "lost",
            "memory": "memory per lease, bytes",
            "per_renewal": "CPU per renewal, us",
        },
        chart=("core", "share of a core, %", False),
    )
    for contender in bench.contenders("ours", "ours-asyncio", "ours-uvloop"):
        with (
            bench.console.status(f"{result.title}: {contender.title}"),
            bench.started(contender) as worker,
            bench.may_fail(),
        ):
            bench.open(worker, contender)
            worker.ask("pairs", resource="leases-warm", count=20)
            said = worker.ask("leases", count=COUNT, seconds=seconds, timeout=seconds + 120.0)
            result.add(
                contender,
                core=100.0 * said["cpu"] / 1e9 / said["took"],
                lost=said["lost"],
                memory=said["memory"] / COUNT,
                per_renewal=said["cpu"] / 1000 / (COUNT * said["took"] / (said["ttl"] / 3)),
            )
    return result
