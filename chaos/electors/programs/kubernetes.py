"""A candidate of `kubernetes.leaderelection`: the package's own elector and lock object, over a
small server that keeps leases as the API server does.

The setting "timeout" gives calls a time limit, and makes a failed one what the elector's renewal
loop expects of a lock, which is False; without it the package's lock object is used as it is, and
waits for ever. As in the package's example the process ends when `run` returns, and the work with
it.
"""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from urllib3.exceptions import HTTPError

sys.path.append(str(Path(__file__).resolve().parents[3]))

from chaos.electors.candidate import Broken, Task, Work, main

NAMESPACE = "default"


class _Limited:
    """An API whose every call has a time limit."""

    def __init__(self, api: Any, timeout: float) -> None:
        self._api, self._timeout = api, timeout

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._api, name), _request_timeout=self._timeout)


class PatientLock(LeaseLock):  # type: ignore[misc]
    """The package's lock object, with time limits; a call that failed on its way is a failure."""

    api_instance: Any

    def __init__(self, name: str, identity: str, timeout: float) -> None:
        super().__init__(name, NAMESPACE, identity)
        self.api_instance = _Limited(self.api_instance, timeout)

    def get(self, name: str, namespace: str) -> Any:
        """The record, or why there is none."""
        try:
            return super().get(name, namespace)
        except HTTPError as error:
            return False, SimpleNamespace(body=None, reason=str(error))

    def create(self, name: str, namespace: str, election_record: Any) -> Any:
        """Whether it was created."""
        try:
            return super().create(name, namespace, election_record)
        except HTTPError:
            return False

    def update(self, name: str, namespace: str, updated_record: Any) -> Any:
        """Whether it was updated."""
        try:
            return super().update(name, namespace, updated_record)
        except HTTPError:
            return False


def campaign(task: Task, work: Work) -> None:
    """Until the elector has stopped leading."""
    host, port = task.address
    configuration = client.Configuration()
    configuration.host = f"http://{host}:{port}"
    timeout = task.settings["timeout"]
    if timeout is not None:
        configuration.retries = False
    client.Configuration.set_default(configuration)
    lock: Any = (
        LeaseLock(task.resource, NAMESPACE, task.name)
        if timeout is None
        else PatientLock(task.resource, task.name, timeout)
    )

    def break_renewer() -> None:
        def fail(*_: object) -> None:
            raise Broken

        lock.update = fail

    work.break_renewer = break_renewer
    stop = threading.Event()
    leaderelection.LeaderElection(
        electionconfig.Config(
            lock,
            lease_duration=round(task.lease),  # Its lock object takes no "4.0".
            renew_deadline=task.settings["renew_deadline"],
            retry_period=task.settings["retry_period"],
            onstarted_leading=lambda: work.run(stop.is_set),
            onstopped_leading=stop.set,
        )
    ).run()


if __name__ == "__main__":
    main(campaign)
