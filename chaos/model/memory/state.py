"""What a state of the world of memories is made of, the bounds of a configuration, and the rules
that a mutant takes away.

Three nodes, of which the first may lose its memory; the others remember for ever. A try of a client
is a lock on the nodes that voted for it, and nothing more: what happens between two ballots is the
other model's matter.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    *(
        "BACKUP",
        "FLUSH",
        "MOVE",
        "PROMOTE",
        "RESTART",
        "STANDBY",
        "SWAP",
        "DONE",
        "HELD",
        "IDLE",
        "OPEN",
        "NODES",
        "AHEAD",
        "SHIPPED",
    ),
    *(
        "Blank",
        "Client",
        "Loss",
        "Mark",
        "Marker",
        "Memories",
        "Node",
        "Record",
        "Rules",
        "Seen",
        "State",
        "Text",
        "Violation",
    ),
]

NODES = 3
IDLE, OPEN, HELD, DONE = range(4)
"""A client's phase: no try; its requests are on their way; it has a lease; it makes no more
tries."""

FLUSH, RESTART, PROMOTE, STANDBY, MOVE, SWAP, BACKUP = (
    "flush",
    "restart",
    "promote",
    "standby",
    "move",
    "swap",
    "backup",
)
"""What may happen to the first node's memory.

FLUSH: all keys are gone, and nothing else changes. RESTART: another run, and any text that it ever
had, or none. PROMOTE: made a replica and promoted again, in the same run, with any text. STANDBY:
the name leads to its replica, which knows its marker and id, and not its locks; the node itself is
dead. MOVE: the name leads to another server, which has run for long, with any text or none; it may
lead back to the first one once every client has met the second. SWAP: the keys are swapped for none
by SWAPDB, in one server, where what is on its way is not lost, and perhaps back, as after MOVE.
BACKUP: another replication id, and nothing is lost.
"""

AHEAD = 1
"""How far past a node's clock a token may be, in ticks, and a floor is."""


class Rules(NamedTuple):
    """One switch for each rule that keeps what forgot from voting; `SHIPPED` has all of them on."""

    memory_in_script: bool = True
    """TAKE and MARK compare the marker's memory with the node's, beside the marker's text."""
    memory_by_name: bool = True
    """They match `master_replid:` with its name in front; otherwise the id before a promotion
    passes as well."""
    master_in_script: bool = True
    """They ask for `role:master`."""
    quarantine: bool = True
    """A lost memory waits before it is marked."""
    older_is_lost: bool = True
    """A client that has met a newer memory takes the return of the older one for a loss."""
    older_marker_is_lost: bool = True
    """So it does where an older marker comes back in the same memory: it has smaller numbers.
    One that replaced it has not."""
    admission_shared: bool = True
    """A vote is written only while the client's one record admits the node, whichever connection
    carries it."""
    counts_while_admitted: bool = True
    """A vote counts only if the client still admits the node by the marker that the request
    named."""
    ended_by_later_marker: bool = True
    """While a loss is pending, a marker counts only if it was written since the loss was met, in
    the memory that was met."""
    blank_by_node: bool = True
    """The node finishes a blank, so that no two executions of a request give the same text."""
    blank_names_memory: bool = True
    """A blank counts only for the memory that it was written for; one that came back is written
    over."""
    marked_over_blank: bool = True
    """A marker is written over a blank that was waited on, never over nothing."""
    floor: bool = True
    """Who marks a memory after a wait sets a floor."""
    floor_by_others: bool = True
    """The floor is made from the other nodes' clocks, not from that of a node that has just
    booted."""
    replace_floor: bool = True
    """`redlock init --replace` sets a floor too."""
    wait_first: bool = True
    """`redlock init --max-ttl` raises wait_ttl on all nodes before it raises max_ttl on any."""
    waits_by_wait_ttl: bool = True
    """A quarantine waits for the largest wait_ttl that is known and that q - 1 others state, not
    for the largest max_ttl."""
    founds_by_all: bool = True
    """A new cluster is founded when all nodes answered and are blank, not when a majority is."""
    founds_at_once: bool = True
    """All of them were blank at one instant: each was asked once more after the last blank was
    met."""
    votes_by_majority: bool = True
    """No vote is asked for before the client has seen a majority of the nodes marked."""
    waits_from_look: bool = True
    """A client that never knew the node waits from its look or from a blank, not from the
    restart, as the uptime tells it."""
    waits_from_blank: bool = True
    """Who writes a blank over nothing waits from there: the nothing that it met before may have
    been another one."""
    promise_needs_run: bool = True
    """That nodes are never made replicas lets a replication id change only within one run."""


SHIPPED = Rules()


class Memories(NamedTuple):
    """What is explored. *properties*: those that must hold.

    *tries*: of each client, one after the other. *kinds*: what may happen to the first node,
    *losses* times in all. *blank*: the cluster is to be founded, and each node has a blank;
    *founders*: all clients have seen that at one instant. *scarred*: the first node had a blank
    once, which may come back. *fresh*: clients that know nothing at first, and forget everything
    after each try. *aloof*: clients that look at no node that remembers. *raises*: an operator
    raises max_ttl from 1 to 2, and the first client's tries have a ttl of 2; *verified*: it has
    come to where wait_ttl is 2 on all nodes. *replaces*: once an operator replaces all markers,
    after a loss and while no try is under way. *tokens*: a token is any number up to this; 0:
    without tokens. *ticks*: how far the wall clock goes; *lag*: by how much the clock of the first
    node is behind when it has restarted. *smallest*: the node with the smallest memory. *promise*:
    the marker says that no node is ever made a replica. *limit*: the markers' first max_ttl and
    wait_ttl. *begun*: each client's first try has begun. *reduced*: what cannot matter is left out.
    """

    name: str
    properties: tuple[str, ...]
    tries: tuple[int, ...] = (1, 1)
    kinds: tuple[str, ...] = (FLUSH, RESTART, PROMOTE)
    losses: int = 1
    blank: bool = False
    founders: bool = False
    scarred: bool = False
    fresh: tuple[int, ...] = ()
    aloof: tuple[int, ...] = ()
    raises: bool = False
    verified: bool = False
    replaces: bool = False
    tokens: int = 0
    ticks: int = 0
    lag: int = 0
    smallest: int = 0
    promise: bool = False
    limit: int = 1
    begun: bool = False
    rules: Rules = SHIPPED
    reduced: bool = True


class Marker(NamedTuple):
    """A marker: the memory and run that it names, and its numbers.

    *written_over*: the text that it replaced when this memory was marked. No two are alike, as no
    two times of a node's clock are; what a marker keeps when its numbers are raised.
    """

    memory: int
    run: int
    max_ttl: int = 1
    wait_ttl: int = 1
    floor: int = 0
    written_over: object = "-"


class Blank(NamedTuple):
    """A marker that says there is none. *stamp*: counts the blanks that were ever written, as
    the node's clock does."""

    memory: int
    nonce: int
    stamp: int


Text = Marker | Blank | None
"""What stands at `redlock:node`."""


class Node(NamedTuple):
    """One server behind a name. *prior*: the replication id before (`master_replid2`).
    *promoted*: it tells of a promotion. *lock*: the client whose try holds it, or -1. *lag*: of
    its clock. *texts*: what a snapshot or a copy may bring back.
    """

    memory: int = 0
    prior: int = -1
    run: int = 0
    master: bool = True
    promoted: bool = False
    text: Text = None
    lock: int = -1
    fence: int = 0
    lag: int = 0
    texts: frozenset[Text] = frozenset()


class Seen(NamedTuple):
    """What one look told of a node."""

    memory: int
    run: int
    master: bool
    promoted: bool
    text: Text


class Loss(NamedTuple):
    """A node forgot, as one client knows. *before*: the tries, a bit each, that began before it
    was known and are not over: a wait of some ttl ends once those of up to that ttl are. *span*:
    how long it waits; *asked*: the others that told since. *later*: the marker written since, by
    its `written_over`, as its time tells.
    """

    before: int
    span: int
    asked: int
    later: object = None


class Record(NamedTuple):
    """What a client knows of a node. *trusted*: the marker by which it admitted it last. *past*:
    those it admitted before."""

    seen: Seen | None = None
    trusted: Marker | None = None
    past: frozenset[int] = frozenset()
    loss: Loss | None = None

    @property
    def admitted(self) -> Marker | None:
        """The marker by which the node may vote now."""
        trusted, seen = self.trusted, self.seen
        if trusted is None or seen is None or self.loss is not None:
            return None
        return (
            trusted
            if seen.text == trusted and seen.memory == trusted.memory and seen.master
            else None
        )


class Client(NamedTuple):
    """*votes*: the nodes that granted, a bit each. *sent*: the markers that its requests to the
    first node name. *base*: the largest token that had been granted when its try began. *again*:
    the nodes that told the same, or were met, since the last of them told something new;
    *founding*: what all of them told when they were blank at one instant.
    """

    phase: int
    tries: int
    records: tuple[Record, ...]
    ttl: int = 1
    token: int = 0
    base: int = 0
    votes: int = 0
    sent: frozenset[Marker] = frozenset()
    again: int = 0
    founding: tuple[Seen, ...] = ()


class Mark(NamedTuple):
    """A MARK on its way, to be executed at any moment, any number of times or never. *text*:
    None for a blank."""

    client: int
    node: int
    expected: Text
    memory: int
    text: Marker | None


class State(NamedTuple):
    """*blanks*: of each blank by its stamp, the tries that were under way when it was written,
    as *restarted* has them for the last restart. *shelf*: the server that the first name led to
    before, and *met*: the clients that have met the present one, a bit each. *victims*: the
    tries under way of which a node forgot the lock. *operator*: the phase of a raise, and the
    nodes done.
    """

    nodes: tuple[Node, ...]
    clients: tuple[Client, ...]
    marks: frozenset[Mark]
    losses: int
    memories: int = 1
    blanks: tuple[int, ...] = ()
    restarted: int = 0
    shelf: Node | None = None
    met: int = 0
    victims: int = 0
    operator: tuple[int, int] = (0, 0)
    granted: tuple[int, ...] = ()
    now: int = 0


class Violation(NamedTuple):
    """A broken property: U, M or ME, and what happened."""

    property: str
    text: str
