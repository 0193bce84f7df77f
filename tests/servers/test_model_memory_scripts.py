"""What the world of memories lets TAKE and MARK compare, and the shipped Lua on real servers, in
every case that differs.

A node is put into each of its roles: a master, one that was promoted and shows the id of before as
`master_replid2`, and a replica that shows its master's id and takes writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from chaos.model.memory.scripts import MARKED, REFUSED, STANDS, TAKEN, mark, take
from chaos.model.memory.state import SHIPPED, Blank, Mark, Marker, Node, Rules, Text
from redlock.core import commands, identity
from redlock.core.commands import MARKER_KEY, Take
from redlock.embedded import Nodes
from tests.servers.test_admission_live import demote, wait_for_copy

LOCK, FENCE = "redlock:r", "redlock:r:fence"
TTL = 10.0
"""Seconds of the model's ttl of 1."""

OURS, BEFORE, STRANGE = 1, 0, 7
"""The id that the node has, the one that it had before, and one that it never had."""

ROLES = {
    "master": Node(memory=OURS),
    "promoted": Node(memory=OURS, prior=BEFORE, promoted=True),
    "replica": Node(memory=OURS, master=False),
}
IDS = (OURS, BEFORE, STRANGE)
TEXTS: tuple[Text, ...] = (
    None,
    Blank(OURS, 0, 0),
    Marker(OURS, 0),
    Marker(BEFORE, 0),
    Marker(OURS, 0, floor=2),
    Marker(STRANGE, 0),
)


class Server(NamedTuple):
    """A real server in one of the roles, and the replication ids for the model's numbers."""

    client: Any
    ids: dict[int, str]
    node: Node

    def words(self, text: Text) -> str:
        """A text of the model as it stands on a node."""
        if text is None:
            return ""
        if isinstance(text, Blank):
            return f"redlock2 blank 5 5 {self.ids[text.memory]} nonce"
        memory = identity.Memory("run", self.ids[text.memory])
        return identity.Marker(memory, 3, TTL * text.max_ttl, floor=text.floor, since_us=5).text()

    def put(self, text: Text) -> None:
        """Give the node this text, and nothing else."""
        self.client.delete(LOCK, FENCE, MARKER_KEY)
        if text is not None:
            self.client.set(MARKER_KEY, self.words(text))


@pytest.fixture(scope="module", params=list(ROLES))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server in each role."""
    with Nodes(2, marked=False, options={"repl-diskless-sync-delay": "0"}) as nodes:
        client = nodes[0].client()
        if request.param != "master":
            demote(nodes[0], nodes[1])
            wait_for_copy(nodes[0])
        if request.param == "promoted":
            client.replicaof("NO", "ONE")
        client.config_set("replica-read-only", "no")
        # Else an id of digits is a number.
        raw = client.eval("return redis.call('INFO', 'replication')", 0).decode()
        info = dict(line.split(":", 1) for line in raw.splitlines() if ":" in line)
        ids = {OURS: info["master_replid"], BEFORE: info["master_replid2"], STRANGE: "f" * 40}
        # Else there is nothing for a match without the name to find.
        assert (ids[BEFORE] != "0" * 40) == (request.param == "promoted")
        yield Server(client, ids, ROLES[request.param])
        client.close()


def taken(server: Server, stands: Text, named: Marker, ttl: int, token: int) -> int:
    """What the shipped TAKE answers."""
    server.put(stands)
    command = Take(LOCK, FENCE, "owner", token, ttl=TTL * ttl, fence_ttl=0)
    try:
        answer = server.client.execute_command(*command.words(whole=True), server.words(named))
    except Exception as error:  # An error reply: above max_ttl.
        assert "max_ttl" in str(error)
        return 0
    return TAKEN if isinstance(answer, int) else {3: REFUSED, 2: 0}[answer[0]]


TAKES = [
    (stands, named, ttl, token)
    for stands, named, ttl, token in product(TEXTS, TEXTS, (1, 2), (1, 3))
    if isinstance(named, Marker)
]


def model_takes(node: Node, rules: Rules) -> list[int]:
    return [
        take(node._replace(text=stands), named, 0, ttl, token, 3, rules)[1]
        for stands, named, ttl, token in TAKES
    ]


def test_take_compares_what_the_model_does(server: Server) -> None:
    """Text, memory behind its name, role, max_ttl and floor: TAKE says yes, no, or that this is
    not the node it was told of."""
    real = [taken(server, *case) for case in TAKES]
    assert dict(zip(TAKES, model_takes(server.node, SHIPPED), strict=True)) == dict(
        zip(TAKES, real, strict=True)
    )
    assert (TAKEN in real) == server.node.master


MARKS = [
    Mark(0, 0, expected, memory, text)
    for expected, memory, text in product(TEXTS[:4], IDS, (None, Marker(OURS, 0, floor=1)))
]


def marked(server: Server, stands: Text, request: Mark) -> int:
    """What the shipped MARK answers."""
    server.put(stands)
    memory = identity.Memory("run", server.ids[request.memory])
    told = identity.Identity(
        memory, "master", False, False, "noeviction", 1.0, "7", server.words(request.expected)
    )
    if request.text is None:
        command = identity.blank("nonce", told)
    else:
        command = identity.Marker(memory, 3, TTL, floor=request.text.floor).write(told)
    answer = server.client.execute_command(*command.words(whole=True))
    assert command.read(answer) == (None if answer[0] == 3 else answer[1].decode())
    return {1: MARKED, 0: STANDS, 3: REFUSED}[answer[0]]


def test_mark_compares_what_the_model_does(server: Server) -> None:
    """Memory and role, and then the text that is expected."""
    cases = list(product(TEXTS[:4], MARKS))
    real = [marked(server, *case) for case in cases]
    model = [
        mark(server.node._replace(text=stands), request, 0, SHIPPED)[1] for stands, request in cases
    ]
    assert dict(zip(cases, model, strict=True)) == dict(zip(cases, real, strict=True))


@pytest.mark.parametrize(
    ("rule", "role"),
    [
        ("memory_in_script", "master"),
        ("memory_by_name", "promoted"),
        ("master_in_script", "replica"),
    ],
)
def test_the_comparison_sees_a_rule_that_is_switched_off(rule: str, role: str) -> None:
    """It can fail: each rule of the script that the model can weaken makes a difference to these
    cases."""
    assert model_takes(ROLES[role], SHIPPED._replace(**{rule: False})) != model_takes(
        ROLES[role], SHIPPED
    )


def test_a_blank_is_like_no_other(server: Server) -> None:
    """The same MARK, executed twice where nothing stands, leaves two texts: the node finishes
    it. Each names its memory."""
    if not server.node.master:
        return
    told = identity.Identity(
        identity.Memory("run", server.ids[OURS]), "master", False, False, "noeviction", 1.0, "7", ""
    )
    command: commands.Mark = identity.blank("nonce", told)
    texts = []
    for _ in range(2):
        server.put(None)
        texts.append(server.client.execute_command(*command.words(whole=True))[1].decode())
    assert texts[0] != texts[1]
    parsed = identity.Blank.parse(texts[0])
    assert parsed is not None and parsed.replication_id == server.ids[OURS]
