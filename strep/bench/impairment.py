"""Loss, duplicates, reordering, jitter, malformed datagrams, wraps, SSRC changes: exact, and how dear."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..simulate.load import call_leg_id_of, expected_samples
from ..simulate.schedule import Schedule, truth_of
from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import Load, Trial, run_trial

__all__ = ["differences", "measure", "wrong_files"]

_STREAMS: Final = 4000
_RATE: Final = 200_000.0  # packets/s
_COMPARED_FILES: Final = 60
_WANTED_RATIO: Final = 0.8
COLUMNS: Final = (
    "receiver",
    "clean µs/packet",
    "impaired µs/packet",
    "x clean rate",
    "wrong figures",
    "wrong files",
)


def measure(settings: Settings) -> Outcome:
    runs = settings.repeat(5)
    seconds = 6.0 if settings.quick else 10.0
    title = (
        f"{_STREAMS:,} streams, {_RATE:,.0f} packets/s: 1 % lost, 1 % twice, 2 % reordered, 1 % malformed, "
        f"10/20/30 ms, wraps, SSRC changes; median (range) of {runs}"
    )
    outcome = Outcome("impairment", title, COLUMNS)
    load = Load(_STREAMS, _RATE, seconds, "impaired")
    schedule = load.schedule()
    clean: dict[str, list[Trial]] = {"monitor": [], "wav": []}
    dear: dict[str, list[Trial]] = {"monitor": [], "wav": []}
    wrong: dict[str, list[str]] = {"monitor": [], "wav": []}
    bad_files = 0
    with settings.work() as work:
        for run in range(runs):
            for receiver in clean:
                settings.progress(f"{receiver} {run + 1}/{runs}")
                clean[receiver].append(
                    run_trial(receiver, Load(_STREAMS, _RATE, seconds), work, samples=_COMPARED_FILES)
                )
                out = work / f"impaired-{receiver}-{run}"
                options = ("--out", str(out)) if receiver == "wav" else ()
                trial = run_trial("monitor", load, work, options=options)
                dear[receiver].append(trial)
                wrong[receiver] += differences(trial.summary, schedule)
                if receiver == "wav":
                    bad_files += wrong_files(out, schedule, _COMPARED_FILES)
    for receiver in clean:
        ratio = [c.cpu_us / d.cpu_us for c, d in zip(clean[receiver], dear[receiver], strict=True)]
        costs = spread([t.cpu_us for t in clean[receiver]]), spread([t.cpu_us for t in dear[receiver]])
        files = bad_files if receiver == "wav" else None
        outcome.rows.append([receiver, *costs, spread(ratio), len(wrong[receiver]), files])
        outcome.wrong += wrong[receiver][:5]
        outcome.data[receiver] = {
            "clean": [t.as_dict() for t in clean[receiver]],
            "impaired": [t.as_dict() for t in dear[receiver]],
            "ratio": ratio,
        }
        dropped = sum(t.kernel_dropped + t.missing for t in clean[receiver] + dear[receiver])
        if dropped:
            outcome.wrong.append(f"{receiver}: {dropped} datagrams or sample frames dropped")
    if bad_files:
        outcome.wrong.append(f"{bad_files} files whose samples or gaps are wrong")
    outcome.notes.append(f"wanted: at least {_WANTED_RATIO:g} of the clean rate")
    return outcome


def differences(summary: dict[str, Any], schedule: Schedule) -> list[str]:
    """Where the receiver's figures differ from the truth about the schedule."""
    truth = truth_of(schedule)
    totals = summary["totals"]
    refused = totals["malformed"] + totals["rejected"]
    found = []
    if refused != truth.malformed:
        found.append(f"{refused} datagrams refused, {truth.malformed} were malformed")
    if totals["kernel_dropped"]:
        found.append(f"{totals['kernel_dropped']} dropped by the kernel: figures cannot be exact")
    if len(summary["streams"]) != int(np.count_nonzero(truth.received)):
        found.append(f"{len(summary['streams'])} streams")
    for entry in summary["streams"]:
        call = (int(entry["call_leg_id"].replace("-", ""), 16) - call_leg_id_of(0).int) * 2
        stream = call + (entry["direction"] == "outbound")
        for name, value in (
            ("packets_received", truth.received[stream]),
            ("packets_lost", truth.lost[stream]),
            ("duplicates", truth.duplicates[stream]),
            ("reordered", truth.reordered[stream]),
            ("late", 0),
        ):
            if entry[name] != value:
                found.append(f"stream {stream}: {name} {entry[name]}, in truth {value}")
    return found


def wrong_files(out: Path, schedule: Schedule, samples: int) -> int:
    """Of how many of ``samples`` streams the file is not what was sent, zeros where packets are missing."""
    stream, number, malformed = schedule.packets(0, schedule.total)
    if malformed is not None:
        stream, number = stream[~malformed], number[~malformed]
    streams = len(schedule.shape.frames)
    wrong = 0
    for s in range(0, streams, max(streams // samples, 1)):
        numbers = number[stream == s]
        frames = int(schedule.shape.frames[s])
        there = np.zeros(int(numbers.max()) + 1, np.bool_)
        there[numbers] = True
        expected = expected_samples(s, len(there), frames=frames).reshape(-1, frames).copy()
        expected[~there] = 0
        path = out / str(call_leg_id_of(s)) / f"a-{('inbound', 'outbound')[s % 2]}.wav"
        try:
            with wave.open(str(path), "rb") as file:
                got = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        except (OSError, wave.Error, EOFError):
            got = np.zeros(0, "<i2")
        wrong += not np.array_equal(got, expected.reshape(-1))
    return wrong
