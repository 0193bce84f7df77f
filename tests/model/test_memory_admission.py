"""The decisions of the world of memories and the shipped `Admission`, on the same looks, one after
the other.

Whatever a node tells in two looks to a client that knew it, or that did not, both say the same of
it: admitted, brought up to date at once, or lost. What the shipped one then writes after its wait,
the model may write too.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import pytest

from chaos.model.memory.admission import judged, marks
from chaos.model.memory.state import (
    SHIPPED,
    Blank,
    Client,
    Marker,
    Memories,
    Node,
    Record,
    Rules,
    Seen,
    State,
    Text,
)
from redlock.core import identity
from redlock.core.admission import Admission
from redlock.core.admission import State as Stands
from redlock.core.identity import Identity, Memory

WALL, WAITED = 1_700_000_000.0, 1000.0
"""What every clock says at 0, and an instant at which every wait is over; in seconds."""

SERVERS = {
    "as before": Seen(0, 0, True, False, None),
    "restarted": Seen(1, 1, True, False, None),
    "promoted": Seen(2, 0, True, True, None),
    "renamed": Seen(3, 0, True, False, None),
}
TEXTS = ("none", "blank", "blank of another memory", "first", "raised", "new", "of nobody")


class Told(NamedTuple):
    """One look: which server, and what stands there. "new": a marker that was written since the
    look before."""

    server: str
    text: str

    def seen(self, look: int) -> Seen:
        """The same as the model has it."""
        seen = SERVERS[self.server]
        texts: dict[str, Text] = {
            "none": None,
            "blank": Blank(seen.memory, 0, 0),
            "blank of another memory": Blank(9, 0, 0),
            "first": Marker(0, 0),
            "raised": Marker(0, 0, max_ttl=2, wait_ttl=2),
            "new": Marker(seen.memory, seen.run, floor=1, written_over=f"before look {look}"),
            "of nobody": Marker(9, 9),
        }
        return seen._replace(text=texts[self.text])


HOME = Told("as before", "first")
LOOKS = [Told(*case) for case in product(SERVERS, TEXTS)]
HISTORIES = [
    (*known, first, second) for known in ((), (HOME,)) for first, second in product(LOOKS, LOOKS)
]


def bounds_of(rules: Rules, promise: bool) -> Memories:
    return Memories("", ("ME",), promise=promise, rules=rules)


def in_model(history: Iterable[Told], bounds: Memories) -> tuple[str, set[str]]:
    """How the model's client takes the node after these looks, and what it may write once
    nothing is waited for."""
    node = Node(text=Marker(0, 0))
    state = State((node,) * 3, (), frozenset(), 0, blanks=(0,))
    record = Record()
    for number, told in enumerate(history):
        seen = told.seen(number)
        if record.loss is not None and told.text == "new" and isinstance(seen.text, Marker):
            record = record._replace(loss=record.loss._replace(later=seen.text.written_over))
        if record.seen != seen:
            record = judged(bounds, state, record, seen)
    kin = Record(Seen(0, 0, True, False, Marker(0, 0)), Marker(0, 0))
    state = state._replace(clients=(Client(0, 1, (record, kin, kin)),))
    written = {
        "blank" if request.text is None else "marker" for request in marks(bounds, state, 0, 0)
    }
    if record.admitted is not None:
        return "admitted", written
    return "goes on" if record.loss is None else "lost", written


def shipped(history: Iterable[Told], promise: bool) -> tuple[str, set[str]]:
    """The same of `Admission`, which learns of the other two nodes first and again at the end."""
    admission = Admission(
        ["a", "b", "c"], ttl=1.0, max_ttl=None, durable=None, patience=1.0, nonce=lambda: "nonce"
    )
    admission.asked(0.0)

    def tell(node: int, memory: Memory, marker: str, at: float, *, promoted: bool = False) -> None:
        promoted_at = "1" if promoted else "-1"
        told = Identity(
            memory,
            "master",
            False,
            False,
            "noeviction",
            at + 0.1,
            "7",
            marker,
            WALL + at,
            promoted_at,
        )
        admission.seen(node, told, at)

    def text(text: Text, node: int, at: float) -> str:
        if text is None:
            return ""
        if isinstance(text, Blank):
            return (
                f"redlock2 blank {round(WALL * 1e6)} {round(WALL * 1e6)}"
                f" {replid(node, text.memory)} other"
            )
        since = WALL - 500.0 if text.written_over == "-" else WALL + at - 0.5
        memory = Memory(f"run-{node}-{text.run}", replid(node, text.memory))
        limits = {
            "max_ttl": 10.0 * text.max_ttl,
            "wait_ttl": 10.0 * text.wait_ttl,
            "floor": text.floor,
        }
        return identity.Marker(
            memory,
            3,
            never_replicas=promise,
            since_us=round(since * 1e6),
            **limits,  # type: ignore[arg-type]
        ).text()

    def replid(node: int, memory: int) -> str:
        return f"id-{node}-{memory}"

    def others(at: float) -> None:
        for node in (1, 2):
            tell(node, Memory(f"run-{node}-0", replid(node, 0)), text(Marker(0, 0), node, at), at)

    others(0.0)
    at = 0.0
    for number, told in enumerate(history):
        at = 1.0 + number
        seen = told.seen(number)
        memory = Memory(f"run-0-{seen.run}", replid(0, seen.memory))
        tell(0, memory, text(seen.text, 0, at), at, promoted=seen.promoted)
    now = admission.standing(0, at)
    others(WAITED)
    later = admission.standing(0, WAITED)
    written = set() if later.mark is None else {"blank" if later.mark.is_blank else "marker"}
    if now.state is Stands.ADMITTED:
        return "admitted", written
    renewed = now.state is Stands.MARK and now.mark is not None and not now.mark.is_blank
    return "goes on" if renewed else "lost", written


@pytest.mark.parametrize("promise", [False, True], ids=["no promise", "never replicas"])
def test_admission_decides_as_the_model_does(promise: bool) -> None:
    """Of every history of looks: how the node stands, and that what is written after the wait is
    what the model may write."""
    bounds, seen = bounds_of(SHIPPED, promise), set()
    for history in HISTORIES:
        real, writes = shipped(history, promise)
        model, may = in_model(history, bounds)
        assert real == model, history
        assert writes <= may and bool(writes) == bool(may), (history, writes, may)
        seen.add(model)
    assert seen == ({"admitted", "goes on", "lost"} if promise else {"admitted", "lost"})


@pytest.mark.parametrize(
    "rule", ["older_is_lost", "older_marker_is_lost", "ended_by_later_marker", "marked_over_blank"]
)
def test_the_comparison_sees_a_rule_that_is_switched_off(rule: str) -> None:
    """It can fail: each rule of a look that the model can weaken makes a difference to these
    histories."""
    weak = bounds_of(SHIPPED._replace(**{rule: False}), promise=False)
    strong = bounds_of(SHIPPED, promise=False)
    assert [in_model(history, weak) for history in HISTORIES] != [
        in_model(history, strong) for history in HISTORIES
    ]
