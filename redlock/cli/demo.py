"""`redlock demo`: watch locks work while servers fail."""

from __future__ import annotations

import click

_STATUSES = """\b
Exit status:
  0  the verdict is clean
  1  it is not
  2  it could not start, for want of a server perhaps
"""


@click.command(epilog=_STATUSES, short_help="Watch locks work while servers fail.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=2.0, max=50.0),
    default=20.0,
    show_default=True,
    help="How long.",
)
def demo(seconds: float) -> int:
    """Five servers, three workers, two faults, one verdict: watch the lock work, on this machine
    alone."""
    from redlock.demo import run

    return run(seconds)
