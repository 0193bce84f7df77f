"""The model's scripts and the shipped Lua side by side, on every small memory: the model may not
drift from what ships."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import redis

from chaos.model.protocol import BUSY, GRANTED, SHIPPED, Lock, Op, Reply, Rules, free, take, waited
from redlock.core.commands import MARKER_KEY, QUEUE_SUFFIX, Free, Take
from redlock.core.identity import Marker, Memory
from redlock.embedded import Nodes

LOCK, FENCE = "redlock:r", "redlock:r:fence"
UNIT = 1000.0
"""Seconds of one instant of the model's timelines: long enough that a slow machine rounds none
away."""

TOKENS, INSTANTS = (1, 2, 3), (1, 2)
LOCKS = [
    None,
    *(Lock(owner, token, until) for owner in (0, 1) for token in TOKENS for until in INSTANTS),
]
FENCES = FLOORS = (0, 1, 2, 3, 4)
MODES = {Op.TAKE: "acquire", Op.EXTEND: "extend", Op.VERIFY: "verify"}

Remembered = tuple[Lock | None, int]


class Server:
    """A real node that is put into a memory of the model, told one command, and read again; in
    one batch for many."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        info: Any = client.info()
        memory = Memory(info["run_id"], info["master_replid"])
        self.batch: Any = client.pipeline(transaction=False)
        self.markers = {
            floor: Marker(memory, 1, 100 * UNIT, floor=floor).text() for floor in FLOORS
        }

    def put(
        self,
        lock: Lock | None,
        fence: int,
        floor: int,
        command: Take | Free,
        queue: dict[str, float] | None = None,
    ) -> None:
        """Add one case to the batch."""
        self.batch.delete(LOCK, FENCE, LOCK + QUEUE_SUFFIX)
        self.batch.set(MARKER_KEY, self.markers[floor])
        if lock is not None:
            self.batch.set(LOCK, f"{lock.owner}:{lock.token}", px=round(lock.until * UNIT * 1000))
        if fence:
            self.batch.set(FENCE, fence)
        if queue:
            self.batch.zadd(LOCK + QUEUE_SUFFIX, queue)
        words = command.words()
        self.batch.execute_command(*words, *([self.markers[floor]] if command.marked else []))
        self.batch.get(LOCK).pttl(LOCK).get(FENCE).echo("end")

    def outcomes(self) -> Iterator[tuple[Remembered, Any]]:
        """Of each case, in order: lock and fence afterwards, and the answer."""
        case: list[Any] = []
        for answer in self.batch.execute():
            if answer != b"end":
                case.append(answer)
                continue
            reply, value, left, fence = case[-4:]
            lock = None
            if value is not None:
                owner, token = value.decode().split(":")
                lock = Lock(int(owner), int(token), round(left / UNIT / 1000))
            yield (lock, int(fence or 0)), reply
            case = []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One real server that knows the scripts."""
    with Nodes(1) as nodes, nodes[0].client() as client:
        for script in (Take.script, Free.script):
            assert script is not None
            client.script_load(script.source)
        yield Server(client)


TAKES = list(product(LOCKS, FENCES, FLOORS, MODES, (0,), TOKENS, INSTANTS))
FREES = list(product(LOCKS, FENCES, (0,), TOKENS))


def model_take(rules: Rules) -> list[tuple[Remembered, Reply]]:
    outcomes = [take(*case, rules) for case in TAKES]
    return [((lock, fence), reply) for lock, fence, reply in outcomes]


@pytest.fixture(scope="module")
def real_take(server: Server) -> list[tuple[Remembered, Reply]]:
    """What the real server does in each of `TAKES`."""
    for lock, fence, floor, op, owner, token, until in TAKES:
        command = Take(
            LOCK, FENCE, str(owner), token, ttl=until * UNIT, fence_ttl=0, mode=MODES[op]
        )
        server.put(lock, fence, floor, command)
    return [
        (memory, Reply(GRANTED, answer) if isinstance(answer, int) else Reply(*answer[:2]))
        for memory, answer in server.outcomes()
    ]


def test_take_is_what_ships(real_take: list[tuple[Remembered, Reply]]) -> None:
    """On every small memory, in every mode, TAKE leaves and answers on a real server what it
    does in the model."""
    assert len(TAKES) == 5850
    assert dict(zip(TAKES, model_take(SHIPPED), strict=True)) == dict(
        zip(TAKES, real_take, strict=True)
    )


def test_take_in_anothers_turn_is_what_ships(server: Server) -> None:
    """On every small memory where a place stands in front, TAKE leaves and answers on a real server
    what it does in the model: it refuses a claim to a free lock, and changes nothing else."""
    cases = [case for case in TAKES if case[3] is Op.TAKE and case[6] == 1]
    model, real = [], []
    for first in range(0, len(cases), 50):  # For no longer than the lease of a place.
        seconds, micros = server.client.time()
        lease = -(seconds * 1000 + micros // 1000 + 900)
        for lock, fence, floor, op, owner, token, until in cases[first : first + 50]:
            command = Take(LOCK, FENCE, str(owner), token, ttl=until * UNIT, fence_ttl=0, place="-")
            server.put(lock, fence, floor, command, {"nobody.1": 1, "~nobody.1": lease})
            after, raised, reply = waited(lock, fence, op) or take(
                lock, fence, floor, op, owner, token, until
            )
            model.append(((after, raised), reply))
        real += [
            (
                memory,
                Reply(GRANTED, answer)
                if isinstance(answer, int)
                else Reply(BUSY if answer[0] == 5 else answer[0], answer[1]),
            )
            for memory, answer in server.outcomes()
        ]
    assert dict(zip(cases, model, strict=True)) == dict(zip(cases, real, strict=True))
    assert model != [
        ((lock, fence), reply) for lock, fence, reply in (take(*case) for case in cases)
    ]


@pytest.mark.parametrize(
    "rule",
    ["strict", "top_up_checks_fence", "extension_never_shortens", "turn_only_refuses"],
)
def test_the_comparison_sees_a_rule_that_is_switched_off(
    rule: str, real_take: list[tuple[Remembered, Reply]]
) -> None:
    """The comparison can fail: each rule of the script that the model can weaken makes a
    difference to it."""
    assert model_take(SHIPPED._replace(**{rule: False})) != real_take


def test_free_is_what_ships(server: Server) -> None:
    """On every small memory FREE leaves on a real server what it does in the model."""
    for lock, fence, owner, token in FREES:
        server.put(lock, fence, 0, Free(LOCK, FENCE, str(owner), token, fence_ttl=0))
    real = [memory for memory, _ in server.outcomes()]
    assert dict(zip(FREES, [free(*case) for case in FREES], strict=True)) == dict(
        zip(FREES, real, strict=True)
    )
