"""What people are told of nodes that did not do what was asked: each reason once, its nodes, and
what to do about it.

Words alone: nothing here asks anybody, and nothing decides by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from redlock.errors import MESSAGE_MAX

__all__ = ["advice", "alike", "clause", "remedied", "told"]

_REASON_MAX = 110
_DERIVED = "is not asked before a majority"
_TAIL = re.compile(r"\.? script: .*@user_script:\d+\.?")
"""What servers put behind an error in a script; its @ would be taken for the end of a password."""

_SAYS_SO = re.compile(r": (?:use|give|check|correct|start|option|ssl_|run|wait)")
"""Those that last say what to do themselves."""

_ADVICE = (
    (r"without an expiry", "`redlock release --force` ends it"),
    (r"credentials|NOAUTH|WRONGPASS", "check the user and password in its URL"),
    (r"NOPERM", "give this user the commands of the ACL in deploy"),
    (r"refused the connection|No such file", "start the server, or correct its address"),
    (r"not a master", "name masters alone"),
    (r"may evict", "set maxmemory-policy noeviction"),
    (r"cluster mode", "name servers that are no Redis Cluster"),
    (r"belongs to|same server|of this cluster", "correct the node list"),
    (r"has no marker", "if it never had a lock, run `redlock init`"),
    (r"quarantine", "wait; `redlock nodes --wait 90` shows when"),
    (r"LOADING", "wait until it has its data"),
    (r"OOM", "free memory there, or raise maxmemory"),
    (r"BUSY", "SCRIPT KILL ends the script that blocks it"),
    (r"MISCONF|READONLY|NOREPLICAS", "mend the server's persistence or replication"),
    (r"was not asked|requests (?:in flight|waiting)", "lock from fewer threads or tasks at a time"),
    (r"is held by|another's turn", "wait longer, or see `redlock status`"),
    (r"fence is not a number", "delete its fence key, and find who else writes it"),
    (r"clocks is wrong", "set the clocks"),
    (
        r"did not answer|not connected|lost the connection|not be reached|not be dialled",
        "look at the server, and the network to it",
    ),
    (
        r"nonsense|\bsent (?:an?|what) |\bsaid ",
        "see the server's log, and that it is Redis or Valkey",
    ),
)


def told(
    head: str,
    reasons: Iterable[tuple[str, str]],
    *,
    do: str | None = None,
    otherwise: str = "see `redlock nodes`",
) -> str:
    """*head*; each of the *reasons*, which are nodes with what completes "<node> ...", once; and
    what to do: *do*, or what the first reason asks for, or *otherwise*. Within MESSAGE_MAX."""
    by_reason: dict[str, tuple[str, list[str]]] = {}
    pairs = [(node, _TAIL.sub("", reason)) for node, reason in reasons]
    # What follows from the others' reasons says nothing beside them.
    for node, reason in [pair for pair in pairs if _DERIVED not in pair[1]] or pairs:
        by_reason.setdefault(alike(reason), (reason, []))[1].append(node)
    head = _TAIL.sub("", head)
    found = [advice(reason) for reason, _ in by_reason.values()]
    end = do or next(filter(None, found), "")
    if not end and not any(_SAYS_SO.search(reason) for reason, _ in by_reason.values()):
        end = otherwise if by_reason else ""
    end = f": {end}" if end and by_reason else f"; {end}" if end else ""
    for most in (len(by_reason) and 99, 2, 1):
        clauses = [clause(nodes, reason, most) for reason, nodes in by_reason.values()]
        text = "; ".join([head, *clauses])
        if len(text) + len(end) <= MESSAGE_MAX:
            return text + end
    room = MESSAGE_MAX - len(end) - 3
    return f"{text[:room]}...{end}"


def remedied(text: str) -> str:
    """*text*, which has the reasons of nodes in it, and what to do about the first of them."""
    end = advice(text) or ("" if _SAYS_SO.search(text) else "see `redlock nodes`")
    return f"{text}: {end}" if end else text


def advice(reason: str) -> str | None:
    """What helps against a *reason*; None where it says so itself, or nobody knows."""
    if _SAYS_SO.search(reason):
        return None
    return next((do for pattern, do in _ADVICE if re.search(pattern, reason)), None)


def alike(reason: str) -> str:
    """The same for reasons that differ in their numbers alone: seconds left, ports, tokens."""
    numbered = re.sub(r"\d+(?:\.\d+)?(?:e-?\d+)?", "#", reason)
    return re.sub(r" (?:for|within|in) # s\b", "", numbered)


def clause(nodes: list[str], reason: str, most: int) -> str:
    """The *nodes*, of which *most* are named, with their *reason*."""
    names = ", ".join(nodes[:most])
    more = f" and {len(nodes) - most} more" if len(nodes) > most else ""
    short = reason if len(reason) <= _REASON_MAX else f"{reason[: _REASON_MAX - 3]}..."
    return f"{names}{more}{':' if len(nodes) > 1 else ''} {short}"
