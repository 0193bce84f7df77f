"""The command line: exit statuses, the run directory, and what is refused on nodes that are not
ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from chaos.history import read_jsonl
from redlock.embedded import Nodes

ROOT = Path(__file__).resolve().parents[2]


def chaos(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m chaos`."""
    return subprocess.run(
        [sys.executable, "-m", "chaos", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_list_names_every_scenario_and_what_is_to_come_of_it() -> None:
    """Those that are not run too."""
    done = chaos("list")
    assert done.returncode == 0
    assert all(
        name in done.stdout
        for name in ("S01", "S38", "S60", "C5", "unsafe by assumption", "must fail", "supervisor")
    )


def test_a_run_leaves_a_directory_that_tells_all(toxiproxy: str, tmp_path: Path) -> None:
    """Results and histories, a JUnit file; a control that failed as it must is a success, and
    replay judges it the same."""
    done = chaos("run", "S41", "C3", "--dir", tmp_path / "run", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["seed"] == 5 and {"redlock", "python", "server", "toxiproxy"} <= set(run["versions"])
    by_name = {result["scenario"]: result for result in run["results"]}
    assert (
        by_name["S41"]["observed"] == "unsafe by assumption"
        and by_name["S41"]["metrics"]["overlap_ms"] > 0
    )
    assert by_name["C3"]["observed"] == "violated" and by_name["C3"]["violations"]
    assert all(result["ok"] for result in run["results"])
    assert list(read_jsonl(tmp_path / "run" / by_name["C3"]["history"]))
    suite = ElementTree.parse(tmp_path / "run" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "0", "0")
    assert chaos("replay", tmp_path / "run" / "C3", "--judge").returncode == 0
    again = chaos("replay", tmp_path / "run" / "S41", "--dir", tmp_path / "again")
    assert again.returncode == 0, again.stdout + again.stderr


def test_nodes_that_are_not_ours_are_only_broken_from_outside(
    toxiproxy: str, tmp_path: Path
) -> None:
    """Servers are neither killed nor emptied, settings are changed with permission alone; the
    network is ours to break."""
    with Nodes(5) as nodes:
        given = [word for url in nodes.urls for word in ("--node", url)]
        pids = [node.pid for node in nodes]
        done = chaos("run", "S18", "S25", "S47", "S49", *given, "--dir", tmp_path / "run")
        assert done.returncode == 0, done.stdout + done.stderr
        run = json.loads((tmp_path / "run" / "run.json").read_text())
        assert [result["scenario"] for result in run["results"]] == ["S18"]
        why = {one["scenario"]: one["why"] for one in run["not_run"]}
        assert set(why) == {"S25", "S47", "S49"} and "--i-own-these-nodes" in why["S49"]
        done = chaos("run", "S49", *given, "--i-own-these-nodes", "--dir", tmp_path / "owned")
        assert done.returncode == 0, done.stdout + done.stderr
        for node, pid in zip(nodes, pids, strict=True):
            with node.client() as client:
                assert node.pid == pid and client.config_get("maxmemory") == {"maxmemory": "0"}


def test_what_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    """No proxy server, no such scenario, too few nodes: said, and nothing else."""
    path = f"{Path(sys.executable).parent.parent / 'nowhere'}"
    done = chaos("run", "S999")
    assert done.returncode == 2 and "no scenario S999" in done.stderr
    done = chaos("run", "S01", "--node", "redis://127.0.0.1:1", "--dir", tmp_path, PATH=path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
