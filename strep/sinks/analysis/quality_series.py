"""What is kept of a stream's quality for its report: figures window by window, and the gaps one by one."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.types import GapCause

__all__ = ["WINDOW_FIELDS", "GapList", "WindowSeries"]

F32 = npt.NDArray[np.float32]

WINDOW_FIELDS: Final = (
    "start_s", "duration_s", "loss", "burst_r", "burst_density", "burst_ms", "jitter_ms", "buffer_ms", "r", "mos_cq",
    "mos_lq", "end_s", "media_ratio",
)  # fmt: skip
_DIGITS: Final = (3, 3, 5, 3, 4, 1, 3, 2, 2, 3, 3, 3, 4)  # after the point, of each field
_KEEP_WORST: Final = ("mos_cq", "mos_lq", "r", "media_ratio")  # when two windows become one
_WINDOWS_KEPT: Final = 360  # an hour of 10 s; then each two become one
_GAPS_KEPT: Final = 1000


class WindowSeries:
    """A stream's windows: at most 360 rows of ``WINDOW_FIELDS``; when they are full, each two become one."""

    __slots__ = ("count", "mos_min", "rows")

    def __init__(self) -> None:
        self.rows = np.zeros((8, len(WINDOW_FIELDS)), np.float32)
        self.count = 0
        self.mos_min = np.inf

    def add(self, row: F32) -> None:
        if self.count == _WINDOWS_KEPT:
            self._halve()
        elif self.count == len(self.rows):
            more = np.zeros((min(len(self.rows), _WINDOWS_KEPT - len(self.rows)), len(WINDOW_FIELDS)), np.float32)
            self.rows = np.concatenate([self.rows, more])
        self.rows[self.count] = row
        self.count += 1
        self.mos_min = min(self.mos_min, float(row[WINDOW_FIELDS.index("mos_cq")]))

    def _halve(self) -> None:
        a, b = self.rows[0::2], self.rows[1::2]
        weight = a[:, 1:2] / np.maximum(a[:, 1:2] + b[:, 1:2], 1e-6)
        merged = weight * a + (1 - weight) * b
        merged[:, 0] = a[:, 0]
        merged[:, 1] = a[:, 1] + b[:, 1]
        merged[:, WINDOW_FIELDS.index("end_s")] = b[:, WINDOW_FIELDS.index("end_s")]
        for name in _KEEP_WORST:  # a bad window must not vanish among good ones
            column = WINDOW_FIELDS.index(name)
            merged[:, column] = np.minimum(a[:, column], b[:, column])
        self.count = len(merged)
        self.rows[: self.count] = merged

    def as_list(self) -> list[dict[str, float]]:
        return [
            {name: round(value, digits) for name, value, digits in zip(WINDOW_FIELDS, row, _DIGITS, strict=True)}
            for row in self.rows[: self.count].tolist()
        ]


class GapList:
    """A stream's gaps as (position, frames, cause), in sample frames. Of too many the longest are kept, losses before
    silence. ``omitted``: how many were not kept."""

    __slots__ = ("kept", "omitted")

    def __init__(self) -> None:
        self.kept: list[tuple[int, int, int]] = []
        self.omitted = 0

    def add(self, position: int, frames: int, cause: int) -> None:
        self.kept.append((position, frames, cause))
        if len(self.kept) >= 2 * _GAPS_KEPT:
            self.shorten()

    def shorten(self) -> None:
        if len(self.kept) > _GAPS_KEPT:
            self.omitted += len(self.kept) - _GAPS_KEPT
            best = sorted(self.kept, key=lambda gap: (gap[2] != GapCause.LOSS, -gap[1], gap[0]))
            self.kept = sorted(best[:_GAPS_KEPT])
