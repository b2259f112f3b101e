"""Whether payloads that say how long they are (opus, AMR) look encrypted: most then say what cannot be.

A packet lasts at most until the timestamp of the next one; a shorter one is followed by suppressed silence. Random
bytes last longer, or are no payload at all, in every second packet of opus (RFC 6716 3.1) and in nearly all of AMR. By
chance they agree in one of five. Where all are too long by the same factor it is the sender's clock that is wrong: see
:mod:`.sender_clock`.
"""

from __future__ import annotations

from copy import copy
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from ..undo import Undo

__all__ = ["Doubt"]

I64 = npt.NDArray[np.int64]

_PAIRS_LOOKED_AT: Final = 100  # of a stream, at its beginning: then it is believed
_CONTRADICTIONS: Final = 4  # that make a stream look encrypted, if there are more of them than of pairs that agree


class _Evidence:
    """A stream's last packet, and how many of its pairs agreed and contradicted."""

    __slots__ = ("agreed", "contradicted", "ext", "ratios", "ticks", "timestamp")

    def __init__(self) -> None:
        self.ext, self.timestamp, self.ticks = -2, 0, 0
        self.agreed = self.contradicted = 0
        self.ratios: dict[Fraction, int] = {}  # never changed, but replaced: how often what lasts too long does so


class Doubt:
    """``left`` int8, by row: packet pairs that will still be looked at; 0: believed, or not."""

    def __init__(self, rows: int, undo: Undo | None = None) -> None:
        self._undo = undo or Undo(keep=False)
        self.left = np.zeros(rows, np.int8)
        self._seen: dict[int, _Evidence] = {}

    def open(self, rows: I64) -> None:
        self.left[rows] = _PAIRS_LOOKED_AT
        for row in rows.tolist():
            self._seen.pop(row, None)

    def note(self, rows: I64) -> None:
        """Call this for rows before :meth:`contradicts` is asked of them: it notes what may have to be undone."""
        self._undo.note((self.left, rows, self.left[rows]))
        for row in rows.tolist():
            seen = self._seen.get(row)
            if seen is None:
                self._undo.call(self._seen.pop, row, None)
            else:
                self._undo.note((self._seen, row, copy(seen)))

    def contradicts(self, row: int, ext: int, timestamp: int, ticks: int) -> bool:
        """Look at a stream's next packet, which claims to last so many RTP ticks; 0: it is malformed. True: the stream
        looks encrypted."""
        seen = self._seen.setdefault(row, _Evidence())
        if ext == seen.ext + 1:
            step = (timestamp - seen.timestamp) & 0xFFFF_FFFF
            if not seen.ticks or step < seen.ticks:
                ratio = Fraction(step, seen.ticks or 1)
                seen.contradicted += 1
                seen.ratios = {**seen.ratios, ratio: seen.ratios.get(ratio, 0) + bool(seen.ticks)}
            seen.agreed += step == seen.ticks
            self.left[row] -= 1
        seen.ext, seen.timestamp, seen.ticks = ext, timestamp, ticks
        usual = max(seen.ratios.values(), default=0)
        enough = seen.contradicted >= _CONTRADICTIONS and seen.contradicted > max(seen.agreed, 2 * usual)
        if enough:
            self.left[row] = 0
        if not self.left[row]:
            del self._seen[row]
        return enough
