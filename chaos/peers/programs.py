"""The peers as programs that a campaign can run in place of our own client."""

from __future__ import annotations

from pathlib import Path

from chaos.live.program import Program
from chaos.peers.environments import PEERS, PeerMissing, environment

__all__ = ["PEERS", "PeerMissing", "program"]

_ASYNCIO = {"redlock-py": False, "pottery": True, "redlock-ng": True}


def program(name: str) -> Program:
    """The client program of a peer; builds its environment if need be. Raises PeerMissing."""
    python = environment(name)
    # -I: neither a folder nor the environment's variables may put our `redlock` in front of its own.
    argv = (str(python), "-I", str(Path(__file__).with_name("client.py")), name)
    return Program(name, argv, asyncio=_ASYNCIO[name], tokens=False, extends=False)
