"""Plans that once found something, or that are too rare for random seeds: `chaos/regressions`, one
file each.

A file says in a line what it caught, names the planted bug that it finds, and the properties that
it finds broken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from chaos.sim.links import MODES
from chaos.sim.plan import Plan

__all__ = ["FOLDER", "Regression", "read", "regressions"]

FOLDER = Path(__file__).parent.parent / "regressions"


@dataclass(frozen=True, slots=True)
class Regression:
    """One file. *bug*: name of the planted bug that it finds, "" if it caught a defect of its own;
    *finds*: how.

    *modes*: in which it can happen.
    """

    name: str
    caught: str
    bug: str
    finds: tuple[str, ...]
    plan: Plan
    modes: tuple[str, ...]


def read(name: str) -> Regression:
    """The regression of that name, or in that file. Raises OSError, ValueError, TypeError."""
    path = Path(name)
    if not path.suffix:
        path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text("utf-8"))
    plan = Plan.parse(json.dumps(found["plan"]))
    modes = tuple(found.get("modes", MODES))
    return Regression(path.stem, found["caught"], found["bug"], tuple(found["finds"]), plan, modes)


def regressions() -> list[Regression]:
    """All of them, by name."""
    return [read(path.stem) for path in sorted(FOLDER.glob("*.json"))]
