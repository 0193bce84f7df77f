"""The timings of one coordinator, which refuse relations that cannot work and name both values.

Also what refuses a single argument: no duration, no function, no text.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from redlock.core.lease import validity
from redlock.errors import ConfigurationError, shown

__all__ = ["Policy", "check_callback", "check_duration", "check_text", "warn_about_nodes"]

NODE_TIMEOUT_SHARE = 0.05  # redsync's and the Redis page's "small against the TTL".
NODE_TIMEOUT_MAX = 0.25
"""Seconds: a node that needs longer to answer costs every acquire of a long lock as much."""
NODE_TIMEOUT_MIN = 0.02
"""Below this a garbage collection or a busy CPU makes every node look silent."""
FENCE_KEPT = 0.999
"""take.lua and free.lua leave the expiry of a fence alone that has this share of fence_ttl left."""
DURATION_MAX = 100 * 366 * 86400.0
"""Seconds. Servers count milliseconds in 64 bits and markers in 16 digits, so a bound there must
be; nobody means more."""
HOLDER_MAX = 96
"""Bytes of what a coordinator says of itself: what TAKE shows of a lock has room for it."""
ROUND_SHARE = 3
"""A try may take a third of the ttl (docs/protocol.md 9.4): a node must have answered by then."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Timings in seconds. *node_timeout* None: derived from each lock's ttl. *holder* None: host
    and process."""

    ttl: float = 10.0
    drift_factor: float = 0.01
    node_timeout: float | None = None
    retry_delay: float = 0.1
    fence_ttl: float = 7 * 86400.0
    max_ttl: float | None = None
    durable: bool | None = None
    key_prefix: str = "redlock:"
    repair_missing_ttl: bool = False
    fair: bool = True
    holder: str | None = None

    def __post_init__(self) -> None:
        check_duration("ttl", self.ttl)
        check_duration("retry_delay", self.retry_delay)
        if not (isinstance(self.drift_factor, int | float) and 0 <= self.drift_factor < 0.5):
            told = f"drift_factor={shown(self.drift_factor)} must be at least 0 and below 0.5"
            raise ConfigurationError(told)
        if self.node_timeout is not None:
            check_duration("node_timeout", self.node_timeout)
        if self.max_ttl is not None:
            check_duration("max_ttl", self.max_ttl)
        if self.fence_ttl != 0:
            check_duration("fence_ttl", self.fence_ttl)
        if not isinstance(self.key_prefix, str):
            raise ConfigurationError(f"key_prefix={shown(self.key_prefix)} must be a string")
        check_text("key_prefix", self.key_prefix)
        if self.durable not in (None, True, False):
            raise ConfigurationError(f"durable={shown(self.durable)} must be True, False or None")
        for name, value in (
            ("repair_missing_ttl", self.repair_missing_ttl),
            ("fair", self.fair),
        ):
            if value not in (True, False):
                raise ConfigurationError(f"{name}={shown(value)} must be True or False")
        if self.holder is not None:
            check_holder(self.holder)
        self.check_ttl(self.ttl, self.max_ttl)

    def check_ttl(self, ttl: float, max_ttl: float | None) -> None:
        """Refuse a ttl that the node timeout, the cluster or the fences cannot serve."""
        check_duration("ttl", ttl)
        timeout = self.node_timeout_for(ttl)
        usable = validity(ttl, self.drift_factor)
        if usable <= ROUND_SHARE * timeout:
            leaves = f"ttl={ttl:g} leaves {max(usable, 0.0):.3g} s of validity"
            needs = f"node_timeout={timeout:g} needs more than {ROUND_SHARE * timeout:.3g} s"
            do = "give a longer ttl" + (", or a shorter node_timeout" if self.node_timeout else "")
            raise ConfigurationError(f"{leaves}, and {needs}: {do}")
        if max_ttl is not None and ttl > max_ttl:
            above = f"ttl={ttl:g} is above the cluster's max_ttl={max_ttl:g}"
            do = f"ask for less, or raise it: `redlock init --max-ttl {ttl:g}`"
            raise ConfigurationError(f"{above}: {do}")
        longest = max(ttl, max_ttl or 0.0)
        if self.fence_ttl and self.fence_ttl * FENCE_KEPT <= longest:
            relation = f"fence_ttl={self.fence_ttl:g} must be above max_ttl={longest:g}"
            why = "as a fence has to outlive every lock"
            raise ConfigurationError(f"{relation}, {why}: leave fence_ttl out, or give more")

    def node_timeout_for(self, ttl: float) -> float:
        """Seconds after which a node that has not answered is not waited for any more."""
        if self.node_timeout is not None:
            return self.node_timeout
        return min(max(NODE_TIMEOUT_SHARE * ttl, NODE_TIMEOUT_MIN), NODE_TIMEOUT_MAX, ttl / 5)


def check_duration(name: str, value: float) -> None:
    """Refuse what is not a positive, finite number of seconds, or is more than a century."""
    # Compared before anything is computed: an int may be larger than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(
            f"{name}={shown(value)} must be a positive, finite number of seconds"
        )
    if value > DURATION_MAX:
        told = f"{name} must be at most {DURATION_MAX:g} seconds, which is a century"
        raise ConfigurationError(told)


def check_holder(holder: object) -> None:
    """Refuse what cannot stand in a message: no text, a long one, one with control characters."""
    if not isinstance(holder, str):
        raise ConfigurationError(f"holder={shown(holder)} must be a string, or None")
    check_text("holder", holder)
    size = len(holder.encode())
    if size > HOLDER_MAX or not holder.isprintable():
        must = f"must be printable, and have at most {HOLDER_MAX} bytes"
        raise ConfigurationError(f"holder={shown(holder)} ({size} bytes) {must}")


def check_callback(name: str, value: object) -> None:
    """Refuse what is neither None nor can be called."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name}={shown(value)} must be a function, or None")


def check_text(name: str, value: str) -> None:
    """Refuse what no bytes can be made of.

    Such as half of a surrogate pair, which is what bytes that are no UTF-8 become in `sys.argv`.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        why = f"cannot be encoded as UTF-8 (character {error.start + 1}: {error.reason})"
        do = "decode what it was made of with the encoding that it has"
        raise ConfigurationError(f"{name}={shown(value)} {why}: {do}") from None


def warn_about_nodes(nodes: int) -> None:
    """Say what an even number of nodes, or fewer than three, costs."""
    if nodes == 1:
        gone = "1 node is a plain lock: it is gone while its node is down"
        told = f"{gone}; 3 nodes survive the loss of one"
    elif nodes == 2:
        told = "2 nodes tolerate no failure: both must answer for every lock; use 1, 3 or 5"
    elif nodes % 2 == 0:
        no_more = f"{nodes} nodes tolerate no more failures than {nodes - 1}"
        told = f"{no_more}, and need one more answer for every lock"
    else:
        return
    warnings.warn(told, UserWarning, stacklevel=4)
