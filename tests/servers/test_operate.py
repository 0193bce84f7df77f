"""What an operator does to locks: list them, and take one away."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from redlock import LeaseLost, Redlock
from redlock.embedded import Nodes
from redlock.operate import held_locks, oust, show

PREFIX = "redlock:"


def run(nodes: Nodes, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redlock", *words],
        env={**os.environ, "REDLOCK_NODES": ",".join(nodes.urls), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )


def put(nodes: Nodes, count: int, key: str, value: str | bytes, **options: int) -> None:
    for node in nodes[:count]:
        with node.client() as client:
            client.set(key, value, **options)


def test_locks_lists_what_a_majority_holds_and_tells_no_owner(nodes: Nodes) -> None:
    """Holder and age, and those of one prefix, glob characters included; one that
    nobody has on a majority is counted, and foreign locks are named as such."""
    with (
        Redlock(nodes.urls, holder="web-3") as locks,
        locks.lock("a*:1") as first,
        locks.lock("b") as second,
    ):
        put(nodes, 2, "redlock:left over", "x" * 32, px=60000)
        put(nodes, 4, "redlock:torn", "v" * 32, px=60000)
        put(nodes, 2, "redlock:torn", "w" * 32, px=60000)
        put(nodes, 3, "redlock:foreign", "y" * 32)
        told = run(nodes, "locks", "--json")
        found = json.loads(told.stdout)
        assert [each["resource"] for each in found["locks"]] == ["a*:1", "b", "foreign"]
        assert (found["unclear"], found["whole"]) == (1, True)
        by_name = {each["resource"]: each for each in found["locks"]}
        assert by_name["b"]["fencing_token"] == second.fencing_token
        assert by_name["b"]["holder"] == f"{second.owner[:8]}..."
        assert (by_name["b"]["held_by"], by_name["foreign"]["held_by"]) == ("web-3", None)
        assert 0 <= by_name["b"]["age"] < 10 and 0 < by_name["b"]["ttl_left"] <= 10
        assert (by_name["foreign"]["age"], by_name["foreign"]["ttl_left"]) == (None, None)
        some = run(nodes, "locks", "--prefix", "a*")
        assert "a*:1" in some.stdout and "1 held" in some.stdout
        assert f"web-3 ({first.owner[:8]}...)" in some.stdout
        assert not any(owner in told.stdout + some.stdout for owner in (first.owner, second.owner))
        assert "not all" in run(nodes, "locks", "--max", "1").stdout


def test_a_lock_is_listed_and_released_without_some_nodes(own_nodes: Nodes) -> None:
    """A majority is enough for both, and less gives 5 and the reason."""
    with Redlock(own_nodes.urls) as locks:
        lease = locks.lock("job").acquire()
        assert lease is not None
        for node in own_nodes[:2]:
            node.kill()
        listed = run(own_nodes, "locks")
        assert listed.returncode == 0 and "1 held" in listed.stdout
        assert listed.stderr.count("refused the connection") == 1
        assert run(own_nodes, "release", "--force", "--yes", "job").returncode == 0
        assert locks.status("job").held is False
        own_nodes[2].kill()
        assert not lease.release()
        for words in (["locks"], ["release", "--force", "--yes", "job"]):
            ended = run(own_nodes, *words)
            assert ended.returncode == 5 and "2 of 5 nodes answered, 3 needed" in ended.stderr


def test_release_takes_a_lock_away_and_puts_its_token_behind(nodes: Nodes) -> None:
    """The holder cannot renew any more, nor put the lock back; the next one's token is larger, and
    every fence is past the old one."""
    with Redlock(nodes.urls, ttl=30.0) as locks:
        lease = locks.lock("job").acquire()
        assert lease is not None
        done = run(nodes, "release", "--force", "--yes", "job")
        assert done.returncode == 0 and "released on 5 of 5 nodes" in done.stderr
        assert lease.owner not in done.stderr
        assert f":{os.getpid()} ({lease.owner[:8]}...)" in done.stderr  # Host and process.
        for node in nodes:
            with node.client() as client:
                assert client.get("redlock:job") is None
                assert int(client.get("redlock:job:fence") or 0) > lease.fencing_token
                assert client.pttl("redlock:job:fence") > 6 * 86400_000
        with pytest.raises(LeaseLost):
            lease.extend()
        assert locks.status("job").held is False
        with locks.lock("job", timeout=5.0) as later:
            assert later.fencing_token > lease.fencing_token
        assert run(nodes, "release", "--force", "--yes", "job").returncode == 0  # It is free.


def test_release_asks_and_needs_force(nodes: Nodes) -> None:
    """Where nobody can be asked it does nothing, and says so."""
    with Redlock(nodes.urls) as locks, locks.lock("job"):
        for words in (["release", "job"], ["release", "--yes", "job"]):
            refused = run(nodes, *words)
            assert refused.returncode == 2 and "--force" in refused.stderr
        asked = run(nodes, "release", "--force", "job")
        assert asked.returncode == 2 and "--yes" in asked.stderr
        assert locks.status("job").held


def test_what_changed_since_it_was_shown_is_left_alone(nodes: Nodes) -> None:
    """The next holder keeps its lock and its fence; a renewal of the one that was shown is no
    change."""
    with Redlock(nodes.urls, ttl=30.0) as locks:
        first = locks.lock("job").acquire()
        assert first is not None
        shown = show(nodes.urls, "job", key_prefix=PREFIX)
        assert first.owner not in repr(shown)
        first.extend()
        first.release()
        with locks.lock("job", timeout=5.0) as second:
            done = oust(nodes.urls, shown, key_prefix=PREFIX)
            assert (done.gone, done.others, done.faults) == (0, 5, {})
            second.verify()
            second.extend()
            shown = show(nodes.urls, "job", key_prefix=PREFIX)
            second.extend()
            assert oust(nodes.urls, shown, key_prefix=PREFIX).gone == 5


def test_no_lock_goes_where_its_fence_cannot_be_raised(nodes: Nodes) -> None:
    """One that is no number stays, and a token far ahead of the clocks is nobody's."""
    with Redlock(nodes.urls, ttl=30.0) as locks, locks.lock("job"):
        shown = show(nodes.urls, "job", key_prefix=PREFIX)
        put(nodes, 5, "redlock:job:fence", "inf")
        done = oust(nodes.urls, shown, key_prefix=PREFIX)
        assert done.gone == 0 and "not a number" in done.faults[0]
        put(nodes, 5, "redlock:job:fence", "1")
        assert shown.held is not None
        held = dataclasses.replace(shown.held, fencing_token=2**53 - 2)
        ahead = dataclasses.replace(shown, held=held)
        done = oust(nodes.urls, ahead, key_prefix=PREFIX)
        assert done.gone == 0 and "too far ahead" in done.faults[0]
        for node in nodes:
            with node.client() as client:
                assert client.exists("redlock:job")


@pytest.mark.parametrize("value", ["somebody else's", b"\x01\xff\xfe\n random", "\x1b[31mred"])
def test_a_lock_of_another_library_can_be_taken_away(nodes: Nodes, value: str | bytes) -> None:
    """One without an expiry stays for ever otherwise; it has no token, and gets no fence. Its value
    may be any bytes, as random ones are."""
    put(nodes, 5, "redlock:job", value)
    assert run(nodes, "release", "--force", "--yes", "job").returncode == 0
    with nodes[0].client() as client:
        assert not client.exists("redlock:job", "redlock:job:fence")


def test_names_are_bounded(nodes: Nodes) -> None:
    """More than are asked for are not looked at, and that is told."""
    for number in range(20):
        put(nodes, 3, f"redlock:many:{number}", "z" * 32, px=60000)
    found = held_locks(nodes.urls, key_prefix=PREFIX, prefix="many:", most=5)
    assert (len(found.locks), found.whole) == (5, False)
