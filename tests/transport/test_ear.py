"""An ear by itself: bytes and time go in, and what it tells its coordinator is written down."""

from __future__ import annotations

from collections import deque
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redlock.core.admission import Admission
from redlock.core.line import Lines, Place
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.ear import (
    BUSY_FOR,
    LOOK_EVERY,
    PING_EVERY,
    REDIAL_AFTER,
    REFUSED_FOR,
    Ear,
    Hearing,
)
from redlock.transport.node import Node

SILENCE = 1.0
LOST = Fault(FaultKind.LOST, "closed the connection")
SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$15\r\nredlock:wake:us\r\n"
CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$15\r\nredlock:wake:us\r\n:1\r\n"
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


def message(name: str) -> bytes:
    """A node tells the place *name* that a lock is free."""
    text = name.encode()
    return b"*3\r\n$7\r\nmessage\r\n$15\r\nredlock:wake:us\r\n$%d\r\n%b\r\n" % (len(text), text)


class Rig:
    """The ears of one coordinator at *count* nodes, and what they want of the world."""

    def __init__(self, count: int = 1) -> None:
        self.lines = Lines("us")
        self.hearing = Hearing(self.lines, count)
        names = [f"n{number}" for number in range(count)]
        admission = Admission(
            names, ttl=2.0, max_ttl=None, durable=None, patience=1.0, nonce=lambda: "nonce"
        )
        self.dials: list[int] = []
        self.ears = [
            Ear(
                self.hearing,
                Node(index, name, admission),
                deque(),
                partial(self.dials.append, index),
                silence=SILENCE,
            )
            for index, name in enumerate(names)
        ]
        self.ear = self.ears[0]

    def hear(self, now: float = 0.0) -> Rig:
        """Until every ear hears."""
        for ear in self.ears:
            assert ear.poke(now) == b""
            assert ear.connected(now) == SUBSCRIBE
            assert ear.received(CONFIRMED, now) == b""
            assert ear.hears and ear.broken is None
        return self

    def join(self, key: str = "k") -> Place:
        place = self.lines.join(key, 1, 0.0)
        assert place is not None
        return place


def test_an_ear_subscribes_to_the_channel_of_its_coordinator_and_tells_its_places() -> None:
    """Also one that only may be free, and one that nobody knows."""
    rig = Rig()
    first, second = rig.join("a"), rig.join("b")
    assert not rig.ear.up and not rig.ear.hears
    rig.ear.poke(1.0)
    assert rig.dials == [0] and rig.ear.dialling and not rig.ear.up
    rig.ear.connected(1.1)
    assert rig.ear.up and not rig.ear.dialling and not rig.ear.hears
    rig.ear.received(CONFIRMED, 1.2)
    first.rung = second.rung = False  # They look when they hear for the first time.
    rig.ear.received(message("us.1") + message("?us.2") + message("us.99"), 1.3)
    assert (first.told, first.rung, second.told, second.rung) == (True, True, False, True)
    assert rig.ear.broken is None and rig.dials == [0]


@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_message_is_heard_wherever_its_bytes_are_cut(cuts: list[int]) -> None:
    """The same, in one piece or in many."""
    rig = Rig()
    place = rig.join()
    rig.ear.poke(0.0)
    rig.ear.connected(0.0)
    data = CONFIRMED + PONG + message("us.1")
    ends = sorted({*[cut for cut in cuts if cut < len(data)], len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        assert not place.told
        assert rig.ear.received(data[start:end], 0.1) == b""
    assert place.told and rig.ear.hears and rig.ear.broken is None


def test_who_waits_looks_once_when_a_majority_is_heard() -> None:
    """It tells of every release; what was released before that, nobody was told. Below a majority a
    coordinator is deaf, and says so with its places."""
    rig = Rig(3)
    first, second = rig.join(), rig.join()
    for number, ear in enumerate(rig.ears):
        ear.poke(0.0)
        ear.connected(0.0)
        assert (rig.lines.hears, first.rung) == (number == 2, number == 2)
        ear.received(CONFIRMED, 0.1)
        ear.received(CONFIRMED, 0.1)  # Twice is once.
    assert first.rung and not second.rung, "the others stand behind it"
    first.rung = False
    rig.ears[0].lost(LOST, 1.0)
    assert rig.lines.hears and not first.rung
    rig.ears[1].lost(LOST, 1.0)
    assert not rig.lines.hears and first.text == "1~us.1"
    rig.ears[1].lost(LOST, 1.0)
    assert rig.hearing.count == 1
    rig.ears[1].poke(1.0)
    rig.ears[1].connected(1.0)
    rig.ears[1].received(CONFIRMED, 1.0)
    assert rig.lines.hears and first.rung


def test_a_node_that_refuses_is_left_alone_for_long() -> None:
    """Without the right to the channel: it says why, and is not dialled for every look."""
    rig = Rig()
    rig.ear.poke(0.0)
    rig.ear.connected(0.0)
    rig.ear.received(b"-NOPERM no \x1b channel\r\n", 0.1)
    assert rig.ear.broken is not None and rig.ear.broken.kind is FaultKind.REFUSED
    rig.ear.lost(rig.ear.broken, 0.1)
    assert rig.ear.why == "said NOPERM no ? channel" and not rig.lines.hears
    rig.ear.poke(REFUSED_FOR)
    assert rig.dials == [0]
    rig.ear.poke(0.1 + REFUSED_FOR)
    assert rig.dials == [0, 0]
    rig.ear.connected(40.0)
    rig.ear.received(CONFIRMED, 40.0)
    assert rig.ear.hears and not rig.ear.why


@pytest.mark.parametrize(
    "error",
    [
        b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        b"ERR max number of clients reached",
        b"LOADING Redis is loading the dataset in memory",
    ],
)
def test_a_node_that_cannot_let_us_listen_now_is_asked_again_soon(error: bytes) -> None:
    """What it says is over in a moment, and says nothing of our rights."""
    rig = Rig().hear()
    rig.ear.poke(PING_EVERY + 0.1)
    rig.ear.received(b"-%b\r\n" % error, 2.0)
    assert rig.ear.broken is not None
    rig.ear.lost(rig.ear.broken, 2.0)
    rig.ear.poke(1.9 + BUSY_FOR)
    assert rig.dials == [0]
    rig.ear.poke(2.0 + BUSY_FOR)
    assert rig.dials == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b":1\r\n",
        b"+PONG\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n:1\r\n",
        b"*2\r\n$7\r\nmessage\r\n$1\r\nx\r\n",
        b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:0\r\n",
        b"HTTP/1.1 400\r\n\r\n",
    ],
)
def test_what_no_subscriber_is_told_breaks_the_connection(data: bytes) -> None:
    """It is another conversation, and nothing of it can be trusted; nor does anybody wake."""
    rig = Rig().hear()
    place = rig.join()
    rig.ear.received(data, 0.1)
    assert rig.ear.broken is not None and rig.ear.broken.kind is FaultKind.NONSENSE
    assert not place.rung
    rig.ear.lost(rig.ear.broken, 0.1)
    assert rig.ear.broken is None and not rig.ear.up and rig.hearing.count == 0


def test_a_silent_connection_is_asked_whether_it_still_is_one() -> None:
    """Once, and only where nothing was heard; without an answer it is given up."""
    rig = Rig().hear()
    assert rig.ear.poke(PING_EVERY) == b""
    assert rig.ear.poke(PING_EVERY + 0.1) == PING
    rig.ear.received(PONG, 1.2)
    assert rig.ear.poke(1.2 + PING_EVERY) == b""
    assert rig.ear.poke(2.3) == PING
    assert rig.ear.poke(2.3 + SILENCE) == b"" and not rig.ear.overdue(2.3 + SILENCE)
    assert rig.ear.overdue(2.31 + SILENCE), "its set of links gives it up"
    rig.ear.heard(2.31 + SILENCE)
    assert not rig.ear.overdue(2.4 + SILENCE)
    rig.ear.received(PONG, 9.0)
    assert not rig.ear.overdue(99.0)


def test_a_subscription_that_is_never_confirmed_is_given_up() -> None:
    """A server that stopped behind the connect; or one that answers what was asked later."""
    rig = Rig()
    rig.ear.poke(0.0)
    rig.ear.connected(0.0)
    assert rig.ear.poke(1.1) == PING
    rig.ear.received(PONG, 1.2)
    assert rig.ear.broken is not None and rig.ear.broken.kind is FaultKind.NONSENSE
    rig = Rig()
    rig.ear.poke(0.0)
    rig.ear.connected(0.0)
    assert rig.ear.poke(1.1) == PING
    assert rig.ear.overdue(1.2 + SILENCE) and not rig.lines.hears


def test_a_node_that_is_down_is_dialled_now_and_then() -> None:
    """Not for every look; but one that heard, and was cut, at once: nothing is wrong with it."""
    rig = Rig()
    rig.ear.poke(0.0)
    rig.ear.dial_failed(Fault(FaultKind.UNREACHABLE, "refused the connection"), 0.1)
    assert rig.ear.why == "refused the connection" and not rig.ear.dialling
    rig.ear.poke(0.09 + REDIAL_AFTER)
    assert rig.dials == [0]
    rig.ear.poke(0.1 + REDIAL_AFTER)
    assert rig.dials == [0, 0]
    rig.ear.connected(1.0)
    rig.ear.received(b"", 1.0)
    rig.ear.lost(LOST, 1.0)
    assert rig.ear.poke(1.0) == b"" and rig.dials == [0, 0], "it never heard"
    rig.hear(2.0)
    assert len(rig.dials) == 3
    rig.ear.lost(LOST, 3.0)
    rig.ear.poke(3.0)
    assert len(rig.dials) == 4


def test_nothing_of_an_old_connection_is_heard_on_the_next() -> None:
    """Half of a message, and a hole."""
    rig = Rig().hear()
    place = rig.join()
    rig.ear.received(message("us.1")[:-5], 0.1)
    rig.ear.lost(LOST, 0.1)
    rig.hear(1.0)
    rig.ear.received(b"us.1\r\n", 1.1)
    assert not place.told and rig.ear.broken is not None


def test_the_ears_are_looked_at_a_few_times_a_second() -> None:
    """By whoever is about to wait, however many come."""
    hearing = Rig().hearing
    assert [hearing.due(at) for at in (5.0, 5.01, 4.9 + LOOK_EVERY, 5.0 + LOOK_EVERY, 5.11)] == [
        *(True, False, False),
        *(True, False),
    ]
