"""Classic BPF programs that say which packets the kernel puts into the ring. Pure.

Byte 0 is where the link header begins; behind a link without one (tunnels), bytes are counted from the IP header in
another way. X holds that place. Fragments behind the first have no ports, and pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .layout import IPV4, LINK_BYTES, IpVersion

__all__ = ["Instruction", "Range", "port_program", "ranges_of"]

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

MOST_RANGES: Final = 64  # of ports in a program: jumps reach 255 instructions; the gaps between others are let in too
_WHOLE: Final = 0x40000  # bytes to keep

# linux/bpf_common.h, linux/filter.h
_LOAD: Final = 0x20
_LOAD_BYTE_AT_X: Final = 0x50
_LOAD_HALF_AT_X: Final = 0x48
_LOAD_WORD_AT_X: Final = 0x40
_SET_X: Final = 0x01
_AND: Final = 0x54
_SHIFT_LEFT: Final = 0x64
_ADD_X: Final = 0x0C
_A_TO_X: Final = 0x07
_JUMP: Final = 0x05
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_BITS: Final = 0x45
_RETURN: Final = 0x06
_NET_OFFSET: Final = 0xFFF0_0000  # SKF_NET_OFF: bytes counted from the IP header
_ANCILLARY: Final = 0xFFFF_F000  # SKF_AD_OFF
_PACKET_TYPE: Final = _ANCILLARY + 4
_INTERFACE: Final = _ANCILLARY + 8
_HARDWARE_TYPE: Final = _ANCILLARY + 28
_FOR_US: Final = 0  # PACKET_HOST
_ETHERNET: Final = 1
_LOOPBACK: Final = 772
_UDP: Final = 17
_FRAGMENT: Final = 44  # IPv6's next header; 0, 43, 60, 51 and others may stand before UDP too
_MAY_STAND_BEFORE_UDP: Final = (0, 43, _FRAGMENT, 51, 60, 135, 139, 140)

DROP: Final[Instruction] = (_RETURN, 0, 0, 0)
KEEP: Final[Instruction] = (_RETURN, 0, 0, _WHOLE)


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
        (_LOAD, 0, 0, _PACKET_TYPE),
        *_unless(_FOR_US),
        *(_from_interfaces(sorted(interfaces)) if interfaces else ()),
        *_find_ip(),
        *(_udp_of_4() if version is IPV4 else _udp_of_6()),
        (_LOAD_HALF_AT_X, 0, 0, 2),
        *_tree(ports),
    ]


def _unless(value: int) -> list[Instruction]:
    """Drop unless A is this."""
    return [(_JUMP_EQUAL, 1, 0, value), DROP]


def _from_interfaces(interfaces: Sequence[int]) -> list[Instruction]:
    n = len(interfaces)
    return [
        (_LOAD, 0, 0, _INTERFACE),
        *((_JUMP_EQUAL, n - i, 0, index) for i, index in enumerate(interfaces)),
        DROP,
    ]


def _find_ip() -> list[Instruction]:
    """X: where the IP header begins."""
    return [
        (_LOAD, 0, 0, _HARDWARE_TYPE),
        (_JUMP_EQUAL, 3, 0, _ETHERNET),
        (_JUMP_EQUAL, 2, 0, _LOOPBACK),
        (_SET_X, 0, 0, _NET_OFFSET),
        (_JUMP, 0, 0, 1),
        (_SET_X, 0, 0, LINK_BYTES),
    ]


def _udp_of_4() -> list[Instruction]:
    """X goes on to the UDP header of IPv4."""
    return [
        (_LOAD_BYTE_AT_X, 0, 0, 9),
        *_unless(_UDP),
        (_LOAD_HALF_AT_X, 0, 0, 6),
        (_JUMP_BITS, 0, 1, 0x1FFF),
        KEEP,
        (_LOAD_BYTE_AT_X, 0, 0, 0),
        (_AND, 0, 0, 15),
        (_SHIFT_LEFT, 0, 0, 2),
        (_ADD_X, 0, 0, 0),
        (_A_TO_X, 0, 0, 0),
    ]


def _udp_of_6() -> list[Instruction]:
    n = len(_MAY_STAND_BEFORE_UDP)
    return [
        (_LOAD_BYTE_AT_X, 0, 0, 6),
        (_JUMP_EQUAL, n + 2, 0, _UDP),
        *((_JUMP_EQUAL, n - i, 0, header) for i, header in enumerate(_MAY_STAND_BEFORE_UDP)),
        DROP,
        KEEP,
        (_SET_A, 0, 0, 40),
        (_ADD_X, 0, 0, 0),
        (_A_TO_X, 0, 0, 0),
    ]


_SET_A: Final = 0x00


def _tree(ranges: list[tuple[int, int]]) -> list[Instruction]:
    """Whether A lies in one of the ranges, by halves: ``bounds`` are where being inside begins and ends in turn."""
    bounds = [bound for first, last in ranges for bound in (first, last + 1)]

    def below(begin: int, end: int) -> list[Instruction]:
        """A lies at or after bound ``begin`` - 1 and before bound ``end``."""
        if begin == end:
            return [KEEP if begin % 2 else DROP]
        middle = (begin + end) // 2
        left, right = below(begin, middle), below(middle + 1, end)
        return [(_JUMP_GREATER_EQUAL, len(left), 0, bounds[middle]), *left, *right]

    return below(0, len(bounds))
