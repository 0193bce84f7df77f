"""The worlds of memories in which every property must hold, and the rules that must each be
missed when they are taken away."""

from __future__ import annotations

from typing import Any, NamedTuple

from chaos.model.memory.state import (
    BACKUP,
    FLUSH,
    MOVE,
    PROMOTE,
    RESTART,
    SHIPPED,
    STANDBY,
    SWAP,
    Memories,
)

__all__ = ["LONG_MEMORIES", "MEMORIES", "MEMORY_MUTANTS", "MemoryMutant"]

ONE, TOKENS = ("ME",), ("M", "U", "ME")
WATCHED = (1, 1, 0)
"""Tries, where a third client looks and marks only: two hold at once, and exchanging clients
makes no difference."""

_LOST = Memories("memory lost", ONE, kinds=(FLUSH, RESTART, PROMOTE, STANDBY))
_TWICE = Memories("memory lost twice", ONE, kinds=(FLUSH, RESTART, PROMOTE), losses=2)
_MOVED = Memories("name moves and comes back", ONE, kinds=(MOVE,))
_SWAPPED = Memories("keys swapped and back", ONE, kinds=(SWAP,))
_FRESH = Memories(
    "fresh clients, a blank comes back", ONE, kinds=(FLUSH, RESTART), fresh=(1,), scarred=True
)
_PROMISED = Memories("backups, never replicas", ONE, kinds=(BACKUP, RESTART, FLUSH), promise=True)
_TOKENS = Memories(
    "tokens, a clock that is wrong", TOKENS, kinds=(RESTART,), tokens=2, ticks=1, lag=1
)
_REPLACED = Memories(
    "tokens, markers replaced", TOKENS, kinds=(FLUSH,), tokens=2, ticks=1, replaces=True
)
_LOWERED = Memories(
    "markers replaced by lower ones, keys swapped", ONE, kinds=(SWAP,), replaces=True, limit=2
)
_RAISED = Memories("max_ttl raised", ONE, kinds=(FLUSH,), raises=True, aloof=(0,))
_VERIFIED = _RAISED._replace(name="max_ttl raised, from where wait_ttl is", verified=True)
_FOUNDED = Memories(
    "founded by two that know of all", ONE, kinds=(FLUSH,), blank=True, founders=True, aloof=(0,)
)
_BEGUN = _FOUNDED._replace(begun=True)  # Nothing is waited for where a cluster is founded.

MEMORIES = (
    _LOST,
    _PROMISED,
    _SWAPPED,
    _MOVED,
    _MOVED._replace(name="name moves, a fresh client", fresh=(1,)),
    _FRESH,
    _TOKENS,
    _LOWERED,
    _VERIFIED,
    _FOUNDED,
    _FRESH._replace(name="three clients, two of them fresh", tries=WATCHED, fresh=(1, 2)),
    _SWAPPED._replace(name="three clients, keys swapped and back", tries=WATCHED),
    _MOVED._replace(name="three clients, name moves and comes back", tries=WATCHED),
    _TWICE,
    _REPLACED,
    _FOUNDED._replace(name="founded, both look at all", aloof=()),
    _RAISED,
)
"""What every run explores."""

LONG_MEMORIES = (
    _PROMISED._replace(name="backups, and memory lost", losses=2),
    _FRESH._replace(name="fresh clients, memory lost twice", losses=2),
    _REPLACED._replace(name="tokens, markers replaced by lower ones", limit=2),
    _VERIFIED._replace(
        name="max_ttl raised, also a restart, from where wait_ttl is", kinds=(FLUSH, RESTART)
    ),
    _FOUNDED._replace(name="founded, the first may restart", kinds=(FLUSH, RESTART)),
    _FOUNDED._replace(name="founded, the one that forgets not first", smallest=1),
    _TWICE._replace(name="three clients, memory lost twice", kinds=(FLUSH, RESTART), tries=WATCHED),
    _SWAPPED._replace(name="keys swapped and flushed", kinds=(SWAP, FLUSH), losses=2),
    _RAISED._replace(name="max_ttl raised, also a restart", kinds=(FLUSH, RESTART)),
)
"""What a long run explores besides."""


class MemoryMutant(NamedTuple):
    """A rule taken away. *breaks*: the property that a shortest trace breaks; *why*: what goes
    wrong, in a sentence."""

    name: str
    breaks: str
    why: str
    configuration: Memories
    mended: Memories


def _mutant(name: str, breaks: str, why: str, mended: Memories, **rules: Any) -> MemoryMutant:
    weak = mended._replace(name=name, rules=SHIPPED._replace(**rules))
    return MemoryMutant(name, breaks, why, weak, mended._replace(name=f"{name}, mended"))


MEMORY_MUTANTS = (
    _mutant(
        "text-alone",
        "ME",
        "TAKE compares the marker's text alone, which a snapshot or a copy brings back.",
        _LOST._replace(kinds=(RESTART,)),
        memory_in_script=False,
    ),
    _mutant(
        "memory-without-name",
        "ME",
        "The memory is matched without its name in front: after a promotion the old id stands in"
        " master_replid2.",
        _LOST._replace(kinds=(PROMOTE,)),
        memory_by_name=False,
    ),
    _mutant(
        "replica-votes",
        "ME",
        "TAKE does not ask for the role: a replica shows its master's id, and has its marker.",
        _LOST._replace(kinds=(STANDBY,)),
        master_in_script=False,
    ),
    _mutant(
        "memory-unwaited",
        "ME",
        "A lost memory is marked at once.",
        _LOST._replace(kinds=(FLUSH,)),
        quarantine=False,
    ),
    _mutant(
        "older-believed",
        "ME",
        "A client that met the newer memory admits the older one at once when it comes back.",
        _MOVED,
        older_is_lost=False,
    ),
    _mutant(
        "older-marker-believed",
        "ME",
        "A client that met the newer marker admits the older one at once when it comes back in the"
        " same memory.",
        _SWAPPED,
        older_marker_is_lost=False,
    ),
    _mutant(
        "any-marker-ends-a-loss",
        "ME",
        "While a loss is pending any marker that names the memory counts: also one that was swapped"
        " away and back.",
        _SWAPPED,
        ended_by_later_marker=False,
    ),
    _mutant(
        "marked-over-nothing",
        "ME",
        "A marker is written where there is none, by one that has waited on that; somebody else"
        " marked, used and lost it since.",
        _TWICE._replace(kinds=(FLUSH,)),
        marked_over_blank=False,
    ),
    _mutant(
        "waits-before-blank",
        "ME",
        "Who writes a blank where there was nothing goes on with its wait, though that was marked,"
        " used and lost in between.",
        _TWICE._replace(kinds=(FLUSH,)),
        waits_from_blank=False,
    ),
    _mutant(
        "link-alone",
        "ME",
        "A connection goes on asking for votes and counting them by what it knew, though another"
        " one of its client saw the loss.",
        _SWAPPED,
        admission_shared=False,
    ),
    _mutant(
        "late-vote-counts",
        "ME",
        "A vote that was on its way counts, though its client has learned meanwhile that the node"
        " forgot.",
        _SWAPPED,
        counts_while_admitted=False,
    ),
    _mutant(
        "any-blank",
        "ME",
        "A blank names no memory: one that a snapshot brings back tells a fresh client that the"
        " wait is long over.",
        _FRESH._replace(kinds=(RESTART,)),
        blank_names_memory=False,
    ),
    _mutant(
        "waits-by-uptime",
        "ME",
        "A fresh client counts the wait from the server's start: another one that has run for long"
        " took over the name just now.",
        _MOVED._replace(fresh=(1,)),
        waits_from_look=False,
    ),
    _mutant(
        "promise-of-any-run",
        "ME",
        "Where nodes are never replicas, a new replication id is no loss, and the run id is not"
        " looked at: a restart passes.",
        _PROMISED._replace(kinds=(RESTART,)),
        promise_needs_run=False,
    ),
    _mutant(
        "floor-left-out",
        "M",
        "Who marks a node after its wait sets no floor.",
        _TOKENS._replace(lag=0, ticks=0),
        floor=False,
    ),
    _mutant(
        "floor-by-own-clock",
        "M",
        "The floor is made from the clock of the node that has just booted, which is behind.",
        _TOKENS,
        floor_by_others=False,
    ),
    _mutant(
        "replace-without-floor",
        "M",
        "`redlock init --replace` writes markers without a floor, also on a node that forgot.",
        _REPLACED,
        replace_floor=False,
    ),
    _mutant(
        "max-ttl-first",
        "ME",
        "max_ttl is raised on a node before wait_ttl is on all: a quarantine asks one that was not"
        " reached yet.",
        _RAISED,
        wait_first=False,
    ),
    _mutant(
        "waits-by-max-ttl",
        "ME",
        "A quarantine waits for the largest max_ttl that it was told; the raise reaches the others"
        " after they were asked.",
        _VERIFIED,
        waits_by_wait_ttl=False,
    ),
    _mutant(
        "founded-by-majority",
        "ME",
        "A majority that answers and is blank founds a cluster: one node flushed, one never marked,"
        " one cut off.",
        _BEGUN,
        founds_by_all=False,
    ),
    _mutant(
        "founded-over-time",
        "ME",
        "All nodes were blank when they were asked, but not at one instant.",
        _BEGUN,
        founds_at_once=False,
    ),
    _mutant(
        "votes-while-founding",
        "ME",
        "A vote is asked for when the first node is marked; it forgets, and all look new again.",
        _BEGUN,
        votes_by_majority=False,
    ),
    _mutant(
        "blank-by-client",
        "ME",
        "A blank has the client's nonce alone: a MARK that executes twice puts back the text that"
        " somebody has waited on.",
        _TWICE._replace(kinds=(FLUSH,)),
        blank_by_node=False,
    ),
)
"""What every run must refute."""
