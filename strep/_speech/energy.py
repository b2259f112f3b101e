"""Voice activity of one stream by its energy: the scalar twin of :class:`strep.sinks.analysis.vad.EnergyDetector`.

One stream's frame costs a few microseconds here, many streams' frames a fraction of one there. Both say the same, by
the same thresholds.
"""

from __future__ import annotations

from math import inf, log10
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "ENOUGH_BELOW_DB", "FULL_SCALE_DB", "NOISE_MIN_DBFS", "NOISE_PRIOR_DBFS", "PARTS", "PART_FRAMES", "PEAK_DECAY_DB",
    "PEAK_START_DBFS", "SPEECH_MIN_DBFS", "EnergyVoice", "Verdict",
]  # fmt: skip

FRAME_MS: Final = 20
PART_FRAMES: Final = 25  # frames in each part of the noise floor's window
PARTS: Final = 10  # of that window: 5 s
NOISE_PRIOR_DBFS: Final = -45.0  # in the first part the noise is believed to be at most this loud
SPEECH_MIN_DBFS: Final = -57.0  # nothing quieter is speech
NOISE_MIN_DBFS: Final = -75.0  # nothing quieter is noise of a line: it is digital silence
ENOUGH_BELOW_DB: Final = 3.0  # so much below the least level of speech it still goes on
FULL_SCALE_DB: Final = 20 * log10(32_768)
PEAK_START_DBFS: Final = -90.0
PEAK_DECAY_DB: Final = 0.02  # a frame: 1 dB a second


class Verdict(NamedTuple):
    """Of one frame.

    ``surely``    it is speech, and may begin an utterance
    ``enough``    it may go on with one
    ``level``     dBFS
    ``mistaken``  what was taken for speech until now was noise that came up
    """

    surely: bool
    enough: bool
    level: float
    mistaken: bool = False


class EnergyVoice:
    """Says of frames of 20 ms whether they are speech: an adaptive threshold above the noise."""

    frame_ms = FRAME_MS
    start = 3  # frames in a row that begin an utterance
    stop = 3  # frames without speech until it is told that it stopped

    def __init__(self) -> None:
        self._count = 0  # frames that taught something
        self._smooth = 0.0
        self._lowest = inf  # of the present part
        self._before = inf  # of the parts before
        self._parts = [inf] * PARTS
        self._peak = PEAK_START_DBFS

    def judge(self, samples: npt.NDArray[np.int16], received: float) -> Verdict:
        """``samples``: of one channel, (n,). ``received``: the share of them that was."""
        x = samples.astype(np.float32)
        size = len(x)
        mean = float(x.sum()) / size
        level = 10 * log10(max(float(np.dot(x, x)) / size - mean * mean, 1.0)) - FULL_SCALE_DB
        good = level > NOISE_MIN_DBFS and received >= 0.5
        if good:
            self._smooth = level if not self._count else self._smooth + 0.4 * (level - self._smooth)
            self._lowest = min(self._lowest, self._smooth)
            self._count += 1
        floor = min(self._lowest, self._before)
        if self._count < PART_FRAMES:
            floor = min(floor, NOISE_PRIOR_DBFS)
        self._peak = max(self._peak - PEAK_DECAY_DB, level)
        margin = min(max(0.3 * (self._peak - floor), 4.5), 12.0)
        surely = level > max(floor + margin, SPEECH_MIN_DBFS)
        enough = level > max(floor + 0.6 * margin, SPEECH_MIN_DBFS - ENOUGH_BELOW_DB)
        return Verdict(surely, enough, level, self._end_part() if good else False)

    def _end_part(self) -> bool:
        part, frame = divmod(self._count, PART_FRAMES)
        if frame:
            return False
        lowest = self._lowest
        self._parts[part % PARTS] = lowest
        self._before = min(self._parts)
        self._lowest = self._smooth
        # a line that was noisy from the beginning was taken for speech, because nothing was known of it
        return part == 1 and self._peak - lowest < 6
