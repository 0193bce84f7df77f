"""The ways in which node 2 forgets, one function each, and the table of them."""

from __future__ import annotations

from functools import partial

from chaos.live.memories.run import TTL, Run, Way
from redlock import initialise as initialising
from redlock.core.commands import MARKER_KEY
from redlock.errors import ConfigurationError
from redlock.transport.clock import now

__all__ = ["WAYS"]

_RAISED = 2.5
"""A raised max_ttl: locks of it outlive a quarantine for locks of `TTL`."""
_LONG = 3.0
"""A lease that outlives the second after which a connection in use looks again."""
_UNHURRIED = 1.2
"""A lease during which a busy machine can restart a server."""
_KEY = "redlock:till"


def _restarted(run: Run) -> None:
    run.stage.restart(2, empty=True)
    run.lost()


def _save(run: Run) -> None:
    run.stage.ask(2, "SAVE")


def _from_snapshot(run: Run) -> None:
    """Killed, and started with an older snapshot of itself, behind a proxy that keeps its
    clients' connections."""
    for wire in run.wires_to(2):
        wire.hold()
    run.stage.restart(2, empty=False)
    run.lost()
    for wire in run.wires_to(2):
        wire.let_go()


def _flushed(run: Run) -> None:
    run.stage.ask(2, "FLUSHALL")
    run.lost()


def _twin(run: Run) -> None:
    """The spare server has node 2's data as it was before A came: the very same marker text."""
    run.stage.ask(run.stage.spare, "SET", MARKER_KEY, run.stage.marker(2))
    # And soon afterwards the server forgets that it was ever promoted.
    if run.random.random() < 0.3:
        run.stage.ask(2, "CONFIG", "SET", "repl-backlog-ttl", "1")


def _promoted(run: Run) -> None:
    run.stage.copy(2, run.stage.spare)
    run.stage.promote(2)
    run.lost()


def _with_backlogs(run: Run) -> None:
    """Each node had a replica once: another one changes no replication id."""
    run.stage.copy(run.stage.spare, 3)
    run.stage.promote(run.stage.spare)


def _copied(run: Run) -> None:
    run.stage.copy(2, 3)
    run.stage.promote(2)
    run.lost()


def _swap(run: Run) -> None:
    run.stage.ask(2, "SWAPDB", 0, 1)


def _swapped_away(run: Run) -> None:
    _swap(run)
    _meet_newer(run)


def _meet_newer(run: Run) -> None:
    """A and B come to trust the newer memory; a B that is made now has never met the older."""
    assert run.a is not None
    run.until_votes(run.a, run.make_b())
    for client in (run.a, run.make_b()):
        if not run.use(client):
            raise RuntimeError(
                f"{client.name} could not use the lock with the newer memory: {client.said}"
            )


def _swapped_back(run: Run) -> None:
    _swap(run)
    run.lost()


def _moved_away(run: Run) -> None:
    run.kept["keep"] = run.random.random() < 0.7
    for wire in run.wires_to(2):
        wire.move(run.stage.node(run.stage.spare).port, keep=run.kept["keep"])
    _meet_newer(run)


def _moved_back(run: Run) -> None:
    for wire in run.wires_to(2):
        wire.move(run.stage.node(2).port, keep=run.kept["keep"])
    run.lost()


def _evict(run: Run, *, after: float) -> None:
    """The lock is evicted, and the policy put back. *after*: seconds for which the policy stands
    before that."""
    run.stage.ask(2, "CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    _pass(run, after)
    run.stage.ask(2, "CONFIG", "SET", "maxmemory", "1mb")
    while run.stage.ask(2, "EXISTS", _KEY):
        pass
    run.stage.ask(2, "CONFIG", "SET", "maxmemory", "0")
    run.stage.ask(2, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    run.lost()


def _pass(run: Run, seconds: float) -> None:
    """Let time pass, unless B is granted something meanwhile."""
    if run.tries is not None:
        run.tries.got.wait(seconds)


def _half_raised(run: Run) -> None:
    """`init --max-ttl` breaks off after some of its writes: it tells all to wait for longer
    locks first, then takes them."""
    order = run.random.choice(((1, 2, 3), (1, 2, 3), (2, 1, 3), (2, 1, 3), (2, 3, 1), (3, 2, 1)))
    done = run.random.choice((1, 2, 3, 4, 5, 5, 5, 5))
    write, left = initialising._write, [done]

    def write_some(server: object, new: object) -> object:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(server, new)  # type: ignore[arg-type]

    module: object = initialising
    urls = [run.stage.urls[number - 1] for number in order]
    module._write = write_some  # type: ignore[attr-defined]
    try:
        initialising.initialise(urls, max_ttl=_RAISED)
    except KeyboardInterrupt:
        run.note(f"init --max-ttl broke off after {done} of 6 writes, nodes in the order {order}")
    finally:
        module._write = write  # type: ignore[attr-defined]
    raised = {number for place, number in enumerate(order) if done - 3 > place}
    run.ttl = _RAISED if {1, 2} <= raised else TTL


def _lost_somehow(run: Run) -> None:
    run.random.choice((_restarted, _flushed))(run)


def _replaced(run: Run) -> None:
    """Node 2 forgets, and somebody runs `redlock init --replace`: refused while A's lock lives,
    and done once it is over."""
    assert run.a is not None
    _lost_somehow(run)
    until = run.valid_until()
    try:
        run.initialise(replace=True)
        run.note(
            "init --replace was done while A's lease was valid"
            if now() < until
            else "init --replace was done"
        )
        return
    except ConfigurationError as error:
        run.note(f"init --replace was refused: {error}")
    if run.random.random() < 0.5:
        run.a.release(run.lease)
    while True:
        try:
            run.initialise(replace=True)
        except ConfigurationError:
            _pass(run, 0.01)
            if run.tries is not None and run.tries.got.is_set():
                return
        else:
            run.note("init --replace was done")
            return


def _in_the_old_format(run: Run) -> None:
    """As an earlier version marked them."""
    for number in run.stage.numbers:
        text = f"redlock1 {run.stage.info(number, 'run_id')} {run.stage.count} {round(run.ttl * 1000)} 0 0 -"
        run.stage.ask(number, "SET", MARKER_KEY, text)
    run.stage.ask(2, "SAVE")
    run.stage.ask(run.stage.spare, "SET", MARKER_KEY, run.stage.marker(2))


def _lost_with_an_old_marker(run: Run) -> None:
    run.random.choice((_restarted, _from_snapshot, _flushed, _promoted, _promoted))(run)


def _marked_once(run: Run) -> None:
    """Node 2 is flushed, waited out, and marked again; what was sent to do that is kept on its
    way."""
    run.stage.ask(2, "FLUSHALL")
    assert run.a is not None
    run.until_votes(run.a, *[run.b] if run.b is not None else [])
    marks = sorted(
        (mark for wire in run.wires_to(2) for mark in list(wire.marks)), key=lambda mark: mark.at
    )
    run.kept["marks"] = b"".join(mark.command for mark in marks)
    for wire in run.wires_to(2):
        wire.marks.clear()


def _marked_twice(run: Run) -> None:
    """Flushed once more; then the commands that marked it after its first loss come a second
    time."""
    run.stage.ask(2, "FLUSHALL")
    run.lost()
    run.stage.send(2, run.kept["marks"])
    run.note(f"they came once more, and {run.stage.marker(2)!r} stands")


def _unreplicated(run: Run) -> None:
    run.stage.restart(2, empty=True)


def _backed_up(run: Run) -> None:
    run.stage.back_up(2)
    run.lost()


def _unmarked(run: Run) -> None:
    """A new cluster. Who founds it meets all nodes, or, every other time, never node 3 (A) or
    node 1 (B)."""
    run.kept["cut"] = run.random.random() < 0.5
    if run.kept["cut"]:
        run.stage.wire("A", 3).cut()
        run.stage.wire("B", 1).cut()


def _flushed_new(run: Run) -> None:
    run.stage.ask(2, "FLUSHALL")
    run.lost()


_OLD = partial(_evict, after=1.6)
WAYS = {
    way.name: way
    for way in (
        Way("restarted", "restarted without its data", _restarted, ("no wait", "no floor"), lives=False,
            ttl=_UNHURRIED),
        Way("snapshot", "restarted from its own snapshot, behind a proxy", _from_snapshot, ("text alone",), early=_save,
            ttl=_UNHURRIED),
        Way("flushed", "flushed", _flushed, ("no wait", "no floor")),
        Way("promoted", "made a replica and promoted, with its own old data", _promoted, ("text alone",), early=_twin),
        Way("copied", "made a copy of another node and promoted", _copied, ("no wait",), before=_with_backlogs),
        Way("swapped", "SWAPDB, and once more", _swapped_back, ("older believed",), early=_swapped_away),
        Way("standby", "its address moved to a standby and back", _moved_back, ("older believed",), early=_moved_away),
        Way("evicted", "evicted the lock", _OLD, ("eviction unseen",), ttl=_LONG, watched=False),
        Way("evicted-at-once", "evicted the lock as soon as its policy was set", partial(_evict, after=0.0), (), watched=False,
            limit=True),
        Way("half-raised", "restarted or flushed when init --max-ttl had broken off", _lost_somehow, ("max_ttl waited",),
            early=_half_raised, found=lambda run: run.initialise(max_ttl=TTL), lives=False, ttl=_RAISED),
        Way("replaced", "restarted or flushed, and init --replace", _replaced, ("replaced without floor",), lives=False,
            watched=False, counts=lambda run: run.lease is not None),
        Way("founding", "flushed while the cluster is founded", _flushed_new, ("founded by a majority",), found=_unmarked,
            watched=False, max_ttl=TTL, certain=False, counts=lambda run: True),
        Way("old-format", "lost in some way, with markers of the earlier format", _lost_with_an_old_marker, ("old names alone",),
            found=_in_the_old_format, lives=False, ttl=_UNHURRIED),
        Way("marked-twice", "flushed twice, and the first marking executed twice", _marked_twice, ("blank without time",),
            early=_marked_once),
        Way("backup", "backed up, without the promise that there are no replicas", _backed_up, ("text alone",),
            before=_unreplicated),
    )
}  # fmt: skip
