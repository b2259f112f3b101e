"""Traffic as arrays: every datagram of every call with its send time, and the truth about each stream. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.datagrams import DatagramBatch
from .._model.types import Codec
from .._parser import write_headers
from .packets import Packets
from .recorded import START_NS, batches, write_pcap
from .truth import StreamTruth

__all__ = ["STREP_AND_RTP_BYTES", "Traffic"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

STREP_AND_RTP_BYTES: Final = 36  # of headers
_RTP_BYTES: Final = 12  # of a header
_MASK_64: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(slots=True)
class Traffic:
    """Datagrams in order of sending. Columns int64 (n,): ``time_ns`` since the start, ``stream``, ``number`` (of the
    packet in its stream). Per stream: ``truth``, and what its packets hold. ``payload_type`` is that of the audio."""

    time_ns: I64
    stream: I64
    number: I64
    truth: list[StreamTruth]
    packets: Packets
    payload_type: int
    codec: Codec
    frames_a_packet: int  # RTP timestamp units between two packets of a stream
    first_timestamp: I64
    _hi: U64 = field(init=False)
    _lo: U64 = field(init=False)
    _columns: I64 = field(init=False)  # per stream: leg, direction, ssrc, first sequence number

    def __post_init__(self) -> None:
        self._hi = np.array([t.call_leg_id.int >> 64 for t in self.truth], np.uint64)
        self._lo = np.array([t.call_leg_id.int & _MASK_64 for t in self.truth], np.uint64)
        self._columns = np.array([(t.leg, t.direction, t.ssrc, t.first_sequence) for t in self.truth], np.int64).T

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def streams_a_call(self) -> int:
        """2, or 4 with both legs; those of a call stand side by side."""
        return len(self.truth) // len({t.call_leg_id for t in self.truth})

    def direction(self, rows: slice | I64) -> I64:
        """0 inbound, 1 outbound, of each of the rows."""
        directions: I64 = self._columns[1][self.stream[rows]]
        return directions

    def lengths(self, rows: slice | I64, *, strep: bool) -> I64:
        """How long each of these datagrams is, int64 (k,)."""
        lengths: I64 = self.packets.length[self.stream[rows], self.number[rows]]
        return lengths + (STREP_AND_RTP_BYTES if strep else _RTP_BYTES)

    def datagrams(self, rows: slice | I64, *, strep: bool) -> U8:
        """The datagrams of some rows, uint8 (k, length of the longest there may be): see :meth:`lengths`."""
        stream, number = self.stream[rows], self.number[rows]
        packets = self.packets
        slab = np.empty(
            (len(stream), (STREP_AND_RTP_BYTES if strep else _RTP_BYTES) + packets.payload.shape[2]), np.uint8
        )
        leg, direction, ssrc, first_sequence = self._columns[:, stream]
        header = write_headers(
            slab,
            strep=strep,
            call_leg_hi=self._hi[stream],
            call_leg_lo=self._lo[stream],
            leg=leg,
            direction=direction,
            payload_type=packets.payload_type[stream, number],
            sequence_number=(first_sequence + number) & 0xFFFF,
            rtp_timestamp=(self.first_timestamp[stream] + packets.timestamp[stream, number]) & 0xFFFF_FFFF,
            ssrc=ssrc,
            marker=packets.marker[stream, number],
        )
        slab[:, header:] = packets.payload[stream, number]
        return slab

    def batches(
        self, *, strep: bool = True, rx_port: int = 9000, tx_port: int | None = None, start_ns: int = START_NS
    ) -> Iterator[DatagramBatch]:
        """What a socket would give of this traffic, arriving exactly when it is sent. See :func:`.recorded.batches`."""
        return batches(
            self,
            strep=strep,
            rx_port=rx_port,
            tx_port=rx_port if tx_port is None else tx_port,
            start_ns=start_ns,
        )

    def write_pcap(
        self,
        path: str | PathLike[str],
        *,
        strep: bool = True,
        rx_port: int = 9000,
        tx_port: int | None = None,
        start_ns: int = START_NS,
    ) -> int:
        """Write :meth:`batches` as a pcap file; returns how many datagrams it holds."""
        return write_pcap(self.batches(strep=strep, rx_port=rx_port, tx_port=tx_port, start_ns=start_ns), path)
