"""The last resort of a term whose work does not stop: the process ends, before anybody else can
lead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from redlock.core.term import Mandate, Reason
from redlock.errors import RedlockError
from redlock.transport.clock import now

__all__ = ["HARD_STOP_STATUS", "HardStop"]

HARD_STOP_STATUS = 6
"""Exit status of a process whose work did not stop in time; the same as that of `redlock elect`."""
_LOOK_AGAIN = 0.25
"""At most this long between looks: timers sleep through a suspend, the lease clock does not."""


class HardStop:
    """Ends this process when a term's work has not ended by its kill deadline.

    A thread of its own for each term, that waits for nothing but the clock: it stands in where an
    event loop is blocked, or a thread works on and looks at nothing. Code that keeps the
    interpreter itself from running is beyond it; `redlock elect` has a process for that.
    """

    def __init__(self, mandate: Mandate, term: Callable[[], object | None]) -> None:
        self._mandate = mandate
        # A weak reference: whoever drops a term works under it no more.
        self._term = term
        thread = threading.Thread(target=self._wait, name="redlock-hard-stop", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError, OSError) as error:
            raise RedlockError(
                f"no thread for the hard stop, so no term: allow more threads ({error})"
            ) from error

    def _wait(self) -> None:
        mandate = self._mandate
        while mandate.drained_at is None and self._term() is not None:
            left = mandate.kill_at - now()
            # Somebody else may lead by now, whatever time was left.
            if left <= 0 or mandate.reason is Reason.CONTENDED:
                # Nothing that could wait: neither a lock of the interpreter's exit, nor a log.
                os._exit(HARD_STOP_STATUS)
            time.sleep(min(left, _LOOK_AGAIN))
