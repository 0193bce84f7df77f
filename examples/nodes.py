"""Five nodes on this machine, to try the other examples on, until Ctrl-C.

$ pip install 'redlock-quorum[embedded]'
$ python examples/nodes.py
export REDLOCK_NODES="redis://127.0.0.1:37001 ..."
"""

from __future__ import annotations

import signal

from redlock.embedded import Nodes


def main() -> None:
    """Start them, and say what the other terminals need."""
    with Nodes(5) as nodes:
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        print(f'export REDLOCK_NODES="{" ".join(nodes.urls)}"', flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
