"""How often sockets are looked at, and how long what is ready may wait for company. Pure: time is an argument.

A batch has its price whatever is in it, so who waits a little pays less per packet. How long depends on who listens:
an iteration wants each packet at once; a prompt sink within the configured latency; files, or nobody, have time.
"""

from __future__ import annotations

from typing import Final

from .._engine.release import Release
from .._model.time import TICK_NS

__all__ = ["Pacing"]

_SOON_S: Final = 0.002
_BUSY_DATAGRAMS: Final = 128
_AFTER_TICK_NS: Final = 200_000
_QUIET_DATAGRAMS: Final = 64
_QUIET_S: Final = 0.1
_QUIET_BUFFER: Final = 4 << 20  # bytes granted, below which a sudden burst in a long pause might not fit
_RELEASE_NS: Final = 100_000_000
_RELEASE_BUSY_NS: Final = 300_000_000  # under 20 packets, which leave anyway
_RELEASE_BUSY_GROUPS: Final = 6
_BUSY_STREAMS: Final = 500


class Pacing:
    """``audio``, ``prompt`` and ``iterated`` say who listens; ``buffer`` is the smallest granted receive buffer, in
    bytes."""

    def __init__(self, latency_ns: int, *, prompt: bool, buffer: int, audio: bool = True) -> None:
        self.iterated = False
        self._latency_ns = latency_ns
        self.prompt = prompt
        self.audio = audio
        self._long_pauses = not prompt and buffer >= _QUIET_BUFFER

    @staticmethod
    def is_busy(streams: int) -> bool:
        return streams > _BUSY_STREAMS

    def iterate(self) -> None:
        """Streams will be iterated: each packet is wanted at once."""
        self.iterated = self.prompt = self.audio = True

    def release(self, streams: int, *, consumed: bool = True) -> Release:
        """How promptly the engine is to send off what is ready of so many streams. ``consumed``: somebody may yet ask
        for audio that waits; if nobody does, the payloads of many streams are not kept for it."""
        within_ns, groups = self._release_ns(streams)
        payloads = consumed or not self.is_busy(streams)
        return Release(within_ns, groups, prompt=self.prompt, audio=self.audio, payloads=payloads)

    def _release_ns(self, streams: int) -> tuple[int, int]:
        """Within how many ns everything ready is sent off, and in how many groups of streams."""
        if self.iterated:
            return 0, 1
        release_ns, groups = (_RELEASE_BUSY_NS, _RELEASE_BUSY_GROUPS) if self.is_busy(streams) else (_RELEASE_NS, 1)
        if self.prompt and self._latency_ns - TICK_NS < release_ns:
            # a tick of the latency goes into waiting for the look
            release_ns = max(self._latency_ns // TICK_NS - 1, 0) * TICK_NS
            groups = max(1, min(groups, release_ns // TICK_NS))
        return release_ns, groups

    def whole_ticks(self, datagrams: int) -> bool:
        """Whether, after a look that found so many datagrams, the next one is at the beginning of a tick, for which
        what belongs to that tick may wait."""
        return datagrams >= _BUSY_DATAGRAMS and not self.iterated

    def pause_s(self, datagrams: int, now_ns: int) -> float:
        """How long to wait before looking again, after a look that found so many datagrams."""
        if self.iterated:
            return _SOON_S
        if self._long_pauses and datagrams < _QUIET_DATAGRAMS:
            return _QUIET_S
        if self.prompt and self._latency_ns < 2 * TICK_NS and datagrams < _BUSY_DATAGRAMS:
            return _SOON_S
        # take each tick of the engine whole
        return (TICK_NS - now_ns % TICK_NS + _AFTER_TICK_NS) / 1e9
