"""Who speaks now, in all streams at once: a voice detector as a batch, for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from .analysis.columns import rows_of
from .analysis.frame_batch import FrameBatch
from .analysis.segmenter import Segmenter
from .analysis.vad import DETECTORS, levels_of
from .frames import FrameSink

if TYPE_CHECKING:
    from .._model.report import StreamReport
    from .._model.types import StreamInfo

__all__ = ["VoiceBatch", "VoiceSink"]

_SCRATCH_FRAMES: Final = 512  # whose levels are measured at once


@dataclass(frozen=True, slots=True)
class VoiceBatch:
    """What a detector says of one frame of each of ``k`` streams.

    ``frames``  whose they are, where, when, and their samples: a :class:`strep.sinks.FrameBatch`
    ``level``   float32 (k,): dBFS, without the mean
    ``speech``  bool (k,): the frame is a part of what is said, short pauses included
    ``began``   int64: indices of the frames by which it is sure that somebody began to speak
    ``ended``   int64: indices of the frames by which it is sure that nobody speaks any more
    """

    frames: FrameBatch
    level: npt.NDArray[np.float32]
    speech: npt.NDArray[np.bool_]
    began: npt.NDArray[np.int64]
    ended: npt.NDArray[np.int64]


class VoiceSink(FrameSink):
    """Calls ``function(voices)`` with what a detector says of a frame of every stream, as a :class:`VoiceBatch`.

    ``vad``      "energy": frames of 20 ms, an adaptive threshold above the noise, for any number of streams. "silero":
                 a neural network, frames of 32 ms, about 1,000 streams a core; it needs the extra ``vad``
    ``hang_ms``  pauses up to this long belong to what is said

    ``voices.speech`` begins after 60 ms of speech (Silero: 64) and ends ``hang_ms`` after it. What was lost is
    concealed up to 1 s; a longer gap ends what is said. For one stream at a time there is
    :meth:`strep.Stream.utterances`. Threads, failures, ``on_started`` and ``on_ended`` are as in :class:`FrameSink`.

    Raises ConfigurationError if ``vad`` is unknown or ``hang_ms`` negative, MissingExtraError if what it needs is not
    installed.
    """

    kind = "voices"

    def __init__(
        self,
        function: Callable[[VoiceBatch], object],
        vad: Literal["energy", "silero"] = "energy",
        *,
        hang_ms: float = 300,
        on_started: Callable[[StreamInfo], object] | None = None,
        on_ended: Callable[[StreamInfo, StreamReport], object] | None = None,
    ) -> None:
        if vad not in DETECTORS:
            raise ConfigurationError(f"vad {vad!r}: 'energy' or 'silero'")
        if hang_ms < 0:
            raise ConfigurationError(f"hang_ms {hang_ms:g}: choose 0 or more")
        self._tell = function
        self._detector = detector = DETECTORS[vad]()
        frame_ms = 1000 * detector.size / detector.rate
        self._segmenter = Segmenter(detector.start, max(1, round(hang_ms / frame_ms)), detector.size)
        self._rows = 0
        self._scratch = np.zeros(_SCRATCH_FRAMES * detector.size, np.float32)
        dtype: Any = detector.dtype
        super().__init__(
            self._judge, detector.size, rate=detector.rate, dtype=dtype, on_started=on_started, on_ended=on_ended
        )

    def stream_started(self, stream: StreamInfo) -> None:
        self._make_room(stream.index)
        self._detector.reset(stream.index)
        self._segmenter.reset(stream.index)
        super().stream_started(stream)

    def _make_room(self, row: int) -> None:
        if row >= self._rows:
            self._rows = max(2 * self._rows, row + 1)
            self._detector.grow(self._rows)
            self._segmenter.grow(self._rows)

    def _judge(self, frames: FrameBatch) -> None:
        row, segmenter = frames.row, self._segmenter
        self._make_room(int(row.max()))
        rows = rows_of(row)
        (level,) = levels_of([frames], self._scratch)
        surely, enough, wrong = self._detector.judge(frames, rows, level)
        cut = segmenter.gaps(row, rows, frames.position)
        _, began, ended = segmenter.step(row, rows, frames.position, surely, enough)
        if wrong is not None:
            wrong = wrong[segmenter.talking[row[wrong]]]
            segmenter.talking[row[wrong]] = False
        ended = np.union1d(ended, np.concatenate([np.array(cut, np.int64), wrong if wrong is not None else ended[:0]]))
        self._tell(VoiceBatch(frames, level, segmenter.talking[row], began, ended))
