"""The checker of terms: each property is shown to bite on a few records, and ledgers of real
candidates are enough for a verdict on who led beside whom."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from chaos.checker import Assumptions, check
from chaos.history import Answered, Hook, Led, Record, Seen, Stood, Stopped, write_jsonl
from chaos.terms import ledger, overlaps
from redlock.core.events import (
    LeaseGranted,
    LeaseReleasing,
    LeaseRenewed,
    TermEnded,
    TermInJeopardy,
    TermRecord,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)

NOTHING = Assumptions(timing=False, memory=False, order=False)


def began(who: str, token: int, at: float) -> list[Record]:
    """Granted at *at* for two seconds, of which it leads for one and a half."""
    until = at + 2.0
    return [
        Seen(at, who, LeaseGranted(at, "r", f"{who}{token}", token, at, until)),
        Seen(at, who, TermStarted(at, "r", who, token, until, until - 0.5)),
    ]


def stops(who: str, token: int, at: float) -> Record:
    return Seen(at, who, TermStopping(at, "r", who, token, "resigned", 0.0, 1.0))


def stopped(who: str, token: int, at: float, margin: float = 1.0) -> Record:
    return Seen(at, who, TermStopped(at, "r", who, token, "resigned", margin))


def released(who: str, token: int, at: float) -> Record:
    return Seen(at, who, LeaseReleasing(at, "r", f"{who}{token}", token))


def ended(who: str, token: int, at: float) -> Record:
    return Seen(at, who, TermEnded(at, "r", who, token, "resigned", True, 1.0, ""))


def renewed(who: str, token: int, at: float) -> Record:
    return Seen(at, who, LeaseRenewed(at, "r", f"{who}{token}", token, at + 2.0))


def hook(who: str, token: int, at: float, call: str, *, over: bool) -> Record:
    return Hook(at, who, "r", token, call, over)


def led_by(who: str, token: int, at: float, until: float) -> list[Record]:
    """A whole term, given back."""
    return [
        *began(who, token, at),
        stops(who, token, until),
        stopped(who, token, until),
        released(who, token, until),
        ended(who, token, until),
    ]


CLEAN: dict[str, list[Record]] = {
    "one after the other": led_by("a", 1, 1.0, 2.0) + led_by("b", 2, 2.0, 3.0),
    "told while it leads": [*began("a", 1, 1.0), Led(2.4, "a", "r", 1, 0.1)],
    "renewed": [*began("a", 1, 1.0), renewed("a", 1, 2.0), Led(3.4, "a", "r", 1, 0.1)],
    "in jeopardy and safe": [
        *began("a", 1, 1.0),
        Seen(2.0, "a", TermInJeopardy(2.0, "r", "a", 1, 3.0, 2.5)),
        Seen(2.1, "a", TermSafe(2.1, "r", "a", 1, 4.1, 3.6)),
    ],
    "killed": [*began("a", 1, 1.0), Stopped(2.0, "a", "r", 1, "killed"), *began("b", 2, 3.0)],
    "with its hooks": [
        *began("a", 1, 1.0),
        hook("a", 1, 1.0, "on_started", over=False),
        hook("a", 1, 1.1, "on_started", over=True),
        hook("a", 1, 1.1, "work", over=False),
        stops("a", 1, 1.2),
        hook("a", 1, 1.3, "work", over=True),
        stopped("a", 1, 1.3),
        hook("a", 1, 1.3, "on_stopped", over=False),
        hook("a", 1, 1.4, "on_stopped", over=True),
        released("a", 1, 1.4),
    ],
    "fit, and renewed": [
        *began("a", 1, 1.0),
        Answered(1.1, "a", "r", 1, True),
        renewed("a", 1, 1.5),
    ],
    "a renewal on its way to the end": [
        *began("a", 1, 1.0),
        stops("a", 1, 1.5),
        Seen(1.6, "a", LeaseRenewed(1.6, "r", "a1", 1, 3.4)),
    ],
    "after a lock_delay": [
        *began("a", 1, 1.0),
        Stood(1.0, "b", "r", "b", 1.0),
        *began("b", 2, 4.0),
    ],
    "no delay after a release": [
        *led_by("a", 1, 1.0, 2.0),
        Stood(1.0, "b", "r", "b", 1.0),
        *began("b", 2, 2.0),
    ],
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_clean_election(name: str) -> None:
    """Whatever was assumed."""
    for assumptions in (Assumptions(), NOTHING):
        assert check(CLEAN[name], assumptions, 10.0) == []


LATE = "E2: nobody believes past its term"
HOOKS = "E3: on_started and on_stopped are paired"
RELEASE = "E4: released only when the work has ended"
ONE_WAY = "E5: a term goes one way"
UNFIT = "E7: who must not lead is not renewed"

BROKEN: dict[str, tuple[str, list[Record]]] = {
    "led past the stop": (LATE, [*began("a", 1, 1.0), Led(2.6, "a", "r", 1, 0.1)]),
    "led after it was told": (
        LATE,
        [*began("a", 1, 1.0), stops("a", 1, 1.2), Led(1.3, "a", "r", 1, 0.1)],
    ),
    "led with nothing left": (LATE, [*began("a", 1, 1.0), Led(1.3, "a", "r", 1, 0.0)]),
    "led without a term": (LATE, [*began("a", 1, 1.0), Led(1.3, "b", "r", 2, 0.1)]),
    "stops with its validity": (
        LATE,
        [Seen(1.0, "a", TermStarted(1.0, "r", "a", 1, 3.0, 3.0))],
    ),
    "on_stopped alone": (
        HOOKS,
        [
            *began("a", 1, 1.0),
            stops("a", 1, 1.2),
            stopped("a", 1, 1.2),
            hook("a", 1, 1.2, "on_stopped", over=False),
        ],
    ),
    "on_stopped in on_started": (
        HOOKS,
        [
            *began("a", 1, 1.0),
            hook("a", 1, 1.0, "on_started", over=False),
            stops("a", 1, 1.2),
            stopped("a", 1, 1.2),
            hook("a", 1, 1.2, "on_stopped", over=False),
        ],
    ),
    "released before the end": (
        RELEASE,
        [*began("a", 1, 1.0), stops("a", 1, 1.2), released("a", 1, 1.3)],
    ),
    "released after an overrun": (
        RELEASE,
        [
            *began("a", 1, 1.0),
            stops("a", 1, 2.5),
            stopped("a", 1, 3.1, -0.1),
            released("a", 1, 3.1),
        ],
    ),
    "begun twice": (ONE_WAY, began("a", 1, 1.0) + began("a", 1, 1.1)[1:]),
    "two at once": (ONE_WAY, began("a", 1, 1.0) + began("a", 2, 3.5)),
    "safe after the end": (
        ONE_WAY,
        [
            *began("a", 1, 1.0),
            stops("a", 1, 1.2),
            Seen(1.3, "a", TermSafe(1.3, "r", "a", 1, 3.2, 2.7)),
        ],
    ),
    "stopped before it was told": (ONE_WAY, [*began("a", 1, 1.0), stopped("a", 1, 1.2)]),
    "never began": (ONE_WAY, [*began("a", 1, 1.0), stops("b", 2, 1.2)]),
    "renewed though unfit": (
        UNFIT,
        [*began("a", 1, 1.0), Answered(1.1, "a", "r", 1, False), renewed("a", 1, 1.5)],
    ),
    "renewed after its end": (
        UNFIT,
        [*began("a", 1, 1.0), stops("a", 1, 1.2), renewed("a", 1, 1.5)],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_one_term_may_not_do_is_found_always(name: str) -> None:
    """Whatever was assumed, and it is found alone."""
    wanted, records = BROKEN[name]
    for assumptions in (Assumptions(), NOTHING):
        found = check(records, assumptions, 10.0)
        assert [violation.property for violation in found] == [wanted]


BESIDE: dict[str, list[Record]] = {
    "E1: one leader at a time": began("a", 1, 1.0) + began("b", 2, 2.0),
    "E2: nobody believes past its term": [
        *began("a", 1, 1.0),
        *began("b", 2, 2.0),
        Led(2.2, "a", "r", 1, 0.1),
    ],
    "E5: tokens rise from term to term": began("a", 2, 1.0) + began("b", 1, 4.0),
    "E9: lock_delay after a leader that did not release": [
        *began("a", 1, 1.0),
        Stood(1.0, "b", "r", "b", 1.0),
        *began("b", 2, 3.5),
    ],
}


@pytest.mark.parametrize("name", BESIDE)
def test_terms_beside_each_other_are_found_where_exclusion_was_promised(name: str) -> None:
    """And only there."""
    assert name in {violation.property for violation in check(BESIDE[name], Assumptions(), 10.0)}
    alone = {violation.property for violation in check(BESIDE[name], NOTHING, 10.0)}
    assert not any(found.startswith("E") for found in alone)


def test_ledgers_of_real_candidates_tell_who_led_beside_whom(tmp_path: Path) -> None:
    """As a history, or as the events alone, one file for each candidate; other lines do not
    matter."""
    a = [*led_by("a", 1, 1.0, 2.0), *began("a", 3, 5.0), stops("a", 3, 6.5)]
    a.append(stopped("a", 3, 7.4, -0.4))
    write_jsonl(tmp_path / "a.jsonl", a)
    events = [each.event for each in led_by("b", 2, 1.8, 2.5) if isinstance(each, Seen)]
    events += [each.event for each in led_by("b", 4, 7.2, 7.5) if isinstance(each, Seen)]
    lines = [json.dumps({"kind": type(event).__name__, **asdict(event)}) for event in events]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    records = list(ledger([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))
    assert len(records) == 15
    assert all(isinstance(record, TermRecord) for record in records)
    found = overlaps(records)
    assert [(violation.property, violation.at) for violation in found] == [
        ("E1: one leader at a time", 1.8),
        ("E1: one leader at a time", 7.2),
    ]
    assert found[1].text.endswith("a (token 3) worked on for 400 ms past the end of its validity")
    assert overlaps(record for record in records if record.candidate == "a") == []
