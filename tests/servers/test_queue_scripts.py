"""The queue that the scripts keep, on a real server: who enters, whose turn it is, who is told, and
that nothing in it lets two hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redlock.core.commands import QUEUE_SUFFIX, Canvass, Free, Leave, Look, Peek, Take
from redlock.core.quorum import Kind, Vote
from redlock.embedded import Node, Nodes
from tests.servers.test_scripts import FENCE, FENCE_TTL, LOCK, TTL, Server

QUEUE = LOCK + QUEUE_SUFFIX
LEASE_MS = 1000
PLACES_MAX = 1024
FIRST, SECOND, THIRD = "5~a.1", "7~b.1", "7~c.1"
"""Deaf ones, who need nobody to hear for them; a tie is settled by the name."""


class Queue(Server):
    """A node, and what is in its queue."""

    def take(self, owner: str, place: str = "", mode: str = "acquire", **_: object) -> Vote:  # type: ignore[override]
        token = max(self.now_us(), (self.fence or 0) + 1)
        if mode != "acquire":
            token = int((self.lock or f"{owner}:{token}").rpartition(":")[2])
        vote = self.ask(
            Take(LOCK, FENCE, owner, token, ttl=TTL, fence_ttl=FENCE_TTL, mode=mode, place=place)
        )
        assert isinstance(vote, Vote)
        return vote

    def give_back(self, owner: str, place: str = "-") -> Any:
        """FREE's own answer."""
        free = Free(LOCK, FENCE, owner, self.fence or 0, fence_ttl=FENCE_TTL, place=place)
        return self.client.execute_command(*free.words(whole=True))

    def look(self, place: str = "") -> Vote:
        vote = self.ask(Canvass(LOCK, FENCE, place=place))
        assert isinstance(vote, Vote)
        return vote

    @property
    def places(self) -> dict[str, int]:
        """The names in the queue with their tickets, in its order."""
        entries = self.client.zrangebyscore(QUEUE, "(0", "+inf", withscores=True)
        return {name.decode(): int(ticket) for name, ticket in entries}

    def plant(self, name: str, ticket: int, lease: str = "!", left_ms: float = LEASE_MS) -> None:
        """A place as a script would have entered it *left_ms* before the end of its lease."""
        over = self.now_us() // 1000 + left_ms
        self.client.zadd(QUEUE, {name: ticket, lease + name: -over})

    def published(self) -> int:
        """How many messages this server was ever asked to publish."""
        stats: Any = self.client.info("commandstats")
        return int(stats.get("cmdstat_publish", {}).get("calls", 0))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One real server for this module."""
    with Nodes(1) as nodes:
        yield nodes[0]


@pytest.fixture
def server(node: Node) -> Iterator[Queue]:
    """The server without any key but its marker."""
    with node.client() as client:
        client.flushall()
        yield Queue(client)


class Ear:
    """Somebody who listens for coordinators."""

    def __init__(self, server: Queue, *coordinators: str) -> None:
        self._subscriber: Any = server.client.pubsub()
        for coordinator in coordinators:
            self._subscriber.subscribe(f"redlock:wake:{coordinator}")
            assert self._subscriber.get_message(timeout=5.0)["type"] == "subscribe"

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._subscriber.close()

    def heard(self) -> list[str]:
        """All that was said so far: the answer to a PING comes behind it."""
        self._subscriber.ping()
        said = []
        while (message := self._subscriber.get_message(timeout=5.0))["type"] != "pong":
            said.append(message["data"].decode())
        return said


# Entering


@pytest.mark.parametrize(("place", "lease"), [("7 b.1 host", "!"), ("7~b.1 host", "~")])
def test_who_cannot_take_the_lock_enters_once(server: Queue, place: str, lease: str) -> None:
    """Its name with its ticket, and a lease of a second; tries and looks keep both."""
    server.take("A")
    for ask in (lambda: server.take("B", place), lambda: server.look(place)) * 2:
        vote = ask()
        assert (vote.kind, vote.full, vote.holder.startswith("A:")) == (Kind.BUSY, False, True)
        left = -server.client.zscore(QUEUE, f"{lease}b.1 host") - server.now_us() / 1000
        assert LEASE_MS / 2 < left <= LEASE_MS
        assert server.places == {"b.1 host": 7}
        assert server.client.zcard(QUEUE) == 2


def test_a_place_is_deaf_or_hears_and_never_both(server: Queue) -> None:
    """Its last word on that counts."""
    server.take("A")
    for place, lease in ((FIRST, b"~a.1"), ("5 a.1", b"!a.1"), (FIRST, b"~a.1")):
        server.look(place)
        assert set(server.client.zrange(QUEUE, 0, -1)) == {b"a.1", lease}


@pytest.mark.parametrize("place", ["", "-"])
def test_a_single_try_enters_nothing(server: Queue, place: str) -> None:
    """Nor does a client that knows no queue, where the lock is held, and where it is not."""
    server.take("A")
    assert server.take("B", place).kind is Kind.BUSY
    assert not server.client.exists(QUEUE)
    server.give_back("A")
    server.plant("x.1", 5, "~")
    before = server.everything()[QUEUE.encode()]
    server.take("B", place)
    assert server.everything()[QUEUE.encode()] == before


def test_the_queue_is_gone_a_second_after_the_last_look(server: Queue) -> None:
    """Whoever looks gives the key a second; nothing else does, so it outlives no waiter."""
    server.take("A")
    for ask in (lambda: server.take("B", FIRST), lambda: server.look(SECOND)):
        server.client.persist(QUEUE)
        ask()
        assert LEASE_MS / 2 < server.expiry(QUEUE) <= LEASE_MS
    server.client.pexpire(QUEUE, 60_000)
    server.take("B", "-")
    server.look()
    server.take("A", mode="extend")
    server.client.execute_command(*Leave(LOCK, "b.1").words())
    server.give_back("A")
    assert server.expiry(QUEUE) > 50_000


def test_a_queue_has_1024_places(server: Queue) -> None:
    """One more is told so, and who stands in it stays; where one left there is room again."""
    server.take("A")
    over = -(server.now_us() // 1000 + LEASE_MS)
    names = [f"x.{number}" for number in range(PLACES_MAX - 1)]
    server.client.zadd(QUEUE, dict.fromkeys(names, 9) | {f"~{name}": over for name in names})
    assert not server.take("B", FIRST).full
    assert len(server.places) == PLACES_MAX
    assert server.take("C", SECOND).full
    assert server.look(SECOND).full
    assert not server.take("B", FIRST).full
    assert len(server.places) == PLACES_MAX
    server.client.execute_command(*Leave(LOCK, "x.0").words())
    assert not server.look(SECOND).full
    assert "b.1" in server.places


# Whose turn it is


def test_the_first_by_ticket_and_then_by_name_may_take(server: Queue) -> None:
    """Whatever the order of coming: the others are told that it is not their turn, and wait."""
    server.take("A")
    places = (FIRST, SECOND, THIRD)
    for place in reversed(places):
        server.look(place)
    server.give_back("A")
    for number, place in enumerate(places):
        for other in [*places[number + 1 :], "9~d.1", "-"]:
            vote = server.take("X", other)
            assert (vote.kind, vote.ttl_left, vote.holder) == (Kind.BUSY, None, "")
        assert [server.look(other).kind for other in places[number:]] == [
            Kind.FREE,
            *[Kind.BUSY] * (len(places) - number - 1),
        ]
        assert server.take(place, place).kind is Kind.GRANTED
        name = place.split("~")[1]
        assert name not in server.places
        assert not server.client.zscore(QUEUE, f"~{name}")
        server.give_back(place, name)
    assert list(server.places) == ["d.1"]


def test_who_is_refused_in_a_free_locks_queue_stands_in_it(server: Queue) -> None:
    """It comes when it is its turn, though it never met the lock held."""
    server.plant("a.1", 5, "~")
    assert server.take("B", SECOND).kind is Kind.BUSY
    assert server.look(THIRD).kind is Kind.BUSY
    assert list(server.places) == ["a.1", "b.1", "c.1"]


def test_whoever_knows_no_queue_takes_what_is_free(server: Queue) -> None:
    """An older client, one that does not wait its turn, and a holder who extends or verifies."""
    server.plant("a.1", 5, "~")
    assert server.take("B").kind is Kind.GRANTED
    for mode in ("verify", "extend"):
        assert server.take("B", mode=mode).kind is Kind.GRANTED
    token = server.fence or 0
    server.client.delete(LOCK)
    assert (
        server.ask(Take(LOCK, FENCE, "B", token, ttl=TTL, fence_ttl=FENCE_TTL, mode="extend")).kind
        is Kind.GRANTED
    )


@pytest.mark.parametrize("lease", ["!", "~"])
@pytest.mark.parametrize("left_ms", [-1.0, -1e6, LEASE_MS + 60_000.0, 1e15, float("inf"), None])
def test_a_lease_that_is_over_or_absurdly_far_is_not_believed(
    server: Queue, left_ms: float | None, lease: str
) -> None:
    """The node's clock may have stepped, or anybody have written there: such a place is dropped by
    the next who asks."""
    with Ear(server, "a"):
        server.plant("a.1", 5, lease, left_ms if left_ms is not None else 0)
        if left_ms is None:
            server.client.zrem(QUEUE, f"{lease}a.1")
        assert server.look(SECOND).kind is Kind.FREE
        assert list(server.places) == ["b.1"]
        assert server.take("B", SECOND).kind is Kind.GRANTED
        assert not server.client.exists(QUEUE)


@pytest.mark.parametrize("ask", ["take", "look", "try once"])
def test_a_place_that_nobody_hears_is_dropped_unless_it_is_deaf(server: Queue, ask: str) -> None:
    """Its coordinator has left this node; one that is deaf never was heard, and its lease
    decides."""

    def kind() -> Kind:
        if ask == "look":
            return server.look(SECOND).kind
        return server.take("B", SECOND if ask == "take" else "-").kind

    server.plant("a.1", 5, "~")
    assert kind() is Kind.BUSY
    server.client.delete(QUEUE)
    server.plant("a.1", 5, "!")
    with Ear(server, "a"):
        assert kind() is Kind.BUSY
        assert "a.1" in server.places
    assert kind() in (Kind.GRANTED, Kind.FREE)
    assert "a.1" not in server.places


# Telling


def test_a_release_tells_the_first_and_nobody_else(server: Queue) -> None:
    """Its name, on the channel of its coordinator; marked, if a try failed and it is to look."""
    with Ear(server, "a", "b") as ear:
        for place, mark in (("-", ""), ("?", "?")):
            server.take("A")
            server.look("7 b.2")
            server.look("6 a.1")
            assert server.give_back("A", place) == 1
            assert ear.heard() == [f"{mark}a.1"]
            assert list(server.places) == ["a.1", "b.2"]


def test_a_release_drops_all_the_dead_in_front_of_the_first(server: Queue) -> None:
    """Fifty that nobody hears any more cost no round trip; nor does one that is over."""
    server.take("A")
    for number in range(50):
        server.plant(f"gone{number}.1", 5 + number)
    server.plant("late.1", 60, left_ms=-1)
    server.plant("a.1", 70)
    with Ear(server, "a", "late") as ear:
        assert server.give_back("A") == 1
        assert ear.heard() == ["a.1"]
    assert server.places == {"a.1": 70}
    assert server.client.zcard(QUEUE) == 2


def test_a_release_lets_its_own_place_leave(server: Queue) -> None:
    """A try that is given back for good is not told that the lock is free, but the next one is;
    also where it holds nothing, or somebody else does."""
    with Ear(server, "a", "b") as ear:
        for owner, answer, told in (("A", 1, ["b.1"]), ("B", 0, ["b.1"]), ("C", 2, [])):
            server.client.delete(QUEUE)
            if owner != "B":
                server.take("A")
            server.plant("a.1", 5)
            server.plant("b.1", 7)
            assert server.give_back(owner, "a.1") == answer
            assert list(server.places) == ["b.1"]
            assert ear.heard() == told


def test_a_release_that_knows_no_queue_leaves_it_alone(server: Queue) -> None:
    """It tells nobody: those who wait look."""
    with Ear(server, "a") as ear:
        server.take("A")
        server.plant("a.1", 5)
        before = server.everything()[QUEUE.encode()]
        assert server.give_back("A", "") == 1
        assert server.everything()[QUEUE.encode()] == before
        assert ear.heard() == []


def test_who_leaves_tells_the_next_where_the_lock_is_free(server: Queue) -> None:
    """To look, as it may be held on others. Where it is held here nobody can come, so nobody is
    woken."""
    leave = Leave(LOCK, "a.1").words()
    with Ear(server, "a", "b") as ear:
        for held in (True, False):
            if held:
                server.take("A")
            server.plant("a.1", 5)
            server.plant("b.1", 7)
            assert server.client.execute_command(*leave) == 1
            assert list(server.places) == ["b.1"]
            assert ear.heard() == ([] if held else ["?b.1"])
            server.give_back("A", "")


def test_nothing_but_a_release_publishes(server: Queue) -> None:
    """A renewal wakes nobody, nor does whoever tries, looks or shows who waits."""
    with Ear(server, "b"):
        server.take("A")
        server.look("7 b.1")
        before = server.published()
        for mode in ("extend", "verify"):
            assert server.take("A", mode=mode).kind is Kind.GRANTED
        server.take("C", THIRD)
        server.look(THIRD)
        server.ask(Peek(LOCK, FENCE))
        assert server.published() == before
        server.give_back("A")
        assert server.published() == before + 1


def test_who_waits_is_shown_in_order_and_nothing_is_written(server: Queue) -> None:
    """The first sixteen, whether the lock is held or free."""
    for number in reversed(range(20)):
        server.plant(f"x.{number:02} host", 100 + number, "~")
    expected = tuple((f"x.{number:02} host", 100 + number) for number in range(16))
    for kind in (Kind.FREE, Kind.BUSY):
        before = server.everything()
        vote = server.ask(Peek(LOCK, FENCE))
        assert (vote.kind, vote.waiting) == (kind, expected)
        assert server.everything() == before
        server.take("A")


# Without a queue


def exclude(server: Queue) -> None:
    """Who waits gets the lock as if nobody had thought of a queue, and is kept out as before."""
    places = ["5 a.1", "7 b.1", "7~c.1"]
    assert server.take("A", places[0]).kind is Kind.GRANTED
    for place in places[1:]:
        vote = server.take("B", place)
        assert (vote.kind, vote.full) == (Kind.BUSY, False)
        assert server.look(place).kind is Kind.BUSY
    assert server.ask(Peek(LOCK, FENCE)).kind is Kind.BUSY
    assert server.client.execute_command(*Leave(LOCK, "x.1").words()) == 1
    assert server.give_back("B", "x.1") == 2
    assert server.give_back("A", "a.1") == 1
    assert server.look(places[1]).kind is Kind.FREE
    assert server.look(places[2]).kind in (Kind.FREE, Kind.BUSY)  # Is the first one heard?
    assert server.ask(Peek(LOCK, FENCE)).kind is Kind.FREE
    assert server.client.execute_command(*Leave(LOCK, "x.1").words()) == 1
    assert server.look(places[1]).kind is Kind.FREE
    assert server.take("B", places[1]).kind is Kind.GRANTED
    assert server.take("A", "-").kind is Kind.BUSY
    assert server.client.execute_command(*Leave(LOCK, "c.1").words()) == 1
    assert server.give_back("B", "b.1") == 1


@pytest.mark.parametrize("kind", ["string", "list", "set"])
def test_a_foreign_key_in_its_place_means_no_queue(server: Queue, kind: str) -> None:
    """It is left as it is."""
    match kind:
        case "string":
            server.client.set(QUEUE, "somebody's")
        case "list":
            server.client.rpush(QUEUE, "somebody's")
        case _:
            server.client.sadd(QUEUE, "somebody's")
    before = server.everything()[QUEUE.encode()]
    exclude(server)
    assert server.everything()[QUEUE.encode()] == before


USED = ["zadd", "zrem", "zscore", "zcard", "zrangebyscore", "exists", "publish", "pubsub"]


@pytest.mark.parametrize("missing", [f"-{command}" for command in USED] + ["resetchannels"])
def test_missing_rights_mean_no_queue(node: Node, server: Queue, missing: str) -> None:
    """Never an error, and no grant is lost; the node says what is missing, and says nothing where
    nothing is."""
    rules = ["reset", "on", ">pw", "~redlock:*", "+@all", "allchannels"]
    server.client.acl_setuser("narrow", enabled=True, reset=True)
    server.client.execute_command("ACL", "SETUSER", "narrow", *rules)
    with redis.Redis(port=node.port, username="narrow", password="pw") as client:
        narrow = Queue(client)
        assert narrow.ask(Look())[3] == ""
        exclude(narrow)
        server.client.execute_command("ACL", "SETUSER", "narrow", missing)
        assert narrow.ask(Look())[3]
        assert narrow.ask(Look(waits=False))[3] == ""
        server.plant("late.1", 1, left_ms=-1)  # Who cannot drop it must not try for ever.
        exclude(narrow)
    assert server.client.execute_command("ACL", "DELUSER", "narrow") == 1


# Whatever is in it

NAMES = st.sampled_from(["a.1", "b.1", "c.1", "", ".", "!", "~", "a", "!a.1", "~~b.1", "x" * 300])
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 5.0, -5.0, 2.0**53, -(2.0**53), float("inf"), float("-inf"), 0.5]),
    st.floats(allow_nan=False),
)
ENTRY = st.tuples(st.sampled_from(["", "!", "~"]), NAMES, st.one_of(SCORES, st.none()))
STEP = st.tuples(
    st.sampled_from(["take", "free", "look", "leave", "plant"]),
    st.sampled_from("ABC"),
    st.sampled_from(["", "-", "5 a.1", "5~a.1", "7 b.1", "7~c.1"]),
    ENTRY,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ENTRY, max_size=8), st.lists(STEP, min_size=3, max_size=12))
def test_no_content_of_the_queue_lets_two_hold(
    server: Queue, entries: list[Any], steps: list[Any]
) -> None:
    """It can refuse and no more: who holds the lock keeps it until he gives it back, and no script
    fails or runs for ever."""
    server.client.delete(LOCK, QUEUE)

    def plant(sign: str, name: str, score: float | None) -> None:
        if score is None:  # A lease that may be believed.
            score = -(server.now_us() // 1000 + 900)
        server.client.zadd(QUEUE, {sign + name: score})

    for entry in entries:
        plant(*entry)
    holder: str | None = None
    for step, owner, place, entry in steps:
        name = place.lstrip("0123456789")[1:]
        match step:
            case "take":
                vote = server.take(owner, place)
                if holder not in (None, owner):
                    assert vote.kind is Kind.BUSY
                elif vote.kind is Kind.GRANTED:
                    holder = owner
            case "free":
                answer = server.give_back(owner, name if place != "-" else "-")
                assert (answer == 1) == (holder == owner)
                holder = None if holder == owner else holder
            case "look":
                server.look(place if place != "-" else "")
            case "leave":
                server.client.execute_command(*Leave(LOCK, name).words())
            case _:
                plant(*entry)
        assert (server.lock or ":").partition(":")[0] == (holder or "")
