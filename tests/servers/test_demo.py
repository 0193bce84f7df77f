"""The demonstration: its verdict on planted histories, and the whole of it, sound and broken on
purpose."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from redlock.demo.ledger import Ledger, StaleToken
from redlock.demo.verdict import Section, judge

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = [sys.executable, "-m", "redlock.cli", "demo"]

NO_EXCLUSION = """
import os, redlock.options, redlock.client, redlock.asyncio
keys_of = redlock.options.keys_of
for module in (redlock.options, redlock.client, redlock.asyncio):
    module.keys_of = lambda prefix, resource: keys_of(prefix, f"{resource}:{os.getpid()}")
"""
"""A planted bug: every process has a lock of its own."""


def section(
    worker: str, token: int, start: float, end: float | None, until: float = 100.0
) -> Section:
    return Section(worker, token, start - 0.2, start - 0.1, start, until, end, wrote=True)


def broken(
    sections: Sequence[Section], counter: int, token: int, faults: Sequence[str] = ()
) -> list[str]:
    """The claims that do not hold."""
    return [
        finding.claim for finding in judge(sections, counter, token, faults) if not finding.holds
    ]


SOUND = [section("A", 1, 1.0, 2.0), section("B", 2, 2.0, 3.0), section("A", 5, 4.0, 5.0)]


def test_a_sound_history_is_clean() -> None:
    """In whatever order it is told."""
    assert broken(SOUND, 3, 5) == []
    assert broken(SOUND[::-1], 3, 5) == []


@pytest.mark.parametrize(
    ("planted", "claims"),
    [
        (section("C", 7, 4.9, 6.0), ["one holder at a time"]),
        (section("C", 0, 4.2, 4.3), ["one holder at a time", "fencing tokens strictly increase"]),
        (section("C", 7, 6.0, 8.0, until=7.5), ["never past its validity"]),
        (section("C", 7, 6.0, None), ["never past its validity"]),
        (section("C", 5, 6.0, 7.0), ["fencing tokens strictly increase"]),
    ],
)
def test_a_planted_section_breaks_the_verdict(planted: Section, claims: list[str]) -> None:
    """Overlap (also within a longer section), lateness, no release and a token that does not
    grow are found."""
    sections = [*SOUND, planted]
    assert broken(sections, 4, max(sections, key=lambda each: each.granted_at).token) == claims


def test_a_lost_update_breaks_the_verdict() -> None:
    """The file counts less than was written."""
    assert broken(SOUND, 2, 5) == ["no update is lost"]


def test_a_foreign_token_in_the_file_breaks_the_verdict() -> None:
    """Somebody wrote after the last holder."""
    assert broken(SOUND, 3, 6) == ["fencing tokens strictly increase"]


def test_faults_and_an_empty_history_break_the_verdict() -> None:
    """Nothing granted proves nothing."""
    assert broken(SOUND, 3, 5, ["worker A ended with status 1"]) == ["nobody fell over"]
    assert broken([], 0, 0) == ["one holder at a time", "never past its validity"]


def test_the_ledger_refuses_a_token_that_is_not_larger(tmp_path: Path) -> None:
    """Fencing: the same or a smaller token belongs to somebody late."""
    ledger = Ledger(tmp_path / "counter")
    ledger.write(3, 10)
    assert ledger.open(11) == 3
    for token in (9, 10):
        with pytest.raises(StaleToken):
            ledger.open(token)


def alive(pids: Sequence[str]) -> list[str]:
    return [pid for pid in pids if Path("/proc", pid).exists()]


def test_the_demonstration_is_clean_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Both faults happen, the verdict is clean, and no worker and no folder outlives it."""
    result = subprocess.run(
        [*DEMO, "--seconds", "6"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert "\x1b" not in result.stdout  # Plain lines where there is no terminal.
    for told in (
        "is killed",
        "in quarantine",
        "is stopped",
        "goes on",
        "votes again",
        "verdict: clean",
    ):
        assert told in result.stdout
    assert result.stdout.count("holds") >= 5
    # One number is one text: among what the faults cost, and below.
    longest = re.search(r"longest wait (.+), by", result.stdout)
    assert longest
    assert result.stdout.count(f" {longest[1]}") >= 2
    workers = re.findall(r"pid (\d+)", result.stdout)
    assert len(workers) == 3
    assert alive(workers) == []
    assert list(tmp_path.iterdir()) == []


def test_the_demonstration_fails_when_the_lock_does_not_exclude(tmp_path: Path) -> None:
    """A verdict that could not be bad would prove nothing: with one lock for each process, it
    is, and so is the status."""
    (tmp_path / "sitecustomize.py").write_text(NO_EXCLUSION)
    # The library beside these tests, which is not yet on the path when sitecustomize runs, and may
    # not be the installed one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run(
        [*DEMO, "--seconds", "2"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "verdict: NOT CLEAN" in result.stdout
    assert re.search(r"one holder at a time +BROKEN", result.stdout)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing_behind(
    tmp_path: Path, signum: signal.Signals
) -> None:
    """Ctrl-C in the middle: one line, the status of the signal, no process and no folder."""
    with subprocess.Popen(
        DEMO, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while "1 s  " not in said:
            line = process.stdout.readline()
            assert line, f"it ended by itself, after {said!r}"
            said += line
        process.send_signal(signum)
        said += process.stdout.read()
        assert process.wait(20) == 128 + signum
    assert said.endswith("servers, workers and folders are gone\n")
    assert alive(re.findall(r"pid (\d+)", said)) == []
    assert list(tmp_path.iterdir()) == []
