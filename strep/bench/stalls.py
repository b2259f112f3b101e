"""A sink that hangs for 2 s, and an event loop that does nothing for 0.5 s: what does it cost the others?"""

from __future__ import annotations

import sys
from typing import Final

from ._listen import STALLED_LOOP_S, STALLED_SINK_S
from ._outcome import Outcome
from ._settings import Settings
from ._trial import Load, run_trial

__all__ = ["measure"]

_STREAMS: Final = 2000
_RATE: Final = 100_000.0  # packets/s
_PACKET_FRAMES: Final = 160  # samples
COLUMNS: Final = ("what stalls", "packets/s", "lost", "other sink misses", "stalled sink misses, told", "untold")


def measure(settings: Settings) -> Outcome:
    seconds = 5.0 if settings.quick else 10.0
    runs = settings.repeat(5)
    outcome = Outcome("stalls", f"{_STREAMS:,} streams, {seconds:g} s; sums of {runs} runs", COLUMNS)
    load = Load(_STREAMS, _RATE, seconds)
    names = {"stall-sink": f"a sink, {STALLED_SINK_S:g} s", "stall-loop": f"the loop, {STALLED_LOOP_S:g} s"}
    with settings.work() as work:
        for mode, name in names.items():
            lost = missing = told = untold = 0
            for run in range(runs):
                settings.progress(f"{name}, {run + 1}/{runs}")
                command = [sys.executable, "-m", "strep.bench._listen", mode]
                trial = run_trial(mode, load, work, command=command)
                delivered = trial.summary["totals"]["delivered"] * _PACKET_FRAMES
                lost += trial.sent - trial.datagrams + trial.lost
                missing += delivered - trial.summary["frames"]
                for sink in trial.summary["sinks"]:
                    if sink["kind"] == "stalled":
                        told += sink["dropped_frames"]
                        untold += delivered - sink["frames"] - sink["dropped_frames"]
                        if not sink["stalled"]:
                            outcome.wrong.append("the sink did not stall: nothing was measured")
                outcome.data.setdefault(mode, []).append(trial.as_dict())
                if trial.generator_was_the_limit:
                    outcome.notes.append("the generator was the limit")
            outcome.rows.append([name, round(_RATE), lost, missing, told, untold])
            if lost or missing or untold:
                outcome.wrong.append(f"{name}: others lost data, or losses went untold")
    return outcome
