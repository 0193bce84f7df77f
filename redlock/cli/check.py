"""`redlock elect --check`: whether a leader's timings hold, and whether the nodes let this user
lead.

Rights are tried, on a lock of its own that is taken, extended and given back: no server tells its
users what they may do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Sequence

import redlock
from redlock.cli.nodes import look
from redlock.cli.screen import Listing, new_console, print_json
from redlock.cli.statuses import NO_MAJORITY
from redlock.core.quorum import majority
from redlock.errors import AcquireError, CastVote, ConfigurationError, LeaseError
from redlock.supervise import OK
from redlock.transport.clock import now

__all__ = ["check"]

_TRIAL_TTL = 4.0
"""Seconds for which the trial's lock is asked: enough for a few looks at slow nodes."""
_LOOKS = 0.5
"""Seconds until every node that may do something has done it: a grant needs only a majority."""
_LOOK_AGAIN = 0.05
_ALL = "all"


def check(
    nodes: Sequence[str],
    name: str,
    timings: redlock.ElectionTimings,
    *,
    key_prefix: str,
    as_json: bool,
) -> int:
    """Print the timing budget and what the nodes say; give the exit status."""
    with redlock.Redlock(nodes, ttl=timings.ttl, key_prefix=key_prefix) as locks:
        timings = locks.election(name, timings=timings).timings
        reports = look(locks)
    longest = min((report.max_ttl for report in reports if report.max_ttl), default=timings.ttl)
    rights = _rights(nodes, name, longest, key_prefix=key_prefix)
    ready = [report.votes and may == _ALL for report, may in zip(reports, rights, strict=True)]
    able, needed = sum(ready), majority(len(ready))
    if as_json:
        listed = [
            {**dataclasses.asdict(report), "rights": may}
            for report, may in zip(reports, rights, strict=True)
        ]
        fits = able >= needed and timings.ttl <= longest
        counted = {"able": able, "needed": needed, "ready": fits}
        told = {"timings": timings.budget(), "max_ttl": longest, "nodes": listed}
        print_json({**told, **counted})
    else:
        _show(timings, reports, rights)
        verdict = "this user can lead" if able >= needed else "no majority: nobody can lead"
        text = f"{able} of {len(ready)} nodes vote and let this user lead, {needed} needed"
        new_console().print(f"{text}: {verdict}", style="bold")
    if timings.ttl > longest:
        text = f"ttl={timings.ttl:g} is above the cluster's max_ttl={longest:g}"
        do = f"ask for less, or raise it: `redlock init --max-ttl {timings.ttl:g}`"
        raise ConfigurationError(f"{text}: {do}").about(name)
    return OK if able >= needed else NO_MAJORITY


def _show(
    timings: redlock.ElectionTimings, reports: Sequence[redlock.NodeReport], rights: Sequence[str]
) -> None:
    console = new_console()
    table = Listing("timing", "seconds", right=1)
    for name, value in timings.budget().items():
        table.add(name, f"{value:.3f}")
    table.print(console)
    console.print("(after: counted from when the last good renewal was sent)\n", style="dim")
    table = Listing("node", "votes", "rights", "round trip", "clock", "max ttl", "reason")
    for report, may in zip(reports, rights, strict=True):
        table.add(
            report.node,
            "yes" if report.votes else "no",
            may,
            "" if report.round_trip is None else f"{report.round_trip * 1e3:.2f} ms",
            "" if report.clock_offset is None else f"{report.clock_offset * 1e3:+.1f} ms",
            "" if report.max_ttl is None else f"{report.max_ttl:g} s",
            report.reason,
            style="" if report.votes and may == _ALL else "red",
        )
    table.print(console)


def _rights(nodes: Sequence[str], name: str, longest: float, *, key_prefix: str) -> list[str]:
    """Of each node, which of a leader's commands it lets this user run."""
    trial, ttl = f"{name}:check:{secrets.token_hex(8)}", min(_TRIAL_TTL, longest / 2)
    # Fences of a name that nobody uses again are soon to be forgotten.
    with redlock.Redlock(nodes, ttl=ttl, key_prefix=key_prefix, fence_ttl=2 * longest) as locks:
        try:
            lease = locks.lock(trial, timeout=2 * _LOOKS).acquire()
            assert lease is not None  # Nobody else knows its name.
        except AcquireError as error:
            return ["unknown" if vote.granted else vote.reason for vote in error.votes]
        may = ["" for _ in nodes]
        with contextlib.suppress(AcquireError, LeaseError):
            _try(locks, trial, may, "take", lambda vote: vote.ttl_left is not None)
            lease.extend(2 * ttl)
            _try(locks, trial, may, "extend", lambda vote: (vote.ttl_left or 0.0) > ttl)
        lease.release()
        _try(locks, trial, may, "release", lambda vote: vote.ttl_left is None)
        return [lacking or _ALL for lacking in may]


def _try(
    locks: redlock.Redlock,
    trial: str,
    may: list[str],
    what: str,
    done: Callable[[CastVote], bool],
) -> None:
    """Note at which nodes *what* was not done, of those that have done all before."""
    until = now() + _LOOKS
    while True:
        votes = locks.status(trial).votes
        missing = [
            index
            for index, vote in enumerate(votes)
            if not may[index] and (vote.error is not None or not done(vote))
        ]
        if not missing or now() > until:
            break
        time.sleep(_LOOK_AGAIN)
    for index in missing:
        may[index] = votes[index].reason if votes[index].error else f"may not {what}"
