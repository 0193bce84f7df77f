"""The Toxiproxy server, and a thin adapter over its Python client that adds what the client lacks.

toxiproxy-python 0.1.1 has no timeouts, raises for three statuses only, cannot update a proxy, and
the server takes a misspelled attribute for a zero. So every call runs under a deadline, and every
change is read back and compared. Its host and port are attributes of a class: one server for a
process, which is all a campaign needs.

One thing no adapter can mend: two toxics that hold data back in the same direction of the same link
block each other's removal, and the whole server with it. Faults that overlap must not share a link.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
from toxiproxy import Toxiproxy as Client
from toxiproxy.proxy import Proxy

from chaos.live.processes import loopback

__all__ = ["HOW_TO_GET_IT", "Toxic", "Toxics", "ToxiproxyError", "find_server"]

T = TypeVar("T")

VERSION = "2.12.0"
_PACKAGE = "github.com/Shopify/toxiproxy/v2"
HOW_TO_GET_IT = (
    "no toxiproxy-server: put one on the PATH, or install Go and let us run `go install"
    f" {_PACKAGE}/cmd/server@v{VERSION}`"
)
DEADLINE = 40.0
"""Seconds for one call: a proxy whose upstream swallows connections answers a change after 25 s,
with a page of HTML."""
_INSTALL_TIMEOUT = 900.0
_UNTOLD = "git"
"""What a server says that a plain `go install` built."""
_STARTS_MAX = 5


class ToxiproxyError(Exception):
    """Toxiproxy did not do what it was asked."""


def find_server(*, install: bool = True) -> str | None:
    """The program `toxiproxy-server`: on the PATH, or installed beside our Python, with Go if
    there is one. None: neither."""
    scripts = Path(sysconfig.get_path("scripts"))
    ours = scripts / "toxiproxy-server"
    found = shutil.which("toxiproxy-server") or (str(ours) if ours.exists() else None)
    if found is not None or not install or shutil.which("go") is None:
        return found
    folder = scripts if os.access(scripts, os.W_OK) else Path.home() / ".cache" / "redlock-chaos"
    return _install(folder)


def _install(folder: Path) -> str | None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "toxiproxy-server"
    if kept.exists():
        return str(kept)
    flags = ["-ldflags", f"-X {_PACKAGE}.Version={VERSION}"]
    words = ["go", "install", *flags, f"{_PACKAGE}/cmd/server@v{VERSION}"]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        sys.stderr.write(done.stderr[-400:])
        return None
    (folder / "server").replace(kept)  # The package's program is called just `server`.
    return str(kept)


def _module_version(program: str) -> str:
    """The version of the Go module that *program* was built from; "" if Go cannot tell."""
    try:
        told = subprocess.run(
            ["go", "version", "-m", program], capture_output=True, text=True, timeout=DEADLINE
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    modules = (line.split() for line in told.splitlines())
    return next(
        (words[2].removeprefix("v") for words in modules if words[:2] == ["mod", _PACKAGE]), ""
    )


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic of one direction: `stream` is "upstream" (requests) or "downstream" (replies).
    Always on every connection.

    *attributes* in the server's own units, milliseconds and bytes.
    """

    type: str
    stream: str
    attributes: Mapping[str, int] = field(default_factory=dict)

    def name(self, fault: str) -> str:
        """Its name on a proxy: several faults may lie on one link."""
        return f"{fault}-{self.type}-{self.stream}"


class Toxics:
    """A running toxiproxy-server and its proxies by name. Calls return when the server has
    confirmed the change."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._process, self._port = _start(program)
        self._base = f"http://127.0.0.1:{self._port}"
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="toxiproxy")
        self._client = Client()
        self._proxies: dict[str, Proxy] = {}
        self._ports: dict[str, tuple[str, int]] = {}

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def version(self) -> str:
        """The server's version; that of the module it was built from, where it was built without
        being told."""
        told = str(self._ask("GET", "/version").json()["version"])
        return told if told != _UNTOLD else _module_version(self._program) or told

    def answers(self) -> bool:
        """Whether the server is still to be talked to."""
        with contextlib.suppress(ToxiproxyError):
            return self._ask("GET", "/proxies", timeout=3.0).ok
        return False

    def create(self, name: str, host: str, upstream: tuple[str, int]) -> tuple[str, int]:
        """A proxy that listens on *host*, on a port the kernel chose, and forwards to
        *upstream*; where it listens."""
        to = f"{upstream[0]}:{upstream[1]}"
        proxy = self._at_port(name, to, f"{loopback(host)}:0", enabled=True)
        self._proxies[name] = proxy
        self._expect(name, enabled=True, upstream=to)
        listens, _, port = str(proxy.listen).rpartition(":")
        self._ports[name] = (listens, int(port))
        return self._ports[name]

    def add(self, names: Sequence[str], fault: str, toxics: Sequence[Toxic]) -> None:
        """Put *toxics* on every one of these proxies, all at once, under the name of *fault*."""

        def put(name: str, toxic: Toxic) -> None:
            called, attributes = toxic.name(fault), dict(toxic.attributes)
            proxy = self._proxies[name]
            self._within(
                lambda: proxy.add_toxic(
                    type=toxic.type,
                    stream=toxic.stream,
                    name=called,
                    toxicity=1.0,
                    attributes=attributes,
                )
            )

        self.together([partial(put, name, toxic) for name in names for toxic in toxics])
        states = self._ask("GET", "/proxies").json()
        for name in names:
            stands = {toxic["name"]: toxic for toxic in states[name]["toxics"]}
            for toxic in toxics:
                self._compare(name, toxic, stands.get(toxic.name(fault), {}))

    def remove(self, names: Sequence[str], fault: str, toxics: Sequence[Toxic]) -> None:
        """Take toxics away; what a latency held back is delivered now, and a timeout closes its
        connections."""

        def take(name: str, toxic: Toxic) -> None:
            proxy = self._proxies[name]
            self._within(lambda: proxy.destroy_toxic(toxic.name(fault)))

        self.together([partial(take, name, toxic) for name in names for toxic in toxics])
        states = self._ask("GET", "/proxies").json()
        for name in names:
            left = {toxic["name"] for toxic in states[name]["toxics"]} & {
                toxic.name(fault) for toxic in toxics
            }
            if left:
                raise ToxiproxyError(f"{name}: still there: {', '.join(sorted(left))}")

    def _compare(self, name: str, toxic: Toxic, stands: Mapping[str, Any]) -> None:
        """The server takes an attribute that it does not know, or cannot read, in silence."""
        attributes = stands.get("attributes", {})
        same = all(attributes.get(key) == value for key, value in toxic.attributes.items())
        if not same or (stands.get("type"), stands.get("stream")) != (toxic.type, toxic.stream):
            raise ToxiproxyError(f"{name}: asked for {toxic}, and the server has {dict(stands)}")

    def replace(self, name: str, fault: str) -> None:
        """Take a fault's toxics away with every connection and what they held: a new proxy in the
        place of the old one.

        Removing a toxic delivers what it holds, which takes up to 5 s for each client that is no
        longer there; this does not.
        """
        state = self._state(name)
        host, port = self._ports[name]
        self._within(self._proxies[name].destroy)
        self._proxies[name] = self._at_port(
            name, state["upstream"], f"{host}:{port}", enabled=state["enabled"]
        )
        for toxic in state["toxics"]:
            if not toxic["name"].startswith(f"{fault}-"):
                kept = Toxic(toxic["type"], toxic["stream"], toxic["attributes"])
                self.add([name], toxic["name"].removesuffix(f"-{kept.type}-{kept.stream}"), [kept])
        self._expect(name, enabled=state["enabled"], upstream=state["upstream"])

    def _at_port(self, name: str, upstream: str, listen: str, *, enabled: bool) -> Proxy:
        """Create a proxy, on a port that another program may hold for a moment."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return self._within(
                    lambda: self._client.create(
                        upstream=upstream, name=name, listen=listen, enabled=enabled
                    )
                )
            except (KeyError, ValueError):
                if time.monotonic() > deadline:
                    raise ToxiproxyError(f"{name} could not be opened at {listen}") from None
                time.sleep(0.02)

    def listens(self, name: str) -> tuple[str, int]:
        """Host and port at which clients find a proxy."""
        return self._ports[name]

    def enable(self, name: str, *, enabled: bool, patience: float = DEADLINE) -> None:
        """Open or close the proxy's port; closing ends its connections. *patience*: seconds to
        wait for a port in use."""
        change = self._proxies[name].enable if enabled else self._proxies[name].disable
        deadline = time.monotonic() + patience
        while True:
            # An error page instead of JSON; what counts is read back.
            with contextlib.suppress(KeyError, ValueError):
                self._within(change)
            if self._state(name)["enabled"] is enabled:
                return
            if time.monotonic() > deadline:  # Somebody else may hold the port for a moment.
                raise ToxiproxyError(f"{name} could not be {'opened' if enabled else 'closed'}")
            time.sleep(0.02)

    def point(self, name: str, upstream: tuple[str, int]) -> None:
        """Let a proxy forward to another server; its connections end. The Python client cannot
        do this."""
        to = f"{upstream[0]}:{upstream[1]}"
        host, port = self._ports[name]
        self._ask(
            "POST",
            f"/proxies/{name}",
            json={"upstream": to, "listen": f"{host}:{port}", "enabled": True},
        )
        self._expect(name, enabled=True, upstream=to)

    def reset(self) -> None:
        """Every proxy open, and no toxic anywhere."""
        self._within(self._client.reset)
        for name, state in self._ask("GET", "/proxies").json().items():
            if state["toxics"] or not state["enabled"]:
                self.enable(name, enabled=True)
                if self._state(name)["toxics"]:
                    raise ToxiproxyError(f"{name} still has toxics after a reset")

    def destroy_all(self) -> None:
        """Remove every proxy."""
        self.together([partial(self._within, proxy.destroy) for proxy in self._proxies.values()])
        self._proxies.clear()

    def together(self, jobs: Iterable[Callable[[], object]]) -> None:
        """Run *jobs* at once, and return when all are done; raises the first error."""
        with ThreadPoolExecutor(16, thread_name_prefix="inject") as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def close(self) -> None:
        """End the server. Idempotent."""
        self._pool.shutdown(wait=False)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _within(self, call: Callable[[], T]) -> T:
        """The result of a call of the Python client, which itself would wait for ever."""
        # Of the whole process: there may have been another.
        self._client.update_api_consumer("127.0.0.1", self._port)
        running: Future[T] = self._pool.submit(call)
        try:
            return running.result(DEADLINE)
        except FutureTimeout:
            raise ToxiproxyError(f"toxiproxy-server did not answer within {DEADLINE:g} s") from None
        except (KeyError, ValueError, requests.RequestException):
            raise
        except Exception as error:
            # Its exceptions carry bytes, and name a toxic for what may be anything.
            raise ToxiproxyError(f"{type(error).__name__}: {error}") from error

    def _ask(self, method: str, path: str, **how: Any) -> requests.Response:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                answer = requests.request(method, self._base + path, **{"timeout": DEADLINE, **how})
            except requests.RequestException as error:
                raise ToxiproxyError(f"{method} {path}: {type(error).__name__}") from error
            # 503: its own limit of 25 s passed, because another call, or a busy machine, kept it.
            # Looking harms nobody.
            if (
                answer.ok
                or method != "GET"
                or answer.status_code != 503
                or time.monotonic() > deadline
            ):
                break
            time.sleep(0.1)
        if not answer.ok:
            raise ToxiproxyError(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def _state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = self._ask("GET", f"/proxies/{name}").json()
        return state

    def _expect(self, name: str, *, enabled: bool, upstream: str) -> None:
        state = self._state(name)
        if state["enabled"] is not enabled or state["upstream"] != upstream:
            raise ToxiproxyError(
                f"{name}: asked for {upstream}, enabled={enabled}, and the server has {state}"
            )


def _start(program: str) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(_STARTS_MAX):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        process = subprocess.Popen(
            [program, "-host", "127.0.0.1", "-port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LOG_LEVEL": "error"},
            start_new_session=True,
        )
        deadline = time.monotonic() + 20.0
        # It ends when somebody else has the port.
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if (
                    "version" in requests.get(f"http://127.0.0.1:{port}/version", timeout=2.0).text
                    and process.poll() is None
                ):
                    return process, port
            time.sleep(0.01)
        process.kill()
        process.wait()
    raise ToxiproxyError(f"{program} did not start")


def main() -> None:
    """Get the server where that is possible, and say where it is or how to get it; never an
    error."""
    sys.stdout.write(f"{find_server() or HOW_TO_GET_IT}\n")


if __name__ == "__main__":
    main()
