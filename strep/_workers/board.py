"""A worker's present figures, in memory that it shares with the parent, so that they outlive it.

The memory has two halves. The worker writes the half that is not published, then publishes it by raising a counter. A
reader copies the published half, and tries again if the counter has moved meanwhile. Nothing here happens per packet,
nor per stream in Python.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.report import StreamReport, report_of
from .._model.types import Codec, GapCause, StreamInfo

__all__ = ["Board", "Columns", "Snapshot", "report_of_row"]

Columns = dict[str, npt.NDArray[Any]]

_CACHE_LINE_BYTES: Final = 64  # the counter and the head of each half have one of their own
_FIGURES_BYTES: Final = 1 << 16  # of JSON: all that is not by stream
_MAX_READS: Final = 1000  # a worker cannot publish that fast

_ROW: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "serial": ("i8", ()),
    "hi": ("u8", ()),  # the stream's key
    "lo": ("u8", ()),
    "tag": ("u8", ()),
    "restart_gap": ("i8", ()),
    "ssrc": ("u4", ()),
    "types_seen": ("?", (128,)),
    "codec": ("i2", ()),
    "first_ext": ("i8", ()),
    "max_ext": ("i8", ()),
    "received": ("i8", ()),
    "expected": ("i8", ()),
    "duplicates": ("i8", ()),
    "reordered": ("i8", ()),
    "late": ("i8", ()),
    "jitter": ("f8", ()),
    "jitter_max": ("f8", ()),
    "jitter_sum": ("f8", ()),
    "jitter_count": ("i8", ()),
    "last_arrival_ns": ("i8", ()),
    "position": ("i8", ()),
    "gap_frames": ("i8", (len(GapCause),)),
    "undecoded": ("i8", ()),
    "timestamp_jumps": ("i8", ()),
    "overlapped": ("i8", ()),
    "sources": ("i8", ()),
    "restarts": ("i8", ()),
    "skew_ppm": ("f8", ()),
    "media_ratio": ("f8", ()),
    "media_ratio_min": ("f8", ()),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was published last. ``columns`` has an array for each figure, with a row for each live stream."""

    generation: int = 0  # which of the worker's processes it is from, from 1; 0: none has published anything
    figures: dict[str, Any] = field(default_factory=dict)  # totals, sinks, and others that are not by stream
    columns: Columns = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["serial"]) if self.columns else 0


class Board:
    """``rows`` streams at most. Made by the parent; the worker opens the same ``fd``."""

    def __init__(self, rows: int, fd: int | None = None) -> None:
        self.rows = rows
        offset, places = _CACHE_LINE_BYTES + _FIGURES_BYTES, {}
        for name, (kind, shape) in _ROW.items():
            places[name] = offset
            offset += (
                -(-rows * int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize // _CACHE_LINE_BYTES)
                * _CACHE_LINE_BYTES
            )
        if fd is None:
            fd = _anonymous_file(_CACHE_LINE_BYTES + 2 * offset)  # takes no memory before it is written to
        self.fd = fd
        self._memory = mmap.mmap(fd, _CACHE_LINE_BYTES + 2 * offset)
        self._counter = np.frombuffer(self._memory, np.int64, 1)
        self._heads: list[npt.NDArray[np.int64]] = []
        self._texts: list[npt.NDArray[np.uint8]] = []
        self._columns: list[Columns] = []
        for begin in (_CACHE_LINE_BYTES, _CACHE_LINE_BYTES + offset):
            self._heads.append(np.frombuffer(self._memory, np.int64, 3, begin))
            self._texts.append(np.frombuffer(self._memory, np.uint8, _FIGURES_BYTES, begin + _CACHE_LINE_BYTES))
            self._columns.append({
                name: np.ndarray((rows, *shape), kind, self._memory, begin + places[name])
                for name, (kind, shape) in _ROW.items()
            })  # fmt: skip

    @property
    def published(self) -> int:
        """How many times something was published so far."""
        return int(self._counter[0])

    def publish(self, generation: int, figures: dict[str, Any], columns: Columns) -> None:
        """``columns`` as of :data:`_ROW`, all of one length of at most ``rows``."""
        half = (int(self._counter[0]) + 1) % 2
        text = json.dumps(figures, default=str).encode()
        if len(text) > _FIGURES_BYTES:  # a sink that reports that much
            text = json.dumps({**figures, "sinks": []}, default=str).encode()
        count = len(columns["serial"])
        self._heads[half][:] = generation, len(text), count
        self._texts[half][: len(text)] = np.frombuffer(text, np.uint8)
        for name, column in self._columns[half].items():
            column[:count] = columns[name]
        self._counter[0] += 1

    def read(self, *, columns: bool = True) -> Snapshot:
        """A copy of what was published last; without ``columns`` only what is not per stream."""
        for _ in range(_MAX_READS):
            counter = int(self._counter[0])
            if not counter:
                return Snapshot()
            half = counter % 2
            generation, length, count = self._heads[half].tolist()
            text = self._texts[half][: min(max(length, 0), _FIGURES_BYTES)].tobytes()
            copies = {name: column[:count].copy() for name, column in self._columns[half].items()} if columns else {}
            if int(self._counter[0]) == counter:
                return Snapshot(generation, json.loads(text), copies)
        return Snapshot()

    def close(self) -> None:
        """Give the memory back; the board cannot be used any more."""
        self._heads, self._texts, self._columns = [], [], []
        del self._counter
        self._memory.close()
        os.close(self.fd)


def _anonymous_file(size: int) -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("strep-board")
    else:
        fd, path = tempfile.mkstemp(prefix="strep-board-")
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd


def report_of_row(
    columns: Columns, i: int, stream: StreamInfo, codecs: tuple[Codec, ...], end: str = ""
) -> StreamReport:
    """Row ``i`` as the stream's own process would report it. ``stream`` is a copy, which is brought up to date."""
    codec, ssrc = int(columns["codec"][i]), int(columns["ssrc"][i])
    if stream.codec is None and codec >= 0:
        stream.codec = codecs[codec]
    if ssrc not in stream.ssrcs:
        stream.ssrcs.append(ssrc)
    return report_of(stream, {name: column[i] for name, column in columns.items()}, end)
