"""Runs scenarios: sets the stage for each, lets its script play, and judges what all its
processes said."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit, urlunsplit

import redlock
from chaos.checker import Violation
from chaos.history import Note, Record
from chaos.live.backend import Ability, Backend, Unsupported
from chaos.live.cluster import Cluster
from chaos.live.crew import Crew, Journal, Member, StoreProcess, Timeout
from chaos.live.observer import Observer
from chaos.live.play import Phase, Play
from chaos.live.program import REDLOCK, Program, Task
from chaos.live.scenario import Role, Scenario
from chaos.live.store import StoreClient
from chaos.live.toxiproxy import Toxics, ToxiproxyError
from chaos.live.verdict import judge
from redlock.initialise import initialise
from redlock.transport.clock import now

__all__ = ["Outcome", "Runner", "obstacle"]

FENCE_TTL = 3600.0
"""Fences of a campaign need not outlive the day, on nodes that go on living."""


@dataclass(slots=True)
class Outcome:
    """One scenario, played and judged: a `Result` of the run directory, and the history behind
    it."""

    scenario: Scenario
    program: Program
    seed: int
    seconds: float
    observed: str
    ok: bool
    why: str
    phases: list[Phase] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)


def obstacle(scenario: Scenario, backend: Backend, program: Program) -> str:
    """Why *scenario* cannot be run here; empty if it can."""
    if scenario.not_run:
        return scenario.not_run
    missing = scenario.abilities - backend.can
    if missing == {Ability.CONFIG}:
        return "it changes settings of the servers: --i-own-these-nodes allows that"
    if missing:
        return f"these servers cannot: {', '.join(sorted(ability.value for ability in missing))}"
    if program.kind != REDLOCK.kind and not scenario.peers:
        return f"it is about what {program.kind} does not have"
    return ""


class Runner:
    """Servers, proxies, store and client processes for scenario after scenario. A context
    manager."""

    def __init__(
        self, backend: Backend, toxiproxy: str, *, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.backend = backend
        self.tell = tell
        self._numbers = itertools.count(1)
        self._stack = contextlib.ExitStack()
        self._toxiproxy = toxiproxy
        self._members: dict[str, Member] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.backend.close)
            self._log: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            self._start_proxies()
            stack.callback(lambda: self.toxics.close())
            self._crew = Crew(self._log)
            stack.callback(self._crew.close)
            self._store = StoreProcess(self._log)
            stack.callback(self._store.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def versions(self) -> dict[str, str]:
        """What took part."""
        import platform

        return {
            "redlock": redlock.__version__,
            "python": platform.python_version(),
            "server": self.backend.version(),
            "toxiproxy": self.toxics.version(),
            "backend": self.backend.name,
        }

    def errors(self) -> str:
        """What the client processes wrote to their standard error."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def run(self, scenario: Scenario, *, seed: int = 0, program: Program = REDLOCK) -> Outcome:
        """Play one scenario from a clean stage, and judge it. Raises only what is the campaign's
        own fault."""
        began = time.monotonic()
        # It can block itself for good; what led there has failed by now.
        if not self.toxics.answers():
            self.toxics.close()
            self._start_proxies()
        journal = self._store.journal = Journal()
        resource = f"{scenario.id}-{next(self._numbers)}"
        members = self._members = {}
        play = Play(self._cluster, members, journal, resource, scenario.ttl, seed, self.tell)
        trouble = ""
        try:
            self._set_stage(scenario)
            taken = self._crew.take(program, len(scenario.roles))
            members.update(zip(scenario.clients, taken, strict=True))
            play.respawn = partial(self._respawn, scenario, play, program)
            observer = Observer(list(self.backend.nodes), f"redlock:{resource}", journal.add)
            try:
                self._begin(scenario, play)
                trouble = self._play(scenario, play)
            finally:
                self._clear(play)
                observer.close()
        except (Timeout, ToxiproxyError, Unsupported) as error:
            trouble = trouble or f"the stage could not be set: {error}"
        end = now()
        play.leave()
        history = journal.records()
        verdict = judge(scenario, history, play.phases, play.claims, play.injections, trouble, end)
        return Outcome(
            scenario,
            program,
            seed,
            time.monotonic() - began,
            verdict.observed,
            verdict.ok,
            verdict.why,
            play.phases,
            verdict.metrics,
            verdict.violations,
            history,
        )

    def _start_proxies(self) -> None:
        self.toxics = Toxics(self._toxiproxy)
        self._cluster = Cluster(self.backend, self.toxics)

    def _set_stage(self, scenario: Scenario) -> None:
        self._cluster.fresh(scenario.setup, scenario.clients)
        # Others have their markers, or wait until they must be new.
        if scenario.marked and Ability.FRESH in self.backend.can:
            urls = [self._cluster.node(number).url for number in scenario.marked]
            initialise(
                urls,
                max_ttl=scenario.max_ttl or scenario.ttl,
                durable=scenario.durable,
                cluster=scenario.cluster_id,
            )

    def _begin(self, scenario: Scenario, play: Play) -> None:
        for number, (name, role) in enumerate(zip(scenario.clients, scenario.roles, strict=True)):
            play.members[name].begin(
                self._task(
                    scenario, play, play.members[name].program, name, role, play.seed + number
                ),
                play.journal,
            )
        for name in scenario.clients:
            play.wait(partial(_has_begun, name), f"{name} to begin")

    def _respawn(self, scenario: Scenario, play: Play, program: Program, name: str) -> None:
        """A new process for a client that was killed: a coordinator that has never seen these
        nodes."""
        if play.members[name].alive:
            return
        self._crew.give_back([play.members[name]])
        (member,) = self._crew.take(program, 1)
        self._members[name] = member
        place = scenario.clients.index(name)
        since = play.here()
        member.begin(
            self._task(scenario, play, program, name, scenario.roles[place], play.seed + place),
            play.journal,
        )
        play.wait(partial(_has_begun, name), f"{name} to begin", since=since)

    def _task(
        self, scenario: Scenario, play: Play, program: Program, name: str, role: Role, seed: int
    ) -> Task:
        numbers = role.nodes or scenario.listed
        urls = [
            _with_login(self._cluster.url(name, number), role.login.get(number))
            for number in numbers
        ]
        options: dict[str, Any] = {
            "ttl": scenario.ttl,
            "node_timeout": scenario.node_timeout,
            "retry_delay": 0.05,
            "fence_ttl": FENCE_TTL,
            **role.options,
        }
        return Task(
            name,
            urls,
            role.api,
            role.workload,
            play.resource,
            options,
            self._store.address,
            seed,
            role.settings,
            role.plants,
        )

    def _play(self, scenario: Scenario, play: Play) -> str:
        try:
            scenario.script(play)
        except (Timeout, ToxiproxyError, Unsupported) as error:
            return str(error)
        return ""

    def _clear(self, play: Play) -> None:
        """Heal, end every client's task, and hear the last they and the store say."""
        # A client that hangs heals nothing either; its end is waited for below.
        with contextlib.suppress(ToxiproxyError, Unsupported, Timeout):
            play.heal_all()
        since = play.here()
        for member in play.members.values():
            member.tell_end()
        for member in play.members.values():
            member.await_end(since)
        with contextlib.closing(StoreClient(self._store.address, "")) as store:
            store.read(f"{play.resource}:end", 0)
        play.wait(
            lambda record: getattr(record, "resource", "") == f"{play.resource}:end",
            "the store to end",
        )
        self._crew.give_back(play.members.values())


def _has_begun(name: str, record: Record) -> bool:
    return (
        isinstance(record, Note) and record.client == name and record.kind in ("begun", "crashed")
    )


def _with_login(url: str, login: str | None) -> str:
    if login is None:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


def result(outcome: Outcome, directory: str, replay: str) -> Mapping[str, Any]:
    """The `Result` of run.json."""
    return {
        "scenario": outcome.scenario.id,
        "title": outcome.scenario.title,
        "client_kind": outcome.program.kind,
        "expected": str(outcome.scenario.expected),
        "observed": str(outcome.observed),
        "ok": outcome.ok,
        "why": outcome.why,
        "seed": outcome.seed,
        "replay": replay,
        "seconds": round(outcome.seconds, 3),
        "history": f"{directory}/history.jsonl",
        "phases": [
            {"name": phase.name, "from": phase.since, "until": phase.until}
            for phase in outcome.phases
        ],
        "metrics": outcome.metrics,
        "violations": [
            {"property": found.property, "at": found.at, "text": found.text}
            for found in outcome.violations
        ],
    }
