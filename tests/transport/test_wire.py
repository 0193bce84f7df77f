"""Bytes: what we write is what redis-py writes, and no reply can make the reader lie, recurse or
grow."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from redlock.core.commands import (
    Canvass,
    Command,
    Free,
    Leave,
    Look,
    Mark,
    Peek,
    Plain,
    Repair,
    Take,
)
from redlock.transport import wire
from redlock.transport.wire import (
    ELEMENTS_MAX,
    LINE_MAX,
    NOT_YET,
    REPLY_MAX,
    ReplyReader,
    ServerError,
    WireError,
    bulk,
    encode,
    encode_whole,
)

KEYS = ("redlock:rechnung:42", "redlock:rechnung:42:fence")
OWNER = "0123456789abcdef" * 2
MARKER = f"redlock2 {'f' * 40} 60000 0 1763927834123456 {'e' * 40} 60000 5 0 - -"

COMMANDS: list[Command] = [
    Take(*KEYS, OWNER, 1763927834123456, ttl=10.0, fence_ttl=604800.0),
    Take("ключ:é", "ключ:é:fence", OWNER, 1, ttl=0.0015, fence_ttl=0.0, mode="extend"),
    Take("a\r\nb $1\r\n", "a\r\nb $1\r\n:fence", OWNER, 7, ttl=1.0, fence_ttl=1.0, mode="verify"),
    Take(*KEYS, OWNER, 7, ttl=1.0, fence_ttl=1.0, place="1763927834123456 a1b2.3 é", note="n"),
    Take(*KEYS, OWNER, 7, ttl=1.0, fence_ttl=1.0, place="-"),
    Free(*KEYS, OWNER, 1763927834123456, fence_ttl=604800.0),
    Free(*KEYS, OWNER, 7, fence_ttl=604800.0, place="a1b2.3 é"),
    Free(*KEYS, OWNER, 1763927834123456, fence_ttl=604800.0, unattended=True),
    Peek(*KEYS),
    Canvass(*KEYS),
    Canvass(*KEYS, place="1763927834123456~a1b2.3"),
    Leave(KEYS[0], "a1b2.3 é"),
    Repair(KEYS[0], ttl=60.0),
    Mark(
        expected="",
        memory="abc",
        head="redlock2 abc 60000 0",
        stamp="now",
        tail="def 60000 5 0 - -",
    ),
    Look(),
    Plain("info", "INFO", shape=bytes),
    Plain("load", "SCRIPT", "LOAD", "return 1", shape=bytes),
]


def packed_by_redis_py(*words: str | int) -> bytes:
    return b"".join(redis.Connection().pack_command(*words))


def reading(*chunks: bytes) -> list[Any]:
    """Every reply in *chunks*; raises WireError as the reader does."""
    reader, found = ReplyReader(), []
    for chunk in chunks:
        reader.feed(chunk)
        while (reply := reader.next()) is not NOT_YET:
            found.append(reply)
    return found


def cuts(data: bytes) -> list[tuple[bytes, ...]]:
    """*data* whole, cut in two at every byte, and byte by byte."""
    halves = [(data[:place], data[place:]) for place in range(1, len(data))]
    return [(data,), *halves, tuple(data[place : place + 1] for place in range(len(data)))]


# Writing


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_is_encoded_as_redis_py_encodes_it_with_the_marker_last(command: Command) -> None:
    """A marked command and the node's marker together are one command, whose last argument the
    marker is."""
    tail, last = (bulk(MARKER), (MARKER,)) if command.marked else (b"", ())
    assert encode(command) + tail == packed_by_redis_py(*command.words(), *last)
    if command.script is not None:
        assert encode_whole(command) + tail == packed_by_redis_py(*command.words(whole=True), *last)


def test_a_command_is_encoded_once_for_all_nodes() -> None:
    """The bytes are shared: five nodes cost one encoding."""
    take = Take(*KEYS, OWNER, 5, ttl=10.0, fence_ttl=60.0)
    assert encode(take) is encode(take)


def test_the_whole_text_is_not_remembered_as_the_command() -> None:
    """One node that lost the script does not make the others receive its text."""
    take = Take(*KEYS, OWNER, 5, ttl=10.0, fence_ttl=60.0)
    assert b"EVALSHA" in encode(take)
    assert b"EVALSHA" not in encode_whole(take)
    assert b"EVALSHA" in encode(take)


@pytest.mark.parametrize("text", ["", "plain", "Ω", "a\r\nb", "x" * 5000])
def test_a_bulk_string_counts_bytes(text: str) -> None:
    """The length before an argument is that of its bytes, not of its characters."""
    assert b"*2\r\n" + bulk("ECHO") + bulk(text) == packed_by_redis_py("ECHO", text)


# Reading

INFO = b"".join(
    line + b"\r\n"
    for line in [
        b"# Server",
        b"redis_version:7.0.15",
        b"run_id:" + b"a" * 40,
        b"executable:/opt/*1000/%5/~server",
        b"",
        b"# Keyspace",
        b"db0:keys=1000000,expires=3,avg_ttl=*999",
        b"*1000 lines",
        b"%% >1",
    ]
)


def as_bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


REPLIES: list[tuple[bytes, Any]] = [
    (b":1763927834123456\r\n", 1763927834123456),
    (b"*4\r\n:0\r\n:5\r\n:-1\r\n" + as_bulk(b"=somebody:12"), [0, 5, -1, b"=somebody:12"]),
    (
        b"*5\r\n:0\r\n:5\r\n:9000\r\n" + as_bulk(b"=somebody:12") + b":1\r\n",
        [0, 5, 9000, b"=somebody:12", 1],
    ),
    (
        b"*3\r\n" + as_bulk(b"message") + as_bulk(b"redlock:wake:us") + as_bulk(b"us.7"),
        [b"message", b"redlock:wake:us", b"us.7"],
    ),
    (b":1\r\n", 1),
    (b"*2\r\n:3\r\n$0\r\n\r\n", [3, b""]),
    (b":-7\r\n", -7),
    (b"+OK\r\n", b"OK"),
    (b"$-1\r\n", None),
    (b"*0\r\n", []),
    (as_bulk(INFO), INFO),
]


def test_replies_come_out_whole_wherever_they_are_cut() -> None:
    """Cut in two at any byte, or byte by byte: the same replies in the same order."""
    stream = b"".join(data for data, _ in REPLIES)
    expected = [value for _, value in REPLIES]
    for chunks in cuts(stream):
        assert reading(*chunks) == expected


@pytest.mark.parametrize("middle", [b":0\r\n:5\r\n", b":0\r\n"])
def test_the_middle_of_a_refusal_is_not_taken_for_votes(middle: bytes) -> None:
    """Its fence and its time arrive in a segment of their own, and look like the tokens of whole
    answers: they count as what was announced, in this reply and in the next, and nothing is left
    to come.
    """
    refusal = b"*4\r\n:0\r\n:5\r\n:-1\r\n" + as_bulk(b"=somebody:12")
    begin, end = b"*4\r\n", refusal[refusal.index(middle) + len(middle) :]
    assert begin + middle + end == refusal
    reader = ReplyReader()
    for _ in range(2):
        for part in (begin, middle, end):
            assert reader.next() is NOT_YET
            reader.feed(part)
        assert reader.next() == [0, 5, -1, b"=somebody:12"]
        assert not reader.cut


def test_a_value_that_looks_like_votes_is_no_vote() -> None:
    """Whatever stands at a lock key, and however the network cuts it."""
    value = b":1\r\n:2\r\n"
    parts = (b"*4\r\n:0\r\n:5\r\n:-1\r\n$%d\r\n" % len(value), value, b"\r\n")
    assert reading(*parts, *parts) == [[0, 5, -1, value]] * 2


def test_an_error_reply_is_a_value() -> None:
    """An error is a node's answer, not an exception of ours; those behind it are read too."""
    for chunks in cuts(b"-NOSCRIPT No matching script.\r\n:1\r\n-BUSY x\r\n"):
        first, one, last = reading(*chunks)
        assert (type(first), str(first), one, str(last)) == (
            ServerError,
            "NOSCRIPT No matching script.",
            1,
            "BUSY x",
        )


HOLDERS = [b"=*1000000000", b"=*9\r\n", b"=%100", b"=$999999999", b"=>5", b"=-ERR no"]
FOREIGN = [b"*1000\r\n:1\r\n", b"\n*1000\n%1\r\n|1", b"\r\n"]


@pytest.mark.parametrize("holder", HOLDERS + FOREIGN, ids=repr)
def test_what_a_bulk_string_holds_is_never_taken_for_a_header(holder: bytes) -> None:
    """Somebody else's lock value, or INFO, may look like anything: it is no reason to give a
    connection up."""
    data = b"*4\r\n:0\r\n:5\r\n:100\r\n" + as_bulk(holder) + b":1\r\n"
    for chunks in cuts(data):
        assert reading(*chunks) == [[0, 5, 100, holder], 1]


@pytest.mark.parametrize(
    "count", [ELEMENTS_MAX + 1, 1000, 4096, 10**6, 10**9, 2**32, 2**63 - 1, 10**40]
)
@pytest.mark.parametrize(
    "before",
    [
        b"",
        b":1\r\n",
        as_bulk(INFO),
        b"-ERR x\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*3\r\n:1\r\n:9\r\n:0\r\n",
    ],
)
def test_a_header_of_many_elements_is_refused_wherever_it_is_cut(before: bytes, count: int) -> None:
    """hiredis reserves memory for every element that a header announces, so it must never see
    such a header."""
    header = b"*%d\r\n" % count
    for chunks in cuts(header):
        with pytest.raises(WireError):
            reading(before, *chunks)
        with pytest.raises(WireError):
            reading(before + chunks[0], *chunks[1:])


@pytest.mark.parametrize("kind", [b"$", b"*"])
def test_a_size_of_thousands_of_digits_is_refused_as_any_other(kind: bytes) -> None:
    """Python reads no number of more than 4300 digits, and raises what a caller of `acquire`
    should not see."""
    with pytest.raises(WireError):
        reading(kind + b"9" * (LINE_MAX - 100) + b"\r\n")


def test_an_array_of_as_many_elements_as_allowed_is_read() -> None:
    """The bound refuses no more than it says."""
    assert reading(b"*%d\r\n" % ELEMENTS_MAX + b":1\r\n" * ELEMENTS_MAX) == [[1] * ELEMENTS_MAX]


@pytest.mark.parametrize("skipped", [b"YZ", b":1", b"+a"])
def test_a_header_behind_a_bulk_string_that_does_not_end_is_refused(skipped: bytes) -> None:
    """hiredis skips the two bytes behind a bulk string unread, so a header could hide in the
    same line, behind any beginning."""
    for chunks in cuts(b"$1\r\nX" + skipped + b"*1000000000\r\n"):
        with pytest.raises(WireError):
            reading(*chunks)


RESP3 = [
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.0\r\n",
    b",inf\r\n",
    b"(12345678901234567890\r\n",
    b"!5\r\nERR x\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"%1\r\n:1\r\n:2\r\n",
    b"~1\r\n:1\r\n",
    b">1\r\n:1\r\n",
    b"|1\r\n:1\r\n:2\r\n",
    b"*?\r\n:1\r\n.\r\n",
    b"$?\r\n;1\r\na\r\n;0\r\n",
]


@pytest.mark.parametrize("data", RESP3, ids=repr)
def test_types_of_resp3_are_refused(data: bytes) -> None:
    """We asked for RESP2. In Python `True == 1` and `5.0 == 5`, so `[#t, ,5, #f]` would pass for
    a grant."""
    for whole in (data, b":1\r\n" + data, b"*2\r\n:1\r\n" + data):
        for chunks in cuts(whole):
            with pytest.raises(WireError):
                reading(*chunks)


def test_an_array_inside_an_array_is_refused() -> None:
    """A thousand nested arrays of one element are harmless to memory, and end in a
    RecursionError when they are shown."""
    for data in (b"*1\r\n*0\r\n", b"*1\r\n" * 1000 + b":1\r\n", b"*2\r\n:1\r\n*1\r\n:1\r\n"):
        with pytest.raises(WireError):
            reading(data)


BROKEN_LINES = [
    b"\r\n",
    b"\n",
    b"\0\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b":\r\n",
    b":1x\r\n",
    b":1\n",
    b"+a\rb\r\n",
]
BROKEN_STRINGS = [
    b"$1\r\nab\r\n",
    b"$1\r\na\rb\r\n",
    b"$-2\r\n",
    b"$ 1\r\n",
    b"$1x\r\n",
    b"$\r\n",
    "$\u0661\r\n".encode(),
]
BROKEN_NUMBERS = [
    b"*-1\r\n",
    b"*-2\r\n",
    b"*x\r\n",
    b"*\r\n",
    b"* 3\r\n",
    b"*+3\r\n",
    b":99999999999999999999\r\n",
]


@pytest.mark.parametrize("data", BROKEN_LINES + BROKEN_STRINGS + BROKEN_NUMBERS, ids=repr)
def test_what_is_not_resp_raises(data: bytes) -> None:
    """Whatever is wrong, it is a WireError: the caller gives the connection up and nothing else."""
    for chunks in cuts(data):
        with pytest.raises(WireError):
            reading(*chunks)


FAMILIAR = [
    b"*3\r\n$7\r\nmessage\r\n$%d\r\nwYZ:1\r\n$5\r\nus.17\r\n",
    b"*3\r\n$7\r\nmessage\r\n$5\r\nwake:\r\n$%d\r\nuYZ:1\r\n",
    b"*5\r\n:0\r\n:5\r\n:9000\r\n$%d\r\n=YZ:1\r\n:1\r\n",
]


@pytest.mark.parametrize("form", FAMILIAR, ids=repr)
def test_what_waiters_hear_is_not_believed_by_its_form(form: bytes) -> None:
    """It comes often, and is read the short way, but not where a size is not its own: what is left
    over would be the next answer."""
    assert reading(form % 5)
    for lie in (0, 1, 4, 6):
        with pytest.raises(WireError):
            reading(form % lie, b":1\r\n")


def test_a_bulk_string_is_bounded_by_its_header() -> None:
    """The largest reply is read; one that announces a byte more is refused before a byte of it
    came."""
    body = b"x" * (REPLY_MAX - 64)
    assert reading(as_bulk(body)) == [body]
    for size in (REPLY_MAX + 1, 10**9, 2**31, 2**63, 10**30):
        with pytest.raises(WireError):
            reading(b"$%d\r\n" % size)


def test_a_reply_that_never_ends_is_bounded() -> None:
    """Neither a line without an end nor an array of large strings is kept beyond the bound."""
    for begin, more in (
        (b"+", b"x" * 1000),
        (b"-ERR ", b"y" * 1000),
        (b"$", b"1" * 1000),
        (b"*90\r\n", as_bulk(b"z" * 9000)),
    ):
        reader = ReplyReader()
        reader.feed(begin)
        with pytest.raises(WireError):
            for _ in range(1 + (REPLY_MAX + LINE_MAX) // 1000):
                reader.feed(more)
                assert reader.next() is NOT_YET


def test_a_long_conversation_is_not_a_long_reply() -> None:
    """The bound is per reply: what was read whole does not count."""
    reader = ReplyReader()
    for _ in range(100):
        reader.feed(as_bulk(b"x" * 10_000) * 3)
        assert [reader.next() for _ in range(4)] == [b"x" * 10_000] * 3 + [NOT_YET]


FRAGMENTS = st.one_of(
    st.sampled_from(
        [data for data, _ in REPLIES]
        + RESP3
        + [b"-ERR x\r\n", b"*1\r\n*0\r\n", b"*1000\r\n", b"$5\r\nab"]
    ),
    st.binary(max_size=6),
    st.sampled_from(
        [b"*2\r\n", b"$3\r\n", b"abc", b"\r\n", b":1\r\n", b"*", b"$", b"1", b"\r", b"\n"]
    ),
)


@given(st.lists(FRAGMENTS, max_size=8), st.data())
def test_where_a_stream_is_cut_changes_nothing(fragments: list[bytes], data: st.DataObject) -> None:
    """The same replies, and the same verdict on the stream, however it arrives."""
    stream = b"".join(fragments)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [
        stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)
    ]

    def outcome(*parts: bytes) -> list[str] | None:
        try:
            return [repr(reply) for reply in reading(*parts)]
        except WireError:
            return None

    assert outcome(stream) == outcome(*chunks)


def test_what_has_long_keys_is_not_kept() -> None:
    """A thousand of them would stay in memory for as long as the process lives; and the bytes
    are the same."""
    wire._head.cache_clear()  # Other tests of this process may have filled it.
    for length, kept in ((100, 1), (100_000, 0)):
        name = "k" * length
        before = wire._head.cache_info().currsize
        data = encode(Take(f"{name}a", f"{name}a:fence", OWNER, 7, ttl=1.0, fence_ttl=2.0))
        assert wire._head.cache_info().currsize == before + kept
        assert f"{name}a:fence\r\n".encode() in data
