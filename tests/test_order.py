"""The order in which tests run: each once, what belongs together in one go, waiting ones evenly among the others."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import pytest
from order import REPEATED, TOGETHER, repeated, spread, unit
from places import ROOT


@dataclass(frozen=True)
class Named:
    nodeid: str
    waits: bool = False


def test_waiting_tests_stand_evenly_among_the_others_and_none_is_lost() -> None:
    alone = [Named(f"tests/a/test_a.py::test_{n}[{p}]", waits=n < 10) for n in range(40) for p in "xy"]
    together = [Named(f"tests/{module}::test_{n}", waits=True) for module in TOGETHER for n in range(3)]
    found = spread([*alone, *together], lambda item: item.waits)
    assert sorted(item.nodeid for item in found) == sorted(item.nodeid for item in [*alone, *together])
    units = [name for name, _ in itertools.groupby(unit(item.nodeid) for item in found)]
    assert len(units) == len(set(units)) == 40 + len(set(TOGETHER.values()))
    assert units[:-40] == list(dict.fromkeys(TOGETHER.values()))
    rest = [item.waits for item in found[len(together) :: 2]]
    assert [sum(rest[n : n + 4]) for n in range(0, 40, 4)] == [1] * 10


@pytest.mark.parametrize("module", [*TOGETHER, *REPEATED])
def test_what_the_tables_name_is_there(module: str) -> None:
    text = (ROOT / "tests" / module).read_text()
    for name in REPEATED.get(module, ()):
        assert re.search(rf"@pytest.mark.sockets\n(@.*\n)*(async )?def {name}\(", text), name
        assert repeated(f"tests/{module}::{name}[x]")
        assert not repeated(f"tests/{module}::{name}_not")
