"""Where wake-ups are heard: one connection to one node that does nothing but listen.

A subscriber's connection has an output limit, and the server may cut it at any time; so no vote may
ever be on it. An `Ear` stands in a set of links as a `Link` does, and is as pure: bytes and time go
in, bytes come out. All it hears is told to the coordinator's `Lines`. Nothing depends on it: who
hears nothing looks, and finds out a little later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto

from redlock.core.commands import Command, Plain
from redlock.core.effects import Request
from redlock.core.line import Lines
from redlock.core.quorum import Fault, FaultKind, majority
from redlock.transport.link import Mailbox
from redlock.transport.node import Node
from redlock.transport.wire import NOT_YET, ReplyReader, ServerError, WireError, clean, encode

__all__ = ["CHANNELS", "Ear", "Hearing"]

CHANNELS = "redlock:wake:"
"""What the names of all channels begin with; a coordinator's own name comes behind it."""
LOOK_EVERY = 0.1
"""Seconds between two looks at the ears while somebody waits."""
PING_EVERY = 1.0
"""Seconds without a word after which a connection is asked whether it still is one; a firewall
forgets those that are silent for long."""
REDIAL_AFTER = 0.25
"""Seconds between two dials, so that a node which is down is not dialled for each look."""
REFUSED_FOR = 30.0
"""Seconds for which a node that refuses to let us listen is not asked again."""
BUSY_FOR = 1.0
"""The same for one that cannot now: it runs a long script, or has as many clients as it may."""
_PASSING = ("BUSY ", "LOADING ", "MASTERDOWN ", "ERR max number of clients")


class State(Enum):
    """Where an ear stands: no connection, one being dialled, one whose subscription is not
    confirmed, one that hears."""

    DOWN = auto()
    DIALLING = auto()
    ASKING = auto()
    HEARING = auto()


class Hearing:
    """What the ears of one coordinator share: what they tell, and how many of them hear."""

    def __init__(self, lines: Lines, nodes: int) -> None:
        self.lines = lines
        self.channel = CHANNELS + lines.name
        self.nodes = nodes
        self.count = 0
        self._look_at = 0.0

    def begin_anew(self) -> None:
        """Other ears are used from now on; those before may not have said that they end."""
        self.count, self.lines.hears, self._look_at = 0, False, 0.0

    def due(self, now: float) -> bool:
        """Somebody is about to wait: whether the ears are to be looked at."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY
        return True

    def begins(self) -> None:
        """One more hears. With the majority, which tells of a release in any case, who waits looks
        once: it may have been told before."""
        self.count += 1
        if self.count == majority(self.nodes):
            self.lines.hears = True
            self.lines.heard()

    def ends(self) -> None:
        """One hears no more."""
        self.count -= 1
        self.lines.hears = self.count >= majority(self.nodes)


class Ear:
    """The connection to *node* that listens; the arguments are those of a `Link`."""

    # What a set of links asks of a link that asks nothing of its node.
    in_flight: tuple[Request, ...] = ()
    releasing = False

    def __init__(
        self,
        hearing: Hearing,
        node: Node,
        mailbox: Mailbox,
        dial: Callable[[], None],
        *,
        silence: float,
    ) -> None:
        self.node = node
        self.broken: Fault | None = None
        self.why = ""
        """Why nothing is heard from this node, for people; nothing while that is unknown."""
        self._hearing = hearing
        self._dial = dial
        self._silence = silence
        self._state = State.DOWN
        self._reader = ReplyReader()
        self._heard_at = 0.0
        self._pinged = False
        self._redial_at = 0.0

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._state in (State.ASKING, State.HEARING)

    @property
    def dialling(self) -> bool:
        """Whether a connection was asked for and has not come."""
        return self._state is State.DIALLING

    @property
    def hears(self) -> bool:
        """Whether wake-ups are heard from this node."""
        return self._state is State.HEARING

    def poke(self, now: float) -> bytes:
        """Somebody waits: dial if there is no connection, and make sure of one that is silent."""
        if self._state is State.DOWN:
            if now >= self._redial_at:
                self._ask_dial(now)
        elif self.up and not self._pinged and now > self._heard_at + PING_EVERY:
            self._pinged = True
            self._heard_at = now  # The time for the answer counts from here.
            return encode(Plain("ping", "PING", shape=list))
        return b""

    def overdue(self, now: float) -> bool:
        """Whether a PING has had no answer for too long. Read its socket before believing that:
        nobody does while nobody waits."""
        return self.up and self._pinged and now > self._heard_at + self._silence

    def heard(self, now: float) -> None:
        """What came is still unread: its time counts anew."""
        self._heard_at = now

    def _ask_dial(self, now: float) -> None:
        self._redial_at = now + REDIAL_AFTER
        self._state = State.DIALLING
        try:
            self._dial()
        except Exception as error:
            # A dial that did not begin ends never, and who waits does without.
            detail = f"could not be dialled ({error or type(error).__name__})"
            self.dial_failed(Fault(FaultKind.UNREACHABLE, detail), now)
        except BaseException:  # Ctrl-C: the next look asks again.
            self._state = State.DOWN
            raise

    def connected(self, now: float, owed: Iterable[Command] = ()) -> bytes:
        """A new connection: subscribe."""
        self._reader = ReplyReader()
        self._state = State.ASKING
        self._heard_at, self._pinged = now, False
        return encode(Plain("subscribe", "SUBSCRIBE", self._hearing.channel, shape=list))

    def dial_failed(self, fault: Fault, now: float) -> None:
        """No connection."""
        self.why = fault.detail
        self._down(now + REDIAL_AFTER)

    def received(self, data: bytes, now: float) -> bytes:
        """Bytes arrived. Sets `broken` if they cannot be trusted."""
        self._heard_at, self._pinged = now, False
        try:
            self._reader.feed(data)
            while (answer := self._reader.next()) is not NOT_YET:
                self._hear(answer, now)
        except WireError as error:
            self.broken = Fault(FaultKind.NONSENSE, str(error))
        return b""

    def lost(self, fault: Fault, now: float) -> None:
        """The connection ended."""
        self.broken = None
        self.why = self.why or fault.detail
        # One that heard until now was cut, as a server may do at any time: ask it again at once.
        self._down(max(self._redial_at, now if self.hears else now + REDIAL_AFTER))

    def _hear(self, answer: object, now: float) -> None:
        match answer:
            case [b"message", _, bytes(name)]:
                self._hearing.lines.told(name.decode("utf-8", "replace"))
            case [b"subscribe", _, int()]:
                if self._state is State.ASKING:
                    self._state = State.HEARING
                    self.why = ""
                    self._hearing.begins()
            case [b"pong", _] if self._state is State.HEARING:
                pass
            case ServerError():
                self.why = f"said {clean(str(answer))}"
                passing = str(answer).startswith(_PASSING)
                self._redial_at = now + (BUSY_FOR if passing else REFUSED_FOR)
                self.broken = Fault(FaultKind.REFUSED, self.why)
            case _:
                raise WireError("sent what no subscriber is told")

    def _down(self, redial_at: float) -> None:
        if self._state is State.HEARING:
            self._hearing.ends()
        self._state = State.DOWN
        self._redial_at = redial_at

    # What only a link that asks has something to say to.

    def retry(self, now: float) -> None:
        """Nothing is owed, and `poke` dials."""

    def bring(self, now: float) -> bytes:
        """Nothing is owed."""
        return b""

    def submit(self, request: Request, now: float) -> bytes:
        """Nothing is ever asked here."""
        raise AssertionError("an ear asks nothing")
