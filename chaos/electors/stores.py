"""The servers that electors need, as context managers which give their addresses. Nothing is left
behind: processes end, and folders go."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.peers.environments import PeerMissing
from redlock.embedded import Nodes

__all__ = ["Addresses", "lease_server", "redis_servers", "zookeeper"]

Addresses = list[tuple[str, int]]
_START_TIMEOUT = 20.0
_STARTS_MAX = 5
_ZOOKEEPER_JAR = "/usr/share/java/zookeeper.jar"
"""Where Debian's package `zookeeper` has it."""
_TICK = 0.2
"""Seconds. A session's timeout is 2 to 20 ticks and is rounded up to whole ones; the default of 2 s
would round a lease of 2 s up to 4."""


@contextmanager
def redis_servers(count: int = 1) -> Iterator[Addresses]:
    """Redis or Valkey servers, marked as a cluster of ours if there are several."""
    with Nodes(count, marked=count > 1) as nodes:
        yield [("127.0.0.1", node.port) for node in nodes]


@contextmanager
def lease_server() -> Iterator[Addresses]:
    """A process of `chaos.electors.leases`."""
    words = (sys.executable, "-P", str(Path(__file__).with_name("leases.py")))
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield [("127.0.0.1", int(process.stdout.readline()))]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def zookeeper() -> Iterator[Addresses]:
    """One ZooKeeper server of its own. Raises PeerMissing where none is installed."""
    java = shutil.which("java")
    if java is None or not Path(_ZOOKEEPER_JAR).is_file():
        raise PeerMissing("no server for kazoo: on Debian, apt-get install zookeeper")
    with tempfile.TemporaryDirectory(prefix="redlock-zookeeper-") as folder:
        for _ in range(_STARTS_MAX):
            port = _free_port()
            process = _launch(java, Path(folder), port)
            try:
                if _answers(process, port):
                    yield [("127.0.0.1", port)]
                    return
            finally:
                process.kill()
                process.wait()
    raise PeerMissing("no server for kazoo: ZooKeeper did not start")


def _launch(java: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    settings = {
        "tickTime": round(_TICK * 1000),
        "dataDir": folder / "data",
        "clientPort": port,
        "clientPortAddress": "127.0.0.1",
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "ruok",
        "forceSync": "no",
        "maxClientCnxns": 0,
    }
    file = folder / "zoo.cfg"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
    words = ("-Xmx64m", "-XX:+UseSerialGC", "-cp", _ZOOKEEPER_JAR)
    main = "org.apache.zookeeper.server.ZooKeeperServerMain"
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [java, *words, main, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 1.0) as probe,
        ):
            probe.sendall(b"ruok")
            if probe.recv(4) == b"imok":
                return process.poll() is None
        time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
