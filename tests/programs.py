"""Programs that are not ours: which tests need them, and what they make of files."""

from __future__ import annotations

import re
import shutil
import subprocess
import wave
from pathlib import Path

import pytest
import soundfile


def four_programs_read(paths: list[Path]) -> dict[Path, int]:
    """Frames in each file; `wave` or libsndfile raise, ffmpeg and sox complain, when one is not sound."""
    frames = {}
    for path in paths:
        info = soundfile.info(path)
        frames[path] = info.frames
        if info.subtype == "PCM_16":  # `wave` knows no G.711
            with wave.open(str(path)) as file:
                assert file.getnframes() == info.frames
                assert len(file.readframes(info.frames)) == info.frames * 2 * info.channels
    if shutil.which("sox"):
        told = subprocess.run(["soxi", "-s", *map(str, paths)], capture_output=True, text=True, check=True)
        assert not told.stderr
        assert [int(n) for n in told.stdout.split()] == [frames[p] for p in paths]
    if shutil.which("ffmpeg"):
        inputs = [a for p in paths for a in ("-i", str(p))]
        maps = [a for i in range(len(paths)) for a in ("-map", str(i))]
        command = ["ffmpeg", "-v", "error", "-nostdin", *inputs, *maps, "-f", "null", "-"]
        assert not subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return frames


def needs(program: str, what: str = "") -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{what or program} is not installed")


def tshark_streams(path: Path) -> list[dict[str, float]]:
    """`-z rtp,streams`, a row per SSRC."""
    command = ["tshark", "-r", str(path), "-q", "-d", "udp.port==9000,rtp", "-z", "rtp,streams"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = []
    for line in out.splitlines():
        match = re.search(
            r"0x(?P<ssrc>[0-9A-F]{8})\s.*?\s(?P<packets>\d+)\s+(?P<lost>-?\d+)\s+\(.*?%\)\s+(?P<rest>[\d.\s]+)", line
        )
        if match:
            numbers = [float(x) for x in match["rest"].split()]
            rows.append(
                {
                    "ssrc": int(match["ssrc"], 16),
                    "packets": int(match["packets"]),
                    "lost": int(match["lost"]),
                    "jitter": numbers[-3:],  # type: ignore[dict-item]
                }
            )
    return rows
