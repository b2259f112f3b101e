"""G.729 Annex B: the comfort noise that a silence descriptor (SID) of 2 bytes asks for.

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
_SMOOTHING: Final = 0.875  # of the gain from frame to frame, B.4.4
_FRAME: Final = 80
# The gain is that of the excitation. What the synthesis filter adds is not computed: 2 to 12 dB, measured on four kinds
# of noise at three levels with libbcg729; this is the middle.
_SYNTHESIS: Final = 2.0

# tab_Sidgain of the reference code: rms of the excitation in units of 1/8: -12, -4, 0, 4, 8, 12, 16, 18, 20 ... 66 dB
_GAIN: Final = (
    2, 5, 8, 13, 20, 32, 50, 64, 80, 101, 127, 160, 201, 253, 318, 401,
    505, 635, 800, 1007, 1268, 1596, 2010, 2530, 3185, 4009, 5048, 6355, 8000, 10_071, 12_679, 15_962,
)  # fmt: skip


def sid_gain(sid: bytes) -> float:
    """Root mean square of the excitation that a SID tells, in units of a 16-bit sample. ``sid``: 2 bytes."""
    return _GAIN[sid[1] >> 1 & 31] / 8


class SidNoise:
    """Noise of the level that SIDs tell. It is white: their spectrum is not looked at. Same SIDs, same noise."""

    def __init__(self, seed: int = 11_111) -> None:
        self._rng = np.random.default_rng(seed)
        self._target = self._gain = 0.0

    def begin(self, sid: bytes, fresh: bool) -> None:
        """A SID has come; ``fresh``: the first one after speech, whose gain holds at once."""
        self._target = sid_gain(sid)
        if fresh:
            self._gain = self._target

    def make(self, frames: int) -> I16:
        """The next ``frames`` samples of noise."""
        count = -(-frames // _FRAME)
        gains = self._target + (self._gain - self._target) * _SMOOTHING ** np.arange(count)
        if count:
            self._gain = float(self._target + (self._gain - self._target) * _SMOOTHING**count)
        noise = self._rng.standard_normal(frames) * np.repeat(_SYNTHESIS * gains, _FRAME)[:frames]
        return np.clip(np.rint(noise), -32_768, 32_767).astype(np.int16)
