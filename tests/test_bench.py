"""strep bench answers right, and notices what is wrong. What it measures is not tested: that is the machine's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from strep import ConfigurationError
from strep.bench import capacity, measure_capacity
from strep.simulate.load import call_leg_id_of, expected_samples

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="strep bench needs Linux and two cores"
)


def test_every_receiver_is_measured_and_exact(tmp_path: Path) -> None:
    steps: list[tuple[str, int]] = []
    measured = measure_capacity(
        streams=20,
        rate=2000,
        duration_s=1,
        trials=2,
        directory=tmp_path,
        progress=lambda receiver, n: steps.append((receiver, n)),
    )
    receivers = [r for r in capacity.RECEIVERS if r != "floor" or shutil.which("cc")]
    assert steps == [(receiver, n) for n in range(2) for receiver in receivers]
    assert list(measured.trials) == receivers
    for trials in measured.trials.values():
        for trial in trials:
            assert (trial.sent, trial.datagrams) == (2000, 2000)
            assert (trial.lost, trial.missing, trial.wrong, trial.kernel_dropped) == (0, 0, 0, 0)
            assert trial.exact
    if "floor" in receivers:
        assert measured.ratios("floor") in ([1.0, 1.0], [1.0], [])  # a tick of the clock may be more than it used
        assert len(measured.ratios("wav")) == len(measured.ratios("floor"))
    assert json.loads(json.dumps(measured.as_dict()))["receivers"]["wav"]["exact"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_noticed(tmp_path: Path) -> None:
    samples = expected_samples(3, 5)
    path = tmp_path / str(call_leg_id_of(3)) / "a-outbound.wav"
    path.parent.mkdir()

    def right(there: np.ndarray) -> bool:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(there.astype("<i2").tobytes())
        return capacity._right(tmp_path, 3, 5)

    assert right(samples)
    assert not right(np.r_[samples[:-1], samples[-1] ^ 1])
    assert not right(samples[:-1])
    assert not right(np.r_[samples, np.int16(0)])
    path.write_bytes(b"RIFF")
    assert not capacity._right(tmp_path, 3, 5)
    path.unlink()
    assert not capacity._right(tmp_path, 3, 5)


def test_the_command_prints_a_table_and_writes_everything(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    load = ["--streams", "10", "--rate", "1000", "--duration", "0.5", "--trials", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "strep", "bench", *load, "--out", str(tmp_path), "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("monitor", "arrays", "wav", "10 streams", "1,000 packets/s"))
    measured = json.loads(report.read_text())
    assert set(measured) == {"machine", "capacity"}
    assert measured["capacity"]["receivers"]["arrays"]["trials"][0]["datagrams"] == 500


@pytest.mark.parametrize(("arguments", "text"), [({"trials": 0}, "at least one"), ({"receivers": ["x"]}, "floor")])
def test_wrong_arguments_say_what_is_right(arguments: dict, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        measure_capacity(**arguments)
