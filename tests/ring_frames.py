"""Frames of a ring, as linux/if_packet.h and linux/virtio_net.h have them, and packets to put into them: by hand."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strep._edge.ring.layout import FRAME_BYTES
from strep._edge.ring.long import LongPackets

NET = 100
STATUS_USER, STATUS_COPY, STATUS_NOT_READY, STATUS_VALID = 0x1, 0x2, 0x8, 0x80
HERE, THERE = "10.0.0.1", "10.0.0.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"


def internet_sum(data: bytes) -> int:
    """RFC 1071, as its C program has it."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(payload: bytes, to: str = HERE, of: str = THERE, *, port: int = 9000, source: int = 4000) -> bytes:
    """A UDP header with the right checksum, and its payload."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    length = 8 + len(payload)
    header = struct.pack("!HHHH", source, port, length, 0)
    pseudo = socket.inet_pton(family, of) + socket.inet_pton(family, to)
    pseudo += struct.pack("!BBH", 0, 17, length) if family == socket.AF_INET else struct.pack("!IHBB", length, 0, 0, 17)
    checksum = internet_sum(pseudo + header + payload) or 0xFFFF
    return struct.pack("!HHHH", source, port, length, checksum) + payload


def ipv4(
    body: bytes, to: str = HERE, of: str = THERE, *, options: bytes = b"", fragment: int = 0, number: int = 7,
    protocol: int = 17, total: int | None = None,
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(body) if total is None else total, number, fragment, 64,
        protocol, 0, socket.inet_aton(of), socket.inet_aton(to),
    )  # fmt: skip
    return head + options + body


def ipv6(body: bytes, to: str = HERE6, of: str = THERE6, *, following: int = 17) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, of) + socket.inet_pton(socket.AF_INET6, to)
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + addresses + body


@dataclass
class Frame:
    """A packet in the ring. ``link`` is the link header; ``room`` how much of it and the packet the kernel keeps."""

    packet: bytes
    status: int = STATUS_USER | STATUS_VALID
    link: bytes = bytes(14)
    gso_type: int = 0
    gso_size: int = 0
    room: int = FRAME_BYTES

    def put(self, into: npt.NDArray[np.uint8]) -> bytes | None:
        """Returns what waits in the socket's queue, if the frame says so."""
        data = self.link + self.packet
        mac = NET - len(self.link)
        kept = data[: min(FRAME_BYTES - mac, self.room)]
        into[:] = 0xA5  # what was in the frame before
        into[:32] = np.frombuffer(
            struct.pack("<IIIHHIIHHI", self.status, len(data), len(kept), mac, NET, 0, 0, 0, 0, 0), np.uint8
        )
        into[mac - 10 : mac] = np.frombuffer(
            struct.pack("<BBHHHH", 0, self.gso_type, 42, self.gso_size, 0, 0), np.uint8
        )
        into[mac : mac + len(kept)] = np.frombuffer(kept, np.uint8)
        return data if self.status & STATUS_COPY else None


def ring_of(frames: list[Frame]) -> tuple[npt.NDArray[np.uint8], LongPackets]:
    ring = np.zeros((len(frames), FRAME_BYTES), np.uint8)
    waiting = [frame.put(row) for frame, row in zip(frames, ring, strict=True)]
    long = {row: data for row, data in enumerate(waiting) if data is not None}
    return ring, LongPackets.of(list(long.values()), np.array(list(long), np.int64))
