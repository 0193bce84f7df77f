"""Nodes, markers and clients of the admission tests, with every identity and every instant given by
hand.

The spans: a cluster's `max_ttl` of 60 s means 62.2 s of quarantine (drift, and a second).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import Mark
from redlock.core.identity import Identity, Marker, Memory
from redlock.core.quorum import Fault, FaultKind
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
    known: dict[str, Any] = {
        "ttl": 10.0,
        "max_ttl": None,
        "durable": None,
        "patience": PATIENCE,
        "nonce": lambda: NONCE,
    }
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
    known: dict[str, Any] = {
        "memory": memory_of(node),
        "nodes": size,
        "max_ttl": 60.0,
        "since_us": 1,
    }
    return Marker(**{**known, **changes})


def blank_of(memory: Memory, *, put_at: float = 0.0, nonce: str = NONCE) -> str:
    """The blank that somebody gave to a node at *put_at*."""
    return f"redlock2 blank {us(put_at)} {us(put_at)} {memory.replication_id} {nonce}"


def us(at: float) -> int:
    """What a node's clock says at *at*."""
    return round((WALL + at) * 1e6)


def met(nodes: int, *, marker: dict[str, Any] | None = None, **settings: Any) -> Admission:
    """A client that has met all its nodes at 0, each with its marker; *marker*: what all of
    those say besides."""
    admission = client_of(nodes, **settings)
    for node in range(nodes):
        admission.seen(
            node,
            identity_of(node, nodes, marker=marker_of(node, nodes, **(marker or {})).text()),
            0.0,
        )
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


def fresh_client_sees(
    identity: Identity, *, at: float = 0.0, clock: float | None = None
) -> Standing:
    """What a client makes of n2 that meets it for the first time, with n1 and n3 as they should
    be."""
    admission = client_of(3)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3, clock=WALL + at if clock is None else clock), at)
    admission.seen(1, identity, at)
    return obey(admission, 1, at)
