"""A history as a timeline for people: one line a record, violations where they happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from chaos.checker import Violation
from chaos.history import (
    Accepted,
    Answered,
    Believed,
    Broken,
    Called,
    Healed,
    Hook,
    Led,
    NodeSeen,
    Note,
    Record,
    Refused,
    Seen,
    Stood,
    Stopped,
)
from redlock.core import events
from redlock.core.events import (
    Event,
    LeaseGranted,
    LeaseInJeopardy,
    LeaseLapsed,
    LeaseReleasing,
    LeaseRenewed,
    TryFailed,
    TryStarted,
)

__all__ = ["line", "timeline"]


def timeline(history: Iterable[Record], violations: Iterable[Violation]) -> Iterator[str]:
    """The lines of a run, in order of time."""
    wrong = sorted(violations, key=lambda violation: violation.at)
    for record in history:
        while wrong and wrong[0].at < record.at:
            yield _violation(wrong.pop(0))
        yield line(record)
    yield from map(_violation, wrong)


def _violation(violation: Violation) -> str:
    return f"{violation.at:10.4f}  !!!!  VIOLATION of {violation.property}: {violation.text}"


def line(record: Record) -> str:
    """One record."""
    return f"{record.at:10.4f}  {record.client:4s}  {_what(record)}"


def _what(record: Record) -> str:
    match record:
        case Seen(event=event):
            return _event(event)
        case Believed():
            return (
                f"is told that it holds {record.resource} with token {record.token}, for"
                f" {record.left:.4f} s more"
            )
        case Called(call="close"):
            return f"is closed, after {record.took:.4f} s"
        case Called():
            token = f" (token {record.token})" if record.token else ""
            return (
                f"{record.call} of {record.resource} returns after {record.took:.4f} s:"
                f" {record.outcome}{token}"
            )
        case Stood():
            return f"stands for {record.resource} as {record.candidate}"
        case Led():
            return (
                f"is told that it leads {record.resource} with token {record.token}, for"
                f" {record.left:.4f} s more"
            )
        case Hook():
            return f"token {record.token}: {record.call} {'is over' if record.over else 'begins'}"
        case Answered():
            return f"is {'fit' if record.fit else 'not fit'} for token {record.token}"
        case Stopped():
            return f"stops holding token {record.token} of {record.resource}: {record.why}"
        case Accepted():
            return (
                f"writes {record.before} -> {record.after} to {record.resource} with token"
                f" {record.token}"
            )
        case Refused():
            return (
                f"is refused by the store of {record.resource}: token {record.token} after"
                f" {record.largest}"
            )
        case Broken():
            return f"*** {record.fault}: {record.what}"
        case Healed():
            return f"*** {record.fault} is over"
        case NodeSeen():
            return f"n{record.node} is {record.state}" + (
                f", held by {record.owner[:8]}" if record.owner else ""
            )
        case Note():
            return record.text
    return repr(record)


def _event(event: Event) -> str:
    match event:
        case TryStarted():
            return (
                f"tries {event.resource} as {event.owner[:8]}, round {event.round}, token"
                f" {event.fencing_token}"
            )
        case TryFailed():
            return f"gives {event.owner[:8]} up: {event.votes}"
        case LeaseGranted():
            return (
                f"GRANTED {event.resource} to {event.owner[:8]}, token {event.fencing_token}, until"
                f" {event.valid_until:.4f}"
            )
        case LeaseRenewed():
            return (
                f"RENEWED {event.resource}, token {event.fencing_token}, until"
                f" {event.valid_until:.4f}"
            )
        case LeaseInJeopardy():
            return (
                f"in jeopardy: {event.resource}, token {event.fencing_token}, until"
                f" {event.valid_until:.4f}: {event.votes}"
            )
        case LeaseLapsed():
            return f"LOST {event.resource}, token {event.fencing_token}: {event.reason}"
        case LeaseReleasing():
            return f"RELEASES {event.resource}, token {event.fencing_token}"
        case events.TermStarted():
            return (
                f"LEADS {event.election} as {event.candidate}, token {event.fencing_token}, until"
                f" {event.stop_at:.4f} of {event.valid_until:.4f}"
            )
        case events.TermInJeopardy() | events.TermSafe():
            how = "safe again" if isinstance(event, events.TermSafe) else "in jeopardy"
            return f"token {event.fencing_token} is {how}: it leads until {event.stop_at:.4f}"
        case events.TermStopping():
            return (
                f"STOPS leading with token {event.fencing_token}: {event.reason}, {event.lag:.4f} s"
                f" late, {event.margin:.4f} s before its end"
            )
        case events.TermStopped():
            return (
                f"its work has ended, token {event.fencing_token}, {event.margin:.4f} s before the"
                " end"
            )
        case events.TermEnded():
            how = "released" if event.released else "left to expire"
            return f"its term has ended, token {event.fencing_token}, {how} {event.error}"
        case events.NodeAdmitted():
            return f"admits {event.node} (run {event.run_id[:8]})"
        case events.NodeQuarantined() | events.NodeRejected():
            return f"lets {event.node} not vote: it {event.reason}"
        case events.NodeMemoryChanged():
            return (
                f"finds another memory behind {event.node}: {event.now[:8]} instead of"
                f" {event.before[:8]}"
            )
        case events.NodeDisconnected():
            return f"lost {event.node}: it {event.reason}"
    return f"{type(event).__name__} " + ", ".join(
        f"{field.name} {getattr(event, field.name)}" for field in fields(event)[1:]
    )
