"""What the packets to a call's party hold while something is played: found for all due packets at once. Pure.

A packet is known by its call and its number since the call was answered. What is played is a segment: from a packet on,
to another, with the payloads of a clip over and over. Overlays are few: they are mixed one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.g711 import decode, encode
from .._model.types import Codec
from ._playlist import Clip

__all__ = ["Soundtrack"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_NEVER: Final = 1 << 39  # of packets
_NUMBER_BITS: Final = 40  # of a key: the call above them
_SEGMENTS_KEPT: Final = 65_536
_PAYLOADS_KEPT_BYTES: Final = 256 << 20
_OVERLAYS_KEPT: Final = 256


@dataclass(slots=True)
class _Overlay:
    """A clip that is mixed into packets ``first`` to ``end`` of a call."""

    item: int
    call: int
    first: int
    end: int
    samples: I16
    over: bool = False


class Soundtrack:
    """``play`` and ``stop``; ``write`` puts it into payloads. ``codec``: as :func:`strep._codecs.g711.encode` takes it.

    Of what is over, the older half is forgotten when 65,536 segments or 256 MiB of payloads are known; and all but 256
    overlays.
    """

    def __init__(self, codec: Codec, payload_bytes: int) -> None:
        self._codec = codec
        # of each segment, ordered by the first: call << 40 | first packet, packet behind its last, first payload of the
        # clip, payloads of the clip, item, whether it is over
        self._segments = np.zeros((6, 0), np.int64)
        self._payloads = np.zeros((0, payload_bytes), np.uint8)
        self._used = 0
        self._clips: dict[int, tuple[Clip, int]] = {}  # by the clip's identity: its first payload
        self._overlays: list[_Overlay] = []

    def play(self, item: int, call: int, first: int, clip: Clip, loops: int | None, *, overlay: bool = False) -> None:
        """The clip from packet ``first`` of the call on; ``loops`` None is for ever."""
        packets = len(clip.samples)
        end = _NEVER if loops is None else first + loops * packets
        if overlay:
            self._overlays.append(_Overlay(item, call, first, end, clip.samples))
            over = [one for one in self._overlays if one.over]
            for one in over[: max(len(over) - _OVERLAYS_KEPT, 0)]:
                self._overlays.remove(one)
            return
        self._forget()
        segment = [call << _NUMBER_BITS | first, end, self._place(clip), packets, item, 0]
        at = int(np.searchsorted(self._segments[0], segment[0], "right"))
        self._segments = np.insert(self._segments, at, segment, axis=1)

    def stop(self, item: int, end: int) -> None:
        """No more from packet ``end`` on."""
        mine = self._segments[4] == item
        self._segments[1, mine] = np.minimum(self._segments[1, mine], end)
        self._segments[5, mine] = 1
        for overlay in self._overlays:
            if overlay.item == item:
                overlay.end, overlay.over = min(overlay.end, end), True

    def write(self, payloads: U8, call: I64, number: I64) -> None:
        """Put it into payloads, uint8 (n, bytes), of packets ``number`` (n,) of calls (n,); -1: of none."""
        keys, ends, bases, lengths, _, _ = self._segments
        if keys.size:
            at = np.searchsorted(keys, call << _NUMBER_BITS | number, "right") - 1
            known = np.maximum(at, 0)
            heard = (at >= 0) & (keys[known] >> _NUMBER_BITS == call) & (number < ends[known])
            rows = np.flatnonzero(heard)
            if rows.size:
                segment = known[rows]
                since = number[rows] - (keys[segment] & ((1 << _NUMBER_BITS) - 1))
                payloads[rows] = self._payloads[bases[segment] + since % lengths[segment]]
        for overlay in self._overlays:
            rows = np.flatnonzero((call == overlay.call) & (number >= overlay.first) & (number < overlay.end))
            if rows.size:
                samples = overlay.samples[(number[rows] - overlay.first) % len(overlay.samples)]
                payloads[rows] = self._mixed(payloads[rows], samples)

    def _mixed(self, payloads: U8, samples: I16) -> U8:
        heard = decode(self._codec, payloads.reshape(-1)).astype(np.int32) + samples.reshape(-1)
        return encode(self._codec, np.clip(heard, -32768, 32767).astype(np.int16)).reshape(payloads.shape)

    def _place(self, clip: Clip) -> int:
        """Where the clip's payloads begin."""
        if id(clip) not in self._clips:
            payloads = encode(self._codec, clip.samples.reshape(-1)).reshape(len(clip.samples), -1)
            end = self._used + len(payloads)
            if end > len(self._payloads):
                grown = np.zeros((max(end, 2 * len(self._payloads)), self._payloads.shape[1]), np.uint8)
                grown[: self._used] = self._payloads[: self._used]
                self._payloads = grown
            self._payloads[self._used : end] = payloads
            self._clips[id(clip)] = clip, self._used
            self._used = end
        return self._clips[id(clip)][1]

    def _forget(self) -> None:
        segments = self._segments
        if segments.shape[1] < _SEGMENTS_KEPT and self._used * self._payloads.shape[1] < _PAYLOADS_KEPT_BYTES:
            return
        over = np.flatnonzero(segments[5])
        oldest = over[np.argsort(segments[4, over], kind="stable")][: -(-len(over) // 2)]
        self._segments = segments = np.delete(segments, oldest, axis=1)
        clips = {base: clip for clip, base in self._clips.values()}
        self._clips, self._used, self._payloads = {}, 0, self._payloads[:0]
        segments[2] = [self._place(clips[base]) for base in segments[2].tolist()]
