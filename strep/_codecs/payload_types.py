"""Which codec a payload type is (RFC 3551), and which carry no audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from .decoders import installed
from .g711 import L16_MONO, L16_STEREO, PCMA, PCMU, parse_codec

__all__ = ["INSTALL", "NO_AUDIO", "TELEPHONE_EVENT", "UNKNOWN", "PayloadTypes"]

# in columns of codecs: what is none of them
UNKNOWN: Final = -1  # a payload type that is not decoded here: counted
NO_AUDIO: Final = -2  # known, and no audio: key presses, comfort noise

TELEPHONE_EVENT: Final = "telephone-event"  # RFC 4733
_COMFORT_NOISE: Final = "CN"  # RFC 3389

_STATIC: Final[dict[int, str]] = {3: "GSM/8000", 9: "G722/8000", 18: "G729/8000"}
# What calls that pass through Telnyx name by habit (WebRTC's numbers, and 101 of SIP telephones): the fork carries no
# SDP. Opus is always signalled as /2 (RFC 7587), telephony fills one channel: decoded to one unless told otherwise.
_HABITUAL: Final[dict[int, str]] = {111: "opus/48000"}
_EVENTS: Final = (101, 110, 126)
_NOISE: Final = (13,)
_GUESSED: Final = (
    "opus/48000",
    "AMR-WB/16000",
    "AMR/8000",
    "G729/8000",
    "iLBC/8000",
    "GSM/8000",
)
_L16_RATES: Final = (8000, 16_000, 24_000, 32_000, 48_000)
_INSIDE: Final = ("opus", "AMR", "AMR-WB")  # whose payloads say how long they are

# RFC 3551 tables 4 and 5: names for reports only
_NAMES: Final = {
    4: "G723",
    5: "DVI4",
    6: "DVI4",
    7: "LPC",
    12: "QCELP",
    14: "MPA",
    15: "G728",
    16: "DVI4",
    17: "DVI4",
}
INSTALL: Final = "pip install 'strep-rtp[codecs]'"


class PayloadTypes:
    """Static payload types, the dynamic ones that calls use by habit, and those that the user names.

    ``overrides``: {96: "L16/16000", 97: "opus/48000/2", 98: "telephone-event", 99: "CN"} or Codec objects. Raises
    ConfigurationError for what is no payload type or no codec that is known here.

    ``codecs`` is a tuple; by payload type, shape (128,): ``index_of`` int16, the codec's index, UNKNOWN or NO_AUDIO;
    ``is_event``, ``is_noise``, ``guessable`` (nobody says what it is), ``peeked`` (payloads must be looked into) bool.
    ``measured`` bool, by codec and two entries more: payloads say how long they are.
    """

    def __init__(self, overrides: Mapping[int, str | Codec] | None = None) -> None:
        self.candidates = tuple(parse_codec(spelled) for spelled in _GUESSED)
        codecs = [PCMU, PCMA, L16_STEREO, L16_MONO, *map(parse_codec, _STATIC.values()), *self.candidates]
        codecs += [Codec("L16", rate, rate, 1, 2) for rate in _L16_RATES]
        named: dict[int, Codec | str] = {0: PCMU, 8: PCMA, 10: L16_STEREO, 11: L16_MONO}
        named |= {number: parse_codec(spelled) for number, spelled in (_STATIC | _HABITUAL).items()}
        named |= dict.fromkeys(_EVENTS, TELEPHONE_EVENT) | dict.fromkeys(_NOISE, _COMFORT_NOISE)
        for payload_type, spelled in (overrides or {}).items():
            if not 0 <= payload_type <= 127:
                raise ConfigurationError(f"payload type {payload_type}: choose 0 to 127 (dynamic ones are 96 to 127)")
            named[payload_type] = _named(spelled)
        codecs += [codec for codec in named.values() if isinstance(codec, Codec)]
        self.codecs = tuple(dict.fromkeys(codecs))
        self._usable = {codec: not codec.packed or installed(codec) for codec in self.codecs}
        self.measured = np.array([codec.name in _INSIDE for codec in self.codecs] + [False, False])
        self._named = named
        self.index_of = np.full(128, UNKNOWN, np.int16)
        self.is_event = np.zeros(128, np.bool_)
        self.is_noise = np.zeros(128, np.bool_)
        for payload_type, what in named.items():
            self.index_of[payload_type] = NO_AUDIO if isinstance(what, str) else self.index_of_codec(what)
            self.is_event[payload_type] = what == TELEPHONE_EVENT
            self.is_noise[payload_type] = what == _COMFORT_NOISE
        dynamic = np.arange(128) >= 96
        self.guessable = dynamic & ~np.isin(np.arange(128), list(named))
        inside = [number for number, what in named.items() if isinstance(what, Codec) and what.name in _INSIDE]
        self.peeked = self.is_event | self.is_noise | self.guessable
        self.peeked[inside] = True

    def index_of_codec(self, codec: Codec) -> int:
        """UNKNOWN for codecs that are not known, or cannot be decoded because an extra is missing."""
        return self.codecs.index(codec) if self._usable.get(codec) else UNKNOWN

    def why_not(self, payload_type: int) -> str:
        """Why packets of a payload type are not decoded."""
        what = self._named.get(payload_type)
        if isinstance(what, Codec):
            return f"payload type {payload_type} ({what.name}) needs a decoder: {INSTALL}"
        name = _NAMES.get(payload_type)
        said = f"{payload_type} ({name})" if name else str(payload_type)
        return f"payload type {said} is not decoded here"

    @staticmethod
    def parse_option(text: str) -> tuple[int, Codec | str]:
        """ "96=L16/16000" → (96, Codec)."""
        number, equals, spelled = text.partition("=")
        if not equals or not number.isdigit() or not 0 <= int(number) <= 127:
            raise ConfigurationError(f"{text!r}: give N=NAME/RATE with N from 0 to 127, like 96=L16/16000")
        return int(number), _named(spelled)


def _named(spelled: str | Codec) -> Codec | str:
    if isinstance(spelled, Codec):
        return spelled
    name = spelled.strip().partition("/")[0]
    for known in (TELEPHONE_EVENT, _COMFORT_NOISE):
        if name.lower() == known.lower():
            return known
    return parse_codec(spelled)
