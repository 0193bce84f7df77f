"""What is printed while it is played: lines, and a strip for every second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from redlock.core.quorum import majority
from redlock.demo.crew import Worker
from redlock.demo.scene import DEAD, NODES, PAUSED, QUARANTINED, TTL, VOTES
from redlock.demo.verdict import History, Section, duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_SIGNS = {DEAD: "x", QUARANTINED: "q", PAUSED: "s"}
NODE_STYLES = {VOTES: "green", DEAD: "bold red", QUARANTINED: "bold yellow", PAUSED: "bold magenta"}
_STYLES = {"A": "cyan", "B": "yellow", "C": "magenta"}
_CELLS = 40


class Screen:
    """What the play prints, in order of time."""

    def __init__(self, console: Console, seconds: float, history: History) -> None:
        self._console = console
        self._seconds = seconds
        self._history = history
        self.phases: list[tuple[float, tuple[str, ...]]] = []
        """Since when the nodes have been what they are."""
        self._lines: list[tuple[float, int, RenderableType]] = []
        self._began_at = 0.0
        self._drawn = 0

    @property
    def strip_until(self) -> float:
        """The end of the second whose strip comes next."""
        return self._began_at + self._drawn + 1

    def begin(self, at: float, states: tuple[str, ...]) -> None:
        """The workers begin; times are counted from here."""
        self._began_at = at
        self.turn(at, states)

    def turn(self, at: float, states: tuple[str, ...]) -> None:
        """From *at* on the nodes are in *states*; in none at the end."""
        self.phases.append((at, states))

    def introduce(self, workers: Sequence[Worker]) -> None:
        """Who plays."""
        from rich.text import Text

        text = Text()
        text.append("redlock demo", "bold")
        text.append(
            f"   {NODES} servers, {len(workers)} worker processes, 1 lock, {self._seconds:g}"
            " seconds\n\n"
        )
        for worker in workers:
            text.append(f"  {worker.name} ", f"bold {_STYLES[worker.name]}")
            text.append(f" {worker.kind:9} pid {worker.process.pid}\n")
        text.append(
            "\n  Each takes the lock, reads a counter from a file, waits 20-80 ms, and writes\n "
            f" it back plus one. A majority is {majority(NODES)}; a crash blocks others for {TTL:g}"
            f" s at most.\n  Nodes: 1-{NODES} votes, x killed, q in quarantine, s stopped.\n"
        )
        self._console.print(text)

    def detail(self, section: Section) -> None:
        """A line on one grant."""
        from rich.text import Text

        text = Text()
        text.append(section.worker, f"bold {_STYLES[section.worker]}")
        text.append(
            f"  token {section.token}  waited {duration(section.granted_at - section.asked_at)}"
        )
        text.append(
            f"  vote {duration(section.granted_at - section.sent_at)}  held"
            f" {duration(section.until - section.granted_at)}"
        )
        self.line(section.granted_at, "", text)

    def line(self, at: float, style: str, what: str | Text) -> None:
        """Print *what* once its turn has come."""
        from rich.text import Text

        text = Text(f"{at - self._began_at:5.2f} s  ")
        text.append(what, style) if isinstance(what, str) else text.append_text(what)
        self._lines.append((at, len(self._lines), text))

    def draw(self, until: float) -> None:
        """Print what is complete by *until*: lines, and a strip for every second."""
        while self.strip_until <= until and self._drawn < self._seconds:
            self._drawn += 1
            self._flush(self._began_at + self._drawn)
            if self._drawn == 1:
                self._console.print(_strip_head(), style="dim", soft_wrap=True)
            self._console.print(self._strip(self._drawn - 1), soft_wrap=True)
        if until >= self._began_at + self._seconds:
            self._flush(until)

    def _flush(self, until: float) -> None:
        self._lines.sort(key=lambda line: line[:2])
        while self._lines and self._lines[0][0] <= until:
            self._console.print(self._lines.pop(0)[2], soft_wrap=True)

    def _strip(self, second: int) -> RenderableType:
        """One second, a letter for each 25 ms: who held the lock."""
        from rich.text import Text

        start = self._began_at + second
        size = 1.0 / _CELLS
        near = [
            section
            for section in self._history.sections[-400:]
            if _until(section) > start and section.granted_at < start + 1
        ]
        text = Text(f"{second + 1:5d} s  ")
        for sign, cells in groupby(
            _sign(near, start + cell * size, size) for cell in range(_CELLS)
        ):
            text.append(
                "".join(cells),
                (
                    f"black on {_STYLES[sign]}"
                    if sign in _STYLES
                    else "bold red"
                    if sign == "!"
                    else "dim"
                ),
            )
        granted = [section for section in near if section.granted_at >= start]
        text.append(
            f" {len(granted):6d} {max((section.token for section in near), default=''):>16}  "
        )
        states = [states for at, states in self.phases if at <= start + 1][-1]
        for number, state in enumerate(states, 1):
            text.append(_SIGNS.get(state, str(number)), NODE_STYLES[state])
        return text


def _until(section: Section) -> float:
    """The end of a section as far as it has one."""
    return float("inf") if section.ended_at is None else section.ended_at


def _sign(sections: Sequence[Section], start: float, size: float) -> str:
    """Whose the time from *start* on was, '.' if nobody's, '!' if two had it at once."""
    shares = {section.worker: 0.0 for section in sections}
    for section in sections:
        shares[section.worker] += max(
            0.0, min(_until(section), start + size) - max(section.granted_at, start)
        )
    if sum(shares.values()) > size * 1.001:
        return "!"
    worker = max(shares, key=lambda name: shares[name], default="")
    return worker if worker and shares[worker] >= 0.4 * size else "."


def _strip_head() -> str:
    return (
        f"   time  {'who holds the lock, a letter for 25 ms':{_CELLS}} grants {'last token':16} "
        " nodes"
    )


def plain_console() -> Console:
    """A console on stdout; a pipe or a log has no width that lines should break at."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console
