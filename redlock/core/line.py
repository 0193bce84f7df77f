"""Whose turn it is among the waiters of one coordinator, and their places in the queues of the
nodes.

Everybody who wants a lock draws a *place*: a ticket, which is an instant by the nodes' clocks, and
a name. Of the places of one coordinator only the first of each lock asks the nodes, and stands in
their queues; so a thousand waiters of a process cost the nodes as much as one. A place is told by a
release that the lock is free for it, and by its predecessor here that it is the first now. Either
may never come, so a place looks by itself as well. Pure; several threads may use it if *guard*
keeps them apart. Order is all that is decided here: whoever is wrong about it waits longer, or asks
in vain.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = [
    "GIVE_WAY",
    "LOOK_MAX",
    "LOOK_MIN",
    "WAITERS_MAX",
    "Line",
    "Lines",
    "Place",
    "look_after",
    "name_of",
]

WAITERS_MAX = 4096
"""Waiters of one coordinator for one lock; thousands of tasks, each of which is woken only when it
is the first."""
LOOK_MIN, LOOK_MAX = 0.04, 0.2
"""Seconds between two looks of one who has just come, and of one who has waited for long. A message
may be lost, and who was to come next may have died: whoever waits finds out by looking."""
_LOOK_SHARE = 0.2
"""Looks become rarer with the time that one has waited: what a look can win is a small part of
it."""
CROWDED_FOR = 1.0
"""Seconds for which a lock that was found taken is looked at before it is tried: a try in vain has
to be given back."""
GIVE_WAY = 0.0005
"""Seconds after which one who comes to such a lock goes to the end of the queue: most come from its
release, and whoever that has called is faster if the nodes have nothing else to do."""
CROWDS_MAX = 1024
"""Locks of which that is remembered."""
STALLED = 1.0
"""Seconds past the end of its wait after which the first of a line counts as gone: its thread died
at a bad moment, or was stopped, and others of the process wait."""


class Place:
    """One waiter. *ticket*: microseconds since the epoch, by the nodes' clocks; smaller is sooner.

    *told*: a release said that the lock is free for it. *rung*: something happened that its flow
    should see; `wake` is what a driver sets to hear of it. *due_at*: when its flow looks next by
    itself, at the latest.
    """

    __slots__ = ("due_at", "line", "name", "rung", "ticket", "told", "wake")

    def __init__(self, line: Line, name: str, ticket: int, now: float) -> None:
        self.line = line
        self.name = name
        self.ticket = ticket
        self.due_at = now
        self.told = False
        self.rung = False
        self.wake: Callable[[], object] | None = None

    @property
    def text(self) -> str:
        """How it goes to the nodes."""
        return f"{self.ticket}{' ' if self.line.lines.hears else '~'}{self.name}"

    def ring(self) -> None:
        """Wake its flow, or have it not fall asleep."""
        self.rung = True
        if self.wake is not None:
            self.wake()


class Line:
    """The places of one lock, in the order of their tickets: who tried first joins later than
    others that came behind, and did not have to try."""

    __slots__ = ("key", "lines", "places")

    def __init__(self, lines: Lines, key: str) -> None:
        self.lines = lines
        self.key = key
        self.places: deque[Place] = deque()

    def enter(self, place: Place) -> None:
        """Stand behind all who came before."""
        places = self.places
        at = len(places)
        while at and places[at - 1].ticket > place.ticket:
            at -= 1
        places.insert(at, place)


class Lines:
    """The lines of one coordinator, which *name* names on the nodes: no dot in it, and no space."""

    def __init__(
        self, name: str, guard: contextlib.AbstractContextManager[Any] | None = None
    ) -> None:
        self.name = name
        self.hears = False
        """Whether wake-ups reach us: without, nodes must not take us for gone as nobody listens."""
        self._guard = guard if guard is not None else contextlib.nullcontext()
        self._lines: dict[str, Line] = {}
        self._places: dict[str, Place] = {}
        self._drawn = 0
        self._crowded: dict[str, float] = {}

    def join(self, key: str, ticket: int, now: float, label: str = "") -> Place | None:
        """Draw a place for the lock at *key*; None: there are as many waiters as there may be.

        *label* is shown to whoever asks who waits.
        """
        with self._guard:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = Line(self, key)
            elif len(line.places) >= WAITERS_MAX:
                return None
            self._drawn += 1
            name = f"{self.name}.{self._drawn}{' ' if label else ''}{label}"
            place = Place(line, name, ticket, now)
            line.enter(place)
            self._places[name] = place
            return place

    def leave(self, place: Place) -> None:
        """It waits no more: the next one here is told. May be called again."""
        with self._guard:
            self._places.pop(place.name, None)
            place.wake = None
            places = place.line.places
            was_first = bool(places) and places[0] is place
            with contextlib.suppress(ValueError):
                places.remove(place)
            if not places:
                if self._lines.get(place.line.key) is place.line:
                    del self._lines[place.line.key]
                return
            following = places[0] if was_first else None
        if following is not None:
            following.ring()

    def is_first(self, place: Place, now: float) -> bool:
        """Whether *place* is to ask the nodes; a first one that is long overdue loses that."""
        place.due_at = now
        with self._guard:
            places = place.line.places
            while places and places[0] is not place and now > places[0].due_at + STALLED:
                self._places.pop(places.popleft().name, None)
            if place.name not in self._places:  # Others took it for gone: it asks by itself.
                return True
            return places[0] is place

    def crowd(self, key: str, now: float) -> None:
        """Somebody else had the lock at *key*, or its turn."""
        if len(self._crowded) >= CROWDS_MAX and key not in self._crowded:
            self._crowded.clear()
        self._crowded[key] = now + CROWDED_FOR

    def calm(self, key: str) -> None:
        """The lock at *key* was there for whoever asked."""
        self._crowded.pop(key, None)

    def is_crowded(self, key: str, now: float) -> bool:
        """Whether somebody else is likely to have it, or to be next."""
        if self._lines and key in self._lines:
            return True
        return bool(self._crowded) and self._crowded.get(key, now) > now

    def told(self, name: str) -> None:
        """A node says that a lock is free for the place *name*; "?" in front: that it may be."""
        place = self._places.get(name.removeprefix("?"))
        if place is not None and not place.told:
            place.told = name[:1] != "?"
            if place.told or not place.rung:
                place.ring()

    def heard(self) -> None:
        """Wake-ups can be heard from now on, and some may have been missed: let all look who are
        first."""
        with self._guard:
            firsts = [line.places[0] for line in self._lines.values() if line.places]
        for place in firsts:
            place.ring()


def name_of(text: str) -> str:
    """The name in the text of a place; nothing of what is none."""
    return text.lstrip("0123456789")[1:]


def look_after(waited: float) -> float:
    """Seconds until the next look of one who has waited for *waited* seconds."""
    return min(max(LOOK_MIN, waited * _LOOK_SHARE), LOOK_MAX)
