"""What the caller of one lock, or of one election, asked for: checked once, frozen, and handed on
as a whole.

Nothing here knows a coordinator or a driver. Both APIs write the arguments out where users read
them, in `Redlock.lock`, `Redlock.election` and `Lock.acquire`, and nowhere below.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar

from redlock.core.candidate import Candidate
from redlock.core.names import keys_of
from redlock.core.policy import DURATION_MAX, Policy, check_callback, check_duration
from redlock.core.term import Reason
from redlock.core.timings import ElectionTimings
from redlock.errors import ConfigurationError, shown

__all__ = [
    "OMITTED",
    "ElectionOptions",
    "L",
    "LockOptions",
    "Omitted",
    "acquire_timeout",
    "nodes_of_environment",
]

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
    min_hold: float | None = None

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
        min_hold: float | None,
        on_lost: Callable[[L], object] | None,
    ) -> Self:
        """What was asked for; raises ConfigurationError for what cannot work."""
        keys = keys_of(policy.key_prefix, resource)
        try:
            if ttl is None:
                ttl = policy.ttl
            else:
                policy.check_ttl(ttl, policy.max_ttl)
            if max_hold is not None:
                check_duration("max_hold", max_hold)
            if min_hold is not None:
                _check_min_hold(min_hold, ttl, max_hold)
            _check_timeout(timeout)
            check_callback("on_lost", on_lost)
        except ConfigurationError as error:
            raise error.about(resource) from None
        return cls(resource, keys, ttl, timeout, auto_extend, max_hold, on_lost, min_hold)


class ElectionOptions(NamedTuple):
    """What `Redlock.election` was given; see there."""

    candidate: str | None = None
    info: Mapping[str, Any] | None = None
    ttl: float | None = None
    timings: ElectionTimings | None = None
    eligible: Callable[[], Any] | None = None
    priority: float = 0.0
    lock_delay: float = 0.0
    stall_timeout: float | None = None
    hard_stop: str | None = None
    on_started: Callable[[Any], Any] | None = None
    on_stopped: Callable[[Any, Reason], Any] | None = None

    def checked(self, policy: Policy) -> ElectionOptions:
        """The same with what is derived filled in; raises ConfigurationError for what cannot
        work."""
        timings = self.timings
        if timings is None:
            timings = ElectionTimings(ttl=policy.ttl if self.ttl is None else self.ttl)
        elif not isinstance(timings, ElectionTimings):
            must = "must be made with ElectionTimings(ttl=...), or left out"
            raise ConfigurationError(f"timings={shown(timings)} {must}")
        elif self.ttl is not None and self.ttl != timings.ttl:
            raise ConfigurationError(
                f"ttl={self.ttl!r} is not the ttl={timings.ttl:g} of the timings: give one of them"
            )
        timings = timings.under(policy)
        policy.check_ttl(timings.ttl, policy.max_ttl)
        for name, value, most in (
            ("priority", self.priority, timings.ttl),
            ("lock_delay", self.lock_delay, DURATION_MAX),
        ):
            if value != 0 or isinstance(value, bool):
                check_duration(name, value)
            if value > most:
                raise ConfigurationError(
                    f"{name}={value:g} seconds must be at most {most:g}, the ttl: give less"
                    if name == "priority"
                    else f"{name}={value:g} seconds must be at most {most:g}: give less"
                )
        if self.stall_timeout is not None:
            check_duration("stall_timeout", self.stall_timeout)
        if self.hard_stop not in (None, "exit"):
            raise ConfigurationError(f"hard_stop={shown(self.hard_stop)} must be None or 'exit'")
        for name in ("eligible", "on_started", "on_stopped"):
            check_callback(name, getattr(self, name))
        name = _own_name() if self.candidate is None else self.candidate
        candidate = Candidate(name, {} if self.info is None else self.info)
        return self._replace(timings=timings, candidate=candidate.name, info=candidate.info)


def nodes_of_environment() -> list[str]:
    """The nodes that REDLOCK_NODES names. Raises ConfigurationError where it names none."""
    found = re.findall(r"[^\s,]+", os.environ.get("REDLOCK_NODES", ""))
    if not found:
        raise ConfigurationError(
            "no nodes: set REDLOCK_NODES to their URLs, redis://host:port, separated by commas"
        )
    return found


def _own_name() -> str:
    """A name that no other process has: host, process, and a few random digits."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def acquire_timeout(
    blocking: bool,
    timeout: float | Omitted | None,
    default: float | None,
) -> tuple[float | None, bool]:
    """The timeout that holds for one acquire, and whether it is a single try."""
    if isinstance(timeout, Omitted):
        timeout = default
    elif not blocking and timeout is not None:
        raise ConfigurationError(
            f"timeout={shown(timeout)} makes no sense with blocking=False: leave one of them out"
        )
    _check_timeout(timeout)
    return timeout, not blocking or timeout == 0


def _check_min_hold(min_hold: float, ttl: float, max_hold: float | None) -> None:
    check_duration("min_hold", min_hold)
    if min_hold >= min(ttl, ttl if max_hold is None else max_hold):
        shorter = "the ttl" if max_hold is None or max_hold >= ttl else "max_hold"
        raise ConfigurationError(
            f"min_hold={min_hold:g} must be below {shorter}, as a lock that expires is free:"
            f" give a longer {shorter.removeprefix('the ')}"
        )


def _check_timeout(timeout: Any) -> None:
    """Refuse a timeout that is no duration: ValueError, as `threading.Lock.acquire` does.

    Infinity is one: for ever.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        must = "must be None, for ever, or a number of seconds that is not negative"
        raise ConfigurationError(f"timeout={shown(timeout)} {must}")
    if isinstance(timeout, int) and timeout > DURATION_MAX:  # Perhaps larger than any float.
        must = f"must be None or at most {DURATION_MAX:g} seconds, which is a century"
        raise ConfigurationError(f"timeout {must}")
