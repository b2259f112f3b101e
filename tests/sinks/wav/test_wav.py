"""WAV files: what is in them, how they are called, and what other programs say of them."""

from __future__ import annotations

import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from captures import record
from live import hashes, samples_of
from support import LEG, MS, T0, Arrival, leg_id, packet, payload_of, pcmu, steady

import strep
from strep._codecs.g711 import PCMA, PCMU, decode, encode
from strep.resample import resample
from strep.sinks import WavSink
from strep.sinks.wav.file import WavFormat
from strep.sinks.wav.lanes import WavLanes
from strep.sinks.wav.tree import WavTree


def expected(count: int, missing: set[int] = frozenset(), first: int = 0) -> np.ndarray:  # type: ignore[assignment]
    return np.concatenate([pcmu(payload_of(k)) * (k not in missing) for k in range(first, first + count)])


def lossy(missing: set[int], count: int = 100, **options: Any) -> list[Arrival]:
    return [a for k, a in enumerate(steady(count, **options)) if k not in missing]


MISSING = {30, 31, 32, 77}
CODECS = {0: PCMU, 8: PCMA}


# --- split -----------------------------------------------------------------------------------------------------------


def test_a_file_per_direction(tmp_path: Path) -> None:
    arrivals = [a for leg in (0, 1) for d in (0, 1) for a in lossy(MISSING, leg=leg, direction=d)]
    result = record(tmp_path / "out", arrivals)
    names = {f"{LEG}/{leg}-{direction}.wav" for leg in "ab" for direction in ("inbound", "outbound")}
    assert set(hashes(tmp_path / "out")) == names
    summary = result.summary()
    assert {name for s in summary["streams"] for name in s["files"]} == names
    for name in names:
        with wave.open(str(tmp_path / "out" / name)) as file:
            assert file.getparams()[:4] == (1, 2, 8000, 100 * 160)
            samples = np.frombuffer(file.readframes(1 << 20), "<i2")
        np.testing.assert_array_equal(samples, expected(100, MISSING))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for _ in range(3):
        record(tmp_path / "out", steady(20))
    found = hashes(tmp_path / "out")
    assert set(found) == {f"{LEG}/a-inbound{n}.wav" for n in ("", "-2", "-3")}
    assert len(set(found.values())) == 1


def test_a_stream_that_comes_back_after_its_end_is_a_new_file(tmp_path: Path) -> None:
    later = steady(20, first=500, start_ns=T0 + 10_000 * MS)
    result = record(tmp_path / "out", steady(30) + later, {"idle_timeout_s": 2})
    assert [s["files"] for s in result.summary()["streams"]] == [[f"{LEG}/a-inbound.wav"], [f"{LEG}/a-inbound-2.wav"]]
    np.testing.assert_array_equal(samples_of(tmp_path / "out" / str(LEG) / "a-inbound-2.wav"), expected(20, first=500))


@pytest.mark.parametrize("rate", [16_000, 48_000, 4000])
def test_resampled(tmp_path: Path, rate: int) -> None:
    record(tmp_path / "out", lossy(MISSING), rate=rate)
    with wave.open(str(tmp_path / "out" / str(LEG) / "a-inbound.wav")) as file:
        assert file.getframerate() == rate
        samples = np.frombuffer(file.readframes(1 << 20), "<i2")
    np.testing.assert_array_equal(samples, resample(expected(100, MISSING).astype(np.int16), 8000, rate))


def test_a_long_hold_is_silence_of_its_length_at_any_rate(tmp_path: Path) -> None:
    held = steady(50) + [
        Arrival(T0 + (5000 + 20 * k) * MS, packet(50 + k, timestamp=5 * 8000 + 160 * k)) for k in range(50)
    ]
    for rate in (None, 16_000):
        record(tmp_path / str(rate), held, rate=rate)
        samples = samples_of(tmp_path / str(rate) / str(LEG) / "a-inbound.wav")
        factor = (rate or 8000) // 8000
        assert len(samples) == 6 * 8000 * factor
        assert not samples[factor * 8100 : factor * 39_900].any()
        assert samples[factor * 40_100 :].any()


# --- native ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("payload_type", "name"), [(0, "PCMU"), (8, "PCMA")])
@pytest.mark.parametrize("frames", [160, 161])
def test_native_files_hold_the_bytes_as_they_came(tmp_path: Path, payload_type: int, name: str, frames: int) -> None:
    record(tmp_path / "out", lossy(MISSING, 99, payload_type=payload_type, frames=frames), encoding="native")
    path = tmp_path / "out" / str(LEG) / "a-inbound.wav"
    silence = {"PCMU": b"\xff", "PCMA": b"\xd5"}[name] * frames
    payload = b"".join(silence if k in MISSING else payload_of(k, frames) for k in range(99))
    content = path.read_bytes()
    assert content[94 : 94 + len(payload)] == payload
    assert len(content) == 94 + len(payload) + len(payload) % 2
    assert soundfile.info(path).subtype == {"PCMU": "ULAW", "PCMA": "ALAW"}[name]
    codes = np.frombuffer(payload, np.uint8)
    wanted = pcmu(payload) if name == "PCMU" else decode(PCMA, codes)
    np.testing.assert_array_equal(samples_of(path), wanted)


def changing(payload_types: list[int]) -> list[Arrival]:
    """50 packets of each payload type, 20 ms each, one after the other: PCMU, PCMA, or G.722 (9)."""
    arrivals = []
    for k, payload_type in enumerate(np.repeat(payload_types, 50).tolist()):
        arrivals.append(Arrival(T0 + 20 * k * MS, packet(k, payload_type=payload_type)))
    return arrivals


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("payload_types", [[0, 9, 0], [8, 9, 8], [0, 8, 0], [9, 0, 8]])
def test_a_native_file_keeps_its_encoding_when_the_sender_changes_codec(
    tmp_path: Path, payload_types: list[int], lanes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a G.711 stream brings in another codec is encoded as its file is; another stream's bytes stay untouched."""
    pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")
    if not lanes:
        monkeypatch.setattr(WavLanes, "of", classmethod(lambda cls, evicted: None))
    arrivals = changing(payload_types) + steady(len(payload_types) * 50, call=leg_id(1))
    record(tmp_path / "native", arrivals, encoding="native")
    record(tmp_path / "pcm", arrivals)
    name = f"{LEG}/a-inbound.wav"
    pcm, native = samples_of(tmp_path / "pcm" / name), samples_of(tmp_path / "native" / name)
    first = payload_types[0]
    wanted = pcm if first == 9 else decode(CODECS[first], encode(CODECS[first], pcm))
    np.testing.assert_array_equal(native, wanted)
    assert soundfile.info(tmp_path / "native" / name).subtype == {0: "ULAW", 8: "ALAW", 9: "PCM_16"}[first]
    for k, payload_type in enumerate(payload_types):  # its own packets are in it as they came
        if payload_type == first != 9:
            own = b"".join(payload_of(j) for j in range(50 * k, 50 * k + 50))
            assert (tmp_path / "native" / name).read_bytes()[94:][8000 * k : 8000 * k + 8000] == own
    other = (tmp_path / "native" / str(leg_id(1)) / "a-inbound.wav").read_bytes()
    assert other[94:] == b"".join(payload_of(k) for k in range(len(payload_types) * 50))


def test_linear_has_no_native_form_and_is_pcm(tmp_path: Path) -> None:
    types = {"payload_types": {96: "L16/16000/2"}}
    arrivals = steady(50, payload_type=96, frames=320, payload=bytes(range(250)) * 2)
    record(tmp_path / "native", arrivals, types, encoding="native")
    record(tmp_path / "pcm", arrivals, types)
    assert hashes(tmp_path / "native") == hashes(tmp_path / "pcm")
    assert soundfile.info(tmp_path / "pcm" / str(LEG) / "a-inbound.wav").channels == 2


# --- stereo ----------------------------------------------------------------------------------------------------------


def test_stereo_is_inbound_left_and_outbound_right(tmp_path: Path) -> None:
    inbound = lossy(MISSING)
    outbound = lossy({5}, 60, first=400, start_ns=T0 + 500 * MS, direction=1)
    result = record(tmp_path / "out", inbound + outbound, layout="stereo")
    assert set(hashes(tmp_path / "out")) == {f"{LEG}/a.wav"}
    assert [s["files"] for s in result.summary()["streams"]] == [[f"{LEG}/a.wav"]] * 2
    both = samples_of(tmp_path / "out" / str(LEG) / "a.wav")
    np.testing.assert_array_equal(both[:16_000, 0], expected(100, MISSING))
    # half a second later: that is where it stands
    assert not both[:4000, 1].any()
    np.testing.assert_array_equal(both[4000 : 4000 + 60 * 160, 1], expected(60, {405}, 400))
    assert len(both) == 16_000


def test_stereo_when_the_second_stream_turns_out_to_be_the_first(tmp_path: Path) -> None:
    """Outbound's first packet came before inbound's, but its second, which admits it, after inbound's."""
    inbound = steady(50, start_ns=T0)
    outbound = steady(50, start_ns=T0 - 10 * MS, direction=1, first=400)
    outbound = [outbound[0], *(Arrival(a.ns + 31 * MS, a.data) for a in outbound[1:])]
    record(tmp_path / "out", inbound + outbound, layout="stereo")
    both = samples_of(tmp_path / "out" / str(LEG) / "a.wav")
    np.testing.assert_array_equal(both[: 50 * 160, 1], expected(50, first=400))
    assert not both[:80, 0].any()
    np.testing.assert_array_equal(both[80 : 80 + 50 * 160, 0], expected(50))


def test_stereo_of_different_rates_is_brought_to_the_first(tmp_path: Path) -> None:
    wide = [
        Arrival(a.ns + MS, packet(k, payload_type=96, timestamp=320 * k, payload=bytes(640), direction=1))
        for k, a in enumerate(steady(50))
    ]
    record(tmp_path / "out", steady(50) + wide, {"payload_types": {96: "L16/16000"}}, layout="stereo")
    both = samples_of(tmp_path / "out" / str(LEG) / "a.wav")
    np.testing.assert_array_equal(both[:8000, 0], expected(50))
    assert len(both) == 8008  # a millisecond later


def test_one_direction_alone_is_still_stereo(tmp_path: Path) -> None:
    record(tmp_path / "out", steady(50, direction=1), layout="stereo")
    both = samples_of(tmp_path / "out" / str(LEG) / "a.wav")
    assert not both[:, 0].any()
    np.testing.assert_array_equal(both[:, 1], expected(50))


# --- names -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"../../../etc/pass",
    b"/etc/passwd\0\0\0\0\0",
    b"..\\..\\windows\\..",
    b"\0" * 16,
    b"\xff" * 16,
    b"~root/.ssh/keys ",
    b"con:\r\n\x1b[31m$(a)",
]


@pytest.mark.parametrize("layout", ["split", "stereo"])
def test_no_id_escapes_the_directory(tmp_path: Path, layout: str) -> None:
    """faults.md 46: a name is always the parsed UUID, whatever bytes it is made of."""
    import uuid

    ids = [uuid.UUID(bytes=raw[:16].ljust(16)) for raw in HOSTILE]
    folder = tmp_path / "inner" / "out"
    arrivals = [a for i in ids for a in steady(5, call=i)]
    record(folder, arrivals, layout=layout)
    outside = {p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents}
    assert outside == {tmp_path / "inner" / "out.pcap"}
    assert {p.name for p in folder.iterdir()} == {str(i) for i in ids}


def test_names_that_are_no_ids_are_made_safe(tmp_path: Path) -> None:
    tree = WavTree(tmp_path / "out", 10)
    for directory, stem in (("../..", "../x"), ("/abs", "a/b"), ("a\0b", "\n"), (".", ".."), ("C:\\", "nul.txt")):
        file = tree.create(directory, stem, WavFormat("pcm16", 8000, 1))
        name = tree.finish(file)
        assert (tmp_path / "out" / name).is_file()
        assert ".." not in name
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# --- past 4 GiB ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "subtype"), [("pcm16", "PCM_16"), ("PCMU", "ULAW")])
def test_rf64(tmp_path: Path, encoding: str, subtype: str) -> None:
    """faults.md 34: a sparse 5 GiB file reads whole."""
    tree = WavTree(tmp_path, 10)
    format_ = WavFormat(encoding, 8000, 1)
    file = tree.create("x", "y", format_)
    tree.write(file, b"\1\2" * 80, 0)
    size = 5 << 30
    file.end = size - 160  # what lies between is a hole
    tree.write(file, b"\3\4" * 80, size - 160)
    path = tmp_path / tree.finish(file)
    assert path.stat().st_blocks * 512 < 1 << 20
    frames = size // format_.frame_bytes
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.frames) == ("RF64", subtype, frames)
    tail = 160 // format_.frame_bytes
    last, _ = soundfile.read(path, dtype="int16", start=frames - tail)
    wanted = np.frombuffer(b"\3\4" * 80, "<i2") if encoding == "pcm16" else pcmu(b"\3\4" * 80)
    np.testing.assert_array_equal(last, wanted)
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "error", "-show_entries", "stream=duration_ts", "-of", "csv=p=0", str(path)]
        assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(",\n ")) == frames


def test_a_header_tells_sizes_up_to_the_limit() -> None:
    format_ = WavFormat("pcm16", 8000, 1)
    assert format_.header((1 << 32) - 100)[:4] == b"RIFF"
    assert format_.header(1 << 32)[:4] == b"RF64"
    assert {len(format_.header(n)) for n in (0, 1 << 20, 1 << 40)} == {format_.header_bytes}


@pytest.mark.parametrize("encoding", ["pcm16", "PCMU", "PCMA"])
@pytest.mark.parametrize("channels", [1, 2])
def test_headers_of_many_files_are_those_of_each(encoding: str, channels: int) -> None:
    format_ = WavFormat(encoding, 16_000, channels)
    sizes = np.array([0, 1, 2, 159, 160, 12_345_678, (1 << 32) - 200])
    assert [bytes(h) for h in format_.headers(sizes)] == [format_.header(n) for n in sizes.tolist()]


# --- other programs --------------------------------------------------------------------------------------------------


@pytest.mark.witness
@pytest.mark.parametrize("program", ["ffmpeg", "sox"])
@pytest.mark.parametrize("options", [{}, {"encoding": "native"}, {"layout": "stereo"}, {"rate": 16_000}])
def test_other_programs_read_the_same_samples(tmp_path: Path, program: str, options: dict[str, Any]) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    arrivals = [a for d in (0, 1) for a in lossy(MISSING, direction=d)]
    record(tmp_path / "out", arrivals, **options)
    for path in (tmp_path / "out").rglob("*.wav"):
        raw = tmp_path / "raw"
        command = {
            "ffmpeg": ["ffmpeg", "-v", "error", "-y", "-i", str(path), "-f", "s16le", str(raw)],
            "sox": ["sox", str(path), "-t", "raw", "-e", "signed", "-b", "16", "-L", str(raw)],
        }[program]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not result.stderr
        np.testing.assert_array_equal(np.frombuffer(raw.read_bytes(), "<i2"), samples_of(path).reshape(-1))


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layout": "mono"}, "split"),
        ({"encoding": "mp3"}, "native"),
        ({"encoding": "native", "layout": "stereo"}, "split"),
        ({"encoding": "native", "rate": 16_000}, "rate"),
        ({"rate": 100}, "4000"),
    ],
)
def test_combinations_that_make_no_sense(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(strep.ConfigurationError, match=says):
        WavSink(tmp_path, **wrong)


def test_many_streams_at_once(tmp_path: Path) -> None:
    """The path that writes all blocks of a batch in one call gives what the slow one gives."""
    arrivals = sorted(
        (a for n in range(80) for a in lossy({n % 40 + 3}, 60, call=leg_id(n), first=n)), key=lambda a: a.ns
    )
    record(tmp_path / "many", arrivals)
    record(tmp_path / "few", arrivals, max_open_files=5)  # descriptors are closed and opened again
    assert hashes(tmp_path / "many") == hashes(tmp_path / "few")
    for n in range(80):
        wanted = expected(60, {n + n % 40 + 3}, n)
        np.testing.assert_array_equal(samples_of(tmp_path / "many" / str(leg_id(n)) / "a-inbound.wav"), wanted)
