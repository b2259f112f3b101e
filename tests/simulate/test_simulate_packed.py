"""Simulated calls of packed codecs, and keys that are pressed in them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from strep import parse_datagram
from strep._codecs.counts import frame_count
from strep._codecs.decoder import make_decoder
from strep._codecs.encoder import make_encoder
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import Engine, EngineConfig
from strep._model.blocks import BlockBatch
from strep._model.events import Ended
from strep._model.exceptions import ConfigurationError, MissingExtraError
from strep._model.types import Direction
from strep._parser import Packet
from strep.cli import cli
from strep.simulate import Impairments, Traffic, make_traffic

pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")

CODECS = [
    ("G722", 9, 20), ("G722", 9, 10), ("opus", 111, 20), ("opus/48000/2", 111, 60), ("AMR", 97, 20),
    ("AMR;octet-align=1", 97, 40), ("AMR-WB", 98, 20), ("G729", 18, 20), ("GSM", 3, 20),
]  # fmt: skip


def packets_of(traffic: Traffic, stream: int, *, strep: bool = True) -> list[Packet]:
    """A stream's packets in order of sending, as their datagrams are read."""
    rows = np.flatnonzero(traffic.stream == stream)
    slab, lengths = traffic.datagrams(rows, strep=strep), traffic.lengths(rows, strep=strep)
    return [parse_datagram(row[:length].tobytes()) for row, length in zip(slab, lengths, strict=True)]


def or_skip(spelled: str) -> None:
    codec = parse_codec(spelled)
    try:
        make_encoder(codec, codec.sample_rate // 50)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("codec", "payload_type", "ptime_ms"), CODECS)
def test_calls_of_packed_codecs(codec: str, payload_type: int, ptime_ms: int) -> None:
    or_skip(codec)
    traffic = make_traffic(calls=2, duration_s=2.4, codec=codec, ptime_ms=ptime_ms, seed=1)
    chosen = traffic.codec
    units = chosen.clock_rate * ptime_ms // 1000
    assert traffic.frames_a_packet == units
    assert len(traffic.truth) == 4
    for stream, truth in enumerate(traffic.truth):
        packets = packets_of(traffic, stream)
        assert len(packets) == truth.packets == 2400 // ptime_ms
        decoder = make_decoder(chosen)
        heard = []
        for number, packet in enumerate(packets):
            assert packet.payload_type == payload_type
            assert packet.marker == (number == 0)
            assert packet.sequence_number == (truth.first_sequence + number) & 0xFFFF
            assert packet.rtp_timestamp == (truth.first_timestamp + number * units) & 0xFFFF_FFFF
            frames = frame_count(chosen, packet.payload)
            assert frames * chosen.channels == truth.frames_a_packet
            heard.append(decoder.decode(packet.payload, frames)[0])
        assert truth.samples.tolist() == truth.audio().tolist() == np.concatenate(heard).tolist()
        assert len(truth.samples) == 2.4 * chosen.sample_rate * chosen.channels
    assert max(np.abs(t.samples.astype(int)).max() for t in traffic.truth) > 3000
    assert len({t.samples.tobytes() for t in traffic.truth}) == 4


def test_payloads_may_differ_in_length() -> None:
    traffic = make_traffic(calls=1, codec="opus", seed=2)
    lengths = traffic.lengths(slice(None), strep=False)
    assert len(set(lengths.tolist())) > 20
    batch_lengths = np.concatenate([batch.length for batch in traffic.batches(strep=False)])
    assert batch_lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("codec", ["opus", "AMR", "G722"])
def test_what_was_lost_is_silent_and_told_to_the_decoder(codec: str) -> None:
    traffic = make_traffic(calls=1, duration_s=3, codec=codec, impairments=Impairments(loss=0.2), seed=3)
    truth = traffic.truth[0]
    assert 10 < truth.lost < 60
    packets = {(p.sequence_number - truth.first_sequence) & 0xFFFF: p for p in packets_of(traffic, 0)}
    assert sorted(packets) == np.flatnonzero(truth.sent).tolist()
    decoder = make_decoder(traffic.codec)
    frames = truth.frames_a_packet
    played = truth.samples.reshape(-1, frames)
    last = min(packets) - 1
    for number in range(len(played)):
        if number not in packets:
            assert not played[number].any()
            continue
        audio, _ = decoder.decode(packets[number].payload, frames, (number - last - 1) * frames)
        assert played[number].tolist() == audio.tolist()
        last = number


def test_many_calls_of_a_packed_codec_share_what_they_say() -> None:
    traffic = make_traffic(calls=20, duration_s=1, codec="G722", seed=4)
    said = [t.payloads.tobytes() for t in traffic.truth if t.direction is Direction.INBOUND]
    assert said[0] == said[8] == said[16] != said[1]
    assert len({t.ssrc for t in traffic.truth}) == 40


@pytest.mark.parametrize("codec", [codec for codec, _, ptime_ms in CODECS if ptime_ms != 10])
def test_the_engine_finds_the_true_audio(codec: str) -> None:
    """With loss, copies and reordering: every sample, so the decoders were told of the same losses."""
    or_skip(codec)
    ptime_ms = next(ptime_ms for name, _, ptime_ms in CODECS if name == codec)
    trouble = Impairments(loss=0.05, duplicate=0.05, reorder=0.05, protect_first=5)
    traffic = make_traffic(calls=2, duration_s=5, codec=codec, ptime_ms=ptime_ms, impairments=trouble, seed=8)
    engine = Engine(EngineConfig(payload_types=PayloadTypes({traffic.payload_type: str(traffic.codec)})))
    parts: dict[object, list[np.ndarray]] = {}
    reports = {}
    for events in [*(engine.receive(batch) for batch in traffic.batches()), engine.flush()]:
        for event in events:
            if isinstance(event, Ended):
                stream = event.report.stream
                reports[stream.call_leg_id, stream.leg, stream.direction] = event.report
            elif isinstance(event, BlockBatch):
                for block in event:
                    key = (block.stream.call_leg_id, block.stream.leg, block.stream.direction)
                    heard = parts.setdefault(key, [])
                    if block.gap:
                        heard.append(np.zeros(block.gap.samples * traffic.codec.channels, np.int16))
                    heard.append(block.samples.reshape(-1))
    assert engine.totals().unaccounted == 0
    for truth in traffic.truth:
        report = reports[truth.key]
        assert (report.packets_expected, report.packets_lost) == (truth.expected, truth.lost)
        assert str(report.stream.codec) == str(traffic.codec)
        np.testing.assert_array_equal(np.concatenate(parts[truth.key]), truth.audio())
    assert sum(t.lost for t in traffic.truth) > 5


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "ptime_ms", "legs"), [("PCMU", 20, "both"), ("PCMA", 30, "a"), ("L16/44100", 20, "a"), ("opus", 60, "a")]
)
def test_keys_are_events_that_replace_the_audio(codec: str, ptime_ms: int, legs: str) -> None:
    """RFC 4733 2.5.1: one timestamp, marker on the first, growing duration, three packets that end it."""
    options = {"calls": 1, "duration_s": 6, "codec": codec, "ptime_ms": ptime_ms, "legs": legs, "seed": 5}
    traffic = make_traffic(**options, dtmf="1#d", dtmf_at_s=1.2)  # type: ignore[arg-type]
    plain = make_traffic(**options)  # type: ignore[arg-type]
    units = traffic.frames_a_packet
    tone = max(1, round(100 / ptime_ms))
    pressed = [s for s, t in enumerate(traffic.truth) if t.keys]
    assert pressed == ([0, 3] if legs == "both" else [0])
    for stream, truth in enumerate(traffic.truth):
        packets, others = packets_of(traffic, stream), packets_of(plain, stream)
        if stream not in pressed:
            assert packets == others
            continue
        assert [k.key for k in truth.keys] == ["1", "#", "D"]
        at_event = set()
        for key, event in zip(truth.keys, (1, 11, 15), strict=True):
            assert key.packets == tone + 2
            assert key.duration_s == pytest.approx(tone * ptime_ms / 1000)
            for k in range(key.packets):
                number = key.first + k
                at_event.add(number)
                packet = packets[number]
                assert (packet.payload_type, packet.marker) == (101, k == 0)
                assert packet.sequence_number == others[number].sequence_number
                assert packet.rtp_timestamp == others[key.first].rtp_timestamp
                assert len(packet.payload) == 4
                assert packet.payload[0] == event
                assert packet.payload[1] >> 7 == (k >= tone - 1)
                assert int.from_bytes(packet.payload[2:], "big") == min(k + 1, tone) * units
        assert truth.keys[0].begin_s == pytest.approx(1.2)
        assert [n for n in range(len(packets)) if n not in at_event] == np.flatnonzero(truth.audible).tolist()
        for number in set(range(len(packets))) - at_event:
            assert packets[number] == others[number]
        samples = truth.samples.reshape(-1, truth.frames_a_packet)
        assert not samples[sorted(at_event)].any()
        if "opus" not in codec:
            kept = plain.truth[stream].samples.reshape(-1, truth.frames_a_packet)
            assert samples[truth.audible].tolist() == kept[truth.audible].tolist()
        assert (truth.expected, truth.lost) == (len(packets), 0)


@pytest.mark.witness
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_the_keys(tmp_path: Path) -> None:
    traffic = make_traffic(calls=1, duration_s=6, dtmf="0123456789*#ABCD"[:12], dtmf_at_s=0.5, seed=6)
    traffic.write_pcap(tmp_path / "a.pcap", strep=False, rx_port=9000, tx_port=9002)
    fields = ["-e", "rtpevent.event_id", "-e", "rtpevent.end_of_event", "-e", "rtpevent.duration"]
    command = ["tshark", "-r", str(tmp_path / "a.pcap"), "-d", "udp.port==9000,rtp", "-Y", "rtpevent", "-T", "fields"]
    out = subprocess.run([*command, *fields], capture_output=True, text=True, check=True).stdout
    read = [line.split("\t") for line in out.splitlines()]
    assert [int(event) for event, *_ in read] == [k for k in range(12) for _ in range(7)]
    assert [end in ("1", "True") for _, end, _ in read] == [k >= 4 for _ in range(12) for k in range(7)]
    assert [int(d) for *_, d in read] == [160 * min(k + 1, 5) for _ in range(12) for k in range(7)]


def test_the_command_sends_them() -> None:
    command = ["simulate", "--to", "udp:127.0.0.1:9", "--codec", "g722", "--json", "--calls", "1", "--duration", "0.5"]
    done = CliRunner().invoke(cli, [*command, "--dtmf", "7", "--dtmf-at", "0.1"])
    assert done.exit_code == 0
    streams = json.loads(done.stdout)["streams"]
    assert [s["dtmf"] for s in streams] == ["7", ""]
    assert [s["packets_expected"] for s in streams] == [25, 25]
    wrong = CliRunner().invoke(cli, [*command, "--dtmf", "x"])
    assert isinstance(wrong.exception, ConfigurationError)
    assert "there is no key 'X'" in str(wrong.exception)
