"""What losses must not cost: backups of all nodes at once, and a node that comes back while another
one is down.

Each is played with servers of its own, and ends with what it found wrong, as a run of a way does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from chaos.checker import Assumptions, check
from chaos.history import Broken, Record, Seen
from chaos.live.memories.clients import Client
from chaos.live.memories.run import Case, Result
from chaos.live.memories.stage import Stage
from redlock.core.events import LeaseLapsed, NodeQuarantined, NodeRejected, TryFailed
from redlock.core.quarantine import quarantine_span
from redlock.initialise import initialise
from redlock.transport.clock import now

__all__ = ["CLAIMS"]

_TTL = 0.5
_LONG_TTL = 3.0
"""Where nothing may be lost: with the node timeout that goes with it, a busy machine is no
reason either."""
_BACKUPS = 10
_BACKLOG_TTL = 1
"""Seconds after its last replica in which a server gives up its backlog, and takes another
replication id once more."""
_APART = 1.0
"""Seconds between two renamings, longer than a try: a try asks a node that was renamed once
more, and only once."""
_BACK_WITHIN = 20.0
_OTHER = {"blocking": "asyncio", "asyncio": "blocking"}


def _client(stage: Stage, name: str, api: str, history: list[Record], ttl: float = _TTL) -> Client:
    options = {"ttl": ttl, "node_timeout": 0.3 * ttl, "retry_delay": 0.02}
    return Client(name, api, stage.urls_of(name), stage.client_loop, history, **options)


class _Load:
    """Clients at work: each keeps a lease of its own that is renewed, takes and gives back a
    lock of its own, and, where nothing else is asked for, the one lock of all."""

    def __init__(self, clients: list[Client], *, shared: bool) -> None:
        self.failed: list[str] = []
        self.slowest = 0.0
        self.rounds = 0
        self.kept = []
        self._ending = threading.Event()
        for client in clients:
            self.kept.append(
                client.acquire(
                    resource=f"kept by {client.name}", timeout=_BACK_WITHIN, auto_extend=True
                )
            )
        self._threads = [
            threading.Thread(target=self._work, args=(client, shared), daemon=True)
            for client in clients
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, client: Client, shared: bool) -> None:
        while not self._ending.is_set():
            began = now()
            lease = client.acquire(resource=None if shared else f"taken by {client.name}")
            if lease is None:
                self.failed.append(f"{client.name}: {client.said}")
                self._ending.wait(0.02)
                continue
            self.slowest = max(self.slowest, now() - began)
            self.rounds += 1
            client.release(lease)
            self._ending.wait(0.01)

    def end(self) -> None:
        """Stop working; the kept leases are given back with their clients."""
        self._ending.set()
        for thread in self._threads:
            thread.join()


def _backups(case: Case, *, promised: bool) -> Result:
    """Every node is backed up at once, ten times, while clients of both APIs work."""
    result = Result(case, counts=True)
    history = result.history
    with Stage() as stage:
        for number in stage.numbers:
            stage.ask(number, "CONFIG", "SET", "repl-backlog-ttl", _BACKLOG_TTL)
        ttl = _LONG_TTL if promised else _TTL
        initialise(stage.urls, max_ttl=ttl, never_replicas=promised)
        apis = [case.api, _OTHER[case.api]] * 2
        clients = [
            _client(stage, name, api, history, ttl) for name, api in zip("ABCD", apis, strict=True)
        ]
        load = _Load(clients, shared=not promised)
        memories: set[tuple[int, str]] = set()
        for _ in range(_BACKUPS):
            history.append(
                Broken(now(), "", "backup", "every node is backed up", nodes=tuple(stage.numbers))
            )
            with ThreadPoolExecutor(len(stage.numbers)) as pool:
                list(pool.map(stage.back_up, stage.numbers))
            now_named = {(number, stage.info(number, "master_replid")) for number in stage.numbers}
            memories |= now_named
            if promised:
                _until_renamed(stage, now_named)
                time.sleep(_APART)
            else:
                time.sleep(0.3)
        load.end()
        if not promised and (lease := clients[0].acquire(timeout=_BACK_WITHIN)) is not None:
            clients[0].release(lease)
            load.rounds += 1
        elif not promised:
            result.stuck, result.problem = (
                True,
                f"no majority within {_BACK_WITHIN:g} s: {clients[0].said}",
            )
        # Before anybody closes: in asyncio that ends a lease whose taker is gone, and says so.
        cost = _lost(list(history), load) if promised else _unsaid(history, load)
        for client in clients:
            client.close()
        found = [
            f"{each.property}: {each.text}"
            for each in check(history, Assumptions(order=False), now())
        ]
        result.violations = found + cost
        if len(memories) < (_BACKUPS if promised else 1) * stage.count:
            result.problem, result.counts = (
                f"only {len(memories)} replication ids were seen: nothing was tried",
                False,
            )
        result.grants, result.back = load.rounds, load.slowest
    return result


def _until_renamed(stage: Stage, known: set[tuple[int, str]]) -> None:
    """Until every server has given up its backlog, so that the next backup finds it as the first
    one did."""
    give_up_at = now() + _BACK_WITHIN
    while any((number, stage.info(number, "master_replid")) in known for number in stage.numbers):
        if now() > give_up_at:
            raise RuntimeError("a server kept its replication id")
        time.sleep(0.05)


def _lost(history: list[Record], load: _Load) -> list[str]:
    """What the backups cost, though it is promised that there are no replicas: nothing."""
    events = [record.event for record in history if isinstance(record, Seen)]
    cost = [
        f"{event}"
        for event in events
        if isinstance(event, LeaseLapsed | NodeQuarantined | NodeRejected | TryFailed)
    ]
    return cost + load.failed


def _unsaid(history: list[Record], load: _Load) -> list[str]:
    """Whether somebody who was refused was not told why."""
    quarantined = [
        record.event
        for record in history
        if isinstance(record, Seen) and isinstance(record.event, NodeQuarantined)
    ]
    said = [text for text in load.failed if "its replication id changed" in text]
    missing = (
        []
        if quarantined
        and all("its replication id changed" in event.reason for event in quarantined)
        else ["not said"]
    )
    return missing + ([] if said else ["no try was refused for it, so the backups cost nothing"])


def _comes_back(case: Case, *, count: int) -> Result:
    """One node is down, another one restarts without its data: it votes again after its
    quarantine, and a majority needs it."""
    result = Result(case, counts=True)
    history = result.history
    with Stage(count) as stage:
        initialise(stage.urls, max_ttl=_TTL)
        other = _client(stage, "A", _OTHER[case.api], history)
        client = _client(stage, "B", case.api, history) if case.old else None
        for each in (other, client):
            if each is not None and (lease := each.acquire(timeout=_BACK_WITHIN)) is not None:
                each.release(lease)
        stage.kill(1)
        if count == 5:
            stage.restart(2, empty=True)
            lost_at = now()
            stage.kill(5)  # The other three are a majority only with the one that forgot.
        else:
            stage.restart(2, empty=True)
            lost_at = now()
        client = client or _client(stage, "B", case.api, history)
        lease = None
        while lease is None and now() < lost_at + _BACK_WITHIN:
            lease = client.acquire(timeout=_BACK_WITHIN)
        result.back = now() - lost_at
        if lease is None:
            result.stuck, result.problem = (
                True,
                f"no majority within {_BACK_WITHIN:g} s: {client.said}",
            )
        else:
            result.grants = 1
            client.release(lease)
            span = quarantine_span(_TTL)
            # A fresh client counts the wait from the restart, in whole seconds of the server.
            if result.back < span - 1.1:
                result.violations.append(f"it voted after {result.back:.2f} s of {span:.2f} s")
            if result.back > span + 5.0:
                result.violations.append(
                    f"it came back after {result.back:.2f} s, with a quarantine of {span:.2f} s"
                )
        for each in (other, client):
            each.close()
    return result


CLAIMS: dict[str, Callable[[Case], Result]] = {
    "backups-promised": partial(_backups, promised=True),
    "backups": partial(_backups, promised=False),
    "back-of-3": partial(_comes_back, count=3),
    "back-of-5": partial(_comes_back, count=5),
}
"""By name: ten backups of all nodes with and without the promise that there are no replicas, and
a node that comes back while another one of three, or of five, is down."""
