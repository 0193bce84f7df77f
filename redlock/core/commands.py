"""The commands we send and what their answers mean: the Lua scripts, their arguments, and `read`
for each.

Milliseconds exist only here. An answer that is not one the script gives raises `Nonsense`: the
connection cannot be trusted any more, and nothing that it says may count as a grant.
"""

from __future__ import annotations

import hashlib
import math
import re
from importlib import resources
from typing import Any

from redlock.core.quorum import GRANTED, Kind, Vote

# Long: every command we send beside what its answers mean; the scripts are read against it.
__all__ = [
    "FENCE_SUFFIX",
    "MARKER_KEY",
    "QUEUE_SUFFIX",
    "SHOWN_MAX",
    "TOKEN_MAX",
    "Canvass",
    "Command",
    "Free",
    "Greet",
    "Leave",
    "Look",
    "Mark",
    "Nonsense",
    "Peek",
    "Plain",
    "Repair",
    "Script",
    "Take",
    "fields",
    "scripts",
    "to_ms",
]

MARKER_KEY = "redlock:node"
FENCE_SUFFIX = ":fence"
QUEUE_SUFFIX = ":lock-queue"
SHOWN_MAX = 1280
"""Bytes of a lock's value that PEEK shows at most: room for the note of a candidate."""
TOKEN_MAX = 2**53 - 1
"""Exact in a Lua double, in JSON and in a BIGINT; reached in the year 2255."""


class Nonsense(Exception):
    """An answer that our script cannot have given."""


def _lua(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text("utf-8")


class Script:
    """One Lua file, with what it includes, with the digest under which a server remembers it."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = re.sub(
            r"^-- include: (\w+)$", lambda match: _lua(match[1]), _lua(name), flags=re.M
        )
        # The digest EVALSHA asks for; a name for a text, not a protection.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


TAKE, FREE, PEEK, LEAVE, LOOK, REPAIR, MARK = (
    Script(name) for name in ("take", "free", "peek", "leave", "look", "repair", "mark")
)


def scripts() -> tuple[Script, ...]:
    """The scripts that admission loads on a new connection."""
    return TAKE, FREE, PEEK, LEAVE, LOOK


def to_ms(seconds: float) -> int:
    """Whole milliseconds, rounded up: a node must never hold a lock for less than was asked."""
    return math.ceil(seconds * 1000.0 - 1e-6)


class Command:
    """One command, the same for all nodes of a round.

    *marked*: the connection appends the marker of the node it was admitted to, as the last
    argument. *final*: a release; it stays owed to a node until answered, and needs no admission.
    *packed*, *plain_yes*: room for the transport to keep the encoded bytes, which all nodes share,
    and those of the answer `yes`, so that they need not be parsed to be known.
    """

    __slots__ = ("args", "keys", "packed", "plain_yes")
    script: Script | None = None
    marked = False
    final = False

    def __init__(self, keys: tuple[str, ...], args: tuple[str | int, ...]) -> None:
        self.keys = keys
        self.args = args
        self.packed: bytes | None = None
        self.plain_yes = b""

    @property
    def yes(self) -> int | None:
        """The integer that is a grant, and what nodes say nearly always; None where there is
        none."""
        return None

    def words(self, *, whole: bool = False) -> tuple[str, ...]:
        """The command as words, without the marker; *whole*: with the script's text, for a server
        that lost it.

        Text, never numbers: hiredis turns a number into text by a call in which CPython looks for
        signals, and does not look whether it failed. A Ctrl-C that struck there crashed the
        process.
        """
        assert self.script is not None
        verb, script = ("EVAL", self.script.source) if whole else ("EVALSHA", self.script.sha)
        return (verb, script, str(len(self.keys)), *self.keys, *map(str, self.args))

    def read(self, answer: Any) -> Any:
        """What the answer means. Raises `Nonsense`."""
        raise NotImplementedError


class Take(Command):
    """Take, extend or verify a lock: see `lua/take.lua`.

    *note*: kept with the grant, for whoever asks who holds the lock; part of what an extension must
    find. *place*: in the queue, see `redlock.core.line`.
    """

    __slots__ = ("mode", "owner", "token", "ttl")
    script = TAKE
    marked = True

    def __init__(
        self,
        lock_key: str,
        fence_key: str,
        owner: str,
        token: int,
        *,
        ttl: float,
        fence_ttl: float,
        mode: str = "acquire",
        place: str = "",
        note: str = "",
    ) -> None:
        arguments = (owner, token, place, to_ms(ttl), to_ms(fence_ttl), mode)
        super().__init__(
            _keys(lock_key, fence_key, MARKER_KEY, queue=bool(place)),
            (*arguments, note) if note else arguments,
        )
        self.owner = owner
        self.token = token
        self.ttl = ttl
        self.mode = mode

    @property
    def yes(self) -> int:
        return self.token

    def read(self, answer: Any) -> Vote:
        """A vote. A grant must name our own token: a reply to somebody else's question is never
        ours."""
        match answer:
            case int(token) if token == self.token:
                return GRANTED
            case [0, int(fence), int(pttl), bytes(holder), 0 | 1 | 2 as queued] if _can_be_held(
                fence, pttl, holder
            ):
                return _busy(fence, pttl, holder, queued == _FULL)
            case [5, int(fence), 0 | 1 | 2 as queued] if 0 <= fence <= TOKEN_MAX:
                return Vote(Kind.BUSY, fence, full=queued == _FULL)
            case [2, int(fence), 0, int(time_us)] if (
                0 <= fence <= TOKEN_MAX and 0 < time_us <= TOKEN_MAX
            ):
                ahead = (
                    (self.token - time_us) / 1e6
                    if self.mode == "acquire" and fence < self.token
                    else 0.0
                )
                return Vote(Kind.BEHIND, fence, time_us=time_us, ahead=ahead)
            case [3, bytes()]:
                return _STRANGER
        raise Nonsense(_short(answer))


class Free(Command):
    """Release all an owner holds on a node, finally: see `lua/free.lua`.

    *unattended*: nobody will read an answer that the server has lost the script, so send its text
    at once.
    """

    __slots__ = ("unattended",)
    script = FREE
    final = True

    def __init__(
        self,
        lock_key: str,
        fence_key: str,
        owner: str,
        token: int,
        *,
        fence_ttl: float,
        place: str = "",
        unattended: bool = False,
    ) -> None:
        super().__init__(
            _keys(lock_key, fence_key, queue=bool(place)),
            (owner, token, place, to_ms(fence_ttl)),
        )
        self.unattended = unattended

    def words(self, *, whole: bool = False) -> tuple[str, ...]:
        return super().words(whole=whole or self.unattended)

    @property
    def yes(self) -> int | None:
        return None if self.unattended else 1

    def read(self, answer: Any) -> Vote:
        """A vote: GRANTED, this node holds nothing of ours any more; BUSY, it is somebody
        else's."""
        match answer:
            case int(code) if code in (0, 1):
                return GRANTED
            case 2:
                return Vote(Kind.BUSY)
        raise Nonsense(_short(answer))


class Peek(Command):
    """Look at a lock, and who waits for it, without writing: see `lua/peek.lua`."""

    __slots__ = ()
    script = PEEK

    def __init__(self, lock_key: str, fence_key: str, *, place: str = "") -> None:
        super().__init__(
            _keys(lock_key, fence_key, MARKER_KEY, queue=True), (place,) if place else ()
        )

    def read(self, answer: Any) -> Vote:
        """A vote: FREE, BUSY or STRANGER."""
        match answer:
            case [4, int(fence), *waiting] if 0 <= fence <= TOKEN_MAX:
                return Vote(Kind.FREE, fence, waiting=_waiting(waiting))
            case [0, int(fence), int(pttl), bytes(holder), 0 | 1 | 2 as queued] if _can_be_held(
                fence, pttl, holder, SHOWN_MAX
            ):
                return _busy(fence, pttl, holder, queued == _FULL)
            case [0, int(fence), int(pttl), bytes(holder), *waiting] if _can_be_held(
                fence, pttl, holder, SHOWN_MAX
            ):
                return _busy(fence, pttl, holder)._replace(waiting=_waiting(waiting))
            case [5, int(fence), 0 | 1 | 2 as queued] if 0 <= fence <= TOKEN_MAX:
                return Vote(Kind.BUSY, fence, full=queued == _FULL)
            case [3, bytes()]:
                return _STRANGER
        raise Nonsense(_short(answer))


class Canvass(Peek):
    """A `Peek` that only an admitted node may answer: what waiters ask before they try. *place*:
    theirs in the queue, which they enter by it, or stay in."""

    __slots__ = ()
    marked = True


class Leave(Command):
    """Give up a place in the queue: see `lua/leave.lua`. Nobody waits for the answer."""

    __slots__ = ()
    script = LEAVE

    def __init__(self, lock_key: str, name: str) -> None:
        super().__init__((lock_key, lock_key + QUEUE_SUFFIX), (name,))

    def words(self, *, whole: bool = False) -> tuple[str, ...]:
        return super().words(whole=True)

    def read(self, answer: Any) -> None:
        if answer != 1:
            raise Nonsense(_short(answer))


class Repair(Command):
    """Give a lock key without an expiry one: see `lua/repair.lua`."""

    __slots__ = ()
    script = REPAIR

    def __init__(self, lock_key: str, *, ttl: float) -> None:
        super().__init__((lock_key,), (to_ms(ttl),))

    def words(self, *, whole: bool = False) -> tuple[str, ...]:
        # Always the text: nobody may be there any more to read that the server does not know the
        # script.
        return super().words(whole=True)

    def read(self, answer: Any) -> bool:
        """Whether there was something to repair."""
        match answer:
            case int(done) if done in (0, 1):
                return bool(done)
        raise Nonsense(_short(answer))


class Mark(Command):
    """Compare-and-set a node's marker: see `lua/mark.lua`."""

    __slots__ = ("expected", "head", "is_blank", "tail")
    script = MARK

    def __init__(self, *, expected: str, memory: str, head: str, stamp: str, tail: str) -> None:
        super().__init__((MARKER_KEY,), (expected, memory, head, stamp, tail))
        self.expected = expected
        self.head = head
        self.tail = tail
        self.is_blank = stamp.startswith("+")

    def read(self, answer: Any) -> str | None:
        """The marker that stands now, '' for none; None: the node has another memory than we
        thought.

        Never what no script of ours answers: we would ask again for ever.
        """
        match answer:
            case [0, bytes(marker)] if (
                stands := marker.decode("utf-8", "replace")
            ) != self.expected:
                return stands
            case [1, bytes(marker)] if self.wrote(stands := marker.decode("utf-8", "replace")):
                return stands
            case [3, bytes()]:
                return None
        raise Nonsense(_short(answer))

    def wrote(self, stands: str) -> bool:
        """Whether *stands* is what this command writes."""
        return stands.startswith(f"{self.head} ") and stands.endswith(f" {self.tail}")


class Look(Command):
    """Ask who answers, and for its marker: see `lua/look.lua`. *waits*: whoever asks may want to
    wait for locks, and is told whether it can."""

    __slots__ = ()
    script = LOOK

    def __init__(self, *, waits: bool = True) -> None:
        super().__init__((MARKER_KEY,), () if waits else ("-",))

    def read(self, answer: Any) -> tuple[dict[str, str], str, float, str]:
        """The fields of INFO, the marker ('' for none), the node's clock in seconds since the
        epoch, and why it can tell no waiter ('' if it can)."""
        match answer:
            case [bytes(info), bytes(marker), bytes(seconds), bytes(micros), bytes(mute)]:
                if (
                    seconds.isdigit()
                    and micros.isdigit()
                    and len(seconds) < 16
                    and len(micros) < 16
                ):
                    return (
                        fields(info),
                        marker.decode("utf-8", "replace"),
                        int(seconds) + int(micros) / 1e6,
                        mute.decode("utf-8", "replace"),
                    )
        raise Nonsense(_short(answer))


def fields(info: bytes) -> dict[str, str]:
    """The fields of an INFO answer."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines}


class Plain(Command):
    """A command of the server itself, answered with *shape*; used on a new connection to learn
    who answers."""

    __slots__ = ("name", "shape")

    def __init__(self, name: str, *words: str, shape: type | tuple[type, ...]) -> None:
        super().__init__((), words)
        self.name = name
        self.shape = shape

    def words(self, *, whole: bool = False) -> tuple[str, ...]:
        return tuple(map(str, self.args))

    def read(self, answer: Any) -> Any:
        if not isinstance(answer, self.shape):
            raise Nonsense(_short(answer))
        return answer


class Greet(Command):
    """Ask whether a node may vote: answered by the connection itself once that is known, with a
    `Standing`.

    *look*: tell what is known about the node after asking it anew, also while that is undecided.
    """

    __slots__ = ("look",)

    def __init__(self, *, look: bool = False) -> None:
        super().__init__((), ())
        self.look = look


_STRANGER = Vote(Kind.STRANGER)
_FULL = 1
"""What a script says of a place that it could not enter, as the queue is full."""


def _keys(lock_key: str, *others: str, queue: bool) -> tuple[str, ...]:
    return (lock_key, *others, lock_key + QUEUE_SUFFIX) if queue else (lock_key, *others)


def _waiting(answer: list[object]) -> tuple[tuple[str, int], ...]:
    """Who waits: names and tickets, as far as they are ours."""
    words = [word.decode("utf-8", "replace") for word in answer if isinstance(word, bytes)]
    if len(words) < len(answer):
        raise Nonsense(_short(answer))
    return tuple(
        (name, int(ticket))
        for name, ticket in zip(words[::2], words[1::2], strict=False)
        if ticket.isdecimal() and len(ticket) < 17
    )


def _can_be_held(fence: int, pttl: int, holder: bytes, shown_max: int = 128) -> bool:
    # The script puts "=" before what it shows of the value; a key without expiry has the PTTL -1.
    in_range = 0 <= fence <= TOKEN_MAX and pttl >= -1
    return in_range and holder[:1] == b"=" and len(holder) <= 1 + shown_max


def _busy(fence: int, pttl: int, holder: bytes, full: bool = False) -> Vote:
    # PTTL gives -1 for a key without expiry; a key cannot vanish inside a script, so -2 does not
    # occur.
    ttl_left = -1.0 if pttl < 0 else pttl / 1000.0
    # The script puts "=" before the value, lest a foreign one that begins like a reply header
    # confuses the reader.
    return Vote(Kind.BUSY, fence, ttl_left, holder[1:].decode("utf-8", "replace"), full=full)


def _short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 80 else f"{text[:77]}..."
