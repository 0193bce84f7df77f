"""What of the output a terminal, a disk or an encoding does not take."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from redlock.cli import release
from redlock.cli.screen import Listing, new_console
from redlock.supervise import say, say_if_heard

NOBODY = ["--node", "redis://127.0.0.1:1"]
"""A node where nobody listens."""


def run(*words: str | bytes, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "REDLOCK_NODES"}
    given: dict[str, object] = {"stdout": subprocess.PIPE, "env": environment, **options}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "redlock", *words],
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        **given,
    )


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["status", *NOBODY, "job"]])
def test_a_full_disk_is_no_statement_about_the_nodes(words: list[str]) -> None:
    """Status 71 and one line; a traceback's 1 would mean that no majority votes."""
    with Path("/dev/full").open("w") as full:
        done = run(*words, stdout=full)
    told = [line for line in done.stderr.splitlines() if "warning" not in line]
    assert (done.returncode, told) == (71, ["redlock: the system refused: No space left on device"])


def test_a_name_that_the_encoding_lacks_is_shown_with_escapes() -> None:
    """As on stderr."""
    done = run("status", *NOBODY, "größe", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "'gr\\xf6\\xdfe': unknown" in done.stdout


@pytest.mark.parametrize("option", ["--prefix", "--key-prefix"])
def test_bytes_that_are_no_text_are_refused(option: str) -> None:
    """As names of locks are."""
    done = run("locks", *NOBODY, option, b"\xff")
    assert done.returncode == 2 and "cannot be encoded" in done.stderr


def test_nothing_that_is_said_or_listed_moves_the_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names and values are whoever's wrote them: they start no line, and no terminal obeys them."""
    say("'a\x1b]0;owned\x07\nredlock: b\x9b2J\u202e'")
    listing = Listing("lock")
    listing.caption = "\x1b[2J"
    listing.add("a\x1b[2J\nb")
    listing.print(new_console())
    told = capsys.readouterr()
    assert told.err == "redlock: 'a\\x1b]0;owned\\x07\\nredlock: b\\x9b2J\\u202e'\n"
    assert told.out.replace("\n", "").isprintable()
    assert "a\\x1b[2J\\nb" in told.out


@pytest.mark.parametrize("words", [["lock"], ["elect", "--stop", "50"]])
def test_what_is_refused_before_the_wait_has_an_outcome_too(
    words: list[str], tmp_path: Path
) -> None:
    """No nodes, and timings that do not hold."""
    file = tmp_path / "outcome"
    done = run(*words, "--outcome", str(file), "job", "true")
    assert done.returncode == 2
    assert json.loads(file.read_text()) == {"ended_by": "redlock", "reason": "misused", "status": 2}


def test_words_that_cannot_be_understood_have_a_line_of_ours() -> None:
    """As every other end that is not the command's, so that its status is told from CMD's."""
    *_, last = run("lock", "--ttl", "Error: x", "job", "true").stderr.splitlines()
    assert last.startswith("redlock: Invalid value for '--ttl': 'Error: x'")
    assert run().stderr.startswith("Usage: ") and "redlock: " not in run().stderr


def test_a_screen_without_columns_shows_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS=0, as where a terminal's size is not known."""
    monkeypatch.setenv("COLUMNS", "0")
    assert new_console().width == 20


def test_a_machine_without_threads_is_no_traceback(tmp_path: Path) -> None:
    """71 as well, and the outcome says that it was not the command."""
    file = tmp_path / "outcome"
    program = (
        "import sys, threading\n"
        'def start(self): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start\n"
        f"sys.argv[1:] = {['lock', *NOBODY, '--outcome', str(file), 'job', 'true']}\n"
        "from redlock.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 71 and "Traceback" not in done.stderr
    assert done.stderr.endswith("redlock: the system refused: can't start new thread\n")
    assert json.loads(file.read_text())["reason"] == "system"


@pytest.mark.parametrize("answer", ["", "\n", "n\n"])
def test_no_answer_is_no_confirmation(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the input (Ctrl-D) as well as Enter: status 1, and not that of Ctrl-C."""
    typed = io.StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", typed)
    assert release._is_confirmed() is False


@pytest.mark.parametrize("char", ["\x1b", "\U000e0001", "\U0001f512"])
def test_what_must_not_wait_for_a_reader_fits_into_a_pipe(
    char: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """PIPE_BUF bytes are written at once or not at all, whatever the names in a line are made
    of."""
    say_if_heard(char * 5000)
    told = capfd.readouterr().err.encode()
    assert 1000 <= len(told) <= select.PIPE_BUF
