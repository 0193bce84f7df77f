"""A wait is never silent: after a second a line on stderr tells for whom or what it waits, and
another one whenever that changes.

A thread beside the wait looks by itself, through the coordinator that waits, and writes nothing on
any node. It never waits for whoever should read its lines.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Self

import redlock
from redlock.cli.nodes import look
from redlock.cli.screen import who
from redlock.core.quorum import majority
from redlock.core.remedies import advice, alike, told
from redlock.diagnose import diagnose, is_hopeless
from redlock.errors import ConfigurationError, RedlockError
from redlock.observe import Event, TryFailed
from redlock.supervise import say_if_heard
from redlock.transport.clock import now
from redlock.transport.lasting import UNKNOWN_NAME

__all__ = ["Waiting", "patience"]

_FIRST, _FIRST_LINE, _EVERY = 0.4, 1.0, 0.5
"""Seconds until the first look, which may take as long as nodes are silent; until its line; and
between two: less would be noise where a lock changes hands often."""
_NAMES_FOR = 10.0
"""Seconds for which nodes whose names are not known are waited for, if none of them is."""


@contextlib.contextmanager
def patience(text: str) -> Iterator[None]:
    """Say *text* if what is done within is not done after a second."""
    timer = threading.Timer(_FIRST_LINE, say_if_heard, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Waiting:
    """Tells of the wait for *resource*, from entering until `over`, or leaving; *what* opens its
    lines. *idle*: why it has not got what is free. *holders*: tell of
    them, and not only of nodes that do not vote.

    *nodes*: how they were typed. Where nothing but another node list would end the wait well, it
    closes *locks*, and leaving raises ConfigurationError.
    """

    def __init__(
        self,
        locks: redlock.Redlock,
        nodes: Sequence[str],
        resource: str,
        *,
        what: str = "waiting for",
        holders: bool = True,
        idle: str = "others try for it too",
    ) -> None:
        self._hopeless: str | None = None
        self._locks = locks
        self._nodes = nodes
        self._resource = resource
        self._head = f"{what} {resource!r}"
        self._over = threading.Event()
        self._guard = threading.RLock()
        self._failed = ""
        self._idle = idle
        self._holders = holders
        self._free_before = False
        self._told: object = None
        self._known: dict[int, str] = {}
        self._lasting: dict[int, str] = {}
        self._thread = threading.Thread(target=self._run, name="redlock-waiting", daemon=True)

    def __enter__(self) -> Self:
        self._began_at = now()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over()
        # Not for ever: it may ask silent nodes. It ends with the close.
        self._thread.join(_EVERY)
        if self._hopeless is not None:
            raise ConfigurationError(self._hopeless)

    def over(self) -> None:
        """Nobody waits any more; no line comes after this."""
        self._over.set()
        with self._guard:  # Its last line is out.
            pass

    def hear(self, event: Event) -> None:
        """Take note of what nodes said to a try: a look does not show what only a write meets."""
        if isinstance(event, TryFailed) and event.resource == self._resource:
            self._failed = event.votes.partition("; ")[2]

    def _run(self) -> None:
        pause = _FIRST
        while not self._over.wait(pause):
            pause = _EVERY
            with contextlib.suppress(RedlockError):  # Closed, perhaps, as the wait is over.
                self._look()
            if self._hopeless is not None:
                self._locks.close()
                return

    def _look(self) -> None:
        status = self._locks.status(self._resource)
        free, self._free_before = self._free_before, status.held is False
        if not self._holders and status.held is not None:
            if self._told is not None:
                self._tell(self._head, f"{self._head}: a majority answers")
            return
        if status.held:
            self._tell((status.holder, status.fencing_token), self._held(status))
            return
        reports = look(self._locks)
        silent = {index: each for index, each in enumerate(reports) if not each.votes}
        needed, votes = majority(len(reports)), len(reports) - len(silent)
        if votes >= needed:
            failed, self._failed = self._failed, ""
            if failed:
                self._tell(alike(failed), told(f"{self._head}: {failed}", (), do=advice(failed)))
            elif free:  # Twice in a row: once, and it was only just given back.
                self._tell(self._idle, f"{self._head}: it is free; {self._idle}")
            return
        lasting = self._diagnose({index: alike(each.reason) for index, each in silent.items()})
        reasons = [(each.node, lasting.get(index, each.reason)) for index, each in silent.items()]
        text = told(f"{self._head}: {votes} of {len(reports)} nodes vote, {needed} needed", reasons)
        if is_hopeless(lasting, len(reports)):
            unknown = all(why == UNKNOWN_NAME for why in lasting.values())
            if not unknown or now() - self._began_at >= _NAMES_FOR:
                self._hopeless = f"gave up {text}"
                return
        self._tell([(node, alike(reason)) for node, reason in reasons], text)

    def _diagnose(self, silent: dict[int, str]) -> dict[int, str]:
        """Of nodes with their reasons, those that will stay as they are; nobody is dialled again
        for the same reason."""
        new = [index for index, reason in silent.items() if self._known.get(index) != reason]
        found = {index: why for index, why in self._lasting.items() if index in silent}
        for index in new:
            found.pop(index, None)
        self._known, self._lasting = silent, found | diagnose(self._nodes, new)
        return self._lasting

    def _held(self, status: redlock.ResourceStatus) -> str:
        token = f", fencing token {status.fencing_token}" if status.fencing_token else ""
        if status.ttl_left is None:
            left = "WITHOUT AN EXPIRY: `redlock release --force` ends it"
        else:
            left = f"{status.ttl_left:.3g} s left unless it renews"
        return f"{self._head}: held by {who(status.held_by, status.holder)}{token}, {left}"

    def _tell(self, key: object, text: str) -> None:
        if self._told is None:
            self._over.wait(max(0.0, self._began_at + _FIRST_LINE - now()))
        with self._guard:
            if key != self._told and not self._over.is_set():
                self._told = key
                say_if_heard(text)
