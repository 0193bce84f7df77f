"""Admission: what the markers say is the cluster's, and no client's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.admission import State
from redlock.core.quorum import majority
from tests.core.admission.clients import client_of, marker_of, met, refused, states
from tests.core.flows import identity_of


@pytest.mark.parametrize(
    ("stated", "reason"),
    [(3, "of 3 nodes, and this list has 5"), (6, "of 6 nodes, and this list has 5")],
)
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
    assert (
        refused(admission.standing(4, 1.0))
        == "belongs to cluster 'green', and the others to 'blue'"
    )


def test_a_list_of_two_clusters_never_gets_a_majority_of_both() -> None:
    """Of 2 + 2 nodes only one half may vote, and that is no majority of 4."""
    admission = met(4, marker={"cluster": "blue"})
    for node in (2, 3):
        admission.seen(
            node, identity_of(node, 4, marker=marker_of(node, 4, cluster="green").text()), 0.0
        )
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
        (
            {"durable": True},
            "belongs to a cluster with durable=False, and durable=True was asked for",
        ),
    ],
)
def test_a_client_that_insists_on_something_else_is_refused(
    insisted: dict[str, Any], reason: str
) -> None:
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
    stated = data.draw(
        st.lists(
            st.one_of(st.none(), st.sampled_from([5.0, 60.0, 300.0, 600.0])),
            min_size=nodes,
            max_size=nodes,
        )
    )
    own = data.draw(st.sampled_from([None, 60.0]))
    admission = client_of(nodes, max_ttl=own)
    for node, max_ttl in enumerate(stated):
        if max_ttl is not None:
            admission.seen(
                node,
                identity_of(node, nodes, marker=marker_of(node, nodes, max_ttl=max_ttl).text()),
                0.0,
            )
    known = [max_ttl for max_ttl in stated if max_ttl is not None]
    accepted = [ttl for ttl in known if sum(max_ttl >= ttl for max_ttl in known) > nodes / 2]
    assert admission.max_ttl() == max(accepted, default=own)


@pytest.mark.parametrize(
    ("stated", "accepted"),
    [
        ([60.0, 60.0, 300.0], 60.0),
        ([60.0, 300.0, 300.0], 300.0),
        ([60.0, 300.0], 60.0),
        ([300.0], None),
        ([], None),
    ],
)
def test_a_ttl_that_only_a_minority_accepts_is_not_the_clusters(
    stated: list[float], accepted: float | None
) -> None:
    """Raising `max_ttl` is under way on one of three nodes."""
    admission = client_of(3)
    for node, max_ttl in enumerate(stated):
        admission.seen(
            node, identity_of(node, 3, marker=marker_of(node, 3, max_ttl=max_ttl).text()), 0.0
        )
    assert admission.max_ttl() == accepted
