"""What `lock` and `elect` have in common on the command line: options of ours come before the
command, and everything from its first word on is the command's, as env(1), nice(1) and timeout(1)
have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from redlock.cli.statuses import CONTENDED

__all__ = ["CONFLICT_OPTION", "OUTCOME_OPTION", "Runs", "command_argument"]

F = TypeVar("F", bound=Callable[..., Any])


class Runs(click.Command):
    """A command whose arguments are NAME and CMD, with options before and between the two.

    Nothing behind the first word of CMD is ours, whatever it looks like: an option that was meant
    for CMD and taken by us would change what runs, and nobody would be told.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's own, once everything of ours stands in front."""
        ctx.allow_interspersed_args = False
        return super().parse_args(ctx, self._in_order(ctx, args))

    def _in_order(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The same words with all options of ours at the front, and a `--` behind them."""
        head, rest = self._split(ctx, args)
        if not rest:  # No NAME: `--help`, or an error that Click knows how to word.
            return args
        if head[-1:] == ["--"]:
            return [*head, *rest]
        between, command = self._split(ctx, rest[1:])
        if between[-1:] == ["--"]:
            between.pop()
        return [*head, *between, "--", rest[0], *command]

    def _split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """Options with their values, up to and with a `--`; and what begins with a word that is
        none."""
        options: list[click.Parameter]
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        # A parser that knows no arguments gives back what it stopped at.
        parser = click.Command(None, params=options, add_help_option=False).make_parser(ctx)
        _, rest, _ = parser.parse_args(list(args))
        return args[: len(args) - len(rest)], rest


CONFLICT_OPTION = click.option(
    "-E",
    "--conflict-exit-code",
    "conflict",
    type=click.IntRange(0, 255),
    default=CONTENDED,
    show_default=True,
    metavar="N",
    help="The exit status when somebody else has it (--no-wait, --timeout), as flock has it.",
)
OUTCOME_OPTION = click.option(
    "--outcome",
    type=click.File("w", lazy=False),
    metavar="FILE",
    help="Write there, as JSON, whether CMD or redlock ended it, and why.",
)


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell completes names of files."""
    return [CompletionItem(incomplete, type="file")]


def command_argument(*, required: bool) -> Callable[[F], F]:
    """The words of CMD."""
    return click.argument(
        "command",
        nargs=-1,
        required=required,
        metavar="[--] CMD...",
        type=click.UNPROCESSED,
        shell_complete=_files,
    )
