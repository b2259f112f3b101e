"""What the filter of a ring lets in: run in a machine of our own, against what a packet is."""

from __future__ import annotations

import bpf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_frames import HERE6, THERE6, ipv4, ipv6, udp

from strep._edge.bpf import Instruction
from strep._edge.ring.layout import IPV4, IPV6, IpVersion
from strep._edge.ring.programs import MOST_RANGES, port_program, ranges_of

PACKET_TYPE, INTERFACE, HARDWARE = 4, 8, 28
ETHERNET, LOOPBACK, NO_LINK = 1, 772, 65_534


def table(ports: set[int]) -> npt.NDArray[np.bool_]:
    made = np.zeros(1 << 16, np.bool_)
    made[list(ports)] = True
    return made


def lets_in(
    program: list[Instruction], packet: bytes, *, kind: int = 0, interface: int = 3, hardware: int = ETHERNET
) -> bool:  # fmt: skip
    link = b"" if hardware == NO_LINK else bytes(14)
    known = {PACKET_TYPE: kind, INTERFACE: interface, HARDWARE: hardware}
    return bpf.run(program, link + packet, net=len(link), ancillary=known) > 0


@given(st.sets(st.integers(1, 65_535), max_size=300), st.lists(st.integers(0, 65_535), max_size=30))
def test_ports_and_ranges(ports: set[int], others: list[int]) -> None:
    """Every bound port passes. Others pass only where the ranges are more than a program has room for."""
    ranges = ranges_of(table(ports))
    assert len(ranges) <= MOST_RANGES
    assert ranges == sorted(ranges)
    program = port_program(IPV4, ranges)
    exact = len(ranges_of(table(ports), 1 << 16)) <= MOST_RANGES
    covered = {port for first, last in ranges for port in range(first, last + 1)}
    assert covered >= ports
    assert not exact or covered == ports
    edges = [port for first, last in ranges for port in (first - 1, first, last, last + 1)]
    for port in {*others, *edges, 0, 65_535}:
        if 0 <= port <= 65_535:
            assert lets_in(program, ipv4(udp(b"x", port=port))) == (port in covered)


@pytest.mark.parametrize("hardware", [ETHERNET, LOOPBACK, NO_LINK])
@pytest.mark.parametrize("version", [IPV4, IPV6])
def test_what_is_udp_to_us(version: IpVersion, hardware: int) -> None:
    program = port_program(version, [(9000, 9000)])

    def passes(packet: bytes, **how: int) -> bool:
        return lets_in(program, packet, hardware=hardware, **how)

    packet, other = (
        (ipv4(udp(b"x")), ipv4(udp(b"x", port=9001)))
        if version is IPV4
        else (ipv6(udp(b"x", HERE6, THERE6)), ipv6(udp(b"x", HERE6, THERE6, port=9001)))
    )
    assert passes(packet)
    assert not passes(other)
    for kind in (1, 2, 3, 4):  # broadcast, multicast, to another host, sent
        assert not passes(packet, kind=kind)
    tcp = ipv4(bytes(40), protocol=6) if version is IPV4 else ipv6(bytes(40), following=6)
    assert not passes(tcp)
    assert not passes(packet[:20])


def test_options_move_the_port_and_fragments_have_none() -> None:
    program = port_program(IPV4, [(9000, 9000)])
    assert lets_in(program, ipv4(udp(b"x"), options=bytes(8)))
    assert lets_in(program, ipv4(udp(b"x"), options=bytes(40)))
    assert not lets_in(program, ipv4(udp(b"x", port=9001), options=bytes(8)))
    assert lets_in(program, ipv4(udp(b"x"), fragment=0x2000))  # the first one
    assert not lets_in(program, ipv4(udp(b"x", port=9001), fragment=0x2000))
    assert lets_in(program, ipv4(bytes(100), fragment=0x2001))  # whose it is, the first one tells
    assert not lets_in(program, ipv4(bytes(100), fragment=0x2001, protocol=6))


def test_extension_headers_pass() -> None:
    program = port_program(IPV6, [(9000, 9000)])
    for header in (0, 43, 44, 51, 60, 135, 139, 140):
        assert lets_in(program, ipv6(bytes(40), following=header))
    for header in (4, 6, 41, 47, 50, 58, 59, 132):
        assert not lets_in(program, ipv6(bytes(40), following=header))


def test_interfaces() -> None:
    packet = ipv4(udp(b"x"))
    program = port_program(IPV4, [(9000, 9000)], [7, 1, 9])
    assert [index for index in range(12) if lets_in(program, packet, interface=index)] == [1, 7, 9]


def test_no_port_no_packet() -> None:
    assert not lets_in(port_program(IPV4, []), ipv4(udp(b"x")))
