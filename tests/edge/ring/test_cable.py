"""Rings on a cable: a pair of virtual interfaces, whose far end is in a network namespace of our own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ring_frames import ipv4, udp
from support import packet

import strep
from strep._edge.ring.rings import Rings
from strep._edge.udp import SteadyClock, parse_address

pytestmark = [pytest.mark.realtime, pytest.mark.usefixtures("ring_here")]

NUMBER = os.getpid() % 1000
SPACE, NEAR, FAR = f"strepring{NUMBER}", f"strepr{NUMBER}n", f"strepr{NUMBER}f"
NEAR_IP, FAR_IP, OTHER_IP, SECOND_IP = "10.213.77.1", "10.213.77.2", "10.213.77.9", "10.213.77.10"
NEAR_IP6, FAR_IP6 = "fd77:77::1", "fd77:77::2"
OTHER_MAC = "02:00:00:00:77:09"
SMALL = 4 << 20

Sent = tuple[str, int, bytes]  # to this address and port

_SENDER = """
import json, socket, sys, time
sockets = {}
for host, port, data, source in json.load(sys.stdin):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if (family, source) not in sockets:
        sockets[family, source] = one = socket.socket(family, socket.SOCK_DGRAM)
        if source:
            one.bind(("::" if ":" in host else "0.0.0.0", source))
    sockets[family, source].sendto(bytes.fromhex(data), (host, port))
    time.sleep(0.0005)
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def laid() -> Iterator[None]:
    try:
        run("ip", "netns", "add", SPACE)
        run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", SPACE)
        there = ("ip", "-n", SPACE)
        for where, name, ip, ip6 in ((("ip",), NEAR, NEAR_IP, NEAR_IP6), (there, FAR, FAR_IP, FAR_IP6)):
            run(*where, "address", "add", f"{ip}/24", "dev", name)
            run(*where, "address", "add", f"{ip6}/64", "dev", name, "nodad")
            run(*where, "link", "set", name, "up")
        # somebody else, whose packets come by
        for other in (OTHER_IP, SECOND_IP):
            run(*there, "neighbour", "add", other, "lladdr", OTHER_MAC, "dev", FAR)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", SPACE], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", NEAR], capture_output=True, check=False)


@pytest.fixture(scope="module")
def cable() -> Iterator[None]:
    if sys.platform != "linux" or not shutil.which("ip"):
        pytest.skip("network namespaces need Linux and iproute2")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(laid())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield


def send(sent: Sequence[Sent], source: int = 0) -> None:
    """From the far end, all before it returns."""
    text = json.dumps([(host, port, data.hex(), source) for host, port, data in sent])
    command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", _SENDER]
    subprocess.run(command, input=text, check=True, capture_output=True, text=True)


def payloads_of(rings: Rings, count: int = 0) -> list[bytes]:
    """What has come; so many, if they come within 2 s: a cable's other core may be late with what was sent."""
    found: list[bytes] = []
    until_s = time.monotonic() + 2.0
    while True:
        while (batch := rings.receive()) is not None:
            found += [batch.data(i) for i in range(len(batch))]
        if len(found) >= count or time.monotonic() > until_s:
            return found
        time.sleep(0.002)


@contextlib.contextmanager
def ring(address: str, *interfaces: str) -> Iterator[tuple[Rings, int]]:
    rings = Rings(interfaces, receive_buffer=SMALL, clock=SteadyClock())
    port = rings.open(parse_address(address), SMALL)
    rings.add(port)
    try:
        yield rings, port.local_port
    finally:
        rings.close()
        port.close()


@pytest.mark.serial  # a ring on all addresses meets the fragments of other tests too
@pytest.mark.parametrize("host", [NEAR_IP, NEAR_IP6, "0.0.0.0"])
def test_fragments_and_lengths(cable: None, host: str) -> None:
    """What is longer than 1,500 bytes comes in fragments, and is put together."""
    sizes = [0, 12, 172, 832, 1400, 1472, 1473, 3000, 20_000, 65_507]
    payloads = [bytes((size * 3 + i) & 0xFF for i in range(size)) for size in sizes]
    to = NEAR_IP if host == "0.0.0.0" else host
    with ring(f"[{host}]:0" if ":" in host else f"{host}:0") as (rings, port):
        send([(to, port, payload) for payload in payloads])
        assert payloads_of(rings, len(payloads)) == payloads
        assert not +rings.skipped
        assert (rings.kernel_dropped(), rings.count_rest()) == (0, 0)


def test_a_checksum_that_is_wrong_is_counted(cable: None) -> None:
    """The far end computes checksums itself (no offload), and one packet is made by hand."""
    raw = f"""
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for checksum in (0x1234, 0):
    s.sendto(struct.pack("!HHHH", 4000, PORT, 8 + 20, checksum) + b"y" * 20, ("{NEAR_IP}", 0))
"""
    with ring(f"{NEAR_IP}:0") as (rings, port):
        command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", raw.replace("PORT", str(port))]
        subprocess.run(command, check=True, capture_output=True)
        assert payloads_of(rings, 1) == [b"y" * 20]  # 0: there is none
        assert +rings.skipped == {"bad_checksum": 1}


def test_interfaces(cable: None) -> None:
    """Those of the address by default; one that is named alone."""
    with ring(f"{NEAR_IP}:0") as (rings, port):
        send([(NEAR_IP, port, b"far")])
        assert (payloads_of(rings, 1), rings.interfaces) == ([b"far"], f"lo, {NEAR}")
    with ring("0.0.0.0:0", "lo") as (rings, port):
        send([(NEAR_IP, port, b"far")])
        assert payloads_of(rings) == []
    with ring("0.0.0.0:0", NEAR) as (rings, port):
        send([(NEAR_IP, port, b"far")])
        assert payloads_of(rings, 1) == [b"far"]


_RAW = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((sys.argv[1], 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
"""


def send_frames(frames: Sequence[bytes]) -> None:
    """Ethernet, as it is, from the far end."""
    text = "\n".join(frame.hex() for frame in frames)
    command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", _RAW, FAR]
    subprocess.run(command, input=text, check=True, capture_output=True, text=True)


def mac_of(name: str) -> bytes:
    text = json.loads(run("ip", "-j", "link", "show", name))[0]["address"]
    return bytes.fromhex(text.replace(":", ""))


def tagged(to: bytes, *tags: int) -> bytes:
    return to + b"\x02\0\0\0\0\x07" + b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags) + b"\x08\x00"


def test_a_vlan_that_this_machine_has_no_device_for_is_not_ours(cable: None) -> None:
    with ring("0.0.0.0:0") as (rings, port):
        packets = [ipv4(udp(bytes([n]) * 20, NEAR_IP, FAR_IP, port=port), NEAR_IP, FAR_IP) for n in range(4)]
        to = mac_of(NEAR)
        send_frames([tagged(to, 7) + packets[1], tagged(to) + packets[0], tagged(to, 7, 8) + packets[2]])
        send_frames([tagged(to, 0) + packets[3]])  # VLAN 0 is none
        assert payloads_of(rings, 2) == [bytes([0]) * 20, bytes([3]) * 20]


def test_sniffing_looks_into_vlans(cable: None) -> None:
    rings = Rings([NEAR], receive_buffer=SMALL, clock=SteadyClock(), sniff="dst port 10000")
    packets = [ipv4(udp(bytes([n]) * 20, OTHER_IP, FAR_IP, port=10_000), OTHER_IP, FAR_IP) for n in range(3)]
    try:
        to = bytes.fromhex(OTHER_MAC.replace(":", ""))
        send_frames([tagged(to, *range(n)) + data for n, data in enumerate(packets)])
        assert payloads_of(rings, 3) == [bytes([n]) * 20 for n in range(3)]
    finally:
        rings.close()


def test_what_passes_through_is_not_ours(cable: None) -> None:
    """A machine that forwards sees packets to others under its own hardware address."""
    mac = json.loads(run("ip", "-j", "link", "show", NEAR))[0]["address"]
    run("ip", "-n", SPACE, "neighbour", "replace", OTHER_IP, "lladdr", mac, "dev", FAR)
    try:
        with ring("0.0.0.0:0") as (rings, port):
            send([(OTHER_IP, port, b"not for us"), (NEAR_IP, port, b"for us")])
            assert payloads_of(rings, 1) == [b"for us"]
            assert +rings.skipped == {"forwarded": 1}
    finally:
        run("ip", "-n", SPACE, "neighbour", "replace", OTHER_IP, "lladdr", OTHER_MAC, "dev", FAR)


# --- sniffing ---------------------------------------------------------------------------------------------------------


def conversation() -> list[Sent]:
    """Two streams to one port of another machine, one to another port, one that differs from the first by its
    destination only, and what the expression leaves out; of one packets are missing."""
    sent: list[Sent] = []
    for i in range(120):
        sent.append((OTHER_IP, 10_000, packet(i, call=None, ssrc=1)))
        sent.append((OTHER_IP, 10_000, packet(i, call=None, ssrc=2)))
        if i % 10:
            sent.append((OTHER_IP, 10_002, packet(i, call=None, ssrc=3)))
        sent.append((SECOND_IP, 10_000, packet(1000 + i, call=None, ssrc=1)))
        sent.append((OTHER_IP, 30_000, packet(i, call=None, ssrc=4)))
    sent.append((OTHER_IP, 10_004, bytes(4000)))  # fragments
    return sent


TIMES = {"first_arrival", "first_arrival_ns", "last_arrival_ns", "jitter_ms", "end", "skew_ppm", "media_ratio"}


@contextlib.contextmanager
def captured_by_dumpcap(path: Path) -> Iterator[None]:
    """What it takes is chosen by address, and not by the expression that is tested."""
    command = ["dumpcap", "-q", "-i", NEAR, "-P", "-f", f"dst host {OTHER_IP} or dst host {SECOND_IP}", "-w", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as dumpcap:
        assert dumpcap.stderr is not None
        assert "Capturing" in dumpcap.stderr.readline()
        while not path.exists() or path.stat().st_size < 24:
            time.sleep(0.02)
        yield
        dumpcap.terminate()


@pytest.mark.witness
async def test_sniffing_is_the_replay_of_what_dumpcap_captured(cable: None, tmp_path: Path) -> None:
    """The packets are addressed to another machine. dumpcap records them; the replay's streams are those of the live
    run: packets, losses, jitter, keys."""
    if not shutil.which("dumpcap"):
        pytest.skip("dumpcap is not here")
    path = tmp_path / "dumpcap.pcap"
    with captured_by_dumpcap(path):
        options = {"interface": [NEAR], "sniff": "udp portrange 10000-20000", "receive_buffer": SMALL}
        own = tmp_path / "own.pcap"
        async with strep.Receiver(**options, latency_ms=200, pcap=own) as receiver:  # type: ignore[arg-type]
            await asyncio.to_thread(send, conversation(), 5555)
            while receiver.totals().datagrams < 120 * 3 + 108 + 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    live = {report.stream.name: report.as_dict() for report in receiver.reports()}
    assert [one["ssrcs"] for one in live.values()] == [[1], [2], [1], [3]]
    assert [name.removeprefix("rtp-") for name in live] == [
        "10000-00000001", "10000-00000002", f"10000-00000001-{FAR_IP.replace('.', '_')}-5555", "10002-00000003",
    ]  # fmt: skip
    for file in (path, own):
        check_replay(live, {r.stream.name: r.as_dict() for r in strep.replay(file).reports()})
    assert [(s.role, s.address) for s in receiver.sockets] == [("sniff", NEAR)]
    lost = [report.packets_lost for report in receiver.reports()]
    assert lost == [0, 0, 0, 11]  # the first of the twelve that are missing is before the stream begins
    assert receiver.totals().by_kind["other"] + receiver.totals().by_kind["t38"] >= 1  # the fragments, as one


def check_replay(live: dict[str, dict[str, Any]], again: dict[str, dict[str, Any]]) -> None:
    again = {name: report for name, report in again.items() if report["local_port"] < 20_000}
    assert list(live) == list(again)
    for name, report in live.items():
        other = again[name]
        assert abs(report["first_arrival_ns"] - other["first_arrival_ns"]) < 2_000_000
        assert report["jitter_ms"]["mean"] == pytest.approx(other["jitter_ms"]["mean"], abs=0.5)
        assert {k: v for k, v in report.items() if k not in TIMES} == {k: v for k, v in other.items() if k not in TIMES}


async def test_sniffing_needs_an_interface_and_no_ports() -> None:
    with pytest.raises(strep.ConfigurationError, match="sniff needs interface"):
        strep.Receiver(sniff="udp port 5004")
    with pytest.raises(strep.ConfigurationError, match="give no listen, rx, tx or pairs"):
        strep.Receiver("127.0.0.1:0", interface=["lo"], sniff="udp port 5004")
    with pytest.raises(strep.ConfigurationError, match="are for a packet ring"):
        strep.Receiver("127.0.0.1:0", interface=["lo"], transport="portable")
