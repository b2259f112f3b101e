"""STREP for other tools: what unwrap writes, and what the dissector shows; tshark finds what strep finds."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from captures import capture_file
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LEG, MS, T0, Arrival, leg_id, packet
from tshark_streams import Figures, rtp_streams

import strep
from strep._edge.pcap import PcapReader
from strep._receiver.unwrap import unwrap
from strep.cli import cli

tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
LUA = resources.files("strep") / "data" / "strep.lua"
RTCP = struct.pack("!BBHIIIIIII", 0x80, 201, 6, 7, *[0] * 6)


def calls(legs: int = 4, packets: int = 150) -> list[Arrival]:
    """Both directions of legs A and B, with losses, jitter, wraps and RTCP: one SSRC for each."""
    out = []
    for number in range(4 * legs):
        rng = random.Random(number)
        call, leg, direction = leg_id(number // 4), number >> 1 & 1, number & 1
        lost = set(rng.sample(range(5, packets - 2), rng.randrange(1, 20)))
        for k in range(packets):
            if k not in lost:
                one = packet(k + 65_400, timestamp=160 * k, ssrc=number, call=call, leg=leg, direction=direction)
                out.append(Arrival(T0 + k * 20 * MS + rng.randrange(5 * MS), one))
        header = packet(0, call=call, leg=leg, direction=direction)[:24]
        out.append(Arrival(T0 + 200 * MS, header + RTCP))
    return out


def inspected(path: Path) -> dict[int, Figures]:
    replay = strep.replay(path)
    return {
        report.stream.ssrcs[0]: (
            report.packets_received, report.packets_lost, report.jitter_ms_mean, report.jitter_ms_max
        )
        for report in replay.reports()
    }  # fmt: skip


def same(ours: dict[int, Figures], theirs: dict[int, Figures]) -> None:
    assert {ssrc: figures[:2] for ssrc, figures in ours.items()} == {ssrc: f[:2] for ssrc, f in theirs.items()}
    for ssrc, figures in ours.items():
        assert figures[2:] == pytest.approx(theirs[ssrc][2:], rel=0.03, abs=0.01)


def fields(path: Path, names: list[str], *options: str) -> list[list[str]]:
    command = ["tshark", "-r", str(path), "-T", "fields", *(part for name in names for part in ("-e", name)), *options]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in out.splitlines()]


# --- unwrap ---------------------------------------------------------------------------------------------------------


def test_unwrapped_datagrams(tmp_path: Path) -> None:
    """Order, times and bytes stay; addresses and ports are by the documented rule."""
    arrivals = [
        Arrival(T0, packet(1, call=leg_id(5), leg=1, direction=1)),
        Arrival(T0 + 7, packet(2, call=leg_id(3), leg=0, direction=0)),
        Arrival(T0 + 9, packet(3, call=None), local_port=5004),
        Arrival(T0 + 11, packet(4, call=leg_id(5), leg=1, direction=0)),
        Arrival(T0 + 13, packet(4, call=leg_id(5), leg=0, direction=0)[:24] + RTCP),
        Arrival(T0 + 15, packet(4, call=leg_id(5), leg=0, direction=0)[:24]),
    ]
    path = capture_file(tmp_path / "a.pcap", arrivals)
    found = unwrap(path, tmp_path / "b.pcapng")
    assert (found.strep, found.other) == (4, 2)
    assert found.legs == [(leg_id(5), strep.Leg.B), (leg_id(3), strep.Leg.A), (leg_id(5), strep.Leg.A)]
    assert unwrap(path, tmp_path / "c.pcapng").legs == found.legs
    assert (tmp_path / "b.pcapng").read_bytes() == (tmp_path / "c.pcapng").read_bytes()
    with PcapReader(tmp_path / "b.pcapng") as reader:
        (batch,) = reader.batches()
    rows = [
        (
            int(batch.arrival_ns[i]) - T0,
            int(batch.source_lo[i]) & 0xFFFF_FFFF,
            int(batch.source_port[i]),
            int(batch.local_port[i]),
            batch.data(i),
        )
        for i in range(len(batch))
    ]
    ten = 10 << 24
    assert rows == [
        (0, ten + (1 << 23) + 1, 32_768, 16_384, arrivals[0].data[24:]),
        (7, ten + 2, 16_386, 32_770, arrivals[1].data[24:]),
        (9, ten + 1, 40_000, 5004, arrivals[2].data),
        (11, ten + 1, 16_384, 32_768, arrivals[3].data[24:]),
        (13, ten + 3, 16_389, 32_773, RTCP),
        (15, ten + 1, 40_000, 9000, arrivals[5].data),
    ]


@tshark
@pytest.mark.witness
def test_tshark_finds_the_streams_in_what_was_unwrapped(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", calls())
    out = tmp_path / "b.pcapng"
    result = CliRunner().invoke(cli, ["unwrap", str(path), str(out)])
    assert result.exit_code == 0
    count = len(calls())
    assert f"{count:,} datagrams of 8 call legs unwrapped" in result.stderr
    wanted = inspected(path)
    assert len(wanted) == 16
    same(wanted, rtp_streams(out, "--enable-heuristic", "rtp_udp", port=None))
    assert inspected(out).keys() == wanted.keys()
    rows = fields(out, ["frame.comment", "rtp.ssrc", "rtcp.pt", "ip.checksum.status"], "-o", "ip.check_checksum:TRUE",
                  "--enable-heuristic", "rtp_udp", "--enable-heuristic", "rtcp_udp")  # fmt: skip
    assert len(rows) == count
    for comment, ssrc, rtcp, checksum in rows:
        match = re.fullmatch(r"call_leg_id ([0-9a-f-]{36}), leg ([ab]), (inbound|outbound)", comment)
        assert match is not None
        assert checksum == "1"
        if rtcp:
            assert rtcp == "201"
        else:
            number = int(ssrc, 16)
            wanted_comment = (str(leg_id(number // 4)), "ab"[number >> 1 & 1], ("inbound", "outbound")[number & 1])
            assert match.groups() == wanted_comment


@settings(max_examples=60, deadline=None)
@given(
    datagrams=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda bits, rest: bytes([0xC4 | bits, 24]) + rest, st.integers(0, 3), st.binary(max_size=60)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_nothing_is_lost_whatever_came(tmp_path_factory: pytest.TempPathFactory, datagrams: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("u")
    path = capture_file(folder / "a.pcap", [Arrival(T0 + k, data) for k, data in enumerate(datagrams)])
    found = unwrap(path, folder / "b.pcapng")
    assert found.strep + found.other == len(datagrams)
    with PcapReader(folder / "b.pcapng") as reader:
        out = [b.data(i) for b in reader.batches() for i in range(len(b))]
    assert len(out) == len(datagrams)
    for before, after in zip(datagrams, out, strict=True):
        assert after in (before, before[24:])
        if after != before:
            assert before[0] & 0xFC == 0xC4
            assert before[1] == 24


def test_what_is_cut_stays_cut(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", [Arrival(T0 + k, packet(k, payload=bytes(1200))) for k in range(3)])
    out = tmp_path / "b.pcapng"
    unwrap(path, out)
    with PcapReader(out) as reader:
        (batch,) = reader.batches()
        assert reader.cut == 3
    assert batch.captured is not None
    assert batch.captured.tolist() == [1000] * 3
    assert batch.length.tolist() == [1212] * 3


def test_what_cannot_be_done_is_told(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", calls(1, 30))
    before = path.read_bytes()
    with pytest.raises(strep.ConfigurationError, match="is the file to read: give another one to write"):
        unwrap(path, tmp_path / "." / "a.pcap")
    assert path.read_bytes() == before
    result = CliRunner().invoke(cli, ["unwrap", str(path), str(tmp_path / "none" / "[b].pcapng")])
    assert result.exit_code == 6
    assert "[b].pcapng cannot be written: No such file or directory" in result.stderr


# --- the dissector --------------------------------------------------------------------------------------------------


@tshark
@pytest.mark.witness
def test_the_dissector_finds_the_streams(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", calls())
    wanted = inspected(path)
    script = ("-X", f"lua_script:{LUA}")
    same(wanted, rtp_streams(path, *script, port=None))
    names = [
        "strep.call_leg_id",
        "strep.leg",
        "strep.direction",
        "strep.version",
        "rtp.ssrc",
        "rtcp.pt",
        "_ws.malformed",
    ]
    rows = fields(path, names, *script)
    assert len(rows) == len(calls())
    for call, leg, direction, version, ssrc, rtcp, malformed in rows:
        assert (version, malformed) == ("1", "")
        if rtcp:
            assert rtcp == "201"
        else:
            number = int(ssrc, 16)
            assert (call, leg, direction) == (str(leg_id(number // 4)), str(number >> 1 & 1), str(number & 1))


@tshark
@pytest.mark.witness
def test_one_ssrc_in_all_legs_makes_streams_apart(tmp_path: Path) -> None:
    """Inbound of one leg may be outbound of the other. The preference leaves addresses as they are."""
    arrivals = [
        Arrival(T0 + k * 20 * MS, packet(k, ssrc=7, leg=leg, direction=direction))
        for leg in (0, 1) for direction in (0, 1) for k in range(50)
    ]  # fmt: skip
    path = capture_file(tmp_path / "a.pcap", arrivals)
    script = ["-X", f"lua_script:{LUA}"]

    def streams(*options: str) -> list[tuple[str, ...]]:
        out = subprocess.run(
            ["tshark", "-r", str(path), "-q", *script, *options, "-z", "rtp,streams"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        return list(re.findall(r"(\S+) +(\d+) +(\S+) +(\d+) 0x00000007 .*?711\w* +(\d+) ", out))

    assert sorted(streams()) == [
        ("10.0.0.1", "16384", "10.128.0.1", "32768", "50"),
        ("10.0.0.2", "16386", "10.128.0.2", "32770", "50"),
        ("10.128.0.1", "32768", "10.0.0.1", "16384", "50"),
        ("10.128.0.2", "32770", "10.0.0.2", "16386", "50"),
    ]
    assert streams("-o", "strep.addresses:FALSE") == [("10.0.0.1", "40000", "127.0.0.1", "9000", "200")]


@tshark
@pytest.mark.witness
def test_the_dissector_takes_nothing_else(tmp_path: Path) -> None:
    """Other versions and lengths, plain RTP, noise; and no bytes make it fail."""
    sound = packet(1)
    others = [b"\xc0" + sound[1:], b"\xc8" + sound[1:], b"\xc4\x17" + sound[2:], packet(1, call=None), sound[:24]]
    others += [sound[:24] + b"\x40" * 20, b"", b"\xc4\x18"]
    cut = [sound[:size] for size in range(26, len(sound), 7)]
    rng = random.Random(1)
    noise = [bytes([0xC4 | rng.randrange(4), 24]) + rng.randbytes(rng.randrange(80)) for _ in range(200)]
    arrivals = [Arrival(T0 + k * MS, data) for k, data in enumerate([*others, *cut, *noise])]
    path = capture_file(tmp_path / "a.pcap", arrivals)
    rows = fields(path, ["strep.call_leg_id", "_ws.lua.error"], "-X", f"lua_script:{LUA}")
    assert len(rows) == len(arrivals)
    told = [bool(row[0]) for row in rows]
    assert told[: len(others)] == [False] * len(others)
    assert told[len(others) : len(others) + len(cut)] == [True] * len(cut)
    wanted = [len(data) >= 26 and 0x80 <= data[24] <= 0xBF for data in noise]
    assert told[len(others) + len(cut) :] == wanted
    assert not any(row[1] for row in rows)


def test_where_the_dissector_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(cli, ["wireshark"])
    target = re.search(r"goes to (\S+strep\.lua): strep wireshark --install", result.stdout)
    assert target is not None
    assert str(LUA) in result.stdout
    path = Path(target[1])
    assert path.is_relative_to(tmp_path)
    assert not path.exists()
    assert CliRunner().invoke(cli, ["wireshark", "--install"]).exit_code == 0
    assert path.read_bytes() == Path(str(LUA)).read_bytes()


@tshark
@pytest.mark.witness
def test_tshark_finds_what_was_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CliRunner().invoke(cli, ["wireshark", "--install"]).exit_code == 0
    path = capture_file(tmp_path / "a.pcap", [Arrival(T0, packet(1))])
    assert fields(path, ["strep.call_leg_id"]) == [[str(LEG)]]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".local").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(cli, ["wireshark", "--install"])
    assert result.exit_code == 6
    assert "cannot be written" in result.stderr
