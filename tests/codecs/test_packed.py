"""Packed codecs decoded: against ffmpeg, GStreamer and libbcg729; corrupt, lost and suppressed packets."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from amr_payloads import SPELLED, amr_payloads
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_witness import elements, ffmpeg, ffmpeg_decodes, ffmpeg_encoders, gst, ogg_of, sent_by, snr_db

from strep._codecs import amr, libav, libopus
from strep._codecs.annexb import sid_gain
from strep._codecs.counts import frame_count
from strep._codecs.decoder import available, make_decoder
from strep._codecs.encoder import make_encoder
from strep._codecs.encoders import system_library
from strep._codecs.facts import parse_codec
from strep._model.exceptions import ConfigurationError, MissingExtraError
from strep._model.types import Codec
from strep.simulate.speech import bundled_voices

av = pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")

I16 = npt.NDArray[np.int16]


def needs_gst(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if name not in elements()]
    return pytest.mark.skipif(bool(missing), reason=f"GStreamer's {', '.join(missing)} are not installed")


def needs_ffmpeg(*encoders: str) -> pytest.MarkDecorator:
    missing = [name for name in encoders if name not in ffmpeg_encoders()]
    return pytest.mark.skipif(bool(missing), reason=f"ffmpeg's encoders {', '.join(missing)} are not installed")


needs_bcg729 = pytest.mark.skipif(system_library("bcg729") is None, reason="libbcg729 is not installed")


def decoded(codec: Codec, payloads: list[bytes]) -> I16:
    """One payload after the other, each as long as it says."""
    decoder = make_decoder(codec)
    parts = []
    for payload in payloads:
        audio, concealed = decoder.decode(payload, frame_count(codec, payload))
        assert concealed is None
        parts.append(audio)
    assert decoder.corrupt == 0
    return np.concatenate(parts)


def rms(samples: I16) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def voice(codec: Codec, frames: int) -> list[I16]:
    """The bundled caller in packets of so many sample frames."""
    samples = bundled_voices(codec.sample_rate)[0]
    parts = samples[: samples.size // frames * frames].reshape(-1, frames)
    return [np.repeat(part, codec.channels) for part in parts]


# --- as others decode ------------------------------------------------------------------------------------------------


@pytest.mark.witness
@needs_ffmpeg("g722")
def test_g722_of_ffmpeg() -> None:
    codec = parse_codec("G722/8000")
    payloads = sent_by(ffmpeg("-c:a", "g722", "-ar", "16000", "-ac", "1"))
    ours = decoded(codec, payloads)
    theirs = ffmpeg_decodes(b"".join(payloads), "-f", "g722")
    np.testing.assert_array_equal(ours, theirs)
    assert len(ours) == 2 * sum(map(len, payloads)) > 7 * 16_000


@pytest.mark.witness
@needs_ffmpeg("libopus")
@pytest.mark.parametrize("channels", [1, 2])
def test_opus_of_ffmpeg(tmp_path: Path, channels: int) -> None:
    """ffmpeg decodes the same packets from an Ogg file, less the pre-skip that RTP does not know."""
    options = ["-c:a", "libopus", "-ar", "48000", "-ac", str(channels), "-b:a", "32k"]
    payloads = sent_by(ffmpeg(*options))
    path = tmp_path / "a.ogg"
    path.write_bytes(ogg_of(*options))
    with av.open(str(path)) as file:
        assert [bytes(packet) for packet in file.demux() if packet.size] == payloads
        skip = int.from_bytes(file.streams.audio[0].codec_context.extradata[10:12], "little")
    ours = decoded(parse_codec(f"opus/48000/{channels}"), payloads)
    assert len(ours) == 960 * channels * len(payloads)
    assert skip == 312
    for name, most_off, least_db in (("libopus", 0, 100.0), ("opus", 3, 25.0)):  # it resamples otherwise
        theirs = ffmpeg_decodes(path.read_bytes(), "-c:a", name)
        begins = [(skip - off) * channels for off in range(-most_off, most_off + 1)]
        same = max(snr_db(theirs, ours[begin : begin + len(theirs)]) for begin in begins)
        print(f"opus, {channels} channels: {same:.1f} dB against ffmpeg's {name}")
        assert len(theirs) > 7 * 48_000 * channels
        assert same > least_db


@pytest.mark.witness
@needs_gst("opusenc", "rtpopuspay")
def test_opus_of_gstreamer_is_decoded_as_pyav_does() -> None:
    payloads = sent_by(gst("audio/x-raw,rate=48000,channels=2", "opusenc bitrate=32000", "rtpopuspay"))
    codec = parse_codec("opus/48000/2")
    context = av.CodecContext.create("libopus", "r")
    context.sample_rate, context.layout = 48_000, "stereo"
    theirs = [frame.to_ndarray().reshape(-1) for p in payloads for frame in context.decode(av.Packet(p))]
    np.testing.assert_array_equal(decoded(codec, payloads), np.concatenate(theirs))


@pytest.mark.witness
@needs_ffmpeg()
@needs_gst("amrnbenc", "voamrwbenc", "rtpamrpay", "amrparse", "amrnbdec", "amrwbdec")
@pytest.mark.parametrize(("name", "rate", "encoder"), [("AMR", 8000, "amrnbenc"), ("AMR-WB", 16_000, "voamrwbenc")])
def test_amr_of_gstreamer(tmp_path: Path, name: str, rate: int, encoder: str) -> None:
    """GStreamer's payloads are octet-aligned. libopencore decodes them to the same samples there; ffmpeg's own decoder
    (in floating point) to nearly the same."""
    payloads = sent_by(gst(f"audio/x-raw,rate={rate},channels=1", encoder, "rtpamrpay"))
    wide = name == "AMR-WB"
    codec = parse_codec(f"{name};octet-align=1")
    ours = decoded(codec, payloads)
    np.testing.assert_array_equal(decoded(parse_codec(name), payloads), ours)  # found out
    frames = [amr.unpack(p, wide=wide, octet_aligned=True) or [] for p in payloads]
    efficient = [amr.pack(f, wide=wide, octet_aligned=False) for f in frames]
    np.testing.assert_array_equal(decoded(parse_codec(f"{name};octet-align=0"), efficient), ours)
    np.testing.assert_array_equal(decoded(parse_codec(name), efficient), ours)

    stored = tmp_path / "a.amr"
    stored.write_bytes((b"#!AMR-WB\n" if wide else b"#!AMR\n") + b"".join(f.stored for fs in frames for f in fs))
    raw = tmp_path / "a.raw"
    element = "amrwbdec" if wide else "amrnbdec"
    command = f"gst-launch-1.0 -q filesrc location={stored} ! amrparse ! {element} ! filesink location={raw}"
    subprocess.run(command.split(), check=True, capture_output=True)
    theirs = np.frombuffer(raw.read_bytes(), "<i2")
    np.testing.assert_array_equal(ours[: len(theirs)], theirs)
    assert len(ours) - len(theirs) <= rate // 50 * 3
    floating = ffmpeg_decodes(stored.read_bytes(), "-f", "amr")
    same = snr_db(ours, floating[: len(ours)])
    print(f"{name}: {same:.1f} dB against ffmpeg's own decoder")
    assert len(floating) == len(ours) > 7 * rate
    assert same > 15


@pytest.mark.witness
@needs_ffmpeg()
@needs_gst("gsmenc", "rtpgsmpay")
def test_gsm_of_gstreamer() -> None:
    payloads = sent_by(gst("audio/x-raw,rate=8000,channels=1", "gsmenc", "rtpgsmpay"))
    ours = decoded(parse_codec("GSM"), payloads)
    np.testing.assert_array_equal(ours, ffmpeg_decodes(b"".join(payloads), "-f", "gsm"))
    two = [a + b for a, b in zip(payloads[::2], payloads[1::2], strict=False)]  # packets of 40 ms
    np.testing.assert_array_equal(decoded(parse_codec("GSM"), two), ours[: 320 * len(two)])


@pytest.mark.witness
@needs_ffmpeg()
@needs_bcg729
def test_g729_of_bcg729() -> None:
    codec = parse_codec("G729/8000")
    encoder = make_encoder(codec, 160)
    spoken = voice(codec, 160)
    payloads = [encoder.encode(part) for part in spoken]
    ours = decoded(codec, payloads)
    np.testing.assert_array_equal(ours, ffmpeg_decodes(b"".join(payloads), "-f", "g729"))
    frames = [p[i : i + 10] for p in payloads for i in (0, 10)]
    same = snr_db(bcg729_decodes(frames), ours)
    print(f"G.729: {same:.1f} dB against libbcg729")
    assert same > 20


@pytest.mark.witness
@needs_ffmpeg()
@pytest.mark.parametrize("size", [38, 50])
def test_ilbc_as_ffmpeg_decodes_it(size: int) -> None:
    """Nothing here encodes iLBC: frames of random parameters, one and two to a packet.

    Such frames overflow now and then, which builds of libavcodec do differently: nearly the same is asked for.
    """
    rng = np.random.default_rng(2)
    frames = [rng.bytes(size - 1) + b"\x02" for _ in range(100)]
    header = b"#!iLBC20\n" if size == 38 else b"#!iLBC30\n"
    theirs = ffmpeg_decodes(header + b"".join(frames), "-f", "ilbc")
    codec = parse_codec("iLBC")
    ours = decoded(codec, frames)
    same = snr_db(theirs, ours)
    print(f"iLBC, {size} bytes: {same:.1f} dB against ffmpeg")
    assert len(ours) == len(theirs)
    assert same > 40
    np.testing.assert_array_equal(decoded(codec, [a + b for a, b in zip(frames[::2], frames[1::2], strict=True)]), ours)
    assert np.abs(ours.astype(np.int32)).max() > 1000


def bcg729_decodes(frames: list[bytes]) -> I16:
    """libbcg729's decoder over frames of 10 bytes, SIDs of 2, and empty ones that were not sent."""
    library = system_library("bcg729")
    assert library is not None
    library.initBcg729DecoderChannel.restype = ctypes.c_void_p
    channel = ctypes.c_void_p(library.initBcg729DecoderChannel())
    out = np.zeros((len(frames), 80), np.int16)
    for row, frame in zip(out, frames, strict=True):
        sid = len(frame) == 2
        pointer = ctypes.c_void_p(row.ctypes.data)
        library.bcg729Decoder(channel, frame or None, len(frame), int(not frame), int(sid), 0, pointer)
    library.closeBcg729DecoderChannel(channel)
    return out.reshape(-1)


# --- our own encoders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "ms", "delay", "least_db"),
    [
        ("G722", 20, 22, 30), ("G722", 10, 22, 30), ("opus", 20, 309, 10), ("opus/48000/2", 60, 309, 10),
        ("AMR", 20, 40, 4), ("AMR;octet-align=1", 60, 40, 4), ("AMR-WB", 20, 95, 8),
        ("AMR-WB;octet-align=1", 40, 95, 8),
        ("G729", 20, 40, 4), ("GSM", 20, 0, 8),
    ],
)  # fmt: skip
def test_speech_survives_encoding(spelled: str, ms: int, delay: int, least_db: float) -> None:
    codec = parse_codec(spelled)
    frames = codec.sample_rate * ms // 1000
    try:
        encoder = make_encoder(codec, frames)
    except MissingExtraError as error:
        pytest.skip(str(error))
    spoken = voice(codec, frames)
    payloads = [encoder.encode(part) for part in spoken]
    assert {frame_count(codec, p) for p in payloads} == {frames}
    heard = decoded(codec, payloads)
    wanted = np.concatenate(spoken)
    behind = delay * codec.channels
    same = snr_db(wanted[: wanted.size - behind], heard[behind:])
    print(f"{codec} in packets of {ms} ms: {same:.1f} dB, {sum(map(len, payloads)) / len(payloads):.0f} bytes a packet")
    assert heard.size == wanted.size
    assert same > least_db


@pytest.mark.parametrize(
    ("spelled", "frames", "why"),
    [
        ("G729", 100, "multiples of 80"), ("opus", 500, "2.5, 5, 10, 20"), ("AMR", 80, "multiples of 160"),
        ("AMR", 16 * 160, "at most 300 ms"), ("iLBC", 160, "nothing here encodes iLBC"), ("PCMU", 160, "not packed"),
    ],
)  # fmt: skip
def test_what_cannot_be_encoded_is_told(spelled: str, frames: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make_encoder(parse_codec(spelled), frames)


def test_packets_to_encode_have_one_length() -> None:
    with pytest.raises(ConfigurationError, match="319 samples: this encoder takes 320"):
        make_encoder(parse_codec("G722"), 320).encode(np.zeros(319, np.int16))
    with pytest.raises(ConfigurationError, match="opus has"):
        make_encoder(parse_codec("G722"), 320, fec=True)


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", SPELLED)
@given(
    packets=st.lists(
        st.tuples(st.one_of(st.binary(max_size=120), amr_payloads(False), amr_payloads(True)), st.integers(0, 500)),
        max_size=6,
    )
)
@settings(max_examples=25, deadline=None)
def test_any_bytes_are_as_long_as_they_say(spelled: str, packets: list[tuple[bytes, int]]) -> None:
    codec = parse_codec(spelled)
    decoder = make_decoder(codec)
    for payload, lost in packets:
        frames = frame_count(codec, payload)
        audio, concealed = decoder.decode(payload, frames, lost)
        assert (audio.dtype, audio.shape) == (np.int16, (frames * codec.channels,))
        assert concealed is None or (concealed.dtype, concealed.shape) == (np.int16, (lost * codec.channels,))
    other, _ = decoder.decode(b"\x0b", 77)  # whatever the caller believes
    assert other.shape == (77 * codec.channels,)


@pytest.mark.parametrize(
    ("spelled", "corrupt"), [("opus", b"\x0b\x82\xff\xff"), ("AMR", b"\xf0\x40\x00"), ("G729", b"123")]
)
def test_a_corrupt_payload_costs_its_packet_only(spelled: str, corrupt: bytes) -> None:
    codec = parse_codec(spelled)
    frames = codec.sample_rate // 50
    try:
        encoder = make_encoder(codec, frames)
    except MissingExtraError as error:
        pytest.skip(str(error))
    payloads = [encoder.encode(part) for part in voice(codec, frames)[:60]]
    whole = decoded(codec, payloads)
    decoder = make_decoder(codec)
    heard = []
    for number, payload in enumerate(payloads):
        if number == 30:
            audio, _ = decoder.decode(corrupt, frames)
            assert not audio.any()
        heard.append(decoder.decode(payload, frames)[0])
    assert decoder.corrupt == 1
    assert snr_db(whole, np.concatenate(heard)) > 5  # the decoder goes on


@pytest.mark.parametrize("spelled", ["opus", "opus/48000/2", "AMR", "AMR-WB", "G729"])
def test_codecs_that_conceal_go_on_and_fade(spelled: str) -> None:
    codec = parse_codec(spelled)
    frames = codec.sample_rate // 50
    try:
        encoder = make_encoder(codec, frames)
    except MissingExtraError as error:
        pytest.skip(str(error))
    payloads = [encoder.encode(part) for part in voice(codec, frames)[:60]]
    decoder = make_decoder(codec)
    for payload in payloads[:30]:
        before, _ = decoder.decode(payload, frames)
    lost = codec.sample_rate - 7
    _, concealed = decoder.decode(payloads[30], frames, lost)
    assert concealed is not None
    assert concealed.size == lost * codec.channels
    level = [rms(part) for part in np.array_split(concealed, 50)]
    print(f"{codec}: {rms(before):.0f} before, then {', '.join(f'{x:.0f}' for x in level[:8])}")
    assert level[0] > 0.2 * rms(before)
    assert max(level[25:]) < 0.05 * rms(before)
    _, none = decoder.decode(payloads[31], frames, codec.sample_rate + 1)
    assert none is None  # longer than a second


@pytest.mark.parametrize("kind", ["damaged", "lost"])
@pytest.mark.parametrize("spelled", ["AMR", "AMR-WB"])
def test_frames_of_amr_that_say_they_are_lost_are_concealed(spelled: str, kind: str) -> None:
    """Q = 0, and AMR-WB's SPEECH_LOST (for AMR: NO_DATA)."""
    codec = parse_codec(spelled)
    wide, frames = spelled == "AMR-WB", codec.sample_rate // 50
    try:
        encoder = make_encoder(codec, frames)
    except MissingExtraError as error:
        pytest.skip(str(error))
    payloads = [encoder.encode(part) for part in voice(codec, frames)[:31]]
    decoder = make_decoder(codec)
    for payload in payloads[:30]:
        before, _ = decoder.decode(payload, frames)
    (frame,) = amr.unpack(payloads[30], wide=wide, octet_aligned=False) or [None]
    assert frame is not None
    bad = frame._replace(sound=False)
    if kind == "lost":
        bad = amr.AmrFrame(amr.SPEECH_LOST if wide else amr.NO_DATA, True, b"")
    audio, _ = decoder.decode(amr.pack([bad], wide=wide, octet_aligned=False), frames)
    assert rms(audio) > 0.5 * rms(before)
    assert decoder.corrupt == 0


def test_ilbc_conceals_what_follows_a_frame() -> None:
    codec = parse_codec("iLBC")
    decoder = make_decoder(codec)
    rng = np.random.default_rng(3)
    assert decoder.decode(rng.bytes(37) + b"\x02", 160, 160)[1] is None  # nothing to go on from
    for _ in range(5):
        decoder.decode(rng.bytes(37) + b"\x02", 160)
    _, concealed = decoder.decode(rng.bytes(37) + b"\x02", 160, 300)
    assert concealed is not None
    assert concealed.size == 300
    assert concealed.any()


@pytest.mark.parametrize("spelled", ["G722", "GSM"])
def test_codecs_that_do_not_conceal_say_so(spelled: str) -> None:
    codec = parse_codec(spelled)
    assert make_decoder(codec).decode(bytes(33), frame_count(codec, bytes(33)), 160)[1] is None


@pytest.mark.skipif(libopus.load() is None, reason="libopus is not installed")
def test_opus_takes_the_copy_that_the_next_packet_carries() -> None:
    """Every tenth packet is lost: what its successor's copy (FEC) gives is nearer than what is extrapolated (PLC)."""
    codec = parse_codec("opus")
    spoken = voice(codec, 960)
    quality = {}
    for fec in (True, False):
        encoder = make_encoder(codec, 960, fec=fec)
        payloads = [encoder.encode(part) for part in spoken]
        whole = decoded(codec, payloads).reshape(-1, 960)
        decoder = make_decoder(codec)
        wanted, got = [], []
        for number, payload in enumerate(payloads):
            if number % 10 == 5:
                continue
            after = number % 10 == 6
            _, concealed = decoder.decode(payload, 960, 960 if after else 0)
            if concealed is not None and np.abs(whole[number - 1]).max() > 2000:
                wanted.append(whole[number - 1])
                got.append(concealed)
        quality[fec] = snr_db(np.concatenate(wanted), np.concatenate(got))
    print(
        f"opus, {len(wanted)} packets lost in speech: {quality[True]:.1f} dB with FEC, {quality[False]:.1f} dB by PLC"
    )
    assert len(wanted) > 8
    assert quality[True] > quality[False] + 3


@pytest.mark.skipif(libopus.load() is None, reason="libopus is not installed")
def test_opus_conceals_before_the_copy() -> None:
    """Three packets lost: as long as they were, the last of them from the copy."""
    codec = parse_codec("opus/48000/2")
    encoder = make_encoder(codec, 960, fec=True)
    payloads = [encoder.encode(part) for part in voice(codec, 960)]
    whole = decoded(codec, payloads).reshape(-1, 1920)
    best = []
    for first in range(20, 60, 4):
        decoder = make_decoder(codec)
        for payload in payloads[:first]:
            decoder.decode(payload, 960)
        _, concealed = decoder.decode(payloads[first + 3], 960, 3 * 960)
        assert concealed is not None
        parts = concealed.reshape(3, 1920)
        best.append([snr_db(whole[first + k], parts[k]) for k in range(3)])
    middle = np.median(best, axis=0)
    print(f"opus, three lost: {', '.join(f'{x:.1f}' for x in middle)} dB")
    assert middle[2] > max(middle[:2]) + 1


def test_opus_without_libopus_is_decoded_by_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = parse_codec("opus/48000/2")
    encoder = make_encoder(codec, 960)
    payloads = [encoder.encode(part) for part in voice(codec, 960)]
    ours = decoded(codec, payloads)
    monkeypatch.setattr(libopus, "load", lambda: None)
    assert available(codec)
    decoder = make_decoder(codec)
    assert decoder.decode(payloads[0], 960, 960)[1] is None
    assert snr_db(ours, decoded(codec, payloads)) > 40


# --- silence that the sender suppressed ------------------------------------------------------------------------------


def noisy(level: float, seconds: float, rate: int) -> I16:
    """Half a second of speech, then noise (white through one pole, as rooms have it)."""
    from scipy.signal import lfilter

    noise = np.asarray(lfilter([1.0], [1.0, -0.9], np.random.default_rng(4).standard_normal(round(rate * seconds))))
    noise *= level / np.sqrt(np.mean(noise**2))
    half = rate // 2
    noise[:half] += bundled_voices(rate)[0][half : 2 * half]
    return np.clip(np.rint(noise), -32_768, 32_767).astype(np.int16)


def suppressed(codec: Codec, samples: I16, frames: int) -> tuple[I16, list[bytes]]:
    """Encoded with DTX and decoded: packets and what is made of the silence between them."""
    encoder = make_encoder(codec, frames, dtx=True)
    payloads = [encoder.encode(part) for part in samples[: samples.size // frames * frames].reshape(-1, frames)]
    decoder = make_decoder(codec)
    parts: list[I16] = []
    lost = 0
    for payload in payloads:
        if not payload:
            lost += frames
            continue
        audio, concealed = decoder.decode(payload, frames, lost)
        if lost:
            parts.append(np.zeros(lost, np.int16) if concealed is None else concealed)
        parts.append(audio)
        lost = 0
    assert decoder.corrupt == 0
    return np.concatenate(parts), payloads


@needs_bcg729
@pytest.mark.parametrize("level", [30, 300])
def test_g729_makes_noise_after_a_sid_as_loud_as_bcg729_does(level: float) -> None:
    codec = parse_codec("G729")
    ours, payloads = suppressed(codec, noisy(level, 4, 8000), 80)
    assert sum(len(p) == 2 for p in payloads) >= 3
    assert sum(not p for p in payloads) > 100
    theirs = bcg729_decodes(payloads)
    silence = slice(8000, len(ours))
    difference = 20 * np.log10(rms(ours[silence]) / rms(theirs[silence]))
    print(f"G.729 SID, noise of {level}: {difference:+.1f} dB against libbcg729")
    assert abs(difference) < 6


def test_sids_tell_their_gain() -> None:
    """ITU-T G.729 Annex B: 32 steps, from -12 dB to 66 dB."""
    gains = [sid_gain(bytes([0, index << 1])) for index in range(32)]
    assert gains == sorted(gains)
    assert [round(20 * np.log10(g)) for g in (gains[0], gains[2], gains[7], gains[31])] == [-12, 0, 18, 66]


@pytest.mark.parametrize("spelled", ["AMR", "AMR-WB"])
def test_amr_makes_noise_after_a_sid(spelled: str) -> None:
    codec = parse_codec(spelled)
    rate = codec.sample_rate
    try:
        samples = noisy(100, 5, rate)
        ours, payloads = suppressed(codec, samples, rate // 50)
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert sum(not p for p in payloads) > 30
    levels = [rms(part) for part in np.array_split(ours[len(ours) // 2 :], 20)]
    print(f"{codec}: noise of 100 comes as {min(levels):.0f} to {max(levels):.0f}")
    assert 25 < min(levels) <= max(levels) < 200


# --- what is not installed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["G722", "AMR", "iLBC"])
def test_without_pyav_the_extra_is_named(spelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = parse_codec(spelled)
    monkeypatch.setitem(sys.modules, "av", None)
    libav.decoder_name.cache_clear()
    try:
        assert not available(codec)
        with pytest.raises(MissingExtraError, match=r"pip install 'av"):
            make_decoder(codec)
        if spelled != "iLBC":
            with pytest.raises(MissingExtraError, match=r"pip install 'av"):
                make_encoder(codec, codec.sample_rate // 50)
    finally:
        libav.decoder_name.cache_clear()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strep._codecs.encoders.system_library", lambda name: None)
    with pytest.raises(MissingExtraError, match="apt-get install libbcg729-0"):
        make_encoder(parse_codec("G729"), 160)


def test_others_are_not_packed() -> None:
    with pytest.raises(ValueError, match="not packed"):
        make_decoder(parse_codec("PCMU"))
    assert not available(parse_codec("PCMU"))
