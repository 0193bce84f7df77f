"""A node's image from a server binary and the libraries it needs, where the official one cannot be
pulled.

Through the Docker SDK: the build context is put together in memory, so nothing is downloaded and
nothing left behind.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import docker

__all__ = ["CONFINEMENT", "LABEL", "TAG", "build", "context", "libraries"]

HERE = Path(__file__).resolve().parent
TAG = "redlock-node:scratch"
LABEL = "redlock.node"
"""On every image built here."""
_USER = 999
CONFINEMENT: dict[str, Any] = {
    "user": f"{_USER}:{_USER}",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "mem_limit": "192m",
    "memswap_limit": "192m",
    "pids_limit": 32,
    "ulimits": [docker.types.Ulimit(name="nofile", soft=8192, hard=8192)],
}
"""What compose.yaml says of a node's container, as arguments for the SDK."""


def libraries(server: Path) -> list[Path]:
    """The shared libraries that `ldd` names for *server*, the loader included; none if it is
    linked statically."""
    told = subprocess.run(["ldd", str(server)], capture_output=True, text=True, check=False).stdout
    missing = re.findall(r"^\s*(\S+) => not found", told, re.MULTILINE)
    if missing:
        raise RuntimeError(f"{server} needs {', '.join(missing)}, not installed here")
    return [Path(path) for path in re.findall(r"(?:=>|^)\s*(/\S+) \(0x", told, re.MULTILINE)]


def context(server: Path) -> bytes:
    """The build context: a tar file of Dockerfile.scratch and of all that goes into the image."""
    found = libraries(server)
    folders = ":".join(sorted({str(path.parent) for path in found}))
    # A loader of another distribution may look elsewhere than where its libraries are.
    recipe = (HERE / "Dockerfile.scratch").read_text("utf-8")
    recipe += f"ENV PATH=/usr/local/bin LD_LIBRARY_PATH={folders}\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode, data in _files(server, found):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(data)
            tar.addfile(info, io.BytesIO(data))
        data_folder = tarfile.TarInfo("data")
        data_folder.type, data_folder.mode, data_folder.uid, data_folder.gid = (
            tarfile.DIRTYPE,
            0o700,
            _USER,
            _USER,
        )
        tar.addfile(data_folder)
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(recipe.encode())
        tar.addfile(info, io.BytesIO(recipe.encode()))
    return buffer.getvalue()


def build(client: docker.DockerClient, server: Path, tag: str = TAG) -> str:
    """Build the image for *server* and return its id. Raises docker.errors.BuildError."""
    image, _ = client.images.build(
        fileobj=io.BytesIO(context(server)),
        custom_context=True,
        tag=tag,
        labels={LABEL: "scratch"},
        rm=True,
        forcerm=True,
    )
    return str(image.id)


def _files(server: Path, found: list[Path]) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of what the image has."""
    yield "root/usr/local/bin/valkey-server", 0o755, server.read_bytes()
    for path in found:
        yield f"root{PurePosixPath(path)}", 0o755, path.read_bytes()
    for name in ("node.conf", "tls.conf"):
        yield f"root/etc/redlock-node/{name}", 0o644, (HERE / name).read_bytes()
