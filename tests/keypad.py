"""DTMF by the book, and a detector that listens to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from block_batches import Part, batch_of_blocks, stream
from support import pcmu

from strep._model.types import StreamInfo
from strep.sinks import DtmfDetector

RATE = 8000
KEYS = "123A456B789C*0#D"
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]


def frequencies(key: str) -> tuple[int, int]:
    return LOW[KEYS.index(key) // 4], HIGH[KEYS.index(key) % 4]


def digit(
    key: str,
    seconds: float,
    *,
    dbm0: float = -10.0,
    twist: float = 0.0,
    off: tuple[float, float] = (0, 0),
    rate: int = RATE,
) -> F64:
    """A digit by the book: both tones together ``dbm0``, the high one ``twist`` dB stronger, ``off`` in percent."""
    low, high = frequencies(key)
    t = np.arange(round(seconds * rate)) / rate
    # 0 dBm0 is 3.17 dB below a sine of full scale
    total = 10 ** ((dbm0 - 3.17) / 10)
    ratio = 10 ** (twist / 10)
    a, b = (total / (1 + ratio)) ** 0.5, (total * ratio / (1 + ratio)) ** 0.5
    return a * np.sin(2 * np.pi * low * (1 + off[0] / 100) * t + 0.3) + b * np.sin(
        2 * np.pi * high * (1 + off[1] / 100) * t + 1.1
    )


def silence(seconds: float) -> F64:
    return np.zeros(round(seconds * RATE))


def int16(audio: F64) -> I16:
    return np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16)


def through_g711(audio: I16) -> I16:
    """To the nearest value that µ-law can say."""
    table = np.sort(pcmu(bytes(range(256))).astype(np.int64))
    middle = (table[1:] + table[:-1]) / 2
    return table[np.searchsorted(middle, audio)].astype(np.int16)


def listen(
    audio: Sequence[I16], sink: DtmfDetector, *, cuts: Sequence[int] = (), rate: int = RATE, end: bool = True
) -> list[StreamInfo]:
    """All streams at once, in batches of 100 ms or cut at ``cuts``."""
    streams = [stream(row, rate) for row in range(len(audio))]
    for info in streams:
        sink.stream_started(info)
    longest = max(map(len, audio))
    edges = [0, *cuts, longest] if cuts else [*range(0, longest, rate // 10), longest]
    for begin, stop in pairwise(edges):
        pairs = zip(streams, audio, strict=True)
        parts = [Part(info, begin, 0, x[begin:stop]) for info, x in pairs if len(x[begin:stop])]
        sink.blocks(batch_of_blocks(parts))
    if end:
        for info in streams:
            sink.stream_ended(info, None)  # type: ignore[arg-type]
    return streams
