"""Plain codecs, decoded and encoded by numpy: G.711 and L16 (RFC 3551)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from .facts import CODECS

__all__ = ["PCMA", "PCMU", "decode", "encode", "likelier_law", "transcode"]

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

PCMU: Final = CODECS["PCMU"].codec
PCMA: Final = CODECS["PCMA"].codec


def _mulaw_table() -> I16:
    """ITU-T G.711 table 2b: sign, 3 bits segment, 4 bits step, all inverted; 14-bit values scaled to 16."""
    code = ~np.arange(256, dtype=np.uint8)
    segment = (code >> 4 & 7).astype(np.int32)
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << segment) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> I16:
    """ITU-T G.711 table 1b: even bits inverted; 13-bit values scaled to 16."""
    code = np.arange(256, dtype=np.uint8) ^ np.uint8(0x55)
    segment = (code >> 4 & 7).astype(np.int32)
    step = (code & 15).astype(np.int32) << 4
    magnitude = np.where(segment == 0, step + 8, step + 264 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES: Final = {"PCMU": _mulaw_table(), "PCMA": _alaw_table()}


def _pairs(table: I16) -> npt.NDArray[np.uint32]:
    """Two codes to two samples in one look-up: half as many look-ups, 1.8 times as fast. uint32 (65536,)."""
    code = np.arange(65_536, dtype=np.uint16)
    return table[code.view(np.uint8)].view(np.uint32)


_PAIR_TABLES: Final = {name: _pairs(table) for name, table in _TABLES.items()}


_AT_ONCE: Final = 32_768  # look-ups: their indices, as numpy wants them, stay in the CPU's cache


def _encode_table(name: str) -> U8:
    """For each of the 65,536 samples the code that decodes to the nearest value (of two, to the one nearer to zero)."""
    table = _TABLES[name].astype(np.int32)
    codes = np.argsort(table, kind="stable")
    values = table[codes]
    samples = np.arange(-32_768, 32_768)
    upper = np.clip(np.searchsorted(values, samples), 1, 255)
    below, above = values[upper - 1], values[upper]
    take_below = (samples - below < above - samples) | ((samples - below == above - samples) & (samples > 0))
    best = np.where(take_below, upper - 1, upper)
    encoded = codes[best].astype(np.uint8)
    if name == "PCMU":
        encoded[samples == 0] = 0xFF  # plus zero, not minus zero
    return np.roll(encoded, -32_768)  # indexed by the sample as uint16


_ENCODERS: Final = {name: _encode_table(name) for name in _TABLES}


def decode(codec: Codec, payload: U8) -> I16:
    """int16 samples, channels interleaved, of ``payload``: uint8 (n,), whole payloads end to end."""
    if codec.name == "L16":
        return payload[: payload.size // 2 * 2].view(">i2").astype(np.int16)
    even = payload.size // 2
    if payload.ctypes.data % 2 or even < 64:
        return _TABLES[codec.name].take(payload)
    table, codes, values = _PAIR_TABLES[codec.name], payload[: even * 2].view(np.uint16), np.empty(even, np.uint32)
    for begin in range(0, even, _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        table.take(codes[part], out=values[part], mode="clip")
    pairs = values.view(np.int16)
    return np.append(pairs, _TABLES[codec.name][payload[-1:]]) if payload.size % 2 else pairs


def encode(codec: Codec, samples: I16) -> U8:
    """Payload bytes, uint8 (n,), of int16 samples, channels interleaved: the inverse of :func:`decode`."""
    if codec.name == "L16":
        return np.ascontiguousarray(samples.astype(">i2")).view(np.uint8).reshape(-1)
    return _ENCODERS[codec.name].take(np.ascontiguousarray(samples).view(np.uint16))


@lru_cache
def _between(name: str, target: str) -> U8:
    """The code of the other G.711 law for each code of one, uint8 (256,)."""
    return _ENCODERS[target].take(_TABLES[name].view(np.uint16))


_CLEARLY: Final = 0.8  # how much rougher the wrong law must be
_LOUDNESS: Final = 0.3  # the weight of a sample's own size, by which silence is told


def likelier_law(payload: U8) -> Codec | None:
    """Which law sound is coded in: PCMU or PCMA; None where that is not clear, and for what is no sound at all.

    ``payload``: uint8 (n,), some hundred samples or more. Neighbouring samples of sound stand near each other, and most
    are small. Taken for the other law a code has another segment: in place of the segments 0 1 2 3 4 5 6 7 come
    2 3 0 1 6 7 4 5, silence (0xFF, 0xD5) becomes loud, and sound rough. Roughness is counted in steps of the scale.
    """
    rough = {}
    for law, plus_zero in ((PCMU, 0xFF), (PCMA, 0xD5)):
        code = payload ^ np.uint8(plus_zero)
        size = (code & 0x7F).astype(np.int16)
        step = np.where(code & 0x80, -size - 1, size)
        rough[law] = float(np.abs(np.diff(step)).mean() + _LOUDNESS * np.abs(step).mean()) if len(payload) > 1 else 0.0
    smooth, other = sorted(rough, key=rough.__getitem__)
    return smooth if rough[smooth] < _CLEARLY * rough[other] else None


def transcode(codec: Codec, target: Codec, payload: U8) -> U8:
    """Payload bytes, put into another plain codec of the same rate and channels."""
    if codec.frame_bytes == target.frame_bytes == 1:
        return _between(codec.name, target.name).take(payload)
    return encode(target, decode(codec, payload))
