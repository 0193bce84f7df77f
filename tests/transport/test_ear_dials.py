"""An ear whose dial cannot even begin: who waits does without it, and it is dialled again later."""

from __future__ import annotations

import pytest

from redlock.core.admission import Admission
from redlock.core.line import Lines
from redlock.transport.ear import REDIAL_AFTER, Ear, Hearing
from redlock.transport.node import Node


class Dialler:
    """Dials, or cannot."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.dials = 0

    def __call__(self) -> None:
        self.dials += 1
        if self.error is not None:
            raise self.error


def ear_of(dial: Dialler) -> Ear:
    admission = Admission(
        ["n0"], ttl=2.0, max_ttl=None, durable=None, patience=1.0, nonce=lambda: "nonce"
    )
    node = Node(0, "n0", admission, lambda event: None)
    return Ear(Hearing(Lines("us"), 1), node, None, dial, silence=1.0)  # type: ignore[arg-type]


def test_an_ear_that_cannot_be_dialled_says_so_and_is_dialled_later() -> None:
    """No thread to dial in: that reaches nobody who waits, and is no dial that goes on for ever."""
    dial = Dialler(RuntimeError("can't start new thread"))
    ear = ear_of(dial)
    assert ear.poke(1.0) == b""
    assert not ear.dialling
    assert ear.why == "could not be dialled (can't start new thread)"
    dial.error = None
    ear.poke(1.0 + REDIAL_AFTER / 2)
    assert dial.dials == 1
    ear.poke(1.0 + REDIAL_AFTER)
    assert dial.dials == 2
    assert ear.dialling


def test_a_ctrl_c_in_the_dial_leaves_an_ear_that_can_be_dialled() -> None:
    """It goes on to its caller, and the next look dials again."""
    dial = Dialler(KeyboardInterrupt())
    ear = ear_of(dial)
    with pytest.raises(KeyboardInterrupt):
        ear.poke(1.0)
    assert not ear.dialling
    dial.error = None
    ear.poke(1.0 + REDIAL_AFTER)
    assert ear.dialling
