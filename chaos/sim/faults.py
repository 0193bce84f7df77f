"""What may be done to a run: each word of a plan's steps, and what it does.

A fault that lasts ends by itself, and at the latest when all is healed. Every one is noted in the
history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chaos.sim.elect import SimCandidate
from chaos.sim.node import marked
from chaos.sim.operator import Operator
from chaos.sim.workloads import CALLS
from chaos.sim.world import EARS
from redlock.core.commands import MARKER_KEY, QUEUE_SUFFIX
from redlock.core.identity import Marker

if TYPE_CHECKING:
    from chaos.sim.stage import Stage

__all__ = ["FAULTS"]

Names = tuple[str, ...]
Nodes = tuple[int, ...]

_WAYS = {"up": ("up",), "down": ("down",), "both": ("up", "down")}


def _partition(
    stage: Stage, clients: Names, nodes: Nodes, ways: str, how: str, lasts: float
) -> None:
    """Clients lose nodes. *ways* "up": requests are stopped, "down": replies; *how*: they are
    "hold"ed or "swallow"ed."""
    what = f"{_list(clients)} cut off from {_nodes(nodes)}, {ways} ways ({how}), for {lasts:.3f} s"
    heal = stage.world.cut(clients, nodes, _WAYS[ways], swallow=how == "swallow")
    stage.lasting("partition", what, lasts, heal, nodes, clients)


def _reset(stage: Stage, client: str, nodes: Nodes, late: bool) -> None:
    """Connections break; *late*: what was under way still reaches the nodes, after the client
    asked again."""
    stage.blip(
        "reset",
        f"{client} loses its connections to {_nodes(nodes)}{', late' if late else ''}",
        nodes,
        (client,),
    )
    for node in nodes:
        for connection in stage.world.connections(client, node):
            connection.reset(late=late)


def _let(stage: Stage, client: str, nodes: Nodes, way: str, count: int) -> None:
    """So many of what a partition holds get through."""
    for node in nodes:
        for connection in stage.world.connections(client, node):
            connection.let(way, count)


def _hush(stage: Stage, clients: Names, nodes: Nodes, lasts: float) -> None:
    """What nodes publish for clients gets lost."""
    hushed = stage.world.hushed
    cells = {(client, node) for client in clients for node in nodes}
    hushed |= cells
    what = f"no message from {_nodes(nodes)} reaches {_list(clients)} for {lasts:.3f} s"
    stage.lasting("hush", what, lasts, lambda: hushed.difference_update(cells), nodes, clients)


def _deafen(stage: Stage, client: str, nodes: Nodes) -> None:
    """Nodes cut the connections that listen, as those of a subscriber that is too slow."""
    stage.blip("deafen", f"{client} hears nothing from {_nodes(nodes)}", nodes, (client,))
    _cut_ears(stage, nodes, client)


def _cut_ears(stage: Stage, nodes: Nodes, client: str | None = None) -> None:
    for node in nodes:
        for connection in stage.world.connections(client, node):
            if connection.way == EARS:
                connection.reset(late=False)


def _forbid(stage: Stage, nodes: Nodes, what: str, lasts: float) -> None:
    """Clients lose their rights to the "channels" of wake-ups, or to the "keys" of queues."""

    def without(what: str) -> None:
        for node in nodes:
            stage.world.nodes[node].queues.without = what

    without(what)
    if what == "channels":
        _cut_ears(stage, nodes)
    # Where most nodes have no queue, nobody knows whose turn it is.
    kind = "forbid" if what == "channels" or 2 * len(nodes) < stage.plan.nodes else "unqueued"
    text = f"{_nodes(nodes)} without rights to {what} of queues for {lasts:.3f} s"
    stage.lasting(kind, text, lasts, lambda: without(""), nodes)


def _plant(stage: Stage, nodes: Nodes, what: str, resource: str = "r") -> None:
    """Somebody writes to the queues of a lock what no script of ours would."""
    key = f"redlock:{resource}{QUEUE_SUFFIX}"
    for node in nodes:
        server = stage.world.nodes[node]
        now = server.wall_us(stage.world.now)
        if not server.up or server.role != "master":
            continue
        if what == "foreign":
            server.queues.clear()
            server.data[key] = ("foreign", now // 1000 + 300)
        else:
            server._get(key, now // 1000)
            if key not in server.data:
                places = _planted(what, dict(server.queues.places(key, now)), now // 1000)
                server.queues.put(key, places, now // 1000 + 5_000)
    kind = "unqueued" if what == "foreign" and 2 * len(nodes) > stage.plan.nodes else "plant"
    stage.blip(kind, f"the queues on {_nodes(nodes)} are {what} now", nodes)


def _planted(what: str, places: dict[str, float], now_ms: int) -> dict[str, float]:
    """What stands there afterwards: "reversed", or with somebody in "front", with "absurd" leases,
    or with "nonsense" besides."""
    waiting = sorted(name for name in places if places[name] > 0)
    if what == "reversed":
        tickets = [places[name] for name in waiting]
        return places | dict(zip(waiting, reversed(tickets), strict=True))
    if what == "absurd":
        places = {name: -1e15 if score < 0 else score for name, score in places.items()}
        return places | {"nobody.2": 2.0, "~nobody.2": -1e15}
    if what == "front":
        return places | {"nobody.1": 1.0, "~nobody.1": -float(now_ms + 900)}
    return places | {"!": 7.0, "nobody": 1.0, "": 2.0, "!x.1": -5.0, "x.1": float("inf")}


def _slow(stage: Stage, nodes: Nodes, seconds: float, lasts: float) -> None:
    """Everything to and from the nodes takes longer."""
    slow = stage.world.slow

    def heal() -> None:
        for node in nodes:
            slow.pop(node, None)

    slow.update(dict.fromkeys(nodes, seconds))
    stage.lasting(
        "slow", f"{_nodes(nodes)} {seconds:.3f} s away for {lasts:.3f} s", lasts, heal, nodes
    )


def _pause(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """SIGSTOP for nodes; they execute on waking what came meanwhile."""
    for node in nodes:
        stage.world.pause(node)

    def heal() -> None:
        for node in nodes:
            stage.world.resume(node)

    stage.lasting("pause", f"{_nodes(nodes)} paused for {lasts:.3f} s", lasts, heal, nodes)


def _crash(stage: Stage, nodes: Nodes, kept: str, lasts: float) -> None:
    """Nodes end and come again as another run, with their data, without, or with what was saved
    last."""
    down = [node for node in nodes if stage.world.nodes[node].up]
    for node in down:
        forgets = kept == "lost" or (
            kept == "rollback" and not marked(stage.world.nodes[node].snapshot)
        )
        stage.world.crash(node, "durable" if forgets and not stage.may_forget(node) else kept)

    def heal() -> None:
        for node in down:
            stage.world.start(node)

    stage.lasting(
        "crash", f"{_nodes(nodes)} down for {lasts:.3f} s, data {kept}", lasts, heal, nodes
    )


def _reload(stage: Stage, nodes: Nodes, kept: str) -> None:
    """Nodes restart at once, behind something that keeps their clients' connections."""
    reloaded = []
    for node in nodes:
        forgets = kept == "lost" or (
            kept == "rollback" and not marked(stage.world.nodes[node].snapshot)
        )
        if not forgets or stage.may_forget(node):
            reloaded.append(node)
            stage.world.reload(node, kept)
    stage.blip(
        "reload", f"{_nodes(reloaded)} restarted behind living connections, data {kept}", reloaded
    )


def _replicate(stage: Stage, node: int, master: int, lasts: float) -> None:
    """A node is made another one's replica, and a master again: it has that one's data then, and
    its connections live on."""
    nodes = stage.world.nodes
    if not nodes[node].up or nodes[node].role != "master" or not stage.may_copy(master, node):
        return
    nodes[node].demote(nodes[master])

    def heal() -> None:
        if nodes[node].role != "master":
            if nodes[master].up and nodes[master].role == "master":
                nodes[node].copy(nodes[master])
            nodes[node].promote()

    stage.lasting(
        "replicate", f"n{node} is a replica of n{master} for {lasts:.3f} s", lasts, heal, (node,)
    )


def _back_up(stage: Stage, nodes: Nodes) -> None:
    """A backup, or a first replica: another replication id, and nothing is lost."""
    stage.blip("backup", f"{_nodes(nodes)} backed up", nodes)
    for node in nodes:
        if stage.world.nodes[node].role == "master":
            stage.world.nodes[node].back_up()


def _move(stage: Stage, node: int, living: bool) -> None:
    """The node's name leads to its standby, or back to the server before; at once, so that never
    two of them live."""
    server = stage.world.nodes[node]
    if not server.up or not (stage.may_return(node) if server.stood_by else stage.may_forget(node)):
        return
    stage.blip(
        "move",
        f"n{node} is {'the server before' if server.stood_by else 'its standby'} now",
        (node,),
    )
    stage.world.move(node, living=living)


def _swap(stage: Stage, node: int) -> None:
    """SWAPDB: the node has other data, and after the second time those of before."""
    server = stage.world.nodes[node]
    if stage.may_return(node) if server.swapped else stage.may_forget(node):
        stage.blip(
            "swap",
            f"n{node} has the data of {'before' if server.swapped else 'another database'}",
            (node,),
        )
        server.swap()


def _misname(stage: Stage, client: str, one: int, other: int, swapped: bool, lasts: float) -> None:
    """A client's name for one node leads to another one's server; *swapped*: and the other way
    round."""
    led = {one: other, other: one} if swapped else {one: other}
    stage.clients[client].mislead(led)
    what = (
        f"{client} finds n{other} under the name"
        f" n{one}{', and the other way round,' if swapped else ''} for {lasts:.3f} s"
    )
    stage.lasting("misname", what, lasts, stage.clients[client].find, led, (client,))


PRESSURE = 1.3
"""Seconds from a new eviction policy to the first key that it costs: connections in use look
once a second."""


def _pressure(stage: Stage, nodes: Nodes, kind: str, lasts: float) -> None:
    """An eviction policy is set at run time, and after a while keys go."""
    servers = [stage.world.nodes[node] for node in nodes]

    def policy(name: str) -> None:
        for server in servers:
            server.policy = name

    def evict() -> None:
        for server in servers:
            if server.policy != "noeviction":
                server.evict(kind, counts=True)

    policy("allkeys-lru")
    stage.world.at(stage.world.now + PRESSURE, evict)
    lasts += PRESSURE
    stage.lasting(
        "pressure",
        f"{_nodes(nodes)} may evict for {lasts:.3f} s, and do: {kind}",
        lasts,
        lambda: policy("noeviction"),
        nodes,
    )


def _refuse(stage: Stage, nodes: Nodes, error: str, lasts: float) -> None:
    """Every script is answered with an error."""

    def answer(text: str) -> None:
        for node in nodes:
            stage.world.nodes[node].refuses = text

    answer(error)
    stage.lasting(
        "refuse",
        f"{_nodes(nodes)} answer scripts with {error} for {lasts:.3f} s",
        lasts,
        lambda: answer(""),
        nodes,
    )


def _repeat(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """Markers that are written now are written once more later, by something in between."""
    world = stage.world
    for node in nodes:
        world.nodes[node].repeats = []

    def heal() -> None:
        for node in nodes:
            world.nodes[node].repeat(world.now)

    stage.lasting(
        "repeat", f"{_nodes(nodes)} execute a MARK twice within {lasts:.3f} s", lasts, heal, nodes
    )


def _init(stage: Stage, settings: tuple[tuple[str, Any], ...], delay: float, breaks: int) -> None:
    """`redlock init`: each of its commands takes a while, and after so many of them it may break
    off."""
    said = ", ".join([f"{name}={value}" for name, value in settings])
    stage.world.note("", "Init", f"init {said} begins")
    asked: dict[str, Any] = dict(settings)
    if asked.get("replace"):  # Of the same cluster, with the same promises.
        plan = stage.plan
        cluster = None if plan.cluster == "-" else plan.cluster
        asked = {
            "durable": plan.durable,
            "never_replicas": plan.never_replicas,
            "cluster": cluster,
            **asked,
        }
    ended = Operator(stage.world, delay=delay, breaks=breaks).init(**asked)
    stage.world.note("", "Init", f"init {said}: {ended}")


def _enter(stage: Stage, name: str, timeout: float) -> None:
    """A client that lives for as long as it takes to get the lock, or for its timeout."""
    stage.enter(name, timeout)


def _save(stage: Stage, nodes: Nodes) -> None:
    """What a later rollback brings back."""
    for node in nodes:
        stage.world.nodes[node].save()


def _flush(stage: Stage, nodes: Nodes) -> None:
    """FLUSHALL."""
    flushed = []
    for node in nodes:
        if stage.may_forget(node):
            flushed.append(node)
            stage.world.nodes[node].flush()
    stage.blip("flush", f"{_nodes(flushed)} flushed", flushed)


def _raise(stage: Stage, nodes: Nodes, max_ttl: float) -> None:
    """`redlock init --max-ttl`: longer locks are allowed from now on."""
    for node in nodes:
        data = stage.world.nodes[node].data
        marker = Marker.parse(data[MARKER_KEY][0]) if MARKER_KEY in data else None
        if marker is not None:
            data[MARKER_KEY] = (replace(marker, max_ttl=max_ttl).text(), None)
    stage.blip("raise", f"{_nodes(nodes)}: max_ttl raised to {max_ttl:g} s", nodes)


def _evict(stage: Stage, nodes: Nodes, kind: str) -> None:
    """Locks, fences or both go, the marker stays: nobody can see it."""
    stage.blip("evict", f"{_nodes(nodes)} evicted: {kind}", nodes)
    for node in nodes:
        stage.world.nodes[node].evict(kind)


def _switched(stage: Stage, nodes: Nodes, lasts: float, switch: str, word: str, what: str) -> None:
    """A switch of nodes is on for a while."""

    def turn(on: bool) -> None:
        for node in nodes:
            setattr(stage.world.nodes[node], switch, on)

    turn(True)
    stage.lasting(
        word, f"{_nodes(nodes)} {what} for {lasts:.3f} s", lasts, lambda: turn(False), nodes
    )


def _memory(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """Nodes are out of memory: nothing new is stored, and what is there may go."""
    _switched(stage, nodes, lasts, "out_of_memory", "memory", "out of memory")


def _cut_short(stage: Stage, nodes: Nodes) -> None:
    """The next TAKE that writes is aborted between its two writes."""
    stage.blip("abort", f"{_nodes(nodes)}: the next TAKE is cut short", nodes)
    for node in nodes:
        stage.world.nodes[node].cut_short = True


def _babble(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """Scripts are answered with nonsense."""
    _switched(stage, nodes, lasts, "babbles", "babble", "answer nonsense")


def _mumble(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """Greetings are answered with nonsense."""
    _switched(stage, nodes, lasts, "mumbles", "mumble", "greet with nonsense")


_SCRIBBLES = ("nonsense", "redlock2 x y 3000 0 0 -", "{elsewhere}", "{short}")


def _scribble(stage: Stage, nodes: Nodes, what: int, lasts: float) -> None:
    """Somebody writes a marker of another format or cluster, and puts the old one back after a
    while."""
    written: dict[int, tuple[str, str]] = {}
    for node in nodes:
        data = stage.world.nodes[node].data
        marker = Marker.parse(data[MARKER_KEY][0]) if MARKER_KEY in data else None
        # Not over what another one wrote: that would be put back, and stay.
        if marker is not None and (marker.nodes, marker.cluster) == (
            stage.plan.nodes,
            stage.plan.cluster,
        ):
            short = replace(marker, nodes=marker.nodes + 2).text()
            elsewhere = replace(marker, cluster="elsewhere").text()
            written[node] = (
                marker.text(),
                _SCRIBBLES[what].format(elsewhere=elsewhere, short=short),
            )
            data[MARKER_KEY] = (written[node][1], None)

    def heal() -> None:
        for node, (before, after) in written.items():
            data = stage.world.nodes[node].data
            if data.get(MARKER_KEY) == (after, None):
                data[MARKER_KEY] = (before, None)

    stage.lasting(
        "scribble", f"{_nodes(written)} with a foreign marker for {lasts:.3f} s", lasts, heal, nodes
    )


def _flap(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """Every connection on which a script comes is broken."""
    _switched(stage, nodes, lasts, "flaps", "flap", "cut off at every script")


def _scripts(stage: Stage, nodes: Nodes) -> None:
    """SCRIPT FLUSH."""
    stage.blip("scripts", f"{_nodes(nodes)} forget their scripts", nodes)
    for node in nodes:
        stage.world.nodes[node].scripts.clear()


def _foreign(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """A classic client takes the lock there, or dies between SETNX and EXPIRE where somebody
    repairs that."""
    stage.blip("foreign", f"somebody else's lock on {_nodes(nodes)}", nodes)
    for node in nodes:
        server = stage.world.nodes[node]
        now_ms = server.wall_us(stage.world.now) // 1000
        if server.up and server._get("redlock:r", now_ms) is None:
            server.data["redlock:r"] = (
                "somebody else",
                None if stage.plan.repair else now_ms + lasts * 1000,
            )


_UNFIT: dict[str, tuple[str, Any, Any]] = {
    "evicting": ("policy", "allkeys-lru", "noeviction"),
    "clustered": ("cluster_enabled", 1, 0),
    "loading": ("loading", 1, 0),
    "timeless": ("uptime", "?", None),
    "nameless": ("run_id", "", "f" * 40),
}


def _unfit(stage: Stage, nodes: Nodes, why: str, lasts: float) -> None:
    """Nodes are set up so that they must not vote; a client sees it when it greets them next."""
    if why == "replica":
        _unmaster(stage, nodes, lasts)
        return
    name, bad, good = _UNFIT[why]

    def make(value: Any) -> None:
        for node in nodes:
            setattr(stage.world.nodes[node], name, value)

    make(bad)
    stage.lasting(
        "unfit", f"{_nodes(nodes)} {why} for {lasts:.3f} s", lasts, lambda: make(good), nodes
    )


def _unmaster(stage: Stage, nodes: Nodes, lasts: float) -> None:
    """REPLICAOF an address where nobody answers, and back: the data stay, and nobody can tell."""
    servers = [stage.world.nodes[node] for node in nodes]
    for server in servers:
        server.role = "slave"

    def heal() -> None:
        for server in servers:
            if server.role != "master":
                server.promote()

    stage.lasting(
        "unmaster", f"{_nodes(nodes)} made replicas of nobody for {lasts:.3f} s", lasts, heal, nodes
    )


def _jump(stage: Stage, nodes: Nodes, seconds: float) -> None:
    """Node clocks are stepped."""
    stage.blip("jump", f"the clocks of {_nodes(nodes)} jump by {seconds:g} s", nodes)
    for node in nodes:
        stage.world.nodes[node].jump(seconds)


def _race(stage: Stage, nodes: Nodes, rate: float) -> None:
    """From now on the nodes' clocks run at *rate*."""
    stage.blip("race", f"the clocks of {_nodes(nodes)} run at {rate:g}", nodes)
    for node in nodes:
        stage.world.nodes[node].set_rate(rate, stage.world.now)


def _skew(stage: Stage, client: str, seconds: float) -> None:
    """A client's wall clock is off by so much from now on."""
    stage.blip("skew", f"the wall clock of {client} is off by {seconds:g} s", clients=(client,))
    stage.clients[client].source.skew = seconds


def _stall(stage: Stage, client: str, seconds: float) -> None:
    """A client is paused and its lease clock with it: no clock that we read does that, unless it
    is broken."""
    stage.clients[client].stall(seconds)
    stage.lasting(
        "stall",
        f"{client} paused for {seconds:.3f} s, its lease clock too",
        seconds,
        _nothing,
        clients=(client,),
    )


def _freeze(stage: Stage, client: str, lasts: float) -> None:
    """SIGSTOP for a client."""
    stage.clients[client].pause(lasts)
    stage.lasting(
        "freeze", f"{client} paused for {lasts:.3f} s", lasts, _nothing, clients=(client,)
    )


def _nap(stage: Stage, client: str, answers: int, lasts: float) -> None:
    """SIGSTOP for a client with an answer in flight: after so many more of them."""
    stage.blip(
        "nap",
        f"{client} will pause for {lasts:.3f} s after {answers} more answers",
        clients=(client,),
    )
    stage.clients[client].nap(answers, lasts)


def _suspend(stage: Stage, client: str, lasts: float) -> None:
    """A client's machine sleeps: its timers do not count that."""
    stage.clients[client].suspend(lasts)
    stage.lasting(
        "suspend", f"{client} suspended for {lasts:.3f} s", lasts, _nothing, clients=(client,)
    )


def _cancel(stage: Stage, client: str, steps: int) -> None:
    """The caller goes away: now, or after so many more events of what it waits for, or waits for
    next."""
    stage.actors_of(client)[0].cancel(steps)


def _kill(stage: Stage, client: str) -> None:
    """SIGKILL for a client."""
    stage.blip("kill", f"{client} killed", clients=(client,))
    stage.clients[client].kill()


def _close(stage: Stage, client: str) -> None:
    """A client is closed, whatever it does just then."""
    stage.world.note(client, "Close", "is being closed")
    if not stage.clients[client].cluster.lines.hears:
        # Nodes do not see that a deaf one is gone, and threads that sleep say nothing at a close.
        stage.world.eased_at = stage.world.now
    stage.clients[client].close()


def _starve(stage: Stage, clients: Names, of: str, lasts: float) -> None:
    """Clients have no "threads" to dial in, or no "descriptors" for a connection."""

    def have(what: str) -> None:
        for client in clients:
            stage.clients[client].starved = what

    have(of)
    stage.lasting(
        "starve",
        f"{_list(clients)} without {of} for {lasts:.3f} s",
        lasts,
        lambda: have(""),
        clients=clients,
    )


def _fork(stage: Stage, client: str) -> None:
    """A client forks; the child tries its parent's leases, and then works for itself."""
    stage.blip("fork", f"{client} forks", clients=(client,))
    stage.fork(client)


def _candidates(stage: Stage, client: str, what: str, lasts: float = 0.0) -> list[SimCandidate]:
    """The candidates of a client, to whom *what* is done."""
    found = stage.clients[client].candidates
    if found:
        stage.lasting("election", f"{client} {what}", lasts, _nothing, clients=(client,))
    return [candidate for candidate in found if isinstance(candidate, SimCandidate)]


def _resign(stage: Stage, client: str) -> None:
    """A client's candidates resign."""
    for candidate in _candidates(stage, client, "resigns"):
        candidate.resign()


def _ineligible(stage: Stage, client: str, lasts: float) -> None:
    """Whoever asks whether they are fit is told that they are not."""
    for candidate in _candidates(stage, client, f"is not eligible for {lasts:.3f} s", lasts):
        candidate.unfit_until = stage.world.now + lasts


def _mute(stage: Stage, client: str, lasts: float) -> None:
    """Whoever asks whether they are fit is told nothing."""
    for candidate in _candidates(stage, client, f"is not told for {lasts:.3f} s", lasts):
        candidate.mute_until = stage.world.now + lasts


def _hang(stage: Stage, client: str, lasts: float) -> None:
    """The work of a client's candidates does nothing, and hears nothing."""
    for candidate in _candidates(stage, client, f"hangs for {lasts:.3f} s", lasts):
        candidate.hung_until = stage.world.now + lasts


def _fail(stage: Stage, client: str, how: str) -> None:
    """The work of a client's candidates ends, by an "error", an "interrupt", or a "return"."""
    for candidate in _candidates(stage, client, f"ends its work: {how}"):
        candidate.fail(how)


def _call(call: str) -> Callable[..., None]:
    def make(stage: Stage, client: str, *arguments: Any) -> None:
        name, _, actor = client.partition(":")
        stage.actors_of(name)[int(actor or 0)].call(call, *arguments)

    return make


FAULTS: dict[str, Callable[..., None]] = {
    "partition": _partition,
    "reset": _reset,
    "let": _let,
    "slow": _slow,
    "hush": _hush,
    "deafen": _deafen,
    "forbid": _forbid,
    "plant": _plant,
    "pause": _pause,
    "crash": _crash,
    "reload": _reload,
    "replicate": _replicate,
    "backup": _back_up,
    "move": _move,
    "swap": _swap,
    "misname": _misname,
    "pressure": _pressure,
    "refuse": _refuse,
    "repeat": _repeat,
    "init": _init,
    "enter": _enter,
    "save": _save,
    "flush": _flush,
    "evict": _evict,
    "raise": _raise,
    "memory": _memory,
    "abort": _cut_short,
    "babble": _babble,
    "mumble": _mumble,
    "scribble": _scribble,
    "flap": _flap,
    "scripts": _scripts,
    "foreign": _foreign,
    "unfit": _unfit,
    "jump": _jump,
    "race": _race,
    "skew": _skew,
    "stall": _stall,
    "freeze": _freeze,
    "nap": _nap,
    "suspend": _suspend,
    "cancel": _cancel,
    "kill": _kill,
    "close": _close,
    "starve": _starve,
    "fork": _fork,
    "resign": _resign,
    "ineligible": _ineligible,
    "mute": _mute,
    "hang": _hang,
    "fail": _fail,
    **{call: _call(call) for call in CALLS},
}
"""By word, what a step does; `stage.py` plays them."""


def _nothing() -> None:
    """It ends by itself."""


def _list(clients: Names) -> str:
    return ", ".join(clients)


def _nodes(nodes: Iterable[int]) -> str:
    return ", ".join(f"n{node}" for node in nodes)
