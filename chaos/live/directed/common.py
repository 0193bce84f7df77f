"""What scripts share: orders to puppets, and waits for what shows on the nodes and in the store."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable

from chaos.history import Accepted, Record, Seen
from chaos.live.backend import side_client
from chaos.live.crew import PATIENCE, Timeout
from chaos.live.play import Play
from redlock.core.events import LeaseGranted, TryStarted

__all__ = [
    "NODES",
    "Watched",
    "asked_at",
    "granted",
    "holds",
    "find_leader",
    "nothing_left",
    "on_all",
    "scripts_run",
    "takes",
    "touched",
    "uses",
    "warm",
]


NODES = (1, 2, 3, 4, 5)
_EXTENSIONS = 5


def uses(play: Play, client: str) -> None:
    """A puppet that holds reads and writes the guarded store."""
    member = play.client(client)
    member.do("read")
    member.do("write")


def touched(play: Play, *clients: str, since: int) -> None:
    """Wait until one of *clients* has had an access to the guarded store."""

    def wanted(record: Record) -> bool:
        return (
            isinstance(record, Accepted)
            and record.client in clients
            and record.resource == play.resource
        )

    play.wait(wanted, f"an access by {' or '.join(clients)}", since=since)


def takes(play: Play, client: str, **how: object) -> str:
    """A puppet's acquire; "ok", or why not."""
    return play.client(client).do("acquire", **how)


def holds(play: Play, client: str, what: str) -> None:
    looked = play.client(client).do("look")
    play.claim(what, looked == "held", looked)


def on_all(play: Play, client: str) -> None:
    """Wait until every node holds the client's lock. A vote is decided before the last node has
    answered, and one that was still being met then is asked no more: it gets the lock by an
    extension.
    """

    def everywhere() -> bool:
        return len(play.keys()) == len(play.cluster.numbers)

    for _ in range(_EXTENSIONS):
        with contextlib.suppress(Timeout):
            play.until(everywhere, "the lock on all nodes", timeout=play.ttl / 4)
            return
        play.client(client).do("extend")
    play.until(everywhere, "the lock on all nodes")


def find_leader(play: Play) -> str:
    """Whoever is granted the lock first."""
    grant = play.granted()
    return next(record.client for record in granted(play) if record.event == grant)


def granted(play: Play) -> list[Seen]:
    """All grants so far."""
    return [
        record
        for record in play.journal.records()
        if isinstance(record, Seen) and isinstance(record.event, LeaseGranted)
    ]


def asked_at(play: Play, granted: Seen) -> float:
    """When the try of a grant began."""
    assert isinstance(granted.event, LeaseGranted)
    return min(
        record.at
        for record in play.journal.records()
        if isinstance(record, Seen)
        and isinstance(record.event, TryStarted)
        and record.event.owner == granted.event.owner
    )


class Watched:
    """A process that is to end, whoever its parent is. Wait for that once."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def ends(self, play: Play, what: str) -> float:
        """When it had ended. One that does not is killed, and *what* is a claim that does not
        hold."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        ended = bool(poll.poll(PATIENCE * 1000))
        at = play.now()
        if not ended:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        os.close(self._descriptor)
        play.claim(what, ended)
        return at


def nothing_left(play: Play, what: str = "no key is left once the clients are done") -> None:
    play.until(lambda: not play.keys(), "the lock to be gone everywhere")
    play.claim(what, True)


def scripts_run(play: Play, nodes: Iterable[int]) -> list[int]:
    """How many scripts each node has run."""
    counts = []
    for number in nodes:
        with side_client(play.cluster.node(number)) as client:
            stats = client.info("commandstats")
            counts.append(
                sum(
                    stats.get(f"cmdstat_{verb}", {}).get("calls", 0) for verb in ("eval", "evalsha")
                )
            )
    return counts


def warm(play: Play, *clients: str) -> None:
    """Let clients meet the nodes, on a lock of their own."""
    for client in clients:
        took = takes(play, client, resource=f"{play.resource}:{client}")
        play.client(client).do("release", resource=f"{play.resource}:{client}")
        play.claim(f"{client} knows the nodes", took == "ok", took)
