"""What may import what. docs/design.md shows the same rule as a table; this checks both."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from places import ROOT

import strep

PACKAGE = Path(strep.__file__).parent

MODEL = {"_model"}
# each station, and the others that it may import: folders, or single modules of them
MAY_IMPORT: dict[str, set[str]] = {
    "_model": set(),
    "_threads": MODEL,
    "quality": {*MODEL, "_codecs"},
    "resample": MODEL,
    "_parser": MODEL,
    "_codecs": {*MODEL, "resample"},
    "_speech": {*MODEL, "resample"},
    "_engine": {*MODEL, "_parser", "_codecs"},
    "_edge": MODEL,
    "wire": {*MODEL, "_codecs"},
    "_nats": MODEL,
    "schemas": set(),
    "sinks": {*MODEL, "_threads", "_codecs", "_speech", "resample", "quality", "wire", "_nats"},
    "_delivery": {*MODEL, "_threads", "_codecs", "_speech", "resample", "sinks.base", "sinks.guarded"},
    "_receiver": {*MODEL, "_threads", "_edge", "_codecs", "_engine", "_delivery", "sinks.base"},
    "_workers": {*MODEL, "_threads", "_edge", "_receiver", "_delivery", "sinks"},
    "simulate": {*MODEL, "_parser", "_codecs", "_edge", "resample"},
    "standin": {*MODEL, "_parser", "_codecs", "_edge", "simulate", "resample"},
    "control": {*MODEL, "_edge", "_delivery", "_receiver", "_version"},
    "catalogue": MODEL,
    "service": {*MODEL, "_receiver", "control", "sinks"},
    "integrations": {*MODEL, "_delivery", "_speech", "resample"},
    "plot": {*MODEL, "_codecs", "resample", "sinks"},
    "remote": {*MODEL, "_threads", "_delivery", "sinks.base", "wire", "_nats"},
    "metrics": {*MODEL, "_receiver", "_workers", "control"},
}
EVERYTHING = {"bench", "cli", "__init__", "__main__", "_version"}
PURE = {"_model", "_parser", "_codecs", "_engine", "_speech", "quality", "resample", "wire"}
OUTER_WORLD = {
    "asyncio", "click", "httpx", "os", "rich", "select", "signal", "socket", "subprocess", "threading", "time",
    "uvloop",
}  # fmt: skip
LONGEST_CHAIN = 13
AT_THE_ROOT = 10


def modules() -> dict[str, Path]:
    """Every module by its name within the package; packages by the name of their folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imports(name: str, *, deferred: bool = True) -> tuple[set[str], set[str]]:
    """What a module imports: of ours, and of others. Without ``deferred``: only what it imports when it is imported."""
    path = MODULES[name]
    package = ["strep", *path.relative_to(PACKAGE).parts[:-1]]
    ours: set[str] = set()
    others: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[1 : len(package) - node.level + 1] + (node.module or "").split(".") * bool(node.module)
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                ours.add(whole if whole in MODULES else ".".join(base) or "__init__")
    return ours - {name}, others


def test_each_station_imports_only_what_it_may() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(MAY_IMPORT) | EVERYTHING
    for name in MODULES:
        station = name.partition(".")[0]
        ours, others = imports(name)
        assert "strep" not in others, f"{name}: import our own modules relative to it"
        if station in PURE:
            assert not others & OUTER_WORLD, f"{name} is pure, but imports {others & OUTER_WORLD}"
        if station in EVERYTHING:
            continue
        allowed = {station, *MAY_IMPORT[station]}
        for other in ours:
            assert other in allowed or other.partition(".")[0] in allowed, f"{name} may not import {other}"


def test_the_page_on_design_shows_the_same_rule() -> None:
    shown: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        cells = line.split(" | ")
        stations = re.findall(r"`(\w+)(?:/|\.py)`", cells[0])
        if line.startswith("| `") and len(cells) == 3 and stations:
            shown |= {station: set(re.findall(r"`([\w.]+)`", cells[2])) for station in stations}
    assert shown.pop("bench") == shown.pop("cli") == set()  # anything
    assert shown == MAY_IMPORT


def test_there_is_no_circle_even_among_imports_for_types() -> None:
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, "a circle: " + " > ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(imports(name)[0]):
                visit(other, [*way, name])
            done.add(name)

    for name in MODULES:
        visit(name, [])


def test_chains_of_imports_are_short() -> None:
    longest: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in longest:
            below = [chain(other) for other in imports(name, deferred=False)[0]]
            longest[name] = [name, *max(below, key=len, default=[])]
        return longest[name]

    worst = max((chain(name) for name in MODULES), key=len)
    assert len(worst) <= LONGEST_CHAIN, " > ".join(worst)


def test_the_root_shows_the_way() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= AT_THE_ROOT
