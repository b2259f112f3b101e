"""Datagrams as columns of a structured array, every field free to lie, and the bytes they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from strep._model.datagrams import DatagramBatch

__all__ = ["SILENT", "WIDTH", "WIRE", "Datagram", "batch_of_wire", "blank", "datagrams_of", "wire_of"]

WIDTH: Final = 2048  # of a slab row: in a storm, what is longer is cut off, as in a capture of less than all
_POOL: Final = 1 << 16
_HEADERS: Final = 36

WIRE: Final = np.dtype(
    [
        ("ns", np.int64),  # arrival
        ("actor", np.int32),  # who sends it; -1: a real call
        ("plain", np.bool_),  # no STREP header
        ("strep", np.uint8),  # first byte: magic, version, leg, direction
        ("header", np.uint8),  # HeaderLen
        ("reserved", np.uint64),  # 6 bytes
        ("hi", np.uint64),
        ("lo", np.uint64),
        ("rtp", np.uint8),  # V, P, X, CC
        ("type", np.uint8),  # M, PT
        ("seq", np.uint16),
        ("ts", np.uint32),
        ("ssrc", np.uint32),
        ("length", np.int32),  # bytes behind the fixed headers
        ("pool", np.int32),  # where in the pool of random bytes the payload stands
        ("head", np.int64),  # first bytes of the payload in place of the pool's, big-endian; -1: none
        ("heads", np.int32),  # how many
        ("tail", np.int16),  # last byte (the padding count); -1: the pool's
        ("cut", np.int32),  # bytes that are left of the datagram; -1: all
        ("flip", np.int32, (3,)),  # bits that are turned over; -1: none
        ("source", np.uint64),  # IPv4, as the low word of the mapped address
        ("port", np.uint16),
        ("local", np.uint16),
    ]
)
_pool = np.random.default_rng(0x57).integers(0, 256, _POOL + WIDTH, np.uint8)
SILENT: Final = _POOL // 2  # from here on in the pool zeros, as many as a slab row has
_pool[SILENT : SILENT + 4096] = 0  # silence of L16, and much that decoders take for special
_pool[SILENT + 4096 : SILENT + 8192] = 0xFF
_WINDOWS: Final = np.lib.stride_tricks.sliding_window_view(_pool, WIDTH)


def blank(n: int) -> npt.NDArray[np.void]:
    """Sound datagrams of PCMU that their sender has yet to number."""
    rows = np.zeros(n, WIRE)
    rows["strep"], rows["header"], rows["rtp"] = 0xC4, 24, 0x80
    rows["length"], rows["local"], rows["port"] = 160, 9000, 40_000
    rows["source"] = 0xFFFF_C633_6401  # 198.51.100.1, kept for documentation (RFC 5737)
    for name in ("head", "tail", "cut", "flip"):
        rows[name] = -1
    return rows


def _big_endian(values: npt.NDArray[np.unsignedinteger], size: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values.astype(f">u{size}")).view(np.uint8).reshape(-1, size)


def bytes_of(rows: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """uint8 (n, width), at most WIDTH wide and garbage behind each datagram; and how long each is on the wire."""
    n = len(rows)
    at = np.where(rows["plain"], 12, _HEADERS)
    length = (at + rows["length"]).astype(np.int32)
    length = np.where(rows["cut"] >= 0, np.minimum(length, rows["cut"]), length).astype(np.int32)
    width = int(min(WIDTH, max(64, -(-(int(length.max()) + 8) // 8) * 8)))
    slab = np.empty((n, width), np.uint8)
    slab[:, _HEADERS:] = _WINDOWS[rows["pool"], : width - _HEADERS]
    slab[:, 0], slab[:, 1] = rows["strep"], rows["header"]
    slab[:, 2:8] = _big_endian(rows["reserved"], 8)[:, 2:]
    slab[:, 8:16], slab[:, 16:24] = _big_endian(rows["hi"], 8), _big_endian(rows["lo"], 8)
    slab[:, 24], slab[:, 25] = rows["rtp"], rows["type"]
    slab[:, 26:28] = _big_endian(rows["seq"], 2)
    slab[:, 28:32], slab[:, 32:36] = _big_endian(rows["ts"], 4), _big_endian(rows["ssrc"], 4)
    headed = np.flatnonzero(rows["head"] >= 0)
    if headed.size:
        head = _big_endian(rows["head"][headed].astype(np.uint64), 8)
        for k in range(8):
            some = headed[rows["heads"][headed] > k]
            slab[some, _HEADERS + k] = head[rows["heads"][headed] > k, k]
    plain = np.flatnonzero(rows["plain"])
    if plain.size:
        slab[plain, : width - 24] = slab[plain, 24:]
    tailed = np.flatnonzero((rows["tail"] >= 0) & (length > 0) & (length <= width))
    slab[tailed, length[tailed] - 1] = rows["tail"][tailed]
    some, which = np.nonzero(rows["flip"] >= 0)
    bit = rows["flip"][some, which] % (8 * _HEADERS + 64)
    np.bitwise_xor.at(slab, (some, bit >> 3), (1 << (bit & 7)).astype(np.uint8))
    return slab, length


def batch_of_wire(rows: npt.NDArray[np.void], start_ns: int) -> DatagramBatch:
    """What a socket would give of these datagrams."""
    slab, length = bytes_of(rows)
    return DatagramBatch(
        slab,
        length,
        start_ns + rows["ns"],
        np.zeros(len(rows), np.uint64),
        rows["source"].copy(),
        rows["port"].copy(),
        rows["local"].copy(),
    )


@dataclass(frozen=True, slots=True)
class Datagram:
    """One as it stands in a counterexample: nanoseconds since the start, the first WIDTH bytes, length on the wire."""

    ns: int
    data: bytes
    length: int
    source: int = 0xFFFF_C633_6401
    port: int = 40_000
    local: int = 9000


def datagrams_of(rows: npt.NDArray[np.void]) -> list[Datagram]:
    slab, length = bytes_of(rows)
    return [
        Datagram(int(row["ns"]), slab[i, : length[i]].tobytes(), int(length[i]), *(int(row[n]) for n in _WHERE))
        for i, row in enumerate(rows)
    ]


_WHERE: Final = ("source", "port", "local")


def wire_of(datagrams: Sequence[Datagram], start_ns: int) -> DatagramBatch:
    """The batch of datagrams that are known by their bytes."""
    width = max(64, -(-max(len(d.data) for d in datagrams) // 8) * 8)
    slab = np.zeros((len(datagrams), width), np.uint8)
    for i, one in enumerate(datagrams):
        slab[i, : len(one.data)] = np.frombuffer(one.data, np.uint8)
    return DatagramBatch(
        slab,
        np.array([d.length for d in datagrams], np.int32),
        start_ns + np.array([d.ns for d in datagrams], np.int64),
        np.zeros(len(datagrams), np.uint64),
        np.array([d.source for d in datagrams], np.uint64),
        np.array([d.port for d in datagrams], np.uint16),
        np.array([d.local for d in datagrams], np.uint16),
    )
