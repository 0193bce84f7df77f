"""Leaders of elections: one is made to lead, something befalls it, and then: what it is told, what
its ledger says, when the next one leads, and what a late write of its work comes to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from chaos.figures import duration
from chaos.history import Seen, Stopped
from chaos.live.directed.common import NODES, Watched, touched
from chaos.live.nemesis import (
    KilledClient,
    Nemesis,
    Ordered,
    StoppedClient,
    among,
    black_hole,
    lost_replies,
)
from chaos.live.play import Play
from chaos.live.scenario import Script
from redlock.core.events import (
    LeaseGranted,
    LeaseRenewed,
    TermEnded,
    TermStarted,
    TermStopped,
    TermStopping,
)

__all__ = [
    "believed_flag",
    "blocked",
    "broken_renewal",
    "closed",
    "crown",
    "cut_off",
    "hanging_replies",
    "hard_stop",
    "killed_leader",
    "loses",
    "misbehaves",
    "released_early",
    "resigns",
    "stopped",
    "unfit_candidate",
]

Fault = Callable[[str], Nemesis]
"""What befalls a leader, by its name."""

BUSY = 1.5
"""Seconds beyond its bound that a machine which runs other things may keep the next leader
waiting; `python -m chaos elections` measures the bound itself."""


def misbehaves(mood: str, label: str) -> Fault:
    """Its work does as `chaos.live.candidates.MOODS` has it."""
    return lambda leader: Ordered(
        clients=(leader,),
        label=label,
        order={"what": "work", "mood": mood},
        back={"what": "go_on"},
        says=mood if mood in ("hang", "block", "ignore") else "",
    )


def _ordered(label: str, what: str, back: str = "go_on") -> Fault:
    return lambda leader: Ordered(
        clients=(leader,), label=label, order={"what": what}, back={"what": back}
    )


blocked = misbehaves("block", "blocked work")
unfit_candidate = _ordered("unfit candidate", "unfit")
resigns = _ordered("resignation", "resign")
closed = _ordered("close under the work", "close")
broken_renewal = _ordered("dead renewal", "break_renewal", "mend_renewal")


def cut_off(leader: str) -> Nemesis:
    """Nothing passes between it and the nodes."""
    return black_hole(among([leader], NODES))


def hanging_replies(leader: str) -> Nemesis:
    """What it sends arrives and is done, and no answer comes."""
    return lost_replies(among([leader], NODES))


def stopped(leader: str) -> Nemesis:
    """SIGSTOP, SIGCONT."""
    return StoppedClient(clients=(leader,))


def crown(play: Play, name: str) -> TermStarted:
    """Have *name* elected, and everybody else stand behind it; its term, once it was renewed."""
    since = play.here()
    others = [other for other in play.members if other != name and play.members[other].alive]
    for done in [play.client(other).order("withdraw") for other in others]:
        done(30.0)
    play.client(name).do("stand")
    # One that led before is crowned without another election.
    started = _term_of(play, name) or play.event(TermStarted, name, since=since)
    for other in others:
        play.client(other).do("stand")
    play.renewed(name, since=since)
    assert isinstance(started, TermStarted)
    return started


def _term_of(play: Play, name: str) -> TermStarted | None:
    """The term that is under way, as far as *name* told."""
    current: TermStarted | None = None
    for record in play.journal.records():
        if isinstance(record, Seen) and record.client == name:
            if isinstance(record.event, TermStarted):
                current = record.event
            elif isinstance(record.event, TermStopping):
                current = None
    return current


def valid_until(play: Play, token: int) -> float:
    """The end of the validity behind a token, as far as renewed."""
    return max(
        record.event.valid_until
        for record in play.journal.records()
        if isinstance(record, Seen)
        and isinstance(record.event, LeaseGranted | LeaseRenewed)
        and record.event.fencing_token == token
    )


# Long: one order of events for all faults, told from its beginning to its end.
def loses(
    *faults: Fault,
    reason: str,
    error: str = "",
    leaders: tuple[str, ...] = ("c1", "c2"),
    releases: bool,
    zombie: bool = False,
    heals_first: bool = False,
) -> Script:
    """*faults* befall each of *leaders* in turn.

    *reason*, *error*: what its ledger must say of that; *releases*: whether it gives the lock back,
    which it may only where its work ended in time; *zombie*: its work writes when everything is
    over; *heals_first*: it is told only then.
    """

    def script(play: Play) -> None:
        for leader in leaders:
            term = crown(play, leader)
            if not play.phases:
                play.enter("before")
                play.last(0.3)
            _befalls(play, leader, term)
        play.enter("after")
        since = play.here()
        touched(play, *play.members, since=since)

    def _befalls(play: Play, leader: str, term: TermStarted) -> None:
        since, token = play.here(), term.fencing_token
        others = [name for name in play.members if name != leader]
        with ExitStack() as broken:
            for fault in faults:
                broken.enter_context(play.broken(fault(leader)))
            if len(play.phases) == 1:
                play.enter("during")
            if not heals_first:
                play.event(TermStopping, leader, since=since)
            following: TermStarted = play.event(
                TermStarted, since=since, where=lambda event: event.fencing_token > token
            )
            if zombie:
                touched(play, *others, since=since)
        stopping: TermStopping = play.event(TermStopping, leader, since=since)
        ended: TermEnded = play.event(TermEnded, leader, since=since)
        play.claim(f"its ledger says why: {reason}", stopping.reason == reason, stopping.reason)
        if error:
            play.claim("and with what error", error in ended.error, ended.error)
        # Unconfirmed where no answer comes.
        play.claim(
            "it gives the lock back" if releases else "it gives nothing back, and lets it expire",
            ended.released == releases,
            f"{ended.released}, {duration(ended.margin)} of validity left",
        )
        until = max(valid_until(play, token), stopping.at + play.ttl if _is_deaf(faults) else 0.0)
        _in_time(play, following, ended.at if releases else until)
        if zombie:
            wrote = play.note("wrote blindly", leader, since=since).text
            play.claim("the store refuses what its work writes then", wrote == "refused", wrote)
        elif not heals_first:
            worked: TermStopped = play.event(TermStopped, leader, since=since)
            play.claim(
                "its work had stopped while its lock was valid",
                worked.margin > 0,
                f"{duration(worked.margin)} were left",
            )

    return script


def _is_deaf(faults: tuple[Fault, ...]) -> bool:
    """Whether renewals are done on the nodes to the end, though nobody hears of it."""
    return hanging_replies in faults


def _in_time(play: Play, following: TermStarted, until: float) -> None:
    """*until*: when the lock became free, or its validity was over."""
    took = following.at - until
    drift = 0.02 * play.ttl
    play.claim(
        "the next one leads within its bound",
        took <= drift + 0.1 + BUSY,
        f"{following.candidate} {duration(took)} after the lock was free",
    )


def released_early(play: Play) -> None:
    """C6: the lock is given back as the work is told to stop, and the work goes on."""
    for leader in ("c1", "c2"):
        crown(play, leader)
        if not play.phases:
            play.enter("before")
        since = play.here()
        ignoring = misbehaves("ignore", "work that ignores the stop")(leader)
        with play.broken(ignoring), play.broken(resigns(leader)):
            play.event(TermStarted, since=since)
        play.event(TermEnded, leader, since=since)
    play.enter("after")


def believed_flag(play: Play) -> None:
    """C7: a leader whose renewal has died asks a flag whether it leads, and no clock."""
    for leader in ("c1", "c2"):
        crown(play, leader)
        if not play.phases:
            play.enter("before")
        since = play.here()
        with play.broken(broken_renewal(leader)):
            play.event(TermStarted, *(name for name in play.members if name != leader), since=since)
    play.enter("after")


def killed_leader(play: Play) -> None:
    """kill -9 of the leader: the next one comes when the lock has expired."""
    term = crown(play, "c1")
    play.enter("before")
    play.last(0.3)
    since = play.here()
    play.inflict(KilledClient(clients=("c1",)))
    play.enter("during")
    following: TermStarted = play.event(TermStarted, since=since)
    _in_time(play, following, valid_until(play, term.fencing_token))
    play.enter("after")
    touched(play, "c2", "c3", since=play.here())


def hard_stop(leader: str) -> Script:
    """S39b: work looks at nothing and hears nothing: its process ends before the next leader comes,
    and the lock is not given back."""

    def script(play: Play) -> None:
        _stops_hard(play, leader)
        play.enter("after")
        touched(play, *play.members, since=play.here())

    return script


def _stops_hard(play: Play, leader: str) -> None:
    term = crown(play, leader)
    play.enter("before")
    play.last(0.3)
    since = play.here()
    process = play.client(leader).process
    watched = Watched(process.pid)
    ignoring = misbehaves("ignore", "work that ignores the stop")(leader)
    with play.broken(ignoring), play.broken(cut_off(leader)):
        play.enter("during")
        stopping: TermStopping = play.event(TermStopping, leader, since=since)
        ended_at = watched.ends(play, "its process ends")
        process.wait()
        stopped = Stopped(ended_at, leader, play.resource, term.fencing_token, "hard stop")
        play.stopped(stopped)
        play.client(leader).spoilt = True
        following: TermStarted = play.event(
            TermStarted, since=since, where=lambda event: event.candidate != leader
        )
    left = valid_until(play, term.fencing_token) - ended_at
    play.claim("it was told to stop", stopping.reason == "renewal_failed", stopping.reason)
    play.claim("by the hard stop", process.returncode == 6, str(process.returncode))
    play.claim("while its lock is valid", left > 0, f"{duration(left)} were left")
    _in_time(play, following, valid_until(play, term.fencing_token))
    play.respawn(leader)
