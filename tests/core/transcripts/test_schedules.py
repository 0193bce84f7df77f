"""The flows under schedules that nobody wrote: whatever happens in whatever order, their rules
hold."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.commands import Canvass, Command, Free, Leave, Take
from redlock.core.lease import Holding, Status
from redlock.core.quorum import Kind, Tally
from redlock.errors import LockContended, QuorumUnavailable
from tests.core.flows import Play
from tests.core.transcripts.judged import (
    check_given_back,
    check_grant,
    check_manners,
    check_nothing_follows,
    owners,
    released,
    said,
)

WORDS = {
    Take: ["granted", "granted", "granted", "busy", "behind", "stranger"],
    Canvass: ["free", "free", "free", "busy", "stranger"],
    Free: ["freed", "others"],
    Leave: ["freed"],
}
EVENTS = ["answer"] * 10 + [
    "lost",
    "lost",
    "error",
    "tick",
    "tick",
    "twice",
    "dialling",
    "connected",
    "dead",
]
HOLDING = ["extend", "extend", "extend", "verify", "release", "limit", "nearly over", "over"]
Step = tuple[str, int, int, float]


def steps(what: list[str]) -> st.SearchStrategy[list[Step]]:
    """What happens, to which node, with which of several words, and after how long."""
    pauses = st.sampled_from([0.0, 0.0, 0.001, 0.001, 0.02, 0.3, 12.0])
    return st.lists(
        st.tuples(st.sampled_from(what), st.integers(0, 4), st.integers(0, 5), pauses),
        min_size=8,
        max_size=40,
    )


def happen(play: Play, what: str, node: int, which: int) -> None:
    """One thing that may happen, if it can."""
    node %= len(play.cluster.names)
    asked = play.asked(node)
    if what == "answer" and asked is not None:
        words = WORDS[type(asked)]
        word = words[which % len(words)]
        fence = getattr(asked, "token", 7) + which
        play.answer(
            node, word, **({"fence": str(fence)} if word in ("behind", "busy", "free") else {})
        )
    elif what == "lost" or (what == "error" and asked is not None):
        play.fail(node, what)
    elif what == "tick":
        waiting = [course.wait.until for course in play.courses if not course.done]
        if waiting:
            play.now = max(play.now, min(waiting))
            play.tick()
    elif what == "twice" and play.has_answered(node):
        play.twice(node)
    elif what in ("dialling", "connected", "dead"):
        getattr(play, what)(node)


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([1.0, 10.0]),
    st.sets(st.integers(0, 4)),
    steps(EVENTS),
    st.booleans(),
    st.booleans(),
)
def test_no_schedule_of_an_acquire_breaks_a_rule(
    nodes: int, ttl: float, unconnected: set[int], events: list[Step], cancel: bool, keeps: bool
) -> None:
    """Whatever the nodes answer, and whenever: a majority or no lease, nothing left behind, and
    good manners."""
    play = Play(nodes, ttl=ttl, keeps=keeps)
    for node in unconnected:
        play.dialling(node % nodes)
    course = play.acquire()
    for what, node, which, pause in events:
        play.now += pause
        happen(play, what, node, which)
        if course.done:
            break
        for owner in owners(play)[:-1]:
            check_given_back(play, owner)
    if not course.done and cancel:
        play.cancel()
    if isinstance(course.value, Holding):
        check_grant(play, ttl, 0.01)
    if course.done:
        for owner in owners(play):
            if play.holding is None or play.holding.owner != owner:
                check_given_back(play, owner)
        check_nothing_follows(play)
    check_manners(play, ttl)


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 5), steps(EVENTS + HOLDING * 2), st.booleans())
def test_no_schedule_of_extensions_moves_a_deadline_too_far(
    nodes: int, events: list[Step], keeps: bool
) -> None:
    """The deadline is one that a majority confirmed before the old one was over; it never moves
    back, and an end is an end."""
    play = Play(nodes, ttl=1.0, keeps=keeps)
    play.acquire()
    for node in range(nodes):
        play.answer(node, "granted")
    lease = play.holding
    assert lease is not None
    deadline, cap, ended = lease.valid_until, float("inf"), False
    confirmed: dict[Command, set[int]] = {}
    for what, node, which, pause in events:
        play.now += pause if pause < 12 else 0.0
        before = lease.valid_until
        asked = play.asked(node % nodes)
        if what == "extend":
            play.extend(ttl=0.4 + which / 5)
        elif what == "verify":
            play.verify()
        elif what == "release":
            ended = True
            play.release()
        elif what == "limit" and cap == float("inf"):
            cap = 1.0 + which / 3
            lease.limit(cap)
            deadline, before = min(deadline, cap), min(before, cap)
        elif what in ("nearly over", "over"):
            play.now = max(play.now, lease.valid_until - (0.0 if what == "over" else 0.01))
        else:
            known = len(play.heard)
            happen(play, what, node, which)
            if (
                len(play.heard) > known
                and isinstance(asked, Take)
                and said(play, list(play.heard)[-1]) is Kind.GRANTED
            ):
                votes = confirmed.setdefault(asked, set())
                votes.add(node % nodes)
                if (
                    len(votes) > nodes / 2
                    and asked.mode == "extend"
                    and not ended
                    and play.now < deadline
                ):
                    began_at = min(
                        at for request, at in play.sent.items() if request.command is asked
                    )
                    deadline = max(deadline, min(cap, began_at + asked.ttl * 0.99 - 0.002))
        assert before <= lease.valid_until <= deadline + 1e-9
        assert lease.valid_until <= cap
        assert not (lease.held(play.now) and (ended or play.now >= deadline))
        ended = ended or lease.status is not Status.HELD
    if lease.freed:
        check_given_back(play, lease.owner)
        assert all(len(places) <= 2 for places in released(play, lease.owner).values())
        assert all(
            request.not_after == float("inf")
            for request in play.sent
            if request.command.final and not request.written
        )


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["granted", "busy", "behind", "free", "error", "late"]),
        min_size=1,
        max_size=5,
    )
)
def test_an_error_says_contended_exactly_if_a_majority_answered(answers: list[str]) -> None:
    """One try, all nodes heard, no second round to be had: somebody else, or an outage."""
    nodes = len(answers)
    play = Play(nodes, ttl=1.0)
    course = play.acquire(once=True)
    for node, word in enumerate(answers):
        if course.done or word in ("granted", "behind", "free", "late"):
            continue
        play.fail(node, "error") if word == "error" else play.answer(node, "busy")
    if not course.done:
        play.now = course.wait.until
        play.tick()
    busy = answers.count("busy")
    assert isinstance(course.error, LockContended if busy > nodes / 2 else QuorumUnavailable)
    assert isinstance(course.error.tally, Tally)
