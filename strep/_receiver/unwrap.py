"""STREP taken off: captures that every tool for RTP reads."""

from __future__ import annotations

import struct
import uuid
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._edge.pcap import AnnotatedWriter, Flow, PcapReader
from .._model.datagrams import DatagramBatch
from .._model.exceptions import ConfigurationError
from .._model.types import Direction, Leg

__all__ = ["Unwrapped", "unwrap"]

I64 = npt.NDArray[np.int64]

_STREP_BYTES: Final = 24
_STREP_FIRST: Final = 0xC4  # magic, version 1; the two last bits are leg and direction
_LEGS: Final = (1 << 23) - 1
_PARTY: Final = 10 << 24  # 10.0.0.0/9: whom the platform talks to
_PLATFORM: Final = _PARTY | 1 << 23  # 10.128.0.0/9
_PORTS: Final = 8192  # pairs
_PARTY_PORT: Final = 16_384
_PLATFORM_PORT: Final = 32_768
_MAPPED: Final = 0xFFFF
_HERE: Final = (bytes([127, 0, 0, 1]), bytes(15) + b"\1")

_Key = tuple[int, int, int, bool]  # call_leg_id in halves, leg and direction, RTCP


class Unwrapped:
    """What was done: ``strep`` datagrams unwrapped, ``other`` ones kept as they were; ``legs`` in order of
    appearance. ``capture``: of the file, as a replay's."""

    def __init__(self) -> None:
        self.strep = 0
        self.other = 0
        self.legs: list[tuple[uuid.UUID, Leg]] = []
        self.capture: dict[str, Any] = {}


def unwrap(source: str | PathLike[str], out: str | PathLike[str]) -> Unwrapped:
    """Write the datagrams of a capture without their STREP headers, as pcapng.

    The n-th call leg of the file (a call_leg_id and A or B, from 1 on, in order of appearance) is a conversation of
    10.0.0.0 + n, port 16384 + 2k, and 10.128.0.0 + n, port 32768 + 2k, where k = (n - 1) mod 8192. What the platform
    received (inbound) goes from the former to the latter, what it transmitted (outbound) goes back; RTCP has the next
    ports. Each datagram has a comment: call_leg_id, leg and direction. What is not STREP keeps its source and port, and
    goes to 127.0.0.1 or ::1.

    Raises CaptureFileError, ConfigurationError if both are one file, OSError if the output cannot be written.
    """
    if Path(out).exists() and str(source) != "-" and Path(out).samefile(source):
        raise ConfigurationError(f"{out} is the file to read: give another one to write")
    with PcapReader(source) as reader:
        work = _Unwrapping()
        writer = AnnotatedWriter(out, comment="STREP headers were taken off: strep unwrap")
        try:
            for batch in reader.batches():
                work.write(batch, writer)
        finally:
            writer.close()
        work.found.capture = reader.about()
    return work.found


class _Unwrapping:
    def __init__(self) -> None:
        self.found = Unwrapped()
        self._flows: list[Flow] = []
        self._flow_of: dict[_Key | tuple[int, int, int, int], int] = {}
        self._leg_of: dict[tuple[int, int, int], int] = {}

    def write(self, batch: DatagramBatch, writer: AnnotatedWriter) -> None:
        slab, length = batch.heads(), batch.length.astype(np.int64)
        captured = batch.kept().astype(np.int64)
        strep = (slab[:, 0] & 0xFC == _STREP_FIRST) & (slab[:, 1] == _STREP_BYTES) & (captured > _STREP_BYTES + 1)
        words = np.ascontiguousarray(slab[:, 8:24]).view(">u8").astype(np.uint64)
        rtcp = (slab[:, _STREP_BYTES + 1] >= 192) & (slab[:, _STREP_BYTES + 1] <= 223)
        keys = np.stack([
            np.where(strep, words[:, 0], batch.source_hi),
            np.where(strep, words[:, 1], batch.source_lo),
            np.where(strep, slab[:, 0] & 3, batch.source_port).astype(np.uint64),
            np.where(strep, rtcp, batch.local_port).astype(np.uint64),
            strep.astype(np.uint64),
        ], axis=1)  # fmt: skip
        distinct, first, of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        number = np.zeros(len(distinct), np.int64)
        for which in np.argsort(first).tolist():
            hi, lo, three, four, is_strep = distinct[which].tolist()
            number[which] = self._leg(hi, lo, three, bool(four)) if is_strep else self._plain(hi, lo, three, four)
        begin = np.where(strep, _STREP_BYTES, 0).astype(np.int64)
        self.found.strep += int(np.count_nonzero(strep))
        self.found.other += int(np.count_nonzero(~strep))
        wire = np.minimum(length, 65_507) - begin
        flat, at = np.ascontiguousarray(batch.slab).reshape(-1), batch.begins() + begin
        writer.write(flat, at, captured - begin, wire, batch.arrival_ns, number[of.reshape(-1)], self._flows)

    def _leg(self, hi: int, lo: int, bits: int, rtcp: bool) -> int:
        key = hi, lo, bits, rtcp
        if key not in self._flow_of:
            leg, direction = Leg(bits >> 1), Direction(bits & 1)
            call = uuid.UUID(int=hi << 64 | lo)
            n = self._leg_of.setdefault((hi, lo, leg), len(self._leg_of) + 1)
            if n > len(self.found.legs):
                self.found.legs.append((call, leg))
            k = 2 * ((n - 1) % _PORTS) + rtcp
            n = (n - 1) % _LEGS + 1
            party = struct.pack("!I", _PARTY + n), _PARTY_PORT + k
            platform = struct.pack("!I", _PLATFORM + n), _PLATFORM_PORT + k
            ends = (*party, *platform) if direction is Direction.INBOUND else (*platform, *party)
            comment = f"call_leg_id {call}, leg {leg.label}, {direction.label}"
            self._flow_of[key] = len(self._flows)
            self._flows.append(Flow(*ends, comment))
        return self._flow_of[key]

    def _plain(self, hi: int, lo: int, port: int, local_port: int) -> int:
        key = (hi, lo, port, 65_536 + local_port)  # no key of a leg is like this
        if key not in self._flow_of:
            v4 = hi == 0 and lo >> 32 == _MAPPED
            source = struct.pack("!I", lo & 0xFFFF_FFFF) if v4 else struct.pack("!QQ", hi, lo)
            self._flow_of[key] = len(self._flows)
            self._flows.append(Flow(source, port, _HERE[not v4], local_port))
        return self._flow_of[key]
