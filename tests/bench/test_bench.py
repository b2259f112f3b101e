"""strep bench answers right, and notices what is wrong. What it measures is not tested: that is the machine's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given
from hypothesis import strategies as st

from strep import ConfigurationError
from strep._edge.pcap import PcapReader
from strep._model.exceptions import StrepError
from strep.bench import WORKLOADS, WRITING, Settings, _disk, pairs, run_workload, search, stages
from strep.bench._disk import file_system_of
from strep.bench._histogram import Histogram
from strep.bench._outcome import Outcome, spread
from strep.bench._trial import RECEIVERS, Load, Trial, is_right, run_trial
from strep.bench.burst import cost_of_a_stream_us
from strep.bench.impairment import differences, wrong_files
from strep.bench.latency import latencies_ns
from strep.bench.offline import write_capture
from strep.bench.ratio import measure_ratios
from strep.bench.search import bisect
from strep.bench.stages import SINKS, STAGES
from strep.cli.bench import _measurements
from strep.simulate.load import call_leg_id_of, expected_samples

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="strep bench needs Linux and two cores"
    ),
    pytest.mark.realtime,
]
LISTEN = [sys.executable, "-m", "strep.bench._listen"]


def test_every_receiver_is_measured_and_exact(tmp_path: Path) -> None:
    steps: list[str] = []
    settings = Settings(directory=tmp_path, progress=steps.append)
    rounds = usual_or_slow(1, 2)
    measured = measure_ratios(settings, Load(20, 2000, 1), rounds)
    receivers = [r for r in RECEIVERS if r != "floor" or shutil.which("cc")]
    assert steps == [f"{receiver} {n + 1}/{rounds}" for n in range(rounds) for receiver in receivers]
    assert list(measured) == receivers
    for trials in measured.values():
        for trial in trials:
            assert (trial.sent, trial.datagrams) == (2000, 2000)
            assert (trial.lost, trial.missing, trial.wrong, trial.kernel_dropped) == (0, 0, 0, 0)
            assert trial.exact
            assert json.loads(json.dumps(trial.as_dict()))["receiver"] == trial.receiver
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_noticed(tmp_path: Path) -> None:
    samples = expected_samples(3, 5)
    path = tmp_path / str(call_leg_id_of(3)) / "a-outbound.wav"
    path.parent.mkdir()

    def right(there: np.ndarray) -> bool:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(there.astype("<i2").tobytes())
        return is_right(tmp_path, 3, 5)

    assert right(samples)
    assert not right(np.r_[samples[:-1], samples[-1] ^ 1])
    assert not right(samples[:-1])
    assert not right(np.r_[samples, np.int16(0)])
    path.write_bytes(b"RIFF")
    assert not is_right(tmp_path, 3, 5)
    path.unlink()
    assert not is_right(tmp_path, 3, 5)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_everything(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    load = ["--streams", "10", "--rate", "1000", "--duration", "0.5", "--runs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "strep", "bench", "ratio", *load, "--out", str(tmp_path), "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("monitor", "arrays", "wav", "10 streams", "1,000 packets/s"))
    measured = json.loads(report.read_text())
    assert set(measured) == {"machine", "date", "command", "outcomes"}
    outcome = measured["outcomes"][0]
    assert (outcome["workload"], outcome["wrong"]) == ("ratio", [])
    assert outcome["data"]["arrays"]["trials"][0]["datagrams"] == 500


def test_the_command_lists_its_workloads_and_refuses_others() -> None:
    command = [sys.executable, "-m", "strep", "bench"]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, timeout=100)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(WORKLOADS)
    refused = subprocess.run([*command, "speed"], capture_output=True, text=True, timeout=100)
    assert refused.returncode == 2
    assert "no workload 'speed': choose from stages" in refused.stderr


@pytest.mark.parametrize(("name", "settings", "text"), [("x", {}, "choose from"), ("ratio", {"runs": 0}, "at least")])
def test_wrong_arguments_say_what_is_right(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        run_workload(name, Settings(**settings))


MOUNTS = """\
21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:20 / /dev/shm rw,nosuid - tmpfs tmpfs rw
23 21 0:30 / /mnt/with\\040space rw shared:1 - xfs /dev/sdb rw
24 23 0:31 / /mnt/with\\040space rw - btrfs /dev/sdc rw
nonsense
"""


@pytest.mark.parametrize(
    ("directory", "file_system"),
    [
        ("/", "ext4"),
        ("/dev/shm", "tmpfs"),
        ("/dev/shm/a/b", "tmpfs"),
        ("/dev/shmem", "ext4"),
        ("/mnt/with space/x", "btrfs"),  # mounted over the other one
    ],
)
def test_a_directory_is_on_the_file_system_that_is_mounted_nearest(directory: str, file_system: str) -> None:
    assert file_system_of(Path(directory), MOUNTS) == file_system
    assert file_system_of(Path(directory), "") == "?"


def test_files_go_to_the_working_directory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Settings().work() as work:
        assert work.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="--out"):
        _ = Settings(directory=tmp_path / "missing").place


def test_a_trial_gets_the_cheapest_part_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = iter([300.0, 90.0, 200.0, 59.0, 1.0])
    monkeypatch.setattr(_disk, "cost_of_a_file_us", lambda directory, parent: next(costs))
    directory, cost = _disk.quiet_directory(tmp_path)
    assert (cost, directory.parent, len(list(tmp_path.iterdir()))) == (59.0, tmp_path, 4)
    costs = iter([300.0, 90.0, *[200.0] * 6])
    directory, cost = _disk.quiet_directory(tmp_path)
    assert (cost, list(costs)) == (90.0, [])
    assert "took 50 µs of CPU before the trials, 90 at most; more" in _disk.files_note([cost, 50.0, 50.0])
    assert "wait" not in _disk.files_note([59.0])


def test_what_a_file_costs_is_tried_without_leaving_anything_there(tmp_path: Path) -> None:
    directory = tmp_path / "there"
    directory.mkdir()
    assert 0.5 < _disk.cost_of_a_file_us(directory, tmp_path) < 10_000
    assert list(directory.iterdir()) == []
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 64


def test_emptied_files_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "call").mkdir()
    (tmp_path / "call" / "a.wav").write_bytes(b"sound")
    (tmp_path / "leg.json").write_bytes(b"{}")
    _disk.emptied(tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert sizes == {"a.wav": 0, "leg.json": 0}


def test_what_writes_names_its_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in ("ratio", "latency"):
        monkeypatch.setitem(WORKLOADS, name, ("", lambda settings, name=name: Outcome(name, "a title", ())))
        found[name] = run_workload(name, Settings(directory=tmp_path))
    there = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", tmp_path], capture_output=True, text=True, check=True)
    assert found["ratio"].file_system == there.stdout.strip()
    assert found["ratio"].title == f"a title; files on {there.stdout.strip()}"
    assert (found["latency"].file_system, found["latency"].title) == (None, "a title")
    assert found["ratio"].as_dict()["file_system"] == there.stdout.strip()


def test_several_directories_are_measured_by_what_writes_only() -> None:
    places = Path("a"), Path("b")
    assert list(_measurements(("ratio", "latency"), places, WRITING)) == [
        ("ratio", places[0]),
        ("ratio", places[1]),
        ("latency", places[0]),
    ]
    assert list(_measurements(("ratio",), (), WRITING)) == [("ratio", None)]


def test_what_beginning_costs_is_told_apart_from_what_packets_cost() -> None:
    """10 streams at 500 µs each, then 2 µs a packet."""
    short, long = (
        Trial("wav", n, 0.0, False, n, 0, 0, 0, 0, (10 * 500 + 2 * n) / n, 0.0, 1.0, 1.0) for n in (1000, 6000)
    )
    assert cost_of_a_stream_us(short, long, 10) == pytest.approx((500.0, 2.0))


# --- answers are checked ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_impaired_load_is_told_exactly_and_any_difference_noticed(tmp_path: Path) -> None:
    load = Load(40, 6000.0, 8.0, "impaired")
    schedule = load.schedule()
    out = tmp_path / "out"
    trial = run_trial("monitor", load, tmp_path, options=["--out", str(out)])
    assert differences(trial.summary, schedule) == []
    assert wrong_files(out, schedule, 40) == 0
    assert sum(s["packets_lost"] for s in trial.summary["streams"]) > 50
    assert sum(s["restarts"] for s in trial.summary["streams"]) == 40
    trial.summary["streams"][3]["packets_lost"] += 1
    trial.summary["totals"]["malformed"] += 1
    assert len(differences(trial.summary, schedule)) == 2
    path = next(out.glob("*/a-outbound.wav"))
    path.write_bytes(path.read_bytes()[:-2])
    assert wrong_files(out, schedule, 40) == 1


@pytest.mark.parametrize("mode", ["iterate", "ring"])
def test_latency_is_of_every_packet(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "arrivals.npy"
    load = Load(20, 1000.0, 2.0, "phase", spin=True)
    trial = run_trial(mode, load, tmp_path, command=[*LISTEN, mode, str(path)])
    values = latencies_ns(np.load(path), load, trial.load["start_ns"])
    assert len(values) == 1000  # of the second second
    assert values.min() > 0
    arrivals = np.array([[5_000_000_000, 3, 160 * 60]])  # packet 60 of stream 2, meant for 1.2 s
    assert latencies_ns(arrivals, load, 3_000_000_000).tolist() == [800_000_000]
    even = Load(20, 1000.0, 2.0)
    assert latencies_ns(arrivals, even, 3_000_000_000).tolist() == [2_000_000_000 - 1_202_000_000]


def test_a_hanging_sink_costs_itself_only(tmp_path: Path) -> None:
    trial = run_trial("stall-sink", Load(20, 1000.0, 2.0), tmp_path, command=[*LISTEN, "stall-sink"])
    assert trial.exact
    assert trial.summary["frames"] == 2000 * 160
    stalled = next(s for s in trial.summary["sinks"] if s["kind"] == "stalled")
    assert stalled["stalled"] is True
    assert stalled["frames"] + stalled["dropped_frames"] == 2000 * 160


def test_a_process_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StrepError, match="ended early"):
        run_trial("x", Load(1, 100.0, 0.1), tmp_path, command=[sys.executable, "-c", "raise SystemExit('no')"])


def test_the_capture_for_offline_holds_the_load(tmp_path: Path) -> None:
    path = tmp_path / "load.pcap"
    write_capture(path, streams=7, rate=350.0, duration_s=1.0)
    with PcapReader(path) as reader:
        batches = [(b.length.tolist(), b.arrival_ns.copy()) for b in reader.batches()]
    assert [n for lengths, _ in batches for n in lengths] == [196] * 350
    arrival = np.concatenate([arrivals for _, arrivals in batches])
    assert np.diff(arrival).tolist() == pytest.approx([1e9 / 350] * 349, abs=1)


@pytest.mark.parametrize("streams", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_stages_add_up_to_packets_that_were_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    monkeypatch.setattr(stages, "_STREAMS", streams)
    monkeypatch.setattr(stages, "_RATE", streams * 50.0)
    outcome = run_workload("stages", Settings(quick=True, directory=tmp_path))
    assert outcome.wrong == []
    assert [row[0] for row in outcome.rows] == [1, 16, 256, 4096]
    assert len(outcome.columns) == len(outcome.rows[0]) == 2 + len(STAGES) + len(SINKS)
    assert all(isinstance(cell, int) and cell > 0 for row in outcome.rows for cell in row)


# --- figures ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.floats(0.001, 1.0))
def test_a_quantile_is_at_most_a_bucket_too_high(values: list[int], share: float) -> None:
    histogram = Histogram()
    for begin in range(0, len(values), 50):
        histogram.add(np.array(values[begin : begin + 50]))
    exact = sorted(values)[int(np.ceil(share * len(values))) - 1]
    assert exact <= histogram.quantile_ns(share) <= exact * (1 + 1 / 64) + 1
    assert histogram.max_ns == max(values)
    assert sum(count for _, count in histogram.points()) == len(histogram) == len(values)


def test_a_histogram_of_nothing_has_no_quantiles() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(0, np.int64))
    assert np.isnan(histogram.quantile_ns(0.5))
    histogram.add(np.array([-5]))
    assert histogram.quantile_ns(1.0) == 0.0


@given(st.floats(30_000, 900_000), st.floats(0.9, 1.0))
def test_the_search_ends_at_the_highest_rate_that_long_trials_confirm(limit: float, long: float) -> None:
    found = bisect(lambda r: r <= limit, lambda r: r <= limit * long, 20_000, 1_000_000)
    assert not found.generator_was_the_limit
    assert limit * long * 0.92 / 1.04 <= found.rate <= limit * long
    assert found.rate * (1 + found.precision) > limit * long
    found = bisect(lambda r: True if r <= limit else None, lambda r: r <= limit, 20_000, 1_000_000)
    assert found.generator_was_the_limit
    assert limit / 1.04 <= found.rate <= limit
    assert found.precision <= 0.04
    found = bisect(lambda r: False, lambda r: False, 20_000, 1_000_000)
    assert (found.rate, found.generator_was_the_limit) == (0.0, False)


def test_a_search_without_time_confirms_what_it_has() -> None:
    tried: list[float] = []
    confirmed: list[float] = []

    def good(rate: float) -> bool:
        tried.append(rate)
        return rate <= 300_000

    def confirm(rate: float) -> bool:
        confirmed.append(rate)
        return rate <= 200_000

    found = bisect(good, confirm, 20_000, 2_000_000, lambda: len(tried) == 2)
    assert tried == pytest.approx([200_000, 632_455], rel=1e-5)
    assert (confirmed, found.rate) == ([tried[0]], tried[0])
    assert found.rate * (1 + found.precision) == pytest.approx(tried[1])


def test_a_search_has_as_many_rounds_as_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial takes 7 s more than it sends for."""
    now = [1000.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])

    def trial(receiver: str, load: Load, work: Path, *, samples: int) -> Trial:
        now[0] += load.duration_s + 7.0
        lost = 0 if load.rate <= 400_000 else 1
        return Trial(receiver, 10, 0.0, False, 10, 0, lost, 0, 0, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(search, "run_trial", trial)
    outcome = search.measure(Settings())
    assert now[0] - 1000.0 <= 600.0
    assert outcome.wrong == []
    searches = outcome.data["searches"]
    assert len(searches) == 6
    assert all(
        rate <= 400_000 < rate * (1 + precision)
        for s in searches
        for rate, precision in zip(s["rates"], s["precision"], strict=True)
    )
    assert "rounds" in " ".join(outcome.notes)


def test_a_spread_is_of_something() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.runs) == (2.0, 1.0, 3.0, 3)
    assert spread([]) is None


@pytest.mark.parametrize(
    "mode", ["wav", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("monitor", "iterate"))]
)
def test_pairs_are_measured_beside_target_mode_and_exact(mode: str, tmp_path: Path) -> None:
    load = Load(6, 300.0, 1.5)
    trials = {kind: [pairs._run(kind, 3, mode, load, tmp_path)] for kind in ("target", "pairs")}
    outcome = Outcome("pairs", "as tests do", pairs.COLUMNS)
    for kind, group in trials.items():
        pairs._row(outcome, kind, 3, mode, load, group, trials["target"])
        (found,) = group
        trial, late = found.trial, found.late_ms
        assert (trial.sent, trial.datagrams, trial.lost, trial.wrong) == (450, 450, 0, 0)
        assert len(trial.summary["streams"]) == 6
        assert len(late) == (2 if mode == "iterate" else 0)
    assert outcome.wrong == []
    assert [len(row) for row in outcome.rows] == [len(pairs.COLUMNS)] * 2
    json.dumps(outcome.as_dict())
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert sum(path.stat().st_size for path in left) == 0
    assert sum(path.suffix == ".wav" for path in left) == (12 if mode == "wav" else 0)
    if mode == "wav":
        _pauses_of_the_generator_are_no_fault(pairs._Run(trials["pairs"][0].trial, [], None), load)


def test_pairs_are_recorded_although_some_port_is_taken(tmp_path: Path) -> None:
    """The receiver that found no ports has closed its sinks: the next one has others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        with contextlib.suppress(OSError):  # then somebody else has it
            other.bind(("127.0.0.1", 20_003))
        trial = pairs._run("pairs", 3, "wav", Load(6, 300.0, 1.0), tmp_path).trial
    assert (trial.datagrams, trial.lost, trial.missing, trial.wrong) == (300, 0, 0, 0)


def _pauses_of_the_generator_are_no_fault(run: pairs._Run, load: Load) -> None:
    trial = replace(run.trial, behind_ms_max=20.0, wrong=2)
    stalled, lossy = replace(trial, behind_ms_max=400.0), replace(trial, behind_ms_max=400.0, lost=1)
    for one, wrong, notes in ((trial, 1, 0), (stalled, 0, 1), (lossy, 1, 0)):
        outcome = Outcome("pairs", "as tests do", pairs.COLUMNS)
        group = [replace(run, trial=one)]
        pairs._row(outcome, "pairs", 3, "wav", load, group, group)
        assert (len(outcome.wrong), len(outcome.notes)) == (wrong, notes)


def test_cpu_while_it_runs_is_without_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr("strep.bench.pairs.time.monotonic", lambda: next(times) / 2)
    running = pairs._Running()
    spent = iter([*(k / 2 for k in range(7)), *(3 + k / 50 for k in range(1, 8))])
    for number in range(14):
        running.look(SimpleNamespace(cpu_s=lambda: next(spent)))  # type: ignore[arg-type]
        assert (running.share is None) == (number < 8)  # three looks behind 3 s
    assert running.share == pytest.approx(4.0)
