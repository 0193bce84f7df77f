"""The servers of one lane of runs, three nodes and a spare one, and the wires of its clients; as
new for every run."""

from __future__ import annotations

import contextlib
import socket
from types import TracebackType
from typing import Any, Self

import redis

from chaos.live.memories.wires import Loop, Wire
from redlock.core.commands import MARKER_KEY
from redlock.embedded import Node, Nodes
from redlock.transport.clock import now

__all__ = ["CLIENTS", "OPTIONS", "Stage"]

CLIENTS = ("A", "B", "C", "D")
OPTIONS = {
    # A copy within a short lease: saved at once, loaded from the socket, looked after a hundred
    # times a second.
    "repl-diskless-sync": "no",
    "repl-diskless-load": "swapdb",
    "hz": "100",
    "dynamic-hz": "no",
    "repl-backlog-ttl": "3600",
}
_PATIENCE = 10.0


class Stage:
    """*count* nodes, numbered from 1, and one spare server behind them; each client of `CLIENTS`
    has a wire to each node."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.wire_loop = Loop("wires")
        self.client_loop = Loop("clients")
        self.servers = Nodes(count + 1, marked=False, options=OPTIONS)
        self.wires: dict[str, list[Wire]] = {}
        self._clients: dict[int, redis.Redis] = {}

    def __enter__(self) -> Self:
        self.servers.__enter__()
        for client in CLIENTS:
            self.wires[client] = [
                Wire(self.wire_loop, self.node(number).port) for number in self.numbers
            ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End servers and wires."""
        for wires in self.wires.values():
            for wire in wires:
                wire.close()
        for client in self._clients.values():
            client.close()
        self.servers.close()
        self.client_loop.close()
        self.wire_loop.close()

    @property
    def numbers(self) -> range:
        """The nodes' numbers."""
        return range(1, self.count + 1)

    @property
    def spare(self) -> int:
        """The number of the server that belongs to nobody."""
        return self.count + 1

    @property
    def urls(self) -> list[str]:
        """Of the nodes themselves, without a wire."""
        return [self.node(number).url for number in self.numbers]

    def node(self, number: int) -> Node:
        """One server."""
        node: Node = self.servers[number - 1]
        return node

    def wire(self, client: str, number: int) -> Wire:
        """The wire from a client to a node."""
        return self.wires[client][number - 1]

    def urls_of(self, client: str) -> list[str]:
        """The nodes as a client finds them."""
        return [wire.url for wire in self.wires[client]]

    def ask(self, number: int, *words: str | int) -> Any:
        """One command to one server."""
        if number not in self._clients:
            self._clients[number] = self.node(number).client(decode_responses=True)
        return self._clients[number].execute_command(*words)  # type: ignore[no-untyped-call]

    def info(self, number: int, field: str) -> str:
        """One field of INFO."""
        info: dict[str, Any] = self.ask(number, "INFO")
        return str(info[field])

    def marker(self, number: int) -> str:
        """The text that stands there."""
        return self.ask(number, "GET", MARKER_KEY) or ""

    def kill(self, number: int) -> None:
        """End the server's process at once."""
        client = self._clients.pop(number, None)
        if client is not None:
            client.close()
        self.node(number).kill()

    def restart(self, number: int, *, empty: bool) -> None:
        """Kill and start a server; *empty*: without the snapshot that it may have."""
        self.kill(number)
        if empty:
            self.node(number).wipe()
        self.node(number).start()

    def fresh(self) -> None:
        """Empty servers that were never replicas in this run of theirs, and clean wires."""
        for wires in self.wires.values():
            for number, wire in enumerate(wires, 1):
                wire.fresh(self.node(number).port)
        for number in (*self.numbers, self.spare):
            told: dict[str, Any] = self.ask(number, "INFO") if self.node(number).pid else {}
            if told.get("role") != "master" or told["second_repl_offset"] != -1:
                self.restart(number, empty=True)
                continue
            for words in (
                ("maxmemory-policy", "noeviction"),
                ("maxmemory", "0"),
                ("repl-backlog-ttl", "3600"),
            ):
                self.ask(number, "CONFIG", "SET", *words)
            self.ask(number, "CONFIG", "RESETSTAT")
            self.ask(number, "FLUSHALL")
            (self.node(number).folder / "dump.rdb").unlink(missing_ok=True)

    def copy(self, number: int, source: int) -> None:
        """Make a server a replica of another one, and wait until it has its data."""
        self.ask(number, "REPLICAOF", "127.0.0.1", self.node(source).port)
        give_up_at = now() + _PATIENCE
        while self.info(number, "master_link_status") != "up":
            if now() > give_up_at:
                raise RuntimeError("a copy did not come about")

    def promote(self, number: int) -> None:
        """Make a replica a master again."""
        self.ask(number, "REPLICAOF", "NO", "ONE")

    def back_up(self, number: int) -> None:
        """Take a snapshot over the wire, as `redis-cli --rdb` does."""
        with socket.create_connection(
            ("127.0.0.1", self.node(number).port), timeout=_PATIENCE
        ) as link:
            link.sendall(b"SYNC\r\n")
            file = link.makefile("rb")
            line = b"\n"
            while line in (b"\n", b"\r\n"):  # The server says so that it is alive while it saves.
                line = file.readline()
            if not line.startswith(b"$"):
                raise RuntimeError(f"a backup was refused: {line!r}")
            file.read(int(line[1:]))

    def send(self, number: int, commands: bytes) -> None:
        """Bytes that were on their way for a while, on a connection of their own; reads one
        answer to be sure that they came."""
        with socket.create_connection(
            ("127.0.0.1", self.node(number).port), timeout=_PATIENCE
        ) as link:
            link.sendall(commands)
            with contextlib.suppress(TimeoutError):
                link.recv(65536)
