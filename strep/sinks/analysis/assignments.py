"""Assignments to arrays that are made when all of them have been worked out: what raises before has changed nothing."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

__all__ = ["Assignments"]


class Assignments:
    """A list of ``array[index] = values`` to be made by :meth:`make`, in the order in which they were added."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[npt.NDArray[Any], Any, npt.NDArray[Any]]] = []

    def add(self, array: npt.NDArray[Any], index: Any, values: npt.NDArray[Any]) -> None:
        self._waiting.append((array, index, values))

    def make(self) -> None:
        for array, index, values in self._waiting:
            array[index] = values
