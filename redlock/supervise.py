"""Running a command under a lease: it is stopped before the lease ends, whatever happens to whoever
supervises it.

The decision to stop reads the lease's clock and waits for nothing. A second process, the guard,
knows the deadline too, and stands in when the supervisor is killed or stopped. So that there is no
instant at which a command runs and the guard does not know it, the command's process exists before:
it waits at a gate, which is opened only once the guard was told, and by nobody when the supervisor
is dead.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from redlock.base import LeaseBase
from redlock.transport.clock import now

# Long: supervisor and guard are two ends of one pipe, and are read together.
__all__ = [
    "CANNOT_RUN",
    "GUARD_SHARE",
    "LOST",
    "MISUSED",
    "NOT_FOUND",
    "OK",
    "TTL_MIN",
    "Child",
    "Guard",
    "Interrupted",
    "Signals",
    "cannot_run",
    "say",
    "say_if_heard",
    "scrubbed",
    "stand_in",
    "supervise",
]

OK, MISUSED, LOST = 0, 2, 6
CANNOT_RUN, NOT_FOUND = 126, 127  # As env(1), nice(1) and timeout(1) have it.

STOP_SHARE = 0.3
"""SIGTERM when less than this share of the ttl is left: renewals begin with two thirds left, so
ten have failed by then."""
KILL_SHARE = 0.1
"""SIGKILL then: late enough to end in order, early enough for a busy machine to do it in time."""
GUARD_SHARE = 0.05
"""The guard kills then: only if its supervisor, which should have done so at KILL_SHARE, is dead
or stopped."""
TTL_MIN = 0.5
"""Seconds; below this the shares above are shorter than a busy machine keeps a process waiting."""
_LOOK_AGAIN = 0.25
"""At most this long between looks at the lease: timers sleep through a suspend, the lease clock
does not."""
_TOO_LATE = -1
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Interrupted(BaseException):
    """A signal came while nothing was running yet."""


# Long: what is begun here must end here, whatever comes in between.
def supervise(
    child: Child, lease: LeaseBase, signals: Signals, guard: Guard, jeopardy: Sequence[str] = ()
) -> int:
    """Run the command of *child* to its end, or stop it before the lease ends; give the exit
    status."""
    stop_at, kill_at = lease.ttl * STOP_SHARE, lease.ttl * KILL_SHARE
    asked = killed = heard = False
    try:
        # The guard first: from here on whatever befalls this process, the command is stopped, or
        # never begins.
        if not guard.tell(child.pid, lease.valid_until):
            return cannot_run(child.name, found=True, reason="its guard does not hear")
        child.begin(lease.fencing_token, lease.valid_until - kill_at)
        while not child.ended():
            if not guard.tell(child.pid, lease.valid_until) and not heard:
                heard = True
                say_if_heard(
                    "the guard does not hear: nobody would stop the command if redlock were"
                    " killed now"
                )
            for signum in signals.take():
                signal_group(child.pid, signum)
            left = lease.remaining()
            if left <= kill_at and not killed:
                asked = killed = True
                signal_group(child.pid, signal.SIGKILL)
                say_if_heard(
                    f"the lease on {lease.resource!r} ends in {left:.2g} s: killed the command"
                )
            elif left <= stop_at and not asked:
                asked = True
                signal_group(child.pid, signal.SIGTERM)
                # A stopped process would not see the SIGTERM.
                signal_group(child.pid, signal.SIGCONT)
                what = (
                    f"cannot renew the lease on {lease.resource!r}, {left:.2g} s left: stopping the"
                    " command"
                )
                say_if_heard("; ".join([what, *jeopardy]))
            due_in = left - (kill_at if asked else stop_at)
            signals.wait(_LOOK_AGAIN if killed else min(max(due_in, 0.001), _LOOK_AGAIN))
    finally:
        # Whatever is left of the group would work on without the lock.
        guarded_until = guard.kills_at
        signal_group(child.pid, signal.SIGKILL)
        code = child.wait()
        guard.tell(0, 0.0)
    trouble = child.trouble()
    if asked or trouble == _TOO_LATE:
        return LOST
    if code == -signal.SIGKILL and guarded_until <= now():
        say_if_heard(
            f"stopped until the lease on {lease.resource!r} was about to end: the guard killed the"
            " command"
        )
        return LOST
    if trouble:
        return cannot_run(child.name, found=trouble != errno.ENOENT, reason=os.strerror(trouble))
    return code if code >= 0 else 128 - code


def cannot_run(name: str, *, found: bool, reason: str | None = None) -> int:
    """Say that the command cannot be run, and give the status for it."""
    say(
        f"cannot run {name!r}: {reason or ('it is not executable' if found else 'no such command')}"
    )
    return CANNOT_RUN if found else NOT_FOUND


def _ready(fd: int, event: int, timeout: float | None) -> bool:
    """Wait until a descriptor can be read or written, or has come to its end; None: for ever.
    Its number may be above 1023, where select(2) ends.
    """
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))


def signal_group(group: int, signum: int) -> bool:
    """Signal every process of a group; False if there is none. A process of another user is
    beyond us."""
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Signals:
    """Signals to this process: they end the wait for a lock, and are kept for the command once
    there is a lease.

    `wait` returns early for them, and when a child ends.
    """

    def __init__(self) -> None:
        self.interrupted = OK
        self._caught: list[int] = []
        self._holding = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake)
        for signum in _FORWARDED:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup stays nohup.
                self._before[signum] = signal.signal(signum, self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._reader.close()
        self._writer.close()

    def hold(self) -> None:
        """The lease is there: from here on signals are for the command. Raises if one came just
        before."""
        self._holding = True
        self.check()

    def check(self) -> None:
        """Raise if a signal came unheard: what a handler raises in a hook of the interpreter is
        printed and forgotten."""
        if self._caught:
            raise Interrupted

    def take(self) -> list[int]:
        """Signals that came since the last call."""
        caught, self._caught = self._caught, []
        return caught

    def wait(self, timeout: float) -> None:
        """Sleep until a signal comes or a child ends, at most *timeout* seconds."""
        if self._caught:
            return
        if _ready(self._reader.fileno(), select.POLLIN, timeout):
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(4096)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self._caught.append(signum)
        if not self._holding:
            self.interrupted = 128 + signum
            raise Interrupted


def _wake(signum: int, frame: FrameType | None) -> None:
    """SIGCHLD needs a handler for the wakeup descriptor to be written."""


class Child:
    """The process that becomes the command: in a session of its own, at a gate that only a living
    supervisor can open.

    It is forked at once, while this process has no thread and no connection yet, and waits. The
    supervisor's end ends the wait as well, and then the command never begins. It does not begin
    either when the lease was over as the gate was opened: this process may have been stopped
    between its last look at the clock and that.
    """

    _GO = struct.Struct("=qd")
    _TOLD = struct.Struct("=i")

    def __init__(self, command: Sequence[str], resource: str) -> None:
        self.name = command[0]
        self._command = command
        self._resource = resource
        self._code: int | None = None

    def __enter__(self) -> Child:
        reader, self._gate = os.pipe()
        self._report, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(reader, writer)
        os.close(reader)
        os.close(writer)
        # Until it has its own session, so that whoever signals its group finds it.
        os.read(self._report, self._TOLD.size)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._gate)
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._report)

    def begin(self, token: int, until: float) -> None:
        """Open the gate: become the command, if that is before *until* on the lease clock.
        Returns at once."""
        with contextlib.suppress(BrokenPipeError):  # Somebody killed it; its status will tell.
            os.write(self._gate, self._GO.pack(token, until))

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        self._reap(0)
        assert self._code is not None
        return self._code

    def trouble(self) -> int:
        """Of one that has ended: the errno with which it could not become the command,
        `_TOO_LATE`, or 0."""
        told = os.read(self._report, self._TOLD.size)
        number: int = self._TOLD.unpack(told)[0] if told else 0
        return number

    def _reap(self, options: int) -> bool:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                # The program that started us may have had SIGCHLD ignored, and the command ended
                # before we changed that.
                pid, status = self.pid, CANNOT_RUN << 8
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def _become(self, reader: int, writer: int) -> NoReturn:
        """The life of the forked process up to the command."""
        trouble = errno.ECANCELED
        try:
            os.setsid()
            os.close(self._gate)  # Or its own copy would keep the gate from ever being closed.
            # As for any program that is started: what this interpreter ignores or handles is not
            # the command's business. What was ignored before, it keeps.
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            for signum in _FORWARDED:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    signal.signal(signum, signal.SIG_DFL)
            os.write(writer, self._TOLD.pack(0))
            go = os.read(reader, self._GO.size)
            if go:
                token, until = self._GO.unpack(go)
                if now() < until:
                    words = {
                        "REDLOCK_FENCING_TOKEN": str(token),
                        "REDLOCK_RESOURCE": self._resource,
                    }
                    os.execvpe(self.name, list(self._command), {**os.environ, **words})
                trouble = _TOO_LATE
        except OSError as error:
            trouble = error.errno or trouble
        finally:
            with contextlib.suppress(OSError):
                os.write(writer, self._TOLD.pack(trouble))
            os._exit(CANNOT_RUN)


class Guard:
    """A process that stops the command's group when this process is killed, or is stopped past the
    deadline.

    A supervisor that is dead or asleep cannot keep its promise; its sibling can. It learns the
    group and each new deadline from a pipe, and the pipe's end tells it that the supervisor died:
    then SIGTERM at once, SIGKILL at the deadline.
    """

    _MESSAGE = struct.Struct("=qd")

    def __init__(self, *, margin: float) -> None:
        self._margin = margin
        self._told: tuple[int, float] | None = None

    def __enter__(self) -> Guard:
        reader, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._stand(reader)
        os.close(reader)
        # A guard that does not read must not stop the one who supervises.
        os.set_blocking(self._pipe, False)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._pipe)
        # The program that started us may have had SIGCHLD ignored.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    @property
    def kills_at(self) -> float:
        """When it kills the command, as far as it was told; on the lease clock."""
        return self._told[1] - self._margin if self._told is not None else math.inf

    def tell(self, group: int, valid_until: float) -> bool:
        """The group to stop, 0 for none, and the deadline. Never blocks. False if the guard
        cannot hear it."""
        if self._told != (group, valid_until):
            try:
                os.write(self._pipe, self._MESSAGE.pack(group, valid_until))
            except (BlockingIOError, BrokenPipeError):
                return False
            self._told = (group, valid_until)
        return True

    def _stand(self, reader: int) -> NoReturn:
        """The life of the guard, in the forked process."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for signum in _FORWARDED:
                signal.signal(signum, signal.SIG_IGN)
            os.close(self._pipe)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):  # A reader of the command's output must see its end.
                os.dup2(null, fd)
            self._watch(reader)
        finally:
            os._exit(0)

    def _watch(self, reader: int) -> None:
        group, kill_at = 0, 0.0
        while True:
            # The supervisor's last word comes before the deadline that the guard knows: a guard
            # that slept past an old deadline may have a new one.
            if _ready(
                reader,
                select.POLLIN,
                min(max(0.0, kill_at - now()), _LOOK_AGAIN) if group else None,
            ):
                told = os.read(reader, self._MESSAGE.size * 256)
                if not told:
                    break
                group, valid_until = self._MESSAGE.unpack(told[-self._MESSAGE.size :])
                kill_at = valid_until - self._margin
            elif group and now() >= kill_at:
                signal_group(group, signal.SIGKILL)
                return
        if group and signal_group(group, signal.SIGTERM) and signal_group(group, signal.SIGCONT):
            while now() < kill_at:
                if not signal_group(group, 0):
                    return
                # Nobody tells a process about the end of a group that is not its own.
                time.sleep(0.02)
            signal_group(group, signal.SIGKILL)


def say(text: str) -> None:
    """One line on standard error, without a credential in it; and no line where none can be
    written, which stops nothing."""
    try:
        sys.stderr.write(f"redlock: {scrubbed(text)}\n")
        sys.stderr.flush()
    except OSError:
        # A full disk, or nobody who reads. What is left of it must not fail once more as the
        # interpreter ends.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def stand_in() -> None:
    """Open the standard streams that this process was started without: the next pipe would get
    their number, and be closed, written over or inherited as what it is not.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def say_if_heard(text: str) -> None:
    """As `say`, but never waiting for whoever should read it: a full pipe must not keep a
    command alive."""
    # It was closed, or lost, and there is nobody to hear.
    with contextlib.suppress(OSError, ValueError):
        if not _ready(sys.stderr.fileno(), select.POLLOUT, 0.0):
            return
        # Below PIPE_BUF, so that what may be written at all can be written at once. A cut through a
        # URL would hide its @.
        say(scrubbed(text)[:2000])


_TO_AN_AT = r"(?:(?!://).)*@"
"""Up to the last @ of the line, or before the next URL: a password may have an @ in it, and
blanks."""
_CREDENTIALS = re.compile(
    rf"://(?:{_TO_AN_AT}(?=(?:\[[^]\s]*]|[^\s@:/]+):\d)"  # A host and its port follow.
    # The text up to the first colon is no host with its port.
    rf"|(?=:|[^\s:@/]*:(?!\d+(?:[\s/?,;.)'\"]|$))){_TO_AN_AT}"
    r"|\S*@)"
)
_ARGUMENTS = re.compile(r"([?&;]\w*(?:password|username)=)[^&\n]*")


def scrubbed(text: str) -> str:
    """*text* without what may be a credential in a URL; rather too little is left of it than a
    part of a password."""
    return _ARGUMENTS.sub(r"\1***", _CREDENTIALS.sub("://***@", text))
