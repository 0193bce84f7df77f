"""A stage for campaigns: real servers, the real proxy server, client processes; one for all
tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.live.processes import Processes
from chaos.live.runner import Runner
from chaos.live.toxiproxy import HOW_TO_GET_IT, find_server


@pytest.fixture(scope="session")
def toxiproxy() -> str:
    """The proxy server's program; `make test` has built it where Go is."""
    found = find_server(install=False)
    if found is None:
        pytest.skip(HOW_TO_GET_IT)
    return found


@pytest.fixture(scope="module")
def runner(toxiproxy: str) -> Iterator[Runner]:
    """Runs scenarios, each on fresh servers."""
    with Runner(Processes(), toxiproxy) as stage:
        yield stage
