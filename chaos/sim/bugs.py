"""Planted bugs: one rule of the shipped code broken at a time, to show that the search finds what
it looks for.

A bug is a change to a line or two of source, made for the length of a `with`: of what ships, or,
where the rule stands in a Lua file, of the node that has its semantics. Nothing of the world or the
checker is touched.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from typing import Any
from unittest.mock import patch

__all__ = ["BUGS", "Bug", "Edit", "planted"]


@dataclass(frozen=True, slots=True)
class Edit:
    """In the function *where* ("module:name" or "module:Class.name"), *old* becomes *new*, wherever
    it stands.

    *old* None: *where* is a constant, and *new* its value.
    """

    where: str
    old: str | None
    new: Any


@dataclass(frozen=True, slots=True)
class Bug:
    """A rule that is broken, and how. *plan*: name of the regression that finds it where random
    seeds are too rare; *workload*: the only one whose seeds find it."""

    rule: str
    edits: tuple[Edit, ...]
    plan: str | None = None
    workload: str = ""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Break the rule of the bug *name* for the length of a `with`."""
    with ExitStack() as stack:
        for where, edits in groupby(BUGS[name].edits, key=lambda edit: edit.where):
            _plant(where, list(edits), stack)
        yield


def _plant(where: str, edits: list[Edit], stack: ExitStack) -> None:
    module_name, _, path = where.partition(":")
    owner: Any = import_module(module_name)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    changed = edits[0].new if edits[0].old is None else _changed(original, edits)
    stack.enter_context(patch.object(owner, name, changed))
    if not classes:  # Whoever imported it by name has it too.
        for module in list(sys.modules.values()):
            if (
                module.__name__.startswith(("redlock", "chaos"))
                and vars(module).get(name) is original
            ):
                stack.enter_context(patch.object(module, name, changed))


def _changed(function: Any, edits: list[Edit]) -> Any:
    if isinstance(function, property):  # Its source has the decorator.
        function = function.fget
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if edit.old is None or edit.old not in source:
            raise LookupError(
                f"{edit.where} has no {edit.old!r} any more: what is this bug about now?"
            )
        source = source.replace(edit.old, edit.new)
    namespace: dict[str, Any] = {}
    exec(
        compile(f"from __future__ import annotations\n{source}", edits[0].where, "exec"),
        function.__globals__,
        namespace,
    )
    return namespace[function.__name__]


_ACQUIRE = "redlock.core.acquire"
_ADMISSION = "redlock.core.admission"
_COMMANDS = "redlock.core.commands"
_ELECT = "chaos.sim.elect:SimCandidate"
_ELECTION = "redlock.core.election"
_PREDECESSOR = "redlock.core.predecessor"
_EXTEND = "redlock.core.extend"
_FOUNDING = "redlock.core.founding"
_LEASE = "redlock.core.lease"
_LINE = "redlock.core.line:Lines"
_LINKSET = "redlock.transport.linkset:LinkSet"
_NODE = "chaos.sim.node:SimNode"
_QUEUES = "chaos.sim.queue:Queues"
_QUARANTINE = "redlock.core.quarantine"
_TERM = "redlock.core.term"


BUGS: dict[str, Bug] = {
    "majority is half": Bug(
        "majority is n // 2 + 1",
        (Edit("redlock.core.quorum:majority", "nodes // 2 + 1", "max(1, nodes // 2)"),),
    ),
    "validity from the reply": Bug(
        "validity counts from before the first write",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt._vote",
                "until = valid_until(sent_at,",
                "until = valid_until(now,",
            ),
        ),
        plan="replies-late",
    ),
    "no drift": Bug(
        "validity is shorter than the ttl, by what clocks may differ",
        (Edit(f"{_LEASE}:validity", "ttl - (ttl * drift_factor + DRIFT_MIN)", "ttl"),),
        plan="drift",
    ),
    "no check after the vote": Bug(
        "a grant decided at or after the end of its validity is no grant",
        (Edit(f"{_ACQUIRE}:_Attempt._vote", "if now < until:", "if True:"),),
        plan="late-grant",
    ),
    "owner reused": Bug(
        "every try has a fresh owner",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt.__init__",
                "cluster.source.owner()",
                "f'{cluster.note.__self__.name}-{ask.resource}-{ask.give_up_at!r}'",
            ),
        ),
        plan="late-release",
    ),
    "silent nodes keep it": Bug(
        "a failed try is released on all nodes, silent ones too",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt._releases",
                "if request.written and request not in round.settled:",
                "if request.written and round.tally.votes[request.node] is not None and request not"
                " in round.settled:",
            ),
        ),
    ),
    "released before the straggler": Bug(
        "what was not written when a try was released never is",
        (Edit("redlock.core.effects:Request.withdraw", "self.not_after = NEVER", "pass"),),
    ),
    "busy means clean": Bug(
        "a node that was busy in one round may have been taken in the other",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt._releases",
                "if request.written and request not in round.settled:",
                "if request.written and all(request.node != other.node for past in self._rounds for"
                " other in past.settled):",
            ),
        ),
        plan="busy-in-one-round",
    ),
    "nothing given back": Bug(
        "a failed try is released",
        (Edit(f"{_ACQUIRE}:_Attempt._releases", "releases(nodes,", "releases((),"),),
    ),
    "cancel leaves locks": Bug(
        "a cancelled try is released",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt.run",
                "yield Wait(NEVER, self._releases(unattended=True))",
                "pass",
            ),
        ),
        plan="cancelled",
    ),
    "nothing is owed": Bug(
        "a release stays owed until answered",
        (
            Edit(
                "redlock.transport.node:Node.owe",
                "if command not in self.owed:",
                "return\n    if False:",
            ),
        ),
    ),
    "put back and forgotten": Bug(
        "a node where an extension may have put the lock back is owed its release",
        (Edit(f"{_EXTEND}:_confirm", "holding.touched = cluster.everyone", "pass"),),
    ),
    "no quarantine": Bug(
        "a node that forgot does not vote",
        (Edit(f"{_QUARANTINE}:quarantine_span", "max_ttl * 1.02 + 1.0", "0.0"),),
        plan="amnesia",
    ),
    "no floor": Bug(
        "what ends a quarantine is a floor under the tokens",
        (Edit(f"{_QUARANTINE}:FLOOR_AHEAD", None, -86400.0),),
        plan="floor",
    ),
    "marked from nothing": Bug(
        "a marker is written only over the blank that was waited on",
        (Edit(f"{_QUARANTINE}:standing", "if not record.has_blank:", "if False:"),),
        plan="flushed-twice",
    ),
    "raised unseen": Bug(
        "a quarantine ends on what a majority told after the loss",
        (
            Edit(
                f"{_QUARANTINE}:standing",
                "if len(informed) < wanted and not all_told:",
                "if False:",
            ),
        ),
        plan="raised",
    ),
    "founded on old news": Bug(
        "who founds a cluster asks all nodes once more after it met the last blank",
        (
            Edit(
                f"{_FOUNDING}:confirmed",
                " and all(record.as_of >= last for record in roster.records)",
                "",
            ),
        ),
        plan="founded-late",
    ),
    "duplicate counted twice": Bug(
        "a server votes once, under however many names",
        (Edit("redlock.core.roster:Roster.twin", "if other == node or", "if True or"),),
        plan="duplicate",
    ),
    "another run's marker": Bug(
        "a marker is good for the memory it was written for",
        (
            Edit(
                "redlock.core.identity:Marker.names",
                "return self.memory == identity.memory",
                "return True",
            ),
            Edit(f"{_NODE}._remembers", " and self.replication_id == memory", ""),
        ),
        plan="rollback",
    ),
    "marker not checked": Bug(
        "the script looks at the marker",
        (
            Edit(
                f"{_NODE}._take",
                "if marker != expected:",
                "if marker is None:\n        marker = expected\n    if False:",
            ),
        ),
        plan="flushed",
    ),
    "max_ttl of one's own": Bug(
        "max_ttl is the cluster's, and quarantine lasts that long",
        (
            Edit(
                f"{_QUARANTINE}:standing",
                "_until(roster, node, loss, informed, [*kin.values()], at, all_told=all_told)",
                "(loss.since + quarantine_span(roster.ttl), [*kin.values()])",
            ),
        ),
        plan="short-ttl",
    ),
    "extension after expiry": Bug(
        "what is over cannot be extended",
        (
            Edit(
                f"{_EXTEND}:_confirm",
                "error = holding.error(now)",
                "error = holding.error(holding.granted_at)",
            ),
            Edit(
                f"{_EXTEND}:_confirm",
                "min(now + cluster.policy.node_timeout_for(holding.ttl), holding.valid_until)",
                "now + cluster.policy.node_timeout_for(holding.ttl)",
            ),
        ),
    ),
    "extension from the reply": Bug(
        "an extension counts from before its first write",
        (
            Edit(
                f"{_EXTEND}:extend",
                "holding.renewed(until, ttl)",
                "holding.renewed(valid_until(now, ttl, cluster.policy.drift_factor), ttl)",
            ),
        ),
        plan="extension-replies-late",
    ),
    "extension shortens": Bug(
        "an extension never shortens",
        (Edit(f"{_NODE}._take", "if self._pttl(lock_key, now_ms) < ttl:", "if True:"),),
        plan="shorten",
    ),
    "top-up past the fence": Bug(
        "a missing lock is put back only where nobody newer has been",
        (Edit(f"{_NODE}._take", "if fence > number:", "if False:"),),
        plan="top-up",
    ),
    "any number is a grant": Bug(
        "a grant names the token that was asked for",
        (
            Edit(
                f"{_COMMANDS}:Take.read", "case int(token) if token == self.token:", "case int(_):"
            ),
        ),
        plan="any-number",
    ),
    "token not compared": Bug(
        "a node takes only a token that is larger than its fence",
        (Edit(f"{_NODE}._take", "if low >= number or", "if"),),
    ),
    "no fence": Bug(
        "the token that was taken is the fence",
        (Edit(f"{_NODE}._claim", "raise_fence()", "pass"),),
    ),
    "fence after lock": Bug(
        "the fence is written before the lock",
        (
            Edit(
                f"{_NODE}._claim",
                "raise_fence()\n    self._aborted()\n    take_lock()",
                "take_lock()\n    self._aborted()\n    raise_fence()",
            ),
        ),
        plan="fence-first",
    ),
    "no poison": Bug(
        "a release is final on a node that executed it",
        (Edit(f"{_NODE}._free", "fence <= number <= max(", "number < fence <= max("),),
        plan="poison",
    ),
    "poison first": Bug(
        "a release deletes first, which works on a node that is out of memory",
        (Edit(f"{_NODE}._free", "if mine:\n", "self._set('x', 'x', 1, now_ms)\n    if mine:\n"),),
        plan="out-of-memory",
    ),
    "release deletes anything": Bug(
        "a release leaves alone what is somebody else's",
        (
            Edit(f"{_NODE}._free", "if held is not None and not mine:", "if False:"),
            Edit(f"{_NODE}._free", "if mine:", "if held is not None:"),
        ),
    ),
    "clock stands still in suspend": Bug(
        "the lease clock runs through suspend",
        (Edit("redlock.transport.clock:_CLOCK", None, time.CLOCK_MONOTONIC),),
        plan="asleep",
    ),
    "held by a flag": Bug(
        "whether a lease is held is asked of the clock",
        (Edit(f"{_LEASE}:Holding.held", "now < self.valid_until and ", ""),),
        plan="asleep",
    ),
    "released lease lives": Bug(
        "an answer that comes after the release changes nothing",
        (
            Edit(f"{_EXTEND}:_confirm", "or holding.status is not Status.HELD", ""),
            Edit(
                f"{_EXTEND}:_confirm",
                "answer.\n    error = holding.error(now)",
                "answer.\n    error = None",
            ),
            Edit(
                f"{_LEASE}:Holding.renewed",
                "if self.status is Status.HELD and",
                "self.status = Status.HELD\n    if",
            ),
        ),
    ),
    "deadline waits for the renewal": Bug(
        "the deadline of a lease waits for nothing",
        (
            Edit(
                "redlock.core.renewal:Renewal.add",
                "if watch.renews else ends_at",
                "if watch.renews else float('inf') if watch.renewing else ends_at",
            ),
        ),
        plan="deadline",
    ),
    "useless connections are dialled at once": Bug(
        "a connection that breaks off whenever a release comes is dialled no faster than one that"
        " fails",
        (
            Edit("redlock.transport.link:Link.lost", " or unproven", ""),
            Edit("chaos.sim.links:PlainLink.lost", " or unproven", ""),
        ),
        plan="flapping",
    ),
    "child holds on": Bug(
        "after a fork the child's leases are dead",
        (
            Edit(
                "redlock.base:CoordinatorBase._after_fork",
                'holding.lose("it belongs to the process that forked this one")',
                "pass",
            ),
        ),
        plan="forked",
    ),
    "memory not compared in the script": Bug(
        "the script that votes asks the server for its memory: the marker is data, and comes back"
        " with a snapshot",
        (Edit(f"{_NODE}._take", "if not self._remembers(memory):", "if False:"),),
        plan="reloaded",
    ),
    "an older memory is believed": Bug(
        "a client that has met a newer memory under a name does not go back to the older one",
        (
            Edit(
                f"{_ADMISSION}:Admission._how_returned",
                "return _RETURNED if identity.memory in self._past else None",
                "return None",
            ),
            Edit(
                f"{_ADMISSION}:Admission._how_returned",
                "if lower or marker.cluster",
                "if marker.cluster",
            ),
        ),
        plan="returned",
    ),
    "floor by the node's own clock": Bug(
        "the floor of a node that forgot comes from the other nodes' clocks",
        (
            Edit(f"{_QUARANTINE}:floor", "if clocks and known > 0:", "if False:"),
            Edit(f"{_QUARANTINE}:floor", "elif clocks:", "elif False:"),
        ),
        plan="floor-of-others",
    ),
    "replaced without a floor": Bug(
        "`init --replace` writes a floor that no token granted before is beyond",
        (
            Edit(
                "redlock.initialise:_marked_anew",
                "server.write(changed(new, floor=floor))",
                "server.write(new)",
            ),
        ),
        plan="replaced",
    ),
    "replaced after one look for locks": Bug(
        "`init --replace` looks for locks once more when no node grants any",
        (
            Edit(
                "redlock.initialise:_marked_anew",
                "_give_blanks(servers)\n        _refuse_live_locks(servers)\n",
                "_give_blanks(servers)\n",
            ),
        ),
        plan="replaced-while-used",
    ),
    "replaced where a majority forgot": Bug(
        "`init --replace` refuses where a majority has forgotten, and so may hide a lock",
        (Edit("redlock.initialise:_marked_anew", "_refuse_forgotten_locks(servers)", "pass"),),
        plan="replaced-by-a-forgetful",
    ),
    "a broken-off replacement is a new cluster": Bug(
        "nodes whose markers `init --replace` took away are of no new cluster, whatever their"
        " uptime",
        (Edit(f"{_FOUNDING}:standing", "replaced = roster.replaced()", "replaced = 0.0"),),
        plan="replacement-breaks-off",
    ),
    "a marker is given back over nothing": Bug(
        "`init --replace` that is refused gives markers back over its own blanks alone",
        (Edit("redlock.initialise:_give_back", "now.marker == server.blank", "now.blank"),),
        plan="given-back",
    ),
    "a loss is one link's own": Bug(
        "a link writes no vote as of anything older than what another connection was told",
        (
            Edit(
                "redlock.transport.greeting:Greeting.may_vote",
                "or self.as_of == self._admission.changes",
                "or True",
            ),
            Edit(
                "redlock.transport.link:Link.submit",
                "or greeting.as_of != self._admission.changes",
                "",
            ),
            Edit("redlock.transport.greeting:Greeting.counts", "return not", "return True or not"),
            Edit(
                "chaos.sim.links:PlainLink._may_vote",
                "or self._as_of == self._admission.changes",
                "or True",
            ),
            Edit("chaos.sim.links:PlainLink._counts", "return not", "return True or not"),
        ),
        plan="shared-loss",
    ),
    "never looked at again": Bug(
        "a connection in use looks at its node once a second",
        (
            Edit("redlock.transport.link:Link.submit", "or now > greeting.look_at", ""),
            Edit(
                "redlock.transport.link:Link._submit_vote",
                "if now > greeting.look_at and not greeting.learning",
                "if False",
            ),
            Edit(
                "chaos.sim.links:PlainLink.submit",
                "if now > self._look_at and not self._learning:",
                "if False:",
            ),
        ),
        plan="evicted-meanwhile",
    ),
    "eviction forgives": Bug(
        "a node that evicted keys has forgotten",
        (
            Edit(
                f"{_ADMISSION}:Admission._how_lost",
                "return _GREW if not marker.before and identity.evicted > marker.evicted else None",
                "return None",
            ),
        ),
        plan="evicted",
    ),
    "founded by a majority": Bug(
        "a cluster is founded when all its nodes answered",
        (
            Edit(
                f"{_FOUNDING}:_absent",
                "if record.fault is not None or identity is None:",
                "if identity is None:",
            ),
            Edit(
                f"{_FOUNDING}:_absent",
                'return f"the cluster is new and {name} cannot be asked: start it, or run `redlock'
                ' init`"',
                "continue",
            ),
            Edit(
                f"{_FOUNDING}:all_blank",
                "all(record.fault is None and record.has_blank for record in roster.records)",
                "sum(record.fault is None and record.has_blank for record in roster.records) >="
                " roster.needed",
            ),
            Edit(
                f"{_FOUNDING}:confirmed",
                "for record in roster.records)",
                "for record in roster.records if record.fault is None or record is roster)",
            ),
            Edit(f"{_FOUNDING}:_first", 'Memory("", "")', 'Memory("~", "")'),
        ),
        plan="founded-by-two",
    ),
    "who comes late waits anew": Bug(
        "a client that never knew a node counts its wait from the blank that stands there:"
        " short-lived ones bring it back",
        (Edit(f"{_QUARANTINE}:_until", "if placed is not None and", "if False and"),),
        plan="cron",
    ),
    "a blank is its client's alone": Bug(
        "a blank is finished by the node, so that one which is written twice gives two texts",
        (
            Edit(
                f"{_NODE}._mark",
                'stamp = f"{max(now, int(stamp[1:]))} {now}"',
                'stamp = f"{int(stamp[1:])} {int(stamp[1:])}"',
            ),
        ),
        plan="marked-twice",
    ),
    "raised before all wait": Bug(
        "longer locks are waited for on all nodes before any node takes one",
        (
            Edit(
                "redlock.initialise:_raised",
                "changed(marker, wait_ttl=wait_ttl, never_replicas=promised, before=False)",
                "changed(marker, wait_ttl=wait_ttl, max_ttl=max_ttl or marker.max_ttl,"
                " never_replicas=promised, before=False)",
            ),
        ),
        plan="raise-breaks-off",
    ),
    "a refused release is struck off": Bug(
        "a release that a node refuses stays owed",
        (
            Edit(
                "redlock.transport.link:Link._error",
                "self.node.refused(command, now)",
                "self.node.answered(command)",
            ),
            Edit(
                "chaos.sim.links:PlainLink._error",
                "self.node.refused(command, now)",
                "self.node.answered(command)",
            ),
        ),
        plan="refused",
    ),
    "a tick for another wait": Bug(
        "a tick belongs to the wait it was made for",
        (
            Edit(
                "redlock.transport.run:Run.step",
                "if self.done or (event.at < wait.until if type(event) is Tick else wait.pause):",
                "if self.done:",
            ),
            Edit(
                "redlock.core.rounds:collect",
                "if majority and not tally.behind else 1",
                "if majority else 1",
            ),
        ),
        plan="tick",
    ),
    "asked again behind the release": Bug(
        "a vote that was given back is not written again, though the node had lost the script",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt._releases",
                "request.withdraw()",
                "None if request.written else request.withdraw()",
            ),
            Edit(
                "redlock.transport.link:Link._error",
                "ended = request.run is not None and request.run.done",
                "ended = False",
            ),
        ),
        plan="noscript",
    ),
    "dialled for ever": Bug(
        "a dial that could not begin is over",
        (
            Edit(
                "redlock.transport.link:Link._ask_dial", "self.dial_failed(", "print if True else ("
            ),
            Edit("chaos.sim.links:PlainLink._ask_dial", "self.dialling = False\n", "return\n"),
        ),
        plan="starved",
    ),
    "granted after the close": Bug(
        "a close refuses new work, and cancels what runs",
        (
            Edit("chaos.sim.client:SimClient._close", "if not run.vital:", "if False:"),
            Edit("chaos.sim.client:SimClient.remember", "if self.closing:", "if False:"),
        ),
        plan="closed",
    ),
    "a release takes any set": Bug(
        "a release goes by the set that carried its acquire, and behind it where that set is in"
        " other hands",
        (
            Edit("chaos.sim.sets:SimSets.check_out", "if prefer in self._idle:", "if False:"),
            Edit("chaos.sim.sets:SimSets.follow", "if behind:", "if False:"),
        ),
        plan="another-set",
    ),
    "no release behind the acquire": Bug(
        "a release that another set had to carry is written once more behind its acquire",
        (Edit("chaos.sim.sets:SimSets.follow", "if behind:", "if False:"),),
        plan="followed",
    ),
    "nobody wakes a flow": Bug(
        "a flow whose time is over is told",
        (
            Edit(
                f"{_LINKSET}.went_on",
                "if until < run.timer_at and run.linkset is self:",
                "if False:",
            ),
        ),
    ),
    "a wait ends before its time": Bug(
        "a flow is told that its time is over then, and not before",
        (
            Edit(
                f"{_LINKSET}._end_waits",
                "over = current and run.wait.until <= now",
                "over = current",
            ),
        ),
    ),
    "a wait that grew is forgotten": Bug(
        "a flow that went on to a longer wait is woken at the end of that",
        (
            Edit(
                f"{_LINKSET}._end_waits", "self.went_on(run)", "self.went_on(run) if over else None"
            ),
        ),
    ),
    "one flow clears the timers of all": Bug(
        "a flow that begins leaves those beside it their time",
        (Edit(f"{_LINKSET}.begin", "if self._timers and not self.runs:", "if self._timers:"),),
    ),
    "a timer of another set": Bug(
        "a flow that goes on with another set of connections is woken there",
        (Edit(f"{_LINKSET}.leave", "run.timer_at = NEVER_AGAIN", "pass"),),
    ),
    "a lost connection is kept": Bug(
        "what was in flight on a connection that was given up fails, and the node is dialled again",
        (
            Edit(
                f"{_LINKSET}._lose",
                "self.links[node].lost(fault, self._clock())",
                "self.links[node].broken = None",
            ),
        ),
    ),
    "nobody brings what is owed": Bug(
        "what a node is owed is brought to it though nobody calls",
        (Edit(f"{_LINKSET}.owed", "if self._bring_at == NEVER_AGAIN:", "if False:"),),
    ),
    "what is owed is brought once": Bug(
        "what a node is owed is brought to it until it has answered",
        (
            Edit(
                f"{_LINKSET}.bring_owed",
                "if any(link.node.owed for link in self.links):",
                "if False:",
            ),
        ),
    ),
    "nobody looks at the renewals": Bug(
        "a set of links that renews leases is woken when one is due, or over",
        (Edit(f"{_LINKSET}.look_ahead", "if self.renewals is not None:", "if False:"),),
    ),
    "released when it is told to stop": Bug(
        "a release comes behind the end of the work",
        (
            Edit(
                f"{_ELECT}.stop",
                "self.actor.wake()",
                "from redlock.core.release import abandon\n"
                "    self.actor.client.write(abandon(client.cluster, mandate.holding,"
                " client.clock()))\n"
                "    self.actor.wake()",
            ),
        ),
        workload="elect",
    ),
    "released before on_stopped": Bug(
        "a release comes behind on_stopped",
        (
            Edit(
                f"{_ELECTION}:_term",
                "now, _ = yield Finish(mandate, mandate.reason or Reason.WORK_ENDED)",
                "mandate.drained(now)\n"
                "    if mandate.may_release:\n"
                "        now, released = yield Release(mandate)\n"
                "    now, _ = yield Finish(mandate, mandate.reason or Reason.WORK_ENDED)",
            ),
        ),
        workload="elect",
    ),
    "released after an overrun": Bug(
        "the lock of work that overran expires by itself",
        (
            Edit(
                f"{_TERM}:Mandate.may_release",
                " and self.drained_at < self.kill_at",
                "",
            ),
        ),
        plan="leader-overran",
    ),
    "leads by a flag": Bug(
        "whether a candidate leads is read from the clock",
        (
            Edit(
                f"{_TERM}:Mandate.leads",
                "return (\n        self.reason is None\n        and",
                "return self.reason is None or (\n        self.reason is None\n        and",
            ),
        ),
        plan="leads-asleep",
    ),
    "stopped when the validity ends": Bug(
        "the work is told to stop before the validity ends",
        (Edit(f"{_TERM}:Mandate.stop_at", " - self.timings.stop_before", ""),),
        workload="elect",
    ),
    "on_started is not waited for": Bug(
        "on_stopped comes when on_started has returned",
        (
            Edit(
                f"{_ELECT}._run",
                "yield from make(mandate)",
                "if call == 'on_started':\n"
                "            over = partial(self._note_hook, mandate, call, over=True)\n"
                "            self.world.at(self.world.now + self.habits.starts, over)\n"
                "            return None\n"
                "        yield from make(mandate)",
            ),
        ),
        workload="elect",
    ),
    "no campaign after a loss": Bug(
        "who lost its term campaigns again",
        (
            Edit(
                f"{_ELECTION}:lead",
                "if again is None or candidacy.resigning:",
                "if again is None or candidacy.resigning or mandate.failing:",
            ),
        ),
        plan="leader-cut-off",
    ),
    "no campaign after a raise": Bug(
        "who leads work that raised campaigns again",
        (
            Edit(
                f"{_ELECTION}:lead",
                "if again is None or candidacy.resigning:",
                "if again is None or candidacy.resigning or error is not None:",
            ),
        ),
        workload="elect",
    ),
    "a lost term revives": Bug(
        "a term that has ended never leads again, though a renewal succeeds",
        (
            Edit(
                f"{_ELECTION}:Candidacy.look",
                "if mandate.reason is None:\n        with",
                "if mandate.reason is Reason.RENEWAL_FAILED and now < mandate.stop_at:\n"
                "        mandate.reason, self.state = None, State.LEADER\n"
                "    if mandate.reason is None:\n        with",
            ),
        ),
        plan="term-revives",
    ),
    "who ended believes on": Bug(
        "nobody leads by a term whose end was told",
        (Edit(f"{_TERM}:Mandate.leads", "self.reason is None\n        and", ""),),
        workload="elect",
    ),
    "an unfit leader is renewed": Bug(
        "who is not fit any more ends its term",
        (Edit(f"{_ELECTION}:Candidacy.fitness", "if not fit:", "if False:"),),
        plan="leader-unfit",
    ),
    "no answer is a yes": Bug(
        "who does not say that it is fit until the next renewal ends its term",
        (
            Edit(
                f"{_ELECTION}:Candidacy.renewing",
                "elif asks and",
                "elif False and",
            ),
        ),
        plan="leader-mute",
    ),
    "a retry is the next renewal": Bug(
        "a renewal that failed is tried again before eligible must have answered",
        (
            Edit(
                f"{_ELECTION}:Candidacy.renewing",
                "elif asks and now >= self._asked_at + self.timings.renewal - MARGIN_MIN:",
                "elif asks:",
            ),
        ),
        plan="eligible-slow",
    ),
    "a stalled leader is renewed": Bug(
        "work that does not say that it goes on ends its term",
        (
            Edit(f"{_TERM}:Mandate.leads", "and now < self.stall_at\n", ""),
            Edit(f"{_TERM}:Mandate.why", "if now >= self.stall_at:", "if False:"),
            Edit(
                f"{_TERM}:TermWatch.ends_at",
                "min(mandate.stop_at, mandate.stall_at)",
                "mandate.stop_at",
            ),
        ),
        plan="leader-stalled",
    ),
    "it stalls before it begins": Bug(
        "what has not begun does not stall",
        (
            Edit(
                f"{_TERM}:Mandate.__init__",
                'self.progress_at = float("inf")',
                "self.progress_at = now",
            ),
        ),
        plan="delay-before-stall",
    ),
    "a suspend goes unnoticed": Bug(
        "a machine that slept ends the terms on it",
        (
            Edit(
                f"{_TERM}:Mandate._was_suspended",
                "return self._slept()",
                "return 0 * self._slept()",
            ),
        ),
        plan="leader-suspended",
    ),
    "no lock_delay": Bug(
        "after a leader that was not seen to release the next one waits",
        (Edit(f"{_PREDECESSOR}:Predecessor.delay", "return max(0.0,", "return min(0.0,"),),
        plan="leader-killed",
    ),
    "a term from the reply": Bug(
        "the deadlines of a term count from before the first write",
        (
            Edit(
                f"{_ACQUIRE}:_Attempt._vote",
                "until = valid_until(sent_at,",
                "until = valid_until(now,",
            ),
            Edit(
                f"{_EXTEND}:extend",
                "holding.renewed(until, ttl)",
                "holding.renewed(valid_until(now, ttl, cluster.policy.drift_factor), ttl)",
            ),
        ),
        plan="term-from-the-reply",
    ),
    "a late renewal gives more time": Bug(
        "when the work must have ended is settled when it is told to stop",
        (Edit(f"{_TERM}:Mandate.end", "self._kill_at = self.kill_at", "pass"),),
        plan="late-renewal",
    ),
    "woken too early": Bug(
        "a lock_delay is over when its time is",
        (
            Edit(
                f"{_ELECTION}:_elected",
                "while now < until and mandate.leads(now) and not candidacy.resigning:",
                "if now < until:",
            ),
        ),
        plan="woken-too-early",
    ),
    "a resignation waits": Bug(
        "a resignation interrupts a campaign, and every pause",
        (
            Edit(f"{_ELECT}._break_off", "if self._campaigning:", "if False:"),
            Edit(f"{_ELECT}._break_off", "elif self._idle:", "elif False:"),
        ),
        plan="resigned-while-waiting",
    ),
    "nobody is told, and nobody looks": Bug(
        "who waits is told of a release, and looks by itself",
        (
            Edit(f"{_QUEUES}.tell", "for _ in range(PLACES_MAX):", "for _ in ():"),
            Edit("redlock.core.line:look_after", "return min(", "return 1e6 + min("),
        ),
        workload="queue",
    ),
    "nobody is told": Bug(
        "who waits is told of a release",
        (Edit(f"{_QUEUES}.tell", "for _ in range(PLACES_MAX):", "for _ in ():"),),
        plan="line-untold",
    ),
    "nobody looks": Bug(
        "who waits looks by itself, as messages may be lost",
        (Edit("redlock.core.line:look_after", "return min(", "return 1e6 + min("),),
        workload="queue",
    ),
    "the last millisecond is forgotten": Bug(
        "a lock that ends in less than a millisecond is looked at again then",
        (
            Edit(
                f"{_ACQUIRE}:_pause",
                "if freed_in is not None and",
                "if freed_in is not None and freed_in > 0 and",
            ),
        ),
        plan="line-expires",
    ),
    "a place is never dropped": Bug(
        "a place whose process is gone, or whose lease is over, stands in nobody's way",
        (
            Edit(f"{_QUEUES}.first", "if 0 < left <= LEASE_MS:", "if True:"),
            Edit(
                f"{_QUEUES}.others",
                "if self.count(_channel(head[0])) or not self.leave(key, head[0], now):",
                "if True:",
            ),
            Edit(
                f"{_QUEUES}.tell",
                "if head[2] or heard or not self.leave(key, head[0], now):",
                "if True:",
            ),
            Edit(f"{_QUEUES}.enter", "_drop_dead(places, now // 1000)", "pass"),
        ),
        plan="line-dead",
    ),
    "a lease of any length": Bug(
        "no lease of a place is longer than one that we give",
        (Edit(f"{_QUEUES}.first", "if 0 < left <= LEASE_MS:", "if 0 < left:"),),
        plan="line-absurd",
    ),
    "looks renew nothing": Bug(
        "a look of one who waits renews the lease of its place",
        (
            Edit(
                f"{_NODE}._peek",
                "queued = [self.queues.enter(queue, place, now)]",
                "queued = [0]",
            ),
        ),
        plan="line-forgotten",
    ),
    "who gives up stays in the queue": Bug(
        "whoever gives up leaves the queue of every node",
        (Edit(f"{_ACQUIRE}:_Search.leaving", "self._cluster.everyone", "()"),),
        plan="line-left",
    ),
    "who leaves does not ring": Bug(
        "the first of a process that leaves wakes the next one there",
        (Edit(f"{_LINE}.leave", "following.ring()", "pass"),),
        workload="queue",
    ),
    "a line that skips": Bug(
        "who came first in a process goes first",
        (
            Edit(f"{_LINE}.is_first", "return places[0] is place", "return places[-1] is place"),
            Edit(f"{_LINE}.leave", "places[0] if was_first", "places[-1] if True"),
        ),
        workload="queue",
    ),
    "a line in the order of joining": Bug(
        "who tried before it stood in line is not behind those who came later",
        (
            Edit(
                "redlock.core.line:Line.enter",
                "while at and places[at - 1].ticket > place.ticket:",
                "while False:",
            ),
        ),
        workload="queue",
    ),
    "a wake-up rings nobody": Bug(
        "who is told that a lock is free wakes up",
        (Edit(f"{_LINE}.told", "place.ring()", "pass"),),
        workload="queue",
    ),
    "a bell ends no pause": Bug(
        "a pause ends when its bell rings",
        (
            Edit(
                f"{_LINKSET}.rung",
                "if run.wait is wait and not run.done and run.linkset is self:",
                "if False:",
            ),
        ),
        workload="queue",
    ),
    "whoever comes first to a free lock has it": Bug(
        "a free lock goes to whoever has waited longest",
        (
            Edit(
                f"{_QUEUES}.others", "for _ in range(PLACES_MAX):", "return False\n    for _ in ():"
            ),
        ),
        plan="line-barged",
    ),
    "a queue that outlives its places": Bug(
        "a queue has an expiry, and goes with the last lease",
        (
            Edit(
                f"{_QUEUES}._keep",
                "now // 1000 + LEASE_MS)",
                "None)",
            ),
            Edit(f"{_QUEUES}.leave", "try:", "return True\n    try:"),
        ),
        plan="line-outlived",
    ),
    "the deaf are dropped": Bug(
        "a place that hears no messages is kept by its lease",
        (
            Edit(f"{_QUEUES}.others", "if head[2]:", "if False:"),
            Edit(f"{_QUEUES}.tell", "if head[2] or heard", "if heard"),
        ),
        plan="line-deaf",
    ),
}
"""By name."""
