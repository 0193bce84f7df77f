"""The simulated node and a real server side by side: the Python semantics may not drift from the
Lua files."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import hiredis
import pytest

from chaos.sim.node import EPOCH_US, SimNode
from redlock.core.commands import (
    MARKER_KEY,
    QUEUE_SUFFIX,
    Canvass,
    Command,
    Free,
    Leave,
    Look,
    Mark,
    Peek,
    Repair,
    Take,
)
from redlock.core.identity import Identity, Marker, Memory, blank, is_blank
from redlock.embedded import Nodes

KEYS = ("redlock:r", "redlock:r:fence")
QUEUE = KEYS[0] + QUEUE_SUFFIX
OWNERS = ("a" * 32, "b" * 32, "c" * 32)
NAMES = ("heard.1", "heard.2 label", "unheard.1", "heard.3")
"""Places in the queue; to the channel of the first somebody listens."""
FENCES = (
    "inf",
    "nan",
    "0x10",
    "-1",
    " 7",
    "7 ",
    "1e3",
    "7.0",
    "",
    "broken",
    "007",
    str(2**53 - 1),
    str(2**53),
    str(2**63),
    "9" * 400,
)
"""What somebody may have written where a fence belongs: most are numbers to Lua, a few to us."""
NEAR = 0.25
"""Seconds that two clocks read one after the other may differ by, on a busy machine."""


class Audience:
    """Who listens to the simulated server, as somebody does to the real one."""

    listens = True

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def push(self, payload: bytes) -> None:
        reader = hiredis.Reader()
        reader.feed(payload)
        self.told.append(reader.gets()[2])


class Pair:
    """One real and one simulated server that are told the same."""

    def __init__(self, nodes: Nodes) -> None:
        self.audience = Audience()
        self.client = nodes[0].client()
        self.sim = SimNode(0, lambda: "0" * 40)
        self.client.flushall()
        self.name()
        self.mark()
        self.sim.queues.subscribe("redlock:wake:heard", self.audience)
        self.pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe("redlock:wake:heard")
        self.pubsub.get_message(timeout=5.0)
        self.cleared_at = time.monotonic()

    def now_us(self) -> int:
        """The simulated clock."""
        return self.sim.wall_us(0.0)

    def clear(self) -> None:
        """Nobody waits: before any lease ends, as two clocks cannot agree on an instant."""
        self.client.delete(QUEUE)
        self.sim.queues.clear()
        self.sim.data.pop(QUEUE, None)
        self.cleared_at = time.monotonic()

    def plant(self, places: dict[str, float] | None) -> None:
        """Somebody else writes what they like where the queue belongs; None: a string."""
        self.clear()
        if places is None:
            self.client.set(QUEUE, "foreign")
            self.sim.data[QUEUE] = ("foreign", None)
        else:
            self.client.zadd(QUEUE, places)
            self.sim.queues.put(QUEUE, places, None)

    def told(self) -> tuple[list[bytes], list[bytes]]:
        """What was published for those who listen, by each server, since this was asked last."""
        real = []
        while message := self.pubsub.get_message():
            real.append(message["data"])
        told, self.audience.told = self.audience.told, []
        if len(real) < len(told) and (message := self.pubsub.get_message(timeout=5.0)):
            real.append(message["data"])
        return real, told

    def same_queue(self) -> bool:
        """Whether the same wait, with the same tickets and nearly the same leases."""
        if QUEUE in self.sim.data:
            return bool(self.client.get(QUEUE) == self.sim.data[QUEUE][0].encode())
        real = {
            name.decode(): score
            for name, score in self.client.zrange(QUEUE, 0, -1, withscores=True)
        }
        simulated = self.sim.queues.places(QUEUE, self.now_us())
        left = self.sim.queues.left_ms(QUEUE, self.now_us())
        return (
            real.keys() == simulated.keys()
            and all(near(real[name], simulated[name]) for name in real)
            and abs(self.client.pttl(QUEUE) - left) <= NEAR * 1000
        )

    def name(self) -> None:
        """The simulated server gets the names that the real one has given itself."""
        info: Any = self.client.info()
        self.sim.run_id, self.sim.replication_id = info["run_id"], info["master_replid"]

    def mark(self) -> None:
        """A marker for the memory of both, as `init` leaves one."""
        self.marker = Marker(Memory(self.sim.run_id, self.sim.replication_id), 1, 60.0).text()
        self.client.set(MARKER_KEY, self.marker)
        self.sim.data[MARKER_KEY] = (self.marker, None)

    def turn(self) -> None:
        """A master becomes a replica whose master never answers, or a replica a master."""
        if self.sim.role == "master":
            self.client.execute_command("REPLICAOF", "127.0.0.1", "1")
            self.sim.role = "slave"
        else:
            self.client.execute_command("REPLICAOF", "NO", "ONE")
            before = self.sim.replication_id
            self.sim.promote()
            self.name()
            assert self.client.info()["master_replid2"] == self.sim.replication_id_before == before

    def identity(self) -> Identity:
        """What the real server tells of itself."""
        return Identity.parse(*Look().read(self.client.execute_command(*Look().words(whole=True))))

    def tell(self, command: Command) -> tuple[Any, Any]:
        """Both answers, as values."""
        words = list(command.words(whole=True))
        if command.marked:
            words.append(self.marker)
        seconds, micros = self.client.time()
        self.sim.offset = (seconds * 1_000_000 + micros - EPOCH_US) / 1e6
        encoded = [str(word).encode() for word in words]
        reader = hiredis.Reader()
        reader.feed(self.sim.execute(encoded, 0.0))
        try:
            real = self.client.execute_command(*words)
        except Exception as error:
            real = error
        return real, reader.gets()


def near(real: float, simulated: float) -> bool:
    """The same score; where that is the end of a lease, nearly."""
    return real == simulated or (real < 0 and abs(real - simulated) <= NEAR * 1000)


def alike(real: Any, simulated: Any) -> bool:
    """The same answer, but for clocks that were read one after the other."""
    if isinstance(real, Exception):
        if not isinstance(simulated, hiredis.ReplyError):
            return False
        # What the scripts say themselves; a server's own words are not ours to repeat.
        ours = "REDLOCK" in str(real)
        return not ours or str(real) == str(simulated)
    if isinstance(real, int) or isinstance(simulated, int):
        return bool(real == simulated)
    if (
        isinstance(real[1], bytes)
        and isinstance(simulated[1], bytes)
        and real[0] == simulated[0] == 1
    ):
        return same_but_for_clocks(real[1].decode(), simulated[1].decode())
    if real[:2] != simulated[:2] or len(real) != len(simulated):
        return False
    match real:
        case [0, _, int(pttl), bytes(), *_]:
            return bool(abs(pttl - simulated[2]) <= NEAR * 1000 and real[3:] == simulated[3:])
        case [2, _, 0, int(now)]:
            return bool(abs(now - simulated[3]) <= NEAR * 1e6)
    return bool(real == simulated)


def same_but_for_clocks(real: str, simulated: str) -> bool:
    """Two markers whose numbers may be of clocks that were read one after the other."""
    pairs = list(zip(real.split(" "), simulated.split(" "), strict=True))
    return all(one == other or abs(int(one) - int(other)) <= NEAR * 1e6 for one, other in pairs)


def draw_mark(draw: random.Random, pair: Pair, now_us: int) -> Mark:
    """A marker or a blank, over what stands or over something else, for this memory or another
    one."""
    identity = pair.identity()
    if draw.random() < 0.3:
        identity = replace(identity, marker=draw.choice(["", "other"]))
    if draw.random() < 0.3:
        identity = replace(identity, memory=Memory(identity.memory.run_id, "f" * 40))
    if draw.random() < 0.3:
        return blank(
            "nonce", identity, latest_us=draw.choice([0, now_us - 60_000_000, now_us + 60_000_000])
        )
    floor, since_us = draw.choice([0, now_us, now_us + 60_000_000]), draw.choice([0, now_us])
    return Marker(identity.memory, 1, 60.0, wait_ttl=90.0, floor=floor, since_us=since_us).write(
        identity
    )


def draw_command(draw: random.Random, now_us: int) -> Command:
    """A command as a client might send it, with tokens and ttls at the edges of every rule."""
    owner = draw.choice(OWNERS)
    token = now_us + draw.choice(
        [
            -3_000_000,
            -1,
            0,
            1,
            2,
            3,
            500,
            2047,
            2048,
            2049,
            30_000_000,
            59_000_000,
            62_000_000,
            10**9,
        ]
    )
    ttl = draw.choice([5.0, 10.0, 30.0, 59.0, 61.0])
    fence_ttl = draw.choice([0.0, 100.0, 1000.0])
    name = draw.choice(NAMES)
    place = f"{draw.choice([1, 1_000, now_us, now_us + 1])}{draw.choice('   ~')}{name}"
    kind = draw.random()
    if kind < 0.5:
        mode = draw.choice(["acquire", "acquire", "extend", "verify"])
        waits = draw.choice(["", place, place, "-"]) if mode == "acquire" else ""
        return Take(*KEYS, owner, token, ttl=ttl, fence_ttl=fence_ttl, mode=mode, place=waits)
    if kind < 0.75:
        leaves = draw.choice(["", name, "-", "?"])
        return Free(*KEYS, owner, token, fence_ttl=fence_ttl, place=leaves)
    if kind < 0.9:
        return draw.choice([Peek(*KEYS), Canvass(*KEYS), Canvass(*KEYS, place=place)])
    if kind < 0.95:
        return Leave(KEYS[0], name)
    return Repair(KEYS[0], ttl=20.0)


def draw_places(draw: random.Random, now_us: int) -> dict[str, float] | None:
    """What may stand where a queue belongs: ours, and what no script of ours would leave."""
    now_ms = now_us // 1000
    if draw.random() < 0.1:
        return None
    places: dict[str, float] = {}
    for name in draw.sample([*NAMES, "!", "~x", "7", "unheard.9\n"], draw.randrange(1, 5)):
        places[name] = draw.choice([1, 7, now_us, float("inf")])
        lease = draw.choice([-500, 500, 990, 60_000, None])
        if lease is not None:
            places[draw.choice("!!~") + name] = -(now_ms + lease)
    return places


@pytest.mark.parametrize("seed", range(8))
def test_a_simulated_node_answers_as_a_real_one(seed: int) -> None:
    """Two hundred random commands each, on tokens that step around the fence, the floor and the
    clamp."""
    draw = random.Random(seed)
    with Nodes(1, marked=False) as nodes:
        pair = Pair(nodes)
        base = round(time.time_ns() / 1000)
        for step in range(200):
            if pair.sim.role != "master":
                pass  # Nobody writes there.
            elif draw.random() < 0.03:  # A key without expiry, as a foreign client leaves one.
                pair.client.set(KEYS[0], "foreign")
                pair.sim.data[KEYS[0]] = ("foreign", None)
            elif draw.random() < 0.05:
                pair.client.delete(*KEYS)
                for key in KEYS:
                    pair.sim.data.pop(key, None)
            elif draw.random() < 0.02:
                fence = draw.choice(FENCES)
                pair.client.set(KEYS[1], fence, px=500_000)
                pair.sim.data[KEYS[1]] = (fence, pair.sim.wall_us(0.0) // 1000 + 500_000)
            if draw.random() < 0.04 or (pair.sim.role == "slave" and draw.random() < 0.3):
                pair.turn()
                told, simulated = pair.identity(), pair.sim.identity(0.0)
                assert told.promoted == simulated.promoted
                told = replace(
                    told, uptime=simulated.uptime, clock=simulated.clock, version=simulated.version
                )
                assert bool(told.mute) == bool(simulated.mute) == (pair.sim.role == "slave")
                told = replace(told, promoted_at=simulated.promoted_at, mute=simulated.mute)
                assert told == simulated, (seed, step)
                if pair.sim.role == "master" and draw.random() < 0.7:
                    pair.mark()
            if pair.sim.role == "master":
                if draw.random() < 0.05:
                    seconds, micros = pair.client.time()
                    pair.plant(draw_places(draw, seconds * 1_000_000 + micros))
                elif time.monotonic() > pair.cleared_at + 0.3:
                    pair.clear()
            marks = draw.random() < 0.05
            command = (
                draw_mark(draw, pair, base) if marks else draw_command(draw, base + step * 1000)
            )
            real, simulated = pair.tell(command)
            assert alike(real, simulated), (
                seed,
                step,
                type(command).__name__,
                command.args,
                real,
                simulated,
            )
            assert pair.same_queue(), (seed, step, type(command).__name__, command.args)
            published, heard = pair.told()
            assert published == heard, (seed, step, command.args)
            if marks:
                assert is_blank(pair.sim.data[MARKER_KEY][0]) == pair.identity().blank
                if pair.sim.role == "master":
                    pair.mark()
            for key in KEYS:
                value = pair.sim.data.get(key)
                assert pair.client.get(key) == (value[0].encode() if value else None), (
                    seed,
                    step,
                    key,
                )
                left = pair.sim._pttl(key, pair.sim.wall_us(0.0) // 1000)
                assert abs(pair.client.pttl(key) - left) <= NEAR * 1000, (seed, step, key, left)
        pair.client.close()


def test_both_forget_a_lock_when_its_time_is_over() -> None:
    """Expiry on the node's own clock, to the millisecond that `now > when` allows."""
    with Nodes(1, marked=False) as nodes:
        pair = Pair(nodes)
        token = round(time.time_ns() / 1000)
        take = Take(*KEYS, OWNERS[0], token, ttl=0.05, fence_ttl=100.0)
        assert alike(*pair.tell(take))
        deadline = time.monotonic() + 5.0
        while pair.client.exists(KEYS[0]):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        real, simulated = pair.tell(Peek(*KEYS))
        assert real == simulated == [4, token]
        pair.client.close()


def test_a_look_tells_a_run_of_the_flows_what_it_tells_the_links() -> None:
    """Whichever way a simulated node is asked, it says the same of itself."""
    node = SimNode(0, lambda: "ab" * 20)
    node.data[MARKER_KEY] = ("a marker", None)
    node.evicted = 3
    for turn in (lambda: None, node.promote, node.back_up, lambda: setattr(node, "uptime", "?")):
        turn()
        reader = hiredis.Reader()
        reader.feed(node.execute([str(word).encode() for word in Look().words(whole=True)], 7.5))
        assert Identity.parse(*Look().read(reader.gets())) == node.identity(7.5)


def test_a_blank_that_is_written_twice_gives_two_texts() -> None:
    """A command that executes twice finds another text the second time, on both servers."""
    with Nodes(1, marked=False) as nodes:
        pair = Pair(nodes)
        pair.client.delete(MARKER_KEY)
        del pair.sim.data[MARKER_KEY]
        command = blank("nonce", pair.identity(), latest_us=7)
        texts = []
        for _ in range(2):
            real, simulated = pair.tell(command)
            assert alike(real, simulated)
            texts.append(real)
            pair.client.delete(MARKER_KEY)
            del pair.sim.data[MARKER_KEY]
        assert texts[0] != texts[1]
        pair.client.close()
