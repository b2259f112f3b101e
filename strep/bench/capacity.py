"""What one core carries: the floor, the receiver without files, with arrays, with a WAV of every stream; checked."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from .._exceptions import ConfigurationError
from ..simulate.load import call_leg_id_of, expected_samples
from ._machine import build_floor, core_pair
from ._processes import Measured, run_load

__all__ = ["RECEIVERS", "Capacity", "Trial", "measure_capacity"]

RECEIVERS: Final = ("floor", "monitor", "arrays", "wav")
"""What is measured: the C program that discards; ``strep capture``; all streams decoded; ``strep capture --out``."""

_SETTLE_S: Final = 0.5
_IDLE: Final = 0.02  # CPU seconds in that time: nothing is going on any more
_FRAMES: Final = 160


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one receiver under one load."""

    receiver: str
    sent: int
    behind_ms_max: float  # how far behind its intended times the generator was at most
    generator_was_the_limit: bool
    datagrams: int
    kernel_dropped: int
    lost: int
    missing: int  # sample frames that a sink did not get
    wrong: int  # files whose audio is not what was sent, sample for sample
    cpu_us: float  # CPU time per packet, all threads, from before the first packet until nothing is left to do
    memory_mib: float  # at its peak
    finish_s: float  # from SIGTERM to the end: files finished, summary written

    @property
    def exact(self) -> bool:
        """Everything that was sent came, and every sample of it is right."""
        return self.sent == self.datagrams and not (self.kernel_dropped or self.lost or self.missing or self.wrong)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Trials of each receiver, in rounds: the n-th ones belong together."""

    streams: int
    rate: float
    duration_s: float
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    def ratios(self, receiver: str) -> list[float]:
        """CPU per packet over that of the floor in the same round; empty without a floor."""
        pairs = zip(self.trials[receiver], self.trials.get("floor", []), strict=False)
        return [trial.cpu_us / floor.cpu_us for trial, floor in pairs if floor.cpu_us]

    def as_dict(self) -> dict[str, Any]:
        return {
            "streams": self.streams,
            "rate": self.rate,
            "duration_s": self.duration_s,
            "receivers": {
                name: {
                    "exact": all(t.exact for t in trials),
                    "cpu_us_median": median(t.cpu_us for t in trials),
                    "ratio_median": median(self.ratios(name)) if self.ratios(name) else None,
                    "trials": [{name: getattr(t, name) for name in Trial.__slots__} for t in trials],
                }
                for name, trials in self.trials.items()
            },
        }


def measure_capacity(
    *,
    streams: int = 4000,
    rate: float = 250_000,
    duration_s: float = 10.0,
    trials: int = 3,
    receivers: Sequence[str] = RECEIVERS,
    directory: str | os.PathLike[str] | None = None,
    progress: Callable[[str, int], None] = lambda receiver, trial: None,
) -> Capacity:
    """Measure the ``receivers`` in turn, ``trials`` times, each on a core of its own with the generator on another.

    Files go below ``directory`` (default: the system's temporary one) and are removed once checked. The floor is left
    out where there is no C compiler. Blocks. Raises ConfigurationError, MeasurementError.
    """
    if unknown := set(receivers) - set(RECEIVERS):
        raise ConfigurationError(f"no receiver {', '.join(sorted(unknown))}: choose from {', '.join(RECEIVERS)}")
    if trials < 1:
        raise ConfigurationError(f"{trials} trials: at least one")
    capacity = Capacity(streams, rate, duration_s)
    with tempfile.TemporaryDirectory(prefix="strep-bench-", dir=directory) as work:
        floor = build_floor(Path(work)) if "floor" in receivers else None
        for number in range(trials):
            for receiver in receivers:
                if receiver == "floor" and floor is None:
                    continue
                progress(receiver, number)
                trial = _trial(receiver, floor, Path(work), streams, rate, duration_s)
                capacity.trials.setdefault(receiver, []).append(trial)
    return capacity


def _trial(receiver: str, floor: Path | None, work: Path, streams: int, rate: float, duration_s: float) -> Trial:
    core, other = core_pair()
    out = Path(tempfile.mkdtemp(dir=work))
    os.sync()  # what earlier trials left to the disk is not this one's
    command = {
        "floor": [str(floor)],
        "monitor": _capture(),
        "arrays": [sys.executable, "-m", "strep.bench._arrays"],
        "wav": [*_capture(), "--out", str(out)],
    }[receiver]
    with Measured(command, core, work / "receiver.log") as process:
        port = _port(process.line())
        before = process.cpu_s()
        load = json.loads(run_load(port, other, work / "load.log", streams=streams, rate=rate, duration_s=duration_s))
        cpu_s = _settled(process) - before
        ended = process.end()
    datagrams, dropped, lost, missing = _figures(ended.said)
    wrong = sum(not _right(out, s, load["packets_a_stream"]) for s in range(streams)) if receiver == "wav" else 0
    return Trial(
        receiver=receiver,
        sent=load["sent"],
        behind_ms_max=load["behind_ms_max"],
        generator_was_the_limit=load["generator_was_the_limit"],
        datagrams=datagrams,
        kernel_dropped=dropped,
        lost=lost,
        missing=missing,
        wrong=wrong,
        cpu_us=1e6 * cpu_s / max(datagrams, 1),
        memory_mib=ended.memory_mib,
        finish_s=ended.finish_s,
    )


def _settled(process: Measured) -> float:
    """CPU seconds once what has been received is worked off."""
    cpu_s = -1.0
    for _ in range(20):
        earlier, cpu_s = cpu_s, process.cpu_s()
        if cpu_s - earlier < _IDLE:
            break
        time.sleep(_SETTLE_S)
    return cpu_s


def _capture() -> list[str]:
    return [sys.executable, "-m", "strep", "capture", "--json", "--listen", "127.0.0.1:0"]


def _port(line: str) -> int:
    if line.startswith("port "):
        return int(line.split()[1])
    return int(json.loads(line)["sockets"][0]["address"].rpartition(":")[2])


def _figures(said: str) -> tuple[int, int, int, int]:
    """Datagrams, kernel drops, lost packets, sample frames that a sink did not get."""
    last = said.splitlines()[-1]
    if last.startswith("datagrams "):
        words = last.split()
        return int(words[1]), int(words[5]), 0, 0
    summary = json.loads(last)
    totals = summary["totals"]
    lost = sum(stream["packets_lost"] for stream in summary["streams"])
    missing = sum(sink["dropped_frames"] for sink in summary["sinks"])
    if "frames" in summary:
        missing += totals["datagrams"] * _FRAMES - summary["frames"]
    return totals["datagrams"], totals["kernel_dropped"], lost, missing


def _right(out: Path, stream: int, packets: int) -> bool:
    """Whether a stream's file holds exactly what was sent."""
    path = out / str(call_leg_id_of(stream)) / f"a-{('inbound', 'outbound')[stream % 2]}.wav"
    try:
        with wave.open(str(path), "rb") as file:
            samples = np.frombuffer(file.readframes(packets * _FRAMES + 1), "<i2")
    except (OSError, wave.Error, EOFError):
        return False
    return np.array_equal(samples, expected_samples(stream, packets))
