"""A command under `redlock lock` keeps its terminal: it is the foreground, as under a shell."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from redlock.embedded import Nodes
from redlock.transport.clock import now

LOCK = [sys.executable, "-m", "redlock", "lock", "job", "--ttl", "20", "--"]
SHELL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
before = termios.tcgetattr(0)[3]
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    if sys.argv[1] == "pipe":
        os.dup2(os.open(sys.argv[2], os.O_WRONLY), 1)
    os.execvp(sys.argv[3], sys.argv[3:])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    ours = os.tcgetpgrp(0) in (job, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("shell: stopped", ours, flush=True)
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
os.tcsetpgrp(0, os.getpgrp())
modes = before == termios.tcgetattr(0)[3]
print("shell: ended", os.waitstatus_to_exitcode(status), ours, modes, flush=True)
"""
"""Just enough of a shell: one job in the foreground, and again when it was stopped."""


class Screen:
    """The other end of a terminal in which SHELL runs a command under a lock."""

    def __init__(
        self,
        nodes: Nodes,
        stack: ExitStack,
        *command: str,
        output: str = "",
        lock: Sequence[str] = LOCK,
    ) -> None:
        self._fd, end = pty.openpty()
        stack.callback(os.close, self._fd)
        self._seen = b""
        how = ["pipe", output] if output else ["screen", ""]
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SHELL, *how, *lock, *command],
                stdin=end,
                stdout=end,
                stderr=end,
                env={**os.environ, "REDLOCK_NODES": ",".join(nodes.urls)},
            )
        )
        stack.callback(self.process.kill)
        os.close(end)

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def until(self, word: str, timeout: float = 20.0) -> str:
        """What is shown up to the end of the line with *word*."""
        give_up_at = now() + timeout
        while word.encode() not in self._seen or not self._seen.endswith(b"\n"):
            assert select.select([self._fd], [], [], give_up_at - now())[0], self._seen
            self._seen += os.read(self._fd, 4096)
        shown, self._seen = self._seen, b""
        return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_command_reads_what_is_typed_and_gets_the_keys_that_end_it(
    nodes: Nodes, stack: ExitStack
) -> None:
    """It is the foreground group, so a line reaches it; Ctrl-C is for it, and its status counts."""
    script = """
import os, termios, signal
modes = termios.tcgetattr(0)
modes[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, modes)
print("foreground", os.tcgetpgrp(0) == os.getpgrp() == os.getpid(), flush=True)
print("read", input(), flush=True)
signal.pause()
"""
    screen = Screen(nodes, stack, sys.executable, "-c", script)
    assert "foreground True" in screen.until("foreground")
    screen.type(b"hello\n")
    assert "read hello" in screen.until("read")
    screen.type(b"\x03")
    # It died with the terminal's echo off: as under a shell, that is on again.
    assert "shell: ended 130 True True" in screen.until("shell: ended")


def test_ctrl_z_stops_redlock_with_its_command_and_both_go_on(
    nodes: Nodes, stack: ExitStack
) -> None:
    """Whoever started redlock sees it stopped, with the terminal back; in the foreground again,
    the command has it again."""
    script = "trap 'exit 7' INT; echo begun; read line; echo read $line; read line"
    screen = Screen(nodes, stack, "sh", "-c", script)
    screen.until("begun")
    screen.type(b"\x1a")
    told = screen.until("shell: stopped")
    assert "suspended: nobody renews now" in told and "shell: stopped True" in told
    screen.type(b"again\n")
    assert "read again" in screen.until("read again")
    screen.type(b"\x03")
    assert "shell: ended 7" in screen.until("shell: ended")


def test_in_a_pipeline_the_terminal_is_lent_once_it_is_asked_for(
    nodes: Nodes, stack: ExitStack
) -> None:
    """A pager beside it may need it as well; a command that asks for a password gets it."""
    script = "sleep 0.1; read line < /dev/tty; echo got $line > /dev/tty"
    screen = Screen(nodes, stack, "sh", "-c", script, output="/dev/null")
    screen.type(b"secret\n")
    assert "got secret" in screen.until("got")
    assert "shell: ended 0" in screen.until("shell: ended")


def test_a_line_of_redlock_stops_nobody_in_a_terminal_with_tostop(
    nodes: Nodes, stack: ExitStack
) -> None:
    """While the command is the foreground, redlock is a process that writes from the background;
    the command itself has the signal as it was."""
    script = """
import signal, termios, time
modes = termios.tcgetattr(0)
modes[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, modes)
print("as it was", signal.getsignal(signal.SIGTTOU) is signal.SIG_DFL, flush=True)
input()
termios.tcsetattr(0, termios.TCSANOW, [*modes[:3], modes[3] & ~termios.TOSTOP, *modes[4:]])
"""
    lock = [sys.executable, "-m", "redlock", "-v", "lock", "job", "--ttl", "1", "--"]
    screen = Screen(nodes, stack, sys.executable, "-c", script, lock=lock)
    told = screen.until("as it was")
    assert "as it was True" in told
    told += screen.until("LeaseRenewed")
    screen.type(b"\n")
    told += screen.until("shell: ended")
    assert "shell: ended 0" in told and "shell: stopped" not in told
