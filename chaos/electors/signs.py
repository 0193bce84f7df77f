"""Signs of work: what a candidate leaves in a file while it works as a leader, and how it is read.

A sign is an instant of CLOCK_MONOTONIC, which all processes of a host share. Signs that follow one
another closely are one stretch, which stands in the file as one record whose end moves: the file
stays small, and what was written is there however the candidate ends. Imports the standard library
alone.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["GAP_MAX", "PAUSE", "Log", "Sign", "Stretch", "Stretches", "read"]

PAUSE = 0.002
"""Seconds between two signs of one who works."""
GAP_MAX = 0.02
"""Seconds without a sign that end a stretch: ten pauses, so that a busy machine seldom does, and a
stopped process always."""
_RECORD = struct.Struct("<qdd")


class Sign(NamedTuple):
    """One sign of work: the number of the term, and the instant."""

    term: int
    at: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """*who* worked in its *term* from *since* to *until*, at no time more than `GAP_MAX` without a
    sign."""

    who: str
    term: int
    since: float
    until: float


class Stretches:
    """Makes records of signs, in the order in which they come. *last*: of the latest sign, its
    number, term, first and last instant."""

    def __init__(self) -> None:
        self.last: tuple[int, int, float, float] | None = None

    def add(self, sign: Sign) -> tuple[int, int, float, float]:
        """The record that *sign* belongs to, as it is now."""
        last = self.last
        if last is None:
            self.last = (0, sign.term, sign.at, sign.at)
        elif sign.term != last[1] or sign.at - last[3] > GAP_MAX:
            self.last = (last[0] + 1, sign.term, sign.at, sign.at)
        else:
            self.last = (last[0], last[1], last[2], sign.at)
        return self.last


class Log:
    """The file of one candidate, which it alone writes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._stretches = Stretches()

    def sign(self, term: int) -> None:
        """I work now, in my term of that number."""
        number, term, since, until = self._stretches.add(Sign(term, time.monotonic()))
        os.pwrite(self._file, _RECORD.pack(term, since, until), number * _RECORD.size)


def read(who: str, path: Path) -> list[Stretch]:
    """What the candidate *who* has written so far."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = len(data) // _RECORD.size * _RECORD.size
    return [Stretch(who, *record) for record in _RECORD.iter_unpack(data[:whole])]
