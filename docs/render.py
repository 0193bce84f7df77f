"""Writes into docs/election.md what the code knows better: the table of states with its picture,
and the budget of the default times.

    python -m docs.render

Each part stands between two comments that name it. `tests/test_docs.py` holds the document to this.
"""

from __future__ import annotations

import re
from pathlib import Path

from redlock.core.election import TABLE, State
from redlock.core.timings import ElectionTimings

DOCUMENT = Path(__file__).parent / "election.md"
_PART = re.compile(r"(<!-- (\w+): by docs/render.py -->\n).*?(<!-- end of \2 -->\n)", re.DOTALL)


def states() -> str:
    """All that can happen to a candidate, as a table."""
    rows = (
        f"| {row.state} | {row.move.value} | {row.next} | {row.says.value if row.says else ''} |"
        for row in TABLE
    )
    return "\n".join(
        ("| in state | what happens | leads to | what is said |", "|---|---|---|---|", *rows)
    )


def picture() -> str:
    """The same, as a diagram."""
    rows = (f"    {row.state} --> {row.next}: {row.move.value}" for row in TABLE)
    first, last = f"    [*] --> {State.FOLLOWER}", f"    {State.CLOSED} --> [*]"
    return "\n".join(("```mermaid", "stateDiagram-v2", first, *rows, last, "```"))


def budget() -> str:
    """The budget of the default times, as a table."""
    rows = (f"| {name} | {seconds:.6g} |" for name, seconds in ElectionTimings().budget().items())
    return "\n".join(("| | seconds |", "|---|---|", *rows))


PARTS = {"states": states, "picture": picture, "budget": budget}


def rendered(text: str) -> str:
    """*text* with every part as it is now. Raises KeyError for one that nobody renders."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text("utf-8")), "utf-8")
