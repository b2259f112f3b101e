"""Load for measurements: many streams at a constant packet rate, every payload known to the checker.

Packet k of stream s carries block (7 s + k) mod 997 of a fixed table, so what a receiver wrote can be checked exactly.
The loop is open: each packet has an intended time, and the report says how far behind it was sent.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .._parser import write_headers
from .._udp import parse_address
from ._sendmmsg import BatchSender

__all__ = ["LoadReport", "call_leg_id_of", "expected_payload", "main", "send_load"]

_BLOCKS: Final = 997
_FRAMES: Final = 160
_SLICE_S: Final = 0.001


def _table() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(20_261_123).integers(0, 256, (_BLOCKS, _FRAMES)).astype(np.uint8)


def call_leg_id_of(stream: int) -> uuid.UUID:
    """Streams 2c and 2c+1 are inbound and outbound of call c."""
    return uuid.UUID(int=0x5712E900_0000_4000_8000_000000000000 + stream // 2)


def expected_payload(stream: int, packets: int) -> npt.NDArray[np.uint8]:
    """All payload bytes of a stream's first ``packets`` packets, uint8 (packets * 160,)."""
    return _table()[(7 * stream + np.arange(packets)) % _BLOCKS].reshape(-1)


@dataclass(frozen=True, slots=True)
class LoadReport:
    sent: int
    elapsed_s: float
    rate: float  # packets a second reached
    intended_rate: float
    behind_ms_max: float  # how late a packet was sent at most
    generator_was_the_limit: bool


def send_load(
    to: str, *, streams: int, rate: float, duration_s: float, segment: bool = False, warm_up_s: float = 0.0
) -> LoadReport:
    """Send ``rate`` packets/s, evenly phased over ``streams``, for ``duration_s``; PCMU, 196-byte datagrams.

    ``segment`` uses UDP segmentation offload, which costs the sender far less.
    """
    sender = BatchSender(parse_address(to))
    number = np.arange(streams)
    ids = [call_leg_id_of(s) for s in range(streams)]
    template = np.zeros((streams, 36), np.uint8)
    write_headers(
        template,
        call_leg_hi=np.array([i.int >> 64 for i in ids], np.uint64),
        call_leg_lo=np.array([i.int & 0xFFFF_FFFF_FFFF_FFFF for i in ids], np.uint64),
        direction=number % 2,
        payload_type=0,
        sequence_number=0,
        rtp_timestamp=0,
        ssrc=number + 1,
    )
    table = _table()
    heads = np.ndarray((streams,), np.dtype((np.void, 36)), template)
    blocks = np.ndarray((_BLOCKS,), np.dtype((np.void, _FRAMES)), table)
    total = int(rate * duration_s) // streams * streams
    rows = 64 * 16
    slab = np.zeros((rows, 196), np.uint8)
    head_of = np.ndarray((rows,), np.dtype((np.void, 36)), slab, 0, (196,))
    sequence_of = np.ndarray((rows,), ">u2", slab, 26, (196,))
    timestamp_of = np.ndarray((rows,), ">u4", slab, 28, (196,))
    block_of = np.ndarray((rows,), np.dtype((np.void, _FRAMES)), slab, 36, (196,))
    lengths = np.full(rows, 196)
    behind = 0.0
    done = 0
    start = time.monotonic()
    while done < total:
        due = min(int((time.monotonic() - start) * rate) + 1, total)
        count = min(due - done, rows)
        if count < min(64, total - done) and (due - done) / rate < 2 * _SLICE_S and count < total - done:
            time.sleep(_SLICE_S)
            continue
        packet = np.arange(done, done + count)
        stream, k = packet % streams, packet // streams
        head_of[:count] = heads[stream]
        sequence_of[:count] = k & 0xFFFF
        timestamp_of[:count] = (k * _FRAMES) & 0xFFFF_FFFF
        block_of[:count] = blocks[(7 * stream + k) % _BLOCKS]
        if segment:
            sender.send_segments(slab[:count], 196)
        else:
            sender.send(slab[:count], lengths[:count])
        behind = max(behind, time.monotonic() - start - done / rate)
        done += count
    elapsed = time.monotonic() - start
    sender.close()
    return LoadReport(done, elapsed, done / elapsed, rate, 1000 * behind, done / elapsed < 0.98 * rate)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Send a constant load of STREP packets.")
    parser.add_argument("--to", default="udp:127.0.0.1:9000")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50_000)
    parser.add_argument("--duration", type=float, default=10)
    parser.add_argument("--segment", action="store_true", help="use UDP segmentation offload")
    options = parser.parse_args(arguments)
    report = send_load(
        options.to,
        streams=options.streams,
        rate=options.rate,
        duration_s=options.duration,
        segment=options.segment,
    )
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
