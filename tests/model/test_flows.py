"""The model's decisions and the shipped flows: whatever a flow decides, on any answers in any
order, the model allows too."""

from __future__ import annotations

from itertools import permutations, product
from typing import NamedTuple

import pytest

from chaos.model.clients import confirmed, outbids, won
from chaos.model.protocol import BEHIND, BUSY, GRANTED, Op, Reply
from chaos.model.state import NODES, OPEN, Client, Configuration, Question
from redlock.core.acquire import ROUNDS_MAX
from redlock.core.commands import Free, Take
from redlock.core.lease import valid_until
from tests.core.flows import WALL, Play

BOUNDS = Configuration("as shipped", True, ("U", "M", "D", "ME", "X"), rounds=ROUNDS_MAX)
TOKEN = WALL  # What the flow proposes while the transcript's dice show 0.
WORDS = {GRANTED: "granted", BUSY: "busy", BEHIND: "behind"}
ANSWERS = (
    None,
    Reply(GRANTED, TOKEN),
    *(Reply(BUSY, TOKEN + past) for past in (-5, 3, 8)),
    *(Reply(BEHIND, TOKEN + past) for past in (0, 5)),
)
"""What a node may say to TAKE; None: its connection is lost, both times it is asked."""


class Decision(NamedTuple):
    """What a flow made of the answers it heard: granted, or a further round with a token, or
    gave up."""

    heard: tuple[Reply, ...]
    granted: bool
    outbid: int | None
    freed: set[tuple[int, int]]


def decide(answers: tuple[Reply | None, ...], order: tuple[int, ...]) -> Decision:
    """One try of the shipped acquire, whose nodes answer in this order until it has decided."""
    play = Play(NODES)
    course = play.acquire(once=True)
    heard = []
    for node in order:
        answer = answers[node]
        for _ in range(2 if answer is None else 1):
            if course.done or _second_round(play) or _frees(play):
                break
            if answer is None:
                play.fail(node, "lost")
            else:
                heard.append(answer)
                play.answer(node, WORDS[answer.kind], fence=str(answer.fence))
    granted = course.done and course.error is None
    return Decision(tuple(heard), granted, _second_round(play), _frees(play))


def _second_round(play: Play) -> int | None:
    tokens = {request.command.token for request in play.sent if isinstance(request.command, Take)}
    return max(tokens) if len(tokens) == 2 else None


def _frees(play: Play) -> set[tuple[int, int]]:
    return {
        (request.node, int(request.command.args[1]))
        for request in play.sent
        if isinstance(request.command, Free)
    }


@pytest.fixture(scope="module")
def decisions() -> list[Decision]:
    """Of all answers of three nodes, in every order."""
    orders = list(permutations(range(NODES)))
    return [
        decide(answers, order) for answers in product(ANSWERS, repeat=NODES) for order in orders
    ]


def test_a_flow_is_granted_only_where_the_model_is(decisions: list[Decision]) -> None:
    """A grant needs what the model calls a win; where the model could win on what was heard, the
    flow was granted."""
    client = Client(OPEN, 0, round=1, token=TOKEN)
    for decision in decisions:
        assert decision.granted == bool(won(BOUNDS, client, decision.heard)), decision
    assert sum(decision.granted for decision in decisions) > 100


def test_a_flow_outbids_only_as_the_model_does(decisions: list[Decision]) -> None:
    """A second round follows, with a token, only where the model may begin one with it."""
    for decision in decisions:
        if decision.outbid is not None:
            assert decision.outbid in outbids(BOUNDS, decision.heard), decision
    assert sum(decision.outbid is not None for decision in decisions) > 100


def test_a_flow_gives_back_the_token_of_its_try(decisions: list[Decision]) -> None:
    """A try that failed sends FREE with its token, as the model's does, and to no more nodes."""
    given_back = [decision.freed for decision in decisions if decision.freed]
    assert len(given_back) > 100
    assert all({token for _, token in freed} == {TOKEN} for freed in given_back)


@pytest.mark.parametrize("op", [Op.EXTEND, Op.VERIFY])
@pytest.mark.parametrize("ttl", [4.0, 40.0])
@pytest.mark.parametrize("answers", list(product((None, GRANTED, BUSY), repeat=NODES)))
def test_a_lease_moves_as_the_models_does(
    op: Op, ttl: float, answers: tuple[int | None, ...]
) -> None:
    """An extension or VERIFY counts when a majority grants it, and then the lease's end is the
    model's: the later one."""
    play = Play(NODES)
    play.acquire()
    play.answer(0, "granted")
    play.answer(1, "granted")
    play.answer(2, "busy")
    assert play.holding is not None
    before, asked = play.holding.valid_until, valid_until(play.now, ttl, play.policy.drift_factor)
    course = play.extend(ttl) if op is Op.EXTEND else play.verify()
    for node, answer in enumerate(answers):
        if answer is not None:
            play.answer(node, WORDS[answer])
        elif not course.done:
            play.fail(node, "lost")
            play.fail(node, "lost")
    confirms = answers.count(GRANTED) >= 2
    assert (course.error is None) == confirms
    instants = {2: before, 3 if asked > before else 1: asked}
    after = confirmed(2, Question(op, max(instants.keys() - {2}), newer=False)) if confirms else 2
    assert play.holding.valid_until == pytest.approx(instants[after])
