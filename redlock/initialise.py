"""Setting a cluster up: writing every node's marker explicitly, instead of waiting until they must
be new.

An operator's act, not part of any acquire. It never guesses: a node that has a marker is left
alone, unless its promise is to be raised, or the cluster is to be replaced and no lock lives on it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace as changed
from itertools import islice
from typing import Any

import redis

from redlock.core.commands import FENCE_SUFFIX, Command, Look, Mark, Nonsense
from redlock.core.identity import Blank, Identity, Marker, Memory, blank
from redlock.core.policy import check_duration, check_text
from redlock.core.quarantine import FLOOR_AHEAD
from redlock.core.quorum import FaultKind, majority
from redlock.core.remedies import remedied
from redlock.core.roster import MAX_TTL_DEFAULT
from redlock.diagnose import diagnose_one
from redlock.errors import ConfigurationError, NodeUnreachable, shown
from redlock.transport.dial import Endpoint, NodeSpec, endpoints

# Long: one operation, with how each of its steps is taken back.
__all__ = ["initialise"]

_TIMEOUT = 5.0
"""Seconds for each answer: an operator waits, and a busy server is no dead one."""
_ASKED_TOGETHER = 1000
"""Keys asked in one go: fewer cost round trips, and more keep the server from its locks."""
_NOBODY = Memory("", "")


# Long: the steps in their order, and how each is taken back.
def initialise(
    nodes: Sequence[NodeSpec],
    *,
    max_ttl: float | None = None,
    durable: bool = False,
    never_replicas: bool = False,
    cluster: str | None = None,
    replace: bool = False,
) -> list[Marker]:
    """Mark every node of a new cluster, and return the markers.

    *max_ttl*: longest ttl in seconds that anybody may ask for (None: 60). *durable*: the nodes run
    `appendfsync always`. *never_replicas*: no node is ever made a replica, so that a backup, which
    changes a node's replication id, costs nothing. *cluster*: an id that keeps clients with other
    node lists out. On a cluster that is marked already, a larger *max_ttl* raises it,
    *never_replicas* is promised from now on, and nothing else can be changed; *replace* marks it
    anew. Marking anew is refused while any lock lives, under whatever prefix, and while a majority
    has forgotten whether one does. Every node must answer. Raises
    ConfigurationError, and NodeUnreachable for a node that does not answer. If a new
    cluster is marked half-way, the other nodes look as if they had forgotten: they wait out a
    quarantine, or *replace* marks all anew. A raise that broke off goes on when it is run again.
    """
    if max_ttl is not None:
        check_duration("max_ttl", max_ttl)
    check_text("cluster", cluster or "")
    if cluster is not None and (
        not cluster.isprintable() or not cluster.strip() or " " in cluster or cluster == "-"
    ):
        raise ConfigurationError(f"cluster={shown(cluster)} must be one word: letters and digits")
    with ExitStack() as stack:
        servers = [
            _Server(endpoint, stack.enter_context(endpoint.client(_TIMEOUT)))
            for endpoint in endpoints(nodes)
        ]
        _look(servers)
        new = Marker(
            _NOBODY,
            len(servers),
            max_ttl or MAX_TTL_DEFAULT,
            durable=durable,
            never_replicas=never_replicas,
        )
        new = changed(new, cluster=cluster or "-")
        marked = [server for server in servers if not server.identity.blank]
        if replace or not marked:
            return _marked_anew(servers, new, used=replace)
        _refuse_other_changes(marked, durable=durable, cluster=cluster)
        return _raised(servers, max_ttl, never_replicas=never_replicas)


class _Server:
    """One node, and what it told last."""

    identity: Identity

    def __init__(self, endpoint: Endpoint, client: redis.Redis) -> None:
        self.blank = ""
        """The blank that we put there ourselves."""
        self.endpoint = endpoint
        self.name = endpoint.name
        self.client = client

    @property
    def marker(self) -> Marker | None:
        return Marker.parse(self.identity.marker)

    @property
    def wait_ttl(self) -> float:
        """How long the locks may last, in seconds, of the cluster that it is of, or was until a
        run before this one took its marker; 0: it is of none, or has forgotten what it granted.
        """
        marker, put = self.marker, Blank.parse(self.identity.marker)
        if marker is not None:
            return marker.wait_ttl if _is_admitted(marker, self.identity) else 0.0
        return (
            put.wait_ttl
            if put is not None and put.replication_id == self.identity.memory.replication_id
            else 0.0
        )

    def look(self) -> None:
        """Ask it who it is. Raises NodeUnreachable for one that does not answer now, and
        ConfigurationError for one that cannot be asked, or must not vote."""
        try:
            self.identity = Identity.parse(*self._run(Look(waits=False)))
        except (redis.RedisError, OSError) as error:
            fault = self.endpoint.fault(error)
            silent = isinstance(error, redis.TimeoutError)
            unfit = None if silent else self._unfit()
            stays = unfit or diagnose_one(self.endpoint)
            why = remedied(stays or fault.detail)
            told = f"{self.name} {why}; every node must answer to be marked"
            if stays is None and fault.kind is not FaultKind.REFUSED:
                raise NodeUnreachable(told) from error
            raise ConfigurationError(told) from error
        if self.identity.unfit is not None:
            raise ConfigurationError(f"{self.name} {remedied(self.identity.unfit)}")

    def _unfit(self) -> str | None:
        """What a node tells of itself that refuses the script: a replica without its master, one
        in cluster mode."""
        # Whatever it answers, redis-py has to read it first: nonsense tells nothing.
        with suppress(Exception):
            info: Any = self.client.info()
            return Identity.parse({key: str(value) for key, value in info.items()}, "").unfit
        return None

    def put(self, mark: Mark) -> str | None:
        """Carry out *mark*, and give what stands now."""
        try:
            stands: str | None = self._run(mark)
        except (redis.RedisError, OSError) as error:
            why = remedied(self.endpoint.fault(error).detail)
            raise ConfigurationError(f"{self.name} {why}") from error
        return stands

    def write(self, new: Marker) -> Marker:
        """Put the promises of *new* where the marker or blank stands that was looked at, and
        look at what was written."""
        mark = changed(new, memory=self.identity.memory, evicted=self.identity.evicted).write(
            self.identity
        )
        stands = self.put(mark) or ""
        written = Marker.parse(stands)
        if written is None or not mark.wrote(stands):
            raise ConfigurationError(
                f"{self.name} was marked, or lost its marker or its memory, while this was done:"
                " see `redlock nodes`, and run it again"
            )
        self.identity = changed(self.identity, marker=stands)
        return written

    def _run(self, command: Command) -> Any:
        try:
            return command.read(self.client.execute_command(*command.words(whole=True)))  # type: ignore[no-untyped-call]
        except Nonsense as error:
            told = remedied(f"{self.name} answered nonsense: {error}")
            raise ConfigurationError(told) from error


def _look(servers: Sequence[_Server]) -> None:
    for server in servers:
        server.look()
    _refuse_twins(servers)


def _give_blanks(servers: Sequence[_Server]) -> None:
    """As every client does first (`identity.blank`): who has that same blank at the next look was
    without a marker at one instant, and is marked only if it lost nothing since. No lock is granted
    by a node with a blank.

    Should this break off, a client that never met the cluster must not take it for a new one: so
    the blanks say how long its locks may last.
    """
    stood = {}
    latest_us = max(round(server.identity.clock * 1e6) for server in servers)
    for server in servers:
        mark = blank(
            secrets.token_hex(16), server.identity, latest_us=latest_us, wait_ttl=server.wait_ttl
        )
        stood[server] = stands = server.put(mark)
        server.blank = stands if stands is not None and mark.wrote(stands) else ""
    _look(servers)
    for server in servers:
        if server.identity.marker != stood[server] or not server.identity.blank:
            raise ConfigurationError(
                f"{server.name} was marked, or lost what it had, while this was done: see"
                " `redlock nodes`,"
                " and run it again"
            )


def _marked_anew(servers: Sequence[_Server], new: Marker, *, used: bool) -> list[Marker]:
    """All nodes marked anew. Where they were *used* before, with a floor that no token granted then
    can be beyond: some of them may have forgotten.

    A lock that is granted between a look for locks and the new marker may outlive what a quarantine
    will wait for from then on. So all nodes are kept from granting any before the look that counts;
    the first look finds out without stopping anybody.
    """
    _refuse_forgotten_locks(servers)
    _refuse_live_locks(servers)
    before = [(server.marker, server.identity) for server in servers]
    try:
        _give_blanks(servers)
        _refuse_live_locks(servers)
        used = used or any(server.wait_ttl or _has_fences(server) for server in servers)
    except BaseException:  # A Ctrl-C too.
        for server, (marker, identity) in zip(servers, before, strict=True):
            _give_back(server, marker, identity)
        raise
    latest = max(server.identity.clock for server in servers)
    known = [marker.floor for marker, _ in before if marker is not None]
    floor = max([round((latest + FLOOR_AHEAD) * 1e6), *known]) if used else 0
    # The node of the smallest memory first, as every client does: its compare-and-set decides who
    # founds the cluster.
    in_order = sorted(servers, key=lambda server: server.identity.memory)
    written = {server: server.write(changed(new, floor=floor)) for server in in_order}
    return [written[server] for server in servers]


def _give_back(server: _Server, marker: Marker | None, identity: Identity) -> None:
    """Put the marker of a node that lost nothing where our blank stands, if it can be: else the
    node waits out a quarantine.

    Where anything but that very blank stands, nothing included, the node has lost its data or is
    another's affair by now.
    """
    if marker is None or not server.blank or not _is_admitted(marker, identity):
        return
    with suppress(ConfigurationError):
        server.look()
        now = server.identity
        if (
            now.marker == server.blank
            and now.memory == identity.memory
            and now.evicted == identity.evicted
        ):
            server.write(changed(marker, since_us=0, before=False))


def _refuse_twins(servers: Sequence[_Server]) -> None:
    seen: dict[str, str] = {}
    for server in servers:
        run_id = server.identity.memory.run_id
        if run_id in seen:
            raise ConfigurationError(
                f"{server.name} is the same server as {seen[run_id]}: name each once"
            )
        seen[run_id] = server.name


def _raised(
    servers: Sequence[_Server], max_ttl: float | None, *, never_replicas: bool
) -> list[Marker]:
    """Raise the `max_ttl` of all nodes, or promise for all that they are never replicas.

    A quarantine must wait for the longest lock that can exist, and asks the other nodes. So all of
    them are told to wait for longer ones before any node takes one, and that all are is looked at
    once more in between: a node that forgot meanwhile, and was marked as before, would not know.
    """
    if max_ttl is None and not never_replicas:
        names = ", ".join(server.name for server in servers if server.marker is not None)
        raise ConfigurationError(
            f"already marked: {names}; give a larger --max-ttl, or --replace once no lock lives"
        )
    markers = _admitted(servers)
    for server, marker in zip(servers, markers, strict=True):
        if max_ttl is not None and max_ttl < marker.max_ttl:
            raise ConfigurationError(
                f"max_ttl={max_ttl:g} is below the {marker.max_ttl:g} of {server.name}: it may only"
                " be raised, so give more, or --replace once no lock lives"
            )
    wait_ttl = max([max_ttl or 0.0, *(marker.wait_ttl for marker in markers)])
    for server, marker in zip(servers, markers, strict=True):
        promised = marker.never_replicas or never_replicas
        _write(server, changed(marker, wait_ttl=wait_ttl, never_replicas=promised, before=False))
    _look(servers)
    markers = _admitted(servers)
    for server, marker in zip(servers, markers, strict=True):
        if marker.wait_ttl < wait_ttl:
            raise ConfigurationError(
                f"{server.name} forgot its marker while this was done, and was marked anew: see"
                " `redlock nodes`, and run it again"
            )
    return [
        # Never lowered, not even below what somebody else raised it to meanwhile.
        _write(server, changed(marker, max_ttl=max(max_ttl or 0.0, marker.max_ttl), before=False))
        for server, marker in zip(servers, markers, strict=True)
    ]


def _admitted(servers: Sequence[_Server]) -> list[Marker]:
    """The markers of nodes that all have their memory. Raises ConfigurationError."""
    markers = []
    for server in servers:
        marker, identity = server.marker, server.identity
        if marker is None or marker.nodes != len(servers) or not _is_admitted(marker, identity):
            raise ConfigurationError(
                f"{server.name} is not an admitted node of this cluster, so nothing can be changed:"
                " wait until it votes (`redlock nodes --wait`)"
            )
        markers.append(marker)
    return markers


def _is_admitted(marker: Marker, identity: Identity) -> bool:
    return marker.names(identity) and (marker.before or identity.evicted <= marker.evicted)


def _write(server: _Server, new: Marker) -> Marker:
    """Write *new*, unless it stands there."""
    return new if server.identity.marker == new.text() else server.write(new)


def _refuse_other_changes(marked: Sequence[_Server], *, durable: bool, cluster: str | None) -> None:
    for server in marked:
        marker, name = server.marker, server.name
        if marker is not None and cluster not in (None, marker.cluster):
            raise ConfigurationError(
                f"{name} belongs to cluster {marker.cluster!r}, not {cluster!r}: correct the"
                " node list, or give --replace once no lock lives"
            )
        if marker is not None and durable and not marker.durable:
            raise ConfigurationError(
                f"{name} belongs to a cluster that is not durable: leave --durable out, or give"
                " --replace once no lock lives"
            )


def _refuse_live_locks(servers: Sequence[_Server]) -> None:
    for server in servers:
        lock_key = _first(server, _live_locks(server.client))
        if lock_key is not None:
            raise ConfigurationError(
                f"{server.name} still holds a lock, {shown(lock_key)}: stop the clients and"
                " wait until"
                " all have expired"
            )


def _refuse_forgotten_locks(servers: Sequence[_Server]) -> None:
    """A lock lives on a majority. Where so many have forgotten, one may be valid that none of the
    nodes shows any more.

    The list may be longer or shorter than that of the cluster so far. What nodes may hold that are
    in it no more is the operator's to wait for, and those which are new look as if they had
    forgotten.
    """
    forgot = [server.name for server in servers if not server.wait_ttl]
    if not any(server.marker is not None or server.wait_ttl for server in servers):
        return
    before = max(
        [marker.nodes for server in servers if (marker := server.marker) is not None],
        default=len(servers),
    )
    remember, needed = len(servers) - len(forgot), majority(before)
    if len(forgot) >= needed and remember + needed <= before:
        raise ConfigurationError(
            f"{', '.join(forgot)} forgot what they granted, so locks may be valid that no node"
            " shows: wait until they vote (`redlock nodes --wait`)"
        )


def _has_fences(server: _Server) -> bool:
    """Whether locks were ever granted there, as far as it remembers."""
    return _first(server, _fences(server.client)) is not None


def _first(server: _Server, keys: Iterator[Any]) -> Any:
    """The first of *keys*, None if there is none. Raises ConfigurationError where the node
    cannot be asked."""
    try:
        return next(keys, None)
    except (redis.RedisError, OSError) as error:
        raise ConfigurationError(
            f"{server.name}, asked for its locks, {remedied(server.endpoint.fault(error).detail)}"
        ) from error


def _fences(client: redis.Redis) -> Iterator[bytes]:
    return client.scan_iter(match=f"*{FENCE_SUFFIX}", count=1000)


def _live_locks(client: redis.Redis) -> Iterator[str]:
    """Keys that hold one of our locks, whatever the prefix of its clients: every one of them has a
    fence beside it.

    Asked for many at once: while nodes have blanks nobody gets a lock, and a week's fences may be
    very many.
    """
    fences = _fences(client)
    while some := list(islice(fences, _ASKED_TOGETHER)):
        keys = [fence_key[: -len(FENCE_SUFFIX)] for fence_key in some]
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(key)
        there: Iterable[int] = pipeline.execute()
        yield from [
            key.decode("utf-8", "replace")
            for key, exists in zip(keys, there, strict=True)
            if exists
        ]
