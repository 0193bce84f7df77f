"""The election as a workload: candidates that do the steps of the shipped script, as the drivers of
threads and of tasks do, and an audit of what only the simulator sees.

A candidate is one actor of a client. What its `eligible`, its callbacks and its work do is drawn,
or said by a plan: they take their time, raise, return, hang, and hear of the stop late or never.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from chaos.history import Answered, Hook, Led, Stood, Stopped
from chaos.sim.workloads import CALLS, QUIET, WORKLOADS, Actor, Doze, Script
from chaos.sim.world import World
from redlock.core.acquire import Acquisition
from redlock.core.candidate import Candidate, leader_of
from redlock.core.effects import Cancelled
from redlock.core.election import (
    Begin,
    Campaign,
    Candidacy,
    Eligible,
    Finish,
    Pause,
    Release,
    State,
    Step,
    Work,
    lead,
)
from redlock.core.events import TermRecord, TermStarted
from redlock.core.lease import Holding
from redlock.core.look import who_leads
from redlock.core.names import keys_of
from redlock.core.term import SUSPEND_MIN, Mandate, Reason, TermWatch
from redlock.core.timings import ElectionTimings
from redlock.errors import (
    AcquireError,
    CandidateUnfit,
    ConfigurationError,
    LeadershipLost,
    RedlockError,
)

__all__ = ["Habits", "SimCandidate", "Stand", "Turns", "elect"]

ELECTION = "r"
"""Of the lock that all workloads take, so that what is done to it is done to the election."""
TOLD_WITHIN = 0.01
LOOK_AGAIN = 1.0
"""Timers sleep through a suspend, and look again after a second."""
ENDS_WITHIN = 0.1
"""Seconds from a resignation to the end of a campaign: a few trips through a healthy network."""
LEADS_WITHIN = 10.0
"""Seconds in which somebody must lead after all was healed, or after a leader has gone."""

Steps = Generator[Any, Any, Any]


class Interrupt(BaseException):
    """A Ctrl-C, or a cancel, that comes out of what a candidate does."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How a candidate stands. *timings*: those of its `ElectionTimings` that are not derived;
    *timeout*: of a campaign, 0: a single try; *kills*: what overran is stopped by ending the
    process; *shy*: it resigns for good as soon as its ledger says that it leads."""

    again: float | None = 0.1
    timings: tuple[tuple[str, float], ...] = ()
    timeout: float | None = None
    lock_delay: float = 0.0
    stand_back: float = 0.0
    stall_timeout: float | None = None
    checks: bool = True
    kills: bool = True
    shy: bool = False


@dataclass(frozen=True, slots=True)
class Habits:
    """What a candidate does in one term, in seconds. *asks*: what `eligible` takes; *starts*,
    *stops*: the callbacks; *acts*: from one thing that the work does to the next; *works*: until it
    returns by itself; *winds*: from the stop until it ends, *deaf*: and hears of it no sooner;
    *ticks*: whether it says that it goes on. *ensures*: whether it leaves by `ensure_leader`.
    *fails*: which of "on_started", "work", "on_stopped"
    raises."""

    asks: float = 0.0
    starts: float = 0.0
    stops: float = 0.0
    acts: float = 0.1
    works: float = float("inf")
    winds: float = 0.02
    ticks: bool = True
    fails: str = ""
    ensures: bool = False


CALM = Habits(asks=0.002, starts=0.002, stops=0.002, acts=0.05)
"""What everybody does when all is healed."""


@dataclass(slots=True)
class Causes:
    """What may have ended a term, as far as it was done to it. *renewed_at*: when it could last be
    renewed."""

    slept_for: float
    paused_for: float
    began_at: float
    asked: bool = False
    failed: bool = False
    returned: bool = False
    unfit: bool = False
    progress_at: float = field(default=float("inf"))


class SimCandidate:
    """One candidate: an actor that does the steps of `lead`."""

    def __init__(self, actor: Actor, stand: Stand, habits: Callable[[], Habits]) -> None:
        client = actor.client
        self.actor = actor
        self.stand = stand
        self.name = f"{client.name}:{len(client.candidates)}"
        self.retired = False
        """Whether it is to stand no more."""
        self.unfit_until = self.mute_until = self.hung_until = 0.0
        self._habits = habits
        self._fails: Exception | BaseException | None = None
        self._returns = False
        self._resigned_at: float | None = None
        self._closed = False
        self._campaigning = self._idle = False
        self._interruptible = False
        self._causes = Causes(0.0, 0.0, 0.0)
        self._mandate: Mandate | None = None
        self._holding: Holding | None = None
        self._asked_at = float("inf")
        """When it was asked whether it is fit, and has not answered."""
        self._kill_at = 0.0
        """When the work must have ended, as of when it was told to stop."""
        self.candidate = Candidate(self.name, {"client": client.name})
        policy = client.policy
        try:
            timings = ElectionTimings(ttl=policy.ttl, **dict(stand.timings)).under(policy)
        except ConfigurationError:
            timings = ElectionTimings(ttl=policy.ttl).under(policy)
        self.candidacy = Candidacy(
            ELECTION,
            self.name,
            timings,
            self,
            slept=lambda: client.slept_for,
            checks=stand.checks,
            lock_delay=stand.lock_delay,
            stall_timeout=stand.stall_timeout,
        )
        self.habits = habits()
        client.candidates.append(self)
        actor.interrupt = self._interrupt

    @property
    def world(self) -> World:
        return self.actor.client.world

    def _wrong(self, name: str, text: str) -> None:
        self.actor.wrongs.append((self.world.now, name, text))

    # What is done to it

    def resign(self) -> None:
        """As `Election.resign`."""
        self.actor.client.when_awake(self._resign)

    def retire(self) -> None:
        """The same, and it does not stand again."""
        self.retired = True
        self.resign()

    def close(self) -> None:
        """Its coordinator is closed; the process is awake."""
        self._closed = self.retired = True
        self._resign()

    def _resign(self) -> None:
        client = self.actor.client
        if self._resigned_at is None:
            self._resigned_at = self.world.now
        self._causes.asked = True
        if self._closed:
            self.candidacy.close(client.clock())
        else:
            self.candidacy.resign(client.clock())
        self._break_off()

    def _break_off(self) -> None:
        """A resignation interrupts whatever campaigns or waits."""
        if self._campaigning:
            self.actor.give_up()
        elif self._idle:
            self.actor.wake()

    def fail(self, how: str) -> None:
        """Its work ends: by an "error", an "interrupt", or it "return"s."""
        if how == "return":
            self._returns = True
        else:
            self._fails = RuntimeError("the work failed") if how == "error" else Interrupt()
        # Also where there is no work, and it waits for something else.
        self.actor.client.when_awake(self.actor.wake)

    def _interrupt(self) -> bool:
        if self._interruptible:
            self.fail("interrupt")
        return self._interruptible

    @property
    def over(self) -> bool:
        """Whether a close need not wait for it: it has no term, or one that will not be given
        back."""
        mandate = self.candidacy.mandate
        if self.actor.finished or mandate is None:
            return not self._campaigning
        if self.actor.client.clock() < mandate.kill_at:
            return False
        self.actor.client.dropped.add(mandate.holding)
        return True

    # What the candidacy says

    def record(self, record: TermRecord) -> None:
        """Into the ledger."""
        self.actor.client._note(record)
        if self.stand.shy and isinstance(record, TermStarted):
            self.retired = True
            self._resign()

    def report(self, error: Exception) -> None:
        """Into the trace."""
        self.world.note(self.name, "Failed", str(error))

    def stop(self, mandate: Mandate) -> None:
        """The work is told; and whether that was due, and in time, is noted."""
        client, causes = self.actor.client, self._causes
        self._judge_reason(mandate, causes)
        self._kill_at = mandate.holding.valid_until - self.candidacy.timings.kill_before
        late = self.world.now - max(self._stop_due(mandate), client.paused_until)
        slept = client.slept_for > causes.slept_for or self._slept_before(causes)
        allowed = TOLD_WITHIN + (LOOK_AGAIN if slept else 0.0)
        if late > allowed:
            text = f"{self.name} (token {mandate.holding.token}) was told {late:.3f} s late"
            self._wrong("E2: a leader is told in time", text)
        if self.stand.kills and self._mandate is mandate:
            client.arm(self._kill_at, self._kill, mandate)
        self.actor.wake()

    def ask_fitness(self, mandate: Mandate) -> None:
        """The answer comes in a while, or never."""
        self._asked_at = self.actor.client.clock()
        if self.world.now < self.mute_until:
            self._causes.unfit = True
            return
        takes = self.habits.asks
        if takes >= self.candidacy.timings.renewal * 0.9:
            self._causes.unfit = True
        when = self.world.now + takes
        self.world.at(when, self.actor.client.when_awake, self._answer, mandate)

    def _answer(self, mandate: Mandate) -> None:
        self._asked_at = float("inf")
        fit = self.world.now >= self.unfit_until
        if not fit:
            self._causes.unfit = True
        client, token = self.actor.client, mandate.holding.token
        self.world.history.append(Answered(self.world.now, client.name, ELECTION, token, fit))
        self.candidacy.fitness(mandate, fit, client.clock())

    def _stop_due(self, mandate: Mandate) -> float:
        """The true instant at which it had to stop, whatever the mandate says."""
        stop_at = mandate.holding.valid_until - self.candidacy.timings.stop_before
        if self.stand.stall_timeout is not None:
            stop_at = min(stop_at, self._causes.progress_at + self.stand.stall_timeout)
        return self.actor.client.true_time(stop_at)

    def _kill(self, mandate: Mandate) -> None:
        """What has not ended by then is stopped by force: its process is."""
        client = self.actor.client
        if mandate.drained_at is not None or client.dead:
            return
        token = mandate.holding.token
        client.world.note(client.name, "Killed", f"is killed: token {token} has not ended")
        client.world.history.append(Stopped(self.world.now, client.name, ELECTION, token, "killed"))
        client.kill()

    def _may_renew(self, mandate: Mandate, now: float) -> bool:
        unanswered = now > self._asked_at + self.candidacy.timings.renewal
        may = self.candidacy.renewing(mandate, now)
        if may and (unanswered or self._stalled(now)):
            why = "nobody said that it is fit" if unanswered else "its work stalled"
            text = f"{self.name} (token {mandate.holding.token}) was renewed, and {why}"
            self._wrong("E7: who must not lead is not renewed", text)
        return may

    def _stalled(self, now: float) -> bool:
        limit = self.stand.stall_timeout
        return limit is not None and now >= self._causes.progress_at + limit

    def _slept_before(self, causes: Causes) -> bool:
        """Whether its machine slept just before the term: the wake that renews may have been set
        before that, and is late by as much as every other."""
        client = self.actor.client
        return client.slept_for > 0 and causes.began_at < client.paused_until + LOOK_AGAIN

    def _judge_reason(self, mandate: Mandate, causes: Causes) -> None:
        """E8: the reason is one of those that there were."""
        client, reason, now = self.actor.client, mandate.reason, self.actor.client.clock()
        slept = client.slept_for - causes.slept_for > SUSPEND_MIN
        paused = client.paused_for > causes.paused_for
        world, led = self.world, self.candidacy.state is State.STEPPING_DOWN
        troubled = world.calm_since > causes.began_at or world.lossy or paused or client.starved
        possible = {
            Reason.RESIGNED: causes.asked or causes.failed,
            Reason.CLOSED: self._closed,
            Reason.WORK_ENDED: causes.returned,
            Reason.UNFIT: causes.unfit or not led or paused,  # Or the answer came no further.
            Reason.STALLED: self._stalled(now),
            Reason.SUSPENDED: slept,
            Reason.EXPIRED: paused or not led or self._slept_before(causes),
            Reason.RENEWAL_FAILED: bool(troubled),
            Reason.CONTENDED: world.broken_at > 0.0,
        }
        if reason is None or not possible[reason] or (slept and reason is not Reason.SUSPENDED):
            text = f"{self.name} (token {mandate.holding.token}) ended: {reason}"
            self._wrong("E8: the reason is what happened", text)

    # Its steps

    def live(self) -> Script:
        """Stand, again and again, until it is retired."""
        actor = self.actor
        while not self.retired and not actor.client.gone:
            yield actor.draw() * self.candidacy.timings.ttl * 0.2
            if self.retired or actor.client.gone:
                break
            try:
                yield from self.lead()
            except (RedlockError, Cancelled, Interrupt) as error:
                self._judge_end(error)

    def lead(self) -> Steps:
        """One call of `run`: do the steps of the shipped script to their end."""
        client = self.actor.client
        if self._resigned_at is not None:  # Before it stood, and that is heard.
            self._resigned_at = self.world.now
        stood = Stood(self.world.now, client.name, ELECTION, self.name, self.stand.lock_delay)
        self.world.history.append(stood)
        script = lead(self.candidacy, self._ask, client.clock(), again=self.stand.again)
        try:
            step = next(script)
            while True:
                try:
                    value = yield from self._do(step)
                except (RedlockError, Cancelled, Interrupt) as error:
                    step = script.throw(error)
                else:
                    step = script.send((client.clock(), value))
        except StopIteration:
            self._judge_end(None)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """What was not given back expires by itself."""
        holding, self._holding = self._holding, None
        if holding is not None and not holding.freed:
            self.actor.client.dropped.add(holding)
            self.actor.forget(holding)

    def _judge_end(self, error: BaseException | None) -> None:
        """E6, E10: a candidate ends because it was told to, and then at once; or by an error that
        it may have."""
        resigned, stand = self._resigned_at is not None, self.stand
        self._resigned_at = None
        if error is None and not resigned and stand.again is not None:
            self._wrong("E6: a candidate campaigns on", f"{self.name} ended, and nobody told it to")
        if isinstance(error, AcquireError | CandidateUnfit) and stand.timeout is None:
            text = f"{self.name} gave up, and had all the time: {error!r}"
            self._wrong("E6: a candidate campaigns on", text)

    def _ask(self) -> Acquisition:
        client, stand = self.actor.client, self.stand
        keys, timeout = keys_of(client.policy.key_prefix, ELECTION), stand.timeout
        give_up_at = float("inf") if not timeout else client.clock() + timeout
        return Acquisition(
            ELECTION,
            *keys,
            self.candidacy.timings.ttl,
            give_up_at,
            timeout == 0,
            note=self.candidate.note,
            looked=self.candidacy.predecessor.saw,
            stand_back=stand.stand_back,
            label=self.name,
        )

    def _do(self, step: Step) -> Steps:
        match step:
            case Eligible():
                return (yield from self._eligible())
            case Campaign(ask=ask):
                return (yield from self._campaign(ask))
            case Pause(until=until):
                yield from self._wait(until)
            case Begin(mandate=mandate):
                return (yield from self._run(mandate, "on_started", self._begin))
            case Work(mandate=mandate):
                return (yield from self._run(mandate, "work", self._work))
            case Finish(mandate=mandate):
                yield from self._run(mandate, "on_stopped", self._finish)
            case Release(mandate=mandate):
                return (yield from self._release(mandate))
        return None

    def _wait(self, until: float) -> Steps:
        """As long as it takes, or until something ends it."""
        if self.candidacy.resigning:
            return
        self._idle = True
        try:
            yield Doze(until)
        finally:
            self._idle = False
        self._judge_wait()

    def _judge_wait(self) -> None:
        """E10: a resignation interrupts."""
        if self._resigned_at is None:
            return
        client = self.actor.client
        late = self.world.now - max(self._resigned_at, client.paused_until)
        if late > ENDS_WITHIN:
            text = f"{self.name} went on for {late:.3f} s after it had resigned"
            self._wrong("E10: a resignation interrupts", text)

    def _eligible(self) -> Steps:
        if not self.stand.checks:
            return True
        client = self.actor.client
        yield Doze(client.clock() + self.habits.asks, breaks=False)
        while self.world.now < self.mute_until and not self.candidacy.resigning:
            yield from self._wait(client.clock() + self.mute_until - self.world.now + 0.001)
        return self.world.now >= self.unfit_until

    def _campaign(self, ask: Acquisition) -> Steps:
        client, candidacy = self.actor.client, self.candidacy
        self._let_go()
        self._campaigning = True
        try:
            if candidacy.resigning:
                return None
            holding: Holding = yield from self.actor.take(ask)
        except (RedlockError, Cancelled):
            self._judge_wait()
            if candidacy.resigning:
                return None
            raise
        finally:
            self._campaigning = False
        self._holding = holding
        # A close waits for the term, and leaves it alone.
        client.leases.pop(holding.owner, None)
        now = client.clock()
        self.habits = self._habits()
        if self.actor.healed:
            self.habits = CALM
        self._causes = Causes(client.slept_for, client.paused_for, self.world.now)
        self._asked_at = float("inf")
        mandate = candidacy.granted(holding, now)
        client.watch_term(
            TermWatch(
                mandate,
                lambda holding: None,
                partial(candidacy.look, mandate),
                partial(self._may_renew, mandate),
                now,
            )
        )
        return holding

    def _run(self, mandate: Mandate, call: str, make: Callable[[Mandate], Steps]) -> Steps:
        """Call *make*, and note when it began and ended; what it raised."""
        self._note_hook(mandate, call, over=False)
        self._mandate = mandate
        error: BaseException | None = None
        self._interruptible = call != "on_stopped"
        try:
            yield from make(mandate)
        except (Exception, Interrupt) as raised:
            error = raised
            self._causes.failed = True
        self._interruptible = False
        if call == "work" and error is None:
            self._causes.returned = True
        self._note_hook(mandate, call, over=True)
        self._claim(mandate)
        return error

    def _note_hook(self, mandate: Mandate, call: str, *, over: bool) -> None:
        client = self.actor.client
        hook = Hook(self.world.now, client.name, ELECTION, mandate.holding.token, call, over)
        self.world.history.append(hook)

    def _claim(self, mandate: Mandate) -> bool:
        """Ask the term whether it leads, and note what it says."""
        client = self.actor.client
        now = client.clock()
        if not mandate.leads(now):
            return False
        left = mandate.remaining(now)
        led = Led(self.world.now, client.name, ELECTION, mandate.holding.token, left)
        self.world.history.append(led)
        return True

    def _tick(self, mandate: Mandate) -> None:
        if self.habits.ticks:
            mandate.progress_at = self._causes.progress_at = self.actor.client.clock()

    def _begin(self, mandate: Mandate) -> Steps:
        self._fails, self._returns = None, False
        self._causes.progress_at = self.actor.client.clock()
        self._claim(mandate)
        yield Doze(self.actor.client.clock() + self.habits.starts, breaks=False)
        self._claim(mandate)
        self._raise("on_started")

    def _finish(self, mandate: Mandate) -> Steps:
        yield Doze(self.actor.client.clock() + self.habits.stops, breaks=False)
        self._raise("on_stopped")

    def _raise(self, call: str) -> None:
        if self._fails is not None:
            error, self._fails = self._fails, None
            raise error
        if call and self.habits.fails == call and not self.actor.healed:
            raise RuntimeError(f"{call} failed")

    def _work(self, mandate: Mandate) -> Steps:
        """Read, think and write while it leads; end soon after the stop."""
        client, store = self.actor.client, self.actor.store
        token = mandate.holding.token
        ends_at = client.clock() + self.habits.works
        while mandate.reason is None:
            if self.world.now < self.hung_until:
                left = self.hung_until - self.world.now
                yield Doze(client.clock() + left * client.rate, breaks=False)
                continue
            self._tick(mandate)
            before = None
            if self._claim(mandate):
                before = store.read(client.name, ELECTION, token)
            yield Doze(client.clock() + self.habits.acts * (0.5 + self.actor.draw()))
            if self._claim(mandate) and before is not None:
                store.write(client.name, ELECTION, token, before, before + 1)
            self._raise("work" if client.clock() >= ends_at else "")
            if self._returns or client.clock() >= ends_at:
                return
        if self.habits.ensures:
            raise LeadershipLost("the term has ended")
        self._claim(mandate)
        left = max(self.hung_until - self.world.now, 0.0)
        yield Doze(client.clock() + left * client.rate + self.habits.winds, breaks=False)

    def _release(self, mandate: Mandate) -> Steps:
        if mandate.drained_at is None or mandate.drained_at >= self._kill_at:
            text = f"{self.name} (token {mandate.holding.token}) is released, and had overrun"
            self._wrong("E4: released only when the work has ended", text)
        released = yield from self.actor.release(mandate.holding)
        return released


class Turns:
    """E6: after all was healed somebody leads in time; and whenever the leader goes, another one,
    until each has had its turn."""

    def __init__(self, world: World, candidates: Sequence[SimCandidate], *, promised: bool) -> None:
        self._world = world
        self._left = list(candidates)
        self._promised = promised
        world.at(world.now + QUIET, self._begin)

    def _begin(self) -> None:
        if not self._promised:
            for candidate in self._left:
                candidate.retire()
            return
        for candidate in self._left:
            if candidate.actor.client.name == "x":
                candidate.retire()
        self._look(self._world.now + LEADS_WITHIN)

    def _look(self, until: float) -> None:
        now = self._world.now
        self._left = [
            candidate
            for candidate in self._left
            if not candidate.actor.client.gone and not candidate.retired
        ]
        for candidate in self._left:
            mandate = candidate.candidacy.mandate
            if mandate is None or candidate.candidacy.state is not State.LEADER:
                continue
            if mandate.leads(candidate.actor.client.clock()):
                candidate.retire()
                until = now + LEADS_WITHIN
        if self._left and now > until:
            names = ", ".join(candidate.name for candidate in self._left)
            text = f"nobody of {names} led within {LEADS_WITHIN:.0f} s"
            self._left[0].actor.wrongs.append((now, "E6: somebody leads after healing", text))
            for candidate in self._left:
                candidate.retire()
        elif self._left:
            self._world.at(now + 0.2, self._look, until)


# The workload


def elect(actor: Actor, rounds: int) -> Script:
    """Stand for election, with timings and habits of its own; now and then only observe."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    if draw() < 0.1:
        yield from observe(actor)
        return
    shares = {
        "renewal": (0.1 + 0.2 * draw()) * ttl,
        "stop": (0.02 + 0.3 * draw()) * ttl,
        "jeopardy": draw() * 0.2 * ttl,
        "kill": (0.06 + 0.1 * draw()) * ttl,
    }
    stand = Stand(
        again=0.02 + 0.15 * draw(),
        timings=tuple((name, value) for name, value in shares.items() if draw() < 0.5),
        timeout=None if draw() < 0.7 else (1 + draw()) * ttl if draw() < 0.8 else 0.0,
        lock_delay=ttl * draw() * 1.5 if draw() < 0.4 else 0.0,
        stand_back=draw() * 0.3 * ttl if draw() < 0.3 else 0.0,
        stall_timeout=ttl * (0.3 + draw()) if draw() < 0.4 else None,
        checks=draw() < 0.6,
        kills=draw() < 0.7,
    )
    yield from SimCandidate(actor, stand, lambda: _draw_habits(draw, ttl)).live()


def _draw_habits(draw: Callable[[], float], ttl: float) -> Habits:
    habits = Habits(
        asks=draw() * 0.1 * ttl if draw() < 0.9 else ttl * 0.5 * draw(),
        starts=draw() * 0.1 * ttl if draw() < 0.8 else draw() * ttl,
        stops=draw() * 0.05 * ttl if draw() < 0.8 else draw() * ttl * 0.5,
        acts=(0.02 + 0.1 * draw()) * ttl,
        works=draw() * 3 * ttl if draw() < 0.4 else float("inf"),
        winds=draw() * 0.1 * ttl if draw() < 0.8 else draw() * 2 * ttl,
        ticks=draw() < 0.9,
    )
    if draw() < 0.3:
        fails = ("on_started", "work", "on_stopped")[int(draw() * 3)]
        works = draw() * ttl if fails == "work" else habits.works
        habits = replace(habits, fails=fails, works=works)
    return habits


def observe(actor: Actor) -> Script:
    """Ask who leads, now and then."""
    client = actor.client
    keys = keys_of(client.policy.key_prefix, ELECTION)
    while not actor.healed and not client.gone:
        yield actor.draw() * client.policy.ttl
        try:
            tally = yield lambda at: who_leads(client.cluster, *keys, at)
        except (RedlockError, Cancelled):
            continue
        leader = leader_of(tally)
        if leader is None:
            continue
        asked = client.world.tokens.get((ELECTION, leader.fencing_token), set())
        who = leader.info.get("client", "")
        if who not in asked or not leader.candidate.startswith(f"{who}:"):
            text = f"{client.name} sees {leader}, and {sorted(asked)} asked for that token"
            actor.wrongs.append((client.world.now, "O: who leads is who asked", text))


WORKLOADS["elect"] = elect


# Calls, for plans whose steps say everything


def _call_lead(
    actor: Actor, stand: Sequence[tuple[str, Any]] = (), habits: Sequence[tuple[str, Any]] = ()
) -> Script:
    said = replace(Stand(), **dict(stand))
    used = replace(Habits(), **dict(habits))
    yield from SimCandidate(actor, said, lambda: used).live()


def _call_observe(actor: Actor) -> Script:
    yield from observe(actor)


CALLS["lead"] = _call_lead
CALLS["observe"] = _call_observe
