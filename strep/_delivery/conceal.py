"""Gaps of all streams made audible: batches of blocks in, the same without short gaps out. Pure.

A gap of up to 1 s becomes samples at the beginning of the block behind it, by its cause:

    LOSS, OVERRUN    the first 60 ms continued from what came before (CONCEALED; see :mod:`.plc`), zeros beyond (LOST)
    RESTART          zeros (LOST): nobody knows how long it was, nor what was said before
    SILENCE, HOLD    comfort noise where the sender has told its level (RFC 3389), else zeros (SILENCE)

What a codec's own decoder made up for a gap is taken instead (CONCEALED; of suppressed silence, SILENCE). Longer gaps
stay gaps: behind them everything begins anew. The result does not depend on how the audio was cut into blocks and
batches.

Up to 10 ms behind a concealed loss are a mix of what was received, at a weight that rises to 1, and of the fading
repetition. Their mask stays RECEIVED, so that there are as many RECEIVED samples as packets brought. Whoever needs them
unaltered takes the batch that was not filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.blocks import BlockBatch, joined
from .._model.types import GapCause, Mask, StreamInfo
from .history import AudioHistory
from .plc import concealed_frames, continued

__all__ = ["Concealer", "NoiseMaker", "white_noise"]

F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NoiseMaker = Callable[[bytes, int, int, np.random.Generator], npt.NDArray[np.int16]]
"""``(payload, frames, rate, rng)`` → int16 (frames,): comfort noise as an RFC 3389 payload describes it."""

_SILENT: Final = (int(GapCause.SILENCE), int(GapCause.HOLD))


def white_noise(payload: bytes, frames: int, rate: int, rng: np.random.Generator) -> I16:
    """White noise at the level in the payload's first byte, in -dBov (RFC 3389, section 3): int16 (frames,)."""
    if not payload:
        return np.zeros(frames, np.int16)
    level = 32_768.0 * 10.0 ** (-(payload[0] & 0x7F) / 20.0)
    return _int16(rng.standard_normal(frames) * level)


class Concealer:
    """Fills the gaps of one batch after the other: each once, in order. Streams are told apart by their ``serial``.

    ``on_fault`` is called with a stream for which this raises, and the error: its gaps stay, others' are filled.
    """

    def __init__(
        self,
        noise: NoiseMaker = white_noise,
        on_fault: Callable[[StreamInfo, Exception], object] = lambda stream, error: None,
    ) -> None:
        self._noise = noise
        self._on_fault = on_fault
        self._spared: dict[int, int] = {}  # by row: serials of streams whose gaps stay
        self._formats: dict[tuple[int, int], AudioHistory] = {}  # by rate and channels
        self._pasts: list[AudioHistory] = []
        # by row
        self._serial = np.full(0, -1, np.int64)
        self._format = np.zeros(0, np.int64)
        self._rate = np.zeros(0, np.int64)
        self._clock = np.zeros(0, np.int64)
        self._channels = np.zeros(0, np.int64)
        self._next = np.zeros(0, np.int64)  # where its next block, or the gap before it, begins
        self._fading: dict[int, tuple[F64, F64]] = {}  # what is still to be mixed into what comes next: tail, weight

    def fill(self, batch: BlockBatch) -> BlockBatch:
        """The batch without gaps up to 1 s; the same batch if it has none.

        Blocks behind a gap begin earlier by ``gap_frames``, which becomes 0: ``position``, ``time_ns`` and
        ``rtp_timestamp`` move back, and so do those of the first packet, whose ``packet_frames`` count what was filled.
        ``payload`` and ``payload_offset`` are what was received and no more.
        """
        if not len(batch):
            return batch
        if self._spared and (rest := batch.without(set(self._spared.values()))) is not batch:
            return _with(batch, rest, self.fill(rest))
        try:
            filled, notes = self._work(batch)
        except Exception:
            found = [] if batch.error is not None else self._guilty(batch)
            if not found:
                raise
            for stream, error in found:
                self._spared[stream.index] = stream.serial
                self._on_fault(stream, error)
            return self.fill(batch)
        self._remember(filled, notes)
        return filled

    def _guilty(self, batch: BlockBatch) -> list[tuple[StreamInfo, Exception]]:
        """For which streams this raises."""
        try:
            self._work(batch)
        except Exception as error:
            starts = batch.starts()
            if len(starts) <= 2:
                return [(batch.streams[0], error)]
        else:
            return []
        middle = starts[len(starts) // 2]
        parts = np.arange(middle), np.arange(middle, len(batch))
        return [one for part in parts for one in self._guilty(batch.take(part))]

    def _work(self, batch: BlockBatch) -> tuple[BlockBatch, _Notes]:
        """The batch filled, and what is to be remembered of it; nothing is remembered yet."""
        count = len(batch)
        rows = batch.index
        serial = np.fromiter([stream.serial for stream in batch.streams], np.int64, count)
        head = np.empty(count, np.bool_)  # a stream's first block in the batch
        head[0] = True
        np.not_equal(serial[1:], serial[:-1], out=head[1:])
        self._meet(batch.streams, rows, serial)
        gap = batch.gap_frames
        rate = self._rate.take(rows)
        end = batch.position + batch.frames
        expected = np.empty(count, np.int64)
        expected[1:] = end[:-1]
        first = np.flatnonzero(head)
        expected[first] = self._next.take(rows[first])
        # behind a long gap, and where blocks have passed unseen, nothing is known of what came before
        anew = (gap > rate) | (batch.position - gap != expected)
        last = np.append(first[1:], count) - 1
        fading: _Fading = {}
        if gap.any() or (self._fading and not self._fading.keys().isdisjoint(rows.tolist())):
            filling = _Filling(self, batch, head, anew, np.where(anew, 0, gap))
            batch, fading = filling.run(), filling.fading
        begins = np.maximum.accumulate(np.where(head | anew, np.arange(count), 0))[last]
        begin, until = batch.offset[begins], batch.offset[last + 1]
        if int(until.max()) > len(batch.samples):
            raise ValueError("blocks of more samples than there are")
        return batch, _Notes(rows[last], end[last], begin, until, anew[begins], fading)

    def _meet(self, streams: Any, rows: I64, serial: I64) -> None:
        """Streams that were not seen before take their rows."""
        missing = int(rows.max()) + 1 - len(self._serial)
        if missing > 0:
            more = max(missing, len(self._serial), 256)
            self._serial = np.append(self._serial, np.full(more, -1))
            for name in ("_format", "_rate", "_clock", "_channels", "_next"):
                setattr(self, name, np.append(getattr(self, name), np.zeros(more, np.int64)))
        for i in np.flatnonzero(self._serial.take(rows) != serial).tolist():
            row, stream = int(rows[i]), streams[i]
            if self._serial[row] == stream.serial:
                continue
            past = self._past(stream)
            self._serial[row] = stream.serial
            self._format[row] = past.number
            self._rate[row] = past.rate
            self._clock[row] = stream.codec.clock_rate if stream.codec else past.rate
            self._channels[row] = past.channels
            self._next[row] = -1
            self._fading.pop(row, None)

    def _past(self, stream: StreamInfo) -> AudioHistory:
        form = (stream.sample_rate, stream.channels)
        past = self._formats.get(form)
        if past is None:
            past = self._formats[form] = AudioHistory(len(self._pasts), *form)
            self._pasts.append(past)
        return past

    def _remember(self, batch: BlockBatch, notes: _Notes) -> None:
        """Keep the ends of streams."""
        samples = batch.samples
        rows, begin, end, anew = notes.rows, notes.begin, notes.end, notes.anew
        self._next[rows] = notes.next
        for row, rest in notes.fading.items():
            if rest is None:
                self._fading.pop(row, None)
            else:
                self._fading[row] = rest
        if len(self._pasts) == 1:
            self._pasts[0].append(rows, samples, begin, end - begin, anew)
            return
        format_ = self._format.take(rows)
        for number in np.unique(format_).tolist():
            mine = format_ == number
            self._pasts[number].append(rows[mine], samples, begin[mine], (end - begin)[mine], anew[mine])


_Fading = dict[int, "tuple[F64, F64] | None"]


@dataclass(frozen=True, slots=True)
class _Notes:
    """Of each stream in a batch: its row, where its next block is expected, where in the samples its last stretch
    without a break begins and ends, whether what was kept so far does not precede that; and what fades on, by row."""

    rows: I64
    next: I64
    begin: I64
    end: I64
    anew: Bools
    fading: _Fading


class _Filling:
    """One batch on its way. Places in ``samples`` are of values, places in ``mask`` of frames."""

    def __init__(self, concealer: Concealer, batch: BlockBatch, head: Bools, anew: Bools, inside: I64) -> None:
        self._concealer = concealer
        self.fading: _Fading = {}
        self._batch = batch
        self._own = batch.own_fill
        self._head = head
        self._anew = anew
        self._inside = inside  # frames of each block's gap that become samples
        rows = batch.index
        self._channels = concealer._channels.take(rows)
        self._frames = batch.frames + inside
        count = len(batch)
        self._offset = np.zeros(count + 1, np.int64)
        np.cumsum(self._frames * self._channels, out=self._offset[1:])
        self._samples = self._spread()
        self._place = np.cumsum(self._frames) - self._frames
        self._mask = self._spread_mask()
        self._segment = np.maximum.accumulate(np.where(head | anew, np.arange(count), 0))
        self._breaks = np.flatnonzero(head | anew | (batch.gap_frames > 0))

    def _spread(self) -> I16:
        """What was received, with room before blocks that follow a gap."""
        samples, source = self._batch.samples, self._batch.offset
        out = np.zeros(int(self._offset[-1]), np.int16)
        cuts = [*{0, *np.flatnonzero(self._inside).tolist()}, len(self._batch)]
        cuts.sort()
        for a, b in pairwise(cuts):
            values = samples[source[a] : source[b]]
            at = int(self._offset[a] + self._inside[a] * self._channels[a])
            out[at : at + len(values)] = values
        return out

    def _spread_mask(self) -> npt.NDArray[np.uint8]:
        out = np.full(int(self._frames.sum()), Mask.RECEIVED, np.uint8)
        if self._batch.failed:
            within = np.arange(len(out)) - np.repeat(self._place, self._frames)
            out[within >= np.repeat(self._inside, self._frames)] = self._batch.mask
        return out

    def run(self) -> BlockBatch:
        self._go_on_fading()
        gaps = np.flatnonzero(self._inside).tolist()
        rounds: list[list[int]] = []  # a stream's losses follow each other, those of different streams go together
        turn: dict[int, int] = {}
        for i in gaps:
            if not self._fill_without_past(i):
                serial = self._batch.streams[i].serial
                number = turn.get(serial, 0)
                turn[serial] = number + 1
                if number == len(rounds):
                    rounds.append([])
                rounds[number].append(i)
        formats = self._concealer._format.take(self._batch.index)
        for members in rounds:
            by_format: dict[int, list[int]] = {}
            for i in members:
                by_format.setdefault(int(formats[i]), []).append(i)
            for number, together in by_format.items():
                self._continue(self._concealer._pasts[number], together)
        return self._made()

    def _fill_without_past(self, i: int) -> bool:
        """Fill a gap that is not concealed by what came before; False: it is to be."""
        batch = self._batch
        at, frames, place = int(self._offset[i]), int(self._inside[i]), int(self._place[i])
        channels = int(self._channels[i])
        cause = int(batch.gap_cause[i])
        own = self._own.get(i)
        if own is not None:
            whole = min(len(own) // channels, frames)
            self._samples[at : at + whole * channels] = own[: whole * channels]
            # what a decoder makes of suppressed silence is its comfort noise
            silent = cause in _SILENT
            self._mask[place : place + whole] = Mask.SILENCE if silent else Mask.CONCEALED
            self._mask[place + whole : place + frames] = Mask.SILENCE if silent else Mask.LOST
        elif cause in _SILENT:
            self._mask[place : place + frames] = Mask.SILENCE
            payload = batch.noise.get(i)
            if payload is not None:
                stream = batch.streams[i]
                begin = int(batch.position[i]) - frames
                rng = np.random.default_rng((stream.serial, begin))
                target = self._samples[at : at + frames * channels].reshape(frames, channels)
                for channel in range(channels):
                    target[:, channel] = self._concealer._noise(payload, frames, stream.sample_rate, rng)
        elif cause == GapCause.RESTART:
            self._mask[place : place + frames] = Mask.LOST
        else:
            return False
        return True

    def _continue(self, past: AudioHistory, gaps: list[int]) -> None:
        """Losses of different streams of one format, continued together; their channels are rows of their own."""
        channels, size = past.channels, past.size
        history = np.zeros((len(gaps), size), np.int16)
        for k, i in enumerate(gaps):
            at, segment = int(self._offset[i]), int(self._segment[i])
            here = min(size, at - int(self._offset[segment]))
            history[k, size - here :] = self._samples[at - here : at]
            if here < size and not self._anew[segment]:
                before = past.end(int(self._batch.index[i]), size - here)
                history[k, size - here - len(before) : size - here] = before
        length = self._inside[gaps]
        made = continued(_by_channel(history, channels), np.repeat(length, channels), past.rate)
        concealed = np.minimum(length, concealed_frames(past.rate))
        samples = _int16(made.samples).reshape(len(gaps), channels, -1)
        for k, i in enumerate(gaps):
            at, place, frames = int(self._offset[i]), int(self._place[i]), int(length[k])
            count = int(concealed[k])
            self._samples[at : at + count * channels] = samples[k, :, :count].T.reshape(-1)
            self._mask[place : place + count] = Mask.CONCEALED
            self._mask[place + count : place + frames] = Mask.LOST

        tail, weight = (a.reshape(len(gaps), channels, -1) for a in (made.tail, made.weight))
        behind = self._offset[gaps] + length * channels
        ample = (self._offset[self._until(gaps)] - behind) // channels >= tail.shape[2]
        if ample.any():
            places = behind[ample, None] + np.arange(tail.shape[2] * channels)
            received = _by_channel(self._samples[places], channels).reshape(-1, channels, tail.shape[2])
            mixed = _int16(received * weight[ample] + tail[ample])
            self._samples[places] = mixed.transpose(0, 2, 1).reshape(places.shape)
        for k in np.flatnonzero(~ample).tolist():
            self._fade(gaps[k], int(behind[k]), tail[k], weight[k])

    def _until(self, blocks: npt.ArrayLike) -> I64:
        """The first block that does not go on where the one before it ended, after each of these."""
        ends = np.append(self._breaks, len(self._batch))
        return ends[self._breaks.searchsorted(blocks, side="right")]

    def _go_on_fading(self) -> None:
        """Mix into the beginnings of streams what the last batch had no room for."""
        fading = self._concealer._fading
        if not fading:
            return
        for i in np.flatnonzero(self._head).tolist():
            row = int(self._batch.index[i])
            rest = fading.get(row)
            if rest is None:
                continue
            self.fading[row] = None
            if not self._batch.gap_frames[i] and not self._anew[i]:
                self._fade(i, int(self._offset[i]), *rest)

    def _fade(self, i: int, at: int, tail: F64, weight: F64) -> None:
        """Mix a fading tail into what was received from ``at`` in block ``i`` on, up to the next gap."""
        channels = len(tail)
        until = int(self._until(i))
        count = min(tail.shape[1], (int(self._offset[until]) - at) // channels)
        values = self._samples[at : at + count * channels].reshape(count, channels)
        values[:] = _int16(values * weight[:, :count].T + tail[:, :count].T)
        if count < tail.shape[1] and (until == len(self._batch) or self._head[until]):
            row = int(self._batch.index[i])
            self.fading[row] = (tail[:, count:].copy(), weight[:, count:].copy())

    def _made(self) -> BlockBatch:
        batch, inside, samples = self._batch, self._inside, self._samples
        rows, first = batch.index, batch.packet_first[:-1]
        rate = self._concealer._rate.take(rows)
        back = (inside * self._concealer._clock.take(rows) // rate).astype(np.uint32)
        packet_frames = batch.packet_frames.copy()
        packet_frames[first] += inside
        packet_timestamp = batch.packet_rtp_timestamp.copy()
        packet_timestamp[first] -= back
        return BlockBatch(
            streams=batch.streams,
            index=rows,
            position=batch.position - inside,
            frames=self._frames,
            gap_frames=batch.gap_frames - inside,
            gap_cause=np.where(inside > 0, 0, batch.gap_cause).astype(np.uint8),
            rtp_timestamp=batch.rtp_timestamp - back,
            arrival_ns=batch.arrival_ns,
            time_ns=batch.time_ns - inside * 1_000_000_000 // rate,
            offset=self._offset,
            payload=batch.payload,
            payload_offset=batch.payload_offset,
            packet_first=batch.packet_first,
            packet_frames=packet_frames,
            packet_arrival_ns=batch.packet_arrival_ns,
            packet_rtp_timestamp=packet_timestamp,
            packet_offset=batch.packet_offset,
            decode=lambda: samples,
            mask=self._mask,
        )


def _with(batch: BlockBatch, rest: BlockBatch, filled: BlockBatch) -> BlockBatch:
    """The blocks of ``batch``: filled those that ``rest`` has of it, the others as they are."""
    if filled is rest:
        return batch
    serials = {stream.serial for stream in rest.streams}
    inside = np.array([stream.serial in serials for stream in batch.streams])
    order = np.empty(len(batch), np.int64)
    order[np.flatnonzero(inside)] = np.arange(len(rest))
    order[np.flatnonzero(~inside)] = len(rest) + np.arange(len(batch) - len(rest))
    return joined([filled, batch.take(np.flatnonzero(~inside))]).take(order)


def _by_channel(history: I16, channels: int) -> F64:
    """(k, frames * channels) interleaved → float64 (k * channels, frames)."""
    apart = history.reshape(len(history), -1, channels).transpose(0, 2, 1)
    return np.ascontiguousarray(apart, np.float64).reshape(len(history) * channels, -1)


def _int16(values: F64) -> I16:
    return np.clip(np.rint(values), -32_768, 32_767).astype(np.int16)
