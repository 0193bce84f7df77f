"""The supervisor behind `redlock lock`: at whatever instant it is killed or stopped, no command outlives the lease."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from redlock import Redlock
from redlock.embedded import Nodes
from redlock.transport.clock import now

TIMEOUT = 60.0
MISSED = 2.0
"""Seconds after which a command that runs will not be struck any more: how often some calls are made differs a little."""
COMMAND = ["sh", "-c", "echo $$ $REDLOCK_FENCING_TOKEN; exec sleep 60"]
"""Tells its process id and its token, and lives for longer than any lease here unless it is stopped."""


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
    """Until when something held the command's stdout: the command itself, for it outlives whoever else does."""


def traced(nodes: Nodes, job: str, ttl: float, *options: str) -> subprocess.Popen[bytes]:
    """`redlock lock` with strace behind it, which counts the system calls of its main thread; the process is redlock itself."""
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
    """Run until *point*, where *signum* comes; then wait until the lease must be over. None: this run has no such point."""
    what = f"inject={point.call}:signal={signum.name}:when={point.nth}"
    job = f"{point.call}-{point.nth}"
    process = traced(nodes, job, ttl, "-o", os.devnull, "-e", what)
    with swept(process) as said:
        told, until = b"", now() + TIMEOUT
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
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
            if later:  # Stopped so early that another lease was asked for: then that one must be there.
                with Redlock(nodes.urls) as locks:
                    assert locks.status(job).fencing_token == int(later.split()[1]), f"began without a lease, stopped at {point}"
                process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) != 0
    return End(point, bool(told), struck_at, over_at)


def alive(told: bytes) -> bool:
    """Whether the command that told its process id is still there; a zombie is not."""
    if not told:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{int(told.split()[0])}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(scope="module")
def lone() -> Iterator[Nodes]:
    """One server: what is looked at here is on this side of the connection."""
    with Nodes(1) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def points(lone: Nodes, tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    """Every system call of a run that nothing befalls, in order: from its first fork to its waits for the command."""
    log = tmp_path_factory.mktemp("strace") / "calls"
    process = traced(lone, "whole", 10.0, "-o", str(log))
    with swept(process) as said:
        assert process.stdout is not None
        said.append(process.stdout.readline())
        if not said[0]:
            pytest.skip("strace may not trace here")
        process.send_signal(signal.SIGTERM)  # Which is the command's, and ends it.
        process.wait(TIMEOUT)
    calls = [match[1] for line in log.read_text().splitlines() if (match := re.match(r"(\w+)\(", line))]
    begin, end = calls.index("clone"), calls.index("pselect6")
    found = [Point(call, calls[: index + 1].count(call)) for index, call in enumerate(calls)][begin : end + 1]
    # From there on it is the same again and again: a look at the command, and a wait.
    return [*found, Point("wait4", 2), Point("pselect6", 2), Point("pselect6", 3)]


pytestmark = pytest.mark.filterwarnings("ignore:1 node is a plain lock")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or not sys.platform.startswith("linux"),
    reason="strace is not on the PATH (Debian: apt-get install strace)",
)


@needs_strace
def test_no_command_outlives_a_supervisor_that_is_killed_at_any_instant(lone: Nodes, points: list[Point]) -> None:
    """SIGKILL at every system call around the start of the command, and at some before.

    Either the command never began, or it was stopped long before the lease could end.
    """
    ttl = 8.0
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda point: strike(lone, point, signal.SIGKILL, ttl), [*points[:-14:16], *points[-14:]]))
    struck = [end for end in ends if end is not None]
    assert [end.point for end in struck if end.over_at >= end.struck_at + ttl * 0.9] == []
    assert len(struck) > len(ends) / 2
    assert {end.began for end in struck} == {False, True}  # Or nothing of it was at the start of the command.


@needs_strace
def test_no_command_outlives_the_lease_of_a_supervisor_that_is_stopped_at_any_instant(lone: Nodes, points: list[Point]) -> None:
    """SIGSTOP, which nobody is told of: what runs ends with the lease, and what did not run yet never begins."""
    ttl = 3.0
    with ThreadPoolExecutor(4) as pool:  # They sleep for nearly all of the time.
        ends = list(pool.map(lambda point: strike(lone, point, signal.SIGSTOP, ttl), points[-10:]))
    struck = [end for end in ends if end is not None]
    assert [end.point for end in struck if end.over_at >= end.struck_at + ttl] == []
    assert len(struck) > len(ends) / 2
    assert {end.began for end in struck} == {False, True}
