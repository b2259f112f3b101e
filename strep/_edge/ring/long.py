"""Packets that were longer than a frame: the kernel leaves them whole in the socket's queue, many are taken at once."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..._model.spans import copy_spans
from ..udp.messages import MESSAGE
from .layout import COPIED, FRAME_BYTES, VNET_BYTES, IpVersion
from .usual import field, usual_rows

__all__ = ["NONE", "LongPackets", "LongQueue", "plain_long"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_ROWS: Final = 256  # that one call of the kernel fills
_ROW_BYTES: Final = 17 * mmap.PAGESIZE  # no packet is longer; memory that is not used is none
_STATUS, _WIRE, _CAPTURED, _MAC = 0, 4, 8, 12  # in a frame
_DONT_WAIT: Final = 0x40
_COMPARED_BYTES: Final = 80  # from the link header on: the numbers of IP and RTP are among them; all are longer


@dataclass(frozen=True, slots=True)
class LongPackets:
    """Columns of shape (n,): the frame that each was cut in, by its row, rising; where it begins in ``data``, with its
    link header, and how many bytes it has."""

    row: I64
    at: I64
    size: I64
    data: U8

    @classmethod
    def of(cls, packets: Sequence[bytes], row: I64) -> Self:
        """These bytes, one a row."""
        size = np.array([len(packet) for packet in packets], np.int64)
        return cls(row, np.cumsum(size) - size, size, np.frombuffer(b"".join(packets), np.uint8))

    def __len__(self) -> int:
        return len(self.row)

    def take(self, some: I64) -> LongPackets:
        return LongPackets(self.row[some], self.at[some], self.size[some], self.data)


NONE: Final = LongPackets.of((), np.zeros(0, np.int64))


class LongQueue:
    """What waits in the queue of the socket with this file descriptor. Memory is taken when there is something."""

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._memory: U8 | None = None
        self._messages = np.zeros(0, MESSAGE)
        self._early: list[bytes] = []  # of frames that are still to be read

    def take(self, frames: U8) -> LongPackets:
        """Those of these frames, which are all that were not read before, up to somewhere. A reader that was killed may
        have taken some with it: frames whose packet is not there any more are left out."""
        row = np.flatnonzero(field(frames, _STATUS, "<u4") & np.uint32(COPIED))
        if not row.size:
            return NONE
        found = self._next(len(row))
        same = _same(frames, row[: len(found)], found)
        if len(found) == len(row) and same.all():
            return LongPackets(row, found.at, found.size, found.data)
        return self._matched(frames, row, found)

    def _matched(self, frames: U8, row: I64, found: LongPackets) -> LongPackets:
        """Each to its frame, when some frames have none."""
        packets = [
            found.data[at : at + size].tobytes()
            for at, size in zip(found.at.tolist(), found.size.tolist(), strict=True)
        ]
        rows: list[int] = []
        taken = 0
        for one in row.tolist():
            if taken == len(packets):
                break
            here = LongPackets.of(packets[taken : taken + 1], np.zeros(1, np.int64))
            if _same(frames, np.array([one]), here)[0]:
                rows.append(one)
                taken += 1
        self._early = packets[taken:]
        return LongPackets.of(packets[:taken], np.array(rows, np.int64))

    def _next(self, count: int) -> LongPackets:
        """So many, or all that there are; their rows are not known yet."""
        parts: list[LongPackets] = []
        if self._early:
            early, self._early = self._early[:count], self._early[count:]
            parts.append(LongPackets.of(early, np.zeros(len(early), np.int64)))
            count -= len(early)
        while count:
            wanted = min(count, _ROWS)
            got = self._fill(wanted)
            if len(got):
                last = len(got) < wanted or wanted == count
                parts.append(got if last and not parts else _compact(got))
            if len(got) < wanted:
                break
            count -= wanted
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _fill(self, count: int) -> LongPackets:
        """From one call of the kernel; valid until the next."""
        if self._memory is None:
            self._memory = np.frombuffer(mmap.mmap(-1, _ROWS * _ROW_BYTES), np.uint8)
            self._messages = messages = np.zeros(_ROWS, MESSAGE)
            self._vectors = vectors = np.zeros(_ROWS, np.dtype([("base", "u8"), ("len", "u8")]))
            order = np.arange(_ROWS, dtype=np.uint64)
            vectors["base"] = self._memory.ctypes.data + order * np.uint64(_ROW_BYTES)
            vectors["len"] = _ROW_BYTES
            messages["iov"], messages["iovlen"] = vectors.ctypes.data + order * np.uint64(vectors.itemsize), 1
            self._call = ctypes.CDLL(None, use_errno=True).recvmmsg
            self._call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        got = max(self._call(self._fileno, self._messages.ctypes.data, count, _DONT_WAIT, None), 0)
        size = np.maximum(self._messages["len"][:got].astype(np.int64) - VNET_BYTES, 0)
        every = np.arange(got, dtype=np.int64)
        return LongPackets(every, every * _ROW_BYTES + VNET_BYTES, size, self._memory)


def plain_long(frames: U8, rows: I64, long: LongPackets, version: IpVersion) -> LongPackets | None:
    """Of the packets of these rows, those that are as usual but for their length; None: there are none."""
    head = frames[long.row, : version.payload]
    wire = field(head, _WIRE, "<u4")
    field(head, _STATUS, "<u4")[:] &= np.uint32(~COPIED & 0xFFFF_FFFF)
    field(head, _CAPTURED, "<u4")[:] = wire  # they are whole elsewhere
    plain = usual_rows(head, version)
    plain &= wire == long.size
    if len(rows) < len(frames):
        among = np.zeros(len(frames), np.bool_)
        among[rows] = True
        plain &= among[long.row]
    if plain.all():
        return long
    return long.take(np.flatnonzero(plain)) if plain.any() else None


def _same(frames: U8, row: I64, found: LongPackets) -> npt.NDArray[np.bool_]:
    """Whether each is the packet whose beginning is in the frame."""
    flat = frames.reshape(-1)
    mac = field(frames, _MAC, "<u2")[row]
    same: npt.NDArray[np.bool_] = field(frames, _WIRE, "<u4")[row] == found.size
    here = _words_at(flat, row * FRAME_BYTES + mac)
    same &= (here == _words_at(found.data, np.minimum(found.at, found.data.size - _COMPARED_BYTES))).all(axis=1)
    return same


def _words_at(data: U8, at: I64) -> npt.NDArray[np.uint64]:
    """So many bytes as are compared, from each place on."""
    items = np.ndarray((data.size - _COMPARED_BYTES + 1,), np.dtype((np.void, _COMPARED_BYTES)), data, 0, (1,))
    return items[at].view(np.uint64).reshape(len(at), -1)


def _compact(packets: LongPackets) -> LongPackets:
    to = np.cumsum(packets.size) - packets.size
    data = np.empty(int(packets.size.sum()), np.uint8)
    copy_spans(data, to, packets.data, packets.at, packets.size)
    return LongPackets(packets.row, to, packets.size, data)


def _joined(parts: Sequence[LongPackets]) -> LongPackets:
    if not parts:
        return NONE
    begin = np.cumsum([0, *(part.data.size for part in parts[:-1])])
    return LongPackets(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.at + at for part, at in zip(parts, begin.tolist(), strict=True)]),
        np.concatenate([part.size for part in parts]),
        np.concatenate([part.data for part in parts]),
    )
