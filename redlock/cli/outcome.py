"""Whose exit status it is: CMD may end with any, those of redlock's own among them.

Every end of our own has a line on stderr; `--outcome` tells programs.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import IO, NamedTuple

from redlock.cli.statuses import CONTENDED, SYSTEM, UNAVAILABLE, UNFIT
from redlock.errors import ConfigurationError, RedlockError
from redlock.supervise import CANNOT_RUN, LOST, MISUSED, NOT_FOUND, Ending, say_if_heard

__all__ = ["Done", "done", "interrupted", "noted"]

_WHY = {
    MISUSED: "misused",
    CONTENDED: "contended",
    UNAVAILABLE: "no_quorum",
    LOST: "lost",
    UNFIT: "unfit",
    CANNOT_RUN: "cannot_run",
    NOT_FOUND: "not_found",
    SYSTEM: "system",
}


class Done(NamedTuple):
    """How it ended. *ours*: the status is redlock's own, for one of the reasons in `_WHY`, or for
    a signal, and CMD never began or was stopped."""

    status: int
    ours: bool = True


def done(ending: Ending) -> Done:
    """The same of a command that was supervised."""
    return Done(ending.status, ending.ours)


def interrupted(status: int) -> Done:
    """That of a signal, 128 more than its number, that came while no command ran."""
    say_if_heard(f"ended by {signal.Signals(status - 128).name} while no command ran")
    return Done(status)


def noted(name: str, file: IO[str] | None, conflict: int, run: Callable[[], Done]) -> int:
    """The exit status of what *run* does about *name*, with *conflict* for a lock that is somebody
    else's; how it ended is written to *file*."""
    try:
        ended = run()
    except ConfigurationError as error:
        _write(file, MISUSED, _WHY[MISUSED])
        raise error.about(name) from error.__cause__
    except (RedlockError, OSError, RuntimeError) as error:
        status = UNAVAILABLE if isinstance(error, RedlockError) else SYSTEM
        _write(file, status, _WHY[status])
        raise
    contended = ended.ours and ended.status == CONTENDED
    status = conflict if contended else ended.status
    _write(file, status, _WHY.get(ended.status, "signal") if ended.ours else None)
    return status


def _write(file: IO[str] | None, status: int, why: str | None) -> None:
    if file is None:
        return
    told = {"ended_by": "command" if why is None else "redlock", "reason": why, "status": status}
    try:
        file.write(json.dumps(told) + "\n")
        file.flush()
    except OSError as error:
        say_if_heard(f"cannot write the outcome to {file.name}: {error.strerror}")
