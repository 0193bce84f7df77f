"""`redlock elect`: run a command for as long as this candidate leads."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

import redlock
from redlock.cli.check import check
from redlock.cli.fitness import Fitness
from redlock.cli.options import NODE_OPTION, PREFIX_OPTION, SECONDS, nodes_of
from redlock.cli.outcome import Done, done, interrupted, noted
from redlock.cli.reasons import contended, unavailable
from redlock.cli.running import CONFLICT_OPTION, OUTCOME_OPTION, Runs, command_argument
from redlock.cli.statuses import CONTENDED, UNAVAILABLE, UNFIT
from redlock.cli.systemd import Notifier
from redlock.cli.waiting import Waiting
from redlock.errors import CandidateUnfit, LeadershipLost, LockContended, QuorumUnavailable
from redlock.observe import Event, LeaseInJeopardy, TermStopping
from redlock.supervise import (
    LOST,
    MISUSED,
    OK,
    TTL_MIN,
    Child,
    Ending,
    Guard,
    Interrupted,
    Phase,
    Signals,
    cannot_run,
    say,
    say_if_heard,
    supervise,
)
from redlock.tenure import Leading
from redlock.transport.clock import now

_STATUSES = """\b
Exit status:
  that of CMD, or 128+N if signal N ended it or the wait; and of its own
    2  usage or configuration; timings that do not hold
    4  contended: somebody else leads (--no-wait, --timeout); -E sets another
    5  no quorum: no majority of the nodes answered in time
    6  leadership was lost, and CMD was stopped (--once)
    7  unfit: --eligible did not say yes in time (--no-wait, --timeout)
  126  CMD cannot be executed
  127  CMD was not found
Each of its own has a line on stderr, and --outcome tells whose it is.
\b
With --check:
    0  a majority of the nodes votes and lets this user lead, and the timings hold
    1  it does not
    2  usage or configuration; timings that do not hold
"""

PAUSE, PAUSE_MAX = 1.0, 32.0
"""Seconds between the end of CMD and the next campaign with --restart: doubles while CMD fails, as
an error that stays must not make the fleet change its leader every second."""
THREADS_END = 30.0
"""Seconds for a coordinator's threads to end. They end with its close, but for one that looks up a
name, and one in which a check runs; both give up in less."""


@dataclass(frozen=True)
class Wish:
    """What was typed."""

    nodes: Sequence[str]
    name: str
    command: Sequence[str]
    timings: redlock.ElectionTimings
    key_prefix: str
    timeout: float | None = None
    candidate: str = ""
    info: dict[str, str] = field(default_factory=dict)
    priority: float = 0.0
    lock_delay: float = 0.0
    fitness: Fitness | None = None
    once: bool = False
    restart: bool = False


def _pairs(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Of each KEY=VALUE both; the value may have more of the sign."""
    pairs = []
    for text in given:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.", ctx, param)
        pairs.append((key, value))
    return tuple(pairs)


# Long: its parameters, one a line.
@click.command(
    cls=Runs, epilog=_STATUSES, short_help="Run a command for as long as this candidate leads."
)
@NODE_OPTION
@click.option("--candidate", help="The name to stand under. Default: made of host and process.")
@click.option(
    "--info",
    callback=_pairs,
    multiple=True,
    metavar="KEY=VALUE",
    help="What `redlock leader` tells of this candidate, and no secret; repeat for more.",
)
@click.option(
    "--ttl",
    type=click.FloatRange(min=TTL_MIN),
    default=15.0,
    show_default=True,
    help="Seconds a leader that crashed keeps others from leading.",
)
@click.option("--stop", type=SECONDS, help="Seconds from SIGTERM to SIGKILL. Default: ttl / 5.")
@click.option(
    "--kill", type=SECONDS, help="Seconds from SIGKILL to the end of validity. Default: ttl / 10."
)
@click.option(
    "--jeopardy", type=SECONDS, help="Seconds of warning before SIGTERM. Default: 0.15 ttl."
)
@click.option("--renewal", type=SECONDS, help="Seconds between renewals. Default: ttl / 4.")
@click.option(
    "--slack",
    type=SECONDS,
    help="Seconds that a process here may be late. Default: ttl / 20, at most 0.5.",
)
@click.option(
    "--priority",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="How long others may take a vacancy before this candidate does. A leader is never ousted.",
)
@click.option(
    "--lock-delay",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="Wait before CMD starts if the last leader did not give the lock back: for what it writes"
    " to, if that checks no tokens.",
)
@click.option(
    "--eligible",
    metavar="CHECK",
    help="A command that exits with 0 if this candidate is fit. Asked before it campaigns and at"
    " every renewal, and must answer within --renewal seconds.",
)
@click.option("--timeout", type=SECONDS, help="Seconds to wait until elected. Default: for ever.")
@click.option("--no-wait", is_flag=True, help="Try once.")
@click.option("--once", is_flag=True, help="One term: end when CMD ended or leadership was lost.")
@click.option("--restart", is_flag=True, help="Campaign again also when CMD ended by itself.")
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Run nothing: show the timings, and whether the nodes let this user lead.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON object.")
@CONFLICT_OPTION
@OUTCOME_OPTION
@PREFIX_OPTION
@click.argument("name")
@command_argument(required=False)
def elect(
    urls: tuple[str, ...],
    candidate: str | None,
    info: tuple[tuple[str, str], ...],
    ttl: float,
    stop: float | None,
    kill: float | None,
    jeopardy: float | None,
    renewal: float | None,
    slack: float | None,
    priority: float,
    lock_delay: float,
    eligible: str | None,
    timeout: float | None,
    no_wait: bool,
    once: bool,
    restart: bool,
    only_check: bool,
    as_json: bool,
    conflict: int,
    outcome: IO[str] | None,
    key_prefix: str,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Campaign in the election NAME, and run CMD while this candidate leads. Options stand before
    CMD: from its first word on everything is CMD's.

    When leadership is lost, CMD is stopped and the candidate campaigns again; when CMD ends by
    itself, so does redlock, with its status. CMD finds its fencing token in REDLOCK_FENCING_TOKEN,
    and should give it to whatever it writes to; further REDLOCK_CANDIDATE, REDLOCK_ELECTION,
    REDLOCK_RESOURCE, and REDLOCK_DEADLINE, by when it would be killed if no renewal came, in
    seconds on CLOCK_BOOTTIME.

    CMD runs in a process group of its own. Its group gets SIGTERM at the stop deadline, and SIGKILL
    at the kill deadline, before anybody else can lead; a guard process sees to it if redlock itself
    is killed or stopped. What CMD leaves running in its group is killed when CMD ends, and nothing
    is given back before all of it is gone. Signals are forwarded to that group, and after SIGTERM,
    SIGINT or SIGQUIT there is no other term.
    """
    if no_wait and timeout is not None:
        raise click.UsageError("--no-wait and --timeout exclude each other.")
    if once and restart:
        raise click.UsageError("--once and --restart exclude each other.")
    if as_json and not only_check:
        raise click.UsageError("--json needs --check.")
    given = {"stop": stop, "kill": kill, "jeopardy": jeopardy, "renewal": renewal, "slack": slack}
    if only_check:
        timings = _timings(ttl, given)
        return check(nodes_of(urls), name, timings, key_prefix=key_prefix, as_json=as_json)
    if not command:
        raise click.UsageError("Missing argument '[--] CMD...'.")

    def run() -> Done:
        timings = _timings(ttl, given)
        wish = Wish(
            nodes_of(urls),
            name,
            command,
            timings,
            key_prefix,
            timeout=0.0 if no_wait else timeout,
            candidate=_own_name() if candidate is None else candidate,
            info=dict(info),
            priority=priority,
            lock_delay=lock_delay,
            fitness=None if eligible is None else Fitness(eligible, timings.renewal),
            once=once,
            restart=restart,
        )
        return _run(wish)

    return noted(name, outcome, conflict, run)


def _timings(ttl: float, given: Mapping[str, float | None]) -> redlock.ElectionTimings:
    """Those that were typed, and the others derived from *ttl*."""
    typed = {name: value for name, value in given.items() if value is not None}
    return redlock.ElectionTimings(ttl=ttl, **typed)


def _own_name() -> str:
    """The same for all terms of this process, and no other's."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def _run(wish: Wish) -> Done:
    """Term after term, as long as there is to be another one."""
    for words in (wish.command, wish.fitness.command if wish.fitness else wish.command):
        if shutil.which(words[0]) is None:  # Known before anybody has to wait for it.
            found = os.sep in words[0] and Path(words[0]).exists()
            return Done(cannot_run(words[0], found=found))
    signals = Signals()
    with Notifier() as notifier, contextlib.suppress(Interrupted), signals:
        try:
            return _terms(wish, signals, notifier)
        except LockContended as error:
            say(contended(error, wish.name))
            return Done(CONTENDED)
        except QuorumUnavailable as error:
            text, hopeless = unavailable(error, wish.name, wish.nodes)
            say(text)
            return Done(MISUSED if hopeless else UNAVAILABLE)
        except CandidateUnfit as error:
            say(str(error))
            return Done(UNFIT)
        finally:
            notifier.stopping()
    return interrupted(signals.interrupted)


def _terms(wish: Wish, signals: Signals, notifier: Notifier) -> Done:
    pause = PAUSE
    while True:
        begun_at = now()
        ending = _term(wish, signals, notifier)
        again = wish.restart or (ending.lost and not wish.once)
        if ending.sent or not again:
            return done(ending)
        signals.release()
        if not _is_alone():
            say("threads of the last term do not end, and nothing may be forked beside them")
            return Done(LOST)
        if not ending.lost:
            # What ran for so long is taken for sound.
            fails = ending.status != OK and now() - begun_at < PAUSE_MAX
            pause = min(2 * pause, PAUSE_MAX) if fails else PAUSE
            notifier.status(f"campaigning for {wish.name} in {pause:g} s: CMD ended")
            time.sleep(pause)


def _is_alone() -> bool:
    """Whether this process has one thread left, which may fork. Waits for the others."""
    until = now() + THREADS_END
    while _threads() > 1:
        if now() > until:
            return False
        time.sleep(0.002)
    return True


def _threads() -> int:
    # Python's own count is one less already while a thread is on its last instructions.
    with contextlib.suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir()))
    return threading.active_count()


def _term(wish: Wish, signals: Signals, notifier: Notifier) -> Ending:
    """One round: fork, campaign, supervise, release, close."""
    environment = {
        "REDLOCK_CANDIDATE": wish.candidate,
        "REDLOCK_ELECTION": wish.name,
        "REDLOCK_RESOURCE": wish.name,
    }
    # While this process has no thread and no connection.
    with Guard() as guard, Child(wish.command, environment) as child:
        signals.check()
        if wish.fitness is None:
            return _lead(wish, signals, notifier, guard, child)
        with wish.fitness:
            return _lead(wish, signals, notifier, guard, child)


# Long: one term from its campaign to its release, with what hears of it.
def _lead(wish: Wish, signals: Signals, notifier: Notifier, guard: Guard, child: Child) -> Ending:
    jeopardy: list[str] = []
    ending: Ending | None = None
    waiting: Waiting | None = None

    def hear(event: Event) -> None:
        if isinstance(event, LeaseInJeopardy):
            jeopardy[:] = [event.votes]
        elif isinstance(event, TermStopping):
            signals.wake()
        elif waiting is not None:
            waiting.hear(event)

    def beat(phase: Phase) -> None:
        notifier.beat()
        if phase is Phase.ENDING:
            notifier.stopping()
        elif phase is Phase.STOPPING:
            notifier.status(f"stopping: leadership of {wish.name} was lost")

    ttl = wish.timings.ttl
    with redlock.Redlock(wish.nodes, ttl=ttl, key_prefix=wish.key_prefix, on_event=hear) as locks:
        election = locks.election(
            wish.name,
            candidate=wish.candidate,
            info=wish.info,
            timings=wish.timings,
            eligible=wish.fitness,
            priority=wish.priority,
            lock_delay=wish.lock_delay,
        )
        notifier.ready(f"campaigning for {wish.name}")
        idle = "this candidate is not eligible" if wish.fitness else "this candidate stands back"
        try:
            with (
                Waiting(locks, wish.nodes, wish.name, what="campaigning for", idle=idle) as waiting,
                election.campaign(wish.timeout) as term,
            ):
                waiting.over()
                signals.hold()
                notifier.status(f"leading {wish.name} with fencing token {term.fencing_token}")
                notifier.waiting = False
                tenure = Leading(term, wish.name)
                ending = supervise(child, tenure, signals, guard, jeopardy=jeopardy, beat=beat)
        except LeadershipLost as error:
            # Lost as the command ended by itself: nothing ran on, and its status counts.
            if ending is None:
                say_if_heard(str(error))
                ending = Ending(LOST, lost=True, ours=True)
        finally:
            notifier.waiting = True
    return ending
