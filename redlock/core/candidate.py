"""Who stands for election: a name and a little information, kept on the nodes with the grant, and
read by whoever asks who leads.

What is shown never suffices to release the lock: of the owner, nodes tell a quarter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redlock.core.commands import TOKEN_MAX
from redlock.core.policy import check_text
from redlock.core.quorum import Kind, Tally
from redlock.errors import ConfigurationError, shown

__all__ = ["INFO_MAX", "NAME_MAX", "Candidate", "Leader", "leader_of"]

NAME_MAX = 512
"""Bytes of a candidate's name."""
INFO_MAX = 512
"""Bytes of its information, as JSON: an address and a version, and not a configuration."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as a majority of the nodes says.

    *info*: what the candidate tells of itself. *since*: when it asked for this term, seconds since
    the epoch by its own wall clock. Informational: it may have ended by the time this is read.
    """

    candidate: str
    info: Mapping[str, Any]
    fencing_token: int
    since: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One that stands for election. Raises ConfigurationError for what nodes cannot keep."""

    name: str
    info: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(init=False, repr=False)
    """Both as JSON, as nodes keep it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(
                f"candidate={shown(self.name)} must be a name, and not be empty"
            )
        check_text("candidate", self.name)
        name = _json("candidate", self.name)
        if len(name) - 2 > NAME_MAX:
            raise ConfigurationError(
                f"candidate has {len(name) - 2} bytes, and may have {NAME_MAX}: put what others"
                " should know into info"
            )
        if not isinstance(self.info, Mapping) or not all(isinstance(key, str) for key in self.info):
            raise ConfigurationError(
                f"info={shown(self.info)} must be a mapping with text as its keys"
            )
        info = _json("info", dict(self.info))
        if len(info) > INFO_MAX:
            raise ConfigurationError(
                f"info has {len(info)} bytes as JSON, and may have {INFO_MAX}: give an address"
                " where more can be asked"
            )
        # A copy: what the caller changes later is not on the nodes.
        object.__setattr__(self, "info", json.loads(info))
        object.__setattr__(self, "text", f"[{name.decode()},{info.decode()}]")

    def note(self, wall_us: int) -> str:
        """What nodes keep with a grant that was asked for at *wall_us*."""
        return f"{wall_us}:{self.text}"


def leader_of(tally: Tally) -> Leader | None:
    """Who leads, as the votes of a look say: a majority shows the same grant of a candidate; None
    otherwise."""
    holders = [vote.holder for vote in tally.votes if vote is not None and vote.kind is Kind.BUSY]
    value = max(sorted(set(holders)), key=holders.count, default="")
    if holders.count(value) < tally.needed:
        return None
    _, token, since, text = [*value.split(":", 3), "", "", ""][:4]
    try:
        noted = json.loads(text, parse_constant=int)
    except (ValueError, RecursionError):  # A lock without a note, or a foreign one: nobody leads.
        return None
    match noted:
        case [str(name), dict(info)] if _is_number(token) and _is_number(since):
            return Leader(name, info, int(token), int(since) / 1e6)
    return None


def _is_number(text: str) -> bool:
    """Whether it is one that we write: a token, or microseconds since the epoch."""
    return text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= TOKEN_MAX


def _json(name: str, value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{name} cannot be written as JSON, so give text and numbers: {error}"
        ) from None
