"""A process that plays runs: it reads cases from its standard input, one a line, and writes what
came of each.

A rule that a control breaks stays broken until the process ends, so every control has processes of
its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from chaos.history import write_jsonl
from chaos.live.memories.breaks import break_rule
from chaos.live.memories.claims import CLAIMS
from chaos.live.memories.run import Case, Result, play
from chaos.live.memories.stage import Stage
from chaos.live.memories.ways import WAYS

__all__ = ["main", "summary"]


def summary(result: Result, journals: Path | None) -> dict[str, Any]:
    """What is told of a run; one that found something leaves its journal in *journals*."""
    case = result.case
    told = {
        "way": case.way,
        "api": case.api,
        "old": case.old,
        "seed": case.seed,
        "counts": result.counts,
        "grants": result.grants,
        "violations": result.violations,
        "lived": result.lived,
        "back": result.back,
        "problem": result.problem,
        "stuck": result.stuck,
        "journal": "",
    }
    if journals is not None and (result.violations or result.stuck):
        path = (
            journals / f"{case.way}-{case.api}-{'old' if case.old else 'fresh'}-{case.seed}.jsonl"
        )
        write_jsonl(path, result.history)
        told["journal"] = str(path)
    return told


def main() -> None:
    """Until the input ends. Arguments: where journals go ("" for nowhere), and a rule to break,
    if any."""
    journals = Path(sys.argv[1]) if sys.argv[1] else None
    for rule in sys.argv[2:]:
        break_rule(rule)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Or its servers would outlive it.
    stage: Stage | None = None
    try:
        for line in sys.stdin:
            case = Case(**json.loads(line))
            if case.way in CLAIMS:
                result = CLAIMS[case.way](case)
            else:
                stage = stage or Stage().__enter__()
                result = play(stage, WAYS[case.way], case)
            os.write(1, json.dumps(summary(result, journals)).encode() + b"\n")
    except BrokenPipeError:  # Nobody wants to know any more.
        pass
    finally:
        if stage is not None:
            stage.close()


if __name__ == "__main__":
    main()
