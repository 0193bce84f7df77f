"""The first programs of the guide to elections, run as they stand there, on nodes of this machine
and with a store that only tells."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from redlock.embedded import Nodes

from .crew import ROOT, Crew

PROGRAMS = [
    block
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/election.md").read_text("utf-8"), re.DOTALL
    )
    if "\nNODES = " in block
]
STORE = """
import asyncio
class Written:
    def __await__(self): return asyncio.sleep(0).__await__()
class store:
    def write(text, *, fencing_token): print("wrote", fencing_token, flush=True); return Written()
"""


def test_both_are_there() -> None:
    """One for each API."""
    assert ["redlock.asyncio" in program for program in PROGRAMS] == [False, True]


@pytest.mark.parametrize("program", PROGRAMS, ids=["threads", "asyncio"])
def test_a_first_program_leads_and_resigns(program: str, nodes: Nodes, tmp_path: Path) -> None:
    """It writes with its token until SIGTERM; the next one leads then, with a larger one."""
    path = tmp_path / "program.py"
    path.write_text(STORE + re.sub(r"\nNODES = .*", f"\nNODES = {nodes.urls}", program))
    with Crew(nodes.urls) as crew:
        for _ in range(2):
            crew.start(str(path))
        first, _ = crew.hear("^wrote ")
        crew.tell(first, signal.SIGTERM)
        assert crew.end(first) == 0, crew.told()
        second, _ = crew.hear("^wrote ", but=first)
        crew.tell(second, signal.SIGTERM)
        assert crew.end(second) == 0, crew.told()
    tokens = [int(line.split()[1]) for _, line in crew.said]
    assert tokens == sorted(tokens) and len(set(tokens)) == 2, crew.told()
