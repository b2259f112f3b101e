"""Modules that take long to import, only where a test uses them: every worker imports every test module."""

from __future__ import annotations

import importlib
from typing import Any


class Lazily:
    """A module that is imported when something public in it is first asked for; pytest looks for marks in whatever a
    test module holds."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "pytest", "is_hypothesis")):
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)
