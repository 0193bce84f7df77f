"""What a client may do next: start, decide on any of the answers there are, ask as a holder, let
go, let time pass.

A decision depends on the control and on which node answered what; what it changes at the nodes is
left to `delivered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from chaos.model.nodes import settle
from chaos.model.protocol import BEHIND, GRANTED, Op, Reply
from chaos.model.state import (
    BALLOT,
    COUNTED,
    DONE,
    HELD,
    IDLE,
    NODES,
    OPEN,
    TWO_PHASE,
    Client,
    Configuration,
    Control,
    Node,
    Question,
    Request,
    Violation,
    client_of,
    name_of,
    owner_of,
)
from redlock.core.quorum import majority

__all__ = ["Step", "client_steps", "confirmed", "delivered", "outbids", "won"]

NEEDED = majority(NODES)
_FIRST = {BALLOT: Op.TAKE, COUNTED: Op.COUNT, TWO_PHASE: Op.LOCK}


class Step(NamedTuple):
    """Something a client does. *closes*: its open question is settled by it; *sends*: what goes
    out to every node."""

    text: str
    control: Control
    client: int
    closes: bool = True
    sends: tuple[Request, ...] = ()
    violation: Violation | None = None


def client_steps(
    bounds: Configuration, control: Control, replies: Sequence[tuple[Reply | None, ...]]
) -> Iterator[Step]:
    """Everything that clients may do; *replies*: node by node, its answer to each client."""
    alike = bounds.reduced and not bounds.distinct and len(set(bounds.tries)) == 1
    for index, client in enumerate(control.clients):
        answers = [told for reply in replies if (told := reply[index]) is not None]
        if client.phase == OPEN:
            yield from _deciding(bounds, control, index, answers)
        elif client.phase == HELD:
            yield from _holding(bounds, control, index, answers)
        # Clients that may do the same can be exchanged for one another, so let the second start
        # after the first.
        elif client.tries and not (alike and index and control.clients[index - 1].phase == IDLE):
            yield from _starting(bounds, control, index)


def delivered(bounds: Configuration, node: Node, step: Step) -> Node:
    """The node after a client's step: an old question's requests are late from now on, and what
    was sent is on its way."""
    pending, replies = node.pending, node.replies
    if step.closes:
        replies = (*replies[: step.client], None, *replies[step.client + 1 :])
        pending = tuple(
            [
                (
                    request._replace(current=False)
                    if request.current and client_of(request.owner) == step.client
                    else request
                )
                for request in pending
            ]
        )
    return settle(
        bounds, step.control, node._replace(pending=pending + step.sends, replies=replies)
    )


# A try


def _starting(bounds: Configuration, control: Control, index: int) -> Iterator[Step]:
    before = control.clients[index]
    base, limit = max(control.granted, default=0), 2 if bounds.timing else 0
    for token in _proposals(bounds, index, before):
        client = Client(
            OPEN, before.tries - 1, 1, token, base, 0, limit, questions=bounds.questions
        )
        owner = owner_of(bounds, index, client)
        proposes = f" and proposes token {token}" if token else ""
        request = Request(_FIRST[bounds.protocol], owner, token, limit, True)
        yield Step(
            f"{name_of(bounds, owner)} starts{proposes}",
            control.put(index, client),
            index,
            sends=(request,),
        )


def _proposals(bounds: Configuration, index: int, client: Client) -> Iterable[int]:
    """Any number, as clocks may be wrong; but past the fence that the client's own last release
    left (`ballot.py: Fences`)."""
    if bounds.protocol != BALLOT:
        return (0,)
    known = client.token + 1 if client.token else 0
    tokens: Sequence[int] = range(known + 1, max(known + 1, bounds.proposals) + 1)
    return (
        [token for token in tokens if token % len(bounds.tries) == index]
        if bounds.distinct
        else tokens
    )


def _deciding(
    bounds: Configuration, control: Control, index: int, answers: list[Reply]
) -> Iterator[Step]:
    client = control.clients[index]
    owner = owner_of(bounds, index, client)
    for token in won(bounds, client, answers):
        ends = (client.limit,) if bounds.timing else ()
        held = Client(
            HELD, client.tries, 0, token, 0, client.now, client.limit, ends, None, client.questions
        )
        after = control._replace(granted=tuple(sorted((*control.granted, token)))).put(index, held)
        text = f"{name_of(bounds, owner)} is granted token {token}"
        yield Step(text, after, index, violation=_judged(bounds, control, index, token))
    if client.round < bounds.rounds:
        for token in outbids(bounds, answers):
            again = client._replace(round=client.round + 1, token=token)
            if bounds.timing and bounds.protocol == BALLOT:
                # A new start, and so a new end; what the round before wrote may expire from now on.
                again = again._replace(now=client.limit, limit=client.limit + 2)
            request = Request(
                Op.TAKE if bounds.protocol == BALLOT else Op.RAISE, owner, token, again.limit, True
            )
            text = f"{name_of(bounds, owner)} begins round {again.round} with token {token}"
            yield Step(text, control.put(index, again), index, sends=(request,))
    yield _ending(bounds, control, index, "gives up")


def won(bounds: Configuration, client: Client, answers: Sequence[Reply]) -> set[int]:
    """The tokens that a majority of grants among *answers* warrants, whichever of them are
    heard."""
    granted = [reply.fence for reply in answers if reply.kind == GRANTED]
    if bounds.protocol == COUNTED:  # The largest number that was heard.
        return {
            max(heard)
            for size in range(NEEDED, len(granted) + 1)
            for heard in combinations(granted, size)
        }
    if bounds.protocol == TWO_PHASE and client.round == 1:
        return set()
    return {client.token} if len(granted) >= NEEDED else set()


def outbids(bounds: Configuration, answers: Sequence[Reply]) -> set[int]:
    """The tokens of a next round: past every fence that is heard, whichever answers are heard,
    if a majority could grant."""
    found = set()
    for size in range(NEEDED, len(answers) + 1):
        for heard in combinations(answers, size):
            kinds = [reply.kind for reply in heard]
            granted, behind = kinds.count(GRANTED), kinds.count(BEHIND)
            if (
                granted < NEEDED <= granted + behind
                if bounds.protocol == BALLOT
                else granted >= NEEDED
            ):
                found.update(
                    [max(reply.fence for reply in heard) + stride for stride in bounds.strides]
                )
    return found


def _judged(bounds: Configuration, control: Control, index: int, token: int) -> Violation | None:
    """The first of the configuration's properties that this grant breaks."""
    others = enumerate(control.clients)
    holders = [
        owner_of(bounds, other, client)
        for other, client in others
        if client.phase == HELD and other != index
    ]
    base, largest = control.clients[index].base, max(control.granted, default=0)
    broken = {}
    if token in control.granted:
        broken["U"] = f"token {token} had been granted before"
    if token <= base:
        broken["M"] = (
            f"token {token} was granted to a try that started after token {base} had been granted"
        )
    if token < largest:
        broken["D"] = f"token {token} was granted after token {largest}"
    if holders:
        broken["ME"] = f"it was granted while the lease of {name_of(bounds, holders[0])} was valid"
    return next(
        (Violation(name, broken[name]) for name in bounds.properties if name in broken), None
    )


# A holder


def _holding(
    bounds: Configuration, control: Control, index: int, answers: list[Reply]
) -> Iterator[Step]:
    client = control.clients[index]
    name = name_of(bounds, owner_of(bounds, index, client))
    if client.asked and len(answers) >= NEEDED:
        yield _confirming(bounds, control, index, client.asked)
    if client.questions:
        yield from _asking(bounds, control, index)
    if client.ends and client.ends[0] < client.limit:
        later = client._replace(now=client.ends[0], ends=client.ends[1:])
        yield Step(
            f"t={later.now} passes for {name}", control.put(index, later), index, closes=False
        )
    over = "lets go: it releases, or its validity ends" if bounds.timing else "releases"
    yield _ending(bounds, control, index, over)


def _confirming(bounds: Configuration, control: Control, index: int, asked: Question) -> Step:
    client = control.clients[index]
    limit = confirmed(client.limit, asked)
    token = max(control.granted)
    broken = (
        Violation("X", f"token {token} had been granted when the holder of {client.token} asked")
        if asked.newer
        else None
    )
    moved = f", valid to t={limit} now" if limit != client.limit else ""
    text = f"{name_of(bounds, owner_of(bounds, index, client))} is confirmed by a majority{moved}"
    return Step(
        text, control.put(index, client._replace(asked=None, limit=limit)), index, violation=broken
    )


def confirmed(limit: int, asked: Question) -> int:
    """Until when a lease is valid after a majority has confirmed a question: never less than
    before."""
    return max(limit, asked.until) if asked.op is Op.EXTEND else limit


def _asking(bounds: Configuration, control: Control, index: int) -> Iterator[Step]:
    client = control.clients[index]
    owner = owner_of(bounds, index, client)
    newer = max(control.granted) > client.token and "X" in bounds.properties
    for mode in bounds.modes:
        op, until, ends, to = Op.VERIFY if mode == "verify" else Op.EXTEND, 0, client.ends, ""
        if bounds.timing and op is Op.EXTEND:
            until = client.limit - 1 if mode == "shorten" else max(client.ends) + 2
            if until <= client.now:
                continue
            ends, to = tuple(sorted({*client.ends, until})), f" from t={client.limit} to t={until}"
        asks = client._replace(
            asked=Question(op, until, newer), ends=ends, questions=client.questions - 1
        )
        text = (
            f"{name_of(bounds, owner)} {'verifies' if mode == 'verify' else 'extends'} its"
            f" lease{to}"
        )
        request = Request(op, owner, client.token, until, True)
        yield Step(text, control.put(index, asks), index, sends=(request,))


def _ending(bounds: Configuration, control: Control, index: int, how: str) -> Step:
    """The try is over, and its release is on its way everywhere; that it may never arrive covers
    a lease nobody releases."""
    client = control.clients[index]
    owner = owner_of(bounds, index, client)
    over = Client(DONE, client.tries, token=client.token if client.tries else 0)
    request = Request(Op.FREE, owner, client.token, 0, False)
    return Step(
        f"{name_of(bounds, owner)} {how}", control.put(index, over), index, sends=(request,)
    )
