"""`redlock leader`: who leads."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

import redlock
from redlock.cli.options import NODE_OPTION, PREFIX_OPTION, nodes_of
from redlock.cli.reasons import unavailable
from redlock.cli.statuses import NOBODY, UNAVAILABLE
from redlock.cli.waiting import Waiting
from redlock.errors import QuorumUnavailable
from redlock.supervise import MISUSED, OK, say, visible

_STATUSES = """\b
Exit status:
    0  somebody leads
    1  nobody does, or no majority agrees on one
    2  usage or configuration
    5  no quorum: no majority of the nodes answered in time
  130  --watch was ended by Ctrl-C
"""


@click.command(epilog=_STATUSES, short_help="Show who leads.")
@NODE_OPTION
@PREFIX_OPTION
@click.option(
    "--watch",
    is_flag=True,
    help="Then print a line at every change, until Ctrl-C; stderr says why no majority answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@click.argument("name")
def leader(urls: tuple[str, ...], key_prefix: str, watch: bool, as_json: bool, name: str) -> int:
    """Show who leads in the election NAME, as a majority of the nodes says: the candidate, its
    fencing token, since when by its own clock, and what it tells of itself.

    Informational: the term may have ended by the time this is read.
    """
    nodes = nodes_of(urls)
    with redlock.Redlock(nodes, key_prefix=key_prefix) as locks:
        election = locks.election(name)
        if watch:
            with Waiting(locks, nodes, name, what="watching", holders=False):
                for leads in election.observe():
                    _show(name, leads, as_json=as_json)
            return OK
        try:
            leads = election.leader()
        except QuorumUnavailable as error:
            text, hopeless = unavailable(error, name, nodes)
            say(text)
            return MISUSED if hopeless else UNAVAILABLE
    _show(name, leads, as_json=as_json)
    return OK if leads is not None else NOBODY


def _show(name: str, leads: redlock.Leader | None, *, as_json: bool) -> None:
    sys.stdout.write((_object(name, leads) if as_json else visible(_line(name, leads))) + "\n")
    sys.stdout.flush()


def _object(name: str, leads: redlock.Leader | None) -> str:
    told = {
        "election": name,
        "led": leads is not None,
        "candidate": leads.candidate if leads else None,
        "info": dict(leads.info) if leads else None,
        "fencing_token": leads.fencing_token if leads else None,
        "since": leads.since if leads else None,
    }
    return json.dumps(told)


def _line(name: str, leads: redlock.Leader | None) -> str:
    if leads is None:
        return f"{name!r}: nobody leads"
    since = datetime.fromtimestamp(leads.since, UTC).strftime("%Y-%m-%d %H:%M:%S")
    parts = [f"led by {leads.candidate!r}", f"fencing token {leads.fencing_token}"]
    parts.append(f"since {since} UTC")
    if leads.info:
        parts.append(json.dumps(dict(leads.info), ensure_ascii=False))
    return f"{name!r}: {', '.join(parts)}"
