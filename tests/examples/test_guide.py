"""The first programs of the guide to elections, run as they stand there, on nodes of this machine
and with a store that only tells."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from redlock import Redlock
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
    """It writes with its token until SIGTERM, and the lock is free behind it."""
    path = tmp_path / "program.py"
    path.write_text(STORE + re.sub(r"\nNODES = .*", f"\nNODES = {nodes.urls}", program))
    with Crew(nodes.urls) as crew, Redlock(nodes.urls) as locks:
        pid = crew.start(str(path))
        _, heard = crew.hear("^wrote ")
        token = int(crew.said[heard - 1][1].split()[1])
        assert locks.status("scheduler").fencing_token == token
        crew.tell(pid, signal.SIGTERM)
        assert crew.end(pid) == 0, crew.told()
        assert not locks.status("scheduler").held
