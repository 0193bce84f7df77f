"""`redlock nodes`: who votes, and why not."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import click

import redlock
from redlock.cli.options import JSON_OPTION, NODE_OPTION, SECONDS, nodes_of
from redlock.cli.screen import Listing, new_console, print_json
from redlock.cli.statuses import NO_MAJORITY
from redlock.core.quorum import majority
from redlock.core.remedies import alike, told
from redlock.diagnose import diagnose
from redlock.errors import ConfigurationError
from redlock.supervise import OK, say_if_heard
from redlock.transport.clock import now

_STATUSES = """\b
Exit status:
  0  a majority of the nodes votes
  1  it does not
  2  usage or configuration
"""


@click.command(epilog=_STATUSES)
@NODE_OPTION
@JSON_OPTION
@click.option(
    "--wait",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="Repeat until all nodes vote, at most this long. A node that lost its data "
    "votes again once somebody has watched it for its whole quarantine.",
)
def nodes(urls: tuple[str, ...], as_json: bool, wait: float) -> int:
    """Show every node: whether it votes and why not, who it is, its round trip and its clock."""
    return _report(nodes_of(urls), wait=wait, as_json=as_json)


def _report(nodes: Sequence[str], *, wait: float, as_json: bool) -> int:
    until = now() + wait
    with redlock.Redlock(nodes) as locks, _waiting(enabled=wait > 0) as tell:
        reports = look(locks)
        while not all(report.votes for report in reports) and now() < until:
            tell(reports, until - now())
            time.sleep(min(0.5, max(0.0, until - now())))
            reports = look(locks)
    reports = _diagnosed(nodes, reports)
    needed, votes = majority(len(reports)), sum(report.votes for report in reports)
    if as_json:
        listed = [dataclasses.asdict(report) for report in reports]
        print_json({"nodes": listed, "votes": votes, "needed": needed, "majority": votes >= needed})
    else:
        console = new_console()
        _nodes_table(reports).print(console)
        verdict = "a majority" if votes >= needed else "no majority: no lock can be granted"
        console.print(
            f"{votes} of {len(reports)} nodes vote, {needed} needed: {verdict}", style="bold"
        )
    return OK if votes >= needed else NO_MAJORITY


def _diagnosed(
    nodes: Sequence[str], reports: Sequence[redlock.NodeReport]
) -> list[redlock.NodeReport]:
    """The same with what will not pass by itself, and what to do, for nodes that said nothing."""
    silent = [index for index, report in enumerate(reports) if report.role is None]
    lasting = diagnose(nodes, silent)
    return [
        dataclasses.replace(report, reason=lasting.get(index, report.reason))
        for index, report in enumerate(reports)
    ]


def look(locks: redlock.Redlock) -> list[redlock.NodeReport]:
    """What every node says of itself, misfits too."""
    try:
        return locks.nodes()
    except ConfigurationError:
        # Only the first use refuses misfits; here they are what one wants to see.
        return locks.nodes()


@contextlib.contextmanager
def _waiting(*, enabled: bool) -> Iterator[Callable[[Iterable[redlock.NodeReport], float], None]]:
    """On stderr, who is waited for: on a terminal a line that changes, elsewhere one at every
    change."""
    console = new_console(sys.stderr)
    if not (enabled and console.is_terminal):
        before: list[object] = []

        def say_so(reports: Iterable[redlock.NodeReport], left: float) -> None:
            silent = [(report.node, report.reason) for report in reports if not report.votes]
            key = [(node, alike(reason)) for node, reason in silent]
            if key != before:
                before[:] = key
                say_if_heard(told(f"waiting at most {left:.0f} s more", silent))

        yield say_so
        return
    with console.status("waiting") as line:

        def tell(reports: Iterable[redlock.NodeReport], left: float) -> None:
            silent = "; ".join(
                f"{report.node} {report.reason}" for report in reports if not report.votes
            )
            line.update(f"{left:.0f} s more at most: {silent}")

        yield tell


_SHARED: dict[str, Callable[[redlock.NodeReport], str | None]] = {
    "role": lambda report: report.role,
    "version": lambda report: report.version,
    "eviction": lambda report: report.policy,
    "max ttl": lambda report: None if report.max_ttl is None else f"{report.max_ttl:g} s",
    "durable": lambda report: _yes_or_no(report.durable),
    "never replicas": lambda report: _yes_or_no(report.never_replicas),
    "wake-ups": lambda report: _yes_or_no(report.wakes),
    "cluster": lambda report: report.cluster,
}
_OWN: dict[str, Callable[[redlock.NodeReport], str | None]] = {
    "run id": lambda report: report.run_id and report.run_id[:8],
    "memory": lambda report: report.memory and report.memory[:8],
    "since": lambda report: None if report.memory_since is None else _instant(report.memory_since),
    "up": lambda report: None if report.uptime is None else _duration(report.uptime),
    "quarantine": lambda report: (
        None if report.quarantine_left is None else f"{report.quarantine_left:.1f} s"
    ),
    "round trip": lambda report: (
        None if report.round_trip is None else f"{report.round_trip * 1e3:.2f} ms"
    ),
    "clock": lambda report: (
        None if report.clock_offset is None else f"{report.clock_offset * 1e3:+.1f} ms"
    ),
}


def _nodes_table(reports: Sequence[redlock.NodeReport]) -> Listing:
    """A column for what differs; what all nodes that told have in common goes into the caption."""
    columns, caption = dict(_OWN), []
    for name, cell in _SHARED.items():
        values = {cell(report) for report in reports} - {None}
        if len(values) > 1:
            columns[name] = cell
        elif values:
            caption.append(f"{name} {values.pop()}")
    if not any(report.quarantine_left is not None for report in reports):
        del columns["quarantine"]
    table = Listing("node", "votes", *columns, "reason")
    table.caption = f"all: {', '.join(caption)}" if caption else None
    for report in reports:
        cells = [cell(report) or "" for cell in columns.values()]
        table.add(
            report.node,
            "yes" if report.votes else "no",
            *cells,
            report.reason,
            style="" if report.votes else "yellow" if report.quarantine_left is not None else "red",
        )
    return table


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
