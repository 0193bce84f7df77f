"""Leaders and partitions: who sees whom, who steps down, and who is elected when."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.figures import duration
from chaos.live.directed.common import NODES, asked_at, find_leader, granted
from chaos.live.nemesis import (
    Nemesis,
    Paused,
    among,
    black_hole,
)
from chaos.live.play import Play
from chaos.live.scenario import Script

__all__ = ["holder_loses", "isolated_leader", "seen_by_nobody", "two_pauses"]


def holder_loses(*faults: Nemesis, during: float = 1.0) -> Script:
    """A majority goes while the lock is held: the holder knows in time, nobody is granted it,
    and it recovers."""

    def script(play: Play) -> None:
        leader = find_leader(play)
        play.enter("before")
        play.renewed(leader)
        play.last(0.5)
        since = play.here()
        with play.broken(*faults):
            play.enter("during")
            stopped = play.stepped_down(leader, since=since)
            play.last(during)
            since = play.here()
            play.leave()
        play.enter("after")
        play.granted(since=since)
        play.claim("the holder stopped in time", stopped, type(stopped).__name__)

    return script


def isolated_leader(nodes: Sequence[int], others: Sequence[int] = ()) -> Script:
    """The leader loses sight of *nodes*, and everybody else of *others*: it steps down before
    the next is elected."""

    def script(play: Play) -> None:
        leader = find_leader(play)
        candidates = [name for name in play.members if name != leader]
        play.enter("before")
        play.renewed(leader)
        faults = [black_hole(among([leader], nodes))]
        if others:
            faults.append(black_hole(among(candidates, others)))
        since = play.here()
        with play.broken(*faults):
            play.enter("during")
            stopped = play.stepped_down(leader, since=since)
            grant = play.granted(*candidates, since=since)
        play.enter("after")
        play.last(0.5)
        gap = grant.at - stopped.at
        play.claim(
            "the old leader stepped down, and then the next was elected",
            grant,
            f"{duration(gap)} later",
        )

    return script


def seen_by_nobody(clients: Sequence[str], nodes: Sequence[int], during: float = 2.5) -> Script:
    """S22: *clients* see only *nodes*, which is no majority: they get nothing, the others go on."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        lost = [number for number in NODES if number not in nodes]
        with play.broken(black_hole(among(clients, lost))):
            play.enter("during")
            since, began = play.here(), play.phases[-1].since
            play.last(during)
            others = [name for name in play.members if name not in clients]
            play.granted(*others, since=since, count=2)
            wrong = [
                record
                for record in granted(play)
                if record.client in clients and asked_at(play, record) > began
            ]
        play.enter("after")
        play.granted(*clients, since=play.here())
        play.claim("who sees no majority is granted nothing", not wrong, f"{len(wrong)} grants")

    return script


def two_pauses(node: int) -> Script:
    """S32: one node is stopped for less than the ttl, and then for more."""

    def script(play: Play) -> None:
        play.granted()
        play.enter("before")
        play.last(1.0)
        play.enter("during")
        for seconds in (0.4 * play.ttl, 2.2 * play.ttl):
            since = play.here()
            with play.broken(Paused(nodes=(node,))):
                play.last(seconds)
                play.granted(since=since)
            play.granted(since=play.here())
        play.enter("after")
        play.last(0.8)

    return script
