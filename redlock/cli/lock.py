"""`redlock lock`: run a command while holding a lock."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

import redlock
from redlock.cli.options import NODE_OPTION, PREFIX_OPTION, SECONDS, nodes_of
from redlock.cli.outcome import Done, done, interrupted, noted
from redlock.cli.reasons import contended, unavailable
from redlock.cli.running import CONFLICT_OPTION, OUTCOME_OPTION, Runs, command_argument
from redlock.cli.statuses import CONTENDED, UNAVAILABLE
from redlock.cli.waiting import Waiting
from redlock.errors import LeaseLost, LockContended, QuorumUnavailable
from redlock.observe import Event, LeaseInJeopardy
from redlock.supervise import (
    LOST,
    MISUSED,
    TTL_MIN,
    Child,
    Guard,
    Interrupted,
    Signals,
    cannot_run,
    say,
    say_if_heard,
    supervise,
)
from redlock.tenure import Leased

_STATUSES = """\b
Exit status:
  that of CMD, or 128+N if signal N ended it; and of its own
    2  usage or configuration
    4  contended: somebody else holds the lock (--no-wait, --timeout); -E sets another
    5  no quorum: no majority of the nodes answered in time
    6  the lease could not be kept, and CMD was stopped
  126  CMD cannot be executed
  127  CMD was not found
Each of its own has a line on stderr, and --outcome tells whose it is.
"""


@click.command(cls=Runs, epilog=_STATUSES, short_help="Run a command while holding a lock.")
@NODE_OPTION
@click.option(
    "--ttl",
    type=click.FloatRange(min=TTL_MIN),
    default=10.0,
    show_default=True,
    help="Seconds a crash blocks others for.",
)
@click.option("--timeout", type=SECONDS, help="Seconds to wait for the lock. Default: for ever.")
@click.option("--no-wait", is_flag=True, help="Try once.")
@CONFLICT_OPTION
@OUTCOME_OPTION
@PREFIX_OPTION
@click.argument("resource")
@command_argument(required=True)
def lock(
    urls: tuple[str, ...],
    ttl: float,
    timeout: float | None,
    no_wait: bool,
    conflict: int,
    outcome: IO[str] | None,
    key_prefix: str,
    resource: str,
    command: tuple[str, ...],
) -> int:
    """Run CMD while holding the lock on RESOURCE.

    Options stand before CMD: from its first word on everything is CMD's.

    The lease is renewed until CMD ends. CMD finds its fencing token in REDLOCK_FENCING_TOKEN, and
    should give it to whatever it writes to; the resource in REDLOCK_RESOURCE; and in
    REDLOCK_DEADLINE by when it would be killed if no renewal came, in seconds on CLOCK_BOOTTIME.

    CMD runs in a process group of its own, which has the terminal as under a shell, and signals are
    forwarded to that group. If the lease
    cannot be renewed, the group gets SIGTERM with 30 % of the ttl left, and SIGKILL with 10 % left,
    before anybody else can hold the lock; a guard process sees to it if redlock itself is killed or
    stopped. What CMD leaves running in its group is killed when CMD ends.
    """
    if no_wait and timeout is not None:
        raise click.UsageError("--no-wait and --timeout exclude each other.")
    most = 0.0 if no_wait else timeout
    return noted(
        resource,
        outcome,
        conflict,
        lambda: _run(
            nodes_of(urls), resource, command, ttl=ttl, timeout=most, key_prefix=key_prefix
        ),
    )


# Long: the options, the supervisor's statuses and what is said of each.
def _run(
    nodes: Sequence[str],
    resource: str,
    command: Sequence[str],
    *,
    ttl: float,
    timeout: float | None,
    key_prefix: str,
) -> Done:
    if shutil.which(command[0]) is None:  # Known before anybody has to wait for it.
        found = os.sep in command[0] and Path(command[0]).exists()
        return Done(cannot_run(command[0], found=found))
    jeopardy: list[str] = []
    waiting: Waiting | None = None

    def hear(event: Event) -> None:
        if isinstance(event, LeaseInJeopardy):
            jeopardy[:] = [event.votes]
        elif waiting is not None:
            waiting.hear(event)

    signals = Signals()
    # Guard and child are forked before the coordinator starts threads.
    with (
        contextlib.suppress(Interrupted),
        signals,
        Guard() as guard,
        Child(command, {"REDLOCK_RESOURCE": resource}) as child,
    ):
        signals.check()
        try:
            with (
                redlock.Redlock(nodes, ttl=ttl, key_prefix=key_prefix, on_event=hear) as locks,
                Waiting(locks, nodes, resource) as waiting,
                locks.lock(resource, timeout=timeout, auto_extend=True) as lease,
            ):
                waiting.over()
                signals.hold()
                return done(supervise(child, Leased(lease), signals, guard, jeopardy=jeopardy))
        except LockContended as error:
            say(contended(error, resource))
            return Done(CONTENDED)
        except QuorumUnavailable as error:
            text, hopeless = unavailable(error, resource, nodes)
            say(text)
            return Done(MISUSED if hopeless else UNAVAILABLE)
        except LeaseLost as error:
            say_if_heard(f"the lease was lost: {error}")
            return Done(LOST)
    return interrupted(signals.interrupted)
