"""What the command line says while it waits, and how it tells what passes from what does not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from redlock import Redlock
from redlock.diagnose import diagnose, is_hopeless
from redlock.embedded import Nodes
from redlock.transport.clock import now
from redlock.transport.lasting import UNKNOWN_NAME

CLI = [sys.executable, "-m", "redlock"]
TIMEOUT = 20.0


def environment(urls: list[str]) -> dict[str, str]:
    return {**os.environ, "REDLOCK_NODES": ", ".join(urls), "COLUMNS": "200"}


def run(urls: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *words],
        env=environment(urls),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def tls_ports() -> Iterator[list[int]]:
    """Three servers that answer everything with an alert of TLS, and hang up."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(bytes.fromhex("15030300020228"))  # handshake_failure

    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        threads = [threading.Thread(target=serve, args=(each,)) for each in listeners]
        for thread in threads:
            thread.start()
        yield [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_a_wait_tells_for_whom_and_whenever_that_changes(own_nodes: Nodes) -> None:
    """The holder and how long it has left, the next holder, then which nodes fail and why; and
    each is said once, within 300 characters."""
    with Redlock(own_nodes.urls, ttl=30.0) as locks, ExitStack() as stack:
        first = locks.lock("job").acquire()
        assert first is not None
        began_at = now()
        process = stack.enter_context(
            subprocess.Popen(
                [*CLI, "lock", "job", "--", "true"],
                env=environment(own_nodes.urls),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stderr is not None
        said = process.stderr.readline()
        # Starting an interpreter takes a part of it.
        assert 1.0 < now() - began_at < 8.0
        assert (
            f":{os.getpid()} ({first.owner[:8]}...), fencing token {first.fencing_token}, 2" in said
        )
        assert first.owner not in said
        for node in own_nodes:  # Somebody else's, without a moment in which it is free.
            with node.client() as client:
                client.set("redlock:job", f"{'ab' * 16}:{first.fencing_token + 1}", px=60000)
        assert "held by abababab..." in process.stderr.readline()
        for node in own_nodes[:3]:
            node.kill()
        while "refused" not in (said := process.stderr.readline()):
            assert "nodes vote" in said  # They were only just lost.
        assert "2 of 5 nodes vote, 3 needed" in said and said.count("refused the connection") == 1
        assert "start the server" in said and len(said) <= 300
        process.terminate()
        assert process.stderr.read() == "redlock: ended by SIGTERM while no command ran\n"


def test_a_new_cluster_is_told_to_be_initialised() -> None:
    """It would wait for a minute, which nobody has to."""
    with Nodes(3, marked=False) as nodes:
        told = run(nodes.urls, "lock", "job", "--timeout", "1.6", "--", "true").stderr
    assert told.startswith("redlock: waiting for 'job': 0 of 3 nodes vote, 2 needed; ")
    assert told.count("run `redlock init`") == 2  # In the wait, and at its end.


def test_what_does_not_pass_ends_the_wait_with_status_2(nodes: Nodes, tls_ports: list[int]) -> None:
    """A TLS port by redis://, for ever otherwise; and with --no-wait the reverse, a missing CA
    file, and names that nobody knows."""
    plain = [f"redis://127.0.0.1:{port}" for port in tls_ports]
    ended = run(plain, "lock", "job", "--", "true")
    assert (ended.returncode, ended.stderr.count("speaks TLS on this port: use rediss://")) == (
        2,
        1,
    )
    secure = [url.replace("redis:", "rediss:") for url in nodes.urls]
    for urls, reason in (
        (secure, "speaks no TLS on this port: use redis://"),
        ([f"{url}?ssl_ca_certs=/no/ca.pem" for url in secure], "ssl_ca_certs=/no/ca.pem"),
        ([f"redis://no-such-{place}.invalid" for place in "abc"], "name that is not known"),
    ):
        ended = run(urls, "lock", "job", "--no-wait", "--", "true")
        assert ended.returncode == 2, ended
        assert ended.stderr.count(reason) == 1


def test_one_that_lasts_is_told_apart_from_those_that_pass(nodes: Nodes) -> None:
    """A name that is unknown among others may become known: only a whole list of them is wrong."""
    urls = [*nodes.urls[:2], "redis://no-such.invalid", "redis://127.0.0.1:1"]
    assert diagnose(urls, range(4)) == {2: UNKNOWN_NAME}
    assert not is_hopeless({2: UNKNOWN_NAME, 3: UNKNOWN_NAME}, 4)
    assert is_hopeless(dict.fromkeys(range(4), UNKNOWN_NAME), 4)
    assert is_hopeless({0: "speaks TLS", 1: "speaks TLS", 2: UNKNOWN_NAME}, 4)


def test_whose_a_status_is_can_be_told(nodes: Nodes, tmp_path: Path) -> None:
    """-E sets that of a conflict, --outcome says whether CMD or redlock ended it, and a status of
    CMD's comes without a line of ours."""
    file = tmp_path / "outcome"
    ask = ("lock", "job", "--no-wait", "-E", "99", "--outcome", str(file))
    mine = run(nodes.urls, *ask, "sh", "-c", "exit 4")
    assert (mine.returncode, mine.stderr) == (4, "")
    assert json.loads(file.read_text()) == {"ended_by": "command", "reason": None, "status": 4}
    with Redlock(nodes.urls) as locks, locks.lock("job"):
        ours = run(nodes.urls, *ask, "true")
    assert ours.returncode == 99 and ours.stderr.startswith("redlock: 'job' is somebody else's")
    assert json.loads(file.read_text()) == {
        "ended_by": "redlock",
        "reason": "contended",
        "status": 99,
    }
    assert run(nodes.urls, *ask, "no-such-command").returncode == 127
    assert json.loads(file.read_text())["reason"] == "not_found"
    refused = run(nodes.urls, *ask, "--ttl", "61", "true")
    assert refused.returncode == 2 and "lock 'job': ttl=61" in refused.stderr
    assert json.loads(file.read_text())["reason"] == "misused"


def test_without_a_majority_no_status_is_0_and_an_outage_is_no_misuse(own_nodes: Nodes) -> None:
    """`status`, `init`, `leader`: 5, as for `lock`."""
    for node in own_nodes[:3]:
        node.kill()
    for words in (("status", "job"), ("init",), ("leader", "job")):
        ended = run(own_nodes.urls, *words)
        assert ended.returncode == 5, ended
        assert "refused the connection" in ended.stdout + ended.stderr
