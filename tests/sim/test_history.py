"""One schema for every history, and a checker that judges all of them: each property is shown to
bite on a few records."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from chaos import history
from chaos.checker import Assumptions, beliefs, check
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
    from_events,
    from_json,
    read_jsonl,
    to_json,
    write_jsonl,
)
from chaos.sim.run import simulate
from redlock import Redlock
from redlock.core import events
from redlock.core.events import LeaseGranted, LeaseLapsed, LeaseReleasing, LeaseRenewed, TryStarted
from redlock.embedded import Nodes

EACH = [
    Seen(0.25, "a", LeaseGranted(0.25, "r", "o", 2**52 + 1, 0.1, 9.889)),
    Seen(0.25, "a", events.NodeQuarantined(0.25, "n1", "forgot", None)),
    Believed(1.0, "a", "r", 7, 0.1 + 0.2),
    Accepted(1.0, "a", "r", 7, 0, 1),
    Refused(1.0, "a", "r", 7, 8),
    Broken(1.0, "", "partition-3", "a from n1 and n2", (1, 2), ("a", "b")),
    Healed(2.0, "", "partition-3"),
    Called(2.0, "a", "r", "acquire", 1.5, "contended"),
    Called(2.0, "a", "r", "verify", 1.5, "ok", 7),
    NodeSeen(2.0, "", 3, "paused", "o", 7),
    Stopped(2.0, "a", "r", 7, "killed"),
    Stood(0.1, "a", "r", "a:0", 1.5),
    Led(1.0, "a", "r", 7, 0.1 + 0.2),
    Hook(1.0, "a", "r", 7, "on_started", True),
    Answered(1.0, "a", "r", 7, False),
    Note(2.0, "", "weather", "über 1 s"),
]


def test_every_kind_of_record_comes_back_equal(tmp_path: Path) -> None:
    """Through JSON, lines and a file, down to the last bit of every float."""
    kinds = {
        kind for _, kind in inspect.getmembers(history, inspect.isclass) if issubclass(kind, Record)
    } - {Record}
    assert {type(record) for record in EACH} == kinds
    assert [from_json(to_json(record)) for record in EACH] == EACH
    write_jsonl(tmp_path / "history.jsonl", EACH)
    assert list(read_jsonl(tmp_path / "history.jsonl")) == EACH


def test_a_whole_run_comes_back_equal(tmp_path: Path) -> None:
    """What the simulator leaves behind, too, and the checker says the same of both."""
    run = simulate(7, "contend")
    write_jsonl(tmp_path / "history.jsonl", run.history)
    assert list(read_jsonl(tmp_path / "history.jsonl")) == run.history


def test_an_unknown_kind_is_refused() -> None:
    """Rather than read as something else."""
    with pytest.raises(ValueError, match="Nonsense"):
        from_json({"kind": "Nonsense", "at": 0.0, "client": ""})


def granted(client: str, token: int, at: float, until: float) -> list[Record]:
    owner = f"{client}{token}"
    return [
        Seen(at - 0.1, client, TryStarted(at - 0.1, "r", owner, token, 1)),
        Seen(at, client, LeaseGranted(at, "r", owner, token, at - 0.1, until)),
    ]


def released(client: str, token: int, at: float) -> list[Record]:
    return [Seen(at, client, LeaseReleasing(at, "r", f"{client}{token}", token))]


def lapsed(client: str, token: int, at: float) -> list[Record]:
    return [Seen(at, client, LeaseLapsed(at, "r", f"{client}{token}", token, "why"))]


def renewed(client: str, token: int, at: float, until: float) -> list[Record]:
    return [Seen(at, client, LeaseRenewed(at, "r", f"{client}{token}", token, until))]


TIMELESS = Assumptions(timing=False, order=False, kept=True)
NOTHING = Assumptions(timing=False, memory=False, order=False)

CLEAN: dict[str, list[Record]] = {
    "one after the other": granted("a", 1, 1.0, 3.0) + granted("b", 2, 3.0, 5.0),
    "released early": granted("a", 1, 1.0, 3.0) + released("a", 1, 1.5) + granted("b", 2, 1.6, 5.0),
    "lost early": granted("a", 1, 1.0, 3.0) + lapsed("a", 1, 1.5) + granted("b", 2, 1.6, 5.0),
    "killed": [
        *granted("a", 1, 1.0, 3.0),
        Stopped(1.5, "a", "r", 1, "killed"),
        *granted("b", 2, 1.6, 5.0),
    ],
    "renewed": [
        *granted("a", 1, 1.0, 3.0),
        *renewed("a", 1, 2.0, 4.0),
        Believed(3.5, "a", "r", 1, 0.5),
    ],
    "verified": [
        *granted("a", 1, 1.0, 3.0),
        *granted("b", 2, 3.0, 5.0),
        Called(3.1, "a", "r", "verify", 0.3, "ok", 1),
    ],
    "a stale write refused": [
        Accepted(1.0, "a", "r", 1, 0, 1),
        Accepted(1.1, "b", "r", 2, 1, 2),
        Refused(1.2, "a", "r", 1, 2),
    ],
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_clean_history(name: str) -> None:
    """Whatever was assumed."""
    for assumptions in (Assumptions(), TIMELESS, NOTHING):
        assert check(CLEAN[name], assumptions, 10.0) == []


BROKEN: dict[str, tuple[list[Record], Assumptions]] = {
    "U: tokens are unique": (granted("a", 1, 1.0, 3.0) + granted("b", 1, 4.0, 5.0), NOTHING),
    "M: later grants have larger tokens": (
        granted("a", 2, 1.0, 3.0) + granted("b", 1, 4.0, 5.0),
        TIMELESS,
    ),
    "D: tokens rise with every grant": (
        [
            Seen(0.5, "b", TryStarted(0.5, "r", "b1", 1, 1)),
            *granted("a", 2, 1.0, 3.0),
            *granted("b", 1, 4.0, 5.0),
        ],
        Assumptions(),
    ),
    "ME: one holder at a time": (
        granted("a", 1, 1.0, 3.0) + granted("b", 2, 2.9, 5.0),
        Assumptions(),
    ),
    "I4: no belief past the end": (
        [*granted("a", 1, 1.0, 3.0), Believed(3.1, "a", "r", 1, 0.5)],
        NOTHING,
    ),
    "I5: a lost lease stays lost": (
        granted("a", 1, 1.0, 3.0) + lapsed("a", 1, 2.0) + renewed("a", 1, 2.5, 4.0),
        NOTHING,
    ),
    "I5: a renewal never shortens": (
        granted("a", 1, 1.0, 3.0) + renewed("a", 1, 2.5, 2.9),
        NOTHING,
    ),
    "X: nobody newer when confirmed": (
        [
            *granted("a", 1, 1.0, 9.0),
            *granted("b", 2, 3.0, 5.0),
            Called(3.2, "a", "r", "verify", 0.1, "ok", 1),
        ],
        TIMELESS,
    ),
    "I3: no stale write": (
        [Refused(0.9, "b", "r", 1, 2), Accepted(1.0, "a", "r", 1, 0, 1)],
        NOTHING,
    ),
    "I3: no lost update": (
        [Accepted(1.0, "a", "r", 1, 0, 1), Accepted(1.1, "b", "r", 2, 0, 1)],
        NOTHING,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_property_is_found_broken(name: str) -> None:
    """And is found alone, so that what is found says what was broken."""
    records, assumptions = BROKEN[name]
    assert [violation.property for violation in check(records, assumptions, 10.0)] == [name]


@pytest.mark.parametrize(
    "name",
    [
        "M: later grants have larger tokens",
        "ME: one holder at a time",
        "X: nobody newer when confirmed",
    ],
)
def test_what_was_not_promised_is_not_held_against_a_run(name: str) -> None:
    """The assumptions decide."""
    assert check(BROKEN[name][0], NOTHING, 10.0) == []


@pytest.mark.parametrize(
    "late",
    [
        [*granted("a", 1, 1.0, 3.0), *released("a", 1, 1.5), Believed(1.6, "a", "r", 1, 1.0)],
        [*granted("a", 1, 1.0, 3.0), *lapsed("a", 1, 1.5), Believed(1.6, "a", "r", 1, 1.0)],
        [*granted("a", 1, 1.0, 3.0), Believed(1.6, "a", "r", 1, 0.0)],
        [*granted("a", 1, 1.0, 3.0), Believed(1.6, "b", "r", 1, 1.0)],
        granted("a", 1, 1.0, 0.9),
    ],
)
def test_a_belief_ends_with_its_lease(late: list[Record]) -> None:
    """By release, loss and time, and it is nobody else's."""
    assert [violation.property for violation in check(late, NOTHING, 10.0)] == [
        "I4: no belief past the end"
    ]


def test_a_belief_ends_with_the_first_of_its_ends() -> None:
    """And says which it was."""
    records = (
        granted("a", 1, 1.0, 3.0)
        + released("a", 1, 2.0)
        + granted("b", 2, 2.0, 4.0)
        + granted("c", 3, 5.0, 99.0)
    )
    ends = [(belief.how, belief.until) for belief in beliefs(records, 10.0)["r"]]
    assert ends == [("released", 2.0), ("expired", 4.0), ("open", 10.0)]


def test_a_users_own_events_are_a_history() -> None:
    """What `on_event` of two coordinators received is enough for a verdict, and the clients are
    told apart."""
    heard: dict[str, list[events.Event]] = {"a": [], "b": []}
    with (
        Nodes(3) as nodes,
        Redlock(nodes.urls, ttl=5.0, on_event=heard["a"].append) as one,
        Redlock(nodes.urls, ttl=5.0, on_event=heard["b"].append) as other,
    ):
        for locks in (one, other, one):
            with locks.lock("r", timeout=5.0):
                pass
    records = [record for client, stream in heard.items() for record in from_events(client, stream)]
    assert check(records, Assumptions(), max(record.at for record in records)) == []
    assert [belief.client for belief in beliefs(records, float("inf"))["r"]] == ["a", "b", "a"]
