"""One SVG per situation: a bar for every contender, in the order of the figure that matters
there."""

from __future__ import annotations

from pathlib import Path

import altair as alt

from benchmarks.bench import Result

__all__ = ["draw"]

_COLOURS = {"ours": "#1b7f4d", "yardstick": "#5b8db8", "peer": "#b9b4a7"}
_NAMES = {"ours": "redlock", "yardstick": "yardstick", "peer": "other libraries"}
_SMALLEST = 1e-3
"""Where a logarithmic axis begins: it has no zero."""


def draw(result: Result, folder: Path) -> Path | None:
    """Draw the situation into *folder*; None if it has nothing to draw."""
    if result.chart is None:
        return None
    name, axis, logarithmic = result.chart
    rows = [
        {
            "contender": row["contender"],
            "group": _NAMES[row["group"]],
            "value": max(float(row[name]), _SMALLEST),
        }
        for row in result.rows
        if isinstance(row.get(name), int | float) and row[name] == row[name]
    ]
    if not rows:
        return None
    scale = alt.Scale(type="log" if logarithmic else "linear")
    colour = alt.Scale(domain=[_NAMES[group] for group in _COLOURS], range=list(_COLOURS.values()))
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("value:Q", title=axis, scale=scale),
            y=alt.Y("contender:N", title=None, sort="x" if _less_is_better(result) else "-x"),
            color=alt.Color("group:N", title=None, scale=colour, legend=alt.Legend(orient="top")),
        )
    )
    labels = bars.mark_text(align="left", dx=4).encode(
        text=alt.Text("value:Q", format=",.3~g"), color=alt.value("#444")
    )
    chart = (bars + labels).properties(width=560, title=result.title)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.svg"
    chart.configure_axis(labelLimit=260).save(str(path), format="svg")
    return path


def _less_is_better(result: Result) -> bool:
    return result.chart is not None and "per second" not in result.chart[1]
