"""What of `redlock/core` the simulator reaches: `python -m chaos sim --cover`.

Runs in a process of its own, because what is imported before the measuring begins counts as never
reached. Exit status 0 if every line and enough branches are reached, 1 if not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import coverage

__all__ = ["BRANCHES_MIN", "main", "measure"]

SEEDS = 24
"""Of each workload; 20 reach every line, and 97.7 % of the branches."""
BRANCHES_MIN = 95.0
_CORE = Path(__file__).parents[2] / "redlock" / "core"
_ARGUMENTS = [_CORE / name for name in ("policy.py", "timings.py", "candidate.py", "oust.py")]
"""Not asked for: they refuse arguments before there is a client, and a search makes only clients
that can work. Nor what only an operator runs, who takes a lock away by force."""
_UNREACHABLE = [r"if TYPE_CHECKING:", r"raise NotImplementedError", r"\(Protocol\):"]
"""What no run can reach: it is for the type checker, or says so itself."""


def main() -> int:
    """Print the table; 0 if every line and enough branches are reached."""
    lines, branches, cover = measure(SEEDS)
    cover.report(show_missing=True, file=sys.stdout)
    sys.stdout.write(f"\nlines {lines:.2f} %, branches {branches:.2f} %\n")
    return 0 if lines == 100.0 and branches >= BRANCHES_MIN else 1


def measure(seeds: int) -> tuple[float, float, coverage.Coverage]:
    """Per cent of lines and of branches that a search of *seeds* of each workload, and all
    regressions, reach."""
    cover = coverage.Coverage(
        data_file=None, branch=True, include=[f"{_CORE}/*"], omit=[*map(str, _ARGUMENTS)]
    )
    for pattern in _UNREACHABLE:
        cover.exclude(pattern)
    cover.start()
    try:
        _search(seeds)
    finally:
        cover.stop()
    totals = [
        cover._analyze(str(path)).numbers
        for path in sorted(_CORE.glob("*.py"))
        if path not in _ARGUMENTS
    ]
    lines = sum(numbers.n_statements for numbers in totals)
    branches = sum(numbers.n_branches for numbers in totals)
    missing = sum(numbers.n_missing for numbers in totals)
    partial = sum(numbers.n_missing_branches for numbers in totals)
    return 100.0 * (lines - missing) / lines, 100.0 * (branches - partial) / branches, cover


def _search(seeds: int) -> None:
    from chaos.sim.visits import search  # Not before the measuring has begun.

    search(seeds)


if __name__ == "__main__":
    sys.exit(main())
