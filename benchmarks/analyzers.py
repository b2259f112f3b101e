"""What analyzers cost: python benchmarks/analyzers.py [--streams N ...] [--seconds S] [--beside TREE]

CPU time a packet, of 20 ms PCMU. Half of the streams are one direction of a call, half the other; everybody speaks the
package's own voices, each beginning elsewhere. The answers are checked before anything is said.

from memory   each analyzer by itself, on one thread: blocks of 200 ms, already decoded
all at once   those of `--analyze all` likewise, one after another, and with decoding
live          the same through what receivers hand audio on by, in real time (or as fast as it goes): a batch of two
              packets of each stream every 40 ms. What a run of twice the length costs more, so starts do not count

``--beside``: another tree of this package, which is measured in turn with this one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # CPU time of one thread, and no waiting for another

import argparse
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strep._codecs.g711 import PCMU, decode, encode
from strep._delivery.dispatcher import Dispatcher
from strep._model.blocks import BlockBatch
from strep._model.events import Started
from strep._model.types import Direction, Leg, StreamEvent, StreamInfo
from strep.cli.output import Output
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

__all__ = ["batch_of", "figures", "main", "measure", "streams_of"]

_VOICES = [encode(PCMU, voice) for voice in bundled_voices()]
PACKET = 160  # sample frames
PACKETS = 10  # of a block: 200 ms
LIVE_PACKETS = 2
ROUNDS = 3


def streams_of(count: int) -> list[StreamInfo]:
    """Both directions of count / 2 call legs."""
    return [
        StreamInfo(
            n, n, uuid.UUID(int=n // 2), Leg.A, Direction(n % 2), f"leg{n // 2}", f"leg{n // 2}",
            ("a-inbound", "a-outbound")[n % 2], 9000, 1, ("127.0.0.1", 1), 0, 1, 1, PCMU,
        )
        for n in range(count)
    ]  # fmt: skip


def batch_of(streams: list[StreamInfo], tick: int, packets: int = PACKETS) -> BlockBatch:
    """A block of each stream: both directions of a leg are at the same place, each leg at another."""
    k, frames = len(streams), packets * PACKET
    payload = np.concatenate([_VOICES[s.index % 2].take(_at(s, tick * frames, frames), mode="wrap") for s in streams])
    time_ns = np.full(k, 10**18 + tick * packets * 20_000_000, np.int64)
    offset, zeros = np.arange(k + 1) * frames, np.zeros(k, np.int64)
    return BlockBatch(
        streams=streams, index=np.array([s.index for s in streams]), position=np.full(k, tick * frames, np.int64),
        frames=np.full(k, frames, np.int64), gap_frames=zeros, gap_cause=zeros.astype(np.uint8),
        rtp_timestamp=np.full(k, tick * frames, np.uint32), arrival_ns=time_ns, time_ns=time_ns, offset=offset,
        payload=payload, payload_offset=offset, packet_first=np.arange(k + 1) * packets,
        packet_frames=np.full(k * packets, PACKET, np.int64), packet_arrival_ns=np.repeat(time_ns, packets),
        packet_rtp_timestamp=np.zeros(k * packets, np.uint32), decode=lambda: decode(PCMU, payload),
    )  # fmt: skip


def _at(stream: StreamInfo, begin: int, frames: int) -> npt.NDArray[np.int64]:
    start = stream.index // 2 * 977 + begin
    return np.arange(start, start + frames)


class Decoder(BaseSink):
    """Wants samples, and nothing else."""

    def blocks(self, batch: BlockBatch) -> None:
        decode(PCMU, batch.payload)


def all_analyzers() -> list[Any]:
    """Those of ``--analyze all``."""
    return Output(
        layout="split", session=(), no_drift_correction=False, encoding="pcm16", rate=None, conceal=False,
        mute_keys=False, shortest=0.5, analyze="all", vad="energy", redact=False,
    ).sinks(None)  # fmt: skip


def measure(sinks: dict[str, list[Any]], streams: list[StreamInfo], seconds: float) -> dict[str, float]:
    """Nanoseconds of CPU per packet by name: the mean over all blocks after the first second."""
    spent: dict[str, list[int]] = {name: [] for name in sinks}
    for each in sinks.values():
        for sink in each:
            for stream in streams:
                sink.stream_started(stream)
    for tick in range(round(seconds * 50 / PACKETS)):
        batch = batch_of(streams, tick)
        _ = batch.samples  # decoded once, for all sinks
        for name, each in sinks.items():
            before = time.process_time_ns()
            for sink in each:
                sink.blocks(batch)
            spent[name].append(time.process_time_ns() - before)
    return {name: float(np.mean(times[50 // PACKETS :])) / (len(streams) * PACKETS) for name, times in spent.items()}


def run_live(streams: list[StreamInfo], seconds: float) -> float:
    """Nanoseconds of CPU of a live run, but for making what it hears."""
    before = time.process_time_ns()
    dispatcher = Dispatcher(all_analyzers(), lossless=True)
    dispatcher.handle([Started(stream) for stream in streams])
    begin, made = time.monotonic(), 0
    for tick in range(round(seconds * 50 / LIVE_PACKETS)):
        made -= time.thread_time_ns()
        batch = batch_of(streams, tick, LIVE_PACKETS)
        made += time.thread_time_ns()
        dispatcher.handle([batch])
        time.sleep(max(0.0, begin + (tick + 1) * LIVE_PACKETS * 0.02 - time.monotonic()))
    dispatcher.close(60)
    if wrong := [report for report in dispatcher.reports() if report["dropped_frames"] or report["failed"]]:
        raise AssertionError(f"analyzers lost something: {wrong}")
    return time.process_time_ns() - before - made


def measure_live(streams: list[StreamInfo], seconds: float) -> float:
    """Nanoseconds of CPU per packet."""
    short, long = run_live(streams, seconds), run_live(streams, 2 * seconds)
    return (long - short) / (len(streams) * round(seconds * 50))


def check(level: LevelMeter, speech: SpeechMeter, streams: list[StreamInfo], seconds: float) -> None:
    """What they say of streams among thousands is what the samples say, and what a meter of one call says."""
    ticks = round(seconds * 50 / PACKETS)
    columns, talk = level.arrays(), speech.arrays()
    for n in {0, 1, len(streams) // 2, len(streams) - 1}:
        heard = decode(PCMU, _VOICES[n % 2].take(_at(streams[n], 0, ticks * PACKETS * PACKET), mode="wrap")).astype(
            np.float64
        )
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


def figures(count: int, seconds: float) -> dict[str, float]:
    """Nanoseconds of CPU per packet of everything, of this tree."""
    streams = streams_of(count)
    heard, told = [0], [0]

    def tell(event: StreamEvent) -> None:
        told[0] += 1

    level, speech = LevelMeter(), SpeechMeter(on_event=tell)

    def hear(frames: Any) -> None:
        heard[0] += len(frames)

    sinks: dict[str, list[Any]] = {
        "decode G.711": [Decoder()],
        "LevelMeter without active level": [LevelMeter(active_level=False)],
        "LevelMeter": [level],
        "SpeechMeter": [speech],
        "DtmfDetector": [DtmfDetector()],
        "ToneDetector": [ToneDetector()],
        "QualityMeter": [QualityMeter()],
        "Spectrum without spectrograms": [Spectrum(seconds=0)],
        "MutedSink, what it holds alone": [MutedSink([BaseSink()])],
        "FrameSink 256 at 8 kHz": [FrameSink(hear, n=256, rate=8000)],
        "FrameSink 512 at 16 kHz": [FrameSink(hear, n=512, rate=16_000)],
        "all at once, with decoding": [Decoder(), *all_analyzers()],
    }
    found = measure(sinks, streams, seconds)
    check(level, speech, streams, seconds)
    wanted = 2 * count * int(seconds * 8000 // 256)
    if not wanted - 4 * count <= heard[0] <= wanted or not told[0]:
        raise AssertionError(f"{heard[0]} frames, should be about {wanted}; {told[0]} events")
    found["live, all analyzers"] = measure_live(streams, seconds / 2)
    return found


def figures_of(tree: Path, count: int, seconds: float) -> dict[str, float]:
    """The same of any tree, by an interpreter of its own."""
    command = [sys.executable, __file__, "--json", "--streams", str(count), "--seconds", str(seconds)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--streams", type=int, nargs="+", default=[500, 5000])
    arguments.add_argument("--seconds", type=float, default=4.0, help="of audio")
    arguments.add_argument("--beside", type=Path, help="another tree of the package")
    arguments.add_argument("--json", action="store_true", help="figures of the first number of streams, one round")
    given = arguments.parse_args()
    if given.json:
        print(json.dumps(figures(given.streams[0], given.seconds)))
        return
    trees = [Path(__file__).parents[1], *([given.beside] if given.beside else [])]
    for count in given.streams:
        rounds = [[figures_of(tree, count, given.seconds) for tree in trees] for _ in range(ROUNDS)]
        print(
            f"{count} streams, ns of CPU a packet, the median of {ROUNDS} rounds"
            + (": here, beside" * bool(given.beside))
        )
        for name in rounds[0][0]:
            each = [float(np.median([one[n][name] for one in rounds])) for n in range(len(trees))]
            share = 100 * each[0] * count * 50 / 1e9
            beside = f" {each[1]:8.0f} {each[1] / each[0]:5.1f} x" if len(each) > 1 else ""
            print(f"{name:32} {each[0]:8.0f}{beside}  {share:6.1f} % of a core")


if __name__ == "__main__":
    main()
