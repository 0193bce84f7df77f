"""Why dialling failed where that does not pass by itself, and what would help: certificates, files,
names.

A server that is down comes back; a file that is missing, a certificate of another authority or a
name that nobody knows stay as they are until somebody acts, so the words say what to do.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["UNKNOWN_NAME", "lasting"]

UNKNOWN_NAME = "has a name that is not known: correct it, or wait for its DNS entry"
"""Where nodes get their names as they start, this one passes: only all of them together tell."""

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_VERIFY_NAME = (62, 63, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, and those for e-mail and IP addresses."""


def lasting(error: BaseException, arguments: Mapping[str, Any]) -> str | None:
    """What completes "<node> ..." for an *error* of dialling with *arguments* that stays; None if
    it may pass."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            if each.verify_code in _VERIFY_NAME:
                return "has a certificate for another name: give the name that it is for"
            why = each.verify_message
            return f"is not trusted (certificate verify failed: {why}): give ?ssl_ca_certs=FILE"
    for each in chain:
        if isinstance(each, ssl.SSLError) and each.reason == "WRONG_VERSION_NUMBER":
            return "speaks no TLS on this port: use redis://, or its TLS port"
        if isinstance(each, socket.gaierror) and each.errno == socket.EAI_NONAME:
            return UNKNOWN_NAME
        if isinstance(each, FileNotFoundError | PermissionError | ssl.SSLError):
            file = _unusable(arguments)
            if file is not None:
                return file
    return None


def _unusable(arguments: Mapping[str, Any]) -> str | None:
    """Which file of those for TLS cannot be read, or is none of its kind."""
    for option in _FILES:
        path = arguments.get(option)
        if path is None:
            continue
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            return f"cannot be dialled: {option}={path}: {error.strerror}"
        if b"-----BEGIN " not in text:
            return f"cannot be dialled: {option}={path} is no PEM file"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it: redis-py wraps what the system said."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def unaddressed(text: str) -> str:
    """What redis-py says of a connection that failed, without the address: a vote has that."""
    return re.sub(r"^Error -?\d+ (?:while )?connecting to \S+ ", "", text).removesuffix(".")
