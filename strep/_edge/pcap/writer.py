"""Writes batches of datagrams to a pcap file (nanoseconds, Ethernet) that Wireshark opens."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from os import PathLike
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from ..._model.datagrams import DatagramBatch
from ..._model.spans import copy_spans
from ..checksums import folded, word_sums
from .links import ROLE_MAC

__all__ = ["PcapWriter"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_SNAPLEN_BYTES: Final = 262_144
_SOURCE_MAC: Final = bytes.fromhex("025354524553")
_OTHERS_MAC: Final = bytes.fromhex("025354524f54")  # in place of what a port of ours is for
_LARGEST_UDP_BYTES: Final = 65_507  # RFC 768, over IPv4
_LARGEST_UDP6_BYTES: Final = 65_527


class PcapWriter:
    """Classic pcap: magic a1b23c4d, LINKTYPE_ETHERNET. Sources are the real ones; the destination is that of the batch,
    or ``local_address`` where it names none, and the row's local port. The destination MAC address notes what the port
    is for (``roles``: 0 listen, 1 rx, 2 tx, 3 both), so that a replay of the file knows. One thread; errors of the disk
    are OSErrors.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        local_address: tuple[str, str] = ("127.0.0.1", "::1"),
        roles: Mapping[int, int] | None = None,
        buffer_bytes: int = 1 << 20,
    ) -> None:
        self._file = open(path, "wb", buffering=buffer_bytes)  # noqa: SIM115  # closed in close()
        self._file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _SNAPLEN_BYTES, 1))
        self._file.flush()
        self._v4 = np.frombuffer(socket.inet_aton(local_address[0]), np.uint8)
        self._v6 = np.frombuffer(socket.inet_pton(socket.AF_INET6, local_address[1]), np.uint8)
        self._roles = np.zeros(65_536, np.uint8)
        self.bind(roles or {})

    def bind(self, roles: Mapping[int, int]) -> None:
        """What more ports are for."""
        for port, role in roles.items():
            self._roles[port] = role

    def write(self, batch: DatagramBatch) -> int:
        """Append a batch; returns how many datagrams."""
        v4 = (batch.source_hi == 0) & ((batch.source_lo >> np.uint64(32)) == np.uint64(MAPPED_PREFIX >> 32))
        flat, payload = np.ascontiguousarray(batch.slab).reshape(-1), batch.begins()
        # no datagram is longer than this: a longer one was truncated, and its real length is not known
        wire = np.minimum(batch.length, np.where(v4, _LARGEST_UDP_BYTES, _LARGEST_UDP6_BYTES)).astype(np.int64)
        captured = np.minimum(batch.kept(), wire)
        headers = np.where(v4, 14 + 20 + 8, 14 + 40 + 8)
        size = 16 + headers + captured
        begin = np.cumsum(size) - size
        out = np.empty(int(size.sum()), np.uint8)
        for is_v4 in (True, False):
            rows = np.flatnonzero(v4 == is_v4)
            if rows.size:
                sums = word_sums(flat, payload[rows], captured[rows])
                head = self._headers(batch, rows, is_v4, captured[rows], wire[rows], sums)
                _scatter(out, begin[rows], head)
        copy_spans(out, begin + 16 + headers, flat, payload, captured)
        self._file.write(out.data)
        return len(batch)

    def _headers(self, batch: DatagramBatch, rows: I64, v4: bool, captured: I64, wire: I64, sums: I64) -> U8:
        ip = 20 if v4 else 40
        n, udp = len(rows), 14 + 16 + ip
        head = np.zeros((n, udp + 8), np.uint8)
        record = np.empty((n, 4), np.uint32)
        record[:, 0], record[:, 1] = np.divmod(batch.arrival_ns[rows], 1_000_000_000)
        record[:, 2] = 14 + ip + 8 + captured
        record[:, 3] = 14 + ip + 8 + wire
        head[:, :16] = record.view(np.uint8)
        head[:, 16:21] = np.frombuffer(ROLE_MAC, np.uint8)
        head[:, 21] = self._roles[batch.local_port[rows]]
        if batch.destination_lo is not None:
            head[:, 16:22] = np.frombuffer(_OTHERS_MAC, np.uint8)
        head[:, 22:28] = np.frombuffer(_SOURCE_MAC, np.uint8)
        words = head[:, 28:].view(">u2") if head.shape[1] % 2 == 0 else head[:, 28:]
        words[:, 0] = 0x0800 if v4 else 0x86DD
        length = wire + 8
        lo = batch.source_lo[rows]
        if v4:
            words[:, 1] = 0x4500
            words[:, 2] = length + 20
            words[:, 4] = 0x4000  # don't fragment
            words[:, 5] = 64 << 8 | 17
            words[:, 7] = (lo >> np.uint64(16)) & np.uint64(0xFFFF)
            words[:, 8] = lo & np.uint64(0xFFFF)
            head[:, 46:50] = self._v4
            if batch.destination_lo is not None:
                head[:, 46:50] = _octets(batch.destination_lo[rows])[:, 4:]
            words[:, 6] = folded(words[:, 1:11].astype(np.int64).sum(axis=1))
            addresses = words[:, 7:11]
        else:
            words[:, 1] = 0x6000
            words[:, 3] = length
            words[:, 4] = 17 << 8 | 64
            for i, half in enumerate((batch.source_hi[rows], lo)):
                for k in range(4):
                    words[:, 5 + 4 * i + k] = (half >> np.uint64(48 - 16 * k)) & np.uint64(0xFFFF)
            head[:, 54:70] = self._v6
            if batch.destination_hi is not None and batch.destination_lo is not None:
                head[:, 54:62] = _octets(batch.destination_hi[rows])
                head[:, 62:70] = _octets(batch.destination_lo[rows])
            addresses = words[:, 5:21]
        ports = words[:, (ip + 2) // 2 :]
        ports[:, 0] = batch.source_port[rows]
        ports[:, 1] = batch.local_port[rows]
        ports[:, 2] = length
        whole = captured == wire
        total = addresses.astype(np.int64).sum(axis=1) + 17 + length + ports[:, :3].astype(np.int64).sum(axis=1)
        checksum = folded(total + sums)
        # 0 means "none": for a truncated datagram it cannot be computed (IPv6 forbids 0, readers accept it)
        ports[:, 3] = np.where(whole, np.where(checksum == 0, 0xFFFF, checksum), 0)
        return head

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _octets(words: npt.NDArray[np.uint64]) -> U8:
    """uint8 (n, 8), in network order."""
    return words.astype(">u8").view(np.uint8).reshape(-1, 8)


def _scatter(out: U8, at: I64, rows: U8) -> None:
    """``out[at:at+width] = rows[i]`` for each row; the targets do not overlap."""
    width = rows.shape[1]
    items = np.ndarray((out.size - width + 1,), np.dtype((np.void, width)), out, 0, (1,))
    items[at] = rows.view(np.dtype((np.void, width)))[:, 0]
