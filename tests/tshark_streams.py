"""What tshark tells of the RTP streams of a capture."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

Figures = tuple[int, int, float, float]  # packets, lost, mean and largest jitter in ms


def rtp_streams(path: Path, *options: str, port: int | None = 9000) -> dict[int, Figures]:
    """By SSRC. ``port``: what comes to it is RTP."""
    decode = ("-d", f"udp.port=={port},rtp") if port is not None else ()
    out = subprocess.run(
        ["tshark", "-r", str(path), "-q", *decode, *options, "-z", "rtp,streams"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found: dict[int, Figures] = {}
    for line in out.splitlines():
        match = re.search(r"0x([0-9A-F]{8}) +\S.*? +(\d+) +(-?\d+) \(-?[\d.]+%\)(.*)$", line)
        if match:
            mean, largest = [float(number) for number in re.findall(r"-?\d+\.\d+", match[4])][-2:]
            if int(match[1], 16) in found:
                raise AssertionError(f"two streams of SSRC {match[1]}")
            found[int(match[1], 16)] = int(match[2]), int(match[3]), mean, largest
    return found
