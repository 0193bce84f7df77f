"""Serves the web worker of the examples without a server: its lifespan as a server would, and a
page for each line of standard input.

    python tests/examples/serve.py
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from examples.web_worker import App

START = {"type": "lifespan.startup"}
STOP = {"type": "lifespan.shutdown"}


class Server:
    """As much of an ASGI server as an application notices; a context manager."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Server:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self._lifespan = asyncio.create_task(self.app(scope, self._heard.get, self.said.put))
        await self._tell(START)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._tell(STOP)
        await self._lifespan

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._heard.put(message)
        answer = asyncio.ensure_future(self.said.get())
        await asyncio.wait({answer, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await self._lifespan  # Raises what it raised.
        assert (await answer)["type"] == f"{message['type']}.complete"

    async def get(self) -> tuple[int, str]:
        """Ask for a page: status and body."""
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await self.app(scope, self._heard.get, send)
        start, body = sent
        return start["status"], body["body"].decode()


async def serve() -> None:
    """Serve until the end of standard input."""
    async with Server(App()) as server:
        while await asyncio.to_thread(sys.stdin.readline):
            status, body = await server.get()
            sys.stdout.write(f"{status} {body}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve())
