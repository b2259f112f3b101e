"""Who speaks when, in all streams at once; and what becomes of it in each call leg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import ConfigurationError
from ..._model.time import SECOND_NS
from .analyzer import Analyzer
from .bank import FrameBank
from .columns import rows_of
from .dialogue_monitor import DialogueMonitor
from .frame_batch import FrameBatch
from .segmenter import Segmenter
from .talk import Rules
from .vad import DETECTORS, levels_of

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamEvent, StreamInfo
    from .vad import Judgement

__all__ = ["SpeechMeter"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

_FRAMES_IN_CACHE: Final = 512  # frames whose levels are measured at once


class SpeechMeter(Analyzer):
    """Finds speech, turns, pauses and interruptions; and dead air and one-way audio while they last.

    ``vad``         "energy": an adaptive threshold above the noise, for any number of streams. "silero": a neural
                    network, about 1,000 streams a core; it needs the extra ``vad``
    ``pause_s``     segments of one side belong to one turn if the pause between them is shorter, seconds
    ``yield_s``     within so many seconds the other side must fall silent for an interruption
    ``dead_air_s``  silence of both sides from so many seconds on is dead air
    ``one_way_s``   so many seconds without the other side are one-way audio; None: do not look for it

    Speech counts from -57 dBFS on, in frames of 20 ms (Silero: 32 ms). Pauses up to 0.3 s belong to a segment. The
    exact meaning of turn, interruption, response delay and dead air stands in :mod:`strep.sinks.analysis.talk`. Times
    of both directions are on the receiver's clock (``BlockBatch.time_ns``), from the leg's first audio on.

    Events, with their ``data``:

    ``speech_started``  a segment began, told as soon as that is sure (energy: after 60 ms). No data. What turns out to
                  be noise that came up has no ``speech`` that follows
    ``speech``    a segment ended; ``duration_s`` is its length. No data
    ``turn``      a turn ended; ``duration_s`` is its length. No data
    ``dead_air``  told twice: when the silence has lasted ``dead_air_s`` (``ongoing`` True, duration 0), and when it
                  ended (``ongoing`` False, its whole length)
    ``one_way``   told twice likewise, of the direction that is heard. ``cause`` "missing": no packets of the other
                  direction came. "mute": it never spoke, and nothing in it was above -60 dBFS. In that time this
                  direction spoke for 1 s at least. Both are told even if no packet of the other direction ever comes

    :meth:`arrays` gives all live streams as columns, :meth:`snapshot` the figures of one. In ``summary.json`` they
    stand under ``"speech"``. Thread-safe. Raises ConfigurationError if a time is not positive or ``vad`` is unknown,
    MissingExtraError if what ``vad`` needs is not installed.
    """

    kind = "speech"
    event_kinds = ("speech_started", "speech", "turn", "dead_air", "one_way")

    def __init__(
        self,
        vad: Literal["energy", "silero"] = "energy",
        on_event: Callable[[StreamEvent], object] | None = None,
        *,
        pause_s: float = 1.0,
        yield_s: float = 2.0,
        dead_air_s: float = 3.0,
        one_way_s: float | None = 5.0,
    ) -> None:
        super().__init__(on_event)
        if vad not in DETECTORS:
            raise ConfigurationError(f"vad {vad!r}: 'energy' or 'silero'")
        if min(pause_s, yield_s, dead_air_s, one_way_s or 1.0) <= 0:
            raise ConfigurationError("pause_s, yield_s, dead_air_s and one_way_s: more than 0 (one_way_s may be None)")
        self._vad = vad
        self._detector = detector = DETECTORS[vad]()
        self._bank = FrameBank(detector.size, rate=detector.rate, dtype=detector.dtype, aside=self.aside)
        self._frame_ns = detector.size * SECOND_NS // detector.rate
        self._scratch = np.zeros(_FRAMES_IN_CACHE * detector.size, np.float32)
        self._segmenter = Segmenter(detector.start, detector.hangover, detector.size)
        rules = Rules(pause_s, yield_s, dead_air_s)
        self._monitor = DialogueMonitor(rules, one_way_s, self._frame_ns, self._for, sure_frames=detector.start)
        self._detector.grow(self._monitor.rows)
        self._segmenter.grow(self._monitor.rows)

    def _make_room(self, row: int) -> None:
        if self._monitor.make_room(row):
            self._detector.grow(self._monitor.rows)
            self._segmenter.grow(self._monitor.rows)

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._start(stream)

    def _start(self, stream: StreamInfo) -> None:
        row = stream.index
        self._make_room(row)
        self._bank.reset(row)
        self._detector.reset(row)
        self._segmenter.reset(row)
        self._monitor.start(stream)

    def _take(self, batch: BlockBatch) -> None:
        with self._lock:
            if len(batch):
                self._make_room(int(batch.index.max()))
            self._hear_all(self._bank.push(batch))
            if len(batch):
                row = batch.index
                self._monitor.watch(row[np.r_[True, row[1:] != row[:-1]]], self._segmenter.talking)
        self._tell_all(self._monitor.take_events())

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        row = stream.index
        with self._lock:
            party = self._monitor.party_of(stream)
            if party is not None:
                self._hear_all(self._bank.flush(row))
                self._segmenter.talking[row] = False
                self._close(row, int(self._monitor.hearing.talk_ns[row]))
                self._monitor.finish(party)
        self._tell_all(self._monitor.take_events())

    def _abandon(self, stream: StreamInfo) -> None:
        with self._lock:
            self._bank.reset(stream.index)
            party = self._monitor.party_of(stream)
            if party is not None:
                self._segmenter.talking[stream.index] = False
                self._monitor.drop(party)

    # --- frames and segments ----------------------------------------------------------------------------------------

    def _hear_all(self, batches: list[FrameBatch]) -> None:
        levels: Sequence[F32 | None]
        try:
            levels = levels_of(batches, self._scratch)
        except Exception:  # then each batch by itself
            levels = [None] * len(batches)
        for whole, level in zip(batches, levels, strict=True):
            judged = self.aside.frames(whole, partial(self._judge, whole, level))
            for frames, its_level, judgement in judged:
                self._hear(frames, its_level, judgement)

    def _judge(self, whole: FrameBatch, level: F32 | None, frames: FrameBatch) -> tuple[FrameBatch, F32, Judgement]:
        """What the detector says of frames. ``level``: that of ``whole``, which they may be a part of."""
        if level is None or frames is not whole:
            (level,) = levels_of([frames], self._scratch)
        return frames, level, self._detector.judge(frames, rows_of(frames.row), level)

    def _hear(self, frames: FrameBatch, level: F32, judgement: Judgement) -> None:
        row, position = frames.row, frames.position
        rows = rows_of(row)
        end_ns = frames.time_ns + self._frame_ns
        monitor = self._monitor
        for i in self._segmenter.gaps(row, rows, position):
            # what came before the gap: the clock may have been corrected in it, so its end is told by the last frame
            self._for(frames.stream(i), self._close, int(row[i]), int(monitor.hearing.talk_ns[row[i]]))
        surely, enough, wrong = judgement
        active, began, ended = self._segmenter.step(row, rows, position, surely, enough)
        for i in monitor.mark(rows, end_ns).tolist():
            stream = frames.stream(i)
            self._for(stream, self._begin, stream, int(frames.time_ns[i]))
        monitor.hear(rows, end_ns, level, active)
        for i in began.tolist():
            begin_ns = int(end_ns[i]) - self._detector.start * self._frame_ns
            begin = int(self._segmenter.begin[row[i]])
            self._for(
                frames.stream(i), monitor.open, int(row[i]), begin_ns, self._detector.start - 1, begin,
                self._detector.rate,
            )  # fmt: skip
        for i in ended.tolist():
            last_ns = int(end_ns[i]) - self._detector.hangover * self._frame_ns
            self._for(frames.stream(i), self._close, int(row[i]), last_ns)
        if wrong is not None:
            for i in wrong.tolist():
                self._for(frames.stream(i), self._withdraw, int(row[i]))

    def _begin(self, stream: StreamInfo, time_ns: int) -> None:
        """A stream's first frame."""
        if not self._monitor.has_party(stream.index):  # blocks of a stream that nobody announced
            self._start(stream)
        self._monitor.begin(stream, time_ns)

    def _close(self, row: int, end_ns: int) -> None:
        """The present segment of a row ended."""
        self._monitor.close(row, end_ns, int(self._segmenter.begin[row]), self._detector.rate)

    def _withdraw(self, row: int) -> None:
        """The present segment of a row was a mistake."""
        if self._monitor.withdraw(row):
            self._segmenter.talking[row] = False

    # --- figures ----------------------------------------------------------------------------------------------------

    def snapshot(self, stream: StreamInfo) -> dict[str, Any] | None:
        """A stream's figures so far, as :meth:`figures` has them at the end; None of a stream that is not known."""
        with self._lock:
            return self._monitor.figures(stream)

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        found = self.snapshot(stream)
        return {} if found is None else {"speech": {"vad": self._vad, **found}}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All live streams as columns (n,).

        ``serial`` int64 · ``talking`` bool · ``talk_s`` float64 · ``segments`` int64, how many have ended ·
        ``silence_now_s`` float64, since speech ended · ``noise_dbfs`` float32, the noise floor (NaN: not known) ·
        ``dead_air``, ``one_way`` bool, whether they go on
        """
        with self._lock:
            rows, columns = self._monitor.arrays()
            columns["talking"] = self._segmenter.talking[rows]
            columns["noise_dbfs"] = self._detector.noise(rows)
        return {name: columns[name] for name in _ARRAYS}


_ARRAYS: Final = ("serial", "talking", "talk_s", "segments", "silence_now_s", "noise_dbfs", "dead_air", "one_way")
