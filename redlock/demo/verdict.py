"""What happened, and the verdict on it, computed from the intervals alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from redlock.demo.ledger import StaleToken
from redlock.demo.scene import WORKERS


@dataclass(slots=True)
class Section:
    """One grant and the critical section under it. Instants on the lease clock, which all processes
    share.

    *asked_at*: when the worker began to want the lock; *sent_at*: before the first write of the
    round that won; *ended_at*: before the first release was written, or None; *wrote*: the counter
    was written.
    """

    worker: str
    token: int
    asked_at: float
    sent_at: float
    granted_at: float
    valid_until: float
    ended_at: float | None = None
    wrote: bool = False

    @property
    def until(self) -> float:
        """When nobody had to respect it any more: its release, or without one the end of its
        validity."""
        return self.valid_until if self.ended_at is None else self.ended_at


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    claim: str
    holds: bool
    evidence: str


# Long: the verdict is read from top to bottom, as it is printed.
def judge(
    sections: Sequence[Section], counter: int, token: int, faults: Sequence[str] = ()
) -> list[Finding]:
    """Compare what happened with what a lock promises; *counter* and *token* are what the file says
    in the end.

    Computed from the intervals alone; *faults*: what went wrong otherwise, with a worker or with a
    write.
    """
    order = sorted(sections, key=lambda section: section.granted_at)
    overlaps = _overlaps(order)
    late = [
        section
        for section in order
        if section.ended_at is None or section.ended_at > section.valid_until
    ]
    spare = min((section.valid_until - section.until for section in order), default=0.0)
    steps = [(one.token, other.token) for one, other in pairwise(order)]
    fallen = [(one, other) for one, other in steps if one >= other]
    wrote = sum(section.wrote for section in order)
    last = order[-1].token if order else 0
    return [
        Finding(
            "one holder at a time",
            not overlaps and bool(order),
            f"{_none(len(overlaps))} of {len(order)} grants came while another one stood",
        ),
        Finding(
            "never past its validity",
            not late and bool(order),
            f"{_none(len(late))} ended late; the closest had {duration(spare)} left"
            if order
            else "nothing was granted",
        ),
        Finding(
            "fencing tokens strictly increase",
            not fallen and token == last,
            f"{_none(len(fallen))} of {len(steps)} steps went down or stood still"
            + ("" if token == last else f"; the file has seen {token}, not {last}"),
        ),
        Finding(
            "no update is lost",
            counter == wrote,
            f"{wrote} critical sections wrote, and the counter says {counter}",
        ),
        Finding(
            "nobody fell over",
            not faults,
            "; ".join(faults[:3]) or f"{len(WORKERS)} workers ended in order",
        ),
    ]


def _none(count: int) -> str:
    return str(count) if count else "none"


def duration(seconds: float) -> str:
    """For people: the same wherever the demonstration says how long something took."""
    size = abs(seconds)
    if size >= 0.9995:  # What would be written as 1000 ms.
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if size < 0.00995 else f"{seconds * 1e3:.0f} ms"


def _overlaps(order: Sequence[Section]) -> list[tuple[Section, Section]]:
    """Grants that came while an earlier one still stood; *order*: by `granted_at`."""
    found: list[tuple[Section, Section]] = []
    latest: Section | None = None
    for section in order:
        if latest is not None and section.granted_at < latest.until:
            found.append((latest, section))
        if latest is None or section.until > latest.until:
            latest = section
    return found


@dataclass(slots=True)
class History:
    """Everything the workers told."""

    sections: list[Section] = field(default_factory=list)
    open: dict[str, Section] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    gave_up: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    def hear(self, worker: str, told: Mapping[str, Any]) -> Section | None:
        """Take one message of a worker; give the section that it ended."""
        section = self.open.get(worker)
        match told["kind"]:
            case "asked":
                # Of several tries in a row, the first began the wait.
                self.asked_at.setdefault(worker, told["at"])
            case "granted":
                asked_at = self.asked_at.pop(worker, told["sent_at"])
                self.open[worker] = section = Section(
                    worker,
                    told["token"],
                    asked_at,
                    told["sent_at"],
                    told["at"],
                    told["valid_until"],
                )
                self.sections.append(section)
            case "wrote" if section is not None:
                section.wrote = True
            case "released" | "lost" if section is not None and section.token == told["token"]:
                if told["kind"] == "released":
                    section.ended_at = told["at"]
                return self.open.pop(worker)
            case "failed":
                self.gave_up[told["error"]] += 1
                if told["error"] == StaleToken.__name__:
                    self.refused.append(f"{worker}: {told['detail']}")
        return None
