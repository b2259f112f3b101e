"""Keys that a caller presses, as telephone-events (RFC 4733). Pure.

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|     event     |E|R| volume    |          duration             |     E: the key was released
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from .._model.exceptions import ConfigurationError

__all__ = ["EVENT_BYTES", "TELEPHONE_EVENT", "KeyPress", "event_payload", "plan_keys"]

TELEPHONE_EVENT: Final = 101  # the payload type; its clock is that of the audio
EVENT_BYTES: Final = 4
_KEYS: Final = "0123456789*#ABCD"  # events 0 to 15 (RFC 4733 table 3)
_TONE_MS: Final = 100
_PAUSE_MS: Final = 100
_END_PACKETS: Final = 3  # the last packet is sent three times (2.5.1.4)
_VOLUME_DB: Final = 10  # below 0 dBm0
_DURATION_LIMIT: Final = 0xFFFF  # RTP timestamp units: a field of 16 bits


@dataclass(frozen=True, slots=True)
class KeyPress:
    """A key pressed in a stream: packets ``first`` to ``first + packets - 1`` are events instead of audio.

    ``begin_s``: seconds since the stream's packet 0. ``duration_s``: as the last packets say. Both by RTP timestamps.
    """

    key: str
    first: int
    packets: int
    begin_s: float
    duration_s: float


def plan_keys(keys: str, at_s: float, *, ptime_ms: float, packets: int) -> tuple[KeyPress, ...]:
    """When keys are pressed: one after the other, 100 ms each with 100 ms between. Raises ConfigurationError."""
    keys = keys.upper()
    wrong = sorted(set(keys) - set(_KEYS))
    if wrong:
        raise ConfigurationError(f"dtmf {keys!r}: there is no key {wrong[0]!r}; choose from {_KEYS}")
    if not 0 <= at_s < 1e6:
        raise ConfigurationError(f"dtmf at {at_s} s: choose 0 or more")
    tone, pause = max(1, round(_TONE_MS / ptime_ms)), max(1, round(_PAUSE_MS / ptime_ms))
    first = round(at_s * 1000 / ptime_ms)
    pressed = []
    for key in keys:
        press = KeyPress(key, first, tone + _END_PACKETS - 1, first * ptime_ms / 1000, tone * ptime_ms / 1000)
        pressed.append(press)
        first += press.packets + pause
    if pressed and pressed[-1].first + pressed[-1].packets > packets:
        needed = (pressed[-1].first + pressed[-1].packets) * ptime_ms / 1000
        raise ConfigurationError(f"dtmf {keys!r} from {at_s:g} s on: calls must be {needed:g} s or longer")
    return tuple(pressed)


def event_payload(press: KeyPress, packet: int, units: int) -> bytes:
    """Payload of packet ``packet`` (from 0) of a key press. ``units``: RTP timestamp units from packet to packet."""
    tone = press.packets - _END_PACKETS + 1
    duration = min((min(packet, tone - 1) + 1) * units, _DURATION_LIMIT)
    return struct.pack("!BBH", _KEYS.index(press.key), (packet >= tone - 1) << 7 | _VOLUME_DB, duration)
