"""The supervisor behind `redlock lock`: at whatever instant it is killed or stopped, no command
outlives the lease."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import pytest

from redlock import Redlock
from redlock.base import LeaseBase
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.embedded import Nodes
from redlock.supervise import Ending, Guard, _ready, say, say_if_heard, scrubbed, supervise
from redlock.tenure import Leased
from redlock.transport.clock import now
from tests.servers.test_cli import BEAT, environment, run

TIMEOUT = 60.0
MISSED = 2.0
"""Seconds after which a command that runs will not be struck any more: how often some calls are
made differs a little."""
COMMAND = ["sh", "-c", "echo $$ $REDLOCK_FENCING_TOKEN; exec sleep 60"]
"""Tells its process id and its token, and lives for longer than any lease here unless it is
stopped."""


class Point(NamedTuple):
    """An instant of a run: as it makes the *nth* system call of this name."""

    call: str
    nth: int


class End(NamedTuple):
    """How one run ended."""

    point: Point
    began: bool
    """Whether the command ran at all."""
    struck_at: float
    over_at: float
    """Until when something held the command's stdout: the command itself, for it outlives
    whoever else does."""


def traced(nodes: Nodes, job: str, ttl: float, *options: str) -> subprocess.Popen[bytes]:
    """`redlock lock` with strace behind it, which counts the system calls of its main thread;
    the process is redlock itself."""
    return subprocess.Popen(
        [
            *("strace", "-D", "-e", "trace=all", *options),
            *(sys.executable, "-m", "redlock.cli", "lock", job, "--ttl", str(ttl), "--", *COMMAND),
        ],
        env={**os.environ, "REDLOCK_NODES": " ".join(nodes.urls)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def read_on(process: subprocess.Popen[bytes], until: float) -> tuple[bytes, float]:
    """What comes on its stdout until the end of that, or *until*; and when that was."""
    assert process.stdout is not None
    fd, said = process.stdout.fileno(), b""
    while (left := until - now()) > 0 and select.select([fd], [], [], left)[0]:
        data = os.read(fd, 4096)
        if not data:
            break
        said += data
    return said, now()


@contextlib.contextmanager
def swept(process: subprocess.Popen[bytes]) -> Iterator[list[bytes]]:
    """Leaves no command behind, whatever the test found: what it said names its group."""
    said: list[bytes] = []
    try:
        yield said
    finally:
        process.kill()
        process.wait()
        for group in re.findall(rb"^\d+", b"".join(said), re.MULTILINE):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()


def strike(nodes: Nodes, point: Point, signum: signal.Signals, ttl: float) -> End | None:
    """Run until *point*, where *signum* comes; then wait until the lease must be over. None:
    this run has no such point."""
    what = f"inject={point.call}:signal={signum.name}:when={point.nth}"
    job = f"{point.call}-{point.nth}"
    process = traced(nodes, job, ttl, "-o", os.devnull, "-e", what)
    with swept(process) as said:
        told, until = b"", now() + TIMEOUT
        while (
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG)
            is None
        ):
            if now() > until:
                return None
            told += read_on(process, now() + 0.01)[0]
            said[:] = [told]
            if told:
                until = min(until, now() + MISSED)
        struck_at = now()
        if signum is signal.SIGKILL:
            more, over_at = read_on(process, struck_at + ttl)
            told += more
            said[:] = [told]
        else:  # It holds the pipe itself, which cannot end.
            over_at = struck_at
            while now() < struck_at + ttl:
                told += read_on(process, now() + 0.01)[0]
                said[:] = [told]
                if alive(told):
                    over_at = now()
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            later = process.stdout.readline()
            said.append(later)
            # Stopped so early that another lease was asked for: then that one must be there.
            if later:
                with Redlock(nodes.urls) as locks:
                    while (status := locks.status(job)).held is None:
                        pass  # A busy node that did not answer in time.
                assert status.fencing_token == int(later.split()[1]), (
                    f"began without a lease, stopped at {point}"
                )
                process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) != 0
    return End(point, bool(told), struck_at, over_at)


def alive(told: bytes) -> bool:
    """Whether the command that told its process id is still there; a zombie is not."""
    if not told:
        return False
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{int(told.split()[0])}/stat").read_text().rpartition(")")[2].split()[0]
            != "Z"
        )
    return False


@pytest.fixture(scope="module")
def lone() -> Iterator[Nodes]:
    """One server: what is looked at here is on this side of the connection."""
    with Nodes(1) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def points(lone: Nodes, tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    """Every system call of a run that nothing befalls, in order: from its first fork to its
    waits for the command."""
    log = tmp_path_factory.mktemp("strace") / "calls"
    process = traced(lone, "whole", 10.0, "-o", str(log))
    with swept(process) as said:
        assert process.stdout is not None
        said.append(process.stdout.readline())
        if not said[0]:
            pytest.skip("strace may not trace here")
        process.send_signal(signal.SIGTERM)  # Which is the command's, and ends it.
        process.wait(TIMEOUT)
    calls = [
        match[1] for line in log.read_text().splitlines() if (match := re.match(r"(\w+)\(", line))
    ]
    wait = "poll" if "poll" in calls else "ppoll"
    begin, end = calls.index("clone"), calls.index(wait, calls.index("wait4"))
    found = [Point(call, calls[: index + 1].count(call)) for index, call in enumerate(calls)][
        begin : end + 1
    ]
    # From there on it is the same again and again: a look at the command, and a wait.
    waits = found[-1].nth
    return [*found, Point("wait4", 2), Point(wait, waits + 1), Point(wait, waits + 2)]


pytestmark = pytest.mark.filterwarnings("ignore:1 node is a plain lock")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or not sys.platform.startswith("linux"),
    reason="strace is not on the PATH (Debian: apt-get install strace)",
)


@needs_strace
def test_no_command_outlives_a_supervisor_that_is_killed_at_any_instant(
    lone: Nodes, points: list[Point]
) -> None:
    """SIGKILL at every system call around the start of the command, and at some before.

    Either the command never began, or it was stopped long before the lease could end.
    """
    ttl = 8.0
    with ThreadPoolExecutor(2) as pool:
        ends = list(
            pool.map(
                lambda point: strike(lone, point, signal.SIGKILL, ttl),
                [*points[:-14:16], *points[-14:]],
            )
        )
    struck = [end for end in ends if end is not None]
    assert [end.point for end in struck if end.over_at >= end.struck_at + ttl * 0.9] == []
    assert len(struck) > len(ends) / 2
    # Or nothing of it was at the start of the command.
    assert {end.began for end in struck} == {False, True}


@needs_strace
def test_no_command_outlives_the_lease_of_a_supervisor_that_is_stopped_at_any_instant(
    lone: Nodes, points: list[Point]
) -> None:
    """SIGSTOP, which nobody is told of: what runs ends with the lease, and what did not run yet
    never begins."""
    ttl = 3.0
    with ThreadPoolExecutor(4) as pool:  # They sleep for nearly all of the time.
        ends = list(pool.map(lambda point: strike(lone, point, signal.SIGSTOP, ttl), points[-10:]))
    struck = [end for end in ends if end is not None]
    assert [end.point for end in struck if end.over_at >= end.struck_at + ttl] == []
    assert len(struck) > len(ends) / 2
    assert {end.began for end in struck} == {False, True}


# What is decided when, under a lease that ends when the test says


def supervised(
    ttl: float, left: float, *command: str, look_again: float = 0.25
) -> subprocess.Popen[str]:
    """A supervisor whose lease ends by itself: see `supervised.py`."""
    words = [
        sys.executable,
        "-m",
        "tests.servers.supervised",
        str(ttl),
        str(left),
        str(look_again),
        *command,
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told_by(process: subprocess.Popen[str]) -> tuple[dict[str, float], str]:
    """To the end: the last instant of each kind of line, and stderr."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return {words[0]: float(words[1]) for line in out.splitlines() if (words := line.split())}, err


@pytest.mark.parametrize("look_again", [0.25, 60.0])
def test_a_command_is_asked_to_stop_at_three_tenths_of_the_ttl_and_killed_at_one(
    look_again: float,
) -> None:
    """Whenever that is: an end that comes between two looks at the lease is not waited past.

    With a ttl of 10 s: SIGTERM at 3 s before the end and not sooner, SIGKILL at 1 s. The guard's
    share, 0.5 s, is for somebody else.
    """
    process = supervised(10.0, 4.5, sys.executable, "-c", BEAT, look_again=look_again)
    told, err = told_by(process)
    until = told["until"]
    assert until - 3.0 <= told["asked"] < until - 2.4
    assert until - 1.2 < told["beat"] < until - 0.6
    assert process.returncode == 6
    assert re.search(r"cannot renew the lease on 'job', \S+ s left: stopping the command", err)
    assert re.search(r"the lease on 'job' ends in \S+ s: killed the command", err)


def test_a_command_that_ends_when_asked_is_not_waited_for() -> None:
    """Its own status does not count any more: the lease was lost."""
    process = supervised(
        10.0, 5.0, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done", look_again=60.0
    )
    told, err = told_by(process)
    assert process.returncode == 6
    assert now() < told["until"] - 1.0
    assert "killed" not in err


def test_a_command_that_was_stopped_is_woken_to_be_asked() -> None:
    """SIGTERM waits until SIGCONT; without it nothing would be left but SIGKILL."""
    program = """
import os, signal, sys, time
def end(*_):
    print("asked", 1, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""
    process = supervised(10.0, 5.0, sys.executable, "-c", program)
    told, _ = told_by(process)
    assert "asked" in told
    assert process.returncode == 6


def test_a_stopped_command_is_woken_when_its_supervisor_is_killed() -> None:
    """The guard asks as the supervisor would."""
    program = """
import os, signal, sys, time
def end(*_):
    print("asked", 1, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", 1, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""
    process = supervised(60.0, 50.0, sys.executable, "-c", program)
    assert process.stdout is not None
    assert [process.stdout.readline().split()[0] for _ in range(2)] == ["until", "ready"]
    process.kill()
    told, _ = told_by(process)
    assert "asked" in told


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the death of another's child is seen through a pidfd"
)
def test_the_guard_kills_a_twentieth_of_the_ttl_before_the_end() -> None:
    """With the supervisor stopped, and not sooner: until one tenth it is the supervisor's to do."""
    process = supervised(10.0, 6.0, sys.executable, "-c", BEAT)
    assert process.stdout is not None
    until = float(process.stdout.readline().split()[1])
    command = int(process.stdout.readline().split()[1])
    process.send_signal(signal.SIGSTOP)
    death = os.pidfd_open(command)
    # It is dead, though its parent could not wait for it.
    assert select.select([death], [], [], TIMEOUT)[0]
    os.close(death)
    process.send_signal(signal.SIGCONT)
    told, said = told_by(process)
    assert until - 0.9 < told["beat"] < until - 0.2
    assert process.returncode == 6
    assert "the guard killed the command" in said


def test_a_lease_that_has_no_time_left_begins_nothing() -> None:
    """Granted so late that the command would have to be killed at once: it does not run at all."""
    process = supervised(10.0, 0.9, "sh", "-c", "echo began 1")
    told, _ = told_by(process)
    assert "began" not in told
    assert process.returncode == 6


def test_a_gate_that_is_opened_too_late_lets_nothing_through() -> None:
    """The command's own process looks at the clock last: the one that opened the gate may have
    slept since its own look."""
    program = """
import sys
from redlock.supervise import Child
from redlock.transport.clock import now
for late in (0.0, -60.0):
    with Child(["echo", "began"], {}) as child:
        child.begin(7, now() - late)
        print(child.wait(), child.trouble(), flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert ended.stdout.splitlines() == ["126 -1", "began", "0 0"]


def test_the_gate_is_opened_for_as_long_as_the_command_may_run() -> None:
    """A supervisor may be stopped between its look at the lease and the gate: what it writes
    there says until when it counts."""
    child = Mock(**{"ended.return_value": True, "drain.return_value": 0, "trouble.return_value": 0})
    at = now()
    grant = Grant("job", "job", "job:fence", "0" * 32, 7, 600.0)
    lease = LeaseBase(Mock(), Holding(grant, 10.0, at, at + 8.0, frozenset()))
    assert supervise(child, Leased(lease), Mock(), Mock()) == Ending(0)
    child.begin.assert_called_once_with(7, lease.valid_until - 1.0)


def test_a_child_whose_gate_is_never_opened_leaves_nothing_behind() -> None:
    """Nobody got a lease: its process ends without having been anything."""
    program = """
import os
from redlock.supervise import Child
with Child(["echo", "began"], {}) as child:
    pass
try:
    os.kill(child.pid, 0)
except ProcessLookupError:
    print("gone")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert ended.stdout == "gone\n"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [("#!/no/such/interpreter\n", 127, "No such file"), ("\x7fELF", 126, "Exec format error")],
)
def test_a_command_that_turns_out_not_to_run_is_said(
    lone: Nodes, tmp_path: Path, text: str, status: int, said: str
) -> None:
    """Found and executable, and still nothing that the kernel can start: known only after the
    lock was taken."""
    script = tmp_path / "script"
    script.write_text(text)
    script.chmod(0o755)
    result = run(lone, "lock", "broken", "--", str(script))
    assert result.returncode == status
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_guard_that_is_dead_is_said_and_the_command_goes_on(lone: Nodes) -> None:
    """Its supervisor still watches the lease, and finds out when there is a new deadline to
    tell."""
    script = 'kill -KILL $(cut -d" " -f1 /proc/$PPID/task/$PPID/children); sleep 2.5; exit 3'
    result = run(lone, "lock", "unguarded", "--ttl", "2", "--", "sh", "-c", script)
    assert result.returncode == 3
    assert result.stderr.count("the guard does not hear") == 1


# What the command finds


def test_the_command_finds_no_signal_ignored_or_blocked(lone: Nodes) -> None:
    """As if the test's own parent had started it: what an interpreter ignores, or blocks for a
    moment, is not its business."""
    words = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]
    plain = subprocess.run(
        words, capture_output=True, text=True, check=True, restore_signals=True
    ).stdout
    result = run(lone, "lock", "plain", "--", *words)
    assert result.stdout == plain
    ours = 0
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        ours |= 1 << number - 1
    assert plain.count("\n") == 2
    assert not any(int(line.split()[1], 16) & ours for line in plain.splitlines())


def test_the_command_leads_a_session_of_its_own(lone: Nodes) -> None:
    """So that what is typed at a terminal reaches it through redlock alone, once."""
    program = (
        "import os; print(os.getsid(0) == os.getpgrp() == os.getpid() != os.getsid(os.getppid()))"
    )
    assert run(lone, "lock", "leader", "--", sys.executable, "-c", program).stdout == "True\n"


def test_forwarded_signals_are_for_the_whole_group(lone: Nodes) -> None:
    """As a terminal would send them: what the command itself started hears them too."""
    # The shell's own trap first: what it starts says "ready" as soon as it has its own.
    script = "trap : TERM; (trap 'echo below; exit' TERM; echo ready; while :; do sleep 0.02; done) & wait; wait; exit 5"
    words = [sys.executable, "-m", "redlock.cli", "lock", "group", "--", "sh", "-c", script]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(words, env=environment(lone), stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "below\n"
        assert process.wait(TIMEOUT) == 5


def test_a_guard_that_slept_goes_by_the_last_of_what_it_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its supervisor renewed meanwhile: the group of an old message is not signalled, though its
    deadline is over."""
    signalled: list[tuple[int, int]] = []

    def signal_group(group: int, signum: int) -> bool:
        signalled.append((group, signum))
        return False

    monkeypatch.setattr("redlock.supervise.signal_group", signal_group)
    reader, writer = os.pipe()
    for group, valid_until in ((101, 0.0), (102, 0.0), (103, now() + TIMEOUT)):
        os.write(writer, Guard._MESSAGE.pack(group, valid_until))
    os.close(writer)  # The supervisor's end, which tells the guard that it died.
    Guard()._watch(reader)
    os.close(reader)
    assert signalled == [(103, signal.SIGTERM)]


def test_a_deadline_that_the_guard_did_not_hear_is_told_again() -> None:
    """It was asleep, and its pipe full: the deadline counts as told when it is in the pipe, and
    not before."""
    guard = Guard()
    reader, guard._pipe = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(guard._pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(guard._pipe, bytes(Guard._MESSAGE.size))
    for _ in range(2):
        assert not guard.tell(101, 7.0)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(reader, 4096)
    assert guard.tell(101, 7.0)
    assert Guard._MESSAGE.unpack(os.read(reader, 4096)) == (101, 7.0)
    os.close(reader)
    os.close(guard._pipe)


def test_a_guard_that_was_stopped_keeps_no_supervisor_from_its_end() -> None:
    """Nothing is left to guard then; another term would never begin."""
    program = """
import os, signal
from redlock.supervise import Guard
signal.alarm(30)
with Guard() as guard:
    os.kill(guard._pid, signal.SIGSTOP)
print("gone")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert ended.stdout == "gone\n"


def test_a_guard_that_hears_nothing_keeps_no_supervisor_waiting() -> None:
    """It was stopped, and its pipe is full: a supervisor that waited for room would not stop the
    command in time."""
    program = """
import itertools, os, signal, sys
from redlock.supervise import Guard
with Guard() as guard:
    def end(*_):
        os.kill(guard._pid, signal.SIGCONT)
        sys.exit("it waits for its guard")
    signal.signal(signal.SIGALRM, end)
    signal.alarm(30)
    os.kill(guard._pid, signal.SIGSTOP)
    print("told", next(number for number in itertools.count() if not guard.tell(0, float(number))) > 0)
    os.kill(guard._pid, signal.SIGCONT)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (ended.stdout, ended.stderr) == ("told True\n", "")


def test_nohup_stays_nohup(lone: Nodes) -> None:
    """A hang-up that was ignored ends neither the wait for the lock nor the command."""
    words = [
        "sh",
        "-c",
        'trap "" HUP; exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "redlock.cli",
        "-v",
        "lock",
        "night",
        "--",
    ]
    program = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    with Redlock(lone.urls) as locks, contextlib.ExitStack() as stack:
        with locks.lock("night"):
            process = subprocess.Popen(
                [*words, sys.executable, "-c", program],
                env=environment(lone),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stderr is not None
            while "TryFailed" not in (heard := process.stderr.readline()):
                assert heard
            process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=TIMEOUT)
    assert (out, process.returncode) == ("True\n", 0)


# What is said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:s3cret@a:1 is down", "redis://***@a:1 is down"),
        ("redis://u:p@ss@w0rd@a:1 is down", "redis://***@a:1 is down"),
        ("rediss://u@a:1, redis://:x@b:2.", "rediss://***@a:1, redis://***@b:2."),
        ("'redis://a:1?password=s3cret&db=0'", "'redis://a:1?password=***&db=0'"),
        ("redis://a:1?db=0&username=me;ssl_password=s3cret", "redis://a:1?db=0&username=***"),
        (
            "redis://a:1 refused the connection; mail ops@example.org",
            "redis://a:1 refused the connection; mail ops@example.org",
        ),
        (
            "redis://:my s3cret@a:1, redis://:x y@[::1]:2 and redis://c",
            "redis://***@a:1, redis://***@[::1]:2 and redis://c",
        ),
        ("redis://a:1, redis://u:p@ss w@rd@b:2", "redis://a:1, redis://***@b:2"),
        ("redis://u:my s3cret@a, redis://:s3 cret@b", "redis://***@a, redis://***@b"),
        ("redis://my user:12 34@a:1; redis://u:12 34@a:1", "redis://***@a:1; redis://***@a:1"),
        ("redis://a:1?ssl_password=my s3cret&db=0", "redis://a:1?ssl_password=***&db=0"),
    ],
)
def test_nothing_that_may_be_a_credential_is_said(text: str, shown: str) -> None:
    """Up to the last @, for a password may have some, and blanks; and arguments by name. What
    else there is stays."""
    assert scrubbed(text) == shown


def test_a_message_is_one_line_without_a_credential(capfd: pytest.CaptureFixture[str]) -> None:
    """Both ways of saying go through it; the one that must not wait cuts what a pipe might not
    take at once."""
    say("redis://:p@ss@a:1 failed")
    say_if_heard("redis://:p@ss@a:1 failed" + "." * 5000)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "redlock: redis://***@a:1 failed"
    assert second.startswith("redlock: redis://***@a:1 failed...")
    assert len(second) < 4096
    say_if_heard("." * 985 + "redis://:s3cret@a:1 failed")
    assert capfd.readouterr().err.endswith(".redis://***@a:1\n")


def test_descriptors_above_those_of_select_are_waited_for() -> None:
    """Whoever starts us may have let us inherit more than a thousand."""
    high = 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= high:
        pytest.skip("no descriptor may have a number above 1500 here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, high + 1), hard))
    reader, writer = os.pipe()
    try:
        os.dup2(reader, high)
        assert not _ready(high, select.POLLIN, 0.0)
        os.write(writer, b"x")
        assert _ready(high, select.POLLIN, None)
        assert os.read(high, 1) == b"x"
        os.close(writer)
        assert _ready(high, select.POLLIN, None), "the end is something to read"
    finally:
        os.close(high)
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
