"""Embedded servers end with their program, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE = 20.0
PROGRAM = """
import os, sys, time
from redlock.embedded import Nodes

with Nodes(2, marked=False) as nodes:
    nodes[1].restart()
    nodes[1].pause()
    if not os.fork():  # A child of the program does not hold its servers.
        os.closerange(0, 3)
        time.sleep(600)
        os._exit(0)
    print(nodes.folder, nodes._keeper._shell.pid, *(node.pid for node in nodes), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="awaits the end of other processes")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_their_program(signum: signal.Signals) -> None:
    """Without a `with` that is left, or an exit that is orderly: also one that is stopped, and one
    that was started anew; and their folder goes with them."""
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        try:
            assert program.stdout is not None
            folder, *pids = program.stdout.readline().split()
            ends = [os.pidfd_open(int(pid)) for pid in pids]
            program.send_signal(signum)
            for end in ends:
                poll = select.poll()
                poll.register(end, select.POLLIN)
                assert poll.poll(PATIENCE * 1000), "a server, or who ends it, outlived its program"
                os.close(end)
            assert not Path(folder).exists()
        finally:
            os.killpg(program.pid, signal.SIGKILL)
