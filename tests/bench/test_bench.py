"""The machinery of the benchmarks on real servers: yardsticks, proxy, contenders' processes,
turns, bars and the report."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from benchmarks.bars import judge
from benchmarks.bench import Bench, Result, proxies
from benchmarks.build import Missing, c_program
from benchmarks.figures import Turn, overlaps
from benchmarks.limit import limit_of
from benchmarks.machine import Load, snapshot
from benchmarks.report import write
from benchmarks.situations.uncontended import _load_scripts
from benchmarks.worker import Failed, Silent, Worker
from redlock.embedded import Nodes

PAIRS = 20


@pytest.fixture(scope="module")
def bench(cluster: Nodes) -> Iterator[Bench]:
    """A run of its own, quiet, on the module's servers."""
    with Nodes(1) as single:
        yield Bench(cluster, single, quick=True, seed=7, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def compiled() -> None:
    """Where there is no C compiler, what needs one is left out of a report, and out of here."""
    try:
        c_program("floor")
    except Missing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("key", ["ours", "ours-asyncio"])
def test_users_of_one_client_take_turns_within_a_limit(bench: Bench, key: str) -> None:
    """Three of them, each with turns of its own; the limit is that of a section, a wake-up that
    was heard and an acquire."""
    (contender,) = bench.contenders(key)
    with bench.started(contender) as worker:
        bench.open(worker, contender)
        said = worker.ask("queue", users=3, resource=f"q-{key}", seconds=0.2, section=0.005)
        turns = [Turn(*stamps) for stamps in said["turns"]]
        assert {turn.client for turn in turns} == {0, 1, 2} and overlaps(turns) == 0
        urls = bench.nodes.urls
        limit = limit_of(worker, bench.nodes, urls, f"l-{key}", 0.001, seconds=0.2)
        assert limit.section >= 0.001 and limit.acquire > 0 and limit.wake > 0
        assert 1 / limit.rate == pytest.approx(limit.section + limit.wake + limit.acquire)
        assert not [name for name in (f"l-{key}", f"q-{key}") if lock_keys(bench.nodes, name)]


def lock_keys(nodes: Nodes, name: str) -> int:
    """How many nodes have a lock key with *name* in it."""
    found = 0
    for node in nodes:
        with node.client() as client:
            found += sum(not key.endswith(b":fence") for key in client.scan_iter(match=f"*{name}*"))
    return found


@pytest.mark.parametrize(
    "key",
    [
        "floor",
        "floor-scripts",
        "minimal",
        "ours",
        "ours-asyncio",
        "ours-uvloop",
        "gather",
        "ours-one",
    ],
)
def test_every_contender_of_ours_really_locks(bench: Bench, compiled: None, key: str) -> None:
    """It times as many pairs as it was asked for, none fails, and nothing of them stays on a
    node."""
    _load_scripts(bench)
    (contender,) = bench.contenders(key)
    with bench.started(contender) as worker:
        bench.open(worker, contender)
        said = worker.ask("pairs", resource=f"smoke-{key}", count=PAIRS, warm=2)
        assert (len(said["acquire"]), len(said["release"]), said["failed"]) == (PAIRS, PAIRS, 0)
        assert min(said["acquire"]) > 0 and said["cpu"] > 0
        # Its answers come behind the last releases.
        worker.ask("pairs", resource="behind", count=1)
    if contender.nodes == 5:
        assert lock_keys(bench.nodes, f"smoke-{key}") == 0


@pytest.mark.parametrize("key", ["floor", "minimal", "ours"])
def test_a_lock_that_is_held_is_not_granted(bench: Bench, compiled: None, key: str) -> None:
    """A yardstick that said yes to everything would be fast."""
    (contender,) = bench.contenders(key)
    prefix = "redlock:" if key == "ours" else ""
    for node in bench.nodes:
        with node.client() as client:
            client.set(f"{prefix}taken-{key}", "somebody else", px=20_000)
    with bench.started(contender) as worker:
        bench.open(worker, contender)
        said = worker.ask("pairs", resource=f"taken-{key}", count=3)
    assert (said["acquire"], said["failed"]) == ([], 3)


def test_the_proxy_takes_its_time_keeps_the_order_and_counts(
    cluster: Nodes, compiled: None
) -> None:
    """No answer before its round trip is over, ten pipelined ones in the order of their
    questions, one connection."""
    trips = [0.0, 0.01, 0.02, 0.03, 0.04]
    with proxies(cluster, trips) as between:
        for url, trip in zip(between.urls, trips, strict=True):
            parts = urlsplit(url)
            with socket.create_connection((parts.hostname, parts.port)) as sock:
                asked_at = time.monotonic()
                sock.sendall(b"PING\r\n")
                assert sock.recv(64) == b"+PONG\r\n"
                assert time.monotonic() - asked_at >= trip
                sock.sendall(b"".join(b"ECHO %d\r\n" % number for number in range(10)))
                wanted = b"".join(b"$1\r\n%d\r\n" % number for number in range(10))
                got = b""
                while len(got) < len(wanted):
                    got += sock.recv(4096)
                assert got == wanted
        assert between.connections() == [1] * 5
        assert between.connections() == [0] * 5


def test_the_proxy_holds_late_chunks_back_and_nothing_overtakes_them(
    cluster: Nodes, compiled: None
) -> None:
    """With every chunk late, an answer is late twice; with none, it need not be."""
    with proxies(cluster, [0.0] * 5, late=(1.0, 0.03)) as between:
        parts = urlsplit(between.urls[0])
        with socket.create_connection((parts.hostname, parts.port)) as sock:
            asked_at = time.monotonic()
            sock.sendall(b"PING\r\n")
            assert sock.recv(64) == b"+PONG\r\n"
            assert time.monotonic() - asked_at >= 0.06


def test_a_contender_that_ends_says_why(tmp_path: Path) -> None:
    """The last error on its stderr, not a broken pipe."""
    script = tmp_path / "contender.py"
    script.write_text("raise SystemExit('error: there is no such library')", "utf-8")
    with (
        Worker("broken", [sys.executable, str(script)]) as worker,
        pytest.raises(Failed, match="there is no such library"),
    ):
        worker.ask("open")


def test_a_contender_that_cannot_is_told_from_one_that_is_silent(tmp_path: Path) -> None:
    """An error is an answer; silence ends the process."""
    script = tmp_path / "contender.py"
    script.write_text(
        'print(\'{"error": "cannot"}\', flush=True)\nimport time\ntime.sleep(60)', "utf-8"
    )
    with Worker("odd", [sys.executable, str(script)]) as worker:
        with pytest.raises(Failed, match="odd: cannot"):
            worker.ask("pairs")
        with pytest.raises(Silent):
            worker.ask("pairs", timeout=0.01)
        assert worker.end() is not None


def test_everybody_has_a_turn_in_every_round_in_changing_order(bench: Bench) -> None:
    """And who fails costs his own row, not the run."""
    turns: list[tuple[int, str]] = []
    with contextlib.ExitStack() as stack:
        contenders = bench.contenders("ours", "minimal", "gather")
        workers = {
            contender.key: stack.enter_context(Worker(contender.title, ["cat"]))
            for contender in contenders
        }
        names = {worker.pid: key for key, worker in workers.items()}

        def measure(worker: Worker, contender: object, number: int) -> None:
            turns.append((number, names[worker.pid]))
            if names[worker.pid] == "gather" and number == 3:
                raise Failed("gather ended")

        assert list(bench.interleaved(dict(workers), 12, measure)) == list(range(12))
    rounds = [[name for turn, name in turns if turn == number] for number in range(12)]
    assert all(sorted(names) == ["gather", "minimal", "ours"] for names in rounds[:4])
    assert all(sorted(names) == ["minimal", "ours"] for names in rounds[4:])
    assert len({tuple(names) for names in rounds[:4]} | {tuple(names) for names in rounds[4:]}) > 2


def test_our_own_work_is_no_foreign_load() -> None:
    """What this process and its children burn is not what others took."""
    before = snapshot()
    while time.process_time() < before.own and time.thread_time() < 0.05:
        pass
    after = snapshot()
    assert after.own >= before.own and after.busy >= before.busy
    assert after.foreign_since(before) >= 0.0
    assert Load(10.0, 5.0, 1.0, 0.0).foreign_since(Load(0.0, 0.0, 0.0, 0.0)) == pytest.approx(0.4)


def test_bars_are_judged_by_their_figures_alone() -> None:
    """Met, not met, and not measured are three things; either of two yardsticks is enough where
    the bar says so."""
    result = Result("uncontended", "t", "n", {})
    result.rows = [
        {
            "key": "ours",
            "to_floor_value": 1.5,
            "to_minimal_value": 1.1,
            "cpu_to_floor_value": 1.7,
            "rounds": [30.0, 60.0],
        },
        {"key": "redlock-ng", "rounds": [100.0, 200.0]},
    ]
    found = {bar.what: bar for bar in judge({"uncontended": result})}
    assert found["pair p50, blocking"].met is True
    assert found["CPU per pair, blocking, to the floor"].met is False
    assert found["pair p50, blocking to redlock-ng"].met is True
    assert found["pair p50, asyncio"].met is None
    assert found["keys left behind when chunks come late"].met is None


def test_a_report_names_versions_and_no_paths(bench: Bench, tmp_path: Path) -> None:
    """Everything a reader needs to repeat it, and nothing of the machine's file system."""
    result = Result(
        "uncontended", "Nobody else", "note", {"pair": "pair, us"}, chart=("pair", "pair, us", True)
    )
    (contender,) = bench.contenders("ours")
    result.add(contender, pair=12.5)
    bench.missing["redsync"] = "redsync (Go): no go on the PATH"
    write(
        bench,
        {"uncontended": result},
        judge({}),
        datetime.now(UTC),
        folder=tmp_path,
        results_md=tmp_path / "RESULTS.md",
    )
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "| **redlock, blocking** | 12.5 |" in text
    assert (
        "no go on the PATH" in text
        and "Python" in text
        and datetime.now(UTC).date().isoformat() in text
    )
    root = str(Path(__file__).resolve().parents[2])
    for path in tmp_path.iterdir():
        assert root not in path.read_text("utf-8") and socket.gethostname() not in path.read_text(
            "utf-8"
        ), path
    assert (tmp_path / "uncontended.svg").read_text("utf-8").startswith("<svg")
    assert "pair, us" in (tmp_path / "uncontended.svg").read_text("utf-8")
