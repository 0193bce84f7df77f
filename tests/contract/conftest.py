"""The contract suite: every body runs for the blocking API and for asyncio; marked ones on
uvloop too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redlock.embedded import Nodes
from tests.contract.api import ASYNCIO, BLOCKING, UVLOOP, Api, Servers, is_body


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "uvloop: on uvloop too")
    config.addinivalue_line("markers", "loops: on event loops only, uvloop too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "api" in metafunc.fixturenames:
        apis: list[Api] = [BLOCKING, ASYNCIO]
        if metafunc.definition.get_closest_marker("uvloop"):
            apis.append(UVLOOP)
        if metafunc.definition.get_closest_marker("loops"):
            apis = [ASYNCIO, UVLOOP]
        metafunc.parametrize("api", apis, ids=lambda api: api.name)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let the `api` of a test that is an `async def` run it."""
    if not is_body(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    api = arguments.get("api", ASYNCIO)
    assert isinstance(api, Api)
    api.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def servers(nodes: Nodes) -> Iterator[Servers]:
    """Side clients on the module's nodes."""
    with Servers(nodes) as found:
        yield found
