"""How deep tests go: a fraction every time, everything with ``--run-slow`` (conftest), as ``.ci/nightly`` has it."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

slow = False  # set by conftest before the first test module is imported


def usual_or_slow(usual: T, slowly: T) -> T:
    return slowly if slow else usual
