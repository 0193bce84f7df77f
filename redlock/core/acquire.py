"""Taking a lock: the Redlock algorithm with the ballot inside, as one flow that reads from top to
bottom.

One *try*: a fresh owner, a proposed token, TAKE to all nodes, decided at the q-th answer. Too small
a token on a majority: a second round with the same owner and a larger one. No majority: FREE
everywhere, back off, and look read-only before the next try, so that waiters neither disturb the
holder nor split the vote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redlock.core.ballot import outbid, propose
from redlock.core.commands import Canvass, Repair
from redlock.core.effects import NEVER, Flow, Request, Wait
from redlock.core.events import LeaseGranted, TryFailed, TryStarted
from redlock.core.grant import Grant
from redlock.core.lease import Holding, valid_until
from redlock.core.policy import ROUND_SHARE
from redlock.core.quorum import Kind, Tally
from redlock.core.roster import MAX_TTL_DEFAULT
from redlock.core.rounds import Cluster, Round, collect, meet, refuse_misfits
from redlock.errors import LockContended, QuorumUnavailable

__all__ = ["Acquisition", "acquire"]

ROUNDS_MAX = 3
"""Rounds of one try: after the second, whose token was beyond all that was told, only a race is
left to lose."""
_PAUSE_FIRST_SHARE = 8
"""The first pause is this part of `retry_delay`, each twice the last: most waits are short."""
_PAUSE_MIN = 0.001
"""Seconds: less is shorter than a round trip, and would be a spin."""


@dataclass(slots=True)
class Acquisition:
    """One call of acquire. *give_up_at*: lease clock, infinity to wait for ever; *once*: a single
    try; *max_hold*: see `Holding`.

    A candidate asks for more: *note* makes what nodes keep with a grant, of the wall clock in
    microseconds; *looked* hears what every round said, and the first one is a look then;
    *stand_back*: seconds that others have for a lock that is free before this one tries.
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
    granted: Holding | None = None


# Long: one try after another, in the order of the algorithm.
def acquire(cluster: Cluster, ask: Acquisition, now: float) -> Flow[Holding]:
    """Hold the lock, or raise: LockContended, QuorumUnavailable, ConfigurationError."""
    began_at = now
    if not cluster.met:
        now = yield from meet(cluster, now, ask.give_up_at)
        refuse_misfits(cluster, now)
        cluster.policy.check_ttl(ask.ttl, cluster.admission.max_ttl())
        cluster.met = cluster.admission.met(now)
    verdict: Tally | None = None
    pause = cluster.policy.retry_delay / _PAUSE_FIRST_SHARE
    look_first = ask.looked is not None
    free_since = NEVER
    while True:
        round: Round | None = None
        stand_until = NEVER
        if look_first:
            round, now = yield from _canvass(cluster, ask, now)
            if round.tally.free < round.tally.needed:
                free_since = NEVER
            else:
                free_since = now if free_since == NEVER else free_since
                stand_until = NEVER if ask.once else free_since + ask.stand_back
        if round is None or (free_since != NEVER and now >= stand_until):
            attempt = _Attempt(cluster, ask)
            round, now = yield from attempt.run(now)
            if ask.granted is not None:
                return ask.granted
        verdict = _judge(round, verdict, ask, now)
        if verdict.unavailable:
            refuse_misfits(cluster, now, since=began_at)
            cluster.policy.check_ttl(ask.ttl, cluster.admission.max_ttl())
        repairs = _repairs(cluster, ask, round.tally)
        if not ask.once and now < ask.give_up_at:
            until, pause = _pause(cluster, round.tally, pause, now)
            until = min(until, stand_until) if stand_until > now else until
            event = yield Wait(min(until, ask.give_up_at), repairs, pause=True)
            now = event.at
            look_first = True
        elif repairs:
            # Also for one who tries once: where everybody does, such a key would stay for ever.
            yield Wait(NEVER, repairs)
        if ask.once or now >= ask.give_up_at:
            verdict.elapsed = now - began_at
            raise (LockContended if verdict.contended else QuorumUnavailable)(verdict, ask.resource)


class _Attempt:
    """One try: the grant it asks for, its rounds, and what must be given back if it fails."""

    __slots__ = ("_ask", "_cluster", "_rounds", "_wanted")

    def __init__(self, cluster: Cluster, ask: Acquisition) -> None:
        self._cluster = cluster
        self._ask = ask
        # Fresh for every try: a release of try 1 that arrives late must not delete the lock of try
        # 2 (F17).
        owner = cluster.source.owner()
        token = propose(cluster.source, cluster.fences.last(ask.resource))
        note = ask.note(cluster.source.wall_us()) if ask.note is not None else ""
        keys = ask.resource, ask.lock_key, ask.fence_key
        self._wanted = Grant(*keys, owner, token, cluster.policy.fence_ttl, note)
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
            round = Round(cluster, wanted.take(ask.ttl), now, min(now + timeout, ends_at))
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
        return self._wanted.releases(nodes, unattended=unattended)


def _decided(tally: Tally) -> bool:
    """Won, or no token can win any more, or a larger token would."""
    if tally.granted >= tally.needed or not tally.raisable:
        return True
    return tally.lost and tally.granted + tally.behind >= tally.needed


def _classified(tally: Tally) -> bool:
    """Enough is known to tell somebody else's lock from nodes that cannot be reached."""
    return tally.contended or tally.unavailable


def _canvass(cluster: Cluster, ask: Acquisition, now: float) -> Flow[tuple[Round, float]]:
    """The pre-vote: ask all nodes whether the lock looks free, and write nothing."""
    until = min(now + cluster.policy.node_timeout_for(ask.ttl), ask.give_up_at)
    round = Round(cluster, Canvass(ask.lock_key, ask.fence_key), now, until)
    now = yield from collect(round, _looked, round.requests)
    cluster.fences.saw(ask.resource, max(round.tally.fences, default=0))
    if ask.looked is not None:
        ask.looked(round.tally, now)
    return round, now


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
    if freed_in is not None and not tally.free >= tally.needed and freed_in > 0:
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
