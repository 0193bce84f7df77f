"""Results as tables: for the terminal with rich, and in Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.bench import Result

__all__ = ["cell", "markdown", "table"]

_STYLES = {"ours": "bold green", "yardstick": "cyan"}


def cell(value: Any) -> str:
    """A figure as one reads it: three digits, no exponent, "-" for none."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(result: Result) -> Table:
    """For the terminal."""
    drawn = Table(title=result.title, title_justify="left")
    drawn.add_column(
        "contender",
        min_width=max((len(row["contender"]) for row in result.rows), default=0) // 2 + 1,
    )
    for heading in result.columns.values():
        drawn.add_column(heading, justify="right")
    for row in result.rows:
        drawn.add_row(
            row["contender"],
            *[cell(row.get(name)) for name in result.columns],
            style=_STYLES.get(row["group"]),
        )
    return drawn


def markdown(result: Result) -> str:
    """For RESULTS.md; this library's rows in bold."""
    lines = [
        "| contender | " + " | ".join(result.columns.values()) + " |",
        "|---|" + "---:|" * len(result.columns),
    ]
    for row in result.rows:
        title = f"**{row['contender']}**" if row["group"] == "ours" else row["contender"]
        lines.append(
            f"| {title} | " + " | ".join(cell(row.get(name)) for name in result.columns) + " |"
        )
    return "\n".join(lines)
