"""One ordered link, fed with bytes and time by hand: what it writes, when, and what becomes of what
it wrote.

No socket and no clock: `Rig` plays the driver and the server. Times are seconds on a lease clock
that begins at zero.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hiredis
import pytest

from redlock.core import events
from redlock.core.admission import Admission, State
from redlock.core.commands import MARK, Canvass, Command, Free, Greet, Leave, Peek, Take, scripts
from redlock.core.effects import Failure, Reply, Request
from redlock.core.identity import Marker, Memory
from redlock.core.quarantine import FLOOR_AHEAD, quarantine_span
from redlock.core.quorum import GRANTED, Fault, FaultKind, Kind
from redlock.transport.greeting import LOOK_EVERY
from redlock.transport.link import IN_FLIGHT_MAX, TAKES_MAX, Link, Mailbox
from redlock.transport.node import OWED_MAX, RECHECK_MAX, RECHECK_MIN, REDIAL_MAX, REDIAL_MIN, Node

KEYS = ("redlock:r", "redlock:r:fence")
OWNER = "0123456789abcdef" * 2
RUN, OTHER_RUN = "a" * 40, "b" * 40
SILENCE = 1.0
PATIENCE = 0.25
MAX_TTL = 60.0
REFUSED = Fault(FaultKind.UNREACHABLE, "refused the connection")
GONE = Fault(FaultKind.LOST, "closed the connection")


def commands(data: bytes) -> list[list[str]]:
    """What a server would read from *data*: commands, as words."""
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(data)
    found = []
    while (command := reader.gets()) is not False:
        found.append(command)
    return found


def verbs(data: bytes) -> list[str]:
    """The first words alone; a script by its name."""
    known = (*scripts(), MARK)
    names = {script.sha: script.name for script in known} | {
        script.source: script.name for script in known
    }
    return [
        " ".join([words[0], names.get(words[1], "")]).strip() if len(words) > 1 else words[0]
        for words in commands(data)
    ]


def reply(value: Any) -> bytes:
    """*value* as a server sends it."""
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return b"$%d\r\n%b\r\n" % (len(data), data)
    if value is None:
        return b"$-1\r\n"
    return b"*%d\r\n" % len(value) + b"".join(reply(element) for element in value)


NONCE = "b1a4c"
CLOCK = 1763927834
CLOCK_US = CLOCK * 10**6 + 123456
"""What every node's clock says whenever it is asked, unless a test says otherwise."""


def id_of(run_id: str) -> str:
    """The replication id of the server that *run_id* names, until it gets another one."""
    return f"id-of-{run_id}"


def marker_of(run_id: str = RUN, nodes: int = 1, **more: Any) -> str:
    memory = Memory(run_id, more.pop("replication_id", id_of(run_id)))
    return Marker(memory, nodes, **{"max_ttl": MAX_TTL, "since_us": 1, **more}).text()


def blank_of(latest_us: int, own_us: int, run_id: str = RUN) -> str:
    return f"redlock2 blank {latest_us} {own_us} {id_of(run_id)} {NONCE}"


def greeting(marker: str | None, *, load: bool = True, clock: int = CLOCK, **fields: Any) -> bytes:
    """A server's answers to the questions on a new connection; without *load*, to a look at it
    later."""
    known: dict[str, Any] = {
        "run_id": RUN,
        "role": "master",
        "maxmemory_policy": "noeviction",
        "uptime_in_seconds": 10**6,
    } | fields
    known = {
        "master_replid": id_of(known["run_id"]),
        "second_repl_offset": -1,
        "evicted_keys": 0,
    } | known
    info = "# Server\r\n" + "".join(f"{name}:{value}\r\n" for name, value in known.items())
    first = [info, *(script.sha for script in scripts())] if load else []
    return b"".join(
        reply(answer) for answer in [*first, [info, marker or "", str(clock), "123456", ""]]
    )


GREETED = ["INFO", *["SCRIPT"] * len(scripts()), "EVALSHA look"]
LOOKED = ["EVALSHA look"]


class Rig:
    """Links to *count* nodes that share one admission and one mailbox. Stands for the run that
    waits, and hears all."""

    done, wanted = False, 1

    def __init__(
        self, count: int = 1, *, max_ttl: float | None = None, durable: bool | None = None
    ) -> None:
        names = tuple(f"redis://node-{number}" for number in range(count))
        self.admission = Admission(
            names,
            ttl=10.0,
            max_ttl=max_ttl,
            durable=durable,
            patience=PATIENCE,
            nonce=lambda: NONCE,
        )
        self.mailbox: Mailbox = deque()
        self.events: list[events.Event] = []
        self.dials: list[int] = []
        self.nodes = [
            Node(index, name, self.admission, self.events.append)
            for index, name in enumerate(names)
        ]
        self.links = [
            Link(node, self.mailbox, lambda index=index: self.dials.append(index), silence=SILENCE)  # type: ignore[misc]
            for index, node in enumerate(self.nodes)
        ]
        self.link, self.node = self.links[0], self.nodes[0]

    def admit(self, now: float = 0.5) -> Rig:
        """Every link connected, every node admitted."""
        for link in self.links:
            run = f"{link.node.index:x}" * 40
            link.connected(now)
            link.received(greeting(marker_of(run, len(self.links)), run_id=run), now)
        return self

    def ask(self, command: Command, not_after: float = 1000.0, node: int = 0) -> Request:
        request = Request(node, command, not_after)
        request.run = self
        return request

    def heard(self) -> list[Reply | Failure]:
        """Empty the mailbox."""
        found = list(self.mailbox)
        self.mailbox.clear()
        return found

    def kinds(self) -> list[Kind | FaultKind]:
        """Empty the mailbox: what each entry says."""
        return [
            entry.fault.kind if isinstance(entry, Failure) else entry.value.kind
            for entry in self.heard()
        ]

    def fault(self) -> Fault:
        """Empty the mailbox of its one failure."""
        (failure,) = self.heard()
        assert isinstance(failure, Failure)
        return failure.fault


def take(token: int = 100, mode: str = "acquire") -> Take:
    return Take(*KEYS, OWNER, token, ttl=10.0, fence_ttl=100.0, mode=mode)


def free(token: int = 100) -> Free:
    return Free(*KEYS, OWNER, token, fence_ttl=100.0)


# Order


def test_requests_are_written_in_order_and_answered_first_in_first_out() -> None:
    """A release travels behind the acquire it undoes, and every answer finds its own question."""
    rig = Rig().admit()
    asked = [rig.ask(command) for command in (take(1), free(1), Peek(*KEYS), take(2))]
    data = b"".join(rig.link.submit(request, 1.0) for request in asked)
    assert verbs(data) == ["EVALSHA take", "EVALSHA free", "EVALSHA peek", "EVALSHA take"]
    assert [words[words.index(OWNER) + 1] for words in commands(data) if OWNER in words] == [
        "1",
        "1",
        "2",
    ]
    rig.link.received(reply(1) + reply(1), 1.1)
    rig.link.received(reply([4, 1]) + reply(2), 1.2)
    found = rig.heard()
    assert [entry.request for entry in found] == asked
    assert [entry.at for entry in found] == [1.1, 1.1, 1.2, 1.2]
    assert len(rig.link.in_flight) == 0 and all(request.written for request in asked)


class _Waiting:
    """A run that wants to be woken for the third grant, and hears what comes by *mailbox*."""

    def __init__(self, mailbox: Mailbox | None) -> None:
        self.mailbox, self.done, self.wanted = mailbox, False, 3
        self.kept: list[Request] = []


def _granted(rig: Rig, run: _Waiting) -> list[Request]:
    asked = []
    for link in rig.links:
        command = take(token=7)
        asked.append(Request(link.node.index, command, 1000.0, run=run))
        link.submit(asked[-1], 1.0)
        link.received(reply(7), 2.0)
    return asked


def test_grants_that_decide_nothing_are_left_with_who_waits() -> None:
    """The third is told, at its own instant, and so are all where nobody keeps them."""
    rig = Rig(5).admit()
    waiting = _Waiting(rig.mailbox)
    asked = _granted(rig, waiting)
    assert waiting.kept == asked[:2]
    told = rig.heard()
    assert [entry.request for entry in told] == asked[2:]
    assert all(
        isinstance(entry, Reply) and entry.value is GRANTED and entry.at == 2.0 for entry in told
    )


def test_a_run_that_moved_elsewhere_or_ended_is_given_nothing_behind_its_back() -> None:
    """Another thread may read these connections now, while the run goes on with others: the
    mailbox, which drops it."""
    rig = Rig(3).admit()
    moved = _Waiting(deque())
    asked = _granted(rig, moved)
    assert [entry.request for entry in rig.heard()] == asked and moved.kept == []
    ended = _Waiting(rig.mailbox)
    ended.done = True
    _granted(rig, ended)
    assert rig.heard() == [] and ended.kept == []


def test_a_grant_of_another_token_breaks_the_connection() -> None:
    """An answer that belongs to another question counts for nothing, and nor does anything that
    follows it."""
    rig = Rig().admit()
    for token in (1, 2):
        rig.link.submit(rig.ask(take(token)), 1.0)
    rig.link.received(reply(2) + reply(2), 1.1)
    assert rig.kinds() == [FaultKind.NONSENSE]
    assert rig.link.broken is not None and rig.link.broken.kind is FaultKind.NONSENSE
    rig.link.lost(rig.link.broken, 1.1)
    assert rig.kinds() == [FaultKind.NONSENSE]


def test_an_answer_to_no_question_breaks_the_connection() -> None:
    """A server that speaks unasked is not one whose order of answers can be relied on."""
    rig = Rig().admit()
    assert rig.link.received(reply(100), 1.0) == b""
    assert rig.link.broken is not None and not rig.heard()


def test_the_marker_of_the_admitted_node_is_the_last_argument_of_what_votes() -> None:
    """TAKE, extension, verification and canvass carry it; a release and a plain look do not."""
    rig = Rig().admit()
    marker = marker_of("0" * 40)
    for voting in (take(), take(mode="extend"), take(mode="verify"), Canvass(*KEYS)):
        assert commands(rig.link.submit(rig.ask(voting), 1.0))[0][-1] == marker
    for command in (free(), Peek(*KEYS)):
        assert marker not in commands(rig.link.submit(rig.ask(command), 1.0))[0]


# Nothing that votes before admission, or too late

VOTING = [take(), take(mode="extend"), take(mode="verify"), Canvass(*KEYS)]


@pytest.mark.parametrize("command", VOTING, ids=["acquire", "extend", "verify", "canvass"])
def test_nothing_that_votes_is_written_before_the_node_was_admitted(command: Command) -> None:
    """Not without a connection, not before the last answer of the greeting, wherever that is
    cut."""
    rig = Rig()
    request = rig.ask(command)
    assert rig.link.submit(request, 0.0) == b""
    assert rig.dials == [0]
    assert verbs(rig.link.connected(0.1)) == GREETED
    answers = greeting(marker_of())
    for place in range(len(answers) - 1):
        assert rig.link.received(answers[place : place + 1], 0.2) == b""
        assert not request.written
    data = rig.link.received(answers[-1:], 0.3)
    assert len(commands(data)) == 1 and commands(data)[0][-1] == marker_of()
    assert request.written


def test_nothing_that_votes_is_written_while_too_few_others_are_known() -> None:
    """Whether a node is the cluster's, only all nodes together can tell: wait for the others, at
    most the patience."""
    rig = Rig(3)
    rig.admission.asked(0.0)
    for link, run in zip(rig.links[:2], (RUN, OTHER_RUN), strict=True):
        link.connected(0.0)
        assert link.received(greeting(marker_of(run, 3), run_id=run), 0.1) == b""
    assert rig.link.submit(rig.ask(take()), 0.15) == b""
    assert rig.link.poke(PATIENCE - 0.01) == b""
    assert verbs(rig.link.poke(PATIENCE)) == ["EVALSHA take"]


def test_nothing_that_votes_is_written_before_a_majority_has_shown_its_markers() -> None:
    """A cluster that is founded has its first marker before the others: should that node forget,
    all would look new again."""
    rig = Rig(3)
    rig.admission.asked(0.0)
    rig.link.connected(0.0)
    rig.link.received(greeting(marker_of(nodes=3)), 0.1)
    request = rig.ask(take(), not_after=PATIENCE + 0.1)
    assert rig.link.submit(request, 0.15) == b""
    assert rig.link.poke(PATIENCE) == rig.link.poke(PATIENCE + 0.11) == b""
    assert (
        "before a majority of the nodes has shown a marker" in rig.fault().detail
        and not request.written
    )
    assert rig.link.submit(rig.ask(take()), PATIENCE + 0.2) == b""
    rig.links[1].connected(PATIENCE + 0.3)
    rig.links[1].received(greeting(marker_of(OTHER_RUN, 3), run_id=OTHER_RUN), PATIENCE + 0.3)
    assert verbs(rig.link.poke(PATIENCE + 0.3)) == ["EVALSHA take"]


def test_nothing_is_written_after_its_time() -> None:
    """At `not_after` it still is, later never; a request whose time is over fails as not asked."""
    rig = Rig().admit()
    for command in (take(), Canvass(*KEYS), Peek(*KEYS)):
        assert rig.link.submit(rig.ask(command, not_after=2.0), 2.0)
        late = rig.ask(command, not_after=2.0)
        assert rig.link.submit(late, 2.001) == b""
        assert rig.fault().kind is FaultKind.EXPIRED and not late.written


def test_what_waited_past_its_time_is_never_written() -> None:
    """The node is admitted too late for one, in time for the other."""
    rig = Rig()
    late, in_time = rig.ask(take(1), not_after=0.5), rig.ask(take(2), not_after=0.6)
    for request in (late, in_time):
        rig.link.submit(request, 0.0)
    rig.link.connected(0.1)
    data = rig.link.received(greeting(marker_of()), 0.55)
    assert [words[words.index(OWNER) + 1] for words in commands(data)] == ["2"]
    assert in_time.written and not late.written


def test_what_was_withdrawn_is_never_written_and_fails_once_the_node_is_known() -> None:
    """A decided round takes back what no node has been asked yet, and may still wait to hear why
    a node did not vote."""
    for fields, reason in (
        (dict[str, Any](), "was not asked: the vote was decided"),
        ({"role": "slave"}, "is a slave, not a master"),
    ):
        rig = Rig()
        request = rig.ask(take())
        rig.link.submit(request, 0.0)
        request.withdraw()
        rig.link.connected(0.1)
        rig.link.submit(rig.ask(free()), 0.1)
        assert not rig.heard()
        assert rig.link.received(greeting(marker_of(), **fields), 0.2) == b""
        assert rig.fault().detail == reason and not request.written


# Releases


def test_a_release_needs_no_admission() -> None:
    """It is written behind the greeting at once, and to a node that may not vote."""
    rig = Rig()
    rig.link.connected(0.0)
    assert verbs(rig.link.submit(rig.ask(free()), 0.0)) == ["EVALSHA free"]
    rig.link.received(greeting(marker_of(), role="slave") + reply(1), 0.1)
    assert rig.kinds() == [Kind.GRANTED]
    rig.link.submit(rig.ask(take()), 0.11)
    assert rig.fault().kind is FaultKind.REFUSED
    assert verbs(rig.link.submit(rig.ask(free()), 0.2)) == ["EVALSHA free"]


def test_a_release_that_waits_for_a_connection_goes_with_it_and_a_vote_does_not() -> None:
    """Order among what waits is kept for releases; votes come after the admission."""
    rig = Rig()
    for command in (take(), free()):
        rig.link.submit(rig.ask(command), 0.0)
    assert verbs(rig.link.connected(0.1)) == [*GREETED, "EVALSHA free"]


# Lost scripts


def test_a_lost_script_is_answered_with_its_text_on_that_node_alone() -> None:
    """NOSCRIPT: the text, with the marker, on this link; the other nodes still get the digest."""
    rig = Rig(3).admit()
    command = take()
    for index in (0, 1):
        rig.links[index].submit(rig.ask(command, node=index), 1.0)
    again = rig.links[0].received(b"-NOSCRIPT No matching script.\r\n", 1.1)
    assert verbs(again) == [*GREETED, "EVAL take"], (
        "it may have lost more than its scripts, and is looked at as well"
    )
    assert commands(again)[-1][-1] == marker_of("0" * 40, 3)
    assert rig.links[1].received(reply(100), 1.1) == b""
    assert verbs(rig.links[2].submit(rig.ask(command, node=2), 1.1)) == ["EVALSHA take"]
    rig.links[0].received(greeting(marker_of("0" * 40, 3), run_id="0" * 40) + reply(100), 1.2)
    assert rig.kinds() == [Kind.GRANTED, Kind.GRANTED]


def test_a_lost_script_keeps_the_release_behind_its_acquire() -> None:
    """Both are unknown to the server, and both are sent again in their order."""
    rig = Rig().admit()
    for command in (take(), free()):
        rig.link.submit(rig.ask(command), 1.0)
    noscript = b"-NOSCRIPT No matching script.\r\n"
    assert verbs(rig.link.received(noscript * 2, 1.1)) == [*GREETED, "EVAL take", "EVAL free"]


def test_a_vote_whose_time_is_over_is_not_sent_again_and_a_release_is() -> None:
    """The answer NOSCRIPT came too late: a TAKE would be executed for nobody."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take(), not_after=2.0), 1.0)
    rig.link.submit(rig.ask(free(), not_after=2.0), 1.0)
    data = rig.link.received(b"-NOSCRIPT No matching script.\r\n" * 2, 2.5)
    assert verbs(data) == ["EVAL free"]
    assert rig.fault() == Fault(FaultKind.ERROR, "said NOSCRIPT No matching script.")


def test_a_take_is_not_sent_again_behind_its_release() -> None:
    """It was given back, or its flow has ended: NOSCRIPT sends the text of the release alone."""
    noscript = b"-NOSCRIPT No matching script.\r\n"
    rig = Rig().admit()
    given_back = rig.ask(take())
    rig.link.submit(given_back, 1.0)
    given_back.withdraw()
    rig.link.submit(rig.ask(free()), 1.0)
    assert verbs(rig.link.received(noscript * 2, 1.1)) == ["EVAL free"]
    rig.link.received(reply(1), 1.2)
    rig.link.submit(rig.ask(take()), 1.3)
    rig.link.submit(rig.ask(free()), 1.3)
    rig.done = True
    assert verbs(rig.link.received(noscript * 2, 1.4)) == ["EVAL free"]


@pytest.mark.parametrize("command", [take(), free(), Peek(*KEYS)], ids=["take", "free", "peek"])
def test_a_server_that_does_not_know_the_text_either_is_asked_once(command: Command) -> None:
    """A server, or what pretends to be one, that always says NOSCRIPT must not keep a link busy
    for ever."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(command), 1.0)
    again = verbs(rig.link.received(b"-NOSCRIPT x\r\n", 1.1))
    assert again == [
        *(GREETED if command.marked else []),
        f"EVAL {command.script.name if command.script else ''}",
    ]
    looked = greeting(marker_of("0" * 40), run_id="0" * 40) if command.marked else b""
    assert rig.link.received(looked + b"-NOSCRIPT x\r\n", 1.2) == b""
    assert rig.fault().kind is FaultKind.ERROR and len(rig.link.in_flight) == 0


# Another node behind the connection


def test_a_node_that_is_not_the_admitted_one_is_greeted_again() -> None:
    """{3}: it tells once more who it is, without loading scripts; the next vote waits, and
    carries the new marker."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take(1)), 1.0)
    assert verbs(rig.link.received(reply([3, "gone"]), 1.1)) == LOOKED
    assert rig.kinds() == [Kind.STRANGER]
    assert rig.link.submit(rig.ask(take(2)), 1.2) == b""
    assert verbs(rig.link.submit(rig.ask(free(1)), 1.2)) == ["EVALSHA free"]
    marker = marker_of("0" * 40, floor=7)
    data = rig.link.received(greeting(marker, load=False, run_id="0" * 40), 1.3)
    assert [words[-1] for words in commands(data)] == [marker]


def test_two_strangers_in_a_row_are_greeted_once() -> None:
    """Votes in flight behind the first {3} say the same and ask nothing more."""
    rig = Rig().admit()
    for token in (1, 2, 3):
        rig.link.submit(rig.ask(take(token)), 1.0)
    assert verbs(rig.link.received(reply([3, ""]) * 3, 1.1)) == LOOKED
    assert rig.kinds() == [Kind.STRANGER] * 3


@pytest.mark.parametrize(
    "word", ["READONLY", "LOADING", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN"]
)
def test_a_node_whose_role_changed_is_greeted_again(word: str) -> None:
    """The vote fails as an error, and the node says who it is now before it is asked again."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take()), 1.0)
    assert verbs(rig.link.received(f"-{word} You may not.\r\n".encode(), 1.1)) == LOOKED
    assert rig.fault() == Fault(FaultKind.ERROR, f"said {word} You may not.")
    assert rig.link.submit(rig.ask(take()), 1.2) == b""
    rig.link.received(greeting(marker_of("0" * 40), load=False, run_id="0" * 40, role="slave"), 1.3)
    fault = rig.fault()
    assert fault.kind is FaultKind.REFUSED and "slave" in fault.detail


@pytest.mark.parametrize(
    "word", ["OOM", "BUSY", "MISCONF", "NOREPLICAS", "WRONGTYPE", "ERR", "REDLOCK"]
)
def test_other_errors_cost_one_vote_and_no_more(word: str) -> None:
    """Out of memory, a slow script, a full disk: the next vote is asked for at once."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take()), 1.0)
    assert rig.link.received(f"-{word} no.\r\n".encode(), 1.1) == b""
    assert rig.fault() == Fault(FaultKind.ERROR, f"said {word} no.")
    assert verbs(rig.link.submit(rig.ask(take()), 1.2)) == ["EVALSHA take"]


@pytest.mark.parametrize("word", ["NOPERM", "NOAUTH", "WRONGPASS"])
def test_a_node_that_takes_our_rights_away_is_refused_until_it_gives_them_back(word: str) -> None:
    """No vote is asked of it meanwhile; releases still go; a later look finds the rights
    restored."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take()), 1.0)
    rig.link.received(f"-{word} no.\r\n".encode(), 1.0)
    assert rig.fault() == Fault(FaultKind.REFUSED, f"said {word} no.")
    assert rig.link.submit(rig.ask(take()), 1.01) == b""
    assert rig.fault().kind is FaultKind.REFUSED
    assert verbs(rig.link.submit(rig.ask(free()), 1.01)) == ["EVALSHA free"]
    asked = rig.link.submit(rig.ask(take()), 1.0 + RECHECK_MIN)
    assert verbs(asked) == LOOKED
    rig.link.received(reply(1), 1.1)
    data = rig.link.received(greeting(marker_of("0" * 40), load=False, run_id="0" * 40), 1.2)
    assert verbs(data) == ["EVALSHA take"]


def test_an_error_never_reaches_a_log_line_as_it_is() -> None:
    """A server's words are cut, and what would break a line is replaced."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take()), 1.0)
    rig.link.received(b"-ERR \x1b[31m\x00 " + b"x" * 500 + b"\r\n", 1.1)
    detail = rig.fault().detail
    assert detail.isprintable() and len(detail) < 200 and detail.startswith("said ERR ?[31m? xxx")


# Lost connections


def test_what_was_in_flight_fails_and_what_waited_waits_on() -> None:
    """A written request may have been executed: the failure says so, in the order of the
    requests."""
    rig = Rig().admit()
    asked = [rig.ask(command) for command in (take(1), Peek(*KEYS), take(2))]
    for request in asked:
        rig.link.submit(request, 1.0)
    rig.link.lost(GONE, 1.1)
    found = rig.heard()
    assert [entry.request for entry in found] == asked
    assert all(
        isinstance(entry, Failure) and entry.fault == GONE and entry.request.written
        for entry in found
    )
    assert not rig.link.up and len(rig.link.in_flight) == 0
    again = rig.ask(take(3))
    assert rig.link.submit(again, 1.2) == b"" and rig.dials == [0] and not rig.heard()
    rig.link.connected(1.3)
    assert verbs(rig.link.received(greeting(marker_of("0" * 40), run_id="0" * 40), 1.4)) == [
        "EVALSHA take"
    ]


def test_a_release_in_flight_stays_owed_and_goes_with_the_next_connection() -> None:
    """As its text, for a server that is new; once it is answered nothing is owed."""
    rig = Rig().admit()
    first, second = free(1), free(2)
    for command in (first, second):
        rig.link.submit(rig.ask(command), 1.0)
    rig.link.lost(GONE, 1.1)
    assert list(rig.node.owed) == [first, second]
    assert rig.dials == [0], "a release that is owed is a reason to dial"
    assert rig.kinds() == [FaultKind.LOST, FaultKind.LOST]
    data = rig.link.connected(1.2, owed=list(rig.node.owed))
    assert verbs(data)[-2:] == ["EVAL free", "EVAL free"]
    assert [words[words.index(OWNER) + 1] for words in commands(data)[-2:]] == ["1", "2"]
    rig.link.received(greeting(marker_of("0" * 40), run_id="0" * 40) + reply(1), 1.3)
    assert list(rig.node.owed) == [second]
    rig.link.received(reply(0), 1.3)
    assert not rig.node.owed and not rig.heard()


def test_a_release_that_is_lost_again_is_owed_again() -> None:
    """However often the connection breaks before the answer."""
    rig = Rig().admit()
    command = free()
    rig.link.submit(rig.ask(command), 1.0)
    for attempt in range(5):
        rig.link.lost(GONE, 1.1 + attempt)
        assert list(rig.node.owed) == [command]
        rig.link.connected(1.2 + attempt, owed=list(rig.node.owed))
        rig.link.received(greeting(marker_of("0" * 40), run_id="0" * 40), 1.3 + attempt)


def test_a_release_answered_with_nonsense_stays_owed() -> None:
    """Nobody knows whether it was executed, as if no answer had come."""
    rig = Rig().admit()
    command = free()
    rig.link.submit(rig.ask(command), 1.0)
    rig.link.received(b"+OK\r\n", 1.1)
    assert rig.link.broken is not None
    assert list(rig.node.owed) == [command] and rig.kinds() == [FaultKind.NONSENSE]


@pytest.mark.parametrize(
    "word", ["BUSY", "LOADING", "MISCONF", "NOREPLICAS", "READONLY", "MASTERDOWN", "NOPERM", "ERR"]
)
def test_a_release_answered_with_an_error_stays_owed(word: str) -> None:
    """The lock is still there. It is written once more, as its text, after a pause that doubles,
    until it is answered."""
    rig = Rig().admit()
    command = free()
    rig.link.submit(rig.ask(command), 1.0)
    refusal = f"-{word} no.\r\n".encode()
    now = 1.0
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert rig.link.received(refusal, now) == b""
        assert list(rig.node.owed) == [command]
        assert rig.link.bring(now + pause - 0.001) == b""
        now += pause
        assert verbs(rig.link.bring(now)) == ["EVAL free"]
        assert rig.link.bring(now + 5.0) == b"", "it is on its way"
    assert rig.kinds() == [FaultKind.REFUSED if word == "NOPERM" else FaultKind.ERROR], (
        "who waited was told once"
    )
    rig.link.received(reply(1), now)
    assert not rig.node.owed and rig.link.bring(now + 5.0) == b""
    rig.link.submit(rig.ask(free()), now)
    rig.link.received(refusal, now)
    assert verbs(rig.link.bring(now + 0.05)) == ["EVAL free"], "an answer begins the pauses anew"


def test_a_release_that_can_never_work_is_not_brought_again() -> None:
    """Where the key is of another type, what stands there is not our lock."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(free()), 1.0)
    rig.link.received(b"-WRONGTYPE no.\r\n", 1.1)
    assert not rig.node.owed and rig.kinds() == [FaultKind.ERROR]


def test_a_node_that_breaks_off_at_what_it_owes_is_dialled_with_growing_pauses() -> None:
    """Also where the release was written once more on a living connection."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(free()), 1.0)
    rig.link.received(b"-BUSY no.\r\n", 1.0)
    assert rig.link.bring(2.0)
    rig.link.lost(GONE, 2.0)
    assert rig.dials == [] and rig.node.redial_at > 2.0


def test_a_release_is_owed_until_the_lock_has_expired_by_itself() -> None:
    """Counted from the first time, however often it is brought until then."""
    rig = Rig().admit()
    rig.node.owed_for = lambda: 100.0
    command = free()
    rig.link.submit(rig.ask(command), 1.0)
    for now in (1.0, 60.0, 100.0):
        rig.link.received(b"-BUSY no.\r\n", now)
        rig.link.bring(now + 1.0)
    rig.node.forgive(101.0 - 0.1)
    assert list(rig.node.owed) == [command]
    rig.node.forgive(101.0)
    assert not rig.node.owed


def test_a_release_to_a_node_that_is_down_is_owed() -> None:
    """It fails at once for its caller, and goes with the next connection, whoever makes that."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    waiting, later = free(1), free(2)
    rig.link.submit(rig.ask(waiting), 0.0)
    rig.link.dial_failed(REFUSED, 0.1)
    rig.link.submit(rig.ask(later), 0.11)
    assert rig.kinds() == [FaultKind.UNREACHABLE] * 3
    assert list(rig.node.owed) == [waiting, later]


def test_a_connection_that_breaks_in_the_greeting_is_no_connection() -> None:
    """A port that accepts and says nothing is no better than one that refuses: what waits fails,
    and dialling backs off."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    rig.link.received(greeting(marker_of())[:-10], 0.2)
    rig.link.lost(GONE, 1.0)
    assert rig.fault() == Fault(FaultKind.UNREACHABLE, "closed the connection")
    rig.link.submit(rig.ask(take()), 1.0)
    assert rig.fault().kind is FaultKind.UNREACHABLE
    assert rig.dials == [0], "no new dial before the backoff is over"
    rig.link.submit(rig.ask(take()), 1.0 + REDIAL_MIN)
    assert rig.dials == [0, 0]


def test_nothing_of_an_old_connection_is_believed_on_the_next() -> None:
    """The half of a reply, the questions in flight and the admission end with their connection."""
    rig = Rig().admit()
    rig.link.submit(rig.ask(take(1)), 1.0)
    rig.link.received(reply(1)[:-1], 1.1)
    rig.link.lost(GONE, 1.2)
    rig.heard()
    rig.link.submit(rig.ask(take(2)), 1.2)
    rig.link.connected(1.3)
    assert rig.link.received(greeting(marker_of())[:-1], 1.4) == b""
    assert not rig.heard() and rig.link.broken is None


def test_a_node_that_stopped_in_the_greeting_costs_a_round_no_more_than_the_one_before() -> None:
    """What earlier rounds left waiting there is looked at when the node says who it is, and not
    for every request."""

    class Counting(deque[Request]):
        looked = 0

        def popleft(self) -> Request:
            Counting.looked += 1
            return super().popleft()

    rig = Rig()
    rig.link.connected(0.0)
    rig.link._waiting = Counting()
    for number in range(500):
        assert rig.link.submit(rig.ask(take(number)), 0.1) == rig.link.poke(0.1) == b""
    assert Counting.looked == 0
    rig.link.received(greeting(marker_of()), 0.2)
    assert Counting.looked == 500 and len(rig.link.in_flight) == 500


# Dialling


def test_dialling_backs_off_from_20_ms_doubling_to_250() -> None:
    """Between two dials a request fails at once and asks for none; the first answer on a
    connection ends that."""
    rig = Rig()
    now, pauses = 0.0, []
    rig.link.submit(rig.ask(take()), now)
    for _ in range(6):
        rig.link.dial_failed(REFUSED, now)
        failed_at = now
        while len(rig.dials) == 1:
            now = round(now + 0.001, 3)
            rig.link.submit(rig.ask(take()), now)
            assert rig.heard()
        pauses.append(now - failed_at)
        rig.dials.pop()
    assert pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.25, 0.25], abs=0.002)
    assert (REDIAL_MIN, REDIAL_MAX) == (0.02, 0.25)
    rig.link.connected(now)
    rig.link.received(greeting(marker_of()), now)
    rig.link.lost(GONE, now)
    rig.link.submit(rig.ask(take()), now)
    assert len(rig.dials) == 2, "a node that was reachable is dialled again at once"


def test_while_it_is_dialled_for_the_first_time_requests_wait() -> None:
    """Only a failed dial fails at once; one dial serves all who wait."""
    rig = Rig()
    for token in range(1, 4):
        rig.link.submit(rig.ask(take(token)), 0.0)
    assert rig.dials == [0] and not rig.heard() and rig.link._waiting
    rig.link.dial_failed(REFUSED, 0.1)
    assert rig.kinds() == [FaultKind.UNREACHABLE] * 3 and not rig.link._waiting


# Silence


@pytest.mark.parametrize(
    "error",
    [RuntimeError("can't start new thread"), KeyboardInterrupt()],
    ids=["shortage", "Ctrl-C"],
)
def test_a_dial_that_cannot_begin_is_no_dial(error: BaseException) -> None:
    """Its link would wait for ever. A shortage fails what waits; a Ctrl-C goes on its way; each
    is tried again."""
    rig = Rig()
    dial = rig.link._dial
    begins = False

    def dialling() -> None:
        if not begins:
            raise error
        dial()

    rig.link._dial = dialling
    if isinstance(error, Exception):
        rig.link.submit(rig.ask(take()), 0.0)
        assert rig.fault() == Fault(
            FaultKind.UNREACHABLE, "could not be dialled (can't start new thread)"
        )
    else:
        with pytest.raises(KeyboardInterrupt):
            rig.link.submit(rig.ask(take()), 0.0)
    assert not rig.link.dialling and not rig.dials
    begins = True
    rig.link.submit(rig.ask(take()), 1.0)
    assert rig.link.dialling and rig.dials == [0]


def test_a_node_is_overdue_when_it_owes_an_answer_for_longer_than_the_silence() -> None:
    """Counted from the question or the last whole reply; without a question there is no silence."""
    rig = Rig().admit()
    assert not rig.link.overdue(100.0)
    for token in (1, 2):
        rig.link.submit(rig.ask(take(token)), 100.0)
    assert not rig.link.overdue(100.0 + SILENCE)
    assert rig.link.overdue(100.1 + SILENCE)
    rig.link.received(reply(1), 100.5)
    assert not rig.link.overdue(100.1 + SILENCE)
    rig.link.received(reply(2)[:-1], 101.4)
    assert rig.link.overdue(100.6 + SILENCE), "half a reply is no answer"
    rig.link.heard(101.5)
    assert not rig.link.overdue(101.6)


def test_a_node_that_says_nothing_in_the_greeting_is_overdue() -> None:
    """The greeting is a question too."""
    rig = Rig()
    rig.link.connected(0.0)
    assert not rig.link.overdue(SILENCE) and rig.link.overdue(SILENCE + 0.1)


# Bounds


def test_votes_in_flight_are_bounded_and_leave_room_for_their_releases() -> None:
    """A stopped node swallows megabytes and executes them on waking: at most so many, and each
    can be undone."""
    assert IN_FLIGHT_MAX >= 2 * TAKES_MAX
    rig = Rig().admit()
    command = take()
    for _ in range(TAKES_MAX):
        assert rig.link.submit(rig.ask(command), 1.0)
    over = rig.ask(command)
    assert rig.link.submit(over, 1.0) == b"" and not over.written
    assert rig.fault().kind is FaultKind.SATURATED
    for _ in range(IN_FLIGHT_MAX - TAKES_MAX):
        assert rig.link.submit(rig.ask(free()), 1.0)
    assert rig.link.broken is None
    last = free()
    assert rig.link.submit(rig.ask(last), 1.0) == b""
    assert rig.link.broken is not None and rig.link.broken.kind is FaultKind.SATURATED
    assert list(rig.node.owed) == [last]
    assert len(rig.link.in_flight) == IN_FLIGHT_MAX


def test_what_a_new_connection_is_brought_and_what_is_brought_again_keep_to_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The greeting, what is owed, and releases that waited for the connection; what finds no room
    stays owed. Nor does a look go past what votes may fill."""
    most = len(GREETED) + 4
    monkeypatch.setattr("redlock.transport.link.IN_FLIGHT_MAX", most)
    monkeypatch.setattr("redlock.transport.link.TAKES_MAX", 6)
    rig = Rig()
    releases = [free(token) for token in range(1, 7)]
    for command in releases:
        rig.link.submit(rig.ask(command), 0.0)
    rig.link.connected(0.1, owed=releases[:3])
    assert len(rig.link.in_flight) == most
    assert rig.kinds() == [FaultKind.SATURATED] * 5 and list(rig.node.owed) == releases
    rig = Rig().admit()
    leaves = [rig.ask(Leave("k", f"us.{number}")) for number in range(most - 4)]
    for leave in leaves:
        assert rig.link.submit(leave, 100.0)
    for command in releases:
        rig.node.owe(command, 100.0)
    assert verbs(rig.link.bring(100.0)) == ["EVAL free"] * 4
    rig = Rig().admit()
    for _ in range(6):
        assert rig.link.submit(rig.ask(take()), 1.0)
    assert rig.link.submit(rig.ask(take(), not_after=200.0), 100.0) == b""
    assert len(rig.link.in_flight) == 6


def test_what_is_owed_is_bounded_and_the_oldest_goes_first() -> None:
    """What is dropped costs a ttl, as if it had never been sent."""
    node = Rig().node
    owed = [free(token) for token in range(1, OWED_MAX + 11)]
    for command in owed:
        node.owe(command, 1.0)
    assert list(node.owed) == owed[10:]


def test_what_waits_is_bounded_and_what_is_over_makes_room() -> None:
    """A node that hangs in its greeting collects no more than so many requests; a release among
    the rest stays owed."""
    rig = Rig()
    for _ in range(TAKES_MAX):
        rig.link.submit(rig.ask(take(), not_after=1.0), 0.0)
    assert not rig.heard()
    rig.link.submit(rig.ask(take(), not_after=1.0), 0.5)
    command = free()
    rig.link.submit(rig.ask(command), 0.5)
    assert rig.kinds() == [FaultKind.SATURATED] * 2 and list(rig.node.owed) == [command]
    rig.link.submit(rig.ask(take(), not_after=9.0), 1.5)
    assert not rig.heard()
    rig.link.connected(2.0)
    assert verbs(rig.link.received(greeting(marker_of()), 2.1)) == ["EVALSHA take"]


# Admission, as the link carries it out


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"role": "slave"}, "is a slave, not a master"),
        ({"cluster_enabled": 1}, "cluster mode"),
        ({"maxmemory_policy": "volatile-ttl"}, "volatile-ttl"),
        ({"run_id": ""}, "no run id"),
        ({"loading": 1}, "LOADING"),
    ],
)
def test_a_node_that_is_not_fit_is_refused_with_its_reason(
    fields: dict[str, Any], reason: str
) -> None:
    """What waited for it fails, saying why; so does what comes later; and an event tells it
    once."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    assert rig.link.received(greeting(marker_of(), **fields), 0.2) == b""
    assert reason in rig.fault().detail
    rig.link.submit(rig.ask(take()), 0.21)
    assert reason in rig.fault().detail
    assert [type(event) for event in rig.events] == [events.NodeRejected]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOAUTH Authentication required.", FaultKind.REFUSED),
        ("NOPERM this user has no permissions", FaultKind.REFUSED),
        ("LOADING Redis is loading the dataset in memory", FaultKind.ERROR),
    ],
)
def test_a_greeting_that_is_refused_costs_the_vote_and_not_the_connection(
    text: str, kind: FaultKind
) -> None:
    """Every question of the greeting is answered with it, and the reason reaches whoever waited."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    assert rig.link.received(f"-{text}\r\n".encode() * len(GREETED), 0.2) == b""
    assert rig.fault() == Fault(kind, f"said {text}")
    assert rig.link.up and rig.link.broken is None


def test_a_server_without_script_load_still_votes() -> None:
    """Loading is a courtesy to the first EVALSHA; NOSCRIPT brings the text anyway."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    look = greeting(marker_of(), load=False)
    answers = greeting(marker_of()).removesuffix(look)
    for script in scripts():
        answers = answers.replace(reply(script.sha), b"-ERR unknown\r\n")
    assert verbs(rig.link.received(answers + b"-NOSCRIPT x\r\n", 0.2)) == ["EVAL look"]
    assert verbs(rig.link.received(look, 0.2)) == ["EVALSHA take"]


def test_a_server_that_never_knows_how_to_look_has_no_vote() -> None:
    """It is asked by the digest and by the text, and no more."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    answers = greeting(marker_of()).removesuffix(greeting(marker_of(), load=False))
    assert verbs(rig.link.received(answers + b"-NOSCRIPT x\r\n", 0.2)) == ["EVAL look"]
    assert rig.link.received(b"-NOSCRIPT x\r\n", 0.2) == b""
    assert rig.fault() == Fault(FaultKind.ERROR, "said NOSCRIPT x")


@pytest.mark.parametrize(
    ("fields", "said", "reason"),
    [
        ({"role": "slave"}, "MASTERDOWN Link with MASTER is down", "is a slave, not a master"),
        ({"cluster_enabled": 1}, "CROSSSLOT Keys in request", "runs in cluster mode"),
    ],
)
def test_a_node_that_refuses_the_look_is_judged_by_its_info(
    fields: dict[str, Any], said: str, reason: str
) -> None:
    """Which it still answers, and which says more than what it says to a script."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    answers = greeting(marker_of(), **fields).removesuffix(
        greeting(marker_of(), load=False, **fields)
    )
    assert rig.link.received(answers + f"-{said}\r\n".encode(), 0.2) == b""
    assert rig.fault() == Fault(FaultKind.REFUSED, reason)
    assert [event.reason for event in rig.events] == [reason]  # type: ignore[attr-defined]
    assert verbs(rig.link.submit(rig.ask(take()), 0.3)) == ["INFO", *LOOKED], (
        "and so when it is looked at again"
    )
    told = greeting(marker_of(), **fields).split(b"$40")[0]
    assert rig.link.received(told + f"-{said}\r\n".encode(), 0.31) == b""
    assert rig.kinds() == [FaultKind.REFUSED]


# A look at least once a second


def test_a_connection_in_use_looks_at_its_node_once_a_second() -> None:
    """Nothing but a look tells of an eviction policy set at run time. It goes in front of a
    vote, and votes go on meanwhile; a connection that nobody uses asks nothing.
    """
    rig = Rig().admit()
    at = 0.5 + LOOK_EVERY
    assert verbs(rig.link.submit(rig.ask(take(1)), at)) == ["EVALSHA take"]
    rig.link.received(reply(1), at)
    assert verbs(rig.link.submit(rig.ask(take(2)), at + 0.01)) == [*LOOKED, "EVALSHA take"]
    assert verbs(rig.link.submit(rig.ask(take(3)), at + 0.02)) == ["EVALSHA take"], (
        "not before each of them"
    )
    rig.link.received(
        greeting(marker_of("0" * 40), load=False, run_id="0" * 40) + reply(2) + reply(3), at + 0.03
    )
    assert rig.kinds() == [Kind.GRANTED] * 3
    assert rig.link.poke(50.0) == b""
    assert verbs(rig.link.submit(rig.ask(free()), 50.0)) == ["EVALSHA free"]
    assert verbs(rig.link.submit(rig.ask(take(4)), 50.0)) == [*LOOKED, "EVALSHA take"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "may evict locks"),
        ({"evicted_keys": 1}, "it evicted keys"),
    ],
)
def test_a_vote_behind_a_look_that_finds_it_evicting_does_not_count(
    fields: dict[str, Any], reason: str
) -> None:
    """No script sees that, so the node granted: it fails, and nothing is asked of the node any
    more."""
    rig = Rig(3).admit()
    at = 0.51 + LOOK_EVERY
    for link in rig.links:
        link.submit(rig.ask(take(9), node=link.node.index), 0.6)
        link.received(reply(9), 0.7)
    rig.heard()
    for token in (1, 2):
        assert "EVALSHA take" in verbs(rig.link.submit(rig.ask(take(token)), at))
    told = greeting(marker_of("0" * 40, 3), load=False, run_id="0" * 40, **fields)
    rig.link.received(told + reply(1), at + 0.1)
    rig.link.received(reply(2), at + 0.1)
    found = rig.heard()
    assert [entry.fault.kind for entry in found if isinstance(entry, Failure)] == [
        FaultKind.QUARANTINED
    ] * 2
    assert all(entry.request.written for entry in found)
    assert reason in str(rig.admission.standing(0, at + 0.1).fault)
    rig.link.submit(rig.ask(take(3), not_after=at + 0.2), at + 0.11)
    rig.link.poke(at + 0.3)
    assert all(not entry.request.written for entry in rig.heard())


# What another connection, or a report, knows


@pytest.mark.parametrize("command", VOTING, ids=["acquire", "extend", "verify", "canvass"])
def test_no_vote_is_written_as_of_what_another_connection_knows_better(command: Command) -> None:
    """Two links to one node. The other one met another memory there: this one writes no vote any
    more."""
    rig = Rig().admit()
    run, marker = "0" * 40, marker_of("0" * 40)
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    other.connected(0.6)
    other.received(greeting(marker, run_id=run, master_replid="another"), 0.7)
    assert rig.admission.standing(0, 0.7).state is not State.ADMITTED
    assert [type(event) for event in rig.events].count(events.NodeMemoryChanged) == 1
    request = rig.ask(command)
    assert not set(verbs(rig.link.submit(request, 0.71))) - {*LOOKED, "EVAL mark"}
    assert not request.written


def test_no_vote_goes_to_another_memory_than_the_one_that_is_admitted() -> None:
    """Two links to one name. The other one leads to a server that is admitted; this one, kept by
    a proxy, still to the one before: it is looked at again, and its marker is never the other
    one's.
    """
    rig = Rig().admit()
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    other.connected(0.6)
    other.received(greeting(marker_of(OTHER_RUN), run_id=OTHER_RUN), 0.7)
    assert rig.admission.standing(0, 0.7).state is State.ADMITTED
    assert verbs(other.submit(rig.ask(take(1)), 0.71)) == ["EVALSHA take"]
    request = rig.ask(take(2))
    assert verbs(rig.link.submit(request, 0.72)) == LOOKED
    assert not request.written


def test_what_was_written_on_one_server_is_not_noted_of_another_one() -> None:
    """Two links to one name. While this one puts a blank on the server that it leads to, the
    other one, which asked before that, is told by the server that took its place: that one keeps
    its marker and its vote.
    """
    rig = Rig()
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    other.connected(0.15)
    assert verbs(rig.link.received(greeting(None), 0.2)) == ["EVAL mark"]
    stands = marker_of(OTHER_RUN)
    other.received(greeting(stands, run_id=OTHER_RUN), 0.3)
    assert verbs(rig.link.received(reply([1, blank_of(0, CLOCK_US)]), 0.4)) == LOOKED
    standing = rig.admission.standing(0, 0.4)
    assert standing.state is State.ADMITTED and standing.marker == stands
    assert verbs(other.submit(rig.ask(take()), 0.5)) == ["EVALSHA take"]


def test_a_node_that_lost_its_memory_before_it_was_marked_is_asked_again() -> None:
    """MARK found another one than was looked at: what stands there is nobody's to adopt."""
    rig = Rig()
    request = rig.ask(take())
    rig.link.submit(request, 0.0)
    rig.link.connected(0.1)
    assert verbs(rig.link.received(greeting(None), 0.2)) == ["EVAL mark"]
    assert verbs(rig.link.received(reply([3, marker_of()]), 0.3)) == LOOKED
    assert not request.written and rig.admission.marker(0) is None


def test_a_change_of_memory_is_told_with_both_names() -> None:
    """Two servers behind one name can so be noticed."""
    rig = Rig().admit()
    rig.link.lost(GONE, 1.0)
    rig.link.submit(rig.ask(take()), 1.0)
    rig.link.connected(1.1)
    rig.link.received(greeting(marker_of(OTHER_RUN), run_id=OTHER_RUN), 1.2)
    run = "0" * 40
    changed = [event for event in rig.events if isinstance(event, events.NodeMemoryChanged)]
    assert changed == [
        events.NodeMemoryChanged(
            1.2, rig.node.name, f"{run}/{id_of(run)}", f"{OTHER_RUN}/{id_of(OTHER_RUN)}"
        ),
    ]


def forgetful(rig: Rig, now: float) -> Rig:
    """Three nodes: the first restarted, and told so at *now*; the other two are admitted."""
    for index in (1, 2):
        run = f"{index}" * 40
        rig.links[index].connected(now)
        rig.links[index].received(greeting(marker_of(run, 3), run_id=run), now)
    rig.link.connected(now)
    (blank,) = commands(
        rig.link.received(greeting(marker_of(OTHER_RUN, 3), uptime_in_seconds=0), now)
    )
    assert blank[4:6] == [marker_of(OTHER_RUN, 3), id_of(RUN)] and blank[6] == "redlock2 blank"
    placed = blank_of(CLOCK_US, CLOCK_US)
    assert verbs(rig.link.received(reply([1, placed]), now)) == LOOKED
    rig.link.received(greeting(placed, load=False, uptime_in_seconds=0), now)
    return rig


def test_a_node_in_quarantine_votes_for_nobody_says_how_long_and_takes_releases() -> None:
    """It forgot: refused with the seconds left, and a release goes through."""
    rig = forgetful(Rig(3), 10.0)
    rig.link.submit(rig.ask(take()), 10.01)
    left = quarantine_span(MAX_TTL)
    assert f"votes again in {left - 0.01:.1f} s" in rig.fault().detail
    assert verbs(rig.link.submit(rig.ask(take()), 20.0)) == LOOKED
    rig.link.received(
        greeting(blank_of(CLOCK_US, CLOCK_US), load=False, uptime_in_seconds=10), 20.0
    )
    fault, left = rig.fault(), left - 10.0
    assert fault.kind is FaultKind.QUARANTINED and f"votes again in {left:.1f} s" in fault.detail
    assert verbs(rig.link.submit(rig.ask(free()), 20.0)) == ["EVALSHA free"]
    assert [type(event) for event in rig.events if event.node == rig.node.name] == [  # type: ignore[attr-defined]
        events.NodeQuarantined
    ]


def test_a_quarantine_ends_with_a_marker_of_this_run_and_a_floor_and_then_votes() -> None:
    """Written over the blank that was waited on, into the memory that was looked at, with a
    floor by the others' clocks, and finished by the node itself; the waiting vote follows with
    what stands.
    """
    rig = forgetful(Rig(3), 10.0)
    over = 10.0 + quarantine_span(MAX_TTL)
    rig.link.submit(rig.ask(take()), over - 0.1)
    rig.link.received(
        greeting(blank_of(CLOCK_US, CLOCK_US), load=False, uptime_in_seconds=60), over - 0.1
    )
    assert rig.fault().kind is FaultKind.QUARANTINED
    request = rig.ask(take())
    (mark,) = commands(rig.link.submit(request, over))
    assert mark[0] == "EVAL" and mark[2:4] == ["1", "redlock:node"]
    assert mark[4:6] == [blank_of(CLOCK_US, CLOCK_US), id_of(RUN)]
    assert mark[6].split()[:3] == ["redlock2", id_of(RUN), "60000"] and mark[7:] == [
        "now",
        f"{RUN} 60000 3 0 - -",
    ]
    assert int(mark[6].split()[3]) == pytest.approx(
        CLOCK_US + (quarantine_span(MAX_TTL) + FLOOR_AHEAD) * 1e6, abs=10
    )
    assert not request.written and rig.link.submit(rig.ask(take()), over) == b""
    stands = f"{mark[6]} {CLOCK_US} {mark[8]}"
    assert [words[-1] for words in commands(rig.link.received(reply([1, stands]), over + 0.1))] == [
        stands,
        stands,
    ]


def test_a_node_that_may_not_vote_is_asked_again_now_and_then() -> None:
    """After 0.05 s, doubling to one second: an operator's remedy is noticed, and a broken node
    not pestered."""
    rig = Rig()
    rig.link.connected(0.0)
    rig.link.received(greeting(marker_of(), role="slave"), 0.0)
    now, asked_at = 0.0, list[float]()
    while len(asked_at) < 8:
        now = round(now + 0.01, 2)
        data = rig.link.submit(rig.ask(take()), now)
        if data:
            assert verbs(data) == LOOKED
            asked_at.append(now)
            rig.link.received(greeting(marker_of(), load=False, role="slave"), now)
        assert rig.fault().kind is FaultKind.REFUSED
    assert asked_at[0] == pytest.approx(RECHECK_MIN, abs=0.02)
    pauses = [after - before for before, after in pairwise(asked_at)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], abs=0.02)
    assert (RECHECK_MIN, RECHECK_MAX) == (0.05, 1.0)
    assert [type(event) for event in rig.events] == [events.NodeRejected], (
        "told once, not at every look"
    )
    data = rig.link.submit(rig.ask(take()), now + 2.0)
    assert verbs(data) == LOOKED
    assert verbs(rig.link.received(greeting(marker_of(), load=False), now + 2.0)) == [
        "EVALSHA take"
    ]


def test_a_new_cluster_is_marked_by_compare_and_set() -> None:
    """From a blank of its own, asked for once more; nothing votes until the node said which
    marker stands."""
    rig = Rig()
    request = rig.ask(take())
    rig.link.submit(request, 0.0)
    rig.link.connected(0.1)
    (blank,) = commands(rig.link.received(greeting(None), 0.2))
    assert blank[0] == "EVAL" and blank[4:] == [
        "",
        id_of(RUN),
        "redlock2 blank",
        "+0",
        f"{id_of(RUN)} {NONCE}",
    ]
    placed = blank_of(CLOCK_US, CLOCK_US)
    assert verbs(rig.link.received(reply([1, placed]), 0.2)) == LOOKED
    assert rig.link.received(greeting(placed, load=False), 0.3) == b"", (
        "one node alone may have been flushed, however long it is up"
    )
    assert rig.kinds() == [FaultKind.QUARANTINED]
    request = rig.ask(take())
    assert verbs(rig.link.submit(request, 63.0)) == LOOKED
    (mark,) = commands(rig.link.received(greeting(placed, load=False, clock=CLOCK + 63), 63.0))
    floor = CLOCK_US + (63 + 60) * 10**6
    assert mark[4:] == [
        placed,
        id_of(RUN),
        f"redlock2 {id_of(RUN)} 60000 {floor}",
        "now",
        f"{RUN} 60000 1 0 - -",
    ]
    assert rig.link.submit(rig.ask(take()), 63.0) == b"" and not request.written
    stands = marker_of().replace(" 60000 0 ", f" 60000 {floor} ", 1)
    assert [words[-1] for words in commands(rig.link.received(reply([1, stands]), 63.1))] == [
        stands,
        stands,
    ]


def test_an_answer_that_waited_unread_admits_no_other_run() -> None:
    """Two links to one node. It lost its power, kept its marker and lost its last lock: what an
    idle link was told of the run before that, and reads only now, lets nobody vote on the link
    to the new run.
    """
    rig = Rig()
    idle, link = rig.link, Link(rig.nodes[0], rig.mailbox, lambda: None, silence=SILENCE)
    before, after = "a" * 40, "b" * 40
    marker = marker_of(before)
    idle.connected(0.0)
    link.connected(0.1)
    link.received(greeting(marker, run_id=after, uptime_in_seconds=0), 0.2)
    assert rig.admission.standing(0, 0.2).state is State.QUARANTINED
    idle.received(greeting(marker, run_id=before), 6.0)
    assert verbs(link.submit(rig.ask(take()), 6.1)) == LOOKED
    assert (
        link.received(greeting(marker, load=False, run_id=after, uptime_in_seconds=0), 6.2) == b""
    )
    assert rig.fault().kind is FaultKind.QUARANTINED


def test_who_was_asked_before_another_one_forgot_is_asked_again() -> None:
    """Though nothing waits for it: the other's quarantine ends only on what a majority tells
    after the loss."""
    rig = Rig(3)
    for place, link in enumerate(rig.links):
        link.connected(0.0)
        link.received(greeting(marker_of(str(place), 3), run_id=str(place)), 0.0)
    for place, link in enumerate(rig.links):
        assert verbs(link.submit(rig.ask(take(), node=place), 0.5)) == ["EVALSHA take"]
        link.received(reply(100), 0.6)
    assert all(link.poke(1.0) == b"" for link in rig.links)
    rig.links[0].lost(GONE, 1.0)
    rig.links[0].connected(2.0)
    rig.links[0].received(greeting(marker_of("0", 3), run_id="again", uptime_in_seconds=0), 2.0)
    assert [verbs(link.poke(2.0)) for link in rig.links] == [[], LOOKED, LOOKED]
    assert verbs(rig.links[1].submit(rig.ask(take(), node=1), 2.0)) == ["EVALSHA take"], (
        "it votes meanwhile"
    )
    for place, link in enumerate(rig.links[1:], 1):
        link.received(greeting(marker_of(str(place), 3), run_id=str(place), load=False), 2.1)
    assert all(link.poke(2.2) == b"" for link in rig.links)


def test_whoever_loses_the_race_for_the_marker_adopts_what_stands() -> None:
    """Another client was first, with another promise: its marker is the node's, and ours is
    forgotten."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    rig.link.received(greeting(None), 0.2)
    stands = marker_of(max_ttl=300.0)
    assert [words[-1] for words in commands(rig.link.received(reply([0, stands]), 0.3))] == [stands]


def test_a_marker_that_cannot_be_written_refuses_the_vote() -> None:
    """No marker, no vote: the server's reason is told."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    rig.link.received(greeting(None), 0.2)
    assert rig.link.received(b"-MISCONF disk full\r\n", 0.3) == b""
    assert rig.fault() == Fault(FaultKind.ERROR, "said MISCONF disk full")


def test_a_greeting_is_answered_once_the_node_s_standing_is_known() -> None:
    """The first use waits for it; later it is answered at once; a closer look asks the node
    anew."""
    rig = Rig()
    assert rig.link.submit(rig.ask(Greet()), 0.0) == b""
    rig.link.connected(0.1)
    assert not rig.heard()
    rig.link.received(greeting(marker_of()), 0.2)
    (entry,) = rig.heard()
    assert isinstance(entry, Reply) and entry.value.marker == marker_of()
    assert rig.link.submit(rig.ask(Greet()), 0.3) == b"" and len(rig.heard()) == 1
    assert verbs(rig.link.submit(rig.ask(Greet(look=True)), 0.4)) == LOOKED
    assert not rig.heard()
    rig.link.received(greeting(marker_of(), load=False), 0.5)
    assert len(rig.heard()) == 1


def test_events_tell_of_admission_and_of_lost_connections() -> None:
    """Each once: admitted, disconnected, and one word for a node that stays unreachable however
    often it is dialled."""
    rig = Rig().admit()
    rig.link.lost(GONE, 1.0)
    for attempt in range(3):
        rig.link.submit(rig.ask(take()), 2.0 + attempt)
        rig.link.dial_failed(REFUSED, 2.0 + attempt)
    assert [type(event) for event in rig.events] == [
        events.NodeAdmitted,
        events.NodeDisconnected,
        events.NodeDisconnected,
    ]
    assert [event.reason for event in rig.events[1:]] == [  # type: ignore[attr-defined]
        "closed the connection",
        "refused the connection",
    ]


def test_a_node_that_comes_back_as_it_was_is_told_as_admitted_again() -> None:
    """Who counts the nodes that vote by their events would miss it for ever: its memory is the
    one of before."""
    rig = Rig().admit()
    rig.link.lost(GONE, 1.0)
    rig.link.submit(rig.ask(take()), 2.0)
    rig.link.dial_failed(REFUSED, 2.0)
    rig.admit(3.0)
    assert type(rig.events[-1]) is events.NodeAdmitted and rig.events[-1].at == 3.0


def test_a_node_that_refuses_our_credentials_is_told_as_rejected() -> None:
    """It answers, so it is not told as disconnected: whoever waits for a network to heal would
    wait for ever."""
    rig = Rig()
    rig.link.dial_failed(Fault(FaultKind.REFUSED, "refused our credentials"), 1.0)
    assert rig.events == [events.NodeRejected(1.0, "redis://node-0", "refused our credentials")]


@pytest.mark.parametrize("size", [1, 2, 7, 10**6])
def test_a_conversation_ends_the_same_however_its_bytes_arrive(size: int) -> None:
    """Greeting, grant, lost script, contention, a stranger and the greeting anew, cut into
    pieces of any size."""
    rig = Rig()
    rig.link.connected(0.0)
    asked = [rig.ask(command) for command in (take(1), take(2), take(3), free(1), take(4))]
    stream, written = greeting(marker_of()), b""
    for place in range(0, len(stream), size):
        written += rig.link.received(stream[place : place + size], 0.1)
    for request in asked:
        rig.link.submit(request, 0.2)
    stream = b"".join(
        [
            reply(1)
            + b"-NOSCRIPT x\r\n"
            + reply([0, 9, 100, "=*1000", 2])
            + reply(1)
            + reply([3, "gone"]),
            greeting(marker_of()) + reply([2, 5, 0, 7]),
            greeting(marker_of(), load=False),
        ]
    )
    for place in range(0, len(stream), size):
        written += rig.link.received(stream[place : place + size], 0.3)
    assert verbs(written) == [*GREETED, "EVAL take", *LOOKED]
    assert rig.kinds() == [Kind.GRANTED, Kind.BUSY, Kind.GRANTED, Kind.STRANGER, Kind.BEHIND]
    assert rig.link.broken is None and len(rig.link.in_flight) == 0


@pytest.mark.parametrize("mode", ["acquire", "extend"])
@pytest.mark.parametrize("then", ["lost", "another one admitted", "marked since"])
def test_a_vote_that_was_on_its_way_when_the_node_was_found_to_have_forgotten_does_not_count(
    mode: str, then: str
) -> None:
    """An older memory came back under its name, with the marker that the vote names, and executed
    it.

    Another connection of the client had met the newer one, and it may even be admitted by now.
    """
    rig = Rig(3).admit()
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    other.connected(1.0)
    rig.link.submit(rig.ask(take(7, mode)), 1.0)
    run = "0" * 40 if then == "marked since" else OTHER_RUN
    other.received(
        greeting(marker_of(run, 3, floor=9) if then == "another one admitted" else "", run_id=run),
        1.1,
    )
    if then == "marked since":
        other.received(reply([0, marker_of(run, 3, floor=9, since_us=CLOCK_US + 10)]), 1.15)
    assert (rig.admission.standing(0, 1.2).state is State.ADMITTED) is (then != "lost")
    rig.link.received(reply(7), 1.3)
    assert rig.kinds() == [FaultKind.QUARANTINED]


def test_a_vote_from_before_a_loss_does_not_count_beside_one_from_after_it() -> None:
    """The node was marked anew, and this connection votes again: the older grant is none all the
    same, read by its bytes."""
    rig = Rig(3).admit()
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    other.connected(1.0)
    rig.link.submit(rig.ask(take(7)), 1.0)
    run = "0" * 40
    other.received(greeting("", run_id=run), 1.1)
    other.received(reply([0, marker_of(run, 3, floor=9, since_us=CLOCK_US + 10)]), 1.15)
    assert rig.link.submit(rig.ask(take(8)), 1.2), "it is admitted again"
    rig.link.received(reply(7), 1.3)
    rig.link.received(reply(8), 1.3)
    assert rig.kinds() == [FaultKind.QUARANTINED, Kind.GRANTED]


def test_a_change_that_is_no_loss_costs_no_vote_that_is_on_its_way() -> None:
    """Another node failed, or a marker was raised: a grant that comes then is one, by its bytes
    or read in full."""
    rig = Rig(3).admit()
    for token, change in ((7, rig.admission.failed), (8, None)):
        rig.link.submit(rig.ask(take(token)), 1.0)
        if change is not None:
            change(2, REFUSED)
        else:
            identity = rig.admission.identity(0)
            assert identity is not None
            raised = replace(identity, marker=marker_of("0" * 40, 3, max_ttl=90.0))
            rig.admission.seen(0, raised, 1.1)
        rig.link.received(reply(token), 1.2)
    assert rig.kinds() == [Kind.GRANTED, Kind.GRANTED]


def test_a_look_that_goes_with_a_lost_script_is_written_also_where_the_vote_is_not() -> None:
    """A server answers NOSCRIPT to a vote of a node that was found to have forgotten meanwhile,
    by another connection. The look is in the order of questions then: were its bytes kept back,
    every answer from there on would be taken for an earlier one's.
    """
    rig = Rig(3).admit()
    other = Link(rig.node, rig.mailbox, lambda: None, silence=SILENCE)
    other.connected(1.0)
    rig.link.submit(rig.ask(take(7)), 1.0)
    other.received(greeting("", run_id="0" * 40), 1.1)
    assert rig.admission.standing(0, 1.1).state is not State.ADMITTED
    written = rig.link.received(b"-NOSCRIPT no such script\r\n", 1.2)
    assert len(commands(written)) == len(rig.link.in_flight) == len(GREETED)
    assert rig.kinds() == [FaultKind.ERROR]


def test_what_a_server_said_before_it_hung_up_is_told() -> None:
    """One that is full says so to the first question, whatever that was, and closes the
    connection."""
    rig = Rig()
    rig.link.submit(rig.ask(take()), 0.0)
    rig.link.connected(0.1)
    rig.link.received(b"-ERR max number of clients reached\r\n", 0.2)
    rig.link.lost(GONE, 0.2)
    (failure,) = rig.heard()
    assert isinstance(failure, Failure)
    assert failure.fault.detail == f"said ERR max number of clients reached, and {GONE.detail}"
