"""Faults as a reader sorts them: by what they break, and into rows in which none hides another."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.report.story import Fault

__all__ = ["FAULT_ROWS_MAX", "SORTS", "packed", "sort_of", "whom"]

FAULT_ROWS_MAX = 8

SORTS = {
    "network": (
        "partition isolate bridge ring cut latency jitter slow late delay hold reset refuse flap"
        " bandwidth slice lossy black lost port"
    ),
    "process": (
        "kill crash restart pause stop start node rolling busy script connections maxclients"
    ),
    "memory": (
        "wipe flush forget rollback restore memory oom evict demote replica vip swap move twice"
        " list marker"
    ),
    "clock": "clock jump strobe skew wall step leap suspend drift",
    "client": "client freeze fork block loop cancel sigstop zombie hang herd",
    "access": "password auth acl credential",
}
"""By sort, which gives the colour, words that begin a part of a fault's id. What is not here is
"other"."""


def sort_of(fault: Fault) -> str:
    """What kind of thing it breaks: "network", "process", "memory", "clock", "client", "access",
    "other"."""
    parts = fault.kind.lower().replace("_", "-").split("-")
    if (
        fault.clients
        and not fault.nodes
        and any(part.startswith(("kill", "pause", "stop", "freeze")) for part in parts)
    ):
        return "client"
    found = next(
        (
            sort
            for sort, words in SORTS.items()
            if any(part.startswith(word) for part in parts for word in words.split())
        ),
        "other",
    )
    # A limit of clients is a server's.
    return "process" if found == "client" and not fault.clients else found


def whom(fault: Fault) -> str:
    """The clients and nodes that it hits."""
    return ", ".join([*fault.clients, *(f"n{node}" for node in fault.nodes)])


def packed(faults: Sequence[Fault]) -> dict[str, int]:
    """By fault, the first row in which nothing else is under way; the same thing done to several
    at once is one row."""
    ends: list[float] = []
    rows: dict[str, int] = {}
    same: dict[tuple[str, float, float], int] = {}
    for fault in sorted(faults, key=lambda fault: fault.since):
        alike = (fault.kind, fault.since, fault.until)
        if alike in same:
            rows[fault.name] = same[alike]
            continue
        row = next((row for row, end in enumerate(ends) if end < fault.since), None)
        if row is None and len(ends) < FAULT_ROWS_MAX:
            row = len(ends)
            ends.append(fault.until)
        elif row is None:
            row = ends.index(min(ends))
        ends[row] = max(ends[row], fault.until)
        rows[fault.name] = same[alike] = row
    return rows
