"""Who may vote: the rules of admission, with every identity and every instant given by hand.

The spans: a cluster's `max_ttl` of 60 s means 62.2 s of quarantine (drift, and a second).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import Mark
from redlock.core.identity import Blank, Identity, Marker, Memory, is_blank
from redlock.core.quarantine import quarantine_span
from redlock.core.quorum import Fault, FaultKind, majority
from tests.core.flows import identity_of

SPAN = 62.2
PATIENCE = 0.25
WALL = 1_000_000.0
"""What every node's clock says at 0; they go on with ours."""
NONCE = "b1a4c"
SILENT = Fault(FaultKind.UNREACHABLE, "refused the connection")


def client_of(nodes: int, **settings: Any) -> Admission:
    """A client with a list of *nodes*, that asked at 0."""
    names = [f"n{node + 1}" for node in range(nodes)]
    known: dict[str, Any] = {"ttl": 10.0, "max_ttl": None, "durable": None, "patience": PATIENCE, "nonce": lambda: NONCE}
    admission = Admission(names, **{**known, **settings})
    admission.asked(0.0)
    return admission


def memory_of(node: int, life: str = "") -> Memory:
    """The memory of a node; *life*: another one than its first."""
    return Memory(f"run-{node + 1}{life}", f"repl-{node + 1}{life}")


def renamed(node: int) -> Memory:
    """The same run under another replication id."""
    return Memory(f"run-{node + 1}", f"repl-{node + 1}x")


def marker_of(node: int, size: int, **changes: Any) -> Marker:
    """The marker that belongs on a node."""
    known: dict[str, Any] = {"memory": memory_of(node), "nodes": size, "max_ttl": 60.0, "since_us": 1}
    return Marker(**{**known, **changes})


def blank_of(memory: Memory, *, put_at: float = 0.0, nonce: str = NONCE) -> str:
    """The blank that somebody gave to a node at *put_at*."""
    return f"redlock2 blank {us(put_at)} {us(put_at)} {memory.replication_id} {nonce}"


def us(at: float) -> int:
    """What a node's clock says at *at*."""
    return round((WALL + at) * 1e6)


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


def written(mark: Mark | None) -> tuple[str, Marker]:
    """What a `Mark` expects, and the marker that it writes."""
    assert mark is not None
    assert not mark.is_blank
    marker = Marker.parse(finished(mark, 0.0))
    assert marker is not None
    return mark.expected, marker


def finished(mark: Mark, at: float) -> str:
    """What stands on a node that executes *mark* at *at*."""
    _, _, head, stamp, tail = map(str, mark.args)
    if mark.is_blank:
        stamp = f"{max(int(stamp[1:]), us(at))} {us(at)}"
    return f"{head} {us(at) if stamp == 'now' else stamp} {tail}"


def obey(admission: Admission, node: int, at: float) -> Standing:
    """Carry out what is to be written on a node, as its link does, and give how it stands then."""
    for _ in range(3):
        standing = admission.standing(node, at)
        if standing.mark is None:
            return standing
        admission.marked(node, standing.mark, finished(standing.mark, at), at)
    raise AssertionError("it wants to write again and again")


def tell_again(admission: Admission, at: float) -> None:
    """Every node that is to be asked again tells the same as before."""
    for node in range(len(admission.names)):
        known = admission.identity(node)
        if known is not None and admission.outdated(node):
            admission.seen(node, replace(known, clock=WALL + at), at)


def restarted(node: int, nodes: int, **changes: Any) -> Identity:
    """The node in a new run, with the marker of the old one."""
    return identity_of(node, nodes, **{"memory": memory_of(node, "b"), "uptime": 1.0, **changes})


def flushed(node: int, nodes: int, **changes: Any) -> Identity:
    """The node in the same run, without its marker: with the blank that somebody gave it since."""
    memory = changes.get("memory", memory_of(node))
    return identity_of(node, nodes, **{"marker": blank_of(memory), **changes})


# 1. Fit to vote


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "slave"}, "is a slave, not a master"),
        ({"role": "unknown"}, "is a unknown, not a master"),
        ({"cluster_mode": True}, "runs in cluster mode"),
        ({"policy": "allkeys-lru"}, "may evict locks (maxmemory-policy allkeys-lru, must be noeviction)"),
        ({"policy": "volatile-ttl"}, "may evict locks (maxmemory-policy volatile-ttl, must be noeviction)"),
        ({"memory": Memory("", "repl-2")}, "gave no run id"),
        ({"memory": Memory("run-2", "")}, "gave no replication id"),
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


@pytest.mark.parametrize("marker", ["", blank_of(memory_of(0))])
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
    admission = met_but(3)
    assert admission.problem() is None
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 0.0)
    problem = admission.problem()
    assert problem == "n2 is the same server as n4 (run id run-2)"
    assert refused(admission.standing(1, 1.0)) == "is the same server as n4 (run id run-2)"
    assert refused(admission.standing(3, 1.0)) == "is the same server as n2 (run id run-2)"


def test_a_twin_of_long_ago_is_no_reason_to_give_up_and_gets_nobody_a_second_vote() -> None:
    """Its address may have moved back meanwhile; until it tells who it is, it does not vote."""
    admission = met_but(3)
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 2.0)
    assert admission.problem(2.5) is None
    assert refused(admission.standing(3, 3.0)) == "is the same server as n2 (run id run-2)"
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 3.0)
    assert admission.problem(2.5) is None, "that address may lead there for good, and the other one elsewhere by now"
    admission.seen(1, identity_of(1, 5), 3.5)
    assert admission.problem(2.5) == "n2 is the same server as n4 (run id run-2)"


def met_but(last: int) -> Admission:
    """A client that has met all of five nodes but one."""
    admission = client_of(5)
    for node in range(5):
        if node != last:
            admission.seen(node, identity_of(node, 5), 0.0)
    return admission


def test_a_name_that_leads_to_another_nodes_server_for_a_while_does_not_make_the_list_wrong() -> None:
    """The two were met apart, so what the name stands for cannot be reached just now. Neither votes, as both may be one."""
    admission = met(3)
    admission.seen(2, identity_of(2, 3, memory=memory_of(1)), 2.0)
    admission.seen(1, identity_of(1, 3), 2.1)
    assert (admission.problem(), admission.out_of_reach(2.2)) == (None, None)
    standings = [admission.standing(node, 2.2) for node in (1, 2)]
    assert [(standing.state, standing.redial) for standing in standings] == [(State.REFUSED, True)] * 2
    assert [standing.fault for standing in standings] == [
        Fault(FaultKind.UNREACHABLE, f"is the same server as {name} (run id run-2)") for name in ("n3", "n2")
    ]
    admission.seen(2, identity_of(2, 3), 3.0)
    assert states(admission, 3.0) == [State.ADMITTED] * 3


def test_two_nodes_that_gave_no_run_id_are_no_twins() -> None:
    """They are unfit, each for itself."""
    admission = met(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3, memory=Memory("", "")), 0.0)
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
    "text",
    [
        "x",
        "redlock3 repl-2 60000 0 1 run-2 60000 3 0 - -",
        "redlock2 repl-2 60000 0 1 run-2 60000 3 0 - - more",
        "redlock2 repl-2 sixty 0 1 run-2 60000 3 0 - -",
        "redlock2 repl-2 60000 0 1 run-2 60000 3 0 x -",
        "redlock1 run-2 3 60000 0 0",
        "redlock1 run-2 3 sixty 0 0 -",
    ],
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
    own = data.draw(st.sampled_from([None, 60.0]))
    admission = client_of(nodes, max_ttl=own)
    for node, max_ttl in enumerate(stated):
        if max_ttl is not None:
            admission.seen(node, identity_of(node, nodes, marker=marker_of(node, nodes, max_ttl=max_ttl).text()), 0.0)
    known = [max_ttl for max_ttl in stated if max_ttl is not None]
    accepted = [ttl for ttl in known if sum(max_ttl >= ttl for max_ttl in known) > nodes / 2]
    assert admission.max_ttl() == max(accepted, default=own)


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


def test_a_node_whose_marker_names_its_memory_is_admitted_at_once() -> None:
    """Whatever its uptime; the standing carries the marker that every vote must show, and the memory that it is of."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, uptime=-3598.0), 0.0)
    standing = admission.standing(1, 0.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == marker_of(1, 3).text()
    assert standing.memory == memory_of(1)
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


@pytest.mark.parametrize(("nodes", "needed"), [(1, 1), (3, 2), (5, 3)])
def test_nobody_votes_before_a_majority_has_shown_a_marker(nodes: int, needed: int) -> None:
    """While a cluster is founded: should its first node forget then, all would look new again, and be founded anew."""
    admission = client_of(nodes)
    for node in range(needed):
        for other in range(node, nodes):
            admission.failed(other, SILENT)
        if node:
            standing = admission.standing(0, 1.0)
            assert standing.state is State.UNKNOWN
            assert standing.fault is not None
            assert standing.fault.detail == "is not asked before a majority of the nodes has shown a marker"
        admission.seen(node, identity_of(node, nodes), 1.0)
    assert admission.standing(0, 1.0).state is State.ADMITTED
    for node in range(1, nodes):
        admission.failed(node, SILENT)
    assert admission.standing(0, 1.0).state is State.ADMITTED, "once shown is enough"


def test_asking_how_a_node_stands_changes_nothing() -> None:
    """However often, and at whatever instant: only what is told does."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 10.0)
    before = admission.changes
    first = [str(admission.standing(node, 20.0)) for node in range(3)]
    for at in (0.0, 1e6, 20.0):
        states(admission, at)
    assert [str(admission.standing(node, 20.0)) for node in range(3)] == first
    assert admission.changes == before


# What is promised is no loss (rule 2)


def test_a_durable_node_gets_a_marker_for_its_new_run_at_once() -> None:
    """It has its data: by compare-and-set from the marker it has, with the floor that it had."""
    said = {"durable": True, "floor": 99, "max_ttl": 30.0, "cluster": "blue"}
    admission = met(3, marker=said)
    old = marker_of(1, 3, **said)
    admission.seen(1, restarted(1, 3, marker=old.text()), 5.0)
    assert written(admission.standing(1, 5.0).mark) == (old.text(), replace(old, memory=memory_of(1, "b")))
    assert obey(admission, 1, 5.0).state is State.ADMITTED


@pytest.mark.parametrize("promised_at", ["1234"])
def test_a_durable_cluster_does_not_trust_a_promoted_replica(promised_at: str) -> None:
    """What it remembers came by asynchronous replication."""
    admission = met(3, marker={"durable": True})
    old = marker_of(1, 3, durable=True).text()
    admission.seen(1, restarted(1, 3, marker=old, promoted_at=promised_at, uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_durable_node_with_the_marker_of_another_one_has_a_copy_and_not_its_data() -> None:
    """It was made a replica, promoted and restarted; the server forgot that, and the copy names the node it came from."""
    admission = met(3, marker={"durable": True})
    copy = marker_of(0, 3, durable=True).text()
    admission.seen(1, restarted(1, 3, marker=copy, uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3, marker=marker_of(node, 3, durable=True).text()), 0.0)
    fresh.seen(1, restarted(1, 3, marker=copy, uptime=5000.0), 0.0)
    assert quarantined(obey(fresh, 1, 1.0)) is not None


def test_a_copy_of_a_durable_node_is_known_while_that_node_is_down() -> None:
    """A standby of a node that died is put behind another one's name: what the dead node told before still tells the copy."""
    admission = met(3, marker={"durable": True})
    admission.failed(0, SILENT)
    admission.seen(1, restarted(1, 3, marker=marker_of(0, 3, durable=True).text(), uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_durable_node_without_a_marker_has_forgotten() -> None:
    """It declared that a marked node has its data; this one is empty."""
    admission = met(3, marker={"durable": True})
    admission.seen(1, flushed(1, 3), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_new_replication_id_costs_nothing_where_no_node_is_ever_a_replica() -> None:
    """A backup came: same run, same data, and the marker is brought up to date by compare-and-set; on all nodes at once."""
    admission = met(3, marker={"never_replicas": True, "floor": 7})
    for node in range(3):
        old = marker_of(node, 3, never_replicas=True, floor=7)
        admission.seen(node, identity_of(node, 3, memory=renamed(node), marker=old.text()), 5.0)
        assert written(admission.standing(node, 5.0).mark) == (old.text(), replace(old, memory=renamed(node)))
    for node in range(3):
        assert obey(admission, node, 5.0).state is State.ADMITTED


@pytest.mark.parametrize(
    "changes",
    [{"promoted_at": "1234"}, {"memory": memory_of(1, "b")}, {"evicted": 1}],
    ids=["promoted", "restarted", "evicted"],
)
def test_never_replicas_promises_nothing_else(changes: dict[str, Any]) -> None:
    """A node that was promoted all the same, that restarted or that evicted keys has forgotten."""
    admission = met(3, marker={"never_replicas": True})
    old = marker_of(1, 3, never_replicas=True).text()
    admission.seen(1, identity_of(1, 3, **{"memory": renamed(1), "marker": old, **changes}), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_counter_that_was_reset_is_written_down() -> None:
    """CONFIG RESETSTAT: else as many keys again could be evicted, and nobody would see it."""
    admission = met(3, marker={"evicted": 5})
    stands = marker_of(1, 3, evicted=5)
    admission.seen(1, identity_of(1, 3, marker=stands.text()), 5.0)
    assert written(admission.standing(1, 5.0).mark)[1] == replace(stands, evicted=0)
    assert obey(admission, 1, 5.0).state is State.ADMITTED


@pytest.mark.parametrize(("run_id", "promoted_at"), [("run-2", "-1"), ("run-2:77", "77")])
def test_a_marker_of_the_former_format_is_brought_up_to_date_at_once(run_id: str, promoted_at: str) -> None:
    """What it promised goes on; it named the run, and the promotion in it."""
    admission = met(3)
    old = f"redlock1 {run_id} 3 60000 0 123 -"
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3), 0.0)
    fresh.seen(1, identity_of(1, 3, marker=old, promoted_at=promoted_at), 0.0)
    assert written(fresh.standing(1, 0.0).mark) == (old, marker_of(1, 3, floor=123, since_us=us(0.0)))
    assert obey(fresh, 1, 0.0).state is State.ADMITTED
    admission.seen(1, identity_of(1, 3, marker=old, promoted_at=promoted_at), 1.0)
    assert quarantined(admission.standing(1, 1.0)) is not None, "who knew today's format does not go back"


@pytest.mark.parametrize("run_id", ["run-2", "run-2:78", "run-1"])
def test_a_marker_of_the_former_format_that_names_another_run_is_a_loss(run_id: str) -> None:
    """As it was then."""
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3), 0.0)
    old = f"redlock1 {run_id} 3 60000 0 123 -"
    fresh.seen(1, identity_of(1, 3, marker=old, promoted_at="77"), 0.0)
    assert quarantined(obey(fresh, 1, 0.0)) is not None


# Losses and their quarantine (rule 3)

LOSSES = {
    "restarted": (restarted(1, 3), "it restarted"),
    "promoted": (identity_of(1, 3, memory=renamed(1), promoted_at="77"), "it was a replica, and was promoted"),
    "renamed": (
        identity_of(1, 3, memory=renamed(1)),
        "its replication id changed: it was promoted, or a replica or a backup came or left",
    ),
    "copied": (identity_of(1, 3, memory=renamed(1), marker=marker_of(0, 3).text()), "it restarted"),
    "flushed": (flushed(1, 3), "its marker is gone"),
    "replaced": (flushed(1, 3, memory=memory_of(1, "b")), "its marker is gone"),
    "renamed, and another client put a blank": (
        flushed(1, 3, memory=renamed(1), marker=blank_of(renamed(1))),
        "its replication id changed: it was promoted, or a replica or a backup came or left",
    ),
    "promoted, and another client put a blank": (
        flushed(1, 3, memory=renamed(1), marker=blank_of(renamed(1)), promoted_at="77"),
        "it was a replica, and was promoted",
    ),
    "restored": (restarted(1, 3, marker=marker_of(1, 3, memory=memory_of(1, "a")).text()), "it restarted"),
    "evicted": (identity_of(1, 3, evicted=1), "it evicted keys"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_node_that_forgot_does_not_vote_until_its_locks_have_ended(loss: str) -> None:
    """On the client's clock, from when it saw the loss; then it is marked as the memory that it is, with a floor."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    identity, how = LOSSES[loss]
    admission.seen(1, identity, 100.0)
    standing = admission.standing(1, 100.0)
    assert standing.state is State.QUARANTINED
    assert standing.fault is not None
    assert standing.fault.detail == f"forgot its locks ({how}) and is in quarantine: it votes again in 62.2 s"
    tell_again(admission, 100.0)
    for at in (100.0, 130.0, 100.0 + SPAN - 0.001):
        assert quarantined(obey(admission, 1, at)) == pytest.approx(100.0 + SPAN)
    at = 100.0 + SPAN + 0.001
    told = admission.identity(1)
    assert told is not None
    expected, marker = written(admission.standing(1, at).mark)
    assert expected == told.marker
    assert marker == marker_of(1, 3, memory=identity.memory, evicted=identity.evicted, floor=us(at + 60.0), since_us=us(0.0)), (
        "the floor is by the others' clocks"
    )
    assert obey(admission, 1, at).state is State.ADMITTED
    assert states(admission, 100.0)[::2] == [State.ADMITTED] * 2


@pytest.mark.parametrize("loss", ["restarted", "promoted", "renamed", "copied", "restored", "evicted"])
def test_a_loss_is_made_known_by_a_blank_where_a_marker_still_stands(loss: str) -> None:
    """Others may not have found it yet; its promises stand on the other nodes, which were asked since."""
    admission = met(3)
    identity, _ = LOSSES[loss]
    admission.seen(1, identity, 100.0)
    assert admission.standing(1, 100.0).mark is None, "before the others have told"
    tell_again(admission, 100.0)
    mark = admission.standing(1, 100.0).mark
    assert mark is not None
    assert mark.is_blank
    assert (mark.expected, mark.args[1]) == (identity.marker, identity.memory.replication_id)
    assert int(str(mark.args[3])) == us(100.0), "by the latest clock of the others"


def test_a_blank_over_the_only_marker_there_is_would_lose_its_promises() -> None:
    """One node alone, or one whose others have all forgotten: there the marker stays while it is waited on."""
    for nodes in (1, 3):
        admission = client_of(nodes)
        admission.seen(0, restarted(0, nodes, marker=marker_of(0, nodes, max_ttl=600.0).text()), 0.0)
        for node in range(1, nodes):
            admission.seen(node, flushed(node, nodes, marker=blank_of(memory_of(node))), 0.0)
        # One node alone, or a majority forgot: then a client that never knew it may count from its restart.
        assert quarantined(admission.standing(0, 0.0)) == pytest.approx(-1.0 + quarantine_span(600.0))


def test_after_its_quarantine_a_node_is_admitted_by_the_marker_that_was_written() -> None:
    """By whom does not matter: the loser of the compare-and-set adopts what was written since it saw the loss."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, clock=WALL + 1.0), 1.0)
    quarantined(admission.standing(1, 1.0))
    theirs = marker_of(1, 3, memory=memory_of(1, "b"), floor=1234, since_us=us(9.0))
    admission.seen(1, restarted(1, 3, marker=theirs.text(), clock=WALL + 10.0), 10.0)
    standing = admission.standing(1, 10.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == theirs.text()


def test_a_marker_from_before_the_loss_does_not_end_it() -> None:
    """Another database was swapped in, and is swapped out again: nobody knows what was forgotten with it."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL + 5.0), 5.0)
    admission.seen(1, identity_of(1, 3, clock=WALL + 10.0), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    tell_again(admission, 10.0)
    standing = obey(admission, 1, 10.0)
    assert quarantined(standing) is not None
    assert admission.identity(1) == identity_of(1, 3, clock=WALL + 10.0), "only we know, and may be wrong: nobody else waits"
    expected, marker = written(admission.standing(1, 10.0 + SPAN + 0.1).mark)
    assert expected == marker_of(1, 3).text()
    assert marker.floor == us(10.0 + SPAN + 60.1)


def test_a_marker_in_another_memory_does_not_end_a_loss() -> None:
    """Since when it stands, the clock of another server says: it may be an older one, and its clock ahead of the lost one's."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL), 0.0)
    other = marker_of(1, 3, memory=memory_of(1, "b"), since_us=us(30.0), floor=5)
    admission.seen(1, identity_of(1, 3, memory=other.memory, marker=other.text(), clock=WALL + 50.0), 50.0)
    assert quarantined(admission.standing(1, 50.0)) == pytest.approx(50.0 + SPAN)


def test_a_quarantine_is_not_begun_anew_by_looking_again() -> None:
    """Nor by a new connection to the same memory with the same marker, nor by a failure in between."""
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
        restarted(1, 3, memory=memory_of(1, "c")),
        restarted(1, 3, memory=Memory("run-2b", "repl-2x")),
        flushed(1, 3, memory=memory_of(1, "b")),
        flushed(1, 3, memory=memory_of(1, "b"), marker=blank_of(memory_of(1, "b"), nonce="other")),
        flushed(1, 3, memory=memory_of(1, "c")),
        restarted(1, 3, evicted=1),
    ],
)
def test_a_second_loss_begins_the_quarantine_anew(second: Identity) -> None:
    """Whatever it granted in between, or somebody else's marker allowed, is forgotten as well; its uptime does not help."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 1.0)
    quarantined(admission.standing(1, 1.0))
    admission.seen(1, second, 50.0)
    assert quarantined(admission.standing(1, 50.0)) == pytest.approx(50.0 + SPAN)


def test_a_loss_after_being_admitted_again_is_a_new_one() -> None:
    """The same run loses its marker twice: the first loss does not count for the second."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL), 0.0)
    again = marker_of(1, 3, since_us=us(62.9), floor=5)
    admission.seen(1, identity_of(1, 3, marker=again.text(), clock=WALL + 63.0), 63.0)
    assert admission.standing(1, 63.0).state is State.ADMITTED
    admission.seen(1, flushed(1, 3, clock=WALL + 64.0), 64.0)
    assert quarantined(admission.standing(1, 64.0)) == pytest.approx(64.0 + SPAN)


def fresh_client_sees(identity: Identity, *, at: float = 0.0, clock: float | None = None) -> Standing:
    """What a client makes of n2 that meets it for the first time, with n1 and n3 as they should be."""
    admission = client_of(3)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3, clock=WALL + at if clock is None else clock), at)
    admission.seen(1, identity, at)
    return obey(admission, 1, at)


def test_after_the_restart_of_a_majority_a_new_client_counts_from_it() -> None:
    """No blank is put over the last markers that keep the promises, so clients that live for a second go by the uptime."""
    admission = client_of(3)
    admission.seen(0, restarted(0, 3, uptime=30.0, clock=WALL + 100.0), 100.0)
    admission.seen(1, restarted(1, 3, uptime=20.0, clock=WALL + 100.0), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN), "before all have told"
    admission.seen(2, restarted(2, 3, uptime=10.0, clock=WALL + 100.0), 100.0)
    for node, uptime in enumerate((30.0, 20.0, 10.0)):
        assert quarantined(admission.standing(node, 100.0)) == pytest.approx(100.0 - uptime + SPAN)


def test_a_durable_node_is_given_an_older_copy_in_a_run_that_was_marked() -> None:
    """The run was known by its own marker: no restart brought the text of the run before back, so the data are others."""
    admission = met(3, marker={"durable": True})
    copy = marker_of(1, 3, durable=True, memory=memory_of(1, "before"))
    admission.seen(1, identity_of(1, 3, memory=renamed(1), marker=copy.text()), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)


def test_a_client_that_never_saw_a_restarted_node_counts_from_when_it_looks() -> None:
    """An older copy may have come in long after the restart, and brought the text of the run before: nobody can tell."""
    assert quarantined(fresh_client_sees(restarted(1, 3, uptime=1e6), at=100.0)) == pytest.approx(100.0 + SPAN)


@pytest.mark.parametrize(
    "identity",
    [
        identity_of(1, 3, memory=renamed(1), uptime=1e6),
        flushed(1, 3, uptime=1e6, marker=""),
        flushed(1, 3, memory=memory_of(1, "b"), marker="", uptime=1e6),
        restarted(1, 3, uptime=-3598.0),
        restarted(1, 3, uptime=0.0),
        restarted(1, 3, uptime=1e6, promoted_at="77"),
        restarted(1, 3, uptime=1e6, marker=marker_of(0, 3).text()),
    ],
    ids=["renamed", "flushed", "replaced", "negative", "zero", "promoted", "copied"],
)
def test_uptime_shortens_nothing_where_it_tells_nothing(identity: Identity) -> None:
    """A flush leaves no trace in it, a clock that steps makes it negative, and a promoted replica's is another's."""
    seen = replace(identity, clock=WALL + 100.0)
    assert quarantined(fresh_client_sees(seen, at=100.0)) == pytest.approx(100.0 + SPAN)


def test_uptime_shortens_nothing_for_a_client_that_had_seen_the_node() -> None:
    """Its own clock knows better: the node's may have stepped."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    admission.seen(1, restarted(1, 3, uptime=7202.0), 2.0)
    assert quarantined(admission.standing(1, 2.0)) == pytest.approx(2.0 + SPAN)


def test_clients_that_live_for_a_second_count_from_when_the_blank_was_put_there() -> None:
    """The first of them puts it, with the latest clock of all; those that come later count by the earliest."""
    blank = blank_of(memory_of(1), put_at=10.0)
    waiting = flushed(1, 3, marker=blank, clock=WALL + 30.0)
    assert quarantined(fresh_client_sees(waiting, at=30.0)) == pytest.approx(10.0 + SPAN)
    late = flushed(1, 3, marker=blank, clock=WALL + 73.0)
    assert fresh_client_sees(late, at=73.0).state is State.ADMITTED


@pytest.mark.parametrize("who", ["its own", "another's"])
def test_one_clock_that_steps_ends_no_quarantine(who: str) -> None:
    """The node's own after its boot, or another's: the earliest of all counts."""
    blank = blank_of(memory_of(1), put_at=10.0)
    own, others = (9999.0, 20.0) if who == "its own" else (20.0, 9999.0)
    waiting = flushed(1, 3, marker=blank, clock=WALL + own)
    assert quarantined(fresh_client_sees(waiting, at=20.0, clock=WALL + others)) == pytest.approx(10.0 + SPAN)


def test_a_blank_that_came_back_with_a_snapshot_says_nothing_of_this_memory() -> None:
    """It was put there long ago, and the node was marked, used and lost since."""
    old = flushed(1, 3, memory=memory_of(1, "b"), marker=blank_of(memory_of(1), put_at=-1000.0), clock=WALL + 30.0)
    assert quarantined(fresh_client_sees(old, at=30.0)) == pytest.approx(30.0 + SPAN)


def test_a_client_that_knew_the_node_counts_by_its_own_clock_alone() -> None:
    """However long ago the blank says that it was put."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=-1000.0)), 5.0)
    tell_again(admission, 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_blank_that_was_long_on_its_way_begins_the_wait() -> None:
    """The nothing that it was written over may be another one than was met: marked, used and lost in between."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, marker=""), 0.0)
    tell_again(admission, 0.0)
    mark = admission.standing(1, 0.0).mark
    assert mark is not None and mark.is_blank
    admission.marked(1, mark, finished(mark, 5.0), 5.0, asked_at=0.0)
    tell_again(admission, 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_floor_is_by_the_clocks_of_the_others() -> None:
    """The node itself may just have booted with a clock of last year; a floor that it had is never lowered."""
    admission = met(3, marker={"floor": 42})
    admission.seen(1, flushed(1, 3, clock=WALL - 9e5), 0.0)
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, floor=42).text(), clock=WALL + 2.0), 0.0)
    _, marker = written(admission.standing(1, 100.0).mark)
    assert marker.floor == us(100.0 + 60.0 + 2.0)
    admission = met(3, marker={"floor": us(1e6)})
    admission.seen(1, flushed(1, 3), 0.0)
    tell_again(admission, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(1e6)


def test_a_clock_that_is_far_ahead_makes_no_floor_that_a_majority_did_not_allow() -> None:
    """Who granted a token with this node had two of the other four with it: the second latest of their clocks has to do."""
    admission = met(5)
    admission.seen(1, restarted(1, 5), 0.0)
    for node, clock in ((0, WALL + 86400.0), (2, WALL + 3.0), (3, WALL + 2.0), (4, WALL - 50.0)):
        admission.seen(node, identity_of(node, 5, clock=clock), 0.0)
    obey(admission, 1, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(100.0 + 60.0 + 3.0)
    admission.failed(4, SILENT)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(86400.0 + 100.0 + 60.0), "it may have been the other one"


@pytest.mark.parametrize(("own", "counts"), [(-20.0, -15.0), (1.0, 1.0), (20.0, 20.0), (3600.0, 45.0)])
def test_where_the_others_cannot_all_be_asked_the_nodes_own_clock_counts_as_well(own: float, counts: float) -> None:
    """A token was granted by this node and the one that is down, and the third one's clock is 15 s behind: at most a minute."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, clock=WALL + own), 0.0)
    admission.seen(2, identity_of(2, 3, clock=WALL - 15.0), 0.0)
    admission.failed(0, SILENT)
    obey(admission, 1, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(100.0 + 60.0 + counts)


def test_a_single_node_floors_by_its_own_clock() -> None:
    """There is no other."""
    admission = met(1)
    admission.seen(0, flushed(0, 1), 0.0)
    assert written(admission.standing(0, 100.0).mark)[1].floor == us(160.0)


# By what a quarantine waits (rule 5)


@pytest.mark.parametrize(("nodes", "others"), [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_a_quarantine_ends_only_when_enough_other_markers_are_known(nodes: int, others: int) -> None:
    """q - 1 of them, told since the loss: with the node itself they are a majority, which any raise has met."""
    admission = met(nodes)
    admission.seen(0, flushed(0, nodes), 10.0)
    for node in range(1, nodes):
        admission.failed(node, SILENT)
    for node in range(1, others):
        admission.seen(node, identity_of(node, nodes), 20.0)
    standing = admission.standing(0, 1000.0)
    assert quarantined(standing) is None
    assert standing.fault is not None
    assert standing.fault.detail.endswith("until a majority has told that max_ttl was not raised meanwhile")
    admission.seen(others, identity_of(others, nodes), 1000.0)
    assert admission.standing(0, 1000.0).state is State.MARK


def test_a_quarantine_does_not_end_on_what_the_others_told_before_the_loss() -> None:
    """`max_ttl` was raised while this client saw nobody but the node, and what that forgot lives for longer."""
    admission = met(3)
    admission.seen(1, flushed(1, 3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    for at in (10.0 + SPAN + 0.1, 1000.0):
        assert quarantined(admission.standing(1, at)) is None
    raised = marker_of(2, 3, wait_ttl=3000.0).text()
    admission.seen(2, identity_of(2, 3, marker=raised), 1000.0, asked_at=9.9)
    assert admission.outdated(2), "it was asked before the loss, whenever it was read"
    admission.seen(2, identity_of(2, 3, marker=raised), 1000.0)
    assert quarantined(admission.standing(1, 1000.0)) == pytest.approx(10.0 + quarantine_span(3000.0))


def test_who_told_before_a_loss_is_asked_again_and_who_cannot_be_is_not() -> None:
    """Once for each loss; a node that failed is asked as any failed one is."""
    admission = met(3)
    assert not any(admission.outdated(node) for node in range(3))
    before = admission.changes
    admission.seen(1, flushed(1, 3), 10.0)
    assert admission.changes > before + 1
    assert [admission.outdated(node) for node in range(3)] == [True, False, True]
    admission.failed(2, SILENT)
    admission.seen(0, identity_of(0, 3), 10.0)
    assert not any(admission.outdated(node) for node in range(3))


def test_a_foreign_node_does_not_make_a_quarantine_longer() -> None:
    """A wrong address in the list, of a cluster with locks of a day; its `max_ttl` is not ours, nor is it written."""
    admission = met(3)
    for marker in (marker_of(2, 5, max_ttl=86400.0), marker_of(2, 3, cluster="green", max_ttl=86400.0)):
        admission.seen(2, identity_of(2, 3, marker=marker.text()), 0.0)
        admission.seen(1, flushed(1, 3), 0.0)
        tell_again(admission, 0.0)
        assert quarantined(admission.standing(1, 0.0)) == pytest.approx(SPAN)
        assert written(admission.standing(1, 100.0).mark)[1].max_ttl == 60.0


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
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(SPAN)
    assert admission.standing(0, SPAN + 0.1).state is State.MARK


@pytest.mark.parametrize("who", ["another node", "the node itself", "a node that is gone"])
def test_the_longest_wait_ttl_that_any_marker_states_is_waited_for(who: str) -> None:
    """`wait_ttl` may have been raised on some nodes only, and what the node itself was told counts as well."""
    longer = {"wait_ttl": 300.0}
    admission = met(3, marker=longer if who == "the node itself" else None)
    if who != "the node itself":
        admission.seen(2, identity_of(2, 3, marker=marker_of(2, 3, **longer).text()), 0.0)
    if who == "a node that is gone":
        admission.failed(2, SILENT)
    admission.seen(1, flushed(1, 3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + quarantine_span(300.0))


def test_a_node_without_a_marker_gets_what_the_others_say() -> None:
    """Their number, id, promises and the longest max_ttl and wait_ttl, but not their floor."""
    said = {"cluster": "blue", "durable": True, "never_replicas": True, "floor": 5, "max_ttl": 30.0}
    admission = client_of(3)
    for node in (0, 2):
        longer = {"max_ttl": 45.0, "wait_ttl": 90.0} if node == 2 else {}
        admission.seen(node, identity_of(node, 3, marker=marker_of(node, 3, **{**said, **longer}).text()), 0.0)
    admission.seen(1, flushed(1, 3, memory=memory_of(1, "b")), 0.0)
    expected, marker = written(admission.standing(1, 1000.0).mark)
    assert expected == blank_of(memory_of(1, "b"))
    promised = {**said, "max_ttl": 45.0, "wait_ttl": 90.0, "floor": us(1060.0), "since_us": us(0.0)}
    assert marker == marker_of(1, 3, memory=memory_of(1, "b"), **promised)


def test_a_node_without_a_marker_never_gets_that_of_a_foreign_node() -> None:
    """A wrong address in the list must not draw a good node into another cluster."""
    admission = met(5, marker={"cluster": "blue"})
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 3, cluster="green").text()), 0.0)
    admission.seen(4, flushed(4, 5), 0.0)
    tell_again(admission, 0.0)
    assert written(admission.standing(4, 1000.0).mark)[1].cluster == "blue"


def test_a_wrong_list_never_marks_a_good_node() -> None:
    """Three of five nodes were listed, and one of them was flushed: it is the five's, whatever the others are to us."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3), 0.0)
    for at in (0.0, 1000.0):
        assert "n1 had another cluster's" in refused(admission.standing(1, at))


def test_a_quarantined_node_is_refused_for_what_its_marker_says_first() -> None:
    """A restarted node of another cluster is no node of this one after its quarantine either."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, marker=marker_of(1, 5).text()), 0.0)
    assert "of 5 nodes" in refused(admission.standing(1, 1000.0))


# An older memory under the same name (rule 4)


def test_an_address_that_moves_to_a_standby_and_back_is_a_loss() -> None:
    """Each server's marker names itself; what was granted on the newer one the older never knew."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=us(60.0), since_us=us(0.0))
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED, "it was marked after a wait, as a restarted one is"
    admission.seen(1, identity_of(1, 3), 20.0)
    standing = admission.standing(1, 20.0)
    assert quarantined(standing) == pytest.approx(20.0 + SPAN)
    assert standing.fault is not None
    assert "an older marker came back under its name" in standing.fault.detail
    tell_again(admission, 20.0)
    blank = admission.standing(1, 20.0).mark
    assert blank is not None
    assert blank.is_blank, "so that clients which never met the newer one wait as well"


@pytest.mark.parametrize("ours", [True, False], ids=["marked by us", "marked by another client"])
def test_an_older_memory_that_came_back_votes_again_after_its_wait(ours: bool) -> None:
    """Whoever's marker ends the wait, from then on that memory is the present one, and the other one is the older."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=us(60.0), since_us=us(0.0))
    standby = identity_of(1, 3, memory=newer.memory, marker=newer.text())
    admission.seen(1, standby, 10.0)
    admission.seen(1, identity_of(1, 3, clock=WALL + 20.0), 20.0)
    tell_again(admission, 20.0)
    assert quarantined(obey(admission, 1, 20.0)) == pytest.approx(20.0 + SPAN)
    over = 20.0 + SPAN + 1.0
    if ours:
        obey(admission, 1, over)
    else:
        marker = marker_of(1, 3, floor=us(over + 60.0), since_us=us(over - 1.0))
        admission.seen(1, identity_of(1, 3, marker=marker.text(), clock=WALL + over), over)
    assert admission.standing(1, over).state is State.ADMITTED
    admission.seen(1, standby, over + 1.0)
    assert quarantined(admission.standing(1, over + 1.0)) == pytest.approx(over + 1.0 + SPAN)


def test_a_memory_that_was_only_seen_is_newer_all_the_same() -> None:
    """Somebody else may have marked it, and taken locks there."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, memory=memory_of(1, "b"), marker=""), 10.0)
    admission.seen(1, identity_of(1, 3), 11.0)
    assert quarantined(admission.standing(1, 11.0)) == pytest.approx(11.0 + SPAN)


def test_an_older_memory_is_a_loss_though_no_quarantine_lay_between() -> None:
    """A durable node went on under a new name, with the same floor. Its name leads back: no promise tells the two apart."""
    admission = met(3, marker={"durable": True})
    before = marker_of(1, 3, durable=True)
    newer = marker_of(1, 3, durable=True, memory=memory_of(1, "b"), since_us=us(9.0))
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=before.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.MARK, "it restarted with its data"
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED
    admission.seen(1, identity_of(1, 3, marker=before.text()), 20.0)
    assert quarantined(admission.standing(1, 20.0)) == pytest.approx(20.0 + SPAN)


@pytest.mark.parametrize(
    "older",
    [{"floor": 4}, {"max_ttl": 50.0, "wait_ttl": 70.0}, {"wait_ttl": 65.0}, {"cluster": "green"}],
    ids=["floor", "max_ttl", "wait_ttl", "cluster"],
)
def test_a_marker_that_is_no_successor_is_a_loss(older: dict[str, Any]) -> None:
    """The same memory, as with SWAPDB twice: what was known of the name can only have grown."""
    known = {"floor": 5, "wait_ttl": 70.0}
    admission = met(5, marker=known)
    admission.seen(1, identity_of(1, 5, marker=marker_of(1, 5, **{**known, **older}).text()), 10.0)
    if "cluster" in older:
        assert "belongs to cluster" in refused(admission.standing(1, 10.0))
    else:
        assert quarantined(admission.standing(1, 10.0)) is not None


@pytest.mark.parametrize("newer", [{"floor": 6}, {"max_ttl": 65.0}, {"wait_ttl": 80.0}, {"never_replicas": True}])
def test_a_marker_that_was_raised_is_a_successor(newer: dict[str, Any]) -> None:
    """By `redlock init`, or after a wait."""
    known = {"floor": 5, "wait_ttl": 70.0}
    admission = met(3, marker=known)
    admission.seen(1, identity_of(1, 3, marker=marker_of(1, 3, **{**known, **newer}).text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED


def test_two_servers_that_swap_their_addresses_vote_where_they_are() -> None:
    """The set of memories is the same, and each names itself."""
    admission = met(3)
    admission.failed(0, SILENT)
    admission.failed(1, SILENT)
    for node, other in ((0, 1), (1, 0)):
        admission.seen(node, identity_of(other, 3), 10.0)
    assert states(admission, 10.0) == [State.ADMITTED] * 3


def test_servers_that_swap_their_addresses_and_swap_them_back_are_no_older_ones() -> None:
    """As a name service mixes them up for a second: whatever floors they have, and in whatever order they are met."""
    admission = client_of(3)
    servers = [identity_of(node, 3, marker=marker_of(node, 3, floor=100 - node).text()) for node in range(3)]
    for at, order in enumerate([(0, 1, 2), (1, 0, 2), (0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 1, 2)]):
        for node in sorted(range(3), key=lambda node: (node + at) % 3):
            admission.seen(node, servers[order[node]], float(at))
        assert states(admission, float(at)) == [State.ADMITTED] * 3


def test_a_server_that_is_in_the_list_no_more_is_an_older_one_under_any_name() -> None:
    """The others have moved up, and it knows nothing of what they granted since."""
    admission = met(3)
    admission.seen(0, identity_of(1, 3), 10.0)
    stranger = marker_of(1, 3, memory=memory_of(1, "b"))
    admission.seen(1, identity_of(1, 3, memory=stranger.memory, marker=stranger.text()), 10.0)
    assert states(admission, 10.0) == [State.ADMITTED] * 3
    admission.seen(0, identity_of(0, 3), 20.0)
    assert quarantined(admission.standing(0, 20.0)) == pytest.approx(20.0 + SPAN)


def test_a_name_that_led_elsewhere_for_a_moment_costs_its_client_alone() -> None:
    """Nobody else met that server. The client waits, as it might have been the newer one; a blank would make everybody wait."""
    admission = met(3)
    admission.seen(0, identity_of(0, 3, memory=Memory("stray", "stray"), marker="", policy="allkeys-lru"), 10.0)
    admission.seen(0, identity_of(0, 3), 11.0)
    assert quarantined(admission.standing(0, 11.0)) == pytest.approx(11.0 + SPAN)
    tell_again(admission, 12.0)
    assert admission.standing(0, 12.0).mark is None


@pytest.mark.parametrize("idle", [False, True], ids=["same memory", "restarted meanwhile"])
def test_an_idle_client_takes_a_cluster_that_was_replaced_for_what_it_is(idle: bool) -> None:
    """`redlock init --replace` may lower what was promised, as no lock lives. Nothing was forgotten, and nothing is put back."""
    admission = met(3, marker={"max_ttl": 600.0, "since_us": us(0.0)})
    for node in range(3):
        memory = memory_of(node, "b" if idle else "")
        new = marker_of(node, 3, memory=memory, max_ttl=2.0, cluster="other", floor=us(160.0), since_us=us(100.0))
        admission.seen(node, identity_of(node, 3, memory=memory, marker=new.text()), 200.0)
    assert states(admission, 200.0) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 2.0


def test_an_answer_that_waited_unread_tells_nothing_new_after_a_fault_either() -> None:
    """A dial that was refused says nothing of when another connection's answer was written."""
    admission = met(3)
    raised = marker_of(1, 3, max_ttl=70.0).text()
    admission.seen(1, identity_of(1, 3, marker=raised), 10.0, asked_at=9.9)
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3), 20.0, asked_at=5.0)
    admission.seen(1, identity_of(1, 3, marker=raised), 21.0, asked_at=20.9)
    assert admission.standing(1, 21.0).state is State.ADMITTED


def test_a_marker_whose_answer_waited_unread_ends_no_wait() -> None:
    """It was written at the end of the wait, and lost again by a second restart, of which another connection was told."""
    admission, over = met(3), 10.0 + SPAN
    blank = blank_of(memory_of(1, "b"), put_at=10.0)
    admission.seen(1, restarted(1, 3, marker=blank), 10.0)
    tell_again(admission, 11.0)
    mark = admission.standing(1, over).mark
    assert mark is not None and not mark.is_blank
    admission.seen(1, restarted(1, 3, memory=memory_of(1, "c"), marker=blank), over + 2.0, asked_at=over + 1.0)
    admission.marked(1, mark, finished(mark, over), over + 3.0, asked_at=over)
    tell_again(admission, over + 3.0)
    assert quarantined(obey(admission, 1, over + 3.0)) == over + 3.0 + SPAN


def test_an_answer_that_waited_unread_does_not_bring_an_older_memory_back() -> None:
    """It was asked for before another connection was told of what came after it."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=9)
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0, asked_at=9.9)
    admission.seen(1, identity_of(1, 3), 20.0, asked_at=5.0)
    mark = marker_of(1, 3).write(identity_of(1, 3, marker="x"))
    admission.marked(1, mark, marker_of(1, 3).text(), 20.0, asked_at=5.0)
    assert admission.standing(1, 20.0).marker == newer.text()
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 30.0, asked_at=29.0)
    assert admission.standing(1, 30.0).state is State.ADMITTED


# A new cluster (rule 6)


def unmarked(nodes: int, *, uptime: float = 1000.0, at: float = 0.0, **settings: Any) -> Admission:
    """A client whose nodes have all answered at *at*, each with its blank."""
    admission = client_of(nodes, **settings)
    for node in range(nodes):
        admission.seen(node, flushed(node, nodes, uptime=uptime, marker=blank_of(memory_of(node), put_at=at)), at)
    return admission


def confirmed(admission: Admission, at: float) -> Admission:
    """Each was asked once more after the last blank was met, as the links do."""
    for _ in range(3):
        tell_again(admission, at)
    return admission


def found(admission: Admission, at: float) -> list[Marker]:
    """What a founder writes, in its order."""
    order: list[Marker] = []
    while True:
        marks = [(node, standing.mark) for node in range(len(admission.names)) if (standing := admission.standing(node, at)).mark]
        if not marks:
            return order
        for node, mark in marks:
            assert mark is not None
            order.append(written(mark)[1])
            admission.marked(node, mark, finished(mark, at), at)


def test_a_new_cluster_is_marked_at_once_when_all_its_nodes_are_up_long_enough() -> None:
    """All asked, none marked, and none can have forgotten a lock that is still valid."""
    admission = confirmed(unmarked(3), 0.1)
    assert states(admission, 0.1) == [State.MARK, State.UNKNOWN, State.UNKNOWN]
    assert found(admission, 0.1) == [marker_of(node, 3, since_us=us(0.0)) for node in range(3)]
    assert states(admission, 0.1) == [State.ADMITTED] * 3


def test_the_node_of_the_smallest_memory_decides_who_founds() -> None:
    """Two founders with different ideas: the loser takes over what the winner promised there, for the other nodes too."""
    admission = confirmed(unmarked(3, ttl=10.0), 0.1)
    mark = admission.standing(0, 0.1).mark
    assert mark is not None
    theirs = marker_of(0, 3, max_ttl=300.0, since_us=us(0.1))
    admission.marked(0, mark, theirs.text(), 0.1)
    assert [marker.max_ttl for marker in found(admission, 0.1)] == [300.0, 300.0]
    assert states(admission, 0.2) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 300.0


def test_founding_marks_all_nodes_though_the_first_was_seen_marked_by_somebody_else() -> None:
    """Once the first is marked, the others look as if they had forgotten; who saw all of them blank knows better."""
    admission = confirmed(unmarked(3), 0.1)
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(0.1)).text()), 0.2)
    assert states(admission, 0.2) == [State.UNKNOWN, State.MARK, State.MARK]
    found(admission, 0.2)
    assert states(admission, 0.3) == [State.ADMITTED] * 3


def test_a_founder_does_not_mark_again_what_is_flushed_later() -> None:
    """It was the founder once: a node whose marker it saw standing, and which is gone now, forgot like any other."""
    admission = confirmed(unmarked(3), 0.1)
    found(admission, 0.1)
    assert states(admission, 0.2) == [State.ADMITTED] * 3
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=100.0)), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN)


@pytest.mark.parametrize(
    "later",
    [flushed(1, 3, marker=blank_of(memory_of(1), put_at=0.15)), flushed(1, 3, memory=memory_of(1, "b"))],
    ids=["another blank", "another memory"],
)
def test_a_founder_marks_only_the_very_blank_that_all_had_at_one_instant(later: Identity) -> None:
    """Others may have marked it, taken locks there and flushed it, or it restarted, between founding and marking."""
    admission = confirmed(unmarked(3), 0.1)
    mark = admission.standing(0, 0.1).mark
    assert mark is not None
    admission.marked(0, mark, finished(mark, 0.1), 0.1)
    admission.seen(1, later, 0.2)
    assert quarantined(obey(admission, 1, 0.2)) == pytest.approx(0.2 + SPAN)


def test_who_sees_a_founding_half_done_takes_part_as_soon_as_it_is_done() -> None:
    """It met nodes with and without a marker, and takes the latter for a loss; they were marked since, by their own clocks."""
    admission = client_of(3)
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(0.9)).text(), clock=WALL + 1.0), 1.0)
    for node in (1, 2):
        admission.seen(node, flushed(node, 3, clock=WALL + 1.0), 1.0)
    assert states(admission, 1.0) == [State.UNKNOWN, State.QUARANTINED, State.QUARANTINED]
    for node in (1, 2):
        marked = marker_of(node, 3, since_us=us(1.001)).text()
        admission.seen(node, identity_of(node, 3, marker=marked, clock=WALL + 1.1), 1.1)
    assert states(admission, 1.1) == [State.ADMITTED] * 3


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
    again = flushed(2, 3, uptime=-3598.0, marker=blank_of(memory_of(2), put_at=20.0), clock=WALL + 20.0)
    admission.seen(2, again, 20.0)
    assert quarantined(admission.standing(0, 50.0)) == pytest.approx(20.0 + SPAN)
    confirmed(admission, 20.0 + SPAN)
    assert len(found(admission, 20.0 + SPAN + 0.001)) == 3


def test_clients_that_live_for_a_second_found_a_young_cluster_by_its_blanks() -> None:
    """By the last of them that was put there, and the earliest clock of all."""
    admission = client_of(3)
    for node in range(3):
        blank = blank_of(memory_of(node), put_at=float(node))
        admission.seen(node, flushed(node, 3, uptime=1.0, marker=blank, clock=WALL + 64.0 + node), 64.0)
    assert quarantined(admission.standing(0, 64.0)) == pytest.approx(2.0 + SPAN)
    confirmed(admission, 64.3)
    assert len(found(admission, 64.3)) == 3


@pytest.mark.parametrize(
    ("settings", "longest"), [({"max_ttl": 20.0}, 20.0), ({}, 60.0), ({"ttl": 300.0}, 300.0), ({"ttl": 30.0}, 60.0)]
)
def test_a_new_cluster_waits_for_the_max_ttl_it_will_have(settings: dict[str, Any], longest: float) -> None:
    """The caller's, or a minute, or its ttl if that is longer: a whole cluster that forgot had locks of up to that."""
    admission = confirmed(unmarked(3, uptime=1.0, **settings), 0.0)
    until = quarantine_span(longest) - 1.0
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(until)
    assert {marker.max_ttl for marker in found(admission, until + 0.01)} == {longest}


def test_a_durable_new_cluster_is_marked_at_once() -> None:
    """It has its data, and there are no markers among it."""
    admission = confirmed(unmarked(3, uptime=1.0, durable=True), 0.1)
    assert [marker.durable for marker in found(admission, 0.1)] == [True] * 3


def replaced(put_at: float, wait_ttl: float, *, nodes: Sequence[int] = (0, 1, 2), **settings: Any) -> Admission:
    """A client that met no node before `init --replace` broke off: it had given its blanks to *nodes*, others have clients'."""
    admission = unmarked(3, uptime=1e6, at=put_at, **settings)
    for node in nodes:
        blank = blank_of(memory_of(node), put_at=put_at, nonce=f"{round(wait_ttl * 1000)}:{NONCE}")
        admission.seen(node, flushed(node, 3, uptime=1e6, marker=blank, clock=WALL + put_at), put_at)
    return confirmed(admission, put_at + 0.1)


@pytest.mark.parametrize("nodes", [(0, 1, 2), (2,)])
@pytest.mark.parametrize(("wait_ttl", "longest"), [(20.0, 60.0), (300.0, 300.0)])
@pytest.mark.parametrize("durable", [None, True])
def test_a_cluster_whose_replacement_broke_off_is_no_new_one(
    nodes: Sequence[int], wait_ttl: float, longest: float, durable: bool | None
) -> None:
    """Its nodes are up for long, and may have granted locks until the blanks came: those are waited for, and their tokens."""
    admission = replaced(5.0, wait_ttl, nodes=nodes, durable=durable)
    until = 5.0 + quarantine_span(longest)
    standing = admission.standing(0, until - 1.5)
    assert quarantined(standing) == pytest.approx(until)
    assert standing.fault is not None
    assert standing.fault.detail == (
        "has no marker, as `redlock init --replace` has not ended: run it again, or it grants locks in 1.5 s"
    )
    markers = found(admission, until + 0.01)
    assert [marker.floor for marker in markers] == [pytest.approx(us(until + 0.01 + 60.0), abs=1000)] * 3
    assert states(admission, until + 0.01) == [State.ADMITTED] * 3


def test_a_blank_says_that_others_are_of_a_replacement() -> None:
    """Who restarts in between, or is flushed, gets a client's blank; all of them may, one after the other."""
    admission = replaced(5.0, 300.0)
    admission.seen(1, flushed(1, 3, marker="", clock=WALL + 6.0), 6.0)
    mark = admission.standing(1, 6.0).mark
    assert mark is not None
    put = Blank.parse(finished(mark, 6.0))
    assert put is not None
    assert put.wait_ttl == 300.0


def test_a_flushed_node_among_marked_ones_is_not_a_new_cluster() -> None:
    """It looks like one, with its long uptime: A holds {1,2}, 2 is flushed, and a fresh client would win {2,3}."""
    assert quarantined(fresh_client_sees(flushed(1, 3, uptime=1e6))) == pytest.approx(SPAN)


def test_one_marked_node_is_enough_to_be_an_old_cluster() -> None:
    """The four unmarked ones have forgotten then, however long they are up."""
    admission = unmarked(5, uptime=1e6)
    admission.seen(3, identity_of(3, 5), 0.0)
    for at in (0.0, SPAN - 0.001):
        assert [state for node, state in enumerate(states(admission, at)) if node != 3] == [State.QUARANTINED] * 4


@pytest.mark.parametrize("why", ["refused the connection", "was never asked", "loading", "slave"])
def test_a_cluster_is_founded_only_by_all_its_nodes(why: str) -> None:
    """With one node never marked, one flush and a partition made two clusters: the others may be the marked majority."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, flushed(node, 3), 0.0)
    if why == "refused the connection":
        admission.failed(2, SILENT)
    elif why in ("loading", "slave"):
        changes = {"loading": True} if why == "loading" else {"role": "slave"}
        admission.seen(2, flushed(2, 3, **changes), 0.0)
    confirmed(admission, 1.0)
    standing = admission.standing(0, 1000.0)
    assert quarantined(standing) is None
    assert standing.fault is not None
    help_of = {"loading": "n3 is LOADING its data", "slave": "n3 is a slave, not a master"}
    asked = "n3 cannot be asked: start it, or run `redlock init`"
    assert standing.fault.detail == f"has no marker: the cluster is new and {help_of.get(why, asked)}"
    assert admission.out_of_reach(1000.0) is None


def test_a_twin_founds_nothing() -> None:
    """A node that is listed twice is no majority of anything, and the list is wrong."""
    admission = unmarked(5)
    admission.seen(4, flushed(1, 5), 0.0)
    assert "is the same server as" in refused(confirmed(admission, 1.0).standing(4, 1.0))
    assert admission.problem() is not None
    assert all(standing.mark is None for node in range(5) if (standing := admission.standing(node, 1000.0)))


def test_a_foreign_node_founds_nothing() -> None:
    """Our list is wrong, or the cluster is not new."""
    admission = unmarked(3)
    admission.seen(2, identity_of(2, 3, marker="nonsense"), 0.0)
    assert refused(confirmed(admission, 1.0).standing(0, 1000.0)).startswith("has no marker, and n3 had another cluster's")


def test_a_client_that_had_seen_a_marker_founds_nothing() -> None:
    """All nodes were flushed under it: they forgot, however long they are up, and are marked as they were."""
    admission = met(3, marker={"cluster": "blue", "max_ttl": 30.0})
    assert states(admission, 1.0) == [State.ADMITTED] * 3
    for node in range(3):
        admission.seen(node, flushed(node, 3, uptime=1e6), 2.0)
    tell_again(admission, 2.0)
    for at in (2.0, 2.0 + quarantine_span(30.0) - 0.001):
        assert states(admission, at) == [State.QUARANTINED] * 3
    expected, marker = written(admission.standing(1, 1000.0).mark)
    assert expected == blank_of(memory_of(1))
    assert (marker.cluster, marker.max_ttl) == ("blue", 30.0)
    assert marker.floor > 0


def test_what_nodes_told_before_the_last_of_them_was_met_founds_nothing() -> None:
    """Somebody else founded the cluster, holds {1,2}, and 2 was flushed: its new blank meets what 1 and 3 told long ago."""
    admission = confirmed(unmarked(3), 0.1)
    assert admission.standing(0, 0.1).state is State.MARK
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=5.0)), 5.0)
    assert admission.standing(0, 5.0).state is State.UNKNOWN
    assert [admission.outdated(node) for node in range(3)] == [True] * 3
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(1.0)).text()), 5.1)
    assert quarantined(admission.standing(1, 5.1)) == pytest.approx(5.1 + SPAN)


def test_a_question_that_went_out_before_the_last_blank_was_met_confirms_nothing() -> None:
    """Its answer may be from before that node was used."""
    admission = client_of(2)
    admission.seen(0, flushed(0, 2), 0.0)
    asked, as_of = 0.9, admission.changes
    admission.seen(1, flushed(1, 2), 1.0)
    admission.seen(0, flushed(0, 2), 2.1, asked_at=asked, as_of=as_of)
    admission.seen(1, flushed(1, 2), 2.1)
    assert states(admission, 2.1) == [State.UNKNOWN] * 2
    assert admission.outdated(0)
    assert len(found(confirmed(admission, 2.2), 2.2)) == 2


@pytest.mark.parametrize("others", ["marked", "new"])
@pytest.mark.parametrize("stands", ["", "redlock1 blank 1234", blank_of(memory_of(7))])
def test_a_node_without_a_marker_gets_a_blank_first(others: str, stands: str) -> None:
    """Nothing is equal to nothing: a marker is written only where that blank stands, and so where nothing was lost since.

    A blank of the former format, or one that came with a copy of another node, is none.
    """
    admission = met(3) if others == "marked" else unmarked(3)
    admission.seen(1, flushed(1, 3, marker=stands), 1.0)
    mark = admission.standing(1, 1.0).mark
    assert mark is not None
    assert mark.is_blank
    assert mark.expected == stands
    assert finished(mark, 1.0) == f"redlock2 blank {us(1.0)} {us(1.0)} repl-2 {NONCE}"


def test_an_unfit_or_foreign_node_gets_no_blank() -> None:
    """It is not ours to write to."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3, marker=""), 0.0)
    admission.seen(2, flushed(2, 3, marker="", role="slave"), 0.0)
    assert [admission.standing(node, 1.0).mark for node in range(3)] == [None] * 3


# What all connections know (rule 7), and reconnects


def test_a_reconnect_to_the_same_memory_and_marker_is_admitted_at_once() -> None:
    """Whatever happened to the connection."""
    admission = met(3)
    states(admission, 1.0)
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3), 50.0)
    assert admission.standing(1, 50.0).state is State.ADMITTED


def test_changes_grows_with_everything_that_may_change_a_standing() -> None:
    """Every vote is written as of the newest; a look that finds all as it was makes no vote wait."""
    admission = client_of(3)
    told = [admission.changes]
    admission.seen(0, identity_of(0, 3), 0.0)
    told.append(admission.changes)
    admission.failed(1, SILENT)
    told.append(admission.changes)
    assert told == sorted(set(told))
    admission = met(3)
    before = admission.changes
    admission.seen(1, identity_of(1, 3, uptime=1001.0, clock=WALL + 1.0), 1.0)
    assert admission.changes == before
    for change in ({"policy": "allkeys-lru"}, {"evicted": 1}, {"role": "slave"}, {"memory": renamed(1)}, {"marker": ""}):
        admission.seen(1, identity_of(1, 3, **change), 2.0)
        assert admission.changes > before
        before = admission.changes


def test_an_eviction_policy_that_is_set_at_run_time_costs_the_vote_and_what_was_evicted_the_wait() -> None:
    """Refused while the policy stands; a lock may be among the keys that went."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, policy="allkeys-lru", evicted=3), 5.0)
    assert "may evict locks" in refused(admission.standing(1, 5.0))
    admission.seen(1, identity_of(1, 3, evicted=3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    fresh = fresh_client_sees(identity_of(1, 3, evicted=3), at=10.0)
    assert quarantined(fresh) is not None, "its marker says that it had evicted none"


# A node with a history


class Server:
    """A real node's data and memory: what it is called, its marker, its clock, and when it last forgot locks.

    It has some while it is marked for the memory that it has.
    """

    def __init__(self) -> None:
        self.runs = itertools.count(1)
        self.memory, self.started, self.forgot = Memory("run", "repl"), 0.0, float("-inf")
        self.marker = marker_of(1, 3, memory=self.memory).text()
        self.snapshot = self.marker

    def identity(self, at: float) -> Identity:
        return identity_of(1, 3, memory=self.memory, marker=self.marker, uptime=at - self.started, clock=WALL + at)

    def restart(self, at: float) -> None:
        """From the snapshot on its disk."""
        self.forget(at)
        self.memory, self.started = Memory(f"run{next(self.runs)}", f"repl{next(self.runs)}"), at
        self.marker = self.snapshot

    def promote(self, at: float) -> None:
        """Demoted, given its own old data back, and promoted; the server has forgotten that it was."""
        self.forget(at)
        self.memory = Memory(self.memory.run_id, f"repl{next(self.runs)}")

    def flush(self, at: float) -> None:
        self.forget(at)
        self.marker = ""

    def save(self, at: float) -> None:
        self.snapshot = self.marker

    def forget(self, at: float) -> None:
        marker = Marker.parse(self.marker)
        if marker is not None and marker.memory == self.memory:
            self.forgot = at

    def write(self, mark: Mark, at: float) -> str | None:
        expected, memory = map(str, mark.args[:2])
        if memory != self.memory.replication_id:
            return None
        if self.marker == expected:
            self.marker = finished(mark, at)
        return self.marker


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "restart", "flush", "promote", "save", "lose sight", "new client"]),
        st.integers(0, 1),
        st.sampled_from([0.01, 1.0, 30.0, 62.3]) | st.floats(0.01, 65.0),
    ),
    max_size=25,
)


TWICE = [("flush", 0, 1.0), ("look", 0, 0.01), ("look", 1, 1.0), ("look", 0, 62.3), ("flush", 0, 0.01), ("look", 1, 0.01)]
"""One client's quarantine ends and the node votes; it is flushed again before the other client's quarantine ends."""
OLD_BLANK = [
    *[("flush", 0, 1.0), ("look", 0, 0.01), ("save", 0, 1.0), ("look", 0, 62.3), ("restart", 0, 100.0)],
    *[("new client", 0, 0.01), ("look", 0, 0.01)],
]
"""A snapshot was taken while a blank stood; the node was marked and used since, and restarts from it."""


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
@example(TWICE)
@example(OLD_BLANK)
def test_no_history_lets_a_node_vote_while_a_lock_it_forgot_can_be_valid(history: list[tuple[str, int, float]]) -> None:
    """Whatever happens to the node, and whichever client looks when: votes come a max_ttl after the last loss, or later."""

    def meet(at: float) -> Admission:
        admission = client_of(3, nonce=lambda: f"{next(nonces)}")
        for node in (0, 2):
            admission.seen(node, identity_of(node, 3, clock=WALL + at), at)
        return admission

    nonces = itertools.count()
    clients, server, at = [meet(0.0), meet(0.0)], Server(), 1.0
    server.started = -1000.0
    for event, who, pause in history:
        at += pause
        admission = clients[who]
        if event == "lose sight":
            admission.failed(1, SILENT)
        elif event == "new client":
            clients[who] = meet(at)
        elif event == "look":
            admission.seen(1, server.identity(at), at)
            tell_again(admission, at)
            standing = admission.standing(1, at)
            while standing.mark is not None:
                stands = server.write(standing.mark, at)
                if stands is None:
                    admission.seen(1, server.identity(at), at)
                else:
                    admission.marked(1, standing.mark, stands, at)
                standing = admission.standing(1, at)
            # What take.lua looks at besides.
            if standing.state is State.ADMITTED and standing.marker == server.marker and standing.memory == server.memory:
                assert at >= server.forgot + 60.0
                marker = Marker.parse(server.marker)
                assert marker is not None
                assert marker.floor > 0 or server.forgot == float("-inf")
        else:
            getattr(server, event)(at)


# What is read


@settings(deadline=None)
@given(
    st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    st.integers(1, 99),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**53),
    st.integers(0, 10**9),
    st.from_regex(r"[a-z-]{1,10}", fullmatch=True),
)
def test_a_marker_is_read_as_it_was_written(
    run: str, nodes: int, max_ttl_ms: int, more_ms: int, durable: bool, never: bool, floor: int, evicted: int, cluster: str
) -> None:
    """Text and back, to the millisecond."""
    marker = Marker(
        Memory(run, run[::-1]),
        nodes,
        max_ttl_ms / 1000,
        wait_ttl=(max_ttl_ms + more_ms) / 1000,
        durable=durable,
        never_replicas=never,
        floor=floor,
        cluster=cluster,
        evicted=evicted,
        since_us=floor,
    )
    assert Marker.parse(marker.text()) == marker


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_reading_a_marker_fail(text: str) -> None:
    """A key that somebody else wrote is no marker of ours, and no crash."""
    for words in (text, f"redlock1 {text}", f"redlock2 {text}", f"redlock2 r 60000 0 {text} run 60000 3 0 - -"):
        marker = Marker.parse(words)
        assert marker is None or isinstance(marker, Marker)
    for words in (text, f"redlock2 blank {text}", f"redlock2 blank 1 {text} r n"):
        assert Blank.parse(words) is None or is_blank(words)


def test_an_identity_is_read_from_info() -> None:
    """The fields of Redis and of Valkey; an uptime that is no number is that of a fresh node."""
    info = {
        "run_id": "abc",
        "master_replid": "def",
        "role": "master",
        "cluster_enabled": "0",
        "loading": "0",
        "maxmemory_policy": "noeviction",
        "uptime_in_seconds": "-3598",
        "redis_version": "7.2.4",
        "valkey_version": "9.1.2",
        "second_repl_offset": "-1",
        "evicted_keys": "12",
    }
    identity = Identity.parse(info, "m", 12.5)
    assert identity == Identity(Memory("abc", "def"), "master", False, False, "noeviction", -3598.0, "9.1.2", "m", 12.5, "-1", 12)
    assert identity.unfit is None
    assert Identity.parse({**info, "uptime_in_seconds": "?"}, "").uptime == 0.0
    assert Identity.parse({**info, "evicted_keys": "many"}, "").evicted == 0
    assert Identity.parse({**info, "second_repl_offset": "1234"}, "").promoted
    assert Identity.parse({**info, "cluster_enabled": "1"}, "").unfit is not None
    assert Identity.parse({**info, "loading": "1"}, "").loading


@pytest.mark.parametrize("missing", ["run_id", "master_replid", "role", "maxmemory_policy"])
def test_an_identity_that_does_not_tell_is_unfit(missing: str) -> None:
    """What a node hides, perhaps behind a proxy, is not assumed in its favour."""
    info = {"run_id": "abc", "master_replid": "def", "role": "master", "maxmemory_policy": "noeviction"}
    assert Identity.parse(info, "").unfit is None
    del info[missing]
    assert Identity.parse(info, "").unfit is not None
