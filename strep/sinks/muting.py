"""Audio with the keys taken out: a stage between the engine and what writes or keeps audio. Pure.

A tone is recognized as a digit at most 60 ms after it began, but by then a file would have it already. So the last
100 ms of each stream are held back until more of its audio has come, or it has ended. In what is let through, digits
are set to zero. Nothing depends on clocks or on how the audio was cut: a stream gives the same samples, live and in a
replay.

Of a digit that was interrupted for more than 30 ms, less than 35 ms of tone may remain: no receiver takes that for a
digit (ITU-T Q.24). RFC 4733 digits are not in the audio at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .._model.blocks import BlockBatch
from .._model.types import Mask
from .analysis.keys import HOP, RATE, KeyFinder, key_bank
from .exclusion import StreamExclusion

if TYPE_CHECKING:
    from .._model.types import StreamInfo
    from .analysis.bank import FrameBatch

__all__ = ["HELD_S", "KeyMuter"]

HELD_S: Final = 0.1  # how much of each stream is held back
_MARGIN_SAMPLES: Final = 40  # at 8 kHz, 5 ms on either side: how exactly beginnings and ends of digits are known


@dataclass(frozen=True, slots=True)
class _Segment:
    """A block, or a part of one."""

    stream: StreamInfo
    position: int
    frames: int
    gap_frames: int
    gap_cause: int
    rtp_timestamp: int
    arrival_ns: int
    time_ns: int
    samples: npt.NDArray[np.int16]  # interleaved
    mask: npt.NDArray[np.uint8] | None

    def split(self, frames: int) -> tuple[_Segment, _Segment]:
        channels = self.stream.channels
        codec = self.stream.codec
        rate = self.stream.sample_rate
        units = frames * codec.clock_rate // codec.sample_rate if codec else frames
        mask = self.mask
        head = replace(
            self,
            frames=frames,
            samples=self.samples[: frames * channels],
            mask=None if mask is None else mask[:frames],
        )
        tail = replace(
            self,
            position=self.position + frames,
            frames=self.frames - frames,
            gap_frames=0,
            gap_cause=0,
            rtp_timestamp=(self.rtp_timestamp + units) & 0xFFFF_FFFF,
            time_ns=self.time_ns + (frames * 1_000_000_000 // rate if rate else 0),
            samples=self.samples[frames * channels :],
            mask=None if mask is None else mask[frames:],
        )
        return head, tail


class KeyMuter:
    """Lets audio through 100 ms late, with DTMF digits zeroed.

    The BlockBatches that come out have no payload bytes: sinks that keep the encoded form cannot be muted this way.
    Call :meth:`process` with each batch, :meth:`end` when a stream has ended. Not thread-safe.

    When looking for keys in a stream raises, the stream is set aside: nothing more of it is let through, not even what
    was held back.

    ``muted_frames``  sample frames zeroed so far
    ``aside``         streams that were set aside, and the frames that this has cost
    """

    def __init__(self) -> None:
        self.aside = StreamExclusion("mute keys")
        self._bank = key_bank(self.aside)
        self._finder = KeyFinder(self.aside)
        self._held: dict[int, list[_Segment]] = {}
        self._spans: dict[int, list[tuple[int, int]]] = {}  # by row, at 8 kHz
        self.muted_frames = 0

    def process(self, batch: BlockBatch) -> BlockBatch | None:
        """What may go now, of the streams that ``batch`` is of."""
        batch = self.aside.rest_of(batch)
        if not len(batch):
            return None
        rows = batch.index.tolist()
        for i, row in enumerate(rows):
            parts = self._held.get(row)
            if parts and parts[0].stream is not batch.streams[i]:  # not told that the row's old stream ended
                self._forget(row)
        self._listen(self._bank.push(batch))
        samples, mask = batch.samples, None if batch.plain else batch.mask
        offset = batch.offset.tolist()
        columns = (
            batch.position,
            batch.frames,
            batch.gap_frames,
            batch.gap_cause,
            batch.rtp_timestamp,
            batch.arrival_ns,
            batch.time_ns,
        )
        first = 0
        for i, (row, position, frames, gap, cause, timestamp, arrival_ns, time_ns) in enumerate(
            zip(rows, *(c.tolist() for c in columns), strict=True)
        ):
            block = samples[offset[i] : offset[i + 1]]
            own = None if mask is None else mask[first : first + frames]
            first += frames
            part = _Segment(batch.streams[i], position, frames, gap, cause, timestamp, arrival_ns, time_ns, block, own)
            self._held.setdefault(row, []).append(part)
        free: list[_Segment] = []
        for row in dict.fromkeys(rows):
            free += self._try_release(row, HELD_S)
        self._drop_fresh()
        return _batch(free)

    def _drop_fresh(self) -> None:
        """Forget what is held of streams that were just set aside; it counts as dropped."""
        for stream in self.aside.take_fresh(None) if self.aside.fresh else ():
            self.aside.dropped_frames += self._frames_of(stream.index)
            self._forget(stream.index)

    def _try_release(self, row: int, held_s: float) -> list[_Segment]:
        stream = self._held[row][0].stream
        if self.aside.fresh and stream in self.aside:
            return []
        free: list[_Segment] = []
        muted, held = self.muted_frames, self._frames_of(row)
        try:
            self._release(row, held_s, free)
        except Exception as error:
            self.aside.dropped_frames += held - self._frames_of(row)
            self.muted_frames = muted
            self.aside.put(stream, error)
            return []
        return free

    def _frames_of(self, row: int) -> int:
        return sum(part.frames for part in self._held.get(row, ()))

    @property
    def streams(self) -> list[StreamInfo]:
        """Streams of which something is held."""
        return [parts[0].stream for parts in self._held.values() if parts]

    def end(self, stream: StreamInfo) -> BlockBatch | None:
        """What is still held of a stream that has ended."""
        row = stream.index
        parts = self._held.get(row)
        free: list[_Segment] = []
        if parts and parts[0].stream is stream:
            try:
                self._listen(self._bank.flush(row))
                self._spans.setdefault(row, []).extend((f.begin, f.end) for f in self._finder.end(row))
            except Exception as error:
                self.aside.put(stream, error)
            free = self._try_release(row, 0.0)
            self._drop_fresh()
        self.aside.forget(stream)
        self._forget(row)
        return _batch(free)

    def _forget(self, row: int) -> None:
        self._held.pop(row, None)
        self._spans.pop(row, None)
        self._bank.reset(row)
        self._finder.reset(row)

    def _listen(self, frames: Sequence[FrameBatch]) -> None:
        for some in frames:
            for keys in self.aside.frames(some, self._finder.find):
                for found in keys:
                    self._spans.setdefault(found.row, []).append((found.begin, found.end))

    def _release(self, row: int, held_s: float, free: list[_Segment]) -> None:
        parts = self._held[row]
        last = parts[-1]
        rate = last.stream.sample_rate or RATE
        cut = last.position + last.frames - round(held_s * rate)
        spans = list(self._spans.get(row, ()))
        going = self._finder.going(row)
        if going is not None:
            spans.append((going[0], going[1] + HOP))
        n = 0
        going_out: list[_Segment] = []
        for n, part in enumerate(parts):
            if part.position + part.frames > cut:
                if part.position < cut:
                    part, parts[n] = part.split(cut - part.position)
                    going_out.append(part)
                break
            going_out.append(part)
        else:
            n = len(parts)
        del parts[:n]
        free += [self._muted(part, spans, rate) for part in going_out]
        if row in self._spans:
            self._spans[row] = [s for s in self._spans[row] if (s[1] + _MARGIN_SAMPLES) * rate > cut * RATE]
            if not self._spans[row]:
                del self._spans[row]

    def _muted(self, part: _Segment, spans: list[tuple[int, int]], rate: int) -> _Segment:
        copied: npt.NDArray[np.int16] | None = None
        for begin, end in spans:
            first = max(0, (begin - _MARGIN_SAMPLES) * rate // RATE - part.position)
            last = min(part.frames, -(-(end + _MARGIN_SAMPLES) * rate // RATE) - part.position)
            if first < last:
                copied = part.samples.copy() if copied is None else copied
                channels = part.stream.channels
                copied[first * channels : last * channels] = 0
                self.muted_frames += last - first
        return part if copied is None else replace(part, samples=copied)


def _batch(parts: list[_Segment]) -> BlockBatch | None:
    if not parts:
        return None
    m = len(parts)

    def column(name: str, dtype: Any = np.int64) -> npt.NDArray[Any]:
        return np.array([getattr(p, name) for p in parts], dtype)

    frames = column("frames")
    offset = np.zeros(m + 1, np.int64)
    np.cumsum([len(p.samples) for p in parts], out=offset[1:])
    samples = np.concatenate([p.samples for p in parts])
    mask = None
    if any(p.mask is not None for p in parts):
        mask = np.concatenate([np.full(p.frames, Mask.RECEIVED, np.uint8) if p.mask is None else p.mask for p in parts])
    arrival, timestamp = column("arrival_ns"), column("rtp_timestamp", np.uint32)
    return BlockBatch(
        streams=[p.stream for p in parts],
        index=np.array([p.stream.index for p in parts], np.int64),
        position=column("position"),
        frames=frames,
        gap_frames=column("gap_frames"),
        gap_cause=column("gap_cause", np.uint8),
        rtp_timestamp=timestamp,
        arrival_ns=arrival,
        time_ns=column("time_ns"),
        offset=offset,
        payload=np.zeros(0, np.uint8),
        payload_offset=np.zeros(m + 1, np.int64),
        packet_first=np.arange(m + 1),
        packet_frames=frames,
        packet_arrival_ns=arrival,
        packet_rtp_timestamp=timestamp,
        decode=lambda: samples,
        mask=mask,
    )
