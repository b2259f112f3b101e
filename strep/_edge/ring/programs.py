"""Classic BPF programs that say which packets the kernel puts into the ring. Pure.

Byte 0 is where the link header begins; behind a link without one (tunnels), bytes are counted from the IP header in
another way. X holds that place. Fragments behind the first have no ports, and pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .. import bpf
from ..bpf import DROP, KEEP, Instruction
from .layout import IPV4, LINK_BYTES, IpVersion

__all__ = ["Range", "port_program", "ranges_of"]

MOST_RANGES: Final = 64  # of ports in a program: jumps reach 255 instructions; the gaps between others are let in too

_FOR_US: Final = 0  # PACKET_HOST
_UDP: Final = 17
_FRAGMENT: Final = 44  # IPv6's next header; 0, 43, 60, 51 and others may stand before UDP too
_MAY_STAND_BEFORE_UDP: Final = (0, 43, _FRAGMENT, 51, 60, 135, 139, 140)


Range = tuple[int, int]  # of ports: the first, the last


def ranges_of(ports: npt.NDArray[np.bool_], most: int = MOST_RANGES) -> list[Range]:
    """Ports, as a table of all, as at most so many ranges: the smallest gaps between them are closed."""
    edges = np.flatnonzero(np.diff(ports.astype(np.int8), prepend=0, append=0))
    ranges = [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2).tolist()]
    if len(ranges) > most:
        gaps = sorted((ranges[i + 1][0] - ranges[i][1], i) for i in range(len(ranges) - 1))
        closed = {i for _, i in gaps[: len(ranges) - most]}
        joined = [ranges[0]]
        for i, (first, last) in enumerate(ranges[1:]):
            joined[-1:] = [(joined[-1][0], last)] if i in closed else [joined[-1], (first, last)]
        ranges = joined
    return ranges


def port_program(version: IpVersion, ports: list[Range], interfaces: Collection[int] = ()) -> list[Instruction]:
    """Keep UDP to these ports that is addressed to this machine, from these interfaces (by index; none: all), and
    what has no ports to look at: later fragments, and packets with extension headers."""
    if not ports:
        return [DROP]
    return [
        (bpf.LOAD_WORD, 0, 0, bpf.PACKET_TYPE),
        *_unless(_FOR_US),
        *(_from_interfaces(sorted(interfaces)) if interfaces else ()),
        *_find_ip(),
        *(_udp_of_4() if version is IPV4 else _udp_of_6()),
        (bpf.LOAD_HALF_AT_X, 0, 0, 2),
        *_tree(ports),
    ]


def _unless(value: int) -> list[Instruction]:
    """Drop unless A is this."""
    return [(bpf.JUMP_EQUAL, 1, 0, value), DROP]


def _from_interfaces(interfaces: Sequence[int]) -> list[Instruction]:
    n = len(interfaces)
    return [
        (bpf.LOAD_WORD, 0, 0, bpf.INTERFACE),
        *((bpf.JUMP_EQUAL, n - i, 0, index) for i, index in enumerate(interfaces)),
        DROP,
    ]


def _find_ip() -> list[Instruction]:
    """X: where the IP header begins."""
    return [
        (bpf.LOAD_WORD, 0, 0, bpf.HARDWARE_TYPE),
        (bpf.JUMP_EQUAL, 3, 0, bpf.ETHERNET),
        (bpf.JUMP_EQUAL, 2, 0, bpf.LOOPBACK),
        (bpf.SET_X, 0, 0, bpf.NET_OFFSET),
        (bpf.JUMP, 0, 0, 1),
        (bpf.SET_X, 0, 0, LINK_BYTES),
    ]


def _udp_of_4() -> list[Instruction]:
    """X goes on to the UDP header of IPv4."""
    return [
        (bpf.LOAD_BYTE_AT_X, 0, 0, 9),
        *_unless(_UDP),
        (bpf.LOAD_HALF_AT_X, 0, 0, 6),
        (bpf.JUMP_BITS, 0, 1, 0x1FFF),
        KEEP,
        (bpf.LOAD_BYTE_AT_X, 0, 0, 0),
        (bpf.AND, 0, 0, 15),
        (bpf.SHIFT_LEFT, 0, 0, 2),
        (bpf.ADD_X, 0, 0, 0),
        (bpf.A_TO_X, 0, 0, 0),
    ]


def _udp_of_6() -> list[Instruction]:
    n = len(_MAY_STAND_BEFORE_UDP)
    return [
        (bpf.LOAD_BYTE_AT_X, 0, 0, 6),
        (bpf.JUMP_EQUAL, n + 2, 0, _UDP),
        *((bpf.JUMP_EQUAL, n - i, 0, header) for i, header in enumerate(_MAY_STAND_BEFORE_UDP)),
        DROP,
        KEEP,
        (bpf.SET, 0, 0, 40),
        (bpf.ADD_X, 0, 0, 0),
        (bpf.A_TO_X, 0, 0, 0),
    ]


def _tree(ranges: list[tuple[int, int]]) -> list[Instruction]:
    """Whether A lies in one of the ranges, by halves: ``bounds`` are where being inside begins and ends in turn."""
    bounds = [bound for first, last in ranges for bound in (first, last + 1)]

    def below(begin: int, end: int) -> list[Instruction]:
        """A lies at or after bound ``begin`` - 1 and before bound ``end``."""
        if begin == end:
            return [KEEP if begin % 2 else DROP]
        middle = (begin + end) // 2
        left, right = below(begin, middle), below(middle + 1, end)
        return [(bpf.JUMP_AT_LEAST, len(left), 0, bounds[middle]), *left, *right]

    return below(0, len(bounds))
