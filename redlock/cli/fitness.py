"""`--eligible`: a command that says whether this candidate is fit to lead."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess

import click

from redlock.supervise import drain, say_if_heard, signal_group

__all__ = ["Fitness"]


class Fitness:
    """Runs the check, in a process group of its own, and kills it after *timeout* seconds. Called,
    it says whether the candidate is fit: the check ended in time, with status 0.

    *words*: the command line, split as a shell would. Called from several threads in turn. A
    context manager: on leaving, a check that still runs is ended.
    """

    def __init__(self, words: str, timeout: float) -> None:
        try:
            self.command = shlex.split(words)
        except ValueError as error:
            raise click.UsageError(f"--eligible: {error}") from error
        if not self.command:
            raise click.UsageError("--eligible needs a command.")
        self._timeout = timeout
        self._group = 0
        self._over = False

    def __enter__(self) -> None:
        """From here on it is asked."""
        self._over = False

    def __exit__(self, *exception: object) -> None:
        """Nobody waits for an answer any more: end what runs."""
        self._over = True
        if self._group:
            signal_group(self._group, signal.SIGKILL)

    def __call__(self) -> bool:
        if self._over:
            return False
        try:
            # Its stdout is not the command's, which whoever started us reads.
            check = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            say_if_heard(f"not eligible: cannot run {self.command[0]!r}: {error.strerror}")
            return False
        try:
            self._group = check.pid
            if self._over:  # Told between the two.
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                return check.wait(self._timeout) == 0
            say_if_heard(f"not eligible: no answer within {self._timeout:.3g} s")
            return False
        finally:
            signal_group(check.pid, signal.SIGKILL)
            check.wait()
            self._group = 0
            drain(check.pid)
