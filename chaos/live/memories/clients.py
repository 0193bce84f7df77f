"""Clients of a run: the public API of either kind, in this process, heard by the history, with a
wall clock of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import redlock.asyncio
import redlock.base
from chaos.history import Record, Seen
from chaos.live.memories.wires import Loop
from redlock.errors import RedlockError
from redlock.transport.clock import Entropy, now

__all__ = ["RESOURCE", "Client", "Tries"]

RESOURCE = "till"
_PATIENCE = 30.0
_making = threading.Lock()


def _ahead(seconds: float) -> type[Entropy]:
    """The randomness of a client whose wall clock is wrong."""

    class Ahead(Entropy):
        __slots__ = ()

        def wall_us(self) -> int:
            return super().wall_us() + round(seconds * 1e6)

    return Ahead


class Client:
    """One coordinator. *ahead*: seconds by which its wall clock is ahead. Blocking methods,
    whatever the API."""

    def __init__(
        self,
        name: str,
        api: str,
        urls: list[str],
        loop: Loop,
        history: list[Record],
        *,
        ahead: float = 0.0,
        **options: Any,
    ) -> None:
        self.name = name
        self.said = ""
        """Why the last acquire gave nothing."""
        self._loop = loop
        self._history = history
        module: Any = redlock if api == "blocking" else redlock.asyncio
        base: Any = redlock.base
        with _making:  # The only place that asks for the class of its randomness.
            usual, base.Entropy = base.Entropy, _ahead(ahead)
            try:
                # What nodes remember is what is asked here, and one more look would tell of it.
                self.locks = module.Redlock(urls, on_event=self._hear, fair=False, **options)
            finally:
                base.Entropy = usual

    def acquire(
        self,
        *,
        resource: str | None = None,
        ttl: float | None = None,
        timeout: float | None = 0.0,
        auto_extend: bool = False,
    ) -> Any:
        """A lease, or None; one try if *timeout* is 0. *resource*: another lock than the one of
        all."""
        try:
            lease = self._done(
                lambda: self.locks.lock(
                    resource or RESOURCE, ttl=ttl, auto_extend=auto_extend
                ).acquire(timeout=timeout)
            )
        except RedlockError as error:
            self.said = str(error)
            return None
        if lease is None:
            self.said = "contended"
        return lease

    def extend(self, lease: Any) -> bool:
        """Whether it was extended."""
        try:
            self._done(lease.extend)
        except RedlockError:
            return False
        return True

    def release(self, lease: Any) -> None:
        """Give it back."""
        self._done(lease.release)

    def nodes(self) -> list[Any]:
        """What it thinks of every node, asked anew."""
        reports: list[Any] = self._done(self.locks.nodes)
        return reports

    def close(self) -> None:
        """Close its connections."""
        self._done(self.locks.close)

    def _hear(self, event: Any) -> None:
        self._history.append(Seen(event.at, self.name, event))

    def _done(self, work: Callable[[], Any]) -> Any:
        async def awaited() -> Any:
            value = work()
            return await value if asyncio.iscoroutine(value) else value

        if isinstance(self.locks, redlock.Redlock):
            return work()
        return self._loop.run(awaited(), _PATIENCE)


class Tries:
    """A client that tries to take the lock all the time, in a thread, until it has it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.lease: Any = None
        self.got = threading.Event()
        self.got_at = 0.0
        self.error: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tries", daemon=True)
        self._thread.start()

    def end(self) -> Any:
        """Its lease, if it has one."""
        self._ending.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.lease

    def _work(self) -> None:
        begun_at = now()
        try:
            while not self._ending.is_set():
                self.lease = self._client.acquire()
                if self.lease is not None:
                    self.got_at = now()
                    self.got.set()
                    return
                self._ending.wait(0.02 if now() - begun_at < 0.8 else 0.1)
        except BaseException as error:  # Told by `end`.
            self.error = error
            self.got.set()
