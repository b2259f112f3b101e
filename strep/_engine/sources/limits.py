"""How many streams may begin in a time, of one source and in all: a flood of pairs costs a bounded time."""

from __future__ import annotations

from typing import Final

from ..._model.time import SECOND_NS

__all__ = ["AdmissionLimits"]

_A_SECOND: Final = 1000  # new streams of one source, in the long run: 250 calls a second
_ALL_A_SECOND: Final = 2000  # of all sources together
_LEAST_BURST: Final = 256
_SOURCES: Final = 4096  # whose new streams are counted; of more, those whose last one is longest ago are forgotten


class AdmissionLimits:
    """Token buckets. One source may begin half of ``max_streams`` at once, as after a restart of the receiver; all
    sources together ``max_streams``."""

    def __init__(self, max_streams: int) -> None:
        self._burst = max(_LEAST_BURST, max_streams // 2)
        self._all_burst = max(_LEAST_BURST, max_streams)
        self._all = float(self._all_burst)
        self._at_ns = 0
        self._sources: dict[int, tuple[float, int]] = {}  # by host: tokens, and when; the latest last

    def grant(self, sources: list[int], now_ns: int) -> list[bool]:
        """Whether a stream may begin, for each of the hosts, one after the other. 0: of a host that is not known."""
        passed_s = max(now_ns - self._at_ns, 0) / SECOND_NS
        self._at_ns = max(now_ns, self._at_ns)
        self._all = min(self._all + passed_s * _ALL_A_SECOND, self._all_burst)
        granted = []
        for source in sources:
            if not source:
                granted.append(self._all >= 1)
                self._all -= granted[-1]
                continue
            tokens, at_ns = self._sources.pop(source, (float(self._burst), now_ns))
            tokens = min(tokens + max(now_ns - at_ns, 0) / SECOND_NS * _A_SECOND, self._burst)
            grant = tokens >= 1 and self._all >= 1
            if grant:
                tokens -= 1
                self._all -= 1
            granted.append(grant)
            self._sources[source] = tokens, now_ns
        while len(self._sources) > _SOURCES:
            del self._sources[next(iter(self._sources))]
        return granted
