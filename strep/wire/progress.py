"""How far each stream is, and what is missing before its next block: columns by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.types import GapCause

__all__ = ["Joined", "Progress"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_Columns = dict[str, npt.NDArray[Any]]

_UNKNOWN: Final = -1


@dataclass(slots=True)
class Joined:
    """Gaps as they are here; ``keep``: blocks that were not told before; frames that are gaps because of what was lost,
    and that were told before."""

    gap_frames: I64
    gap_cause: U8
    keep: Bools | None = None  # None: all
    lost_frames: int = 0
    doubled_frames: int = 0


class Progress:
    """Columns by row: ``next``, the position behind the last frame, -1 if none came; packets, frames in gaps, and when
    the last packet came, UTC ns."""

    def __init__(self) -> None:
        self.next, self.packets, self.gap_frames, self.last_arrival_ns = (np.zeros(0, np.int64) for _ in range(4))

    def begin(self, row: int) -> None:
        """The row is another stream's from now on."""
        if row >= len(self.next):
            more = np.zeros(max(256, row), np.int64)
            self.next, self.packets, self.gap_frames, self.last_arrival_ns = (
                np.append(column, more) for column in (self.next, self.packets, self.gap_frames, self.last_arrival_ns)
            )
        self.next[row] = _UNKNOWN
        self.packets[row] = self.gap_frames[row] = self.last_arrival_ns[row] = 0

    def expect_all(self, row: int) -> None:
        """It is heard from its first frame on, unless it was already: what is missing before the next one is a gap."""
        if self.next[row] == _UNKNOWN:
            self.next[row] = 0

    def join(self, row: I64, columns: dict[str, npt.NDArray[Any]]) -> Joined:
        """Give each block of a message the gap that is before it here. ``row`` int64 (m,); -1: of nobody. Blocks of one
        stream are in order."""
        position, frames, gap = columns["position"], columns["frames"], columns["gap_frames"]
        if not self._join_all(row, position, frames, gap, columns):
            return self._join_each(row, position, frames, gap, columns)
        return Joined(gap, columns["gap_cause"])

    def _join_all(self, row: I64, position: I64, frames: I64, gap: I64, columns: dict[str, npt.NDArray[Any]]) -> bool:
        """If each block begins where the one before ended: then it is noted, and true is returned."""
        new = np.append(True, row[1:] != row[:-1])
        starts = np.flatnonzero(new)
        first = row[starts]
        if int(first.min()) < 0 or len(np.unique(first)) != len(first):
            return False
        begins, ends = position - gap, position + frames
        expected = self.next[first]
        head = begins[starts]
        known = expected != _UNKNOWN
        if bool((head[known] != expected[known]).any()) or bool((begins[1:] != ends[:-1])[~new[1:]].any()):
            return False
        last = np.append(starts[1:], len(row)) - 1
        packets = columns["packet_first"]
        self.next[first] = ends[last]
        self.gap_frames[first] += np.add.reduceat(gap, starts)
        self.packets[first] += packets[last + 1] - packets[starts]
        some = packets[last + 1] > packets[starts]
        self.last_arrival_ns[first[some]] = columns["packet_arrival_ns"][packets[last[some] + 1] - 1]
        return True

    def _join_each(
        self, row: I64, position: I64, frames: I64, gap: I64, columns: dict[str, npt.NDArray[Any]]
    ) -> Joined:
        joined = Joined(gap.copy(), columns["gap_cause"].copy(), np.ones(len(row), np.bool_))
        keep = joined.keep
        assert keep is not None
        first, arrival = columns["packet_first"].tolist(), columns["packet_arrival_ns"]
        rows = zip(row.tolist(), position.tolist(), frames.tolist(), gap.tolist(), strict=True)
        for i, (at, begin, count, missing) in enumerate(rows):
            if at < 0:
                keep[i] = False
                continue
            expected = int(self.next[at])
            if expected != _UNKNOWN and begin - missing != expected:
                told, missing = missing, begin - expected
                if missing < 0:  # told before
                    keep[i] = False
                    joined.doubled_frames += count
                    continue
                joined.lost_frames += max(missing - told, 0)
                joined.gap_frames[i] = missing
                joined.gap_cause[i] = GapCause.OVERRUN if missing else GapCause.NONE
            self.next[at] = begin + count
            self.gap_frames[at] += missing
            self.packets[at] += first[i + 1] - first[i]
            if first[i + 1] > first[i]:
                self.last_arrival_ns[at] = arrival[first[i + 1] - 1]
        return joined
