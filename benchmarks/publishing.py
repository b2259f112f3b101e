"""What it costs to publish streams to NATS, and to hear them: CPU of the process, for each packet.

    python benchmarks/publishing.py [--streams 5000] [--seconds 6]

Publishing: batches as the engine makes them are handed to a sink that ignores them, then to a NatsSink, in turn; the
difference is what publishing costs. A broker is started beside it (its CPU is told too). Hearing: what was published is
read by a ``strep.remote.Receiver``, without files and to WAV files, on one core. Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from strep import remote
from strep._model.blocks import BlockBatch
from strep._model.report import StreamReport
from strep._model.types import Codec, Direction, Leg, StreamInfo
from strep._nats.link import loop_factory
from strep._threads.incidents import Incidents
from strep.sinks import BaseSink, NatsSink, Sink, WavSink

T0: Final = 1_700_000_000_000_000_000
PCMU: Final = Codec("PCMU", 8000, 8000, 1, 1)


def streams_of(count: int) -> list[StreamInfo]:
    legs = [uuid.UUID(int=(0x428C31B6 << 96) + n) for n in range((count + 1) // 2)]
    return [
        StreamInfo(
            n, n, legs[n // 2], Leg.A, Direction(n % 2), str(legs[n // 2]), str(legs[n // 2]),
            ("a-inbound", "a-outbound")[n % 2], 9000, n, ("127.0.0.1", 5000), 0, T0, T0, PCMU, [n],
        )
        for n in range(count)
    ]  # fmt: skip


def batches_of(streams: list[StreamInfo], seconds: float, tick_ms: int = 100) -> Iterator[BlockBatch]:
    """Each stream's packets of 20 ms, ``tick_ms`` at a time: as sinks get them that are in no hurry."""
    m, packets = len(streams), tick_ms // 20
    payload = np.random.default_rng(1).integers(0, 256, m * packets * 160, dtype=np.uint8)
    ones = np.full(m * packets, 160, np.int64)
    index = np.arange(m)
    for tick in range(round(seconds * 1000 / tick_ms)):
        position = np.full(m, tick * packets * 160, np.int64)
        time_ns = np.full(m, T0 + tick * tick_ms * 1_000_000, np.int64)
        first = np.arange(0, m * packets + 1, packets)
        arrival = np.repeat(time_ns, packets) + np.tile(np.arange(packets) * 20_000_000, m)
        timestamp = (np.repeat(position, packets) + np.tile(np.arange(packets) * 160, m)).astype(np.uint32)
        yield BlockBatch(
            streams=streams, index=index, position=position, frames=np.full(m, packets * 160, np.int64),
            gap_frames=np.zeros(m, np.int64), gap_cause=np.zeros(m, np.uint8), rtp_timestamp=timestamp[first[:-1]],
            arrival_ns=time_ns, time_ns=time_ns, offset=first * 160, payload=payload, payload_offset=first * 160,
            packet_first=first, packet_frames=ones, packet_arrival_ns=arrival, packet_rtp_timestamp=timestamp,
            packet_offset=np.arange(m * packets + 1) * 160, decode=lambda: np.zeros(0, np.int16),
        )  # fmt: skip


def feed(sink: BaseSink, streams: list[StreamInfo], seconds: float, speed: float = 1.0) -> float:
    """CPU seconds of this process while the sink was given everything in real time (times ``speed``)."""
    began, began_s = time.process_time(), time.monotonic()
    for stream in streams:
        sink.stream_started(stream)
    for tick, batch in enumerate(batches_of(streams, seconds)):
        time.sleep(max(began_s + tick * 0.1 / speed - time.monotonic(), 0))
        sink.blocks(batch)
    for stream in streams:
        sink.stream_ended(stream, StreamReport.empty(stream, "closed"))
    sink.close(30)
    return time.process_time() - began


async def hear(url: str, group: str, sinks: list[Sink], streams: int, packets: int) -> tuple[float, float]:
    """CPU and wall seconds until all was heard."""
    began, began_s = time.process_time(), time.monotonic()
    async with remote.Receiver(url, group, sinks=sinks) as receiver:
        while receiver.totals().streams_ended < streams and time.monotonic() - began_s < 120:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await receiver.stop(60)
        wall = time.monotonic() - began_s
        figures, totals = receiver.figures(), receiver.totals()
        assert (figures.lost_frames, figures.refused) == (0, {}), figures
        assert (totals.delivered, totals.streams_ended) == (packets, streams), totals
        assert all(report["dropped_frames"] == 0 for report in receiver.sink_reports()), receiver.sink_reports()
    return time.process_time() - began, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    streams = streams_of(options.streams)
    packets = options.streams * round(options.seconds * 50)
    with tempfile.TemporaryDirectory() as folder:
        port = 42_322
        config = Path(folder) / "server.conf"
        config.write_text(f'host: "127.0.0.1"\nport: {port}\njetstream {{ store_dir: "{folder}/store" }}\n')
        program = Path(sys.executable).parent / "nats-server"
        server = subprocess.Popen([str(program), "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            url = f"nats://127.0.0.1:{port}"
            nothing = feed(BaseSink(), streams, options.seconds)
            sink = NatsSink(url)
            sink.report_to(Incidents(time.time_ns))
            published = feed(sink, streams, options.seconds)
            report = sink.report()
            assert report["dropped_frames"] == 0, report
            cost = (published - nothing) / packets * 1e6
            ticks = os.sysconf("SC_CLK_TCK")
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            broker = (int(fields[11]) + int(fields[12])) / ticks / packets * 1e6
            rate, bytes_ = report["messages"] / options.seconds, report["bytes"] / packets
            print(
                f"publishing {options.streams} streams, {packets / options.seconds:,.0f} packets/s: {cost:.3f} us a "
                f"packet ({rate:,.0f} messages/s, {bytes_:.0f} bytes a packet); the broker's own: {broker:.3f} us"
            )
            for name, sinks in (("nothing", []), ("WAV files", [WavSink(Path(folder) / "out")])):
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    cpu, wall = runner.run(hear(url, name.replace(" ", "-"), list(sinks), len(streams), packets))
                print(
                    f"hearing, to {name}: {cpu / packets * 1e6:.3f} us a packet, {wall:.1f} s for {options.seconds:g} s"
                )
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
