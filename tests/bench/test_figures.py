"""The arithmetic of the benchmarks, against slower, obvious second versions."""

from __future__ import annotations

import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import (
    Turn,
    gaps,
    handoffs,
    jain,
    jumps,
    overlaps,
    percentile,
    ratio_over_rounds,
)

NUMBERS = st.floats(min_value=0.001, max_value=1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_the_fiftieth_percentile_is_the_median(values: list[float]) -> None:
    """Of an even number of values too: the middle between the two."""
    assert percentile(values, 50) == pytest.approx(median(values))


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.floats(min_value=0, max_value=100))
def test_a_percentile_splits_the_values_as_it_says(values: list[float], percent: float) -> None:
    """Walking up to it passes that share of the steps between the values, and no more."""
    found = percentile(values, percent)
    ordered = sorted(values)
    steps = (len(values) - 1) * percent / 100
    assert ordered[math.floor(steps)] <= found * (1 + 1e-9)
    assert found <= ordered[math.ceil(steps)] * (1 + 1e-9)


def test_no_value_has_no_percentile() -> None:
    """NaN, which a table shows as a dash."""
    assert math.isnan(percentile([], 50))


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round in which the whole machine was ten times slower changes nothing."""
    theirs = [100.0, 1000.0, 110.0, 90.0, 100.0]
    ratio = ratio_over_rounds([each * 1.25 for each in theirs], theirs)
    assert ratio is not None
    assert ratio.value == ratio.low == ratio.high == 1.25


def test_a_ratio_has_the_width_of_its_rounds() -> None:
    """The interval holds the median, and noise between rounds widens it."""
    ratio = ratio_over_rounds([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.0] * 7)
    assert ratio is not None
    assert ratio.value == 4.0
    assert 1.0 <= ratio.low < 4.0 < ratio.high <= 7.0


def test_a_round_without_a_figure_does_not_count() -> None:
    """Neither one that is missing at the end, nor one that failed."""
    ratio = ratio_over_rounds([2.0, math.nan, 2.0, 9.0], [1.0, 1.0, 1.0])
    assert ratio is not None
    assert ratio.value == 2.0
    assert ratio_over_rounds([], [1.0]) is None


@given(st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=20))
def test_jains_index_lies_between_one_for_all_and_all_for_one(counts: list[int]) -> None:
    """1 / n when one had everything, 1 when all had the same, NaN when nobody had anything."""
    index = jain(counts)
    if not any(counts):
        assert math.isnan(index)
        return
    assert 1 / len(counts) - 1e-9 <= index <= 1 + 1e-9
    assert jain([7] * len(counts)) == pytest.approx(1.0)
    assert jain([7] + [0] * (len(counts) - 1)) == pytest.approx(1 / len(counts))


def test_one_who_takes_the_lock_again_has_handed_it_to_nobody() -> None:
    """A hand-off is a change of owner, in the order of entering, whatever the order of the list."""
    turns = [Turn(2, 0, 5, 6), Turn(1, 0, 1, 2), Turn(1, 2, 3, 4), Turn(1, 6, 7, 8)]
    assert handoffs(turns) == 2
    assert handoffs([]) == 0


spans = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 8)), max_size=12)


@given(spans)
def test_an_overlap_is_somebody_entering_while_somebody_is_inside(
    drawn: list[tuple[int, int, int]],
) -> None:
    """Every entry during somebody else's stay, found by comparing all with all, and nothing when
    there is none."""
    turns = [Turn(client, 0, entered, entered + long) for client, entered, long in drawn]
    clashes = [
        (one, other)
        for place, one in enumerate(turns)
        for other in turns[place + 1 :]
        if one.client != other.client
        and max(one.entered_at, other.entered_at) < min(one.left_at, other.left_at)
    ]
    if not clashes:
        assert overlaps(turns) == 0
    elif len({turn.client for turn in turns}) == len(turns):
        # Nobody is inside twice, so nobody hides behind himself.
        assert overlaps(turns) > 0


def test_touching_stays_do_not_overlap() -> None:
    """One leaves, the next enters at the same instant."""
    assert overlaps([Turn(1, 0, 1, 5), Turn(2, 0, 5, 6)]) == 0
    assert overlaps([Turn(1, 0, 1, 5), Turn(2, 0, 4, 6)]) == 1


@given(st.permutations(range(8)))
def test_a_jump_is_over_those_who_asked_earlier_and_were_served_later(order: list[int]) -> None:
    """Against every pair; nobody jumps where all are served as they asked."""
    turns = [Turn(asked, asked, 100 + served, 101 + served) for served, asked in enumerate(order)]
    slow = [
        max([0, *[asked - later for later in order[place:]]]) for place, asked in enumerate(order)
    ]
    assert jumps(turns) == slow
    assert any(jumps(turns)) == (list(order) != sorted(order))


def test_a_gap_lies_between_one_who_leaves_and_the_next_who_enters() -> None:
    """In the order of entering, whoever was told of first."""
    assert gaps([Turn(2, 0, 7, 9), Turn(1, 0, 1, 5)]) == [2]
    assert gaps([Turn(1, 0, 1, 5)]) == []
