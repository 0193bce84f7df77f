"""Bytes: how a command is encoded, and a reader that no reply can make grow without bound.
hiredis does the work."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import hiredis

from redlock.core.commands import Command

__all__ = [
    "NOT_YET",
    "ReplyReader",
    "ServerError",
    "WireError",
    "bulk",
    "clean",
    "encode",
    "encode_whole",
]

NOT_YET = object()
# Six sections of INFO are some 6 KiB; our other scripts answer with less than 300 bytes.
REPLY_MAX = 1 << 18
# Our longest array has four. hiredis reserves memory for all elements that a header announces.
ELEMENTS_MAX = 99
LINE_MAX = 1 << 13  # An error reply is one line, and a server cuts what it quotes.
DETAIL_MAX = 160
"""Characters of a server's words that are worth a line in a log."""
_TEMPLATES_MAX = 1024
"""Beginnings of commands that are kept encoded: the resources a busy program takes in turn."""
_TEMPLATE_KEYS_MAX = 1024
"""Characters; what has longer keys is encoded anew each time, lest a thousand of them stay in
memory."""
# A node's answer to TAKE and to FREE, nearly always: a number, and worth no closer look.
_ORDINARY = re.compile(rb"(?::[0-9]{1,16}\r\n)+")
# And what waiters hear: that the lock is free for them, and who holds it until then. The size of
# each of these texts is said, and must be its own.
_FAMILIAR = re.compile(
    rb"\*3\r\n\$7\r\nmessage\r\n\$([0-9]{1,3})\r\n([^\r\n]*)\r\n\$([0-9]{1,3})\r\n([^\r\n]*)\r\n"
    rb"|\*5\r\n:0\r\n:[0-9]{1,16}\r\n:[0-9]{1,16}\r\n\$([0-9]{1,3})\r\n([^\r\n]*)\r\n:[0-9]\r\n"
)


class ServerError(Exception):
    """An error reply; a value, not raised."""


class WireError(Exception):
    """The byte stream is not what a Redis server sends to us; the connection is done."""


def clean(text: str) -> str:
    """A server's words, fit for a log line."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:DETAIL_MAX])
    return shown if len(text) <= DETAIL_MAX else f"{shown}..."


def bulk(text: str) -> bytes:
    """One argument, encoded."""
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def encode(command: Command) -> bytes:
    """The command's bytes, the same for all nodes; a marked one still lacks its last argument,
    the node's marker."""
    data = command.packed
    if data is None:
        yes = command.yes
        if yes is None:
            data = _pack(command.words(), marked=command.marked)
        else:
            data = _pack_vote(command)
            command.plain_yes = b":%d\r\n" % yes
        command.packed = data
    return data


def encode_whole(command: Command) -> bytes:
    """The same with the script's text, for a server that does not know the script."""
    return _pack(command.words(whole=True), marked=command.marked)


def _pack_vote(command: Command) -> bytes:
    """The same bytes for TAKE and FREE, of which only owner, token and place are ever new: a third
    of the time."""
    script, args = command.script, command.args
    assert script is not None
    owner, token, place = str(args[0]).encode(), str(args[1]).encode(), str(args[2]).encode()
    make = _head if len(command.keys[0]) <= _TEMPLATE_KEYS_MAX else _head.__wrapped__
    head = make(3 + len(command.keys) + len(args) + command.marked, script.sha, command.keys)
    return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
        head,
        len(owner),
        owner,
        len(token),
        token,
        len(place),
        place,
        _rest(args[3:]),
    )


@lru_cache(maxsize=_TEMPLATES_MAX)
def _head(count: int, sha: str, keys: tuple[str, ...]) -> bytes:
    return b"*%d\r\n%b" % (count, b"".join(map(bulk, ("EVALSHA", sha, str(len(keys)), *keys))))


@lru_cache(maxsize=_TEMPLATES_MAX)
def _rest(args: tuple[str | int, ...]) -> bytes:
    return b"".join([bulk(str(argument)) for argument in args])


def _pack(words: tuple[str, ...], *, marked: bool) -> bytes:
    data: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub asks for a tuple of one
    if not marked:
        return data
    return b"*%d%b" % (len(words) + 1, data[data.index(b"\r") :])


class ReplyReader:
    """Replies out of bytes, in order; bounded, whatever comes.

    Every header is read before hiredis sees it. Only what RESP2 servers answer to our commands
    passes: a line, an integer, a bulk string, or one flat array of these. hiredis alone reads more
    (RESP3, where `#t` equals 1; a thousand nested arrays), reserves memory for as many elements as
    a header claims, and does not look at what ends a bulk string.
    """

    __slots__ = ("_body", "_ending", "_left", "_line", "_reader", "_unread", "cut")

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=WireError, replyError=ServerError, notEnoughData=NOT_YET
        )
        self._unread = 0
        self._line = b""  # The beginning of a line that was cut.
        self._body = 0  # Bytes of a bulk string still to come,
        self._ending = False  # and whether the line after it is awaited.
        self._left = 0  # Elements of an array still to come.
        self.cut = False
        """Whether what arrived so far ends inside a reply."""

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises WireError."""
        if self.cut or not (_ORDINARY.fullmatch(data) or _is_familiar(data)):
            self._inspect(data)
        self._unread += len(data)
        self._reader.feed(data)

    def next(self) -> Any:
        """The next whole reply, or NOT_YET. Raises WireError."""
        try:
            reply = self._reader.gets()
        except (WireError, ValueError, MemoryError, OverflowError) as error:
            raise WireError(f"sent what is not RESP ({type(error).__name__})") from error
        if reply is not NOT_YET:
            self._unread = 0
        elif self._unread > REPLY_MAX:
            raise WireError(f"sent a reply of more than {REPLY_MAX} bytes")
        return reply

    def _inspect(self, data: bytes) -> None:
        at, size = 0, len(data)
        while at < size:
            if self._body:
                step = min(self._body, size - at)
                self._body -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or size]
            if len(self._line) > LINE_MAX:
                raise WireError(f"sent a line of more than {LINE_MAX} bytes")
            if not end:
                break
            self._header(self._line)
            self._line = b""
            at = end
        self.cut = bool(self._line or self._body or self._ending or self._left)

    def _header(self, line: bytes) -> None:
        """Read one whole line: the end of a bulk string, a header, or a reply of one line."""
        kind, text = line[:1], line[1:-2]
        if not line.endswith(b"\r\n") or self._ending != (len(line) == 2):
            raise WireError("sent what is not RESP (a line ends where none should)")
        if kind == b"$" and text != b"-1":
            self._body = _count(text, REPLY_MAX, "a bulk string")
            self._ending = True
            return
        if kind == b"*":
            if self._left:
                raise WireError(
                    "sent an array inside an array, which no command of ours is answered with"
                )
            self._left = _count(text, ELEMENTS_MAX, "an array")
            return
        if kind not in b":+-$\r":
            raise WireError("sent a type that no command of ours is answered with")
        self._ending = False
        self._left = max(0, self._left - 1)


def _is_familiar(data: bytes) -> bool:
    match = _FAMILIAR.fullmatch(data)
    if match is None:
        return False
    channel_size, channel, name_size, name, holder_size, holder = match.groups()
    if holder is not None:
        return int(holder_size) == len(holder)
    return int(channel_size) == len(channel) and int(name_size) == len(name)


def _count(digits: bytes, limit: int, what: str) -> int:
    if not digits.isdigit() or len(digits) > 9:
        raise WireError(f"sent what is not RESP (the size of {what})")
    if int(digits) > limit:
        raise WireError(
            f"sent {what} of {int(digits)}, more than the {limit} that any command of ours is"
            " answered with"
        )
    return int(digits)
