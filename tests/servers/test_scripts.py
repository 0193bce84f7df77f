"""The Lua files on a real server: what each of them writes, in which order, and what it leaves
alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redlock.core.commands import (
    MARKER_KEY,
    QUEUE_SUFFIX,
    TOKEN_MAX,
    Canvass,
    Command,
    Free,
    Look,
    Mark,
    Peek,
    Repair,
    Take,
)
from redlock.core.identity import Blank, Identity, Marker, Memory, blank
from redlock.core.quorum import Kind, Vote
from redlock.embedded import Node, Nodes

LOCK, FENCE = "redlock:r", "redlock:r:fence"
TTL, FENCE_TTL = 10.0, 600.0
FOREVER = -1
NO_FENCES = [
    "broken",
    "",
    "inf",
    "-inf",
    "nan",
    "0x10",
    "-1",
    " 7",
    "7\n",
    "7\0",
    "1e3",
    "7.0",
    str(2**53),
    str(2**64),
    "9" * 400,
]
"""What cannot be compared with a token, though most of it is a number to Lua."""
MINUTE_US = 60_000_000


class Server:
    """One node as a script sees it: ask it something, and look at its keys."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        self.marker = ""
        self.mark()

    def mark(self, *, max_ttl: float = 60.0, floor: int = 0) -> None:
        """Write the marker that clients were admitted with."""
        self.marker = Marker(self.identity().memory, 1, max_ttl, floor=floor, since_us=1).text()
        self.client.set(MARKER_KEY, self.marker)

    def identity(self) -> Identity:
        """What it tells of itself."""
        return Identity.parse(*self.ask(Look()))

    def ask(self, command: Command, *, marker: str | None = None) -> Any:
        """Send *command* as a connection would; an error reply is raised."""
        words = command.words(whole=True)
        if command.marked:
            words = (*words, self.marker if marker is None else marker)
        return command.read(self.client.execute_command(*words))

    def take(
        self,
        owner: str,
        token: int,
        mode: str = "acquire",
        *,
        ttl: float = TTL,
        fence_ttl: float = FENCE_TTL,
    ) -> Vote:
        vote = self.ask(Take(LOCK, FENCE, owner, token, ttl=ttl, fence_ttl=fence_ttl, mode=mode))
        assert isinstance(vote, Vote)
        return vote

    def free(self, owner: str, token: int, *, fence_ttl: float = FENCE_TTL) -> Any:
        """The script's own answer, which tells more than the vote."""
        words = Free(LOCK, FENCE, owner, token, fence_ttl=fence_ttl).words(whole=True)
        return self.client.execute_command(*words)

    def now_us(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1_000_000 + int(micros)

    @property
    def lock(self) -> str | None:
        value = self.client.get(LOCK)
        return value.decode() if value is not None else None

    @property
    def fence(self) -> int | None:
        value = self.client.get(FENCE)
        return int(value) if value is not None else None

    def expiry(self, key: str) -> int:
        """Milliseconds left; -1 for a key without expiry, -2 for none."""
        return int(self.client.pttl(key))

    def everything(self) -> dict[bytes, tuple[bytes, int]]:
        """All keys, their values and the very instants at which they expire."""
        return {
            key: (self.client.dump(key), self.client.pexpiretime(key))
            for key in self.client.scan_iter()
        }


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    """One real server for this module."""
    with Nodes(1) as nodes, nodes[0].client() as client:
        yield client


@pytest.fixture
def server(client: redis.Redis) -> Server:
    """The server without any key but its marker."""
    client.flushall()
    return Server(client)


def lasts(left: int, seconds: float) -> bool:
    """Whether *left* milliseconds are what *seconds* became since a moment ago."""
    return seconds * 1000 - 5_000 < left <= seconds * 1000


# TAKE


def test_take_writes_the_lock_and_its_fence(server: Server) -> None:
    """`owner:token` for the ttl, and beside it the token for the fence's."""
    token = server.now_us()
    assert server.take("A", token).kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token}", token)
    assert lasts(server.expiry(LOCK), TTL)
    assert lasts(server.expiry(FENCE), FENCE_TTL)


@pytest.mark.parametrize(
    ("above", "kind"),
    [(-1000, Kind.BEHIND), (-1, Kind.BEHIND), (0, Kind.BEHIND), (1, Kind.GRANTED)],
)
@pytest.mark.parametrize("mode", ["acquire"])
def test_the_fence_rises_strictly(server: Server, above: int, kind: Kind, mode: str) -> None:
    """A token that equals the fence was claimed before: counting it twice would grant it twice."""
    fence = server.now_us()
    server.client.set(FENCE, fence, px=600_000)
    before = server.everything()
    vote = server.take("A", fence + above, mode)
    assert vote.kind is kind
    if kind is Kind.BEHIND:
        assert vote.fence == fence
        assert abs(vote.time_us - server.now_us()) < 5_000_000
        assert server.everything() == before
    else:
        assert (server.lock, server.fence) == (f"A:{fence + 1}", fence + 1)


def test_the_fence_is_written_first(server: Server) -> None:
    """An abort between the two writes leaves a raised fence, which is harmless, never a lock
    without one.

    An expiry that the server refuses aborts the script at the write that carries it.
    """
    token = server.now_us()
    with pytest.raises(redis.ResponseError):
        server.take("A", token, fence_ttl=9.9e15)
    assert (server.lock, server.fence) == (None, None)
    with pytest.raises(redis.ResponseError):
        server.take("A", token, ttl=0.0)
    assert (server.lock, server.fence) == (None, token)


def test_tokens_keep_all_their_digits(server: Server) -> None:
    """Sixteen digits survive Lua, which would print them as 1.7953442611563e+15."""
    token = 1_795_344_261_156_309
    server.client.set(FENCE, token - 1)
    assert server.take("A", token).kind is Kind.GRANTED
    assert server.client.get(FENCE) == b"1795344261156309"
    assert server.take("B", token + 1).fence == token
    assert server.free("A", token) == 1
    assert server.client.get(FENCE) == b"1795344261156310"


def test_a_held_lock_is_busy_and_stays_as_it_is(server: Server) -> None:
    """The loser learns the fence, the holder and the time left; its larger token claims nothing."""
    token = server.now_us()
    server.take("A", token)
    before = server.everything()
    vote = server.take("B", token + 5)
    assert (vote.kind, vote.fence, vote.holder) == (Kind.BUSY, token, f"A:{token}")
    assert vote.ttl_left is not None
    assert lasts(round(vote.ttl_left * 1000), TTL)
    assert server.everything() == before


def test_an_owner_is_never_taken_for_one_whose_name_it_begins(server: Server) -> None:
    """`A` and `AB` are two owners, for TAKE and for FREE."""
    token = server.now_us()
    server.take("AB", token)
    assert server.take("A", token + 5).kind is Kind.BUSY
    assert server.free("A", token + 5) == 2
    assert server.lock == f"AB:{token}"


def test_a_duplicate_is_granted_and_changes_nothing(server: Server) -> None:
    """The same request, executed twice: the second grant is the first one's."""
    token = server.now_us()
    server.take("A", token, ttl=5.0)
    before = server.everything()
    assert server.take("A", token, ttl=10.0).kind is Kind.GRANTED
    assert server.everything() == before


def test_a_second_round_replaces_the_first_ones_claim(server: Server) -> None:
    """The same owner with a larger token falls through to the strict raise, and gets the whole
    ttl."""
    token = server.now_us()
    server.take("A", token, ttl=5.0)
    assert server.take("A", token - 1).kind is Kind.BEHIND
    assert server.take("A", token + 1, ttl=10.0).kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token + 1}", token + 1)
    assert lasts(server.expiry(LOCK), 10.0)
    assert server.expiry(LOCK) > 5_000


def test_a_token_too_far_ahead_is_refused(server: Server) -> None:
    """More than a minute past the node's clock, and more than 2048 past the fence: one broken
    clock must not move them all."""
    now = server.now_us()
    vote = server.take("A", now + 3600 * 1_000_000)
    assert (vote.kind, vote.fence) == (Kind.BEHIND, 0)
    assert abs(vote.time_us - now) < 5_000_000
    assert (server.lock, server.fence) == (None, None)
    assert server.take("A", now + 59_000_000).kind is Kind.GRANTED


def test_the_clamp_is_relative_to_the_fence(server: Server) -> None:
    """Where a fence is ahead of the clock, small steps past it go on: otherwise nobody could
    ever take the lock again."""
    ahead = server.now_us() + 3600 * 1_000_000
    server.client.set(FENCE, ahead)
    assert server.take("A", ahead + 2049).kind is Kind.BEHIND
    assert server.fence == ahead
    assert server.take("A", ahead + 2048).kind is Kind.GRANTED


@pytest.mark.parametrize("fence", ["equal", "missing"])
def test_the_clamp_is_for_acquiring_only(server: Server, fence: str) -> None:
    """A node whose clock steps back must not refuse a holder's extension."""
    ahead = server.now_us() + 3600 * 1_000_000
    if fence == "equal":
        server.client.set(FENCE, ahead)
    assert server.take("A", ahead, "extend").kind is Kind.GRANTED


def test_the_floor_is_under_every_new_token(server: Server) -> None:
    """A node that forgot has a floor: no token up to it is taken, a small step past it is, also
    far ahead of the clock."""
    floor = server.now_us() + 2 * MINUTE_US
    server.mark(floor=floor)
    for token in (server.now_us(), floor):
        vote = server.take("A", token)
        assert (vote.kind, vote.fence) == (Kind.BEHIND, floor)
    assert (server.lock, server.fence) == (None, None)
    assert server.take("A", floor + 2049).kind is Kind.BEHIND
    assert server.take("A", floor + 1).kind is Kind.GRANTED


def test_an_extension_knows_no_floor(server: Server) -> None:
    """The holder's token is as old as its grant."""
    token = server.now_us()
    server.mark(floor=token + MINUTE_US)
    assert server.take("A", token, "extend").kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token}", token)


@pytest.mark.parametrize("mode", ["acquire", "extend", "verify"])
def test_a_ttl_above_max_ttl_is_refused(server: Server, mode: str) -> None:
    """Nodes that forget wait for max_ttl: a longer lock would outlive their quarantine."""
    server.mark(max_ttl=5.0)
    token = server.now_us()
    before = server.everything()
    with pytest.raises(
        redis.ResponseError, match="a ttl of 5001 ms is above this cluster's max_ttl of 5000 ms"
    ):
        server.take("A", token, mode, ttl=5.001)
    assert server.everything() == before
    assert server.take("A", token, ttl=5.0).kind is Kind.GRANTED


@pytest.mark.parametrize("mode", ["acquire", "extend", "verify"])
def test_another_marker_is_a_stranger(server: Server, mode: str) -> None:
    """A proxy, a flush or a moved address put another node behind the connection: nothing
    counts, nothing is written."""
    command = Take(LOCK, FENCE, "A", server.now_us(), ttl=TTL, fence_ttl=FENCE_TTL, mode=mode)
    before = server.everything()
    assert server.ask(command, marker=f"{server.marker}x").kind is Kind.STRANGER
    assert server.everything() == before
    server.client.delete(MARKER_KEY)
    assert server.ask(command).kind is Kind.STRANGER
    assert server.ask(Canvass(LOCK, FENCE)).kind is Kind.STRANGER
    assert server.everything() == {}


def test_the_answer_to_a_stranger_shows_the_marker_that_stands(server: Server) -> None:
    """Admission begins with what the node says now."""
    command = Take(LOCK, FENCE, "A", 5, ttl=TTL, fence_ttl=FENCE_TTL)
    assert server.client.execute_command(*command.words(whole=True), "other") == [
        3,
        server.marker.encode(),
    ]
    server.client.delete(MARKER_KEY)
    assert server.client.execute_command(*command.words(whole=True), "other") == [3, b""]


@pytest.mark.parametrize("mode", ["acquire", "extend"])
def test_an_empty_marker_never_stands_for_a_missing_one(server: Server, mode: str) -> None:
    """A client that was admitted to nothing gets nothing, also from a node that has nothing."""
    server.client.delete(MARKER_KEY)
    command = Take(LOCK, FENCE, "A", server.now_us(), ttl=TTL, fence_ttl=FENCE_TTL, mode=mode)
    assert server.ask(command, marker="").kind is Kind.STRANGER
    assert server.everything() == {}


# The fence's expiry


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [(600.0, 60.0, 600.0), (60.0, 600.0, 600.0), (FOREVER, 60.0, FOREVER), (60.0, 0.0, FOREVER)],
)
def test_a_fences_life_is_raised_and_never_shortened(
    server: Server, before: float, asked: float, after: float
) -> None:
    """By TAKE and by FREE alike; a `fence_ttl` of 0 keeps it for ever, and so does a fence that
    had no expiry."""
    for move in ("take", "free"):
        token = server.now_us()
        server.client.set(FENCE, token - 5)
        if before != FOREVER:
            server.client.pexpire(FENCE, round(before * 1000))
        if move == "take":
            server.take("A", token, fence_ttl=asked)
            assert server.fence == token
        else:
            server.free("A", token, fence_ttl=asked)
            assert server.fence == token + 1
        left = server.expiry(FENCE)
        assert left == FOREVER if after == FOREVER else lasts(left, after), move


# Extending


def test_an_extension_raises_both_expiries(server: Server) -> None:
    """The lock's to the ttl, the fence's to the fence's ttl."""
    token = server.now_us()
    server.take("A", token, ttl=5.0, fence_ttl=60.0)
    assert server.take("A", token, "extend", ttl=30.0, fence_ttl=600.0).kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token}", token)
    assert lasts(server.expiry(LOCK), 30.0)
    assert lasts(server.expiry(FENCE), 600.0)


def test_an_extension_never_shortens_an_expiry(server: Server) -> None:
    """`extend(ttl=1)` whose replies are lost must not give the lock away under a holder that
    relies on ten seconds."""
    token = server.now_us()
    server.take("A", token, ttl=30.0, fence_ttl=600.0)
    before = server.everything()
    assert server.take("A", token, "extend", ttl=1.0, fence_ttl=60.0).kind is Kind.GRANTED
    assert server.everything() == before


def test_an_extension_leaves_a_fence_without_expiry_alone(server: Server) -> None:
    """It lives for ever already."""
    token = server.now_us()
    server.take("A", token, fence_ttl=0.0)
    server.take("A", token, "extend", fence_ttl=60.0)
    assert server.expiry(FENCE) == FOREVER


@pytest.mark.parametrize("fence", ["missing", "smaller", "equal"])
def test_an_extension_puts_back_a_lock_that_nobody_newer_has_had(
    server: Server, fence: str
) -> None:
    """Missing here, and the fence is not beyond ours: top it up."""
    token = server.now_us()
    if fence != "missing":
        server.client.set(FENCE, token if fence == "equal" else token - 1)
    assert server.take("A", token, "extend").kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token}", token)
    assert lasts(server.expiry(LOCK), TTL)


@pytest.mark.parametrize("beyond", [1, 2, 1000])
def test_an_extension_never_tops_up_past_a_newer_fence(server: Server, beyond: int) -> None:
    """Somebody newer has been: putting the lock back would bring the old holder back. The answer
    tells that fence."""
    token = server.now_us()
    server.client.set(FENCE, token + beyond, px=600_000)
    before = server.everything()
    vote = server.take("A", token, "extend")
    assert (vote.kind, vote.fence) == (Kind.BEHIND, token + beyond)
    assert server.everything() == before


def test_an_extension_replaces_a_claim_of_an_earlier_round(server: Server) -> None:
    """The node missed the second round: it holds this owner's first token, and follows."""
    token = server.now_us()
    server.take("A", token)
    assert server.take("A", token + 3, "extend").kind is Kind.GRANTED
    assert (server.lock, server.fence) == (f"A:{token + 3}", token + 3)
    assert server.take("A", token, "extend").kind is Kind.BEHIND


def test_an_extension_leaves_somebody_elses_lock_alone(server: Server) -> None:
    """Also with the larger token."""
    token = server.now_us()
    server.take("B", token)
    before = server.everything()
    assert server.take("A", token + 5, "extend").kind is Kind.BUSY
    assert server.everything() == before


# Verifying


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("held", Kind.GRANTED),
        ("missing", Kind.BEHIND),
        ("missing, fence equal", Kind.BEHIND),
        ("other token", Kind.BEHIND),
        ("other", Kind.BUSY),
    ],
)
def test_verify_writes_nothing(server: Server, state: str, kind: Kind) -> None:
    """It confirms this very grant where it stands, and never tops up: a lock put back is no
    evidence."""
    token = server.now_us()
    if state == "held":
        server.take("A", token, ttl=5.0, fence_ttl=60.0)
    elif state == "missing, fence equal":
        server.client.set(FENCE, token)
    elif state == "other token":
        server.take("A", token - 1)
    elif state == "other":
        server.take("B", token - 1)
    before = server.everything()
    assert server.take("A", token, "verify").kind is kind
    assert server.everything() == before


# FREE


def test_free_deletes_the_lock_and_then_poisons_the_fence(server: Server) -> None:
    """Nothing of this try can take this node any more, whichever connection it comes by."""
    token = server.now_us()
    server.take("A", token)
    assert server.free("A", token) == 1
    assert (server.lock, server.fence) == (None, token + 1)
    assert lasts(server.expiry(FENCE), FENCE_TTL)


def test_free_deletes_whatever_round_of_the_try_is_held(server: Server) -> None:
    """The owner is the try's, so an earlier or later token of it goes as well."""
    token = server.now_us()
    for held, told in ((token, token + 7), (token + 20, token + 10)):
        server.take("A", held)
        assert server.free("A", told) == 1
        assert server.lock is None
        assert server.fence == max(held, told + 1)


def test_free_poisons_a_node_that_never_had_the_lock(server: Server) -> None:
    """The TAKE may still be on its way."""
    token = server.now_us()
    assert server.free("A", token) == 0
    assert (server.lock, server.fence) == (None, token + 1)


@pytest.mark.parametrize("mode", ["acquire", "extend"])
def test_a_take_that_comes_after_its_free_fails(server: Server, mode: str) -> None:
    """A late TAKE or EXTEND would re-create the lock for a whole ttl, owned by nobody."""
    token = server.now_us()
    server.take("A", token)
    server.free("A", token)
    assert server.take("A", token, mode).kind is Kind.BEHIND
    assert server.lock is None
    assert server.take("B", token + 2).kind is Kind.GRANTED


def test_free_leaves_somebody_elses_lock_and_fence_alone(server: Server) -> None:
    """Raising the fence past a holder's token would stop it from topping up here."""
    token = server.now_us()
    server.take("B", token)
    before = server.everything()
    assert server.free("A", token + 100) == 2
    assert server.everything() == before


def test_free_never_lowers_a_fence(server: Server) -> None:
    """A release that comes a day late meets larger fences."""
    fence = server.now_us()
    server.client.set(FENCE, fence, px=600_000)
    before = server.everything()
    assert server.free("A", fence - 1) == 0
    assert server.everything() == before
    assert server.free("A", fence) == 0
    assert server.fence == fence + 1


def test_free_obeys_the_clamp(server: Server) -> None:
    """A client an hour ahead must not lock everybody out by giving back what it never got."""
    ahead = server.now_us() + 3600 * 1_000_000
    assert server.free("A", ahead) == 0
    assert server.fence is None
    server.client.set(FENCE, ahead)
    assert server.free("A", ahead + 2049) == 0
    assert server.fence == ahead
    assert server.free("A", ahead + 2048) == 0
    assert server.fence == ahead + 2049


def test_free_works_on_a_node_that_is_out_of_memory(server: Server) -> None:
    """DEL comes first, because it still works there; only the poison is denied."""
    token = server.now_us()
    server.take("A", token)
    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            server.take("A", token + 1)
        assert server.free("A", token) == 1
        assert server.lock is None
    finally:
        server.client.config_set("maxmemory", 0)


@pytest.mark.parametrize("fence", NO_FENCES)
def test_free_gives_the_lock_back_although_the_fence_is_broken(server: Server, fence: str) -> None:
    """Somebody wrote over the fence: the lock goes all the same. The fence stays, and shuts the
    door as it stands."""
    token = server.now_us()
    server.take("A", token)
    server.client.set(FENCE, fence)
    assert server.free("A", token) == 1
    assert server.lock is None
    assert server.free("A", token) == 0
    assert server.client.get(FENCE) == fence.encode()
    assert server.expiry(FENCE) == FOREVER


def test_free_needs_no_marker(server: Server) -> None:
    """A node in quarantine, or of another cluster by now, still gets its release."""
    token = server.now_us()
    server.take("A", token)
    server.client.delete(MARKER_KEY)
    assert server.free("A", token) == 1
    assert server.lock is None


# PEEK


def test_peek_tells_who_holds_the_lock_and_writes_nothing(server: Server) -> None:
    """Holder, fence and time left; free where there is no lock; for waiters only from the node
    they were admitted to."""
    for command in (Peek(LOCK, FENCE), Canvass(LOCK, FENCE)):
        server.client.delete(LOCK, FENCE)
        assert server.ask(command) == Vote(Kind.FREE)
        token = server.now_us()
        server.take("A", token)
        before = server.everything()
        vote = server.ask(command)
        assert (vote.kind, vote.fence, vote.holder) == (Kind.BUSY, token, f"A:{token}")
        assert lasts(round(vote.ttl_left * 1000), TTL)
        assert server.everything() == before
        server.free("A", token)
        assert server.ask(command) == Vote(Kind.FREE, token + 1)
    assert server.ask(Canvass(LOCK, FENCE), marker="other").kind is Kind.STRANGER
    server.client.delete(MARKER_KEY)
    assert server.ask(Peek(LOCK, FENCE)).kind is Kind.FREE


# What others write


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"a session of another library", "a session of another library"),
        (b"*3\r\n:1\r\n:5\r\n:0\r\n", "*3??:1??:5??:0??"),
        (b"\x00\x01\x1f\x7f tab\tnewline\n", "???? tab?newline?"),
        (b"%d %s 100%", "%d %s 100%"),
        (b"", ""),
        (b"x" * 1_000_000, "x" * 128),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
@pytest.mark.parametrize("mode", ["acquire", "extend", "verify", "peek"])
def test_a_foreign_value_is_shown_short_and_without_control_characters(
    server: Server, value: bytes, shown: str, mode: str
) -> None:
    """It counts as busy, and can neither look like a reply nor fill memory or a terminal."""
    server.client.set(LOCK, value)
    vote = (
        server.ask(Peek(LOCK, FENCE)) if mode == "peek" else server.take("A", server.now_us(), mode)
    )
    assert (vote.kind, vote.holder, vote.ttl_left) == (Kind.BUSY, shown, -1.0)
    assert server.client.get(LOCK) == value


@pytest.mark.parametrize("key", [LOCK, FENCE])
def test_a_key_of_another_type_is_an_error_reply(server: Server, key: str) -> None:
    """Never busy, never granted; and nothing else is written."""
    server.client.rpush(key, "x")
    before = server.everything()
    for mode in ("acquire", "extend", "verify"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            server.take("A", server.now_us(), mode)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        server.ask(Peek(LOCK, FENCE))
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        server.free("A", server.now_us())
    assert server.everything() == before


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("fence", NO_FENCES)
def test_a_fence_that_is_no_number_is_an_error_reply(
    server: Server, fence: str, held: bool
) -> None:
    """Taking it for 0 would let tokens fall; an answer with it would be taken for nonsense, and
    cost the connection.

    A look is refused as well: nobody can take such a lock, and whoever asks why should read it.
    """
    token = server.now_us()
    if held:
        server.take("A", token)
    server.client.set(FENCE, fence)
    before = server.everything()
    for mode in ("acquire", "extend", "verify"):
        with pytest.raises(
            redis.ResponseError, match=r"^REDLOCK the fence is not a number from 0 to 2"
        ):
            server.take("A", token, mode)
    for command in (Peek(LOCK, FENCE), Canvass(LOCK, FENCE)):
        with pytest.raises(
            redis.ResponseError, match=r"^REDLOCK the fence is not a number from 0 to 2"
        ):
            server.ask(command)
    assert server.everything() == before


def test_the_largest_fence_is_answered_and_never_passed(server: Server) -> None:
    """2^53 - 1 is exact in a double and an answer like any other; the next token would not be
    told from its neighbours."""
    server.client.set(FENCE, TOKEN_MAX)
    vote = server.take("A", TOKEN_MAX)
    assert (vote.kind, vote.fence) == (Kind.BEHIND, TOKEN_MAX)
    assert server.ask(Peek(LOCK, FENCE)) == Vote(Kind.FREE, TOKEN_MAX)
    assert server.take("A", TOKEN_MAX, "extend").kind is Kind.GRANTED


# REPAIR


def test_repair_gives_an_expiry_to_a_lock_that_has_none(server: Server) -> None:
    """What a client left behind that died between SETNX and EXPIRE; a lock that has an expiry
    keeps it."""
    repair = Repair(LOCK, ttl=60.0)
    assert server.ask(repair) is False
    server.client.set(LOCK, "old")
    assert server.ask(repair) is True
    assert lasts(server.expiry(LOCK), 60.0)
    assert server.client.get(LOCK) == b"old"
    server.client.set(LOCK, "old", px=5_000)
    assert server.ask(repair) is False
    assert lasts(server.expiry(LOCK), 5.0)


# The memory that a marker names

VOTING: list[Command] = [
    *(
        Take(LOCK, FENCE, "A", 7, ttl=TTL, fence_ttl=FENCE_TTL, mode=mode)
        for mode in ("acquire", "extend", "verify")
    ),
    Canvass(LOCK, FENCE),
]
VOTES = pytest.mark.parametrize("command", VOTING, ids=["acquire", "extend", "verify", "canvass"])


@VOTES
@pytest.mark.parametrize("change", ["other", "cut", "pattern", "longer"])
def test_a_marker_alone_gives_no_vote(server: Server, command: Command, change: str) -> None:
    """It is data: the very text that was sent stands there, and names a memory that is not this
    one. Letter by letter."""
    ours = server.identity().memory
    other = {
        "other": "f" * 40,
        "cut": ours.replication_id[:-1],
        "pattern": "." * 40,
        "longer": f"x{ours.replication_id}",
    }[change]
    server.marker = Marker(Memory(ours.run_id, other), 1, 60.0, since_us=1).text()
    server.client.set(MARKER_KEY, server.marker)
    before = server.everything()
    assert server.ask(command).kind is Kind.STRANGER
    assert server.everything() == before
    assert server.ask(Peek(LOCK, FENCE)).kind is Kind.FREE, (
        "who asks for no vote is told, whoever the node is"
    )


class Pair:
    """A lock node, and a server beside it that can be made its copy or its master."""

    def __init__(self, nodes: Nodes) -> None:
        self.node: Node = nodes[0]
        self.other: Node = nodes[1]

    def follow(self, node: Node, master: Node) -> None:
        """Make *node* a replica of *master*, and wait until it has its data."""
        with node.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", master.port)
            self.wait(client, "master_link_status", "up")

    def promote(self, node: Node) -> None:
        with node.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    def wait(self, client: redis.Redis, name: str, value: str) -> None:
        give_up_at = time.monotonic() + 20.0
        while str((info := dict[str, Any](client.info("replication"))).get(name, "")) != value:
            assert time.monotonic() < give_up_at, info
            time.sleep(0.01)


@pytest.fixture(scope="module")
def twins() -> Iterator[Nodes]:
    with Nodes(2, marked=False, options={"repl-diskless-sync-delay": "0"}) as nodes:
        yield nodes


@pytest.fixture
def pair(twins: Nodes) -> Pair:
    """Two servers as new: without data, and without a copy's past."""
    for node in twins:
        node.kill()
        node.wipe()
        node.start()
    return Pair(twins)


def answers(node: Node, marker: str) -> list[Kind]:
    """What *node* says to each voting command that carries *marker*."""
    with node.client() as client:
        return [_kind(client, command, marker) for command in VOTING]


def _kind(client: Any, command: Command, marker: str) -> Kind:
    vote: Vote = command.read(client.execute_command(*command.words(whole=True), marker))
    return vote.kind


def marker_on(node: Node) -> str:
    with node.client(decode_responses=True) as client:
        found: Any = client.get(MARKER_KEY)
        return str(found)


def identity_on(node: Node) -> Identity:
    with node.client() as client:
        look = Look()
        return Identity.parse(*look.read(client.execute_command(*look.words(whole=True))))


STRANGERS = [Kind.STRANGER] * len(VOTING)


def test_a_node_that_was_demoted_and_promoted_again_is_another_memory(pair: Pair) -> None:
    """Its own marker came back with its own data, its run is the same; only the replication id
    tells. Neither while it is a replica nor afterwards does it vote, for whoever was admitted
    before.
    """
    with pair.node.client() as client:
        server = Server(client)
        before = server.identity()
        pair.follow(pair.other, pair.node)
        pair.promote(pair.other)  # It has the node's data, and the marker with it.
        server.mark()
        marker = server.marker
        with pair.other.client() as other:
            other.set(MARKER_KEY, marker)
        pair.follow(pair.node, pair.other)
        assert marker_on(pair.node) == marker
        assert answers(pair.node, marker) == STRANGERS
        pair.promote(pair.node)
        assert marker_on(pair.node) == marker
        assert server.identity().memory.run_id == before.memory.run_id
        assert answers(pair.node, marker) == STRANGERS
        server.mark()
        token = server.now_us()
        assert server.take("A", token).kind is Kind.GRANTED


def test_a_copy_does_not_vote_as_its_master(pair: Pair) -> None:
    """A replica shows its master's id as its own, and a promoted one as `master_replid2`:
    neither is the memory."""
    with pair.node.client() as client:
        server = Server(client)
        pair.follow(pair.other, pair.node)
        server.mark()  # The first replica gave the master another id.
        pair.wait(client, "connected_slaves", "1")
        client.execute_command("WAIT", 1, 0)
        marker = server.marker
        replica = identity_on(pair.other)
        assert (replica.role, replica.memory.replication_id) == (
            "slave",
            server.identity().memory.replication_id,
        )
        assert marker_on(pair.other) == marker
        assert answers(pair.other, marker) == STRANGERS
        pair.promote(pair.other)
        with pair.other.client() as other:
            info = dict[str, Any](other.info("replication"))
        assert info["master_replid2"] == server.identity().memory.replication_id
        assert marker_on(pair.other) == marker
        assert answers(pair.other, marker) == STRANGERS
        assert answers(pair.node, marker)[0] is Kind.GRANTED, "the master has lost nothing"


def test_a_node_that_comes_back_from_its_snapshot_is_another_memory(pair: Pair) -> None:
    """The text is there again, from a file; where there was a replica, even the old id is, as
    `master_replid2`."""
    with pair.node.client() as client:
        server = Server(client)
        pair.follow(pair.other, pair.node)
        server.mark()
        client.execute_command("SAVE")
    marker = server.marker
    pair.node.restart()
    assert marker_on(pair.node) == marker
    assert answers(pair.node, marker) == STRANGERS


# MARK


def write(identity: Identity, **said: Any) -> Mark:
    return Marker(identity.memory, 3, 5.0, durable=True, floor=7, cluster="blue", **said).write(
        identity
    )


def test_a_marker_is_written_only_over_the_one_that_was_read(server: Server) -> None:
    """Two clients cannot overwrite each other's; the loser learns what stands."""
    stands, identity = server.marker, server.identity()
    for expected in ("", f"{stands}x", "redlock2"):
        assert server.ask(write(replace(identity, marker=expected))) == stands
        assert server.client.get(MARKER_KEY) == stands.encode()
    assert (
        server.ask(write(identity, since_us=9))
        == Marker(identity.memory, 3, 5.0, durable=True, floor=7, cluster="blue", since_us=9).text()
    )
    assert server.client.get(MARKER_KEY).decode().split()[4] == "9"
    assert server.expiry(MARKER_KEY) == FOREVER


def test_a_first_marker_is_written_only_where_there_is_none(server: Server) -> None:
    """Expecting one where there is none fails as well."""
    identity = server.identity()
    server.client.delete(MARKER_KEY)
    assert server.ask(write(identity)) == ""
    assert server.client.get(MARKER_KEY) is None
    written = server.ask(write(replace(identity, marker="")))
    assert server.client.get(MARKER_KEY) == written.encode()


def test_a_marker_is_written_only_into_the_memory_that_it_names(server: Server) -> None:
    """Whoever decided to write it looked at another memory than the one that answers: nothing is
    written, also over the very text that was expected, and the answer is not taken for a marker
    to adopt.
    """
    for replication_id in ("f" * 40, "." * 40, server.identity().memory.replication_id[:-1]):
        identity = replace(server.identity(), memory=Memory("run", replication_id))
        before = server.everything()
        for mark in (
            write(identity),
            write(replace(identity, marker="x")),
            blank("nonce", identity),
        ):
            assert server.ask(mark) is None
            assert server.client.execute_command(*mark.words(whole=True)) == [
                3,
                server.marker.encode(),
            ]
        assert server.everything() == before
        server.client.delete(MARKER_KEY)
        assert server.client.execute_command(
            *blank("nonce", replace(identity, marker="")).words(whole=True)
        ) == [3, b""]
        server.client.set(MARKER_KEY, server.marker)


def test_a_replica_is_marked_by_nobody(pair: Pair) -> None:
    """It shows its master's replication id: the role is looked at as well, before a write could
    be refused."""
    with pair.node.client() as client:
        server = Server(client)
        pair.follow(pair.other, pair.node)
        server.mark()
        client.execute_command("WAIT", 1, 0)
        with pair.other.client() as other:
            mark = write(server.identity())
            answer: Any = other.execute_command(*mark.words(whole=True))
        assert answer == [3, server.marker.encode()]


def test_the_node_says_since_when_it_is_marked(server: Server) -> None:
    """A marker written after a wait carries the node's own clock, in whole digits; one that is
    brought up to date keeps it."""
    before = server.now_us()
    text = server.ask(write(server.identity()))
    written = Marker.parse(text)
    assert written is not None and before <= written.since_us <= server.now_us()
    assert written.text() == text
    kept = server.ask(replace(written, max_ttl=9.0).write(server.identity()))
    assert Marker.parse(kept) == replace(written, max_ttl=9.0, wait_ttl=9.0)


def test_a_blank_is_finished_by_the_node(server: Server) -> None:
    """With its own clock, and the latest one that is known: the same command executed twice
    gives two texts, so that whoever waited on the first notices what happened in between.
    """
    identity = replace(server.identity(), marker="")
    server.client.delete(MARKER_KEY)
    for ahead in (-5 * MINUTE_US, 5 * MINUTE_US):
        now = server.now_us()
        mark = blank("nonce", identity, latest_us=now + ahead)
        texts = []
        for _ in range(2):
            texts.append(server.ask(mark))
            assert server.client.get(MARKER_KEY).decode() == texts[-1]
            assert server.ask(mark) == texts[-1], "expected nothing, and something stands"
            server.client.delete(MARKER_KEY)
        assert texts[0] != texts[1]
        for text in texts:
            placed = Blank.parse(text)
            assert placed is not None and placed.replication_id == identity.memory.replication_id
            own = int(text.split()[3])
            assert now <= own <= server.now_us()
            assert placed.latest_us == max(own, now + ahead)


# LOOK


def test_a_look_tells_who_answers_and_what_stands_there(server: Server) -> None:
    """INFO with all that admission asks for, the marker, the clock, and that those who wait can be
    told; nothing is written."""
    before, now = server.everything(), server.now_us() / 1e6
    info, marker, clock, mute = server.ask(Look())
    assert mute == ""
    assert now - 1e-3 <= clock <= server.now_us() / 1e6 + 1e-3
    assert marker == server.marker
    plain = server.client.info()
    for name in (
        "run_id",
        "role",
        "master_replid",
        "second_repl_offset",
        "maxmemory_policy",
        "evicted_keys",
        "loading",
    ):
        assert info[name] == str(plain[name])
    assert "uptime_in_seconds" in info and "cluster_enabled" in info
    assert server.everything() == before
    server.client.delete(MARKER_KEY)
    assert server.ask(Look())[1] == ""
    assert server.identity().unfit is None


def test_a_replica_is_looked_at_as_well(pair: Pair) -> None:
    """To say why it may not vote."""
    pair.follow(pair.other, pair.node)
    assert identity_on(pair.other).unfit == "is a slave, not a master"


# All of it against a second version


class Model:
    """One node's state for one resource, and the rules of docs/protocol.md 3 one after the
    other; nothing expires."""

    def __init__(self, floor: int, clamp: int) -> None:
        self.floor, self.clamp = floor, clamp
        self.held: tuple[str, int] | None = None
        self.fence = 0

    def take(self, owner: str, token: int, mode: str) -> tuple[Kind, int | None]:
        if self.held == (owner, token):
            return Kind.GRANTED, None
        if self.held is not None and self.held[0] != owner:
            return Kind.BUSY, self.fence
        if mode == "verify":
            return Kind.BEHIND, self.fence
        if mode == "extend" and self.fence > token:
            return Kind.BEHIND, self.fence
        low = max(self.fence, self.floor)
        if mode == "acquire" and (low >= token or token > max(low + 2048, self.clamp)):
            return Kind.BEHIND, low
        self.held, self.fence = (owner, token), token
        return Kind.GRANTED, None

    def free(self, owner: str, token: int) -> int:
        if self.held is not None and self.held[0] != owner:
            return 2
        code = 1 if self.held is not None else 0
        self.held = None
        if self.fence <= token <= max(self.fence + 2048, self.clamp):
            self.fence = token + 1
        return code


NEAR = st.integers(0, 8)
FAR = st.one_of(st.integers(0, 8), st.integers(2040, 2056), st.integers(4090, 4100)).map(
    lambda step: 3600 * 1_000_000 + step
)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "acquire", "extend", "verify", "free"]),
        st.sampled_from(["A", "B"]),
        st.one_of(NEAR, FAR),
    ),
    max_size=12,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=MOVES, floor=st.one_of(st.just(None), NEAR, FAR))
def test_any_sequence_of_scripts_goes_as_the_rules_say(
    server: Server, moves: list[tuple[str, str, int]], floor: int | None
) -> None:
    """Two owners, tokens around the clock and an hour ahead, any order: every answer, every
    lock, every fence."""
    base = server.now_us()
    server.client.delete(LOCK, FENCE)
    server.mark(floor=0 if floor is None else base + floor)
    model = Model(0 if floor is None else base + floor, base + MINUTE_US)
    for move, owner, step in moves:
        token = base + step
        if move == "free":
            assert server.free(owner, token) == model.free(owner, token)
        else:
            vote = server.take(owner, token, move)
            kind, fence = model.take(owner, token, move)
            assert vote.kind is kind
            assert fence is None or vote.fence == fence
        assert server.lock == (f"{model.held[0]}:{model.held[1]}" if model.held else None)
        assert (server.fence or 0) == model.fence


def test_who_stays_in_the_queue_drops_the_dead_while_the_lock_is_held(server: Server) -> None:
    """Otherwise the places of those who were killed would fill it for as long as somebody holds,
    and be shown to whoever asks who waits."""
    server.take("A", 7)
    queue = f"{LOCK}{QUEUE_SUFFIX}"
    seconds, micros = server.client.time()
    now = seconds * 1000 + micros // 1000
    dead = {f"dead.{n}": 10 + n for n in range(50)} | {f"!dead.{n}": -now for n in range(50)}
    server.client.zadd(queue, {**dead, "alive.1": 5, "!alive.1": -now - 900, "deaf.1": 6})
    server.client.zadd(queue, {"~deaf.1": -now - 900})
    assert server.ask(Canvass(LOCK, FENCE, place="90 me.1")).kind is Kind.BUSY
    assert server.client.zcard(queue) == 106
    assert server.ask(Canvass(LOCK, FENCE, place="90 me.1")).kind is Kind.BUSY
    shown = [name for name, _ in server.ask(Peek(LOCK, FENCE)).waiting]
    assert shown == ["alive.1", "deaf.1", "me.1"]
    assert server.client.zcard(queue) == 6
