"""What a scenario came to: its figures, computed from the history alone, and whether it ended as
expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chaos.checker import Belief, Violation, beliefs, check
from chaos.figures import duration, percent
from chaos.history import Accepted, Believed, Called, Note, Record, Refused, Seen
from chaos.live.play import Claim, Injection, Phase
from chaos.live.scenario import Expected, Scenario
from chaos.reigns import figures as election_figures
from redlock.core.events import LeaseInJeopardy, LeaseRenewed, TryStarted

__all__ = ["Verdict", "judge", "metrics"]

AVAILABLE = 0.99
"""Share of acquires within their deadline from which on a scenario counts as safe and not as
degraded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """*observed*: an outcome of `Expected`, "violated" or "failed"; *why*: one sentence."""

    observed: str
    ok: bool
    why: str
    metrics: dict[str, Any]
    violations: list[Violation]


def judge(
    scenario: Scenario,
    history: Sequence[Record],
    phases: Sequence[Phase],
    claims: Sequence[Claim],
    injections: Sequence[Injection],
    trouble: str,
    end: float,
) -> Verdict:
    """Compare what happened with what was to. *trouble*: why the script did not come to its end,
    if it did not."""
    violations = check(history, scenario.assumptions, end)
    figures = metrics(history, phases, injections, end)
    observed = _observed(violations, figures, scenario)
    expected = scenario.expected
    broken = [claim for claim in claims if not claim.holds]
    crashed = [
        record for record in history if isinstance(record, Note) and record.kind == "crashed"
    ]
    if expected is Expected.MUST_FAIL:
        ok = bool(violations) and not trouble and not broken
        why = violations[0].text if violations else trouble or "the broken rule was not noticed"
        return Verdict(observed, ok, _with(why, broken), figures, violations)
    if trouble or broken or crashed:
        why = (
            trouble
            or "; ".join(_told(claim) for claim in broken)
            or f"{crashed[0].client} crashed: {crashed[0].text[:300]}"
        )
        return Verdict("violated" if violations else "failed", False, why, figures, violations)
    if violations:
        return Verdict(
            observed, False, f"{violations[0].property}: {violations[0].text}", figures, violations
        )
    fitting = {expected, *scenario.also} | (
        {Expected.SAFE} if expected is Expected.DEGRADED else set()
    )
    if expected is Expected.UNSAFE and observed is not Expected.UNSAFE:
        return Verdict(
            observed,
            False,
            "its fault did not bite: no overlap, and nothing stale was refused",
            figures,
            violations,
        )
    return Verdict(
        observed, observed in fitting, _why(observed, figures, claims), figures, violations
    )


def _observed(violations: Sequence[Violation], figures: dict[str, Any], scenario: Scenario) -> str:
    if violations:
        return "violated"
    if figures["overlap_ms"] > 0 or figures["unfenced_lost_updates"]:
        return Expected.UNSAFE
    if scenario.led and scenario.expected is not Expected.UNSAFE:
        # What puppets are granted is for the script to judge, by its claims.
        return scenario.expected
    if figures["grants_during"] == 0 and figures["denied_during"]:
        return Expected.UNAVAILABLE
    share = figures["availability"].get("during")
    return Expected.SAFE if share is None or share >= AVAILABLE else Expected.DEGRADED


def _why(observed: str, figures: dict[str, Any], claims: Sequence[Claim]) -> str:
    said = [f"{figures['grants']} grants"]
    if observed is Expected.UNSAFE:
        said.append(
            f"{duration(figures['overlap_ms'] / 1000)} of overlap,"
            f" {figures['stale_refused']} stale accesses refused"
        )
        said.append(
            f"the guarded store is clean, an unguarded one lost {figures['unfenced_lost_updates']}"
            " updates"
        )
    else:
        said.append("no overlap")
        share = figures["availability"].get("during")
        if share is not None and observed is not Expected.UNAVAILABLE:
            said.append(f"{percent(share)} of acquires in time during the fault")
    return "; ".join(said + [_told(claim) for claim in claims])


def _with(why: str, broken: Sequence[Claim]) -> str:
    return "; ".join([why, *(_told(claim) for claim in broken)])


def _told(claim: Claim) -> str:
    text = claim.text if claim.holds else f"NOT: {claim.text}"
    return f"{text} ({claim.evidence})" if claim.evidence else text


# Figures


def metrics(
    history: Sequence[Record], phases: Sequence[Phase], injections: Sequence[Injection], end: float
) -> dict[str, Any]:
    """The figures that a history yields. Times in milliseconds where the name says so, else in
    seconds."""
    held = beliefs(history, end)
    all_held = [belief for leases in held.values() for belief in leases]
    calls = [record for record in history if isinstance(record, Called)]
    acquires = [call for call in calls if call.call == "acquire"]
    judged = _probes(acquires)
    return {
        "availability": {phase.name: _share(_within(judged, phase)) for phase in phases},
        "grants": len(all_held),
        "grants_during": sum(
            _inside(belief.asked_at, phase) and _inside(belief.since, phase)
            for belief in all_held
            for phase in phases
            if phase.name == "during"
        ),
        "denied_during": sum(
            _denied(call, phase) for phase in phases if phase.name == "during" for call in acquires
        ),
        "overlap_ms": 1000 * sum(_overlap(leases) for leases in held.values()),
        "belief_overrun_ms": 1000 * _overrun(history, all_held),
        "stale_refused": sum(isinstance(record, Refused) for record in history),
        "stale_accepted": _stale_accepted(history),
        "lost_updates": _lost_updates(history),
        "unfenced_lost_updates": sum(
            isinstance(record, Note) and record.kind == "unfenced-lost-update" for record in history
        ),
        "time_to_next_holder": _spread(_gaps(held)),
        "acquire": {
            phase.name: _spread(
                [call.took for call in _within(judged, phase) if call.outcome == "granted"]
            )
            for phase in phases
        },
        "extend": _spread([call.took for call in calls if call.call == "extend"]),
        "release": _spread([call.took for call in calls if call.call == "release"]),
        "step_down_lead": _spread(
            [
                belief.planned - belief.until
                for belief in all_held
                if belief.how in ("released", "lost")
            ]
        ),
        "one_round_share": _one_round(history, all_held),
        "renewals": sum(
            isinstance(record, Seen) and isinstance(record.event, LeaseRenewed)
            for record in history
        ),
        "jeopardies": sum(
            isinstance(record, Seen) and isinstance(record.event, LeaseInJeopardy)
            for record in history
        ),
        "injection_ms": _injected(injections),
        **election_figures(history),
    }


def _probes(acquires: Iterable[Called]) -> list[Called]:
    """Acquires that say something of the nodes: of locks that nobody else wants, or else those
    that nobody was in the way of."""
    judged = [call for call in acquires if call.outcome not in ("cancelled", "contended")]
    alone = [call for call in judged if call.resource.endswith(f":{call.client}")]
    return alone or judged


def _within(calls: Iterable[Called], phase: Phase) -> list[Called]:
    """Calls that began in the phase."""
    return [call for call in calls if _inside(call.at - call.took, phase)]


def _denied(call: Called, phase: Phase) -> bool:
    """Somebody wanted a lock in the phase, was not given it there, and nobody else was in the
    way."""
    overlaps = call.at - call.took < phase.until and call.at > phase.since
    granted = call.outcome == "granted" and call.at < phase.until
    return overlaps and not granted and call.outcome not in ("contended", "cancelled")


def _inside(at: float, phase: Phase) -> bool:
    return phase.since <= at < phase.until


def _share(calls: Sequence[Called]) -> float | None:
    return sum(call.outcome == "granted" for call in calls) / len(calls) if calls else None


def _overlap(leases: Sequence[Belief]) -> float:
    """Seconds in which two or more believed, also those who believed past the end; three at once
    count no more than two."""
    total, last, counted = 0.0, float("-inf"), float("-inf")
    for belief in sorted(leases, key=lambda belief: belief.since):
        until = max(belief.until, belief.believed_at)
        together = min(last, until)
        total += max(0.0, together - max(belief.since, counted))
        last, counted = max(last, until), max(counted, together)
    return total


def _overrun(history: Iterable[Record], held: Sequence[Belief]) -> float:
    """Largest of (a time it believed) - (the planned end): never positive unless a lease lied."""
    planned = {(belief.client, belief.token): belief.planned for belief in held}
    over = [
        record.at - planned[record.client, record.token]
        for record in history
        if isinstance(record, Believed) and (record.client, record.token) in planned
    ]
    return max(over, default=0.0)


def _gaps(held: dict[str, list[Belief]]) -> list[float]:
    """From the end of a belief that was not released to the next grant of the resource."""
    gaps = []
    for leases in held.values():
        for belief, following in pairwise(sorted(leases, key=lambda belief: belief.since)):
            if belief.how not in ("released", "open"):
                gaps.append(max(0.0, following.since - belief.until))
    return gaps


def _stale_accepted(history: Iterable[Record]) -> int:
    largest: dict[str, int] = {}
    stale = 0
    for record in history:
        if isinstance(record, Accepted):
            stale += record.token < largest.get(record.resource, 0)
            largest[record.resource] = max(record.token, largest.get(record.resource, 0))
    return stale


def _lost_updates(history: Iterable[Record]) -> int:
    value: dict[str, int] = {}
    lost = 0
    for record in history:
        if isinstance(record, Accepted):
            lost += record.before != value.get(record.resource, record.before)
            value[record.resource] = record.after
    return lost


def _one_round(history: Iterable[Record], held: Sequence[Belief]) -> float | None:
    rounds: dict[str, int] = {}
    for record in history:
        if isinstance(record, Seen) and isinstance(record.event, TryStarted):
            rounds[record.event.owner] = max(rounds.get(record.event.owner, 0), record.event.round)
    granted = [rounds[belief.owner] for belief in held if belief.owner in rounds]
    return sum(count == 1 for count in granted) / len(granted) if granted else None


def _injected(injections: Iterable[Injection]) -> dict[str, float]:
    """The slowest of each size, breaking and healing alike."""
    slowest: dict[str, float] = {}
    for injection in injections:
        slowest[injection.size] = max(
            slowest.get(injection.size, 0.0), round(1000 * injection.took, 1)
        )
    return slowest


def _spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6)

    return {"p50": at(0.5), "p99": at(0.99), "max": round(ordered[-1], 6), "count": len(ordered)}
