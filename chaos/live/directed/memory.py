"""Nodes that forget: restarted, rolled back, flushed, evicting; kept out, or shown to bite where
nothing keeps them out."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.live.backend import Data, side_client
from chaos.live.directed.common import NODES, find_leader, holds, on_all, takes, uses, warm
from chaos.live.nemesis import (
    Closed,
    Configured,
    Evicting,
    Flushed,
    Nemesis,
    Restarted,
    among,
)
from chaos.live.play import Play
from chaos.live.scenario import Script
from redlock.core.events import NodeAdmitted, NodeQuarantined, NodeRejected

__all__ = [
    "amnesia",
    "evicted",
    "flushed_majority",
    "quarantined_crowd",
    "rolling",
    "unfit",
    "wiped",
]


def amnesia(data: Data, *, blocked: bool) -> Script:
    """c1 holds {1, 2, 3}; node 3 forgets; c2 sees {3, 4, 5}. *blocked*: and is granted nothing."""

    def script(play: Play) -> None:
        play.enter("before")
        warm(play, "c1", "c2")
        if data is Data.ROLLED_BACK:
            play.cluster.node(3).snapshot()
        play.inflict(Closed(links=among(["c1"], (4, 5))))
        play.inflict(Closed(links=among(["c2"], (1, 2))))
        took = takes(play, "c1", auto_extend=True)
        play.claim(
            "c1 holds nodes 1, 2 and 3", took == "ok" and set(play.keys()) == {1, 2, 3}, took
        )
        play.client("c1").do("read")
        since = play.here()
        play.inflict(Restarted(nodes=(3,), data=data))
        play.enter("during")
        if blocked:
            quarantined = play.event(NodeQuarantined, "c1", "c2", since=since)
            took = takes(play, "c2", timeout=1.0)
            play.claim(
                "c2 is granted nothing: the node does not vote",
                took in ("unavailable", "contended"),
                quarantined.reason,
            )
            holds(play, "c1", "c1 still holds")
        else:
            took = takes(play, "c2", timeout=10.0)
            play.claim("c2 is granted the lock too", took == "ok", took)
            uses(play, "c2")
            wrote = play.client("c1").do("write")
            play.claim("the store refuses c1, whose token is smaller", wrote == "refused", wrote)
        play.enter("after")

    return script


def quarantined_crowd(
    faults: Sequence[Nemesis], *, during: float = 1.5, after: float = 3.0
) -> Script:
    """Clients at work; some nodes forget, and wait out their quarantine while the others go on."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        since = play.here()
        with play.broken(*faults):
            play.enter("during")
            here = play.here()
            play.last(during)
            play.granted(since=here)
        play.enter("after")
        quarantined = play.event(NodeQuarantined, since=since)
        play.last(after)
        play.granted(since=play.here())
        again = play.event(
            NodeAdmitted, since=since, where=lambda event: event.node == quarantined.node
        )
        play.claim("who forgot was kept out, and then voted again", again, quarantined.reason[:70])

    return script


def rolling(data: Data, *, pause: float, quarantine: bool) -> Script:
    """Every node in turn is killed and started again."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        since = play.here()
        play.enter("during")
        for number in NODES:
            here = play.here()
            play.inflict(Restarted(nodes=(number,), data=data))
            play.last(pause)
            if not quarantine:
                play.granted(since=here, count=2)
        play.enter("after")
        play.granted(since=play.here(), count=3)
        forgot = [
            record
            for record in play.journal.records()
            if isinstance(getattr(record, "event", None), NodeQuarantined)
        ]
        if quarantine:
            play.event(NodeQuarantined, since=since)
            play.claim("nodes that forgot were kept out", forgot)
        else:
            play.claim("nodes that remember were not", not forgot)

    return script


def wiped(play: Play) -> None:
    """S29: all nodes are flushed while the lock is held, and a client comes that never saw them
    before."""
    play.enter("before")
    for number in NODES:
        with side_client(play.cluster.node(number)) as client:
            play.until(
                lambda client=client: (  # type: ignore[misc]
                    client.info("server")["uptime_in_seconds"] > 1.1 * play.ttl + 2
                ),
                "uptime",
            )
    takes(play, "c1")
    play.client("c1").do("read")
    play.inflict(Flushed(nodes=NODES))
    play.enter("during")
    took = takes(play, "c2", timeout=5.0)
    play.claim("a new client takes the cluster for a new one", took == "ok", took)
    uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the old holder", wrote == "refused", wrote)
    play.enter("after")
    play.client("c2").do("release")
    took = takes(play, "c3", timeout=20.0)
    play.claim("later writers are not locked out", took == "ok", took)
    read = play.client("c3").do("read")
    play.claim("their tokens are larger still", read == "ok", read)


def flushed_majority(play: Play) -> None:
    """S47b: a majority is flushed while the lock is held: nobody votes there until no forgotten
    lock can be valid."""
    leader = find_leader(play)
    play.enter("before")
    play.renewed(leader)
    since = play.here()
    play.inflict(Flushed(nodes=(1, 2, 3)))
    play.enter("during")
    play.stepped_down(leader, since=since)
    play.enter("after")
    play.granted(since=since)
    quarantined = play.event(NodeQuarantined, since=since)
    play.claim("the flushed nodes were kept out", quarantined, quarantined.reason[:70])


def evicted(play: Play) -> None:
    """S48b: eviction forced behind admission's back takes the lock from a majority."""
    play.enter("before")
    warm(play, "c2")
    takes(play, "c1")
    on_all(play, "c1")
    play.client("c1").do("read")
    play.inflict(Evicting(nodes=(1, 2, 3)))
    play.enter("during")
    took = takes(play, "c2", timeout=2.0)
    play.claim("somebody else is granted the lock", took == "ok", took)
    uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the first holder", wrote == "refused", wrote)
    play.enter("after")


def unfit(play: Play) -> None:
    """S48: a node that may evict does not vote; a majority of such is an error of configuration,
    at once."""
    evicting = {"maxmemory-policy": "volatile-ttl"}
    play.enter("before")
    play.enter("during")
    with play.broken(Configured(nodes=(5,), label="eviction policy", settings=evicting)):
        took = takes(play, "c1")
        rejected = play.event(NodeRejected, "c1")
        play.claim("the others vote", took == "ok", rejected.reason)
        play.client("c1").do("release")
    with play.broken(Configured(nodes=(1, 2, 3), label="eviction policy", settings=evicting)):
        took = takes(play, "c2", timeout=20.0)
        play.claim(
            "a majority that may evict is refused",
            took.startswith("error: ConfigurationError"),
            took[:80],
        )
    play.enter("after")
