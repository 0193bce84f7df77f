"""`redlock locks`: what is held."""

from __future__ import annotations

import dataclasses

import click

from redlock.cli.options import JSON_OPTION, NODE_OPTION, PREFIX_OPTION, nodes_of
from redlock.cli.screen import Listing, new_console, print_json, who
from redlock.cli.statuses import UNAVAILABLE
from redlock.cli.waiting import patience
from redlock.core.quorum import majority
from redlock.core.remedies import told
from redlock.diagnose import diagnose, is_hopeless
from redlock.operate import Held, Inventory, held_locks
from redlock.supervise import MISUSED, OK, say
from redlock.transport.dial import endpoints

_STATUSES = """\b
Exit status:
  0  a majority of the nodes answered
  2  usage or configuration
  5  no quorum: no majority of the nodes answered in time
"""


@click.command(epilog=_STATUSES, short_help="List the locks that are held.")
@NODE_OPTION
@PREFIX_OPTION
@click.option("--prefix", default="", help="Only names that begin with this.")
@click.option(
    "--max",
    "most",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Look at so many names at most.",
)
@JSON_OPTION
def locks(urls: tuple[str, ...], key_prefix: str, prefix: str, most: int, as_json: bool) -> int:
    """List the locks that a majority of the nodes shows: holder, fencing token, age, and how long
    they have left unless they are renewed.

    Goes through the keys of every node with SCAN, and writes nothing.
    """
    nodes = nodes_of(urls)
    with patience("going through the keys of all nodes"):
        found = held_locks(nodes, key_prefix=key_prefix, prefix=prefix, most=most)
    status = answered(nodes, found.faults)
    if as_json:
        listed = [dataclasses.asdict(each) for each in found.locks]
        print_json({"locks": listed, "unclear": found.unclear, "whole": found.whole})
    elif status == OK:
        _show(found, most, len(nodes))
    return status


def answered(nodes: list[str], faults: dict[int, str]) -> int:
    """The exit status for what an operator asked of all nodes: whether a majority answered. Says
    why others did not."""
    if not faults:
        return OK
    lasting = diagnose(nodes, faults)
    names = [endpoint.name for endpoint in endpoints(nodes)]
    count, needed = len(nodes) - len(faults), majority(len(nodes))
    reasons = [(names[node], lasting.get(node, why)) for node, why in sorted(faults.items())]
    say(told(f"{count} of {len(nodes)} nodes answered, {needed} needed", reasons))
    if count >= needed:
        return OK
    return MISUSED if is_hopeless(lasting, len(nodes)) else UNAVAILABLE


def _show(found: Inventory, most: int, nodes: int) -> None:
    console = new_console()
    listing = Listing("lock", "holder", "fencing token", "age", "left", "nodes")
    for each in found.locks:
        listing.add(
            each.resource,
            who(each.held_by, each.holder),
            str(each.fencing_token or "none: not redlock's"),
            "" if each.age is None else span(each.age),
            left(each),
            f"{each.nodes} of {nodes}",
            style="red" if each.ttl_left is None else "",
        )
    if found.locks:
        listing.print(console)
    console.print(f"{len(found.locks)} held", style="bold")
    if found.unclear:
        console.print(f"{found.unclear} more are on too few nodes, as while they change hands")
    if not found.whole:
        console.print(f"not all: more than {most} names, or too many keys; give a --prefix")


def left(held: Held) -> str:
    """How long a lock stands unless it is renewed."""
    return "no expiry" if held.ttl_left is None else span(held.ttl_left)


def span(seconds: float) -> str:
    """A length of time for people."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
