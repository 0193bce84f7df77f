"""A candidate of ours, for threads or for asyncio, on several servers: work looks at its term
before every piece, and a hard stop ends the process whose work does not."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

# Not this folder, in which this very file would be `redlock`.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import redlock
import redlock.asyncio
import redlock.transport.renewals
from chaos.electors.candidate import Broken, Task, Work, main
from chaos.electors.signs import PAUSE


def _break_renewer() -> None:
    def fail(*arguments: Any) -> Any:
        raise Broken

    vars(redlock.transport.renewals)["extend"] = fail


def campaign(task: Task, work: Work) -> None:
    """Lead again and again, for ever."""
    urls = [f"redis://{host}:{port}" for host, port in task.servers]
    work.break_renewer = _break_renewer
    if task.settings["asyncio"]:
        asyncio.run(_campaign_in_loop(task, work, urls))
        return
    with redlock.Redlock(urls, ttl=task.lease) as locks:
        election = locks.election(task.resource, candidate=task.name, hard_stop="exit")
        election.run(lambda term: work.run(lambda: not term.is_leader()))


async def _campaign_in_loop(task: Task, work: Work, urls: list[str]) -> None:
    async def lead(term: redlock.asyncio.Term) -> None:
        work.begin()
        while work.is_deaf or term.is_leader():
            work.step(time.sleep)
            try:
                await asyncio.sleep(PAUSE)
            except asyncio.CancelledError:
                if not work.is_deaf:
                    raise

    async with redlock.asyncio.Redlock(urls, ttl=task.lease) as locks:
        election = locks.election(task.resource, candidate=task.name, hard_stop="exit")
        await election.run(lead)


if __name__ == "__main__":
    main(campaign)
