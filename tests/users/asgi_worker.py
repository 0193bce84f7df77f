"""A web worker: an endpoint under a lock, and one for its health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from redlock import LockContended
from redlock.asyncio import Lease, Redlock
from redlock.observe import Event, LeaseLapsed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """ASGI, without a framework."""

    def __init__(self, nodes: list[str]) -> None:
        self.lapsed = 0
        self.locks = Redlock(nodes, ttl=10.0, on_event=self.seen)

    def seen(self, event: Event) -> None:
        if isinstance(event, LeaseLapsed):
            self.lapsed += 1

    async def pay(self, lease: Lease) -> bytes:
        await lease.verify()
        return str(lease.fencing_token).encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body, status = b"", 200
        if scope["path"] == "/health":
            votes = [report.votes for report in await self.locks.nodes()]
            status = 200 if sum(votes) > len(votes) // 2 else 503
        else:
            try:
                async with self.locks.lock(scope["path"], timeout=1.0) as lease:
                    body = await self.pay(lease)
            except LockContended:
                status = 409
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})
