"""How deep tests go: a part of it every time, everything with ``--run-slow`` (conftest), as ``.ci/nightly`` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

slow = False  # set by conftest before the first test module is imported


def usual_or_slow(usual: T, slowly: T) -> T:
    return slowly if slow else usual


def one_or_all(ways: Sequence[T], rng: np.random.Generator) -> Sequence[T]:
    """One of the ways in which an example is tried, by chance; with ``--run-slow`` all of them."""
    return ways if slow else [ways[int(rng.integers(len(ways)))]]
