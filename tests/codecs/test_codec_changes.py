"""The codec changes in mid-stream, from any to any and back, as a re-INVITE has it: faults.md 12 and 49. Each segment
is what libavcodec makes of its payloads alone, at the stream's rate and channels; G.711 beside it is untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_witness import snr_db
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of

import strep
from strep._codecs.decoder import available
from strep._codecs.encoder import make_encoder
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._delivery.ordered_work import OrderedWork
from strep._engine.engine import Engine, EngineConfig
from strep._model.blocks import BlockBatch
from strep._model.events import Ended, Fault
from strep._model.types import Codec, Mask
from strep.resample import Resampler, resample
from strep.simulate.speech import bundled_voices

av = pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")

I16 = npt.NDArray[np.int16]
U8 = npt.NDArray[np.uint8]

TYPES = {
    96: "L16/16000", 97: "AMR/8000;octet-align=1", 98: "AMR-WB/16000;octet-align=1", 99: "iLBC/8000", 100: "L16/8000",
    102: "L16/8000/2", 103: "L16/48000/2", 112: "opus/48000/2",
}  # fmt: skip
STATIC = {
    0: "PCMU", 3: "GSM", 8: "PCMA", 9: "G722", 10: "L16/44100/2", 11: "L16/44100", 13: "CN", 18: "G729",
    101: "telephone-event", 111: "opus",
}  # fmt: skip
SPELLED = {number: name for number, name in (STATIC | TYPES).items() if name not in ("CN", "telephone-event")}
CODECS = {number: parse_codec(spelled) for number, spelled in SPELLED.items()}
EACH = 12  # packets of a segment
HUGE = {10: 365, 11: 365, 103: 480}  # frames a packet where 20 ms are too many bytes: as ffmpeg sends 44.1 kHz
CONFIG = EngineConfig(payload_types=PayloadTypes(TYPES))


@lru_cache
def speech(codec: Codec) -> I16:
    """A second of speech and more, another voice in each channel: int16 (n, channels)."""
    voices = bundled_voices(codec.sample_rate)
    return np.stack([voices[c][codec.sample_rate :][: 2 * codec.sample_rate] for c in range(codec.channels)], axis=1)


@lru_cache
def said_in(number: int) -> tuple[list[bytes], int]:
    """EACH payloads of one encoder's, and the frames of each."""
    codec = CODECS[number]
    frames = HUGE.get(number, codec.sample_rate // 50)
    audio = speech(codec)[: EACH * frames].reshape(EACH, -1)
    match codec.name:
        case "PCMU" | "PCMA" | "L16":
            encoder = av.CodecContext.create(LIBAV[codec.name], "w")
            encoder.sample_rate, encoder.format = codec.sample_rate, "s16"
            encoder.layout = "mono" if codec.channels == 1 else "stereo"
            return [bytes(p) for part in audio for p in encoder.encode(frame_of(part, codec))], frames
        case "iLBC":  # nothing that is installed encodes it
            rng = np.random.default_rng(2)
            return [rng.bytes(37) + b"\x02" for _ in range(EACH)], frames
    encoder = make_encoder(codec, frames)
    return [encoder.encode(part) for part in audio], frames


def frame_of(samples: I16, codec: Codec) -> Any:
    layout = "mono" if codec.channels == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate = codec.sample_rate
    return frame


# --- the witness: libavcodec -----------------------------------------------------------------------------------------

LIBAV = {
    "PCMU": "pcm_mulaw", "PCMA": "pcm_alaw", "L16": "pcm_s16be", "G722": "g722", "G729": "g729", "GSM": "gsm",
    "iLBC": "ilbc", "opus": "libopus", "AMR": "libopencore_amrnb", "AMR-WB": "libopencore_amrwb",
}  # fmt: skip


@lru_cache
def alone(number: int) -> I16:
    """A segment decoded by a decoder of its own: int16 (frames, channels)."""
    codec = CODECS[number]
    context = av.CodecContext.create(LIBAV[codec.name], "r")
    context.sample_rate = codec.sample_rate
    context.layout = "mono" if codec.channels == 1 else "stereo"
    if codec.name == "iLBC":
        context.bit_rate = 15_200
    parts = []
    for payload in said_in(number)[0]:
        data = payload[1:] if codec.name.startswith("AMR") else payload  # as RFC 4867 stores a frame
        size = {"G729": 10}.get(codec.name, len(data))
        for begin in range(0, len(data), size):
            for frame in context.decode(av.Packet(data[begin : begin + size])):
                samples = frame.to_ndarray()
                flat = samples.T.reshape(-1) if frame.format.is_planar else samples.reshape(-1)
                if flat.dtype != np.int16:
                    flat = np.clip(np.rint(flat * 32_768), -32_768, 32_767).astype(np.int16)
                parts.append(flat)
    return np.concatenate(parts).reshape(-1, codec.channels)


def in_stream(number: int, stream: Codec) -> I16:
    """What a segment is to be in a stream of another codec: int16 (frames * channels,)."""
    codec, audio = CODECS[number], alone(number)
    frames = len(audio) * stream.sample_rate // codec.sample_rate
    if codec.sample_rate != stream.sample_rate:
        # what the filter looks ahead comes late by that much
        ahead = Resampler(codec.sample_rate, stream.sample_rate).lookahead
        late = -(-ahead * stream.sample_rate // codec.sample_rate)
        made = resample(audio if codec.channels > 1 else audio[:, 0], codec.sample_rate, stream.sample_rate)
        audio = np.concatenate([np.zeros((late, codec.channels), np.int16), made.reshape(-1, codec.channels)])[:frames]
    if codec.channels > stream.channels:
        audio = ((audio[:, :1].astype(np.int32) + audio[:, 1:]) // 2).astype(np.int16)
    elif codec.channels < stream.channels:
        audio = np.repeat(audio, 2, axis=1)
    return audio.reshape(-1)


LEAST_DB = {"opus": 60.0, "iLBC": 40.0}  # of others libavcodec's samples are ours, bit by bit


# --- streams ---------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """A stream's audio from its first block on, without gaps in it."""

    samples: list[I16] = field(default_factory=list)
    mask: list[U8] = field(default_factory=list)
    frames: int = 0
    report: strep.StreamReport | None = None
    payload: list[bytes] = field(default_factory=list)
    native: list[bool] = field(default_factory=list)  # of G.711 blocks: whether the bytes say what the samples do

    @property
    def audio(self) -> I16:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.int16)


Outcome = tuple[dict[int, Heard], list[Fault], Engine]


def run(arrivals: Sequence[Arrival], cuts: Sequence[int]) -> Outcome:
    """By the number of the call. Gaps are zeros, marked 255; accounts and places are checked at every step."""
    engine = Engine(CONFIG, OrderedWork().add)
    heard: dict[int, Heard] = {}
    faults: list[Fault] = []

    def take(events: list[Any]) -> None:
        for event in events:
            if isinstance(event, BlockBatch):
                assert event.payload_offset[-1] == len(event.payload)
                assert event.packet_frames.sum() == event.frames.sum() == len(event.mask)
                for i, block in enumerate(event):
                    one = heard.setdefault(number_of(block.stream), Heard())
                    if block.gap is not None:
                        one.samples.append(np.zeros(block.gap.samples * block.stream.channels, np.int16))
                        one.mask.append(np.full(block.gap.samples, 255, np.uint8))
                        one.frames += block.gap.samples
                    assert block.position == one.frames
                    assert block.samples.size == len(block.mask) * block.stream.channels > 0
                    one.samples.append(block.samples.reshape(-1))
                    one.mask.append(block.mask)
                    one.frames += len(block.mask)
                    assert block.stream.codec is not None
                    name = block.stream.codec.name
                    one.payload.append(event.payload[slice(*event.payload_offset[i : i + 2])].tobytes())
                    if name in ("PCMU", "PCMA") and not (event.transcoded is not None and event.transcoded[i]):
                        wrong = np.abs(g711(name, one.payload[-1]).astype(np.int32) - block.samples)
                        # half a step of G.711: what came in another codec has been put into this one
                        one.native.append(bool((wrong <= np.abs(block.samples.astype(np.int32)) / 32 + 8).all()))
            elif isinstance(event, Ended):
                heard.setdefault(number_of(event.stream), Heard()).report = event.report
            elif isinstance(event, Fault):
                faults.append(event)
        assert engine.totals().unaccounted == 0

    bounds = [0, *sorted(c for c in cuts if 0 < c < len(arrivals)), len(arrivals)]
    for begin, end in pairwise(bounds):
        take(engine.receive(batch_of(arrivals[begin:end], width=2200)))
    take(engine.flush())
    take(engine.advance(engine.now_ns))
    return heard, faults, engine


def number_of(stream: strep.StreamInfo) -> int:
    assert stream.call_leg_id is not None
    return stream.call_leg_id.int - leg_id(0).int


def g711(name: str, data: bytes) -> I16:
    context = av.CodecContext.create(LIBAV[name], "r")
    context.sample_rate, context.layout = 8000, "mono"
    return np.concatenate([f.to_ndarray().reshape(-1) for f in context.decode(av.Packet(data))])


class Sender:
    """One stream: packets back to back on the clock of the codec that each is in."""

    def __init__(self, call: int, start_ns: int = T0) -> None:
        self.call = call
        self.arrivals: list[Arrival] = []
        self._ns = start_ns
        self._sequence, self._tick = 65_530, 0xFFFF_FF00

    def send(self, number: int, payload: bytes, frames: int, rate: int, clock: int) -> None:
        data = packet(
            self._sequence, timestamp=self._tick, payload=payload, payload_type=number, ssrc=9, call=leg_id(self.call)
        )
        self.arrivals.append(Arrival(self._ns, data))
        self._sequence += 1
        self._tick += frames * clock // rate
        self._ns += frames * 1_000_000_000 // rate

    def say(self, number: int, payloads: Sequence[bytes], frames: int) -> None:
        codec = CODECS[number]
        for payload in payloads:
            self.send(number, payload, frames, codec.sample_rate, codec.clock_rate)


def usable() -> list[int]:
    found = []
    for number, codec in CODECS.items():
        try:
            if codec.packed and not available(codec):
                continue
            said_in(number)
        except strep.MissingExtraError:
            continue
        found.append(number)
    return found


@pytest.fixture(scope="module")
def pairs() -> Outcome:
    """Every codec, then every other one, and back; all at once, with G.711 beside them."""
    arrivals: list[Arrival] = []
    for first in usable():
        for other in usable():
            sender = Sender(1000 * first + other, T0 + (7 * first + other) * MS)
            for number in (first, other, first):
                sender.say(number, *said_in(number))
            arrivals += sender.arrivals
    for k, number in enumerate((0, 8, 0)):
        sender = Sender(900_000 + k)
        for _ in range(5):
            sender.say(number, *said_in(number))
        arrivals += sender.arrivals
    arrivals.sort(key=lambda a: a.ns)
    return run(arrivals, range(0, len(arrivals), 700))


@pytest.mark.parametrize("first", CODECS, ids=SPELLED.values())
def test_from_any_codec_to_any_and_back(pairs: Outcome, first: int) -> None:
    heard, faults, engine = pairs
    if first not in usable():
        pytest.skip(f"not installed: what encodes or decodes {SPELLED[first]}")
    assert faults == []
    assert engine.totals().dropped == 0
    stream = CODECS[first]
    for other in usable():
        one = heard[1000 * first + other]
        report = one.report
        assert report is not None
        assert report.stream.codec == stream
        assert (report.packets_lost, report.undecoded, report.timestamp_jumps, report.gap_samples) == (0, 0, 0, 0)
        assert (np.concatenate(one.mask) == Mask.RECEIVED).all()
        assert all(one.native)
        numbers = [first, other, first] if other != first else [first]
        wanted = [in_stream(number, stream) for number in numbers]
        if other == first:
            audio = one.audio[: wanted[0].size]  # it merely goes on
            assert one.frames == 3 * len(alone(first))
        else:
            audio = one.audio
            assert report.samples == one.frames == sum(w.size for w in wanted) // stream.channels
        assert audio.size == sum(w.size for w in wanted)
        ours = np.split(audio, np.cumsum([w.size for w in wanted])[:-1])
        for number, theirs, mine in zip(numbers, wanted, ours, strict=True):
            least = LEAST_DB.get(CODECS[number].name)
            if least is None:
                np.testing.assert_array_equal(mine, theirs, err_msg=f"{SPELLED[number]} in {stream}")
            else:
                assert snr_db(theirs, mine) > least, (SPELLED[number], str(stream))


def test_g711_beside_all_changes_is_exact(pairs: Outcome) -> None:
    heard, _, _ = pairs
    for k, number in enumerate((0, 8, 0)):
        one, said = heard[900_000 + k], b"".join(said_in(number)[0]) * 5
        assert b"".join(one.payload) == said
        np.testing.assert_array_equal(one.audio, g711(SPELLED[number], said))


# --- anything, in any order ------------------------------------------------------------------------------------------


def test_a_frame_and_a_fraction_add_up() -> None:
    """365 frames at 44.1 kHz are 66.2 at 8 kHz: a minute of such packets is a minute, and what follows is in place."""
    sender = Sender(0)
    sender.say(0, *said_in(0))
    count = 44_100 * 60 // 365
    sender.say(11, [bytes(730)] * count, 365)
    sender.say(0, *said_in(0))
    heard, _, engine = run(sender.arrivals, range(0, count, 1000))
    frames = EACH * 160
    assert engine.totals().dropped == 0
    assert heard[0].frames == 2 * frames + count * 365 * 8000 // 44_100
    np.testing.assert_array_equal(heard[0].audio[-frames:], g711("PCMU", b"".join(said_in(0)[0])))


LENGTHS = [0, 1, 2, 3, 10, 20, 31, 33, 38, 50, 62, 99, 100, 160, 161, 162, 320, 365, 730, 950, 1400]
PACKETS = st.lists(
    st.tuples(
        st.sampled_from([*STATIC, *TYPES, 4, 72, 105, 127]),
        st.one_of(st.sampled_from(LENGTHS), st.integers(0, 1400)),
        st.integers(0, 2**32 - 1),  # seed of the payload
        st.sampled_from([0, 80, 160, 160, 160, 320, 480, 882, 960]),  # ticks to the next packet
        st.sampled_from([1, 1, 1, 1, 2, 3]),  # sequence numbers to it
    ),
    min_size=2,
    max_size=40,
)


def beside(count: int) -> list[Arrival]:
    return [Arrival(T0 + k * 20 * MS, packet(k, ssrc=5, call=leg_id(7))) for k in range(count)]


@given(streams=st.lists(PACKETS, min_size=1, max_size=3), cuts=st.lists(st.integers(1, 150), max_size=6))
@settings(max_examples=usual_or_slow(15, 40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_in_whatever_codec_costs_nobody_a_sample(
    streams: list[list[tuple[int, int, int, int, int]]], cuts: list[int]
) -> None:
    """No exception, no fault, places and lengths that agree, and the same audio however it is cut into batches."""
    arrivals = beside(42)
    for call, packets in enumerate(streams):
        sequence = tick = 0
        for k, (number, length, seed, ticks, step) in enumerate(packets):
            payload = np.random.default_rng(seed).bytes(length)
            data = packet(
                sequence, timestamp=tick, payload=payload, payload_type=number, ssrc=9, call=leg_id(100 + call)
            )
            arrivals.append(Arrival(T0 + k * 20 * MS + 1000 * (call + 1), data))
            sequence, tick = sequence + step, tick + ticks
    arrivals.sort(key=lambda a: a.ns)
    heard, faults, _ = run(arrivals, cuts)
    assert faults == []
    real = b"".join(payload_of(k) for k in range(42))
    assert b"".join(heard[7].payload) == real
    np.testing.assert_array_equal(heard[7].audio, g711("PCMU", real))
    whole, _, _ = run(arrivals, [])
    assert whole.keys() == heard.keys()
    for number, one in heard.items():
        assert all(one.native)
        np.testing.assert_array_equal(one.audio, whole[number].audio)
