"""A virtual environment for each peer: redlock-py and redlock-ng both install a package that is
called `redlock` too.

Built on first use, with pip, beside the packages of the environment that asks. A build that was
interrupted leaves no stamp and is thrown away; two that ask at once wait for each other.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PEERS", "PeerMissing", "environment"]

# All three work with redis-py 5.2, the last major version whose clients send a command once: from
# 6.0 on they send it again after a lost reply, and then a SET NX may find its own key and take it
# for somebody else's. redlock-ng asks for less than 6.
PEERS = {
    "redlock-py": ("redlock-py==1.0.8", "redis==5.2.1"),
    "pottery": ("pottery==3.0.1", "redis==5.2.1", "mmh3==5.3.1", "typing_extensions==4.16.0"),
    "redlock-ng": ("redlock-ng==2.0.4", "redis==5.2.1", "pydantic==2.14.4", "urllib3==1.26.20"),
}
"""What each is installed from."""
_BUILD_TIMEOUT = 50.0


class PeerMissing(Exception):
    """A peer's environment cannot be made here; the message is one line."""


def environment(
    name: str, requirements: Sequence[str] | None = None, home: Path | None = None
) -> Path:
    """The Python of a peer's own environment, built if it is not there. Raises PeerMissing."""
    requirements = PEERS[name] if requirements is None else requirements
    wanted = "\n".join([sys.version, *requirements])
    home = Path(sys.prefix) / "peers" if home is None else home
    home.mkdir(exist_ok=True)
    folder = home / name
    stamp, python = folder / "stamp", folder / "bin" / "python"
    with (home / f"{name}.lock").open("w") as lock:
        # Freed by the kernel when this process ends, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (python.exists() and stamp.is_file() and stamp.read_text("utf-8") == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            _run(name, sys.executable, "-m", "venv", "--without-pip", str(folder))
            pip = (
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(python),
                "--disable-pip-version-check",
            )
            _run(name, *pip, "install", "--quiet", "--no-input", *requirements)
            stamp.write_text(wanted, "utf-8")
    return python


def _run(name: str, *words: str) -> None:
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"no environment for {name}: {str(error).splitlines()[0]}") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith("error")]
        raise PeerMissing(
            f"no environment for {name}: {(errors or said or ['it said nothing'])[-1]}"
        )
