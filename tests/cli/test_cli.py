"""The command line as users type it: what it prints where, what it writes, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import capture_file
from commands import STREP, running, send, strep_command
from live import hashes, samples_of
from stopwatch import Stopwatch
from support import LEG, T0, leg_id, packet, payload_of, pcmu, steady

from strep._model.extras import install
from strep._receiver.summary import write_summary

pytestmark = pytest.mark.realtime

# --- capture ---------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform == "win32", reason="signals as of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_files_and_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """faults.md 33."""
    with running("--listen", "127.0.0.1:0", "--out", tmp_path / "out", "--pcap", tmp_path / "a.pcap") as (
        process,
        (port,),
    ):
        send(port, [packet(k, call=leg_id(n)) for k in range(200) for n in range(5)], chunk=100)
        watch = Stopwatch()
        process.send_signal(number)
        out, err = process.communicate(timeout=100)
        took = watch.seconds
    assert process.returncode == 0
    assert took <= 2
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events] == ["stream_started"] * 5 + ["stream_ended"] * 5 + ["summary"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {k: v for k, v in events[-1].items() if k != "event"} == summary
    assert summary["totals"]["delivered"] == summary["totals"]["datagrams"] == 1000
    assert summary["totals"]["kernel_dropped"] == 0
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(200)])
    for n in range(5):
        np.testing.assert_array_equal(samples_of(tmp_path / "out" / str(leg_id(n)) / "a-inbound.wav"), wanted)
    assert "1,000 datagrams" in err
    assert "\x1b" not in err
    assert not list((tmp_path / "out").rglob("*.part.wav"))
    # the recording gives the same once more
    again = strep_command("replay", tmp_path / "a.pcap", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert hashes(tmp_path / "again") == hashes(tmp_path / "out")
    twice = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert twice["streams"] == summary["streams"]
    assert twice["totals"] == summary["totals"]


@pytest.mark.sockets
def test_duration_ends_a_capture_and_a_monitor_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*STREP, "capture", "--listen", "127.0.0.1:0", "--duration", "0.3"],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert "listening on udp:127.0.0.1:" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sockets
def test_rx_and_tx_of_a_named_leg_as_stereo(tmp_path: Path) -> None:
    options = (
        "--rx",
        "127.0.0.1:0",
        "--tx",
        "127.0.0.1:0",
        "--call-leg-id",
        LEG,
        "--layout",
        "stereo",
        "--rate",
        16_000,
    )
    with running(*options, "--out", tmp_path / "out") as (process, (rx, tx)):
        for k in range(0, 100, 10):
            send(rx, [packet(i, call=None, ssrc=1) for i in range(k, k + 10)], 10)
            send(tx, [packet(i, call=None, ssrc=2) for i in range(k, k + 10)], 10)
        process.terminate()
        process.communicate(timeout=100)
    both = samples_of(tmp_path / "out" / str(LEG) / "a.wav")
    assert both.shape[1] == 2
    assert 2 * 16_000 <= len(both) <= 2 * 16_000 + 1600


@pytest.mark.sockets
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals as of POSIX")
@pytest.mark.parametrize("color", [True, False])
def test_a_terminal_shows_a_table_that_lives(color: bool) -> None:
    """...and heeds NO_COLOR."""
    parent, child = pty.openpty()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "150"}
    process = subprocess.Popen(
        [*STREP, "capture", "--listen", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=child, env=environment if color else {**environment, "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(child)
    shown = ""
    try:
        k, deadline = 0, time.monotonic() + 100
        while not ("dBFS" in shown and str(LEG)[:20] in shown and "PCMU/8000" in shown):
            assert time.monotonic() < deadline, shown
            with contextlib.suppress(ConnectionRefusedError):
                send(port, [packet(i) for i in range(k, k + 5) if i % 10], 5)  # every tenth is lost
            k += 5
            while select.select([parent], [], [], 0)[0]:
                shown += os.read(parent, 65_536).decode(errors="replace")
    finally:
        process.terminate()
        with contextlib.suppress(OSError):
            while chunk := os.read(parent, 65_536):
                shown += chunk.decode(errors="replace")
        process.wait(100)
        os.close(parent)
    assert process.returncode == 0
    assert "datagrams/s" in shown
    colors = re.findall(r"\x1b\[[0-9;]*3[0-7]m", shown)
    assert bool(colors) == color


# --- replay and inspect ----------------------------------------------------------------------------------------------


def test_replay_writes_files_summary_and_events(tmp_path: Path) -> None:
    done = strep_command("replay", capture_file(tmp_path / "a.pcap"), "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events] == ["stream_started"] * 2 + ["stream_ended"] * 2 + ["summary"]
    assert set(hashes(tmp_path / "out")) == {f"{LEG}/a-inbound.wav", f"{LEG}/a-outbound.wav"}
    assert "wrote" in done.stderr


def test_the_summary_has_the_form_that_is_promised(tmp_path: Path) -> None:
    strep_command("replay", capture_file(tmp_path / "a.pcap"), "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["schema"] == 1
    totals = summary["totals"]
    assert set(totals["by_kind"]) >= {"strep", "rtp", "rtcp", "sip", "t38", "other"}
    parts = ("delivered", "duplicate", "late", "malformed", "rejected", "dropped", "buffered")
    assert totals["datagrams"] == sum(totals[p] for p in parts) == 200
    assert totals["kernel_dropped"] == 0
    stream = summary["streams"][1]
    promised: dict[str, Any] = {
        "call_leg_id": str(LEG), "leg": "a", "direction": "outbound", "codec": "PCMU", "payload_types": [0],
        "clock_rate": 8000, "sample_rate": 8000, "ssrcs": [0x1234], "packets_received": 100, "packets_expected": 100,
        "packets_lost": 0, "rfc3550_lost": 0, "duplicates": 0, "reordered": 0, "late": 0,
        "jitter_ms": {"mean": 0.0, "max": 0.0, "last": 0.0}, "duration_s": 2.0, "samples": 16_000, "gap_samples": 0,
        "files": [f"{LEG}/a-outbound.wav"], "first_arrival_ns": T0,
    }  # fmt: skip
    assert {key: stream[key] for key in promised} == promised


def test_inspect_shows_a_table_and_writes_nothing(tmp_path: Path) -> None:
    path = capture_file(tmp_path / "a.pcap", [a for k, a in enumerate(steady(100)) if k != 50])
    done = subprocess.run([*STREP, "inspect", str(path)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(LEG) in done.stdout
    assert "1 (1.0%)" in done.stdout
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == [path]
    summary = json.loads(strep_command("inspect", path, "--json").stdout)
    assert summary["streams"][0]["packets_lost"] == 1


def test_dynamic_payload_types_are_named(tmp_path: Path) -> None:
    # 630 bytes a packet of 20 ms: no codec that could be guessed
    arrivals = steady(50, payload_type=97, payload=bytes(630), frames=320)
    path = capture_file(tmp_path / "a.pcap", arrivals)
    unnamed = strep_command("replay", path, "--out", tmp_path / "a")
    assert unnamed.returncode == 6
    assert "packets could be decoded, so there is no audio of them: say what it is with --pt" in unnamed.stderr
    assert "payload type 97" in unnamed.stderr
    assert unnamed.stderr.count("payload type 97") == 1
    assert hashes(tmp_path / "a") == {}
    strep_command("replay", path, "--out", tmp_path / "b", "--pt", "97=L16/16000")
    assert len(samples_of(tmp_path / "b" / str(LEG) / "a-inbound.wav")) == 49 * 320 + 315


# --- simulate, demo, doctor ------------------------------------------------------------------------------------------


@pytest.mark.sockets
def test_simulate_into_capture(tmp_path: Path) -> None:
    with running("--listen", "127.0.0.1:0", "--out", tmp_path / "out") as (process, (port,)):
        done = strep_command(
            "simulate", "--to", f"udp:127.0.0.1:{port}", "--calls", 4, "--duration", 1.5, "--loss", 0.05, "--reorder",
            0.02, "--duplicate", 0.02, "--jitter", 5, "--drift-ppm", 50, "--codec", "pcma", "--ptime", 30, "--seed", 3,
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        process.terminate()
        process.communicate(timeout=100)
    sent = json.loads(done.stdout)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["totals"]["datagrams"] == sent["datagrams"]
    keys = ("call_leg_id", "leg", "direction", "packets_expected", "packets_lost", "duplicates")
    found, wanted = (sorted([tuple(s[k] for k in keys) for s in x["streams"]]) for x in (summary, sent))
    assert found == wanted
    assert len(found) == 8
    assert {s["codec"] for s in summary["streams"]} == {"PCMA"}


@pytest.mark.sockets
def test_the_demo_does_it_all(tmp_path: Path) -> None:
    done = strep_command("demo", "--calls", 2, "--seconds", 2, "--out", tmp_path / "demo", "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert "as many as were withheld" in done.stdout
    paths = [Path(line) for line in done.stdout.splitlines() if line.endswith((".wav", ".json"))]
    assert len(paths) == 5
    assert all(p.is_file() for p in paths)
    assert max(np.abs(samples_of(p).astype(int)).max() for p in paths[:-1]) > 5000  # somebody speaks
    assert "call.answered" in done.stderr  # it was asked for through the API


@pytest.mark.sockets
def test_the_demo_without_the_extra_forks_straight(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; from strep.cli import main; "
        f"sys.argv = ['strep', 'demo', '--calls', '1', '--seconds', '1', '--out', {str(tmp_path)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "as many as were withheld" in done.stdout
    assert f"uvicorn: {install('serve')}" in done.stderr


@pytest.mark.sockets
def test_doctor_tells_line_by_line(tmp_path: Path) -> None:
    done = strep_command("doctor", "--listen", "127.0.0.1:0", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    checks = json.loads(strep_command("doctor", "--listen", "127.0.0.1:0", "--json").stdout)
    names = [c["name"] for c in checks]
    assert {"port", "receive buffer", "recvmmsg", "uvloop", "clock"} <= set(names)
    assert all(any(name in line for line in lines) for name in [*names, "disk"])
    assert {c["result"] for c in checks} <= {"ok", "warn"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        done = strep_command("doctor", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 7
    assert "taken by another program" in done.stderr


def test_a_session_in_one_file(tmp_path: Path) -> None:
    legs = [leg_id(1), LEG]
    arrivals = sorted(
        (a for call in legs for d in (0, 1) for a in steady(50, call=call, direction=d)), key=lambda a: a.ns
    )
    path = capture_file(tmp_path / "a.pcap", arrivals)
    session = ("--layout", "session", "--session", f"call-7={legs[0]},{legs[1]}", "--no-drift-correction")
    done = strep_command("replay", path, "--out", tmp_path / "out", *session)
    assert done.returncode == 0, done.stderr
    assert set(hashes(tmp_path / "out")) == {"call-7/session.wav"}
    assert samples_of(tmp_path / "out" / "call-7" / "session.wav").shape == (50 * 160, 4)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [s["files"] for s in summary["streams"]] == [["call-7/session.wav"]] * 4
    assert not any("drift" in s for s in summary["streams"])
    corrected = strep_command("replay", path, "--out", tmp_path / "more", *session[:-1])
    assert corrected.returncode == 0, corrected.stderr
    summary = json.loads((tmp_path / "more" / "summary.json").read_text())
    none = {"skew_ppm": None, "inserted": 0, "dropped": 0, "resampled": 0}
    assert [s["drift"] for s in summary["streams"]] == [none] * 4
    assert hashes(tmp_path / "more") == hashes(tmp_path / "out")


# --- wrong use: exit codes -------------------------------------------------------------------------------------------


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["capture", "--listen", "nonsense"], 2, "udp:0.0.0.0:9000"),
        (["capture", "--latency", "900"], 2, "800"),
        (["capture", "--encoding", "native", "--layout", "stereo", "--out", "{tmp}/x"], 2, "split"),
        (["capture", "--layout", "session", "--out", "{tmp}/x"], 2, "--session NAME=UUID,UUID"),
        (["capture", "--layout", "session", "--session", "x=nobody"], 2, "no call_leg_id"),
        (["capture", "--layout", "session", "--session", f"={LEG}"], 2, "like NAME=UUID,UUID"),
        (["capture", "--layout", "session", "--session", f"x={LEG}", "--session", f"y={LEG}"], 2, "already"),
        (["capture", "--session", f"x={LEG}", "--out", "{tmp}/x"], 2, "belong together"),
        (["capture", "--pt", "96"], 2, "96=L16/16000"),
        (["capture", "--allow", "10.0.0.0/99"], 2, "CIDR"),
        (["capture", "--call-leg", "abc"], 2, "UUID"),
        (["capture", "--max-streams", "0"], 2, "max-streams"),
        (["capture", "--no-such-option"], 2, "No such option"),
        (["capture", "--out", "/proc/nothing/here"], 2, "choose a directory"),
        (["capture", "--listen", "127.0.0.1:0", "--pcap", "{tmp}/no/a.pcap"], 2, "cannot be written"),
        (["capture", "--listen", "203.0.113.1:9000"], 4, "no interface"),
        (["replay", "{tmp}/none.pcap", "--out", "{tmp}/x"], 3, "none.pcap"),
        (["replay", "{tmp}/text", "--out", "{tmp}/x"], 3, "neither pcap nor pcapng"),
        (["inspect", "{tmp}"], 3, "cannot read"),
        (["replay", "{tmp}/text"], 2, "--out"),
        (["simulate"], 2, "udp:127.0.0.1:9000"),
        (["simulate", "--to", "udp:127.0.0.1:9", "--loss", "7"], 2, "loss"),
        (["simulate", "--to", "udp:127.0.0.1:9", "--codec", "evs"], 2, "codec"),
    ],
)
def test_wrong_use_says_what_would_be_right(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    (tmp_path / "text").write_text("this is no capture file")
    done = strep_command(*(a.format(tmp=tmp_path) for a in arguments))
    assert done.returncode == code, done.stderr
    assert says.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.sockets
def test_a_taken_port_is_exit_code_4() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        done = strep_command("capture", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, "taken by another program" in done.stderr) == (4, True)


@pytest.mark.sockets
def test_a_sink_that_failed_is_exit_code_6(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for number in ("", *(f"-{n}" for n in range(2, 1000))):
        (tmp_path / "out" / f"{LEG}{number}").touch()  # files where a directory should be, whatever it is called
    with running("--listen", "127.0.0.1:0", "--out", tmp_path / "out") as (process, (port,)):
        send(port, [packet(k) for k in range(40)])
        process.terminate()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 6
    assert "wav: EEXIST" in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sinks"][0]["dropped_frames"] == 40 * 160


@pytest.mark.sockets
def test_a_summary_that_cannot_be_written_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    """As on a full disk."""
    out, pcap = tmp_path / "out", tmp_path / "raw.pcap"
    (out / "summary.json").mkdir(parents=True)  # nothing can take its place
    with running("--listen", "127.0.0.1:0", "--out", out, "--pcap", pcap) as (process, (port,)):
        send(port, [packet(k) for k in range(40)])
        process.terminate()
        _, err = process.communicate(timeout=100)
    again = strep_command("replay", str(pcap), "--out", str(out))
    for code, text in ((process.returncode, err), (again.returncode, again.stderr)):
        assert code == 6
        assert "summary.json cannot be written: " in text
        assert "40 datagrams" in text
        assert "Traceback" not in text


def test_help_and_version() -> None:
    for command in ((), ("capture",), ("replay",), ("inspect",), ("simulate",), ("demo",), ("doctor",)):
        done = strep_command(*command, "--help")
        assert (done.returncode, "Usage:" in done.stdout) == (0, True)
    assert "Exit codes" in strep_command("--help").stdout
    import strep

    assert strep.__version__ in strep_command("--version").stdout


def test_a_summary_has_a_line_for_each_stream(tmp_path: Path) -> None:
    summary = {"schema": 1, "totals": {"a": [1]}, "streams": [{"x": 'é"\n'}, {"x": 2}], "sinks": [], "sockets": {}}
    text = write_summary(tmp_path, summary).read_text(encoding="utf-8")
    assert json.loads(text) == summary
    assert text.splitlines()[3:7] == [' "streams": [', '  {"x": "\\u00e9\\"\\n"},', '  {"x": 2}', " ],"]
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
