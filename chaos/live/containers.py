"""Servers as containers of a Docker engine: the image, the configuration and the confinement that a
user deploys.

Reached only by ports published on 127.0.0.1, which a container keeps over every restart. Everything
made here carries a label of its run, and nothing without that label is ever touched; `close`
removes all of it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import random
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import redis
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from chaos.live.backend import Ability, Data, Persistence, Setup, Unsupported, side_client
from chaos.live.processes import server_program
from deploy.image import CONFINEMENT, build

__all__ = ["LABEL", "ContainerNode", "Containers", "engine"]

LABEL = "redlock.chaos"
"""On every container and image of a run; its value is the run's own."""
_START_TIMEOUT = 30.0
_CALL_TIMEOUT = 60
_STARTS_MAX = 5
_PORTS = (20_000, 32_000)
"""Below the ports that systems give to outgoing connections: a dead container's port must not be
taken meanwhile."""


def engine() -> docker.DockerClient:
    """A client of the engine that answers. Raises RuntimeError with one line about the one that
    does not."""
    problem = ""
    with warnings.catch_warnings():
        # The SDK leaves the socket open that it could not connect.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env(timeout=_CALL_TIMEOUT)
            client.ping()
            return client
        except DockerException as error:
            problem = str(error).splitlines()[0].rpartition(": ")[2]
        gc.collect()  # That socket hangs in a circle with the error.
    raise RuntimeError(
        f"no Docker engine answers at {os.environ.get('DOCKER_HOST', 'its usual socket')}:"
        f" {problem}"
    )


class ContainerNode:
    """One server in a container. See `chaos.live.backend.Node`."""

    def __init__(self, number: int, home: Containers) -> None:
        self.number = number
        self._home = home
        self._setup = Setup()
        self._port = 0
        self._container: Container | None = None
        self._copy: list[bytes] = []

    @property
    def url(self) -> str:
        """Where to reach it without a proxy."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self._port

    @property
    def pid(self) -> int | None:
        """Its process id on the engine's host, while it runs."""
        state = self._state() if self._container is not None else {"Running": False}
        return int(state["Pid"]) if state["Running"] else None

    @property
    def container(self) -> Container:
        """The container that it runs in now."""
        assert self._container is not None
        return self._container

    def fresh(self, setup: Setup) -> None:
        """An empty server as *setup* says, in a new container."""
        self.remove()
        self._setup = setup
        for _ in range(_STARTS_MAX - 1):
            self._create()
            with contextlib.suppress(APIError):  # Somebody was faster at that port.
                self.start()
                return
            self.remove()
            self._port = 0
        self._create()
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.container.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            # Nobody else can answer there: the engine has the port, and the password is this run's.
            with contextlib.suppress(redis.RedisError, OSError), side_client(self) as client:
                client.ping()
                return
            if not self._state()["Running"]:
                break
            time.sleep(0.01)
        raise RuntimeError(f"server {self.number} did not start: {self._last_words()}")

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._end(lambda container: container.kill("SIGKILL"))

    def stop(self) -> None:
        """SIGTERM, an orderly end; SIGKILL if that takes more than ten seconds."""
        self._end(lambda container: container.stop(timeout=10))

    def restart(self, data: Data) -> None:
        """Kill it, do *data* to what it wrote, and start it."""
        if data is Data.DURABLE and self._setup.persistence is not Persistence.ALWAYS:
            raise Unsupported("only a server that syncs every write remembers all of them")
        self.kill()
        if data in (Data.LOST, Data.ROLLED_BACK):
            self.remove()
            self._create()
        if data is Data.ROLLED_BACK:
            self.container.put_archive("/data", b"".join(self._copy))
        self.start()

    def snapshot(self) -> None:
        """Keep a copy of its data folder as it is now."""
        stream, _ = self.container.get_archive("/data/.")
        self._copy = list(stream)

    def pause(self) -> None:
        """Freeze its control group."""
        if self._container is not None:
            self._container.pause()

    def unpause(self) -> None:
        """Let it go on, if it was frozen."""
        if self._container is not None and self._state()["Paused"]:
            self._container.unpause()

    def wipe(self) -> None:
        """FLUSHALL."""
        with side_client(self) as client:
            client.flushall()

    def shift_clock(self, offset: float) -> bool:
        """A container has the clock of its host."""
        return False

    def remove(self) -> None:
        """Remove the container and its data. Idempotent."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)

    @property
    def _password(self) -> str:
        return self._setup.options.get("requirepass", self._home.password)

    def _create(self) -> None:
        """A container on the port that the last one had, or on a free one."""
        self._port = self._port or _free_port()
        self._container = self._home.create(self.number, self._port, self._command())

    def _end(self, how: Callable[[Container], object]) -> None:
        if self._container is None or not self._state()["Running"]:
            return
        self.unpause()  # What is frozen does not end, and some engines refuse to try.
        with contextlib.suppress(APIError):  # It ended by itself meanwhile.
            how(self._container)
        self._container.wait(timeout=_CALL_TIMEOUT)

    def _last_words(self) -> str:
        return " / ".join(self.container.logs(tail=3).decode("utf-8", "replace").splitlines())

    def _command(self) -> list[str]:
        """The deployed configuration, with a password in place of the users' file and what the
        scenario asks for."""
        kept = self._setup.persistence
        options = {
            "aclfile": "",
            "requirepass": self._home.password,
            "appendonly": "no" if kept is Persistence.NONE else "yes",
            "appendfsync": "always" if kept is Persistence.ALWAYS else "everysec",
            **self._setup.options,
        }
        return [
            "valkey-server",
            "/etc/redlock-node/node.conf",
            *(word for item in options.items() for word in _option(*item)),
        ]

    def _state(self) -> dict[str, Any]:
        self.container.reload()
        state: dict[str, Any] = self.container.attrs["State"]
        return state


class Containers:
    """The back end of containers. See `chaos.live.backend.Backend`.

    *image*: one that was built from deploy/Dockerfile; None: the one that REDLOCK_IMAGE names, as
    for the compose file, or one built here from a server binary of this host, which takes a second
    and no network. Raises RuntimeError where no engine answers.
    """

    name = "containers"
    can = frozenset(Ability)

    def __init__(self, image: str | None = None) -> None:
        self.password = secrets.token_urlsafe(16)
        self.run = secrets.token_hex(8)
        self._client = engine()
        self._all: list[ContainerNode] = []
        self._count = 0
        self._owner = os.getpid()
        self._built = ""
        atexit.register(self.close)
        self.image = image or os.environ.get("REDLOCK_IMAGE") or self._build()

    @property
    def nodes(self) -> Sequence[ContainerNode]:
        """Those of the scenario that runs."""
        return self._all[: self._count]

    def fresh(self, setup: Setup) -> None:
        """Empty servers, all at once."""
        while len(self._all) < setup.count:
            self._all.append(ContainerNode(len(self._all) + 1, self))
        self._count = setup.count
        for node in self._all[setup.count :]:
            node.remove()
        _each(self.nodes, lambda node: node.fresh(setup))

    def version(self) -> str:
        """What the server program in the image says of itself."""
        asked = self._client.containers.create(
            self.image,
            ["valkey-server", "--version"],
            network_mode="none",
            labels={LABEL: self.run},
            **CONFINEMENT,
        )
        try:
            asked.start()
            asked.wait(timeout=_CALL_TIMEOUT)
            said = asked.logs().decode("utf-8", "replace")
        finally:
            asked.remove(force=True, v=True)
        return f"{' '.join(said.split()[:3])} in {self.image}"

    def create(self, number: int, port: int, command: Sequence[str]) -> Container:
        """A container of this run, confined as the deployed ones are; it is not started."""
        return self._client.containers.create(
            self.image,
            list(command),
            name=f"redlock-chaos-{self.run}-{number}-{secrets.token_hex(3)}",
            labels={LABEL: self.run},
            ports={"6379/tcp": ("127.0.0.1", port)},
            **CONFINEMENT,
        )

    def left(self) -> list[Container]:
        """Every container of this run that there is."""
        found: list[Container] = self._client.containers.list(
            all=True, filters={"label": f"{LABEL}={self.run}"}
        )
        return found

    def close(self) -> None:
        """Remove every container, volume and image of this run; does nothing in a forked child.
        Idempotent."""
        if os.getpid() != self._owner:
            return
        self._all.clear()
        self._count = 0
        for container in self.left():
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        if self._built:
            with contextlib.suppress(NotFound):
                self._client.images.remove(self._built, force=True)
            self._built = ""
        self._client.close()
        atexit.unregister(self.close)

    def _build(self) -> str:
        self._built = f"redlock-chaos:{self.run}"
        build(self._client, Path(server_program()), self._built)
        return self._built


def _option(name: str, value: str) -> tuple[str, str]:
    return f"--{name}", value


def _each(nodes: Iterable[ContainerNode], act: Callable[[ContainerNode], None]) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(act, nodes))


def _free_port() -> int:
    for _ in range(100):
        port = random.randrange(*_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port between {_PORTS[0]} and {_PORTS[1]}")
