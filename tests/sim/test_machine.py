"""Short schedules that Hypothesis draws and shrinks: calls and faults step by step, over the same
world as the seeds.

Every step is judged at once, and the whole when everything has healed. A failure prints the
schedule as a plan, with the command that replays it; a plan that found something moves to
`chaos/regressions`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chaos.checker import Violation
from chaos.sim.bugs import planted
from chaos.sim.client import MODES
from chaos.sim.plan import HEALED_FOR, MAX_TTL, TTL, Plan, Player, Step
from chaos.sim.stage import Stage, play

NAMES = ("A", "B", "C")
HEALS_LATER = 6.0
"""Seconds after the last step by which every fault of a schedule has healed: longer than any of
them lasts."""
LEASES_MAX = 4
SKEWS = st.sampled_from([0.0, -0.01, 40.0, -3600.0])
CLIENTS = st.sampled_from(NAMES)
LASTS = st.sampled_from([0.01, 0.3, 1.0, TTL, 4.0])
SHIPPED = settings(
    max_examples=40,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


def some(nodes: int) -> st.SearchStrategy[tuple[int, ...]]:
    """One or more nodes, in order; shrinks to the first."""
    return st.lists(st.integers(0, nodes - 1), min_size=1, max_size=nodes - 1, unique=True).map(
        lambda found: tuple(sorted(found))
    )


class Schedules(RuleBasedStateMachine):
    """Three clients on three nodes, inside the assumptions: whatever happens, nothing may be
    violated."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.plan = Plan()
        self.stage = Stage(self.plan)
        self.found: list[Violation] = []
        self.healed_at = 0.0

    @initialize(
        mode=st.sampled_from(sorted(MODES)),
        seed=st.integers(0, 7),
        skews=st.tuples(SKEWS, SKEWS, SKEWS),
    )
    def begin(self, mode: str, seed: int, skews: tuple[float, ...]) -> None:
        players = tuple(Player(name, skew=skew) for name, skew in zip(NAMES, skews, strict=True))
        self.plan = Plan(seed=seed, mode=mode, players=players)
        self.stage = Stage(self.plan)

    def step(self, word: str, *arguments: Any) -> None:
        """Do it now, and remember it."""
        self.steps.append((self.stage.world.now, word, *arguments))
        self.stage.do(word, *arguments)

    # Time

    @rule(seconds=st.sampled_from([0.0001, 0.0004, 0.001, 0.05, 0.3, 1.0, TTL, 7.0]))
    def wait(self, seconds: float) -> None:
        world = self.stage.world
        world.run(world.now + seconds)

    # Calls

    @rule(
        client=CLIENTS,
        timeout=st.sampled_from([0.0, 1.0, 5.0]),
        word=st.sampled_from(["acquire", "auto"]),
    )
    def acquire(self, client: str, timeout: float, word: str) -> None:
        self.step(word, client, timeout)

    @rule(client=CLIENTS, ttl=st.sampled_from([0.5, TTL, MAX_TTL]))
    def extend(self, client: str, ttl: float) -> None:
        self.step("extend", client, ttl)

    @rule(
        client=CLIENTS,
        word=st.sampled_from(["release", "verify", "believe", "read", "write", "drop", "look"]),
    )
    def call(self, client: str, word: str) -> None:
        self.step(word, client)

    @rule(client=CLIENTS, events=st.integers(0, 6))
    def cancel(self, client: str, events: int) -> None:
        self.step("cancel", client, events)

    # Faults

    @rule(
        client=CLIENTS,
        nodes=some(3),
        ways=st.sampled_from(["both", "up", "down"]),
        how=st.sampled_from(["hold", "swallow"]),
        lasts=LASTS,
    )
    def partition(
        self, client: str, nodes: tuple[int, ...], ways: str, how: str, lasts: float
    ) -> None:
        self.step("partition", (client,), nodes, ways, how, lasts)

    @rule(client=CLIENTS, nodes=some(3), late=st.booleans())
    def reset(self, client: str, nodes: tuple[int, ...], late: bool) -> None:
        self.step("reset", client, nodes, late)

    @rule(nodes=some(3), seconds=st.sampled_from([0.02, 0.3, TTL]), lasts=LASTS)
    def slow(self, nodes: tuple[int, ...], seconds: float, lasts: float) -> None:
        self.step("slow", nodes, seconds, lasts)

    @rule(nodes=some(3), lasts=LASTS)
    def pause(self, nodes: tuple[int, ...], lasts: float) -> None:
        self.step("pause", nodes, lasts)

    @rule(nodes=some(3), kept=st.sampled_from(["durable", "lost", "rollback"]), lasts=LASTS)
    def crash(self, nodes: tuple[int, ...], kept: str, lasts: float) -> None:
        self.step("crash", nodes, kept, lasts)

    @rule(nodes=some(3))
    def flush(self, nodes: tuple[int, ...]) -> None:
        self.step("flush", nodes)

    @rule(nodes=some(3))
    def forget_scripts(self, nodes: tuple[int, ...]) -> None:
        self.step("scripts", nodes)

    @rule(nodes=some(3), lasts=LASTS)
    def run_out_of_memory(self, nodes: tuple[int, ...], lasts: float) -> None:
        self.step("memory", nodes, lasts)

    @rule(client=CLIENTS, word=st.sampled_from(["freeze", "suspend"]), lasts=LASTS)
    def sleep(self, client: str, word: str, lasts: float) -> None:
        self.step(word, client, lasts)

    @precondition(lambda self: len(self.steps) > 5)
    @rule(client=CLIENTS)
    def kill(self, client: str) -> None:
        self.step("kill", client)

    # Judging

    @invariant()
    def nothing_is_violated(self) -> None:
        self.say(self.stage.judge())

    def teardown(self) -> None:
        """Heal, let everybody finish, and judge the whole, as the plan will when it is played
        again."""
        if self.found:
            return
        world = self.stage.world
        self.healed_at = world.now + HEALS_LATER
        world.at(self.healed_at, self.stage.heal)
        world.run(self.healed_at + HEALS_LATER)
        for name in NAMES * LEASES_MAX:  # What is renewed would be held for ever.
            self.step("release", name)
            world.run(world.now + 1.0)
        self.stage.plan = self.played()
        world.run(self.stage.plan.ends_at)
        self.say(self.stage.judge())

    def played(self) -> Plan:
        """The schedule so far, as a plan."""
        healed_at = self.healed_at or self.stage.world.now + HEALS_LATER
        ends_at = healed_at + HEALED_FOR + LEASES_MAX * len(NAMES)
        return replace(self.plan, steps=tuple(self.steps), healed_at=healed_at, ends_at=ends_at)

    def say(self, found: list[Violation]) -> None:
        """Fail with a schedule that replays."""
        if found:
            self.found = found
            text = "\n".join(
                f"{violation.at:.4f} {violation.property}: {violation.text}" for violation in found
            )
            raise AssertionError(
                f"{text}\npython -m chaos sim --trace --plan '{self.played().text()}'"
            )


def test_no_schedule_violates_anything() -> None:
    """Inside the assumptions, with the flows alone and with the links on bytes."""
    run_state_machine_as_test(Schedules, settings=SHIPPED)


HUNTING = settings(SHIPPED, max_examples=6000, report_multiple_bugs=False)


def hunted(*phases: Phase) -> Plan:
    """The plan of the schedule by which Hypothesis finds what is planted."""
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Schedules, settings=settings(HUNTING, phases=phases))
    line = re.search("--plan '(.*)'", str(caught.value))
    assert line is not None
    return Plan.parse(line[1])


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "bug", ["majority is half", "nobody looks at the renewals", "release deletes anything"]
)
def test_a_schedule_that_finds_a_planted_bug_replays(bug: str) -> None:
    """What Hypothesis prints is a plan, which played again by itself finds the bug again, and
    nothing without it."""
    with planted(bug):
        plan = hunted(Phase.generate)
        assert play(plan).violations
    assert play(plan).violations == []


@pytest.mark.timeout(400)
def test_a_schedule_that_was_shrunk_is_short_and_replays() -> None:
    """The one that is found soonest: shrinking takes as long for each, some five seconds."""
    with planted("majority is half"):
        plan = hunted(Phase.generate, Phase.shrink)
        assert len(plan.steps) <= 12 + LEASES_MAX * len(NAMES)
        assert play(plan).violations
    assert play(plan).violations == []
