"""Which call legs were announced, and which sources wait to be. Asked when a source proves itself, never per packet."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .key_table import KeyTable
from .keys import KIND_AUTO, KIND_CALL_LEG

__all__ = ["Announcements", "Keys"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Keys = tuple[U64, U64, U64]  # of sources: hi, lo and the tag with the SSRC

_WAITING: Final = 4096  # sources; what comes beyond is rejected at once
_NEVER: Final = np.iinfo(np.int64).max


class Announcements:
    """``pending_ns``: how long the packets of a source that nobody announced wait on probation; then they are rejected,
    and those that follow wait anew. Ports that are bound to a leg need no announcement."""

    def __init__(self, legs: int, pending_ns: int) -> None:
        self._pending_ns = pending_ns
        self._rows: dict[tuple[int, int], int] = {}
        self._free = list(range(legs - 1, -1, -1))
        self._legs = KeyTable(legs)
        self._sources = KeyTable(_WAITING)
        self._free_sources = list(range(_WAITING - 1, -1, -1))
        self._since_ns = np.full(_WAITING, _NEVER, np.int64)
        self.earliest_ns = _NEVER  # when the first of the waiting sources has waited long enough

    def announce(self, hi: int, lo: int) -> Keys | None:
        """Admit a leg from now on. Gives the sources of it that wait; None when there is no room for one more leg."""
        if (hi, lo) not in self._rows:
            if not self._free:
                return None
            row = self._rows[hi, lo] = self._free.pop()
            self._legs.add(np.array([row]), *(np.array([word], np.uint64) for word in (hi, lo, 0)))
        rows = self._sources.live()
        source_hi, source_lo, tag = self._sources.keys(rows)
        own = (source_hi == hi) & (source_lo == lo) & ((tag >> np.uint64(2)) & np.uint64(3) == KIND_CALL_LEG)
        rows = rows[own]
        return self._take(rows[np.argsort(self._since_ns[rows], kind="stable")])  # in order of arrival

    def forget(self, hi: int, lo: int) -> None:
        row = self._rows.pop((hi, lo), None)
        if row is not None:
            self._legs.remove(np.array([row]))
            self._free.append(row)

    def known(self, hi: int, lo: int) -> bool:
        return (hi, lo) in self._rows

    def sift(self, hi: U64, lo: U64, tag: U64, arrival_ns: I64) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Of sources that have proved themselves: which may come in, and which there is no room to let wait for. The
        others wait."""
        kind = (tag >> np.uint64(2)) & np.uint64(3)
        welcome = self._legs.find(hi, lo, np.zeros_like(tag)) >= 0
        welcome = np.where(kind == KIND_CALL_LEG, welcome, kind != KIND_AUTO)
        turned_away = np.zeros(len(tag), np.bool_)
        others = np.flatnonzero(~welcome)
        if others.size:
            new = others[self._sources.find(hi[others], lo[others], tag[others]) < 0]
            turned_away[new[len(self._free_sources) :]] = True
            new = new[: len(self._free_sources)]
            if new.size:
                rows = np.array([self._free_sources.pop() for _ in range(len(new))], np.int64)
                self._sources.add(rows, hi[new], lo[new], tag[new])
                self._since_ns[rows] = arrival_ns[new]
                self.earliest_ns = min(self.earliest_ns, int(arrival_ns[new].min()) + self._pending_ns)
        return welcome, turned_away

    def overdue(self, now_ns: int) -> Keys | None:
        """The sources that have waited long enough; they are forgotten."""
        if now_ns < self.earliest_ns:
            return None
        return self._take(np.flatnonzero(self._since_ns <= now_ns - self._pending_ns))

    def _take(self, rows: I64) -> Keys:
        keys = self._sources.keys(rows)
        if rows.size:
            self._sources.remove(rows)
            self._free_sources += rows.tolist()
            self._since_ns[rows] = _NEVER
            first = int(self._since_ns.min())
            self.earliest_ns = _NEVER if first == _NEVER else first + self._pending_ns
        return keys
