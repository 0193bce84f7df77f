"""What the script of a candidate yields: one step after another, done by a driver, which answers
with the instant after it and a value."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from redlock.core.acquire import Acquisition
from redlock.core.term import Mandate, Reason

__all__ = [
    "Begin",
    "Campaign",
    "Eligible",
    "Finish",
    "Pause",
    "Release",
    "Script",
    "Step",
    "Work",
]


@dataclass(frozen=True, slots=True)
class Eligible:
    """Ask whether the candidate is fit. Answer: a bool."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """Take the lock, as *ask* says. Answer: the `Holding`, watched as the candidacy's mandate;
    None: the candidate resigned meanwhile."""

    ask: Acquisition


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait until *until*, or until something ends the wait: a resignation, the end of the term."""

    until: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Call `on_started`. Answer: what it raised, or None."""

    mandate: Mandate


@dataclass(frozen=True, slots=True)
class Work:
    """Do the work, and come back when it has ended, however long that takes. Answer: what it
    raised, or None."""

    mandate: Mandate


@dataclass(frozen=True, slots=True)
class Finish:
    """Call `on_stopped`."""

    mandate: Mandate
    reason: Reason


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lock back. Answer: whether a majority confirmed."""

    mandate: Mandate


Step = Eligible | Campaign | Pause | Begin | Work | Finish | Release
Script = Generator[Step, tuple[float, Any], None]
