"""What is deployed says what it claims: the configuration on a real server, the compose file,
the image, TLS, the unit."""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import redlock
from chaos.live.processes import server_program
from deploy import image
from redlock.initialise import initialise
from tests.deploy.server import DEPLOY, Server, programs, running, urls

MB = 1 << 20


# node.conf


@pytest.fixture(scope="module", params=programs())
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("conf"), 1, program=programs()[request.param]) as found:
        yield found[0]


SETTINGS = {
    "maxmemory-policy": "noeviction",
    "maxmemory": str(64 * MB),
    "save": "",
    "appendonly": "no",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "protected-mode": "yes",
    "timeout": "0",
    "tcp-keepalive": "60",
    "maxclients": "4096",
    "enable-debug-command": "no",
    "enable-module-command": "no",
    "enable-protected-configs": "no",
}


def test_the_configuration_is_what_a_node_must_have(server: Server) -> None:
    """On a real server, read back: no eviction, no snapshots, every write synced if any is,
    nothing that is not needed."""
    found = server.ask("CONFIG", "GET", *SETTINGS)
    told = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
    assert told == SETTINGS


def test_a_node_of_this_configuration_is_fit_to_vote(server: Server) -> None:
    """Set up by the operator, admitted by the library as its own user."""
    initialise([server.url("operator")], max_ttl=10)
    with redlock.Redlock([server.url("redlock")]) as locks:
        report = locks.nodes()[0]
        assert (report.votes, report.policy, report.role) == (True, "noeviction", "master")
        with locks.lock("ledger", timeout=5) as lease:
            assert lease.fencing_token > 0


def test_a_durable_node_has_its_locks_after_a_kill(tmp_path: Path) -> None:
    """With --appendonly yes a SIGKILL loses nothing: the lock is there, and the node votes at
    once."""
    with running(tmp_path / "first", 1, "--appendonly", "yes") as found:
        initialise(urls(found, "operator"), max_ttl=60, durable=True)
        found[0].ask("SET", "redlock:ledger", "somebody:1", "PX", 60_000)
    with running(
        tmp_path / "second", 1, "--appendonly", "yes", "--dir", str(tmp_path / "first" / "0")
    ) as found:
        assert found[0].ask("GET", "redlock:ledger") == "somebody:1"
        with redlock.Redlock(urls(found, "redlock"), ttl=10.0, node_timeout=2.0) as locks:
            assert locks.lock("ledger").acquire(blocking=False) is None
            report = locks.nodes()[0]
            assert (report.votes, report.durable) == (True, True)


def test_a_node_without_a_users_file_does_not_start(tmp_path: Path) -> None:
    """So nobody runs an open node by forgetting one."""
    words = [
        server_program(),
        str(DEPLOY / "node.conf"),
        "--aclfile",
        str(tmp_path / "absent.acl"),
        "--port",
        "0",
    ]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert done.returncode != 0


def test_a_full_node_refuses_new_locks_and_lets_go_of_old_ones(tmp_path: Path) -> None:
    """noeviction at work: out of memory nothing is granted, and what is held can be extended and
    released."""
    with running(tmp_path, 1) as found:
        initialise(urls(found, "operator"), max_ttl=60)
        with redlock.Redlock(urls(found, "redlock"), ttl=10.0, node_timeout=2.0) as locks:
            lease = locks.lock("ledger").acquire(timeout=10)
            assert lease is not None
            found[0].ask("CONFIG", "SET", "maxmemory", 1)
            lease.extend(20.0)
            with pytest.raises(redlock.QuorumUnavailable, match="OOM"):
                locks.lock("another").acquire(timeout=0)
            assert lease.release()


# compose.yaml


def compose() -> dict[str, Any]:
    """The file, with every variable at its default."""
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return found


def test_five_nodes_of_their_own_published_on_loopback_alone() -> None:
    """Each with its own port and volume, and no port that another machine could reach unless an
    address is named."""
    services = compose()["services"]
    assert sorted(services) == [f"node{number}" for number in range(1, 6)]
    ports = [port for service in services.values() for port in service["ports"]]
    assert ports == [f"127.0.0.1:700{number}:6379" for number in range(1, 6)]
    volumes = [service["volumes"] for service in services.values()]
    assert volumes == [[f"node{number}:/data"] for number in range(1, 6)]
    assert not any(
        "network_mode" in service or "privileged" in service for service in services.values()
    )


def test_every_node_is_confined_as_the_chaos_suites_are() -> None:
    """What the compose file says is what containers are made with through the SDK, and so what
    has been tested."""
    expected = {**image.CONFINEMENT, "ulimits": {"nofile": {"soft": 8192, "hard": 8192}}}
    limit = image.CONFINEMENT["ulimits"][0]
    assert (limit.name, limit.soft, limit.hard) == ("nofile", 8192, 8192)
    for service in compose()["services"].values():
        assert {key: service[key] for key in expected} == expected
        assert service["secrets"] == [{"source": "users", "target": "/etc/redlock-node/users.acl"}]


def test_the_memory_limits_leave_room_for_a_rewrite() -> None:
    """Container and unit allow maxmemory twice, because a rewrite forks, and as much again for
    clients and code."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd" / "redlock-node.service")
    maxmemory = int(SETTINGS["maxmemory"])
    assert int(image.CONFINEMENT["mem_limit"].removesuffix("m")) * MB >= 3 * maxmemory
    assert image.CONFINEMENT["memswap_limit"] == image.CONFINEMENT["mem_limit"]
    assert int(unit["Service"]["MemoryMax"].removesuffix("M")) * MB >= 3 * maxmemory
    assert unit["Service"]["MemorySwapMax"] == "0"


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    """Read by the program that will run it."""
    program = shutil.which("docker-compose")
    words = [program] if program else ["docker", "compose"]
    if (
        not program
        and subprocess.run([*words, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no docker compose here to read the file")
    done = subprocess.run(
        [*words, "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Images


def test_the_image_has_a_server_and_every_library_that_it_needs() -> None:
    """And its configuration, and a data folder of the server's user; nothing else."""
    program = Path(server_program())
    with tarfile.open(fileobj=io.BytesIO(image.context(program))) as tar:
        names = {member.name: member for member in tar.getmembers()}
        recipe = tar.extractfile("Dockerfile")
        assert recipe is not None
        assert recipe.read().decode().startswith((DEPLOY / "Dockerfile.scratch").read_text("utf-8"))
    libraries = {f"root{path}" for path in image.libraries(program)}
    assert all("libc" not in name or name in libraries for name in names)
    assert set(names) == {
        *libraries,
        *("Dockerfile", "data", "root/usr/local/bin/valkey-server"),
        *("root/etc/redlock-node/node.conf", "root/etc/redlock-node/tls.conf"),
    }
    assert (names["data"].uid, names["data"].mode) == (999, 0o700)
    assert names["root/usr/local/bin/valkey-server"].mode & 0o111


def test_a_server_whose_libraries_are_missing_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that cannot start is not built."""
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibssl.so.3 => not found\\n'\n", "utf-8")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs libssl\.so\.3"):
        image.libraries(Path("/bin/true"))


# TLS


def test_tls_alone_and_certificates_on_both_sides(tmp_path: Path) -> None:
    """tls.conf on a server that knows TLS: no plain port, a client with a certificate and a
    password gets a lock."""
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"TLS needs {program} on the PATH")
    make_certificates(tmp_path)
    files = (
        "--tls-cert-file",
        "node.crt",
        "--tls-key-file",
        "node.key",
        "--tls-ca-cert-file",
        "ca.crt",
    )
    paths = [str(tmp_path / word) if "." in word else word for word in files]
    node = Server(
        tmp_path / "node",
        program="redis-server",
        tls=["--include", str(DEPLOY / "tls.conf"), *paths],
    )
    arguments = {
        "ssl_ca_certs": tmp_path / "ca.crt",
        "ssl_certfile": tmp_path / "app.crt",
        "ssl_keyfile": tmp_path / "app.key",
    }
    query = "&".join(f"{name}={path}" for name, path in arguments.items())
    try:
        node.wait_for_port()
        url = node.url("operator").replace("redis://", "rediss://")
        initialise([f"{url}?{query}"], max_ttl=10)
        url = node.url("redlock").replace("redis://", "rediss://")
        with redlock.Redlock([f"{url}?{query}"]) as locks, locks.lock("ledger", timeout=5) as lease:
            lease.ensure_held()
        with (
            redlock.Redlock([f"{url}?ssl_ca_certs={tmp_path / 'ca.crt'}"]) as locks,
            pytest.raises(redlock.RedlockError),
        ):
            locks.lock("ledger").acquire(timeout=0)  # No certificate.
    finally:
        node.close()


def make_certificates(folder: Path) -> None:
    """As the README says: an authority, and a certificate of it for the node and for the
    application."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req",
        "-x509",
        *elliptic,
        "-subj",
        "/CN=redlock",
        "-days",
        "2",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", "utf-8")
    for name in ("node", "app"):
        openssl(
            "req",
            *elliptic,
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        signing = (
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
        )
        openssl(*signing, "-extfile", "names", "-out", f"{name}.crt")


# The unit


@pytest.mark.parametrize(
    ("name", "instance", "program"),
    [
        ("redlock-node.service", "redlock-node.service", "/usr/bin/valkey-server"),
        ("redlock-elect@.service", "redlock-elect@job.service", "/usr/bin/redlock"),
    ],
)
def test_systemd_accepts_the_unit(tmp_path: Path, name: str, instance: str, program: str) -> None:
    """Read by systemd's own checker, with a program that exists here in place of ours."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here to read the unit")
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    assert program in text
    unit = tmp_path / instance
    unit.write_text(text.replace(program, shutil.which("true") or "/bin/true"), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if instance in line]
    assert not complaints


def test_no_password_is_in_what_is_committed() -> None:
    """The template has places for digests, and the folder of passwords is ignored."""
    template = (DEPLOY / "users.acl.in").read_text("utf-8")
    assert re.findall(r"^user \w+ on (\S+)", template, re.MULTILINE) == [
        "#{REDLOCK}",
        "#{OPERATOR}",
        "#{MONITOR}",
    ]
    assert not re.search(r"\s[>](?!\=)\S|nopass", template)
    assert "secrets/" in (DEPLOY / ".gitignore").read_text("utf-8").splitlines()
