"""The situations; every one takes the run and gives a `Result`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench, Result
from benchmarks.situations import (
    contention,
    first_use,
    late_chunks,
    many_leases,
    many_users,
    round_trips,
    stopped_node,
    uncontended,
    waiting,
)

__all__ = ["SITUATIONS"]

SITUATIONS: Mapping[str, Callable[[Bench], Result]] = {
    "uncontended": uncontended.measure,
    "round-trips": round_trips.measure,
    "late-chunks": late_chunks.measure,
    "stopped-node": stopped_node.measure,
    "first-use": first_use.measure,
    "eight-tasks": many_users.eight_tasks,
    "eight-threads": many_users.eight_threads,
    "thousand-tasks": many_users.thousand_tasks,
    "many-leases": many_leases.measure,
    "contention": contention.near,
    "far-contention": contention.far,
    "four-users": waiting.four_users,
    "crowd": waiting.crowd,
}
"""In the order in which they are measured."""
