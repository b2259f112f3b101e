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
from collections.abc import Collection, Sequence
from functools import reduce
from operator import xor
from typing import Final

import numpy as np
import numpy.typing as npt

from .._edge import bpf
from .._edge.bpf import DROP, Instruction, attach
from .._edge.ring.layout import IPV4, IpVersion

__all__ = ["attach_program", "program_for", "ring_program", "steering_problem", "worker_of", "workers_of"]

_SO_ATTACH_REUSEPORT_CBPF: Final = 51

_HASH_FACTOR: Final = 0x9E37_79B1
_WORD_MASK: Final = 0xFFFF_FFFF
_CALL_LEG_ID: Final = (8, 12, 16, 20)  # where its words stand in a STREP datagram
_SSRC: Final = 8  # in a plain RTP datagram
_UDP: Final = 17
_UDP_BYTES: Final = 8
_SKIPPED: Final = (0, 43, 60)  # IPv6: hop-by-hop options, routing, destination options
_JUMP_OUT: Final = 255


def program_for(workers: int) -> list[Instruction]:
    """The program for sockets: its result is the index of a socket in the SO_REUSEPORT group, 0 to ``workers`` - 1."""
    leg: list[Instruction] = [(bpf.LOAD_WORD, 0, 0, _CALL_LEG_ID[0])]
    for offset in _CALL_LEG_ID[1:]:
        leg += [(bpf.STORE, 0, 0, 0), (bpf.LOAD_WORD, 0, 0, offset), (bpf.RECALL_X, 0, 0, 0), (bpf.XOR_X, 0, 0, 0)]
    return [(bpf.LOAD_BYTE, 0, 0, 0), *_worker(leg, (bpf.LOAD_WORD, 0, 0, _SSRC), workers)]


def ring_program(version: IpVersion, workers: int, last: Collection[int] = ()) -> list[Instruction]:
    """The same for packet rings of a version of IP: its result is the number of a member of their group. What is for
    the ports ``last``, at most 2, goes to the last worker. X is where the UDP header begins, and is kept in M[1].

    A fragment of IPv6 goes to worker 0, which puts it together.
    """
    leg: list[Instruction] = [(bpf.LOAD_WORD_AT_X, 0, 0, _UDP_BYTES + _CALL_LEG_ID[0])]
    for offset in _CALL_LEG_ID[1:]:
        leg += [
            (bpf.STORE, 0, 0, 0),
            (bpf.LOAD_WORD_AT_X, 0, 0, _UDP_BYTES + offset),
            (bpf.RECALL_X, 0, 0, 0),
            (bpf.XOR_X, 0, 0, 0),
            (bpf.RECALL_X, 0, 0, 1),
        ]
    steered = _worker(leg, (bpf.LOAD_WORD_AT_X, 0, 0, _UDP_BYTES + _SSRC), workers)
    ports: list[Instruction] = [(bpf.LOAD_HALF_AT_X, 0, 0, 2)]
    for port in last:
        ports += [(bpf.JUMP_EQUAL, 0, 1, port), (bpf.RETURN, 0, 0, workers - 1)]
    return [
        *(_udp_of_4() if version is IPV4 else _udp_of_6()),
        (bpf.STORE_X, 0, 0, 1),
        *(ports if last else ()),
        (bpf.LOAD_BYTE_AT_X, 0, 0, _UDP_BYTES),
        *steered,
    ]


def _udp_of_4() -> list[Instruction]:
    return [(bpf.SET_X_LENGTH, 0, 0, 0)]


def _udp_of_6() -> list[Instruction]:
    """Behind at most two headers with options or routes; what has others goes to worker 0."""
    found: list[Instruction] = [(bpf.LOAD_BYTE, 0, 0, 6), (bpf.SET_X, 0, 0, 40)]
    for more in (True, True, False):
        step: list[Instruction] = [
            (bpf.LOAD_BYTE_AT_X, 0, 0, 0),
            (bpf.STORE, 0, 0, 2),  # which header comes next
            (bpf.LOAD_BYTE_AT_X, 0, 0, 1),
            (bpf.ADD, 0, 0, 1),
            (bpf.SHIFT_LEFT, 0, 0, 3),
            (bpf.ADD_X, 0, 0, 0),
            (bpf.A_TO_X, 0, 0, 0),
            (bpf.RECALL, 0, 0, 2),
        ]
        found.append((bpf.JUMP_EQUAL, _JUMP_OUT, 0, _UDP))
        if more:
            found += [
                *((bpf.JUMP_EQUAL, len(_SKIPPED) - i, 0, header) for i, header in enumerate(_SKIPPED)),
                DROP,
                *step,
            ]
    found.append(DROP)
    # the jumps out of here end behind the last instruction
    return [
        (code, len(found) - at - 1, no, k) if yes == _JUMP_OUT else (code, yes, no, k)
        for at, (code, yes, no, k) in enumerate(found)
    ]


def _worker(leg: Sequence[Instruction], ssrc: Instruction, workers: int) -> list[Instruction]:
    """A is the first byte of the payload; ``leg`` and ``ssrc`` load the word that steers."""
    return [
        (bpf.AND, 0, 0, 0xC0),
        (bpf.JUMP_EQUAL, 2, 0, 0xC0),  # STREP: to the leg
        (bpf.JUMP_EQUAL, len(leg) + 2, 0, 0x80),  # RTP: to the SSRC
        DROP,
        *leg,
        (bpf.JUMP, 0, 0, 1),  # over the SSRC
        ssrc,
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


def workers_of(
    data: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], length: npt.NDArray[np.int64], workers: int
) -> npt.NDArray[np.int64]:
    """:func:`worker_of` for each of many datagrams that begin at ``at`` in ``data``, int64 (n,)."""

    def word(offset: int, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
        place = np.where(there, at + offset, 0)[:, None] + np.arange(4)
        quads = np.ascontiguousarray(data.take(place, mode="clip")).view(">u4")
        found: npt.NDArray[np.uint64] = quads[:, 0].astype(np.uint64)
        return found

    kind = np.zeros(len(at), np.uint8)
    some = length > 0
    kind[some] = data[at[some]] & 0xC0
    leg = (kind == 0xC0) & (length >= _CALL_LEG_ID[-1] + 4)
    plain = (kind == 0x80) & (length >= _SSRC + 4)
    words = np.where(leg, reduce(xor, (word(offset, leg) for offset in _CALL_LEG_ID)), word(_SSRC, plain))
    hashed = (words * np.uint64(_HASH_FACTOR) & np.uint64(_WORD_MASK)) >> np.uint64(16)
    return np.where(leg | plain, hashed % np.uint64(workers), 0).astype(np.int64)


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
