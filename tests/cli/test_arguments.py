"""What of a command line is ours, and what is the command's."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from redlock.cli.elect import elect
from redlock.cli.lock import lock


@pytest.mark.parametrize("command", [lock, elect])
@pytest.mark.parametrize(
    ("words", "its"),
    [
        ("job --ttl 9 cmd --ttl 3 -h", "cmd --ttl 3 -h"),
        ("--ttl 9 job cmd --no-wait", "cmd --no-wait"),
        ("job --ttl=9 cmd -- x", "cmd -- x"),
        ("job --ttl=9 -- -x", "-x"),
        ("--ttl 9 -- job --ttl 3", "--ttl 3"),
        ("job --ttl 9 -- -- cmd", "-- cmd"),
    ],
)
def test_everything_from_the_first_word_of_cmd_on_is_its_own(
    command: click.Command, words: str, its: str
) -> None:
    """As env, nice and timeout have it; our own options stand before, or between NAME and CMD."""
    params = command.make_context("redlock", words.split()).params
    assert " ".join(params["command"]) == its
    assert (params["ttl"], params["no_wait"]) == (9.0, False)


@pytest.mark.parametrize("words", ["--bogus job cmd", "job --bogus cmd", "job --ttl"])
def test_an_option_before_cmd_that_is_not_ours_is_refused(words: str) -> None:
    """With a word: it is neither eaten nor handed on."""
    with pytest.raises(click.UsageError, match=r"--bogus|--ttl"):
        lock.make_context("redlock", words.split())


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_the_version_needs_no_extra() -> None:
    """It is asked for where something is missing."""
    done = run(
        "import sys; sys.modules['rich'] = sys.modules['click'] = None\n"
        "sys.argv = ['redlock', '--version']\n"
        "import runpy; runpy.run_module('redlock', run_name='__main__')"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("redlock ")


def test_a_shell_can_complete_words() -> None:
    """Ours, and with status 0: who completes is no reader that went away."""
    words = {"COMP_WORDS": "redlock el", "COMP_CWORD": "1", "_REDLOCK_COMPLETE": "bash_complete"}
    done = run("from redlock.cli import main; main()", **words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,elect\n", "")
