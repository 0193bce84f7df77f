"""The command line: `redlock lock`, `elect`, `leader`, `status`, `locks`, `release`, `nodes`,
`init` and `demo`, a file for each.

Thin: every command calls the public API and shows what it says. The one part with rules of its own
is the supervisor behind `lock` and `elect`, which must have stopped the command before the validity
ends. It decides by the lease clock alone and never waits for I/O. Credentials are never printed:
nodes go by their names, error texts are scrubbed.

Here is what works without Click and Rich, which the library does not need; the commands are
imported once `main` has found them.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings

from redlock import __version__
from redlock.cli.statuses import UNAVAILABLE
from redlock.errors import ConfigurationError, RedlockError
from redlock.supervise import MISUSED, OK, say, scrubbed, stand_in

__all__ = ["main"]

_COMPLETING = "_REDLOCK_COMPLETE"
"""Set by the shell function that completes our words, as Click has it."""


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    stand_in()
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"redlock {__version__}\n")
        sys.exit(OK)
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        say("the command line needs two more packages: pip install 'redlock-quorum[cli]'")
        sys.exit(MISUSED)
    warnings.showwarning = _show_warning
    sys.exit(_status())


def _status() -> int:
    """Do what was typed; give the exit status, and say what went wrong."""
    import click

    from redlock.cli.commands import commands

    try:
        status: int = commands.main(prog_name="redlock", standalone_mode=False)
        return status
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        with contextlib.suppress(OSError):
            # A misplaced argument is repeated, and may be a URL.
            sys.stderr.write(scrubbed(text.getvalue()))
        return MISUSED
    except ConfigurationError as error:
        say(str(error))
        return MISUSED
    except RedlockError as error:
        say(str(error))
        return UNAVAILABLE
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except (BrokenPipeError, SystemExit):
        # `redlock nodes | head`: nobody reads any more. Click and Rich exit with 1 then, which
        # would mean that no majority votes. Nothing is left to be flushed at exit.
        if _COMPLETING in os.environ:  # A shell asked Click what could be typed, and was told.
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}")
