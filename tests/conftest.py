"""Fixtures of the whole suite: real servers, one cluster per module, clean keys for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from redlock.embedded import Nodes

# A suite that is started in the background, or under nohup, inherits these as ignored, and would
# hand that on to every process whose signals it tests.
for _signum, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _default)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Five marked servers for a module that does not hurt them."""
    with Nodes(5) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    """The module's five servers, without a key of an earlier test; a test that stops or kills
    one asks for its own."""
    yield cluster
    for node in cluster:
        with node.client() as client:
            for key in client.scan_iter():
                if key != b"redlock:node":
                    client.delete(key)


@pytest.fixture
def own_nodes() -> Iterator[Nodes]:
    """Five marked servers of this test's own, to stop, kill and wipe."""
    with Nodes(5) as nodes:
        yield nodes
