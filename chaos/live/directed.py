"""Scripts that need an order of events: each breaks, waits for what must follow, and claims.

Clients that a script leads step by step are puppets. What decides is always an event: a grant, a refusal, a key that is
there. Where a script waits for time alone, that is how long its fault lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from chaos.history import Accepted, Note, Record, Seen
from chaos.live.backend import Data, side_client
from chaos.live.crew import Timeout
from chaos.live.nemesis import (
    Asked,
    ClockMoved,
    Closed,
    Configured,
    Evicting,
    Flapping,
    Flushed,
    Killed,
    KilledClient,
    Nemesis,
    OutOfMemory,
    Paused,
    Repointed,
    Restarted,
    StoppedClient,
    among,
    black_hole,
    cut_before_reply,
    held_back,
    isolation,
    late_replies,
)
from chaos.live.play import Play
from chaos.live.scenario import Script
from redlock.core.commands import FENCE_SUFFIX
from redlock.core.events import LeaseGranted, NodeAdmitted, NodeQuarantined, NodeRejected, TryFailed, TryStarted

NODES = (1, 2, 3, 4, 5)


def _uses(play: Play, client: str) -> None:
    """A puppet that holds reads and writes the guarded store."""
    member = play.client(client)
    member.do("read")
    member.do("write")


def _touched(play: Play, *clients: str, since: int) -> None:
    """Wait until one of *clients* has had an access to the guarded store."""

    def wanted(record: Record) -> bool:
        return isinstance(record, Accepted) and record.client in clients and record.resource == play.resource

    play.wait(wanted, f"an access by {' or '.join(clients)}", since=since)


def _takes(play: Play, client: str, **how: object) -> str:
    """A puppet's acquire; "ok", or why not."""
    return play.client(client).do("acquire", **how)


def _holds(play: Play, client: str, what: str) -> None:
    looked = play.client(client).do("look")
    play.claim(what, looked == "held", looked)


def _on_all(play: Play) -> None:
    """Wait until every node holds the lock: a vote is decided before the last node has answered."""
    play.until(lambda: len(play.keys()) == len(play.cluster.numbers), "the lock on all nodes")


# Holders that stop


def stopped_holder(play: Play) -> None:
    """S34: the holder is stopped for longer than its ttl, and writes when it goes on."""
    play.enter("before")
    _takes(play, "c1")
    play.client("c1").do("read")
    since = play.here()
    with play.broken(StoppedClient(clients=("c1",))):
        play.enter("during")
        _touched(play, "c2", "c3", since=since)
    play.enter("after")
    _zombie(play)


def check_and_stop(play: Play) -> None:
    """S35: the holder is stopped between looking at its lease and writing."""
    play.enter("before")
    _takes(play, "c1")
    play.client("c1").do("read")
    since = play.here()
    done = play.client("c1").order("check_and_write", stall=1.0)
    play.note("stalling", "c1", since=since)
    with play.broken(StoppedClient(clients=("c1",))):
        play.enter("during")
        _touched(play, "c2", "c3", since=since)
    play.enter("after")
    wrote = done(30.0)
    play.claim("the write after the gap is refused", wrote == "refused", wrote)


def blocked_loop(play: Play) -> None:
    """S36: a coroutine blocks its event loop for longer than the ttl, and writes."""
    play.enter("before")
    _takes(play, "c1", auto_extend=True)
    play.client("c1").do("read")
    since = play.here()
    play.enter("during")
    play.inflict(Asked(clients=("c1",), label="blocked loop", order={"what": "block", "seconds": 1.5 * play.ttl}))
    _touched(play, "c2", "c3", since=since)
    play.enter("after")
    _zombie(play)
    lapsed = play.lapsed("c1", since=since)
    play.claim("the loss is told as soon as the loop turns", lapsed)


def _zombie(play: Play) -> None:
    looked, wrote = play.client("c1").do("look"), play.client("c1").do("write")
    play.claim("the holder does not believe in its lease when it wakes", looked == "not held", looked)
    play.claim("its late write is refused", wrote == "refused", wrote)


def killed_holder(play: Play) -> None:
    """S37: kill -9 of the holder: the next one comes when its lease has run out."""
    leader = _leader(play)
    play.enter("before")
    play.last(0.5)
    since = play.here()
    play.inflict(KilledClient(clients=(leader,)))
    killed_at = play.journal.records()[-1].at
    play.enter("during")
    others = [name for name in play.members if name != leader]
    grant = play.granted(*others, since=since)
    play.enter("after")
    play.claim("somebody else leads", grant, f"{grant.at - killed_at:.2f} s after the kill, with a ttl of {play.ttl:g} s")


def suspend(play: Play) -> None:
    """S45: the lease clock leaps, as in a suspend: the lease is lost at once, though no timer has fired."""
    play.enter("before")
    _takes(play, "c1", auto_extend=True)
    since = play.here()
    play.inflict(Asked(clients=("c1",), label="suspend", order={"what": "leap", "seconds": 60.0}))
    play.client("c1").spoilt = True
    play.enter("during")
    looked = play.client("c1").do("look")
    play.claim("the lease is not held at the first look", looked == "not held", looked)
    play.lapsed("c1", since=since)
    took = _takes(play, "c2", timeout=10.0)
    play.claim("the next holder comes when the nodes have let go", took == "ok", took)
    play.enter("after")


def fork(play: Play) -> None:
    """S58: a fork while holding: the child's copy of the lease is dead, the parent's lives."""
    play.enter("before")
    for client in ("c1", "c2"):
        _takes(play, client, resource=f"{play.resource}:{client}", auto_extend=True)
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
    _takes(play, "c1", auto_extend=True, max_hold=1.5 * play.ttl)
    since = play.here()
    play.enter("during")
    play.renewed("c1", since=since)
    lapsed = play.lapsed("c1", since=since)
    took = _takes(play, "c2", timeout=10.0)
    play.claim("the lease ends although renewal works", lapsed.reason, lapsed.reason)
    play.claim("the next one gets the lock", took == "ok", took)
    play.enter("after")


# Leaders and partitions


def _leader(play: Play) -> str:
    """Whoever is granted the lock first."""
    grant = play.granted()
    return next(record.client for record in _granted(play) if record.event == grant)


def holder_loses(*faults: Nemesis, during: float = 1.0) -> Script:
    """A majority goes while the lock is held: the holder knows in time, nobody is granted it, and it recovers."""

    def script(play: Play) -> None:
        leader = _leader(play)
        play.enter("before")
        play.renewed(leader)
        play.last(0.5)
        since = play.here()
        with play.broken(*faults):
            play.enter("during")
            stopped = play.stepped_down(leader, since=since)
            play.last(during)
            since = play.here()
            play.leave()
        play.enter("after")
        play.granted(since=since)
        play.claim("the holder stopped in time", stopped, type(stopped).__name__)

    return script


def isolated_leader(nodes: Sequence[int], others: Sequence[int] = ()) -> Script:
    """The leader loses sight of *nodes*, and everybody else of *others*: it steps down before the next is elected."""

    def script(play: Play) -> None:
        leader = _leader(play)
        candidates = [name for name in play.members if name != leader]
        play.enter("before")
        play.renewed(leader)
        faults = [black_hole(among([leader], nodes))]
        if others:
            faults.append(black_hole(among(candidates, others)))
        since = play.here()
        with play.broken(*faults):
            play.enter("during")
            stopped = play.stepped_down(leader, since=since)
            grant = play.granted(*candidates, since=since)
        play.enter("after")
        play.last(0.5)
        gap = grant.at - stopped.at
        play.claim("the old leader stepped down, and then the next was elected", grant, f"{1000 * gap:.0f} ms later")

    return script


def seen_by_nobody(clients: Sequence[str], nodes: Sequence[int], during: float = 2.5) -> Script:
    """S22: *clients* see only *nodes*, which is no majority: they get nothing, the others go on."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        lost = [number for number in NODES if number not in nodes]
        with play.broken(black_hole(among(clients, lost))):
            play.enter("during")
            since, began = play.here(), play.phases[-1].since
            play.last(during)
            others = [name for name in play.members if name not in clients]
            play.granted(*others, since=since, count=2)
            wrong = [record for record in _granted(play) if record.client in clients and _asked_at(play, record) > began]
        play.enter("after")
        play.granted(*clients, since=play.here())
        play.claim("who sees no majority is granted nothing", not wrong, f"{len(wrong)} grants")

    return script


def _granted(play: Play) -> list[Seen]:
    """All grants so far."""
    return [record for record in play.journal.records() if isinstance(record, Seen) and isinstance(record.event, LeaseGranted)]


def _asked_at(play: Play, granted: Seen) -> float:
    """When the try of a grant began."""
    assert isinstance(granted.event, LeaseGranted)
    return min(
        record.at
        for record in play.journal.records()
        if isinstance(record, Seen) and isinstance(record.event, TryStarted) and record.event.owner == granted.event.owner
    )


def two_pauses(node: int) -> Script:
    """S32: one node is stopped for less than the ttl, and then for more."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        play.enter("during")
        for seconds in (0.4 * play.ttl, 2.2 * play.ttl):
            since = play.here()
            with play.broken(Paused(nodes=(node,))):
                play.last(seconds)
                play.granted(since=since)
            play.granted(since=play.here())
        play.enter("after")
        play.last(0.8)

    return script


# Requests and replies that come late


def reply_cut(play: Play) -> None:
    """S13: each connection ends before its first reply; the retry finds its own lock, and counts it."""
    play.enter("before")
    _takes(play, "c1")
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
    _uses(play, "c1")
    play.client("c1").do("release")
    _nothing_left(play)


def _nothing_left(play: Play, what: str = "no key is left once the clients are done") -> None:
    play.until(lambda: not play.keys(), "the lock to be gone everywhere")
    play.claim(what, True)


def late_requests(play: Play) -> None:
    """S14: requests arrive when their client has given up, or is dead."""
    play.enter("before")
    _takes(play, "c1")
    play.client("c1").do("release")
    _nothing_left(play, "a healthy release leaves nothing")
    fault = play.inflict(held_back(among(["c1"], (1, 2, 3))))
    play.enter("during")
    took = _takes(play, "c1", timeout=0.5)
    play.claim("the client gave up", took in ("unavailable", "contended"), took)
    before = _scripts_run(play, (1, 2, 3))
    play.heal(fault)
    play.until(
        lambda: all(after > one for after, one in zip(_scripts_run(play, (1, 2, 3)), before, strict=True)), "late requests"
    )
    _nothing_left(play, "its release came behind its late request")
    took = _takes(play, "c2", timeout=5.0)
    play.claim("the lock is free", took == "ok", took)
    play.client("c2").do("release")
    since = play.here()
    fault = play.inflict(held_back(among(["c1"], NODES)))
    play.client("c1").order("acquire", timeout=5.0)
    play.event(TryStarted, "c1", since=since)
    play.inflict(KilledClient(clients=("c1",)))
    play.heal(fault)
    took = _takes(play, "c2", timeout=10.0)
    play.claim("a dead client's late lock lasts for its ttl at most", took == "ok", took)
    play.enter("after")
    play.client("c2").do("release")


def _scripts_run(play: Play, nodes: Iterable[int]) -> list[int]:
    """How many scripts each node has run."""
    counts = []
    for number in nodes:
        with side_client(play.cluster.node(number)) as client:
            stats = client.info("commandstats")
            counts.append(sum(stats.get(f"cmdstat_{verb}", {}).get("calls", 0) for verb in ("eval", "evalsha")))
    return counts


def late_release(play: Play) -> None:
    """S15: the release of a first try arrives while a second one, of the same program, holds the lock."""
    play.enter("before")
    _takes(play, "c1")
    _on_all(play)
    fault = play.inflict(held_back(among(["c1"], NODES)))
    play.enter("during")
    play.client("c1").do("release")
    play.inflict(KilledClient(clients=("c1",)))
    took = _takes(play, "c2", timeout=20.0)
    play.claim("the second try gets the lock when the first has expired", took == "ok", took)
    _on_all(play)
    before = _scripts_run(play, NODES)
    play.heal(fault)
    play.until(
        lambda: all(after > one for after, one in zip(_scripts_run(play, NODES), before, strict=True)), "the late releases"
    )
    took = _takes(play, "c3", timeout=1.0)
    _uses(play, "c2")
    _holds(play, "c2", "the second try still holds")
    play.claim("nobody else was granted the lock", took == "contended", took)
    play.enter("after")
    play.client("c2").do("release")


def stale_replies(play: Play) -> None:
    """S08b, F12: grants lie at the client while it is stopped for longer than their validity."""
    play.enter("before")
    _warm(play, "c1", "c2")
    done, stopped = _stopped_on_its_replies(play)
    play.enter("during")
    took = _takes(play, "c2", timeout=20.0, auto_extend=True)
    play.claim("somebody else is granted the lock meanwhile", took == "ok", took)
    _uses(play, "c2")
    play.heal(stopped)
    took = done(30.0)
    if took == "ok":
        play.client("c1").do("look")
    play.claim("replies that outlived their validity are no grant", took != "ok", took)
    play.enter("after")
    play.client("c2").do("release")


def _stopped_on_its_replies(play: Play) -> tuple[Callable[[float], str], str]:
    """c1 asked, all nodes granted, their replies are at its sockets, and it is stopped. Again if it was not fast enough."""
    for _ in range(5):
        since = play.here()
        held = play.inflict(late_replies(among(["c1"], NODES)))
        done = play.client("c1").order("acquire", timeout=0.0)
        play.event(TryStarted, "c1", since=since)
        with contextlib.suppress(Timeout):
            play.until(lambda: len(play.keys()) == len(NODES), "the requests to be executed", timeout=0.4)
        stopped = play.inflict(StoppedClient(clients=("c1",)))
        if len(play.keys()) == len(NODES):
            play.heal(held)
            return done, stopped
        play.heal(stopped)
        play.heal(held)
        done(30.0)
    raise Timeout("c1 gave up each time before it was stopped")


# Nodes that forget


def amnesia(data: Data, *, blocked: bool) -> Script:
    """c1 holds {1, 2, 3}; node 3 forgets; c2 sees {3, 4, 5}. *blocked*: and is granted nothing."""

    def script(play: Play) -> None:
        play.enter("before")
        _warm(play, "c1", "c2")
        if data is Data.ROLLED_BACK:
            play.cluster.node(3).snapshot()
        play.inflict(Closed(links=among(["c1"], (4, 5))))
        play.inflict(Closed(links=among(["c2"], (1, 2))))
        took = _takes(play, "c1", auto_extend=True)
        play.claim("c1 holds nodes 1, 2 and 3", took == "ok" and set(play.keys()) == {1, 2, 3}, took)
        play.client("c1").do("read")
        since = play.here()
        play.inflict(Restarted(nodes=(3,), data=data))
        play.enter("during")
        if blocked:
            quarantined = play.event(NodeQuarantined, "c1", "c2", since=since)
            took = _takes(play, "c2", timeout=1.0)
            play.claim("c2 is granted nothing: the node does not vote", took in ("unavailable", "contended"), quarantined.reason)
            _holds(play, "c1", "c1 still holds")
        else:
            took = _takes(play, "c2", timeout=10.0)
            play.claim("c2 is granted the lock too", took == "ok", took)
            _uses(play, "c2")
            wrote = play.client("c1").do("write")
            play.claim("the store refuses c1, whose token is smaller", wrote == "refused", wrote)
        play.enter("after")

    return script


def _warm(play: Play, *clients: str) -> None:
    """Let clients meet the nodes, on a lock of their own."""
    for client in clients:
        took = _takes(play, client, resource=f"{play.resource}:{client}")
        play.client(client).do("release", resource=f"{play.resource}:{client}")
        play.claim(f"{client} knows the nodes", took == "ok", took)


def quarantined_crowd(faults: Sequence[Nemesis], *, during: float = 1.5, after: float = 3.0) -> Script:
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
        again = play.event(NodeAdmitted, since=since, where=lambda event: event.node == quarantined.node)
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
        forgot = [record for record in play.journal.records() if isinstance(getattr(record, "event", None), NodeQuarantined)]
        if quarantine:
            play.event(NodeQuarantined, since=since)
            play.claim("nodes that forgot were kept out", forgot)
        else:
            play.claim("nodes that remember were not", not forgot)

    return script


def wiped(play: Play) -> None:
    """S29: all nodes are flushed while the lock is held, and a client comes that never saw them before."""
    play.enter("before")
    for number in NODES:
        with side_client(play.cluster.node(number)) as client:
            play.until(lambda client=client: client.info("server")["uptime_in_seconds"] > 1.1 * play.ttl + 2, "uptime")  # type: ignore[misc]
    _takes(play, "c1")
    play.client("c1").do("read")
    play.inflict(Flushed(nodes=NODES))
    play.enter("during")
    took = _takes(play, "c2", timeout=5.0)
    play.claim("a new client takes the cluster for a new one", took == "ok", took)
    _uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the old holder", wrote == "refused", wrote)
    play.enter("after")
    play.client("c2").do("release")
    took = _takes(play, "c3", timeout=20.0)
    play.claim("later writers are not locked out", took == "ok", took)
    read = play.client("c3").do("read")
    play.claim("their tokens are larger still", read == "ok", read)


def flushed_majority(play: Play) -> None:
    """S47b: a majority is flushed while the lock is held: nobody votes there until no forgotten lock can be valid."""
    leader = _leader(play)
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
    _warm(play, "c2")
    _takes(play, "c1")
    _on_all(play)
    play.client("c1").do("read")
    play.inflict(Evicting(nodes=(1, 2, 3)))
    play.enter("during")
    took = _takes(play, "c2", timeout=2.0)
    play.claim("somebody else is granted the lock", took == "ok", took)
    _uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the first holder", wrote == "refused", wrote)
    play.enter("after")


def unfit(play: Play) -> None:
    """S48: a node that may evict does not vote; a majority of such is an error of configuration, at once."""
    evicting = {"maxmemory-policy": "volatile-ttl"}
    play.enter("before")
    play.enter("during")
    with play.broken(Configured(nodes=(5,), label="eviction policy", settings=evicting)):
        took = _takes(play, "c1")
        rejected = play.event(NodeRejected, "c1")
        play.claim("the others vote", took == "ok", rejected.reason)
        play.client("c1").do("release")
    with play.broken(Configured(nodes=(1, 2, 3), label="eviction policy", settings=evicting)):
        took = _takes(play, "c2", timeout=20.0)
        play.claim("a majority that may evict is refused", took.startswith("error: ConfigurationError"), took[:80])
    play.enter("after")


# Clocks of servers


def clock_jump_on_a_minority(play: Play) -> None:
    """S40: the clocks of two nodes jump past the lock they hold; the other three still hold it."""
    play.enter("before")
    _takes(play, "c1", auto_extend=True)
    _on_all(play)
    since = play.here()
    play.inflict(ClockMoved(nodes=(4, 5), seconds=30.0, lasting=True))
    play.enter("during")
    play.until(
        lambda: not {4, 5} & set(play.keys()) or len(play.keys()) == len(NODES), "the locks there to expire or be put back"
    )
    took = _takes(play, "c2", timeout=1.5)
    play.claim("nobody else is granted the lock", took == "contended", took)
    play.renewed("c1", since=since)
    _holds(play, "c1", "the holder still holds")
    play.enter("after")
    play.client("c1").do("release")
    took = _takes(play, "c2", timeout=10.0)
    play.claim("the next one gets it after the release", took == "ok", took)


def clock_jump_on_a_majority(play: Play) -> None:
    """S41: the clocks of three nodes jump past the lock: mutual exclusion is gone, tokens are not."""
    play.enter("before")
    _takes(play, "c1")
    _on_all(play)
    play.client("c1").do("read")
    play.inflict(ClockMoved(nodes=(1, 2, 3), seconds=30.0, lasting=True))
    play.enter("during")
    took = _takes(play, "c2", timeout=2.0)
    play.claim("somebody else is granted the lock", took == "ok", took)
    _holds(play, "c1", "the first holder knows nothing")
    _uses(play, "c2")
    wrote = play.client("c1").do("write")
    play.claim("the store refuses the first holder", wrote == "refused", wrote)
    play.enter("after")


def strobe(play: Play) -> None:
    """S43: one node's clock jumps by a ttl and back, over and over, under a leader and its candidates."""
    play.enter("before")
    _takes(play, "c1", auto_extend=True)
    _on_all(play)
    since = play.here()
    jump = ClockMoved(nodes=(5,), seconds=play.ttl)
    with play.broken(Flapping(of=jump, on=0.1, off=0.1)):
        play.enter("during")
        waits = [play.client(name).order("acquire", timeout=3.0) for name in ("c2", "c3")]
        took = [wait(30.0) for wait in waits]
    play.claim("candidates are granted nothing", took == ["contended", "contended"], ", ".join(took))
    play.renewed("c1", since=since)
    _holds(play, "c1", "the leader leads")
    play.enter("after")
    play.client("c1").do("release")
    took_next = _takes(play, "c2", timeout=10.0)
    play.claim("the next one gets it after the release", took_next == "ok", took_next)


# Server states


def out_of_memory(play: Play) -> None:
    """S49: a majority is out of memory: no new grants, and holders can extend and release."""
    play.enter("before")
    _takes(play, "c1")
    with play.broken(OutOfMemory((1, 2, 3))):
        play.enter("during")
        took = _takes(play, "c2", timeout=1.0, resource=f"{play.resource}:new")
        play.claim("nothing new is granted", took == "unavailable", took)
        extended = play.client("c1").do("extend")
        play.claim("the holder can extend", extended == "ok", extended)
        since = play.here()
        play.client("c1").do("release")
        released = play.called("release", "", "c1", since=since)
        play.claim("and release", released.outcome == "ok", released.outcome)
    play.enter("after")
    took = _takes(play, "c2", timeout=10.0)
    play.claim("with memory, locks are granted again", took == "ok", took)


def wrong_password(play: Play) -> None:
    """S52: credentials that one node refuses cost its vote; refused by all, an error at once."""
    play.enter("before")
    play.enter("during")
    rejected = play.event(NodeRejected, "c1")
    play.claim(
        "one node that refuses us is told", "WRONGPASS" in rejected.reason or "credentials" in rejected.reason, rejected.reason
    )
    took = _takes(play, "c2", timeout=20.0)
    play.claim("refused by all, the caller knows at once", took.startswith("error: ConfigurationError"), took[:100])
    play.last(1.0)
    play.granted("c1", "c3", since=play.here(), count=2)
    play.enter("after")


def duplicate_node(play: Play) -> None:
    """S53: two addresses of one server: refused, or a majority would be of two."""
    play.enter("before")
    play.inflict(Repointed(links=among(["c1"], (2,)), to=1))
    play.enter("during")
    took = _takes(play, "c1", timeout=20.0)
    play.claim("the list is refused", took.startswith("error: ConfigurationError") and "same server" in took, took[:120])
    play.enter("after")
    took = _takes(play, "c2", timeout=10.0)
    play.claim("who lists five servers is served", took == "ok", took)


def other_list(play: Play) -> None:
    """S55: a client whose list is another one is refused, and does not get a majority of its own."""
    play.enter("before")
    play.inflict(Closed(links=among(["c1"], (1, 2))))
    took = _takes(play, "c1", auto_extend=True)
    play.claim("c1 holds nodes 3, 4 and 5", took == "ok" and set(play.keys()) == {3, 4, 5}, took)
    play.enter("during")
    took = _takes(play, "c2", timeout=5.0)
    play.claim("c2, who lists nodes 1, 2 and 3 alone, is refused", took.startswith("error: ConfigurationError"), took[:120])
    play.enter("after")
    _holds(play, "c1", "c1 still holds")


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


# Calls


def cancels(play: Play) -> None:
    """S57: acquires are cancelled after every number of turns; nothing is left behind."""
    play.granted("c3")
    play.enter("before")
    play.last(0.5)
    play.enter("during")
    play.last(3.0)
    play.enter("after")
    play.end(*play.members)
    cancelled = {record.text for record in play.journal.records() if isinstance(record, Note) and record.kind == "cancelled"}
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
        faults += [black_hole(among(clients, (node,))), Closed(links=among(clients, (node,))), Paused(nodes=(node,))]
    faults += [Killed(nodes=(5,)), Killed(nodes=(4,))]
    faults += [fault for client in clients for fault in (isolation(client, NODES), StoppedClient(clients=(client,)))]
    for fault in faults:
        with play.broken(fault):
            play.last(0.02)
    play.enter("after")
    for size in ("link", "node", "client"):
        took = sorted(one.took for one in play.injections if one.size == size)
        told = f"{1000 * took[len(took) // 2]:.0f} ms, at most {1000 * took[-1]:.0f} ms"
        play.claim(f"{len(took)} changes of one {size}: {told}", True)
    play.event(LeaseGranted, since=play.here())


# Controls


@contextlib.contextmanager
def _unclaimed(play: Play) -> Iterator[None]:
    """What a control's script claims of a sound library does not count."""
    before = len(play.claims)
    try:
        yield
    finally:
        del play.claims[before:]


def unclaimed(script: Script) -> Script:
    """*script* for a control: its broken clients are judged by the checker alone."""

    def control(play: Play) -> None:
        with _unclaimed(play):
            script(play)

    return control


def incr_token(play: Play) -> None:
    """C1: counters that count failed tries too: c1's on {1, 2, 3} runs ahead of c2's on {3, 4, 5}."""
    play.enter("before")
    _warm(play, "c1", "c2")
    alone = play.inflict(black_hole(among(["c1"], (2, 3, 4, 5))))
    with side_client(play.cluster.node(1)) as node:
        while int(node.get(f"redlock:{play.resource}{FENCE_SUFFIX}") or 0) < 4:
            _takes(play, "c1", timeout=0.0)
    play.heal(alone)
    play.inflict(Closed(links=among(["c1"], (4, 5))))
    play.enter("during")
    _takes(play, "c1", timeout=5.0)
    _uses(play, "c1")
    play.client("c1").do("release")
    play.inflict(Closed(links=among(["c2"], (1, 2))))
    _takes(play, "c2", timeout=10.0)
    _uses(play, "c2")
    play.enter("after")


def non_strict(play: Play) -> None:
    """C2: both learnt the same fence, both propose the next number, and nodes take it twice."""
    play.enter("before")
    for client in ("c1", "c2"):  # Behind, so that both propose from the fence.
        play.client(client).step_wall_clock(-3600.0)
    _takes(play, "c3")
    for client in ("c1", "c2"):
        _takes(play, client, timeout=0.0)  # Contended: the answer tells the fence.
    play.client("c3").do("release")
    play.enter("during")
    _takes(play, "c1", timeout=5.0)
    play.inflict(KilledClient(clients=("c1",)))  # It raises no fence by a release.
    play.until(lambda: not play.keys(), "the dead holder's lock to expire")
    _takes(play, "c2", timeout=5.0)
    play.enter("after")


def top_up(play: Play) -> None:
    """C3: the lock vanished everywhere, somebody newer came and went; the old holder puts its lock back."""
    play.enter("before")
    _takes(play, "c1")
    _on_all(play)
    play.inflict(ClockMoved(nodes=NODES, seconds=30.0, lasting=True))
    play.enter("during")
    took = _takes(play, "c2", timeout=2.0)
    _uses(play, "c2")
    play.client("c2").do("release")
    extended = play.client("c1").do("extend")
    play.claim("the stage was set", took == "ok", took)
    play.claim("the old holder's extension succeeds", extended == "ok", extended)
    play.enter("after")


def top_up_refused(play: Play) -> None:
    """S41b: the same with sound clients: the extension proves that somebody newer has been."""
    play.enter("before")
    _takes(play, "c1")
    _on_all(play)
    play.client("c1").do("read")
    play.inflict(ClockMoved(nodes=NODES, seconds=30.0, lasting=True))
    play.enter("during")
    took = _takes(play, "c2", timeout=2.0)
    _uses(play, "c2")
    play.client("c2").do("release")
    extended = play.client("c1").do("extend")
    play.claim("the old holder's extension is refused for good", took == "ok" and extended == "lost", extended)
    wrote = play.client("c1").do("write")
    play.claim("and the store refuses it", wrote == "refused", wrote)
    play.enter("after")
