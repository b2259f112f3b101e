"""What several tests need: datagrams by hand, the engine run over them, and what came out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import strep
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.blocks import BlockBatch
from strep._model.datagrams import SLOT_MINIMUM, DatagramBatch
from strep._model.events import Ended, Event, Notice, Started
from strep._model.report import StreamReport, Totals
from strep._model.types import StreamEvent, StreamInfo

T0 = 1_700_000_000_000_000_000  # a whole second, UTC ns
MS = 1_000_000
LEG = uuid.UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")


def leg_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=LEG.int + number)


@dataclass(frozen=True)
class Arrival:
    """One datagram and when it came."""

    ns: int
    data: bytes
    source: tuple[int, int] = (0xFFFF_0A00_0001, 40_000)  # ::ffff:10.0.0.1
    local_port: int = 9000


def packet(
    sequence: int,
    *,
    timestamp: int | None = None,
    ssrc: int = 0x1234,
    payload: bytes | None = None,
    payload_type: int = 0,
    leg: int = 0,
    call: uuid.UUID | None = LEG,
    direction: int = 0,
    frames: int = 160,
) -> bytes:
    """A datagram whose payload tells its sequence number (so that any mix-up shows)."""
    if payload is None:
        payload = payload_of(sequence, frames)
    if timestamp is None:
        timestamp = sequence * frames
    return strep.build_datagram(
        payload=payload,
        payload_type=payload_type,
        sequence_number=sequence & 0xFFFF,
        rtp_timestamp=timestamp & 0xFFFF_FFFF,
        ssrc=ssrc,
        call_leg_id=call,
        leg=strep.Leg(leg),
        direction=strep.Direction(direction),
    )


def payload_of(sequence: int, frames: int = 160) -> bytes:
    first = sequence * 31 & 0xFF
    return (_ALL_BYTES * (2 + frames // 256))[first : first + frames]


_ALL_BYTES = bytes(range(256))


def pcmu(payload: bytes) -> npt.NDArray[np.int16]:
    """What a payload decodes to, by the textbook (ITU-T G.711), not by the code under test."""
    value = ~np.frombuffer(payload, np.uint8)
    magnitude = (((value & 0x0F).astype(np.int16) << 3) + 0x84) << ((value & 0x70) >> 4)
    return np.where(value & 0x80, 0x84 - magnitude, magnitude - 0x84).astype(np.int16)


def steady(count: int, *, first: int = 0, start_ns: int = T0, ptime_ms: int = 20, **options: Any) -> list[Arrival]:
    """``count`` packets in sequence, evenly spaced."""
    return [Arrival(start_ns + k * ptime_ms * MS, packet(first + k, **options)) for k in range(count)]


def slab_of(datagrams: Sequence[bytes], width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
    """Datagrams as sockets have them: in rows, or end to end where some are longer."""
    if max(map(len, datagrams)) <= width:
        rows = bytearray().join([data.ljust(width, b"\xa5") for data in datagrams])
        return np.frombuffer(rows, np.uint8).reshape(-1, width), None
    padded = [data.ljust(max(-(-len(data) // SLOT_MINIMUM), 1) * SLOT_MINIMUM, b"\xa5") for data in datagrams]
    ends = np.cumsum([len(data) // SLOT_MINIMUM for data in padded])
    slab = np.frombuffer(bytearray().join(padded), np.uint8).reshape(-1, SLOT_MINIMUM)
    return slab, ends - [len(data) // SLOT_MINIMUM for data in padded]


def long_batch_of(arrivals: Sequence[Arrival]) -> DatagramBatch:
    """Datagrams of any length, whole."""
    batch = batch_of(arrivals)
    batch.slab, batch.first_row = slab_of([a.data for a in arrivals], 2048)
    return batch


def batch_of(arrivals: Sequence[Arrival], *, width: int = 256, garbage: int = 0xA5) -> DatagramBatch:
    fill = bytes([garbage]) * width
    rows = bytearray().join([(a.data + fill)[:width] for a in arrivals])
    return DatagramBatch(
        np.frombuffer(rows, np.uint8).reshape(len(arrivals), width),
        np.array([len(a.data) for a in arrivals], np.int32),
        np.array([a.ns for a in arrivals], np.int64),
        np.array([a.source[0] >> 64 for a in arrivals], np.uint64),
        np.array([a.source[0] & 0xFFFF_FFFF_FFFF_FFFF for a in arrivals], np.uint64),
        np.array([a.source[1] for a in arrivals], np.uint16),
        np.array([a.local_port for a in arrivals], np.uint16),
    )


@dataclass
class Result:
    audio: dict[int, npt.NDArray[np.int16]] = field(default_factory=dict)  # by stream serial, gaps as zeros
    gaps: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)  # (position, samples, cause)
    started: list[StreamInfo] = field(default_factory=list)
    reports: list[StreamReport] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    events: dict[int, list[tuple[object, ...]]] = field(default_factory=dict)  # by serial
    noise: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # (position, comfort noise before it)
    totals: Totals = field(default_factory=Totals)
    batches: list[BlockBatch] = field(default_factory=list)

    def only(self) -> tuple[npt.NDArray[np.int16], StreamReport]:
        """Audio and report of the one stream there is."""
        if len(self.reports) != 1:
            raise AssertionError(f"{len(self.reports)} streams")
        return self.audio[0], self.reports[0]


def run(
    arrivals: Sequence[Arrival],
    *,
    cuts: Sequence[int] = (),
    live: bool = False,
    ticking: bool = False,
    prompt: bool = True,
    width: int = 256,
    config: EngineConfig | None = None,
    between: Mapping[int, Callable[[Engine], list[Event] | None]] | None = None,
) -> Result:
    """The engine over ``arrivals``, cut into batches at ``cuts``; checks the accounts after every step.

    ``live`` sends blocks off at once; ``ticking`` tells the engine the time after every batch; without ``prompt`` what
    waited behind a hole waits for company too; ``width`` 0: batches as sockets give them, long datagrams whole;
    ``between`` is what else is done with it, by how many arrivals came before.
    """
    engine = Engine(config, release=Release(0 if live else 200 * MS, prompt=prompt))
    result = Result()
    parts: dict[int, list[npt.NDArray[np.int16]]] = {}
    positions: dict[int, int] = {}

    def take(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, BlockBatch):
                result.batches.append(event)
                for index, block in enumerate(event):
                    serial = block.stream.serial
                    if index in event.noise:
                        result.noise.setdefault(serial, []).append((block.position, event.noise[index]))
                    position = positions.get(serial, 0)
                    if block.gap:
                        result.gaps.setdefault(serial, []).append((position, block.gap.samples, block.gap.cause.label))
                        parts.setdefault(serial, []).append(np.zeros(block.gap.samples, np.int16))
                        position += block.gap.samples
                    assert block.position == position
                    parts.setdefault(serial, []).append(block.samples.reshape(-1))
                    positions[serial] = position + len(block.samples)
            elif isinstance(event, Started):
                result.started.append(event.stream)
            elif isinstance(event, Ended):
                result.reports.append(event.report)
            elif isinstance(event, Notice):
                result.notices.append(event.text)
            elif isinstance(event, StreamEvent):
                told = (event.kind, event.position, event.time_ns, event.duration_s, dict(event.data))
                result.events.setdefault(event.stream.serial, []).append(told)
        assert engine.totals().unaccounted == 0

    done = 0
    for cut in [*sorted({*cuts, *(between or {})}), len(arrivals)]:
        part = arrivals[done:cut]
        done = max(done, cut)
        if part:
            take(engine.receive(batch_of(part, width=width) if width else long_batch_of(part)))
            if ticking:
                take(engine.advance(part[-1].ns))
        if between and cut in between:
            take(between[cut](engine) or [])
    take(engine.flush())
    result.totals = engine.totals()
    assert result.totals.buffered == 0
    result.audio = {serial: np.concatenate(blocks) for serial, blocks in parts.items()}
    result.reports.sort(key=lambda r: r.stream.serial)
    return result
