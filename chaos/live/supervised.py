"""The role `supervise`: a client that stands for election by `redlock elect`, whose command is
`chaos.live.charge`.

The command writes to this process's own standard output, so its records reach the campaign also
when both its supervisor and this are dead or stopped.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Any

from chaos.live.program import Locks
from chaos.live.worker import Session, client, note, outcome_of

__all__ = ["supervise"]

_ENDS = 20.0


class Supervisor:
    """The supervisor's process. Settings: *way*: of the command, see `chaos.live.charge`; *name*:
    of the command in the history."""

    def __init__(self, session: Session) -> None:
        self._task = session.task
        self._process: subprocess.Popen[str] | None = None

    def do_stand(self) -> str:
        """Start it; its process id."""
        task = self._task
        nodes = [word for url in task.urls for word in ("--node", url)]
        host, port = task.store
        words = [client(), task.resource, host, str(port), task.settings.get("way", "heeds")]
        python = [sys.executable, "-P", "-m"]
        command = [*python, "chaos.live.charge", *words]
        stands = ["--ttl", str(task.options["ttl"]), "--candidate", client(), task.resource]
        self._process = subprocess.Popen(
            [*python, "redlock.cli", "elect", *nodes, *stands, "--", *command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._relay, args=(self._process,), daemon=True).start()
        return str(self._process.pid)

    def _relay(self, process: subprocess.Popen[str]) -> None:
        """What it says to people becomes a record."""
        assert process.stderr is not None
        for line in process.stderr:
            note("supervisor", line.strip()[:500])

    def do_kill(self) -> None:
        """SIGKILL of the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def do_withdraw(self) -> None:
        """SIGTERM, and wait for its end; what does not end is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS)
        process.kill()
        process.wait()


async def supervise(session: Session, locks: Locks) -> None:
    """Do what the campaign says, and leave no supervisor behind."""
    supervisor = Supervisor(session)
    try:
        while (order := session.hear()) is not None:
            note("done", f"{order['number']} {_obeyed(supervisor, order)}")
    finally:
        supervisor.do_withdraw()


def _obeyed(supervisor: Supervisor, order: dict[str, Any]) -> str:
    try:
        return getattr(supervisor, f"do_{order['what']}")() or "ok"
    except Exception as error:
        return outcome_of(error)
