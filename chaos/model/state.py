"""What a state of the model is made of, and the bounds within which all of them are visited.

A state is a `Control` (what the clients know, and what was granted) and a `Node` for each server. A
node carries everything that concerns it alone: its memory, the requests on their way to it, and its
answers on their way back.
"""

from __future__ import annotations

from typing import NamedTuple

from chaos.model.protocol import SHIPPED, Lock, Op, Reply, Rules

__all__ = [
    *("BALLOT", "COUNTED", "TWO_PHASE", "NODES", "IDLE", "OPEN", "HELD", "DONE"),
    *("Client", "Configuration", "Control", "Node", "Question", "Request", "Violation"),
    *("client_of", "name_of", "owner_of", "passed"),
]

NODES = 3
IDLE, OPEN, HELD, DONE = range(4)
"""A client's phase: not started; a round is under way; it has a lease; its try is over, whatever
came of it."""

BALLOT, COUNTED, TWO_PHASE = "ballot", "counted", "two-phase"
"""What ships; INCR inside the acquire script; lock and read, then raise."""

_TRIES_MAX = 8


class Configuration(NamedTuple):
    """What is explored: the bounds, what may go wrong, and the rules in force.

    *properties*: those that must hold, the one that is told first in front. *timing*: see the
    package's docstring. *tries*: for each client, how many it may make, one after the other.
    *proposals*: a first token is any number from 1 to this; *distinct*: no two clients propose the
    same, as random low bits make it likely. *strides*: how far past the largest fence it heard a
    client's next token may be. *duplicates*: every request may be executed any number of times,
    otherwise at most once. *questions*: how often a holder may ask, in which *modes*. *crashes*:
    how many there may be. *aborts*: a script may break off between its two writes. *turns*: what
    the queue of a node says is arbitrary, so that it may refuse any claim to a free lock at any
    step. *reduced*: leave
    out what cannot matter.
    """

    name: str
    timing: bool
    properties: tuple[str, ...]
    tries: tuple[int, ...] = (1, 1)
    rounds: int = 2
    proposals: int = 2
    distinct: bool = False
    strides: tuple[int, ...] = (1,)
    duplicates: bool = True
    questions: int = 0
    modes: tuple[str, ...] = ("extend", "verify")
    crashes: int = 0
    aborts: bool = False
    turns: bool = False
    protocol: str = BALLOT
    rules: Rules = SHIPPED
    reduced: bool = True


class Question(NamedTuple):
    """A holder's extension or VERIFY. *newer*: somebody had been granted a larger token when it
    was asked."""

    op: Op
    until: int
    newer: bool


class Client(NamedTuple):
    """What one client knows, and where it stands on a timeline of its own, whose instants are small
    numbers.

    *tries*: left after this one. *token*: of the present round or lease, or of the try before.
    *base*: the largest token that had been granted to anybody when this try started. *now*: the
    last instant that has passed. *limit*: when its round, or its lease, stops being valid. *ends*:
    instants still to come at which something it wrote may expire. *questions*: left.
    """

    phase: int
    tries: int
    round: int = 0
    token: int = 0
    base: int = 0
    now: int = 0
    limit: int = 0
    ends: tuple[int, ...] = ()
    asked: Question | None = None
    questions: int = 0


class Control(NamedTuple):
    """The state but for the nodes. *granted*: every token ever granted. *crashes*: how many may
    still come."""

    clients: tuple[Client, ...]
    granted: tuple[int, ...]
    crashes: int

    def put(self, index: int, client: Client) -> Control:
        """The same with another client in this place."""
        return self._replace(clients=(*self.clients[:index], client, *self.clients[index + 1 :]))


class Request(NamedTuple):
    """One command on its way to a node. *current*: it belongs to its client's open question, so
    its answer counts."""

    op: Op
    owner: int
    token: int
    until: int
    current: bool


class Node(NamedTuple):
    """One server, with what is on its way to it and back.

    *waits*: it forgot, and does not vote before these validities, each an owner and an end, are
    over; None: it votes. *replies*: for each client, this node's answer to the open question, to be
    heard or not.
    """

    lock: Lock | None
    fence: int
    floor: int
    waits: tuple[tuple[int, int], ...] | None
    pending: tuple[Request, ...]
    replies: tuple[Reply | None, ...]


class Violation(NamedTuple):
    """A broken property: U, M, D, ME or X, and what happened."""

    property: str
    text: str


def owner_of(bounds: Configuration, index: int, client: Client) -> int:
    """The owner under which this client's present try takes locks."""
    number = bounds.tries[index] - client.tries - 1 if bounds.rules.owner_per_try else 0
    return index * _TRIES_MAX + number


def client_of(owner: int) -> int:
    """Whose try it is."""
    return owner // _TRIES_MAX


def name_of(bounds: Configuration, owner: int) -> str:
    """A, B, C; with the number of the try where there are several."""
    index = client_of(owner)
    several = bounds.tries[index] > 1 and bounds.rules.owner_per_try
    return "ABCDEFGH"[index] + (str(owner % _TRIES_MAX + 1) if several else "")


def passed(bounds: Configuration, control: Control, owner: int, until: int) -> bool:
    """Whether *until* is over on the timeline of *owner*, or its whole try is: then its locks
    may expire at any moment."""
    index = client_of(owner)
    client = control.clients[index]
    return (
        client.phase not in (OPEN, HELD)
        or owner_of(bounds, index, client) != owner
        or until <= client.now
    )
