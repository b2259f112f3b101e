"""One run: a storm and the real calls in the same batches, and what must hold at every step."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strep._codecs.payload_types import PayloadTypes
from strep._delivery.dispatcher import Dispatcher
from strep._delivery.ordered_work import OrderedWork
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._engine.sources.port_keys import PortBinding, PortRole
from strep._model.datagrams import SLOT_MINIMUM, DatagramBatch, end_to_end
from strep._model.events import Ended, Fault, Started
from strep._model.report import StreamReport
from strep._model.spans import copy_spans
from strep._model.types import StreamInfo
from strep._threads.incidents import Incidents

from .actors import HI, LEGS, storm
from .calls import NO_CALLS, PAYLOAD_TYPES, Key, RealCalls, key_of, real_calls
from .listeners import VARIANTS, Listeners
from .wire import WIRE, Datagram, batch_of_wire, wire_of

__all__ = ["SECONDS", "Run", "Setup", "Violation", "replayed", "storm_of", "survive"]

START_NS: Final = 1_700_000_000_000_000_000
SECONDS: Final = 4.0  # that the real calls last
MAX_STREAMS: Final = 400
_LARGEST_ENGINE: Final = 192 << 20  # bytes of all arrays of an engine for so many streams
_LOOK_EVERY: Final = 500  # datagrams, after which sinks are asked how they are
_GAP_S: Final = 60.0  # of what did not come, no stream and no file may hold more than this beside the run's length


class Violation(AssertionError):
    """Something that must never be. ``place`` is where, without anything that changes from run to run."""

    def __init__(self, kind: str, place: str, text: str, after: int = 0) -> None:
        super().__init__(f"{kind} in {place} after {after} datagrams: {text}")
        self.kind = kind
        self.place = place
        self.after = after

    @property
    def what(self) -> tuple[str, str]:
        return self.kind, self.place


@dataclass(frozen=True, slots=True)
class Setup:
    """How a run is made, all of it from its seed. ``clock``: arrival times leap, so that real calls are not exact."""

    seed: int
    variant: int = 0
    clock: bool = False
    announced: bool = False
    release_ns: int = 200_000_000
    prompt: bool = True
    groups: int = 1
    listen: bool = True  # with sinks; False: the engine alone
    seconds: float = SECONDS

    @classmethod
    def of(cls, seed: int, *, listen: bool = True, seconds: float = SECONDS) -> Setup:
        rng = np.random.default_rng([seed, 1])
        return cls(
            seed,
            variant=seed % VARIANTS,
            clock=seed % 5 == 4,
            announced=bool(rng.random() < 0.2),
            release_ns=int(rng.choice([0, 50_000_000, 200_000_000, 200_000_000])),
            prompt=bool(rng.random() < 0.7),
            groups=int(rng.choice([1, 1, 4])),
            listen=listen,
            seconds=seconds,
        )


def storm_of(seed: int, datagrams: int, only: str | None = None, *, seconds: float = SECONDS) -> npt.NDArray[np.void]:
    """The hostile datagrams of a seed."""
    rng = np.random.default_rng([seed, 2])
    rows = storm(rng, datagrams, int(seconds * 1e9) - 300_000_000, only)
    if Setup.of(seed).clock:
        _leap(rows, rng)
    return rows


def _leap(rows: npt.NDArray[np.void], rng: np.random.Generator) -> None:
    """The receiver's clock goes back and forth, in steps small and huge; single datagrams stand out of order."""
    n = len(rows)
    steps = np.zeros(n, np.int64)
    at = rng.integers(0, n, 12)
    steps[at] = rng.choice([-3_600_000, -30_000, -1000, -15, 15, 1000, 5000, 30_000, 3_600_000], 12) * 1_000_000
    rows["ns"] += np.cumsum(steps)
    some = np.flatnonzero(rng.random(n) < 0.01)
    rows["ns"][some] += rng.integers(-50_000_000, 50_000_000, some.size)


@dataclass(slots=True)
class Run:
    """What came of it."""

    real: dict[Key, dict[str, Any]] = field(default_factory=dict)
    datagrams: int = 0
    streams: int = 0
    seconds: float = 0.0
    engine_bytes: int = 0


@lru_cache(maxsize=VARIANTS + 1)
def _undisturbed(variant: int, listen: bool, seconds: float) -> dict[Key, dict[str, Any]]:
    """The real calls with nobody beside them."""
    calls = real_calls(seconds)
    setup = Setup(0, variant=variant, listen=listen)
    return _run(_batches(np.zeros(0, WIRE), calls, setup), setup, calls).real


def survive(seed: int, datagrams: int = 20_000, *, setup: Setup | None = None, only: str | None = None) -> Run:
    """Run a seed's storm. Raises Violation."""
    setup = setup or Setup.of(seed)
    return survives(storm_of(seed, datagrams, only, seconds=setup.seconds), setup)


def survives(rows: npt.NDArray[np.void], setup: Setup, *, alone: bool = False) -> Run:
    """Run a storm and compare the real calls with what they are alone; ``alone``: the storm, with no calls beside it.
    Raises Violation."""
    calls = real_calls(setup.seconds)
    if alone:
        return _run(_batches(rows, NO_CALLS, setup), setup, None)
    run = _run(_batches(rows, calls, setup), setup, calls)
    if not setup.clock:
        _compare(run.real, _undisturbed(setup.variant, setup.listen, setup.seconds))
    return run


def replayed(datagrams: list[Datagram], cuts: list[int] | None = None, setup: Setup | None = None) -> Run:
    """Run datagrams that are known by their bytes, without real calls, in batches that end at ``cuts``."""
    setup = setup or Setup(0)
    ends = [*(range(1, len(datagrams)) if cuts is None else cuts), len(datagrams)]
    begins = [0, *ends[:-1]]
    parts = (wire_of(datagrams[a:b], START_NS) for a, b in zip(begins, ends, strict=True) if b > a)
    return _run(parts, setup, None)


def _batches(rows: npt.NDArray[np.void], calls: RealCalls, setup: Setup) -> Iterator[DatagramBatch]:
    """Storm and calls in order of arrival, cut anywhere."""
    rng = np.random.default_rng([setup.seed, 3])
    # where the storm's clock leaps its datagrams stay among the calls' as they were made
    place = np.r_[np.maximum.accumulate(np.clip(rows["ns"], 0, calls.end_ns)) if setup.clock else rows["ns"], calls.ns]
    number = np.r_[np.arange(len(rows)), -1 - np.arange(len(calls))]
    number = number[np.argsort(place, kind="stable")]
    done = 0
    while done < len(number):
        size = int(rng.choice([1, 2, 7, 30, 100, 400, 1000, 2000], p=[0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1]))
        part = number[done : done + size]
        done += len(part)
        yield _together(rows, calls, part)


def _together(rows: npt.NDArray[np.void], calls: RealCalls, part: npt.NDArray[np.int64]) -> DatagramBatch:
    at, behind = np.flatnonzero(part >= 0), np.flatnonzero(part < 0)
    real = -1 - part[behind]
    parts = [DatagramBatch(
        calls.slab[real],
        calls.length[real],
        START_NS + calls.ns[real],
        np.zeros(len(real), np.uint64),
        np.full(len(real), 0xFFFF_C000_0201, np.uint64),
        calls.port[real],
        np.full(len(real), 9000, np.uint16),
    )]  # fmt: skip
    if at.size:
        parts.append(batch_of_wire(rows[part[at]], START_NS))
    kept = np.zeros(len(part), np.int32)
    for where, one in zip((behind, at), parts, strict=False):
        kept[where] = one.kept()
    width = max(calls.slab.shape[1] + 4, 64, *(one.slab.shape[1] for one in parts))
    first_row: npt.NDArray[np.int64] | None = None
    if all(one.first_row is None for one in parts):
        slab = np.zeros((len(part), width), np.uint8)
        begins = np.arange(len(part)) * width
    else:
        slab, first_row = end_to_end(kept)
        slab[:] = 0
        begins = first_row * SLOT_MINIMUM
    batch = DatagramBatch(
        slab,
        np.zeros(len(part), np.int32),
        np.zeros(len(part), np.int64),
        *(np.zeros(len(part), np.uint64) for _ in range(2)),
        *(np.zeros(len(part), np.uint16) for _ in range(2)),
        first_row=first_row,
    )
    for where, one in zip((behind, at), parts, strict=False):
        copy_spans(
            slab.reshape(-1), begins[where], np.ascontiguousarray(one.slab).reshape(-1), one.begins(), one.kept()
        )
        for name in ("length", "arrival_ns", "source_hi", "source_lo", "source_port", "local_port"):
            getattr(batch, name)[where] = getattr(one, name)
    if (kept < batch.length).any():
        batch.captured = kept
    return batch


class _Quiet:
    """Contained faults are logged with their traceback: here they are violations, and not printed."""

    def __enter__(self) -> None:
        logging.getLogger("strep").setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("strep").setLevel(logging.NOTSET)


def _run(batches: Iterator[DatagramBatch], setup: Setup, calls: RealCalls | None) -> Run:
    with tempfile.TemporaryDirectory() as directory, _Quiet():
        return _Machine(setup, Path(directory), calls).run(batches)


class _Machine:
    def __init__(self, setup: Setup, directory: Path, calls: RealCalls | None) -> None:
        self._setup = setup
        self._calls = calls
        types = PayloadTypes(PAYLOAD_TYPES)
        bindings = {
            9002: PortBinding(PortRole.RX, 9002),
            9004: PortBinding(PortRole.TX, 9002),
            9006: PortBinding(PortRole.BOTH, 9006),
        }
        config = EngineConfig(
            max_streams=MAX_STREAMS,
            idle_ns=1_500_000_000,
            payload_types=types,
            bindings=bindings,
            pending_ns=2_000_000_000 if setup.announced else None,
        )
        release = Release(setup.release_ns, setup.groups, prompt=setup.prompt)
        self._engine = Engine(config, OrderedWork().add, release=release)
        self._listeners = Listeners(setup.variant, directory) if setup.listen else None
        self._now_ns = START_NS
        self._incidents = Incidents(lambda: self._now_ns)
        self._dispatcher = Dispatcher(
            self._listeners.sinks if self._listeners else [], lossless=True, incidents=self._incidents
        )
        self._reports: list[StreamReport] = []
        self._streams: dict[Key, StreamInfo] = {}
        self._rng = np.random.default_rng([setup.seed, 4])
        self._after = self._looked = 0

    def run(self, batches: Iterator[DatagramBatch]) -> Run:
        began = time.perf_counter()
        done = Run()
        try:
            if self._setup.announced:
                self._announce()
            for batch in batches:
                done.datagrams += len(batch)
                self._take(batch)
            self._take(None)
        finally:
            self._dispatcher.close(30.0)
        self._check_sinks()
        done.engine_bytes = array_bytes(self._engine)
        if done.engine_bytes > _LARGEST_ENGINE:
            raise Violation("memory", "engine", f"its arrays hold {done.engine_bytes >> 20} MiB")
        self._check_lengths()
        done.real = self._of_real_calls()
        done.streams = len(self._reports)
        done.seconds = time.perf_counter() - began
        return done

    def _announce(self) -> None:
        legs = list(self._calls.legs) if self._calls else []
        legs += [uuid.UUID(int=HI << 64 | n) for n in range(0, LEGS, 2)]
        for leg in legs:
            self._dispatcher.handle(self._engine.announce(leg))

    def _take(self, batch: DatagramBatch | None) -> None:
        """A batch, or the end."""
        self._after += len(batch) if batch is not None else 0
        engine = self._engine
        try:
            if batch is None:
                events = engine.flush()
            else:
                events = engine.receive(batch)
                self._now_ns = max(self._now_ns, engine.now_ns)
                if self._rng.random() < 0.2:
                    events += engine.advance(int(batch.arrival_ns[-1]))
                batch.slab.fill(0xA5)  # the edge overwrites it
            totals = engine.totals()
        except Exception as error:
            raise Violation("exception", _place(error), _told(error), self._after) from error
        if totals.unaccounted:
            raise Violation("unaccounted", "engine", f"{totals.unaccounted} of {totals.datagrams}", self._after)
        for event in events:
            if isinstance(event, Fault):
                raise Violation("fault", _place(event.error), _told(event.error), self._after) from event.error
            if isinstance(event, Ended):
                self._reports.append(event.report)
            elif isinstance(event, Started):
                self._streams.setdefault(key_of(event.stream), event.stream)
        self._dispatcher.handle(events)
        self._dispatcher.settle()
        if self._after > self._looked + _LOOK_EVERY:
            self._looked = self._after
            self._check_sinks()
        if batch is None and totals.buffered:
            raise Violation("unaccounted", "engine", f"{totals.buffered} still wait at the end", self._after)

    def _check_sinks(self) -> None:
        faults = self._incidents.faults()
        if faults:
            raise Violation("fault", ", ".join(faults), f"{faults} contained", self._after)
        for report in self._dispatcher.reports():
            for name in ("failed", "dropped_frames", "errors"):
                if report.get(name):
                    raise Violation("sink", report["kind"], f"{name}: {report[name]}", self._after)

    def _check_lengths(self) -> None:
        """What never came takes no more time than the run took."""
        longest = SECONDS + _GAP_S
        audible: dict[Path, float] = {}
        if self._setup.clock:
            return
        for report in self._reports:
            if not report.stream.sample_rate:
                continue
            gap_s = report.gap_samples / report.stream.sample_rate
            if gap_s > longest:
                raise Violation("length", "timeline", f"{gap_s:.0f} s of gaps in a stream of {report.stream.stem}")
            audio_s = report.duration_s - gap_s
            for path in self._listeners.stereo(report.stream) if self._listeners else ():
                audible[path] = audible.get(path, 0.0) + audio_s
        for path, seconds in self._listeners.durations().items() if self._listeners else ():
            if seconds > longest + audible.get(path, 0.0):
                raise Violation("length", f"wav {path.parent.parent.name}", f"a file of {seconds:.0f} s")

    def _of_real_calls(self) -> dict[Key, dict[str, Any]]:
        found: dict[Key, dict[str, Any]] = {}
        if self._calls is None:
            return found
        reports = [report for report in self._reports if key_of(report.stream) in self._calls.keys]
        for report in reports:
            key = key_of(report.stream)
            if key in found:
                raise Violation("real", "engine", f"{key} came to an end twice")
            found[key] = {"report": _rounded(report.as_dict())}
            if self._listeners is not None:
                found[key] |= self._listeners.of(report.stream)
                found[key]["figures"] = _rounded(self._dispatcher.figures(report.stream))
        return found


def _compare(real: dict[Key, dict[str, Any]], alone: dict[Key, dict[str, Any]]) -> None:
    for key, wanted in alone.items():
        if key not in real:
            raise Violation("real", "engine", f"{key} never came")
        for name, value in wanted.items():
            if name == "figures" and "level" in value:
                for figures in (value["level"], real[key][name]["level"]):
                    for by_block in ("silent_s", "active_s"):  # blocks may be cut anywhere
                        figures.pop(by_block, None)
            if name == "frames" and _alike(real[key][name], value):
                continue
            if real[key][name] != value:
                raise Violation("real", name, _difference(real[key][name], value))


def _alike(got: list[tuple[int, bytes, bytes]], wanted: list[tuple[int, bytes, bytes]]) -> bool:
    """Frames are resampled together, in a matrix whose sums differ in their last bits with its shape: to within 1."""
    if [(at, real) for at, _, real in got] != [(at, real) for at, _, real in wanted]:
        return False
    one, two = (np.frombuffer(b"".join(f[1] for f in frames), np.int16).astype(int) for frames in (got, wanted))
    return bool((np.abs(one - two) <= 1).all())


def _difference(got: Any, wanted: Any) -> str:
    if isinstance(got, dict) and isinstance(wanted, dict):
        return "; ".join(f"{k}: {got.get(k)} for {v}" for k, v in wanted.items() if got.get(k) != v)[:400]
    if isinstance(got, (list, tuple)) and isinstance(wanted, (list, tuple)) and len(got) == len(wanted):
        other = [(a, b) for a, b in zip(got, wanted, strict=True) if a != b]
        return f"{len(other)} of {len(got)} differ: {str(other[0])[:300]}"
    return f"{str(got)[:200]} for {str(wanted)[:200]}"


def _rounded(value: Any) -> Any:
    """Figures to six digits: sums over other batches differ in the last bits."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _place(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/strep/" in f.filename]
    if not ours:
        return type(error).__name__
    return f"{Path(ours[-1].filename).stem}.{ours[-1].name} {type(error).__name__}"


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def array_bytes(root: object) -> int:
    """Bytes of all numpy arrays that can be reached from an object of ours, each once."""
    seen: set[int] = set()
    total = 0
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        while isinstance(one, np.ndarray) and isinstance(one.base, np.ndarray):
            one = one.base
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            total += one.nbytes
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, (list, tuple, set, deque)):
            waiting += one
        elif type(one).__module__.startswith("strep."):
            waiting += getattr(one, "__dict__", {}).values()
            slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting += [getattr(one, name) for name in slots if hasattr(one, name)]
    return total
