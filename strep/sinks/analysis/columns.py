"""The state of all streams as columns: one array for each quantity, one row for each stream (``StreamInfo.index``).

Columns of one kind of state stand together in a subclass of :class:`Columns`. They grow together, and a row is cleared
in all of them when another stream takes it.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Columns", "Rows", "column", "rows_of"]

I64 = npt.NDArray[np.int64]
Rows = I64 | slice


class _Layout(NamedTuple):
    """How a column is made: see :func:`column`."""

    dtype: Any
    fill: Any
    shape: tuple[int, ...]
    rows_last: bool

    def filled(self, rows: int, like: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """``rows`` new rows, of the shape and dtype of an array's rows if there is one."""
        shape, dtype = self.shape, self.dtype
        if like is not None:
            shape, dtype = like.shape[:-1] if self.rows_last else like.shape[1:], like.dtype
        return np.full((*shape, rows) if self.rows_last else (rows, *shape), self.fill, dtype)


def column(dtype: Any, fill: object = 0, *, shape: tuple[int, ...] = (), rows_last: bool = False) -> Any:
    """A column of a :class:`Columns`.

    ``fill`` is what stands in rows that no stream has. ``shape`` is the shape of one row's values. ``rows_last``: the
    array is (*shape, rows) instead of (rows, *shape), so that each part of it is contiguous over the streams.
    """
    return _Layout(dtype, fill, shape, rows_last)


class Columns:
    """Arrays with a row for each stream. ``rows`` is how many rows each of them has.

    A subclass names its columns as ``talk_ns: I64 = column(np.int64)``. A column whose shape or dtype is known only
    later is given to the constructor, as an array without rows. Growing replaces the arrays: keep no reference to one.
    """

    _layouts: ClassVar[dict[str, _Layout]] = {}

    def __init_subclass__(cls) -> None:
        cls._layouts = {name: value for name, value in vars(cls).items() if isinstance(value, _Layout)}

    def __init__(self, rows: int = 0, **arrays: npt.NDArray[Any]) -> None:
        self.rows = 0
        for name, layout in self._layouts.items():
            setattr(self, name, arrays[name] if name in arrays else layout.filled(0))
        if rows:
            self.grow(rows)

    def make_room(self, row: int) -> bool:
        """Grow, to twice the rows at least, when there is no such row. Returns whether the arrays grew."""
        if row < self.rows:
            return False
        self.grow(max(2 * self.rows, row + 1))
        return True

    def grow(self, rows: int) -> None:
        """Make every array ``rows`` rows long. New rows hold the columns' fill values."""
        for name, layout in self._layouts.items():
            old: npt.NDArray[Any] = getattr(self, name)
            axis = -1 if layout.rows_last else 0
            setattr(self, name, np.concatenate([old, layout.filled(rows - self.rows, old)], axis=axis))
        self.rows = rows

    def reset(self, row: int | I64) -> None:
        """Set rows to the fill values."""
        for name, layout in self._layouts.items():
            getattr(self, name)[(..., row) if layout.rows_last else row] = layout.fill

    def save(self, row: I64) -> dict[str, npt.NDArray[Any]]:
        """A copy of some rows, by the names of the columns."""
        return {
            name: getattr(self, name)[(..., row) if layout.rows_last else row] for name, layout in self._layouts.items()
        }

    def restore(self, row: I64, saved: dict[str, npt.NDArray[Any]]) -> None:
        """Write back what :meth:`save` returned for the same rows."""
        for name, layout in self._layouts.items():
            getattr(self, name)[(..., row) if layout.rows_last else row] = saved[name]


def rows_of(row: I64) -> Rows:
    """The same rows as a slice, where they are evenly spaced: columns are then read and written in place."""
    if len(row) < 2:
        return row
    first, step = int(row[0]), int(row[1]) - int(row[0])
    if step <= 0 or int(row[-1]) != first + step * (len(row) - 1) or not bool((row[1:] - row[:-1] == step).all()):
        return row
    return slice(first, int(row[-1]) + 1, step)
