"""A candidate of kazoo's election recipe, with the listener that its documentation recommends: the
work stops when the connection is suspended, not only when the session is lost."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient, KazooState

sys.path.append(str(Path(__file__).resolve().parents[3]))

from chaos.electors.candidate import Broken, Task, Work, main


def campaign(task: Task, work: Work) -> None:
    """Stand again after every term."""
    host, port = task.address
    client = KazooClient(hosts=f"{host}:{port}", timeout=task.lease)
    apart = threading.Event()

    def listen(state: Any) -> None:
        if state == KazooState.CONNECTED:
            apart.clear()
        else:
            apart.set()

    def break_renewer() -> None:
        def fail(connect_timeout: float) -> None:
            raise Broken

        client._connection._send_ping = fail

    def lead() -> None:
        stop = threading.Event()

        def lost(state: Any) -> bool:
            if state != KazooState.CONNECTED:
                stop.set()
            return stop.is_set()  # True: listen no more.

        client.add_listener(lost)
        if apart.is_set():
            return
        work.run(stop.is_set)

    work.break_renewer = break_renewer
    client.add_listener(listen)
    client.start(timeout=30.0)
    election = client.Election(f"/{task.resource}", task.name)
    while True:
        election.run(lead)  # What it raises ends the process, which something starts again.


if __name__ == "__main__":
    main(campaign)
