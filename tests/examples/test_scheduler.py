"""The scheduler of the examples, as several processes: one is killed in a run, one stands still in
a run and goes on too late."""

from __future__ import annotations

import math
import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from examples.scheduler import JOBS, StaleToken, Store
from redlock import ledger
from redlock.core.events import TermStarted, TermStopping
from redlock.embedded import Nodes
from redlock.transport.clock import now

from .crew import Crew

Run = tuple[str, int, int, int, float, float]


def runs(path: Path) -> list[Run]:
    """What the store was given: job, number, token, process, begin, end."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM runs ORDER BY rowid").fetchall()


def wrong(found: list[Run]) -> list[str]:
    """What must not be in the store."""
    problems = [
        f"{before} and {after} overlap"
        for before, after in pairwise(sorted(found, key=lambda run: run[4]))
        if after[4] < before[5]
    ]
    problems += [
        f"{after} came behind {before}" for before, after in pairwise(found) if after[2] < before[2]
    ]
    for job in JOBS:
        numbers = [number for name, number, *_ in found if name == job]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
            problems.append(f"{job} ran as {numbers}")
    return problems


def terms(path: Path, gone: dict[int, float]) -> list[tuple[float, float, int]]:
    """Who led from when until when, by which token, in the order of tokens. *gone*: when a process
    that left no word was ended, or stood still."""
    entries = list(ledger.read(path))
    ends = {
        (entry.pid, entry.record.fencing_token): entry.record.at - entry.record.lag
        for entry in entries
        if isinstance(entry.record, TermStopping)
    }
    return sorted(
        (
            entry.record.at,
            ends.get((entry.pid, entry.record.fencing_token), gone.get(entry.pid, math.inf)),
            entry.record.fencing_token,
        )
        for entry in entries
        if isinstance(entry.record, TermStarted)
    )


def test_nothing_is_missed_or_done_twice_when_leaders_die_and_stand_still(
    nodes: Nodes, tmp_path: Path
) -> None:
    """One leads at a time, tokens rise, runs never overlap and their numbers have no gap, over
    three leaders."""
    path, record = tmp_path / "jobs.db", tmp_path / "terms.jsonl"
    gone = {}
    with Crew(nodes.urls) as crew:
        for _ in range(3):
            crew.start("examples/scheduler.py", str(path), "--ttl", "2", "--ledger", str(record))
        _, heard = crew.hear("clean .* done")
        killed, heard = crew.hear(" begins", after=heard)
        crew.tell(killed, signal.SIGKILL)
        crew.end(killed)
        gone[killed] = now()
        _, heard = crew.hear("leads with token", after=heard, but=killed)
        _, heard = crew.hear(" done", after=heard)
        zombie, heard = crew.hear(" begins", after=heard)
        crew.tell(zombie, signal.SIGSTOP)
        gone[zombie] = now()
        _, heard = crew.hear("leads with token", after=heard, but=zombie)
        _, heard = crew.hear(" done", after=heard, but=zombie)
        crew.tell(zombie, signal.SIGCONT)
        # By its hard stop, unless it finds out for itself first; then it is a candidate again.
        while crew.processes[zombie].poll() is None and "led with" not in crew.told():
            time.sleep(0.01)
        crew.hear("clean .* done", after=len(crew.said))
        left = [pid for pid, process in crew.processes.items() if process.poll() is None]
        for pid in left:
            crew.tell(pid, signal.SIGTERM)
        assert {crew.end(pid) for pid in left} == {0}, crew.told()
        assert crew.processes[zombie].returncode in (0, 6), crew.told()
    assert not wrong(runs(path)), crew.told()
    led = terms(record, gone)
    assert len(led) >= 3, crew.told()
    for before, after in pairwise(led):
        assert before[1] < after[0] and before[2] < after[2], f"{led}\n{crew.told()}"


def test_the_store_takes_nothing_from_a_smaller_token(tmp_path: Path) -> None:
    """From the moment on at which the next leader has read the mark, and not only when it has
    written."""
    store = Store(str(tmp_path / "jobs.db"))
    assert store.last_run("report", 6, token=1) == 6
    store.write("report", 7, 1, 0.0)
    assert store.last_run("report", 9, token=2) == 7
    with pytest.raises(StaleToken):
        store.write("report", 8, 1, 0.0)
    with pytest.raises(StaleToken):
        store.last_run("report", 9, token=1)
    store.write("report", 8, 2, 0.0)
    assert [run[:3] for run in runs(tmp_path / "jobs.db")] == [("report", 7, 1), ("report", 8, 2)]


def test_what_is_wrong_is_found() -> None:
    """An overlap, a token that falls, a gap and a run that was done twice."""
    sound = ("report", 1, 5, 1, 1.0, 2.0)
    assert not wrong([sound, ("report", 2, 5, 1, 2.0, 3.0), ("clean", 7, 6, 1, 4.0, 5.0)])
    for other in (
        ("clean", 1, 5, 1, 1.5, 2.5),
        ("report", 2, 4, 1, 2.0, 3.0),
        ("report", 3, 5, 1, 2.0, 3.0),
        ("report", 1, 5, 1, 2.0, 3.0),
    ):
        assert wrong([sound, other])
