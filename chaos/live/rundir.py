"""A run directory: one folder for each scenario with its history, `run.json` over all, and a
JUnit file for CI."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from chaos.history import write_jsonl
from chaos.live.runner import Outcome, result

__all__ = ["RunDirectory", "commit", "read_run"]


class RunDirectory:
    """Written as the run goes on, so that one that is interrupted can be looked at."""

    def __init__(
        self, path: Path, *, seed: int | None, command: str, versions: dict[str, str]
    ) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._run: dict[str, Any] = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "command": command,
            "commit": commit(),
            "versions": versions,
            "results": [],
            "not_run": [],
        }
        self._write()

    def add(self, outcome: Outcome, replay_options: str = "") -> None:
        """Keep one scenario's history and result."""
        kind = outcome.program.kind
        name = base = outcome.scenario.id if kind == "redlock" else f"{outcome.scenario.id}-{kind}"
        again = 1
        while (self.path / name).exists():
            again += 1
            name = f"{base}.{again}"
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        write_jsonl(folder / "history.jsonl", outcome.history)
        self._run["results"].append(
            result(outcome, name, f"python -m chaos replay {self.path / name}{replay_options}")
        )
        self._write()

    def skip(self, scenario: str, title: str, why: str) -> None:
        """Name a scenario that was not run."""
        self._run["not_run"].append({"scenario": scenario, "title": title, "why": why})
        self._write()

    @property
    def results(self) -> Sequence[dict[str, Any]]:
        """So far."""
        results: list[dict[str, Any]] = self._run["results"]
        return results

    def _write(self) -> None:
        fresh = self.path / "run.json.new"
        fresh.write_text(json.dumps(self._run, indent=1, allow_nan=False) + "\n", "utf-8")
        fresh.replace(self.path / "run.json")
        self._write_junit()

    def _write_junit(self) -> None:
        results, skipped = self._run["results"], self._run["not_run"]
        suite = ElementTree.Element(
            "testsuite",
            name="chaos",
            tests=str(len(results) + len(skipped)),
            failures=str(sum(not one["ok"] for one in results)),
            skipped=str(len(skipped)),
            time=f"{sum(one['seconds'] for one in results):.3f}",
        )
        for one in results:
            name = f"{one['scenario']} {one['title']}"
            case = ElementTree.SubElement(
                suite, "testcase", classname=one["client_kind"], name=name, time=str(one["seconds"])
            )
            if not one["ok"]:
                text = (
                    f"expected {one['expected']}, observed {one['observed']}:"
                    f" {one['why']}\n{one['replay']}"
                )
                ElementTree.SubElement(case, "failure", message=one["why"]).text = text
        for one in skipped:
            case = ElementTree.SubElement(
                suite, "testcase", classname="redlock", name=f"{one['scenario']} {one['title']}"
            )
            ElementTree.SubElement(case, "skipped", message=one["why"])
        ElementTree.ElementTree(suite).write(
            self.path / "junit.xml", encoding="utf-8", xml_declaration=True
        )


def commit() -> str:
    """Which commit runs, and whether it was changed since; "" outside of a checkout of ours."""
    root = Path(__file__).parents[2]
    try:
        top, head = _git(root, "rev-parse", "--show-toplevel", "HEAD").split()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    if Path(top).resolve() != root.resolve():
        return ""  # An sdist that was unpacked within somebody else's.
    return head[:12] + (" with changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10.0, check=True
    ).stdout


def read_run(path: Path) -> dict[str, Any]:
    """The run.json of a directory. Raises OSError, ValueError."""
    run: dict[str, Any] = json.loads((path / "run.json").read_text("utf-8"))
    return run
