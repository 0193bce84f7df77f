"""The container back end on a Docker engine, where one answers: what it breaks is broken, and
nothing of it stays."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import redlock
from chaos.live.backend import Ability, Data, Persistence, Setup, Unsupported, side_client
from chaos.live.containers import LABEL, ContainerNode, Containers, engine
from chaos.live.processes import server_program
from chaos.live.runner import Runner
from chaos.live.scenarios import SCENARIOS
from chaos.live.toxiproxy import HOW_TO_GET_IT, find_server
from deploy import image, users
from redlock.initialise import initialise
from tests.deploy.server import DEPLOY, PASSWORDS, free_port

try:
    engine().close()
    ABSENT = ""
except RuntimeError as error:
    ABSENT = str(error)
needs_engine = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "a Docker engine answers")


def test_where_no_engine_answers_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The back end does not begin, and leaves nothing behind."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(RuntimeError, match="no Docker engine answers") as caught:
        Containers()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def backend() -> Iterator[Containers]:
    found = Containers()
    yield found
    found.close()


@pytest.fixture
def durable(backend: Containers) -> ContainerNode:
    """One node that syncs every write."""
    backend.fresh(Setup(count=1, persistence=Persistence.ALWAYS))
    return backend.nodes[0]


def value(node: ContainerNode) -> bytes | None:
    with side_client(node) as client:
        found = client.get("key")
        assert found is None or isinstance(found, bytes)
        return found


def write(node: ContainerNode, text: str) -> None:
    with side_client(node) as client:
        client.set("key", text)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what only looking can tell."""
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError("it did not come true")


def run_id(node: ContainerNode) -> str:
    with side_client(node) as client:
        return str(client.info("server")["run_id"])


@needs_engine
def test_nodes_are_confined_and_published_on_loopback_alone(backend: Containers) -> None:
    """As the compose file says, and as the engine tells it."""
    backend.fresh(Setup(count=2))
    for node in backend.nodes:
        node.container.reload()
        host = node.container.attrs["HostConfig"]
        assert host["PortBindings"] == {
            "6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(node.address[1])}]
        }
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (
            True,
            ["ALL"],
            False,
        )
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert (host["Memory"], host["PidsLimit"]) == (192 << 20, 32)
        assert node.container.attrs["Config"]["User"] == "999:999"
        assert node.container.labels[LABEL] == backend.run
        with side_client(node) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with (
        redis.Redis(port=backend.nodes[0].address[1], socket_timeout=2) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


@needs_engine
def test_a_killed_node_comes_back_at_its_address_with_what_the_restart_says(
    durable: ContainerNode,
) -> None:
    """Durable, or as on disk: all it had acknowledged. Rolled back: what the snapshot kept.
    Lost: nothing."""
    address, first = durable.address, run_id(durable)
    write(durable, "old")
    durable.snapshot()
    write(durable, "new")
    durable.restart(Data.DURABLE)
    assert (durable.address, value(durable)) == (address, b"new")
    assert run_id(durable) != first
    durable.restart(Data.ON_DISK)
    assert value(durable) == b"new"
    durable.restart(Data.ROLLED_BACK)
    assert (durable.address, value(durable)) == (address, b"old")
    durable.restart(Data.LOST)
    assert (durable.address, value(durable)) == (address, None)


@needs_engine
def test_a_killed_node_refuses_until_it_is_started(durable: ContainerNode) -> None:
    """Also after an orderly stop; killing what is dead is no error."""
    for end in (durable.kill, durable.stop):
        end()
        assert durable.pid is None
        with pytest.raises(OSError), socket.create_connection(durable.address, timeout=2):
            pass
        end()
        durable.start()
        assert durable.pid


@needs_engine
def test_a_paused_node_accepts_is_silent_and_executes_late(durable: ContainerNode) -> None:
    """What a frozen server was sent it does on waking, after its client gave up."""
    with side_client(durable, timeout=0.2) as client:
        client.ping()  # Connected: what it sends from now on needs no answer first.
        durable.pause()
        with pytest.raises(redis.TimeoutError):
            client.set("key", "late")
    with socket.create_connection(durable.address, timeout=2):
        pass
    durable.unpause()
    until(lambda: value(durable) == b"late")
    durable.unpause()  # Of what is not frozen: nothing happens.
    durable.pause()
    durable.kill()
    assert durable.pid is None
    durable.start()


@needs_engine
def test_a_node_without_persistence_cannot_be_restarted_as_if_it_had_one(
    backend: Containers,
) -> None:
    """The back end says so, instead of giving an empty server for a durable one."""
    backend.fresh(Setup(count=1))
    with pytest.raises(Unsupported):
        backend.nodes[0].restart(Data.DURABLE)
    write(backend.nodes[0], "something")
    backend.nodes[0].wipe()
    assert value(backend.nodes[0]) is None
    assert not backend.nodes[0].shift_clock(1.0)
    assert backend.can == frozenset(Ability)


@needs_engine
def test_only_what_this_run_made_is_touched_and_all_of_it_goes() -> None:
    """A container of somebody else, even of another run of ours, is there after the end; ours,
    its volume and image not."""
    client, theirs = engine(), Containers()
    try:
        theirs.fresh(Setup(count=1))
        ours = Containers()
        ours.fresh(Setup(count=2, persistence=Persistence.ALWAYS))
        mounts = [mount["Name"] for node in ours.nodes for mount in node.container.attrs["Mounts"]]
        assert len(mounts) == 2
        assert ours.version().startswith(("Valkey server", "Redis server"))
        ours.close()
        ours.close()
        assert theirs.nodes[0].pid
        assert client.containers.list(all=True, filters={"label": f"{LABEL}={ours.run}"}) == []
        assert not {volume.name for volume in client.volumes.list()} & set(mounts)
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get(f"redlock-chaos:{ours.run}")
    finally:
        theirs.close()
        client.close()


@needs_engine
@pytest.mark.parametrize("name", ["S25", "S32"])
def test_a_scenario_ends_as_expected_on_containers(name: str) -> None:
    """The same script, clients and checker as on processes: killed with amnesia, and paused."""
    toxiproxy = find_server(install=False)
    if toxiproxy is None:
        pytest.skip(HOW_TO_GET_IT)
    scenario = SCENARIOS[name]
    with Runner(Containers(), toxiproxy) as runner:
        outcome = runner.run(scenario, seed=1)
    assert outcome.ok, outcome.why


@needs_engine
def test_the_compose_file_runs_a_node(tmp_path: Path) -> None:
    """`docker compose up node1` with the users' file and the image from scratch: set up, locked
    on, and taken down again."""
    program = shutil.which("docker-compose")
    words = [program] if program else ["docker", "compose"]
    if (
        not program
        and subprocess.run([*words, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no docker compose here")
    (tmp_path / "users.acl").write_text(users.render(PASSWORDS), "utf-8")
    port, project = free_port(), f"redlock-{os.getpid()}"
    tag = f"redlock-test:{project}"
    client = engine()
    environment = {
        **os.environ,
        "REDLOCK_IMAGE": tag,
        "REDLOCK_PORT": str(port),
        "REDLOCK_USERS": str(tmp_path / "users.acl"),
        "REDLOCK_APPENDONLY": "yes",
    }

    def compose(*more: str) -> None:
        file = str(DEPLOY / "compose.yaml")
        done = subprocess.run(
            [*words, "--file", file, "--project-name", project, *more],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    try:
        image.build(client, Path(server_program()), tag)
        compose("up", "--detach", "--no-build", "node1")
        url = f"redis://{{}}:{{}}@127.0.0.1:{port}"
        until(lambda: asks_for_a_name(port))
        initialise([url.format("operator", PASSWORDS["operator"])], max_ttl=10, durable=True)
        with (
            redlock.Redlock([url.format("redlock", PASSWORDS["redlock"])]) as locks,
            locks.lock("ledger", timeout=5) as lease,
        ):
            lease.ensure_held()
            compose("restart", "node1")
            until(lambda: asks_for_a_name(port))
            lease.verify()  # Durable: the restart forgot nothing, and cost nothing.
    finally:
        compose("down", "--volumes")
        client.images.remove(tag, force=True)
        client.close()


def asks_for_a_name(port: int) -> bool:
    """Whether a node answers there, by refusing us."""
    with redis.Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        try:
            client.ping()
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            pass
    return False
