"""The terms in a history, each with what its ledger says, and figures of them: how late a leader
was told to stop, what validity was left when its work had ended, when the next one led."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chaos.history import Led, Note, Record, Seen, Stopped
from redlock.core.events import (
    LeaseRenewed,
    TermEnded,
    TermInJeopardy,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)

__all__ = ["Reign", "figures", "gaps", "reigns"]


@dataclass(slots=True)
class Reign:
    """One term. *stop_at*, *valid_until*: as last renewed, when its candidate had to be told, and
    when somebody else may lead; *led_at*: when it was last told that it leads; *told_at*: when a
    thread or task of the work that waits for the stop woke; *killed_at*: when its process ended.
    *spells*: its states, "leader", "jeopardy" and "stepping" down, each with its beginning."""

    client: str
    election: str
    token: int
    started_at: float
    stop_at: float
    valid_until: float
    spells: list[tuple[str, float]]
    stopping: TermStopping | None = None
    stopped: TermStopped | None = None
    ended: TermEnded | None = None
    led_at: float = float("-inf")
    told_at: float | None = None
    killed_at: float | None = None

    @property
    def reason(self) -> str:
        """Why it ended; empty while it had not, or where nobody lived to say it."""
        return self.stopping.reason if self.stopping is not None else ""

    @property
    def over_at(self) -> float | None:
        """When nothing of it ran any more."""
        return self.ended.at if self.ended is not None else self.killed_at

    @property
    def work_ended_at(self) -> float | None:
        """When its work had ended, or its process."""
        return self.stopped.at if self.stopped is not None else self.killed_at

    def states(self, end: float) -> Iterator[tuple[str, float, float]]:
        """Its candidate's states in it, each with its beginning and its end; *end*: of the
        history."""
        last = self.over_at if self.over_at is not None else end
        for (state, since), (_, until) in pairwise([*self.spells, ("", last)]):
            if since < until:
                yield state, since, until

    def renewed(self, valid_until: float) -> None:
        """A renewal moves both deadlines."""
        self.stop_at += max(0.0, valid_until - self.valid_until)
        self.valid_until = max(self.valid_until, valid_until)


# Long: what each record says of a term, one after the other.
def reigns(history: Iterable[Record]) -> list[Reign]:
    """The terms of a history that is in order of time, in the order in which they began."""
    known: dict[tuple[str, int], Reign] = {}
    for record in history:
        match record:
            case Seen(event=TermStarted() as event):
                reign = Reign(
                    record.client,
                    event.election,
                    event.fencing_token,
                    record.at,
                    event.stop_at,
                    event.valid_until,
                    [("leader", record.at)],
                )
                known[event.election, event.fencing_token] = reign
            case Seen(event=LeaseRenewed() as event):
                found = known.get((event.resource, event.fencing_token))
                if found is not None and found.stopping is None:
                    found.renewed(event.valid_until)
            case Seen(
                event=TermInJeopardy()
                | TermSafe()
                | TermStopping()
                | TermStopped()
                | TermEnded() as event
            ):
                found = known.get((event.election, event.fencing_token))
                if found is not None:
                    _hear(found, event, record.at)
            case Led():
                found = known.get((record.resource, record.token))
                if found is not None:
                    found.led_at = record.at
            case Note(kind="told to stop"):
                found = next(
                    (each for each in known.values() if str(each.token) == record.text), None
                )
                if found is not None:
                    found.told_at = record.at
            case Stopped():
                found = known.get((record.resource, record.token))
                if found is not None:
                    found.killed_at = record.at
    return list(known.values())


def _hear(
    reign: Reign,
    event: TermInJeopardy | TermSafe | TermStopping | TermStopped | TermEnded,
    at: float,
) -> None:
    match event:
        case TermInJeopardy():
            reign.spells.append(("jeopardy", at))
        case TermSafe():
            reign.spells.append(("leader", at))
        case TermStopping():
            reign.stopping = event
            reign.spells.append(("stepping", at))
        case TermStopped():
            reign.stopped = event
        case TermEnded():
            reign.ended = event


def gaps(terms: Sequence[Reign]) -> list[tuple[Reign, Reign, float]]:
    """Of every two terms in a row of an election: both, and the seconds from when the first one led
    no more to the second."""
    found = []
    for before, after in pairwise(sorted(terms, key=lambda reign: reign.started_at)):
        if before.election == after.election:
            ended = [
                at
                for at in (before.stopping.at if before.stopping else None, before.killed_at)
                if at is not None
            ]
            if ended:
                found.append((before, after, after.started_at - min(ended)))
    return found


def figures(history: Iterable[Record]) -> dict[str, Any]:
    """What a verdict tells of the elections in a history; empty if there was none. Seconds."""
    terms = reigns(history)
    if not terms:
        return {}
    margins = [reign.stopped.margin for reign in terms if reign.stopped is not None]
    return {
        "terms": len(terms),
        "term_reasons": dict(Counter(reign.reason for reign in terms if reign.reason)),
        "least_margin": min(margins, default=None),
        "overrun_terms": sum(margin < 0 for margin in margins),
        "next_leader_max": max((gap for _, _, gap in gaps(terms)), default=None),
    }
