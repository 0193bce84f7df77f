"""The command line of the evidence: `python -m chaos PART`. Each part is a click command in a
module of its own.

A part is imported when it is asked for, so that one works without what only another needs.
"""

from __future__ import annotations

from importlib import import_module

import click

__all__ = ["main"]

PARTS = {
    "sim": "chaos.sim.command:sim",
    "model": "chaos.model.command:model",
    "list": "chaos.live.command:list_scenarios",
    "run": "chaos.live.command:run",
    "campaign": "chaos.live.command:campaign",
    "replay": "chaos.live.command:replay",
    "elections": "chaos.live.measuring:elections",
    "waiting": "chaos.live.waits:measure",
    "memories": "chaos.live.memories.command:memories",
    "electors": "chaos.electors.command:electors",
    "report": "chaos.report.command:report",
}
"""By name, the module and the command in it."""


class _Parts(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PARTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PARTS:
            return None
        module, _, name = PARTS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.command(cls=_Parts, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Search for violations of the promises of redlock, and judge what is found."""
