"""What can be typed."""

from __future__ import annotations

import logging
import sys

import click

import redlock
from redlock.cli.demo import demo
from redlock.cli.elect import elect
from redlock.cli.init import init
from redlock.cli.leader import leader
from redlock.cli.lock import lock
from redlock.cli.locks import locks
from redlock.cli.nodes import nodes
from redlock.cli.release import release
from redlock.cli.status import status


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(redlock.__version__, message="redlock %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
def commands(verbose: bool) -> None:
    """Quorum locks and leader election on N independent Redis or Valkey masters."""
    if verbose:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("redlock").setLevel(logging.DEBUG)


for _command in (lock, elect, leader, status, locks, release, nodes, init, demo):
    commands.add_command(_command)
