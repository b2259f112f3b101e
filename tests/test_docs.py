"""What the documentation names exists, and what a package index gets shows its pictures."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SOURCES = [
    "/" + p.relative_to(ROOT).as_posix() for p in [*(ROOT / "strep").rglob("*"), *(ROOT / "tests").rglob("*.py")]
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`((?:[a-z_\d.]+/)*[a-z_\d]+\.py|(?:_?[a-z]+/)+)(?:::\w+)?`", page.read_text()):
        found = [path for path in SOURCES if path.endswith("/" + name.rstrip("/"))] or (ROOT / name).exists()
        assert found, f"{page.name} names {name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def metadata(home: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("STREP_HOME", home)
    told: dict[str, Any] = {}
    module.HomeHook(str(ROOT), {}).update(told)
    return told


def test_an_index_shows_the_pictures_and_links_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    told = metadata("https://example.org/acme/strep/", monkeypatch)
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", told["readme"]["text"])
    assert ("!", "https://example.org/acme/strep/raw/main/docs/call.png") in links
    assert all(link.startswith(("https://", "#")) for _, link in links)
    assert set(told["urls"]) == {"Homepage", "Documentation", "Changelog", "Issues"}


def test_without_a_home_nothing_is_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    told = metadata("", monkeypatch)
    assert told["urls"] == {}
    assert told["readme"]["text"] == (ROOT / "README.md").read_text("utf-8")


def test_programs_in_the_guides_are_examples_which_the_tests_run() -> None:
    """A program that only stands in a text is run by nobody."""
    included = []
    for page in (ROOT / "docs").rglob("*.md"):
        for program in re.findall(r"```python[^\n]*\n(.*?)```", page.read_text(), re.DOTALL):
            source = re.fullmatch(r"--8<--\n(examples/\w+\.py)\n--8<--\n", program)
            assert source is not None, f"{page.name} has code of its own: {program}"
            assert (ROOT / source[1]).is_file(), source[1]
            included.append(source[1])
    assert included
