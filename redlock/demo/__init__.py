"""`redlock demo`: five servers, three workers, two faults, one verdict.

Three processes share one lock, which guards a counter in a file. Meanwhile one server is killed and
comes back without its memory, and another one is stopped for a while. What the workers report is
drawn as it happens and judged at the end: the demonstration can fail, and then says so. It touches
the loopback interface and temporary folders, nothing else.

`scene` says what is played, `worker` and `ledger` are what a worker process does, `crew` is that
process seen from here; `play` plays, `screen` and `closing` print, and `verdict` judges.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn, Self

from redlock.demo.play import Play
from redlock.demo.screen import plain_console

__all__ = ["run"]


def run(seconds: float) -> int:
    """Show it for about *seconds* seconds; give the exit status: 0 clean, 1 not, 2 no server to
    run, 128+N for signal N."""
    console = plain_console()
    with _Interruptible() as signals:
        try:
            return Play(console, seconds).run()
        except KeyboardInterrupt:
            console.print(f"\ninterrupted by {signals.name}: servers, workers and folders are gone")
            return 128 + signals.caught
        except RuntimeError as error:  # No server is installed, or something did not start.
            sys.stderr.write(f"redlock: {error}\n")
            return 2


class _Interruptible:
    """Signals that end the demonstration, once: what they interrupt is then cleaned up
    undisturbed."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.caught = signal.SIGINT

    @property
    def name(self) -> str:
        """The one that came."""
        return self.caught.name

    def __enter__(self) -> Self:
        self._before = {signum: signal.signal(signum, self._take) for signum in self._SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.caught = signal.Signals(signum)
        for each in self._SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt
