"""State by row: columns grow together, rows are cleared, kept and given back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.sinks.analysis.columns import Columns, column, rows_of


class State(Columns):
    count: npt.NDArray[np.int64] = column(np.int64)
    peer: npt.NDArray[np.int32] = column(np.int32, -1)
    window: npt.NDArray[np.float32] = column(np.float32, np.inf, shape=(3,))
    pair: npt.NDArray[np.float32] = column(np.float32, shape=(2,), rows_last=True)
    sized: npt.NDArray[np.int16] = column(np.float32)
    name: npt.NDArray[np.object_] = column(np.object_, None)


def state(rows: int = 4) -> State:
    return State(rows, sized=np.zeros((0, 5), np.int16))


def shapes(columns: State) -> dict[str, tuple[int, ...]]:
    return {name: getattr(columns, name).shape for name in ("count", "peer", "window", "pair", "sized", "name")}


def test_all_columns_have_as_many_rows() -> None:
    columns = state()
    assert shapes(columns) == {"count": (4,), "peer": (4,), "window": (4, 3), "pair": (2, 4), "sized": (4, 5),
                               "name": (4,)}  # fmt: skip
    assert (columns.peer.dtype, columns.sized.dtype) == (np.int32, np.int16)
    assert columns.peer.tolist() == [-1] * 4
    assert columns.name.tolist() == [None] * 4


def test_what_is_there_stays_when_columns_grow() -> None:
    columns = state()
    columns.count[:] = columns.pair[1] = columns.sized[:, 2] = [1, 2, 3, 4]
    assert not columns.make_room(3)
    assert columns.make_room(4)
    assert columns.rows == 8
    assert columns.make_room(100)
    assert columns.rows == 101
    assert shapes(columns)["pair"] == (2, 101)
    for grown, fill in ((columns.count, 0), (columns.pair[1], 0), (columns.sized[:, 2], 0)):
        assert grown[:4].tolist() == [1, 2, 3, 4]
        assert (grown[4:] == fill).all()
    assert (columns.window == np.inf).all()


@pytest.mark.parametrize("rows", [2, np.array([1, 3])])
def test_rows_are_cleared_and_given_back(rows: int | npt.NDArray[np.int64]) -> None:
    columns, untouched = state(), state()
    rng = np.random.default_rng(1)
    for each in (columns, untouched):
        each.count[:] = [5, 6, 7, 8]
        each.pair[:] = rng.normal(size=2)[:, None]
    where = np.atleast_1d(rows)
    saved = columns.save(where)
    columns.reset(rows)
    assert columns.count[where].tolist() == [0] * len(where)
    assert not columns.pair[:, where].any()
    assert sorted(set(columns.count.tolist()) - {0}) == [n for i, n in enumerate((5, 6, 7, 8)) if i not in where]
    columns.restore(where, saved)
    assert columns.count.tolist() == [5, 6, 7, 8]
    assert (columns.pair[0] == columns.pair[0, 0]).all()
    columns.count[where] = 0
    assert saved["count"].all()  # a copy


@given(st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted))
def test_rows_as_a_slice_are_the_same_rows(rows: list[int]) -> None:
    values = np.arange(31)
    row = np.array(rows, np.int64)
    found = rows_of(row)
    assert values[found].tolist() == rows
    evenly = len(rows) > 1 and len(set(np.diff(rows).tolist())) == 1
    assert isinstance(found, slice) == evenly
