"""Voice detectors for streams that are iterated: energy in the loop's thread, Silero for all streams together."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from .._speech.energy import EnergyVoice, Verdict
from .._speech.silero import ENOUGH, SILERO_RATE, SILERO_SIZE, SURELY, SileroModel
from ..resample import Resampler

__all__ = ["Vad", "Voice", "voice_of"]

Vad = Literal["energy", "silero"]

_MOST_ROWS: Final = 256  # in one run: longer ones would hold up who comes next


class Voice(Protocol):
    """Says of the frames of one stream, one after the other, whether they are speech."""

    frame_ms: int
    start: int  # frames in a row that begin an utterance
    stop: int  # frames without speech until it is told that it stopped

    async def judge(self, samples: npt.NDArray[np.int16], received: float) -> Verdict: ...

    def close(self) -> None: ...


class _Energy:
    frame_ms, start, stop = EnergyVoice.frame_ms, EnergyVoice.start, EnergyVoice.stop

    def __init__(self) -> None:
        self._voice = EnergyVoice()

    async def judge(self, samples: npt.NDArray[np.int16], received: float) -> Verdict:
        return self._voice.judge(samples, received)

    def close(self) -> None:
        pass


class _SileroBatches:
    """One run of the model, in a thread, for all streams whose frames came while the run before was going on."""

    def __init__(self, model: SileroModel) -> None:
        self.model = model
        self._waiting: list[tuple[int, npt.NDArray[np.float32], asyncio.Future[float]]] = []
        self._task: asyncio.Task[None] | None = None

    def probability(self, row: int, samples: npt.NDArray[np.float32]) -> asyncio.Future[float]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        self._waiting.append((row, samples, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        await asyncio.sleep(0)  # who is ready in this round of the loop comes along
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_ROWS], self._waiting[_MOST_ROWS:]
            rows = np.array([row for row, _, _ in batch], np.int64)
            given, state = self.model.inputs(rows, np.stack([samples for _, samples, _ in batch]))
            try:
                found, state = await asyncio.to_thread(self.model.run, given, state)
            except BaseException as error:
                for _, _, future in [*batch, *self._waiting]:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                self._waiting.clear()
                raise
            self.model.keep(rows, given, state)
            for (_, _, future), probability in zip(batch, found.tolist(), strict=True):
                if not future.done():
                    future.set_result(probability)


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, _SileroBatches] = WeakKeyDictionary()


class _Silero:
    frame_ms, start, stop = 1000 * SILERO_SIZE // SILERO_RATE, 2, 2

    def __init__(self, batches: _SileroBatches, rate: int) -> None:
        self._batches = batches
        self._row = batches.model.take_row()
        self._resampler = Resampler(rate, SILERO_RATE, dtype="float32")
        self._samples = np.zeros(0, np.float32)
        self._probability = 0.0

    async def judge(self, samples: npt.NDArray[np.int16], received: float) -> Verdict:
        x = samples.astype(np.float32) / np.float32(32_768)
        level = float(10 * np.log10(max(float(np.dot(x, x)) / len(x), 1e-10)))
        self._samples = np.concatenate([self._samples, self._resampler.process(x)])
        while len(self._samples) >= SILERO_SIZE:  # the resampler looks ahead: a frame may come with the one after it
            frame, self._samples = self._samples[:SILERO_SIZE], self._samples[SILERO_SIZE:]
            self._probability = await self._batches.probability(self._row, frame)
        return Verdict(self._probability > SURELY, self._probability > ENOUGH, level)

    def close(self) -> None:
        self._batches.model.give_back(self._row)


async def voice_of(vad: Vad, rate: int) -> Voice:
    """A detector for one stream at ``rate`` Hz. Raises MissingExtraError."""
    if vad == "energy":
        return _Energy()
    loop = asyncio.get_running_loop()
    if loop not in _batches:
        model = await asyncio.to_thread(SileroModel)
        _batches.setdefault(loop, _SileroBatches(model))
    return _Silero(_batches[loop], rate)
