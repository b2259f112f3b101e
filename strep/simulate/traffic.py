"""Traffic as arrays: every packet of every call with its send time, and the truth about what was done to it. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .._codecs import decode, encode, parse_codec
from .._exceptions import ConfigurationError
from .._parser import write_headers
from .._types import Codec, Direction, Leg

__all__ = ["Impairments", "StreamTruth", "Traffic", "make_traffic"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Impairments:
    """What happens on the way: probabilities per packet, and a uniform random delay."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # held back by one to three packet times
    jitter_ms: float = 0.0
    protect_first: int = 0  # packets at each stream's beginning that are left alone


@dataclass(slots=True)
class StreamTruth:
    """What a perfect receiver finds of one stream."""

    call_leg_id: uuid.UUID
    leg: Leg
    direction: Direction
    ssrc: int
    first_sequence: int
    sent: npt.NDArray[np.bool_]  # per packet: whether it was sent at all
    duplicates: int
    frames_a_packet: int
    samples: I16  # decoded, of all packets

    @property
    def expected(self) -> int:
        """Sequence numbers between the first and the last that were sent."""
        there = np.flatnonzero(self.sent)
        return int(there[-1] - there[0] + 1) if there.size else 0

    @property
    def lost(self) -> int:
        return self.expected - int(self.sent.sum())

    def audio(self) -> I16:
        """Samples from the first to the last packet that was sent; lost packets are silence."""
        there = np.flatnonzero(self.sent)
        if not there.size:
            return self.samples[:0]
        samples = self.samples.reshape(-1, self.frames_a_packet) * self.sent[:, None]
        return samples[there[0] : there[-1] + 1].reshape(-1).astype(np.int16)


@dataclass(slots=True)
class Traffic:
    """Packets in order of sending. Columns (n,): ``time_ns`` since the start, ``stream``, ``number`` (in its
    stream). Per stream: ``truth``, and the payloads uint8 (streams, packets, bytes)."""

    time_ns: I64
    stream: I64
    number: I64
    truth: list[StreamTruth]
    payloads: U8
    payload_type: int
    codec: Codec
    first_timestamp: I64
    _hi: npt.NDArray[np.uint64] = field(init=False)
    _lo: npt.NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        self._hi = np.array([t.call_leg_id.int >> 64 for t in self.truth], np.uint64)
        self._lo = np.array([t.call_leg_id.int & 0xFFFF_FFFF_FFFF_FFFF for t in self.truth], np.uint64)

    def __len__(self) -> int:
        return len(self.time_ns)

    def direction(self, rows: slice | I64) -> I64:
        """0 inbound, 1 outbound."""
        return np.array([t.direction for t in self.truth], np.int64)[self.stream[rows]]

    def datagrams(self, rows: slice | I64, *, strep: bool) -> U8:
        """The datagrams of some rows, uint8 (k, length): they are all of one length."""
        stream, number = self.stream[rows], self.number[rows]
        size = self.payloads.shape[2]
        slab = np.empty((len(stream), (36 if strep else 12) + size), np.uint8)
        truth = self.truth

        def of(values: list[int]) -> I64:
            return np.array(values, np.int64)[stream]

        header = write_headers(
            slab,
            strep=strep,
            call_leg_hi=self._hi[stream],
            call_leg_lo=self._lo[stream],
            leg=of([t.leg for t in truth]),
            direction=of([t.direction for t in truth]),
            payload_type=self.payload_type,
            sequence_number=(of([t.first_sequence for t in truth]) + number) & 0xFFFF,
            rtp_timestamp=(self.first_timestamp[stream] + number * truth[0].frames_a_packet) & 0xFFFF_FFFF,
            ssrc=of([t.ssrc for t in truth]),
            marker=number == 0,
        )
        slab[:, header:] = self.payloads[stream, number]
        return slab


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
    seed: int | None = None,
) -> Traffic:
    """Two-way calls: leg A, inbound and outbound, with random sequence numbers, timestamps, SSRCs and call_leg_ids.

    ``voices`` int16 at the codec's rate (default: the bundled ones), repeated, begun elsewhere for each call.
    ``drift_ppm``: how much faster than true the senders' clocks run. Same seed, same packets.

    Raises ConfigurationError.
    """
    chosen = parse_codec(codec) if isinstance(codec, str) and codec.upper() != "L16" else codec
    if isinstance(chosen, str):
        chosen = parse_codec("L16/16000")
    frames = round(chosen.clock_rate * ptime_ms / 1000)
    if frames < 1 or abs(frames * 1000 - chosen.clock_rate * ptime_ms) > 1e-6:
        raise ConfigurationError(f"ptime {ptime_ms} ms is no whole number of samples at {chosen.clock_rate} Hz")
    packets = round(duration_s * 1000 / ptime_ms)
    if calls < 1 or packets < 1:
        raise ConfigurationError(f"{calls} calls of {duration_s} s: at least one call, at least one packet")
    impairments = impairments or Impairments()
    for name in ("loss", "duplicate", "reorder"):
        if not 0 <= getattr(impairments, name) <= 1:
            raise ConfigurationError(f"{name} {getattr(impairments, name)}: a probability from 0 to 1")
    if voices is None:
        from .speech import bundled_voices

        voices = bundled_voices(chosen.sample_rate)
    rng = np.random.default_rng(seed)
    streams = 2 * calls
    size = frames * chosen.frame_bytes
    payloads = np.empty((streams, packets, size), np.uint8)
    truth = []
    for s in range(streams):
        call, direction = divmod(s, 2)
        voice = np.roll(voices[direction], -call * voices[direction].size // max(calls, 1))
        samples = np.resize(voice, packets * frames)
        if chosen.channels > 1:
            samples = np.repeat(samples, chosen.channels)
        payloads[s] = encode(chosen, samples).reshape(packets, size)
        if direction == 0:
            leg_id = uuid.UUID(bytes=rng.bytes(16), version=4)
        truth.append(
            StreamTruth(
                leg_id,
                Leg.A,
                Direction(direction),
                int(rng.integers(1, 1 << 32)),
                int(rng.integers(0, 1 << 16)),
                np.ones(packets, np.bool_),
                0,
                frames * chosen.channels,
                decode(chosen, payloads[s].reshape(-1)),
            )
        )
    first_timestamp = rng.integers(0, 1 << 32, streams)
    ptime_ns = round(ptime_ms * 1e6)
    phase = np.zeros(streams, np.int64) if in_phase else np.arange(streams) * ptime_ns // streams
    stream = np.repeat(np.arange(streams), packets)
    number = np.tile(np.arange(packets), streams)
    time_ns = phase[stream] + np.rint(number * ptime_ns / (1 + drift_ppm * 1e-6)).astype(np.int64)
    order = _impair(stream, number, time_ns, ptime_ns, impairments, truth, rng)
    return Traffic(
        *order,
        truth,
        payloads,
        payload_type if payload_type is not None else {"PCMU": 0, "PCMA": 8}.get(chosen.name, 96),
        chosen,
        first_timestamp,
    )


def _impair(
    stream: I64,
    number: I64,
    time_ns: I64,
    ptime_ns: int,
    impairments: Impairments,
    truth: list[StreamTruth],
    rng: np.random.Generator,
) -> tuple[I64, I64, I64]:
    """Send times, streams and numbers in order of sending; notes in ``truth`` what was left out and doubled."""
    chance = rng.random((3, len(stream)))
    free = number >= impairments.protect_first
    lost = (chance[0] < impairments.loss) & free
    doubled = (chance[1] < impairments.duplicate) & free & ~lost
    held = (chance[2] < impairments.reorder) & free
    time_ns = time_ns + np.where(held, rng.integers(1, 4, len(stream)) * ptime_ns + ptime_ns // 2, 0)
    time_ns += (rng.random(len(stream)) * impairments.jitter_ms * 1e6).astype(np.int64) * free
    copies = time_ns[doubled] + rng.integers(0, 2 * ptime_ns, int(doubled.sum()))
    for s, t in enumerate(truth):
        mine = stream == s
        t.sent = ~lost[mine]
        t.duplicates = int(doubled[mine].sum())
    kept = ~lost
    all_times = np.concatenate([time_ns[kept], copies])
    order = np.argsort(all_times, kind="stable")
    return (
        all_times[order],
        np.concatenate([stream[kept], stream[doubled]])[order],
        np.concatenate([number[kept], number[doubled]])[order],
    )
