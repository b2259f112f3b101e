"""Traffic between others: where it goes tells streams apart, in captures as on a wire."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import numpy as np
import pytest
from ring_frames import HERE6, THERE, ipv4, ipv6, udp
from support import MS, T0, Arrival, batch_of, packet

import strep
from strep._edge.pcap import PcapReader, PcapWriter
from strep._model.datagrams import DatagramBatch, joined

DESTINATIONS = ["10.0.0.1", "10.0.0.9", "2001:db8::1", "2001:db8::99"]


def capture(path: Path, packets: list[tuple[int, bytes]]) -> Path:
    """Of IP packets as they are (LINKTYPE_RAW), at these times."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 101)]
    for ns, data in packets:
        out.append(struct.pack("<IIII", *divmod(ns, 1_000_000_000), len(data), len(data)) + data)
    path.write_bytes(b"".join(out))
    return path


def sent(to: str, payload: bytes) -> bytes:
    if ":" in to:
        return ipv6(udp(payload, to, "2001:db8::2", port=10_000), to, "2001:db8::2")
    return ipv4(udp(payload, to, THERE, port=10_000), to, THERE)


@pytest.mark.parametrize("pin", ["address", "network", "off"])
def test_streams_that_differ_by_their_destination_only(tmp_path: Path, pin: str) -> None:
    """One sender, one port, one SSRC, four receivers, and as many streams: nothing is a duplicate or lost."""
    packets = [
        (T0 + k * 20 * MS + n, sent(to, packet(1000 * n + k, call=None, ssrc=7)))
        for k in range(50)
        for n, to in enumerate(DESTINATIONS)
    ]
    replayed = strep.replay(capture(tmp_path / "a.pcap", packets), pin=pin)
    reports = replayed.reports()
    assert [(r.packets_received, r.packets_lost, r.duplicates) for r in reports] == [(50, 0, 0)] * 4
    names = [r.stream.name for r in reports]
    assert names[0] == "rtp-10000-00000007"
    assert len(set(names)) == 4
    assert all(name.startswith("rtp-10000-00000007-") for name in names[1:])
    assert replayed.totals().delivered == 200


def test_a_call_leg_is_one_wherever_it_goes(tmp_path: Path) -> None:
    """STREP says itself what belongs together."""
    packets = [(T0 + k * 20 * MS, sent(DESTINATIONS[k % 2], packet(k))) for k in range(50)]
    (report,) = strep.replay(capture(tmp_path / "a.pcap", packets)).reports()
    assert (report.packets_received, report.packets_lost) == (50, 0)


def destinations(batch: DatagramBatch) -> list[str]:
    assert batch.destination_hi is not None
    assert batch.destination_lo is not None
    words = zip(batch.destination_hi.tolist(), batch.destination_lo.tolist(), strict=True)
    found = [ipaddress.IPv6Address(hi << 64 | lo) for hi, lo in words]
    return [str(address.ipv4_mapped or address) for address in found]


def test_a_recording_of_it_keeps_the_destinations(tmp_path: Path) -> None:
    packets = [(T0 + n * MS, sent(to, packet(n, call=None))) for n, to in enumerate(DESTINATIONS * 2)]
    with PcapReader(capture(tmp_path / "a.pcap", packets)) as reader:
        (batch,) = (one.copy() for one in reader.batches())
    writer = PcapWriter(tmp_path / "b.pcap", roles={10_000: 1})
    writer.write(batch)
    writer.close()
    with PcapReader(tmp_path / "b.pcap") as reader:
        (again,) = (one.copy() for one in reader.batches())
        assert reader.roles == {}  # no port of ours
    assert destinations(batch) == destinations(again) == DESTINATIONS * 2
    assert [again.data(i) for i in range(8)] == [batch.data(i) for i in range(8)]
    assert destinations(batch.take(np.array([3, 1]))) == [DESTINATIONS[3], DESTINATIONS[1]]


def test_what_came_to_us_has_none(tmp_path: Path) -> None:
    """A recording of our own ports says what the receiver said: nothing of where it was sent."""
    path = tmp_path / "own.pcap"
    writer = PcapWriter(path)
    ours = batch_of([Arrival(T0 + n, packet(n)) for n in range(3)])
    assert ours.destination_lo is None
    writer.write(ours)
    writer.close()
    with PcapReader(path) as reader:
        (batch,) = (one.copy() for one in reader.batches())
    assert destinations(batch) == ["::"] * 3
    assert destinations(joined([ours, batch])) == ["::"] * 6
    assert joined([ours, ours]).destination_hi is None


def test_of_homers_datagrams_it_is_what_they_say(tmp_path: Path) -> None:
    """HEP version 3: the chunks 4 and 6 are destinations."""

    def chunk(kind: int, data: bytes) -> bytes:
        return struct.pack("!HHH", 0, kind, 6 + len(data)) + data

    bodies = []
    for n, to in enumerate(DESTINATIONS):
        six = ":" in to
        addresses = [ipaddress.ip_address(HERE6 if six else THERE).packed, ipaddress.ip_address(to).packed]
        chunks = [chunk(kind, data) for kind, data in zip((5, 6) if six else (3, 4), addresses, strict=True)]
        chunks += [chunk(7, b"\x10\x00"), chunk(8, b"\x27\x10"), chunk(15, packet(n, call=None))]
        body = b"".join(chunks)
        bodies.append(b"HEP3" + struct.pack("!H", 6 + len(body)) + body)
    packets = [(T0 + n * MS, ipv4(udp(body, port=9060))) for n, body in enumerate(bodies)]
    with PcapReader(capture(tmp_path / "a.pcap", packets)) as reader:
        found = [to for batch in reader.batches() for to in destinations(batch)]
    assert found == DESTINATIONS
