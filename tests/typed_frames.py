"""What type checkers say of frames: mypy reads this file (``[tool.mypy] files``), and the call runs too."""

from __future__ import annotations

from typing import Literal, assert_type

import numpy as np
import numpy.typing as npt

import strep


async def samples_of_each(stream: strep.Stream, dtype: Literal["int16", "float32"]) -> list[strep.Frame]:
    """One frame of each kind, as its type says."""
    found: list[strep.Frame] = []
    async for whole in stream.frames(ms=20):
        assert_type(whole.samples, npt.NDArray[np.int16])
        found.append(whole)
        break
    async for named in stream.frames(dtype="int16", n=160):
        assert_type(named.samples, npt.NDArray[np.int16])
        found.append(named)
        break
    async for real in stream.frames(dtype="float32", n=512, rate=16_000):
        assert_type(real.samples, npt.NDArray[np.float32])
        found.append(real)
        break
    async for any_ in stream.frames(dtype=dtype):
        assert_type(any_.samples, npt.NDArray[np.int16] | npt.NDArray[np.float32])
        found.append(any_)
        break
    return found
