"""Audio kept in memory as numpy arrays: the last seconds of each stream, or all of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from .._model.types import GapCause, Mask
from .isolating import IsolatingSink
from .muter import key_muter

if TYPE_CHECKING:
    from .._model.blocks import Block, BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["ArraySink", "ArrayView"]

I16 = npt.NDArray[np.int16]
U8 = npt.NDArray[np.uint8]

_MAX_ENDED_STREAMS: Final = 10_000  # whose audio is kept
_FIRST_FRAMES: Final = 8192  # room that a growing buffer begins with


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A copy of what is kept of a stream: ``n`` sample frames.

    ``samples``   int16, or float32 in [-1, 1): shape (n,), or (n, channels)
    ``received``  bool (n,): True where a frame was received, False in gaps (there samples are 0, unless concealed)
    ``marks``     uint8 (n,): a :class:`strep.Mask` for each frame: received, concealed, lost, silence. The same codes
                  as in ``Block.mask`` and ``Frame.mask``
    ``position``  of the first frame on the stream's timeline, in frames
    ``rate``      frames a second
    ``mask``      an older name of ``received``, kept until version 1.0. Elsewhere ``mask`` holds codes, not bools
    """

    samples: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    position: int
    rate: int
    marks: npt.NDArray[np.uint8]

    @property
    def received(self) -> npt.NDArray[np.bool_]:
        """bool (n,): True where a frame was received."""
        return self.mask


class _StreamBuffer:
    """The last ``size`` frames of a stream, as a ring; ``growing``: all of them."""

    def __init__(self, size: int, channels: int, growing: bool) -> None:
        self.growing = growing
        capacity = min(size, _FIRST_FRAMES) if growing else size
        self.samples = np.zeros((capacity, channels), np.int16)
        self.marks = np.full(capacity, Mask.LOST, np.uint8)
        self.end = 0  # position after the last frame
        self.ended = False

    @property
    def nbytes(self) -> int:
        return self.samples.nbytes + self.marks.nbytes

    def grow(self, needed: int) -> None:
        capacity = max(needed, 2 * len(self.samples))
        samples = np.zeros((capacity, self.samples.shape[1]), np.int16)
        marks = np.full(capacity, Mask.LOST, np.uint8)
        samples[: self.end], marks[: self.end] = self.samples[: self.end], self.marks[: self.end]
        self.samples, self.marks = samples, marks

    def put(self, samples: I16, marks: U8, position: int, missing: Mask) -> None:
        """``missing``: what stands between what was put before and ``position``."""
        capacity = len(self.samples)
        # silence before it, as much as there is room for
        self._write(None, missing, max(self.end, position - capacity), position)
        keep = min(len(samples), capacity)
        end = position + len(samples)
        self._write(samples[len(samples) - keep :], marks[len(samples) - keep :], end - keep, end)
        self.end = end

    def _write(self, samples: I16 | None, marks: U8 | Mask, begin: int, end: int) -> None:
        capacity = len(self.samples)
        while begin < end:
            at = begin % capacity
            count = min(end - begin, capacity - at)
            self.samples[at : at + count] = 0 if samples is None else samples[:count]
            self.marks[at : at + count] = marks if isinstance(marks, Mask) else marks[:count]
            samples = None if samples is None else samples[count:]
            marks = marks if isinstance(marks, Mask) else marks[count:]
            begin += count

    def view(self) -> tuple[I16, U8, int]:
        begin = max(0, self.end - len(self.samples))
        index = np.arange(begin, self.end) % len(self.samples)
        return self.samples[index], self.marks[index], begin


class ArraySink(IsolatingSink):
    """Keeps the last seconds of each stream in memory, or everything.

    ``seconds``    how much is kept of each stream; None: everything, as long as all streams together are below
                   ``max_bytes``; frames beyond that are counted as dropped
    ``dtype``      "int16", or "float32": samples are then in [-1, 1)
    ``mute_keys``  silence instead of DTMF digits; arrays then end 0.1 s earlier, until their streams have ended
    ``conceal``    short gaps are filled so that they are not heard, from a thread of this sink's own; False: they are 0

    Blocks come in the event loop's thread, where they are only copied; with ``conceal`` in a thread of this sink's own.
    Arrays of ended streams stay until :meth:`forget`, those of the 10,000 that ended last. Thread-safe. Raises
    ConfigurationError for wrong arguments.
    """

    kind = "array"
    inline = True  # copies only

    def __init__(
        self,
        seconds: float | None = None,
        dtype: Literal["int16", "float32"] = "int16",
        max_bytes: int = 1 << 30,
        *,
        mute_keys: bool = False,
        conceal: bool = False,
    ) -> None:
        if seconds is not None and seconds <= 0:
            raise ConfigurationError(f"seconds {seconds}: more than 0, or None for everything")
        if dtype not in ("int16", "float32"):
            raise ConfigurationError(f"dtype {dtype!r}: 'int16' or 'float32'")
        super().__init__()
        if conceal:
            self.concealment = True
            self.inline = False
        self._seconds = seconds
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._muter = key_muter() if mute_keys else None
        self._bytes = 0
        self._kept: dict[int, _StreamBuffer] = {}  # by serial
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()
        self.dropped_frames = 0

    def report_to(self, incidents: Incidents) -> None:
        super().report_to(incidents)
        if self._muter is not None:
            self._muter.aside.incidents = incidents

    def _take(self, batch: BlockBatch) -> None:
        with self._lock:
            self._put_all(batch if self._muter is None else self._muter.process(batch))

    def _put_all(self, batch: BlockBatch | None) -> None:
        for block in batch or ():
            if not (self.aside.fresh and block.stream in self.aside):
                self._for(block.stream, self._put, block)

    def _put(self, block: Block) -> None:
        stream, samples, position = block.stream, block.samples, block.position
        kept = self._kept.get(stream.serial)
        growing = self._seconds is None
        if kept is None:
            size = 1 << 62 if self._seconds is None else max(1, round(self._seconds * stream.sample_rate))
            kept = _StreamBuffer(size, stream.channels, growing)
            self._kept[stream.serial] = kept
            self._bytes += kept.nbytes
        needed = position + len(samples)
        if growing and needed > len(kept.samples):
            more = max(needed, 2 * len(kept.samples)) * (2 * stream.channels + 1) - kept.nbytes
            if self._bytes + more > self._max_bytes:
                self.dropped_frames += len(samples)
                return
            kept.grow(needed)
            self._bytes += more
        silent = block.gap is not None and block.gap.cause in (GapCause.SILENCE, GapCause.HOLD)
        missing = Mask.SILENCE if silent else Mask.LOST
        kept.put(samples.reshape(-1, stream.channels), block.mask, position, missing)

    def _abandon(self, stream: StreamInfo) -> None:
        """What is kept of the stream stays as it is."""

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        """What is kept of streams that were set aside is kept for as long as that of others."""
        super().stream_ended(stream, report)
        with self._lock:
            if stream.serial in self._kept:
                self._ended[stream.serial] = None
            while len(self._ended) > _MAX_ENDED_STREAMS:
                self._forget(next(iter(self._ended)))

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            if self._muter is not None:
                self._put_all(self._muter.end(stream))

    def forget(self, stream: StreamInfo) -> None:
        """Free the memory that a stream takes."""
        with self._lock:
            self._forget(stream.serial)

    def _forget(self, serial: int) -> None:
        self._ended.pop(serial, None)
        kept = self._kept.pop(serial, None)
        if kept is not None:
            self._bytes -= kept.nbytes

    def get(self, stream: StreamInfo) -> ArrayView:
        """What is kept of a stream now, as a copy; empty arrays if the stream has had no audio so far."""
        with self._lock:
            kept = self._kept.get(stream.serial)
            if kept is None:
                samples, marks, position = np.zeros((0, stream.channels), np.int16), np.zeros(0, np.uint8), 0
            else:
                samples, marks, position = kept.view()
        shaped = samples[:, 0] if stream.channels == 1 else samples
        mask, rate = marks == Mask.RECEIVED, stream.sample_rate
        if self._dtype == "float32":
            return ArrayView(shaped.astype(np.float32) / np.float32(32768), mask, position, rate, marks)
        return ArrayView(shaped, mask, position, rate, marks)

    def report(self) -> dict[str, Any]:
        muted = 0 if self._muter is None else self._muter.aside.dropped_frames
        return {
            **super().report(),
            "dropped_frames": self.dropped_frames + self.aside.dropped_frames + muted,
            "bytes": self._bytes,
            "streams": len(self._kept),
        }
