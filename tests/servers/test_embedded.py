"""Embedded servers end with their program, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redlock import embedded
from redlock.transport.clock import now

PATIENCE = 10.0
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


KILLED = """
import os, signal
from redlock import embedded

def begin_to_tell(self, word, pid):
    print(folder, pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

embedded._Keeper._tell = begin_to_tell
nodes = embedded.Nodes(1, marked=False)
folder = nodes.folder
nodes[0].start()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="awaits the end of other processes")
def test_no_server_begins_before_there_is_somebody_to_end_it() -> None:
    """A program that is killed between a server's start and the word of it leaves none behind,
    and no folder."""
    program = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    folder, pid = program.stdout.split()
    try:
        end = os.pidfd_open(int(pid))
    except ProcessLookupError:
        pass
    else:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        ended = poll.poll(PATIENCE * 1000)
        if not ended:
            signal.pidfd_send_signal(end, signal.SIGKILL)
        os.close(end)
        assert ended
    until = now() + PATIENCE
    while Path(folder).exists() and now() < until:  # By whom nobody has the number of.
        time.sleep(0.01)
    assert not Path(folder).exists()


def test_servers_that_start_at_once_have_one_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one would be dropped, and take the folder with it."""
    begun = []

    def begin(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        begun.append(words)
        time.sleep(0.05)  # Others come meanwhile.
        return subprocess.Popen(*words, **options)

    monkeypatch.setattr(
        embedded, "subprocess", SimpleNamespace(Popen=begin, PIPE=-1, DEVNULL=subprocess.DEVNULL)
    )
    keeper = embedded._Keeper(tmp_path / "nodes")
    threads = [threading.Thread(target=keeper.begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1 and (tmp_path / "nodes").exists()
    keeper.close()
    assert not (tmp_path / "nodes").exists()
