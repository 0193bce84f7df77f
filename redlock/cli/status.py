"""`redlock status`: who holds a lock, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

import redlock
from redlock.cli.options import JSON_OPTION, NODE_OPTION, PREFIX_OPTION, nodes_of
from redlock.cli.screen import Listing, new_console, print_json, who
from redlock.cli.statuses import UNAVAILABLE, UNCLEAR
from redlock.core.quorum import majority
from redlock.diagnose import diagnose
from redlock.errors import CastVote
from redlock.supervise import OK
from redlock.transport.clock import Entropy
from redlock.transport.wire import clean

_STATUSES = """\b
Exit status:
  0  a majority says the same: held, or free
  1  a majority answers, and says different things, as while the lock changes hands: look again
  2  usage or configuration
  5  no quorum: no majority of the nodes answered in time
"""


@click.command(epilog=_STATUSES, short_help="Show who holds a lock.")
@NODE_OPTION
@PREFIX_OPTION
@JSON_OPTION
@click.argument("resource")
def status(urls: tuple[str, ...], key_prefix: str, as_json: bool, resource: str) -> int:
    """Show who holds the lock on RESOURCE, as the quorum sees it and node by node."""
    return _show(nodes_of(urls), resource, key_prefix=key_prefix, as_json=as_json)


def _show(nodes: list[str], resource: str, *, key_prefix: str, as_json: bool) -> int:
    with redlock.Redlock(nodes, key_prefix=key_prefix) as locks:
        status = locks.status(resource)
    silent = [index for index, vote in enumerate(status.votes) if vote.error is not None]
    lasting = diagnose(nodes, silent)
    votes = tuple(
        replace(vote, reason=lasting.get(index, vote.reason))
        for index, vote in enumerate(status.votes)
    )
    status = replace(status, votes=votes)
    if as_json:
        whole = {
            field: getattr(status, field)
            for field in ("resource", "held", "held_by", "holder", "fencing_token", "ttl_left")
        }
        expires = status.ttl_left is not None if status.held else None
        waiting = [{"name": waiter.name, "since": waiter.since} for waiter in status.waiting]
        nodes_said = [_vote(vote) for vote in status.votes]
        print_json({**whole, "expires": expires, "waiting": waiting, "nodes": nodes_said})
        return _exit_status(status)
    console = new_console()
    console.print(_verdict(status), style="bold")
    if status.waiting:
        console.print(_queue(status.waiting))
    table = Listing("node", "says", "ttl left", "highest token")
    for vote in status.votes:
        style = "red" if vote.error is not None else "dim" if vote.ttl_left is None else ""
        table.add(
            vote.node, vote.reason, _ttl_left(vote), str(vote.fencing_token or ""), style=style
        )
    table.print(console)
    return _exit_status(status)


def _exit_status(status: redlock.ResourceStatus) -> int:
    if status.held is not None:
        return OK
    answered = sum(vote.error is None for vote in status.votes)
    return UNCLEAR if answered >= majority(len(status.votes)) else UNAVAILABLE


def _verdict(status: redlock.ResourceStatus) -> str:
    name = repr(status.resource)
    if status.held is None:
        return f"{name}: unknown, no majority of the nodes agrees"
    if not status.held:
        return f"{name}: free"
    token = (
        f"fencing token {status.fencing_token}"
        if status.fencing_token
        else "no fencing token: not one of redlock's locks"
    )
    left = (
        "WITHOUT AN EXPIRY: it stays until deleted"
        if status.ttl_left is None
        else f"{status.ttl_left:.3g} s left"
    )
    return f"{name}: held by {who(status.held_by, status.holder)}, {token}, {left}"


def _queue(waiting: Sequence[redlock.Waiter]) -> str:
    """Who waits, the first of each process, in the order of their turns."""
    now = Entropy().wall_us() / 1e6
    # The place's own name, and what its process or candidate says of itself behind it.
    told = [
        f"{clean(waiter.name.partition(' ')[2] or waiter.name)} for {_age(now - waiter.since)}"
        for waiter in waiting
    ]
    return f"waiting: {', '.join(told)}"


def _age(seconds: float) -> str:
    return f"{max(0.0, seconds):.3g} s"


def _vote(vote: CastVote) -> dict[str, object]:
    held = vote.ttl_left is not None
    return {
        "node": vote.node,
        "says": vote.reason,
        "held": held if vote.error is None else None,
        "expires": vote.ttl_left >= 0 if vote.ttl_left is not None else None,
        "ttl_left": vote.ttl_left if vote.ttl_left is not None and vote.ttl_left >= 0 else None,
        "fencing_token": vote.fencing_token,
        "error": type(vote.error).__name__ if vote.error is not None else None,
    }


def _ttl_left(vote: CastVote) -> str:
    if vote.ttl_left is None:
        return ""
    return "no expiry" if vote.ttl_left < 0 else f"{vote.ttl_left:.3g} s"
