"""What is told of speech in a stream: that it began, that it stopped, and the whole of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np
import numpy.typing as npt

from .._model.samples import pcm_bytes

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # checkers know it; in typing it has no default before Python 3.13
else:
    from typing import TypeVar

__all__ = ["Ending", "SpeechStarted", "SpeechStopped", "Utterance"]

I16 = npt.NDArray[np.int16]
F32 = npt.NDArray[np.float32]

if TYPE_CHECKING:
    S = TypeVar("S", I16, F32, I16 | F32, default=I16 | F32, covariant=True)
else:
    S = TypeVar("S")


class Ending(enum.Enum):
    """Why an utterance ended."""

    PAUSE = "pause"  # hang_ms without speech
    LIMIT = "limit"  # it was max_s long: if more was said, that is another utterance, without a sample between
    STREAM = "stream"  # the stream ended


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak, or went on after a short pause (``resumed``).

    ``position`` of the first sample of it on the stream's timeline, in samples at the stream's own rate; ``time_ns``
    when that was, UTC nanoseconds on the receiver's clock.
    """

    position: int
    time_ns: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Nobody speaks any more, perhaps for a moment only: ``position`` and ``time_ns`` of the end of what was said."""

    position: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Utterance(Generic[S]):
    """What was said in one go.

    ``samples``   int16, or float32 in [-1, 1): shape (n,), for more than one channel (n, channels)
    ``rate``      of the samples, Hz
    ``position``  of the first sample, in samples at ``rate`` from the stream's beginning
    ``begin_ns``  when the first sample was, and ``end_ns`` when the last one ended: UTC nanoseconds on the receiver's
                  clock
    ``speech``    which of the samples are speech, (first, behind the last): the rest is the lead before and after it
    ``lost``      samples of it that never came: they are zeros
    ``silence``   samples of it that the sender suppressed (DTX)
    ``concealed``  samples of it that were made up (``conceal=True``)
    ``missed``    of ``lost``, and of what was left out before this utterance: samples that were there, and were thrown
                  away because the consumer was slow
    ``mask``      uint8 (n,), a :class:`strep.Mask` for each sample; None: all RECEIVED
    ``ending``    why it ended
    ``continued``  it begins where the one before was cut by ``max_s``
    """

    samples: S
    rate: int
    position: int
    begin_ns: int
    end_ns: int
    speech: tuple[int, int]
    lost: int
    silence: int
    concealed: int
    missed: int
    mask: npt.NDArray[np.uint8] | None
    ending: Ending
    continued: bool = False

    @property
    def duration_s(self) -> float:
        """Of all samples, seconds."""
        return len(self.samples) / self.rate

    @property
    def pcm(self) -> bytes:
        """The samples as 16-bit little-endian bytes (channels interleaved)."""
        return pcm_bytes(self.samples)
