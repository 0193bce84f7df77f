"""The guarded store: a process that takes an access only with a fencing token not below the largest
it has seen.

It guards reads as well as writes, one access at a time, and writes what it took and refused to its
standard output in that order. Beside every guarded value stands a shadow that refuses nobody: what
would have become of the data without tokens, so that a run shows whether its fault would have hurt.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from typing import Any

from chaos.history import Accepted, Note, Record, Refused, to_json
from redlock.transport.clock import now

__all__ = ["Store", "StoreClient", "main"]


class Store:
    """The values, and the rule."""

    def __init__(self) -> None:
        self._largest: defaultdict[str, int] = defaultdict(int)
        self._value: defaultdict[str, int] = defaultdict(int)
        self._shadow: defaultdict[str, int] = defaultdict(int)

    def access(self, asked: dict[str, Any]) -> tuple[dict[str, Any], list[Record]]:
        """Answer one access; the answer, and the records of it.

        *asked*: client, resource, token, and for a write the value `before` that it rests on and
        the value `after`, and the same two of the shadow.
        """
        at, client, resource, token = now(), asked["client"], asked["resource"], asked["token"]
        records: list[Record] = []
        answer: dict[str, Any] = {}
        if "after" in asked:
            if self._shadow[resource] != asked["shadow_before"]:
                records.append(
                    Note(
                        at,
                        client,
                        "unfenced-lost-update",
                        f"{resource}: an unguarded store lost an update here",
                    )
                )
            self._shadow[resource] = asked["shadow_after"]
        answer["shadow"] = self._shadow[resource]
        if token < self._largest[resource]:
            records.append(Refused(at, client, resource, token, self._largest[resource]))
            return answer | {"refused": self._largest[resource]}, records
        self._largest[resource] = token
        value = self._value[resource]
        before, after = asked.get("before", value), asked.get("after", value)
        records.append(Accepted(at, client, resource, token, before, after))
        self._value[resource] = after
        return answer | {"value": after}, records


class StoreClient:
    """One connection to the store, for one access at a time; blocking, because a local answer takes
    microseconds.

    A token below zero only tells one lease of a client from the next: the store is given none, and
    refuses nothing.
    """

    def __init__(self, address: tuple[str, int], client: str) -> None:
        import socket

        self._client = client
        self._socket = socket.create_connection(address, timeout=20.0)
        self._file = self._socket.makefile("rwb")

    def read(self, resource: str, token: int) -> dict[str, Any]:
        """{"value", "shadow"}, or {"refused", "shadow"}."""
        return self._ask({"client": self._client, "resource": resource, "token": max(0, token)})

    def write(self, resource: str, token: int, basis: dict[str, Any]) -> dict[str, Any]:
        """Write one more than *basis*, which an earlier read gave."""
        return self._ask(
            {
                "client": self._client,
                "resource": resource,
                "token": max(0, token),
                "before": basis["value"],
                "after": basis["value"] + 1,
                "shadow_before": basis["shadow"],
                "shadow_after": basis["shadow"] + 1,
            }
        )

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._file.write(json.dumps(asked).encode() + b"\n")
        self._file.flush()
        answer: dict[str, Any] = json.loads(self._file.readline())
        return answer


async def _serve() -> None:
    store = Store()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer, records = store.access(json.loads(line))
                for record in records:
                    _say(record)
                writer.write(json.dumps(answer).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    _say(Note(now(), "", "store", str(server.sockets[0].getsockname()[1])))
    async with server:
        await asyncio.to_thread(sys.stdin.read)  # It ends when the campaign says so, or is gone.


def _say(record: Record) -> None:
    os.write(1, json.dumps(to_json(record), separators=(",", ":")).encode() + b"\n")


def main() -> None:
    """Serve until the standard input ends."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
