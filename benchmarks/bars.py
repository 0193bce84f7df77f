"""What we hold ourselves to, and whether this run met it: one line per bar, from the figures of
the situations alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bench import Result
from benchmarks.figures import ratio_over_rounds

__all__ = ["Bar", "judge"]

Results = Mapping[str, Result]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. *met*: None where this run has no figure for it."""

    what: str
    bar: str
    measured: str
    met: bool | None


def judge(results: Results) -> list[Bar]:
    """Every bar, in the order of the situations."""
    return [
        bar
        for part in (
            _uncontended,
            _peers,
            _scripts,
            _far,
            _clean,
            _stopped,
            _first,
            _users,
            _leases,
            _contention,
            _far_contention,
            _four_users,
            _crowd,
        )
        for bar in part(results)
    ]


def _value(results: Results, situation: str, key: str, name: str) -> float | None:
    result = results.get(situation)
    value = result.row(key).get(name) if result is not None else None
    return float(value) if isinstance(value, int | float) and value == value else None


def _at_most(what: str, value: float | None, limit: float, unit: str = "") -> Bar:
    met = None if value is None else value <= limit
    return Bar(what, f"<= {limit:g}{unit}", _shown(value, unit), met)


def _at_least(what: str, value: float | None, limit: float, unit: str = "") -> Bar:
    met = None if value is None else value >= limit
    return Bar(what, f">= {limit:g}{unit}", _shown(value, unit), met)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.2f}{unit}"


def _ratio(results: Results, key: str, other: str) -> float | None:
    """Pair times of two contenders, round by round."""
    result = results.get("uncontended")
    if result is None:
        return None
    ratio = ratio_over_rounds(
        result.row(key).get("rounds", []), result.row(other).get("rounds", [])
    )
    return ratio.value if ratio is not None else None


def _uncontended(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title, floor, loop, cpu in (
        ("ours", "blocking", 1.35, 1.15, 1.6),
        ("ours-asyncio", "asyncio", 1.6, 1.5, 2.0),
        ("ours-uvloop", "uvloop", 1.4, 1.3, 2.0),
    ):
        to_floor = _value(results, "uncontended", key, "to_floor_value")
        to_loop = _value(results, "uncontended", key, "to_minimal_value")
        met = None if to_floor is None or to_loop is None else to_floor <= floor or to_loop <= loop
        measured = (
            f"{_shown(to_floor, '')} x floor, {_shown(to_loop, '')} x loop"
            if met is not None
            else "not measured"
        )
        bars.append(
            Bar(
                f"pair p50, {title}",
                f"<= {floor:g} x floor, or <= {loop:g} x minimal loop",
                measured,
                met,
            )
        )
        bars.append(
            _at_most(
                f"CPU per pair, {title}, to the floor",
                _value(results, "uncontended", key, "cpu_to_floor_value"),
                cpu,
            )
        )
    return bars


def _peers(results: Results) -> Sequence[Bar]:
    pairs: Sequence[tuple[str, str, str, float]] = (
        ("ours", "redlock-ng", "blocking to redlock-ng", 0.40),
        ("ours-asyncio", "aioredlock", "asyncio to aioredlock", 0.6),
        ("ours-asyncio", "redlock-ng-asyncio", "asyncio to redlock-ng asyncio", 0.6),
        ("ours", "rslock", "blocking to rslock (Rust)", 0.85),
        ("ours", "node-redlock", "blocking to node-redlock 5", 0.80),
        ("ours", "redsync", "blocking to redsync (Go)", 0.70),
        ("ours-one", "redis-py-lock", "one node to redis-py's own Lock", 0.6),
    )
    return [
        _at_most(f"pair p50, {title}", _ratio(results, key, other), limit)
        for key, other, title, limit in pairs
    ]


def _scripts(results: Results) -> Sequence[Bar]:
    ratio = _value(results, "uncontended", "floor-scripts", "to_floor_value")
    return [_at_most("this project's scripts to plain commands, both from C", ratio, 1.15)]


def _far(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title in (("ours", "blocking"), ("ours-asyncio", "asyncio")):
        for name in ("acquire", "release"):
            value = _value(results, "round-trips", key, name)
            ratio = value / 5.0 if value is not None else None
            bars.append(
                _at_most(
                    f"round trips of 1 to 50 ms, {title}: {name} p50 to the third fastest",
                    ratio,
                    1.10,
                )
            )
        connections = _value(results, "round-trips", key, "connections")
        bars.append(
            _at_most(f"round trips of 1 to 50 ms, {title}: connections to a node", connections, 1)
        )
    return bars


def _clean(results: Results) -> Sequence[Bar]:
    ghosts = [
        _value(results, "late-chunks", key, "ghosts")
        for key in ("ours", "ours-asyncio", "ours-uvloop")
    ]
    counted = [ghost for ghost in ghosts if ghost is not None]
    return [
        _at_most("keys left behind when chunks come late", sum(counted) if counted else None, 0)
    ]


def _stopped(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title in (("ours", "blocking"), ("ours-asyncio", "asyncio")):
        bars.append(
            _at_most(
                f"one node stopped, {title}: p50 to healthy",
                _value(results, "stopped-node", key, "ratio"),
                1.3,
            )
        )
        bars.append(
            _at_most(
                f"one node stopped, {title}: p99 to healthy",
                _value(results, "stopped-node", key, "ratio_p99"),
                2.0,
            )
        )
    return bars


def _first(results: Results) -> Sequence[Bar]:
    # Two round trips of 10 ms after TCP's own, and 20 ms for everything else.
    return [
        _at_most(
            f"first use, nodes 10 ms away, {title}: ready after",
            _value(results, "first-use", key, "ready"),
            40.0,
            " ms",
        )
        for key, title in (("ours", "blocking"), ("ours-asyncio", "asyncio"))
    ]


def _users(results: Results) -> Sequence[Bar]:
    return [
        _at_least(
            "8 tasks to redis.asyncio gather",
            _value(results, "eight-tasks", "ours-asyncio", "times_value"),
            3.5,
            " times",
        ),
        _at_least(
            "8 threads behind 2 ms to one shared set under a mutex",
            _value(results, "eight-threads", "ours", "times_value"),
            6.5,
            " times",
        ),
        _at_least(
            "1,000 tasks: pairs per second of client CPU",
            _value(results, "thousand-tasks", "ours-asyncio", "cpu_rate"),
            5000,
        ),
        _at_most(
            "1,000 tasks: longest wait to the median",
            _value(results, "thousand-tasks", "ours-asyncio", "longest_ratio"),
            5.0,
        ),
        _at_most(
            "1,000 tasks: failed", _value(results, "thousand-tasks", "ours-asyncio", "failed"), 0
        ),
    ]


def _leases(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title in (("ours", "blocking"), ("ours-asyncio", "asyncio")):
        bars.append(
            _at_most(
                f"10,000 leases, {title}: share of a core",
                _value(results, "many-leases", key, "core"),
                10.0,
                " %",
            )
        )
        bars.append(
            _at_most(
                f"10,000 leases, {title}: lost", _value(results, "many-leases", key, "lost"), 0
            )
        )
        bars.append(
            _at_most(
                f"10,000 leases, {title}: bytes per lease",
                _value(results, "many-leases", key, "memory"),
                2048,
            )
        )
    return bars


OURS = (("ours", "blocking"), ("ours-asyncio", "asyncio"))


def _contention(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title in OURS:

        def value(name: str, key: str = key) -> float | None:
            return _value(results, "contention", key, name)

        what = f"8 processes, 1 ms section, {title}:"
        bars += [
            _at_least(f"{what} hand-offs to the limit", value("ratio"), 0.8),
            _at_least(f"{what} Jain's index", value("jain"), 0.99),
            _at_most(f"{what} wait p99 to the median", value("wait_ratio"), 2.0),
            _at_most(f"{what} tries per turn", value("tries"), 3.0),
            _at_most(f"{what} two inside at once", value("overlaps"), 0),
        ]
    return bars


def _far_contention(results: Results) -> Sequence[Bar]:
    return [
        _at_least(
            f"the same behind 1 to 50 ms, {title}: hand-offs to the limit",
            _value(results, "far-contention", key, "ratio"),
            0.9,
        )
        for key, title in OURS
    ]


def _four_users(results: Results) -> Sequence[Bar]:
    bars = []
    for key, title in (("ours", "threads"), ("ours-asyncio", "tasks")):
        what = f"4 {title} of one client, 50 ms section:"
        spread = _value(results, "four-users", key, "spread")
        sections = _value(results, "four-users", key, "sections")
        bars += [
            _at_most(f"{what} turns, most less least", spread, 2),
            _at_most(f"{what} longest wait to 3 sections", sections, 1.2),
        ]
    return bars


def _crowd(results: Results) -> Sequence[Bar]:
    bars = []
    for size in (100, 1000):
        jump = _value(results, "crowd", f"ours-asyncio-{size}", "jump_p99")
        ratio = _value(results, "crowd", f"ours-asyncio-{size}", "server_ratio")
        what = f"{size:,} tasks in 4 processes:"
        bars += [
            _at_most(f"{what} served before its turn by, p99", jump, 1.0, " ms"),
            _at_most(f"{what} server CPU per turn to that of 8", ratio, 2.0),
        ]
    return bars
