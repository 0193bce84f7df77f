"""What several threads know of the nodes together: whoever tells or asks does so alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redlock.core.admission import Admission
from redlock.core.identity import blank
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.guarded import GuardedAdmission
from tests.core.flows import identity_of

CALLS: dict[str, Callable[[Admission], Any]] = {
    "seen": lambda admission: admission.seen(0, identity_of(0, 3), 1.0),
    "marked": lambda admission: admission.marked(
        0, blank("x", identity_of(0, 3)), "redlock2 blank 1 1 repl-1 x", 1.0
    ),
    "failed": lambda admission: admission.failed(0, Fault(FaultKind.LOST, "closed the connection")),
    "standing": lambda admission: admission.standing(0, 1.0),
    "outdated": lambda admission: admission.outdated(0),
    "problem": lambda admission: admission.problem(),
    "out_of_reach": lambda admission: admission.out_of_reach(1.0),
    "max_ttl": lambda admission: admission.max_ttl(),
}


class Counted:
    """A lock that counts how often it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("name", CALLS)
def test_whoever_tells_or_asks_holds_the_lock(name: str) -> None:
    """A loop over what is known breaks off with a RuntimeError when another thread adds to it."""
    admission = GuardedAdmission(
        ("a", "b", "c"), ttl=10.0, max_ttl=None, durable=None, patience=0.1, nonce=lambda: "x"
    )
    admission._lock = lock = Counted()  # type: ignore[assignment]
    CALLS[name](admission)
    assert lock.taken > 0
