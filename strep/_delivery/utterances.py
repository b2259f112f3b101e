"""Speech out of a stream's blocks, for who iterates over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from .._model.blocks import Block
from .._model.exceptions import ConfigurationError
from .._speech.cutter import Heard, UtteranceCutter, UtteranceShape
from ..resample import prepare
from .voices import Vad, Voice, voice_of

__all__ = ["heard_in"]


async def heard_in(blocks: AsyncGenerator[Block], shape: UtteranceShape, vad: Vad) -> AsyncIterator[Heard]:
    """What is said in a stream: see :meth:`strep.Stream.speech`."""
    if vad not in ("energy", "silero"):
        raise ConfigurationError(f"vad {vad!r}: 'energy' or 'silero'")
    cutter: UtteranceCutter | None = None
    voice: Voice | None = None
    first = asyncio.ensure_future(_next(blocks))  # from now on audio is kept for us, whatever the imports take
    try:
        if shape.rate is not None or vad == "silero":  # otherwise nothing is resampled
            await asyncio.to_thread(prepare)
        block = await first
        while block is not None:
            if cutter is None or voice is None:
                rate = block.stream.sample_rate
                voice = await voice_of(vad, rate)
                cutter = UtteranceCutter(
                    shape,
                    rate_in=rate,
                    channels=block.stream.channels,
                    frame=rate * voice.frame_ms // 1000,
                    start=voice.start,
                    stop=voice.stop,
                )
            for samples, received in cutter.frames(block):
                for heard in cutter.step(await voice.judge(samples, received)):
                    yield heard
            block = await _next(blocks)
        if cutter is not None:
            for heard in cutter.finish():
                yield heard
    finally:
        if voice is not None:
            voice.close()
        if not first.done():
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await blocks.aclose()


async def _next(blocks: AsyncGenerator[Block]) -> Block | None:
    return await anext(blocks, None)
