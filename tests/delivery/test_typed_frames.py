"""Frames are what their types say, to a type checker and when they come."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from live import listening, send_paced
from places import ROOT
from support import packet
from typed_frames import samples_of_each

import strep


@pytest.mark.sockets
async def test_frames_are_what_their_types_say() -> None:
    async with strep.Receiver("127.0.0.1:0") as receiver:
        sending = asyncio.create_task(send_paced(listening(receiver), [packet(k) for k in range(4000)], pause_s=0.05))
        async for stream in receiver:
            frames = await samples_of_each(stream, "float32")
            break
        sending.cancel()
    assert [str(frame.samples.dtype) for frame in frames] == ["int16", "int16", "float32", "float32"]


@pytest.mark.slow  # .ci/run has it too, with everything else
def test_a_type_checker_knows_what_comes() -> None:
    pytest.importorskip("mypy", reason="extra lint")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typed_frames.py"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
