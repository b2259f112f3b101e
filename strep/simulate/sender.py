"""Plays traffic over UDP in real time. Floor 5."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Final

import numpy as np

from .._codecs import parse_codec
from .._exceptions import ConfigurationError
from .._types import Codec
from .._udp import parse_address
from ._sendmmsg import BatchSender
from .speech import read_wav
from .traffic import Impairments, StreamTruth, Traffic, make_traffic

__all__ = ["SimulationReport", "play", "simulate"]

_TICK_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What was sent, and the truth about every stream."""

    datagrams: int
    elapsed_s: float
    streams: list[StreamTruth]

    @property
    def lost(self) -> int:
        """Sequence numbers withheld between the first and the last packet sent of each stream."""
        return sum(t.lost for t in self.streams)

    @property
    def duplicates(self) -> int:
        return sum(t.duplicates for t in self.streams)


async def simulate(
    to: str | None = None,
    *,
    rx_to: str | None = None,
    tx_to: str | None = None,
    calls: int = 3,
    duration_s: float = 6.0,
    codec: str | Codec = "PCMU",
    payload_type: int | None = None,
    ptime_ms: float = 20,
    loss: float = 0.0,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    jitter_ms: float = 0.0,
    drift_ppm: float = 0.0,
    seed: int | None = None,
    file: str | PathLike[str] | None = None,
    protect_first: int = 0,
    progress: Callable[[float], None] | None = None,
) -> SimulationReport:
    """Fork simulated two-way calls as STREP ``to`` "udp:ADDR:PORT", or as plain RTP to ``rx_to`` and ``tx_to``.

    ``file``: a 16-bit WAV file for both directions instead of the bundled speech. ``progress`` is called with the part
    done, 0 to 1. Raises ConfigurationError, AddressError.
    """
    if to is None and rx_to is None and tx_to is None:
        raise ConfigurationError('no receiver: give to="udp:127.0.0.1:9000", or rx_to= and tx_to=')
    voices = None
    if file is not None:
        spelled = parse_codec("L16/16000") if isinstance(codec, str) and codec.upper() == "L16" else codec
        chosen = parse_codec(spelled) if isinstance(spelled, str) else spelled
        samples = read_wav(file, chosen.sample_rate)
        voices = (samples, samples)
    traffic = make_traffic(
        calls=calls,
        duration_s=duration_s,
        codec=codec,
        payload_type=payload_type,
        ptime_ms=ptime_ms,
        voices=voices,
        impairments=Impairments(loss, duplicate, reorder, jitter_ms, protect_first),
        drift_ppm=drift_ppm,
        seed=seed,
    )
    return await play(traffic, to, rx_to=rx_to, tx_to=tx_to, progress=progress)


async def play(
    traffic: Traffic,
    to: str | None = None,
    *,
    rx_to: str | None = None,
    tx_to: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> SimulationReport:
    """Send traffic in real time: STREP ``to``, and/or plain RTP of the directions to ``rx_to`` and ``tx_to``."""
    targets = [
        (BatchSender(parse_address(text)), direction)
        for text, direction in ((to, None), (rx_to, 0), (tx_to, 1))
        if text is not None
    ]
    start, done, sent = time.monotonic_ns(), 0, 0
    try:
        while done < len(traffic):
            now = time.monotonic_ns() - start
            upto = int(np.searchsorted(traffic.time_ns, now, "right"))
            if upto > done:
                for sender, direction in targets:
                    rows = np.arange(done, upto)
                    if direction is not None:
                        rows = rows[traffic.direction(rows) == direction]
                    if rows.size:
                        slab = traffic.datagrams(rows, strep=direction is None)
                        sent += sender.send(slab, np.full(len(slab), slab.shape[1]))
                done = upto
                if progress is not None:
                    progress(done / len(traffic))
            await asyncio.sleep(_TICK_S)
    finally:
        for sender, _ in targets:
            sender.close()
    return SimulationReport(sent, (time.monotonic_ns() - start) / 1e9, traffic.truth)
