"""Run directories made of real histories: the simulator's, with what its nodes held, also from
code with planted bugs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from chaos.checker import Belief, beliefs
from chaos.history import Accepted, Broken, Called, NodeSeen, Record, Refused, Seen, write_jsonl
from chaos.sim.bugs import planted
from chaos.sim.run import Outcome, simulate
from chaos.sim.workloads import WORKLOADS
from chaos.sim.world import World
from redlock.core.events import LeaseGranted, LeaseReleasing

LOCK = "redlock:r"
"""The key of the simulator's lock."""

SEEDS = 40


@cache
def observed(seed: int, workload: str, bug: str | None = None) -> Outcome:
    """A simulated run whose history also has what every node held, and when."""
    with planted(bug) if bug else nullcontext(), _watched():
        outcome = simulate(seed, workload)
    return replace(outcome, history=sorted(outcome.history, key=lambda record: record.at))


@contextmanager
def _watched() -> Iterator[None]:
    """After everything that the world does, note how its nodes stand if that has changed."""
    at = World.at

    def at_and_look(self: World, when: float, what: Callable[..., None], *arguments: Any) -> None:
        def do_and_look() -> None:
            what(*arguments)
            for node in self.nodes:
                now = _standing(self, node.index)
                if last.get((id(self), node.index)) != now:
                    last[id(self), node.index] = now
                    self.history.append(NodeSeen(self.now, "", node.index, *now))

        at(self, when, do_and_look)

    last: dict[tuple[int, int], tuple[str, str, int]] = {}
    with patch.object(World, "at", at_and_look), patch.object(World, "saw", lambda *_: None):
        yield


def _standing(world: World, index: int) -> tuple[str, str, int]:
    node = world.nodes[index]
    state = "paused" if node.paused else "up" if node.up else "down"
    value, expires = node.data.get(LOCK, ("", None))
    if expires is not None and node.wall_us(world.now) / 1000 > expires:
        value = ""
    owner, token = [*value.split(":", 2), ""][:2]  # A candidate's note may follow.
    return state, owner, int(token or 0)


@cache
def a_find(bug: str, property: str = "", *, refused: bool = False) -> Outcome:
    """The first run in which the planted *bug* violates *property*; *refused*: and the store a
    token older than a write's."""
    for seed in range(SEEDS):
        for workload in WORKLOADS:
            outcome = observed(seed, workload, bug)
            stale = _refused_after_a_write(outcome.history)
            if stale >= refused and any(
                found.property.startswith(property) for found in outcome.violations
            ):
                return outcome
    raise LookupError(f"{bug!r} does not show in {SEEDS} seeds")


def _refused_after_a_write(history: Sequence[Record]) -> bool:
    """Whether the store refused a token after it had taken a larger one's write, and not only
    its read."""
    written: dict[str, int] = {}
    for record in history:
        if isinstance(record, Accepted):
            written[record.resource] = max(written.get(record.resource, 0), record.token)
        elif isinstance(record, Refused) and record.token < written.get(record.resource, 0):
            return True
    return False


@cache
def calm_runs(count: int) -> tuple[Outcome, ...]:
    """The first runs of the unbroken code on five nodes with grants, a fault, and nothing wrong
    or slow."""
    found = []
    for seed in range(SEEDS):
        outcome = observed(seed, "contend")
        broken = any(isinstance(record, Broken) for record in outcome.history)
        if (
            outcome.plan.nodes == 5
            and outcome.grants
            and broken
            and _availability(outcome, during=True) >= 0.9
        ):
            found.append(outcome)
        if len(found) == count:
            return tuple(found)
    raise LookupError(f"no {count} calm runs in {SEEDS} seeds")


def result_of(
    outcome: Outcome, scenario: str, title: str, *, expected: str = "safe", kind: str = "redlock"
) -> dict[str, Any]:
    """What a campaign would write into `run.json` about it."""
    observed_ = (
        "violated"
        if outcome.violations
        else "degraded"
        if _availability(outcome, during=True) < 0.9
        else "safe"
    )
    ok = observed_ in (expected, "safe") if expected != "must fail" else observed_ == "violated"
    history = f"{scenario}-{kind}/history.jsonl"
    end = outcome.history[-1].at
    broken = [record.at for record in outcome.history if isinstance(record, Broken)]
    first = min(broken, default=end / 3)
    until = min(outcome.plan.healed_at, end)
    first = min(first, until)
    phases = [
        ("before", outcome.history[0].at, first),
        ("during", first, until),
        ("after", until, end),
    ]
    return {
        "scenario": scenario,
        "title": title,
        "client_kind": kind,
        "expected": expected,
        "observed": observed_,
        "ok": ok,
        "why": outcome.violations[0].text if outcome.violations else "Nothing was found.",
        "seed": outcome.plan.seed,
        "replay": (
            f"python -m chaos sim --seed {outcome.plan.seed} --workload {outcome.plan.workload}"
            " --trace"
        ),
        "seconds": end,
        "history": history,
        "phases": [{"name": name, "from": start, "until": stop} for name, start, stop in phases],
        "metrics": metrics_of(outcome, phases),
        "violations": [
            {"property": found.property, "at": found.at, "text": found.text}
            for found in outcome.violations
        ],
    }


def metrics_of(outcome: Outcome, phases: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Measured from the history."""
    calls = [
        record
        for record in outcome.history
        if isinstance(record, Called) and record.call == "acquire"
    ]
    metrics: dict[str, Any] = {"availability": {}, "acquire": {}}
    for name, start, stop in phases:
        inside = [call for call in calls if start <= call.at <= stop]
        won = sorted(call.took for call in inside if call.outcome == "granted")
        if inside:
            metrics["availability"][name] = len(won) / len(inside)
        if won:
            metrics["acquire"][name] = _quantiles(won)
    held = beliefs(outcome.history, outcome.history[-1].at).values()
    pairs = [pair for leases in held for pair in pairwise(leases)]
    gaps = sorted(max(0.0, after.since - before.until) for before, after in pairs)
    metrics["grants"] = sum(map(len, held))
    metrics["overlap_ms"] = 1e3 * sum(map(_together, held))
    metrics["stale_refused"] = sum(isinstance(record, Refused) for record in outcome.history)
    metrics["time_to_next_holder"] = _quantiles(gaps) | {"max": gaps[-1]} if gaps else {}
    return metrics


def _together(leases: list[Belief]) -> float:
    """Seconds with two believers or more: between every two instants, by counting."""
    spans = [(belief.since, max(belief.until, belief.believed_at)) for belief in leases]
    instants = sorted({at for span in spans for at in span})
    return sum(
        until - since
        for since, until in pairwise(instants)
        if sum(begins <= since and ends >= until for begins, ends in spans) > 1
    )


def _quantiles(values: list[float]) -> dict[str, float]:
    return {
        "p50": values[len(values) // 2],
        "p99": values[min(len(values) - 1, int(len(values) * 0.99))],
    }


def _availability(outcome: Outcome, *, during: bool) -> float:
    calls = [
        record
        for record in outcome.history
        if isinstance(record, Called) and record.call == "acquire"
    ]
    inside = [call for call in calls if (call.at <= outcome.plan.healed_at) == during]
    return sum(call.outcome == "granted" for call in inside) / len(inside) if inside else 1.0


def write_run(folder: Path, results: list[tuple[dict[str, Any], list[Record]]]) -> Path:
    """A run directory."""
    for result, history in results:
        if result.get("history"):
            path = folder / result["history"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, history)
    run = {
        "started": "2026-03-01T12:00:00Z",
        "seed": 7,
        "command": "python -m chaos campaign --minutes 10 --seed 7",
        "versions": {
            "redlock": "0.1.0",
            "python": "3.11.7",
            "server": "simulated",
            "toxiproxy": None,
        },
        "results": [result for result, _ in results],
    }
    (folder / "run.json").write_text(json.dumps(run), "utf-8")
    return folder


def a_store_that_believes_everybody(history: list[Record]) -> list[Record]:
    """The history as it would be if the guarded store had refused nobody."""
    return [
        (
            Accepted(record.at, record.client, record.resource, record.token, 0, 1)
            if isinstance(record, Refused)
            else record
        )
        for record in history
    ]


def granted(at: float, client: str, token: int, until: float, resource: str = "r") -> Seen:
    """A lease begins."""
    return Seen(at, client, LeaseGranted(at, resource, f"{client}-{token}", token, at, until))


def released(at: float, client: str, token: int, resource: str = "r") -> Seen:
    """It is given back."""
    return Seen(at, client, LeaseReleasing(at, resource, f"{client}-{token}", token))
