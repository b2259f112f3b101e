"""A machine for classic BPF (linux/filter.h), one instruction after the other: what the kernel would do."""

from __future__ import annotations

from collections.abc import Sequence

NET_OFFSET, ANCILLARY = -0x100000, -0x1000


def run(
    program: Sequence[tuple[int, int, int, int]],
    packet: bytes,
    *,
    net: int = 14,
    ancillary: dict[int, int] | None = None,
) -> int:  # fmt: skip
    """The result. ``net`` is where the IP header begins; ``ancillary`` what stands at SKF_AD_OFF + each key. Raises
    AssertionError for a program that the kernel would refuse."""
    assert 0 < len(program) <= 4096
    a = x = at = 0
    memory = [0] * 16
    for _ in range(len(program)):
        code, jump_true, jump_false, k = program[at]
        at += 1
        kind, mode, size = code & 7, code & 0xE0, code & 0x18
        if kind in (0, 1) and mode in (0x20, 0x40, 0xA0):
            offset = (k + (x if mode == 0x40 else 0)) & 0xFFFFFFFF
            offset -= (offset >> 31) << 32
            width = {0: 4, 8: 2, 16: 1}[size]
            if offset >= ANCILLARY and offset < 0:
                value = (ancillary or {})[offset - ANCILLARY]
            else:
                begin = offset if offset >= 0 else offset - NET_OFFSET + net
                if begin + width > len(packet):
                    return 0
                value = int.from_bytes(packet[begin : begin + width], "big")
            if kind == 0:
                a = value
            else:
                x = 4 * (value & 15)
        elif kind in (0, 1):
            value = k if mode == 0 else memory[k]
            a, x = (value, x) if kind == 0 else (a, value)
        elif kind in (2, 3):
            memory[k] = a if kind == 2 else x
        elif kind == 4:
            other = x if code & 8 else k
            a = {
                0x00: a + other, 0x10: a - other, 0x20: a * other, 0x30: a // (other or 1), 0x40: a | other,
                0x50: a & other, 0x60: a << (other & 31), 0x70: a >> (other & 31), 0x90: a % (other or 1),
                0xA0: a ^ other,
            }[code & 0xF0] & 0xFFFFFFFF  # fmt: skip
        elif kind == 5:
            if code & 0xF0 == 0:
                at += k
            else:
                other = x if code & 8 else k
                yes = {0x10: a == other, 0x20: a > other, 0x30: a >= other, 0x40: a & other != 0}[code & 0xF0]
                at += jump_true if yes else jump_false
                assert max(jump_true, jump_false) < 256
        elif kind == 6:
            return a if code & 0x18 == 0x10 else k
        else:
            a, x = (x, x) if code & 0xF8 == 0x80 else (a, a)  # TXA, TAX
        assert at < len(program), "the program runs off its end"
    raise AssertionError("the program does not end")
