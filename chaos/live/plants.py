"""Planted bugs for controls: one rule of the library broken in a client process, to show that the
campaign can fail.

Real clients with the rule gone, on real servers: what they do wrong must be found by the same
checker from the same kind of history. A process stays broken until its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import redlock.core.acquire
import redlock.core.quarantine
from redlock import asyncio_election, election
from redlock.core import commands
from redlock.core.commands import FREE, TAKE, Script, Take
from redlock.core.line import Lines
from redlock.core.quorum import Kind, Vote
from redlock.core.roster import Roster
from redlock.electing import TermBase
from redlock.transport.clock import Entropy
from redlock.transport.greeting import Gate
from redlock.transport.link import Link
from redlock.transport.sockets import Sockets
from redlock.transport.threads import Worker

__all__ = ["PLANTS", "plant", "rewrite"]

acquire_module: Any = redlock.core.acquire
quarantine_module: Any = redlock.core.quarantine

_INCR = """
local held = redis.call('GET', KEYS[1])
if held then
  return {0, tonumber(redis.call('GET', KEYS[2]) or 0), redis.call('PTTL', KEYS[1]), '=' .. held, 2}
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[4])
return redis.call('INCR', KEYS[2])
"""
_DELETE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
  return redis.call('DEL', KEYS[1])
end
return held and 2 or 0
"""


def plant(names: Iterable[str]) -> None:
    """Break these rules in this process."""
    for name in names:
        PLANTS[name]()


def rewrite(script: Script, source: str) -> None:
    """Give a script another text; refuses one that changes nothing."""
    if source == script.source:
        raise RuntimeError(
            f"{script.name}.lua has changed: this plant does not find its place any more"
        )
    script.source = source
    script.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _incr_token() -> None:
    """The token is the largest of the counters that a majority incremented (docs/protocol.md
    9.7)."""
    rewrite(TAKE, _INCR)
    rewrite(FREE, _DELETE)
    read = Take.read

    def read_count(self: Take, answer: Any) -> Vote:
        match answer:
            case int(count):
                return Vote(Kind.GRANTED, count)
        return read(self, answer)

    attempt = acquire_module._Attempt
    grant = attempt._grant

    def grant_count(self: Any, sent_at: float, until: float, now: float) -> None:
        votes = self._rounds[-1].tally.votes
        token = max(vote.fence for vote in votes if vote is not None and vote.kind is Kind.GRANTED)
        self._wanted = self._wanted.under(token)
        grant(self, sent_at, until, now)

    Take.read = read_count  # type: ignore[method-assign]
    attempt._grant = grant_count


def _non_strict() -> None:
    """A node also grants a token that equals its fence, and proposals have no random part (max()
    instead of a raise)."""
    rewrite(TAKE, TAKE.source.replace("refused = low >= number", "refused = low > number"))

    def propose(source: Any, last_fence: int) -> int:
        wall: int = source.wall_us()
        return wall if wall > last_fence else last_fence + 1

    acquire_module.propose = propose


def _top_up_without_fence() -> None:
    """An extension puts a missing lock back, whoever has been there since."""
    rewrite(TAKE, TAKE.source.replace("fence > number)", "false)"))


def _reused_nonce() -> None:
    """Every try of every client has the same owner: a late release of one deletes the lock of
    another."""
    Entropy.owner = lambda self: "0" * 32  # type: ignore[method-assign]


def _no_validity_check() -> None:
    """A grant counts however late its deciding reply came, and nobody looks at the clock
    afterwards."""
    original = acquire_module.valid_until

    class Endless(float):
        def __gt__(self, other: object) -> bool:
            return True

    acquire_module.valid_until = lambda *arguments: Endless(original(*arguments))


def _no_quarantine() -> None:
    """A node that forgot votes at once."""
    quarantine_module.quarantine_span = lambda max_ttl: 0.0


def _any_cluster() -> None:
    """Whatever a node's marker says of its cluster, it may vote."""
    Roster.foreign = lambda self, marker: None  # type: ignore[method-assign]


def _threads_that_die() -> None:
    """A thread ends with the first exception, and asking for one that cannot be had raises into
    whoever asked."""
    begin = Worker._begin

    def work(self: Worker) -> None:
        while self._goes_on(threading.current_thread()):
            self._step()

    def raising(self: Worker) -> None:
        problem = begin(self)
        if problem is not None:
            raise RuntimeError(problem)

    Worker._work = work  # type: ignore[method-assign]
    Worker._begin = raising  # type: ignore[method-assign]
    Link._ask_dial = _ask_dial  # type: ignore[method-assign]


def _ask_dial(self: Link, now: float) -> None:
    if not self.up and not self.dialling and now >= self.node.redial_at:
        self._greeting.gate = Gate.DIALLING
        self._dial()


def _dials_that_tell_nobody() -> None:
    """Who asked for a connection that could not be made is not told."""
    arrive = Sockets.arrive

    def connections_alone(self: Sockets, node: int, connection: Any, sock: Any, fault: Any) -> None:
        if connection is not None:
            arrive(self, node, connection, sock, fault)

    Sockets.arrive = connections_alone  # type: ignore[method-assign]


def _released_early() -> None:
    """The lock is given back as soon as the work is told to stop, and the work is not waited
    for."""
    for kind in (election.Term, asyncio_election.Term):
        _release_when_told(kind)


def _release_when_told(kind: Any) -> None:
    told = kind._told_stop

    def tell_and_release(self: Any) -> None:
        told(self)
        release = self._lease.release
        if hasattr(self, "_loop"):
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(release()))
        else:
            threading.Thread(target=release, daemon=True).start()

    kind._told_stop = tell_and_release


def _believed_flag() -> None:
    """Whether it leads is what somebody has noted, and no clock is read."""
    TermBase.is_leader = lambda self: self._mandate.reason is None  # type: ignore[method-assign]


def _dies_when_told() -> None:
    """The process is gone in the instant in which it hears that the lock is free for it."""
    Lines.told = lambda self, name: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]


def _hears_nothing() -> None:
    """Every wake-up arrives, and is lost: the nodes know of a listener, and nobody is woken."""
    Lines.told = lambda self, name: None  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "incr token": _incr_token,
    "non-strict": _non_strict,
    "top-up without fence": _top_up_without_fence,
    "reused nonce": _reused_nonce,
    "no validity check": _no_validity_check,
    "no quarantine": _no_quarantine,
    "any cluster": _any_cluster,
    "threads that die": _threads_that_die,
    "dials that tell nobody": _dials_that_tell_nobody,
    "released early": _released_early,
    "believed flag": _believed_flag,
    "dies when told": _dies_when_told,
    "hears nothing": _hears_nothing,
}

# The one object whose text the links read; a plant elsewhere would change nothing.
assert commands.TAKE is TAKE
