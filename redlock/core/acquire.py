"""Taking a lock: the Redlock algorithm with the ballot inside, as one flow that reads from top to
bottom.

One *try*: a fresh owner, a proposed token, TAKE to all nodes, decided at the q-th answer. Too small
a token on a majority: a second round with the same owner and a larger one. No majority: FREE
everywhere, back off, and look before the next try, so that waiters neither disturb the holder nor
split the vote. Who waits stands in a queue (`redlock.core.line`) that the nodes keep: a try enters
it where it cannot take the lock, and only whoever is first there may take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from redlock.core.ballot import outbid, propose
from redlock.core.commands import Canvass, Leave, Repair
from redlock.core.effects import NEVER, Flow, Request, Wait
from redlock.core.events import LeaseGranted, TryFailed, TryStarted
from redlock.core.grant import Grant
from redlock.core.lease import Holding, valid_until
from redlock.core.line import GIVE_WAY, LOOK_MAX, Place, look_after
from redlock.core.policy import ROUND_SHARE
from redlock.core.quorum import Fault, FaultKind, Kind, Tally, Vote
from redlock.core.roster import MAX_TTL_DEFAULT
from redlock.core.rounds import Cluster, Round, collect, meet, refuse_misfits
from redlock.errors import ConfigurationError, LockContended, QueueFull, QuorumUnavailable

# Long: the search for a try and the try itself, each of which goes by what the other was asked.
__all__ = ["Acquisition", "acquire"]

ROUNDS_MAX = 3
"""Rounds of one try: after the second, whose token was beyond all that was told, only a race is
left to lose."""
_PAUSE_FIRST_SHARE = 8
"""The first pause is this part of `retry_delay`, each twice the last: most waits are short."""
_PAUSE_MIN = 0.001
"""Seconds: less is shorter than a round trip, and would be a spin."""
_DOUBLINGS_MAX = 10
"""So often that pause is doubled where it is our turn and tries fail, at most to `retry_delay`."""


@dataclass(slots=True)
class Acquisition:
    """One call of acquire. *give_up_at*: lease clock, infinity to wait for ever; *once*: a single
    try; *max_hold*, *min_hold*: see `Holding`.

    A candidate asks for more: *note* makes what nodes keep with a grant, of the wall clock in
    microseconds; *looked* hears what every round said, and the first one is a look then;
    *stand_back*: seconds that others have for a lock that is free before this one tries;
    *label*: shown to whoever asks who waits; *witness*: it is looked also where the lock is said to
    be free, to hear what was left there; *wake* is set while it waits in line, and makes it look
    again, as when `give_up_at` was changed.
    *granted* is set inside the flow, before it ends, so that an interrupt on the way to the caller
    loses nothing.
    """

    resource: str
    lock_key: str
    fence_key: str
    ttl: float
    give_up_at: float
    once: bool
    max_hold: float | None = None
    note: Callable[[int], str] | None = None
    looked: Callable[[Tally, float], None] | None = None
    stand_back: float = 0.0
    min_hold: float | None = None
    label: str = ""
    witness: bool = False
    wake: Callable[[], object] | None = None
    granted: Holding | None = None


def acquire(cluster: Cluster, ask: Acquisition, now: float) -> Flow[Holding]:
    """Hold the lock, or raise: LockContended, QuorumUnavailable, QueueFull, ConfigurationError."""
    began_at = now
    if not cluster.met:
        now = yield from meet(cluster, now, ask.give_up_at)
        try:
            refuse_misfits(cluster, now)
            cluster.policy.check_ttl(ask.ttl, cluster.admission.max_ttl())
        except ConfigurationError as error:
            raise error.about(ask.resource) from None
        cluster.met = cluster.admission.met(now)
    search = _Search(cluster, ask, began_at)
    try:
        return (yield from search.run(now))
    except GeneratorExit:
        raise
    except BaseException:
        if search.entered:  # The next one is to have its turn at once, and not when this expires.
            yield Wait(NEVER, search.leaving())
        raise
    finally:
        if search.place is not None:
            cluster.lines.leave(search.place)


class _Search:
    """One call of acquire: tries, looks between them, and its place in the queue if it has one."""

    __slots__ = (
        "_ask",
        "_began_at",
        "_cluster",
        "_cut_off",
        "_failed",
        "_free_since",
        "_look_first",
        "_pause",
        "_stood",
        "_verdict",
        "entered",
        "place",
    )

    def __init__(self, cluster: Cluster, ask: Acquisition, began_at: float) -> None:
        self._cluster = cluster
        self._ask = ask
        self._began_at = began_at
        self._look_first = ask.looked is not None
        self._free_since = NEVER
        self._pause = cluster.policy.retry_delay / _PAUSE_FIRST_SHARE
        self._failed = 0
        """Tries in a row that failed though it was our turn."""
        self._stood = False
        """Others of this coordinator asked the nodes, while this one had no answer of its own."""
        self._verdict: Tally | None = None
        self._cut_off = False
        """The last round reached no majority. Who cannot take the lock stands in nobody's way: the
        nodes that it still reaches may be what others need."""
        self.place: Place | None = None
        self.entered = False
        """Whether nodes may know the place."""

    def leaving(self) -> tuple[Request, ...]:
        """Give up the place that was entered, on every node that may know it."""
        place = self.place
        assert place is not None
        leave = Leave(self._ask.lock_key, place.name)
        # Not for long: the place would have expired by itself.
        return tuple([Request(node, leave, place.due_at + 1.0) for node in self._cluster.everyone])

    def _join(self, now: float) -> None:
        """Stand in line from now on, in the order of coming."""
        cluster, ask = self._cluster, self._ask
        # Who stands back for others cannot stand in front of them.
        if not cluster.policy.fair or ask.once or ask.stand_back or self.place is not None:
            return
        place = cluster.lines.join(ask.lock_key, cluster.ticket(self._began_at), now, ask.label)
        if place is None:
            raise QueueFull(_unasked(cluster, "as many wait for this lock as may"), ask.resource)
        self.place = place
        ask.wake = place.ring

    # Long: one try after another, in the order of the algorithm.
    def run(self, now: float) -> Flow[Holding]:
        """Hold the lock, or raise."""
        cluster, ask = self._cluster, self._ask
        if self._look_first:
            self._join(now)
        elif cluster.lines.is_crowded(ask.lock_key, now) and cluster.policy.fair and not ask.once:
            self._join(now)
            self._look_first = True
            event = yield Wait(min(now + GIVE_WAY, ask.give_up_at), pause=True)
            now = event.at
        while True:
            place = self.place
            if place is not None:
                # Before the question: who leaves behind it rings, and ends the sleep.
                place.rung = False
                if not cluster.lines.is_first(place, now):
                    now = yield from self._stand(place, now)
                    self._look_first = True
                    continue
            round: Round | None = None
            stand_until = NEVER
            told = self._answer_bell()
            if self._look_first and (ask.witness or not told):
                round, now = yield from self._canvass(now)
                if round.tally.free < round.tally.needed:
                    self._free_since = NEVER
                else:
                    if self._verdict is None:  # By its first look: nobody else wanted it.
                        cluster.lines.calm(ask.lock_key)
                    self._free_since = now if self._free_since == NEVER else self._free_since
                    stand_until = NEVER if ask.once else self._free_since + ask.stand_back
            if round is None or (self._free_since != NEVER and now >= stand_until):
                attempt = _Attempt(cluster, ask, self._place_text(), freed=told)
                self.entered = place is not None
                round, now = yield from attempt.run(now)
                if ask.granted is not None:
                    return ask.granted
                self._failed += self._look_first
            else:
                self._failed = 0
            self._verdict = _judge(round, self._verdict, ask, now)
            if self._verdict.unavailable:
                refuse_misfits(cluster, now, since=self._began_at)
                cluster.policy.check_ttl(ask.ttl, cluster.admission.max_ttl())
            self._refuse_full(round.tally)
            if round.tally.busy:
                cluster.lines.crowd(ask.lock_key, now)
            repairs = _repairs(cluster, ask, round.tally)
            if not ask.once and now < ask.give_up_at:
                if place is None:
                    self._join(now)
                    place = self.place
                    if place is not None:
                        self._look_first = True
                        continue
                was_cut_off, self._cut_off = self._cut_off, round.tally.unavailable
                if was_cut_off and not self._cut_off and not self.entered:
                    self._look_first = True
                    continue  # Back in line, at once.
                until = self._next_at(round.tally, now)
                until = min(until, stand_until) if stand_until > now else until
                until = min(until, ask.give_up_at)
                # A try that failed in our turn is not repeated as fast as we are told again.
                bell = place if not self._failed else None
                if place is not None:
                    place.due_at = until
                if self._cut_off and self.entered:
                    repairs += self.leaving()
                    self.entered = False
                event = yield Wait(until, repairs, pause=True, bell=bell)
                now = event.at
                self._look_first = True
            elif repairs:
                # Also for one who tries once: where everybody does, such a key would stay for ever.
                yield Wait(NEVER, repairs)
            if ask.once or now >= ask.give_up_at:
                self._give_up(self._verdict, now)

    def _stand(self, place: Place, now: float) -> Flow[float]:
        """Wait while others of this coordinator are first; they ask the nodes."""
        self._stood = True
        if now >= self._ask.give_up_at:
            # Nobody asked for us yet: one look, for the reasons that the error tells.
            round, now = yield from _canvass(
                self._cluster, self._ask, now, now + self._cluster.patience
            )
            self._give_up(round.tally, now)
        until = min(now + LOOK_MAX, self._ask.give_up_at)
        event = yield Wait(until, pause=True, bell=place)
        return event.at

    def _answer_bell(self) -> bool:
        """Whether the lock was said to be free for us."""
        place = self.place
        if place is None:
            return False
        told, place.told, place.rung = place.told, False, False
        return told

    def _place_text(self) -> str:
        if self.place is not None:
            return self.place.text
        return "-" if self._cluster.policy.fair and not self._ask.stand_back else ""

    def _canvass(self, now: float) -> Flow[tuple[Round, float]]:
        place = self.place.text if self.place is not None and not self._cut_off else ""
        self.entered = bool(place) or self.entered
        until = now + self._cluster.policy.node_timeout_for(self._ask.ttl)
        if not self._stood or self._verdict is not None:
            until = min(until, self._ask.give_up_at)
        # Else others asked for us until now, and the error wants reasons.
        return _canvass(self._cluster, self._ask, now, until, place)

    def _next_at(self, tally: Tally, now: float) -> float:
        """When to look next, if nothing else comes before."""
        if self.place is None:
            until, self._pause = _pause(self._cluster, tally, self._pause, now)
            return until
        if self._failed:
            most = self._cluster.policy.retry_delay
            pause = min(_PAUSE_MIN * 2 ** min(self._failed, _DOUBLINGS_MAX), most)
        else:
            pause = look_after(now - self._began_at)
        until, _ = _pause(self._cluster, tally, pause, now)
        return until

    def _refuse_full(self, tally: Tally) -> None:
        full = sum(vote is not None and vote.full for vote in tally.votes)
        if full >= tally.needed and self.place is not None:
            raise QueueFull(tally, self._ask.resource)

    def _give_up(self, verdict: Tally, now: float) -> NoReturn:
        verdict.elapsed = now - self._began_at
        raise (LockContended if verdict.contended else QuorumUnavailable)(
            verdict, self._ask.resource
        )


class _Attempt:
    """One try: the grant it asks for, its rounds, and what must be given back if it fails."""

    __slots__ = ("_ask", "_cluster", "_freed", "_rounds", "_wanted")

    def __init__(
        self, cluster: Cluster, ask: Acquisition, place: str, *, freed: bool = False
    ) -> None:
        self._cluster = cluster
        self._ask = ask
        self._freed = freed
        # Fresh for every try: a release of try 1 that arrives late must not delete the lock of try
        # 2 (F17).
        owner = cluster.source.owner()
        token = propose(cluster.source, cluster.fences.last(ask.resource))
        note = ask.note(cluster.source.wall_us()) if ask.note is not None else ""
        keys = ask.resource, ask.lock_key, ask.fence_key
        self._wanted = Grant(*keys, owner, token, cluster.policy.fence_ttl, note, place)
        self._rounds: list[Round] = []

    def run(self, now: float) -> Flow[tuple[Round, float]]:
        """Run the try's rounds; on success `ask.granted` is set, otherwise everything was given
        back."""
        try:
            round, now = yield from self._vote(now)
            if self._ask.granted is None:
                now = yield from self._give_up(round, now)
                # The clocks, and not the fence that our own first token left behind.
                if not round.tally.busy:
                    round = next((each for each in self._rounds if each.tally.torn), round)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled, Ctrl-C, anything: nothing of ours may stay behind that nobody knows of.
            self._ask.granted = None
            yield Wait(NEVER, self._releases(unattended=True))
            raise
        return round, now

    def _vote(self, now: float) -> Flow[tuple[Round, float]]:
        cluster, ask, policy = self._cluster, self._ask, self._cluster.policy
        timeout = policy.node_timeout_for(ask.ttl)
        # A third of the ttl: longer tries could straddle a whole quarantine and end with a smaller
        # token (docs/protocol.md 9.4).
        ends_at = min(now + ask.ttl / ROUND_SHARE, ask.give_up_at)
        while True:
            sent_at, wanted = now, self._wanted
            until = min(now + timeout, ends_at)
            round = Round(cluster, wanted.take(ask.ttl), now, until, freed=self._freed)
            self._rounds.append(round)
            if cluster.emit:
                cluster.emit(
                    TryStarted(now, wanted.resource, wanted.owner, wanted.token, len(self._rounds))
                )
            now = yield from collect(round, _decided, round.requests, majority=True)
            tally = round.tally
            until = valid_until(sent_at, ask.ttl, policy.drift_factor)
            if tally.won:
                # Read after the deciding reply: a pause before it must not count as validity (F12).
                if now < until:
                    self._grant(sent_at, until, now)
                else:
                    tally.late = True
                return round, now
            too_small = tally.behind > 0 and tally.granted + tally.behind >= tally.needed
            if not too_small or now >= ends_at or len(self._rounds) == ROUNDS_MAX:
                return round, now
            self._wanted = wanted.under(outbid(cluster.source, wanted.token, tally.votes))

    def _grant(self, sent_at: float, until: float, now: float) -> None:
        ask, cluster, grant = self._ask, self._cluster, self._wanted
        touched = cluster.everyone
        unwritten = [request for request in self._rounds[0].sent if not request.written]
        if unwritten or len(self._rounds) > 1:
            written = {
                request.node for round in self._rounds for request in round.sent if request.written
            }
            touched = frozenset(written) if len(written) < len(touched) else touched
        cluster.fences.saw(grant.resource, grant.token)
        holding = Holding(grant, ask.ttl, now, until, touched)
        if ask.max_hold is not None:
            holding.limit(ask.max_hold)
        holding.kept_until = now + (ask.min_hold or float("-inf"))
        if cluster.emit:
            cluster.emit(
                LeaseGranted(
                    now, grant.resource, grant.owner, grant.token, sent_at, holding.valid_until
                )
            )
        ask.granted = holding

    def _give_up(self, round: Round, now: float) -> Flow[float]:
        """Give back at once, then wait only for what tells contention from an outage."""
        cluster, wanted, tally = self._cluster, self._wanted, round.tally
        cluster.fences.saw(wanted.resource, max([wanted.token + 1, *tally.fences]))
        releases = self._releases()
        if releases:
            yield Wait(NEVER, releases)
        if not (round.timed_out or _classified(tally)):
            round.ask_no_more()
            now = yield from collect(round, _classified, ())
        if cluster.emit:
            cluster.emit(
                TryFailed(now, wanted.resource, wanted.owner, wanted.token, tally.describe())
            )
        return now

    def _releases(self, *, unattended: bool = False) -> tuple[Request, ...]:
        """FREE for every node that may have executed a TAKE of this try, silent ones too: a lost
        reply may hide a grant.

        On the connections that carried the TAKEs, so that a node which stalls runs them in that
        order.
        """
        nodes: set[int] = set()
        for round in self._rounds:
            for request in round.sent:
                if request.written and request not in round.settled:
                    nodes.add(request.node)
                # Also one that was written: a server that lost the script would get it behind its
                # release.
                request.withdraw()
        return self._wanted.releases(nodes, unattended=unattended, failed=True)


def _decided(tally: Tally) -> bool:
    """Won, or no token can win any more, or a larger token would."""
    if tally.granted >= tally.needed or not tally.raisable:
        return True
    return tally.lost and tally.granted + tally.behind >= tally.needed


def _classified(tally: Tally) -> bool:
    """Enough is known to tell somebody else's lock from nodes that cannot be reached."""
    return tally.contended or tally.unavailable


def _canvass(
    cluster: Cluster, ask: Acquisition, now: float, until: float, place: str = ""
) -> Flow[tuple[Round, float]]:
    """The pre-vote: ask all nodes whether the lock looks free, and write nothing but a *place*."""
    round = Round(cluster, Canvass(ask.lock_key, ask.fence_key, place=place), now, until)
    now = yield from collect(round, _looked, round.requests)
    cluster.fences.saw(ask.resource, max(round.tally.fences, default=0))
    if ask.looked is not None:
        ask.looked(round.tally, now)
    return round, now


def _unasked(cluster: Cluster, why: str) -> Tally:
    tally = Tally(cluster.names)
    for node in range(len(cluster.names)):
        fault = Fault(FaultKind.SATURATED, f"was not asked: {why}")
        tally.cast(node, Vote(Kind.FAULT, fault=fault))
    return tally


def _looked(tally: Tally) -> bool:
    return tally.free >= tally.needed or (
        tally.free + tally.pending < tally.needed and _classified(tally)
    )


def _judge(round: Round, before: Tally | None, ask: Acquisition, now: float) -> Tally:
    """The tally that explains the failure: this round's, unless the caller's own deadline cut it
    short."""
    return before if before is not None and now >= ask.give_up_at else round.tally


def _pause(cluster: Cluster, tally: Tally, pause: float, now: float) -> tuple[float, float]:
    """Until when to wait before the next look, and the pause after that: jittered, doubling to
    retry_delay."""
    jittered = pause * (0.5 + cluster.source.below(1024) / 2048)
    freed_in = tally.freed_in()
    if freed_in is None:
        # Free on some nodes, where it is another's turn: look when it ends on those that have it.
        ends = [vote.ttl_left for vote in tally.votes if vote and vote.ttl_left is not None]
        freed_in = max(ends) if ends and min(ends) >= 0 else None
    # Also 0: a lock in its last millisecond, which is where a look at the end of its time lands.
    if freed_in is not None and tally.granted + tally.free + tally.behind < tally.needed:
        jittered = min(jittered, freed_in)
    return now + max(jittered, _PAUSE_MIN), min(pause * 2, cluster.policy.retry_delay)


def _repairs(cluster: Cluster, ask: Acquisition, tally: Tally) -> tuple[Request, ...]:
    """On request: an expiry for lock keys that have none, left behind by a client that died
    between SETNX and EXPIRE."""
    if not cluster.policy.repair_missing_ttl:
        return ()
    stuck = [
        node
        for node, vote in enumerate(tally.votes)
        if vote is not None
        and vote.kind is Kind.BUSY
        and vote.ttl_left is not None
        and vote.ttl_left < 0
    ]
    if not stuck:
        return ()
    repair = Repair(ask.lock_key, ttl=cluster.admission.max_ttl() or MAX_TTL_DEFAULT)
    return tuple(Request(node, repair, float("inf")) for node in stuck)
