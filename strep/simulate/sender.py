"""Plays traffic over UDP in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Final

import numpy as np

from .._edge.udp import UdpAddress, parse_address
from .._model.exceptions import ConfigurationError
from .._model.types import Codec, Direction
from ._sendmmsg import BatchSender
from .calls import make_traffic, wire_codec
from .impair import Impairments
from .speech import read_voices
from .traffic import Traffic
from .truth import StreamTruth

__all__ = ["SimulationReport", "play", "simulate"]

_TICK_S: Final = 0.002
_ROWS: Final = 4096  # datagrams at most before the event loop has its turn


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What was sent, and the truth about every stream of it."""

    datagrams: int
    elapsed_s: float
    streams: list[StreamTruth]  # of the directions that had a receiver
    refused: int = 0  # datagrams that were not sent because nobody listened on that port of this machine
    behind_ms_max: float = 0.0  # how late a datagram was sent at most

    @property
    def lost(self) -> int:
        """Sequence numbers withheld between the first and the last packet sent of each stream."""
        return sum(t.lost for t in self.streams)

    @property
    def duplicates(self) -> int:
        """Packets sent twice, of all streams."""
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
    burst: float = 0.0,
    legs: str = "a",
    dtmf: str = "",
    dtmf_at_s: float = 1.0,
    progress: Callable[[float], None] | None = None,
) -> SimulationReport:
    """Fork simulated two-way calls as STREP ``to`` "udp:ADDR:PORT", or as plain RTP to ``rx_to`` and ``tx_to``.

    Plays in real time: ``duration_s`` seconds. ``loss``, ``duplicate``, ``reorder`` are probabilities, 0 to 1;
    ``protect_first`` packets of each stream are spared; ``burst`` is the mean length of runs of lost packets, 0 for
    independent loss. ``file``: a 16-bit WAV file of any rate instead of the bundled speech: left inbound, right
    outbound, mono for both. ``legs``: "a" or "both". ``codec``, ``payload_type``, ``dtmf``: see :func:`make_traffic`.
    The same ``seed`` makes the same packets. ``progress`` is called with the part done, 0 to 1. Raises
    ConfigurationError, AddressError, MissingExtraError; OSError when the network refuses the target.
    """
    _targets(to, rx_to, tx_to)
    voices = None if file is None else read_voices(file, wire_codec(codec).sample_rate)
    traffic = make_traffic(
        calls=calls,
        duration_s=duration_s,
        codec=codec,
        payload_type=payload_type,
        ptime_ms=ptime_ms,
        voices=voices,
        impairments=Impairments(loss, duplicate, reorder, jitter_ms, protect_first, burst),
        drift_ppm=drift_ppm,
        legs=legs,
        dtmf=dtmf,
        dtmf_at_s=dtmf_at_s,
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
    """Send traffic in real time: STREP ``to``, and/or plain RTP of the directions to ``rx_to`` and ``tx_to``.

    Otherwise as :func:`simulate`. Sending never waits for a receiver: what one cannot take, the kernel drops.
    """
    wanted = _targets(to, rx_to, tx_to)
    senders: list[tuple[BatchSender, Direction | None]] = []
    done = sent = meant = 0
    behind_ns = 0
    start = time.monotonic_ns()
    try:
        senders.extend((BatchSender(address), direction) for address, direction in wanted)
        while done < len(traffic):
            now = time.monotonic_ns() - start
            due = int(np.searchsorted(traffic.time_ns, now, "right"))
            upto = min(due, done + _ROWS)
            if upto > done:
                for sender, direction in senders:
                    rows = np.arange(done, upto)
                    if direction is not None:
                        rows = rows[traffic.direction(rows) == direction]
                    if rows.size:
                        slab = traffic.datagrams(rows, strep=direction is None)
                        meant += len(slab)
                        sent += sender.send(slab, traffic.lengths(rows, strep=direction is None))
                behind_ns = max(behind_ns, time.monotonic_ns() - start - int(traffic.time_ns[done]))
                done = upto
                if progress is not None:
                    progress(done / len(traffic))
            await asyncio.sleep(_TICK_S if upto == due else 0)
        if progress is not None and not len(traffic):
            progress(1.0)  # everything was lost: done at once
    finally:
        for sender, _ in senders:
            sender.close()
    streams = [t for t in traffic.truth if any(d is None or d == t.direction for _, d in wanted)]
    return SimulationReport(sent, (time.monotonic_ns() - start) / 1e9, streams, meant - sent, behind_ns / 1e6)


def _targets(to: str | None, rx_to: str | None, tx_to: str | None) -> list[tuple[UdpAddress, Direction | None]]:
    """Addresses and the direction that goes there: None is both, with the STREP header."""
    if to is None and rx_to is None and tx_to is None:
        raise ConfigurationError('no receiver: give to="udp:127.0.0.1:9000", or rx_to= and tx_to=')
    targets = [
        (parse_address(text), direction)
        for text, direction in ((to, None), (rx_to, Direction.INBOUND), (tx_to, Direction.OUTBOUND))
        if text is not None
    ]
    for address, _ in targets:
        if not address.port:
            raise ConfigurationError(f"{address}: no receiver has port 0; choose 1 to 65535")
    return targets
