"""The users' file of a node, from its template and passwords that live elsewhere.

A password comes from the environment, from a file that the environment names (as Docker's secrets
do), or is made up and kept beside the file. The users' file itself has digests only.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NAMES", "TEMPLATE", "password", "render", "write"]

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "users.acl.in"
SECRETS = HERE / "secrets"
NAMES = {
    "redlock": "REDLOCK_PASSWORD",
    "operator": "REDLOCK_OPERATOR_PASSWORD",
    "monitor": "REDLOCK_MONITOR_PASSWORD",
}
"""The users, and the variables with their passwords."""


def password(name: str, folder: Path = SECRETS, environ: Mapping[str, str] = os.environ) -> str:
    """The password of a user: from the environment, from the file it names, or from *folder*, made
    up if need be.

    Raises ValueError for one that is empty.
    """
    variable = NAMES[name]
    if variable in environ:
        return _checked(variable, environ[variable])
    if f"{variable}_FILE" in environ:
        path = Path(environ[f"{variable}_FILE"])
        return _checked(str(path), path.read_text("utf-8").strip())
    path = folder / f"{name}.password"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Letters, digits, - and _ alone: it goes into URLs as it is.
        _private(path, secrets.token_urlsafe(32) + "\n")
    return _checked(str(path), path.read_text("utf-8").strip())


def render(passwords: Mapping[str, str], template: str | None = None) -> str:
    """The users' file: the template without comments, with the digests of *passwords* in their
    places."""
    text = TEMPLATE.read_text("utf-8") if template is None else template
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    digests = {
        name.upper(): hashlib.sha256(word.encode()).hexdigest() for name, word in passwords.items()
    }
    return "".join(
        re.sub(r"\{(\w+)\}", lambda match: digests[match[1]], line) + "\n" for line in lines
    )


def write(path: Path, folder: Path = SECRETS, environ: Mapping[str, str] = os.environ) -> None:
    """Write the users' file to *path*.

    Into the same file if there is one: a container that has it mounted would not see another.
    Readable for everyone who may enter its folder, because the server in a container is somebody
    else; it has digests of long random words.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = render({name: password(name, folder, environ) for name in NAMES})
    path.write_text(text, "utf-8")
    path.chmod(0o644)


def _private(path: Path, text: str) -> None:
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)


def _checked(source: str, word: str) -> str:
    if not word:
        raise ValueError(f"{source} is empty: a node needs a password")
    return word
