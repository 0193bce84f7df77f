"""Requests, releases and replies that come late, or whose connection ends before them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from chaos.live.crew import Timeout
from chaos.live.directed.common import (
    NODES,
    holds,
    nothing_left,
    on_all,
    scripts_run,
    takes,
    uses,
    warm,
)
from chaos.live.nemesis import (
    KilledClient,
    StoppedClient,
    among,
    cut_before_reply,
    held_back,
    late_replies,
)
from chaos.live.play import Play
from redlock.core.events import TryFailed, TryStarted

__all__ = ["late_release", "late_requests", "reply_cut", "stale_replies"]


def reply_cut(play: Play) -> None:
    """S13: each connection ends before its first reply; the retry finds its own lock, and counts
    it."""
    play.enter("before")
    takes(play, "c1")
    play.client("c1").do("release")
    since = play.here()
    fault = play.inflict(cut_before_reply(among(["c1"], NODES)))
    play.enter("during")
    done = play.client("c1").order("acquire", timeout=20.0)
    failed = play.event(TryFailed, "c1", since=since)
    play.heal(fault)
    took = done(30.0)
    play.claim("every first try failed, and a retry got the lock", took == "ok", failed.votes[:60])
    play.enter("after")
    uses(play, "c1")
    play.client("c1").do("release")
    nothing_left(play)


def late_requests(play: Play) -> None:
    """S14: requests arrive when their client has given up, or is dead."""
    play.enter("before")
    takes(play, "c1")
    play.client("c1").do("release")
    nothing_left(play, "a healthy release leaves nothing")
    fault = play.inflict(held_back(among(["c1"], (1, 2, 3))))
    play.enter("during")
    took = takes(play, "c1", timeout=0.5)
    play.claim("the client gave up", took in ("unavailable", "contended"), took)
    before = scripts_run(play, (1, 2, 3))
    play.heal(fault)
    play.until(
        lambda: all(
            after > one for after, one in zip(scripts_run(play, (1, 2, 3)), before, strict=True)
        ),
        "late requests",
    )
    nothing_left(play, "its release came behind its late request")
    took = takes(play, "c2", timeout=5.0)
    play.claim("the lock is free", took == "ok", took)
    play.client("c2").do("release")
    since = play.here()
    fault = play.inflict(held_back(among(["c1"], NODES)))
    play.client("c1").order("acquire", timeout=5.0)
    play.event(TryStarted, "c1", since=since)
    play.inflict(KilledClient(clients=("c1",)))
    play.heal(fault)
    took = takes(play, "c2", timeout=10.0)
    play.claim("a dead client's late lock lasts for its ttl at most", took == "ok", took)
    play.enter("after")
    play.client("c2").do("release")


def late_release(play: Play) -> None:
    """S15: the release of a first try arrives while a second one, of the same program, holds the
    lock."""
    play.enter("before")
    takes(play, "c1")
    on_all(play, "c1")
    fault = play.inflict(held_back(among(["c1"], NODES)))
    play.enter("during")
    play.client("c1").do("release")
    play.inflict(KilledClient(clients=("c1",)))
    took = takes(play, "c2", timeout=20.0)
    play.claim("the second try gets the lock when the first has expired", took == "ok", took)
    on_all(play, "c2")
    before = scripts_run(play, NODES)
    play.heal(fault)
    play.until(
        lambda: all(
            after > one for after, one in zip(scripts_run(play, NODES), before, strict=True)
        ),
        "the late releases",
    )
    took = takes(play, "c3", timeout=1.0)
    uses(play, "c2")
    holds(play, "c2", "the second try still holds")
    play.claim("nobody else was granted the lock", took == "contended", took)
    play.enter("after")
    play.client("c2").do("release")


def stale_replies(play: Play) -> None:
    """S08b, F12: grants lie at the client while it is stopped for longer than their validity."""
    play.enter("before")
    warm(play, "c1", "c2")
    done, stopped = _stopped_on_its_replies(play)
    play.enter("during")
    took = takes(play, "c2", timeout=20.0, auto_extend=True)
    play.claim("somebody else is granted the lock meanwhile", took == "ok", took)
    uses(play, "c2")
    play.heal(stopped)
    took = done(30.0)
    if took == "ok":
        play.client("c1").do("look")
    play.claim("replies that outlived their validity are no grant", took != "ok", took)
    play.enter("after")
    play.client("c2").do("release")


def _stopped_on_its_replies(play: Play) -> tuple[Callable[[float], str], str]:
    """c1 asked, all nodes granted, their replies are at its sockets, and it is stopped. Again if
    it was not fast enough."""
    for _ in range(5):
        since = play.here()
        held = play.inflict(late_replies(among(["c1"], NODES)))
        done = play.client("c1").order("acquire", timeout=0.0)
        play.event(TryStarted, "c1", since=since)
        with contextlib.suppress(Timeout):
            play.until(
                lambda: len(play.keys()) == len(NODES), "the requests to be executed", timeout=0.4
            )
        stopped = play.inflict(StoppedClient(clients=("c1",)))
        if len(play.keys()) == len(NODES):
            play.heal(held)
            return done, stopped
        play.heal(stopped)
        play.heal(held)
        done(30.0)
    raise Timeout("c1 gave up each time before it was stopped")
