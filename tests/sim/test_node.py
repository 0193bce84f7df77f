"""The simulated node and a real server side by side: the Python semantics may not drift from the Lua files."""

from __future__ import annotations

import random
import time
from typing import Any

import hiredis
import pytest

from chaos.sim.node import EPOCH_US, SimNode
from redlock.core.admission import Marker
from redlock.core.commands import Canvass, Command, Free, Mark, Peek, Repair, Take
from redlock.embedded import Nodes

KEYS = ("redlock:r", "redlock:r:fence")
OWNERS = ("a" * 32, "b" * 32, "c" * 32)
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


class Pair:
    """One real and one simulated server that are told the same."""

    def __init__(self, nodes: Nodes) -> None:
        self.client = nodes[0].client()
        info: Any = self.client.info("server")
        self.sim = SimNode(0, lambda: info["run_id"])
        self.marker = Marker(info["run_id"], 1, 60.0, False).text()
        self.client.flushall()
        self.client.set("redlock:node", self.marker)
        self.sim.data["redlock:node"] = (self.marker, None)

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


def alike(real: Any, simulated: Any) -> bool:
    """The same answer, but for clocks that were read one after the other."""
    if isinstance(real, Exception):
        if not isinstance(simulated, hiredis.ReplyError):
            return False
        ours = "REDLOCK" in str(real)  # What the scripts say themselves; a server's own words are not ours to repeat.
        return not ours or str(real) == str(simulated)
    if isinstance(real, int) or isinstance(simulated, int):
        return bool(real == simulated)
    if real[:2] != simulated[:2] or len(real) != len(simulated):
        return False
    match real:
        case [0, _, int(pttl), bytes(holder)]:
            return bool(abs(pttl - simulated[2]) <= NEAR * 1000 and holder == simulated[3])
        case [2, _, 0, int(now)]:
            return bool(abs(now - simulated[3]) <= NEAR * 1e6)
    return bool(real == simulated)


def draw_command(draw: random.Random, now_us: int) -> Command:
    """A command as a client might send it, with tokens and ttls at the edges of every rule."""
    owner = draw.choice(OWNERS)
    token = now_us + draw.choice([-3_000_000, -1, 0, 1, 2, 3, 500, 2047, 2048, 2049, 30_000_000, 59_000_000, 62_000_000, 10**9])
    ttl = draw.choice([5.0, 10.0, 30.0, 59.0, 61.0])
    fence_ttl = draw.choice([0.0, 100.0, 1000.0])
    kind = draw.random()
    if kind < 0.55:
        mode = draw.choice(["acquire", "acquire", "extend", "verify"])
        return Take(*KEYS, owner, token, ttl=ttl, fence_ttl=fence_ttl, mode=mode)
    if kind < 0.8:
        return Free(*KEYS, owner, token, fence_ttl=fence_ttl)
    if kind < 0.9:
        return draw.choice([Peek, Canvass])(*KEYS)
    if kind < 0.95:
        return Repair(KEYS[0], ttl=20.0)
    return Mark(expected=draw.choice(["", "other"]), head="redlock1 x 1 60000 0", floor=draw.choice(["7", "+60000000"]), tail="-")


@pytest.mark.parametrize("seed", range(8))
def test_a_simulated_node_answers_as_a_real_one(seed: int) -> None:
    """Two hundred random commands each, on tokens that step around the fence, the floor and the clamp."""
    draw = random.Random(seed)
    with Nodes(1, marked=False) as nodes:
        pair = Pair(nodes)
        base = round(time.time_ns() / 1000)
        for step in range(200):
            if draw.random() < 0.03:  # A key without expiry, as a foreign client leaves one.
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
            command = draw_command(draw, base + step * 1000)
            real, simulated = pair.tell(command)
            assert alike(real, simulated), (seed, step, type(command).__name__, command.args, real, simulated)
            for key in KEYS:
                value = pair.sim.data.get(key)
                assert pair.client.get(key) == (value[0].encode() if value else None), (seed, step, key)
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
