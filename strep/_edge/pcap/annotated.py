"""Writes datagrams to a pcapng file, with addresses that were made up for them, and a comment on each."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from os import PathLike
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.spans import spans
from .layers import I64, U8

__all__ = ["AnnotatedWriter", "Flow"]

_MACS: Final = bytes.fromhex("025354524542025354524541")
_BLOCK_HEADER: Final = 28
_OPTION_COMMENT: Final = 1
_NANOSECONDS: Final = struct.pack("<HHB3x", 9, 1, 9)  # if_tsresol


@dataclass(frozen=True, slots=True)
class Flow:
    """Addresses (packed, both of one IP version) and ports, and what to write beside each datagram ("": nothing)."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    comment: str = ""


class AnnotatedWriter:
    """pcapng (draft-ietf-opsawg-pcapng): one section, one Ethernet interface, nanoseconds. Errors of the disk are
    OSErrors."""

    def __init__(self, path: str | PathLike[str], *, comment: str = "") -> None:
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115  # closed in close()
        self._file.write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options(comment)))
        self._file.write(_block(1, struct.pack("<HHI", 1, 0, 0) + _NANOSECONDS + bytes(4)))

    def close(self) -> None:
        self._file.close()

    def write(
        self, flat: U8, begin: I64, captured: I64, wire: I64, arrival_ns: I64, flow: I64, flows: list[Flow]
    ) -> None:
        """Datagram i is ``flat[begin[i] : begin[i] + captured[i]]``, had ``wire`` bytes, and goes as
        ``flows[flow[i]]``. They keep their order."""
        key = np.stack([flow, captured, wire], axis=1)
        kinds, of = np.unique(key, axis=0, return_inverse=True)
        of = of.reshape(-1)
        blocks = [_template(flows[f], size, whole) for f, size, whole in kinds.tolist()]
        sizes = np.array([len(template) for template, _ in blocks])[of]
        at = np.cumsum(sizes) - sizes
        out = np.empty(int(sizes.sum()), np.uint8)
        order = np.argsort(of, kind="stable")
        cuts = np.flatnonzero(np.diff(of[order])) + 1
        for number, rows in enumerate(np.split(order, cuts)):
            template, payload_at = blocks[number]
            part = np.tile(template, (len(rows), 1))
            stamps = arrival_ns[rows].astype(np.uint64)
            words = np.stack([stamps >> np.uint64(32), stamps & np.uint64(0xFFFF_FFFF)], axis=1)
            part[:, 12:20] = words.astype("<u4").view(np.uint8)
            size = int(kinds[number, 1])
            part[:, payload_at : payload_at + size] = spans(flat, begin[rows], size)
            _scatter(out, at[rows], part)
        self._file.write(out.data)


def _template(flow: Flow, captured: int, wire: int) -> tuple[U8, int]:
    """A block without its time and payload, and where the payload goes."""
    udp = struct.pack("!4H", flow.source_port, flow.destination_port, 8 + wire, 0)
    if len(flow.source) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + wire, 0, 0x4000, 64, 17, 0) + flow.source + flow.destination
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
        frame = _MACS + b"\x08\0" + head + udp
    else:
        head = struct.pack("!IHBB", 6 << 28, 8 + wire, 17, 64) + flow.source + flow.destination
        frame = _MACS + b"\x86\xdd" + head + udp
    lengths = len(frame) + captured, len(frame) + wire
    body = struct.pack("<5I", 0, 0, 0, *lengths) + frame + bytes(captured + -lengths[0] % 4)
    whole = _block(6, body + _options(flow.comment))
    return np.frombuffer(whole, np.uint8), _BLOCK_HEADER + len(frame)


def _options(comment: str) -> bytes:
    if not comment:
        return b""
    text = comment.encode()
    return struct.pack("<HH", _OPTION_COMMENT, len(text)) + text + bytes(-len(text) % 4) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _scatter(out: U8, at: npt.NDArray[np.intp], rows: U8) -> None:
    width = rows.shape[1]
    items = np.ndarray((out.size - width + 1,), np.dtype((np.void, width)), out, 0, (1,))
    items[at] = np.ascontiguousarray(rows).view(np.dtype((np.void, width)))[:, 0]
