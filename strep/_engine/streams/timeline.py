"""Where packets stand on their stream's timeline, for all streams at once.

A stream's position counts sample frames from its first audio packet. A packet stands where its RTP timestamp says,
behind the one before it; :mod:`.gaps` says with which gap, and where timestamps are not believed.

Positions are in frames at the stream's rate, which is that of the first packet with audio. Packets of a codec with
another rate (a re-INVITE changed it) are placed as many frames long as they will be when they have been resampled; what
is left of a frame at a packet's end goes to the next packet.

Example at 8 kHz, 20 ms packets: timestamps 160, 320, 640 → positions 0, 160, 480 with a gap of 160 before 480.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from ..._codecs.facts import UNKNOWN
from ..._model.rates import can_resample
from ..._model.types import Codec, GapCause
from ..undo import Undo
from .gaps import RISE_NS, Gaps
from .placement import Anchor, Placement
from .ring_packets import RingPackets

__all__ = ["Timeline"]

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]


_T = TypeVar("_T", bound=np.generic)

_CAUSES: Final = len(GapCause)
_PRIOR_COLUMNS: Final = np.dtype((np.void, 32))  # four of 8 bytes, of the packet before


class Timeline:
    """``place`` is told each packet's codec, as an index into ``codecs``, or UNKNOWN, or NO_AUDIO. ``floor`` int64 is
    that of the streams' lines (``ClockFilter``)."""

    def __init__(self, streams: int, codecs: Sequence[Codec], floor: I64, undo: Undo) -> None:
        self._note = undo.note
        self.codecs = tuple(codecs)
        # two entries behind the codecs, for NO_AUDIO and UNKNOWN
        self._ratio = np.array([c.sample_rate // c.clock_rate for c in codecs] + [1, 1], np.int64)
        self._rate = np.array([c.sample_rate for c in codecs] + [1, 1], np.int64)
        self._clock = np.array([c.clock_rate for c in codecs] + [1, 1], np.int64)
        self._converts = np.ones((len(codecs) + 2, len(codecs) + 2), np.bool_)  # by codec and the stream's codec
        self._converts[:-2, :-2] = [[can_resample(a.sample_rate, b.sample_rate) for b in codecs] for a in codecs]
        self.codec = np.full(streams, -1, np.int16)
        self.position = np.zeros(streams, np.int64)  # where the next frame will stand
        self.gap_frames = np.zeros((streams, _CAUSES), np.int64)
        self._gaps = Gaps(floor, undo)
        self.timestamp_jumps = self._gaps.timestamp_jumps
        self.trimmed = self._gaps.trimmed
        self.undecoded = np.zeros(streams, np.int64)
        self._begun = np.zeros(streams, np.bool_)
        self._expected = np.zeros(streams, np.uint32)
        # of the packet before, side by side, so that all of it is read at once
        prior = np.zeros((streams, 4), np.int64)
        self._prior = prior.view(_PRIOR_COLUMNS)[:, 0]
        # to be indexed: ``take`` would copy all of such a column first
        self._prior_ext, self._prior_arrival_ns, self._prior_frames = prior.T[:3]
        self._refused = self._corrupt = 0
        self._skipped = np.zeros(streams, np.bool_)  # sequence numbers were missing since the last audio packet
        # of the last packet that had another rate: what was left of a frame, in 1 / its rate, its codec, where it ended
        self._rest = np.zeros(streams, np.int64)
        self._rest_codec = np.zeros(streams, np.int16)
        self._rest_at = np.full(streams, -1, np.int64)

    def open(self, rows: I64, first_ext: I64) -> None:
        self.codec[rows] = -1
        self.position[rows] = 0
        self.gap_frames[rows] = 0
        self._gaps.open(rows)
        self.undecoded[rows] = 0
        self._begun[rows] = False
        self._rest_at[rows] = -1
        self._prior_ext[rows] = first_ext - 1
        self._skipped[rows] = False

    def new_source(self, rows: I64, first_ext: I64) -> None:
        self._gaps.new_source(rows)
        self._prior_ext[rows] = first_ext - 1
        self._skipped[rows] = False

    def know(self, rows: I64, ext: I64) -> None:
        """Packets up to these are placed together: each may be judged by those behind it."""
        self._gaps.known_ext[rows] = ext

    def packet_frames(self, rows: I64) -> I64:
        """The length of each stream's last packet with audio."""
        frames: I64 = self._prior_frames[rows]
        return frames

    def take_undecoded(self) -> tuple[int, int]:
        """Packets without audio since the last call: of an unknown payload type or a rate that does not go with their
        stream's, and those whose payload is not one of their codec's."""
        taken = self._refused, self._corrupt
        if any(taken):
            self._note((self.__dict__, "_refused", 0))
            self._note((self.__dict__, "_corrupt", 0))
        self._refused = self._corrupt = 0
        return taken

    def anchor(self, row: int) -> Anchor | None:
        """Where a stream's last packet ended. None before any audio."""
        if not self._begun[row] or self.codec[row] < 0:
            return None
        return Anchor(int(self._expected[row]), int(self.position[row]), self.codecs[int(self.codec[row])])

    def anchors_in(self, placed: Placement, row: int) -> tuple[I64, list[Anchor]]:
        """Packets of a row that were placed: which of the packets given they were, ascending, and where they ended."""
        mine = np.flatnonzero(placed.row == row)
        block = placed.packet_first.searchsorted(mine, "right") - 1
        ends = np.cumsum(placed.frames)
        position = placed.position[block] + ends[mine] - ends[placed.packet_first[block]]
        position += placed.frames[placed.packet_first[block]]
        codec = placed.codec[mine]
        span = placed.own_frames[mine] * self._clock[codec] // self._rate[codec]
        timestamp = placed.timestamp[mine].astype(np.int64) + span
        stream = self.codecs[int(self.codec[row])]
        which = mine if placed.kept is None else placed.kept[mine]
        return which, [Anchor(t, p, stream) for t, p in zip(timestamp.tolist(), position.tolist(), strict=True)]

    def place(self, packets: RingPackets, codec: npt.NDArray[np.int16], frames: I64) -> Placement | None:
        """Move the streams' positions past these packets, of ``frames`` frames each at the rate of their ``codec``.
        None when no packet has audio."""
        row = packets.row
        start = _group_starts(row)
        rows = row[start]
        end = np.append(start[1:], len(row))
        stream = self.codec.take(rows)
        one = int(codec[0])
        odd: npt.NDArray[np.bool_] | None = None
        if one >= 0 and not np.count_nonzero(codec != one):
            span = frames if self._ratio[one] == 1 else frames // self._ratio[one]
            odd_row = stream != one
        else:
            span = frames // self._ratio.take(codec)
            odd = codec != stream.repeat(end - start)
            odd_row = stream < 0
        expected = np.empty(len(row), np.uint32)
        expected[1:] = packets.timestamp[:-1] + span[:-1].astype(np.uint32)
        first = expected[start] = self._expected.take(rows)
        jumps = expected != packets.timestamp
        odd = jumps if odd is None else odd | jumps
        arrival_ns = packets.arrival_ns
        since = np.empty_like(arrival_ns)
        np.subtract(arrival_ns[1:], arrival_ns[:-1], out=since[1:])
        since[start] = arrival_ns.take(start) - self._prior_arrival_ns[rows]
        if since.max() >= RISE_NS:
            odd |= since >= RISE_NS
        odd_row |= self._gaps.asked.take(rows)
        if frames.min() <= 0:
            odd |= frames <= 0
        if np.count_nonzero(odd):
            odd_row |= np.logical_or.reduceat(odd, start)
        count = np.count_nonzero(odd_row)
        if not count:
            return self._place_smooth(
                packets=packets, codec=codec, frames=frames, span=span, start=start, end=end, rows=rows, expected=first
            )
        if 2 * count > len(rows):
            return self._place_any(packets, codec, frames)
        return self._place_apart(
            packets=packets,
            codec=codec,
            frames=frames,
            span=span,
            start=start,
            end=end,
            odd_row=odd_row,
            expected=first,
        )

    def _move_on(
        self, packets: RingPackets, frames: I64, span: I64, expected: U32, last: I64, rows: I64, total: I64
    ) -> tuple[I64, I64]:
        """Streams all of whose packets go on where the one before ended: (their positions before, no gaps)."""
        position = self.position.take(rows)
        note = self._note
        note((self.position, rows, position))
        note((self._expected, rows, expected))
        note((self._prior, rows, self._prior.take(rows)))
        note((self._skipped, rows, self._skipped.take(rows)))
        self.position[rows] = position + total
        self._expected[rows] = packets.timestamp[last] + span[last].astype(np.uint32)
        self._prior_ext[rows] = packets.ext[last]
        self._prior_arrival_ns[rows] = packets.arrival_ns[last]
        self._prior_frames[rows] = frames[last]
        self._skipped[rows] = False
        return position, np.zeros(len(rows), np.int64)

    def _place_smooth(
        self,
        packets: RingPackets,
        codec: npt.NDArray[np.int16],
        frames: I64,
        span: I64,
        start: I64,
        end: I64,
        rows: I64,
        expected: U32,
    ) -> Placement:
        """Every packet goes on where the one before it ended: one block a stream."""
        total = np.add.reduceat(frames, start)
        position, none = self._move_on(
            packets=packets, frames=frames, span=span, expected=expected, last=end - 1, rows=rows, total=total
        )
        return Placement(
            kept=None,
            row=packets.row,
            slot=packets.slot,
            codec=codec,
            length=packets.length,
            own_frames=frames,
            frames=frames,
            trim=None,
            timestamp=packets.timestamp,
            arrival_ns=packets.arrival_ns,
            packet_first=np.append(start, len(frames)),
            block_row=rows,
            position=position,
            block_frames=total,
            gap_frames=none,
            gap_cause=np.zeros(len(rows), np.uint8),
        )

    def _place_apart(
        self,
        packets: RingPackets,
        codec: npt.NDArray[np.int16],
        frames: I64,
        span: I64,
        start: I64,
        end: I64,
        odd_row: npt.NDArray[np.bool_],
        expected: U32,
    ) -> Placement:
        """Most streams merely go on: only the others' packets go the careful way."""
        which = odd_row.repeat(end - start).nonzero()[0]
        odd = self._place_any(packets.take(which), codec[which], frames[which])
        smooth = (~odd_row).nonzero()[0]
        first = start[smooth]
        rows = packets.row[first]
        total = np.add.reduceat(frames, start)[smooth]
        position, gap = self._move_on(
            packets=packets,
            frames=frames,
            span=span,
            expected=expected[smooth],
            last=end[smooth] - 1,
            rows=rows,
            total=total,
        )
        cause = np.zeros(len(rows), np.uint8)
        own_frames, trim = frames, None
        anew: npt.NDArray[np.bool_] | None = None
        kept: I64 | None = None
        if odd is None or len(odd.row) < len(which):
            there = np.ones(len(frames), np.bool_)
            there[which] = False
            if odd is not None and odd.kept is not None:
                there[which[odd.kept]] = True
            kept = there.nonzero()[0]
        if odd is not None:
            placed = which if odd.kept is None else which[odd.kept]
            frames = frames.copy()
            frames[placed] = odd.frames
            if odd.trim is not None:
                trim = np.zeros(len(frames), np.int64)
                trim[placed] = odd.trim
            first = np.concatenate([first, placed[odd.packet_first[:-1]]])
            order = first.argsort()
            first = first[order]
            if odd.anew is not None:
                anew = np.concatenate([np.zeros(len(rows), np.bool_), odd.anew])[order]
            rows = np.concatenate([rows, odd.block_row])[order]
            position = np.concatenate([position, odd.position])[order]
            total = np.concatenate([total, odd.block_frames])[order]
            gap = np.concatenate([gap, odd.gap_frames])[order]
            cause = np.concatenate([cause, odd.gap_cause])[order]
        ends = np.append(
            first if kept is None else kept.searchsorted(first), len(frames) if kept is None else len(kept)
        )
        every: I64 | slice = slice(None) if kept is None else kept
        return Placement(
            kept=kept,
            row=packets.row[every],
            slot=packets.slot[every],
            codec=codec[every],
            length=packets.length[every],
            own_frames=own_frames[every],
            frames=frames[every],
            trim=None if trim is None else trim[every],
            timestamp=packets.timestamp[every],
            arrival_ns=packets.arrival_ns[every],
            packet_first=ends,
            block_row=rows,
            position=position,
            block_frames=total,
            gap_frames=gap,
            gap_cause=cause,
            anew=anew,
        )

    def _place_any(self, packets: RingPackets, codec: npt.NDArray[np.int16], own_frames: I64) -> Placement | None:
        row, ext = packets.row, packets.ext
        start = _group_starts(row)
        rows = row[start]
        self._note_all(rows)
        # sequence numbers missing before each packet, summed, so that packets without audio do not hide them
        prior = np.empty_like(ext)
        prior[1:] = ext[:-1]
        prior[start] = self._prior_ext[rows]
        corrupt = (codec >= 0) & (own_frames == 0) & (packets.length > 0)
        missing = np.cumsum((ext - prior > 1) | corrupt)  # what cannot be decoded is as good as lost
        last = np.append(start[1:], len(row)) - 1
        self._prior_ext[rows] = ext[last]

        audio = (codec >= 0) & (own_frames > 0)
        self._settle_codecs(row, codec, audio)
        stream = self.codec[row]
        rate, scaled = self._rate[codec], own_frames * self._rate[stream]
        fits = (scaled >= rate) & self._converts[codec, stream]  # shorter than a frame of the stream: nothing is heard
        refused = row[(~fits & audio) | (codec == UNKNOWN)]
        if refused.size:
            np.add.at(self.undecoded, refused, 1)
            self._refused += refused.size
        if corrupt.any():
            np.add.at(self.undecoded, row[corrupt], 1)
            self._corrupt += int(np.count_nonzero(corrupt))
        audio &= fits
        keep = audio.nonzero()[0]
        if not keep.size:
            # holes seen here still stand before the next audio packet
            base = np.append(0, missing)[start]
            self._skipped[rows] |= missing[last] > base
            return None

        base, end = np.append(0, missing)[start], missing[last]
        with_audio = np.logical_or.reduceat(audio, start).nonzero()[0]
        row, own_frames, codec = row[keep], own_frames[keep], codec[keep]
        timestamp, arrival = packets.timestamp[keep], packets.arrival_ns[keep]
        start = _group_starts(row)
        audio_rows = row[start]
        frames, rest = self._resampled(scaled[keep], rate[keep], codec, start, audio_rows)
        seen = missing[keep]
        before = np.empty_like(seen)
        before[1:] = seen[:-1]
        before[start] = base[with_audio]
        lost = seen > before
        lost[start] |= self._skipped[audio_rows]
        last = np.append(start[1:], len(row)) - 1
        # what is missing after the last audio packet of a row waits for the next one
        self._skipped[rows] |= end > base
        self._skipped[audio_rows] = end[with_audio] > seen[last]

        gap, trim, cause, anchored = self._before(
            row=row,
            start=start,
            ext=ext[keep],
            own_frames=own_frames,
            frames=frames,
            codec=codec,
            timestamp=timestamp,
            arrival=arrival,
            lost=lost,
        )
        frames = frames - trim
        advance = gap + frames
        ends = np.cumsum(advance)
        before_group = np.append(0, ends)[start]
        length = np.diff(np.append(start, len(row)))
        position = ends - frames + np.repeat(self.position[audio_rows] - before_group, length)
        self.position[audio_rows] = position[last] + frames[last]
        if rest is not None:
            self._rest[audio_rows], self._rest_codec[audio_rows] = rest[last], codec[last]
            self._rest_at[audio_rows] = self.position[audio_rows]
        self._begun[audio_rows] = True
        gapped = gap > 0
        before_gap = gapped.nonzero()[0]
        if before_gap.size:
            np.add.at(self.gap_frames, (row[before_gap], cause[before_gap]), gap[before_gap])

        opens = gapped | (cause != 0)
        opens[start] = True
        first = opens.nonzero()[0]
        return Placement(
            kept=keep,
            row=row,
            slot=packets.slot[keep],
            codec=codec,
            length=packets.length[keep],
            own_frames=own_frames,
            frames=frames,
            trim=trim if np.count_nonzero(trim) else None,
            timestamp=timestamp,
            arrival_ns=arrival,
            packet_first=np.append(first, len(row)),
            block_row=row[first],
            position=position[first],
            block_frames=np.add.reduceat(frames, first),
            gap_frames=gap[first],
            gap_cause=np.where(gap[first] > 0, cause[first], 0).astype(np.uint8),
            anew=anchored[first] if anchored.any() else None,
        )

    def _resampled(
        self, scaled: I64, rate: I64, codec: npt.NDArray[np.int16], start: I64, rows: I64
    ) -> tuple[I64, I64 | None]:
        """How many frames packets are at their stream's rate, ``scaled / rate``: a codec's packets in a row are rounded
        down together. And what is then left of a frame, in 1 / rate; None where nothing ever is.

        Example: 365 frames at 44.1 kHz are 66.2 at 8 kHz; five of them in a row are 66, 66, 66, 66, 67.
        """
        frames = scaled // rate
        going_on = self._rest_at.take(rows) == self.position.take(rows)
        if not np.count_nonzero(frames * rate != scaled) and not np.count_nonzero(going_on):
            return frames, None
        going_on &= self._rest_codec.take(rows) == codec.take(start)
        carried = np.zeros(len(codec), np.int64)
        carried[start] = np.where(going_on, self._rest.take(rows), 0)
        begins = np.append(True, codec[1:] != codec[:-1])
        begins[start] = True
        first = begins.nonzero()[0]
        total = np.cumsum(scaled)
        before = np.repeat((total - scaled - carried)[first], np.diff(np.append(first, len(codec))))
        end = total - before
        return end // rate - (end - scaled) // rate, end % rate

    def _note_all(self, rows: I64) -> None:
        for column in (
            self.codec, self.position, self.gap_frames, self.undecoded,
            self._begun, self._expected, self._prior, self._skipped, self._rest, self._rest_codec, self._rest_at,
        ):  # fmt: skip
            self._note((column, rows, column.take(rows, axis=0)))
        self._gaps.note(rows)
        self._note((self.__dict__, "_refused", self._refused))
        self._note((self.__dict__, "_corrupt", self._corrupt))

    def _settle_codecs(self, row: I64, codec: npt.NDArray[np.int16], audio: npt.NDArray[np.bool_]) -> None:
        """Streams without a codec take that of their first packet with audio."""
        new = (audio & (self.codec[row] < 0)).nonzero()[0]
        if new.size:
            first, index = np.unique(row[new], return_index=True)
            self.codec[first] = codec[new[index]]

    def _before(
        self,
        row: I64,
        start: I64,
        ext: I64,
        own_frames: I64,
        frames: I64,
        codec: npt.NDArray[np.int16],
        timestamp: U32,
        arrival: I64,
        lost: npt.NDArray[np.bool_],
    ) -> tuple[I64, I64, I64, npt.NDArray[np.bool_]]:
        """As :meth:`Gaps.before`; moves on to the last packets."""
        rows = row[start]
        clock, rate = self._clock[codec], self._rate[self.codec[row]]
        ends = timestamp + (own_frames * clock // self._rate[codec]).astype(np.uint32)
        expected = _shifted(ends, start, self._expected[rows])
        prior_arrival = _shifted(arrival, start, self._prior_arrival_ns[rows])
        last = np.append(start[1:], len(row)) - 1
        self._expected[rows] = ends[last]
        self._prior_arrival_ns[rows] = arrival[last]
        self._prior_frames[rows] = frames[last]

        return self._gaps.before(
            row=row,
            start=start,
            ext=ext,
            rate=rate,
            delta=(timestamp - expected).view(np.int32).astype(np.int64) * rate // clock,
            frames=frames,
            arrival=arrival,
            lost=lost,
            begun=self._begun[rows],
            position=self.position[rows],
            prior_arrival=prior_arrival,
        )


def _group_starts(row: I64) -> I64:
    """Where each run of equal rows begins."""
    edge = np.empty(len(row), np.bool_)
    edge[0] = True
    np.not_equal(row[1:], row[:-1], out=edge[1:])
    return edge.nonzero()[0]


def _shifted(values: npt.NDArray[_T], start: I64, first: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Each packet's predecessor's value; ``first`` for the packets at ``start``."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[start] = first
    return shifted
