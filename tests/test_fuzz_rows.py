"""docs/faults.md names tests that exist; and rows of it that other modules do not show."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT, TESTS
from support import MS, T0, Arrival, packet, payload_of, pcmu, run

TABLE = ROOT / "docs" / "faults.md"


def table() -> dict[int, list[str]]:
    """Rows of the table: their columns but the number."""
    rows = (line.strip("|\n ").split("|") for line in TABLE.read_text().splitlines() if re.match(r"\| \d+ \|", line))
    return {int(row[0]): [column.strip() for column in row[1:]] for row in rows}


def names_in(module: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, functions)}


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    rows = table()
    modules = {path.name: path for path in TESTS.rglob("test_*.py")}
    assert len(modules) == len(list(TESTS.rglob("test_*.py"))), "a name in the table would mean two modules"
    assert list(rows) == list(range(1, 72))
    for number, (fault, promise, figure, tests) in rows.items():
        assert fault, number
        assert promise, number
        assert figure, number
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
        assert named or tests in ("later", "—"), (number, tests)
        assert tests.count("`") == 2 * len(named), (number, tests)
        for module, name in named:
            assert name in names_in(modules[module]), (number, module, name)


def test_every_row_that_a_test_names_exists() -> None:
    rows = table()
    named = 0
    for path in TESTS.rglob("*.py"):
        for numbers in re.findall(r"faults\.md ([\d, ]+(?:(?: and | to )\d+)*)", path.read_text()):
            for number in map(int, re.findall(r"\d+", numbers)):
                named += 1
                assert number in rows, (path.name, number)
    assert named > 40


@settings(max_examples=25, deadline=None)
@given(
    before=st.integers(2, 120),
    jump=st.one_of(st.integers(3000, 32_000), st.integers(-32_000, -170)),
    lost=st.sets(st.integers(0, 119), max_size=30),
    gap_ms=st.integers(20, 1000),
)
def test_a_restart_anywhere_loses_two_packets_at_most(before: int, jump: int, lost: set[int], gap_ms: int) -> None:
    """faults.md 7: the sequence begins anew, whatever was missing before, and however long nothing came. It begins
    where it cannot be taken for what is late or lost (RFC 3550 A.1)."""
    old = [n for n in range(before) if n < 2 or n not in lost]
    first = old[-1] + 1 + jump & 0xFFFF
    begin = T0 + old[-1] * 20 * MS + gap_ms * MS
    arrivals = [Arrival(T0 + n * 20 * MS, packet(n)) for n in old]
    arrivals += [
        Arrival(begin + n * 20 * MS, packet(first + n, timestamp=(old[-1] * 160 + gap_ms * 8 + n * 160)))
        for n in range(60)
    ]
    result = run(arrivals)
    audio, report = result.only()
    assert result.totals.delivered >= len(arrivals) - 2
    assert report.restarts == 1
    tail = np.concatenate([pcmu(payload_of(first + n)) for n in range(2, 60)])
    np.testing.assert_array_equal(audio[-len(tail) :], tail)
