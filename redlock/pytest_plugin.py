"""Fixtures for the tests of programs that take locks; pytest finds them where redlock is installed.

    def test_an_invoice_is_written_once(redlock_locks):
        with redlock_locks.lock("invoices:42", timeout=0) as lease:
            ...

Real servers, started once a session, when the first test asks for them (once for each worker of
pytest-xdist); they need the extra `embedded`. `redlock_nodes` in pytest's settings says how many,
three by default. Each test has a prefix of its own, so no test sees another's locks. Who stops or
kills nodes starts `redlock.embedded.Nodes` for that, or takes `redlock_memory`: nodes in this very
process, with a clock that the test moves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redlock import embedded, testing
    from redlock.client import Redlock

__all__ = [
    "pytest_addoption",
    "redlock_locks",
    "redlock_memory",
    "redlock_nodes",
    "redlock_prefix",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`redlock_nodes = 5` in pytest.ini or pyproject.toml."""
    parser.addini("redlock_nodes", "how many servers the fixture redlock_nodes starts", default="3")


@pytest.fixture(scope="session")
def redlock_nodes(pytestconfig: pytest.Config) -> Iterator[embedded.Nodes]:
    """Servers of this session, marked as a cluster; their `urls` are for a coordinator."""
    from redlock.embedded import Nodes

    with Nodes(_count(pytestconfig)) as nodes:
        yield nodes


def _count(config: pytest.Config) -> int:
    """How many servers the settings ask for."""
    count: str = config.getini("redlock_nodes")
    if not (count.isdecimal() and int(count)):
        raise pytest.UsageError(f"redlock_nodes = {count!r} must be a number from 1 up")
    return int(count)


@pytest.fixture
def redlock_prefix() -> str:
    """A `key_prefix` that no other test has."""
    return f"redlock:{uuid.uuid4().hex}:"


@pytest.fixture
def redlock_locks(redlock_nodes: embedded.Nodes, redlock_prefix: str) -> Iterator[Redlock]:
    """A coordinator of this test's own; it gives back behind the test what the test did not.

    For asyncio: `async with redlock.asyncio.Redlock(redlock_nodes.urls,
    key_prefix=redlock_prefix) as locks` in the test, where its loop runs.
    """
    from redlock.client import Redlock

    with Redlock(redlock_nodes.urls, key_prefix=redlock_prefix) as locks:
        yield locks


@pytest.fixture
def redlock_memory() -> Iterator[testing.Nodes]:
    """Three nodes in this process, of this test's own, with a clock to move: see
    `redlock.testing`."""
    from redlock.testing import Nodes

    with Nodes() as nodes:
        yield nodes
