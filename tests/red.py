"""Redundant audio data (RFC 2198), by hand, and by another reading of it than the engine's."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from support import packet

Block = tuple[int, int, bytes]  # payload type, how many ticks earlier, payload

RED = 121


def red(blocks: Sequence[Block], payload_type: int, payload: bytes) -> bytes:
    """A payload: redundant blocks, oldest first, and the primary one."""
    heads = b"".join(
        struct.pack(">BHB", 0x80 | pt, ticks << 2 | len(body) >> 8, len(body) & 0xFF) for pt, ticks, body in blocks
    )
    return heads + bytes([payload_type]) + b"".join(body for *_, body in blocks) + payload


@dataclass(frozen=True)
class Parsed:
    fault: str = ""  # as totals name it
    payload_type: int = 0
    payload: bytes = b""
    blocks: list[Block] = field(default_factory=list)


def parsed(payload: bytes, most: int) -> Parsed:
    """The oracle: byte by byte, as RFC 2198 section 3 says."""
    at, heads = 0, []
    while at < len(payload) and payload[at] & 0x80:
        if len(heads) == most:
            return Parsed("red_chain")
        if at + 4 > len(payload):
            return Parsed("red_cut")
        word = int.from_bytes(payload[at : at + 4])
        heads.append((word >> 24 & 0x7F, word >> 10 & 0x3FFF, word & 0x3FF))
        at += 4
    if at == len(payload):
        return Parsed("red_cut")
    primary, at = payload[at], at + 1
    blocks: list[Block] = []
    for payload_type, ticks, length in heads:
        if at + length > len(payload):
            return Parsed("red_length")
        blocks.append((payload_type, ticks, payload[at : at + length]))
        at += length
    return Parsed("", primary, payload[at:], blocks)


@dataclass(frozen=True)
class RedSender:
    """Packets ``frames`` ticks apart that carry those ``distances`` packets before them once more. ``payloads``: of all
    packets, each of ``payload_type``; ``skips``: ticks of silence before packets, which no sequence number tells of."""

    payloads: Sequence[bytes]
    distances: Sequence[int] = (1,)
    payload_type: int = 0
    frames: int = 160
    first: int = 0
    first_timestamp: int = 0
    skips: dict[int, int] = field(default_factory=dict)
    red_type: int = RED

    def timestamp(self, k: int) -> int:
        return self.first_timestamp + k * self.frames + sum(ticks for at, ticks in self.skips.items() if at <= k)

    def packet(self, k: int, **options: object) -> bytes:
        blocks: list[Block] = []
        for distance in sorted(self.distances, reverse=True):
            ticks = self.timestamp(k) - self.timestamp(k - distance)
            if k >= distance and ticks < 1 << 14:
                blocks.append((self.payload_type, ticks, self.payloads[k - distance]))
        payload = red(blocks, self.payload_type, self.payloads[k])
        return packet(
            self.first + k,
            timestamp=self.timestamp(k),
            payload=payload,
            payload_type=self.red_type,
            **options,  # type: ignore[arg-type]
        )
