"""Capture files: what was written is read back; every link type; damage; editcap and tshark as witnesses."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, long_batch_of, packet, steady

import strep
from strep._edge.pcap import PcapReader, PcapWriter
from strep._model.datagrams import DatagramBatch

tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
MAPPED = 0xFFFF << 32


def source(address: str, port: int) -> tuple[int, int]:
    ip = ipaddress.ip_address(address)
    return (int(ip) | (MAPPED if ip.version == 4 else 0), port)


def write(path: Path, arrivals: list[Arrival], *, width: int = 2048, roles: dict[int, int] | None = None) -> Path:
    writer = PcapWriter(path, roles=roles)
    for begin in range(0, len(arrivals), 7):
        assert writer.write(batch_of(arrivals[begin : begin + 7], width=width)) == len(arrivals[begin : begin + 7])
    writer.close()
    return path


def rows(batches: Iterable[DatagramBatch]) -> list[Arrival]:
    out = []
    for b in batches:
        for i in range(len(b)):
            data = b.data(i)
            address = int(b.source_hi[i]) << 64 | int(b.source_lo[i])
            out.append(Arrival(int(b.arrival_ns[i]), data, (address, int(b.source_port[i])), int(b.local_port[i])))
    return out


def read(path: Path, **options: int) -> tuple[list[Arrival], PcapReader]:
    with PcapReader(path) as reader:
        return rows(reader.batches(**options)), reader


# --- what was written is read back ----------------------------------------------------------------------------------

_sources = st.sampled_from([source("10.1.2.3", 40_000), source("192.0.2.255", 1), source("2001:db8::7", 65_535)])


@settings(max_examples=80, deadline=None)
@given(
    data=st.lists(st.tuples(st.binary(max_size=300), _sources, st.integers(0, 3_000_000_000)), max_size=40),
    max_rows=st.sampled_from([1, 3, 65_536]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: list, max_rows: int) -> None:
    times = sorted(T0 + t for _, _, t in data)
    arrivals = [Arrival(t, d, s, 9000 + i % 3) for i, ((d, s, _), t) in enumerate(zip(data, times, strict=True))]
    path = write(tmp_path_factory.mktemp("p") / "a.pcap", arrivals)
    again, reader = read(path, max_rows=max_rows)
    assert again == arrivals
    assert (reader.datagrams, dict(reader.skipped)) == (len(arrivals), {})
    assert reader.position_bytes == reader.size_bytes == path.stat().st_size


def test_roles_of_ports_are_noted(tmp_path: Path) -> None:
    arrivals = [Arrival(T0, packet(k, call=None), local_port=9000 + k) for k in range(4)]
    _, reader = read(write(tmp_path / "a.pcap", arrivals, roles={9000: 0, 9001: 1, 9002: 2, 9003: 3}))
    assert reader.roles == {9000: 0, 9001: 1, 9002: 2, 9003: 3}


def test_truncated_datagrams_stay_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcap", [Arrival(T0, bytes(100)), Arrival(T0, packet(1))], width=64)
    with PcapReader(path) as reader:
        (batch,) = reader.batches()
        assert (batch.length > batch.slab.shape[1]).tolist() == [True, True]


@tshark
@pytest.mark.witness
@pytest.mark.parametrize("snap", [2048, 96])
def test_wireshark_reads_what_we_write(tmp_path: Path, snap: int) -> None:
    arrivals = [
        Arrival(T0 + 3, packet(1), source("10.1.2.3", 40_000)),
        Arrival(T0 + 1_000_000_007, b"odd", source("2001:db8::7", 5), 9001),
        Arrival(T0 + 2_000_000_000, bytes(1400), source("10.1.2.3", 40_000)),
    ]
    path = write(tmp_path / "a.pcap", arrivals, width=snap)
    fields = ("frame.time_epoch", "ip.src", "ipv6.src", "udp.srcport", "udp.dstport", "udp.length",
              "ip.checksum.status", "udp.checksum.status", "_ws.malformed")  # fmt: skip
    options = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=,", *options]
    out = subprocess.run(
        [*command, *(a for f in fields for a in ("-e", f))], capture_output=True, text=True, check=True
    )
    lines = [line.split(",") for line in out.stdout.splitlines()]
    assert [line[0] for line in lines] == ["1700000000.000000003", "1700000001.000000007", "1700000002.000000000"]
    assert [line[1:5] for line in lines] == [
        ["10.1.2.3", "", "40000", "9000"],
        ["", "2001:db8::7", "5", "9001"],
        ["10.1.2.3", "", "40000", "9000"],
    ]
    assert [int(line[5]) - 8 for line in lines] == [196, 3, 1400]
    assert [line[6] for line in lines] == ["1", "", "1"]
    # 1 good; 3 not present: of a cut datagram it cannot be computed, 2 unverified
    assert [line[7] for line in lines] == (["1"] * 3 if snap == 2048 else ["3", "1", "3"])
    assert not any(line[8] for line in lines)


LONG = [
    Arrival(T0, packet(1), source("10.1.2.3", 40_000)),
    Arrival(T0 + 1, bytes(range(256)) * 15, source("10.1.2.3", 40_000)),  # L16/48000/2, 20 ms
    Arrival(T0 + 2, b"\x81" * 65_507, source("10.1.2.3", 40_000)),  # as long as IPv4 allows
    Arrival(T0 + 3, b"\x82" * 65_527, source("2001:db8::7", 5), 9001),  # as long as IPv6 allows
    Arrival(T0 + 4, b"odd", source("2001:db8::7", 5), 9001),
]


def write_long(path: Path) -> Path:
    writer = PcapWriter(path)
    assert writer.write(long_batch_of(LONG)) == len(LONG)
    writer.close()
    return path


def test_datagrams_of_any_length_are_written_and_read_whole(tmp_path: Path) -> None:
    path = write_long(tmp_path / "a.pcap")
    for max_rows in (1, 2, 65_536):
        assert read(path, max_rows=max_rows)[0] == LONG


def test_long_datagrams_that_were_cut_stay_truncated(tmp_path: Path) -> None:
    frames = [ethernet(ipv4(udp(PAYLOAD + bytes(size))), 0x0800) for size in (0, 4000, 60_000)]
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(1, frames, snap=5000))
    wanted = [(196, PAYLOAD), (4196, PAYLOAD + bytes(4000)), (60_196, PAYLOAD + bytes(5000 - 42 - 196))]
    again = PcapWriter(tmp_path / "b.pcap")
    with PcapReader(path) as reader:
        for batch in reader.batches():
            again.write(batch)
        assert reader.cut == 1
    again.close()
    for one in (path, tmp_path / "b.pcap"):
        with PcapReader(one) as reader:
            found = [(int(b.length[i]), b.data(i)) for b in reader.batches() for i in range(len(b))]
        assert found == wanted


@tshark
@pytest.mark.witness
def test_wireshark_reads_long_datagrams(tmp_path: Path) -> None:
    path = write_long(tmp_path / "a.pcap")
    options = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=,"]
    fields = ("udp.length", "udp.checksum.status", "ip.checksum.status")
    out = subprocess.run(
        ["tshark", "-r", str(path), *options, *(a for f in fields for a in ("-e", f))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.split() == ["204,1,1", "3848,1,1", "65515,1,1", "65535,1,", "11,1,"]


# --- files others wrote ---------------------------------------------------------------------------------------------

PAYLOAD = packet(5)


def udp(payload: bytes = PAYLOAD, length: int | None = None) -> bytes:
    return struct.pack("!HHHH", 40_000, 9000, (len(payload) + 8) if length is None else length, 0) + payload


def ipv4(
    body: bytes, *, protocol: int = 17, options: bytes = b"", fragment: int = 0, total: int | None = None
) -> bytes:
    header = 20 + len(options)
    total = header + len(body) if total is None else total
    first = 0x40 | header // 4
    return struct.pack("!BBHHHBBH4s4s", first, 0, total, 1, fragment, 64, protocol, 0, bytes([10, 0, 0, 1]),
                       bytes([10, 0, 0, 2])) + options + body  # fmt: skip


def ipv6(body: bytes, *, following: int = 17) -> bytes:
    address = ipaddress.ip_address("2001:db8::1").packed
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), following, 64, address, address) + body


def ethernet(body: bytes, kind: int, *tags: int) -> bytes:
    inner = b"".join(struct.pack("!HH", tag, 7) for tag in tags)
    return bytes(12) + inner + struct.pack("!H", kind) + body


V4, V6 = ipv4(udp()), ipv6(udp())
LINKS = {
    "ethernet": (1, ethernet(V4, 0x0800)),
    "ethernet ipv6": (1, ethernet(V6, 0x86DD)),
    "vlan": (1, ethernet(V4, 0x0800, 0x8100)),
    "two vlans": (1, ethernet(V6, 0x86DD, 0x88A8, 0x8100)),
    "padded to 60 bytes": (1, ethernet(ipv4(udp(b"abc")), 0x0800) + bytes(15)),
    "cooked": (113, struct.pack("!HHH8sH", 0, 1, 6, bytes(8), 0x0800) + V4),
    "cooked ipv6": (113, struct.pack("!HHH8sH", 0, 1, 6, bytes(8), 0x86DD) + V6),
    "cooked v2": (276, struct.pack("!HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8)) + V4),
    "raw": (101, V4),
    "raw ipv6": (101, V6),
    "raw 12": (12, V4),
    "ipv4 only": (228, V4),
    "ipv6 only": (229, V6),
    "loopback, little": (0, struct.pack("<I", 2) + V4),
    "loopback, big": (0, struct.pack(">I", 24) + V6),
    "openbsd loopback": (108, struct.pack(">I", 2) + V4),
    "ip options": (1, ethernet(ipv4(udp(), options=bytes(8)), 0x0800)),
    "ipv6 hop by hop": (1, ethernet(ipv6(bytes([17, 1]) + bytes(14) + udp(), following=0), 0x86DD)),
    "ipv6 fragment that is whole": (1, ethernet(ipv6(b"\x11" + bytes(7) + udp(), following=44), 0x86DD)),
    "segmentation offload": (1, ethernet(ipv4(udp(), total=0), 0x0800)),
}


def pcap(link: int, frames: list[bytes], *, order: str = "<", magic: int = 0xA1B2C3D4, snap: int = 0) -> bytes:
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, link)]
    for i, frame in enumerate(frames):
        kept = frame[: snap or None]
        fraction = 5 if magic == 0xA1B2C3D4 else 5000
        out.append(struct.pack(order + "IIII", 1_700_000_000 + i, fraction, len(kept), len(frame)) + kept)
    return b"".join(out)


@pytest.mark.parametrize(("link", "frame"), LINKS.values(), ids=LINKS.keys())
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_link_types(tmp_path: Path, link: int, frame: bytes, order: str, magic: int) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(link, [frame] * 3, order=order, magic=magic))
    found, reader = read(path)
    wanted = b"abc" if len(frame) == 60 else PAYLOAD
    assert [a.data for a in found] == [wanted] * 3
    assert [a.ns - T0 for a in found] == [5000, 1_000_005_000, 2_000_005_000]
    assert {(a.source[1], a.local_port) for a in found} == {(40_000, 9000)}
    assert {a.source[0] for a in found} <= {source("10.0.0.1", 0)[0], source("2001:db8::1", 0)[0]}
    assert not reader.skipped


SKIPPED = {
    "arp": (1, ethernet(bytes(28), 0x0806), "arp"),
    "tcp": (1, ethernet(ipv4(bytes(20), protocol=6), 0x0800), "tcp"),
    "fragment": (1, ethernet(ipv4(udp(bytes(200)), fragment=0x2000), 0x0800), "fragment"),
    "fragment of odd length": (1, ethernet(ipv4(udp(bytes(201)), fragment=0x2000), 0x0800), "bad_fragment"),
    "fragment beyond 65,535": (1, ethernet(ipv4(udp(), fragment=0x1FFF), 0x0800), "bad_fragment"),
    "later fragment": (1, ethernet(ipv4(udp(), fragment=0x0010), 0x0800), "fragment"),
    "ipv6 fragment": (1, ethernet(ipv6(b"\x11\0\0\1" + bytes(4) + udp(bytes(200)), following=44), 0x86DD), "fragment"),
    "header length 4": (1, ethernet(b"\x41" + V4[1:], 0x0800), "short"),
    "empty frame": (1, b"", "short"),
    "cut in the ip header": (1, ethernet(V4, 0x0800)[:30], "short"),
    "cut in the udp header": (1, ethernet(V4, 0x0800)[:39], "short"),
    "udp length 7": (1, ethernet(ipv4(udp(length=7)), 0x0800), "bad_udp_length"),
    "udp longer than ip": (1, ethernet(ipv4(udp(length=2000)), 0x0800), "bad_udp_length"),
    "ip total of 5": (1, ethernet(ipv4(udp(), total=5), 0x0800), "short"),
    "ip version 5": (101, b"\x55" + V4[1:], "not_ip"),
    "bluetooth": (201, V4, "link_bluetooth"),
    "no link": (147, V4, "link_147"),
}


@pytest.mark.parametrize(("link", "frame", "cause"), SKIPPED.values(), ids=SKIPPED.keys())
def test_what_is_no_datagram_is_counted(tmp_path: Path, link: int, frame: bytes, cause: str) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(link, [frame, frame]))
    found, reader = read(path)
    assert found == []
    assert dict(reader.skipped) == {cause: 2}


def test_snapped_frames_are_truncated_datagrams(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(1, [ethernet(ipv4(udp(packet(k))), 0x0800) for k in (5, 6)], snap=100))
    with PcapReader(path) as reader:
        for batch in reader.batches():
            assert (batch.length > batch.slab.shape[1]).all()
    found = strep.replay(path)
    figures = found.totals()
    assert (figures.malformed_by, figures.delivered, figures.unaccounted) == ({}, 2, 0)
    assert found.capture["cut"] == 2
    (report,) = found.reports()
    assert (report.packets_received, report.samples) == (2, 0)


@pytest.mark.witness
@pytest.mark.skipif(not shutil.which("editcap"), reason="editcap (of tshark) is not installed")
@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng", "modpcap"])
def test_files_that_editcap_wrote(tmp_path: Path, kind: str) -> None:
    arrivals = [Arrival(a.ns + 1000 * k, a.data, source("10.0.0.9", 7)) for k, a in enumerate(steady(50))]
    ours = write(tmp_path / "a.pcap", arrivals)
    theirs = tmp_path / "b.pcap"
    made = subprocess.run(["editcap", "-F", kind, str(ours), str(theirs)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    if kind == "modpcap":  # Kuznetzov's variant has longer record headers and another magic number
        with pytest.raises(strep.CaptureFileError, match="neither pcap nor pcapng"):
            read(theirs)
        return
    found, reader = read(theirs)
    assert found == arrivals
    assert not reader.skipped


# --- pcapng ---------------------------------------------------------------------------------------------------------


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int, *, resolution: int | None = None, offset_s: int = 0, order: str = "<") -> bytes:
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_s:
        options += struct.pack(order + "HHq", 14, 8, offset_s)
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options + (bytes(4) if options else b""), order)


def enhanced(frame: bytes, ticks: int, interface_id: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", interface_id, ticks >> 32, ticks & 0xFFFF_FFFF, len(frame), len(frame))
    return block(6, head + frame, order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("resolution", "ticks"), [(None, T0 // 1000), (6, T0 // 1000), (9, T0), (3, T0 // MS),
                                                   (0x80 | 20, (T0 << 20) // 10**9)])  # fmt: skip
def test_pcapng_time_stamps(tmp_path: Path, order: str, resolution: int | None, ticks: int) -> None:
    path = tmp_path / "a.pcapng"
    frame = ethernet(V4, 0x0800)
    path.write_bytes(
        section(order) + interface(1, resolution=resolution, order=order) + enhanced(frame, ticks, order=order)
    )
    found, _ = read(path)
    assert [(a.data, a.ns) for a in found] == [(PAYLOAD, T0)]


def test_pcapng_of_several_interfaces_sections_and_strange_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    cooked = LINKS["cooked"][1]
    raw = LINKS["raw"][1]
    strange = block(0xBAD, b"custom") + block(5, bytes(12))
    first = section() + interface(1, resolution=9) + interface(113, resolution=9) + strange
    first += enhanced(ethernet(V4, 0x0800), T0) + enhanced(cooked, T0 + 1, 1)
    second = section(">") + interface(101, resolution=9, offset_s=10, order=">")
    second += enhanced(raw, T0 + 2 - 10_000_000_000, order=">")
    path.write_bytes(first + second)
    found, reader = read(path)
    assert [(a.data, a.ns - T0) for a in found] == [(PAYLOAD, 0), (PAYLOAD, 1), (PAYLOAD, 2)]
    assert not reader.skipped


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"PK\x03\x04" + bytes(30), b"\xd4\xc3\xb2\xa1" + bytes(10), bytes(64)]
)
def test_what_is_no_capture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    with pytest.raises(strep.CaptureFileError, match=r"a\.pcap"):
        read(path)
    with pytest.raises(strep.CaptureFileError, match="cannot read"):
        read(tmp_path / "none.pcap")
    with pytest.raises(strep.CaptureFileError):
        read(tmp_path)


def test_a_file_that_is_cut_gives_what_it_has(tmp_path: Path) -> None:
    arrivals = steady(20)
    whole = write(tmp_path / "a.pcap", arrivals).read_bytes()
    record = (len(whole) - 24) // 20
    path = tmp_path / "b.pcap"
    for size in [*range(24, 24 + 2 * record + 3), len(whole) - 1]:
        path.write_bytes(whole[:size])
        found, reader = read(path)
        assert len(found) == (size - 24) // record
        assert dict(reader.skipped) == ({"truncated_file": 1} if (size - 24) % record else {})


@settings(max_examples=usual_or_slow(100, 300), deadline=None)
@given(st.data())
def test_damage_never_raises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    frame = ethernet(V4, 0x0800)
    base = data.draw(
        st.sampled_from(
            [
                pcap(1, [frame, LINKS["vlan"][1], frame] * 3),
                pcap(101, [V6] * 4, order=">"),
                section() + interface(1) + enhanced(frame, T0 // 1000) * 3,
            ]
        )
    )
    broken = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("d") / "a"
    path.write_bytes(broken[: data.draw(st.integers(24, len(broken)))])
    with contextlib.suppress(strep.CaptureFileError):  # the header itself was hit
        read(path)
