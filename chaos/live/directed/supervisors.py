"""Supervisors that are killed, or whose command does not listen: the command ends before anybody
else leads."""

from __future__ import annotations

from chaos.figures import duration
from chaos.history import Note
from chaos.live.directed.common import Watched, touched
from chaos.live.directed.elections import cut_off
from chaos.live.nemesis import Asked
from chaos.live.play import Play
from redlock.core.events import TermStarted

__all__ = ["deaf_command", "killed_supervisor"]


class _Command:
    """The command of c1's supervisor, from its beginning on."""

    def __init__(self, play: Play) -> None:
        since = play.here()
        play.client("c1").do("stand")
        pid, self.token = map(int, play.note("working", "c1", since=since).text.split())
        self.process = Watched(pid)
        touched(play, "c1", since=since)
        play.client("c2").do("stand")


def killed_supervisor(play: Play) -> None:
    """S38: kill -9 of the supervisor: its guard asks the command to stop, and kills it before the
    next one leads."""
    command = _Command(play)
    play.enter("before")
    play.last(0.3)
    since = play.here()
    killed = Asked(clients=("c1",), label="killed supervisor", order={"what": "kill"})
    play.inflict(killed)
    play.enter("during")
    asked = play.note("asked to stop", "c1", since=since)
    _ends_first(play, command, asked, since)


def deaf_command(play: Play) -> None:
    """S39: the supervisor cannot renew, and its command does not listen: it is killed before the
    next one leads."""
    command = _Command(play)
    play.enter("before")
    play.last(0.3)
    since = play.here()
    with play.broken(cut_off("c1")):
        play.enter("during")
        asked = play.note("asked to stop", "c1", since=since)
        told = play.note("supervisor", "c1", since=since)
        _ends_first(play, command, asked, since)
    said = "renewal_failed" in told.text or "not renewed" in told.text
    play.claim("its supervisor says why", said, told.text[:120])


def _ends_first(play: Play, command: _Command, asked: Note, since: int) -> None:
    ended_at = command.process.ends(play, "the command ends")
    following: TermStarted = play.event(TermStarted, "c2", since=since)
    play.enter("after")
    touched(play, "c2", since=since)
    left = following.at - ended_at
    play.claim(
        "the command has ended before the next one leads",
        left > 0 and following.fencing_token > command.token,
        f"asked at once or at its deadline, gone {duration(ended_at - asked.at)} later, and"
        f" {duration(left)} before the next term",
    )
