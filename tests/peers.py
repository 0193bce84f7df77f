"""Other libraries' locks as real clients of the same servers.

A peer lives in a virtual environment of its own, because redlock-py installs a package that is called `redlock` too, and
in a process of its own, which reads one JSON object per line and answers with one. That process runs this very file, so
nothing but the standard library is imported at its top.

The environments are built on first use, with pip, beside the packages of the environment that runs the tests. A build
that was interrupted leaves no stamp and is thrown away; two test runs at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Both work with every redis-py from 4.6 to 8.1. 5.2 is the last major version whose clients send a command once: from 6.0
# on they send it again after a lost reply, and then a SET NX may find its own key and take it for somebody else's.
PEERS = {
    "redlock-py": ("redlock-py==1.0.8", "redis==5.2.1"),
    "pottery": ("pottery==3.0.1", "redis==5.2.1", "mmh3==5.3.1", "typing_extensions==4.16.0"),
}
_KEY_PREFIXES = {"redlock-py": "", "pottery": "redlock:"}
_BUILD_TIMEOUT = 50.0
_ANSWER_TIMEOUT = 30.0


class PeerMissing(Exception):
    """A peer's environment cannot be made here; the message is one line."""


def environment(name: str, requirements: Sequence[str] | None = None, home: Path | None = None) -> Path:
    """The Python of a peer's own environment, built if it is not there. Raises PeerMissing."""
    requirements = PEERS[name] if requirements is None else requirements
    wanted = "\n".join([sys.version, *requirements])
    home = Path(sys.prefix) / "peers" if home is None else home
    home.mkdir(exist_ok=True)
    folder = home / name
    stamp, python = folder / "stamp", folder / "bin" / "python"
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Freed by the kernel when this process ends, however it ends.
        if not (python.exists() and stamp.is_file() and stamp.read_text("utf-8") == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            _run(name, sys.executable, "-m", "venv", "--without-pip", str(folder))
            pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
            _run(name, *pip, "install", "--quiet", "--no-input", *requirements)
            stamp.write_text(wanted, "utf-8")
    return python


def _run(name: str, *words: str) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"no environment for {name}: {str(error).splitlines()[0]}") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith("error")]
        raise PeerMissing(f"no environment for {name}: {(errors or said or ['it said nothing'])[-1]}")


class Peer:
    """A process with one lock of another library, on the servers of *urls*. A context manager."""

    def __init__(self, name: str, python: Path, urls: Sequence[str]) -> None:
        self.name = name
        # -I: neither this folder nor the repository, whose `redlock` would hide the peer's, is on its path.
        self._process = subprocess.Popen(
            [str(python), "-I", __file__, name, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def key(self, resource: str) -> str:
        """The key under which this library locks *resource*."""
        return _KEY_PREFIXES[self.name] + resource

    def take(self, resource: str, ttl: float = 10.0) -> bool:
        """Try once to lock *resource*."""
        return bool(self._ask(do="take", resource=resource, ttl=ttl))

    def free(self) -> None:
        """Release the lock that was taken last, whether or not it still is ours."""
        self._ask(do="free")

    def value(self) -> str:
        """What the library wrote, or would write, as the lock's value."""
        return str(self._ask(do="value"))

    def start_contending(self, resource: str, rounds: int, witness: Path) -> None:
        """Take and release *resource* *rounds* times, showing presence at *witness*; `contended` waits for the end."""
        self._send(do="contend", resource=resource, rounds=rounds, witness=str(witness))

    def contended(self) -> dict[str, int]:
        """How many rounds were had, and in how many of them somebody else was there too."""
        return dict(self._answer())

    def _ask(self, **question: Any) -> Any:
        self._send(**question)
        return self._answer()

    def _send(self, **question: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        guard = threading.Timer(_ANSWER_TIMEOUT, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended, or was silent for {_ANSWER_TIMEOUT:g} s")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# What runs in a peer's environment


class _RedlockPy:
    def __init__(self, urls: Sequence[str]) -> None:
        self._factory = importlib.import_module("redlock").Redlock(list(urls), retry_count=1, retry_delay=0.001)
        self._lock: Any = None

    def take(self, resource: str, ttl: float) -> bool:
        lock = self._factory.lock(resource, round(ttl * 1000))
        self._lock = lock or self._lock
        return bool(lock)

    def free(self) -> None:
        self._factory.unlock(self._lock)

    def value(self) -> str:
        return str(self._lock.key.decode())


class _Pottery:
    def __init__(self, urls: Sequence[str]) -> None:
        self._masters = {importlib.import_module("redis").Redis.from_url(url) for url in urls}
        self._pottery = importlib.import_module("pottery")
        self._lock: Any = None

    def take(self, resource: str, ttl: float) -> bool:
        lock = self._pottery.Redlock(key=resource, masters=self._masters, auto_release_time=ttl)
        taken = bool(lock.acquire(blocking=False))
        self._lock = lock if taken else self._lock
        return taken

    def free(self) -> None:
        with contextlib.suppress(self._pottery.ReleaseUnlockedLock):
            self._lock.release()

    def value(self) -> str:
        return str(self._lock._uuid)


def be_present(witness: Path, seconds: float) -> bool:
    """Be at *witness* for a moment; False if somebody else is there. What a lock is to prevent."""
    try:
        witness.touch(exist_ok=False)
    except FileExistsError:
        return False
    time.sleep(seconds)
    witness.unlink()
    return True


def _contend(library: Any, resource: str, rounds: int, witness: str) -> dict[str, int]:
    had = clashes = 0
    give_up_at = time.monotonic() + _ANSWER_TIMEOUT / 2
    while had < rounds and time.monotonic() < give_up_at:
        if library.take(resource, 10.0):
            had += 1
            clashes += not be_present(Path(witness), 0.002)
            library.free()
        time.sleep(random.uniform(0.001, 0.02))
    return {"rounds": had, "clashes": clashes}


def _serve(name: str, urls: Sequence[str]) -> None:
    library = {"redlock-py": _RedlockPy, "pottery": _Pottery}[name](urls)
    for line in sys.stdin:
        question = json.loads(line)
        do = question.pop("do")
        answer = _contend(library, **question) if do == "contend" else getattr(library, do)(**question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
