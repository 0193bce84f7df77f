"""A candidate of celery-multibeat-scheduler: its own scheduler mixin, over a scheduler whose tick
is one piece of work.

Times are its defaults, scaled from a lease of 60 s. Celery's loop is kept: a tick says when the
next one is due. A piece of work that is deaf lasts, as a dispatch that hangs would; the watchdog
may then end the process. It looks at no clock inside a piece.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery
from multibeat.schedulers import MultiBeatSchedulerMixin

sys.path.append(str(Path(__file__).resolve().parents[3]))

from chaos.electors.candidate import Broken, Task, Work, main
from chaos.electors.signs import PAUSE


class Worker:
    """What the mixin asks of a scheduler below it."""

    max_interval = PAUSE
    schedule: dict[str, Any] = {}  # noqa: RUF012 - never changed: nothing is scheduled.

    def __init__(self, app: Any, work: Work) -> None:
        self.work = work

    def setup_schedule(self) -> None:
        """There is none."""

    def tick(self) -> float:
        """One piece of work; when the next one is due."""
        self.work.step()
        while self.work.is_deaf:
            time.sleep(PAUSE)
            self.work.step()
        return PAUSE


class Scheduler(MultiBeatSchedulerMixin, Worker):  # type: ignore[misc]
    """The elector's scheduler."""

    def _on_leadership_acquired(self) -> None:
        super()._on_leadership_acquired()
        self.work.begin()


def campaign(task: Task, work: Work) -> None:
    """Tick for ever."""
    host, port = task.address
    scale = task.lease / 60
    app = Celery("electors")
    app.conf.update(
        multibeat_url=f"redis://{host}:{port}/0",
        multibeat_lock_key=task.resource,
        multibeat_lock_timeout=round(task.lease),
        multibeat_watchdog_grace_seconds=30 * scale,
        multibeat_min_refresh_seconds=15 * scale,
        multibeat_min_standby_seconds=10 * scale,
        multibeat_transport_options={
            "socket_timeout": task.settings["timeout"],
            "socket_connect_timeout": task.settings["timeout"],
        },
    )
    scheduler = Scheduler(app, work)

    def break_renewer() -> None:
        def fail() -> None:
            raise Broken

        scheduler.multibeat._acquire_or_refresh = fail

    work.break_renewer = break_renewer
    scheduler.setup_schedule()
    while True:
        time.sleep(scheduler.tick())


if __name__ == "__main__":
    main(campaign)
