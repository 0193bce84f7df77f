"""Tasks under a decorator: what they take and give stays known."""

from __future__ import annotations

import redlock.asyncio
from redlock import Redlock

NODES = ["redis://10.0.0.1", "redis://10.0.0.2", "redis://10.0.0.3"]
locks = Redlock(NODES)
tasks = redlock.asyncio.Redlock(NODES)


@locks.lock("reports", timeout=5.0)
def report(month: int, *, currency: str = "EUR") -> str:
    return f"{month} {currency}"


@tasks.lock("imports", timeout=5.0)
async def fetch(url: str) -> bytes:
    return url.encode()


async def main() -> int:
    text: str = report(7, currency="CHF")
    data: bytes = await fetch("https://example.org")
    return len(text) + len(data)
