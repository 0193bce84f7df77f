"""How the tables of a drawing, and the numbers of a run, are drawn: Vega-Lite charts, written with
Altair.

A chart names its tables and holds no data, so one chart serves every scenario of a page. Colours
are CSS variables of the page, which gives light, dark and print without a second chart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import Any

import altair as alt

__all__ = ["availability", "height", "height_of_rows", "latency", "next_holder", "timeline"]

INK, FAINT, LINE, BAD, GOOD, WARN = (
    f"var(--{name})" for name in ("ink", "faint", "line", "bad", "good", "warn")
)

Row = Mapping[str, Any]

WIDTH = 900
"""A chart's width before the page fits it to the screen."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
"""That of the page, by name: Vega measures labels with it, and would cut them by another's widths."""

KINDS = 6
"""Colours for kinds of clients."""

POINTS_PER_DECADE = 165
"""From which on there is room for a number at each of 1, 2 and 5."""

STEP, STEP_DENSE = 30, 15
STORE_HEIGHT = 130
LANE_LABEL = 160
"""Points at most; a client with the longest lock that a campaign names has fewer."""
STORE = "store"

UPRIGHT = "M0,-.9L0,.9"
CROSS = "M-.8,-.8L.8,.8M-.8,.8L.8,-.8"
SALTIRE = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"

_PERCENT = "format(100 * datum.value, '~g') + ' %'"
_APART: dict[str, Any] = {"labelSeparation": 6, "labelFlush": True}
"""Of an axis: its numbers do not touch, nor reach beyond it."""

_SPAN = "scale('x', datum.until) - scale('x', datum.at)"
"""The width of a bar in points, as an expression: a label is shown where it has room, at any
zoom."""


def timeline(*, dense: bool = False) -> dict[str, Any]:
    """One scenario: faults, clients and nodes as lanes, and the tokens of the guarded store
    below. *dense*: low lanes."""
    step = STEP_DENSE if dense else STEP
    lanes = alt.layer(
        *_backdrop(), *_clients(step), *_nodes(step), *_faults(), *_over_lanes()
    ).properties(width=WIDTH, height=alt.Step(step))
    store = alt.layer(*_store()).properties(width=WIDTH, height=STORE_HEIGHT)
    zoom = alt.selection_interval(
        name="zoom",
        bind="scales",
        encodings=["x"],
        zoom="wheel![event.ctrlKey || event.metaKey]",
        translate="[pointerdown, window:pointerup] > window:pointermove!",
    )
    both = alt.vconcat(lanes.add_params(zoom), store, spacing=6).resolve_scale(x="shared")
    spec = _finished(both)
    spec["params"][0]["views"].append(STORE)
    return spec


def availability(kinds: Sequence[str]) -> dict[str, Any]:
    """Share of acquires within their deadline, by scenario and phase. Table "availability"."""
    chart = alt.Chart(alt.NamedData("availability"))
    y = _rows(kinds)
    bars = chart.mark_bar().encode(
        x=alt.X(
            "share:Q",
            stack=None,
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(values=[0, 0.5, 1], labelExpr=_PERCENT, labelOverlap=True, **_APART),
            title=None,
        ),
        color=_kind_color(kinds),
        tooltip=[
            _tip("name", "scenario"),
            _tip("title"),
            _tip("kind", "clients"),
            _tip("phase"),
            _tip("text", "share"),
        ],
        **y,
    )
    wide = "datum.share > 0.6"
    text = chart.mark_text(
        align=alt.ExprRef(f"{wide} ? 'right' : 'left'"),
        dx=alt.ExprRef(f"{wide} ? -4 : 4"),
        color=alt.ExprRef(f"{wide} ? 'var(--page)' : '{INK}'"),
        opacity=alt.ExprRef("datum.share < 1 ? 1 : 0"),
        fontSize=9,
    ).encode(x="share:Q", text="text:N", **y)
    return _finished(_by_phase(alt.layer(bars, text), kinds))


def latency(kinds: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """Acquire latency, median to 99th percentile, by scenario and phase. Table "latency", in
    milliseconds, which the axis is made for: *rows*."""
    chart = alt.Chart(alt.NamedData("latency"))
    y = _rows(kinds)
    x = _log_x("p50:Q", rows, ("p50", "p99"))
    tips = [_tip("name", "scenario"), _tip("title"), _tip("kind", "clients"), _tip("phase")]
    tips += [_tip(f"{name}_text", name) for name in ("p50", "p99")]
    span = chart.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=x, x2="p99:Q", color=_kind_color(kinds), tooltip=tips, **y
    )
    median = chart.mark_point(filled=True, size=34, opacity=1).encode(
        x=x, color=_kind_color(kinds), tooltip=tips, **y
    )
    tail = chart.mark_tick(thickness=2, size=9, opacity=1).encode(
        x=alt.X("p99:Q"), color=_kind_color(kinds), tooltip=tips, **y
    )
    return _with_room(_finished(_by_phase(alt.layer(span, median, tail), kinds)), WIDTH // 3)


def next_holder(kinds: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """From one holder to the next: median, 99th percentile, longest, which is written beside it.
    Table "next", in milliseconds, which the axis is made for: *rows*."""
    chart = alt.Chart(alt.NamedData("next"))
    y = _rows(kinds)
    x = _log_x("p50:Q", rows, ("p50", "p99", "max"))
    tips = [_tip("name", "scenario"), _tip("title"), _tip("kind", "clients")]
    tips += [_tip(f"{name}_text", name) for name in ("p50", "p99", "max")]
    span = chart.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=x, x2="max:Q", color=_kind_color(kinds), tooltip=tips, **y
    )
    median = chart.mark_point(filled=True, size=38, opacity=1).encode(
        x=x, color=_kind_color(kinds), tooltip=tips, **y
    )
    tail = chart.mark_tick(thickness=2, size=9, opacity=1).encode(
        x=alt.X("p99:Q"), color=_kind_color(kinds), tooltip=tips, **y
    )
    longest = chart.mark_point(size=30, opacity=1, strokeWidth=1.5).encode(
        x=alt.X("max:Q"), color=_kind_color(kinds), tooltip=tips, **y
    )
    written = chart.mark_text(align="left", color=INK, fontSize=10 if len(kinds) == 1 else 8)
    written = written.encode(x=alt.value(alt.ExprRef("width + 8")), text="max_text:N", **y)
    layers = alt.layer(span, median, tail, longest, written)
    return _with_room(_finished(layers.properties(width=WIDTH, height=_height(kinds))), WIDTH)


def height(lanes: int, *, dense: bool = False, store: bool = True) -> int:
    """About how high a timeline will be, so that the page does not jump when it is drawn."""
    return lanes * (STEP_DENSE if dense else STEP) + 60 + (STORE_HEIGHT if store else 0)


def height_of_rows(rows: int, kinds: Sequence[str]) -> int:
    """The same of the other charts."""
    return rows * _step(kinds) + 70


# The parts of a timeline, from the back to the front


def _backdrop() -> list[alt.Chart]:
    lanes = alt.Chart(alt.NamedData("lanes")).mark_rect(
        clip=True, fill=_by("lane", "group"), height={"band": 0.94}
    )
    hits = alt.Chart(alt.NamedData("hits")).mark_rect(
        clip=True, fill=_by("sort", "sort"), opacity=0.2, height={"band": 0.94}
    )
    return [chart.encode(x=_time(), x2="until:Q", y=_lane()) for chart in (lanes, hits)]


def _clients(step: int) -> list[alt.Chart]:
    low = 0 if step == STEP_DENSE else 5
    waits = _bar("waits", 0.08, color=FAINT, opacity=0.8, yOffset=low).encode(
        tooltip=[_tip("outcome"), *_from_to("asked at", "answered at")]
    )
    plans = _bar("plans", 0.72, color=HUE, opacity=0.36).encode(
        tooltip=[*_token_tips(), *_from_to("granted at", "held until"), _tip("how", "ended"), _seconds("planned", "valid until"),
                 _tip("count", "leases in this bar")]
    )  # fmt: skip
    left = alt.ExprRef("datum.how === 'released' ? 0.13 : 0.36")
    rests = _bar("rests", 0.72, color=HUE, opacity=left).encode(
        tooltip=[_tip("how", "lease"), *_from_to("from", "valid until")]
    )
    jeopardy = _hatch("jeopardy", step, 0.72, color=WARN).encode(
        tooltip=_from_to("in jeopardy from")
    )
    acts = _bar("acts", 0.3, color=HUE, yOffset=low).encode(
        tooltip=[*_from_to("held from"), _tip("count", "leases in this bar")]
    )
    zombies = _line("zombies", strokeWidth=3, strokeDash=[3, 2], yOffset=low, color=BAD).encode(
        tooltip=[*_token_tips(), *_from_to("its end", "acted until")]
    )
    ticks = _point(
        "ticks", {"ok": UPRIGHT, "failed": CROSS}, "renewal", strokeWidth=1.6, yOffset=low
    ).encode(tooltip=[_tip("renewal"), *_from_to("at", "valid until")])
    ticks = ticks.encode(
        stroke=_if("datum.renewal === 'ok'", "var(--tick)", BAD), size=alt.value(2 * step)
    )
    shapes = {
        "lost": "triangle-down",
        "killed": SALTIRE,
        "stopped": "square",
        "goes on": "triangle-right",
    }
    marks = _point("marks", shapes, "mark", fill=INK, stroke="var(--page)", strokeWidth=1).encode(
        size=alt.value(3 * step), tooltip=[_tip("mark"), _tip("text", "why"), _seconds("at", "at")]
    )
    parts = [waits, rests, plans, jeopardy, acts, zombies, ticks, *_terms(), marks]
    return parts if step == STEP_DENSE else [*parts, _ranks()]


def _terms() -> list[alt.Chart]:
    """A candidate's states in its terms, and what was left of its validity when its work had
    ended."""
    reigns = _bar("reigns", 0.56, color=_by("state", "state")).encode(
        tooltip=[_tip("state"), *_token_tips(), *_from_to("from"), _tip("reason", "ended"), _tip("count", "spells in this bar")]
    )  # fmt: skip
    margins = _bar("margins", 0.14, color=GOOD, opacity=0.6).encode(
        tooltip=[_tip("left", "validity"), *_from_to("its work ended", "valid until")]
    )
    left = _label("margins", fontSize=9, opacity=_roomy(48)).encode(text="left:N")
    overruns = _line("overruns", strokeWidth=4, color=BAD).encode(
        tooltip=[_tip("over", "its work"), *_from_to("valid until", "its work ended")]
    )
    return [reigns, margins, left, overruns]


def _ranks() -> alt.Chart:
    shown = alt.ExprRef(
        "datum.rank > 0 && scale('x', datum.room) - scale('x', datum.at) > 24 ? 0.9 : 0"
    )
    chart = _label(
        "plans", yOffset=-6, fontSize=9, dx=3, limit=40, opacity=shown
    ).transform_calculate(label="'#' + datum.rank")
    return chart.encode(text="label:N")


def _nodes(step: int) -> list[alt.Chart]:
    owners = _bar("owners", 0.5, color=HUE).encode(
        tooltip=[
            _tip("client", "held for"),
            _tip("token"),
            *_from_to("from"),
            _tip("count", "spells in this bar"),
        ]
    )
    states = _hatch("states", step, 0.8, color=FAINT).encode(
        tooltip=[_tip("state"), *_from_to("from")]
    )
    return [
        owners,
        states,
        _label("states", fontWeight="bold", opacity=_roomy(34)).encode(text="state:N"),
    ]


def _faults() -> list[alt.Chart]:
    tips = [_tip("name", "fault"), _tip("what"), _tip("whom", "hits"), *_from_to("from")]
    sort = _by("sort", "sort")
    bars = _bar(
        "faults", 0.8, cornerRadius=2, fill=sort, stroke=sort, strokeWidth=1.5, fillOpacity=0.35
    ).encode(tooltip=tips)
    return [bars, _label("faults", opacity=_roomy(30)).encode(text="what:N", tooltip=tips)]


def _over_lanes(*, store: bool = False) -> list[alt.Chart]:
    """Phases, and in red what should not be: two holders at once, and every violation at its
    instant."""
    x = _time(store=store)
    phases, flaws = (alt.Chart(alt.NamedData(table)).encode(x=x) for table in ("phases", "flaws"))
    overlaps = alt.Chart(alt.NamedData("overlaps")).mark_rect(
        clip=True, opacity=0.28, stroke=BAD, strokeWidth=1, fill=BAD
    )
    tips = [_tip("clients", "held together"), _tip("lasted", "for"), *_from_to("from")]
    parts = [
        phases.mark_rule(clip=True, strokeDash=[4, 3], color=FAINT),
        overlaps.encode(x=x, x2="until:Q", y=alt.value(0), y2=alt.value("height"), tooltip=tips),
        flaws.mark_rule(clip=True, color=BAD, strokeWidth=1.2),
    ]
    if not store:
        names = phases.mark_text(
            clip=False, align="left", dx=3, dy=-8, fontSize=10, color=FAINT, opacity=_roomy(34)
        )
        tips = [_tip("property"), _tip("text"), _seconds("at", "at")]
        point = flaws.mark_point(
            clip=False, shape="triangle-down", filled=True, fill=BAD, opacity=1, size=70
        )
        parts += [
            names.encode(y=alt.value(0), text="name:N"),
            point.encode(y=alt.value(-4), tooltip=tips),
        ]
    return parts


def _store() -> list[alt.Chart]:
    stairs = alt.Chart(alt.NamedData("stairs"), name=STORE).mark_line(
        clip=True, interpolate="step-after", strokeWidth=1.5, color=FAINT
    )
    good = "datum.verdict === 'accepted'"
    shapes = {"accepted": "circle", "refused": CROSS, "stale": "diamond", "lost update": "diamond"}
    dots = _point(
        "accesses",
        shapes,
        "verdict",
        fill=alt.ExprRef(f"{good} ? {HUE.expr} : '{BAD}'"),
        store=True,
    ).encode(
        stroke=_if(good, None, BAD),
        strokeWidth=alt.condition("datum.verdict === 'refused'", alt.value(2), alt.value(0)),
        size=alt.condition(good, alt.value(22), alt.value(70)),
        tooltip=[
            _tip("verdict", "store"),
            _tip("client"),
            *_token_tips(),
            _tip("text", "value"),
            _seconds("at", "at"),
        ],
    )
    shadows = alt.Chart(alt.NamedData("shadows")).mark_point(
        clip=True, shape="triangle-up", opacity=1, stroke=BAD, strokeWidth=1.6
    )
    shadows = shadows.encode(
        x=_time(store=True), y=alt.value(STORE_HEIGHT - 7), size=alt.value(55),
        tooltip=[_tip("client"), _tip("text", "without tokens"), _seconds("at", "at")],
    )  # fmt: skip
    line = stairs.encode(x=_time(store=True), y=_token(), detail="resource:N")
    return [line, *_over_lanes(store=True), dots, shadows]


# Words that charts share


def _by(prefix: str, field: str) -> alt.ExprRef:
    """The page's colour for what a row says."""
    return alt.ExprRef(f"'var(--{prefix}-' + datum.{field} + ')'")


HUE = _by("hue", "hue")


def _if(test: str, yes: str | None, no: str) -> Any:
    return alt.condition(test, alt.value(yes), alt.value(no))


def _roomy(points: int) -> alt.ExprRef:
    """Opacity of a label: shown where its bar is wider than that."""
    return alt.ExprRef(f"{_SPAN} > {points} ? 1 : 0")


def _time(*, store: bool = False) -> alt.X:
    """The time axis, which all lanes share; its numbers stand between the lanes and the store."""
    count: Any = {"expr": "width / 90"}
    axis = alt.Axis(title=None, tickCount=count, grid=store, labels=not store, ticks=not store, domain=not store, format="~f",
                    labelExpr="datum.label + ' s'", **_APART)  # fmt: skip
    return alt.X("at:Q", axis=axis, scale=alt.Scale(nice=False, zero=False, padding=0))


def _lane() -> alt.Y:
    labels = alt.Axis(
        title=None,
        labelExpr="lanes[datum.value]",
        ticks=False,
        domain=False,
        labelLimit=LANE_LABEL,
        labelPadding=6,
    )
    return alt.Y("lane:O", axis=labels, scale=alt.Scale(padding=0))


def _token() -> alt.Y:
    axis = alt.Axis(
        title="token #",
        tickCount=4,
        labelExpr="datum.value == round(datum.value) ? format(datum.value, 'd') : ''",
        grid=False,
    )
    return alt.Y("rank:Q", axis=axis, scale=alt.Scale(zero=False, nice=False, padding=8))


def _bar(table: str, band: float, **mark: Any) -> alt.Chart:
    chart = alt.Chart(alt.NamedData(table)).mark_bar(clip=True, height={"band": band}, **mark)
    placed: alt.Chart = chart.encode(x=_time(), x2="until:Q", y=_lane())
    return placed


def _line(table: str, **mark: Any) -> alt.Chart:
    chart = alt.Chart(alt.NamedData(table)).mark_rule(clip=True, **mark)
    placed: alt.Chart = chart.encode(x=_time(), x2="until:Q", y=_lane())
    return placed


def _hatch(table: str, step: int, band: float, **mark: Any) -> alt.Chart:
    """Upright strokes: the dashes of one very thick line."""
    return _line(table, strokeWidth=step * band, strokeDash=[1.5, 3.5], opacity=0.55, **mark)


def _label(table: str, **mark: Any) -> alt.Chart:
    """Text at the start of a bar, cut off where the bar ends."""
    style: dict[str, Any] = {
        "fontSize": 10,
        "dx": 4,
        "limit": alt.ExprRef(f"max(1, {_SPAN} - 6)"),
    } | mark
    chart = alt.Chart(alt.NamedData(table)).mark_text(clip=True, align="left", color=INK, **style)
    placed: alt.Chart = chart.encode(x=_time(), y=_lane())
    return placed


def _point(
    table: str, shapes: dict[str, str], field: str, *, store: bool = False, **mark: Any
) -> alt.Chart:
    """A mark whose shape says what it is."""
    shape = alt.ExprRef(f"{json.dumps(shapes)}[datum.{field}]")
    chart = alt.Chart(alt.NamedData(table)).mark_point(clip=True, opacity=1, shape=shape, **mark)
    placed: alt.Chart = chart.encode(x=_time(store=store), y=_token() if store else _lane())
    return placed


def _tip(name: str, title: str | None = None, **more: Any) -> alt.Tooltip:
    return alt.Tooltip(
        name, type="quantitative" if "format" in more else "nominal", title=title or name, **more
    )


def _seconds(name: str, title: str) -> alt.Tooltip:
    return _tip(name, f"{title}, s", format=".6f")


def _from_to(since: str, until: str = "to") -> list[alt.Tooltip]:
    return [_seconds("at", since), _seconds("until", until)]


def _token_tips() -> list[alt.Tooltip]:
    return [_tip("rank", "token #"), _tip("token")]


def _rows(kinds: Sequence[str]) -> dict[str, Any]:
    axis = alt.Axis(title=None, labelLimit=150, ticks=False, domain=False, labelPadding=6)
    rows: dict[str, Any] = {
        "y": alt.Y("name:N", sort=None, axis=axis, scale=alt.Scale(paddingInner=0.25))
    }
    if len(kinds) > 1:
        rows["yOffset"] = alt.YOffset("kind:N", sort=None)
    return rows


def _step(kinds: Sequence[str]) -> int:
    return 16 if len(kinds) == 1 else 8 + 7 * len(kinds)


def _height(kinds: Sequence[str]) -> Any:
    """A step for each row, however many kinds of clients share it."""
    return {"step": _step(kinds), "for": "position"} if len(kinds) > 1 else {"step": _step(kinds)}


def _kind_color(kinds: Sequence[str]) -> alt.Color:
    colors = [f"var(--kind{place % KINDS})" for place in range(len(kinds))]
    return alt.Color("kind:N", scale=alt.Scale(domain=list(kinds), range=colors), legend=None)


def _log_x(field: str, rows: Sequence[Row], names: Sequence[str]) -> alt.X:
    """A logarithmic axis from one step of 1, 2, 5 to another, around all there is to show: at
    least two of its steps have a number, however little of it there is."""
    values = [row[name] for row in rows for name in names]
    steps = _steps(min(values), max(values))
    decades = log10(steps[-1] / steps[0])
    tenfold = "pow(10, round(log(datum.value) / LN10))"
    whole = f"abs({tenfold} / datum.value - 1) < 0.01"
    unit = (
        "datum.value >= 1000 ? format(datum.value / 1000, '~g') + ' s'"
        " : datum.value >= 1 ? format(datum.value, '~g') + ' ms'"
        " : format(datum.value * 1000, '~g') + ' µs'"
    )
    axis = alt.Axis(
        values=steps,
        labelExpr=f"room > {POINTS_PER_DECADE * decades:.0f} || {whole} ? ({unit}) : ''",
        labelOverlap=True,
        **_APART,
    )
    scale = alt.Scale(type="log", nice=False, domain=[steps[0], steps[-1]])
    return alt.X(field, scale=scale, axis=axis, title=None)


def _steps(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, ... from the last that is not above *least* to the first that is above
    *most*."""
    first, last = floor(log10(least)), floor(log10(most)) + 1
    steps = [digit * 10.0**place for place in range(first, last + 1) for digit in (1, 2, 5)]
    begin = max(place for place, step in enumerate(steps) if step <= least * (1 + 1e-9))
    end = min(place for place, step in enumerate(steps) if step > most)
    return steps[begin : end + 1]


def _with_room(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """The points that a panel of the chart has, which the page sets to what the screen leaves."""
    spec.setdefault("params", []).append({"name": "room", "value": width})
    return spec


def _by_phase(layers: Any, kinds: Sequence[str]) -> Any:
    phases = alt.Column(
        "phase:N",
        sort=["before", "during", "after"],
        title=None,
        header=alt.Header(labelColor=INK, labelFontWeight="bold"),
    )
    return layers.properties(width=WIDTH // 3, height=_height(kinds)).facet(
        column=phases, spacing=14
    )


def _finished(chart: Any) -> dict[str, Any]:
    axis = {
        "labelColor": INK,
        "titleColor": FAINT,
        "gridColor": LINE,
        "tickColor": LINE,
        "domainColor": LINE,
        "labelFontSize": 11,
        "titleFontWeight": "normal",
        "titleFontSize": 11,
    }
    chart = chart.configure(
        font=FONT,
        aria=False,
        background="transparent",
        axis=axis,
        view={"stroke": None},
        padding={"left": 2, "right": 8, "top": 16, "bottom": 2},
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec
