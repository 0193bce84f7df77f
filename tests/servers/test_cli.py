"""The command line, run as its users run it: a process of its own against real servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from redlock import Redlock
from redlock.embedded import Nodes
from redlock.supervise import Interrupted, Signals
from redlock.transport.clock import now

CLI = [sys.executable, "-m", "redlock.cli"]
TIMEOUT = 20.0

BEAT = """
import os, signal, sys, time
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def clock():
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
signal.signal(signal.SIGTERM, lambda *_: say("asked", clock()))
say("ready", os.getpid())
while True:
    say("beat", clock())
    time.sleep(0.005)
"""
"""A command that ignores SIGTERM, and tells the time for as long as it lives."""


def environment(nodes: Nodes | Sequence[str] | None) -> dict[str, str]:
    """The environment of a process that uses *nodes*."""
    urls = nodes.urls if isinstance(nodes, Nodes) else list(nodes or ())
    return {**os.environ, "REDLOCK_NODES": ", ".join(urls), "COLUMNS": "200"}


def run(nodes: Nodes | Sequence[str] | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `redlock` to its end."""
    return subprocess.run(
        [*CLI, *words],
        env=environment(nodes),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `redlock`, which is ended with the test if it has not ended by itself."""
    with contextlib.ExitStack() as stack:

        def begin(nodes: Nodes, *words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*CLI, *words],
                env=environment(nodes),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def line(process: subprocess.Popen[str]) -> str:
    """The next line of a process's stdout."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def beats(process: subprocess.Popen[str]) -> dict[str, float]:
    """Read what BEAT tells up to its end: the last instant of each kind."""
    assert process.stdout is not None
    last: dict[str, float] = {}
    for said in process.stdout:
        kind, _, at = said.strip().partition(" ")
        last[kind] = float(at)
    return last


def status_of(nodes: Nodes, resource: str) -> Any:
    with Redlock(nodes.urls) as locks:
        return locks.status(resource)


# lock


def test_lock_runs_the_command_with_its_token_and_gives_its_status(nodes: Nodes) -> None:
    """The command finds resource and token in its environment; its status and its stdout are all
    that comes out."""
    script = "echo $REDLOCK_RESOURCE $REDLOCK_FENCING_TOKEN; exit 7"
    first, second = (run(nodes, "lock", "job", "--", "sh", "-c", script) for _ in range(2))
    assert (first.returncode, first.stderr) == (7, "")
    (resource, token), (_, later) = first.stdout.split(), second.stdout.split()
    assert resource == "job"
    assert int(token) < int(later)


def test_lock_is_held_while_the_command_runs_and_released_when_it_ends(
    nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Held with the very token the command was given, for longer than a ttl; free at once when
    the command ended."""
    script = "echo $REDLOCK_FENCING_TOKEN; read _ < $0; echo done"
    fifo = Path(nodes.folder, "fifo")
    os.mkfifo(fifo)
    process = start(nodes, "lock", "job", "--ttl", "2", "--", "sh", "-c", script, str(fifo))
    token = int(line(process))
    with Redlock(nodes.urls) as locks:
        until = now() + 2.5  # More than one ttl.
        while now() < until:
            status = locks.status("job")
            assert (status.held, status.fencing_token) == (True, token)
        fifo.write_text("\n")
        assert line(process) == "done"
        assert process.wait(TIMEOUT) == 0
        assert locks.status("job").held is False
    fifo.unlink()


def test_lock_gives_128_plus_the_signal_that_ended_the_command(nodes: Nodes) -> None:
    """As a shell has it."""
    assert (
        run(nodes, "lock", "job", "--", "sh", "-c", "kill -KILL $$").returncode
        == 128 + signal.SIGKILL
    )


@pytest.mark.parametrize("how", [["--no-wait"], ["--timeout", "0.3"]])
def test_lock_of_somebody_else_is_status_4_and_runs_nothing(
    nodes: Nodes, tmp_path: Path, how: list[str]
) -> None:
    """Contended is a status of its own."""
    with Redlock(nodes.urls) as locks, locks.lock("job"):
        result = run(nodes, "lock", "job", *how, "--", "touch", str(tmp_path / "ran"))
    assert result.returncode == 4
    assert "held by" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_lock_takes_the_key_of_the_given_prefix(nodes: Nodes) -> None:
    """One that programs with another prefix take, and not the one beside it."""
    with Redlock(nodes.urls, key_prefix="other:") as locks, locks.lock("job"):
        args = ("lock", "job", "--no-wait", "--key-prefix")
        assert run(nodes, *args, "other:", "--", "true").returncode == 4
        assert run(nodes, *args, "third:", "--", "true").returncode == 0


def test_lock_without_a_majority_is_status_5_and_runs_nothing(
    own_nodes: Nodes, tmp_path: Path
) -> None:
    """An outage is not contention."""
    for node in own_nodes[:3]:
        node.kill()
    result = run(own_nodes, "lock", "job", "--timeout", "0.5", "--", "touch", str(tmp_path / "ran"))
    assert result.returncode == 5
    assert "refused the connection" in result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["lock", "job", "--ttl", "61", "--", "true"], "max_ttl=60"),
        (["lock", "job", "--ttl", "0.1", "--", "true"], "--ttl"),
        (["lock", "job", "--no-wait", "--timeout", "1", "--", "true"], "exclude"),
        (["lock", "job"], "CMD"),
        (["lock", "", "--", "true"], "resource"),
    ],
)
def test_lock_refuses_what_cannot_work_with_status_2(
    nodes: Nodes, words: list[str], named: str
) -> None:
    """Usage and configuration are status 2, and the message names what is wrong."""
    result = run(nodes, *words)
    assert result.returncode == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_no_nodes_is_status_2() -> None:
    """Neither --node nor REDLOCK_NODES."""
    result = run(None, "status", "job")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "REDLOCK_NODES" in result.stderr


def test_nodes_may_be_given_one_by_one(nodes: Nodes) -> None:
    """--node, repeated, instead of REDLOCK_NODES."""
    words = [word for url in nodes.urls for word in ("--node", url)]
    assert run(None, "lock", "job", *words, "--", "true").returncode == 0


def test_a_command_that_cannot_run_is_status_127_or_126(nodes: Nodes, tmp_path: Path) -> None:
    """As env(1) has it, and found out before the lock is waited for."""
    (tmp_path / "data").touch()
    with Redlock(nodes.urls) as locks, locks.lock("job"):
        assert run(nodes, "lock", "job", "--", "no-such-command").returncode == 127
        assert run(nodes, "lock", "job", "--", str(tmp_path / "data")).returncode == 126


def test_a_command_that_ignores_sigterm_is_killed_before_the_validity_ends(
    own_nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """With a majority of the nodes stopped: first SIGTERM, then SIGKILL, all before the last
    confirmed deadline."""
    ttl = 2.0
    process = start(own_nodes, "lock", "job", "--ttl", str(ttl), "--", sys.executable, "-c", BEAT)
    assert line(process).startswith("ready")
    stopped_at = now()
    for node in own_nodes[:3]:
        node.pause()
        stopped_at = now()
    last = beats(process)
    # Nothing was confirmed by a majority after the third node had stopped, so no validity reaches
    # further than this.
    assert stopped_at < last["asked"] < last["beat"] < stopped_at + ttl * 0.99 - 0.002
    assert process.wait(TIMEOUT) == 6
    assert process.stderr is not None
    said = process.stderr.read()
    assert "cannot renew" in said
    # By its supervisor; the guard is only for when that one sleeps.
    assert "killed the command" in said


def test_a_full_stderr_keeps_no_command_alive(own_nodes: Nodes) -> None:
    """What redlock would like to say must not delay what it has to do."""
    ttl = 2.0
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"." * 65536):
            pass
    os.set_blocking(writer, True)
    words = [*CLI, "lock", "job", "--ttl", str(ttl), "--", sys.executable, "-c", BEAT]
    with (
        subprocess.Popen(
            words, env=environment(own_nodes), stdout=subprocess.PIPE, stderr=writer, text=True
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        os.close(writer)
        assert line(process).startswith("ready")
        for node in own_nodes[:3]:
            node.pause()
        stopped_at = now()
        assert process.stdout is not None
        while (said := line(process)).startswith("beat"):
            pass
        assert said.startswith("asked")
        last_at = float(said.split()[1])
        while (said := line(process)).startswith("beat"):
            last_at = float(said.split()[1])
        assert stopped_at < last_at < stopped_at + ttl * 0.99 - 0.002
        assert process.wait(TIMEOUT) == 6  # Not stuck in a message.
    os.close(reader)


@pytest.mark.parametrize("missing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_not_there_changes_nothing(
    nodes: Nodes, tmp_path: Path, missing: str
) -> None:
    """The number of a closed one would go to the next pipe, and the guard closes those of the
    standard streams."""
    ran = tmp_path / "ran"
    words = [*CLI, "lock", "job", "--timeout", "20", "--", "sh", "-c", f"echo yes > {ran}; exit 7"]
    shell = f"{shlex.join(words)} {missing}"
    done = subprocess.run(
        ["sh", "-c", shell], env=environment(nodes), capture_output=True, timeout=TIMEOUT
    )
    assert (done.returncode, ran.read_text() if ran.exists() else "") == (7, "yes\n")


@pytest.mark.parametrize("unheard", ["full disk", "nobody reads", "closed"])
def test_a_stderr_that_cannot_be_written_changes_no_status(nodes: Nodes, unheard: str) -> None:
    """Nor does it fail once more as the interpreter ends."""
    words = [*CLI, "lock", "job", "--no-wait", "--", "true"]
    with Redlock(nodes.urls) as locks, locks.lock("job"):
        reader, writer = os.pipe()
        os.close(reader)
        with Path("/dev/full").open("w") as full, os.fdopen(writer, "w") as pipe:
            where = {"full disk": full, "nobody reads": pipe, "closed": None}[unheard]
            shell = f"{shlex.join(words)} 2>&-" if unheard == "closed" else shlex.join(words)
            done = subprocess.run(
                ["sh", "-c", shell], env=environment(nodes), stderr=where, timeout=TIMEOUT
            )
    assert done.returncode == 4


def test_a_signal_that_nobody_heard_is_not_forgotten() -> None:
    """What a handler raises in a hook of the interpreter, at a fork for instance, is printed and
    forgotten."""
    signals = Signals()
    with signals:
        with contextlib.suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5.0)
        with pytest.raises(Interrupted):
            signals.check()
    assert signals.interrupted == 128 + signal.SIGUSR1


def test_a_command_that_obeys_sigterm_ends_in_order_when_the_lease_cannot_be_renewed(
    own_nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """It has time for its own clean-up, and the status still says that the lease was lost."""
    script = "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    process = start(own_nodes, "lock", "job", "--ttl", "2", "--", "sh", "-c", script)
    assert line(process) == "ready"
    for node in own_nodes[:3]:
        node.pause()
    assert line(process) == "cleaned up"
    assert process.wait(TIMEOUT) == 6


def test_renewal_that_succeeds_again_leaves_the_command_alone(
    own_nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """A majority away for less than the lease has left costs nothing."""
    process = start(own_nodes, "lock", "job", "--ttl", "3", "--", sys.executable, "-c", BEAT)
    assert line(process).startswith("ready")
    for node in own_nodes[:3]:
        node.pause()
    until = now() + 1.3  # Renewals begin to fail after a third of the ttl.
    while now() < until:
        assert line(process).startswith("beat")
    for node in own_nodes[:3]:
        node.resume()
    until = now() + 2.0  # Longer than the lease would have lasted.
    while now() < until:
        assert line(process).startswith("beat")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded_to_the_command(
    nodes: Nodes, start: Callable[..., subprocess.Popen[str]], signum: signal.Signals
) -> None:
    """The command decides what to do with them, and its status counts."""
    script = (
        f"trap 'echo got it; exit 3' {signum.name[3:]}; echo ready; while :; do sleep 0.02; done"
    )
    process = start(nodes, "lock", "job", "--", "sh", "-c", script)
    assert line(process) == "ready"
    process.send_signal(signum)
    assert line(process) == "got it"
    assert process.wait(TIMEOUT) == 3
    assert status_of(nodes, "job").held is False


def test_a_signal_ends_the_wait_for_the_lock(
    nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Nothing was running yet, so the signal ends redlock itself, and no lock stays behind."""
    with Redlock(nodes.urls) as locks:
        with locks.lock("job"):
            process = start(nodes, "-v", "lock", "job", "--", "true")
            assert process.stderr is not None
            while "TryFailed" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
        assert locks.status("job").held is False


def test_what_the_command_leaves_running_in_its_group_is_killed(nodes: Nodes) -> None:
    """It would work without the lock: the pipe it holds open is at its end when redlock ends."""
    result = run(nodes, "lock", "job", "--", "sh", "-c", "sleep 60 & echo left")
    assert (result.returncode, result.stdout) == (0, "left\n")


def test_the_command_is_stopped_when_its_supervisor_is_killed(
    nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL for redlock: the command gets SIGTERM at once, and SIGKILL before the validity
    ends."""
    ttl = 2.0
    process = start(nodes, "lock", "job", "--ttl", str(ttl), "--", sys.executable, "-c", BEAT)
    assert line(process).startswith("ready")
    process.kill()
    killed_at = now()
    last = beats(process)
    assert killed_at - 0.1 < last["asked"] < last["beat"] < killed_at + ttl * 0.99 - 0.002


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the death of another's child is seen through a pidfd"
)
def test_the_command_is_stopped_when_its_supervisor_sleeps_past_the_deadline(
    nodes: Nodes, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGSTOP for redlock, as Ctrl-Z sends it: nobody renews, so the command must not go on."""
    ttl = 2.0
    process = start(nodes, "lock", "job", "--ttl", str(ttl), "--", sys.executable, "-c", BEAT)
    command = os.pidfd_open(int(line(process).split()[1]))
    process.send_signal(signal.SIGSTOP)
    stopped_at = now()
    # It is dead, though its parent could not wait for it.
    assert select.select([command], [], [], TIMEOUT)[0]
    os.close(command)
    process.send_signal(signal.SIGCONT)
    assert beats(process)["beat"] < stopped_at + ttl * 0.99 - 0.002
    assert process.wait(TIMEOUT) in (6, 128 + signal.SIGKILL)  # It may still wake in time.


def test_stdin_and_descriptors_of_the_caller_reach_the_command(nodes: Nodes) -> None:
    """redlock stands between the two as env(1) or nice(1) would."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as end:
        process = subprocess.run(
            [*CLI, "lock", "job", "--", "sh", "-c", f"cat >/dev/fd/{writer}"],
            env=environment(nodes),
            input=b"through",
            pass_fds=(writer,),
            timeout=TIMEOUT,
        )
        os.close(writer)
        assert process.returncode == 0
        assert end.read() == b"through"


# status


def test_status_says_who_holds_a_lock(nodes: Nodes) -> None:
    """Free, then held with token and time left, in words and as JSON."""
    assert "'job': free" in run(nodes, "status", "job").stdout
    with Redlock(nodes.urls) as locks, locks.lock("job") as lease:
        words = run(nodes, "status", "job").stdout
        told = json.loads(run(nodes, "status", "job", "--json").stdout)
    assert str(lease.fencing_token) in words
    assert lease.owner not in words  # Whoever has the whole value can release the lock.
    assert (told["held"], told["fencing_token"], told["expires"]) == (
        True,
        lease.fencing_token,
        True,
    )
    assert 0 < told["ttl_left"] <= 10
    assert [node["node"] for node in told["nodes"]] == nodes.urls
    assert all(node["held"] for node in told["nodes"])


def test_status_names_a_lock_without_expiry(nodes: Nodes) -> None:
    """It blocks for ever, which nobody should have to read out of a missing number."""
    for node in nodes:
        with node.client() as client:
            client.set("redlock:job", "somebody")
    assert "WITHOUT AN EXPIRY" in run(nodes, "status", "job").stdout
    told = json.loads(run(nodes, "status", "job", "--json").stdout)
    assert (told["held"], told["expires"], told["ttl_left"], told["fencing_token"]) == (
        True,
        False,
        None,
        None,
    )


def test_status_reads_the_keys_of_the_given_prefix(nodes: Nodes) -> None:
    """Other libraries use none."""
    with Redlock(nodes.urls, key_prefix="") as locks, locks.lock("job") as lease:
        told = json.loads(run(nodes, "status", "job", "--key-prefix", "", "--json").stdout)
    assert told["fencing_token"] == lease.fencing_token


def test_status_without_a_majority_is_unknown(own_nodes: Nodes) -> None:
    """Unknown is neither free nor held, and no status of success."""
    for node in own_nodes[:3]:
        node.kill()
    result = run(own_nodes, "status", "job")
    assert result.returncode == 5
    assert "unknown" in result.stdout
    told = json.loads(run(own_nodes, "status", "job", "--json").stdout)
    assert told["held"] is None
    assert [node["error"] for node in told["nodes"]] == ["NodeUnreachable"] * 3 + [None] * 2
    assert [node["held"] for node in told["nodes"]] == [None] * 3 + [False] * 2


# nodes


def test_nodes_reports_every_node_and_the_majority(own_nodes: Nodes) -> None:
    """Status 0 while a majority votes, 1 when it does not."""
    own_nodes[0].kill()
    result = run(own_nodes, "nodes")
    assert result.returncode == 0
    assert "4 of 5 nodes vote" in result.stdout
    assert "refused the connection" in result.stdout
    told = json.loads(run(own_nodes, "nodes", "--json").stdout)
    assert [node["votes"] for node in told["nodes"]] == [False, True, True, True, True]
    assert told["nodes"][1]["role"] == "master"
    assert (told["votes"], told["needed"], told["majority"]) == (4, 3, True)
    for node in own_nodes[1:3]:
        node.pause()
    assert run(own_nodes, "nodes").returncode == 1


def test_nodes_can_be_read_on_a_narrow_screen(nodes: Nodes) -> None:
    """Fifty columns: a paragraph for each node, in which no name is cut and no cell broken."""
    narrow = {**environment(nodes), "COLUMNS": "50"}
    told = subprocess.run(
        [*CLI, "nodes"], env=narrow, capture_output=True, text=True, timeout=TIMEOUT
    ).stdout
    assert max(map(len, told.splitlines())) <= 50
    assert told.count("votes: yes") == told.count("reason: admitted") == 5
    assert all(f"{url}\n" in re.sub(" +\n", "\n", told) for url in nodes.urls)


def test_nodes_shows_misfits_instead_of_failing() -> None:
    """Nodes that must not vote are what an operator wants to see here, not an error about the
    list."""
    with Nodes(3, marked=False, options={"maxmemory-policy": "allkeys-lru"}) as nodes:
        result = run(nodes, "nodes")
    assert result.returncode == 1
    assert result.stdout.count("may evict locks") == 3


def test_nodes_waits_until_a_quarantine_is_over() -> None:
    """A node that lost its data votes again after max_ttl and a margin, if somebody stays to see
    it."""
    with Nodes(3, max_ttl=5.0) as nodes:
        nodes[0].restart()
        told = json.loads(run(nodes, "nodes", "--json").stdout)
        assert [node["votes"] for node in told["nodes"]] == [False, True, True]
        assert 0 < told["nodes"][0]["quarantine_left"] <= 5.0 * 1.02 + 1
        assert "quarantine" in run(nodes, "nodes").stdout
        waited = json.loads(run(nodes, "nodes", "--wait", "60", "--json").stdout)
        assert all(node["votes"] for node in waited["nodes"])
        assert json.loads(run(nodes, "nodes", "--json").stdout)["votes"] == 3  # It stays so.


# init


def test_init_marks_a_new_cluster_so_that_locks_are_granted_at_once() -> None:
    """And says what it promised."""
    with Nodes(3, marked=False) as nodes:
        assert run(nodes, "lock", "job", "--no-wait", "--", "true").returncode == 5
        told = json.loads(
            run(nodes, "init", "--max-ttl", "30", "--cluster", "blue", "--json").stdout
        )
        assert (told["max_ttl"], told["durable"], told["cluster"]) == (30.0, False, "blue")
        assert [node["node"] for node in told["nodes"]] == nodes.urls
        assert run(nodes, "lock", "job", "--no-wait", "--", "true").returncode == 0
        assert "cluster blue" in run(nodes, "nodes").stdout


def test_init_refuses_a_marked_cluster(nodes: Nodes) -> None:
    """One line on stderr, status 2, nothing changed."""
    result = run(nodes, "init")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "already marked" in result.stderr


def test_init_raises_max_ttl_and_replaces_only_without_locks() -> None:
    """The two things that may be done to a marked cluster."""
    with Nodes(3, max_ttl=20.0) as nodes:
        assert "max ttl 40 s" in run(nodes, "init", "--max-ttl", "40").stdout
        with Redlock(nodes.urls) as locks, locks.lock("job"):
            refused = run(nodes, "init", "--replace", "--max-ttl", "5")
        assert refused.returncode == 2
        assert "still holds a lock" in refused.stderr
        assert run(nodes, "init", "--replace", "--max-ttl", "5").returncode == 0


# All


def test_a_log_does_not_tell_what_releases_a_lock(nodes: Nodes) -> None:
    """`-v` shows a quarter of the owner at every step of a lease, and never the whole."""
    # Long enough to be renewed.
    log = run(nodes, "-v", "lock", "job", "--ttl", "0.9", "--", "sleep", "0.5").stderr
    for event in ("TryStarted", "LeaseGranted", "LeaseRenewed", "LeaseReleasing"):
        assert re.search(rf"{event}\(.*owner='[0-9a-f]{{8}}\.\.\.'", log), log
    assert not re.search(r"owner='[0-9a-f]{9}", log)


def test_no_credential_is_ever_shown() -> None:
    """Not in tables, JSON, errors, logs, nor when a URL is typed in the wrong place."""
    secret, wrong = "hunter2/s3cret", "wr0ng-guess"
    with Nodes(3) as nodes:
        for node in nodes:
            with node.client() as client:
                client.config_set("requirepass", secret)
        quoted = secret.replace("/", "%2F")
        urls = [url.replace("//", f"//:{quoted}@") for url in nodes.urls]
        guesses = [url.replace("//", f"//:{wrong}@") for url in nodes.urls]
        results = [
            run(urls, "-v", "lock", "job", "--", "true"),
            run(urls, "-v", "status", "job", "--json"),
            run(urls, "nodes"),
            run(urls, "init"),
            run(urls, "status", "job", urls[0]),
            run(urls, "nodes", "--wait", urls[0]),
            run(urls, "status", "job", f"redis://127.0.0.1:1?db=0&password={wrong}"),
            run(guesses, "-v", "lock", "job", "--timeout", "0.2", "--", "true"),
            run(guesses, "nodes"),
            run(guesses, "status", "job"),
            run(guesses, "init"),
            run([url.replace(":", ":x", 2) for url in urls], "nodes"),
            run([f"redis://:{secret}@127.0.0.1:port"], "nodes"),
        ]
    assert [result.returncode for result in results] == [0, 0, 0, 2, 2, 2, 2, 2, 1, 5, 2, 2, 2]
    for result in results:
        for text in (result.stdout, result.stderr):
            assert not any(word in text for word in (secret, quoted, wrong, "s3cret"))
            assert "Traceback" not in text


def test_without_its_extra_the_command_line_says_what_to_install() -> None:
    """One line, status 2; the library itself works without."""
    program = "import sys; sys.modules['rich'] = None; import redlock.cli; redlock.cli.main()"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "redlock-quorum[cli]" in result.stderr


@pytest.mark.parametrize("command", ["lock", "elect", "leader", "status", "nodes", "init", "demo"])
def test_help_is_there_for_every_command(command: str) -> None:
    """And that of `lock` documents its statuses."""
    result = run(None, command, "--help")
    assert result.returncode == 0
    if command == "lock":
        assert all(f"{status}  " in result.stdout for status in (2, 4, 5, 6, 126, 127))


@pytest.mark.parametrize("command", [["nodes"], ["nodes", "--json"], ["status", "orders"]])
def test_a_reader_that_has_gone_is_no_statement_about_the_nodes(
    nodes: Nodes, command: list[str]
) -> None:
    """As for any program in a pipe: 128 and SIGPIPE, and no traceback. 1 would mean that no
    majority votes."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "redlock.cli", *command],
        env=environment(nodes),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, "")
