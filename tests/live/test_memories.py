"""Every way in which one node forgets, a few times each, and every control; the command plays
them by the hundred."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chaos.live.memories import claims
from chaos.live.memories.claims import CLAIMS
from chaos.live.memories.command import Pool
from chaos.live.memories.run import Case, play
from chaos.live.memories.stage import Stage
from chaos.live.memories.ways import WAYS

TRIES_MAX = 8
"""On a busy machine a loss may come when A's lease is over; such a run says nothing."""
CONTROL_RUNS_MAX = 60
PLAYED = [name for name, way in WAYS.items() if not way.limit]
APIS = ("blocking", "asyncio")
CELLS = [
    (name, APIS[(place + old) % 2], bool(old))
    for place, name in enumerate(PLAYED)
    for old in (0, 1)
]
"""Each way with an old and a fresh client; which of them is of which API changes from way to
way."""
CONTROLS = [(name, rule) for name, way in WAYS.items() for rule in way.controls]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Three nodes, a spare server, and wires, for all ways."""
    with Stage() as made:
        yield made


@pytest.mark.parametrize(("name", "api", "old"), CELLS)
def test_one_node_that_forgets_makes_no_second_holder_and_no_smaller_token(
    stage: Stage, name: str, api: str, old: bool
) -> None:
    """Nor does it vote before it was marked again, also on connections that live through it; and
    it comes back."""
    for seed in range(TRIES_MAX):
        result = play(stage, WAYS[name], Case(name, api, old, seed))
        assert not result.violations
        assert not result.stuck, result.problem
        lived = result.lived is not False or not WAYS[name].lives
        if result.counts and lived:
            break
    assert result.counts, result.problem
    assert lived, "the wires were to keep the connections"


@pytest.mark.parametrize(("name", "rule"), CONTROLS)
def test_without_its_rule_a_way_leads_to_a_violation(name: str, rule: str) -> None:
    """Or its runs would prove nothing."""
    found: list[Any] = []

    def cases() -> Iterator[dict[str, Any]]:
        for seed in range(CONTROL_RUNS_MAX):
            if found:
                return
            yield {"way": name, "api": APIS[seed % 2], "old": bool(seed // 2 % 2), "seed": seed}

    for told in Pool(1, None, rule).play(cases()):
        found += told["violations"]
    assert found


@pytest.mark.parametrize("name", list(CLAIMS))
def test_a_loss_costs_what_is_stated_and_no_more(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A backup costs nothing where no replicas are promised, else a wait with its reason; a node
    comes back while one is down."""
    monkeypatch.setattr(claims, "_BACKUPS", 2)
    result = CLAIMS[name](Case(name, "blocking", False, 0))
    assert not result.violations
    assert result.counts and not result.stuck, result.problem
    assert result.grants
