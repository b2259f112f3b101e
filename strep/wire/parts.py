"""Batches as columns that can be put end to end, in another order, and cut: what messages are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.blocks import BlockBatch
from .._model.spans import begins_of, runs_of, stretches
from .._model.types import Mask
from .layout import COLUMNS

__all__ = ["Part", "joined_in_order", "part_of"]

Bools = npt.NDArray[np.bool_]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_BLOCK_COLUMNS: Final = ("position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns")
_PACKET_COLUMNS: Final = ("packet_frames", "packet_arrival_ns", "packet_rtp_timestamp")


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks: their columns as in BlockBatch, but lengths instead of where each begins.

    ``slot``     int64 (m,): which stream it is of, by the writer's table
    ``values``   int64 (m,), samples; ``bytes_``, of payload; ``packets``, how many
    ``samples``  int16, of the blocks that are ``decoded``, end to end
    ``mask``     uint8, of all frames; None: all were received
    ``packet_bytes``  int64 (p,); None: not known
    """

    slot: I64
    columns: dict[str, npt.NDArray[Any]]  # of blocks
    packet_columns: dict[str, npt.NDArray[Any]]
    values: I64
    bytes_: I64
    packets: I64
    payload: U8
    decoded: Bools
    transcoded: Bools
    samples: I16
    mask: U8 | None = None
    packet_bytes: I64 | None = None
    noise: dict[int, bytes] = field(default_factory=dict)
    fill: dict[int, I16] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.payload.nbytes + self.samples.nbytes + 96 * len(self.slot) + 28 * int(self.packets.sum())


def part_of(batch: BlockBatch, slot: I64, frame_bytes: I64, channels: I64, native: bool) -> Part:
    """A batch's columns. ``frame_bytes`` int64 (m,): of the codec of a block's stream, 0 if no table decodes it.

    Where bytes are not whole frames of such a codec, samples are taken: these, and with not ``native`` all, are decoded
    now. Raises what decoding raises."""
    bytes_, values = np.diff(batch.payload_offset), np.diff(batch.offset)
    decoded: Bools = (frame_bytes == 0) | (bytes_ != batch.frames * frame_bytes) | (values != batch.frames * channels)
    for flag in (batch.transcoded, batch.mixed):
        if flag is not None:
            decoded |= flag
    if not native:
        decoded = np.ones(len(batch), np.bool_)
    samples, mask = np.zeros(0, np.int16), None
    noise, fill = dict(batch.noise), {}
    if decoded.any():
        samples = batch.samples
        if not decoded.all():
            samples = stretches(samples, batch.offset[:-1][decoded], values[decoded])
        mask = None if batch.plain else batch.mask
        fill = batch.own_fill
    transcoded = np.zeros(len(batch), np.bool_) if batch.transcoded is None else batch.transcoded
    payload, packet_bytes = batch.payload, None if batch.packet_offset is None else np.diff(batch.packet_offset)
    if not native:  # there are no bytes, so none of the stream's codec
        payload, bytes_, packet_bytes = payload[:0], np.zeros(len(batch), np.int64), None
        transcoded = np.ones(len(batch), np.bool_)
    return Part(
        slot,
        {name: _plain(batch, name) for name in _BLOCK_COLUMNS},
        {name: _plain(batch, name) for name in _PACKET_COLUMNS},
        values,
        bytes_,
        np.diff(batch.packet_first),
        payload,
        decoded,
        transcoded,
        samples,
        mask,
        packet_bytes,
        noise,
        fill,
    )


def _plain(batch: BlockBatch, name: str) -> npt.NDArray[Any]:
    return np.ascontiguousarray(getattr(batch, name), COLUMNS[name].dtype)


def joined_in_order(parts: Sequence[Part], key: I64) -> Part:
    """The blocks of all parts, sorted by ``key[slot]``; those of one key stay in their order."""
    whole = _joined(parts) if len(parts) > 1 else parts[0]
    order = np.argsort(key[whole.slot], kind="stable")
    if bool((order[1:] > order[:-1]).all()):
        return whole
    return _taken(whole, order)


def _joined(parts: Sequence[Part]) -> Part:
    base = np.cumsum([0, *(len(part.slot) for part in parts)]).tolist()
    masks = None
    if any(part.mask is not None for part in parts):
        masks = np.concatenate([_received(part) if part.mask is None else part.mask for part in parts])
    sizes = [part.packet_bytes for part in parts]
    known = [size for size in sizes if size is not None]

    whole: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("slot", "values", "bytes_", "packets", "payload", "decoded", "transcoded", "samples")
    }
    return Part(
        **whole,
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in _BLOCK_COLUMNS},
        packet_columns={
            name: np.concatenate([part.packet_columns[name] for part in parts]) for name in _PACKET_COLUMNS
        },
        mask=masks,
        packet_bytes=np.concatenate(known) if len(known) == len(sizes) else None,
        noise={at + i: made for at, part in zip(base, parts, strict=False) for i, made in part.noise.items()},
        fill={at + i: made for at, part in zip(base, parts, strict=False) for i, made in part.fill.items()},
    )


def _received(part: Part) -> U8:
    return np.full(int(part.columns["frames"].sum()), Mask.RECEIVED, np.uint8)


def _taken(whole: Part, order: npt.NDArray[np.intp]) -> Part:
    packets = whole.packets
    at = runs_of(begins_of(packets)[order], packets[order])
    frames = whole.columns["frames"]
    in_samples = np.where(whole.decoded, whole.values, 0)
    place = {block: i for i, block in enumerate(order.tolist())} if whole.noise or whole.fill else {}
    return replace(
        whole,
        slot=whole.slot[order],
        columns={name: column[order] for name, column in whole.columns.items()},
        packet_columns={name: column[at] for name, column in whole.packet_columns.items()},
        values=whole.values[order],
        bytes_=whole.bytes_[order],
        packets=packets[order],
        payload=stretches(whole.payload, begins_of(whole.bytes_)[order], whole.bytes_[order]),
        decoded=whole.decoded[order],
        transcoded=whole.transcoded[order],
        samples=stretches(whole.samples, begins_of(in_samples)[order], in_samples[order]),
        mask=None if whole.mask is None else stretches(whole.mask, begins_of(frames)[order], frames[order]),
        packet_bytes=None if whole.packet_bytes is None else whole.packet_bytes[at],
        noise={place[block]: made for block, made in whole.noise.items()},
        fill={place[block]: made for block, made in whole.fill.items()},
    )
