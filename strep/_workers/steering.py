"""Which worker a datagram goes to: a classic BPF program for the kernel, and the same in Python.

Both directions and both legs of a call_leg_id meet in one worker, and so do all packets of a plain RTP source. What is
neither goes to worker 0, as does what is too short: a load past the end of the datagram ends the program with 0.

    word = STREP (first bits 11): call_leg_id's four words XORed · RTP (10): SSRC
    worker = (word * 0x9E3779B1 mod 2^32 >> 16) mod N      Knuth's multiplicative hash: ids that count up spread too
"""

from __future__ import annotations

import socket
import struct
import sys
from functools import reduce
from operator import xor
from typing import Final

from .._edge import bpf
from .._edge.bpf import DROP, Instruction, attach

__all__ = ["attach_program", "program_for", "steering_problem", "worker_of"]

_SO_ATTACH_REUSEPORT_CBPF: Final = 51

_HASH_FACTOR: Final = 0x9E37_79B1
_WORD_MASK: Final = 0xFFFF_FFFF
_CALL_LEG_ID: Final = (8, 12, 16, 20)  # where its words stand in a STREP datagram
_SSRC: Final = 8  # in a plain RTP datagram


def program_for(workers: int) -> list[Instruction]:
    """The program: its result is the index of a socket in the SO_REUSEPORT group, 0 to ``workers`` - 1."""
    leg: list[Instruction] = [(bpf.LOAD_WORD, 0, 0, _CALL_LEG_ID[0])]
    for offset in _CALL_LEG_ID[1:]:
        leg += [(bpf.STORE, 0, 0, 0), (bpf.LOAD_WORD, 0, 0, offset), (bpf.RECALL_X, 0, 0, 0), (bpf.XOR_X, 0, 0, 0)]
    return [
        (bpf.LOAD_BYTE, 0, 0, 0),
        (bpf.AND, 0, 0, 0xC0),
        (bpf.JUMP_EQUAL, 2, 0, 0xC0),  # STREP: to the leg
        (bpf.JUMP_EQUAL, len(leg) + 2, 0, 0x80),  # RTP: to the SSRC
        DROP,
        *leg,
        (bpf.JUMP, 0, 0, 1),  # over the SSRC
        (bpf.LOAD_WORD, 0, 0, _SSRC),
        (bpf.MULTIPLY, 0, 0, _HASH_FACTOR),
        (bpf.SHIFT_RIGHT, 0, 0, 16),
        (bpf.MODULO, 0, 0, workers),
        (bpf.RETURN_A, 0, 0, 0),
    ]


def worker_of(datagram: bytes, workers: int) -> int:
    """The worker that the program sends this datagram (a UDP payload) to."""
    kind = datagram[0] & 0xC0 if datagram else 0
    if kind == 0xC0 and len(datagram) >= _CALL_LEG_ID[-1] + 4:
        word: int = reduce(xor, struct.unpack_from("!4I", datagram, _CALL_LEG_ID[0]))
    elif kind == 0x80 and len(datagram) >= _SSRC + 4:
        (word,) = struct.unpack_from("!I", datagram, _SSRC)
    else:
        return 0
    return ((word * _HASH_FACTOR & _WORD_MASK) >> 16) % workers


def attach_program(member: socket.socket, workers: int) -> None:
    """Have the kernel steer by :func:`program_for`; ``member`` is any socket of the group. Raises OSError."""
    if sys.platform != "linux":
        raise OSError("only Linux steers datagrams by a program")
    attach(member, _SO_ATTACH_REUSEPORT_CBPF, program_for(workers))


def steering_problem() -> str | None:
    """Why this machine cannot steer datagrams to workers; None: it can."""
    if sys.platform != "linux":
        return "only Linux steers datagrams by a program (SO_ATTACH_REUSEPORT_CBPF)"
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        ):
            first.bind(("127.0.0.1", 0))
            for sock in (first, second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            second.bind(first.getsockname())
            attach_program(first, 2)
    except OSError as error:
        return f"the kernel does not let us steer datagrams (SO_ATTACH_REUSEPORT_CBPF): {error.strerror or error}"
    return None
