"""What a run is made of, as data: the cluster, the clients, the weather, and a calendar of steps.

A plan comes from a seed (`draw`), from a search that shrinks (`tests/sim/test_machine.py`), or from
a file (`chaos/regressions`). The same plan may be played by the flows alone or on bytes. Its
assumptions are drawn first, so that a run inside them contains only what the library promises to
survive.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from chaos.checker import Assumptions

__all__ = ["MAX_TTL", "TTL", "Plan", "Player", "Step", "draw"]

TTL = 2.0
MAX_TTL = 3.0
SPANS = (3.0, 5.0, 8.0)
"""Seconds within which faults begin: about as long as the clients are busy."""
HEALED_FOR = 40.0
"""Long enough for every quarantine to end and every waiter to have its turn."""
TURNS_FOR = 40.0
"""More of it where every candidate is to lead once."""
DRIFT_KEPT = 0.004
"""Clock rates within this of true time differ by less than the drift factor of 1 %."""
ASTRAY = 3.0
"""Seconds by which one node's clock may be wrong: less than a quarantine, which is as far as
tokens are promised to rise past a loss."""

Step = tuple[Any, ...]
"""When, what, and with which arguments: `faults.py` has the words."""


@dataclass(frozen=True, slots=True)
class Player:
    """One client process. *nodes*: its list, as numbers of the cluster's; None: all. *actors*: its
    threads or tasks.

    *quiet*: nobody listens to the events of its tries, so the checker knows nothing of its leases.
    *sets*: it has threads, and they share so many sets of connections; 0: it has tasks, which share
    one. *fair*: it waits in line.
    """

    name: str
    nodes: tuple[int, ...] | None = None
    rate: float = 1.0
    skew: float = 0.0
    max_ttl: float | None = None
    durable: bool | None = None
    ttl: float | None = None
    actors: int = 1
    quiet: bool = False
    sets: int = 0
    fair: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before it happens. *workload* "": only what the steps say. Times in seconds of true
    time."""

    seed: int = 0
    workload: str = ""
    mode: str = "plain"
    assumptions: Assumptions = field(default_factory=Assumptions)
    nodes: int = 3
    rates: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    players: tuple[Player, ...] = (Player("A"), Player("B"))
    marked: bool = True
    before: bool = False
    uptime: float = 0.0
    durable: bool = False
    never_replicas: bool = False
    cluster: str = "-"
    ttl: float = TTL
    max_ttl: float = MAX_TTL
    repair: bool = False
    retry_delay: float = 0.1
    delay: float = 0.0005
    tail_share: float = 0.0
    tail: float = 0.0
    lossy: bool = False
    rounds: int = 2
    steps: tuple[Step, ...] = ()
    healed_at: float = 8.0
    ends_at: float = 48.0

    def text(self) -> str:
        """As one line of JSON; what is as usual is left out."""
        usual = Plan()
        found = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if getattr(self, entry.name) != getattr(usual, entry.name)
        }
        if "players" in found:
            found["players"] = [_unusual(player) for player in self.players]
        if "assumptions" in found:
            found["assumptions"] = asdict(self.assumptions)
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan that `text` wrote. Raises ValueError or TypeError for anything else."""
        found = {name: _tuples(value) for name, value in json.loads(text).items()}
        if "players" in found:
            found["players"] = tuple(Player(**player) for player in found["players"])
        if "assumptions" in found:
            found["assumptions"] = Assumptions(**found["assumptions"])
        return cls(**found)


def _unusual(player: Player) -> dict[str, Any]:
    usual = Player(player.name)
    values = {entry.name: getattr(player, entry.name) for entry in fields(player)}
    return {
        name: value
        for name, value in values.items()
        if name == "name" or value != getattr(usual, name)
    }


def _tuples(value: Any) -> Any:
    """JSON has no tuples."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value


def draw(seed: int, workload: str, mode: str = "plain") -> Plan:
    """The plan of a seed: the same one on any machine, whichever way it is played."""
    source = random.Random(f"{workload}/{seed}")
    assumptions = _assume(source)
    nodes = 5 if source.random() < 0.75 else 3
    marked = source.random() < 0.95
    durable = marked and source.random() < 0.15
    never_replicas = marked and source.random() < 0.3
    players = _players(source, nodes, assumptions, marked, durable)
    raises = marked and assumptions.memory and source.random() < 0.15
    if raises:
        players = [
            replace(player, max_ttl=None) if player.name != "x" else player for player in players
        ]
    tail_share, tail = source.choice(_WEATHER)
    span = source.choice(SPANS)
    spread = DRIFT_KEPT if assumptions.timing else source.choice([DRIFT_KEPT, 0.2])
    offsets = [
        source.uniform(-0.5, 0.5) if not assumptions.order or assumptions.memory else 0.0
        for _ in range(nodes)
    ]
    apart = random.Random(f"{workload}/{seed}/astray")
    if any(offsets) and apart.random() < 0.15:
        offsets[apart.randrange(nodes)] = apart.uniform(-ASTRAY, ASTRAY)
    plan = Plan(
        seed,
        workload,
        mode,
        assumptions,
        nodes,
        rates=tuple([1.0 + source.uniform(-spread, spread) for _ in range(nodes)]),
        offsets=tuple(offsets),
        players=tuple([_clocked(source, player, assumptions, spread) for player in players]),
        marked=marked,
        before=source.random() < 0.1,
        uptime=source.choice([0.0, 100.0]),
        durable=durable,
        never_replicas=never_replicas,
        cluster=source.choice(["-", "-", "-", "prod"]) if marked else "-",
        repair=source.random() < 0.2,
        tail_share=tail_share,
        tail=tail,
        lossy=source.random() < 0.5,
        rounds=source.choice([1, 1, 1, 2, 2, 3]),
        retry_delay=source.choice(_RETRY_DELAYS),
        steps=_steps(
            source,
            workload,
            nodes,
            players,
            assumptions,
            _Promises(marked, durable, never_replicas, raises),
            span,
        ),
        healed_at=span,
        ends_at=span + HEALED_FOR + (TURNS_FOR if workload == "elect" else 0.0),
    )
    # Drawn by itself, so that the rest of a seed is what it was before there were queues.
    lining_up = random.Random(f"{workload}/{seed}/queue")
    return _line_up(lining_up, plan, span) if workload == "queue" else _mixed(lining_up, plan, span)


def _mixed(source: random.Random, plan: Plan, span: float) -> Plan:
    """Some clients that know no turns, and now and then something that is done to queues."""
    players = tuple([replace(player, fair=source.random() < 0.8) for player in plan.players])
    steps = list(plan.steps)
    names = [player.name for player in players if player.name != "x"]
    for _ in range(source.choice([0, 0, 0, 1, 2])):
        step = source.choice(_WAITING)(source, plan.nodes, names, source.random())
        steps.append((source.random() * span, *step))
    return replace(plan, players=players, steps=tuple(sorted(steps, key=lambda step: step[0])))


def _line_up(source: random.Random, plan: Plan, span: float) -> Plan:
    """Many who wait, and little that keeps them from the nodes."""
    players = [
        replace(
            plan.players[index % len(plan.players)],
            name=f"c{index}",
            nodes=None,
            max_ttl=None,
            durable=None,
            sets=source.choice(_SETS),
            actors=source.choice([1, 1, 2, 3, 5]),
        )
        for index in range(source.choice([2, 3, 3, 4]))
    ]
    if source.random() < 0.15:
        players[0] = replace(players[0], fair=False)
    names = [player.name for player in players]
    steps = []
    for _ in range(source.choice([0, 0, 1, 2, 4, 8])):
        kind = source.choice(_WAITING if source.random() < 0.9 else _ALWAYS)
        step = kind(source, plan.nodes, names, source.random() * source.choice([0.2, 1.0, 3.0]))
        steps.append((source.random() * span, *step))
    timing = plan.assumptions.timing
    if not timing:
        steps.append((source.random() * span, *_jump(source, plan.nodes, names, 0.0)))
    return replace(
        plan,
        assumptions=Assumptions() if timing else plan.assumptions,
        players=tuple(players),
        marked=True,
        tail_share=plan.tail_share if source.random() < 0.2 else 0.0,
        steps=tuple(sorted(steps, key=lambda step: step[0])),
    )


_RETRY_DELAYS = [0.1, 0.3, 0.5, 0.8]
_SETS = [0, 0, 0, 1, 2, 2, 3]
_ACTORS = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3]
_TTLS = [None, None, None, None, None, 0.5, MAX_TTL]
_WEATHER = [(0.0, 0.0)] * 4 + [(0.05, 0.06), (0.1, 0.3), (0.02, 2.0), (0.05, 0.06)]


def _assume(source: random.Random) -> Assumptions:
    """Most runs keep every assumption; the others drop one."""
    kind = source.random()
    if kind < 0.8:
        return Assumptions(kept=source.random() < 0.3)
    # No clock can be trusted: what the nodes remember must do, or nothing orders the tokens.
    if kind < 0.9:
        lease_clock = source.random() < 0.5
        return Assumptions(
            timing=False, order=False, kept=source.random() < 0.6, lease_clock=lease_clock
        )
    return Assumptions(memory=False, order=source.random() < 0.5)


def _players(
    source: random.Random, nodes: int, assumptions: Assumptions, marked: bool, durable: bool
) -> list[Player]:
    count = source.choice([2, 2, 2, 2, 3, 4])
    players = [
        Player(
            f"c{index}",
            max_ttl=source.choice([None, MAX_TTL]) if assumptions.memory else MAX_TTL,
            durable=source.choice([None, durable]),
            ttl=source.choice(_TTLS),
            sets=source.choice(_SETS),
            actors=source.choice(_ACTORS),
        )
        for index in range(count)
    ]
    if marked and source.random() < 0.05:  # Who founds a cluster decides what it is.
        players.append(_misfit(source, nodes, durable))
    return players


def _misfit(source: random.Random, nodes: int, durable: bool) -> Player:
    """A client that must be refused: a server listed twice, a list too short, promises of
    another cluster."""
    everything = tuple(range(nodes))
    return source.choice(
        [
            Player("x", nodes=(*everything[:-1], everything[0])),
            Player("x", nodes=everything[: nodes - 2]),
            Player("x", max_ttl=MAX_TTL + 1),
            Player("x", durable=not durable),
        ]
    )


def _clocked(
    source: random.Random, player: Player, assumptions: Assumptions, spread: float
) -> Player:
    skews = [
        0.0,
        source.uniform(-0.01, 0.01),
        source.uniform(-50.0, 50.0),
        source.uniform(-3600.0, 3600.0),
    ]
    skew = source.choice(skews)
    rate = 1.0 + source.uniform(-spread, spread)
    in_step = assumptions.order and not assumptions.memory
    return Player(
        player.name,
        player.nodes,
        rate,
        0.0 if in_step else skew,
        player.max_ttl,
        player.durable,
        player.ttl,
        player.actors,
        player.quiet,
        player.sets,
    )


# The calendar

_Draw = Callable[[random.Random, int, list[str], float], Step]


@dataclass(frozen=True, slots=True)
class _Promises:
    """What the cluster of a run is: whether it is marked at first, what its markers promise, and
    whether `max_ttl` is raised."""

    marked: bool
    durable: bool
    never_replicas: bool
    raises: bool


def _steps(
    source: random.Random,
    workload: str,
    nodes: int,
    players: list[Player],
    assumptions: Assumptions,
    promises: _Promises,
    span: float,
) -> tuple[Step, ...]:
    kinds = list(_ALWAYS)
    if promises.never_replicas:
        kinds += [_back_up]
    if promises.raises:
        kinds += [_raise] * 8
    if not assumptions.timing:
        kinds += [_jump, _jump] if assumptions.lease_clock else [_jump, _stall, _stall]
    if not assumptions.memory:
        kinds += [_evict] * 3
        if not assumptions.order:
            kinds += [_flush_all]
    # What a quarantine leaves behind is a floor ahead of every clock, so tokens would not be
    # ordered by clocks alone.
    if not assumptions.kept and (assumptions.memory or not assumptions.order):
        kinds += _FORGETFUL
        if not promises.never_replicas:
            kinds += [_replicate, _replicate, _back_up, _unmaster]
        if promises.marked:
            kinds += [_replace]
    names = [player.name for player in players if player.name != "x"]
    steps = []
    count = source.choice([0, 1, 2, 4, 8])
    more = source.choice([0, 1, 2, 4, 8]) if workload == "elect" else 0
    for number in range(count + more):
        kind = source.choice(kinds if number < count else _ELECTING)
        lasts = source.random() * source.choice([0.2, 1.0, 5.0])
        step = kind(source, nodes, names, lasts)
        if step[0] in ("crash", "reload") and promises.durable:
            step = (*step[:2], "durable", *step[3:])
        steps.append((source.random() * span, *step))
    return tuple(sorted(steps, key=lambda step: step[0]))


def _some(source: random.Random, nodes: int) -> tuple[int, ...]:
    """Mostly one node, sometimes more, not all."""
    count = source.choice([1, 1, 1, 2, nodes - 1])
    return tuple(source.sample(range(nodes), min(count, nodes - 1)))


def _partition(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    cut_off = tuple([name for name in names if source.random() < 0.5]) or (names[0],)
    away = tuple([node for node in range(nodes) if source.random() < 0.5]) or (0,)
    ways = source.choice(["both", "up", "down"])
    return ("partition", cut_off, away, ways, source.choice(["hold", "hold", "swallow"]), lasts)


def _pause_node(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("pause", _some(source, nodes), lasts)


def _crash(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("crash", _some(source, nodes), source.choice(["lost", "rollback", "durable"]), lasts)


def _restart(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("crash", _some(source, nodes), "durable", lasts)


def _save(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("save", tuple(range(nodes)))


def _flush(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("flush", _some(source, nodes))


def _reset(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("reset", source.choice(names), _some(source, nodes), source.random() < 0.5)


def _slow(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return (
        "slow",
        _some(source, nodes),
        source.choice([0.02, 0.2, TTL, 3.0]) * source.random(),
        lasts,
    )


def _freeze(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("freeze", source.choice(names), lasts)


def _nap(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return (
        "nap",
        source.choice(names),
        int(source.random() * 12),
        source.choice([lasts, TTL + lasts]),
    )


def _suspend(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("suspend", source.choice(names), lasts)


def _cancel(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("cancel", source.choice(names), source.choice([0, 0, 1, 2, 3, 4, 5, 6, 8, 11, 15]))


def _kill(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("kill", source.choice(names))


def _close(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("close", source.choice(names))


def _starve(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    hungry = tuple([name for name in names if source.random() < 0.5]) or (names[0],)
    return ("starve", hungry, source.choice(["threads", "descriptors"]), lasts)


def _resign(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("resign", source.choice(names))


def _ineligible(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("ineligible", source.choice(names), lasts)


def _mute(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("mute", source.choice(names), lasts)


def _hang(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("hang", source.choice(names), lasts)


def _fail(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("fail", source.choice(names), source.choice(["error", "error", "interrupt", "return"]))


def _fork(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("fork", source.choice(names))


def _out_of_memory(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("memory", _some(source, nodes), lasts)


def _babble(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("babble", _some(source, nodes), lasts)


def _mumble(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("mumble", _some(source, nodes), lasts)


def _scribble(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("scribble", _some(source, nodes), source.choice([0, 1, 2, 3]), lasts)


def _flap(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("flap", _some(source, nodes), lasts)


def _scripts(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("scripts", _some(source, nodes))


def _foreign(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("foreign", _some(source, nodes), lasts)


def _demote(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return (
        "unfit",
        _some(source, nodes),
        source.choice(["evicting", "clustered", "loading", "timeless"]),
        lasts,
    )


def _unmaster(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("unfit", _some(source, nodes), "replica", lasts)


def _reload(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("reload", _some(source, nodes), source.choice(["lost", "rollback", "durable"]))


def _replicate(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    node, master = source.sample(range(nodes), 2)
    return ("replicate", node, master, lasts)


def _back_up(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("backup", tuple(range(nodes)) if source.random() < 0.3 else _some(source, nodes))


def _move(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("move", source.randrange(min(nodes, 2)), source.random() < 0.5)


def _misname(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    one, other = source.sample(range(nodes), 2)
    return ("misname", source.choice(names), one, other, source.random() < 0.5, lasts)


def _swap(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("swap", source.randrange(min(nodes, 2)))


def _pressure(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("pressure", _some(source, nodes), source.choice(["lock", "all"]), lasts)


def _refuse(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("refuse", _some(source, nodes), source.choice(_ERRORS), lasts)


def _repeat(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("repeat", _some(source, nodes), lasts)


def _enter(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("enter", "job", source.choice([0.0, 0.5, 1.0]))


def _raise(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    longest = source.choice([MAX_TTL + 1.0, MAX_TTL + 1.5])
    return (
        "init",
        (("max_ttl", longest),),
        source.choice([0.0, 0.002, 0.1]),
        source.choice([-1, *range(4 * nodes)]),
    )


def _replace(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    delay = source.choice([0.0, 0.0, 0.002, 0.05])
    return (
        "init",
        (("replace", True), ("max_ttl", MAX_TTL)),
        delay,
        source.choice([-1, -1, *range(8 * nodes)]),
    )


def _jump(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    away = tuple([node for node in range(nodes) if source.random() < 0.6]) or (0,)
    return ("jump", away, source.choice([-10.0, -1.0, 1.0, 3.0, 30.0]))


def _stall(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("stall", source.choice(names), lasts)


def _evict(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    away = tuple([node for node in range(nodes) if source.random() < 0.6]) or (0,)
    return ("evict", away, source.choice(["lock", "all"]))


def _hush(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    hushed = tuple([name for name in names if source.random() < 0.7]) or (names[0],)
    away = tuple(range(nodes)) if source.random() < 0.6 else _some(source, nodes)
    return ("hush", hushed, away, 2 * lasts)


def _deafen(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    away = tuple(range(nodes)) if source.random() < 0.5 else _some(source, nodes)
    return ("deafen", source.choice(names), away)


def _forbid(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    away = tuple(range(nodes)) if source.random() < 0.5 else _some(source, nodes)
    return ("forbid", away, source.choice(["channels", "channels", "keys"]), lasts)


def _plant(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    away = tuple(range(nodes)) if source.random() < 0.5 else _some(source, nodes)
    what = source.choice(["front", "reversed", "absurd", "nonsense", "foreign"])
    return ("plant", away, what)


def _flush_all(source: random.Random, nodes: int, names: list[str], lasts: float) -> Step:
    return ("flush", tuple(range(nodes)))


_ERRORS = [
    "BUSY Redis is busy running a script.",
    "MISCONF Errors writing to the AOF file.",
    "NOREPLICAS Not enough good replicas to write.",
]
_ALWAYS: list[_Draw] = [
    _partition,
    _partition,
    _partition,
    _pause_node,
    _restart,
    _reset,
    _slow,
    _freeze,
    _nap,
    _nap,
    _suspend,
    _cancel,
    _cancel,
    _cancel,
    _kill,
    _close,
    _starve,
    _fork,
    _out_of_memory,
    _babble,
    _flap,
    _mumble,
    _scribble,
    _scripts,
    _foreign,
    _demote,
    _refuse,
    _repeat,
    _enter,
    _enter,
]
_WAITING: list[_Draw] = [
    _hush,
    _hush,
    _deafen,
    _deafen,
    _forbid,
    _plant,
    _plant,
    _freeze,
    _nap,
    _kill,
    _cancel,
    _close,
    _enter,
]
"""What is done to those who wait, and keeps nobody from the nodes."""
_FORGETFUL: list[_Draw] = [
    _crash,
    _crash,
    _crash,
    _reload,
    _reload,
    _save,
    _save,
    _flush,
    _flush,
    _move,
    _move,
    _swap,
    _pressure,
    _misname,
]
_ELECTING: list[_Draw] = [
    _resign,
    _resign,
    _fail,
    _fail,
    _ineligible,
    _ineligible,
    _hang,
    _mute,
    _freeze,
    _nap,
    _suspend,
    _partition,
]
