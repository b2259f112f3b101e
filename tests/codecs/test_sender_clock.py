"""Senders whose RTP clock is not their codec's: found, told, and no audio in the wrong place or left out."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
from depth import one_or_all, usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, packet, payload_of, pcmu, run

from strep._codecs.decoder import available
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import Engine, EngineConfig
from strep._engine.outlet.sender_clock import SenderClocks
from strep._model.exceptions import ConfigurationError

needs_codecs = pytest.mark.skipif(not available(parse_codec("G722")), reason="the extra codecs")
PTIME = 20 * MS
OPUS = b"\x48"  # SILK, wideband, 20 ms, one frame
FEW = EngineConfig(max_streams=16)
L16 = EngineConfig(payload_types=PayloadTypes({96: "L16/16000"}), max_streams=16)

# payload type, step of 20 ms, payload bytes, first byte; then the clock, and samples a packet
SENDERS = {
    "PCMU in ms": (0, 20, 160, b"", 1000, 160),
    "PCMU, half": (0, 80, 160, b"", 4000, 160),
    "PCMU in bytes of 16-bit samples": (0, 320, 160, b"", 16_000, 160),
    "PCMU at 48 kHz": (0, 960, 160, b"", 48_000, 160),
    "L16 in bytes": (96, 640, 640, b"", 32_000, 320),
    "G722 at 16 kHz": (9, 320, 160, b"", 16_000, 320),
    "G722 in ms": (9, 20, 160, b"", 1000, 320),
    "G729 in ms": (18, 20, 20, b"", 1000, 160),
    "opus in ms": (111, 20, 50, OPUS, 1000, 960),
    "opus at 8 kHz": (111, 160, 50, OPUS, 8000, 960),
    "opus at 16 kHz": (111, 320, 50, OPUS, 16_000, 960),
    "opus at 24 kHz": (111, 480, 50, OPUS, 24_000, 960),
}


def sent(count: int, payload_type: int, step: int, size: int, head: bytes = b"", first: int = 0) -> list[Arrival]:
    return [
        Arrival(
            T0 + k * PTIME,
            packet(
                k, timestamp=first + step * k, payload=head + payload_of(k, size - len(head)), payload_type=payload_type
            ),
        )
        for k in range(count)
    ]


@needs_codecs
@pytest.mark.parametrize("first", [0, (1 << 32) - 5000], ids=["", "wrap"])
@pytest.mark.parametrize("name", SENDERS)
def test_a_clock_that_is_not_the_codecs(name: str, first: int) -> None:
    """All audio at its place, from the first packet on; the clock in the report, and jitter by it."""
    payload_type, step, size, head, clock, frames = SENDERS[name]
    arrivals = sent(150, payload_type, step, size, head, first)
    whole = run(arrivals, config=L16, width=1024)
    audio, report = whole.only()
    assert (report.samples, report.gap_samples, report.trimmed) == (150 * frames, 0, 0)
    assert (report.undecoded, report.timestamp_jumps, report.stream.encrypted) == (0, 0, False)
    entry = report.as_dict()
    assert (entry["clock_rate"], entry["clock_rate_nominal"]) == (clock, report.stream.codec.clock_rate)
    (note,) = entry["notes"]
    assert whole.notices == [note]
    assert f"RTP clock runs at {clock} Hz, not at {report.stream.codec.clock_rate}" in note
    if "--pt" in note:
        number, named = PayloadTypes.parse_option(note.partition("--pt ")[2].partition(" ")[0])
        assert (number, named.clock_rate, named.sample_rate) == (payload_type, clock, report.stream.sample_rate)
    assert report.jitter_ms_max < 1e-6
    if payload_type == 0:
        np.testing.assert_array_equal(audio, np.concatenate([pcmu(payload_of(k)) for k in range(150)]))
    ways = [(range(1, 150), True), (range(0, 150, 7), False)]
    for cuts, live in one_or_all(ways, np.random.default_rng([payload_type, first])):
        other = run(arrivals, cuts=cuts, live=live, ticking=live, config=L16, width=1024)
        assert [r.as_dict() for r in other.reports] == [entry]
        np.testing.assert_array_equal(other.audio[0], audio)


@needs_codecs
def test_skew_is_against_the_clock_that_was_found() -> None:
    """Clocks that are off by a factor and by 200 ppm, for a minute."""
    for payload_type, step in ((9, 320), (0, 20), (0, 160)):
        arrivals = [
            Arrival(T0 + round(k * PTIME / 1.0002), packet(k, timestamp=step * k, payload_type=payload_type))
            for k in range(3000)
        ]
        (report,) = run(arrivals).reports
        assert report.skew_ppm == pytest.approx(200, abs=1)


@needs_codecs
@pytest.mark.parametrize(
    ("spelled", "step", "size", "head", "frames"),
    [
        ("G722/16000", 320, 160, b"", 320), ("opus/8000", 160, 50, OPUS, 960), ("opus/16000", 320, 50, OPUS, 960),
        ("opus/24000/2", 480, 50, OPUS, 960), ("PCMU/1000", 20, 160, b"", 160), ("PCMA/1000", 20, 160, b"", 160),
    ],
)  # fmt: skip
def test_a_clock_that_is_named(spelled: str, step: int, size: int, head: bytes, frames: int) -> None:
    config = EngineConfig(payload_types=PayloadTypes({98: spelled}), max_streams=16)
    (report,) = run(sent(100, 98, step, size, head), config=config).reports
    assert (report.samples, report.gap_samples, report.stream.notes) == (100 * frames, 0, [])
    assert report.as_dict()["clock_rate"] == int(spelled.split("/")[1])
    assert report.jitter_ms_max < 1e-6


@needs_codecs
def test_a_sender_that_leaves_out_audio_has_no_other_clock() -> None:
    """Every second packet was never sent, or one of twenty: timestamps leap, and packets come as late as they say."""
    for leap in (2, 20):
        for payload_type, frames in ((0, 160), (9, 320)):
            arrivals = [
                Arrival(T0 + leap * k * PTIME, packet(k, timestamp=leap * 160 * k, payload_type=payload_type))
                for k in range(60)
            ]
            (report,) = run(arrivals).reports
            assert report.samples == (59 * leap + 1) * frames
            assert report.gap_samples == 59 * (leap - 1) * frames
            assert report.stream.clock_rate == 0
            assert not [note for note in report.stream.notes if "clock" in note]


@pytest.mark.parametrize(("step", "clock"), [(220, 11_000), (147, 7350), (8000, 400_000)])
def test_a_clock_that_no_sender_is_known_to_have_is_told_and_not_used(step: int, clock: int) -> None:
    """Timestamps are taken as they are; what overlaps is left out, and counted."""
    whole = run(sent(100, 0, step, 160))
    (report,) = whole.reports
    notes = [note for note in report.stream.notes if "clock" in note]
    (note,) = notes
    assert f"clock runs at {clock} Hz, not at 8000" in note
    assert (report.stream.clock_rate, report.timestamp_jumps) == (0, 0)
    assert report.samples == 99 * step + 160
    assert report.trimmed == 99 * max(160 - step, 0)
    assert report.samples - report.gap_samples + report.trimmed == 100 * 160


@needs_codecs
@given(
    first=st.one_of(st.integers(21, 3 * 960), st.sampled_from([20, 160, 240, 320, 480, 648, 840, 1920])),
    evenly=st.booleans(),
    agree=st.integers(0, 3),
)
@settings(max_examples=usual_or_slow(20, 400), deadline=None)
def test_one_odd_step_is_no_evidence(first: int, evenly: bool, agree: int) -> None:
    """An encoder's first step may be shorter, as GStreamer's of opus is by its delay: 648 instead of 960. All stands
    where it stood if nobody had measured anything: the packet after it at the latest."""
    ticks = [960 * k if k <= agree else 960 * (k - 1) + first for k in range(60)]
    arrivals = [
        Arrival(
            T0 + (k * PTIME if evenly else tick * 1000 // 48 * 1000),
            packet(k, timestamp=tick, payload=OPUS + bytes(49), payload_type=111),
        )
        for k, tick in enumerate(ticks)
    ]
    whole = run(arrivals, config=FEW)
    with patch.object(SenderClocks, "nominal", lambda _self, popped, _codec, _frames: popped):
        unmeasured = run(arrivals, config=FEW)
    audio, report = whole.only()
    assert report.samples == ticks[-1] + 960
    assert (report.trimmed, report.gap_samples) == (max(960 - first, 0), max(first - 960, 0))
    assert (report.stream.clock_rate, report.stream.notes, report.timestamp_jumps) == (0, [], 0)
    # by a factor that senders are known to have, it holds for that packet
    if agree or first not in (20, 160, 240, 320, 480, 1920):
        assert whole.gaps == unmeasured.gaps
        np.testing.assert_array_equal(audio, unmeasured.audio[0])
    assert report.as_dict() == unmeasured.only()[1].as_dict()


@pytest.mark.parametrize(
    ("spelled", "text"),
    [
        ("G722/48000", "its RTP clock runs at 8000 Hz, not 48000; of senders that are wrong: 1000, 16000"),
        ("opus/44100", "its RTP clock runs at 48000 Hz, not 44100"),
        ("PCMU/999", "the rate must be 4000 to 192000 Hz, or 1000 where the RTP clock is that"),
        ("L16/1000", "the rate must be 4000 to 192000 Hz$"),
    ],
)
def test_clocks_that_are_nonsense_are_refused(spelled: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        PayloadTypes.parse_option(f"98={spelled}")


def test_a_clock_that_arrival_times_do_not_confirm_is_told_and_not_used() -> None:
    """Four at once, too fast for both: nobody knows whether the sender left out audio, or has another clock."""
    arrivals = [Arrival(T0 + (k // 4) * 10 * MS + k % 4, packet(k, timestamp=320 * k)) for k in range(160)]
    (report,) = run(arrivals).reports
    assert (report.samples, report.gap_samples) == (159 * 320 + 160, 159 * 160)
    (note,) = report.stream.notes
    assert "RTP clock" in note
    assert report.stream.clock_rate == 0


def test_audio_that_overlaps_is_counted() -> None:
    """A sender that says of every tenth packet that it is 10 ms earlier, after it was known well."""
    arrivals = [
        Arrival(T0 + k * PTIME, packet(k, timestamp=160 * k - 80 * (k > 50 and k % 10 == 0))) for k in range(100)
    ]
    (report,) = run(arrivals).reports
    assert report.trimmed == 4 * 80
    assert report.as_dict()["trimmed"] == 4 * 80


def test_who_has_the_codecs_clock_is_looked_at_no_more() -> None:
    engine = Engine()
    clocks = engine.state.sender_clocks
    for arrival in sent(12, 0, 160, 160):
        engine.receive(batch_of([arrival]))
    engine.advance(T0 + 1000 * MS)
    assert engine.live_streams == 1
    assert clocks.active == 0


def test_another_source_is_measured_anew() -> None:
    """A re-INVITE from a sender in ms to one that is right."""
    wrong = sent(100, 0, 20, 160)
    right = [Arrival(T0 + (100 + k) * PTIME, packet(3000 + k, timestamp=77_000 + 160 * k, ssrc=5)) for k in range(100)]
    (report,) = run(wrong + right).reports
    assert (report.samples, report.trimmed) == (200 * 160, 0)
    assert len(report.stream.notes) == 1


@dataclass(frozen=True)
class Sender:
    """Packets that last ``ms``, of a codec whose clock should run at ``nominal`` and runs at ``clock`` Hz."""

    spelled: str
    clock: int
    ms: int
    first: int  # timestamp
    jitter: float  # in packets
    lost: frozenset[int]
    noise: frozenset[int]  # sent as comfort noise
    pauses: frozenset[int]  # 300 ms of suppressed silence before these packets
    skew_ppm: int

    def arrivals(self) -> tuple[list[Arrival], list[int]]:
        """What arrives, and where each packet stands, in samples of the audio; -1: it has none."""
        codec = parse_codec(self.spelled)
        frames = codec.sample_rate * self.ms // 1000
        head = {10: b"\x40", 20: b"\x48", 40: b"\x50", 60: b"\x58"}[self.ms] if codec.name == "opus" else b""
        size = {"opus": 50, "G722": frames // 2}.get(codec.name, frames * codec.frame_bytes)
        rng = np.random.default_rng(self.first + self.ms)
        arrivals, places, now_ms = [], [], 0
        for k in range(COUNT):
            now_ms += 300 * (k in self.pauses)
            if k not in self.lost:
                late = int(rng.integers(0, 1 + int(self.jitter * self.ms * MS)))
                data = packet(
                    k,
                    timestamp=self.first + now_ms * self.clock // 1000,
                    payload=b"\x40" if k in self.noise else head + payload_of(k, size - len(head)),
                    payload_type=13 if k in self.noise else 98,
                )
                arrivals.append(Arrival(T0 + round(now_ms * MS / (1 + self.skew_ppm / 1e6)) + late, data))
                places.append(-1 if k in self.noise else now_ms * codec.sample_rate // 1000)
            now_ms += self.ms
        return arrivals, places


COUNT = 80
CLOCKS = {
    "PCMU/8000": [1000, 4000, 16_000, 48_000],
    "L16/16000": [1000, 8000, 32_000, 48_000],
    "G722/8000": [1000, 16_000],
    "opus/48000": [1000, 8000, 12_000, 16_000, 24_000],
}


@st.composite
def senders(draw: st.DrawFn) -> Sender:
    spelled = draw(st.sampled_from(list(CLOCKS)))
    numbers = st.integers(1, COUNT - 2)
    return Sender(
        spelled=spelled,
        clock=draw(st.sampled_from(CLOCKS[spelled])),
        ms=draw(st.sampled_from([10, 20, 40, 60] if spelled != "L16/16000" else [10, 20])),
        first=draw(st.sampled_from([0, 77, (1 << 32) - 1, (1 << 32) - 9000])) + draw(st.integers(0, 5000)),
        jitter=draw(st.sampled_from([0.0, 0.1, 0.3])),
        noise=frozenset(draw(st.lists(st.integers(3, COUNT - 2), max_size=5))),
        lost=frozenset(draw(st.lists(numbers, max_size=12))),
        pauses=frozenset(draw(st.lists(st.integers(4, COUNT - 2), max_size=3))),
        skew_ppm=draw(st.sampled_from([0, -100, 100])),
    )


@needs_codecs
@given(sender=senders(), seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(15, 400), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_factor_any_jitter_any_loss_any_cut(sender: Sender, seed: int) -> None:
    """All audio at its place, none left out, and it does not matter how packets are cut."""
    arrivals, places = sender.arrivals()
    config = EngineConfig(payload_types=PayloadTypes({98: sender.spelled}), max_streams=16)
    whole = run(arrivals, config=config, width=1024)
    audio, report = whole.only()
    codec = parse_codec(sender.spelled)
    frames = codec.sample_rate * sender.ms // 1000
    assert report.samples - report.gap_samples == frames * sum(place >= 0 for place in places)
    assert report.samples == places[-1] + frames
    assert (report.trimmed, report.undecoded, report.timestamp_jumps) == (0, 0, 0)
    assert report.stream.clock_rate == sender.clock
    if codec.name == "PCMU":
        wanted = np.zeros(report.samples, np.int16)
        for arrival, place in zip(arrivals, places, strict=True):
            if place >= 0:
                wanted[place : place + frames] = pcmu(arrival.data[-frames:])
        np.testing.assert_array_equal(audio, wanted)
    rng = np.random.default_rng(seed)
    cuts = sorted(rng.integers(1, len(arrivals), 40).tolist())
    live, ticking = rng.integers(2, size=2).astype(bool).tolist()
    other = run(arrivals, cuts=cuts, live=live, ticking=ticking, config=config, width=1024)
    assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
    assert other.gaps == whole.gaps
