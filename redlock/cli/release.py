"""`redlock release --force`: take a lock from its holder."""

from __future__ import annotations

import sys

import click

from redlock.cli.locks import answered, left, span
from redlock.cli.options import NODE_OPTION, PREFIX_OPTION, nodes_of
from redlock.cli.screen import who
from redlock.cli.statuses import CONTENDED, UNAVAILABLE, UNCLEAR
from redlock.cli.waiting import patience
from redlock.core.quorum import majority
from redlock.operate import Held, oust, show
from redlock.supervise import OK, say

_STATUSES = """\b
Exit status:
  0  nobody holds it any more
  1  not confirmed; or no majority says who holds it, as while it changes hands
  2  usage or configuration
  4  somebody else holds it by now, who was left alone
  5  no quorum: too few nodes did it, and the holder may go on; run it again
"""


@click.command(epilog=_STATUSES, short_help="Take a lock from its holder.")
@NODE_OPTION
@PREFIX_OPTION
@click.option("--force", is_flag=True, help="Needed: a lock is given back by its holder alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("resource", metavar="NAME")
def release(urls: tuple[str, ...], key_prefix: str, force: bool, yes: bool, resource: str) -> int:
    """Take the lock NAME from its holder, who cannot be reached or does not end.

    The fences are raised past the holder's token first, and the lock goes only where it still is
    what was shown. Its holder believes to hold it until its next renewal, and its work may go on
    for so long: only a resource that checks fencing tokens is safe from that.
    """
    if not force:
        raise click.UsageError("a lock is given back by its holder; --force takes it away.")
    nodes = nodes_of(urls)
    with patience("waiting for the answers of all nodes"):
        shown = show(nodes, resource, key_prefix=key_prefix)
    status = answered(nodes, shown.faults)
    if status != OK:
        return status
    if shown.held is None:
        say(f"{resource!r}: " + ("free, nothing to release" if shown.free else _UNKNOWN))
        return OK if shown.free else UNCLEAR
    say(f"{resource!r}: {_described(shown.held)}")
    if not yes and not _is_confirmed():
        return UNCLEAR
    with patience("waiting for the answers of all nodes"):
        done = oust(nodes, shown, key_prefix=key_prefix)
    needed = majority(len(nodes))
    if done.gone >= needed:
        token = shown.held.fencing_token
        behind = f", and fences are past {token}" if token else ""
        say(f"{resource!r}: released on {done.gone} of {len(nodes)} nodes{behind}")
        return OK
    if done.others > len(nodes) - needed:
        say(
            f"{resource!r}: somebody else holds it by now, and was left alone: see `redlock status`"
        )
        return CONTENDED
    answered(nodes, done.faults)
    say(f"{resource!r}: gone on {done.gone} of {len(nodes)} nodes, {needed} needed: run it again")
    return UNAVAILABLE


_UNKNOWN = "no majority says who holds it: look again, or at `redlock status`"


def _described(held: Held) -> str:
    parts = [f"held by {who(held.held_by, held.holder)}"]
    if held.fencing_token is not None and held.age is not None:
        parts.append(f"fencing token {held.fencing_token}, for {span(held.age)}")
    parts.append("WITHOUT AN EXPIRY" if held.ttl_left is None else f"{left(held)} left")
    parts.append("its holder may work on until its next renewal")
    return ", ".join(parts)


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: give --yes.")
    try:
        return click.confirm("Take it away?", err=True)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):  # Ctrl-C, and not Ctrl-D.
            raise
        click.echo(err=True)
        return False
