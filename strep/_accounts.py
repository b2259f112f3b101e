"""What became of every datagram, by cause. Floor 2."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._parser import Status
from ._report import Totals
from ._streams.undo import Undo
from ._types import DatagramKind

__all__ = ["Accounts"]


class Accounts:
    def __init__(self, undo: Undo | None = None) -> None:
        self._note = (undo or Undo(keep=False)).note
        self.datagrams = 0
        self.kinds = np.zeros(len(DatagramKind), np.int64)
        self.delivered = 0
        self.duplicate = 0
        self.late = 0
        self.streams_ended = 0
        self.streams_refused = 0
        self._rejected: Counter[str] = Counter()
        self._malformed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def count(self, fate: Literal["delivered", "duplicate", "late"], packets: int) -> None:
        fates = self.__dict__
        self._note((fates, fate, fates[fate]))
        fates[fate] += packets

    def reject(self, cause: str, count: int) -> None:
        if count:
            self._rejected[cause] += count

    def drop(self, cause: str, count: int) -> None:
        if count:
            before = self._dropped[cause]
            self._note((self._dropped, cause, before))
            self._dropped[cause] = before + count

    def count_statuses(self, status: npt.NDArray[np.uint8]) -> None:
        """Count what the parser refused, each under its status's name."""
        for value, count in enumerate(np.bincount(status).tolist()):
            if count and value != Status.OK:
                named = Status(value)
                counter = self._malformed if named.category == "malformed" else self._rejected
                counter[named.name.lower()] += count

    def parsed(self) -> tuple[Any, ...]:
        """What has been counted of datagrams as they came in, for :meth:`unparse`."""
        return self.kinds.copy(), dict(self._rejected), dict(self._malformed)

    def unparse(self, parsed: tuple[Any, ...]) -> None:
        """Count as it was then."""
        self.kinds[:] = parsed[0]
        for counter, before in ((self._rejected, parsed[1]), (self._malformed, parsed[2])):
            counter.clear()
            counter.update(before)

    def totals(self, *, buffered: int, started: int) -> Totals:
        return Totals(
            datagrams=self.datagrams,
            by_kind={kind.label: int(self.kinds[kind]) for kind in DatagramKind},
            delivered=self.delivered,
            duplicate=self.duplicate,
            late=self.late,
            malformed=self._malformed.total(),
            rejected=self._rejected.total(),
            dropped=self._dropped.total(),
            buffered=buffered,
            malformed_by=dict(sorted(self._malformed.items())),
            rejected_by=dict(sorted(self._rejected.items())),
            dropped_by={cause: count for cause, count in sorted(self._dropped.items()) if count},
            streams_started=started,
            streams_ended=self.streams_ended,
            streams_refused=self.streams_refused,
        )
