"""Two electors of the tests' own, on one Redis. With the setting "careful" the leader looks at the
clock before every piece of work; without it, at a flag that is set when it is elected and never
again."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chaos.electors.candidate import Broken, Task, Work, main

RENEW = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('pexpire', KEYS[1], ARGV[2])
"""


class Elector:
    """SET NX to be elected, and a thread that renews."""

    def __init__(self, task: Task) -> None:
        host, port = task.address
        self.task = task
        self.broken = False
        self.valid_until = 0.0
        self.redis = redis.Redis(
            host=host,
            port=port,
            socket_timeout=task.lease / 4,
            socket_connect_timeout=task.lease / 4,
            retry=Retry(NoBackoff(), 0),
        )

    def ask(self, elected: bool) -> None:
        """Ask to be elected, or to go on as the leader."""
        lease_ms = round(self.task.lease * 1000)
        sent_at = time.monotonic()
        try:
            if elected:
                granted = self.redis.eval(RENEW, 1, self.task.resource, self.task.name, lease_ms)
            else:
                granted = self.redis.set(self.task.resource, self.task.name, nx=True, px=lease_ms)
        except redis.RedisError:
            return
        if granted:
            self.valid_until = sent_at + 0.8 * self.task.lease

    @property
    def is_valid(self) -> bool:
        """By the clock."""
        return time.monotonic() < self.valid_until

    def renew(self) -> None:
        """For ever, in a thread."""
        while True:
            time.sleep(self.task.lease / 6)
            if self.broken:
                raise Broken
            if self.is_valid:
                self.ask(elected=True)


def campaign(task: Task, work: Work) -> None:
    """For ever."""
    elector = Elector(task)
    work.break_renewer = lambda: setattr(elector, "broken", True)
    threading.Thread(target=elector.renew, daemon=True).start()
    careful = task.settings["careful"]
    while True:
        elector.ask(elected=False)
        if elector.is_valid:
            work.run(lambda: careful and not elector.is_valid)
        time.sleep(task.lease / 10)


if __name__ == "__main__":
    main(campaign)
