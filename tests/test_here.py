"""Where the package cannot work as installed, its import says so in one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redlock import _here

PACKAGE = Path(_here.__file__).parent


def importing(statement: str, site: Path) -> subprocess.CompletedProcess[str]:
    """A program in which *site* comes before everything else."""
    program = f"import sys; sys.path.insert(0, {str(site)!r}); {statement}"
    words = [sys.executable, "-I", "-W", "error::RuntimeWarning", "-c", program]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def installed(site: Path) -> Path:
    """A copy of the package in *site*."""
    shutil.copytree(PACKAGE, site / "redlock", ignore=shutil.ignore_patterns("__pycache__"))
    return site / "redlock"


def test_no_module_of_ours_has_a_name_that_tells_another_project() -> None:
    """And so nothing is said where ours is alone."""
    assert not set(_here._THEIRS) & {path.name for path in PACKAGE.iterdir()}
    _here.check_neighbours()


@pytest.mark.parametrize(
    ("modules", "project"),
    [
        (["cli.py"], "redlock-py"),
        (["algorithm.py", "client.py", "lock.py", "scripts.py"], "redlock-ng"),
        (["lock.py"], "redlock"),
    ],
)
def test_a_project_that_ours_was_written_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: list[str], project: str
) -> None:
    """One sentence with the remedy; the lists are those of their newest releases."""
    for module in modules:
        (tmp_path / module).touch()
    monkeypatch.setattr(_here, "__file__", str(tmp_path / "_here.py"))
    with pytest.warns(RuntimeWarning, match=f"^{project}, or a fork of it, .* uninstall the other"):
        _here.check_neighbours()


def test_the_warning_comes_with_the_import(tmp_path: Path) -> None:
    """Whoever runs with warnings as errors has it in the traceback."""
    (installed(tmp_path) / "cli.py").touch()
    result = importing("import redlock", tmp_path)
    assert "RuntimeWarning: redlock-py, or a fork of it" in result.stderr, result.stderr


def test_a_project_that_was_written_over_ours_is_refused(tmp_path: Path) -> None:
    """`import redlock` is theirs then; what is left of ours tells it."""
    (installed(tmp_path) / "__init__.py").write_text("class Redlock: ...\n")
    result = importing("import redlock.asyncio", tmp_path)
    assert result.stderr.splitlines()[-1].startswith(
        "ImportError: another project's redlock was written over redlock-quorum"
    )


def test_a_platform_without_a_clock_for_leases_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no clock_gettime at all; nothing else is imported before it is told."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    _here.check_platform()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match=r"does not run on win32: .* on Windows, use WSL$"):
        _here.check_platform()
    absent = "import time; sys.platform = 'win32'; time.__dict__.pop('CLOCK_BOOTTIME', None)"
    result = importing(f"{absent}; sys.modules['redis'] = None; import redlock", PACKAGE.parent)
    assert result.stderr.splitlines()[-1].startswith("ImportError: redlock-quorum does not run on")
