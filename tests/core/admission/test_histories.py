"""Admission under histories that nobody wrote: whatever a node forgets, and whoever looks."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from redlock.core.admission import Admission, State
from redlock.core.commands import Mark
from redlock.core.identity import Identity, Marker, Memory
from tests.core.admission.clients import SILENT, WALL, client_of, finished, marker_of, tell_again
from tests.core.flows import identity_of


class Server:
    """A real node's data and memory: what it is called, its marker, its clock, and when it last
    forgot locks.

    It has some while it is marked for the memory that it has.
    """

    def __init__(self) -> None:
        self.runs = itertools.count(1)
        self.memory, self.started, self.forgot = Memory("run", "repl"), 0.0, float("-inf")
        self.marker = marker_of(1, 3, memory=self.memory).text()
        self.snapshot = self.marker

    def identity(self, at: float) -> Identity:
        return identity_of(
            1, 3, memory=self.memory, marker=self.marker, uptime=at - self.started, clock=WALL + at
        )

    def restart(self, at: float) -> None:
        """From the snapshot on its disk."""
        self.forget(at)
        self.memory, self.started = Memory(f"run{next(self.runs)}", f"repl{next(self.runs)}"), at
        self.marker = self.snapshot

    def promote(self, at: float) -> None:
        """Demoted, given its own old data back, and promoted; the server has forgotten that it
        was."""
        self.forget(at)
        self.memory = Memory(self.memory.run_id, f"repl{next(self.runs)}")

    def flush(self, at: float) -> None:
        self.forget(at)
        self.marker = ""

    def save(self, at: float) -> None:
        self.snapshot = self.marker

    def forget(self, at: float) -> None:
        marker = Marker.parse(self.marker)
        if marker is not None and marker.memory == self.memory:
            self.forgot = at

    def write(self, mark: Mark, at: float) -> str | None:
        expected, memory = map(str, mark.args[:2])
        if memory != self.memory.replication_id:
            return None
        if self.marker == expected:
            self.marker = finished(mark, at)
        return self.marker


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "look",
                "look",
                "look",
                "restart",
                "flush",
                "promote",
                "save",
                "lose sight",
                "new client",
            ]
        ),
        st.integers(0, 1),
        st.sampled_from([0.01, 1.0, 30.0, 62.3]) | st.floats(0.01, 65.0),
    ),
    max_size=25,
)


TWICE = [
    ("flush", 0, 1.0),
    ("look", 0, 0.01),
    ("look", 1, 1.0),
    ("look", 0, 62.3),
    ("flush", 0, 0.01),
    ("look", 1, 0.01),
]
"""One client's quarantine ends and the node votes; it is flushed again before the other client's
quarantine ends."""
OLD_BLANK = [
    *[
        ("flush", 0, 1.0),
        ("look", 0, 0.01),
        ("save", 0, 1.0),
        ("look", 0, 62.3),
        ("restart", 0, 100.0),
    ],
    *[("new client", 0, 0.01), ("look", 0, 0.01)],
]
"""A snapshot was taken while a blank stood; the node was marked and used since, and restarts
from it."""


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
@example(TWICE)
@example(OLD_BLANK)
def test_no_history_lets_a_node_vote_while_a_lock_it_forgot_can_be_valid(
    history: list[tuple[str, int, float]],
) -> None:
    """Whatever happens to the node, and whichever client looks when: votes come a max_ttl after
    the last loss, or later."""

    def meet(at: float) -> Admission:
        admission = client_of(3, nonce=lambda: f"{next(nonces)}")
        for node in (0, 2):
            admission.seen(node, identity_of(node, 3, clock=WALL + at), at)
        return admission

    nonces = itertools.count()
    clients, server, at = [meet(0.0), meet(0.0)], Server(), 1.0
    server.started = -1000.0
    for event, who, pause in history:
        at += pause
        admission = clients[who]
        if event == "lose sight":
            admission.failed(1, SILENT)
        elif event == "new client":
            clients[who] = meet(at)
        elif event == "look":
            admission.seen(1, server.identity(at), at)
            tell_again(admission, at)
            standing = admission.standing(1, at)
            while standing.mark is not None:
                stands = server.write(standing.mark, at)
                if stands is None:
                    admission.seen(1, server.identity(at), at)
                else:
                    admission.marked(1, standing.mark, stands, at)
                standing = admission.standing(1, at)
            # What take.lua looks at besides.
            if (
                standing.state is State.ADMITTED
                and standing.marker == server.marker
                and standing.memory == server.memory
            ):
                assert at >= server.forgot + 60.0
                marker = Marker.parse(server.marker)
                assert marker is not None
                assert marker.floor > 0 or server.forgot == float("-inf")
        else:
            getattr(server, event)(at)
