"""Keys that somebody chose are found as fast as random ones, whatever the table's secret is. faults.md 24."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from strep._engine.sources.key_table import KeyTable

KEYS = 8192
SECRETS = 20

Words = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]


def chosen(kind: str) -> Words:
    """hi, lo and tag, (KEYS,)."""
    count, zero = np.arange(KEYS, dtype=np.uint64), np.zeros(KEYS, np.uint64)
    if kind == "random":
        rng = np.random.default_rng(1)
        return tuple(rng.integers(0, 1 << 64, KEYS, np.uint64, endpoint=False) for _ in range(3))  # type: ignore[return-value]
    where, _, step = kind.partition(" << ")
    stepped = count << np.uint64(int(step or 0))
    return stepped if where == "hi" else zero, stepped if where == "lo" else zero, stepped if where == "tag" else zero


def steps(secret: int, words: Words) -> npt.NDArray[np.int64]:
    """How many slots behind its own each key stands; they come in batches, as they do from sockets."""
    table = KeyTable(KEYS, secret)
    rows = np.arange(len(words[0]))
    for begin in range(0, len(rows), 1024):
        part = slice(begin, begin + 1024)
        table.add(rows[part], *(word[part] for word in words))
    np.testing.assert_array_equal(table.find(*words), rows)
    return (table._slot_of[rows] - table._hash(*words)) & (table._size - 1)


@pytest.fixture(scope="module")
def random_steps() -> float:
    return float(np.mean([steps(secret, chosen("random")).mean() for secret in range(SECRETS)]))


@pytest.mark.parametrize(
    "kind",
    ["lo", "lo << 20", "lo << 40", "lo << 48", "hi << 40", "hi << 48", "tag << 3", "tag << 32", "tag << 48"],
)
def test_chosen_keys_stand_no_further_from_their_slots_than_random_ones(kind: str, random_steps: float) -> None:
    """Ids in steps, and consecutive SSRCs (which are the tag's upper half): the worst of all secrets."""
    words = chosen(kind)
    worst = max(float(steps(secret, words).mean()) for secret in range(SECRETS))
    assert worst <= 1.2 * random_steps


def test_what_one_adversary_learns_of_one_table_is_worth_nothing_on_another() -> None:
    """Keys that fall into one slot of a table whose secret is known stand apart in any other."""
    known = KeyTable(KEYS, 1)
    rng = np.random.default_rng(2)
    many = rng.integers(0, 1 << 63, 100_000, np.uint64)
    zero = np.zeros(len(many), np.uint64)
    together = many[np.argsort(known._hash(many, zero, zero), kind="stable")][:400]
    found = [steps(secret, (together, zero[:400], zero[:400])).mean() for secret in (1, 2)]
    assert found[0] > 100  # they do fall together there
    assert found[1] < 0.5
