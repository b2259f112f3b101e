"""A table of attacks: ``python -m attacks`` for all of them, ``python -m attacks flips restarts --workers 2``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .kinds import KINDS
from .targets import attacked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks", description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--legs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--analyze", default="", help="analyzers, as of strep capture")
    parser.add_argument("--out", type=Path, help="keep what is written")
    given = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("", *(given.kinds or KINDS)):
            out = (given.out or Path(scratch)) / (kind or "nobody")
            out.parent.mkdir(parents=True, exist_ok=True)
            some = [kind] if kind else []
            done = attacked(
                some,
                out,
                legs=given.legs,
                seconds=given.seconds,
                rate=given.rate,
                workers=given.workers,
                analyze=given.analyze,
            )
            bad += not done.good
            print(done.line(), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
