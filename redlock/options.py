"""What the caller of one lock asked for: checked once, frozen, and handed on as a whole.

Nothing here knows a coordinator or a driver. Both APIs write the arguments out where users read
them, in `Redlock.lock` and `Lock.acquire`, and nowhere below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Self, TypeVar

from redlock.core.names import keys_of
from redlock.core.policy import DURATION_MAX, Policy, check_callback, check_duration
from redlock.errors import ConfigurationError

__all__ = ["OMITTED", "LockOptions", "Omitted", "acquire_timeout"]

L = TypeVar("L")


class Omitted:
    """The type of an argument that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<the lock's>"


OMITTED = Omitted()


# A tuple, as a lock may be made for every use: a frozen dataclass takes four times as long to make.
class LockOptions(NamedTuple, Generic[L]):
    """One lock: its resource and *keys* (lock, fence), and what `Redlock.lock` was given.

    *ttl* is the coordinator's where the caller gave none. *L*: the kind of lease that *on_lost* is
    called with.
    """

    resource: str
    keys: tuple[str, str]
    ttl: float
    timeout: float | None
    auto_extend: bool
    max_hold: float | None
    on_lost: Callable[[L], object] | None

    @classmethod
    def of(
        cls,
        policy: Policy,
        resource: str,
        *,
        ttl: float | None,
        timeout: float | None,
        auto_extend: bool,
        max_hold: float | None,
        on_lost: Callable[[L], object] | None,
    ) -> Self:
        """What was asked for; raises ConfigurationError for what cannot work."""
        keys = keys_of(policy.key_prefix, resource)
        if ttl is None:
            ttl = policy.ttl
        else:
            policy.check_ttl(ttl, policy.max_ttl)
        if max_hold is not None:
            check_duration("max_hold", max_hold)
        _check_timeout(timeout)
        check_callback("on_lost", on_lost)
        return cls(resource, keys, ttl, timeout, auto_extend, max_hold, on_lost)


def acquire_timeout(
    blocking: bool,
    timeout: float | Omitted | None,
    default: float | None,
) -> tuple[float | None, bool]:
    """The timeout that holds for one acquire, and whether it is a single try."""
    if isinstance(timeout, Omitted):
        timeout = default
    elif not blocking and timeout is not None:
        raise ConfigurationError(f"timeout={timeout!r} makes no sense with blocking=False")
    _check_timeout(timeout)
    return timeout, not blocking or timeout == 0


def _check_timeout(timeout: Any) -> None:
    """Refuse a timeout that is no duration: ValueError, as `threading.Lock.acquire` does.

    Infinity is one: for ever.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        must = "must be None, or a number of seconds that is not negative"
        raise ConfigurationError(f"timeout={timeout!r} {must}")
    if isinstance(timeout, int) and timeout > DURATION_MAX:  # Perhaps larger than any float.
        must = f"must be None or at most {DURATION_MAX:g} seconds, which is a century"
        raise ConfigurationError(f"timeout {must}")
