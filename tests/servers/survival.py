"""What befalls `redlock elect`, and whether its command is gone before anybody else may lead.

A round starts one, strikes it, and has a rival campaign from then on. The command ignores SIGTERM,
and has forked: both of its processes tell the time for as long as they live.
"""

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from redlock import Redlock
from redlock.core.quorum import majority
from redlock.embedded import Nodes
from redlock.supervise import LOST
from redlock.transport.clock import now

TTL = 2.0
TIMEOUT = 30.0
VALID = 0.99
"""Share of the ttl for which anything may be relied on; the rest is drift."""
LEADS = 0.15
"""Seconds for which the rival leads, and nothing else may run; and as long again when one that was
stopped goes on."""
IN_FLIGHT = 0.05
"""Seconds for what was sent before a strike to arrive."""

BEATS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, f"group {os.getpgrp()}\\n".encode())
os.fork()
while True:
    at = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    os.write(1, f"beat {at}\\n".encode())
    time.sleep(0.01)
"""
COMMAND = [sys.executable, "-S", "-E", "-c", BEATS]

STRUCK = """
import os
from redlock import supervise
tell, begin = supervise.Guard.tell, supervise.Child.begin
def struck(point):
    if point == "POINT":
        os.kill(os.getpid(), SIGNAL)
def told(self, group, kill_at):
    first = group and self._told is None
    if first:
        struck("before the guard knows")
    heard = tell(self, group, kill_at)
    if first:
        struck("between guard and gate")
    return heard
def begun(self, token, until):
    begin(self, token, until)
    struck("behind the gate")
supervise.Guard.tell, supervise.Child.begin = told, begun
from redlock.cli import main
main()
"""
"""redlock, which strikes itself as it starts the command."""
POINTS = ("before the guard knows", "between guard and gate", "behind the gate")


class Fault(NamedTuple):
    """What befalls a supervisor. *point*: an instant of its own, "at random" from its first
    instruction on, or at random "while it runs" the command; *signum*: what it gets; 0: its nodes
    are cut off instead, and *guard* is what its guard gets."""

    signum: int
    point: str = "at random"
    guard: int = 0


FAULTS = (
    *(
        Fault(signum, point)
        for signum in (signal.SIGKILL, signal.SIGSTOP)
        for point in (*POINTS, "at random", "while it runs")
    ),
    Fault(0),
    Fault(0, guard=signal.SIGSTOP),
    Fault(0, guard=signal.SIGKILL),
)


class Outcome(NamedTuple):
    """How a round ended. *began*: the command was seen to run when it was struck. *margin*: seconds
    of validity that were left when it was last seen alive; infinite if it never was. *alive*: it
    was seen alive later than that, while the lock was nobody's, or the rival's."""

    fault: Fault
    began: bool
    margin: float
    alive: bool


class Listener(threading.Thread):
    """Reads what a command says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.beats: list[float] = []
        self.groups: list[int] = []
        self.guard: int | None = None
        self.began = threading.Event()
        self.start()

    def run(self) -> None:
        """Up to the end of the pipe."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, value = line.partition(b" ")
            if word == b"group":
                self.groups.append(int(value))
            else:
                self.beats.append(float(value))
                self.began.set()


@contextlib.contextmanager
def elected(
    nodes: Nodes, name: str, fault: Fault
) -> Iterator[tuple[subprocess.Popen[bytes], Listener]]:
    """`redlock elect` with the command; nothing of it is left afterwards."""
    program = STRUCK.replace("SIGNAL", str(int(fault.signum))).replace("POINT", fault.point)
    words = ["elect", name, "--ttl", str(TTL), "--once", "--", *COMMAND]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "REDLOCK_NODES": " ".join(nodes.urls)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    listener = Listener(process)
    try:
        yield process, listener
    finally:
        process.kill()
        process.wait()
        if listener.guard is not None:  # Stopped, and its supervisor did not outlive it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(listener.guard, signal.SIGKILL)
            os.close(listener.guard)
        for group in listener.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        listener.join(TIMEOUT)
        assert process.stdout is not None
        process.stdout.close()


def strike(
    process: subprocess.Popen[bytes], listener: Listener, fault: Fault, chance: random.Random
) -> None:
    """Have it stopped or killed; come back when it is."""
    if fault.point not in POINTS:
        if fault.point == "while it runs":
            assert listener.began.wait(TIMEOUT)
        time.sleep(chance.uniform(0.0, TTL))
        process.send_signal(fault.signum)
    until = now() + TIMEOUT
    while (
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None
    ):
        assert now() < until, "it was never struck"
        time.sleep(0.002)


def cut_off(
    process: subprocess.Popen[bytes],
    listener: Listener,
    nodes: Nodes,
    fault: Fault,
    chance: random.Random,
) -> None:
    """Take a majority of the nodes away while the command runs, and the guard before."""
    assert listener.began.wait(TIMEOUT)
    time.sleep(chance.uniform(0.0, 1.0))
    if fault.guard:
        below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        # By a descriptor, which leads to no other process when this one has ended.
        listener.guard = os.pidfd_open(int(below[0]))
        signal.pidfd_send_signal(listener.guard, fault.guard)
    for node in nodes[: majority(len(nodes))]:
        node.pause()


def free_at(nodes: Nodes, name: str) -> float:
    """From when on a majority of the nodes may grant the lock to somebody else."""
    time.sleep(IN_FLIGHT)
    left: list[float] = []
    for node in nodes:
        with node.client() as client:
            at = now()
            left.append(at + max(0, int(client.pttl(f"redlock:{name}"))) / 1e3)
    return sorted(left)[majority(len(left)) - 1]


def survive(nodes: Nodes, fault: Fault, seed: int) -> Outcome:
    """One round on *nodes*, which nobody else uses meanwhile."""
    chance, name = random.Random(seed), f"job-{seed}"
    with elected(nodes, name, fault) as (process, listener):
        if fault.signum:
            strike(process, listener, fault, chance)
            free = free_at(nodes, name)
        else:
            cut_off(process, listener, nodes, fault, chance)
            free = now() + TTL * VALID
            time.sleep(TTL)
            for node in nodes:
                node.resume()
        began = listener.began.is_set()
        with (
            Redlock(nodes.urls, ttl=TTL) as locks,
            locks.election(name, candidate="rival").campaign(TIMEOUT),
        ):
            led_at = now()
            time.sleep(LEADS)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            time.sleep(LEADS)
            over_at = now()
        if not fault.signum:  # It outlived what befell it, and says what became of the term.
            assert process.wait(TIMEOUT) == LOST
        seen = [at for at in listener.beats if at < over_at]
        last = max(seen, default=float("-inf"))
        return Outcome(fault, began, free - last, last > min(free, led_at))


def many(rounds: int, first: int = 0, *, workers: int) -> list[Outcome]:
    """So many rounds, a few at once, each fault in its turn."""
    rooms: Queue[Nodes] = Queue()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            rooms.put(stack.enter_context(Nodes(3)))

        def one(seed: int) -> Outcome:
            nodes = rooms.get()
            try:
                return survive(nodes, FAULTS[seed % len(FAULTS)], seed)
            finally:
                rooms.put(nodes)

        # Before the servers end.
        return list(pool.map(one, range(first, first + rounds)))


def summary(outcomes: list[Outcome]) -> str:
    """How many, and the least margin of each fault."""
    lines = [f"{len(outcomes)} rounds, {sum(each.alive for each in outcomes)} alive too long"]
    for fault in dict.fromkeys(FAULTS):
        own = [each for each in outcomes if each.fault == fault]
        least = min((each.margin for each in own), default=float("inf"))
        began = sum(each.began for each in own)
        lines.append(f"{len(own):4} x {fault}: {began} began, least margin {least:.3f} s")
    return "\n".join(lines)
