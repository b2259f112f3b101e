"""The key table against a dict, under any history; and keys made to collide."""

from __future__ import annotations

import numpy as np
from depth import usual_or_slow
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from strep._engine.sources.key_table import KeyTable

CAPACITY = 12
keys = st.tuples(*(st.sampled_from([0, 1, 2, 1 << 32, 1 << 63, (1 << 64) - 1]) for _ in range(3)))


def columns(some: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    return tuple(np.array([key[i] for key in some], np.uint64) for i in range(3))


class TableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = KeyTable(CAPACITY, seed=5)
        self.model: dict[tuple[int, int, int], int] = {}

    @rule(some=st.lists(keys, min_size=1, max_size=6, unique=True))
    def add(self, some: list[tuple[int, int, int]]) -> None:
        free = [row for row in range(CAPACITY) if row not in self.model.values()]
        new = [key for key in some if key not in self.model][: len(free)]
        if new:
            self.table.add(np.array(free[: len(new)]), *columns(new))
            self.model.update(zip(new, free, strict=False))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            gone = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, unique=True))
            self.table.remove(np.array([self.model.pop(key) for key in gone]))

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    @rule(some=st.lists(keys, min_size=1, max_size=20))
    def find(self, some: list[tuple[int, int, int]]) -> None:
        assert self.table.find(*columns(some)).tolist() == [self.model.get(key, -1) for key in some]

    @invariant()
    def as_many(self) -> None:
        assert len(self.table) == len(self.model)
        assert all(self.table.key(row) == key for key, row in self.model.items())


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=usual_or_slow(25, 60), stateful_step_count=40, deadline=None)


def test_twenty_thousand_keys_that_differ_in_any_bit() -> None:
    rng = np.random.default_rng(8)
    n = 20_000
    hi, lo, tag = (rng.integers(0, 1 << 63, n, dtype=np.uint64) for _ in range(3))
    table = KeyTable(n)
    table.add(np.arange(n), hi, lo, tag)
    np.testing.assert_array_equal(table.find(hi, lo, tag), np.arange(n))
    bit = np.uint64(1) << rng.integers(0, 64, n, dtype=np.uint64)
    for changed in ((hi ^ bit, lo, tag), (hi, lo ^ bit, tag), (hi, lo, tag ^ bit)):
        assert (table.find(*changed) == -1).all()


def test_tables_of_different_seeds_place_keys_differently() -> None:
    """Who crafts keys for one table finds them spread in the next: the hash is seeded at random."""
    n = 2000
    hi = np.arange(n, dtype=np.uint64)
    zero = np.zeros(n, np.uint64)
    tables = [KeyTable(n), KeyTable(n)]
    for table in tables:
        table.add(np.arange(n), hi, zero, zero)  # which gives it its size
    places = [table._hash(hi, zero, zero) for table in tables]
    assert np.count_nonzero(places[0] == places[1]) < 20
    # and consecutive keys do not crowd: at most a handful share a slot
    assert np.bincount(places[0]).max() <= 8
