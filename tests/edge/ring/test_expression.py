"""What ``--sniff`` says, compiled and run in a machine of our own, against what it means."""

from __future__ import annotations

import ipaddress
from typing import Any

import bpf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_frames import ipv4, ipv6, udp

from strep import ConfigurationError
from strep._edge.ring.expression import sniffing_program

ETHERNET, LOOPBACK, NO_LINK = 1, 772, 65_534


def lets_in(
    text: str, packet: bytes, *, kind: int = 3, hardware: int = ETHERNET, interface: int = 5, link: bytes = bytes(14)
) -> bool:
    link = b"" if hardware == NO_LINK else link
    known = {4: kind, 8: interface, 28: hardware}
    return bpf.run(sniffing_program(text, [5]), link + packet, net=len(link), ancillary=known) > 0


def packet(source: str, source_port: int, to: str, port: int) -> bytes:
    make = ipv6 if ":" in to else ipv4
    return make(udp(b"x", to, source, port=port, source=source_port), to, source)


CALL = ("10.0.0.1", 10_000, "10.0.0.2", 20_001)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("udp", True),
        ("udp port 10000", True),
        ("port 20001", True),
        ("udp port 20002", False),
        ("udp portrange 10000-20000", True),
        ("udp dst portrange 10000-20000", False),
        ("udp dst portrange 20001-20001", True),
        ("src port 10000", True),
        ("dst port 10000", False),
        ("host 10.0.0.2", True),
        ("src host 10.0.0.2", False),
        ("net 10.0.0.0/8", True),
        ("net 0.0.0.0/0", True),
        ("net ::/0", False),
        ("net 10.0.0.2/31 and not dst net 10.0.0.0/31", True),
        ("udp and host 10.0.0.1", True),
        ("not udp port 10000", False),
        ("! ! port 10000", True),
        ("port 1 or port 2 or port 20001", True),
        ("port 1 && port 10000 || udp", True),
        ("port 10000 or port 1 and port 2", False),  # libpcap: from left to right
        ("port 10000 or (port 1 and port 2)", True),
        ("(((host 10.0.0.1)) and (udp dst port 20001))", True),
    ],
)
def test_an_expression(text: str, passes: bool) -> None:
    assert lets_in(text, packet(*CALL)) == passes


def test_ipv6_tags_links_and_the_rest() -> None:
    six = packet("2001:db8::1", 10_000, "2001:db8:1::2", 20_000)
    assert lets_in("udp portrange 20000-20010 and net 2001:db8:1::/48", six)
    assert not lets_in("src net 2001:db8:1::/48", six)
    assert lets_in("host 2001:db8::1", six)
    assert not lets_in("host 10.0.0.1", six)
    four = packet(*CALL)
    for hardware in (ETHERNET, LOOPBACK, NO_LINK):
        assert lets_in("port 10000", four, hardware=hardware)
    assert lets_in("port 10000", four, link=bytes(12) + b"\x81\x00\x00\x07\x08\x00")
    assert lets_in("port 10000", four, kind=4)  # what a switch or this machine sends
    assert not lets_in("port 10000", four, kind=4, hardware=LOOPBACK)  # it comes in there too
    assert not lets_in("port 10000", four, interface=6)
    assert not lets_in("udp", ipv4(bytes(40), protocol=6))
    assert not lets_in("udp", ipv4(bytes(40), fragment=0x2001))
    assert not lets_in("udp", bytes(60))
    assert lets_in("port 9000", ipv4(udp(b"x"), options=bytes(12)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("tcp port 80", "'tcp' is not known"),
        ("udp port", "a port is missing"),
        ("udp port 70000", "'70000' is no port"),
        ("udp portrange 20-10", "no range of ports"),
        ("portrange 10", "no range of ports"),
        ("host example.com", "host 'example.com'"),
        ("host 10.0.0.0/8", "write net 10.0.0.0/8"),
        ("net 10.0.0.1/8", "has host bits set"),
        ("(port 1", "not closed"),
        ("port 1 port 2", "'port' is not expected there"),
        ("port 1 and", "is missing at its end"),
        ("(" * 20 + "udp" + ")" * 20, "nested too deep"),
        (" or ".join(["port 1"] * 65), "more than 64 terms"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write udp port N, udp portrange A-B") as raised:
        sniffing_program(text, [1])
    assert why in str(raised.value)


PORTS = st.integers(1, 6)
HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1"])
TERMS = st.one_of(
    st.tuples(st.just("port"), st.sampled_from(["", "src ", "dst "]), PORTS),
    st.tuples(st.just("range"), st.sampled_from(["", "src ", "dst "]), PORTS),
    st.tuples(st.just("host"), st.sampled_from(["", "src ", "dst "]), HOSTS),
    st.tuples(st.just("net"), st.sampled_from(["", "src ", "dst "]), st.sampled_from(["10.0.0.0/24", "10.0.0.2/32"])),
)
Tree = tuple[Any, ...]


def _larger(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner))


TREES = st.recursive(TERMS, _larger, max_leaves=6)


def written(tree: Tree) -> str:
    kind, *rest = tree
    if kind == "not":
        return f"not ({written(rest[0])})"
    if kind in ("and", "or"):
        return f"({written(rest[0])}) {kind} ({written(rest[1])})"
    where, value = rest
    if kind == "range":
        return f"udp {where}portrange 2-{max(2, value)}"
    return f"{'udp ' * (kind == 'port')}{where}{kind} {value}"


def meant(tree: Tree, source: tuple[str, int], to: tuple[str, int]) -> bool:
    kind, *rest = tree
    if kind == "not":
        return not meant(rest[0], source, to)
    if kind in ("and", "or"):
        left, right = (meant(one, source, to) for one in rest)
        return left and right if kind == "and" else left or right
    where, value = rest
    ends = {"": [source, to], "src ": [source], "dst ": [to]}[where]
    if kind == "port":
        return any(port == value for _, port in ends)
    if kind == "range":
        return any(2 <= port <= max(2, value) for _, port in ends)
    network = ipaddress.ip_network(value)
    return any(ipaddress.ip_address(host) in network for host, _ in ends)


@given(TREES, HOSTS, PORTS, HOSTS, PORTS)
def test_any_expression_does_what_it_says(tree: Tree, source: str, source_port: int, to: str, port: int) -> None:
    passes = lets_in(written(tree), packet(source, source_port, to, port))
    assert passes == meant(tree, (source, source_port), (to, port))
