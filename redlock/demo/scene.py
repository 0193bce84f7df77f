"""What is played: the lock, who wants it, and what happens to the servers."""

from __future__ import annotations

RESOURCE = "demo:counter"
NODES = 5
TTL = 2.0
MAX_TTL = 5.0
WORKERS = {"A": "blocking", "B": "blocking", "C": "asyncio"}
KILLED, STOPPED = 2, 4
"""The numbers of the nodes that are broken."""
VOTES, DEAD, QUARANTINED, PAUSED = "votes", "killed", "in quarantine", "stopped"
"""What a node can be."""
