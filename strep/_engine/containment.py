"""An exception in the work over many streams costs at most the stream that caused it.

Such work notes what it overwrites in the state's ``undo``. When it raises, all of it is undone, and it is done again
for halves of the streams, and halves of these, until those stand alone that cannot be worked on. They are *set aside*:
what they hold is dropped and counted, and at the next boundary they end ("fault"). All others are as if these had not
been there. What comes of their key later begins a new stream, unless it fails again and again (:class:`Quarantine`).

Where streams that are tried alone fail too, one after the other, it is nobody's fault: then the packets that were
worked on are dropped, and no stream is ended for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.events import Event, Fault
from .accounts import Accounts
from .quarantine import Quarantine
from .sources.key_table import KeyTable
from .sources.registry import Registry
from .streams.ring import JitterRing
from .undo import Undo

__all__ = ["Containment"]

I64 = npt.NDArray[np.int64]

_ALONE: Final = 8  # streams, picked at random, that fail alone while no others did not: it is nobody's fault
_ATTEMPTS: Final = 1000  # at one piece of work: so much at most that strangers can make us do


class Containment:
    """Faults are appended to ``events``. ``aside``: rows that are to end, and where they failed."""

    def __init__(
        self,
        undo: Undo,
        ring: JitterRing,
        table: KeyTable,
        registry: Registry,
        accounts: Accounts,
        events: list[Event],
    ) -> None:
        self._undo = undo
        self._ring = ring
        self._table = table
        self._registry = registry
        self._accounts = accounts
        self._events = events
        self.quarantine = Quarantine()
        self.aside: dict[int, str] = {}
        self.now_ns = 0  # the present tick's beginning
        self.unsettled: list[tuple[str, Exception]] = []  # faults of which only the accounts can tell what they cost

    # --- work that can be undone ------------------------------------------------------------------------------------

    def run(self, place: str, rows: I64, work: Callable[[I64], object]) -> None:
        """``work(rows)``, which may be done for any part of the rows as well. What it cannot be done for loses the
        packets that wait in the ring."""
        self._undo.clear()
        try:
            work(rows)
        except Exception as error:
            self.isolate(place, error, rows, lambda which: work(rows[which]), packets=False)
        self._undo.clear()

    def isolate(
        self, place: str, error: Exception, rows: I64, work: Callable[[I64], object], *, packets: bool
    ) -> npt.NDArray[np.bool_]:
        """``work`` raised ``error`` for all of ``rows``, an entry an item: undo it, and repeat it, given indices of
        items, without those streams that make it raise. Tells for which items it was done. ``packets``: items are
        packets that are in no ring, and lost where it raises."""
        undo = self._undo
        undo.back()
        names = np.unique(rows)
        # no sender knows which ones will be tried alone
        names = np.random.default_rng().permutation(names)
        done = np.zeros(len(rows), np.bool_)
        guilty: list[tuple[int, Exception]] = []
        parts = [names] if len(names) == 1 else _halves(names)
        for _ in range(_ATTEMPTS):
            if not parts or (len(guilty) == _ALONE and not done.any()):
                break
            part = parts.pop()
            which = np.isin(rows, part).nonzero()[0]
            try:
                work(which)
            except Exception as again:
                undo.back()
                if len(part) == 1:
                    guilty.append((int(part[0]), again))
                else:
                    parts += _halves(part)
            else:
                undo.clear()
                done[which] = True
        if len(names) > 1 and not done.any():
            guilty.clear()
        rest = ~done
        for row, its_error in guilty:
            mine = rows == row
            rest &= ~mine
            self.set_aside(place, its_error, row, int(np.count_nonzero(mine)) if packets else 0)
        if not parts and done.all():
            self.lost(place, error, 0)  # it did not happen again
        elif rest.any():
            lost = int(np.count_nonzero(rest)) if packets else self._ring.drop(np.unique(rows[rest]))
            self.lost(place, error, lost)
        undo.clear()
        return done

    def set_aside(self, place: str, error: Exception, row: int, packets: int) -> None:
        """A stream is to end, because of an error in it; it cost ``packets`` beside those that wait in the ring."""
        packets += self._ring.drop(np.array([row]))
        self._accounts.drop("fault", packets)
        info = self._registry.info[row]
        if info is not None and row not in self.aside:
            self.aside[row] = place
            self.quarantine.fault(self._table.key(row), self.now_ns)
            self._events.append(Fault(place, error, info, packets))

    def lost(self, place: str, error: Exception, packets: int) -> None:
        """An error that is no one stream's cost so many packets."""
        self._accounts.drop("fault", packets)
        self._events.append(Fault(place, error, None, packets))

    def sound(self, rows: I64) -> I64 | None:
        """Which of these entries are of rows that are not set aside; the others' packets are lost. None: all."""
        aside = np.isin(rows, np.fromiter(self.aside, np.int64))
        if not aside.any():
            return None
        self._accounts.drop("fault", int(np.count_nonzero(aside)))
        return (~aside).nonzero()[0]

    # --- work that cannot -------------------------------------------------------------------------------------------

    def broken(self, place: str, error: Exception) -> None:
        """An error in the middle of what cannot be undone. :meth:`settle` says what it cost."""
        self._undo.clear()
        self.unsettled.append((place, error))

    def settle(self, missing: int) -> None:
        """To be said when every datagram received should be accounted for: so many are not, and were lost."""
        faults, self.unsettled = self.unsettled, []
        for place, error in faults:
            self.lost(place, error, missing)
            missing = 0


def _halves(rows: I64) -> list[I64]:
    return [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
