"""The golden behaviours of the proxies that faults rest on, on the real server: who executes
what, and when."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.live.backend import Setup, side_client
from chaos.live.cluster import Cluster, Link
from chaos.live.nemesis import (
    Closed,
    Toxified,
    black_hole,
    cut_before_reply,
    held_back,
    late_replies,
    latency,
    lost_replies,
    lost_requests,
    slicing,
)
from chaos.live.processes import Processes
from chaos.live.toxiproxy import Toxic, Toxics, ToxiproxyError

LINK: Link = ("c1", 1)
FAULT = "fault-1"


@pytest.fixture(scope="module")
def stage(toxiproxy: str) -> Iterator[Cluster]:
    """One server, and one client's way to it."""
    backend, toxics = Processes(), Toxics(toxiproxy)
    try:
        yield Cluster(backend, toxics)
    finally:
        toxics.close()
        backend.close()


@pytest.fixture
def cluster(stage: Cluster) -> Cluster:
    """Clean for each test."""
    stage.fresh(Setup(count=2), ["c1"])
    return stage


def test_the_server_knows_its_version(stage: Cluster) -> None:
    """A report names the release that took part, not the word that a plain build answers with."""
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", stage.toxics.version())


def proxied(cluster: Cluster, timeout: float = 0.4) -> redis.Redis:
    """A client whose requests pass the proxy; it gives up soon and never asks again."""
    return redis.Redis.from_url(
        cluster.url(*LINK),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,
    )


def executed(cluster: Cluster, timeout: float = 10.0) -> bool:
    """Whether the SET has arrived at the server, waiting for it if it takes its time."""
    with side_client(cluster.node(1)) as client:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if client.get("key") is not None:
                return True
            time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [
        (black_hole((LINK,)), False),
        (lost_requests((LINK,)), False),
        (lost_replies((LINK,)), True),
        (late_replies((LINK,)), True),
        (cut_before_reply((LINK,)), True),
    ],
    ids=lambda value: value.name if isinstance(value, Toxified) else "",
)
def test_a_request_without_a_reply_was_executed_or_not(
    cluster: Cluster, fault: Toxified, arrives: bool
) -> None:
    """What each fault of a link is for: the client knows nothing, and the server has executed
    it, or never will."""
    with proxied(cluster) as client:
        client.ping()
        cluster.add(fault.links, FAULT, fault.toxics)
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            client.set("key", "value")
        assert executed(cluster, 10.0 if arrives else 0.3) is arrives
        cluster.remove(fault.links, FAULT, fault.toxics)
    with proxied(cluster) as client:
        assert client.ping()


def test_a_request_that_is_held_back_arrives_after_its_client_has_gone(cluster: Cluster) -> None:
    """F16: it is executed when the fault heals, though whoever sent it gave up and hung up."""
    fault = held_back((LINK,))
    client = proxied(cluster)
    client.ping()
    cluster.add(fault.links, FAULT, fault.toxics)
    with pytest.raises(redis.TimeoutError):
        client.set("key", "value")
    client.close()
    assert not executed(cluster, 0.2)
    cluster.remove(fault.links, FAULT, fault.toxics)
    assert executed(cluster)


def test_a_slow_link_is_as_slow_as_said(cluster: Cluster) -> None:
    """At least: an attribute that the server did not know would be a latency of 0."""
    fault = latency((LINK,), 0.2)
    with proxied(cluster, timeout=10.0) as client:
        client.ping()
        cluster.add(fault.links, FAULT, fault.toxics)
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began >= 0.19


def test_bytes_come_one_by_one_and_whole(cluster: Cluster) -> None:
    """Slicing changes when bytes come, and none of them."""
    fault = slicing((LINK,))
    cluster.add(fault.links, FAULT, fault.toxics)
    with proxied(cluster, timeout=10.0) as client:
        client.set("key", "x" * 500)
        assert client.get("key") == b"x" * 500


def test_a_closed_port_refuses_and_opens_again_on_the_same_port(cluster: Cluster) -> None:
    """Connections end at once, new ones are refused, and afterwards the address is what it was."""
    with proxied(cluster) as client:
        client.ping()
        url = cluster.url(*LINK)
        cluster.enable(Closed(links=(LINK,)).links, enabled=False)
        with pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        cluster.enable([LINK], enabled=True)
        assert client.ping() and cluster.url(*LINK) == url


def test_an_address_can_lead_to_another_server(cluster: Cluster) -> None:
    """A moved VIP, or a second name for a server that is listed already."""
    for number in (1, 2):
        with side_client(cluster.node(number)) as client:
            client.set("who", number)
    cluster.point([LINK], 2)
    with proxied(cluster) as client:
        assert client.get("who") == b"2"
    cluster.point([LINK], 1)
    with proxied(cluster) as client:
        assert client.get("who") == b"1"


def test_a_misspelled_attribute_is_refused(cluster: Cluster) -> None:
    """The server takes it in silence and does nothing: what stands is read back and compared."""
    with pytest.raises(ToxiproxyError, match="latncy"):
        cluster.add([LINK], FAULT, [Toxic("latency", "upstream", {"latncy": 100})])


def test_what_the_server_refuses_is_raised(cluster: Cluster) -> None:
    """The Python client raises for few statuses, and under misleading names."""
    with pytest.raises(ToxiproxyError):
        cluster.add([LINK], FAULT, [Toxic("no such toxic", "upstream")])
    with pytest.raises(ToxiproxyError):
        cluster.remove([LINK], FAULT, [Toxic("latency", "upstream")])


def test_a_port_that_somebody_else_took_is_an_error_and_not_a_key_error(cluster: Cluster) -> None:
    """A closed proxy has no hold on its port."""
    name = "c1-n1"
    host, port = cluster.toxics.listens(name)
    cluster.enable([LINK], enabled=False)
    with (
        socket.create_server((host, port)),
        pytest.raises(ToxiproxyError, match="could not be opened"),
    ):
        cluster.toxics.enable(name, enabled=True, patience=0.2)
    cluster.enable([LINK], enabled=True)


def test_a_reset_leaves_nothing_broken(cluster: Cluster) -> None:
    """Ports are open and no toxic is left, whatever a scenario forgot to heal."""
    cluster.add([LINK], FAULT, black_hole((LINK,)).toxics)
    cluster.enable([("c1", 2)], enabled=False)
    cluster.toxics.reset()
    with proxied(cluster) as client:
        assert client.ping()


def test_the_server_is_gone_when_it_is_closed(toxiproxy: str) -> None:
    """No process stays behind."""
    toxics = Toxics(toxiproxy)
    assert toxics.answers()
    toxics.close()
    assert not toxics.answers()
