"""Looking up a node's name for asyncio, in a thread of its own.

The event loop has its own threads for that, a few for all the program. A look-up that hangs cannot
be cancelled, so with a dial every quarter of a second one such node would soon have them all, and
with them the program's files and other look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import redis

__all__ = ["Lookup"]


class Lookup:
    """Looks up one node's name. At most one look-up is under way, however many dials were given
    up meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._answer: asyncio.Future[list[str]] | None = None

    async def addresses(self, timeout: float) -> list[str]:
        """All addresses, the best first, at least one. Raises OSError, and redis.ConnectionError
        after *timeout* seconds."""
        answer = self._answer or self._begin()
        done, _ = await asyncio.wait([answer], timeout=timeout)
        if not done:
            raise redis.ConnectionError(f"its name was not looked up within {timeout:.3g} s")
        return answer.result()

    def _begin(self) -> asyncio.Future[list[str]]:
        answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        # A daemon: a program must be able to end though a name server never answers.
        thread = threading.Thread(
            target=self._look_up, args=(answer,), name=f"redlock-lookup-{self._host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise redis.ConnectionError(str(error)) from error
        self._answer = answer
        answer.add_done_callback(self._ended)
        return answer

    def _ended(self, answer: asyncio.Future[list[str]]) -> None:
        self._answer = None
        if not answer.cancelled():
            answer.exception()  # Retrieved, should nobody wait for it any more.

    def _look_up(self, answer: asyncio.Future[list[str]]) -> None:
        found: list[str] = []
        failure: BaseException | None = None
        try:
            for *_, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
                if str(address[0]) not in found:
                    found.append(str(address[0]))
        except BaseException as error:  # Whatever it is, the dial that waits is to hear of it.
            failure = error
        with contextlib.suppress(RuntimeError):  # The loop is closed, and nobody waits.
            answer.get_loop().call_soon_threadsafe(_tell, answer, found, failure)


def _tell(
    answer: asyncio.Future[list[str]], found: list[str], failure: BaseException | None
) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(
            failure
            if isinstance(failure, OSError)
            else OSError(str(failure) or type(failure).__name__)
        )
