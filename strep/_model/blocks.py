"""A batch of decoded blocks as ragged arrays: what the engine gives to sinks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .spans import begins_of, offsets_of, runs_of
from .types import Gap, GapCause, Mask, StreamInfo

__all__ = ["Block", "BlockBatch", "joined"]

_PER_BLOCK: Final = (
    "index", "position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns"
)  # fmt: skip
_PER_PACKET: Final = ("packet_frames", "packet_arrival_ns", "packet_rtp_timestamp")


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of one stream without a hole.

    ``samples``  int16, shape (frames,), or (frames, channels) of streams with several channels
    ``mask``     uint8 (frames,), a :class:`strep.Mask` for each frame: RECEIVED, if gaps are not concealed and all
                 could be decoded
    """

    stream: StreamInfo
    position: int  # of the first frame on the stream's timeline, in sample frames
    gap: Gap | None  # what is missing directly before ``position``
    rtp_timestamp: int
    arrival_ns: int  # UTC nanoseconds, of the packet that the first frame came in
    samples: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    time_ns: int = 0  # UTC nanoseconds: the first frame on the receiver's clock, as ``BlockBatch.time_ns`` tells


class BlockBatch:
    """What became ready of all streams at once: ``m`` blocks, made of ``p`` packets, in ragged arrays.

    A block is a run of samples without a hole. Blocks of one stream are adjacent and in time order; ``gap_frames`` and
    ``gap_cause`` tell of a hole before a block. ``position`` counts sample frames from the stream's first sample, gaps
    included: ``position[i] == position[i-1] + frames[i-1] + gap_frames[i]`` within a stream. A sample frame is one
    sample of each channel.

    Per block, shape (m,):
      ``streams``        list of StreamInfo
      ``index``          int64, the stream's row: ``StreamInfo.index``
      ``position``       int64, sample frames
      ``frames``         int64, sample frames
      ``gap_frames``     int64, sample frames missing directly before the block
      ``gap_cause``      uint8, :class:`strep.GapCause`
      ``rtp_timestamp``  uint32, of the first packet
      ``arrival_ns``     int64, UTC nanoseconds, of the first packet
      ``time_ns``        int64, UTC nanoseconds: when the first frame would have arrived without jitter, by a filter for
                         the minimum delay. It puts positions on the receiver's clock, so that streams can be compared.
                         It goes with the position for 10 s, then steps by what the sender's clock has drifted; no block
                         reaches over such a step
      ``transcoded``     bool: not all bytes of ``payload`` are in the stream's codec. None: of no block
      ``mixed``          bool: not all packets came in the stream's codec, so ``payload`` may decode to other samples
                         than ``samples``. None: of no block
    Per block and one more, int64 (m+1,), where each begins and the last one ends:
      ``offset``         block i has the values ``samples[offset[i]:offset[i+1]]``, channels interleaved
      ``payload_offset`` and the bytes ``payload[payload_offset[i]:payload_offset[i+1]]``
      ``packet_first``   and the packets ``packet_first[i]:packet_first[i+1]``
    Per packet, shape (p,):
      ``packet_frames``         int64, sample frames
      ``packet_arrival_ns``     int64, UTC nanoseconds
      ``packet_rtp_timestamp``  uint32
    Per packet and one more, int64 (p+1,):
      ``packet_offset``         packet k has the bytes ``payload[packet_offset[k]:packet_offset[k+1]]``. None: not known
    All blocks end to end:
      ``payload``  uint8: the encoded bytes as received. Where a sender changed from G.711 or L16 to another of these,
                   of the same rate and channels, they have been put into the stream's codec
      ``samples``  int16: decoded when they are first asked for, then kept
      ``mask``     uint8, a :class:`strep.Mask` for each sample frame. Asking for it decodes
    Besides:
      ``noise``     by block: the comfort noise payload (RFC 3389) that is in force in the silence before it
      ``own_fill``  by block: what the codec's own decoder puts in place of the gap before it, int16, interleaved
      ``failed``    packets that could not be decoded: zeros, LOST in ``mask``. Asking for it decodes
      ``plain``     whether every sample was received and could be decoded. Asking for it decodes
      ``filled``    the same batch with gaps concealed, which sinks with ``concealment`` get

    The arrays are new ones in every batch: a sink may keep them, but must not write to them.
    """

    __slots__ = (
        "_decode",
        "_failed",
        "_mask",
        "_own_fill",
        "_samples",
        "arrival_ns",
        "error",
        "fill",
        "frames",
        "gap_cause",
        "gap_frames",
        "index",
        "mixed",
        "noise",
        "offset",
        "packet_arrival_ns",
        "packet_first",
        "packet_frames",
        "packet_offset",
        "packet_rtp_timestamp",
        "payload",
        "payload_offset",
        "position",
        "rtp_timestamp",
        "streams",
        "time_ns",
        "transcoded",
    )

    def __init__(
        self,
        *,
        streams: Sequence[StreamInfo],
        index: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
        frames: npt.NDArray[np.int64],
        gap_frames: npt.NDArray[np.int64],
        gap_cause: npt.NDArray[np.uint8],
        rtp_timestamp: npt.NDArray[np.uint32],
        arrival_ns: npt.NDArray[np.int64],
        time_ns: npt.NDArray[np.int64],
        offset: npt.NDArray[np.int64],
        payload: npt.NDArray[np.uint8],
        payload_offset: npt.NDArray[np.int64],
        packet_first: npt.NDArray[np.int64],
        packet_frames: npt.NDArray[np.int64],
        packet_arrival_ns: npt.NDArray[np.int64],
        packet_rtp_timestamp: npt.NDArray[np.uint32],
        decode: Callable[[], npt.NDArray[np.int16]],
        packet_offset: npt.NDArray[np.int64] | None = None,
        transcoded: npt.NDArray[np.bool_] | None = None,
        mixed: npt.NDArray[np.bool_] | None = None,
        own_fill: Callable[[], dict[int, npt.NDArray[np.int16]]] | None = None,
        noise: dict[int, bytes] | None = None,
        mask: npt.NDArray[np.uint8] | None = None,
        fill: Callable[[], BlockBatch | None] | None = None,
        failed: Collection[int] = (),
    ) -> None:
        """``decode`` makes the samples; when it has returned, ``failed`` is complete. ``own_fill`` and ``fill`` make
        what the properties ``own_fill`` and ``filled`` give (``fill`` returns None for the batch itself). ``mask``: of
        a batch with made-up samples; None: all were received, except what cannot be decoded."""
        self.streams = streams
        self.index = index
        self.position = position
        self.frames = frames
        self.gap_frames = gap_frames
        self.gap_cause = gap_cause
        self.rtp_timestamp = rtp_timestamp
        self.arrival_ns = arrival_ns
        self.time_ns = time_ns
        self.offset = offset
        self.payload = payload
        self.payload_offset = payload_offset
        self.packet_first = packet_first
        self.packet_frames = packet_frames
        self.packet_arrival_ns = packet_arrival_ns
        self.packet_rtp_timestamp = packet_rtp_timestamp
        self.packet_offset = packet_offset
        self._decode = decode
        self._samples: npt.NDArray[np.int16] | None = None
        self._mask = mask
        self._failed = failed
        self.transcoded = transcoded
        self.mixed = mixed
        self._own_fill = own_fill
        self.noise = noise or {}
        self.fill = fill  # returns None for the batch itself, which would otherwise hold itself
        self.error: Exception | None = None  # why there are no samples; not the fault of the sink that asked for them

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def samples(self) -> npt.NDArray[np.int16]:
        """All blocks' samples, one block after the other: int16, shape as told above. Decoded when first asked for."""
        if self._samples is None:
            try:
                self._samples = self._decode()
            except Exception as error:
                self.error = error
                raise
        return self._samples

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """Where each sample frame comes from: codes of :class:`Mask`, uint8, shape (frames,)."""
        if self._mask is None:
            mask = np.full(int(self.frames.sum()), Mask.RECEIVED, np.uint8)
            if failed := sorted(self.failed):
                ends = np.cumsum(self.packet_frames)
                for end, frames in zip(ends[failed].tolist(), self.packet_frames[failed].tolist(), strict=True):
                    mask[end - frames : end] = Mask.LOST
            self._mask = mask
        return self._mask

    @property
    def known_mask(self) -> npt.NDArray[np.uint8] | None:
        """``mask``, where it is known without decoding: of a batch with made-up samples; None: of no other."""
        return self._mask

    @property
    def failed(self) -> Collection[int]:
        """Indices of packets that could not be decoded: their samples are zeros."""
        if self._samples is None:
            self._samples = self._decode()
        return self._failed

    @property
    def own_fill(self) -> dict[int, npt.NDArray[np.int16]]:
        """By packet index: what its decoder made up for it, int16."""
        return {} if self._own_fill is None else self._own_fill()

    @property
    def plain(self) -> bool:
        """Whether every sample was received: none is made up, and all could be decoded."""
        return self._mask is None and not self.failed

    @property
    def filled(self) -> BlockBatch:
        """The same blocks with gaps concealed, if anybody conceals them; otherwise this batch."""
        filled = None if self.fill is None else self.fill()
        return self if filled is None else filled

    def take(self, blocks: npt.NDArray[np.intp]) -> BlockBatch:
        """A batch of some of the blocks. ``blocks``: their indices, ascending. Samples are decoded when somebody asks
        for them, together with those of the whole batch."""
        first, per_block = self.packet_first, np.diff(self.packet_first)
        packets = runs_of(first[:-1][blocks], per_block[blocks])
        place = {block: i for i, block in enumerate(blocks.tolist())}
        mask = self._mask
        if mask is not None:
            mask = mask[runs_of(begins_of(self.frames)[blocks], self.frames[blocks])]
        values, size = self.offset[:-1][blocks], np.diff(self.offset)[blocks]
        bytes_at, bytes_ = self.payload_offset[:-1][blocks], np.diff(self.payload_offset)[blocks]

        def samples() -> npt.NDArray[np.int16]:
            try:
                return self.samples[runs_of(values, size)]
            except Exception:
                taken.error = self.error
                raise

        def own_fill() -> dict[int, npt.NDArray[np.int16]]:
            return {place[block]: made for block, made in self.own_fill.items() if block in place}

        def fill() -> BlockBatch | None:
            filled = self.filled
            return None if filled is self else filled.take(blocks)

        taken = BlockBatch(
            streams=[self.streams[i] for i in blocks.tolist()],
            offset=offsets_of(size),
            payload=self.payload[runs_of(bytes_at, bytes_)],
            payload_offset=offsets_of(bytes_),
            packet_first=offsets_of(per_block[blocks]),
            decode=samples,
            packet_offset=None if self.packet_offset is None else offsets_of(np.diff(self.packet_offset)[packets]),
            own_fill=None if self._own_fill is None else own_fill,
            noise={place[block]: payload for block, payload in self.noise.items() if block in place},
            mask=mask,
            fill=None if self.fill is None else fill,
            **self._columns_of(blocks, packets),
        )
        return taken

    def part(self, begin: int, end: int) -> BlockBatch:
        """A batch of the blocks from ``begin`` to before ``end``, at least one, as they are, without what would conceal
        their gaps. Its arrays are views. Asking for it decodes."""
        first, last = int(self.packet_first[begin]), int(self.packet_first[end])
        samples = self.samples[int(self.offset[begin]) : int(self.offset[end])]
        mask = None
        if not self.plain:
            before = int(self.frames[:begin].sum())
            mask = self.mask[before : before + int(self.frames[begin:end].sum())]
        blocks, packets = slice(begin, end), slice(first, last)
        bytes_ = self.payload_offset[begin : end + 1]
        return BlockBatch(
            streams=self.streams[blocks],
            offset=self.offset[begin : end + 1] - self.offset[begin],
            payload=self.payload[int(bytes_[0]) : int(bytes_[-1])],
            payload_offset=bytes_ - bytes_[0],
            packet_first=self.packet_first[begin : end + 1] - first,
            decode=lambda: samples,
            packet_offset=None if self.packet_offset is None else self.packet_offset[first : last + 1] - bytes_[0],
            noise={i - begin: payload for i, payload in self.noise.items() if begin <= i < end},
            mask=mask,
            **self._columns_of(blocks, packets),
        )

    def _columns_of(
        self, blocks: npt.NDArray[np.intp] | slice, packets: npt.NDArray[np.int64] | slice
    ) -> dict[str, Any]:
        """What is told of some blocks and their packets, a value each: arguments for a batch of them."""
        return {
            **{name: getattr(self, name)[blocks] for name in _PER_BLOCK},
            **{name: getattr(self, name)[packets] for name in _PER_PACKET},
            "transcoded": None if self.transcoded is None else self.transcoded[blocks],
            "mixed": None if self.mixed is None else self.mixed[blocks],
        }

    def without(self, serials: Container[int]) -> BlockBatch:
        """The batch without the blocks of some streams; the batch itself if it has none of theirs."""
        blocks = [i for i, stream in enumerate(self.streams) if stream.serial not in serials]
        return self if len(blocks) == len(self) else self.take(np.array(blocks, np.intp))

    def starts(self) -> list[int]:
        """The first block of each stream (a stream's blocks are adjacent), and the number of blocks."""
        if not len(self):
            return [0]
        row = self.index
        return [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), len(row)]

    def __iter__(self) -> Iterator[Block]:
        """Blocks one by one, for consumers of few streams. Their ``samples`` and ``mask`` are views."""
        samples = self.samples
        mask = self.mask
        offset = self.offset.tolist()
        ends = np.cumsum(self.frames)
        columns = (
            self.position, self.gap_frames, self.gap_cause, self.rtp_timestamp, self.arrival_ns, self.time_ns
        )  # fmt: skip
        marks = [mask[begin:end] for begin, end in zip((ends - self.frames).tolist(), ends.tolist(), strict=True)]
        for stream, begin, end, marked, position, gap, cause, timestamp, arrival_ns, time_ns in zip(
            self.streams, offset, offset[1:], marks, *(column.tolist() for column in columns), strict=False
        ):
            values = samples[begin:end]
            if stream.channels > 1:
                values = values.reshape(-1, stream.channels)
            hole = Gap(gap, GapCause(cause)) if gap else None
            yield Block(stream, position, hole, timestamp, arrival_ns, values, marked, time_ns)


def joined(batches: Sequence[BlockBatch]) -> BlockBatch:
    """The blocks of several batches as one batch, without what would conceal their gaps."""

    def end_to_end(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(batch, name) for batch in batches])

    def ragged(name: str) -> npt.NDArray[np.int64]:
        return offsets_of(np.concatenate([np.diff(getattr(batch, name)) for batch in batches]))

    columns: dict[str, Any] = {name: end_to_end(name) for name in ("payload", *_PER_BLOCK, *_PER_PACKET)}
    columns |= {name: ragged(name) for name in ("offset", "payload_offset", "packet_first")}
    if all(batch.packet_offset is not None for batch in batches):
        columns["packet_offset"] = ragged("packet_offset")
    for name in ("transcoded", "mixed"):
        if any(getattr(batch, name) is not None for batch in batches):
            each = [getattr(batch, name) for batch in batches]
            filled = [np.zeros(len(b), np.bool_) if f is None else f for b, f in zip(batches, each, strict=True)]
            columns[name] = np.concatenate(filled)
    return BlockBatch(
        streams=[stream for batch in batches for stream in batch.streams],
        **columns,
        decode=lambda: end_to_end("samples"),
        mask=None if all(batch.plain for batch in batches) else end_to_end("mask"),
    )
