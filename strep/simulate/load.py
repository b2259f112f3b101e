"""Load for measurements: many streams at a constant packet rate, every payload known to the checker.

Packet k of stream s carries block (7 s + k) mod 997 of a table drawn from a seed, so that what a receiver wrote can be
checked exactly. The loop is open: each packet has an intended time, and the report says how late packets were sent.
Plain RTP is the same without the STREP header, with SSRC s + 1, for receivers that do not know STREP.
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

from .._codecs.g711 import PCMU, decode
from .._edge.udp import parse_address
from .._model.exceptions import ConfigurationError, StrepError
from .._parser import write_headers
from ._sendmmsg import BatchSender
from .schedule import PATTERNS, Schedule, make_schedule

__all__ = ["VERIFY_SEED", "LoadReport", "call_leg_id_of", "expected_payload", "expected_samples", "main", "send_load"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

VERIFY_SEED: Final = 20_261_123
_BLOCKS: Final = 997  # payloads in the table
_PACKET_FRAMES: Final = 160  # 20 ms
_PACKET_FRAMES_LIMIT: Final = 240  # 30 ms
_HEADER_BYTES: Final = 36  # STREP and RTP
_STREP_BYTES: Final = 24  # of these, before the RTP header
_SLAB_ROWS: Final = 1024  # datagrams at most that are written and sent at a time
_WORTH_SENDING: Final = 64  # datagrams that are worth a system call while there is time
_SLICE_S: Final = 0.001
_RATE_REACHED: Final = 0.98  # of the intended rate; below, the generator was the limit
_STREAMS_LIMIT: Final = 1_000_000
_PORT_STEP: Final = 2  # RTP on even ports: some receivers open the next one for RTCP


@lru_cache(maxsize=4)
def _table(seed: int) -> U8:
    table = np.random.default_rng(seed).integers(0, 256, (_BLOCKS, _PACKET_FRAMES_LIMIT)).astype(np.uint8)
    table.flags.writeable = False  # all callers get the same one
    return table


def call_leg_id_of(stream: int) -> uuid.UUID:
    """Streams 2c and 2c+1 are inbound and outbound of leg A of call c."""
    return uuid.UUID(int=0x5712E900_0000_4000_8000_000000000000 + stream // 2)


def expected_payload(stream: int, packets: int, seed: int = VERIFY_SEED, frames: int = _PACKET_FRAMES) -> U8:
    """All payload bytes of a stream's first ``packets`` packets, PCMU, uint8 (packets * frames,)."""
    return _table(seed)[(7 * stream + np.arange(packets)) % _BLOCKS, :frames].reshape(-1)


def expected_samples(
    stream: int, packets: int, seed: int = VERIFY_SEED, frames: int = _PACKET_FRAMES
) -> npt.NDArray[np.int16]:
    """Samples of a stream's first packets in a receiver that lost nothing, int16 (packets * frames,), 8 kHz."""
    return decode(PCMU, expected_payload(stream, packets, seed, frames))


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was sent, and whether it was sent in time."""

    sent: int  # datagrams
    elapsed_s: float
    rate: float  # packets a second, as they were sent
    intended_rate: float  # packets a second
    behind_ms_max: float  # how late a packet was sent at most
    generator_was_the_limit: bool  # it could not reach the rate: what a receiver lost then says nothing of that rate
    streams: int = 0
    packets_a_stream: int = 0
    refused: int = 0  # datagrams that could not be sent: nobody listened
    behind_ms_p99: float = 0.0  # how late packets were sent, 99th percentile
    start_ns: int = 0  # time 0 of the schedule on CLOCK_MONOTONIC


class PacketWriter:
    """Writes datagrams of a schedule into one slab, which is used again and again."""

    def __init__(self, schedule: Schedule, seed: int, plain: bool = False) -> None:
        self._shape = shape = schedule.shape
        streams = len(shape.frames)
        number = np.arange(streams)
        ids = [call_leg_id_of(s) for s in range(0, streams, 2)]
        template = np.zeros((streams, _HEADER_BYTES), np.uint8)
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
        if plain:
            template = template[:, _STREP_BYTES:].copy()
        most = int(shape.frames.max())
        self._header = header = template.shape[1]
        self.size = header + most
        self.uniform = bool((shape.frames == most).all())
        self.slab = np.zeros((_SLAB_ROWS, self.size), np.uint8)
        # headers and payloads are single items: numpy copies each with one memcpy
        self._heads = np.ndarray((streams,), np.dtype((np.void, header)), template)
        blocks = np.ascontiguousarray(_table(seed)[:, :most])
        self._blocks = np.ndarray((_BLOCKS,), np.dtype((np.void, most)), blocks)
        self._head = np.ndarray((_SLAB_ROWS,), np.dtype((np.void, header)), self.slab, 0, (self.size,))
        self._sequence = np.ndarray((_SLAB_ROWS,), ">u2", self.slab, header - 10, (self.size,))
        self._timestamp = np.ndarray((_SLAB_ROWS,), ">u4", self.slab, header - 8, (self.size,))
        self._ssrc = np.ndarray((_SLAB_ROWS,), ">u4", self.slab, header - 4, (self.size,))
        self._block = np.ndarray((_SLAB_ROWS,), np.dtype((np.void, most)), self.slab, header, (self.size,))
        self._lengths = np.full(_SLAB_ROWS, self.size)

    def write(
        self,
        stream: I64,
        number: I64,
        malformed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[U8, I64]:
        """The datagrams of these packets, at most 1,024, and their lengths; valid until the next call."""
        count, shape = len(stream), self._shape
        self._head[:count] = self._heads[stream]
        self._sequence[:count] = (number + shape.first_sequence[stream]) & 0xFFFF
        frames = shape.frames[stream]
        self._timestamp[:count] = (number * frames + shape.first_timestamp[stream]) & 0xFFFF_FFFF
        if shape.change_every:
            self._ssrc[:count] = shape.ssrc(stream, number)
        self._block[:count] = self._blocks[(7 * stream + number) % _BLOCKS]
        lengths = self._lengths[:count] if self.uniform else self._header + frames
        if malformed is not None and malformed.any():
            lengths = lengths.copy()
            self._damage(np.flatnonzero(malformed), number, lengths)
        return self.slab[:count], lengths

    def _damage(self, rows: I64, number: I64, lengths: I64) -> None:
        """Damage them in four ways, in turn."""
        way = number[rows] % 4
        lengths[rows[way == 0]] = 20  # ends within the STREP header
        self.slab[rows[way == 1], 0] = 0xC8  # STREP version 2
        self.slab[rows[way == 2], 1] = 12  # a header length that version 1 does not have
        self.slab[rows[way == 3], 24] = 0x40  # RTP version 1


def send_load(
    to: str,
    *,
    streams: int,
    rate: float,
    duration_s: float,
    pattern: str = "even",
    churn: float = 200.0,
    segment: bool = False,
    spin: bool = False,
    warm_up_s: float = 0.0,
    seed: int = VERIFY_SEED,
    plain: bool = False,
    port_a_stream: bool = False,
    port_step: int = _PORT_STEP,
) -> LoadReport:
    """Send ``rate`` packets/s of ``streams`` streams for ``duration_s``; PCMU, 196-byte datagrams of 20 ms.

    ``pattern``: see :func:`strep.simulate.schedule.make_schedule`; with "even" every stream gets the same number of
    packets. ``segment`` uses UDP segmentation offload, which costs the sender far less (packets of one size only).
    ``spin``: never sleep, so that packets leave within microseconds of their time. Lateness in the first ``warm_up_s``
    seconds is not counted. ``seed`` makes the payloads; the checker needs the same one. ``plain`` leaves the STREP
    header out; with ``port_a_stream`` stream s goes to the port ``port_step`` * s above
    the one given. Blocks until all is sent.
    Raises ConfigurationError, AddressError.
    """
    if not 1 <= streams <= _STREAMS_LIMIT:
        raise ConfigurationError(f"{streams} streams: choose 1 to {_STREAMS_LIMIT}")
    if not (0 < rate < 1e9 and 0 < duration_s < 1e6):
        raise ConfigurationError(f"{rate} packets/s for {duration_s} s: both are positive")
    if seed < 0:
        raise ConfigurationError(f"seed {seed}: 0 or more")
    schedule = make_schedule(pattern, streams=streams, rate=rate, duration_s=duration_s, churn=churn)
    total = schedule.total
    if not total:
        raise ConfigurationError(f"{rate} packets/s for {duration_s} s: not one packet for each of {streams} streams")
    address = parse_address(to)
    if port_a_stream and segment:
        raise ConfigurationError("segmentation sends to one port: not for a port a stream")
    if port_a_stream and address.port + port_step * streams > 1 << 16:
        raise ConfigurationError(
            f"{streams} streams from port {address.port} on, {port_step} apart: there are too few ports"
        )
    if plain and pattern == "impaired":
        raise ConfigurationError("pattern 'impaired' damages STREP headers: not for plain RTP")
    writer = PacketWriter(schedule, seed, plain)
    if segment and not (writer.uniform and pattern != "impaired"):
        raise ConfigurationError(f"pattern {pattern!r} has packets of several sizes: UDP segmentation cannot send them")
    lags: list[float] = []
    lag_counts: list[int] = []
    done = sent = 0
    sender = BatchSender(
        address, ports=range(address.port, address.port + port_step * streams, port_step) if port_a_stream else ()
    )
    few = 1 if spin else _WORTH_SENDING
    try:
        start_ns = time.monotonic_ns()
        while done < total:
            now = (time.monotonic_ns() - start_ns) / 1e9
            due = min(schedule.due(now), total)
            count = min(due - done, _SLAB_ROWS)
            if count < min(few, total - done) and now - schedule.intended_s(done) < 2 * _SLICE_S:
                if not spin:
                    time.sleep(_SLICE_S)
                continue
            packets = schedule.packets(done, done + count)
            slab, lengths = writer.write(*packets)
            if segment:
                sent += sender.send_segments(slab, writer.size)
            else:
                sent += sender.send(slab, lengths, packets[0] if port_a_stream else None)
            now = (time.monotonic_ns() - start_ns) / 1e9
            if now >= warm_up_s:
                lags.append(now - schedule.intended_s(done))
                lag_counts.append(count)
            done += count
        elapsed = (time.monotonic_ns() - start_ns) / 1e9
    finally:
        sender.close()
    return LoadReport(
        sent=sent,
        elapsed_s=elapsed,
        rate=sent / elapsed,
        intended_rate=rate,
        behind_ms_max=1000 * max(lags, default=0.0),
        behind_ms_p99=1000 * _weighted_quantile(lags, lag_counts, 0.99),
        generator_was_the_limit=(schedule.intended_s(total - 1) + 1 / rate) / elapsed < _RATE_REACHED,
        streams=streams,
        packets_a_stream=total // streams,
        refused=done - sent,
        start_ns=start_ns,
    )


def _weighted_quantile(values: list[float], weights: list[int], share: float) -> float:
    if not values:
        return 0.0
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order])
    return float(np.array(values)[order][np.searchsorted(reached, share * reached[-1])])


def main(arguments: list[str] | None = None) -> int:
    """``python -m strep.simulate.load``: prints the report as JSON; returns 0, or 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="strep.simulate.load", description="Send a constant load of STREP packets.")
    parser.add_argument("--to", default="udp:127.0.0.1:9000")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50_000, help="packets a second, of all streams together")
    parser.add_argument("--duration", type=float, default=10, help="seconds")
    parser.add_argument("--pattern", choices=PATTERNS, default="even")
    parser.add_argument("--churn", type=float, default=200, help="streams a second that end and begin (pattern churn)")
    parser.add_argument("--segment", action="store_true", help="use UDP segmentation offload")
    parser.add_argument("--plain", action="store_true", help="plain RTP, without the STREP header")
    parser.add_argument("--port-a-stream", action="store_true", help="stream s to a port of its own")
    parser.add_argument("--port-step", type=int, default=_PORT_STEP, help="from a stream's port to the next one's")
    parser.add_argument("--spin", action="store_true", help="never sleep: packets leave when they should")
    parser.add_argument("--verify-seed", type=int, default=VERIFY_SEED, help="what the payloads are drawn from")
    options = parser.parse_args(arguments)
    try:
        report = send_load(
            options.to,
            streams=options.streams,
            rate=options.rate,
            duration_s=options.duration,
            pattern=options.pattern,
            churn=options.churn,
            segment=options.segment,
            spin=options.spin,
            plain=options.plain,
            port_a_stream=options.port_a_stream,
            port_step=options.port_step,
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
