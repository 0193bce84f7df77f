"""What a grant names, and the commands that take it, keep it and give it back.

They are made here and nowhere else, so that whatever is asked of a node in one grant's name goes by
the same keys, owner, token and life of the fence. Who asks when, and what an answer means, is the
flows' business.
"""

from __future__ import annotations

from collections.abc import Iterable

from redlock.core.commands import Free, Take
from redlock.core.effects import Request
from redlock.core.line import name_of

__all__ = ["Grant"]

_TTL_MIN = 0.001
"""Seconds: a node takes no expiry below one millisecond."""


class Grant:
    """A resource by its two keys, for *owner* under *token*: what a try asks for, and a lease is.

    Never changed: a try whose token was too small goes on `under` a larger one. *fence_ttl*: how
    many seconds a fence outlives whatever raised it. *note*: what the nodes keep with it, and show.
    *place*: in the queue (`redlock.core.line`): the text of one who waits, "-" of one who does not
    and respects it, nothing of one who knows no queue.
    """

    __slots__ = (
        "fence_key",
        "fence_ttl",
        "lock_key",
        "note",
        "owner",
        "place",
        "resource",
        "token",
    )

    def __init__(
        self,
        resource: str,
        lock_key: str,
        fence_key: str,
        owner: str,
        token: int,
        fence_ttl: float,
        note: str = "",
        place: str = "",
    ) -> None:
        self.resource = resource
        self.lock_key = lock_key
        self.fence_key = fence_key
        self.owner = owner
        self.token = token
        self.fence_ttl = fence_ttl
        self.note = note
        self.place = place

    def under(self, token: int) -> Grant:
        """The same for another token."""
        keys = self.resource, self.lock_key, self.fence_key
        return Grant(*keys, self.owner, token, self.fence_ttl, self.note, self.place)

    def take(self, ttl: float) -> Take:
        """Ask for it, for *ttl* seconds."""
        return Take(
            self.lock_key,
            self.fence_key,
            self.owner,
            self.token,
            ttl=ttl,
            fence_ttl=self.fence_ttl,
            place=self.place,
            note=self.note,
        )

    def extension(self, ttl: float) -> Take:
        """Ask that it stands for *ttl* seconds from now; it is put back where it is missing."""
        return self._confirm(ttl, "extend")

    def verification(self, ttl: float) -> Take:
        """Ask whether it stands, and change nothing."""
        return self._confirm(ttl, "verify")

    def free(self, *, unattended: bool = False, failed: bool = False) -> Free:
        """Give it back; *unattended*: nobody will be there to read the answer. *failed*: it was
        never held, so our place stays in the queue, and whoever is first there had better look."""
        name = name_of(self.place)
        return Free(
            self.lock_key,
            self.fence_key,
            self.owner,
            self.token,
            fence_ttl=self.fence_ttl,
            place=self.place and ("?" if failed else name or "-"),
            unattended=unattended,
        )

    def releases(
        self, nodes: Iterable[int], *, unattended: bool = False, failed: bool = False
    ) -> tuple[Request, ...]:
        """One `free` for each of *nodes*, to be written however late."""
        free = self.free(unattended=unattended, failed=failed)
        # In the order of the nodes: a simulator must be able to play it again.
        return tuple([Request(node, free, float("inf")) for node in sorted(nodes)])

    def _confirm(self, ttl: float, mode: str) -> Take:
        return Take(
            self.lock_key,
            self.fence_key,
            self.owner,
            self.token,
            ttl=max(ttl, _TTL_MIN),
            fence_ttl=self.fence_ttl,
            mode=mode,
            note=self.note,
        )
