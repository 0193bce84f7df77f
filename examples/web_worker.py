"""A web application that runs a periodic job once in the whole fleet, and catches up on what was
missed.

    $ export REDLOCK_NODES="redis://10.0.0.1 redis://10.0.0.2 redis://10.0.0.3"
    $ export DIGEST_DB=digest.db
    $ uvicorn --app-dir examples web_worker:app --workers 4

Every worker of every machine stands for election while it serves requests; the one that leads does
the job. That alone would not be enough: a run that falls due while nobody leads, because the leader
has died and its lease has not ended yet, would be missed. So the job is not "at nine o'clock"
but "everything since the last run", and where the last run ended stands in the database, behind
the fencing token.

No framework is needed to show it: `lifespan` below is what goes into yours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redlock.asyncio import Election, QuorumUnavailable, Redlock, Term

PERIOD = float(os.environ.get("DIGEST_PERIOD", "60"))
"""Seconds that one digest covers."""
TTL = float(os.environ.get("DIGEST_TTL", "15"))
"""Seconds that a dead leader keeps the others from leading."""


class StaleToken(Exception):
    """The database has seen a larger fencing token: somebody else leads by now."""


class Digests:
    """The digests, and up to when they reach; guarded by the fencing token.

    SQLite answers in a millisecond, so it is asked in the event loop. A slower database wants its
    own asyncio driver, and not `asyncio.to_thread`: the end of a term cancels the task, and a
    thread would work on behind the next leader's back.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS mark (id INTEGER PRIMARY KEY CHECK (id = 1),"
            " reached REAL, token INT)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS digests (since REAL, until REAL, token INT, pid INT)"
        )

    def reached(self, token: int) -> float:
        """Up to when the digests reach. Raises StaleToken.

        Reading puts our token on the mark: from here on, no leader from before can move it.
        """
        self._db.execute("INSERT OR IGNORE INTO mark VALUES (1, ?, 0)", (time.time(),))
        rows = self._db.execute(
            "UPDATE mark SET token = :token WHERE token <= :token RETURNING reached",
            {"token": token},
        ).fetchall()
        if not rows:
            raise StaleToken(f"somebody has led with a larger token than {token}")
        return float(rows[0][0])

    def add(self, since: float, until: float, token: int) -> None:
        """A digest, and the mark behind it: both or neither. Raises StaleToken."""
        with self._db:  # Rolls back what raises.
            self._db.execute("BEGIN IMMEDIATE")
            mine = self._db.execute(
                "UPDATE mark SET reached = :until, token = :token WHERE token <= :token",
                {"until": until, "token": token},
            )
            if not mine.rowcount:
                raise StaleToken(f"somebody has led with a larger token than {token}")
            self._db.execute(
                "INSERT INTO digests VALUES (?, ?, ?, ?)", (since, until, token, os.getpid())
            )

    def count(self) -> int:
        """How many there are."""
        return int(self._db.execute("SELECT count(*) FROM digests").fetchone()[0])


class Job:
    """What the leader does."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests

    async def lead(self, term: Term) -> None:
        """A digest for each period, for ever. At the end of the term the library cancels this,
        wherever it awaits something."""
        while True:
            since = self._digests.reached(term.fencing_token)
            await asyncio.sleep(max(0.0, since + PERIOD - time.time()))
            until = time.time()  # More than a period, where nobody led for a while.
            await asyncio.sleep(0.1)  # The work itself: collect, send.
            self._digests.add(since, until, term.fencing_token)


class App:
    """An ASGI application."""

    def __init__(self) -> None:
        self.digests: Digests | None = None
        self.election: Election | None = None
        self.candidate: asyncio.Task[None] | None = None

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await receive()  # lifespan.startup
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            await self.answer(send)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Stand for election as long as the application runs.

        In the lifespan and not at import: the connections belong to the event loop of this worker,
        and not to the process that forks the workers.
        """
        self.digests = Digests(os.environ["DIGEST_DB"])
        nodes = os.environ["REDLOCK_NODES"].replace(",", " ").split()
        async with Redlock(nodes) as locks:
            self.election = locks.election("digest", ttl=TTL, info={"pid": os.getpid()})
            self.candidate = asyncio.create_task(self.election.run(Job(self.digests).lead))
            try:
                yield
            finally:
                # This resigns: the job is cancelled, waited for, and only then the lock is given
                # back, so that another worker leads at once.
                self.candidate.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self.candidate

    async def answer(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Any page: what this worker knows. Every worker serves, whether it leads or not."""
        assert self.digests is not None and self.election is not None and self.candidate is not None
        leader = None
        with contextlib.suppress(QuorumUnavailable):
            leader = await self.election.leader()
        page = {
            "pid": os.getpid(),
            "state": self.election.state,
            "leader": dict(leader.info) if leader is not None else None,
            "digests": self.digests.count(),
        }
        # Health must not say that all is fine where nobody stands for election any more.
        status = 500 if self.candidate.done() else 200
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(page).encode()})


app = App()
