"""What the report reads out of a history: holders, zombies, overlaps, accesses, and what
thinning may not lose."""

from __future__ import annotations

import pytest

from chaos.figures import duration
from chaos.history import (
    Accepted,
    Believed,
    Broken,
    Healed,
    NodeSeen,
    Note,
    Record,
    Refused,
    Seen,
    Stopped,
)
from chaos.report.drawing import draw
from chaos.report.faults import FAULT_ROWS_MAX, sort_of
from chaos.report.run import Result
from chaos.report.story import STRANGER, Fault, tell
from chaos.report.thin import BARS_MAX
from redlock.core.events import (
    LeaseInJeopardy,
    LeaseLapsed,
    LeaseRenewed,
    TermEnded,
    TermInJeopardy,
    TermStarted,
    TermStopped,
    TermStopping,
    TryStarted,
)
from tests.report.material import (
    a_find,
    a_store_that_believes_everybody,
    granted,
    observed,
    released,
    result_of,
)

QUIET = Result(scenario="S01", expected="safe", observed="safe", ok=True)


def test_an_overlap_is_what_the_checker_calls_one() -> None:
    """Every violation of mutual exclusion in a run with a planted bug is an overlap of the
    story, as long as it says."""
    found = 0
    for bug in ("release deletes anything", "majority is half", "no drift"):
        outcome = a_find(bug, "ME")
        overlaps = tell(outcome.history).overlaps
        for violation in outcome.violations:
            if violation.property.startswith("ME"):
                lengths = [
                    overlap.until - overlap.since
                    for overlap in overlaps
                    if overlap.since == violation.at
                ]
                assert any(duration(length) in violation.text for length in lengths), (
                    violation,
                    overlaps,
                )
                found += 1
    assert found


@pytest.mark.parametrize("workload", ["contend", "hold", "verify"])
def test_what_ships_shows_no_overlap(workload: str) -> None:
    """No two beliefs overlap in simulated runs of the unbroken code whose assumptions hold."""
    outcomes = [observed(seed, workload) for seed in range(12)]
    kept = [outcome for outcome in outcomes if outcome.plan.assumptions.exclusion]
    assert kept
    for outcome in kept:
        assert tell(outcome.history).overlaps == []


def test_three_holders_at_once_are_three_overlaps() -> None:
    """Each pair is told, with the time that both held."""
    history = [
        granted(0, "a", 1, 10),
        granted(1, "b", 2, 10),
        granted(2, "c", 3, 10),
        released(3, "a", 1),
        released(4, "b", 2),
    ]
    overlaps = tell([*history, Note(5, "", "end", "")]).overlaps
    assert [(overlap.clients, overlap.since, overlap.until) for overlap in overlaps] == [
        (("a", "b"), 1, 3),
        (("a", "c"), 2, 3),
        (("b", "c"), 2, 4),
    ]


def test_locks_of_different_resources_do_not_overlap() -> None:
    """Two clients that hold two locks are no violation."""
    history = [granted(0, "a", 1, 10, "x"), granted(1, "b", 2, 10, "y"), Note(5, "", "end", "")]
    assert tell(history).overlaps == []


def test_a_zombie_acts_past_its_end() -> None:
    """An access with the token of a lease that ended stretches what its holder acted, not what
    it believed."""
    history: list[Record] = [
        granted(0, "a", 1, 2),
        Accepted(1, "a", "r", 1, 0, 1),
        Refused(5, "a", "r", 1, 2),
        Note(6, "", "", ""),
    ]
    (hold,) = tell(history).holds
    assert (hold.until, hold.acted_until, hold.how) == (2, 5, "expired")
    drawing = draw(tell(history), QUIET)
    assert [row[1:3] for row in drawing.tables["zombies"].rows] == [(2, 5)]


def test_a_belief_past_its_end_is_drawn_red() -> None:
    """A holder that is told it holds after its release has two dark bars' worth of time, of
    which the second is a zombie's."""
    history: list[Record] = [
        granted(0, "a", 1, 9),
        released(1, "a", 1),
        Believed(3, "a", "r", 1, 6.0),
        Note(6, "", "", ""),
    ]
    assert [row[1:3] for row in draw(tell(history), QUIET).tables["zombies"].rows] == [(1, 3)]


def test_a_grant_that_came_too_late_is_a_zombie_from_its_start() -> None:
    """Its validity was over before it was told of it: nothing is drawn before the grant."""
    history: list[Record] = [
        granted(5, "a", 1, 2),
        Believed(6, "a", "r", 1, -4.0),
        Note(7, "", "", ""),
    ]
    drawing = draw(tell(history), QUIET)
    assert [row[1:3] for row in drawing.tables["zombies"].rows] == [(0, 1)]
    assert drawing.tables["acts"].rows == []


def test_a_store_that_takes_stale_writes_is_shown_to() -> None:
    """What the guarded store of a simulated run refused is no good where a store took it; the
    stairs never fall."""
    outcome = a_find("release deletes anything", refused=True)
    good, bad = tell(outcome.history), tell(a_store_that_believes_everybody(outcome.history))
    refused = {access.at for access in good.accesses if access.verdict == "refused"}
    wrong = {access.at for access in bad.accesses if access.verdict != "accepted"}
    assert refused
    assert refused <= wrong
    assert "stale" in {access.verdict for access in bad.accesses}
    assert {access.verdict for access in good.accesses} == {"accepted", "refused"}
    rows = draw(bad, QUIET).tables["stairs"].rows
    for resource in {row[2] for row in rows}:
        ranks = [row[1] for row in rows if row[2] == resource]
        assert ranks == sorted(ranks)


def test_a_lost_update_is_told_without_tokens_too() -> None:
    """A client whose lock has no token overwrites what it did not read."""
    history: list[Record] = [Accepted(1, "a", "r", 0, 0, 1), Accepted(2, "b", "r", 0, 0, 1)]
    assert [access.verdict for access in tell(history).accesses] == ["accepted", "lost update"]


def test_a_lock_without_tokens_shows_values() -> None:
    """Leases numbered downwards have no rank and no token; the store's axis counts values, a
    zombie is known by its client."""
    history: list[Record] = [
        granted(0, "a", -1, 2),
        Accepted(1, "a", "r", 0, 0, 1),
        Accepted(5, "a", "r", 0, 1, 2),
        Note(6, "", "", ""),
    ]
    drawing = draw(tell(history), QUIET)
    assert drawing.measure == "value"
    assert [row[1] for row in drawing.tables["accesses"].rows] == [1, 2]
    columns = drawing.tables["plans"].columns
    (plan,) = drawing.tables["plans"].rows
    assert (plan[columns.index("rank")], plan[columns.index("token")]) == (0, "none")
    assert [row[1:3] for row in drawing.tables["zombies"].rows] == [(2, 5)]


def test_jeopardy_ends_with_the_next_renewal() -> None:
    """From a renewal that failed to one that did not; without one, to the end of the belief."""
    history: list[Record] = [
        granted(0, "a", 1, 4),
        Seen(1, "a", LeaseInJeopardy(1, "r", "a-1", 1, 4, "")),
        Seen(2, "a", LeaseRenewed(2, "r", "a-1", 1, 6)),
        Seen(5, "a", LeaseInJeopardy(5, "r", "a-1", 1, 6, "")),
        Note(9, "", "", ""),
    ]
    story = tell(history)
    assert [(spell.since, spell.until) for spell in story.jeopardy] == [(1, 2), (5, 6)]
    assert [tick.good for tick in story.ticks] == [False, True, False]


def test_a_client_with_two_locks_has_two_lanes() -> None:
    """What happens to one lease stands in the lane of its lock; the lock that most want has the
    client's plain name."""
    history: list[Record] = [
        granted(0, "b", 9, 1, "r"),
        granted(1, "a", 1, 8, "r"),
        granted(1, "a", 2, 8, "r:a"),
        Seen(2, "a", LeaseRenewed(2, "r:a", "a-2", 2, 9)),
        Seen(3, "a", LeaseLapsed(3, "r:a", "a-2", 2, "gone")),
        Note(9, "", "", ""),
    ]
    tables = draw(tell(history), QUIET).tables
    lanes = {row[2]: row[0] for row in tables["lanes"].rows}
    assert list(lanes) == ["a", "a own", "b"]
    assert [row[0] for row in tables["ticks"].rows] == [lanes["a own"]]
    assert [row[0] for row in tables["marks"].rows] == [lanes["a own"]]


def test_a_node_belongs_to_the_client_that_drew_the_owner() -> None:
    """Also where the observer wrote down the first letters only; an owner that nobody drew is a
    stranger."""
    owner = "0123456789abcdef" * 2
    history: list[Record] = [
        Seen(0, "a", TryStarted(0, "r", owner, 7, 1)),
        NodeSeen(1, "", 4, "up", owner[:8], 7),
        NodeSeen(2, "", 4, "down"),
        NodeSeen(3, "", 4, "up", "ffffffff", 9),
        Note(4, "", "", ""),
    ]
    spells = tell(history).spells
    assert [(spell.since, spell.until, spell.state, spell.client) for spell in spells] == [
        (1, 2, "up", "a"),
        (2, 3, "down", ""),
        (3, 4, "up", STRANGER),
    ]


def test_the_campaign_itself_is_no_client() -> None:
    """What the world does at the store, to be sure that it is done, is nobody's access."""
    assert tell([Accepted(1, "", "r:end", 0, 0, 0)]).accesses == []


def rows_of(faults: list[Record]) -> dict[str, int]:
    return {row[4]: row[0] for row in draw(tell(faults), QUIET).tables["faults"].rows}


def test_faults_that_last_share_no_row() -> None:
    """Two faults at a time are one below the other, also when there are more than a screen has
    rows for."""
    rows = rows_of(
        [Broken(number * 0.1, "", f"pause-{number}", "", (number,)) for number in range(30)]
    )
    assert rows["pause-0"] != rows["pause-1"]
    assert max(rows.values()) < FAULT_ROWS_MAX


def test_the_same_thing_done_to_several_at_once_is_one_row() -> None:
    """Three nodes flushed at one instant are not three rows."""
    faults: list[Record] = [Broken(5, "", f"flush-{number}", "", (number,)) for number in range(3)]
    assert set(
        rows_of(faults + [Healed(5, "", f"flush-{number}") for number in range(3)]).values()
    ) == {0}


@pytest.mark.parametrize(
    ("kind", "clients", "sort"),
    [
        ("partition", ("a",), "network"),
        ("flapping-partition", ("a",), "network"),
        ("closed-port", ("a",), "network"),
        ("lost-replies", ("a",), "network"),
        ("kill", (), "process"),
        ("stopped-client", ("a",), "client"),
        ("killed-client", ("a",), "client"),
        ("client-limit", (), "process"),
        ("client-pause", (), "process"),
        ("clock-jump", (), "clock"),
        ("wall-clock-step", ("a",), "clock"),
        ("wipe", (), "memory"),
        ("out-of-memory", (), "memory"),
        ("wrong-password", (), "access"),
        ("something new", (), "other"),
    ],
)
def test_the_colour_of_a_fault_is_that_of_what_it_breaks(
    kind: str, clients: tuple[str, ...], sort: str
) -> None:
    """By the words of its id; what nobody thought of has a colour too."""
    nodes = () if sort == "client" else (1,)
    assert sort_of(Fault(f"{kind}-1", kind, "", nodes, clients, 0, 1)) == sort


def test_thinning_keeps_what_is_bad() -> None:
    """Of 8,000 accesses few are drawn, and every stale one is; bars stand for as many leases as
    there were."""
    history: list[Record] = []
    for number in range(1, 8_001):
        at = number * 0.01
        history += [
            granted(at, "a", number, at + 0.009),
            Accepted(at + 0.001, "a", "r", number, number - 1, number),
        ]
        if number % 800 == 0:
            history += [
                Accepted(at + late, "b", "r", number - 5, number, number)
                for late in (0.002, 0.0021)
            ]
        history.append(released(at + 0.005, "a", number))
    drawing = draw(tell(history), QUIET)
    assert sum(row[2] == "stale" for row in drawing.tables["accesses"].rows) == 20
    assert sum(row[-1] for row in drawing.tables["plans"].rows) == 8_000
    for name in ("plans", "acts", "accesses", "stairs"):
        assert len(drawing.tables[name].rows) <= 3 * BARS_MAX
    assert drawing.thinned["plans"][0] == 8_000


def test_a_close_up_has_only_what_is_near() -> None:
    """The tables of a window reach from its one end to the other, and the lanes are the clients
    that are asked for."""
    outcome = a_find("release deletes anything", "ME")
    story = tell(outcome.history)
    overlap = story.overlaps[0]
    window = (overlap.since - 0.1, overlap.until + 0.1)
    result = Result.model_validate(result_of(outcome, "C2", "", expected="must fail"))
    drawing = draw(story, result, window=window, only=overlap.clients)
    edges = [round(edge - story.start, 6) for edge in window]
    for name, table in drawing.tables.items():
        if "at" in table.columns and name != "lanes":
            place = table.columns.index("at")
            assert all(edges[0] <= row[place] <= edges[1] for row in table.rows), name
    labels = [row[2] for row in drawing.tables["lanes"].rows if row[1] == "client"]
    assert labels == sorted(set(overlap.clients))  # Both may be tasks of one client.


def a_term(since: float = 1.0, *, stopped_at: float = 3.0, killed: bool = False) -> list[Record]:
    """A term of c1 from *since* on: in jeopardy at 2, told to stop at 2.5, valid until 4."""
    who = ("r", "c1", 7)
    records: list[Record] = [
        granted(since, "c1", 7, 4.0),
        Seen(since, "c1", TermStarted(since, *who, 4.0, 2.5)),
        Seen(2.0, "c1", TermInJeopardy(2.0, *who, 4.0, 2.5)),
    ]
    if killed:
        return [*records, Stopped(stopped_at, "c1", "r", 7, "killed"), Note(9.0, "", "end", "")]
    left = 4.0 - stopped_at
    return [
        *records,
        Seen(2.5, "c1", TermStopping(2.5, *who, "renewal_failed", 0.0, 1.5)),
        Seen(stopped_at, "c1", TermStopped(stopped_at, *who, "renewal_failed", left)),
        Seen(stopped_at, "c1", TermEnded(stopped_at, *who, "renewal_failed", False, left, "")),
        Note(9.0, "", "end", ""),
    ]


def test_a_candidate_has_a_lane_of_its_states() -> None:
    """Leader, jeopardy, stepping down, each from its record to the next; nobody else has one."""
    drawing = draw(tell([*a_term(), granted(9.0, "c2", 8, 12.0)]), QUIET)
    lanes = {row[0]: row[2] for row in drawing.tables["lanes"].rows}
    reigns = drawing.tables["reigns"].rows
    assert [(row[3], row[1] + 1.0, row[2] + 1.0) for row in reigns] == [
        ("leader", 1.0, 2.0),
        ("jeopardy", 2.0, 2.5),
        ("stepping", 2.5, 3.0),
    ]
    assert {lanes[row[0]] for row in reigns} == {"c1 leads"}
    assert "c2 leads" not in lanes.values()
    assert {row[6] for row in reigns} == {"renewal_failed"}


def test_the_margin_left_is_drawn_and_said() -> None:
    """From when the work had ended to the end of its validity; also of one that was killed."""
    for killed in (False, True):
        drawing = draw(tell(a_term(stopped_at=3.25, killed=killed)), QUIET)
        ((_, since, until, left, _),) = drawing.tables["margins"].rows
        assert (since + 1.0, until + 1.0, left) == (3.25, 4.0, "750 ms left")
        assert not drawing.tables["overruns"].rows


def test_work_that_overran_is_drawn_red() -> None:
    """It leaves no margin, and how long it went on is said."""
    drawing = draw(tell(a_term(stopped_at=4.5)), QUIET)
    ((_, since, until, over),) = drawing.tables["overruns"].rows
    assert (since + 1.0, until + 1.0, over) == (4.0, 4.5, "500 ms too long")
    assert not drawing.tables["margins"].rows
