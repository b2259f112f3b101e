"""A stream as the input of a pipecat pipeline. Needs the extra ``pipecat``.

A fork hears and cannot speak back: there is no output transport here. What the pipeline answers goes to the call by
commands (``strep.control``: ``speak``, ``playback_start``), or by a media stream of another kind.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from .._delivery.stream import Stream
from .._delivery.voices import Vad
from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.extras import install
from .._model.samples import mono, pcm_bytes
from .._speech.utterance import SpeechStarted, SpeechStopped
from ..resample import prepare

try:
    from pipecat.audio.dtmf.types import KeypadEntry
    from pipecat.frames.frames import (
        CancelFrame,
        ClientConnectedFrame,
        EndFrame,
        EndWorkerFrame,
        InputAudioRawFrame,
        InputDTMFFrame,
        StartFrame,
        VADUserStartedSpeakingFrame,
        VADUserStoppedSpeakingFrame,
    )
    from pipecat.transports.base_input import BaseInputTransport
    from pipecat.transports.base_transport import TransportParams
except ImportError as error:
    raise MissingExtraError(f"pipecat 1.14 or later is not installed: {install('pipecat')}") from error

__all__ = ["StrepInputTransport"]

_FRAME_MS: Final = 20
_KEYS: Final = {entry.value: entry for entry in KeypadEntry}


class StrepInputTransport(BaseInputTransport):
    """The first processor of a pipeline: pushes what one :class:`strep.Stream` hears.

    ::

        worker = PipelineWorker(Pipeline([StrepInputTransport(stream), stt, ...]))

    - audio: ``InputAudioRawFrame`` of 20 ms at the pipeline's input rate (or ``params.audio_in_sample_rate``), one
      channel. Gaps up to 1 s are concealed; longer ones are left out. What a slow pipeline has not taken after
      ``queue_s`` seconds is thrown away and counted in :attr:`missed` (samples at that rate)
    - keys that are pressed: ``InputDTMFFrame``. A to D, which pipecat does not know, are left out. This takes the
      stream's ``events()``, which are for one consumer
    - speech, found by ``vad`` ("energy" or "silero"; None: not looked for): ``VADUserStartedSpeakingFrame`` and
      ``VADUserStoppedSpeakingFrame`` both ways, as pipecat's own detectors do, from when the pipeline starts. With
      ``interruptions`` the pipeline is interrupted as well when somebody begins to speak; switch it off where a user
      aggregator decides about that
    - the end: when the stream has ended and all of it was pushed, ``EndWorkerFrame``, so that the pipeline finishes
      what it has and ends

    A fork hears and cannot speak back. Raises ConfigurationError if ``vad`` is unknown or ``params`` do not fit.
    """

    def __init__(
        self,
        stream: Stream,
        params: TransportParams | None = None,
        *,
        vad: Vad | None = "energy",
        interruptions: bool = True,
        queue_s: float = 5.0,
        **options: Any,
    ) -> None:
        params = params or TransportParams(audio_in_enabled=True)
        if not params.audio_in_enabled:
            raise ConfigurationError("params without audio_in_enabled: a stream has nothing but audio to push")
        if params.audio_in_channels != 1:
            raise ConfigurationError(f"params with {params.audio_in_channels} channels: a stream is pushed as one")
        if vad not in (None, "energy", "silero"):
            raise ConfigurationError(f"vad {vad!r}: 'energy', 'silero' or None")
        super().__init__(params, **options)
        self.stream = stream
        """What is heard."""
        self.missed = 0
        """Samples that were thrown away because the pipeline was slow."""
        self._vad = vad
        self._interruptions = interruptions
        self._queue_s = queue_s
        self._begun = asyncio.Event()
        self._hearing: list[asyncio.Task[None]] = []

    async def start(self, frame: StartFrame) -> None:
        """Begin to push: by the pipeline."""
        await super().start(frame)
        await self.set_transport_ready(frame)
        if self._hearing:
            return
        await asyncio.to_thread(prepare)
        await self.push_frame(ClientConnectedFrame())
        self._hearing = [self.create_task(self._audio(), "audio"), self.create_task(self._keys(), "keys")]
        if self._vad is not None:
            self._hearing.append(self.create_task(self._speech(self._vad), "speech"))

    async def stop(self, frame: EndFrame) -> None:
        """The pipeline ends."""
        await self._stop_hearing()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """The pipeline is cancelled."""
        await self._stop_hearing()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """The pipeline is gone."""
        await self._stop_hearing()
        await super().cleanup()

    async def _stop_hearing(self) -> None:
        tasks, self._hearing = self._hearing, []
        for task in tasks:
            await self.cancel_task(task)

    async def _audio(self) -> None:
        frames = self.stream.frames(ms=_FRAME_MS, rate=self.sample_rate, queue_s=self._queue_s, conceal=True)
        async for frame in frames:
            self._begun.set()
            self.missed += frame.missed
            audio = pcm_bytes(mono(frame.samples))
            await self.push_audio_frame(InputAudioRawFrame(audio=audio, sample_rate=self.sample_rate, num_channels=1))
        await self._audio_in_queue.join()
        await self.push_frame(EndWorkerFrame(reason=f"the stream ended: {self.stream.report().end}"))

    async def _keys(self) -> None:
        async for event in self.stream.events():
            key = _KEYS.get(str(event.data.get("digit"))) if event.kind == "dtmf" else None
            if key is not None:
                await self.push_frame(InputDTMFFrame(button=key))

    async def _speech(self, vad: Vad) -> None:
        await self._begun.wait()  # what waited for the pipeline interrupts nothing any more
        async for heard in self.stream.speech(vad=vad, queue_s=self._queue_s):
            if isinstance(heard, SpeechStarted):
                await self.broadcast_frame(VADUserStartedSpeakingFrame, timestamp=heard.time_ns / 1e9)
                if self._interruptions and not heard.resumed:
                    await self.broadcast_interruption()
            elif isinstance(heard, SpeechStopped):
                await self.broadcast_frame(VADUserStoppedSpeakingFrame, timestamp=heard.time_ns / 1e9)
