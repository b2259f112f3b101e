"""The order in which tests run: each once, what belongs together in one go, waiting ones evenly among the others."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Machine
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


@pytest.mark.skipif(sys.platform == "win32", reason="locks of files as of POSIX")
@pytest.mark.parametrize("alone", [True, False])
def test_two_runs_that_share_a_machine_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """Who needs the machine to himself has it, whichever run he is of; the others run together."""
    monkeypatch.setenv("STREP_TESTS_LOCKS", str(tmp_path))
    one, other = (Machine(SimpleNamespace(workerinput={"testrunuid": name})) for name in ("one", "other"))  # type: ignore[arg-type]
    one._lock(alone)
    waiting = threading.Thread(target=other._lock, args=(not alone,))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    one._unlock()
    waiting.join(100)
    assert not waiting.is_alive()
    other._unlock()
    for machine in (one, other):
        machine._lock(alone=False)
    for machine in (one, other):
        machine.pytest_unconfigure()
    assert len(list(tmp_path.iterdir())) == 2  # whoever ends first leaves them to the other
