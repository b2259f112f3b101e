"""A leg as tracks of the real package.

A room needs a server, which is in no package registry: the room here only notes what is published. Sources, tracks and
frames are LiveKit's, and what its sources took is compared sample by sample.
"""

from __future__ import annotations

import asyncio
import socket
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live import listening
from support import LEG, packet, payload_of, pcmu

import strep

rtc = pytest.importorskip("livekit.rtc", reason="livekit is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.realtime]

from strep.integrations.livekit import publish_leg, publish_stream  # noqa: E402


class Room:
    """Notes what is published."""

    def __init__(self) -> None:
        self.local_participant = self
        self.tracks: dict[str, Any] = {}
        self.gone: list[str] = []

    async def publish_track(self, track: Any, options: Any) -> Any:
        assert isinstance(track, rtc.LocalAudioTrack)
        assert options.source == rtc.TrackSource.SOURCE_MICROPHONE
        self.tracks[track.name] = track
        return SimpleNamespace(sid=track.name)

    async def unpublish_track(self, sid: str) -> None:
        self.gone.append(sid)


async def test_each_direction_is_a_track_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    room, count = Room(), 75
    taken: dict[int, list[np.ndarray]] = {}
    capture = rtc.AudioSource.capture_frame

    async def noting(source: Any, frame: Any) -> None:
        await capture(source, frame)
        assert (frame.sample_rate, frame.num_channels) == (8000, 1)
        taken.setdefault(id(source), []).append(np.frombuffer(bytes(frame.data), "<i2"))

    monkeypatch.setattr(rtc.AudioSource, "capture_frame", noting)

    def send(address: tuple[str, int]) -> None:
        """In a thread: whatever holds up the loop is no pause of the sender."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for k in range(count):
                for side in (0, 1):
                    sender.sendto(packet(k, payload=payload_of(2 * k + side), ssrc=side + 1, direction=side), address)
                time.sleep(0.02)

    async with strep.Receiver("udp:127.0.0.1:0", transport="portable") as receiver:
        sending = asyncio.create_task(asyncio.to_thread(send, listening(receiver)))
        leg = await anext(receiver.legs())
        publishing = asyncio.create_task(publish_leg(room, leg, rate=8000, max_delay_ms=60_000))
        await sending
        receiver.end(LEG)
        await asyncio.wait_for(publishing, 60)
    assert sorted(room.tracks) == sorted(room.gone) == [f"{LEG} a-inbound", f"{LEG} a-outbound"]
    wanted = [np.concatenate([pcmu(payload_of(2 * k + side)) for k in range(count)]) for side in (0, 1)]
    heard = [np.concatenate(frames) for frames in taken.values()]
    heard.sort(key=lambda samples: samples[0] != wanted[0][0])
    np.testing.assert_array_equal(heard, wanted)


async def test_wrong_rates_are_refused() -> None:
    stream: strep.Stream = None  # type: ignore[assignment]
    with pytest.raises(strep.ConfigurationError, match="rate"):
        await publish_stream(Room(), stream, rate=7000)
