"""What waits to be written is kept as it came, and arrays are let go when nothing of them waits."""

from __future__ import annotations

import ctypes
import gc
import weakref
from random import Random

import numpy as np
import numpy.typing as npt
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st

from strep.sinks.wav.tails import Tails

_ROWS = 4
_lengths = st.lists(st.integers(0, 30), min_size=_ROWS, max_size=_ROWS)
_append = st.tuples(st.just("append"), st.sets(st.integers(0, _ROWS - 1), min_size=1), _lengths)
_clear = st.tuples(st.just("clear"), st.sets(st.integers(0, _ROWS - 1)), _lengths)
_take = st.tuples(st.just("take"), st.sets(st.integers(0, _ROWS - 1), max_size=1), _lengths)
_grow = st.tuples(st.just("grow"), st.just(set()), _lengths)


def _gathered(tails: Tails, rows: list[int], behind: npt.NDArray[np.uint8] | None = None) -> list[bytes]:
    more = None if behind is None else np.full(len(rows), behind.ctypes.data, np.uint64)
    length = None if behind is None else np.full(len(rows), behind.nbytes)
    pieces, count = tails.pieces(np.array(rows), more, length)
    return [
        b"".join(ctypes.string_at(int(at), int(size)) for at, size in row[:n])
        for row, n in zip(pieces, count.tolist(), strict=True)
    ]


@settings(max_examples=usual_or_slow(60, 2000), deadline=None)
@given(st.lists(st.one_of(_append, _append, _append, _clear, _take, _grow), max_size=60), st.randoms())
def test_what_waits_is_what_came(steps: list[tuple[str, set[int], list[int]]], random: Random) -> None:
    tails, wanted = Tails(), [b""] * _ROWS
    seen: list[weakref.ref[npt.NDArray[np.uint8]]] = []
    tails.grow(_ROWS)
    behind = np.arange(7, dtype=np.uint8)
    for what, rows, length in steps:
        chosen = sorted(rows)
        if what == "grow":
            tails.grow(len(tails.held) + 3)
        elif what == "append":
            data = np.frombuffer(random.randbytes(200), np.uint8).copy()
            seen.append(weakref.ref(data))
            begin = [17 * row + 3 for row in chosen]
            tails.append(np.array(chosen), data, np.array(begin), np.array([length[row] for row in chosen]))
            for row, at in zip(chosen, begin, strict=True):
                wanted[row] += data[at : at + length[row]].tobytes()
            del data
        elif what == "clear":
            tails.clear(np.array(chosen, np.int64))
            for row in chosen:
                wanted[row] = b""
        for row in chosen if what == "take" else ():
            assert tails.take(row) == wanted[row]
            wanted[row] = b""
        assert tails.held[:_ROWS].tolist() == [len(one) for one in wanted]
        assert _gathered(tails, [*range(_ROWS)]) == wanted
        assert _gathered(tails, [2, 0], behind) == [wanted[row] + behind.tobytes() for row in (2, 0)]
    tails.clear(np.arange(_ROWS))
    gc.collect()
    assert [one() for one in seen if one() is not None] == []


def test_many_small_pieces_become_one() -> None:
    tails = Tails()
    tails.grow(1)
    data = [np.full(3, n, np.uint8) for n in range(100)]
    for one in data:
        tails.append(np.zeros(1, np.int64), one, np.zeros(1, np.int64), np.array([3]))
    assert tails.pieces(np.zeros(1, np.int64))[0].shape[1] < 30
    assert tails.take(0) == b"".join(one.tobytes() for one in data)
