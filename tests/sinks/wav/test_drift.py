"""Directions whose senders' clocks drift apart, in one file: within 20 ms of each other for as long as it takes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import hashes
from support import LEG, T0, leg_id

from strep._codecs.g711 import PCMA, PCMU, encode
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._model.datagrams import DatagramBatch
from strep._model.exceptions import ConfigurationError
from strep._model.report import StreamReport
from strep._model.time import position_ns
from strep._parser import write_headers
from strep.sinks import WavSink
from strep.sinks.wav.drift import DriftCorrector

RATE = 8000
SECOND = 1_000_000_000
CLICK_S = 5.0  # a click every so often, at true time
CLICK = 16  # samples
B_LEG = leg_id(1)

I16 = npt.NDArray[np.int16]
F64 = npt.NDArray[np.float64]


# --- traffic ---------------------------------------------------------------------------------------------------------


@dataclass
class Sender:
    """One direction: packets by a clock that is fast by ``ppm``, from ``start_s`` on."""

    ppm: float
    direction: int
    call: uuid.UUID = LEG
    leg: int = 0
    start_s: float = 0.0
    background: float = 0.0  # RMS of noise that never stops
    talk: bool = True  # a second of loud noise every 7 s
    ssrc_changes: Sequence[int] = ()  # packets with which another source begins, with other timestamps
    pcma: tuple[int, int] = (0, 0)  # packets that are PCMA
    held: tuple[int, int] = (0, 0)  # packets that were not sent: a hold
    frames: int = 160  # of a packet

    def payloads(self, seconds: float, seed: int) -> npt.NDArray[np.uint8]:
        """What is heard, sampled by this clock, as packets: clicks at the true times k * CLICK_S."""
        rate = RATE * (1 + self.ppm * 1e-6)
        size = self.frames
        n = np.arange(int(seconds * RATE) // size)
        true = self.start_s + n * size / rate
        alaw = (n >= self.pcma[0]) & (n < self.pcma[1])
        talks = (true + self.direction * 3) % 7.0 < (1.0 if self.talk else 0.0)
        # a second of noise over and over: an hour of it would take longer to make than to receive
        noise = np.random.default_rng(seed).normal(0, 1, RATE)
        out = np.empty((len(n), size), np.uint8)
        click = np.arange(np.ceil(true[0] / CLICK_S), np.floor(true[-1] / CLICK_S) + 1) * CLICK_S
        at = np.rint((click - self.start_s) * rate).astype(np.int64)[:, None] + np.arange(CLICK)
        at = at[at < out.size]
        for codec, mine in ((PCMU, ~alaw), (PCMA, alaw)):
            for level, when in ((self.background, ~talks), (2000.0, talks)):
                table = encode(codec, (noise * level).astype(np.int16)).reshape(-1, size)
                rows = np.flatnonzero(mine & when)
                out[rows] = table[rows % len(table)]
            here = at[mine[at // size]]
            out.reshape(-1)[here] = encode(codec, np.array([30_000], np.int16))[0]
        return out


def batches(
    senders: Sequence[Sender], seconds: float, jitter_ms: float = 30.0, seed: int = 1
) -> Iterator[DatagramBatch]:
    """All their packets as they arrive."""
    parts = []
    for s, sender in enumerate(senders):
        rng = np.random.default_rng([seed, s])
        payloads = sender.payloads(seconds, s)
        n = np.arange(len(payloads))
        sent_ns = (sender.start_s + (n + 1) * sender.frames / RATE / (1 + sender.ppm * 1e-6)) * 1e9
        source = np.searchsorted(np.array(sender.ssrc_changes, np.int64), n, "right")
        alaw = (n >= sender.pcma[0]) & (n < sender.pcma[1])
        held = sender.held[1] - sender.held[0]
        slab = np.zeros((len(n), 40 + sender.frames), np.uint8)
        header = write_headers(
            slab,
            strep=True,
            call_leg_hi=np.full(len(n), sender.call.int >> 64, np.uint64),
            call_leg_lo=np.full(len(n), sender.call.int & 0xFFFF_FFFF_FFFF_FFFF, np.uint64),
            leg=np.full(len(n), sender.leg),
            direction=np.full(len(n), sender.direction),
            payload_type=np.where(alaw, 8, 0),
            sequence_number=(n - held * (n >= sender.held[1]) + 40_000 + 7000 * source) & 0xFFFF,
            rtp_timestamp=(n * sender.frames + 4_000_000_000 + 123_456_789 * source) & 0xFFFF_FFFF,
            ssrc=1000 * s + 7 + source,
            marker=n == 0,
        )
        slab[:, header : header + sender.frames] = payloads
        # as queues do it: nothing overtakes (what does is walked through tick by tick, an hour in a minute)
        delayed = np.maximum.accumulate(sent_ns + rng.uniform(0, jitter_ms * 1e6, len(n)))
        arrival = T0 + delayed.astype(np.int64)
        sent = (n < sender.held[0]) | (n >= sender.held[1])
        parts.append((arrival[sent], slab[sent], np.full(int(sent.sum()), header + sender.frames, np.int32)))
    arrival, slab, length = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(arrival, kind="stable")
    for begin in range(0, len(order), 4096):
        rows = order[begin : begin + 4096]
        zeros = np.zeros(len(rows), np.uint64)
        port = np.full(len(rows), 9000, np.uint16)
        yield DatagramBatch(slab[rows], length[rows], arrival[rows], zeros, zeros + 1, port, port)


def record(
    folder: Path, senders: Sequence[Sender], seconds: float, jitter_ms: float = 30.0, **options: Any
) -> tuple[list[StreamReport], Dispatcher]:
    """Recorded in ``folder``; the reports in the order of senders."""
    return receive([WavSink(folder, **{"layout": "stereo", **options})], senders, seconds, jitter_ms)


def receive(
    sinks: list[WavSink],
    senders: Sequence[Sender],
    seconds: float,
    jitter_ms: float,
    release_ns: int = 200_000_000,
) -> tuple[list[StreamReport], Dispatcher]:
    engine = Engine(release=Release(release_ns))
    dispatcher = Dispatcher(sinks, lossless=True)
    for batch in batches(senders, seconds, jitter_ms):
        dispatcher.handle(engine.receive(batch))
        dispatcher.settle()
    dispatcher.handle(engine.flush())
    dispatcher.close(60.0)
    assert [r["failed"] for r in dispatcher.reports()] == [None] * len(sinks)
    order = [(sender.call, sender.leg, sender.direction) for sender in senders]
    by_key = {(r.stream.call_leg_id, r.stream.leg, r.stream.direction): r for r in dispatcher.ended}
    return [by_key[key] for key in order], dispatcher


def clicks(channel: I16) -> F64:
    """Where clicks begin, in seconds."""
    loud = np.flatnonzero(np.abs(channel.astype(np.int32)) > 25_000)
    return loud[np.r_[True, np.diff(loud) > RATE // 2]] / RATE


def apart_ms(channels: I16, one: int = 0, other: int = 1) -> F64:
    """By how much each click comes later in the one channel than in the other."""
    a, b = clicks(channels[:, one]), clicks(channels[:, other])
    first, last = max(a[0], b[0]) - 2, min(a[-1], b[-1]) + 2
    a, b = a[(a >= first) & (a <= last)], b[(b >= first) & (b <= last)]
    assert len(a) == len(b)
    return (a - b) * 1000  # type: ignore[no-any-return]


def read(path: Path) -> I16:
    return soundfile.read(path, dtype="int16", always_2d=True)[0]  # type: ignore[no-any-return]


HOUR_S = usual_or_slow(300, 3600)


# --- faults.md 10: an hour at ±200 ppm; every time a twelfth of one ---------------------------------------------------


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StreamReport], Dispatcher]:
    """Two calls whose directions drift apart, one way and the other, recorded with and without correction."""
    folder = tmp_path_factory.mktemp("hour")
    ways = ((200, 0, LEG), (-200, 1, LEG), (-200, 0, B_LEG), (200, 1, B_LEG))
    senders = [Sender(ppm, direction, call, frames=320) for ppm, direction, call in ways]
    sinks = [WavSink(folder / str(on), layout="stereo", drift_correction=on) for on in (True, False)]
    return folder, *receive(sinks, senders, HOUR_S, 30.0)


@pytest.mark.parametrize(("call", "ppm"), [(LEG, 200.0), (B_LEG, -200.0)])
def test_an_hour_of_drift_stays_within_20_ms(
    hour: tuple[Path, list[StreamReport], Dispatcher], call: uuid.UUID, ppm: float
) -> None:
    folder, reports, dispatcher = hour
    offset = apart_ms(read(folder / "True" / str(call) / "a.wav"))
    assert len(offset) > HOUR_S / CLICK_S - 5
    print(f"inbound {ppm:+g} ppm: at most {np.abs(offset).max():.2f} ms apart; by minute", by_minute(offset))
    assert np.abs(offset).max() <= 20.0
    mine = sorted((r for r in reports if r.stream.call_leg_id == call), key=lambda r: r.stream.direction)
    for report, true in zip(mine, (ppm, -ppm), strict=True):
        assert report.skew_ppm == pytest.approx(true, abs=2)
        drift = dispatcher.figures(report.stream)["drift"]
        assert drift["skew_ppm"] == pytest.approx(report.skew_ppm, abs=0.001)
        # an hour at 200 ppm is 0.72 s, the first packets' jitter not counted
        assert drift["dropped"] - drift["inserted"] == pytest.approx(true * 1e-6 * HOUR_S * RATE, abs=0.04 * RATE)
        # only what the first packets' jitter had put wrong in the middle of a word
        assert drift["resampled"] <= 0.03 * RATE * 200


@pytest.mark.parametrize(("call", "sign"), [(LEG, 1), (B_LEG, -1)])
def test_without_correction_an_hour_is_1440_ms(
    hour: tuple[Path, list[StreamReport], Dispatcher], call: uuid.UUID, sign: int
) -> None:
    offset = apart_ms(read(hour[0] / "False" / str(call) / "a.wav"))
    print(f"not corrected: {offset[-1]:.1f} ms apart")
    assert offset[-1] == pytest.approx(sign * 400e-3 * HOUR_S, abs=35)


@pytest.mark.slow
def test_sound_without_a_pause_is_resampled(tmp_path: Path) -> None:
    senders = [Sender(p, d, call=c, background=1500.0, frames=320)
               for c, p in ((LEG, 200), (B_LEG, -200)) for d, p in ((0, p), (1, -p))]  # fmt: skip
    reports, dispatcher = record(tmp_path, senders, 600)
    for call in (LEG, B_LEG):
        offset = apart_ms(read(tmp_path / str(call) / "a.wav"))
        print(f"at most {np.abs(offset[1:]).max():.2f} ms apart; by minute", by_minute(offset))
        assert np.abs(offset[1:]).max() <= 20.0
    for report in reports:
        drift = dispatcher.figures(report.stream)["drift"]
        assert drift["resampled"] > 160 * 600 * 200e-6 * RATE / 2
        assert drift["resampled"] % 160 == 0


def test_clocks_that_are_far_off_are_followed(tmp_path: Path) -> None:
    """No crystal is 2000 ppm off, but a timer is: by more than a line of the clock was believed to be."""
    _, dispatcher = record(tmp_path, [Sender(2000, 0, background=300.0), Sender(-2000, 1)], 120)
    both = read(tmp_path / str(LEG) / "a.wav")
    inbound, outbound = clicks(both[:, 0]), clicks(both[:, 1])
    nearest = np.abs(inbound[:, None] - outbound[None]).min(axis=1)[inbound > 52] * 1000  # when it is known
    print(f"at most {nearest.max():.2f} ms apart")
    assert len(nearest) > 10
    assert nearest.max() <= 20.0
    assert [dispatcher.figures(r.stream)["drift"]["skew_ppm"] for r in dispatcher.ended] == [
        pytest.approx(2000 * (1 - 2 * r.stream.direction), abs=60) for r in dispatcher.ended
    ]


def by_minute(offset: F64) -> list[float]:
    minutes = offset[: len(offset) // 12 * 12].reshape(-1, 12)
    return np.abs(minutes).max(axis=1).round(1).tolist()  # type: ignore[no-any-return]


# --- what must not disturb it -----------------------------------------------------------------------------------------


def test_holds_sources_and_codecs_keep_the_timeline(tmp_path: Path) -> None:
    senders = [
        Sender(150, 0, held=(9000, 11_000), ssrc_changes=(4000, 15_000), pcma=(6000, 20_000)),
        Sender(-150, 1, ssrc_changes=(14_000,)),
    ]
    reports, _ = record(tmp_path, senders, 600)
    assert [r.restarts for r in reports] == [2, 1]
    assert reports[0].gaps["hold"] == 2000 * 160
    assert [r.skew_ppm for r in reports] == [pytest.approx(s.ppm, abs=4) for s in senders]
    both = read(tmp_path / str(LEG) / "a.wav")
    inbound, outbound = clicks(both[:, 0]), clicks(both[:, 1])
    assert len(inbound) > 600 / CLICK_S - 40 / CLICK_S - 4
    nearest = np.abs(inbound[:, None] - outbound[None]).min(axis=1) * 1000
    print(f"at most {nearest[1:].max():.2f} ms apart")
    assert nearest[1:].max() <= 20.0


@pytest.mark.parametrize("rate", [None, 11_025])
def test_files_do_not_depend_on_when_blocks_leave(tmp_path: Path, rate: int | None) -> None:
    """So a replay equals the live run, corrections and all."""
    senders = [Sender(600, 0, background=700.0, ssrc_changes=(1500,)), Sender(-600, 1)]
    found = []
    for release_ns in (0, 50_000_000, 300_000_000):
        sink = WavSink(tmp_path / str(release_ns), layout="stereo", rate=rate)
        reports, dispatcher = receive([sink], senders, 60, 30.0, release_ns)
        found.append([dispatcher.figures(r.stream)["drift"] for r in reports])
    assert found[0] == found[1] == found[2]
    assert found[0][0]["resampled"]
    assert found[0][1]["inserted"]
    assert len({frozenset(hashes(tmp_path / str(r)).items()) for r in (0, 50_000_000, 300_000_000)}) == 1


def test_split_files_are_never_corrected(tmp_path: Path) -> None:
    reports, dispatcher = record(tmp_path, [Sender(200, 0), Sender(-200, 1)], 120, layout="split")
    for report in reports:
        assert len(read(tmp_path / str(LEG) / f"{report.stream.stem}.wav")) == report.samples == 120 * RATE
        assert not dispatcher.figures(report.stream)


def test_corrected_and_resampled(tmp_path: Path) -> None:
    record(tmp_path, [Sender(200, 0), Sender(-200, 1)], 300, rate=16_000)
    both = read(tmp_path / str(LEG) / "a.wav")
    assert soundfile.info(tmp_path / str(LEG) / "a.wav").samplerate == 16_000
    assert np.abs(apart_ms(both[::2])[1:]).max() <= 20.0


# --- sessions ---------------------------------------------------------------------------------------------------------


def loudness(channels: I16) -> list[int]:
    """Of each channel the background's level, in hundreds; clicks are too few to count."""
    real = [channel[channel != 0].astype(np.float64) for channel in channels.T]
    return [round(float(np.median(np.abs(c))) / 0.6745 / 100) for c in real]


@pytest.mark.parametrize("ids", ["two call legs", "one call leg", "told by a function"])
def test_a_session_is_one_file_of_four_channels(tmp_path: Path, ids: str) -> None:
    b, leg = (LEG, 1) if ids == "one call leg" else (B_LEG, 0)
    senders = [  # leg B comes first
        Sender(-120, 1, call=b, leg=leg, talk=False, background=400.0),
        Sender(-120, 0, call=b, leg=leg, talk=False, background=800.0, start_s=0.4),
        Sender(90, 1, talk=False, background=1200.0, start_s=1.25),
        Sender(90, 0, talk=False, background=1600.0, start_s=1.0),
    ]
    sessions: Any = {LEG: "call-1", B_LEG: "call-1"} if ids == "two call legs" else {str(LEG): "call-1"}
    order = [16, 12, 8, 4]
    if ids == "told by a function":
        sessions, order = (lambda stream: "call-1"), [8, 4, 16, 12]  # as the legs came
    record(tmp_path, senders, 300, 5.0, layout="session", sessions=sessions)
    path = tmp_path / "call-1" / "session.wav"
    assert list(tmp_path.rglob("*.wav")) == [path]
    channels = read(path)
    assert channels.shape[1] == 4
    assert loudness(channels) == pytest.approx(order, abs=1)
    worst = max(np.abs(apart_ms(channels, a, c)).max() for a in range(4) for c in range(a))
    print(f"{ids}: at most {worst:.2f} ms apart")
    assert worst <= 20.0


def test_channels_of_a_session_stand_in_the_given_order(tmp_path: Path) -> None:
    legs = [B_LEG, leg_id(2), LEG]
    senders = [
        Sender(0, d, call=legs[i], talk=False, background=400.0 * (2 * i + d + 1), start_s=float(5 - 2 * i + d))
        for i in range(3)
        for d in range(2)
    ]
    record(tmp_path, senders, 3, 0.0, layout="session", sessions=dict.fromkeys(legs, "../conference"))
    channels = read(tmp_path / "___conference" / "session.wav")
    assert loudness(channels) == pytest.approx([4, 8, 12, 16, 20, 24], abs=1)
    begins = [int(np.flatnonzero(channels[:, c])[0]) / RATE for c in range(6)]
    assert begins == pytest.approx([4.0, 5.0, 2.0, 3.0, 0.0, 1.0], abs=0.002)


def test_legs_without_a_session_are_stereo(tmp_path: Path) -> None:
    other = leg_id(7)
    senders = [Sender(0, 0), Sender(0, 1, call=B_LEG), Sender(0, 0, call=other), Sender(0, 0, leg=1, start_s=0.5)]
    reports, dispatcher = record(tmp_path, senders, 3, layout="session", sessions={LEG: "s", B_LEG: "s"})
    # of two ids each is one leg: who says it is leg B of the first has no place
    names = {"s/session.wav", f"{other}/a.wav", f"{LEG}/b.wav"}
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.wav")} == names
    assert {f for r in reports for f in dispatcher.files(r.stream)} == names
    assert read(tmp_path / f"{other}/a.wav").shape[1] == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layout": "session"}, "give both"),
        ({"layout": "stereo", "sessions": {LEG: "x"}}, "give both"),
        ({"layout": "session", "sessions": {"nobody": "x"}}, "no call_leg_id"),
        ({"layout": "session", "sessions": {LEG: ""}}, "no name"),
        ({"layout": "session", "sessions": {LEG: "x"}, "encoding": "native"}, "split"),
        ({"layout": "quadro"}, '"session"'),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        WavSink(tmp_path, **options)


# --- the corrector alone ----------------------------------------------------------------------------------------------


def correct(samples: I16, gaps: dict[int, int], steps: dict[int, int], cuts: Sequence[int]) -> Any:
    """``gaps`` by sample before which they are; ``steps`` (frames that the time moves) likewise; cut anywhere."""
    corrector = DriftCorrector(RATE, T0)
    edges = sorted({0, len(samples), *gaps, *steps, *cuts})
    parts, position, wanted = [], 0, 0
    for begin, end in itertools.pairwise(edges):
        position += gaps.get(begin, 0)
        wanted += steps.get(begin, 0)
        time_ns = T0 + position_ns(position, RATE) + wanted * 125_000
        parts += corrector.process(position, samples[begin:end], time_ns, time_ns)
        position += end - begin
    parts += corrector.flush()
    out = np.zeros((parts[-1][0] + len(parts[-1][1]), *samples.shape[1:]), np.int16)
    written = 0
    for at, part in parts:
        assert at >= written
        out[at : at + len(part)] = part
        written = at + len(part)
    return out, corrector, position, wanted


@given(st.integers(0, 1 << 32), st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_corrections_do_not_depend_on_cuts(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.random(40) < 0.6, 400)
    samples = (rng.normal(0, 1, 16_000) * np.where(loud, 3000, 20)).astype(np.int16)
    if channels == 2:
        samples = np.stack([samples, samples[::-1]], axis=1)
    gaps = {int(p): int(rng.integers(1, 1500)) for p in rng.integers(1, 16_000, 3)}
    steps = {int(p): int(rng.integers(-90, 90)) for p in rng.integers(1, 16_000, 4)}
    whole, one, end, _ = correct(samples, gaps, steps, ())
    for count in (3, 40, 1000):
        cut, other, _, _ = correct(samples, gaps, steps, rng.integers(1, 16_000, count).tolist())
        np.testing.assert_array_equal(cut, whole)
        for name in ("inserted", "dropped", "resampled"):
            assert getattr(one, name) == getattr(other, name)
    assert len(whole) == end + one.inserted - one.dropped


def test_an_edit_in_silence_is_all_there_is() -> None:
    """5 ms too early: the sound before and behind is what it was, to the sample."""
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 3000, 3200).astype(np.int16)
    samples = np.concatenate([sound, np.zeros(1600, np.int16), sound])
    out, corrector, _, _ = correct(samples, {}, {160: 40}, ())
    assert (corrector.inserted, corrector.dropped, corrector.resampled) == (40, 0, 0)
    np.testing.assert_array_equal(out[:3200], sound)
    assert not out[3200 : 3200 + 1640].any()
    np.testing.assert_array_equal(out[4840:], sound)


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
@pytest.mark.parametrize("wanted", [60, -60])
def test_a_stretched_tone_is_the_tone(frequency: int, wanted: int) -> None:
    """Continuous sound, 7.5 ms off: corrected to below 4 ms without a click; all distortion is 40 dB down."""
    tone = np.rint(10_000 * np.sin(2 * np.pi * frequency * np.arange(8000) / RATE)).astype(np.int16)
    out, corrector, _, _ = correct(tone, {}, {160: wanted}, ())
    done = corrector.inserted - corrector.dropped
    assert abs(done - wanted) <= 32
    assert len(out) == len(tone) + done
    assert corrector.resampled == 160 * abs(done)
    # amplitude stays: every 10 ms has the tone's power
    power = np.sqrt(np.square(out[: len(out) // 80 * 80].astype(np.float64)).reshape(-1, 80).mean(axis=1))
    assert np.abs(power / (10_000 / np.sqrt(2)) - 1).max() < 0.03
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
    at = round(frequency * len(out) / RATE)
    near = spectrum[max(at - 150, 0) : at + 150].sum()
    print(f"{frequency} Hz: {10 * np.log10((spectrum.sum() - near) / near):.1f} dB")
    assert 10 * np.log10((spectrum.sum() - near) / near) < -40
