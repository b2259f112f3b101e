"""Real RTP payloads of speech, sent by ffmpeg or GStreamer to a plain socket, and what these decode them to."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

import strep

SPEECH = Path(strep.__file__).parent / "data" / "caller.wav"


@lru_cache(maxsize=1)
def elements() -> frozenset[str]:
    """GStreamer's elements that are installed."""
    if not shutil.which("gst-launch-1.0"):
        return frozenset()
    listed = subprocess.run(["gst-inspect-1.0"], capture_output=True, text=True, check=True).stdout
    return frozenset(line.split(":")[1].strip() for line in listed.splitlines() if line.count(":") >= 2)


@lru_cache(maxsize=1)
def ffmpeg_encoders() -> frozenset[str]:
    if not shutil.which("ffmpeg"):
        return frozenset()
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout
    return frozenset(line.split()[1] for line in listed.splitlines() if len(line.split()) > 1)


def sent_by(command: list[str]) -> list[bytes]:
    """RTP payloads of what a program sends to the port that "{port}" in its command stands for, in order."""
    return [packet[12:] for packet in packets_of(command)]


def packets_of(command: list[str]) -> list[bytes]:
    """The same as whole RTP packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
        subprocess.run([part.replace("{port}", port) for part in command], capture_output=True, check=True, timeout=100)
        sock.settimeout(0.05)  # all was sent: it waits in the socket
        packets = []
        while True:
            try:
                packets.append(sock.recv(65_536))
            except TimeoutError:
                break
    numbers = [int.from_bytes(p[2:4], "big") for p in packets]
    if [(b - a) & 0xFFFF for a, b in itertools.pairwise(numbers)] != [1] * (len(numbers) - 1):
        raise AssertionError("packets were lost on the way through loopback")
    return packets


def gst(*stages: str) -> list[str]:
    """A pipeline from the speech through ``stages`` to the port."""
    pipeline = [f"filesrc location={SPEECH}", "wavparse", "audioconvert", "audioresample", *stages]
    return ["gst-launch-1.0", "-q", *" ! ".join([*pipeline, "udpsink host=127.0.0.1 port={port} sync=false"]).split()]


def ffmpeg(*options: str, most_bytes: int = 1472) -> list[str]:
    """ffmpeg sends the speech in RTP packets of at most so many bytes."""
    target = f"rtp://127.0.0.1:{{port}}?pkt_size={most_bytes}"
    return ["ffmpeg", "-v", "error", "-nostdin", "-i", str(SPEECH), *options, "-f", "rtp", target]


def ogg_of(*options: str) -> bytes:
    """An Ogg file of the opus packets that ffmpeg sends with these options."""
    command = [*ffmpeg(*options)[:-3], "-page_duration", "20000", "-f", "ogg", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def ffmpeg_decodes(data: bytes, *options: str) -> npt.NDArray[np.int16]:
    """What the ffmpeg program makes of a file's bytes."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *options, "-i", "-", "-f", "s16le", "-"]
    return np.frombuffer(subprocess.run(command, input=data, capture_output=True, check=True).stdout, "<i2")


def snr_db(wanted: npt.NDArray[np.int16], got: npt.NDArray[np.int16]) -> float:
    """Signal to difference; inf if they are the same."""
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    noise = float(((a - b) ** 2).sum())
    return float("inf") if noise == 0 else float(10 * np.log10((a**2).sum() / noise))
