"""The ballot lock as plain functions on one node's memory: `take.lua` and `free.lua` with small
numbers, and weaker relatives.

`tests/servers/test_model_protocol.py` runs these functions and the shipped Lua side by side on
every small memory, so that what is explored here cannot drift from what ships. A rule that `Rules`
switches off makes a mutant; with `SHIPPED` nothing is changed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "BEHIND",
    "BUSY",
    "GRANTED",
    "SHIPPED",
    "Lock",
    "Op",
    "Reply",
    "Rules",
    "broken_off",
    "counted",
    "free",
    "locked",
    "raised",
    "take",
    "waited",
]


class Lock(NamedTuple):
    """The lock key: `owner:token`, and when it expires.

    *until*: an instant on the timeline of the owner's client (`state.py: Client`); 0: it may expire
    at any moment.
    """

    owner: int
    token: int
    until: int


class Op(IntEnum):
    """What a request asks a node to do: FREE and TAKE, which has two more modes; from COUNT on,
    what only mutants ask."""

    FREE = 0
    TAKE = 1
    EXTEND = 2
    VERIFY = 3
    COUNT = 4
    LOCK = 5
    RAISE = 6


class Reply(NamedTuple):
    """What TAKE answers, and the number that it tells: the token that it granted, or the fence."""

    kind: int
    fence: int


BUSY, GRANTED, BEHIND = 0, 1, 2
"""What `take.lua` answers; the first number of an answer, but for a grant. BUSY is also that it is
somebody else's turn."""


class Rules(NamedTuple):
    """One switch for each rule that keeps the ballot lock safe; `SHIPPED` has all of them on."""

    strict: bool = True
    """A node claims only a token that is larger than its fence, never one that is equal."""
    fence_first: bool = True
    """TAKE writes the fence before the lock, so that one that breaks off leaves no lock without
    its fence."""
    top_up_checks_fence: bool = True
    """An extension puts a missing lock back only where nobody newer has been."""
    extension_never_shortens: bool = True
    """An extension leaves the later of both expiries."""
    owner_per_try: bool = True
    """Every try has an owner of its own."""
    turn_only_refuses: bool = True
    """Whose turn it is may refuse a claim, and never takes a lock that somebody has."""
    quarantine: bool = True
    """A node that forgot does not vote until every validity that began before is over."""
    floor: bool = True
    """After its quarantine a node refuses every token that is not larger than those it may have
    forgotten."""


SHIPPED = Rules()


def take(
    lock: Lock | None,
    fence: int,
    floor: int,
    mode: Op,
    owner: int,
    token: int,
    until: int,
    rules: Rules = SHIPPED,
) -> tuple[Lock | None, int, Reply]:
    """`take.lua` on a node whose marker is the expected one: lock and fence afterwards, and the
    answer."""
    if lock is not None and lock.owner == owner and lock.token == token:
        # Raise the expiry; never shorten it: the holder may rely on the longer.
        if mode is Op.EXTEND:
            lock = Lock(
                owner, token, max(lock.until, until) if rules.extension_never_shortens else until
            )
        return lock, fence, Reply(GRANTED, token)
    if (
        lock is not None
        and lock.owner != owner
        and (rules.turn_only_refuses or mode is not Op.TAKE)
    ):
        return lock, fence, Reply(BUSY, fence)
    if mode is Op.VERIFY:
        return lock, fence, Reply(BEHIND, fence)
    if mode is Op.EXTEND:
        if fence > token and rules.top_up_checks_fence:
            return lock, fence, Reply(BEHIND, fence)
    else:
        low = max(fence, floor)
        if low > token or (low == token and rules.strict):
            return lock, fence, Reply(BEHIND, low)
    return Lock(owner, token, until), max(fence, token), Reply(GRANTED, token)


def waited(lock: Lock | None, fence: int, mode: Op) -> tuple[Lock | None, int, Reply] | None:
    """`take.lua` where it is somebody else's turn; None: then it does what it does anyway. Whatever
    the queue of a node says: all it can do is this."""
    if mode is Op.TAKE and lock is None:
        return lock, fence, Reply(BUSY, fence)
    return None


def broken_off(
    lock: Lock | None,
    fence: int,
    floor: int,
    mode: Op,
    owner: int,
    token: int,
    until: int,
    rules: Rules = SHIPPED,
) -> tuple[Lock | None, int]:
    """`take.lua` that ends between its two writes, where it makes both; Redis does not roll
    back."""
    after, raised, reply = take(lock, fence, floor, mode, owner, token, until, rules)
    if reply.kind != GRANTED or (lock is not None and lock.owner == owner and lock.token == token):
        return lock, fence
    return (lock, raised) if rules.fence_first else (after, fence)


def free(lock: Lock | None, fence: int, owner: int, token: int) -> tuple[Lock | None, int]:
    """`free.lua`: lock and fence afterwards."""
    if lock is not None and lock.owner != owner:
        # Raising the fence past a holder's token would stop it from topping up here.
        return lock, fence
    # Poison: a late TAKE of ours can no longer take this node.
    return None, token + 1 if fence <= token else fence


# Weaker relatives, for mutants alone. Their lock holds an owner and no token; their release only
# deletes.


def counted(
    lock: Lock | None, fence: int, owner: int, until: int
) -> tuple[Lock | None, int, Reply]:
    """SET NX and INCR in one script: the node makes the number."""
    if lock is not None and lock.owner != owner:
        return lock, fence, Reply(BUSY, fence)
    return Lock(owner, 0, until), fence + 1, Reply(GRANTED, fence + 1)


def locked(lock: Lock | None, fence: int, owner: int, until: int) -> tuple[Lock | None, int, Reply]:
    """First phase of two: SET NX, and read the counter."""
    if lock is not None and lock.owner != owner:
        return lock, fence, Reply(BUSY, fence)
    return Lock(owner, 0, until), fence, Reply(GRANTED, fence)


def raised(
    lock: Lock | None, fence: int, owner: int, token: int, rules: Rules = SHIPPED
) -> tuple[Lock | None, int, Reply]:
    """Second phase of two: raise the counter to *token* where the lock is still mine, strictly
    or with max()."""
    if lock is None or lock.owner != owner or (rules.strict and fence >= token):
        return lock, fence, Reply(BEHIND, fence)
    return lock, max(fence, token), Reply(GRANTED, token)
