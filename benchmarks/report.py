"""What a run leaves behind: JSON with every figure, charts, and RESULTS.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.bars import Bar
from benchmarks.bench import Bench, Result
from benchmarks.catalogue import CONTENDERS
from benchmarks.charts import draw
from benchmarks.tables import cell, markdown
from redlock import __version__

__all__ = ["write"]


def write(
    bench: Bench,
    results: Mapping[str, Result],
    bars: Sequence[Bar],
    started: datetime,
    *,
    folder: Path,
    results_md: Path,
) -> None:
    """Write `results.json` and the charts into *folder*, and the report to *results_md*."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = _facts(bench, started)
    everything = {
        **facts,
        "missing": list(bench.missing.values()),
        "situations": {name: asdict(result) for name, result in results.items()},
        "bars": [asdict(bar) for bar in bars],
    }
    (folder / "results.json").write_text(json.dumps(everything, indent=1), "utf-8")
    for result in results.values():
        draw(result, folder)
    results_md.write_text(_report(bench, results, bars, facts), "utf-8")


def _facts(bench: Bench, started: datetime) -> dict[str, Any]:
    with bench.nodes[0].client() as client:
        info: Any = client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "started": started.isoformat(timespec="seconds"),
        "quick": bench.quick,
        "redlock": __version__,
        "server": f"{name} {info.get('valkey_version') or info['redis_version']}",
        "interpreter": machine.interpreter(),
        "optimised": machine.is_optimised(),
        "machine": machine.machine(),
        "versions": dict(bench.versions),
    }


def _report(
    bench: Bench, results: Mapping[str, Result], bars: Sequence[Bar], facts: Mapping[str, Any]
) -> str:
    kind = "A quick run: a few rounds, wide intervals." if bench.quick else "A full run."
    parts = [
        "# Results",
        (
            f"Written by `python -m benchmarks` on {facts['started'][:10]}. {kind} redlock"
            f" {facts['redlock']}, {facts['server']}, {facts['interpreter']}; {facts['machine']}."
        ),
        (
            "Only ratios within one run mean something: the same machine gives other microseconds"
            " tomorrow. Every contender has a process of its own, and they are measured in turns,"
            " in shuffled order. *x floor* is to a C client that sends plain Redlock commands and"
            " does nothing else; *x minimal loop* to the least Python that does the same."
        ),
        _summary(results),
        "## Bars",
        _bars(bars),
    ]
    for result in results.values():
        parts += [
            f"## {result.title}",
            f"{result.note} Took {result.seconds:.0f} s; others kept {result.foreign:.2f} cores"
            " busy"
            + (f", the hypervisor took {result.stolen:.2f}." if result.stolen >= 0.005 else "."),
            markdown(result),
        ]
    parts += ["## Versions", _versions(bench)]
    if bench.missing:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in bench.missing.values())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bars(bars: Sequence[Bar]) -> str:
    words = {True: "yes", False: "**no**", None: "-"}
    lines = ["| what | bar | measured | met |", "|---|---|---|---|"]
    lines += [f"| {bar.what} | {bar.bar} | {bar.measured} | {words[bar.met]} |" for bar in bars]
    return "\n".join(lines)


def _summary(results: Mapping[str, Result]) -> str:
    """The one small table for the README: what a caller feels, ours beside the others."""
    columns = {
        "acquire + release, x C floor": ("uncontended", "to_floor_value"),
        "CPU, x C floor": ("uncontended", "cpu_to_floor_value"),
        "nodes 1 to 50 ms away: acquire, ms": ("round-trips", "acquire"),
        "one node stopped: acquire, ms": ("stopped-node", "warm"),
        "keys left behind, late packets, %": ("late-chunks", "share"),
    }
    shown = {heading: where for heading, where in columns.items() if where[0] in results}
    keys = [
        contender
        for contender in CONTENDERS
        if contender.nodes == 5 and contender.group != "yardstick"
    ]
    rows = []
    for contender in keys:
        cells = [
            cell(results[situation].row(contender.key).get(name))
            for situation, name in shown.values()
        ]
        if any(one != "-" for one in cells):
            title = f"**{contender.title}**" if contender.group == "ours" else contender.title
            rows.append(f"| {title} | " + " | ".join(cells) + " |")
    if not rows:
        return ""
    return "\n".join(["| | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown), *rows])


def _versions(bench: Bench) -> str:
    known = [(contender.title, bench.versions.get(contender.key)) for contender in CONTENDERS]
    return "\n".join(f"- {title}: {version}" for title, version in known if version)
