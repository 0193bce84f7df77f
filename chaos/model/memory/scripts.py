"""The scripts as far as memories go: what TAKE and MARK compare before they do anything, and what
they then leave.

`tests/servers/test_model_memory_scripts.py` holds these functions to the shipped Lua.
"""

from __future__ import annotations

from chaos.model.memory.state import AHEAD, Blank, Mark, Marker, Node, Rules, Text

__all__ = ["MARKED", "REFUSED", "STANDS", "TAKEN", "mark", "remembers", "take"]

REFUSED, TAKEN, OTHER = 3, 1, 0
STANDS, MARKED = 0, 1
"""What the scripts answer, as numbers: not the node that was admitted; taken; somebody else's or
too small; and for MARK, another text stands; written."""


def remembers(node: Node, memory: int, rules: Rules) -> bool:
    """Whether the server says in the script that this is its memory, and that it is a master."""
    if rules.master_in_script and not node.master:
        return False
    if not rules.memory_in_script:
        return True
    return node.memory == memory or (not rules.memory_by_name and node.prior == memory)


def take(
    node: Node, text: Text, owner: int, ttl: int, token: int, clock: int, rules: Rules
) -> tuple[Node, int]:
    """`take.lua`, mode acquire, with the marker that the client was admitted by: the node
    afterwards, and the answer.

    *token*: 0 in a world without tokens. *clock*: the node's, in ticks.
    """
    if (
        text is None
        or node.text != text
        or not isinstance(text, Marker)
        or not remembers(node, text.memory, rules)
    ):
        return node, REFUSED
    if ttl > text.max_ttl:
        return node, OTHER
    if node.lock == owner:
        return node, TAKEN
    if node.lock >= 0:
        return node, OTHER
    if token and not max(node.fence, text.floor) < token <= clock + AHEAD:
        return node, OTHER
    return node._replace(lock=owner, fence=token or node.fence), TAKEN


def mark(node: Node, request: Mark, stamp: int, rules: Rules) -> tuple[Text, int]:
    """`mark.lua`: the text that stands afterwards, and the answer. *stamp*: what a blank is
    finished with."""
    if not remembers(node, request.memory, rules):
        return node.text, REFUSED
    if node.text != request.expected:
        return node.text, STANDS
    if request.text is not None:
        return request.text, MARKED
    memory = request.memory if rules.blank_names_memory else -1
    return (
        Blank(memory, 0, stamp) if rules.blank_by_node else Blank(memory, request.client + 1, 0)
    ), MARKED
