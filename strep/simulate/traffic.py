"""Traffic as arrays: every packet of every call with its send time, and the truth about what was done to it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs import decode, encode, parse_codec
from .._datagrams import DatagramBatch
from .._exceptions import ConfigurationError
from .._parser import write_headers
from .._types import Codec, Direction, Leg
from .impair import Impairments, impair

__all__ = ["Impairments", "StreamTruth", "Traffic", "make_traffic", "wire_codec"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

_LARGEST_UDP: Final = 65_507
_HEADERS: Final = 36  # STREP and RTP
_MASK_64: Final = 0xFFFF_FFFF_FFFF_FFFF
_DRIFT_MOST_PPM: Final = 100_000


@dataclass(slots=True)
class StreamTruth:
    """What a perfect receiver finds of one stream."""

    call_leg_id: uuid.UUID
    leg: Leg
    direction: Direction
    ssrc: int
    first_sequence: int  # sequence number of packet 0; it wraps
    sent: npt.NDArray[np.bool_]  # per packet: whether it was sent at all
    duplicates: int
    frames_a_packet: int  # values: sample frames times channels
    samples: I16  # decoded, of all packets
    reordered: int = 0  # packets that were sent after one of a higher sequence number
    first_timestamp: int = 0  # RTP timestamp of packet 0; it wraps

    @property
    def key(self) -> tuple[uuid.UUID, Leg, Direction]:
        """What a STREP receiver tells streams apart by."""
        return self.call_leg_id, self.leg, self.direction

    @property
    def packets(self) -> int:
        """Packets that were sent, copies not counted."""
        return int(self.sent.sum())

    @property
    def expected(self) -> int:
        """Sequence numbers between the first and the last that were sent (RFC 3550 A.3)."""
        there = np.flatnonzero(self.sent)
        return int(there[-1] - there[0] + 1) if there.size else 0

    @property
    def lost(self) -> int:
        """Sequence numbers between the first and the last that were not sent."""
        return self.expected - self.packets

    @property
    def rfc3550_lost(self) -> int:
        """Expected minus received with copies: may be negative (RFC 3550 section 6.4.1)."""
        return self.lost - self.duplicates

    def audio(self) -> I16:
        """Samples from the first to the last packet that was sent; lost packets are silence."""
        there = np.flatnonzero(self.sent)
        if not there.size:
            return self.samples[:0]
        samples = self.samples.reshape(-1, self.frames_a_packet) * self.sent[:, None]
        return samples[there[0] : there[-1] + 1].reshape(-1).astype(np.int16)


@dataclass(slots=True)
class Traffic:
    """Datagrams in order of sending. Columns int64 (n,): ``time_ns`` since the start, ``stream``, ``number`` (of the
    packet in its stream). Per stream: ``truth``, and the payloads uint8 (streams, packets, bytes)."""

    time_ns: I64
    stream: I64
    number: I64
    truth: list[StreamTruth]
    payloads: U8
    payload_type: int
    codec: Codec
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
    def frames_a_packet(self) -> int:
        """RTP timestamp units between two packets of a stream."""
        return int(self.payloads.shape[2]) // self.codec.frame_bytes

    def direction(self, rows: slice | I64) -> I64:
        """0 inbound, 1 outbound, of each of the rows."""
        directions: I64 = self._columns[1][self.stream[rows]]
        return directions

    def datagrams(self, rows: slice | I64, *, strep: bool) -> U8:
        """The datagrams of some rows, uint8 (k, length): they are all of one length."""
        stream, number = self.stream[rows], self.number[rows]
        size = self.payloads.shape[2]
        slab = np.empty((len(stream), (_HEADERS if strep else 12) + size), np.uint8)
        leg, direction, ssrc, first_sequence = self._columns[:, stream]
        header = write_headers(
            slab,
            strep=strep,
            call_leg_hi=self._hi[stream],
            call_leg_lo=self._lo[stream],
            leg=leg,
            direction=direction,
            payload_type=self.payload_type,
            sequence_number=(first_sequence + number) & 0xFFFF,
            rtp_timestamp=(self.first_timestamp[stream] + number * self.frames_a_packet) & 0xFFFF_FFFF,
            ssrc=ssrc,
            marker=number == 0,
        )
        slab[:, header:] = self.payloads[stream, number]
        return slab

    def batches(
        self, *, strep: bool = True, rx_port: int = 9000, tx_port: int | None = None, start_ns: int | None = None
    ) -> Iterator[DatagramBatch]:
        """What a socket would give of this traffic, arriving exactly when it is sent. See :func:`.recorded.batches`."""
        from .recorded import START_NS, batches

        return batches(
            self,
            strep=strep,
            rx_port=rx_port,
            tx_port=rx_port if tx_port is None else tx_port,
            start_ns=START_NS if start_ns is None else start_ns,
        )

    def write_pcap(
        self,
        path: str | PathLike[str],
        *,
        strep: bool = True,
        rx_port: int = 9000,
        tx_port: int | None = None,
        start_ns: int | None = None,
    ) -> int:
        """Write :meth:`batches` as a pcap file; returns how many datagrams it holds."""
        from .recorded import write_pcap

        return write_pcap(self.batches(strep=strep, rx_port=rx_port, tx_port=tx_port, start_ns=start_ns), path)


def wire_codec(codec: str | Codec) -> Codec:
    """The codec that is meant: as :func:`strep._codecs.parse_codec`, but a bare "L16" is L16/16000.

    Raises ConfigurationError.
    """
    if isinstance(codec, Codec):
        return codec
    return parse_codec("L16/16000" if codec.strip().upper() == "L16" else codec)


def make_traffic(
    *,
    calls: int = 3,
    duration_s: float = 6.0,
    codec: str | Codec = "PCMU",
    payload_type: int | None = None,
    ptime_ms: float = 20,
    voices: tuple[I16, I16] | None = None,
    impairments: Impairments | None = None,
    drift_ppm: float = 0.0,
    in_phase: bool = False,
    legs: str = "a",
    seed: int | None = None,
) -> Traffic:
    """Two-way calls with random sequence numbers, timestamps, SSRCs and call_leg_ids. Same seed, same packets.

    Streams stand call by call: leg A inbound, leg A outbound, and with ``legs="both"`` leg B inbound (the voice of A
    outbound) and outbound. Their packets are spread evenly over the packet time, unless ``in_phase``.
    ``voices``: int16 (n,) at the codec's rate (default: the bundled ones), repeated, begun elsewhere for each call.
    ``payload_type``: default 0 for PCMU, 8 for PCMA, 96 for L16 (a receiver must be told of it).
    ``drift_ppm``: how much faster than true the senders' clocks run.

    Raises ConfigurationError.
    """
    chosen = wire_codec(codec)
    frames, packets = _dimensions(chosen, calls, duration_s, ptime_ms)
    payload_type = {"PCMU": 0, "PCMA": 8}.get(chosen.name, 96) if payload_type is None else payload_type
    if not 0 <= payload_type <= 127 or 64 <= payload_type <= 95:
        raise ConfigurationError(f"payload type {payload_type}: choose 0 to 63 or 96 to 127 (RFC 5761)")
    if not abs(drift_ppm) <= _DRIFT_MOST_PPM:
        raise ConfigurationError(f"drift {drift_ppm} ppm: choose -{_DRIFT_MOST_PPM} to {_DRIFT_MOST_PPM}")
    if legs not in ("a", "both"):
        raise ConfigurationError(f'legs {legs!r}: "a" or "both"')
    if seed is not None and seed < 0:
        raise ConfigurationError(f"seed {seed}: 0 or more")
    if voices is None:
        from .speech import bundled_voices

        voices = bundled_voices(chosen.sample_rate)
    if not all(voice.size for voice in voices):
        raise ConfigurationError("a voice has no samples: give at least one")
    rng = np.random.default_rng(seed)
    per_call = 4 if legs == "both" else 2
    streams = per_call * calls
    payloads = np.empty((streams, packets, frames * chosen.frame_bytes), np.uint8)
    first_timestamp = rng.integers(0, 1 << 32, streams)
    ssrc = rng.integers(1, 1 << 32, streams)
    first_sequence = rng.integers(0, 1 << 16, streams)
    ids = [uuid.UUID(bytes=rng.bytes(16), version=1) for _ in range(calls)]
    truth = []
    for s in range(streams):
        call, which = divmod(s, per_call)
        leg, direction = divmod(which, 2)
        voice = voices[direction ^ leg]
        samples = np.resize(np.roll(voice, -(call * voice.size // calls)), packets * frames)
        if chosen.channels > 1:
            samples = np.repeat(samples, chosen.channels)
        payloads[s] = encode(chosen, samples).reshape(packets, -1)
        truth.append(
            StreamTruth(
                ids[call],
                Leg(leg),
                Direction(direction),
                int(ssrc[s]),
                int(first_sequence[s]),
                np.ones(packets, np.bool_),
                0,
                frames * chosen.channels,
                decode(chosen, payloads[s].reshape(-1)),
                first_timestamp=int(first_timestamp[s]),
            )
        )
    ptime_ns = round(ptime_ms * 1e6)
    phase = np.zeros(streams, np.int64) if in_phase else np.arange(streams) * ptime_ns // streams
    within = np.rint(np.arange(packets) * (ptime_ns / (1 + drift_ppm * 1e-6))).astype(np.int64)
    done = impair(phase[:, None] + within, ptime_ns, impairments or Impairments(), rng)
    for s, t in enumerate(truth):
        t.sent = ~done.lost[s]
        t.duplicates = int(done.doubled[s].sum())
        t.reordered = int(done.reordered[s])
    return Traffic(done.time_ns, done.stream, done.number, truth, payloads, payload_type, chosen, first_timestamp)


def _dimensions(codec: Codec, calls: int, duration_s: float, ptime_ms: float) -> tuple[int, int]:
    """Sample frames of a packet, and packets of a stream."""
    if not (0 < ptime_ms < 10_000 and 0 < duration_s < 1e6):
        raise ConfigurationError(f"packets of {ptime_ms} ms for {duration_s} s: both are positive")
    frames = round(codec.clock_rate * ptime_ms / 1000)
    if frames < 1 or abs(frames * 1000 - codec.clock_rate * ptime_ms) > 1e-6:
        raise ConfigurationError(f"ptime {ptime_ms} ms is no whole number of samples at {codec.clock_rate} Hz")
    if frames * codec.frame_bytes + _HEADERS > _LARGEST_UDP:
        raise ConfigurationError(f"ptime {ptime_ms} ms of {codec} does not fit a datagram: choose a shorter one")
    packets = round(duration_s * 1000 / ptime_ms)
    if calls < 1 or packets < 1:
        raise ConfigurationError(f"{calls} calls of {duration_s} s: at least one call, at least one packet")
    return frames, packets
