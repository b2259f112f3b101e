"""Calls made up as traffic: who says what, in which packets, and what happens to these on the way. Pure."""

from __future__ import annotations

import uuid
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.facts import CODECS, codec_facts, parse_codec
from .._model.exceptions import ConfigurationError
from .._model.types import Codec, Direction, Leg
from .dtmf import EVENT_BYTES, TELEPHONE_EVENT, plan_keys
from .impair import Impairments, impair
from .packets import Packets, encode_stream, uniform
from .speech import bundled_voices
from .traffic import STREP_AND_RTP_BYTES, Traffic
from .truth import StreamTruth

__all__ = ["make_traffic", "wire_codec"]

I16 = npt.NDArray[np.int16]

_LARGEST_UDP_BYTES: Final = 65_507
_DRIFT_LIMIT_PPM: Final = 100_000
_BEGINNINGS: Final = 8  # places of the dialogue where calls of a packed codec begin: encoding is slow


def wire_codec(codec: str | Codec) -> Codec:
    """The codec that is meant: as :func:`strep._codecs.facts.parse_codec`, but a bare "L16" is L16/16000.

    Raises ConfigurationError.
    """
    if isinstance(codec, Codec):
        return codec
    row = CODECS.get(codec.strip().upper())
    return parse_codec(row.simulated_as if row and row.simulated_as else codec)


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
    dtmf: str = "",
    dtmf_at_s: float = 1.0,
    seed: int | None = None,
) -> Traffic:
    """Two-way calls with random sequence numbers, timestamps, SSRCs and call_leg_ids. Same seed, same packets.

    Streams stand call by call: leg A inbound, leg A outbound, and with ``legs="both"`` leg B inbound (the voice of A
    outbound) and outbound. Their packets are spread evenly over the packet time, unless ``in_phase``.
    ``voices``: int16 (n,) at the codec's rate (default: the bundled ones), repeated; each call begins at another place.
    ``codec``: a Codec, or a name of the codec table in README, if it can be simulated; a bare "L16" is L16/16000.
    ``payload_type``: default the codec's static one, or else the dynamic one of that table, which receivers must be
    told (but 111, opus).
    ``ptime_ms``: audio of a packet, in ms. ``drift_ppm``: how much too fast the senders' clocks run.
    ``dtmf``: keys that the callers press, from ``dtmf_at_s`` on, as telephone-events of payload type 101 (RFC 4733)
    that replace the audio: 100 ms each, with 100 ms between them.

    Raises ConfigurationError, and MissingExtraError for a codec that needs what is not installed.
    """
    chosen = wire_codec(codec)
    frames, packets = _dimensions(chosen, calls, duration_s, ptime_ms)
    payload_type = codec_facts(chosen).simulated_type if payload_type is None else payload_type
    if not 0 <= payload_type <= 127 or 64 <= payload_type <= 95:
        raise ConfigurationError(f"payload type {payload_type}: choose 0 to 63 or 96 to 127 (RFC 5761)")
    keys = plan_keys(dtmf, dtmf_at_s, ptime_ms=ptime_ms, packets=packets)
    if keys and payload_type == TELEPHONE_EVENT:
        raise ConfigurationError(f"payload type {payload_type} is that of telephone-events: choose another")
    if not abs(drift_ppm) <= _DRIFT_LIMIT_PPM:
        raise ConfigurationError(f"drift {drift_ppm} ppm: choose -{_DRIFT_LIMIT_PPM} to {_DRIFT_LIMIT_PPM}")
    if legs not in ("a", "both"):
        raise ConfigurationError(f'legs {legs!r}: "a" or "both"')
    if seed is not None and seed < 0:
        raise ConfigurationError(f"seed {seed}: 0 or more")
    if voices is None:
        voices = bundled_voices(chosen.sample_rate)
    if not all(voice.size for voice in voices):
        raise ConfigurationError("a voice has no samples: give at least one")
    rng = np.random.default_rng(seed)
    per_call = 4 if legs == "both" else 2
    streams = per_call * calls
    content = _speak(
        chosen,
        voices,
        calls=calls,
        per_call=per_call,
        packets=packets,
        frames=frames,
        payload_type=payload_type,
        least_bytes=EVENT_BYTES if keys else 1,
    )
    first_timestamp = rng.integers(0, 1 << 32, streams)
    ssrc = rng.integers(1, 1 << 32, streams)
    first_sequence = rng.integers(0, 1 << 16, streams)
    ids = [uuid.UUID(bytes=rng.bytes(16), version=1) for _ in range(calls)]
    if keys:
        content.press([s for s in range(streams) if not _speaker(s, per_call)], keys, frames)
    truth = [
        StreamTruth(
            call_leg_id=ids[s // per_call],
            leg=Leg(s % per_call // 2),
            direction=Direction(s % 2),
            ssrc=int(ssrc[s]),
            first_sequence=int(first_sequence[s]),
            sent=np.ones(packets, np.bool_),
            duplicates=0,
            frames_a_packet=frames * chosen.sample_rate // chosen.clock_rate * chosen.channels,
            codec=chosen,
            payloads=content.payload[s],
            lengths=content.length[s],
            first_timestamp=int(first_timestamp[s]),
            keys=() if _speaker(s, per_call) else keys,
        )
        for s in range(streams)
    ]
    ptime_ns = round(ptime_ms * 1e6)
    phase = np.zeros(streams, np.int64) if in_phase else np.arange(streams) * ptime_ns // streams
    within = np.rint(np.arange(packets) * (ptime_ns / (1 + drift_ppm * 1e-6))).astype(np.int64)
    sending = impair(phase[:, None] + within, ptime_ns, impairments or Impairments(), rng)
    for s, t in enumerate(truth):
        t.sent = ~sending.lost[s]
        t.duplicates = int(sending.doubled[s].sum())
        t.reordered = int(sending.reordered[s])
    return Traffic(
        time_ns=sending.time_ns,
        stream=sending.stream,
        number=sending.number,
        truth=truth,
        packets=content,
        payload_type=payload_type,
        codec=chosen,
        frames_a_packet=frames,
        first_timestamp=first_timestamp,
    )


def _speaker(stream: int, per_call: int) -> int:
    """Whose voice a stream has: 0 the caller (leg A inbound, leg B outbound), 1 the agent."""
    leg, direction = divmod(stream % per_call, 2)
    return leg ^ direction


def _speak(
    codec: Codec,
    voices: tuple[I16, I16],
    *,
    calls: int,
    per_call: int,
    packets: int,
    frames: int,
    payload_type: int,
    least_bytes: int,
) -> Packets:
    """What the packets of all streams hold, with room for ``least_bytes`` in each. Calls of a packed codec begin at a
    few places of the dialogue, others each at its own."""
    values = packets * frames * codec.sample_rate // codec.clock_rate
    beginnings = min(calls, _BEGINNINGS) if codec.packed else calls
    said = []
    for beginning in range(beginnings):
        for voice in voices:
            samples = np.resize(np.roll(voice, -(beginning * voice.size // beginnings)), values)
            samples = np.repeat(samples, codec.channels) if codec.channels > 1 else samples
            said.append(encode_stream(codec, samples, packets))
    size = max(least_bytes, *(len(payload) for stream in said for payload in stream))
    payload = np.zeros((per_call * calls, packets, size), np.uint8)
    length = np.zeros((per_call * calls, packets), np.int64)
    for s in range(per_call * calls):
        stream = said[2 * (s // per_call % beginnings) + _speaker(s, per_call)]
        if isinstance(stream, np.ndarray):
            payload[s, :, : stream.shape[1]] = stream
            length[s] = stream.shape[1]
        else:
            length[s] = [len(data) for data in stream]
            payload[s] = np.frombuffer(b"".join(data.ljust(size, b"\0") for data in stream), np.uint8).reshape(-1, size)
    return uniform(payload, length, payload_type, frames)


def _dimensions(codec: Codec, calls: int, duration_s: float, ptime_ms: float) -> tuple[int, int]:
    """Sample frames of a packet, and packets of a stream."""
    if not (0 < ptime_ms < 10_000 and 0 < duration_s < 1e6):
        raise ConfigurationError(f"packets of {ptime_ms} ms for {duration_s} s: both are positive")
    frames = round(codec.clock_rate * ptime_ms / 1000)
    if frames < 1 or abs(frames * 1000 - codec.clock_rate * ptime_ms) > 1e-6:
        raise ConfigurationError(f"ptime {ptime_ms} ms is no whole number of samples at {codec.clock_rate} Hz")
    if frames * codec.frame_bytes + STREP_AND_RTP_BYTES > _LARGEST_UDP_BYTES:
        raise ConfigurationError(f"ptime {ptime_ms} ms of {codec} does not fit a datagram: choose a shorter one")
    packets = round(duration_s * 1000 / ptime_ms)
    if calls < 1 or packets < 1:
        raise ConfigurationError(f"{calls} calls of {duration_s} s: at least one call, at least one packet")
    return frames, packets
