"""How often sockets are looked at, and how long what is ready may wait for more. Pure: time is an argument.

A batch costs about the same however many datagrams are in it, so whoever waits a little pays less for each. How long to
wait depends on who listens: an iteration wants each packet at once, a prompt sink within the configured latency. Files
have time, and so has everybody when nobody listens.
"""

from __future__ import annotations

from typing import Final

from .._engine.release import Release
from .._model.time import TICK_NS

__all__ = ["Pacing"]

_SHORTEST_PAUSE_S: Final = 0.002
_LONG_PAUSE_S: Final = 0.1  # when little comes and nobody is in a hurry
_LITTLE_DATAGRAMS: Final = 64  # fewer than this in a look is little,
_MUCH_DATAGRAMS: Final = 128  # and from this on it is much
_AFTER_TICK_NS: Final = 200_000  # a look comes so long after the tick that it is to take whole
_LONG_PAUSE_BUFFER_BYTES: Final = 4 << 20  # with less granted, a sudden burst in a long pause might not fit
_MANY_STREAMS: Final = 500  # with more, releases are rarer and in groups
_RELEASE_NS: Final = 100_000_000
_RELEASE_MANY_NS: Final = 300_000_000  # less than 20 packets take, after which they leave anyway
_RELEASE_MANY_GROUPS: Final = 6


class Pacing:
    """``audio``: some sink wants audio; ``prompt``: one of them wants it within ``latency_ns``, the configured latency.
    ``buffer`` is the smallest granted receive buffer, in bytes."""

    def __init__(self, latency_ns: int, *, prompt: bool, buffer: int, audio: bool = True) -> None:
        self._latency_ns = latency_ns
        self._prompt = prompt
        self._audio = audio
        self._long_pauses = not prompt and buffer >= _LONG_PAUSE_BUFFER_BYTES
        self._iterated = False

    @property
    def iterated(self) -> bool:
        """Whether streams are iterated."""
        return self._iterated

    def iterate(self) -> None:
        """Streams will be iterated: each packet is wanted at once."""
        self._iterated = self._prompt = self._audio = True

    def release(self, streams: int, *, consumed: bool = True) -> Release:
        """How promptly the engine is to send off what is ready, with so many streams. ``consumed``: somebody may yet
        ask for audio that waits. If nobody can, the payloads of many streams are not kept for that."""
        within_ns, groups = self._release_ns(streams)
        payloads = consumed or streams <= _MANY_STREAMS
        return Release(within_ns, groups, prompt=self._prompt, audio=self._audio, payloads=payloads)

    def _release_ns(self, streams: int) -> tuple[int, int]:
        """Within how many ns everything ready is sent off, and in how many groups of streams."""
        if self._iterated:
            return 0, 1
        many = streams > _MANY_STREAMS
        release_ns, groups = (_RELEASE_MANY_NS, _RELEASE_MANY_GROUPS) if many else (_RELEASE_NS, 1)
        if self._prompt and self._latency_ns - TICK_NS < release_ns:
            # a tick of the latency goes into waiting for the look
            release_ns = max(self._latency_ns // TICK_NS - 1, 0) * TICK_NS
            groups = max(1, min(groups, release_ns // TICK_NS))
        return release_ns, groups

    def whole_ticks(self, datagrams: int) -> bool:
        """Whether the look after one that found so many datagrams should leave those of the present tick for the next
        look, which then takes the tick whole."""
        return datagrams >= _MUCH_DATAGRAMS and not self._iterated

    def pause_s(self, datagrams: int, now_ns: int) -> float:
        """How long to wait before looking again, after a look that found so many datagrams."""
        if self._iterated:
            return _SHORTEST_PAUSE_S
        if self._long_pauses and datagrams < _LITTLE_DATAGRAMS:
            return _LONG_PAUSE_S
        if self._prompt and self._latency_ns < 2 * TICK_NS and datagrams < _MUCH_DATAGRAMS:
            return _SHORTEST_PAUSE_S
        # take each tick of the engine whole
        return (TICK_NS - now_ns % TICK_NS + _AFTER_TICK_NS) / 1e9
