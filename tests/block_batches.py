"""Block batches of samples that a test has: what analyzers are fed with, without an engine."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from support import T0

from strep._model.blocks import BlockBatch
from strep._model.types import Codec, Direction, GapCause, Leg, StreamInfo


def stream(index: int, rate: int = 8000, channels: int = 1, serial: int | None = None) -> StreamInfo:
    number = index if serial is None else serial
    codec = Codec("L16", rate, rate, channels, 2 * channels)
    return StreamInfo(
        index, number, uuid.UUID(int=number), Leg.A, Direction.INBOUND, f"s{number}", f"s{number}", "a-inbound",
        9000, 1, ("127.0.0.1", 1), 96, T0, T0, codec,
    )  # fmt: skip


@dataclass
class Part:
    """A block of a stream, for :func:`batch_of_blocks`."""

    stream: StreamInfo
    position: int
    gap: int
    samples: np.ndarray
    mask: np.ndarray | None = None
    time_ns: int | None = None  # None: by its position
    arrival_ns: int | None = None  # None: at that time


def batch_of_blocks(parts: list[Part]) -> BlockBatch:
    frames = np.array([len(p.samples) // p.stream.channels for p in parts], np.int64)
    samples = np.concatenate([p.samples for p in parts]) if parts else np.zeros(0, np.int16)
    position = np.array([p.position for p in parts], np.int64)
    rate = np.array([p.stream.sample_rate for p in parts], np.int64)
    masked = any(p.mask is not None for p in parts)
    mask = np.concatenate(
        [np.ones(n, np.uint8) if p.mask is None else p.mask for p, n in zip(parts, frames, strict=True)]
    )
    in_time = (T0 + position * 1_000_000_000 // rate).tolist()
    time_ns = np.array([t if p.time_ns is None else p.time_ns for p, t in zip(parts, in_time, strict=True)], np.int64)
    arrival = [t if p.arrival_ns is None else p.arrival_ns for p, t in zip(parts, time_ns.tolist(), strict=True)]
    arrival_ns = np.array(arrival, np.int64)
    return BlockBatch(
        streams=[p.stream for p in parts],
        index=np.array([p.stream.index for p in parts], np.int64),
        position=position,
        frames=frames,
        gap_frames=np.array([p.gap for p in parts], np.int64),
        gap_cause=np.array([GapCause.LOSS if p.gap else 0 for p in parts], np.uint8),
        rtp_timestamp=position.astype(np.uint32),
        arrival_ns=arrival_ns,
        time_ns=time_ns,
        offset=np.r_[0, np.cumsum([len(p.samples) for p in parts])].astype(np.int64),
        payload=np.zeros(0, np.uint8),
        payload_offset=np.zeros(len(parts) + 1, np.int64),
        packet_first=np.arange(len(parts) + 1),
        packet_frames=frames,
        packet_arrival_ns=arrival_ns,
        packet_rtp_timestamp=position.astype(np.uint32),
        decode=lambda: samples,
        mask=mask if masked else None,
    )
