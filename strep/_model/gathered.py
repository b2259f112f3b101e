"""Batches that came one after another as one batch, in which each stream's blocks stand together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .blocks import BlockBatch
from .spans import begins_of, offsets_of, runs_of, stretches
from .time import position_ns

if TYPE_CHECKING:
    from .types import StreamInfo

__all__ = ["gathered"]

I64 = npt.NDArray[np.int64]

_COLUMNS: Final = ("position", "frames", "gap_frames", "gap_cause", "rtp_timestamp", "arrival_ns", "time_ns")
_OF_PACKETS: Final = ("packet_frames", "packet_arrival_ns", "packet_rtp_timestamp")


def gathered(batches: Sequence[BlockBatch]) -> BlockBatch:
    """The blocks of several batches as one: those of a stream are adjacent and in order, and one where they go on
    without a gap, by the same clock. No row may have been another stream's in between.

    Samples are decoded when they are first asked for, and so are those with gaps concealed (``filled``): each of the
    batches once. What comfort noise was in force, and what decoders make up themselves, is not kept.
    """
    if len(batches) == 1:
        return batches[0]
    index = np.concatenate([batch.index for batch in batches])
    order: I64 = np.argsort(index, kind="stable")
    made: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches])[order] for name in _COLUMNS
    }
    streams = [stream for batch in batches for stream in batch.streams]
    counts = np.concatenate([np.diff(batch.packet_first) for batch in batches])
    packets = runs_of(begins_of(counts)[order], counts[order])
    made |= {name: np.concatenate([getattr(batch, name) for batch in batches])[packets] for name in _OF_PACKETS}
    length = np.concatenate([np.diff(batch.payload_offset) for batch in batches])
    # the bytes of a batch may begin elsewhere than at 0, and have something between them
    payload_at = np.concatenate([b.payload_offset[:-1] + n for b, n in zip(batches, _sizes(batches), strict=True)])
    made["payload"] = _ordered(np.concatenate([b.payload for b in batches]), payload_at, length, order)
    if all(batch.packet_offset is not None for batch in batches):
        sizes = np.concatenate([np.diff(batch.packet_offset) for batch in batches if batch.packet_offset is not None])
        made["packet_offset"] = offsets_of(sizes[packets])
    if any(batch.transcoded is not None for batch in batches):
        each = [np.zeros(len(b), np.bool_) if b.transcoded is None else b.transcoded for b in batches]
        made["transcoded"] = np.concatenate(each)[order]
    values = np.concatenate([np.diff(batch.offset) for batch in batches])
    failed: dict[int, None] = {}
    masks = [batch.known_mask for batch in batches]
    mask: npt.NDArray[np.uint8] | None = None
    if any(one is not None for one in masks):
        marks = [batch.mask for batch in batches]
        mask = _ordered(np.concatenate(marks), None, np.concatenate([b.frames for b in batches]), order)

    def decode() -> npt.NDArray[np.int16]:
        try:
            samples = [batch.samples for batch in batches]
        except Exception:
            taken.error = next((batch.error for batch in batches if batch.error is not None), None)
            raise
        wrong = [b + sum(len(o.packet_frames) for o in batches[:n]) for n, o in enumerate(batches) for b in o.failed]
        if wrong:
            failed.update(dict.fromkeys(np.flatnonzero(np.isin(packets, wrong)).tolist()))
        in_order: npt.NDArray[np.int16] = _ordered(np.concatenate(samples), None, values, order)
        return in_order

    first = np.flatnonzero(~_going_on([streams[i] for i in order.tolist()], index[order], made))
    made["frames"] = np.add.reduceat(made["frames"], first)
    made |= {name: made[name][first] for name in _COLUMNS if name != "frames"}
    if "transcoded" in made:
        made["transcoded"] = np.logical_or.reduceat(made["transcoded"], first)
    taken = BlockBatch(
        streams=[streams[i] for i in order[first].tolist()],
        index=index[order][first],
        offset=offsets_of(np.add.reduceat(values[order], first)),
        payload_offset=offsets_of(np.add.reduceat(length[order], first)),
        packet_first=offsets_of(np.add.reduceat(counts[order], first)),
        decode=decode,
        mask=mask,
        failed=failed,
        fill=_once(batches) if any(batch.fill is not None for batch in batches) else None,
        **made,
    )
    return taken


def _going_on(streams: Sequence[StreamInfo], row: I64, blocks: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Whether each block goes on where the one before it ends: on the same timeline, by the same clock."""
    position, frames, time_ns = blocks["position"], blocks["frames"], blocks["time_ns"]
    goes_on = np.zeros(len(row), np.bool_)
    goes_on[1:] = (row[1:] == row[:-1]) & (position[1:] == position[:-1] + frames[:-1])
    at = np.flatnonzero(goes_on)
    if not at.size:
        return goes_on
    begin = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    of_row = np.array([streams[i].sample_rate for i in begin.tolist()], np.int64)
    rate = np.repeat(of_row, np.diff(np.append(begin, len(row))))[at]
    known = np.maximum(rate, 1)
    one = int(known[0]) if bool((known == known[0]).all()) else known
    apart_ns = position_ns(position[at], one) - position_ns(position[at - 1], one)
    goes_on[at] = (rate > 0) & (time_ns[at] - time_ns[at - 1] == apart_ns)
    return goes_on


def _once(batches: Sequence[BlockBatch]) -> Callable[[], BlockBatch | None]:
    """What makes the same of the batches with gaps concealed, when it is first asked for; None: nothing is."""
    made: list[BlockBatch | None] = []

    def fill() -> BlockBatch | None:
        if not made:
            filled = [batch.filled for batch in batches]
            same = all(one is other for one, other in zip(filled, batches, strict=True))
            made.append(None if same else gathered(filled))
        return made[0]

    return fill


def _ordered(flat: npt.NDArray[Any], begin: I64 | None, length: I64, order: I64) -> Any:
    """Stretches of a flat array, in another order. ``begin`` None: they stand one behind the other."""
    begin = begins_of(length) if begin is None else begin
    return stretches(flat, begin[order], length[order])


def _sizes(batches: Sequence[BlockBatch]) -> list[int]:
    """Where each batch's payload begins in all of them end to end."""
    return [0, *np.cumsum([len(batch.payload) for batch in batches[:-1]]).tolist()]
