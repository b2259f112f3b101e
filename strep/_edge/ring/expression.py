"""What to sniff, in a small part of the language of libpcap (pcap-filter(7)), as a classic BPF program. Pure.

    EXPR  := NOT (("and" | "or") NOT)*         "and" and "or" bind equally, from left to right, as in libpcap
    NOT   := ("not" | "!") NOT | "(" EXPR ")" | ["udp"] [DIR] "port" N | ["udp"] [DIR] "portrange" A-B
             | [DIR] "host" ADDRESS | [DIR] "net" CIDR | "udp"
    DIR   := "src" | "dst"

Nothing but UDP is ever let in. A ring takes VLAN tags off, so they need not be named.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from ..._model.exceptions import ConfigurationError
from .programs import Instruction

__all__ = ["sniffing_program"]

_TOKEN: Final = re.compile(r"\s*(\(|\)|!|&&|\|\||[^\s()!]+)")
_WORDS: Final = {"&&": "and", "||": "or", "!": "not"}
_MOST_TERMS: Final = 64
_DEEPEST: Final = 10  # a place in memory for each
_RIGHT: Final = (
    "write udp port N, udp portrange A-B, host ADDRESS or net CIDR, src or dst before them, joined by and, or, not and "
    "parentheses"
)


@dataclass(frozen=True, slots=True)
class _Ports:
    where: str  # "src", "dst" or "": either
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Network:
    where: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Anything:
    pass


@dataclass(frozen=True, slots=True)
class _Not:
    inner: _Node


@dataclass(frozen=True, slots=True)
class _Both:
    joint: str  # "and", "or"
    left: _Node
    right: _Node


_Node = _Ports | _Network | _Anything | _Not | _Both


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = [_WORDS.get(token, token) for token in _TOKEN.findall(text)]
        self._at = 0
        self._terms = 0

    def whole(self) -> _Node:
        if not self._tokens:
            raise self._wrong("it is empty")
        found = self._expression(0)
        if self._at < len(self._tokens):
            raise self._wrong(f"{self._tokens[self._at]!r} is not expected there")
        return found

    def _wrong(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"sniff {self._text!r}: {why}; {_RIGHT}")

    def _next(self, what: str = "") -> str:
        if self._at >= len(self._tokens):
            raise self._wrong(f"{what or 'something'} is missing at its end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _is(self, *words: str) -> str | None:
        """The next token, taken, if it is one of these."""
        if self._at < len(self._tokens) and self._tokens[self._at] in words:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _expression(self, depth: int) -> _Node:
        found = self._factor(depth)
        while joint := self._is("and", "or"):
            found = _Both(joint, found, self._factor(depth))
        return found

    def _factor(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            raise self._wrong("it is nested too deep")
        if self._is("not"):
            return _Not(self._factor(depth + 1))
        if self._is("("):
            found = self._expression(depth + 1)
            if not self._is(")"):
                raise self._wrong("a parenthesis is not closed")
            return found
        self._terms += 1
        if self._terms > _MOST_TERMS:
            raise self._wrong(f"more than {_MOST_TERMS} terms")
        return self._term()

    def _term(self) -> _Node:
        udp = self._is("udp") is not None
        where = self._is("src", "dst") or ""
        if udp and not where and (self._at >= len(self._tokens) or self._tokens[self._at] in ("and", "or", ")")):
            return _Anything()
        word = self._next()
        if word == "port":
            number = self._port(self._next("a port"))
            return _Ports(where, number, number)
        if word == "portrange":
            text = self._next("a range of ports")
            first, dash, last = text.partition("-")
            if not dash or self._port(first) > self._port(last):
                raise self._wrong(f"{text!r} is no range of ports, like 10000-20000")
            return _Ports(where, int(first), int(last))
        if word in ("host", "net") and not udp:
            text = self._next("an address")
            try:
                network = ipaddress.ip_network(text, strict=word == "net")
            except ValueError as error:
                raise self._wrong(f"{word} {text!r}: {error}") from None
            if word == "host" and network.num_addresses > 1:
                raise self._wrong(f"{text!r} is a network: write net {text}")
            return _Network(where, network)
        raise self._wrong(f"{word!r} is not known")

    def _port(self, text: str) -> int:
        if not text.isdigit() or int(text) > 65_535:
            raise self._wrong(f"{text!r} is no port")
        return int(text)


# linux/bpf_common.h; places in memory: where the IP header begins, its version, where the UDP header begins
_IP, _VERSION, _UDP = 15, 14, 13
_SET: Final = 0x00
_LOAD: Final = 0x20
_LOAD_HALF: Final = 0x28
_LOAD_WORD_AT_X: Final = 0x40
_LOAD_HALF_AT_X: Final = 0x48
_LOAD_BYTE_AT_X: Final = 0x50
_SET_X: Final = 0x01
_RECALL: Final = 0x60
_RECALL_X: Final = 0x61
_KEEP_IN: Final = 0x02
_KEEP_X_IN: Final = 0x03
_ADD_X: Final = 0x0C
_AND: Final = 0x54
_AND_X: Final = 0x5C
_OR_X: Final = 0x4C
_FLIP: Final = 0xA4
_LEFT: Final = 0x64
_RIGHT_SHIFT: Final = 0x74
_JUMP: Final = 0x05
_EQUAL: Final = 0x15
_ABOVE: Final = 0x25
_AT_LEAST: Final = 0x35
_BITS: Final = 0x45
_RETURN: Final = 0x06
_ANCILLARY: Final = 0xFFFF_F000
_NET_OFFSET: Final = 0xFFF0_0000
_OUTGOING: Final = 4
_LOOPBACK: Final = 772
_WHOLE: Final = 0x40000  # bytes
_DROP: Final[Instruction] = (_RETURN, 0, 0, 0)


def sniffing_program(text: str, interfaces: list[int]) -> list[Instruction]:
    """A program that lets in what the expression says, from these interfaces (by index). Raises ConfigurationError."""
    tree = _Parser(text).whole()
    n = len(interfaces)
    return [
        (_LOAD, 0, 0, _ANCILLARY + 8),
        *((_EQUAL, n - i, 0, index) for i, index in enumerate(interfaces)),
        _DROP,
        *_PROLOGUE,
        *_compiled(tree, 0),
        (_EQUAL, 0, 1, 0),
        _DROP,
        (_RETURN, 0, 0, _WHOLE),
    ]


_Line = str | tuple[int, str, str, int]  # a place, or an instruction with places to jump to; "": the next one


def _assembled(lines: list[_Line]) -> list[Instruction]:
    """Places as distances."""
    places: dict[str, int] = {}
    instructions: list[tuple[int, str, str, int]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(instructions)
        else:
            instructions.append(line)

    def by(name: str, at: int) -> int:
        return places[name] - at - 1 if name else 0

    return [
        (code, 0, 0, by(yes, at)) if code == _JUMP else (code, by(yes, at), by(no, at), k)
        for at, (code, yes, no, k) in enumerate(instructions)
    ]


_PROLOGUE: Final = _assembled(
    [
        (_LOAD, "", "", _ANCILLARY + 28),  # the kind of interface
        (_EQUAL, "ethernet", "", 1),
        (_EQUAL, "loopback", "", _LOOPBACK),
        (_SET_X, "", "", _NET_OFFSET),
        (_JUMP, "ip", "", 0),
        "loopback",  # there everything is seen twice: as it is sent, and as it comes
        (_LOAD, "", "", _ANCILLARY + 4),
        (_EQUAL, "drop", "", _OUTGOING),
        "ethernet",
        (_SET_X, "", "", 14),
        (_LOAD_HALF, "", "", 12),
        (_EQUAL, "", "ip", 0x8100),  # a second tag stands in the bytes
        (_SET_X, "", "", 18),
        "ip",
        (_KEEP_X_IN, "", "", _IP),
        (_LOAD_BYTE_AT_X, "", "", 0),
        (_RIGHT_SHIFT, "", "", 4),
        (_KEEP_IN, "", "", _VERSION),
        (_EQUAL, "4", "", 4),
        (_EQUAL, "", "drop", 6),
        (_LOAD_BYTE_AT_X, "", "", 6),
        (_EQUAL, "", "drop", 17),
        (_SET, "", "", 40),
        (_JUMP, "udp", "", 0),
        "4",
        (_LOAD_BYTE_AT_X, "", "", 9),
        (_EQUAL, "", "drop", 17),
        (_LOAD_HALF_AT_X, "", "", 6),
        (_BITS, "drop", "", 0x1FFF),  # a later fragment has no ports
        (_LOAD_BYTE_AT_X, "", "", 0),
        (_AND, "", "", 15),
        (_LEFT, "", "", 2),
        (_JUMP, "udp", "", 0),
        "drop",
        (_RETURN, "", "", 0),
        "udp",
        (_ADD_X, "", "", 0),
        (_KEEP_IN, "", "", _UDP),
    ]
)


def _compiled(node: _Node, depth: int) -> list[Instruction]:
    """Code that leaves 1 or 0 in A."""
    if isinstance(node, _Ports):
        return _either(node.where, [[(_RECALL_X, 0, 0, _UDP), (_LOAD_HALF_AT_X, 0, 0, at),
                                     (_AT_LEAST, 0, 3, node.first), (_ABOVE, 2, 0, node.last), *_YES_NO]
                                    for at in (0, 2)], depth)  # fmt: skip
    if isinstance(node, _Network):
        return _either(node.where, [_address(node.network, source=source) for source in (True, False)], depth)
    if isinstance(node, _Not):
        return [*_compiled(node.inner, depth), (_FLIP, 0, 0, 1)]
    if isinstance(node, _Both):
        return _joined(_compiled(node.left, depth), _compiled(node.right, depth + 1), node.joint, depth)
    return [(_SET, 0, 0, 1)]


_YES_NO: Final[tuple[Instruction, ...]] = ((_SET, 0, 0, 1), (_JUMP, 0, 0, 1), (_SET, 0, 0, 0))


def _joined(left: list[Instruction], right: list[Instruction], joint: str, depth: int) -> list[Instruction]:
    how = _AND_X if joint == "and" else _OR_X
    return [*left, (_KEEP_IN, 0, 0, depth), *right, (_RECALL_X, 0, 0, depth), (how, 0, 0, 0)]


def _either(where: str, both: list[list[Instruction]], depth: int) -> list[Instruction]:
    """``both``: of the source, of the destination."""
    if where:
        return both[where == "dst"]
    return _joined(both[0], both[1], "or", depth)


def _address(network: ipaddress.IPv4Network | ipaddress.IPv6Network, *, source: bool) -> list[Instruction]:
    size = network.max_prefixlen // 8
    at = (12 if source else 16) if network.version == 4 else (8 if source else 24)
    address, mask = (int(one).to_bytes(size, "big") for one in (network.network_address, network.netmask))
    words = [(at + i, address[i : i + 4], mask[i : i + 4]) for i in range(0, size, 4)]
    tests: list[list[Instruction]] = [
        [(_LOAD_WORD_AT_X, 0, 0, place), (_AND, 0, 0, int.from_bytes(bits, "big")),
         (_EQUAL, 0, 0, int.from_bytes(value, "big"))]
        for place, value, bits in words if any(bits)
    ]  # fmt: skip
    code: list[Instruction] = [(_RECALL, 0, 0, _VERSION), (_EQUAL, 0, 0, network.version), (_RECALL_X, 0, 0, _IP)]
    for test in tests:
        code += test
    end = len(code)
    no = end + 2  # behind YES and the jump over NO
    jumps: list[Instruction] = [
        (op, yes, no - i - 1, k) if op == _EQUAL else (op, yes, other, k) for i, (op, yes, other, k) in enumerate(code)
    ]
    return [*jumps, *_YES_NO]
