"""Capture files as batches of datagrams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import ROW_BYTES, SLOT_MINIMUM, DatagramBatch, end_to_end
from ..._model.exceptions import CaptureFileError, MissingExtraError
from ..._model.spans import copy_spans
from .dumps import walk_dump
from .find import Datagrams, Finder
from .opening import opened
from .order import InOrder
from .records import NO_TIME_NS, Records, gathered, walk
from .times import FileTimes
from .untimed import MediaTimes

__all__ = ["PcapReader"]

U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_SECOND_NS: Final = 1_000_000_000
_SLAB_BYTES: Final = 64 << 20


class PcapReader:
    """A pcap, pcapng, rtpdump or mjr (Janus) file, plain or compressed (gzip, zstd, lz4), or a pipe of one; "-" is
    standard input.

    UDP over IPv4 and IPv6, on Ethernet, Linux cooked v1 and v2, raw IP, BSD loopback, PPP and Cisco HDLC, with VLAN
    tags, PPPoE and MPLS, in GRE, ERSPAN, IP in IP, VXLAN, Geneve, GTP-U and HEP3, in any order; fragments are put
    together. Datagrams stand in order of time, as far as a second tells.

    ``skipped`` counts by cause the frames that are no usable UDP datagram; ``encapsulated`` what datagrams were packed
    into; ``cut`` those of which bytes were not captured; ``untimed`` those whose records have no time; ``retimed``
    those whose times made no sense between the others' (see :class:`FileTimes`); ``sorted`` those that stood behind
    later ones; ``joined`` those put together of fragments. ``roles`` says of local ports what our own recordings note
    of them. Raises CaptureFileError when the file is no capture, MissingExtraError when what unpacks it is not
    installed; damage inside it ends the reading and is counted.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.skipped: Counter[str] = Counter()
        self.roles: dict[int, int] = {}
        self.frames = 0
        self.datagrams = 0
        self.untimed = 0
        self.position_bytes = 0
        self._times = FileTimes()
        self._order = InOrder()
        self._media = MediaTimes()
        try:
            self._data = opened(path, self.skipped)
            self._records = gathered(walk_dump(self._data, self.skipped) or walk(self._data, self.skipped))
        except OSError as error:
            raise CaptureFileError(f"cannot read {path}: {error.strerror}") from error
        except (CaptureFileError, ValueError) as error:
            raise CaptureFileError(f"{path}: {error}") from error
        except MissingExtraError as error:
            raise MissingExtraError(f"{path}: {error}") from error
        self.size_bytes = self._data.size
        self._finder = Finder(self._data, self.skipped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        # the memory map is closed with the last array over it
        self._records = iter(())
        self._data = np.zeros(0, np.uint8)
        self._finder.close()

    @property
    def retimed(self) -> int:
        return self._times.retimed

    @property
    def sorted(self) -> int:
        return self._order.sorted

    @property
    def joined(self) -> int:
        return self._finder.fragments.joined

    @property
    def cut(self) -> int:
        return self._finder.cut

    @property
    def encapsulated(self) -> Counter[str]:
        return self._finder.encapsulated

    def about(self) -> dict[str, Any]:
        """What has been read so far, for a summary."""
        return {
            "frames": self.frames,
            "datagrams": self.datagrams,
            "skipped": dict(sorted(self.skipped.items())),
            "encapsulated": dict(sorted(self.encapsulated.items())),
            "joined": self.joined,
            "cut": self.cut,
            "sorted": self.sorted,
            "retimed": self.retimed,
            "untimed": self.untimed,
        }

    def batches(self, max_rows: int = 65_536) -> Iterator[DatagramBatch]:
        """Datagrams in order. A batch holds at most ``max_rows`` and ends where a second ends."""
        for records, following in _with_following(self._records):
            self.frames += len(records.at)
            found = self._finder.find(records)
            self._give_times(found)
            found.arrival_ns = self._times.take(found.arrival_ns, following)
            self.datagrams += len(found)
            self._note_roles(found)
            next_ns = None if following is _NO_TIMES else int(following.min(initial=1 << 62))
            yield from self._given(self._order.take(found, next_ns), max_rows)
            self.position_bytes = records.end
        self._finder.fragments.close()
        self.position_bytes = self.size_bytes

    def _given(self, found: Datagrams, max_rows: int) -> Iterator[DatagramBatch]:
        second = found.arrival_ns // _SECOND_NS
        cuts = np.flatnonzero(second[1:] != second[:-1]) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(second)], strict=True):
            yield from self._cut(found, begin, end, max_rows)
        if self._finder.extra.size:
            held = self._order.held_at
            self._finder.forget(int(held[held >= self._data.size].min(initial=self._finder.end)))

    def _give_times(self, found: Datagrams) -> None:
        without = found.arrival_ns == NO_TIME_NS
        count = int(np.count_nonzero(without))
        if count:
            self.untimed += count
            found.arrival_ns = self._media.take(found, without, self._data)

    def _note_roles(self, found: Datagrams) -> None:
        """What local ports are for, if the frames tell that: roles by port."""
        if not len(found.role):
            return
        pair = found.local_port.astype(np.int64) << 8 | (found.role & 0xFF)
        pairs = pair[:1] if (pair == pair[0]).all() else np.unique(pair)
        for port, role in zip((pairs >> 8).tolist(), (pairs & 0xFF).tolist(), strict=True):
            if role <= 3:
                self.roles.setdefault(port, role)

    def _cut(self, found: Datagrams, begin: int, end: int, max_rows: int) -> Iterator[DatagramBatch]:
        while begin < end:
            stop = min(end, begin + max_rows)
            width = max(SLOT_MINIMUM, -(-int(found.captured[begin:stop].max()) // 8) * 8)
            if width > ROW_BYTES:
                ends = np.cumsum(found.captured[begin:stop] + SLOT_MINIMUM)
                stop = begin + max(1, int(np.searchsorted(ends, _SLAB_BYTES, "right")))
                yield self._long_batch(found, slice(begin, stop))
            else:
                stop = min(stop, begin + max(1, _SLAB_BYTES // width))
                yield self._batch(found, slice(begin, stop), width)
            begin = stop

    def _long_batch(self, found: Datagrams, rows: slice) -> DatagramBatch:
        """Datagrams of which some are too long for rows, end to end."""
        at, captured, wire = found.at[rows], found.captured[rows], found.wire[rows]
        slab, first_row = end_to_end(captured)
        to = first_row * SLOT_MINIMUM
        joined = at >= self._data.size
        for data, shift, some in (
            (self._data, 0, np.flatnonzero(~joined)),
            (self._finder.extra, self._finder.extra_at, np.flatnonzero(joined)),
        ):
            if some.size:
                copy_spans(slab.reshape(-1), to[some], data, at[some] - shift, captured[some])
        cut = bool((captured < wire).any())
        return DatagramBatch(
            slab,
            wire.astype(np.int32),
            found.arrival_ns[rows].copy(),
            found.source_hi[rows],
            found.source_lo[rows],
            found.source_port[rows],
            found.local_port[rows],
            captured.astype(np.int32) if cut else None,
            first_row,
            found.destination_hi[rows],
            found.destination_lo[rows],
        )

    def _batch(self, found: Datagrams, rows: slice, width: int) -> DatagramBatch:
        at, captured, wire = found.at[rows], found.captured[rows], found.wire[rows]
        cut = captured < wire
        inside = at + width <= self._data.size
        if inside.all():
            items = np.ndarray((self._data.size - width + 1,), np.dtype((np.void, width)), self._data, 0, (1,))
            slab = items[at].view(np.uint8).reshape(len(at), width)
        else:
            slab = self._slab(at, captured, width, inside)
        return DatagramBatch(
            slab,
            np.where(cut, np.maximum(wire, width + 1), wire).astype(np.int32),
            found.arrival_ns[rows].copy(),
            found.source_hi[rows],
            found.source_lo[rows],
            found.source_port[rows],
            found.local_port[rows],
            captured.astype(np.int32) if cut.any() else None,
            destination_hi=found.destination_hi[rows],
            destination_lo=found.destination_lo[rows],
        )

    def _slab(self, at: npt.NDArray[np.int64], captured: npt.NDArray[np.int64], width: int, inside: Mask) -> U8:
        """Some rows would reach beyond the end of the file, or were put together of fragments."""
        slab = np.zeros((len(at), width), np.uint8)
        if inside.any():
            items = np.ndarray((self._data.size - width + 1,), np.dtype((np.void, width)), self._data, 0, (1,))
            slab[inside] = items[at[inside]].view(np.uint8).reshape(-1, width)
        for row in np.flatnonzero(~inside).tolist():
            begin, size = int(at[row]), int(captured[row])
            data = self._data
            if begin >= data.size:
                begin, data = begin - self._finder.extra_at, self._finder.extra
            slab[row, :size] = data[begin : begin + size]
        return slab


def _with_following(walk: Iterator[Records]) -> Iterator[tuple[Records, npt.NDArray[np.int64]]]:
    """Records, with the times of the records after them."""
    records = next(walk, None)
    while records is not None:
        following = next(walk, None)
        yield records, _NO_TIMES if following is None else following.arrival_ns[following.arrival_ns != NO_TIME_NS]
        records = following


_NO_TIMES: Final = np.zeros(0, np.int64)
