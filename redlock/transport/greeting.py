"""Who is behind one connection, and whether votes may go there.

A `Greeting` owns what was learned on this connection: which memory answered on it, and as of which
of the coordinator's findings it was let vote. What all connections together know of a node is
`redlock.core.admission`'s, and is asked anew whenever that has changed. Pure: it answers with the
commands to write.
"""

from __future__ import annotations

from enum import Enum, auto

from redlock.core.admission import Standing, State
from redlock.core.commands import Command, Look, Mark, Plain, scripts
from redlock.core.effects import NEVER, Request
from redlock.core.identity import Identity, Memory
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.node import Node
from redlock.transport.wire import bulk, clean

__all__ = ["LOOK_EVERY", "Gate", "Greeting"]

LOOK_EVERY = 1.0
"""A connection in use looks at its node at least so often, in seconds: an eviction policy may be
set at run time, and no script sees that."""


class Gate(Enum):
    """Where a connection stands.

    | from | what happens | to |
    |---|---|---|
    | DOWN | a request wants the node | DIALLING |
    | DIALLING | the dial failed; a connection came | DOWN; GREETING |
    | GREETING | the look is answered | SHUT, and on from there at once |
    | SHUT | the node may vote; a marker is to be written; there is a doubt | OPEN; MARKING; GREETING |
    | MARKING | the marker stands | SHUT, and on from there at once |
    | OPEN | others found a loss, or our rights are gone; there is a doubt | SHUT; GREETING |
    | any | the connection ended | DOWN |

    A look in front of a vote leaves the gate as it is: votes go on behind it.
    """

    DOWN = auto()
    DIALLING = auto()
    GREETING = auto()
    MARKING = auto()
    OPEN = auto()
    SHUT = auto()


class Greeting:
    """One connection's part of the admission of *node*.

    *tail*: the marker, encoded, which goes behind every vote; None unless the gate is open.
    *as_of*, *life*: `Admission.changes` and `Admission.life` when this connection last let votes
    through. *barred*: whether votes that come all the same do not count. *look_at*: when a look has
    to go in front of the next vote. *met*: whether the server told who it is. *said*: the first
    error that it answered instead. *broken* is set when the connection has to be dialled again.
    """

    __slots__ = (
        "_admission",
        "_asked_at",
        "_asked_of",
        "_info",
        "_looks",
        "_marked_at",
        "_memory",
        "as_of",
        "barred",
        "broken",
        "gate",
        "life",
        "look_at",
        "met",
        "node",
        "said",
        "tail",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self._admission = node.admission
        self.reset()

    def reset(self) -> None:
        """There is no connection."""
        self.gate = Gate.DOWN
        self.tail: bytes | None = None
        self.barred = False
        self.as_of = -1
        self.life = 0
        self.look_at = NEVER
        self.met = False
        self.said = ""
        self.broken: Fault | None = None
        self._looks = 0  # On their way: only the last of them is heard.
        # When the last look was sent, and what `Admission.changes` was.
        self._asked_at, self._asked_of = NEVER, -1
        self._marked_at = NEVER
        self._memory: Memory | None = None
        self._info: dict[str, str] = {}

    @property
    def learning(self) -> bool:
        """Whether the node's standing is still to be learned, or to be written down on it: no
        vote goes there before."""
        return self._looks > 0 or (self.gate is not Gate.OPEN and self.gate is not Gate.SHUT)

    @property
    def looking(self) -> bool:
        """Whether a look is on its way."""
        return self._looks > 0

    # Looks

    def begin(self, now: float) -> list[Command]:
        """A new connection: load the scripts, and ask who is there."""
        self.reset()
        self.gate = Gate.GREETING
        return self.look(now, load=True)

    def look(self, now: float, *, load: bool = False, voting: bool = False) -> list[Command]:
        """Ask who is there. *load*: also load the scripts, so that the first EVALSHA finds them.
        Its role by itself is asked for on a new connection and where the last look was refused:
        a node that refuses the script still answers it, and so tells why. *voting*: votes go on
        meanwhile; the script looks at the memory.
        """
        self._looks += 1
        if not voting:
            self.tail = None
            if self.gate is not Gate.MARKING:
                self.gate = Gate.GREETING
        self._info = {}
        self._asked_at, self._asked_of = now, self._admission.changes
        self.look_at = now + LOOK_EVERY
        asked: list[Command] = [Look()]
        if load:
            asked = [
                *(
                    Plain("load", "SCRIPT", "LOAD", script.source, shape=bytes)
                    for script in scripts()
                ),
                *asked,
            ]
        if load or self._memory is None:
            asked = [Plain("info", "INFO", "replication", shape=bytes), *asked]
        return asked

    def told_role(self, info: dict[str, str]) -> None:
        """The answer that comes in front of a look's."""
        self._info = info

    def was_last(self) -> bool:
        """A look was answered: whether it was the last one on its way, and so the one that
        counts."""
        self._looks -= 1
        if self._looks:
            return False
        self.met = True
        self.tail = None
        if self.gate is not Gate.MARKING:
            self.gate = Gate.SHUT
        self.node.reachable()
        return True

    def refused(self, fault: Fault, now: float) -> Fault:
        """The last look was refused: why the node does not vote."""
        self._memory = None
        role = self._info.get("role", "master")
        # A replica refuses our script without saying that it is one; INFO says so.
        if role != "master":
            fault = Fault(FaultKind.REFUSED, f"is a {clean(role)}, not a master")
        self._admission.failed(self.node.index, fault)
        if fault.kind is FaultKind.REFUSED:
            self.node.tell(Standing(State.REFUSED, fault), now)
        return fault

    def identified(self, told: tuple[dict[str, str], str, float, str], now: float) -> None:
        """The last look was answered with who the node is."""
        index = self.node.index
        identity, before = Identity.parse(*told), self._admission.identity(index)
        self._memory = identity.memory
        self._admission.seen(index, identity, now, asked_at=self._asked_at, as_of=self._asked_of)
        self.node.met(before, identity, now)

    # The gate

    def settle(self, now: float, *, tell: bool = False) -> list[Command]:
        """Act on the node's standing: open the way for votes, write its marker, or look again
        later.

        *tell*: the node was asked just now, and observers may want to know why it does not vote.
        """
        if self.learning:
            return []
        node, as_of = self.node, self._admission.changes
        standing = self._admission.standing(node.index, now)
        self.barred = standing.barred
        if standing.state is State.ADMITTED:
            if standing.memory != self._memory:
                # Another connection was told of another memory than the one behind this one,
                # perhaps by an answer that had waited there unread. Asked of the standing itself:
                # another thread may be told of it at any moment.
                return self.look(now) if node.recheck_due(now) else []
            self._open(standing, as_of)
            node.admitted(now)
        elif standing.state is State.MARK and standing.mark is not None:
            self.gate = Gate.MARKING
            self.tail = None
            self._marked_at = now
            return [standing.mark]
        elif standing.state is not State.UNKNOWN and standing.fault is not None:
            due = node.recheck_due(now)
            if tell:
                node.tell(standing, now)
            elif due and standing.redial:
                self.broken = Fault(
                    FaultKind.LOST, "was dialled again, as another node's name leads to its server"
                )
            elif due:
                return self.look(now)
        return []

    def marked(self, mark: Mark, stands: str | None, now: float) -> bool:
        """The marker was written, by us or, first, by somebody else: adopt what *stands*. False:
        the memory is another one."""
        self.unmarked()
        if stands is None:
            return False
        identity = self._admission.identity(self.node.index)
        if identity is not None and identity.memory == self._memory:
            self._admission.marked(self.node.index, mark, stands, now, asked_at=self._marked_at)
        return True

    def unmarked(self) -> None:
        """What the node says to our marker is known."""
        self.gate = Gate.GREETING if self._looks else Gate.SHUT

    def may_vote(self, now: float) -> bool:
        """Whether the node behind this connection is the one that is admitted: asked of what all
        connections know.

        Whoever found last that a node forgot, another connection or a report, has told it there; so
        no vote is written as of anything older.
        """
        if self.tail is None or self.as_of == self._admission.changes:
            return self.tail is not None
        # Read first: what another thread tells from here on counts as not known.
        as_of = self._admission.changes
        standing = self._admission.standing(self.node.index, now)
        if standing.state is State.ADMITTED and standing.memory == self._memory:
            self._open(standing, as_of)
            return True
        self.shut()
        self.barred = standing.barred
        return False

    def counts(self, request: Request, now: float) -> bool:
        """Whether a vote that was just read is one: the node has lost nothing, as far as anybody
        knows, since it was written."""
        if self.as_of != self._admission.changes:
            self.barred = self._admission.standing(self.node.index, now).barred
        return not self.barred and request.life == self._admission.life(self.node.index)

    def shut(self) -> None:
        """No vote goes there until a look, or what others find, opens the way again."""
        self.tail = None
        if self.gate is Gate.OPEN:
            self.gate = Gate.SHUT

    def _open(self, standing: Standing, as_of: int) -> None:
        self.gate = Gate.OPEN
        self.tail, self.as_of, self.life = (
            bulk(standing.marker),
            as_of,
            self._admission.life(self.node.index),
        )
