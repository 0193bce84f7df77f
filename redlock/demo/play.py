"""The play: workers begin, servers fail, workers end; what they tell is printed and judged."""

from __future__ import annotations

import contextlib
import selectors
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redlock.core.quarantine import quarantine_span
from redlock.demo.closing import conclude
from redlock.demo.crew import Worker
from redlock.demo.ledger import Ledger
from redlock.demo.scene import (
    DEAD,
    KILLED,
    MAX_TTL,
    NODES,
    PAUSED,
    QUARANTINED,
    STOPPED,
    TTL,
    VOTES,
    WORKERS,
)
from redlock.demo.screen import NODE_STYLES, Screen
from redlock.demo.verdict import History, judge
from redlock.embedded import Nodes
from redlock.transport.clock import now

if TYPE_CHECKING:
    from rich.console import Console

_START_TIMEOUT, _END_TIMEOUT = 15.0, 5.0
_LAG = 0.15
"""Lines are printed this much later than what they tell, so that they come in order of time."""
_DETAILS_FIRST = 5


class Play:
    """Servers and workers, what happens to them, and what they tell."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        # The quarantine of the killed node should end within the play.
        self._max_ttl = min(MAX_TTL, max(TTL, (0.3 * seconds - 1.0) / 1.02))
        self._history = History()
        self._screen = Screen(console, seconds, self._history)
        self._states = (VOTES,) * NODES
        self._began_at = 0.0
        self._details = _DETAILS_FIRST
        self._details_from = 0.0
        self._said: set[tuple[int, str]] = set()
        self._names: dict[str, int] = {}
        self._quarantined_until: float | None = None

    def run(self) -> int:
        """Play it, print it, and give the exit status."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redlock-demo-"))
            self._nodes = stack.enter_context(Nodes(NODES, max_ttl=self._max_ttl))
            self._names = {url: number for number, url in enumerate(self._nodes.urls, 1)}
            ledger = Ledger(Path(folder, "counter"))
            ledger.write(0, 0)
            self._workers = [
                Worker(name, kind, Path(folder, "counter"), self._nodes.urls)
                for name, kind in WORKERS.items()
            ]
            stack.callback(self._dismiss)
            self._screen.introduce(self._workers)
            with selectors.DefaultSelector() as self._selector:
                for worker in self._workers:
                    self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
                self._gather()
                self._play()
                self._end()
            statuses = self._dismiss()
            counter, token = ledger.read()
        faults = [
            f"worker {name} ended with status {status}"
            for name, status in statuses.items()
            if status
        ]
        findings = judge(self._history.sections, counter, token, [*faults, *self._history.refused])
        return conclude(
            self._console, findings, self._history, self._screen.phases, self._still_quarantined()
        )

    # Acts

    def _gather(self) -> None:
        """Wait until all workers stand ready, and let them begin together."""
        ready: set[str] = set()
        until = now() + _START_TIMEOUT
        while len(ready) < len(self._workers):
            heard = self._hear(until)
            ready.update(worker.name for worker, told in heard if told["kind"] == "ready")
            if now() >= until or not self._selector.get_map():
                raise RuntimeError("the workers did not start")
        self._began_at = now()
        self._screen.begin(self._began_at, self._states)
        for worker in self._workers:
            worker.begin()

    def _play(self) -> None:
        plan = self._plan()
        end_at = self._began_at + self._seconds
        while now() < end_at:
            next_at = min([end_at, self._screen.strip_until + _LAG, *(at for at, _ in plan[:1])])
            self._take_in(next_at)
            while plan and now() >= plan[0][0]:
                plan.pop(0)[1]()
            self._screen.draw(now() - _LAG)

    def _end(self) -> None:
        """Let the workers finish, and hear the last they say."""
        for worker in self._workers:
            worker.end()
        until = now() + _END_TIMEOUT
        while self._selector.get_map() and now() < until:
            self._take_in(until)
        self._screen.turn(now(), ())
        self._screen.draw(now())

    def _dismiss(self) -> dict[str, int]:
        """End the workers, all at once, or they would wait for each other's locks; give their
        exit statuses."""
        for worker in self._workers:
            worker.end()
        return {worker.name: worker.finish() for worker in self._workers}

    def _plan(self) -> list[tuple[float, Callable[[], None]]]:
        acts = [(0.2, self._kill), (0.3, self._restart), (0.4, self._stop), (0.55, self._resume)]
        return [(self._began_at + share * self._seconds, act) for share, act in acts]

    def _kill(self) -> None:
        at = now()
        self._nodes[KILLED - 1].kill()
        self._becomes(KILLED, DEAD, at, f"node {KILLED} is killed (SIGKILL)")

    def _restart(self) -> None:
        self._screen.line(
            now(), NODE_STYLES[QUARANTINED], f"node {KILLED} is started again, with an empty memory"
        )
        self._nodes[KILLED - 1].start()

    def _stop(self) -> None:
        self._nodes[STOPPED - 1].pause()
        self._becomes(
            STOPPED,
            PAUSED,
            now(),
            f"node {STOPPED} is stopped (SIGSTOP): it accepts, and never answers",
        )

    def _resume(self) -> None:
        self._nodes[STOPPED - 1].resume()
        self._becomes(
            STOPPED,
            VOTES,
            now(),
            f"node {STOPPED} goes on (SIGCONT); its late answers count for nothing",
        )

    def _becomes(self, number: int, state: str, at: float, text: str) -> None:
        """A node changes: say so, and show the first grant after it in detail."""
        self._states = (*self._states[: number - 1], state, *self._states[number:])
        self._screen.turn(at, self._states)
        self._screen.line(at, NODE_STYLES[state], text)
        self._details, self._details_from = 1, at

    # What the workers tell

    def _hear(self, until: float) -> list[tuple[Worker, dict[str, Any]]]:
        heard: list[tuple[Worker, dict[str, Any]]] = []
        for key, _ in self._selector.select(max(0.0, until - now())):
            messages = key.data.read()
            if messages is None:
                self._selector.unregister(key.fileobj)
            else:
                heard += [(key.data, told) for told in messages]
        return heard

    def _take_in(self, until: float) -> None:
        for worker, told in self._hear(until):
            if "node" in told:
                self._node_event(self._names[told["node"]], told)
            section = self._history.hear(worker.name, told)
            if section is not None and self._details and section.granted_at >= self._details_from:
                self._details -= 1
                self._screen.detail(section)

    def _node_event(self, number: int, told: Mapping[str, Any]) -> None:
        """Print it once, though every worker tells it, and some for each of their connections."""
        kind, at, state = told["kind"], told["at"], self._states[number - 1]
        if kind == "quarantined" and state == DEAD and told["until"] is not None:
            self._quarantined_until = until = told["until"]
            self._becomes(
                number,
                QUARANTINED,
                at,
                f"node {number} forgot its locks: in quarantine, no vote for {until - at:.1f} s",
            )
        elif (
            kind == "admitted"
            and state == QUARANTINED
            and at > (self._quarantined_until or 0.0) - 0.5
        ):
            text = (
                f"node {number} votes again: no lock it forgot is valid; tokens leap past any it"
                " forgot"
            )
            self._becomes(number, VOTES, at, text)
        elif (
            kind == "disconnected" and state in (DEAD, PAUSED) and (number, state) not in self._said
        ):
            self._said.add((number, state))
            self._screen.line(at, "red", f"the workers notice: node {number} {told['reason']}")

    def _still_quarantined(self) -> str:
        """What is to be said of the killed node if the play ended before its quarantine."""
        if self._quarantined_until is None or self._states[KILLED - 1] != QUARANTINED:
            return ""
        left = self._quarantined_until - self._screen.phases[-1][0]
        span = quarantine_span(self._max_ttl)
        return f"node {KILLED} was still in quarantine ({span:.1f} s in all), for {left:.1f} s more"
