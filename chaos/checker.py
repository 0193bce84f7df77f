"""Judges a history: what must hold always, and what only under the assumptions the run was made
with.

Works on records of one true clock, so mutual exclusion is a question about intervals: a belief runs
from its grant to the first of its release, its loss and the end of its validity. The same code
judges simulated runs, live campaigns, and what a user's own `on_event` received (`from_events`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from chaos.figures import duration
from chaos.history import Accepted, Believed, Called, Record, Refused, Seen, Stopped, from_events
from chaos.judgement import ROUNDING, Assumptions, Belief, Violation
from chaos.terms import judge_terms
from redlock.core.events import LeaseGranted, LeaseLapsed, LeaseReleasing, LeaseRenewed, TryStarted

__all__ = ["ROUNDING", "Assumptions", "Belief", "Violation", "beliefs", "check", "from_events"]


def check(history: Sequence[Record], assumptions: Assumptions, end: float) -> list[Violation]:
    """Every violation in *history*, in order of time. *end*: beliefs that are still open end
    there."""
    history = sorted(history, key=_at)
    found: list[Violation] = []
    held = _read(history, end, found, clock=assumptions.lease_clock)
    for resource, leases in held.items():
        _unique(resource, leases, found)
        if assumptions.ordering:
            _ordered(resource, leases, found)
        if assumptions.exclusion:
            _exclusive(resource, leases, found)
    if assumptions.checking:
        _confirmed(history, held, found)
    _guarded(history, found)
    _closed(history, found)
    judge_terms(history, held, assumptions, found)
    return sorted(found, key=_at)


def beliefs(history: Iterable[Record], end: float) -> dict[str, list[Belief]]:
    """By resource, every lease of a history in the order of their grants, each with its end."""
    return _read(sorted(history, key=_at), end, [], clock=True)


def _at(item: Record | Violation) -> float:
    return item.at


def _read(
    history: Iterable[Record], end: float, found: list[Violation], *, clock: bool
) -> dict[str, list[Belief]]:
    """The beliefs; what their own records contradict goes to *found*."""
    leases: dict[str, list[Belief]] = defaultdict(list)
    asked: dict[tuple[str, str], float] = {}
    known: dict[tuple[str, str, int], Belief] = {}
    for record in history:
        kind = type(record)
        if kind is Seen:
            _hear(record, leases, asked, known, found, clock)  # type: ignore[arg-type]  # `kind` says what it is
        elif kind is Believed:
            _believe(record, known, found, clock)  # type: ignore[arg-type]
        elif isinstance(record, Stopped):
            belief = known.get((record.client, record.resource, record.token))
            if belief is not None:
                belief.end(record.at, record.why)
    for belief in known.values():
        belief.end(belief.planned, "expired")
        if belief.until > end:
            belief.until, belief.how = end, "open"
    return leases


def _hear(
    record: Seen,
    leases: dict[str, list[Belief]],
    asked: dict[tuple[str, str], float],
    known: dict[tuple[str, str, int], Belief],
    found: list[Violation],
    clock: bool,
) -> None:
    client, event = record.client, record.event
    kind = type(event)
    if kind is TryStarted:
        asked.setdefault((client, event.owner), record.at)  # type: ignore[attr-defined]
    elif isinstance(event, LeaseGranted):
        asked_at = asked.get((client, event.owner), event.sent_at)
        belief = Belief(
            client,
            event.resource,
            event.owner,
            event.fencing_token,
            asked_at,
            record.at,
            event.valid_until,
        )
        leases[event.resource].append(belief)
        known[client, event.resource, event.fencing_token] = belief
        if event.valid_until <= record.at:
            text = (
                f"{client} was granted token {event.fencing_token} of {event.resource} when its"
                " validity was over"
            )
            found.append(Violation("I4: no belief past the end", record.at, text))
    elif isinstance(event, LeaseRenewed | LeaseReleasing | LeaseLapsed):
        lease = known.get((client, event.resource, event.fencing_token))
        if lease is None:
            if isinstance(event, LeaseRenewed):
                text = (
                    f"{client} renewed token {event.fencing_token} of {event.resource}, which it"
                    " was never granted"
                )
                found.append(Violation("I5: a lost lease stays lost", record.at, text))
        elif isinstance(event, LeaseRenewed):
            _renew(lease, event, record.at, found, clock)
        else:
            lease.end(record.at, "released" if isinstance(event, LeaseReleasing) else "lost")


def _renew(
    lease: Belief, event: LeaseRenewed, at: float, found: list[Violation], clock: bool
) -> None:
    """I5. A renewal that crosses a release is no violation: the first end counts, and a
    `Believed` would tell."""
    who = f"{lease.client}'s lease with token {lease.token} of {lease.resource}"
    if lease.how == "lost" or (clock and at > lease.planned + ROUNDING):
        found.append(
            Violation("I5: a lost lease stays lost", at, f"{who} was renewed after its end")
        )
    if clock and event.valid_until < lease.planned - ROUNDING:
        earlier = duration(lease.planned - event.valid_until)
        text = f"{who} was renewed, and then ended {earlier} earlier"
        found.append(Violation("I5: a renewal never shortens", at, text))
    lease.planned = max(lease.planned, event.valid_until)


def _believe(
    record: Believed, known: dict[tuple[str, str, int], Belief], found: list[Violation], clock: bool
) -> None:
    """I4: no lease says that it is held once it ended, or with no validity left."""
    belief = known.get((record.client, record.resource, record.token))
    if belief is not None:
        belief.believed_at = record.at
    if record.left <= 0 or belief is None or not belief.covers(record.at, clock=clock):
        why = "after its end" if belief is not None else "that it was never granted"
        text = f"{record.client} believed in token {record.token} of {record.resource} {why}"
        found.append(Violation("I4: no belief past the end", record.at, text))


def _with_token(held: list[Belief]) -> list[Belief]:
    """Those with a fencing token. A lock that has none is numbered from -1 downwards by its
    client, to tell its leases apart: it is judged by exclusion alone."""
    return [belief for belief in held if belief.token > 0]


def _unique(resource: str, held: list[Belief], found: list[Violation]) -> None:
    """U, always: no two grants have the same token."""
    seen: dict[int, Belief] = {}
    for belief in _with_token(held):
        other = seen.setdefault(belief.token, belief)
        if other is not belief:
            text = (
                f"{belief.client} and {other.client} both got token {belief.token} for {resource}"
            )
            found.append(Violation("U: tokens are unique", belief.since, text))


def _ordered(resource: str, held: list[Belief], found: list[Violation]) -> None:
    """M: an attempt that began after a grant was decided gets a larger token."""
    held = _with_token(held)
    largest: Belief | None = None
    place = 0
    for belief in sorted(held, key=lambda belief: belief.asked_at):
        while place < len(held) and held[place].since < belief.asked_at:
            if largest is None or held[place].token > largest.token:
                largest = held[place]
            place += 1
        if largest is not None and belief.token < largest.token:
            text = (
                f"{belief.client} asked after {largest.client} had token {largest.token} for"
                f" {resource}, and got {belief.token}"
            )
            found.append(Violation("M: later grants have larger tokens", belief.since, text))


def _exclusive(resource: str, held: list[Belief], found: list[Violation]) -> None:
    """ME: no two beliefs overlap. D: what is decided later has the larger token."""
    last: Belief | None = None
    for belief in held:
        if last is not None:
            both = f"{_holder(last)} and {_holder(belief)}"
            until = max(last.until, last.believed_at)
            if belief.since < until - ROUNDING:
                overlap = min(until, max(belief.until, belief.believed_at)) - belief.since
                text = f"{both} held {resource} together for {duration(overlap)}"
                found.append(Violation("ME: one holder at a time", belief.since, text))
            if 0 < belief.token < last.token:
                text = f"{both} were granted {resource} in this order"
                found.append(Violation("D: tokens rise with every grant", belief.since, text))
        if last is None or belief.until > last.until:
            last = belief


def _holder(belief: Belief) -> str:
    return f"{belief.client} ({f'token {belief.token}' if belief.token > 0 else 'no token'})"


def _confirmed(
    history: Iterable[Record], held: dict[str, list[Belief]], found: list[Violation]
) -> None:
    """X: an extension or verification that succeeds began before anybody newer was granted."""
    for record in history:
        if (
            type(record) is not Called
            or record.outcome != "ok"
            or record.call not in ("extend", "verify")
            or record.token <= 0
        ):
            continue
        began_at = record.at - record.took
        for belief in held.get(record.resource, ()):
            if belief.token > record.token and belief.since < began_at - ROUNDING:
                text = (
                    f"{record.client}'s {record.call} of token {record.token} succeeded after"
                    f" {belief.token} was granted"
                )
                found.append(Violation("X: nobody newer when confirmed", record.at, text))
                break


def _closed(history: Iterable[Record], found: list[Violation]) -> None:
    """C, always: after a close its coordinator gets nothing, and says of nothing that it holds
    it."""
    closed_at: dict[str, float] = {}
    for record in history:
        if type(record) is Called and record.call == "close":
            closed_at[record.client] = record.at
        elif type(record) is Called and record.outcome == "granted" and record.client in closed_at:
            text = (
                f"{record.client} was granted token {record.token} of {record.resource} after it"
                " was closed"
            )
            found.append(Violation("C: nothing is granted after a close", record.at, text))
        elif type(record) is Believed and record.client in closed_at:
            text = (
                f"{record.client} believed in token {record.token} of {record.resource} after it"
                " was closed"
            )
            found.append(Violation("C: a close ends every lease", record.at, text))


def _guarded(history: Iterable[Record], found: list[Violation]) -> None:
    """I3, always: the guarded store takes no smaller token after a larger one, and loses no
    update."""
    largest: dict[str, int] = defaultdict(int)
    value: dict[str, int] = defaultdict(int)
    for record in history:
        kind = type(record)
        if kind is Accepted:
            assert isinstance(record, Accepted)
            resource, token = record.resource, record.token
            if token < largest[resource]:
                text = (
                    f"{record.client} wrote {resource} with token {token} after {largest[resource]}"
                )
                found.append(Violation("I3: no stale write", record.at, text))
            if record.before != value[resource]:
                text = (
                    f"{record.client} overwrote {value[resource]} of {resource} as if it were"
                    f" {record.before}"
                )
                found.append(Violation("I3: no lost update", record.at, text))
            largest[resource] = max(largest[resource], token)
            value[resource] = record.after
        elif kind is Refused:
            assert isinstance(record, Refused)
            largest[record.resource] = max(largest[record.resource], record.largest)
