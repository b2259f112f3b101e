"""Whether what a receiver has is what was sent, byte for byte, and what is missing where."""

from __future__ import annotations

import wave
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from strep.simulate.load import call_leg_id_of, expected_payload, expected_samples

__all__ = ["Answer", "check_files", "check_payloads"]

_FRAMES: Final = 160  # sample frames of a packet: 20 ms at 8 kHz


@dataclass(frozen=True, slots=True)
class Answer:
    """Packets, of all streams together."""

    received: int | None  # datagrams, as it counted them itself; None where it does not
    missing: int  # of what it should have
    tail: int  # the last ones of streams, still in its jitter buffer at the end: as documented
    wrong: int  # streams whose audio is not what was sent

    @property
    def exact(self) -> bool:
        return not (self.missing or self.wrong)


def check_payloads(
    streams: Mapping[str, Sequence[int]], count: int, packets: int, *, tail: int, received: int | None
) -> Answer:
    """``streams``: by SSRC the number of payload bytes and their CRC-32."""
    missing = kept = wrong = 0
    for stream in range(count):
        size, crc = streams.get(str(stream + 1), (0, 0))
        lacking = -((size - packets * _FRAMES) // _FRAMES)  # a part of a packet lacks the packet
        kept += min(lacking, tail)
        missing += max(lacking - tail, 0)
        wrong += crc != zlib.crc32(expected_payload(stream, packets)[:size].data)
    return Answer(received, missing, kept, wrong)


def check_files(out: Path, count: int, packets: int, *, tail: int, received: int | None) -> Answer:
    """A WAV for each stream; one that lacks packets at its beginning or end is right, but they are missing."""
    named = {path.stem: path for path in out.glob("*.wav")}
    missing = kept = wrong = 0
    for stream in range(count):
        there = _samples(named.get(str(stream)) or _of_strep(out, stream))
        wanted = expected_samples(stream, packets)
        at = _position(there, wanted)
        if at is None:
            wrong += 1
            continue
        lacking = -((at + len(there) - len(wanted)) // _FRAMES)
        kept += min(lacking, tail)
        missing += max(lacking - tail, 0) + at // _FRAMES
    return Answer(received, missing, kept, wrong)


def _of_strep(out: Path, stream: int) -> Path | None:
    headed = out / str(call_leg_id_of(stream)) / f"a-{('inbound', 'outbound')[stream % 2]}.wav"
    if headed.is_file():
        return headed
    return next(out.glob(f"rtp-*-{stream + 1:08x}/*.wav"), None)


def _samples(path: Path | None) -> npt.NDArray[np.int16]:
    try:
        with wave.open(str(path), "rb") as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    except (OSError, wave.Error, EOFError):
        return np.zeros(0, np.int16)


def _position(there: npt.NDArray[np.int16], wanted: npt.NDArray[np.int16]) -> int | None:
    """Where ``there`` stands in ``wanted``, on a packet's boundary; None if it does not."""
    for at in range(0, len(wanted) - len(there) + 1, _FRAMES):
        if np.array_equal(there, wanted[at : at + len(there)]):
            return at
    return None
