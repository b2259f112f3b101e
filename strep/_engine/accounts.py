"""What became of every datagram, by cause."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from .._model.report import Totals
from .._model.types import DatagramKind
from .._parser.layout import Status
from .undo import Undo

__all__ = ["Accounts"]


class Accounts:
    def __init__(self, undo: Undo | None = None) -> None:
        self._note = (undo or Undo(keep=False)).note
        self.datagrams = 0
        self.kinds = np.zeros(len(DatagramKind), np.int64)
        self.delivered = 0
        self.duplicate = 0
        self.late = 0
        self.recovered = 0  # packets that copies stood in for: in none of the others
        self.streams_ended = 0
        self.streams_refused = 0
        self._rejected: Counter[str] = Counter()
        self._malformed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._unused_copies: Counter[str] = Counter()

    def count(self, fate: Literal["delivered", "duplicate", "late", "recovered"], packets: int) -> None:
        fates = self.__dict__
        self._note((fates, fate, fates[fate]))
        fates[fate] += packets

    def reject(self, cause: str, count: int) -> None:
        if count:
            self._add(self._rejected, cause, count)

    def reject_held(self, foreign: npt.NDArray[np.bool_]) -> None:
        """Reject packets that were on probation, of which these were ``foreign``: of another address than their
        stream's."""
        count = int(np.count_nonzero(foreign))
        self.reject("foreign_source", count)
        self.reject("probation", len(foreign) - count)

    def drop(self, cause: str, count: int) -> None:
        if count:
            self._add(self._dropped, cause, count)

    def count_unused_copies(self, cause: str, count: int) -> None:
        """Redundant blocks that no use can be made of; the packets that brought them have their own fate."""
        if count:
            self._add(self._unused_copies, cause, count)

    def _add(self, counter: Counter[str], cause: str, count: int) -> None:
        before = counter[cause]
        self._note((counter, cause, before))
        counter[cause] = before + count

    def count_kinds(self, kind: npt.NDArray[np.uint8]) -> None:
        self._note((self.kinds, slice(None), self.kinds.copy()))
        self.kinds += np.bincount(kind, minlength=len(DatagramKind))

    def leave_unread(self, count: int) -> None:
        """Count datagrams that had arrived when the receiver ended, and that were never read."""
        self.datagrams += count
        self.drop("unread", count)

    def count_statuses(self, status: npt.NDArray[np.uint8]) -> None:
        """Count what the parser refused, each under its status's name."""
        for value, count in enumerate(np.bincount(status).tolist()):
            if count and value != Status.OK:
                named = Status(value)
                counter = self._malformed if named.category == "malformed" else self._rejected
                self._add(counter, named.name.lower(), count)

    def totals(self, *, buffered: int, started: int) -> Totals:
        return Totals(
            datagrams=self.datagrams,
            by_kind={kind.label: int(self.kinds[kind]) for kind in DatagramKind},
            delivered=self.delivered,
            duplicate=self.duplicate,
            late=self.late,
            recovered=self.recovered,
            malformed=self._malformed.total(),
            rejected=self._rejected.total(),
            dropped=self._dropped.total(),
            buffered=buffered,
            malformed_by=_sorted(self._malformed),
            rejected_by=_sorted(self._rejected),
            dropped_by=_sorted(self._dropped),
            unused_copies_by=_sorted(self._unused_copies),
            streams_started=started,
            streams_ended=self.streams_ended,
            streams_refused=self.streams_refused,
        )


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {cause: count for cause, count in sorted(counter.items()) if count}
