"""An operator's acts on locks: listing what is held, and taking a lock from its holder.

No part of any acquire, and no coordinator: a short connection to every node, asked all at once. The
whole value of a lock is read here, as a node must be told which one to delete; it is shown nowhere.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis

from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY, TOKEN_MAX, Nonsense, Peek
from redlock.core.names import keys_of
from redlock.core.oust import Oust
from redlock.core.policy import check_text
from redlock.core.quorum import Fault, FaultKind, Kind, Vote, begins, majority, said_by
from redlock.transport.clock import now
from redlock.transport.dial import Endpoint, NodeSpec, endpoints

__all__ = ["Held", "Inventory", "Outcome", "Shown", "held_locks", "oust", "show"]

T = TypeVar("T")
_TIMEOUT = 2.0
"""Seconds for an answer: an operator waits, and a busy server is no dead one."""
_SCAN_FOR = 20.0
"""Seconds for which one node's keys are gone through: a million fences take one or two."""
_TOGETHER = 500
"""Keys asked in one go: more would keep the server from its locks."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_OURS = re.compile(r"([0-9a-f]{8})[0-9a-f]*:(\d{1,16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Held:
    """A lock as a majority of the nodes shows it. *holder*: a quarter of its owner, or what a
    foreign value begins with; *held_by*: what it says of itself. *age*: seconds since it was
    granted, by the nodes' clocks; None without a token. *ttl_left*: None without an expiry."""

    resource: str
    holder: str
    fencing_token: int | None
    age: float | None
    ttl_left: float | None
    nodes: int
    held_by: str | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is held. *unclear*: names of which no majority says the same, held or free, as while
    they change hands. *faults*: the nodes that did not answer, by number. *whole*: nothing was left
    out."""

    locks: tuple[Held, ...]
    unclear: int
    faults: dict[int, str]
    whole: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """What an operator was shown of one lock, and all that `oust` takes away. *held* None: nobody
    holds it, or no majority says the same, which *free* tells apart."""

    resource: str
    held: Held | None
    free: bool
    faults: dict[int, str]
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """On how many nodes the lock is gone with the fence past its token, and on how many somebody
    else holds it by now."""

    gone: int
    others: int
    faults: dict[int, str]


def held_locks(
    nodes: Sequence[NodeSpec], *, key_prefix: str, prefix: str = "", most: int
) -> Inventory:
    """The locks whose names begin with *prefix*, at most *most* names. Writes nothing.

    All keys are gone through, a part at a time, so that nobody waits for it; a lock that is taken
    meanwhile may be missing.
    """
    check_text("key_prefix", key_prefix)
    check_text("prefix", prefix)
    servers, faults = endpoints(nodes), dict[int, str]()
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", key_prefix + prefix) + "*"
    scanned = _of_all(servers, faults, lambda client: _scan(client, pattern, most))
    names = sorted({name for found, _ in scanned.values() for name in found})
    whole = len(names) <= most and all(ended for _, ended in scanned.values())
    names = names[:most]
    votes = _of_all(servers, faults, lambda client: _look(client, names))
    clocks = [clock for _, clock in votes.values()]
    locks, unclear = [], 0
    for place, key in enumerate(names):
        told = [each[place] for each, _ in votes.values()]
        held = _agreed(key.removeprefix(key_prefix), told, len(servers), clocks)
        if held is not None:
            locks.append(held)
        elif sum(vote.kind is Kind.FREE for vote in told) < majority(len(servers)):
            unclear += 1
    return Inventory(tuple(locks), unclear, faults, whole)


def show(nodes: Sequence[NodeSpec], resource: str, *, key_prefix: str) -> Shown:
    """Who holds *resource*, for an operator who may want to `oust` whoever that is."""
    check_text("key_prefix", key_prefix)
    servers, faults = endpoints(nodes), dict[int, str]()
    key, _ = keys_of(key_prefix, resource)
    needed = majority(len(servers))

    def ask(client: redis.Redis) -> tuple[Vote, bytes | None, float]:
        (votes, clock), value = _look(client, [key]), client.get(key)
        return votes[0], value if isinstance(value, bytes) else None, clock

    told = _of_all(servers, faults, ask)
    held = _agreed(
        resource,
        [vote for vote, _, _ in told.values()],
        len(servers),
        [clock for _, _, clock in told.values()],
    )
    values = Counter(value for _, value, _ in told.values())
    raw, count = values.most_common(1)[0] if values else (None, 0)
    value = (raw or b"").decode("utf-8", "surrogateescape")
    if held is None or count < needed or not _is_of(held, value):
        return Shown(resource, None, values[None] >= needed, faults)
    return Shown(resource, held, False, faults, value)


def oust(
    nodes: Sequence[NodeSpec], shown: Shown, *, key_prefix: str, fence_ttl: float = 7 * 86400.0
) -> Outcome:
    """Take the lock that was *shown* from its holder, wherever it still is that one.

    On each node the fence is raised past the holder's token before the lock goes. Once a majority
    has done it, the holder cannot renew any more, as no majority of the others is left; whoever
    takes the lock next has a larger token, as every majority has one of these nodes. Until its next
    renewal the holder believes to hold it: only a resource that checks tokens is safe from it.
    Can be done again; done on a minority alone, it ends nothing.
    """
    servers, faults = endpoints(nodes), dict[int, str]()
    assert shown.held is not None
    token = shown.held.fencing_token or 0
    keys = keys_of(key_prefix, shown.resource)
    command = Oust(*keys, shown.value, token, fence_ttl=fence_ttl)
    words = [word.encode("utf-8", "surrogateescape") for word in command.words(whole=True)]
    done = _of_all(servers, faults, lambda client: command.read(client.execute_command(*words)))  # type: ignore[no-untyped-call]
    gone = sum(each.gone and (not token or each.fence > token) for each in done.values())
    return Outcome(gone, sum(not each.gone for each in done.values()), faults)


def _of_all(
    servers: Sequence[Endpoint], faults: dict[int, str], ask: Callable[[redis.Redis], T]
) -> dict[int, T]:
    """What each node answers, all asked at once; those that do not are added to *faults*, and not
    asked again."""

    def one(node: int) -> T | Fault:
        endpoint = servers[node]
        try:
            with endpoint.client(_TIMEOUT) as client:
                return ask(client)
        except (redis.RedisError, OSError) as error:
            return endpoint.fault(error)
        except Nonsense as error:
            return Fault(FaultKind.NONSENSE, f"answered nonsense: {error}")

    asked = [node for node in range(len(servers)) if node not in faults]
    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        answers = dict(zip(asked, pool.map(one, asked), strict=True))
    faults |= {node: each.detail for node, each in answers.items() if isinstance(each, Fault)}
    return {node: each for node, each in answers.items() if not isinstance(each, Fault)}


def _scan(client: redis.Redis, pattern: str, most: int) -> tuple[set[str], bool]:
    """Keys that may be locks, and whether that is all of them: one more than *most* is enough."""
    found, cursor, until = set[str](), 0, now() + _SCAN_FOR
    while True:
        answer: Any = client.scan(cursor, match=pattern, count=_TOGETHER, _type="string")
        cursor, keys = answer
        for raw in keys:
            key = raw.decode("utf-8", "replace")
            if key != MARKER_KEY and not key.endswith(FENCE_SUFFIX) and "\ufffd" not in key:
                found.add(key)
        if cursor == 0 or len(found) > most or now() > until:
            return found, cursor == 0


def _look(client: redis.Redis, keys: Sequence[str]) -> tuple[list[Vote], float]:
    """What a node says of each key, and its clock, in seconds since the epoch."""
    votes: list[Vote] = []
    time: Any = client.time()
    for first in range(0, len(keys), _TOGETHER):
        peeks = [Peek(key, key + FENCE_SUFFIX) for key in keys[first : first + _TOGETHER]]
        pipeline = client.pipeline(transaction=False)
        for peek in peeks:
            pipeline.execute_command(*peek.words(whole=True))  # type: ignore[no-untyped-call]
        answers = pipeline.execute(raise_on_error=False)
        votes += [_read(peek, answer) for peek, answer in zip(peeks, answers, strict=True)]
    return votes, time[0] + time[1] / 1e6


def _read(peek: Peek, answer: Any) -> Vote:
    if isinstance(answer, redis.ResponseError):  # A fence that is no number, or no lock at all.
        return Vote(Kind.FAULT, fault=Fault(FaultKind.ERROR, f"said {answer}"))
    vote: Vote = peek.read(answer)
    return vote


def _is_of(held: Held, value: str) -> bool:
    """Whether *value* is that of the lock that is shown, and not of one that came in between."""
    raw = value.encode("utf-8", "surrogateescape")
    shown = _CONTROL.sub(b"?", raw).decode("utf-8", "replace")  # As PEEK does.
    return begins(shown) == held.holder and (
        held.fencing_token is None or value.split(":")[1:2] == [str(held.fencing_token)]
    )


def _agreed(
    resource: str, votes: Sequence[Vote], nodes: int, clocks: Sequence[float]
) -> Held | None:
    """The lock that a majority of all *nodes* shows; None if there is none."""
    holders = Counter(vote.holder for vote in votes if vote.kind is Kind.BUSY)
    holder, count = holders.most_common(1)[0] if holders else ("", 0)
    if count < majority(nodes):
        return None
    lasting = sorted(
        (
            float("inf") if vote.ttl_left is None or vote.ttl_left < 0 else vote.ttl_left
            for vote in votes
            if vote.kind is Kind.BUSY and vote.holder == holder
        ),
        reverse=True,
    )
    left = lasting[majority(nodes) - 1]
    ours = _OURS.match(holder)
    token = int(ours[2]) if ours and int(ours[2]) <= TOKEN_MAX else None
    return Held(
        resource,
        begins(holder),
        token,
        max(0.0, statistics.median(clocks) - token / 1e6) if token is not None else None,
        None if left == float("inf") else left,
        count,
        said_by(holder) or None,
    )
