"""Rules of admission broken in this process, for the controls: with one of them gone, its way
must lead to a violation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import redlock.core.founding
import redlock.core.quarantine
import redlock.initialise
from chaos.live.plants import rewrite
from redlock.core.admission import Admission, Standing, State
from redlock.core.commands import MARK, PEEK, TAKE
from redlock.core.founding import marked_like
from redlock.core.identity import Identity, Marker
from redlock.core.quarantine import put_blank
from redlock.core.roster import Roster

__all__ = ["BREAKS", "break_rule"]

founding_module: Any = redlock.core.founding
quarantine_module: Any = redlock.core.quarantine
initialise_module: Any = redlock.initialise
admission: Any = Admission

_CHECK = (
    "if not string.find(info, 'role:master\\r', 1, true)"
    " or not string.find(info, 'master_replid:' .. memory .. '\\r', 1, true) then"
)


def break_rule(name: str) -> None:
    """Break it until the process ends."""
    BREAKS[name]()


def _text_alone() -> None:
    """Rule 1: a node votes whose marker's text is right, whatever memory it has."""
    for script in (TAKE, PEEK):
        rewrite(script, script.source.replace(_CHECK, "if false then"))
    Marker.names = lambda self, identity: True  # type: ignore[method-assign]


def _old_names_alone() -> None:
    """Rule 1 for markers of the earlier format: they name a run, whatever became of it."""
    names = Marker.names

    def by_run(self: Marker, identity: Identity) -> bool:
        return True if self.before else names(self, identity)

    Marker.names = by_run  # type: ignore[method-assign]
    admission._how_returned = lambda self, record, identity, marker: None


def _no_wait() -> None:
    """Rule 3: a node that forgot votes at once."""
    quarantine_module.quarantine_span = lambda max_ttl: 0.0


def _no_floor() -> None:
    """Rule 3: a node that forgot grants any token."""
    quarantine_module.floor = lambda roster, node, asked, at: 0


def _replaced_without_floor() -> None:
    """Rule 3: `init --replace` writes no floor."""
    initialise_module.FLOOR_AHEAD = -1e9


def _older_believed() -> None:
    """Rule 4: a client that met the newer memory takes the older one back."""
    admission._how_returned = lambda self, record, identity, marker: None


def _max_ttl_waited() -> None:
    """Rule 5: a quarantine waits for the longest lock that the others take now, not for what
    they were told to wait for."""
    kin = Roster.kin

    def promised_now(self: Roster, node: int) -> dict[int, Marker]:
        return {
            other: replace(marker, wait_ttl=marker.max_ttl)
            for other, marker in kin(self, node).items()
        }

    Roster.kin = promised_now  # type: ignore[method-assign]


def _founded_by_a_majority() -> None:
    """Rule 6: the nodes that answer found the cluster, if they are a majority."""

    def blank(roster: Roster) -> bool:
        known = [
            record
            for record in roster.records
            if record.identity is not None and record.fault is None
        ]
        return len(known) >= roster.needed and all(record.has_blank for record in known)

    def standing(roster: Roster, node: int, at: float) -> Standing:
        record = roster.records[node]
        identity = record.identity
        assert identity is not None
        if not record.has_blank:
            return put_blank(roster, node, at)
        if not blank(roster) and record.founding != (identity.memory, identity.marker):
            return Standing(State.UNKNOWN)
        mark = marked_like(roster.new_marker(identity), identity).write(identity)
        return Standing(State.MARK, mark=mark)

    founding_module.confirmed = blank
    founding_module.standing = standing


def _eviction_unseen() -> None:
    """Nobody looks at the policy, or at how many keys were evicted."""
    parse = Identity.parse

    def blind(info: Mapping[str, str], marker: str, clock: float = 0.0, mute: str = "") -> Identity:
        return replace(parse(info, marker, clock, mute), policy="noeviction", evicted=0)

    Identity.parse = blind  # type: ignore[method-assign]


def _blank_without_time() -> None:
    """A blank is finished by the client alone, so that a command which executes twice gives the
    same text twice."""
    rewrite(
        MARK,
        MARK.source.replace(
            "string.format('%.0f %.0f', math.max(now, tonumber(string.sub(stamp, 2))), now)",
            "'1 1'",
        ),
    )


BREAKS: dict[str, Callable[[], None]] = {
    "text alone": _text_alone,
    "old names alone": _old_names_alone,
    "no wait": _no_wait,
    "no floor": _no_floor,
    "replaced without floor": _replaced_without_floor,
    "older believed": _older_believed,
    "max_ttl waited": _max_ttl_waited,
    "founded by a majority": _founded_by_a_majority,
    "eviction unseen": _eviction_unseen,
    "blank without time": _blank_without_time,
}
