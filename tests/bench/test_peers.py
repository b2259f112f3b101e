"""The comparison with other software: answers are right, what is missing is named, what is wrong is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from strep.simulate.load import expected_payload, expected_samples

BENCHMARKS = ROOT / "benchmarks"

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(not (BENCHMARKS / "compare.py").is_file(), reason="benchmarks/ is not beside tests/"),
    pytest.mark.skipif(
        sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="comparing needs Linux and two cores"
    ),
]


def compare(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    load = ["--streams", "10", "--duration", "0.5", "--rounds", "1"]
    command = [sys.executable, str(BENCHMARKS / "compare.py"), *load, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **environment})


@pytest.mark.slow
def test_strep_and_asyncio_receive_everything(tmp_path: Path) -> None:
    done = compare("strep-wav", "strep-monitor@4", "asyncio", "--json", str(tmp_path / "a.json"))
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "a.json").read_text())
    trials = measured["trials"]
    assert [(t["name"], t["streams"], t["sent"]) for t in trials] == [
        ("strep-wav", 10, 250),
        ("strep-monitor", 4, 100),
        ("asyncio", 10, 250),
    ]
    for trial in trials:
        assert trial["answer"] == {"received": trial["sent"], "missing": 0, "tail": 0, "wrong": 0}
    assert measured["workload"] == "compare"
    assert measured["command"].startswith("python benchmarks/compare.py --streams 10")
    assert str(tmp_path) not in measured["command"]
    assert all(name in done.stdout for name in ("strep-wav", "strep-monitor", "asyncio"))


@pytest.mark.slow
def test_programs_record_everything(tmp_path: Path) -> None:
    done = compare("gstreamer", "ffmpeg", "rtpengine", "pion", "--json", str(tmp_path / "a.json"))
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    if len(skipped) == 4:
        pytest.skip("; ".join(skipped))
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "a.json").read_text())["trials"]
    assert len(trials) == 4 - len(skipped)
    for trial in trials:
        tail = 10 if trial["name"] == "pion" else 0
        assert {**trial["answer"], "received": None} == {"received": None, "missing": 0, "tail": tail, "wrong": 0}


def test_what_is_missing_is_skipped_by_name(tmp_path: Path) -> None:
    names = ["gstreamer", "ffmpeg", "rtpengine", "pion", "aiortc", "rtp", "dpkt", "uvloop", "asyncio"]
    done = compare(*names, "--peer-python", str(tmp_path / "python"), PATH=str(tmp_path))
    assert done.returncode == 1
    for name in names:
        assert f"skipped: {name} is missing" in done.stderr
    for install in (
        "gstreamer1.0-tools",
        "apt-get install ffmpeg",
        "apt-get install rtpengine-daemon",
        "golang-github-pion-rtp-dev",
    ):
        assert install in done.stderr
    done = compare("rtp", "--peer-python", sys.executable, PYTHONNOUSERSITE="1")
    if done.returncode:
        assert "pip install -r benchmarks/requirements-peers.txt" in done.stderr


@pytest.mark.parametrize(("name", "text"), [("nobody", "choose from strep-monitor"), ("asyncio@x", "NAME@STREAMS")])
def test_wrong_names_say_what_is_right(name: str, text: str) -> None:
    done = compare(name)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("answers")


def test_a_wrong_file_is_noticed(answers: Any, tmp_path: Path) -> None:
    wanted = expected_samples(0, 5)

    def check(samples: np.ndarray) -> tuple[int, int, int, bool]:
        with wave.open(str(tmp_path / "0.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        answer = answers.check_files(tmp_path, 1, 5, tail=1, received=None)
        return answer.missing, answer.tail, answer.wrong, answer.exact

    assert check(wanted) == (0, 0, 0, True)
    assert check(wanted[:-160]) == (0, 1, 0, True)
    assert check(wanted[:-1]) == (0, 1, 0, True)
    assert check(wanted[:-320]) == (1, 1, 0, False)
    assert check(wanted[160:]) == (1, 0, 0, False)
    assert check(wanted[:0]) == (4, 1, 0, False)
    assert check(np.r_[wanted[:-1], wanted[-1] ^ 1]) == (0, 0, 1, False)
    assert check(np.r_[wanted, np.int16(0)]) == (0, 0, 1, False)
    (tmp_path / "0.wav").write_bytes(b"RIFF")
    assert answers.check_files(tmp_path, 1, 5, tail=1, received=None).missing == 4


def test_a_wrong_payload_is_noticed(answers: Any) -> None:
    wanted = expected_payload(0, 5).tobytes()

    def check(payload: bytes) -> tuple[int, int, int]:
        streams = {"1": [len(payload), zlib.crc32(payload)]}
        answer = answers.check_payloads(streams, 1, 5, tail=1, received=5)
        return answer.missing, answer.tail, answer.wrong

    assert check(wanted) == (0, 0, 0)
    assert check(wanted[:-160]) == (0, 1, 0)
    assert check(wanted[:160]) == (3, 1, 0)
    assert check(b"x" + wanted[1:]) == (0, 0, 1)
    assert answers.check_payloads({}, 2, 5, tail=0, received=0).missing == 10


def test_plots_are_small_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: benchmarks/requirements-peers.txt")
    monkeypatch.syspath_prepend(BENCHMARKS)
    plots = import_module("plots")
    trials = [
        {"name": name, "streams": 300, "round": n, "cpu_us": cost + n}
        for n in range(3)
        for name, cost in (("strep-wav", 3.0), ("gstreamer", 40.0))
    ]
    jobs = {name: {"job": "record"} for name in ("strep-wav", "gstreamer")}
    (tmp_path / "a.json").write_text(json.dumps({"workload": "compare", "peers": jobs, "trials": trials}))
    (tmp_path / "b.json").write_text(json.dumps({"workload": "what nobody draws"}))
    files = []
    for out in (tmp_path / "1", tmp_path / "2"):
        assert plots.main([str(tmp_path), "--out", str(out)]) == 0
        (path,) = out.iterdir()
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) < 60_000
    assert b"gstreamer (record), 300 streams" in files[0]


def report_of_every_workload() -> dict[str, Any]:
    """The shape that `strep bench --json` writes, with few figures."""
    some = {"median": 1.5, "low": 1.0, "high": 2.0, "runs": 3}
    case = {"consumer": "ring", "rate": 5e4, "pattern": "even", "histogram": [[1e6 * 1.1**i, 9] for i in range(60)]}
    stage = {"columns": ["batch", "parse", "sum", "WavSink"], "rows": [[1, 900, 950, 80], [4096, 20, 40, 70]]}
    trials = [{"streams": n, "rate": 1e5, "trials": [{"cpu_us": 1.0 + n / 1e4}] * 2} for n in (10, 1000, 20_000)]
    outcomes: dict[str, dict[str, Any]] = {
        "stages": stage,
        "zero-loss": {"columns": ["a", "b", "c"], "rows": [["wav", 1000, {**some, "median": 2e5, "high": 3e5}]]},
        "ratio": {"columns": list("abcde"), "rows": [["floor", 0, 0, 0, some], ["wav", 0, 0, 0, some]]},
        "growth": {"columns": ["streams"], "rows": [[10]], "data": {"trials": trials}},
        "latency": {"columns": ["p50"], "rows": [[0.25]], "data": {"cases": [case]}},
        "churn": {"columns": ["x"], "rows": [[None]], "data": {"runs": [{"receiver": "wav", "memory_mib": [9, 9]}]}},
        "stalls": {"columns": ["x"], "rows": [["a sink"]], "wrong": ["all of it"], "notes": ["so what"]},
    }
    here = {"processor": "X", "cores": 2, "memory_gib": 1, "system": "L", "python": "3", "numpy": "2", "strep": "0"}
    usual: dict[str, Any] = {"title": "how", "notes": [], "wrong": [], "data": {}}
    found = [{"workload": name, **usual, **outcome} for name, outcome in outcomes.items()]
    return {"machine": here, "date": "2026-01-01", "command": "strep bench", "outcomes": found}


def test_the_page_of_results_has_every_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: benchmarks/requirements-peers.txt")
    monkeypatch.syspath_prepend(BENCHMARKS)
    results = import_module("results")
    report = report_of_every_workload()
    (tmp_path / "json").mkdir()
    assert results.main([str(tmp_path / "json"), "--out", str(tmp_path / "R.md")]) == 2
    (tmp_path / "json" / "all.json").write_text(json.dumps(report))
    assert results.main([str(tmp_path / "json"), "--out", str(tmp_path / "R.md")]) == 0
    page = (tmp_path / "R.md").read_text()
    for outcome in report["outcomes"]:
        assert f"## {outcome['workload']}\n\n`strep bench`" in page
    assert "| wav | 1,000 | 200,000 (1.00-300,000) |" in page
    assert "**wrong: all of it**" in page
    drawn = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert drawn == {o["workload"] for o in report["outcomes"]} - {"stalls"}
    assert all(path.stat().st_size < 60_000 for path in (tmp_path / "plots").iterdir())
