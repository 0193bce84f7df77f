"""Whose turn it is among the waiters of one coordinator: by hand, and against an obvious second
version."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redlock.core.line import (
    CROWDED_FOR,
    CROWDS_MAX,
    LOOK_MAX,
    LOOK_MIN,
    STALLED,
    WAITERS_MAX,
    Lines,
    Place,
    look_after,
    name_of,
)

KEYS = ["redlock:a", "redlock:b"]


@dataclass
class Waiting:
    """A place as the second version knows it."""

    place: Place
    key: str
    due_at: float
    told: bool = False
    rung: bool = False
    woken: int = 0

    def ring(self) -> None:
        self.rung = True
        self.woken += 1


class LineMachine(RuleBasedStateMachine):
    """Places come, look up, are told, sleep and go, in any order. The second version is one list of
    all that wait, in the order of their tickets, from which it filters."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Lines("us")
        self.now = 0.0
        self.drawn = 0
        self.waiting: list[Waiting] = []
        self.gone: list[Waiting] = []
        """Those who left, and those who were taken for gone."""
        self.woken: dict[str, int] = {}

    def line(self, key: str) -> list[Waiting]:
        return [each for each in self.waiting if each.key == key]

    def remove(self, each: Waiting) -> None:
        self.waiting.remove(each)
        self.gone.append(each)

    @rule(key=st.sampled_from(KEYS), ticket=st.integers(1, 3), label=st.sampled_from(["", "w 1"]))
    def join(self, key: str, ticket: int, label: str) -> None:
        self.drawn += 1
        place = self.lines.join(key, ticket, self.now, label)
        assert place is not None
        assert place.name == f"us.{self.drawn}" + (f" {label}" if label else "")
        assert name_of(place.text) == place.name
        each = Waiting(place, key, self.now)
        self.waiting = sorted([*self.waiting, each], key=lambda each: each.place.ticket)

        def wake() -> None:
            self.woken[place.name] = self.woken.get(place.name, 0) + 1

        place.wake = wake

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.waiting))
        was_first = self.line(each.key)[0] is each
        self.lines.leave(each.place)
        each.place.ring()
        assert self.woken.get(each.place.name, 0) == each.woken, "its driver waits no more"
        self.remove(each)
        if was_first and (line := self.line(each.key)):
            line[0].ring()

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        """Who has gone, or was taken for gone, may leave once more: nobody hears of it."""
        self.lines.leave(data.draw(st.sampled_from(self.gone)).place)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), sleeps=st.sampled_from([0.0, 0.1, 0.2]))
    def look_up(self, data: st.DataObject, sleeps: float) -> None:
        """As its flow does: ask whether it is first, and fall asleep."""
        each = data.draw(st.sampled_from(self.waiting))
        each.due_at = self.now
        while (first := self.line(each.key)[0]) is not each and self.now > first.due_at + STALLED:
            self.remove(first)
        is_first = self.line(each.key)[0] is each
        each.place.rung = each.rung = False
        assert self.lines.is_first(each.place, self.now) == is_first
        if is_first:
            each.place.told = each.told = False
            each.place.due_at = each.due_at = self.now + sleeps

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Whoever was taken for gone asks by itself, and takes others for gone as anybody does."""
        place = data.draw(st.sampled_from(self.gone)).place
        line = [each for each in self.waiting if each.place.line is place.line]
        while line and self.now > line[0].due_at + STALLED:
            self.remove(line.pop(0))
        assert self.lines.is_first(place, self.now)

    @rule(data=st.data(), may_be=st.booleans())
    def tell(self, data: st.DataObject, may_be: bool) -> None:
        """A node tells a place, perhaps one that is unknown, or gone."""
        known = [each.place.name for each in [*self.waiting, *self.gone]]
        name = data.draw(st.sampled_from([*known, "us.99", "them.1", ""]))
        self.lines.told(f"{'?' if may_be else ''}{name}")
        for each in self.waiting:
            if each.place.name == name and not each.told and not (may_be and each.rung):
                each.told = not may_be
                each.ring()

    @rule()
    def hear(self) -> None:
        self.lines.heard()
        for key in KEYS:
            if line := self.line(key):
                line[0].ring()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.3]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def all_agree(self) -> None:
        for each in self.waiting:
            place = each.place
            assert (place.told, place.rung) == (each.told, each.rung)
            assert self.woken.get(place.name, 0) == each.woken
        for key in KEYS:
            assert self.lines.is_crowded(key, self.now) or not self.line(key)


LineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_places_are_served_in_the_order_of_their_tickets = LineMachine.TestCase


def test_a_line_is_bounded_and_forgotten_when_it_is_empty() -> None:
    """Thousands of tasks may wait for one lock; what nobody waits for is not remembered."""
    lines = Lines("us")
    places = [lines.join("a", 1, 0.0) for _ in range(WAITERS_MAX)]
    assert None not in places and lines.join("a", 1, 0.0) is None
    assert lines.join("b", 1, 0.0) is not None, "another lock has a line of its own"
    first = places[0]
    assert first is not None
    lines.leave(first)
    assert lines.join("a", 1, 0.0) is not None
    lines = Lines("us")
    for number in range(3):
        place = lines.join(f"{number}", 1, 0.0)
        assert place is not None
        lines.leave(place)
    assert not lines._lines and not lines._places


def test_a_crowd_is_remembered_for_a_second_and_of_so_many_locks() -> None:
    """Of more than that none, rather than of too many."""
    lines = Lines("us")
    for number in range(CROWDS_MAX):
        lines.crowd(f"{number}", 0.0)
    assert all(lines.is_crowded(f"{number}", CROWDED_FOR - 0.01) for number in range(CROWDS_MAX))
    assert not lines.is_crowded("0", CROWDED_FOR)
    lines.crowd("0", 1.0)
    assert lines.is_crowded("1", 0.5)
    lines.crowd("more", 1.0)
    assert lines.is_crowded("more", 1.5) and not lines.is_crowded("0", 1.5)


def test_a_place_goes_to_the_nodes_with_what_its_coordinator_hears() -> None:
    """As it is when it is sent, and not when it was drawn."""
    lines = Lines("us")
    place = lines.join("a", 1_763_927_834_123_456, 0.0, "a label")
    assert place is not None and place.text == "1763927834123456~us.1 a label"
    lines.hears = True
    assert place.text == "1763927834123456 us.1 a label"
    assert [name_of(text) for text in ("", "-", "1 us.1", "1~us.1")] == ["", "", "us.1", "us.1"]


@pytest.mark.parametrize(
    ("waited", "seconds"), [(0.0, LOOK_MIN), (0.2, 0.04), (0.5, 0.1), (1.0, 0.2), (60.0, LOOK_MAX)]
)
def test_looks_grow_rarer_with_the_time_waited(waited: float, seconds: float) -> None:
    """From 40 ms to 200 ms."""
    assert look_after(waited) == pytest.approx(seconds)


def test_who_looked_up_behind_others_is_not_taken_for_gone() -> None:
    """It becomes the first one while it sleeps; its second counts from when it last looked."""
    lines = Lines("us")
    first, second, third = (lines.join("a", 1, 0.0) for _ in range(3))
    assert first is not None and second is not None and third is not None
    assert not lines.is_first(second, STALLED)
    lines.leave(first)
    assert not lines.is_first(third, STALLED + 0.2)
    assert lines.is_first(second, STALLED + 0.2)
