"""A flow on its way through a driver: what it waits for, and what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from redlock.core.effects import NEVER, Cancelled, Event, Flow, Grants, Reply, Request, Tick, Wait
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind, Tally, Vote
from redlock.transport.link import Mailbox

__all__ = ["Writer", "Run", "saturated"]

T = TypeVar("T")
_ENDED = Wait(NEVER)


class Writer(Protocol):
    """Where a run's requests go."""

    mailbox: Mailbox

    def send(self, requests: Sequence[Request], run: Run[Any]) -> None:
        """Write *requests*; their events come back to *run*, through `mailbox`."""


class Run(Generic[T]):
    """A flow, the `Wait` it is at, and the set of links it writes to; without one, events for it
    are dropped.

    *wanted*: how many grants it is to be woken for; the links leave all but the last of them in
    *kept*, where they come by *mailbox*, and say nothing. Drivers make it a kind of their own where
    a pause, or its end, is more than time to them.
    """

    __slots__ = (
        "_clock",
        "_flow",
        "_send",
        "done",
        "error",
        "kept",
        "linkset",
        "mailbox",
        "on_done",
        "timer_at",
        "unsent",
        "value",
        "wait",
        "wanted",
    )

    def __init__(
        self,
        flow: Flow[T],
        linkset: Writer,
        clock: Callable[[], float],
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._flow = flow
        self._send = flow.send
        self._clock = clock
        self.on_done = on_done
        self.linkset: Writer | None = linkset
        self.mailbox: Mailbox | None = linkset.mailbox
        self.wait = _ENDED
        self.timer_at = float("inf")
        """When the set that it is on looks at it next, for its time may be over."""
        self.unsent: list[Request] = []
        """What the flow asked for when it had no set of links; its driver may write it."""
        self.wanted = 1
        self.kept: list[Request] = []
        self.done = False
        self.value: T | None = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Run to the first wait that takes time."""
        self._advance(self._send, None)

    def move(self, linkset: Writer | None) -> None:
        """Write to *linkset* from now on, and hear what comes from there alone."""
        self.linkset = linkset
        self.mailbox = linkset.mailbox if linkset is not None else None

    def step(self, event: Event) -> None:
        """Deliver one event, or keep it if the flow does not want to be woken for it yet.

        Kept grants come first, and may bring the flow to another wait. The event behind them was
        for the wait before: a `Tick` says nothing of a wait whose time is not over, and in a pause
        nothing is heard but a `Tick`.
        """
        kept = self.kept
        if type(event) is Reply and event.value is GRANTED:
            if self.wanted > 1:
                self.wanted -= 1
                kept.append(event.request)
                return
            if kept:
                kept.append(event.request)
                self.kept = []
                event = Grants(kept, event.at)
        elif kept:
            self.kept = []
            self._advance(self._send, Grants(kept, event.at))
            wait = self.wait
            if self.done or (event.at < wait.until if type(event) is Tick else wait.pause):
                return
        self._advance(self._send, event)

    def paused(self) -> None:
        """It waits for nothing but the time: a driver may give what it uses to others meanwhile."""

    def may_go_on(self) -> bool:
        """Its pause is over: whether it goes on at once. If not, its driver resumes it when it
        has its turn."""
        return True

    def cancel(self) -> None:
        """The caller went away: let the flow write its last requests, and end."""
        if not self.done:
            self._advance(self._flow.throw, Cancelled())

    def hears(self, linkset: Writer) -> bool:
        """Whether an event that came by *linkset* is for this run now."""
        return self.linkset is linkset and not self.done and not self.wait.pause

    def result(self) -> T:
        """What the flow returned, or raise what it raised."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                # The error knows this frame, and through its callers a set of connections, which
                # would all live on until the collector comes by.
                del error
        return self.value  # type: ignore[return-value]

    def _advance(self, resume: Callable[[Any], Wait], argument: Any) -> None:
        try:
            wait = resume(argument)
            while True:
                self.wait = wait
                self.wanted = wait.grants
                if wait.send:
                    if self.linkset is not None:
                        self.linkset.send(wait.send, self)
                    else:
                        self.unsent.extend(wait.send)
                if wait.until != NEVER:
                    return
                wait = self._send(Tick(self._clock()))
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as error:
            if getattr(self._flow, "gi_frame", None) is not None:
                # It came from the linkset, or from an interrupt between the flow's yield and us:
                # the flow must still clean up.
                if not isinstance(error, Exception):
                    raise
                self._clean_up()
            self.error = error
        self.done = True
        self.kept = []
        # A run and its requests know each other: let go, or every acquire is work for the
        # collector.
        self.wait = _ENDED
        if self.on_done is not None:
            self.on_done()

    def _clean_up(self) -> None:
        with contextlib.suppress(Exception, Cancelled, StopIteration):
            wait = self._flow.throw(Cancelled())
            if self.linkset is not None:
                self.linkset.send(wait.send, self)


def saturated(names: Sequence[str], detail: str) -> Tally:
    """The votes of a call that could not even ask, because a bound of ours was reached."""
    tally = Tally(names)
    for node in range(len(names)):
        tally.cast(node, Vote(Kind.FAULT, fault=Fault(FaultKind.SATURATED, detail)))
    return tally
