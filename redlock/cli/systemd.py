"""What systemd wants to know of a service (sd_notify(3)): that it is ready, what it is at, that it
stops, and that it is alive. Does nothing where nobody asks.

The variables are taken out of the environment: they are about this process, and not about the
command that it starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from types import FrameType
from typing import Any, Self

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager. Never waits: what cannot be sent goes with what is sent next.

    The pulse of the watchdog is a timer's signal. While `waiting`, that alone says that this
    process is alive; otherwise its loop says so, by `beat`.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        every = os.environ.pop("WATCHDOG_USEC", "")
        ours = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._pulse = int(every) / 2e6 if ours and every.isdecimal() else 0.0
        self._socket: socket.socket | None = None
        self._unsent: dict[str, str] = {}
        self._status = ""
        self._due = False
        self._before: Any = None
        self.waiting = True

    def __enter__(self) -> Self:
        if self._address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if self._pulse:
                self._before = signal.signal(signal.SIGALRM, self._take)
                signal.setitimer(signal.ITIMER_REAL, self._pulse, self._pulse)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)
        if self._socket is not None:
            self._socket.close()

    def ready(self, status: str) -> None:
        """It does what it is for."""
        self._unsent["READY"] = "1"
        self.status(status)

    def status(self, status: str) -> None:
        """What it is at, for people."""
        status = " ".join(status.split())  # A line, whatever name is in it.
        if status != self._status:
            self._status = self._unsent["STATUS"] = status
            self._send()

    def stopping(self) -> None:
        """It ends, on its own account or because it was told to."""
        self._unsent["STOPPING"] = "1"
        self.status("stopping")

    def beat(self) -> None:
        """The loop goes on."""
        if self._due:
            self._due = False
            self._unsent["WATCHDOG"] = "1"
            self._send()

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self._due = True
        if self.waiting:
            self.beat()

    def _send(self) -> None:
        if self._socket is None:
            return
        # In one step: the timer's signal may strike at any other, and come here as well.
        said = list(self._unsent.items())
        text = "\n".join(f"{name}={value}" for name, value in said)
        # An abstract one begins with a zero byte, which no variable can have.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError):  # Nobody is there, or does not read.
            self._socket.sendto(text.encode(), address)
            self._unsent.clear()
