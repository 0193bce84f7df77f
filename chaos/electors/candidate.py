"""What every candidate program is made of: its task, its work, and the orders it is given.

The work is a loop that leaves a sign every 2 ms. A program starts it when its elector says that it
leads, and gives it a function that tells when to stop, as a careful application would from what the
elector offers. Imports the standard library alone: it runs in the elector's environment.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.electors.signs import PAUSE, Log

__all__ = ["Broken", "Task", "Work", "main"]


class Broken(RuntimeError):
    """What a call of the renewal raises from the order on."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a candidate is told. Times in seconds.

    *servers*: host and port of its own way to each server; *lease*: how long a leader leads
    without renewing; *resource*: what is campaigned for, another one in every trial; *settings*:
    what else the elector is configured with.
    """

    name: str
    servers: tuple[tuple[str, int], ...]
    lease: float
    resource: str
    signs: str
    settings: dict[str, Any]

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Of the line that a candidate is sent first."""
        told = json.loads(line)
        return cls(**{**told, "servers": tuple((host, port) for host, port in told["servers"])})

    @property
    def address(self) -> tuple[str, int]:
        """Of the only server."""
        ((host, port),) = self.servers
        return host, port


class Work:
    """The work that a leader does, and what can be done to it."""

    def __init__(self, log: Log) -> None:
        self.term = 0
        self.break_renewer: Callable[[], None] = lambda: None
        """Set by the program: makes the elector's renewal raise from now on."""
        self._log = log
        self._deaf_until = 0.0
        self._block = 0.0

    @property
    def is_deaf(self) -> bool:
        """Whether it was ordered not to look whether it should stop."""
        return time.monotonic() < self._deaf_until

    def begin(self) -> None:
        """A new term begins: the elector has said that this candidate leads, once more."""
        self.term += 1

    def step(self, block: Callable[[float], None] | None = None) -> None:
        """One piece of work, and its sign. *block*: how to block what the elector needs, if not
        by a call that lets no other thread of this process run."""
        seconds, self._block = self._block, 0.0
        if seconds:
            (block or _hold_interpreter)(seconds)
        self._log.sign(self.term)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until told to stop."""
        self.begin()
        while self.is_deaf or not stopped():
            self.step()
            time.sleep(PAUSE)

    def obey(self, order: dict[str, Any]) -> None:
        """One of {"do": "block", "seconds": s}: block once, in the next piece of work;
        {"do": "ignore", "seconds": s}: do not look whether to stop, from now on;
        {"do": "break"}: the renewal raises from now on."""
        if order["do"] == "block":
            self._block = order["seconds"]
        elif order["do"] == "ignore":
            self._deaf_until = time.monotonic() + order["seconds"]
        elif order["do"] == "break":
            self.break_renewer()
        else:
            raise ValueError(f"no such order: {order}")


def _hold_interpreter(seconds: float) -> None:
    """As a long call of a C extension does: PyDLL keeps the lock of the interpreter."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def main(campaign: Callable[[Task, Work], None]) -> None:
    """Campaign as the first line of the standard input says; end with it, or when *campaign*
    returns or raises.

    The process ends at once, whatever runs in it: daemon threads would anyway.
    """
    task = Task.from_json(sys.stdin.readline())
    # They log every failure with a traceback; how a trial ended is in the signs.
    logging.disable(logging.CRITICAL)
    work = Work(Log(task.signs))
    threading.Thread(target=_read_orders, args=(work,), daemon=True).start()
    sys.stdout.write(json.dumps({"says": "ready"}) + "\n")
    sys.stdout.flush()
    try:
        campaign(task, work)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _read_orders(work: Work) -> None:
    for line in sys.stdin:
        work.obey(json.loads(line))
    os._exit(0)  # Whoever started us has ended.
