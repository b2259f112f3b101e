"""More storms than pytest runs: ``python -m fuzz --seeds 0-499``. A seed reproduces its run."""

from __future__ import annotations

import argparse
import sys
import time

from .machine import SECONDS, Setup, Violation, storm_of, survives
from .shrink import literal, shrunk


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0-9", help="N or FIRST-LAST (10 by default)")
    parser.add_argument("--datagrams", type=int, default=20_000, help="hostile ones a seed")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the real calls beside them")
    parser.add_argument("--only", help="one actor, by its name")
    parser.add_argument("--engine", action="store_true", help="without sinks")
    parser.add_argument("--shrink", action="store_true", help="print the fewest datagrams of what is found")
    parser.add_argument("--go-on", action="store_true", help="do not stop at what is found")
    parser.add_argument("--state", help="file of seeds that are done: they are not run again")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("-")
    done = _done(given.state)
    total, bad, began = 0, 0, time.monotonic()
    for seed in range(int(first), int(last or first) + 1):
        if seed in done:
            continue
        setup = Setup.of(seed, listen=not given.engine, seconds=given.seconds)
        rows = storm_of(seed, given.datagrams, given.only, seconds=given.seconds)
        try:
            run = survives(rows, setup)
        except Violation as violation:
            bad += 1
            print(f"seed {seed}, {total + violation.after} datagrams in all: {violation}", flush=True)
            if given.shrink:
                fewest = shrunk(rows, setup, violation)
                print(f"{len(fewest)} datagrams do it: {setup}\n{literal(fewest)}", flush=True)
            if not given.go_on:
                return 1
            total += violation.after
            continue
        total += run.datagrams
        print(
            f"seed {seed}: {run.datagrams} datagrams, {run.streams} streams, {run.datagrams / run.seconds:.0f}/s,"
            f" arrays {run.engine_bytes >> 20} MiB",
            flush=True,
        )
        if given.state:
            with open(given.state, "a") as file:
                file.write(f"{seed}\n")
    print(f"{total} datagrams in {time.monotonic() - began:.0f} s, {bad} violations")
    return 1 if bad else 0


def _done(path: str | None) -> set[int]:
    try:
        with open(path or "") as file:
            return {int(line) for line in file if line.strip()}
    except FileNotFoundError:
        return set()


if __name__ == "__main__":
    sys.exit(main())
