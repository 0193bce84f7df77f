"""Clocks and states of servers, their addresses and lists, and calls that are cut short."""

from __future__ import annotations

from chaos.figures import duration
from chaos.history import Note
from chaos.live.directed.common import NODES, holds, on_all, takes, uses
from chaos.live.nemesis import (
    ClockMoved,
    Closed,
    Flapping,
    Killed,
    Nemesis,
    OutOfMemory,
    Paused,
    Repointed,
    StoppedClient,
    among,
    black_hole,
    isolation,
)
from chaos.live.play import Play
from redlock.core.events import LeaseGranted, NodeQuarantined, NodeRejected

__all__ = [
    "cancels",
    "clock_jump_on_a_majority",
    "clock_jump_on_a_minority",
    "duplicate_node",
    "injections",
    "moved_address",
    "other_list",
    "out_of_memory",
    "strobe",
    "wrong_password",
]


def clock_jump_on_a_minority(play: Play) -> None:
    """S40: the clocks of two nodes jump past the lock they hold; the other three still hold it."""
    play.enter("before")
    takes(play, "c1", auto_extend=True)
    on_all(play, "c1")
    since = play.here()
    play.inflict(ClockMoved(nodes=(4, 5), seconds=30.0, lasting=True))
    play.enter("during")
    play.until(
        lambda: not {4, 5} & set(play.keys()) or len(play.keys()) == len(NODES),
        "the locks there to expire or be put back",
    )
    took = takes(play, "c2", timeout=1.5)
    play.claim("nobody else is granted the lock", took == "contended", took)
    play.renewed("c1", since=since)
    holds(play, "c1", "the holder still holds")
    play.enter("after")
    play.client("c1").do("release")
    took = takes(play, "c2", timeout=10.0)
    play.claim("the next one gets it after the release", took == "ok", took)


def clock_jump_on_a_majority(play: Play) -> None:
    """S41: the clocks of three nodes jump past the lock: mutual exclusion is gone, tokens are
    not."""
    play.enter("before")
    takes(play, "c1")
    on_all(play, "c1")
    play.client("c1").do("read")
    play.inflict(ClockMoved(nodes=(1, 2, 3), seconds=30.0, lasting=True))
    play.enter("during")
    took = takes(play, "c2", timeout=2.0)
    play.claim("somebody else is granted the lock", took == "ok", took)
    holds(play, "c1", "the first holder knows nothing")
    uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the first holder", wrote == "refused", wrote)
    play.enter("after")


def strobe(play: Play) -> None:
    """S43: one node's clock jumps by a ttl and back, over and over, under a leader and its
    candidates."""
    play.enter("before")
    takes(play, "c1", auto_extend=True)
    on_all(play, "c1")
    since = play.here()
    jump = ClockMoved(nodes=(5,), seconds=play.ttl)
    with play.broken(Flapping(of=jump, on=0.1, off=0.1)):
        play.enter("during")
        waits = [play.client(name).order("acquire", timeout=3.0) for name in ("c2", "c3")]
        took = [wait(30.0) for wait in waits]
    play.claim(
        "candidates are granted nothing", took == ["contended", "contended"], ", ".join(took)
    )
    play.renewed("c1", since=since)
    holds(play, "c1", "the leader leads")
    play.enter("after")
    play.client("c1").do("release")
    took_next = takes(play, "c2", timeout=10.0)
    play.claim("the next one gets it after the release", took_next == "ok", took_next)


def out_of_memory(play: Play) -> None:
    """S49: a majority is out of memory: no new grants, and holders can extend and release."""
    play.enter("before")
    takes(play, "c1")
    with play.broken(OutOfMemory((1, 2, 3))):
        play.enter("during")
        took = takes(play, "c2", timeout=1.0, resource=f"{play.resource}:new")
        play.claim("nothing new is granted", took == "unavailable", took)
        extended = play.client("c1").do("extend")
        play.claim("the holder can extend", extended == "ok", extended)
        since = play.here()
        play.client("c1").do("release")
        released = play.called("release", "", "c1", since=since)
        play.claim("and release", released.outcome == "ok", released.outcome)
    play.enter("after")
    took = takes(play, "c2", timeout=10.0)
    play.claim("with memory, locks are granted again", took == "ok", took)


def wrong_password(play: Play) -> None:
    """S52: credentials that one node refuses cost its vote; refused by all, an error at once."""
    play.enter("before")
    play.enter("during")
    rejected = play.event(NodeRejected, "c1")
    play.claim(
        "one node that refuses us is told",
        "WRONGPASS" in rejected.reason or "credentials" in rejected.reason,
        rejected.reason,
    )
    took = takes(play, "c2", timeout=20.0)
    play.claim(
        "refused by all, the caller knows at once",
        took.startswith("error: ConfigurationError"),
        took[:100],
    )
    play.last(1.0)
    play.granted("c1", "c3", since=play.here(), count=2)
    play.enter("after")


def duplicate_node(play: Play) -> None:
    """S53: two addresses of one server: refused, or a majority would be of two."""
    play.enter("before")
    play.inflict(Repointed(links=among(["c1"], (2,)), to=1))
    play.enter("during")
    took = takes(play, "c1", timeout=20.0)
    play.claim(
        "the list is refused",
        took.startswith("error: ConfigurationError") and "same server" in took,
        took[:120],
    )
    play.enter("after")
    took = takes(play, "c2", timeout=10.0)
    play.claim("who lists five servers is served", took == "ok", took)


def other_list(play: Play) -> None:
    """S55: a client whose list is another one is refused, and does not get a majority of its
    own."""
    play.enter("before")
    play.inflict(Closed(links=among(["c1"], (1, 2))))
    took = takes(play, "c1", auto_extend=True)
    play.claim("c1 holds nodes 3, 4 and 5", took == "ok" and set(play.keys()) == {3, 4, 5}, took)
    play.enter("during")
    took = takes(play, "c2", timeout=5.0)
    play.claim(
        "c2, who lists nodes 1, 2 and 3 alone, is refused",
        took.startswith("error: ConfigurationError"),
        took[:120],
    )
    play.enter("after")
    holds(play, "c1", "c1 still holds")


def moved_address(play: Play) -> None:
    """S54: node 5's address leads to a server that knows nothing: kept out."""
    play.granted()
    play.enter("before")
    play.last(1.0)
    since = play.here()
    with play.broken(Repointed(links=among(play.members, (5,)), to=6)):
        play.enter("during")
        kept_out = play.event((NodeQuarantined, NodeRejected), since=since)
        play.last(1.0)
        play.granted(since=play.here(), count=2)
    play.enter("after")
    play.last(0.8)
    play.granted(since=play.here(), count=2)
    play.claim("the stranger does not vote", kept_out, kept_out.reason[:80])


def cancels(play: Play) -> None:
    """S57: acquires are cancelled after every number of turns; nothing is left behind."""
    play.granted("c3")
    play.enter("before")
    play.last(0.5)
    play.enter("during")
    play.last(3.0)
    play.enter("after")
    play.end(*play.members)
    cancelled = {
        record.text
        for record in play.journal.records()
        if isinstance(record, Note) and record.kind == "cancelled"
    }
    play.until(lambda: not play.leftovers(), "the last lock to be gone")
    play.claim("no lock is left", True, f"cancelled at {len(cancelled)} different points")
    play.claim("cancels came at many points", len(cancelled) >= 3, str(len(cancelled)))


def injections(play: Play) -> None:
    """A05: break and heal every link, node and client in turn, while clients work."""
    play.event(LeaseGranted)
    play.enter("before")
    play.last(1.0)
    play.enter("during")
    clients = tuple(play.members)
    faults: list[Nemesis] = [black_hole(((client, node),)) for client in clients for node in NODES]
    faults += [Closed(links=((clients[0], node),)) for node in NODES]
    for node in NODES:
        faults += [
            black_hole(among(clients, (node,))),
            Closed(links=among(clients, (node,))),
            Paused(nodes=(node,)),
        ]
    faults += [Killed(nodes=(5,)), Killed(nodes=(4,))]
    faults += [
        fault
        for client in clients
        for fault in (isolation(client, NODES), StoppedClient(clients=(client,)))
    ]
    for fault in faults:
        with play.broken(fault):
            play.last(0.02)
    play.enter("after")
    for size in ("link", "node", "client"):
        took = sorted(one.took for one in play.injections if one.size == size)
        told = f"{duration(took[len(took) // 2])}, at most {duration(took[-1])}"
        play.claim(f"{len(took)} changes of one {size}: {told}", True)
    play.event(LeaseGranted, since=play.here())
