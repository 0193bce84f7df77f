"""What must hold of any play, by what was sent and answered in it."""

from __future__ import annotations

import pytest

from redlock.core.commands import Canvass, Free, Take
from redlock.core.effects import NEVER, Request
from redlock.core.quorum import Kind, Vote
from tests.core.flows import Play


def takes(play: Play, owner: str = "") -> dict[Request, Take]:
    """Every TAKE that was sent, of one owner or of all, in order."""
    found = {request: request.command for request in play.sent if isinstance(request.command, Take)}
    return {request: command for request, command in found.items() if owner in ("", command.owner)}


def owners(play: Play) -> list[str]:
    """The tries in order."""
    return list(dict.fromkeys(take.owner for take in takes(play).values()))


def released(play: Play, owner: str) -> dict[int, list[int]]:
    """The nodes that were sent a FREE of *owner*, with the places of these in all that was sent."""
    found: dict[int, list[int]] = {}
    for place, request in enumerate(play.sent):
        if isinstance(request.command, Free) and request.command.args[0] == owner:
            found.setdefault(request.node, []).append(place)
    return found


def said(play: Play, request: Request) -> Kind | None:
    """What the node answered, if it did."""
    vote = play.heard.get(request)
    return vote.kind if isinstance(vote, Vote) else None


def may_be_held(play: Play, owner: str) -> set[int]:
    """Nodes that were sent a TAKE of *owner* and did not say that the lock is somebody else's."""
    return {
        request.node
        for request in takes(play, owner)
        if request.written and said(play, request) is not Kind.BUSY
    }


def check_given_back(play: Play, owner: str) -> None:
    """Released with its largest token on every node that may hold it, and never taken there
    behind its release."""
    requests = list(play.sent)
    mine, freed = takes(play, owner), released(play, owner)
    assert may_be_held(play, owner) <= freed.keys(), f"{owner} was not given back everywhere"
    token = max(take.token for take in mine.values())
    assert all(
        requests[place].command.args[1] == token for places in freed.values() for place in places
    )
    for request in mine:
        if request.written and request.node in freed:
            assert requests.index(request) < freed[request.node][0], (
                f"{owner} was taken behind its release"
            )
        if play.holding is None or play.holding.owner != owner:
            assert request.not_after == NEVER, (
                f"{owner} may be taken again behind its release, by a server that lost the script"
            )


def check_nothing_follows(play: Play) -> None:
    """The flow is over: no TAKE that waits for a connection is written any more."""
    written = {request for request in takes(play) if request.written}
    for node in range(len(play.cluster.names)):
        play.connected(node)
    assert {request for request in takes(play) if request.written} == written


def check_grant(play: Play, ttl: float, drift_factor: float) -> None:
    """A majority granted this very token, and the validity counts from before the first of them
    was asked."""
    lease = play.holding
    assert lease is not None
    round = [
        request for request, take in takes(play, lease.owner).items() if take.token == lease.token
    ]
    grants = {request.node for request in round if said(play, request) is Kind.GRANTED}
    assert len(grants) > len(play.cluster.names) / 2
    began_at = min(play.sent[request] for request in round)
    assert lease.valid_until == pytest.approx(began_at + ttl - ttl * drift_factor - 0.002)
    assert play.now < lease.valid_until
    assert may_be_held(play, lease.owner) <= lease.touched


def check_manners(play: Play, ttl: float) -> None:
    """Owners, tokens, rounds, times and looks of all tries of a play."""
    requests = list(play.sent)
    assert [take.owner for take in takes(play).values()] == sorted(
        take.owner for take in takes(play).values()
    )
    for number, owner in enumerate(owners(play)):
        mine = takes(play, owner)
        first = next(iter(mine))
        tokens = list(dict.fromkeys(take.token for take in mine.values()))
        assert tokens == sorted(tokens)
        assert len(tokens) <= 3
        ends_at = play.sent[first] + ttl / 3 + 1e-9
        assert all(play.sent[request] <= ends_at for request in mine if request.written)
        assert all(request.not_after <= ends_at for request in mine)
        asked = [(request.node, take.token) for request, take in mine.items()]
        assert all(asked.count(question) <= 2 for question in asked)
        if number:
            before = requests[: requests.index(first)]
            look = next(
                request.command
                for request in reversed(before)
                if isinstance(request.command, Canvass)
            )
            free = {
                request.node
                for request in before
                if request.command is look and said(play, request) is Kind.FREE
            }
            assert len(free) > len(play.cluster.names) / 2, "tried while no majority looked free"
