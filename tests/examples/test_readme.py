"""The README: its programs run, its links lead somewhere wherever it is shown, and its figures are
those that were measured."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redlock import Redlock, testing
from redlock.embedded import Nodes
from redlock.transport import clock

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NODES = re.compile(r'"redis://10\.0\.0\.(\d):6379"')
HOME: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"][
    "Homepage"
]


class Store:
    """What the programs guard."""

    def read(self, number: int, *, fencing_token: int) -> str:
        return "row"

    def write(self, row: object, *, fencing_token: int) -> None:
        assert fencing_token > 0

    async def write_async(self, row: object, *, fencing_token: int) -> None:
        assert fencing_token > 0

    def tidy(self) -> None:
        pass


@pytest.fixture(scope="module")
def trio() -> Iterator[Nodes]:
    """As many nodes as the programs name."""
    with Nodes(3) as nodes:
        yield nodes


def test_the_first_program_runs_as_it_stands() -> None:
    """In a process of its own, with nothing prepared."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[0]], capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"held for 9\.\d s, with the fencing token \d{16}\n", done.stdout), done


@pytest.mark.parametrize("number", range(1, len(BLOCKS)))
def test_programs_run(trio: Nodes, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, with the names that it takes for granted; a job ends where its own would go
    on for ever."""
    if "redlock.testing" in BLOCKS[number]:
        pytest.importorskip("lupa", reason="needs the extra testing")
        monkeypatch.setattr(clock, "time", time)  # Set back behind the test, as no program does.
        monkeypatch.setattr(testing._time, "ahead", 0.0)
    block = NODES.sub(lambda found: f'"{trio.urls[int(found[1]) - 1]}"', BLOCKS[number])
    with Redlock(trio.urls) as locks:
        known: dict[str, Any] = {
            "NODES": trio.urls,
            "Redlock": Redlock,
            "alerts": [],
            "batches": lambda: iter(["a", "b"]),
            "locks": locks,
            "log": logging.getLogger("readme"),
            "redlock_locks": locks,
            "store": Store(),
        }

        def run_one_job(*, fencing_token: int) -> None:
            assert fencing_token > 0
            known["election"].resign()

        known["run_one_job"] = run_one_job
        exec(compile(block, f"README.md, program {number}", "exec"), known)
        for name, test in list(known.items()):
            if name.startswith("test_"):
                test(locks)


def test_links_lead_somewhere_from_everywhere() -> None:
    """PyPI shows the README without the files beside it: no link is relative, and what a link to
    this project names is in this checkout."""
    found = re.findall(r"\]\(([^)]+)\)", PROSE)
    assert len(found) > 30
    titles = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for link in found:
        if link.startswith("#"):
            assert link[1:] in anchors, link
            continue
        assert link.startswith("https://"), link
        if link.startswith(HOME):
            path = link.removeprefix(f"{HOME}/blob/main/").partition("#")[0]
            assert (ROOT / path).is_file(), link


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_figures_are_those_of_the_results() -> None:
    """Every row of the table of speeds, and the line of one node, as `make bench` wrote them."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    measured, rows = results.partition("\n## Bars")[0], {}
    for line in measured.splitlines():
        if line.startswith("| ") and len(cells(line)) == 6:
            name, pair, _, far, stopped, left = cells(line)
            rows[name] = [pair, far, "raises" if " ended: " in stopped else stopped, left]
    table = TEXT.partition("| | x C client |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 5
    for line in table:
        name, *figures = cells(line)
        assert figures == rows[name], name
    pairs: dict[str, str] = {}
    for line in results.partition("\n## Nobody else")[2].splitlines():
        if line.startswith("| ") and len(cells(line)) == 9:
            pairs.setdefault(cells(line)[0].strip("*"), cells(line)[2])
    (line,) = re.findall(r"^\| acquire and release, one node.*$", TEXT, re.MULTILINE)
    contenders = ("redlock", "redis-py Lock", "python-redis-lock")
    assert cells(line)[1:4] == [pairs[f"{name}, one node"] for name in contenders]
