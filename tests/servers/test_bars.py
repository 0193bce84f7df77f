"""What can be counted about speed and cleanliness; what must be timed is a benchmark's business,
not a test's."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

import redlock
import redlock.asyncio
from redlock.embedded import Nodes
from tests.proxy import late_proxies

PAIRS = 1000
WORKER = """
import asyncio, sys
import redlock, redlock.asyncio

mode, pairs, urls = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

def meet():
    print("ready", flush=True)
    sys.stdin.readline()

def blocking():
    with redlock.Redlock(urls) as locks:
        for stage in (100, pairs):
            for _ in range(stage):
                locks.lock("counted").acquire().release()
            meet()

async def tasks():
    async with redlock.asyncio.Redlock(urls) as locks:
        for stage in (100, pairs):
            for _ in range(stage):
                lease = await locks.lock("counted").acquire()
                await lease.release()
            meet()

blocking() if mode == "blocking" else asyncio.run(tasks())
"""


def count_system_calls(mode: str, urls: list[str]) -> dict[str, int]:
    """System calls of PAIRS acquire+release pairs, after a warm-up, by name."""
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, mode, str(PAIRS), *urls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "ready\n"
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-p", str(worker.pid)], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        if "attached" not in attached:
            tracer.wait()
            pytest.skip(f"strace may not attach here: {attached.strip()}")
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "ready\n"
        tracer.send_signal(signal.SIGINT)
        summary = tracer.communicate()[1]
    finally:
        worker.stdin.close()
        worker.wait()
        worker.stdout.close()
    rows = re.findall(
        r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", summary, re.MULTILINE
    )
    return {name: int(calls) for calls, name in rows if name != "total"}


@pytest.mark.alone
@pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="strace is not on the PATH (Debian: apt-get install strace)",
)
@pytest.mark.parametrize(("mode", "spare"), [("blocking", 4), ("asyncio", 8)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_pair_costs_the_system_calls_it_cannot_avoid(mode: str, spare: int, size: int) -> None:
    """Acquire and release on n nodes: 4n + 4 calls blocking, 4n + 8 in asyncio, no memory
    mapping and no futex for each."""
    with Nodes(size) as nodes:
        calls = count_system_calls(mode, nodes.urls)
    assert sum(calls.values()) / PAIRS <= 4 * size + spare, calls
    # A new arena of the allocator, once in a thousand pairs, is not a call per pair.
    assert calls.get("mmap", 0) + calls.get("munmap", 0) <= 3, calls
    # Nor are the two or three futexes for which the thread that hears of hang-ups has the
    # interpreter, twice a second.
    assert calls.get("futex", 0) <= PAIRS // 50, calls


@pytest.fixture
def slow_urls(nodes: Nodes) -> Iterator[list[str]]:
    """The nodes behind a uniform round trip of 10 ms."""
    with late_proxies(nodes, delay=0.005) as proxies:
        yield [proxy.url for proxy in proxies]


@pytest.mark.alone
def test_the_first_use_takes_two_round_trips_after_tcp(nodes: Nodes) -> None:
    """Connect, identity and first acquire: one flight for admission, one for the lock, on every
    connection."""
    with late_proxies(nodes, delay=0.005) as proxies:
        with redlock.Redlock([proxy.url for proxy in proxies]) as locks:
            lease = locks.lock("first").acquire()
            flights = [proxy.flights[:] for proxy in proxies]
            assert lease is not None
        assert flights == [[2]] * 5

        async def first() -> None:
            async with redlock.asyncio.Redlock([proxy.url for proxy in proxies]) as locks:
                lease = await locks.lock("first").acquire()
                assert lease is not None
                assert [proxy.flights[1:] for proxy in proxies] == [[2]] * 5

        asyncio.run(first())


def lock_keys(nodes: Nodes) -> list[bytes]:
    """Every key of every node that is neither a marker nor a fence."""
    left: list[bytes] = []
    for node in nodes:
        with node.client() as client:
            left += [
                key
                for key in client.scan_iter()
                if key != b"redlock:node" and not key.endswith(b":fence")
            ]
    return left


@pytest.mark.parametrize("api", ["blocking", "asyncio"])
def test_no_ghost_lock_stays_when_chunks_come_late(nodes: Nodes, api: str) -> None:
    """A tenth of all chunks 60 ms late, 150 pairs: a release never overtakes its acquire, so no
    key stays behind."""
    with late_proxies(nodes, delay=0.002, late=0.06, share=0.1) as proxies:
        urls = [proxy.url for proxy in proxies]
        if api == "blocking":
            with redlock.Redlock(urls) as locks:
                for number in range(150):
                    lease = locks.lock(f"ghost-{number}", timeout=5.0).acquire()
                    assert lease is not None
                    lease.release()
                locks.nodes()  # Its answers come behind everything that was written before.
                assert lock_keys(nodes) == []
        else:

            async def pairs() -> None:
                async with redlock.asyncio.Redlock(urls) as locks:
                    for number in range(150):
                        lease = await locks.lock(f"ghost-{number}", timeout=5.0).acquire()
                        assert lease is not None
                        await lease.release()
                    await locks.nodes()
                    assert lock_keys(nodes) == []

            asyncio.run(pairs())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_stopped_node_makes_nothing_grow_for_threads(own_nodes: Nodes) -> None:
    """Three hundred pairs with one node stopped, warm and cold: no thread and no descriptor
    more."""
    with redlock.Redlock(own_nodes.urls) as locks:
        for _ in range(20):
            assert locks.lock("stopped").acquire().release()  # type: ignore[union-attr]
        before = descriptors(), threading.active_count()
        own_nodes[1].pause()
        for _ in range(300):
            assert locks.lock("stopped").acquire().release()  # type: ignore[union-attr]
        # One dial may be in progress.
        assert descriptors() <= before[0] + 1
        assert threading.active_count() <= before[1] + 1
    with redlock.Redlock(own_nodes.urls) as locks:
        for _ in range(300):
            assert locks.lock("stopped").acquire().release()  # type: ignore[union-attr]
        assert descriptors() <= before[0] + 1
        assert threading.active_count() <= before[1] + 1
    own_nodes[1].resume()


def test_a_stopped_node_makes_nothing_grow_for_tasks(own_nodes: Nodes) -> None:
    """The same in asyncio: no task and no descriptor more."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(own_nodes.urls) as locks:

            async def pairs(count: int) -> None:
                for _ in range(count):
                    lease = await locks.lock("stopped").acquire()
                    assert lease is not None
                    assert await lease.release()

            await pairs(20)
            before = descriptors(), len(asyncio.all_tasks())
            own_nodes[1].pause()
            await pairs(300)
            assert descriptors() <= before[0] + 1
            assert len(asyncio.all_tasks()) <= before[1] + 1

    asyncio.run(run())
    own_nodes[1].resume()


LEAVER = """
import sys, redlock
locks = redlock.Redlock(sys.argv[1:])
lease = locks.lock("leaver").acquire()
lease.release()
print("done", flush=True)
"""


@pytest.mark.alone
@pytest.mark.parametrize("password", [False, True])
def test_a_process_ends_at_once_while_a_node_is_stopped(own_nodes: Nodes, password: bool) -> None:
    """Nothing of ours holds an interpreter back that wants to exit, not even a handshake that
    nobody answers."""
    urls = own_nodes.urls
    if password:
        for node in own_nodes:
            with node.client() as client:
                client.config_set("requirepass", "s3cret")
        urls = [url.replace("redis://", "redis://:s3cret@") for url in urls]
    own_nodes[1].pause()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LEAVER, *urls], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    ended = os.pidfd_open(process.pid)
    try:
        assert select.select([ended], [], [], 0.5)[0], (
            "the process was still there after half a second"
        )
    finally:
        os.close(ended)
        process.kill()
        process.wait()
        process.stdout.close()
        own_nodes[1].resume()


def test_the_coordinator_of_one_node_warns_what_that_costs() -> None:
    """One node works, and says that it is a plain lock."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="1 node is a plain lock"):
            redlock.Redlock(["redis://127.0.0.1:1"])
