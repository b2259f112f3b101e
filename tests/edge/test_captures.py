"""Captures as networks make them: packed into tunnels, in fragments, cut, compressed, out of order. tshark is the
witness: the same streams, packets, losses and jitter."""

from __future__ import annotations

import gzip
import ipaddress
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strep
from strep._edge.pcap import PcapReader

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
    "MPLS pseudowire": (1, lambda p: eth(b"\0\1\1\x40\0\0\0\0" + eth(v4(udp(p))), 0x8847)),
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


def call(packets: int = 150, seed: int = 1) -> list[tuple[int, bytes]]:
    """RTP with losses and jitter."""
    rng = random.Random(seed)
    lost = set(rng.sample(range(2, packets - 2), packets // 12))
    return [(T0 + k * 20 * MS + rng.randrange(6 * MS), rtp(k)) for k in range(packets) if k not in lost]


# --- the witness ----------------------------------------------------------------------------------------------------


def witnessed(path: Path, *options: str) -> list[tuple[int, int, float, float]]:
    """What tshark tells of each RTP stream: packets, lost, mean and largest jitter in ms; by SSRC."""
    out = subprocess.run(
        ["tshark", "-r", str(path), "-q", "-d", f"udp.port=={PORT},rtp", *options, "-z", "rtp,streams"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = []
    for line in out.splitlines():
        match = re.search(r"(0x[0-9A-F]{8}) +\S.*? +(\d+) +(-?\d+) \(-?[\d.]+%\)(.*)$", line)
        if match:
            numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", match[4])]
            mean, largest = numbers[-2:]  # min, mean and max of delta, then of jitter
            found.append((match[1], (int(match[2]), int(match[3]), mean, largest)))
    return [figures for _, figures in sorted(found)]


def told(path: Path | str, **options: Any) -> tuple[list[tuple[int, int, float, float]], strep.Replay]:
    replay = strep.replay(path, **options)
    totals = replay.totals()
    assert (totals.unaccounted, replay.capture["datagrams"]) == (0, totals.datagrams)
    reports = sorted(replay.reports(), key=lambda r: r.stream.ssrcs)
    return [(r.packets_received, r.packets_lost, r.jitter_ms_mean, r.jitter_ms_max) for r in reports], replay


def same(ours: list[tuple[int, int, float, float]], theirs: list[tuple[int, int, float, float]]) -> None:
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
    assert batch.slab[0, : batch.length[0]].tobytes() == packets[0][1]


@tshark
@pytest.mark.witness
@pytest.mark.parametrize("name", [n for n in PACKED if n not in ("HEP3", "a tunnel's port", "PPTP")])
def test_packed_media_as_tshark_finds_it(tmp_path: Path, name: str) -> None:
    """tshark 4.0 hands the payloads of HEP on to SIP and JSON alone."""
    link, pack = PACKED[name]
    path = pcap(tmp_path / "a.pcap", [(ns, pack(p)) for ns, p in call()], link)
    same(told(path)[0], witnessed(path))


def test_plain_frames_among_others(tmp_path: Path) -> None:
    """Each kind in turn, and what is no media."""
    kinds = [pack for link, pack in PACKED.values() if link == 1]
    frames = [(ns, kinds[k % len(kinds)](p)) for k, (ns, p) in enumerate(call(400))]
    frames[5:5] = [(frames[5][0], eth(bytes(28), 0x0806)), (frames[5][0], eth(v4(bytes(20), 6)))]
    replay = strep.replay(pcap(tmp_path / "a.pcap", frames), pin="off")
    assert sum(r.packets_received for r in replay.reports()) + replay.totals().rejected == len(frames) - 2
    assert replay.capture["skipped"] == {"arp": 1, "tcp": 1}
    with PcapReader(tmp_path / "a.pcap") as reader:
        found = [b.slab[i, : b.length[i]].tobytes() for b in reader.batches() for i in range(len(b))]
    assert found == [p for _, p in call(400)]


LEFT_OUT = {
    "tcp": (1, eth(v4(bytes(20), 6))), "icmp": (1, eth(v4(bytes(8), 1))), "esp": (1, eth(v4(bytes(64), 50))),
    "sctp": (1, eth(v4(bytes(20), 132))), "not_udp": (1, eth(v4(bytes(20), 200))), "arp": (1, eth(bytes(28), 0x0806)),
    "lldp": (1, eth(bytes(28), 0x88CC)), "not_ip": (1, eth(bytes(28), 0x9999)), "llc": (1, eth(bytes(50), 50)),
    "macsec": (1, eth(bytes(40), 0x88E5)), "pppoe_discovery": (1, eth(bytes(20), 0x8863)),
    "ppp_control": (9, b"\xff\3\xc0\x21" + bytes(8)), "link_wlan_radiotap": (127, bytes(60)),
    "link_333": (333, bytes(60)), "gre_other": (1, eth(gre(bytes(40), 0x1234))), "icmpv6": (1, eth(v6(bytes(8), 58), 0x86DD)),
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
        run = subprocess.run(
            [sys.executable, "-m", "strep", *command, str(tmp_path / "a.pcap")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "3 of 49 frames left out: 2 arp, 1 esp" in run.stderr.splitlines()


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
