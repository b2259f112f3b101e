"""What a compiled part could bring: CPU per packet of the floor, of the floor with addresses and time stamps, of a
receive path in C (compiled.c), and of strep without files, in turns on the same load.

python benchmarks/compiled.py [--streams 4000] [--rate 250000] [--duration 10] [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from strep.bench import Outcome, Settings, machine
from strep.bench._machine import build_floor
from strep.bench._outcome import spread
from strep.bench._trial import Load, Trial, run_trial

__all__ = ["main", "measure"]

_SOURCE = Path(__file__).with_name("compiled.c")


def measure(load: Load, runs: int) -> Outcome:
    title = f"{load.streams:,} streams, {load.rate:,.0f} packets/s, {load.duration_s:g} s; median (range) of {runs}"
    outcome = Outcome("compiled", title, ("receiver", "CPU µs/packet", "x floor"))
    trials: dict[str, list[Trial]] = {}
    with Settings().work() as work:
        floor = build_floor(work)
        program = work / "compiled"
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        subprocess.run([compiler, "-O2", "-o", str(program), str(_SOURCE), "-lm"], check=True)
        commands = {
            "floor: recvmmsg, 2 ms": [str(floor)],
            "floor: recvmmsg, 10 ms": [str(floor), "10000"],
            "and addresses, stamps": [str(program), "10000", "edge"],
            "and all else in C": [str(program), "10000"],
            "strep capture": [],
        }
        for _ in range(runs):
            for name, command in commands.items():
                trials.setdefault(name, []).append(run_trial("monitor", load, work, command=command))
    floors = trials["floor: recvmmsg, 2 ms"]
    for name, group in trials.items():
        ratios = [t.cpu_us / f.cpu_us for t, f in zip(group, floors, strict=True) if f.cpu_us]
        outcome.rows.append([name, spread([t.cpu_us for t in group]), spread(ratios)])
        outcome.data[name] = [t.as_dict() for t in group]
        if not all(t.exact for t in group):
            outcome.wrong.append(f"{name}: not everything came")
    return outcome


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compiled.py", description="What a compiled part could bring.")
    parser.add_argument("--streams", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=250_000)
    parser.add_argument("--duration", type=float, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    outcome = measure(Load(options.streams, options.rate, options.duration), options.runs)
    for row in outcome.as_dict()["rows"]:
        values = (f"{v['median']:.2f} ({v['low']:.2f}-{v['high']:.2f})" if v else "" for v in row[1:])
        print(f"{row[0]:24}", *values)
    if options.json is not None:
        report = {
            "machine": asdict(machine()),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": "python benchmarks/compiled.py",
            "outcomes": [outcome.as_dict()],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
