"""Which codec a payload type is (RFC 3551), and which carry no audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from .facts import CODECS, NO_AUDIO, REDUNDANT, UNKNOWN, CodecFacts, codec_facts, parse_codec

__all__ = ["MALFORMED_RED", "TELEPHONE_EVENT", "PayloadTypes"]

TELEPHONE_EVENT: Final = "telephone-event"  # RFC 4733
_COMFORT_NOISE: Final = "CN"  # RFC 3389

# stands for packets whose redundant audio data contradict themselves: one more than what 7 bits hold
MALFORMED_RED: Final = 128
_TYPES: Final = 129  # with it

_EVENT_TYPES: Final = (101, 110, 126)  # dynamic, by habit: SIP telephones' number, and WebRTC's two
_NOISE_TYPES: Final = (13,)  # static
_FIRST_DYNAMIC: Final = 96
_FURTHER_DYNAMIC: Final = range(35, 64)  # not assigned, and used by WebRTC when it runs out of others: 63 for RED


class PayloadTypes:
    """Static payload types, the dynamic ones that calls use by habit, and those that the user names.

    ``overrides``: {96: "L16/16000", 97: "opus/48000/2", 98: "telephone-event", 99: "CN", 121: "red/8000"} or Codec
    objects. Raises ConfigurationError for what is no payload type, and for codecs that are not known here.

    ``codecs``      tuple of Codec; columns of codecs hold indices into it, UNKNOWN, or NO_AUDIO
    ``candidates``  tuple of packed Codecs, in the order in which guesses try them
    ``measured``    bool (len(codecs) + 2,): payloads say how long they are. The two entries more are for NO_AUDIO and
                    UNKNOWN.
    ``ticks_a_byte`` int64 (len(codecs) + 2,): RTP clock ticks of a payload byte; 0 where that is no whole number

    By payload type, shape (129,), the last one for MALFORMED_RED:
    ``index_of``    int16: a codec's index, UNKNOWN or NO_AUDIO
    ``is_event``    bool: telephone-events
    ``is_noise``    bool: comfort noise
    ``is_red``      bool: redundant audio data (RFC 2198), which hold packets of other types
    ``guessable``   bool: dynamic, and nobody says what it is
    ``peeked``      bool: payloads must be looked into
    """

    def __init__(self, overrides: Mapping[int, str | Codec] | None = None) -> None:
        rows = list(CODECS.values())
        named: dict[int, Codec | str] = {
            number: parse_codec(spelled)
            for row in rows
            if row.decodable
            for number, spelled in row.static_types.items()
        }
        self.candidates = tuple(
            row.codec for row in sorted(rows, key=lambda row: row.guess_rank) if row.packed and row.guess_rank
        )
        linear = [Codec(r.name, rate, rate, 1, r.sample_bytes) for r in rows for rate in r.guessed_rates]
        codecs = [codec for codec in named.values() if isinstance(codec, Codec)] + [*self.candidates, *linear]
        named |= {row.dynamic_type: row.codec for row in rows if row.habitual and row.dynamic_type is not None}
        named |= dict.fromkeys(_EVENT_TYPES, TELEPHONE_EVENT) | dict.fromkeys(_NOISE_TYPES, _COMFORT_NOISE)
        for payload_type, spelled in (overrides or {}).items():
            if not 0 <= payload_type <= 127:
                raise ConfigurationError(f"payload type {payload_type}: choose 0 to 127 (dynamic ones are 96 to 127)")
            named[payload_type] = _named(spelled)
        codecs += [codec for codec in named.values() if isinstance(codec, Codec)]
        self.codecs = tuple(dict.fromkeys(codecs))
        self._usable = {codec: _usable(codec) for codec in self.codecs}
        facts = [codec_facts(codec) for codec in self.codecs]
        self.measured = np.array([bool(row.counter) for row in facts] + [False, False])
        ticks = [_ticks_a_byte(codec, row) for codec, row in zip(self.codecs, facts, strict=True)]
        self.ticks_a_byte = np.array([*ticks, 0, 0], np.int64)
        self._named = named
        self.index_of = np.full(_TYPES, UNKNOWN, np.int16)
        self.is_event = np.zeros(_TYPES, np.bool_)
        self.is_noise = np.zeros(_TYPES, np.bool_)
        self.is_red = np.zeros(_TYPES, np.bool_)
        for payload_type, what in named.items():
            self.is_red[payload_type] = what == REDUNDANT
            if what != REDUNDANT:  # which never comes as far as to where its index would be asked for
                self.index_of[payload_type] = NO_AUDIO if isinstance(what, str) else self.index_of_codec(what)
            self.is_event[payload_type] = what == TELEPHONE_EVENT
            self.is_noise[payload_type] = what == _COMFORT_NOISE
        numbers = np.arange(_TYPES)
        dynamic = (numbers >= _FIRST_DYNAMIC) | np.isin(numbers, _FURTHER_DYNAMIC)
        self.guessable = dynamic & (numbers != MALFORMED_RED) & ~np.isin(numbers, list(named))
        measured = [number for number, what in named.items() if isinstance(what, Codec) and codec_facts(what).counter]
        self.peeked = self.is_event | self.is_noise | self.guessable
        self.peeked[measured] = True

    def index_of_codec(self, codec: Codec) -> int:
        """UNKNOWN for codecs that are not known, or cannot be decoded because an extra is missing."""
        return self.codecs.index(codec) if self._usable.get(codec) else UNKNOWN

    def why_not(self, payload_type: int) -> str:
        """Why packets of a payload type are not decoded."""
        what = self._named.get(payload_type)
        if isinstance(what, Codec):
            return f"payload type {payload_type} ({what.name}) needs a decoder: {codec_facts(what).install}"
        undecoded = (row for row in CODECS.values() if not row.decodable)
        name = next((row.name for row in undecoded if payload_type in row.static_types), "")
        text = f"{payload_type} ({name})" if name else str(payload_type)
        return f"payload type {text} is not decoded here"

    @staticmethod
    def parse_option(text: str) -> tuple[int, Codec | str]:
        """ "96=L16/16000" → (96, Codec)."""
        number, equals, spelled = text.partition("=")
        if not equals or not number.isdigit() or not 0 <= int(number) <= 127:
            raise ConfigurationError(f"{text!r}: give N=NAME/RATE with N from 0 to 127, like 96=L16/16000")
        return int(number), _named(spelled)


def _named(spelled: str | Codec) -> Codec | str:
    if isinstance(spelled, Codec):
        row = CODECS.get(spelled.name.upper())
        if row is None or not row.decodable or row.packed is not spelled.packed:
            raise ConfigurationError(f"codec {spelled} is not decoded here")
        return spelled
    name = spelled.strip().partition("/")[0]
    for known in (TELEPHONE_EVENT, _COMFORT_NOISE, REDUNDANT):
        if name.lower() == known.lower():
            return known
    return parse_codec(spelled)


def _usable(codec: Codec) -> bool:
    from .decoder import installed  # only here: who knows payload types needs no decoders

    return not codec.packed or installed(codec)


def _ticks_a_byte(codec: Codec, row: CodecFacts) -> int:
    """RTP clock ticks that a byte of payload stands for; 0 where that is no whole number."""
    if row.packed and not row.frame_sizes:
        return 0
    size, samples = (codec.frame_bytes, 1) if not row.packed else row.frame_sizes[0]
    ticks, rest = divmod(samples * codec.clock_rate, size * codec.sample_rate)
    return 0 if rest else ticks
