"""Setting a cluster up: writing every node's marker explicitly, instead of waiting until they must be new.

An operator's act, not part of any acquire. It never guesses: a node that has a marker is left alone, unless its promise
is to be raised, or the cluster is to be replaced and no lock lives on it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace as changed
from typing import Any

import redis

from redlock.core.admission import MAX_TTL_DEFAULT, Identity, Marker, blank
from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY, Mark
from redlock.errors import ConfigurationError
from redlock.policy import check_duration, check_text
from redlock.transport.dial import Endpoint, NodeSpec, endpoints

__all__ = ["initialise"]

_TIMEOUT = 5.0


def initialise(
    nodes: Sequence[NodeSpec],
    *,
    max_ttl: float | None = None,
    durable: bool = False,
    cluster: str | None = None,
    replace: bool = False,
) -> list[Marker]:
    """Mark every node of a new cluster, and return the markers.

    *max_ttl*: longest ttl in seconds that anybody may ask for (None: 60). *durable*: the nodes run `appendfsync always`.
    *cluster*: an id that keeps clients with other node lists out. On a cluster that is marked already, a larger *max_ttl*
    raises it, and nothing else can be changed; *replace* marks it anew, and is refused while any lock lives, under
    whatever prefix. Raises ConfigurationError. If it fails half-way, some nodes are marked and others look as if they had
    forgotten: they wait out a quarantine, or *replace* marks all anew.
    """
    if max_ttl is not None:
        check_duration("max_ttl", max_ttl)
    if cluster is not None and (not cluster.strip() or any(char.isspace() for char in cluster) or cluster == "-"):
        raise ConfigurationError(f"cluster={cluster!r} must be a word")
    check_text("cluster", cluster or "")
    found = endpoints(nodes)
    with ExitStack() as stack:
        clients = [stack.enter_context(endpoint.client(_TIMEOUT)) for endpoint in found]
        identities = _look(found, clients)
        if replace or all(identity.blank for identity in identities):
            _give_blanks(found, clients, identities)
            identities = _look(found, clients)
        marked = {
            endpoint.name: Marker.parse(identity.marker)
            for endpoint, identity in zip(found, identities, strict=True)
            if not identity.blank
        }
        new = Marker("", len(found), max_ttl or MAX_TTL_DEFAULT, durable, 0, cluster or "-")
        if replace:
            _refuse_live_locks(found, clients)
        elif marked:
            new = _raised(found, identities, marked, max_ttl)
            _refuse_other_changes(marked, durable=durable, cluster=cluster)
        return [
            _write(endpoint, client, identity, new) for endpoint, client, identity in zip(found, clients, identities, strict=True)
        ]


def _identify(endpoint: Endpoint, client: redis.Redis) -> Identity:
    try:
        info: Any = client.info()
        marker: Any = client.get(MARKER_KEY)
    except (redis.RedisError, OSError) as error:
        raise ConfigurationError(
            f"{endpoint.name} {endpoint.fault(error).detail}; every node must answer to be marked"
        ) from error
    identity = Identity.parse(
        {key: str(value) for key, value in info.items()}, marker.decode("utf-8", "replace") if marker else ""
    )
    if identity.unfit is not None:
        raise ConfigurationError(f"{endpoint.name} {identity.unfit}")
    return identity


def _look(found: Sequence[Endpoint], clients: Sequence[redis.Redis]) -> list[Identity]:
    identities = [_identify(endpoint, client) for endpoint, client in zip(found, clients, strict=True)]
    _refuse_twins(found, identities)
    return identities


def _give_blanks(found: Sequence[Endpoint], clients: Sequence[redis.Redis], identities: Sequence[Identity]) -> None:
    """As every client does first (`Admission._blank`): who has no marker at the next look had none at one instant, and is
    marked only if it lost nothing since.
    """
    for endpoint, client, identity in zip(found, clients, identities, strict=True):
        if not identity.marker:
            _put(endpoint, client, blank(secrets.token_hex(16)))


def _refuse_twins(found: Sequence[Endpoint], identities: Sequence[Identity]) -> None:
    seen: dict[str, str] = {}
    for endpoint, identity in zip(found, identities, strict=True):
        if identity.run_id in seen:
            raise ConfigurationError(f"{endpoint.name} is the same server as {seen[identity.run_id]}")
        seen[identity.run_id] = endpoint.name


def _raised(
    found: Sequence[Endpoint], identities: Sequence[Identity], marked: dict[str, Marker | None], max_ttl: float | None
) -> Marker:
    names = ", ".join(marked)
    if max_ttl is None:
        raise ConfigurationError(
            f"already marked: {names}; only a larger max_ttl can be set, or the cluster replaced once no lock lives"
        )
    for endpoint, identity in zip(found, identities, strict=True):
        marker = marked.get(endpoint.name)
        if marker is None or marker.run_id != identity.run_id or marker.nodes != len(found):
            raise ConfigurationError(f"{endpoint.name} is not an admitted node of this cluster, so its max_ttl cannot be raised")
        if max_ttl < marker.max_ttl:
            raise ConfigurationError(
                f"max_ttl={max_ttl:g} is below the {marker.max_ttl:g} of {endpoint.name}: it may only be raised"
            )
    first = next(marker for marker in marked.values() if marker is not None)
    return changed(first, max_ttl=max_ttl)


def _refuse_other_changes(marked: dict[str, Marker | None], *, durable: bool, cluster: str | None) -> None:
    for name, marker in marked.items():
        if marker is not None and cluster not in (None, marker.cluster):
            raise ConfigurationError(f"{name} belongs to cluster {marker.cluster!r}, not {cluster!r}: only max_ttl can be raised")
        if marker is not None and durable and not marker.durable:
            raise ConfigurationError(f"{name} belongs to a cluster that is not durable: only max_ttl can be raised")


def _refuse_live_locks(found: Sequence[Endpoint], clients: Sequence[redis.Redis]) -> None:
    for endpoint, client in zip(found, clients, strict=True):
        try:
            lock_key = next(_live_locks(client), None)
        except (redis.RedisError, OSError) as error:
            raise ConfigurationError(f"{endpoint.name} {endpoint.fault(error).detail}, when asked for its locks") from error
        if lock_key is not None:
            raise ConfigurationError(
                f"{endpoint.name} still holds a lock, {lock_key!r}: stop the clients and wait until all have expired"
            )


def _live_locks(client: redis.Redis) -> Iterator[str]:
    """Keys that hold one of our locks, whatever the prefix of its clients: every one of them has a fence beside it."""
    for fence_key in client.scan_iter(match=f"*{FENCE_SUFFIX}", count=1000):
        lock_key = fence_key[: -len(FENCE_SUFFIX)]
        if client.exists(lock_key):
            yield lock_key.decode("utf-8", "replace")


def _write(endpoint: Endpoint, client: redis.Redis, identity: Identity, new: Marker) -> Marker:
    before = Marker.parse(identity.marker)
    marker = changed(new, run_id=identity.run_id, floor=before.floor if before else 0)
    if identity.marker == marker.text():
        return marker
    if _put(endpoint, client, marker.write(expected=identity.marker)) != marker.text():
        raise ConfigurationError(f"{endpoint.name} was marked, or lost its marker, while this was done: look again")
    return marker


def _put(endpoint: Endpoint, client: redis.Redis, mark: Mark) -> str:
    try:
        return mark.read(client.execute_command(*mark.words(whole=True)))  # type: ignore[no-untyped-call]
    except (redis.RedisError, OSError) as error:
        raise ConfigurationError(f"{endpoint.name} {endpoint.fault(error).detail}") from error
