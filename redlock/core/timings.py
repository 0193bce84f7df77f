"""The times inside one term of leadership, and the sums that must hold between them.

The one place where a term's deadlines are computed. Nothing here knows who leads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

from redlock.core.lease import validity
from redlock.core.policy import Policy, check_duration
from redlock.errors import ConfigurationError

__all__ = ["MARGIN_MIN", "ElectionTimings"]

RENEWAL_SHARE = 0.25
JEOPARDY_SHARE, STOP_SHARE, KILL_SHARE = 0.15, 0.2, 0.1
"""Shares of the ttl. Two renewals can fail before jeopardy, and a good ten before the stop; the
stop has as long as `redlock lock` gives a command."""
SLACK_SHARE, SLACK_MAX = 0.05, 0.5
"""Of the ttl, and seconds: a thread that waits longer for a processor is on a machine that is
ill."""
RENEWAL_MIN = 0.01
"""Seconds: a few round trips."""
MARGIN_MIN = 0.001
"""Seconds between the end of the last leader's work and the first instant of the next term: what
clocks are read to."""

_DERIVED: float = cast(float, None)
"""The default of what is derived from the ttl; never the value of a field that was made."""


@dataclass(frozen=True, slots=True)
class ElectionTimings:
    """When a leader renews, worries, stops and is stopped. Seconds; all but *ttl* derived from it.

    *ttl*: how long a leader that crashed keeps others from leading. *renewal*: from one renewal to
    the next. *node_timeout*: how long a renewal waits for a node that is silent, at least what the
    coordinator waits. Before the
    validity ends, in this order: *jeopardy* seconds of warning, in which renewals are still tried;
    then the work is asked to stop, and has *stop* seconds for that; then it is stopped by force,
    *kill* seconds before the end. *slack*: how late a thread or a signal of this machine may be.

    Raises ConfigurationError, with both numbers, where a sum does not hold: above all when a leader
    could still be stopping while the next one starts. Others may have other timings: how long a
    term lasts on the nodes is the holder's ttl alone.
    """

    ttl: float = 15.0
    renewal: float = _DERIVED
    node_timeout: float = _DERIVED
    jeopardy: float = _DERIVED
    stop: float = _DERIVED
    kill: float = _DERIVED
    slack: float = _DERIVED
    drift_factor: float = 0.01

    def __post_init__(self) -> None:
        check_duration("ttl", self.ttl)
        policy = Policy(ttl=self.ttl, drift_factor=self.drift_factor)
        defaults = {
            "renewal": RENEWAL_SHARE * self.ttl,
            "node_timeout": policy.node_timeout_for(self.ttl),
            "jeopardy": JEOPARDY_SHARE * self.ttl,
            "stop": STOP_SHARE * self.ttl,
            "kill": KILL_SHARE * self.ttl,
            "slack": min(SLACK_SHARE * self.ttl, SLACK_MAX),
        }
        for name, default in defaults.items():
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, default)
            elif name in ("jeopardy", "stop") and value == 0 and not isinstance(value, bool):
                object.__setattr__(self, name, 0.0)
            else:
                check_duration(name, value)
        self._check()

    def _check(self) -> None:
        if self.renewal < RENEWAL_MIN:
            raise ConfigurationError(
                f"renewal={self.renewal:g} must be at least {RENEWAL_MIN:g} seconds: give more"
            )
        if self.margin < MARGIN_MIN:
            raise ConfigurationError(
                f"a leader may still be stopping {self.stopped_after:.4g} s after its last renewal"
                f" (kill={self.kill:g} leaves slack={self.slack:g} no room), and the next one may"
                f" start {self.validity:.4g} s after it, ttl={self.ttl:g} less drift: give a larger"
                " kill, or ttl"
            )
        known = self.renewal + self.node_timeout + self.slack
        if not known <= self.jeopardy_after:
            raise ConfigurationError(
                f"a failed renewal is known of after {known:.4g} s (renewal={self.renewal:g},"
                f" node_timeout={self.node_timeout:g}, slack={self.slack:g}), and jeopardy begins"
                f" after {self.jeopardy_after:.4g} s (ttl={self.ttl:g}, jeopardy={self.jeopardy:g},"
                f" stop={self.stop:g}, kill={self.kill:g}): renew sooner, or give a longer ttl"
            )

    def under(self, policy: Policy) -> ElectionTimings:
        """The same for a coordinator, which judges a lease by its own drift and may wait longer for
        a node; checked again."""
        # Where the drift of the timings is larger, all that counts from the end of the validity
        # begins so much earlier.
        earlier = max(validity(self.ttl, policy.drift_factor) - self.validity, 0.0)
        return replace(
            self,
            drift_factor=policy.drift_factor,
            kill=self.kill + earlier,
            node_timeout=max(policy.node_timeout_for(self.ttl), self.node_timeout),
        )

    @property
    def validity(self) -> float:
        """Seconds for which a renewal may be relied on, from when it was sent."""
        return validity(self.ttl, self.drift_factor)

    @property
    def kill_before(self) -> float:
        """Seconds before the validity ends at which the work is stopped by force."""
        return self.kill

    @property
    def stop_before(self) -> float:
        """Seconds before the validity ends at which the work is asked to stop."""
        return self.kill + self.stop

    @property
    def jeopardy_before(self) -> float:
        """Seconds before the validity ends at which the term is in jeopardy."""
        return self.stop_before + self.jeopardy

    @property
    def jeopardy_after(self) -> float:
        """Seconds from the last good renewal to jeopardy."""
        return self.validity - self.jeopardy_before

    @property
    def stopped_after(self) -> float:
        """Seconds from the last good renewal to when the work has certainly been stopped."""
        return self.validity - self.kill + self.slack

    @property
    def margin(self) -> float:
        """Seconds between the certain end of this leader's work and the first instant at which
        another may lead."""
        return self.validity - self.stopped_after

    def budget(self) -> dict[str, float]:
        """The margins, in seconds: names and values, in the order in which they come after a last
        good renewal was sent.

        Those that end in "after" are instants counted from then; the others are durations.
        """
        return {
            "ttl": self.ttl,
            "renewal": self.renewal,
            "node timeout": self.node_timeout,
            "next renewal known after": math.fsum((self.renewal, self.node_timeout)),
            "jeopardy after": self.jeopardy_after,
            "stop after": self.validity - self.stop_before,
            "kill after": self.validity - self.kill_before,
            "slack": self.slack,
            "stopped after": self.stopped_after,
            "margin": self.margin,
            "validity ends after": self.validity,
            "drift": self.ttl - self.validity,
        }
