"""What people are told of nodes that do not vote."""

from __future__ import annotations

import pytest

from redlock.core.remedies import advice, alike, remedied, told
from redlock.errors import MESSAGE_MAX

NODES = [f"redis://lock-{number}.eu-central.example.org:6379" for number in range(1, 6)]


def test_a_reason_is_said_once_with_its_nodes_and_what_to_do() -> None:
    """Also where only its numbers differ."""
    reasons = [(node, f"did not answer within 0.2{place} s") for place, node in enumerate("abc")]
    text = told("no quorum", [*reasons, ("d", "refused the connection")])
    assert text == (
        "no quorum; a, b, c: did not answer within 0.20 s; d refused the connection:"
        " look at the server, and the network to it"
    )


@pytest.mark.parametrize("reason", ["is a replica, not a master", "said " + "X" * 500])
@pytest.mark.parametrize("different", [False, True])
def test_a_message_fits_on_a_pager_and_keeps_what_to_do(reason: str, different: bool) -> None:
    """Long names of nodes and long reasons are cut; the remedy is not."""
    reasons = [(node, f"{reason} {'abcde'[place] * different}") for place, node in enumerate(NODES)]
    text = told("waiting for 'job'", reasons, do="ask somebody")
    assert len(text) <= MESSAGE_MAX
    assert text.endswith("ask somebody") and NODES[0] in text


def test_what_follows_from_the_others_is_not_told_beside_them() -> None:
    """Nor where in a script a server gave its error, whose @ would look like a password's end."""
    derived = "is not asked before a majority of the nodes has shown a marker"
    assert "is not asked" not in told("x", [("a", "refused the connection"), ("b", derived)])
    assert "is not asked" in told("x", [("b", derived)])
    oom = "said OOM command not allowed. script: 0123abcd, on @user_script:74."
    assert told("x", [("a", oom)]).startswith("x; a said OOM command not allowed: free memory")


def test_numbers_do_not_make_another_reason() -> None:
    """Seconds that pass are no news."""
    assert alike("did not answer") == alike("did not answer for 1.5 s")
    assert alike("votes again in 61.2 s") == alike("votes again in 3 s")
    assert alike("is free") != alike("is held")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("refused our credentials (WRONGPASS)", "password"),
        ("refused the connection", "start"),
        ("is a replica, not a master", "masters"),
        ("may evict locks (maxmemory-policy allkeys-lru)", "noeviction"),
        ("has no marker yet, as in a new cluster: it grants locks in 59.2 s", "redlock init"),
        ("belongs to cluster 'a', and the others to 'b'", "node list"),
        ("forgot its locks (it restarted) and is in quarantine", "redlock nodes --wait"),
        ("is LOADING its data", "wait"),
        ("said OOM command not allowed", "maxmemory"),
        ("said BUSY a script runs", "SCRIPT KILL"),
        ("said REDLOCK the fence is not a number from 0 to 2^53 - 1", "writes"),
    ],
)
def test_there_is_a_remedy(reason: str, word: str) -> None:
    """For every reason that somebody can do something about."""
    assert word in (advice(reason) or "")
    assert word in remedied(f"no majority of these nodes may vote: a {reason}")
