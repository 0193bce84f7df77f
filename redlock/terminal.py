"""The terminal, lent to a command that runs in a process group of its own, as a shell does it.

Only the foreground group of a terminal may read from it, gets its Ctrl-C and may set its modes. So
who starts a command in another group makes that one the foreground, and takes the terminal back
when the command has ended, or was stopped by Ctrl-Z.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any

__all__ = ["Terminal"]


class Terminal:
    """The controlling terminal of this process. *lent*: the group that has it from us, 0 for none.

    Nothing here raises where the terminal has gone: then there is nothing to lend.
    """

    def __init__(self, fd: int) -> None:
        self.lent = 0
        self._fd = fd
        self._modes: list[Any] | None = None
        # Who is not the foreground is stopped by a line it writes, where the terminal has `tostop`:
        # while it is lent, that is us, and nobody would renew.
        self._before = signal.signal(signal.SIGTTOU, signal.SIG_IGN) or signal.SIG_DFL

    @classmethod
    def find(cls) -> Terminal | None:
        """The one that this process has; None for cron, a service, a container without one."""
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            return None

    def close(self) -> None:
        """Forget it; also in the forked process that becomes the command."""
        signal.signal(signal.SIGTTOU, self._before)
        os.close(self._fd)

    @property
    def is_at_hand(self) -> bool:
        """Whether a command should have it from its first moment on: somebody types here and reads
        here.

        In a pipeline another command of our group may need it, a pager perhaps; and what a script
        starts by `&` has no terminal for its input. There it is lent once it is asked for.
        """
        return os.isatty(0) and os.isatty(1)

    def lend(self, group: int) -> bool:
        """Make *group* the foreground; False if the terminal is not ours to lend, as we are in the
        background."""
        with contextlib.suppress(OSError, termios.error):
            if os.tcgetpgrp(self._fd) == os.getpgrp():
                self._modes = termios.tcgetattr(self._fd)
                self._give(group)
                self.lent = group
        return self.lent == group

    def take_back(self, *, reset: bool) -> None:
        """Be the foreground again, if the group that we lent it to still is. *reset*: set the modes
        as they were, as it had no time to."""
        group, self.lent = self.lent, 0
        with contextlib.suppress(OSError, termios.error):
            if group and os.tcgetpgrp(self._fd) == group:
                self._give(os.getpgrp())
                if reset and self._modes is not None:
                    termios.tcsetattr(self._fd, termios.TCSANOW, self._modes)

    def _give(self, group: int) -> None:
        # Whoever is not in the foreground may do this only with the signal blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(self._fd, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
