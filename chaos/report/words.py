"""What the report says in words: the verdict in one sentence, numbers with their units, and
records as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from chaos.figures import duration, percent
from chaos.history import (
    Accepted,
    Answered,
    Believed,
    Broken,
    Called,
    Healed,
    Hook,
    Led,
    NodeSeen,
    Note,
    Record,
    Refused,
    Seen,
    Stood,
    Stopped,
)
from chaos.report.run import OURS, Result

__all__ = [
    "PHASES",
    "TONES",
    "date",
    "duration",
    "expectation",
    "line",
    "numbers",
    "outcome",
    "percent",
    "verdict",
]

PHASES = ("before", "during", "after")

TONES = {
    "safe": "safe",
    "degraded": "slow",
    "unavailable": "out",
    "unsafe by assumption": "shown",
    "violated": "bad",
    "failed": "bad",
}
"""By outcome, the page's style for it."""

NAMED_MAX = 6
"""Scenarios that a sentence names before it only counts them."""

_TITLES = {
    "grants": "grants",
    "availability": "acquires in time",
    "acquire": "acquire",
    "time_to_next_holder": "next holder after",
    "overlap_ms": "two holders at once",
    "belief_overrun_ms": "last belief against the end of validity",
    "stale_refused": "stale accesses refused",
    "stale_accepted": "stale accesses accepted",
    "lost_updates": "lost updates",
    "unfenced_lost_updates": "lost updates without tokens",
    "extend": "extend",
    "release": "release",
    "step_down_lead": "stopped before its validity ended",
    "one_round_share": "grants in one round",
    "injection_ms": "slowest injection",
    "terms": "terms",
    "term_reasons": "why terms ended",
    "least_margin": "validity left when work had stopped, at least",
    "overrun_terms": "terms whose work overran",
    "next_leader_max": "longest time without a leader",
}
_FIRST = tuple(_TITLES)
_SECONDS = (
    *("acquire", "extend", "release", "verify", "time_to_next_holder", "step_down_lead"),
    *("least_margin", "next_leader_max"),
)


def verdict(results: Sequence[Result]) -> str:
    """One sentence on our own results: scenarios first, then whether the controls failed as they
    must."""
    ours = [result for result in results if result.client_kind == OURS] or list(results)
    scenarios = [result for result in ours if not result.control]
    controls = [result for result in ours if result.control]
    said = []
    if scenarios:
        said.append(
            _of(
                scenarios,
                "scenario",
                ("ended as expected", "ended as expected"),
                "did not end as expected",
            )
        )
    if controls:
        said.append(
            _of(
                controls,
                "control",
                ("failed as it must", "failed as they must"),
                "did not fail, and must",
            )
        )
    return f"{', and '.join(said)}."


def _of(results: Sequence[Result], noun: str, done: tuple[str, str], undone: str) -> str:
    wrong = [result.scenario for result in results if not result.ok]
    total = len(results)
    if not wrong:
        return (
            f"the one {noun} {done[0]}"
            if total == 1
            else f"{'both' if total == 2 else f'all {total}'} {noun}s {done[1]}"
        )
    named = ", ".join(wrong[:NAMED_MAX]) + (
        f" and {len(wrong) - NAMED_MAX} more" if len(wrong) > NAMED_MAX else ""
    )
    return f"{len(wrong)} of {total} {noun}s {undone} ({named})"


def outcome(result: Result) -> str:
    """What came of it, in a word or two."""
    if result.control:
        return "fails, as it must" if result.ok else "does not fail"
    return result.observed


def date(started: str) -> str:
    """An ISO date for people; anything else as it is."""
    try:
        at = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{at.day} {at:%B %Y, %H:%M} {at.tzname() or ''}".strip()


def expectation(result: Result) -> str:
    """What was expected of it, and what it did."""
    if result.control:
        return "It must fail, and did." if result.ok else "It must fail, and did not."
    return f"Expected {result.expected}, was {result.observed}."


def numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every number of a result that is one, with its unit, known ones first."""
    order = [name for name in _FIRST if name in metrics] + [
        name for name in metrics if name not in _FIRST
    ]
    for name in order:
        yield from _numbers(name, metrics[name], _TITLES.get(name, _plain(name)))


def _numbers(name: str, value: Any, title: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if value and all(isinstance(part, Mapping) for part in value.values()):
            for part, inner in value.items():
                yield from _numbers(name, inner, f"{title}, {part}")
        elif value:
            known = (
                (part, part if part == "count" else name, number)
                for part, number in value.items()
                if number is not None
            )
            yield (
                title,
                ", ".join(f"{_plain(part)} {_one(unit, number)}" for part, unit, number in known),
            )
    elif value is not None:
        yield title, _one(name, value)


def _one(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_ms"):
        return duration(value / 1000)
    if name == "availability" or name.endswith("_share"):
        return percent(value)
    if name in _SECONDS or name.endswith(("_seconds", "_s")):
        return duration(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def _plain(name: str) -> str:
    return name.removesuffix("_ms").removesuffix("_seconds").replace("_", " ")


def line(record: Record) -> str:
    """What a record says, without its time and its client."""
    match record:
        case Seen(event=event):
            return f"{type(event).__name__}: " + ", ".join(
                f"{field.name} {_short(getattr(event, field.name))}"
                for field in fields(event)
                if field.name != "at"
            )
        case Believed():
            return f"was told that it holds token {record.token}, {duration(record.left)} left"
        case Stood():
            return f"{record.candidate} stands for election in {record.resource}"
        case Led():
            left = duration(record.left)
            return f"was told that it leads with token {record.token}, {left} left"
        case Hook():
            return f"{'has done' if record.over else 'begins'} {record.call}, token {record.token}"
        case Answered():
            return f"is {'fit' if record.fit else 'not fit'} to lead on with token {record.token}"
        case Called():
            return f"{record.call} returned after {duration(record.took)}: {record.outcome}"
        case Stopped():
            return f"{record.why}: token {record.token}"
        case Accepted():
            return f"the store took {record.before} → {record.after} with token {record.token}"
        case Refused():
            return f"the store refused token {record.token}: it has seen {record.largest}"
        case Broken():
            return f"{record.fault} begins: {record.what}"
        case Healed():
            return f"{record.fault} is over"
        case NodeSeen():
            return f"n{record.node} is {record.state}, " + (
                f"held by {_short(record.owner)}" if record.owner else "free"
            )
        case Note():
            return f"{record.kind}: {record.text}"
    return repr(record)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    return f"{text[:8]}…" if len(text) >= 32 and " " not in text else text
