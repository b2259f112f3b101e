"""G.729 Annex B: the comfort noise that a silence descriptor (SID, 2 bytes) asks for.

 0                   1
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|L| LSF 1st |LSF 2nd|  gain   |R|     ITU-T G.729 Annex B table B.2, RFC 3551 4.5.6
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["SID_BYTES", "SidNoise", "sid_gain"]

I16 = npt.NDArray[np.int16]

SID_BYTES: Final = 2
_SMOOTHING: Final = 0.875  # share of the gain that stays from frame to frame, B.4.4
_FRAME_SAMPLES: Final = 80  # 10 ms
# The gain is that of the excitation. What the synthesis filter adds is not computed: it is 2 to 12 dB, measured with
# libbcg729 on four kinds of noise at three levels. A factor of 2 (6 dB) lies in the middle.
_SYNTHESIS_GAIN: Final = 2.0

# tab_Sidgain of the reference code: rms of the excitation in eighths of a unit: -12, -4, 0, 4, 8, 12, 16, 18, 20 ... 66
# dB
_GAIN: Final = (
    2, 5, 8, 13, 20, 32, 50, 64, 80, 101, 127, 160, 201, 253, 318, 401,
    505, 635, 800, 1007, 1268, 1596, 2010, 2530, 3185, 4009, 5048, 6355, 8000, 10_071, 12_679, 15_962,
)  # fmt: skip


def sid_gain(sid: bytes) -> float:
    """Root mean square of the excitation that a SID (2 bytes) asks for, in units of a 16-bit sample."""
    return _GAIN[sid[1] >> 1 & 31] / 8


class SidNoise:
    """White noise of the level that SIDs ask for; the spectrum that they ask for is ignored. Same SIDs, same noise."""

    def __init__(self, seed: int = 11_111) -> None:
        self._rng = np.random.default_rng(seed)
        self._target = self._gain = 0.0

    def begin(self, sid: bytes, fresh: bool) -> None:
        """A SID has come. ``fresh``: it is the first one after speech, so its gain holds at once."""
        self._target = sid_gain(sid)
        if fresh:
            self._gain = self._target

    def make(self, frames: int) -> I16:
        """The next ``frames`` samples of noise, int16 (frames,), 8 kHz."""
        count = -(-frames // _FRAME_SAMPLES)
        gains = self._target + (self._gain - self._target) * _SMOOTHING ** np.arange(count)
        if count:
            self._gain = float(self._target + (self._gain - self._target) * _SMOOTHING**count)
        noise = self._rng.standard_normal(frames) * np.repeat(_SYNTHESIS_GAIN * gains, _FRAME_SAMPLES)[:frames]
        return np.clip(np.rint(noise), -32_768, 32_767).astype(np.int16)
