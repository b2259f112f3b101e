"""Samples in the forms that others want: one channel, bytes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["mono", "pcm_bytes"]

_SCALE: Final = np.float32(32_768)


def mono(samples: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """The mean of all channels, int16 (n,), of int16 (n,) or (n, channels)."""
    return samples if samples.ndim == 1 else samples.mean(axis=1).astype(np.int16)


def pcm_bytes(samples: npt.NDArray[Any]) -> bytes:
    """Samples, int16 or float32 in [-1, 1), as 16-bit little-endian bytes, channels interleaved."""
    if samples.dtype != np.int16:
        samples = np.clip(np.rint(samples * _SCALE), -32_768, 32_767)
    return samples.astype("<i2").tobytes()
