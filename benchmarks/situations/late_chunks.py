"""A tenth of all chunks 60 ms late, as after a retransmission: does a release overtake its
acquire and leave a key behind?"""

from __future__ import annotations

import time
from collections import defaultdict

from benchmarks.bench import Bench, Result, proxies
from benchmarks.figures import percentile

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
ROUND_TRIP = 0.004
SHARE, LATE = 0.1, 0.06
TTL = 55.0
"""Longer than the slowest takes, so that what is left behind is still there to be counted."""
SETTLE = 0.5


def measure(bench: Bench) -> Result:
    """Every pair on a key of its own, all contenders at once (they wait more than they work);
    then look for the keys."""
    count = bench.pick(150, 40)
    result = Result(
        "late-chunks",
        "A tenth of all chunks 60 ms late, round trip 4 ms",
        f"{count} pairs, a key for each, all contenders at once. A ghost: after the release the key"
        " stays on a node for its ttl.",
        {
            "ghosts": "pairs with a ghost",
            "share": "share, %",
            "acquire": "acquire p50, ms",
            "failed": "failed",
        },
        chart=("share", "pairs that left a key behind, %", False),
    )
    contenders = bench.contenders(*KEYS)
    with (
        proxies(
            bench.nodes,
            [ROUND_TRIP] * len(bench.nodes),
            late=(SHARE, LATE),
            seed=bench.dice.randrange(1 << 30),
        ) as between,
        bench.all_open(contenders, between.urls, ttl=TTL) as workers,
        bench.console.status(result.title),
    ):
        for key, worker in workers.items():
            worker.put("pairs", resource=f"ghost-{key}", count=count, seconds=40.0, fresh=True)
        said = {}
        for key, worker in workers.items():
            with bench.may_fail():
                said[key] = worker.answer(timeout=50.0)
        time.sleep(SETTLE)
        ghosts = _ghosts(bench)
    for contender in contenders:
        if contender.key in said:
            answer = said[contender.key]
            pairs = len(answer["acquire"])
            left = len(ghosts[contender.key])
            result.add(
                contender,
                ghosts=left,
                share=100.0 * left / pairs if pairs else None,
                acquire=percentile([nanos / 1e6 for nanos in answer["acquire"]], 50),
                failed=answer["failed"],
                pairs=pairs,
            )
    return result


def _ghosts(bench: Bench) -> dict[str, set[str]]:
    """By contender, the numbers of the pairs whose lock key is on any node."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in bench.nodes:
        with node.client() as client:
            for name in client.scan_iter(match="*ghost-*", count=1000):
                key, _, number = name.decode().rpartition("ghost-")[2].rpartition("-")
                if number.isdecimal():  # Not a fence, which stays by design.
                    found[key].add(number)
    return found
