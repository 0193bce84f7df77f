"""Decorated functions: a lock named by the arguments of each call, and the lease as an argument;
and the short ways to a coordinator and to its health."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from redlock import ConfigurationError, Redlock, RedlockError
from redlock.embedded import Nodes
from tests.contract.api import Api, Servers, majority, paused

pytestmark = pytest.mark.uvloop


def _locked(servers: Servers) -> set[str]:
    return {key for keys in servers.lock_keys().values() for key in keys}


async def test_a_call_locks_what_its_arguments_name(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Given by position, by name or by default, and an attribute of one as well."""
    async with api.redlock(nodes.urls) as locks:
        seen: list[set[str]] = []

        @locks.lock("invoice:{number}:{kind}:{day.real}")
        async def work(number: int, day: int = 3, *, kind: str = "draft") -> int:
            seen.append(_locked(servers))
            return number

        assert await work(1) == 1
        assert await work(number=2, kind="final", day=4) == 2
    assert seen == [{"redlock:invoice:1:draft:3"}, {"redlock:invoice:2:final:4"}]


async def test_a_call_is_given_its_lease_on_request(api: Api, nodes: Nodes) -> None:
    """In front of the arguments of the caller, who does not see it in the signature."""
    async with api.redlock(nodes.urls) as locks:

        @locks.lock("invoice:{number}").with_lease
        async def work(lease: Any, number: int, more: int = 0) -> tuple[str, bool, int]:
            return lease.resource, lease.is_held(), number + more

        assert await work(7, more=1) == ("invoice:7", True, 8)
        assert list(inspect.signature(work).parameters) == ["number", "more"]


@pytest.mark.parametrize(
    "resource",
    ["{nobody}", "a{", "{}", "{lease}", "{number}{other.id}", "{number:{width}}", "{number!z}"],
)
async def test_a_name_that_is_no_parameter_is_refused_where_it_is_decorated(
    api: Api, nodes: Nodes, resource: str
) -> None:
    """All calls would share one lock."""
    async with api.redlock(nodes.urls) as locks:

        async def work(lease: Any, number: int) -> None: ...

        with pytest.raises(ConfigurationError, match="decorator"):
            locks.lock(resource).with_lease(work)


async def test_braces_are_literal_where_nothing_is_decorated(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """A hash tag stays one; a decorator wants it doubled."""
    async with api.redlock(nodes.urls) as locks:
        async with locks.lock("{tag}:1"):
            assert _locked(servers) == {"redlock:{tag}:1"}

        @locks.lock("{{tag}}:{number}")
        async def work(number: int) -> set[str]:
            return _locked(servers)

        assert await work(2) == {"redlock:{tag}:2"}


async def test_a_resource_that_arguments_leave_empty_is_refused(api: Api, nodes: Nodes) -> None:
    """As `lock` refuses it, before anything is asked for."""
    async with api.redlock(nodes.urls) as locks:

        @locks.lock("{name}")
        async def work(name: str) -> None: ...

        with pytest.raises(ConfigurationError, match="non-empty"):
            await work("")


async def test_nodes_of_the_environment(
    api: Api, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By commas and spaces, with the arguments of the constructor; none at all is refused."""
    monkeypatch.setenv("REDLOCK_NODES", f" {nodes.urls[0]}, {' '.join(nodes.urls[1:])}")
    kind = api.module.Redlock
    found = kind.from_env(ttl=5.0)
    assert repr(found) == repr(kind(nodes.urls))
    assert found._policy.ttl == 5.0
    monkeypatch.setenv("REDLOCK_NODES", " , ")
    with pytest.raises(ConfigurationError, match="REDLOCK_NODES"):
        kind.from_env()


async def test_ready_says_whether_a_majority_votes(
    api: Api, nodes: Nodes, servers: Servers
) -> None:
    """Asked of the nodes each time; a closed coordinator is an error, not an outage."""
    async with api.redlock(nodes.urls, node_timeout=0.2) as locks:
        assert await locks.ready() is True
        with paused(majority(nodes)):
            assert await locks.ready() is False
        assert await locks.ready() is True
    with pytest.raises(RedlockError, match="closed"):
        await locks.ready()


def test_what_has_no_name_or_no_signature_is_decorated_or_refused_in_words() -> None:
    """A builtin needs no signature where no argument is named; what a partial function would only
    begin is refused as any."""

    async def work() -> None: ...

    with Redlock(["redis://a", "redis://b", "redis://c"]) as locks:
        assert callable(locks.lock("largest")(max))
        with pytest.raises(ConfigurationError, match="no signature"):
            locks.lock("largest:{number}")(max)
        with pytest.raises(TypeError, match="is an async def"):
            locks.lock("orders")(functools.partial(work))
