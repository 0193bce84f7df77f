"""Running a command under a lease or a term of leadership: it is stopped before that ends, whatever
happens to whoever supervises it.

The decision to stop reads the lease clock and waits for nothing. A second process, the guard,
knows the deadline too, and stands in when the supervisor is killed or stopped. So that there is no
instant at which a command runs and the guard does not know it, the command's process exists before:
it waits at a gate, which is opened only once the guard was told, and by nobody when the supervisor
is dead. And what the command ran under is not given back before the whole of its group is gone.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from redlock.tenure import Tenure
from redlock.terminal import Terminal
from redlock.transport.clock import now

# Long: supervisor and guard are two ends of one pipe, and are read together.
__all__ = [
    "CANNOT_RUN",
    "LOST",
    "MISUSED",
    "NOT_FOUND",
    "OK",
    "TTL_MIN",
    "Child",
    "Ending",
    "Guard",
    "Interrupted",
    "Phase",
    "Signals",
    "cannot_run",
    "say",
    "say_if_heard",
    "scrubbed",
    "stand_in",
    "supervise",
    "visible",
]

OK, MISUSED, LOST = 0, 2, 6
CANNOT_RUN, NOT_FOUND = 126, 127  # As env(1), nice(1) and timeout(1) have it.

TTL_MIN = 0.5
"""Seconds; below this the deadlines lie closer together than a busy machine keeps a process
waiting."""
_LOOK_AGAIN = 0.25
"""At most this long between looks at the deadlines: timers sleep through a suspend, the lease clock
does not."""
_DRAIN_LOOKS = 0.005
"""Seconds between looks at what is left of a group that was killed; doubles up to _LOOK_AGAIN."""
_DRAIN_SILENT = 2.0
"""Seconds; a killed group that is still there then is said to be: some process of it hangs in the
kernel, or is another user's."""
_TOO_LATE = -1
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Whoever sends these wants an end, and not only this command's."""


_TYPED = (signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to its foreground group for an end."""


class Interrupted(BaseException):
    """A signal came while nothing was running yet."""


class Phase(Enum):
    """How far a command has come, for whoever watches its supervisor."""

    RUNS = "runs"
    STOPPING = "was asked to stop, as what it runs under ends"
    ENDING = "was sent a signal that asks for an end"


class Ending(NamedTuple):
    """How a supervised command ended. *status*: the exit status for it. *lost*: it was stopped, or
    never begun, as what it ran under ended, or as nobody guarded it. *sent*: a signal ended it, or
    asked it to end, that somebody sent to its supervisor. *ours*: the status is none of the
    command's own."""

    status: int
    lost: bool = False
    sent: bool = False
    ours: bool = False


# Long: what is begun here must end here, whatever comes in between.
def supervise(
    child: Child,
    tenure: Tenure,
    signals: Signals,
    guard: Guard,
    *,
    jeopardy: Sequence[str] = (),
    beat: Callable[[Phase], object] = lambda phase: None,
) -> Ending:
    """Run the command of *child* to its end, or stop it before its tenure ends; come back when
    nothing of its group is left.

    *beat* is called at every look, four times a second at least, and must not wait. *jeopardy*:
    what is said besides when the command has to stop.
    """
    asked = killed = heard = False
    forwarded: set[int] = set()
    try:
        # The guard first: from here on whatever befalls this process, the command is stopped, or
        # never begins.
        ends = tenure.deadlines()
        if not guard.tell(child.pid, ends.guard_at):
            status = cannot_run(child.name, found=True, reason="its guard does not hear")
            return Ending(status, lost=True, ours=True)
        if child.terminal is not None and child.terminal.is_at_hand:
            child.terminal.lend(child.pid)
        child.begin(tenure.fencing_token, ends.kill_at)
        while not child.ended():
            if child.stopped:
                _stopped(child, tenure)
            ends = tenure.deadlines()
            if not guard.tell(child.pid, ends.guard_at) and not heard:
                heard = True
                say_if_heard(
                    "the guard does not hear: nobody would stop the command if redlock were"
                    " killed now"
                )
            for signum in signals.take():
                forwarded.add(signum)
                signal_group(child.pid, signum)
            at = now()
            left = max(0.0, ends.valid_until - at)
            if at >= ends.kill_at and not killed:
                asked = killed = True
                signal_group(child.pid, signal.SIGKILL)
                say_if_heard(f"{tenure.name} ends in {left:.2g} s: killed the command")
            elif at >= ends.stop_at and not asked:
                asked = True
                signal_group(child.pid, signal.SIGTERM)
                # A stopped process would not see the SIGTERM.
                signal_group(child.pid, signal.SIGCONT)
                what = f"{tenure.why()}, {left:.2g} s left: stopping the command"
                say_if_heard("; ".join([what, *jeopardy]))
            ending = not forwarded.isdisjoint(_ENDING)
            beat(Phase.ENDING if ending else Phase.STOPPING if asked else Phase.RUNS)
            due_in = (ends.kill_at if asked else ends.stop_at) - now()
            signals.wait(_LOOK_AGAIN if killed else min(max(due_in, 0.001), _LOOK_AGAIN))
    finally:
        guarded_until = guard.kills_at
        typed = child.terminal is not None and child.terminal.lent
        code = child.drain()
        guard.tell(0, 0.0)
    # Ctrl-C in a terminal that was lent is for the command alone, and means no less.
    sent = not forwarded.isdisjoint((*_ENDING, -code)) or bool(typed and -code in _TYPED)
    trouble = child.trouble()
    guarded = code == -signal.SIGKILL and guarded_until <= now() and not killed
    if guarded:
        why = f"{tenure.name} ends" if asked else f"stopped until {tenure.name} was about to end"
        say_if_heard(f"{why}: the guard killed the command")
    if asked or guarded or trouble == _TOO_LATE:
        return Ending(LOST, lost=True, sent=sent, ours=True)
    if trouble:
        found = trouble != errno.ENOENT
        status = cannot_run(child.name, found=found, reason=os.strerror(trouble))
        return Ending(status, sent=sent, ours=True)
    return Ending(code if code >= 0 else 128 - code, sent=sent)


def _stopped(child: Child, tenure: Tenure) -> None:
    """The command was stopped: by the terminal, as it wanted that or as somebody typed Ctrl-Z, or
    by somebody else."""
    terminal, signum = child.terminal, child.stopped
    child.stopped = 0
    if terminal is None or (signum == signal.SIGSTOP and not terminal.lent):
        return
    if not (signum in (signal.SIGTTIN, signal.SIGTTOU) and terminal.lend(child.pid)):
        # As whoever started us sees only this process: it stops as well, and the guard keeps time.
        terminal.take_back(reset=True)
        left = max(0.0, tenure.deadlines().kill_at - now())
        say_if_heard(f"suspended: nobody renews now, and in {left:.2g} s the command is killed")
        # What stops who writes does not stop us, but what is typed does.
        os.killpg(os.getpgrp(), signal.SIGTSTP if signum == signal.SIGTTOU else signum)
        terminal.lend(child.pid)
    signal_group(child.pid, signal.SIGCONT)


def cannot_run(name: str, *, found: bool, reason: str | None = None) -> int:
    """Say that the command cannot be run, and give the status for it."""
    say(
        f"cannot run {name!r}:"
        f" {reason or ('it is not executable' if found else 'no such command')};"
        " correct the words behind the lock's name"
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


def drain(group: int) -> None:
    """Kill a group, and come back when none of its processes is left: what is, would work on with
    the lock somebody else's. Waits for ever for what cannot be killed."""
    pause, since, told = _DRAIN_LOOKS, now(), False
    while signal_group(group, signal.SIGKILL) and _is_left(group):
        if now() - since > _DRAIN_SILENT and not told:
            told = True
            say_if_heard("waiting for processes of the command that do not end, though killed")
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_AGAIN)


def _is_left(group: int) -> bool:
    """Whether a process of a group is left that may still do something."""
    # Orphans of it are ours to bury where this is the first process of a container.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Elsewhere they are somebody's who may never do it, and a zombie is a member of its group.
    states = list(_states(group))
    return bool(states) if Path("/proc/self/stat").exists() else True


def _states(group: int) -> Iterator[str]:
    """Of each process of a group that is more than a zombie, its state."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            # Behind the name, which may have blanks and brackets: state, parent, group.
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) != group:
                continue
            # The first thread may have ended before others.
            if state not in "ZX" or len(list((entry / "task").iterdir())) > 1:
                yield state


class Signals:
    """Signals to this process: they end the wait for a lock, and are kept for the command once
    there is a lease.

    `wait` returns early for them, when a child ends, and for `wake`.
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

    def release(self) -> None:
        """There is no command any more: signals are for this process again. Raises if one came
        that no command had."""
        self._holding = False
        if self._caught and not self.interrupted:
            self.interrupted = 128 + self._caught[0]
        self.check()

    def wake(self) -> None:
        """End the `wait` that is under way, or the next one; from any thread."""
        with contextlib.suppress(OSError):  # Full of what wakes as well, or closed already.
            self._writer.send(b"\0")

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
    """The process that becomes the command: in a group of its own, at a gate that only a living
    supervisor can open.

    It is forked at once, while this process has no thread and no connection yet, and waits. The
    supervisor's end ends the wait as well, and then the command never begins. It does not begin
    either when the lease was over as the gate was opened: this process may have been stopped
    between its last look at the clock and that.
    """

    _GO = struct.Struct("=qd")
    _TOLD = struct.Struct("=i")

    def __init__(self, command: Sequence[str], words: Mapping[str, str]) -> None:
        """*words*: for the environment of the command, besides what this process has, its fencing
        token and its deadline."""
        self.name = command[0]
        self.terminal: Terminal | None = None
        self.stopped = 0
        """The signal that stopped it, until somebody has seen to it."""
        self._command = command
        self._words = words
        self._code: int | None = None

    def __enter__(self) -> Child:
        self.terminal = Terminal.find()
        reader, self._gate = os.pipe()
        self._report, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(reader, writer)
        os.close(reader)
        os.close(writer)
        # Until it has its own group, so that whoever signals its group finds it.
        os.read(self._report, self._TOLD.size)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._gate)
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._report)
        if self.terminal is not None:
            self.terminal.take_back(reset=True)
            self.terminal.close()

    def begin(self, token: int, until: float) -> None:
        """Open the gate: become the command, if that is before *until*, the deadline, on the lease
        clock. Returns at once."""
        with contextlib.suppress(BrokenPipeError):  # Somebody killed it; its status will tell.
            os.write(self._gate, self._GO.pack(token, until))

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._reap(os.WNOHANG | os.WUNTRACED)

    def wait(self) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        self._reap(0)
        assert self._code is not None
        return self._code

    def drain(self) -> int:
        """Kill it with all of its group; give its exit status, as `wait`, when nobody of the group
        is left."""
        signal_group(self.pid, signal.SIGKILL)
        code = self.wait()
        drain(self.pid)
        if self.terminal is not None:
            # One that was killed left its modes as they were.
            self.terminal.take_back(reset=code < 0)
        return code

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
            if pid and os.WIFSTOPPED(status):
                self.stopped = os.WSTOPSIG(status)
            elif pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def _become(self, reader: int, writer: int) -> NoReturn:
        """The life of the forked process up to the command."""
        trouble = errno.ECANCELED
        try:
            # A group of the terminal's session keeps the terminal; it has one of its own without.
            if self.terminal is None:
                os.setsid()
            else:
                os.setpgid(0, 0)
                self.terminal.close()
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
                        "REDLOCK_DEADLINE": f"{until:.6f}",
                        **self._words,
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

    def __init__(self) -> None:
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
        # There is nothing to guard any more, and one that somebody stopped would be waited for.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        # The program that started us may have had SIGCHLD ignored.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    @property
    def kills_at(self) -> float:
        """When it kills the command, as far as it was told; on the lease clock."""
        return self._told[1] if self._told is not None else math.inf

    def tell(self, group: int, kill_at: float) -> bool:
        """The group to stop, 0 for none, and the deadline. Never blocks. False if the guard
        cannot hear it."""
        if self._told != (group, kill_at):
            try:
                os.write(self._pipe, self._MESSAGE.pack(group, kill_at))
            except (BlockingIOError, BrokenPipeError):
                return False
            self._told = (group, kill_at)
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
                group, kill_at = self._MESSAGE.unpack(told[-self._MESSAGE.size :])
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
        sys.stderr.write(f"redlock: {visible(scrubbed(text))}\n")
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
        # Below PIPE_BUF, so that what may be written at all can be written at once: a character has
        # four bytes at most. A cut through a URL would hide its @.
        say(visible(scrubbed(text))[:1000])


def visible(text: str) -> str:
    """*text* with escapes, as in its repr, for what is no character that a terminal shows: names
    are anybody's, and some of it moves the cursor, or starts a line of its own."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


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
