"""The command, and what it says of electors that are not to be had."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.electors import command
from chaos.electors.catalogue import ELECTORS, Elector
from chaos.electors.conductor import Trial
from chaos.electors.faults import Fault
from chaos.electors.results import Results
from chaos.electors.stores import lease_server
from chaos.peers.environments import PeerMissing


@contextmanager
def nothing() -> Iterator[list[tuple[str, int]]]:
    yield []


def missing() -> Sequence[str]:
    raise PeerMissing("no environment for absent: it is not to be had")


def trial(elector: str, fault: str, number: int) -> Trial:
    bad = elector == "bad"
    return Trial(elector, fault, number, 1.0, 0.25 * bad, 1.5 * bad, bad, 1.0, True, False, 4.0)


@pytest.fixture(autouse=True)
def electors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three, one of which is missing, and none of which is played."""

    def play(elector: Elector, faults: Sequence[Fault], repeat: int) -> Iterator[Trial | str]:
        elector.start()
        for fault in faults:
            for number in range(repeat):
                yield trial(elector.name, fault.name, number + 1)

    monkeypatch.setattr(command, "play", play)
    for name in list(ELECTORS):
        monkeypatch.delitem(ELECTORS, name)
    for name in ("bad", "absent", "good"):
        start = missing if name == "absent" else lambda: ()
        monkeypatch.setitem(ELECTORS, name, Elector(name, f"{name} 1.0", start, nothing, 1.0, b"x"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_elector_that_is_not_to_be_had_is_a_line_and_no_failure(jobs: int) -> None:
    """The others are played, and stand in the order in which they were named."""
    told: list[Trial | str] = []
    names = ("good", "absent", "bad")
    results = command.run(names, ("cut", "mute"), 2, jobs=jobs, told=told.append)
    assert [one.elector for one in results.trials] == ["good"] * 4 + ["bad"] * 4
    assert results.missing == ["no environment for absent: it is not to be had"]
    assert len(told) == 9
    assert set(results.texts) == {*names, "cut", "mute"}


def test_the_table_shows_overlap_and_lag_side_by_side(tmp_path: Path) -> None:
    """And what was not played, and the data on demand."""
    path = tmp_path / "electors.json"
    words = ["electors", "--repeat", "1", "--fault", "cut", "--output", str(path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    row = next(line for line in done.output.splitlines() if line.startswith("cut"))
    assert row.split() == ["cut", "0.25", "/", ">1.50", "0.00", "/", "0.00"]
    assert "not played: no environment for absent: it is not to be had" in done.output
    assert len(Results.load(path).trials) == 2


def test_the_results_are_printed_as_json() -> None:
    """Trials, and the summary of them."""
    done = CliRunner().invoke(main, ["electors", "--repeat", "2", "--fault", "cut", "--json"])
    told = json.loads(done.stdout)
    assert len(told["trials"]) == 4
    assert [(cell["elector"], cell["overlap"]) for cell in told["summary"]] == [
        ("bad", 0.25),
        ("good", 0.0),
    ]


def test_a_lease_is_replaced_only_by_one_made_of_the_current_version() -> None:
    """Compare-and-set: the second of two candidates that read the same version is refused."""
    import http.client

    def ask(method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        connection.request(method, path, None if body is None else json.dumps(body))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    new = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "c1"}}
    with lease_server() as ((host, port),):
        connection = http.client.HTTPConnection(host, port, timeout=10)
        status, failure = ask("GET", f"{leases}/leader")
        assert (status, failure["code"]) == (404, 404)
        assert ask("POST", leases, new)[0] == 201
        assert ask("POST", leases, new)[0] == 409
        _, lease = ask("GET", f"{leases}/leader")
        assert ask("PUT", f"{leases}/leader", lease)[0] == 200
        assert ask("PUT", f"{leases}/leader", lease)[0] == 409
        connection.close()
