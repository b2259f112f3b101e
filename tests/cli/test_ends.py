"""How commands end: signals, full disks, readers that are slow, nothing that could be decoded."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import STREP, running, send, strep_command
from places import ROOT
from support import LEG, MS, T0, Arrival, batch_of, leg_id, packet, steady

import strep
from strep._edge.pcap import PcapWriter
from strep._model.types import StreamEvent, StreamInfo
from strep.cli.doctor import _EXTRAS
from strep.sinks import BaseSink

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits as of POSIX")


def capture_file(path: Path, arrivals: Any) -> Path:
    writer = PcapWriter(path)
    writer.write(batch_of(arrivals, width=1500))
    writer.close()
    return path


@posix
@pytest.mark.sockets
def test_a_terminal_that_is_closed_ends_a_capture_well(tmp_path: Path) -> None:
    """SIGHUP is as SIGTERM: files are whole and there is a summary."""
    with running("--listen", "127.0.0.1:0", "--out", tmp_path / "out") as (process, (port,)):
        send(port, [packet(k) for k in range(60)], 10)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["event"] == "summary"
    assert (tmp_path / "out" / str(LEG) / "a-inbound.wav").is_file()
    assert "wrote" in err
    assert not list((tmp_path / "out").rglob("*.part*"))


@posix
@pytest.mark.sockets
def test_nohup_stays_deaf_to_it(tmp_path: Path) -> None:
    command = [*STREP, "capture", "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "listening"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(100) == 0
    finally:
        process.kill()
        process.communicate()


@posix
@pytest.mark.sockets
def test_a_disk_that_is_full_at_the_end_is_told(tmp_path: Path) -> None:
    """What fits is whole; the rest is said, exit code 6, and there is no traceback."""
    import resource

    limit = 12_000  # bytes of each file: less than a second of audio
    command = [*STREP, "capture", "--listen", "127.0.0.1:0", "--out", str(tmp_path / "out"), "--pcap",
               str(tmp_path / "a.pcap"), "--json"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["sockets"][0]["address"].rpartition(":")[2])
        send(port, [packet(k) for k in range(150)], 10)
        process.terminate()
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 6, err
    assert "Traceback" not in err
    assert "lost: " in err
    assert "fault contained in recorder" in err
    assert "File too large" in err
    summary = json.loads(out.splitlines()[-1])
    assert summary["totals"]["delivered"] == 150
    assert summary["lost"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")
def test_events_that_no_disk_takes_are_told(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", steady(100))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*STREP, "replay", str(path), "--out", str(tmp_path / "out"), "--json"], stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert done.stderr.count("events cannot be printed any more") == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_full_disk_does_not_take_the_rest_of_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = capture_file(tmp_path / "a.pcap", steady(100))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("strep.cli.results.write_summary", full)
    done = strep_command("replay", path, "--out", tmp_path / "out", "--json")
    assert done.returncode == 6
    assert "summary.json cannot be written: [Errno 28] No space left on device" in done.stderr
    assert "100 delivered" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "summary"


# --- what is found last -----------------------------------------------------------------------------------------------


class Slow(BaseSink):
    """Finds something in all that it hears, late; the last when it is closed."""

    kind = "slow"

    def connect(self, publish: Any) -> None:
        self._publish = publish

    def stream_started(self, stream: StreamInfo) -> None:
        self._stream = stream

    def blocks(self, batch: Any) -> None:
        time.sleep(0.01)
        self._publish(StreamEvent(self._stream, "found", 0, 0, 0.0, {"number": len(batch)}))

    def close(self, timeout_s: float) -> None:
        time.sleep(0.2)
        self._publish(StreamEvent(self._stream, "found", 0, 0, 0.0, {"number": -1}))


class Listening(BaseSink):
    kind = "listening"
    wants_audio = False

    def __init__(self) -> None:
        self.heard: list[int] = []

    def event(self, event: StreamEvent) -> None:
        self.heard.append(event.data["number"])


@pytest.mark.parametrize("first", [True, False])
def test_who_only_listens_hears_all_that_the_others_find(tmp_path: Path, first: bool) -> None:
    path = capture_file(tmp_path / "a.pcap", steady(100))
    listening, slow = Listening(), Slow()
    strep.replay(path, sinks=[listening, slow] if first else [slow, listening])
    assert listening.heard[-1] == -1
    assert len(listening.heard) > 3


def test_every_key_is_printed_every_time(tmp_path: Path) -> None:
    tones = [(697, 1209), (770, 1336), (852, 1477), (941, 1477)]
    seconds = np.arange(1600) / 8000
    parts: list[Any] = [np.zeros(8000)]
    for pair in tones:
        parts += [sum(5000 * np.sin(2 * np.pi * hertz * seconds) for hertz in pair), np.zeros(4000)]
    samples = np.concatenate([*parts, np.zeros(8000)]).astype(">i2")
    payloads = [samples[at : at + 160].tobytes() for at in range(0, len(samples), 160)]
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, payload=payload, payload_type=96)) for k, payload in enumerate(payloads)
    ]
    path = capture_file(tmp_path / "a.pcap", arrivals)
    for number in range(5):
        done = strep_command(
            "replay", path, "--out", tmp_path / f"out{number}", "--analyze", "all", "--json", "--pt", "96=L16/8000"
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert "".join(event["digit"] for event in events if event["event"] == "dtmf") == "159#"


@posix
@pytest.mark.sockets
def test_a_reader_that_is_slow_gets_all_events(tmp_path: Path) -> None:
    """More than a pipe holds, read only when the capture has been told to end for a while."""
    command = [*STREP, "capture", "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["sockets"][0]["address"].rpartition(":")[2])
        legs = 150
        send(port, [packet(k, call=leg_id(n)) for k in range(4) for n in range(legs)])
        process.terminate()
        time.sleep(2.5)
        out, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    kinds = [json.loads(line)["event"] for line in out.splitlines()]
    assert (kinds.count("stream_started"), kinds.count("stream_ended")) == (legs, legs)
    assert kinds[-1] == "summary"
    assert len(out) > 2 * 65_536


# --- others -----------------------------------------------------------------------------------------------------------


def test_stereo_files_are_counted_once(tmp_path: Path) -> None:
    both = sorted([*steady(60), *steady(60, direction=1, ssrc=9)], key=lambda arrival: arrival.ns)
    path = capture_file(tmp_path / "a.pcap", both)
    for layout, files in (("stereo", "1 file\n"), ("split", "2 files\n")):
        done = strep_command("replay", path, "--out", tmp_path / layout, "--layout", layout)
        assert f"wrote {tmp_path / layout}/summary.json and {files}" in done.stderr


@pytest.mark.parametrize("known", [True, False])
def test_both_directions_of_an_unnamed_pair_are_in_one_folder(tmp_path: Path, known: bool) -> None:
    """Plain RTP on --rx and --tx is one call."""
    ways = {9001: steady(60, call=None), 9003: steady(60, call=None, ssrc=9)}
    both = sorted(
        (dataclasses.replace(each, local_port=port) for port, arrivals in ways.items() for each in arrivals),
        key=lambda arrival: arrival.ns,
    )
    path = capture_file(tmp_path / "a.pcap", both)
    leg = ("--call-leg-id", str(LEG)) if known else ()
    done = strep_command("replay", path, "--out", tmp_path / "out", "--rx", 9001, "--tx", 9003, *leg)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "out").rglob("*.wav"))
    assert len(files) == 2
    assert len({file.parent for file in files}) == 1
    assert {file.stem.removeprefix("a-") for file in files} == {"inbound", "outbound"}


def test_doctor_looks_for_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(_EXTRAS) == {name for name in project["optional-dependencies"] if name not in ("test", "lint", "docs")}


def test_the_help_of_pcap_says_what_wireshark_shows() -> None:
    for command in ("capture", "serve"):
        text = " ".join(strep_command(command, "--help").stdout.split())
        assert "Wireshark" in text
    text = " ".join(strep_command("capture", "--help").stdout.split())
    assert "`strep wireshark`" in text
    assert "`strep unwrap`" in text
