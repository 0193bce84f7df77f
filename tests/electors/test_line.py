"""A line to servers: what falls silent, and what is known of renewals."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from chaos.electors.line import Flow, Line, Network


class Upper:
    """A server that replies with what it was sent, in capital letters, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.news = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def await_heard(self, words: bytes) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.heard.endswith(words), 10.0), self.heard

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                with self.news:
                    self.heard += data
                    self.news.notify_all()
                connection.sendall(data.upper())


@pytest.fixture
def servers() -> Iterator[list[Upper]]:
    found = [Upper() for _ in range(3)]
    yield found
    for server in found:
        server.close()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as found:
        yield found


def say(line: Line, words: bytes, link: int = 0) -> socket.socket:
    """A new connection on which *words* are said and have been answered."""
    connection = socket.create_connection(line.addresses[link], 10.0)
    connection.sendall(words)
    assert connection.recv(100) == words.upper()
    return connection


def is_silent(connection: socket.socket) -> bool:
    """Neither bytes nor an end come."""
    connection.settimeout(0.2)
    try:
        connection.recv(100)
    except TimeoutError:
        return True
    return False


def test_a_line_that_is_cut_passes_nothing_and_resets_nothing(
    network: Network, servers: list[Upper]
) -> None:
    """Neither old connections nor new ones, nor what is under way when it is cut."""
    line = network.line([servers[0].address], b"renew")
    with say(line, b"hello") as old:
        line.set_flow(Flow.CUT)
        old.sendall(b"anybody?")
        with socket.create_connection(line.addresses[0], 10.0) as new:
            new.sendall(b"somebody?")
            assert is_silent(old) and is_silent(new)
    assert servers[0].heard == b"hello"


def test_a_mute_line_passes_requests_alone(network: Network, servers: list[Upper]) -> None:
    """What is asked is done, and nobody learns of it."""
    line = network.line([servers[0].address], b"renew")
    with say(line, b"hello") as old:
        line.set_flow(Flow.MUTE)
        old.sendall(b" please")
        servers[0].await_heard(b"hello please")
        assert is_silent(old)


def test_a_line_is_cut_just_after_a_renewal(network: Network, servers: list[Upper]) -> None:
    """Its reply still arrives, and nothing after it; other requests do not count, and one that
    comes in two pieces does."""
    line = network.line([servers[0].address], b"renew")
    cut: list[bool] = []
    waiter = threading.Thread(target=lambda: cut.append(line.after_renewal(Flow.CUT, 10.0)))
    with say(line, b"hello") as connection:
        waiter.start()
        before = time.monotonic()
        connection.sendall(b"look")
        assert connection.recv(100) == b"LOOK"
        connection.sendall(b"ren")
        assert connection.recv(100) == b"REN"
        assert waiter.is_alive() and line.renewed_at(time.monotonic()) == float("-inf")
        connection.sendall(b"ew")
        assert connection.recv(100) == b"EW"
        waiter.join(10.0)
        assert cut == [True]
        after = time.monotonic()
        assert before < line.renewed_at(after) < after
        assert line.renewed_at(before) == float("-inf")
        connection.sendall(b"renew")
        assert is_silent(connection)
        assert line.renewed_at(time.monotonic()) < after


def test_of_three_servers_a_majority_must_be_renewed(
    network: Network, servers: list[Upper]
) -> None:
    """Another may lead when two of three are free: the middle one of their last renewals counts,
    and one of three is no renewal."""
    line = network.line([server.address for server in servers], b"renew")
    with say(line, b"renew", link=2):
        early = time.monotonic()
        assert line.renewed_at(early) == float("-inf")
        with say(line, b"renew", link=0), say(line, b"renew", link=1):
            late = time.monotonic()
        assert early < line.renewed_at(late) < late
    assert not line.after_renewal(Flow.OPEN, 0.05)
