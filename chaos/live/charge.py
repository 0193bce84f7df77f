"""What a supervisor runs as the leader in a campaign: writes to the guarded store under the token
that it finds in its environment, until it is stopped.

    python -m chaos.live.charge CLIENT RESOURCE HOST PORT heeds|ignores

"ignores": SIGTERM is only noted. It says its process id, and writes records as any client does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import closing
from types import FrameType

from chaos.history import Note
from chaos.live.store import StoreClient
from chaos.live.worker import emit
from redlock.transport.clock import now

__all__ = ["main"]

ROUND = 0.02


def main() -> None:
    """Work until it is stopped."""
    client, resource, host, port, way = sys.argv[1:]
    told = threading.Event()
    token = int(os.environ["REDLOCK_FENCING_TOKEN"])

    def take(signum: int, frame: FrameType | None) -> None:
        emit(Note(now(), client, "asked to stop", str(os.getpid())))
        if way == "heeds":
            told.set()

    signal.signal(signal.SIGTERM, take)
    with closing(StoreClient((host, int(port)), client)) as store:
        emit(Note(now(), client, "working", f"{os.getpid()} {token}"))
        while not told.wait(ROUND):
            basis = store.read(resource, token)
            if "refused" not in basis:
                store.write(resource, token, basis)


if __name__ == "__main__":
    main()
