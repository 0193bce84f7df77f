"""Planted bugs: one rule of the shipped code broken at a time, to show that the search finds what it looks for.

Each patches the code that ships for the length of a `with`; nothing of the world or the checker is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import redlock.core.acquire as acquire_module
import redlock.core.admission as admission_module
import redlock.core.extend as extend_module
import redlock.core.quorum as quorum_module
from chaos.sim import node as node_module
from chaos.sim import workloads
from chaos.sim.client import SimClient, SimSource
from chaos.sim.node import SimNode
from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import Take
from redlock.core.effects import Flow
from redlock.core.events import LeaseRenewed
from redlock.core.lease import Holding, Status, valid_until
from redlock.core.rounds import Cluster, Round, collect

__all__ = ["BUGS", "planted"]

Plant = Callable[[ExitStack], None]


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Break the rule *name* for the length of a `with`."""
    with ExitStack() as stack:
        BUGS[name](stack)
        yield


def _majority_is_half(stack: ExitStack) -> None:
    """`n // 2` nodes are enough."""
    stack.enter_context(patch.object(quorum_module, "majority", lambda nodes: max(1, nodes // 2)))
    stack.enter_context(patch.object(admission_module, "majority", lambda nodes: max(1, nodes // 2)))


def _validity_from_the_reply(stack: ExitStack) -> None:
    """The lease is valid for a ttl from the deciding reply on, instead of from before the first write."""
    original = acquire_module._Attempt._grant

    def grant(self: Any, sent_at: float, until: float, now: float) -> None:
        original(self, now, valid_until(now, self._ask.ttl, self._cluster.policy.drift_factor), now)

    stack.enter_context(patch.object(acquire_module._Attempt, "_grant", grant))


def _no_drift(stack: ExitStack) -> None:
    """Validity is the whole ttl, as if all clocks ran alike."""
    for module in (acquire_module, extend_module):
        stack.enter_context(patch.object(module, "valid_until", lambda sent_at, ttl, drift: sent_at + ttl))


def _owner_reused(stack: ExitStack) -> None:
    """One owner for all tries of a process: a late release of try 1 deletes the lock of try 2."""
    owners: dict[int, str] = {}
    original = SimSource.owner

    def owner(self: SimSource) -> str:
        return owners.setdefault(id(self), original(self))

    stack.enter_context(patch.object(SimSource, "owner", owner))


def _no_check_after_the_vote(stack: ExitStack) -> None:
    """A grant counts however late its deciding reply came."""
    original = valid_until

    class Endless(float):
        def __gt__(self, other: object) -> bool:
            return True

    stack.enter_context(patch.object(acquire_module, "valid_until", lambda *arguments: Endless(original(*arguments))))


def _no_quarantine(stack: ExitStack) -> None:
    """A node that forgot votes at once."""
    stack.enter_context(patch.object(admission_module, "quarantine_span", lambda max_ttl: 0.0))


def _no_floor(stack: ExitStack) -> None:
    """The marker after a quarantine carries no floor."""
    stack.enter_context(patch.object(admission_module, "FLOOR_AHEAD", -3600.0 * 24))


def _extension_after_expiry(stack: ExitStack) -> None:
    """A lease may be extended after its validity ended, and lives again."""

    def extend(cluster: Cluster, holding: Holding, ttl: float, now: float) -> Flow[None]:
        take = Take(holding.lock_key, holding.fence_key, holding.owner, holding.token, ttl=ttl, fence_ttl=1e5, mode="extend")
        round = Round(cluster, take, now, now + 0.25)
        until = valid_until(now, ttl, cluster.policy.drift_factor)
        yield from collect(round, lambda tally: tally.won or tally.lost, round.requests)
        if round.tally.won:
            holding.status, holding.valid_until = Status.HELD, until
            assert cluster.emit is not None
            cluster.emit(LeaseRenewed(now, holding.resource, holding.owner, holding.token, until))

    stack.enter_context(patch.object(workloads, "extend", extend))


def _extension_from_the_reply(stack: ExitStack) -> None:
    """An extension counts from its reply instead of from before its first write."""
    original = extend_module.extend

    def extend(cluster: Cluster, holding: Holding, ttl: float, now: float) -> Flow[None]:
        yield from original(cluster, holding, ttl, now)
        holding.valid_until += 0.3
        assert cluster.emit is not None
        cluster.emit(LeaseRenewed(now, holding.resource, holding.owner, holding.token, holding.valid_until))

    stack.enter_context(patch.object(workloads, "extend", extend))


def _rewrite(mode: str, change: Callable[[SimNode, list[str], list[str], int], list[Any] | None]) -> Plant:
    def plant(stack: ExitStack) -> None:
        original = node_module._RUN[mode]

        def run(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any]:
            answer = change(self, keys, arguments, now)
            return original(self, keys, arguments, now) if answer is None else answer

        stack.enter_context(patch.dict(node_module._RUN, {mode: run}))

    return plant


def _shorten(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """An extension sets the expiry, also to an earlier one."""
    held = self._get(keys[0], now // 1000)
    if arguments[4] == "extend" and held == f"{arguments[0]}:{arguments[1]}":
        self.data[keys[0]] = (held, now // 1000 + int(arguments[2]))
        return [1, int(arguments[1]), 0]
    return None


def _any_token(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """The token is not compared with the fence."""
    held = self._get(keys[0], now // 1000)
    if arguments[4] == "acquire" and held is None and self._get(keys[2], now // 1000) == arguments[5]:
        self._set(keys[1], arguments[1], int(arguments[3]), now // 1000)
        self._set(keys[0], f"{arguments[0]}:{arguments[1]}", int(arguments[2]), now // 1000)
        return [1, int(arguments[1]), 0]
    return None


def _unmarked(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """The marker inside the script is not checked."""
    marker = self._get(keys[2], now // 1000)
    arguments[5] = marker if marker is not None else "redlock1 - 5 3000 0 0 -"
    if marker is None:
        self.data[keys[2]] = (arguments[5], None)
    return None


def _fence_after_lock(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """No fence is written at all, as when the script was cut between lock and fence."""
    held = self._get(keys[0], now // 1000)
    if arguments[4] == "acquire" and held is None and self._get(keys[2], now // 1000) == arguments[5]:
        self._set(keys[0], f"{arguments[0]}:{arguments[1]}", int(arguments[2]), now // 1000)
        return [1, int(arguments[1]), 0]
    return None


def _no_poison(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """A release deletes, and leaves the door open for a late TAKE."""
    held = self._get(keys[0], now // 1000)
    if held is not None and held.startswith(f"{arguments[0]}:"):
        del self.data[keys[0]]
        return [1]
    return [0]


def _delete_anything(self: SimNode, keys: list[str], arguments: list[str], now: int) -> list[Any] | None:
    """A release deletes the lock, whoever holds it."""
    self.data.pop(keys[0], None)
    return [1]


def _monotonic_clock(stack: ExitStack) -> None:
    """The lease clock stands still while the machine sleeps."""
    original = SimClient.pause

    def pause(self: SimClient, seconds: float) -> None:
        original(self, seconds)
        self.offset -= seconds * self.rate

    stack.enter_context(patch.object(SimClient, "pause", pause))


def _released_lease_lives(stack: ExitStack) -> None:
    """A lease that is extended counts again, though it was lost."""
    stack.enter_context(patch.object(Holding, "lose", lambda self, reason: False))
    original = Holding.renewed

    def renewed(self: Holding, until: float, ttl: float) -> None:
        original(self, until + 1.0, ttl)

    stack.enter_context(patch.object(Holding, "renewed", renewed))


def _no_release(stack: ExitStack) -> None:
    """A failed try leaves its locks where they are."""
    stack.enter_context(patch.object(acquire_module._Attempt, "_releases", lambda self, **_: ()))


def _stranger_counts(stack: ExitStack) -> None:
    """A node that forgot is admitted by whatever it tells."""

    def standing(self: Admission, node: int, at: float) -> Standing:
        identity = self._seen.get(node)
        if identity is None:
            return Standing(State.UNKNOWN)
        return Standing(State.ADMITTED, marker=identity.marker or "redlock1 - 5 3000 0 0 -")

    stack.enter_context(patch.object(Admission, "standing", standing))
    _rewrite("take", _unmarked)(stack)


BUGS: dict[str, Plant] = {
    "majority is half": _majority_is_half,
    "validity from the reply": _validity_from_the_reply,
    "no drift": _no_drift,
    "owner reused": _owner_reused,
    "no check after the vote": _no_check_after_the_vote,
    "no quarantine": _no_quarantine,
    "no floor": _no_floor,
    "extension after expiry": _extension_after_expiry,
    "extension from the reply": _extension_from_the_reply,
    "extension shortens": _rewrite("take", _shorten),
    "token not compared": _rewrite("take", _any_token),
    "no fence": _rewrite("take", _fence_after_lock),
    "marker not checked": _rewrite("take", _unmarked),
    "no poison": _rewrite("free", _no_poison),
    "release deletes anything": _rewrite("free", _delete_anything),
    "clock stands still in suspend": _monotonic_clock,
    "lost lease lives": _released_lease_lives,
    "nothing given back": _no_release,
    "whoever answers votes": _stranger_counts,
}
