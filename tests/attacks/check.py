"""What the files of the real calls hold, against the truth: ITU-T G.711 by the book, to the sample."""

from __future__ import annotations

import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from support import pcmu

from .wire import leg_of, payload_of_real

__all__ = ["Verdict", "verdict"]

_G711 = pcmu(bytes(range(256)))


@dataclass(slots=True)
class Verdict:
    """Of ``streams`` so many are ``exact``; of the others ``wrong_packets`` of 20 ms are missing or differ."""

    streams: int
    exact: int = 0
    missing: int = 0
    wrong_packets: int = 0
    first: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.exact == self.streams


def verdict(out: Path, legs: int, packets: int) -> Verdict:
    found = Verdict(2 * legs)
    number = np.arange(packets)
    for stream in range(2 * legs):
        path = out / str(leg_of(stream // 2)) / f"a-{('inbound', 'outbound')[stream % 2]}.wav"
        if not path.exists():
            found.missing += 1
            found.wrong_packets += packets
            continue
        wanted = _G711[payload_of_real(number, np.full(packets, stream))]
        with wave.open(str(path)) as file:
            got = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        if got.size == wanted.size and bool((got == wanted.reshape(-1)).all()):
            found.exact += 1
            continue
        padded = np.zeros(wanted.size, np.int16)
        padded[: min(got.size, wanted.size)] = got[: wanted.size]
        wrong = int((padded.reshape(wanted.shape) != wanted).any(axis=1).sum())
        found.wrong_packets += max(wrong, 1)
        found.first.append(
            f"{path.parent.name[-4:]} {path.stem}: {wrong} of {packets}, {got.size - wanted.size:+d} samples"
        )
    return found
