"""One stream on its way into a WAV file: resampled to the file's rate, into its channel. OSErrors are the disk's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..._model.samples import mono
from ...resample import Resampler
from .drift import DriftCorrector
from .file import WavFile
from .tree import WavTree

if TYPE_CHECKING:
    from ..._model.types import StreamInfo

__all__ = ["WavTrack"]

_RESAMPLED_GAP_S: Final = 2  # behind a longer gap the resampler begins anew

I16 = npt.NDArray[np.int16]


class WavTrack:
    """``offset``     frames from the file's beginning to the stream's
    ``channel``    of the file; None: all channels are the stream's
    ``origin_ns``  UTC nanoseconds at position 0, if the stream is kept on the receiver's clock; None: it is not
    """

    def __init__(
        self,
        tree: WavTree,
        file: WavFile,
        stream: StreamInfo,
        *,
        offset: int = 0,
        channel: int | None = None,
        origin_ns: int | None = None,
    ) -> None:
        self.file = file
        self.stream = stream
        self.offset = offset
        self.channel = channel
        self.drift = None if origin_ns is None else DriftCorrector(stream.sample_rate, origin_ns)
        self._tree = tree
        self._resampler: Resampler | None = None
        if file.format.rate != stream.sample_rate:
            self._resampler = Resampler(stream.sample_rate, file.format.rate, channels=stream.channels)
        self._next_in = 0
        self._next_out = 0

    def write(self, samples: I16, position: int, time_ns: int, arrival_ns: int) -> None:
        """Write a block: int16 samples (interleaved) at a position of the stream in frames, not before the end of the
        block before it."""
        if self.drift is None:
            self._resample(samples, position)
            return
        shaped = samples if self.stream.channels == 1 else samples.reshape(-1, self.stream.channels)
        for at, part in self.drift.process(position, shaped, time_ns, arrival_ns):
            self._resample(part.reshape(-1), at)

    def _resample(self, samples: I16, position: int) -> None:
        if self._resampler is None:
            self._put(samples, position)
            return
        rate_in, rate_out, channels = self.stream.sample_rate, self.file.format.rate, self.stream.channels
        gap = position - self._next_in
        out: list[tuple[int, I16]] = []
        if gap > _RESAMPLED_GAP_S * rate_in:
            out.append((self._next_out, self._resampler.flush()))
            self._resampler.reset()
            self._next_out = -(-position * rate_out // rate_in)
        elif gap > 0:
            out.append(self._resampled(self._resampler, np.zeros(gap * channels, np.int16)))
        self._next_in = position + len(samples) // channels
        out.append(self._resampled(self._resampler, samples))
        # written last: an error here must not move what comes behind it
        for at, part in out:
            self._put(part, at)

    def finish(self) -> None:
        """Write what is still held back."""
        for at, part in self.drift.flush() if self.drift is not None else ():
            self._resample(part.reshape(-1), at)
        if self._resampler is not None:
            self._put(self._resampler.flush(), self._next_out)

    def _resampled(self, resampler: Resampler, samples: I16) -> tuple[int, I16]:
        channels = self.stream.channels
        out = resampler.process(samples if channels == 1 else samples.reshape(-1, channels))
        at = self._next_out
        self._next_out += len(out)
        return at, out

    def _put(self, samples: I16, position: int) -> None:
        if not len(samples):
            return
        if self.channel is None:
            data = np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data
            self._tree.write(self.file, data, position * self.file.format.frame_bytes)
            return
        if self.stream.channels > 1:
            samples = mono(samples.reshape(-1, self.stream.channels))
        self._tree.write_channel(self.file, self.channel, samples, position + self.offset)
