"""An admission that several threads may tell and ask."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from redlock.core.admission import Admission
from redlock.core.commands import Mark
from redlock.core.identity import Identity
from redlock.core.quorum import Fault
from redlock.core.standing import Standing

__all__ = ["GuardedAdmission"]


class GuardedAdmission(Admission):
    """An `Admission` that several threads may tell and ask."""

    def __init__(self, names: Sequence[str], **settings: Any) -> None:
        super().__init__(names, **settings)
        self._lock = threading.RLock()

    def seen(
        self,
        node: int,
        identity: Identity,
        at: float,
        *,
        asked_at: float | None = None,
        as_of: int | None = None,
    ) -> None:
        with self._lock:
            super().seen(node, identity, at, asked_at=asked_at, as_of=as_of)

    def marked(
        self, node: int, mark: Mark, stands: str, at: float, *, asked_at: float | None = None
    ) -> None:
        with self._lock:
            super().marked(node, mark, stands, at, asked_at=asked_at)

    def failed(self, node: int, fault: Fault) -> None:
        with self._lock:
            super().failed(node, fault)

    def standing(self, node: int, at: float) -> Standing:
        with self._lock:
            return super().standing(node, at)

    def outdated(self, node: int) -> bool:
        with self._lock:
            return super().outdated(node)

    def problem(self, since: float = float("-inf")) -> str | None:
        with self._lock:
            return super().problem(since)

    def out_of_reach(self, at: float, since: float = float("-inf")) -> str | None:
        with self._lock:
            return super().out_of_reach(at, since)

    def max_ttl(self) -> float | None:
        with self._lock:
            return super().max_ttl()

    def clock(self, at: float) -> float:
        with self._lock:
            return super().clock(at)
