"""What is not plain audio of one codec: key presses, comfort noise, codec changes, unnamed types, SRTP."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from depth import one_or_all, usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, leg_id, packet, payload_of, pcmu, run, steady

from strep._codecs.decoder import available
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import EngineConfig
from strep._model.types import Codec

L16 = EngineConfig(payload_types=PayloadTypes({96: "L16/16000"}))
PTIME = 20 * MS
needs_codecs = pytest.mark.skipif(not available(parse_codec("AMR")), reason="pip install '.[codecs]'")


def report_of_key(event: int, duration: int, *, end: bool = False, volume: int = 10) -> bytes:
    return struct.pack("!BBH", event, (0x80 if end else 0) | volume, duration)


def press(key: int, first: int, timestamp: int, ns: int, *, packets: int = 5) -> list[Arrival]:
    """A key held for ``packets`` packets, the end said three times. RFC 4733."""
    said = [(160 * (k + 1), False) for k in range(packets)] + [(160 * packets, True)] * 3
    return [
        Arrival(
            ns + k * PTIME,
            packet(first + k, timestamp=timestamp, payload=report_of_key(key, duration, end=end), payload_type=101),
        )
        for k, (duration, end) in enumerate(said)
    ]


def test_a_key_press_is_one_event_and_no_audio() -> None:
    before = steady(50)
    keys = press(5, 50, 50 * 160, T0 + 50 * PTIME)
    after = [Arrival(T0 + (58 + k) * PTIME, packet(58 + k)) for k in range(50)]
    result = run(before + keys + after)
    audio, report = result.only()
    assert result.events == {
        0: [
            (
                "dtmf",
                50 * 160,
                T0 + 50 * PTIME,
                0.1,
                {"digit": "5", "source": "rfc4733", "level_dbm0": -10, "ended": True},
            )
        ]
    }
    assert (report.packets_lost, report.undecoded, report.samples) == (0, 0, 108 * 160)
    assert result.gaps == {0: [(50 * 160, 8 * 160, "silence")]}
    assert not audio[50 * 160 : 58 * 160].any()
    assert result.totals.delivered == 108
    assert result.notices == []


def test_what_is_no_telephone_event_is_counted() -> None:
    arrivals = steady(20)
    arrivals[5] = Arrival(arrivals[5].ns, packet(5, payload=b"\x01\x02\x03", payload_type=101))
    result = run(arrivals)
    assert result.totals.dropped_by == {"telephone_event": 1}
    assert result.events == {}


def test_a_press_whose_end_is_lost_is_told_once() -> None:
    keys = press(11, 20, 20 * 160, T0 + 20 * PTIME)[:4]
    after = [Arrival(T0 + (28 + k) * PTIME, packet(28 + k)) for k in range(20)]
    result = run(steady(20) + keys + after)
    [(kind, _, _, duration, data)] = result.events[0]
    assert (kind, duration, data["digit"], data["ended"]) == ("dtmf", 0.08, "#", False)


def test_comfort_noise_is_silence_in_time_not_loss() -> None:
    """Speech, a SID, silence, another SID, silence, speech: RFC 3389."""
    sid, louder = bytes([70]), bytes([50, 130])
    arrivals = [
        *steady(10),
        Arrival(T0 + 10 * PTIME, packet(10, timestamp=10 * 160, payload=sid, payload_type=13)),
        Arrival(T0 + 20 * PTIME, packet(11, timestamp=20 * 160, payload=louder, payload_type=13)),
        *[Arrival(T0 + (30 + k) * PTIME, packet(12 + k, timestamp=(30 + k) * 160)) for k in range(10)],
    ]
    result = run(arrivals)
    audio, report = result.only()
    assert result.gaps == {0: [(1600, 20 * 160, "silence")]}
    assert result.noise == {0: [(30 * 160, louder)]}
    assert (report.samples, report.packets_lost, report.undecoded) == (40 * 160, 0, 0)
    assert result.totals.delivered == len(arrivals)
    assert len(audio) == 40 * 160


@pytest.mark.parametrize("first", ["PCMU", "L16"])
def test_a_codec_of_another_rate_keeps_the_timeline(first: str) -> None:
    """Half PCMU, half L16 at 16 kHz, a new SSRC as a re-INVITE brings: the stream keeps the rate it began with."""
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(">i2")
    wide = [
        packet(k, timestamp=320 * k, ssrc=9, payload=tone[320 * k : 320 * k + 320].tobytes(), payload_type=96)
        for k in range(50)
    ]
    narrow = [packet(k) for k in range(50)]
    data = narrow + wide if first == "PCMU" else wide + narrow
    result = run([Arrival(T0 + k * PTIME, d) for k, d in enumerate(data)], config=L16, width=1024)
    audio, report = result.only()
    rate = 8000 if first == "PCMU" else 16_000
    assert (report.samples, report.gap_samples, report.undecoded) == (2 * rate, 0, 0)
    half = audio[rate:] if first == "PCMU" else audio[:rate]
    told = np.abs(np.fft.rfft(half.astype(np.float64)))
    assert abs(int(told.argmax()) - 440) <= 1
    other = audio[:rate] if first == "PCMU" else audio[rate:]
    if first == "PCMU":
        np.testing.assert_array_equal(other, np.concatenate([pcmu(payload_of(k)) for k in range(50)]))


@pytest.mark.parametrize("tag", [4, 10, 16])
def test_srtp_is_told_and_not_decoded(tag: int) -> None:
    rng = np.random.default_rng(tag)
    arrivals = steady(50, call=leg_id(1))
    arrivals += [
        Arrival(T0 + k * PTIME + MS, packet(k, call=leg_id(2), payload=rng.bytes(160 + tag), timestamp=160 * k))
        for k in range(50)
    ]
    result = run(sorted(arrivals, key=lambda a: a.ns))
    plain, secret = result.reports
    assert (plain.stream.encrypted, secret.stream.encrypted) == (False, True)
    assert secret.undecoded == result.totals.dropped_by["encrypted"] == 50
    assert len(result.notices) == len(secret.stream.notes) == 1
    assert "SRTP" in secret.stream.notes[0]
    assert secret.as_dict()["encrypted"] is True
    assert list(result.audio) == [plain.stream.serial]


def secret(spelled: str, streams: int, count: int = 100) -> list[Arrival]:
    """Packets of 20 ms whose payloads are as good as random."""
    rng = np.random.default_rng(streams)
    step = parse_codec(spelled).clock_rate // 50
    return [
        Arrival(
            T0 + k * PTIME + i * 1000,
            packet(
                k,
                timestamp=step * k,
                payload=rng.bytes(int(rng.integers(60, 100)) if spelled == "opus" else 43),
                payload_type=96,
                call=leg_id(i),
            ),
        )
        for k in range(count)
        for i in range(streams)
    ]


@needs_codecs
@pytest.mark.parametrize("spelled", ["opus", "AMR", "AMR-WB"])
def test_srtp_of_codecs_whose_payloads_say_how_long_they_are_is_told(spelled: str) -> None:
    """After some packets of nonsense: as random bytes are right now and then, 9 of opus on average."""
    result = run(secret(spelled, 100), config=EngineConfig(payload_types=PayloadTypes({96: spelled})))
    for report in result.reports:
        assert report.stream.encrypted
        (note,) = report.stream.notes
        assert "SRTP" in note
        assert report.undecoded >= 50
    assert len(result.reports) == len(result.notices) == 100
    dropped = result.totals.dropped_by
    assert dropped.keys() == {"encrypted", "corrupt"}
    assert result.totals.dropped == sum(report.undecoded for report in result.reports)
    heard = 100 - np.mean([report.undecoded for report in result.reports])
    print(f"{spelled}: {heard:.1f} packets of nonsense heard on average")


@needs_codecs
def test_srtp_is_told_the_same_however_packets_are_cut() -> None:
    config = EngineConfig(payload_types=PayloadTypes({96: "opus"}))
    arrivals = secret("opus", 10, 60)
    whole = run(arrivals, config=config)
    assert all(report.stream.encrypted for report in whole.reports)
    for cuts in (range(600), range(0, 600, 7)):
        other = run(arrivals, config=config, cuts=cuts, live=True)
        assert other.totals == whole.totals
        assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]


@needs_codecs
def test_opus_with_suppressed_silence_is_not_taken_for_encrypted() -> None:
    """Packets of 20 ms every 400 ms from the start on, then all of them, and a corrupt one."""
    config = EngineConfig(payload_types=PayloadTypes({96: "opus"}))
    toc = 1 << 3  # SILK, 20 ms, one frame
    ticks = [19_200 * k for k in range(20)] + [19_200 * 20 + 960 * k for k in range(50)]
    arrivals = [
        Arrival(
            T0 + t * 1000 // 48 * 1000, packet(k, timestamp=t, payload=bytes([toc + 3 * (k == 3)]), payload_type=96)
        )
        for k, t in enumerate(ticks)
    ]
    (report,) = run(arrivals, config=config).reports
    assert (report.stream.encrypted, report.undecoded, report.stream.notes) == (False, 1, [])


def test_a_type_that_nobody_named_is_guessed_and_said_so() -> None:
    arrivals = [
        Arrival(T0 + k * PTIME, packet(k, payload=payload_of(k, 640), payload_type=98, timestamp=320 * k))
        for k in range(50)
    ]
    result = run(arrivals, width=1024)
    _, report = result.only()
    assert report.stream.codec == Codec("L16", 16_000, 16_000, 1, 2)
    assert report.stream.codec_guessed
    assert report.undecoded == result.totals.dropped_by["payload_type"] == 5
    assert report.samples == 45 * 320
    assert len(result.notices) == 1
    assert "guess" in result.notices[0]


def test_what_cannot_be_guessed_is_said_once() -> None:
    rng = np.random.default_rng(0)
    arrivals = [
        Arrival(T0 + k * PTIME, packet(k, payload=rng.bytes(int(rng.integers(100, 200))), payload_type=98))
        for k in range(80)
    ]
    result = run(arrivals)
    _, report = result.reports[0], result.reports[0]
    assert report.undecoded == 80
    assert len(result.notices) == 1
    assert "--pt 98" in result.notices[0]


class Sender:
    """One stream's packets, as they are sent one after the other."""

    def __init__(self, number: int, rng: np.random.Generator) -> None:
        self.number, self.rng = number, rng
        self.sequence, self.timestamp = int(rng.integers(0, 65_536)), int(rng.integers(0, 1 << 32))
        self.ns, self.ssrc = T0 + number * MS, number + 1
        self.said: list[Arrival] = []

    def send(self, payload: bytes, payload_type: int, at: int | None = None) -> None:
        data = packet(
            self.sequence,
            timestamp=self.timestamp if at is None else at,
            ssrc=self.ssrc,
            payload=payload,
            payload_type=payload_type,
            call=leg_id(self.number),
        )
        self.said.append(Arrival(self.ns + int(self.rng.integers(0, 12 * MS)), data))
        self.sequence += 1

    def go_on(self, ticks: int, packets: int = 1) -> None:
        self.timestamp += ticks
        self.ns += packets * PTIME

    def press(self) -> None:
        rng, begun = self.rng, self.timestamp
        packets, key = int(rng.integers(1, 9)), int(rng.integers(0, 16))
        for k in range(packets + 3):
            duration = 160 * min(k + 1, packets)
            self.send(report_of_key(key, duration, end=k >= packets), 101, begun)
            self.go_on(160)
        if rng.random() < 0.3:
            self.ns += int(rng.integers(0, 1500)) * MS

    def suppress(self) -> None:
        for _ in range(int(self.rng.integers(1, 3))):
            self.send(self.rng.bytes(int(self.rng.integers(1, 3))), 13)
            pause = int(self.rng.integers(1, 30))
            self.go_on(160 * pause, pause)

    def talk(self, payload_type: int) -> None:
        for _ in range(int(self.rng.integers(5, 15))):
            self.send(self.rng.bytes(160 if payload_type == 0 else 640), payload_type)
            self.go_on(160 if payload_type == 0 else 320)


def mixture(seed: int) -> list[Arrival]:
    """Two streams with everything of this page, lost and reordered."""
    rng = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    for number in range(2):
        sender = Sender(number, rng)
        while len(sender.said) < 250:
            what = rng.random()
            if what < 0.03:
                sender.press()
            elif what < 0.06:
                sender.suppress()
            elif what < 0.07:
                sender.ssrc, sender.timestamp = sender.ssrc + 100, int(rng.integers(0, 1 << 32))
            else:
                sender.talk(0 if what < 0.6 else 96 if what < 0.8 else 97)
        arrivals += [a for a in sender.said if rng.random() > 0.03]
    return sorted(arrivals, key=lambda a: a.ns)


@given(seed=st.integers(0, 1 << 32), cut_seed=st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(4, 80), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_split_gives_the_same(seed: int, cut_seed: int) -> None:
    arrivals = mixture(seed)
    rng = np.random.default_rng(cut_seed)
    whole = run(arrivals, config=L16, width=1024)
    assert whole.audio
    few = sorted(rng.integers(0, len(arrivals), 20).tolist())
    many = sorted(rng.integers(0, len(arrivals), len(arrivals) // 2).tolist())
    ways = [(few, True, False), (many, False, True), (many, True, True)]
    for cuts, live, ticking in one_or_all(ways, rng):
        other = run(arrivals, cuts=cuts, live=live, ticking=ticking, config=L16, width=1024)
        assert other.totals == whole.totals
        assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
        assert (other.gaps, other.events, other.noise) == (whole.gaps, whole.events, whole.noise)
        for serial, samples in whole.audio.items():
            np.testing.assert_array_equal(other.audio[serial], samples)


def test_a_row_that_is_used_again_knows_nothing_of_the_stream_before() -> None:
    """Neither its comfort noise nor what its unnamed type was taken for."""

    def call(number: int, begin: int) -> list[Arrival]:
        def send(k: int, payload: bytes, payload_type: int, at: int) -> Arrival:
            ns = T0 + (begin + at) * PTIME
            data = packet(
                k, timestamp=160 * at, payload=payload, payload_type=payload_type, call=leg_id(number), ssrc=number
            )
            return Arrival(ns, data)

        said = [send(k, payload_of(k), 0, k) for k in range(10)]
        # five packets whose type is guessed: L16 at 8 kHz
        said += [send(10 + k, payload_of(k, 320), 98, 10 + k) for k in range(6)]
        if number == 1:
            said.append(send(16, bytes([60]), 13, 16))
        # suppressed silence, and speech again
        return said + [send(len(said) + k, payload_of(k), 0, 40 + k) for k in range(5)]

    config = EngineConfig(idle_ns=1_000_000_000)
    result = run(call(1, 0) + call(2, 1000), config=config, width=512)
    first, second = result.reports
    assert first.stream.index == second.stream.index
    assert first.stream.serial != second.stream.serial
    assert list(result.noise) == [first.stream.serial]
    assert [r.stream.codec_guessed for r in (first, second)] == [True, True]
    assert [r.undecoded for r in (first, second)] == [5, 5]
