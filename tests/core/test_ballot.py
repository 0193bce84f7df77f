"""Fencing tokens: what is proposed, what outbids, and what is remembered, against nodes that
apply the rules one by one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core import ballot
from redlock.core.ballot import Fences, outbid, propose
from redlock.core.commands import TOKEN_MAX
from redlock.core.quorum import Kind, Vote

NOW = 1_795_344_261_156_309
"""Microseconds since the epoch, as a token of 2026."""
LATEST = 2**53 - 2**32
WALLS = st.integers(0, LATEST)
KNOWN = st.one_of(st.just(0), st.integers(0, LATEST), st.integers(NOW - 5000, NOW + 5000))
DICE = st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=20)


class Dice:
    """A `Source` with given numbers and a given wall clock."""

    def __init__(self, dice: list[int], wall: int) -> None:
        self._dice = dice
        self._thrown = 0
        self.wall = wall

    def owner(self) -> str:
        return "A"

    def below(self, limit: int) -> int:
        self._thrown += 1
        return self._dice[self._thrown % len(self._dice)] % limit

    def wall_us(self) -> int:
        return self.wall


def answer(token: int, fence: int, clock: int) -> Vote:
    """What a free node says to TAKE, rule by rule (docs/protocol.md 3.1)."""
    too_far_ahead = token > fence + 2048 and token > clock + 60_000_000
    if too_far_ahead or fence >= token:
        return Vote(Kind.BEHIND, fence, time_us=clock)
    return Vote(Kind.GRANTED)


@settings(deadline=None)
@given(DICE, WALLS, KNOWN)
def test_a_proposal_is_exact_everywhere_and_past_the_last_fence(
    dice: list[int], wall: int, last: int
) -> None:
    """Below 2**53, so exact in Lua, JSON and BIGINT; larger than the fence, so a majority that
    knows no more takes it."""
    token = propose(Dice(dice, wall), last)
    assert last < token <= TOKEN_MAX < 2**53
    assert int(float(token)) == token


@settings(deadline=None)
@given(DICE, WALLS)
def test_a_proposal_names_the_time_to_a_millisecond(dice: list[int], wall: int) -> None:
    """Tokens of attempts more than a block of 1024 us apart are in the order of the clock."""
    assert abs(propose(Dice(dice, wall), 0) - wall) < 1024


def test_a_proposal_that_equals_the_fence_would_be_refused() -> None:
    """The raise is strict, so it goes past it; and a fence behind the clock changes nothing."""
    now = NOW >> 10 << 10
    assert propose(Dice([5], NOW), now + 5) == now + 5 + 1 + 5
    assert propose(Dice([5], NOW), now + 4) == now + 5
    assert propose(Dice([5], NOW), 0) == now + 5


def test_nobody_proposes_beyond_the_largest_token() -> None:
    """A double cannot tell 2^53 from its neighbour: past a fence there, the largest is proposed,
    and refused."""
    for fence in (TOKEN_MAX - 1, TOKEN_MAX):
        assert propose(Dice([5], NOW), fence) == TOKEN_MAX
        assert outbid(Dice([5], NOW), NOW, [Vote(Kind.BEHIND, fence, time_us=NOW)]) == TOKEN_MAX
    assert propose(Dice([0], NOW), TOKEN_MAX - 2) == TOKEN_MAX - 1


@settings(deadline=None)
@given(DICE, WALLS, KNOWN)
def test_steps_past_a_known_fence_are_small(dice: list[int], wall: int, last: int) -> None:
    """A client that loops must not run ahead of the clock until the clamp refuses it: at most 16
    past the fence."""
    token = propose(Dice(dice, wall), last)
    assert token <= max(last + 16, (wall | 1023))


@settings(deadline=None)
@given(DICE, st.lists(st.tuples(WALLS, KNOWN), min_size=2, max_size=10))
def test_a_client_never_proposes_a_token_twice(
    dice: list[int], tries: list[tuple[int, int]]
) -> None:
    """Whatever its wall clock does and whatever fences it hears of, its tokens rise."""
    source, fences = Dice(dice, 0), Fences()
    tokens = []
    for wall, heard in tries:
        source.wall = wall
        fences.saw("r", heard)
        tokens.append(propose(source, fences.last("r")))
        fences.saw("r", tokens[-1])
    assert all(earlier < later for earlier, later in pairwise(tokens))


@settings(deadline=None)
@given(DICE, WALLS, st.lists(KNOWN, min_size=1, max_size=7))
def test_a_second_round_outbids_every_node_that_knew_more(
    dice: list[int], wall: int, known: list[int]
) -> None:
    """With the fences of the first answers, all nodes that found the token too small take the
    second."""
    source = Dice(dice, wall)
    token = propose(source, 0)
    votes = [answer(token, fence, clock=max(token, fence)) for fence in known]
    behind = [fence for fence, vote in zip(known, votes, strict=True) if vote.kind is Kind.BEHIND]
    if behind:
        second = outbid(source, token, [*votes, None])
        assert token < second <= TOKEN_MAX
        assert max(behind) < second <= max(behind) + 16
        assert answer(second, max(behind), clock=second).kind is Kind.GRANTED


@settings(deadline=None)
@given(
    DICE,
    st.lists(st.integers(0, 1000), min_size=1, max_size=7),
    st.lists(st.integers(0, 20_000_000), min_size=7, max_size=7),
)
def test_a_clock_too_far_ahead_is_brought_back_to_the_nodes_time(
    dice: list[int], fences: list[int], skews: list[int]
) -> None:
    """A client an hour ahead is refused everywhere, and its second token is one that every node
    accepts."""
    source = Dice(dice, NOW + 3600 * 1_000_000)
    clocks = [NOW + skew for skew in skews[: len(fences)]]
    token = propose(source, 0)
    votes = [answer(token, fence, clock) for fence, clock in zip(fences, clocks, strict=True)]
    assert all(vote.kind is Kind.BEHIND for vote in votes)
    second = outbid(source, token, votes)
    assert [
        answer(second, fence, clock).kind for fence, clock in zip(fences, clocks, strict=True)
    ] == [Kind.GRANTED] * len(fences)


def test_one_node_whose_clock_is_ahead_does_not_decide_the_second_token() -> None:
    """A client an hour ahead is refused everywhere. By the clock of the one node that is ahead
    too, it would be again."""
    ahead = NOW + 3600 * 1_000_000
    clocks = [NOW, NOW, NOW + 1800 * 1_000_000]
    votes = [answer(ahead, 0, clock) for clock in clocks]
    second = outbid(Dice([0], ahead), ahead, votes)
    assert [answer(second, 0, clock).kind for clock in clocks] == [Kind.GRANTED] * 3


@settings(deadline=None)
@given(
    DICE,
    KNOWN,
    st.lists(
        st.one_of(st.none(), st.builds(lambda fence: Vote(Kind.BUSY, fence), KNOWN)), max_size=7
    ),
)
def test_fences_of_busy_nodes_count_too(
    dice: list[int], token: int, votes: list[Vote | None]
) -> None:
    """Losers learn the fence from whoever tells it."""
    second = outbid(Dice(dice, NOW), token, votes)
    assert all(second > vote.fence for vote in votes if vote is not None)


def test_a_smaller_fence_that_is_heard_later_changes_nothing() -> None:
    """Replies come in any order."""
    fences = Fences()
    for fence in (7, 9, 8, 0):
        fences.saw("r", fence)
    assert fences.last("r") == 9


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 20)), max_size=40))
def test_fences_remembers_the_largest(seen: list[tuple[str, int]]) -> None:
    """With room for all of them: the largest fence per resource, 0 for the others."""
    fences = Fences()
    for resource, fence in seen:
        fences.saw(resource, fence)
    for resource in "abcdefg":
        assert fences.last(resource) == max(
            (fence for other, fence in seen if other == resource), default=0
        )


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=60))
def test_fences_has_a_bound_and_forgets_the_oldest(seen: list[tuple[int, int]]) -> None:
    """A list, ordered by when a resource's largest fence was seen, cut at the front. Forgetting
    is safe: 0 proposes less."""
    bound, ballot._FENCES_MAX = ballot._FENCES_MAX, 5
    try:
        fences = Fences()
        remembered: list[tuple[int, int]] = []
        for resource, fence in seen:
            fences.saw(str(resource), fence)
            if fence > dict(remembered).get(resource, 0):
                remembered = [entry for entry in remembered if entry[0] != resource]
                remembered = [*remembered, (resource, fence)][-5:]
        assert {number: fences.last(str(number)) for number in range(13)} == {
            number: dict(remembered).get(number, 0) for number in range(13)
        }
    finally:
        ballot._FENCES_MAX = bound


def test_fences_bound_holds_for_a_million_names() -> None:
    """Resources are often one per order or user: memory must not grow with them."""
    fences = Fences()
    for number in range(10_000):
        fences.saw(f"order-{number}", NOW)
    assert len(fences._seen) == 4096
    assert fences.last("order-9999") == NOW
