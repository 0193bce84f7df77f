"""Controls: the orders of events under which clients with a broken rule do what the checker must
find."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from chaos.live.backend import side_client
from chaos.live.directed.common import NODES, on_all, takes, uses, warm
from chaos.live.nemesis import (
    ClockMoved,
    Closed,
    KilledClient,
    among,
    black_hole,
)
from chaos.live.play import Play
from chaos.live.scenario import Script
from redlock.core.commands import FENCE_SUFFIX

__all__ = ["incr_token", "non_strict", "top_up", "top_up_refused", "unclaimed"]


@contextlib.contextmanager
def _unclaimed(play: Play) -> Iterator[None]:
    """What a control's script claims of a sound library does not count."""
    before = len(play.claims)
    try:
        yield
    finally:
        del play.claims[before:]


def unclaimed(script: Script) -> Script:
    """*script* for a control: its broken clients are judged by the checker alone."""

    def control(play: Play) -> None:
        with _unclaimed(play):
            script(play)

    return control


def incr_token(play: Play) -> None:
    """C1: counters that count failed tries too: c1's on {1, 2, 3} runs ahead of c2's on {3, 4,
    5}."""
    play.enter("before")
    warm(play, "c1", "c2")
    alone = play.inflict(black_hole(among(["c1"], (2, 3, 4, 5))))
    with side_client(play.cluster.node(1)) as node:
        while int(node.get(f"redlock:{play.resource}{FENCE_SUFFIX}") or 0) < 4:
            takes(play, "c1", timeout=0.0)
    play.heal(alone)
    play.inflict(Closed(links=among(["c1"], (4, 5))))
    play.enter("during")
    takes(play, "c1", timeout=5.0)
    uses(play, "c1")
    play.client("c1").do("release")
    play.inflict(Closed(links=among(["c2"], (1, 2))))
    takes(play, "c2", timeout=10.0)
    uses(play, "c2")
    play.enter("after")


def non_strict(play: Play) -> None:
    """C2: both learnt the same fence, both propose the next number, and nodes take it twice."""
    play.enter("before")
    for client in ("c1", "c2"):  # Behind, so that both propose from the fence.
        play.client(client).step_wall_clock(-3600.0)
    takes(play, "c3")
    for client in ("c1", "c2"):
        takes(play, client, timeout=0.0)  # Contended: the answer tells the fence.
    play.client("c3").do("release")
    play.enter("during")
    takes(play, "c1", timeout=5.0)
    play.inflict(KilledClient(clients=("c1",)))  # It raises no fence by a release.
    play.until(lambda: not play.keys(), "the dead holder's lock to expire")
    takes(play, "c2", timeout=5.0)
    play.enter("after")


def top_up(play: Play) -> None:
    """C3: the lock vanished everywhere, somebody newer came and went; the old holder puts its
    lock back."""
    play.enter("before")
    takes(play, "c1")
    on_all(play, "c1")
    play.inflict(ClockMoved(nodes=NODES, seconds=30.0, lasting=True))
    play.enter("during")
    took = takes(play, "c2", timeout=2.0)
    uses(play, "c2")
    play.client("c2").do("release")
    extended = play.client("c1").do("extend")
    play.claim("the stage was set", took == "ok", took)
    play.claim("the old holder's extension succeeds", extended == "ok", extended)
    play.enter("after")


def top_up_refused(play: Play) -> None:
    """S41b: the same with sound clients: the extension proves that somebody newer has been."""
    play.enter("before")
    takes(play, "c1")
    on_all(play, "c1")
    play.client("c1").do("read")
    play.inflict(ClockMoved(nodes=NODES, seconds=30.0, lasting=True))
    play.enter("during")
    took = takes(play, "c2", timeout=2.0)
    uses(play, "c2")
    play.client("c2").do("release")
    extended = play.client("c1").do("extend")
    play.claim(
        "the old holder's extension is refused for good",
        took == "ok" and extended == "lost",
        extended,
    )
    wrote = play.client("c1").do("write")
    play.claim("and the store refuses it", wrote == "refused", wrote)
    play.enter("after")
