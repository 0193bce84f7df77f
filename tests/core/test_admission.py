"""Who may vote: the eight points of admission, with every identity and every instant given by hand.

The spans: a cluster's `max_ttl` of 60 s means 62.2 s of quarantine (drift, and a second).
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redlock.core.admission import Admission, Identity, Marker, Standing, State, quarantine_span
from redlock.core.commands import Mark
from redlock.core.quorum import Fault, FaultKind, majority
from tests.core.flows import identity_of

SPAN = 62.2
PATIENCE = 0.25
FLOOR = "+60000000"
NONCE = "b1a4c"
BLANK = f"redlock1 blank {NONCE}"
SILENT = Fault(FaultKind.UNREACHABLE, "refused the connection")


def client_of(nodes: int, **settings: Any) -> Admission:
    """A client with a list of *nodes*, that asked at 0."""
    names = [f"n{node + 1}" for node in range(nodes)]
    known: dict[str, Any] = {"ttl": 10.0, "max_ttl": None, "durable": None, "patience": PATIENCE, "nonce": lambda: NONCE}
    admission = Admission(names, **{**known, **settings})
    admission.asked(0.0)
    return admission


def marker_of(node: int, size: int, **changes: Any) -> Marker:
    """The marker that belongs on a node."""
    known: dict[str, Any] = {"run_id": f"run-{node + 1}", "nodes": size, "max_ttl": 60.0, "durable": False}
    return Marker(**{**known, **changes})


def met(nodes: int, *, marker: dict[str, Any] | None = None, **settings: Any) -> Admission:
    """A client that has met all its nodes at 0, each with its marker; *marker*: what all of those say besides."""
    admission = client_of(nodes, **settings)
    for node in range(nodes):
        admission.seen(node, identity_of(node, nodes, marker=marker_of(node, nodes, **(marker or {})).text()), 0.0)
    return admission


def states(admission: Admission, at: float) -> list[State]:
    return [admission.standing(node, at).state for node in range(len(admission.names))]


def refused(standing: Standing) -> str:
    """Why a node that may not vote may not."""
    assert standing.state is State.REFUSED
    assert standing.fault is not None
    assert standing.fault.kind is FaultKind.REFUSED
    return standing.fault.detail


def quarantined(standing: Standing) -> float | None:
    """Until when a node is in quarantine."""
    assert standing.state is State.QUARANTINED
    assert standing.fault is not None
    assert standing.fault.kind is FaultKind.QUARANTINED
    return standing.until


def written(mark: Mark | None) -> tuple[str, str, str]:
    """What a `Mark` expects, the marker it writes without its floor, and the floor."""
    assert mark is not None
    expected, head, floor, tail = (str(word) for word in mark.args)
    return expected, f"{head} ... {tail}", floor


def restarted(node: int, nodes: int, **changes: Any) -> Identity:
    """The node in a new run, with the marker of the old one."""
    return identity_of(node, nodes, **{"run_id": f"run-{node + 1}b", "uptime": 1.0, **changes})


def flushed(node: int, nodes: int, **changes: Any) -> Identity:
    """The node in the same run, without its marker: with the blank that somebody gave it since."""
    return identity_of(node, nodes, **{"marker": BLANK, **changes})


# 1. Fit to vote


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "slave"}, "is a slave, not a master"),
        ({"role": "unknown"}, "is a unknown, not a master"),
        ({"cluster_mode": True}, "runs in cluster mode"),
        ({"policy": "allkeys-lru"}, "may evict locks (maxmemory-policy allkeys-lru, must be noeviction)"),
        ({"policy": "volatile-ttl"}, "may evict locks (maxmemory-policy volatile-ttl, must be noeviction)"),
        ({"run_id": ""}, "gave no run id"),
    ],
)
def test_a_node_that_is_unfit_does_not_vote_and_costs_only_its_own_vote(changes: dict[str, Any], reason: str) -> None:
    """One demoted node never stops a new client; its marker does not help it."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, **changes), 0.0)
    assert refused(admission.standing(1, 1.0)) == reason
    assert states(admission, 1.0) == [State.ADMITTED, State.REFUSED, State.ADMITTED]
    assert admission.out_of_reach(1.0) is None
    assert admission.problem() is None


def test_a_node_that_loads_its_data_does_not_vote_yet() -> None:
    """It is unavailable and not unfit: nobody has to be told that the configuration is wrong."""
    admission = met(3)
    for node in range(3):
        admission.seen(node, identity_of(node, 3, loading=True), 0.0)
    standing = admission.standing(1, 1.0)
    assert standing.state is State.REFUSED
    assert standing.fault == Fault(FaultKind.ERROR, "is LOADING its data")
    assert admission.out_of_reach(1.0) is None


def test_unfit_nodes_are_a_wrong_configuration_when_they_put_a_majority_out_of_reach() -> None:
    """Each of them is named with its reason."""
    admission = met(3)
    admission.seen(0, identity_of(0, 3, role="slave"), 0.0)
    assert admission.out_of_reach(1.0) is None
    admission.seen(2, identity_of(2, 3, policy="allkeys-lfu"), 0.0)
    reason = admission.out_of_reach(1.0)
    assert reason == "n1 is a slave, not a master; n3 may evict locks (maxmemory-policy allkeys-lfu, must be noeviction)"


@pytest.mark.parametrize("marker", ["", BLANK])
def test_who_saw_a_marker_of_another_cluster_founds_none_when_it_is_gone(marker: str) -> None:
    """A wrong list of one node of three, and that node is flushed: it looks new, and the other two hold locks."""
    admission = client_of(1)
    admission.seen(0, identity_of(0, 3), 0.0)
    assert refused(admission.standing(0, 0.0)) == "belongs to a cluster of 3 nodes, and this list has 1"
    admission.seen(0, identity_of(0, 3, marker=marker), 1.0)
    reason = "has no marker, and n1 had another cluster's: it belongs to a cluster of 3 nodes, and this list has 1"
    assert refused(admission.standing(0, 100.0)) == reason
    admission.seen(0, identity_of(0, 1), 101.0)
    assert admission.standing(0, 101.0).state is State.ADMITTED


def test_what_unfit_nodes_told_long_ago_is_no_reason_to_give_up() -> None:
    """Somebody may have mended them, and who waits asks them again; refused credentials are what the last dial brought."""
    admission = met(3)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3, role="slave"), 1.0)
    assert admission.out_of_reach(2.0) is not None
    assert admission.out_of_reach(2.0, since=1.5) is None
    admission.seen(0, identity_of(0, 3, role="slave"), 2.0)
    admission.failed(2, Fault(FaultKind.REFUSED, "refused our credentials"))
    assert admission.out_of_reach(2.0, since=1.5) == "n1 is a slave, not a master; n3 refused our credentials"


def test_a_refusal_that_rests_on_what_another_node_told_long_ago_is_no_reason_to_give_up() -> None:
    """Nodes without markers are refused for the one marker that is another cluster's, which may be put back by now."""
    admission = met(5)
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 7).text()), 1.0)
    for node in range(1, 5):
        admission.seen(node, identity_of(node, 5, marker=""), 2.0)
    assert refused(admission.standing(1, 2.0)) == "has no marker, and no other node is of this cluster"
    assert admission.out_of_reach(2.0, since=1.5) is None
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 7).text()), 2.0)
    assert "no other node is of this cluster" in str(admission.out_of_reach(2.0, since=1.5))


def test_nodes_that_are_down_or_in_quarantine_are_no_wrong_configuration() -> None:
    """They may be back at any time."""
    admission = met(5)
    for node in (0, 1):
        admission.failed(node, SILENT)
    for node in (2, 3):
        admission.seen(node, restarted(node, 5), 0.0)
    admission.seen(4, identity_of(4, 5, role="slave"), 0.0)
    assert admission.out_of_reach(1.0) is None


def test_refused_credentials_count_as_out_of_reach() -> None:
    """Waiting does not help there."""
    admission = client_of(3)
    for node in (0, 2):
        admission.failed(node, Fault(FaultKind.REFUSED, "refused our credentials"))
    assert admission.out_of_reach(0.1) == "n1 refused our credentials; n3 refused our credentials"


def test_the_same_server_behind_two_names_is_found_by_its_run_id() -> None:
    """A "majority" of one machine: both entries are refused, and the whole list is wrong whatever the others say."""
    admission = met(5)
    assert admission.problem() is None
    admission.seen(3, identity_of(3, 5, run_id="run-2"), 0.0)
    problem = admission.problem()
    assert problem == "n2 is the same server as n4 (run id run-2)"
    assert refused(admission.standing(1, 1.0)) == "is the same server as n4 (run id run-2)"
    assert refused(admission.standing(3, 1.0)) == "is the same server as n2 (run id run-2)"


def test_a_twin_of_long_ago_is_no_reason_to_give_up_and_gets_nobody_a_second_vote() -> None:
    """Its address may have moved back meanwhile; until it tells who it is, it does not vote."""
    admission = met(5)
    admission.seen(3, identity_of(3, 5, run_id="run-2"), 2.0)
    assert admission.problem(2.5) is None
    assert refused(admission.standing(3, 3.0)) == "is the same server as n2 (run id run-2)"
    admission.seen(3, identity_of(3, 5, run_id="run-2"), 3.0)
    assert admission.problem(2.5) == "n4 is the same server as n2 (run id run-2)"


def test_two_nodes_that_gave_no_run_id_are_no_twins() -> None:
    """They are unfit, each for itself."""
    admission = met(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3, run_id=""), 0.0)
    assert admission.problem() is None


# 2. The marker is the cluster's


@pytest.mark.parametrize(("stated", "reason"), [(3, "of 3 nodes, and this list has 5"), (6, "of 6 nodes, and this list has 5")])
def test_a_list_of_another_length_is_refused(stated: int, reason: str) -> None:
    """Three of five nodes and all five have disjoint majorities."""
    admission = met(5, marker={"nodes": stated})
    assert states(admission, 1.0) == [State.REFUSED] * 5
    assert refused(admission.standing(0, 1.0)) == f"belongs to a cluster {reason}"
    assert reason in str(admission.out_of_reach(1.0))


def test_a_node_of_another_cluster_is_refused_and_both_ids_are_named() -> None:
    """The id that most nodes have is the list's own."""
    admission = met(5, marker={"cluster": "blue"})
    admission.seen(4, identity_of(4, 5, marker=marker_of(4, 5, cluster="green").text()), 0.0)
    assert states(admission, 1.0) == [State.ADMITTED] * 4 + [State.REFUSED]
    assert refused(admission.standing(4, 1.0)) == "belongs to cluster 'green', and the others to 'blue'"


def test_a_list_of_two_clusters_never_gets_a_majority_of_both() -> None:
    """Of 2 + 2 nodes only one half may vote, and that is no majority of 4."""
    admission = met(4, marker={"cluster": "blue"})
    for node in (2, 3):
        admission.seen(node, identity_of(node, 4, marker=marker_of(node, 4, cluster="green").text()), 0.0)
    assert states(admission, 1.0).count(State.ADMITTED) < majority(4)
    assert admission.out_of_reach(1.0) is not None


def test_max_ttl_and_durable_are_the_clusters_and_none_adopts_them() -> None:
    """What the caller does not insist on, the marker says."""
    admission = met(3, marker={"max_ttl": 300.0, "durable": True})
    assert states(admission, 1.0) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 300.0
    marker = admission.marker(0)
    assert marker is not None
    assert marker.durable


@pytest.mark.parametrize(
    ("insisted", "reason"),
    [
        ({"max_ttl": 10.0}, "belongs to a cluster with max_ttl=60, and max_ttl=10 was asked for"),
        ({"max_ttl": 61.0}, "belongs to a cluster with max_ttl=60, and max_ttl=61 was asked for"),
        ({"durable": True}, "belongs to a cluster with durable=False, and durable=True was asked for"),
    ],
)
def test_a_client_that_insists_on_something_else_is_refused(insisted: dict[str, Any], reason: str) -> None:
    """With a max_ttl per client, one would let a node vote before another's lock has ended."""
    admission = met(3, **insisted)
    assert refused(admission.standing(0, 1.0)) == reason
    assert reason in str(admission.out_of_reach(1.0))


def test_a_client_that_insists_on_the_same_is_admitted() -> None:
    """To a whole millisecond."""
    admission = met(3, marker={"max_ttl": 60.0}, max_ttl=60.0, durable=False)
    assert states(admission, 1.0) == [State.ADMITTED] * 3


@pytest.mark.parametrize(
    "text", ["x", "redlock2 run-2 3 60000 0 0 -", "redlock1 run-2 3 60000 0 0", "redlock1 run-2 3 sixty 0 0 -"]
)
def test_a_marker_that_cannot_be_read_is_refused_and_left_alone(text: str) -> None:
    """Perhaps a later version's: it is never written over."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, marker=text), 0.0)
    standing = admission.standing(1, 1000.0)
    assert refused(standing) == "has a marker of another format"
    assert standing.mark is None


@settings(deadline=None)
@given(st.integers(1, 7), st.data())
def test_max_ttl_is_the_longest_that_a_majority_accepts(nodes: int, data: st.DataObject) -> None:
    """Against trying every stated value; the caller's own while fewer than a majority are known."""
    stated = data.draw(st.lists(st.one_of(st.none(), st.sampled_from([5.0, 60.0, 300.0, 600.0])), min_size=nodes, max_size=nodes))
    admission = client_of(nodes, max_ttl=data.draw(st.sampled_from([None, 60.0])))
    for node, max_ttl in enumerate(stated):
        if max_ttl is not None:
            admission.seen(node, identity_of(node, nodes, marker=marker_of(node, nodes, max_ttl=max_ttl).text()), 0.0)
    known = [max_ttl for max_ttl in stated if max_ttl is not None]
    accepted = [ttl for ttl in known if sum(max_ttl >= ttl for max_ttl in known) > nodes / 2]
    assert admission.max_ttl() == max(accepted, default=admission._max_ttl)


@pytest.mark.parametrize(
    ("stated", "accepted"),
    [([60.0, 60.0, 300.0], 60.0), ([60.0, 300.0, 300.0], 300.0), ([60.0, 300.0], 60.0), ([300.0], None), ([], None)],
)
def test_a_ttl_that_only_a_minority_accepts_is_not_the_clusters(stated: list[float], accepted: float | None) -> None:
    """Raising `max_ttl` is under way on one of three nodes."""
    admission = client_of(3)
    for node, max_ttl in enumerate(stated):
        admission.seen(node, identity_of(node, 3, marker=marker_of(node, 3, max_ttl=max_ttl).text()), 0.0)
    assert admission.max_ttl() == accepted


# 3. Admitted at once


def test_a_node_whose_marker_names_its_run_is_admitted_at_once() -> None:
    """Whatever its uptime; the standing carries the marker that every vote must show."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, uptime=-3598.0), 0.0)
    standing = admission.standing(1, 0.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == marker_of(1, 3).text()
    assert standing.mark is None


def test_nothing_is_known_of_a_node_before_all_were_asked() -> None:
    """Which cluster id is common, only all nodes together can tell; but a silent one is not waited for for ever."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3), 0.1)
    assert states(admission, PATIENCE - 0.01) == [State.UNKNOWN] * 3
    assert states(admission, PATIENCE) == [State.ADMITTED, State.ADMITTED, State.UNKNOWN]


def test_a_node_that_failed_counts_as_asked() -> None:
    """All answered or failed: nothing is left to wait for."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3), 0.1)
    admission.failed(2, SILENT)
    assert states(admission, 0.1) == [State.ADMITTED, State.ADMITTED, State.REFUSED]
    assert admission.standing(2, 0.1).fault == SILENT


def test_a_failure_is_forgotten_when_the_node_answers() -> None:
    """The latest counts."""
    admission = met(3)
    admission.failed(1, SILENT)
    assert admission.standing(1, 1.0).state is State.REFUSED
    admission.seen(1, identity_of(1, 3), 2.0)
    assert admission.standing(1, 2.0).state is State.ADMITTED


def test_a_durable_node_gets_a_marker_for_its_new_run_at_once() -> None:
    """It has its data: by compare-and-set from the marker it has, with the floor that it had."""
    admission = met(3, marker={"durable": True, "floor": 99, "max_ttl": 30.0, "cluster": "blue"})
    old = marker_of(1, 3, durable=True, floor=99, max_ttl=30.0, cluster="blue").text()
    admission.seen(1, restarted(1, 3, marker=old), 5.0)
    standing = admission.standing(1, 5.0)
    assert standing.state is State.MARK
    assert written(standing.mark) == (old, "redlock1 run-2b 3 30000 1 ... blue", "99")


def test_a_durable_cluster_does_not_trust_a_promoted_replica() -> None:
    """What it remembers came by asynchronous replication."""
    admission = met(3, marker={"durable": True})
    admission.seen(1, restarted(1, 3, marker=marker_of(1, 3, durable=True).text(), promoted=True, uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_durable_node_without_a_marker_has_forgotten() -> None:
    """It declared that a marked node has its data; this one is empty."""
    admission = met(3, marker={"durable": True})
    admission.seen(1, flushed(1, 3), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


# 4. Quarantine

LOSSES = {
    "restarted": restarted(1, 3),
    "flushed": flushed(1, 3),
    "replaced": restarted(1, 3, marker=BLANK),
    "restored": identity_of(1, 3, marker=marker_of(1, 3, run_id="run-of-last-week").text(), uptime=1.0),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_node_that_forgot_does_not_vote_until_its_locks_have_ended(loss: str) -> None:
    """On the client's clock, from when it saw the loss; then it may be marked, with a floor under its tokens."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    identity = LOSSES[loss]
    admission.seen(1, identity, 100.0)
    assert admission.standing(1, 100.0).state is State.QUARANTINED
    for other in (0, 2):
        assert admission.outdated(other)
        admission.seen(other, identity_of(other, 3), 100.0)
    for at in (100.0, 130.0, 100.0 + SPAN - 0.001):
        assert quarantined(admission.standing(1, at)) == pytest.approx(100.0 + SPAN)
    standing = admission.standing(1, 100.0 + SPAN + 0.001)
    assert standing.state is State.MARK
    assert written(standing.mark) == (identity.marker, f"redlock1 {identity.run_id} 3 60000 0 ... -", FLOOR)
    assert states(admission, 100.0)[::2] == [State.ADMITTED] * 2


def test_the_message_says_what_happened_and_how_long_it_takes() -> None:
    """And never advises to mark the node by hand."""
    admission = met(3)
    assert admission.standing(1, 0.0).state is State.ADMITTED
    for identity, words in ((restarted(1, 3), "it restarted"), (flushed(1, 3), "its marker is gone")):
        admission.seen(1, identity, 0.0)
        admission.standing(1, 0.0)
        fault = admission.standing(1, 2.0).fault
        assert fault is not None
        assert fault.detail == f"forgot its locks ({words}) and is in quarantine: it votes again in 60.2 s"


def test_after_its_quarantine_a_node_is_admitted_by_the_marker_that_was_written() -> None:
    """By whom does not matter: the loser of the compare-and-set adopts what stands."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 0.0)
    quarantined(admission.standing(1, 0.0))
    theirs = marker_of(1, 3, run_id="run-2b", floor=1234)
    admission.seen(1, restarted(1, 3, marker=theirs.text()), 10.0)
    standing = admission.standing(1, 10.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == theirs.text()


def test_a_quarantine_is_not_begun_anew_by_looking_again() -> None:
    """Nor by a new connection to the same run with the same marker, nor by a failure in between."""
    admission = met(3)
    for at in (0.0, 10.0, 20.0):
        admission.seen(1, flushed(1, 3, uptime=1000.0 + at), at)
        assert quarantined(admission.standing(1, at)) == pytest.approx(SPAN)
        admission.failed(1, SILENT)
    admission.seen(1, flushed(1, 3), 70.0)
    assert admission.standing(1, 70.0).state is State.MARK


@pytest.mark.parametrize(
    "second",
    [
        restarted(1, 3, run_id="run-2c"),
        flushed(1, 3, run_id="run-2b"),
        flushed(1, 3, run_id="run-2b", marker=f"{BLANK}2"),
        flushed(1, 3, run_id="run-2c"),
    ],
)
def test_a_second_loss_begins_the_quarantine_anew(second: Identity) -> None:
    """Whatever it granted in between, or somebody else's marker allowed, is forgotten as well; its uptime does not help."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 0.0)
    quarantined(admission.standing(1, 0.0))
    admission.seen(1, second, 50.0)
    assert quarantined(admission.standing(1, 50.0)) == pytest.approx(50.0 + SPAN)


def test_a_loss_after_being_admitted_again_is_a_new_one() -> None:
    """The same run loses its marker twice: the first loss does not count for the second."""
    admission = met(3)
    admission.seen(1, flushed(1, 3), 0.0)
    quarantined(admission.standing(1, 0.0))
    admission.seen(1, identity_of(1, 3), 63.0)
    assert admission.standing(1, 63.0).state is State.ADMITTED
    admission.seen(1, flushed(1, 3), 64.0)
    assert quarantined(admission.standing(1, 64.0)) == pytest.approx(64.0 + SPAN)


def fresh_client_sees(identity: Identity, *, at: float = 0.0) -> Standing:
    """What a client makes of n2 that meets it for the first time, with n1 and n3 as they should be."""
    admission = client_of(3)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3), at)
    admission.seen(1, identity, at)
    return admission.standing(1, at + PATIENCE)


def test_a_client_that_never_saw_the_node_counts_from_its_start() -> None:
    """Every lock that it forgot was granted before its process began."""
    assert quarantined(fresh_client_sees(restarted(1, 3, uptime=20.0), at=100.0)) == pytest.approx(100.0 + PATIENCE - 20.0 + SPAN)
    assert fresh_client_sees(restarted(1, 3, uptime=63.0), at=100.0).state is State.MARK


@pytest.mark.parametrize(
    "identity",
    [
        flushed(1, 3, uptime=1e6),
        restarted(1, 3, marker=BLANK, uptime=1e6),
        restarted(1, 3, uptime=-3598.0),
        restarted(1, 3, uptime=0.0),
        restarted(1, 3, uptime=1e6, promoted=True),
    ],
    ids=["flushed", "replaced", "negative", "zero", "promoted"],
)
def test_uptime_shortens_nothing_where_it_tells_nothing(identity: Identity) -> None:
    """A flush leaves no trace in it, a clock that steps makes it negative, and a promoted replica's is another's."""
    assert quarantined(fresh_client_sees(identity, at=100.0)) == pytest.approx(100.0 + PATIENCE + SPAN)


def test_uptime_shortens_nothing_for_a_client_that_had_seen_the_node() -> None:
    """Its own clock knows better: the node's may have stepped."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    admission.seen(1, restarted(1, 3, uptime=7202.0), 2.0)
    assert quarantined(admission.standing(1, 2.0)) == pytest.approx(2.0 + SPAN)


@pytest.mark.parametrize(("nodes", "others"), [(2, 1), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_quarantine_ends_only_when_enough_other_markers_are_known(nodes: int, others: int) -> None:
    """min(q, n - 1) of them: the longest max_ttl among them is the one to wait for."""
    admission = client_of(nodes)
    admission.seen(0, restarted(0, nodes), 0.0)
    for node in range(1, others):
        admission.seen(node, identity_of(node, nodes), 0.0)
    for node in range(others, nodes):
        admission.failed(node, SILENT)
    for at in (0.0, 1000.0):
        standing = admission.standing(0, at)
        assert quarantined(standing) is None
        assert standing.fault is not None
        assert standing.fault.detail.endswith("until the other nodes have answered")
    admission.seen(others, identity_of(others, nodes), 1000.0)
    assert admission.standing(0, 1000.0).state is State.MARK


def test_a_quarantine_does_not_end_on_what_the_others_told_before_the_loss() -> None:
    """`max_ttl` was raised while this client saw nobody but the node, and what that forgot lives for longer."""
    admission = met(3)
    admission.seen(1, flushed(1, 3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    for at in (10.0 + SPAN + 0.1, 1000.0):
        standing = admission.standing(1, at)
        assert quarantined(standing) is None
        assert standing.fault is not None
        assert standing.fault.detail.endswith("until a majority has told that max_ttl was not raised meanwhile")
    raised = marker_of(2, 3, max_ttl=3000.0).text()
    admission.seen(2, identity_of(2, 3, marker=raised), 1000.0)
    assert quarantined(admission.standing(1, 1000.0)) == pytest.approx(10.0 + quarantine_span(3000.0))


def test_who_told_before_a_loss_is_asked_again_and_who_cannot_be_is_not() -> None:
    """Once for each loss; a node that failed is asked as any failed one is."""
    admission = met(3)
    assert not any(admission.outdated(node) for node in range(3))
    before = admission.changes
    admission.seen(1, flushed(1, 3), 10.0)
    admission.standing(1, 10.0)
    assert admission.changes > before + 1
    assert [admission.outdated(node) for node in range(3)] == [True, False, True]
    admission.failed(2, SILENT)
    admission.seen(0, identity_of(0, 3), 10.0)
    assert not any(admission.outdated(node) for node in range(3))


def test_a_foreign_node_does_not_make_a_quarantine_longer() -> None:
    """A wrong address in the list, of a cluster with locks of a day; its `max_ttl` is not ours, nor is it written."""
    admission = met(3)
    admission.seen(2, identity_of(2, 3, marker=marker_of(2, 5, max_ttl=86400.0).text()), 0.0)
    admission.seen(1, flushed(1, 3), 0.0)
    assert quarantined(admission.standing(1, 0.0)) == pytest.approx(SPAN)
    assert written(admission.standing(1, 100.0).mark)[1] == "redlock1 run-2 3 60000 0 ... -"


def test_a_majority_that_forgot_votes_again_when_all_nodes_have_told() -> None:
    """No marker can come any more that states a longer max_ttl; the ones that are left, and what was seen, must do."""
    admission = met(5)
    for node in (0, 1, 2):
        admission.seen(node, flushed(node, 5), 10.0)
    admission.seen(3, identity_of(3, 5, marker=marker_of(3, 5, max_ttl=100.0).text()), 10.0)
    assert [quarantined(admission.standing(node, 10.0)) for node in (0, 1, 2)] == [pytest.approx(10.0 + 103.0)] * 3
    admission.seen(4, identity_of(4, 5), 10.0)
    assert states(admission, 113.1) == [State.MARK] * 3 + [State.ADMITTED] * 2


def test_a_single_node_needs_no_others() -> None:
    """A plain lock's server that restarted waits for its own max_ttl."""
    admission = met(1)
    admission.seen(0, restarted(0, 1), 0.0)
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(1.0 - 1.0 + SPAN)
    assert admission.standing(0, SPAN + 0.1).state is State.MARK


@pytest.mark.parametrize("who", ["another node", "the node itself", "a node that is gone"])
def test_the_longest_max_ttl_that_any_marker_states_is_waited_for(who: str) -> None:
    """`max_ttl` may have been raised on some nodes only."""
    admission = met(3)
    old = marker_of(1, 3, max_ttl=300.0 if who == "the node itself" else 60.0).text()
    if who != "the node itself":
        admission.seen(2, identity_of(2, 3, marker=marker_of(2, 3, max_ttl=300.0).text()), 0.0)
    if who == "a node that is gone":
        admission.seen(2, identity_of(2, 3), 0.0)
    admission.seen(1, restarted(1, 3, marker=old), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + 307.0, abs=1.1)


def test_a_node_without_a_marker_gets_what_the_others_say() -> None:
    """Their number, id, promises and the longest max_ttl, but not their floor."""
    admission = met(3, marker={"cluster": "blue", "durable": True, "floor": 5, "max_ttl": 30.0})
    admission.seen(2, identity_of(2, 3, marker=marker_of(2, 3, cluster="blue", durable=True, max_ttl=45.0).text()), 0.0)
    admission.seen(1, restarted(1, 3, marker=BLANK), 0.0)
    quarantined(admission.standing(1, 0.0))
    mark = admission.standing(1, 1000.0).mark
    assert written(mark) == (BLANK, "redlock1 run-2b 3 45000 1 ... blue", FLOOR)


def test_a_node_without_a_marker_never_gets_that_of_a_foreign_node() -> None:
    """A wrong address in the list must not draw a good node into another cluster."""
    admission = met(5, marker={"cluster": "blue"})
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 3, cluster="green").text()), 0.0)
    admission.seen(4, flushed(4, 5), 0.0)
    quarantined(admission.standing(4, 0.0))
    assert written(admission.standing(4, 1000.0).mark) == (BLANK, "redlock1 run-5 5 60000 0 ... blue", FLOOR)


def test_a_wrong_list_never_marks_a_good_node() -> None:
    """Three of five nodes were listed, and one of them was flushed: it is the five's, whatever the others are to us."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3), 0.0)
    for at in (0.0, 1000.0):
        assert refused(admission.standing(1, at)) == "has no marker, and no other node is of this cluster"


def test_a_quarantined_node_is_refused_for_what_its_marker_says_first() -> None:
    """A restarted node of another cluster is no node of this one after its quarantine either."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, marker=marker_of(1, 5).text()), 0.0)
    assert "of 5 nodes" in refused(admission.standing(1, 1000.0))


# 5. Bootstrap of a new cluster


def unmarked(nodes: int, *, uptime: float = 1000.0, at: float = 0.0, **settings: Any) -> Admission:
    """A client whose nodes have all answered at *at*, none with a marker."""
    admission = client_of(nodes, **settings)
    for node in range(nodes):
        admission.seen(node, flushed(node, nodes, uptime=uptime), at)
    return admission


def founders(admission: Admission, at: float) -> list[State]:
    """How all nodes stand once those without a marker were asked whether that is still so, as the links do."""
    for node in range(len(admission.names)):
        standing = admission.standing(node, at)
        if standing.mark is not None and written(standing.mark) == (BLANK, f"redlock1 ... {NONCE}", "blank"):
            admission.marked(node, standing.mark, BLANK, at)
    return states(admission, at)


def test_a_new_cluster_is_marked_at_once_when_all_its_nodes_are_up_long_enough() -> None:
    """All asked, none marked, and none can have forgotten a lock that is still valid."""
    admission = unmarked(3)
    assert founders(admission, 0.1) == [State.MARK] * 3
    for node in range(3):
        standing = admission.standing(node, 0.1)
        assert written(standing.mark) == (BLANK, f"redlock1 run-{node + 1} 3 60000 0 ... -", "0")


def test_founding_marks_all_nodes() -> None:
    """Once the first is marked, the others look as if they had forgotten; who founds the cluster knows better."""
    admission = unmarked(3)
    assert founders(admission, 0.1) == [State.MARK] * 3
    admission.seen(0, identity_of(0, 3), 0.1)
    assert states(admission, 0.2) == [State.ADMITTED, State.MARK, State.MARK]
    admission.seen(2, identity_of(2, 3), 0.2)
    assert states(admission, 0.3) == [State.ADMITTED, State.MARK, State.ADMITTED]


def test_a_founder_does_not_mark_again_what_is_flushed_later() -> None:
    """It was the founder once: a node whose marker it saw standing, and which is gone now, forgot like any other."""
    admission = unmarked(3)
    founders(admission, 0.1)
    for node in range(3):
        admission.seen(node, identity_of(node, 3), 0.1)
    assert states(admission, 0.2) == [State.ADMITTED] * 3
    admission.seen(1, flushed(1, 3), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN)


def test_a_founder_does_not_mark_what_was_absent_meanwhile() -> None:
    """Others may have marked it, taken locks there and flushed it while we could not see it."""
    admission = unmarked(3)
    founders(admission, 0.1)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3), 0.1)
    admission.failed(1, SILENT)
    admission.seen(1, flushed(1, 3), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN)


def test_a_founder_does_not_mark_another_run() -> None:
    """The node restarted between founding and marking."""
    admission = unmarked(3)
    founders(admission, 0.1)
    admission.seen(0, identity_of(0, 3), 0.1)
    admission.seen(1, restarted(1, 3, marker=BLANK), 0.2)
    assert quarantined(admission.standing(1, 0.2)) == pytest.approx(0.2 + SPAN)


def test_a_young_cluster_waits_and_says_how_long() -> None:
    """It may be an old one that restarted as a whole. The youngest node counts; a negative uptime is that of a fresh one."""
    admission = unmarked(3, uptime=1000.0)
    admission.seen(1, flushed(1, 3, uptime=12.2), 0.0)
    standing = admission.standing(0, 10.0)
    assert quarantined(standing) == pytest.approx(50.0)
    assert standing.fault is not None
    assert standing.fault.detail == "has no marker yet, as in a new cluster: it grants locks in 40.0 s"
    assert "init" not in standing.fault.detail
    assert states(admission, 49.9) == [State.QUARANTINED] * 3
    admission.seen(2, flushed(2, 3, uptime=-3598.0), 20.0)
    assert quarantined(admission.standing(0, 50.0)) == pytest.approx(20.0 + SPAN)
    assert states(admission, 20.0 + SPAN) == [State.MARK] * 3


@pytest.mark.parametrize(
    ("settings", "longest"), [({"max_ttl": 20.0}, 20.0), ({}, 60.0), ({"ttl": 300.0}, 300.0), ({"ttl": 30.0}, 60.0)]
)
def test_a_new_cluster_waits_for_the_max_ttl_it_will_have(settings: dict[str, Any], longest: float) -> None:
    """The caller's, or a minute, or its ttl if that is longer: a whole cluster that forgot had locks of up to that."""
    admission = unmarked(3, uptime=1.0, **settings)
    until = quarantine_span(longest) - 1.0
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(until)
    founders(admission, until + 0.01)
    mark = admission.standing(0, until + 0.01).mark
    assert written(mark)[1] == f"redlock1 run-1 3 {round(longest * 1000)} 0 ... -"


def test_a_durable_new_cluster_is_marked_at_once() -> None:
    """It has its data, and there are no markers among it."""
    admission = unmarked(3, uptime=1.0, durable=True)
    assert founders(admission, 0.1) == [State.MARK] * 3
    assert written(admission.standing(0, 0.1).mark)[1] == "redlock1 run-1 3 60000 1 ... -"


def test_a_flushed_node_among_marked_ones_is_not_a_new_cluster() -> None:
    """It looks like one, with its long uptime: A holds {1,2}, 2 is flushed, and a fresh client would win {2,3}."""
    assert quarantined(fresh_client_sees(flushed(1, 3, uptime=1e6))) == pytest.approx(PATIENCE + SPAN)


def test_one_marked_node_is_enough_to_be_an_old_cluster() -> None:
    """The four unmarked ones have forgotten then, however long they are up."""
    admission = unmarked(5, uptime=1e6)
    admission.seen(3, identity_of(3, 5), 0.0)
    for at in (1000.0, 1000.0 + SPAN - 0.001):
        assert states(admission, at) == [State.QUARANTINED] * 3 + [State.ADMITTED, State.QUARANTINED]


def test_a_cluster_is_not_founded_before_all_were_asked() -> None:
    """The node that has not answered yet may be the one with a marker."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, flushed(node, 3), 0.0)
    assert states(admission, PATIENCE - 0.01)[:2] == [State.UNKNOWN] * 2
    assert states(admission, PATIENCE)[:2] == [State.MARK] * 2


@pytest.mark.parametrize("absent", [1, 2])
def test_a_cluster_is_founded_only_by_a_majority(absent: int) -> None:
    """With fewer answers the silent ones may be the marked majority; they are cases of quarantine when they come."""
    admission = client_of(3)
    for node in range(3):
        if node < 3 - absent:
            admission.seen(node, flushed(node, 3), 0.0)
        else:
            admission.failed(node, SILENT)
    if absent == 1:
        assert founders(admission, 0.1) == [State.MARK, State.MARK, State.REFUSED]
        for node in (0, 1):
            admission.seen(node, identity_of(node, 3), 0.1)
        admission.seen(2, flushed(2, 3), 0.2)
        assert quarantined(admission.standing(2, 0.2)) == pytest.approx(0.2 + SPAN)
    else:
        standing = admission.standing(0, 1000.0)
        assert quarantined(standing) is None
        assert standing.fault is not None
        assert standing.fault.detail == (
            "has no marker, and only 1 of 3 nodes answered: too few to tell a new cluster from one that forgot"
        )


@pytest.mark.parametrize("changes", [{"role": "slave"}, {"policy": "allkeys-lru"}, {"loading": True}])
def test_only_nodes_that_may_vote_count_as_the_majority_of_a_new_cluster(changes: dict[str, Any]) -> None:
    """An unfit one will never be marked, and of one that loads its data nobody knows whether it has a marker."""
    admission = unmarked(3)
    for node in (1, 2):
        admission.seen(node, flushed(node, 3, **changes), 0.0)
    assert admission.standing(0, 1000.0).state is State.QUARANTINED


@pytest.mark.parametrize(
    "other", [identity_of(2, 3, marker="nonsense"), identity_of(1, 3, marker=BLANK)], ids=["foreign", "twin"]
)
def test_nodes_that_nobody_asks_again_are_not_waited_for(other: Identity) -> None:
    """A node with somebody else's marker, or one that is listed twice, is no member of a new cluster."""
    admission = unmarked(5)
    admission.seen(4, other, 0.0)
    states_then = founders(admission, 0.1)
    assert states_then[0] is State.MARK or other.marker == "nonsense"
    assert State.UNKNOWN not in states_then


def test_a_client_that_had_seen_a_marker_founds_nothing() -> None:
    """All nodes were flushed under it: they forgot, however long they are up, and are marked as they were."""
    admission = met(3, marker={"cluster": "blue", "max_ttl": 30.0})
    assert states(admission, 1.0) == [State.ADMITTED] * 3
    for node in range(3):
        admission.seen(node, flushed(node, 3, uptime=1e6), 2.0)
    for at in (2.0, 2.0 + quarantine_span(30.0) - 0.001):
        assert states(admission, at) == [State.QUARANTINED] * 3
    mark = admission.standing(1, 1000.0).mark
    assert written(mark) == (BLANK, "redlock1 run-2 3 30000 0 ... blue", FLOOR)


def test_what_nodes_told_before_the_last_of_them_was_met_founds_nothing() -> None:
    """Somebody else founded the cluster, holds {1,2}, and 2 was flushed: its new blank meets what 1 and 3 told long ago."""
    admission = unmarked(3)
    assert founders(admission, 0.1) == [State.MARK] * 3
    mark = admission.standing(1, 0.1).mark
    assert mark is not None
    admission.marked(1, mark, f"{BLANK}2", 5.0)
    again = admission.standing(1, 5.0).mark
    assert again is not None
    assert written(again) == (f"{BLANK}2", f"redlock1 ... {NONCE}2", "blank")
    admission.marked(1, again, f"{BLANK}2", 5.0)
    assert admission.standing(1, 5.0).state is State.UNKNOWN
    asked = admission.standing(0, 5.0).mark
    assert asked is not None
    admission.marked(0, asked, marker_of(0, 3).text(), 5.1)
    assert admission.standing(0, 5.1).state is State.ADMITTED
    assert quarantined(admission.standing(1, 5.1)) == pytest.approx(5.1 + SPAN)


def test_a_question_that_went_out_before_the_last_blank_was_met_confirms_nothing() -> None:
    """Its answer may be from before that node was used."""
    admission = client_of(2)
    admission.seen(0, flushed(0, 2), 0.0)
    early = admission.standing(0, PATIENCE)
    admission.seen(1, flushed(1, 2), 1.0)
    asked = admission.standing(0, 1.0).mark
    assert asked is not None
    admission.seen(1, flushed(1, 2, marker=f"{BLANK}2"), 2.0)
    admission.marked(0, asked, BLANK, 2.1)
    again = admission.standing(0, 2.1).mark
    assert early.state is State.QUARANTINED
    assert again is not None
    assert written(again)[2] == "blank"


@pytest.mark.parametrize("others", ["marked", "new"])
def test_a_node_without_a_marker_gets_a_blank_first(others: str) -> None:
    """Nothing is equal to nothing: a marker is written only where that blank stands, and so where nothing was lost since."""
    admission = met(3) if others == "marked" else unmarked(3)
    admission.seen(1, flushed(1, 3, marker=""), 1.0)
    standing = admission.standing(1, 1.0)
    assert standing.state is State.MARK
    assert written(standing.mark) == ("", f"redlock1 ... {NONCE}", "blank")


def test_an_unfit_or_foreign_node_gets_no_blank() -> None:
    """It is not ours to write to."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3, marker=""), 0.0)
    admission.seen(2, flushed(2, 3, marker="", role="slave"), 0.0)
    assert [admission.standing(node, 1.0).mark for node in range(3)] == [None] * 3


def test_the_blank_of_a_founder_counts_the_uptime_on() -> None:
    """What was asked of a node when it was greeted grows older with our clock."""
    admission = unmarked(3, uptime=12.2, at=1.0)
    mark = Mark(expected=BLANK, head="redlock1", floor="blank", tail=NONCE, as_of=admission.changes)
    for node in range(3):
        admission.marked(node, mark, BLANK, 31.0)
    assert quarantined(admission.standing(0, 31.0)) == pytest.approx(51.0)


# 6 and 8. Markers and reconnects


def test_every_marker_is_written_over_what_was_read() -> None:
    """A restart expects the old marker, a flush and a new cluster that very blank: the script compares."""
    admission = met(3)
    for identity in LOSSES.values():
        admission.seen(1, identity, 0.0)
        admission.standing(1, 0.0)
        assert written(admission.standing(1, 1000.0).mark)[0] == identity.marker
    admission = unmarked(3)
    founders(admission, 0.1)
    assert written(admission.standing(0, 0.1).mark)[0] == BLANK


def test_a_lost_race_for_a_new_marker_adopts_the_winners() -> None:
    """Two founders with different ideas: the loser lives by what stands, or is refused."""
    admission = unmarked(3)
    founders(admission, 0.1)
    for node in range(3):
        admission.seen(node, identity_of(node, 3, marker=marker_of(node, 3, max_ttl=300.0).text()), 0.2)
    assert states(admission, 0.3) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 300.0


def test_a_promotion_is_a_new_memory_though_the_process_is_the_same() -> None:
    """A master was demoted, got its own old marker back with the copy of its replica, and is promoted: that copy lacks what
    was not replicated. Once it is marked as what it is now, it votes like any other, until the next promotion.
    """
    fields = {"run_id": "run-2", "role": "master", "maxmemory_policy": "noeviction", "uptime_in_seconds": "5000"}
    admission = met(3)
    assert admission.standing(1, 0.0).state is State.ADMITTED
    for at, promoted_at in ((10.0, "1234"), (200.0, "5678")):
        stands = marker_of(1, 3, run_id="run-2" if at == 10.0 else "run-2:1234").text()
        admission.seen(1, Identity.parse({**fields, "second_repl_offset": promoted_at}, stands), at)
        assert quarantined(admission.standing(1, at)) == pytest.approx(at + SPAN)
        for other in (0, 2):
            admission.seen(other, identity_of(other, 3), at)
        mark = admission.standing(1, at + SPAN + 0.1).mark
        assert written(mark) == (stands, f"redlock1 run-2:{promoted_at} 3 60000 0 ... -", FLOOR)
        assert mark is not None
        admission.marked(1, mark, marker_of(1, 3, run_id=f"run-2:{promoted_at}").text(), at + SPAN + 0.1)
        assert admission.standing(1, at + SPAN + 0.1).state is State.ADMITTED


def test_a_reconnect_to_the_same_run_and_marker_is_admitted_at_once() -> None:
    """Whatever happened to the connection."""
    admission = met(3)
    states(admission, 1.0)
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3), 50.0)
    assert admission.standing(1, 50.0).state is State.ADMITTED


def test_changes_grows_with_everything_that_is_told() -> None:
    """Who waits for another node's answer compares it."""
    admission = client_of(3)
    told = [admission.changes]
    admission.seen(0, identity_of(0, 3), 0.0)
    told.append(admission.changes)
    admission.failed(1, SILENT)
    told.append(admission.changes)
    assert told == sorted(set(told))


# A node with a history


class Server:
    """A real node's memory: its run, its marker, its clock, and when it last forgot locks: it has some while it is marked."""

    def __init__(self) -> None:
        self.run, self.started, self.forgot = 1, 0.0, float("-inf")
        self.marker = marker_of(1, 3, run_id="1").text()

    def identity(self, at: float) -> Identity:
        return identity_of(1, 3, run_id=str(self.run), marker=self.marker, uptime=at - self.started)

    def restart(self, at: float) -> None:
        self.forget(at)
        self.run, self.started = self.run + 1, at

    def flush(self, at: float) -> None:
        self.forget(at)
        self.marker = ""

    def forget(self, at: float) -> None:
        marker = Marker.parse(self.marker)
        if marker is not None and marker.run_id == str(self.run):
            self.forgot = at

    def write(self, mark: Mark) -> None:
        expected, head, floor, tail = (str(word) for word in mark.args)
        if self.marker == expected:
            self.marker = f"{head} {floor.replace('+', '9')} {tail}"


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "restart", "flush", "lose sight", "new client"]),
        st.integers(0, 1),
        st.sampled_from([0.01, 1.0, 30.0, 62.3]) | st.floats(0.01, 65.0),
    ),
    max_size=25,
)


TWICE = [("flush", 0, 1.0), ("look", 0, 0.01), ("look", 1, 1.0), ("look", 0, 62.3), ("flush", 0, 0.01), ("look", 1, 0.01)]
"""One client's quarantine ends and the node votes; it is flushed again before the other client's quarantine ends."""


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
@example(TWICE)
def test_no_history_lets_a_node_vote_while_a_lock_it_forgot_can_be_valid(history: list[tuple[str, int, float]]) -> None:
    """Whatever happens to the node, and whichever client looks when: votes come a max_ttl after the last loss, or later."""

    def meet() -> Admission:
        admission = client_of(3, nonce=lambda: f"{next(nonces)}")
        for node in (0, 2):
            admission.seen(node, identity_of(node, 3), 0.0)
        return admission

    nonces = itertools.count()
    clients, server, at = [meet(), meet()], Server(), 1.0
    server.started = -1000.0
    for event, who, pause in history:
        at += pause
        admission = clients[who]
        if event == "restart":
            server.restart(at)
        elif event == "flush":
            server.flush(at)
        elif event == "lose sight":
            admission.failed(1, SILENT)
        elif event == "new client":
            clients[who] = meet()
        else:
            admission.seen(1, server.identity(at), at)
            standing = admission.standing(1, at)
            while standing.mark is not None:
                server.write(standing.mark)
                admission.marked(1, standing.mark, server.marker, at)
                standing = admission.standing(1, at)
            if standing.state is State.ADMITTED:
                assert at >= server.forgot + 60.0
                marker = Marker.parse(server.marker)
                assert marker is not None
                assert marker.floor > 0 or server.forgot == float("-inf")


# What is read


@settings(deadline=None)
@given(
    st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    st.integers(1, 99),
    st.integers(1, 10**9),
    st.booleans(),
    st.integers(0, 2**53),
    st.from_regex(r"[a-z-]{1,10}", fullmatch=True),
)
def test_a_marker_is_read_as_it_was_written(
    run: str, nodes: int, max_ttl_ms: int, durable: bool, floor: int, cluster: str
) -> None:
    """Text and back, to the millisecond."""
    marker = Marker(run, nodes, max_ttl_ms / 1000, durable, floor, cluster)
    assert Marker.parse(marker.text()) == marker


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_reading_a_marker_fail(text: str) -> None:
    """A key that somebody else wrote is no marker of ours, and no crash."""
    for words in (text, f"redlock1 {text}", f"redlock1 run 3 60000 0 {text} -"):
        marker = Marker.parse(words)
        assert marker is None or isinstance(marker, Marker)


def test_an_identity_is_read_from_info() -> None:
    """The fields of Redis and of Valkey; an uptime that is no number is that of a fresh node."""
    info = {
        "run_id": "abc",
        "role": "master",
        "cluster_enabled": "0",
        "loading": "0",
        "maxmemory_policy": "noeviction",
        "uptime_in_seconds": "-3598",
        "redis_version": "7.2.4",
        "valkey_version": "9.1.2",
        "second_repl_offset": "-1",
    }
    identity = Identity.parse(info, "m", 12.5)
    assert identity == Identity("abc", "master", False, False, "noeviction", -3598.0, "9.1.2", "m", 12.5, False)
    assert identity.unfit is None
    assert Identity.parse({**info, "uptime_in_seconds": "?"}, "").uptime == 0.0
    assert Identity.parse({**info, "second_repl_offset": "1234"}, "").promoted
    assert Identity.parse({**info, "cluster_enabled": "1"}, "").unfit is not None
    assert Identity.parse({**info, "loading": "1"}, "").loading


@pytest.mark.parametrize("missing", ["run_id", "role", "maxmemory_policy"])
def test_an_identity_that_does_not_tell_is_unfit(missing: str) -> None:
    """What a node hides, perhaps behind a proxy, is not assumed in its favour."""
    info = {"run_id": "abc", "role": "master", "maxmemory_policy": "noeviction"}
    assert Identity.parse(info, "").unfit is None
    del info[missing]
    assert Identity.parse(info, "").unfit is not None
