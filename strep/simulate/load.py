"""Load for measurements: many streams at a constant packet rate, every payload known to the checker.

Packet k of stream s carries block (7 s + k) mod 997 of a table drawn from a seed, so what a receiver wrote can be
checked exactly. The loop is open: each packet has an intended time, and the report says how far behind it was sent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs import PCMU, decode
from .._exceptions import ConfigurationError, StrepError
from .._parser import write_headers
from .._udp import parse_address
from ._sendmmsg import BatchSender

__all__ = ["VERIFY_SEED", "LoadReport", "call_leg_id_of", "expected_payload", "expected_samples", "main", "send_load"]

U8 = npt.NDArray[np.uint8]

VERIFY_SEED: Final = 20_261_123
_BLOCKS: Final = 997
_FRAMES: Final = 160
_HEADER: Final = 36
_SIZE: Final = _HEADER + _FRAMES
_ROWS: Final = 1024
_FEWEST: Final = 64  # datagrams that are worth a system call while there is time
_SLICE_S: Final = 0.001
_KEPT: Final = 0.98  # of the intended rate, below which the generator was the limit
_MOST_STREAMS: Final = 1_000_000


@lru_cache(maxsize=4)
def _table(seed: int) -> U8:
    table = np.random.default_rng(seed).integers(0, 256, (_BLOCKS, _FRAMES)).astype(np.uint8)
    table.flags.writeable = False  # everybody gets the same one
    return table


def call_leg_id_of(stream: int) -> uuid.UUID:
    """Streams 2c and 2c+1 are inbound and outbound of leg A of call c."""
    return uuid.UUID(int=0x5712E900_0000_4000_8000_000000000000 + stream // 2)


def expected_payload(stream: int, packets: int, seed: int = VERIFY_SEED) -> U8:
    """All payload bytes of a stream's first ``packets`` packets, PCMU, uint8 (packets * 160,)."""
    return _table(seed)[(7 * stream + np.arange(packets)) % _BLOCKS].reshape(-1)


def expected_samples(stream: int, packets: int, seed: int = VERIFY_SEED) -> npt.NDArray[np.int16]:
    """What a receiver that lost nothing has of a stream's first ``packets`` packets, int16 (packets * 160,), 8 kHz."""
    return decode(PCMU, expected_payload(stream, packets, seed))


@dataclass(frozen=True, slots=True)
class LoadReport:
    sent: int
    elapsed_s: float
    rate: float  # packets a second reached
    intended_rate: float
    behind_ms_max: float  # how late a packet was sent at most
    generator_was_the_limit: bool  # it could not keep the rate: what a receiver lost or not says nothing of this rate
    streams: int = 0
    packets_a_stream: int = 0
    refused: int = 0  # meant but not sent: nobody listened


class _Rounds:
    """Datagrams number ``done`` to ``done + count`` of all, written into one slab again and again."""

    def __init__(self, streams: int, seed: int) -> None:
        number = np.arange(streams)
        ids = [call_leg_id_of(s) for s in range(0, streams, 2)]
        template = np.zeros((streams, _HEADER), np.uint8)
        write_headers(
            template,
            call_leg_hi=np.array([i.int >> 64 for i in ids], np.uint64)[number // 2],
            call_leg_lo=np.array([i.int & 0xFFFF_FFFF_FFFF_FFFF for i in ids], np.uint64)[number // 2],
            direction=number % 2,
            payload_type=0,
            sequence_number=0,
            rtp_timestamp=0,
            ssrc=number + 1,
        )
        self._streams = streams
        self.slab = np.zeros((_ROWS, _SIZE), np.uint8)
        # whole headers and payloads as single items: numpy copies each with one memcpy
        self._heads = np.ndarray((streams,), np.dtype((np.void, _HEADER)), template)
        self._blocks = np.ndarray((_BLOCKS,), np.dtype((np.void, _FRAMES)), _table(seed).copy())
        self._head = np.ndarray((_ROWS,), np.dtype((np.void, _HEADER)), self.slab, 0, (_SIZE,))
        self._sequence = np.ndarray((_ROWS,), ">u2", self.slab, 26, (_SIZE,))
        self._timestamp = np.ndarray((_ROWS,), ">u4", self.slab, 28, (_SIZE,))
        self._block = np.ndarray((_ROWS,), np.dtype((np.void, _FRAMES)), self.slab, _HEADER, (_SIZE,))

    def write(self, done: int, count: int) -> U8:
        packet = np.arange(done, done + count)
        k, stream = np.divmod(packet, self._streams)
        self._head[:count] = self._heads[stream]
        self._sequence[:count] = k & 0xFFFF
        self._timestamp[:count] = (k * _FRAMES) & 0xFFFF_FFFF
        self._block[:count] = self._blocks[(7 * stream + k) % _BLOCKS]
        return self.slab[:count]


def send_load(
    to: str,
    *,
    streams: int,
    rate: float,
    duration_s: float,
    segment: bool = False,
    warm_up_s: float = 0.0,
    seed: int = VERIFY_SEED,
) -> LoadReport:
    """Send ``rate`` packets/s, evenly phased over ``streams``, for ``duration_s``; PCMU, 196-byte datagrams.

    Every stream gets the same number of packets. ``segment`` uses UDP segmentation offload, which costs the sender far
    less. Lateness in the first ``warm_up_s`` seconds does not count for ``behind_ms_max``. ``seed`` makes the payloads;
    the checker needs the same one. Blocks. Raises ConfigurationError, AddressError.
    """
    if not 1 <= streams <= _MOST_STREAMS:
        raise ConfigurationError(f"{streams} streams: choose 1 to {_MOST_STREAMS}")
    if not (0 < rate < 1e9 and 0 < duration_s < 1e6):
        raise ConfigurationError(f"{rate} packets/s for {duration_s} s: both are positive")
    total = round(rate * duration_s) // streams * streams
    if not total:
        raise ConfigurationError(f"{rate} packets/s for {duration_s} s: not one packet for each of {streams} streams")
    if seed < 0:
        raise ConfigurationError(f"seed {seed}: 0 or more")
    rounds = _Rounds(streams, seed)
    lengths = np.full(_ROWS, _SIZE)
    behind = 0.0
    done = sent = 0
    sender = BatchSender(parse_address(to))
    try:
        start = time.monotonic()
        while done < total:
            due = min(int((time.monotonic() - start) * rate) + 1, total)
            count = min(due - done, _ROWS)
            if count < min(_FEWEST, total - done) and (due - done) / rate < 2 * _SLICE_S:
                time.sleep(_SLICE_S)
                continue
            slab = rounds.write(done, count)
            sent += sender.send_segments(slab, _SIZE) if segment else sender.send(slab, lengths[:count])
            now = time.monotonic() - start
            if now >= warm_up_s:
                behind = max(behind, now - done / rate)
            done += count
        elapsed = time.monotonic() - start
    finally:
        sender.close()
    return LoadReport(
        sent=sent,
        elapsed_s=elapsed,
        rate=sent / elapsed,
        intended_rate=rate,
        behind_ms_max=1000 * behind,
        generator_was_the_limit=done / elapsed < _KEPT * rate,
        streams=streams,
        packets_a_stream=total // streams,
        refused=done - sent,
    )


def main(arguments: list[str] | None = None) -> int:
    """``python -m strep.simulate.load``: prints the report as JSON; returns 0, or 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="strep.simulate.load", description="Send a constant load of STREP packets.")
    parser.add_argument("--to", default="udp:127.0.0.1:9000")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50_000, help="packets a second, of all streams together")
    parser.add_argument("--duration", type=float, default=10, help="seconds")
    parser.add_argument("--segment", action="store_true", help="use UDP segmentation offload")
    parser.add_argument("--verify-seed", type=int, default=VERIFY_SEED, help="what the payloads are drawn from")
    options = parser.parse_args(arguments)
    try:
        report = send_load(
            options.to,
            streams=options.streams,
            rate=options.rate,
            duration_s=options.duration,
            segment=options.segment,
            seed=options.verify_seed,
        )
    except StrepError as error:
        print(f"strep.simulate.load: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(report)))
    if report.generator_was_the_limit:
        print(
            f"The generator was the limit: {report.rate:.0f} of {report.intended_rate:.0f} packets/s. "
            "Ask for a lower --rate, or try --segment.",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
