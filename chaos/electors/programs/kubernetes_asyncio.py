"""A candidate of `kubernetes_asyncio.leaderelection`, over the same server of leases: one event
loop for the elector and for the work, which is a task that the elector cancels.

Calls have a time limit, and a failed one is what the elector expects of a lock. Work that is deaf
takes no notice of the cancelling. The process ends when `run` has returned and its tasks are over.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.leaderelection import electionconfig, leaderelection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock

sys.path.append(str(Path(__file__).resolve().parents[3]))

from chaos.electors.candidate import Broken, Task, Work, main
from chaos.electors.signs import PAUSE

NAMESPACE = "default"


class _Limited:
    """An API whose every call has a time limit, and raises its own error when it is over."""

    def __init__(self, api: Any, timeout: float) -> None:
        self._api, self._timeout = api, timeout

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._api, name))

    async def _call(self, method: Any, *args: Any, **how: Any) -> Any:
        try:
            return await method(*args, **how, _request_timeout=self._timeout)
        except (ClientError, TimeoutError) as error:
            failure = ApiException(status=0, reason=str(error))
            failure.body = '{"code": 0}'  # The elector asserts that there is one.
            raise failure from error


async def work_on(work: Work) -> None:
    """Until cancelled."""
    work.begin()
    cancelled = False
    while work.is_deaf or not cancelled:
        work.step(time.sleep)
        try:
            await asyncio.sleep(PAUSE)
        except asyncio.CancelledError:
            cancelled = True


async def elect(task: Task, work: Work) -> None:
    """Until the elector has stopped leading."""
    host, port = task.address
    configuration = client.Configuration(host=f"http://{host}:{port}")
    async with client.ApiClient(configuration) as api:
        lock: Any = LeaseLock(task.resource, NAMESPACE, task.name, api)
        lock.api_instance = _Limited(lock.api_instance, task.settings["timeout"])

        def break_renewer() -> None:
            async def fail(*_: object) -> None:
                raise Broken

            lock.update = fail

        async def stopped() -> None:
            pass

        work.break_renewer = break_renewer
        await leaderelection.LeaderElection(
            electionconfig.Config(
                lock,
                lease_duration=round(task.lease),
                renew_deadline=task.settings["renew_deadline"],
                retry_period=task.settings["retry_period"],
                onstarted_leading=lambda: work_on(work),
                onstopped_leading=stopped,
            )
        ).run()


def campaign(task: Task, work: Work) -> None:
    """In an event loop of its own."""
    asyncio.run(elect(task, work))


if __name__ == "__main__":
    main(campaign)
