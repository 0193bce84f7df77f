"""What people are told of nodes that do not vote: each reason once, its nodes, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from redlock.core.quorum import majority
from redlock.diagnose import diagnose, is_hopeless
from redlock.errors import LockContended, QuorumUnavailable

__all__ = ["MESSAGE_MAX", "advice", "alike", "contended", "remedied", "told", "unavailable"]

MESSAGE_MAX = 280
"""Characters of a message, without what a log puts before it: it is read on a pager."""
_REASON_MAX = 110
_DERIVED = "is not asked before a majority"
_TAIL = re.compile(r"\.? script: .*@user_script:\d+\.?")
"""What servers put behind an error in a script; its @ would be taken for the end of a password."""
_OF_NODES = re.compile("nodes may vote|node list is wrong")
_UNHEARD = "was not waited for"

_ADVICE = (
    (r"without an expiry", "`redlock release --force` ends it"),
    (r"credentials|NOAUTH|WRONGPASS", "check the user and password in its URL"),
    (r"NOPERM", "give this user the commands of the ACL in deploy"),
    (r"refused the connection|No such file", "start the server, or correct its address"),
    (r"not a master", "name masters alone"),
    (r"may evict", "set maxmemory-policy noeviction"),
    (r"cluster mode", "name servers that are no Redis Cluster"),
    (r"has no marker", "if it never had a lock, run `redlock init`"),
    (r"belongs to|same server|of this cluster", "correct the node list"),
    (r"quarantine", "wait; `redlock nodes --wait 90` shows when"),
    (r"LOADING", "wait until it has its data"),
    (r"OOM", "free memory there, or raise maxmemory"),
    (r"BUSY", "SCRIPT KILL ends the script that blocks it"),
    (r"MISCONF|READONLY|NOREPLICAS", "mend the server's persistence or replication"),
    (r"fence is not a number", "find who else writes this key"),
    (r"clocks is wrong", "set the clocks"),
    (
        r"did not answer|not connected|lost the connection|not be reached|not be dialled",
        "look at the server, and the network to it",
    ),
)


def told(head: str, reasons: Iterable[tuple[str, str]], *, do: str | None = None) -> str:
    """*head*; each of the *reasons*, which are nodes with what completes "<node> ...", once; and
    what to do: *do*, or what the first reason asks for. Within MESSAGE_MAX."""
    by_reason: dict[str, tuple[str, list[str]]] = {}
    pairs = [(node, _TAIL.sub("", reason)) for node, reason in reasons]
    # What follows from the others' reasons says nothing beside them.
    for node, reason in [pair for pair in pairs if _DERIVED not in pair[1]] or pairs:
        by_reason.setdefault(alike(reason), (reason, []))[1].append(node)
    head = _TAIL.sub("", head)
    end = do or next(filter(None, (advice(reason) for reason, _ in by_reason.values())), "")
    end = f": {end}" if end and by_reason else f"; {end}" if end else ""
    for most in (len(by_reason) and 99, 2, 1):
        clauses = [_clause(nodes, reason, most) for reason, nodes in by_reason.values()]
        text = "; ".join([head, *clauses])
        if len(text) + len(end) <= MESSAGE_MAX:
            return text + end
    room = MESSAGE_MAX - len(end) - 3
    return f"{text[:room]}...{end}"


def contended(error: LockContended, resource: str) -> str:
    """Who has it, for how long yet, and what to do."""
    busy = [vote for vote in error.votes if vote.ttl_left is not None]
    head = f"{resource!r} is somebody else's"
    if not busy:
        return told(f"{head}: others try for it at this moment", (), do="try again, or wait longer")
    longest = max(busy, key=lambda vote: _lasts(vote.ttl_left))
    count = f"on {len(busy)} of {len(error.votes)} nodes"
    reason = longest.reason.partition(" (repair")[0]
    do = advice(reason) or "wait longer, or see `redlock status`"
    return told(f"{head}: {count} it {reason}", (), do=do)


def unavailable(error: QuorumUnavailable, resource: str, nodes: Sequence[str]) -> tuple[str, bool]:
    """Which nodes did not vote and why; and whether none of that passes before somebody acts."""
    lasting = diagnose(
        nodes,
        [
            index
            for index, vote in enumerate(error.votes)
            if vote.error is not None or vote.reason == _UNHEARD
        ],
    )
    granted = sum(vote.granted for vote in error.votes)
    count = f"{granted} of {len(error.votes)} nodes granted, {majority(len(nodes))} needed"
    reasons = [
        (vote.node, lasting.get(index, vote.reason))
        for index, vote in enumerate(error.votes)
        if index in lasting or (vote.reason != _UNHEARD and not vote.granted)
    ]
    text = told(f"no quorum for {resource!r}: {count}", reasons)
    return text, is_hopeless(lasting, len(nodes))


def remedied(text: str) -> str:
    """The text of an error, with what to do where nodes are what is wrong."""
    return told(text, (), do=advice(text)) if _OF_NODES.search(text) else text


def advice(reason: str) -> str | None:
    """What helps against a *reason*; None where it says so itself, or nobody knows."""
    # Those that last say what to do.
    if re.search(r": (?:use|give|check|correct|start|option|ssl_)", reason):
        return None
    return next((do for pattern, do in _ADVICE if re.search(pattern, reason)), None)


def alike(reason: str) -> str:
    """The same for reasons that differ in their numbers alone: seconds left, ports, tokens."""
    numbered = re.sub(r"\d+(?:\.\d+)?(?:e-?\d+)?", "#", reason)
    return re.sub(r" (?:for|within|in) # s\b", "", numbered)


def _lasts(ttl_left: float | None) -> float:
    return float("inf") if ttl_left is None or ttl_left < 0 else ttl_left


def _clause(nodes: list[str], reason: str, most: int) -> str:
    names = ", ".join(nodes[:most])
    more = f" and {len(nodes) - most} more" if len(nodes) > most else ""
    short = reason if len(reason) <= _REASON_MAX else f"{reason[: _REASON_MAX - 3]}..."
    return f"{names}{more}{':' if len(nodes) > 1 else ''} {short}"
