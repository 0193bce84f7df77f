"""What signs come to, against second versions that count tick by tick."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.electors.measure import gap, overlap, stop_lag
from chaos.electors.signs import GAP_MAX, PAUSE, Log, Sign, Stretch, Stretches, read

TICKS = 40


@st.composite
def worked(draw: st.DrawFn) -> list[Stretch]:
    """Stretches of three candidates in whole ticks, in no order; those of one lie apart."""
    found = []
    for who in ("c1", "c2", "c3"):
        ends = draw(st.lists(st.integers(0, TICKS), unique=True, max_size=8))
        ends = sorted(ends)[: len(ends) // 2 * 2]
        found += [
            Stretch(who, draw(st.integers(1, 3)), float(since), float(until))
            for since, until in zip(ends[::2], ends[1::2], strict=True)
        ]
    return draw(st.permutations(found))


def workers(stretches: list[Stretch], tick: int) -> set[str]:
    """Who works in the time from *tick* to the next one."""
    return {one.who for one in stretches if one.since <= tick and tick + 1 <= one.until}


@settings(deadline=None)
@given(worked())
def test_overlap_is_the_time_in_which_two_work(stretches: list[Stretch]) -> None:
    """Three at once are no more than two."""
    counted = sum(len(workers(stretches, tick)) >= 2 for tick in range(TICKS))
    assert overlap(stretches) == counted


@settings(deadline=None)
@given(worked(), st.integers(0, TICKS), st.integers(0, TICKS))
def test_gap_is_the_longest_run_of_ticks_without_work(
    stretches: list[Stretch], one: int, other: int
) -> None:
    """Between two instants, whatever was before and comes after."""
    since, until = sorted((one, other))
    longest = run = 0
    for tick in range(since, until):
        run = 0 if workers(stretches, tick) else run + 1
        longest = max(longest, run)
    assert gap(stretches, since, until) == longest


@settings(deadline=None)
@given(worked(), st.sampled_from(["c1", "c2", "c3"]), st.integers(1, 3), st.integers(0, TICKS))
def test_stop_lag_is_the_last_tick_of_that_term(
    stretches: list[Stretch], who: str, term: int, free_at: int
) -> None:
    """Of that candidate, in that term; 0 if all of it was before."""
    late = [
        tick + 1 - free_at
        for tick in range(free_at, TICKS)
        for one in stretches
        if (one.who, one.term) == (who, term) and one.since <= tick and tick + 1 <= one.until
    ]
    assert stop_lag(stretches, who, term, free_at) == max(late, default=0)


def test_a_single_sign_is_no_overlap() -> None:
    """It lasts no time."""
    assert overlap([Stretch("c1", 1, 0.0, 9.0), Stretch("c2", 1, 5.0, 5.0)]) == 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5 * GAP_MAX)), min_size=1))
def test_signs_make_stretches(steps: list[tuple[bool, float]]) -> None:
    """Signs are one stretch while the term is the same and each follows the last one closely."""
    signs, term, at = [], 1, 100.0
    for anew, pause in steps:
        term, at = term + anew, at + pause
        signs.append(Sign(term, at))
    groups: list[list[Sign]] = []
    for sign in signs:
        last = groups[-1][-1] if groups else None
        if last is None or last.term != sign.term or sign.at - last.at > GAP_MAX:
            groups.append([])
        groups[-1].append(sign)
    stretches = Stretches()
    records = {record[0]: record[1:] for record in map(stretches.add, signs)}
    assert list(records.values()) == [
        (group[0].term, group[0].at, group[-1].at) for group in groups
    ]


def test_what_is_signed_can_be_read_while_the_file_is_written(tmp_path: Path) -> None:
    """One record that grows, and another one for another term; a record that is cut off is none."""
    path = tmp_path / "c1.signs"
    assert read("c1", path) == []
    log = Log(str(path))
    log.sign(1)
    log.sign(1)
    (first,) = read("c1", path)
    log.sign(2)
    assert [one.term for one in read("c1", path)] == [1, 2]
    assert read("c1", path)[0] == first
    assert first.since < first.until < first.since + 1.0
    with path.open("ab") as file:
        file.write(b"half a record")
    assert len(read("c1", path)) == 2
    assert PAUSE < GAP_MAX / 5
