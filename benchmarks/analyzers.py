"""What analyzers cost: python benchmarks/analyzers.py [STREAMS]

From memory, on one thread: blocks of 100 ms of 20 ms PCMU packets, as the engine gives them to sinks that are not
prompt. Half of the streams are one direction of a call, half the other; everybody speaks the package's own voices, each
beginning elsewhere. CPU time a packet, and beside it that of decoding G.711 alone. The answers are checked before
anything is said.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # CPU time of one thread, and no waiting for another

import sys
import time
import uuid
from typing import Any

import numpy as np
import numpy.typing as npt

from strep._codecs.g711 import PCMU, decode, encode
from strep._model.blocks import BlockBatch
from strep._model.types import Direction, Leg, StreamEvent, StreamInfo
from strep.simulate.speech import bundled_voices
from strep.sinks import (
    BaseSink,
    DtmfDetector,
    FrameSink,
    LevelMeter,
    MutedSink,
    QualityMeter,
    Spectrum,
    SpeechMeter,
    ToneDetector,
)

__all__ = ["batch_of", "main", "measure", "streams_of"]

_VOICES = [encode(PCMU, voice) for voice in bundled_voices()]
FRAMES = 800  # sample frames of a block: 100 ms
PACKETS = 5  # of a block


def streams_of(count: int) -> list[StreamInfo]:
    """Both directions of count / 2 call legs."""
    return [
        StreamInfo(
            n, n, uuid.UUID(int=n // 2), Leg.A, Direction(n % 2), f"leg{n // 2}", f"leg{n // 2}",
            ("a-inbound", "a-outbound")[n % 2], 9000, 1, ("127.0.0.1", 1), 0, 1, 1, PCMU,
        )
        for n in range(count)
    ]  # fmt: skip


def batch_of(streams: list[StreamInfo], tick: int) -> BlockBatch:
    """Blocks of 100 ms: both directions of a leg are at the same place, each leg at another."""
    k = len(streams)
    payload = np.concatenate([_VOICES[s.index % 2].take(_at(s, tick), mode="wrap") for s in streams])
    time_ns = np.full(k, 10**18 + tick * 100_000_000, np.int64)
    offset, zeros = np.arange(k + 1) * FRAMES, np.zeros(k, np.int64)
    return BlockBatch(
        streams=streams, index=np.array([s.index for s in streams]), position=np.full(k, tick * FRAMES, np.int64),
        frames=np.full(k, FRAMES, np.int64), gap_frames=zeros, gap_cause=zeros.astype(np.uint8),
        rtp_timestamp=np.full(k, tick * FRAMES, np.uint32), arrival_ns=time_ns, time_ns=time_ns, offset=offset,
        payload=payload, payload_offset=offset, packet_first=np.arange(k + 1) * PACKETS,
        packet_frames=np.full(k * PACKETS, FRAMES // PACKETS, np.int64), packet_arrival_ns=np.repeat(time_ns, PACKETS),
        packet_rtp_timestamp=np.zeros(k * PACKETS, np.uint32), decode=lambda: decode(PCMU, payload),
    )  # fmt: skip


def _at(stream: StreamInfo, tick: int, ticks: int = 1) -> npt.NDArray[np.int64]:
    start = stream.index // 2 * 977 + tick * FRAMES
    return np.arange(start, start + ticks * FRAMES)


class Decoder(BaseSink):
    """Wants samples, and nothing else."""

    def blocks(self, batch: BlockBatch) -> None:
        decode(PCMU, batch.payload)


def measure(sinks: dict[str, BaseSink], streams: list[StreamInfo], seconds: float) -> dict[str, float]:
    """Nanoseconds of CPU per packet by sink: the mean over all blocks after the first second."""
    spent: dict[str, list[int]] = {name: [] for name in sinks}
    for sink in sinks.values():
        for stream in streams:
            sink.stream_started(stream)
    for tick in range(round(10 * seconds)):
        batch = batch_of(streams, tick)
        _ = batch.samples  # decoded once, for all sinks
        for name, sink in sinks.items():
            before = time.process_time_ns()
            sink.blocks(batch)
            spent[name].append(time.process_time_ns() - before)
    return {name: float(np.mean(times[10:])) / (len(streams) * PACKETS) for name, times in spent.items()}


def check(level: LevelMeter, speech: SpeechMeter, streams: list[StreamInfo], seconds: float) -> None:
    """What they say of streams among thousands is what the samples say, and what a meter of one call says."""
    ticks = round(10 * seconds)
    columns, talk = level.arrays(), speech.arrays()
    for n in {0, 1, len(streams) // 2, len(streams) - 1}:
        heard = decode(PCMU, _VOICES[n % 2].take(_at(streams[n], 0, ticks), mode="wrap")).astype(np.float64)
        rms = 20 * np.log10(np.sqrt(np.square(heard).mean()) / 32_768)
        peak = 20 * np.log10(np.abs(heard).max() / 32_768)
        if abs(columns["rms_dbfs"][n] - rms) > 0.01 or abs(columns["peak_dbfs"][n] - peak) > 0.01:
            raise AssertionError(f"stream {n}: {columns['rms_dbfs'][n]} dBFS, is {rms}")
        pair = streams[n // 2 * 2 : n // 2 * 2 + 2]
        alone, level_alone = SpeechMeter(), LevelMeter()
        for stream in pair:
            alone.stream_started(stream)
            level_alone.stream_started(stream)
        for tick in range(ticks):
            alone.blocks(batch_of(pair, tick))
            level_alone.blocks(batch_of(pair, tick))
        for stream in pair:
            if alone.snapshot(stream) != speech.snapshot(stream) or not (alone.snapshot(stream) or {}).get("talk_s"):
                raise AssertionError(f"{stream.name}: {speech.snapshot(stream)}, alone {alone.snapshot(stream)}")
            one, many = level_alone.snapshot(stream), level.snapshot(stream)
            if one is None or many is None or abs(one.speech_dbfs - many.speech_dbfs) > 0.01 or one.speech_dbfs < -60:
                raise AssertionError(f"{stream.name}: {many}, alone {one}")
    if not 0.1 * seconds < float(talk["talk_s"].mean()) < 0.9 * seconds:
        raise AssertionError(f"{talk['talk_s'].mean()} s of speech in {seconds} s")


def main(count: int = 5000, seconds: float = 6.0) -> dict[str, float]:
    streams = streams_of(count)
    heard, told = [0], [0]

    def tell(event: StreamEvent) -> None:
        told[0] += 1

    level, speech = LevelMeter(), SpeechMeter(on_event=tell)

    def hear(frames: Any) -> None:
        heard[0] += len(frames)

    sinks: dict[str, BaseSink] = {
        "decode G.711": Decoder(),
        "LevelMeter without active level": LevelMeter(active_level=False),
        "LevelMeter": level,
        "SpeechMeter": speech,
        "DtmfDetector": DtmfDetector(),
        "ToneDetector": ToneDetector(),
        "QualityMeter": QualityMeter(),
        "Spectrum without spectrograms": Spectrum(seconds=0),
        "MutedSink, what it holds alone": MutedSink([BaseSink()]),
        "FrameSink 256 at 8 kHz": FrameSink(hear, n=256, rate=8000),
        "FrameSink 512 at 16 kHz": FrameSink(hear, n=512, rate=16_000),
    }
    found = measure(sinks, streams, seconds)
    check(level, speech, streams, seconds)
    wanted = 2 * count * int(seconds * 8000 // 256)
    if not wanted - 4 * count <= heard[0] <= wanted:
        raise AssertionError(f"{heard[0]} frames, should be about {wanted}")
    found["LevelMeter and SpeechMeter"] = found["LevelMeter"] + found["SpeechMeter"]
    for name, ns in found.items():
        ratio = ns / found["decode G.711"]
        share = 100 * ns * count * 50 / 1e9
        print(f"{name:32} {ns:6.0f} ns/packet  {ratio:5.1f} x decoding  {share:5.1f} % of a core for {count} streams")
    print(f"{told[0]} events told, {told[0] / count / seconds:.2f} a stream and second")
    return found


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:2]))
