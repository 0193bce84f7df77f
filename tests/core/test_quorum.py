"""Counting votes, against a second version that enumerates: subsets for the majority, futures
for what may still happen."""

from __future__ import annotations

import pickle
import re
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.quorum import Fault, FaultKind, Kind, Tally, Vote, majority
from redlock.errors import (
    MESSAGE_MAX,
    LockContended,
    NodeRefused,
    NodeUnreachable,
    QuorumUnavailable,
)

FENCES = st.integers(0, 50)
VOTES = st.one_of(
    st.builds(lambda fence: Vote(Kind.GRANTED, fence), FENCES),
    st.builds(lambda fence: Vote(Kind.FREE, fence), FENCES),
    st.builds(
        lambda fence, left: Vote(Kind.BUSY, fence, left, "X:7"),
        FENCES,
        st.one_of(st.none(), st.just(-1.0), st.just(0.0), st.floats(0.0, 100.0)),
    ),
    st.builds(
        lambda fence, ahead: Vote(Kind.BEHIND, fence, time_us=99, ahead=ahead),
        FENCES,
        st.sampled_from([0.0, 70.0]),
    ),
    st.just(Vote(Kind.STRANGER)),
    st.builds(
        lambda kind: Vote(Kind.FAULT, fault=Fault(kind, "failed")), st.sampled_from(list(FaultKind))
    ),
)
ANSWERS = (Kind.GRANTED, Kind.FREE, Kind.BUSY, Kind.BEHIND)


@st.composite
def ballots(draw: st.DrawFn) -> tuple[int, list[tuple[int, Vote]], bool]:
    """A number of nodes, votes in the order they came (some nodes twice, some never), and
    whether the validity was over."""
    nodes = draw(st.integers(1, 7))
    cast = draw(st.lists(st.tuples(st.integers(0, nodes - 1), VOTES), max_size=2 * nodes))
    return nodes, cast, draw(st.booleans())


def count(nodes: int, cast: list[tuple[int, Vote]], late: bool) -> tuple[Tally, list[Vote | None]]:
    """The tally, and what it should have understood: the first vote of each node."""
    tally = Tally([f"n{node + 1}" for node in range(nodes)])
    first: dict[int, Vote] = {}
    for node, vote in cast:
        tally.cast(node, vote)
        first.setdefault(node, vote)
    tally.late = late
    return tally, [first.get(node) for node in range(nodes)]


def is_majority(members: int, nodes: int) -> bool:
    return members > nodes - members


def futures(votes: list[Vote | None]) -> list[list[Kind]]:
    """Every way in which the nodes that have not voted may still vote."""
    choices = [
        [Kind.GRANTED, Kind.BUSY, Kind.BEHIND, Kind.FAULT] if vote is None else [vote.kind]
        for vote in votes
    ]
    return [list(kinds) for kinds in product(*choices)]


@pytest.mark.parametrize("nodes", range(1, 10))
def test_any_two_majorities_share_a_node_and_no_smaller_sets_must(nodes: int) -> None:
    """A majority is the smallest size at which every two sets of nodes meet."""

    def all_meet(size: int) -> bool:
        sets = [set(members) for members in combinations(range(nodes), size)]
        return all(one & other for one in sets for other in sets)

    assert all_meet(majority(nodes))
    assert not all_meet(majority(nodes) - 1)


@settings(deadline=None)
@given(ballots())
def test_a_node_votes_once(ballot: tuple[int, list[tuple[int, Vote]], bool]) -> None:
    """Only a node's first vote counts; the counters are those of the votes that are kept."""
    tally, votes = count(*ballot)
    kinds = [vote.kind for vote in votes if vote is not None]
    assert tally.votes == votes
    assert tally.granted == kinds.count(Kind.GRANTED)
    assert tally.free == kinds.count(Kind.FREE)
    assert tally.busy == kinds.count(Kind.BUSY)
    assert tally.behind == kinds.count(Kind.BEHIND)
    assert tally.answered == sum(kind in ANSWERS for kind in kinds)
    assert tally.faults == sum(kind not in ANSWERS for kind in kinds)
    assert tally.pending == votes.count(None)


@settings(deadline=None, max_examples=200)
@given(ballots())
def test_won_lost_and_raisable_say_what_every_future_says(
    ballot: tuple[int, list[tuple[int, Vote]], bool],
) -> None:
    """Won: a majority granted. Lost: no future has a majority. Raisable: in some future a larger
    token would bring one."""
    nodes = ballot[0]
    tally, votes = count(*ballot)
    assert tally.won == is_majority(
        sum(vote is not None and vote.kind is Kind.GRANTED for vote in votes), nodes
    )
    assert tally.lost == (
        not any(is_majority(future.count(Kind.GRANTED), nodes) for future in futures(votes))
    )
    raised = (future.count(Kind.GRANTED) + future.count(Kind.BEHIND) for future in futures(votes))
    assert tally.raisable == any(is_majority(grants, nodes) for grants in raised)


@settings(deadline=None, max_examples=200)
@given(ballots())
def test_contended_and_unavailable_tell_somebody_else_from_an_outage(
    ballot: tuple[int, list[tuple[int, Vote]], bool],
) -> None:
    """Contended: a majority answered in time. Unavailable: none did, and none can any more. Never
    both.

    Who refused for a clock, and not for somebody else, counts as an answer only beside one that
    tells of somebody else.
    """
    nodes, _, late = ballot
    tally, votes = count(*ballot)
    clocks = sum(vote is not None and vote.ahead > 0 for vote in votes)

    def answered(kinds: list[Kind]) -> bool:
        others = Kind.BUSY in kinds or kinds.count(Kind.BEHIND) > clocks
        return is_majority(
            sum(kind in ANSWERS for kind in kinds) - (0 if others else clocks), nodes
        )

    assert tally.contended == (
        answered([vote.kind for vote in votes if vote is not None]) and not late
    )
    assert tally.unavailable == (late or not any(answered(future) for future in futures(votes)))
    assert not (tally.contended and tally.unavailable)
    if tally.pending == 0:
        assert tally.contended or tally.unavailable


@settings(deadline=None)
@given(ballots())
def test_freed_in_is_the_first_moment_at_which_a_majority_has_expired(
    ballot: tuple[int, list[tuple[int, Vote]], bool],
) -> None:
    """Go through time: a node can be had that is not busy, or whose lock has expired by then."""
    nodes = ballot[0]
    tally, votes = count(*ballot)

    def to_be_had(vote: Vote | None, at: float) -> bool:
        if vote is None:
            return False
        if vote.kind is Kind.BUSY:
            return vote.ttl_left is not None and 0 <= vote.ttl_left <= at
        return vote.kind in ANSWERS

    moments = sorted(
        {0.0} | {vote.ttl_left for vote in votes if vote is not None and vote.ttl_left is not None}
    )
    expected = None
    for at in moments:
        if at >= 0 and is_majority(sum(to_be_had(vote, at) for vote in votes), nodes):
            expected = at
            break
    assert tally.freed_in() == expected


@pytest.mark.parametrize(
    ("votes", "seconds"),
    [
        ([Vote(Kind.BUSY, 7, 0.0)] * 3, 0.0),
        ([Vote(Kind.BUSY, 7, 1.0), Vote(Kind.BUSY, 7, 3.0), Vote(Kind.BUSY, 7, 2.0)], 2.0),
        ([Vote(Kind.BUSY, 7, 1.0), Vote(Kind.GRANTED)], 1.0),
        ([Vote(Kind.BUSY, 7, 1.0), Vote(Kind.BUSY, 7, -1.0)], None),
        ([Vote(Kind.BUSY, 7, 1.0), Vote(Kind.STRANGER)], None),
        ([Vote(Kind.FREE), Vote(Kind.BEHIND)], 0.0),
    ],
)
def test_freed_in_counts_the_locks_that_will_expire(
    votes: list[Vote], seconds: float | None
) -> None:
    """A lock in its last millisecond is as good as expired; one without an expiry never is."""
    tally, _ = count(3, list(enumerate(votes)), late=False)
    assert tally.freed_in() == seconds


def test_a_free_node_has_granted_nothing() -> None:
    """A look never wins a lock, nor a stranger's answer."""
    for kind in (Kind.FREE, Kind.BEHIND, Kind.BUSY, Kind.STRANGER):
        tally, _ = count(3, [(0, Vote(Kind.GRANTED)), (1, Vote(kind)), (2, Vote(kind))], late=False)
        assert not tally.won
        assert tally.lost


@settings(deadline=None)
@given(ballots())
def test_fences_are_all_that_the_nodes_told(
    ballot: tuple[int, list[tuple[int, Vote]], bool],
) -> None:
    """Losers learn every fence, also from nodes that granted."""
    tally, votes = count(*ballot)
    assert sorted(tally.fences) == sorted(
        vote.fence for vote in votes if vote is not None and vote.fence > 0
    )


@settings(deadline=None)
@given(ballots())
def test_the_public_votes_name_every_node_and_what_it_said(
    ballot: tuple[int, list[tuple[int, Vote]], bool],
) -> None:
    """One record per node in the list's order; `error` exactly where the node has a fault."""
    tally, votes = count(*ballot)
    records = tally.cast_votes()
    assert [record.node for record in records] == [f"n{node + 1}" for node in range(ballot[0])]
    for record, vote in zip(records, votes, strict=True):
        assert record.granted == (vote is not None and vote.kind is Kind.GRANTED)
        assert (record.error is not None) == (vote is not None and vote.fault is not None)
        assert record.reason
        told = vote is not None and not record.granted
        assert told == any(
            record.node in re.split("[,: ]+", clause) and clause.endswith(record.reason)
            for clause in tally.describe().split("; ")[1:]
        )


def test_the_message_names_the_lock_counts_and_gives_each_reason_once() -> None:
    """What the person on call reads, in both errors; nodes that were not waited for are no
    reason for a failure."""
    tally = Tally(
        ["redis://a:1", "redis://b:1", "redis://c:1", "redis://d:1", "redis://e:1", "redis://f:1"]
    )
    tally.cast(0, Vote(Kind.GRANTED))
    tally.cast(1, Vote(Kind.BUSY, 9, 2.5, "0123456789abcdef:9"))
    tally.cast(2, Vote(Kind.BUSY, 9, -1.0, "x"))
    tally.cast(3, Vote(Kind.FAULT, fault=Fault(FaultKind.UNREACHABLE, "refused the connection")))
    tally.cast(5, Vote(Kind.FAULT, fault=Fault(FaultKind.UNREACHABLE, "refused the connection")))
    tally.elapsed = 0.25
    told = (
        "1 of 6 nodes granted, 4 needed, after 0.25 s; redis://b:1 is held by 01234567... for 2.5 s more; "
        "redis://c:1 is held by x... without an expiry (repair_missing_ttl=True gives it one); "
        "redis://d:1, redis://f:1: refused the connection"
    )
    assert tally.describe() == told
    told += ": wait longer, or see `redlock status`"
    assert str(LockContended(tally)) == told
    error = QuorumUnavailable(tally)
    error.about("orders")
    error.about("another")
    # What does not fit on a pager is cut, and what to do is kept.
    assert str(error).startswith(f"lock 'orders': {told[:140]}") and len(str(error)) <= MESSAGE_MAX
    assert str(error).endswith(": wait longer, or see `redlock status`")
    copied = pickle.loads(pickle.dumps(LockContended(tally, "orders")))
    assert (str(copied), copied.resource) == (str(error), "orders")
    assert tally.cast_votes()[4].reason == "was not waited for"
    assert QuorumUnavailable(tally).votes[3].node == "redis://d:1"


def test_an_error_comes_whole_from_another_process() -> None:
    """A pool hands a worker's exception back as a pickle; one that cannot be read there would
    break the pool instead."""
    tally = Tally(["redis://a:1", "redis://b:1", "redis://c:1"])
    tally.cast(0, Vote(Kind.GRANTED))
    tally.cast(1, Vote(Kind.FAULT, fault=Fault(FaultKind.REFUSED, "is a slave, not a master")))
    for error in (LockContended(tally), QuorumUnavailable(tally)):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
        assert [vote.granted for vote in copy.votes] == [True, False, False]
        assert isinstance(copy.votes[1].error, NodeRefused)


def test_a_message_never_shows_a_whole_owner() -> None:
    """Who reads a log must not be able to release the lock."""
    tally = Tally(["n1"])
    tally.cast(0, Vote(Kind.BUSY, 9, 1.0, "0123456789abcdef0123456789abcdef:9"))
    assert "89abcdef" not in tally.describe()


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_fault_becomes_refused_or_unreachable(kind: FaultKind) -> None:
    """A node that may not vote is refused; every other missing vote is unreachable."""
    error = Fault(kind, "did something").error("redis://a:1")
    refused = kind in (FaultKind.REFUSED, FaultKind.QUARANTINED)
    assert type(error) is (NodeRefused if refused else NodeUnreachable)
    assert str(error) == "redis://a:1 did something"


@pytest.mark.parametrize("value", ["\x9b2J" + "z" * 20, "\u202eab", "\x1b[31m"])
def test_no_holder_moves_the_cursor_of_who_reads_of_it(value: str) -> None:
    """The value of a foreign lock is anybody's; servers replace control characters of ASCII
    alone."""
    tally = Tally(["a"])
    tally.cast(0, Vote(Kind.BUSY, 7, 5.0, value))
    assert tally.describe().isprintable()
    assert tally.cast_votes()[0].reason.startswith("is held by ?")
