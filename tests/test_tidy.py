"""What the source itself must keep to: who may import whom, no clock and no I/O in the core, a
docstring for what is public, and no citation that leads nowhere.

Reads the files with `ast` and runs nothing of them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).resolve().parent.parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("redlock.errors", "redlock._here", "redlock.fakes"),
    ("redlock.core",),
    ("redlock.transport",),
    ("redlock.observe", "redlock.fencing", "redlock.options", "redlock.ledger"),
    (
        "redlock.base",
        "redlock.initialise",
        "redlock.diagnose",
        "redlock.operate",
        "redlock.decorating",
    ),
    ("redlock.hardstop",),
    ("redlock.electing", "redlock.election", "redlock.asyncio_election"),
    ("redlock.client", "redlock.asyncio", "redlock.embedded", "redlock.testing"),
    ("redlock.tenure", "redlock.terminal"),
    ("redlock.supervise",),
    ("redlock",),
    ("redlock.demo", "redlock.pytest_plugin"),
    ("redlock.cli",),
    ("redlock.__main__",),
)
"""From the bottom to the top. A module belongs where its longest prefix stands, and imports
nothing from further up; inside a layer there are no circles. Imports for the type checker alone,
and inside functions, count like all others."""

FORBIDDEN: dict[str, tuple[str, ...]] = {
    "redlock.core": (
        *(
            "time",
            "socket",
            "selectors",
            "select",
            "ssl",
            "asyncio",
            "threading",
            "secrets",
            "random",
            "os",
        ),
        *(
            "datetime",
            "signal",
            "subprocess",
            "logging",
            "concurrent",
            "multiprocessing",
            "redis",
            "hiredis",
        ),
        *(
            "redlock.transport",
            "redlock.client",
            "redlock.asyncio",
            "redlock.base",
            "redlock.observe",
        ),
    ),
    "redlock.transport": ("redlock.client", "redlock.asyncio", "redlock.base", "random", "secrets"),
    "redlock": ("chaos", "tests", "benchmarks"),
}
"""What the modules below a name must not import."""


@cache
def sources() -> dict[str, tuple[Path, ast.Module]]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted((ROOT / "redlock").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text("utf-8"), str(path)))
    return found


MODULES = sorted(sources())


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def imported(module: str) -> Iterator[tuple[str, int]]:
    """The modules that *module* imports anywhere, and the lines."""
    path, tree = sources()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield (full if full in sources() else source), node.lineno


def layer_of(module: str) -> int:
    """The layer that names the longest prefix of *module*."""
    fitting = [
        (len(prefix), level)
        for level, layer in enumerate(LAYERS)
        for prefix in layer
        if is_below(module, prefix)
    ]
    return max(fitting)[1]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """No module imports from a layer above its own."""
    level = layer_of(module)
    upward = [
        f"line {line}: {name}"
        for name, line in imported(module)
        if is_below(name, "redlock") and layer_of(name) > level
    ]
    assert not upward, f"{module} imports from further up: {upward}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_forbidden_is_imported(module: str) -> None:
    """The core has no clock, no socket, no thread and no dice; nothing that ships needs what
    only tests it."""
    banned = [
        name for prefix, names in FORBIDDEN.items() if is_below(module, prefix) for name in names
    ]
    found = [
        f"line {line}: {name}"
        for name, line in imported(module)
        for ban in banned
        if is_below(name, ban)
    ]
    assert not found, f"{module} must not import {found}"


def circles(uses: Mapping[str, set[str]]) -> list[str]:
    """Which modules, of those that *uses* names with what each imports, stand in a circle or
    between two of them."""
    left = {module: names - {module} for module, names in uses.items()}

    def without_ends(left: dict[str, set[str]]) -> dict[str, set[str]]:
        while ends := [module for module, names in left.items() if not names & left.keys()]:
            left = {module: names for module, names in left.items() if module not in ends}
        return left

    left = without_ends(left)
    used_by = {
        module: {other for other, names in left.items() if module in names} for module in left
    }
    return sorted(without_ends(used_by))


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Every module can be read, and imported, before those that use it; the type checker's
    imports are read as well."""
    # A package's `__init__` runs before its modules; the public one imports everything, and nothing
    # below imports from it.
    uses = {module: {name for name, _ in imported(module)} for module in MODULES}
    assert not circles(uses), f"these modules import each other: {circles(uses)}"


@pytest.mark.parametrize(
    ("uses", "found"),
    [
        ({"a": {"b", "time"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, ["a", "b"]),
        ({"top": {"a"}, "a": {"b"}, "b": {"c"}, "c": {"a", "end"}, "end": set()}, ["a", "b", "c"]),
    ],
)
def test_a_circle_is_found(uses: dict[str, set[str]], found: list[str]) -> None:
    """It is told without those who only use it, or are used."""
    assert circles(uses) == found


def test_an_import_is_found_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the type checker alone, in a function, relative, and a module that is imported by its
    name in its package."""
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from redlock.transport.link import Link
def late():
    import redlock.cli
from .acquire import Acquisition
from redlock.core import events
"""
    planted = {
        "redlock.core.planted": (Path("planted.py"), ast.parse(text)),
        "redlock.core.events": sources()["redlock.core.events"],
    }
    monkeypatch.setitem(globals(), "sources", lambda: planted)
    found = {name for name, _ in imported("redlock.core.planted")}
    assert found == {
        "typing",
        "redlock.transport.link",
        "redlock.cli",
        "redlock.core.acquire",
        "redlock.core.events",
    }


def test_every_layer_and_ban_names_something() -> None:
    """A prefix that matches no module any more guards nothing; modules that are still to come
    are listed here."""
    to_come = {"redlock.fencing"}
    named = {prefix for layer in LAYERS for prefix in layer} | set(FORBIDDEN)
    assert {
        prefix for prefix in named if not any(is_below(module, prefix) for module in MODULES)
    } <= to_come


@pytest.mark.parametrize("module", MODULES)
def test_nothing_reads_the_wall_clock_by_time_time(module: str) -> None:
    """Neither called nor passed on: a lease clock must not jump, and tokens take the wall clock
    in whole microseconds."""
    path, tree = sources()[module]
    assert "time.time(" not in path.read_text("utf-8")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns"):
            assert ast.unparse(node.value) != "time", f"{module}, line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert not {"time", "time_ns"} & {alias.name for alias in node.names}, (
                f"{module}, line {node.lineno}"
            )


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the package by its bare name."""
    return {
        node.name: node
        for _, tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def explained_above(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class says what *method* is for; a base that is not ours is taken to."""
    for base in owner.bases:
        name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
        if name in ("Protocol", "Generic", "object", "Enum"):
            continue
        known = classes().get(name)
        if known is None or explained_above(known, method):
            return True
        if any(
            isinstance(node, Definition) and node.name == method and ast.get_docstring(node)
            for node in known.body
        ):
            return True
    return False


def unexplained(body: list[ast.stmt], owner: ast.ClassDef | None, path: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        name = f"{path}.{node.name}"
        setter = any(
            ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list
        )
        overload = any(
            ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list
        )
        if (
            not ast.get_docstring(node)
            and not setter
            and not overload
            and not (owner and explained_above(owner, node.name))
        ):
            yield name
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node.body, node, name)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    """Modules, classes, functions and methods; one that overrides is explained by what it
    overrides."""
    _, tree = sources()[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    assert not list(unexplained(tree.body, None, module))


CITING = ("redlock", "chaos", "tests", "benchmarks", "deploy", "docs", "examples")
PROTOCOL, FAILURES = "docs/protocol.md", "docs/failure-modes.md"
_FAILURE = re.compile(r"\bF\d{1,2}\b")
_PROPERTY = re.compile(r"\bI\d{1,2}\b")
_DOCUMENT = re.compile(
    r"(?<![\w\"'/*.-])((?:\.\./)*(?:[\w-]+/)*[\w-]+\.md)\b(?:,?\s(?:section\s)?(\d+(?:\.\d+)?))?"
)
_LINK = re.compile(r"\]\((?!https://)([^)#:\s]+)[^)\s]*\)")
_SECTION = re.compile(r"\((\d{1,2}\.\d{1,2})(?=[):,])|\b[Ss]ections?\s(\d+(?:\.\d+)?)\b")
_OUTSIDE = re.compile(r"\b(?:DESIGN|STYLE\.md|facts)\b|(?<![\w/])shared/")
"""Notes of those who began this, which are not in the repository."""


@cache
def cited() -> dict[Path, str]:
    """The text of every file that may cite a document."""
    found = [
        path
        for folder in CITING
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".lua", ".json")
    ]
    ours = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    return {path: path.read_text("utf-8") for path in sorted([*ours, *ROOT.glob("*.md")])}


@cache
def numbers(document: str) -> frozenset[str]:
    """What a citation of *document* may name: numbers of sections, of failures, and of
    properties in a table."""
    found = re.findall(
        r"^(?:#+|\|) ([FI]?\d+(?:\.\d+)?)(?:\. | )",
        (ROOT / document).read_text("utf-8"),
        re.MULTILINE,
    )
    return frozenset(found)


def prose(path: Path, text: str) -> str:
    """What of a file is meant for people: of a module its comments and docstrings."""
    if path.suffix != ".py":
        return text
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    alone = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    return "\n".join(
        [*comments, *(str(each.value) for each in alone if isinstance(each, ast.Constant))]
    )


def wrong_citations(path: Path, text: str) -> Iterator[str]:
    """What *text*, which stands in *path*, cites and nobody can open."""
    yield from (name for name in _FAILURE.findall(text) if name not in numbers(FAILURES))
    yield from (name for name in _PROPERTY.findall(text) if name not in numbers(PROTOCOL))
    if _OUTSIDE.search(text):  # To tell prose from code takes ten times as long as all the rest.
        yield from (found[0] for found in _OUTSIDE.finditer(prose(path, text)))
    for name, section in _DOCUMENT.findall(text):
        place = next(
            (place for place in (ROOT / name, path.parent / name) if place.is_file()), None
        )
        if place is None:
            yield name
        elif section and numbers(str(place)) and section not in numbers(str(place)):
            yield f"{name} {section}"
    if path.suffix == ".md":
        yield from (name for name in _LINK.findall(text) if not (path.parent / name).exists())
    if path == ROOT / PROTOCOL:
        within = (bracketed or worded for bracketed, worded in _SECTION.findall(text))
        yield from (f"section {section}" for section in within if section not in numbers(PROTOCOL))


def test_every_citation_leads_somewhere() -> None:
    """A number of a failure or a section, or the name of a document, is one that stands in this
    repository."""
    found = {
        str(path.relative_to(ROOT)): sorted(wrong_citations(path, text))
        for path, text in cited().items()
    }
    assert not {path: wrong for path, wrong in found.items() if wrong}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("redlock/core/lease.py", f"# A late release (F{99})."),
        ("redlock/core/lease.py", f"# The store (I{2})."),
        ("redlock/core/lease.py", f"# As {PROTOCOL} {4}.{9} has it."),
        ("redlock/core/lease.py", f"# As {PROTOCOL}, section {99} has it."),
        ("redlock/core/lease.py", f"# As protocol.{'md'} has it."),
        ("redlock/core/lease.py", f"# As {'DESIGN'}, section 3."),
        ("redlock/core/lease.py", f'"""As measured ({"facts"} 5.3)."""'),
        ("chaos/README.md", f"The project's {'facts'} have it."),
        ("chaos/README.md", f"See [the rest](nowhere.{'md'})."),
        (PROTOCOL, f"As proved ({4}.{9})."),
    ],
)
def test_a_wrong_citation_is_found(path: str, text: str) -> None:
    """Each kind, where it would stand."""
    assert list(wrong_citations(ROOT / path, text))


def test_a_right_citation_is_not_taken_for_a_wrong_one() -> None:
    """Nor is the name of a file that the code is about to write, or a variable."""
    text = (
        f'facts = "NOTHING.md"  # {PROTOCOL} 9.1, and {FAILURES}; F17, and the {PROTOCOL} itself.\n'
    )
    assert not list(wrong_citations(ROOT / "redlock/core/lease.py", text))


def test_what_guards_against_a_failure_exists() -> None:
    """Every test, bug, mutant, way and scenario that an entry of the failure modes names; and
    every place in the code."""
    text = cited()[ROOT / FAILURES]
    sources = "\n".join(source for path, source in cited().items() if path.suffix == ".py")
    guards = re.findall(r"^- Guards: (.*?)\n\n", f"{text}\n\n", re.MULTILINE | re.DOTALL)
    assert len(guards) > 50
    for guard in guards:
        names = re.findall(
            r"`([^`]+)`|\"([^\"]+)\"|\b([SAC]\d{1,2}[a-z]?)\b", " ".join(guard.split())
        )
        missing = [
            name
            for name in map("".join, names)
            if f"def {name}(" not in sources and f'"{name}"' not in sources
        ]
        assert names and not missing, f"nobody finds {missing or guard}"
    for path, _, names in re.findall(r"`((?:redlock|chaos|deploy)/[\w./-]+)(: ([^`]+))?`", text):
        source = (ROOT / path).read_text("utf-8")
        for name in filter(None, names.split(", ")):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", source), f"{path} has no {name}"


FUNCTION_MAX, MODULE_MAX = 40, 400
"""Lines of one piece that somebody has to read at once."""


def too_long(source: str) -> list[str]:
    """Functions, and the module itself, that are longer than they should be and do not say why:
    `# Long: ...` beside them."""
    lines = source.split("\n")
    found = (
        ["the module"]
        if len(lines) - 1 > MODULE_MAX and not any(line.startswith("# Long: ") for line in lines)
        else []
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            says_why = any(
                line.strip().startswith("# Long: ") for line in lines[max(0, first - 4) : first - 1]
            )
            if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_MAX and not says_why:
                found.append(node.name)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_what_is_long_says_why(module: str) -> None:
    """A function of more than a screen, a module of more than a few hundred lines: there is a
    reason, and it stands beside it."""
    long = too_long(sources()[module][0].read_text("utf-8"))
    assert not long, f"{module}: {long} is long, and says nothing of it"


def test_what_is_too_long_is_found() -> None:
    """A function without a reason, and a module; a reason somewhere else is none."""
    body = "    pass\n" * FUNCTION_MAX
    assert too_long(f"def f():\n{body}") == ["f"]
    assert too_long(f"# Long: it is a test.\ndef f():\n{body}") == []
    assert too_long(f"def g():\n    # Long: elsewhere.\n    pass\n\n\n\n\n\ndef f():\n{body}") == [
        "f"
    ]
    assert too_long("pass\n" * (MODULE_MAX + 1)) == ["the module"]


def test_the_files_that_are_begun_first_exist() -> None:
    """A file that was renamed would be begun last, and waited for."""
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
