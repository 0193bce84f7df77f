"""A candidate of tooz with its Redis driver, by its documentation: a heart in a thread, and
`run_watchers` in a loop, which calls back when this member is elected.

tooz says nothing of a loss. The work is told to stop when `run_watchers` raises, which is all that
an application sees.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tooz import ToozError, coordination

sys.path.append(str(Path(__file__).resolve().parents[3]))

from chaos.electors.candidate import Broken, Task, Work, main


def campaign(task: Task, work: Work) -> None:
    """Watch for ever."""
    host, port = task.address
    coordinator: Any = coordination.get_coordinator(
        f"redis://{host}:{port}",
        task.name.encode(),
        timeout=round(task.lease),
        socket_timeout=task.settings["timeout"],
        socket_connect_timeout=task.settings["timeout"],
    )

    def break_renewer() -> None:
        def fail() -> float:
            raise Broken

        coordinator.heartbeat = fail

    work.break_renewer = break_renewer
    coordinator.start(start_heart=True)
    group = task.resource.encode()
    with contextlib.suppress(coordination.GroupAlreadyExist):
        coordinator.create_group(group).get()
    coordinator.join_group(group).get()
    leading = threading.Event()
    threads: list[threading.Thread] = []

    def elected(event: object) -> None:
        for thread in threads:
            thread.join()
        leading.set()
        threads[:] = [threading.Thread(target=work.run, args=(lambda: not leading.is_set(),))]
        threads[0].start()

    coordinator.watch_elected_as_leader(group, elected)
    while True:
        try:
            coordinator.run_watchers()
        except ToozError:
            leading.clear()
        time.sleep(task.settings["poll"])


if __name__ == "__main__":
    main(campaign)
