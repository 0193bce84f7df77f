"""What a command sends, and what its answers mean: `read` against a grammar that spells out
every form a script gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.commands import (
    MARKER_KEY,
    SHOWN_MAX,
    TOKEN_MAX,
    Canvass,
    Command,
    Free,
    Greet,
    Leave,
    Look,
    Mark,
    Nonsense,
    Peek,
    Plain,
    Repair,
    Script,
    Take,
    fields,
    scripts,
    to_ms,
)
from redlock.core.identity import Marker, Memory
from redlock.core.names import keys_of
from redlock.core.quorum import Kind, Vote
from redlock.errors import ConfigurationError

TOKEN = 1_795_344_261_156_309
TAKE = Take("k", "k:fence", "A", TOKEN, ttl=10.0, fence_ttl=60.0)
FREE = Free("k", "k:fence", "A", TOKEN, fence_ttl=60.0)
PEEK = Peek("k", "k:fence")
CANVASS = Canvass("k", "k:fence")
REPAIR = Repair("k", ttl=60.0)
HEAD, TAIL = "redlock2 repl 60000 0", "run 60000 3 0 - -"
"""What a marker says before and behind the instant that the node may put into it."""
WRITTEN = Marker(Memory("run", "repl"), 3, 60.0)
MARK = Mark(expected="", memory="repl", head=WRITTEN.head(), stamp="now", tail=WRITTEN.tail())
LOOK = Look()
LEAVE = Leave("k", "c.1")
COMMANDS = [TAKE, FREE, PEEK, CANVASS, REPAIR, MARK, LOOK, LEAVE]

# What a RESP2 reader can give for a reply: whole numbers, strings, nil, and lists of these.
NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([TOKEN, TOKEN - 1, TOKEN + 1, TOKEN_MAX, TOKEN_MAX + 1, -(2**63), 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
)
STRINGS = st.one_of(
    st.sampled_from(
        [b"", b"=", b"=A:7", b"A:7", b"=\xff", b"=x\ny", b"=" + b"x" * 128, b"=" + b"x" * 129]
    ),
    st.binary(),
)
SCALARS = st.one_of(NUMBERS, STRINGS, st.none())
REPLIES = st.one_of(
    SCALARS, st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=5)
)


def is_number(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def is_holder(value: Any, most: int) -> bool:
    """'=' and a bounded part of the lock's value."""
    return type(value) is bytes and value.startswith(b"=") and len(value) <= 1 + most


def is_taken(answer: Any) -> bool:
    return type(answer) is int and answer == TOKEN


def is_queued(rest: Any) -> bool:
    """What became of a place: it stands, the queue is full, or there is none."""
    return len(rest) == 1 and is_number(rest[0], 0, 2)


def are_names(rest: Any) -> bool:
    """Who waits, as far as a status asked for it: names and tickets."""
    return all(type(each) is bytes for each in rest)


def is_busy(most: int, *, listed: bool = False) -> Callable[[Any], bool]:
    return lambda answer: (
        len(answer) >= 4
        and answer[0] == 0
        and is_number(answer[1], 0, TOKEN_MAX)
        and is_number(answer[2], -1, 2**63)
        and is_holder(answer[3], most)
        and (is_queued(answer[4:]) or (listed and are_names(answer[4:])))
    )


def is_turn(answer: Any) -> bool:
    """Free, and somebody else's turn."""
    return (
        len(answer) == 3
        and answer[0] == 5
        and is_number(answer[1], 0, TOKEN_MAX)
        and is_queued(answer[2:])
    )


def is_behind(answer: Any) -> bool:
    return (
        len(answer) == 4
        and answer[0] == 2
        and is_number(answer[1], 0, TOKEN_MAX)
        and answer[2] == 0
        and is_number(answer[3], 1, TOKEN_MAX)
    )


def is_stranger(answer: Any) -> bool:
    return len(answer) == 2 and answer[0] == 3 and type(answer[1]) is bytes


def is_free(answer: Any) -> bool:
    return (
        len(answer) >= 2
        and answer[0] == 4
        and is_number(answer[1], 0, TOKEN_MAX)
        and are_names(answer[2:])
    )


def is_written(answer: Any) -> bool:
    """Ours, or another one than was expected to stand there."""
    if len(answer) != 2 or type(answer[1]) is not bytes:
        return False
    if answer[0] == 1:
        return answer[1].startswith(f"{HEAD} ".encode()) and answer[1].endswith(f" {TAIL}".encode())
    return answer[0] == 0 and answer[1] != b""


def is_clock(value: Any) -> bool:
    return type(value) is bytes and value.isdigit() and len(value) < 16


def is_look(answer: Any) -> bool:
    return (
        len(answer) == 5
        and all(type(value) is bytes for value in answer)
        and is_clock(answer[2])
        and is_clock(answer[3])
    )


def is_code(*codes: int) -> Callable[[Any], bool]:
    return lambda answer: type(answer) is int and answer in codes


def is_list(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda answer: isinstance(answer, list) and fits(answer)


BUSY, SEEN = is_list(is_busy(128)), is_list(is_busy(SHOWN_MAX, listed=True))
STRANGER, TURN = is_list(is_stranger), is_list(is_turn)
GRAMMAR: list[tuple[Command, list[tuple[Callable[[Any], bool], Any]]]] = [
    (
        TAKE,
        [
            (is_taken, Kind.GRANTED),
            (BUSY, Kind.BUSY),
            (TURN, Kind.BUSY),
            (is_list(is_behind), Kind.BEHIND),
            (STRANGER, Kind.STRANGER),
        ],
    ),
    (FREE, [(is_code(0, 1), Kind.GRANTED), (is_code(2), Kind.BUSY)]),
    *[
        (
            command,
            [
                (is_list(is_free), Kind.FREE),
                (SEEN, Kind.BUSY),
                (TURN, Kind.BUSY),
                (STRANGER, Kind.STRANGER),
            ],
        )
        for command in (PEEK, CANVASS)
    ],
    (REPAIR, [(is_code(0), False), (is_code(1), True)]),
    (MARK, [(is_list(is_written), str), (STRANGER, type(None))]),
    (LOOK, [(is_list(is_look), tuple)]),
    (LEAVE, [(is_code(1), type(None))]),
]


def meaning(command: Command, answer: Any) -> Any:
    """What the grammar makes of *answer*; None for nonsense."""
    forms = next(forms for known, forms in GRAMMAR if known is command)
    return next((sense for fits, sense in forms if fits(answer)), None)


def understood(command: Command, answer: Any) -> Any:
    """What `read` makes of it, in the grammar's terms."""
    try:
        value = command.read(answer)
    except Nonsense:
        return None
    if isinstance(value, Vote):
        return value.kind
    return value if isinstance(value, bool) else type(value)


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(COMMANDS), REPLIES)
def test_read_understands_exactly_what_its_script_says(command: Command, answer: Any) -> None:
    """Whatever else comes is nonsense: the connection is given up, and nothing that it says
    counts."""
    assert understood(command, answer) == meaning(command, answer)


WELL_FORMED: dict[Command, list[Any]] = {
    TAKE: [
        TOKEN,
        [0, 7, 5000, b"=X:7", 0],
        [0, 0, -1, b"=", 2],
        [5, 7, 1],
        [2, TOKEN, 0, TOKEN],
        [3, b""],
        [3, b"redlock2 x"],
    ],
    FREE: [0, 1, 2],
    PEEK: [
        [4, 0],
        [4, TOKEN, b"c.1", b"9"],
        [0, 7, 5000, b"=X:7"],
        [0, 7, 5000, b"=X:7", b"c.1", b"9"],
        [3, b""],
    ],
    CANVASS: [[4, 0], [0, 7, 0, b"=X:7", 1], [5, 7, 0], [3, b"redlock2 x"]],
    LEAVE: [1],
    REPAIR: [0, 1],
    MARK: [
        [0, b"x"],
        [0, b"redlock2 x"],
        [1, f"{HEAD} 1763927834123456 {TAIL}".encode()],
        [3, b""],
        [3, b"redlock2 x"],
    ],
    LOOK: [
        [b"role:master\r\n", b"", b"1763927834", b"123456", b""],
        [b"", b"redlock2 x", b"0", b"0", b"NOPERM"],
    ],
}


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_one_changed_place_in_an_answer_is_noticed(data: st.DataObject) -> None:
    """Right answers with one place replaced, removed or added: read as the grammar reads them. A
    number has one place."""
    command = data.draw(st.sampled_from(COMMANDS))
    form = data.draw(st.sampled_from(WELL_FORMED[command]))
    assert meaning(command, form) is not None
    answer: list[Any] = list(form) if isinstance(form, list) else [form]
    place = data.draw(st.integers(0, len(answer)))
    change = data.draw(st.sampled_from(["replace", "remove", "insert"]))
    if change == "insert":
        answer.insert(place, data.draw(SCALARS))
    elif place < len(answer):
        answer[place : place + 1] = [data.draw(SCALARS)] if change == "replace" else []
    whole = answer[0] if answer and not isinstance(form, list) else answer
    assert understood(command, whole) == meaning(command, whole)


ODD: list[Any] = [
    None,
    b"OK",
    -1,
    9,
    [0],
    [1],
    [2],
    [],
    [[]],
    [None],
    [b"1"],
    [-1],
    [9],
    [0, 0, 0, 0, 0],
]
NONSENSE: list[tuple[Command, Any]] = [
    *[(command, answer) for command in COMMANDS for answer in ODD],
    *[
        (TAKE, answer)
        for answer in (
            TOKEN - 1,
            TOKEN + 1,
            0,
            1,
            2,
            str(TOKEN).encode(),
            [TOKEN],
            [1, TOKEN, 0],
            [4, 0],
            [2, TOKEN, 0],
        )
    ],
    *[(TAKE, [2, 7, 0, time]) for time in (0, -1, TOKEN_MAX + 1, None)],
    *[(TAKE, [2, fence, 0, 99]) for fence in (-1, TOKEN_MAX + 1, b"7")],
    (TAKE, [2, 7, 1, 99]),
    *[(command, [3, marker]) for command in (TAKE, PEEK, CANVASS) for marker in (None, 0, [b""])],
    *[
        (command, answer)
        for command in (TAKE, PEEK, CANVASS)
        for answer in (
            [0, -1, 5000, b"=X:7", 2],
            [0, TOKEN_MAX + 1, 5000, b"=X:7", 2],
            [0, 7, -2, b"=X:7", 2],
            [0, 7, None, b"=X:7", 2],
            [0, 7, 5000, b"X:7", 2],
            [0, 7, 5000, b"", 2],
            [0, 7, 5000, None, 2],
            [0, 7, 5000, b"=" + b"x" * (1 + (128 if command is TAKE else SHOWN_MAX)), 2],
            [0, 7, 5000, b"=X:7", 3],
            [0, 7, 5000, b"=X:7", 2, 2],
            [5, 7],
            [5, -1, 0],
            [5, 7, 3],
            [5, 7, b"0"],
        )
    ],
    *[
        (PEEK, answer)
        for answer in (
            TOKEN,
            0,
            1,
            [2, 7, 0, 99],
            [4],
            [4, -1],
            [4, TOKEN_MAX + 1],
            [4, None],
            [4, 7, 0],
        )
    ],
    *[(FREE, answer) for answer in (3, TOKEN, b"1", [1, 0], [3, b""])],
    *[(REPAIR, answer) for answer in (2, b"1", [1, 0])],
    *[
        (MARK, answer)
        for answer in (
            [2, b""],
            [1, None],
            [1],
            [3, None],
            [3],
            [1, b"", b""],
            [0, b""],
            [1, b"redlock2 x"],
        )
    ],
    *[
        (MARK, [1, text.encode()])
        for text in (f"{HEAD}1 1 {TAIL}", f"{HEAD} 1 {TAIL}s", f"{HEAD} 1", f"1 {TAIL}")
    ],
    *[
        (LOOK, answer)
        for answer in (
            [b"", b"", b"1763927834", b"123456"],
            [b"", None, b"1763927834", b"123456", b""],
            [b"", b"", 1763927834, 123456, b""],
            [b"", b"", b"-1", b"123456", b""],
            [b"", b"", b"1763927834", b"", b""],
            [b"", b"", b"1" * 16, b"123456", b""],
            [b"", b"", b"1763927834", b"123456", None],
            [b"", b"", [b"1763927834", b"123456"], b""],
            b"role:master",
        )
    ],
]


@pytest.mark.parametrize(("command", "answer"), NONSENSE)
def test_what_a_script_never_says_is_nonsense(command: Command, answer: Any) -> None:
    """Above all a grant for another token, and a holder that is none."""
    assert meaning(command, answer) is None
    with pytest.raises(Nonsense):
        command.read(answer)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_script_says_is_understood(command: Command) -> None:
    """Each of its forms, with the meaning that the grammar gives it."""
    for answer in WELL_FORMED[command]:
        assert understood(command, answer) == meaning(command, answer) is not None


@settings(deadline=None)
@given(st.integers(0, TOKEN_MAX), NUMBERS, SCALARS)
def test_a_grant_for_another_token_is_never_ours(token: int, answered: int, rest: Any) -> None:
    """A reply to somebody else's question, or to another round's, is nonsense and not a grant."""
    for mode in ("acquire", "extend", "verify"):
        command = Take("k", "k:fence", "A", token, ttl=10.0, fence_ttl=60.0, mode=mode)
        if answered != token:
            with pytest.raises(Nonsense):
                command.read(answered)
        with pytest.raises(Nonsense):
            command.read([1, token, rest])
        assert command.read(token).kind is Kind.GRANTED


def test_a_vote_carries_what_the_node_told() -> None:
    """Fence, seconds left, holder and the node's clock."""
    assert TAKE.read([0, 7, 1500, b"=X:7", 0]) == Vote(Kind.BUSY, 7, 1.5, "X:7")
    assert TAKE.read([0, 7, -1, b"=X", 2]) == Vote(Kind.BUSY, 7, -1.0, "X")
    for command in (TAKE, CANVASS):
        full = command.read([0, 7, 1500, b"=X:7", 1])
        assert full == Vote(Kind.BUSY, 7, 1.5, "X:7", full=True)
        assert command.read([5, 7, 1]) == Vote(Kind.BUSY, 7, full=True)
        assert command.read([5, 7, 2]) == command.read([5, 7, 0]) == Vote(Kind.BUSY, 7)
    waiting = (("c.1 a label", 9), ("\ufffd", TOKEN))
    told = [b"c.1 a label", b"9", b"\xff", str(TOKEN).encode()]
    assert PEEK.read([4, 7, *told]) == Vote(Kind.FREE, 7, waiting=waiting)
    assert PEEK.read([0, 7, 0, b"=X:7", *told]).waiting == waiting
    # What somebody else keeps there: not to be shown as who waits, and no nonsense of ours.
    assert PEEK.read([4, 7, b"x", b"1.5", b"y", b"1" * 17, b"odd"]) == Vote(Kind.FREE, 7)
    assert PEEK.read([0, 7, 0, b"==\xff"]) == Vote(Kind.BUSY, 7, 0.0, "=\ufffd")
    assert TAKE.read([2, TAKE.token, 0, 99]) == Vote(Kind.BEHIND, TAKE.token, time_us=99)
    clock = TAKE.token - 70_000_000
    assert TAKE.read([2, 7, 0, clock]) == Vote(Kind.BEHIND, 7, time_us=clock, ahead=70.0)
    assert PEEK.read([4, 7]) == Vote(Kind.FREE, 7)
    assert MARK.read([0, b"\xff"]) == "\ufffd"
    assert MARK.read([3, b"redlock2 x"]) is None, (
        "the marker of another memory is nobody's to adopt"
    )


def test_a_look_tells_the_fields_the_marker_and_the_clock() -> None:
    """INFO's lines as fields, sections and empty lines left out of it; no marker is the empty
    text."""
    info = b"# Server\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:master\r\nmaster_host:a:b\r\n"
    told, marker, clock, mute = LOOK.read([info, b"", b"1763927834", b"123456", b""])
    assert (told["run_id"], told["role"], told["master_host"]) == ("abc", "master", "a:b")
    assert marker == mute == ""
    assert clock == pytest.approx(1763927834.123456, abs=1e-6)
    assert LOOK.read([b"", b"\xff", b"0", b"0", b"NOPERM \xff"])[1::2] == (
        "\ufffd",
        "NOPERM \ufffd",
    )
    assert fields(info) == told


def test_nonsense_is_quoted_shortly() -> None:
    """A reply of a megabyte must not become a message of a megabyte."""
    with pytest.raises(Nonsense) as caught:
        FREE.read([b"x" * 1_000_000])
    assert len(str(caught.value)) <= 80


def test_plain_answers_must_have_the_right_shape() -> None:
    """INFO is text, TIME a list, a marker text or nothing."""
    info = Plain("info", "INFO", shape=bytes)
    assert info.words() == ("INFO",)
    assert info.read(b"role:master") == b"role:master"
    for answer in (1, None, [b"x"]):
        with pytest.raises(Nonsense):
            info.read(answer)
    assert Plain("marker", "GET", MARKER_KEY, shape=(bytes, type(None))).read(None) is None


@settings(deadline=None, max_examples=500)
@given(st.floats(0.0, 1e9))
def test_milliseconds_are_never_rounded_down(seconds: float) -> None:
    """A node that held a lock for less than was asked would drop it inside its validity; a
    nanosecond is float noise."""
    milliseconds = to_ms(seconds)
    assert type(milliseconds) is int
    assert milliseconds >= seconds * 1000.0 - 1e-6
    assert milliseconds < seconds * 1000.0 + 1.001


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(0.0, 0), (0.001, 1), (0.0011, 2), (0.3, 300), (1.1, 1100), (10.0, 10_000)],
)
def test_whole_milliseconds_stay_as_they_are(seconds: float, milliseconds: int) -> None:
    """1.1 * 1000 is 1100.0000000000002 in floats, and still 1100 ms."""
    assert to_ms(seconds) == milliseconds


def test_words_name_script_keys_and_arguments() -> None:
    """EVALSHA with as many keys as the script takes; the connection appends the marker to what
    is marked."""
    assert TAKE.script is not None
    token = str(TOKEN)
    assert TAKE.words() == (
        *("EVALSHA", TAKE.script.sha, "3", "k", "k:fence", MARKER_KEY),
        *("A", token, "", "10000", "60000", "acquire"),
    )
    in_line = Take("k", "k:fence", "A", TOKEN, ttl=10.0, fence_ttl=60.0, place="9 c.1", note="n")
    assert in_line.words()[2:] == (
        *("4", "k", "k:fence", MARKER_KEY, "k:lock-queue"),
        *("A", token, "9 c.1", "10000", "60000", "acquire", "n"),
    )
    assert TAKE.words(whole=True)[:2] == ("EVAL", TAKE.script.source)
    assert FREE.words()[2:] == ("2", "k", "k:fence", "A", token, "", "60000")
    left = Free("k", "k:fence", "A", TOKEN, fence_ttl=60.0, place="c.1")
    assert left.words()[2:] == (
        *("3", "k", "k:fence", "k:lock-queue"),
        *("A", token, "c.1", "60000"),
    )
    seen = ("4", "k", "k:fence", MARKER_KEY, "k:lock-queue")
    assert PEEK.words()[2:] == CANVASS.words()[2:] == seen
    assert Canvass("k", "k:fence", place="9 c.1").words()[2:] == (*seen, "9 c.1")
    assert LEAVE.script is not None
    assert LEAVE.words() == ("EVAL", LEAVE.script.source, "2", "k", "k:lock-queue", "c.1")
    assert REPAIR.words()[2:] == ("1", "k", "60000")
    assert MARK.words()[2:] == ("1", MARKER_KEY, "", "repl", HEAD, "now", TAIL)
    assert LOOK.words()[2:] == ("1", MARKER_KEY)


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, Plain("info", "INFO", shape=bytes)],
    ids=lambda command: type(command).__name__,
)
def test_words_are_text_and_never_numbers(command: Command) -> None:
    """hiredis crashes the process if Ctrl-C strikes while it turns a number into text; text it
    copies without a look."""
    for whole in (False, True):
        assert {type(word) for word in command.words(whole=whole)} == {str}


def test_a_release_that_nobody_waits_for_carries_its_script() -> None:
    """Nobody would read that the server has lost the script, so the text goes out at once."""
    unattended = Free("k", "k:fence", "A", TOKEN, fence_ttl=60.0, unattended=True)
    assert unattended.words()[0] == "EVAL"
    assert FREE.words()[0] == "EVALSHA"


def test_only_votes_are_marked_and_only_releases_are_final() -> None:
    """What needs an admitted node, and what is owed to a node until it answers."""
    assert [command.marked for command in COMMANDS] == [
        True,
        False,
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert [command.final for command in COMMANDS] == [
        False,
        True,
        False,
        False,
        False,
        False,
        False,
        False,
    ]
    assert not Greet().marked
    assert not Greet().final


def test_scripts_are_named_by_the_digest_of_their_text() -> None:
    """What EVALSHA asks for; admission loads the five that go out all the time."""
    assert [script.name for script in scripts()] == ["take", "free", "peek", "leave", "look"]
    for script in (*scripts(), Script("repair"), Script("mark")):
        assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()
        assert len(script.sha) == 40
        assert "-- include" not in script.source
    queue = [script.name for script in scripts() if "local function enter(" in script.source]
    assert queue == ["take", "free", "peek", "leave"]


@settings(deadline=None)
@given(st.text(min_size=1), st.sampled_from(["redlock:", "", "app:"]))
def test_a_resource_has_two_keys_of_its_own(resource: str, prefix: str) -> None:
    """Lock and fence, side by side; a name whose key would be a marker or a fence is refused."""
    try:
        lock_key, fence_key = keys_of(prefix, resource)
    except ConfigurationError:
        assert prefix + resource == MARKER_KEY or resource.endswith(":fence")
    else:
        assert (lock_key, fence_key) == (prefix + resource, prefix + resource + ":fence")
        assert MARKER_KEY not in (lock_key, fence_key)


@pytest.mark.parametrize(
    ("prefix", "resource"),
    [
        ("redlock:", "node"),
        ("", "redlock:node"),
        ("redlock:", "x:fence"),
        ("redlock:", ":fence"),
        ("redlock", ":node"),
        ("x", ""),
    ],
)
def test_a_name_that_is_one_of_ours_is_refused(prefix: str, resource: str) -> None:
    """A lock at the marker's key would take the node out of its cluster; one at a fence's would
    let tokens fall."""
    with pytest.raises(ConfigurationError):
        keys_of(prefix, resource)


@pytest.mark.parametrize("resource", [None, 7, b"x"])
def test_a_resource_is_a_string(resource: Any) -> None:
    """Refused before anything is sent."""
    with pytest.raises(ConfigurationError):
        keys_of("redlock:", resource)


def test_a_ttl_just_below_max_ttl_rounds_up_to_it() -> None:
    """And never past it: the script refuses a ttl above the max_ttl of the marker, which is
    rounded in the same way."""
    assert to_ms(60.0) == 60_000
    assert to_ms(59.9999) == 60_000
