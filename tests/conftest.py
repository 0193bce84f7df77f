"""Fixtures of the whole suite: real servers, one cluster per module, clean keys for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

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

LONGEST = (
    "live/test_memories.py",
    "servers/test_memories_live.py",
    "live/test_scenarios.py",
    "contract/test_nothing_left.py",
    "contract/test_election.py",
    "servers/test_cli.py",
    "servers/test_admission_live.py",
    "sim/test_simulator.py",
    "servers/test_supervisor.py",
    "servers/test_faults.py",
    "sim/test_cover.py",
    "contract/test_renewal.py",
    "model/test_sound.py",
    "servers/test_interop.py",
    "servers/test_one_node.py",
    "servers/test_elect_cli.py",
    "servers/test_connect.py",
    "test_threads.py",
    "electors/test_conductor.py",
    "deploy/test_users.py",
    "live/test_command.py",
    "contract/test_refused.py",
    "servers/test_exhaustion.py",
    "transport/test_blocking.py",
    "contract/test_close_busy.py",
    "live/test_campaign.py",
    "model/test_memories.py",
    "transport/test_fuzz.py",
)
"""Files that take more than twenty seconds by themselves, most of it waiting, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: `make test` hands out whole files, and one that is begun last
    would be waited for with all other processes idle."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
