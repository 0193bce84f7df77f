"""What must be true of the place where the package is installed. `redlock` imports this before
anything else, and it imports on every platform.

A clock that runs through suspend, and no other project in the same folder: redlock-py, redlock-ng
and redlock are imported as `redlock` too, and pip writes one over the other without a word.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings

__all__ = ["PROJECT", "check_neighbours", "check_platform", "check_project"]

PROJECT = "redlock-quorum"
_THEIRS = {"algorithm.py": "redlock-ng", "cli.py": "redlock-py", "lock.py": "redlock"}
"""Modules of other projects that are none of ours, and whose they are; forks have the same. In
this order, as redlock-ng has two of them."""
_REMEDY = (
    "keep them in separate environments, or uninstall the other one and then"
    f" `pip install --force-reinstall --no-deps {PROJECT}`"
)


def check_platform() -> None:
    """Raise ImportError where leases cannot be timed."""
    if hasattr(time, "CLOCK_BOOTTIME") or sys.platform == "darwin":
        return
    raise ImportError(
        f"{PROJECT} does not run on {sys.platform}: leases need a clock that runs through suspend,"
        " as Linux (CLOCK_BOOTTIME) and macOS have; on Windows, use WSL"
    )


def check_neighbours() -> None:
    """Warn where another project's modules lie among ours."""
    found: set[str] = set()
    with contextlib.suppress(OSError):  # In a zip file nobody writes over anybody.
        found = set(os.listdir(os.path.dirname(__file__)))  # noqa: PTH120, PTH208
    other = next((project for module, project in _THEIRS.items() if module in found), None)
    if other is not None:
        warnings.warn(
            f"{other}, or a fork of it, is installed in the same folder as {PROJECT} and has the"
            f" same import name, redlock: {_REMEDY}",
            RuntimeWarning,
            stacklevel=4,
        )


def check_project() -> None:
    """Raise ImportError where another project's `redlock/__init__.py` has replaced ours."""
    if getattr(sys.modules["redlock"], "PROJECT", None) != PROJECT:
        raise ImportError(
            f"another project's redlock was written over {PROJECT} in the same folder"
            f" (redlock-py, redlock-ng and redlock have the same import name): {_REMEDY}"
        )


check_platform()
check_neighbours()
