"""Captures as networks make them: packed into tunnels, in fragments, cut, compressed, out of order. tshark is the
witness: the same streams, packets, losses and jitter."""

from __future__ import annotations

import gzip
import ipaddress
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tshark_streams import Figures, rtp_streams

import strep
from strep._edge.pcap import PcapReader
from strep.cli import cli

tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
T0 = 1_700_000_000_000_000_000
MS = 1_000_000
PORT = 9000

# --- layers, byte by byte -------------------------------------------------------------------------------------------


def rtp(number: int, *, ssrc: int = 7, payload: bytes = b"\xd5" * 160, kind: int = 0) -> bytes:
    timestamp = number * 160 & 0xFFFF_FFFF
    return struct.pack("!BBHII", 0x80, kind, number & 0xFFFF, timestamp, ssrc) + payload


def udp(body: bytes, to: int = PORT, of: int = 40_000) -> bytes:
    return struct.pack("!4H", of, to, 8 + len(body), 0) + body


def v4(body: bytes, protocol: int = 17, *, fragment: int = 0, number: int = 1, last: int = 1) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, fragment, 64, protocol, 0)
    head += bytes([10, 0, 0, last, 10, 0, 0, 2])
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + body


def v6(body: bytes, following: int = 17) -> bytes:
    address = ipaddress.ip_address("2001:db8::1").packed
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), following, 64, address, address) + body


def eth(body: bytes, kind: int = 0x0800) -> bytes:
    return b"\2\0\0\0\0\2\2\0\0\0\0\1" + struct.pack("!H", kind) + body


def tag(kind: int, body: bytes, inner: int = 0x0800) -> bytes:
    """A VLAN tag: ``kind`` is the EtherType before it."""
    return struct.pack("!HHH", kind, 5, inner) + body


def cooked(body: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack("!HHH8sH", 0, 1, 6, b"\2\0\0\0\0\1\0\0", kind) + body


def cooked_2(body: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack("!HHIHBB8s", kind, 0, 1, 1, 0, 6, bytes(8)) + body


def gre(body: bytes, kind: int = 0x0800, flags: int = 0, fields: bytes = b"") -> bytes:
    return v4(struct.pack("!HH", flags, kind) + fields + body, 47)


def pppoe(body: bytes, protocol: int = 0x0021) -> bytes:
    return struct.pack("!BBHHH", 0x11, 0, 1, 2 + len(body), protocol) + body


def hep(payload: bytes) -> bytes:
    def chunk(kind: int, body: bytes) -> bytes:
        return struct.pack("!HHH", 0, kind, 6 + len(body)) + body

    chunks = chunk(1, b"\2") + chunk(2, b"\x11") + chunk(3, bytes([10, 0, 0, 1])) + chunk(4, bytes([10, 0, 0, 2]))
    chunks += chunk(7, struct.pack("!H", 40_000)) + chunk(8, struct.pack("!H", PORT)) + chunk(9, bytes(4))
    chunks += chunk(10, bytes(4)) + chunk(11, b"\4") + chunk(12, bytes(4)) + chunk(15, payload)
    return udp(b"HEP3" + struct.pack("!H", 6 + len(chunks)) + chunks, 9060)


Pack = Callable[[bytes], bytes]  # an RTP packet as a frame
PACKED: dict[str, tuple[int, Pack]] = {
    "plain": (1, lambda p: eth(v4(udp(p)))),
    "802.1Q": (1, lambda p: eth(tag(0x8100, v4(udp(p)))[2:], 0x8100)),
    "QinQ": (1, lambda p: eth(tag(0x88A8, tag(0x8100, v4(udp(p)))[2:], 0x8100)[2:], 0x88A8)),
    "cooked, tagged": (113, lambda p: cooked(tag(0x8100, v4(udp(p)))[2:], 0x8100)),
    "cooked v2, tagged": (276, lambda p: cooked_2(tag(0x8100, v4(udp(p)))[2:], 0x8100)),
    "802.2 SNAP": (1, lambda p: eth(b"\xaa\xaa\x03\0\0\0\x08\0" + v4(udp(p)), 8 + len(v4(udp(p))))),
    "GRE": (1, lambda p: eth(gre(v4(udp(p))))),
    "GRE with everything": (1, lambda p: eth(gre(v6(udp(p)), 0x86DD, 0xB000, bytes(12)))),
    "GRE, Ethernet": (1, lambda p: eth(gre(eth(v4(udp(p))), 0x6558, 0x2000, bytes(4)))),
    "PPTP": (1, lambda p: eth(gre(b"\xff\x03\0\x21" + v4(udp(p)), 0x880B, 0x3081,
                                  struct.pack("!HHII", 4 + len(v4(udp(p))), 1, 0, 0)))),
    "IP in IP": (1, lambda p: eth(v4(v4(udp(p)), 4))),
    "6in4": (1, lambda p: eth(v4(v6(udp(p)), 41))),
    "4in6": (1, lambda p: eth(v6(v4(udp(p)), 4), 0x86DD)),
    "AH": (1, lambda p: eth(v4(b"\x11\4\0\0" + bytes(20) + udp(p), 51))),
    "MPLS": (1, lambda p: eth(b"\0\1\0\x40\0\1\1\x40" + v4(udp(p)), 0x8847)),
    "MPLS pseudowire": (1, lambda p: eth(b"\0\1\x11\x40\0\0\0\0" + eth(v4(udp(p))), 0x8847)),
    "MPLS pseudowire, bare": (1, lambda p: eth(b"\0\1\x21\x40" + eth(v4(udp(p))), 0x8847)),
    "PPPoE": (1, lambda p: eth(pppoe(v4(udp(p))), 0x8864)),
    "PPPoE, tagged, IPv6": (1, lambda p: eth(tag(0x8100, pppoe(v6(udp(p)), 0x0057), 0x8864)[2:], 0x8100)),
    "PPP": (9, lambda p: b"\xff\3\0\x21" + v4(udp(p))),
    "PPP, short": (9, lambda p: b"\x21" + v4(udp(p))),
    "Cisco HDLC": (104, lambda p: b"\x0f\0\x08\0" + v4(udp(p))),
    "ERSPAN I": (1, lambda p: eth(gre(eth(v4(udp(p))), 0x88BE))),
    "ERSPAN II": (1, lambda p: eth(gre(b"\x10\x05\0\1\0\0\0\0" + eth(v4(udp(p))), 0x88BE, 0x1000, bytes(4)))),
    "ERSPAN III": (1, lambda p: eth(gre(b"\x20\x05\0\1" + bytes(8) + eth(v4(udp(p))), 0x22EB, 0x1000, bytes(4)))),
    "ERSPAN III, longer": (1, lambda p: eth(gre(b"\x20\x05\0\1" + bytes(6) + b"\0\1" + b"\x0c" + bytes(7)
                                                + eth(v4(udp(p))), 0x22EB, 0x1000, bytes(4)))),
    "VXLAN": (1, lambda p: eth(v4(udp(b"\x08\0\0\0\0\0\5\0" + eth(v4(udp(p))), 4789)))),
    "Geneve": (1, lambda p: eth(v4(udp(b"\2\0\x65\x58\0\0\5\0" + bytes(8) + eth(v4(udp(p))), 6081)))),
    "GTP-U": (1, lambda p: eth(v4(udp(struct.pack("!BBHI", 0x30, 255, len(v4(udp(p))), 9) + v4(udp(p)), 2152)))),
    "GTP-U, 5G": (1, lambda p: eth(v4(udp(struct.pack("!BBHIHBB", 0x34, 255, 8 + len(v4(udp(p))), 9, 0, 0, 0x85)
                                          + b"\1\0\x09\0" + v4(udp(p)), 2152)))),
    "HEP3": (1, lambda p: eth(v4(hep(p)))),
    "a tunnel's port": (1, lambda p: eth(v4(udp(p, PORT, 4789)))),
    "six deep": (1, lambda p: eth(tag(0x8100, v4(udp(b"\x08\0\0\0\0\0\5\0" + eth(gre(v4(v6(b"\x11\0" + bytes(6)
                                     + udp(p), 60), 41))), 4789)))[2:], 0x8100)),
}  # fmt: skip


def pcap(path: Path, frames: list[tuple[int, bytes]], link: int = 1, snap: int = 1 << 18) -> Path:
    """Nanoseconds."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, link)]
    for ns, frame in frames:
        kept = frame[:snap]
        out.append(struct.pack("<4I", ns // 10**9, ns % 10**9, len(kept), len(frame)) + kept)
    path.write_bytes(b"".join(out))
    return path


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def section(*links: int) -> bytes:
    """Nanoseconds."""
    interfaces = [block(1, struct.pack("<HHI", link, 0, 0) + struct.pack("<HHB3xI", 9, 1, 9, 0)) for link in links]
    return block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + b"".join(interfaces)


def enhanced(ns: int, frame: bytes, interface: int = 0) -> bytes:
    return block(6, struct.pack("<5I", interface, ns >> 32, ns & 0xFFFF_FFFF, len(frame), len(frame)) + frame)


def call(packets: int = 150, seed: int = 1, ssrc: int = 7) -> list[tuple[int, bytes]]:
    """RTP with losses and jitter."""
    rng = random.Random(seed)
    lost = set(rng.sample(range(2, packets - 2), packets // 12))
    return [(T0 + k * 20 * MS + rng.randrange(6 * MS), rtp(k, ssrc=ssrc)) for k in range(packets) if k not in lost]


# --- the witness ----------------------------------------------------------------------------------------------------


def witnessed(path: Path, *options: str) -> list[Figures]:
    return [figures for _, figures in sorted(rtp_streams(path, *options).items())]


def told(path: Path | str, **options: Any) -> tuple[list[Figures], strep.Replay]:
    replay = strep.replay(path, **options)
    totals = replay.totals()
    assert (totals.unaccounted, replay.capture["datagrams"]) == (0, totals.datagrams)
    reports = sorted(replay.reports(), key=lambda r: r.stream.ssrcs)
    return [(r.packets_received, r.packets_lost, r.jitter_ms_mean, r.jitter_ms_max) for r in reports], replay


def same(ours: list[Figures], theirs: list[Figures]) -> None:
    """tshark rounds times to microseconds and starts its mean one packet later."""
    assert [one[:2] for one in ours] == [one[:2] for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one[2:] == pytest.approx(other[2:], rel=0.03, abs=0.01)


# --- encapsulations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKED)
def test_packed_media_is_found(tmp_path: Path, name: str) -> None:
    link, pack = PACKED[name]
    packets = call()
    found, replay = told(pcap(tmp_path / "a.pcap", [(ns, pack(p)) for ns, p in packets], link))
    plain, _ = told(pcap(tmp_path / "b.pcap", [(ns, eth(v4(udp(p)))) for ns, p in packets]))
    assert found == plain
    assert found[0][:2] == (138, 12)
    assert replay.capture["skipped"] == {}
    with PcapReader(tmp_path / "a.pcap") as reader:
        batch = next(reader.batches())
    ten = (0xFFFF_0A00_0001, 0)
    six = divmod(int(ipaddress.ip_address("2001:db8::1")), 1 << 64)
    assert (int(batch.source_lo[0]), int(batch.source_hi[0])) in (ten, six[::-1])
    assert {int(batch.source_port[0]), int(batch.local_port[0])} <= {40_000, 4789, PORT}
    assert batch.data(0) == packets[0][1]


@tshark
@pytest.mark.witness
def test_packed_media_as_tshark_finds_it(tmp_path: Path) -> None:
    """All kinds in one file. tshark 4.0 hands the payloads of HEP on to SIP and JSON alone."""
    names = [name for name in PACKED if name not in ("HEP3", "PPTP")]
    links = sorted({link for link, _ in PACKED.values()})
    blocks = []
    for ssrc, name in enumerate(names):
        link, pack = PACKED[name]
        packets = call(seed=ssrc, ssrc=ssrc)
        blocks += [(ns, enhanced(ns, pack(packet), links.index(link))) for ns, packet in packets]
    path = tmp_path / "a.pcapng"
    path.write_bytes(section(*links) + b"".join(one for _, one in sorted(blocks)))
    found = told(path, pin="off")[0]
    assert len(found) == len(names)
    same(found, witnessed(path, "-d", "mpls.label==17,pwethcw", "-d", "mpls.label==18,pwethnocw"))


def test_plain_frames_among_others(tmp_path: Path) -> None:
    """Each kind in turn, and what is no media."""
    kinds = [pack for link, pack in PACKED.values() if link == 1]
    frames = [(ns, kinds[k % len(kinds)](p)) for k, (ns, p) in enumerate(call(400))]
    frames[5:5] = [(frames[5][0], eth(bytes(28), 0x0806)), (frames[5][0], eth(v4(bytes(20), 6)))]
    replay = strep.replay(pcap(tmp_path / "a.pcap", frames), pin="off")
    assert sum(r.packets_received for r in replay.reports()) + replay.totals().rejected == len(frames) - 2
    assert replay.capture["skipped"] == {"arp": 1, "tcp": 1}
    with PcapReader(tmp_path / "a.pcap") as reader:
        found = [b.data(i) for b in reader.batches() for i in range(len(b))]
    assert found == [p for _, p in call(400)]


LEFT_OUT = {
    "tcp": (1, eth(v4(bytes(20), 6))), "icmp": (1, eth(v4(bytes(8), 1))), "esp": (1, eth(v4(bytes(64), 50))),
    "sctp": (1, eth(v4(bytes(20), 132))), "not_udp": (1, eth(v4(bytes(20), 200))), "arp": (1, eth(bytes(28), 0x0806)),
    "lldp": (1, eth(bytes(28), 0x88CC)), "not_ip": (1, eth(bytes(28), 0x9999)), "llc": (1, eth(bytes(50), 50)),
    "macsec": (1, eth(bytes(40), 0x88E5)), "pppoe_discovery": (1, eth(bytes(20), 0x8863)),
    "ppp_control": (9, b"\xff\3\xc0\x21" + bytes(8)), "link_wlan_radiotap": (127, bytes(60)),
    "link_333": (333, bytes(60)), "gre_other": (1, eth(gre(bytes(40), 0x1234))),
    "icmpv6": (1, eth(v6(bytes(8), 58), 0x86DD)),
    "gtp_control": (1, eth(v4(udp(b"\x30\1\0\0" + bytes(8), 2152)))),
    "hep_without_payload": (1, eth(v4(udp(b"HEP3\0\x06" + bytes(6), 9060)))),
    "too_deep": (1, eth(b"\0\1\0\x40" * 40, 0x8847)),
}  # fmt: skip


@pytest.mark.parametrize("cause", LEFT_OUT)
def test_what_is_left_out_has_a_name(tmp_path: Path, cause: str) -> None:
    link, frame = LEFT_OUT[cause]
    summary = strep.replay(pcap(tmp_path / "a.pcap", [(T0, frame)] * 3, link)).summary()
    assert summary["capture"]["skipped"] == {cause: 3}
    assert summary["totals"]["datagrams"] == 0


def test_a_person_is_told_in_a_line(tmp_path: Path) -> None:
    frames = [(ns, eth(v4(udp(p)))) for ns, p in call(50)] + [(T0 + 10**9, LEFT_OUT["arp"][1])] * 2
    pcap(tmp_path / "a.pcap", [*frames, (T0 + 10**9, LEFT_OUT["esp"][1])])
    for command in (["inspect"], ["replay", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(cli, [*command, str(tmp_path / "a.pcap")])
        assert result.exit_code == 0
        assert "3 of 49 frames left out: 2 arp, 1 esp" in result.stderr.splitlines()


def test_names_that_a_file_makes_up_are_bounded(tmp_path: Path) -> None:
    blocks = [section()]
    for link in range(300, 800):
        blocks.append(block(1, struct.pack("<HHI", link, 0, 0)))
        blocks.append(block(6, struct.pack("<5I", link - 300, 0, 0, 4, 4) + bytes(4)))
    (tmp_path / "a.pcapng").write_bytes(b"".join(blocks))
    with PcapReader(tmp_path / "a.pcapng") as reader:
        assert list(reader.batches()) == []
        assert sum(reader.skipped.values()) == 500
        assert len(reader.skipped) <= 65


# --- fragments ------------------------------------------------------------------------------------------------------


def in_fragments(packet: bytes, number: int, size: int, *, six: bool = False) -> list[bytes]:
    body = udp(packet)
    out = []
    for begin in range(0, len(body), size):
        part = body[begin : begin + size]
        more = begin + size < len(body)
        if six:
            head = struct.pack("!BBHI", 17, 0, begin | more, number)
            out.append(eth(v6(head + part, 44), 0x86DD))
        else:
            out.append(eth(v4(part, fragment=more << 13 | begin // 8, number=number)))
    return out


def long_call(count: int, bytes_each: int) -> list[bytes]:
    return [
        struct.pack("!BBHII", 0x80, 10, k, k * bytes_each // 4, 7) + random.Random(k).randbytes(bytes_each)
        for k in range(count)
    ]


@tshark
@pytest.mark.witness
@pytest.mark.parametrize("six", [False, True])
def test_fragments_as_tshark_joins_them(tmp_path: Path, six: bool) -> None:
    frames: list[tuple[int, bytes]] = []
    for k, packet in enumerate(long_call(100, 2000)):
        parts = in_fragments(packet, k, 1480 if k % 3 else 800, six=six)
        random.Random(k).shuffle(parts)
        if k in (17, 40):
            parts.pop()
        frames += [(T0 + k * 11 * MS + (k * 7 % 5) * MS + i * 1000, part) for i, part in enumerate(parts)]
    path = pcap(tmp_path / "a.pcap", frames)
    found, replay = told(path)
    same(found, witnessed(path))
    assert found[0][:2] == (98, 2)
    assert replay.capture["joined"] == 98
    lone = sum(len(in_fragments(long_call(1, 2000)[0], k, 1480 if k % 3 else 800)) - 1 for k in (17, 40))
    assert replay.capture["skipped"] == {"fragment": lone}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    seed=st.integers(0, 1 << 32),
    six=st.booleans(),
    snap=st.sampled_from([1 << 18, 400]),
)
def test_fragments_in_any_order_and_twice(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, six: bool, snap: int
) -> None:
    rng = random.Random(seed)
    packets = [rng.randbytes(size) for size in sizes]
    frames: list[tuple[int, bytes]] = []
    for number, packet in enumerate(packets):
        parts = in_fragments(packet, number, rng.choice([8, 504, 1480]) if len(packet) < 500 else 504, six=six)
        parts += rng.sample(parts[1:], len(parts[1:]) // 2)
        first, *rest = parts
        rng.shuffle(rest)
        frames += [(T0 + number * MS, part) for part in [*rest, first]]  # so that the last one completes it
    path = pcap(tmp_path_factory.mktemp("f") / "a.pcap", frames, snap=snap)
    with PcapReader(path) as reader:
        found = []
        for batch in reader.batches():
            found += [batch.data(i) for i in range(len(batch))]
    if snap == 1 << 18:
        assert found == packets
        assert not reader.skipped
    else:
        assert all(whole.startswith(part) for part, whole in zip(found, packets, strict=True))


def test_fragments_are_kept_within_bounds(tmp_path: Path) -> None:
    """Only so many wait; late ones do not meet those of a number that came around."""
    frames = [(T0 + k, in_fragments(bytes(1000), k, 504)[0]) for k in range(3000)]
    frames += [(T0 + 40_000 * MS, part) for part in in_fragments(bytes(1000), 2999, 504)[1:]]
    with PcapReader(pcap(tmp_path / "a.pcap", frames)) as reader:
        assert list(reader.batches()) == []
    assert reader.skipped == {"fragment": 3001}


@pytest.mark.parametrize("size", [65_507, 65_506, 40_000])
def test_datagrams_of_any_size(tmp_path: Path, size: int) -> None:
    payload = random.Random(1).randbytes(size)
    frames = [(T0 + k, part) for k, part in enumerate(in_fragments(payload, 9, 1480))]
    frames += [(T0 + 10**6, eth(v4(udp(payload)))), (T0 + 10**6, eth(v4(udp(b"small"))))]
    with PcapReader(pcap(tmp_path / "a.pcap", frames)) as reader:
        found = [b.data(i) for b in reader.batches() for i in range(len(b))]
    assert found == [payload, payload, b"small"]


# --- headers alone, no times, out of order --------------------------------------------------------------------------


@tshark
@pytest.mark.witness
@pytest.mark.parametrize("snap", [96, 54])
def test_captures_of_headers_have_losses_and_jitter(tmp_path: Path, snap: int) -> None:
    packets = call(200)
    whole = pcap(tmp_path / "a.pcap", [(ns, eth(v4(udp(p)))) for ns, p in packets])
    path = pcap(tmp_path / "b.pcap", [(ns, eth(v4(udp(p)))) for ns, p in packets], snap=snap)
    found, replay = told(path)
    same(found, witnessed(path))
    assert found == told(whole)[0]
    assert replay.capture["cut"] == len(packets)
    (report,) = replay.reports()
    assert (report.samples, report.duration_s) == (0, 0.0)


def test_what_is_cut_inside_its_headers_is_no_packet(tmp_path: Path) -> None:
    path = pcap(tmp_path / "a.pcap", [(ns, eth(v4(udp(p)))) for ns, p in call(50)], snap=53)
    totals = strep.replay(path).totals()
    assert totals.malformed_by == {"truncated": 46}


def test_packets_without_times(tmp_path: Path) -> None:
    frames = [eth(v4(udp(p))) for _, p in call(200)]
    blocks = [block(3, struct.pack("<I", len(frame)) + frame) for frame in frames]
    (tmp_path / "a.pcapng").write_bytes(section(1) + b"".join(blocks))
    summary = strep.replay(tmp_path / "a.pcapng").summary()
    (stream,) = summary["streams"]
    assert (stream["packets_received"], stream["packets_lost"]) == (184, 16)
    assert stream["duration_s"] == pytest.approx(200 * 0.02, abs=0.021)
    assert stream["jitter_ms"] == {"mean": None, "max": None, "last": None}
    assert {stream[name] for name in ("first_arrival", "first_arrival_ns", "last_arrival_ns", "skew_ppm")} == {None}
    assert summary["capture"]["untimed"] == 184


def two_interfaces(seconds: float = 6.0) -> list[tuple[int, bytes, int]]:
    """What ``dumpcap -i a -i b`` writes: 0.2 s of one, then 0.2 s of the other."""
    rows = []
    for begin in range(0, int(seconds * 50), 10):
        for interface in (0, 1):
            rows += [
                (
                    T0 + k * 20 * MS + interface * 3 * MS,
                    eth(v4(udp(rtp(k, ssrc=interface), of=40_000 + interface))),
                    interface,
                )
                for k in range(begin, begin + 10)
            ]
    return rows


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_records_of_two_interfaces(tmp_path: Path, kind: str) -> None:
    rows = two_interfaces()
    path = tmp_path / f"a.{kind}"
    if kind == "pcap":
        pcap(path, [(ns, frame) for ns, frame, _ in rows])
    else:
        path.write_bytes(section(1, 1) + b"".join(enhanced(*row) for row in rows))
    found, replay = told(path)
    in_order, _ = told(pcap(tmp_path / "b.pcap", sorted((ns, frame) for ns, frame, _ in rows)))
    assert found == in_order == [(300, 0, pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))] * 2
    assert replay.capture["sorted"] > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), reach_ms=st.integers(0, 900), turn=st.sampled_from([50, 65_536]))
def test_whatever_stands_less_than_a_second_late_is_put_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, reach_ms: int, turn: int
) -> None:
    rng = random.Random(seed)
    rows = sorted((T0 + rng.randrange(4000 * MS), flow) for flow in range(4) for _ in range(60))
    # each flow is written later by a delay of its own
    delay = [rng.randrange(reach_ms * MS + 1) for _ in range(4)]
    written = sorted(rows, key=lambda row: (row[0] + delay[row[1]], row))
    frames = [(ns, eth(v4(udp(b"%d" % ns, of=1000 + flow)))) for ns, flow in written]
    path = pcap(tmp_path_factory.mktemp("o") / "a.pcap", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strep._edge.pcap.records._RECORDS_A_TURN", turn)
        with PcapReader(path) as reader:
            batches = list(reader.batches())
    times = [int(ns) for b in batches for ns in b.arrival_ns]
    if turn == 65_536:
        assert times == [ns for ns, _ in rows]
    assert sorted(times) == [ns for ns, _ in rows]
    assert (reader.sorted == 0) == (written == rows)


def test_a_clock_that_was_set_back_by_half_a_second_mixes_nothing(tmp_path: Path) -> None:
    """What one sender sends keeps its order."""
    frames = [(T0 + k * 20 * MS - (500 * MS if k > 100 else 0), eth(v4(udp(rtp(k))))) for k in range(200)]
    ((received, lost, *_),), replay = told(pcap(tmp_path / "a.pcap", frames))
    (report,) = replay.reports()
    assert (received, lost, report.reordered, report.late) == (200, 0, 0, 0)


# --- compressed, and pipes ------------------------------------------------------------------------------------------


def packed_zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    half = len(data) // 2
    parts = [zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:])]
    return b"".join(parts)


def packed_lz4(data: bytes) -> bytes:
    frame = pytest.importorskip("lz4.frame")
    half = len(data) // 2
    return frame.compress(data[:half]) + frame.compress(data[half:])  # type: ignore[no-any-return]


def packed_gzip(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(512)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": packed_gzip, "zstd": packed_zstd, "lz4": packed_lz4, "as it is": bytes,
}  # fmt: skip


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_compressed_files_and_pipes(tmp_path: Path, name: str, way: str) -> None:
    plain = pcap(tmp_path / "a.pcap", [(ns, eth(v4(udp(p)))) for ns, p in call(150)])
    packed = PACKERS[name](plain.read_bytes())
    (tmp_path / "b").write_bytes(packed)
    wanted = told(plain)[0]
    if way == "pipe":
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(packed,))
        writer.start()
        found, _ = told(pipe)
        writer.join(10)
        assert found == wanted
    else:
        assert told(tmp_path / "b")[0] == wanted


def test_standard_input(tmp_path: Path) -> None:
    plain = pcap(tmp_path / "a.pcap", [(ns, eth(v4(udp(p)))) for ns, p in call(150)])
    script = "import strep; r = strep.replay('-'); print(*[(s.packets_received, s.packets_lost) for s in r.reports()])"
    packed = packed_gzip(plain.read_bytes())
    run = subprocess.run([sys.executable, "-c", script], input=packed, capture_output=True, check=True)
    assert run.stdout.decode().strip() == "(138, 12)"


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4"])
def test_compressed_files_that_are_cut_or_damaged(tmp_path: Path, name: str) -> None:
    frames = [(ns, eth(v4(udp(p[:12] + random.Random(ns).randbytes(160))))) for ns, p in call(2000)]
    packed = PACKERS[name](pcap(tmp_path / "a.pcap", frames).read_bytes())
    path = tmp_path / "b"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    with PcapReader(path) as reader:
        count = sum(len(batch) for batch in reader.batches())
    # of zstd and lz4 whole blocks come, of gzip all
    assert len(frames) * 0.4 < count < len(frames) * 0.76
    assert reader.skipped
    broken = bytearray(packed)
    broken[len(broken) * 3 // 4 :] = bytes(len(broken) - len(broken) * 3 // 4)
    path.write_bytes(broken)
    with PcapReader(path) as reader:
        assert sum(len(batch) for batch in reader.batches()) >= count * 0.6
    assert reader.skipped


def test_what_is_packed_otherwise_and_missing_extras_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pcap.xz"
    path.write_bytes(b"\xfd7zXZ\0" + bytes(50))
    with pytest.raises(strep.CaptureFileError, match=r"a\.pcap\.xz: it is packed with xz: unpack it first"):
        strep.replay(path)
    for name, magic in (("zstandard", b"\x28\xb5\x2f\xfd"), ("lz4", b"\x04\x22\x4d\x18")):
        path.write_bytes(magic + bytes(50))
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(strep.MissingExtraError, match=r"pip install "):
            strep.replay(path)


# --- whatever a frame holds -----------------------------------------------------------------------------------------

_SEEDS = [(link, pack(rtp(5))) for link, pack in PACKED.values()]
_SEEDS += [(1, part) for part in in_fragments(bytes(900), 3, 504) + in_fragments(bytes(900), 3, 504, six=True)]


@settings(max_examples=usual_or_slow(50, 120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_frame_raises_or_is_lost(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Each frame is a datagram, part of one, or counted by cause. All of them are looked into alike when they come
    alone, and in the company of others."""
    link = data.draw(st.sampled_from([1, 1, 1, 113, 9]))
    seeds = [frame for kind, frame in _SEEDS if kind == link]
    frames = []
    for _ in range(data.draw(st.integers(1, 12))):
        frame = bytearray(data.draw(st.sampled_from(seeds)))
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, min(len(frame), 130) - 1))
            what = data.draw(st.sampled_from(["byte", "cut", "double", "zero"]))
            if what == "byte":
                frame[at] = data.draw(st.integers(0, 255))
            elif what == "cut":
                del frame[max(at, 1) :]
            elif what == "double":
                frame[at:at] = frame[: at * 2]
            else:
                frame[at : at + 4] = bytes(4)
        frames.append(bytes(frame[:60_000]))
    path = tmp_path_factory.mktemp("m") / "a.pcap"
    skipped: dict[str, int] = {}
    alone = 0
    for frame in frames:
        with PcapReader(pcap(path, [(T0, frame)], link)) as reader:
            alone += sum(len(batch) for batch in reader.batches())
            assert reader.datagrams + sum(reader.skipped.values()) == 1
            for cause, count in reader.skipped.items():
                skipped[cause] = skipped.get(cause, 0) + count
    with PcapReader(pcap(path, [(T0, frame) for frame in frames], link)) as reader:
        together = sum(len(batch) for batch in reader.batches())
    if not reader.joined:
        assert (together, dict(reader.skipped)) == (alone, skipped)
