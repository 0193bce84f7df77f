"""What is read of a node: markers and identities."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.identity import Blank, Identity, Marker, Memory, is_blank


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
    run: str,
    nodes: int,
    max_ttl_ms: int,
    more_ms: int,
    durable: bool,
    never: bool,
    floor: int,
    evicted: int,
    cluster: str,
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
    for words in (
        text,
        f"redlock1 {text}",
        f"redlock2 {text}",
        f"redlock2 r 60000 0 {text} run 60000 3 0 - -",
    ):
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
    assert identity == Identity(
        Memory("abc", "def"),
        "master",
        False,
        False,
        "noeviction",
        -3598.0,
        "9.1.2",
        "m",
        12.5,
        "-1",
        12,
    )
    assert identity.unfit is None
    assert Identity.parse({**info, "uptime_in_seconds": "?"}, "").uptime == 0.0
    assert Identity.parse({**info, "evicted_keys": "many"}, "").evicted == 0
    assert Identity.parse({**info, "second_repl_offset": "1234"}, "").promoted
    assert Identity.parse({**info, "cluster_enabled": "1"}, "").unfit is not None
    assert Identity.parse({**info, "loading": "1"}, "").loading


@pytest.mark.parametrize("missing", ["run_id", "master_replid", "role", "maxmemory_policy"])
def test_an_identity_that_does_not_tell_is_unfit(missing: str) -> None:
    """What a node hides, perhaps behind a proxy, is not assumed in its favour."""
    info = {
        "run_id": "abc",
        "master_replid": "def",
        "role": "master",
        "maxmemory_policy": "noeviction",
    }
    assert Identity.parse(info, "").unfit is None
    del info[missing]
    assert Identity.parse(info, "").unfit is not None
