"""The options that several commands have, and the nodes that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import click

from redlock.errors import ConfigurationError

NODE_OPTION = click.option(
    "--node",
    "urls",
    multiple=True,
    metavar="URL",
    help=(
        "One node, redis://host:port; repeat for each. Default: REDLOCK_NODES, separated by commas"
        " or spaces, which also keeps passwords out of the process list."
    ),
)
PREFIX_OPTION = click.option(
    "--key-prefix",
    default="redlock:",
    show_default=True,
    help="What the names of lock keys begin with.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
SECONDS = click.FloatRange(min=0)


def nodes_of(urls: Sequence[str]) -> list[str]:
    """The nodes of the command line, or else those of the environment."""
    found = list(urls) or re.findall(r"[^\s,]+", os.environ.get("REDLOCK_NODES", ""))
    if not found:
        raise ConfigurationError(
            "no nodes: give --node redis://host:port for each, or set REDLOCK_NODES"
        )
    return found
