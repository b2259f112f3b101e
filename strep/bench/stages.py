"""What each stage costs a packet, by batch size: the engine's own functions, timed where they are called."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from .._engine import intake as _intake
from .._engine.engine import Engine, EngineConfig
from .._engine.outlet import outlet as _outlet
from .._engine.release import Release
from .._model.blocks import BlockBatch
from .._model.datagrams import DatagramBatch
from .._model.events import Ended, Started
from ..simulate.load import VERIFY_SEED, PacketWriter
from ..simulate.schedule import Even
from ..sinks import ArraySink, LevelMeter, Sink, WavSink
from ._outcome import Cell, Outcome
from ._settings import Settings

__all__ = ["measure"]

_STREAMS: Final = 5000
_RATE: Final = 250_000.0
_BATCHES: Final = (1, 4, 16, 64, 256, 1024, 4096)
_START_NS: Final = 1_790_000_000_000_000_000
_LOCALHOST: Final = 0xFFFF_7F00_0001
_HOPS: Final = 12  # the first packets of all streams are admission, and not measured
STAGES: Final = ("parse", "look-up", "statistics", "ring", "pop", "place", "gather", "rest", "decode")
SINKS: Final = ("LevelMeter", "ArraySink", "WavSink")


def measure(settings: Settings) -> Outcome:
    runs = settings.repeat(5)
    title = f"ns per packet on one core, {_STREAMS:,} streams, every packet sent on at once; median of {runs}"
    outcome = Outcome("stages", title, ("batch", *STAGES, "sum", *SINKS))
    sizes = _BATCHES[::2] if settings.quick else _BATCHES
    with settings.work() as work:
        for size in sizes:
            results = []
            for run in range(runs):
                settings.progress(f"batches of {size:,}, {run + 1}/{runs}")
                results.append(_run(size, work / f"stages-{size}-{run}"))
            figures = {name: median(r[name] for r in results) for name in results[0]}
            stages: list[Cell] = [round(figures[name]) for name in STAGES]
            total = round(sum(figures[name] for name in STAGES))
            outcome.rows.append([size, *stages, total, *(round(figures[name]) for name in SINKS)])
            outcome.data[str(size)] = results
            if any(r["undelivered"] for r in results):
                outcome.wrong.append(f"batches of {size}: packets were not delivered")
    outcome.notes.append("rest: verdicts, windows, ticks; sinks: decoded already, WavSink's thread included")
    return outcome


class _Stopwatch:
    """Time spent within functions, without what others on the watch spent within them."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = defaultdict(int)
        self._inner = 0

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            outer, self._inner = self._inner, 0
            began = time.perf_counter_ns()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter_ns() - began
                self.ns[name] += spent - self._inner
                self._inner = outer + spent

        return timed


@contextmanager
def _watched(engine: Engine, stopwatch: _Stopwatch) -> Iterator[None]:
    parse, gather = _intake.parse_apart, _outlet.gather  # type: ignore[attr-defined]
    _intake.parse_apart = stopwatch.watch("parse", parse)  # type: ignore[attr-defined]
    _outlet.gather = stopwatch.watch("gather", gather)  # type: ignore[attr-defined]
    state = engine.state
    targets: list[tuple[str, Any, str]] = [
        ("look-up", state.table, "find"),
        ("statistics", state.reception, "arrived"),
        ("ring", state.ring, "insert"),
        ("pop", state.ring, "pop"),
        ("place", state.timeline, "place"),
        ("place", state.clock, "map"),
    ]
    for name, owner, method in targets:
        setattr(owner, method, stopwatch.watch(name, getattr(owner, method)))
    try:
        yield
    finally:
        _intake.parse_apart = parse  # type: ignore[attr-defined]
        _outlet.gather = gather  # type: ignore[attr-defined]
        for _, owner, method in targets:
            delattr(owner, method)


def _run(size: int, directory: Path) -> dict[str, float]:
    """ns per packet by stage."""
    engine = Engine(EngineConfig(latency_ns=60_000_000), release=Release(0))
    sinks: dict[str, Sink] = {"LevelMeter": LevelMeter(), "ArraySink": ArraySink(1.0), "WavSink": WavSink(directory)}
    for event in (e for batch in _batches(0, _HOPS, 4096) for e in engine.receive(batch)):
        _tell(sinks, event)
    measured = min(max(size * 200, 20_000), 10 * _STREAMS) // _STREAMS + 1
    stopwatch = _Stopwatch()
    spent: dict[str, float] = defaultdict(float)
    delivered, packets = engine.totals().delivered, 0
    whole = stopwatch.watch("rest", engine.receive)
    with _watched(engine, stopwatch):
        for batch in _batches(_HOPS, _HOPS + measured, size):
            packets += len(batch)
            for event in whole(batch):
                if isinstance(event, BlockBatch):
                    spent["decode"] += _timed(lambda event=event: event.samples)  # type: ignore[misc]
                    for name in ("LevelMeter", "ArraySink"):
                        spent[name] += _timed(lambda event=event, name=name: sinks[name].blocks(event))  # type: ignore[misc]
                    if packets <= 20_000 + size:
                        sinks["WavSink"].blocks(event)
                        spent["wav packets"] += len(event.packet_frames)
    began = time.perf_counter_ns()
    sinks["WavSink"].close(60.0)
    figures = {name: ns / packets for name, ns in stopwatch.ns.items()}
    figures |= {name: spent[name] / packets for name in ("decode", "LevelMeter", "ArraySink")}
    figures["WavSink"] = (time.perf_counter_ns() - began) / max(spent["wav packets"], 1)
    figures["undelivered"] = float(packets - (engine.totals().delivered - delivered))
    return figures


def _tell(sinks: dict[str, Sink], event: object) -> None:
    for sink in sinks.values():
        if isinstance(event, Started):
            sink.stream_started(event.stream)
        elif isinstance(event, Ended):
            sink.stream_ended(event.stream, event.report)
        elif isinstance(event, BlockBatch):
            sink.blocks(event)


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - began


def _batches(first: int, last: int, size: int) -> Iterator[DatagramBatch]:
    """Packets ``first`` to ``last`` of every stream in batches, written before they are handed out."""
    schedule = Even(_STREAMS, _RATE, _STREAMS * last / _RATE)
    writer = PacketWriter(schedule, VERIFY_SEED)
    total = (last - first) * _STREAMS
    slab = np.zeros((total, 256), np.uint8)
    for begin in range(0, total, 1024):
        end = min(begin + 1024, total)
        rows, _ = writer.write(*schedule.packets(first * _STREAMS + begin, first * _STREAMS + end))
        slab[begin:end, : rows.shape[1]] = rows
    length = np.full(total, writer.size, np.int32)
    arrival = _START_NS + ((first * _STREAMS + np.arange(total)) / _RATE * 1e9).astype(np.int64)
    hi, lo = np.zeros(total, np.uint64), np.full(total, _LOCALHOST, np.uint64)
    port = np.full(total, 9000, np.uint16)
    for begin in range(0, total, size):
        part = slice(begin, min(begin + size, total))
        yield DatagramBatch(slab[part], length[part], arrival[part], hi[part], lo[part], port[part], port[part])
