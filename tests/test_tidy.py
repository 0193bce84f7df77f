"""What the source itself must keep to: who may import whom, no clock and no I/O in the core, a docstring for what is public.

Reads the files with `ast` and runs nothing of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("redlock.errors",),
    ("redlock.core", "redlock.policy"),
    ("redlock.observe", "redlock.fencing"),
    ("redlock.transport",),
    ("redlock.base", "redlock.initialise"),
    ("redlock",),
)
"""From the bottom to the top. A module belongs where its longest prefix stands, and imports nothing from further up;
inside a layer there are no circles. An import for the type checker alone may point anywhere."""

FORBIDDEN: dict[str, tuple[str, ...]] = {
    "redlock.core": (
        *("time", "socket", "selectors", "select", "ssl", "asyncio", "threading", "secrets", "random", "os"),
        *("datetime", "signal", "subprocess", "logging", "concurrent", "multiprocessing", "redis", "hiredis"),
        *("redlock.transport", "redlock.client", "redlock.asyncio", "redlock.base", "redlock.observe"),
    ),
    "redlock.policy": ("time", "socket", "asyncio", "threading", "random", "secrets", "os", "redlock.transport"),
    "redlock.transport": ("redlock.client", "redlock.asyncio", "redlock.base", "random", "secrets"),
    "redlock": ("chaos", "tests", "benchmarks"),
}
"""What the modules below a name must not import, type checker or not."""


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


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING`."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imported(module: str, *, types: bool) -> Iterator[tuple[str, int]]:
    """The modules that *module* imports, and the lines; *types*: also those for the type checker alone."""
    path, tree = sources()[module]
    skipped = set() if types else for_types_only(tree)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if node in skipped:
            continue
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
    fitting = [(len(prefix), level) for level, layer in enumerate(LAYERS) for prefix in layer if is_below(module, prefix)]
    return max(fitting)[1]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """No module imports from a layer above its own."""
    level = layer_of(module)
    upward = [
        f"line {line}: {name}"
        for name, line in imported(module, types=False)
        if is_below(name, "redlock") and layer_of(name) > level
    ]
    assert not upward, f"{module} imports from further up: {upward}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_forbidden_is_imported(module: str) -> None:
    """The core has no clock, no socket, no thread and no dice; nothing that ships needs what only tests it."""
    banned = [name for prefix, names in FORBIDDEN.items() if is_below(module, prefix) for name in names]
    found = [f"line {line}: {name}" for name, line in imported(module, types=True) for ban in banned if is_below(name, ban)]
    assert not found, f"{module} must not import {found}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Every module can be read, and imported, before those that use it."""
    uses = {module: {name for name, _ in imported(module, types=False) if name in sources()} - {module} for module in MODULES}
    # A package's `__init__` runs before its modules; the public one imports everything, and nothing imports from it.
    while free := [module for module, names in uses.items() if not names]:
        for module in free:
            del uses[module]
        for names in uses.values():
            names.difference_update(free)
    circle = sorted(module for module in uses if any(module in names for names in uses.values()))
    assert not circle, f"these modules import each other: {circle}"


def test_every_layer_and_ban_names_something() -> None:
    """A prefix that matches no module any more guards nothing; modules that are still to come are listed here."""
    to_come = {"redlock.fencing"}
    named = {prefix for layer in LAYERS for prefix in layer} | set(FORBIDDEN)
    assert {prefix for prefix in named if not any(is_below(module, prefix) for module in MODULES)} <= to_come


@pytest.mark.parametrize("module", MODULES)
def test_nothing_reads_the_wall_clock_by_time_time(module: str) -> None:
    """Neither called nor passed on: a lease clock must not jump, and tokens take the wall clock in whole microseconds."""
    path, tree = sources()[module]
    assert "time.time(" not in path.read_text("utf-8")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns"):
            assert ast.unparse(node.value) != "time", f"{module}, line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert not {"time", "time_ns"} & {alias.name for alias in node.names}, f"{module}, line {node.lineno}"


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the package by its bare name."""
    return {node.name: node for _, tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def explained_above(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class says what *method* is for; a base that is not ours is taken to."""
    for base in owner.bases:
        name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
        if name in ("Protocol", "Generic", "object", "Enum"):
            continue
        known = classes().get(name)
        if known is None or explained_above(known, method):
            return True
        if any(isinstance(node, Definition) and node.name == method and ast.get_docstring(node) for node in known.body):
            return True
    return False


def unexplained(body: list[ast.stmt], owner: ast.ClassDef | None, path: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        name = f"{path}.{node.name}"
        setter = any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
        overload = any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)
        if not ast.get_docstring(node) and not setter and not overload and not (owner and explained_above(owner, node.name)):
            yield name
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node.body, node, name)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    """Modules, classes, functions and methods; one that overrides is explained by what it overrides."""
    _, tree = sources()[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    assert not list(unexplained(tree.body, None, module))
