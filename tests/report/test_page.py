"""The page: complete, self-contained, safe from what it shows, and with one line for a directory
that is none."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from click.testing import CliRunner

from chaos.cli import main
from chaos.history import Broken, Note, Record
from chaos.report import charts, words
from chaos.report.page import build
from chaos.report.run import Result
from tests.report.material import a_find, granted, observed, released, result_of, write_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- & \u2028 '\""


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._script: dict[str, str | None] | None = None
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "elements that are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._script = dict(attrs) if tag == "script" else None
        if tag not in ("meta", "br", "img", "link", "input", "hr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        elif "style" not in self._open:
            self.text += data

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]

    def cells_of(self, name: str) -> list[dict[str, str | None]]:
        """The data cells of tables of a class."""
        within, found = False, []
        for tag, attrs in self.elements:
            if tag == "table":
                within = name in (attrs.get("class") or "").split()
            elif tag == "td" and within:
                found.append(attrs)
        return found

    def data(self) -> dict[str, Any]:
        """What the page holds for its scripts, by id."""
        found = {
            str(attrs["id"]): json.loads(text)
            for attrs, text in self.scripts
            if attrs.get("type") == "application/json"
        }
        packed = {
            str(attrs["id"]): text
            for attrs, text in self.scripts
            if attrs.get("type") == "text/plain"
        }
        return found | {
            name: json.loads(gzip.decompress(base64.b64decode(text)))
            for name, text in packed.items()
        }


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    return build(folder)


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def test_every_result_is_on_the_page(page: Page) -> None:
    """Each has a section, a timeline with data of its own, and a line in the index that leads to
    it."""
    names = ["C1", "C2", "C3", "S01", "S02", "S03", "S02-redlock-py"]
    assert [attrs["id"] for attrs in page.with_class("scenario")] == names
    links = {attrs.get("href") for tag, attrs in page.elements if tag == "a"}
    assert {f"#{name}" for name in names} <= links
    data = page.data()
    figures = [attrs["data-table"] for attrs in page.with_class("chart") if attrs.get("data-table")]
    assert len(figures) >= len(names)
    assert all(data[str(table)]["tables"]["lanes"]["rows"] for table in figures)


def test_controls_come_before_everything(page: Page) -> None:
    """The first section says that the checker can fail, and which controls show it."""
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert sections[:3] == ["controls", "peers", "matrix"]
    assert page.text.index("failed, as it must") < page.text.index("What was broken, and what held")


def test_a_run_without_controls_says_so(tmp_path: Path) -> None:
    """Nothing claims that the checker can fail where nobody tried."""
    outcome = observed(3, "hold")
    text = Page(
        build(write_run(tmp_path, [(result_of(outcome, "S01", "calm"), outcome.history)]))
    ).text
    assert "does not show that its checker can fail" in text
    assert "controls failed" not in text


def test_below_the_headline_stand_the_commit_and_what_the_run_went_through(
    folder: Path, page: Page, tmp_path: Path
) -> None:
    """Our own clients' totals, without controls; of a run without a commit, that it has none."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    run = json.loads((copy / "run.json").read_text("utf-8"))
    path = copy / "run.json"
    path.write_text(json.dumps(run | {"commit": "0123456789ab with changes"}), "utf-8")
    ours = [one for one in run["results"] if one["scenario"].startswith("S")][:3]
    grants = sum(one["metrics"]["grants"] for one in ours)
    head = " ".join(Page(build(copy)).text.split("started")[0].split())
    assert "commit 0123456789ab with changes, " in head
    assert f" {grants:,} grants, " in head
    assert head.endswith(" 0 violations")
    assert "commit not known" in page.text


def test_one_figure_is_one_text_wherever_it_stands(page: Page) -> None:
    """How long a peer had two holders is the same among the libraries, in the matrix, at its
    timeline, and among its numbers."""
    summary = set(re.findall(r"([\d.]+ \w+) two holders", page.text.split("C3 token")[-1]))
    shown = " ".join(page.text.split("The same faults, other libraries")[1].split())
    told = re.search(r"in 1 ([\d.]+ \w+) ", shown)
    assert told
    assert told[1] in summary
    numbers = " ".join(page.text.split("S02-redlock-py")[0].split())
    assert f"two holders at once{told[1]} " in numbers


def test_what_an_assumption_allows_is_shown_closely(tmp_path: Path) -> None:
    """An expected overlap has its close-up too, and is not called a violation."""
    outcome = a_find("release deletes anything", "ME")
    result = result_of(outcome, "S26", "", expected="unsafe by assumption") | {"violations": []}
    page = Page(build(write_run(tmp_path, [(result, outcome.history)])))
    assert "Two holders at once, by assumption" in page.text
    assert [attrs["class"] for attrs in page.with_class("closeup")] == ["closeup"]


def test_a_run_that_measured_nothing_has_a_page(tmp_path: Path) -> None:
    """Controls alone, or scenarios without figures, phases or history: what is optional in a run
    directory may be missing."""
    bare = {"scenario": "C1", "expected": "must fail", "observed": "violated", "ok": True}
    page = Page(
        build(
            write_run(
                tmp_path,
                [(bare, []), (bare | {"scenario": "S01", "expected": "safe", "ok": False}, [])],
            )
        )
    )
    assert len(page.with_class("scenario")) == 2
    assert page.text.count("kept no history") == 2
    assert page.data()["charts"].keys() == {"timeline"}


def test_repetitions_are_told_apart(tmp_path: Path) -> None:
    """Each has a section and a row; one whose history a later one wrote over says so, and is not
    shown with another's."""
    outcome = observed(3, "hold")
    result = result_of(outcome, "S01", "again")
    other = result_of(outcome, "S02", "")
    page = Page(
        build(
            write_run(
                tmp_path,
                [(result, outcome.history), (other, outcome.history), (result, outcome.history)],
            )
        )
    )
    assert [attrs["id"] for attrs in page.with_class("scenario")] == ["S01", "S02", "S01·2"]
    assert page.text.count("a later repetition wrote over it") == 1
    assert [name for name in page.data() if name.startswith("data-")] == ["data-1", "data-2"]


def test_the_charts_of_a_long_campaign_show_the_worst(tmp_path: Path) -> None:
    """Of two hundred rounds those with the least availability and the largest latency are drawn,
    and how many there were."""
    outcome = observed(3, "hold")
    results: list[tuple[dict[str, Any], list[Record]]] = []
    for number in range(200):
        result = result_of(outcome, f"S61-{number:03}", "round")
        result["metrics"] |= {"availability": {"during": 0.5 if number == 150 else 1.0}}
        result["metrics"] |= {
            "acquire": {"during": {"p50": 0.001, "p99": 9.0 if number == 151 else 0.002}}
        }
        results.append((result | {"history": None}, []))
    page = Page(build(write_run(tmp_path, results)))
    data = page.data()["index"]
    assert "S61-150" in {row["name"] for row in data["availability"]}
    assert "S61-151" in {row["name"] for row in data["latency"]}
    assert len(data["latency"]) == 90
    assert "The 90 worst of 200" in page.text


def test_peers_stand_side_by_side(page: Page) -> None:
    """A column for each kind of client, ours first; what a peer was not run with says so."""
    heads = [tag for tag, _ in page.elements].count("th")
    assert heads
    assert page.text.count("not run") == 2
    assert len(page.with_class("cell")) == 4
    lines = [
        " ".join(line.split())
        for line in page.text.split("The same faults, other libraries")[1].split("redlock")
    ]
    assert lines[1].startswith("1 of 1 never 0")
    assert lines[2].startswith("-py 0 of 1 in 1 ")


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    """No element names another file, and the content policy forbids what a script might ask for."""
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert "src" not in attrs
        assert not (attrs.get("href") or "#").startswith(("http", "//")), attrs
    policy = next(attrs["content"] or "" for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "connect-src" not in policy
    assert "'unsafe-eval'" not in policy
    assert "url(" not in "".join(line for line in html.splitlines() if "--page" in line)


def test_the_policy_knows_the_scripts(page: Page) -> None:
    """The hash of each script that runs is in the policy, so that the page works and nothing
    that was slipped in does."""
    policy = next(attrs["content"] or "" for tag, attrs in page.elements if attrs.get("http-equiv"))
    running = [text for attrs, text in page.scripts if "type" not in attrs]
    assert len(running) == 2
    for text in running:
        assert f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in policy


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """A title, a fault, a client or a violation that looks like HTML opens no element and ends
    no script."""
    outcome = a_find("release deletes anything", "ME")
    history: list[Record] = [
        *outcome.history,
        Broken(1.0, "", f"{HOSTILE}-1", HOSTILE, (0,), (HOSTILE,)),
        Note(1.0, HOSTILE, HOSTILE, HOSTILE),
    ]
    result = result_of(outcome, "S01", HOSTILE) | {
        "why": HOSTILE,
        "replay": HOSTILE,
        "observed": HOSTILE,
        "client_kind": HOSTILE,
    }
    result["violations"][0] |= {"text": HOSTILE, "property": HOSTILE}
    result["metrics"][HOSTILE] = HOSTILE
    result["history"] = "S01/history.jsonl"
    calm = Page(
        build(write_run(tmp_path / "calm", [(result_of(outcome, "S01", "calm"), outcome.history)]))
    )
    page = Page(build(write_run(tmp_path / "hostile", [(result, history)])))
    count = [tag for tag, _ in page.elements].count
    assert count("script") == [tag for tag, _ in calm.elements].count("script")
    assert count("img") == 0
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert HOSTILE in page.text
    assert any(HOSTILE in row for row in page.data()["data-0"]["tables"]["faults"]["rows"])


def test_a_figure_that_contradicts_its_history_is_named(page: Page, tmp_path: Path) -> None:
    """A run that says zero, beside a history with two holders at once, is not taken at its word;
    the others are."""
    assert "one of them is wrong" not in page.text
    outcome = a_find("release deletes anything", "ME")
    result = result_of(outcome, "S01", "")
    result["metrics"]["overlap_ms"] = 0.0
    assert (
        "one of them is wrong" in Page(build(write_run(tmp_path, [(result, outcome.history)]))).text
    )


def test_every_chart_can_be_drawn(page: Page) -> None:
    """Vega draws the timeline of a run with its marks, and the index charts, from the data of
    the page alone."""
    data = page.data()
    timeline = data["charts"]["timeline"] | {"datasets": _datasets(data["data-0"])}
    lanes = [lane["label"] for lane in timeline["datasets"]["lanes"]]
    timeline["params"] = [*timeline["params"], {"name": "lanes", "value": lanes}]
    drawn = vl_convert.vegalite_to_svg(timeline)
    for label in filter(None, lanes):
        assert f">{label}</text>" in drawn, label
    assert ">#1</text>" in drawn
    assert drawn.count("var(--hue-0)") > 3
    assert "var(--bad)" in drawn
    for name in ("availability", "latency", "next"):
        drawn = vl_convert.vegalite_to_svg(
            data["charts"][name] | {"datasets": {name: data["index"][name]}}
        )
        assert ">S01</text>" in drawn
        assert "var(--kind0)" in drawn


@pytest.mark.parametrize("width", [250, 900])
@pytest.mark.parametrize("span", [(1000.0, 1000.0), (15.4, 51.3), (0.3, 90_000.0)])
def test_an_axis_of_times_has_numbers_to_read(span: tuple[float, float], width: int) -> None:
    """However little or much there is to show, its ends are within the axis, and on a wide page,
    or in a short span, at least two of its steps are named."""
    row: dict[str, Any] = {"name": "S01", "title": "", "kind": "redlock", "max_text": "longest"}
    row |= {"p50": span[0], "p99": span[1], "max": span[1]}
    chart = charts.next_holder(["redlock"], [row]) | {"width": width, "datasets": {"next": [row]}}
    room = next(param for param in chart["params"] if param["name"] == "room")
    room["value"] = width
    drawn = vl_convert.vegalite_to_svg(chart)
    assert len(re.findall(r">\d+ (?:µs|ms|s)</text>", drawn)) >= 2
    assert ">longest</text>" in drawn
    domain = next(layer["encoding"]["x"]["scale"]["domain"] for layer in chart["layer"])
    assert domain[0] <= span[0] <= span[1] < domain[1]


def test_a_narrow_page_names_the_columns_that_it_folds(page: Page) -> None:
    """Where rows become blocks the heads of their columns are gone, so each cell has its own."""
    assert page.with_class("stack")
    cells = [attrs for attrs in page.cells_of("stack") if attrs.get("class") != "expected"]
    assert cells
    assert all(attrs.get("data-of") for attrs in cells)


def test_low_lanes_can_be_drawn() -> None:
    """The variant for many clients compiles."""
    assert vl_convert.vegalite_to_vega(charts.timeline(dense=True))["marks"]


def _datasets(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        for name, table in data["tables"].items()
    }


def test_a_long_campaign_stays_small(tmp_path: Path) -> None:
    """Sixty scenarios with a thousand leases each would make less than ten megabytes."""
    outcome = observed(7, "hold")
    history: list[Record] = []
    for number in range(1, 1001):
        at = number * 0.05
        client = f"c{number % 5}"
        history += [granted(at, client, number, at + 0.5), released(at + 0.04, client, number)]
    one, many = (
        len(
            build(
                write_run(
                    tmp_path / str(count),
                    [(result_of(outcome, f"S{i}", ""), history) for i in range(count)],
                )
            )
        )
        for count in (1, 7)
    )
    assert one + 59 * (many - one) / 6 < 10e6


# Directories that are none


def report(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["report", *arguments])
    return result.exit_code, result.output


def test_the_command_writes_the_page(folder: Path, html: str, tmp_path: Path) -> None:
    """Beside the run by default, elsewhere by option; it says where and how large."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    assert report(str(copy))[0] == 0
    assert (copy / "report.html").read_text("utf-8") == html
    code, output = report(str(copy), "--output", str(tmp_path / "elsewhere.html"))
    assert code == 0
    assert str(tmp_path / "elsewhere.html") in output
    assert (tmp_path / "elsewhere.html").exists()


def damage(folder: Path, how: str) -> None:
    run = folder / "run.json"
    data = json.loads(run.read_text("utf-8"))
    match how:
        case "no run.json":
            run.unlink()
        case "cut":
            run.write_text(run.read_text("utf-8")[:500], "utf-8")
        case "binary":
            run.write_bytes(b"\xff\xfe\x00")
        case "no results":
            run.write_text(json.dumps(data | {"results": []}), "utf-8")
        case "a result of another shape":
            data["results"][1]["violations"] = "none"
            run.write_text(json.dumps(data), "utf-8")
        case "elsewhere":
            data["results"][0]["history"] = "../../secret.jsonl"
            run.write_text(json.dumps(data), "utf-8")
        case "no history":
            (folder / data["results"][0]["history"]).unlink()
        case "an empty history":
            (folder / data["results"][0]["history"]).write_text("", "utf-8")
        case "a cut history":
            path = folder / data["results"][0]["history"]
            path.write_text(path.read_text("utf-8")[:-20], "utf-8")
        case "another kind of record":
            with (folder / data["results"][0]["history"]).open("a", encoding="utf-8") as file:
                file.write('{"kind": "Rumour", "at": 1.0, "client": ""}\n')


DAMAGES = {
    "no run.json": "no run.json in it",
    "cut": "run.json: Invalid JSON",
    "binary": "run.json: Invalid JSON",
    "no results": "has no results",
    "a result of another shape": "results.1.violations",
    "elsewhere": "outside of the run directory",
    "no history": "cannot be read: No such file",
    "an empty history": "is empty",
    "a cut history": "is damaged",
    "another kind of record": "'Rumour' is no kind of Record",
}
PARTIAL = ("no history", "an empty history", "a cut history", "another kind of record")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_directory_gives_one_line(folder: Path, tmp_path: Path, how: str) -> None:
    """The line names the file and what is wrong with it; the exit status is not 0, and no page
    is written."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    damage(copy, how)
    code, output = report(str(copy))
    assert code == 1
    assert output.startswith("Error: ")
    assert DAMAGES[how] in output
    assert output.count("\n") == 1
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize("how", PARTIAL)
def test_the_rest_of_a_partial_directory_is_reported_on_request(
    folder: Path, tmp_path: Path, how: str
) -> None:
    """With --partial the page has every result, and says where a history is not complete."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    damage(copy, how)
    assert report(str(copy), "--partial")[0] == 0
    page = Page((copy / "report.html").read_text("utf-8"))
    assert len(page.with_class("scenario")) == 7
    assert page.text.count("The history is not complete") == 1


def test_a_place_that_is_none_gives_one_line(tmp_path: Path) -> None:
    """Neither a directory that is not there nor a file to write that cannot be is a traceback."""
    code, output = report(str(tmp_path / "nowhere"))
    assert (code, output.count("\n")) == (1, 1)
    assert "no such directory" in output


# Words


def judged(name: str, *, ok: bool, expected: str = "safe") -> Result:
    return Result(scenario=name, expected=expected, observed=expected if ok else "violated", ok=ok)


def test_the_verdict_is_one_sentence() -> None:
    """It counts, names what did not end as expected, and tells controls from scenarios; peers do
    not count."""
    good = [
        judged("S01", ok=True),
        judged("S02", ok=True),
        judged("C1", ok=True, expected="must fail"),
    ]
    assert (
        words.verdict(good)
        == "both scenarios ended as expected, and the one control failed as it must."
    )
    bad = [*good, judged("S03", ok=False), judged("C2", ok=False, expected="must fail")]
    assert (
        words.verdict(bad)
        == "1 of 3 scenarios did not end as expected (S03), and 1 of 2 controls did not fail, and"
        " must (C2)."
    )
    peer = Result(
        scenario="S09", client_kind="pottery", expected="safe", observed="violated", ok=False
    )
    assert words.verdict([*good, peer]) == words.verdict(good)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.99999, "99.9 %"),
        (0.995, "99.5 %"),
        (0.0, "0 %"),
        (0.00001, "0.1 %"),
        (0.5, "50 %"),
    ],
)
def test_a_share_is_all_only_if_it_is(share: float, text: str) -> None:
    """Rounding never makes a failure disappear."""
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"),
        (0.0000004, "0.4 µs"),
        (0.0021, "2.10 ms"),
        (0.000999999, "1.00 ms"),
        (0.0123456, "12.3 ms"),
        (0.9999999, "1.00 s"),
        (1.5, "1.50 s"),
        (-0.5, "-500 ms"),
        (59.99, "1.00 min"),
        (90, "1.50 min"),
        (5400, "1.50 h"),
    ],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    """Three digits each, and zero alone is written as zero."""
    assert words.duration(seconds) == text


def test_numbers_of_any_shape_are_words() -> None:
    """What a run measured and this reader does not know is shown as well; what it did not
    measure is not."""
    metrics = {
        "new_thing": 3,
        "acquire": {"before": {"p50": 0.001}, "after": {}},
        "overlap_ms": 0.0,
        "availability": {"during": None},
    }
    shown = dict(words.numbers(metrics))
    assert shown["new thing"] == "3"
    assert shown["acquire, before"] == "p50 1.00 ms"
    assert shown["two holders at once"] == "0"
    assert "acquire, after" not in shown
