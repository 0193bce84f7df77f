"""`redlock elect` and `redlock leader`, run as their users run them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import pytest

from redlock import Reason, Redlock, cli
from redlock.cli.fitness import Fitness
from redlock.cli.systemd import Notifier
from redlock.embedded import Nodes
from redlock.supervise import drain
from redlock.tenure import Leading
from redlock.transport.clock import now
from tests.servers import survival
from tests.servers.test_cli import BEAT, CLI, TIMEOUT, beats, environment, line, run, status_of

Start = Callable[..., "subprocess.Popen[str]"]

OBEDIENT = """
trap 'echo stopped; exit 0' TERM
echo leads $REDLOCK_FENCING_TOKEN
while :; do sleep 0.02; done
"""
"""A command that tells its token, and ends when it is asked to."""

IMPATIENT = "import redlock.cli.elect as e; e.PAUSE = 0.2; from redlock.cli import main; main()"
"""redlock, with a shorter pause between terms."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `redlock`, which is ended with the test if it has not ended by itself. *program*:
    Python that is run instead of it; *more*: for its environment."""
    with contextlib.ExitStack() as stack:

        def begin(
            nodes: Nodes, *words: str, program: str = "", **more: str
        ) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*([sys.executable, "-c", program] if program else CLI), *words],
                env={**environment(nodes), **more},
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


class Done(NamedTuple):
    """What `redlock` did in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs `redlock` in this process: what does not fork needs no interpreter of its own."""

    def do(nodes: Nodes | list[str], *words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["redlock", *words])
        for name, value in environment(nodes).items():
            monkeypatch.setenv(name, value)
        return Done(cli._status(), *capsys.readouterr())

    return do


Here = Callable[..., Done]


def after(nodes: Nodes, words: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `redlock elect` with *words* to its end, and a command for what follows them."""
    return run(nodes, "elect", *words.split(), *(["--", *more] if more else []))


# A term


def test_elect_runs_the_command_as_the_leader_and_gives_its_status(nodes: Nodes) -> None:
    """It finds out what it is, and until when; others see the candidate while it runs, and
    nobody afterwards."""
    asking = "; ".join(
        [
            "echo $REDLOCK_ELECTION $REDLOCK_RESOURCE $REDLOCK_CANDIDATE",
            "echo $REDLOCK_FENCING_TOKEN $REDLOCK_DEADLINE",
            f"{sys.executable} -m redlock.cli leader job --json",
            "exit 7",
        ]
    )
    begun_at = now()
    words = "job --candidate me --info url=http://a?b=c --info zone=1"
    done = after(nodes, words, "sh", "-c", asking)
    assert (done.returncode, done.stderr) == (7, "")
    who, numbers, seen = done.stdout.splitlines()
    token, deadline = numbers.split()
    assert who == "job job me"
    assert begun_at + 10.0 < float(deadline) < now() + 15.0 * 0.99 - 1.5
    told = json.loads(seen)
    assert (told["candidate"], told["fencing_token"]) == ("me", int(token))
    assert told["info"] == {"url": "http://a?b=c", "zone": "1"}
    assert status_of(nodes, "job").held is False


def test_elect_campaigns_again_when_leadership_was_lost(own_nodes: Nodes, start: Start) -> None:
    """The command is asked to stop in time, and begins anew with a larger token."""
    process = start(own_nodes, "elect", "job", "--ttl", "2", "--", "sh", "-c", OBEDIENT)
    _, first = line(process).split()
    for node in own_nodes[:3]:
        node.pause()
    stopped_at = now()
    assert line(process) == "stopped"
    assert now() < stopped_at + 2.0 * 0.99
    for node in own_nodes[:3]:
        node.resume()
    _, second = line(process).split()
    assert int(second) > int(first)
    process.send_signal(signal.SIGTERM)
    assert line(process) == "stopped"
    assert process.wait(TIMEOUT) == 0
    assert process.stderr is not None
    said = process.stderr.read()
    assert "the term in 'job' has ended (" in said
    assert "Traceback" not in said
    assert status_of(own_nodes, "job").held is False


def test_once_is_one_term_and_what_ignores_sigterm_is_killed_before_its_end(
    own_nodes: Nodes, start: Start
) -> None:
    """With a majority of the nodes cut off: SIGTERM at the stop deadline, SIGKILL at the kill
    deadline, status 6."""
    ttl = 2.0
    words = ["elect", "job", "--once", "--ttl", str(ttl), "--", sys.executable, "-c", BEAT]
    process = start(own_nodes, *words)
    assert line(process).startswith("ready")
    for node in own_nodes[:3]:
        node.pause()
    stopped_at = now()
    last = beats(process)
    assert stopped_at < last["asked"] < last["beat"] < stopped_at + ttl * 0.99 - 0.002
    assert process.wait(TIMEOUT) == 6
    assert process.stderr is not None
    assert "killed the command" in process.stderr.read()


def test_restart_campaigns_again_after_a_pause_that_doubles_while_the_command_fails(
    nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    """And not after a signal that asks for an end, whatever the command makes of it."""
    script = f"""
    trap 'exit 5' TERM; echo $REDLOCK_FENCING_TOKEN; echo >> {tmp_path}/runs
    [ $(wc -l < {tmp_path}/runs) -lt 4 ] && exit 1
    while :; do sleep 0.02; done
    """
    words = ["elect", "job", "--restart", "--", "sh", "-c", script]
    process = start(nodes, *words, program=IMPATIENT)
    begun = [(int(line(process)), now()) for _ in range(4)]
    gaps = [later[1] - sooner[1] for sooner, later in itertools.pairwise(begun)]
    assert [token for token, _ in begun] == sorted({token for token, _ in begun})
    assert all(gap > pause for gap, pause in zip(gaps, (0.4, 0.8, 1.6), strict=True))
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 5


def test_a_command_that_ends_by_itself_ends_redlock_although_it_failed(nodes: Nodes) -> None:
    """Its status is redlock's."""
    assert after(nodes, "job", "sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_campaign(
    nodes: Nodes, start: Start, tmp_path: Path, signum: signal.Signals
) -> None:
    """Nothing ran, and nothing is left behind."""
    address = str(tmp_path / "notify")
    with Redlock(nodes.urls) as locks, manager(address) as end:
        with locks.election("job").campaign():
            process = start(nodes, "elect", "job", "--", "echo", "ran", NOTIFY_SOCKET=address)
            hear(end, "READY=1")
            process.send_signal(signum)
            assert process.wait(TIMEOUT) == 128 + signum
            assert process.stdout is not None
            assert process.stdout.read() == ""
            assert "STOPPING=1" in hear(end, "STATUS=stopping")
        assert locks.status("job").held is False


def test_nothing_is_forked_beside_a_thread(nodes: Nodes, start: Start, tmp_path: Path) -> None:
    """Nor beside a connection: the threads of one term have ended before the next begins, also
    one that a close does not wait for."""
    program = f"""
import os, threading, time
from redlock import Redlock
close = Redlock.close
def closed(self):
    close(self)
    threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
Redlock.close = closed
def count():
    links = (os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")[:-1])
    sockets = [link for link in links if link.startswith("socket")]
    os.write(2, f"fork {{len(os.listdir('/proc/self/task'))}} {{len(sockets)}}\\n".encode())
os.register_at_fork(before=count)
{IMPATIENT}
"""
    script = f"echo >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) -lt 3 ] || kill $PPID"
    words = ["elect", "job", "--restart", "--eligible", "true", "--", "sh", "-c", script]
    process = start(nodes, *words, program=program)
    _, said = process.communicate(timeout=TIMEOUT)
    counts = [each.split()[1:] for each in said.splitlines() if each.startswith("fork")]
    # The two sockets are the pair that wakes the loop.
    assert counts == [["1", "2"]] * 6


def test_a_guard_that_died_while_nothing_ran_costs_one_round(
    nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    """The command never runs unguarded: another guard is forked, and the candidate leads."""
    address = str(tmp_path / "notify")
    with Redlock(nodes.urls) as locks, manager(address) as end:
        with locks.election("job").campaign():
            process = start(nodes, "elect", "job", "--", "echo", "ran", NOTIFY_SOCKET=address)
            hear(end, "READY=1")
            below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(below[0]), signal.SIGKILL)
        out, said = process.communicate(timeout=TIMEOUT)
        assert (out, process.returncode) == ("ran\n", 0)
        assert "its guard does not hear" in said


# Who does not lead


def test_what_keeps_a_candidate_from_leading_has_a_status_each(
    nodes: Nodes, own_nodes: Nodes, here: Here, tmp_path: Path
) -> None:
    """4: somebody else leads; 5: no quorum; 7: unfit; 126 and 127: no command; and nothing ran."""
    ran = tmp_path / "ran"
    touch = ["touch", str(ran)]
    with Redlock(nodes.urls) as locks, locks.election("job").campaign():
        assert after(nodes, "job --timeout 0.3", *touch).returncode == 4
        assert here(nodes, "elect", "job", "--", "no-such-command").returncode == 127
        assert here(nodes, "elect", "job", "--", "/dev/null").returncode == 126
        words = ["job", "--eligible", "no-such-check", "--", *touch]
        assert here(nodes, "elect", *words).returncode == 127
    assert after(nodes, "job --no-wait --eligible false", *touch).returncode == 7
    assert after(nodes, "job --ttl 61", *touch).returncode == 2
    for node in own_nodes[:3]:
        node.kill()
    assert after(own_nodes, "job --timeout 0.3", *touch).returncode == 5
    assert not ran.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("job --kill 0.1 -- true", ("15.25 s", "14.85 s")),
        ("job --renewal 12 -- true", ("12.75 s", "8.098 s")),
        ("job --check --kill 0.1", ("15.25 s", "14.85 s")),
        ("job --check --ttl 61", ("ttl=61", "max_ttl=60")),
        ("job --once --restart -- true", ("exclude",)),
        ("job --no-wait --timeout 1 -- true", ("exclude",)),
        ("job --info novalue -- true", ("KEY=VALUE",)),
        ("job --json -- true", ("--check",)),
        ("job --eligible ' -- true", ("--eligible",)),
        ("job", ("CMD",)),
    ],
)
def test_what_cannot_work_is_status_2_and_named(
    nodes: Nodes, here: Here, words: str, named: tuple[str, ...]
) -> None:
    """Timings that do not hold with both numbers."""
    done = here(nodes, "elect", *words.split())
    assert done.returncode == 2
    assert all(each in done.stderr for each in named)
    assert "Traceback" not in done.stderr


def test_a_candidate_that_is_unfit_does_not_lead(
    own_nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    """Before it campaigns, and from the next renewal on."""
    fit = tmp_path / "fit"
    words = ["--once", "--ttl", "12", "--renewal", "0.5", "--eligible", f"test -e {fit}"]
    process = start(own_nodes, "elect", "job", *words, "--", "sh", "-c", OBEDIENT)
    with Redlock(own_nodes.urls) as locks:
        watch = locks.election("job")
        until = now() + 0.7
        while now() < until:
            assert watch.leader() is None
        fit.touch()
        assert line(process).startswith("leads")
        assert watch.leader() is not None
        fit.unlink()
        unfit_at = now()
        assert line(process) == "stopped"
        assert now() < unfit_at + 7.0  # And not at the stop deadline, 8 s after a renewal.
        assert process.wait(TIMEOUT) == 6
        # Given back, as its work had ended in time.
        assert watch.leader() is None
    assert process.stderr is not None
    assert "(unfit)" in process.stderr.read()


def test_a_check_that_hangs_is_killed_with_all_that_it_started(nodes: Nodes) -> None:
    """It counts as a no."""
    begun_at = now()
    words = ["sh", "-c", "sleep 71.5 & sleep 71.5"]
    check = Fitness(shlex.join(words), 0.3)
    with check:
        assert check() is False
    assert 0.3 <= now() - begun_at < 10.0
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 71.5" not in listed.stdout.splitlines()


def test_a_check_that_runs_as_a_term_ends_is_not_waited_for() -> None:
    """Its thread would keep the next term from beginning."""
    check, answers = Fitness("sleep 60", 60.0), []
    with check:
        asking = threading.Thread(target=lambda: answers.append(check()))
        asking.start()
        while not check._group:
            time.sleep(0.005)
    asking.join(TIMEOUT)
    assert answers == [False]


# Whatever befalls it


def test_no_command_is_alive_when_somebody_else_may_lead() -> None:
    """Killed or stopped at any instant, also right between the guard and the gate, and cut off
    from its nodes.

    REDLOCK_SURVIVAL_ROUNDS: how many rounds, instead of once each fault.
    """
    rounds = int(os.environ.get("REDLOCK_SURVIVAL_ROUNDS", len(survival.FAULTS)))
    first = int(os.environ.get("REDLOCK_SURVIVAL_SEED", 0))
    outcomes = survival.many(rounds, first, workers=4)
    assert [outcome for outcome in outcomes if outcome.alive] == []
    assert {outcome.began for outcome in outcomes} == {False, True}
    print(survival.summary(outcomes))  # noqa: T201


def test_nothing_is_released_before_the_whole_group_is_gone(nodes: Nodes, start: Start) -> None:
    """What the command left running is killed, and its lock is still held while it dies."""
    program = """
import os
from redlock import supervise
gone = supervise._is_left
def slow(group, looks=[0]):
    looks[0] += 1
    if looks[0] == 1:
        os.write(1, b"draining\\n")
    return gone(group) or looks[0] < 8
supervise._is_left = slow
from redlock.cli import main
main()
"""
    process = start(nodes, "elect", "job", "--", "sh", "-c", "sleep 60 & true", program=program)
    assert line(process) == "draining"
    assert status_of(nodes, "job").held is True
    assert process.wait(TIMEOUT) == 0
    assert status_of(nodes, "job").held is False


def test_a_zombie_that_nobody_buries_is_not_waited_for() -> None:
    """Its parent is not of the group, and lives on; a process that was stopped is killed."""
    program = """
import os, signal, sys, time
group = os.fork()
if not group:
    os.setpgid(0, 0)
    signal.pause()
os.setpgid(group, group)
if not os.fork():
    os.setpgid(0, group)
    os.kill(os.getpid(), signal.SIGSTOP)
print(group, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            group, begun_at = int(process.stdout.readline()), now()
            drain(group)
            assert now() - begun_at < 5.0
            os.killpg(group, 0)  # Both are zombies now.
        finally:
            process.kill()


# --check


def test_check_shows_the_timings_and_who_lets_this_user_lead(nodes: Nodes, here: Here) -> None:
    """0: a majority votes, and the timings hold; for people and for programs."""
    shown = here(nodes, "elect", "job", "--check")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(word in shown.stdout for word in ("margin", "1.000", "round trip", "5 of 5 nodes"))
    told = here(nodes, "elect", "job", "--check", "--json", "--ttl", "20")
    assert told.returncode == 0
    seen = json.loads(told.stdout)
    assert seen["timings"]["ttl"] == 20.0
    assert (seen["able"], seen["needed"], seen["ready"], seen["max_ttl"]) == (5, 3, True, 60.0)
    assert {node["rights"] for node in seen["nodes"]} == {"all"}
    for node in nodes:
        with node.client() as client:
            left = {key: client.pttl(key) for key in client.scan_iter() if key != b"redlock:node"}
            # What is left of the trial goes by itself, and soon.
            assert all(key.endswith(b":fence") and ttl <= 120_000 for key, ttl in left.items())


def test_check_tells_what_a_user_may_not_do(here: Here) -> None:
    """A right that is missing on one of three nodes costs that one; on two, nobody can lead."""
    with Nodes(3) as nodes:
        rights = ["+evalsha", "+eval", "+script|load", "+info", "+time", "+get", "+set", "+pttl"]
        urls = [url.replace("//", "//app:pw@") for url in nodes.urls]
        missing = iter(["-pexpire", "-del", "-set"])

        def allow(node: int, *more: str) -> None:
            with nodes[node].client() as client:
                words = ["reset", "on", ">pw", "~redlock:*", *rights, "+del", "+pexpire", *more]
                client.execute_command("ACL", "SETUSER", "app", *words)

        def checked() -> tuple[int, list[str]]:
            done = here(urls, "elect", "job", "--check", "--json")
            return done.returncode, [each["rights"] for each in json.loads(done.stdout)["nodes"]]

        for node in range(3):
            allow(node)
        assert checked() == (0, ["all", "all", "all"])
        allow(0, next(missing))
        assert checked() == (0, ["may not extend", "all", "all"])
        allow(1, next(missing))
        assert checked() == (1, ["may not extend", "may not release", "all"])
        allow(0)
        allow(1)
        allow(2, next(missing))
        status, said = checked()
        assert (status, said[:2]) == (0, ["all", "all"])
        assert said[2] != "all"
        nodes[0].kill()
        status, said = checked()
        assert status == 1
        assert "all" not in said


# leader


def test_leader_says_who_leads(nodes: Nodes, own_nodes: Nodes, here: Here) -> None:
    """0: somebody does; 1: nobody; 5: no majority answers."""
    with Redlock(nodes.urls) as locks:
        with locks.election("job", candidate="me", info={"zone": 1}).campaign() as term:
            shown, told = here(nodes, "leader", "job"), here(nodes, "leader", "job", "--json")
        assert shown.returncode == told.returncode == 0
        assert f"'job': led by 'me', fencing token {term.fencing_token}, since" in shown.stdout
        assert '{"zone": 1}' in shown.stdout
        seen = json.loads(told.stdout)
        assert seen.pop("since") == pytest.approx(time.time(), abs=60.0)
        assert seen == {
            "election": "job",
            "led": True,
            "candidate": "me",
            "info": {"zone": 1},
            "fencing_token": term.fencing_token,
        }
        with locks.lock("job"):  # A lock without a candidate.
            assert here(nodes, "leader", "job").returncode == 1
    nobody = here(nodes, "leader", "job", "--json")
    assert (nobody.returncode, json.loads(nobody.stdout)["led"]) == (1, False)
    for node in own_nodes[:3]:
        node.kill()
    assert here(own_nodes, "leader", "job").returncode == 5


@pytest.mark.parametrize("as_json", [False, True])
def test_watch_prints_every_change_until_ctrl_c(nodes: Nodes, start: Start, as_json: bool) -> None:
    """One line each, nobody included."""
    words = ["leader", "job", "--watch", *(["--json"] if as_json else [])]
    process = start(nodes, *words)
    seen = [line(process)]
    with Redlock(nodes.urls) as locks:
        for name in ("one", "two"):
            with locks.election("job", candidate=name).campaign():
                seen.append(line(process))
            seen.append(line(process))
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 128 + signal.SIGINT
    if as_json:
        assert [json.loads(each)["candidate"] for each in seen] == [None, "one", None, "two", None]
    else:
        named = ["nobody", "'one'", "nobody", "'two'", "nobody"]
        assert all(name in each for name, each in zip(named, seen, strict=True))


# systemd


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address.replace("@", "\0"))
        end.settimeout(TIMEOUT)
        yield end


def hear(end: socket.socket, word: str) -> list[str]:
    """What it is told, up to a line with *word*."""
    said: list[str] = []
    while not any(word in each for each in said):
        said += end.recv(4096).decode().splitlines()
    return said


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_what_it_is_at(
    nodes: Nodes, start: Start, tmp_path: Path, abstract: bool
) -> None:
    """Ready as it campaigns, then who leads, then the end; pings all along; and the command knows
    nothing of it."""
    address = f"@redlock-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    # The trap first: what the command says is what the signal waits for.
    script = "trap 'exit 0' TERM; env | grep -c 'NOTIFY\\|WATCHDOG'; while :; do sleep 0.02; done"
    with manager(address) as end, Redlock(nodes.urls) as locks:
        with locks.election("job").campaign():
            process = start(
                nodes,
                *("elect", "job", "--", "sh", "-c", script),
                NOTIFY_SOCKET=address,
                WATCHDOG_USEC="200000",
            )
            said = [each for each in hear(end, "STATUS") if each != "WATCHDOG=1"]
            assert said == ["READY=1", "STATUS=campaigning for job"]
            assert hear(end, "WATCHDOG=1") == ["WATCHDOG=1"]
        hear(end, "STATUS=leading job with fencing token")
        assert hear(end, "WATCHDOG=1") == ["WATCHDOG=1"]
        assert line(process) == "0"
        process.send_signal(signal.SIGTERM)
        assert "STATUS=stopping" in hear(end, "STOPPING=1")
        assert process.wait(TIMEOUT) == 0


def test_no_ping_comes_from_a_loop_that_stands_still(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor for a watchdog that waits for somebody else."""
    address = str(tmp_path / "notify")
    with manager(address) as end:
        for name, value in (("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "20000")):
            monkeypatch.setenv(name, value)
        with Notifier() as notifier:
            assert hear(end, "WATCHDOG") == ["WATCHDOG=1"]
            notifier.waiting = False
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:  # What was sent before.
                    end.recv(4096)
            until = now() + 0.2
            while now() < until:
                time.sleep(0.02)  # Which the timer's signal interrupts.
            with pytest.raises(BlockingIOError):
                end.recv(4096)
            end.settimeout(TIMEOUT)
            notifier.beat()
            assert hear(end, "WATCHDOG") == ["WATCHDOG=1"]
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
        end.settimeout(0.2)
        with Notifier(), pytest.raises(TimeoutError):
            end.recv(4096)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


def test_a_manager_that_does_not_read_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What could not be sent goes with what is sent next."""
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with Notifier() as notifier:
        notifier.ready("first")  # It is not even there.
        with manager(address) as end:
            notifier.status("second")
            assert hear(end, "STATUS") == ["READY=1", "STATUS=second"]
            for number in range(10_000):
                notifier.status(f"number {number}")


@pytest.mark.parametrize("command", ["elect", "leader"])
def test_help_documents_the_statuses(here: Here, command: str) -> None:
    """All of them."""
    done = here([], command, "--help")
    assert done.returncode == 0
    statuses = (2, 4, 5, 6, 7, 126, 127) if command == "elect" else (0, 1, 2, 5, 130)
    assert all(f"{status}  " in done.stdout for status in statuses)


@pytest.mark.parametrize(
    ("left", "reason", "stop_at", "kill_at"),
    [
        (1.0, None, 7.0, 8.0),
        (0.0, None, float("-inf"), 8.0),
        (0.0, Reason.UNFIT, float("-inf"), 8.0),
        (0.0, Reason.CONTENDED, float("-inf"), float("-inf")),
    ],
)
def test_the_deadlines_are_those_of_the_term(
    left: float, reason: Reason | None, stop_at: float, kill_at: float
) -> None:
    """The stop comes at once when the term has ended, and the kill when the lock may be somebody
    else's already. The guard knows the same one: the slack covers one lateness, and no two."""
    term = Mock(reason=reason, stop_at=7.0, kill_at=8.0, valid_until=9.0)
    term.remaining.return_value = left
    assert Leading(term, "job").deadlines() == (stop_at, kill_at, kill_at, 9.0)
