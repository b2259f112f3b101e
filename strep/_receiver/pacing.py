"""How often sockets are looked at, and how long what is ready may wait for more. Pure: time is an argument.

A batch costs about the same however many datagrams are in it, so whoever waits a little pays less for each. How long to
wait depends on who listens: an iteration wants each packet at once, a prompt sink within the configured latency. Files
have time, and so has everybody when nobody listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .._engine.release import Release
from .._model.time import TICK_NS

__all__ = ["Pacing", "PairsLook"]

_SHORTEST_PAUSE_S: Final = 0.002
_SHORT_PAUSE_S: Final = 0.008  # instead, when all that came came to pairs: each port costs a system call a look
_LONG_PAUSE_S: Final = 0.1  # at most, when nobody is in a hurry
_PAIRS_PAUSE_S: Final = 0.2  # instead for pairs, however much comes
_PAIRS_DATAGRAMS: Final = 20_000  # are read in a look at most: more do not stay in the CPU's caches
_MUCH_DATAGRAMS: Final = 128  # from this on in a look it is much
_LOOK_DATAGRAMS: Final = 5000  # are to be found in a look at shared sockets: more do not make it cheaper for each,
_DATAGRAM_BYTES: Final = 1024  # as the kernel counts one, about,
_PARTS_OF_BUFFER: Final = 4  # and they fill no more than this part of the buffer
_AFTER_TICK_NS: Final = 200_000  # a look comes so long after the tick that it is to take whole
_BEFORE_TICK_NS: Final = 600_000  # about as long takes reading a hundred ports, of which some are read again then
_LONG_PAUSE_BUFFER_BYTES: Final = 4 << 20  # with less granted, a sudden burst in a long pause might not fit
_PORT_BYTES_A_S: Final = 2 << 20  # what may come to a pair's port at most, as the kernel counts it: 2,700 packets/s
_MANY_STREAMS: Final = 500  # with more, releases are rarer and in groups
_RELEASE_NS: Final = 100_000_000
_RELEASE_MANY_NS: Final = 300_000_000  # less than 20 packets take, after which they leave anyway
_RELEASE_MANY_GROUPS: Final = 6


@dataclass(frozen=True, slots=True)
class PairsLook:
    """What a look found in the ports of pairs: how many ``datagrams``, and whether there was more (``full``);
    ``buffer``: the smallest granted receive buffer of such a port, in bytes; ``rows``: how many datagrams are read in
    one go at most."""

    datagrams: int
    full: bool
    buffer: int
    rows: int


class Pacing:
    """``audio``: some sink wants audio; ``prompt``: one of them wants it within ``latency_ns``, the configured latency.
    ``buffer`` is the smallest granted receive buffer of a socket that all calls share, in bytes; 0: there is none."""

    def __init__(self, latency_ns: int, *, prompt: bool, buffer: int, audio: bool = True) -> None:
        self._latency_ns = latency_ns
        self._prompt = prompt
        self._audio = audio
        self._shared = buffer > 0
        self._most = min(_LOOK_DATAGRAMS, buffer // _DATAGRAM_BYTES // _PARTS_OF_BUFFER)
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

    def whole_ticks(self, datagrams: int, of_pairs: int = 0) -> bool:
        """Whether the look after one that found so many datagrams, ``of_pairs`` of them in the ports of pairs, should
        leave those of the present tick for the next look, which then takes the tick whole."""
        if self._iterated:
            return 0 < of_pairs == datagrams
        return datagrams >= _MUCH_DATAGRAMS

    def pause_s(self, datagrams: int, now_ns: int, pairs: PairsLook | None = None, since_ns: int = TICK_NS) -> float:
        """How long to wait before looking again, after a look that found so many datagrams in sockets that all calls
        share, ``since_ns`` after the look before; ``pairs``: what it found in those of pairs, if there are any.

        A look at pairs costs a system call for each port that has something, however much that is; and the engine some
        hundred steps for each look, so nobody looks more often than somebody is in a hurry for it.
        """
        only_pairs = pairs is not None and pairs.datagrams > 0 and not datagrams
        if self._iterated:
            return _until_read_s(now_ns) if only_pairs else _SHORTEST_PAUSE_S
        shared_s = self._shared_pause_s(datagrams, since_ns) if pairs is None or self._shared else _PAIRS_PAUSE_S
        pause_s = shared_s if pairs is None else min(shared_s, self._pairs_pause_s(pairs, since_ns))
        if pairs is not None and pause_s > TICK_NS / 1e9:
            return pause_s
        few = datagrams + (0 if pairs is None else pairs.datagrams) < _MUCH_DATAGRAMS
        if self._prompt and self._latency_ns < 2 * TICK_NS and few:
            return _SHORT_PAUSE_S if only_pairs else _SHORTEST_PAUSE_S
        # take each tick of the engine whole
        further = max(int(pause_s * 1e9) // TICK_NS - 1, 0)
        return _until_tick_s(now_ns) + further * TICK_NS / 1e9

    def _shared_pause_s(self, datagrams: int, since_ns: int) -> float:
        """How long sockets that all calls share may be left alone; 0: not beyond the tick."""
        if not self._long_pauses:
            return 0.0
        return min(_LONG_PAUSE_S, _so_many_s(self._most, datagrams, since_ns))

    def _pairs_pause_s(self, pairs: PairsLook, since_ns: int) -> float:
        """How long the ports of pairs may be left alone; 0: not beyond the tick."""
        if self._prompt or pairs.full:
            return 0.0
        # what comes meanwhile is to be read in one go: only then it is taken in order
        most = min(pairs.rows * 3 // 4, _PAIRS_DATAGRAMS)
        so_many_s = _so_many_s(most, pairs.datagrams, since_ns)
        return min(_PAIRS_PAUSE_S, pairs.buffer / _PORT_BYTES_A_S, so_many_s)


def _so_many_s(most: int, datagrams: int, since_ns: int) -> float:
    """In which time ``most`` datagrams come, if so many came in ``since_ns``."""
    return most * since_ns / 1e9 / max(datagrams, 1)


def _until_tick_s(now_ns: int) -> float:
    """Until the present tick of the engine can be taken whole."""
    return (TICK_NS - now_ns % TICK_NS + _AFTER_TICK_NS) / 1e9


def _until_read_s(now_ns: int) -> float:
    """Until the ports of pairs are to be read, so that the present tick is taken whole as soon as it ends."""
    left_ns = TICK_NS - now_ns % TICK_NS
    return (left_ns - _BEFORE_TICK_NS) / 1e9 if left_ns > 2 * _BEFORE_TICK_NS else _until_tick_s(now_ns)
