"""The command that takes a lock from its holder: for an operator, and no part of any flow."""

from __future__ import annotations

from typing import Any, NamedTuple

from redlock.core.commands import QUEUE_SUFFIX, TOKEN_MAX, Command, Nonsense, Script, to_ms

__all__ = ["Oust", "Ousted"]

OUST = Script("oust")


class Ousted(NamedTuple):
    """What one node did. *gone*: nothing is held there any more; False: somebody else holds it.
    *fence*: where its fence is now."""

    gone: bool
    fence: int


class Oust(Command):
    """Delete a lock if its value still is *value*, with the fence past *token* first: see
    `lua/oust.lua`. *token*: 0 for a lock that has none."""

    __slots__ = ()
    script = OUST

    def __init__(
        self, lock_key: str, fence_key: str, value: str, token: int, *, fence_ttl: float
    ) -> None:
        super().__init__(
            (lock_key, fence_key, lock_key + QUEUE_SUFFIX), (value, token, to_ms(fence_ttl))
        )

    def read(self, answer: Any) -> Ousted:
        match answer:
            case [int(code), int(fence)] if code in (0, 1, 2) and 0 <= fence <= TOKEN_MAX + 1:
                return Ousted(code != 2, fence)
        raise Nonsense("not what the script answers")
