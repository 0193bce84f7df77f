"""Contention: processes of both APIs on one resource while nodes die and stop, and crowds in one
process.

`REDLOCK_CONTENTION_SECONDS` sets how long the processes contend: short in the suite, longer for a
soak.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from redlock.observe import TryStarted
from redlock.transport.clock import now
from tests.contract.api import ASYNCIO, PATIENCE, Api, Journal, Servers, paused, until

SECONDS = float(os.environ.get("REDLOCK_CONTENTION_SECONDS", "7"))
WORKERS = ("blocking", "asyncio", "blocking", "asyncio")
MAX_TTL = 3.0
"""So short that a node which forgot votes again within the run: its quarantine lasts about four
seconds."""
PROGRESS = 1
"""Grants a second that a busy machine must reach; an idle one reaches some thirty."""


@pytest.fixture
def short_lived() -> Iterator[Nodes]:
    with Nodes(5, max_ttl=MAX_TTL) as nodes:
        yield nodes


def start(api: str, nodes: Nodes) -> subprocess.Popen[str]:
    """One contending process; it says when it is ready, and waits to be told its end."""
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            Path(__file__).with_name("worker.py"),
            api,
            "orders",
            *nodes.urls,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def hurt(nodes: Nodes, end_at: float) -> int:
    """Kill and restart one node, stop another for a moment, and go on until *end_at*; never a
    majority at once."""
    chance = random.Random(7)
    killed = 0
    back_at = now()
    while (left := end_at - now()) > 1.0:
        if now() >= back_at:
            nodes[killed % 5].restart()
            killed += 1
            # Until it votes again; two that forget at once would be a majority's half.
            back_at = now() + MAX_TTL * 1.02 + 2.0
        with paused([nodes[(killed + 1 + chance.randrange(3)) % 5]]):
            time.sleep(min(left, chance.choice([0.05, 0.3, 0.8])))
        time.sleep(chance.random() * 0.3)
    return killed


@pytest.mark.timeout(SECONDS + 100)
def test_processes_never_hold_the_lock_together(short_lived: Nodes) -> None:
    """No two intervals from grant to release or deadline overlap, and a later grant has a larger
    token.

    On the lease clock, which all processes of one machine share. Meanwhile one node is killed and
    restarted empty, and others stop for a moment; the locks go on being granted.
    """
    processes = [start(api, short_lived) for api in WORKERS]
    try:
        for process in processes:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline() or "{}") == {"ready": True}
        # Only now: on a busy machine it takes seconds until all four run.
        end_at = now() + SECONDS
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{end_at}\n")
            process.stdin.flush()
        killed = hurt(short_lived, end_at)
        told = []
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE + 10)
            assert (process.returncode, err) == (0, "")
            told.append(json.loads(out))
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    grants = sorted(
        (grant for one in told for grant in one["grants"]), key=lambda grant: float(grant["from"])
    )
    overlaps = [
        (one, other) for one, other in itertools.pairwise(grants) if other["from"] < one["until"]
    ]
    unordered = [
        (one, other) for one, other in itertools.pairwise(grants) if other["token"] <= one["token"]
    ]
    figures = {
        "seconds": SECONDS,
        "grants": len(grants),
        "by worker": [len(one["grants"]) for one in told],
        "contended": sum(one["contended"] for one in told),
        "unavailable": sum(one["unavailable"] for one in told),
        "lost": sum(one["lost"] for one in told),
        "killed": killed,
    }
    sys.stdout.write(f"{figures}\n")
    assert overlaps == []
    assert unordered == []
    assert killed >= 1
    assert len(grants) >= PROGRESS * SECONDS, figures
    assert all(one["grants"] for one in told), figures
    with Servers(short_lived) as servers:
        give_up_at = now() + 10.0
        while servers.lock_keys():
            assert now() < give_up_at, servers.lock_keys()


def test_more_threads_than_connection_sets(nodes: Nodes, servers: Servers) -> None:
    """Fifty threads on one coordinator, each on its own lock and on a shared one: every one gets
    all its locks, in turn."""
    threads, pairs = 50, 6
    failures: list[BaseException] = []
    tokens: list[int] = []
    inside = 0
    begin = threading.Barrier(threads)

    def work(number: int, locks: redlock.Redlock) -> None:
        nonlocal inside
        try:
            begin.wait(PATIENCE)
            for _ in range(pairs):
                with (
                    locks.lock(f"orders:{number}", timeout=PATIENCE),
                    locks.lock(f"orders:{number}:inner", timeout=0),
                ):
                    pass
            for _ in range(2):
                with locks.lock("shared", timeout=60.0) as lease:
                    inside += 1
                    assert inside == 1
                    tokens.append(lease.fencing_token)
                    inside -= 1
        except BaseException as error:  # It is the test's to raise.
            failures.append(error)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # A race between two lines is found more often.
    try:
        with redlock.Redlock(nodes.urls, ttl=30.0, node_timeout=2.0, retry_delay=0.02) as locks:
            crowd = [
                threading.Thread(target=work, args=(number, locks), daemon=True)
                for number in range(threads)
            ]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join(90.0)
            assert not any(thread.is_alive() for thread in crowd)
    finally:
        sys.setswitchinterval(switching)
    assert failures == []
    assert len(tokens) == threads * 2
    assert tokens == sorted(set(tokens))
    assert not servers.lock_keys()


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Nodes]:
    with Nodes(3) as nodes:
        yield nodes


async def test_one_busy_one_behind_one_granting_is_a_majority(api: Api, three_nodes: Nodes) -> None:
    """Three healthy nodes, one in another's hands and one with a fence ahead of ours: the second
    round has its full time.

    Whatever the order of the answers, so a few times. The grant of the first round decides nothing
    by itself, and may have been kept back until its end.
    """
    tries: list[list[Any]] = []
    for number in range(12):
        resource = f"orders:{number}"
        with Servers(three_nodes) as servers:
            servers.clients[number % 3].set(f"redlock:{resource}", "somebody:1", px=60_000)
            ahead = int(time.time() * 1e6) + 20_000_000
            servers.clients[(number + 1) % 3].set(f"redlock:{resource}:fence", ahead)
        journal = Journal(api)
        async with api.redlock(three_nodes.urls, on_event=journal) as locks:
            lease = await locks.lock(resource).acquire(blocking=False)
            assert lease is not None
            assert lease.fencing_token > ahead
        tries.append([record.owner for record in journal.of(TryStarted)])
    assert all(len(owners) == 2 and len(set(owners)) == 1 for owners in tries)


async def test_a_thousand_tasks_with_a_lock_each(nodes: Nodes, servers: Servers) -> None:
    """All at once on one coordinator: every one is granted at its first try, held by a majority,
    and given back."""
    held: set[str] = set()

    async def work(number: int, locks: redlock.asyncio.Redlock) -> None:
        async with locks.lock(f"orders:{number}", timeout=PATIENCE) as lease:
            held.add(lease.owner)
            if len(held) == 1000:
                everybody.set()
            await everybody.wait()
            assert lease.is_held()

    everybody = asyncio.Event()
    async with redlock.asyncio.Redlock(nodes.urls, ttl=60.0, node_timeout=5.0) as locks:
        await asyncio.wait_for(
            asyncio.gather(*[work(number, locks) for number in range(1000)]), 90.0
        )
    assert len(held) == 1000
    assert await until(ASYNCIO, lambda: not servers.lock_keys())


async def test_a_hundred_tasks_on_one_lock(nodes: Nodes, servers: Servers) -> None:
    """One at a time, each once, with growing tokens; nobody is forgotten."""
    tokens: list[int] = []
    inside: list[int] = []

    async def work(number: int, locks: redlock.asyncio.Redlock) -> Any:
        async with locks.lock("shared", timeout=90.0) as lease:
            inside.append(number)
            assert inside == [number]
            await asyncio.sleep(0)
            tokens.append(lease.fencing_token)
            inside.remove(number)

    async with redlock.asyncio.Redlock(
        nodes.urls, ttl=30.0, node_timeout=2.0, retry_delay=0.02
    ) as locks:
        await asyncio.wait_for(
            asyncio.gather(*[work(number, locks) for number in range(100)]), 90.0
        )
    assert len(tokens) == 100
    assert tokens == sorted(set(tokens))
    assert await until(ASYNCIO, lambda: not servers.lock_keys())
