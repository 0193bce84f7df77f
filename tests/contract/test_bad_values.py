"""What people read when a value cannot work: which, why, and what would do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from redlock import ConfigurationError, ElectionTimings, Redlock
from redlock.errors import MESSAGE_MAX

SECRET = "s3cr3t"
LOCK = "job-7"
URLS = ["redis://a", "redis://b", "redis://c"]
"""Nobody is asked by a constructor."""


def check(text: str, *names: str, most: int = MESSAGE_MAX) -> None:
    """*text* has every one of *names*, fits, says nothing twice, and tells no password."""
    for name in names:
        assert re.search(name, text), f"{name!r} is missing in {text!r}"
    assert len(text) <= most, (len(text), text)
    assert SECRET not in text
    clauses = [re.sub(r"redis\S+://\S+|\d+", "#", part).strip() for part in text.split("; ")]
    assert len(set(clauses)) == len(clauses), f"the same is said twice in {text!r}"


BAD: dict[str, tuple[Callable[[Redlock], object], str, str]] = {
    "a lone surrogate": (lambda locks: locks.lock("caf\udce9"), r"caf\\udce9", "decode"),
    "no name": (lambda locks: locks.lock(""), "''", "give the lock a name"),
    "a fence's key": (lambda locks: locks.lock("x:fence"), "x:fence", "give another name"),
    "a queue's key": (
        lambda locks: locks.lock("x:lock-queue"),
        "x:lock-queue",
        "give another name",
    ),
    "our marker's key": (lambda locks: locks.lock("node"), "'node'", "give another name"),
    "a long name": (lambda locks: locks.lock("x" * 5000 + ":fence"), "'xxx", "give another name"),
    "a short ttl": (lambda locks: locks.lock(LOCK, ttl=0.001), LOCK, "longer ttl"),
    "a long ttl": (lambda locks: locks.lock(LOCK, ttl=99.0), LOCK, "redlock init --max-ttl 99"),
    "no ttl": (lambda locks: locks.lock(LOCK, ttl=0), LOCK, "positive"),
    "a huge ttl": (lambda locks: locks.lock(LOCK, ttl=10**400), LOCK, "at most"),
    "a timeout": (lambda locks: locks.lock(LOCK, timeout=-1), LOCK, "not negative"),
    "min_hold": (lambda locks: locks.lock(LOCK, min_hold=60), LOCK, "give a longer ttl"),
    "on_lost": (lambda locks: locks.lock(LOCK, on_lost=3), LOCK, "function"),  # type: ignore[arg-type]
    "hard_stop": (lambda locks: locks.election(LOCK, hard_stop="x"), "'x'", "'exit'"),
    "priority": (lambda locks: locks.election(LOCK, priority=50.0), "priority=50", "give less"),
    "a candidate": (lambda locks: locks.election(LOCK, candidate="x" * 999), "candidate", "info"),
    "info": (lambda locks: locks.election(LOCK, info={"a": "x" * 999}), "info", "address"),
    "timings": (lambda locks: ElectionTimings(ttl=5, renewal=4), "renewal=4", "renew sooner"),
    "kill": (lambda locks: ElectionTimings(ttl=15, kill=0.1), "kill=0.1", "larger kill"),
    "a URL": (lambda locks: Redlock([f"http://u:{SECRET}@h"]), r"nodes\[0\]", "redis://"),
    "a port": (lambda locks: Redlock([f"redis://u:{SECRET}@h:x"]), r"nodes\[0\]", "65535"),
    "a node twice": (lambda locks: Redlock(["redis://h"] * 2), "redis://h:6379 twice", "once"),
    "no nodes": (lambda locks: Redlock([]), "nodes is empty", "name at least"),
    "a lone URL": (lambda locks: Redlock("redis://h"), "nodes must", "list"),
    "a century": (lambda locks: Redlock(["redis://h"], ttl=1e10), "ttl", "at most"),
    "a holder": (lambda locks: Redlock(["redis://h"], holder="x" * 999), "holder='x", "at most"),
    "a prefix": (lambda locks: Redlock(["redis://h"], key_prefix="\udce9"), "key_prefix", "decode"),
    "max_ttl": (lambda locks: Redlock(["redis://h"], max_ttl=-1), "max_ttl=-1", "positive"),
    "fence_ttl": (lambda locks: Redlock(["redis://h"], fence_ttl=1), "fence_ttl=1", "give more"),
}


@pytest.mark.filterwarnings("ignore:1 node")
@pytest.mark.parametrize("value", BAD)
def test_a_value_that_cannot_work_is_told_with_what_would(value: str) -> None:
    """At once, by name, and no longer than a page however long the value is."""
    make, names, remedy = BAD[value]
    with Redlock(URLS, max_ttl=60.0) as locks, pytest.raises(ConfigurationError) as raised:
        make(locks)
    check(str(raised.value), names, remedy)
