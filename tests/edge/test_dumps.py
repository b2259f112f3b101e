"""Files of packets alone: rtpdump and Janus' mjr, byte by byte as their writers' sources have it."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tshark_streams import rtp_streams

import strep
from strep._edge.pcap import PcapReader

T0_S = 1_700_000_000
TIMES = [k * 20 + random.Random(k).randrange(6) for k in range(150)]  # ms
PACKETS = [
    (ms, struct.pack("!BBHII", 0x80, 0, k, 160 * k, 7) + bytes([0xD5]) * 160)
    for k, ms in enumerate(TIMES)
    if k % 11 != 5
]
RTCP = struct.pack("!BBHI", 0x80, 201, 1, 7)


def rtpdump(packets: list[tuple[int, bytes]], *, kept: int = 1500) -> bytes:
    out = b"#!rtpplay1.0 10.0.0.2/9000\n" + struct.pack("!IIIHH", T0_S, 250_000, 0x0A00_0001, 40_000, 0)
    for ms, packet in packets:
        rtcp = 200 <= packet[1] <= 204
        out += struct.pack("!HHI", 8 + len(packet[:kept]), 0 if rtcp else len(packet), ms) + packet[:kept]
    return out


def mjr(packets: list[tuple[int, bytes]], version: int, kind: str = "a") -> bytes:
    if version == 0:
        name = {"a": b"audio", "v": b"video"}[kind]
        out = b"MEETECHO" + struct.pack("!H", 5) + name
    else:
        about = json.dumps({"t": kind, "c": "pcmu", "s": T0_S * 10**6 - 5, "u": T0_S * 10**6}).encode()
        out = b"MJR0000%d" % version + struct.pack("!H", len(about)) + about
    for ms, packet in packets:
        mark = b"MEET" + struct.pack("!I", ms) if version == 2 else b"MEETECHO"
        out += mark + struct.pack("!H", len(packet)) + packet
    return out


def replayed(tmp_path: Path, content: bytes) -> tuple[strep.StreamReport, strep.Replay]:
    path = tmp_path / "a.dump"
    path.write_bytes(content)
    replay = strep.replay(path)
    (report,) = replay.reports()
    assert replay.totals().unaccounted == 0
    return report, replay


def pcap_of(path: Path) -> Path:
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 101)]
    for ms, packet in PACKETS:
        udp = struct.pack("!4H", 40_000, 9000, 8 + len(packet), 0) + packet
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
        ns = 250_000_000 + ms * 1_000_000
        size = len(head + udp)
        out.append(struct.pack("<4I", T0_S + ns // 10**9, ns % 10**9, size, size) + head + udp)
    path.write_bytes(b"".join(out))
    return path


def test_rtpdump_is_as_the_capture_it_was_made_of(tmp_path: Path) -> None:
    report, replay = replayed(tmp_path, rtpdump([*PACKETS, (3000, RTCP)]))
    (wanted,) = strep.replay(pcap_of(tmp_path / "a.pcap")).reports()
    assert (report.packets_received, report.packets_lost) == (136, 14)
    assert report.as_dict() == wanted.as_dict()
    assert replay.totals().rejected_by == {"kind_rtcp": 1}


@pytest.mark.witness
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_rtpdump_as_tshark_tells_of_its_capture(tmp_path: Path) -> None:
    report, _ = replayed(tmp_path, rtpdump(PACKETS))
    packets, lost, mean, largest = rtp_streams(pcap_of(tmp_path / "a.pcap"))[7]
    assert (report.packets_received, report.packets_lost) == (packets, lost)
    assert (report.jitter_ms_mean, report.jitter_ms_max) == pytest.approx((mean, largest), rel=0.03)


def test_rtpdump_of_headers_alone(tmp_path: Path) -> None:
    """``rtpdump -F header`` keeps 12 bytes."""
    report, replay = replayed(tmp_path, rtpdump(PACKETS, kept=12))
    wanted, _ = replayed(tmp_path, rtpdump(PACKETS))
    assert (report.packets_received, report.packets_lost) == (wanted.packets_received, wanted.packets_lost)
    assert report.jitter_ms_mean == wanted.jitter_ms_mean > 0
    assert (report.samples, replay.capture["cut"]) == (0, len(PACKETS))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_mjr(tmp_path: Path, version: int) -> None:
    report, replay = replayed(tmp_path, mjr(PACKETS, version))
    wanted, _ = replayed(tmp_path, rtpdump(PACKETS))
    assert (report.packets_received, report.packets_lost) == (wanted.packets_received, wanted.packets_lost)
    assert report.samples == wanted.samples
    assert report.timed == (version == 2)
    if version == 2:
        assert report.jitter_ms_mean == pytest.approx(wanted.jitter_ms_mean)
        assert report.stream.first_arrival_ns == T0_S * 10**9 + TIMES[0] * 10**6
    else:
        assert replay.capture["untimed"] == len(PACKETS)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_mjr_of_video_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.mjr"
    path.write_bytes(mjr([], version, "v"))
    with pytest.raises(strep.CaptureFileError, match=r"a\.mjr: the mjr file holds 'video': only those of audio"):
        strep.replay(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), of=st.sampled_from(["rtpdump", 0, 1, 2]))
def test_damage_is_counted(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, of: str | int) -> None:
    few = PACKETS[:6]
    whole = bytearray(rtpdump(few) if isinstance(of, str) else mjr(few, of))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("d") / "a"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        with PcapReader(path) as reader:
            count = sum(len(batch) for batch in reader.batches())
    except strep.CaptureFileError:
        return
    assert count <= 6 + len(whole) // 8


@pytest.mark.parametrize("of", ["rtpdump", 0, 1, 2])
def test_a_file_that_is_cut_gives_what_it_has(tmp_path: Path, of: str | int) -> None:
    few = PACKETS[:3]
    whole = rtpdump(few) if isinstance(of, str) else mjr(few, of)
    path = tmp_path / "a"
    for cut in (1, 100, 171):
        path.write_bytes(whole[:-cut])
        with PcapReader(path) as reader:
            assert sum(len(batch) for batch in reader.batches()) == 2
        assert reader.skipped == {"truncated_file": 1}
