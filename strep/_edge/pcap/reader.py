"""Capture files as batches of datagrams."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import SLOT_MINIMUM, DatagramBatch
from ..._model.exceptions import CaptureFileError
from .link import Datagrams, find_datagrams
from .records import Records, walk
from .times import FileTimes

__all__ = ["PcapReader"]

_SECOND_NS: Final = 1_000_000_000
_SLAB_BYTES: Final = 64 << 20


class PcapReader:
    """A pcap or pcapng file: link types Ethernet (VLAN), Linux cooked v1 and v2, raw IP, BSD loopback; IPv4 and IPv6.

    ``skipped`` counts by cause the frames that are no usable UDP datagram; ``retimed`` those datagrams whose times made
    no sense between the others' (see :class:`FileTimes`); ``roles`` says of local ports what our own recordings note of
    them. Raises CaptureFileError when the file is no capture; damage inside it ends the reading and
    is counted.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.skipped: Counter[str] = Counter()
        self.roles: dict[int, int] = {}
        self.frames = 0
        self.datagrams = 0
        self.position_bytes = 0
        self._times = FileTimes()
        try:
            self._file = open(path, "rb")  # noqa: SIM115  # closed in close()
        except OSError as error:
            raise CaptureFileError(f"cannot read {path}: {error.strerror}") from error
        self.size_bytes = self._file.seek(0, 2)
        try:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size_bytes else None
            self._data = np.frombuffer(self._map, np.uint8) if self._map is not None else np.zeros(0, np.uint8)
            self._records = walk(self._data, self.skipped)
        except (CaptureFileError, OSError, ValueError) as error:
            self.close()
            raise CaptureFileError(f"{path}: {error}") from error

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
        self._map = None
        self._file.close()

    @property
    def retimed(self) -> int:
        return self._times.retimed

    def batches(self, max_rows: int = 65_536) -> Iterator[DatagramBatch]:
        """Datagrams in the order of the file. A batch holds at most ``max_rows`` and ends where a second ends."""
        for records, following in _with_following(self._records):
            self.frames += len(records.at)
            found = find_datagrams(self._data, records, self.skipped)
            found.arrival_ns = self._times.take(found.arrival_ns, following)
            self.datagrams += len(found.at)
            self._note_roles(found)
            second = found.arrival_ns // _SECOND_NS
            cuts = np.flatnonzero(second[1:] != second[:-1]) + 1
            for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(second)], strict=True):
                yield from self._cut(found, begin, end, max_rows)
            self.position_bytes = records.end
        self.position_bytes = self.size_bytes

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
            stop = min(stop, begin + max(1, _SLAB_BYTES // width))
            yield self._batch(found, slice(begin, stop), width)
            begin = stop

    def _batch(self, found: Datagrams, rows: slice, width: int) -> DatagramBatch:
        at, captured, wire = found.at[rows], found.captured[rows], found.wire[rows]
        inside = at + width <= self._data.size
        if inside.all():
            items = np.ndarray((self._data.size - width + 1,), np.dtype((np.void, width)), self._data, 0, (1,))
            slab = items[at].view(np.uint8).reshape(len(at), width)
        else:
            # the last datagrams of the file: their rows would reach beyond its end
            slab = self._data.take(at[:, None] + np.arange(width), mode="clip")
        return DatagramBatch(
            slab,
            np.where(captured < wire, np.maximum(wire, width + 1), wire).astype(np.int32),
            found.arrival_ns[rows].copy(),
            found.source_hi[rows],
            found.source_lo[rows],
            found.source_port[rows],
            found.local_port[rows],
        )


def _with_following(walk: Iterator[Records]) -> Iterator[tuple[Records, npt.NDArray[np.int64]]]:
    """Records, with the times of the records after them."""
    records = next(walk, None)
    while records is not None:
        following = next(walk, None)
        yield records, _NO_TIMES if following is None else following.arrival_ns
        records = following


_NO_TIMES: Final = np.zeros(0, np.int64)
