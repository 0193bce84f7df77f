"""Judges the terms of elections: nobody leads beside somebody else, a term goes one way, and
nothing is given back before the work has ended.

`judge_terms` is a part of `chaos.checker.check`. `overlaps` needs no more than the ledgers of real
candidates, as their `on_event` received them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from chaos.figures import duration
from chaos.history import Answered, Hook, Led, Record, Seen, Stood, Stopped, from_json
from chaos.judgement import ROUNDING, Assumptions, Belief, Violation
from redlock.core.events import (
    LeaseGranted,
    LeaseReleasing,
    LeaseRenewed,
    TermEnded,
    TermInJeopardy,
    TermRecord,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)

__all__ = ["Term", "judge_terms", "ledger", "overlaps"]

NEVER = float("inf")
RATES = 0.005
"""By what share of itself a delay may be shorter on the true clock than on the candidate's."""

_ALONE = "E1: one leader at a time"
_BELIEF = "E2: nobody believes past its term"
_HOOKS = "E3: on_started and on_stopped are paired"
_RELEASE = "E4: released only when the work has ended"
_ONE_WAY = "E5: a term goes one way"
_RISING = "E5: tokens rise from term to term"
_UNFIT = "E7: who must not lead is not renewed"
_DELAY = "E9: lock_delay after a leader that did not release"


@dataclass(slots=True)
class Term:
    """One term, as its records tell. *valid_until*: the end of its validity as last known;
    *stop_before*: seconds before that at which its candidate leads no more.

    Instants are infinity until they are told of. *late*: seconds its work went on past its
    validity. *led_at*: when the candidate was last told that it leads.
    """

    client: str
    election: str
    candidate: str
    token: int
    started_at: float
    valid_until: float
    stop_before: float
    stopping_at: float = NEVER
    stopped_at: float = NEVER
    ended_at: float = NEVER
    late: float = 0.0
    led_at: float = -NEVER
    unfit_at: float = NEVER

    def __str__(self) -> str:
        return f"{self.candidate} (token {self.token})"

    @property
    def told_until(self) -> float:
        """When its work had ended: as was told, or else with the validity."""
        return self.stopped_at if self.stopped_at < NEVER else self.valid_until

    @property
    def warranted_until(self) -> float:
        """The same, for work that nobody stopped in time: that is for its validity to end."""
        return min(self.told_until, self.valid_until)

    @property
    def believed_until(self) -> float:
        """When its candidate last believed to lead."""
        return max(self.led_at, self.started_at)


def ledger(paths: Iterable[Path | str]) -> Iterator[TermRecord]:
    """The records of terms in files of JSON lines.

    A line is a record of a history (`chaos.history.to_json`), or an event with its fields and its
    "kind"; others are passed over.
    """
    kinds = {kind.__name__ for kind in TermRecord.__subclasses__()}
    for path in paths:
        with Path(path).open(encoding="utf-8") as file:
            for line in file:
                data = json.loads(line)
                event = data.get("event", data)
                if event.get("kind") in kinds:
                    seen = from_json({"kind": "Seen", "at": 0.0, "client": "", "event": event})
                    assert isinstance(seen, Seen) and isinstance(seen.event, TermRecord)
                    yield seen.event


def overlaps(records: Iterable[TermRecord]) -> list[Violation]:
    """What is wrong in the ledgers of all candidates of an election, or of several, put together.

    Every two terms whose work ran at the same time, terms in the wrong order, and records that
    cannot follow each other. All instants must be of one clock, as those of one host are.
    """
    reader = _Reader({}, clock=True)
    for record in sorted(records, key=lambda record: record.at):
        reader.hear(Seen(record.at, record.candidate, record))
    for election, terms in reader.terms.items():
        for one, other in _beside(terms, lambda term: term.told_until):
            text = f"{one} and {other} worked as the leader of {election} at the same time"
            if one.late:
                text += f": {one} worked on for {duration(one.late)} past the end of its validity"
            reader.wrong(_ALONE, other.started_at, text)
        _rising(terms, reader.wrong)
    return sorted(reader.found, key=lambda violation: violation.at)


def judge_terms(
    history: Sequence[Record],
    held: Mapping[str, Sequence[Belief]],
    assumptions: Assumptions,
    found: list[Violation],
) -> None:
    """What is wrong with the terms in *history*, which is in order of time, goes to *found*.
    *held*: its leases, by resource."""
    reader = _Reader(held, clock=assumptions.lease_clock)
    for record in history:
        reader.hear(record)
    found += reader.found
    if not assumptions.exclusion:
        return
    for election, terms in reader.terms.items():
        for one, other in _beside(terms, lambda term: term.warranted_until):
            text = f"{one} and {other} were the leader of {election} at the same time"
            found.append(Violation(_ALONE, other.started_at, text))
        for one, other in _beside(terms, lambda term: term.believed_until):
            text = f"{one} and {other} both believed to lead {election}"
            found.append(Violation(_BELIEF, other.started_at, text))
        _rising(terms, lambda *wrong: found.append(Violation(*wrong)))
        _delayed(terms, reader, held.get(election, ()), found)


def _beside(terms: Sequence[Term], until: Callable[[Term], float]) -> Iterator[tuple[Term, Term]]:
    """Pairs of which the second starts before the first is over."""
    last: Term | None = None
    for term in terms:
        if last is not None and term.started_at < until(last) - ROUNDING:
            yield last, term
        if last is None or until(term) > until(last):
            last = term


def _rising(terms: Sequence[Term], wrong: Callable[[str, float, str], object]) -> None:
    for before, term in pairwise(terms):
        if term.token <= before.token:
            wrong(_RISING, term.started_at, f"{term} came after {before}")


def _delayed(
    terms: Sequence[Term], reader: _Reader, held: Sequence[Belief], found: list[Violation]
) -> None:
    """E9: counted from the end of the last lease that nobody gave back. The candidate counts from
    where it saw somebody newer, or from its own grant, which is later."""
    for term in terms:
        delay = reader.delays.get((term.client, term.candidate), 0.0)
        last_at = -NEVER
        for belief in held:
            if belief.token >= term.token:
                break
            if reader.released.get((term.election, belief.token), NEVER) > term.started_at:
                last_at = belief.planned
        early = last_at + delay * (1 - RATES) - term.started_at
        if delay and early > 0:
            text = f"{term} began {duration(early)} too early for its lock_delay of {delay:g} s"
            found.append(Violation(_DELAY, term.started_at, text))


class _Reader:
    """Goes through records in the order of time, and finds what a term alone may not do.

    *terms*: by election, in the order in which they started. *released*: by resource and token,
    when a lease was given back; *delays*: by client and candidate, its lock_delay.
    """

    def __init__(self, held: Mapping[str, Sequence[Belief]], *, clock: bool) -> None:
        self.terms: dict[str, list[Term]] = defaultdict(list)
        self.released: dict[tuple[str, int], float] = {}
        self.delays: dict[tuple[str, str], float] = {}
        self.found: list[Violation] = []
        self._clock = clock
        self._known: dict[tuple[str, int], Term] = {}
        self._current: dict[tuple[str, str], Term] = {}
        self._lasts: dict[tuple[str, int], float] = {}
        self._hooks: dict[tuple[str, int], list[tuple[str, bool]]] = {}

    def wrong(self, name: str, at: float, text: str) -> None:
        """Note a violation."""
        self.found.append(Violation(name, at, text))

    def hear(self, record: Record) -> None:
        """The next record."""
        kind = type(record)
        if isinstance(record, Seen):
            self._hear_event(record.at, record.client, record.event)
        elif isinstance(record, Stood):
            self.delays[record.client, record.candidate] = record.lock_delay
        elif isinstance(record, Hook):
            self._hook(record)
        elif isinstance(record, Led | Answered | Stopped):
            term = self._known.get((record.resource, record.token))
            if kind is Led:
                self._believe(record, term)  # type: ignore[arg-type]
            elif term is not None and isinstance(record, Answered):
                if not record.fit:
                    term.unfit_at = min(term.unfit_at, record.at)
            elif term is not None:  # The process ended, and its work with it.
                term.stopped_at = min(term.stopped_at, record.at)
                # Whoever comes in its place bears its name.
                self._current.pop((term.client, term.candidate), None)

    def _hear_event(self, at: float, client: str, event: object) -> None:
        if isinstance(event, TermStarted):
            self._start(at, client, event)
        elif isinstance(event, TermRecord):
            self._go_on(at, event)
        elif isinstance(event, LeaseGranted):
            key = event.resource, event.fencing_token
            self._lasts[key] = event.valid_until - event.sent_at
        elif isinstance(event, LeaseRenewed):
            self._renew(at, event)
        elif isinstance(event, LeaseReleasing):
            self._release(at, event)

    def _start(self, at: float, client: str, event: TermStarted) -> None:
        key, who = (event.election, event.fencing_token), (client, event.candidate)
        told = f"{event.candidate} (token {event.fencing_token})"
        if key in self._known:
            self.wrong(_ONE_WAY, at, f"{told} began once more")
            return
        before = self._current.get(who)
        if before is not None and before.ended_at == NEVER:
            self.wrong(_ONE_WAY, at, f"{told} began before {before} had ended")
        stop_before = event.valid_until - event.stop_at
        if stop_before <= 0:
            text = f"{told} is not to stop before its validity ends"
            self.wrong(_BELIEF, at, text)
        term = Term(client, key[0], event.candidate, key[1], at, event.valid_until, stop_before)
        self._known[key] = self._current[who] = term
        self.terms[event.election].append(term)

    def _go_on(self, at: float, event: TermRecord) -> None:
        term = self._known.get((event.election, event.fencing_token))
        told = f"{event.candidate} (token {event.fencing_token}) has {type(event).__name__}"
        if term is None or term.candidate != event.candidate:
            self.wrong(_ONE_WAY, at, f"{told}, and it never began")
            return
        if isinstance(event, TermInJeopardy | TermSafe):
            fits = term.stopping_at == NEVER
            term.valid_until = max(term.valid_until, event.valid_until)
        elif isinstance(event, TermStopping):
            fits = term.stopping_at == NEVER
            term.stopping_at = min(term.stopping_at, at)
        elif isinstance(event, TermStopped):
            fits = term.stopping_at < NEVER and term.stopped_at == NEVER
            term.stopped_at, term.late = min(term.stopped_at, at), max(0.0, -event.margin)
        else:
            assert isinstance(event, TermEnded)
            fits = term.stopped_at < NEVER and term.ended_at == NEVER
            term.ended_at = min(term.ended_at, at)
        if not fits:
            self.wrong(_ONE_WAY, at, f"{told} in the wrong place")

    def _renew(self, at: float, event: LeaseRenewed) -> None:
        """E7: what was sent after the end, or after a no, is one renewal too many."""
        key = event.resource, event.fencing_token
        term = self._known.get(key)
        if term is None:
            return
        term.valid_until = max(term.valid_until, event.valid_until)
        sent_at = event.valid_until - self._lasts.get(key, NEVER)
        if sent_at > min(term.stopping_at, term.unfit_at) + ROUNDING:
            why = "ended" if term.stopping_at < NEVER else "was found unfit"
            self.wrong(_UNFIT, at, f"{term} was renewed after it {why}")

    def _release(self, at: float, event: LeaseReleasing) -> None:
        key = event.resource, event.fencing_token
        self.released.setdefault(key, at)
        term = self._known.get(key)
        if term is None:
            return
        if term.stopped_at == NEVER:
            self.wrong(_RELEASE, at, f"{term} was released before its work had ended")
        elif self._hooks.get(key, _STOPPED)[-1:] != _STOPPED:
            self.wrong(_RELEASE, at, f"{term} was released before on_stopped had ended")
        elif term.late:
            text = f"{term} was released though its work had overrun by {duration(term.late)}"
            self.wrong(_RELEASE, at, text)

    def _believe(self, record: Led, term: Term | None) -> None:
        at = record.at
        if term is None or at < term.started_at:
            text = f"{record.client} believed to lead with token {record.token}, and never began"
            self.wrong(_BELIEF, at, text)
            return
        term.led_at = at
        stop_at = term.valid_until - term.stop_before
        if record.left <= 0 or at > term.stopping_at or (self._clock and at > stop_at + ROUNDING):
            self.wrong(_BELIEF, at, f"{term} believed to lead after it had to stop")

    def _hook(self, record: Hook) -> None:
        """E3: on_started, the work, on_stopped, each after the other, and none without its turn."""
        key = record.resource, record.token
        ran = self._hooks.setdefault(key, [])
        before = ran[-1] if ran else ("", True)
        if record.over:
            fits = before == (record.call, False)
        else:
            fits = before[1] and before[0] in _BEFORE[record.call]
        term = self._known.get(key)
        if term is None or (record.call == "on_stopped" and term.stopped_at == NEVER):
            fits = False
        ran.append((record.call, record.over))
        if not fits:
            what = "returned from" if record.over else "came to"
            text = f"{record.client} {what} {record.call} of token {record.token} out of turn"
            self.wrong(_HOOKS, record.at, text)


_STOPPED = [("on_stopped", True)]
_BEFORE = {"on_started": {""}, "work": {"on_started"}, "on_stopped": {"on_started", "work"}}
"""By call, what must have ended before it begins."""
