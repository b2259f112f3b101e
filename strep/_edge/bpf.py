"""Classic BPF: the instructions that programs here are made of (linux/bpf_common.h, linux/filter.h), and how a socket
gets one. A program for a packet socket counts bytes from the link header on, one for a UDP socket from the UDP header
on, one that steers sockets from the payload on, one that steers packet sockets from the IP header on."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final

__all__ = ["DROP", "KEEP", "SO_ATTACH_FILTER", "Instruction", "attach"]

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

SO_ATTACH_FILTER: Final = 26
_WHOLE: Final = 0x40000  # bytes

# P: the packet; M: 16 places in memory
LOAD_WORD: Final = 0x20  # A = P[k:4], network order
LOAD_HALF: Final = 0x28
LOAD_BYTE: Final = 0x30
LOAD_WORD_AT_X: Final = 0x40  # A = P[X + k:4]
LOAD_HALF_AT_X: Final = 0x48
LOAD_BYTE_AT_X: Final = 0x50
SET: Final = 0x00  # A = k
SET_X: Final = 0x01
SET_X_LENGTH: Final = 0xB1  # X = 4 * (P[k] & 15): of an IPv4 header
STORE: Final = 0x02  # M[k] = A
STORE_X: Final = 0x03
RECALL: Final = 0x60  # A = M[k]
RECALL_X: Final = 0x61
A_TO_X: Final = 0x07
ADD: Final = 0x04  # A += k
ADD_X: Final = 0x0C  # A += X
MULTIPLY: Final = 0x24
MODULO: Final = 0x94
AND: Final = 0x54
AND_X: Final = 0x5C
OR_X: Final = 0x4C
XOR: Final = 0xA4
XOR_X: Final = 0xAC
SHIFT_LEFT: Final = 0x64
SHIFT_RIGHT: Final = 0x74
JUMP: Final = 0x05  # by k
JUMP_EQUAL: Final = 0x15
JUMP_ABOVE: Final = 0x25
JUMP_AT_LEAST: Final = 0x35
JUMP_BITS: Final = 0x45  # if any of k's bits is in A
RETURN: Final = 0x06  # k
RETURN_A: Final = 0x16

NET_OFFSET: Final = 0xFFF0_0000  # SKF_NET_OFF: bytes counted from the IP header
_ANCILLARY: Final = 0xFFFF_F000  # SKF_AD_OFF
PACKET_TYPE: Final = _ANCILLARY + 4
INTERFACE: Final = _ANCILLARY + 8
HARDWARE_TYPE: Final = _ANCILLARY + 28
ETHERNET: Final = 1  # of HARDWARE_TYPE
LOOPBACK: Final = 772

DROP: Final[Instruction] = (RETURN, 0, 0, 0)
KEEP: Final[Instruction] = (RETURN, 0, 0, _WHOLE)


def attach(sock: socket.socket, option: int, program: Sequence[Instruction], *, level: int = socket.SOL_SOCKET) -> None:
    """Give a socket a program. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a length, padding as the machine wants it, a pointer
    sock.setsockopt(level, option, struct.pack("@HP", len(program), ctypes.addressof(buffer)))
