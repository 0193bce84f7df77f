"""A peer as a client process of a campaign: `client.py NAME`, run by the Python of the peer's own
environment.

Two of the peers are called `redlock`, as we are. Theirs is imported first, while nothing of ours
can be found; then it is taken out of the list of modules, which it does not look into again, and
our package takes the name without its front door, which needs another redis-py: campaign and
history use its events, errors and clock, which need none.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = {"redlock-py": "redlock", "pottery": "pottery", "redlock-ng": "redlock"}


def make_room() -> None:
    """Let `redlock` and `chaos` mean ours from now on."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redlock"]:
        del sys.modules[name]
    package = types.ModuleType("redlock")
    package.__path__ = [str(ROOT / "redlock")]
    sys.modules["redlock"] = package
    sys.path.append(str(ROOT))
    # Ours refuses to be imported where another project's package has taken its place.
    package.PROJECT = importlib.import_module("redlock._here").PROJECT  # type: ignore[attr-defined]


def main(name: str) -> None:
    """Serve as the client of that name until the standard input ends."""
    library = importlib.import_module(MODULES[name])
    make_room()
    # They log every error of every node with a traceback; what a call came to is in the history.
    logging.disable(logging.CRITICAL)
    from chaos.live import worker
    from chaos.peers.libraries import LIBRARIES

    step_ours = worker.step_wall_clock

    def step(seconds: float) -> None:
        """Also for `time.time`, which two of them measure by."""
        step_ours(seconds)
        real = time.time
        time.time = lambda: real() + seconds

    worker.step_wall_clock = step
    worker.serve(lambda task: LIBRARIES[name](task, library))


if __name__ == "__main__":
    main(sys.argv[1])
