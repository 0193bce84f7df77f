"""What cannot work is refused, with the value named: from the constructor what the arguments
show, later what the nodes show."""

from __future__ import annotations

import math
import re
import socket
from typing import Any

import pytest

from redlock.embedded import Nodes
from redlock.errors import ConfigurationError, RedlockError
from tests.contract.api import Api, Servers

NAN, INF = math.nan, math.inf
URLS = [f"redis://127.0.0.1:{port}" for port in (1, 2, 3)]
"""Nobody is asked by a constructor."""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": -1}, "ttl=-1"),
        ({"ttl": NAN}, "ttl=nan"),
        ({"ttl": INF}, "ttl=inf"),
        ({"ttl": "10"}, "ttl='10'"),
        ({"ttl": None}, "ttl=None"),
        ({"ttl": True}, "ttl=True"),
        ({"ttl": 0.001}, "ttl=0.001"),
        ({"ttl": 1.0, "node_timeout": 0.4}, r"ttl=1 .*node_timeout=0.4"),
        ({"ttl": 20.0, "max_ttl": 10.0}, r"ttl=20 .*max_ttl=10"),
        ({"node_timeout": 0}, "node_timeout=0"),
        ({"node_timeout": -0.1}, "node_timeout=-0.1"),
        ({"node_timeout": NAN}, "node_timeout=nan"),
        ({"drift_factor": -0.01}, "drift_factor=-0.01"),
        ({"drift_factor": 0.5}, "drift_factor=0.5"),
        ({"drift_factor": NAN}, "drift_factor=nan"),
        ({"drift_factor": "1%"}, "drift_factor='1%'"),
        ({"retry_delay": 0}, "retry_delay=0"),
        ({"retry_delay": -1.0}, "retry_delay=-1.0"),
        ({"retry_delay": INF}, "retry_delay=inf"),
        ({"max_ttl": 0}, "max_ttl=0"),
        ({"max_ttl": INF}, "max_ttl=inf"),
        ({"fence_ttl": -1}, "fence_ttl=-1"),
        ({"fence_ttl": 10.0}, r"fence_ttl=10 .*=10"),
        ({"fence_ttl": 60.0, "max_ttl": 60.0}, r"fence_ttl=60 .*max_ttl=60"),
        ({"durable": "yes"}, "durable='yes'"),
        ({"key_prefix": None}, "key_prefix=None"),
        ({"key_prefix": b"locks:"}, "key_prefix=b'locks:'"),
        ({"key_prefix": "locks\udc80:"}, r"key_prefix='locks\\udc80:'"),
        ({"ttl": 10**400}, "ttl must be at most .* a century"),
        ({"fence_ttl": 1e16}, "fence_ttl must be at most"),
        ({"max_ttl": 1e306, "fence_ttl": 0}, "max_ttl must be at most"),
        ({"retry_delay": 10**400}, "retry_delay must be at most"),
        ({"repair_missing_ttl": "no"}, "repair_missing_ttl='no'"),
        ({"on_event": 3}, "on_event=3 must be a function"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_named(
    api: Api, arguments: dict[str, Any], named: str
) -> None:
    """ConfigurationError, which is a ValueError too, from the constructor."""
    with pytest.raises(ConfigurationError, match=named):
        api.redlock(URLS, **arguments)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, RedlockError)


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([], "empty"),
        ("redis://127.0.0.1:1", "must be a list"),
        ({"host": "127.0.0.1"}, "must be a list"),
        (None, "must be a list"),
        ([*URLS, "http://127.0.0.1:4"], r"nodes\[3\]"),
        ([*URLS, "redis://127.0.0.1:port"], r"nodes\[3\]"),
        ([*URLS, 7], r"nodes\[3\].*int"),
        ([*URLS, {"hostname": "x"}], r"nodes\[3\]"),
        ([*URLS, "redis://caf\udce9:6379"], r"nodes\[3\].*host"),
        ([*URLS, {"host": "a..b"}], r"nodes\[3\].*host"),
        ([*URLS, {"host": f"{'x' * 64}.example"}], r"nodes\[3\].*host"),
        ([*URLS, "unix:///tmp/\udcff.sock"], r"nodes\[3\].*path"),
        ([*URLS, {"username": "\udc80", "password": "x"}], r"nodes\[3\].*username"),
        ([*URLS, {"password": "s3cret\udc80"}], r"nodes\[3\].*password cannot be encoded$"),
        ([*URLS, {"host": "127.0.0.1", "port": 1.5}], r"nodes\[3\].*port=1.5"),
        ([*URLS, {"host": "127.0.0.1", "port": True}], r"nodes\[3\].*port=True"),
        ([*URLS, "redis://app:42?s3cret@127.0.0.1:4"], r"nodes\[3\].*must be percent-encoded\)$"),
        ([*URLS, "redis://app:42#s3cret@127.0.0.1:4"], r"nodes\[3\].*must be percent-encoded\)$"),
        ([*URLS, URLS[0]], ":1 twice"),
        ([*URLS, {"host": "127.0.0.1", "port": 2}], ":2 twice"),
    ],
    ids=str,
)
def test_a_node_list_that_cannot_work_is_named(api: Api, nodes: Any, named: str) -> None:
    """The entry is named by its place; an empty list, a lone URL and the same server twice are
    errors."""
    with pytest.raises(ConfigurationError, match=named):
        api.redlock(nodes)


def test_a_malformed_url_keeps_its_password(api: Api) -> None:
    """A credential never appears in a message or a repr."""
    for url in (
        "redis://user:s3cret@127.0.0.1:port",
        "redis://:s3cret@[::1",
        "redis://user:s3cret@127.0.0.1:4?nonsense=s3cret",
    ):
        with pytest.raises(ConfigurationError) as caught:
            api.redlock([*URLS, url])
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None
    locks = api.redlock([*URLS[:2], "redis://user:s3cret@127.0.0.1:3"])
    assert "s3cret" not in repr(locks)
    assert "127.0.0.1:3" in repr(locks)


@pytest.mark.parametrize(
    "resource", ["", None, 7, b"orders", "node", "x:fence", "fence:fence", "a\udcff"], ids=repr
)
async def test_a_resource_whose_key_is_not_free_is_named(api: Api, resource: Any) -> None:
    """Empty, no string, no text, the nodes' marker, or what would be another lock's fence; from
    `lock` and `status` alike."""
    locks = api.redlock(URLS)
    with pytest.raises(ConfigurationError, match=f"resource.*{re.escape(repr(resource))}"):
        locks.lock(resource)
    with pytest.raises(ConfigurationError, match=f"resource.*{re.escape(repr(resource))}"):
        await locks.status(resource)
    await locks.close()


def test_the_prefix_decides_which_names_are_ours(api: Api) -> None:
    """With an empty prefix the marker's whole name is taken and "node" is free; a fence's suffix
    never is."""
    locks = api.redlock(URLS, key_prefix="")
    locks.lock("node")
    for resource in ("redlock:node", "x:fence"):
        with pytest.raises(ConfigurationError, match=resource):
            locks.lock(resource)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": -1.0}, "ttl=-1.0"),
        ({"ttl": NAN}, "ttl=nan"),
        ({"ttl": INF}, "ttl=inf"),
        ({"ttl": 0.001}, "ttl=0.001"),
        ({"ttl": 31.0}, r"ttl=31 .*max_ttl=30"),
        ({"max_hold": 0}, "max_hold=0"),
        ({"max_hold": -1.0}, "max_hold=-1.0"),
        ({"max_hold": NAN}, "max_hold=nan"),
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": 10**400}, "timeout must be None or at most"),
        ({"max_hold": 10**400}, "max_hold must be at most"),
        ({"on_lost": 3}, "on_lost=3 must be a function"),
    ],
    ids=str,
)
def test_a_lock_that_cannot_work_is_refused_before_anything_is_sent(
    api: Api, arguments: dict[str, Any], named: str
) -> None:
    """`lock` looks at its arguments at once, against what is known of the cluster."""
    locks = api.redlock(URLS, max_ttl=30.0)
    with pytest.raises(ConfigurationError, match=named):
        locks.lock("orders", **arguments)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 node is a plain lock"),
        (2, "2 nodes tolerate no failure"),
        (4, "4 nodes.*than 3"),
        (6, "6 nodes.*than 5"),
    ],
)
def test_a_number_of_nodes_that_costs_something_warns(api: Api, count: int, said: str) -> None:
    """Even, or fewer than three: allowed, with a warning at the caller's line that says what it
    costs."""
    with pytest.warns(UserWarning, match=said) as caught:
        api.redlock([f"redis://127.0.0.1:{port}" for port in range(1, count + 1)])
    assert len(caught) == 1
    assert caught[0].filename.endswith("api.py"), "the caller of the constructor"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_ttl": 30.0}, "max_ttl=60.*max_ttl=30"),
        ({"max_ttl": 90.0}, "max_ttl=60.*max_ttl=90"),
        ({"durable": True}, "durable=False.*durable=True"),
        ({"ttl": 61.0}, "ttl=61.*max_ttl=60"),
    ],
    ids=str,
)
async def test_promises_other_than_the_clusters_are_refused(
    api: Api, nodes: Nodes, servers: Servers, arguments: dict[str, Any], named: str
) -> None:
    """`max_ttl` and `durable` belong to the cluster: both values are named by the first acquire,
    and every later one."""
    async with api.redlock(nodes.urls, **arguments) as locks:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=named):
                await locks.lock("orders").acquire(timeout=5.0)
    assert not servers.lock_keys()


async def test_a_ttl_above_the_clusters_is_refused_by_any_acquire(api: Api, nodes: Nodes) -> None:
    """Of the first lock, and of one that is made when the cluster is known."""
    async with api.redlock(nodes.urls) as locks:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"ttl=61 .*max_ttl=60"):
                await locks.lock("orders", ttl=61.0).acquire(timeout=5.0)
            async with locks.lock("orders", ttl=60.0, timeout=5.0):
                pass


async def test_promises_that_are_the_clusters_are_welcome(api: Api, nodes: Nodes) -> None:
    """The same values, given explicitly."""
    async with (
        api.redlock(nodes.urls, max_ttl=60.0, durable=False, ttl=60.0) as locks,
        locks.lock("orders") as lease,
    ):
        assert lease.is_held()


async def test_a_list_of_another_length_is_refused(api: Api, nodes: Nodes) -> None:
    """Three of the cluster's five would have a majority of their own."""
    async with api.redlock(nodes.urls[:3]) as locks:
        with pytest.raises(ConfigurationError, match="cluster of 5 nodes, and this list has 3"):
            await locks.lock("orders").acquire()


async def test_one_server_behind_two_names_is_refused(api: Api, nodes: Nodes) -> None:
    """What the spelling does not tell, the run id does."""
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET)
    except OSError:
        pytest.skip("no name localhost here")
    twin = f"redis://localhost:{nodes[0].port}"
    async with api.redlock([*nodes.urls[:4], twin]) as locks:
        with pytest.raises(ConfigurationError, match="same server"):
            await locks.lock("orders").acquire()
