"""Datagrams become packets: they are cut into ticks and parsed, what is no media is counted, the rest gets its keys."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.addresses import SourceFilter
from .._model.datagrams import DatagramBatch
from .._model.time import TICK_NS
from .._model.types import DatagramKind
from .._parser import parse_apart
from .accounts import Accounts
from .bare import any_cut, parse_cut
from .packets import Packets
from .sources.pinning import SourcePins
from .sources.registry import Registry

__all__ = ["Intake", "TickPart", "ticks_of"]

I64 = npt.NDArray[np.int64]

_LIVE_BATCH_TICKS: Final = 1000  # longer ones are cut by a slower way, which takes no time for each empty tick

TickPart = tuple[int, int, int]  # a tick, and which packets are of it: begin:end


def ticks_of(batch: DatagramBatch, present: int, latest_ns: int | None = None) -> list[TickPart]:
    """Make arrival times not go back behind a tick, nor the ``present`` one, nor beyond ``latest_ns``, which is not
    before that; returns what is of which tick."""
    arrival = batch.arrival_ns
    first, last = int(arrival[0]) // TICK_NS, int(arrival[-1]) // TICK_NS
    early = latest_ns is None or int(arrival[-1]) <= latest_ns
    if present <= first and last - first < _LIVE_BATCH_TICKS and early and (arrival[1:] >= arrival[:-1]).all():
        grid = np.arange(first + 1, last + 1) * TICK_NS
        cuts = [0, *arrival.searchsorted(grid).tolist(), len(arrival)]
        return [(first + i, cuts[i], cuts[i + 1]) for i in range(len(cuts) - 1) if cuts[i] < cuts[i + 1]]
    if latest_ns is not None:
        np.minimum(arrival, latest_ns, out=arrival)
    tick = np.maximum(np.maximum.accumulate(arrival // TICK_NS), present)
    np.maximum(arrival, tick * TICK_NS, out=arrival)
    cuts = [0, *(np.flatnonzero(tick[1:] != tick[:-1]) + 1).tolist(), len(arrival)]
    return list(zip(tick[cuts[:-1]].tolist(), cuts[:-1], cuts[1:], strict=True))


class Intake:
    """``sources``: networks that may send; None: all."""

    def __init__(self, accounts: Accounts, registry: Registry, sources: SourceFilter | None, pins: SourcePins) -> None:
        self._pins = pins
        self._places = SourcePins("address")
        self._accounts = accounts
        self._registry = registry
        self._sources = sources

    def _destinations(self, batch: DatagramBatch, rows: I64 | None) -> npt.NDArray[np.uint64] | None:
        """Words of the addresses that these rows were sent to; None: ours."""
        hi, lo = batch.destination_hi, batch.destination_lo
        if hi is None or lo is None:
            return None
        if rows is not None:
            hi, lo = hi[rows], lo[rows]
        return self._places.words(hi, lo, np.zeros(len(hi), np.uint16))

    def packets_of(self, batch: DatagramBatch) -> tuple[Packets | None, I64 | None]:
        """The media packets of a batch, and their rows in it (None: all)."""
        rows: I64 | None
        if any_cut(batch):
            columns, rows, others = parse_cut(batch), None, None
        else:
            columns, rows, others = parse_apart(batch.slab, batch.length)
        uniform, count = columns.uniform, len(columns)  # all sound, all of one kind: the usual case
        if uniform is None:
            others = columns
            good = columns.status == 0
            if not good.all():
                rows = good.nonzero()[0]
                columns = columns.take(rows)
        if others is not None:
            self._accounts.count_kinds(others.kind)
            self._accounts.count_statuses(others.status)
        if self._sources is not None:
            hi, lo = batch.source_hi, batch.source_lo
            allowed = self._sources.allows(*((hi, lo) if rows is None else (hi[rows], lo[rows])))
            if not allowed.all():
                self._accounts.reject("source", int(np.count_nonzero(~allowed)))
                chosen = allowed.nonzero()[0]
                rows = chosen if rows is None else rows[chosen]
                columns = columns.take(chosen)
        if not len(columns):
            if uniform is not None:
                self._accounts.kinds[uniform] += count
            return None, rows
        tag = columns.direction.astype(np.uint64)
        tag <<= np.uint64(1)
        tag |= columns.leg
        strep = None if columns.uniform == DatagramKind.STREP else columns.kind == DatagramKind.STREP
        if strep is not None and not strep.all():
            port = batch.local_port if rows is None else batch.local_port[rows]
            self._registry.key_words(
                strep=strep, hi=columns.call_leg_hi, lo=columns.call_leg_lo, tag=tag, ssrc=columns.ssrc,
                local_port=port, destination=self._destinations(batch, rows),
            )  # fmt: skip

        hi, lo, port = batch.source_hi, batch.source_lo, batch.source_port
        source = self._pins.words(*((hi, lo, port) if rows is None else (hi[rows], lo[rows], port[rows])))
        packets = Packets(
            hi=columns.call_leg_hi,
            lo=columns.call_leg_lo,
            tag=tag,
            sequence_number=columns.sequence_number,
            timestamp=columns.rtp_timestamp,
            ssrc=columns.ssrc,
            payload_type=columns.payload_type,
            arrival_ns=batch.arrival_ns if rows is None else batch.arrival_ns[rows],
            offset=columns.payload_offset,
            length=columns.payload_length,
            slab_rows=rows,
            slab=batch.slab,
            first_row=batch.first_row,
            source_hi=batch.source_hi,
            source_lo=batch.source_lo,
            source_port=batch.source_port,
            local_port=batch.local_port,
            source=source,
        )
        if uniform is not None:
            self._accounts.kinds[uniform] += count  # only now, when nothing can go wrong any more
        return packets, rows
