"""Times for datagrams whose records have none (simple packet blocks of pcapng): those that their media was made at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .find import Datagrams

__all__ = ["MediaTimes"]

I64 = npt.NDArray[np.int64]

_BEGIN_NS: Final = 946_684_800 * 1_000_000_000  # any time does, while all are told to be unknown: 2000-01-01
_STREP_BYTES: Final = 24
_PTIME_NS: Final = 20_000_000  # of a dynamic type: what a packet is taken to last
_MOST_NS: Final = 10_000_000_000  # a longer step is none of the same clock
_RATES: Final = {10: 44_100, 11: 44_100}
_STATIC_RATE: Final = 8000


@dataclass(slots=True)
class _Flow:
    timestamp: int
    media_ns: int
    rate: float = 0.0


class MediaTimes:
    """Packets of one file. Times never go back. They order packets and keep streams at their pace; they are not
    arrival times: no jitter can be told from them."""

    def __init__(self) -> None:
        self._now_ns = -1
        self._flows: dict[tuple[int, int, int, bytes], _Flow] = {}

    def take(self, found: Datagrams, without: npt.NDArray[np.bool_], data: npt.NDArray[np.uint8]) -> I64:
        """Times of all, int64 ns, shape (n,); of those with a time of their own: theirs."""
        out = found.arrival_ns.copy()
        for row, (lacks, ns) in enumerate(zip(without.tolist(), out.tolist(), strict=True)):
            if lacks:
                out[row] = self._next_ns(found, row, data)
            else:
                self._now_ns = ns
                self._flows.clear()  # the clock of the file goes on, theirs does not
        return out

    def _next_ns(self, found: Datagrams, row: int, data: npt.NDArray[np.uint8]) -> int:
        if self._now_ns < 0:
            self._now_ns = _BEGIN_NS
        at = int(found.at[row])
        head = bytes(data[at : at + min(int(found.captured[row]), _STREP_BYTES + 12)])
        if head and head[0] >= 0xC0:
            head = head[_STREP_BYTES:]
        if len(head) < 12 or head[0] >> 6 != 2 or 192 <= head[1] <= 223:
            return self._now_ns
        kind, timestamp = head[1] & 127, int.from_bytes(head[4:8], "big")
        key = (int(found.source_lo[row]), int(found.source_port[row]), int(found.local_port[row]), head[8:12])
        flow = self._flows.get(key)
        if flow is None or len(self._flows) > 1 << 20:
            self._flows[key] = _Flow(timestamp, self._now_ns, _rate(kind))
            return self._now_ns
        step = (timestamp - flow.timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
        if not flow.rate and step > 0:
            flow.rate = step * 1e9 / _PTIME_NS
        by_ns = int(step * 1e9 / flow.rate) if flow.rate else 0
        flow.timestamp = timestamp
        if abs(by_ns) <= _MOST_NS:
            flow.media_ns += by_ns
        else:
            flow.media_ns = self._now_ns
        self._now_ns = max(self._now_ns, flow.media_ns)
        return self._now_ns


def _rate(payload_type: int) -> float:
    """Timestamps a second (RFC 3551); 0: unknown."""
    return _RATES.get(payload_type, _STATIC_RATE) if payload_type < 96 else 0.0
