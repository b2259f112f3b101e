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
from .. import bpf
from ..bpf import DROP, KEEP, Instruction

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


# places in memory: where the IP header begins, its version, where the UDP header begins
_IP, _VERSION, _UDP = 15, 14, 13
_OUTGOING: Final = 4


def sniffing_program(text: str, interfaces: list[int]) -> list[Instruction]:
    """A program that lets in what the expression says, from these interfaces (by index). Raises ConfigurationError."""
    tree = _Parser(text).whole()
    n = len(interfaces)
    return [
        (bpf.LOAD_WORD, 0, 0, bpf.INTERFACE),
        *((bpf.JUMP_EQUAL, n - i, 0, index) for i, index in enumerate(interfaces)),
        DROP,
        *_PROLOGUE,
        *_compiled(tree, 0),
        (bpf.JUMP_EQUAL, 0, 1, 0),
        DROP,
        KEEP,
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
        (code, 0, 0, by(yes, at)) if code == bpf.JUMP else (code, by(yes, at), by(no, at), k)
        for at, (code, yes, no, k) in enumerate(instructions)
    ]


_PROLOGUE: Final = _assembled(
    [
        (bpf.LOAD_WORD, "", "", bpf.HARDWARE_TYPE),  # the kind of interface
        (bpf.JUMP_EQUAL, "ethernet", "", bpf.ETHERNET),
        (bpf.JUMP_EQUAL, "loopback", "", bpf.LOOPBACK),
        (bpf.SET_X, "", "", bpf.NET_OFFSET),
        (bpf.JUMP, "ip", "", 0),
        "loopback",  # there everything is seen twice: as it is sent, and as it comes
        (bpf.LOAD_WORD, "", "", bpf.PACKET_TYPE),
        (bpf.JUMP_EQUAL, "drop", "", _OUTGOING),
        "ethernet",
        (bpf.SET_X, "", "", 14),
        (bpf.LOAD_HALF, "", "", 12),
        (bpf.JUMP_EQUAL, "", "ip", 0x8100),  # a second tag stands in the bytes
        (bpf.SET_X, "", "", 18),
        "ip",
        (bpf.STORE_X, "", "", _IP),
        (bpf.LOAD_BYTE_AT_X, "", "", 0),
        (bpf.SHIFT_RIGHT, "", "", 4),
        (bpf.STORE, "", "", _VERSION),
        (bpf.JUMP_EQUAL, "4", "", 4),
        (bpf.JUMP_EQUAL, "", "drop", 6),
        (bpf.LOAD_BYTE_AT_X, "", "", 6),
        (bpf.JUMP_EQUAL, "", "drop", 17),
        (bpf.SET, "", "", 40),
        (bpf.JUMP, "udp", "", 0),
        "4",
        (bpf.LOAD_BYTE_AT_X, "", "", 9),
        (bpf.JUMP_EQUAL, "", "drop", 17),
        (bpf.LOAD_HALF_AT_X, "", "", 6),
        (bpf.JUMP_BITS, "drop", "", 0x1FFF),  # a later fragment has no ports
        (bpf.LOAD_BYTE_AT_X, "", "", 0),
        (bpf.AND, "", "", 15),
        (bpf.SHIFT_LEFT, "", "", 2),
        (bpf.JUMP, "udp", "", 0),
        "drop",
        (bpf.RETURN, "", "", 0),
        "udp",
        (bpf.ADD_X, "", "", 0),
        (bpf.STORE, "", "", _UDP),
    ]
)


def _compiled(node: _Node, depth: int) -> list[Instruction]:
    """Code that leaves 1 or 0 in A."""
    if isinstance(node, _Ports):
        return _either(node.where, [[(bpf.RECALL_X, 0, 0, _UDP), (bpf.LOAD_HALF_AT_X, 0, 0, at),
                                     (bpf.JUMP_AT_LEAST, 0, 3, node.first), (bpf.JUMP_ABOVE, 2, 0, node.last), *_YES_NO]
                                    for at in (0, 2)], depth)  # fmt: skip
    if isinstance(node, _Network):
        return _either(node.where, [_address(node.network, source=source) for source in (True, False)], depth)
    if isinstance(node, _Not):
        return [*_compiled(node.inner, depth), (bpf.XOR, 0, 0, 1)]
    if isinstance(node, _Both):
        return _joined(_compiled(node.left, depth), _compiled(node.right, depth + 1), node.joint, depth)
    return [(bpf.SET, 0, 0, 1)]


_YES_NO: Final[tuple[Instruction, ...]] = ((bpf.SET, 0, 0, 1), (bpf.JUMP, 0, 0, 1), (bpf.SET, 0, 0, 0))


def _joined(left: list[Instruction], right: list[Instruction], joint: str, depth: int) -> list[Instruction]:
    how = bpf.AND_X if joint == "and" else bpf.OR_X
    return [*left, (bpf.STORE, 0, 0, depth), *right, (bpf.RECALL_X, 0, 0, depth), (how, 0, 0, 0)]


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
        [(bpf.LOAD_WORD_AT_X, 0, 0, place), (bpf.AND, 0, 0, int.from_bytes(bits, "big")),
         (bpf.JUMP_EQUAL, 0, 0, int.from_bytes(value, "big"))]
        for place, value, bits in words if any(bits)
    ]  # fmt: skip
    code: list[Instruction] = [
        (bpf.RECALL, 0, 0, _VERSION),
        (bpf.JUMP_EQUAL, 0, 0, network.version),
        (bpf.RECALL_X, 0, 0, _IP),
    ]
    for test in tests:
        code += test
    end = len(code)
    no = end + 2  # behind YES and the jump over NO
    jumps: list[Instruction] = [
        (op, yes, no - i - 1, k) if op == bpf.JUMP_EQUAL else (op, yes, other, k)
        for i, (op, yes, other, k) in enumerate(code)
    ]
    return [*jumps, *_YES_NO]
