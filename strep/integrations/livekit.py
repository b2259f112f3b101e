"""Call legs as tracks in a LiveKit room. Needs the extra ``livekit``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from .._delivery.call_leg import CallLeg
from .._delivery.stream import Stream
from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.extras import install
from .._model.samples import mono, pcm_bytes

try:
    from livekit import rtc
except ImportError as error:
    raise MissingExtraError(f"livekit is not installed: {install('livekit')}") from error

__all__ = ["publish_leg", "publish_stream"]

_FRAME_MS: Final = 20
_QUEUE_MS: Final = 200  # that the track may hold before we wait for it


async def publish_leg(
    room: rtc.Room,
    leg: CallLeg,
    *,
    rate: int = 16_000,
    max_delay_ms: float = 500,
    name: Callable[[Stream], str] | None = None,
) -> None:
    """Publish each direction of a leg as an audio track of its own, from when it comes until it ends; returns when the
    leg has ended, and takes its tracks back when it is cancelled. See :func:`publish_stream`."""
    async with asyncio.TaskGroup() as tasks, aclosing(leg.streams()) as streams:
        async for stream in streams:
            tasks.create_task(publish_stream(room, stream, rate=rate, max_delay_ms=max_delay_ms, name=name))


async def publish_stream(
    room: rtc.Room,
    stream: Stream,
    *,
    rate: int = 16_000,
    max_delay_ms: float = 500,
    name: Callable[[Stream], str] | None = None,
) -> int:
    """Publish a stream as an audio track of the room's own participant until it ends; returns how many samples (at
    ``rate``) were left out because they came too late.

    ``room``          is connected already
    ``name``          of the track; by default "<call leg> a-inbound" or the like
    ``max_delay_ms``  what is older than that is left out: a room is live, so what waited before it was published, or
                      while the room could not take it, is not made up for

    Gaps up to 1 s are concealed; in longer ones the track is silent. Raises ConfigurationError when the rate is not
    8,000 to 48,000 Hz and a multiple of 50.
    """
    if not 8000 <= rate <= 48_000 or rate % 50:
        raise ConfigurationError(f"rate {rate}: choose 8000, 16000, 24000 or 48000")
    left_out = 0
    source = rtc.AudioSource(rate, 1, _QUEUE_MS)
    label = name(stream) if name is not None else f"{stream.name} {stream.info.stem}"
    track = rtc.LocalAudioTrack.create_audio_track(label, source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    participant = room.local_participant
    publication = await participant.publish_track(track, options)
    try:
        frames = stream.frames(ms=_FRAME_MS, rate=rate, conceal=True)
        async for frame in frames:
            left_out += frame.missed
            if time.time_ns() - frame.arrival_ns > max_delay_ms * 1e6:
                left_out += len(frame.samples)
                continue
            audio = pcm_bytes(mono(frame.samples))
            await source.capture_frame(rtc.AudioFrame(audio, rate, 1, len(frame.samples)))
        await source.wait_for_playout()
    finally:
        await participant.unpublish_track(publication.sid)
        await source.aclose()
    return left_out
