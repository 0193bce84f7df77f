"""The web worker of the examples: as several processes, of which the one that leads is killed; and
its lifespan in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.web_worker import App, Digests, StaleToken
from redlock import Redlock
from redlock.embedded import Nodes

from .crew import PATIENCE, Crew
from .serve import START, STOP, Server

Digest = tuple[float, float, int, int]
PERIOD = 0.5


def digests(path: Path) -> list[Digest]:
    """What the database was given: since, until, token, process."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM digests ORDER BY rowid").fetchall()


def wrong(found: list[Digest]) -> list[str]:
    """What must not be in the database."""
    return [
        f"{before} and {after}"
        for before, after in pairwise(found)
        if after[0] != before[1] or after[2] < before[2]
    ]


def page(crew: Crew, pid: int) -> dict[str, Any]:
    """What a worker knows."""
    heard = len(crew.said)
    crew.write(pid, "get\n")
    while True:
        who, heard = crew.hear("^200 ", after=heard)
        if who == pid:
            answer: dict[str, Any] = json.loads(crew.said[heard - 1][1].partition(" ")[2])
            return answer


def page_with(crew: Crew, pid: int, *, leader_not: int, digests: int) -> dict[str, Any]:
    """Ask a worker until somebody else leads, and there are so many digests."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = page(crew, pid)
        leader = answer["leader"]
        if leader and leader["pid"] != leader_not and answer["digests"] >= digests:
            return answer
        time.sleep(0.05)
    raise AssertionError(crew.told())


def test_a_run_that_was_missed_is_caught_up_with_when_a_leader_is_killed(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Each digest begins where the last one ended, also where nobody led for a while; every worker
    knows who leads, and ends in order."""
    path = tmp_path / "digest.db"
    environment = {"DIGEST_DB": str(path), "DIGEST_PERIOD": str(PERIOD), "DIGEST_TTL": "2"}
    with Crew(nodes.urls, environment) as crew:
        pids = [crew.start("tests/examples/serve.py") for _ in range(3)]
        leader = page_with(crew, pids[0], leader_not=0, digests=2)["leader"]["pid"]
        crew.tell(leader, signal.SIGKILL)
        assert crew.end(leader) == -signal.SIGKILL
        before = len(digests(path))
        left = [pid for pid in pids if pid != leader]
        assert page_with(crew, left[0], leader_not=leader, digests=before + 2)["pid"] == left[0]
        for pid in left:
            stdin = crew.processes[pid].stdin
            assert stdin is not None
            stdin.close()
        assert [crew.end(pid) for pid in left] == [0, 0], crew.told()
    found = digests(path)
    assert not wrong(found), crew.told()
    # A lease of two seconds had at least the time to the next renewal to go.
    assert max(until - since for since, until, *_ in found) > 2 * PERIOD
    assert {leader} < {pid for *_, pid in found}


@pytest.fixture
def environment(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the application reads."""
    monkeypatch.setenv("REDLOCK_NODES", ",".join(nodes.urls))
    monkeypatch.setenv("DIGEST_DB", str(tmp_path / "digest.db"))


async def elected(app: App) -> None:
    """Wait until it leads."""
    assert app.election is not None
    async with asyncio.timeout(PATIENCE):
        async for leader in app.election.observe():
            if leader is not None:
                return


@pytest.mark.usefixtures("environment")
def test_a_lifespan_leaves_nothing_behind(nodes: Nodes) -> None:
    """It serves from the start on, and the lock is free behind its shutdown."""

    async def live() -> None:
        async with Server(App()) as server:
            await elected(server.app)
            status, body = await server.get()
            assert (status, json.loads(body)["leader"]) == (200, {"pid": os.getpid()})

    asyncio.run(live())
    with Redlock(nodes.urls) as locks:
        assert locks.status("digest").holder is None


@pytest.mark.usefixtures("environment")
def test_a_server_that_stops_at_once_is_not_kept() -> None:
    """Its shutdown may be there before the candidate has had a turn."""

    async def live() -> list[str]:
        told = iter((START, STOP))
        said: list[str] = []

        async def receive() -> dict[str, Any]:
            return next(told)

        async def send(message: dict[str, Any]) -> None:
            said.append(message["type"])

        async with asyncio.timeout(PATIENCE / 2):
            await App()({"type": "lifespan"}, receive, send)
        return said

    assert asyncio.run(live()) == [f"{each['type']}.complete" for each in (START, STOP)]


@pytest.mark.usefixtures("environment")
def test_health_tells_when_nobody_stands_for_election_any_more() -> None:
    """A page is an error then, and the rest goes on."""

    async def live() -> None:
        async with Server(App()) as server:
            await elected(server.app)
            assert server.app.election is not None and server.app.candidate is not None
            await server.app.election.resign()
            await server.app.candidate
            assert (await server.get())[0] == 500

    asyncio.run(live())


def test_the_database_takes_nothing_from_a_smaller_token(tmp_path: Path) -> None:
    """From the moment on at which the next leader has read the mark."""
    store = Digests(str(tmp_path / "digest.db"))
    since = store.reached(token=1)
    store.add(since, since + 1, 1)
    assert store.reached(token=2) == since + 1
    with pytest.raises(StaleToken):
        store.add(since + 1, since + 2, 1)
    with pytest.raises(StaleToken):
        store.reached(token=1)
    assert store.count() == 1
