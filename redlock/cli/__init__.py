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
from redlock.cli.statuses import SYSTEM, UNAVAILABLE
from redlock.errors import ConfigurationError, RedlockError
from redlock.supervise import MISUSED, OK, say, scrubbed, stand_in

__all__ = ["main"]

_COMPLETING = "_REDLOCK_COMPLETE"
"""Set by the shell function that completes our words, as Click has it."""


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    stand_in()
    # As stderr has it: a name that this terminal's encoding lacks is no reason to end.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    try:
        status = _status()
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # `redlock nodes | head`: nobody reads any more. Click and Rich exit with 1 then, which
        # would mean that no majority votes.
        if _COMPLETING in os.environ:  # A shell asked Click what could be typed, and was told.
            raise
        status = _unwritten(128 + signal.SIGPIPE)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        say(f"the system refused: {getattr(error, 'strerror', None) or error}")
        status = _unwritten(SYSTEM)
    sys.exit(status)


def _unwritten(status: int) -> int:
    """*status*, with nothing left that would be written at the end, and fail once more."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _status() -> int:
    """Do what was typed; give the exit status, and say what went wrong."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"redlock {__version__}\n")
        return OK
    try:
        import click
        import rich  # noqa: F401
    except ImportError:
        say("the command line needs two more packages: pip install 'redlock-quorum[cli]'")
        return MISUSED
    from redlock.cli.commands import commands

    try:
        status: int = commands.main(prog_name="redlock", standalone_mode=False)
        return status
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        # A line as all of ours, behind those on usage. A misplaced argument is repeated, and may be
        # a URL.
        usage, _, what = scrubbed(text.getvalue()).partition("Error: ")
        with contextlib.suppress(OSError):
            sys.stderr.write(usage)
        if what:  # Without any words the help is all that is said.
            say(what.rstrip())
        return MISUSED
    except ConfigurationError as error:
        say(str(error))
        return MISUSED
    except RedlockError as error:
        say(str(error))
        return UNAVAILABLE
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}")
