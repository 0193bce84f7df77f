"""Turns a story into the small tables that the charts draw: lanes, bars, dots, in seconds since the
history began.

A long run has more bars than a screen has points, so tables over a bound are thinned: neighbours
closer than a point become one bar that says how many it stands for. Nothing bad is ever thinned
away: every overlap, every access that should not have been accepted, every lost lease stays a mark
of its own, up to a bound that is named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any

from chaos.figures import duration
from chaos.reigns import Reign
from chaos.report.faults import packed, sort_of, whom
from chaos.report.run import Result
from chaos.report.story import STRANGER, Access, Hold, Mark, Overlap, Story
from chaos.report.thin import (
    BARS_MAX,
    GREY,
    POINTS,
    Bar,
    Row,
    last_before,
    last_in_each_cell,
    sampled,
    thinned,
)

__all__ = ["HUES", "Drawing", "Table", "draw", "token_text"]

HUES = 7
"""Colours for clients; after that they come again, and the lane tells who is meant."""

BAD_MAX = 500


@dataclass(slots=True)
class Table:
    """Rows of one kind of mark. *count*: how many there were before thinning."""

    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    count: int = 0

    def data(self) -> dict[str, Any]:
        """What goes into the page."""
        return {"columns": self.columns, "rows": self.rows}


@dataclass(slots=True)
class Drawing:
    """Tables by name, and what the page needs to know of them. *span*: seconds that the time
    axis shows; *focus*: the part of it in which something was broken, or wrong; *measure*: what
    the store's axis counts."""

    span: tuple[float, float]
    focus: tuple[float, float]
    measure: str
    tables: dict[str, Table]
    lanes: int
    thinned: dict[str, tuple[int, int]]
    """By table, how many marks there were and how many are drawn, where these differ."""

    def data(self) -> dict[str, Any]:
        """What goes into the page."""
        return {
            "span": self.span,
            "focus": self.focus,
            "measure": self.measure,
            "lanes": self.lanes,
            "tables": {name: table.data() for name, table in self.tables.items()},
        }


def draw(
    story: Story,
    result: Result,
    *,
    window: tuple[float, float] | None = None,
    only: Iterable[str] = (),
) -> Drawing:
    """The tables of *story*; with *window*, of that part of it; with *only*, with the lanes of
    these clients alone."""
    return _Drawer(story, result, window, frozenset(only)).drawing()


class _Drawer:
    def __init__(
        self, story: Story, result: Result, window: tuple[float, float] | None, only: frozenset[str]
    ) -> None:
        self._story = story
        self._result = result
        self._since, self._until = window or (story.start, story.end)
        self._until = max(self._until, self._since + 1e-3)
        self._clients = [client for client in story.clients if not only or client in only]
        self._hues = {client: index % HUES for index, client in enumerate(story.clients)}
        self._ranks = _ranks(story)
        self._cell = (self._until - self._since) / POINTS
        self._thinned: dict[str, tuple[int, int]] = {}
        self._place_lanes()

    def drawing(self) -> Drawing:
        tables = {
            "lanes": self._lane_table(),
            "faults": self._fault_table(),
            "hits": self._hit_table(),
            "phases": self._phase_table(),
            "flaws": self._flaw_table(),
            "waits": self._wait_table(),
            "plans": self._plan_table(),
            "rests": self._rest_table(),
            "acts": self._act_table(),
            "zombies": self._zombie_table(),
            "jeopardy": self._jeopardy_table(),
            "ticks": self._tick_table(),
            "marks": self._mark_table(),
            "reigns": self._reign_table(),
            "margins": self._margin_table(),
            "overruns": self._overrun_table(),
            "owners": self._owner_table(),
            "states": self._state_table(),
            "overlaps": self._overlap_table(),
            "stairs": self._stair_table(),
            "accesses": self._access_table(),
            "shadows": self._shadow_table(),
        }
        since, until = self._at(self._since), self._at(self._until)
        measure = "token #" if self._tokens else "value"
        return Drawing(
            (since, until), self._focus(), measure, tables, len(tables["lanes"].rows), self._thinned
        )

    def _focus(self) -> tuple[float, float]:
        story = self._story
        shown = [(fault.since, fault.until) for fault in story.faults] + [
            (it.since, it.until) for it in story.overlaps
        ]
        shown += [(flaw.at, flaw.at) for flaw in self._result.violations]
        since = min((since for since, _ in shown), default=self._since)
        until = max((until for _, until in shown), default=self._until)
        margin = max(0.1 * (until - since), self._cell)
        return self._at(max(self._since, since - margin)), self._at(
            min(self._until, until + margin)
        )

    # Lanes: faults at the top, then a lane per client, or per client and resource, and one for the
    # terms of a candidate, then a lane per node

    def _place_lanes(self) -> None:
        self._fault_rows = packed(
            [fault for fault in self._story.faults if self._shows(fault.since, fault.until)]
        )
        top = max(self._fault_rows.values(), default=-1) + 1
        uses = Counter((hold.client, hold.resource) for hold in self._story.holds)
        uses.update((wait.client, wait.resource) for wait in self._story.waits)
        shared = Counter(resource for _, resource in uses)
        main = max(shared, key=lambda resource: shared[resource], default="")
        self._client_lanes: dict[str, dict[str, int]] = defaultdict(dict)
        self._term_lanes: dict[str, int] = {}
        leaders = {reign.client for reign in self._story.reigns}
        self._labels: list[tuple[int, str, str]] = [
            (row, "fault", "faults" if row == 0 else "") for row in range(top)
        ]
        for client in self._clients:
            own = sorted(
                {resource for name, resource in uses if name == client},
                key=lambda resource: (resource != main, resource),
            )
            for resource in own or [main]:
                self._client_lanes[client][resource] = len(self._labels)
                self._labels.append((len(self._labels), "client", _label(client, resource, main)))
            if client in leaders:
                self._term_lanes[client] = len(self._labels)
                self._labels.append((len(self._labels), "term", f"{client} leads"))
        self._node_lanes = {
            node: len(self._labels) + index for index, node in enumerate(self._story.nodes)
        }
        self._labels += [(lane, "node", f"n{node}") for node, lane in self._node_lanes.items()]

    def _lane(self, client: str, resource: str) -> int | None:
        lanes = self._client_lanes.get(client)
        if not lanes:
            return None
        return lanes.get(resource, next(iter(lanes.values())))

    def _lane_table(self) -> Table:
        since, until = self._at(self._since), self._at(self._until)
        return Table(
            ("lane", "group", "label", "at", "until"),
            [(*lane, since, until) for lane in self._labels],
        )

    # Time

    def _at(self, at: float) -> float:
        return _round(at - self._story.start)

    def _shows(self, since: float, until: float) -> bool:
        return isfinite(since) and isfinite(until) and since <= self._until and until >= self._since

    def _cut(self, since: float, until: float) -> tuple[float, float]:
        return self._at(max(since, self._since)), self._at(min(until, self._until))

    # What was broken

    def _fault_table(self) -> Table:
        rows = [
            (
                self._fault_rows[fault.name],
                *self._cut(fault.since, fault.until),
                sort_of(fault),
                fault.name,
                fault.what,
                whom(fault),
            )
            for fault in self._story.faults
            if self._shows(fault.since, fault.until)
        ]
        return self._bounded(
            "faults", ("lane", "at", "until", "sort", "name", "what", "whom"), rows, BARS_MAX
        )

    def _hit_table(self) -> Table:
        rows: list[Row] = []
        for fault in self._story.faults:
            if not self._shows(fault.since, fault.until):
                continue
            lanes = [self._node_lanes[node] for node in fault.nodes]
            lanes += [
                lane
                for client in fault.clients
                for lane in self._client_lanes.get(client, {}).values()
            ]
            rows += [(lane, *self._cut(fault.since, fault.until), sort_of(fault)) for lane in lanes]
        return self._bounded("hits", ("lane", "at", "until", "sort"), rows, BARS_MAX)

    def _phase_table(self) -> Table:
        rows = [
            (*self._cut(phase.start, phase.until), phase.name)
            for phase in self._result.phases
            if phase.start <= self._until and phase.until >= self._since
        ]
        return Table(("at", "until", "name"), rows)

    def _flaw_table(self) -> Table:
        rows: list[Row] = [
            (self._at(flaw.at), flaw.property, flaw.text)
            for flaw in self._result.violations
            if self._since <= flaw.at <= self._until
        ]
        return self._bounded("violations", ("at", "property", "text"), rows, BAD_MAX)

    # What clients did

    def _wait_table(self) -> Table:
        bars = []
        for wait in self._story.waits:
            lane = self._lane(wait.client, wait.resource)
            if lane is not None and self._shows(wait.since, wait.until):
                bars.append(
                    Bar(lane, *self._cut(wait.since, wait.until), (wait.outcome.partition(":")[0],))
                )
        return self._bars("waits", ("lane", "at", "until", "outcome", "count"), bars)

    def _plan_table(self) -> Table:
        """Validity while it was believed in. *room*: where the next lease of the lane begins,
        which a label may not reach."""
        columns = ("lane", "at", "until", "hue", "rank", "token", "how", "planned", "room", "count")
        return self._bars(
            "plans",
            columns,
            self._held(
                lambda hold: (hold.since, hold.until),
                lambda hold: (
                    self._rank(hold),
                    token_text(hold.token),
                    hold.how,
                    self._at(hold.planned),
                    self._at(self._following.get(id(hold), self._until)),
                ),
            ),
        )

    def _rest_table(self) -> Table:
        """Validity that was left when the belief ended, up to the next lease of the lane."""
        return self._bars(
            "rests",
            ("lane", "at", "until", "hue", "how", "count"),
            self._held(
                lambda hold: (
                    hold.until,
                    min(hold.planned, self._following.get(id(hold), self._until)),
                ),
                lambda hold: (hold.how,),
            ),
        )

    def _act_table(self) -> Table:
        bars = self._held(lambda hold: (hold.since, hold.until), lambda _: ())
        return self._bars("acts", ("lane", "at", "until", "hue", "count"), bars)

    def _held(
        self, part: Callable[[Hold], tuple[float, float]], rest: Callable[[Hold], tuple[Any, ...]]
    ) -> list[Bar]:
        bars = []
        for hold in self._story.holds:
            lane = self._lane(hold.client, hold.resource)
            since, until = part(hold)
            if lane is not None and since < until and self._shows(since, until):
                bars.append(
                    Bar(lane, *self._cut(since, until), (self._hues[hold.client], *rest(hold)))
                )
        return bars

    @cached_property
    def _following(self) -> dict[int, float]:
        """By the identity of a hold, when the next one of its lane begins."""
        found: dict[int, float] = {}
        last: dict[tuple[str, str], Hold] = {}
        for hold in self._story.holds:
            before = last.get((hold.client, hold.resource))
            if before is not None:
                found[id(before)] = hold.since
            last[hold.client, hold.resource] = hold
        return found

    def _zombie_table(self) -> Table:
        """What a holder did past the end of its belief."""
        rows: list[Row] = []
        for hold in self._story.holds:
            lane = self._lane(hold.client, hold.resource)
            since = max(hold.until, hold.since)  # A grant that came too late ended before it began.
            if (
                lane is not None
                and hold.acted_until > since + 1e-6
                and self._shows(since, hold.acted_until)
            ):
                rows.append(
                    (
                        lane,
                        *self._cut(since, hold.acted_until),
                        self._rank(hold),
                        token_text(hold.token),
                    )
                )
        return self._bounded("zombies", ("lane", "at", "until", "rank", "token"), rows, BAD_MAX)

    def _jeopardy_table(self) -> Table:
        bars = []
        for spell in self._story.jeopardy:
            lane = self._lane(spell.client, spell.resource)
            if lane is not None and self._shows(spell.since, spell.until):
                bars.append(Bar(lane, *self._cut(spell.since, spell.until), ()))
        return self._bars("jeopardy", ("lane", "at", "until", "count"), bars)

    def _tick_table(self) -> Table:
        rows: dict[tuple[int, int, bool], tuple[Any, ...]] = {}
        shown = [tick for tick in self._story.ticks if self._shows(tick.at, tick.at)]
        few = len(shown) <= BARS_MAX
        for index, tick in enumerate(shown):
            lane = self._lane(tick.client, tick.resource)
            if lane is not None:
                cell = index if few else int((tick.at - self._since) / self._cell)
                rows[lane, cell, tick.good] = (
                    lane,
                    self._at(tick.at),
                    "ok" if tick.good else "failed",
                    self._at(tick.until),
                )
        return self._bounded(
            "ticks",
            ("lane", "at", "renewal", "until"),
            list(rows.values()),
            2 * BARS_MAX,
            count=len(shown),
        )

    def _mark_table(self) -> Table:
        rows: list[Row] = []
        for mark in self._story.marks:
            self._mark(rows, mark)
        for fault in self._story.faults:
            if sort_of(fault) == "client" or (
                fault.clients and not fault.nodes and sort_of(fault) == "process"
            ):
                kind = "killed" if "kill" in fault.kind else "stopped"
                for client in fault.clients:
                    self._mark(rows, Mark(client, "", fault.since, kind, fault.what))
                    if fault.until > fault.since and kind == "stopped" and fault.healed:
                        self._mark(rows, Mark(client, "", fault.until, "goes on", fault.what))
        return self._bounded("marks", ("lane", "at", "mark", "text"), rows, BAD_MAX)

    def _mark(self, rows: list[Row], mark: Mark) -> None:
        lane = self._lane(mark.client, mark.resource)
        if lane is not None and self._shows(mark.at, mark.at):
            rows.append((lane, self._at(mark.at), mark.kind, mark.text))

    # What candidates did

    def _reign_table(self) -> Table:
        """The states of a candidate in its terms."""
        columns = ("lane", "at", "until", "state", "rank", "token", "reason", "count")
        bars = []
        for reign in self._story.reigns:
            lane = self._term_lanes.get(reign.client)
            for state, since, until in reign.states(self._story.end):
                if lane is not None and self._shows(since, until):
                    rest = (state, self._rank(reign), token_text(reign.token), reign.reason)
                    bars.append(Bar(lane, *self._cut(since, until), rest))
        return self._bars("reigns", columns, bars)

    def _margin_table(self) -> Table:
        """Validity that was left when the work of a term had ended, up to the next term of the
        lane."""
        bars = []
        for reign, until in self._ends():
            lane, ended_at = self._term_lanes.get(reign.client), reign.work_ended_at
            if lane is None or ended_at is None or not ended_at < until:
                continue
            if self._shows(ended_at, until):
                left = f"{duration(reign.valid_until - ended_at)} left"
                bars.append(Bar(lane, *self._cut(ended_at, until), (left,)))
        return self._bars("margins", ("lane", "at", "until", "left", "count"), bars)

    def _ends(self) -> Iterator[tuple[Reign, float]]:
        """Each term, and until when its lane shows what was left of it."""
        following: dict[str, float] = {}
        for reign in reversed(self._story.reigns):
            yield reign, min(reign.valid_until, following.get(reign.client, float("inf")))
            following[reign.client] = reign.started_at

    def _overrun_table(self) -> Table:
        """Where work went on past the end of its validity."""
        rows: list[Row] = []
        for reign in self._story.reigns:
            lane, ended_at = self._term_lanes.get(reign.client), reign.work_ended_at
            if lane is None or ended_at is None or not reign.valid_until < ended_at:
                continue
            if self._shows(reign.valid_until, ended_at):
                over = f"{duration(ended_at - reign.valid_until)} too long"
                rows.append((lane, *self._cut(reign.valid_until, ended_at), over))
        return self._bounded("overruns", ("lane", "at", "until", "over"), rows, BAD_MAX)

    # What nodes saw

    def _owner_table(self) -> Table:
        bars = []
        for spell in self._story.spells:
            if spell.client and self._shows(spell.since, spell.until):
                hue = GREY if spell.client == STRANGER else self._hues.get(spell.client, GREY)
                cut = self._cut(spell.since, spell.until)
                bars.append(
                    Bar(
                        self._node_lanes[spell.node],
                        *cut,
                        (hue, spell.client, token_text(spell.token)),
                    )
                )
        return self._bars(
            "owners", ("lane", "at", "until", "hue", "client", "token", "count"), bars
        )

    def _state_table(self) -> Table:
        bars: list[Bar] = []
        for spell in self._story.spells:
            if spell.state != "up" and self._shows(spell.since, spell.until):
                since, until = self._cut(spell.since, spell.until)
                bars.append(Bar(self._node_lanes[spell.node], since, until, (spell.state,)))
        return self._bars("states", ("lane", "at", "until", "state", "count"), bars)

    # Over all lanes

    def _overlap_table(self) -> Table:
        rows = [
            self._overlap(overlap)
            for overlap in self._story.overlaps
            if self._shows(overlap.since, overlap.until)
        ]
        return self._bounded("overlaps", ("at", "until", "clients", "lasted"), rows, BAD_MAX)

    def _overlap(self, overlap: Overlap) -> tuple[Any, ...]:
        return (
            *self._cut(overlap.since, overlap.until),
            " and ".join(overlap.clients),
            duration(overlap.until - overlap.since),
        )

    # The guarded store

    def _access_table(self) -> Table:
        columns = ("at", "rank", "verdict", "hue", "client", "token", "text")
        shown = [access for access in self._story.accesses if self._shows(access.at, access.at)]
        few = len(shown) <= BARS_MAX
        kept: dict[tuple[object, ...], Access] = {}
        for index, access in enumerate(shown):
            cell = int((access.at - self._since) / self._cell)
            bad = few or access.verdict in ("stale", "lost update")
            kept[(index,) if bad else (cell, access.verdict, access.client)] = access
        rows = [self._access(access) for access in kept.values()]
        return self._bounded("accesses", columns, rows, 3 * BARS_MAX, count=len(shown))

    def _access(self, access: Access) -> tuple[Any, ...]:
        match access.verdict:
            case "refused" | "stale":
                text = f"{access.resource}: {access.largest} was seen before"
            case _:
                text = f"{access.resource}: {access.before} → {access.after}"
        return (
            self._at(access.at),
            self._level(access),
            access.verdict,
            self._hues[access.client],
            access.client,
            token_text(access.token),
            text,
        )

    @cached_property
    def _tokens(self) -> bool:
        """Whether the locks of this history have tokens; of those that have none, the store
        shows the values instead."""
        return any(self._ranks[access.resource] for access in self._story.accesses)

    def _level(self, access: Access) -> int:
        return self._ranks[access.resource].get(access.token, 0) if self._tokens else access.after

    def _stair_table(self) -> Table:
        """The running maximum, where it rises, for every resource; it reaches to the end."""
        rows: list[Row] = []
        largest: dict[str, int] = {}
        for access in self._story.accesses:
            top = max(self._level(access), self._ranks[access.resource].get(access.largest, 0))
            if top > largest.get(access.resource, -1):
                largest[access.resource] = top
                if access.at <= self._until:
                    rows.append(
                        (max(self._at(access.at), self._at(self._since)), top, access.resource)
                    )
        rows = last_in_each_cell(last_before(rows, self._at(self._since)), self._cell)
        rows += [(self._at(self._until), top, resource) for resource, top in _tops(rows).items()]
        return Table(("at", "rank", "resource"), rows)

    def _shadow_table(self) -> Table:
        shown = [mark for mark in self._story.shadows if self._shows(mark.at, mark.at)]
        return self._bounded(
            "shadows",
            ("at", "client", "text"),
            [(self._at(mark.at), mark.client, mark.text) for mark in shown],
            BAD_MAX,
        )

    # Thinning

    def _rank(self, held: Hold | Reign) -> int:
        resource = held.resource if isinstance(held, Hold) else held.election
        return self._ranks[resource].get(held.token, 0)

    def _bars(self, name: str, columns: tuple[str, ...], bars: list[Bar]) -> Table:
        drawn = thinned(bars, self._until - self._since)
        if len(drawn) != len(bars):
            self._thinned[name] = len(bars), len(drawn)
        return Table(
            columns,
            [(bar.lane, bar.since, bar.until, *bar.rest, bar.count) for bar in drawn],
            len(bars),
        )

    def _bounded(
        self,
        name: str,
        columns: tuple[str, ...],
        rows: list[Row],
        most: int,
        *,
        count: int | None = None,
    ) -> Table:
        count = len(rows) if count is None else count
        rows = sampled(rows, most)
        if len(rows) != count:
            self._thinned[name] = count, len(rows)
        return Table(columns, rows, count)


def _round(seconds: float) -> float:
    return round(seconds, 6)


def _label(client: str, resource: str, main: str) -> str:
    """A lane's: the client alone stands for the lock that most want."""
    if resource == main:
        return client
    rest = resource.removeprefix(main).strip(":")
    return f"{client} own" if rest == client else f"{client} {rest}"


def token_text(token: int) -> str:
    """A fencing token; a lock that has none numbers its leases from -1 downwards."""
    return str(token) if token > 0 else "none"


def _ranks(story: Story) -> dict[str, dict[int, int]]:
    """By resource and token, its place among all tokens of the resource, the smallest first; a
    lock without tokens has none."""
    tokens: dict[str, set[int]] = defaultdict(set)
    for hold in story.holds:
        tokens[hold.resource].add(hold.token)
    for access in story.accesses:
        tokens[access.resource] |= {access.token, access.largest}
    return {
        resource: {
            token: place
            for place, token in enumerate(sorted(token for token in seen if token > 0), 1)
        }
        for resource, seen in tokens.items()
    }


def _tops(rows: Iterable[tuple[Any, ...]]) -> dict[str, int]:
    return {row[2]: row[1] for row in rows}
