"""Holders that stop, die, sleep or hang: what they believe when they wake, and what the store
lets them do."""

from __future__ import annotations

from chaos.figures import duration
from chaos.live.directed.common import find_leader, takes, touched
from chaos.live.nemesis import (
    Asked,
    KilledClient,
    StoppedClient,
)
from chaos.live.play import Play

__all__ = [
    "blocked_loop",
    "check_and_stop",
    "fork",
    "killed_holder",
    "max_hold",
    "stopped_holder",
    "suspend",
]


def stopped_holder(play: Play) -> None:
    """S34: the holder is stopped for longer than its ttl, and writes when it goes on."""
    play.enter("before")
    takes(play, "c1")
    play.client("c1").do("read")
    since = play.here()
    with play.broken(StoppedClient(clients=("c1",))):
        play.enter("during")
        touched(play, "c2", "c3", since=since)
    play.enter("after")
    _zombie(play)


def check_and_stop(play: Play) -> None:
    """S35: the holder is stopped between looking at its lease and writing."""
    play.enter("before")
    takes(play, "c1")
    play.client("c1").do("read")
    since = play.here()
    done = play.client("c1").order("check_and_write", stall=1.0)
    play.note("stalling", "c1", since=since)
    with play.broken(StoppedClient(clients=("c1",))):
        play.enter("during")
        touched(play, "c2", "c3", since=since)
    play.enter("after")
    wrote = done(30.0)
    play.claim("the write after the gap is refused", wrote == "refused", wrote)


def blocked_loop(play: Play) -> None:
    """S36: a coroutine blocks its event loop for longer than the ttl, and writes."""
    play.enter("before")
    takes(play, "c1", auto_extend=True)
    play.client("c1").do("read")
    since = play.here()
    play.enter("during")
    play.inflict(
        Asked(
            clients=("c1",),
            label="blocked loop",
            order={"what": "block", "seconds": 1.5 * play.ttl},
        )
    )
    touched(play, "c2", "c3", since=since)
    play.enter("after")
    _zombie(play)
    lapsed = play.lapsed("c1", since=since)
    play.claim("the loss is told as soon as the loop turns", lapsed)


def _zombie(play: Play) -> None:
    looked, wrote = play.client("c1").do("look"), play.client("c1").do("write")
    play.claim(
        "the holder does not believe in its lease when it wakes", looked == "not held", looked
    )
    play.claim("its late write is refused", wrote == "refused", wrote)


def killed_holder(play: Play) -> None:
    """S37: kill -9 of the holder: the next one comes when its lease has run out."""
    leader = find_leader(play)
    play.enter("before")
    play.last(0.5)
    since = play.here()
    play.inflict(KilledClient(clients=(leader,)))
    killed_at = play.journal.records()[-1].at
    play.enter("during")
    others = [name for name in play.members if name != leader]
    grant = play.granted(*others, since=since)
    play.enter("after")
    play.claim(
        "somebody else leads",
        grant,
        f"{duration(grant.at - killed_at)} after the kill, with a ttl of {play.ttl:g} s",
    )


def suspend(play: Play) -> None:
    """S45: the lease clock leaps, as in a suspend: the lease is lost at once, though no timer
    has fired."""
    play.enter("before")
    takes(play, "c1", auto_extend=True)
    since = play.here()
    play.inflict(Asked(clients=("c1",), label="suspend", order={"what": "leap", "seconds": 60.0}))
    play.client("c1").spoilt = True
    play.enter("during")
    looked = play.client("c1").do("look")
    play.claim("the lease is not held at the first look", looked == "not held", looked)
    play.lapsed("c1", since=since)
    took = takes(play, "c2", timeout=10.0)
    play.claim("the next holder comes when the nodes have let go", took == "ok", took)
    play.enter("after")


def fork(play: Play) -> None:
    """S58: a fork while holding: the child's copy of the lease is dead, the parent's lives."""
    play.enter("before")
    for client in ("c1", "c2"):
        takes(play, client, resource=f"{play.resource}:{client}", auto_extend=True)
    play.enter("during")
    for client in ("c1", "c2"):
        said = play.client(client).do("fork", resource=f"{play.resource}:{client}")
        play.client(client).spoilt = True
        play.claim("only the parent holds", said == "child: not held; parent: held", said)
    play.last(1.5 * play.ttl)
    for client in ("c1", "c2"):
        looked = play.client(client).do("look", resource=f"{play.resource}:{client}")
        play.claim("renewal goes on in the parent", looked == "held", looked)
    play.enter("after")


def max_hold(play: Play) -> None:
    """S59: renewal for ever and hung work: max_hold ends it, and the next one gets the lock."""
    play.enter("before")
    takes(play, "c1", auto_extend=True, max_hold=1.5 * play.ttl)
    since = play.here()
    play.enter("during")
    play.renewed("c1", since=since)
    lapsed = play.lapsed("c1", since=since)
    took = takes(play, "c2", timeout=10.0)
    play.claim("the lease ends although renewal works", lapsed.reason, lapsed.reason)
    play.claim("the next one gets the lock", took == "ok", took)
    play.enter("after")
