"""faults.md 45: a bad network between two namespaces of our own, and what tshark counts on the far interface."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import TESTS
from programs import tshark_streams

pytestmark = [pytest.mark.witness, pytest.mark.realtime]

_NEAR, _FAR = f"strep-n{os.getpid() % 10_000}", f"strep-f{os.getpid() % 10_000}"
_NEAR_IP, _FAR_IP = "10.213.45.1", "10.213.45.2"
_NETEM = ("delay", "20ms", "15ms", "loss", "5%", "duplicate", "2%")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Two, and a cable between them."""
    try:
        for name in (_NEAR, _FAR):
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", "veth0", "netns", _NEAR, "type", "veth", "peer", "name", "veth0", "netns", _FAR)
        for name, ip in ((_NEAR, _NEAR_IP), (_FAR, _FAR_IP)):
            _run("ip", "-n", name, "address", "add", f"{ip}/24", "dev", "veth0")
            _run("ip", "-n", name, "link", "set", "veth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in (_NEAR, _FAR):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture
def cable() -> Iterator[None]:
    missing = [program for program in ("ip", "tc", "tshark", "dumpcap") if not shutil.which(program)]
    if missing or sys.platform != "linux":
        pytest.skip(f"network namespaces need Linux, iproute2 and tshark: {', '.join(missing)} not here")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(namespaces())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield


def _has_netem() -> bool:
    command = ["ip", "netns", "exec", _NEAR, "tc", "qdisc", "add", "dev", "veth0", "root", "netem", *_NETEM]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _inside(name: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", name, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _line_of(process: subprocess.Popen[str], stream: str, wanted: str) -> None:
    pipe = getattr(process, stream)
    while wanted not in (line := pipe.readline()):
        assert line, f"{process.args} ended before it said {wanted!r}"


def _packets(path: Path) -> dict[int, Counter[int]]:
    """By SSRC, how often each sequence number came, as tshark reads it."""
    fields = ["-T", "fields", "-e", "rtp.ssrc", "-e", "rtp.seq"]
    out = _run("tshark", "-r", str(path), "-d", "udp.port==9000,rtp", "-Y", "rtp", *fields)
    found: dict[int, Counter[int]] = {}
    for ssrc, sequence in (line.split() for line in out.splitlines()):
        found.setdefault(int(ssrc, 16), Counter())[int(sequence)] += 1
    return found


def test_twenty_streams_over_a_bad_network(cable: None, tmp_path: Path) -> None:
    """netem's, or where the kernel has none a relay's in user space, which is said: figures are tshark's, ±0."""
    python = sys.executable
    with contextlib.ExitStack() as stack:

        def start(name: str, *command: str) -> subprocess.Popen[str]:
            process = _inside(name, *command)
            stack.callback(lambda: (process.kill(), process.communicate()))
            return process

        to = f"{_FAR_IP}:9000"
        relay = None
        if not _has_netem():
            print("no netem in this kernel: a relay in user space is the bad network")
            to = f"{_NEAR_IP}:9001"
            relay = start(_NEAR, python, str(TESTS / "relay.py"), to, f"{_FAR_IP}:9000", "45")
            _line_of(relay, "stdout", "relaying")
        dump = start(
            _FAR, "dumpcap", "-q", "-i", "veth0", "-f", "udp dst port 9000", "-w", str(tmp_path / "far.pcapng")
        )
        _line_of(dump, "stderr", "File:")
        listen = ("capture", "--listen", f"{_FAR_IP}:9000", "--out", str(tmp_path / "calls"), "--json")
        capture = start(_FAR, python, "-m", "strep", *listen)
        _line_of(capture, "stdout", "listening")
        sender = start(
            _NEAR, python, "-m", "strep", "simulate", "--rx-to", to, "--calls", "20", "--duration", "4", "--seed", "45"
        )
        _, err = sender.communicate(timeout=100)
        assert sender.returncode == 0, err
        if relay is not None:
            relay.communicate("", timeout=100)
        subprocess.run(["sleep", "0.5"], check=True)
        capture.terminate()
        out, _ = capture.communicate(timeout=100)
        dump.terminate()
        dump.communicate(timeout=100)
    summary = json.loads(out.splitlines()[-1])
    ours = {stream["ssrcs"][0]: stream for stream in summary["streams"]}
    theirs = {int(row["ssrc"]): row for row in tshark_streams(tmp_path / "far.pcapng")}  # type: ignore[call-overload]
    assert len(ours) == 20
    assert ours.keys() == theirs.keys()
    for ssrc, came in _packets(tmp_path / "far.pcapng").items():
        stream = ours[ssrc]
        assert stream["packets_received"] == came.total() == theirs[ssrc]["packets"]
        assert stream["rfc3550_lost"] == theirs[ssrc]["lost"]
        assert stream["duplicates"] == came.total() - len(came)
        assert stream["packets_lost"] == stream["packets_expected"] - len(came)
        assert stream["late"] == 0
        assert stream["jitter_ms"]["mean"] > 1
    assert sum(stream["packets_lost"] for stream in ours.values()) > 50
    assert sum(stream["duplicates"] for stream in ours.values()) > 10
    assert sum(stream["reordered"] for stream in ours.values()) > 50
    assert summary["totals"]["kernel_dropped"] == 0
