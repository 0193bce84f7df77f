"""The command line: `redlock lock`, `status`, `nodes`, `init` and `demo`.

Thin: every command calls the public API once and shows what it says. The one part with rules of its own is the
supervisor behind `lock`, which must have stopped the command before the lease's validity ends. It decides by the lease
clock alone and never waits for I/O. Credentials are never printed: nodes go by their names, error texts are scrubbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import redlock
from redlock.core.identity import Marker
from redlock.core.quorum import majority
from redlock.errors import CastVote, ConfigurationError, LeaseLost, LockContended, QuorumUnavailable, RedlockError
from redlock.initialise import initialise
from redlock.observe import Event, LeaseInJeopardy
from redlock.supervise import (
    GUARD_SHARE,
    LOST,
    MISUSED,
    OK,
    TTL_MIN,
    Child,
    Guard,
    Interrupted,
    Signals,
    cannot_run,
    say,
    say_if_heard,
    scrubbed,
    stand_in,
    supervise,
)
from redlock.transport.clock import now
from redlock.transport.dial import endpoints

if TYPE_CHECKING:
    import click
    from rich.console import Console
    from rich.table import Table

__all__ = ["main"]

NO_MAJORITY, CONTENDED, UNAVAILABLE = 1, 4, 5

_LOCK_STATUSES = """\b
Exit status:
  that of CMD, or 128+N if signal N ended it; and of its own
    2  usage or configuration
    4  contended: somebody else holds the lock (--no-wait, --timeout)
    5  no quorum: no majority of the nodes answered in time
    6  the lease could not be kept, and CMD was stopped
  126  CMD cannot be executed
  127  CMD was not found
"""
_NODES_STATUSES = """\b
Exit status:
  0  a majority of the nodes votes
  1  it does not
  2  usage or configuration
"""
_DEMO_STATUSES = """\b
Exit status:
  0  the verdict is clean
  1  it is not
  2  it could not start, for want of a server perhaps
"""


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    stand_in()
    try:
        import click
        import rich  # noqa: F401
    except ImportError:
        say("the command line needs two more packages: pip install 'redlock-quorum[cli]'")
        sys.exit(MISUSED)
    warnings.showwarning = _show_warning
    try:
        status = _commands().main(prog_name="redlock", standalone_mode=False)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        with contextlib.suppress(OSError):
            sys.stderr.write(scrubbed(text.getvalue()))  # A misplaced argument is repeated, and may be a URL.
        status = MISUSED
    except ConfigurationError as error:
        say(str(error))
        status = MISUSED
    except RedlockError as error:
        say(str(error))
        status = UNAVAILABLE
    except (KeyboardInterrupt, click.Abort):
        status = 128 + signal.SIGINT
    except (BrokenPipeError, SystemExit):
        # `redlock nodes | head`: nobody reads any more. Click and Rich exit with 1 then, which would mean that no majority votes.
        # Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def _commands() -> click.Group:
    """What can be typed; each command hands over to a function below."""
    import click

    node_option = click.option(
        "--node",
        "urls",
        multiple=True,
        metavar="URL",
        help="One node, redis://host:port; repeat for each. Default: REDLOCK_NODES, separated by commas or spaces, "
        "which also keeps passwords out of the process list.",
    )
    prefix_option = click.option(
        "--key-prefix", default="redlock:", show_default=True, help="What the names of lock keys begin with."
    )
    json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    seconds = click.FloatRange(min=0)

    @click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    @click.version_option(redlock.__version__, message="redlock %(version)s")
    @click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
    def commands(verbose: bool) -> None:
        """Quorum locks on N independent Redis or Valkey masters."""
        if verbose:
            logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
            logging.getLogger("redlock").setLevel(logging.DEBUG)

    @commands.command(epilog=_LOCK_STATUSES, short_help="Run a command while holding a lock.")
    @node_option
    @click.option(
        "--ttl", type=click.FloatRange(min=TTL_MIN), default=10.0, show_default=True, help="Seconds a crash blocks others for."
    )
    @click.option("--timeout", type=seconds, help="Seconds to wait for the lock. Default: for ever.")
    @click.option("--no-wait", is_flag=True, help="Try once.")
    @prefix_option
    @click.argument("resource")
    @click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
    def lock(
        urls: tuple[str, ...],
        ttl: float,
        timeout: float | None,
        no_wait: bool,
        key_prefix: str,
        resource: str,
        command: tuple[str, ...],
    ) -> int:
        """Run CMD while holding the lock on RESOURCE.

        The lease is renewed until CMD ends. CMD finds its fencing token in REDLOCK_FENCING_TOKEN and the resource in
        REDLOCK_RESOURCE, and should give the token to whatever it writes to.

        CMD runs in a process group of its own, and signals are forwarded to that group. If the lease cannot be renewed, the
        group gets SIGTERM with 30 % of the ttl left, and SIGKILL with 10 % left, before anybody else can hold the lock; a
        guard process sees to it if redlock itself is killed or stopped. What CMD leaves running in its group is killed when
        CMD ends.
        """
        if no_wait and timeout is not None:
            raise click.UsageError("--no-wait and --timeout exclude each other.")
        return _lock(_nodes(urls), resource, command, ttl=ttl, timeout=0.0 if no_wait else timeout, key_prefix=key_prefix)

    @commands.command(short_help="Show who holds a lock.")
    @node_option
    @prefix_option
    @json_option
    @click.argument("resource")
    def status(urls: tuple[str, ...], key_prefix: str, as_json: bool, resource: str) -> int:
        """Show who holds the lock on RESOURCE, as the quorum sees it and node by node."""
        return _status(_nodes(urls), resource, key_prefix=key_prefix, as_json=as_json)

    @commands.command(
        epilog="\b\nExit status:\n  0  a majority of the nodes votes\n  1  it does not\n  2  usage or configuration"
    )
    @node_option
    @json_option
    @click.option(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="Repeat until all nodes vote, at most this long. A node that lost its data "
        "votes again once somebody has watched it for its whole quarantine.",
    )
    def nodes(urls: tuple[str, ...], as_json: bool, wait: float) -> int:
        """Show every node: whether it votes and why not, who it is, its round trip and its clock."""
        return _report_nodes(_nodes(urls), wait=wait, as_json=as_json)

    @commands.command(short_help="Mark the nodes of a new cluster.")
    @node_option
    @click.option("--max-ttl", type=seconds, help="Longest ttl in seconds that anybody may ask for. Default: 60.")
    @click.option("--durable", is_flag=True, help="The nodes run appendfsync always: a restart costs no quarantine.")
    @click.option(
        "--never-replicas",
        is_flag=True,
        help="No node is ever made a replica: a backup of a node, which changes its replication id, costs nothing then. "
        "Can be promised later too.",
    )
    @click.option("--cluster", metavar="ID", help="An id that keeps clients with other node lists out.")
    @click.option("--replace", is_flag=True, help="Mark a marked cluster anew; refused while any lock lives.")
    @json_option
    def init(
        urls: tuple[str, ...],
        max_ttl: float | None,
        durable: bool,
        never_replicas: bool,
        cluster: str | None,
        replace: bool,
        as_json: bool,
    ) -> int:
        """Mark the nodes of a new cluster, so that it grants locks at once. All of them must answer.

        On a cluster that is marked already, a larger --max-ttl raises it, and --never-replicas promises that from now on. Run
        it again if it broke off.
        """
        names = _nodes(urls)
        made = initialise(
            names, max_ttl=max_ttl, durable=durable, never_replicas=never_replicas, cluster=cluster, replace=replace
        )
        return _show_markers([endpoint.name for endpoint in endpoints(names)], made, as_json=as_json)

    @commands.command(epilog=_DEMO_STATUSES, short_help="Watch locks work while servers fail.")
    @click.option("--seconds", type=click.FloatRange(min=2.0, max=50.0), default=20.0, show_default=True, help="How long.")
    def demo(seconds: float) -> int:
        """Five servers, three workers, two faults, one verdict: watch the lock work, on this machine alone."""
        from redlock.demo import run

        return run(seconds)

    return commands


def _nodes(urls: Sequence[str]) -> list[str]:
    found = list(urls) or re.findall(r"[^\s,]+", os.environ.get("REDLOCK_NODES", ""))
    if not found:
        raise ConfigurationError("no nodes: give --node URL for each, or set REDLOCK_NODES")
    return found


# redlock lock


def _lock(
    nodes: Sequence[str], resource: str, command: Sequence[str], *, ttl: float, timeout: float | None, key_prefix: str
) -> int:
    if shutil.which(command[0]) is None:  # Known before anybody has to wait for it.
        return cannot_run(command[0], found=os.sep in command[0] and Path(command[0]).exists())
    jeopardy: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, LeaseInJeopardy):
            jeopardy[:] = [event.votes]

    signals = Signals()
    # Guard and child are forked before the coordinator starts threads.
    with (
        contextlib.suppress(Interrupted),
        signals,
        Guard(margin=ttl * GUARD_SHARE) as guard,
        Child(command, resource) as child,
    ):
        signals.check()
        try:
            with (
                redlock.Redlock(nodes, ttl=ttl, key_prefix=key_prefix, on_event=hear) as locks,
                locks.lock(resource, timeout=timeout, auto_extend=True) as lease,
            ):
                signals.hold()
                return supervise(child, lease, signals, guard, jeopardy)
        except LockContended as error:
            say(f"{resource!r} is somebody else's: {error}")
            return CONTENDED
        except QuorumUnavailable as error:
            say(f"no quorum for {resource!r}: {error}")
            return UNAVAILABLE
        except LeaseLost as error:
            say_if_heard(f"the lease was lost: {error}")
            return LOST
    return signals.interrupted


# redlock status, nodes, init


def _status(nodes: Sequence[str], resource: str, *, key_prefix: str, as_json: bool) -> int:
    with redlock.Redlock(nodes, key_prefix=key_prefix) as locks:
        status = locks.status(resource)
    if as_json:
        whole = {field: getattr(status, field) for field in ("resource", "held", "holder", "fencing_token", "ttl_left")}
        expires = status.ttl_left is not None if status.held else None
        _print_json({**whole, "expires": expires, "nodes": [_vote(vote) for vote in status.votes]})
        return OK
    console = _console()
    console.print(_verdict(status), style="bold")
    table = _table("node", "says", "ttl left", "highest token")
    for vote in status.votes:
        style = "red" if vote.error is not None else "dim" if vote.ttl_left is None else ""
        table.add_row(vote.node, vote.reason, _ttl_left(vote), str(vote.fencing_token or ""), style=style)
    console.print(table)
    return OK


def _verdict(status: redlock.ResourceStatus) -> str:
    name = repr(status.resource)
    if status.held is None:
        return f"{name}: unknown, no majority of the nodes agrees"
    if not status.held:
        return f"{name}: free"
    token = f"fencing token {status.fencing_token}" if status.fencing_token else "no fencing token: not one of redlock's locks"
    left = "WITHOUT AN EXPIRY: it stays until deleted" if status.ttl_left is None else f"{status.ttl_left:.3g} s left"
    return f"{name}: held by {status.holder}, {token}, {left}"


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


def _report_nodes(nodes: Sequence[str], *, wait: float, as_json: bool) -> int:
    until = now() + wait
    with redlock.Redlock(nodes) as locks, _waiting(enabled=wait > 0) as tell:
        reports = _look(locks)
        while not all(report.votes for report in reports) and now() < until:
            tell(reports, until - now())
            time.sleep(min(0.5, max(0.0, until - now())))
            reports = _look(locks)
    needed, votes = majority(len(reports)), sum(report.votes for report in reports)
    if as_json:
        listed = [dataclasses.asdict(report) for report in reports]
        _print_json({"nodes": listed, "votes": votes, "needed": needed, "majority": votes >= needed})
    else:
        console = _console()
        console.print(_nodes_table(reports))
        verdict = "a majority" if votes >= needed else "no majority: no lock can be granted"
        console.print(f"{votes} of {len(reports)} nodes vote, {needed} needed: {verdict}", style="bold")
    return OK if votes >= needed else NO_MAJORITY


def _look(locks: redlock.Redlock) -> list[redlock.NodeReport]:
    try:
        return locks.nodes()
    except ConfigurationError:
        return locks.nodes()  # Only the first use refuses misfits; here they are what one wants to see.


@contextlib.contextmanager
def _waiting(*, enabled: bool) -> Iterator[Callable[[Iterable[redlock.NodeReport], float], None]]:
    """A line on a terminal's stderr about who is waited for; elsewhere nothing."""
    console = _console(sys.stderr)
    if not (enabled and console.is_terminal):
        yield lambda reports, left: None
        return
    with console.status("waiting") as line:

        def tell(reports: Iterable[redlock.NodeReport], left: float) -> None:
            silent = "; ".join(f"{report.node} {report.reason}" for report in reports if not report.votes)
            line.update(f"{left:.0f} s more at most: {silent}")

        yield tell


_SHARED: dict[str, Callable[[redlock.NodeReport], str | None]] = {
    "role": lambda report: report.role,
    "version": lambda report: report.version,
    "eviction": lambda report: report.policy,
    "max ttl": lambda report: None if report.max_ttl is None else f"{report.max_ttl:g} s",
    "durable": lambda report: _yes_or_no(report.durable),
    "never replicas": lambda report: _yes_or_no(report.never_replicas),
    "cluster": lambda report: report.cluster,
}
_OWN: dict[str, Callable[[redlock.NodeReport], str | None]] = {
    "run id": lambda report: report.run_id and report.run_id[:8],
    "memory": lambda report: report.memory and report.memory[:8],
    "since": lambda report: None if report.memory_since is None else _instant(report.memory_since),
    "up": lambda report: None if report.uptime is None else _duration(report.uptime),
    "quarantine": lambda report: None if report.quarantine_left is None else f"{report.quarantine_left:.1f} s",
    "round trip": lambda report: None if report.round_trip is None else f"{report.round_trip * 1e3:.2f} ms",
    "clock": lambda report: None if report.clock_offset is None else f"{report.clock_offset * 1e3:+.1f} ms",
}


def _nodes_table(reports: Sequence[redlock.NodeReport]) -> Table:
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
    table = _table("node", "votes", *columns, "reason")
    table.caption = f"all: {', '.join(caption)}" if caption else None
    for report in reports:
        cells = [cell(report) or "" for cell in columns.values()]
        table.add_row(
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


def _show_markers(names: Sequence[str], made: Sequence[Marker], *, as_json: bool) -> int:
    first = made[0]
    cluster = None if first.cluster == "-" else first.cluster
    if as_json:
        marked = [
            {"node": name, "run_id": marker.memory.run_id, "memory": marker.memory.replication_id}
            for name, marker in zip(names, made, strict=True)
        ]
        promised = {"max_ttl": first.max_ttl, "durable": first.durable, "never_replicas": first.never_replicas}
        _print_json({"nodes": marked, **promised, "cluster": cluster})
        return OK
    console = _console()
    table = _table("node", "run id", "memory")
    for name, marker in zip(names, made, strict=True):
        table.add_row(name, marker.memory.run_id[:8], marker.memory.replication_id[:8])
    console.print(table)
    promises = f"max ttl {first.max_ttl:g} s, {'durable' if first.durable else 'not durable'}"
    promises += ", never replicas" if first.never_replicas else ""
    console.print(f"{len(made)} nodes marked: {promises}" + (f", cluster {cluster}" if cluster else ""), style="bold")
    return OK


# What is shown


def _console(file: IO[str] | None = None) -> Console:
    from rich.console import Console

    # Names and reasons are data: no markup, no emoji. A pipe or a log has no width that lines should break at.
    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


def _table(*headers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(*headers, box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, show_edge=False)
    table.columns[0].no_wrap = True
    return table


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}")


if __name__ == "__main__":
    main()
