"""Clients that run out of threads or descriptors while something else breaks: what they hold
goes on, and they come back."""

from __future__ import annotations

from chaos.history import Seen
from chaos.live.directed.common import takes
from chaos.live.nemesis import Closed, Killed, Paused, among, black_hole
from chaos.live.play import Play
from redlock.core.events import LeaseLapsed, LeaseRenewed

__all__ = ["dead_dials", "dead_renewal", "no_descriptors", "no_threads"]

MAJORITY = (1, 2, 3)


def _told(play: Play, kind: type, since: int) -> int:
    """How often c1 was told so since then."""
    records = play.journal.records()[since:]
    return sum(
        isinstance(record, Seen) and record.client == "c1" and isinstance(record.event, kind)
        for record in records
    )


def _a_node_dies(play: Play) -> int:
    """c1 holds a lease that is renewed, a node has a release of another one unanswered, c1 has
    no threads: the node dies."""
    play.enter("before")
    takes(play, "c1", auto_extend=True)
    play.renewed("c1")
    with play.broken(Paused(nodes=(5,))):
        takes(play, "c1", resource=f"{play.resource}:c1")
        play.client("c1").do("release", resource=f"{play.resource}:c1")
        play.client("c1").do("starve", of="threads")
        play.enter("during")
        since = play.here()
        play.inflict(Killed(nodes=(5,)))
    return since


def no_threads(play: Play) -> None:
    """S70: renewal goes on without a dial for the dead node, and a loss is told afterwards."""
    since = _a_node_dies(play)
    play.last(1.5 * play.ttl)
    renewed = _told(play, LeaseRenewed, since)
    play.claim("a lease is renewed though no thread can be had", renewed > 1, f"{renewed} times")
    play.client("c1").do("feed")
    play.renewed("c1", since=play.here())
    since = play.here()
    with play.broken(black_hole(among(["c1"], MAJORITY))):
        play.lapsed("c1", since=since)
    play.claim("a loss is told", True)
    play.enter("after")
    took = takes(play, "c1", timeout=5.0)
    play.claim("the same coordinator works", took == "ok", took)


def dead_renewal(play: Play) -> None:
    """S70b, its control: a thread ends with the first exception; the lease runs out, and nobody
    is told."""
    since = _a_node_dies(play)
    play.last(2.0 * play.ttl)
    renewed, lapsed = _told(play, LeaseRenewed, since), _told(play, LeaseLapsed, since)
    looked = play.client("c1").do("look")
    play.claim(
        "with the rule gone the lease ends",
        looked == "not held",
        f"{looked}, renewed {renewed} times",
    )
    play.claim("and nobody hears of it", not lapsed)
    play.client("c1").do("feed")
    play.enter("after")


def _no_connections(play: Play) -> None:
    """c1 and c2 lose all their connections while no descriptor is to be had."""
    play.enter("before")
    for client in ("c1", "c2"):
        takes(play, client, resource=f"{play.resource}:{client}")
        play.client(client).do("release", resource=f"{play.resource}:{client}")
        play.client(client).do("starve", of="descriptors")
    play.enter("during")
    with play.broken(Closed(links=among(["c1", "c2"], (1, 2, 3, 4, 5)))):
        for client in ("c1", "c2"):
            play.called("acquire", "unavailable", client, since=_asked(play, client))
            play.client(client).do("starve", of="descriptors")
    for client in ("c1", "c2"):
        took = takes(play, client, timeout=0.5)
        play.claim(
            f"without descriptors {client} is told that there is no quorum",
            took == "unavailable",
            took,
        )
        play.client(client).do("feed")


def _asked(play: Play, client: str) -> int:
    since = play.here()
    takes(play, client, timeout=0.0)
    return since


def no_descriptors(play: Play) -> None:
    """S71: unavailable with a reason while it lasts, and the same coordinators work when it is
    over."""
    _no_connections(play)
    play.enter("after")
    for client in ("c1", "c2"):
        took = takes(play, client, timeout=5.0)
        play.claim(f"{client} works again", took == "ok", took)
        play.client(client).do("release")


def dead_dials(play: Play) -> None:
    """S71b, its control: a dial that fails tells nobody, and its link waits for ever."""
    _no_connections(play)
    play.enter("after")
    took = takes(play, "c1", timeout=5.0)
    play.claim("with the rule gone it never works again", took == "unavailable", took)
