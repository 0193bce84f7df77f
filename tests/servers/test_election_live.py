"""Candidates as processes: stopped, killed, forked, asked to resign by a signal, and ended by force
when their work does not stop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import redlock
from redlock import ElectionTimings, Redlock
from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.term import Mandate
from redlock.election import StopEvent
from redlock.embedded import Nodes
from redlock.hardstop import HARD_STOP_STATUS, HardStop
from redlock.ledger import Ledger, read
from redlock.transport.clock import now

PROGRAM = Path(__file__).with_name("candidate.py")
PATIENCE = 20.0
APIS = pytest.mark.parametrize("api", ["blocking", "asyncio"])


class Process:
    """A candidate's process and the lines that it says."""

    def __init__(self, nodes: Nodes, api: str, way: str = "plain") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), api, way, *nodes.urls],
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, word: str) -> list[str]:
        """The next line, which begins with *word*."""
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:1] == [word], words
        return words[1:]

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def candidate(nodes: Nodes, api: str, way: str = "plain") -> Iterator[Process]:
    process = Process(nodes, api, way)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


@APIS
def test_a_stopped_process_finds_its_term_ended_at_its_first_look(nodes: Nodes, api: str) -> None:
    """Another one led meanwhile; the reason names no other cause."""
    with candidate(nodes, api) as leading:
        tokens = [int(leading.says("leads")[0])]
        with candidate(nodes, api) as other:
            leading.send(signal.SIGSTOP)
            tokens.append(int(other.says("leads")[0]))
            leading.send(signal.SIGCONT)
            reason, _ = leading.says("ended")
            assert reason == "expired"
        tokens.append(int(leading.says("leads")[0]))
        assert tokens == sorted(set(tokens))


@APIS
def test_a_signal_resigns_in_order(nodes: Nodes, api: str) -> None:
    """Its handler may resign: the work ends, the lock is given back, and the next one leads
    before any ttl is over."""
    with candidate(nodes, api) as process:
        process.says("leads")
        process.send(signal.SIGTERM)
        if api == "blocking":
            assert process.says("asked") == ["False"]  # The work is below the handler.
        reason, in_time = process.says("ended")
        assert (reason, in_time) == ("resigned", "True")
        assert process.says("resigned") == ["follower"]
        assert process.ended() == 0
        with Redlock(nodes.urls) as locks:
            assert locks.election("scheduler").leader() is None
            lease = locks.lock("scheduler").acquire(blocking=False)
            assert lease is not None
            lease.release()


@pytest.mark.parametrize(
    ("api", "way"),
    [
        ("blocking", "ignores-the-stop"),
        ("asyncio", "ignores-cancel"),
        ("asyncio", "ignores-blocked"),
    ],
)
def test_a_hard_stop_ends_the_process_before_anybody_else_leads(
    own_nodes: Nodes, api: str, way: str
) -> None:
    """Work that ignores its stop, and a loop that is blocked: the process ends by its kill
    deadline, and nothing was released."""
    with candidate(own_nodes, api, way) as process:
        process.says("leads")
        for node in own_nodes[:3]:
            node.pause()
        began_at = now()
        assert process.ended() == HARD_STOP_STATUS
        assert now() - began_at < 1.0
        for node in own_nodes[:3]:
            node.resume()
        with own_nodes[4].client() as client:  # It was cut off from the others.
            assert client.get("redlock:scheduler") is not None or now() - began_at > 0.9


def test_a_term_is_not_its_childs(nodes: Nodes) -> None:
    """After a fork the child does not lead, and can campaign for itself."""
    with Redlock(nodes.urls, ttl=5.0) as locks:
        election = locks.election("scheduler")
        with election.campaign(timeout=10.0) as term:
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    assert not term.is_leader()
                    assert term.stop.is_set()
                    with contextlib.suppress(redlock.LeadershipLost):
                        term.ensure_leader()
                        os._exit(2)
                    assert election.leader() is not None
                    with contextlib.suppress(redlock.LockContended):
                        election.campaign(timeout=0)
                        os._exit(3)
                    status = 0
                os._exit(status)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert term.is_leader()
            term.verify()


@pytest.mark.parametrize("dropped", [True, False])
def test_a_hard_stop_is_for_a_term_that_somebody_has(dropped: bool) -> None:
    """Also where nobody has found out yet that it was dropped: what renews may not live any
    more."""
    pid = os.fork()
    if pid == 0:  # Which it ends, or not.
        timings = ElectionTimings(ttl=1.0)
        grant = Grant("r", "r", "r:fence", "o", 7, 60.0)
        holding = Holding(grant, 1.0, now(), now() + timings.kill_before + 0.1, frozenset({0}))
        HardStop(Mandate(holding, timings, now()), lambda: None if dropped else holding)
        time.sleep(1.0)
        os._exit(0)
    assert ended(pid) == (0 if dropped else HARD_STOP_STATUS)


def ended(pid: int) -> int:
    """The exit status of a child, which may hang; it is killed then."""
    until = now() + PATIENCE
    while now() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_while_another_thread_looks_leaves_the_child_free(nodes: Nodes) -> None:
    """What that thread held is nobody's in the child, which has no such thread."""
    with Redlock(nodes.urls, ttl=5.0) as locks:
        election = locks.election("scheduler")
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            with election._guard, term._stop._waiting:
                held.set()
                go.wait(PATIENCE)

        with election.campaign(timeout=10.0) as term:
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait(PATIENCE)
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    assert term.stop.is_set()
                    with contextlib.suppress(redlock.LockContended):
                        election.campaign(timeout=0)
                        os._exit(2)
                    status = 0
                os._exit(status)
            try:
                assert ended(pid) == 0
            finally:
                go.set()
                thread.join()


def test_a_handler_may_resign_whatever_its_thread_is_at(nodes: Nodes) -> None:
    """Hundreds of times at random instants, in the midst of waits, looks and campaigns: it never
    hangs, and nothing is left on the nodes."""
    dice = random.Random(14)
    with Redlock(nodes.urls, ttl=2.0) as locks:
        election = locks.election("scheduler", stall_timeout=1.0)

        def work(term: redlock.Term) -> None:
            while not term.stop.wait(dice.uniform(0.0, 0.002)):
                term.tick()
                term.is_leader()

        before = signal.signal(signal.SIGALRM, lambda *_: election.resign())
        try:
            for _ in range(150):
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.02))
                election.run(work)
                signal.setitimer(signal.ITIMER_REAL, 0.0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        with locks.lock("scheduler", timeout=5.0):
            pass


def test_a_stop_event_wakes_whoever_waits() -> None:
    """At once where another thread sets it; it stays set."""
    event = StopEvent()
    assert not event.wait(0.0)
    assert not event.wait(0.05)
    waits = [threading.Thread(target=event.wait) for _ in range(3)]
    for thread in waits:
        thread.start()
    event.set()
    for thread in waits:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    event.clear()
    assert event.is_set()
    assert event.wait()


# One that strikes in a `__del__` of redis-py, of a connection that was given up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_at_a_random_moment_of_an_election_leaves_nothing(nodes: Nodes) -> None:
    """Whether it campaigned, worked, or told: what was begun is ended, and another can lead at
    once."""
    dice = random.Random(41)

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    told: list[str] = []
    try:
        with Redlock(nodes.urls, ttl=5.0) as locks:
            election = locks.election(
                "scheduler",
                on_started=lambda term: told.append("started"),
                on_stopped=lambda term, reason: told.append("stopped"),
            )
            for _ in range(60):
                with contextlib.suppress(KeyboardInterrupt):
                    # Again after half a second: Python forgets one that strikes in a `__del__`.
                    signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.012), 0.5)
                    election.run(lambda term: term.stop.wait(0.004))
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            with locks.lock("scheduler", timeout=2.0):  # Well before the ttl of any.
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_a_ledger_is_written_and_read(nodes: Nodes, tmp_path: Path) -> None:
    """One line a record, also of two candidates; a line that was cut short is left out."""
    path = tmp_path / "terms.jsonl"
    with (
        Ledger(path) as first,
        Ledger(path) as second,
        Redlock(nodes.urls, ttl=2.0, on_event=first) as locks,
        Redlock(nodes.urls, ttl=2.0, on_event=second) as more,
    ):
        for coordinator, name in ((locks, "a"), (more, "b"), (locks, "a")):
            with coordinator.election("scheduler", candidate=name).campaign(timeout=10.0):
                time.sleep(0.01)
    entries = list(read(path))
    kinds = [type(entry.record).__name__ for entry in entries]
    assert kinds == ["TermStarted", "TermStopping", "TermStopped", "TermEnded"] * 3
    assert [entry.record.candidate for entry in entries[::4]] == ["a", "b", "a"]
    tokens = [entry.record.fencing_token for entry in entries]
    assert tokens == sorted(tokens)
    assert all(entry.pid == os.getpid() for entry in entries)
    with path.open("a") as file:
        file.write('{"kind": "TermSt')
    assert len(list(read(path))) == len(entries)
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="line 13"):
        list(read(path))
