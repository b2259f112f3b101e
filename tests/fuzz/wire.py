"""Datagrams as columns of a structured array, every field free to lie, and the bytes they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from strep._model.datagrams import SLOT_MINIMUM, DatagramBatch, end_to_end
from strep._model.spans import copy_spans

__all__ = [
    "LONGEST",
    "POOL",
    "SILENT",
    "WIDTH",
    "WIRE",
    "Datagram",
    "batch_of_wire",
    "blank",
    "datagrams_of",
    "wire_of",
]

WIDTH: Final = 2048  # of a slab row; a batch with whole datagrams that are longer has them end to end
LONGEST: Final = 65_507  # bytes that UDP carries over IPv4
_BEGINS: Final = 1 << 16
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
        ("snap", np.int32),  # bytes that are kept of it, as in a capture of less than all
        ("flip", np.int32, (3,)),  # bits that are turned over; -1: none
        ("source", np.uint64),  # IPv4, as the low word of the mapped address
        ("port", np.uint16),
        ("local", np.uint16),
    ]
)
POOL = np.random.default_rng(0x57).integers(0, 256, _BEGINS + LONGEST, np.uint8)
SILENT: Final = _BEGINS // 2  # from here on in the pool zeros, as many as a slab row has
POOL[SILENT : SILENT + 4096] = 0  # silence of L16, and much that decoders take for special
POOL[SILENT + 4096 : SILENT + 8192] = 0xFF
_WINDOWS: Final = np.lib.stride_tricks.sliding_window_view(POOL, WIDTH)


def blank(n: int) -> npt.NDArray[np.void]:
    """Sound datagrams of PCMU that their sender has yet to number."""
    rows = np.zeros(n, WIRE)
    rows["strep"], rows["header"], rows["rtp"] = 0xC4, 24, 0x80
    rows["length"], rows["local"], rows["port"] = 160, 9000, 40_000
    rows["snap"] = LONGEST
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


def kept_of(rows: npt.NDArray[np.void], length: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """How many bytes of each datagram are there."""
    return np.minimum(length, rows["snap"]).astype(np.int32)


def _whole(
    rows: npt.NDArray[np.void], slab: npt.NDArray[np.uint8], length: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Datagrams end to end, and their first rows: those of a slab, with what does not fit into its rows."""
    kept = kept_of(rows, length)
    out, first_row = end_to_end(kept)
    out[:] = 0xA5
    flat, to = out.reshape(-1), first_row * SLOT_MINIMUM
    width = slab.shape[1]
    copy_spans(flat, to, slab.reshape(-1), np.arange(len(rows)) * width, np.minimum(kept, width))
    for i in np.flatnonzero(kept > width).tolist():
        # a slab row without its STREP header ends with 24 bytes that are none of the datagram's
        row, have = rows[i], width - 24 if rows["plain"][i] else width
        at = int(row["pool"]) + have - (12 if row["plain"] else _HEADERS)
        flat[to[i] + have : to[i] + kept[i]] = POOL[at : at + int(kept[i]) - have]
        if row["tail"] >= 0 and kept[i] == length[i]:
            flat[to[i] + kept[i] - 1] = row["tail"]
    return out, first_row


def batch_of_wire(rows: npt.NDArray[np.void], start_ns: int) -> DatagramBatch:
    """What a socket would give of these datagrams, or a capture."""
    slab, length = bytes_of(rows)
    kept, first_row = kept_of(rows, length), None
    if kept.max() > WIDTH:
        slab, first_row = _whole(rows, slab, length)
    return DatagramBatch(
        slab,
        length,
        start_ns + rows["ns"],
        np.zeros(len(rows), np.uint64),
        rows["source"].copy(),
        rows["port"].copy(),
        rows["local"].copy(),
        captured=kept if (kept < length).any() else None,
        first_row=first_row,
    )


@dataclass(frozen=True, slots=True)
class Datagram:
    """One as it stands in a counterexample: nanoseconds since the start, what is there of it, length on the wire."""

    ns: int
    data: bytes
    length: int
    source: int = 0xFFFF_C633_6401
    port: int = 40_000
    local: int = 9000


def datagrams_of(rows: npt.NDArray[np.void]) -> list[Datagram]:
    batch = batch_of_wire(rows, 0)
    return [
        Datagram(int(row["ns"]), batch.data(i), int(batch.length[i]), *(int(row[n]) for n in _WHERE))
        for i, row in enumerate(rows)
    ]


_WHERE: Final = ("source", "port", "local")


def wire_of(datagrams: Sequence[Datagram], start_ns: int) -> DatagramBatch:
    """The batch of datagrams that are known by their bytes."""
    kept, first_row = np.array([len(d.data) for d in datagrams], np.int32), None
    length = np.array([d.length for d in datagrams], np.int32)
    if kept.max() > WIDTH:
        slab, first_row = end_to_end(kept)
        slab[:] = 0
        begins = first_row * SLOT_MINIMUM
    else:
        slab = np.zeros((len(datagrams), max(64, -(-int(kept.max()) // 8) * 8)), np.uint8)
        begins = np.arange(len(datagrams)) * slab.shape[1]
    flat = slab.reshape(-1)
    for one, begin in zip(datagrams, begins.tolist(), strict=True):
        flat[begin : begin + len(one.data)] = np.frombuffer(one.data, np.uint8)
    return DatagramBatch(
        slab,
        length,
        start_ns + np.array([d.ns for d in datagrams], np.int64),
        np.zeros(len(datagrams), np.uint64),
        np.array([d.source for d in datagrams], np.uint64),
        np.array([d.port for d in datagrams], np.uint16),
        np.array([d.local for d in datagrams], np.uint16),
        captured=kept if (kept < length).any() else None,
        first_row=first_row,
    )
