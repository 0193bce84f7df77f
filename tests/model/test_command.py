"""`python -m chaos model`: what it prints, and that its exit status tells."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from chaos.cli import main
from chaos.model import command
from chaos.model.catalogue import MUTANTS, SOUND, Mutant
from chaos.model.memory.catalogue import MEMORIES, MEMORY_MUTANTS
from chaos.model.search import explore

INCR, STRICT = MUTANTS[0], MUTANTS[2]
(REPLICA,) = [mutant for mutant in MEMORY_MUTANTS if mutant.name == "replica-votes"]
SMALL = SOUND[0]._replace(proposals=1, rounds=1)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["model", "--jobs", "1", *arguments])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One small configuration and two mutants of ballots instead of all, and one mutant of
    memories."""
    monkeypatch.setattr(command, "SOUND", (SMALL,))
    monkeypatch.setattr(command, "MUTANTS", (INCR, STRICT))
    monkeypatch.setattr(command, "MEMORIES", (REPLICA.mended,))
    monkeypatch.setattr(command, "MEMORY_MUTANTS", (REPLICA,))
    return monkeypatch


def test_success_tells_the_numbers_of_states(small: pytest.MonkeyPatch) -> None:
    """Everything holds and is refuted: status 0, and how many states there were."""
    result = run()
    assert result.exit_code == 0, result.output
    assert f"{explore(SMALL).states:,}" in result.output and "U in 10 steps" in result.output
    assert (
        f"{explore(REPLICA.mended).states:,}" in result.output and "ME in 7 steps" in result.output
    )


def test_one_world_alone(small: pytest.MonkeyPatch) -> None:
    """Of the other one nothing is explored, nor refuted."""
    memories, ballots = run("--world", "memories"), run("--world", "ballots")
    assert (memories.exit_code, ballots.exit_code) == (0, 0)
    assert "replica-votes" in memories.output and "incr" not in memories.output
    assert "incr" in ballots.output and "replica-votes" not in ballots.output


def test_a_violation_among_memories_is_a_failure(small: pytest.MonkeyPatch) -> None:
    """What must hold of memories and does not: status 1, and the way there."""
    small.setattr(command, "MEMORIES", (REPLICA.configuration._replace(name="weak"),))
    result = run()
    assert result.exit_code == 1
    assert (
        "ME BROKEN" in result.output and "its name leads to a replica that lagged" in result.output
    )


def test_a_mutant_of_memories_that_holds_is_a_failure(small: pytest.MonkeyPatch) -> None:
    """Status 1, and it is named."""
    small.setattr(
        command,
        "MEMORY_MUTANTS",
        (REPLICA._replace(configuration=REPLICA.mended._replace(name="again")),),
    )
    result = run()
    assert result.exit_code == 1
    assert "NOT REFUTED" in result.output


def test_a_mutant_of_memories_is_shown_step_by_step() -> None:
    """Its reason, and every step with the node's lock, memory and marker then."""
    result = run("--mutant", "replica-votes")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("replica-votes: ")
    assert any("memory 0 of its master, marked for memory 0" in line for line in lines)
    assert lines[-1].startswith("ME is broken: ")


def test_a_violation_of_what_ships_is_a_failure_with_its_trace(small: pytest.MonkeyPatch) -> None:
    """What must hold and does not: status 1, and the way there."""
    small.setattr(command, "SOUND", (STRICT.configuration,))
    result = run()
    assert result.exit_code == 1
    assert "U BROKEN" in result.output and "9  B is granted token 1" in result.output


@pytest.mark.parametrize(
    "mutant",
    [INCR._replace(configuration=SMALL), INCR._replace(breaks="M")],
    ids=["holds", "another"],
)
def test_a_mutant_that_is_not_refuted_is_a_failure(
    mutant: Mutant, small: pytest.MonkeyPatch
) -> None:
    """A mutant that holds, or that breaks another property than it is kept for: status 1."""
    small.setattr(command, "MUTANTS", (mutant, STRICT))
    result = run()
    assert result.exit_code == 1
    assert "NOT REFUTED" in result.output


def test_a_mutant_alone_is_shown_step_by_step() -> None:
    """Its reason, every step with what the node remembers then, and the property."""
    result = run("--mutant", "raise-not-strict")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("raise-not-strict: ")
    assert lines[2].split() == [
        "2",
        "node",
        "1:",
        "A's",
        "TAKE",
        "1",
        "executes:",
        "granted",
        "A:1,",
        "fence",
        "1",
    ]
    assert lines[-1].startswith("U is broken: token 1 had been granted before.")


def test_the_list_names_everything() -> None:
    """Every configuration and every mutant, with its bounds; nothing is explored."""
    result = run("--list")
    assert result.exit_code == 0
    assert all(
        name in result.output
        for name in [
            *(bounds.name for bounds in (*SOUND, *MEMORIES)),
            *(mutant.name for mutant in (*MUTANTS, *MEMORY_MUTANTS)),
        ]
    )
