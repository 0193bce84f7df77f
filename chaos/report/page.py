"""Puts a run into one HTML file: the index, a section per result, the charts, and the library that
draws them.

The file loads nothing: its content policy forbids every request, and lets only the page's own
scripts run. What comes from the run directory reaches the page as text, or as JSON in which no `<`
is left.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from chaos.report import charts, index, words
from chaos.report.drawing import Drawing
from chaos.report.faults import sort_of
from chaos.report.run import OURS, Result, Run, read_run
from chaos.report.sections import Section, section_of

__all__ = ["build"]

VIOLATIONS_MAX = 50
"""Violations that a section lists."""

ROWS_MAX = 90
"""Scenarios in a chart of the index; of more, the worst."""


def build(
    folder: Path,
    *,
    partial: bool = False,
    watched: Callable[[Sequence[Result]], Iterable[Result]] = lambda results: results,
) -> str:
    """The report on the run directory *folder*, as HTML. *watched* may tell how far it is with the
    results it is given.

    Raises ReportError where there is nothing to report on, and, unless *partial*, where a history
    is missing or damaged.
    """
    run = read_run(folder)
    ordered = sorted(run.results, key=lambda result: not result.control)
    return _render(
        run, [section_of(folder, result, partial=partial) for result in watched(ordered)]
    )


def _render(run: Run, sections: Sequence[Section]) -> str:
    kinds = sorted(
        {result.client_kind for result in run.results}, key=lambda kind: (kind != OURS, kind)
    )
    scripts = [_inline(text) for text in (_library(), _file("report.js"))]
    all_tables = index.tables(run.results)
    tables = {name: index.worst(name, rows, ROWS_MAX) for name, rows in all_tables.items()}
    page = _environment().get_template("report.html.j2")
    return page.render(
        run=run,
        verdict=words.verdict(run.results),
        totals_said=list(index.totals(run, sections)),
        all_ok=all(result.ok for result in run.results if result.client_kind == OURS),
        kinds=kinds,
        controls=[section for section in sections if section.result.control],
        sections=sections,
        rows=index.matrix(sections, kinds),
        totals={kind: index.total(run.results, kind) for kind in kinds},
        peers=index.peers(sections, kinds),
        beside=index.beside(sections),
        index=tables,
        left_out={
            name: index.names(all_tables[name]) - index.names(rows) for name, rows in tables.items()
        },
        heights={
            name: charts.height_of_rows(len(index.names(rows)), kinds)
            for name, rows in tables.items()
        },
        charts=_charts(kinds, tables, dense=any(section.dense for section in sections)),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        style=Markup(_file("report.css")),
        words=words,
        sort_of=sort_of,
        packed=_packed,
        most=VIOLATIONS_MAX,
        rows_max=ROWS_MAX,
    )


def _charts(
    kinds: Sequence[str], tables: dict[str, list[dict[str, Any]]], *, dense: bool
) -> dict[str, Any]:
    made = {"timeline": _timeline(dense=False)}
    if dense:
        made["dense"] = _timeline(dense=True)
    if tables["availability"]:
        made["availability"] = charts.availability(kinds)
    if tables["latency"]:
        made["latency"] = charts.latency(kinds, tables["latency"])
    if tables["next"]:
        made["next"] = charts.next_holder(kinds, tables["next"])
    return made


def _packed(drawing: Drawing) -> str:
    """The data of a drawing, small: letters that end no script, unpacked where they are drawn."""
    text = json.dumps(drawing.data(), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chaos.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "allow_nan": False,
        "ensure_ascii": False,
    }
    return environment


@cache
def _timeline(*, dense: bool) -> dict[str, Any]:
    return charts.timeline(dense=dense)


@cache
def _library() -> str:
    """Vega-Embed with all it needs, of the very Vega-Lite that the charts are written for."""
    return vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=alt.SCHEMA_VERSION.rpartition(".")[0]
    )


def _file(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text("utf-8")


def _inline(script: str) -> Markup:
    """As the text of a script element, which ends at the first `</script`, also in a string."""
    return Markup(script.replace("</script", "<\\/script"))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
