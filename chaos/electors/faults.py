"""What is done to the leader. Each fault begins just after a renewal, when it has the most of its
lease before it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chaos.electors.line import Flow

__all__ = ["FAULTS", "Fault", "Leader"]


class Leader(Protocol):
    """The leader, for a fault. *lease*: of its elector, in seconds."""

    lease: float

    def after_renewal(self, flow: Flow = Flow.OPEN) -> None:
        """Wait for the next renewal, and let pass only *flow* from just then on."""

    def signal(self, sign: signal.Signals) -> None:
        """Send it to its process."""

    def order(self, order: Mapping[str, Any]) -> None:
        """Give it an order of `chaos.electors.candidate.Work.obey`."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(frozen=True, slots=True)
class Fault:
    """*inflict* returns as soon as the fault is over, or when it is there to stay."""

    name: str
    text: str
    inflict: Callable[[Leader], None]


def _killed(leader: Leader) -> None:
    leader.after_renewal()
    leader.signal(signal.SIGKILL)


def _stopped(leader: Leader) -> None:
    leader.after_renewal()
    leader.signal(signal.SIGSTOP)
    leader.sleep(1.5 * leader.lease)
    leader.signal(signal.SIGCONT)


def _cut(leader: Leader) -> None:
    leader.after_renewal(Flow.CUT)


def _mute(leader: Leader) -> None:
    leader.after_renewal(Flow.MUTE)


def _blocked(leader: Leader) -> None:
    leader.after_renewal()
    leader.order({"do": "block", "seconds": 1.5 * leader.lease})


def _renewer(leader: Leader) -> None:
    leader.after_renewal()
    leader.order({"do": "break"})


def _stubborn(leader: Leader) -> None:
    leader.after_renewal(Flow.CUT)
    leader.order({"do": "ignore", "seconds": 2 * leader.lease})


FAULTS = {
    one.name: one
    for one in (
        Fault("killed", "SIGKILL", _killed),
        Fault("stopped", "SIGSTOP for 1.5 leases, then SIGCONT", _stopped),
        Fault("cut", "a black hole: no request arrives, no reply, no reset", _cut),
        Fault("mute", "requests arrive, replies do not", _mute),
        Fault("blocked", "its work lets nothing else of the process run for 1.5 leases", _blocked),
        Fault("renewer", "its renewal raises in the thread that calls it", _renewer),
        Fault("stubborn", "cut, and its work looks at no stop signal for 2 leases", _stubborn),
    )
}
"""By name."""
