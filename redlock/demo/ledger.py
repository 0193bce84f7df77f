"""What the lock guards: a counter in a file, which refuses whoever comes late."""

from __future__ import annotations

from pathlib import Path


class StaleToken(Exception):
    """The resource has seen this fencing token or a larger one: whoever comes with it is late."""


class Ledger:
    """The guarded resource: a file with a counter, and the fencing token of whoever wrote last.

    It is read, and only later written, with nothing in between but the lock: two at once would lose
    an update.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[int, int]:
        """The counter and the token."""
        counter, token = self._path.read_text("ascii").split()
        return int(counter), int(token)

    def write(self, counter: int, token: int) -> None:
        """Replace both."""
        self._path.write_text(f"{counter} {token}\n", "ascii")

    def open(self, token: int) -> int:
        """The counter, for a holder with *token*. Raises StaleToken."""
        counter, highest = self.read()
        if token <= highest:
            raise StaleToken(f"fencing token {token} is not above {highest}")
        return counter
