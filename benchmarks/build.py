"""What must be built before anything can be measured: C programs, peers' environments, and programs
of other languages.

Everything goes into `.cache` beside this file, under names that change with what it is made from.
What cannot be built here raises `Missing` with one line for the report.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["CACHE", "HERE", "Missing", "c_program", "go_program", "node_program", "rust_program"]

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
_BUILD_TIMEOUT = 900.0


class Missing(Exception):
    """A contender cannot be had on this machine; the message is one line."""


def _run(
    what: str,
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a build step. Raises Missing, with the step's first line of complaint."""
    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what}: {str(error).splitlines()[0]}") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        raise Missing(f"{what}: {(errors or said or ['it failed without a word'])[0]}")


def _fingerprint(*parts: str | bytes) -> str:
    """A short name for what something is made from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def c_program(name: str) -> Path:
    """`native/NAME.c`, compiled. Raises Missing."""
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if compiler is None:
        raise Missing(f"{name}: no C compiler on the PATH")
    source = HERE / "native" / f"{name}.c"
    built = CACHE / "native" / f"{name}-{_fingerprint(source.read_bytes())}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            made = Path(folder) / name
            _run(name, [compiler, "-O2", "-o", made, source])
            made.replace(built)
    return built


def go_program() -> Path:
    """redsync's program. Raises Missing."""
    go, source = _tool("redsync", "go"), HERE / "peers" / "go"
    built = CACHE / "go" / f"redsync-{_contents(source)}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        # The toolchain that is here, or a line in the report: none is fetched behind anybody's
        # back.
        _run(
            "redsync",
            [go, "build", "-o", built, "."],
            cwd=source,
            env={"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"},
        )
    return built


def rust_program() -> Path:
    """rslock's program. Raises Missing."""
    cargo, source = _tool("rslock", "cargo"), HERE / "peers" / "rust"
    built = CACHE / "rust" / f"rslock-{_contents(source)}"
    if not built.exists():
        target = CACHE / "rust" / "target"
        _run(
            "rslock", [cargo, "build", "--release", "--locked", "--target-dir", target], cwd=source
        )
        shutil.copy2(target / "release" / "benchmarks-rslock", built)
    return built


def node_program() -> list[str]:
    """The words that start node-redlock's program. Raises Missing."""
    node, npm, source = (
        _tool("node-redlock", "node"),
        _tool("node-redlock", "npm"),
        HERE / "peers" / "node",
    )
    folder = CACHE / "node" / _contents(source)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        shutil.copytree(source, folder, dirs_exist_ok=True)
        _run("node-redlock", [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder)
    return [node, str(folder / "main.js")]


def _tool(what: str, name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{what}: no {name} on the PATH")
    return found


def _contents(folder: Path) -> str:
    """A name that changes with any file below *folder*."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _fingerprint(*[part for path in files for part in (path.name, path.read_bytes())])
