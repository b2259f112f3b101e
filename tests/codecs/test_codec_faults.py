"""Silence, other payload types and durations, keys, corrupt payloads and missing decoders: faults.md 11 to 14, in
virtual time, against what ffmpeg makes of the same payloads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from codec_calls import CALLS, Collector, bandwidth_efficient, call_of, cut, numbered, payloads_of, replayed, sent
from packed_witness import elements, ffmpeg, ffmpeg_decodes, gst, packets_of, snr_db
from places import CAPTURES
from scipy.signal import resample_poly
from support import LEG, MS, T0, Arrival, batch_of, packet

import strep
from strep._codecs import amr
from strep._codecs.encoder import make_encoder
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._edge.pcap import PcapWriter
from strep._engine.engine import Engine, EngineConfig
from strep._model.extras import install
from strep._model.types import Mask
from strep.simulate.speech import bundled_voices
from strep.sinks import BaseSink, WavSink

av = pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")

I16 = npt.NDArray[np.int16]
HEADER = packet(0)[:24]


def evenly(packets: list[bytes], ms: int = 20) -> list[Arrival]:
    return [Arrival(T0 + ms * k * MS, HEADER + data) for k, data in enumerate(packets)]


def rms(samples: I16) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


# --- 11: silence in time, not loss -----------------------------------------------------------------------------------


def noise_of_ffmpeg(level: float) -> tuple[list[bytes], float]:
    """Comfort noise payloads (RFC 3389) that ffmpeg's encoder makes of noise, and how loud its decoder is."""
    rng = np.random.default_rng(1)
    encoder = av.CodecContext.create("comfortnoise", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    encoder.open()
    payloads = []
    for _ in range(10):
        noise = np.rint(level * rng.standard_normal(encoder.frame_size)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        payloads += [bytes(p) for p in encoder.encode(frame)]
    decoder = av.CodecContext.create("comfortnoise", "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    made = [f.to_ndarray().reshape(-1) for p in payloads for f in decoder.decode(av.Packet(p))]
    return payloads, rms(np.concatenate(made[5:]))


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
def test_comfort_noise_of_ffmpeg_is_silence_of_its_length(tmp_path: Path, law: str) -> None:
    """A second of speech, 0.8 s suppressed, speech, and again: positions are exact, nothing is lost."""
    call_of(law)
    told, loudness = noise_of_ffmpeg(100)
    speech = cut(b"".join(payloads_of(law)), 160)[50:150]
    arrivals: list[Arrival] = []
    sequence, tick = 65_500, 0xFFFF_F000
    begins = []

    def send(payload: bytes, payload_type: int) -> None:
        data = packet(sequence, timestamp=tick, payload=payload, payload_type=payload_type)
        arrivals.append(Arrival(T0 + (tick - 0xFFFF_F000) // 8 * MS, data))

    for half in (speech[:50], speech[50:]):
        begins.append(tick - 0xFFFF_F000)
        for payload in half:
            send(payload, {"PCMU": 0, "PCMA": 8}[law])
            sequence, tick = sequence + 1, tick + 160
        for sid in told[-2:]:
            send(sid, 13)
            sequence, tick = sequence + 1, tick + 3200
    for payload in speech[:5]:
        send(payload, {"PCMU": 0, "PCMA": 8}[law])
        sequence, tick = sequence + 1, tick + 160
    found, plain, concealed = replayed(tmp_path, arrivals)
    (report,) = found.reports()
    assert (report.packets_lost, report.undecoded, report.samples) == (0, 0, tick - 0xFFFF_F000)
    assert plain.gaps[report.stream.serial] == [(8000, 6400, "silence"), (22_400, 6400, "silence")]
    audio, _ = plain.heard(report.stream)
    wanted = CALLS[law].decode(speech)  # type: ignore[misc]
    for begin, part in zip(begins, np.split(wanted, 2), strict=True):
        np.testing.assert_array_equal(audio[begin : begin + 8000], part)
    filled, mask = concealed.heard(report.stream)
    silent = mask == Mask.SILENCE
    assert (np.count_nonzero(silent), np.count_nonzero(mask == Mask.RECEIVED)) == (12_800, 105 * 160)
    assert not audio[silent].any()
    # ffmpeg's decoder is 6 dB quieter than RFC 3389: three quarters of the power, and uniform noise of that peak
    ours, theirs = (20 * np.log10(x / 100) for x in (rms(filled[silent]), 2 * loudness))
    print(f"{law}: noise comes back at {ours:+.1f} dB, by ffmpeg at {theirs:+.1f} dB")
    assert abs(ours) < 1.5
    assert abs(theirs) < 1.5


@pytest.mark.witness
def test_opus_that_gstreamer_suppresses_is_as_long_as_it_was(tmp_path: Path) -> None:
    """DTX: half of the packets are not sent."""
    if not {"opusenc", "rtpopuspay"} <= elements():
        pytest.skip("not installed: GStreamer's opusenc, rtpopuspay")
    packets = packets_of(gst("audio/x-raw,rate=48000,channels=1", "opusenc dtx=true", "rtpopuspay dtx=true"))
    ticks = np.array([int.from_bytes(p[4:8], "big") for p in packets], np.uint32)
    since = (ticks - ticks[0]).astype(np.int64)
    arrivals = [Arrival(T0 + int(t) * 1000 // 48 * 1000, HEADER + p) for t, p in zip(since, packets, strict=True)]
    found, plain, concealed = replayed(tmp_path, arrivals, {packets[0][1] & 127: "opus/48000"})
    (report,) = found.reports()
    assert (report.packets_lost, report.undecoded, report.packets_received) == (0, 0, len(packets))
    assert report.samples == since[-1] + 960
    gaps = plain.gaps[report.stream.serial]
    steps = np.diff(since)
    assert [samples for _, samples, _ in gaps] == (steps[steps > 960] - 960).tolist()
    assert {cause for *_, cause in gaps} == {"silence"}
    filled, mask = concealed.heard(report.stream)
    assert len(filled) == report.samples
    assert set(np.unique(mask).tolist()) == {int(Mask.RECEIVED), int(Mask.SILENCE)}
    share = float(np.mean(mask == Mask.SILENCE))
    print(f"opus with DTX: {len(packets)} packets, {100 * share:.0f} % of the time not sent, in {len(gaps)} gaps")
    assert share > 0.2


# --- 12: other payload types -----------------------------------------------------------------------------------------

PARTS = {"PCMU": (0, 160), "G722": (9, 160), "opus": (111, 960), "PCMA": (8, 160)}  # payload type, ticks a packet
EACH = 75  # packets, 1.5 s


def parts_of_speech() -> dict[str, list[bytes]]:
    """The same words in each codec."""
    said = {}
    for name in PARTS:
        call_of(name)
        payloads = payloads_of(name)
        said[name] = (cut(b"".join(payloads), 160) if name.startswith("PCM") else payloads)[50 : 50 + EACH]
    return said


@pytest.mark.witness
@pytest.mark.parametrize("names", [("PCMU", "G722", "opus", "PCMA"), ("G722", "PCMA", "opus", "G722")])
@pytest.mark.parametrize("new_source", [False, True])
def test_codecs_change_in_the_middle(tmp_path: Path, names: tuple[str, ...], new_source: bool) -> None:
    """Each part is what ffmpeg decodes from its packets alone, at the stream's rate, at its place."""
    said = parts_of_speech()
    arrivals: list[Arrival] = []
    sequence, tick = 1000, 5000
    for number, name in enumerate(names):
        if new_source:
            sequence, tick = 20_000 * number, 0x9000_0000 * number & 0xFFFF_FFFF
        payload_type, step = PARTS[name]
        for payload in said[name]:
            ssrc = 5 + number * new_source
            data = packet(sequence, timestamp=tick, payload=payload, payload_type=payload_type, ssrc=ssrc)
            arrivals.append(Arrival(T0 + 20 * len(arrivals) * MS, data))
            sequence, tick = sequence + 1, tick + step
    found, plain, _ = replayed(tmp_path, arrivals)
    (report,) = found.reports()
    rate = CALLS[names[0]].codec.sample_rate
    assert report.stream.codec == CALLS[names[0]].codec
    assert report.sources == (4 if new_source else 1)
    assert (report.packets_lost, report.undecoded, report.timestamp_jumps) == (0, 0, 0)
    assert (report.samples, report.gap_samples) == (4 * EACH * rate // 50, 0)
    audio, _ = plain.heard(report.stream)
    for number, (name, ours) in enumerate(zip(names, np.split(audio, 4), strict=True)):
        wanted = alone(name, said[name])
        own = CALLS[name].codec.sample_rate
        if own == rate:
            np.testing.assert_array_equal(ours, wanted)
            continue
        # the resampler looks ahead by 2 ms, once, so the part stands that much later and ends earlier
        theirs = resample_poly(wanted.astype(np.float64), rate, own)
        late = min(range(60), key=lambda n: -snr_db(theirs[: len(theirs) - n], ours[n:]))
        same = snr_db(theirs[: len(theirs) - late], ours[late:])
        print(f"part {number}, {name} at {rate} Hz: {same:.1f} dB, {1000 * late / rate:.2f} ms late")
        assert same > 25
        assert late <= 0.0025 * rate


def alone(name: str, payloads: list[bytes]) -> I16:
    """ffmpeg's decoding from the first of these packets on."""
    decode = CALLS[name].decode
    if decode is not None:
        return decode(payloads)
    context = av.CodecContext.create("libopus", "r")
    context.sample_rate, context.layout = 48_000, "mono"
    return np.concatenate([f.to_ndarray().reshape(-1) for p in payloads for f in context.decode(av.Packet(p))])


@pytest.mark.witness
@pytest.mark.parametrize("name", ["G722", "GSM", "G729"])
def test_another_source_is_decoded_anew(tmp_path: Path, name: str) -> None:
    """What the decoder remembers of the old source would be heard in the new one."""
    call = call_of(name)
    said = payloads_of(name)
    halves = said[50:150], said[230:330]
    number = sent(name)[0][1] & 127
    first = numbered(halves[0], 160, number, first=0, ssrc=1)
    second = numbered(halves[1], 160, number, first=30_000, ssrc=2)
    found, plain, _ = replayed(tmp_path, evenly(first + second))
    (report,) = found.reports()
    assert (report.sources, report.gap_samples, report.undecoded) == (2, 0, 0)
    audio, _ = plain.heard(report.stream)
    assert call.decode is not None
    apart = np.concatenate([call.decode(half) for half in halves])
    np.testing.assert_array_equal(audio, apart)
    assert (call.decode(halves[0] + halves[1]) != apart).any()


# --- 13: packets of 10 to 60 ms --------------------------------------------------------------------------------------


def of_durations(name: str, durations: list[int]) -> list[tuple[int, bytes]]:
    """(ms, payload): frames of the call put together anew."""
    per_10ms = {"PCMU": 80, "PCMA": 80, "G722": 80, "L16": 320, "GSM": 0, "G729": 10, "AMR": 0}[name]
    out, at = [], 0
    if name == "AMR":  # bandwidth-efficient frames of 20 ms: put together as RFC 4867 4.3 says
        single = [p[12:] for p in bandwidth_efficient(sent("AMR"), False)]
        frames = [amr.unpack(p, wide=False, octet_aligned=False) or [] for p in single]
        for ms in durations:
            some = [f for fs in frames[at : at + ms // 20] for f in fs]
            at += ms // 20
            out.append((ms, amr.pack(some, wide=False, octet_aligned=False)))
        return out
    data = b"".join(payloads_of(name))
    for ms in durations:
        size = per_10ms * ms // 10 if per_10ms else 33 * ms // 20
        out.append((ms, data[at : at + size]))
        at += size
    return out


@pytest.mark.witness
@pytest.mark.parametrize("name", ["PCMU", "PCMA", "L16", "G722", "G729", "GSM", "AMR"])
def test_packets_of_10_to_60_ms(tmp_path: Path, name: str) -> None:
    """Each duration for a while, then mixed."""
    call = call_of(name)
    allowed = [20, 40, 60] if name in ("GSM", "AMR") else [10, 20, 30, 40, 60]
    rng = np.random.default_rng(13)
    durations = [ms for ms in allowed for _ in range(20)] + rng.choice(allowed, 50).tolist()
    said = of_durations(name, durations)
    number = {"L16": 96, "AMR": 97}.get(name, sent(name)[0][1] & 127)
    arrivals, elapsed = [], 0
    for k, (ms, payload) in enumerate(said):
        tick = elapsed * call.codec.clock_rate // 1000
        data = packet(k, timestamp=tick, payload=payload, payload_type=number)
        arrivals.append(Arrival(T0 + elapsed * MS, data))
        elapsed += ms
    types = {96: "L16/16000", 97: "AMR/8000"}
    found, plain, _ = replayed(tmp_path, arrivals, types, width=2048)
    (report,) = found.reports()
    assert (report.packets_lost, report.undecoded, report.gap_samples) == (0, 0, 0)
    assert report.samples == elapsed * call.codec.sample_rate // 1000
    audio, _ = plain.heard(report.stream)
    assert call.decode is not None
    if name == "AMR":
        wanted = call.decode(payloads_of(name)[: elapsed // 20])
        np.testing.assert_array_equal(audio[: len(wanted)], wanted)
        assert 0 <= len(audio) - len(wanted) <= 3 * 160
        return
    np.testing.assert_array_equal(audio, call.decode([p for _, p in said]))


@pytest.mark.witness
@pytest.mark.parametrize("ms", [10, 20, 40, 60])
def test_opus_packets_of_10_to_60_ms(tmp_path: Path, ms: int) -> None:
    call_of("opus")
    options = ["-c:a", "libopus", "-ar", "48000", "-ac", "1", "-frame_duration", str(ms)]
    packets = packets_of(ffmpeg(*options))
    payloads = [p[12:] for p in packets]
    found, plain, _ = replayed(tmp_path, evenly(packets, ms), {packets[0][1] & 127: "opus/48000"})
    (report,) = found.reports()
    assert (report.packets_lost, report.undecoded, report.gap_samples) == (0, 0, 0)
    assert report.samples == len(packets) * 48 * ms
    audio, _ = plain.heard(report.stream)
    same = snr_db(alone("opus", payloads), audio)
    print(f"opus in packets of {ms} ms: {same:.1f} dB against PyAV's libopus")
    assert same > 60


@pytest.mark.witness
def test_a_real_call_in_packets_of_30_ms(tmp_path: Path) -> None:
    path = CAPTURES / "g711a.pcap"
    if not path.exists():
        pytest.skip("g711a.pcap is not here: install sip-tester, or name its directory with STREP_CAPTURES")
    plain, whole = Collector(), Bytes()
    found = strep.replay(path, sinks=[plain, whole])
    (report,) = found.reports()
    assert (report.packets_received, report.packets_lost, report.samples) == (236, 0, 236 * 240)
    audio, _ = plain.heard(report.stream)
    np.testing.assert_array_equal(audio, ffmpeg_decodes(whole.data, "-f", "alaw", "-ar", "8000"))


class Bytes(BaseSink):
    """The payload bytes of the one stream there is."""

    data = b""
    inline = True

    def blocks(self, batch: strep.BlockBatch) -> None:
        self.data += batch.payload.tobytes()


# --- 14: keys --------------------------------------------------------------------------------------------------------


class Told(BaseSink):
    wants_audio = False

    def __init__(self) -> None:
        self.events: list[strep.StreamEvent] = []

    def event(self, event: strep.StreamEvent) -> None:
        self.events.append(event)


@pytest.mark.parametrize("sink", [Told, Collector])
@pytest.mark.parametrize("name", [*"0123456789", "star", "pound"])
def test_a_stream_of_nothing_but_a_key_tells_it(name: str, sink: type[Told | Collector]) -> None:
    """The captures that SIPp comes with, one digit each, whether or not anybody wants audio."""
    path = CAPTURES / f"dtmf_2833_{name}.pcap"
    if not path.exists():
        pytest.skip(f"{path.name} is not here: install sip-tester, or name its directory with STREP_CAPTURES")
    heard = sink()
    found = strep.replay(path, sinks=[heard])
    (event,) = heard.events
    assert (event.kind, event.data["digit"]) == ("dtmf", {"star": "*", "pound": "#"}.get(name, name))
    assert (event.data["ended"], event.duration_s) == (True, 0.28)
    (report,) = found.reports()
    assert (report.packets_lost, report.undecoded, report.samples, report.stream.notes) == (0, 0, 0, [])
    assert report.payload_types == [101]
    assert (found.totals().delivered, found.totals().duplicate) == (8, 2)  # the end is said three times in one number


@pytest.mark.parametrize("audio", [False, True])
def test_keys_are_told_without_sinks_for_audio(tmp_path: Path, audio: bool) -> None:
    """Two presses, nothing before, between and after them: payloads are looked into though nobody listens."""
    arrivals = []
    for key in (7, 11):
        for k in range(8):
            payload = bytes([key, (0x80 if k > 4 else 0) | 10]) + (160 * min(k + 1, 6)).to_bytes(2, "big")
            number = 20 * key + k
            data = packet(8 * (key == 11) + k, timestamp=16_000 * key, payload=payload, payload_type=101)
            arrivals.append(Arrival(T0 + number * 20 * MS, data))
    path = tmp_path / "a.pcap"
    writer = PcapWriter(path)
    writer.write(batch_of(arrivals))
    writer.close()
    heard = Collector() if audio else Told()
    found = strep.replay(path, sinks=[heard])
    assert [(e.data["digit"], e.duration_s) for e in heard.events] == [("7", 0.12), ("#", 0.12)]
    assert found.totals().delivered == 16


# --- corrupt payloads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "corrupt"),
    [
        ("opus", b"\x0b\x00\xff\xff"), ("AMR", b"\xf0\x40\x00"), ("AMR-WB", b"\xf5\x40"), ("G729", b"123"),
        ("GSM", b"\xd0"),
    ],
)  # fmt: skip
def test_a_corrupt_payload_costs_its_packet(tmp_path: Path, spelled: str, corrupt: bytes) -> None:
    """It is counted, and as good as lost: its time is a gap, and the call goes on."""
    codec = parse_codec(spelled)
    frames = codec.sample_rate // 50
    try:
        encoder = make_encoder(codec, frames)
    except strep.MissingExtraError as error:
        pytest.skip(str(error))
    speech = bundled_voices(codec.sample_rate)[0]
    payloads = [encoder.encode(p) for p in speech[50 * frames : 150 * frames].reshape(-1, frames)]
    step = codec.clock_rate // 50
    clean = numbered(payloads, step, 97)
    payloads[60] = corrupt
    damaged = numbered(payloads, step, 97)
    types = {97: spelled}
    (tmp_path / "clean").mkdir()
    whole, plain, _ = replayed(tmp_path / "clean", evenly(clean), types)
    wanted, _ = plain.heard(whole.reports()[0].stream)
    found, plain, concealed = replayed(tmp_path, evenly(damaged), types)
    (report,) = found.reports()
    assert found.totals().dropped_by == {"corrupt": 1}
    assert (report.packets_lost, report.undecoded, report.samples) == (0, 1, 100 * frames)
    assert plain.gaps == {report.stream.serial: [(60 * frames, frames, "loss")]}
    audio, _ = plain.heard(report.stream)
    np.testing.assert_array_equal(audio[: 60 * frames], wanted[: 60 * frames])
    same = snr_db(wanted[65 * frames :], audio[65 * frames :])
    print(f"{spelled}: {same:.1f} dB from 80 ms behind a corrupt payload on")
    assert same > 10
    _, mask = concealed.heard(report.stream)
    np.testing.assert_array_equal(np.flatnonzero(mask != Mask.RECEIVED), np.arange(60 * frames, 61 * frames))


# --- without the extra -----------------------------------------------------------------------------------------------

WITHOUT = """
import asyncio, json, logging, socket, sys
sys.modules["av"] = None  # as if it were not installed
logging.basicConfig()
import strep

async def main():
    receiver = strep.Receiver("udp:127.0.0.1:0", sinks=[strep.sinks.WavSink(sys.argv[1])], pcap=sys.argv[1] + "/a.pcap")
    async with receiver:
        host, _, port = receiver.sockets[0].address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number, line in enumerate(sys.stdin.read().split()):
                sock.sendto(bytes.fromhex(line), (host, int(port)))
                if number % 20 == 19:
                    await asyncio.sleep(0.012)
        while receiver.totals().datagrams < 100:
            await asyncio.sleep(0.005)
    print(json.dumps(receiver.summary()))

asyncio.run(main())
"""


@pytest.mark.sockets
@pytest.mark.parametrize("name", ["G722", "GSM"])
def test_without_the_extra_a_stream_is_told_counted_and_kept(tmp_path: Path, name: str) -> None:
    call = call_of(name)
    said = payloads_of(name)[50:150]
    packets = [HEADER + p for p in numbered(said, 160, sent(name)[0][1] & 127)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], input="\n".join(p.hex() for p in packets),
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    summary = json.loads(done.stdout)
    (stream,) = summary["streams"]
    assert stream["call_leg_id"] == str(LEG)
    assert (stream["codec"], stream["undecoded"], stream["packets_lost"], stream["files"]) == (None, 100, 0, [])
    (note,) = stream["notes"]
    assert f"({name})" in note
    assert install("codecs") in note
    assert done.stderr.count("pip install") == 1
    assert summary["totals"]["dropped_by"] == {"payload_type": 100}
    # what was kept is heard where the extra is
    plain = Collector()
    found = strep.replay(tmp_path / "a.pcap", sinks=[plain])
    (report,) = found.reports()
    assert call.decode is not None
    np.testing.assert_array_equal(plain.heard(report.stream)[0], call.decode(said))


# --- queues ----------------------------------------------------------------------------------------------------------


def test_what_waits_for_a_slow_disk_is_as_large_as_it_is_decoded(tmp_path: Path) -> None:
    """A second of opus: 150 bytes encoded, 96 KB decoded."""
    payload = b"\x08\xff\xfe"
    engine = Engine(EngineConfig(payload_types=PayloadTypes({97: "opus"})))
    events = engine.receive(batch_of(evenly(numbered([payload] * 50, 960, 97)))) + engine.flush()
    batches = [e for e in events if isinstance(e, strep.BlockBatch)]
    assert sum(batch.payload.nbytes for batch in batches) == 150
    held = threading.Event()

    sink: Any = WavSink(tmp_path, queue_bytes=250_000)
    write = sink._writer.write
    sink._writer.write = lambda *arguments: (held.wait(60), write(*arguments))
    for _ in range(4):
        for batch in batches:
            sink.blocks(batch)
    dropped = sink.dropped_frames
    held.set()
    sink.close(5)
    assert dropped == (200 - 130) * 960  # 1,920 bytes a packet
