"""What is explored: the configurations in which every property must hold, and the weakened
protocols that must be refuted.

A mutant is a configuration that differs in one rule from one that holds;
`tests/model/test_mutants.py` explores both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chaos.model.protocol import SHIPPED
from chaos.model.state import COUNTED, TWO_PHASE, Configuration

__all__ = ["LONG", "MUTANTS", "SOUND", "Mutant"]

CLOCKLESS = ("U", "M", "X")
TIMED = ("U", "M", "D", "ME", "X")
ANY = ("extend", "shorten", "verify")

SOUND = (
    Configuration("clockless", False, CLOCKLESS, proposals=3),
    Configuration("clockless, holder asks", False, CLOCKLESS, questions=1),
    Configuration("clockless, others' turn", False, CLOCKLESS, turns=True),
    Configuration("clockless, amnesia", False, ("U", "M"), crashes=1),
    Configuration(
        "clockless, scripts break off",
        False,
        CLOCKLESS,
        questions=1,
        modes=("extend",),
        aborts=True,
    ),
    Configuration(
        "timed, holder asks twice",
        True,
        TIMED,
        rounds=3,
        proposals=3,
        questions=2,
        modes=ANY,
        turns=True,
    ),
    Configuration(
        "timed, amnesia, holder asks", True, TIMED, questions=1, modes=ANY, crashes=1, turns=True
    ),
    Configuration("timed, a second try", True, TIMED, tries=(2, 1)),
    Configuration("timed, three clients", True, TIMED, tries=(1, 1, 1), rounds=1, proposals=3),
)
"""What every run explores."""

LONG = (
    Configuration(
        "clockless, others' turn, more tokens", False, CLOCKLESS, proposals=3, turns=True
    ),
    Configuration(
        "clockless, others' turn, holder asks", False, CLOCKLESS, questions=1, turns=True
    ),
    Configuration("clockless, others' turn, amnesia", False, ("U", "M"), crashes=1, turns=True),
    Configuration("timed, others' turn, a second try", True, TIMED, tries=(2, 1), turns=True),
    Configuration(
        "clockless, three clients", False, CLOCKLESS, tries=(1, 1, 1), rounds=1, proposals=3
    ),
    Configuration(
        "timed, amnesia, three clients",
        True,
        TIMED,
        tries=(1, 1, 1),
        rounds=1,
        proposals=3,
        crashes=1,
    ),
    Configuration("clockless, holder asks twice", False, CLOCKLESS, questions=2),
    Configuration(
        "timed, holder asks thrice",
        True,
        TIMED,
        rounds=3,
        proposals=4,
        strides=(1, 2),
        questions=3,
        modes=ANY,
    ),
    Configuration("timed, three clients, two rounds", True, TIMED, tries=(1, 1, 1)),
    Configuration(
        "timed, amnesia twice, holder asks", True, TIMED, questions=1, modes=ANY, crashes=2
    ),
    Configuration("clockless, amnesia twice", False, ("U", "M"), crashes=2),
    Configuration(
        "timed, amnesia, holder asks twice",
        True,
        TIMED,
        rounds=3,
        proposals=3,
        questions=2,
        modes=ANY,
        crashes=1,
    ),
    Configuration(
        "clockless, three rounds, holder asks", False, CLOCKLESS, rounds=3, proposals=3, questions=1
    ),
    Configuration("clockless, a second try", False, CLOCKLESS, tries=(2, 1)),
    Configuration("timed, two tries each", True, TIMED, tries=(2, 2)),
    Configuration(
        "clockless, three rounds, strides", False, CLOCKLESS, rounds=3, proposals=4, strides=(1, 2)
    ),
)
"""What a long run explores besides: about sixty million states, in some twenty minutes of CPU
and two gigabytes."""


class Mutant(NamedTuple):
    """A weakened protocol. *breaks*: the property that a shortest trace breaks; *why*: what goes
    wrong, in a sentence.

    *configuration* executes a request at most once, for the plainest trace. *mended*: the same
    bounds with the rule in force, and with duplicates, where every property must hold: it is the
    rule that makes the difference.
    """

    name: str
    breaks: str
    why: str
    configuration: Configuration
    mended: Configuration


def _mutant(name: str, breaks: str, why: str, mended: Configuration, **weakened: Any) -> Mutant:
    configuration = mended._replace(**{"name": name, "duplicates": False, **weakened})
    return Mutant(name, breaks, why, configuration, mended._replace(name=f"{name}, mended"))


_CLOCKLESS = Configuration("", False, CLOCKLESS)
_TIMED = Configuration("", True, TIMED)

MUTANTS = (
    _mutant(
        "incr",
        "U",
        "The node makes the number: SET NX and INCR in one script, and the token is the largest"
        " counter heard.",
        _CLOCKLESS._replace(rounds=1),
        protocol=COUNTED,
    ),
    _mutant(
        "two-phase",
        "U",
        "Lock and read, then counter = max(counter, token) wherever the lock is mine: a late lock"
        " makes the raise succeed.",
        _CLOCKLESS,
        protocol=TWO_PHASE,
        rules=SHIPPED._replace(strict=False),
    ),
    _mutant(
        "raise-not-strict",
        "U",
        "The ballot itself, taking a token that equals the fence.",
        _CLOCKLESS,
        rules=SHIPPED._replace(strict=False),
    ),
    _mutant(
        "lock-first",
        "U",
        "TAKE writes the lock before the fence, breaks off between the two, and is asked again.",
        _CLOCKLESS._replace(aborts=True),
        duplicates=True,
        rules=SHIPPED._replace(fence_first=False),
    ),
    _mutant(
        "owner-reused",
        "ME",
        "One owner for all tries of a client: the release of try 1, late, deletes the lock of"
        " try 2.",
        _TIMED._replace(tries=(2, 1), rounds=1, proposals=4),
        rules=SHIPPED._replace(owner_per_try=False),
    ),
    _mutant(
        "top-up-unchecked",
        "X",
        "An extension puts a missing lock back without a look at the fence.",
        _CLOCKLESS._replace(questions=1, modes=("extend",)),
        rules=SHIPPED._replace(top_up_checks_fence=False),
    ),
    _mutant(
        "extension-shortens",
        "ME",
        "An extension sets the expiry it was asked for, also below what the holder relies on.",
        _TIMED._replace(questions=1, modes=("shorten",)),
        rules=SHIPPED._replace(extension_never_shortens=False),
    ),
    _mutant(
        "turn-takes",
        "ME",
        "Whose turn it is in the queue takes the lock, whoever has it: a queue may be wrong.",
        _TIMED._replace(turns=True),
        rules=SHIPPED._replace(turn_only_refuses=False),
    ),
    _mutant(
        "counter-restarts",
        "U",
        "Tokens count from the fence alone, as a pure counter does. A node that forgot waits"
        " (delayed restart), without a floor.",
        _TIMED._replace(proposals=1, crashes=1),
        rules=SHIPPED._replace(floor=False),
    ),
    _mutant(
        "no-floor",
        "M",
        "Tokens are unique and follow client clocks that differ. A node that forgot waits, and then"
        " takes any token.",
        _TIMED._replace(proposals=3, distinct=True, crashes=1),
        rules=SHIPPED._replace(floor=False),
    ),
    _mutant(
        "no-quarantine",
        "ME",
        "A node that forgot votes at once.",
        _TIMED._replace(crashes=1),
        rules=SHIPPED._replace(quarantine=False),
    ),
    _mutant(
        "timing-broken",
        "ME",
        "What ships, where locks may vanish at any moment: one holder at a time is a promise of"
        " timing, and tokens are not.",
        _TIMED,
        timing=False,
    ),
    _mutant(
        "memory-lost",
        "X",
        "What ships, clockless, where a node forgets: that a confirmed holder is the newest is a"
        " promise of nodes that remember.",
        _CLOCKLESS._replace(rounds=1, questions=1),
        crashes=1,
    ),
)
"""What every run must refute. The last two take away an assumption instead of a rule."""
