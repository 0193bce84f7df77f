"""What is shipped: the wheel has the library alone, and the sdist is a whole checkout, whose
tests run."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import hatchling.build as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
"""What pip asks a build backend for, without the environment that pip would fetch for it."""


def build(checkout: Path, what: str, folder: Path) -> Path:
    """Build a "wheel" or an "sdist" of *checkout*; give the file."""
    words = [sys.executable, "-c", BUILD, f"build_{what}", str(folder)]
    result = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return folder / result.stdout.split()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file of *wheel* by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout, as who downloads it has it."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def files(folder: Path) -> set[str]:
    """What lies in *folder* and was not left there by an interpreter."""
    found = (
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return {str(path.relative_to(folder)) for path in found}


def git_files(*options: str) -> set[str]:
    """What git knows of this checkout, as far as it is still there."""
    words = ["git", "ls-files", "-z", *options]
    names = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).exists()}


def test_the_wheel_has_the_library_and_nothing_else(tmp_path: Path) -> None:
    """All of `redlock` with its scripts and its types; campaigns and tests belong to a checkout."""
    names = contents(build(ROOT, "wheel", tmp_path)).keys()
    library = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    assert library == {f"redlock/{name}" for name in files(ROOT / "redlock")}
    assert {"redlock/py.typed", "redlock/core/lua/take.lua"} <= library


def test_a_wheel_of_the_sdist_is_the_wheel_of_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    """The same files with the same contents, whichever of the two a distribution builds from."""
    (tmp_path / "sdist").mkdir()
    (tmp_path / "checkout").mkdir()
    assert contents(build(unpacked, "wheel", tmp_path / "sdist")) == contents(
        build(ROOT, "wheel", tmp_path / "checkout")
    )


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="no checkout of git to compare the sdist with"
)
def test_the_sdist_has_every_file_of_the_checkout(unpacked: Path) -> None:
    """Nothing that git keeps is missing, a hidden folder neither, and nothing that git ignores
    is in it."""
    shipped = files(unpacked)
    assert git_files() - shipped == set()
    assert shipped - git_files("--cached", "--others", "--exclude-standard") == {"PKG-INFO"}


def test_the_tests_of_the_sdist_run(unpacked: Path) -> None:
    """Every test can be collected there; those that read all other files hold, on the sdist's
    own library."""
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    collected = subprocess.run(
        [*pytest_there, "--collect-only"], cwd=unpacked, capture_output=True, text=True, timeout=100
    )
    assert collected.returncode == 0, collected.stdout[-2000:]
    imported = [sys.executable, "-c", "import redlock, sys; sys.stdout.write(redlock.__file__)"]
    assert Path(subprocess.check_output(imported, cwd=unpacked, text=True)).is_relative_to(unpacked)
    tidy = subprocess.run(
        [*pytest_there, "tests/test_tidy.py"],
        cwd=unpacked,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tidy.returncode == 0, tidy.stdout[-2000:]
