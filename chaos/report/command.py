"""`python -m chaos report DIR`: one HTML file about a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from chaos.report.run import Result

__all__ = ["report"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: DIR/report.html."
)
@click.option(
    "--partial",
    is_flag=True,
    help="Report also where histories are missing or damaged, and say so.",
)
def report(folder: Path, output: Path | None, partial: bool) -> None:
    """Make one self-contained HTML file of the run directory DIR."""
    from chaos.report.page import build
    from chaos.report.run import ReportError

    path = output or folder / "report.html"
    try:
        page = build(folder, partial=partial, watched=_told)
        path.write_text(page, "utf-8")
    except ReportError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from None
    click.echo(f"{path}  {len(page.encode()) / 1e6:.1f} MB")


def _told(results: Sequence[Result]) -> Iterable[Result]:
    """A bar on the terminal, if there is one."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        results, "histories", console=console, transient=True, disable=not console.is_terminal
    )
