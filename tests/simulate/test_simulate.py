"""Simulated traffic: the same by seed, what its truth says it is, and the same on the wire and in a file."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import shutil
import socket
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import pcmu

from strep import Direction, Leg, ParseError, parse_datagram
from strep._codecs.facts import parse_codec
from strep._codecs.g711 import encode
from strep._codecs.payload_types import PayloadTypes
from strep._edge.pcap import PcapReader
from strep._edge.udp.address import parse_address
from strep._engine.engine import Engine, EngineConfig
from strep._model.blocks import BlockBatch
from strep._model.events import Ended, Started
from strep._model.exceptions import AddressError, ConfigurationError
from strep.simulate import Impairments, Traffic, make_traffic, play, simulate
from strep.simulate import load as load_module
from strep.simulate._sendmmsg import BatchSender
from strep.simulate.load import call_leg_id_of, expected_payload, expected_samples, main, send_load
from strep.simulate.schedule import PATTERNS, Even, Listed, make_schedule, truth_of
from strep.simulate.speech import bundled_voices, read_voices, read_wav

pytestmark = pytest.mark.realtime

LINUX = sys.platform == "linux"
EVERY_TROUBLE = Impairments(loss=0.05, duplicate=0.05, reorder=0.05, jitter_ms=5, protect_first=2)


def all_bytes(traffic: Traffic, *, strep: bool = True) -> list[bytes]:
    return [row.tobytes() for row in traffic.datagrams(slice(None), strep=strep)]


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_packets_at_the_same_times():
    one, two = (make_traffic(duration_s=1, impairments=EVERY_TROUBLE, seed=5) for _ in range(2))
    assert all_bytes(one) == all_bytes(two)
    assert one.time_ns.tolist() == two.time_ns.tolist()


def test_another_seed_or_none_makes_others():
    ids = {make_traffic(calls=1, duration_s=0.1, seed=seed).truth[0].call_leg_id for seed in (1, 2, None, None)}
    assert len(ids) == 4


def test_call_leg_ids_are_of_version_1_as_real_ones_are():
    traffic = make_traffic(duration_s=0.02)
    assert {t.call_leg_id.version for t in traffic.truth} == {1}
    assert len({t.call_leg_id for t in traffic.truth}) == 3


@given(
    seed=st.integers(0, 2**32),
    packets=st.integers(1, 40),
    loss=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    jitter_ms=st.floats(0, 100),
    protect_first=st.integers(0, 3),
    legs=st.sampled_from(["a", "both"]),
)
@settings(max_examples=60, deadline=None)
def test_truth_is_what_counting_the_datagrams_gives(seed: int, packets: int, legs: str, **trouble: Any):
    traffic = make_traffic(calls=2, duration_s=packets / 50, impairments=Impairments(**trouble), legs=legs, seed=seed)
    assert np.all(np.diff(traffic.time_ns) >= 0)
    seen: dict[int, list[int]] = {}
    truth_of = {t.ssrc: t for t in traffic.truth}
    for data in all_bytes(traffic):
        packet = parse_datagram(data)
        truth = truth_of[packet.ssrc]
        assert (packet.call_leg_id, packet.leg, packet.direction) == truth.key
        number = (packet.sequence_number - truth.first_sequence) & 0xFFFF
        assert packet.rtp_timestamp == (truth.first_timestamp + 160 * number) & 0xFFFFFFFF
        assert packet.marker == (number == 0)
        assert pcmu(packet.payload).tolist() == truth.samples[160 * number :][:160].tolist()
        seen.setdefault(packet.ssrc, []).append(number)
    for truth in traffic.truth:
        numbers = seen.get(truth.ssrc, [])
        unique = set(numbers)
        firsts = list(dict.fromkeys(numbers))  # without copies
        expected = max(unique) - min(unique) + 1 if unique else 0
        assert set(np.flatnonzero(truth.sent).tolist()) == unique
        assert truth.packets == len(unique)
        assert truth.duplicates == len(numbers) - len(unique)
        assert truth.expected == expected
        assert truth.lost == expected - len(unique)
        assert truth.rfc3550_lost == expected - len(numbers)
        assert truth.reordered == sum(n < max(firsts[:i], default=-1) for i, n in enumerate(firsts))
        assert truth.sent[: trouble["protect_first"]].all()
        assert truth.audio().size == 160 * expected


def test_lost_packets_are_silent_in_the_true_audio():
    truth = make_traffic(calls=1, duration_s=2, impairments=Impairments(loss=0.3, protect_first=1), seed=1).truth[0]
    packets, played = truth.samples.reshape(-1, 160), truth.audio().reshape(-1, 160)
    for k in range(len(played)):
        assert played[k].tolist() == (packets[k].tolist() if truth.sent[k] else [0] * 160)


def test_without_trouble_streams_are_spread_evenly_over_the_packet_time():
    traffic = make_traffic(calls=5, duration_s=0.1)
    assert np.diff(traffic.time_ns).tolist() == [2_000_000] * (len(traffic) - 1)
    together = make_traffic(calls=5, duration_s=0.1, in_phase=True)
    assert together.time_ns.tolist() == np.repeat(np.arange(5) * 20_000_000, 10).tolist()


def test_a_fast_clock_sends_earlier():
    for ppm in (200, -200):
        traffic = make_traffic(calls=1, duration_s=20, drift_ppm=ppm, in_phase=True)
        assert abs(int(traffic.time_ns[-1]) - 999 * 20_000_000 / (1 + ppm / 1e6)) <= 1


def test_jitter_shorter_than_the_packet_time_delays_and_never_reorders():
    calm = make_traffic(calls=2, duration_s=4, seed=3)
    shaken = make_traffic(calls=2, duration_s=4, impairments=Impairments(jitter_ms=19), seed=3)
    for s in range(4):
        mine = shaken.stream == s
        delay = shaken.time_ns[mine] - calm.time_ns[calm.stream == s]
        assert shaken.number[mine].tolist() == list(range(200))
        assert 0 <= delay.min() < 1_000_000
        assert 18_000_000 < delay.max() < 19_000_000
        assert shaken.truth[s].reordered == 0


def test_a_reordered_packet_falls_one_to_three_places_back():
    traffic = make_traffic(calls=1, duration_s=20, impairments=Impairments(reorder=0.01), seed=4)
    for s, truth in enumerate(traffic.truth):
        numbers = traffic.number[traffic.stream == s]
        fell = [int(np.sum(numbers[:place] > n)) for place, n in enumerate(numbers.tolist())]
        held = [f for f in fell if f]
        assert truth.reordered == len(held) > 3
        assert set(held) == {1, 2, 3}


def test_bursts_keep_the_loss_and_have_the_length_asked_for():
    trouble = Impairments(loss=0.1, burst=5)
    lost = [~t.sent for t in make_traffic(calls=5, duration_s=100, impairments=trouble, seed=1).truth]
    runs = sum(int(stream[0]) + int((stream[1:] & ~stream[:-1]).sum()) for stream in lost)
    total = sum(int(stream.sum()) for stream in lost)
    assert 0.09 < total / (10 * 5000) < 0.11
    assert 4.6 < total / runs < 5.4


def test_everything_lost_is_no_traffic():
    traffic = make_traffic(duration_s=1, impairments=Impairments(loss=1))
    assert len(traffic) == 0
    assert [(t.expected, t.lost, t.audio().size) for t in traffic.truth] == [(0, 0, 0)] * 6
    assert traffic.datagrams(slice(None), strep=True).shape == (0, 196)


def test_leg_b_hears_what_leg_a_says():
    a_in, a_out, b_in, b_out = make_traffic(calls=1, duration_s=3, legs="both").truth
    assert len({t.call_leg_id for t in (a_in, a_out, b_in, b_out)}) == 1
    assert [(t.leg, t.direction) for t in (a_in, a_out, b_in, b_out)] == [(g, d) for g in Leg for d in Direction]
    assert a_in.samples.tolist() == b_out.samples.tolist() != a_out.samples.tolist() == b_in.samples.tolist()
    assert len({t.ssrc for t in (a_in, a_out, b_in, b_out)}) == 4


def test_calls_begin_at_different_places_of_the_dialogue():
    streams = [t.samples.tobytes() for t in make_traffic(calls=4, duration_s=8).truth]
    assert len(set(streams)) == 8


@pytest.mark.parametrize(
    ("codec", "payload_type", "length"),
    [("PCMU", 0, 160), ("pcma", 8, 160), ("L16", 96, 640), ("L16/44100/2", 96, 3528), ("L16/8000", 96, 320)],
)
def test_codecs_and_their_payload_types(codec: str, payload_type: int, length: int):
    traffic = make_traffic(calls=1, duration_s=0.1, codec=codec)
    packet = parse_datagram(all_bytes(traffic)[0])
    assert packet.payload_type == payload_type
    assert len(packet.payload) == length
    assert traffic.frames_a_packet == traffic.codec.clock_rate // 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls": 0},
        {"duration_s": 0},
        {"duration_s": float("nan")},
        {"ptime_ms": 0.1},
        {"ptime_ms": 0},
        {"ptime_ms": 1000, "codec": "L16/192000/2"},
        {"codec": "EVS"},
        {"codec": "G729", "ptime_ms": 15},
        {"dtmf": "12X"},
        {"dtmf": "1", "dtmf_at_s": -1},
        {"dtmf": "123", "duration_s": 1.2},
        {"dtmf": "1", "payload_type": 101},
        {"payload_type": 72},
        {"payload_type": 128},
        {"drift_ppm": -1e6},
        {"legs": "b"},
        {"seed": -1},
        {"voices": (np.zeros(0, np.int16), np.zeros(4, np.int16))},
    ],
)
def test_wrong_traffic_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        make_traffic(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.1},
        {"duplicate": -0.1},
        {"reorder": float("nan")},
        {"jitter_ms": -1},
        {"protect_first": -1},
        {"loss": 0.1, "burst": 0.5},
        {"loss": 0.8, "burst": 2},
    ],
)
def test_wrong_impairments_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        Impairments(**wrong)


# --- a receiver finds the truth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "L16"])
def test_the_engine_reports_the_truth_and_has_the_true_audio(codec: str):
    traffic = make_traffic(calls=12, duration_s=8, codec=codec, legs="both", impairments=EVERY_TROUBLE, seed=11)
    wraps = [t for t in traffic.truth if t.first_sequence + 400 > 0x10000]
    assert wraps, "choose a seed with a stream whose sequence numbers wrap"
    engine = Engine(EngineConfig(payload_types=PayloadTypes({96: "L16/16000"})))
    parts: dict[int, list[np.ndarray[Any, Any]]] = {}
    keys, reports = {}, {}
    for events in [*(engine.receive(batch) for batch in traffic.batches()), engine.flush()]:
        for event in events:
            if isinstance(event, Started):
                keys[event.stream.serial] = (event.stream.call_leg_id, event.stream.leg, event.stream.direction)
            elif isinstance(event, Ended):
                reports[keys[event.stream.serial]] = event.report
            elif isinstance(event, BlockBatch):
                for block in event:
                    if block.gap:
                        parts.setdefault(block.stream.serial, []).append(np.zeros(block.gap.samples, np.int16))
                    parts.setdefault(block.stream.serial, []).append(block.samples)
    audio = {keys[serial]: np.concatenate(blocks) for serial, blocks in parts.items()}
    assert engine.totals().unaccounted == 0
    assert engine.totals().datagrams == len(traffic)
    assert len(reports) == len(traffic.truth) == 48
    for truth in traffic.truth:
        report = reports[truth.key]
        assert (
            report.packets_received,
            report.packets_expected,
            report.packets_lost,
            report.rfc3550_lost,
            report.duplicates,
            report.reordered,
            report.late,
        ) == (
            truth.packets + truth.duplicates,
            truth.expected,
            truth.lost,
            truth.rfc3550_lost,
            truth.duplicates,
            truth.reordered,
            0,
        )
        assert np.array_equal(audio[truth.key], truth.audio())


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strep", [True, False])
def test_a_pcap_holds_the_same_datagrams_at_the_same_times(tmp_path: Path, strep: bool):
    traffic = make_traffic(calls=3, duration_s=2, impairments=EVERY_TROUBLE, seed=2)
    assert traffic.write_pcap(tmp_path / "t.pcap", strep=strep, tx_port=9002) == len(traffic)
    data, times, ports, sources = [], [], [], []
    with PcapReader(tmp_path / "t.pcap") as reader:
        for batch in reader.batches():
            data += [batch.data(i) for i in range(len(batch))]
            times += batch.arrival_ns.tolist()
            ports += batch.local_port.tolist()
            sources += batch.source_port.tolist()
    assert data == all_bytes(traffic, strep=strep)
    assert times == (1_700_000_000_000_000_000 + traffic.time_ns).tolist()
    outbound = 9000 if strep else 9002
    assert ports == np.where(traffic.stream % 2, outbound, 9000).tolist()
    assert sources == (20_000 + traffic.stream // 2).tolist()


@pytest.mark.witness
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("duplicate", [0.0, 0.05])
def test_tshark_sees_the_true_streams_and_their_loss(tmp_path: Path, duplicate: float):
    trouble = Impairments(loss=0.05, duplicate=duplicate, reorder=0.02, protect_first=1)
    traffic = make_traffic(calls=3, duration_s=6, impairments=trouble, seed=8)
    path = tmp_path / "plain.pcap"
    traffic.write_pcap(path, strep=False, tx_port=9002)
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", "rtp,streams"]
    for port in (9000, 9002):
        command += ["-d", f"udp.port=={port},rtp"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {}
    row = r"192\.0\.2\.1\s+(\d+)\s+127\.0\.0\.1\s+(\d+)\s+0x([0-9A-F]{8})\s+(\S+)\s+(\d+)\s+(-?\d+)"
    for source, port, ssrc, codec, packets, lost in re.findall(row, out):
        found[int(ssrc, 16)] = (int(source), int(port), codec, int(packets), int(lost))
    expected = {}
    for i, t in enumerate(traffic.truth):
        numbers = traffic.number[traffic.stream == i]
        # tshark counts up to the packet that came last, also where that is not the highest
        lost = t.rfc3550_lost - int(numbers.max() - numbers[-1])
        expected[t.ssrc] = (20_000 + i // 2, (9000, 9002)[t.direction], "g711U", t.packets + t.duplicates, lost)
    assert found == expected
    assert sum(t.lost for t in traffic.truth) > 20


# --- over UDP ---------------------------------------------------------------------------------------------------------


def listener() -> tuple[socket.socket, str]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(100)
    return sock, f"udp:127.0.0.1:{sock.getsockname()[1]}"


def received(sock: socket.socket, count: int) -> list[bytes]:
    with sock:
        data = [sock.recv(65_536) for _ in range(count)]
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(65_536)
        return data


async def test_strep_arrives_byte_for_byte_and_paced():
    traffic = make_traffic(calls=2, duration_s=0.3, impairments=EVERY_TROUBLE, seed=9)
    sock, to = listener()
    parts: list[float] = []
    report = await play(traffic, to, progress=parts.append)
    assert received(sock, len(traffic)) == all_bytes(traffic)
    assert (report.datagrams, report.refused) == (len(traffic), 0)
    assert report.streams == traffic.truth
    assert report.lost == sum(t.lost for t in traffic.truth)
    assert report.duplicates == sum(t.duplicates for t in traffic.truth)
    assert report.elapsed_s >= traffic.time_ns[-1] / 1e9  # never early
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert len(parts) > 1  # not all at once


async def test_plain_rtp_goes_to_the_port_of_its_direction():
    rx, rx_to = listener()
    tx, tx_to = listener()
    report = await simulate(rx_to=rx_to, tx_to=tx_to, calls=2, duration_s=0.1, codec="PCMA", seed=6)
    traffic = make_traffic(calls=2, duration_s=0.1, codec="PCMA", seed=6)
    plain = all_bytes(traffic, strep=False)
    assert received(rx, 10) == [d for d, s in zip(plain, traffic.stream, strict=True) if s % 2 == 0]
    assert received(tx, 10) == [d for d, s in zip(plain, traffic.stream, strict=True) if s % 2 == 1]
    assert (report.datagrams, len(report.streams)) == (20, 4)


async def test_a_direction_without_a_receiver_is_not_in_the_truth():
    tx, tx_to = listener()
    report = await simulate(tx_to=tx_to, calls=2, duration_s=0.1)
    assert len(received(tx, 10)) == report.datagrams == 10
    assert [t.direction for t in report.streams] == [Direction.OUTBOUND] * 2


@pytest.mark.skipif(not LINUX, reason="other systems tell of refused datagrams in other ways")
async def test_datagrams_that_nobody_listened_to_are_told():
    sock, to = listener()
    sock.close()
    report = await simulate(to, calls=1, duration_s=0.2)
    assert report.datagrams + report.refused == 20
    assert report.refused > 0


async def test_everything_lost_ends_at_once():
    parts: list[float] = []
    sock, to = listener()
    report = await simulate(to, duration_s=1000, ptime_ms=1000, loss=1, progress=parts.append)
    assert received(sock, 0) == []
    assert (report.datagrams, report.lost, parts) == (0, 0, [1.0])


async def test_a_cancelled_simulation_stops():
    sock, to = listener()
    task = asyncio.create_task(simulate(to, calls=1, duration_s=60))
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_recv(sock, 2048)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    sock.close()


async def test_a_simulation_needs_somebody_to_send_to():
    with pytest.raises(ConfigurationError, match="rx_to"):
        await simulate()
    with pytest.raises(AddressError):
        await simulate("localhost")
    with pytest.raises(ConfigurationError, match="port 0"):
        await simulate("udp:127.0.0.1:0")


# --- voices -----------------------------------------------------------------------------------------------------------


def test_the_bundled_voices_talk_in_turn():
    caller, agent = bundled_voices()
    assert caller.size == agent.size
    assert 6 * 8000 <= caller.size <= 8 * 8000
    whole = caller.size // 160 * 160
    loud = [np.abs(v[:whole].reshape(-1, 160).astype(int)).max(axis=1) > 200 for v in (caller, agent)]
    assert not (loud[0] & loud[1]).any()
    assert all(0.25 < voice.mean() < 0.6 for voice in loud)
    speakers = [s for s in np.where(loud[0], 1, np.where(loud[1], 2, 0)).tolist() if s]
    assert [s for i, s in enumerate(speakers) if i == 0 or speakers[i - 1] != s] == [1, 2, 1, 2]


def test_the_bundled_voices_are_small_and_come_at_any_rate():
    assert sum(v.nbytes + 44 for v in bundled_voices()) < 300 * 1024
    assert [v.size for v in bundled_voices(16_000)] == [2 * v.size for v in bundled_voices()]


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate: int = 8000, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2" if width == 2 else "u1").tobytes())
    return path


async def test_a_file_is_spoken_left_inbound_and_right_outbound(tmp_path: Path):
    left, right = np.arange(-400, 400) * 20, np.arange(400, -400, -1) * 10
    path = write_wav(tmp_path / "talk.wav", np.column_stack([left, right]))
    sock, to = listener()
    report = await simulate(to, calls=1, duration_s=0.1, file=path, codec="L16/8000")
    received(sock, 10)
    assert report.streams[0].samples.tolist() == left.tolist()
    assert report.streams[1].samples.tolist() == right.tolist()


def test_a_mono_file_is_for_both_and_may_have_another_rate(tmp_path: Path):
    path = write_wav(tmp_path / "mono.wav", np.zeros(44_100), 44_100)
    inbound, outbound = read_voices(path, 8000)
    assert inbound.size == outbound.size == 8000
    assert read_wav(path, 8000).dtype == np.int16


@pytest.mark.parametrize("kind", ["missing", "text", "eight bits", "empty"])
def test_other_files_are_refused(tmp_path: Path, kind: str):
    path = tmp_path / "x.wav"
    if kind == "text":
        path.write_text("hello")
    elif kind == "eight bits":
        write_wav(path, np.zeros(8), width=1)
    elif kind == "empty":
        write_wav(path, np.zeros(0))
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        read_wav(path, 8000)


# --- load -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segment",
    [False, pytest.param(True, marks=pytest.mark.skipif(not LINUX, reason="UDP segmentation offload is Linux's"))],
)
def test_every_packet_of_a_load_is_the_one_the_checker_expects(segment: bool):
    sock, to = listener()
    report = send_load(to, streams=7, rate=1200, duration_s=0.2, segment=segment, seed=4)
    assert (report.sent, report.streams, report.packets_a_stream, report.refused) == (238, 7, 34, 0)
    payloads: dict[int, list[bytes]] = {}
    for i, data in enumerate(received(sock, 238)):
        packet = parse_datagram(data)
        k, stream = divmod(i, 7)
        assert (packet.sequence_number, packet.rtp_timestamp, packet.ssrc) == (k, 160 * k, stream + 1)
        assert (packet.call_leg_id, packet.leg, packet.direction) == (call_leg_id_of(stream), Leg.A, stream % 2)
        payloads.setdefault(stream, []).append(packet.payload)
    for stream, blocks in payloads.items():
        assert b"".join(blocks) == expected_payload(stream, 34, 4).tobytes()
        assert pcmu(b"".join(blocks)).tolist() == expected_samples(stream, 34, 4).tolist()


def test_streams_and_seeds_have_payloads_of_their_own():
    texts = {expected_payload(s, 3, seed).tobytes() for s in range(20) for seed in (1, 2)}
    assert len(texts) == 40
    assert len({call_leg_id_of(s) for s in range(20)}) == 10


def test_sequence_numbers_and_timestamps_of_a_long_load_wrap():
    even = Even(1, 1.0, 0x10000 * 411)
    slab, lengths = load_module.PacketWriter(even, 0).write(*even.packets(0x10000 * 410 - 1, 0x10000 * 410 + 1))
    assert lengths.tolist() == [196, 196]
    last, first = (parse_datagram(row.tobytes()) for row in slab)
    assert (last.sequence_number, first.sequence_number) == (0xFFFF, 0)
    assert (last.rtp_timestamp, first.rtp_timestamp) == ((0x10000 * 410 - 1) * 160 % 2**32, 0x10000 * 410 * 160 % 2**32)
    assert first.payload == expected_payload(0, 0x10000 * 410 % 997 + 1, 0)[-160:].tobytes()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_schedule_is_sent_as_it_says_and_its_truth_is_what_the_datagrams_tell(pattern: str):
    load = {"streams": 8, "rate": 400.0, "duration_s": 8.0, "churn": 2.0}
    schedule = make_schedule(pattern, **load)
    assert schedule.total == pytest.approx(3200, rel=0.1)
    times = [schedule.intended_s(i) for i in range(schedule.total)]
    assert times == sorted(times)
    assert all(schedule.due(t + 1e-9) >= i + 1 for i, t in enumerate(times))
    writer = load_module.PacketWriter(schedule, 5)
    received: Counter[int] = Counter()
    numbers: dict[int, list[int]] = {}
    bad = 0
    for begin in range(0, schedule.total, 1000):
        end = min(begin + 1000, schedule.total)
        stream, number, _ = schedule.packets(begin, end)
        slab, lengths = writer.write(stream, number, schedule.packets(begin, end)[2])
        for row, length, s, k in zip(slab, lengths.tolist(), stream.tolist(), number.tolist(), strict=True):
            try:
                packet = parse_datagram(row[:length].tobytes())
            except ParseError:
                bad += 1
                continue
            frames = int(schedule.shape.frames[s])
            assert packet.call_leg_id == call_leg_id_of(s)
            assert packet.payload == expected_payload(s, k + 1, 5, frames)[-frames:].tobytes()
            assert packet.sequence_number == (int(schedule.shape.first_sequence[s]) + k) % 65_536
            assert packet.rtp_timestamp == (int(schedule.shape.first_timestamp[s]) + k * frames) % 2**32
            received[s] += 1
            numbers.setdefault(s, []).append(k)
    truth = truth_of(schedule)
    assert truth.malformed == bad
    assert (bad > 0) == (pattern == "impaired")
    for s, ks in numbers.items():
        seen: set[int] = set()
        highest, reordered = -1, 0
        for k in ks:
            reordered += k < highest and k not in seen
            highest = max(highest, k)
            seen.add(k)
        assert truth.received[s] == received[s]
        assert truth.duplicates[s] == len(ks) - len(seen)
        assert truth.reordered[s] == reordered
        assert truth.lost[s] == highest + 1 - len(seen)
    total = (truth.duplicates.sum(), truth.reordered.sum(), truth.lost.sum())
    assert all(total) if pattern == "impaired" else not any(total)


def test_churn_keeps_as_many_streams_alive():
    schedule = make_schedule("churn", streams=100, rate=5000, duration_s=6, churn=40)
    assert isinstance(schedule, Listed)
    for second in range(1, 6):
        here = (schedule.time_s >= second) & (schedule.time_s < second + 0.1)
        assert len(set(schedule.stream[here].tolist())) == pytest.approx(100, abs=6)
    assert len(set(schedule.stream.tolist())) == pytest.approx(300, abs=12)


@pytest.mark.parametrize("vectored", [True, False])
def test_plain_load_goes_to_a_port_a_stream(monkeypatch: pytest.MonkeyPatch, vectored: bool):
    if not vectored:
        monkeypatch.setattr("strep.simulate._sendmmsg.recvmmsg_available", lambda: False)
    first, to = listener()
    port = int(to.rpartition(":")[2])
    second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        second.bind(("127.0.0.1", port + 2))
    except OSError:
        pytest.skip("the port next to the free one is not free")
    second.settimeout(100)
    report = send_load(to, streams=2, rate=2000, duration_s=0.05, plain=True, port_a_stream=True)
    assert (report.sent, report.packets_a_stream) == (100, 50)
    for stream, sock in enumerate((first, second)):
        packets = [parse_datagram(sock.recv(2048)) for _ in range(50)]
        assert all(p.call_leg_id is None and p.ssrc == stream + 1 for p in packets)
        assert [(p.sequence_number, p.rtp_timestamp) for p in packets] == [(k, 160 * k) for k in range(50)]
        assert b"".join(p.payload for p in packets) == expected_payload(stream, 50).tobytes()
        sock.close()


@pytest.mark.parametrize(
    ("to", "arguments", "text"),
    [
        ("udp:[::1]:20000", {}, "IPv4"),
        ("udp:127.0.0.1:65000", {"streams": 1000}, "too few"),
        ("udp:127.0.0.1:20000", {"segment": True}, "one port"),
    ],
)
def test_a_port_a_stream_says_what_it_cannot_do(to: str, arguments: dict, text: str):
    with pytest.raises(ConfigurationError, match=text):
        send_load(to, **{"streams": 2, "rate": 1000, "duration_s": 1, "port_a_stream": True, **arguments})


def test_the_load_program_prints_json(capsys: pytest.CaptureFixture[str]):
    sock, to = listener()
    assert main(["--to", to, "--streams", "4", "--rate", "2000", "--duration", "0.1", "--verify-seed", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sent"] == 200
    assert parse_datagram(received(sock, 200)[4]).payload == expected_payload(0, 2, 3)[160:].tobytes()


def test_the_load_program_says_when_it_was_the_limit(capsys: pytest.CaptureFixture[str]):
    sock, to = listener()
    assert main(["--to", to, "--streams", "4", "--rate", "9e8", "--duration", "0.000001"]) == 0
    sock.close()
    out, err = capsys.readouterr()
    assert json.loads(out)["generator_was_the_limit"] is True
    assert "The generator was the limit" in err


@pytest.mark.parametrize(
    "wrong",
    [["--streams", "0"], ["--rate", "-1"], ["--duration", "0.0001"], ["--to", "nowhere"], ["--verify-seed", "-1"]],
)
def test_the_load_program_refuses_nonsense(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(wrong) == 2
    assert capsys.readouterr().err.startswith("strep.simulate.load: ")


def test_speech_survives_its_coding():
    """The truth is what a receiver decodes, which G.711 makes differ from what was said by at most half a step."""
    voice = bundled_voices()[0][:8000]
    truth = make_traffic(calls=1, duration_s=1, codec="PCMU").truth[0]
    assert truth.samples.tolist() == pcmu(encode(parse_codec("PCMU"), voice).tobytes()).tolist()
    error = np.abs(truth.samples.astype(int) - voice)
    assert np.all(error <= np.maximum(4, np.abs(voice.astype(int)) / 16))


@pytest.mark.parametrize("vectored", [True, False])
def test_datagrams_that_nobody_takes_are_counted(vectored: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        sender = BatchSender(parse_address(f"127.0.0.1:{taker.getsockname()[1]}"), rows=16)
        if vectored and not sender._vectored:
            pytest.skip("sendmmsg is not available here")
        sender._vectored = vectored
        slab, lengths = np.zeros((40, 32), np.uint8), np.full(40, 32)
        assert sender.send(slab, lengths) == 40
        for _ in range(40):
            assert len(taker.recv(100)) == 32
    # an ICMP answer refuses the send after the one that nobody took
    sent = [sender.send(slab, lengths) for _ in range(3)]
    sender.close()
    assert all(0 <= n < 40 for n in sent)


def test_an_address_that_cannot_be_reached_leaves_no_socket() -> None:
    with pytest.raises(OSError, match=r"nreachable|nvalid|ermission"):
        BatchSender(parse_address("255.255.255.255:9"))
    gc.collect()  # an open socket would warn, and warnings are errors
